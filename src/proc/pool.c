/* SPDX-License-Identifier: MIT */
/* pool.c - a pool's life: options, creation, stopping, destruction; what it tells of itself.
 *
 * Lifecycle. 1. create starts the keeper, which starts the processes. 2. stop refuses what comes
 * and what waits (STOPPING), waits for the calls that run, then has the keeper see the workers out
 * (ENDING): it leaves when none is left, and is joined (STOPPED). 3. destroy is a stop that does
 * not wait for calls: the keeper stops their clients. Then everything is freed. 4. In a forked
 * child only destroy does anything. */
#include "proc/pool_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/clock.h"

/* --- options ------------------------------------------------------------------------------ */

static bool set_ms(int64_t *ms, int64_t fallback, bool may_be_negative)
{
    if (*ms == 0)
        *ms = fallback;
    return *ms <= INT32_MAX && (*ms > 0 || may_be_negative);
}

static void set_count(uint32_t *count, uint32_t fallback)
{
    if (*count == 0)
        *count = fallback;
}

static uint32_t cores(void)
{
    unsigned cores = sml_thread_cores();

    return cores < SEMEL_WORKERS_MIN        ? SEMEL_WORKERS_MIN
           : cores > SEMEL_POOL_WORKERS_MAX ? SEMEL_POOL_WORKERS_MAX
                                            : cores;
}

static enum semel_status fill_options(struct semel_pool_options *o)
{
    bool good = set_ms(&o->deadline_ms, SEMEL_DEADLINE_MS, false);

    good &= set_ms(&o->cancel_grace_ms, SEMEL_CANCEL_GRACE_MS, true);
    good &= set_ms(&o->heartbeat_ms, SEMEL_HEARTBEAT_MS, true);
    good &= set_ms(&o->start_ms, SEMEL_POOL_START_MS, false);
    good &= set_ms(&o->restart_min_ms, SEMEL_POOL_RESTART_MIN_MS, false);
    good &= set_ms(&o->restart_max_ms, SEMEL_POOL_RESTART_MAX_MS, false);
    good &= set_ms(&o->stop_grace_ms, SEMEL_POOL_STOP_GRACE_MS, true);
    set_count(&o->workers, cores());
    set_count(&o->calls_per_worker, 1);
    set_count(&o->waiting_calls, SEMEL_POOL_WAITING_CALLS);
    set_count(&o->fast_deaths_max, SEMEL_POOL_FAST_DEATHS);
    if (o->body_bytes == 0)
        o->body_bytes = SEMEL_BODY_BYTES;
    if (o->restart_max_ms < o->restart_min_ms)
        o->restart_max_ms = o->restart_min_ms;
    good &= o->workers <= SEMEL_POOL_WORKERS_MAX && o->calls_per_worker <= SEMEL_WINDOW_CALLS_MAX &&
            o->body_bytes <= SEMEL_BODY_BYTES_MAX && (!o->program || strchr(o->program, '/'));
    return good ? SEMEL_OK : SEMEL_INVALID;
}

/* "--semel-worker=3:CALLS:BODY_BYTES" */
static char *make_argument(const struct semel_pool_options *o)
{
    char *argument = malloc(sizeof SML_WORKER_ARGUMENT + 64);

    if (argument)
        (void)snprintf(argument, sizeof SML_WORKER_ARGUMENT + 64, "%s%d:%lu:%llu",
                       SML_WORKER_ARGUMENT, SML_SPAWN_FD, (unsigned long)o->calls_per_worker,
                       (unsigned long long)o->body_bytes);
    return argument;
}

static char **copy_arguments(const struct semel_pool_options *o)
{
    const char *const alone[] = { o->program ? o->program : "semel-worker", NULL };
    const char *const *from = o->arguments && o->arguments[0] ? o->arguments : alone;
    size_t count = 0, i;
    char **argv;

    while (from[count])
        count++;
    argv = calloc(count + 2, sizeof *argv);
    if (!argv)
        return NULL;
    for (i = 0; i < count && (argv[i] = strdup(from[i])) != NULL; i++)
        ;
    if (i == count && (o->plain_arguments || (argv[i] = make_argument(o)) != NULL))
        return argv;
    for (i = 0; i < count; i++)
        free(argv[i]);
    free(argv);
    return NULL;
}

/* --- create and destroy ------------------------------------------------------------------- */

static void free_pool(struct semel_pool *pool)
{
    for (char **argument = pool->argv; argument && *argument; argument++)
        free(*argument);
    free(pool->argv);
    free(pool->program);
    free(pool->places);
    sml_epoll_close(&pool->epoll);
    sml_wake_close(&pool->wake);
    sml_origin_fini(&pool->origin);
    free(pool);
}

static struct semel_pool *new_pool(const struct semel_pool_options *options)
{
    struct semel_pool *pool = calloc(1, sizeof *pool);

    if (!pool)
        return NULL;
    pool->options = *options;
    pool->epoll.fd = pool->wake.fd = -1;
    sml_origin_init(&pool->origin);
    sml_list_init(&pool->workers);
    sml_list_init(&pool->line);
    sml_list_init(&pool->doubtful);
    sml_list_init(&pool->mourners);
    sml_list_init(&pool->ended);
    sml_heap_init(&pool->timers);
    pool->weigh_at = options->recycle_bytes ? 0 : SML_NEVER;
    pool->places_left = options->workers;
    pool->places = calloc(options->workers, sizeof *pool->places);
    pool->program = options->program ? strdup(options->program) : NULL;
    pool->argv = copy_arguments(options);
    if (pool->places && pool->argv && (pool->program || !options->program))
        return pool;
    free_pool(pool);
    return NULL;
}

static enum semel_status open_pool(struct semel_pool *pool)
{
    enum semel_status status = sml_wake_open(&pool->wake);

    for (uint32_t i = 0; i < pool->options.workers; i++)
        pool->places[i].restart_at = SML_NEVER;
    if (status == SEMEL_OK)
        status = sml_epoll_open(&pool->epoll);
    if (status == SEMEL_OK)
        status = sml_epoll_add(&pool->epoll, pool->wake.fd, SML_POLL_IN, 0);
    if (status == SEMEL_OK)
        status = sml_thread_create(&pool->keeper, "semel-pool", 0, sml_keeper_main, pool);
    return status;
}

static void fini_locks(struct semel_pool *pool)
{
    sml_cond_fini(&pool->changed);
    sml_mutex_fini(&pool->lock);
}

/* The keeper has tried to start them all. */
static enum semel_status await_launch(struct semel_pool *pool)
{
    enum semel_status status;

    sml_mutex_lock(&pool->lock);
    while (!pool->launched)
        sml_cond_wait(&pool->changed, &pool->lock);
    status = pool->launch;
    sml_mutex_unlock(&pool->lock);
    if (status != SEMEL_OK)
        sml_thread_join(&pool->keeper);
    return status;
}

enum semel_status semel_pool_create(struct semel_pool **out_pool,
                                    const struct semel_pool_options *options)
{
    struct semel_pool_options filled = SEMEL_POOL_OPTIONS_INIT;
    struct semel_pool *pool;
    enum semel_status status;

    if (!out_pool)
        return SEMEL_INVALID;
    if (options)
        filled = *options;
    status = fill_options(&filled);
    if (status != SEMEL_OK)
        return status;
    pool = new_pool(&filled);
    if (!pool)
        return SEMEL_NO_MEMORY;
    if (!filled.program && sml_worker_is_unasked()) {
        sml_pool_log(pool, SEMEL_LOG_ERROR,
                     "this is a worker process, whose main does not call semel_worker_main first");
        free_pool(pool);
        return SEMEL_INVALID;
    }
    sml_mutex_init(&pool->lock);
    sml_cond_init(&pool->changed);
    status = open_pool(pool);
    if (status == SEMEL_OK)
        status = await_launch(pool);
    if (status != SEMEL_OK) {
        fini_locks(pool);
        free_pool(pool);
        return status;
    }
    *out_pool = pool;
    return SEMEL_OK;
}

/* Begin to stop; those who wait are refused. */
static void begin_stop(struct semel_pool *pool, enum sml_pool_stage stage)
{
    struct sml_list told;

    sml_list_init(&told);
    sml_mutex_lock(&pool->lock);
    if (pool->stage == SML_POOL_STOPPED) {
        sml_mutex_unlock(&pool->lock);
        return;
    }
    sml_pool_enter(pool);
    if (pool->stage < stage)
        pool->stage = stage;
    sml_seat_refuse_all(pool, SEMEL_STOPPED, &told);
    sml_mutex_unlock(&pool->lock);
    sml_seat_tell(&told);
    sml_mutex_lock(&pool->lock);
    sml_wake_signal(&pool->wake);
    sml_pool_exit(pool);
    sml_mutex_unlock(&pool->lock);
}

/* The keeper sees everybody out, and leaves. Several may wait for that. */
static void see_out(struct semel_pool *pool)
{
    begin_stop(pool, SML_POOL_ENDING);
    sml_mutex_lock(&pool->lock);
    while (pool->joining && !pool->joined)
        sml_cond_wait(&pool->changed, &pool->lock);
    if (!pool->joined) {
        pool->joining = true;
        sml_mutex_unlock(&pool->lock);
        sml_thread_join(&pool->keeper);
        sml_mutex_lock(&pool->lock);
        pool->stage = SML_POOL_STOPPED;
        while (pool->inside > 0) /* they may still ring */
            sml_cond_wait(&pool->changed, &pool->lock);
        sml_epoll_close(&pool->epoll);
        sml_wake_close(&pool->wake);
        pool->joined = true;
        sml_cond_broadcast(&pool->changed);
    }
    sml_mutex_unlock(&pool->lock);
}

/* Calls that have not ended, those included that were refused and have not been told: an executor's
 * loop tells its own, which may be this thread's. Lock held. */
static uint32_t open_calls(const struct semel_pool *pool)
{
    return (uint32_t)(pool->counters.calls_started - pool->counters.calls_completed);
}

/* False: the time is over. */
static bool await_calls(struct semel_pool *pool, int64_t timeout_ms, uint32_t *out_running)
{
    uint64_t until =
        timeout_ms < 0 ? SML_NEVER : sml_time_add(sml_clock_now(), (uint64_t)timeout_ms * SML_MS);
    bool all;

    sml_mutex_lock(&pool->lock);
    while (open_calls(pool) > 0 && timeout_ms != 0 &&
           sml_cond_wait_until(&pool->changed, &pool->lock, until))
        ;
    all = open_calls(pool) == 0;
    if (out_running)
        *out_running = open_calls(pool);
    sml_mutex_unlock(&pool->lock);
    return all;
}

enum semel_status semel_pool_stop(struct semel_pool *pool, int64_t timeout_ms,
                                  uint32_t *out_running)
{
    if (!pool)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&pool->origin))
        return SEMEL_FORKED;
    if (sml_thread_in_loop()) {
        if (timeout_ms != 0)
            return SEMEL_WOULD_DEADLOCK;
        begin_stop(pool, SML_POOL_STOPPING);
        (void)await_calls(pool, 0, out_running);
        return SEMEL_DEADLINE;
    }
    begin_stop(pool, SML_POOL_STOPPING);
    if (!await_calls(pool, timeout_ms, out_running))
        return SEMEL_DEADLINE;
    see_out(pool);
    return SEMEL_OK;
}

/* Nothing of the parent's is touched but this process's copies of descriptors. If one of the
 * parent's threads was inside at the fork, the records stay. */
static void destroy_in_child(struct semel_pool *pool)
{
    struct sml_list *node, *next;

    sml_fd_close(&pool->wake.fd);
    sml_fd_close(&pool->epoll.fd);
    if (!sml_mutex_try_lock(&pool->lock))
        return;
    for (node = pool->workers.next; node != &pool->workers; node = next) {
        struct sml_worker *worker = SML_CONTAINER(node, struct sml_worker, all);

        next = node->next;
        (void)semel_client_destroy(worker->client); /* FORKED */
        sml_fd_close(&worker->far_fd);
        sml_child_forget(&worker->child);
        free(worker);
    }
    sml_mutex_unlock(&pool->lock);
    free_pool(pool);
}

enum semel_status semel_pool_destroy(struct semel_pool *pool)
{
    if (!pool)
        return SEMEL_OK;
    if (!sml_origin_is_mine(&pool->origin)) {
        destroy_in_child(pool);
        return SEMEL_FORKED;
    }
    if (sml_thread_in_loop())
        return SEMEL_WOULD_DEADLOCK;
    see_out(pool);
    fini_locks(pool);
    free_pool(pool);
    return SEMEL_OK;
}

/* --- what calls need ---------------------------------------------------------------------- */

enum semel_status sml_pool_check_locked(const struct semel_pool *pool)
{
    if (pool->stage != SML_POOL_OPEN)
        return SEMEL_STOPPED;
    return pool->places_left == 0 ? SEMEL_NO_WORKERS : SEMEL_OK;
}

uint64_t sml_pool_deadline(const struct semel_pool *pool, const struct semel_call_options *options)
{
    int64_t ms = options->deadline_ms ? options->deadline_ms : pool->options.deadline_ms;

    return sml_time_add(sml_clock_now(), ms < 0 ? 0 : (uint64_t)ms * SML_MS);
}

struct semel_call_options sml_pool_pass_on(const struct semel_call_options *options,
                                           uint64_t deadline, bool lent)
{
    struct semel_call_options passed = *options;
    uint64_t ms = sml_time_ms_until(deadline, sml_clock_now());

    passed.deadline_ms = ms == 0 ? -1 : (int64_t)ms;
    passed.lent = lent;
    return passed;
}

/* --- what it tells of itself -------------------------------------------------------------- */

/* The lock is not part of what the caller may see change. */
static struct semel_pool *mutable(const struct semel_pool *pool)
{
    return (struct semel_pool *)(uintptr_t)pool;
}

static void describe_place(const struct semel_pool *pool, uint32_t index,
                           struct semel_worker_info *info)
{
    const struct sml_place *place = &pool->places[index];

    memset(info, 0, sizeof *info);
    info->state = place->given_up ? SEMEL_WORKER_GIVEN_UP : SEMEL_WORKER_PAUSED;
    info->place = index;
    info->restarts = place->processes;
    info->last_pid = place->last_pid;
    memcpy(info->last_exit, place->last_exit, sizeof info->last_exit);
}

static void describe_worker(const struct sml_worker *worker, uint64_t now,
                            struct semel_worker_info *info)
{
    describe_place(worker->pool, worker->place, info);
    info->worker = worker->id;
    info->pid = (int)worker->pid;
    info->state = worker->state;
    info->in_flight = worker->in_flight;
    info->abandoned = worker->abandoned;
    info->calls = worker->calls;
    info->restarts -= 1;
    info->age_ms = (int64_t)((now - worker->started_at) / SML_MS);
}

static bool is_gone(const struct sml_worker *worker)
{
    return atomic_load_explicit(&worker->buried, memory_order_relaxed) != 0;
}

size_t semel_pool_list(const struct semel_pool *pool, struct semel_worker_info *out_infos,
                       size_t room)
{
    uint64_t now = sml_clock_now();
    struct sml_list *node;
    size_t count = 0;

    if (!pool || (!out_infos && room > 0) || !sml_origin_is_mine(&pool->origin))
        return 0;
    sml_mutex_lock(&mutable(pool)->lock);
    for (node = pool->workers.next; node != &pool->workers; node = node->next) {
        const struct sml_worker *worker = SML_CONTAINER(node, struct sml_worker, all);

        if (is_gone(worker))
            continue;
        if (count < room)
            describe_worker(worker, now, &out_infos[count]);
        count++;
    }
    for (uint32_t i = 0; i < pool->options.workers; i++) {
        if (pool->places[i].worker && !is_gone(pool->places[i].worker))
            continue;
        if (count < room)
            describe_place(pool, i, &out_infos[count]);
        count++;
    }
    sml_mutex_unlock(&mutable(pool)->lock);
    return count;
}

/* Lock held. */
static struct sml_worker *find(struct semel_pool *pool, uint64_t id)
{
    struct sml_list *node;

    for (node = pool->workers.next; node != &pool->workers; node = node->next) {
        struct sml_worker *worker = SML_CONTAINER(node, struct sml_worker, all);

        if (worker->id == id && !is_gone(worker))
            return worker;
    }
    return NULL;
}

enum semel_status semel_pool_kill(struct semel_pool *pool, uint64_t id, bool force)
{
    struct sml_worker *worker;
    enum semel_status status;

    if (!pool)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&pool->origin))
        return SEMEL_FORKED;
    sml_mutex_lock(&pool->lock);
    worker = find(pool, id);
    if (!worker) {
        status = pool->stage == SML_POOL_STOPPED ? SEMEL_STOPPED : SEMEL_INVALID;
        sml_mutex_unlock(&pool->lock);
        return status;
    }
    if (force) {
        worker->kill_wanted = worker->blameless = true;
        worker->state = SEMEL_WORKER_DYING;
    } else {
        sml_worker_retire_locked(worker);
    }
    sml_wake_signal(&pool->wake); /* there is a worker, so there is a keeper */
    sml_mutex_unlock(&pool->lock);
    return SEMEL_OK;
}

void semel_pool_counters(const struct semel_pool *pool, struct semel_pool_counters *out_counters)
{
    if (!out_counters)
        return;
    memset(out_counters, 0, sizeof *out_counters);
    if (!pool || !sml_origin_is_mine(&pool->origin))
        return;
    sml_mutex_lock(&mutable(pool)->lock);
    *out_counters = pool->counters;
    out_counters->calls_running = pool->running;
    out_counters->calls_waiting = pool->waiting;
    sml_mutex_unlock(&mutable(pool)->lock);
}
