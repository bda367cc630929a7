/* SPDX-License-Identifier: MIT */
/* caller_wire.c - the caller's frames: what goes out, by pulling, and what comes in.
 *
 * Order of sending: acknowledgements, then cancellations, then bodies and new calls taking turns,
 * one fragment each, so that a large body never blocks a small call. */
#include <string.h>

#include "base/bug.h"
#include "base/check.h"
#include "session/caller_internal.h"
#include "session/fragment.h"

static enum semel_status refuse(const char **out_why, const char *why)
{
    *out_why = why;
    return SEMEL_PROTOCOL;
}

/* --- what goes out ---------------------------------------------------------------------- */

static size_t pull_acks(struct sml_caller *caller, uint8_t *out, size_t room)
{
    size_t used = 0;
    uint32_t done = 0;

    while (done < caller->ack_count && room - used >= SML_FRAME_BYTES_MAX) {
        uint32_t count = caller->ack_count - done;

        if (count > SML_ACK_RANGES_MAX)
            count = SML_ACK_RANGES_MAX;
        used += sml_encode_ack(out + used, &caller->acks[done], count);
        for (uint32_t i = 0; i < count; i++)
            caller->unreleased -= caller->acks[done + i].count;
        done += count;
    }
    memmove(caller->acks, caller->acks + done, (caller->ack_count - done) * sizeof *caller->acks);
    caller->ack_count -= done;
    if (caller->ack_count == 0) {
        caller->ack_bytes = 0;
        caller->ack_due = SML_NEVER;
    }
    return used;
}

size_t sml_caller_pull_last_acks(struct sml_caller *caller, uint8_t *out, size_t room)
{
    size_t used = 0;

    while (caller->last_ack_count > 0 && room - used >= SML_FRAME_BYTES_MAX) {
        uint32_t count = caller->last_ack_count;

        if (count > SML_ACK_RANGES_MAX)
            count = SML_ACK_RANGES_MAX;
        caller->last_ack_count -= count;
        used += sml_encode_ack(out + used, &caller->last_acks[caller->last_ack_count], count);
    }
    if (caller->last_ack_count == 0)
        sml_caller_drop_last_acks(caller);
    return used;
}

static size_t pull_cancels(struct sml_caller *caller, uint8_t *out, size_t room)
{
    struct sml_list *node;
    size_t used = 0;

    while (room - used >= SML_HEADER_BYTES && (node = sml_list_pop_front(&caller->cancels))) {
        struct sml_call *call = SML_CONTAINER(node, struct sml_call, cancel_link);

        used += sml_encode_plain(out + used, SML_CANCEL, call->xid);
    }
    return used;
}

static uint32_t remaining_ms(const struct sml_call *call, uint64_t now)
{
    uint64_t ms = sml_time_ms_until(call->deadline, now);

    return ms < SML_NO_DEADLINE ? (uint32_t)ms : SML_NO_DEADLINE;
}

/* After a fragment: to the end of the turn, or done with sending. */
static void sent_fragment(struct sml_caller *caller, struct sml_call *call)
{
    sml_list_remove(&call->link);
    if (call->body_sent < call->body_bytes) {
        call->phase = SML_CALL_SENDING;
        sml_list_push_back(&caller->to_send, &call->link);
    } else {
        call->phase = SML_CALL_SENT;
        sml_caller_stream_due(caller, call);
    }
}

/* How long its key may have been known to a server. */
static uint64_t key_age_ms(const struct sml_call *call, uint64_t now)
{
    uint64_t age = call->key_age_ms + (now - call->submitted) / SML_MS;

    if (call->key_bytes == 0 || !call->rerun || SML_BUG(KEY_AGE_LOST))
        return 0;
    return age == 0 ? 1 : age > INT64_MAX ? INT64_MAX : age;
}

/* CALL with the body's beginning; 0: no room. */
static size_t encode_call(struct sml_call *call, uint64_t xid, uint8_t *out, size_t room,
                          uint64_t now)
{
    struct sml_call_frame frame = {
        .fingerprint = call->fingerprint,
        .body_bytes = call->body_bytes,
        .remaining_ms = remaining_ms(call, now),
        .flags = call->flags,
        .origin = call->origin,
        .key_age_ms = key_age_ms(call, now),
        .method = { call->method, call->method_bytes },
        .content_type = { call->content_type, call->content_type_bytes },
        .key = { call->key, call->key_bytes },
    };
    size_t overhead, bytes;

    /* A key's hash says all that an origin says. */
    if (call->origin.xid != 0 && call->key_bytes == 0 && !SML_BUG(ORIGIN_LOST))
        frame.flags |= SML_CALL_ORIGIN;
    overhead = sml_call_overhead(&frame);
    bytes = sml_fragment_bytes(call->body_bytes, overhead, room);

    if (room < overhead || (bytes == 0 && call->body_bytes > 0))
        return 0;
    frame.fragment = semel_bytes(call->body, bytes);
    call->body_sent = bytes;
    return sml_encode_call(out, xid, &frame);
}

static size_t pull_turn(struct sml_caller *caller, uint8_t *out, size_t room, uint64_t now)
{
    struct sml_call *call;
    size_t used, bytes;

    if (sml_list_empty(&caller->to_send))
        return 0;
    call = SML_CONTAINER(caller->to_send.next, struct sml_call, link);
    if (call->resent) {
        used = encode_call(call, call->xid, out, room, now);
        if (used == 0)
            return 0;
        call->resent = false;
    } else {
        bytes = sml_fragment_bytes(call->body_bytes - call->body_sent, SML_BODY_OVERHEAD, room);
        if (bytes == 0)
            return 0;
        used = sml_encode_body(out, call->xid, call->body_sent,
                               semel_bytes((const uint8_t *)call->body + call->body_sent, bytes));
        call->body_sent += bytes;
    }
    sent_fragment(caller, call);
    return used;
}

/* One frame of the stream whose turn it is; 0: there is none, or no room for it. */
static size_t pull_stream(struct sml_caller *caller, uint8_t *out, size_t room)
{
    struct sml_stream *stream;
    struct sml_call *call;
    size_t used;

    if (sml_list_empty(&caller->streams))
        return 0;
    stream = SML_CONTAINER(caller->streams.next, struct sml_stream, send);
    call = stream->call;
    used = sml_stream_pull(stream, call->xid, !call->cancel_wanted, caller->views, out, room);
    if (used == 0)
        return 0;
    sml_list_remove(&stream->send);
    sml_caller_stream_due(caller, call);
    return used;
}

/* May the first queued call have an xid now? */
static bool may_begin(const struct sml_caller *caller)
{
    const struct sml_call *call;

    if (sml_list_empty(&caller->queued) || caller->unreleased >= caller->window ||
        caller->next >= caller->next_limit)
        return false;
    call = SML_CONTAINER(caller->queued.next, struct sml_call, link);
    return call->body_bytes > caller->request_body_bytes ||
           (call->key_bytes > 0 && !caller->keys) || (call->stream && !caller->streams_granted) ||
           caller->bytes_out + call->body_bytes <= caller->session_bytes;
}

/* The first queued call gets its xid and its first frame. Returns bytes; *out_ended: it could not
 * be sent for good and is done, the next may be tried. */
static size_t pull_new(struct sml_caller *caller, uint8_t *out, size_t room, uint64_t now,
                       bool *out_ended)
{
    struct sml_call *call;
    size_t used;

    *out_ended = false;
    if (!may_begin(caller))
        return 0;
    call = SML_CONTAINER(caller->queued.next, struct sml_call, link);
    if (call->body_bytes > caller->request_body_bytes) {
        sml_caller_end_call(caller, call, SEMEL_NOT_EXECUTED, SEMEL_TOO_LARGE);
        *out_ended = true;
        return 0;
    }
    if (call->key_bytes > 0 && !caller->keys) {
        sml_caller_end_call(caller, call, SEMEL_NOT_EXECUTED, SEMEL_NO_KEYS);
        *out_ended = true;
        return 0;
    }
    if (call->stream && !caller->streams_granted) {
        sml_caller_end_call(caller, call, SEMEL_NOT_EXECUTED, SEMEL_NO_STREAM);
        *out_ended = true;
        return 0;
    }
    used = encode_call(call, caller->next, out, room, now);
    if (used == 0)
        return 0;
    if (!sml_table_insert(&caller->by_xid, caller->next, call)) {
        sml_caller_end_call(caller, call, SEMEL_NOT_EXECUTED, SEMEL_NO_MEMORY);
        *out_ended = true;
        return 0;
    }
    call->xid = caller->next++;
    call->epoch = caller->epoch;
    call->store_epoch = caller->store_epoch;
    caller->pending--;
    caller->unreleased++;
    caller->bytes_out += call->body_bytes;
    sml_list_push_back(&caller->order, &call->order);
    sent_fragment(caller, call);
    return used;
}

size_t sml_caller_pull(struct sml_caller *caller, uint8_t *out, size_t room, bool more_calls,
                       uint64_t now)
{
    size_t used, turn, fresh = 0;
    bool ended = false;

    if (!sml_caller_wants_write(caller, more_calls, now))
        return 0;
    used = pull_acks(caller, out, room);
    /* A CALL must not overtake the ACK that makes room for it at the callee. */
    if (caller->ack_count > 0)
        return used;
    used += pull_cancels(caller, out + used, room - used);
    do {
        turn = pull_turn(caller, out + used, room - used, now);
        turn += pull_stream(caller, out + used + turn, room - used - turn);
        used += turn;
        if (more_calls)
            fresh = pull_new(caller, out + used, room - used, now, &ended);
        used += fresh;
    } while (turn + fresh > 0 || ended);
    return used;
}

bool sml_caller_wants_write(const struct sml_caller *caller, bool more_calls, uint64_t now)
{
    if (!caller->up)
        return false;
    if (caller->ack_due <= now || !sml_list_empty(&caller->cancels) ||
        !sml_list_empty(&caller->to_send) || !sml_list_empty(&caller->streams))
        return true;
    if (!more_calls || sml_list_empty(&caller->queued))
        return false;
    /* Owed acknowledgements are what makes room for the queue. */
    return caller->ack_count > 0 || may_begin(caller);
}

/* --- connections ------------------------------------------------------------------------ */

enum semel_status sml_caller_grant(struct sml_caller *caller, const struct sml_welcome *welcome)
{
    uint32_t window = welcome->window;

    if (window > caller->ack_capacity) {
        struct sml_ack_range *acks = sml_alloc(caller->mem, window * sizeof *acks);

        if (acks == NULL)
            return SEMEL_NO_MEMORY;
        if (caller->ack_count > 0)
            memcpy(acks, caller->acks, caller->ack_count * sizeof *acks);
        sml_release(caller->mem, caller->acks);
        caller->acks = acks;
        caller->ack_capacity = window;
    }
    caller->window = window;
    caller->keys = (welcome->features & SML_FEATURE_KEYS) != 0;
    caller->streams_granted = (welcome->features & SML_FEATURE_PARTS) != 0;
    caller->stored = welcome->generation != 0;
    if (welcome->durable_hi > caller->durable_hi)
        caller->durable_hi = welcome->durable_hi;
    caller->request_body_bytes = welcome->body_bytes;
    caller->session_bytes = welcome->session_bytes;
    return SEMEL_OK;
}

uint32_t sml_caller_outstanding(const struct sml_caller *caller)
{
    return caller->by_xid.count;
}

void sml_caller_list(struct sml_caller *caller, struct sml_outstanding *entries)
{
    uint32_t count = 0;

    for (struct sml_list *node = caller->order.next; node != &caller->order; node = node->next) {
        const struct sml_call *call = SML_CONTAINER(node, struct sml_call, order);

        entries[count++] = (struct sml_outstanding){ .xid = call->xid,
                                                     .held = call->reply_held,
                                                     .fingerprint = call->fingerprint };
    }
    SML_ASSERT(count == caller->by_xid.count);
    caller->listed = true;
}

bool sml_call_restart_stream(struct sml_caller *caller, struct sml_call *call)
{
    struct sml_stream *stream = call->stream;
    uint32_t attempt = stream->in.attempt;

    if (!sml_outflow_restart(&stream->out))
        return false;
    sml_inflow_restart(&stream->in, caller->mem);
    if (stream->in.attempt != attempt)
        sml_caller_stream_event(caller, call);
    return true;
}

bool sml_caller_send_again(struct sml_caller *caller, struct sml_call *call)
{
    if (call->stream && !sml_call_restart_stream(caller, call)) {
        sml_caller_end_call(caller, call, SEMEL_UNKNOWN, SEMEL_PARTS_LOST);
        return false;
    }
    call->phase = SML_CALL_SENDING;
    sml_caller_stream_due(caller, call);
    call->resent = true;
    call->body_sent = 0;
    caller->counters.resent++;
    sml_list_remove(&call->link);
    sml_list_push_back(&caller->to_send, &call->link);
    return true;
}

/* Go on with the body at `offset`. */
static void resume_body(struct sml_caller *caller, struct sml_call *call, uint64_t offset)
{
    call->body_sent = offset;
    if (offset < call->body_bytes) {
        call->phase = SML_CALL_SENDING;
        sml_list_push_back(&caller->to_send, &call->link);
    }
}

enum semel_status sml_caller_state(struct sml_caller *caller, const struct sml_listed *listed,
                                   uint64_t now, const char **out_why)
{
    struct sml_call *call = sml_table_find(&caller->by_xid, listed->xid);

    if (call == NULL) {
        if (listed->xid == 0 || listed->xid >= caller->next)
            return refuse(out_why, "WELCOME lists a call that was never made");
        return SEMEL_OK;
    }
    if (listed->state == SML_STATE_RECEIVING && listed->offset > call->body_bytes)
        return refuse(out_why, "WELCOME continues a body beyond its end");
    if (call->reply_held > 0 && listed->state != SML_STATE_DONE) {
        if (caller->stored)
            return SEMEL_SESSION_LOST;
        return refuse(out_why, "WELCOME forgot a reply it had begun");
    }
    if (call->phase == SML_CALL_BUSY && listed->state != SML_STATE_REFUSED)
        call->phase = SML_CALL_SENT;
    /* Its CALL tells the method, without which a server cannot say that it did not happen. */
    if (listed->state == SML_STATE_IN_DOUBT) {
        call->doubtful = true;
        if (!sml_caller_send_again(caller, call))
            return SEMEL_OK;
    }
    if (call->cancel_wanted)
        return SEMEL_OK;
    switch (listed->state) {
    case SML_STATE_IN_DOUBT:
        break;
    case SML_STATE_EXPECTED:
        if (!sml_caller_send_again(caller, call))
            return SEMEL_OK;
        break;
    case SML_STATE_RECEIVING:
        resume_body(caller, call, listed->offset);
        break;
    case SML_STATE_RUNNING:
        caller->counters.reattached++;
        break;
    case SML_STATE_DONE:
        caller->counters.replayed++;
        break;
    case SML_STATE_REFUSED:
        /* The delay it was given may be over, or its BUSY lost: again now. */
        call->phase = SML_CALL_BUSY;
        if (call->busy_until > now)
            sml_caller_set_timer(caller, call, sml_time_min(call->busy_until, call->deadline));
        else if (!sml_caller_send_again(caller, call))
            return SEMEL_OK;
        break;
    }
    return SEMEL_OK;
}

void sml_caller_up(struct sml_caller *caller)
{
    caller->up = true;
    caller->accepted_reply = false;
    /* What was wanted, or came due, while the states were coming in. */
    for (struct sml_list *node = caller->order.next; node != &caller->order; node = node->next) {
        struct sml_call *call = SML_CONTAINER(node, struct sml_call, order);

        if (call->cancel_wanted && !SML_BUG(CANCEL_LOST))
            sml_list_push_back(&caller->cancels, &call->cancel_link);
        else if (call->phase == SML_CALL_BUSY)
            sml_caller_set_timer(caller, call, sml_time_min(call->busy_until, call->deadline));
        sml_caller_stream_due(caller, call);
    }
}

/* The server may come back without it, and then with another one. */
static void drop_reply(struct sml_caller *caller, struct sml_call *call)
{
    sml_release(caller->mem, call->reply);
    call->reply = NULL;
    call->reply_held = call->reply_bytes = 0;
    call->phase = SML_CALL_SENT;
}

void sml_caller_down(struct sml_caller *caller)
{
    sml_caller_drop_acks(caller);
    caller->up = caller->listed = false;
    for (struct sml_list *node = caller->order.next; node != &caller->order; node = node->next) {
        struct sml_call *call = SML_CONTAINER(node, struct sml_call, order);

        sml_list_remove(&call->link);
        sml_list_remove(&call->cancel_link);
        if (call->stream) {
            sml_list_remove(&call->stream->send);
            sml_stream_resume(call->stream);
        }
        call->resent = false;
        if (call->phase == SML_CALL_SENDING)
            call->phase = SML_CALL_SENT;
        if (call->phase == SML_CALL_REPLYING && caller->stored && !call->reply_recorded &&
            !SML_BUG(PARTIAL_REPLY_KEPT))
            drop_reply(caller, call);
    }
}

/* --- what comes in ---------------------------------------------------------------------- */

static bool says(struct semel_bytes text, enum semel_status status)
{
    const char *words = semel_status_text(status);

    return text.size == strlen(words) && memcmp(text.data, words, text.size) == 0;
}

/* The callee's verdict is here. */
static void complete_with(struct sml_caller *caller, struct sml_call *call,
                          struct sml_verdict verdict, bool proven)
{
    if (verdict.outcome == SEMEL_NOT_EXECUTED && verdict.status == SEMEL_CANCELLED &&
        call->cancel_wanted && !call->cancelled_by_user) {
        verdict.status = SEMEL_EXPIRED;          /* the CANCEL was the deadline's */
        if (says(verdict.text, SEMEL_CANCELLED)) /* else they tell what was undone */
            verdict.text = semel_bytes("", 0);
    }
    sml_caller_complete(caller, call, &verdict, proven);
    if (SML_BUG(ACK_EARLY))
        sml_caller_accept(caller, call, 0);
    caller->accepted_reply = true;
}

/* The reply does not fit one frame: collect it. `reply` holds text, detail, trace, the body. */
static bool begin_reply(struct sml_caller *caller, struct sml_call *call,
                        const struct sml_reply_frame *frame)
{
    const struct sml_verdict *v = &frame->verdict;
    size_t meta = v->text.size + v->detail.size + v->trace.size;
    uint8_t *at = sml_alloc(caller->mem, meta + (size_t)frame->body_bytes);

    if (at == NULL)
        return false;
    call->reply = at;
    call->reply_meta = meta;
    call->reply_bytes = frame->body_bytes;
    call->reply_recorded = (frame->flags & SML_REPLY_RECORDED) != 0;
    call->verdict = *v;
    call->verdict.text.data = memcpy(at, v->text.data ? v->text.data : "", v->text.size);
    at += v->text.size;
    call->verdict.detail.data = memcpy(at, v->detail.data ? v->detail.data : "", v->detail.size);
    at += v->detail.size;
    call->verdict.trace.data = memcpy(at, v->trace.data ? v->trace.data : "", v->trace.size);
    call->verdict.body = semel_bytes(call->reply + meta, (size_t)frame->body_bytes);
    sml_list_remove(&call->link);
    call->phase = SML_CALL_REPLYING;
    return true;
}

static void add_fragment(struct sml_caller *caller, struct sml_call *call,
                         struct semel_bytes fragment)
{
    memcpy(call->reply + call->reply_meta + call->reply_held, fragment.data, fragment.size);
    call->reply_held += fragment.size;
    if (call->reply_held == call->reply_bytes)
        complete_with(caller, call, call->verdict, false); /* what is proven has no body */
}

/* What the server had in its store it must not lack later. */
static void note_stored(struct sml_caller *caller, const struct sml_frame *frame)
{
    if (frame->type == SML_REPLY && (frame->u.reply.flags & SML_REPLY_RECORDED) &&
        frame->xid > caller->durable_hi)
        caller->durable_hi = frame->xid;
}

static enum semel_status on_reply(struct sml_caller *caller, struct sml_call *call,
                                  const struct sml_reply_frame *frame, const char **out_why)
{
    if (frame->offset != call->reply_held)
        return refuse(out_why, "REPLY does not continue where the reply stood");
    if (frame->body_bytes > caller->reply_body_bytes)
        return refuse(out_why, "REPLY is larger than HELLO allowed");
    if (call->reply == NULL && frame->verdict.body.size == frame->body_bytes) {
        complete_with(caller, call, frame->verdict, (frame->flags & SML_REPLY_PROVEN) != 0);
        call->reply_in_place = true;
        return SEMEL_OK;
    }
    if (call->reply == NULL && !begin_reply(caller, call, frame)) {
        sml_caller_end_call(caller, call, SEMEL_UNKNOWN, SEMEL_NO_MEMORY);
        return SEMEL_OK;
    }
    if (frame->body_bytes != call->reply_bytes)
        return refuse(out_why, "REPLY changed its size");
    add_fragment(caller, call, frame->verdict.body);
    return SEMEL_OK;
}

static enum semel_status on_part(struct sml_caller *caller, struct sml_call *call,
                                 const struct sml_part_frame *frame, const char **out_why)
{
    enum semel_status status;

    if (call->stream == NULL || !call->stream->takes)
        return refuse(out_why, "PART for a call that takes none");
    if (call->phase == SML_CALL_REPLYING)
        return refuse(out_why, "PART after its call's reply");
    status = sml_inflow_part(&call->stream->in, caller->mem, frame, caller->backing, out_why);
    if (status == SEMEL_NO_MEMORY) {
        sml_caller_end_call(caller, call, SEMEL_UNKNOWN, SEMEL_NO_MEMORY);
        return SEMEL_OK;
    }
    if (status != SEMEL_OK)
        return status;
    sml_caller_stream_due(caller, call); /* with its end, no more credit */
    sml_caller_stream_event(caller, call);
    return SEMEL_OK;
}

static enum semel_status on_credit(struct sml_caller *caller, struct sml_call *call,
                                   const struct sml_credit_frame *frame, const char **out_why)
{
    const char *why = "CREDIT for a call that sends no parts";

    if (call->stream && call->stream->sends)
        why = sml_outflow_credit(&call->stream->out, caller->mem, frame);
    if (why)
        return refuse(out_why, why);
    sml_caller_stream_due(caller, call);
    sml_caller_stream_event(caller, call);
    return SEMEL_OK;
}

static void on_busy(struct sml_caller *caller, struct sml_call *call, uint32_t delay_ms,
                    uint64_t now)
{
    caller->counters.busy++;
    if (call->cancel_wanted)
        return;
    sml_list_remove(&call->link);
    call->phase = SML_CALL_BUSY;
    sml_caller_stream_due(caller, call);
    call->busy_until = sml_time_add(now, delay_ms * SML_MS);
    sml_caller_set_timer(caller, call, sml_time_min(call->busy_until, call->deadline));
}

enum semel_status sml_caller_frame(struct sml_caller *caller, const struct sml_frame *frame,
                                   uint64_t now, const char **out_why)
{
    struct sml_call *call = sml_table_find(&caller->by_xid, frame->xid);

    if (frame->xid >= caller->next)
        return refuse(out_why, "answer to a call that was never made");
    note_stored(caller, frame); /* also of a call that was given up */
    if (call == NULL) {
        caller->counters.unexpected++;
        return SEMEL_OK;
    }
    switch (frame->type) {
    case SML_REPLY:
        return on_reply(caller, call, &frame->u.reply, out_why);
    case SML_BODY:
        if (call->phase != SML_CALL_REPLYING)
            return refuse(out_why, "BODY without its REPLY");
        if (frame->u.body.offset != call->reply_held ||
            frame->u.body.fragment.size > call->reply_bytes - call->reply_held)
            return refuse(out_why, "BODY does not continue its reply");
        add_fragment(caller, call, frame->u.body.fragment);
        return SEMEL_OK;
    case SML_BUSY:
        if (call->phase == SML_CALL_REPLYING)
            return refuse(out_why, "BUSY for a call whose reply has begun");
        on_busy(caller, call, frame->u.busy_delay_ms, now);
        return SEMEL_OK;
    case SML_PART:
        return on_part(caller, call, &frame->u.part, out_why);
    case SML_CREDIT:
        return on_credit(caller, call, &frame->u.credit, out_why);
    default:
        return refuse(out_why, "frame is not for a caller");
    }
}
