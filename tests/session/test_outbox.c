/* SPDX-License-Identifier: MIT */
/* What an outbox keeps, to bytes and back; and nothing that is damaged, or out of range, is
 * believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/le.h"
#include "session/outbox.h"
#include "session/record_io.h"

#define PLAIN(name, function) { name, function, NULL, NULL, NULL }

struct coded {
    uint8_t *bytes;
    size_t size;
};

static struct semel_bytes view(const struct coded *coded)
{
    return semel_bytes(coded->bytes, coded->size);
}

static void expect_same(struct semel_bytes a, struct semel_bytes b)
{
    assert_int_equal(a.size, b.size);
    if (a.size > 0)
        assert_memory_equal(a.data, b.data, a.size);
}

static void reseal(struct coded *coded)
{
    sml_store64(coded->bytes, sml_record_checksum(coded->bytes, coded->size));
}

/* --- some records ------------------------------------------------------------------------ */

static struct sml_identity_record some_identity(void)
{
    struct sml_identity_record record = { .identity = { .has_session = true,
                                                        .generation = 3,
                                                        .durable_hi = 40,
                                                        .conn_no = 7,
                                                        .next = UINT64_C(1) << 41,
                                                        .has_store = true,
                                                        .store_generation = 4 },
                                          .address_hash = 99,
                                          .wall_ms = 1234567890123 };

    memset(record.identity.session.bytes, 0x11, 16);
    memset(record.identity.secret, 0x22, 32);
    memset(record.identity.server_id, 0x33, 16);
    memset(record.identity.store_id, 0x44, 16);
    return record;
}

static struct sml_posted_record some_posted(void)
{
    return (struct sml_posted_record){ .posted_ms = 55,
                                       .method = semel_bytes_text("pay"),
                                       .content_type = semel_bytes_text("text/plain"),
                                       .key = semel_bytes_text("order-17"),
                                       .tag = semel_bytes_text("tag"),
                                       .body = semel_bytes_text("12 EUR") };
}

static struct sml_result_record some_result(void)
{
    return (struct sml_result_record){ .verdict = { .outcome = SEMEL_FAILURE,
                                                    .status = SEMEL_FAILED,
                                                    .code = -7,
                                                    .text = semel_bytes_text("no money"),
                                                    .detail = semel_bytes_text("d"),
                                                    .trace = semel_bytes_text("at pay()"),
                                                    .body = semel_bytes_text("body") } };
}

static struct coded code_identity(const struct sml_identity_record *record)
{
    struct coded coded = { .bytes = malloc(SML_IDENTITY_RECORD_BYTES),
                           .size = SML_IDENTITY_RECORD_BYTES };

    sml_identity_record_encode(record, coded.bytes);
    return coded;
}

static struct coded code_posted(const struct sml_posted_record *record)
{
    struct coded coded = { .size = sml_posted_record_bytes(record) };

    coded.bytes = malloc(coded.size);
    sml_posted_record_encode(record, coded.bytes);
    return coded;
}

static struct coded code_result(const struct sml_result_record *record)
{
    struct coded coded = { .size = sml_result_record_bytes(record) };

    coded.bytes = malloc(coded.size);
    sml_result_record_encode(record, coded.bytes);
    return coded;
}

/* --- there and back ---------------------------------------------------------------------- */

static void test_identity(void **state)
{
    struct sml_identity_record record = some_identity(), back;
    struct coded coded = code_identity(&record);

    (void)state;
    assert_null(sml_identity_record_decode(view(&coded), &back));
    assert_memory_equal(back.identity.session.bytes, record.identity.session.bytes, 16);
    assert_memory_equal(back.identity.secret, record.identity.secret, 32);
    assert_true(back.identity.has_session);
    assert_memory_equal(back.identity.server_id, record.identity.server_id, 16);
    assert_int_equal(back.identity.generation, 3);
    assert_int_equal(back.identity.durable_hi, 40);
    assert_int_equal(back.identity.conn_no, 7);
    assert_true(back.identity.next == UINT64_C(1) << 41);
    assert_true(back.identity.has_store);
    assert_memory_equal(back.identity.store_id, record.identity.store_id, 16);
    assert_int_equal(back.identity.store_generation, 4);
    assert_int_equal(back.address_hash, 99);
    assert_true(back.wall_ms == 1234567890123);
    free(coded.bytes);
}

static void test_posted(void **state)
{
    struct sml_posted_record record = some_posted(), back;

    (void)state;
    for (int bare = 0; bare < 2; bare++) {
        struct coded coded;

        if (bare)
            record.content_type = record.tag = record.body = semel_bytes(NULL, 0);
        coded = code_posted(&record);
        assert_null(sml_posted_record_decode(view(&coded), &back));
        assert_int_equal(back.posted_ms, 55);
        expect_same(back.method, record.method);
        expect_same(back.content_type, record.content_type);
        expect_same(back.key, record.key);
        expect_same(back.tag, record.tag);
        expect_same(back.body, record.body);
        free(coded.bytes);
    }
}

static void test_result(void **state)
{
    struct sml_result_record record = some_result(), back;
    struct coded coded = code_result(&record);

    (void)state;
    assert_null(sml_result_record_decode(view(&coded), &back));
    assert_int_equal(back.verdict.outcome, SEMEL_FAILURE);
    assert_int_equal(back.verdict.status, SEMEL_FAILED);
    assert_int_equal(back.verdict.code, -7);
    expect_same(back.verdict.text, record.verdict.text);
    expect_same(back.verdict.detail, record.verdict.detail);
    expect_same(back.verdict.trace, record.verdict.trace);
    expect_same(back.verdict.body, record.verdict.body);
    free(coded.bytes);
}

/* --- damage ------------------------------------------------------------------------------ */

/* What it is, by who decodes it: 0 identity, 1 posted, 2 result. */
static const char *decode(int kind, struct semel_bytes bytes)
{
    struct sml_identity_record identity;
    struct sml_posted_record posted;
    struct sml_result_record result;

    return kind == 0   ? sml_identity_record_decode(bytes, &identity)
           : kind == 1 ? sml_posted_record_decode(bytes, &posted)
                       : sml_result_record_decode(bytes, &result);
}

static struct coded code(int kind)
{
    struct sml_identity_record identity = some_identity();
    struct sml_posted_record posted = some_posted();
    struct sml_result_record result = some_result();

    return kind == 0   ? code_identity(&identity)
           : kind == 1 ? code_posted(&posted)
                       : code_result(&result);
}

static void test_damage(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct coded coded = code(kind), longer;

        for (size_t bit = 0; bit < coded.size * 8; bit++) {
            coded.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_non_null(decode(kind, view(&coded)));
            coded.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        for (size_t size = 0; size < coded.size; size++)
            assert_non_null(decode(kind, semel_bytes(coded.bytes, size)));
        assert_non_null(decode(kind, semel_bytes(NULL, 0)));
        for (int other = 0; other < 3; other++)
            assert_int_equal(decode(other, view(&coded)) == NULL, other == kind);
        longer.size = coded.size + 1;
        longer.bytes = calloc(1, longer.size);
        memcpy(longer.bytes, coded.bytes, coded.size);
        reseal(&longer);
        assert_non_null(decode(kind, view(&longer)));
        free(longer.bytes);
        free(coded.bytes);
    }
}

/* A checksum that is right does not make lengths right: nothing outside the record is read. */
static void test_every_byte_resealed(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct coded coded = code(kind);

        for (size_t at = 8; at < coded.size; at++) {
            uint8_t kept = coded.bytes[at];

            for (int value = 0; value < 256; value += 5) {
                coded.bytes[at] = (uint8_t)value;
                reseal(&coded);
                (void)decode(kind, view(&coded));
            }
            coded.bytes[at] = kept;
        }
        reseal(&coded);
        assert_null(decode(kind, view(&coded)));
        free(coded.bytes);
    }
}

static void test_ranges(void **state)
{
    struct sml_identity_record identity = some_identity();
    struct sml_posted_record posted = some_posted();
    struct coded coded;

    (void)state;
    identity.identity.next = 0;
    coded = code_identity(&identity);
    assert_non_null(decode(0, view(&coded)));
    free(coded.bytes);
    identity = some_identity();
    identity.identity.conn_no = 0;
    coded = code_identity(&identity);
    assert_non_null(decode(0, view(&coded)));
    free(coded.bytes);
    posted.method.size = 0;
    coded = code_posted(&posted);
    assert_non_null(decode(1, view(&coded)));
    free(coded.bytes);
    posted = some_posted();
    posted.key.size = 0;
    coded = code_posted(&posted);
    assert_non_null(decode(1, view(&coded)));
    free(coded.bytes);
}

static void test_age(void **state)
{
    (void)state;
    assert_int_equal(sml_posted_age_ms(100, 150), 50);
    assert_int_equal(sml_posted_age_ms(100, 101), 1);
    assert_int_equal(sml_posted_age_ms(100, 100), 1); /* 0 would say that it was never submitted */
    assert_int_equal(sml_posted_age_ms(100, 50), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLAIN("an identity", test_identity),
        PLAIN("a posted call", test_posted),
        PLAIN("a result", test_result),
        PLAIN("damage is seen", test_damage),
        PLAIN("lengths are not believed", test_every_byte_resealed),
        PLAIN("fields out of range", test_ranges),
        PLAIN("the age of a key", test_age),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
