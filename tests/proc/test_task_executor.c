/* SPDX-License-Identifier: MIT */
/* Executors: bounds, stopping, shutting down, ending; the same wherever tasks run. */
#include "task_kit.h"

#include <pthread.h>

static void test_shutdown(void **state)
{
    struct site site;
    struct watcher it[3];
    uint32_t running = 77;

    (void)state;
    memset(it, 0, sizeof it);
    kit_open(&site, 4);
    for (int i = 0; i < 3; i++) {
        kit_submit(&site, &it[i], i == 0 ? "ignore" : "hold", i == 0 ? "1" : site.place.path);
        kit_run_until(&site, kit_has_item, &it[i]);
    }
    kit_finish(&site, &it[0]);
    assert_int_equal(semel_executor_shutdown(site.executor, 10, &running), SEMEL_DEADLINE);
    assert_int_equal(running, 2);
    assert_string_equal(site.states, "S");
    assert_int_equal(semel_executor_state(site.executor), SEMEL_EXECUTOR_STOPPING);
    assert_int_equal(semel_future_state(it[1].future), SEMEL_FUTURE_CANCELLING);
    assert_int_equal(semel_executor_shutdown(site.executor, 0, &running), SEMEL_DEADLINE);
    assert_int_equal(running, 2);
    assert_int_equal(
        semel_executor_submit(site.executor, "count", semel_bytes_text("1"), NULL, NULL),
        SEMEL_STOPPED);
    kit_release(&site);
    assert_int_equal(semel_executor_shutdown(site.executor, -1, &running), SEMEL_OK);
    assert_int_equal(running, 0);
    assert_string_equal(site.states, "SX");
    for (int i = 1; i < 3; i++) {
        /* What it was told, it was told in shutdown. */
        assert_string_equal(it[i].log, "executing item on cancelling cancelled");
        assert_int_equal(semel_future_outcome(it[i].future), SEMEL_VALUE);
    }
    running = 77; /* it is over: again, nothing happens */
    assert_int_equal(semel_executor_shutdown(site.executor, 10, &running), SEMEL_OK);
    assert_int_equal(running, 0);
    semel_executor_stop(site.executor);
    assert_string_equal(site.states, "SX");
    for (int i = 0; i < 3; i++)
        kit_forget(&it[i]);
    kit_close(&site);
}

static bool is_stopped(void *arg)
{
    return semel_executor_state(((struct site *)arg)->executor) == SEMEL_EXECUTOR_STOPPED;
}

/* After a shutdown that ran out of time the loop may see to the rest. */
static void test_shutdown_then_loop(void **state)
{
    struct site site;
    struct watcher it = { 0 };
    uint32_t running;

    (void)state;
    kit_open(&site, 1);
    kit_submit(&site, &it, "hold", site.place.path);
    kit_run_until(&site, kit_has_item, &it);
    assert_int_equal(semel_executor_shutdown(site.executor, 1, &running), SEMEL_DEADLINE);
    assert_int_equal(running, 1);
    kit_release(&site);
    kit_run_until(&site, is_stopped, &site);
    assert_int_equal(it.dones, 1);
    assert_int_equal(semel_executor_shutdown(site.executor, 0, &running), SEMEL_OK);
    kit_forget(&it);
    kit_close(&site);
}

static void test_stop(void **state)
{
    struct site site;
    struct watcher it[3];

    (void)state;
    memset(it, 0, sizeof it);
    kit_open(&site, 1);
    kit_submit(&site, &it[0], "wait", site.place.path);
    kit_run_until(&site, kit_has_item, &it[0]);
    kit_submit(&site, &it[1], "touch", site.place.path);
    kit_submit(&site, &it[2], "touch", site.place.path);
    assert_true(semel_future_cancel(it[1].future));
    assert_int_equal(semel_executor_tasks(site.executor), 3);
    semel_executor_stop(site.executor);
    for (int i = 0; i < 3; i++)
        assert_int_equal(semel_future_state(it[i].future), SEMEL_FUTURE_CANCELLING);
    semel_executor_stop(site.executor);
    kit_run_until(&site, is_stopped, &site);
    assert_string_equal(site.states, "SX");
    assert_true(kit_is_there(&site, ".clean"));
    assert_false(kit_is_there(&site, ".ran"));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(semel_future_state(it[i].future), SEMEL_FUTURE_CANCELLED);
        kit_forget(&it[i]);
    }
    kit_close(&site);
    kit_open(&site, 1); /* without tasks it is stopped at once */
    semel_executor_stop(site.executor);
    assert_string_equal(site.states, "SX");
    kit_close(&site);
}

static void test_bound(void **state)
{
    struct site site;
    struct watcher it[3];

    (void)state;
    memset(it, 0, sizeof it);
    kit_open_with(&site, 1, 2);
    kit_submit(&site, &it[0], "hold", site.place.path);
    kit_run_until(&site, kit_has_item, &it[0]); /* it does not wait any more */
    kit_submit(&site, &it[1], "count", "1");
    kit_submit(&site, &it[2], "count", "1");
    assert_int_equal(
        semel_executor_submit(site.executor, "count", semel_bytes_text("1"), NULL, NULL),
        SEMEL_OVERLOADED);
    kit_release(&site);
    for (int i = 0; i < 3; i++) {
        kit_finish(&site, &it[i]);
        kit_forget(&it[i]);
    }
    assert_int_equal(
        semel_executor_submit(site.executor, "count", semel_bytes_text("1"), NULL, NULL), SEMEL_OK);
    kit_close(&site);
}

/* It ends with tasks in every state; those that are not done are told so. */
static void test_destroy(void **state)
{
    struct site site;
    struct watcher it[4];

    (void)state;
    memset(it, 0, sizeof it);
    kit_open(&site, 1);
    kit_submit(&site, &it[0], "count", "1");
    kit_finish(&site, &it[0]);
    kit_submit(&site, &it[1], "wait", site.place.path);
    kit_run_until(&site, kit_has_item, &it[1]);
    kit_submit(&site, &it[2], "touch", site.place.path);
    kit_submit(&site, &it[3], "touch", site.place.path);
    assert_true(semel_future_cancel(it[3].future));
    assert_int_equal(semel_executor_destroy(site.executor), SEMEL_OK);
    site.executor = NULL;
    assert_string_equal(site.states, "SX");
    assert_string_equal(it[0].log, "executing item 0 completed");
    assert_string_equal(it[1].log, "executing item on cancelling cancelled");
    assert_string_equal(it[2].log, "cancelling cancelled");
    assert_string_equal(it[3].log, "cancelling cancelled");
    for (int i = 0; i < 4; i++) { /* they outlive it */
        assert_false(semel_future_cancel(it[i].future));
        assert_int_equal(it[i].dones, 1);
        kit_forget(&it[i]);
    }
    kit_close(&site);
}

/* --- what is refused -------------------------------------------------------------------------- */

struct misuse {
    struct site *site;
    enum semel_status destroy, shutdown, shutdown_now;
};

static void in_callback(struct semel_future *future, unsigned changes, void *user)
{
    struct misuse *it = user;

    (void)future;
    if (!(changes & SEMEL_CHANGED_DONE))
        return;
    it->destroy = semel_executor_destroy(it->site->executor);
    it->shutdown = semel_executor_shutdown(it->site->executor, 10, NULL);
    it->shutdown_now = semel_executor_shutdown(it->site->executor, 0, NULL);
}

static void test_in_callbacks(void **state)
{
    struct site site;
    struct misuse it = { .site = &site };
    struct semel_task_options options = SEMEL_TASK_OPTIONS_INIT;

    (void)state;
    kit_open(&site, 1);
    options.on_change = in_callback;
    options.user = &it;
    assert_int_equal(
        semel_executor_submit(site.executor, "count", semel_bytes_text("1"), &options, NULL),
        SEMEL_OK);
    kit_run_until(&site, is_stopped, &site);
    assert_int_equal(it.destroy, SEMEL_WOULD_DEADLOCK);
    assert_int_equal(it.shutdown, SEMEL_WOULD_DEADLOCK);
    assert_int_equal(it.shutdown_now, SEMEL_WOULD_DEADLOCK);
    kit_close(&site);
}

struct elsewhere {
    struct site *site;
    struct semel_future *future;
    bool cancelled;
    enum semel_status submit, shutdown, destroy, kill, create;
};

static void *use_elsewhere(void *user)
{
    struct elsewhere *it = user;
    struct semel_executor *executor = it->site->executor;

    it->submit = semel_executor_submit(executor, "count", semel_bytes_text("1"), NULL, NULL);
    it->shutdown = semel_executor_shutdown(executor, 0, NULL);
    it->destroy = semel_executor_destroy(executor);
    it->cancelled = semel_future_cancel(it->future);
    it->kill = semel_future_kill(it->future);
    it->create = semel_executor_create(&executor, it->site->loop, NULL);
    semel_executor_stop(it->site->executor);
    return NULL;
}

static void test_other_thread(void **state)
{
    struct site site;
    struct watcher watcher = { 0 };
    struct elsewhere it = { .site = &site };
    pthread_t thread;

    (void)state;
    kit_open(&site, 1);
    kit_submit(&site, &watcher, "wait", site.place.path);
    it.future = watcher.future;
    assert_int_equal(pthread_create(&thread, NULL, use_elsewhere, &it), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(it.submit, SEMEL_DENIED);
    assert_int_equal(it.shutdown, SEMEL_DENIED);
    assert_int_equal(it.destroy, SEMEL_DENIED);
    assert_int_equal(it.kill, SEMEL_DENIED);
    assert_int_equal(it.create, SEMEL_DENIED);
    assert_false(it.cancelled);
    assert_int_equal(semel_executor_state(site.executor), SEMEL_EXECUTOR_RUNNING);
    kit_forget(&watcher);
    kit_close(&site);
}

static void test_invalid(void **state)
{
    struct site site;
    struct semel_executor *other;
    struct semel_pool_options own = SEMEL_POOL_OPTIONS_INIT;
    struct semel_executor_options both = SEMEL_EXECUTOR_OPTIONS_INIT;
    struct semel_task_options options = SEMEL_TASK_OPTIONS_INIT;
    char name[300];

    (void)state;
    kit_open(&site, 1);
    both.pool = (struct semel_pool *)(void *)&own;
    both.client = (struct semel_client *)(void *)&own;
    assert_int_equal(semel_executor_create(&other, site.loop, &both), SEMEL_INVALID);
    both.pool = NULL;
    both.own_pool = &own;
    assert_int_equal(semel_executor_create(&other, site.loop, &both), SEMEL_INVALID);
    assert_int_equal(semel_executor_create(NULL, site.loop, NULL), SEMEL_INVALID);
    assert_int_equal(semel_executor_create(&other, NULL, NULL), SEMEL_INVALID);
    options.deadline_ms = -1;
    assert_int_equal(
        semel_executor_submit(site.executor, "count", semel_bytes_text("1"), &options, NULL),
        SEMEL_INVALID);
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = 0;
    assert_int_equal(semel_executor_submit(site.executor, name, semel_bytes_text("1"), NULL, NULL),
                     SEMEL_INVALID);
    assert_int_equal(semel_executor_submit(site.executor, NULL, semel_bytes_text("1"), NULL, NULL),
                     SEMEL_INVALID);
    assert_int_equal(semel_executor_submit(NULL, "count", semel_bytes_text("1"), NULL, NULL),
                     SEMEL_INVALID);
    assert_int_equal(semel_executor_shutdown(NULL, 0, NULL), SEMEL_INVALID);
    assert_int_equal(semel_executor_destroy(NULL), SEMEL_OK);
    assert_int_equal(semel_executor_state(NULL), SEMEL_EXECUTOR_STOPPED);
    assert_int_equal(semel_executor_tasks(NULL), 0);
    semel_executor_stop(NULL);
    semel_future_unref(NULL);
    assert_null(semel_future_ref(NULL));
    assert_null(semel_future_result(NULL));
    assert_int_equal(semel_executor_tasks(site.executor), 0);
    assert_int_equal(semel_loop_destroy(site.loop), SEMEL_ALREADY); /* the executor lies with it */
    kit_close(&site);
}

/* Many at once, some of them cancelled: each has its end, once, and nothing is left. */
static void test_many(void **state)
{
    enum { MANY = 200 };
    static struct watcher it[MANY];
    struct site site;
    int fds, threads;

    (void)state;
    fds = kit_count_fds();
    threads = kit_count_threads();
    memset(it, 0, sizeof it);
    kit_open(&site, 2);
    for (int i = 0; i < MANY; i++) {
        kit_submit(&site, &it[i], i % 5 == 4 ? "break" : "count", "3");
        if (i % 7 == 3)
            assert_true(semel_future_cancel(it[i].future));
    }
    for (int i = 0; i < MANY; i++) {
        kit_finish(&site, &it[i]);
        if (i % 7 == 3)
            assert_int_equal(it[i].last, SEMEL_FUTURE_CANCELLED);
        else
            assert_int_equal(it[i].last, i % 5 == 4 ? SEMEL_FUTURE_FAILED : SEMEL_FUTURE_COMPLETED);
        assert_true(i % 7 == 3 || it[i].items == 3);
        kit_forget(&it[i]);
    }
    assert_int_equal(semel_executor_tasks(site.executor), 0);
    kit_close(&site);
    assert_true(kit_settled(fds, threads));
}

static const struct CMUnitTest tests[] = {
    TEST("R15 shutdown timeout: how many remain, and again", test_shutdown),
    TEST("R15 shutdown timeout: the loop sees to the rest", test_shutdown_then_loop),
    TEST("stop: all are cancelled, then it is stopped", test_stop),
    TEST("too many that wait are refused", test_bound),
    TEST("destroy: what is not done is cancelled", test_destroy),
    TEST("in callbacks nothing waits", test_in_callbacks),
    TEST("another thread is refused", test_other_thread),
    TEST("what makes no sense is refused", test_invalid),
    TEST("many at once, nothing stays", test_many),
};

KIT_MAIN("task_executor", tests)
