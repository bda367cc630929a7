/* SPDX-License-Identifier: MIT */
/* async.c - locks and queues on one thread.
 *   --what=run         lock_run of a body that is done, on a free lock, result unwanted
 *          run_wanted  the same, with a callback for the result
 *          run_later   the body's deferred fires after lock_run returned
 *          handoff     --n=N (100) such bodies queue behind a permit; then it is released
 *          acquire     --n=N acquires wait, each of which releases in its callback
 *          queue       put, then get with a callback
 *          queue_wait  get with a callback, then put
 *          mutex       for comparison: pthread_mutex_lock and unlock
 *   --secs=S (0.5) --loop=0|1 (1: the lock belongs to a loop)
 * Printed: operations a second, and nanoseconds for one; handoff also apart from queueing. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <semel/lock.h>
#include <semel/queue.h>

#include "kit.h"

struct bench {
    struct semel_loop *loop;
    struct semel_lock *lock;
    struct semel_queue *queue;
    pthread_mutex_t mutex;
    unsigned n;
    uint64_t ran;
    uint64_t handing; /* ns spent in releases */
    struct semel_deferred *inner;
};

static struct semel_deferred *body(struct semel_fired *fired, void *user)
{
    (void)fired;
    ((struct bench *)user)->ran++;
    return NULL;
}

static struct semel_deferred *body_later(struct semel_fired *fired, void *user)
{
    struct bench *bench = user;

    (void)fired;
    bench->ran++;
    kit_need(semel_deferred_create(&bench->inner, bench->loop, NULL, NULL), "deferred_create");
    return semel_deferred_ref(bench->inner);
}

static struct semel_deferred *give_back(struct semel_fired *fired, void *user)
{
    struct bench *bench = user;

    (void)fired;
    bench->ran++;
    kit_need(semel_lock_release(bench->lock), "lock_release");
    return NULL;
}

/* With a callback, and let go. */
static void then(struct semel_deferred *deferred, semel_fired_fn fn, struct bench *bench)
{
    kit_need(semel_deferred_then(deferred, fn, NULL, bench), "deferred_then");
    semel_deferred_unref(deferred);
}

static struct semel_deferred *passed(struct semel_fired *fired, void *user)
{
    (void)fired;
    (void)user;
    return NULL;
}

static void run(struct bench *bench)
{
    kit_need(semel_lock_run(bench->lock, body, bench, NULL), "lock_run");
}

static void run_wanted(struct bench *bench)
{
    struct semel_deferred *out;

    kit_need(semel_lock_run(bench->lock, body, bench, &out), "lock_run");
    then(out, passed, bench);
}

static void run_later(struct bench *bench)
{
    struct semel_deferred *out;

    kit_need(semel_lock_run(bench->lock, body_later, bench, &out), "lock_run");
    then(out, passed, bench);
    kit_need(semel_deferred_fire(bench->inner, NULL, NULL), "deferred_fire");
    semel_deferred_unref(bench->inner);
}

static void release_timed(struct bench *bench)
{
    uint64_t before = kit_now_ns();

    kit_need(semel_lock_release(bench->lock), "lock_release");
    bench->handing += kit_now_ns() - before;
}

static void handoff(struct bench *bench)
{
    kit_need(semel_lock_try(bench->lock), "lock_try");
    for (unsigned i = 0; i < bench->n; i++)
        run(bench);
    release_timed(bench);
}

static void acquire(struct bench *bench)
{
    struct semel_deferred *deferred;

    kit_need(semel_lock_try(bench->lock), "lock_try");
    for (unsigned i = 0; i < bench->n; i++) {
        kit_need(semel_lock_acquire(bench->lock, &deferred), "lock_acquire");
        then(deferred, give_back, bench);
    }
    release_timed(bench);
}

static struct semel_deferred *taken(struct semel_fired *fired, void *user)
{
    (void)fired;
    ((struct bench *)user)->ran++;
    return NULL;
}

static void queue(struct bench *bench)
{
    struct semel_deferred *deferred;

    kit_need(semel_queue_put(bench->queue, bench, NULL), "queue_put");
    kit_need(semel_queue_get(bench->queue, &deferred), "queue_get");
    then(deferred, taken, bench);
}

static void queue_wait(struct bench *bench)
{
    struct semel_deferred *deferred;

    kit_need(semel_queue_get(bench->queue, &deferred), "queue_get");
    then(deferred, taken, bench);
    kit_need(semel_queue_put(bench->queue, bench, NULL), "queue_put");
}

static void mutex(struct bench *bench)
{
    (void)pthread_mutex_lock(&bench->mutex);
    bench->ran++;
    (void)pthread_mutex_unlock(&bench->mutex);
}

static const struct {
    const char *name;
    void (*fn)(struct bench *bench);
} figures[] = {
    { "run", run },
    { "run_wanted", run_wanted },
    { "run_later", run_later },
    { "handoff", handoff },
    { "acquire", acquire },
    { "queue", queue },
    { "queue_wait", queue_wait },
    { "mutex", mutex },
};

static void measure(struct bench *bench, const char *name, void (*fn)(struct bench *), double secs)
{
    uint64_t begin, spent = 0;

    for (int i = 0; i < 1000; i++)
        fn(bench);
    bench->ran = bench->handing = 0;
    begin = kit_now_ns();
    while ((double)spent < secs * 1e9) {
        for (int i = 0; i < 100; i++)
            fn(bench);
        spent = kit_now_ns() - begin;
    }
    printf("figure=locks what=%s n=%u rate=%.0f ns=%.1f handoff_ns=%.1f\n", name, bench->n,
           (double)bench->ran / (double)spent * 1e9, (double)spent / (double)bench->ran,
           (double)bench->handing / (double)bench->ran);
}

int main(int argc, char **argv)
{
    const char *what = kit_text(argc, argv, "what", "run");
    double secs = kit_number(argc, argv, "secs", 0.5);
    struct bench bench = { .mutex = PTHREAD_MUTEX_INITIALIZER };

    bench.n = (unsigned)kit_number(argc, argv, "n", 100);
    if (kit_number(argc, argv, "loop", 1) != 0)
        kit_need(semel_loop_create(&bench.loop, NULL), "loop_create");
    kit_need(semel_lock_create(&bench.lock, bench.loop, NULL), "lock_create");
    kit_need(semel_queue_create(&bench.queue, bench.loop, NULL), "queue_create");
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++)
        if (strcmp(what, figures[i].name) == 0)
            measure(&bench, what, figures[i].fn, secs);
    semel_lock_destroy(bench.lock);
    semel_queue_destroy(bench.queue);
    kit_need(semel_loop_destroy(bench.loop), "loop_destroy");
    return bench.ran ? 0 : 2;
}
