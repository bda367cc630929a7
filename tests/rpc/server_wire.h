/* SPDX-License-Identifier: MIT */
/* server_wire.h - a client that speaks frames by hand. Included once per test program, after
 * server_kit.h. */
#ifndef SML_TESTS_SERVER_WIRE_H
#define SML_TESTS_SERVER_WIRE_H

#include "io/connect.h"
#include "os/clock.h"
#include "wire/frame.h"

struct wire {
    struct sml_channel channel;
    uint8_t in[4 * SML_FRAME_BYTES_MAX];
    size_t have, used;
    bool ended;
};

UNUSED static struct wire *wire_open(struct rig *rig)
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

UNUSED static void wire_close(struct wire *wire)
{
    sml_channel_close(&wire->channel);
    free(wire);
}

/* False: the server has closed. */
UNUSED static bool wire_send(struct wire *wire, const void *bytes, size_t size)
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
UNUSED static bool wire_frame(struct wire *wire, struct sml_frame *out)
{
    const char *why = NULL;
    size_t bytes;

    for (;;) {
        struct sml_io io;
        enum sml_decoded decoded = sml_frame_decode(wire->in + wire->used, wire->have - wire->used,
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
                                   sizeof wire->in - wire->have, sml_clock_now() + 30 * SML_SECOND);
        if (io.kind == SML_IO_ENDED || io.kind == SML_IO_BROKEN)
            return false;
        if (io.kind == SML_IO_MOVED)
            wire->have += io.bytes;
    }
}

UNUSED static void wire_expect(struct wire *wire, enum sml_frame_type type, struct sml_frame *out)
{
    assert_true(wire_frame(wire, out));
    if (out->type != type)
        fail_msg("%s came instead of %s%s%.*s", sml_frame_name(out->type), sml_frame_name(type),
                 out->type == SML_BYE ? ": " : "",
                 out->type == SML_BYE ? (int)out->u.bye.text.size : 0,
                 out->type == SML_BYE ? (const char *)out->u.bye.text.data : "");
}

/* BYE with this code, whatever came before, and then the end. Answers as a client does: closes. */
UNUSED static void wire_expect_bye(struct wire *wire, enum sml_bye_code code, const char *text)
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

UNUSED static struct sml_hello hello_of(uint8_t name, uint64_t conn_no)
{
    struct sml_hello hello = {
        .version = SML_VERSION,
        .kind = SML_CREATE,
        .conn_no = conn_no,
        .next = 1,
        .body_bytes = 1 << 20,
        .window = 16,
        .heartbeat_ms = 5000,
    };

    memset(hello.session.bytes, name, sizeof hello.session.bytes);
    memset(hello.secret, name ^ 0x5a, sizeof hello.secret);
    return hello;
}

UNUSED static void wire_hello(struct wire *wire, const struct sml_hello *hello)
{
    uint8_t frame[SML_FRAME_BYTES_MAX];

    assert_true(wire_send(wire, frame, sml_encode_hello(frame, hello)));
}

/* A new session, greeted. */
UNUSED static struct wire *wire_meet(struct rig *rig, uint8_t name)
{
    struct wire *wire = wire_open(rig);
    struct sml_hello hello = hello_of(name, 1);
    struct sml_frame frame;

    wire_hello(wire, &hello);
    wire_expect(wire, SML_WELCOME, &frame);
    assert_false(frame.u.welcome.resumed);
    return wire;
}

UNUSED static struct sml_call_frame call_of(const char *method, const char *body)
{
    struct sml_call_frame call = { .remaining_ms = 30000 };

    call.method = semel_bytes_text(method);
    call.fragment = semel_bytes_text(body);
    call.body_bytes = strlen(body);
    call.fingerprint = sml_fingerprint(method, strlen(method), NULL, 0, body, strlen(body));
    return call;
}

UNUSED static void wire_call(struct wire *wire, uint64_t xid, const char *method, const char *body)
{
    uint8_t frame[SML_FRAME_BYTES_MAX];
    struct sml_call_frame call = call_of(method, body);

    assert_true(wire_send(wire, frame, sml_encode_call(frame, xid, &call)));
}

/* A session that may use keys. */
UNUSED static struct wire *wire_meet_keyed(struct rig *rig, uint8_t name)
{
    struct wire *wire = wire_open(rig);
    struct sml_hello hello = hello_of(name, 1);
    struct sml_frame frame;

    hello.features = SML_FEATURE_KEYS;
    wire_hello(wire, &hello);
    wire_expect(wire, SML_WELCOME, &frame);
    assert_int_equal(frame.u.welcome.features, SML_FEATURE_KEYS);
    return wire;
}

UNUSED static void wire_call_keyed(struct wire *wire, uint64_t xid, const char *method,
                                   const char *key, uint64_t age_ms)
{
    uint8_t frame[SML_FRAME_BYTES_MAX];
    struct sml_call_frame call = call_of(method, "x");

    call.key = semel_bytes_text(key);
    call.key_age_ms = age_ms;
    assert_true(wire_send(wire, frame, sml_encode_call(frame, xid, &call)));
}

UNUSED static void wire_ack(struct wire *wire, uint64_t first, uint32_t count)
{
    uint8_t frame[SML_FRAME_BYTES_MAX];
    struct sml_ack_range range = { first, count };

    assert_true(wire_send(wire, frame, sml_encode_ack(frame, &range, 1)));
}

UNUSED static void wire_expect_reply(struct wire *wire, uint64_t xid, enum semel_outcome outcome,
                                     const char *body)
{
    struct sml_frame frame;

    wire_expect(wire, SML_REPLY, &frame);
    assert_int_equal(frame.xid, xid);
    assert_int_equal(frame.u.reply.verdict.outcome, outcome);
    assert_int_equal(frame.u.reply.verdict.body.size, strlen(body));
    assert_memory_equal(frame.u.reply.verdict.body.data, body, strlen(body));
}

#endif
