/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/test_random.h"
#include "frame_kit.h"

static uint8_t bytes[SML_FRAME_BYTES_MAX + 64], again[SML_FRAME_BYTES_MAX + 64];
static uint8_t filler[SML_FRAGMENT_BYTES];

/* Decode exactly `size` bytes and encode the result again: the same bytes. */
static struct sml_frame round_trip(size_t size)
{
    struct sml_frame frame;
    const char *why = "";
    size_t used = 0;

    assert_true(size > 0 && size <= SML_FRAME_BYTES_MAX);
    if (sml_frame_decode(bytes, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why) != SML_DECODED)
        fail_msg("refused: %s", why);
    assert_int_equal(used, size);
    assert_int_equal(frame_encode_again(&frame, again), size);
    assert_memory_equal(bytes, again, size);
    return frame;
}

static void samples(void **state)
{
    (void)state;
    for (unsigned sample = 0; sample <= FRAME_SAMPLES; sample++) {
        const size_t size = frame_sample(sample, bytes);
        struct sml_frame frame;

        if (size == 0) {
            assert_int_equal(sample, 0);
            continue;
        }
        frame = round_trip(size);
        assert_false(frame.reverse);
        if (sample <= SML_BYE)
            assert_int_equal(frame.type, sample);
        bytes[5] = SML_FLAG_REVERSE;
        assert_true(round_trip(size).reverse);
    }
}

static void hello_fields(void **state)
{
    struct sml_frame frame;
    const struct sml_hello *hello = &frame.u.hello;

    (void)state;
    frame = round_trip(frame_sample(SML_HELLO, bytes));
    assert_int_equal(hello->version, SML_VERSION);
    assert_int_equal(hello->kind, SML_RESUME);
    assert_int_equal(hello->count, 3);
    assert_int_equal(hello->session.bytes[0], 0x10);
    assert_int_equal(hello->secret[31], 0x5f);
    assert_int_equal(hello->conn_no, 5);
    assert_int_equal(hello->next, 9);
    assert_int_equal(hello->body_bytes, SEMEL_BODY_BYTES);
    assert_int_equal(hello->window, SEMEL_WINDOW_CALLS);
    assert_int_equal(hello->heartbeat_ms, SEMEL_HEARTBEAT_MS);
    assert_int_equal(hello->server_id[15], 0x8f);
}

static void welcome_fields(void **state)
{
    const struct sml_welcome in = { .version = SML_VERSION,
                                    .resumed = true,
                                    .features = 0x01020304,
                                    .generation = 5,
                                    .durable_hi = 6,
                                    .body_bytes = 7,
                                    .session_bytes = 8,
                                    .window = 9,
                                    .count = 10,
                                    .idle_ms = 11,
                                    .heartbeat_ms = 12 };
    struct sml_frame frame;
    const struct sml_welcome *out = &frame.u.welcome;

    (void)state;
    frame = round_trip(sml_encode_welcome(bytes, &in));
    assert_true(out->resumed);
    assert_int_equal(out->features, in.features);
    assert_int_equal(out->generation, 5);
    assert_int_equal(out->durable_hi, 6);
    assert_int_equal(out->body_bytes, 7);
    assert_int_equal(out->session_bytes, 8);
    assert_int_equal(out->window, 9);
    assert_int_equal(out->count, 10);
    assert_int_equal(out->idle_ms, 11);
    assert_int_equal(out->heartbeat_ms, 12);
}

static void assert_text(struct semel_bytes view, const char *expected)
{
    assert_int_equal(view.size, strlen(expected));
    assert_memory_equal(view.data, expected, view.size);
}

static void call_and_reply_fields(void **state)
{
    struct sml_frame frame = round_trip(frame_sample(SML_CALL, bytes));
    const struct sml_verdict *verdict = &frame.u.reply.verdict;

    (void)state;
    assert_int_equal(frame.xid, 7);
    assert_int_equal(frame.u.call.body_bytes, 12);
    assert_int_equal(frame.u.call.remaining_ms, 30000);
    assert_int_equal(frame.u.call.flags, SML_CALL_RERUN_OK | SML_CALL_ORIGIN);
    assert_int_equal(frame.u.call.origin.session.bytes[15], 0x1f);
    assert_int_equal(frame.u.call.origin.xid, 3);
    assert_int_equal(frame.u.call.key_age_ms, 5000);
    assert_text(frame.u.call.method, "echo");
    assert_text(frame.u.call.content_type, "text/plain");
    assert_text(frame.u.call.key, "k-1");
    assert_text(frame.u.call.fragment, "hello");
    frame = round_trip(frame_sample(SML_REPLY, bytes));
    assert_int_equal(frame.u.reply.body_bytes, 20);
    assert_int_equal(frame.u.reply.offset, 4);
    assert_int_equal(verdict->outcome, SEMEL_UNKNOWN);
    assert_int_equal(verdict->status, SEMEL_DROPPED);
    assert_int_equal(verdict->code, -2);
    assert_int_equal(frame.u.reply.flags, SML_REPLY_RECORDED);
    assert_text(verdict->text, "text");
    assert_int_equal(verdict->detail.size, 6);
    assert_text(verdict->trace, "trace");
    assert_text(verdict->body, "0123456789");
}

static void part_and_credit_fields(void **state)
{
    static const struct {
        unsigned sample;
        enum sml_part_kind kind;
        uint64_t number;
        const char *bytes;
    } rows[] = { { SML_PART, SML_PART_ITEM, 2, "row 2" },
                 { SAMPLE_PART_PIECE, SML_PART_PIECE, 2, "row 2" },
                 { SAMPLE_PART_END, SML_PART_END, 2, "" },
                 { SAMPLE_PART_PROGRESS, SML_PART_PROGRESS, 0, "row 2" } };
    struct sml_frame frame;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        frame = round_trip(frame_sample(rows[i].sample, bytes));
        assert_int_equal(frame.type, SML_PART);
        assert_int_equal(frame.xid, 7);
        assert_int_equal(frame.u.part.kind, rows[i].kind);
        assert_int_equal(frame.u.part.number, rows[i].number);
        assert_text(frame.u.part.bytes, rows[i].bytes);
    }
    frame = round_trip(frame_sample(SML_CREDIT, bytes));
    assert_int_equal(frame.xid, 7);
    assert_int_equal(frame.u.credit.next, 5);
    assert_int_equal(frame.u.credit.taken, 3);
    assert_int_equal(frame.u.credit.limit, 131500);
}

/* The largest frames fit, and the overheads say what is not fragment. */
static void largest(void **state)
{
    static char name[255];
    struct sml_call_frame call = { .body_bytes = SEMEL_BODY_BYTES_MAX,
                                   .flags = SML_CALL_ORIGIN,
                                   .origin = { .xid = SML_XID_MAX },
                                   .key_age_ms = INT64_MAX };
    struct sml_reply_frame reply = { .body_bytes = SEMEL_BODY_BYTES_MAX };
    const struct sml_part_frame part = { .number = SML_XID_MAX,
                                         .kind = SML_PART_PIECE,
                                         .bytes = { filler, SML_FRAGMENT_BYTES } };
    const struct sml_credit_frame credit = { SML_XID_MAX, SML_XID_MAX, UINT64_MAX };
    size_t size;

    (void)state;
    memset(name, 'n', sizeof name);
    call.method = call.content_type = call.key = semel_bytes(name, sizeof name);
    call.fragment = semel_bytes(filler, SML_FRAGMENT_BYTES);
    size = sml_encode_call(bytes, SML_XID_MAX, &call);
    assert_int_equal(size, sml_call_overhead(&call) + SML_FRAGMENT_BYTES);
    assert_int_equal(round_trip(size).xid, SML_XID_MAX);

    reply.offset = SEMEL_BODY_BYTES_MAX - SML_FRAGMENT_BYTES;
    reply.verdict.outcome = SEMEL_FAILURE;
    reply.verdict.status = SEMEL_FAILED;
    memset(filler, 'f', sizeof filler);
    reply.verdict.text = semel_bytes(filler, SEMEL_TEXT_BYTES);
    reply.verdict.detail = semel_bytes(filler, SEMEL_DETAIL_BYTES);
    reply.verdict.trace = semel_bytes(filler, SEMEL_TRACE_BYTES);
    reply.verdict.body = semel_bytes(filler, SML_FRAGMENT_BYTES);
    size = sml_encode_reply(bytes, 1, &reply);
    assert_int_equal(size, sml_reply_overhead(&reply) + SML_FRAGMENT_BYTES);
    round_trip(size);

    size = sml_encode_body(bytes, 1, reply.offset, reply.verdict.body);
    assert_int_equal(size, SML_HEADER_BYTES + 8 + SML_FRAGMENT_BYTES);
    round_trip(size);
    round_trip(sml_encode_bye(bytes, SML_BYE_END, semel_bytes(filler, SML_BYE_TEXT_BYTES)));
    size = sml_encode_part(bytes, SML_XID_MAX, &part);
    assert_int_equal(size, SML_PART_OVERHEAD + SML_FRAGMENT_BYTES);
    assert_int_equal(round_trip(size).u.part.number, SML_XID_MAX);
    size = sml_encode_credit(bytes, SML_XID_MAX, &credit);
    assert_int_equal(size, SML_CREDIT_FRAME_BYTES);
    assert_int_equal(round_trip(size).u.credit.limit, UINT64_MAX);
}

static void smallest(void **state)
{
    struct sml_call_frame call = { .method = semel_bytes("m", 1) };
    struct sml_reply_frame reply = { .body_bytes = 0 };
    const struct sml_part_frame part = { .kind = SML_PART_ITEM };
    const struct sml_credit_frame credit = { 0 };

    (void)state;
    round_trip(sml_encode_part(bytes, 1, &part));
    round_trip(sml_encode_credit(bytes, 1, &credit));
    assert_int_equal(round_trip(sml_encode_call(bytes, 1, &call)).u.call.fragment.size, 0);
    assert_int_equal(round_trip(sml_encode_reply(bytes, 1, &reply)).u.reply.body_bytes, 0);
    round_trip(sml_encode_body(bytes, 1, 0, semel_bytes("x", 1)));
    round_trip(sml_encode_bye(bytes, SML_BYE_SILENT, semel_bytes(NULL, 0)));
    round_trip(sml_encode_plain(bytes, SML_PING, 0));
}

static void full_lists(void **state)
{
    static struct sml_outstanding mine[SML_LIST_ENTRIES_MAX];
    static struct sml_listed yours[SML_LIST_ENTRIES_MAX];
    static struct sml_ack_range ranges[SML_ACK_RANGES_MAX];
    struct sml_frame frame;

    (void)state;
    for (uint32_t i = 0; i < SML_LIST_ENTRIES_MAX; i++) {
        mine[i] = (struct sml_outstanding){ i + 1, i, { i * 3, i * 5 } };
        yours[i] = (struct sml_listed){ i + 1, i, (enum sml_call_state)(i % 5 + 1) };
    }
    for (uint32_t i = 0; i < SML_ACK_RANGES_MAX; i++)
        ranges[i] = (struct sml_ack_range){ 2 * (uint64_t)i + 1, i + 1 };
    for (uint32_t count = 1; count <= SML_LIST_ENTRIES_MAX; count += 341) {
        frame = round_trip(sml_encode_outstanding(bytes, mine, count));
        assert_true(frame.u.list.from_caller);
        assert_int_equal(frame.u.list.count, count);
        assert_int_equal(sml_list_outstanding(&frame.u.list, count - 1).held, count - 1);
        frame = round_trip(sml_encode_listed(bytes, yours, count));
        assert_false(frame.u.list.from_caller);
        assert_int_equal(sml_list_listed(&frame.u.list, count - 1).state, (count - 1) % 5 + 1);
        frame = round_trip(sml_encode_ack(bytes, ranges, count));
        assert_int_equal(sml_ack_range(&frame.u.ack, count - 1).first, 2 * count - 1);
        assert_int_equal(sml_ack_range(&frame.u.ack, count - 1).count, count);
    }
}

/* Random CALLs and REPLYs, of all sizes, written at any alignment of their sources. */
static void random_frames(void **state)
{
    uint64_t seed = 11;

    (void)state;
    for (size_t i = 0; i < sizeof filler; i++)
        filler[i] = (uint8_t)('a' + i % 26);
    for (int round = 0; round < 2000; round++) {
        const size_t fragment = (size_t)random_below(&seed, 1u << random_below(&seed, 17));
        const uint8_t *from = filler + random_below(&seed, SML_FRAGMENT_BYTES - fragment + 1);
        struct sml_call_frame call = { .body_bytes = fragment + random_below(&seed, 1000) };
        struct sml_reply_frame reply = { .body_bytes = fragment + 900 };
        struct sml_part_frame part = { .number = random_below(&seed, SML_XID_MAX),
                                       .kind = SML_PART_ITEM,
                                       .bytes = { from, fragment } };

        round_trip(sml_encode_part(bytes, 1 + random_below(&seed, SML_XID_MAX), &part));
        call.fingerprint.a = random_next(&seed);
        call.fingerprint.b = random_next(&seed);
        call.remaining_ms = (uint32_t)random_next(&seed);
        call.flags = (uint8_t)random_below(&seed, 32);
        call.origin.xid = 1 + random_below(&seed, SML_XID_MAX);
        call.key_age_ms = random_below(&seed, INT64_MAX);
        call.method = semel_bytes(filler, 1 + random_below(&seed, 255));
        call.content_type = semel_bytes(filler, random_below(&seed, 256));
        call.key = semel_bytes(filler, random_below(&seed, 256));
        call.fragment = semel_bytes(from, fragment);
        round_trip(sml_encode_call(bytes, 1 + random_below(&seed, SML_XID_MAX), &call));
        reply.offset = random_below(&seed, 900);
        reply.flags = (uint8_t)random_below(&seed, 4);
        reply.verdict.code = (int32_t)random_next(&seed);
        reply.verdict.outcome = SEMEL_NOT_EXECUTED;
        reply.verdict.status = SEMEL_CANCELLED;
        reply.verdict.text = semel_bytes(filler, random_below(&seed, SEMEL_TEXT_BYTES + 1));
        reply.verdict.detail = semel_bytes(filler, random_below(&seed, SEMEL_DETAIL_BYTES + 1));
        reply.verdict.trace = semel_bytes(filler, random_below(&seed, SEMEL_TRACE_BYTES + 1));
        reply.verdict.body = semel_bytes(from, fragment);
        round_trip(sml_encode_reply(bytes, 1 + random_below(&seed, SML_XID_MAX), &reply));
    }
}

/* Numbers on the wire are little-endian whatever the machine: each byte stands where it must. */
static void byte_order(void **state)
{
    static const uint8_t busy[] = { 4, 0, 0, 0, 11, 0, 0,    0,    8,    7,
                                    6, 5, 4, 3, 2,  1, 0x44, 0x33, 0x22, 0x11 };
    static const uint8_t magic[] = { 'S', 'M', 'E', 'L', 1, 0 };

    (void)state;
    assert_int_equal(sml_encode_busy(bytes, UINT64_C(0x0102030405060708), 0x11223344), sizeof busy);
    assert_memory_equal(bytes, busy, sizeof busy);
    frame_sample(SML_HELLO, bytes);
    assert_memory_equal(bytes + SML_HEADER_BYTES, magic, sizeof magic);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "encode: a sample of each frame, there and back", samples, NULL, NULL, NULL },
        { "encode: fields of HELLO", hello_fields, NULL, NULL, NULL },
        { "encode: fields of WELCOME", welcome_fields, NULL, NULL, NULL },
        { "encode: fields of CALL and REPLY", call_and_reply_fields, NULL, NULL, NULL },
        { "encode: fields of PART and CREDIT", part_and_credit_fields, NULL, NULL, NULL },
        { "encode: the largest frames", largest, NULL, NULL, NULL },
        { "encode: the smallest frames", smallest, NULL, NULL, NULL },
        { "encode: full lists", full_lists, NULL, NULL, NULL },
        { "encode: random frames, there and back", random_frames, NULL, NULL, NULL },
        { "M14 byte order fixed", byte_order, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
