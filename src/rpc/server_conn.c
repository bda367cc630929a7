/* SPDX-License-Identifier: MIT */
/* server_conn.c - one connection of a server: input to the machines, output through the pen, and
 * its end.
 *
 * The leader reads, and alone decides to close. Any thread may write. A connection is closed in
 * steps, so that no thread ever meets a descriptor number that was given to somebody else:
 *   CLOSING     the peer machine has a BYE to say
 *   LINGERING   it is said and nothing more will be written; input is thrown away until the client
 *               closes too, so that it can read our reason
 *   CLOSED      shut down, out of every list; freed at the end of the leader's round (its list of
 *               events may name it), or by the writer that still holds the pen, whoever is later */
#include "rpc/server_internal.h"

#include <stdlib.h>
#include <string.h>

/* --- the pen's machine ------------------------------------------------------------------- */

static size_t pull(void *owner, uint8_t *out, size_t room, struct sml_views *views)
{
    struct sml_conn *conn = owner;

    if (conn->peer.session)
        conn->peer.session->callee.views = views;

    return sml_peer_pull(&conn->peer, out, room, sml_clock_now());
}

static bool wants(void *owner)
{
    struct sml_conn *conn = owner;

    return sml_peer_wants_write(&conn->peer);
}

static uint8_t *lend(void *owner, size_t *out_room)
{
    struct semel_server *server = ((struct sml_conn *)owner)->server;
    uint8_t *buffer = NULL;

    sml_mutex_lock(&server->pool_lock);
    if (server->pool_count > 0)
        buffer = server->pool[--server->pool_count];
    sml_mutex_unlock(&server->pool_lock);
    *out_room = SML_PEN_BUFFER_BYTES;
    return buffer ? buffer : malloc(SML_PEN_BUFFER_BYTES);
}

static void give_back(void *owner, uint8_t *buffer)
{
    struct semel_server *server = ((struct sml_conn *)owner)->server;

    sml_mutex_lock(&server->pool_lock);
    if (server->pool_count < SML_POOL_BUFFERS) {
        server->pool[server->pool_count++] = buffer;
        buffer = NULL;
    }
    sml_mutex_unlock(&server->pool_lock);
    free(buffer);
}

static const struct sml_pen_ops pen_ops = { pull, wants, lend, give_back };

/* --- creation ---------------------------------------------------------------------------- */

static struct sml_peer_info *describe(const struct sml_channel *channel)
{
    size_t bytes = strlen(channel->peer) + 1;
    struct sml_peer_info *info = malloc(sizeof *info + bytes);

    if (info == NULL)
        return NULL;
    memcpy(info + 1, channel->peer, bytes);
    info->refs = 1;
    info->peer.address = (const char *)(info + 1);
    info->peer.has_ids = channel->ids.known;
    info->peer.uid = channel->ids.known ? channel->ids.uid : 0;
    info->peer.gid = channel->ids.known ? channel->ids.gid : 0;
    return info;
}

/* Moves `channel` in, except when there is no memory. */
struct sml_conn *sml_conn_create(struct semel_server *server, struct sml_channel *channel)
{
    struct sml_conn *conn = calloc(1, sizeof *conn);
    struct sml_peer_info *info = describe(channel);

    if (conn == NULL || info == NULL) {
        free(conn);
        free(info);
        return NULL;
    }
    conn->server = server;
    conn->lock = &server->fresh_lock;
    conn->info = info;
    conn->linger_until = conn->retry_at = SML_NEVER;
    sml_list_init(&conn->all);
    sml_list_init(&conn->touched_link);
    sml_list_init(&conn->posted_link);
    sml_heap_node_init(&conn->timer);
    sml_channel_move(&conn->channel, channel);
    sml_pen_init(&conn->pen, &pen_ops, conn, conn->lock);
    return conn;
}

void sml_conn_discard(struct sml_conn *conn)
{
    sml_channel_close(&conn->channel);
    sml_info_unref(conn->info);
    free(conn->rest);
    free(conn);
}

static void free_conn(struct sml_conn *conn)
{
    struct sml_mutex *lock = conn->lock;

    sml_mutex_lock(lock);
    sml_peer_fini(&conn->peer);
    sml_info_unref(conn->info);
    conn->info = NULL;
    sml_mutex_unlock(lock);
    sml_conn_discard(conn);
}

static void rekey(struct sml_conn *conn)
{
    struct semel_server *server = conn->server;
    uint64_t at = sml_time_min(conn->linger_until, conn->retry_at);

    if (conn->state == SML_CONN_OPEN)
        at = sml_time_min(at, sml_peer_timeout(&conn->peer));
    sml_heap_remove(&server->conn_timers, &conn->timer);
    if (at != SML_NEVER)
        sml_heap_insert(&server->conn_timers, &conn->timer, at);
}

void sml_conn_admit(struct sml_conn *conn, uint64_t now)
{
    struct semel_server *server = conn->server;
    const struct sml_principal_ids *ids = &conn->channel.ids;
    struct sml_principal principal = { ids->known, ids->uid, ids->gid };

    sml_peer_init(&conn->peer, &server->host, &principal, now);
    sml_pen_open(&conn->pen, &conn->channel);
    sml_list_push_back(&server->conns, &conn->all);
    server->conn_count++;
    atomic_fetch_add_explicit(&server->totals.accepted, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&server->totals.open, 1, memory_order_relaxed);
    rekey(conn);
    if (sml_epoll_add(&server->epoll, conn->channel.fd_read, SML_POLL_IN,
                      (uint64_t)(uintptr_t)conn) != SEMEL_OK) {
        sml_server_log(server, SEMEL_LOG_ERROR, "%s: cannot be watched, closed",
                       conn->info->peer.address);
        sml_conn_close(conn);
    }
}

/* --- writing ----------------------------------------------------------------------------- */

/* Watch for output too; lock held. */
static void arm(struct sml_conn *conn, bool on)
{
    struct sml_epoll *epoll = &conn->server->epoll;
    const struct sml_channel *channel = &conn->channel;
    uint64_t data = (uint64_t)(uintptr_t)conn;

    if (conn->out_armed == on)
        return;
    conn->out_armed = on;
    if (channel->fd_read == channel->fd_write) {
        sml_epoll_modify(epoll, channel->fd_read, SML_POLL_IN | (on ? SML_POLL_OUT : 0), data);
    } else if (!on) {
        sml_epoll_remove(epoll, channel->fd_write);
    } else if (sml_epoll_add(epoll, channel->fd_write, SML_POLL_OUT, data) != SEMEL_OK) {
        conn->out_armed = false;
        sml_channel_shutdown(&conn->channel);
    }
}

void sml_conn_touch(struct sml_conn *conn)
{
    if (conn->touched || conn->state != SML_CONN_OPEN)
        return;
    conn->touched = true;
    sml_list_push_back(&conn->server->touched, &conn->touched_link);
}

bool sml_conn_is_written_after(const struct sml_conn *conn)
{
    const struct sml_worker *self = sml_worker_self();

    return conn->touched && self && self->inlining && self->server == conn->server;
}

void sml_conn_post(struct sml_conn *conn)
{
    struct semel_server *server = conn->server;

    sml_mutex_lock(&server->queue_lock);
    if (!sml_list_linked(&conn->posted_link))
        sml_list_push_back(&server->posted, &conn->posted_link);
    sml_server_nudge_locked(server);
    sml_mutex_unlock(&server->queue_lock);
}

static void count_writes(struct sml_conn *conn)
{
    struct sml_server_totals *totals = &conn->server->totals;

    if (conn->pen.writes == 0)
        return;
    atomic_fetch_add_explicit(&totals->writes, conn->pen.writes, memory_order_relaxed);
    atomic_fetch_add_explicit(&totals->bytes_out, conn->pen.bytes, memory_order_relaxed);
    conn->pen.writes = conn->pen.bytes = 0;
}

void sml_conn_write(struct sml_conn *conn)
{
    /* Without a yield: handlers that end apart from each other gain nothing by it, and it costs
     * their thread two switches (a fifth of the rate at 50 us each). */
    enum sml_pen_end end = sml_pen_write(&conn->pen, false);
    bool mine = false;

    count_writes(conn);
    switch (end) {
    case SML_PEN_STOPPED:
        mine = conn->condemned;
        conn->condemned = false;
        break;
    case SML_PEN_FULL:
        arm(conn, true);
        break;
    case SML_PEN_BROKEN:
        sml_channel_shutdown(&conn->channel);
        sml_conn_post(conn);
        break;
    case SML_PEN_MORE:
    case SML_PEN_STARVED:
        sml_conn_post(conn);
        break;
    case SML_PEN_CLEAR:
        if (conn->peer.state == SML_PEER_CLOSING || conn->goodbye)
            sml_conn_post(conn);
        break;
    case SML_PEN_TAKEN:
    case SML_PEN_CLOSED:
        break;
    }
    sml_mutex_unlock(conn->lock);
    if (mine)
        free_conn(conn);
}

/* BYE is written: let the client read it and close. */
static void linger(struct sml_conn *conn)
{
    struct semel_server *server = conn->server;
    uint64_t now = sml_clock_now();
    bool received = conn->peer.bye_received;

    sml_conn_detach(conn, now);
    if (received) {
        sml_conn_close(conn);
        return;
    }
    sml_channel_shutdown_write(&conn->channel);
    conn->state = SML_CONN_LINGERING;
    conn->linger_until = sml_time_min(now + SML_LINGER_NS, server->goodbye_until);
    rekey(conn);
}

/* What the leader does after a write of its own. Returns whether BYE is out; lock held. */
static bool after_write(struct sml_conn *conn, enum sml_pen_end end)
{
    count_writes(conn);
    switch (end) {
    case SML_PEN_FULL:
        arm(conn, true);
        break;
    case SML_PEN_MORE:
        sml_conn_touch(conn);
        break;
    case SML_PEN_STARVED:
        conn->retry_at = sml_clock_now() + SML_STARVED_NS;
        rekey(conn);
        break;
    case SML_PEN_CLEAR:
        return conn->peer.state == SML_PEER_CLOSING && !sml_peer_wants_write(&conn->peer);
    case SML_PEN_TAKEN:
    case SML_PEN_BROKEN:
    case SML_PEN_STOPPED:
    case SML_PEN_CLOSED:
        break;
    }
    return false;
}

static bool is_mid_frame(const struct sml_conn *conn)
{
    return conn->rest_bytes > 0 || conn->in.block;
}

static void lost(struct sml_conn *conn, struct sml_io io)
{
    struct semel_server *server = conn->server;
    bool mid_frame;
    enum sml_peer_state state;

    sml_mutex_lock(conn->lock);
    state = conn->peer.state;
    mid_frame = is_mid_frame(conn) || sml_pen_unsent(&conn->pen);
    if (conn->pen.broken)
        io = conn->pen.error;
    sml_mutex_unlock(conn->lock);
    if (state == SML_PEER_NEW || state == SML_PEER_LISTING)
        atomic_fetch_add_explicit(&server->totals.handshakes_failed, 1, memory_order_relaxed);
    if (state == SML_PEER_UP) {
        atomic_fetch_add_explicit(&server->totals.lost, 1, memory_order_relaxed);
        if (mid_frame)
            atomic_fetch_add_explicit(&server->totals.lost_mid_frame, 1, memory_order_relaxed);
    }
    if (state != SML_PEER_CLOSING && (state != SML_PEER_NEW || is_mid_frame(conn)))
        sml_server_log(server, SEMEL_LOG_INFO, "%s: connection lost%s: %s",
                       conn->info->peer.address, mid_frame ? " inside a frame" : "",
                       sml_io_text(io));
    sml_conn_close(conn);
}

/* A write failed. What the client sent before, its BYE perhaps, is still read: shut down, a socket
 * stays readable to its end. */
static void end_broken(struct sml_conn *conn)
{
    if (!sml_channel_tells_pollers(&conn->channel)) {
        lost(conn, conn->pen.error);
        return;
    }
    sml_channel_shutdown(&conn->channel);
    if (conn->linger_until == SML_NEVER) {
        conn->linger_until = sml_clock_now() + SML_LINGER_NS;
        rekey(conn);
    }
}

static void flush(struct sml_conn *conn, bool writable)
{
    struct semel_server *server = conn->server;
    enum sml_pen_end end;
    bool said, closing, broken;

    sml_mutex_lock(conn->lock);
    conn->touched = false;
    sml_list_remove(&conn->touched_link);
    if (conn->state != SML_CONN_OPEN) {
        sml_mutex_unlock(conn->lock);
        return;
    }
    end = writable ? sml_pen_writable(&conn->pen) : sml_pen_write(&conn->pen, false);
    if (writable && !conn->pen.blocked)
        arm(conn, false);
    if (end == SML_PEN_CLEAR && conn->goodbye && conn->peer.state != SML_PEER_CLOSING) {
        /* Sessions in memory end with their server, and who else could say so: callers of what
         * still ran are told at once instead of at their deadline. */
        if (sml_commit_is_durable(&server->commit))
            sml_peer_close(&conn->peer, SML_BYE_SHUTDOWN, "the server stops");
        else
            sml_peer_close(&conn->peer, SML_BYE_SESSION_LOST, "the server has stopped");
        end = sml_pen_write(&conn->pen, false);
    }
    said = after_write(conn, end);
    closing = conn->peer.state == SML_PEER_CLOSING || conn->goodbye;
    broken = conn->pen.broken;
    sml_mutex_unlock(conn->lock);
    if (broken) {
        end_broken(conn);
    } else if (said) {
        linger(conn);
    } else if (closing && conn->linger_until == SML_NEVER) {
        conn->linger_until = sml_time_min(sml_clock_now() + SML_LINGER_NS, server->goodbye_until);
        rekey(conn);
    }
}

void sml_conn_flush(struct sml_conn *conn)
{
    flush(conn, false);
}

void sml_conn_writable(struct sml_conn *conn)
{
    flush(conn, true);
}

/* --- the end ----------------------------------------------------------------------------- */

void sml_conn_close(struct sml_conn *conn)
{
    struct semel_server *server = conn->server;

    if (conn->state == SML_CONN_CLOSED)
        return;
    sml_conn_detach(conn, sml_clock_now());
    sml_mutex_lock(conn->lock);
    arm(conn, false);
    sml_epoll_remove(&server->epoll, conn->channel.fd_read);
    conn->state = SML_CONN_CLOSED;
    conn->touched = false;
    sml_channel_shutdown(&conn->channel);
    (void)sml_pen_stop(&conn->pen); /* its holder, if any, is waited for in sml_conn_bury */
    sml_mutex_lock(&server->queue_lock);
    sml_list_remove(&conn->posted_link);
    sml_mutex_unlock(&server->queue_lock);
    sml_mutex_unlock(conn->lock);
    sml_list_remove(&conn->touched_link);
    sml_heap_remove(&server->conn_timers, &conn->timer);
    sml_list_remove(&conn->all);
    sml_list_push_back(&server->doomed, &conn->all);
    server->conn_count--;
    atomic_fetch_sub_explicit(&server->totals.open, 1, memory_order_relaxed);
    sml_intake_close(&conn->in);
    free(conn->rest);
    conn->rest = NULL;
    conn->rest_bytes = conn->rest_room = 0;
}

/* The leader's round is over: no event names them any more. */
void sml_conn_bury(struct semel_server *server)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(&server->doomed)) != NULL) {
        struct sml_conn *conn = SML_CONTAINER(node, struct sml_conn, all);
        bool mine;

        sml_mutex_lock(conn->lock);
        mine = !conn->pen.held;
        conn->condemned = !mine;
        sml_mutex_unlock(conn->lock);
        if (mine)
            free_conn(conn);
    }
}

void sml_conn_timer(struct sml_conn *conn, uint64_t now)
{
    struct semel_server *server = conn->server;
    bool silent;

    if (conn->linger_until <= now) {
        sml_conn_close(conn);
        return;
    }
    sml_mutex_lock(conn->lock);
    if (conn->retry_at <= now) {
        conn->retry_at = SML_NEVER;
        sml_conn_touch(conn);
    }
    silent = conn->peer.state != SML_PEER_CLOSING;
    if (silent && conn->peer.state != SML_PEER_UP && sml_peer_timeout(&conn->peer) <= now)
        atomic_fetch_add_explicit(&server->totals.handshakes_failed, 1, memory_order_relaxed);
    sml_peer_tick(&conn->peer, now);
    silent = silent && conn->peer.state == SML_PEER_CLOSING;
    if (silent)
        sml_conn_touch(conn);
    rekey(conn);
    sml_mutex_unlock(conn->lock);
    if (silent)
        sml_server_log(server, SEMEL_LOG_WARNING, "%s: closed: %s", conn->info->peer.address,
                       conn->peer.bye_text);
}

/* --- reading ----------------------------------------------------------------------------- */

/* Keep what ends inside a frame: apart, which costs a copy now and another later. */
static bool keep_rest(struct sml_conn *conn, const uint8_t *data, size_t bytes)
{
    if (bytes == 0 || bytes > conn->rest_room) {
        free(conn->rest);
        conn->rest = NULL;
        conn->rest_bytes = conn->rest_room = 0;
    }
    if (bytes == 0)
        return true;
    if (conn->rest == NULL) {
        conn->rest = malloc(bytes);
        if (conn->rest == NULL)
            return false;
        conn->rest_room = bytes;
    }
    memmove(conn->rest, data, bytes);
    conn->rest_bytes = bytes;
    return true;
}

/* The connection goes on in the block that the leader has read into, the leader in another. */
static bool keep_block(struct sml_conn *conn)
{
    struct semel_server *server = conn->server;
    struct sml_intake fresh;

    if (!sml_intake_open(&fresh, server->reads))
        return false;
    conn->in = server->in;
    server->in = fresh;
    sml_intake_settle(&conn->in);
    return true;
}

/* What was read is done with, but for what ends inside a frame. */
static bool keep(struct sml_conn *conn, struct sml_intake *in)
{
    size_t size = sml_intake_size(in);
    bool kept = true;

    if (in == &conn->in && size > 0) {
        sml_intake_settle(in);
        return true;
    }
    if (in == &conn->in) {
        sml_intake_close(in);
        return true;
    }
    if (size >= SML_REST_BYTES && keep_block(conn))
        return keep_rest(conn, NULL, 0);
    kept = keep_rest(conn, sml_intake_data(in), size);
    in->from = in->end;
    sml_intake_settle(in);
    return kept;
}

static void report_closing(struct sml_conn *conn)
{
    struct semel_server *server = conn->server;
    char escaped[2 * SML_BYE_TEXT_BYTES];
    struct sml_text text;

    sml_text_init(&text, escaped, sizeof escaped);
    sml_text_add_escaped(&text, conn->peer.bye_text, strlen(conn->peer.bye_text));
    if (conn->peer.bye_received)
        sml_server_log(server, SEMEL_LOG_INFO, "%s: the client said BYE: %s: %s",
                       conn->info->peer.address, sml_bye_name(conn->peer.bye), escaped);
    else
        sml_server_log(server, SEMEL_LOG_WARNING, "%s: closed: %s: %s", conn->info->peer.address,
                       sml_bye_name(conn->peer.bye), escaped);
}

static void count_closing(struct sml_conn *conn)
{
    struct sml_server_totals *totals = &conn->server->totals;
    enum sml_bye_code code = conn->peer.bye;

    if (conn->peer.bye_received)
        return;
    if (conn->served == NULL)
        atomic_fetch_add_explicit(&totals->handshakes_failed, 1, memory_order_relaxed);
    if (code == SML_BYE_PROTOCOL || code == SML_BYE_VERSION || code == SML_BYE_FALSE_RETRY)
        atomic_fetch_add_explicit(&totals->protocol_errors, 1, memory_order_relaxed);
}

/* One step of the peer machine. Returns its event; the session's calls are collected. */
static enum sml_peer_event step(struct sml_conn *conn, struct sml_intake *in,
                                struct sml_hello *out_hello, uint64_t now)
{
    struct sml_sleepers sleepers = { 0 };
    enum sml_peer_event event;
    size_t used;

    sml_mutex_lock(conn->lock);
    if (conn->served)
        conn->served->session->callee.backing = &in->block->backing;
    event = sml_peer_input(&conn->peer, sml_intake_data(in), sml_intake_size(in), &used, out_hello,
                           now);
    if (conn->served && event != SML_PEER_ENDED)
        sml_served_collect(conn->served, now, &sleepers);
    if (sml_peer_wants_write(&conn->peer) || conn->peer.state == SML_PEER_CLOSING)
        sml_conn_touch(conn);
    sml_mutex_unlock(conn->lock);
    sml_sleepers_wake(&sleepers);
    in->from += used;
    return event;
}

static void feed(struct sml_conn *conn, struct sml_intake *in)
{
    uint64_t now = sml_clock_now();
    struct sml_hello hello;
    enum sml_peer_event event;

    while ((event = step(conn, in, &hello, now)) == SML_PEER_HELLO) {
        sml_conn_greet(conn, &hello, now);
        rekey(conn);
    }
    if (conn->peer.state == SML_PEER_CLOSING) {
        count_closing(conn);
        report_closing(conn);
        in->from = in->end;
        (void)keep(conn, in);
        if (event == SML_PEER_ENDED && conn->served)
            sml_served_end(conn->served);
        return;
    }
    if (!keep(conn, in)) {
        sml_server_log(conn->server, SEMEL_LOG_ERROR, "%s: no memory to read, closed",
                       conn->info->peer.address);
        sml_conn_close(conn);
    }
}

void sml_conn_readable(struct sml_conn *conn)
{
    struct semel_server *server = conn->server;
    struct sml_intake *in = conn->in.block ? &conn->in : &server->in;
    bool open = conn->state == SML_CONN_OPEN;
    size_t room, have = conn->rest_bytes;
    struct sml_io io;
    uint8_t *at;

    if (conn->state == SML_CONN_CLOSED)
        return;
    at = sml_intake_room(in, &room);
    if (have > 0)
        memcpy(at, conn->rest, have);
    io = sml_channel_read(&conn->channel, at + have, room - have);
    if (io.kind == SML_IO_AGAIN)
        return;
    if (io.kind != SML_IO_MOVED) {
        lost(conn, io);
        return;
    }
    atomic_fetch_add_explicit(&server->totals.reads, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&server->totals.bytes_in, io.bytes, memory_order_relaxed);
    if (!open || conn->peer.state == SML_PEER_CLOSING)
        return;
    in->end += have + io.bytes;
    server->much_read |= io.bytes >= SML_BURST_BYTES;
    feed(conn, in);
}
