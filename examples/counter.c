/* SPDX-License-Identifier: MIT */
/* counter.c - a counter that is wrong without a lock, on one thread.
 *
 * counter_next counts, has the new count recorded somewhere, which takes a while, and returns the
 * count. Between counting and returning others run: two calls at once both return 2. The second run
 * does the same under a lock, so that the next one begins when the one before has ended. */
#include <semel/semel.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct counter {
    struct semel_loop *loop;
    struct semel_lock *lock; /* one of its own: whoever shares the count shares the lock */
    intptr_t count;
};

static void need(enum semel_status status, const char *what)
{
    if (status == SEMEL_OK)
        return;
    (void)fprintf(stderr, "%s: %s\n", what, semel_status_text(status));
    exit(1);
}

/* The recorder answers. */
static void recorded(void *deferred)
{
    need(semel_deferred_fire(deferred, NULL, NULL), "fire");
    semel_deferred_unref(deferred);
}

/* Stands for a request over the network, of 10 ms. */
static struct semel_deferred *record(struct counter *counter)
{
    struct semel_deferred *recording;

    need(semel_deferred_create(&recording, counter->loop, NULL, NULL), "deferred");
    need(semel_loop_timer(counter->loop, 10, recorded, semel_deferred_ref(recording), NULL),
         "timer");
    return recording;
}

static struct semel_deferred *return_count(struct semel_fired *fired, void *user)
{
    struct counter *counter = user;

    semel_fired_set_value(fired, (void *)counter->count, NULL);
    return NULL;
}

/* The critical section: from counting to returning. */
static struct semel_deferred *counter_next(struct counter *counter)
{
    struct semel_deferred *recording;

    counter->count++;
    recording = record(counter);
    need(semel_deferred_then(recording, return_count, NULL, counter), "then");
    return recording;
}

static struct semel_deferred *next_body(struct semel_fired *fired, void *user)
{
    (void)fired;
    return counter_next(user);
}

static struct semel_deferred *counter_next_locked(struct counter *counter)
{
    struct semel_deferred *out;

    need(semel_lock_run(counter->lock, next_body, counter, &out), "lock_run");
    return out;
}

/* --- two calls at once ----------------------------------------------------------------------- */

static struct semel_deferred *print_count(struct semel_fired *fired, void *name)
{
    printf("  %s got %jd\n", (const char *)name, (intmax_t)(intptr_t)fired->value);
    return NULL;
}

static struct semel_deferred *stop_loop(struct semel_fired *fired, void *loop)
{
    (void)fired;
    semel_loop_stop(loop);
    return NULL;
}

static void twice_at_once(struct counter *counter,
                          struct semel_deferred *(*next)(struct counter *counter))
{
    struct semel_deferred *both[2], *all;

    counter->count = 0;
    both[0] = next(counter);
    both[1] = next(counter);
    need(semel_deferred_then(both[0], print_count, NULL, "first"), "then");
    need(semel_deferred_then(both[1], print_count, NULL, "second"), "then");
    need(semel_deferred_gather(&all, counter->loop, both, 2, SEMEL_GATHER_ALL), "gather");
    need(semel_deferred_then(all, stop_loop, NULL, counter->loop), "then");
    need(semel_loop_run(counter->loop), "run");
    semel_deferred_unref(all);
}

int main(void)
{
    struct counter counter = { NULL, NULL, 0 };

    need(semel_loop_create(&counter.loop, NULL), "loop");
    need(semel_lock_create(&counter.lock, counter.loop, NULL), "lock");
    printf("without the lock:\n");
    twice_at_once(&counter, counter_next);
    printf("with the lock:\n");
    twice_at_once(&counter, counter_next_locked);
    semel_lock_destroy(counter.lock);
    need(semel_loop_destroy(counter.loop), "destroy");
    return 0;
}
