/* SPDX-License-Identifier: MIT */
/* loop.h - an event loop: tasks from any thread, timers, descriptors. Run it, or let it live in the
 * loop that the program has already.
 *
 * To embed it, watch semel_loop_fd for reading and call semel_loop_dispatch when it is readable.
 * The descriptor is level-triggered and readable exactly while there is work: a task was posted, a
 * timer is due, a watched descriptor is ready. (Of several threads that post at the same time, the
 * first makes it readable.) A loop that cannot watch a descriptor polls with semel_loop_timeout_ns
 * instead. Adapters for libuv and GLib are in adapters/.
 *
 * Everything runs on one thread at a time, the loop's: the one inside semel_loop_run or
 * semel_loop_dispatch, or else the last one that was. Whoever creates the loop owns it until
 * another thread comes inside. Callbacks may post, arm, cancel, remove, stop and destroy, also
 * themselves; what they remove is not called again, and its memory is given back when the callback
 * has returned. A call that would block on the loop's own thread is WOULD_DEADLOCK.
 *
 * In a process forked from the one that created the loop, everything answers FORKED, or does
 * nothing. */
#ifndef SEMEL_LOOP_H
#define SEMEL_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <semel/log.h>
#include <semel/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct semel_loop;
struct semel_timer; /* thread: loop thread */
struct semel_watch; /* thread: loop thread */

typedef void (*semel_task_fn)(void *user);

/* Something to be run once on the loop's thread. The memory is the caller's, lent from a post that
 * returned OK until `fn` begins; it may be posted again, changed or freed from then on, also by
 * `fn`. */
struct semel_task {
    semel_task_fn fn;
    void *user;
    struct semel_task *next; /* the loop's; NULL before the first post */
};
#define SEMEL_TASK_INIT(fn, user)                                                                  \
    {                                                                                              \
        (fn), (user), NULL                                                                         \
    }

/* Zero everywhere selects the defaults. */
struct semel_loop_options {
    uint32_t turn_tasks; /* posted tasks run between two looks at descriptors; default 1024 */
    semel_log_fn log;    /* failures that nobody handled, and the like; borrowed until destroy */
    void *log_user;
};
#define SEMEL_LOOP_OPTIONS_INIT                                                                    \
    {                                                                                              \
        0, NULL, NULL                                                                              \
    }

/* out: owned by caller. options: borrowed; NULL for the defaults. Returns: OK; INVALID; NO_MEMORY,
 * SYSTEM, LIMIT. Thread: any thread. Blocks: no. Since: 0.3 */
SEMEL_API enum semel_status semel_loop_create(struct semel_loop **out,
                                              const struct semel_loop_options *options)
    SEMEL_MUST_USE;

/* End the loop and free it: tasks that wait are dropped (their memory is the caller's again),
 * timers and watches are removed, uncalled. In a callback of the loop: when the outermost callback
 * has returned, and what was created since is gone; run or dispatch then returns STOPPED. Returns:
 * OK, also for NULL; ALREADY while another thread is inside run or dispatch, or while deferreds,
 * locks, queues or waits of this loop are alive: nothing was done; FORKED. Thread: any thread, and
 * none may use the loop afterwards; one that posted the task, or asked for the stop, after which
 * the loop is destroyed, may still be about to return. Blocks: no. Since: 0.3 */
SEMEL_API enum semel_status semel_loop_destroy(struct semel_loop *loop) SEMEL_MUST_USE;

/* Run `task` once on the loop's thread, after what was posted before by this thread. Returns: OK;
 * ALREADY: it waits already, and when it runs it sees what was written before this call; INVALID:
 * loop, task or its fn is NULL; FORKED. Thread: any thread. Blocks: no. Allocates nothing.
 * Since: 0.3 */
SEMEL_API enum semel_status semel_loop_post(struct semel_loop *loop, struct semel_task *task)
    SEMEL_MUST_USE;

/* Serve until semel_loop_stop. Returns: OK: stopped; STOPPED: destroyed meanwhile;
 * WOULD_DEADLOCK: called in a callback of this loop; ALREADY: another thread is inside; INVALID;
 * FORKED. Thread: any thread, which is the loop's from here on. Blocks: yes. Since: 0.3 */
SEMEL_API enum semel_status semel_loop_run(struct semel_loop *loop) SEMEL_MUST_USE;

/* Make semel_loop_run return when the current callback does; if nobody runs it, the next run
 * returns at once; what waits, waits on. Dispatch does not care. Thread: any thread, signal-safe.
 * Blocks: no. Since: 0.3 */
SEMEL_API void semel_loop_stop(struct semel_loop *loop);

/* Do what is ready now (each source at most once, up to 128 descriptors, tasks up to turn_tasks)
 * and return. Returns: as semel_loop_run, at once. Thread: as semel_loop_run. Blocks: no.
 * Since: 0.3 */
SEMEL_API enum semel_status semel_loop_dispatch(struct semel_loop *loop) SEMEL_MUST_USE;

/* The descriptor to embed the loop by: owned by the loop, only to be watched for reading; a copy
 * made by dup() serves as well and may outlive the loop. Never negative; -1 for NULL.
 * Thread: any thread. Since: 0.3 */
SEMEL_API int semel_loop_fd(const struct semel_loop *loop);

/* How long until semel_loop_dispatch has something to do, in ns: 0 for now, -1 for never as far as
 * can be known; a post, or a watched descriptor that becomes ready, may shorten it. On another
 * thread than the loop's always 0. Thread: loop thread. Since: 0.3 */
SEMEL_API int64_t semel_loop_timeout_ns(const struct semel_loop *loop);

/* Is this thread inside a callback of the loop? Thread: any thread, signal-safe. Since: 0.3 */
SEMEL_API bool semel_loop_is_here(const struct semel_loop *loop);

/* Call fn(user) once, delay_ms (0 .. 2^31-1) from now, never early; 0 is in the next turn. out: may
 * be NULL; else the timer, valid until fn has returned or it is cancelled. Returns: OK; INVALID;
 * NO_MEMORY; DENIED: not the loop's thread; FORKED. Thread: loop thread. Blocks: no. Since: 0.3 */
SEMEL_API enum semel_status semel_loop_timer(struct semel_loop *loop, int64_t delay_ms,
                                             semel_task_fn fn, void *user, struct semel_timer **out)
    SEMEL_MUST_USE;

/* The timer does not fire. Returns: OK; ALREADY: its fn is running, or it was cancelled in this
 * callback; DENIED: not the loop's thread, nothing was done; INVALID: NULL; FORKED. Thread: loop
 * thread. Since: 0.3 */
SEMEL_API enum semel_status semel_timer_cancel(struct semel_timer *timer);

enum semel_watch_events {
    SEMEL_WATCH_READ = 1,
    SEMEL_WATCH_WRITE = 2,
    SEMEL_WATCH_HANGUP = 4 /* the other end is gone, or an error waits; told always */
};

/* `events` are those that are there. */
typedef void (*semel_watch_fn)(struct semel_watch *watch, unsigned events, void *user);

/* Call fn while `fd` is ready for one of `events` (0: paused), level-triggered. fd: lent until
 * the watch is removed; a descriptor has one watch per loop. out: may be NULL. Returns: OK;
 * INVALID; ALREADY: fd has a watch; NO_MEMORY, SYSTEM (fd cannot be watched: a regular file, the
 * loop's own), LIMIT; DENIED: not the loop's thread; FORKED. Thread: loop thread. Blocks: no.
 * Since: 0.3 */
SEMEL_API enum semel_status semel_loop_watch(struct semel_loop *loop, int fd, unsigned events,
                                             semel_watch_fn fn, void *user,
                                             struct semel_watch **out) SEMEL_MUST_USE;

/* From now on these events; 0 pauses it: not even a hang-up is told. Returns: OK; INVALID, also
 * when it was removed in this callback; SYSTEM: the descriptor was closed; NO_MEMORY, LIMIT;
 * DENIED; FORKED. Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_watch_change(struct semel_watch *watch, unsigned events)
    SEMEL_MUST_USE;

/* No call follows, not even of events that were seen before. The descriptor stays open. Returns:
 * OK; ALREADY: it was removed in this callback; DENIED: not the loop's thread, nothing was done;
 * INVALID: NULL; FORKED. Thread: loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_watch_remove(struct semel_watch *watch);

#ifdef __cplusplus
}
#endif
#endif
