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
 *  - the shell holds at most twice `window` records, released ones included, so that a caller that
 *    gives its calls up cannot pile up handlers. */
#include "session/callee.h"

#include <string.h>

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
    /* Twice the window: while a resume is worked through, what it lists stands beside what it
     * releases. */
    sml_table_init(&callee->table, mem, 2 * limits->window);
    sml_list_init(&callee->all);
    sml_list_init(&callee->ready);
    sml_list_init(&callee->to_send);
    sml_list_init(&callee->busy);
    sml_list_init(&callee->cancels);
    sml_heap_init(&callee->timers);
}

void sml_callee_clear(struct sml_callee *callee)
{
    while (!sml_list_empty(&callee->all))
        sml_callee_release(callee, SML_CONTAINER(callee->all.next, struct sml_incoming, all));
    sml_table_fini(&callee->table);
}

void sml_callee_set_timer(struct sml_callee *callee, struct sml_incoming *in, uint64_t key)
{
    sml_heap_remove(&callee->timers, &in->timer);
    if (key != SML_NEVER)
        sml_heap_insert(&callee->timers, &in->timer, key);
}

size_t sml_verdict_bytes(const struct sml_verdict *verdict)
{
    return verdict->body.size + verdict->text.size + verdict->detail.size + verdict->trace.size;
}

/* --- records ---------------------------------------------------------------------------- */

static void free_record(struct sml_callee *callee, struct sml_incoming *in)
{
    sml_callee_drop_body(callee, in);
    sml_release(callee->mem, in->reply);
    sml_release(callee->mem, in);
}

/* Method, content type and a small body live behind the record. */
static bool place_contents(struct sml_callee *callee, struct sml_incoming *in,
                           const struct sml_call_frame *call)
{
    char *at = (char *)(in + 1);

    in->method = memcpy(at, call->method.data, call->method.size);
    at += call->method.size;
    *at++ = '\0';
    in->content_type = at;
    if (call->content_type.size > 0)
        memcpy(at, call->content_type.data, call->content_type.size);
    at += call->content_type.size;
    *at++ = '\0';
    in->method_bytes = (uint8_t)call->method.size;
    in->content_type_bytes = (uint8_t)call->content_type.size;
    in->flags = call->flags;
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
        bytes += call->method.size + call->content_type.size + 2 +
                 (call->body_bytes <= INLINE_BODY_BYTES ? (size_t)call->body_bytes : 0);
    in = sml_alloc(callee->mem, bytes);
    if (in == NULL)
        return NULL;
    memset(in, 0, sizeof *in);
    in->xid = xid;
    in->fingerprint = fingerprint;
    in->phase = call ? SML_IN_RECEIVING : SML_IN_EXPECTED;
    in->run_until = in->deadline = SML_NEVER;
    sml_list_init(&in->link);
    sml_list_init(&in->all);
    sml_list_init(&in->cancel_link);
    sml_heap_node_init(&in->timer);
    if (call && !place_contents(callee, in, call)) {
        sml_release(callee->mem, in);
        return NULL;
    }
    return in;
}

bool sml_callee_insert(struct sml_callee *callee, struct sml_incoming *in)
{
    if (!sml_table_insert(&callee->table, in->xid, in)) {
        free_record(callee, in);
        return false;
    }
    sml_list_push_back(&callee->all, &in->all);
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

void sml_callee_release(struct sml_callee *callee, struct sml_incoming *in)
{
    sml_table_remove(&callee->table, in->xid);
    sml_list_remove(&in->all);
    sml_list_remove(&in->link);
    sml_heap_remove(&callee->timers, &in->timer);
    if (in->phase == SML_IN_DONE)
        callee->bytes_stored -= sml_verdict_bytes(&in->verdict);
    if (!in->held) {
        sml_list_remove(&in->cancel_link);
        free_record(callee, in);
        return;
    }
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

static bool is_gone(const struct sml_incoming *in)
{
    return atomic_load_explicit(&in->gone, memory_order_relaxed);
}

/* The shell's hold ends. Returns false if the record died with it. */
static bool let_go(struct sml_callee *callee, struct sml_incoming *in)
{
    SML_ASSERT(in->held && callee->held > 0);
    in->held = false;
    callee->held--;
    sml_list_remove(&in->cancel_link);
    if (is_gone(in)) {
        free_record(callee, in);
        return false;
    }
    if (in->phase == SML_IN_DONE)
        sml_callee_drop_body(callee, in);
    return true;
}

/* --- verdicts --------------------------------------------------------------------------- */

static void store_verdict(struct sml_callee *callee, struct sml_incoming *in,
                          const struct sml_verdict *verdict, uint8_t *reply)
{
    uint64_t *const by_outcome[] = {
        [SEMEL_VALUE] = &callee->counters.values,
        [SEMEL_FAILURE] = &callee->counters.failures,
        [SEMEL_NOT_EXECUTED] = &callee->counters.not_executed,
        [SEMEL_UNKNOWN] = &callee->counters.unknown,
    };

    SML_ASSERT(in->phase != SML_IN_DONE);
    ++*by_outcome[verdict->outcome];
    in->phase = SML_IN_DONE;
    in->verdict = *verdict;
    in->reply = reply;
    in->reply_sent = 0;
    in->reply_begun = false;
    callee->bytes_stored += sml_verdict_bytes(verdict);
    sml_heap_remove(&callee->timers, &in->timer);
    sml_list_remove(&in->link);
    sml_list_push_back(&callee->to_send, &in->link);
    sml_callee_drop_body(callee, in);
}

void sml_callee_verdict(struct sml_callee *callee, struct sml_incoming *in,
                        enum semel_outcome outcome, enum semel_status status)
{
    const char *text = semel_status_text(status);
    struct sml_verdict verdict = { .outcome = outcome,
                                   .status = status,
                                   .text = { text, strlen(text) } };

    store_verdict(callee, in, &verdict, NULL);
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

bool sml_callee_begin(struct sml_callee *callee, struct sml_incoming *in, uint64_t max_run,
                      uint64_t now)
{
    SML_ASSERT(in->held);
    if (!is_gone(in) && in->phase == SML_IN_TAKEN && in->deadline <= now)
        sml_callee_verdict(callee, in, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED);
    if (is_gone(in) || in->phase != SML_IN_TAKEN) {
        let_go(callee, in);
        return false;
    }
    in->phase = SML_IN_RUNNING;
    if (max_run > 0) {
        in->run_until = sml_time_add(now, max_run);
        sml_callee_set_timer(callee, in, sml_time_min(in->deadline, in->run_until));
    }
    return true;
}

void sml_callee_refuse(struct sml_callee *callee, struct sml_incoming *in, uint32_t delay_ms)
{
    if (!let_go(callee, in) || in->phase != SML_IN_TAKEN)
        return;
    if (in->flags & SML_CALL_REFUSE_WHEN_FULL) {
        sml_callee_verdict(callee, in, SEMEL_NOT_EXECUTED, SEMEL_OVERLOADED);
        return;
    }
    in->phase = SML_IN_REFUSED;
    callee->busy_delay_ms = delay_ms;
    sml_heap_remove(&callee->timers, &in->timer);
    sml_callee_drop_body(callee, in);
    sml_list_push_back(&callee->busy, &in->link);
}

void sml_callee_reject(struct sml_callee *callee, struct sml_incoming *in, enum semel_status why,
                       const char *text)
{
    size_t bytes = strlen(text);
    struct sml_verdict verdict = { .outcome = SEMEL_NOT_EXECUTED, .status = why };
    uint8_t *reply;

    if (!let_go(callee, in) || in->phase != SML_IN_TAKEN)
        return;
    if (bytes > SEMEL_TEXT_BYTES)
        bytes = SEMEL_TEXT_BYTES;
    reply = sml_alloc(callee->mem, bytes + 1);
    if (reply) {
        memcpy(reply, text, bytes);
        verdict.text = semel_bytes(reply, bytes);
    }
    store_verdict(callee, in, &verdict, reply);
}

uint8_t *sml_callee_reply_alloc(struct sml_callee *callee, size_t bytes)
{
    return sml_alloc(callee->mem, bytes > 0 ? bytes : 1);
}

bool sml_callee_finish(struct sml_callee *callee, struct sml_incoming *in,
                       const struct sml_verdict *verdict, uint8_t *reply)
{
    if (!let_go(callee, in) || in->phase != SML_IN_RUNNING) {
        sml_release(callee->mem, reply);
        return false;
    }
    store_verdict(callee, in, verdict, reply);
    return true;
}

/* --- cancellation, time, the end -------------------------------------------------------- */

struct sml_incoming *sml_callee_next_cancelled(struct sml_callee *callee)
{
    struct sml_list *node = sml_list_pop_front(&callee->cancels);

    return node ? SML_CONTAINER(node, struct sml_incoming, cancel_link) : NULL;
}

void sml_callee_stop(struct sml_callee *callee, enum semel_status why)
{
    struct sml_list *node, *next;

    for (node = callee->all.next; node != &callee->all; node = next) {
        struct sml_incoming *in = SML_CONTAINER(node, struct sml_incoming, all);

        next = node->next;
        if (in->phase == SML_IN_RUNNING)
            sml_callee_mark_cancelled(callee, in);
        else if (in->phase != SML_IN_DONE)
            sml_callee_verdict(callee, in, SEMEL_NOT_EXECUTED, why);
    }
}

static void timer_fired(struct sml_callee *callee, struct sml_incoming *in, uint64_t now)
{
    if (in->phase != SML_IN_RUNNING) {
        sml_callee_verdict(callee, in, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED);
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
