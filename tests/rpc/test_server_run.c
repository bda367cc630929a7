/* SPDX-License-Identifier: MIT */
/* Who runs what: parallelism, its exact bounds, and slow handlers where short ones were expected. */
#include "server_kit.h"

static void nap_300(struct semel_request *request, void *user)
{
    (void)user;
    kit_sleep_ms(300);
    REQUIRE(semel_request_reply(request, "", 0) == SEMEL_OK);
}

/* --- M2 ---------------------------------------------------------------------------------- */

static void test_parallel_on_demand(void **state)
{
    struct semel_server_options options = { .workers = 50, .on_demand = true };
    struct rig *rig = rig_make(&options);
    struct seen seen[50];
    uint64_t start;

    (void)state;
    rig_export(rig, "nap", nap_300, NULL, NULL);
    rig_go(rig);
    expect_gone(rig->client, "nap", SEMEL_VALUE, SEMEL_OK);
    assert_true(rig_counters(rig).threads <= 4); /* leader, watchdog, a worker, a spare one */
    start = kit_now_ms();
    for (int i = 0; i < 50; i++)
        start_call(rig->client, "nap", "", NULL, &seen[i], NULL);
    for (int i = 0; i < 50; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, SEMEL_VALUE);
        semel_result_clear(&seen[i].result);
    }
    assert_true(kit_now_ms() - start < 5000); /* one after the other they would take 15 s */
    assert_true(rig_counters(rig).threads <= 52);
    rig_end(rig);
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

/* --- inline --------------------------------------------------------------------------------- */

struct moody {
    struct gate gate;
    atomic_bool blocks;
};

static void moody(struct semel_request *request, void *user)
{
    struct moody *mood = user;

    if (atomic_exchange(&mood->blocks, false))
        gate_pass(&mood->gate);
    (void)!semel_request_reply(request, "", 0);
}

static bool none_running(void *arg)
{
    return rig_counters(arg).calls_running == 0;
}

static bool has_run_inline(void *arg)
{
    struct rig *rig = arg;

    for (int i = 0; i < 200; i++)
        expect_echo(rig->client, "short");
    return rig_counters(rig).calls_inline > 0;
}

static bool moody_runs_inline(void *arg)
{
    struct rig *rig = arg;
    uint64_t before = rig_counters(rig).calls_inline;

    for (int i = 0; i < 20; i++)
        expect_gone(rig->client, "moody", SEMEL_VALUE, SEMEL_OK);
    return rig_counters(rig).calls_inline >= before + 10;
}

/* A method that was short blocks on the thread that reads: the neighbours go on, new connections
 * are accepted, and the method is kept off that thread from then on. */
static void takeover(bool on_demand)
{
    struct semel_server_options options = { .workers = 2, .on_demand = on_demand };
    struct rig *rig = rig_make(&options);
    struct moody mood = { .blocks = false };
    struct semel_client *other;
    struct seen stuck;
    uint64_t before;

    gate_init(&mood.gate);
    rig_export(rig, "moody", moody, &mood, NULL);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    assert_true(kit_eventually(has_run_inline, rig, 60));
    assert_true(kit_eventually(moody_runs_inline, rig, 60));
    before = rig_counters(rig).takeovers_by_watchdog;
    atomic_store(&mood.blocks, true);
    start_call(rig->client, "moody", "", NULL, &stuck, NULL);
    wait_inside(&mood.gate, 1);
    for (int i = 0; i < 50; i++)
        expect_echo(rig->client, "neighbour");
    other = rig_connect(rig, NULL);
    expect_echo(other, "another client");
    assert_int_equal(semel_client_destroy(other), SEMEL_OK);
    assert_true(rig_counters(rig).takeovers_by_watchdog > before);
    assert_true(rig_counters(rig).threads <= 4);
    assert_int_equal(atomic_load(&stuck.times), 0);
    gate_open(&mood.gate, true);
    wait_seen(&stuck);
    assert_int_equal(stuck.outcome, SEMEL_VALUE);
    semel_result_clear(&stuck.result);
    assert_true(kit_eventually(none_running, rig, 60));
    before = rig_counters(rig).calls_inline;
    for (int i = 0; i < 20; i++)
        expect_gone(rig->client, "moody", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(rig_counters(rig).calls_inline, before);
    rig_end(rig);
    gate_fini(&mood.gate);
}

static void test_watchdog(void **state)
{
    (void)state;
    takeover(false);
    takeover(true);
}

/* Many that turn slow at once, on a server of one worker: threads stay bounded, all answer. */
static void test_watchdog_again(void **state)
{
    struct semel_server_options options = { .workers = 1 };
    struct rig *rig = rig_make(&options);
    struct moody mood = { .blocks = false };
    struct seen stuck;

    (void)state;
    gate_init(&mood.gate);
    rig_export(rig, "moody", moody, &mood, NULL);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    for (int round = 0; round < 3; round++) {
        gate_open(&mood.gate, false);
        atomic_store(&mood.blocks, true);
        start_call(rig->client, "moody", "", NULL, &stuck, NULL);
        wait_inside(&mood.gate, 1);
        kit_sleep_ms(20);
        gate_open(&mood.gate, true);
        wait_seen(&stuck);
        semel_result_clear(&stuck.result);
        for (int i = 0; i < 300; i++)
            expect_gone(rig->client, "moody", SEMEL_VALUE, SEMEL_OK);
        assert_true(rig_counters(rig).threads <= 3);
    }
    rig_end(rig);
    gate_fini(&mood.gate);
}

/* --- max_run ----------------------------------------------------------------------------- */

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
        TEST("backlog is exact", test_backlog),
        TEST("a method's limit is exact and blocks nobody", test_method_limit),
        TEST("calls over a limit count as waiting", test_limit_and_backlog),
        TEST("a short method that blocks loses the reading thread", test_watchdog),
        TEST("so it does on a server of one worker, again and again", test_watchdog_again),
        TEST("max_run turns a call unknown and goes on counting it", test_max_run),
        TEST("M9 worker survival", test_worker_survival),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
