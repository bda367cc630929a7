/* SPDX-License-Identifier: MIT */
/* deferred_fire.c - making deferreds, and firing them, from any thread: one wins the claim, and its
 * result arrives at once if it is on the executor's thread, else with the deferred's task. */
#include "async/deferred.h"

/* GONE: the caller's reference is the task's. */
void sml_deferred_post(struct semel_deferred *deferred, enum sml_posted what)
{
    struct sml_executor *executor = deferred->executor;

    if (what != SML_POSTED_GONE)
        (void)sml_deferred_ref(deferred);
    if (atomic_fetch_or_explicit(&deferred->posted, what, memory_order_acq_rel) == 0)
        executor->ops->post(executor, &deferred->task);
    else
        /* A task waits, with a reference of its own, and the caller has one. */
        (void)atomic_fetch_sub_explicit(&deferred->refs, 1, memory_order_acq_rel);
}

void sml_deferred_do_posted(void *user)
{
    struct semel_deferred *deferred = user;
    const uint32_t what = atomic_exchange_explicit(&deferred->posted, 0, memory_order_acq_rel);

    if (what & SML_POSTED_FIRED)
        sml_deferred_arrive(deferred);
    if (what & SML_POSTED_CANCEL)
        (void)sml_deferred_cancel_here(deferred);
    semel_deferred_unref(deferred);
}

enum semel_status sml_deferred_claim(struct semel_deferred *deferred)
{
    uint32_t seen = SML_CLAIM_OPEN;

    if (atomic_compare_exchange_strong_explicit(&deferred->claim, &seen, SML_CLAIM_FIRED,
                                                memory_order_acq_rel, memory_order_acquire))
        return SEMEL_OK;
    if (seen == SML_CLAIM_SWALLOW &&
        atomic_compare_exchange_strong_explicit(&deferred->claim, &seen, SML_CLAIM_FIRED,
                                                memory_order_acq_rel, memory_order_acquire))
        return SEMEL_STOPPED;
    return seen == SML_CLAIM_CHAINED ? SEMEL_INVALID : SEMEL_ALREADY;
}

static void fired(struct semel_deferred *deferred)
{
    if (sml_executor_is_here(deferred->executor))
        sml_deferred_arrive(deferred);
    else
        sml_deferred_post(deferred, SML_POSTED_FIRED);
}

enum semel_status semel_deferred_fire(struct semel_deferred *deferred, void *value,
                                      void (*drop)(void *value))
{
    enum semel_status status = deferred ? sml_deferred_claim(deferred) : SEMEL_INVALID;

    if (status == SEMEL_STOPPED) {
        if (drop && value)
            drop(value);
        return SEMEL_OK;
    }
    if (status != SEMEL_OK)
        return status;
    deferred->fired.value = value;
    deferred->fired.drop = drop;
    fired(deferred);
    return SEMEL_OK;
}

enum semel_status semel_deferred_fail(struct semel_deferred *deferred, enum semel_status status,
                                      int code, const char *text)
{
    enum semel_status claimed =
        deferred && status != SEMEL_OK ? sml_deferred_claim(deferred) : SEMEL_INVALID;

    if (claimed == SEMEL_STOPPED)
        return SEMEL_OK;
    if (claimed != SEMEL_OK)
        return claimed;
    sml_fired_fail(&deferred->fired, status, code, text);
    fired(deferred);
    return SEMEL_OK;
}

/* As sml_deferred_claim; on OK the result is moved in, else `from` is cleared. */
static enum semel_status claim_for(struct semel_deferred *deferred, struct semel_fired *from)
{
    enum semel_status status = sml_deferred_claim(deferred);

    if (status == SEMEL_OK)
        sml_fired_move(&deferred->fired, from);
    else
        semel_fired_clear(from);
    return status;
}

enum semel_status sml_deferred_fire_with(struct semel_deferred *deferred, struct semel_fired *from)
{
    enum semel_status status = claim_for(deferred, from);

    if (status == SEMEL_OK)
        fired(deferred);
    return status == SEMEL_STOPPED ? SEMEL_OK : status;
}

enum semel_status sml_deferred_settle(struct semel_deferred *deferred, struct semel_fired *from)
{
    enum semel_status status = claim_for(deferred, from);

    if (status == SEMEL_OK)
        sml_deferred_arrive(deferred);
    sml_deferred_unref_here(deferred);
    return status == SEMEL_STOPPED ? SEMEL_OK : status;
}

/* --- made --------------------------------------------------------------------------------- */

enum semel_status semel_deferred_create(struct semel_deferred **out, struct semel_loop *loop,
                                        semel_canceller_fn canceller, void *user)
{
    struct semel_deferred *deferred;

    if (!out)
        return SEMEL_INVALID;
    deferred = sml_deferred_new(sml_executor_of(loop), canceller, user, 0);
    if (!deferred)
        return SEMEL_NO_MEMORY;
    *out = deferred;
    return SEMEL_OK;
}

/* It has no steps yet, and nobody else knows it: no task is needed, whatever the thread. */
static struct semel_deferred *new_fired(struct semel_loop *loop)
{
    struct semel_deferred *deferred = sml_deferred_new(sml_executor_of(loop), NULL, NULL, 0);

    if (deferred) {
        atomic_init(&deferred->claim, SML_CLAIM_FIRED);
        deferred->has_result = true;
    }
    return deferred;
}

enum semel_status semel_deferred_value(struct semel_deferred **out, struct semel_loop *loop,
                                       void *value, void (*drop)(void *value))
{
    struct semel_deferred *deferred;

    if (!out)
        return SEMEL_INVALID;
    deferred = new_fired(loop);
    if (!deferred)
        return SEMEL_NO_MEMORY;
    deferred->fired.value = value;
    deferred->fired.drop = drop;
    *out = deferred;
    return SEMEL_OK;
}

enum semel_status semel_deferred_failure(struct semel_deferred **out, struct semel_loop *loop,
                                         enum semel_status status, int code, const char *text)
{
    struct semel_deferred *deferred;

    if (!out || status == SEMEL_OK)
        return SEMEL_INVALID;
    deferred = new_fired(loop);
    if (!deferred)
        return SEMEL_NO_MEMORY;
    sml_fired_fail(&deferred->fired, status, code, text);
    *out = deferred;
    return SEMEL_OK;
}
