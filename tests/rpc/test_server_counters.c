/* SPDX-License-Identifier: MIT */
/* The counters add up. */
#include "server_kit.h"

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
    assert_true(c.reads >= 10 && c.writes >= 10);
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

int main(void)
{
    const struct CMUnitTest tests[] = { TEST("counters add up, also over sessions that are gone",
                                             test_counters) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
