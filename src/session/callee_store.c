/* SPDX-License-Identifier: MIT */
/* callee_store.c - what a store is told of a session's calls, and what it says back.
 *
 * The store is asynchronous: changes are pulled out in batches, each batch is one transaction, and
 * its answer comes later. Meanwhile the records of its calls are held (`in_batch`), so that what
 * the store reads neither moves nor dies, whatever the connection brings.
 *
 * The rule that makes a restart safe: a record is forgotten only in a transaction that also stores
 * the session's own, with `base` raised to it. So of any call number, after a crash at any moment,
 * one of these is true:
 *   it has a record                           its state is known
 *   it is above base, or a straggler          its start was never stored: it had no effect
 *   it is up to base, and nothing of these    it was released: it will never run again
 * Stragglers are the open calls up to base that have no record; they are stored with base. */
#include "session/record.h"

#include "base/bug.h"
#include "base/check.h"
#include "base/le.h"
#include "session/callee_internal.h"

/* --- starts and verdicts ---------------------------------------------------------------- */

bool sml_callee_start(struct sml_callee *callee, struct sml_incoming *in, uint64_t now)
{
    SML_ASSERT(callee->durable);
    if (!sml_callee_still_wanted(callee, in, now))
        return false;
    in->phase = SML_IN_STARTING;
    sml_list_push_back(&callee->to_record, &in->link);
    return true;
}

void sml_callee_postpone_to_restart(struct sml_callee *callee, struct sml_incoming *in)
{
    if (!sml_callee_let_go(callee, in) || in->phase != SML_IN_STARTED || in->begun ||
        SML_BUG(PUT_BACK_UNSTORED))
        return;
    in->phase = SML_IN_UNSTARTING;
    sml_heap_remove(&callee->timers, &in->timer);
    sml_list_push_back(&callee->to_record, &in->link);
}

static void store_verdict(struct sml_callee *callee, struct sml_incoming *in)
{
    in->phase = SML_IN_STORING;
    sml_list_push_back(&callee->to_record, &in->link);
}

void sml_callee_answer(struct sml_callee *callee, struct sml_incoming *in,
                       const struct sml_verdict *verdict, uint8_t *reply, bool proven)
{
    SML_ASSERT(in->phase == SML_IN_STARTING && in->in_batch);
    in->in_batch = false;
    callee->held--;
    in->answered = !SML_BUG(ANSWERED_OVERWRITES);
    in->proven = proven;
    if (!sml_callee_let_go(callee, in)) {
        sml_release(callee->mem, reply);
        return;
    }
    sml_callee_keep_verdict(callee, in, verdict, reply);
    if (in->stream) /* its parts went to whoever used the key first */
        sml_callee_cut_stream(callee, in);
    store_verdict(callee, in);
    sml_callee_drop_body(callee, in);
}

void sml_callee_postpone(struct sml_callee *callee, struct sml_incoming *in, uint32_t delay_ms)
{
    uint32_t longer =
        in->busy_delay_ms < SML_POSTPONED_MS / 2 ? in->busy_delay_ms * 2 : SML_POSTPONED_MS;

    SML_ASSERT(in->phase == SML_IN_STARTING && in->in_batch);
    in->in_batch = false;
    callee->held--;
    /* Nobody knows how long the other one will take, and to ask costs a transaction. */
    sml_callee_refuse(callee, in, delay_ms > longer ? delay_ms : longer);
}

void sml_callee_decide(struct sml_callee *callee, struct sml_incoming *in,
                       const struct sml_verdict *verdict, uint8_t *reply)
{
    SML_ASSERT(in->phase == SML_IN_RUNNING && in->held && !in->in_batch);
    sml_callee_keep_verdict(callee, in, verdict, reply);
    in->phase = SML_IN_STORING;
    in->held = false; /* the hold is the store's now */
    in->in_batch = true;
    sml_list_remove(&in->cancel_link);
}

static void take_again(struct sml_callee *callee, struct sml_incoming *in)
{
    in->phase = SML_IN_TAKEN;
    if (!sml_incoming_is_gone(in))
        sml_callee_set_timer(callee, in, in->deadline);
}

void sml_callee_retry(struct sml_callee *callee, struct sml_incoming *in)
{
    SML_ASSERT(in->phase == SML_IN_STORING && in->in_batch);
    in->in_batch = false;
    in->held = true;
    if (SML_BUG(LOST_TXN_TOLD) && !sml_incoming_is_gone(in)) {
        sml_callee_tell_verdict(callee, in);
        return;
    }
    if (!sml_incoming_is_gone(in))
        callee->bytes_stored -= sml_verdict_bytes(&in->verdict);
    sml_release(callee->mem, in->reply);
    in->reply = NULL;
    in->answered = in->proven = false;
    memset(&in->verdict, 0, sizeof in->verdict);
    take_again(callee, in);
}

void sml_callee_give_back(struct sml_callee *callee, struct sml_incoming *in)
{
    SML_ASSERT(in->phase == SML_IN_RUNNING && in->held);
    take_again(callee, in);
}

/* --- changes ---------------------------------------------------------------------------- */

bool sml_callee_has_change(const struct sml_callee *callee)
{
    return !sml_list_empty(&callee->to_record) || !sml_list_empty(&callee->dropped);
}

static void raise_base(struct sml_callee *callee, uint64_t xid)
{
    callee->forgetting = true;
    if (xid > callee->base_pending && !SML_BUG(BASE_NOT_RAISED))
        callee->base_pending = xid;
}

static struct sml_incoming *next_to_record(struct sml_callee *callee, struct sml_change *out_change)
{
    struct sml_list *node = sml_list_pop_front(&callee->to_record);
    struct sml_incoming *in;

    if (node == NULL)
        return NULL;
    in = sml_incoming_of(node);
    out_change->kind = in->phase == SML_IN_STARTING     ? SML_CHANGE_START
                       : in->phase == SML_IN_UNSTARTING ? SML_CHANGE_AGAIN
                       : !sml_incoming_is_gone(in)      ? SML_CHANGE_END
                                                        : SML_CHANGE_LEAVE;
    return in;
}

static struct sml_incoming *next_to_forget(struct sml_callee *callee, struct sml_change *out_change)
{
    struct sml_list *node = sml_list_pop_front(&callee->dropped);

    if (node == NULL)
        return NULL;
    callee->dropped_count--;
    out_change->kind = SML_CHANGE_FORGET;
    return SML_CONTAINER(node, struct sml_incoming, all);
}

bool sml_callee_next_change(struct sml_callee *callee, struct sml_change *out_change)
{
    bool too_many = callee->dropped_count >= callee->limits.window;
    struct sml_incoming *in = too_many ? NULL : next_to_record(callee, out_change);

    if (in == NULL)
        in = next_to_forget(callee, out_change);
    if (in == NULL)
        return false;
    if (out_change->kind == SML_CHANGE_LEAVE || out_change->kind == SML_CHANGE_FORGET)
        raise_base(callee, in->xid);
    in->in_batch = true;
    callee->held++;
    out_change->in = in;
    return true;
}

/* Is its record stored in the same transaction? What was decided has one of its own, which may yet
 * fail; a start with a key may find that it need not start, or must wait. */
static bool comes_with_base(const struct sml_incoming *in)
{
    if (in->phase == SML_IN_STARTING)
        return in->in_batch && (in->key_bytes == 0 || SML_BUG(KEYED_START_COMES));
    return in->in_batch && (in->phase != SML_IN_STORING || in->answered);
}

uint32_t sml_callee_stragglers(const struct sml_callee *callee, uint8_t *out, uint32_t room)
{
    const struct sml_list *all = &callee->all;
    uint32_t count = 0;

    for (const struct sml_list *node = all->next; node != all; node = node->next) {
        const struct sml_incoming *in = SML_CONTAINER(node, struct sml_incoming, all);

        if (in->xid > callee->base_pending)
            break;
        if (in->row != 0 || comes_with_base(in) || SML_BUG(STRAGGLERS_DROPPED))
            continue;
        if (count < room)
            sml_store64(out + (size_t)count * 8, in->xid);
        count++;
    }
    return count;
}

void sml_callee_base_recorded(struct sml_callee *callee, bool committed)
{
    if (committed)
        callee->base = callee->base_pending;
    else
        callee->base_pending = callee->base;
    callee->forgetting = false;
    if (callee->base > callee->durable_hi)
        callee->durable_hi = callee->base;
}

/* --- answers ---------------------------------------------------------------------------- */

/* A start that nobody wants any more is not tried again: nothing of it is stored, so it ends
 * without the store, which may go on refusing until long after the call's deadline. */
static bool is_over(const struct sml_change *change)
{
    const struct sml_incoming *in = change->in;

    return change->kind == SML_CHANGE_START && in->row == 0 &&
           (in->doomed != SEMEL_OK || sml_incoming_is_gone(in));
}

/* Returns whether it will be pulled again. */
static bool not_committed(struct sml_callee *callee, const struct sml_change *change)
{
    struct sml_incoming *in = change->in;

    if (is_over(change)) {
        in->phase = SML_IN_TAKEN;
        (void)sml_callee_still_wanted(callee, in, 0);
        return false;
    }
    if (change->kind == SML_CHANGE_FORGET) {
        sml_list_push_front(&callee->dropped, &in->all);
        callee->dropped_count++;
    } else {
        sml_list_push_front(&callee->to_record, &in->link);
    }
    return true;
}

static void started(struct sml_callee *callee, struct sml_incoming *in)
{
    in->phase = SML_IN_STARTED;
    if (in->doomed == SEMEL_OK || sml_incoming_is_gone(in))
        return;
    sml_callee_end_unstarted(callee, in, in->doomed);
    in->doomed = SEMEL_OK;
}

static void ended(struct sml_callee *callee, struct sml_incoming *in)
{
    if (sml_incoming_is_gone(in)) {
        if (!in->held)
            sml_callee_bury(callee, in);
        return;
    }
    sml_callee_drop_body(callee, in);
    sml_callee_tell_verdict(callee, in);
}

bool sml_callee_recorded(struct sml_callee *callee, const struct sml_change *change, uint64_t row,
                         bool committed)
{
    struct sml_incoming *in = change->in;

    SML_ASSERT(in->in_batch && callee->held > 0);
    in->in_batch = false;
    callee->held--;
    if (!committed)
        return not_committed(callee, change);
    in->row = row;
    if (in->xid > callee->durable_hi)
        callee->durable_hi = in->xid;
    switch (change->kind) {
    case SML_CHANGE_START:
        started(callee, in);
        break;
    case SML_CHANGE_AGAIN:
        if (sml_incoming_is_gone(in) && !in->held)
            sml_callee_bury(callee, in);
        break;
    case SML_CHANGE_END:
    case SML_CHANGE_LEAVE:
        ended(callee, in);
        break;
    case SML_CHANGE_FORGET:
        sml_callee_free_record(callee, in);
        break;
    }
    return true;
}

/* --- restoring -------------------------------------------------------------------------- */

static struct sml_incoming *restore_placeholder(struct sml_callee *callee, uint64_t xid)
{
    struct sml_incoming *in =
        sml_incoming_create(callee, xid, (struct sml_fingerprint){ 0, 0 }, NULL);

    if (in == NULL || !sml_callee_insert(callee, in))
        return NULL;
    in->unidentified = in->in_doubt = true;
    return in;
}

bool sml_callee_restore(struct sml_callee *callee, const struct sml_session_record *record)
{
    callee->restored = true;
    callee->base = callee->base_pending = record->base;
    if (record->base > callee->hi)
        callee->hi = callee->durable_hi = SML_BUG(DURABLE_HI_LOST) ? 0 : record->base;
    for (uint32_t i = 0; i < record->straggler_count; i++) {
        uint64_t xid = sml_record_straggler(record, i);

        if (!sml_table_find(&callee->table, xid) && !restore_placeholder(callee, xid))
            return false;
    }
    return true;
}

/* The verdict's bytes in memory of the machine. */
static bool copy_verdict(struct sml_callee *callee, struct sml_incoming *in,
                         const struct sml_verdict *from)
{
    in->reply = sml_callee_reply_alloc(callee, sml_verdict_bytes(from));
    if (in->reply == NULL)
        return false;
    in->verdict = *from;
    sml_verdict_place(&in->verdict, in->reply);
    return true;
}

/* A record without a body: it is not needed, or will be sent again. NULL: no memory. */
static struct sml_incoming *create_restored(struct sml_callee *callee,
                                            const struct sml_call_record *record)
{
    struct sml_incoming *in;
    struct sml_call_frame call = { .flags = record->flags,
                                   .origin = record->origin,
                                   .method = record->method,
                                   .key = record->key };

    in = sml_incoming_create(callee, record->xid, record->fingerprint, &call);
    if (in && record->state == SML_CALL_ENDED && !copy_verdict(callee, in, &record->verdict)) {
        sml_callee_free_record(callee, in);
        return NULL;
    }
    return in;
}

struct sml_incoming *sml_callee_restore_call(struct sml_callee *callee, uint64_t row,
                                             const struct sml_call_record *record,
                                             const char **out_why)
{
    struct sml_incoming *in, *straggler = sml_table_find(&callee->table, record->xid);

    if (straggler && !straggler->unidentified)
        return *out_why = "two records of one call", NULL;
    if (!straggler && callee->table.count >= 2 * callee->limits.window + SML_RECORDS_LATE)
        return *out_why = "more records than the session's window", NULL;
    *out_why = NULL;
    in = create_restored(callee, record);
    if (in && straggler) /* its record came after all, and takes its slot */
        sml_callee_release(callee, straggler);
    if (in == NULL || !sml_callee_insert(callee, in))
        return NULL;
    in->row = row;
    in->crashes = record->crashes;
    in->proven = record->proven;
    if (record->xid > callee->hi)
        callee->hi = callee->durable_hi = SML_BUG(DURABLE_HI_LOST) ? 0 : record->xid;
    switch (SML_BUG(AGAIN_AS_STARTED) && record->state == SML_CALL_AGAIN ? SML_CALL_STARTED
                                                                         : record->state) {
    case SML_CALL_STARTED:
        in->phase = SML_IN_RUNNING;
        in->held = true;
        callee->held++;
        break;
    case SML_CALL_ENDED:
        in->phase = SML_IN_DONE;
        sml_callee_drop_body(callee, in);
        callee->bytes_stored += sml_verdict_bytes(&in->verdict);
        break;
    case SML_CALL_AGAIN:
        in->phase = SML_IN_EXPECTED;
        break;
    }
    return in;
}

void sml_callee_expect_again(struct sml_callee *callee, struct sml_incoming *in)
{
    SML_ASSERT(in->phase == SML_IN_RUNNING && in->held);
    in->phase = SML_IN_EXPECTED;
    in->begun = true;
    if (sml_callee_let_go(callee, in))
        sml_callee_drop_body(callee, in);
}
