/* SPDX-License-Identifier: MIT */
/* caller.c - calls from submission to completion: queue, timers, acknowledgements, the end of a
 * session. Frames are in caller_wire.c.
 *
 * Invariants:
 *  - a call has an xid exactly when its first frame was encoded; `order` holds these, by xid;
 *  - `unreleased` counts the xids of this session that the callee may still hold, never more than
 *    `window`;
 *  - every call between submit and done has at most one timer: its deadline, the end of its grace,
 *    or the end of a BUSY delay if that is earlier;
 *  - a call that ends without the callee's verdict is released at once, one with a verdict when the
 *    application has accepted it; either way the ACK is encoded before any later CALL, so the
 *    callee never sees more than `window` calls or `session_bytes` of bodies. */
#include "session/caller.h"

#include <string.h>

#include "base/bare.h"
#include "base/bug.h"
#include "base/check.h"
#include "session/caller_internal.h"

/* An acknowledgement waits for the next write, so that it costs none of its own, at most this
 * long. */
#define ACK_DELAY (25 * SML_MS)

void sml_call_prepare(struct sml_call *call)
{
    call->fingerprint = sml_fingerprint(call->method, call->method_bytes, call->content_type,
                                        call->content_type_bytes, call->body, call->body_bytes);
    call->fingerprint.a += SML_BUG(FINGERPRINT_DEADLINE) ? call->deadline : 0;
    call->prepared = true;
}

void sml_caller_init(struct sml_caller *caller, const struct sml_mem *mem, uint64_t cancel_grace,
                     uint32_t pending_max, uint64_t reply_body_bytes)
{
    memset(caller, 0, sizeof *caller);
    caller->mem = mem;
    caller->cancel_grace = cancel_grace;
    caller->pending_max = pending_max;
    caller->reply_body_bytes = reply_body_bytes;
    caller->next = 1;
    caller->next_limit = SML_XID_MAX;
    caller->ack_due = SML_NEVER;
    sml_table_init(&caller->by_xid, mem, SEMEL_WINDOW_CALLS_MAX);
    sml_list_init(&caller->queued);
    sml_list_init(&caller->to_send);
    sml_list_init(&caller->order);
    sml_list_init(&caller->cancels);
    sml_list_init(&caller->streams);
    sml_list_init(&caller->events);
    sml_list_init(&caller->done);
    sml_heap_init(&caller->timers);
}

void sml_caller_fini(struct sml_caller *caller)
{
    SML_ASSERT(sml_caller_idle(caller));
    sml_table_fini(&caller->by_xid);
    sml_release(caller->mem, caller->acks);
    caller->acks = NULL;
    sml_caller_drop_last_acks(caller);
}

bool sml_caller_idle(const struct sml_caller *caller)
{
    return sml_list_empty(&caller->queued) && sml_list_empty(&caller->order);
}

void sml_caller_set_timer(struct sml_caller *caller, struct sml_call *call, uint64_t key)
{
    sml_heap_remove(&caller->timers, &call->timer);
    if (key != SML_NEVER)
        sml_heap_insert(&caller->timers, &call->timer, key);
}

/* Only the store that it was submitted to before can tell what became of it. */
static bool needs_store(const struct sml_call *call)
{
    return call->rerun && call->key_bytes > 0 && !(call->flags & SML_CALL_RERUN_OK) &&
           !SML_BUG(KEYED_ELSEWHERE);
}

/* --- streams ---------------------------------------------------------------------------- */

static void begin_stream(struct sml_caller *caller, struct sml_call *call)
{
    call->stream->call = call;
    call->flags |= (uint8_t)((call->stream->sends ? SML_CALL_SENDS : 0) |
                             (call->stream->takes ? SML_CALL_TAKES : 0));
    sml_stream_widen(call->stream, &caller->windows);
}

/* The call is done: what has arrived may still be taken, and nobody takes what was sent. */
static void end_stream(struct sml_caller *caller, struct sml_stream *stream)
{
    sml_list_remove(&stream->send);
    sml_list_remove(&stream->event);
    sml_stream_narrow(stream, &caller->windows);
    sml_outflow_drop(&stream->out, caller->mem);
}

bool sml_caller_send_part(struct sml_caller *caller, struct sml_call *call, struct sml_part *part)
{
    if (call->phase == SML_CALL_DONE || call->stream->out.ended) {
        sml_part_release(caller->mem, part);
        return false;
    }
    if (part->kind == SML_PART_PROGRESS)
        sml_outflow_set_progress(&call->stream->out, caller->mem, part);
    else
        sml_outflow_add(&call->stream->out, part);
    sml_caller_stream_due(caller, call);
    return true;
}

void sml_caller_end_parts(struct sml_caller *caller, struct sml_call *call)
{
    sml_outflow_end(&call->stream->out);
    sml_caller_stream_due(caller, call);
}

void sml_caller_took_parts(struct sml_caller *caller, struct sml_call *call)
{
    sml_caller_stream_due(caller, call);
}

struct sml_call *sml_caller_next_event(struct sml_caller *caller)
{
    struct sml_list *node = sml_list_pop_front(&caller->events);

    return node ? SML_CONTAINER(node, struct sml_stream, event)->call : NULL;
}

enum semel_status sml_caller_submit(struct sml_caller *caller, struct sml_call *call, uint64_t now)
{
    if (caller->pending >= caller->pending_max)
        return SEMEL_OVERLOADED;
    if (!call->prepared)
        sml_call_prepare(call);
    sml_list_init(&call->link);
    sml_list_init(&call->order);
    sml_list_init(&call->cancel_link);
    sml_heap_node_init(&call->timer);
    call->phase = SML_CALL_QUEUED;
    call->grace_end = SML_NEVER;
    call->doubtful = false;
    call->submitted = now;
    if (call->stream)
        begin_stream(caller, call);
    sml_list_push_back(&caller->queued, &call->link);
    caller->pending++;
    if (needs_store(call) && call->store_epoch != caller->store_epoch)
        sml_caller_end_call(caller, call, SEMEL_UNKNOWN, SEMEL_SESSION_LOST);
    else if (call->deadline <= now)
        sml_caller_end_call(caller, call, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED);
    else
        sml_caller_set_timer(caller, call, call->deadline);
    return SEMEL_OK;
}

/* --- acknowledgements ------------------------------------------------------------------- */

static void owe_ack(struct sml_caller *caller, uint64_t xid, uint64_t bytes, uint64_t due)
{
    struct sml_ack_range *last = caller->ack_count ? &caller->acks[caller->ack_count - 1] : NULL;

    if (last && last->first + last->count == xid) {
        last->count++;
    } else {
        SML_ASSERT(caller->ack_count < caller->ack_capacity);
        caller->acks[caller->ack_count++] = (struct sml_ack_range){ .first = xid, .count = 1 };
    }
    caller->ack_bytes += bytes;
    caller->ack_due = sml_time_min(caller->ack_due, due);
    if (caller->ack_bytes >= caller->session_bytes / 2)
        caller->ack_due = 0;
}

/* The callee may forget `call`: by an ACK where it knows of it, else by being left out of the next
 * HELLO. */
static void release_xid(struct sml_caller *caller, struct sml_call *call, uint64_t bytes,
                        uint64_t due)
{
    if (call->xid == 0 || call->epoch != caller->epoch)
        return;
    if ((caller->up || caller->listed) && !SML_IS_BARE)
        owe_ack(caller, call->xid, bytes, due);
    else
        caller->unreleased--;
    call->epoch = caller->epoch - 1; /* once */
}

void sml_caller_accept(struct sml_caller *caller, struct sml_call *call, uint64_t now)
{
    SML_ASSERT(call->phase == SML_CALL_DONE);
    release_xid(caller, call, call->verdict.body.size, sml_time_add(now, ACK_DELAY));
}

void sml_caller_keep_acks(struct sml_caller *caller)
{
    if (!caller->up || caller->ack_count == 0)
        return;
    sml_caller_drop_last_acks(caller);
    caller->last_acks = caller->acks;
    caller->last_ack_count = caller->ack_count;
    caller->acks = NULL; /* the next WELCOME brings new ones */
    caller->ack_capacity = caller->ack_count = 0;
}

void sml_caller_drop_last_acks(struct sml_caller *caller)
{
    sml_release(caller->mem, caller->last_acks);
    caller->last_acks = NULL;
    caller->last_ack_count = 0;
}

void sml_caller_drop_acks(struct sml_caller *caller)
{
    for (uint32_t i = 0; i < caller->ack_count; i++)
        caller->unreleased -= caller->acks[i].count;
    caller->ack_count = 0;
    caller->ack_bytes = 0;
    caller->ack_due = SML_NEVER;
}

/* --- completion ------------------------------------------------------------------------- */

/* A call that an earlier session may have run can no more be proven not to have happened, except by
 * a server that looked for its key and found nothing. */
static void set_verdict(struct sml_call *call, const struct sml_verdict *verdict, bool proven)
{
    call->verdict = *verdict;
    if (!call->rerun || proven || verdict->outcome != SEMEL_NOT_EXECUTED || SML_BUG(RERUN_PROVES))
        return;
    call->verdict.outcome = SEMEL_UNKNOWN;
    if (verdict->status == SEMEL_EXPIRED)
        call->verdict.status = SEMEL_DEADLINE;
}

void sml_caller_complete(struct sml_caller *caller, struct sml_call *call,
                         const struct sml_verdict *verdict, bool proven)
{
    if (call->phase == SML_CALL_QUEUED)
        caller->pending--;
    if (call->xid != 0 && call->epoch == caller->epoch) {
        sml_table_remove(&caller->by_xid, call->xid);
        caller->bytes_out -= call->body_bytes;
    }
    sml_list_remove(&call->link);
    sml_list_remove(&call->order);
    sml_list_remove(&call->cancel_link);
    sml_heap_remove(&caller->timers, &call->timer);
    if (call->stream)
        end_stream(caller, call->stream);
    call->phase = SML_CALL_DONE;
    set_verdict(call, verdict, proven);
    sml_list_push_back(&caller->done, &call->link);
}

void sml_caller_end_call(struct sml_caller *caller, struct sml_call *call,
                         enum semel_outcome outcome, enum semel_status status)
{
    struct sml_verdict verdict = { .outcome = outcome, .status = status };

    if (SML_BUG(XID_REUSED) && call->epoch == caller->epoch && call->xid + 1 == caller->next)
        caller->next--;
    sml_caller_complete(caller, call, &verdict, false);
    sml_release(caller->mem, call->reply);
    call->reply = NULL;
    call->reply_in_place = false;
    release_xid(caller, call, 0, 0);
}

struct sml_call *sml_caller_next_done(struct sml_caller *caller)
{
    struct sml_list *node = sml_list_pop_front(&caller->done);

    return node ? SML_CONTAINER(node, struct sml_call, link) : NULL;
}

/* --- cancellation and time -------------------------------------------------------------- */

/* Stop sending the body, ask the callee for a verdict. One that is in doubt is sent all the same:
 * without it the callee has none. */
static void want_cancel(struct sml_caller *caller, struct sml_call *call)
{
    if (call->cancel_wanted)
        return;
    call->cancel_wanted = true;
    if (call->phase == SML_CALL_SENDING && !(call->resent && call->doubtful)) {
        sml_list_remove(&call->link);
        call->phase = SML_CALL_SENT;
    }
    sml_caller_stream_due(caller, call);
    if (caller->up)
        sml_list_push_back(&caller->cancels, &call->cancel_link);
}

void sml_caller_cancel(struct sml_caller *caller, struct sml_call *call, uint64_t now)
{
    (void)now;
    if (call->phase == SML_CALL_NEW || call->phase == SML_CALL_DONE || call->cancel_wanted)
        return;
    call->cancelled_by_user = true;
    if (call->phase == SML_CALL_QUEUED) {
        sml_caller_end_call(caller, call, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED);
        return;
    }
    want_cancel(caller, call);
    sml_caller_set_timer(caller, call, call->deadline);
}

/* No verdict will come for a call that was sent. While it is BUSY the callee has dropped it and
 * waits to be sent it again: then it never ran, unless that is in doubt. */
static void end_unanswered(struct sml_caller *caller, struct sml_call *call,
                           enum semel_status status)
{
    if ((call->phase != SML_CALL_BUSY || (call->doubtful && !SML_BUG(BUSY_PROVES))) &&
        !SML_BUG(NOT_EXECUTED_UNPROVEN))
        sml_caller_end_call(caller, call, SEMEL_UNKNOWN, status);
    else
        sml_caller_end_call(caller, call, SEMEL_NOT_EXECUTED,
                            status == SEMEL_DEADLINE ? SEMEL_EXPIRED : status);
}

static void timer_fired(struct sml_caller *caller, struct sml_call *call, uint64_t now)
{
    if (call->grace_end <= now) {
        end_unanswered(caller, call, call->cancelled_by_user ? SEMEL_CANCELLED : SEMEL_DEADLINE);
    } else if (call->deadline <= now && call->phase == SML_CALL_QUEUED) {
        sml_caller_end_call(caller, call, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED);
    } else if (call->deadline <= now) {
        call->grace_end = sml_time_add(now, caller->cancel_grace);
        want_cancel(caller, call);
        sml_caller_set_timer(caller, call, call->grace_end);
    } else if (call->phase == SML_CALL_BUSY && caller->up) {
        if (sml_caller_send_again(caller, call))
            sml_caller_set_timer(caller, call, call->deadline);
    } else {
        sml_caller_set_timer(caller, call, call->deadline);
    }
}

void sml_caller_tick(struct sml_caller *caller, uint64_t now)
{
    struct sml_heap_node *node;

    if (caller->ack_due <= now)
        caller->ack_due = 0;
    if (SML_BUG(RESENDS_ON_TIMER) && caller->up && !sml_list_empty(&caller->order))
        (void)!sml_caller_send_again(caller,
                                     SML_CONTAINER(caller->order.next, struct sml_call, order));
    while ((node = sml_heap_min(&caller->timers)) != NULL && node->key <= now)
        timer_fired(caller, SML_CONTAINER(node, struct sml_call, timer), now);
}

uint64_t sml_caller_timeout(const struct sml_caller *caller)
{
    /* What is due already waits for room to write, not for time. */
    uint64_t due = caller->up && caller->ack_due != 0 ? caller->ack_due : SML_NEVER;

    return sml_time_min(due, sml_heap_min_key(&caller->timers));
}

/* --- sessions --------------------------------------------------------------------------- */

void sml_caller_begin_session(struct sml_caller *caller)
{
    SML_ASSERT(sml_list_empty(&caller->order));
    sml_caller_drop_acks(caller);
    caller->up = caller->listed = false;
    caller->next = 1;
    caller->durable_hi = 0;
    caller->unreleased = 0;
    caller->bytes_out = 0;
    caller->epoch++;
}

/* Back to the queue's head, as if never sent: only for a caller that said rerun_ok, or with a key.
 */
static void requeue(struct sml_caller *caller, struct sml_call *call)
{
    if (call->origin.xid == 0)
        call->origin = (struct sml_origin_call){ caller->session, call->xid };
    sml_table_remove(&caller->by_xid, call->xid);
    caller->bytes_out -= call->body_bytes;
    sml_list_remove(&call->link);
    sml_list_remove(&call->order);
    sml_release(caller->mem, call->reply);
    call->reply = NULL;
    call->xid = 0;
    call->rerun |= call->phase != SML_CALL_BUSY || call->doubtful;
    call->body_sent = call->reply_held = call->reply_bytes = 0;
    call->resent = false;
    if (call->stream)
        sml_list_remove(&call->stream->send);
    call->phase = SML_CALL_QUEUED;
    sml_list_push_front(&caller->queued, &call->link);
    caller->pending++;
    sml_caller_set_timer(caller, call, call->deadline);
}

bool sml_caller_needs_store(const struct sml_caller *caller)
{
    const struct sml_list *queued = &caller->queued;

    for (const struct sml_list *node = queued->next; node != queued; node = node->next)
        if (needs_store(SML_CONTAINER(node, struct sml_call, link)))
            return true;
    return false;
}

void sml_caller_fail_keyed(struct sml_caller *caller)
{
    struct sml_list *node, *next;

    caller->store_epoch++;
    for (node = caller->queued.next; node != &caller->queued; node = next) {
        struct sml_call *call = SML_CONTAINER(node, struct sml_call, link);

        next = node->next;
        if (needs_store(call))
            sml_caller_end_call(caller, call, SEMEL_UNKNOWN, SEMEL_SESSION_LOST);
    }
}

/* With its stream from the beginning, or not at all. */
static bool may_resubmit(struct sml_caller *caller, struct sml_call *call, uint64_t now)
{
    return ((call->flags & SML_CALL_RERUN_OK) ||
            (call->key_bytes > 0 && !SML_BUG(KEYED_ABANDONED))) &&
           !call->cancel_wanted && call->deadline > now &&
           (call->stream == NULL || sml_call_restart_stream(caller, call));
}

void sml_caller_end_session(struct sml_caller *caller, enum semel_status why, bool lost,
                            bool keep_queued, uint64_t now)
{
    struct sml_list *node;

    caller->up = caller->listed = false;
    sml_caller_drop_acks(caller);
    /* From the newest to the oldest, so that what goes back to the queue's head keeps its order. */
    while (!sml_list_empty(&caller->order)) {
        struct sml_call *call = SML_CONTAINER(caller->order.prev, struct sml_call, order);

        if (lost && may_resubmit(caller, call, now))
            requeue(caller, call);
        else
            end_unanswered(caller, call, why);
    }
    while (!keep_queued && (node = caller->queued.next) != &caller->queued)
        sml_caller_end_call(caller, SML_CONTAINER(node, struct sml_call, link), SEMEL_NOT_EXECUTED,
                            why);
    sml_caller_begin_session(caller);
}
