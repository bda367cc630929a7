/* SPDX-License-Identifier: MIT */
/* pool.h - calls that run in worker processes, which are started, watched and replaced.
 *
 * A worker is a program that serves calls on one socket. It may crash, hang, leak or be killed:
 * that ends the calls that it was running, and nothing else. These are *unknown*, and the words say
 * which process ended how; with rerun_ok they run again in another worker. What a worker never
 * received goes to another one: nothing about it is in doubt.
 *
 *     static enum semel_status set_up(struct semel_server *server, void *user)
 *     {
 *         return semel_server_export(server, "add", add, user, NULL);
 *     }
 *
 *     int main(int argc, char **argv)
 *     {
 *         int code = semel_worker_main(argc, argv, set_up, NULL);
 *         struct semel_pool *pool;
 *
 *         if (code >= 0)
 *             return code;
 *         if (semel_pool_create(&pool, NULL) != SEMEL_OK)
 *             return 1;
 *         ...semel_pool_call(pool, "add", body, NULL, &result)...
 *         return semel_pool_destroy(pool) == SEMEL_OK ? 0 : 1;
 *     }
 *
 * The completion contract is that of client.h. Workers get SIGKILL when the process that made the
 * pool ends, however it does. Linux only: a process descriptor is needed (5.4). */
#ifndef SEMEL_POOL_H
#define SEMEL_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include <semel/client.h>
#include <semel/server.h>
#include <semel/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct semel_pool; /* thread: any thread */
struct semel_job;  /* a call started with semel_pool_start; thread: any thread */

enum semel_worker_state {
    SEMEL_WORKER_STARTING, /* the program runs and has not said hello yet */
    SEMEL_WORKER_READY,    /* takes calls */
    SEMEL_WORKER_LEAVING,  /* ends what it runs, takes nothing new */
    SEMEL_WORKER_DYING,    /* was killed, or has spoiled its connection, and is not gone yet */
    SEMEL_WORKER_PAUSED,   /* no process: the last one died, the next one waits for its time */
    SEMEL_WORKER_GIVEN_UP  /* no process, and there will be none: too many died at once */
};

#define SEMEL_EPITAPH_BYTES 160

/* A worker, or the place of one. */
struct semel_worker_info {
    uint64_t worker; /* for semel_pool_kill; never used again. 0: no process */
    int pid;         /* 0: no process */
    enum semel_worker_state state;
    uint32_t place;     /* 0 .. workers-1; a LEAVING one may share it with its successor */
    uint32_t in_flight; /* calls that it has now */
    uint32_t abandoned; /* calls that were given up, at their deadline or cancelled, and whose
                           handlers may still run: it takes so many fewer. If they never end,
                           semel_pool_kill is for that */
    uint64_t calls;     /* that it has ended so far */
    uint64_t restarts;  /* processes of this place before this one */
    int64_t age_ms;     /* since it was started */
    int last_pid;       /* of the place's process that ended last; 0: none has */
    char last_exit[SEMEL_EPITAPH_BYTES]; /* "was killed by signal 9 (SIGKILL)"; "" for none */
};

enum semel_worker_event_kind {
    SEMEL_WORKER_STARTED,     /* a process begins */
    SEMEL_WORKER_SERVES,      /* it is READY */
    SEMEL_WORKER_RECYCLED,    /* it has served its time, and leaves */
    SEMEL_WORKER_DIED,        /* a process ended that was not asked to; `text` says how */
    SEMEL_WORKER_LEFT,        /* a process ended that was asked to */
    SEMEL_WORKER_NOT_STARTED, /* no process could be made; `text` says why */
    SEMEL_WORKER_ABANDONED    /* its place is given up */
};

struct semel_worker_event {
    enum semel_worker_event_kind kind;
    uint64_t worker;
    int pid;
    uint32_t place;
    const char *text; /* borrowed for the callback; never NULL */
};

/* Thread: the pool's own. It must not block; semel_pool_kill and semel_pool_start are fine. */
typedef void (*semel_worker_event_fn)(struct semel_pool *pool,
                                      const struct semel_worker_event *event, void *user);

/* Zero everywhere selects the defaults of limits.h. */
struct semel_pool_options {
    uint32_t workers;             /* processes; 0: cores, at least 2; 1 .. SEMEL_POOL_WORKERS_MAX */
    uint32_t calls_per_worker;    /* that one has at a time; 0: 1, so that a death costs one call.
                                  1 .. SEMEL_WINDOW_CALLS_MAX */
    uint32_t waiting_calls;       /* that may wait for a worker */
    const char *program;          /* the file to run, with a '/' in it; borrowed for the call of the
                                  function. NULL: this process's own program, whose main must call
                                  semel_worker_main first of all */
    const char *const *arguments; /* ended by NULL, the first is its name; borrowed likewise. NULL:
                                  `program` alone, or "semel-worker" */
    bool plain_arguments;         /* pass `arguments` as they are. Else one more is added, which
                                  semel_worker_main knows. The connection is descriptor 3 anyway */
    int64_t deadline_ms;          /* of a call that names none */
    int64_t cancel_grace_ms;      /* as in client.h */
    int64_t heartbeat_ms;     /* a worker that is silent for 4 of them while it is asked is killed;
                                  negative: never */
    int64_t start_ms;         /* from exec to the first word */
    int64_t restart_min_ms;   /* after a fast death: a process that had not ended a single call */
    int64_t restart_max_ms;   /* doubled each time up to this. Another death is followed at once */
    uint32_t fast_deaths_max; /* so many in a row, and the place is given up */
    uint64_t recycle_calls;   /* a worker that has ended so many leaves, and another one comes;
                                  0: never */
    uint64_t recycle_bytes;   /* the same for its resident memory, looked at every 100 ms while it
                                  works; 0: never */
    int64_t stop_grace_ms;    /* from the end of its connection, which asks a worker to end, to
                                  SIGKILL; SIGTERM comes half way. Negative: SIGKILL at once */
    uint64_t body_bytes;      /* largest request and reply */
    semel_log_fn log;         /* borrowed until destroy */
    void *log_user;
    semel_worker_event_fn on_event;
    void *event_user;
};
#ifdef __cplusplus
#define SEMEL_POOL_OPTIONS_INIT {}
#else
#define SEMEL_POOL_OPTIONS_INIT { 0 }
#endif

/* Export what a worker offers. Whatever but OK ends the worker: its exit code is 1. */
typedef enum semel_status (*semel_worker_setup_fn)(struct semel_server *server, void *user);

/* Be a worker, if this process was started as one; to be called first in main, before threads,
 * files and output.
 * argc, argv  borrowed: main's.
 * setup       called once, before the first call. May be NULL: a worker without methods.
 * Returns: -1 at once if this process is no worker, and main goes on; else the exit code that main
 * should return: 0 when the pool has closed the connection and no handler runs any more, 1 when
 * the set-up failed, 2 when the argument or its descriptor is wrong. Thread: the main thread.
 * Blocks: for the worker's life. Since: 0.3 */
SEMEL_API int semel_worker_main(int argc, char **argv, semel_worker_setup_fn setup, void *user);

/* Make a pool and start its workers.
 * out_pool  receives the pool: owned by caller, ended by semel_pool_destroy.
 * options   borrowed; NULL for the defaults.
 * Returns: OK: all programs were started, though none need have said hello; INVALID (an option out
 * of range; or this process is a worker, and its main has not called semel_worker_main);
 * NO_MEMORY; SYSTEM, LIMIT, DENIED (no such program, or no process to be had: the log hook has the
 * words); nothing is left then. Thread: any thread. Blocks: until the programs have begun.
 * Since: 0.3 */
SEMEL_API enum semel_status semel_pool_create(struct semel_pool **out_pool,
                                              const struct semel_pool_options *options)
    SEMEL_MUST_USE;

/* Stop, without waiting for calls: those that run end as unknown (STOPPED); then release
 * everything. NULL is fine. No other thread may be inside a function of this pool when it is
 * called, blocked callers of semel_pool_call excepted: they are woken.
 * Returns: OK; WOULD_DEADLOCK in a callback (nothing happened); FORKED in a child process (its
 * descriptors are closed, the workers untouched). Thread: any thread but callbacks. Blocks: until
 * all processes are gone, at most stop_grace_ms and the time that the system needs. Since: 0.3 */
SEMEL_API enum semel_status semel_pool_destroy(struct semel_pool *pool);

/* Call `method` in a worker and wait for its outcome: that with the fewest calls; if none is free
 * the call waits in line. As semel_client_call otherwise; options->refuse_when_full: do not wait in
 * line. A worker that dies: unknown (HANDLER_DIED), unless rerun_ok says that it may run again, or
 * it is certain that the worker had not read the call. NO_WORKERS (not executed): all places were
 * given up.
 * Thread: any thread but callbacks (WOULD_DEADLOCK). Blocks: until the outcome, at most deadline
 * plus cancel_grace. Completion: on return. Since: 0.3 */
SEMEL_API enum semel_outcome semel_pool_call(struct semel_pool *pool, const char *method,
                                             struct semel_bytes body,
                                             const struct semel_call_options *options,
                                             struct semel_result *out_result);

/* Start a call whose completion runs `done`.
 * out_job  may be NULL; else receives a handle for semel_job_cancel, shared: release it with
 *          semel_job_unref, before or after the completion.
 * body     borrowed, or with options->lent lent until completion.
 * Returns: OK, and then `done` runs exactly once; or INVALID, TOO_LARGE, OVERLOADED (the line is
 * full), STOPPED, FORKED, NO_WORKERS, NO_MEMORY, and then it never runs. Thread: any thread,
 * callbacks included. Blocks: no. Completion: on one of the pool's threads; `done` must not block:
 * a blocking call from there ends at once with WOULD_DEADLOCK. Since: 0.3 */
SEMEL_API enum semel_status semel_pool_start(struct semel_pool *pool, const char *method,
                                             struct semel_bytes body,
                                             const struct semel_call_options *options,
                                             semel_done_fn done, void *user,
                                             struct semel_job **out_job) SEMEL_MUST_USE;

/* Ask for a call to be cancelled. One that waits for a worker ends as not executed; else the
 * worker is asked, and its verdict is the outcome. After completion it does nothing. Thread: any
 * thread. Blocks: no. Since: 0.3 */
SEMEL_API void semel_job_cancel(struct semel_job *job);

/* Have the worker killed that has the call, cancelled or not: as semel_pool_kill by force.
 * Returns: OK; ALREADY: no worker has it, now or any more; STOPPED; FORKED; INVALID. Thread: any
 * thread, callbacks included. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_job_kill(struct semel_job *job);

/* Release a handle; the call goes on. NULL is fine. Thread: any thread. Since: 0.3 */
SEMEL_API void semel_job_unref(struct semel_job *job);

/* Copy what is known of the workers, the places without a process included.
 * out_infos  borrowed; `room` of them. May be NULL when room is 0.
 * Returns: how many there are; at most `room` of them were copied. Thread: any thread. Blocks: no.
 * Since: 0.3 */
SEMEL_API size_t semel_pool_list(const struct semel_pool *pool, struct semel_worker_info *out_infos,
                                 size_t room);

/* Have a worker replaced.
 * worker  from semel_worker_info.
 * force   false: it takes nothing new and leaves when its calls have ended. true: it and all that
 *         it started are killed (SIGKILL); its calls end as those of a worker that died.
 * Returns: OK; INVALID: there is no such worker any more; STOPPED; FORKED. Thread: any thread,
 * callbacks included. Blocks: no. Since: 0.3 */
SEMEL_API enum semel_status semel_pool_kill(struct semel_pool *pool, uint64_t worker, bool force);

/* Take no calls any more, end those that wait in line (not executed, STOPPED), let those that run
 * end, then have the workers end. May be repeated; when stopped it does nothing.
 * timeout_ms   for the calls that have not ended; 0: do not wait; negative: no limit.
 * out_running  may be NULL; else receives their number: those that run, and those that were in line
 *              and have not been told. An executor's loop tells its tasks: not while this waits on
 *              its thread.
 * Returns: OK: no process, thread or descriptor of the pool is left; DEADLINE: some have not ended,
 * the pool goes on stopping: try again, or semel_pool_destroy; WOULD_DEADLOCK in a callback (but
 * with timeout_ms 0 the stop begins: DEADLINE); FORKED. Thread: any thread. Blocks: at most
 * timeout_ms, then as semel_pool_destroy. Since: 0.3 */
SEMEL_API enum semel_status semel_pool_stop(struct semel_pool *pool, int64_t timeout_ms,
                                            uint32_t *out_running);

struct semel_pool_counters {
    uint64_t calls_started;   /* accepted */
    uint64_t calls_completed; /* of these, completed, whatever the outcome */
    uint64_t values, failures, not_executed, unknown;
    uint64_t calls_running, calls_waiting; /* now */
    uint64_t calls_moved;     /* given to another worker: the first had not received them */
    uint64_t calls_rerun;     /* run again: the first died, and the caller had said rerun_ok */
    uint64_t workers_started; /* processes */
    uint64_t workers_died;   /* of these, ended without having been asked to, the killed included */
    uint64_t workers_killed; /* of these, by semel_pool_kill, or since they had spoiled their
                                  connection or had not said hello in time */
    uint64_t workers_recycled; /* asked to leave, for calls, memory or by semel_pool_kill */
    uint64_t starts_failed;    /* no process could be made */
    uint64_t places_given_up;
};

/* A snapshot of the counters. Thread: any thread. Blocks: no. Since: 0.3 */
SEMEL_API void semel_pool_counters(const struct semel_pool *pool,
                                   struct semel_pool_counters *out_counters);

/* Have a server tell of the pool's workers to those who look inside, with `semel top` and
 * `semel ps --processes`. Before it is started; the pool must outlive it.
 * Returns: OK; INVALID; ALREADY: it shows a pool, or was started; STOPPED; FORKED. Thread: any
 * thread. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_pool_show(struct semel_pool *pool, struct semel_server *server)
    SEMEL_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
