/* SPDX-License-Identifier: MIT */
/* server_watch.c - the serving threads' creation and end, and their watchdog.
 *
 * Problem. The leader may run a handler that turns out to be slow. Reading, timers and flushing
 * must go on after 2 ms. So a watchdog looks once per millisecond at when the leader entered its
 * handler; if that is too long ago, leadership is vacant and an idle thread takes it. Everything a
 * new leader needs hangs off the server; the old one notices when it takes queue_lock after its
 * handler. One thread more than handlers may run guarantees that a thread is there, or can be made.
 *
 * A tick costs a wake of a core, so the watchdog sleeps without a limit once no handler has run
 * inline for 100 ms. `watch_word` carries the hand-shake: the watchdog announces its sleep, then
 * looks at `inlining` again; the leader sets `inlining`, then looks at the announcement. Both with
 * sequentially consistent order, so at least one sees the other. */
#include "rpc/server_internal.h"

#include <stdlib.h>

enum { AWAKE, ASLEEP, LEAVE };

#define LONG_AGO 1 /* of the clock: it began at 0 */

static _Thread_local struct sml_worker *self;

struct sml_worker *sml_worker_self(void)
{
    return self;
}

void sml_worker_set_self(struct sml_worker *worker)
{
    self = worker;
}

/* --- threads --------------------------------------------------------------------------------- */

void sml_server_reap(struct semel_server *server)
{
    struct sml_list gone, *node;

    sml_list_init(&gone);
    sml_mutex_lock(&server->queue_lock);
    sml_list_move_all(&gone, &server->left);
    sml_mutex_unlock(&server->queue_lock);
    while ((node = sml_list_pop_front(&gone)) != NULL) {
        struct sml_worker *worker = SML_CONTAINER(node, struct sml_worker, all);

        sml_thread_join(&worker->thread);
        free(worker);
    }
}

enum semel_status sml_server_spawn(struct semel_server *server, bool for_work)
{
    struct sml_worker *worker = calloc(1, sizeof *worker);
    enum semel_status status;

    if (worker == NULL)
        return SEMEL_NO_MEMORY;
    sml_server_reap(server);
    worker->server = server;
    worker->for_work = for_work;
    sml_list_init(&worker->idle_link);
    sml_mutex_lock(&server->queue_lock);
    worker->slot = sml_slot_take_locked(server);
    sml_list_push_back(&server->all_workers, &worker->all);
    sml_mutex_unlock(&server->queue_lock);
    status = sml_thread_create(&worker->thread, "semel-serve", 0, sml_worker_main, worker);
    if (status == SEMEL_OK)
        return SEMEL_OK;
    sml_mutex_lock(&server->queue_lock);
    sml_slot_give_back_locked(server, worker->slot);
    sml_list_remove(&worker->all);
    sml_mutex_unlock(&server->queue_lock);
    free(worker);
    return status;
}

/* --- the watchdog ---------------------------------------------------------------------------- */

void sml_watchdog_attend(struct semel_server *server)
{
    uint32_t asleep = ASLEEP;

    atomic_fetch_add_explicit(&server->inline_rounds, 1, memory_order_relaxed);
    atomic_store(&server->inlining, true);
    if (atomic_load(&server->watch_word) == ASLEEP &&
        atomic_compare_exchange_strong(&server->watch_word, &asleep, AWAKE))
        sml_futex_wake(&server->watch_word, 1);
}

/* queue_lock held. */
static void vacate_locked(struct semel_server *server)
{
    server->leader = NULL;
    server->leader_wanted = true;
    atomic_store_explicit(&server->inline_since, 0, memory_order_relaxed);
    atomic_store_explicit(&server->inlining, false, memory_order_relaxed);
}

bool sml_server_promote(struct semel_server *server)
{
    struct sml_worker *heir = NULL;
    struct sml_list *node;
    bool spawn = false, wanted;

    sml_mutex_lock(&server->queue_lock);
    wanted = server->leader_wanted && !server->quit;
    node = wanted ? sml_list_pop_front(&server->idle) : NULL;
    if (node) {
        heir = SML_CONTAINER(node, struct sml_worker, idle_link);
        atomic_store_explicit(&heir->signal, SML_SIGNAL_LOOK, memory_order_relaxed);
        wanted = false; /* it looks, and finds that */
    } else if (wanted && server->threads <= server->workers) {
        spawn = true;
        server->threads++;
    }
    sml_mutex_unlock(&server->queue_lock);
    if (heir)
        sml_futex_wake(&heir->signal, 1);
    if (!spawn)
        return wanted;
    wanted = sml_server_spawn(server, false) != SEMEL_OK;
    if (wanted) {
        sml_mutex_lock(&server->queue_lock);
        server->threads--;
        sml_cond_broadcast(&server->changed); /* a destroy may have waited for it */
        sml_mutex_unlock(&server->queue_lock);
    }
    return wanted;
}

void sml_server_resign(struct sml_worker *worker)
{
    struct semel_server *server = worker->server;
    bool led;

    sml_mutex_lock(&server->queue_lock);
    led = server->leader == worker;
    if (led)
        vacate_locked(server);
    sml_mutex_unlock(&server->queue_lock);
    if (!led || !sml_server_promote(server))
        return;
    /* There is no thread to be had: the watchdog tries again until there is. */
    sml_mutex_lock(&server->queue_lock);
    if (server->leader_wanted) {
        atomic_store_explicit(&server->inline_since, LONG_AGO, memory_order_relaxed);
        sml_watchdog_attend(server);
    }
    sml_mutex_unlock(&server->queue_lock);
}

/* If the leader has outstayed, another thread is to lead. Returns whether one is still wanted. */
static bool depose(struct semel_server *server, uint64_t now)
{
    uint64_t since;

    sml_mutex_lock(&server->queue_lock);
    since = atomic_load_explicit(&server->inline_since, memory_order_acquire);
    if (server->leader && since != 0 && now > since + SML_OUTSTAY_NS) {
        server->takeovers++;
        vacate_locked(server);
    }
    sml_mutex_unlock(&server->queue_lock);
    return sml_server_promote(server);
}

/* Nothing to watch: sleep until there is. */
static void doze(struct semel_server *server)
{
    uint32_t awake = AWAKE;

    if (!atomic_compare_exchange_strong(&server->watch_word, &awake, ASLEEP))
        return;
    if (atomic_load(&server->inlining)) {
        uint32_t asleep = ASLEEP;

        atomic_compare_exchange_strong(&server->watch_word, &asleep, AWAKE);
        return;
    }
    while (atomic_load(&server->watch_word) == ASLEEP)
        sml_futex_wait(&server->watch_word, ASLEEP, SML_NEVER);
}

static void watch(void *arg)
{
    struct semel_server *server = arg;
    uint64_t active = sml_clock_now();
    uint32_t seen = 0;
    bool wanted = false;

    while (atomic_load(&server->watch_word) != LEAVE) {
        uint64_t now = sml_clock_now();
        uint64_t since = atomic_load_explicit(&server->inline_since, memory_order_relaxed);
        uint32_t rounds = atomic_load_explicit(&server->inline_rounds, memory_order_relaxed);

        if (wanted || (since != 0 && now > since + SML_OUTSTAY_NS))
            wanted = depose(server, now);
        if (wanted || since != 0 || rounds != seen)
            active = now;
        seen = rounds;
        if (now < active + SML_WATCH_LINGER_NS)
            sml_futex_wait(&server->watch_word, AWAKE, now + SML_WATCH_TICK_NS);
        else
            doze(server);
    }
}

enum semel_status sml_watchdog_start(struct semel_server *server)
{
    atomic_store(&server->watch_word, AWAKE);
    return sml_thread_create(&server->watchdog, "semel-watch", 0, watch, server);
}

void sml_watchdog_stop(struct semel_server *server)
{
    atomic_store(&server->watch_word, LEAVE);
    sml_futex_wake(&server->watch_word, 1);
    sml_thread_join(&server->watchdog);
}
