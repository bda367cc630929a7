/* SPDX-License-Identifier: MIT */
/* router_conn.c - the router's connections: a server's machines, driven by the loop's thread.
 *
 * A sender is a client that makes one call, SML_PIPE_METHOD, and sends items. Here is a shell for
 * the same host, peer and callee machines as a server's, without threads and without locks: a
 * connection is read, its machine fed, and what is new goes to the pipes; what is to be said
 * (WELCOME, credits, replies) is written at the end of the turn. A connection that ends takes its
 * session with it: a worker that is gone does not come back. If a newer connection took the session
 * over, it has the inlets, too. */
#include <semel/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "io/leftover.h"
#include "os/clock.h"
#include "os/directory.h"
#include "os/process.h"
#include "proc/router_internal.h"

#define PREFIX "semel-router-"
#define EVENTS_MAX 64
#define OUT_BYTES SML_FRAME_BYTES_MAX
#define LISTENER_MARK UINT64_C(1)
/* Of one process. What would have to wait for a place would wait for good: senders stay. */
#define SENDERS_MAX SEMEL_WINDOW_CALLS_MAX
/* So long a connection may say nothing if others wait for its place. */
#define SILENCE SML_SECOND
/* Senders that write without end are left for the next turn after so many reads. */
#define READS_MAX 16

/* --- ends ---------------------------------------------------------------------------------- */

void sml_inlet_took(struct sml_inlet *inlet)
{
    sml_callee_took_parts(&inlet->conn->peer.session->callee, inlet->in);
    inlet->conn->touched = true;
}

void sml_inlet_end(struct sml_inlet *inlet, enum semel_status status)
{
    struct sml_router_conn *conn = inlet->conn;
    struct sml_verdict verdict = { .outcome = SEMEL_VALUE };

    if (status != SEMEL_OK) {
        verdict.outcome = SEMEL_UNKNOWN; /* what was sent may have been delivered */
        verdict.status = status;
        verdict.text = semel_bytes_text(semel_status_text(status));
    }
    if (inlet->receiver)
        inlet->receiver->inlet = NULL;
    sml_list_remove(&inlet->link);
    (void)sml_callee_finish(&conn->peer.session->callee, inlet->in, &verdict, NULL);
    free(inlet);
    conn->touched = true;
}

/* Everything that came whole has arrived; the session is over. */
static void end_session(struct sml_router_conn *conn)
{
    struct semel_router *router = conn->router;
    struct sml_session *session = conn->peer.session;
    struct sml_list *node;

    if (session == NULL)
        return;
    while ((node = conn->inlets.next) != &conn->inlets) {
        struct sml_inlet *inlet = SML_CONTAINER(node, struct sml_inlet, link);
        struct semel_receiver *receiver = inlet->receiver;

        /* Its receiver keeps what it has not seen yet. */
        if (receiver) {
            sml_receiver_keep_parts(receiver);
            if (!sml_list_linked(&receiver->waiting))
                sml_list_push_back(&router->waiting, &receiver->waiting);
        }
        sml_inlet_end(inlet, SEMEL_PEER_DIED);
    }
    sml_host_end(&router->host, session);
    SML_ASSERT(sml_session_is_over(session));
    sml_session_free(&router->host, session);
}

static void end_pause(struct semel_router *router)
{
    router->paused_until = 0;
    sml_router_disarm(router, &router->pause);
}

static void close_conn(struct sml_router_conn *conn)
{
    struct semel_router *router = conn->router;

    end_session(conn);
    end_pause(router); /* there is room again */
    if (conn->watch)
        (void)semel_watch_remove(conn->watch);
    else
        sml_epoll_remove(&router->epoll, conn->channel.fd_read);
    sml_peer_fini(&conn->peer);
    sml_channel_close(&conn->channel);
    sml_list_remove(&conn->all);
    router->conn_count--;
    sml_router_look_aside(router); /* its other socket has ended, too */
    free(conn->rest);
    free(conn->out);
    free(conn);
}

/* --- what comes in ------------------------------------------------------------------------- */

/* A call: a sender opens its pipe. */
static void begin(struct sml_router_conn *conn, struct sml_incoming *in, uint64_t now)
{
    struct sml_callee *callee = &conn->peer.session->callee;
    struct semel_router *router = conn->router;
    struct semel_receiver *receiver = NULL;
    struct sml_inlet *inlet;

    if (strcmp(in->method, SML_PIPE_METHOD) == 0 && in->stream && in->stream->takes)
        receiver = sml_router_admit(router, semel_bytes(in->body, (size_t)in->body_bytes));
    if (receiver == NULL) {
        router->counters.refused++;
        sml_router_log(router, SEMEL_LOG_WARNING, "%s: a sender of no pipe was refused",
                       conn->channel.peer);
        sml_callee_reject(callee, in, SEMEL_DENIED, "no such pipe");
        return;
    }
    inlet = calloc(1, sizeof *inlet);
    if (inlet == NULL) {
        sml_callee_reject(callee, in, SEMEL_NO_MEMORY, "no memory for a sender");
        return;
    }
    if (!sml_callee_begin(callee, in, 0, now)) {
        free(inlet);
        return;
    }
    inlet->conn = conn;
    inlet->in = in;
    inlet->receiver = receiver;
    inlet->id = receiver->id;
    receiver->inlet = inlet;
    receiver->had_sender = true;
    sml_list_push_back(&conn->inlets, &inlet->link);
    in->user = inlet;
    sml_router_arrived(inlet);
}

/* What the machine has for the router. */
static void collect(struct sml_router_conn *conn, uint64_t now)
{
    struct sml_session *session = conn->peer.session;
    struct sml_incoming *in;

    if (session == NULL)
        return;
    while ((in = sml_callee_take(&session->callee)) != NULL)
        begin(conn, in, now);
    while ((in = sml_callee_next_event(&session->callee)) != NULL)
        if (in->user)
            sml_router_arrived(in->user);
    while ((in = sml_callee_next_cancelled(&session->callee)) != NULL)
        continue; /* a sender that gives up sends no more; its end is seen with its connection */
    while (sml_callee_next_receipt(&session->callee) != NULL)
        continue;
}

/* The session is conn's now, and so are the inlets of its calls. */
static void take_over(struct sml_router_conn *conn, struct sml_router_conn *loser)
{
    struct sml_list *inlets = &loser->inlets;

    for (struct sml_list *node = inlets->next; node != inlets; node = node->next)
        SML_CONTAINER(node, struct sml_inlet, link)->conn = conn;
    sml_list_move_all(&conn->inlets, inlets);
    loser->touched = loser->dead = true; /* it is told why */
}

static void on_hello(struct sml_router_conn *conn, const struct sml_hello *hello, uint64_t now)
{
    struct sml_peer *loser = NULL;

    sml_host_hello(&conn->router->host, &conn->peer, hello, &loser, now);
    if (loser)
        take_over(conn, SML_CONTAINER(loser, struct sml_router_conn, peer));
}

/* Returns the bytes consumed: all of them, if nothing that follows is heard any more. */
static size_t feed(struct sml_router_conn *conn, const uint8_t *data, size_t size)
{
    uint64_t now = sml_clock_now();
    enum sml_peer_event event = SML_PEER_HELLO;
    struct sml_hello hello;
    size_t at = 0, used;

    while (event == SML_PEER_HELLO) {
        event = sml_peer_input(&conn->peer, data + at, size - at, &used, &hello, now);
        at += used;
        collect(conn, now);
        if (event == SML_PEER_HELLO)
            on_hello(conn, &hello, now);
    }
    conn->touched = true;
    if (event == SML_PEER_ENDED) {
        conn->dead = true;
        return size;
    }
    return at;
}

static bool keep_rest(struct sml_router_conn *conn, const uint8_t *data, size_t bytes)
{
    SML_ASSERT(bytes < SML_FRAME_BYTES_MAX); /* it ends inside a frame */
    conn->rest_bytes = bytes;
    if (bytes == 0) {
        free(conn->rest);
        conn->rest = NULL;
        return true;
    }
    if (conn->rest == NULL)
        conn->rest = malloc(SML_FRAME_BYTES_MAX);
    if (conn->rest)
        memcpy(conn->rest, data, bytes);
    return conn->rest != NULL;
}

/* Read once. Returns whether there may be more. */
static bool read_conn(struct sml_router_conn *conn)
{
    uint8_t *buffer = conn->router->read_buffer;
    struct sml_io io;
    size_t have, used;

    if (conn->rest_bytes > 0)
        memcpy(buffer, conn->rest, conn->rest_bytes);
    io = sml_channel_read(&conn->channel, buffer + conn->rest_bytes,
                          SML_ROUTER_READ_BYTES - conn->rest_bytes);
    if (io.kind == SML_IO_AGAIN)
        return false;
    if (io.kind != SML_IO_MOVED) {
        conn->dead = true;
        return false;
    }
    have = conn->rest_bytes + io.bytes;
    used = feed(conn, buffer, have);
    if (!keep_rest(conn, buffer + used, have - used))
        conn->dead = true;
    if (conn->peer.state == SML_PEER_CLOSING && !conn->peer.bye_received) {
        conn->router->counters.refused++;
        sml_router_log(conn->router, SEMEL_LOG_WARNING, "%s: closed: %s", conn->channel.peer,
                       conn->peer.bye_text);
        conn->dead = true;
    }
    return !conn->dead && have == SML_ROUTER_READ_BYTES;
}

/* --- what goes out ------------------------------------------------------------------------- */

static void arm(struct sml_router_conn *conn, bool output)
{
    if (conn->out_armed == output)
        return;
    conn->out_armed = output;
    if (conn->watch) {
        if (semel_watch_change(conn->watch, SEMEL_WATCH_READ | (output ? SEMEL_WATCH_WRITE : 0)) !=
            SEMEL_OK)
            conn->dead = true;
        return;
    }
    sml_epoll_modify(&conn->router->epoll, conn->channel.fd_read,
                     SML_POLL_IN | (output ? SML_POLL_OUT : 0), (uint64_t)(uintptr_t)conn);
}

/* Is anything to be written? If need be, it is taken from the machine. */
static bool fill(struct sml_router_conn *conn)
{
    if (conn->broken)
        return false;
    if (conn->out_at < conn->out_end)
        return true;
    if (!sml_peer_wants_write(&conn->peer))
        return false;
    conn->out_at = 0;
    conn->out_end = sml_peer_pull(&conn->peer, conn->out, OUT_BYTES, sml_clock_now());
    return conn->out_end > 0;
}

static void write_conn(struct sml_router_conn *conn)
{
    struct sml_io io = { .kind = SML_IO_MOVED };

    conn->touched = false;
    while (io.kind == SML_IO_MOVED && fill(conn)) {
        io = sml_channel_write(&conn->channel, conn->out + conn->out_at,
                               conn->out_end - conn->out_at);
        if (io.kind == SML_IO_MOVED)
            conn->out_at += io.bytes;
    }
    conn->broken |= io.kind == SML_IO_BROKEN;
    arm(conn, io.kind == SML_IO_AGAIN);
}

static enum semel_status watch_listener(struct semel_router *router);

void sml_router_flush(struct semel_router *router)
{
    struct sml_list *node, *next;

    for (node = router->conns.next; node != &router->conns; node = next) {
        struct sml_router_conn *conn = SML_CONTAINER(node, struct sml_router_conn, all);

        next = node->next;
        if (conn->touched)
            write_conn(conn);
        if (conn->dead)
            close_conn(conn);
    }
    if (router->conn_count < router->options.connections && router->paused_until == 0)
        (void)watch_listener(router); /* there is room again */
}

/* --- new connections ----------------------------------------------------------------------- */

static void accept_all(struct semel_router *router);

static void on_listener(struct semel_watch *watch, unsigned events, void *user)
{
    struct semel_router *router = user;

    (void)watch;
    (void)events;
    router->busy = true;
    accept_all(router);
    sml_router_turn(router);
}

/* The loop's or, by hand, the router's own. */
static enum semel_status watch(struct semel_router *router, int fd, semel_watch_fn fn, void *user,
                               struct semel_watch **out, uint64_t mark)
{
    if (router->state == SML_ROUTER_ON_LOOP)
        return semel_loop_watch(router->loop, fd, SEMEL_WATCH_READ, fn, user, out);
    *out = NULL;
    return sml_epoll_add(&router->epoll, fd, SML_POLL_IN, mark);
}

static enum semel_status watch_listener(struct semel_router *router)
{
    enum semel_status status;

    if (router->accepting)
        return SEMEL_OK;
    status = watch(router, router->listener.fd, on_listener, router, &router->watch, LISTENER_MARK);
    router->accepting = status == SEMEL_OK;
    return status;
}

static void leave_listener(struct semel_router *router)
{
    if (!router->accepting)
        return;
    router->accepting = false;
    if (router->watch)
        (void)semel_watch_remove(router->watch);
    else
        sml_epoll_remove(&router->epoll, router->listener.fd);
    router->watch = NULL;
}

/* Several reads if it has much to say: but others want their turn. */
static void serve(struct sml_router_conn *conn, bool output)
{
    int reads = 0;

    conn->touched |= output;
    while (read_conn(conn) && ++reads < READS_MAX)
        continue;
}

static void on_conn(struct semel_watch *watched, unsigned events, void *user)
{
    struct sml_router_conn *conn = user;
    struct semel_router *router = conn->router;

    (void)watched;
    router->busy = true;
    serve(conn, (events & SEMEL_WATCH_WRITE) != 0);
    sml_router_turn(router);
}

static void admit(struct semel_router *router, struct sml_channel *channel)
{
    struct sml_router_conn *conn = calloc(1, sizeof *conn);
    struct sml_principal principal = { channel->ids.known, channel->ids.uid, channel->ids.gid };

    if (conn)
        conn->out = malloc(OUT_BYTES);
    if (conn == NULL || conn->out == NULL ||
        watch(router, channel->fd_read, on_conn, conn, &conn->watch, (uint64_t)(uintptr_t)conn) !=
            SEMEL_OK) {
        sml_channel_close(channel);
        if (conn)
            free(conn->out);
        free(conn);
        return;
    }
    conn->router = router;
    conn->silent_until = sml_time_add(sml_clock_now(), SILENCE);
    sml_list_init(&conn->inlets);
    sml_channel_move(&conn->channel, channel);
    sml_peer_init(&conn->peer, &router->host, &principal, sml_clock_now());
    sml_list_push_back(&router->conns, &conn->all);
    router->conn_count++;
}

static void begin_pause(struct semel_router *router, uint64_t until)
{
    router->paused_until = until;
    if (router->state == SML_ROUTER_ON_LOOP)
        sml_router_arm(router, &router->pause, until);
}

/* The one that has said nothing for the longest; NULL: all have. */
static struct sml_router_conn *find_silent(struct semel_router *router)
{
    for (struct sml_list *node = router->conns.next; node != &router->conns; node = node->next) {
        struct sml_router_conn *conn = SML_CONTAINER(node, struct sml_router_conn, all);

        if (conn->peer.state == SML_PEER_NEW && !conn->dead)
            return conn;
    }
    return NULL;
}

/* Nobody else can come in: one that is silent makes room. It may have come just now, and is given
 * the time to speak. */
static void make_room(struct semel_router *router)
{
    struct sml_router_conn *conn = find_silent(router);

    if (conn && sml_clock_now() >= conn->silent_until)
        conn->dead = true;
    else if (conn)
        begin_pause(router, conn->silent_until);
}

static void accept_all(struct semel_router *router)
{
    struct sml_channel channel;
    struct sml_reason reason;
    enum sml_accept accepted = SML_ACCEPT_OK;
    bool any = false;

    while (router->conn_count < router->options.connections) {
        sml_channel_init(&channel);
        accepted = sml_listener_accept(&router->listener, &channel, &reason);
        if (accepted == SML_ACCEPT_OK && channel.ids.known &&
            channel.ids.uid != sml_process_uid()) {
            sml_router_log(router, SEMEL_LOG_WARNING, "%s: another user's, closed", channel.peer);
            sml_channel_close(&channel);
        } else if (accepted == SML_ACCEPT_OK) {
            admit(router, &channel);
            any = true;
        } else if (accepted != SML_ACCEPT_TURNED_AWAY) {
            break;
        }
    }
    /* Those that came just now could not say anything yet; if others wait, the listener calls. */
    if (any || accepted == SML_ACCEPT_NONE)
        return;
    /* Full, or out of descriptors: others wait in the listener until a connection ends, or until it
     * may be otherwise. */
    leave_listener(router);
    make_room(router);
    if (accepted == SML_ACCEPT_PAUSE)
        begin_pause(router, sml_time_add(sml_clock_now(), SML_LISTENER_PAUSE_MS * SML_MS));
}

/* The pause is over. */
static void go_on(struct semel_router *router)
{
    end_pause(router);
    if (router->conn_count >= router->options.connections)
        make_room(router);
}

static void on_pause_over(struct sml_moment *moment)
{
    struct semel_router *router = SML_CONTAINER(moment, struct semel_router, pause);

    go_on(router);
    sml_router_turn(router); /* at its end the listener is watched */
}

bool sml_router_read(struct semel_router *router, uint64_t until)
{
    struct epoll_event events[EVENTS_MAX];
    int count;

    if (router->paused_until)
        until = sml_time_min(until, router->paused_until);
    count = sml_epoll_wait(&router->epoll, events, EVENTS_MAX, until);
    for (int i = 0; i < count; i++) {
        struct sml_router_conn *conn = (struct sml_router_conn *)(uintptr_t)events[i].data.u64;

        if (events[i].data.u64 == LISTENER_MARK)
            accept_all(router);
        else
            serve(conn, (events[i].events & SML_POLL_OUT) != 0);
    }
    if (router->paused_until && sml_clock_now() >= router->paused_until)
        go_on(router);
    sml_router_flush(router);
    return count > 0;
}

void sml_router_leave_loop(struct semel_router *router)
{
    bool accepting = router->accepting;

    leave_listener(router);
    sml_router_disarm(router, &router->pause); /* sml_router_read ends it */
    router->state = SML_ROUTER_BY_HAND;
    if (accepting)
        (void)watch_listener(router);
    for (struct sml_list *node = router->conns.next; node != &router->conns; node = node->next) {
        struct sml_router_conn *conn = SML_CONTAINER(node, struct sml_router_conn, all);
        uint32_t events = SML_POLL_IN | (conn->out_armed ? SML_POLL_OUT : 0);

        (void)semel_watch_remove(conn->watch);
        conn->watch = NULL;
        conn->dead |= sml_epoll_add(&router->epoll, conn->channel.fd_read, events,
                                    (uint64_t)(uintptr_t)conn) != SEMEL_OK;
    }
}

/* --- open and close ------------------------------------------------------------------------ */

static void init_host(struct semel_router *router)
{
    struct sml_entropy entropy = sml_random_entropy(&router->random);
    struct sml_host_options options = {
        .limits = { SENDERS_MAX, 4096, SENDERS_MAX * SML_PIPE_BODY_BYTES },
        .sessions_max = router->options.connections,
        .idle = SML_SECOND,
        .handshake = SML_NEVER,
        .silence = SML_NEVER,
        .features = SML_FEATURE_PARTS,
    };

    sml_host_init(&router->host, &sml_mem_libc, &entropy, &options);
}

static enum semel_status listen_at(struct semel_router *router)
{
    static const char *const sockets[] = { "s", "p", NULL }; /* see router_passed.c for p */
    struct sml_address address;
    char text[SEMEL_ADDRESS_BYTES];
    uint8_t name[8];
    int length;

    sml_random_fill(&router->random, name, sizeof name);
    length = snprintf(router->directory, sizeof router->directory,
                      "%s/" PREFIX "%02x%02x%02x%02x%02x%02x%02x%02x", router->options.directory,
                      name[0], name[1], name[2], name[3], name[4], name[5], name[6], name[7]);
    if (length < 0 || (size_t)length >= sizeof router->directory)
        return SEMEL_BAD_ADDRESS;
    (void)snprintf(text, sizeof text, "unix:%s/s", router->directory);
    if (sml_address_parse(text, &address, NULL) != SEMEL_OK)
        return SEMEL_BAD_ADDRESS;
    /* Routers whose processes were killed leave theirs. */
    sml_leftover_sweep(router->options.directory, PREFIX, sockets, sml_process_uid());
    if (!sml_directory_make(router->directory)) {
        router->directory[0] = '\0';
        return SEMEL_SYSTEM;
    }
    return sml_listener_open(&router->listener, &address, false, NULL);
}

enum semel_status sml_router_open(struct semel_router *router)
{
    enum semel_status status = SEMEL_OK;

    router->listener.fd = -1;
    router->listener.fd_lock = router->listener.fd_spare = -1;
    router->directory[0] = '\0';
    sml_moment_init(&router->pause, on_pause_over);
    init_host(router);
    router->read_buffer = malloc(SML_ROUTER_READ_BYTES);
    if (router->read_buffer == NULL)
        status = SEMEL_NO_MEMORY;
    if (status == SEMEL_OK)
        status = sml_epoll_open(&router->epoll);
    if (status == SEMEL_OK)
        status = listen_at(router);
    if (status == SEMEL_OK)
        status = sml_router_open_sides(router);
    return status == SEMEL_OK ? watch_listener(router) : status;
}

void sml_router_close(struct semel_router *router)
{
    while (!sml_list_empty(&router->conns))
        close_conn(SML_CONTAINER(router->conns.next, struct sml_router_conn, all));
    leave_listener(router);
    end_pause(router);
    sml_epoll_close(&router->epoll);
    if (router->listener.fd >= 0)
        sml_listener_close(&router->listener);
    sml_router_close_sides(router);
    if (router->directory[0])
        sml_directory_remove(router->directory);
    sml_host_fini(&router->host);
    free(router->read_buffer);
    router->read_buffer = NULL;
}
