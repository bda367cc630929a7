/* SPDX-License-Identifier: MIT */
/* The worker's side: reports, progress, and the word that a body begins. */
#include "task_kit.h"

#include <stdatomic.h>

static void body_checks(struct semel_request *request, void *user)
{
    int *statuses = user;

    statuses[0] = (int)semel_task_progress(request, semel_bytes(NULL, 0));
    statuses[1] = (int)semel_task_report(NULL, semel_bytes_text("x"));
    statuses[2] = (int)semel_task_progress(NULL, semel_bytes_text("x"));
    statuses[3] = (int)semel_task_report(request, semel_bytes(NULL, 0)); /* an empty item is one */
    statuses[4] = (int)semel_task_report(request, semel_bytes(NULL, 3));
    (void)semel_request_reply(request, NULL, 0);
    statuses[5] = (int)semel_task_report(request, semel_bytes_text("late"));
}

static void test_checks(void **state)
{
    struct site site;
    struct watcher it = { 0 };
    int statuses[6];

    (void)state;
    kit_open(&site, 1);
    memset(statuses, 0xff, sizeof statuses);
    assert_int_equal(semel_task_export(site.server, "checks", body_checks, statuses, NULL),
                     SEMEL_OK);
    assert_int_equal(semel_task_export(site.server, "checks", body_checks, statuses, NULL),
                     SEMEL_ALREADY);
    assert_int_equal(semel_task_export(NULL, "x", body_checks, NULL, NULL), SEMEL_INVALID);
    kit_submit(&site, &it, "checks", "");
    kit_finish(&site, &it);
    assert_string_equal(it.log, "executing item completed");
    kit_run_for(&site, 20);
    assert_int_equal(statuses[0], SEMEL_INVALID);
    assert_int_equal(statuses[1], SEMEL_INVALID);
    assert_int_equal(statuses[2], SEMEL_INVALID);
    assert_int_equal(statuses[3], SEMEL_OK);
    assert_int_equal(statuses[4], SEMEL_INVALID);
    assert_int_equal(statuses[5], SEMEL_ALREADY);
    kit_forget(&it);
    kit_close(&site);
}

/* A method of options, too: a limit of one. */
static void test_options(void **state)
{
    struct site site;
    struct watcher first = { 0 }, second = { 0 };
    struct semel_method_options one = SEMEL_METHOD_OPTIONS_INIT;

    (void)state;
    kit_open(&site, 4);
    one.limit = 1;
    assert_int_equal(semel_task_export(site.server, "one", body_hold, NULL, &one), SEMEL_OK);
    kit_submit(&site, &first, "one", site.place.path);
    kit_run_until(&site, kit_has_item, &first);
    kit_submit(&site, &second, "one", site.place.path);
    kit_run_for(&site, 20);
    assert_int_equal(semel_future_state(second.future), SEMEL_FUTURE_WAITING);
    kit_release(&site);
    kit_finish(&site, &second);
    assert_string_equal(second.log, "executing item on completed");
    kit_finish(&site, &first);
    kit_forget(&first);
    kit_forget(&second);
    kit_close(&site);
}

/* A reader that does not read holds its own body up, and nobody else's. */
static void test_slow_reader(void **state)
{
    struct site site;
    struct watcher it = { 0 }, other = { 0 };

    (void)state;
    kit_open(&site, 2);
    it.quiet = true;
    kit_submit(&site, &it, "count", "200000");
    kit_sleep_ms(100); /* the loop stands still */
    assert_int_equal(semel_future_state(it.future), SEMEL_FUTURE_WAITING);
    kit_submit(&site, &other, "count", "1");
    kit_finish(&site, &other);
    kit_finish(&site, &it);
    assert_int_equal(it.items, 200000);
    assert_true(it.progress <= it.items);
    kit_forget(&it);
    kit_forget(&other);
    kit_close(&site);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("what may be reported", test_checks),
        TEST("options of the method hold", test_options),
        TEST("a slow reader holds up its own body only", test_slow_reader),
    };

    return cmocka_run_group_tests_name("task_body", tests, NULL, NULL);
}
