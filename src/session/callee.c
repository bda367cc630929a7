/* SPDX-License-Identifier: MIT */
/* callee.c - a call's life at the answering end. Frames are in callee_wire.c.
 *
 * Invariants:
 *  - the table holds at most `window` records; each is on `all`;
 *  - a record leaves the table only when the caller released it (ACK, left out of HELLO) or the
 *    session ends, never to make room: what is not in the table and not above hi can never run;
 *  - every way out of a handler passes sml_callee_finish, so every record that ran has a verdict;
 *  - a record that the shell holds outlives its release (`gone`), and dies when the shell lets go;
 *  - bytes_in counts the request bodies of records without a verdict, bytes_stored the verdicts;
 *  - `all` is in the order of xids; with a store, a record whose change is under way, or that the
 *    store still knows, outlives its release too (callee_store.c);
 *  - the shell holds at most twice `window` records, released ones included, so that a caller that
 *    gives its calls up cannot pile up handlers. */
#include "session/callee.h"

#include <string.h>

#include "base/bare.h"
#include "base/bug.h"
#include "base/check.h"
#include "session/callee_internal.h"

/* A body up to this size shares the record's memory. */
#define INLINE_BODY_BYTES 2048

void sml_callee_init(struct sml_callee *callee, const struct sml_mem *mem,
                     const struct sml_callee_limits *limits)
{
    memset(callee, 0, sizeof *callee);
    callee->mem = mem;
    callee->limits = *limits;
    callee->reply_body_bytes = UINT64_MAX;
    /* Three windows: while a resume is worked through, what it lists stands beside what it
     * releases, and what was restored may hold records that were released but not forgotten. */
    sml_table_init(&callee->table, mem, 3 * limits->window + SML_RECORDS_LATE);
    sml_list_init(&callee->all);
    sml_list_init(&callee->ready);
    sml_list_init(&callee->to_send);
    sml_list_init(&callee->busy);
    sml_list_init(&callee->streams);
    sml_list_init(&callee->events);
    sml_list_init(&callee->cancels);
    sml_list_init(&callee->to_record);
    sml_list_init(&callee->dropped);
    sml_list_init(&callee->receipts);
    sml_heap_init(&callee->timers);
}

void sml_callee_clear(struct sml_callee *callee)
{
    callee->ending = true;
    while (!sml_list_empty(&callee->all))
        sml_callee_release(callee, SML_CONTAINER(callee->all.next, struct sml_incoming, all));
    sml_table_fini(&callee->table);
}

void sml_callee_forsake(struct sml_callee *callee)
{
    struct sml_list *node;

    callee->durable = false;
    callee->forsaken = true;
    sml_callee_clear(callee);
    while ((node = sml_list_pop_front(&callee->to_record)) != NULL)
        sml_callee_free_record(callee, sml_incoming_of(node));
    while ((node = sml_list_pop_front(&callee->dropped)) != NULL)
        sml_callee_free_record(callee, SML_CONTAINER(node, struct sml_incoming, all));
    callee->dropped_count = 0;
}

void sml_callee_set_timer(struct sml_callee *callee, struct sml_incoming *in, uint64_t key)
{
    sml_heap_remove(&callee->timers, &in->timer);
    if (key != SML_NEVER)
        sml_heap_insert(&callee->timers, &in->timer, key);
}

/* --- records ---------------------------------------------------------------------------- */

static void drop_stream(struct sml_callee *callee, struct sml_incoming *in)
{
    struct sml_stream *stream = in->stream;

    if (stream == NULL)
        return;
    sml_list_remove(&stream->send);
    sml_list_remove(&stream->event);
    sml_stream_narrow(stream, &callee->windows);
    sml_stream_clear(stream, callee->mem);
    sml_release(callee->mem, stream);
    in->stream = NULL;
}

void sml_callee_cut_stream(struct sml_callee *callee, struct sml_incoming *in)
{
    sml_outflow_cut(&in->stream->out, callee->mem);
    sml_callee_stream_due(callee, in);
}

static bool place_stream(struct sml_callee *callee, struct sml_incoming *in)
{
    if (!(in->flags & SML_CALL_STREAMS))
        return true;
    in->stream = sml_alloc(callee->mem, sizeof *in->stream);
    if (in->stream == NULL)
        return false;
    sml_stream_init(in->stream, (in->flags & SML_CALL_TAKES) != 0,
                    (in->flags & SML_CALL_SENDS) != 0);
    in->stream->call = in;
    sml_stream_widen(in->stream, &callee->windows);
    return true;
}

void sml_callee_free_record(struct sml_callee *callee, struct sml_incoming *in)
{
    sml_callee_drop_body(callee, in);
    drop_stream(callee, in);
    sml_release(callee->mem, in->reply);
    sml_release(callee->mem, in);
}

static char *put_text(char *at, struct semel_bytes text)
{
    if (text.size > 0)
        memcpy(at, text.data, text.size);
    at[text.size] = '\0';
    return at + text.size + 1;
}

/* Method, content type, key and a small body live behind the record. */
static bool place_contents(struct sml_callee *callee, struct sml_incoming *in,
                           const struct sml_call_frame *call)
{
    char *at = (char *)(in + 1);

    in->method = at;
    at = put_text(at, call->method);
    in->content_type = at;
    at = put_text(at, call->content_type);
    in->key = at;
    at = put_text(at, call->key);
    in->method_bytes = (uint8_t)call->method.size;
    in->content_type_bytes = (uint8_t)call->content_type.size;
    in->key_bytes = (uint8_t)call->key.size;
    in->key_age_ms = call->key_age_ms;
    in->flags = call->flags;
    in->origin = call->origin;
    in->body_bytes = call->body_bytes;
    in->body_inline = call->body_bytes <= INLINE_BODY_BYTES;
    in->body = in->body_inline ? (uint8_t *)at : sml_alloc(callee->mem, call->body_bytes);
    if (in->body == NULL)
        return false;
    in->body_counted = true;
    callee->bytes_in += in->body_bytes;
    return true;
}

struct sml_incoming *sml_incoming_create(struct sml_callee *callee, uint64_t xid,
                                         struct sml_fingerprint fingerprint,
                                         const struct sml_call_frame *call)
{
    size_t bytes = sizeof(struct sml_incoming);
    struct sml_incoming *in;

    if (call)
        bytes += call->method.size + call->content_type.size + call->key.size + 3 +
                 (call->body_bytes <= INLINE_BODY_BYTES ? (size_t)call->body_bytes : 0);
    in = sml_alloc(callee->mem, bytes);
    if (in == NULL)
        return NULL;
    memset(in, 0, sizeof *in);
    in->xid = xid;
    in->fingerprint = fingerprint;
    in->phase = call ? SML_IN_RECEIVING : SML_IN_EXPECTED;
    in->run_until = in->deadline = SML_NEVER;
    in->method = in->content_type = in->key = "";
    sml_list_init(&in->link);
    sml_list_init(&in->all);
    sml_list_init(&in->cancel_link);
    sml_heap_node_init(&in->timer);
    if (call && (!place_contents(callee, in, call) || !place_stream(callee, in))) {
        sml_callee_free_record(callee, in);
        return NULL;
    }
    return in;
}

bool sml_callee_insert(struct sml_callee *callee, struct sml_incoming *in)
{
    struct sml_list *after = callee->all.prev;

    if (SML_IS_BARE)
        return true;
    if (!sml_table_insert(&callee->table, in->xid, in) && !SML_BUG(NO_MEMORY_RUNS)) {
        sml_callee_free_record(callee, in);
        return false;
    }
    /* New calls come last; only calls sent again, or restored, have to look for their place. */
    while (after != &callee->all && SML_CONTAINER(after, struct sml_incoming, all)->xid > in->xid)
        after = after->prev;
    sml_list_push_front(after, &in->all);
    return true;
}

void sml_callee_drop_body(struct sml_callee *callee, struct sml_incoming *in)
{
    if (in->body_counted)
        callee->bytes_in -= in->body_bytes;
    if (in->held) {
        if (in->body_counted)
            callee->bytes_kept += in->body_bytes;
        in->body_kept |= in->body_counted;
        in->body_counted = false;
        return;
    }
    if (in->body_kept)
        callee->bytes_kept -= in->body_bytes;
    in->body_counted = in->body_kept = false;
    if (!in->body_inline)
        sml_release(callee->mem, in->body);
    in->body = NULL;
}

void sml_callee_bury(struct sml_callee *callee, struct sml_incoming *in)
{
    sml_list_remove(&in->cancel_link);
    if (!callee->durable || in->row == 0) {
        sml_callee_free_record(callee, in);
        return;
    }
    /* Its verdict was told, or is nobody's: what waits to be forgotten is the number alone. */
    sml_callee_drop_body(callee, in);
    drop_stream(callee, in);
    sml_release(callee->mem, in->reply);
    in->reply = NULL;
    memset(&in->verdict, 0, sizeof in->verdict);
    sml_list_push_back(&callee->dropped, &in->all);
    callee->dropped_count++;
}

/* --- receipts ---------------------------------------------------------------------------- */

void sml_callee_ask_receipt(struct sml_incoming *in, struct sml_receipt *receipt)
{
    SML_ASSERT(in->held && in->receipt == NULL);
    sml_list_init(&receipt->link);
    in->receipt = receipt;
}

struct sml_receipt *sml_callee_next_receipt(struct sml_callee *callee)
{
    struct sml_list *node = sml_list_pop_front(&callee->receipts);

    return node ? SML_CONTAINER(node, struct sml_receipt, link) : NULL;
}

static void sign(struct sml_callee *callee, struct sml_incoming *in, bool accepted)
{
    if (in->receipt == NULL)
        return;
    in->receipt->accepted = accepted;
    sml_list_push_back(&callee->receipts, &in->receipt->link);
    in->receipt = NULL;
}

/* The record is being released: has its verdict arrived, or will it? */
static bool is_accepted(const struct sml_callee *callee, const struct sml_incoming *in)
{
    if (callee->forsaken || in->key_bytes > 0)
        return true;
    return in->phase == SML_IN_DONE && in->reply_told && !callee->ending;
}

void sml_callee_release(struct sml_callee *callee, struct sml_incoming *in)
{
    /* A start has the shell waiting for it; and whoever comes with the key will ask for the
     * verdict. */
    bool owed = !in->in_batch && (in->phase == SML_IN_STARTING ||
                                  (in->phase == SML_IN_STORING && in->key_bytes > 0));

    sign(callee, in, is_accepted(callee, in));
    sml_table_remove(&callee->table, in->xid);
    sml_list_remove(&in->all);
    sml_heap_remove(&callee->timers, &in->timer);
    if (!owed)
        sml_list_remove(&in->link);
    if (in->phase == SML_IN_DONE || in->phase == SML_IN_STORING)
        callee->bytes_stored -= sml_verdict_bytes(&in->verdict);
    if (!in->held && !in->in_batch && !owed) {
        sml_callee_bury(callee, in);
        return;
    }
    if (in->stream) {
        sml_list_remove(&in->stream->send);
        sml_callee_stream_event(callee, in);
    }
    if (in->held && (in->key_bytes == 0 || SML_BUG(KEYED_CANCELLED)))
        sml_callee_mark_cancelled(callee, in);
    sml_callee_drop_body(callee, in);
    atomic_store_explicit(&in->gone, true, memory_order_relaxed);
}

void sml_callee_mark_cancelled(struct sml_callee *callee, struct sml_incoming *in)
{
    if (atomic_load_explicit(&in->cancelled, memory_order_relaxed))
        return;
    atomic_store_explicit(&in->cancelled, true, memory_order_relaxed);
    if (in->held)
        sml_list_push_back(&callee->cancels, &in->cancel_link);
}

bool sml_callee_let_go(struct sml_callee *callee, struct sml_incoming *in)
{
    SML_ASSERT(in->held && callee->held > 0);
    in->held = false;
    callee->held--;
    sml_list_remove(&in->cancel_link);
    if (in->stream)
        sml_list_remove(&in->stream->event);
    if (sml_incoming_is_gone(in)) {
        if (!in->in_batch && !sml_list_linked(&in->link))
            sml_callee_bury(callee, in);
        return false;
    }
    if (in->phase == SML_IN_DONE || in->phase == SML_IN_STORING)
        sml_callee_drop_body(callee, in);
    return true;
}

/* --- verdicts --------------------------------------------------------------------------- */

static void count_verdict(struct sml_callee *callee, enum semel_outcome outcome)
{
    uint64_t *const by_outcome[] = {
        [SEMEL_VALUE] = &callee->counters.values,
        [SEMEL_FAILURE] = &callee->counters.failures,
        [SEMEL_NOT_EXECUTED] = &callee->counters.not_executed,
        [SEMEL_UNKNOWN] = &callee->counters.unknown,
    };

    ++*by_outcome[outcome];
}

/* What an earlier server may have begun is not proven not to have happened. */
static void doubt(struct sml_incoming *in)
{
    if ((!in->begun || SML_BUG(BEGUN_LOST)) && (!in->in_doubt || SML_BUG(DOUBT_LOST)))
        return;
    in->verdict.outcome = SEMEL_UNKNOWN;
    in->verdict.status = SEMEL_SERVER_DIED;
    in->proven = false;
}

void sml_callee_keep_verdict(struct sml_callee *callee, struct sml_incoming *in,
                             const struct sml_verdict *verdict, uint8_t *reply)
{
    SML_ASSERT(in->phase != SML_IN_DONE && in->phase != SML_IN_STORING);
    in->verdict = *verdict;
    if (verdict->outcome == SEMEL_NOT_EXECUTED)
        doubt(in);
    in->reply = reply;
    in->reply_sent = 0;
    in->reply_begun = false;
    if (in->stream && in->stream->sends) {
        sml_outflow_end(&in->stream->out);
        if (!sml_incoming_is_gone(in))
            sml_callee_stream_due(callee, in);
    }
    sml_heap_remove(&callee->timers, &in->timer);
    sml_list_remove(&in->link);
    if (!sml_incoming_is_gone(in))
        callee->bytes_stored += sml_verdict_bytes(verdict);
}

void sml_callee_send_verdict(struct sml_callee *callee, struct sml_incoming *in)
{
    /* Whoever reads no more still wants to know what came of it. */
    if (in->unread && sml_incoming_flows(in) && !sml_outflow_is_ready(&in->stream->out))
        sml_callee_cut_stream(callee, in);
    in->reply_waits = sml_incoming_flows(in);
    if (!in->reply_waits)
        sml_list_push_back(&callee->to_send, &in->link);
}

void sml_callee_tell_verdict(struct sml_callee *callee, struct sml_incoming *in)
{
    struct sml_incoming *oldest = SML_CONTAINER(callee->all.next, struct sml_incoming, all);

    count_verdict(callee, in->verdict.outcome);
    in->phase = SML_IN_DONE;
    sml_callee_send_verdict(callee, in);
    if (SML_BUG(EVICTS_REPLY) && sml_callee_is_stalled(callee) && oldest->phase == SML_IN_DONE)
        sml_callee_release(callee, oldest);
}

void sml_callee_settle(struct sml_callee *callee, struct sml_incoming *in,
                       const struct sml_verdict *verdict, uint8_t *reply)
{
    sml_callee_keep_verdict(callee, in, verdict, reply);
    if (callee->durable && in->row != 0 && !SML_BUG(REPLY_BEFORE_COMMIT) &&
        !(SML_BUG(FAILURE_UNSTORED) && verdict->outcome == SEMEL_FAILURE)) {
        in->phase = SML_IN_STORING;
        sml_list_push_back(&callee->to_record, &in->link);
    } else {
        sml_callee_tell_verdict(callee, in);
    }
    sml_callee_drop_body(callee, in);
}

void sml_callee_verdict(struct sml_callee *callee, struct sml_incoming *in,
                        enum semel_outcome outcome, enum semel_status status)
{
    const char *text = semel_status_text(status);
    struct sml_verdict verdict = { .outcome = outcome,
                                   .status = status,
                                   .text = { text, strlen(text) } };

    sml_callee_settle(callee, in, &verdict, NULL);
}

struct sml_incoming *sml_callee_take(struct sml_callee *callee)
{
    struct sml_list *node;

    if (sml_callee_is_stalled(callee))
        return NULL;
    while ((node = sml_list_pop_front(&callee->ready)) != NULL) {
        struct sml_incoming *in = sml_incoming_of(node);
        bool full = callee->held / 2 >= callee->limits.window ||
                    callee->bytes_kept > callee->limits.session_bytes;

        in->phase = SML_IN_TAKEN;
        in->held = true;
        callee->held++;
        if (!full)
            return in;
        if (in->flags & SML_CALL_REFUSE_WHEN_FULL)
            callee->counters.overloaded++;
        else
            callee->counters.busy++;
        sml_callee_refuse(callee, in, SEMEL_BUSY_MS);
    }
    return NULL;
}

bool sml_callee_still_wanted(struct sml_callee *callee, struct sml_incoming *in, uint64_t now)
{
    bool waits = in->phase == SML_IN_TAKEN || in->phase == SML_IN_STARTED;
    enum semel_status why = in->doomed;

    SML_ASSERT(in->held);
    if (in->deadline <= now && !SML_BUG(EXPIRED_RUNS))
        why = SEMEL_EXPIRED;
    if (!sml_incoming_is_gone(in) && waits && why != SEMEL_OK) {
        sml_callee_end_unstarted(callee, in, why);
        waits = false;
    }
    if (!sml_incoming_is_gone(in) && (waits || SML_BUG(CANCELLED_RUNS)))
        return true;
    sml_callee_let_go(callee, in);
    return false;
}

bool sml_callee_begin(struct sml_callee *callee, struct sml_incoming *in, uint64_t max_run,
                      uint64_t now)
{
    if (!sml_callee_still_wanted(callee, in, now))
        return false;
    in->phase = SML_IN_RUNNING;
    if (max_run > 0) {
        in->run_until = sml_time_add(now, max_run);
        sml_callee_set_timer(callee, in, sml_time_min(in->deadline, in->run_until));
    }
    return true;
}

void sml_callee_refuse(struct sml_callee *callee, struct sml_incoming *in, uint32_t delay_ms)
{
    bool waits = in->phase == SML_IN_TAKEN || in->phase == SML_IN_STARTING;

    if (!sml_callee_let_go(callee, in) || !waits)
        return;
    if (in->doomed != SEMEL_OK) {
        in->phase = SML_IN_TAKEN;
        sml_callee_end_unstarted(callee, in, in->doomed);
        return;
    }
    if (in->flags & SML_CALL_REFUSE_WHEN_FULL) {
        sml_callee_verdict(callee, in, SEMEL_NOT_EXECUTED, SEMEL_OVERLOADED);
        return;
    }
    in->phase = SML_IN_REFUSED;
    in->busy_delay_ms = delay_ms;
    sml_heap_remove(&callee->timers, &in->timer);
    sml_callee_drop_body(callee, in);
    drop_stream(callee, in);
    sml_list_push_back(&callee->busy, &in->link);
}

void sml_callee_reject(struct sml_callee *callee, struct sml_incoming *in, enum semel_status why,
                       const char *text)
{
    size_t bytes = strlen(text);
    struct sml_verdict verdict = { .outcome = SEMEL_NOT_EXECUTED, .status = why };
    uint8_t *reply;

    if (!sml_callee_let_go(callee, in) || in->phase != SML_IN_TAKEN)
        return;
    if (bytes > SEMEL_TEXT_BYTES)
        bytes = SEMEL_TEXT_BYTES;
    reply = sml_alloc(callee->mem, bytes + 1);
    if (reply) {
        memcpy(reply, text, bytes);
        verdict.text = semel_bytes(reply, bytes);
    }
    sml_callee_settle(callee, in, &verdict, reply);
}

uint8_t *sml_callee_reply_alloc(struct sml_callee *callee, size_t bytes)
{
    return sml_alloc(callee->mem, bytes > 0 ? bytes : 1);
}

bool sml_callee_finish(struct sml_callee *callee, struct sml_incoming *in,
                       const struct sml_verdict *verdict, uint8_t *reply)
{
    bool keyed = in->phase == SML_IN_RUNNING && in->key_bytes > 0 && in->row != 0 &&
                 !SML_BUG(KEYED_DISCARDED);

    /* The verdict of a keyed call outlives its session. */
    if (keyed && sml_incoming_is_gone(in)) {
        in->held = false;
        callee->held--;
        sml_list_remove(&in->cancel_link);
        sign(callee, in, true);
        sml_callee_settle(callee, in, verdict, reply);
        return true;
    }
    if (sml_incoming_is_gone(in) || in->phase != SML_IN_RUNNING)
        sign(callee, in, false);
    if (!sml_callee_let_go(callee, in) || in->phase != SML_IN_RUNNING) {
        sml_release(callee->mem, reply);
        return false;
    }
    sml_callee_settle(callee, in, verdict, reply);
    return true;
}

/* --- streams ---------------------------------------------------------------------------- */

bool sml_callee_send_part(struct sml_callee *callee, struct sml_incoming *in, struct sml_part *part)
{
    struct sml_stream *stream = in->stream;

    if (sml_incoming_is_gone(in) || in->phase != SML_IN_RUNNING || stream == NULL ||
        !stream->sends) {
        sml_part_release(callee->mem, part);
        return false;
    }
    if (part->kind == SML_PART_PROGRESS)
        sml_outflow_set_progress(&stream->out, callee->mem, part);
    else
        sml_outflow_add(&stream->out, part);
    sml_callee_stream_due(callee, in);
    return true;
}

void sml_callee_took_parts(struct sml_callee *callee, struct sml_incoming *in)
{
    if (!sml_incoming_is_gone(in) && in->phase == SML_IN_RUNNING)
        sml_callee_stream_due(callee, in);
}

struct sml_incoming *sml_callee_next_event(struct sml_callee *callee)
{
    struct sml_list *node = sml_list_pop_front(&callee->events);

    return node ? SML_CONTAINER(node, struct sml_stream, event)->call : NULL;
}

/* --- cancellation, time, the end -------------------------------------------------------- */

struct sml_incoming *sml_callee_next_cancelled(struct sml_callee *callee)
{
    struct sml_list *node = sml_list_pop_front(&callee->cancels);

    return node ? SML_CONTAINER(node, struct sml_incoming, cancel_link) : NULL;
}

void sml_callee_cancel_again(struct sml_callee *callee, struct sml_incoming *in)
{
    if (in->held && !sml_list_linked(&in->cancel_link))
        sml_list_push_back(&callee->cancels, &in->cancel_link);
}

void sml_callee_stop(struct sml_callee *callee, enum semel_status why)
{
    struct sml_list *node, *next;

    for (node = callee->all.next; node != &callee->all; node = next) {
        struct sml_incoming *in = SML_CONTAINER(node, struct sml_incoming, all);

        next = node->next;
        if (in->phase == SML_IN_RUNNING)
            sml_callee_mark_cancelled(callee, in);
        else if (in->phase != SML_IN_DONE && !callee->durable)
            sml_callee_verdict(callee, in, SEMEL_NOT_EXECUTED, why);
    }
}

void sml_callee_end_unstarted(struct sml_callee *callee, struct sml_incoming *in,
                              enum semel_status why)
{
    sml_heap_remove(&callee->timers, &in->timer);
    /* A start may be stored, and has the shell waiting for it. */
    if (in->phase == SML_IN_STARTING) {
        in->doomed = why;
        return;
    }
    in->proven = (in->phase == SML_IN_STARTED || SML_BUG(PROVEN_UNSEEN)) && in->key_bytes > 0;
    sml_callee_verdict(callee, in, SEMEL_NOT_EXECUTED, why);
}

static void timer_fired(struct sml_callee *callee, struct sml_incoming *in, uint64_t now)
{
    if (in->phase != SML_IN_RUNNING) {
        sml_callee_end_unstarted(callee, in, SEMEL_EXPIRED);
        return;
    }
    sml_callee_mark_cancelled(callee, in);
    if (in->run_until <= now)
        sml_callee_verdict(callee, in, SEMEL_UNKNOWN, SEMEL_MAX_RUN);
    else
        sml_callee_set_timer(callee, in, in->run_until);
}

void sml_callee_tick(struct sml_callee *callee, uint64_t now)
{
    struct sml_heap_node *node;

    while ((node = sml_heap_min(&callee->timers)) != NULL && node->key <= now)
        timer_fired(callee, SML_CONTAINER(node, struct sml_incoming, timer), now);
}

uint64_t sml_callee_timeout(const struct sml_callee *callee)
{
    return sml_heap_min_key(&callee->timers);
}

bool sml_callee_empty(const struct sml_callee *callee)
{
    return callee->table.count == 0 && callee->held == 0;
}

bool sml_callee_may_leave(const struct sml_callee *callee, bool connected)
{
    const struct sml_list *all = &callee->all;
    bool stalled = !connected && sml_callee_is_stalled(callee);
    uint32_t held = callee->held;

    for (const struct sml_list *node = all->next; node != all; node = node->next) {
        const struct sml_incoming *in = SML_CONTAINER(node, struct sml_incoming, all);
        enum sml_incoming_phase phase = in->phase;

        if (phase == SML_IN_EXPECTED || phase == SML_IN_REFUSED)
            continue;
        if (stalled &&
            (phase == SML_IN_READY || phase == SML_IN_TAKEN || phase == SML_IN_STARTED)) {
            held -= in->held;
            continue;
        }
        if (connected || (phase != SML_IN_DONE && phase != SML_IN_RECEIVING))
            return false;
    }
    return held == 0;
}
