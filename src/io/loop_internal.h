/* SPDX-License-Identifier: MIT */
/* loop_internal.h - what the files of the loop share. */
#ifndef SML_IO_LOOP_INTERNAL_H
#define SML_IO_LOOP_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <semel/loop.h>

#include "base/executor.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/table.h"
#include "os/alarm.h"
#include "os/bell.h"
#include "os/epoll.h"
#include "os/process.h"
#include "os/thread.h"

/* What an event of the epoll set is about: one of these, or a watch, whose mark has its serial
 * number, at least 1, in the upper half. */
enum { SML_MARK_TASKS = 1, SML_MARK_STOP, SML_MARK_ALARM };

/* Memory whose owner is gone, but whose name a callback may still have in hand. */
struct sml_grave {
    struct sml_grave *next;
};

struct semel_loop {
    struct sml_executor executor; /* first: sml_executor_of */

    /* Constant. */
    struct sml_origin origin;
    struct sml_epoll epoll;
    struct sml_bell tasks_bell; /* see loop_tasks.c */
    struct sml_bell stop_bell;  /* rung once for each `stopping` */
    semel_log_fn log;           /* NULL: nobody listens */
    void *log_user;
    uint32_t turn_tasks;
    struct semel_task end; /* what the last task of a list points to: it waits, so not NULL */

    /* Any thread. */
    _Atomic(uintptr_t) owner;            /* the thread whose loop it is */
    _Atomic(uintptr_t) inside;           /* the thread in run or dispatch; 0: nobody */
    _Atomic(bool) stopping;              /* run is asked to return; a ring is there, or under way */
    char apart[64];                      /* posting does not slow down what follows */
    _Atomic(struct semel_task *) posted; /* by any thread, the newest first; NULL: none */
    char apart_too[64];

    /* The loop's thread. */
    struct semel_task *first, *last; /* taken, the oldest first; NULL: none */
    bool owed;                       /* their ring was given back: it is to be taken again */
    bool running;                    /* in run, not in dispatch */
    bool stopped;                    /* the ring was taken: run is to return */
    bool doomed;                     /* to be ended when the outermost callback returns */
    struct sml_heap moments;
    struct sml_alarm alarm; /* set while nobody is inside run */
    struct sml_table by_fd; /* descriptor -> watch */
    struct sml_list watches;
    uint32_t serial; /* of the last watch */
    struct sml_grave *graves;
};

/* ---- loop.c ---- */

/* For calls that only the loop's thread may make: OK, FORKED, DENIED. */
enum semel_status sml_loop_admit(const struct semel_loop *loop);

/* After each callback: give back what was buried. False: nothing more is to be called now. */
bool sml_loop_goes_on(struct semel_loop *loop);

/* Free it when no callback can know it any more. The loop's thread. */
void sml_loop_bury(struct semel_loop *loop, struct sml_grave *grave);

static inline bool sml_loop_is_inside(const struct semel_loop *loop)
{
    return atomic_load_explicit(&loop->inside, memory_order_relaxed) == sml_thread_self().value;
}

/* ---- loop_tasks.c ---- */

static inline bool sml_loop_tasks_posted(const struct semel_loop *loop)
{
    return atomic_load_explicit(&loop->posted, memory_order_relaxed) != NULL;
}

/* Run up to turn_tasks. False: as sml_loop_goes_on. */
bool sml_loop_run_tasks(struct semel_loop *loop);
/* When a thread comes inside and when it goes: the ring of tasks that were taken and wait on. */
void sml_loop_tasks_enter(struct semel_loop *loop);
void sml_loop_tasks_leave(struct semel_loop *loop);
/* All that wait are their owners' again. */
void sml_loop_drop_tasks(struct semel_loop *loop);
void sml_loop_executor_post(struct sml_executor *executor, struct semel_task *task);

/* ---- loop_timers.c ---- */

/* Call what is due. False: as sml_loop_goes_on. */
bool sml_loop_run_moments(struct semel_loop *loop);
/* Let the descriptor tell of the next moment, while nobody waits for it in run. */
void sml_loop_set_alarm(struct semel_loop *loop);
void sml_loop_drop_moments(struct semel_loop *loop);
void sml_loop_executor_arm(struct sml_executor *executor, struct sml_moment *moment, uint64_t at);
void sml_loop_executor_disarm(struct sml_executor *executor, struct sml_moment *moment);

/* ---- loop_watches.c ---- */

/* An event of the epoll set that has a watch's mark. */
void sml_loop_call_watch(struct semel_loop *loop, uint64_t mark, uint32_t happened);
void sml_loop_drop_watches(struct semel_loop *loop);

#endif
