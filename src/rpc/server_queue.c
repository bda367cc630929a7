/* SPDX-License-Identifier: MIT */
/* server_queue.c - the run queue: what waits, for whom, and who is woken for it.
 *
 * Problem. A handler that takes a microsecond must not cost a wake of another thread (6 us); one
 * that takes longer must neither hold up the reader nor wait for another. So methods are measured:
 * a brisk one goes to the short queue, from which the leader serves itself between two reads;
 * everything else goes to the long queue, for the workers. Workers take from both, oldest first.
 *
 * Invariants, under queue_lock:
 *  - `running` handlers, inline ones included, never exceed `workers`;
 *  - calls that must wait never exceed `backlog`: those beyond are refused as they come;
 *  - for a method with a limit, unfinished + queued <= limit; the rest is parked, in order, and
 *    blocks nobody;
 *  - at most one thread has been woken for work and has not looked for it yet; when it has found
 *    some and there is more, it wakes the next. */
#include "rpc/server_internal.h"

#include <stdlib.h>
#include <string.h>

/* --- how long a method takes ----------------------------------------------------------------- */

bool sml_pace_is_brisk(const struct sml_pace *pace)
{
    return pace->samples >= SML_BRISK_SAMPLES && pace->owed == 0 && pace->average_ns < SML_BRISK_NS;
}

/* A method that outstayed its welcome on the reading thread pays with runs on workers, and with
 * twice as many each time it happens again. Forgiven as slowly as it was earned. */
void sml_pace_learn(struct sml_pace *pace, uint64_t took_ns, bool inlined)
{
    uint64_t sample = took_ns < SML_BRISK_CLIP_NS ? took_ns : SML_BRISK_CLIP_NS;

    if (pace->samples < SML_BRISK_SAMPLES) {
        pace->average_ns = (pace->average_ns * pace->samples + sample) / (pace->samples + 1);
        pace->samples++;
    } else {
        pace->average_ns = (pace->average_ns * 7 + sample) / 8;
    }
    if (inlined && took_ns > SML_OUTSTAY_NS) {
        pace->owed = SML_PENANCE_RUNS << pace->overruns;
        pace->good = 0;
        if (pace->overruns < SML_PENANCE_DOUBLINGS)
            pace->overruns++;
    } else if (inlined && pace->overruns > 0) {
        if (++pace->good >= SML_PENANCE_RUNS << pace->overruns) {
            pace->overruns--;
            pace->good = 0;
        }
    } else if (!inlined && pace->owed > 0 && took_ns < SML_BRISK_NS) {
        pace->owed--;
    }
}

/* --- methods --------------------------------------------------------------------------------- */

static uint32_t bucket_of(const char *name, size_t bytes)
{
    uint32_t hash = 2166136261u;

    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ (uint8_t)name[i]) * 16777619u;
    return hash % SML_METHOD_BUCKETS;
}

_Atomic(struct sml_method *) *sml_server_method_bucket(struct semel_server *server,
                                                       const char *name, size_t bytes)
{
    return &server->methods[bucket_of(name, bytes)];
}

struct sml_method *sml_server_find_method(struct semel_server *server, const char *name,
                                          uint8_t bytes)
{
    struct sml_method *method =
        atomic_load_explicit(sml_server_method_bucket(server, name, bytes), memory_order_acquire);

    while (method && (method->name_bytes != bytes || memcmp(method->name, name, bytes) != 0))
        method = method->next;
    return method;
}

/* --- the queues ------------------------------------------------------------------------------ */

static bool is_full(const struct sml_method *method)
{
    return method->limit > 0 && method->unfinished + method->queued >= method->limit;
}

/* To the workers and the leader. */
static void link_runnable(struct semel_server *server, struct semel_request *request)
{
    struct sml_method *method = request->method;
    bool waits = request->stream && (request->in->flags & SML_CALL_SENDS); /* for what is sent */
    bool brisk = sml_pace_is_brisk(&method->pace) && !waits;

    request->work_ns = brisk ? method->pace.average_ns : 0;
    request->place = brisk ? SML_AT_SHORT : SML_AT_LONG;
    server->short_work_ns += request->work_ns;
    server->queued++;
    server->queued_started += request->started;
    sml_list_push_back(brisk ? &server->short_queue : &server->long_queue, &request->link);
}

static void push_runnable(struct semel_server *server, struct semel_request *request)
{
    enum semel_kind kind = request->method->kind;

    request->method->queued++;
    if (kind == SEMEL_TRANSACTIONAL) {
        request->place = SML_AT_TXN;
        server->txn_count++;
        sml_list_push_back(&server->txns, &request->link);
    } else if (kind == SEMEL_ONCE && !request->started && sml_commit_is_durable(&server->commit)) {
        request->place = SML_AT_UNSTARTED;
        server->unstarted_count++;
        sml_list_push_back(&server->unstarted, &request->link);
    } else {
        link_runnable(server, request);
    }
}

static void push_parked(struct semel_server *server, struct semel_request *request)
{
    request->place = SML_AT_PARKED;
    server->parked++;
    sml_list_push_back(&request->method->parked, &request->link);
}

/* A place within the method's limit has become free. */
static void unpark(struct semel_server *server, struct sml_method *method)
{
    struct sml_list *node;

    while (!is_full(method) && (node = sml_list_pop_front(&method->parked)) != NULL) {
        server->parked--;
        push_runnable(server, SML_CONTAINER(node, struct semel_request, link));
    }
}

/* False: it would have to wait, and enough are waiting already. */
static bool place(struct semel_server *server, struct semel_request *request)
{
    bool full = is_full(request->method);
    uint32_t free_slots = server->workers - server->running;
    bool txn = request->method->kind == SEMEL_TRANSACTIONAL;
    uint32_t runnable = server->queued + server->unstarted_count + server->starting;
    uint32_t txns = server->txn_count + (txn && !full ? 1 : 0);
    uint64_t waiting = (uint64_t)server->parked + server->stalled + (full ? 1 : 0);

    runnable += txn || full ? 0 : 1;
    if (runnable > free_slots)
        waiting += runnable - free_slots;
    /* A transaction's worth of calls runs, more waits. */
    if (txns > SML_BATCH_CALLS)
        waiting += txns - SML_BATCH_CALLS;
    /* Who has its reply must find the place that it held free, although the handler that gave it
     * may not have returned yet. */
    if (waiting > (uint64_t)server->backlog + atomic_load(&server->answered))
        return false;
    if (full)
        push_parked(server, request);
    else
        push_runnable(server, request);
    return true;
}

void sml_request_unqueue_locked(struct semel_request *request)
{
    struct semel_server *server = request->server;

    switch (request->place) {
    case SML_AT_SHORT:
    case SML_AT_LONG:
        server->short_work_ns -= request->work_ns;
        server->queued--;
        server->queued_started -= request->started;
        request->method->queued--;
        sml_list_remove(&request->link);
        unpark(server, request->method);
        break;
    case SML_AT_UNSTARTED:
    case SML_AT_TXN:
        *(request->place == SML_AT_TXN ? &server->txn_count : &server->unstarted_count) -= 1;
        request->method->queued--;
        sml_list_remove(&request->link);
        unpark(server, request->method);
        break;
    case SML_AT_PARKED:
        server->parked--;
        sml_list_remove(&request->link);
        break;
    case SML_AT_STALLED:
        server->stalled--;
        sml_list_remove(&request->link);
        break;
    case SML_AT_ASKED:
        server->admin.count--;
        sml_list_remove(&request->link);
        break;
    case SML_AT_NOWHERE:
    case SML_AT_WORK:
        break;
    }
    request->place = SML_AT_NOWHERE;
}

struct semel_request *sml_queue_first(struct sml_list *queue)
{
    return sml_list_empty(queue) ? NULL : SML_CONTAINER(queue->next, struct semel_request, link);
}

void sml_queue_take_out_locked(struct semel_server *server, struct semel_request *request)
{
    struct sml_method *method = request->method;

    sml_list_remove(&request->link);
    server->short_work_ns -= request->work_ns;
    server->queued--;
    server->queued_started -= request->started;
    method->queued--;
    method->unfinished++;
    server->unfinished++;
    request->place = SML_AT_NOWHERE;
}

struct semel_request *sml_queue_pop_locked(struct semel_server *server)
{
    struct semel_request *brief = sml_queue_first(&server->short_queue);
    struct semel_request *lengthy = sml_queue_first(&server->long_queue);
    struct semel_request *request = brief;

    if (brief == NULL || (lengthy && lengthy->order < brief->order))
        request = lengthy;
    if (request)
        sml_queue_take_out_locked(server, request);
    return request;
}

bool sml_server_may_inline_locked(struct semel_server *server, uint32_t running)
{
    struct semel_request *brief = sml_queue_first(&server->short_queue);
    struct semel_request *lengthy = sml_queue_first(&server->long_queue);

    if (brief == NULL || running >= server->workers)
        return false;
    return lengthy == NULL || brief->order < lengthy->order || server->workers - running > 1;
}

void sml_server_take_queue(struct semel_server *server, struct sml_list *out)
{
    sml_mutex_lock(&server->queue_lock);
    server->closed = true;
    sml_list_move_all(out, &server->short_queue);
    sml_list_move_all(out, &server->long_queue);
    sml_list_move_all(out, &server->unstarted);
    sml_list_move_all(out, &server->txns);
    sml_list_move_all(out, &server->admin.asked);
    server->admin.count = 0;
    for (int i = 0; i < SML_METHOD_BUCKETS; i++)
        for (struct sml_method *m = atomic_load(&server->methods[i]); m; m = m->next) {
            sml_list_move_all(out, &m->parked);
            m->queued = 0;
        }
    for (struct sml_list *node = out->next; node != out; node = node->next)
        SML_CONTAINER(node, struct semel_request, link)->place = SML_AT_NOWHERE;
    server->queued = server->parked = server->unstarted_count = server->txn_count = 0;
    server->queued_started = 0;
    server->short_work_ns = 0;
    sml_mutex_unlock(&server->queue_lock);
    sml_list_move_all(out, &server->batch);
}

void sml_server_recycle_locked(struct semel_server *server, struct semel_request *request)
{
    if (server->free_count >= SML_REQUESTS_KEPT) {
        free(request);
        return;
    }
    server->free_count++;
    sml_list_push_front(&server->free_requests, &request->link);
}

void sml_request_settle_locked(struct semel_request *request)
{
    struct semel_server *server = request->server;

    request->method->unfinished--;
    server->unfinished--;
    unpark(server, request->method);
    if (server->quit && server->unfinished == 0)
        sml_cond_broadcast(&server->changed);
}

/* --- for the committer ----------------------------------------------------------------------- */

/* A start that is stored too early becomes *unknown* if the server dies before the handler runs: so
 * only for a slot that is free, and somewhat ahead for calls that are over in no time. */
static bool may_start(const struct semel_server *server)
{
    const struct semel_request *request;
    uint32_t ahead;

    if (sml_list_empty(&server->unstarted))
        return false;
    request = SML_CONTAINER(server->unstarted.next, struct semel_request, link);
    ahead = sml_pace_is_brisk(&request->method->pace) ? SML_AHEAD_CALLS : 0;
    return server->running + server->starting + server->queued_started < server->workers + ahead;
}

bool sml_queue_has_commit_work_locked(const struct semel_server *server)
{
    return server->txn_count > 0 || may_start(server);
}

void sml_queue_wake_committer_locked(struct semel_server *server)
{
    if (sml_commit_is_durable(&server->commit) && sml_queue_has_commit_work_locked(server))
        sml_commit_wake(&server->commit);
}

struct semel_request *sml_queue_take_unstarted_locked(struct semel_server *server)
{
    struct semel_request *request;

    if (!may_start(server))
        return NULL;
    request = sml_queue_first(&server->unstarted);
    sml_list_remove(&request->link);
    server->unstarted_count--;
    server->starting++;
    request->place = SML_AT_NOWHERE;
    return request;
}

bool sml_queue_started_locked(struct semel_server *server, struct semel_request *request)
{
    server->starting--;
    request->started = true;
    if (server->closed)
        return false;
    link_runnable(server, request);
    return true;
}

void sml_queue_unstarted_locked(struct semel_server *server, struct semel_request *request)
{
    server->starting--;
    if (server->closed)
        return;
    request->method->queued--;
    unpark(server, request->method);
}

struct semel_request *sml_queue_take_txn_locked(struct semel_server *server)
{
    struct semel_request *request = sml_queue_first(&server->txns);

    if (request == NULL)
        return NULL;
    sml_list_remove(&request->link);
    server->txn_count--;
    request->method->queued--;
    request->method->unfinished++;
    server->unfinished++;
    request->place = SML_AT_NOWHERE;
    return request;
}

bool sml_queue_return_txn_locked(struct semel_server *server, struct semel_request *request)
{
    if (server->closed)
        return false;
    request->method->queued++;
    request->method->unfinished--;
    server->unfinished--;
    server->txn_count++;
    request->place = SML_AT_TXN;
    sml_list_push_front(&server->txns, &request->link);
    return true;
}

/* --- waking ---------------------------------------------------------------------------------- */

struct sml_worker *sml_server_pick_locked(struct semel_server *server, bool *out_spawn)
{
    struct sml_list *node;
    struct sml_worker *worker;

    *out_spawn = false;
    if (server->waking || server->quit || server->running >= server->workers ||
        server->state != SML_SERVER_SERVING ||
        (sml_list_empty(&server->long_queue) && server->short_work_ns <= SML_INLINE_BUDGET_NS))
        return NULL;
    node = sml_list_pop_front(&server->idle);
    if (node == NULL) {
        *out_spawn = server->threads <= server->workers;
        server->waking = *out_spawn;
        server->threads += *out_spawn;
        return NULL;
    }
    server->waking = true;
    worker = SML_CONTAINER(node, struct sml_worker, idle_link);
    atomic_store_explicit(&worker->signal, SML_SIGNAL_WORK, memory_order_relaxed);
    return worker;
}

struct sml_worker *sml_server_kick_locked(struct semel_server *server, bool *out_spawn)
{
    struct sml_worker *worker = sml_server_pick_locked(server, out_spawn);

    if (worker == NULL && !*out_spawn && !sml_list_empty(&server->short_queue))
        sml_server_nudge_locked(server);
    return worker;
}

void sml_server_rouse(struct semel_server *server, struct sml_worker *worker, bool spawn)
{
    enum semel_status status;

    if (worker)
        sml_futex_wake(&worker->signal, 1);
    if (!spawn)
        return;
    status = sml_server_spawn(server, true);
    if (status == SEMEL_OK)
        return;
    sml_server_log(server, SEMEL_LOG_WARNING, "no thread to be had for a waiting call: %s",
                   semel_status_text(status));
    sml_mutex_lock(&server->queue_lock);
    server->waking = false;
    server->threads--;
    sml_cond_broadcast(&server->changed);
    sml_mutex_unlock(&server->queue_lock);
}

/* --- the leader's batch ---------------------------------------------------------------------- */

static void refuse(struct semel_server *server, struct sml_list *refused)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(refused)) != NULL) {
        struct semel_request *request = SML_CONTAINER(node, struct semel_request, link);
        struct sml_served *served = request->served;
        bool done;

        sml_mutex_lock(served->lock);
        sml_callee_refuse(&served->session->callee, request->in, server->busy_ms);
        sml_request_close_stream(request);
        sml_info_unref(request->info);
        sml_commit_touch(served); /* one that comes again has a record, and so its refusal */
        if (served->conn)
            sml_conn_touch(served->conn);
        done = sml_served_done(served);
        sml_mutex_unlock(served->lock);
        sml_list_push_back(&server->stash, &request->link);
        if (done)
            sml_served_free(served);
    }
}

void sml_queue_count_refusal_locked(struct semel_server *server,
                                    const struct semel_request *request)
{
    if (request->in->flags & SML_CALL_REFUSE_WHEN_FULL)
        server->calls_refused++;
    else
        server->calls_busy++;
}

void sml_server_enqueue(struct semel_server *server)
{
    struct sml_list refused, *node;
    struct sml_worker *worker;
    bool spawn, commits;

    if (sml_list_empty(&server->batch) && !server->unstalled)
        return;
    server->unstalled = false;
    sml_list_init(&refused);
    sml_mutex_lock(&server->queue_lock);
    while ((node = sml_list_pop_front(&server->batch)) != NULL) {
        struct semel_request *request = SML_CONTAINER(node, struct semel_request, link);

        if (place(server, request))
            continue;
        sml_queue_count_refusal_locked(server, request);
        sml_list_push_back(&refused, &request->link);
    }
    worker = sml_server_pick_locked(server, &spawn);
    commits = sml_commit_is_durable(&server->commit) && sml_queue_has_commit_work_locked(server);
    sml_mutex_unlock(&server->queue_lock);
    if (commits)
        sml_commit_wake(&server->commit);
    sml_server_rouse(server, worker, spawn);
    refuse(server, &refused);
}

/* --- stalled calls: their session's stored replies are over its budget ------------------------ */

bool sml_served_is_stalled(const struct sml_served *served)
{
    return sml_callee_is_stalled(&served->session->callee);
}

/* queue_lock held. Whoever stops the server looks at the stalled calls after it has closed it. */
static bool stall(struct semel_request *request)
{
    struct semel_server *server = request->server;

    if (server->closed)
        return false;
    request->place = SML_AT_STALLED;
    server->stalled++;
    sml_list_push_back(&request->served->stalled, &request->link);
    return true;
}

bool sml_request_stall(struct semel_request *request)
{
    struct semel_server *server = request->server;
    bool stalled;

    sml_mutex_lock(&server->queue_lock);
    stalled = stall(request);
    sml_request_settle_locked(request);
    sml_mutex_unlock(&server->queue_lock);
    return stalled;
}

bool sml_request_stall_unstarted(struct semel_request *request)
{
    struct semel_server *server = request->server;
    bool stalled;

    sml_mutex_lock(&server->queue_lock);
    stalled = stall(request);
    sml_queue_unstarted_locked(server, request);
    sml_mutex_unlock(&server->queue_lock);
    return stalled;
}

void sml_served_unstall(struct sml_served *served)
{
    struct semel_server *server = served->server;
    struct sml_list *node;

    if (sml_list_empty(&served->stalled) || sml_served_is_stalled(served))
        return;
    sml_mutex_lock(&server->queue_lock);
    while ((node = sml_list_pop_front(&served->stalled)) != NULL) {
        struct semel_request *request = SML_CONTAINER(node, struct semel_request, link);

        server->stalled--;
        if (is_full(request->method))
            push_parked(server, request);
        else
            push_runnable(server, request);
    }
    sml_mutex_unlock(&server->queue_lock);
    server->unstalled = true;
}
