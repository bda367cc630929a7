/* SPDX-License-Identifier: MIT */
/* Sessions: replay, end, unknown ones, orphans, takeover. */
#include "server_kit.h"
#include "server_wire.h"

#include <sched.h>

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

#define CROWD 8     /* workers, all inside at first */
#define WAITING 200 /* calls behind them */

static bool all_wait(void *arg)
{
    return rig_counters(arg).calls_waiting == WAITING;
}

/* A session with calls under way, all of which wait. */
static struct wire *queue_up(struct rig *rig, uint8_t name)
{
    struct wire *wire = wire_open(rig);
    struct sml_hello hello = hello_of(name, 1);
    struct sml_frame frame;

    hello.window = WAITING;
    wire_hello(wire, &hello);
    wire_expect(wire, SML_WELCOME, &frame);
    for (uint64_t xid = 1; xid <= WAITING; xid++)
        wire_call(wire, xid, "echo", "waits");
    assert_true(kit_eventually(all_wait, rig, 60));
    return wire;
}

static bool none_left(void *arg)
{
    struct semel_server_counters counters = rig_counters(arg);

    return counters.sessions_open == 1 && counters.calls_running + counters.calls_waiting == 0;
}

/* What the end of a session cancels, one call after the other, workers take at the same time. */
static void test_end_session_race(void **state)
{
    struct semel_server_options options = { .workers = CROWD };
    struct rig *rig = rig_make(&options);
    uint8_t out[SML_FRAME_BYTES_MAX];
    size_t size = sml_encode_bye(out, SML_BYE_END, semel_bytes_text(""));
    struct seen seen[CROWD];
    struct gate gate;

    (void)state;
    gate_init(&gate);
    rig_export(rig, "gated", gated, &gate, NULL);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    for (uint8_t round = 1; round <= 100; round++) {
        struct wire *wire;

        for (int i = 0; i < CROWD; i++)
            start_call(rig->client, "gated", "", NULL, &seen[i], NULL);
        wait_inside(&gate, CROWD);
        wire = queue_up(rig, round);
        assert_true(wire_send(wire, out, size));
        for (int i = 0; i < round % 10; i++)
            sched_yield();
        gate_open(&gate, true);
        for (int i = 0; i < CROWD; i++) {
            wait_seen(&seen[i]);
            assert_int_equal(seen[i].outcome, SEMEL_VALUE);
            semel_result_clear(&seen[i].result);
        }
        assert_true(kit_eventually(none_left, rig, 60));
        wire_close(wire);
        gate_open(&gate, false);
    }
    rig_end(rig);
    gate_fini(&gate);
}

/* A client that ends its session while its call runs, and is gone when the reply is written. */
static void leave_first(struct semel_request *request, void *user)
{
    struct wire *wire = atomic_exchange((_Atomic(struct wire *) *)user, NULL);
    uint8_t out[SML_FRAME_BYTES_MAX];

    if (wire) {
        size_t size = sml_encode_bye(out, SML_BYE_END, semel_bytes_text("bye"));

        REQUIRE(wire_send(wire, out, size));
        wire_close(wire);
    }
    REQUIRE(semel_request_reply(request, "", 0) == SEMEL_OK);
}

static void test_end_session_unread(void **state)
{
    struct rig *rig = rig_make(NULL);
    /* Handlers on several threads look at it; only a socket orders them. */
    static _Atomic(struct wire *) leaver;

    (void)state;
    rig_export(rig, "leave", leave_first, &leaver, NULL);
    rig_go(rig);
    for (uint8_t round = 1; round <= 60; round++) {
        struct wire *wire;

        /* Known to be short, it runs on the thread that reads, which then writes before it reads
         * the BYE. */
        for (int i = 0; i < 20; i++)
            expect_gone(rig->client, "leave", SEMEL_VALUE, SEMEL_OK);
        wire = wire_meet(rig, round);
        atomic_store(&leaver, wire);
        wire_call(wire, 1, "leave", "");
        assert_true(kit_eventually(one_session, rig, 60));
    }
    assert_int_equal(rig_counters(rig).sessions_ended, 60);
    rig_end(rig);
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

/* --- stored replies -------------------------------------------------------------------------- */

static void grow(struct semel_request *request, void *user)
{
    static const char reply[600];

    atomic_fetch_add((atomic_int *)user, 1);
    REQUIRE(semel_request_reply(request, reply, sizeof reply) == SEMEL_OK);
}

/* Replies that nobody acknowledges hold further calls back; the acknowledgement lets them go. */
static void test_stored(void **state)
{
    struct semel_server_options options = { .body_bytes = 1000, .session_bytes = 1000 };
    struct rig *rig = rig_make(&options);
    atomic_int runs = 0;
    struct sml_frame frame;
    struct wire *wire;

    (void)state;
    rig_export(rig, "grow", grow, &runs, NULL);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    wire = wire_meet(rig, 1);
    for (int round = 0; round < 20; round++) {
        uint64_t xid = (uint64_t)round * 5;

        for (uint64_t i = 1; i <= 2; i++) {
            wire_call(wire, xid + i, "grow", "");
            wire_expect(wire, SML_REPLY, &frame);
        }
        for (uint64_t i = 3; i <= 5; i++)
            wire_call(wire, xid + i, "echo", "held back");
        expect_echo(rig->client, "others are not");
        wire_ack(wire, xid + 1, 2);
        for (int i = 3; i <= 5; i++)
            wire_expect(wire, SML_REPLY, &frame);
        wire_ack(wire, xid + 3, 3);
    }
    assert_int_equal(atomic_load(&runs), 40);
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
        TEST("S8 end session: cancelled while workers take its calls", test_end_session_race),
        TEST("S8 end session: said before a write fails", test_end_session_unread),
        TEST("stored replies hold calls back until they are fetched", test_stored),
        TEST("S9 unknown session is said to be unknown", test_unknown_session),
        TEST("S9 orphan is collected by its idle limit", test_orphan),
        TEST("the newest connection takes a session over", test_takeover),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
