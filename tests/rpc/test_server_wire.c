/* SPDX-License-Identifier: MIT */
/* The server against clients that speak frames by hand: bad input, sessions that end or are
 * unknown, takeover, slow greetings, bounds. */
#include "server_kit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "io/connect.h"
#include "io/pair.h"
#include "os/clock.h"
#include "wire/frame.h"

/* --- a client by hand ---------------------------------------------------------------------- */

struct wire {
    struct sml_channel channel;
    uint8_t in[4 * SML_FRAME_BYTES_MAX];
    size_t have, used;
    bool ended;
};

static struct wire *wire_open(struct rig *rig)
{
    struct wire *wire = calloc(1, sizeof *wire);
    struct sml_address *address = malloc(sizeof *address);

    assert_non_null(wire);
    assert_non_null(address);
    assert_int_equal(sml_address_parse(rig->place.address, address, NULL), SEMEL_OK);
    assert_int_equal(
        sml_connect_now(address, sml_clock_now() + 10 * SML_SECOND, &wire->channel, NULL),
        SEMEL_OK);
    free(address);
    return wire;
}

static void wire_close(struct wire *wire)
{
    sml_channel_close(&wire->channel);
    free(wire);
}

/* False: the server has closed. */
static bool wire_send(struct wire *wire, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;

    while (size > 0) {
        struct sml_io io = sml_channel_write(&wire->channel, at, size);

        if (io.kind == SML_IO_AGAIN) {
            sml_channel_wait_writable(&wire->channel, -1, SML_NEVER);
            continue;
        }
        if (io.kind != SML_IO_MOVED)
            return false;
        at += io.bytes;
        size -= io.bytes;
    }
    return true;
}

/* The next frame, with views that last until the next call; false: the connection has ended. */
static bool wire_frame(struct wire *wire, struct sml_frame *out)
{
    const char *why = NULL;
    size_t bytes;

    for (;;) {
        struct sml_io io;
        enum sml_decoded decoded = sml_frame_decode(wire->in + wire->used,
                                                    wire->have - wire->used,
                                                    SML_PAYLOAD_BYTES_MAX, out, &bytes, &why);

        assert_int_not_equal(decoded, SML_MALFORMED);
        if (decoded == SML_DECODED) {
            wire->used += bytes;
            return true;
        }
        memmove(wire->in, wire->in + wire->used, wire->have - wire->used);
        wire->have -= wire->used;
        wire->used = 0;
        io = sml_channel_read_wait(&wire->channel, wire->in + wire->have,
                                   sizeof wire->in - wire->have,
                                   sml_clock_now() + 30 * SML_SECOND);
        if (io.kind == SML_IO_ENDED || io.kind == SML_IO_BROKEN)
            return false;
        if (io.kind == SML_IO_MOVED)
            wire->have += io.bytes;
    }
}

static void wire_expect(struct wire *wire, enum sml_frame_type type, struct sml_frame *out)
{
    assert_true(wire_frame(wire, out));
    if (out->type != type)
        fail_msg("%s came instead of %s%s%.*s", sml_frame_name(out->type), sml_frame_name(type),
                 out->type == SML_BYE ? ": " : "",
                 out->type == SML_BYE ? (int)out->u.bye.text.size : 0,
                 out->type == SML_BYE ? (const char *)out->u.bye.text.data : "");
}

/* BYE with this code, whatever came before, and then the end. Answers as a client does: closes. */
static void wire_expect_bye(struct wire *wire, enum sml_bye_code code, const char *text)
{
    struct sml_frame frame;

    do {
        if (!wire_frame(wire, &frame))
            fail_msg("the connection ended without a BYE (%s)", sml_bye_name(code));
    } while (frame.type != SML_BYE);
    if (frame.u.bye.code != code)
        fail_msg("BYE %s instead of %s", sml_bye_name(frame.u.bye.code), sml_bye_name(code));
    assert_true(frame.u.bye.text.size > 0);
    if (text)
        assert_non_null(memmem(frame.u.bye.text.data, frame.u.bye.text.size, text, strlen(text)));
    assert_false(wire_frame(wire, &frame));
}

static struct sml_hello hello_of(uint8_t name, uint64_t conn_no)
{
    struct sml_hello hello = {
        .version = SML_VERSION, .kind = SML_CREATE, .conn_no = conn_no, .next = 1,
        .body_bytes = 1 << 20, .window = 16, .heartbeat_ms = 5000,
    };

    memset(hello.session.bytes, name, sizeof hello.session.bytes);
    memset(hello.secret, name ^ 0x5a, sizeof hello.secret);
    return hello;
}

static void wire_hello(struct wire *wire, const struct sml_hello *hello)
{
    uint8_t frame[SML_FRAME_BYTES_MAX];

    assert_true(wire_send(wire, frame, sml_encode_hello(frame, hello)));
}

/* A new session, greeted. */
static struct wire *wire_meet(struct rig *rig, uint8_t name)
{
    struct wire *wire = wire_open(rig);
    struct sml_hello hello = hello_of(name, 1);
    struct sml_frame frame;

    wire_hello(wire, &hello);
    wire_expect(wire, SML_WELCOME, &frame);
    assert_false(frame.u.welcome.resumed);
    return wire;
}

static struct sml_call_frame call_of(const char *method, const char *body)
{
    struct sml_call_frame call = { .remaining_ms = 30000 };

    call.method = semel_bytes_text(method);
    call.fragment = semel_bytes_text(body);
    call.body_bytes = strlen(body);
    call.fingerprint =
        sml_fingerprint(method, strlen(method), NULL, 0, body, strlen(body));
    return call;
}

static void wire_call(struct wire *wire, uint64_t xid, const char *method, const char *body)
{
    uint8_t frame[SML_FRAME_BYTES_MAX];
    struct sml_call_frame call = call_of(method, body);

    assert_true(wire_send(wire, frame, sml_encode_call(frame, xid, &call)));
}

static void wire_expect_reply(struct wire *wire, uint64_t xid, enum semel_outcome outcome,
                              const char *body)
{
    struct sml_frame frame;

    wire_expect(wire, SML_REPLY, &frame);
    assert_int_equal(frame.xid, xid);
    assert_int_equal(frame.u.reply.verdict.outcome, outcome);
    assert_int_equal(frame.u.reply.verdict.body.size, strlen(body));
    assert_memory_equal(frame.u.reply.verdict.body.data, body, strlen(body));
}

/* --- M7 ---------------------------------------------------------------------------------- */

static size_t with_length(uint8_t *out, uint32_t length, uint8_t type)
{
    memset(out, 0, SML_HEADER_BYTES);
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(length >> 8 * i);
    out[4] = type;
    out[8] = 1;
    return SML_HEADER_BYTES;
}

/* What is sent in place of a HELLO, or after it, and which BYE it gets. */
static size_t bad_greeting(int which, uint8_t *out, enum sml_bye_code *out_code)
{
    struct sml_hello hello = hello_of(9, 1);
    size_t size = sml_encode_hello(out, &hello);

    *out_code = SML_BYE_PROTOCOL;
    switch (which) {
    case 0: /* another protocol altogether */
        memcpy(out, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
        return 27;
    case 1: /* wrong magic */
        out[SML_HEADER_BYTES] ^= 0xff;
        return size;
    case 2: /* wrong version */
        hello.version = 77;
        *out_code = SML_BYE_VERSION;
        return sml_encode_hello(out, &hello);
    case 3: /* oversize, known from the first bytes */
        return with_length(out, UINT32_MAX, SML_HELLO);
    case 4: /* a call before the greeting */
        return sml_encode_plain(out, SML_PING, 1);
    case 5: /* contradiction: a new session with calls outstanding */
        hello.next = 7;
        return sml_encode_hello(out, &hello);
    case 6: /* a window of nothing */
        hello.window = 0;
        return sml_encode_hello(out, &hello);
    default:
        return 0;
    }
}

static size_t bad_frame(int which, uint8_t *out, enum sml_bye_code *out_code)
{
    struct sml_call_frame call = call_of("echo", "x");
    struct sml_hello hello = hello_of(9, 1);

    *out_code = SML_BYE_PROTOCOL;
    switch (which) {
    case 0: /* oversize */
        return with_length(out, SML_PAYLOAD_BYTES_MAX + 1, SML_CALL);
    case 1: /* unknown type */
        return with_length(out, 0, 99);
    case 2: /* reserved type */
        return with_length(out, 0, SML_PART);
    case 3: /* a number is skipped */
        return sml_encode_call(out, 2, &call);
    case 4: /* a body from nowhere */
        return sml_encode_body(out, 1, 0, semel_bytes_text("x"));
    case 5: /* a second HELLO */
        return sml_encode_hello(out, &hello);
    case 6: /* server's frames */
        return sml_encode_busy(out, 1, 1);
    case 7: /* a body beyond the limit */
        call.body_bytes = UINT64_C(1) << 40;
        return sml_encode_call(out, 1, &call);
    case 8: /* a zero where there is none */
        sml_encode_call(out, 1, &call);
        out[7] = 1;
        return SML_HEADER_BYTES + 100;
    case 9: /* a cancel for what was never called */
        return sml_encode_plain(out, SML_CANCEL, 5);
    case 10: /* the other direction, not agreed on */
        sml_encode_plain(out, SML_PING, 1);
        out[5] = SML_FLAG_REVERSE;
        return SML_HEADER_BYTES;
    default:
        return 0;
    }
}

static uint64_t cpu_ms(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

static void test_bad_input(void **state)
{
    struct rig *rig = rig_make(NULL);
    uint8_t out[2 * SML_FRAME_BYTES_MAX];
    enum sml_bye_code code;
    uint64_t errors = 0;
    size_t size;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    for (int which = 0; (size = bad_greeting(which, out, &code)) > 0; which++) {
        struct wire *wire = wire_open(rig);

        assert_true(wire_send(wire, out, size));
        wire_expect_bye(wire, code, NULL);
        wire_close(wire);
        expect_echo(rig->client, "others go on");
        errors++;
    }
    for (int which = 0; (size = bad_frame(which, out, &code)) > 0; which++) {
        struct wire *wire = wire_meet(rig, (uint8_t)(100 + which));

        assert_true(wire_send(wire, out, size));
        wire_expect_bye(wire, code, NULL);
        wire_close(wire);
        expect_echo(rig->client, "others go on");
        errors++;
    }
    assert_int_equal(rig_counters(rig).protocol_errors, errors);
    assert_true(log_count(rig, "closed: PROTOCOL") + log_count(rig, "closed: VERSION") >=
                (int)errors);
    assert_true(log_has(rig, " pid ")); /* the lines name the peer */
    rig_end(rig);
}

static bool none_open_but_one(void *arg)
{
    return rig_counters(arg).connections_open == 1;
}

/* A client that goes on sending after its BYE, and never closes, is cut; nothing spins. */
static void test_bad_input_goes_on(void **state)
{
    struct rig *rig = rig_make(NULL);
    static const uint8_t rubbish[4096];
    struct wire *wire;
    uint64_t before;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_echo(rig->client, "first");
    wire = wire_meet(rig, 7);
    before = cpu_ms();
    while (wire_send(wire, rubbish, sizeof rubbish) && cpu_ms() - before < 20000)
        kit_sleep_ms(1);
    wire_close(wire);
    /* Inside a frame, then nothing. */
    wire = wire_meet(rig, 8);
    assert_true(wire_send(wire, "\x40\0\0\0\x04", 5));
    before = cpu_ms();
    kit_sleep_ms(300);
    assert_true(cpu_ms() - before < 200);
    wire_close(wire);
    assert_true(kit_eventually(none_open_but_one, rig, 60));
    assert_true(rig_counters(rig).connections_lost_mid_frame == 1);
    expect_echo(rig->client, "last");
    rig_end(rig);
}

/* The same number with other contents is surfaced, never run. */
static void test_false_retry(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct wire *wire;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    wire = wire_meet(rig, 1);
    wire_call(wire, 1, "echo", "one");
    wire_expect_reply(wire, 1, SEMEL_VALUE, "one");
    wire_call(wire, 1, "echo", "one");
    wire_expect_reply(wire, 1, SEMEL_VALUE, "one");
    wire_call(wire, 1, "echo", "two");
    wire_expect_bye(wire, SML_BYE_FALSE_RETRY, NULL);
    wire_close(wire);
    assert_int_equal(rig_counters(rig).calls_started, 1);
    assert_int_equal(rig_counters(rig).false_retries, 1);
    rig_end(rig);
}

/* Byte by byte in, and each way of cutting at the server's end. */
static void test_partial(void **state)
{
    struct rig *rig = rig_make(NULL);
    uint8_t out[SML_FRAME_BYTES_MAX];
    struct sml_hello hello = hello_of(3, 1);
    struct sml_call_frame call = call_of("echo", "slowly");
    struct sml_frame frame;
    struct wire *wire;
    size_t size;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    wire = wire_open(rig);
    size = sml_encode_hello(out, &hello);
    for (size_t i = 0; i < size; i++)
        assert_true(wire_send(wire, out + i, 1));
    wire_expect(wire, SML_WELCOME, &frame);
    size = sml_encode_call(out, 1, &call);
    for (size_t i = 0; i < size; i++)
        assert_true(wire_send(wire, out + i, 1));
    wire_expect_reply(wire, 1, SEMEL_VALUE, "slowly");
    wire_close(wire);
    rig_end(rig);
}

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

/* --- S12 ------------------------------------------------------------------------------------- */

static void test_slow_hello(void **state)
{
    struct semel_server_options options = { .handshake_ms = 200 };
    struct rig *rig = rig_make(&options);
    struct wire *slow[40];

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    for (int i = 0; i < 40; i++) {
        slow[i] = wire_open(rig);
        if (i % 2)
            assert_true(wire_send(slow[i], "\x70\0\0", 3)); /* part of a header */
    }
    for (int i = 0; i < 50; i++)
        expect_echo(rig->client, "nobody waits for them");
    for (int i = 0; i < 40; i++) {
        wire_expect_bye(slow[i], SML_BYE_SILENT, NULL);
        wire_close(slow[i]);
    }
    assert_int_equal(rig_counters(rig).handshakes_failed, 40);
    expect_echo(rig->client, "still there");
    rig_end(rig);
}

static void test_silent(void **state)
{
    struct semel_server_options options = { .heartbeat_ms = 50 };
    struct rig *rig = rig_make(&options);
    struct sml_hello hello = hello_of(1, 1);
    struct wire *wire;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    hello.heartbeat_ms = 50;
    wire = wire_open(rig);
    wire_hello(wire, &hello);
    wire_expect_bye(wire, SML_BYE_SILENT, NULL);
    wire_close(wire);
    assert_true(log_has(rig, "nothing was heard for too long"));
    rig_end(rig);
}

/* --- bounds ------------------------------------------------------------------------------------ */

static bool accepted_one(void *arg)
{
    return rig_counters(arg).connections_open == 1;
}

static void test_connections(void **state)
{
    struct semel_server_options options = { .connections = 3, .sessions = 2 };
    struct rig *rig = rig_make(&options);
    struct wire *one, *two, *three;
    struct sml_hello hello = hello_of(2, 1);

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_echo(rig->client, "one connection, one session");
    one = wire_meet(rig, 1);
    two = wire_open(rig);
    wire_hello(two, &hello);
    wire_expect_bye(two, SML_BYE_RETRY_LATER, "too many sessions");
    wire_close(two);
    while (rig_counters(rig).connections_open > 2)
        kit_sleep_ms(1);
    two = wire_open(rig);
    while (rig_counters(rig).connections_open < 3)
        kit_sleep_ms(1);
    three = wire_open(rig);
    wire_expect_bye(three, SML_BYE_RETRY_LATER, "too many connections");
    wire_close(three);
    wire_close(one);
    wire_close(two);
    assert_true(kit_eventually(accepted_one, rig, 60));
    three = wire_open(rig); /* there is room again, for a connection; not for a third session */
    hello = hello_of(3, 1);
    wire_hello(three, &hello);
    wire_expect_bye(three, SML_BYE_RETRY_LATER, "too many sessions");
    wire_close(three);
    expect_echo(rig->client, "unimpressed");
    rig_end(rig);
}

/* No descriptors left: no spin, one line a second, and it goes on when there are some again. */
static void test_no_descriptors(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    int sockets[8], taken[1024], count = 0;
    struct rlimit old, few;
    uint64_t before;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_echo(rig->client, "first");
    snprintf(name.sun_path, sizeof name.sun_path, "%s", rig->place.path);
    for (int i = 0; i < 8; i++)
        assert_true((sockets[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = old;
    few.rlim_cur = 256;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    while (count < 1024 && (taken[count] = dup(0)) >= 0)
        count++;
    before = cpu_ms();
    for (int i = 0; i < 8; i++)
        (void)!connect(sockets[i], (struct sockaddr *)&name, sizeof name);
    kit_sleep_ms(500);
    assert_true(cpu_ms() - before < 300);
    assert_in_range(log_count(rig, "a client cannot be accepted"), 1, 3);
    expect_echo(rig->client, "an old connection does not notice");
    while (count > 0)
        close(taken[--count]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    for (int i = 0; i < 8; i++)
        close(sockets[i]);
    wire_close(wire_meet(rig, 200));
    rig_end(rig);
}

static size_t resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0, resident = 0;

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu %lu", &pages, &resident), 2);
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* Both ends are in this process: what is measured is an upper bound of the server's share. */
static void test_idle_memory(void **state)
{
    struct rig *rig;
    int fds[400];
    size_t before;

    (void)state;
    if (SLOW_BUILD)
        skip();
    rig = rig_make(NULL);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_echo(rig->client, "warm");
    before = resident_bytes();
    for (int i = 0; i < 400; i++) {
        struct sml_hello hello = hello_of((uint8_t)i, 1);
        struct sml_call_frame call = call_of("echo", "one call");
        uint8_t out[1024];
        size_t size;

        hello.session.bytes[1] = (uint8_t)(i >> 8);
        assert_int_equal(semel_server_pair(rig->server, &fds[i]), SEMEL_OK);
        size = sml_encode_hello(out, &hello);
        assert_int_equal(write(fds[i], out, size), size);
        assert_int_equal(read(fds[i], out, sizeof out) > 0, 1);
        size = sml_encode_call(out, 1, &call);
        assert_int_equal(write(fds[i], out, size), size);
        assert_int_equal(read(fds[i], out, sizeof out) > 0, 1);
    }
    assert_true((resident_bytes() - before) / 400 <= 16384);
    for (int i = 0; i < 400; i++)
        close(fds[i]);
    rig_end(rig);
}

/* --- other ways in ------------------------------------------------------------------------------ */

static void test_addresses(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct semel_server *second;
    struct semel_client *client;
    char address[64];
    int fds[2], fd;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    assert_string_equal(semel_server_address(rig->server), "");
    rig_go(rig);
    assert_string_equal(semel_server_address(rig->server), rig->place.address);
    assert_int_equal(semel_server_listen(rig->server, "tcp:127.0.0.1:0"), SEMEL_OK);
    snprintf(address, sizeof address, "%s", semel_server_address(rig->server));
    assert_memory_equal(address, "tcp:127.0.0.1:", 14);
    assert_string_not_equal(address, "tcp:127.0.0.1:0");
    assert_int_equal(semel_server_listen(rig->server, address), SEMEL_ADDRESS_IN_USE);
    assert_int_equal(semel_server_listen(rig->server, rig->place.address), SEMEL_ADDRESS_IN_USE);
    assert_int_equal(semel_server_listen(rig->server, "tcp:0.0.0.0:0"), SEMEL_DENIED);
    assert_int_equal(semel_server_listen(rig->server, "gopher:x"), SEMEL_BAD_ADDRESS);
    assert_int_equal(semel_server_create(&second, NULL), SEMEL_OK);
    assert_int_equal(semel_server_listen(second, address), SEMEL_ADDRESS_IN_USE);
    assert_int_equal(semel_server_destroy(second), SEMEL_OK);
    assert_int_equal(semel_client_create(&client, address, NULL), SEMEL_OK);
    expect_echo(client, "by tcp");
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    assert_int_equal(semel_server_pair(rig->server, &fd), SEMEL_OK);
    snprintf(address, sizeof address, "fd:%d", fd);
    assert_int_equal(semel_client_create(&client, address, NULL), SEMEL_OK);
    expect_echo(client, "by a pair");
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    assert_int_equal(sml_pair_open(fds, NULL), SEMEL_OK);
    snprintf(address, sizeof address, "fd:%d", fds[0]);
    assert_int_equal(semel_server_listen(rig->server, address), SEMEL_OK);
    snprintf(address, sizeof address, "fd:%d", fds[1]);
    assert_int_equal(semel_client_create(&client, address, NULL), SEMEL_OK);
    expect_echo(client, "by a descriptor");
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    rig_end(rig);
}

/* Two pipes: the directions are descriptors of their own. */
static void test_pipes(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct semel_client *client;
    struct semel_result result;
    int there[2], back[2];
    char address[64], *big = malloc(1 << 20);

    (void)state;
    memset(big, 'b', 1 << 20);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    assert_int_equal(pipe2(there, O_CLOEXEC), 0);
    assert_int_equal(pipe2(back, O_CLOEXEC), 0);
    snprintf(address, sizeof address, "fd:%d/%d", there[0], back[1]);
    assert_int_equal(semel_server_listen(rig->server, address), SEMEL_OK);
    snprintf(address, sizeof address, "fd:%d/%d", back[0], there[1]);
    assert_int_equal(semel_client_create(&client, address, NULL), SEMEL_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(semel_client_call(client, "echo", semel_bytes(big, 1 << 20), NULL,
                                           &result),
                         SEMEL_VALUE);
        assert_int_equal(result.body.size, 1 << 20);
        assert_memory_equal(result.body.data, big, 1 << 20);
        semel_result_clear(&result);
    }
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    assert_true(kit_eventually(none_open_but_one, rig, 60));
    free(big);
    rig_end(rig);
}

/* A client that does not read stops nobody, and gets everything when it reads. */
static void test_slow_reader(void **state)
{
    struct rig *rig = rig_make(NULL);
    char body[30001];
    struct wire *wire;
    size_t bytes = 0;

    (void)state;
    memset(body, 'r', sizeof body - 1);
    body[sizeof body - 1] = '\0';
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    wire = wire_meet(rig, 1);
    for (uint64_t xid = 1; xid <= 16; xid++)
        wire_call(wire, xid, "echo", body);
    for (int i = 0; i < 50; i++)
        expect_echo(rig->client, "nobody waits for it");
    while (bytes < 16 * (sizeof body - 1)) {
        struct sml_frame frame;

        assert_true(wire_frame(wire, &frame));
        assert_true(frame.type == SML_REPLY || frame.type == SML_BODY);
        bytes += frame.type == SML_REPLY ? frame.u.reply.verdict.body.size
                                         : frame.u.body.fragment.size;
    }
    wire_close(wire);
    rig_end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("M7 bad input closes that connection, with a reason", test_bad_input),
        TEST("M7 bad input that goes on is cut, nothing spins", test_bad_input_goes_on),
        TEST("M7 bad input: a false retry is surfaced", test_false_retry),
        TEST("M6 partial I/O: a client that sends byte by byte", test_partial),
        TEST("S6 handler failure is stored, and replayed at every resume", test_failure_replayed),
        TEST("S8 end session, twice", test_end_session),
        TEST("S8 end session while its calls run and wait", test_end_session_busy),
        TEST("S9 unknown session is said to be unknown", test_unknown_session),
        TEST("S9 orphan is collected by its idle limit", test_orphan),
        TEST("the newest connection takes a session over", test_takeover),
        TEST("S12 slow hello stalls nobody", test_slow_hello),
        TEST("a silent client is cut", test_silent),
        TEST("connections and sessions are bounded", test_connections),
        TEST("no descriptors left: no spin, and it goes on", test_no_descriptors),
        TEST("idle connections are small", test_idle_memory),
        TEST("unix, tcp, pair, descriptor", test_addresses),
        TEST("two pipes make a connection", test_pipes),
        TEST("a client that does not read stops nobody", test_slow_reader),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
