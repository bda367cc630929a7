/* SPDX-License-Identifier: MIT */
/* seat.h - a worker's attention for one call: the seam for what makes calls of its own in a pool's
 * workers (pool_call.c, pool_start.c; tasks and routers likewise).
 *
 *     struct sml_seat seat;
 *     if (!sml_seat_ask(pool, &seat, deadline, may_wait))
 *         ...seat.granted(&seat) comes, unless sml_seat_forget(pool, &seat) says true...
 *     if (!seat.worker)
 *         ...refused: seat.status...
 *     sml_seat_mark(&seat);
 *     ...one call of sml_seat_client(&seat)...
 *     switch (sml_judge(&seat, &result, rerun_ok)) { ... }
 *     sml_seat_leave(pool, &seat, ended, outcome);
 *
 * The client is there until the seat is left, whatever becomes of the process; so every seat is
 * left, once. A call's options must have a deadline of their own. */
#ifndef SML_PROC_SEAT_H
#define SML_PROC_SEAT_H

#include <semel/pool.h>

#include "base/heap.h"
#include "base/list.h"

struct sml_worker;

struct sml_seat {
    struct sml_worker *worker; /* NULL: none, because of `status` */
    enum semel_status status;  /* EXPIRED, OVERLOADED, STOPPED, NO_WORKERS */
    uint64_t mark;             /* bytes that had gone to the worker before the call */
    unsigned reruns;           /* workers that died with this call */
    bool served;               /* the worker brought the call to an end */
    bool abandoned;            /* the worker may still run it, though it has ended */
    bool open;                 /* the call is counted, and has not ended */
    /* Of one that waits in line: called once, on any thread, not under a lock; not if
     * sml_seat_ask said true. */
    void (*granted)(struct sml_seat *seat);
    /* The pool's. */
    struct sml_list link;
    struct sml_heap_node timer;
    void (*decidable)(struct sml_seat *seat); /* NULL: no inquest is waited for */
};

/* `granted` is set, if it may wait. */
void sml_seat_init(struct sml_seat *seat, void (*granted)(struct sml_seat *seat));

/* The worker with the fewest calls, counted as having one more; or a place in line until
 * `deadline`. True: it is decided. */
bool sml_seat_ask(struct semel_pool *pool, struct sml_seat *seat, uint64_t deadline, bool may_wait);
/* Leave the line. False: it is not in it any more, `granted` was called or will be. */
bool sml_seat_forget(struct semel_pool *pool, struct sml_seat *seat);
/* The worker is free for the next call. `ended`: so has the call, for good; then the pool may be
 * gone as soon as this returns. Else another seat may be asked for. */
void sml_seat_leave(struct semel_pool *pool, struct sml_seat *seat, bool ended,
                    enum semel_outcome outcome);
/* The call has ended without a worker: the seat was refused. The pool may be gone afterwards. */
void sml_seat_end(struct semel_pool *pool, struct sml_seat *seat, enum semel_outcome outcome);
/* "Not executed" is no longer certain if a worker has died with the call. */
void sml_seat_doubt(const struct sml_seat *seat, struct semel_result *result);

/* The worker's connection is over, and the pool will hear of it: nobody is seated there now. */
void sml_seat_shun(struct sml_seat *seat);

struct semel_client *sml_seat_client(const struct sml_seat *seat);
/* Directly before the call: what is sent from now on may be the call. */
void sml_seat_mark(struct sml_seat *seat);

/* --- judge.c --------------------------------------------------------------------------------- */

enum sml_fate {
    SML_FATE_FINAL,   /* `result` is the outcome */
    SML_FATE_AGAIN,   /* another worker may have it: it never reached this one */
    SML_FATE_RERUN,   /* another worker may have it: the caller said so */
    SML_FATE_DOUBTFUL /* the worker is dying: ask again when its inquest is over */
};

/* What a result from this worker's client means for the call. A final one may have been rewritten:
 * it says which process ended how, and owns its words. It does not block; once the inquest is over
 * it is never DOUBTFUL. */
enum sml_fate sml_judge(struct sml_seat *seat, struct semel_result *result, bool rerun_ok);
/* The same, after waiting for the inquest: never DOUBTFUL. */
enum sml_fate sml_judge_wait(struct sml_seat *seat, struct semel_result *result, bool rerun_ok);

/* A judgement was DOUBTFUL: have `decidable` called, once, when the inquest is over; on the
 * keeper's thread, not under a lock. */
void sml_seat_await_inquest(struct semel_pool *pool, struct sml_seat *seat,
                            void (*decidable)(struct sml_seat *seat));
/* Not after all. False: it was called or will be. */
bool sml_seat_forget_inquest(struct semel_pool *pool, struct sml_seat *seat);
/* A call that was not FINAL is to be made again. */
void sml_seat_count_again(struct semel_pool *pool, enum sml_fate fate);

#endif
