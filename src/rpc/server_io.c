/* SPDX-License-Identifier: MIT */
/* server_io.c - the leader's loop: wait, accept, read, keep time, flush, drain and stop.
 *
 * One round: wait for descriptors until the next timer; read each connection once into the server's
 * one buffer, collecting the calls that are complete; put them into the run queue together; run
 * short ones; then write to each connection that has something to be written, once. So replies to
 * calls that came in one read leave in one write.
 *
 * While the leader is inside a handler or a cancel callback (and only then) the role may pass to
 * another thread. Both return false when that happened, and the loop is left at once. */
#include "rpc/server_internal.h"

#include <stdlib.h>

#define ACCEPTS_MAX 64 /* in one round */

enum { TAG_CONN, TAG_PLACE, TAG_WAKE, TAG_ALARM, TAG_MASK = 3 };

uint64_t sml_place_tag(struct sml_place_to_listen *place)
{
    return (uint64_t)(uintptr_t)place | TAG_PLACE;
}

uint64_t sml_wake_tag(void)
{
    return TAG_WAKE;
}

uint64_t sml_alarm_tag(void)
{
    return TAG_ALARM;
}

void sml_server_nudge_locked(struct semel_server *server)
{
    atomic_store_explicit(&server->mail, true, memory_order_relaxed);
    if (atomic_load_explicit(&server->leader_until, memory_order_relaxed) != 0)
        sml_wake_signal(&server->wake);
}

/* --- accepting ------------------------------------------------------------------------------- */

static void report_accept(struct semel_server *server, const char *why)
{
    uint64_t now = sml_clock_now();

    if (server->accept_logged != 0 && now < server->accept_logged + SML_SECOND)
        return;
    server->accept_logged = now;
    sml_server_log(server, SEMEL_LOG_ERROR, "a client cannot be accepted: %s", why);
}

/* Say why, as far as one write goes. */
static void turn_away(struct semel_server *server, struct sml_channel *channel, const char *why)
{
    uint8_t frame[SML_HEADER_BYTES + 8 + SML_BYE_TEXT_BYTES];
    size_t bytes = sml_encode_bye(frame, SML_BYE_RETRY_LATER, semel_bytes_text(why));

    report_accept(server, why);
    (void)sml_channel_write(channel, frame, bytes);
    sml_channel_close(channel);
}

static void welcome(struct semel_server *server, struct sml_channel *channel)
{
    struct sml_conn *conn;

    if (server->conn_count >= server->options.connections) {
        turn_away(server, channel, "too many connections");
        return;
    }
    conn = sml_conn_create(server, channel);
    if (conn)
        sml_conn_admit(conn, sml_clock_now());
    else
        turn_away(server, channel, "no memory for a connection");
}

static void pause_place(struct semel_server *server, struct sml_place_to_listen *place)
{
    place->paused_until = sml_clock_now() + SML_LISTENER_PAUSE_MS * SML_MS;
    server->pauses_end = sml_time_min(server->pauses_end, place->paused_until);
    sml_epoll_modify(&server->epoll, place->listener.fd, 0, sml_place_tag(place));
}

static void accept_some(struct semel_server *server, struct sml_place_to_listen *place)
{
    struct sml_channel channel;
    struct sml_reason reason;

    if (place->listener.fd < 0)
        return;
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        sml_channel_init(&channel);
        switch (sml_listener_accept(&place->listener, &channel, &reason)) {
        case SML_ACCEPT_OK:
            welcome(server, &channel);
            break;
        case SML_ACCEPT_NONE:
            return;
        case SML_ACCEPT_TURNED_AWAY:
            report_accept(server, reason.text);
            break;
        case SML_ACCEPT_PAUSE:
            report_accept(server, reason.text);
            pause_place(server, place);
            return;
        }
    }
}

static void end_pauses(struct semel_server *server, uint64_t now)
{
    server->pauses_end = SML_NEVER;
    sml_mutex_lock(&server->host_lock);
    for (struct sml_list *node = server->places.next; node != &server->places; node = node->next) {
        struct sml_place_to_listen *place = SML_CONTAINER(node, struct sml_place_to_listen, all);

        if (place->paused_until == 0)
            continue;
        if (place->paused_until > now) {
            server->pauses_end = sml_time_min(server->pauses_end, place->paused_until);
            continue;
        }
        place->paused_until = 0;
        sml_epoll_modify(&server->epoll, place->listener.fd, SML_POLL_IN, sml_place_tag(place));
    }
    sml_mutex_unlock(&server->host_lock);
}

static void admit_newcomers(struct semel_server *server)
{
    struct sml_list newcomers, *node;

    sml_list_init(&newcomers);
    sml_mutex_lock(&server->queue_lock);
    sml_list_move_all(&newcomers, &server->newcomers);
    sml_mutex_unlock(&server->queue_lock);
    while ((node = sml_list_pop_front(&newcomers)) != NULL) {
        struct sml_conn *conn = SML_CONTAINER(node, struct sml_conn, all);

        if (server->goodbye_until == SML_NEVER)
            sml_conn_admit(conn, sml_clock_now());
        else
            sml_conn_discard(conn);
    }
}

/* --- flushing -------------------------------------------------------------------------------- */

void sml_server_flush(struct semel_server *server)
{
    struct sml_list now, *node;

    sml_list_init(&now);
    sml_list_move_all(&now, &server->touched);
    while ((node = sml_list_pop_front(&now)) != NULL)
        sml_conn_flush(SML_CONTAINER(node, struct sml_conn, touched_link));
}

/* Did another thread put something into a list for the leader? A stop or a drain says so too; they
 * are looked at in every round. What arrives later is seen before the next sleep. */
static bool open_mail(struct semel_server *server)
{
    if (!atomic_load_explicit(&server->mail, memory_order_relaxed))
        return false;
    sml_mutex_lock(&server->queue_lock);
    atomic_store_explicit(&server->mail, false, memory_order_relaxed);
    sml_mutex_unlock(&server->queue_lock);
    return true;
}

/* Connections that other threads passed on. */
static void flush_posted(struct semel_server *server)
{
    struct sml_list *node;

    do {
        sml_mutex_lock(&server->queue_lock);
        node = sml_list_pop_front(&server->posted);
        sml_mutex_unlock(&server->queue_lock);
        if (node)
            sml_conn_flush(SML_CONTAINER(node, struct sml_conn, posted_link));
    } while (node);
}

/* --- drain and stop -------------------------------------------------------------------------- */

static void begin_drain(struct semel_server *server, uint64_t now, uint64_t until)
{
    uint32_t grace_ms = (uint32_t)sml_time_min(sml_time_ms_until(until, now), UINT32_MAX);

    server->drain_begun = true;
    sml_mutex_lock(&server->host_lock);
    server->host.draining = true;
    sml_mutex_unlock(&server->host_lock);
    for (struct sml_list *node = server->conns.next; node != &server->conns; node = node->next) {
        struct sml_conn *conn = SML_CONTAINER(node, struct sml_conn, all);

        sml_mutex_lock(conn->lock);
        sml_peer_drain(&conn->peer, grace_ms);
        sml_conn_touch(conn);
        sml_mutex_unlock(conn->lock);
    }
    sml_server_log(server, SEMEL_LOG_INFO, "draining, for at most %u ms", (unsigned)grace_ms);
}

void sml_server_close_places(struct semel_server *server)
{
    struct sml_list *node;

    sml_mutex_lock(&server->host_lock);
    server->places_closed = true;
    while ((node = sml_list_pop_front(&server->places)) != NULL) {
        struct sml_place_to_listen *place = SML_CONTAINER(node, struct sml_place_to_listen, all);

        sml_epoll_remove(&server->epoll, place->listener.fd);
        sml_listener_close(&place->listener);
        free(place);
    }
    sml_mutex_unlock(&server->host_lock);
}

/* No call begins any more; waiting ones are answered; each connection gets a BYE behind that. */
static void begin_goodbye(struct semel_server *server, uint64_t now)
{
    struct sml_list waiting, *node;

    server->goodbye_until = now + SML_GOODBYE_NS;
    sml_list_init(&waiting);
    sml_server_close_places(server);
    sml_server_take_queue(server, &waiting);
    admit_newcomers(server); /* the last ones: they are let go */
    sml_server_stop_sessions(server, &waiting);
    for (node = server->conns.next; node != &server->conns; node = node->next) {
        struct sml_conn *conn = SML_CONTAINER(node, struct sml_conn, all);

        sml_mutex_lock(conn->lock);
        conn->goodbye = true;
        sml_conn_touch(conn);
        sml_mutex_unlock(conn->lock);
    }
    sml_server_log(server, SEMEL_LOG_INFO, "stopping");
}

static void end_serving(struct semel_server *server)
{
    struct sml_list *node;

    while (!sml_list_empty(&server->conns))
        sml_conn_close(SML_CONTAINER(server->conns.next, struct sml_conn, all));
    sml_conn_bury(server);
    sml_server_end_sessions(server);
    sml_mutex_lock(&server->queue_lock);
    server->quit = true;
    server->leader = NULL;
    server->state = SML_SERVER_STOPPED;
    while ((node = sml_list_pop_front(&server->idle)) != NULL) {
        struct sml_worker *worker = SML_CONTAINER(node, struct sml_worker, idle_link);

        atomic_store_explicit(&worker->signal, SML_SIGNAL_LOOK, memory_order_relaxed);
        sml_futex_wake(&worker->signal, 1);
    }
    sml_cond_broadcast(&server->changed);
    sml_mutex_unlock(&server->queue_lock);
}

/* Returns false when the server has stopped. */
static bool go_on(struct semel_server *server)
{
    uint64_t drain_until = atomic_load(&server->drain_until), now;
    bool stop = atomic_load(&server->stop_wanted);

    if (drain_until == SML_NEVER && !stop)
        return true;
    now = sml_clock_now();
    if (!stop && !server->drain_begun)
        begin_drain(server, now, drain_until);
    if (!stop && now >= drain_until)
        stop = true;
    if (!stop && now >= server->drain_checked + SML_DRAIN_CHECK_NS) {
        server->drain_checked = now;
        stop = sml_server_drained(server);
    }
    if (stop)
        atomic_store(&server->stop_wanted, true);
    if (stop && server->goodbye_until == SML_NEVER)
        begin_goodbye(server, now);
    if (server->goodbye_until == SML_NEVER || server->telling ||
        (!sml_list_empty(&server->conns) && now < server->goodbye_until))
        return true;
    end_serving(server);
    return false;
}

/* --- time ------------------------------------------------------------------------------------ */

static void tick_sessions(struct semel_server *server, uint64_t now)
{
    for (;;) {
        struct sml_heap_node *node;

        sml_mutex_lock(&server->queue_lock);
        node = sml_heap_min(&server->session_timers);
        if (node && node->key <= now)
            sml_heap_remove(&server->session_timers, node);
        else
            node = NULL;
        sml_mutex_unlock(&server->queue_lock);
        if (node == NULL)
            return;
        sml_served_tick(SML_CONTAINER(node, struct sml_served, timer), now);
    }
}

static void keep_time(struct semel_server *server, uint64_t sessions_due)
{
    uint64_t now = sml_clock_now();
    struct sml_heap_node *node;

    while ((node = sml_heap_min(&server->conn_timers)) != NULL && node->key <= now) {
        sml_heap_remove(&server->conn_timers, node);
        sml_conn_timer(SML_CONTAINER(node, struct sml_conn, timer), now);
    }
    if (sessions_due <= now)
        tick_sessions(server, now);
    if (sml_host_timeout(&server->host) <= now)
        sml_server_expire(server, now);
    if (server->pauses_end <= now)
        end_pauses(server, now);
    if (sml_commit_is_durable(&server->commit))
        sml_commit_watch(&server->commit, now);
}

/* When the leader must wake, whatever its descriptors say; 0: there is work now. */
static uint64_t sleep_until(struct semel_server *server, uint64_t *out_sessions)
{
    uint64_t until =
        sml_time_min(sml_heap_min_key(&server->conn_timers), sml_host_timeout(&server->host));
    bool stop = atomic_load(&server->stop_wanted);

    until = sml_time_min(until, server->pauses_end);
    until = sml_time_min(until, server->goodbye_until);
    if (server->drain_begun && !stop)
        until = sml_time_min(until, server->drain_checked + SML_DRAIN_CHECK_NS);
    sml_mutex_lock(&server->queue_lock);
    *out_sessions = sml_heap_min_key(&server->session_timers);
    until = sml_time_min(until, *out_sessions);
    until = sml_time_min(until, sml_commit_watch_at_locked(&server->commit));
    if (!sml_list_empty(&server->touched) || server->telling ||
        atomic_load_explicit(&server->mail, memory_order_relaxed) ||
        sml_server_may_inline_locked(server, server->running))
        until = 0;
    atomic_store_explicit(&server->leader_until, until, memory_order_relaxed);
    sml_mutex_unlock(&server->queue_lock);
    return until;
}

/* --- a round --------------------------------------------------------------------------------- */

static void on_event(struct semel_server *server, const struct epoll_event *event)
{
    uintptr_t what = (uintptr_t)event->data.u64;
    struct sml_conn *conn = (struct sml_conn *)what;

    if ((what & TAG_MASK) == TAG_WAKE) {
        sml_wake_drain(&server->wake);
    } else if ((what & TAG_MASK) == TAG_ALARM) {
        sml_alarm_drain(&server->alarm);
    } else if ((what & TAG_MASK) == TAG_PLACE) {
        accept_some(server, (struct sml_place_to_listen *)(what - TAG_PLACE));
    } else {
        /* A full pipe whose reader has gone says ERROR only. */
        if (event->events & (SML_POLL_OUT | SML_POLL_ERROR))
            sml_conn_writable(conn);
        if (event->events & (SML_POLL_IN | SML_POLL_HUP | SML_POLL_ERROR))
            sml_conn_readable(conn);
    }
}

/* For events, at most until `until`. A guest to whom much has come looks for a moment first; an
 * ordinary leader is better out of the way of the handler that it has woken. */
static int wait_for_events(struct semel_server *server, const struct sml_guest *guest,
                           uint64_t until, struct epoll_event *events)
{
    bool looks = guest && server->much_read && until != 0;
    uint64_t looked = looks ? sml_clock_now() + SML_LOOK_NS : 0;
    int count = 0;

    server->much_read = false;
    if (until != 0)
        sml_alarm_set(&server->alarm, until);
    while (looks && count == 0) {
        count = sml_epoll_wait(&server->epoll, events, SML_EVENTS, 0);
        looks = sml_clock_now() < looked;
        if (looks && count == 0)
            sml_thread_yield();
    }
    if (count == 0)
        count = sml_epoll_wait(&server->epoll, events, SML_EVENTS, until == 0 ? 0 : SML_NEVER);
    return count;
}

/* One round, but for what runs handlers and callbacks. False: the server has stopped. */
static bool go_round(struct semel_server *server, const struct sml_guest *guest, bool *out_mail)
{
    struct epoll_event events[SML_EVENTS];
    uint64_t sessions_due, until;
    int count;

    sml_server_flush(server);
    if (!go_on(server))
        return false;
    until = sleep_until(server, &sessions_due);
    if (guest)
        until = sml_time_min(until, guest->until);
    count = wait_for_events(server, guest, until, events);
    atomic_store_explicit(&server->leader_until, 0, memory_order_relaxed);
    for (int i = 0; i < count; i++)
        on_event(server, &events[i]);
    keep_time(server, sessions_due);
    *out_mail = open_mail(server);
    if (*out_mail) {
        flush_posted(server);
        admit_newcomers(server);
    }
    sml_conn_bury(server);
    sml_returns_run(&server->returns);
    sml_server_enqueue(server);
    sml_admin_rouse(server);
    return true;
}

void sml_server_lead(struct semel_server *server, struct sml_worker *worker)
{
    bool mail;

    while (go_round(server, NULL, &mail))
        if (!sml_server_tell(server, worker) || !sml_server_run_inline(server, worker) ||
            (mail && sml_guest_admit(server)))
            return;
}

bool sml_server_lead_as_guest(struct semel_server *server, struct sml_guest *guest)
{
    bool mail;

    while (!sml_guest_is_over(guest))
        if (!go_round(server, guest, &mail) || !sml_guest_stays(server))
            return false;
    sml_server_flush(server);
    return true;
}
