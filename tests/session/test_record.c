/* SPDX-License-Identifier: MIT */
/* Records to bytes and back; and nothing that is damaged, or out of range, is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/le.h"
#include "session/record.h"

#define PLAIN(name, function) { name, function, NULL, NULL, NULL }

/* Where the fields stand. */
enum { AT_VERSION = 8, AT_KIND = 9 };
enum { SESSION_KNOWN = 58, SESSION_BASE = 75, SESSION_WINDOW = 83, SESSION_COUNT = 87 };
enum { SESSION_STRAGGLERS = 91 };
enum { CALL_STATE = 10, CALL_FLAGS, CALL_CRASHES, CALL_PROVEN, CALL_METHOD, CALL_KEY };
enum { CALL_XID = 24, CALL_VERDICT = 48, CALL_ORIGIN = 72 };
enum { KEY_STATE = 10, KEY_METHOD, KEY_KEY, KEY_KNOWN, KEY_XID = 30, KEY_VERDICT = 62 };
enum { OF_STATUS = 0, OF_TEXT = 2, OF_DETAIL = 4, OF_TRACE = 6, OF_OUTCOME = 12, OF_BODY = 16 };

struct coded {
    uint8_t *bytes;
    size_t size;
};

static struct semel_bytes view(const struct coded *coded)
{
    return semel_bytes(coded->bytes, coded->size);
}

static struct semel_bytes filled(uint8_t *room, size_t size, uint8_t seed)
{
    for (size_t i = 0; i < size; i++)
        room[i] = (uint8_t)(seed + i * 31);
    return semel_bytes(room, size);
}

static void expect_same(struct semel_bytes a, struct semel_bytes b)
{
    assert_int_equal(a.size, b.size);
    if (a.size > 0)
        assert_memory_equal(a.data, b.data, a.size);
}

static void expect_same_verdict(const struct sml_verdict *a, const struct sml_verdict *b)
{
    assert_int_equal(a->outcome, b->outcome);
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->code, b->code);
    expect_same(a->text, b->text);
    expect_same(a->detail, b->detail);
    expect_same(a->trace, b->trace);
    expect_same(a->body, b->body);
}

static void expect_same_principal(const struct sml_principal *a, const struct sml_principal *b)
{
    assert_int_equal(a->known, b->known);
    assert_int_equal(a->uid, a->known ? b->uid : 0);
    assert_int_equal(a->gid, a->known ? b->gid : 0);
}

static struct coded code_session(const struct sml_session_record *record)
{
    struct coded coded = { .size = sml_session_record_bytes(record) };

    coded.bytes = malloc(coded.size);
    sml_session_record_encode(record, coded.bytes);
    return coded;
}

static struct coded code_call(const struct sml_call_record *record)
{
    struct coded coded = { .size = sml_call_record_bytes(record) };

    coded.bytes = malloc(coded.size);
    sml_call_record_encode(record, coded.bytes);
    return coded;
}

static struct coded code_key(const struct sml_key_record *record)
{
    struct coded coded = { .size = sml_key_record_bytes(record) };

    coded.bytes = malloc(coded.size);
    sml_key_record_encode(record, coded.bytes);
    return coded;
}

/* --- some records ------------------------------------------------------------------------ */

static uint8_t stragglers[3 * 8];

static struct sml_session_record some_session(void)
{
    struct sml_session_record record = { .principal = { true, 1000, 100 },
                                         .conn_no = 17,
                                         .base = 40,
                                         .window = 8,
                                         .straggler_count = 3,
                                         .stragglers = stragglers };

    filled(record.id.bytes, sizeof record.id.bytes, 1);
    filled(record.secret_hash, sizeof record.secret_hash, 2);
    sml_store64(stragglers, 3);
    sml_store64(stragglers + 8, 4);
    sml_store64(stragglers + 16, 40);
    return record;
}

static struct sml_call_record some_call(void)
{
    struct sml_call_record record = { .session = 5,
                                      .xid = 41,
                                      .state = SML_CALL_ENDED,
                                      .flags = SML_CALL_RERUN_OK | SML_CALL_ORIGIN,
                                      .crashes = 2,
                                      .fingerprint = { 3, 4 },
                                      .origin.xid = 9,
                                      .method = semel_bytes_text("pay"),
                                      .key = semel_bytes_text("order-17"),
                                      .verdict = { .outcome = SEMEL_FAILURE,
                                                   .status = SEMEL_FAILED,
                                                   .code = -7,
                                                   .text = semel_bytes_text("no money"),
                                                   .detail = semel_bytes_text("d"),
                                                   .trace = semel_bytes_text("at pay()"),
                                                   .body = semel_bytes_text("body") } };

    filled(record.origin.session.bytes, sizeof record.origin.session.bytes, 3);
    return record;
}

static struct sml_key_record some_key(void)
{
    return (struct sml_key_record){ .principal = { true, 1000, 100 },
                                    .method = semel_bytes_text("pay"),
                                    .key = semel_bytes_text("order-17"),
                                    .state = SML_CALL_ENDED,
                                    .session = 5,
                                    .xid = 41,
                                    .fingerprint = { 3, 4 },
                                    .kept_since = 123456789,
                                    .verdict = { .outcome = SEMEL_VALUE,
                                                 .body = semel_bytes_text("paid") } };
}

/* --- round trips ------------------------------------------------------------------------- */

static void round_trip_session(const struct sml_session_record *record)
{
    struct coded coded = code_session(record), again;
    struct sml_session_record out;

    assert_null(sml_session_record_decode(view(&coded), &out));
    assert_memory_equal(out.id.bytes, record->id.bytes, 16);
    assert_memory_equal(out.secret_hash, record->secret_hash, 32);
    expect_same_principal(&out.principal, &record->principal);
    assert_int_equal(out.conn_no, record->conn_no);
    assert_int_equal(out.base, record->base);
    assert_int_equal(out.window, record->window);
    assert_int_equal(out.straggler_count, record->straggler_count);
    for (uint32_t i = 0; i < out.straggler_count; i++)
        assert_int_equal(sml_record_straggler(&out, i), sml_record_straggler(record, i));
    again = code_session(&out);
    expect_same(view(&again), view(&coded));
    free(again.bytes);
    free(coded.bytes);
}

static void sessions_come_back(void **state)
{
    struct sml_session_record least = { .window = 1 }, record = some_session();
    struct sml_session_record most = record;
    uint8_t *all = malloc((size_t)SEMEL_WINDOW_CALLS_MAX * 8);

    (void)state;
    round_trip_session(&least);
    round_trip_session(&record);
    record.principal.known = false; /* whatever its numbers are then */
    round_trip_session(&record);
    most.conn_no = UINT64_MAX;
    most.base = SML_XID_MAX;
    most.window = most.straggler_count = SEMEL_WINDOW_CALLS_MAX;
    most.principal = (struct sml_principal){ true, UINT32_MAX, UINT32_MAX };
    most.stragglers = all;
    for (uint32_t i = 0; i < SEMEL_WINDOW_CALLS_MAX; i++)
        sml_store64(all + (size_t)i * 8, SML_XID_MAX - SEMEL_WINDOW_CALLS_MAX + 1 + i);
    round_trip_session(&most);
    free(all);
}

static void round_trip_call(const struct sml_call_record *record)
{
    struct coded coded = code_call(record), again;
    struct sml_call_record out;

    assert_null(sml_call_record_decode(view(&coded), &out));
    assert_int_equal(out.session, record->session);
    assert_int_equal(out.xid, record->xid);
    assert_int_equal(out.state, record->state);
    assert_int_equal(out.flags, record->flags);
    assert_int_equal(out.crashes, record->crashes);
    assert_int_equal(out.proven, record->proven);
    assert_true(sml_fingerprint_equal(out.fingerprint, record->fingerprint));
    if (record->flags & SML_CALL_ORIGIN) {
        assert_memory_equal(out.origin.session.bytes, record->origin.session.bytes, 16);
        assert_int_equal(out.origin.xid, record->origin.xid);
    }
    expect_same(out.method, record->method);
    expect_same(out.key, record->key);
    expect_same_verdict(&out.verdict, &record->verdict);
    again = code_call(&out);
    expect_same(view(&again), view(&coded));
    free(again.bytes);
    free(coded.bytes);
}

static struct sml_verdict largest_verdict(uint8_t *room)
{
    struct sml_verdict verdict = { .outcome = SEMEL_UNKNOWN,
                                   .status = SEMEL_STORE_ROLLED_BACK,
                                   .code = INT32_MIN };

    verdict.text = filled(room, SEMEL_TEXT_BYTES, 1);
    verdict.detail = filled(room + SEMEL_TEXT_BYTES, SEMEL_DETAIL_BYTES, 2);
    verdict.trace = filled(room + SEMEL_TEXT_BYTES + SEMEL_DETAIL_BYTES, SEMEL_TRACE_BYTES, 3);
    verdict.body = semel_bytes(room, SEMEL_TEXT_BYTES + SEMEL_DETAIL_BYTES + SEMEL_TRACE_BYTES);
    return verdict;
}

#define LARGEST_BYTES (SEMEL_TEXT_BYTES + SEMEL_DETAIL_BYTES + SEMEL_TRACE_BYTES)

/* A stream ends with its server; that there was one is no damage to the store. */
static void streams_are_not_stored(void **state)
{
    struct sml_call_record record = some_call(), out;
    const uint8_t flags = record.flags;
    struct coded coded;

    (void)state;
    record.flags |= SML_CALL_STREAMS;
    coded = code_call(&record);
    assert_null(sml_call_record_decode(view(&coded), &out));
    assert_int_equal(out.flags, flags);
    free(coded.bytes);
}

static void calls_come_back(void **state)
{
    static uint8_t names[SEMEL_METHOD_BYTES + SEMEL_KEY_BYTES], strings[LARGEST_BYTES];
    struct sml_call_record least = { .xid = 1, .state = SML_CALL_STARTED, .method = { "m", 1 } };
    struct sml_call_record record = some_call();

    (void)state;
    round_trip_call(&least);
    least.state = SML_CALL_AGAIN;
    round_trip_call(&least);
    least.state = SML_CALL_ENDED; /* a value without a byte */
    round_trip_call(&least);
    round_trip_call(&record);
    record.flags = SML_CALL_REFUSE_WHEN_FULL; /* then the origin is not there */
    round_trip_call(&record);
    record.verdict.outcome = SEMEL_NOT_EXECUTED;
    record.verdict.status = SEMEL_EXPIRED;
    record.proven = true;
    round_trip_call(&record);
    record = some_call();
    record.session = UINT64_MAX;
    record.xid = record.origin.xid = SML_XID_MAX;
    record.crashes = UINT8_MAX;
    record.fingerprint = (struct sml_fingerprint){ UINT64_MAX, UINT64_MAX - 1 };
    record.method = filled(names, SEMEL_METHOD_BYTES, 4);
    record.key = filled(names + SEMEL_METHOD_BYTES, SEMEL_KEY_BYTES, 5);
    record.verdict = largest_verdict(strings);
    round_trip_call(&record);
}

static void round_trip_key(const struct sml_key_record *record)
{
    struct coded coded = code_key(record), again;
    struct sml_key_record out;

    assert_null(sml_key_record_decode(view(&coded), &out));
    expect_same_principal(&out.principal, &record->principal);
    expect_same(out.method, record->method);
    expect_same(out.key, record->key);
    assert_int_equal(out.state, record->state);
    assert_int_equal(out.session, record->session);
    assert_int_equal(out.xid, record->xid);
    assert_true(sml_fingerprint_equal(out.fingerprint, record->fingerprint));
    assert_int_equal(out.kept_since, record->kept_since);
    expect_same_verdict(&out.verdict, &record->verdict);
    again = code_key(&out);
    expect_same(view(&again), view(&coded));
    free(again.bytes);
    free(coded.bytes);
}

static void keys_come_back(void **state)
{
    static uint8_t names[SEMEL_METHOD_BYTES + SEMEL_KEY_BYTES], strings[LARGEST_BYTES];
    struct sml_key_record least = {
        .xid = 1, .state = SML_CALL_STARTED, .method = { "m", 1 }, .key = { "k", 1 }
    };
    struct sml_key_record record = some_key();

    (void)state;
    round_trip_key(&least);
    round_trip_key(&record);
    record.principal = (struct sml_principal){ true, UINT32_MAX, UINT32_MAX };
    record.session = record.kept_since = UINT64_MAX;
    record.xid = SML_XID_MAX;
    record.method = filled(names, SEMEL_METHOD_BYTES, 4);
    record.key = filled(names + SEMEL_METHOD_BYTES, SEMEL_KEY_BYTES, 5);
    record.verdict = largest_verdict(strings);
    round_trip_key(&record);
}

/* --- damage ------------------------------------------------------------------------------ */

union any_record {
    struct sml_session_record session;
    struct sml_call_record call;
    struct sml_key_record key;
};

struct kind {
    struct coded coded;
    const char *(*decode)(struct semel_bytes bytes, union any_record *out);
};

static const char *decode_session(struct semel_bytes bytes, union any_record *out)
{
    return sml_session_record_decode(bytes, &out->session);
}

static const char *decode_call(struct semel_bytes bytes, union any_record *out)
{
    return sml_call_record_decode(bytes, &out->call);
}

static const char *decode_key(struct semel_bytes bytes, union any_record *out)
{
    return sml_key_record_decode(bytes, &out->key);
}

enum { SESSION, CALL, KEY, KINDS };

static struct kind kinds[KINDS];

static int set_up(void **state)
{
    struct sml_session_record session = some_session();
    struct sml_call_record call = some_call();
    struct sml_key_record key = some_key();

    (void)state;
    kinds[SESSION] = (struct kind){ code_session(&session), decode_session };
    kinds[CALL] = (struct kind){ code_call(&call), decode_call };
    kinds[KEY] = (struct kind){ code_key(&key), decode_key };
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < KINDS; i++)
        free(kinds[i].coded.bytes);
    return 0;
}

/* Refused, and nothing was written. */
static const char *refused(const struct kind *kind, const uint8_t *bytes, size_t size)
{
    union any_record out, before;
    const char *why;

    memset(&out, 0x5a, sizeof out);
    memset(&before, 0x5a, sizeof before);
    why = kind->decode(semel_bytes(bytes, size), &out);
    assert_non_null(why);
    assert_memory_equal(&out, &before, sizeof out);
    return why;
}

static void seal(uint8_t *bytes, size_t size)
{
    sml_store64(bytes, sml_fingerprint(NULL, 0, NULL, 0, bytes + 8, size - 8).a);
}

static void every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    for (int i = 0; i < KINDS; i++) {
        struct coded *coded = &kinds[i].coded;

        for (size_t bit = 0; bit < coded->size * 8; bit++) {
            coded->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_string_equal(refused(&kinds[i], coded->bytes, coded->size),
                                "record whose checksum is wrong");
            coded->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
}

/* With a right checksum, too: a record is all of its bytes. */
static void every_other_length_is_noticed(void **state)
{
    (void)state;
    for (int i = 0; i < KINDS; i++) {
        struct coded *coded = &kinds[i].coded;

        for (size_t size = 0; size < coded->size; size++) {
            uint8_t *copy = malloc(size + 1); /* so that a read behind the end is seen */

            memcpy(copy, coded->bytes, size);
            refused(&kinds[i], copy, size);
            if (size >= 8) {
                seal(copy, size);
                refused(&kinds[i], copy, size);
            }
            free(copy);
        }
        coded->bytes = realloc(coded->bytes, coded->size + 1);
        coded->bytes[coded->size] = 0;
        refused(&kinds[i], coded->bytes, coded->size + 1);
        seal(coded->bytes, coded->size + 1);
        refused(&kinds[i], coded->bytes, coded->size + 1);
    }
}

static void other_kinds_and_versions_are_refused(void **state)
{
    (void)state;
    for (int i = 0; i < KINDS; i++) {
        struct coded *coded = &kinds[i].coded;
        uint8_t kind = coded->bytes[AT_KIND];

        for (int other = 0; other < 256; other++) {
            coded->bytes[AT_KIND] = (uint8_t)other;
            seal(coded->bytes, coded->size);
            if (other != kind)
                assert_string_equal(refused(&kinds[i], coded->bytes, coded->size),
                                    "record of another kind");
        }
        coded->bytes[AT_KIND] = kind;
        coded->bytes[AT_VERSION] = 2;
        seal(coded->bytes, coded->size);
        assert_string_equal(refused(&kinds[i], coded->bytes, coded->size),
                            "record of another version");
        coded->bytes[AT_VERSION] = 0;
        seal(coded->bytes, coded->size);
        refused(&kinds[i], coded->bytes, coded->size);
    }
}

/* --- ranges ------------------------------------------------------------------------------ */

/* One field of a record is given another value, and the record a new checksum. */
struct change {
    size_t at, bytes;
    uint64_t value;
    bool good;
};

static void try_changes(int which, const struct change *changes, size_t count)
{
    const struct kind *kind = &kinds[which];
    uint8_t *copy = malloc(kind->coded.size);

    for (size_t i = 0; i < count; i++) {
        union any_record out;
        const char *why;

        memcpy(copy, kind->coded.bytes, kind->coded.size);
        for (size_t k = 0; k < changes[i].bytes; k++)
            copy[changes[i].at + k] = (uint8_t)(changes[i].value >> 8 * k);
        seal(copy, kind->coded.size);
        why = kind->decode(semel_bytes(copy, kind->coded.size), &out);
        if ((why == NULL) != changes[i].good)
            fail_msg("row %zu: %s", i, why ? why : "was taken");
        if (why)
            refused(kind, copy, kind->coded.size);
    }
    free(copy);
}

#define TRY(which, changes) try_changes(which, changes, sizeof changes / sizeof *changes)

static void a_sessions_fields_are_in_range(void **state)
{
    static const struct change changes[] = {
        { SESSION_KNOWN, 1, 0, true },
        { SESSION_KNOWN, 1, 2, false },
        { SESSION_BASE, 8, 39, false }, /* below its last straggler */
        { SESSION_BASE, 8, SML_XID_MAX, true },
        { SESSION_BASE, 8, SML_XID_MAX + 1, false },
        { SESSION_WINDOW, 4, 0, false },
        { SESSION_WINDOW, 4, 2, false }, /* less than its stragglers */
        { SESSION_WINDOW, 4, 3, true },
        { SESSION_WINDOW, 4, SEMEL_WINDOW_CALLS_MAX, true },
        { SESSION_WINDOW, 4, SEMEL_WINDOW_CALLS_MAX + 1, false },
        { SESSION_COUNT, 4, 2, false },
        { SESSION_COUNT, 4, 4, false },
        { SESSION_COUNT, 4, UINT32_MAX, false },
        { SESSION_STRAGGLERS, 8, 0, false },
        { SESSION_STRAGGLERS, 8, 1, true },
        { SESSION_STRAGGLERS, 8, 4, false }, /* the same twice */
        { SESSION_STRAGGLERS, 8, 5, false }, /* falling */
        { SESSION_STRAGGLERS + 8, 8, 39, true },
        { SESSION_STRAGGLERS + 8, 8, 40, false },
        { SESSION_STRAGGLERS + 16, 8, 41, false }, /* above base */
    };

    (void)state;
    TRY(SESSION, changes);
}

static void a_calls_fields_are_in_range(void **state)
{
    static const struct change changes[] = {
        { CALL_STATE, 1, 0, false },
        { CALL_STATE, 1, SML_CALL_STARTED, true },
        { CALL_STATE, 1, SML_CALL_AGAIN, true },
        { CALL_STATE, 1, 4, false },
        { CALL_FLAGS, 1, SML_CALL_RERUN_OK | SML_CALL_REFUSE_WHEN_FULL | SML_CALL_ORIGIN, true },
        { CALL_FLAGS, 1, SML_CALL_ORIGIN | 0x08, false },
        { CALL_FLAGS, 1, SML_CALL_ORIGIN | 0x80, false },
        { CALL_FLAGS, 1, 0, false }, /* the origin is too much then */
        { CALL_CRASHES, 1, 0, true },
        { CALL_CRASHES, 1, 255, true },
        { CALL_PROVEN, 1, 1, false }, /* of a failure */
        { CALL_PROVEN, 1, 2, false },
        { CALL_METHOD, 1, 0, false },
        { CALL_METHOD, 1, 2, false },
        { CALL_METHOD, 1, 255, false },
        { CALL_KEY, 1, 7, false },
        { CALL_KEY, 1, 255, false },
        { CALL_XID, 8, 0, false },
        { CALL_XID, 8, 1, true },
        { CALL_XID, 8, SML_XID_MAX, true },
        { CALL_XID, 8, SML_XID_MAX + 1, false },
        { CALL_ORIGIN + 16, 8, 0, false },
        { CALL_ORIGIN + 16, 8, 1, true },
        { CALL_ORIGIN + 16, 8, SML_XID_MAX, true },
        { CALL_ORIGIN + 16, 8, SML_XID_MAX + 1, false },
    };

    (void)state;
    TRY(CALL, changes);
}

static void a_keys_fields_are_in_range(void **state)
{
    static const struct change changes[] = {
        { KEY_STATE, 1, 0, false },
        { KEY_STATE, 1, SML_CALL_STARTED, true },
        { KEY_STATE, 1, SML_CALL_AGAIN, true },
        { KEY_STATE, 1, SML_CALL_AGAIN + 1, false },
        { KEY_METHOD, 1, 0, false },
        { KEY_METHOD, 1, 4, false },
        { KEY_KEY, 1, 0, false },
        { KEY_KEY, 1, 9, false },
        { KEY_KNOWN, 1, 0, true },
        { KEY_KNOWN, 1, 255, false },
        { KEY_XID, 8, 0, false },
        { KEY_XID, 8, 1, true },
        { KEY_XID, 8, SML_XID_MAX, true },
        { KEY_XID, 8, SML_XID_MAX + 1, false },
    };

    (void)state;
    TRY(KEY, changes);
}

/* A verdict stands in calls and keys alike. */
static void a_verdicts_fields_are_in_range(void **state)
{
    static const int where[] = { CALL, KEY };
    static const size_t at[] = { CALL_VERDICT, KEY_VERDICT };

    (void)state;
    for (int i = 0; i < 2; i++) {
        const struct change changes[] = {
            { at[i] + OF_STATUS, 2, 9, false }, /* no such status */
            { at[i] + OF_STATUS, 2, 0xffff, false },
            { at[i] + OF_STATUS, 2, SEMEL_EXPIRED, false },  /* of a value or a failure */
            { at[i] + OF_OUTCOME, 4, SEMEL_UNKNOWN, false }, /* without a reason */
            { at[i] + OF_OUTCOME, 4, SEMEL_UNKNOWN + 1, false },
            { at[i] + OF_OUTCOME, 4, UINT32_MAX, false },
            { at[i] + OF_TEXT, 2, 0xffff, false },
            { at[i] + OF_DETAIL, 2, 0xffff, false },
            { at[i] + OF_TRACE, 2, 0xffff, false },
            { at[i] + OF_BODY, 8, 3, false },
            { at[i] + OF_BODY, 8, 5, false },
            { at[i] + OF_BODY, 8, UINT64_MAX, false },
        };

        TRY(where[i], changes);
    }
}

/* Bytes enough are there, and still they are too many. */
static void strings_have_their_bounds(void **state)
{
    static uint8_t room[SEMEL_DETAIL_BYTES + 1];
    struct sml_call_record call = some_call(), out;
    struct semel_bytes *const strings[] = { &call.verdict.text, &call.verdict.detail,
                                            &call.verdict.trace };
    static const size_t most[] = { SEMEL_TEXT_BYTES, SEMEL_DETAIL_BYTES, SEMEL_TRACE_BYTES };

    (void)state;
    for (int i = 0; i < 3; i++) {
        for (size_t over = 0; over < 2; over++) {
            struct coded coded;
            const char *why;

            *strings[i] = semel_bytes(room, most[i] + over);
            coded = code_call(&call);
            why = sml_call_record_decode(view(&coded), &out);
            assert_int_equal(why != NULL, over == 1);
            free(coded.bytes);
        }
        *strings[i] = semel_bytes(NULL, 0);
    }
}

/* --- keys -------------------------------------------------------------------------------- */

static void a_keys_hash_tells_apart_what_differs(void **state)
{
    static const struct {
        struct sml_principal principal;
        const char *method, *key;
    } rows[] = {
        { { true, 1, 2 }, "pay", "one" },  { { true, 1, 3 }, "pay", "one" },
        { { true, 2, 2 }, "pay", "one" },  { { true, 2, 1 }, "pay", "one" },
        { { true, 0, 0 }, "pay", "one" },  { { false, 0, 0 }, "pay", "one" },
        { { true, 1, 2 }, "paz", "one" },  { { true, 1, 2 }, "pay", "onf" },
        { { true, 1, 2 }, "payo", "ne" },  { { true, 1, 2 }, "pa", "yone" },
        { { true, 1, 2 }, "pay", "one1" }, { { true, 1, 2 }, "pay1", "one" },
    };
    enum { ROWS = sizeof rows / sizeof *rows };
    uint8_t hashes[ROWS][32], again[32];

    (void)state;
    for (int i = 0; i < ROWS; i++) {
        sml_record_key_hash(&rows[i].principal, semel_bytes_text(rows[i].method),
                            semel_bytes_text(rows[i].key), hashes[i]);
        for (int k = 0; k < i; k++)
            assert_memory_not_equal(hashes[i], hashes[k], 32);
        sml_record_key_hash(&rows[i].principal, semel_bytes_text(rows[i].method),
                            semel_bytes_text(rows[i].key), again);
        assert_memory_equal(again, hashes[i], 32);
    }
}

/* Whoever the kernel does not know is one principal, whatever stands in the other fields. */
static void strangers_are_one(void **state)
{
    struct sml_principal a = { false, 1, 2 }, b = { false, 3, 4 };
    uint8_t name[SEMEL_METHOD_BYTES], of_a[32], of_b[32];
    struct semel_bytes longest = filled(name, sizeof name, 1);

    (void)state;
    sml_record_key_hash(&a, longest, longest, of_a);
    sml_record_key_hash(&b, longest, longest, of_b);
    assert_memory_equal(of_a, of_b, 32);
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLAIN("sessions come back", sessions_come_back),
        PLAIN("calls come back", calls_come_back),
        PLAIN("streams are not stored", streams_are_not_stored),
        PLAIN("keys come back", keys_come_back),
        FRESH("every flipped bit is noticed", every_flipped_bit_is_noticed),
        FRESH("every other length is noticed", every_other_length_is_noticed),
        FRESH("other kinds and versions are refused", other_kinds_and_versions_are_refused),
        FRESH("a session's fields are in range", a_sessions_fields_are_in_range),
        FRESH("a call's fields are in range", a_calls_fields_are_in_range),
        FRESH("a key's fields are in range", a_keys_fields_are_in_range),
        FRESH("a verdict's fields are in range", a_verdicts_fields_are_in_range),
        PLAIN("strings have their bounds", strings_have_their_bounds),
        PLAIN("a key's hash tells apart what differs", a_keys_hash_tells_apart_what_differs),
        PLAIN("strangers are one", strangers_are_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
