/* SPDX-License-Identifier: MIT */
/* pool_internal.h - a pool's state, shared by the files of proc only.
 *
 * Threads. The keeper is the pool's own: it starts processes (they die with the thread that
 * started them), hears of their ends, holds the inquests, keeps the time and tells events. Each
 * worker has a client, with its I/O thread. Whoever calls chooses a worker under the lock and talks
 * to its client directly.
 *
 * Lock order: pool->lock, then a client's. No callback, no call of a client that moves bytes, and
 * no system call but the keeper's wake is made under it. */
#ifndef SML_PROC_POOL_INTERNAL_H
#define SML_PROC_POOL_INTERNAL_H

#include <stdatomic.h>

#include <semel/limits.h>
#include <semel/pool.h>

#include "base/heap.h"
#include "base/list.h"
#include "base/time.h"
#include "os/epoll.h"
#include "os/mutex.h"
#include "os/process.h"
#include "os/spawn.h"
#include "os/thread.h"
#include "os/wake.h"
#include "proc/seat.h"

#define SML_WORKER_ARGUMENT "--semel-worker="
#define SML_WORKER_HANDLERS "semel.handlers" /* replies how many run, in decimal */

/* One process, from its start until it is reaped and nobody has a seat at it. The keeper frees
 * it. */
struct sml_worker {
    struct sml_list all; /* in pool->workers */
    struct semel_pool *pool;
    uint64_t id;
    uint32_t place;
    int32_t pid; /* stays after its end */
    uint64_t started_at;
    struct semel_client *client; /* constant while there are seats */

    /* Guarded by pool->lock. */
    enum semel_worker_state state; /* STARTING, READY, LEAVING, DYING */
    uint32_t in_flight;            /* seats */
    uint32_t abandoned;            /* calls that have ended here, but maybe not there */
    bool probing;                  /* it is being asked about these; as good as a seat */
    uint64_t calls;
    uint64_t calls_weighed; /* `calls` when its memory was looked at last */
    bool kill_wanted;       /* by anybody; the keeper does it */
    bool over;              /* it has ended: what its connection does now means nothing */
    bool spoiled;           /* its connection is over: `why` */
    bool asked;             /* to leave: its end is no accident */
    bool retired_untold;    /* RECYCLED is to be told */
    bool ready_untold;      /* SERVES is to be told */
    bool blameless;         /* it was killed on request */
    char why[SEMEL_EPITAPH_BYTES];

    /* The keeper's. */
    struct sml_child child;
    int far_fd; /* the worker's end of the connection; -1: given up */
    bool killed;
    bool said_goodbye;
    uint64_t term_at, kill_at; /* of one that was asked to end */
    uint64_t probe_at;         /* not before */

    /* Written by the inquest, then `buried` becomes 1. */
    uint64_t bytes_read; /* what the process had read at most */
    char epitaph[SEMEL_EPITAPH_BYTES];
    _Atomic uint32_t buried;
};

/* Where one process follows the other. */
struct sml_place {
    struct sml_worker *worker; /* NULL: none */
    uint64_t restart_at;       /* of the next one; SML_NEVER: given up, or none is to come */
    uint32_t fast_deaths;      /* in a row */
    bool given_up;
    uint64_t processes;
    int32_t last_pid;
    char last_exit[SEMEL_EPITAPH_BYTES];
};

enum sml_pool_stage { SML_POOL_OPEN, SML_POOL_STOPPING, SML_POOL_ENDING, SML_POOL_STOPPED };

struct semel_pool {
    /* Constant after create. */
    struct sml_origin origin;
    struct semel_pool_options options; /* defaults filled in */
    char **argv;
    char *program; /* NULL: our own */
    struct sml_epoll epoll;
    struct sml_wake wake;
    struct sml_thread keeper;

    struct sml_mutex lock;
    struct sml_cond changed; /* stage, running, inside, launched */
    /* Guarded by `lock`. */
    enum sml_pool_stage stage;
    struct sml_place *places;
    struct sml_list workers; /* sml_worker, all that are not freed */
    uint64_t ids;
    uint32_t places_left;   /* not given up */
    struct sml_list line;   /* sml_seat: who waits, in order */
    struct sml_heap timers; /* of the same */
    uint32_t waiting;
    uint32_t running;         /* seats */
    uint32_t inside;          /* threads that will touch the pool again */
    struct sml_list doubtful; /* jobs whose workers are dying */
    struct sml_list mourners; /* seats at workers that are dying, who wait for the inquest */
    struct sml_list ended;    /* jobs that the keeper is to complete */
    bool launched;            /* the first start of each place was tried */
    enum semel_status launch; /* and what came of it */
    bool joined;
    bool joining;
    struct semel_pool_counters counters;

    /* The keeper's. */
    uint64_t weigh_at;
};

/* --- seat.c ---------------------------------------------------------------------------------- */

/* Grants that were decided under the lock, to be told without. */
static inline struct sml_seat *sml_seat_of(struct sml_list *link)
{
    return SML_CONTAINER(link, struct sml_seat, link);
}

/* Whoever waits gets what is free; refused seats and granted ones go to `told`. Lock held. */
void sml_seat_serve_line(struct semel_pool *pool, struct sml_list *told);
/* Those that wait are refused: all, or those whose deadline has passed. Lock held. */
void sml_seat_refuse_all(struct semel_pool *pool, enum semel_status status, struct sml_list *told);
void sml_seat_expire(struct semel_pool *pool, uint64_t now, struct sml_list *told);
/* Lock not held. */
void sml_seat_tell(struct sml_list *told);
/* Those whose inquest is over. The keeper's thread; lock not held. */
void sml_seat_tell_decidable(struct semel_pool *pool);

/* --- worker.c -------------------------------------------------------------------------------- */

/* A process and a client for it. The keeper's thread; lock not held. */
enum semel_status sml_worker_start(struct semel_pool *pool, struct sml_worker **out_worker,
                                   struct sml_reason *reason);
/* Its pidfd is readable: reap it, end what it started, find out how much it had read, and let its
 * calls know. The keeper's thread; lock not held. */
void sml_worker_inquest(struct sml_worker *worker);
/* Its connection ends, which asks it to end; it has no calls. The keeper's thread. */
void sml_worker_say_goodbye(struct sml_worker *worker);
/* SIGKILL to it and its group, unless it was done. The keeper's thread. */
void sml_worker_kill(struct sml_worker *worker);
/* Ask how many of the calls that were abandoned still run. It is `probing`. The keeper's thread. */
void sml_worker_probe(struct sml_worker *worker);
/* Nobody has a seat at it, and it is buried. */
void sml_worker_free(struct sml_worker *worker);
/* It takes nothing new, and leaves when its calls have ended. Harmless unless it is STARTING or
 * READY. Lock held. */
void sml_worker_retire_locked(struct sml_worker *worker);
/* Its connection is over although nobody ended it. Lock held. */
void sml_worker_spoil_locked(struct sml_worker *worker, const char *why);

/* --- worker_main.c --------------------------------------------------------------------------- */

/* Was this process started as a worker, and has main not called semel_worker_main? Then whatever it
 * does instead, it must not start workers of the same program. */
bool sml_worker_is_unasked(void);

/* --- keeper.c -------------------------------------------------------------------------------- */

void sml_keeper_main(void *pool);
void sml_pool_log(struct semel_pool *pool, enum semel_log_level level, const char *format, ...)
    SML_PRINTF(3, 4);

/* --- pool.c ---------------------------------------------------------------------------------- */

/* OK; STOPPED, NO_WORKERS. Lock held. */
enum semel_status sml_pool_check_locked(const struct semel_pool *pool);
uint64_t sml_pool_deadline(const struct semel_pool *pool, const struct semel_call_options *options);
/* The caller's options as the worker's client gets them. */
struct semel_call_options sml_pool_pass_on(const struct semel_call_options *options,
                                           uint64_t deadline, bool lent);
/* Whoever will touch the pool again is inside; the keeper leaves when nobody is. Lock held. */
static inline void sml_pool_enter(struct semel_pool *pool)
{
    pool->inside++;
}

static inline void sml_pool_exit(struct semel_pool *pool)
{
    if (--pool->inside > 0 || pool->stage == SML_POOL_OPEN)
        return;
    sml_cond_broadcast(&pool->changed);
    sml_wake_signal(&pool->wake);
}

/* --- pool_start.c: the keeper's part of jobs ------------------------------------------------- */

/* `link` is a job's, from pool->ended or pool->doubtful; removed. Lock not held. */
void sml_job_end(struct sml_list *link);
/* Jobs among `doubtful` whose worker is buried, into `out`. Lock held. */
void sml_job_take_decidable(struct semel_pool *pool, struct sml_list *out);
void sml_job_decide(struct sml_list *link);

#endif
