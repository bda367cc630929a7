/* SPDX-License-Identifier: MIT */
/* file_lock.c - a lock among processes, waited for by a thread or by a loop.
 *
 * The kernel cannot be asked to wake us at a deadline or to stop waiting, so who waits tries again:
 * when the bell rings (os/lockfile.h), soon after that, and now and then in any case, for file
 * systems without bells. Nobody is first in line.
 *
 * The bell stays open for as long as the handle: closing one takes the kernel some milliseconds,
 * which a loop must not wait.
 *
 * `state` says what the handle is doing. Who waits has the lock file to itself, and takes it
 * without holding the mutex. A deferred's wait belongs to its loop's thread: trying, cancelling and
 * the deadline cannot meet. Either the lock is taken and the deferred fires with that, or
 * neither. */
#include <semel/lock.h>
#include <stdlib.h>
#include <string.h>

#include "async/deferred.h"
#include "base/time.h"
#include "os/clock.h"
#include "os/lockfile.h"
#include "os/mutex.h"
#include "os/process.h"
#include "os/thread.h"
#include "rpc/commit.h"

#define PAUSE_MIN SML_MS
#define PAUSE_MAX (500 * SML_MS)
#define PAUSE_MAX_NO_BELL (50 * SML_MS)

enum state { FREE, WAITING, HELD };

struct semel_file_lock {
    struct sml_origin origin;
    struct sml_lockfile file; /* of whoever waits, or holds it */
    int bell;                 /* likewise; -1: none */

    struct sml_mutex mutex;
    enum state state;
    bool closed;       /* destroyed; freed by who waits, if somebody does */
    struct wait *wait; /* a deferred waits; else NULL */

    char path[]; /* constant */
};

/* Lies beside its deferred, and owns a reference to it. The loop's thread. */
struct wait {
    struct semel_file_lock *lock;
    struct semel_deferred *out;
    struct semel_watch *watch; /* NULL: no bell */
    struct sml_moment moment;
    uint64_t deadline, pause;
};

/* --- waiting, in general --------------------------------------------------------------------- */

static uint64_t deadline_of(int64_t timeout_ms)
{
    if (timeout_ms < 0 || (uint64_t)timeout_ms > SML_NEVER / SML_MS)
        return SML_NEVER;
    return sml_time_add(sml_clock_now(), (uint64_t)timeout_ms * SML_MS);
}

static void open_bell(struct semel_file_lock *lock)
{
    if (lock->bell < 0)
        lock->bell = sml_lockfile_watch(lock->path);
    else
        sml_lockfile_watch_drain(lock->bell);
}

/* How long to wait after a pause of this length brought nothing. */
static uint64_t longer(const struct semel_file_lock *lock, uint64_t pause)
{
    return sml_time_min(2 * pause, lock->bell < 0 ? PAUSE_MAX_NO_BELL : PAUSE_MAX);
}

/* Only one may wait. */
static enum semel_status enter(struct semel_file_lock *lock)
{
    enum semel_status status = SEMEL_OK;

    sml_mutex_lock(&lock->mutex);
    if (lock->closed)
        status = SEMEL_STOPPED;
    else if (lock->state != FREE)
        status = SEMEL_ALREADY;
    else
        lock->state = WAITING;
    sml_mutex_unlock(&lock->mutex);
    return status;
}

static void lock_free(struct semel_file_lock *lock)
{
    if (lock->file.hold)
        sml_lockfile_release(&lock->file);
    sml_lockfile_watch_close(lock->bell);
    sml_mutex_fini(&lock->mutex);
    sml_origin_fini(&lock->origin);
    free(lock);
}

/* The wait ended so. If the handle was destroyed meanwhile, it is gone, and this is STOPPED. */
static enum semel_status leave(struct semel_file_lock *lock, enum semel_status status)
{
    bool closed;

    sml_mutex_lock(&lock->mutex);
    lock->state = status == SEMEL_OK ? HELD : FREE;
    lock->wait = NULL;
    closed = lock->closed;
    sml_mutex_unlock(&lock->mutex);
    if (!closed)
        return status;
    lock_free(lock);
    return SEMEL_STOPPED;
}

/* --- a thread that waits --------------------------------------------------------------------- */

static bool is_closed(struct semel_file_lock *lock)
{
    bool closed;

    sml_mutex_lock(&lock->mutex);
    closed = lock->closed;
    sml_mutex_unlock(&lock->mutex);
    return closed;
}

static enum semel_status wait_blocking(struct semel_file_lock *lock, uint64_t deadline)
{
    uint64_t pause = PAUSE_MIN;

    open_bell(lock);
    for (;;) {
        enum semel_status status = sml_lockfile_take(&lock->file, lock->path);
        uint64_t now = sml_clock_now();

        if (status != SEMEL_OVERLOADED || is_closed(lock))
            return status;
        if (now >= deadline)
            return SEMEL_DEADLINE;
        if (sml_lockfile_watch_wait(lock->bell, sml_time_min(pause, deadline - now)))
            pause = PAUSE_MIN;
        else
            pause = longer(lock, pause);
    }
}

enum semel_status semel_file_lock_take(struct semel_file_lock *lock, int64_t timeout_ms)
{
    enum semel_status status;
    uint64_t deadline;

    if (lock == NULL)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&lock->origin))
        return SEMEL_FORKED;
    if (timeout_ms != 0 && (sml_thread_in_loop() || sml_in_transaction()))
        return SEMEL_WOULD_DEADLOCK;
    deadline = deadline_of(timeout_ms);
    status = enter(lock);
    if (status != SEMEL_OK)
        return status;
    status = sml_lockfile_take(&lock->file, lock->path);
    if (status == SEMEL_OVERLOADED && timeout_ms != 0)
        status = wait_blocking(lock, deadline);
    return leave(lock, status);
}

/* --- a deferred that waits ------------------------------------------------------------------- */

static void stop_waiting(struct wait *wait)
{
    struct sml_executor *executor = sml_deferred_executor(wait->out);

    if (wait->watch)
        semel_watch_remove(wait->watch);
    wait->watch = NULL;
    executor->ops->disarm(executor, &wait->moment);
}

/* `wait` is gone afterwards. The claim comes before the lock is said to be held: if others have
 * fired the deferred nobody would know. The result comes after it: its callbacks may release. */
static void finish(struct wait *wait, enum semel_status status)
{
    struct semel_file_lock *lock = wait->lock;
    struct semel_deferred *out = wait->out;
    bool mine = sml_deferred_claim(out) == SEMEL_OK;
    struct semel_fired fired;

    stop_waiting(wait);
    if (status == SEMEL_OK && !mine) {
        sml_lockfile_release(&lock->file);
        status = SEMEL_ALREADY;
    }
    status = leave(lock, status);
    sml_fired_init(&fired);
    if (status != SEMEL_OK)
        sml_fired_fail(&fired, status, 0, NULL);
    if (mine) {
        sml_fired_move(&out->fired, &fired);
        sml_deferred_arrive(out);
    }
    semel_deferred_unref(out);
}

static void arm(struct wait *wait)
{
    struct sml_executor *executor = sml_deferred_executor(wait->out);
    uint64_t at = sml_time_add(executor->ops->now(executor), wait->pause);

    executor->ops->arm(executor, &wait->moment, sml_time_min(at, wait->deadline));
}

static void try_again(struct wait *wait)
{
    struct sml_executor *executor = sml_deferred_executor(wait->out);
    enum semel_status status = sml_lockfile_take(&wait->lock->file, wait->lock->path);

    if (status == SEMEL_OVERLOADED && executor->ops->now(executor) >= wait->deadline)
        status = SEMEL_DEADLINE;
    if (status == SEMEL_OVERLOADED && is_closed(wait->lock))
        status = SEMEL_STOPPED;
    if (status == SEMEL_OVERLOADED)
        arm(wait);
    else
        finish(wait, status);
}

static void time_has_come(struct sml_moment *moment)
{
    struct wait *wait = SML_CONTAINER(moment, struct wait, moment);

    wait->pause = longer(wait->lock, wait->pause);
    try_again(wait);
}

static void bell_rings(struct semel_watch *watch, unsigned events, void *user)
{
    struct wait *wait = user;

    (void)watch;
    (void)events;
    sml_lockfile_watch_drain(wait->lock->bell);
    wait->pause = PAUSE_MIN;
    try_again(wait);
}

static bool cancel_wait(struct semel_deferred *out, void *user)
{
    struct wait *wait = sml_deferred_extra(out);
    enum semel_status ignored = SEMEL_OK; /* it may have fired */

    (void)user;
    stop_waiting(wait);
    if (leave(wait->lock, SEMEL_CANCELLED) == SEMEL_STOPPED)
        ignored = semel_deferred_fail(out, SEMEL_STOPPED, 0, NULL);
    (void)ignored;
    semel_deferred_unref(out);
    return false;
}

/* The lock is held by others: `out` waits from here on. */
static void start_waiting(struct semel_file_lock *lock, struct semel_loop *loop,
                          struct semel_deferred *out, uint64_t deadline)
{
    struct wait *wait = sml_deferred_extra(out);

    *wait = (struct wait){
        .lock = lock,
        .out = semel_deferred_ref(out),
        .deadline = deadline,
        .pause = PAUSE_MIN,
    };
    sml_moment_init(&wait->moment, time_has_come);
    open_bell(lock);
    if (lock->bell >= 0 && semel_loop_watch(loop, lock->bell, SEMEL_WATCH_READ, bell_rings, wait,
                                            &wait->watch) != SEMEL_OK)
        wait->watch = NULL;
    sml_mutex_lock(&lock->mutex);
    lock->wait = wait;
    sml_mutex_unlock(&lock->mutex);
    arm(wait);
}

static enum semel_status defer(struct semel_file_lock *lock, struct semel_loop *loop,
                               int64_t timeout_ms, struct semel_deferred **out)
{
    uint64_t deadline = deadline_of(timeout_ms);
    struct semel_deferred *deferred =
        sml_deferred_new(sml_executor_of(loop), cancel_wait, NULL, sizeof(struct wait));
    enum semel_status status = SEMEL_NO_MEMORY;

    if (deferred)
        status = sml_lockfile_take(&lock->file, lock->path);
    if (status == SEMEL_OVERLOADED && timeout_ms != 0) {
        *out = deferred;
        start_waiting(lock, loop, deferred, deadline);
        return SEMEL_OK;
    }
    status = leave(lock, status);
    if (status != SEMEL_OK) {
        semel_deferred_unref(deferred);
        return status;
    }
    *out = deferred;
    return semel_deferred_fire(deferred, NULL, NULL);
}

enum semel_status semel_file_lock_defer(struct semel_file_lock *lock, struct semel_loop *loop,
                                        int64_t timeout_ms, struct semel_deferred **out)
{
    enum semel_status status;

    if (lock == NULL || loop == NULL || out == NULL)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&lock->origin))
        return SEMEL_FORKED;
    if (!sml_executor_is_here(sml_executor_of(loop)))
        return SEMEL_DENIED;
    status = enter(lock);
    return status == SEMEL_OK ? defer(lock, loop, timeout_ms, out) : status;
}

/* --- the handle ------------------------------------------------------------------------------ */

enum semel_status semel_file_lock_create(struct semel_file_lock **out, const char *path)
{
    size_t bytes = path ? strlen(path) + 1 : 0;
    struct semel_file_lock *lock;
    enum semel_status status;

    if (out == NULL || bytes < 2)
        return SEMEL_INVALID;
    status = sml_lockfile_make(path);
    if (status != SEMEL_OK)
        return status;
    lock = calloc(1, sizeof *lock + bytes);
    if (lock == NULL)
        return SEMEL_NO_MEMORY;
    memcpy(lock->path, path, bytes);
    lock->bell = -1;
    lock->state = FREE;
    sml_origin_init(&lock->origin);
    sml_mutex_init(&lock->mutex);
    *out = lock;
    return SEMEL_OK;
}

/* In a forked child nothing is held, and the mutex is as it was in the parent at that moment. */
static void free_in_child(struct semel_file_lock *lock)
{
    sml_lockfile_watch_close(lock->bell);
    sml_origin_fini(&lock->origin);
    free(lock);
}

void semel_file_lock_destroy(struct semel_file_lock *lock)
{
    struct semel_deferred *out = NULL;
    bool is_awaited;

    if (lock == NULL)
        return;
    if (!sml_origin_is_mine(&lock->origin)) {
        free_in_child(lock);
        return;
    }
    sml_mutex_lock(&lock->mutex);
    is_awaited = lock->state == WAITING;
    lock->closed = true;
    if (lock->wait)
        out = semel_deferred_ref(lock->wait->out);
    sml_mutex_unlock(&lock->mutex);
    if (!is_awaited)
        lock_free(lock);
    semel_deferred_cancel(out); /* on its loop's thread, now or soon */
    semel_deferred_unref(out);
}

enum semel_status semel_file_lock_release(struct semel_file_lock *lock)
{
    enum semel_status status = SEMEL_OK;

    if (lock == NULL)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&lock->origin))
        return SEMEL_FORKED;
    sml_mutex_lock(&lock->mutex);
    if (lock->state == HELD) {
        sml_lockfile_release(&lock->file);
        lock->state = FREE;
    } else {
        status = SEMEL_INVALID;
    }
    sml_mutex_unlock(&lock->mutex);
    return status;
}

int64_t semel_file_lock_holder(const struct semel_file_lock *lock)
{
    return lock ? sml_lockfile_holder(lock->path) : -1;
}
