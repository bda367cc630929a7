/* SPDX-License-Identifier: MIT */
/* Bytes to frames: the first code that a stranger's bytes meet.
 *
 * Rules. Nothing is read before its presence is established, nothing is believed before it is
 * checked, nothing is allocated, and `*out` is touched only by a frame that passed. A frame is
 * refused as soon as what is there shows that it must be: the length from the first four bytes, the
 * type from the fifth, the rest of the header from the sixteenth; a payload waits until it is
 * whole. What passes is canonical: encoding it again gives the same bytes (the tests and the fuzzer
 * hold that), because every reserved bit must be zero and every count must agree with its length.
 * The exception is a HELLO or WELCOME of another version, of which only the version is taken.
 *
 * What depends on the session (order, window, who may send what, flow) is not judged here. */
#include "base/bug.h"
#include "base/le.h"
#include "wire/frame.h"
#include "wire/layout.h"

enum xid_rule {
    XID_UNKNOWN_TYPE, /* no such frame */
    XID_ZERO,         /* the frame belongs to no call */
    XID_CALL,         /* 1 .. SML_XID_MAX */
    XID_NONCE         /* 0 .. SML_XID_MAX */
};

struct form {
    uint8_t xid;
    uint32_t payload_min, payload_max;
};

static const struct form forms[16] = {
    [SML_HELLO] = { XID_ZERO, SML_HELLO_PAYLOAD_BYTES, SML_PAYLOAD_BYTES_MAX },
    [SML_LIST] = { XID_ZERO, LIST_FIXED + LISTED_BYTES,
                   LIST_FIXED + SML_LIST_ENTRIES_MAX *OUTSTANDING_BYTES },
    [SML_WELCOME] = { XID_ZERO, WELCOME_FIXED, SML_PAYLOAD_BYTES_MAX },
    [SML_CALL] = { XID_CALL, CALL_FIXED + 1, SML_PAYLOAD_BYTES_MAX },
    [SML_BODY] = { XID_CALL, BODY_FIXED + 1, BODY_FIXED + SML_FRAGMENT_BYTES },
    [SML_REPLY] = { XID_CALL, REPLY_FIXED, SML_PAYLOAD_BYTES_MAX },
    [SML_PART] = { XID_CALL, PART_FIXED, PART_FIXED + SML_FRAGMENT_BYTES },
    [SML_CREDIT] = { XID_CALL, CREDIT_FIXED, CREDIT_FIXED },
    [SML_ACK] = { XID_ZERO, ACK_FIXED + ACK_RANGE_BYTES,
                  ACK_FIXED + SML_ACK_RANGES_MAX *ACK_RANGE_BYTES },
    [SML_CANCEL] = { XID_CALL, 0, 0 },
    [SML_BUSY] = { XID_CALL, BUSY_FIXED, BUSY_FIXED },
    [SML_PING] = { XID_NONCE, 0, 0 },
    [SML_PONG] = { XID_NONCE, 0, 0 },
    [SML_DRAIN] = { XID_ZERO, DRAIN_FIXED, DRAIN_FIXED },
    [SML_BYE] = { XID_ZERO, BYE_FIXED, SML_BYE_PAYLOAD_BYTES_MAX },
};

static inline struct sml_fingerprint get_fingerprint(const uint8_t *p)
{
    return (struct sml_fingerprint){ sml_load64(p), sml_load64(p + 8) };
}

static inline bool is_xid(uint64_t xid)
{
    return xid >= 1 && xid <= SML_XID_MAX;
}

/* A name is shown to people and kept as a C string: no NUL, no control character. */
static bool is_name(const uint8_t *p, size_t size)
{
    unsigned bad = 0;

    for (size_t i = 0; i < size; i++)
        bad |= (p[i] < 0x20) | (p[i] == 0x7f);
    return bad == 0;
}

static bool has_nul(const uint8_t *p, size_t size)
{
    return size > 0 && memchr(p, 0, size) != NULL;
}

/* Each of the following reads one payload of `size` bytes, which the form allows. It returns NULL,
 * having set its part of *out, or the reason why not, having set nothing. */

static const char *decode_hello(const uint8_t *p, size_t size, struct sml_frame *out)
{
    struct sml_hello *hello = &out->u.hello;
    const uint16_t version = sml_load16(p + 4);
    const uint32_t count = sml_load32(p + 12), window = sml_load32(p + 88);
    const uint64_t next = sml_load64(p + 72);

    if (sml_load32(p) != SML_MAGIC)
        return "wrong magic";
    if (version != SML_VERSION) {
        memset(hello, 0, sizeof *hello);
        hello->version = version;
        return NULL;
    }
    if (size != SML_HELLO_PAYLOAD_BYTES)
        return "HELLO of wrong length";
    if ((p[6] != SML_CREATE && p[6] != SML_RESUME) || p[7] != 0)
        return "HELLO of unknown kind";
    if (sml_load64(p + 64) == 0)
        return "HELLO without connection number";
    if (next == 0 || next > SML_XID_MAX)
        return "HELLO with next call out of range";
    if (window == 0 || window > SEMEL_WINDOW_CALLS_MAX)
        return "HELLO with window out of range";
    if (count > SEMEL_WINDOW_CALLS_MAX || count >= next)
        return "HELLO lists too many calls";
    if (p[6] == SML_CREATE && next != 1)
        return "HELLO creates a session that has calls";
    if (p[6] == SML_CREATE && (sml_load64(p + 96) | sml_load64(p + 104)) != 0)
        return "HELLO creates a session but names its server";
    if (sml_load64(p + 80) > SEMEL_BODY_BYTES_MAX)
        return "HELLO with body limit out of range";
    hello->version = version;
    hello->kind = p[6];
    hello->features = sml_load32(p + 8);
    hello->count = count;
    memcpy(hello->session.bytes, p + 16, 16);
    memcpy(hello->secret, p + 32, 32);
    hello->conn_no = sml_load64(p + 64);
    hello->next = next;
    hello->body_bytes = sml_load64(p + 80);
    hello->window = window;
    hello->heartbeat_ms = sml_load32(p + 92);
    memcpy(hello->server_id, p + 96, 16);
    return NULL;
}

static const char *decode_welcome(const uint8_t *p, size_t size, struct sml_frame *out)
{
    struct sml_welcome *welcome = &out->u.welcome;
    const uint16_t version = sml_load16(p);
    const uint32_t window = sml_load32(p + 56), count = sml_load32(p + 60);

    if (version != SML_VERSION) {
        memset(welcome, 0, sizeof *welcome);
        welcome->version = version;
        return NULL;
    }
    if (size != WELCOME_FIXED)
        return "WELCOME of wrong length";
    if (p[2] > 1 || p[3] != 0)
        return "WELCOME with reserved bits set";
    if (sml_load64(p + 32) > SML_XID_MAX)
        return "WELCOME with durable call out of range";
    if (sml_load64(p + 40) > SEMEL_BODY_BYTES_MAX)
        return "WELCOME with body limit out of range";
    if (window == 0 || window > SEMEL_WINDOW_CALLS_MAX)
        return "WELCOME with window out of range";
    if (count > SEMEL_WINDOW_CALLS_MAX || (count > 0 && p[2] == 0))
        return "WELCOME lists too many calls";
    welcome->version = version;
    welcome->resumed = p[2] != 0;
    welcome->features = sml_load32(p + 4);
    memcpy(welcome->server_id, p + 8, 16);
    welcome->generation = sml_load64(p + 24);
    welcome->durable_hi = sml_load64(p + 32);
    welcome->body_bytes = sml_load64(p + 40);
    welcome->session_bytes = sml_load64(p + 48);
    welcome->window = window;
    welcome->count = count;
    welcome->idle_ms = sml_load32(p + 64);
    welcome->heartbeat_ms = sml_load32(p + 68);
    return NULL;
}

static const char *check_outstanding(const uint8_t *entries, uint32_t count)
{
    uint64_t last = 0;

    for (uint32_t i = 0; i < count; i++, entries += OUTSTANDING_BYTES) {
        const uint64_t xid = sml_load64(entries);

        if (!is_xid(xid) || xid <= last)
            return "LIST with calls out of order";
        if (sml_load64(entries + 8) > SEMEL_BODY_BYTES_MAX)
            return "LIST with reply bytes out of range";
        last = xid;
    }
    return NULL;
}

static const char *check_listed(const uint8_t *entries, uint32_t count)
{
    uint64_t last = 0;

    for (uint32_t i = 0; i < count; i++, entries += LISTED_BYTES) {
        const uint64_t xid = sml_load64(entries);
        const uint64_t state = sml_load64(entries + 16); /* one byte, seven zero */

        if (!is_xid(xid) || xid <= last)
            return "LIST with calls out of order";
        if (sml_load64(entries + 8) > SEMEL_BODY_BYTES_MAX)
            return "LIST with offset out of range";
        if (state < SML_STATE_EXPECTED || state > SML_STATE_IN_DOUBT)
            return "LIST with unknown state";
        last = xid;
    }
    return NULL;
}

static const char *decode_list(const uint8_t *p, size_t size, struct sml_frame *out)
{
    const uint32_t kind = sml_load32(p), count = sml_load32(p + 4);
    const bool from_caller = kind == LIST_FROM_CALLER;
    const size_t entry = from_caller ? OUTSTANDING_BYTES : LISTED_BYTES;
    const char *why;

    if (kind != LIST_FROM_CALLER && kind != LIST_FROM_CALLEE)
        return "LIST of unknown kind";
    if (count == 0 || count > SML_LIST_ENTRIES_MAX)
        return "LIST with count out of range";
    if (size != LIST_FIXED + count * entry)
        return "LIST whose count and length disagree";
    p += LIST_FIXED;
    why = from_caller ? check_outstanding(p, count) : check_listed(p, count);
    if (why)
        return why;
    out->u.list = (struct sml_list_frame){ from_caller, count, p };
    return NULL;
}

/* Bytes of what only some calls have, between the fixed fields and the names. */
static size_t optional_bytes(const uint8_t *p)
{
    return (p[28] & SML_CALL_ORIGIN ? CALL_ORIGIN : 0) + (p[31] > 0 ? CALL_AGE : 0);
}

/* The origin of a resubmitted call, a key's age. */
static const char *check_optional(const uint8_t *p)
{
    const size_t bytes = optional_bytes(p);

    if ((p[28] & SML_CALL_ORIGIN) && !is_xid(sml_load64(p + CALL_FIXED + 16)))
        return "CALL with origin out of range";
    if (p[31] > 0 && sml_load64(p + CALL_FIXED + bytes - CALL_AGE) > INT64_MAX)
        return "CALL with age out of range";
    return NULL;
}

static const char *check_call(const uint8_t *p, size_t size, size_t overhead)
{
    const uint64_t body_bytes = sml_load64(p + 16);
    const size_t names = (size_t)p[29] + p[30] + p[31];

    if (p[29] == 0)
        return "CALL without method";
    if (p[28] &
        ~(SML_CALL_RERUN_OK | SML_CALL_REFUSE_WHEN_FULL | SML_CALL_ORIGIN | SML_CALL_STREAMS))
        return "CALL with reserved bits set";
    if (overhead > size)
        return "CALL whose lengths disagree";
    if (body_bytes > SEMEL_BODY_BYTES_MAX)
        return "CALL with body out of range";
    if (size - overhead > SML_FRAGMENT_BYTES)
        return "CALL with fragment too long";
    if (size - overhead > body_bytes)
        return "CALL with more than its body";
    if (!is_name(p + overhead - names, names))
        return "CALL with control characters in a name";
    return check_optional(p);
}

static void get_optional(const uint8_t *p, struct sml_call_frame *call)
{
    const uint8_t *at = p + CALL_FIXED;

    memset(&call->origin, 0, sizeof call->origin);
    if (p[28] & SML_CALL_ORIGIN) {
        memcpy(call->origin.session.bytes, at, 16);
        call->origin.xid = sml_load64(at + 16);
        at += CALL_ORIGIN;
    }
    call->key_age_ms = p[31] > 0 ? sml_load64(at) : 0;
}

static const char *decode_call(const uint8_t *p, size_t size, struct sml_frame *out)
{
    struct sml_call_frame *call = &out->u.call;
    const size_t method = p[29], content_type = p[30], key = p[31];
    const size_t overhead = CALL_FIXED + optional_bytes(p) + method + content_type + key;
    const uint8_t *name = p + CALL_FIXED + optional_bytes(p);
    const char *why = check_call(p, size, overhead);

    if (why)
        return why;
    call->fingerprint = get_fingerprint(p);
    call->body_bytes = sml_load64(p + 16);
    call->remaining_ms = sml_load32(p + 24);
    call->flags = p[28];
    get_optional(p, call);
    call->method = semel_bytes(name, method);
    call->content_type = semel_bytes(name + method, content_type);
    call->key = semel_bytes(name + method + content_type, key - (SML_BUG(KEY_CUT) && key > 1));
    call->fragment = semel_bytes(p + overhead, size - overhead);
    return NULL;
}

static const char *decode_body(const uint8_t *p, size_t size, struct sml_frame *out)
{
    const uint64_t offset = sml_load64(p);
    const size_t fragment = size - BODY_FIXED;

    if (offset > SEMEL_BODY_BYTES_MAX || fragment > SEMEL_BODY_BYTES_MAX - offset)
        return "BODY out of range";
    out->u.body.offset = offset;
    out->u.body.fragment = semel_bytes(p + BODY_FIXED, fragment);
    return NULL;
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

static const char *check_reply(const uint8_t *p, size_t size, size_t overhead)
{
    const uint64_t body_bytes = sml_load64(p), offset = sml_load64(p + 8);
    const size_t text = sml_load16(p + 24), detail = sml_load16(p + 26), trace = sml_load16(p + 28);

    if (text > SEMEL_TEXT_BYTES || detail > SEMEL_DETAIL_BYTES || trace > SEMEL_TRACE_BYTES)
        return "REPLY with text too long";
    if (overhead > size)
        return "REPLY whose lengths disagree";
    if (body_bytes > SEMEL_BODY_BYTES_MAX || offset > body_bytes)
        return "REPLY with body out of range";
    if (size - overhead > SML_FRAGMENT_BYTES)
        return "REPLY with fragment too long";
    if (size - overhead > body_bytes - offset)
        return "REPLY with more than its body";
    if ((p[23] & ~(SML_REPLY_RECORDED | SML_REPLY_PROVEN)) || sml_load16(p + 30) != 0)
        return "REPLY with reserved bits set";
    if ((p[23] & SML_REPLY_PROVEN) && p[22] != SEMEL_NOT_EXECUTED)
        return "REPLY proves what it does not say";
    if (!is_verdict(p[22], sml_load16(p + 20)))
        return "REPLY with impossible outcome or status";
    p += REPLY_FIXED;
    if (has_nul(p, text) || has_nul(p + text + detail, trace))
        return "REPLY with NUL in a text";
    return NULL;
}

static const char *decode_reply(const uint8_t *p, size_t size, struct sml_frame *out)
{
    struct sml_reply_frame *reply = &out->u.reply;
    const size_t text = sml_load16(p + 24), detail = sml_load16(p + 26), trace = sml_load16(p + 28);
    const size_t overhead = REPLY_FIXED + text + detail + trace;
    const uint8_t *at = p + REPLY_FIXED;
    const char *why = check_reply(p, size, overhead);

    if (why)
        return why;
    reply->flags = p[23];
    reply->verdict.outcome = (enum semel_outcome)p[22];
    reply->verdict.status = (enum semel_status)sml_load16(p + 20);
    reply->verdict.code = (int32_t)sml_load32(p + 16);
    reply->verdict.text = semel_bytes(at, text);
    reply->verdict.detail = semel_bytes(at + text, detail);
    reply->verdict.trace = semel_bytes(at + text + detail, trace);
    reply->verdict.body = semel_bytes(p + overhead, size - overhead);
    reply->body_bytes = sml_load64(p);
    reply->offset = sml_load64(p + 8);
    return NULL;
}

static const char *decode_part(const uint8_t *p, size_t size, struct sml_frame *out)
{
    struct sml_part_frame *part = &out->u.part;
    const uint64_t number = sml_load64(p), kind = sml_load64(p + 8); /* four bytes, four zero */
    const size_t bytes = size - PART_FIXED;

    if (kind < SML_PART_ITEM || kind > SML_PART_PROGRESS)
        return "PART of unknown kind";
    if (number > SML_XID_MAX)
        return "PART with number out of range";
    if (kind == SML_PART_END && bytes > 0)
        return "PART that ends its stream has bytes";
    if (kind == SML_PART_PIECE && bytes == 0)
        return "PART is an empty piece";
    if (kind == SML_PART_PROGRESS && (number != 0 || bytes > SEMEL_PROGRESS_BYTES))
        return "PART is no possible progress";
    part->number = number;
    part->kind = (enum sml_part_kind)kind;
    part->bytes = semel_bytes(p + PART_FIXED, bytes);
    return NULL;
}

static const char *decode_credit(const uint8_t *p, struct sml_frame *out)
{
    struct sml_credit_frame *credit = &out->u.credit;
    const uint64_t next = sml_load64(p), taken = sml_load64(p + 8);

    if (next > SML_XID_MAX || taken > next)
        return "CREDIT with numbers out of range";
    credit->next = next;
    credit->taken = taken;
    credit->limit = sml_load64(p + 16);
    return NULL;
}

static const char *decode_ack(const uint8_t *p, size_t size, struct sml_frame *out)
{
    const uint32_t count = sml_load32(p);

    if (count == 0 || count > SML_ACK_RANGES_MAX)
        return "ACK with count out of range";
    if (size != ACK_FIXED + (size_t)count * ACK_RANGE_BYTES)
        return "ACK whose count and length disagree";
    if (sml_load32(p + 4) != 0)
        return "ACK with reserved bits set";
    p += ACK_FIXED;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *range = p + (size_t)i * ACK_RANGE_BYTES;
        const uint64_t first = sml_load64(range);
        const uint64_t calls = sml_load64(range + 8); /* four bytes, four zero */

        if (!is_xid(first) || calls == 0 || calls > UINT32_MAX || calls - 1 > SML_XID_MAX - first)
            return "ACK with range out of range";
    }
    out->u.ack.count = count;
    out->u.ack.ranges = p;
    return NULL;
}

static const char *decode_bye(const uint8_t *p, size_t size, struct sml_frame *out)
{
    const uint16_t code = sml_load16(p);
    const size_t text = sml_load16(p + 2);

    if (code < SML_BYE_END || code > SML_BYE_SILENT)
        return "BYE with unknown code";
    if (size != BYE_FIXED + text)
        return "BYE whose lengths disagree";
    if (has_nul(p + BYE_FIXED, text))
        return "BYE with NUL in its text";
    out->u.bye.code = (enum sml_bye_code)code;
    out->u.bye.text = semel_bytes(p + BYE_FIXED, text);
    return NULL;
}

static const char *decode_payload(unsigned type, const uint8_t *p, size_t size,
                                  struct sml_frame *out)
{
    switch (type) {
    case SML_CALL:
        return decode_call(p, size, out);
    case SML_REPLY:
        return decode_reply(p, size, out);
    case SML_BODY:
        return decode_body(p, size, out);
    case SML_PART:
        return decode_part(p, size, out);
    case SML_CREDIT:
        return decode_credit(p, out);
    case SML_ACK:
        return decode_ack(p, size, out);
    case SML_HELLO:
        return decode_hello(p, size, out);
    case SML_WELCOME:
        return decode_welcome(p, size, out);
    case SML_LIST:
        return decode_list(p, size, out);
    case SML_BYE:
        return decode_bye(p, size, out);
    case SML_BUSY:
        out->u.busy_delay_ms = sml_load32(p);
        return NULL;
    case SML_DRAIN:
        out->u.drain_grace_ms = sml_load32(p);
        return NULL;
    default: /* CANCEL, PING, PONG */
        return NULL;
    }
}

static const char *check_type(unsigned type, size_t max_payload)
{
    if (type >= sizeof forms / sizeof forms[0] || forms[type].xid == XID_UNKNOWN_TYPE)
        return "unknown frame type";
    if (max_payload == SML_HELLO_PAYLOAD_BYTES && type != SML_HELLO)
        return "first frame is not HELLO";
    return NULL;
}

/* The header from its sixth byte on, once its length and type are known to be possible. */
static const char *check_header(const uint8_t *data, const struct form *form)
{
    const uint32_t payload = sml_load32(data);
    const uint64_t xid = sml_load64(data + 8);

    if ((data[5] & ~SML_FLAG_REVERSE) || data[6] || data[7])
        return "header with reserved bits set";
    if (payload < form->payload_min || payload > form->payload_max)
        return "length impossible for this frame";
    if (xid > SML_XID_MAX)
        return "call number out of range";
    if (form->xid == XID_CALL && xid == 0)
        return "call number missing";
    if (form->xid == XID_ZERO && xid != 0)
        return "call number where none belongs";
    return NULL;
}

static enum sml_decoded malformed(const char *why, const char **out_why)
{
    *out_why = why;
    return SML_MALFORMED;
}

enum sml_decoded sml_frame_decode(const uint8_t *data, size_t size, size_t max_payload,
                                  struct sml_frame *out, size_t *out_used, const char **out_why)
{
    const char *why = NULL;
    size_t payload;
    unsigned type;

    if (size < 4)
        return SML_NEED_MORE;
    payload = sml_load32(data);
    if (payload > max_payload)
        return malformed("frame longer than allowed", out_why);
    if (size < 5)
        return SML_NEED_MORE;
    type = data[4];
    why = check_type(type, max_payload);
    if (why)
        return malformed(why, out_why);
    if (size < SML_HEADER_BYTES)
        return SML_NEED_MORE;
    why = check_header(data, &forms[type]);
    if (why)
        return malformed(why, out_why);
    if (size - SML_HEADER_BYTES < payload)
        return SML_NEED_MORE;
    why = decode_payload(type, data + SML_HEADER_BYTES, payload, out);
    if (why)
        return malformed(why, out_why);
    out->type = (enum sml_frame_type)type;
    out->reverse = (data[5] & SML_FLAG_REVERSE) != 0;
    out->xid = sml_load64(data + 8);
    *out_used = SML_HEADER_BYTES + payload;
    return SML_DECODED;
}

struct sml_outstanding sml_list_outstanding(const struct sml_list_frame *list, uint32_t index)
{
    const uint8_t *p = list->entries + (size_t)index * OUTSTANDING_BYTES;

    return (struct sml_outstanding){ .xid = sml_load64(p),
                                     .held = sml_load64(p + 8),
                                     .fingerprint = get_fingerprint(p + 16) };
}

struct sml_listed sml_list_listed(const struct sml_list_frame *list, uint32_t index)
{
    const uint8_t *p = list->entries + (size_t)index * LISTED_BYTES;

    return (struct sml_listed){ .xid = sml_load64(p),
                                .offset = sml_load64(p + 8),
                                .state = (enum sml_call_state)p[16] };
}

struct sml_ack_range sml_ack_range(const struct sml_ack_frame *ack, uint32_t index)
{
    const uint8_t *p = ack->ranges + (size_t)index * ACK_RANGE_BYTES;

    return (struct sml_ack_range){ .first = sml_load64(p),
                                   .count = sml_load32(p + 8) + SML_BUG(ACK_ONE_MORE) };
}
