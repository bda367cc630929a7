/* SPDX-License-Identifier: MIT */
/* lock.c - locks and semaphores: permits, and a line of those who wait for one.
 *
 * Invariants:
 *  1. While a permit is free nobody waits. So whoever finds one free may have it: there is nobody
 *     to overtake.
 *  2. A permit that is given back while somebody waits is never free: it moves to the first in line
 *     in the same step (`held` does not change), and only then is anybody called.
 *  3. Only the outermost call of a lock begins turns. What a callback gives back is handed on at
 *     once, but the next one's callback is called when this one has returned. So a line of any
 *     length, each of which gives back in its own callback, needs the stack of one.
 *  4. A turn is in at most one of the lists, so that it can leave in O(1), whoever it is. */
#include "async/lock_internal.h"

_Static_assert(sizeof(struct sml_turn) <= SML_EXTRA_WIDE, "its memory is kept");

#define PERMITS_MAX INT32_MAX
#define WAITING_MAX INT32_MAX
#define WAITING_DEFAULT (UINT32_C(1) << 20)

static void lock_free(struct semel_lock *lock)
{
    struct sml_executor *executor = lock->executor;

    if (lock->spare)
        sml_release(executor->mem, lock->spare);
    sml_release(executor->mem, lock);
    sml_executor_leave(executor);
}

enum semel_status semel_lock_create(struct semel_lock **out, struct semel_loop *loop,
                                    const struct semel_lock_options *options)
{
    static const struct semel_lock_options defaults = SEMEL_LOCK_OPTIONS_INIT;
    struct sml_executor *executor = sml_executor_of(loop);
    struct semel_lock *lock;

    options = options ? options : &defaults;
    if (out == NULL || options->permits > PERMITS_MAX || options->waiting > WAITING_MAX)
        return SEMEL_INVALID;
    if (!sml_executor_is_here(executor))
        return SEMEL_DENIED;
    lock = sml_alloc(executor->mem, sizeof *lock);
    if (lock == NULL)
        return SEMEL_NO_MEMORY;
    *lock = (struct semel_lock){
        .executor = executor,
        .permits = options->permits ? options->permits : 1,
        .waiting_max = options->waiting ? options->waiting : WAITING_DEFAULT,
    };
    sml_list_init(&lock->waiting);
    sml_list_init(&lock->granted);
    sml_list_init(&lock->running);
    sml_executor_enter(executor);
    *out = lock;
    return SEMEL_OK;
}

/* A permit is this turn's: tell it, or run its body. */
static void begin(struct sml_turn *turn)
{
    struct semel_lock *lock = turn->lock;
    struct semel_fired fired;

    if (turn->body) {
        sml_turn_run(turn);
        return;
    }
    turn->state = SML_TURN_RUNNING;
    sml_fired_init(&fired);
    if (sml_deferred_settle(turn->out, &fired) != SEMEL_OK)
        sml_lock_hand_on(lock); /* somebody else fired it: nobody owes this permit */
}

void sml_lock_leave_slow(struct semel_lock *lock)
{
    struct sml_list *first;

    while (lock->busy == 1 && (first = sml_list_pop_front(&lock->granted)) != NULL)
        begin(SML_CONTAINER(first, struct sml_turn, node));
    if (--lock->busy == 0 && lock->closed)
        lock_free(lock);
}

static void end_stopped(struct sml_turn *turn)
{
    struct semel_fired fired;

    sml_fired_init(&fired);
    sml_fired_fail(&fired, SEMEL_STOPPED, 0, NULL);
    turn->lock = NULL;
    sml_turn_end(turn, &fired);
}

void semel_lock_destroy(struct semel_lock *lock)
{
    struct sml_list *node;

    if (sml_lock_usable(lock) != SEMEL_OK)
        return;
    sml_lock_enter(lock);
    lock->closed = true;
    while ((node = sml_list_pop_front(&lock->running)) != NULL)
        SML_CONTAINER(node, struct sml_turn, node)->lock = NULL;
    while ((node = sml_list_pop_front(&lock->granted)) != NULL)
        end_stopped(SML_CONTAINER(node, struct sml_turn, node));
    while ((node = sml_list_pop_front(&lock->waiting)) != NULL) {
        lock->waiting_count--;
        end_stopped(SML_CONTAINER(node, struct sml_turn, node));
    }
    sml_lock_leave(lock);
}

/* --- turns ----------------------------------------------------------------------------------- */

/* Cancelled: out of the line, or the body is asked to end. */
static bool cancel_turn(struct semel_deferred *out, void *user)
{
    struct sml_turn *turn = sml_deferred_extra(out);

    (void)user;
    if (turn->state == SML_TURN_RUNNING) {
        turn->cancelled = true;
        if (turn->inner)
            (void)sml_deferred_cancel_here(turn->inner); /* then the turn may be gone */
        return true;
    }
    sml_list_remove(&turn->node);
    if (turn->state == SML_TURN_GRANTED)
        sml_lock_hand_on(turn->lock);
    else
        turn->lock->waiting_count--;
    semel_deferred_unref(out);
    return false;
}

void sml_turn_init(struct sml_turn *turn, struct semel_lock *lock, semel_body_fn body, void *user)
{
    sml_list_init(&turn->node);
    turn->lock = lock;
    turn->executor = lock->executor;
    turn->out = NULL;
    turn->body = body;
    turn->user = user;
    turn->inner = NULL;
    turn->state = SML_TURN_WAITING;
    turn->cancelled = false;
}

struct sml_turn *sml_turn_new_wanted(struct semel_lock *lock, semel_body_fn body, void *user)
{
    struct semel_deferred *out =
        sml_deferred_new(lock->executor, cancel_turn, NULL, sizeof(struct sml_turn));
    struct sml_turn *turn;

    if (out == NULL)
        return NULL;
    turn = sml_deferred_extra(out);
    sml_turn_init(turn, lock, body, user);
    turn->out = sml_deferred_ref_new(out);
    return turn;
}

struct sml_turn *sml_turn_new_alone(struct semel_lock *lock, semel_body_fn body, void *user)
{
    struct sml_turn *turn = sml_alloc(lock->executor->mem, sizeof *turn);

    if (turn)
        sml_turn_init(turn, lock, body, user);
    return turn;
}

void sml_turn_queue(struct sml_turn *turn)
{
    struct semel_lock *lock = turn->lock;

    if (lock->held < lock->permits) { /* it has a permit, and begins after those of `granted` */
        lock->held++;
        turn->state = SML_TURN_GRANTED;
        sml_list_push_back(&lock->granted, &turn->node);
        return;
    }
    lock->waiting_count++;
    sml_list_push_back(&lock->waiting, &turn->node);
}

/* --- permits --------------------------------------------------------------------------------- */

enum semel_status semel_lock_acquire(struct semel_lock *lock, struct semel_deferred **out)
{
    enum semel_status status = sml_lock_usable(lock);
    struct sml_turn *turn;

    if (status == SEMEL_OK && out == NULL)
        status = SEMEL_INVALID;
    if (status != SEMEL_OK)
        return status;
    if (lock->held >= lock->permits && lock->waiting_count >= lock->waiting_max)
        return SEMEL_OVERLOADED;
    turn = sml_turn_new_wanted(lock, NULL, NULL);
    if (turn == NULL)
        return SEMEL_NO_MEMORY;
    *out = turn->out;
    if (sml_lock_is_free(lock)) {
        lock->held++;
        begin(turn); /* calls nobody: nobody has the deferred yet */
    } else {
        sml_turn_queue(turn);
    }
    return SEMEL_OK;
}

enum semel_status semel_lock_try(struct semel_lock *lock)
{
    enum semel_status status = sml_lock_usable(lock);

    if (status != SEMEL_OK)
        return status;
    if (lock->held >= lock->permits)
        return SEMEL_OVERLOADED;
    lock->held++;
    return SEMEL_OK;
}

enum semel_status semel_lock_release(struct semel_lock *lock)
{
    enum semel_status status = sml_lock_usable(lock);

    if (status != SEMEL_OK)
        return status;
    if (lock->held == 0)
        return SEMEL_INVALID;
    sml_lock_enter(lock);
    sml_lock_hand_on(lock);
    sml_lock_leave(lock);
    return SEMEL_OK;
}

uint32_t semel_lock_held(const struct semel_lock *lock)
{
    return lock ? lock->held : 0;
}

uint32_t semel_lock_waiting(const struct semel_lock *lock)
{
    return lock ? lock->waiting_count : 0;
}
