/* SPDX-License-Identifier: MIT */
/* Futures: what is told of a task, the same wherever it runs. */
#include "task_kit.h"

static void test_sequences(void **state)
{
    struct site site;
    struct watcher it = { 0 };

    (void)state;
    kit_open(&site, 2);
    kit_submit(&site, &it, "count", "0"); /* SR */
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing completed");
    kit_assert_body(it.future, "0");
    kit_forget(&it);
    kit_submit(&site, &it, "break", "0"); /* SX */
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing failed");
    kit_forget(&it);
    kit_submit(&site, &it, "hold", site.place.path); /* SCR */
    kit_run_until(&site, kit_has_item, &it);
    assert_true(semel_future_cancel(it.future));
    kit_release(&site);
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing item on cancelling cancelled");
    assert_int_equal(semel_future_outcome(it.future), SEMEL_VALUE);
    kit_forget(&it);
    kit_submit(&site, &it, "wait", site.place.path); /* SCX */
    kit_run_until(&site, kit_has_item, &it);
    assert_true(semel_future_cancel(it.future));
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing item on cancelling cancelled");
    assert_int_equal(semel_future_outcome(it.future), SEMEL_FAILURE);
    kit_forget(&it);
    kit_close(&site);
}

/* Nothing was heard of its beginning: no executing is told of one that may never have begun. */
static void test_without_a_start(void **state)
{
    struct site site;
    struct watcher it = { 0 };

    (void)state;
    kit_open(&site, 2);
    kit_submit(&site, &it, "no such method", "");
    kit_finish(&site, &it);
    assert_string_equal(it.log, "failed");
    assert_int_equal(semel_future_result(it.future)->status, SEMEL_NO_METHOD);
    assert_int_equal(semel_future_outcome(it.future), SEMEL_NOT_EXECUTED);
    kit_forget(&it);
    kit_submit(&site, &it, "quiet", "1"); /* its first item tells of it */
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing item on completed");
    kit_forget(&it);
    kit_close(&site);
}

static void test_notifications(void **state)
{
    struct site site;
    struct watcher it = { 0 };

    (void)state;
    kit_open(&site, 2);
    kit_submit(&site, &it, "count", "3");
    kit_finish(&site, &it);
    assert_int_equal(it.states, 2);
    assert_int_equal(it.cancellables, 1);
    assert_int_equal(it.dones, 1);
    kit_run_for(&site, 30);
    assert_int_equal(it.states, 2); /* nothing comes behind it */
    kit_forget(&it);
    /* Cancelled in the callback that says that it executes: changes are told inside each other. */
    it.cancel_at_start = true;
    kit_submit(&site, &it, "ignore", "20");
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing cancelling cancelled");
    assert_int_equal(it.cancellables, 1);
    kit_forget(&it);
    /* What was returned already when that callback cancels it is no result any more. */
    it.cancel_at_start = true;
    kit_submit(&site, &it, "quiet", "0");
    kit_sleep_ms(50);
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing cancelling cancelled");
    assert_null(semel_future_result(it.future));
    kit_forget(&it);
    kit_close(&site);
}

static void test_cancel_once(void **state)
{
    struct site site;
    struct watcher it = { 0 };

    (void)state;
    kit_open(&site, 2);
    kit_submit(&site, &it, "wait", site.place.path);
    assert_true(semel_future_cancel(it.future));
    assert_false(semel_future_cancel(it.future));
    assert_int_equal(semel_future_state(it.future), SEMEL_FUTURE_CANCELLING);
    kit_finish(&site, &it);
    assert_false(semel_future_cancel(it.future));
    assert_null(semel_future_result(it.future));
    kit_forget(&it);
    kit_submit(&site, &it, "count", "1");
    kit_finish(&site, &it);
    assert_false(semel_future_cancel(it.future)); /* too late */
    assert_int_equal(semel_future_state(it.future), SEMEL_FUTURE_COMPLETED);
    kit_forget(&it);
    assert_false(semel_future_cancel(NULL));
    kit_close(&site);
}

/* Callbacks are gone when it is done: so may be what they used. */
static void test_callbacks_dropped(void **state)
{
    struct site site;
    struct watcher *it = calloc(1, sizeof *it);
    struct semel_future *future;

    (void)state;
    kit_open(&site, 2);
    kit_submit(&site, it, "count", "2");
    kit_finish(&site, it);
    future = it->future;
    free(it);
    assert_false(semel_future_cancel(future));
    kit_run_for(&site, 20);
    semel_future_unref(future);
    /* The last reference may be given back in the last callback. */
    it = calloc(1, sizeof *it);
    it->give_back_at_done = true;
    kit_submit(&site, it, "count", "2");
    kit_finish(&site, it);
    assert_null(it->future);
    free(it);
    kit_close(&site);
}

static void test_swallowed(void **state)
{
    struct site site;
    struct watcher it = { 0 };
    unsigned progress;

    (void)state;
    kit_open(&site, 2);
    it.cancel_at_item = true;
    it.quiet = true;
    kit_submit(&site, &it, "count", "1000000");
    kit_run_until(&site, kit_has_item, &it);
    progress = it.progress;
    kit_finish(&site, &it);
    assert_int_equal(it.items, 1);
    assert_int_equal(it.progress, progress);
    assert_null(semel_future_result(it.future));
    kit_forget(&it);
    kit_close(&site);
}

static void test_never_runs(void **state)
{
    struct site site;
    struct watcher first = { 0 }, second = { 0 };

    (void)state;
    kit_open(&site, 1);
    kit_submit(&site, &first, "hold", site.place.path);
    kit_run_until(&site, kit_has_item, &first);
    kit_submit(&site, &second, "touch", site.place.path);
    kit_run_for(&site, 20); /* it is in line at the worker */
    assert_int_equal(semel_future_state(second.future), SEMEL_FUTURE_WAITING);
    assert_true(semel_future_cancel(second.future)); /* CA */
    kit_finish(&site, &second);
    assert_string_equal(second.log, "cancelling cancelled");
    kit_release(&site);
    assert_int_equal(semel_future_outcome(second.future), SEMEL_NOT_EXECUTED);
    kit_finish(&site, &first);
    kit_run_for(&site, 20);
    assert_false(kit_is_there(&site, ".ran"));
    kit_forget(&first);
    kit_forget(&second);
    kit_close(&site);
}

static void test_iteration(void **state)
{
    struct site site;
    struct watcher it = { 0 };

    (void)state;
    kit_open(&site, 2);
    kit_submit(&site, &it, "count", "5");
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing item 0 item 1 item 2 item 3 item 4 completed");
    assert_true(it.progress > 0);
    kit_assert_body(it.future, "5");
    kit_forget(&it);
    kit_submit(&site, &it, "break", "3");
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing item 0 item 1 item 2 failed");
    kit_forget(&it);
    it.quiet = true; /* more than one turn of the loop tells */
    kit_submit(&site, &it, "count", "5000");
    kit_finish(&site, &it);
    assert_int_equal(it.items, 5000);
    kit_assert_body(it.future, "5000");
    kit_forget(&it);
    kit_close(&site);
}

static void test_cleanup(void **state)
{
    struct site site;
    struct watcher it = { 0 };

    (void)state;
    kit_open(&site, 2);
    kit_submit(&site, &it, "wait", site.place.path);
    kit_run_until(&site, kit_has_item, &it);
    assert_true(semel_future_cancel(it.future));
    kit_finish(&site, &it);
    assert_true(kit_is_there(&site, ".clean"));
    assert_int_equal(it.items, 1);
    kit_forget(&it);
    kit_close(&site);
}

static void test_error(void **state)
{
    struct site site;
    struct watcher it = { 0 };
    const struct semel_result *result;

    (void)state;
    kit_open(&site, 2);
    kit_submit(&site, &it, "break", "0");
    kit_finish(&site, &it);
    result = semel_future_result(it.future);
    assert_int_equal(result->outcome, SEMEL_FAILURE);
    assert_int_equal(result->status, SEMEL_FAILED);
    assert_int_equal(result->code, 7);
    assert_string_equal(result->text, "ValueError: it broke");
    assert_memory_equal(result->detail.data, "ValueError", result->detail.size);
    assert_string_equal(result->trace, "line 3\nline 2\nline 1");
    kit_forget(&it);
    kit_close(&site);
}

static void test_dropped(void **state)
{
    struct site site;
    struct watcher it = { 0 };

    (void)state;
    kit_open(&site, 1);
    kit_submit(&site, &it, "drop", "");
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing failed");
    assert_int_equal(semel_future_outcome(it.future), SEMEL_UNKNOWN);
    assert_int_equal(semel_future_result(it.future)->status, SEMEL_DROPPED);
    kit_forget(&it);
    kit_close(&site);
}

static void test_deadline(void **state)
{
    struct site site;
    struct watcher it = { 0 };
    struct semel_task_options options = kit_options(&it);

    (void)state;
    kit_open(&site, 1);
    options.deadline_ms = 30;
    assert_int_equal(semel_executor_submit(site.executor, "wait", semel_bytes_text(site.place.path),
                                           &options, &it.future),
                     SEMEL_OK);
    kit_finish(&site, &it);
    /* Nobody cancelled it; it may not even have begun, or only just. */
    if (strcmp(it.log, "failed") != 0 && strcmp(it.log, "executing failed") != 0)
        assert_string_equal(it.log, "executing item on failed");
    kit_forget(&it);
    kit_close(&site);
}

/* What cannot be returned is a failure that says so; whoever ran it takes the next one. */
static void test_unencodable(void **state)
{
    struct site site;
    struct watcher it = { 0 };
    char before[16] = "";

    (void)state;
    kit_open(&site, 1);
    kit_submit(&site, &it, "pid", "");
    kit_finish(&site, &it);
    memcpy(before, semel_future_result(it.future)->body.data,
           semel_future_result(it.future)->body.size);
    kit_forget(&it);
    kit_submit(&site, &it, "huge", "");
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing failed");
    assert_int_equal(semel_future_result(it.future)->code, SEMEL_TOO_LARGE);
    assert_string_equal(semel_future_result(it.future)->text, "too large");
    kit_forget(&it);
    kit_submit(&site, &it, "pid", "");
    kit_finish(&site, &it);
    kit_assert_body(it.future, before);
    kit_forget(&it);
    kit_close(&site);
}

/* --- as deferreds ----------------------------------------------------------------------------- */

struct fired {
    unsigned values, failures;
    enum semel_status status;
    int code;
    const struct semel_future *future;
};

static struct semel_deferred *on_value(struct semel_fired *fired, void *user)
{
    struct fired *it = user;

    it->values++;
    it->future = fired->value;
    kit_assert_body(fired->value, "2");
    return NULL;
}

static struct semel_deferred *on_failure(struct semel_fired *fired, void *user)
{
    struct fired *it = user;

    it->failures++;
    it->status = fired->status;
    it->code = fired->code;
    it->future = fired->value;
    semel_fired_set_value(fired, NULL, NULL);
    return NULL;
}

static bool has_fired(void *arg)
{
    return ((struct fired *)arg)->values + ((struct fired *)arg)->failures > 0;
}

static void defer(struct site *site, struct watcher *it, const char *method, const char *body,
                  struct fired *fired, struct semel_deferred **out)
{
    memset(fired, 0, sizeof *fired);
    kit_submit(site, it, method, body);
    assert_int_equal(semel_future_defer(it->future, out), SEMEL_OK);
    assert_int_equal(semel_deferred_then(*out, on_value, on_failure, fired), SEMEL_OK);
}

static void test_deferred(void **state)
{
    struct site site;
    struct watcher it = { 0 };
    struct semel_deferred *deferred;
    struct fired fired;

    (void)state;
    kit_open(&site, 2);
    defer(&site, &it, "count", "2", &fired, &deferred);
    semel_deferred_unref(deferred);
    kit_run_until(&site, has_fired, &fired);
    assert_int_equal(fired.values, 1);
    assert_ptr_equal(fired.future, it.future);
    assert_int_equal(it.dones, 1);
    assert_int_equal(semel_future_defer(it.future, &deferred), SEMEL_ALREADY);
    kit_forget(&it);
    defer(&site, &it, "break", "2", &fired, &deferred);
    semel_deferred_unref(deferred);
    kit_run_until(&site, has_fired, &fired);
    assert_int_equal(fired.status, SEMEL_FAILED);
    assert_int_equal(fired.code, 7);
    kit_forget(&it);
    defer(&site, &it, "wait", site.place.path, &fired, &deferred);
    semel_deferred_cancel(deferred);
    semel_deferred_unref(deferred);
    assert_int_equal(semel_future_state(it.future), SEMEL_FUTURE_CANCELLING);
    kit_run_until(&site, has_fired, &fired);
    assert_int_equal(fired.status, SEMEL_CANCELLED);
    kit_forget(&it);
    kit_close(&site);
}

/* What is too large for this end is lost, and said to be; the others come. */
static void test_too_large(void **state)
{
    const struct semel_result *result;
    struct site site;
    struct watcher it = { 0 };

    (void)state;
    kit_open(&site, 1);
    kit_submit(&site, &it, "fat", "");
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing item a item b failed");
    result = semel_future_result(it.future);
    assert_int_equal(result->status, SEMEL_PARTS_LOST);
    assert_int_equal(result->outcome, SEMEL_VALUE);
    assert_int_equal(semel_future_outcome(it.future), SEMEL_VALUE);
    kit_forget(&it);
    kit_close(&site);
}

static const struct CMUnitTest tests[] = {
    TEST("R10 future legality: a task's words", test_sequences),
    TEST("R10 future legality: no word of a beginning", test_without_a_start),
    TEST("R11 notifications: only changes, and they agree", test_notifications),
    TEST("R12 cancel: true once, then false", test_cancel_once),
    TEST("R12 cancel: callbacks are dropped when it is done", test_callbacks_dropped),
    TEST("R12 cancel: what comes after it is swallowed", test_swallowed),
    TEST("R12 cancel: an unstarted body never runs", test_never_runs),
    TEST("R13 iteration: in order, early ones survive, a value at the end", test_iteration),
    TEST("R13 iteration: reports fail once cancelled, cleanup runs", test_cleanup),
    TEST("R14 error: code, type, text and trace", test_error),
    TEST("R18 unencodable result: the task fails, the worker goes on", test_unencodable),
    TEST("an item that is too large", test_too_large),
    TEST("a task that does not answer fails", test_dropped),
    TEST("a deadline fails it", test_deadline),
    TEST("a deferred of its end", test_deferred),
};

KIT_MAIN("task", tests)
