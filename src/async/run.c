/* SPDX-License-Identifier: MIT */
/* run.c - bodies that run under a permit, which comes back whatever becomes of them.
 *
 * A permit is given back when the body's result is there: when it returned NULL, or when the
 * deferred that it returned has its result. Nothing can fail in between: the step that waits for
 * that deferred lies in the turn, and a body that begins at once without a turn of its own begins
 * only if a spare one is there.
 *
 * First the permit is handed on, then the result is told, then the next one begins: what a result's
 * callbacks do with the lock comes after those who waited. */
#include "async/lock_internal.h"

/* Nobody wants it. */
static void let_go(struct sml_executor *executor, struct semel_fired *fired)
{
    if (SML_UNLIKELY(fired->status != SEMEL_OK))
        executor->ops->unhandled(executor, fired);
    if (SML_UNLIKELY(fired->status != SEMEL_OK || fired->value != NULL))
        semel_fired_clear(fired);
}

static void turn_free(struct sml_turn *turn)
{
    struct semel_lock *lock = turn->lock;

    if (lock && !lock->closed && lock->spare == NULL)
        lock->spare = turn;
    else
        sml_release(turn->executor->mem, turn);
}

void sml_turn_end(struct sml_turn *turn, struct semel_fired *fired)
{
    struct semel_deferred *out = turn->out;

    if (out) {
        (void)sml_deferred_settle(out, fired);
    } else {
        let_go(turn->executor, fired);
        turn_free(turn);
    }
}

/* Its body's result is there. */
static void finish(struct sml_turn *turn, struct semel_fired *fired)
{
    struct semel_lock *lock = turn->lock;

    sml_list_remove(&turn->node);
    if (lock) {
        sml_lock_enter(lock);
        sml_lock_hand_on(lock);
    }
    sml_turn_end(turn, fired);
    if (lock)
        sml_lock_leave(lock);
}

/* A step of the body's deferred: its result is there, or nobody is left who would fire it. */
static struct semel_deferred *body_ended(struct semel_fired *fired, void *user)
{
    struct sml_turn *turn = user;

    turn->inner = NULL;
    finish(turn, fired);
    return NULL;
}

/* The body goes on as `inner` (moved): kept alive by those who will fire it, and by nobody else. It
 * keeps the executor, also while it calls `body_ended`. */
static void follow(struct sml_turn *turn, struct semel_deferred *inner)
{
    turn->inner = inner;
    turn->state = SML_TURN_RUNNING;
    if (turn->cancelled)
        (void)sml_deferred_cancel_here(inner);
    sml_deferred_guard(inner, &turn->step, body_ended, turn); /* then the turn may be gone */
    sml_deferred_unref_here(inner);
}

/* Does `inner` wait for `out`, perhaps by way of others? */
static bool waits_for(const struct semel_deferred *inner, const struct semel_deferred *out)
{
    if (out == NULL || out->followers == 0) /* nobody waits for it */
        return out && inner == out;
    while (inner && inner != out)
        inner = inner->source;
    return inner != NULL;
}

/* Can what the body returned be waited for? Else that is its result. */
static bool is_followed(struct sml_executor *executor, struct semel_deferred *out,
                        struct semel_deferred *inner, struct semel_fired *fired)
{
    const char *why = NULL;

    semel_fired_clear(fired); /* first: its `drop` may make the two wait for each other */
    if (sml_deferred_executor(inner) != executor)
        why = "a body returned a deferred of another loop";
    else if (waits_for(inner, out))
        why = "a body returned a deferred that waits for its own";
    if (why) {
        semel_fired_set_failure(fired, SEMEL_INVALID, 0, why);
        semel_deferred_unref(inner);
    }
    return why == NULL;
}

void sml_turn_run(struct sml_turn *turn)
{
    struct semel_deferred *inner;
    struct semel_fired fired;

    turn->state = SML_TURN_RUNNING;
    sml_list_push_back(&turn->lock->running, &turn->node);
    sml_fired_init(&fired);
    inner = turn->body(&fired, turn->user);
    if (inner && is_followed(turn->executor, turn->out, inner, &fired))
        follow(turn, inner);
    else
        finish(turn, &fired);
}

/* --- semel_lock_run -------------------------------------------------------------------------- */

/* The body returned `inner`: the spare turn takes it from here. The lock is entered. */
static void run_on(struct semel_lock *lock, struct sml_turn *turn, semel_body_fn body,
                   struct semel_deferred *inner)
{
    sml_turn_init(turn, lock, body, NULL);
    if (lock->closed)
        turn->lock = NULL;
    else
        sml_list_push_back(&lock->running, &turn->node);
    follow(turn, inner);
}

/* Nobody wants the result, and a permit is free. */
static enum semel_status run_now(struct semel_lock *lock, semel_body_fn body, void *user)
{
    struct sml_turn *spare = lock->spare;
    struct semel_deferred *inner;
    struct semel_fired fired;

    if (SML_UNLIKELY(spare == NULL)) {
        spare = sml_alloc(lock->executor->mem, sizeof *spare);
        if (spare == NULL)
            return SEMEL_NO_MEMORY;
    }
    lock->spare = NULL;
    lock->held++;
    sml_lock_enter(lock);
    sml_fired_init(&fired);
    inner = body(&fired, user);
    if (SML_UNLIKELY(inner && is_followed(lock->executor, NULL, inner, &fired))) {
        run_on(lock, spare, body, inner);
    } else {
        if (SML_LIKELY(lock->spare == NULL))
            lock->spare = spare;
        else
            sml_release(lock->executor->mem, spare);
        if (SML_LIKELY(!lock->closed))
            sml_lock_hand_on(lock);
        let_go(lock->executor, &fired);
    }
    sml_lock_leave(lock);
    return SEMEL_OK;
}

/* The result is wanted, or the body has to wait. */
static enum semel_status run_turn(struct semel_lock *lock, struct sml_turn *turn)
{
    if (turn == NULL)
        return SEMEL_NO_MEMORY;
    if (sml_lock_is_free(lock)) {
        lock->held++;
        sml_lock_enter(lock);
        sml_turn_run(turn);
        sml_lock_leave(lock);
    } else {
        sml_turn_queue(turn);
    }
    return SEMEL_OK;
}

enum semel_status semel_lock_run(struct semel_lock *lock, semel_body_fn body, void *user,
                                 struct semel_deferred **out)
{
    enum semel_status status = sml_lock_usable(lock);
    struct sml_turn *turn;

    if (SML_UNLIKELY(status == SEMEL_OK && body == NULL))
        status = SEMEL_INVALID;
    if (SML_UNLIKELY(status != SEMEL_OK))
        return status;
    if (out == NULL && sml_lock_is_free(lock))
        return run_now(lock, body, user);
    if (lock->held >= lock->permits && lock->waiting_count >= lock->waiting_max)
        return SEMEL_OVERLOADED;
    if (out == NULL)
        return run_turn(lock, sml_turn_new_alone(lock, body, user));
    turn = sml_turn_new_wanted(lock, body, user);
    if (turn)
        *out = turn->out;
    return run_turn(lock, turn);
}
