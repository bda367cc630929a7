/* SPDX-License-Identifier: MIT */
/* lock.h - locks and semaphores that are waited for without blocking a thread.
 *
 * They belong to a loop's thread and are FIFO: a permit that is released goes to the one that has
 * waited longest, at once; nobody overtakes. Waiting is a deferred; cancelled, it leaves the line
 * in O(1), and no permit is lost. A failure of OVERLOADED is a line that is full.
 *
 * semel_lock_run is the way that cannot leak a permit: it waits, runs a body, and releases when the
 * body's own deferred has its result, whatever that is, cancelled ones included. A body that is
 * done when it returns costs no allocation, and any number of such bodies may wait in line: they
 * run one after another in a constant amount of stack. */
#ifndef SEMEL_LOCK_H
#define SEMEL_LOCK_H

#include <stdint.h>

#include <semel/deferred.h>
#include <semel/loop.h>
#include <semel/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A semaphore of one permit, or of several. Thread: loop thread. */
struct semel_lock;

struct semel_lock_options {
    uint32_t permits; /* 1 .. 2^31-1; default 1, a lock */
    uint32_t waiting; /* most that may wait at once, 1 .. 2^31-1; default 1,048,576 */
};
#define SEMEL_LOCK_OPTIONS_INIT { 0, 0 }

/* out: owned by caller. loop: lent until destroyed; NULL: the owner thread's, without a loop.
 * options: borrowed; NULL for the defaults. Returns: OK; INVALID; NO_MEMORY. Thread: loop thread.
 * Since: 0.3 */
SEMEL_API enum semel_status semel_lock_create(struct semel_lock **out, struct semel_loop *loop,
                                              const struct semel_lock_options *options)
    SEMEL_MUST_USE;

/* Those that wait fail with STOPPED; permits that are out need not come back. Legal in a callback of
 * one of them. NULL is fine. Thread: loop thread. Since: 0.3 */
SEMEL_API void semel_lock_destroy(struct semel_lock *lock);

/* *out (owned by caller) fires with a value NULL when a permit is this caller's, who then owes one
 * semel_lock_release. Returns: OK; OVERLOADED; NO_MEMORY; DENIED: the wrong thread.
 * Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_lock_acquire(struct semel_lock *lock, struct semel_deferred **out)
    SEMEL_MUST_USE;

/* A permit now, or none: OK; OVERLOADED: there is none free, or somebody waits. Since: 0.3 */
SEMEL_API enum semel_status semel_lock_try(struct semel_lock *lock) SEMEL_MUST_USE;

/* Give a permit back; the next in line has it before this returns. Returns: OK; INVALID: none is
 * out, nothing was done; DENIED. Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_lock_release(struct semel_lock *lock) SEMEL_MUST_USE;

/* What is run under a permit. Returns NULL when it is done: `fired` is the result, a value NULL
 * unless it was set; or a deferred (moved) whose result it is. */
typedef struct semel_deferred *(*semel_body_fn)(struct semel_fired *fired, void *user);

/* Run `body` under a permit, now or in its turn. out: NULL, and then the result is let go, a failure
 * reported as unhandled; else the result's deferred, owned by caller. Cancelled while it waits, the
 * body never runs; while it runs, its deferred is cancelled. Returns: OK; OVERLOADED; NO_MEMORY: the
 * body has not run and will not; DENIED. Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_lock_run(struct semel_lock *lock, semel_body_fn body, void *user,
                                           struct semel_deferred **out) SEMEL_MUST_USE;

/* Permits that are out; callers that wait. Thread: loop thread. Since: 0.3 */
SEMEL_API uint32_t semel_lock_held(const struct semel_lock *lock);
SEMEL_API uint32_t semel_lock_waiting(const struct semel_lock *lock);

/* --- a lock among processes --------------------------------------------------------------------- */

struct semel_file_lock; /* thread: any thread, one at a time */

/* A lock named by a path; it creates PATH and never removes it. It is held by the process, ends with
 * it, however it ends, and says who holds it. out: owned by caller. Returns: OK; INVALID; SYSTEM;
 * NO_MEMORY. Blocks: no. Since: 0.3 */
SEMEL_API enum semel_status semel_file_lock_create(struct semel_file_lock **out, const char *path)
    SEMEL_MUST_USE;

/* Let go, and free it. A deferred that waits for it fails with STOPPED. NULL is fine. Since: 0.3 */
SEMEL_API void semel_file_lock_destroy(struct semel_file_lock *lock);

/* Take it, waiting at most timeout_ms (0: not at all; negative: for ever). Returns: OK; OVERLOADED:
 * somebody else holds it, and timeout_ms is 0; DEADLINE; ALREADY: this one holds it, or waits for it;
 * WOULD_DEADLOCK: on a loop's own thread; SYSTEM; FORKED. Blocks: up to timeout_ms. Since: 0.3 */
SEMEL_API enum semel_status semel_file_lock_take(struct semel_file_lock *lock, int64_t timeout_ms)
    SEMEL_MUST_USE;

/* The same as a deferred of `loop`, owned by caller; cancelled, it does not hold the lock. Fails
 * with DEADLINE. Returns: OK; ALREADY; INVALID; NO_MEMORY; SYSTEM. Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_file_lock_defer(struct semel_file_lock *lock,
                                                  struct semel_loop *loop, int64_t timeout_ms,
                                                  struct semel_deferred **out) SEMEL_MUST_USE;

/* Returns: OK; INVALID: this one does not hold it, nothing was done; FORKED. Since: 0.3 */
SEMEL_API enum semel_status semel_file_lock_release(struct semel_file_lock *lock) SEMEL_MUST_USE;

/* The process that holds it, as far as it can be told: its number; 0: nobody; -1: unknown.
 * Since: 0.3 */
SEMEL_API int64_t semel_file_lock_holder(struct semel_file_lock *lock);

#ifdef __cplusplus
}
#endif
#endif
