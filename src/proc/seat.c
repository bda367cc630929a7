/* SPDX-License-Identifier: MIT */
/* seat.c - which worker has which call, and who waits in line for one.
 *
 * A worker has at most `calls_per_worker` calls, so that what dies with it is what it was running;
 * the others wait here, where nothing can happen to them. Of the workers that have room, the one
 * with the fewest calls is taken, of several the first: a lone caller always meets the same one,
 * whose caches are warm.
 *
 * Invariant, under the lock: nobody is in line while a worker has room. So a seat that is left goes
 * to the first in line in the same step, and nobody overtakes. */
#include "proc/pool_internal.h"

#include "os/clock.h"
#include "rpc/client_seam.h"

void sml_seat_init(struct sml_seat *seat, void (*granted)(struct sml_seat *seat))
{
    seat->worker = NULL;
    seat->status = SEMEL_OK;
    seat->mark = 0;
    seat->reruns = 0;
    seat->served = seat->abandoned = seat->open = false;
    seat->granted = granted;
    sml_list_init(&seat->link);
    sml_heap_node_init(&seat->timer);
    seat->decidable = NULL;
}

static struct sml_worker *choose(const struct semel_pool *pool)
{
    struct sml_worker *best = NULL;

    for (uint32_t i = 0; i < pool->options.workers; i++) {
        struct sml_worker *worker = pool->places[i].worker;

        if (!worker || worker->state != SEMEL_WORKER_READY ||
            worker->in_flight + worker->abandoned >= pool->options.calls_per_worker)
            continue;
        if (worker->in_flight == 0)
            return worker;
        if (!best || worker->in_flight < best->in_flight)
            best = worker;
    }
    return best;
}

/* From its first seat, or place in line, to its end a call keeps the pool there. */
static void open_call(struct semel_pool *pool, struct sml_seat *seat)
{
    if (seat->open)
        return;
    seat->open = true;
    pool->counters.calls_started++;
    sml_pool_enter(pool);
}

static void close_call(struct semel_pool *pool, struct sml_seat *seat, enum semel_outcome outcome)
{
    if (!seat->open)
        return;
    seat->open = false;
    pool->counters.calls_completed++;
    pool->counters.values += outcome == SEMEL_VALUE;
    pool->counters.failures += outcome == SEMEL_FAILURE;
    pool->counters.not_executed += outcome == SEMEL_NOT_EXECUTED;
    pool->counters.unknown += outcome == SEMEL_UNKNOWN;
    sml_pool_exit(pool);
}

static void sit_down(struct semel_pool *pool, struct sml_seat *seat, struct sml_worker *worker)
{
    open_call(pool, seat);
    seat->worker = worker;
    seat->status = SEMEL_OK;
    worker->in_flight++;
    pool->running++;
}

bool sml_seat_ask(struct semel_pool *pool, struct sml_seat *seat, uint64_t deadline, bool may_wait)
{
    struct sml_worker *worker = NULL;
    bool wake = false;

    sml_mutex_lock(&pool->lock);
    seat->worker = NULL; /* whoever wants to kill it may be looking */
    seat->status = sml_pool_check_locked(pool);
    if (seat->status == SEMEL_OK)
        worker = pool->waiting == 0 ? choose(pool) : NULL;
    if (worker) {
        sit_down(pool, seat, worker);
    } else if (seat->status == SEMEL_OK && sml_clock_now() >= deadline) {
        open_call(pool, seat);
        seat->status = SEMEL_EXPIRED;
    } else if (seat->status == SEMEL_OK && may_wait &&
               pool->waiting < pool->options.waiting_calls) {
        open_call(pool, seat);
        wake = deadline < sml_heap_min_key(&pool->timers);
        sml_list_push_back(&pool->line, &seat->link);
        sml_heap_insert(&pool->timers, &seat->timer, deadline);
        pool->waiting++;
        sml_mutex_unlock(&pool->lock);
        if (wake)
            sml_wake_signal(&pool->wake);
        return false;
    } else if (seat->status == SEMEL_OK) {
        seat->status = SEMEL_OVERLOADED;
    }
    sml_mutex_unlock(&pool->lock);
    return true;
}

static void out_of_line(struct semel_pool *pool, struct sml_seat *seat)
{
    sml_list_remove(&seat->link);
    sml_heap_remove(&pool->timers, &seat->timer);
    pool->waiting--;
}

bool sml_seat_forget(struct semel_pool *pool, struct sml_seat *seat)
{
    bool waits;

    sml_mutex_lock(&pool->lock);
    waits = seat->timer.in_heap;
    if (waits)
        out_of_line(pool, seat);
    sml_mutex_unlock(&pool->lock);
    return waits;
}

void sml_seat_serve_line(struct semel_pool *pool, struct sml_list *told)
{
    struct sml_worker *worker;

    while (pool->waiting > 0 && (worker = choose(pool)) != NULL) {
        struct sml_seat *seat = sml_seat_of(pool->line.next);

        out_of_line(pool, seat);
        sit_down(pool, seat, worker);
        sml_list_push_back(told, &seat->link);
    }
}

static void refuse(struct semel_pool *pool, struct sml_seat *seat, enum semel_status status,
                   struct sml_list *told)
{
    out_of_line(pool, seat);
    seat->status = status;
    sml_list_push_back(told, &seat->link);
}

void sml_seat_refuse_all(struct semel_pool *pool, enum semel_status status, struct sml_list *told)
{
    while (pool->waiting > 0)
        refuse(pool, sml_seat_of(pool->line.next), status, told);
}

void sml_seat_expire(struct semel_pool *pool, uint64_t now, struct sml_list *told)
{
    struct sml_heap_node *node;

    while ((node = sml_heap_min(&pool->timers)) != NULL && node->key <= now)
        refuse(pool, SML_CONTAINER(node, struct sml_seat, timer), SEMEL_EXPIRED, told);
}

void sml_seat_tell(struct sml_list *told)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(told)) != NULL) {
        struct sml_seat *seat = sml_seat_of(node);

        seat->granted(seat);
    }
}

/* One that has served its time takes nothing new from now on. Lock held. */
static void count_call(struct semel_pool *pool, struct sml_worker *worker)
{
    worker->calls++;
    if (pool->options.recycle_calls > 0 && worker->calls >= pool->options.recycle_calls)
        sml_worker_retire_locked(worker);
}

void sml_seat_leave(struct semel_pool *pool, struct sml_seat *seat, bool ended,
                    enum semel_outcome outcome)
{
    struct sml_worker *worker = seat->worker;
    struct sml_list told;

    sml_list_init(&told);
    sml_mutex_lock(&pool->lock);
    seat->worker = NULL;
    worker->in_flight--;
    pool->running--;
    if (seat->served)
        count_call(pool, worker);
    worker->abandoned += seat->abandoned;
    if (pool->running == 0 && pool->stage != SML_POOL_OPEN)
        sml_cond_broadcast(&pool->changed);
    /* The keeper looks after whoever is not ready, and leaves with the last. */
    if (worker->state != SEMEL_WORKER_READY || pool->stage != SML_POOL_OPEN || seat->abandoned)
        sml_wake_signal(&pool->wake);
    sml_seat_serve_line(pool, &told);
    if (!sml_list_empty(&told)) {
        sml_mutex_unlock(&pool->lock);
        sml_seat_tell(&told);
        sml_mutex_lock(&pool->lock);
    }
    if (ended)
        close_call(pool, seat, outcome);
    sml_mutex_unlock(&pool->lock);
}

void sml_seat_end(struct semel_pool *pool, struct sml_seat *seat, enum semel_outcome outcome)
{
    if (!seat->open)
        return;
    sml_mutex_lock(&pool->lock);
    close_call(pool, seat, outcome);
    sml_mutex_unlock(&pool->lock);
}

void sml_seat_doubt(const struct sml_seat *seat, struct semel_result *result)
{
    if (seat->reruns > 0 && result->outcome == SEMEL_NOT_EXECUTED)
        result->outcome = SEMEL_UNKNOWN;
}

void sml_seat_shun(struct sml_seat *seat)
{
    struct sml_worker *worker = seat->worker;

    sml_mutex_lock(&worker->pool->lock);
    if (worker->state == SEMEL_WORKER_READY)
        worker->state = SEMEL_WORKER_DYING;
    sml_mutex_unlock(&worker->pool->lock);
}

struct semel_client *sml_seat_client(const struct sml_seat *seat)
{
    return seat->worker->client;
}

void sml_seat_mark(struct sml_seat *seat)
{
    /* What a write takes at this moment is not counted: the mark is never too high. */
    (void)sml_client_written(seat->worker->client, &seat->mark);
}

/* --- inquests ----------------------------------------------------------------------------- */

void sml_seat_await_inquest(struct semel_pool *pool, struct sml_seat *seat,
                            void (*decidable)(struct sml_seat *seat))
{
    sml_mutex_lock(&pool->lock);
    seat->decidable = decidable;
    sml_list_push_back(&pool->mourners, &seat->link);
    sml_wake_signal(&pool->wake);
    sml_mutex_unlock(&pool->lock);
}

bool sml_seat_forget_inquest(struct semel_pool *pool, struct sml_seat *seat)
{
    bool waits;

    sml_mutex_lock(&pool->lock);
    waits = seat->decidable != NULL;
    seat->decidable = NULL;
    if (waits)
        sml_list_remove(&seat->link);
    sml_mutex_unlock(&pool->lock);
    return waits;
}

static struct sml_seat *next_decidable(struct semel_pool *pool,
                                       void (**out_decidable)(struct sml_seat *seat))
{
    struct sml_list *node;

    for (node = pool->mourners.next; node != &pool->mourners; node = node->next) {
        struct sml_seat *seat = sml_seat_of(node);

        if (atomic_load_explicit(&seat->worker->buried, memory_order_acquire) == 0)
            continue;
        sml_list_remove(node);
        *out_decidable = seat->decidable;
        seat->decidable = NULL;
        return seat;
    }
    return NULL;
}

void sml_seat_tell_decidable(struct semel_pool *pool)
{
    void (*decidable)(struct sml_seat * seat);
    struct sml_seat *seat;

    sml_mutex_lock(&pool->lock);
    while ((seat = next_decidable(pool, &decidable)) != NULL) {
        sml_mutex_unlock(&pool->lock);
        decidable(seat);
        sml_mutex_lock(&pool->lock);
    }
    sml_mutex_unlock(&pool->lock);
}

void sml_seat_count_again(struct semel_pool *pool, enum sml_fate fate)
{
    sml_mutex_lock(&pool->lock);
    pool->counters.calls_moved += fate == SML_FATE_AGAIN;
    pool->counters.calls_rerun += fate == SML_FATE_RERUN;
    sml_mutex_unlock(&pool->lock);
}
