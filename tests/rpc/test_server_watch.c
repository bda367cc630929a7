/* SPDX-License-Identifier: MIT */
/* The watchdog: slow handlers where short ones were expected. */
#include "server_kit.h"

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

/* A method that was short blocks, on the thread that reads unless the machine was so busy that the
 * method seemed long: the neighbours go on, new connections are accepted. Returns whether the
 * watchdog had to help. */
static bool block_once(struct rig *rig, struct moody *mood)
{
    uint64_t before = rig_counters(rig).takeovers_by_watchdog;
    struct semel_client *other;
    struct seen stuck;
    bool helped;

    assert_true(kit_eventually(moody_runs_inline, rig, 60));
    gate_open(&mood->gate, false);
    atomic_store(&mood->blocks, true);
    start_call(rig->client, "moody", "", NULL, &stuck, NULL);
    wait_inside(&mood->gate, 1);
    for (int i = 0; i < 50; i++)
        expect_echo(rig->client, "neighbour");
    other = rig_connect(rig, NULL);
    expect_echo(other, "another client");
    assert_int_equal(semel_client_destroy(other), SEMEL_OK);
    helped = rig_counters(rig).takeovers_by_watchdog > before;
    assert_true(rig_counters(rig).threads <= 4);
    assert_int_equal(atomic_load(&stuck.times), 0);
    gate_open(&mood->gate, true);
    wait_seen(&stuck);
    assert_int_equal(stuck.outcome, SEMEL_VALUE);
    semel_result_clear(&stuck.result);
    assert_true(kit_eventually(none_running, rig, 60));
    return helped;
}

/* Afterwards the method is kept off that thread. */
static void takeover(bool on_demand)
{
    struct semel_server_options options = { .workers = 2, .on_demand = on_demand };
    struct rig *rig = rig_make(&options);
    struct moody mood = { .blocks = false };
    uint64_t before;
    int tries = 0;

    gate_init(&mood.gate);
    rig_export(rig, "moody", moody, &mood, NULL);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    assert_true(kit_eventually(has_run_inline, rig, 60));
    while (!block_once(rig, &mood))
        assert_true(++tries < 50);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("a short method that blocks loses the reading thread", test_watchdog),
        TEST("so it does on a server of one worker, again and again", test_watchdog_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
