/* SPDX-License-Identifier: MIT */
/* callee_wire.c - the callee's frames: triage of what comes in, verdicts and bodies going out. */
#include <string.h>

#include "base/bare.h"
#include "base/bug.h"
#include "base/check.h"
#include "session/callee_internal.h"
#include "session/fragment.h"

static enum semel_status refuse(const char **out_why, const char *why)
{
    *out_why = why;
    return SEMEL_PROTOCOL;
}

static struct sml_incoming *find(const struct sml_callee *callee, uint64_t xid)
{
    return sml_table_find(&callee->table, xid);
}

/* --- what comes in ---------------------------------------------------------------------- */

static void add_fragment(struct sml_callee *callee, struct sml_incoming *in,
                         struct semel_bytes fragment)
{
    if (fragment.size > 0)
        memcpy(in->body + in->body_received, fragment.data, fragment.size);
    in->body_received += fragment.size;
    if (in->body_received < in->body_bytes)
        return;
    in->phase = SML_IN_READY;
    sml_list_push_back(&callee->ready, &in->link);
}

static bool keeps_records(const struct sml_callee_methods *methods, const struct sml_incoming *in)
{
    return methods->keeps_records &&
           methods->keeps_records(methods->user, semel_bytes(in->method, in->method_bytes));
}

/* What is known of a call stays known when it comes again. Its method is known only now. */
static void inherit(const struct sml_callee *callee, struct sml_incoming *in,
                    struct sml_incoming *old)
{
    in->row = SML_BUG(ROW_LOST) ? 0 : old->row;
    in->crashes = old->crashes;
    in->begun = old->begun;
    in->busy_delay_ms = old->busy_delay_ms;
    in->cancel_waits = old->cancel_waits;
    in->in_doubt = old->in_doubt && !keeps_records(&callee->methods, in);
    old->row = 0;
}

/* A CALL that is to be received, whatever was there before under its xid. */
static enum semel_status receive(struct sml_callee *callee, const struct sml_frame *frame,
                                 uint64_t now, const char **out_why)
{
    const struct sml_call_frame *call = &frame->u.call;
    struct sml_incoming *old = find(callee, frame->xid), *in;

    if (call->key.size > 0 && !callee->keys)
        return refuse(out_why, "CALL has a key, which was not agreed on");
    if ((call->flags & SML_CALL_STREAMS) && !callee->streams_granted)
        return refuse(out_why, "CALL has a stream, which was not agreed on");
    if (call->body_bytes > callee->limits.body_bytes)
        return refuse(out_why, "CALL's body is larger than WELCOME allowed");
    if (call->body_bytes > callee->limits.session_bytes - callee->bytes_in)
        return refuse(out_why, "CALL goes over the session's byte budget");
    if (old == NULL && callee->table.count >= callee->limits.window)
        return refuse(out_why, "CALL goes over the window");
    in = sml_incoming_create(callee, frame->xid, call->fingerprint, call);
    /* Only once its successor is there, which takes its slot: the insert cannot fail then. */
    if (in && old) {
        inherit(callee, in, old);
        sml_callee_release(callee, old);
    }
    if (in == NULL || !sml_callee_insert(callee, in)) {
        *out_why = "no memory for a call";
        return SEMEL_NO_MEMORY;
    }
    if (frame->xid > callee->hi)
        callee->hi = frame->xid;
    callee->counters.received++;
    in->deadline = call->remaining_ms == SML_NO_DEADLINE
                       ? SML_NEVER
                       : sml_time_add(now, call->remaining_ms * SML_MS);
    if (in->cancel_waits || call->remaining_ms == 0) {
        sml_callee_verdict(callee, in, SEMEL_NOT_EXECUTED,
                           in->cancel_waits ? SEMEL_CANCELLED : SEMEL_EXPIRED);
        return SEMEL_OK;
    }
    sml_callee_set_timer(callee, in, in->deadline);
    add_fragment(callee, in, call->fragment);
    return SEMEL_OK;
}

static enum semel_status false_retry(struct sml_callee *callee, const char **out_why)
{
    callee->counters.false_retries++;
    *out_why = "a call's number came again with other contents";
    return SEMEL_FALSE_RETRY;
}

/* The same call again: it attaches to its record. */
static void duplicate(struct sml_callee *callee, struct sml_incoming *in)
{
    callee->counters.duplicates++;
    if (in->phase != SML_IN_DONE || sml_list_linked(&in->link) || in->reply_waits)
        return;
    in->reply_sent = 0;
    in->reply_begun = false;
    callee->counters.replayed++;
    sml_callee_send_verdict(callee, in);
}

static bool is_same(const struct sml_incoming *in, struct sml_fingerprint fingerprint)
{
    return (in->unidentified && !SML_BUG(PLACEHOLDER_CHECKED)) ||
           sml_fingerprint_equal(in->fingerprint, fingerprint);
}

static enum semel_status on_call(struct sml_callee *callee, const struct sml_frame *frame,
                                 uint64_t now, const char **out_why)
{
    struct sml_incoming *in;

    if (frame->xid == callee->hi + 1)
        return receive(callee, frame, now, out_why);
    if (frame->xid > callee->hi)
        return refuse(out_why, "CALL skips a number");
    in = find(callee, frame->xid);
    if (callee->dedup_off || (in == NULL && SML_BUG(STALE_RUNS)))
        return receive(callee, frame, now, out_why);
    if (in == NULL) {
        callee->counters.stale++;
        return SEMEL_OK;
    }
    if (!is_same(in, frame->u.call.fingerprint))
        return false_retry(callee, out_why);
    if (in->phase == SML_IN_EXPECTED || in->phase == SML_IN_REFUSED)
        return receive(callee, frame, now, out_why);
    duplicate(callee, in);
    return SEMEL_OK;
}

static enum semel_status on_body(struct sml_callee *callee, const struct sml_frame *frame,
                                 const char **out_why)
{
    const struct sml_body_frame *body = &frame->u.body;
    struct sml_incoming *in = find(callee, frame->xid);

    if (frame->xid > callee->hi)
        return refuse(out_why, "BODY for a call that was never made");
    if (in == NULL) {
        callee->counters.stale++;
        return SEMEL_OK;
    }
    if (in->phase == SML_IN_EXPECTED)
        return refuse(out_why, "BODY before its CALL");
    if (in->phase != SML_IN_RECEIVING)
        return SEMEL_OK; /* it has its verdict already: fragments were under way */
    if (body->offset != in->body_received ||
        body->fragment.size > in->body_bytes - in->body_received)
        return refuse(out_why, "BODY does not continue its call");
    add_fragment(callee, in, body->fragment);
    return SEMEL_OK;
}

static enum semel_status on_part(struct sml_callee *callee, const struct sml_frame *frame,
                                 const char **out_why)
{
    struct sml_incoming *in = find(callee, frame->xid);
    enum semel_status status;

    if (frame->xid > callee->hi)
        return refuse(out_why, "PART for a call that was never made");
    if (in == NULL) {
        callee->counters.stale++;
        return SEMEL_OK;
    }
    if (in->phase == SML_IN_EXPECTED)
        return refuse(out_why, "PART before its CALL");
    if (in->phase == SML_IN_REFUSED || in->phase == SML_IN_STORING || in->phase == SML_IN_DONE)
        return SEMEL_OK; /* it was under way when that was decided */
    if (in->stream == NULL || !in->stream->takes)
        return refuse(out_why, "PART for a call that sends none");
    status =
        sml_inflow_part(&in->stream->in, callee->mem, &frame->u.part, callee->backing, out_why);
    if (status == SEMEL_NO_MEMORY)
        *out_why = "no memory for a part";
    if (status != SEMEL_OK)
        return status;
    sml_callee_stream_due(callee, in); /* with its end, no more credit */
    sml_callee_stream_event(callee, in);
    return SEMEL_OK;
}

/* The parts before its verdict may be out, or may never be. */
static void go_on(struct sml_callee *callee, struct sml_incoming *in)
{
    if (in->phase == SML_IN_DONE && in->reply_waits)
        sml_callee_send_verdict(callee, in);
}

/* Calls that were restored have no stream any more; what their callers hold of it is theirs. */
static enum semel_status on_credit(struct sml_callee *callee, const struct sml_frame *frame,
                                   const char **out_why)
{
    struct sml_incoming *in = find(callee, frame->xid);
    const char *why;

    if (frame->xid > callee->hi)
        return refuse(out_why, "CREDIT for a call that was never made");
    if (in == NULL || in->phase == SML_IN_EXPECTED || in->phase == SML_IN_REFUSED)
        callee->counters.stale++;
    if (in == NULL || in->stream == NULL)
        return SEMEL_OK;
    if (!in->stream->sends)
        return refuse(out_why, "CREDIT for a call that takes no parts");
    why = sml_outflow_credit(&in->stream->out, callee->mem, &frame->u.credit);
    if (why)
        return refuse(out_why, why);
    sml_callee_stream_due(callee, in);
    sml_callee_stream_event(callee, in);
    go_on(callee, in);
    return SEMEL_OK;
}

static enum semel_status on_ack(struct sml_callee *callee, const struct sml_ack_frame *ack,
                                const char **out_why)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < ack->count; i++) {
        struct sml_ack_range range = sml_ack_range(ack, i);

        total += range.count;
        if (range.first + range.count - 1 > callee->hi)
            return refuse(out_why, "ACK for a call that was never made");
        if (total > callee->limits.window)
            return refuse(out_why, "ACK for more calls than there are");
        for (uint32_t k = 0; k < range.count; k++) {
            struct sml_incoming *in = find(callee, range.first + k);

            if (in && in->phase != SML_IN_DONE)
                callee->counters.abandoned++;
            if (in)
                sml_callee_release(callee, in);
            else
                callee->counters.stale++;
        }
    }
    if (callee->table.count == 0)
        sml_table_trim(&callee->table);
    return SEMEL_OK;
}

static enum semel_status on_cancel(struct sml_callee *callee, uint64_t xid, const char **out_why)
{
    struct sml_incoming *in = find(callee, xid);

    if (xid > callee->hi)
        return refuse(out_why, "CANCEL for a call that was never made");
    if (in == NULL) {
        callee->counters.stale++;
        return SEMEL_OK;
    }
    if (in->phase == SML_IN_STORING || in->phase == SML_IN_RUNNING)
        in->doomed = SEMEL_CANCELLED; /* should its transaction be lost */
    in->unread = in->stream && in->stream->sends;
    go_on(callee, in);
    if (in->phase == SML_IN_DONE || in->phase == SML_IN_STORING || in->phase == SML_IN_UNSTARTING)
        return SEMEL_OK;
    callee->counters.cancelled++;
    if (in->phase == SML_IN_RUNNING)
        sml_callee_mark_cancelled(callee, in);
    else if (in->phase == SML_IN_EXPECTED && in->in_doubt)
        in->cancel_waits = true; /* its CALL comes, and says whether it may have run */
    else
        sml_callee_end_unstarted(callee, in, SEMEL_CANCELLED);
    return SEMEL_OK;
}

enum semel_status sml_callee_frame(struct sml_callee *callee, const struct sml_frame *frame,
                                   uint64_t now, const char **out_why)
{
    switch (frame->type) {
    case SML_CALL:
        return on_call(callee, frame, now, out_why);
    case SML_BODY:
        return on_body(callee, frame, out_why);
    case SML_PART:
        return on_part(callee, frame, out_why);
    case SML_CREDIT:
        return on_credit(callee, frame, out_why);
    case SML_ACK:
        return on_ack(callee, &frame->u.ack, out_why);
    case SML_CANCEL:
        return on_cancel(callee, frame->xid, out_why);
    default:
        return refuse(out_why, "frame is not for a callee");
    }
}

/* --- resume ----------------------------------------------------------------------------- */

/* Up to here, what is not in the table was released. */
static uint64_t known_to(const struct sml_callee *callee)
{
    return callee->restored && !SML_BUG(EXPECTED_UNKNOWN) ? callee->base : callee->hi;
}

/* How much of the `held` bytes of a reply is true. What is missing in a store that was rolled back
 * is no mistake of the caller's: it will see by the state. */
static uint64_t held_of(const struct sml_callee *callee, const struct sml_incoming *in,
                        uint64_t held)
{
    if (in && in->phase == SML_IN_DONE && held <= in->verdict.body.size)
        return held;
    return callee->durable ? held : 0;
}

static enum semel_status check_entries(struct sml_callee *callee, uint64_t next,
                                       const struct sml_outstanding *entries, uint32_t count,
                                       const char **out_why)
{
    if (next == 0 || next > SML_XID_MAX || next <= callee->hi)
        return refuse(out_why, "HELLO's next number was given before");
    if (count > callee->limits.window)
        return refuse(out_why, "HELLO lists more calls than the window");
    for (uint32_t i = 0; i < count; i++) {
        const struct sml_outstanding *e = &entries[i];
        const struct sml_incoming *in = find(callee, e->xid);

        if (e->xid == 0 || e->xid >= next || (i > 0 && e->xid <= entries[i - 1].xid))
            return refuse(out_why, "HELLO's list is out of order");
        if (in == NULL && e->xid <= known_to(callee))
            return refuse(out_why, "HELLO lists a call that was released");
        if (in && !is_same(in, e->fingerprint))
            return false_retry(callee, out_why);
        if (e->held > held_of(callee, in, e->held))
            return refuse(out_why, "HELLO holds more of a reply than there is");
    }
    return SEMEL_OK;
}

/* Where one listed call stands. A verdict is sent again, beyond the bytes that the caller holds. */
static struct sml_listed take_up(struct sml_callee *callee, struct sml_incoming *in, uint64_t held)
{
    struct sml_listed listed = { .xid = in->xid };

    if (in->stream)
        sml_callee_stream_due(callee, in);
    if (callee->dedup_off && in->phase != SML_IN_RECEIVING && held == 0) {
        listed.state = SML_STATE_EXPECTED;
        return listed;
    }
    switch (in->phase) {
    case SML_IN_EXPECTED:
        listed.state = in->begun || in->in_doubt ? SML_STATE_IN_DOUBT : SML_STATE_EXPECTED;
        break;
    case SML_IN_RECEIVING:
        listed.state = SML_STATE_RECEIVING;
        listed.offset = in->body_received;
        break;
    case SML_IN_READY:
    case SML_IN_TAKEN:
    case SML_IN_STARTING:
    case SML_IN_STARTED:
    case SML_IN_UNSTARTING:
    case SML_IN_RUNNING:
    case SML_IN_STORING:
        listed.state = SML_STATE_RUNNING;
        callee->counters.reattached++;
        break;
    case SML_IN_DONE:
        if (held > in->verdict.body.size) { /* of another verdict: see held_of */
            listed.state = SML_STATE_RUNNING;
            break;
        }
        listed.state = SML_STATE_DONE;
        listed.offset = held;
        /* Who has bytes of the reply has all that comes before it. */
        if (held > 0 && in->stream)
            in->stream->out.open = true;
        in->reply_sent = held;
        in->reply_begun = false;
        callee->counters.replayed++;
        sml_callee_send_verdict(callee, in);
        break;
    case SML_IN_REFUSED:
        listed.state = SML_STATE_REFUSED;
        break;
    }
    return listed;
}

/* Make a record for each listed call that has none, and mark the listed ones. On failure nothing
 * has changed. */
static bool expect_listed(struct sml_callee *callee, const struct sml_outstanding *entries,
                          uint32_t count)
{
    uint32_t done;

    for (done = 0; done < count; done++) {
        struct sml_incoming *in = find(callee, entries[done].xid);

        if (in == NULL) {
            in = sml_incoming_create(callee, entries[done].xid, entries[done].fingerprint, NULL);
            if (in == NULL || !sml_callee_insert(callee, in))
                break;
            in->in_doubt = callee->restored;
        }
        in->listed = true;
    }
    if (done == count)
        return true;
    while (done-- > 0) {
        struct sml_incoming *in = find(callee, entries[done].xid);

        in->listed = false;
        if (in->xid > known_to(callee) && in->row == 0)
            sml_callee_release(callee, in);
    }
    return false;
}

static void release_unlisted(struct sml_callee *callee)
{
    struct sml_list *node, *next;

    for (node = callee->all.next; node != &callee->all; node = next) {
        struct sml_incoming *in = SML_CONTAINER(node, struct sml_incoming, all);

        next = node->next;
        if (in->listed && !(SML_BUG(LISTED_RELEASED) && in->phase == SML_IN_READY)) {
            in->listed = false;
            continue;
        }
        if (in->phase != SML_IN_DONE)
            callee->counters.abandoned++;
        sml_callee_release(callee, in);
    }
}

enum semel_status sml_callee_resume(struct sml_callee *callee, uint64_t next,
                                    const struct sml_outstanding *entries, uint32_t count,
                                    struct sml_listed *out_states, const char **out_why)
{
    enum semel_status status = check_entries(callee, next, entries, count, out_why);

    if (status != SEMEL_OK)
        return status;
    if (!expect_listed(callee, entries, count)) {
        *out_why = "no memory for the list of calls";
        return SEMEL_NO_MEMORY;
    }
    sml_callee_down(callee);
    release_unlisted(callee);
    callee->hi = SML_BUG(HI_NOT_RAISED) ? callee->hi : next - 1;
    callee->restored = false;
    for (uint32_t i = 0; i < count; i++) {
        struct sml_incoming *in = find(callee, entries[i].xid);

        if (in->unidentified) /* else it is the same, and the store may be reading it */
            in->fingerprint = entries[i].fingerprint;
        in->unidentified = false;
        out_states[i] = take_up(callee, in, entries[i].held);
    }
    return SEMEL_OK;
}

void sml_callee_down(struct sml_callee *callee)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(&callee->to_send)) != NULL)
        sml_incoming_of(node)->reply_begun = false;
    while (sml_list_pop_front(&callee->busy) != NULL)
        continue;
    while (sml_list_pop_front(&callee->streams) != NULL)
        continue;
    for (node = callee->all.next; node != &callee->all; node = node->next) {
        struct sml_incoming *in = SML_CONTAINER(node, struct sml_incoming, all);

        if (in->stream)
            sml_stream_resume(in->stream);
    }
}

/* --- what goes out ---------------------------------------------------------------------- */

static size_t encode_reply(struct sml_incoming *in, uint8_t *out, size_t room)
{
    struct sml_reply_frame frame = { .flags = (uint8_t)((in->row ? SML_REPLY_RECORDED : 0) |
                                                        (in->proven ? SML_REPLY_PROVEN : 0)),
                                     .verdict = in->verdict,
                                     .body_bytes = in->verdict.body.size,
                                     .offset = in->reply_sent };
    uint64_t left = frame.body_bytes - frame.offset;
    size_t overhead = sml_reply_overhead(&frame);
    size_t bytes = sml_fragment_bytes(left, overhead, room);

    if (room < overhead || (bytes == 0 && left > 0))
        return 0;
    frame.verdict.body.size = bytes;
    if (bytes > 0)
        frame.verdict.body.data = (const uint8_t *)in->verdict.body.data + frame.offset;
    in->reply_begun = true;
    in->reply_sent += bytes;
    return sml_encode_reply(out, in->xid, &frame);
}

static size_t encode_more(struct sml_incoming *in, uint8_t *out, size_t room)
{
    uint64_t left = in->verdict.body.size - in->reply_sent;
    size_t bytes = sml_fragment_bytes(left, SML_BODY_OVERHEAD, room);
    size_t used;

    if (bytes == 0)
        return 0;
    used = sml_encode_body(
        out, in->xid, in->reply_sent,
        semel_bytes((const uint8_t *)in->verdict.body.data + in->reply_sent, bytes));
    in->reply_sent += bytes;
    return used;
}

static size_t pull_turn(struct sml_callee *callee, uint8_t *out, size_t room)
{
    struct sml_incoming *in;
    size_t used;

    if (sml_list_empty(&callee->to_send))
        return 0;
    in = sml_incoming_of(callee->to_send.next);
    used = in->reply_begun ? encode_more(in, out, room) : encode_reply(in, out, room);
    if (used == 0)
        return 0;
    sml_list_remove(&in->link);
    in->reply_told |= in->reply_sent >= in->verdict.body.size;
    if (in->reply_sent < in->verdict.body.size)
        sml_list_push_back(&callee->to_send, &in->link);
    else if (SML_IS_BARE)
        sml_callee_release(callee, in);
    return used;
}

/* One frame of the stream whose turn it is; the verdict comes behind its last. 0: there is none, or
 * no room for it. */
static size_t pull_stream(struct sml_callee *callee, uint8_t *out, size_t room)
{
    struct sml_stream *stream;
    struct sml_incoming *in;
    size_t used;

    if (sml_list_empty(&callee->streams))
        return 0;
    stream = SML_CONTAINER(callee->streams.next, struct sml_stream, send);
    in = stream->call;
    used = sml_stream_pull(stream, in->xid, true, callee->views, out, room);
    if (used == 0)
        return 0;
    sml_list_remove(&stream->send);
    sml_callee_stream_due(callee, in);
    go_on(callee, in);
    return used;
}

size_t sml_callee_pull(struct sml_callee *callee, uint8_t *out, size_t room, uint64_t now)
{
    struct sml_list *node;
    size_t used = 0, turn;

    (void)now;
    while (room - used >= SML_BUSY_FRAME_BYTES && (node = sml_list_pop_front(&callee->busy))) {
        const struct sml_incoming *in = sml_incoming_of(node);

        used += sml_encode_busy(out + used, in->xid, in->busy_delay_ms);
    }
    do {
        turn = pull_turn(callee, out + used, room - used);
        turn += pull_stream(callee, out + used + turn, room - used - turn);
        used += turn;
    } while (turn > 0);
    return used;
}

bool sml_callee_wants_write(const struct sml_callee *callee)
{
    return !sml_list_empty(&callee->to_send) || !sml_list_empty(&callee->busy) ||
           !sml_list_empty(&callee->streams);
}
