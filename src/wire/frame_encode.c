/* SPDX-License-Identifier: MIT */
/* Frames to bytes. Every encoder is straight stores into room the caller has measured: no
 * allocation, no failure. A frame that the decoder would refuse is a bug of the caller, so the
 * bounds that memory safety rests on are asserted; the rest is the decoder's to refuse.
 *
 * The field positions written here are those of docs/PROTOCOL.md, whose vectors the tests hold
 * against encoder and decoder alike. */
#include "base/bug.h"
#include "base/check.h"
#include "base/le.h"
#include "wire/frame.h"
#include "wire/layout.h"

static inline size_t put_header(uint8_t *out, enum sml_frame_type type, uint64_t xid,
                                size_t payload)
{
    sml_store32(out, (uint32_t)payload);
    sml_store32(out + 4, (uint32_t)type); /* type, flags 0, zero */
    sml_store64(out + 8, xid);
    return SML_HEADER_BYTES + payload;
}

/* Append a view; an empty one may have no address. */
static inline uint8_t *put_bytes(uint8_t *at, struct semel_bytes bytes)
{
    if (bytes.size > 0)
        memcpy(at, bytes.data, bytes.size);
    return at + bytes.size;
}

static inline void put_fingerprint(uint8_t *at, struct sml_fingerprint fingerprint)
{
    sml_store64(at, fingerprint.a);
    sml_store64(at + 8, fingerprint.b);
}

size_t sml_encode_hello(uint8_t *out, const struct sml_hello *hello)
{
    uint8_t *p = out + SML_HEADER_BYTES;

    sml_store32(p, SML_MAGIC);
    sml_store16(p + 4, hello->version);
    p[6] = hello->kind;
    p[7] = 0;
    sml_store32(p + 8, hello->features);
    sml_store32(p + 12, hello->count);
    memcpy(p + 16, hello->session.bytes, 16);
    memcpy(p + 32, hello->secret, 32);
    sml_store64(p + 64, hello->conn_no);
    sml_store64(p + 72, hello->next);
    sml_store64(p + 80, hello->body_bytes);
    sml_store32(p + 88, hello->window);
    sml_store32(p + 92, hello->heartbeat_ms);
    memcpy(p + 96, hello->server_id, 16);
    return put_header(out, SML_HELLO, 0, SML_HELLO_PAYLOAD_BYTES);
}

size_t sml_encode_welcome(uint8_t *out, const struct sml_welcome *welcome)
{
    uint8_t *p = out + SML_HEADER_BYTES;

    sml_store16(p, welcome->version);
    p[2] = welcome->resumed;
    p[3] = 0;
    sml_store32(p + 4, welcome->features);
    memcpy(p + 8, welcome->server_id, 16);
    sml_store64(p + 24, welcome->generation);
    sml_store64(p + 32, welcome->durable_hi);
    sml_store64(p + 40, welcome->body_bytes);
    sml_store64(p + 48, welcome->session_bytes);
    sml_store32(p + 56, welcome->window);
    sml_store32(p + 60, welcome->count);
    sml_store32(p + 64, welcome->idle_ms);
    sml_store32(p + 68, welcome->heartbeat_ms);
    return put_header(out, SML_WELCOME, 0, WELCOME_FIXED);
}

static uint8_t *put_list_head(uint8_t *out, uint32_t kind, uint32_t count, size_t entry_bytes)
{
    SML_ASSERT(count >= 1 && count <= SML_LIST_ENTRIES_MAX);
    put_header(out, SML_LIST, 0, LIST_FIXED + count * entry_bytes);
    sml_store32(out + SML_HEADER_BYTES, kind);
    sml_store32(out + SML_HEADER_BYTES + 4, count);
    return out + SML_HEADER_BYTES + LIST_FIXED;
}

size_t sml_encode_outstanding(uint8_t *out, const struct sml_outstanding *entries, uint32_t count)
{
    uint8_t *p = put_list_head(out, LIST_FROM_CALLER, count, OUTSTANDING_BYTES);

    for (uint32_t i = 0; i < count; i++, p += OUTSTANDING_BYTES) {
        sml_store64(p, entries[i].xid);
        sml_store64(p + 8, entries[i].held);
        put_fingerprint(p + 16, entries[i].fingerprint);
    }
    return (size_t)(p - out);
}

size_t sml_encode_listed(uint8_t *out, const struct sml_listed *entries, uint32_t count)
{
    uint8_t *p = put_list_head(out, LIST_FROM_CALLEE, count, LISTED_BYTES);

    for (uint32_t i = 0; i < count; i++, p += LISTED_BYTES) {
        sml_store64(p, entries[i].xid);
        sml_store64(p + 8, entries[i].offset);
        sml_store64(p + 16, (uint64_t)entries[i].state); /* one byte, seven zero */
    }
    return (size_t)(p - out);
}

size_t sml_call_overhead(const struct sml_call_frame *call)
{
    return SML_HEADER_BYTES + CALL_FIXED + (call->flags & SML_CALL_ORIGIN ? CALL_ORIGIN : 0) +
           (call->key.size > 0 ? CALL_AGE : 0) + call->method.size + call->content_type.size +
           call->key.size;
}

/* What only some calls have, between the fixed fields and the names. */
static uint8_t *put_optional(uint8_t *at, const struct sml_call_frame *call)
{
    if (call->flags & SML_CALL_ORIGIN) {
        memcpy(at, call->origin.session.bytes, 16);
        sml_store64(at + 16, call->origin.xid);
        at += CALL_ORIGIN;
    }
    if (call->key.size > 0) {
        sml_store64(at, call->key_age_ms);
        at += CALL_AGE;
    }
    return at;
}

size_t sml_encode_call(uint8_t *out, uint64_t xid, const struct sml_call_frame *call)
{
    uint8_t *p = out + SML_HEADER_BYTES;
    uint8_t *at = p + CALL_FIXED;

    SML_ASSERT(call->method.size <= SEMEL_METHOD_BYTES);
    SML_ASSERT(call->content_type.size <= SEMEL_CONTENT_TYPE_BYTES);
    SML_ASSERT(call->key.size <= SEMEL_KEY_BYTES && call->fragment.size <= SML_FRAGMENT_BYTES);
    put_fingerprint(p, call->fingerprint);
    sml_store64(p + 16, call->body_bytes);
    sml_store32(p + 24, call->remaining_ms);
    p[28] = call->flags;
    p[29] = (uint8_t)call->method.size;
    p[30] = (uint8_t)call->content_type.size;
    p[31] = (uint8_t)call->key.size;
    at = put_optional(at, call);
    at = put_bytes(at, call->method);
    at = put_bytes(at, call->content_type);
    at = put_bytes(at, call->key);
    at = put_bytes(at, call->fragment);
    return put_header(out, SML_CALL, xid, (size_t)(at - p));
}

size_t sml_encode_body(uint8_t *out, uint64_t xid, uint64_t offset, struct semel_bytes fragment)
{
    uint8_t *p = out + SML_HEADER_BYTES;

    SML_ASSERT(fragment.size >= 1 && fragment.size <= SML_FRAGMENT_BYTES);
    sml_store64(p, offset);
    put_bytes(p + BODY_FIXED, fragment);
    return put_header(out, SML_BODY, xid, BODY_FIXED + fragment.size);
}

size_t sml_reply_overhead(const struct sml_reply_frame *reply)
{
    return SML_HEADER_BYTES + REPLY_FIXED + reply->verdict.text.size + reply->verdict.detail.size +
           reply->verdict.trace.size;
}

size_t sml_encode_reply(uint8_t *out, uint64_t xid, const struct sml_reply_frame *reply)
{
    const struct sml_verdict *verdict = &reply->verdict;
    uint8_t *p = out + SML_HEADER_BYTES;
    uint8_t *at = p + REPLY_FIXED;

    SML_ASSERT(verdict->text.size <= SEMEL_TEXT_BYTES);
    SML_ASSERT(verdict->detail.size <= SEMEL_DETAIL_BYTES);
    SML_ASSERT(verdict->trace.size <= SEMEL_TRACE_BYTES);
    SML_ASSERT(verdict->body.size <= SML_FRAGMENT_BYTES);
    sml_store64(p, reply->body_bytes);
    sml_store64(p + 8, reply->offset);
    sml_store32(p + 16, (uint32_t)verdict->code);
    sml_store16(p + 20, (uint16_t)verdict->status);
    p[22] = (uint8_t)verdict->outcome;
    p[23] = SML_BUG(RECORDED_LOST) ? 0 : reply->flags;
    sml_store16(p + 24, (uint16_t)verdict->text.size);
    sml_store16(p + 26, (uint16_t)verdict->detail.size);
    sml_store16(p + 28, (uint16_t)verdict->trace.size);
    sml_store16(p + 30, 0);
    at = put_bytes(at, verdict->text);
    at = put_bytes(at, verdict->detail);
    at = put_bytes(at, verdict->trace);
    at = put_bytes(at, verdict->body);
    return put_header(out, SML_REPLY, xid, (size_t)(at - p));
}

size_t sml_encode_part_head(uint8_t *out, uint64_t xid, const struct sml_part_frame *part)
{
    uint8_t *p = out + SML_HEADER_BYTES;

    SML_ASSERT(part->bytes.size <= SML_FRAGMENT_BYTES);
    sml_store64(p, part->number);
    sml_store64(p + 8, (uint64_t)part->kind); /* four bytes, four zero */
    return put_header(out, SML_PART, xid, PART_FIXED + part->bytes.size) - part->bytes.size;
}

size_t sml_encode_part(uint8_t *out, uint64_t xid, const struct sml_part_frame *part)
{
    size_t head = sml_encode_part_head(out, xid, part);

    put_bytes(out + head, part->bytes);
    return head + part->bytes.size;
}

size_t sml_encode_credit(uint8_t *out, uint64_t xid, const struct sml_credit_frame *credit)
{
    uint8_t *p = out + SML_HEADER_BYTES;

    sml_store64(p, credit->next);
    sml_store64(p + 8, credit->taken);
    sml_store64(p + 16, credit->limit);
    return put_header(out, SML_CREDIT, xid, CREDIT_FIXED);
}

size_t sml_encode_ack(uint8_t *out, const struct sml_ack_range *ranges, uint32_t count)
{
    uint8_t *p = out + SML_HEADER_BYTES;

    SML_ASSERT(count >= 1 && count <= SML_ACK_RANGES_MAX);
    sml_store32(p, count);
    sml_store32(p + 4, 0);
    p += ACK_FIXED;
    for (uint32_t i = 0; i < count; i++, p += ACK_RANGE_BYTES) {
        sml_store64(p, ranges[i].first);
        sml_store64(p + 8, ranges[i].count); /* four bytes, four zero */
    }
    return put_header(out, SML_ACK, 0, (size_t)(p - out) - SML_HEADER_BYTES);
}

size_t sml_encode_busy(uint8_t *out, uint64_t xid, uint32_t delay_ms)
{
    sml_store32(out + SML_HEADER_BYTES, delay_ms);
    return put_header(out, SML_BUSY, xid, BUSY_FIXED);
}

size_t sml_encode_drain(uint8_t *out, uint32_t grace_ms)
{
    sml_store32(out + SML_HEADER_BYTES, grace_ms);
    return put_header(out, SML_DRAIN, 0, DRAIN_FIXED);
}

size_t sml_encode_bye(uint8_t *out, enum sml_bye_code code, struct semel_bytes text)
{
    uint8_t *p = out + SML_HEADER_BYTES;

    SML_ASSERT(text.size <= SML_BYE_TEXT_BYTES);
    sml_store16(p, (uint16_t)code);
    sml_store16(p + 2, (uint16_t)text.size);
    put_bytes(p + BYE_FIXED, text);
    return put_header(out, SML_BYE, 0, BYE_FIXED + text.size);
}

size_t sml_encode_plain(uint8_t *out, enum sml_frame_type type, uint64_t xid)
{
    SML_ASSERT(type == SML_CANCEL || type == SML_PING || type == SML_PONG);
    return put_header(out, type, xid, 0);
}
