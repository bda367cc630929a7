/* SPDX-License-Identifier: MIT */
/* lock_internal.h - what lock.c and run.c share. */
#ifndef SML_ASYNC_LOCK_INTERNAL_H
#define SML_ASYNC_LOCK_INTERNAL_H

#include <semel/lock.h>
#include <stdbool.h>
#include <stdint.h>

#include "async/deferred.h"
#include "base/compiler.h"
#include "base/executor.h"
#include "base/list.h"

struct semel_lock {
    struct sml_executor *executor;
    uint32_t permits, held; /* held: those of `granted` too */
    uint32_t waiting_max, waiting_count;
    uint32_t busy; /* calls that are inside, up the stack: it is not freed, and only the outermost
                      begins turns */
    bool closed;   /* destroyed; freed when nobody is inside */
    struct sml_list waiting; /* for a permit; empty while one is free */
    struct sml_list granted; /* have one and do not know it yet; empty while nobody is inside */
    struct sml_list running; /* bodies */
    struct sml_turn *spare;  /* so that a body that has run needs no memory any more; may be NULL */
};

enum sml_turn_state { SML_TURN_WAITING, SML_TURN_GRANTED, SML_TURN_RUNNING };

/* One who waits, or whose body runs. It lies beside `out`, or by itself without. */
struct sml_turn {
    struct sml_list node;
    struct semel_lock *lock; /* NULL: destroyed */
    struct sml_executor *executor;
    struct semel_deferred *out; /* a reference; NULL: nobody wants the result */
    semel_body_fn body;         /* NULL: it wants the permit itself */
    void *user;
    struct semel_deferred *inner; /* the body's, while it has not ended; or NULL */
    struct sml_step step;         /* of `inner` */
    enum sml_turn_state state;
    bool cancelled; /* while its body ran */
};

/* OK; INVALID; DENIED: the wrong thread; STOPPED. */
static inline enum semel_status sml_lock_usable(const struct semel_lock *lock)
{
    if (SML_UNLIKELY(lock == NULL))
        return SEMEL_INVALID;
    if (SML_UNLIKELY(!sml_executor_is_here(lock->executor)))
        return SEMEL_DENIED;
    return SML_UNLIKELY(lock->closed) ? SEMEL_STOPPED : SEMEL_OK;
}

/* A permit is free, and nobody with an older one has still to begin. */
static inline bool sml_lock_is_free(const struct semel_lock *lock)
{
    return lock->held < lock->permits && sml_list_empty(&lock->granted);
}

/* Everything that can call the user's code stands between these two. */
static inline void sml_lock_enter(struct semel_lock *lock)
{
    lock->busy++;
}

void sml_lock_leave_slow(struct semel_lock *lock);

static inline void sml_lock_leave(struct semel_lock *lock)
{
    if (SML_LIKELY(sml_list_empty(&lock->granted) && !lock->closed))
        lock->busy--;
    else
        sml_lock_leave_slow(lock);
}

/* Give a permit to the next in line, or keep it. Calls nobody. */
static inline void sml_lock_hand_on(struct semel_lock *lock)
{
    struct sml_list *next = sml_list_pop_front(&lock->waiting);

    if (SML_LIKELY(next == NULL)) {
        lock->held--;
        return;
    }
    lock->waiting_count--;
    SML_CONTAINER(next, struct sml_turn, node)->state = SML_TURN_GRANTED;
    sml_list_push_back(&lock->granted, next);
}

/* A turn beside a new deferred, which has two references then: the caller's and the turn's. */
struct sml_turn *sml_turn_new_wanted(struct semel_lock *lock, semel_body_fn body, void *user);
/* One by itself. */
struct sml_turn *sml_turn_new_alone(struct semel_lock *lock, semel_body_fn body, void *user);
void sml_turn_init(struct sml_turn *turn, struct semel_lock *lock, semel_body_fn body, void *user);

/* Into the line. OVERLOADED is for the caller to find out before. */
void sml_turn_queue(struct sml_turn *turn);

/* run.c: its body's turn has come; it is in no list and has a permit. */
void sml_turn_run(struct sml_turn *turn);
/* run.c: it ends without having run, or its body ended: the result moves to where it is wanted; the
 * turn is gone. */
void sml_turn_end(struct sml_turn *turn, struct semel_fired *fired);

#endif
