/* SPDX-License-Identifier: MIT */
/* client_reader.c - who reads, who writes, and who must be woken.
 *
 * Problem. A lone blocked caller wants nobody between itself and the socket: a reader thread costs
 * it a cross-core wake, half of its round trip. Many callers, and callbacks, want one reader that
 * stays. So the reader role moves:
 *
 *   armed       the I/O thread watches the connection and reads
 *   not armed   nobody watches; a lone blocked caller takes the role without any system call, and
 *               leaves it free when it has its reply; or an application's loop watches, which
 *               reads when something has come, as long as all calls in flight are its own
 *
 * After a streak of lone calls, or of a loop's, the connection is disarmed. It is armed again by
 * whoever sees calls in flight and nobody reading (sml_client_settle), or by the I/O thread when a
 * tick passed and nobody has read: so a heartbeat or a drain is noticed within two ticks.
 *
 * Invariants, under the lock:
 *  - `reader` != NONE: exactly one thread is, or is about to be, inside the channel's read or uses
 *    the bytes in conn.in;
 *  - a caller takes the role only while not armed, and disarms only while the I/O thread sleeps, so
 *    the two never read together;
 *  - calls in flight, a connection, not closing: armed, or a caller reads, or the loops of all of
 *    them watch, or one is a stream's whose reader read last and comes again (`lent`).
 *
 * Changing the epoll set is a system call under the lock. It happens when the role changes or the
 * socket fills, not per call; done outside, two such changes could swap. */
#include <string.h>

#include "os/clock.h"
#include "os/spawn.h"
#include "os/thread.h"
#include "rpc/client_internal.h"
#include "rpc/client_seam.h"
#include "rpc/stream_wait.h"

/* Lone calls one after another before the connection is disarmed. */
#define STREAK 8

void sml_client_unlock(struct semel_client *client)
{
    struct sml_sleepers sleepers = client->sleepers;
    bool wake = client->wake_wanted;

    client->wake_wanted = false;
    client->sleepers.count = 0;
    sml_mutex_unlock(&client->lock);
    sml_sleepers_wake(&sleepers);
    if (wake)
        sml_wake_signal(&client->wake);
    sml_returns_run(&client->returns);
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
        client->in_flight > (conn->lent ? 1 : 0) && client->in_flight > conn->looped) {
        conn->armed = true;
        conn->lent = false;
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
    if (client->wake_wanted || client->sleepers.count > 0 || sml_returns_any(&client->returns)) {
        sml_client_unlock(client);
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
        sml_client_unlock(client);
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
        conn->in.end += io.bytes;
        client->link.caller.backing = &conn->in.block->backing;
        sml_link_input(&client->link, sml_intake_data(&conn->in), sml_intake_size(&conn->in),
                       &conn->in_used, client->now);
    } else {
        bool mid_frame = sml_intake_size(&conn->in) > 0 || sml_pen_unsent(&client->pen);

        sml_link_closed(&client->link, sml_io_status(io), mid_frame, client->now);
        conn->closing = true;
    }
    /* Whoever is told of an end must find the state that explains it. */
    publish_state(client);
}

void sml_client_release_reader(struct semel_client *client)
{
    struct sml_client_conn *conn = &client->conn;

    conn->in.from += conn->in_used;
    conn->in_used = 0;
    sml_intake_settle(&conn->in);
    conn->reader = SML_READER_NONE;
}

void sml_client_recall(struct semel_client *client)
{
    client->conn.lent = false;
    sml_client_settle(client);
}

/* --- the borrowed role ------------------------------------------------------------------ */

static bool readable_by_caller(const struct semel_client *client)
{
    const struct sml_client_conn *conn = &client->conn;

    return conn->open && !conn->closing && !conn->broken && !conn->armed &&
           conn->reader == SML_READER_NONE && client->link.state == SML_LINK_UP;
}

static bool has_happened(const struct sml_awaited *awaited)
{
    return atomic_load_explicit(awaited->word, memory_order_acquire) != awaited->seen;
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

bool sml_client_may_borrow(struct semel_client *client, const struct sml_awaited *awaited)
{
    struct sml_client_conn *conn = &client->conn;

    if (client->in_flight != 1) {
        conn->streak = 0;
        return false;
    }
    if (has_happened(awaited) || awaited->call->phase != SML_CALL_SENT || client->pen.blocked ||
        client->pen.held || client->link.state != SML_LINK_UP)
        return false;
    if (conn->armed && ++conn->streak >= STREAK && client->asleep_until != 0)
        disarm(client);
    return readable_by_caller(client);
}

struct sml_io sml_client_look(struct sml_client_conn *conn, uint8_t *at, size_t room)
{
    uint64_t until = sml_clock_now() + SML_LOOK_NS;
    struct sml_io io;

    while ((io = sml_channel_read(&conn->channel, at, room)).kind == SML_IO_AGAIN &&
           sml_clock_now() < until)
        sml_thread_yield();
    return io;
}

/* The reader's: the next bytes, when they come. After many it looks a moment before it sleeps. */
static struct sml_io read_patiently(struct semel_client *client, uint8_t *at, size_t room,
                                    uint64_t until)
{
    struct sml_client_conn *conn = &client->conn;
    struct sml_io io = { 0, SML_IO_AGAIN, 0 };

    if (conn->much_read)
        io = sml_client_look(conn, at, room);
    if (io.kind == SML_IO_AGAIN)
        io = sml_channel_read_wait(&conn->channel, at, room, until);
    conn->much_read = io.kind == SML_IO_MOVED && io.bytes >= SML_BURST_BYTES;
    return io;
}

/* What was read reaches its consumers, while the buffer still holds it. Lock released meanwhile. */
static void deliver_borrowed(struct semel_client *client)
{
    struct sml_batch batch;
    struct sml_list ready;

    sml_batch_init(&batch);
    sml_list_init(&ready);
    sml_client_streams(client);
    sml_client_collect(client, &batch);
    sml_client_take_anywhere(client, &ready);
    sml_client_settle(client); /* what is left is the I/O thread's */
    if (batch.count == 0 && sml_list_empty(&ready))
        return;
    sml_client_unlock(client);
    sml_client_run_ready(&ready);
    sml_client_deliver(client, &batch, SML_ELSEWHERE);
    sml_mutex_lock(&client->lock);
}

/* Read once, at most until `until` (0: do not wait). Lock released meanwhile. False: nothing
 * came. */
static bool read_borrowed(struct semel_client *client, uint64_t until)
{
    struct sml_client_conn *conn = &client->conn;
    struct sml_io io;
    uint8_t *at;
    size_t room;

    conn->reader = SML_READER_CALLER;
    conn->borrowed++;
    sml_client_unlock(client);
    at = sml_intake_room(&conn->in, &room);
    io = until == 0 ? sml_channel_read(&conn->channel, at, room)
                    : read_patiently(client, at, room, until);
    sml_mutex_lock(&client->lock);
    sml_client_input(client, io);
    deliver_borrowed(client);
    sml_client_release_reader(client);
    if (io.kind == SML_IO_AGAIN)
        return false;
    if (!sml_pen_unsent(&client->pen) && sml_link_wants_write(&client->link, client->now))
        sml_client_write(client, false);
    return true;
}

void sml_client_borrow(struct semel_client *client, const struct sml_awaited *awaited)
{
    bool more = true;

    while (more && !has_happened(awaited) && client->in_flight > 0 && readable_by_caller(client))
        more = read_borrowed(client, awaited->until);
}

/* --- a loop's part ----------------------------------------------------------------------- */

/* Also while another thread has the role: that gives it back. */
static bool is_left_to_loops(const struct semel_client *client)
{
    const struct sml_client_conn *conn = &client->conn;

    return conn->open && !conn->closing && !conn->broken && !conn->armed &&
           client->in_flight == conn->looped && client->link.state == SML_LINK_UP;
}

bool sml_client_lend_to_loop(struct semel_client *client)
{
    struct sml_client_conn *conn = &client->conn;

    conn->looped++;
    if (client->in_flight != conn->looped || client->link.state != SML_LINK_UP)
        conn->streak = 0;
    else if (conn->armed && ++conn->streak >= STREAK && client->asleep_until != 0)
        disarm(client);
    if (is_left_to_loops(client))
        return true;
    conn->looped--;
    return false;
}

int sml_client_loop_fd(struct semel_client *client)
{
    int fd;

    sml_mutex_lock(&client->lock);
    fd =
        client->conn.open && !client->conn.closing ? sml_fd_copy(client->conn.channel.fd_read) : -1;
    sml_mutex_unlock(&client->lock);
    return fd;
}

bool sml_client_read_on_loop(struct semel_client *client)
{
    bool ours;

    sml_mutex_lock(&client->lock);
    client->inside++;
    if (is_left_to_loops(client) && client->conn.reader == SML_READER_NONE)
        (void)read_borrowed(client, 0);
    ours = is_left_to_loops(client);
    sml_client_leave(client);
    return ours;
}
