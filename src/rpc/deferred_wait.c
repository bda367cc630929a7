/* SPDX-License-Identifier: MIT */
/* deferred_wait.c - a plain thread blocks until a deferred has its result.
 *
 * The waiting thread posts a step to the loop and sleeps on a word. The step takes the result, if
 * the thread is still there: `word` goes from WAITING once, to TAKEN by the step or to LEFT by the
 * thread. Whoever is left with the record frees it: after DONE, the last that the loop says of it,
 * the thread; after LEFT the loop, when it has taken the step out of the deferred again. */
#include <semel/deferred.h>
#include <stdlib.h>

#include "async/deferred.h"
#include "base/time.h"
#include "io/loop_internal.h"
#include "os/clock.h"
#include "os/futex.h"
#include "os/thread.h"
#include "rpc/commit.h"

enum { WAITING, TAKEN, DONE, LEFT };

struct waiter {
    _Atomic(uint32_t) word;
    struct semel_deferred *deferred; /* a reference */
    struct sml_step step;
    struct semel_task add, remove;
    struct semel_fired fired;
};

/* The result is here. If the thread has left, it passes by. */
static struct semel_deferred *take(struct semel_fired *fired, void *user)
{
    struct waiter *waiter = user;
    uint32_t seen = WAITING;

    if (!atomic_compare_exchange_strong_explicit(&waiter->word, &seen, TAKEN, memory_order_acq_rel,
                                                 memory_order_acquire))
        return NULL;
    sml_fired_move(&waiter->fired, fired);
    atomic_store_explicit(&waiter->word, DONE, memory_order_release);
    sml_futex_wake(&waiter->word, 1); /* the record may be gone: the address is all that is used */
    return NULL;
}

static void add_step(void *user)
{
    struct waiter *waiter = user;

    sml_deferred_add(waiter->deferred, &waiter->step, take, take, waiter);
}

/* Posted after `add`, so it runs after it. */
static void remove_step(void *user)
{
    struct waiter *waiter = user;

    sml_deferred_remove(&waiter->step);
    semel_deferred_unref(waiter->deferred);
    free(waiter);
}

static void post(struct semel_deferred *deferred, struct semel_task *task)
{
    struct sml_executor *executor = sml_deferred_executor(deferred);

    executor->ops->post(executor, task);
}

/* True: the result is in the record. False: the time has passed, and the record is the loop's. */
static bool sleep_until_done(struct waiter *waiter, uint64_t deadline)
{
    uint32_t word;

    while ((word = atomic_load_explicit(&waiter->word, memory_order_acquire)) != DONE) {
        if (sml_futex_wait(&waiter->word, word, deadline) != SML_FUTEX_TIMED_OUT)
            continue;
        word = WAITING;
        if (atomic_compare_exchange_strong_explicit(&waiter->word, &word, LEFT,
                                                    memory_order_acq_rel, memory_order_acquire))
            return false;
        deadline = SML_NEVER; /* it is being taken this moment */
    }
    return true;
}

static struct waiter *new_waiter(struct semel_deferred *deferred)
{
    struct waiter *waiter = malloc(sizeof *waiter);

    if (!waiter)
        return NULL;
    atomic_init(&waiter->word, WAITING);
    waiter->deferred = semel_deferred_ref(deferred);
    waiter->step.kind = SML_STEP_LENT;
    waiter->add = (struct semel_task)SEMEL_TASK_INIT(add_step, waiter);
    waiter->remove = (struct semel_task)SEMEL_TASK_INIT(remove_step, waiter);
    sml_fired_init(&waiter->fired);
    return waiter;
}

/* May this thread block for it? */
static enum semel_status admit(struct semel_deferred *deferred)
{
    struct sml_executor *executor = sml_deferred_executor(deferred);
    enum semel_status status;

    if (!sml_executor_has_loop(executor))
        return SEMEL_INVALID;
    status = sml_loop_admit((const struct semel_loop *)(const void *)executor);
    if (status == SEMEL_FORKED)
        return SEMEL_FORKED;
    if (status == SEMEL_OK || sml_thread_in_loop() || sml_in_transaction())
        return SEMEL_WOULD_DEADLOCK;
    return SEMEL_OK;
}

enum semel_status semel_deferred_wait(struct semel_deferred *deferred, int64_t timeout_ms,
                                      struct semel_fired *out)
{
    enum semel_status status = deferred && out ? admit(deferred) : SEMEL_INVALID;
    uint64_t deadline = SML_NEVER;
    struct waiter *waiter;

    if (status != SEMEL_OK)
        return status;
    if (timeout_ms >= 0 && (uint64_t)timeout_ms < SML_NEVER / SML_MS)
        deadline = sml_time_add(sml_clock_now(), (uint64_t)timeout_ms * SML_MS);
    waiter = new_waiter(deferred);
    if (!waiter)
        return SEMEL_NO_MEMORY;
    post(deferred, &waiter->add);
    if (!sleep_until_done(waiter, deadline)) {
        post(deferred, &waiter->remove);
        return SEMEL_DEADLINE;
    }
    sml_fired_move(out, &waiter->fired);
    semel_deferred_unref(waiter->deferred);
    free(waiter);
    return SEMEL_OK;
}
