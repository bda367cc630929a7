/* SPDX-License-Identifier: MIT */
/* Messages of calls from a server to a client: each has one encoding, and all else is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "rpc/reverse_wire.h"

static void test_terms(void **state)
{
    struct sml_reverse_terms terms = { 7, UINT64_C(1) << 32 }, got;
    struct sml_reverse_message message;
    uint8_t bytes[SML_REVERSE_TERMS_BYTES + 1];

    (void)state;
    sml_reverse_encode_terms(&terms, bytes);
    assert_null(sml_reverse_decode_terms(semel_bytes(bytes, SML_REVERSE_TERMS_BYTES), &got));
    assert_int_equal(got.window, 7);
    assert_int_equal(got.body_bytes, UINT64_C(1) << 32);
    assert_null(sml_reverse_decode(semel_bytes(bytes, SML_REVERSE_TERMS_BYTES), true, &message));
    assert_int_equal(message.kind, SML_REVERSE_TERMS);
    assert_non_null(
        sml_reverse_decode(semel_bytes(bytes, SML_REVERSE_TERMS_BYTES), false, &message));
    for (size_t size = 0; size <= sizeof bytes; size++)
        if (size != SML_REVERSE_TERMS_BYTES)
            assert_non_null(sml_reverse_decode_terms(semel_bytes(bytes, size), &got));
    for (int i = 0; i < 4; i++) { /* kind, version, reserved */
        bytes[i] ^= 4;
        assert_non_null(
            sml_reverse_decode_terms(semel_bytes(bytes, SML_REVERSE_TERMS_BYTES), &got));
        bytes[i] ^= 4;
    }
    for (int i = 0; i < 3; i++) {
        struct sml_reverse_terms bad[] = { { 0, 1 },
                                           { SEMEL_WINDOW_CALLS_MAX + 1, 1 },
                                           { 1, (UINT64_C(1) << 32) + 1 } };

        sml_reverse_encode_terms(&bad[i], bytes);
        assert_non_null(
            sml_reverse_decode_terms(semel_bytes(bytes, SML_REVERSE_TERMS_BYTES), &got));
    }
}

static size_t make_request(uint8_t *bytes, const char *method, const char *type, const char *body)
{
    struct sml_reverse_request request = { 0, semel_bytes_text(method), semel_bytes_text(type),
                                           semel_bytes_text(body) };

    sml_reverse_encode_request(&request, bytes);
    sml_reverse_stamp_request(bytes, 5, 1234);
    return sml_reverse_request_bytes(&request);
}

static void test_request(void **state)
{
    struct sml_reverse_message message;
    uint8_t bytes[600];
    size_t size = make_request(bytes, "add", "text/x", "body");

    (void)state;
    assert_int_equal(size, 16 + 3 + 6 + 4);
    assert_null(sml_reverse_decode(semel_bytes(bytes, size), true, &message));
    assert_int_equal(message.kind, SML_REVERSE_REQUEST);
    assert_int_equal(message.number, 5);
    assert_int_equal(message.request.remaining_ms, 1234);
    assert_int_equal(message.request.method.size, 3);
    assert_memory_equal(message.request.method.data, "add", 3);
    assert_memory_equal(message.request.content_type.data, "text/x", 6);
    assert_int_equal(message.request.body.size, 4);
    assert_memory_equal(message.request.body.data, "body", 4);
    assert_non_null(sml_reverse_decode(semel_bytes(bytes, size), false, &message));
    for (size_t cut = 0; cut < size - 4; cut++)
        assert_non_null(sml_reverse_decode(semel_bytes(bytes, cut), true, &message));
    bytes[3] = 1; /* reserved */
    assert_non_null(sml_reverse_decode(semel_bytes(bytes, size), true, &message));
    size = make_request(bytes, "", "", "body"); /* no name */
    assert_non_null(sml_reverse_decode(semel_bytes(bytes, size), true, &message));
    size = make_request(bytes, "a\nb", "", "");
    assert_non_null(sml_reverse_decode(semel_bytes(bytes, size), true, &message));
    size = make_request(bytes, "ab", "x\x7f", "");
    assert_non_null(sml_reverse_decode(semel_bytes(bytes, size), true, &message));
    size = make_request(bytes, "ab", "", "");
    for (int i = 0; i < 2; i++) { /* numbers out of range */
        sml_reverse_stamp_request(bytes, i == 0 ? 0 : (UINT64_C(1) << 63) + 1, 1);
        assert_non_null(sml_reverse_decode(semel_bytes(bytes, size), true, &message));
    }
}

static void test_cancel(void **state)
{
    struct sml_reverse_message message;
    uint8_t bytes[SML_REVERSE_HEAD_BYTES + 1] = { 0 };

    (void)state;
    sml_reverse_encode_cancel(9, bytes);
    assert_null(sml_reverse_decode(semel_bytes(bytes, SML_REVERSE_HEAD_BYTES), true, &message));
    assert_int_equal(message.kind, SML_REVERSE_CANCEL);
    assert_int_equal(message.number, 9);
    assert_non_null(sml_reverse_decode(semel_bytes(bytes, sizeof bytes), true, &message));
    for (int i = 1; i < 8; i++) {
        bytes[i] = 1;
        assert_non_null(
            sml_reverse_decode(semel_bytes(bytes, SML_REVERSE_HEAD_BYTES), true, &message));
        bytes[i] = 0;
    }
}

static size_t make_reply(uint8_t *bytes, enum semel_outcome outcome, enum semel_status status,
                         const char *text, const char *body)
{
    struct sml_verdict verdict = { .outcome = outcome,
                                   .status = status,
                                   .code = -7,
                                   .text = semel_bytes_text(text),
                                   .detail = semel_bytes("\0d", 2),
                                   .trace = semel_bytes("tr", 2),
                                   .body = semel_bytes_text(body) };

    sml_reverse_encode_reply(3, &verdict, bytes);
    return sml_reverse_reply_bytes(&verdict);
}

static void test_reply(void **state)
{
    static const struct {
        enum semel_outcome outcome;
        int status;
        bool good;
    } verdicts[] = {
        { SEMEL_VALUE, SEMEL_OK, true },
        { SEMEL_VALUE, SEMEL_FAILED, false },
        { SEMEL_FAILURE, SEMEL_FAILED, true },
        { SEMEL_FAILURE, SEMEL_OK, false },
        { SEMEL_UNKNOWN, SEMEL_DROPPED, true },
        { SEMEL_UNKNOWN, SEMEL_OK, false },
        { SEMEL_NOT_EXECUTED, SEMEL_NO_METHOD, true },
        { SEMEL_NOT_EXECUTED, SEMEL_FAILED, false },
        { SEMEL_UNKNOWN, 9999, false },
        { (enum semel_outcome)4, SEMEL_DROPPED, false },
    };
    struct sml_reverse_message message;
    uint8_t bytes[200];
    size_t size;

    (void)state;
    for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++) {
        size = make_reply(bytes, verdicts[i].outcome, (enum semel_status)verdicts[i].status, "why",
                          verdicts[i].outcome == SEMEL_VALUE ? "body" : "");
        assert_int_equal(sml_reverse_decode(semel_bytes(bytes, size), false, &message) == NULL,
                         verdicts[i].good);
    }
    size = make_reply(bytes, SEMEL_VALUE, SEMEL_OK, "why", "body");
    assert_null(sml_reverse_decode(semel_bytes(bytes, size), false, &message));
    assert_int_equal(message.number, 3);
    assert_int_equal(message.verdict.code, -7);
    assert_memory_equal(message.verdict.text.data, "why", 3);
    assert_memory_equal(message.verdict.detail.data, "\0d", 2);
    assert_memory_equal(message.verdict.trace.data, "tr", 2);
    assert_int_equal(message.verdict.body.size, 4);
    assert_memory_equal(message.verdict.body.data, "body", 4);
    assert_non_null(sml_reverse_decode(semel_bytes(bytes, size), true, &message));
    for (size_t cut = 0; cut < size - 4; cut++)
        assert_non_null(sml_reverse_decode(semel_bytes(bytes, cut), false, &message));
    bytes[22] = 1; /* reserved */
    assert_non_null(sml_reverse_decode(semel_bytes(bytes, size), false, &message));
    bytes[22] = 0;
    bytes[17] = 0xff; /* a text longer than any */
    assert_non_null(sml_reverse_decode(semel_bytes(bytes, size), false, &message));
    size = make_reply(bytes, SEMEL_FAILURE, SEMEL_FAILED, "why", "body");
    assert_non_null(sml_reverse_decode(semel_bytes(bytes, size), false, &message));
    size = make_reply(bytes, SEMEL_FAILURE, SEMEL_FAILED, "why", "");
    bytes[25] = 0; /* inside the text */
    assert_non_null(sml_reverse_decode(semel_bytes(bytes, size), false, &message));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "terms", test_terms, NULL, NULL, NULL },
        { "requests", test_request, NULL, NULL, NULL },
        { "cancellations", test_cancel, NULL, NULL, NULL },
        { "replies", test_reply, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests_name("rpc/reverse_wire", tests, NULL, NULL);
}
