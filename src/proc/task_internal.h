/* SPDX-License-Identifier: MIT */
/* task_internal.h - futures and their executor, shared by the files of tasks only.
 *
 * Everything belongs to the loop's thread but what `lock` guards. A run that has news puts its
 * future into `ready`, and signals; the loop watches the signal's descriptor, and a thread in
 * shutdown sleeps on `news`. A watch can be removed where a posted task could not be taken back: so
 * an executor ends when it is destroyed. */
#ifndef SML_PROC_TASK_INTERNAL_H
#define SML_PROC_TASK_INTERNAL_H

#include <semel/limits.h>
#include <semel/task.h>

#include "base/list.h"
#include "os/mutex.h"
#include "os/process.h"
#include "os/wake.h"
#include "proc/task_backend.h"
#include "proc/task_state.h"
#include "rpc/stream_wait.h"

struct sml_executor;

/* A deferred that is to be fired; beside it. */
struct sml_future_waiter {
    struct sml_list link;
    struct semel_deferred *deferred; /* one reference */
    struct semel_future *future;     /* one reference, for the value */
};

struct semel_future {
    struct semel_executor *executor; /* NULL: done, and the executor may be gone */
    uint32_t refs;                   /* the application's, and one until it is done */
    enum sml_task_stage stage;
    enum semel_future_state told; /* of its state, to on_change */
    bool begun;                   /* it does not wait any more, for the bound */
    bool given_up;                /* by destroy: nothing is asked of the run any more */
    struct sml_run *run;          /* NULL: over */
    int pid;                      /* of the run that was */
    struct semel_task_options options;
    struct semel_result result;
    enum semel_outcome outcome;
    struct sml_list link;    /* in executor->futures, until done */
    struct sml_list waiters; /* sml_future_waiter */

    /* executor->lock */
    struct sml_list ready_link;
};

struct semel_executor {
    struct sml_executor *loop;
    struct sml_origin origin;
    struct sml_backend *backend;
    struct semel_executor_options options;
    enum semel_executor_state state;
    struct semel_watch *watch;
    struct sml_list futures; /* not done */
    uint32_t tasks;          /* of them */
    uint32_t waiting;        /* of these, not begun */
    uint32_t telling;        /* callbacks up the stack */

    struct sml_mutex lock;
    struct sml_list ready; /* futures; guarded by lock */
    bool attended;         /* the loop's thread is here, and serves them next; guarded by lock */
    struct sml_wake wake;
    struct sml_news news;
};

/* --- task.c: futures -------------------------------------------------------------------------- */

/* Any thread: it has news. `user` is the future. */
void sml_future_stir(void *user);
/* Tell what it has, `budget` items at most. True: there may be more. */
bool sml_future_serve(struct semel_future *future, unsigned budget);
/* It is over, now and here. */
void sml_future_give_up(struct semel_future *future);
/* Tell a change of state, if there is one. */
void sml_future_tell(struct semel_future *future);

/* --- task_executor.c -------------------------------------------------------------------------- */

/* For calls that only the loop's thread may make: OK, FORKED, DENIED. */
enum semel_status sml_executor_admit(const struct semel_executor *executor);
/* One of its tasks has begun; has ended. */
void sml_executor_count_begun(struct semel_executor *executor);
void sml_executor_count_done(struct semel_executor *executor);
/* And that was told: if it was the last, so is this. */
void sml_executor_settle(struct semel_executor *executor);

#endif
