/* SPDX-License-Identifier: MIT */
/* deferred_cancel.c - cancelling, and cancelling when a time has passed.
 *
 * A timeout is a timer and a step. The timer cancels; the step, when the result comes by, takes
 * the timer away, and makes CANCELLED a DEADLINE if it was this timer that cancelled. So a timeout
 * covers what was added before it and nothing after it, and several may be nested. */
#include "async/deferred.h"
#include "base/check.h"
#include "base/time.h"

#define TIMEOUT_MS_MAX INT32_MAX

bool sml_deferred_cancel_here(struct semel_deferred *deferred)
{
    uint32_t seen = SML_CLAIM_OPEN;
    bool later = false;

    deferred->asked = true;
    while (deferred->source) {
        deferred = deferred->source;
        deferred->asked = true;
    }
    if (deferred->cancelled ||
        atomic_load_explicit(&deferred->claim, memory_order_acquire) != SML_CLAIM_OPEN)
        return false;
    deferred->cancelled = true;
    sml_deferred_hold(deferred);
    if (deferred->canceller)
        later = deferred->canceller(deferred, deferred->user);
    /* Chained meanwhile counts as later: there is somebody who will fire it. */
    if (!later &&
        atomic_compare_exchange_strong_explicit(
            &deferred->claim, &seen, deferred->canceller ? SML_CLAIM_FIRED : SML_CLAIM_SWALLOW,
            memory_order_acq_rel, memory_order_acquire)) {
        sml_fired_fail(&deferred->fired, SEMEL_CANCELLED, 0, NULL);
        sml_deferred_arrive(deferred);
    }
    sml_deferred_release(deferred);
    return true;
}

void semel_deferred_cancel(struct semel_deferred *deferred)
{
    if (!deferred)
        return;
    if (sml_executor_is_here(deferred->executor))
        (void)sml_deferred_cancel_here(deferred);
    else
        sml_deferred_post(deferred, SML_POSTED_CANCEL);
}

struct timeout {
    struct sml_step step;
    struct sml_moment moment;
    struct semel_deferred *deferred;
    bool armed;
    bool cancelled_it;
};

static void free_timeout(struct timeout *timeout)
{
    struct sml_executor *executor = timeout->deferred->executor;

    if (timeout->armed)
        executor->ops->disarm(executor, &timeout->moment);
    sml_release(executor->mem, timeout);
}

void sml_timeout_discard(struct sml_step *step)
{
    free_timeout(SML_CONTAINER(step, struct timeout, step));
}

static struct semel_deferred *result_is_here(struct semel_fired *fired, void *user)
{
    struct timeout *timeout = user;
    const bool late = timeout->cancelled_it && fired->status == SEMEL_CANCELLED;

    timeout->deferred->queued--;
    free_timeout(timeout);
    if (late) { /* a value beside it stays: it may tell whether a call happened */
        void *value = fired->value;
        void (*drop)(void *) = fired->drop;

        sml_fired_fail(fired, SEMEL_DEADLINE, fired->code, NULL);
        fired->value = value;
        fired->drop = drop;
    }
    return NULL;
}

/* The result may come by while it is being cancelled, and `timeout` goes with it: it is touched
 * afterwards only if nothing was cancelled. */
static void time_has_passed(struct sml_moment *moment)
{
    struct timeout *timeout = SML_CONTAINER(moment, struct timeout, moment);

    timeout->armed = false;
    timeout->cancelled_it = true;
    if (!sml_deferred_cancel_here(timeout->deferred))
        timeout->cancelled_it = false;
}

enum semel_status semel_deferred_timeout(struct semel_deferred *deferred, int64_t timeout_ms)
{
    struct sml_executor *executor;
    struct timeout *timeout;

    if (!deferred || timeout_ms < 0 || timeout_ms > TIMEOUT_MS_MAX)
        return SEMEL_INVALID;
    executor = deferred->executor;
    if (!sml_executor_has_loop(executor))
        return SEMEL_INVALID;
    if (!sml_executor_is_here(executor))
        return SEMEL_DENIED;
    if (semel_deferred_result(deferred))
        return SEMEL_OK;
    if (deferred->queued == SML_STEPS_MAX)
        return SEMEL_LIMIT;
    timeout = sml_alloc(executor->mem, sizeof *timeout);
    if (!timeout)
        return SEMEL_NO_MEMORY;
    timeout->deferred = deferred;
    timeout->cancelled_it = false;
    timeout->armed = true;
    sml_moment_init(&timeout->moment, time_has_passed);
    executor->ops->arm(executor, &timeout->moment,
                       sml_time_add(executor->ops->now(executor), (uint64_t)timeout_ms * SML_MS));
    timeout->step.kind = SML_STEP_TIMEOUT;
    deferred->queued++;
    sml_deferred_add(deferred, &timeout->step, result_is_here, result_is_here, timeout);
    return SEMEL_OK;
}
