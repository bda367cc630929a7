/* SPDX-License-Identifier: MIT */
/* outbox.c - an outbox's records to checked bytes and back. */
#include "session/outbox.h"

#include "session/record_io.h"

enum { KIND_IDENTITY = 'I', KIND_POSTED = 'P', KIND_RESULT = 'R' };

#define POSTED_FIXED (SML_RECORD_HEAD_BYTES + 8 + 3 + 4 + 8)
#define RESULT_FIXED (SML_RECORD_HEAD_BYTES + SML_RECORD_VERDICT_BYTES)

/* --- writing ---------------------------------------------------------------------------- */

void sml_identity_record_encode(const struct sml_identity_record *record,
                                uint8_t out[SML_IDENTITY_RECORD_BYTES])
{
    const struct sml_link_identity *identity = &record->identity;
    uint8_t *at = sml_put_head(out, KIND_IDENTITY);

    at = sml_put_bytes(at, identity->session.bytes, 16);
    at = sml_put_bytes(at, identity->secret, 32);
    at = sml_put8(at, identity->has_session);
    at = sml_put_bytes(at, identity->server_id, 16);
    at = sml_put64(at, identity->generation);
    at = sml_put64(at, identity->durable_hi);
    at = sml_put64(at, identity->conn_no);
    at = sml_put64(at, identity->next);
    at = sml_put8(at, identity->has_store);
    at = sml_put_bytes(at, identity->store_id, 16);
    at = sml_put64(at, identity->store_generation);
    at = sml_put64(at, record->address_hash);
    at = sml_put64(at, record->wall_ms);
    sml_seal(out, at, SML_IDENTITY_RECORD_BYTES);
}

size_t sml_posted_record_bytes(const struct sml_posted_record *record)
{
    return POSTED_FIXED + record->method.size + record->content_type.size + record->key.size +
           record->tag.size + record->body.size;
}

void sml_posted_record_encode(const struct sml_posted_record *record, uint8_t *out)
{
    uint8_t *at = sml_put_head(out, KIND_POSTED);

    at = sml_put64(at, record->posted_ms);
    at = sml_put8(at, (uint8_t)record->method.size);
    at = sml_put8(at, (uint8_t)record->content_type.size);
    at = sml_put8(at, (uint8_t)record->key.size);
    at = sml_put32(at, (uint32_t)record->tag.size);
    at = sml_put64(at, record->body.size);
    at = sml_put_view(at, record->method);
    at = sml_put_view(at, record->content_type);
    at = sml_put_view(at, record->key);
    at = sml_put_view(at, record->tag);
    at = sml_put_view(at, record->body);
    sml_seal(out, at, sml_posted_record_bytes(record));
}

size_t sml_result_record_bytes(const struct sml_result_record *record)
{
    return RESULT_FIXED + sml_verdict_strings(&record->verdict);
}

void sml_result_record_encode(const struct sml_result_record *record, uint8_t *out)
{
    uint8_t *at = sml_put_head(out, KIND_RESULT);

    at = sml_put_verdict(at, &record->verdict);
    at = sml_put_verdict_strings(at, &record->verdict);
    sml_seal(out, at, sml_result_record_bytes(record));
}

/* --- reading ---------------------------------------------------------------------------- */

const char *sml_identity_record_decode(struct semel_bytes bytes, struct sml_identity_record *out)
{
    struct sml_identity_record record;
    struct sml_link_identity *identity = &record.identity;
    struct sml_reader reader;
    const char *why = sml_open_record(bytes, KIND_IDENTITY, SML_IDENTITY_RECORD_BYTES, &reader);
    bool ok;

    if (why)
        return why;
    if (bytes.size != SML_IDENTITY_RECORD_BYTES)
        return "identity record whose lengths disagree";
    memset(&record, 0, sizeof record);
    memcpy(identity->session.bytes, sml_take(&reader, 16), 16);
    memcpy(identity->secret, sml_take(&reader, 32), 32);
    ok = sml_take_bool(&reader, &identity->has_session);
    memcpy(identity->server_id, sml_take(&reader, 16), 16);
    identity->generation = sml_take64(&reader);
    identity->durable_hi = sml_take64(&reader);
    identity->conn_no = sml_take64(&reader);
    identity->next = sml_take64(&reader);
    ok = sml_take_bool(&reader, &identity->has_store) && ok;
    memcpy(identity->store_id, sml_take(&reader, 16), 16);
    identity->store_generation = sml_take64(&reader);
    record.address_hash = sml_take64(&reader);
    record.wall_ms = sml_take64(&reader);
    if (!ok || identity->next == 0 || identity->conn_no == 0)
        return "identity record out of range";
    *out = record;
    return NULL;
}

const char *sml_posted_record_decode(struct semel_bytes bytes, struct sml_posted_record *out)
{
    struct sml_posted_record record = { 0 };
    struct sml_reader reader;
    const char *why = sml_open_record(bytes, KIND_POSTED, POSTED_FIXED, &reader);

    if (why)
        return why;
    record.posted_ms = sml_take64(&reader);
    record.method.size = sml_take8(&reader);
    record.content_type.size = sml_take8(&reader);
    record.key.size = sml_take8(&reader);
    record.tag.size = sml_load32(sml_take(&reader, 4));
    record.body.size = (size_t)sml_take64(&reader);
    if (record.method.size == 0 || record.key.size == 0 || record.body.size > SEMEL_BODY_BYTES_MAX)
        return "posted call out of range";
    if (!sml_take_view(&reader, &record.method) || !sml_take_view(&reader, &record.content_type) ||
        !sml_take_view(&reader, &record.key) || !sml_take_view(&reader, &record.tag) ||
        !sml_take_view(&reader, &record.body) || reader.left != 0)
        return "posted call whose lengths disagree";
    *out = record;
    return NULL;
}

const char *sml_result_record_decode(struct semel_bytes bytes, struct sml_result_record *out)
{
    struct sml_result_record record = { 0 };
    struct sml_reader reader;
    const char *why = sml_open_record(bytes, KIND_RESULT, RESULT_FIXED, &reader);

    if (why)
        return why;
    sml_take_verdict(&reader, &record.verdict);
    if (!sml_is_verdict(&record.verdict))
        return "result out of range";
    if (!sml_take_verdict_strings(&reader, &record.verdict))
        return "result whose lengths disagree";
    *out = record;
    return NULL;
}

uint64_t sml_posted_age_ms(uint64_t posted_ms, uint64_t wall_ms)
{
    return wall_ms > posted_ms ? wall_ms - posted_ms : 1;
}
