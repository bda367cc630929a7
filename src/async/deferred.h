/* SPDX-License-Identifier: MIT */
/* deferred.h - what the other primitives see of a deferred.
 *
 * Memory for a primitive's own record comes with the deferred (`extra`), and a step may lie in the
 * primitive's memory: so acquiring a lock or taking from a queue is one allocation, and waiting for
 * somebody else's deferred is none. */
#ifndef SML_ASYNC_DEFERRED_H
#define SML_ASYNC_DEFERRED_H

#include <semel/deferred.h>
#include <stdatomic.h>

#include "base/executor.h"
#include "base/list.h"

/* Where a step's memory is, and what it is. */
enum sml_step_kind {
    SML_STEP_INSIDE,  /* a pair; one of the deferred's own two */
    SML_STEP_HEAP,    /* a pair */
    SML_STEP_LENT,    /* a pair in its user's memory */
    SML_STEP_GUARD,   /* the same, called in any case */
    SML_STEP_TIMEOUT, /* within a struct timeout */
    SML_STEP_JOIN     /* the `join` of another deferred, which waits for this one's result */
};

struct sml_step {
    struct sml_list node;
    semel_fired_fn on_value, on_failure;
    void *user;
    enum sml_step_kind kind;
};

#define SML_STEPS_INSIDE 2
#define SML_STEPS_MAX 1048576 /* callbacks and timeouts that may wait in one deferred */

/* Who may fire: decided atomically, from any thread. */
enum sml_claim {
    SML_CLAIM_OPEN,    /* nobody has */
    SML_CLAIM_FIRED,   /* somebody did */
    SML_CLAIM_SWALLOW, /* cancelled without a canceller: one late result is let go */
    SML_CLAIM_CHAINED  /* another deferred's result will come */
};

struct semel_deferred {
    struct sml_executor *executor;
    _Atomic(uint32_t) refs;
    _Atomic(uint32_t) claim;  /* enum sml_claim */
    _Atomic(uint32_t) posted; /* what `task` is to do */

    /* The executor's thread: */
    uint32_t paused;
    uint32_t held;   /* somebody up the stack is using it */
    uint32_t queued; /* steps that wait, joins and lent ones not counted */
    uint8_t inside;  /* of own[], those in use: bits */
    bool has_result;
    bool dead;          /* the last reference went while it was held */
    bool running;       /* its steps are being run */
    bool cancelled;     /* the canceller was called, or would have been */
    bool asked;         /* semel_deferred_cancel was called for it, or for one that waits for it */
    uint8_t spare;      /* enum sml_spare_kind of its memory, which may be kept */
    uint32_t followers; /* deferreds that wait for this one */
    struct semel_deferred *source; /* the one that this one waits for, or NULL */
    struct semel_deferred *next;   /* in a list of those to be run, or destroyed */
    semel_canceller_fn canceller;
    void *user;
    struct sml_list steps;
    struct sml_step join;
    struct sml_step own[SML_STEPS_INSIDE];
    struct semel_task task;
    struct semel_fired fired;
};

/* The memory of those with no more than this beside them is kept for the next ones: a lock's turn,
 * a queue's taker and a call fit. */
#define SML_EXTRA_WIDE 128

/* A new one, with one reference and `extra` bytes of memory beside it (uncleared, aligned to 16);
 * NULL: no memory. Any thread. */
struct semel_deferred *sml_deferred_new(struct sml_executor *executor, semel_canceller_fn canceller,
                                        void *user, size_t extra);

static inline void *sml_deferred_extra(struct semel_deferred *deferred)
{
    const size_t at = (sizeof *deferred + 15) / 16 * 16;

    return (char *)deferred + at;
}

static inline struct sml_executor *sml_deferred_executor(const struct semel_deferred *deferred)
{
    return deferred->executor;
}

static inline bool sml_executor_is_here(const struct sml_executor *executor)
{
    return executor->ops->is_here(executor);
}

static inline struct semel_deferred *sml_deferred_ref(struct semel_deferred *deferred)
{
    (void)atomic_fetch_add_explicit(&deferred->refs, 1, memory_order_relaxed);
    return deferred;
}

/* The second reference to a new one, which nobody else knows yet. */
static inline struct semel_deferred *sml_deferred_ref_new(struct semel_deferred *deferred)
{
    atomic_store_explicit(&deferred->refs, 2, memory_order_relaxed);
    return deferred;
}

/* As semel_deferred_unref, on the executor's thread. */
void sml_deferred_unref_here(struct semel_deferred *deferred);

/* Before there is a result. OK: firing it is the caller's alone, which has to set the result and
 * let it arrive. STOPPED: a late result, to be let go. Else, as semel_deferred_fire: why not. Any
 * thread. */
enum semel_status sml_deferred_claim(struct semel_deferred *deferred);

/* Fire with what is in `from`, which is moved: a value NULL is left, also if it had fired. Any
 * thread. Returns: as semel_deferred_fire. */
enum semel_status sml_deferred_fire_with(struct semel_deferred *deferred, struct semel_fired *from);

/* The same on the executor's thread, and then a reference is given back. */
enum semel_status sml_deferred_settle(struct semel_deferred *deferred, struct semel_fired *from);

/* As semel_deferred_then, in the caller's memory, which is lent until the step is called or
 * removed, or the deferred is gone. The executor's thread. Never fails. */
void sml_deferred_add(struct semel_deferred *deferred, struct sml_step *step,
                      semel_fired_fn on_value, semel_fired_fn on_failure, void *user);

/* The same, and if the deferred goes without its result having got here, the step is called with a
 * failure DROPPED. */
void sml_deferred_guard(struct semel_deferred *deferred, struct sml_step *step, semel_fired_fn fn,
                        void *user);

/* It is not called. Harmless once it was called. The executor's thread. */
void sml_deferred_remove(struct sml_step *step);

/* A result: empty (a value NULL), and moved; `to` must own nothing. */
void sml_fired_init(struct semel_fired *fired);
void sml_fired_move(struct semel_fired *to, struct semel_fired *from);

/* Set a failure in a result that owns nothing. */
void sml_fired_fail(struct semel_fired *fired, enum semel_status status, int code,
                    const char *text);

/* Between these `deferred` is not destroyed; the executor's thread. */
static inline void sml_deferred_hold(struct semel_deferred *deferred)
{
    deferred->held++;
}

void sml_deferred_release(struct semel_deferred *deferred);

/* The claim is the caller's, and the result is set: let it take effect. */
void sml_deferred_arrive(struct semel_deferred *deferred);

/* Have `what` done on the executor's thread, from another: it has fired, it is to be cancelled, a
 * reference is to be given back. */
enum sml_posted { SML_POSTED_FIRED = 1, SML_POSTED_CANCEL = 2, SML_POSTED_GONE = 4 };
void sml_deferred_post(struct semel_deferred *deferred, enum sml_posted what);
void sml_deferred_do_posted(void *deferred);

/* The deferred of this step ends without it: the timer is off, the memory is given back. */
void sml_timeout_discard(struct sml_step *step);

/* As semel_deferred_cancel, on the executor's thread. False: there was nothing to cancel, and
 * nothing was done. */
bool sml_deferred_cancel_here(struct semel_deferred *deferred);

#endif
