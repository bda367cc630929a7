/* SPDX-License-Identifier: MIT */
/* deferred.c - deferreds: references, and the run through the steps.
 *
 * What is done with a result is a list of steps: pairs of callbacks, and joins. A join stands for
 * another deferred, the *follower*, that waits for this one, its *source*: semel_deferred_chain put
 * it there, or a callback of the follower returned the source. In both cases the source has a
 * reference to the follower, and the follower a bare pointer back, for cancelling. So whoever is
 * going to fire the innermost one keeps everything alive that waits for it, and what nobody will
 * fire any more goes by itself. The join lies in the follower, so waiting allocates nothing.
 *
 * run() is a loop over a list of deferreds whose steps are being run, linked by `next`, innermost
 * first. Passing a result on puts the follower in front; so chains of any length need one frame, in
 * both directions. destroy() has a list for the same reason.
 *
 * Threads. Whoever wins `claim` may write the result; all other fields belong to the executor's
 * thread. Other threads leave a bit in `posted`; the task, which has a reference while it waits,
 * does the rest there. The last reference, given back elsewhere, travels the same way: callbacks,
 * destructors and reports all come on the executor's thread.
 *
 * A reference that a callback gives back may be the last one; `held` says that somebody up the
 * stack still needs the deferred: then it is only marked, and destroyed on the way out. */
#include "async/deferred.h"

#include <string.h>

#include "base/check.h"

static void destroy(struct semel_deferred *deferred);
static void shorten(struct semel_deferred *deferred);

/* --- references --------------------------------------------------------------------------- */

/* Give a reference back that is not the last one. Returns how many there were; 1: it is, and the
 * caller has it still. Whoever sees a count of one has that one, and nobody else can add to it. */
static uint32_t drop_ref(struct semel_deferred *deferred)
{
    uint32_t refs = atomic_load_explicit(&deferred->refs, memory_order_acquire);

    while (refs != 1 &&
           !atomic_compare_exchange_weak_explicit(&deferred->refs, &refs, refs - 1,
                                                  memory_order_acq_rel, memory_order_acquire))
        continue;
    return refs;
}

/* On the executor's thread. True: it was the last one, and the caller has to destroy it. */
static bool let_go(struct semel_deferred *deferred)
{
    const uint32_t refs = drop_ref(deferred);

    if (refs == 2)
        shorten(deferred); /* here it cannot go meanwhile, whoever has the other one */
    if (refs != 1)
        return false;
    if (deferred->held == 0)
        return true;
    deferred->dead = true;
    atomic_store_explicit(&deferred->refs, 0, memory_order_relaxed);
    return false;
}

void sml_deferred_unref_here(struct semel_deferred *deferred)
{
    if (let_go(deferred))
        destroy(deferred);
}

void sml_deferred_release(struct semel_deferred *deferred)
{
    SML_ASSERT(deferred->held > 0);
    if (--deferred->held > 0)
        return;
    if (deferred->dead)
        destroy(deferred);
    else
        shorten(deferred);
}

/* Those of one kind have one size, so that each fits the next. */
static size_t spare_bytes(enum sml_spare_kind kind, size_t extra)
{
    const size_t begin = (sizeof(struct semel_deferred) + 15) / 16 * 16;

    if (kind == SML_SPARE_PLAIN)
        return sizeof(struct semel_deferred);
    return begin + (kind == SML_SPARE_WIDE ? SML_EXTRA_WIDE : extra);
}

static enum sml_spare_kind spare_kind(size_t extra)
{
    if (extra == 0)
        return SML_SPARE_PLAIN;
    return extra <= SML_EXTRA_WIDE ? SML_SPARE_WIDE : SML_SPARE_KINDS;
}

static struct semel_deferred *take_spare(struct sml_executor *executor, enum sml_spare_kind kind)
{
    if (kind == SML_SPARE_KINDS || executor->spares_max == 0 || !sml_executor_is_here(executor))
        return NULL;
    return sml_spares_take(&executor->spares[kind]);
}

static void put_back(struct sml_executor *executor, struct semel_deferred *deferred)
{
    const enum sml_spare_kind kind = deferred->spare;

    if (kind == SML_SPARE_KINDS ||
        !sml_spares_keep(&executor->spares[kind], executor->spares_max, deferred))
        sml_release(executor->mem, deferred);
}

struct semel_deferred *sml_deferred_new(struct sml_executor *executor, semel_canceller_fn canceller,
                                        void *user, size_t extra)
{
    const enum sml_spare_kind kind = spare_kind(extra);
    struct semel_deferred *deferred = take_spare(executor, kind);

    if (!deferred)
        deferred = sml_alloc(executor->mem, spare_bytes(kind, extra));
    if (!deferred)
        return NULL;
    memset(deferred, 0, offsetof(struct semel_deferred, canceller));
    deferred->executor = executor;
    deferred->spare = (uint8_t)kind;
    atomic_init(&deferred->refs, 1);
    deferred->canceller = canceller;
    deferred->user = user;
    sml_list_init(&deferred->steps);
    deferred->task = (struct semel_task)SEMEL_TASK_INIT(sml_deferred_do_posted, deferred);
    sml_fired_init(&deferred->fired);
    sml_executor_enter(executor);
    return deferred;
}

static void report(struct semel_deferred *deferred)
{
    const struct semel_fired *fired = &deferred->fired;

    /* Whoever asked for it knows. */
    if (fired->status == SEMEL_CANCELLED && deferred->asked)
        return;
    if (deferred->has_result && fired->status != SEMEL_OK)
        deferred->executor->ops->unhandled(deferred->executor, fired);
}

/* Its source is gone and has not fired. */
static void fail_follower(struct semel_deferred *follower)
{
    sml_fired_fail(&follower->fired, SEMEL_DROPPED, 0, "what it waited for was let go");
    atomic_store_explicit(&follower->claim, SML_CLAIM_FIRED, memory_order_release);
    sml_deferred_arrive(follower);
}

static void put_away(struct semel_deferred *deferred, struct sml_step *step)
{
    if (step->kind == SML_STEP_INSIDE)
        deferred->inside &= (uint8_t) ~(1U << (step - deferred->own));
    else if (step->kind == SML_STEP_HEAP)
        sml_release(deferred->executor->mem, step);
    else
        return;
    deferred->queued--;
}

static void drop_guard(struct sml_step *step)
{
    struct semel_fired fired;

    sml_fired_init(&fired);
    sml_fired_fail(&fired, SEMEL_DROPPED, 0, "what it waited for was let go");
    (void)step->on_failure(&fired, step->user);
}

/* Let a step go. Returns the follower that goes with it, or NULL. */
static struct semel_deferred *drop_step(struct semel_deferred *deferred, struct sml_step *step)
{
    struct semel_deferred *follower;

    if (step->kind == SML_STEP_TIMEOUT) {
        sml_timeout_discard(step);
    } else if (step->kind == SML_STEP_GUARD) {
        drop_guard(step);
    } else if (step->kind == SML_STEP_JOIN) {
        follower = SML_CONTAINER(step, struct semel_deferred, join);
        follower->source = NULL;
        if (let_go(follower))
            return follower;
        fail_follower(follower);
    } else {
        put_away(deferred, step);
    }
    return NULL;
}

/* Its last words. */
static void begin_destroying(struct semel_deferred *deferred)
{
    SML_ASSERT(deferred->held == 0 && !deferred->source);
    /* Followers that are told may cancel others of them, and must not get here by it. */
    atomic_store_explicit(&deferred->claim, SML_CLAIM_FIRED, memory_order_relaxed);
    report(deferred);
    if (deferred->fired.value)
        semel_fired_clear(&deferred->fired);
}

/* With those that go with it, each with all of its own before the next. */
static void destroy(struct semel_deferred *deferred)
{
    struct semel_deferred *list = deferred;

    deferred->next = NULL;
    begin_destroying(deferred);
    while ((deferred = list)) {
        struct sml_list *node = sml_list_pop_front(&deferred->steps);
        struct sml_executor *executor = deferred->executor;

        if (!node) {
            list = deferred->next;
            put_back(executor, deferred);
            sml_executor_leave(executor);
            continue;
        }
        deferred = drop_step(deferred, SML_CONTAINER(node, struct sml_step, node));
        if (deferred) {
            deferred->next = list;
            list = deferred;
            begin_destroying(deferred);
        }
    }
}

struct semel_deferred *semel_deferred_ref(struct semel_deferred *deferred)
{
    return deferred ? sml_deferred_ref(deferred) : NULL;
}

/* Elsewhere the last one goes with the task, and is given back there; so it is not gone while
 * callbacks run, which may yet make the deferred wait again. */
void semel_deferred_unref(struct semel_deferred *deferred)
{
    if (!deferred)
        return;
    if (sml_executor_is_here(deferred->executor))
        sml_deferred_unref_here(deferred);
    else if (drop_ref(deferred) == 1)
        sml_deferred_post(deferred, SML_POSTED_GONE);
}

/* If `deferred` waits, nobody but its source has it, and all that it would do is to pass the result
 * on, its follower takes its place. So work that goes round in circles, each round a deferred that
 * the one before returns, does not pile up. */
static void shorten(struct semel_deferred *deferred)
{
    struct semel_deferred *source = deferred->source, *follower;
    struct sml_list *first = deferred->steps.next;

    if (!source || deferred->held > 0 || deferred->paused > 0 || sml_list_empty(&deferred->steps) ||
        first->next != &deferred->steps ||
        SML_CONTAINER(first, struct sml_step, node)->kind != SML_STEP_JOIN ||
        atomic_load_explicit(&deferred->refs, memory_order_acquire) != 1)
        return;
    follower = SML_CONTAINER(first, struct semel_deferred, join.node);
    sml_list_remove(&follower->join.node);
    sml_list_insert_before(&deferred->join.node, &follower->join.node);
    sml_list_remove(&deferred->join.node);
    follower->source = source;
    deferred->source = NULL;
    destroy(deferred);
}

/* --- the run ------------------------------------------------------------------------------ */

static void join(struct semel_deferred *source, struct semel_deferred *follower)
{
    follower->source = source;
    follower->join.kind = SML_STEP_JOIN;
    sml_list_push_back(&source->steps, &follower->join.node);
    source->followers++;
}

/* Nothing is left to be done with its result but to look at it, or move it. */
static bool is_ready(const struct semel_deferred *deferred)
{
    return deferred->has_result && !deferred->running && deferred->paused == 0;
}

/* Does `deferred` wait for `other`, perhaps by way of others? Only who is followed can be waited
 * for, so what is built from either end costs no walk. */
static bool waits_for(const struct semel_deferred *deferred, const struct semel_deferred *other)
{
    if (other->followers == 0)
        return false;
    while (deferred->source && deferred != other)
        deferred = deferred->source;
    return deferred == other;
}

/* A callback of `deferred` returned `inner`. If nobody else has `inner`, its end comes at once. */
static void wait_for(struct semel_deferred *deferred, struct semel_deferred *inner)
{
    semel_fired_clear(&deferred->fired); /* first: its `drop` may chain the two */
    if (inner == deferred || inner->executor != deferred->executor || waits_for(inner, deferred)) {
        semel_fired_set_failure(&deferred->fired, SEMEL_INVALID, 0,
                                inner->executor != deferred->executor
                                    ? "a callback returned a deferred of another loop"
                                    : "a callback returned a deferred that waits for its own");
        sml_deferred_unref_here(inner);
        return;
    }
    if (is_ready(inner)) {
        sml_fired_move(&deferred->fired, &inner->fired);
    } else {
        deferred->has_result = false;
        deferred->dead = false; /* whoever will fire `inner` has it now */
        join(inner, sml_deferred_ref(deferred));
    }
    sml_deferred_unref_here(inner);
}

static void call(struct semel_deferred *deferred, struct sml_step *step)
{
    semel_fired_fn fn = deferred->fired.status == SEMEL_OK ? step->on_value : step->on_failure;
    void *user = step->user;
    struct semel_deferred *inner;

    put_away(deferred, step);
    if (!fn)
        return;
    inner = fn(&deferred->fired, user);
    if (inner)
        wait_for(deferred, inner);
}

/* The result moves. Returns the follower, held, if it is to be run; else NULL. */
static struct semel_deferred *pass_on(struct semel_deferred *source,
                                      struct semel_deferred *follower)
{
    source->followers--;
    follower->source = NULL;
    sml_fired_move(&follower->fired, &source->fired);
    follower->has_result = true;
    atomic_store_explicit(&follower->claim, SML_CLAIM_FIRED, memory_order_release);
    sml_deferred_hold(follower);
    sml_deferred_unref_here(follower);
    if (!follower->running && follower->paused == 0 && !sml_list_empty(&follower->steps))
        return follower;
    sml_deferred_release(follower);
    return NULL;
}

/* Run its steps until there are no more, it waits or is paused, or a follower is to be run before
 * the rest: that one is returned, held. */
static struct semel_deferred *advance(struct semel_deferred *deferred)
{
    while (deferred->has_result && deferred->paused == 0) {
        struct sml_list *node = sml_list_pop_front(&deferred->steps);
        struct sml_step *step;
        struct semel_deferred *follower;

        if (!node)
            return NULL;
        step = SML_CONTAINER(node, struct sml_step, node);
        if (step->kind != SML_STEP_JOIN) {
            call(deferred, step);
            continue;
        }
        follower = pass_on(deferred, SML_CONTAINER(step, struct semel_deferred, join));
        if (follower)
            return follower;
    }
    return NULL;
}

static void run(struct semel_deferred *deferred)
{
    struct semel_deferred *list = NULL;

    sml_deferred_hold(deferred);
    for (;;) {
        deferred->running = true;
        deferred->next = list;
        list = deferred;
        while (list && !(deferred = advance(list))) {
            struct semel_deferred *over = list;

            list = over->next;
            over->running = false;
            sml_deferred_release(over);
        }
        if (!list)
            return;
    }
}

static void proceed(struct semel_deferred *deferred)
{
    if (is_ready(deferred) && !sml_list_empty(&deferred->steps))
        run(deferred);
}

void sml_deferred_arrive(struct semel_deferred *deferred)
{
    deferred->has_result = true;
    proceed(deferred);
}

/* --- adding to them ----------------------------------------------------------------------- */

static struct sml_step *new_step(struct semel_deferred *deferred)
{
    struct sml_step *step;

    for (unsigned i = 0; i < SML_STEPS_INSIDE; i++)
        if (!(deferred->inside & 1U << i)) {
            deferred->inside |= (uint8_t)(1U << i);
            deferred->own[i].kind = SML_STEP_INSIDE;
            return &deferred->own[i];
        }
    step = sml_alloc(deferred->executor->mem, sizeof *step);
    if (step)
        step->kind = SML_STEP_HEAP;
    return step;
}

static void add(struct semel_deferred *deferred, struct sml_step *step, semel_fired_fn on_value,
                semel_fired_fn on_failure, void *user)
{
    step->on_value = on_value;
    step->on_failure = on_failure;
    step->user = user;
    sml_list_push_back(&deferred->steps, &step->node);
    proceed(deferred);
}

enum semel_status semel_deferred_then(struct semel_deferred *deferred, semel_fired_fn on_value,
                                      semel_fired_fn on_failure, void *user)
{
    struct sml_step *step;

    if (!deferred)
        return SEMEL_INVALID;
    if (!sml_executor_is_here(deferred->executor))
        return SEMEL_DENIED;
    if (deferred->queued == SML_STEPS_MAX)
        return SEMEL_LIMIT;
    step = new_step(deferred);
    if (!step)
        return SEMEL_NO_MEMORY;
    deferred->queued++;
    add(deferred, step, on_value, on_failure, user);
    return SEMEL_OK;
}

void sml_deferred_add(struct semel_deferred *deferred, struct sml_step *step,
                      semel_fired_fn on_value, semel_fired_fn on_failure, void *user)
{
    if (step->kind != SML_STEP_TIMEOUT)
        step->kind = SML_STEP_LENT;
    add(deferred, step, on_value, on_failure, user);
}

void sml_deferred_guard(struct semel_deferred *deferred, struct sml_step *step, semel_fired_fn fn,
                        void *user)
{
    step->kind = SML_STEP_GUARD;
    add(deferred, step, fn, fn, user);
}

void sml_deferred_remove(struct sml_step *step)
{
    sml_list_remove(&step->node);
}

enum semel_status semel_deferred_chain(struct semel_deferred *deferred,
                                       struct semel_deferred *target)
{
    uint32_t seen = SML_CLAIM_OPEN;

    if (!deferred || !target)
        return SEMEL_INVALID;
    if (!sml_executor_is_here(deferred->executor))
        return SEMEL_DENIED;
    if (deferred == target || deferred->executor != target->executor ||
        waits_for(deferred, target) ||
        !atomic_compare_exchange_strong_explicit(&target->claim, &seen, SML_CLAIM_CHAINED,
                                                 memory_order_acq_rel, memory_order_acquire))
        return SEMEL_INVALID;
    join(deferred, target);
    proceed(deferred);
    return SEMEL_OK;
}

enum semel_status semel_deferred_pause(struct semel_deferred *deferred)
{
    if (!deferred)
        return SEMEL_INVALID;
    if (!sml_executor_is_here(deferred->executor))
        return SEMEL_DENIED;
    if (deferred->paused == UINT32_MAX)
        return SEMEL_INVALID;
    deferred->paused++;
    return SEMEL_OK;
}

enum semel_status semel_deferred_resume(struct semel_deferred *deferred)
{
    if (!deferred)
        return SEMEL_INVALID;
    if (!sml_executor_is_here(deferred->executor))
        return SEMEL_DENIED;
    if (deferred->paused == 0)
        return SEMEL_INVALID;
    deferred->paused--;
    proceed(deferred);
    return SEMEL_OK;
}

const struct semel_fired *semel_deferred_result(const struct semel_deferred *deferred)
{
    return deferred && is_ready(deferred) ? &deferred->fired : NULL;
}
