/* SPDX-License-Identifier: MIT */
/* The run queue: its bounds are exact. */
#include "server_kit.h"

struct parade {
    struct rig *rig;
    struct gate *gate;
    int want;
};

static bool all_inside(void *arg)
{
    struct parade *parade = arg;
    struct semel_server_counters counters = rig_counters(parade->rig);

    return gate_inside(parade->gate) == parade->want &&
           counters.calls_received == counters.calls_running + counters.calls_waiting;
}

/* --- exact bounds ------------------------------------------------------------------------- */

static bool busy_twice(void *arg)
{
    return rig_counters(arg).calls_busy >= 2;
}

/* workers + backlog calls are in; the next is refused, or asked for patience and then served. */
static void backlog_is_exact(uint32_t workers, uint32_t backlog)
{
    struct semel_server_options options = {
        .workers = workers, .backlog = backlog, .backlog_none = backlog == 0, .busy_ms = 5
    };
    struct semel_call_options refuse = { .refuse_when_full = true };
    uint32_t count = workers + backlog;
    struct rig *rig = rig_make(&options);
    struct seen seen[32], patient;
    struct semel_result result;
    struct gate gate;
    struct parade parade = { rig, &gate, (int)workers };

    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_go(rig);
    for (uint32_t i = 0; i < count; i++)
        start_call(rig->client, "gated", "x", &refuse, &seen[i], NULL);
    assert_true(kit_eventually(all_inside, &parade, 60));
    assert_int_equal(rig_counters(rig).calls_waiting, backlog);
    assert_int_equal(rig_counters(rig).calls_refused, 0);
    result = expect(rig->client, "gated", "y", &refuse, SEMEL_NOT_EXECUTED, SEMEL_OVERLOADED);
    semel_result_clear(&result);
    assert_int_equal(rig_counters(rig).calls_refused, 1);
    start_call(rig->client, "gated", "z", NULL, &patient, NULL);
    assert_true(kit_eventually(busy_twice, rig, 60));
    assert_int_equal(atomic_load(&patient.times), 0);
    assert_int_equal(gate_inside(&gate), workers);
    gate_open(&gate, true);
    for (uint32_t i = 0; i < count; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, SEMEL_VALUE);
        semel_result_clear(&seen[i].result);
    }
    wait_seen(&patient);
    assert_int_equal(patient.outcome, SEMEL_VALUE);
    semel_result_clear(&patient.result);
    assert_int_equal(gate.most, workers);
    rig_end(rig);
    gate_fini(&gate);
}

static void test_backlog(void **state)
{
    (void)state;
    backlog_is_exact(1, 1);
    backlog_is_exact(3, 4);
    backlog_is_exact(2, 0);
}

/* Two of the limited method run, whatever the workers; those over it block nobody. */
static void test_method_limit(void **state)
{
    struct semel_server_options options = { .workers = 6 };
    struct semel_method_options limit = { .limit = 2 };
    struct rig *rig = rig_make(&options);
    struct seen seen[12];
    struct gate gate;
    struct parade parade = { rig, &gate, 2 };

    (void)state;
    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, &limit);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    for (int i = 0; i < 12; i++)
        start_call(rig->client, "gated", "x", NULL, &seen[i], NULL);
    assert_true(kit_eventually(all_inside, &parade, 60));
    for (int i = 0; i < 20; i++)
        expect_echo(rig->client, "neighbour");
    assert_int_equal(gate_inside(&gate), 2);
    gate_open(&gate, true);
    for (int i = 0; i < 12; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, SEMEL_VALUE);
        semel_result_clear(&seen[i].result);
    }
    assert_int_equal(gate.most, 2);
    assert_int_equal(gate.passed, 12);
    rig_end(rig);
    gate_fini(&gate);
}

/* Parked calls count as waiting: one runs, `backlog` wait, the next is refused. */
static void test_limit_and_backlog(void **state)
{
    struct semel_server_options options = { .workers = 4, .backlog = 2 };
    struct semel_method_options limit = { .limit = 1 };
    struct semel_call_options refuse = { .refuse_when_full = true };
    struct rig *rig = rig_make(&options);
    struct seen seen[3];
    struct gate gate;
    struct parade parade = { rig, &gate, 1 };
    struct semel_result result;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, &limit);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    for (int i = 0; i < 3; i++)
        start_call(rig->client, "gated", "x", &refuse, &seen[i], NULL);
    assert_true(kit_eventually(all_inside, &parade, 60));
    result = expect(rig->client, "gated", "", &refuse, SEMEL_NOT_EXECUTED, SEMEL_OVERLOADED);
    semel_result_clear(&result);
    expect_echo(rig->client, "three workers are free");
    gate_open(&gate, true);
    for (int i = 0; i < 3; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, SEMEL_VALUE);
        semel_result_clear(&seen[i].result);
    }
    rig_end(rig);
    gate_fini(&gate);
}

/* Replies, and takes its time to return. */
static void reply_and_stay(struct semel_request *request, void *user)
{
    (void)user;
    REQUIRE(semel_request_reply(request, "", 0) == SEMEL_OK);
    kit_sleep_ms(2);
}

/* Who has its reply finds the place free that its call held. */
static void test_one_after_the_other(void **state)
{
    struct semel_server_options options = { .workers = 1, .backlog_none = true };
    struct semel_call_options refuse = { .refuse_when_full = true };
    struct rig *rig = rig_make(&options);
    struct semel_result result;

    (void)state;
    rig_export(rig, "stay", reply_and_stay, NULL, NULL);
    rig_go(rig);
    for (int i = 0; i < 100; i++) {
        result = expect(rig->client, "stay", "", &refuse, SEMEL_VALUE, SEMEL_OK);
        semel_result_clear(&result);
    }
    assert_int_equal(rig_counters(rig).calls_refused, 0);
    rig_end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("backlog is exact", test_backlog),
        TEST("a method's limit is exact and blocks nobody", test_method_limit),
        TEST("one caller after the other is never refused", test_one_after_the_other),
        TEST("calls over a limit count as waiting", test_limit_and_backlog),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
