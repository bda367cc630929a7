/* SPDX-License-Identifier: MIT */
/* locks.c - locks for remote clients, first come, first served.
 *
 * Everything happens on the thread of one loop: handlers take their request and post it there, and
 * so do cancellations, which may not finish a request. So nothing here needs a lock of its own, and
 * who waits holds no thread.
 *
 * A lock exists while it is held; whoever is in line waits in an open request. Its holder confirms
 * it again and again with lock.keep, a request that stays open for a third of the lease. A holder
 * whose session ends while it is open loses the lock at once; one that is not heard of, when the
 * lease is over: a broken connection ends no session.
 *
 * A visit is a request and its place. Its cancellation may be under way to the loop when it is
 * finished: then it is freed there. */
#include "locks.h"

#include <inttypes.h>
#include <pthread.h>
#include <semel/loop.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "output.h"

#define BUCKETS 1024
#define VISITS_MAX 65536 /* in line, all together */
#define LOCKS_MAX 65536  /* held */

struct lock {
    struct locks *locks;
    struct lock *next; /* in its bucket */
    uint64_t fence;
    bool confirmed;            /* the holder has said that it knows */
    struct visit *keep;        /* an open lock.keep */
    struct semel_timer *timer; /* when to answer it; without one, the end of the lease */
    struct visit *first, *last;
    char name[LOCK_NAME_BYTES + 1];
};

struct visit {
    struct locks *locks;
    struct semel_request *request; /* NULL once it is finished */
    struct lock *lock;             /* in whose line it is, or whose open keep */
    struct visit *next, *previous;
    struct semel_task arrived, cancelled;
    atomic_bool is_cancelled; /* and `cancelled` is posted */
};

struct locks {
    struct semel_loop *loop;
    pthread_t thread;
    int64_t lease_ms;
    uint64_t fence; /* of the last one granted */
    size_t visits, held;
    bool closed;
    struct semel_task close, stop;
    struct lock *table[BUCKETS];
};

/* --- visits ---------------------------------------------------------------------------------- */

/* It is finished: it is freed when no cancellation is under way any more. */
static void visit_free(struct visit *visit)
{
    visit->request = NULL;
    if (!atomic_load(&visit->is_cancelled))
        free(visit);
}

static void visit_reply(struct visit *visit, const char *text)
{
    if (semel_request_reply(visit->request, text, strlen(text)) != SEMEL_OK)
        semel_request_drop(visit->request);
    visit_free(visit);
}

static void visit_fail(struct visit *visit, enum semel_status status)
{
    const char *text = status == SEMEL_EXPIRED ? "the lock is not held under this number (any more)"
                                               : semel_status_text(status);

    if (semel_request_fail(visit->request, (int)status, text) != SEMEL_OK)
        semel_request_drop(visit->request);
    visit_free(visit);
}

static void line_join(struct lock *lock, struct visit *visit)
{
    visit->lock = lock;
    visit->previous = lock->last;
    *(lock->last ? &lock->last->next : &lock->first) = visit;
    lock->last = visit;
    visit->locks->visits++;
}

static void line_leave(struct visit *visit)
{
    struct lock *lock = visit->lock;

    *(visit->previous ? &visit->previous->next : &lock->first) = visit->next;
    *(visit->next ? &visit->next->previous : &lock->last) = visit->previous;
    visit->lock = NULL;
    visit->locks->visits--;
}

/* --- locks ----------------------------------------------------------------------------------- */

static struct lock **place_of(struct locks *locks, const char *name)
{
    uint32_t hash = 2166136261;
    struct lock **at;

    for (const char *byte = name; *byte; byte++)
        hash = (hash ^ (unsigned char)*byte) * 16777619;
    for (at = &locks->table[hash % BUCKETS]; *at && strcmp((*at)->name, name) != 0;)
        at = &(*at)->next;
    return at;
}

static void timer_stop(struct lock *lock)
{
    if (lock->timer && semel_timer_cancel(lock->timer) != SEMEL_OK)
        abort(); /* it belongs to this thread and has not fired */
    lock->timer = NULL;
}

static void pass_on(struct lock *lock);

static void on_timer(void *user)
{
    struct lock *lock = user;
    struct visit *keep = lock->keep;
    int64_t third = lock->locks->lease_ms / 3;

    lock->timer = NULL;
    lock->keep = NULL;
    if (keep && semel_loop_timer(lock->locks->loop, lock->locks->lease_ms - third, on_timer, lock,
                                 &lock->timer) == SEMEL_OK) {
        visit_reply(keep, "");
        return;
    }
    if (keep)
        visit_fail(keep, SEMEL_NO_MEMORY);
    output_note("lock %s: the holder of number %" PRIu64 " is not heard of any more", lock->name,
                lock->fence);
    pass_on(lock);
}

/* The lease begins, or begins anew. */
static bool lease_begin(struct lock *lock, int64_t look_ms)
{
    timer_stop(lock);
    return semel_loop_timer(lock->locks->loop, look_ms, on_timer, lock, &lock->timer) == SEMEL_OK;
}

/* The lock is this visit's, which is in no line, unless the visit is over. False: it is. */
static bool grant(struct lock *lock, struct visit *visit)
{
    struct locks *locks = lock->locks;
    char text[64];

    if (semel_request_cancelled(visit->request)) {
        visit_fail(visit, SEMEL_CANCELLED);
        return false;
    }
    if (!lease_begin(lock, locks->lease_ms)) {
        visit_fail(visit, SEMEL_NO_MEMORY);
        return false;
    }
    lock->fence = ++locks->fence;
    lock->confirmed = false;
    snprintf(text, sizeof text, "%" PRIu64 " %" PRId64, lock->fence, locks->lease_ms);
    visit_reply(visit, text);
    return true;
}

static void lock_free(struct lock *lock)
{
    *place_of(lock->locks, lock->name) = lock->next;
    lock->locks->held--;
    free(lock);
}

/* It is held no more: it is the next one's, or gone. */
static void pass_on(struct lock *lock)
{
    struct visit *keep = lock->keep, *visit;

    timer_stop(lock);
    lock->keep = NULL;
    if (keep)
        visit_fail(keep, SEMEL_EXPIRED);
    while ((visit = lock->first)) {
        line_leave(visit);
        if (grant(lock, visit))
            return;
    }
    lock_free(lock);
}

/* --- cancellations --------------------------------------------------------------------------- */

/* On the loop. */
static void cancelled(void *user)
{
    struct visit *visit = user;
    struct lock *lock = visit->lock;

    if (!visit->request) {
        free(visit);
        return;
    }
    if (lock && lock->keep == visit) {
        lock->keep = NULL;
        if (semel_request_caller_left(visit->request) || !lease_begin(lock, lock->locks->lease_ms))
            pass_on(lock);
    } else if (lock) {
        line_leave(visit);
    }
    atomic_store(&visit->is_cancelled, false); /* this was it: it may be freed */
    visit_fail(visit, SEMEL_CANCELLED);
}

/* On any thread; the request cannot be finished here. */
static void on_cancel(struct semel_request *request, void *user)
{
    struct visit *visit = user;

    (void)request;
    atomic_store(&visit->is_cancelled, true);
    if (semel_loop_post(visit->locks->loop, &visit->cancelled) != SEMEL_OK)
        abort(); /* a request is cancelled once */
}

/* --- what is asked for ------------------------------------------------------------------------ */

static bool name_read(struct semel_bytes text, char name[LOCK_NAME_BYTES + 1])
{
    if (text.size == 0 || text.size > LOCK_NAME_BYTES || memchr(text.data, 0, text.size))
        return false;
    memcpy(name, text.data, text.size);
    name[text.size] = '\0';
    return true;
}

static void take_arrived(void *user)
{
    struct visit *visit = user;
    struct locks *locks = visit->locks;
    char name[LOCK_NAME_BYTES + 1];
    struct lock **at, *lock;

    semel_request_on_cancel(visit->request, on_cancel, visit);
    if (!name_read(semel_request_body(visit->request), name)) {
        visit_fail(visit, SEMEL_INVALID);
        return;
    }
    if (locks->closed || locks->visits == VISITS_MAX || locks->held == LOCKS_MAX) {
        visit_fail(visit, locks->closed ? SEMEL_DRAINING : SEMEL_OVERLOADED);
        return;
    }
    at = place_of(locks, name);
    if (*at) {
        line_join(*at, visit);
        return;
    }
    lock = *at = calloc(1, sizeof *lock);
    if (!lock) {
        visit_fail(visit, SEMEL_NO_MEMORY);
        return;
    }
    lock->locks = locks;
    strcpy(lock->name, name);
    locks->held++;
    if (!grant(lock, visit))
        lock_free(lock);
}

/* The lock of a body "FENCE NAME", if it is held under that number; else NULL, and the visit is
 * finished. */
static struct lock *held_lock(struct visit *visit)
{
    struct semel_bytes body = semel_request_body(visit->request);
    const char *text = body.data, *blank = body.size ? memchr(text, ' ', body.size) : NULL;
    char name[LOCK_NAME_BYTES + 1], digits[24] = "", *end;
    size_t length = blank ? (size_t)(blank - text) : 0;
    struct lock *lock;
    uint64_t fence;

    if (length > 0 && length < sizeof digits)
        memcpy(digits, text, length);
    fence = strtoull(digits, &end, 10);
    if (*digits < '0' || *digits > '9' || *end ||
        !name_read(semel_bytes(blank + 1, body.size - length - 1), name)) {
        visit_fail(visit, SEMEL_INVALID);
        return NULL;
    }
    lock = *place_of(visit->locks, name);
    if (lock && lock->fence == fence)
        return lock;
    visit_fail(visit, SEMEL_EXPIRED);
    return NULL;
}

static void keep_arrived(void *user)
{
    struct visit *visit = user, *before;
    struct locks *locks = visit->locks;
    struct lock *lock = held_lock(visit);
    bool at_once;

    if (!lock)
        return;
    before = lock->keep;
    at_once = !lock->confirmed || locks->closed;
    lock->confirmed = true;
    lock->keep = NULL;
    if (before)
        visit_reply(before, "");
    if (!lease_begin(lock, at_once ? locks->lease_ms : locks->lease_ms / 3)) {
        visit_fail(visit, SEMEL_NO_MEMORY);
        pass_on(lock);
        return;
    }
    if (at_once) {
        visit_reply(visit, "");
        return;
    }
    visit->lock = lock;
    lock->keep = visit;
    semel_request_on_cancel(visit->request, on_cancel, visit);
}

static void release_arrived(void *user)
{
    struct visit *visit = user;
    struct lock *lock = held_lock(visit);

    if (!lock)
        return;
    visit_reply(visit, "");
    pass_on(lock);
}

/* --- handlers -------------------------------------------------------------------------------- */

static void visit_begin(struct semel_request *request, struct locks *locks, semel_task_fn arrived)
{
    struct visit *visit = calloc(1, sizeof *visit);

    if (!visit) {
        if (semel_request_fail(request, SEMEL_NO_MEMORY, "out of memory") != SEMEL_OK)
            semel_request_drop(request);
        return;
    }
    visit->locks = locks;
    visit->request = request;
    visit->arrived = (struct semel_task)SEMEL_TASK_INIT(arrived, visit);
    visit->cancelled = (struct semel_task)SEMEL_TASK_INIT(cancelled, visit);
    semel_request_take(request);
    if (semel_loop_post(locks->loop, &visit->arrived) != SEMEL_OK)
        abort(); /* it is a new one, of this process */
}

static void take(struct semel_request *request, void *user)
{
    visit_begin(request, user, take_arrived);
}

static void keep(struct semel_request *request, void *user)
{
    visit_begin(request, user, keep_arrived);
}

static void release(struct semel_request *request, void *user)
{
    visit_begin(request, user, release_arrived);
}

/* --- beginning and end ------------------------------------------------------------------------ */

static void closing(void *user)
{
    struct locks *locks = user;

    locks->closed = true;
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct lock *lock = locks->table[i]; lock; lock = lock->next) {
            struct visit *visit;

            while ((visit = lock->first)) {
                line_leave(visit);
                visit_fail(visit, SEMEL_DRAINING);
            }
            visit = lock->keep;
            lock->keep = NULL;
            if (visit && lease_begin(lock, locks->lease_ms))
                visit_reply(visit, "");
            else if (visit)
                visit_fail(visit, SEMEL_NO_MEMORY);
        }
    }
}

static void stopping(void *user)
{
    struct locks *locks = user;

    semel_loop_stop(locks->loop);
}

static void *run(void *user)
{
    struct locks *locks = user;

    if (semel_loop_run(locks->loop) != SEMEL_OK)
        abort(); /* nobody else is inside */
    return NULL;
}

/* Higher than those of an earlier server at this place, unless its clock was ahead. */
static uint64_t first_fence(void)
{
    return (uint64_t)clock_ns(CLOCK_REALTIME) / 1000;
}

static enum semel_status export_methods(struct locks *locks, struct semel_server *server)
{
    const struct semel_method_options options = { .kind = SEMEL_IDEMPOTENT };
    enum semel_status status = semel_server_export(server, LOCK_TAKE, take, locks, &options);

    if (status == SEMEL_OK)
        status = semel_server_export(server, LOCK_KEEP, keep, locks, &options);
    if (status == SEMEL_OK)
        status = semel_server_export(server, LOCK_RELEASE, release, locks, &options);
    return status;
}

enum semel_status locks_export(struct locks **out_locks, struct semel_server *server,
                               int64_t lease_ms)
{
    struct locks *locks = calloc(1, sizeof *locks);
    enum semel_status status;

    if (!locks)
        return SEMEL_NO_MEMORY;
    locks->lease_ms = lease_ms;
    locks->fence = first_fence();
    locks->close = (struct semel_task)SEMEL_TASK_INIT(closing, locks);
    locks->stop = (struct semel_task)SEMEL_TASK_INIT(stopping, locks);
    status = semel_loop_create(&locks->loop, NULL);
    if (status == SEMEL_OK && pthread_create(&locks->thread, NULL, run, locks) != 0) {
        if (semel_loop_destroy(locks->loop) != SEMEL_OK)
            abort();
        status = SEMEL_LIMIT;
    }
    if (status != SEMEL_OK) {
        free(locks);
        return status;
    }
    *out_locks = locks;
    return export_methods(locks, server);
}

void locks_close(struct locks *locks)
{
    /* ALREADY is fine: it is being done. */
    if (locks && semel_loop_post(locks->loop, &locks->close) == SEMEL_INVALID)
        abort();
}

void locks_destroy(struct locks *locks)
{
    if (!locks)
        return;
    /* Behind the cancellations: all requests are finished by now. */
    if (semel_loop_post(locks->loop, &locks->stop) != SEMEL_OK)
        abort();
    pthread_join(locks->thread, NULL);
    if (semel_loop_destroy(locks->loop) != SEMEL_OK)
        abort();
    for (size_t i = 0; i < BUCKETS; i++) {
        while (locks->table[i]) {
            struct lock *lock = locks->table[i];

            locks->table[i] = lock->next;
            free(lock);
        }
    }
    free(locks);
}
