/* SPDX-License-Identifier: MIT */
/* The loop that reads its workers itself: that it does, and that nobody depends on it. */
#include "task_kit.h"

#include <sys/resource.h>

#include "proc/pool_internal.h"
#include "rpc/client_internal.h"

static struct semel_client *client_of(struct semel_pool *pool, uint32_t place)
{
    struct semel_client *client;

    sml_mutex_lock(&pool->lock);
    client = pool->places[place].worker->client;
    sml_mutex_unlock(&pool->lock);
    return client;
}

static uint64_t read_elsewhere(struct semel_client *client)
{
    uint64_t borrowed;

    sml_mutex_lock(&client->lock);
    borrowed = client->conn.borrowed;
    sml_mutex_unlock(&client->lock);
    return borrowed;
}

/* A task from its beginning to its end; which process had it. */
static pid_t run_one(struct site *site)
{
    struct watcher it = { 0 };
    pid_t pid;

    kit_submit(site, &it, "pid", "");
    kit_finish(site, &it);
    assert_string_equal(it.log, "executing completed");
    pid = semel_future_pid(it.future);
    kit_forget(&it);
    return pid;
}

/* Until the loop has read so many replies. */
static void warm_up(struct site *site, uint64_t reads)
{
    struct semel_client *client;
    uint64_t end = kit_now_ms() + 60000;

    (void)run_one(site);
    client = client_of(semel_executor_pool(site->executor), 0);
    while (read_elsewhere(client) < reads) {
        assert_true(kit_now_ms() < end);
        (void)run_one(site);
    }
}

static void test_loop_reads(void **state)
{
    struct site site;

    (void)state;
    kit_open(&site, 1);
    warm_up(&site, 100);
    kit_close(&site);
}

static struct semel_pool *open_shared(struct site *site, uint32_t workers, uint32_t calls)
{
    struct semel_executor_options options = SEMEL_EXECUTOR_OPTIONS_INIT;
    struct semel_pool_options own = SEMEL_POOL_OPTIONS_INIT;

    memset(site, 0, sizeof *site);
    kit_place_make(&site->place);
    own.workers = workers;
    own.calls_per_worker = calls;
    own.restart_min_ms = 1;
    assert_int_equal(semel_pool_create(&options.pool, &own), SEMEL_OK);
    assert_int_equal(semel_loop_create(&site->loop, NULL), SEMEL_OK);
    assert_int_equal(semel_executor_create(&site->executor, site->loop, &options), SEMEL_OK);
    return options.pool;
}

/* The loop has a task, and sees to nothing: other calls of the same worker come and go. */
static void test_loop_is_busy(void **state)
{
    struct site site;
    struct semel_pool *pool = open_shared(&site, 1, 4);
    struct watcher it = { 0 };

    (void)state;
    warm_up(&site, 20);
    kit_submit(&site, &it, "hold", site.place.path);
    for (int i = 0; i < 50; i++) {
        struct semel_result result;

        assert_int_equal(semel_pool_call(pool, "pid", semel_bytes(NULL, 0), NULL, &result),
                         SEMEL_VALUE);
        semel_result_clear(&result);
    }
    kit_release(&site);
    kit_finish(&site, &it);
    kit_assert_body(it.future, "at last");
    kit_forget(&it);
    warm_up(&site, read_elsewhere(client_of(pool, 0)) + 20); /* it reads again afterwards */
    kit_close(&site);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
}

static bool both_done(void *arg)
{
    struct watcher *both = arg;

    return both[0].dones > 0 && both[1].dones > 0;
}

/* Two tasks of one loop at one worker: the loop reads for both. */
static void test_two_at_one(void **state)
{
    struct site site;
    struct semel_pool *pool = open_shared(&site, 1, 4);
    uint64_t end = kit_now_ms() + 60000, before, reads = 0;

    (void)state;
    warm_up(&site, 20);
    while (reads < 20) {
        struct watcher both[2] = { { 0 }, { 0 } };

        assert_true(kit_now_ms() < end);
        /* A loop that does not come for a tick loses its part: lone tasks give it back. */
        before = read_elsewhere(client_of(pool, 0));
        warm_up(&site, before + 1);
        before = read_elsewhere(client_of(pool, 0));
        kit_submit(&site, &both[0], "count", "3");
        kit_submit(&site, &both[1], "count", "2");
        kit_run_until(&site, both_done, both);
        assert_string_equal(both[0].log, "executing item 0 item 1 item 2 completed");
        assert_string_equal(both[1].log, "executing item 0 item 1 completed");
        kit_forget(&both[0]);
        kit_forget(&both[1]);
        reads += read_elsewhere(client_of(pool, 0)) - before;
    }
    kit_close(&site);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
}

/* Two loops, one worker. */
static void test_two_loops(void **state)
{
    struct semel_executor_options options = SEMEL_EXECUTOR_OPTIONS_INIT;
    struct site site, other;

    (void)state;
    options.pool = open_shared(&site, 1, 4);
    memset(&other, 0, sizeof other);
    assert_int_equal(semel_loop_create(&other.loop, NULL), SEMEL_OK);
    assert_int_equal(semel_executor_create(&other.executor, other.loop, &options), SEMEL_OK);
    for (int i = 0; i < 200; i++) {
        struct watcher here = { 0 }, there = { 0 };

        kit_submit(&site, &here, "count", "1");
        kit_submit(&other, &there, "count", "2");
        kit_finish(&other, &there);
        kit_finish(&site, &here);
        kit_assert_body(here.future, "1");
        kit_assert_body(there.future, "2");
        kit_forget(&here);
        kit_forget(&there);
    }
    assert_int_equal(semel_executor_destroy(other.executor), SEMEL_OK);
    assert_int_equal(semel_loop_destroy(other.loop), SEMEL_OK);
    kit_close(&site);
    assert_int_equal(semel_pool_destroy(options.pool), SEMEL_OK);
}

/* A worker dies between two tasks, and during one; nothing of it stays behind. */
static void test_deaths(void **state)
{
    struct site site;
    int fds = 0;

    (void)state;
    kit_open(&site, 1);
    for (int i = 0; i < 40; i++) {
        struct watcher it = { 0 };
        pid_t pid = 0;

        for (int n = 0; n < 12; n++)
            pid = run_one(&site);
        if (i % 2) {
            assert_int_equal(kill(pid, SIGKILL), 0);
            kit_run_for(&site, 5);
        }
        kit_submit(&site, &it, i % 2 ? "pid" : "die", "s9");
        kit_finish(&site, &it);
        kit_forget(&it);
        if (i == 9)
            fds = kit_count_fds();
    }
    (void)run_one(&site);
    kit_run_for(&site, 50);
    assert_in_range(kit_count_fds(), 0, fds + 4);
    kit_close(&site);
}

/* There is no descriptor to watch: the tasks are told of all the same. */
static void test_no_descriptor(void **state)
{
    struct site site;
    struct rlimit before, now;

    (void)state;
    kit_open(&site, 1);
    kit_run_for(&site, 100); /* the worker is there */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    now = before;
    now.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    for (int i = 0; i < 50; i++)
        (void)run_one(&site);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    warm_up(&site, 20);
    kit_close(&site);
}

/* Ends while a task is there, and between tasks. */
static void test_destroyed(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        struct site site;
        struct watcher it = { 0 };

        kit_open(&site, 1);
        warm_up(&site, 5);
        if (i % 2)
            kit_submit(&site, &it, "ignore", "30");
        kit_close(&site);
        kit_forget(&it);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST("the loop reads its replies itself", test_loop_reads),
        TEST("a busy loop holds up nobody else", test_loop_is_busy),
        TEST("two tasks at one worker", test_two_at_one),
        TEST("two loops at one worker", test_two_loops),
        TEST("workers die", test_deaths),
        TEST("no descriptor to be had", test_no_descriptor),
        TEST("destroyed", test_destroyed),
    };
    int code = semel_worker_main(argc, argv, kit_export, NULL);

    if (code >= 0)
        return code;
    kit_in_pool = true;
    return cmocka_run_group_tests_name("proc/task_tap", tests, NULL, NULL);
}
