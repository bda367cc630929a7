/* SPDX-License-Identifier: MIT */
/* Tasks in worker processes that die, are killed, or are busy. */
#include "task_kit.h"

static bool is_there(void *arg)
{
    return semel_future_pid(arg) > 0;
}

static void check_death(const char *how, const char *words)
{
    struct site site;
    struct watcher it = { 0 };
    const struct semel_result *result;
    char pid[16];
    uint64_t begin;

    kit_open(&site, 1);
    kit_submit(&site, &it, "die", how);
    kit_run_until(&site, is_there, it.future);
    snprintf(pid, sizeof pid, "%d", semel_future_pid(it.future));
    begin = kit_now_ms();
    kit_finish(&site, &it);
    assert_true(kit_now_ms() - begin < 20000); /* not by its deadline */
    assert_string_equal(it.log, "executing item 0 item 1 failed");
    result = semel_future_result(it.future);
    assert_int_equal(result->outcome, SEMEL_UNKNOWN);
    assert_int_equal(result->status, SEMEL_HANDLER_DIED);
    assert_non_null(strstr(result->text, words));
    assert_non_null(strstr(result->text, pid));
    kit_forget(&it);
    kit_submit(&site, &it, "count", "2"); /* another process serves */
    kit_finish(&site, &it);
    kit_assert_body(it.future, "2");
    kit_forget(&it);
    kit_close(&site);
}

static void test_death(void **state)
{
    (void)state;
    check_death("s9", "signal 9");
    check_death("s6", "signal 6");
    check_death("e3", "code 3");
    check_death("e0", "code 0");
}

/* Killed from outside, while another task in another worker goes on. */
static void test_killed_from_outside(void **state)
{
    struct site site;
    struct watcher victim = { 0 }, other = { 0 };

    (void)state;
    kit_open(&site, 2);
    kit_submit(&site, &victim, "wait", site.place.path);
    kit_submit(&site, &other, "wait", site.place.path);
    kit_run_until(&site, kit_has_item, &victim);
    kit_run_until(&site, kit_has_item, &other);
    assert_int_not_equal(semel_future_pid(victim.future), semel_future_pid(other.future));
    assert_int_equal(kill(semel_future_pid(victim.future), SIGKILL), 0);
    kit_finish(&site, &victim);
    assert_string_equal(victim.log, "executing item on failed");
    assert_non_null(strstr(semel_future_result(victim.future)->text, "SIGKILL"));
    assert_int_equal(semel_future_state(other.future), SEMEL_FUTURE_EXECUTING);
    assert_true(semel_future_cancel(other.future));
    kit_finish(&site, &other);
    kit_forget(&victim);
    kit_forget(&other);
    kit_close(&site);
}

/* One that does not listen is killed: failed; or cancelled, if that was asked first. */
static void test_kill(void **state)
{
    struct site site;
    struct watcher it = { 0 };

    (void)state;
    kit_open(&site, 1);
    kit_submit(&site, &it, "ignore", "60000");
    assert_int_equal(semel_future_kill(it.future), SEMEL_WOULD_BLOCK); /* nobody has it yet */
    kit_run_until(&site, kit_has_item, &it);
    assert_int_equal(semel_future_kill(it.future), SEMEL_OK);
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing item on failed");
    assert_non_null(strstr(semel_future_result(it.future)->text, "signal 9"));
    assert_int_equal(semel_future_kill(it.future), SEMEL_ALREADY);
    kit_forget(&it);
    kit_submit(&site, &it, "ignore", "60000");
    kit_run_until(&site, kit_has_item, &it);
    assert_true(semel_future_cancel(it.future));
    kit_run_for(&site, 30);
    assert_int_equal(semel_future_state(it.future), SEMEL_FUTURE_CANCELLING);
    assert_int_equal(semel_future_kill(it.future), SEMEL_OK);
    assert_true(semel_future_kill(it.future) == SEMEL_OK ||
                semel_future_kill(it.future) == SEMEL_ALREADY);
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing item on cancelling cancelled");
    assert_int_equal(semel_future_outcome(it.future), SEMEL_UNKNOWN);
    kit_forget(&it);
    kit_close(&site);
}

static void submit_again(struct site *site, struct watcher *it, const char *body)
{
    struct semel_task_options options = kit_options(it);

    options.rerun_ok = true;
    assert_int_equal(semel_executor_submit(site->executor, "die again", semel_bytes_text(body),
                                           &options, &it->future),
                     SEMEL_OK);
}

/* Where that is harmless it runs again, a few times, and says that what came before is void. */
static void test_rerun(void **state)
{
    struct site site;
    struct watcher it = { 0 };
    char log[512] = "executing item 0 item 1";

    (void)state;
    kit_open(&site, 2);
    submit_again(&site, &it, "s9");
    kit_finish(&site, &it);
    for (int i = 0; i < SEMEL_POOL_RERUNS_MAX; i++)
        strcat(log, " again item 0 item 1");
    strcat(log, " failed");
    assert_string_equal(it.log, log);
    assert_int_equal(it.restarts, SEMEL_POOL_RERUNS_MAX);
    kit_forget(&it);
    it.cancel_at_item = true; /* one that was cancelled does not */
    submit_again(&site, &it, "s9");
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing item 0 cancelling cancelled");
    kit_forget(&it);
    submit_again(&site, &it, "s9"); /* nor one that was killed */
    kit_run_until(&site, kit_has_item, &it);
    if (semel_future_kill(it.future) == SEMEL_OK) {
        kit_finish(&site, &it);
        assert_int_equal(it.restarts, 0);
    }
    kit_finish(&site, &it);
    assert_int_equal(it.last, SEMEL_FUTURE_FAILED);
    kit_forget(&it);
    kit_close(&site);
}

/* A pool that was given serves on after the executor; one of its own is gone, and its processes. */
static void test_ownership(void **state)
{
    struct site site;
    struct watcher it = { 0 };
    struct semel_pool_options options = SEMEL_POOL_OPTIONS_INIT;
    struct semel_executor_options given = SEMEL_EXECUTOR_OPTIONS_INIT;
    struct semel_pool *pool;
    struct semel_result result;
    int pid;

    (void)state;
    kit_open(&site, 1);
    kit_submit(&site, &it, "wait", site.place.path);
    kit_run_until(&site, kit_has_item, &it);
    pid = semel_future_pid(it.future);
    assert_non_null(semel_executor_pool(site.executor));
    assert_int_equal(semel_executor_destroy(site.executor), SEMEL_OK);
    assert_int_equal(kill(pid, 0), -1); /* its own is no more */
    kit_forget(&it);

    options.workers = 1;
    assert_int_equal(semel_pool_create(&pool, &options), SEMEL_OK);
    given.pool = pool;
    assert_int_equal(semel_executor_create(&site.executor, site.loop, &given), SEMEL_OK);
    assert_ptr_equal(semel_executor_pool(site.executor), pool);
    kit_submit(&site, &it, "wait", site.place.path);
    kit_run_until(&site, kit_has_item, &it);
    assert_int_equal(semel_executor_shutdown(site.executor, -1, NULL), SEMEL_OK);
    assert_int_equal(semel_executor_destroy(site.executor), SEMEL_OK);
    site.executor = NULL;
    kit_forget(&it);
    assert_int_equal(semel_pool_call(pool, "count", semel_bytes_text("2"), NULL, &result),
                     SEMEL_VALUE);
    semel_result_clear(&result);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    kit_close(&site);
}

/* Destroyed at any moment: in line, being seated, at a worker, while that dies. */
static void test_destroy_at_any_moment(void **state)
{
    int fds = kit_count_fds(), threads = kit_count_threads();

    (void)state;
    for (int i = 0; i < 24; i++) {
        struct watcher it[3];
        struct site site;

        memset(it, 0, sizeof it);
        kit_open(&site, 1);
        kit_submit(&site, &it[0], i % 2 ? "die" : "ignore", i % 2 ? "s9" : "300");
        kit_submit(&site, &it[1], "count", "1");
        kit_submit(&site, &it[2], "count", "1");
        if (i % 3 == 0)
            kit_run_until(&site, kit_has_item, &it[0]);
        if (i % 4 == 1)
            (void)semel_future_kill(it[0].future);
        kit_run_for(&site, i * 2);
        assert_int_equal(semel_executor_destroy(site.executor), SEMEL_OK);
        site.executor = NULL;
        for (int k = 0; k < 3; k++) {
            assert_int_equal(it[k].dones, 1);
            kit_forget(&it[k]);
        }
        kit_close(&site);
    }
    assert_true(kit_settled(fds, threads));
}

/* A deadline passes in line: it never ran. */
static void test_expired_in_line(void **state)
{
    struct site site;
    struct watcher first = { 0 }, second = { 0 };
    struct semel_task_options options = kit_options(&second);

    (void)state;
    kit_open(&site, 1);
    kit_submit(&site, &first, "hold", site.place.path);
    kit_run_until(&site, kit_has_item, &first);
    options.deadline_ms = 20;
    assert_int_equal(semel_executor_submit(site.executor, "touch",
                                           semel_bytes_text(site.place.path), &options,
                                           &second.future),
                     SEMEL_OK);
    kit_finish(&site, &second);
    kit_release(&site);
    assert_string_equal(second.log, "failed");
    assert_int_equal(semel_future_outcome(second.future), SEMEL_NOT_EXECUTED);
    assert_int_equal(semel_future_result(second.future)->status, SEMEL_EXPIRED);
    kit_finish(&site, &first);
    assert_false(kit_is_there(&site, ".ran"));
    kit_forget(&first);
    kit_forget(&second);
    kit_close(&site);
}

/* Nobody is left to run it. */
static void test_no_workers(void **state)
{
    struct semel_pool_options own = SEMEL_POOL_OPTIONS_INIT;
    struct semel_executor_options options = SEMEL_EXECUTOR_OPTIONS_INIT;
    struct semel_executor *executor = NULL;
    struct site site;

    (void)state;
    kit_open(&site, 1);
    own.program = "/no/such/program";
    options.own_pool = &own;
    assert_int_not_equal(semel_executor_create(&executor, site.loop, &options), SEMEL_OK);
    assert_null(executor);
    assert_int_equal(semel_executor_submit(site.executor, "x", semel_bytes(NULL, 0), NULL, NULL),
                     SEMEL_OK); /* nobody keeps its future */
    kit_close(&site);
}

/* The pool stops on the loop's thread, before the loop could tell the tasks that wait in its line:
 * it does not wait for the loop. */
static void test_pool_stops_first(void **state)
{
    struct site site;
    struct watcher its[3] = { { 0 } };
    struct semel_pool_options options = SEMEL_POOL_OPTIONS_INIT;
    struct semel_executor_options given = SEMEL_EXECUTOR_OPTIONS_INIT;
    enum semel_status status;
    struct semel_pool *pool;

    (void)state;
    kit_open(&site, 1);
    assert_int_equal(semel_executor_destroy(site.executor), SEMEL_OK);
    options.workers = 1;
    assert_int_equal(semel_pool_create(&pool, &options), SEMEL_OK);
    given.pool = pool;
    assert_int_equal(semel_executor_create(&site.executor, site.loop, &given), SEMEL_OK);
    for (int i = 0; i < 3; i++) /* its worker has only begun */
        kit_submit(&site, &its[i], "count", "2");
    status = semel_pool_stop(pool, 100, NULL);
    assert_true(status == SEMEL_OK || status == SEMEL_DEADLINE);
    for (int i = 0; i < 3; i++) {
        kit_finish(&site, &its[i]);
        kit_forget(&its[i]);
    }
    assert_int_equal(semel_pool_stop(pool, -1, NULL), SEMEL_OK);
    assert_int_equal(semel_executor_destroy(site.executor), SEMEL_OK);
    site.executor = NULL;
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    kit_close(&site);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST("R16 ownership: only a pool of its own is closed", test_ownership),
        TEST("a pool that stops before its executor", test_pool_stops_first),
        TEST("R17 worker death: promptly, by signal or exit code", test_death),
        TEST("R17 worker death: killed from outside, others go on", test_killed_from_outside),
        TEST("R17 worker death: where it may run again", test_rerun),
        TEST("kill: failed, or cancelled", test_kill),
        TEST("destroy at any moment", test_destroy_at_any_moment),
        TEST("a deadline that passes in line", test_expired_in_line),
        TEST("no such program", test_no_workers),
    };
    int code = semel_worker_main(argc, argv, kit_export, NULL);

    if (code >= 0)
        return code;
    kit_in_pool = true;
    return cmocka_run_group_tests_name("task_pool", tests, NULL, NULL);
}
