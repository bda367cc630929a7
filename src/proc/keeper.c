/* SPDX-License-Identifier: MIT */
/* keeper.c - the pool's own thread: starts processes, hears of their ends, keeps the time.
 *
 * Only it starts and frees workers, so it walks their list without the lock; what others write
 * (states, wishes) it reads under the lock, one worker at a time, and then acts without. Calls are
 * no business of its own, but for those that wait too long, and those whose worker died.
 *
 * A place whose process died gets the next one at once; if that had not ended a single call and was
 * young, after a delay that doubles each time. After `fast_deaths_max` of these in a row it is
 * given up; when no place is left, every call is told NO_WORKERS. */
#include "proc/pool_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/clock.h"

#define EVENTS_MAX 64
#define WEIGH (100 * SML_MS)
#define PROBE (100 * SML_MS)
#define YOUNG (10 * SML_SECOND)
#define TAG_WAKE 0 /* else a worker's address */

/* --- telling ------------------------------------------------------------------------------ */

void sml_pool_log(struct semel_pool *pool, enum semel_log_level level, const char *format, ...)
{
    char line[2 * SML_REASON_BYTES];
    va_list arguments;

    if (!pool->options.log)
        return;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    pool->options.log(level, line, pool->options.log_user);
}

static void tell(struct semel_pool *pool, enum semel_worker_event_kind kind, uint32_t place,
                 const struct sml_worker *worker, const char *text)
{
    struct semel_worker_event event = {
        .kind = kind,
        .worker = worker ? worker->id : 0,
        .pid = worker ? (int)worker->pid : 0,
        .place = place,
        .text = text,
    };

    if (pool->options.on_event)
        pool->options.on_event(pool, &event, pool->options.event_user);
}

/* --- starting ----------------------------------------------------------------------------- */

static void move_in(struct semel_pool *pool, uint32_t place, struct sml_worker *worker)
{
    struct sml_list told;

    sml_list_init(&told);
    sml_mutex_lock(&pool->lock);
    worker->id = ++pool->ids;
    worker->place = place;
    sml_list_push_back(&pool->workers, &worker->all);
    pool->places[place].worker = worker;
    pool->places[place].restart_at = SML_NEVER;
    pool->places[place].processes++;
    pool->counters.workers_started++;
    sml_seat_serve_line(pool, &told); /* it may have been quick */
    sml_mutex_unlock(&pool->lock);
    sml_seat_tell(&told);
}

static uint64_t delay_after(const struct semel_pool *pool, uint32_t fast_deaths)
{
    int64_t ms = pool->options.restart_min_ms;

    if (fast_deaths == 0)
        return 0;
    while (--fast_deaths > 0 && ms < pool->options.restart_max_ms)
        ms *= 2;
    if (ms > pool->options.restart_max_ms)
        ms = pool->options.restart_max_ms;
    return (uint64_t)ms * SML_MS;
}

/* The place is empty: the next process comes after a delay, or none does. Lock held. */
static void vacate(struct semel_pool *pool, struct sml_place *place, bool fast, uint64_t now,
                   struct sml_list *told)
{
    place->worker = NULL;
    place->fast_deaths = fast ? place->fast_deaths + 1 : 0;
    place->restart_at = SML_NEVER;
    if (pool->stage != SML_POOL_OPEN)
        return;
    if (place->fast_deaths < pool->options.fast_deaths_max) {
        place->restart_at = sml_time_add(now, delay_after(pool, place->fast_deaths));
        return;
    }
    place->given_up = true;
    pool->counters.places_given_up++;
    if (--pool->places_left == 0)
        sml_seat_refuse_all(pool, SEMEL_NO_WORKERS, told);
}

static void say_given_up(struct semel_pool *pool, uint32_t place)
{
    sml_pool_log(pool, SEMEL_LOG_ERROR,
                 "place %u is given up: %u workers died at once, one after "
                 "the other",
                 (unsigned)place, (unsigned)pool->options.fast_deaths_max);
    tell(pool, SEMEL_WORKER_ABANDONED, place, NULL, "too many workers died at once");
}

static void not_started(struct semel_pool *pool, uint32_t index, const char *why)
{
    struct sml_place *place = &pool->places[index];
    struct sml_list told;
    bool given_up;

    sml_list_init(&told);
    sml_mutex_lock(&pool->lock);
    pool->counters.starts_failed++;
    vacate(pool, place, true, sml_clock_now(), &told);
    given_up = place->given_up;
    sml_mutex_unlock(&pool->lock);
    sml_seat_tell(&told);
    sml_pool_log(pool, SEMEL_LOG_ERROR, "%s", why);
    tell(pool, SEMEL_WORKER_NOT_STARTED, index, NULL, why);
    if (given_up)
        say_given_up(pool, index);
}

/* --- ends --------------------------------------------------------------------------------- */

static bool was_fast(const struct sml_worker *worker, uint64_t now)
{
    return !worker->asked && !worker->blameless && worker->calls == 0 &&
           now - worker->started_at < YOUNG;
}

static void note_end(struct sml_worker *worker, struct sml_list *told, bool *out_given_up)
{
    struct semel_pool *pool = worker->pool;
    struct sml_place *place = &pool->places[worker->place];
    uint64_t now = sml_clock_now();

    place->last_pid = worker->pid;
    memcpy(place->last_exit, worker->epitaph, sizeof place->last_exit);
    pool->counters.workers_died += !worker->asked;
    if (place->worker == worker) {
        vacate(pool, place, was_fast(worker, now), now, told);
        *out_given_up = place->given_up;
    }
}

/* The process is gone. Its calls are told by their clients and callers. */
static void end_of(struct sml_worker *worker)
{
    struct semel_pool *pool = worker->pool;
    struct sml_list told;
    bool given_up = false;
    uint32_t calls;

    sml_epoll_remove(&pool->epoll, worker->child.pidfd);
    sml_mutex_lock(&pool->lock);
    worker->over = true;
    worker->state = SEMEL_WORKER_DYING; /* nobody new comes */
    sml_mutex_unlock(&pool->lock);
    sml_worker_inquest(worker);
    sml_list_init(&told);
    sml_mutex_lock(&pool->lock);
    calls = worker->in_flight;
    note_end(worker, &told, &given_up);
    sml_mutex_unlock(&pool->lock);
    sml_seat_tell(&told);
    sml_pool_log(pool, worker->asked ? SEMEL_LOG_INFO : SEMEL_LOG_WARNING,
                 "worker %d %s; it had %u calls", (int)worker->pid, worker->epitaph,
                 (unsigned)calls);
    tell(pool, worker->asked ? SEMEL_WORKER_LEFT : SEMEL_WORKER_DIED, worker->place, worker,
         worker->epitaph);
    if (given_up)
        say_given_up(pool, worker->place);
}

static enum semel_status start_at(struct semel_pool *pool, uint32_t index)
{
    struct sml_reason reason = { "" };
    struct sml_worker *worker;
    enum semel_status status = sml_worker_start(pool, &worker, &reason);

    if (status != SEMEL_OK) {
        not_started(pool, index, reason.text);
        return status;
    }
    move_in(pool, index, worker);
    sml_pool_log(pool, SEMEL_LOG_INFO, "worker %d started", (int)worker->pid);
    tell(pool, SEMEL_WORKER_STARTED, index, worker, "");
    status =
        sml_epoll_add(&pool->epoll, worker->child.pidfd, SML_POLL_IN, (uint64_t)(uintptr_t)worker);
    if (status != SEMEL_OK) { /* its end would not be heard of: it ends now */
        sml_worker_kill(worker);
        end_of(worker);
    }
    return SEMEL_OK;
}

static void start_due(struct semel_pool *pool, uint64_t now)
{
    for (uint32_t i = 0; i < pool->options.workers; i++) {
        bool due;

        sml_mutex_lock(&pool->lock);
        due = pool->stage == SML_POOL_OPEN && pool->places[i].restart_at <= now;
        sml_mutex_unlock(&pool->lock);
        if (due)
            (void)start_at(pool, i);
    }
}

/* --- one worker at a time ----------------------------------------------------------------- */

/* What is to be done with it, as others see it. */
struct wishes {
    bool serves, retired, kill, goodbye, stop_calls, free, probe;
};

/* Lock held. */
static struct wishes wishes_of(struct semel_pool *pool, struct sml_worker *worker, uint64_t now)
{
    bool deserted = worker->in_flight == 0 && !worker->probing;
    struct sml_place *place = &pool->places[worker->place];
    bool buried = atomic_load_explicit(&worker->buried, memory_order_relaxed) != 0;
    struct wishes wishes = { .serves = worker->ready_untold };

    if (pool->stage == SML_POOL_ENDING && !worker->asked) {
        worker->asked = true;
        if (worker->state != SEMEL_WORKER_DYING)
            worker->state = SEMEL_WORKER_LEAVING;
    }
    wishes.retired = worker->retired_untold;
    wishes.kill = worker->kill_wanted && !worker->killed;
    wishes.goodbye = worker->state == SEMEL_WORKER_LEAVING && deserted && !buried &&
                     !worker->spoiled && !worker->said_goodbye;
    wishes.stop_calls = pool->stage == SML_POOL_ENDING && !deserted;
    wishes.free = buried && deserted;
    wishes.probe = worker->state == SEMEL_WORKER_READY && worker->abandoned > 0 &&
                   !worker->probing && worker->probe_at <= now;
    worker->probing |= wishes.probe;
    worker->ready_untold = worker->retired_untold = false;
    worker->said_goodbye |= wishes.goodbye;
    pool->counters.workers_killed += wishes.kill;
    if (worker->state == SEMEL_WORKER_LEAVING && place->worker == worker) {
        place->worker = NULL; /* its successor comes at once */
        place->fast_deaths = 0;
        place->restart_at = pool->stage == SML_POOL_OPEN ? 0 : SML_NEVER;
    }
    if (wishes.free)
        sml_list_remove(&worker->all);
    return wishes;
}

static void see_to(struct sml_worker *worker, uint64_t now)
{
    struct semel_pool *pool = worker->pool;
    struct wishes wishes;

    sml_mutex_lock(&pool->lock);
    wishes = wishes_of(pool, worker, now);
    sml_mutex_unlock(&pool->lock);
    if (wishes.serves)
        tell(pool, SEMEL_WORKER_SERVES, worker->place, worker, "");
    if (wishes.retired)
        tell(pool, SEMEL_WORKER_RECYCLED, worker->place, worker, "");
    if (wishes.free) {
        sml_worker_free(worker);
        return;
    }
    if (wishes.probe) {
        worker->probe_at = sml_time_add(now, PROBE);
        sml_worker_probe(worker);
    }
    if (wishes.kill)
        sml_worker_kill(worker);
    if (wishes.stop_calls)
        semel_client_stop(worker->client);
    if (wishes.goodbye)
        sml_worker_say_goodbye(worker);
    if (worker->term_at <= now) {
        worker->term_at = SML_NEVER;
        sml_child_terminate(&worker->child);
    }
    if (worker->kill_at <= now) {
        worker->kill_at = SML_NEVER;
        sml_worker_kill(worker);
    }
}

static void see_to_all(struct semel_pool *pool, uint64_t now)
{
    struct sml_list *node, *next;

    for (node = pool->workers.next; node != &pool->workers; node = next) {
        next = node->next;
        see_to(SML_CONTAINER(node, struct sml_worker, all), now);
    }
}

static void weigh(struct sml_worker *worker)
{
    struct semel_pool *pool = worker->pool;
    bool worked;

    sml_mutex_lock(&pool->lock);
    worked = worker->state == SEMEL_WORKER_READY &&
             (worker->in_flight > 0 || worker->calls != worker->calls_weighed);
    worker->calls_weighed = worker->calls;
    sml_mutex_unlock(&pool->lock);
    if (!worked || sml_child_rss(&worker->child) < pool->options.recycle_bytes)
        return;
    sml_mutex_lock(&pool->lock);
    sml_worker_retire_locked(worker);
    sml_mutex_unlock(&pool->lock);
    sml_wake_signal(&pool->wake);
}

static void weigh_all(struct semel_pool *pool, uint64_t now)
{
    struct sml_list *node;

    if (pool->weigh_at > now)
        return;
    pool->weigh_at = sml_time_add(now, WEIGH);
    for (node = pool->workers.next; node != &pool->workers; node = node->next)
        weigh(SML_CONTAINER(node, struct sml_worker, all));
}

/* --- calls -------------------------------------------------------------------------------- */

static void see_to_calls(struct semel_pool *pool)
{
    struct sml_list told, ended, decidable, *node;

    sml_list_init(&told);
    sml_list_init(&ended);
    sml_list_init(&decidable);
    sml_mutex_lock(&pool->lock);
    sml_seat_expire(pool, sml_clock_now(), &told);
    sml_list_move_all(&ended, &pool->ended);
    sml_job_take_decidable(pool, &decidable);
    sml_mutex_unlock(&pool->lock);
    sml_seat_tell(&told);
    while ((node = sml_list_pop_front(&ended)) != NULL)
        sml_job_end(node);
    while ((node = sml_list_pop_front(&decidable)) != NULL)
        sml_job_decide(node);
    sml_seat_tell_decidable(pool);
}

/* --- the round ---------------------------------------------------------------------------- */

static uint64_t next_time(struct semel_pool *pool)
{
    uint64_t next = sml_time_min(sml_heap_min_key(&pool->timers), pool->weigh_at);
    struct sml_list *node;

    for (uint32_t i = 0; i < pool->options.workers && pool->stage == SML_POOL_OPEN; i++)
        next = sml_time_min(next, pool->places[i].restart_at);
    for (node = pool->workers.next; node != &pool->workers; node = node->next) {
        struct sml_worker *worker = SML_CONTAINER(node, struct sml_worker, all);

        next = sml_time_min(next, sml_time_min(worker->term_at, worker->kill_at));
        if (worker->abandoned > 0 && !worker->probing && worker->state == SEMEL_WORKER_READY)
            next = sml_time_min(next, worker->probe_at);
    }
    return next;
}

/* Lock held. */
static bool is_finished(const struct semel_pool *pool)
{
    return pool->stage == SML_POOL_ENDING && sml_list_empty(&pool->workers) && pool->inside == 0;
}

static void wait_for_events(struct semel_pool *pool)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t until;
    int count;

    sml_mutex_lock(&pool->lock);
    until = next_time(pool);
    sml_mutex_unlock(&pool->lock);
    count = sml_epoll_wait(&pool->epoll, events, EVENTS_MAX, until);
    for (int i = 0; i < count; i++) {
        if (events[i].data.u64 == TAG_WAKE)
            sml_wake_drain(&pool->wake);
        else
            end_of((struct sml_worker *)(uintptr_t)events[i].data.u64);
    }
}

/* The first processes; create waits for them. */
static enum semel_status launch(struct semel_pool *pool)
{
    enum semel_status status = SEMEL_OK;

    for (uint32_t i = 0; i < pool->options.workers && status == SEMEL_OK; i++)
        status = start_at(pool, i);
    sml_mutex_lock(&pool->lock);
    pool->launched = true;
    pool->launch = status;
    if (status != SEMEL_OK)
        pool->stage = SML_POOL_ENDING;
    sml_cond_broadcast(&pool->changed);
    sml_mutex_unlock(&pool->lock);
    return status;
}

void sml_keeper_main(void *arg)
{
    struct semel_pool *pool = arg;
    bool finished = false;

    sml_thread_enter_loop(); /* callbacks run here: a call that waits is refused */
    (void)launch(pool);
    while (!finished) {
        uint64_t now = sml_clock_now();

        see_to_all(pool, now);
        start_due(pool, now);
        weigh_all(pool, now);
        see_to_calls(pool);
        sml_mutex_lock(&pool->lock);
        finished = is_finished(pool);
        sml_mutex_unlock(&pool->lock);
        if (!finished)
            wait_for_events(pool);
    }
    sml_thread_leave_loop();
}
