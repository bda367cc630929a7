/* SPDX-License-Identifier: MIT */
/* task.h - work that is done elsewhere, seen from one loop: what it brings, how far it is, its end.
 *
 * A task is a call with a stream. The method runs in a worker process, or wherever a client leads
 * to: another thread, another machine. Who submitted it has a *future*: its state, what the task
 * reports, one by one, its progress, its result. Everything is told on the loop's thread.
 *
 *     WAITING --------> EXECUTING --------> COMPLETED   it returned a value
 *        |                  |  '----------> FAILED      anything else
 *        | cancel           | cancel
 *        '--> CANCELLING <--'
 *                 '-----------------------> CANCELLED   however it ended then
 *
 * A task that has ended without a sign of its beginning goes from WAITING to FAILED.
 *
 * A failure is what the task said (code, text, trace) or what became of it: a worker that died with
 * the task fails it, and the text says by which signal, or with which exit code. Then the result's
 * outcome says whether it happened.
 *
 * Thread: everything here is for the loop's thread, callbacks included, unless it says otherwise;
 * DENIED elsewhere, or nothing. Callbacks may cancel, submit, stop and give references back; they
 * may not destroy the executor. */
#ifndef SEMEL_TASK_H
#define SEMEL_TASK_H

#include <stdbool.h>
#include <stdint.h>

#include <semel/client.h>
#include <semel/loop.h>
#include <semel/pool.h>
#include <semel/server.h>
#include <semel/stream.h>

#ifdef __cplusplus
extern "C" {
#endif

struct semel_executor; /* thread: loop thread */
struct semel_future;   /* shared; thread: loop thread */

/* --- futures -------------------------------------------------------------------------------- */

enum semel_future_state {
    SEMEL_FUTURE_WAITING,    /* nothing is known of its beginning */
    SEMEL_FUTURE_EXECUTING,  /* its body runs */
    SEMEL_FUTURE_COMPLETED,  /* done: its value is there */
    SEMEL_FUTURE_FAILED,     /* done: why is there */
    SEMEL_FUTURE_CANCELLING, /* it was cancelled; its body may still run */
    SEMEL_FUTURE_CANCELLED   /* done: cancelled, without a result */
};

/* What a change of state changes. Cancellable: WAITING or EXECUTING. */
enum semel_future_change {
    SEMEL_CHANGED_STATE = 1,
    SEMEL_CHANGED_CANCELLABLE = 2, /* it was, and is not any more */
    SEMEL_CHANGED_DONE = 4         /* this is the last callback */
};

/* `changes`: enum semel_future_change, or-ed. The future answers with what is now. It also comes
 * inside semel_future_cancel, semel_executor_stop, _shutdown and _destroy. */
typedef void (*semel_future_changed_fn)(struct semel_future *future, unsigned changes, void *user);

/* `bytes` are borrowed. */
typedef void (*semel_future_bytes_fn)(struct semel_future *future, struct semel_bytes bytes,
                                      void *user);

/* Zero everywhere selects the defaults. Callbacks may be NULL. None comes once the future is done,
 * and `user` is not used any more then; of items, progress and beginning again none comes once it
 * was cancelled. */
struct semel_task_options {
    semel_future_changed_fn on_change;
    semel_future_bytes_fn on_item;     /* what the task reports, in order; each once */
    semel_future_bytes_fn on_progress; /* the latest; may overtake items; never empty */
    void (*on_restart)(struct semel_future *future, void *user); /* the body began again, in another
                                      worker: the items until now are void */
    void *user;
    int64_t deadline_ms;      /* the whole task, from now; 0: SEMEL_TASK_DEADLINE_MS; 1 .. 2^31-1 */
    bool rerun_ok;            /* as in struct semel_call_options */
    const char *content_type; /* borrowed for the call of the function */
};
#ifdef __cplusplus
#define SEMEL_TASK_OPTIONS_INIT {}
#else
#define SEMEL_TASK_OPTIONS_INIT { NULL, NULL, NULL, NULL, NULL, 0, false, NULL }
#endif

/* Thread: loop thread. NULL is fine. A task goes on without references, and so do its callbacks.
 * Since: 0.4 */
SEMEL_API struct semel_future *semel_future_ref(struct semel_future *future);
SEMEL_API void semel_future_unref(struct semel_future *future);

/* What is now; is it WAITING or EXECUTING; is it COMPLETED, FAILED or CANCELLED? Thread: loop
 * thread. Since: 0.4 */
SEMEL_API enum semel_future_state semel_future_state(const struct semel_future *future);
SEMEL_API bool semel_future_is_cancellable(const struct semel_future *future);
SEMEL_API bool semel_future_is_done(const struct semel_future *future);

/* Ask it to stop. A body that has not begun never runs; one that runs is told
 * (semel_request_cancelled), and the future is CANCELLING until it has ended.
 * Returns: true: it was cancellable, and is CANCELLING or CANCELLED now; false: nothing was done.
 * Thread: loop thread. Blocks: no. Since: 0.4 */
SEMEL_API bool semel_future_cancel(struct semel_future *future);

/* Kill the worker process that has the task, by SIGKILL; whatever else it has ends likewise. The
 * task does not run again, whatever rerun_ok said. It fails; or, if it was cancelled before, is
 * cancelled.
 * Returns: OK, and the end will be told; ALREADY: it is done, or the process is gone; WOULD_BLOCK:
 * no process has it yet (cancelling is enough); DENIED: not in a pool, or the wrong thread;
 * INVALID; FORKED. Thread: loop thread. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_future_kill(struct semel_future *future);

/* The process that has the task, or had it last; 0: none, or not known. Thread: loop thread.
 * Since: 0.4 */
SEMEL_API int semel_future_pid(const struct semel_future *future);

/* The result of a task that COMPLETED (a value) or FAILED. With status PARTS_LOST the task came to
 * its end, but some of what it had reported is lost, or was larger than the pool's or the client's
 * body_bytes.
 * Returns: lent while there is a reference to the future; NULL: it is not done, or CANCELLED.
 * Thread: loop thread. Since: 0.4 */
SEMEL_API const struct semel_result *semel_future_result(const struct semel_future *future);

/* Did it happen? Also of one that is CANCELLED: NOT_EXECUTED if the body never ran, VALUE or
 * FAILURE if it came to its own end. UNKNOWN before it is done. Thread: loop thread. Since: 0.4 */
SEMEL_API enum semel_outcome semel_future_outcome(const struct semel_future *future);

/* A deferred of its end. It fires after the last callback: with the future as its value, which is
 * one reference, if it COMPLETED; or it fails with the result's status, code and text, or with
 * CANCELLED, and the future beside it. Cancelling it cancels the future.
 * out  one reference, owned by caller. Returns: OK; INVALID; NO_MEMORY; DENIED; FORKED; ALREADY: it
 * is done, and all was told. Thread: loop thread. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_future_defer(struct semel_future *future,
                                               struct semel_deferred **out) SEMEL_MUST_USE;

/* --- executors ------------------------------------------------------------------------------ */

enum semel_executor_state {
    SEMEL_EXECUTOR_RUNNING,
    SEMEL_EXECUTOR_STOPPING, /* takes nothing; tasks are not done yet */
    SEMEL_EXECUTOR_STOPPED   /* takes nothing; all are done */
};

/* Zero everywhere selects the defaults. */
struct semel_executor_options {
    /* Where tasks run: at most one of these. Both are lent until destroy, and not closed. With
     * neither the executor makes a pool of its own, and ends it. */
    struct semel_pool *pool;                   /* in its workers */
    struct semel_client *client;               /* where it leads to */
    const struct semel_pool_options *own_pool; /* of that pool; borrowed; NULL for the defaults */
    uint32_t waiting_tasks; /* bound of tasks that have not begun; 0: SEMEL_WAITING_TASKS */
    /* Once for each state that it comes to. It may not destroy the executor. */
    void (*on_state)(struct semel_executor *executor, enum semel_executor_state state, void *user);
    void *user;
};
#ifdef __cplusplus
#define SEMEL_EXECUTOR_OPTIONS_INIT {}
#else
#define SEMEL_EXECUTOR_OPTIONS_INIT { NULL, NULL, NULL, 0, NULL, NULL }
#endif

/* out: owned by caller. loop: lent until destroy. options: borrowed; NULL for the defaults, which
 * are those of a pool of its own.
 * Returns: OK; INVALID; NO_MEMORY; SYSTEM, LIMIT; DENIED; FORKED; with a pool of its own as
 * semel_pool_create. Thread: loop thread. Blocks: with a pool of its own as semel_pool_create.
 * Since: 0.4 */
SEMEL_API enum semel_status semel_executor_create(struct semel_executor **out,
                                                  struct semel_loop *loop,
                                                  const struct semel_executor_options *options)
    SEMEL_MUST_USE;

/* Submit a task: `method`, called with `body` (copied).
 * options     borrowed; NULL for the defaults.
 * out_future  may be NULL; else receives one reference, owned by caller.
 * Returns: OK, and the future's end will be told; INVALID; TOO_LARGE; OVERLOADED: too many wait;
 * STOPPED: the executor, or what it runs tasks with; NO_MEMORY; DENIED; as semel_client_start
 * otherwise: then no callback comes. Thread: loop thread. Blocks: no. Completion: on the loop's
 * thread, in none of the functions here but those that cancel. Since: 0.4 */
SEMEL_API enum semel_status semel_executor_submit(struct semel_executor *executor,
                                                  const char *method, struct semel_bytes body,
                                                  const struct semel_task_options *options,
                                                  struct semel_future **out_future) SEMEL_MUST_USE;

/* What it is; how many of its tasks are not done; the pool that they run in, lent until destroy
 * (NULL: none). Thread: loop thread. Since: 0.4 */
SEMEL_API enum semel_executor_state semel_executor_state(const struct semel_executor *executor);
SEMEL_API uint32_t semel_executor_tasks(const struct semel_executor *executor);
SEMEL_API struct semel_pool *semel_executor_pool(const struct semel_executor *executor);

/* Take no tasks any more and cancel those that there are. It is STOPPED when the last one is done.
 * Twice is fine. Thread: loop thread. Blocks: no. Since: 0.4 */
SEMEL_API void semel_executor_stop(struct semel_executor *executor);

/* Stop, and wait until all tasks are done. What is told of them meanwhile is told in here; nothing
 * else of the loop is served.
 * timeout_ms   negative: no limit. 0: what has arrived is told, nothing is waited for.
 * out_running  may be NULL; else receives how many are not done.
 * Returns: OK: STOPPED, also if it was before; DEADLINE: it goes on STOPPING: try again, or let the
 * loop tell of the end; WOULD_DEADLOCK in a callback (with timeout 0 it has begun to stop);
 * DENIED; INVALID; FORKED. Thread: loop thread, in no callback of a loop. Blocks: at most
 * timeout_ms. Since: 0.4 */
SEMEL_API enum semel_status semel_executor_shutdown(struct semel_executor *executor,
                                                    int64_t timeout_ms, uint32_t *out_running);

/* End it, and the pool that it made. Tasks that are not done are cancelled, told so in here, and
 * given up: elsewhere than in a pool of its own their bodies may run on for a while. NULL is fine.
 * Returns: OK; WOULD_DEADLOCK in a callback, also of a loop, and DENIED: nothing was done; FORKED.
 * Thread: loop thread. Blocks: with a pool of its own as semel_pool_destroy. Since: 0.4 */
SEMEL_API enum semel_status semel_executor_destroy(struct semel_executor *executor);

/* --- on the worker's side -------------------------------------------------------------------- */

/* Export a method for tasks: as semel_server_export, and when its body begins the future is told
 * (EXECUTING); of any other method it learns when the first item or progress, or the end, is there.
 * A body returns by semel_request_reply and fails by semel_request_fail_with.
 * Returns: as semel_server_export. Thread: any thread. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_task_export(struct semel_server *server, const char *method,
                                              semel_handler_fn body, void *user,
                                              const struct semel_method_options *options)
    SEMEL_MUST_USE;

/* Hand an item to the future's on_item; wait while the application takes them slowly.
 * Returns: OK; CANCELLED: the task was, and nothing was sent: clean up and end; otherwise as
 * semel_request_send. Also OK if the caller takes no items. Thread: the body's, one at a time.
 * Blocks: while more than what a stream holds waits. Since: 0.4 */
SEMEL_API enum semel_status semel_task_report(struct semel_request *request,
                                              struct semel_bytes item) SEMEL_MUST_USE;

/* Tell the future's on_progress; of those that come faster than they are read the latest counts.
 * Returns: as semel_task_report; INVALID: empty. Thread: the body's, one at a time. Blocks: no.
 * Since: 0.4 */
SEMEL_API enum semel_status semel_task_progress(struct semel_request *request,
                                                struct semel_bytes progress) SEMEL_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
