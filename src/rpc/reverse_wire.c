/* SPDX-License-Identifier: MIT */
/* reverse_wire.c - bytes to messages of reverse calls, and back. Every field is checked before it
 * is used, and each message has one encoding. */
#include "rpc/reverse_wire.h"

#include <string.h>

#include <semel/status.h>

#include "base/le.h"

#define NUMBER_MAX (UINT64_C(1) << 63)

static uint8_t *put(uint8_t *at, struct semel_bytes bytes)
{
    if (bytes.size > 0)
        memcpy(at, bytes.data, bytes.size);
    return at + bytes.size;
}

static const uint8_t *view(const uint8_t *p, size_t size, struct semel_bytes *out)
{
    *out = semel_bytes(size > 0 ? p : NULL, size);
    return p + size;
}

/* --- terms --------------------------------------------------------------------------------- */

void sml_reverse_encode_terms(const struct sml_reverse_terms *terms,
                              uint8_t out[SML_REVERSE_TERMS_BYTES])
{
    memset(out, 0, SML_REVERSE_TERMS_BYTES);
    out[0] = SML_REVERSE_TERMS;
    out[1] = SML_REVERSE_VERSION;
    sml_store32(out + 4, terms->window);
    sml_store64(out + 8, terms->body_bytes);
}

const char *sml_reverse_decode_terms(struct semel_bytes bytes, struct sml_reverse_terms *out)
{
    const uint8_t *p = bytes.data;
    struct sml_reverse_terms terms;

    if (bytes.size != SML_REVERSE_TERMS_BYTES || p[0] != SML_REVERSE_TERMS)
        return "no terms of reverse calls";
    if (p[1] != SML_REVERSE_VERSION)
        return "terms of another version of reverse calls";
    terms.window = sml_load32(p + 4);
    terms.body_bytes = sml_load64(p + 8);
    if (p[2] || p[3] || terms.window == 0 || terms.window > SEMEL_WINDOW_CALLS_MAX ||
        terms.body_bytes > SEMEL_BODY_BYTES_MAX)
        return "terms of reverse calls out of range";
    *out = terms;
    return NULL;
}

/* --- requests ------------------------------------------------------------------------------ */

/* As a method's name and a content type are everywhere. */
static bool is_name(struct semel_bytes name)
{
    const uint8_t *at = name.data;

    for (size_t i = 0; i < name.size; i++)
        if (at[i] < 0x20 || at[i] == 0x7f)
            return false;
    return true;
}

bool sml_reverse_is_request(const struct sml_reverse_request *request)
{
    return request->method.size > 0 && request->method.size <= SEMEL_METHOD_BYTES &&
           request->content_type.size <= SEMEL_CONTENT_TYPE_BYTES && is_name(request->method) &&
           is_name(request->content_type);
}

void sml_reverse_encode_request(const struct sml_reverse_request *request, uint8_t *out)
{
    uint8_t *at = out + SML_REVERSE_HEAD_BYTES;

    memset(out, 0, SML_REVERSE_HEAD_BYTES);
    out[0] = SML_REVERSE_REQUEST;
    out[1] = (uint8_t)request->method.size;
    out[2] = (uint8_t)request->content_type.size;
    at = put(at, request->method);
    at = put(at, request->content_type);
    put(at, request->body);
}

void sml_reverse_stamp_request(uint8_t *head, uint64_t number, uint32_t remaining_ms)
{
    sml_store32(head + 4, remaining_ms);
    sml_store64(head + 8, number);
}

void sml_reverse_encode_cancel(uint64_t number, uint8_t out[SML_REVERSE_HEAD_BYTES])
{
    memset(out, 0, SML_REVERSE_HEAD_BYTES);
    out[0] = SML_REVERSE_CANCEL;
    sml_store64(out + 8, number);
}

static const char *decode_request(const uint8_t *p, size_t size, struct sml_reverse_message *out)
{
    struct sml_reverse_request *request = &out->request;
    size_t method = p[1], type = p[2];

    if (method == 0 || p[3] || size - SML_REVERSE_HEAD_BYTES < method + type)
        return "reverse request with impossible lengths";
    request->remaining_ms = sml_load32(p + 4);
    p = view(p + SML_REVERSE_HEAD_BYTES, method, &request->method);
    p = view(p, type, &request->content_type);
    view(p, size - SML_REVERSE_HEAD_BYTES - method - type, &request->body);
    if (!sml_reverse_is_request(request))
        return "reverse request with a control character in a name";
    return NULL;
}

static const char *decode_cancel(const uint8_t *p, size_t size)
{
    for (int i = 1; i < 8; i++)
        if (p[i] != 0)
            return "reverse cancellation with reserved bytes";
    return size == SML_REVERSE_HEAD_BYTES ? NULL : "reverse cancellation of another length";
}

/* --- replies ------------------------------------------------------------------------------- */

void sml_reverse_encode_reply(uint64_t number, const struct sml_verdict *verdict, uint8_t *out)
{
    uint8_t *at = out + SML_REVERSE_REPLY_BYTES;

    out[0] = SML_REVERSE_REPLY;
    out[1] = (uint8_t)verdict->outcome;
    sml_store16(out + 2, (uint16_t)verdict->status);
    sml_store32(out + 4, (uint32_t)verdict->code);
    sml_store64(out + 8, number);
    sml_store16(out + 16, (uint16_t)verdict->text.size);
    sml_store16(out + 18, (uint16_t)verdict->detail.size);
    sml_store16(out + 20, (uint16_t)verdict->trace.size);
    sml_store16(out + 22, 0);
    at = put(at, verdict->text);
    at = put(at, verdict->detail);
    at = put(at, verdict->trace);
    put(at, verdict->body);
}

/* The outcome says whether it happened, the status why: they must not contradict each other. */
static bool is_verdict(unsigned outcome, unsigned status)
{
    switch (outcome) {
    case SEMEL_VALUE:
        return status == SEMEL_OK;
    case SEMEL_FAILURE:
        return status == SEMEL_FAILED;
    case SEMEL_NOT_EXECUTED:
    case SEMEL_UNKNOWN:
        return status != SEMEL_OK && status != SEMEL_FAILED &&
               semel_status_name((enum semel_status)status)[0] != '?';
    default:
        return false;
    }
}

static bool has_nul(struct semel_bytes text)
{
    return text.size > 0 && memchr(text.data, '\0', text.size) != NULL;
}

static const char *decode_reply(const uint8_t *p, size_t size, struct sml_reverse_message *out)
{
    struct sml_verdict *verdict = &out->verdict;
    size_t text, detail, trace;

    if (size < SML_REVERSE_REPLY_BYTES)
        return "reverse reply that is too short";
    if (!is_verdict(p[1], sml_load16(p + 2)))
        return "reverse reply with impossible outcome or status";
    text = sml_load16(p + 16);
    detail = sml_load16(p + 18);
    trace = sml_load16(p + 20);
    if (text > SEMEL_TEXT_BYTES || detail > SEMEL_DETAIL_BYTES || trace > SEMEL_TRACE_BYTES ||
        p[22] || p[23] || size - SML_REVERSE_REPLY_BYTES < text + detail + trace)
        return "reverse reply with impossible lengths";
    verdict->outcome = (enum semel_outcome)p[1];
    verdict->status = (enum semel_status)sml_load16(p + 2);
    verdict->code = (int32_t)sml_load32(p + 4);
    size -= SML_REVERSE_REPLY_BYTES + text + detail + trace;
    p = view(p + SML_REVERSE_REPLY_BYTES, text, &verdict->text);
    p = view(p, detail, &verdict->detail);
    p = view(p, trace, &verdict->trace);
    view(p, size, &verdict->body);
    if (has_nul(verdict->text) || has_nul(verdict->trace))
        return "reverse reply with a NUL in its words";
    if (size > 0 && verdict->outcome != SEMEL_VALUE)
        return "reverse reply with a body, and no value";
    return NULL;
}

/* --- both ---------------------------------------------------------------------------------- */

const char *sml_reverse_decode(struct semel_bytes item, bool to_client,
                               struct sml_reverse_message *out)
{
    const uint8_t *p = item.data;
    const char *why;

    memset(out, 0, sizeof *out);
    if (item.size < SML_REVERSE_HEAD_BYTES)
        return "reverse message that is too short";
    out->kind = (enum sml_reverse_kind)p[0];
    if (to_client && p[0] == SML_REVERSE_TERMS)
        return sml_reverse_decode_terms(item, &out->terms);
    if (to_client ? p[0] != SML_REVERSE_REQUEST && p[0] != SML_REVERSE_CANCEL
                  : p[0] != SML_REVERSE_REPLY)
        return "reverse message of unknown kind";
    out->number = sml_load64(p + 8);
    if (out->number == 0 || out->number > NUMBER_MAX)
        return "reverse message with a number out of range";
    if (p[0] == SML_REVERSE_REQUEST)
        why = decode_request(p, item.size, out);
    else if (p[0] == SML_REVERSE_CANCEL)
        why = decode_cancel(p, item.size);
    else
        why = decode_reply(p, item.size, out);
    return why;
}
