/* SPDX-License-Identifier: MIT */
/* Handlers in parallel, and what becomes of the pool when they misbehave. */
#include "server_kit.h"

/* --- M2 ---------------------------------------------------------------------------------- */

/* All are inside at the same time, on threads that were not there before. */
static void test_parallel_on_demand(void **state)
{
    struct semel_server_options options = { .workers = 50, .on_demand = true };
    struct rig *rig = rig_make(&options);
    struct seen seen[50];
    struct gate gate;

    (void)state;
    gate_init(&gate);
    gate_open(&gate, true);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_go(rig);
    expect_gone(rig->client, "gated", SEMEL_VALUE, SEMEL_OK);
    gate_open(&gate, false);
    assert_true(rig_counters(rig).threads <= 4); /* leader, watchdog, a worker, a spare one */
    for (int i = 0; i < 50; i++)
        start_call(rig->client, "gated", "", NULL, &seen[i], NULL);
    wait_inside(&gate, 50);
    gate_open(&gate, true);
    for (int i = 0; i < 50; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, SEMEL_VALUE);
        semel_result_clear(&seen[i].result);
    }
    assert_true(rig_counters(rig).threads <= 52);
    rig_end(rig);
    gate_fini(&gate);
}

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

/* Fixed or on demand, never more than `workers` are inside, and all of them are used. */
static void pool_caps(bool on_demand)
{
    struct semel_server_options options = { .workers = 5, .on_demand = on_demand };
    struct rig *rig = rig_make(&options);
    struct gate gate;
    struct seen seen[30];
    struct parade parade = { rig, &gate, 5 };

    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_go(rig);
    for (int i = 0; i < 30; i++)
        start_call(rig->client, "gated", "x", NULL, &seen[i], NULL);
    assert_true(kit_eventually(all_inside, &parade, 60));
    kit_sleep_ms(50);
    assert_int_equal(gate_inside(&gate), 5);
    gate_open(&gate, true);
    for (int i = 0; i < 30; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, SEMEL_VALUE);
        semel_result_clear(&seen[i].result);
    }
    assert_int_equal(gate.most, 5);
    rig_end(rig);
    gate_fini(&gate);
}

static void test_pool_caps(void **state)
{
    (void)state;
    pool_caps(false);
    pool_caps(true);
}

static void test_slow_does_not_delay_fast(void **state)
{
    struct semel_server_options options = { .workers = 2 };
    struct rig *rig = rig_make(&options);
    struct gate gate;
    struct seen slow;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    start_call(rig->client, "gated", "slow", NULL, &slow, NULL);
    wait_inside(&gate, 1);
    for (int i = 0; i < 100; i++)
        expect_echo(rig->client, "fast");
    assert_int_equal(atomic_load(&slow.times), 0);
    gate_open(&gate, true);
    wait_seen(&slow);
    semel_result_clear(&slow.result);
    rig_end(rig);
    gate_fini(&gate);
}

/* --- max_run ----------------------------------------------------------------------------- */

static bool none_running(void *arg)
{
    return rig_counters(arg).calls_running == 0;
}

static bool one_running(void *arg)
{
    return rig_counters(arg).calls_running == 1;
}

static void stubborn(struct semel_request *request, void *user)
{
    bool first = !gate_is_open(user);

    gate_pass(user);
    REQUIRE(semel_request_cancelled(request) || !first);
    REQUIRE(semel_request_reply(request, "late", 4) == SEMEL_OK);
}

static void test_max_run(void **state)
{
    struct semel_method_options most = { .max_run_ms = 50, .limit = 1 };
    struct rig *rig = rig_make(NULL);
    struct seen second;
    struct gate gate;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "stubborn", stubborn, &gate, &most);
    rig_go(rig);
    expect_gone(rig->client, "stubborn", SEMEL_UNKNOWN, SEMEL_MAX_RUN);
    assert_true(one_running(rig)); /* it still counts */
    start_call(rig->client, "stubborn", "", NULL, &second, NULL);
    kit_sleep_ms(100);
    assert_int_equal(gate_inside(&gate), 1);
    assert_int_equal(atomic_load(&second.times), 0);
    gate_open(&gate, true);
    wait_seen(&second);
    semel_result_clear(&second.result);
    assert_true(kit_eventually(none_running, rig, 60));
    rig_end(rig);
    gate_fini(&gate);
}

/* --- M9 ---------------------------------------------------------------------------------- */

static void badly(struct semel_request *request, void *user)
{
    static char big[2048];
    struct semel_bytes body = semel_request_body(request);
    char what = body.size ? *(const char *)body.data : ' ';

    (void)user;
    if (what == 'f') {
        REQUIRE(semel_request_fail(request, 7, "no") == SEMEL_OK);
    } else if (what == 'l') {
        REQUIRE(semel_request_reply(request, big, sizeof big) == SEMEL_TOO_LARGE);
        REQUIRE(semel_request_reply(request, "ok", 2) == SEMEL_OK);
        REQUIRE(semel_request_reply(request, "ok", 2) == SEMEL_ALREADY);
        REQUIRE(semel_request_fail(request, 1, "no") == SEMEL_ALREADY);
    } else if (what == 'L') {
        REQUIRE(semel_request_reply(request, big, sizeof big) == SEMEL_TOO_LARGE);
    }
}

static void test_worker_survival(void **state)
{
    struct semel_server_options options = { .workers = 2, .body_bytes = 1024 };
    struct rig *rig = rig_make(&options);
    struct semel_server_options none = { .no_workers = true };
    struct semel_server *server = NULL;
    struct gate gate;
    struct seen seen[2];

    (void)state;
    assert_int_equal(semel_server_create(&server, &none), SEMEL_INVALID);
    assert_null(server);
    gate_init(&gate);
    rig_export(rig, "badly", badly, NULL, NULL);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_go(rig);
    for (int i = 0; i < 20; i++) {
        struct semel_result result;

        result = expect(rig->client, "badly", "f", NULL, SEMEL_FAILURE, SEMEL_FAILED);
        assert_int_equal(result.code, 7);
        semel_result_clear(&result);
        result = expect(rig->client, "badly", "l", NULL, SEMEL_VALUE, SEMEL_OK);
        semel_result_clear(&result);
        result = expect(rig->client, "badly", "L", NULL, SEMEL_UNKNOWN, SEMEL_DROPPED);
        semel_result_clear(&result);
        result = expect(rig->client, "badly", "-", NULL, SEMEL_UNKNOWN, SEMEL_DROPPED);
        semel_result_clear(&result);
    }
    /* The pool is as large as ever. */
    for (int i = 0; i < 2; i++)
        start_call(rig->client, "gated", "x", NULL, &seen[i], NULL);
    wait_inside(&gate, 2);
    gate_open(&gate, true);
    for (int i = 0; i < 2; i++) {
        wait_seen(&seen[i]);
        semel_result_clear(&seen[i].result);
    }
    rig_end(rig);
    gate_fini(&gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("M2 parallelism: 50 naps at once on demand", test_parallel_on_demand),
        TEST("M2 parallelism: the pool caps it exactly", test_pool_caps),
        TEST("M2 parallelism: slow does not delay fast", test_slow_does_not_delay_fast),
        TEST("max_run turns a call unknown and goes on counting it", test_max_run),
        TEST("M9 worker survival", test_worker_survival),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
