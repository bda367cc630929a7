/* SPDX-License-Identifier: MIT */
/* server.c - a server's life: create, export, listen, start, drain, stop, wait, destroy.
 *
 * NEW -> SERVING -> STOPPED. Everything that touches connections is done by the leader; the
 * functions here leave a word for it. A server that was never started goes to STOPPED at once. */
#include "rpc/server_internal.h"
#include "rpc/item.h"

#include <stdlib.h>
#include <string.h>

/* --- options ------------------------------------------------------------------------------- */

static void set32(uint32_t *value, uint32_t fallback)
{
    if (*value == 0)
        *value = fallback;
}

static void set_ms(int64_t *value, int64_t fallback)
{
    if (*value == 0)
        *value = fallback;
}

static void set64(uint64_t *value, uint64_t fallback)
{
    if (*value == 0)
        *value = fallback;
}

static void fill_defaults(struct semel_server_options *o)
{
    unsigned cores = sml_thread_cores();

    set32(&o->workers, cores < SEMEL_WORKERS_MIN ? SEMEL_WORKERS_MIN : cores);
    if (!o->backlog_none)
        set32(&o->backlog, SEMEL_BACKLOG_CALLS);
    set32(&o->window_calls, SEMEL_WINDOW_CALLS);
    set64(&o->body_bytes, SEMEL_BODY_BYTES);
    set64(&o->session_bytes,
          o->body_bytes > SEMEL_SESSION_BYTES ? o->body_bytes : SEMEL_SESSION_BYTES);
    set_ms(&o->handshake_ms, SEMEL_HANDSHAKE_MS);
    set_ms(&o->idle_session_ms, o->store ? SEMEL_DURABLE_SESSION_MS : SEMEL_IDLE_SESSION_MS);
    set_ms(&o->key_retention_ms, SEMEL_KEY_RETENTION_MS);
    set_ms(&o->heartbeat_ms, SEMEL_HEARTBEAT_MS);
    set_ms(&o->busy_ms, SEMEL_BUSY_MS);
    set32(&o->sessions, SEMEL_SESSIONS);
    set32(&o->connections, SEMEL_CONNECTIONS);
}

static bool is_span(int64_t ms)
{
    return ms >= 1 && ms <= INT32_MAX;
}

static bool is_kept(int64_t ms)
{
    return ms >= 1 && ms <= SEMEL_KEPT_MS_MAX;
}

static bool is_valid(const struct semel_server_options *o)
{
    return !o->no_workers && o->workers <= SML_WORKERS_MAX &&
           !(o->backlog_none && o->backlog > 0) && o->window_calls <= SEMEL_WINDOW_CALLS_MAX &&
           o->body_bytes <= SEMEL_BODY_BYTES_MAX && o->session_bytes >= o->body_bytes &&
           is_span(o->handshake_ms) && is_kept(o->idle_session_ms) &&
           is_kept(o->key_retention_ms) &&
           (o->store == NULL || o->body_bytes <= SEMEL_STORED_BODY_BYTES_MAX) &&
           (o->heartbeat_ms < 0 || is_span(o->heartbeat_ms)) && is_span(o->busy_ms) &&
           (unsigned)o->inspection <= SEMEL_INSPECT_NONE;
}

/* --- creation and release ------------------------------------------------------------------ */

static void init_lists(struct semel_server *server)
{
    struct sml_list *const heads[] = {
        &server->served,     &server->places,    &server->conns,       &server->touched,
        &server->batch,      &server->doomed,    &server->stash,       &server->short_queue,
        &server->long_queue, &server->left,      &server->all_workers, &server->idle,
        &server->posted,     &server->newcomers, &server->to_tell,     &server->free_requests,
        &server->unstarted,  &server->txns,      &server->admin.asked,
    };

    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        sml_list_init(heads[i]);
    sml_heap_init(&server->conn_timers);
    sml_heap_init(&server->session_timers);
}

static void init_locks(struct semel_server *server)
{
    sml_mutex_init(&server->host_lock);
    for (int i = 0; i < SML_STRIPES; i++)
        sml_mutex_init(&server->stripes[i]);
    sml_mutex_init(&server->fresh_lock);
    sml_mutex_init(&server->pool_lock);
    sml_mutex_init(&server->queue_lock);
    sml_cond_init(&server->changed);
}

static void fini_locks(struct semel_server *server)
{
    sml_mutex_fini(&server->host_lock);
    for (int i = 0; i < SML_STRIPES; i++)
        sml_mutex_fini(&server->stripes[i]);
    sml_mutex_fini(&server->fresh_lock);
    sml_mutex_fini(&server->pool_lock);
    sml_mutex_fini(&server->queue_lock);
    sml_cond_fini(&server->changed);
}

/* Also on a thread that is none of the server's loop: methods are published, never taken back. */
static bool keeps_records(void *user, struct semel_bytes name)
{
    const struct sml_method *method = sml_server_find_method(user, name.data, (uint8_t)name.size);

    return method && method->kind != SEMEL_IDEMPOTENT;
}

static void init_host(struct semel_server *server)
{
    const struct semel_server_options *o = &server->options;
    struct sml_entropy entropy = sml_random_entropy(&server->random);
    bool beats = o->heartbeat_ms > 0;
    struct sml_host_options host = {
        .limits = { o->window_calls, o->body_bytes, o->session_bytes },
        .sessions_max = o->sessions,
        .idle = (uint64_t)o->idle_session_ms * SML_MS,
        .handshake = (uint64_t)o->handshake_ms * SML_MS,
        .silence = beats ? 4 * (uint64_t)o->heartbeat_ms * SML_MS : SML_NEVER,
        .heartbeat_ms = beats ? (uint32_t)o->heartbeat_ms : 0,
        .durable = o->store != NULL,
        .features = SML_FEATURE_PARTS | (o->store ? SML_FEATURE_KEYS : 0),
        .methods = { keeps_records, server },
    };

    if (o->store) {
        memcpy(host.store.id, o->store->id, sizeof host.store.id);
        host.store.generation = o->store->generation;
    }

    sml_host_init(&server->host, &sml_mem_libc, &entropy, &host);
}

/* Something that a handler gave away is to be given back: by the leader. */
static void on_returns(struct sml_returns *returns)
{
    struct semel_server *server = SML_CONTAINER(returns, struct semel_server, returns);

    sml_mutex_lock(&server->queue_lock);
    sml_server_nudge_locked(server);
    sml_mutex_unlock(&server->queue_lock);
}

static enum semel_status open_system(struct semel_server *server)
{
    enum semel_status status;

    server->reads = sml_blocks_create(SML_INTAKE_BYTES, SML_BLOCKS_KEPT, SML_BLOCKS_MAX);
    server->writes = sml_blocks_create(SML_FRAGMENT_BYTES, SML_PART_BLOCKS_KEPT, UINT32_MAX);
    if (server->reads == NULL || server->writes == NULL ||
        !sml_intake_open(&server->in, server->reads))
        return SEMEL_NO_MEMORY;
    status = sml_random_init(&server->random);
    if (status == SEMEL_OK)
        status = sml_epoll_open(&server->epoll);
    if (status == SEMEL_OK)
        status = sml_wake_open(&server->wake);
    if (status == SEMEL_OK)
        status = sml_epoll_add(&server->epoll, server->wake.fd, SML_POLL_IN, sml_wake_tag());
    if (status == SEMEL_OK)
        status = sml_alarm_open(&server->alarm);
    if (status == SEMEL_OK)
        status = sml_epoll_add(&server->epoll, server->alarm.fd, SML_POLL_IN, sml_alarm_tag());
    return status;
}

static void close_system(struct semel_server *server)
{
    sml_alarm_close(&server->alarm);
    sml_wake_close(&server->wake);
    sml_epoll_close(&server->epoll);
    sml_random_fini(&server->random);
    sml_intake_close(&server->in);
    sml_blocks_destroy(server->reads);
    sml_blocks_destroy(server->writes);
    sml_returns_fini(&server->returns);
}

static void free_methods(struct semel_server *server)
{
    for (int i = 0; i < SML_METHOD_BUCKETS; i++) {
        struct sml_method *method = atomic_load(&server->methods[i]);

        while (method) {
            struct sml_method *next = method->next;

            sml_method_free(method);
            method = next;
        }
    }
}

enum semel_status semel_server_create(struct semel_server **out_server,
                                      const struct semel_server_options *options)
{
    struct semel_server *server;
    enum semel_status status;

    if (out_server == NULL)
        return SEMEL_INVALID;
    server = calloc(1, sizeof *server);
    if (server == NULL)
        return SEMEL_NO_MEMORY;
    sml_returns_init(&server->returns, on_returns);
    if (options)
        server->options = *options;
    fill_defaults(&server->options);
    server->workers = server->options.workers;
    server->backlog = server->options.backlog;
    server->busy_ms = (uint32_t)server->options.busy_ms;
    server->body_bytes = server->options.body_bytes;
    server->epoll.fd = server->wake.fd = server->alarm.fd = -1;
    server->goodbye_until = server->pauses_end = SML_NEVER;
    atomic_store(&server->drain_until, SML_NEVER);
    sml_origin_init(&server->origin);
    init_lists(server);
    init_locks(server);
    status = is_valid(&server->options) ? open_system(server) : SEMEL_INVALID;
    if (status == SEMEL_OK)
        status = sml_admin_init(server);
    if (status == SEMEL_OK)
        status = sml_commit_init(&server->commit, server, server->options.store,
                                 (uint64_t)server->options.key_retention_ms);
    if (status != SEMEL_OK) {
        free_methods(server);
        fini_locks(server);
        close_system(server);
        sml_origin_fini(&server->origin);
        free(server);
        return status;
    }
    init_host(server);
    *out_server = server;
    return SEMEL_OK;
}

static void free_requests(struct sml_list *list)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(list)) != NULL)
        free(SML_CONTAINER(node, struct semel_request, link));
}

/* Nothing runs, nobody else is inside. */
static void release(struct semel_server *server)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(&server->newcomers)) != NULL)
        sml_conn_discard(SML_CONTAINER(node, struct sml_conn, all));
    sml_server_close_places(server);
    sml_reverse_forsake(server);
    free_requests(&server->stash);
    free_requests(&server->free_requests);
    free_methods(server);
    while (server->pool_count > 0)
        free(server->pool[--server->pool_count]);
    sml_server_forsake_sessions(server);
    sml_host_fini(&server->host);
    sml_commit_fini(&server->commit);
    fini_locks(server);
    close_system(server);
    sml_origin_fini(&server->origin);
    free(server);
}

enum semel_status sml_server_check_open(struct semel_server *server)
{
    if (server == NULL)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&server->origin))
        return SEMEL_FORKED;
    return atomic_load(&server->stop_wanted) ? SEMEL_STOPPED : SEMEL_OK;
}

/* --- running ------------------------------------------------------------------------------- */

/* Must this thread not wait for the server? */
static bool is_ours(struct semel_server *server)
{
    struct sml_worker *self = sml_worker_self();
    bool restores;

    sml_mutex_lock(&server->queue_lock);
    restores = server->restoring.value == sml_thread_self().value;
    sml_mutex_unlock(&server->queue_lock);
    return restores || (self && self->server == server) || sml_in_transaction();
}

static enum semel_status start_threads(struct semel_server *server)
{
    uint32_t count = server->options.on_demand ? 2 : server->workers + 1;
    enum semel_status status = sml_watchdog_start(server);

    if (status != SEMEL_OK)
        return status;
    sml_mutex_lock(&server->queue_lock);
    server->watched = true;
    sml_mutex_unlock(&server->queue_lock);
    for (uint32_t i = 0; i < count && status == SEMEL_OK; i++) {
        bool enough;

        /* The first ones may have work already, and have called for others. */
        sml_mutex_lock(&server->queue_lock);
        enough = server->threads >= count;
        server->threads += !enough;
        sml_mutex_unlock(&server->queue_lock);
        if (enough)
            break;
        status = sml_server_spawn(server, false);
        if (status != SEMEL_OK) {
            sml_mutex_lock(&server->queue_lock);
            server->threads--;
            sml_mutex_unlock(&server->queue_lock);
        }
    }
    return status;
}

/* Resolve handlers run meanwhile. */
static enum semel_status restore(struct semel_server *server)
{
    enum semel_status status;

    sml_mutex_lock(&server->queue_lock);
    server->restoring = sml_thread_self();
    sml_mutex_unlock(&server->queue_lock);
    status = sml_server_restore(server);
    sml_mutex_lock(&server->queue_lock);
    server->restoring.value = 0;
    sml_mutex_unlock(&server->queue_lock);
    return status;
}

enum semel_status semel_server_start(struct semel_server *server)
{
    enum semel_status status = sml_server_check_open(server);

    if (status != SEMEL_OK)
        return status;
    sml_mutex_lock(&server->queue_lock);
    if (server->state == SML_SERVER_NEW) {
        server->state = SML_SERVER_SERVING;
        server->started = true;
        server->leader_wanted = true;
    } else {
        status = server->state == SML_SERVER_STOPPED ? SEMEL_STOPPED : SEMEL_ALREADY;
    }
    sml_mutex_unlock(&server->queue_lock);
    if (status != SEMEL_OK)
        return status;
    status = sml_reverse_start(server);
    if (status == SEMEL_OK && sml_commit_is_durable(&server->commit))
        status = restore(server);
    if (status == SEMEL_OK)
        status = sml_commit_start(&server->commit);
    if (status == SEMEL_OK)
        status = start_threads(server);
    if (status != SEMEL_OK)
        semel_server_stop(server);
    return status;
}

enum semel_status semel_server_run(struct semel_server *server)
{
    enum semel_status status;

    if (server && sml_origin_is_mine(&server->origin) && (is_ours(server) || sml_thread_in_loop()))
        return SEMEL_WOULD_DEADLOCK;
    status = semel_server_start(server);
    return status == SEMEL_OK ? semel_server_wait(server, -1, NULL) : status;
}

/* The leader looks at what was asked for; a server without threads has stopped at once. */
static void tell_leader(struct semel_server *server)
{
    sml_mutex_lock(&server->queue_lock);
    if (server->state == SML_SERVER_NEW || (server->threads == 0 && server->leader_wanted)) {
        server->state = SML_SERVER_STOPPED;
        server->quit = true;
        atomic_store(&server->stop_wanted, true);
        sml_cond_broadcast(&server->changed);
    }
    sml_server_nudge_locked(server);
    sml_mutex_unlock(&server->queue_lock);
}

void semel_server_drain(struct semel_server *server, int64_t timeout_ms)
{
    uint64_t until, old;

    if (server == NULL || !sml_origin_is_mine(&server->origin))
        return;
    until = sml_time_add(sml_clock_now(), timeout_ms > 0 ? (uint64_t)timeout_ms * SML_MS : 0);
    old = atomic_load(&server->drain_until);
    while (until < old && !atomic_compare_exchange_weak(&server->drain_until, &old, until))
        continue;
    tell_leader(server);
}

void semel_server_stop(struct semel_server *server)
{
    if (server == NULL || !sml_origin_is_mine(&server->origin))
        return;
    atomic_store(&server->stop_wanted, true);
    tell_leader(server);
}

static bool has_ended_locked(struct semel_server *server)
{
    return server->quit && server->running == 0 && sml_commit_at_rest_locked(&server->commit);
}

enum semel_status semel_server_wait(struct semel_server *server, int64_t timeout_ms,
                                    uint32_t *out_running)
{
    enum semel_status status = SEMEL_OK;
    uint64_t until = SML_NEVER;
    bool in_time = true;

    if (server == NULL)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&server->origin))
        return SEMEL_FORKED;
    if (is_ours(server) || (timeout_ms != 0 && sml_thread_in_loop()))
        return SEMEL_WOULD_DEADLOCK;
    if (timeout_ms >= 0)
        until = sml_time_add(sml_clock_now(), (uint64_t)timeout_ms * SML_MS);
    sml_mutex_lock(&server->queue_lock);
    if (!server->started)
        status = SEMEL_STOPPED;
    server->waiting++;
    while (status == SEMEL_OK && !has_ended_locked(server)) {
        if (!in_time)
            status = SEMEL_DEADLINE;
        else
            in_time = sml_cond_wait_until(&server->changed, &server->queue_lock, until);
    }
    if (status == SEMEL_DEADLINE && out_running)
        *out_running = server->running;
    if (status == SEMEL_OK)
        status = (enum semel_status)atomic_load(&server->commit.status);
    if (--server->waiting == 0)
        sml_cond_broadcast(&server->changed);
    sml_mutex_unlock(&server->queue_lock);
    return status;
}

/* --- the end ------------------------------------------------------------------------------- */

/* In a child process: no thread of ours is here, locks are in any state, and what the descriptors
 * mean belongs to the parent. Memory that running threads of the parent were changing is left. */
static void forsake(struct semel_server *server)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(&server->places)) != NULL) {
        struct sml_place_to_listen *place = SML_CONTAINER(node, struct sml_place_to_listen, all);

        sml_listener_abandon(&place->listener);
        free(place);
    }
    for (node = server->conns.next; node != &server->conns; node = node->next)
        sml_channel_close(&SML_CONTAINER(node, struct sml_conn, all)->channel);
    sml_reverse_forsake(server);
    free_methods(server);
    close_system(server);
    sml_origin_fini(&server->origin);
    free(server);
}

enum semel_status semel_server_destroy(struct semel_server *server)
{
    if (server == NULL)
        return SEMEL_OK;
    if (!sml_origin_is_mine(&server->origin)) {
        forsake(server);
        return SEMEL_FORKED;
    }
    if (is_ours(server))
        return SEMEL_WOULD_DEADLOCK;
    semel_server_stop(server);
    sml_mutex_lock(&server->queue_lock);
    while (!server->quit || server->threads > 0 || server->unfinished > 0 || server->waiting > 0)
        sml_cond_wait(&server->changed, &server->queue_lock);
    sml_mutex_unlock(&server->queue_lock);
    sml_reverse_stop(server);
    sml_commit_stop(&server->commit);
    if (server->watched)
        sml_watchdog_stop(server);
    sml_server_reap(server);
    sml_admin_fini(server);
    release(server);
    return SEMEL_OK;
}
