/* SPDX-License-Identifier: MIT */
/* client_io.c - the client's own thread: connects and closes, reads when no caller does, keeps the
 * time, runs callbacks.
 *
 * One round: tick what is due; carry out what the machine asks for; tell what changed; deliver what
 * is finished; write what the callbacks started, in one go; look for more, if much was read; sleep;
 * read. The lock is held from the first to the last step and released for each system call and each
 * callback.
 *
 * The connection is opened and closed here only, so that no other thread meets a descriptor that
 * was given to somebody else: `closing` lets nobody in, a shutdown makes those who are inside
 * leave, and the last one out wakes this thread. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "os/clock.h"
#include "rpc/client_internal.h"

#define EVENTS_MAX 8
#define LINGER (200 * SML_MS)
#define LAST_WORDS (20 * SML_MS) /* for what is to be said before closing */
#define HOLDER_YIELDS 100

/* --- telling ---------------------------------------------------------------------------- */

void sml_client_reason(const struct semel_client *client, const char *why, struct sml_text *text)
{
    const char *peer = sml_client_peer(client);
    size_t bytes = strlen(peer);

    if (strncmp(why, peer, bytes) != 0 || why[bytes] != ':') {
        sml_text_add(text, peer);
        sml_text_add(text, ": ");
    }
    if (client->link.state == SML_LINK_UP)
        sml_text_add(text, "connected");
    else if (*why)
        sml_text_add_escaped(text, why, strlen(why));
    else
        sml_text_add(text, "no answer yet");
}

/* One thing to say: to the log, to on_state, or to both. */
struct news {
    enum semel_client_state state;
    enum semel_status status;
    enum semel_log_level level;
    const char *head; /* for the log; NULL: nothing */
    bool changed;     /* for on_state */
    char reason[SML_REASON_BYTES + SML_BYE_TEXT_BYTES];
};

static void write_head(struct news *news, bool lost, bool again)
{
    news->level = SEMEL_LOG_INFO;
    switch (news->state) {
    case SEMEL_CLIENT_CONNECTED:
        news->head = again ? "connection regained: " : "connected: ";
        break;
    case SEMEL_CLIENT_FAILED:
        news->level = SEMEL_LOG_ERROR;
        news->head = "connection failed for good: ";
        break;
    case SEMEL_CLIENT_STOPPED:
        news->head = NULL;
        break;
    default:
        news->level = SEMEL_LOG_WARNING;
        news->head = lost ? "connection lost: " : "cannot connect: ";
        break;
    }
}

/* What is to be said next. False: nothing. A failure is said even if a stop came right after it. */
static bool next_news(struct semel_client *client, struct news *news)
{
    uint64_t lost = client->link.counters.lost;
    bool broke = lost != client->told_lost, tried;
    const char *why = client->link.why_text;
    struct sml_text text;

    news->state = atomic_load_explicit(&client->state, memory_order_relaxed);
    news->status = news->state == SEMEL_CLIENT_CONNECTED ? SEMEL_OK : client->link.why;
    if (client->failure_untold) {
        client->failure_untold = false;
        news->state = SEMEL_CLIENT_FAILED;
        news->status = client->failure;
        why = client->failure_text;
    }
    tried = news->status != SEMEL_OK && client->link.attempts > 0;
    news->changed = news->state != client->told;
    if (!news->changed && !broke && (!tried || client->told_attempt))
        return false;
    client->told = news->state;
    client->told_lost = lost;
    client->told_attempt = tried;
    sml_text_init(&text, news->reason, sizeof news->reason);
    if (news->status == SEMEL_OK)
        sml_text_add(&text, sml_client_peer(client));
    else
        sml_client_reason(client, why, &text);
    write_head(news, broke, client->link.counters.connects > 1);
    return true;
}

/* The log and on_state hear of what changed since the last time. Releases the lock. */
static void tell(struct semel_client *client)
{
    char line[SML_REASON_BYTES + 2 * SML_BYE_TEXT_BYTES];
    struct sml_text text;
    struct news news;

    while (next_news(client, &news)) {
        sml_client_unlock(client);
        if (client->options.log && news.head) {
            sml_text_init(&text, line, sizeof line);
            sml_text_add(&text, news.head);
            sml_text_add(&text, news.reason);
            client->options.log(news.level, line, client->options.log_user);
        }
        if (news.changed && client->options.on_state)
            client->options.on_state(client, news.state, news.status, news.reason,
                                     client->options.state_user);
        sml_mutex_lock(&client->lock);
    }
}

/* --- closing ---------------------------------------------------------------------------- */

/* Close when nobody is inside any more; whoever leaves last wakes us. */
static void finish_close(struct semel_client *client)
{
    struct sml_client_conn *conn = &client->conn;
    struct sml_channel channel;

    if (conn->reader != SML_READER_NONE || !sml_pen_stop(&client->pen))
        return;
    if (conn->watched_read)
        sml_epoll_remove(&client->epoll, conn->channel.fd_read);
    if (conn->watched_write)
        sml_epoll_remove(&client->epoll, conn->channel.fd_write);
    client->counters.writes += client->pen.writes;
    client->counters.bytes_sent += client->pen.bytes;
    client->pen.writes = client->pen.bytes = 0;
    sml_channel_move(&channel, &conn->channel);
    conn->watched_read = conn->watched_write = 0;
    conn->in.from = conn->in.end;
    conn->in_used = 0;
    sml_intake_settle(&conn->in);
    conn->open = conn->closing = conn->broken = conn->armed = false;
    sml_client_unlock(client);
    sml_channel_close(&channel);
    sml_mutex_lock(&client->lock);
}

static void stop_connecting(struct semel_client *client)
{
    if (client->connect_fd >= 0)
        sml_epoll_remove(&client->epoll, client->connect_fd);
    client->connect_fd = -1;
    if (client->connecting)
        sml_connect_close(&client->connect);
    client->connecting = false;
    if (client->resolve)
        client->resolve->abandoned = true;
}

/* Give way to the thread that holds the pen. It is inside a write that does not block, but may have
 * lost its core. */
static void give_way(struct semel_client *client, int times)
{
    if (times > HOLDER_YIELDS) {
        (void)sml_cond_wait_until(&client->changed, &client->lock, sml_clock_now() + SML_MS);
        return;
    }
    sml_client_unlock(client);
    sml_thread_yield();
    sml_mutex_lock(&client->lock);
}

/* What is to be said before closing (BYE) leaves, if its way becomes free within LAST_WORDS.
 * Without it the server keeps the session until its idle limit. */
static void say_last(struct semel_client *client)
{
    struct sml_client_conn *conn = &client->conn;
    struct sml_pen *pen = &client->pen;
    uint64_t until = sml_clock_now() + LAST_WORDS;

    for (int times = 0; !conn->broken && !conn->closing && !pen->broken; times++) {
        if (!pen->held && !sml_pen_unsent(pen) && !sml_link_wants_write(&client->link, client->now))
            return;
        if (times > 0 && sml_clock_now() >= until)
            return;
        if (pen->held) {
            give_way(client, times);
        } else if (pen->blocked) {
            sml_client_unlock(client);
            sml_channel_wait_writable(&conn->channel, -1, until);
            sml_mutex_lock(&client->lock);
            sml_client_writable(client);
        } else {
            sml_client_write(client, false);
        }
    }
}

/* The machine wants the connection closed. */
static void hang_up(struct semel_client *client)
{
    stop_connecting(client);
    if (!client->conn.open)
        return;
    say_last(client);
    client->conn.closing = true;
    sml_channel_shutdown(&client->conn.channel);
    finish_close(client);
}

/* A write failed. What the peer sent before is read first, then the end. A socket that is shut
 * down gives both; of two descriptors the one for input must be left open for a while. */
static void end_broken(struct semel_client *client)
{
    struct sml_client_conn *conn = &client->conn;

    if (conn->channel.fd_read == conn->channel.fd_write)
        sml_channel_shutdown(&conn->channel);
    else
        conn->shut_at = sml_time_add(client->now, LINGER);
    conn->broken = false;
    if (conn->reader == SML_READER_NONE)
        conn->armed = true;
    sml_client_watch(client);
    /* It cannot even be watched: read no more. */
    if (conn->armed && !conn->watched_read) {
        sml_link_closed(&client->link, SEMEL_LINK_LOST, sml_intake_size(&conn->in) > 0,
                        client->now);
        conn->closing = true;
    }
}

/* The time for what was still to be read is over. A caller that reads notices the shutdown; of a
 * pipe's the epoll set says nothing. */
static void end_reading(struct semel_client *client)
{
    struct sml_client_conn *conn = &client->conn;

    conn->shut_at = SML_NEVER;
    sml_channel_shutdown(&conn->channel);
    if (conn->closing || conn->reader != SML_READER_NONE ||
        sml_channel_tells_pollers(&conn->channel))
        return;
    sml_link_closed(&client->link,
                    client->pen.broken ? sml_io_status(client->pen.error) : SEMEL_LINK_LOST,
                    sml_intake_size(&conn->in) > 0, client->now);
    conn->closing = true;
}

/* --- connecting ------------------------------------------------------------------------- */

static void connected(struct semel_client *client)
{
    struct sml_client_conn *conn = &client->conn;

    sml_connect_take(&client->connect, &conn->channel);
    sml_connect_close(&client->connect);
    client->connecting = false;
    conn->open = conn->armed = true;
    conn->closing = conn->broken = false;
    conn->reader = SML_READER_NONE;
    conn->streak = 0;
    conn->lent = false;
    conn->shut_at = SML_NEVER;
    sml_pen_open(&client->pen, &conn->channel);
    sml_client_watch(client);
    client->now = sml_clock_now();
    sml_link_connected(&client->link, client->now);
}

static enum semel_status link_status(enum semel_status status)
{
    switch (status) {
    case SEMEL_PEER_DIED:
    case SEMEL_LINK_LOST:
    case SEMEL_DENIED:
        return status;
    default:
        return SEMEL_CONNECT;
    }
}

/* Look at the attempt under way: done, failed, or to be watched. */
static void advance(struct semel_client *client)
{
    enum sml_connect_state state = sml_connect_step(&client->connect, client->now);
    int fd = state == SML_CONNECT_PENDING ? sml_connect_fd(&client->connect) : -1;

    if (client->connect_fd >= 0)
        sml_epoll_remove(&client->epoll, client->connect_fd);
    client->connect_fd = -1;
    if (state == SML_CONNECT_DONE) {
        connected(client);
    } else if (state == SML_CONNECT_FAILED) {
        client->connecting = false;
        sml_link_connect_failed(&client->link, link_status(client->connect.status),
                                client->connect.reason.text, client->now);
        sml_connect_close(&client->connect);
    } else if (sml_epoll_add(&client->epoll, fd, SML_POLL_OUT, SML_TAG_CONNECT) == SEMEL_OK) {
        client->connect_fd = fd;
    }
}

static bool is_name(const struct sml_address *address)
{
    return address->kind == SML_ADDRESS_TCP && !strchr(address->host, ':') &&
           strspn(address->host, "0123456789.") != strlen(address->host);
}

static void look_up(void *arg)
{
    struct sml_client_resolve *resolve = arg;

    sml_connect_start(&resolve->connect, resolve->address, resolve->deadline);
    atomic_store_explicit(&resolve->done, true, memory_order_release);
    sml_wake_signal(resolve->wake);
}

/* Have a name looked up by a thread of its own. */
static void start_lookup(struct semel_client *client, struct sml_address *address,
                         uint64_t deadline)
{
    struct sml_client_resolve *resolve;
    const char *fault = "an earlier look-up still runs";

    if (!client->resolve) {
        resolve = calloc(1, sizeof *resolve);
        fault = "no memory or no thread for a look-up";
        if (resolve) {
            resolve->wake = &client->wake;
            resolve->address = address;
            resolve->deadline = deadline;
            if (sml_thread_create(&resolve->thread, "semel-lookup", 0, look_up, resolve) ==
                SEMEL_OK) {
                client->resolve = resolve;
                return;
            }
            free(resolve);
        }
    }
    sml_link_connect_failed(&client->link, SEMEL_CONNECT, fault, client->now);
}

static void finish_lookup(struct semel_client *client)
{
    struct sml_client_resolve *resolve = client->resolve;

    if (!resolve || !atomic_load_explicit(&resolve->done, memory_order_acquire))
        return;
    client->resolve = NULL;
    sml_thread_join(&resolve->thread);
    if (resolve->abandoned) {
        sml_connect_close(&resolve->connect);
    } else {
        client->connect = resolve->connect;
        client->connecting = true;
        advance(client);
    }
    free(resolve);
}

static void start_connecting(struct semel_client *client, uint32_t index)
{
    struct sml_address *address = &client->addresses.list[index];
    uint64_t deadline = sml_time_add(client->now, (uint64_t)client->options.connect_ms * SML_MS);

    SML_ASSERT(!client->conn.open);
    client->conn.address = index;
    if (is_name(address)) {
        start_lookup(client, address, deadline);
        return;
    }
    if (!client->connecting) { /* descriptors were adopted at creation */
        sml_client_unlock(client);
        sml_connect_start(&client->connect, address, deadline);
        sml_mutex_lock(&client->lock);
        client->connecting = true;
    }
    advance(client);
}

/* --- the round -------------------------------------------------------------------------- */

/* What the machine wants done, and what is under way. */
static void carry_out(struct semel_client *client)
{
    struct sml_link_action action;

    if (client->conn.open && client->conn.broken && !client->conn.closing)
        end_broken(client);
    if (client->conn.open && client->conn.shut_at <= client->now)
        end_reading(client);
    if (client->conn.closing)
        finish_close(client);
    finish_lookup(client);
    if (client->link.state == SML_LINK_STOPPED || client->link.state == SML_LINK_FAILED)
        stop_connecting(client);
    if (client->connecting && client->now >= sml_connect_timeout(&client->connect))
        advance(client);
    while (!client->conn.closing) {
        action = sml_link_next_action(&client->link);
        if (action.kind == SML_LINK_NONE)
            break;
        if (action.kind == SML_LINK_CLOSE)
            hang_up(client);
        else if (action.kind == SML_LINK_SAVE)
            sml_client_outbox_save(client);
        else if (client->conn.open)
            break; /* cannot be: the machine closes one before it opens another */
        else
            start_connecting(client, action.address);
    }
}

/* Collected and posted completions reach their consumers. */
static void deliver_all(struct semel_client *client)
{
    struct sml_batch batch;
    struct sml_list posted, ready;

    sml_batch_init(&batch);
    sml_list_init(&posted);
    sml_list_init(&ready);
    sml_client_streams(client);
    sml_client_collect(client, &batch);
    sml_list_move_all(&posted, &client->posted);
    sml_list_move_all(&ready, &client->ready);
    if (batch.count == 0 && sml_list_empty(&posted) && sml_list_empty(&ready))
        return;
    sml_client_unlock(client);
    sml_client_run_ready(&ready);
    sml_client_deliver(client, &batch, SML_ON_IO);
    sml_client_run_posted(&posted);
    sml_mutex_lock(&client->lock);
}

static bool something_to_do(const struct semel_client *client)
{
    const struct sml_client_conn *conn = &client->conn;

    return client->link.close_wanted || client->link.save_wanted ||
           (client->link.connect_wanted && !conn->closing) ||
           !sml_list_empty(&client->link.caller.done) || !sml_list_empty(&client->posted) ||
           !sml_list_empty(&client->ready) || !sml_list_empty(&client->link.caller.events) ||
           (conn->open && !conn->closing && conn->broken) ||
           (conn->closing && conn->reader == SML_READER_NONE && !client->pen.held) ||
           (conn->open && !conn->closing && !client->pen.held && !client->pen.blocked &&
            !client->pen.broken && sml_link_wants_write(&client->link, client->now)) ||
           client->told != atomic_load_explicit(&client->state, memory_order_relaxed) ||
           client->failure_untold || client->told_lost != client->link.counters.lost;
}

/* Nobody reads for a tick although nobody watches either: watch. */
static void tick_reader(struct semel_client *client)
{
    struct sml_client_conn *conn = &client->conn;

    if (!conn->open || conn->closing || conn->armed)
        return;
    if (conn->reader == SML_READER_NONE && conn->borrowed == conn->borrowed_seen) {
        conn->armed = true;
        conn->lent = false;
        sml_client_watch(client);
    }
    conn->borrowed_seen = conn->borrowed;
}

/* When to look again at the latest; 0: at once. */
static uint64_t sleep_until(struct semel_client *client)
{
    uint64_t until = sml_link_timeout(&client->link);

    if (something_to_do(client))
        return 0;
    /* After a tick only an acknowledgement can be overdue: the channel is full, or its writer is
     * about to take it along. */
    if (until <= client->now)
        until = client->now + SML_CLIENT_TICK;
    if (client->connecting)
        until = sml_time_min(until, sml_connect_timeout(&client->connect));
    if (client->conn.open && !client->conn.closing && !client->conn.armed)
        until = sml_time_min(until, client->now + SML_CLIENT_TICK);
    if (client->conn.open)
        until = sml_time_min(until, client->conn.shut_at);
    /* Calls that come later with the same span as those before must not wake us each. */
    until = sml_time_min(until, sml_time_add(client->now, client->span_min));
    client->span_min = SML_NEVER;
    return until;
}

static bool may_read(const struct semel_client *client)
{
    const struct sml_client_conn *conn = &client->conn;

    return conn->open && !conn->closing && conn->armed && conn->reader == SML_READER_NONE;
}

/* Read once, and deliver before the buffer is used again. `looks`: for a moment. Was it much? */
static bool read_once(struct semel_client *client, bool looks)
{
    struct sml_client_conn *conn = &client->conn;
    struct sml_io io;
    uint8_t *at;
    size_t room;
    bool much;

    conn->reader = SML_READER_IO;
    sml_client_unlock(client);
    at = sml_intake_room(&conn->in, &room);
    io = looks ? sml_client_look(conn, at, room) : sml_channel_read(&conn->channel, at, room);
    conn->much_read = much = io.kind == SML_IO_MOVED && io.bytes >= SML_BURST_BYTES;
    sml_mutex_lock(&client->lock);
    sml_client_input(client, io);
    deliver_all(client);
    sml_client_release_reader(client);
    return much;
}

static void wait_for_events(struct semel_client *client)
{
    struct epoll_event events[EVENTS_MAX];
    int count;

    if (may_read(client) && client->conn.much_read && !client->pen.blocked &&
        read_once(client, true))
        return;
    client->asleep_until = sleep_until(client);
    sml_client_unlock(client);
    count = sml_epoll_wait(&client->epoll, events, EVENTS_MAX, client->asleep_until);
    sml_mutex_lock(&client->lock);
    client->asleep_until = 0;
    client->now = sml_clock_now();
    for (int i = 0; i < count; i++) {
        switch (events[i].data.u64) {
        case SML_TAG_WAKE:
            sml_wake_drain(&client->wake);
            break;
        case SML_TAG_CONNECT:
            if (client->connecting)
                advance(client);
            break;
        default:
            if (events[i].events & (SML_POLL_OUT | SML_POLL_ERROR))
                sml_client_writable(client);
            if (events[i].data.u64 == SML_TAG_READ && (events[i].events & ~SML_POLL_OUT) &&
                may_read(client))
                (void)read_once(client, false);
            break;
        }
    }
}

/* Everything is closed and delivered, and the thread is to leave. */
static bool finished(const struct semel_client *client)
{
    return client->exit && !client->conn.open && !client->connecting && !client->resolve &&
           client->inside == 0 && !something_to_do(client);
}

void sml_client_io_main(void *arg)
{
    struct semel_client *client = arg;

    atomic_store_explicit(&client->io_id, sml_thread_self().value, memory_order_relaxed);
    sml_mutex_lock(&client->lock);
    while (!finished(client)) {
        client->now = sml_clock_now();
        if (sml_link_timeout(&client->link) <= client->now)
            sml_link_tick(&client->link, client->now);
        sml_client_settle(client);
        tell(client);
        tick_reader(client);
        carry_out(client);
        sml_client_settle(client); /* who is told of an end finds the state that explains it */
        deliver_all(client);
        sml_client_write(client, client->blocking > 0);
        sml_client_settle(client);
        client->wake_wanted = false; /* that is us */
        if (!finished(client))
            wait_for_events(client);
    }
    sml_mutex_unlock(&client->lock);
}
