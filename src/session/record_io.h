/* SPDX-License-Identifier: MIT */
/* record_io.h - the parts of records: checked bytes, written and read piece by piece. For the files
 * that encode records (record.c, outbox.c) only.
 *
 * Every record: 8 bytes checksum of what follows | 1 byte version | 1 byte kind | fixed fields |
 * strings. The checksum is one lane of the call fingerprint (base/hash.h): 64 bits against damage,
 * not against an adversary, who could write the file as he likes anyway. */
#ifndef SML_SESSION_RECORD_IO_H
#define SML_SESSION_RECORD_IO_H

#include "base/check.h"
#include "base/le.h"
#include "session/record.h"

#define SML_RECORD_VERSION 1
#define SML_RECORD_HEAD_BYTES 10 /* checksum, version, kind */
#define SML_RECORD_PRINCIPAL_BYTES 9
#define SML_RECORD_VERDICT_BYTES 24

/* --- writing ---------------------------------------------------------------------------- */

static inline uint64_t sml_record_checksum(const uint8_t *record, size_t bytes)
{
    return sml_fingerprint(NULL, 0, NULL, 0, record + 8, bytes - 8).a;
}

static inline uint8_t *sml_put_head(uint8_t *out, uint8_t kind)
{
    out[8] = SML_RECORD_VERSION;
    out[9] = kind;
    return out + SML_RECORD_HEAD_BYTES;
}

static inline uint8_t *sml_put8(uint8_t *at, uint8_t value)
{
    *at = value;
    return at + 1;
}

static inline uint8_t *sml_put32(uint8_t *at, uint32_t value)
{
    sml_store32(at, value);
    return at + 4;
}

static inline uint8_t *sml_put64(uint8_t *at, uint64_t value)
{
    sml_store64(at, value);
    return at + 8;
}

static inline uint8_t *sml_put_bytes(uint8_t *at, const void *data, size_t size)
{
    if (size > 0)
        memcpy(at, data, size);
    return at + size;
}

static inline uint8_t *sml_put_view(uint8_t *at, struct semel_bytes view)
{
    return sml_put_bytes(at, view.data, view.size);
}

static inline uint8_t *sml_put_principal(uint8_t *at, const struct sml_principal *principal)
{
    at = sml_put8(at, principal->known);
    at = sml_put32(at, principal->known ? principal->uid : 0);
    return sml_put32(at, principal->known ? principal->gid : 0);
}

static inline uint8_t *sml_put_fingerprint(uint8_t *at, struct sml_fingerprint fingerprint)
{
    return sml_put64(sml_put64(at, fingerprint.a), fingerprint.b);
}

static inline size_t sml_verdict_strings(const struct sml_verdict *verdict)
{
    return verdict->text.size + verdict->detail.size + verdict->trace.size + verdict->body.size;
}

static inline uint8_t *sml_put_verdict(uint8_t *at, const struct sml_verdict *verdict)
{
    sml_store16(at, (uint16_t)verdict->status);
    sml_store16(at + 2, (uint16_t)verdict->text.size);
    sml_store16(at + 4, (uint16_t)verdict->detail.size);
    sml_store16(at + 6, (uint16_t)verdict->trace.size);
    sml_store32(at + 8, (uint32_t)verdict->code);
    sml_store32(at + 12, (uint32_t)verdict->outcome);
    sml_store64(at + 16, verdict->body.size);
    return at + SML_RECORD_VERDICT_BYTES;
}

static inline uint8_t *sml_put_verdict_strings(uint8_t *at, const struct sml_verdict *verdict)
{
    at = sml_put_view(at, verdict->text);
    at = sml_put_view(at, verdict->detail);
    at = sml_put_view(at, verdict->trace);
    return sml_put_view(at, verdict->body);
}

static inline void sml_seal(uint8_t *out, const uint8_t *end, size_t bytes)
{
    SML_ASSERT((size_t)(end - out) == bytes);
    sml_store64(out, sml_record_checksum(out, bytes));
}

/* --- reading ---------------------------------------------------------------------------- */

/* What is still to be read. Fixed fields are read after a check that all of them are there. */
struct sml_reader {
    const uint8_t *at;
    size_t left;
};

static inline const char *sml_open_record(struct semel_bytes bytes, uint8_t kind, size_t fixed,
                                          struct sml_reader *out)
{
    const uint8_t *data = bytes.data;

    if (bytes.size < fixed)
        return "record too short";
    if (sml_load64(data) != sml_record_checksum(data, bytes.size))
        return "record whose checksum is wrong";
    if (data[8] != SML_RECORD_VERSION)
        return "record of another version";
    if (data[9] != kind)
        return "record of another kind";
    *out = (struct sml_reader){ data + SML_RECORD_HEAD_BYTES, bytes.size - SML_RECORD_HEAD_BYTES };
    return NULL;
}

static inline const uint8_t *sml_take(struct sml_reader *reader, size_t bytes)
{
    const uint8_t *at = reader->at;

    SML_ASSERT(bytes <= reader->left);
    reader->at += bytes;
    reader->left -= bytes;
    return at;
}

static inline uint8_t sml_take8(struct sml_reader *reader)
{
    return *sml_take(reader, 1);
}

static inline uint64_t sml_take64(struct sml_reader *reader)
{
    return sml_load64(sml_take(reader, 8));
}

/* A truth is 0 or 1; false: it is neither. */
static inline bool sml_take_bool(struct sml_reader *reader, bool *out)
{
    uint8_t value = sml_take8(reader);

    *out = value != 0;
    return value <= 1;
}

static inline bool sml_take_principal(struct sml_reader *reader, struct sml_principal *principal)
{
    bool ok = sml_take_bool(reader, &principal->known);

    principal->uid = sml_load32(sml_take(reader, 4));
    principal->gid = sml_load32(sml_take(reader, 4));
    return ok;
}

static inline struct sml_fingerprint sml_take_fingerprint(struct sml_reader *reader)
{
    uint64_t a = sml_take64(reader);

    return (struct sml_fingerprint){ a, sml_take64(reader) };
}

static inline void sml_take_verdict(struct sml_reader *reader, struct sml_verdict *verdict)
{
    const uint8_t *at = sml_take(reader, SML_RECORD_VERDICT_BYTES);

    verdict->status = (enum semel_status)sml_load16(at);
    verdict->text.size = sml_load16(at + 2);
    verdict->detail.size = sml_load16(at + 4);
    verdict->trace.size = sml_load16(at + 6);
    verdict->code = (int32_t)sml_load32(at + 8);
    verdict->outcome = (enum semel_outcome)sml_load32(at + 12);
    verdict->body.size = (size_t)sml_load64(at + 16);
}

static inline bool sml_take_view(struct sml_reader *reader, struct semel_bytes *view)
{
    if (view->size > reader->left)
        return false;
    view->data = sml_take(reader, view->size);
    return true;
}

static inline bool sml_take_verdict_strings(struct sml_reader *reader, struct sml_verdict *verdict)
{
    return sml_take_view(reader, &verdict->text) && sml_take_view(reader, &verdict->detail) &&
           sml_take_view(reader, &verdict->trace) && sml_take_view(reader, &verdict->body) &&
           reader->left == 0 && verdict->text.size <= SEMEL_TEXT_BYTES &&
           verdict->detail.size <= SEMEL_DETAIL_BYTES && verdict->trace.size <= SEMEL_TRACE_BYTES;
}

static inline bool sml_is_xid(uint64_t xid)
{
    return xid > 0 && xid <= SML_XID_MAX;
}

/* What a REPLY may say, too. */
static inline bool sml_is_verdict(const struct sml_verdict *verdict)
{
    return (unsigned)verdict->outcome <= SEMEL_UNKNOWN &&
           semel_status_name(verdict->status)[0] != '?' &&
           (verdict->outcome == SEMEL_VALUE) == (verdict->status == SEMEL_OK) &&
           (verdict->outcome == SEMEL_FAILURE) == (verdict->status == SEMEL_FAILED);
}

#endif
