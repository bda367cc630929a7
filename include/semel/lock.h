/* SPDX-License-Identifier: MIT */
/* lock.h - locks and semaphores that are waited for without blocking a thread; a lock among
 * processes.
 *
 * They belong to a loop's thread and are FIFO: a permit that is released goes to the one that has
 * waited longest, at once; nobody overtakes. Waiting is a deferred; cancelled, it leaves the line
 * in O(1), and no permit is lost. A failure of OVERLOADED is a line that is full.
 *
 * semel_lock_run is the way that cannot leak a permit: it waits, runs a body, and releases when the
 * body's own deferred has its result, whatever that is, cancelled ones included, or when nobody is
 * left who would fire it. A body that is done when it returns costs no allocation if a permit is
 * free and its result is not wanted, and any number of bodies may wait in line: they run one after
 * another in a constant amount of stack.
 *
 * In a callback of a lock (a body, what waits for a permit or a body's result) all of this may be
 * called, destroy too. What is released there is the next one's at once, but that one's callback is
 * called when this one has returned. */
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
 * options: borrowed; NULL for the defaults. Returns: OK; INVALID; NO_MEMORY; DENIED: the wrong
 * thread. Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_lock_create(struct semel_lock **out, struct semel_loop *loop,
                                              const struct semel_lock_options *options)
    SEMEL_MUST_USE;

/* Those that wait fail with STOPPED, bodies in line never run; permits that are out need not come
 * back, and bodies that run go on to their end. In a callback of the lock it is freed when the
 * outermost one has returned; until then what is called of it is STOPPED. NULL is fine; on another
 * thread nothing is done. Thread: loop thread. Since: 0.3 */
SEMEL_API void semel_lock_destroy(struct semel_lock *lock);

/* *out (owned by caller) fires with a value NULL when a permit is this caller's, who then owes one
 * semel_lock_release. Returns: OK; INVALID; OVERLOADED; NO_MEMORY; DENIED: the wrong thread;
 * STOPPED. Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_lock_acquire(struct semel_lock *lock, struct semel_deferred **out)
    SEMEL_MUST_USE;

/* A permit now, or none. Returns: OK; OVERLOADED: there is none free; INVALID; DENIED; STOPPED.
 * Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_lock_try(struct semel_lock *lock) SEMEL_MUST_USE;

/* Give a permit back; the next in line has it before this returns. Returns: OK; INVALID: none is
 * out, nothing was done; DENIED; STOPPED. Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_lock_release(struct semel_lock *lock) SEMEL_MUST_USE;

/* What is run under a permit. Returns NULL when it is done: `fired` is the result, a value NULL
 * unless it was set; or a deferred (moved) of the same loop, whose result it is: DROPPED, if that
 * is let go by all before it fires. */
typedef struct semel_deferred *(*semel_body_fn)(struct semel_fired *fired, void *user);

/* Run `body` under a permit, now or in its turn. out: NULL, and then the result is let go, a
 * failure reported as unhandled; else the result's deferred, owned by caller. Cancelled while it
 * waits, the body never runs; while it runs, its deferred is cancelled. The permit is handed on,
 * then the result is told, then the next one's turn begins. Returns: OK; INVALID, OVERLOADED,
 * NO_MEMORY, DENIED, STOPPED: the body has not run and will not. Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_lock_run(struct semel_lock *lock, semel_body_fn body, void *user,
                                           struct semel_deferred **out) SEMEL_MUST_USE;

/* Permits that are out; callers that wait for one. Thread: loop thread. Since: 0.3 */
SEMEL_API uint32_t semel_lock_held(const struct semel_lock *lock);
SEMEL_API uint32_t semel_lock_waiting(const struct semel_lock *lock);

/* --- a lock among processes ------------------------------------------------------------------ */

struct semel_file_lock; /* thread: any thread */

/* A lock named by a path. It makes the file (mode 0600) and neither writes to it nor removes it; it
 * must not be removed while somebody may use it. The lock is held by the process: not by children
 * forked from it, and it ends with the process however that ends, or with its exec. Two of these in
 * one process exclude each other too. path: borrowed; best an absolute one. out: owned by caller.
 * Returns: OK; INVALID: also what is no regular file; DENIED, LIMIT, SYSTEM; NO_MEMORY. Thread: any
 * thread. Blocks: no. Since: 0.3 */
SEMEL_API enum semel_status semel_file_lock_create(struct semel_file_lock **out, const char *path)
    SEMEL_MUST_USE;

/* Let go, and free it. Who waits for it ends with STOPPED, at once or soon. NULL is fine. In a
 * forked child only the child's memory is freed. Thread: any thread. Blocks: no, but closing what
 * tells of others that let go takes the kernel some milliseconds. Since: 0.3 */
SEMEL_API void semel_file_lock_destroy(struct semel_file_lock *lock);

/* Take it, waiting at most timeout_ms (0: not at all; negative: for ever). Nobody is first in line.
 * Returns: OK; OVERLOADED: somebody else holds it, and timeout_ms is 0; DEADLINE; ALREADY: this one
 * holds it, or waits for it; WOULD_DEADLOCK: on a loop's own thread, unless timeout_ms is 0;
 * STOPPED: destroyed meanwhile; INVALID, DENIED, LIMIT, NO_MEMORY, SYSTEM: it cannot be locked;
 * FORKED. Thread: any thread. Blocks: up to timeout_ms. Since: 0.3 */
SEMEL_API enum semel_status semel_file_lock_take(struct semel_file_lock *lock, int64_t timeout_ms)
    SEMEL_MUST_USE;

/* The same as a deferred of `loop`, owned by caller. It fires with a value NULL when the lock is
 * held, or fails as semel_file_lock_take does. Cancelled, it does not hold the lock. Returns: OK;
 * what the first try ended with, unless it is to wait; ALREADY; INVALID; NO_MEMORY; DENIED: not the
 * loop's thread; STOPPED; FORKED. Thread: loop
 * thread. Blocks: no. Since: 0.3 */
SEMEL_API enum semel_status semel_file_lock_defer(struct semel_file_lock *lock,
                                                  struct semel_loop *loop, int64_t timeout_ms,
                                                  struct semel_deferred **out) SEMEL_MUST_USE;

/* Returns: OK; INVALID: this one does not hold it, nothing was done; FORKED. Thread: any thread.
 * Blocks: no. Since: 0.3 */
SEMEL_API enum semel_status semel_file_lock_release(struct semel_file_lock *lock) SEMEL_MUST_USE;

/* The process that holds it, in its own numbering; 0: nobody; -1: it cannot be told. Thread: any
 * thread. Blocks: no. Since: 0.3 */
SEMEL_API int64_t semel_file_lock_holder(const struct semel_file_lock *lock);

#ifdef __cplusplus
}
#endif
#endif
