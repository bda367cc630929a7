/* SPDX-License-Identifier: MIT */
/* Sessions: replay, end, unknown ones, orphans, takeover. */
#include "server_kit.h"
#include "server_wire.h"

/* --- S6, S8, S9 ---------------------------------------------------------------------------- */

static void fail_counted(struct semel_request *request, void *user)
{
    atomic_fetch_add((atomic_int *)user, 1);
    REQUIRE(semel_request_fail(request, 11, "once and for all") == SEMEL_OK);
}

static struct wire *wire_resume(struct rig *rig, uint8_t name, uint64_t conn_no,
                                const struct sml_outstanding *list, uint32_t count)
{
    struct wire *wire = wire_open(rig);
    struct sml_hello hello = hello_of(name, conn_no);
    uint8_t out[SML_FRAME_BYTES_MAX];

    hello.kind = SML_RESUME;
    hello.count = count;
    hello.next = count ? list[count - 1].xid + 1 : 1;
    wire_hello(wire, &hello);
    if (count > 0)
        assert_true(wire_send(wire, out, sml_encode_outstanding(out, list, count)));
    return wire;
}

static void test_failure_replayed(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct sml_call_frame call = call_of("fail", "");
    struct sml_outstanding listed = { .xid = 1, .fingerprint = call.fingerprint };
    struct sml_frame frame;
    atomic_int runs = 0;
    struct wire *wire;

    (void)state;
    rig_export(rig, "fail", fail_counted, &runs, NULL);
    rig_go(rig);
    wire = wire_meet(rig, 1);
    wire_call(wire, 1, "fail", "");
    for (uint64_t conn_no = 2; conn_no < 6; conn_no++) {
        wire_expect(wire, SML_REPLY, &frame);
        assert_int_equal(frame.u.reply.verdict.outcome, SEMEL_FAILURE);
        assert_int_equal(frame.u.reply.verdict.code, 11);
        assert_memory_equal(frame.u.reply.verdict.text.data, "once and for all", 16);
        wire_close(wire);
        wire = wire_resume(rig, 1, conn_no, &listed, 1);
        wire_expect(wire, SML_WELCOME, &frame);
        assert_true(frame.u.welcome.resumed);
        wire_expect(wire, SML_LIST, &frame);
        assert_int_equal(sml_list_listed(&frame.u.list, 0).state, SML_STATE_DONE);
    }
    wire_close(wire);
    assert_int_equal(atomic_load(&runs), 1);
    rig_end(rig);
}

static bool one_session(void *arg)
{
    return rig_counters(arg).sessions_open == 1;
}

static void test_end_session(void **state)
{
    struct rig *rig = rig_make(NULL);
    uint8_t out[SML_FRAME_BYTES_MAX];
    struct wire *wire;
    size_t size = sml_encode_bye(out, SML_BYE_END, semel_bytes_text("done"));

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_echo(rig->client, "the client's own session stays");
    wire = wire_meet(rig, 1);
    wire_call(wire, 1, "echo", "x");
    wire_expect_reply(wire, 1, SEMEL_VALUE, "x");
    assert_int_equal(rig_counters(rig).sessions_open, 2);
    memcpy(out + size, out, size); /* said twice: harmless */
    assert_true(wire_send(wire, out, 2 * size));
    assert_true(kit_eventually(one_session, rig, 60));
    assert_int_equal(rig_counters(rig).sessions_ended, 1);
    wire_close(wire);
    wire = wire_resume(rig, 1, 2, NULL, 0);
    wire_expect_bye(wire, SML_BYE_SESSION_LOST, NULL);
    wire_close(wire);
    assert_int_equal(rig_counters(rig).protocol_errors, 0);
    rig_end(rig);
}

static bool no_handler(void *arg)
{
    struct semel_server_counters counters = rig_counters(arg);

    return counters.sessions_open == 0 && counters.calls_running == 0;
}

/* A session is ended while its calls run and wait. */
static void test_end_session_busy(void **state)
{
    struct semel_server_options options = { .workers = 1 };
    struct rig *rig = rig_make(&options);
    uint8_t out[SML_FRAME_BYTES_MAX];
    struct wire *wire;
    struct gate gate;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_serve(rig);
    wire = wire_meet(rig, 1);
    for (uint64_t xid = 1; xid <= 4; xid++)
        wire_call(wire, xid, "gated", "x");
    wait_inside(&gate, 1);
    assert_true(wire_send(wire, out, sml_encode_bye(out, SML_BYE_END, semel_bytes_text(""))));
    while (rig_counters(rig).calls_waiting > 0)
        kit_sleep_ms(1);
    gate_open(&gate, true);
    assert_true(kit_eventually(no_handler, rig, 60));
    assert_int_equal(gate.passed, 1);
    wire_close(wire);
    rig_end(rig);
    gate_fini(&gate);
}

static void test_unknown_session(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct sml_hello hello = hello_of(1, 2);
    struct wire *wire;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    wire = wire_resume(rig, 42, 2, NULL, 0);
    wire_expect_bye(wire, SML_BYE_SESSION_LOST, "no such session");
    wire_close(wire);
    /* Known, but the secret is not. */
    wire = wire_meet(rig, 1);
    wire_close(wire);
    hello.kind = SML_RESUME;
    hello.secret[3] ^= 1;
    wire = wire_open(rig);
    wire_hello(wire, &hello);
    wire_expect_bye(wire, SML_BYE_DENIED, NULL);
    wire_close(wire);
    rig_end(rig);
}

static bool all_expired(void *arg)
{
    struct semel_server_counters counters = rig_counters(arg);

    return counters.sessions_expired == 1 && counters.sessions_open == 0;
}

/* A session that nobody comes back to is collected by its idle limit, with its stored reply. */
static void test_orphan(void **state)
{
    struct semel_server_options options = { .idle_session_ms = 100 };
    struct rig *rig = rig_make(&options);
    struct wire *wire;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_serve(rig);
    wire = wire_meet(rig, 1);
    wire_call(wire, 1, "echo", "x");
    wire_expect_reply(wire, 1, SEMEL_VALUE, "x");
    wire_close(wire);
    assert_true(kit_eventually(all_expired, rig, 60));
    wire = wire_resume(rig, 1, 2, NULL, 0);
    wire_expect_bye(wire, SML_BYE_SESSION_LOST, NULL);
    wire_close(wire);
    rig_end(rig);
}

/* --- takeover -------------------------------------------------------------------------------- */

static void test_takeover(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct sml_call_frame call = call_of("gated", "x");
    struct sml_outstanding listed = { .xid = 1, .fingerprint = call.fingerprint };
    struct wire *old, *wire;
    struct sml_frame frame;
    struct gate gate;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_go(rig);
    old = wire_meet(rig, 1);
    wire_call(old, 1, "gated", "x");
    wait_inside(&gate, 1);
    wire = wire_resume(rig, 1, 5, &listed, 1);
    wire_expect(wire, SML_WELCOME, &frame);
    wire_expect(wire, SML_LIST, &frame);
    assert_int_equal(sml_list_listed(&frame.u.list, 0).state, SML_STATE_RUNNING);
    wire_expect_bye(old, SML_BYE_TAKEN_OVER, NULL);
    wire_close(old);
    old = wire_resume(rig, 1, 4, &listed, 1); /* a delayed old HELLO steals nothing */
    wire_expect_bye(old, SML_BYE_TAKEN_OVER, NULL);
    wire_close(old);
    gate_open(&gate, true);
    wire_expect_reply(wire, 1, SEMEL_VALUE, "x");
    assert_int_equal(gate.passed, 1);
    assert_int_equal(rig_counters(rig).reattached, 1);
    wire_close(wire);
    rig_end(rig);
    gate_fini(&gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("S6 handler failure is stored, and replayed at every resume", test_failure_replayed),
        TEST("S8 end session, twice", test_end_session),
        TEST("S8 end session while its calls run and wait", test_end_session_busy),
        TEST("S9 unknown session is said to be unknown", test_unknown_session),
        TEST("S9 orphan is collected by its idle limit", test_orphan),
        TEST("the newest connection takes a session over", test_takeover),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
