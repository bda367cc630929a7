/* SPDX-License-Identifier: MIT */
#include "frame_kit.h"

#include <string.h>

#include "base/text.h"

static void pattern(uint8_t *out, size_t count, uint8_t first)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (uint8_t)(first + i);
}

static size_t sample_hello(uint8_t kind, uint8_t *out)
{
    struct sml_hello hello = { .version = SML_VERSION,
                               .kind = kind,
                               .conn_no = 5,
                               .next = 1,
                               .body_bytes = SEMEL_BODY_BYTES,
                               .window = SEMEL_WINDOW_CALLS,
                               .heartbeat_ms = SEMEL_HEARTBEAT_MS };

    pattern(hello.session.bytes, 16, 0x10);
    pattern(hello.secret, 32, 0x40);
    if (kind == SML_RESUME) {
        hello.count = 3;
        hello.next = 9;
        pattern(hello.server_id, 16, 0x80);
    }
    return sml_encode_hello(out, &hello);
}

static size_t sample_welcome(uint8_t *out)
{
    struct sml_welcome welcome = { .version = SML_VERSION,
                                   .resumed = true,
                                   .generation = 1,
                                   .body_bytes = SEMEL_BODY_BYTES,
                                   .session_bytes = SEMEL_SESSION_BYTES,
                                   .window = SEMEL_WINDOW_CALLS,
                                   .count = 3,
                                   .idle_ms = SEMEL_IDLE_SESSION_MS,
                                   .heartbeat_ms = SEMEL_HEARTBEAT_MS };

    pattern(welcome.server_id, 16, 0x80);
    return sml_encode_welcome(out, &welcome);
}

static size_t sample_call(uint8_t *out)
{
    struct sml_call_frame call = { .body_bytes = 12,
                                   .remaining_ms = 30000,
                                   .flags = SML_CALL_RERUN_OK | SML_CALL_ORIGIN,
                                   .origin = { .xid = 3 },
                                   .key_age_ms = 5000,
                                   .method = semel_bytes_text("echo"),
                                   .content_type = semel_bytes_text("text/plain"),
                                   .key = semel_bytes_text("k-1"),
                                   .fragment = semel_bytes_text("hello") };

    pattern(call.origin.session.bytes, 16, 0x10);
    call.fingerprint = sml_fingerprint("echo", 4, "text/plain", 10, "hello, world", 12);
    return sml_encode_call(out, 7, &call);
}

static size_t sample_reply(uint8_t *out)
{
    struct sml_reply_frame reply = { .flags = SML_REPLY_RECORDED, .body_bytes = 20, .offset = 4 };

    reply.verdict.outcome = SEMEL_UNKNOWN;
    reply.verdict.status = SEMEL_DROPPED;
    reply.verdict.code = -2;
    reply.verdict.text = semel_bytes_text("text");
    reply.verdict.detail = semel_bytes("de\0ail", 6);
    reply.verdict.trace = semel_bytes_text("trace");
    reply.verdict.body = semel_bytes_text("0123456789");
    return sml_encode_reply(out, 7, &reply);
}

static size_t sample_part(enum sml_part_kind kind, uint8_t *out)
{
    struct sml_part_frame part = { .number = 2, .kind = kind };

    if (kind == SML_PART_PROGRESS)
        part.number = 0;
    if (kind != SML_PART_END)
        part.bytes = semel_bytes_text("row 2");
    return sml_encode_part(out, 7, &part);
}

static size_t sample_credit(uint8_t *out)
{
    const struct sml_credit_frame credit = { .next = 5, .taken = 3, .limit = 131500 };

    return sml_encode_credit(out, 7, &credit);
}

static size_t sample_list(bool from_caller, uint8_t *out)
{
    const struct sml_outstanding mine[3] = { { 4, 0, { 1, 2 } },
                                             { 6, 65536, { 3, 4 } },
                                             { 8, 1, { 5, 6 } } };
    const struct sml_listed yours[3] = { { 4, 65536, SML_STATE_RECEIVING },
                                         { 6, 0, SML_STATE_DONE },
                                         { 8, 0, SML_STATE_EXPECTED } };

    return from_caller ? sml_encode_outstanding(out, mine, 3) : sml_encode_listed(out, yours, 3);
}

size_t frame_sample(unsigned sample, uint8_t *out)
{
    const struct sml_ack_range ranges[2] = { { 1, 3 }, { 5, 1 } };

    switch (sample) {
    case SML_HELLO:
        return sample_hello(SML_RESUME, out);
    case SAMPLE_HELLO_CREATE:
        return sample_hello(SML_CREATE, out);
    case SML_LIST:
        return sample_list(true, out);
    case SAMPLE_LIST_CALLEE:
        return sample_list(false, out);
    case SML_WELCOME:
        return sample_welcome(out);
    case SML_CALL:
        return sample_call(out);
    case SML_BODY:
        return sml_encode_body(out, 7, 5, semel_bytes_text(", world"));
    case SML_REPLY:
        return sample_reply(out);
    case SML_PART:
        return sample_part(SML_PART_ITEM, out);
    case SAMPLE_PART_PIECE:
        return sample_part(SML_PART_PIECE, out);
    case SAMPLE_PART_END:
        return sample_part(SML_PART_END, out);
    case SAMPLE_PART_PROGRESS:
        return sample_part(SML_PART_PROGRESS, out);
    case SML_CREDIT:
        return sample_credit(out);
    case SML_ACK:
        return sml_encode_ack(out, ranges, 2);
    case SML_CANCEL:
    case SML_PING:
    case SML_PONG:
        return sml_encode_plain(out, (enum sml_frame_type)sample, 7);
    case SML_BUSY:
        return sml_encode_busy(out, 7, SEMEL_BUSY_MS);
    case SML_DRAIN:
        return sml_encode_drain(out, 10000);
    case SML_BYE:
        return sml_encode_bye(out, SML_BYE_TAKEN_OVER, semel_bytes_text("newer connection"));
    default:
        return 0;
    }
}

static void say(struct sml_text *text, const char *name, uint64_t value)
{
    sml_text_add(text, name);
    sml_text_add(text, " = ");
    sml_text_add_u64(text, value);
    sml_text_add(text, "\n");
}

static void say_text(struct sml_text *text, const char *name, struct semel_bytes bytes)
{
    sml_text_add(text, name);
    sml_text_add(text, " = \"");
    sml_text_add_escaped(text, bytes.data, bytes.size);
    sml_text_add(text, "\"\n");
}

static void say_bytes(struct sml_text *text, const char *name, const void *bytes, size_t count)
{
    sml_text_add(text, name);
    sml_text_add(text, " = ");
    sml_text_add_hex(text, bytes, count);
    sml_text_add(text, "\n");
}

static void add_hex64(struct sml_text *text, uint64_t value)
{
    uint8_t big_endian[8];

    for (int i = 0; i < 8; i++)
        big_endian[i] = (uint8_t)(value >> (56 - 8 * i));
    sml_text_add_hex(text, big_endian, 8);
}

static void add_fingerprint(struct sml_text *text, struct sml_fingerprint fingerprint)
{
    add_hex64(text, fingerprint.a);
    sml_text_add(text, " ");
    add_hex64(text, fingerprint.b);
}

static void describe_hello(struct sml_text *text, const struct sml_hello *hello)
{
    say(text, "version", hello->version);
    if (hello->version != SML_VERSION)
        return;
    say(text, "kind", hello->kind);
    say(text, "features", hello->features);
    say(text, "count", hello->count);
    say_bytes(text, "session", hello->session.bytes, 16);
    say_bytes(text, "secret", hello->secret, 32);
    say(text, "conn_no", hello->conn_no);
    say(text, "next", hello->next);
    say(text, "body_bytes", hello->body_bytes);
    say(text, "window", hello->window);
    say(text, "heartbeat_ms", hello->heartbeat_ms);
    say_bytes(text, "server_id", hello->server_id, 16);
}

static void describe_welcome(struct sml_text *text, const struct sml_welcome *welcome)
{
    say(text, "version", welcome->version);
    if (welcome->version != SML_VERSION)
        return;
    say(text, "resumed", welcome->resumed);
    say(text, "features", welcome->features);
    say_bytes(text, "server_id", welcome->server_id, 16);
    say(text, "generation", welcome->generation);
    say(text, "durable_hi", welcome->durable_hi);
    say(text, "body_bytes", welcome->body_bytes);
    say(text, "session_bytes", welcome->session_bytes);
    say(text, "window", welcome->window);
    say(text, "count", welcome->count);
    say(text, "idle_ms", welcome->idle_ms);
    say(text, "heartbeat_ms", welcome->heartbeat_ms);
}

static void describe_list(struct sml_text *text, const struct sml_list_frame *list)
{
    sml_text_add(text, list->from_caller ? "kind = 1\n" : "kind = 2\n");
    say(text, "count", list->count);
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->from_caller) {
            const struct sml_outstanding entry = sml_list_outstanding(list, i);

            sml_text_add(text, "entry = xid ");
            sml_text_add_u64(text, entry.xid);
            sml_text_add(text, ", held ");
            sml_text_add_u64(text, entry.held);
            sml_text_add(text, ", fingerprint ");
            add_fingerprint(text, entry.fingerprint);
        } else {
            const struct sml_listed entry = sml_list_listed(list, i);

            sml_text_add(text, "entry = xid ");
            sml_text_add_u64(text, entry.xid);
            sml_text_add(text, ", offset ");
            sml_text_add_u64(text, entry.offset);
            sml_text_add(text, ", state ");
            sml_text_add_u64(text, (uint64_t)entry.state);
        }
        sml_text_add(text, "\n");
    }
}

static void describe_call(struct sml_text *text, const struct sml_call_frame *call)
{
    sml_text_add(text, "fingerprint = ");
    add_fingerprint(text, call->fingerprint);
    sml_text_add(text, "\n");
    say(text, "body_bytes", call->body_bytes);
    say(text, "remaining_ms", call->remaining_ms);
    say(text, "call_flags", call->flags);
    if (call->flags & SML_CALL_ORIGIN) {
        say_bytes(text, "origin_session", call->origin.session.bytes, 16);
        say(text, "origin_xid", call->origin.xid);
    }
    if (call->key.size > 0)
        say(text, "key_age_ms", call->key_age_ms);
    say_text(text, "method", call->method);
    say_text(text, "content_type", call->content_type);
    say_text(text, "key", call->key);
    say_text(text, "fragment", call->fragment);
}

static void describe_reply(struct sml_text *text, const struct sml_reply_frame *reply)
{
    say(text, "body_bytes", reply->body_bytes);
    say(text, "offset", reply->offset);
    sml_text_add(text, "code = ");
    sml_text_add_i64(text, reply->verdict.code);
    sml_text_add(text, "\n");
    say(text, "status", (uint64_t)reply->verdict.status);
    say(text, "outcome", (uint64_t)reply->verdict.outcome);
    say(text, "reply_flags", reply->flags);
    say_text(text, "text", reply->verdict.text);
    say_text(text, "detail", reply->verdict.detail);
    say_text(text, "trace", reply->verdict.trace);
    say_text(text, "fragment", reply->verdict.body);
}

static void describe_credit(struct sml_text *text, const struct sml_credit_frame *credit)
{
    say(text, "next", credit->next);
    say(text, "taken", credit->taken);
    say(text, "limit", credit->limit);
}

static void describe_ack(struct sml_text *text, const struct sml_ack_frame *ack)
{
    say(text, "count", ack->count);
    for (uint32_t i = 0; i < ack->count; i++) {
        const struct sml_ack_range range = sml_ack_range(ack, i);

        sml_text_add(text, "range = first ");
        sml_text_add_u64(text, range.first);
        sml_text_add(text, ", count ");
        sml_text_add_u64(text, range.count);
        sml_text_add(text, "\n");
    }
}

static void describe_payload(struct sml_text *text, const struct sml_frame *frame)
{
    switch (frame->type) {
    case SML_HELLO:
        describe_hello(text, &frame->u.hello);
        break;
    case SML_WELCOME:
        describe_welcome(text, &frame->u.welcome);
        break;
    case SML_LIST:
        describe_list(text, &frame->u.list);
        break;
    case SML_CALL:
        describe_call(text, &frame->u.call);
        break;
    case SML_BODY:
        say(text, "offset", frame->u.body.offset);
        say_text(text, "fragment", frame->u.body.fragment);
        break;
    case SML_REPLY:
        describe_reply(text, &frame->u.reply);
        break;
    case SML_PART:
        say(text, "number", frame->u.part.number);
        say(text, "kind", (uint64_t)frame->u.part.kind);
        say_text(text, "bytes", frame->u.part.bytes);
        break;
    case SML_CREDIT:
        describe_credit(text, &frame->u.credit);
        break;
    case SML_ACK:
        describe_ack(text, &frame->u.ack);
        break;
    case SML_BUSY:
        say(text, "delay_ms", frame->u.busy_delay_ms);
        break;
    case SML_DRAIN:
        say(text, "grace_ms", frame->u.drain_grace_ms);
        break;
    case SML_BYE:
        say(text, "code", (uint64_t)frame->u.bye.code);
        say_text(text, "text", frame->u.bye.text);
        break;
    default:
        break;
    }
}

void frame_describe(const struct sml_frame *frame, char *out, size_t room)
{
    struct sml_text text;

    sml_text_init(&text, out, room);
    sml_text_add(&text, "type = ");
    sml_text_add(&text, sml_frame_name(frame->type));
    sml_text_add(&text, "\n");
    say(&text, "flags", frame->reverse ? SML_FLAG_REVERSE : 0);
    say(&text, "xid", frame->xid);
    describe_payload(&text, frame);
}

static size_t list_again(const struct sml_list_frame *list, uint8_t *out)
{
    static struct sml_outstanding mine[SML_LIST_ENTRIES_MAX];
    static struct sml_listed yours[SML_LIST_ENTRIES_MAX];

    for (uint32_t i = 0; i < list->count; i++) {
        if (list->from_caller)
            mine[i] = sml_list_outstanding(list, i);
        else
            yours[i] = sml_list_listed(list, i);
    }
    return list->from_caller ? sml_encode_outstanding(out, mine, list->count)
                             : sml_encode_listed(out, yours, list->count);
}

static size_t ack_again(const struct sml_ack_frame *ack, uint8_t *out)
{
    static struct sml_ack_range ranges[SML_ACK_RANGES_MAX];

    for (uint32_t i = 0; i < ack->count; i++)
        ranges[i] = sml_ack_range(ack, i);
    return sml_encode_ack(out, ranges, ack->count);
}

static size_t payload_again(const struct sml_frame *frame, uint8_t *out)
{
    switch (frame->type) {
    case SML_HELLO:
        return frame->u.hello.version == SML_VERSION ? sml_encode_hello(out, &frame->u.hello) : 0;
    case SML_WELCOME:
        return frame->u.welcome.version == SML_VERSION ? sml_encode_welcome(out, &frame->u.welcome)
                                                       : 0;
    case SML_LIST:
        return list_again(&frame->u.list, out);
    case SML_CALL:
        return sml_encode_call(out, frame->xid, &frame->u.call);
    case SML_BODY:
        return sml_encode_body(out, frame->xid, frame->u.body.offset, frame->u.body.fragment);
    case SML_REPLY:
        return sml_encode_reply(out, frame->xid, &frame->u.reply);
    case SML_PART:
        return sml_encode_part(out, frame->xid, &frame->u.part);
    case SML_CREDIT:
        return sml_encode_credit(out, frame->xid, &frame->u.credit);
    case SML_ACK:
        return ack_again(&frame->u.ack, out);
    case SML_BUSY:
        return sml_encode_busy(out, frame->xid, frame->u.busy_delay_ms);
    case SML_DRAIN:
        return sml_encode_drain(out, frame->u.drain_grace_ms);
    case SML_BYE:
        return sml_encode_bye(out, frame->u.bye.code, frame->u.bye.text);
    default:
        return sml_encode_plain(out, frame->type, frame->xid);
    }
}

size_t frame_encode_again(const struct sml_frame *frame, uint8_t *out)
{
    const size_t size = payload_again(frame, out);

    if (size > 0 && frame->reverse)
        out[5] |= SML_FLAG_REVERSE;
    return size;
}
