/* SPDX-License-Identifier: MIT */
/* The counters add up. */
#include "server_kit.h"
#include "server_wire.h"

static void say_no(struct semel_request *request, void *user)
{
    (void)user;
    REQUIRE(semel_request_fail(request, 1, "no") == SEMEL_OK);
}

static void forget(struct semel_request *request, void *user)
{
    (void)request;
    (void)user;
}

/* A reply may be with its caller before its write is counted, and before its handler returns. */
static bool all_counted(void *arg)
{
    struct semel_server_counters c = rig_counters(arg);

    return c.reads >= 10 && c.writes >= 10 && c.calls_started == 9;
}

static void test_counters(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct semel_server_counters c;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_export(rig, "fail", say_no, NULL, NULL);
    rig_export(rig, "forget", forget, NULL, NULL);
    c = rig_counters(rig);
    assert_int_equal(c.threads + c.connections_open + c.sessions_open + c.calls_received, 0);
    rig_go(rig);
    for (int i = 0; i < 5; i++)
        expect_echo(rig->client, "x");
    for (int i = 0; i < 3; i++)
        expect_gone(rig->client, "fail", SEMEL_FAILURE, SEMEL_FAILED);
    expect_gone(rig->client, "forget", SEMEL_UNKNOWN, SEMEL_DROPPED);
    expect_gone(rig->client, "none", SEMEL_NOT_EXECUTED, SEMEL_NO_METHOD);
    assert_true(kit_eventually(all_counted, rig, 60));
    c = rig_counters(rig);
    assert_int_equal(c.calls_received, 10);
    assert_int_equal(c.values, 5);
    assert_int_equal(c.failures, 3);
    assert_int_equal(c.unknown, 1);
    assert_int_equal(c.not_executed, 1);
    assert_int_equal(c.connections_accepted, 1);
    assert_int_equal(c.connections_open, 1);
    assert_int_equal(c.sessions_created, 1);
    assert_int_equal(c.sessions_open, 1);
    assert_int_equal(c.calls_waiting, 0);
    assert_true(c.bytes_received > 0 && c.bytes_sent > 0);
    /* What a session counted outlives it. */
    semel_client_stop(rig->client);
    while (rig_counters(rig).sessions_open > 0)
        kit_sleep_ms(1);
    c = rig_counters(rig);
    assert_int_equal(c.values, 5);
    assert_int_equal(c.calls_started, 9);
    assert_int_equal(c.sessions_ended, 1);
    semel_server_counters(NULL, &c);
    assert_int_equal(c.values, 0);
    rig_end(rig);
}

/* A session whose abandoned calls go on running is refused more; that counts, too. */
static void test_refused_by_session(void **state)
{
    struct semel_server_options options = { .workers = 2 };
    struct rig *rig = rig_make(&options);
    struct sml_hello hello = hello_of(1, 1);
    struct wire *wire = NULL;
    struct sml_frame frame;
    struct gate gate;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_serve(rig);
    wire = wire_open(rig);
    hello.window = 1;
    wire_hello(wire, &hello);
    wire_expect(wire, SML_WELCOME, &frame);
    for (uint64_t xid = 1; xid <= 2; xid++) {
        wire_call(wire, xid, "gated", "");
        wait_inside(&gate, (int)xid);
        wire_ack(wire, xid, 1);
    }
    assert_int_equal(rig_counters(rig).calls_busy, 0);
    wire_call(wire, 3, "gated", "");
    wire_expect(wire, SML_BUSY, &frame);
    assert_int_equal(rig_counters(rig).calls_busy, 1);
    assert_int_equal(rig_counters(rig).calls_refused, 0);
    gate_open(&gate, true);
    wire_close(wire);
    rig_end(rig);
    gate_fini(&gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("counters add up, also over sessions that are gone", test_counters),
        TEST("what a session refuses by itself is counted", test_refused_by_session),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
