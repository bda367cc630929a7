/* SPDX-License-Identifier: MIT */
/* record.c - a server's records to checked bytes and back. */
#include "session/record_io.h"

#include "base/bug.h"

enum { KIND_SESSION = 'S', KIND_CALL = 'C', KIND_KEY = 'K' };

/* Streams are not stored. */
#define CALL_FLAGS (SML_CALL_RERUN_OK | SML_CALL_REFUSE_WHEN_FULL | SML_CALL_ORIGIN)
#define ORIGIN_BYTES 24
#define SESSION_FIXED (SML_RECORD_HEAD_BYTES + 16 + 32 + SML_RECORD_PRINCIPAL_BYTES + 8 + 8 + 4 + 4)
#define CALL_FIXED (SML_RECORD_HEAD_BYTES + 6 + 8 + 8 + 16 + SML_RECORD_VERDICT_BYTES)
#define KEY_FIXED                                                                                  \
    (SML_RECORD_HEAD_BYTES + 3 + SML_RECORD_PRINCIPAL_BYTES + 8 + 8 + 16 + 8 +                     \
     SML_RECORD_VERDICT_BYTES)

/* --- writing ---------------------------------------------------------------------------- */

size_t sml_session_record_bytes(const struct sml_session_record *record)
{
    return SESSION_FIXED + (size_t)record->straggler_count * 8;
}

void sml_session_record_encode(const struct sml_session_record *record, uint8_t *out)
{
    uint8_t *at = sml_put_head(out, KIND_SESSION);

    at = sml_put_bytes(at, record->id.bytes, 16);
    at = sml_put_bytes(at, record->secret_hash, 32);
    at = sml_put_principal(at, &record->principal);
    at = sml_put64(at, record->conn_no);
    at = sml_put64(at, record->base);
    at = sml_put32(at, record->window);
    at = sml_put32(at, record->straggler_count);
    at = sml_put_bytes(at, record->stragglers, (size_t)record->straggler_count * 8);
    sml_seal(out, at, sml_session_record_bytes(record));
}

static size_t origin_bytes(uint8_t flags)
{
    return flags & SML_CALL_ORIGIN ? ORIGIN_BYTES : 0;
}

size_t sml_call_record_bytes(const struct sml_call_record *record)
{
    return CALL_FIXED + origin_bytes(record->flags) + record->method.size + record->key.size +
           sml_verdict_strings(&record->verdict);
}

void sml_call_record_encode(const struct sml_call_record *record, uint8_t *out)
{
    uint8_t *at = sml_put_head(out, KIND_CALL);

    at = sml_put8(at, (uint8_t)record->state);
    at = sml_put8(at, record->flags & CALL_FLAGS);
    at = sml_put8(at, SML_BUG(POISON_COUNT_LOST) ? 0 : record->crashes);
    at = sml_put8(at, record->proven);
    at = sml_put8(at, (uint8_t)record->method.size);
    at = sml_put8(at, (uint8_t)record->key.size);
    at = sml_put64(at, record->session);
    at = sml_put64(at, record->xid);
    at = sml_put_fingerprint(at, record->fingerprint);
    at = sml_put_verdict(at, &record->verdict);
    if (record->flags & SML_CALL_ORIGIN) {
        at = sml_put_bytes(at, record->origin.session.bytes, 16);
        at = sml_put64(at, record->origin.xid);
    }
    at = sml_put_view(at, record->method);
    at = sml_put_view(at, record->key);
    at = sml_put_verdict_strings(at, &record->verdict);
    sml_seal(out, at, sml_call_record_bytes(record));
}

size_t sml_key_record_bytes(const struct sml_key_record *record)
{
    return KEY_FIXED + record->method.size + record->key.size +
           sml_verdict_strings(&record->verdict);
}

void sml_key_record_encode(const struct sml_key_record *record, uint8_t *out)
{
    uint8_t *at = sml_put_head(out, KIND_KEY);

    at = sml_put8(at, (uint8_t)record->state);
    at = sml_put8(at, (uint8_t)record->method.size);
    at = sml_put8(at, (uint8_t)record->key.size);
    at = sml_put_principal(at, &record->principal);
    at = sml_put64(at, record->session);
    at = sml_put64(at, record->xid);
    at = sml_put_fingerprint(at, record->fingerprint);
    at = sml_put64(at, record->kept_since);
    at = sml_put_verdict(at, &record->verdict);
    at = sml_put_view(at, record->method);
    at = sml_put_view(at, record->key);
    at = sml_put_verdict_strings(at, &record->verdict);
    sml_seal(out, at, sml_key_record_bytes(record));
}

/* --- reading ---------------------------------------------------------------------------- */

const char *sml_session_record_decode(struct semel_bytes bytes, struct sml_session_record *out)
{
    struct sml_session_record record;
    struct sml_reader reader;
    const char *why = sml_open_record(bytes, KIND_SESSION, SESSION_FIXED, &reader);
    uint64_t last = 0;
    bool ok;

    if (why)
        return why;
    memcpy(record.id.bytes, sml_take(&reader, 16), 16);
    memcpy(record.secret_hash, sml_take(&reader, 32), 32);
    ok = sml_take_principal(&reader, &record.principal);
    record.conn_no = sml_take64(&reader);
    record.base = sml_take64(&reader);
    record.window = sml_load32(sml_take(&reader, 4));
    record.straggler_count = sml_load32(sml_take(&reader, 4));
    if (!ok || record.window == 0 || record.window > SEMEL_WINDOW_CALLS_MAX ||
        record.straggler_count > record.window || record.base > SML_XID_MAX)
        return "session record out of range";
    if (reader.left != (size_t)record.straggler_count * 8)
        return "session record whose lengths disagree";
    record.stragglers = reader.at;
    for (uint32_t i = 0; i < record.straggler_count; i++) {
        uint64_t xid = sml_record_straggler(&record, i);

        if (xid <= last || xid > record.base)
            return "session record with stragglers out of order";
        last = xid;
    }
    *out = record;
    return NULL;
}

const char *sml_call_record_decode(struct semel_bytes bytes, struct sml_call_record *out)
{
    struct sml_call_record record = { 0 };
    struct sml_reader reader;
    const char *why = sml_open_record(bytes, KIND_CALL, CALL_FIXED, &reader);
    bool ok;

    if (why)
        return why;
    record.state = (enum sml_call_record_state)sml_take8(&reader);
    record.flags = sml_take8(&reader);
    record.crashes = sml_take8(&reader);
    ok = sml_take_bool(&reader, &record.proven);
    record.method.size = sml_take8(&reader);
    record.key.size = sml_take8(&reader);
    record.session = sml_take64(&reader);
    record.xid = sml_take64(&reader);
    record.fingerprint = sml_take_fingerprint(&reader);
    sml_take_verdict(&reader, &record.verdict);
    if (!ok || record.state < SML_CALL_STARTED || record.state > SML_CALL_AGAIN ||
        !sml_is_xid(record.xid) || (record.flags & ~CALL_FLAGS) || record.method.size == 0 ||
        !sml_is_verdict(&record.verdict) ||
        (record.proven && record.verdict.outcome != SEMEL_NOT_EXECUTED))
        return "call record out of range";
    if (origin_bytes(record.flags) > reader.left)
        return "call record whose lengths disagree";
    if (record.flags & SML_CALL_ORIGIN) {
        memcpy(record.origin.session.bytes, sml_take(&reader, 16), 16);
        record.origin.xid = sml_take64(&reader);
        if (!sml_is_xid(record.origin.xid))
            return "call record out of range";
    }
    if (!sml_take_view(&reader, &record.method) || !sml_take_view(&reader, &record.key) ||
        !sml_take_verdict_strings(&reader, &record.verdict))
        return "call record whose lengths disagree";
    *out = record;
    return NULL;
}

const char *sml_key_record_decode(struct semel_bytes bytes, struct sml_key_record *out)
{
    struct sml_key_record record = { 0 };
    struct sml_reader reader;
    const char *why = sml_open_record(bytes, KIND_KEY, KEY_FIXED, &reader);
    bool ok;

    if (why)
        return why;
    record.state = (enum sml_call_record_state)sml_take8(&reader);
    record.method.size = sml_take8(&reader);
    record.key.size = sml_take8(&reader);
    ok = sml_take_principal(&reader, &record.principal);
    record.session = sml_take64(&reader);
    record.xid = sml_take64(&reader);
    record.fingerprint = sml_take_fingerprint(&reader);
    record.kept_since = sml_take64(&reader);
    sml_take_verdict(&reader, &record.verdict);
    if (!ok || record.state < SML_CALL_STARTED || record.state > SML_CALL_AGAIN ||
        !sml_is_xid(record.xid) || record.method.size == 0 || record.key.size == 0 ||
        !sml_is_verdict(&record.verdict))
        return "key record out of range";
    if (!sml_take_view(&reader, &record.method) || !sml_take_view(&reader, &record.key) ||
        !sml_take_verdict_strings(&reader, &record.verdict))
        return "key record whose lengths disagree";
    *out = record;
    return NULL;
}

uint64_t sml_record_straggler(const struct sml_session_record *record, uint32_t index)
{
    return sml_load64(record->stragglers + (size_t)index * 8);
}

void sml_record_key_hash(const struct sml_principal *principal, struct semel_bytes method,
                         struct semel_bytes key, uint8_t out[32])
{
    uint8_t text[SML_RECORD_PRINCIPAL_BYTES + 2 + SEMEL_METHOD_BYTES + SEMEL_KEY_BYTES], *at = text;

    SML_ASSERT(method.size <= SEMEL_METHOD_BYTES && key.size <= SEMEL_KEY_BYTES);
    at = sml_put_principal(at, principal);
    at = sml_put8(at, (uint8_t)method.size);
    at = sml_put8(at, (uint8_t)key.size);
    at = sml_put_view(at, method);
    at = sml_put_view(at, key);
    sml_sha256(text, (size_t)(at - text), out);
}
