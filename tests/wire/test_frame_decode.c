/* SPDX-License-Identifier: MIT */
/* What the decoder refuses, and why; what it just accepts; that it never looks outside its bytes
 * (each decode runs on a heap block of the exact size, for the address sanitizer to watch) and
 * never touches its outputs when it refuses. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/le.h"
#include "base/test_random.h"
#include "frame_kit.h"

static uint8_t bytes[2 * SML_FRAME_BYTES_MAX], again[SML_FRAME_BYTES_MAX];

struct decoded {
    enum sml_decoded result;
    struct sml_frame frame; /* its views point into freed memory: compare sizes only */
    size_t used, size_again;
    const char *why;
};

static bool inside(struct semel_bytes view, const uint8_t *block, size_t size)
{
    const uintptr_t at = (uintptr_t)view.data, from = (uintptr_t)block;

    return view.size == 0 || (at >= from && view.size <= size && at - from <= size - view.size);
}

static void assert_views_inside(const struct sml_frame *frame, const uint8_t *block, size_t size)
{
    const struct sml_verdict *verdict = &frame->u.reply.verdict;

    if (frame->type == SML_CALL)
        assert_true(inside(frame->u.call.method, block, size) &&
                    inside(frame->u.call.content_type, block, size) &&
                    inside(frame->u.call.key, block, size) &&
                    inside(frame->u.call.fragment, block, size));
    else if (frame->type == SML_REPLY)
        assert_true(inside(verdict->text, block, size) && inside(verdict->detail, block, size) &&
                    inside(verdict->trace, block, size) && inside(verdict->body, block, size));
    else if (frame->type == SML_BODY)
        assert_true(inside(frame->u.body.fragment, block, size));
    else if (frame->type == SML_PART)
        assert_true(inside(frame->u.part.bytes, block, size));
    else if (frame->type == SML_BYE)
        assert_true(inside(frame->u.bye.text, block, size));
}

/* Decode `size` bytes in a block of exactly that size, and hold what must hold of any result. */
static struct decoded decode(const uint8_t *data, size_t size, size_t max_payload)
{
    uint8_t *block = malloc(size ? size : 1);
    struct decoded d, untouched;

    assert_non_null(block);
    memcpy(block, data, size);
    memset(&d, 0xa5, sizeof d);
    memset(&untouched, 0xa5, sizeof untouched);
    d.result = sml_frame_decode(block, size, max_payload, &d.frame, &d.used, &d.why);
    if (d.result == SML_DECODED) {
        assert_true(d.used >= SML_HEADER_BYTES && d.used <= size);
        assert_memory_equal(&d.why, &untouched.why, sizeof d.why);
        assert_views_inside(&d.frame, block, d.used);
        d.size_again = frame_encode_again(&d.frame, again);
        assert_true(d.size_again == 0 || d.size_again == d.used);
        assert_memory_equal(again, block, d.size_again);
    } else {
        assert_memory_equal(&d.frame, &untouched.frame, sizeof d.frame);
        assert_memory_equal(&d.used, &untouched.used, sizeof d.used);
        if (d.result == SML_MALFORMED)
            assert_true(d.why != untouched.why && d.why[0] != '\0');
        else
            assert_memory_equal(&d.why, &untouched.why, sizeof d.why);
    }
    free(block);
    return d;
}

/* One change to a sample: `width` bytes at `at` become `value`, little-endian. */
struct change {
    unsigned sample;
    size_t at;
    unsigned width;
    uint64_t value;
    const char *why; /* NULL: still a frame */
};

#define NAMES "CALL with control characters in a name"
#define ORIGIN "CALL with origin out of range"
#define RESERVED "header with reserved bits set"
#define LENGTH "length impossible for this frame"
#define NO_XID "call number missing"
#define ODD_XID "call number where none belongs"
#define FAR_XID "call number out of range"
#define VERDICT "REPLY with impossible outcome or status"

static const struct change header_changes[] = {
    { SML_PING, 0, 4, SML_PAYLOAD_BYTES_MAX + 1, "frame longer than allowed" },
    { SML_PING, 0, 4, UINT32_MAX, "frame longer than allowed" },
    { SML_PING, 0, 4, SML_PAYLOAD_BYTES_MAX, LENGTH },
    { SML_PING, 4, 1, 0, "unknown frame type" },
    { SML_PING, 4, 1, 16, "unknown frame type" },
    { SML_PING, 4, 1, 255, "unknown frame type" },
    { SML_PING, 4, 1, SML_PART, LENGTH },
    { SML_PING, 4, 1, SML_CREDIT, LENGTH },
    { SML_PING, 5, 1, SML_FLAG_REVERSE, NULL },
    { SML_PING, 5, 1, 2, RESERVED },
    { SML_PING, 5, 1, 0x80, RESERVED },
    { SML_PING, 6, 1, 1, RESERVED },
    { SML_PING, 7, 1, 0x80, RESERVED },
    /* S5, M13: the number of a call is 1 .. 2^63 */
    { SML_CALL, 8, 8, 0, NO_XID },
    { SML_BODY, 8, 8, 0, NO_XID },
    { SML_REPLY, 8, 8, 0, NO_XID },
    { SML_CANCEL, 8, 8, 0, NO_XID },
    { SML_BUSY, 8, 8, 0, NO_XID },
    { SML_PART, 8, 8, 0, NO_XID },
    { SML_CREDIT, 8, 8, 0, NO_XID },
    { SML_CALL, 8, 8, 1, NULL },
    { SML_CALL, 8, 8, SML_XID_MAX, NULL },
    { SML_CALL, 8, 8, SML_XID_MAX + 1, FAR_XID },
    { SML_BODY, 8, 8, SML_XID_MAX + 1, FAR_XID },
    { SML_REPLY, 8, 8, SML_XID_MAX + 1, FAR_XID },
    { SML_CANCEL, 8, 8, UINT64_MAX, FAR_XID },
    { SML_BUSY, 8, 8, UINT64_MAX, FAR_XID },
    { SML_PART, 8, 8, SML_XID_MAX + 1, FAR_XID },
    { SML_CREDIT, 8, 8, SML_XID_MAX + 1, FAR_XID },
    { SML_PING, 8, 8, 0, NULL },
    { SML_PING, 8, 8, SML_XID_MAX, NULL },
    { SML_PING, 8, 8, SML_XID_MAX + 1, FAR_XID },
    { SML_PONG, 8, 8, UINT64_MAX, FAR_XID },
    { SML_HELLO, 8, 8, 1, ODD_XID },
    { SML_WELCOME, 8, 8, 1, ODD_XID },
    { SML_LIST, 8, 8, 1, ODD_XID },
    { SML_ACK, 8, 8, 1, ODD_XID },
    { SML_DRAIN, 8, 8, 1, ODD_XID },
    { SML_BYE, 8, 8, 1, ODD_XID },
    /* a length that the type cannot have */
    { SML_PING, 0, 4, 1, LENGTH },
    { SML_PONG, 0, 4, 1, LENGTH },
    { SML_CANCEL, 0, 4, 1, LENGTH },
    { SML_BUSY, 0, 4, 3, LENGTH },
    { SML_BUSY, 0, 4, 5, LENGTH },
    { SML_DRAIN, 0, 4, 0, LENGTH },
    { SML_DRAIN, 0, 4, 5, LENGTH },
    { SML_BYE, 0, 4, 3, LENGTH },
    { SML_BYE, 0, 4, 4 + SML_BYE_TEXT_BYTES + 1, LENGTH },
    { SML_BODY, 0, 4, 8, LENGTH }, /* nothing in it */
    { SML_BODY, 0, 4, 8 + SML_FRAGMENT_BYTES, NULL },
    { SML_BODY, 0, 4, 8 + SML_FRAGMENT_BYTES + 1, LENGTH },
    { SML_PART, 0, 4, 15, LENGTH },
    { SML_PART, 0, 4, 16, NULL }, /* an empty item */
    { SML_PART, 0, 4, 16 + SML_FRAGMENT_BYTES, NULL },
    { SML_PART, 0, 4, 16 + SML_FRAGMENT_BYTES + 1, LENGTH },
    { SML_CREDIT, 0, 4, 23, LENGTH },
    { SML_CREDIT, 0, 4, 25, LENGTH },
    { SML_CALL, 0, 4, 32, LENGTH },
    { SML_REPLY, 0, 4, 31, LENGTH },
    { SML_ACK, 0, 4, 8, LENGTH },
    { SML_ACK, 0, 4, 8 + 16 * SML_ACK_RANGES_MAX + 1, LENGTH },
    { SML_LIST, 0, 4, 8, LENGTH },
    { SML_LIST, 0, 4, 8 + 32 * SML_LIST_ENTRIES_MAX + 1, LENGTH },
    { SML_HELLO, 0, 4, SML_HELLO_PAYLOAD_BYTES - 1, LENGTH },
    { SML_WELCOME, 0, 4, 71, LENGTH },
};

static const struct change hello_changes[] = {
    { SML_HELLO, 16, 4, UINT32_C(0x4c454d54), "wrong magic" },
    { SML_HELLO, 16, 4, 0, "wrong magic" },
    { SML_HELLO, 20, 2, 2, NULL }, /* another version is not malformed: it is answered */
    { SML_HELLO, 20, 2, 0, NULL },
    { SML_HELLO, 20, 2, 65535, NULL },
    { SML_HELLO, 0, 4, SML_HELLO_PAYLOAD_BYTES + 1, "HELLO of wrong length" },
    { SML_HELLO, 22, 1, 0, "HELLO of unknown kind" },
    { SML_HELLO, 22, 1, 3, "HELLO of unknown kind" },
    { SML_HELLO, 23, 1, 1, "HELLO of unknown kind" },
    { SML_HELLO, 24, 4, UINT32_MAX, NULL }, /* features are negotiated */
    { SML_HELLO, 28, 4, 8, NULL },          /* all below next 9 */
    { SML_HELLO, 28, 4, 9, "HELLO lists too many calls" },
    { SML_HELLO, 28, 4, 0, NULL },
    { SML_HELLO, 80, 8, 0, "HELLO without connection number" },
    { SML_HELLO, 80, 8, UINT64_MAX, NULL },
    { SML_HELLO, 88, 8, 0, "HELLO with next call out of range" },
    { SML_HELLO, 88, 8, SML_XID_MAX, NULL },
    { SML_HELLO, 88, 8, SML_XID_MAX + 1, "HELLO with next call out of range" },
    { SML_HELLO, 96, 8, SEMEL_BODY_BYTES_MAX, NULL },
    { SML_HELLO, 96, 8, SEMEL_BODY_BYTES_MAX + 1, "HELLO with body limit out of range" },
    { SML_HELLO, 104, 4, 0, "HELLO with window out of range" },
    { SML_HELLO, 104, 4, SEMEL_WINDOW_CALLS_MAX, NULL },
    { SML_HELLO, 104, 4, SEMEL_WINDOW_CALLS_MAX + 1, "HELLO with window out of range" },
    { SML_HELLO, 108, 4, 0, NULL },
    { SAMPLE_HELLO_CREATE, 28, 4, 1, "HELLO lists too many calls" },
    { SAMPLE_HELLO_CREATE, 88, 8, 2, "HELLO creates a session that has calls" },
    { SAMPLE_HELLO_CREATE, 112, 1, 1, "HELLO creates a session but names its server" },
    { SAMPLE_HELLO_CREATE, 127, 1, 1, "HELLO creates a session but names its server" },
    { SML_WELCOME, 16, 2, 2, NULL },
    { SML_WELCOME, 0, 4, 73, "WELCOME of wrong length" },
    { SML_WELCOME, 18, 1, 0, "WELCOME lists too many calls" }, /* states without a resume */
    { SML_WELCOME, 18, 1, 2, "WELCOME with reserved bits set" },
    { SML_WELCOME, 19, 1, 1, "WELCOME with reserved bits set" },
    { SML_WELCOME, 48, 8, SML_XID_MAX, NULL },
    { SML_WELCOME, 48, 8, SML_XID_MAX + 1, "WELCOME with durable call out of range" },
    { SML_WELCOME, 56, 8, SEMEL_BODY_BYTES_MAX, NULL },
    { SML_WELCOME, 56, 8, SEMEL_BODY_BYTES_MAX + 1, "WELCOME with body limit out of range" },
    { SML_WELCOME, 72, 4, 0, "WELCOME with window out of range" },
    { SML_WELCOME, 72, 4, SEMEL_WINDOW_CALLS_MAX, NULL },
    { SML_WELCOME, 72, 4, SEMEL_WINDOW_CALLS_MAX + 1, "WELCOME with window out of range" },
    { SML_WELCOME, 76, 4, SEMEL_WINDOW_CALLS_MAX, NULL },
    { SML_WELCOME, 76, 4, SEMEL_WINDOW_CALLS_MAX + 1, "WELCOME lists too many calls" },
};

static const struct change list_changes[] = {
    { SML_LIST, 16, 4, 0, "LIST of unknown kind" },
    { SML_LIST, 16, 4, 3, "LIST of unknown kind" },
    { SML_LIST, 16, 4, 2, "LIST whose count and length disagree" },
    { SML_LIST, 20, 4, 0, "LIST with count out of range" },
    { SML_LIST, 20, 4, 2, "LIST whose count and length disagree" },
    { SML_LIST, 20, 4, 4, "LIST whose count and length disagree" },
    { SML_LIST, 20, 4, SML_LIST_ENTRIES_MAX + 1, "LIST with count out of range" },
    { SML_LIST, 20, 4, UINT32_C(0x08000003), "LIST with count out of range" }, /* times 32 wraps */
    { SML_LIST, 24, 8, 0, "LIST with calls out of order" },
    { SML_LIST, 24, 8, 6, "LIST with calls out of order" },
    { SML_LIST, 24, 8, 5, NULL },
    { SML_LIST, 88, 8, SML_XID_MAX, NULL },
    { SML_LIST, 88, 8, SML_XID_MAX + 1, "LIST with calls out of order" },
    { SML_LIST, 32, 8, SEMEL_BODY_BYTES_MAX, NULL },
    { SML_LIST, 32, 8, SEMEL_BODY_BYTES_MAX + 1, "LIST with reply bytes out of range" },
    { SAMPLE_LIST_CALLEE, 16, 4, 1, "LIST whose count and length disagree" },
    { SAMPLE_LIST_CALLEE, 24, 8, 6, "LIST with calls out of order" },
    { SAMPLE_LIST_CALLEE, 72, 8, SML_XID_MAX, NULL },
    { SAMPLE_LIST_CALLEE, 72, 8, SML_XID_MAX + 1, "LIST with calls out of order" },
    { SAMPLE_LIST_CALLEE, 32, 8, SEMEL_BODY_BYTES_MAX, NULL },
    { SAMPLE_LIST_CALLEE, 32, 8, SEMEL_BODY_BYTES_MAX + 1, "LIST with offset out of range" },
    { SAMPLE_LIST_CALLEE, 40, 1, 0, "LIST with unknown state" },
    { SAMPLE_LIST_CALLEE, 40, 1, SML_STATE_IN_DOUBT, NULL },
    { SAMPLE_LIST_CALLEE, 40, 1, SML_STATE_IN_DOUBT + 1, "LIST with unknown state" },
    { SAMPLE_LIST_CALLEE, 47, 1, 1, "LIST with unknown state" },
    { SML_ACK, 16, 4, 0, "ACK with count out of range" },
    { SML_ACK, 16, 4, 1, "ACK whose count and length disagree" },
    { SML_ACK, 16, 4, 3, "ACK whose count and length disagree" },
    { SML_ACK, 16, 4, SML_ACK_RANGES_MAX + 1, "ACK with count out of range" },
    { SML_ACK, 16, 4, UINT32_C(0x10000002), "ACK with count out of range" }, /* times 16 wraps */
    { SML_ACK, 20, 4, 1, "ACK with reserved bits set" },
    { SML_ACK, 24, 8, 0, "ACK with range out of range" },
    { SML_ACK, 24, 8, SML_XID_MAX - 2, NULL }, /* three calls: the last is 2^63 */
    { SML_ACK, 24, 8, SML_XID_MAX - 1, "ACK with range out of range" },
    { SML_ACK, 24, 8, UINT64_MAX, "ACK with range out of range" },
    { SML_ACK, 32, 4, 0, "ACK with range out of range" },
    { SML_ACK, 32, 4, UINT32_MAX, NULL },
    { SML_ACK, 36, 4, 1, "ACK with range out of range" },
};

static const struct change call_changes[] = {
    { SML_CALL, 32, 8, 5, NULL }, /* the fragment is the whole body */
    { SML_CALL, 32, 8, 4, "CALL with more than its body" },
    { SML_CALL, 32, 8, SEMEL_BODY_BYTES_MAX, NULL },
    { SML_CALL, 32, 8, SEMEL_BODY_BYTES_MAX + 1, "CALL with body out of range" },
    { SML_CALL, 40, 4, 0, NULL },
    { SML_CALL, 44, 1, 7, NULL },
    { SML_CALL, 44, 1, 0x24, "CALL with reserved bits set" },
    { SML_CALL, 45, 1, 0, "CALL without method" },
    { SML_CALL, 45, 1, 9, NULL }, /* all that is there */
    { SML_CALL, 45, 1, 10, "CALL whose lengths disagree" },
    { SML_CALL, 46, 1, 255, "CALL whose lengths disagree" },
    { SML_CALL, 47, 1, 255, "CALL whose lengths disagree" },
    { SML_CALL, 64, 8, 0, ORIGIN },
    { SML_CALL, 64, 8, SML_XID_MAX, NULL },
    { SML_CALL, 64, 8, SML_XID_MAX + 1, ORIGIN },
    { SML_CALL, 72, 8, INT64_MAX, NULL },
    { SML_CALL, 72, 8, UINT64_C(1) << 63, "CALL with age out of range" },
    { SML_CALL, 80, 1, 0, NAMES },
    { SML_CALL, 81, 1, '\n', NAMES },
    { SML_CALL, 83, 1, 0x1f, NAMES },
    { SML_CALL, 83, 1, 0x7f, NAMES },
    { SML_CALL, 83, 1, ' ', NULL },
    { SML_CALL, 83, 1, 0xc3, NULL },
    { SML_CALL, 93, 1, 0, NAMES }, /* the content type's last */
    { SML_CALL, 94, 1, 0, NAMES }, /* the key's first */
    { SML_CALL, 97, 1, 0, NULL },  /* a body is any bytes */
    { SML_BODY, 16, 8, SEMEL_BODY_BYTES_MAX - 7, NULL },
    { SML_BODY, 16, 8, SEMEL_BODY_BYTES_MAX - 6, "BODY out of range" },
    { SML_BODY, 16, 8, UINT64_MAX, "BODY out of range" },
};

static const struct change reply_changes[] = {
    { SML_REPLY, 16, 8, 14, NULL }, /* 4 and 10 */
    { SML_REPLY, 16, 8, 13, "REPLY with more than its body" },
    { SML_REPLY, 16, 8, 3, "REPLY with body out of range" },
    { SML_REPLY, 16, 8, SEMEL_BODY_BYTES_MAX, NULL },
    { SML_REPLY, 16, 8, SEMEL_BODY_BYTES_MAX + 1, "REPLY with body out of range" },
    { SML_REPLY, 24, 8, 10, NULL },
    { SML_REPLY, 24, 8, 11, "REPLY with more than its body" },
    { SML_REPLY, 24, 8, UINT64_MAX, "REPLY with body out of range" },
    { SML_REPLY, 36, 2, SEMEL_OK, VERDICT }, /* unknown, and all is well? */
    { SML_REPLY, 36, 2, SEMEL_FAILED, VERDICT },
    { SML_REPLY, 36, 2, SEMEL_NO_STREAM, NULL },
    { SML_REPLY, 36, 2, SEMEL_NO_STREAM + 1, VERDICT },
    { SML_REPLY, 36, 2, SEMEL_STORE_ROLLED_BACK + 1, VERDICT },
    { SML_REPLY, 36, 2, 65535, VERDICT },
    { SML_REPLY, 38, 1, SEMEL_VALUE, VERDICT },
    { SML_REPLY, 38, 1, SEMEL_FAILURE, VERDICT },
    { SML_REPLY, 38, 1, SEMEL_NOT_EXECUTED, NULL },
    { SML_REPLY, 38, 1, 4, VERDICT },
    { SML_REPLY, 36, 3, SEMEL_OK | SEMEL_VALUE << 16, NULL },
    { SML_REPLY, 36, 3, SEMEL_FAILED | SEMEL_FAILURE << 16, NULL },
    { SML_REPLY, 36, 3, SEMEL_OK | SEMEL_FAILURE << 16, VERDICT },
    { SML_REPLY, 36, 3, SEMEL_FAILED | SEMEL_NOT_EXECUTED << 16, VERDICT },
    { SML_REPLY, 39, 1, 0, NULL },
    { SML_REPLY, 39, 1, 2, "REPLY proves what it does not say" },
    { SML_REPLY, 38, 2, SEMEL_NOT_EXECUTED | 3 << 8, NULL },
    { SML_REPLY, 39, 1, 4, "REPLY with reserved bits set" },
    { SML_REPLY, 46, 2, 1, "REPLY with reserved bits set" },
    { SML_REPLY, 40, 2, SEMEL_TEXT_BYTES + 1, "REPLY with text too long" },
    { SML_REPLY, 42, 2, SEMEL_DETAIL_BYTES + 1, "REPLY with text too long" },
    { SML_REPLY, 44, 2, SEMEL_TRACE_BYTES + 1, "REPLY with text too long" },
    { SML_REPLY, 40, 2, SEMEL_TEXT_BYTES, "REPLY whose lengths disagree" },
    { SML_REPLY, 44, 2, 15, NULL }, /* all that is there */
    { SML_REPLY, 44, 2, 16, "REPLY whose lengths disagree" },
    { SML_REPLY, 48, 1, 0, "REPLY with NUL in a text" },
    { SML_REPLY, 52, 1, 0, NULL }, /* detail is any bytes */
    { SML_REPLY, 62, 1, 0, "REPLY with NUL in a text" },
    { SML_BYE, 16, 2, 0, "BYE with unknown code" },
    { SML_BYE, 16, 2, SML_BYE_END, NULL },
    { SML_BYE, 16, 2, SML_BYE_SILENT, NULL },
    { SML_BYE, 16, 2, SML_BYE_SILENT + 1, "BYE with unknown code" },
    { SML_BYE, 18, 2, 15, "BYE whose lengths disagree" },
    { SML_BYE, 18, 2, 17, "BYE whose lengths disagree" },
    { SML_BYE, 20, 1, 0, "BYE with NUL in its text" },
    { SML_BUSY, 16, 4, UINT32_MAX, NULL },
    { SML_DRAIN, 16, 4, 0, NULL },
};

#define PART_KIND "PART of unknown kind"
#define NO_PROGRESS "PART is no possible progress"
#define CREDITS "CREDIT with numbers out of range"

static const struct change part_changes[] = {
    { SML_PART, 16, 8, 0, NULL },
    { SML_PART, 16, 8, SML_XID_MAX, NULL },
    { SML_PART, 16, 8, SML_XID_MAX + 1, "PART with number out of range" },
    { SML_PART, 24, 4, 0, PART_KIND },
    { SML_PART, 24, 4, SML_PART_PIECE, NULL },
    { SML_PART, 24, 4, SML_PART_END, "PART that ends its stream has bytes" },
    { SML_PART, 24, 4, SML_PART_PROGRESS, NO_PROGRESS }, /* it has a number */
    { SML_PART, 24, 4, SML_PART_PROGRESS + 1, PART_KIND },
    { SML_PART, 27, 1, 1, PART_KIND },
    { SML_PART, 28, 1, 1, PART_KIND },
    { SML_PART, 31, 1, 1, PART_KIND },
    { SAMPLE_PART_PIECE, 0, 4, 16, "PART is an empty piece" },
    { SAMPLE_PART_PIECE, 0, 4, 17, NULL },
    { SAMPLE_PART_PIECE, 0, 4, 16 + SML_FRAGMENT_BYTES, NULL },
    { SAMPLE_PART_END, 16, 8, 0, NULL }, /* a stream of no parts */
    { SAMPLE_PART_END, 16, 8, SML_XID_MAX, NULL },
    { SAMPLE_PART_END, 16, 8, SML_XID_MAX + 1, "PART with number out of range" },
    { SAMPLE_PART_END, 0, 4, 17, "PART that ends its stream has bytes" },
    { SAMPLE_PART_PROGRESS, 16, 8, 1, NO_PROGRESS },
    { SAMPLE_PART_PROGRESS, 0, 4, 16, NULL },
    { SAMPLE_PART_PROGRESS, 0, 4, 16 + 4096, NULL },
    { SAMPLE_PART_PROGRESS, 0, 4, 16 + 4097, NO_PROGRESS },
    { SML_CREDIT, 16, 8, SML_XID_MAX, NULL },
    { SML_CREDIT, 16, 8, SML_XID_MAX + 1, CREDITS },
    { SML_CREDIT, 16, 8, 3, NULL }, /* all were taken */
    { SML_CREDIT, 16, 8, 2, CREDITS },
    { SML_CREDIT, 24, 8, 5, NULL },
    { SML_CREDIT, 24, 8, 6, CREDITS },
    { SML_CREDIT, 24, 8, 0, NULL },
    { SML_CREDIT, 32, 8, 0, NULL },
    { SML_CREDIT, 32, 8, UINT64_MAX, NULL },
    { SML_CALL, 44, 1, SML_CALL_ORIGIN | SML_CALL_SENDS, NULL },
    { SML_CALL, 44, 1, SML_CALL_ORIGIN | SML_CALL_TAKES, NULL },
    { SML_CALL, 44, 1, SML_CALL_ORIGIN | SML_CALL_STREAMS, NULL },
    { SML_CALL, 44, 1, SML_CALL_ORIGIN | 0x20, "CALL with reserved bits set" },
    { SML_CALL, 44, 1, SML_CALL_ORIGIN | 0x80, "CALL with reserved bits set" },
};

/* The changed sample, with enough behind it for any length it may now claim. */
static void make(const struct change *change)
{
    memset(bytes, 'x', sizeof bytes);
    assert_true(frame_sample(change->sample, bytes) > 0);
    for (unsigned i = 0; i < change->width; i++)
        bytes[change->at + i] = (uint8_t)(change->value >> 8 * i);
}

static void try_changes(const struct change *changes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct change *c = &changes[i];
        struct decoded d;

        make(c);
        d = decode(bytes, sizeof bytes, SML_PAYLOAD_BYTES_MAX);
        if ((c->why == NULL) != (d.result == SML_DECODED) || (c->why && strcmp(c->why, d.why) != 0))
            fail_msg("%s, byte %zu = %llu: got %s, not %s", sml_frame_name(bytes[4]), c->at,
                     (unsigned long long)c->value, d.result == SML_DECODED ? "a frame" : d.why,
                     c->why ? c->why : "a frame");
        if (d.result == SML_DECODED) { /* and it needs exactly its bytes */
            assert_int_equal(d.used, SML_HEADER_BYTES + sml_load32(bytes));
            assert_int_equal(decode(bytes, d.used, SML_PAYLOAD_BYTES_MAX).result, SML_DECODED);
        }
    }
}

#define TRY(changes) try_changes(changes, sizeof(changes) / sizeof(changes)[0])

static void every_reason(void **state)
{
    (void)state;
    TRY(header_changes);
    TRY(hello_changes);
    TRY(list_changes);
    TRY(call_changes);
    TRY(reply_changes);
    TRY(part_changes);
}

/* A CALL and a REPLY one byte over the largest fragment, which no sample reaches. */
static void fragment_limit(void **state)
{
    const size_t payload = SML_FRAGMENT_BYTES + 33;

    (void)state;
    memset(bytes, 0, sizeof bytes);
    sml_store32(bytes, (uint32_t)payload);
    bytes[4] = SML_CALL;
    bytes[8] = 1;
    sml_store64(bytes + 32, SEMEL_BODY_BYTES_MAX);
    bytes[45] = 1;
    bytes[48] = 'm';
    assert_int_equal(decode(bytes, sizeof bytes, SML_PAYLOAD_BYTES_MAX).result, SML_DECODED);
    sml_store32(bytes, (uint32_t)payload + 1);
    assert_string_equal(decode(bytes, sizeof bytes, SML_PAYLOAD_BYTES_MAX).why,
                        "CALL with fragment too long");
    memset(bytes, 0, sizeof bytes);
    sml_store32(bytes, (uint32_t)payload - 1);
    bytes[4] = SML_REPLY;
    bytes[8] = 1;
    sml_store64(bytes + 16, SEMEL_BODY_BYTES_MAX);
    assert_int_equal(decode(bytes, sizeof bytes, SML_PAYLOAD_BYTES_MAX).result, SML_DECODED);
    sml_store32(bytes, (uint32_t)payload);
    assert_string_equal(decode(bytes, sizeof bytes, SML_PAYLOAD_BYTES_MAX).why,
                        "REPLY with fragment too long");
}

/* Limits that take two fields to reach. */
static void list_limit(void **state)
{
    struct decoded d;

    (void)state;
    frame_sample(SML_HELLO, bytes);
    sml_store64(bytes + 88, SML_XID_MAX);
    sml_store32(bytes + 28, SEMEL_WINDOW_CALLS_MAX);
    assert_int_equal(decode(bytes, sizeof bytes, SML_PAYLOAD_BYTES_MAX).result, SML_DECODED);
    sml_store32(bytes + 28, SEMEL_WINDOW_CALLS_MAX + 1);
    d = decode(bytes, sizeof bytes, SML_PAYLOAD_BYTES_MAX);
    assert_int_equal(d.result, SML_MALFORMED);
    assert_string_equal(d.why, "HELLO lists too many calls");
    frame_sample(SML_WELCOME, bytes);
    bytes[18] = 0;
    sml_store32(bytes + 76, 0); /* a new session: nothing to say of older calls */
    assert_int_equal(decode(bytes, sizeof bytes, SML_PAYLOAD_BYTES_MAX).result, SML_DECODED);
}

/* Every beginning of every frame asks for more; nothing is believed early. */
static void truncation(void **state)
{
    (void)state;
    for (unsigned sample = 1; sample <= FRAME_SAMPLES; sample++) {
        const size_t size = frame_sample(sample, bytes);

        for (size_t have = 0; have < size; have++)
            assert_int_equal(decode(bytes, have, SML_PAYLOAD_BYTES_MAX).result, SML_NEED_MORE);
        if (size > 0)
            assert_int_equal(decode(bytes, size, SML_PAYLOAD_BYTES_MAX).result, SML_DECODED);
    }
}

/* The magic says "not Semel"; the version says "another Semel": told apart. */
static void magic_and_version(void **state)
{
    struct decoded d;
    const size_t size = frame_sample(SML_HELLO, bytes);

    (void)state;
    sml_store16(bytes + 20, 2);
    memset(bytes + 22, 0xff, size - 22); /* whatever another version means by it */
    d = decode(bytes, size, SML_HELLO_PAYLOAD_BYTES);
    assert_int_equal(d.result, SML_DECODED);
    assert_int_equal(d.frame.u.hello.version, 2);
    assert_int_equal(d.frame.u.hello.conn_no, 0);
    bytes[16] ^= 1;
    d = decode(bytes, size, SML_HELLO_PAYLOAD_BYTES);
    assert_int_equal(d.result, SML_MALFORMED);
    assert_string_equal(d.why, "wrong magic");
}

/* The length is judged on its four bytes alone: nothing is waited for, nothing is allocated. */
static void oversize(void **state)
{
    static const size_t limits[] = { SML_HELLO_PAYLOAD_BYTES, SML_PAYLOAD_BYTES_MAX };
    struct decoded d;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        sml_store32(bytes, (uint32_t)limits[i] + 1);
        assert_int_equal(decode(bytes, 3, limits[i]).result, SML_NEED_MORE);
        d = decode(bytes, 4, limits[i]);
        assert_int_equal(d.result, SML_MALFORMED);
        assert_string_equal(d.why, "frame longer than allowed");
        sml_store32(bytes, (uint32_t)limits[i]);
        assert_int_equal(decode(bytes, 4, limits[i]).result, SML_NEED_MORE);
    }
}

/* A stranger's first bytes: refused by the fifth at the latest. */
static void strangers(void **state)
{
    static const char *const firsts[] = { "GET / HTTP/1.1\r\n", "SSH-2.0-x\r\n", "\x16\x03\x01\x02",
                                          "\r\n\r\n" };

    (void)state;
    for (size_t i = 0; i < sizeof firsts / sizeof firsts[0]; i++)
        assert_int_equal(decode((const uint8_t *)firsts[i], 4, SML_HELLO_PAYLOAD_BYTES).result,
                         SML_MALFORMED);
    for (unsigned sample = 1; sample <= SML_BYE; sample++) {
        const size_t size = frame_sample(sample, bytes);
        struct decoded d;

        if (size == 0 || sml_load32(bytes) > SML_HELLO_PAYLOAD_BYTES)
            continue;
        assert_int_equal(decode(bytes, 4, SML_HELLO_PAYLOAD_BYTES).result, SML_NEED_MORE);
        d = decode(bytes, 5, SML_HELLO_PAYLOAD_BYTES);
        if (sample == SML_HELLO) {
            assert_int_equal(d.result, SML_NEED_MORE);
            assert_int_equal(decode(bytes, size, SML_HELLO_PAYLOAD_BYTES).result, SML_DECODED);
        } else {
            assert_int_equal(d.result, SML_MALFORMED);
            assert_string_equal(d.why, "first frame is not HELLO");
        }
    }
}

/* Numbers 0 and above 2^63 are refused wherever a call's number stands. */
static void ids(void **state)
{
    static const unsigned with_xid[] = { SML_CALL,   SML_BODY,   SML_REPLY, SML_PART,
                                         SML_CREDIT, SML_CANCEL, SML_BUSY };
    static const uint64_t wrong[] = { 0, SML_XID_MAX + 1, UINT64_MAX };

    (void)state;
    for (size_t i = 0; i < sizeof with_xid / sizeof with_xid[0]; i++) {
        for (size_t j = 0; j < sizeof wrong / sizeof wrong[0]; j++) {
            frame_sample(with_xid[i], bytes);
            sml_store64(bytes + 8, wrong[j]);
            assert_int_equal(decode(bytes, sizeof bytes, SML_PAYLOAD_BYTES_MAX).result,
                             SML_MALFORMED);
        }
        sml_store64(bytes + 8, SML_XID_MAX);
        assert_int_equal(decode(bytes, sizeof bytes, SML_PAYLOAD_BYTES_MAX).frame.xid, SML_XID_MAX);
    }
}

static void zero(void **state)
{
    static const struct change zeros[] = {
        { SML_CALL, 8, 8, 0, NO_XID },
        { SML_CANCEL, 8, 8, 0, NO_XID },
        { SML_LIST, 24, 8, 0, "LIST with calls out of order" },
        { SAMPLE_LIST_CALLEE, 24, 8, 0, "LIST with calls out of order" },
        { SML_ACK, 24, 8, 0, "ACK with range out of range" },
        { SML_HELLO, 88, 8, 0, "HELLO with next call out of range" },
    };

    (void)state;
    TRY(zeros);
}

/* 100,000 damaged frames: whatever comes out, decode() holds it to the rules. */
static void mutations(void **state)
{
    uint64_t seed = 2024;
    unsigned results[3] = { 0 };

    (void)state;
    for (int round = 0; round < 100000; round++) {
        size_t size = 0, flips = 1 + (size_t)random_below(&seed, 4);

        while (size == 0)
            size = frame_sample((unsigned)random_below(&seed, FRAME_SAMPLES + 1), bytes);
        while (flips-- > 0) {
            const size_t at = (size_t)random_below(&seed, size);

            bytes[at] = random_below(&seed, 3) ? (uint8_t)(bytes[at] ^ 1u << random_below(&seed, 8))
                                               : (uint8_t)random_next(&seed);
        }
        if (random_below(&seed, 4) == 0)
            size = (size_t)random_below(&seed, size + 1);
        results[decode(bytes, size,
                       random_below(&seed, 2) ? SML_PAYLOAD_BYTES_MAX : SML_HELLO_PAYLOAD_BYTES)
                    .result]++;
    }
    for (int i = 0; i < 3; i++) /* each way out was really taken */
        assert_true(results[i] > 1000);
}

/* A stream of frames, cut anywhere: used bytes lead from one frame to the next. */
static void streams(void **state)
{
    static uint8_t stream[16 * 1024];
    size_t size = 0, at = 0;
    unsigned seen = 0;

    (void)state;
    for (unsigned sample = 1; sample <= FRAME_SAMPLES; sample++)
        size += frame_sample(sample, stream + size);
    while (at < size) {
        const struct decoded d = decode(stream + at, size - at, SML_PAYLOAD_BYTES_MAX);

        assert_int_equal(d.result, SML_DECODED);
        at += d.used;
        seen++;
    }
    assert_int_equal(at, size);
    assert_int_equal(seen, FRAME_SAMPLES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "M7 bad input: every malformed frame has its reason", every_reason, NULL, NULL, NULL },
        { "M7 bad input: fragments over the limit", fragment_limit, NULL, NULL, NULL },
        { "M7 bad input: lists over the limit", list_limit, NULL, NULL, NULL },
        { "M7 bad input: truncation asks for more", truncation, NULL, NULL, NULL },
        { "M7 bad input: wrong magic and wrong version told apart", magic_and_version, NULL, NULL,
          NULL },
        { "M7 bad input: strangers are refused at once", strangers, NULL, NULL, NULL },
        { "M7 bad input: damaged frames", mutations, NULL, NULL, NULL },
        { "M13 ids: zero and above 2^63 refused", ids, NULL, NULL, NULL },
        { "S5 zero: never the number of a call", zero, NULL, NULL, NULL },
        { "S17 frame limit: oversize refused on four bytes", oversize, NULL, NULL, NULL },
        { "decode: a stream of frames", streams, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
