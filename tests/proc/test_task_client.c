/* SPDX-License-Identifier: MIT */
/* Tasks where a client leads to: what is so there only. */
#include "task_kit.h"

static void test_no_process(void **state)
{
    struct site site;
    struct watcher it = { 0 };

    (void)state;
    kit_open(&site, 1);
    kit_submit(&site, &it, "wait", site.place.path);
    assert_int_equal(semel_future_kill(it.future), SEMEL_DENIED);
    assert_int_equal(semel_future_pid(it.future), 0);
    assert_true(semel_future_cancel(it.future));
    kit_finish(&site, &it);
    assert_int_equal(semel_future_kill(it.future), SEMEL_ALREADY);
    assert_int_equal(semel_future_kill(NULL), SEMEL_INVALID);
    kit_forget(&it);
    kit_close(&site);
}

/* The client is not the executor's to end: it and its server serve on. */
static void test_ownership(void **state)
{
    struct site site;
    struct watcher it = { 0 };
    struct semel_result result;

    (void)state;
    kit_open(&site, 1);
    kit_submit(&site, &it, "count", "1");
    kit_finish(&site, &it);
    kit_forget(&it);
    assert_int_equal(semel_executor_shutdown(site.executor, -1, NULL), SEMEL_OK);
    assert_int_equal(semel_executor_destroy(site.executor), SEMEL_OK);
    site.executor = NULL;
    assert_int_equal(semel_client_call(site.client, "count", semel_bytes_text("2"), NULL, &result),
                     SEMEL_VALUE); /* whoever takes no items has the same result */
    assert_memory_equal(result.body.data, "2", result.body.size);
    semel_result_clear(&result);
    kit_close(&site);
}

static bool is_failed(void *arg)
{
    return semel_client_state(arg) == SEMEL_CLIENT_FAILED ||
           semel_client_state(arg) == SEMEL_CLIENT_STOPPED;
}

/* The client ends under its tasks: they fail, or are cancelled, and later ones are refused. */
static void test_stopped_client(void **state)
{
    struct site site;
    struct watcher it = { 0 }, other = { 0 };

    (void)state;
    kit_open(&site, 2);
    kit_submit(&site, &it, "wait", site.place.path);
    kit_submit(&site, &other, "wait", site.place.path);
    kit_run_until(&site, kit_has_item, &it);
    kit_run_until(&site, kit_has_item, &other);
    assert_true(semel_future_cancel(other.future));
    semel_client_stop(site.client);
    kit_run_until(&site, is_failed, site.client);
    kit_finish(&site, &it);
    kit_finish(&site, &other);
    assert_string_equal(it.log, "executing item on failed");
    assert_int_equal(semel_future_result(it.future)->status, SEMEL_STOPPED);
    assert_int_equal(semel_future_outcome(it.future), SEMEL_UNKNOWN);
    assert_string_equal(other.log, "executing item on cancelling cancelled");
    assert_int_equal(
        semel_executor_submit(site.executor, "count", semel_bytes_text("1"), NULL, NULL),
        SEMEL_STOPPED);
    assert_int_equal(semel_executor_tasks(site.executor), 0);
    kit_forget(&it);
    kit_forget(&other);
    kit_close(&site);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("R16 ownership: a client that was given is not closed", test_ownership),
        TEST("no process, no kill", test_no_process),
        TEST("a client that stops", test_stopped_client),
    };

    return cmocka_run_group_tests_name("task_client", tests, NULL, NULL);
}
