/* SPDX-License-Identifier: MIT */
/* client_reader.c - who reads, who writes, and who must be woken.
 *
 * Problem. A lone blocked caller wants nobody between itself and the socket: a reader thread costs
 * it a cross-core wake, half of its round trip. Many callers, and callbacks, want one reader that
 * stays. So the reader role moves:
 *
 *   armed       the I/O thread watches the connection and reads
 *   not armed   nobody watches; a lone blocked caller takes the role without any system call, and
 *               leaves it free when it has its reply
 *
 * After a streak of lone calls the connection is disarmed. It is armed again by whoever sees calls
 * in flight and nobody reading (sml_client_settle), or by the I/O thread when a tick passed and
 * nobody has read: so a heartbeat or a drain is noticed within two ticks.
 *
 * Invariants, under the lock:
 *  - `reader` != NONE: exactly one thread is, or is about to be, inside the channel's read or uses
 *    the bytes in conn.in;
 *  - a caller takes the role only while not armed, and disarms only while the I/O thread sleeps, so
 *    the two never read together;
 *  - calls in flight, a connection, not closing: armed, or a caller reads.
 *
 * Changing the epoll set is a system call under the lock. It happens when the role changes or the
 * socket fills, not per call; done outside, two such changes could swap. */
#include <string.h>

#include "os/clock.h"
#include "rpc/client_internal.h"

/* Lone calls one after another before the connection is disarmed. */
#define STREAK 8

static void unlock(struct semel_client *client)
{
    bool wake = client->wake_wanted;

    client->wake_wanted = false;
    sml_mutex_unlock(&client->lock);
    if (wake)
        sml_wake_signal(&client->wake);
}

void sml_client_unlock(struct semel_client *client)
{
    unlock(client);
}

/* --- the epoll set ---------------------------------------------------------------------- */

static void watch_one(struct semel_client *client, int fd, uint32_t *watched, uint32_t events,
                      uint64_t tag)
{
    if (*watched == events)
        return;
    if (events == 0) {
        sml_epoll_remove(&client->epoll, fd);
    } else if (*watched != 0) {
        sml_epoll_modify(&client->epoll, fd, events, tag);
    } else if (sml_epoll_add(&client->epoll, fd, events, tag) != SEMEL_OK) {
        /* Without watching it nothing would ever be noticed: treat it as a broken connection. */
        client->conn.broken = true;
        client->wake_wanted = true;
        return;
    }
    *watched = events;
}

void sml_client_watch(struct semel_client *client)
{
    struct sml_client_conn *conn = &client->conn;
    uint32_t in = conn->armed ? SML_POLL_IN : 0, out = client->pen.blocked ? SML_POLL_OUT : 0;

    if (!conn->open || conn->closing)
        return;
    if (conn->channel.fd_read == conn->channel.fd_write) {
        watch_one(client, conn->channel.fd_read, &conn->watched_read, in | out, SML_TAG_READ);
        return;
    }
    watch_one(client, conn->channel.fd_read, &conn->watched_read, in, SML_TAG_READ);
    watch_one(client, conn->channel.fd_write, &conn->watched_write, out, SML_TAG_WRITE);
}

/* --- writing ---------------------------------------------------------------------------- */

static void after_pen(struct semel_client *client, enum sml_pen_end end)
{
    switch (end) {
    case SML_PEN_BROKEN:
        client->conn.broken = true;
        client->wake_wanted = true;
        break;
    case SML_PEN_MORE:
    case SML_PEN_STARVED: /* cannot be: its buffer is its own */
    case SML_PEN_STOPPED:
        client->wake_wanted = true;
        break;
    case SML_PEN_FULL:
    case SML_PEN_CLEAR:
        sml_client_watch(client);
        break;
    case SML_PEN_TAKEN:
    case SML_PEN_CLOSED:
        break;
    }
}

void sml_client_write(struct semel_client *client, bool others)
{
    if (client->conn.open && !client->conn.closing)
        after_pen(client, sml_pen_write(&client->pen, others));
}

void sml_client_writable(struct semel_client *client)
{
    if (client->conn.open && client->pen.blocked)
        after_pen(client, sml_pen_writable(&client->pen));
}

/* --- the state and the I/O thread's sleep ------------------------------------------------ */

static enum semel_client_state state_of(const struct sml_link *link)
{
    switch (link->state) {
    case SML_LINK_UP:
        return SEMEL_CLIENT_CONNECTED;
    case SML_LINK_FAILED:
        return SEMEL_CLIENT_FAILED;
    case SML_LINK_STOPPED:
        return SEMEL_CLIENT_STOPPED;
    default:
        return link->counters.connects ? SEMEL_CLIENT_RECONNECTING : SEMEL_CLIENT_CONNECTING;
    }
}

static void publish_state(struct semel_client *client)
{
    uint32_t state = state_of(&client->link);

    if (state == atomic_load_explicit(&client->state, memory_order_relaxed))
        return;
    atomic_store_explicit(&client->state, state, memory_order_release);
    if (state == SEMEL_CLIENT_FAILED) {
        client->failure_untold = true;
        client->failure = client->link.why;
        memcpy(client->failure_text, client->link.why_text, sizeof client->failure_text);
    }
    if (client->outbox && (state == SEMEL_CLIENT_FAILED || state == SEMEL_CLIENT_STOPPED))
        sml_client_outbox_wake(client);
    sml_cond_broadcast(&client->changed);
    client->wake_wanted = true;
}

void sml_client_settle(struct semel_client *client)
{
    struct sml_client_conn *conn = &client->conn;

    publish_state(client);
    if (conn->open && !conn->closing && !conn->armed && conn->reader == SML_READER_NONE &&
        client->in_flight > 0) {
        conn->armed = true;
        sml_client_watch(client);
    }
    /* Awake, it looks at everything before it sleeps. */
    if (client->asleep_until == 0)
        return;
    if (!sml_list_empty(&client->ready) || !sml_list_empty(&client->link.caller.events) ||
        client->link.close_wanted || client->link.connect_wanted || client->link.save_wanted ||
        conn->broken || !sml_list_empty(&client->link.caller.done) ||
        (conn->closing && conn->reader == SML_READER_NONE && !client->pen.held) ||
        sml_link_timeout(&client->link) < client->asleep_until)
        client->wake_wanted = true;
}

void sml_client_leave(struct semel_client *client)
{
    sml_client_settle(client);
    if (client->wake_wanted) {
        unlock(client);
        sml_mutex_lock(&client->lock);
    }
    if (--client->inside == 0 && client->exit)
        sml_cond_broadcast(&client->changed);
    sml_mutex_unlock(&client->lock);
}

void sml_client_leave_with_done(struct semel_client *client)
{
    struct sml_batch batch;

    sml_batch_init(&batch);
    sml_client_collect(client, &batch);
    if (batch.count) {
        sml_client_settle(client);
        unlock(client);
        sml_client_deliver(client, &batch, SML_ELSEWHERE);
        sml_mutex_lock(&client->lock);
    }
    sml_client_leave(client);
}

/* --- reading ---------------------------------------------------------------------------- */

void sml_client_input(struct semel_client *client, struct sml_io io)
{
    struct sml_client_conn *conn = &client->conn;

    client->now = sml_clock_now();
    if (conn->closing || io.kind == SML_IO_AGAIN)
        return;
    if (io.kind == SML_IO_MOVED) {
        client->counters.reads++;
        client->counters.bytes_received += io.bytes;
        conn->in_have += io.bytes;
        sml_link_input(&client->link, conn->in, conn->in_have, &conn->in_used, client->now);
    } else {
        bool mid_frame = conn->in_have > 0 || sml_pen_unsent(&client->pen) > 0;

        sml_link_closed(&client->link, sml_io_status(io), mid_frame, client->now);
        conn->closing = true;
    }
    /* Whoever is told of an end must find the state that explains it. */
    publish_state(client);
}

void sml_client_release_reader(struct semel_client *client)
{
    struct sml_client_conn *conn = &client->conn;

    conn->in_have -= conn->in_used;
    if (conn->in_have > 0 && conn->in_used > 0)
        memmove(conn->in, conn->in + conn->in_used, conn->in_have);
    conn->in_used = 0;
    conn->reader = SML_READER_NONE;
}

/* --- the borrowed role ------------------------------------------------------------------ */

static bool readable_by_caller(const struct semel_client *client)
{
    const struct sml_client_conn *conn = &client->conn;

    return conn->open && !conn->closing && !conn->broken && !conn->armed &&
           conn->reader == SML_READER_NONE && client->link.state == SML_LINK_UP;
}

static bool is_done(const struct sml_blocking *blocking)
{
    return atomic_load_explicit(&blocking->word, memory_order_acquire) == 1;
}

/* The I/O thread stops watching, so that lone callers can read. It is asleep, and must look again
 * within a tick. */
static void disarm(struct semel_client *client)
{
    client->conn.armed = false;
    client->conn.streak = 0;
    sml_client_watch(client);
    if (client->asleep_until > sml_time_add(client->now, SML_CLIENT_TICK))
        client->wake_wanted = true;
}

bool sml_client_may_borrow(struct semel_client *client, const struct sml_blocking *blocking)
{
    struct sml_client_conn *conn = &client->conn;

    if (client->in_flight != 1) {
        conn->streak = 0;
        return false;
    }
    if (is_done(blocking) || blocking->record.call.phase != SML_CALL_SENT || client->pen.blocked ||
        client->pen.held || client->link.state != SML_LINK_UP)
        return false;
    if (conn->armed && ++conn->streak >= STREAK && client->asleep_until != 0)
        disarm(client);
    return readable_by_caller(client);
}

void sml_client_borrow(struct semel_client *client, struct sml_blocking *blocking)
{
    struct sml_client_conn *conn = &client->conn;
    struct sml_batch batch;
    struct sml_io io;

    sml_batch_init(&batch);
    while (!is_done(blocking) && client->in_flight > 0 && readable_by_caller(client)) {
        conn->reader = SML_READER_CALLER;
        conn->borrowed++;
        unlock(client);
        io = sml_channel_read_wait(&conn->channel, conn->in + conn->in_have,
                                   SML_CLIENT_READ_BYTES - conn->in_have,
                                   blocking->record.call.deadline);
        sml_mutex_lock(&client->lock);
        sml_client_input(client, io);
        sml_client_collect(client, &batch);
        if (batch.count) {
            unlock(client);
            sml_client_deliver(client, &batch, SML_ELSEWHERE);
            sml_mutex_lock(&client->lock);
        }
        sml_client_release_reader(client);
        if (io.kind == SML_IO_AGAIN)
            return;
        if (sml_pen_unsent(&client->pen) == 0 && sml_link_wants_write(&client->link, client->now))
            sml_client_write(client, false);
    }
}
