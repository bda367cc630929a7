/* SPDX-License-Identifier: MIT */
/* server_session.c - the shell's part of sessions: attaching connections, taking calls out of the
 * callee machines, passing cancellations on, timers, the end.
 *
 * A served session lives from the HELLO that created it until the host has dropped it, no
 * connection is attached and the shell holds none of its calls. Only the leader ends sessions; the
 * last handler to finish may free one. */
#include "rpc/server_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FULL_LOG_NS 60000000000

struct sml_mutex *sml_server_stripe(struct semel_server *server, const struct sml_session_id *id)
{
    return &server->stripes[id->bytes[0] % SML_STRIPES];
}

void sml_info_unref(struct sml_peer_info *info)
{
    if (info && --info->refs == 0)
        free(info);
}

/* --- life --------------------------------------------------------------------------------- */

struct sml_served *sml_server_serve(struct semel_server *server, struct sml_session *session)
{
    struct sml_served *served = calloc(1, sizeof *served);

    if (served == NULL)
        return NULL;
    served->server = server;
    served->session = session;
    served->lock = sml_server_stripe(server, &session->id);
    sml_list_init(&served->stalled);
    sml_list_init(&served->commit_link);
    sml_list_push_back(&server->served, &served->all);
    sml_heap_node_init(&served->timer);
    served->timer_at = SML_NEVER;
    session->user = served;
    return served;
}

bool sml_served_done(const struct sml_served *served)
{
    return served->ended && served->conn == NULL && !served->queued &&
           sml_session_is_over(served->session);
}

static void add_counters(struct sml_callee_counters *to, const struct sml_callee_counters *from)
{
    to->received += from->received;
    to->duplicates += from->duplicates;
    to->stale += from->stale;
    to->reattached += from->reattached;
    to->replayed += from->replayed;
    to->false_retries += from->false_retries;
    to->cancelled += from->cancelled;
    to->abandoned += from->abandoned;
    to->busy += from->busy;
    to->overloaded += from->overloaded;
    to->values += from->values;
    to->failures += from->failures;
    to->not_executed += from->not_executed;
    to->unknown += from->unknown;
}

void sml_served_free(struct sml_served *served)
{
    struct semel_server *server = served->server;

    sml_mutex_lock(&server->host_lock);
    add_counters(&server->past, &served->session->callee.counters);
    sml_list_remove(&served->all);
    sml_session_free(&server->host, served->session);
    sml_mutex_unlock(&server->host_lock);
    free(served);
}

/* Stalled calls that expired, or were released, are held for nothing. */
static void sweep_stalled(struct sml_served *served)
{
    struct sml_list *node, *next;

    for (node = served->stalled.next; node != &served->stalled; node = next) {
        struct semel_request *request = SML_CONTAINER(node, struct semel_request, link);
        const struct sml_incoming *in = request->in;

        next = node->next;
        if (atomic_load_explicit(&in->gone, memory_order_relaxed) ||
            (in->phase != SML_IN_TAKEN && in->phase != SML_IN_STARTED))
            sml_request_forget(request);
    }
}

/* Host and stripe held. */
static void end_locked(struct sml_served *served)
{
    struct semel_server *server = served->server;
    struct sml_sleepers sleepers = { 0 };

    sml_backchannel_end(served, SEMEL_SESSION_LOST);
    sml_host_end(&server->host, served->session);
    sml_served_streams(served, &sleepers);
    sml_sleepers_wake(&sleepers);
    served->ended = true;
    if (served->conn) {
        served->conn->served = NULL;
        served->conn = NULL;
    }
    sml_served_cancels(served);
    sml_served_receipts(served);
    sweep_stalled(served); /* those with a key: their release cancels nothing */
    sml_commit_touch(served);
    sml_mutex_lock(&server->queue_lock);
    sml_heap_remove(&server->session_timers, &served->timer);
    sml_mutex_unlock(&server->queue_lock);
}

void sml_served_end(struct sml_served *served)
{
    struct semel_server *server = served->server;
    bool done;

    sml_mutex_lock(&server->host_lock);
    sml_mutex_lock(served->lock);
    end_locked(served);
    done = sml_served_done(served);
    sml_mutex_unlock(served->lock);
    sml_mutex_unlock(&server->host_lock);
    if (done)
        sml_served_free(served);
}

/* Host and stripe held; what is done goes to `done`. */
static void end_into(struct sml_served *served, struct sml_list *done)
{
    end_locked(served);
    if (!sml_served_done(served))
        return;
    sml_list_remove(&served->all);
    sml_list_push_back(done, &served->all);
}

static void free_all(struct sml_list *done)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(done)) != NULL)
        sml_served_free(SML_CONTAINER(node, struct sml_served, all));
}

/* All the stripes, under the host's lock: which session it will be is not known before. Rare. */
static void lock_stripes(struct semel_server *server)
{
    for (int i = 0; i < SML_STRIPES; i++)
        sml_mutex_lock(&server->stripes[i]);
}

static void unlock_stripes(struct semel_server *server)
{
    for (int i = SML_STRIPES; i-- > 0;)
        sml_mutex_unlock(&server->stripes[i]);
}

/* --- connections come and go ----------------------------------------------------------------- */

/* Host and stripe held. */
static void attach(struct sml_conn *conn, struct sml_mutex *stripe)
{
    struct semel_server *server = conn->server;
    struct sml_session *session = conn->peer.session;
    struct sml_served *served = session->user;

    if (served == NULL)
        served = sml_server_serve(server, session);
    if (served == NULL) {
        sml_host_end(&server->host, session);
        sml_session_free(&server->host, session);
        conn->peer.session = NULL;
        sml_peer_close(&conn->peer, SML_BYE_RETRY_LATER, "no memory for a session");
        return;
    }
    served->conn = conn;
    conn->served = served;
    conn->lock = stripe;
    conn->pen.lock = stripe;
    sml_commit_touch(served);
}

/* One session ends so that another may begin, if that is needed. Returns whether it was. Host's
 * lock held; what is done goes to `done`. */
static bool make_room(struct semel_server *server, const struct sml_hello *hello,
                      struct sml_list *done)
{
    struct sml_session *session;

    if (server->host.session_count < server->host.options.sessions_max)
        return false;
    lock_stripes(server);
    session = sml_host_surplus(&server->host, hello);
    if (session)
        end_into(session->user, done);
    unlock_stripes(server);
    return session != NULL;
}

static void report_full(struct semel_server *server, uint64_t now)
{
    if (server->full_logged != 0 && now < server->full_logged + FULL_LOG_NS)
        return;
    server->full_logged = now;
    sml_server_log(server, SEMEL_LOG_WARNING,
                   "%" PRIu32 " sessions, as many as there may be: those end that were left first",
                   server->host.options.sessions_max);
}

void sml_conn_greet(struct sml_conn *conn, const struct sml_hello *hello, uint64_t now)
{
    struct semel_server *server = conn->server;
    struct sml_mutex *stripe = sml_server_stripe(server, &hello->session);
    struct sml_peer *loser = NULL;
    struct sml_conn *lost = NULL;
    uint64_t drain_until = atomic_load(&server->drain_until);
    struct sml_list done;
    bool full;

    sml_list_init(&done);
    sml_mutex_lock(&server->host_lock);
    full = make_room(server, hello, &done);
    sml_mutex_lock(stripe);
    sml_host_hello(&server->host, &conn->peer, hello, &loser, now);
    if (loser) {
        lost = SML_CONTAINER(loser, struct sml_conn, peer);
        lost->served = NULL;
        sml_conn_touch(lost);
    }
    if (conn->peer.session)
        attach(conn, stripe);
    if (conn->served)
        sml_served_receipts(conn->served); /* of what it has not listed */
    if (conn->served && server->drain_begun)
        sml_peer_drain(&conn->peer, (uint32_t)sml_time_ms_until(drain_until, now));
    sml_mutex_unlock(stripe);
    sml_mutex_unlock(&server->host_lock);
    free_all(&done);
    if (full)
        report_full(server, now);
    if (lost)
        sml_server_log(server, SEMEL_LOG_INFO, "%s: taken over by a newer connection, %s",
                       lost->info->peer.address, conn->info->peer.address);
}

void sml_conn_detach(struct sml_conn *conn, uint64_t now)
{
    struct semel_server *server = conn->server;
    struct sml_served *served = conn->served;
    bool done;

    if (served == NULL)
        return;
    sml_mutex_lock(&server->host_lock);
    sml_mutex_lock(served->lock);
    sml_host_detach(&server->host, &conn->peer, now);
    served->conn = NULL;
    conn->served = NULL;
    done = sml_served_done(served);
    sml_mutex_unlock(served->lock);
    sml_mutex_unlock(&server->host_lock);
    if (done)
        sml_served_free(served);
}

/* --- calls come out of the machine ----------------------------------------------------------- */

static struct semel_request *new_request(struct semel_server *server)
{
    struct sml_list *node = sml_list_pop_front(&server->stash);
    struct semel_request *request;

    if (node == NULL) {
        sml_mutex_lock(&server->queue_lock);
        sml_list_move_all(&server->stash, &server->free_requests);
        server->free_count = 0;
        sml_mutex_unlock(&server->queue_lock);
        node = sml_list_pop_front(&server->stash);
    }
    request = node ? SML_CONTAINER(node, struct semel_request, link) : malloc(sizeof *request);
    if (request) {
        memset(request, 0, sizeof *request);
        sml_list_init(&request->link);
        sml_list_init(&request->cancel_link);
    }
    return request;
}

static void reject(struct sml_served *served, struct semel_request *request, enum semel_status why,
                   const char *text)
{
    sml_request_close_stream(request);
    sml_callee_reject(&served->session->callee, request->in, why, text);
    sml_list_push_back(&served->server->stash, &request->link);
}

/* The server stops, or drains. With a store the caller comes back with it when the server does. */
static void turn_away(struct sml_served *served, struct semel_request *request)
{
    struct semel_server *server = served->server;
    bool stops = server->goodbye_until != SML_NEVER;

    if (!sml_commit_is_durable(&server->commit)) {
        reject(served, request, stops ? SEMEL_STOPPED : SEMEL_DRAINING,
               stops ? "the server stops" : "the server is draining");
        return;
    }
    sml_request_close_stream(request);
    if (stops)
        sml_callee_postpone_to_restart(&served->session->callee, request->in);
    else
        sml_callee_refuse(&served->session->callee, request->in, SML_DRAIN_BUSY_MS);
    sml_list_push_back(&server->stash, &request->link);
}

static void admit(struct sml_served *served, struct sml_incoming *in, uint64_t now)
{
    struct semel_server *server = served->server;
    struct semel_request *request = new_request(server);

    if (request == NULL) {
        sml_callee_refuse(&served->session->callee, in, server->busy_ms);
        return;
    }
    request->server = server;
    request->served = served;
    request->in = in;
    request->info = served->conn->info;
    request->arrived = now;
    request->method = sml_server_find_method(server, in->method, in->method_bytes);
    in->user = request;
    if (in->stream && !sml_request_open_stream(request)) {
        sml_callee_refuse(&served->session->callee, in, server->busy_ms);
        sml_list_push_back(&server->stash, &request->link);
        return;
    }
    if (request->method == NULL) {
        reject(served, request, SEMEL_NO_METHOD, "no such method");
    } else if ((in->flags & SML_CALL_RERUN_OK) && request->method->kind != SEMEL_IDEMPOTENT) {
        reject(served, request, SEMEL_INVALID, "the caller allows a rerun, the method does not");
    } else if (!sml_admin_permits(request)) {
        reject(served, request, SEMEL_DENIED, "for the user whose server this is");
    } else if ((in->flags & SML_CALL_SENDS) && !request->method->takes_items) {
        reject(served, request, SEMEL_NO_STREAM, "the method takes no items");
    } else if (server->goodbye_until != SML_NEVER || server->drain_begun) {
        turn_away(served, request);
    } else {
        request->info->refs++;
        request->order = ++server->order;
        if (request->method->admin == SML_ADMIN_NOT)
            sml_list_push_back(&server->batch, &request->link);
        else
            sml_admin_ask(request);
    }
}

void sml_served_collect(struct sml_served *served, uint64_t now, struct sml_sleepers *sleepers)
{
    struct sml_incoming *in;
    uint64_t count = 0;

    for (; (in = sml_callee_take(&served->session->callee)) != NULL; count++)
        admit(served, in, now);
    if (count > 0)
        atomic_fetch_add_explicit(&served->server->totals.calls, count, memory_order_relaxed);
    sml_served_streams(served, sleepers);
    sml_served_cancels(served);
    sml_served_receipts(served);
    sml_served_unstall(served);
    sml_served_retime(served);
    sml_commit_touch(served);
}

void sml_served_receipts(struct sml_served *served)
{
    struct sml_receipt *receipt;

    while ((receipt = sml_callee_next_receipt(&served->session->callee)) != NULL) {
        struct sml_reply_receipt *reply = SML_CONTAINER(receipt, struct sml_reply_receipt, receipt);

        reply->told(reply, receipt->accepted);
    }
}

/* --- cancellation ---------------------------------------------------------------------------- */

void sml_request_forget(struct semel_request *request)
{
    struct semel_server *server = request->server;
    bool begun =
        sml_callee_begin(&request->served->session->callee, request->in, 0, sml_clock_now());

    SML_ASSERT(!begun);
    request->in = NULL;
    sml_request_close_stream(request);
    sml_info_unref(request->info);
    sml_mutex_lock(&server->queue_lock);
    sml_request_unqueue_locked(request);
    sml_server_recycle_locked(server, request);
    sml_mutex_unlock(&server->queue_lock);
    server->unstalled = true; /* its method's next call may have come off the parking list */
}

void sml_served_cancels(struct sml_served *served)
{
    struct semel_server *server = served->server;
    struct sml_incoming *in;

    while ((in = sml_callee_next_cancelled(&served->session->callee)) != NULL) {
        struct semel_request *request = in->user;
        bool waits;

        if (request == NULL)
            continue; /* its transaction's fate is unknown */
        /* Out of the queue under the same lock: a worker may be about to take it. */
        sml_request_stir_stream(request);
        sml_mutex_lock(&server->queue_lock);
        waits = request->place != SML_AT_WORK && request->place != SML_AT_NOWHERE;
        if (waits)
            sml_request_unqueue_locked(request);
        if (request->place == SML_AT_WORK && request->cancel_fn &&
            (!request->told || (atomic_load(&request->forced) && !request->told_forced)) &&
            !sml_list_linked(&request->cancel_link)) {
            sml_list_push_back(&server->to_tell, &request->cancel_link);
            server->telling = true;
        }
        sml_mutex_unlock(&server->queue_lock);
        if (waits)
            sml_request_forget(request);
    }
}

/* --- time ------------------------------------------------------------------------------------ */

void sml_served_retime(struct sml_served *served)
{
    struct semel_server *server = served->server;
    uint64_t at = sml_callee_timeout(&served->session->callee);

    if (at >= served->timer_at || served->ended)
        return;
    served->timer_at = at;
    sml_mutex_lock(&server->queue_lock);
    sml_heap_remove(&server->session_timers, &served->timer);
    sml_heap_insert(&server->session_timers, &served->timer, at);
    if (at < server->leader_until)
        sml_server_nudge_locked(server);
    sml_mutex_unlock(&server->queue_lock);
}

void sml_served_tick(struct sml_served *served, uint64_t now)
{
    struct sml_callee *callee = &served->session->callee;

    sml_mutex_lock(served->lock);
    served->timer_at = SML_NEVER;
    sml_callee_tick(callee, now);
    sml_served_cancels(served);
    sweep_stalled(served);
    sml_served_unstall(served);
    sml_served_retime(served);
    sml_commit_touch(served);
    if (served->conn && sml_callee_wants_write(callee))
        sml_conn_touch(served->conn);
    sml_mutex_unlock(served->lock);
}

void sml_server_expire(struct semel_server *server, uint64_t now)
{
    struct sml_list done;
    struct sml_session *session;

    sml_list_init(&done);
    sml_mutex_lock(&server->host_lock);
    lock_stripes(server);
    while ((session = sml_host_next_expired(&server->host, now)) != NULL)
        end_into(session->user, &done);
    unlock_stripes(server);
    sml_mutex_unlock(&server->host_lock);
    free_all(&done);
}

void sml_server_end_sessions(struct semel_server *server)
{
    struct sml_list done, *node, *next;

    if (sml_commit_is_durable(&server->commit))
        return; /* they go on in the store */
    sml_list_init(&done);
    sml_mutex_lock(&server->host_lock);
    for (node = server->served.next; node != &server->served; node = next) {
        struct sml_served *served = SML_CONTAINER(node, struct sml_served, all);

        next = node->next;
        sml_mutex_lock(served->lock);
        if (!served->ended)
            end_into(served, &done);
        sml_mutex_unlock(served->lock);
    }
    sml_mutex_unlock(&server->host_lock);
    free_all(&done);
}

/* --- drain and stop -------------------------------------------------------------------------- */

static bool is_drained(const struct sml_served *served)
{
    const struct sml_callee *callee = &served->session->callee;

    return sml_commit_is_durable(&served->server->commit)
               ? sml_callee_may_leave(callee, served->conn != NULL)
               : sml_callee_empty(callee);
}

bool sml_server_drained(struct semel_server *server)
{
    bool drained = true;

    sml_mutex_lock(&server->host_lock);
    for (struct sml_list *node = server->served.next; node != &server->served && drained;
         node = node->next) {
        struct sml_served *served = SML_CONTAINER(node, struct sml_served, all);

        sml_mutex_lock(served->lock);
        drained = is_drained(served) || sml_backchannel_is_idle(served);
        sml_mutex_unlock(served->lock);
    }
    sml_mutex_unlock(&server->host_lock);
    return drained;
}

void sml_server_postpone(struct semel_request *request)
{
    struct semel_server *server = request->server;
    struct sml_served *served = request->served;

    sml_mutex_lock(served->lock);
    sml_callee_postpone_to_restart(&served->session->callee, request->in);
    request->in = NULL;
    sml_request_close_stream(request);
    sml_info_unref(request->info);
    sml_mutex_lock(&server->queue_lock);
    sml_request_unqueue_locked(request);
    sml_server_recycle_locked(server, request);
    sml_mutex_unlock(&server->queue_lock);
    sml_commit_touch(served);
    sml_commit_write(served);
}

/* A call that waited in a queue of a server that stops; its session gave it its verdict, or keeps
 * it. */
static void forget_queued(struct semel_request *request)
{
    struct sml_served *served = request->served;
    bool done;

    if (sml_commit_is_durable(&request->server->commit)) {
        sml_server_postpone(request);
        return;
    }
    sml_mutex_lock(served->lock);
    sml_request_forget(request);
    done = sml_served_done(served);
    sml_mutex_unlock(served->lock);
    if (done)
        sml_served_free(served);
}

/* Host and stripe held. */
static void stop_session(struct sml_served *served, struct sml_list *waiting)
{
    sml_backchannel_end(served, SEMEL_STOPPED);
    sml_callee_stop(&served->session->callee, SEMEL_STOPPED);
    sml_served_cancels(served);
    sweep_stalled(served);
    if (sml_commit_is_durable(&served->server->commit))
        sml_list_move_all(waiting, &served->stalled);
    sml_commit_touch(served);
}

void sml_server_forsake_sessions(struct semel_server *server)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(&server->served)) != NULL) {
        struct sml_served *served = SML_CONTAINER(node, struct sml_served, all);

        sml_callee_forsake(&served->session->callee);
        sml_served_receipts(served);
        if (served->ended) {
            served->session->row = 0;
            sml_session_free(&server->host, served->session);
        }
        free(served);
    }
}

void sml_server_stop_sessions(struct semel_server *server, struct sml_list *waiting)
{
    struct sml_list *node;

    sml_mutex_lock(&server->host_lock);
    for (node = server->served.next; node != &server->served; node = node->next) {
        struct sml_served *served = SML_CONTAINER(node, struct sml_served, all);

        sml_mutex_lock(served->lock);
        if (!served->ended)
            stop_session(served, waiting);
        sml_mutex_unlock(served->lock);
    }
    sml_mutex_unlock(&server->host_lock);
    while ((node = sml_list_pop_front(waiting)) != NULL)
        forget_queued(SML_CONTAINER(node, struct semel_request, link));
}
