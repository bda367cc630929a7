/* SPDX-License-Identifier: MIT */
/* server_run.c - handlers run here: on the leader between two reads, and on workers.
 *
 * A call is taken out of the queue together with a worker slot, begun under its session's stripe
 * (it may have been cancelled meanwhile), and handed to its handler without any lock. Afterwards
 * one passage through queue_lock counts it, learns how long it took, and takes the next.
 *
 * A handler may fork, and its child may return here. The descriptors are the parent's and the locks
 * are in any state: `forked` leads such a thread out of its loop past everything. */
#include "rpc/server_internal.h"

#include <semel/stream.h>
#include <stdlib.h>

/* --- running --------------------------------------------------------------------------------- */

enum begun { GO, OVER, STALLED };

/* The call was cancelled or has expired: its verdict may have to be written. */
void sml_request_let_go(struct semel_request *request)
{
    struct sml_served *served = request->served;
    bool done = sml_served_done(served);

    request->in = NULL;
    request->finished = true;
    sml_request_close_stream(request);
    sml_info_unref(request->info);
    sml_commit_touch(served);
    if (served->conn && sml_peer_wants_write(&served->conn->peer) && !served->conn->touched)
        sml_conn_write(served->conn);
    else
        sml_mutex_unlock(served->lock);
    if (done)
        sml_served_free(served);
}

static enum begun begin(struct sml_worker *worker, struct semel_request *request, bool inlined,
                        uint64_t now)
{
    struct sml_served *served = request->served;
    struct sml_callee *callee = &served->session->callee;

    sml_mutex_lock(served->lock);
    if (sml_served_is_stalled(served) &&
        (request->in->phase == SML_IN_TAKEN || request->in->phase == SML_IN_STARTED)) {
        bool waits = sml_request_stall(request);

        sml_mutex_unlock(served->lock);
        if (!waits)
            sml_server_postpone(request);
        return STALLED;
    }
    if (inlined && served->conn)
        sml_conn_touch(served->conn);
    if (!sml_callee_begin(callee, request->in, request->method->max_run, now)) {
        sml_request_let_go(request);
        return OVER;
    }
    request->place = SML_AT_WORK;
    request->runner = worker;
    atomic_store_explicit(&worker->since, now, memory_order_relaxed);
    atomic_store_explicit(&worker->method, request->method, memory_order_relaxed);
    if (request->method->max_run > 0)
        sml_served_retime(served);
    sml_mutex_unlock(served->lock);
    return GO;
}

/* User code has returned: in the process that called it? */
static bool came_back(struct sml_worker *worker)
{
    worker->forked = !sml_origin_is_mine(&worker->server->origin);
    return !worker->forked;
}

/* Call the handler. Returns true if the request is the server's again. */
static bool call_handler(struct sml_worker *worker, struct semel_request *request)
{
    worker->took = false;
    if (request->method->tells_start && semel_request_takes(request))
        (void)semel_request_progress(request, semel_bytes(NULL, 0));
    request->method->handler(request, request->method->user);
    if (!came_back(worker))
        return false;
    atomic_store_explicit(&worker->method, NULL, memory_order_relaxed);
    if (worker->took) {
        if (atomic_fetch_sub(&request->parties, 1) == 1)
            free(request);
        return false;
    }
    if (!request->finished)
        sml_request_abandoned(request);
    return true;
}

static void finish_run_locked(struct semel_server *server, struct semel_request *request)
{
    sml_request_settle_locked(request);
    sml_server_recycle_locked(server, request);
}

/* A worker's: one call from the queue, whose slot is taken. Returns the time after it; queue_lock
 * is held then, unless `forked`. */
static uint64_t run_one(struct sml_worker *worker, struct semel_request *request, uint64_t now)
{
    struct semel_server *server = worker->server;
    struct sml_method *method = request->method;
    enum begun begun = begin(worker, request, false, now);
    bool ours = begun == GO ? call_handler(worker, request) : begun == OVER;
    uint64_t end = sml_clock_now();

    if (worker->forked)
        return end;
    if (ours && begun == GO)
        sml_method_tally(method, worker->slot, request->outcome, end - request->arrived);
    sml_mutex_lock(&server->queue_lock);
    if (begun == GO) {
        sml_pace_learn(&method->pace, end - now, false);
        server->calls_started++;
        if (ours)
            atomic_fetch_sub(&server->answered, 1);
    }
    if (ours)
        finish_run_locked(server, request);
    return end;
}

/* After a handler: is `worker` still the leader, or can it be at once? queue_lock held. */
static bool reclaim(struct semel_server *server, struct sml_worker *worker)
{
    if (server->leader != worker && server->leader_wanted && !server->quit) {
        server->leader_wanted = false;
        server->leader = worker;
    }
    if (server->leader != worker)
        return false;
    atomic_store_explicit(&server->inline_since, 0, memory_order_relaxed);
    return true;
}

/* The same on the leader. Returns whether it is the leader still; queue_lock held on return, unless
 * `forked`. */
static bool run_one_inline(struct sml_worker *worker, struct semel_request *request, uint64_t *now)
{
    struct semel_server *server = worker->server;
    struct sml_method *method = request->method;
    enum begun begun = begin(worker, request, true, *now);
    bool ours = begun == OVER;
    uint64_t start = *now;

    if (begun == GO) {
        worker->inlining = true;
        /* Release: whoever is made leader because of this sees what was prepared for it. */
        atomic_store_explicit(&server->inline_since, start, memory_order_release);
        ours = call_handler(worker, request);
        worker->inlining = false;
        *now = sml_clock_now();
    }
    if (worker->forked)
        return false;
    if (ours && begun == GO)
        sml_method_tally(method, worker->slot, request->outcome, *now - request->arrived);
    sml_mutex_lock(&server->queue_lock);
    if (begun == GO) {
        sml_pace_learn(&method->pace, *now - start, true);
        server->calls_started++;
        server->calls_inline++;
    }
    if (ours)
        finish_run_locked(server, request);
    return reclaim(server, worker);
}

bool sml_server_run_inline(struct semel_server *server, struct sml_worker *worker)
{
    struct sml_worker *other;
    uint64_t start, now;
    uint32_t ran = 0;
    bool leads = true, spawn;

    sml_mutex_lock(&server->queue_lock);
    if (!sml_server_may_inline_locked(server, server->running)) {
        sml_mutex_unlock(&server->queue_lock);
        return true;
    }
    server->running++;
    sml_watchdog_attend(server);
    start = now = sml_clock_now();
    while (leads && now - start < SML_INLINE_BUDGET_NS &&
           sml_server_may_inline_locked(server, server->running - 1)) {
        struct semel_request *request = sml_queue_first(&server->short_queue);

        sml_queue_take_out_locked(server, request);
        sml_mutex_unlock(&server->queue_lock);
        leads = run_one_inline(worker, request, &now);
        /* The client need not wait for the end of the batch to begin with its part. */
        if (leads && ++ran % SML_FLUSH_RUNS == 0 && !sml_list_empty(&server->short_queue)) {
            sml_mutex_unlock(&server->queue_lock);
            sml_server_flush(server);
            sml_mutex_lock(&server->queue_lock);
        }
    }
    if (worker->forked)
        return false;
    server->running--;
    sml_queue_wake_committer_locked(server); /* a call that waits for the slot may have its start */
    if (leads)
        atomic_store_explicit(&server->inlining, false, memory_order_release);
    other = sml_server_kick_locked(server, &spawn);
    if (server->quit)
        sml_cond_broadcast(&server->changed);
    sml_mutex_unlock(&server->queue_lock);
    sml_server_rouse(server, other, spawn);
    return leads;
}

bool sml_server_tell(struct semel_server *server, struct sml_worker *worker)
{
    struct sml_list *node;
    bool leads = true;

    if (!server->telling)
        return true;
    sml_mutex_lock(&server->queue_lock);
    while (leads && (node = sml_list_pop_front(&server->to_tell)) != NULL) {
        struct semel_request *request = SML_CONTAINER(node, struct semel_request, cancel_link);
        semel_cancelled_fn fn = request->cancel_fn;
        void *user = request->cancel_user;

        request->told = true;
        request->told_forced = atomic_load(&request->forced);
        request->telling = sml_thread_self();
        sml_mutex_unlock(&server->queue_lock);
        sml_watchdog_attend(server);
        atomic_store_explicit(&server->inline_since, sml_clock_now(), memory_order_release);
        fn(request, user);
        if (!came_back(worker))
            return false;
        sml_mutex_lock(&server->queue_lock);
        request->telling.value = 0;
        sml_cond_broadcast(&server->changed);
        leads = reclaim(server, worker);
    }
    if (leads) {
        atomic_store_explicit(&server->inlining, false, memory_order_release);
        server->telling = false;
    }
    sml_mutex_unlock(&server->queue_lock);
    return leads;
}

/* --- a serving thread's life ----------------------------------------------------------------- */

/* Sleep until there is a reason not to; queue_lock held, released meanwhile. False: leave. */
static bool park(struct semel_server *server, struct sml_worker *worker)
{
    bool may_leave = server->options.on_demand && server->threads > 2;
    uint64_t deadline = may_leave ? sml_clock_now() + SML_IDLE_THREAD_NS : SML_NEVER;
    bool timed_out = false;

    atomic_store_explicit(&worker->signal, SML_SIGNAL_NONE, memory_order_relaxed);
    sml_list_push_front(&server->idle, &worker->idle_link);
    sml_mutex_unlock(&server->queue_lock);
    while (atomic_load_explicit(&worker->signal, memory_order_acquire) == SML_SIGNAL_NONE &&
           !timed_out)
        timed_out =
            sml_futex_wait(&worker->signal, SML_SIGNAL_NONE, deadline) == SML_FUTEX_TIMED_OUT;
    sml_mutex_lock(&server->queue_lock);
    if (!sml_list_linked(&worker->idle_link)) {
        if (atomic_load(&worker->signal) == SML_SIGNAL_WORK)
            server->waking = false;
        return true;
    }
    sml_list_remove(&worker->idle_link);
    return server->threads <= 2;
}

/* queue_lock held, released meanwhile, and for good when `forked`. */
static void work(struct semel_server *server, struct sml_worker *worker)
{
    uint64_t now = sml_clock_now();
    struct semel_request *request;

    server->running++;
    while (!server->leader_wanted && server->leader != worker &&
           (request = sml_queue_pop_locked(server)) != NULL) {
        bool spawn;
        struct sml_worker *other;

        other = sml_server_pick_locked(server, &spawn);
        sml_mutex_unlock(&server->queue_lock);
        sml_server_rouse(server, other, spawn);
        now = run_one(worker, request, now);
        if (worker->forked)
            return;
    }
    server->running--;
    sml_queue_wake_committer_locked(server);
    if (server->quit)
        sml_cond_broadcast(&server->changed);
}

void sml_worker_main(void *arg)
{
    struct sml_worker *worker = arg, *other;
    struct semel_server *server = worker->server;
    bool stays = true, spawn;

    sml_worker_set_self(worker);
    sml_mutex_lock(&server->queue_lock);
    if (worker->for_work)
        server->waking = false;
    while (stays && !server->quit) {
        if (server->leader_wanted || server->leader == worker) {
            server->leader_wanted = false;
            server->leader = worker;
            worker->guest = false;
            atomic_store_explicit(&server->inline_since, 0, memory_order_relaxed);
            other = sml_server_pick_locked(server, &spawn);
            sml_mutex_unlock(&server->queue_lock);
            sml_server_rouse(server, other, spawn);
            sml_server_lead(server, worker);
            if (worker->forked)
                return;
            sml_mutex_lock(&server->queue_lock);
        } else if (server->queued > 0 && server->running < server->workers) {
            work(server, worker);
            if (worker->forked)
                return;
        } else {
            stays = park(server, worker);
        }
    }
    server->threads--;
    sml_slot_give_back_locked(server, worker->slot);
    sml_list_remove(&worker->all);
    sml_list_push_back(&server->left, &worker->all);
    sml_cond_broadcast(&server->changed);
    sml_mutex_unlock(&server->queue_lock);
}
