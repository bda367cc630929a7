/* SPDX-License-Identifier: MIT */
/* net.c - connections as two pipes of bytes. See sim.h.
 *
 * A pipe keeps order, as TCP and sockets do; all else may go wrong with it. Bytes lie in one
 * buffer: consumed, delivered to the reader but part of an unfinished frame, written and under
 * way. One delivery event is pending while bytes are under way. A pipe that is `dead` swallows
 * what is written, as a socket does whose other end is gone and has not said so.
 *
 * The two ends close on their own: after the client has closed, what it wrote may be delivered to
 * the server for a long time, also while a newer connection of the same client is up. */
#include "durable.h"

#include <stdlib.h>
#include <string.h>

#define PIPE_SLACK 4096u
#define PIPE_BYTES ((256u << 10) + PIPE_SLACK)

/* Buffers are kept over all runs: they are large, and touching fresh ones costs page faults. */
static struct sml_list spare = { &spare, &spare };

uint64_t sim_latency(struct sim_world *world)
{
    return sim_between(&world->net, world->params.latency_low, world->params.latency_high);
}

/* ---- delivery ------------------------------------------------------------------------------ */

static void pipe_soon(struct sim_world *world, struct sim_pipe *pipe)
{
    uint64_t when = world->now + sim_latency(world);

    if (pipe->deliver.node.in_heap)
        return;
    if (pipe->stalled_until > when)
        when = pipe->stalled_until;
    if (when != SML_NEVER)
        sim_at(world, &pipe->deliver, when);
}

static void pipe_clear(struct sim_world *world, struct sim_pipe *pipe)
{
    pipe->read = pipe->avail = pipe->end = 0;
    sim_off(world, &pipe->deliver);
}

static size_t pipe_room(struct sim_pipe *pipe)
{
    size_t used = pipe->end - pipe->read;

    if (pipe->read && pipe->end + SML_FRAME_BYTES_MAX > PIPE_BYTES - PIPE_SLACK) {
        memmove(pipe->buffer, pipe->buffer + pipe->read, used);
        pipe->avail -= pipe->read;
        pipe->end = used;
        pipe->read = 0;
    }
    return used >= pipe->capacity
               ? 0
               : sml_time_min(pipe->capacity - used, PIPE_BYTES - PIPE_SLACK - pipe->end);
}

static void reader_ended(struct sim_world *world, struct sim_pipe *pipe)
{
    struct sim_conn *conn = pipe->conn;
    bool mid_frame = pipe->avail > pipe->read;

    if (pipe->upward) {
        if (conn->server)
            sim_server_ended(world, conn);
        return;
    }
    if (conn->client) {
        struct sim_client *client = conn->client;

        sim_conn_close_client(world, conn);
        sim_client_ended(world, client,
                         sim_chance(&world->net, 4) ? SEMEL_LINK_LOST : SEMEL_PEER_DIED, mid_frame);
    } else if (conn->owner) {
        sim_hostile_gone(world, conn);
    }
}

static void reader_input(struct sim_world *world, struct sim_pipe *pipe)
{
    struct sim_conn *conn = pipe->conn;

    if (pipe->upward && conn->server)
        sim_server_input(world, conn->server, conn);
    else if (!pipe->upward && conn->client)
        sim_client_input(world, conn->client, pipe);
    else
        pipe->read = pipe->avail;
}

static void pipe_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_pipe *pipe = SML_CONTAINER(event, struct sim_pipe, deliver);
    size_t bytes = pipe->end - pipe->avail;

    if (pipe->stalled_until > world->now) {
        if (pipe->stalled_until != SML_NEVER)
            sim_at(world, event, pipe->stalled_until);
        return;
    }
    if (pipe->split && bytes) {
        pipe->split--;
        bytes =
            sml_time_min(bytes, sim_between(&world->net, 1, sim_chance(&world->net, 4) ? 64 : 2));
    }
    if (pipe->rate && bytes > pipe->rate)
        bytes = pipe->rate;
    pipe->avail += bytes;
    world->stats->bytes += bytes;
    sim_note(world, bytes << 1 | pipe->upward);
    if (bytes)
        reader_input(world, pipe);
    if (pipe->read == pipe->end)
        pipe->read = pipe->avail = pipe->end = 0;
    if (pipe->avail < pipe->end)
        pipe_soon(world, pipe);
    else if (pipe->eof)
        reader_ended(world, pipe);
    if (pipe->full && pipe_room(pipe) >= SML_FRAME_BYTES_MAX) {
        pipe->full = false;
        if (pipe->upward && pipe->conn->client)
            sim_client_pump(world, pipe->conn->client);
        else if (!pipe->upward && pipe->conn->server)
            sim_server_settle(world, pipe->conn);
    }
}

/* ---- writing ------------------------------------------------------------------------------- */

static size_t pull(struct sim_world *world, struct sim_pipe *pipe, uint8_t *out, size_t room)
{
    struct sim_conn *conn = pipe->conn;

    return pipe->upward ? sml_link_pull(&conn->client->link, out, room, world->now)
                        : sml_peer_pull(&conn->peer, out, room, world->now);
}

static bool wants_write(const struct sim_world *world, const struct sim_pipe *pipe)
{
    return pipe->upward ? sml_link_wants_write(&pipe->conn->client->link, world->now)
                        : sml_peer_wants_write(&pipe->conn->peer);
}

/* Pull once with memory of exactly the room that is promised. */
static size_t pull_exact(struct sim_world *world, struct sim_pipe *pipe, uint8_t *out, size_t room)
{
    uint8_t *exact;
    size_t bytes;

    room = SML_FRAME_BYTES_MAX + sim_below(&world->net, room - SML_FRAME_BYTES_MAX + 1);
    exact = malloc(room);
    SML_ASSERT(exact);
    bytes = pull(world, pipe, exact, room);
    SML_ASSERT(bytes <= room);
    memcpy(out, exact, bytes);
    free(exact);
    return bytes;
}

/* A cut inside one of the frames just written. */
static void cut_mid_frame(struct sim_world *world, struct sim_pipe *pipe)
{
    struct sim_conn *conn = pipe->conn;

    conn->up.cut_mid = conn->down.cut_mid = false;
    sim_conn_cut(world, conn, true);
}

static void pipe_fill(struct sim_world *world, struct sim_pipe *pipe)
{
    size_t begin = pipe->end;

    for (;;) {
        size_t room = pipe->dead ? 2 * SML_FRAME_BYTES_MAX : pipe_room(pipe);
        uint8_t *out = pipe->dead ? world->scratch : pipe->buffer + pipe->end;
        bool wanted = wants_write(world, pipe);
        size_t bytes;

        if (!wanted && sim_below(&world->net, 16))
            break;
        if (room < SML_FRAME_BYTES_MAX) {
            if (wanted) {
                pipe->full = true;
                sim_mark(world, SIM_MARK_PIPE_FULL);
            }
            break;
        }
        bytes =
            world->params.exact ? pull_exact(world, pipe, out, room) : pull(world, pipe, out, room);
        /* A writer may find that what it wanted to write has come to its end meanwhile. */
        if (wanted != (bytes != 0) && wants_write(world, pipe))
            sim_fail(world, "%s says it %s to write, but gives %zu bytes",
                     pipe->upward ? "a client" : "a server", wanted ? "wants" : "does not want",
                     bytes);
        if (!bytes)
            break;
        if (world->durable)
            sim_watch_written(world, pipe, out, bytes);
        sim_trace_written(world, pipe, out, bytes);
        if (!pipe->dead)
            pipe->end += bytes;
        if (begin > pipe->end)
            begin = pipe->read; /* the buffer was moved together */
    }
    if (pipe->dead || pipe->end == begin)
        return;
    if (pipe->conn->client) {
        if (pipe->upward && pipe->conn->client->duplicates_due)
            sim_faults_duplicate(world, pipe->conn->client, pipe, begin);
        if (pipe->conn->client->dirty)
            sim_hostile_tamper(world, pipe->conn->client, pipe, begin);
    }
    pipe_soon(world, pipe);
    if (pipe->cut_mid)
        cut_mid_frame(world, pipe);
}

void sim_conn_flush_client(struct sim_world *world, struct sim_conn *conn)
{
    if (conn->client && conn->connected)
        pipe_fill(world, &conn->up);
}

void sim_conn_flush_server(struct sim_world *world, struct sim_conn *conn)
{
    if (conn->server && !conn->server->dying)
        pipe_fill(world, &conn->down);
}

void sim_pipe_write(struct sim_world *world, struct sim_pipe *pipe, const uint8_t *data,
                    size_t bytes)
{
    if (pipe->dead || pipe_room(pipe) < bytes)
        return;
    memcpy(pipe->buffer + pipe->end, data, bytes);
    pipe->end += bytes;
    pipe_soon(world, pipe);
}

/* ---- opening and closing ------------------------------------------------------------------- */

static void recycle(struct sim_world *world, struct sim_conn *conn)
{
    sim_off(world, &conn->connect);
    sim_off(world, &conn->kill);
    sim_off(world, &conn->peer_timer);
    pipe_clear(world, &conn->up);
    pipe_clear(world, &conn->down);
    sml_list_remove(&conn->all);
    sml_list_push_back(&world->free_conns, &conn->all);
}

/* Nobody holds an end any more. Not at once: somebody up the stack may be looking at it. */
void sim_conn_reap(struct sim_world *world, struct sim_conn *conn)
{
    if (!conn->client && !conn->server && !conn->owner)
        sim_at(world, &conn->kill, world->now);
}

static void kill_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_conn *conn = SML_CONTAINER(event, struct sim_conn, kill);

    if (!conn->client && !conn->server && !conn->owner)
        recycle(world, conn);
    else
        sim_conn_cut(world, conn, false);
}

static void connect_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_conn *conn = SML_CONTAINER(event, struct sim_conn, connect);
    struct sim_client *client = conn->client;
    struct sim_server *server = &world->servers[conn->address % world->params.servers];

    if (!client)
        return;
    if (client->silent_connects && world->phase == SIM_LOAD) {
        client->silent_connects--;
        world->stats->faults[SIM_SILENT_CONNECT]++;
        return;
    }
    if (!server->up || (server->commit && server->stopping) ||
        (client->refuse_connects && world->phase == SIM_LOAD)) {
        enum semel_status why =
            server->up && sim_chance(&world->net, 2) ? SEMEL_CONNECT : SEMEL_PEER_DIED;
        if (server->up && !(server->commit && server->stopping)) {
            client->refuse_connects--;
            world->stats->faults[SIM_REFUSED_CONNECT]++;
        }
        sim_conn_close_client(world, conn);
        sim_client_connect_failed(world, client, why);
        return;
    }
    if (client->late_hello) {
        client->late_hello = false;
        world->stats->faults[SIM_LATE_HELLO]++;
        conn->up.stalled_until =
            world->now + world->params.link.handshake + sim_below(&world->net, 3 * SML_SECOND);
    }
    conn->connected = true;
    sim_server_accept(world, server, conn);
    sim_client_connected(world, client);
}

static void peer_timer_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_conn *conn = SML_CONTAINER(event, struct sim_conn, peer_timer);

    if (!conn->server)
        return;
    if (sml_peer_timeout(&conn->peer) <= world->now) {
        sml_peer_tick(&conn->peer, world->now);
        if (conn->peer.state == SML_PEER_CLOSING && !conn->peer.session && !conn->loser)
            sim_mark(world, SIM_MARK_HANDSHAKE_TIMEOUT);
        else if (conn->peer.state == SML_PEER_CLOSING && conn->peer.bye == SML_BYE_SILENT)
            sim_mark(world, SIM_MARK_SERVER_SILENCE);
        if (sml_peer_timeout(&conn->peer) <= world->now)
            sim_fail(world, "a peer's timer stays due after its tick");
    }
    sim_server_settle(world, conn);
}

static void pipe_init(struct sim_world *world, struct sim_conn *conn, struct sim_pipe *pipe,
                      bool upward)
{
    uint8_t *buffer = pipe->buffer;

    memset(pipe, 0, sizeof *pipe);
    pipe->buffer = buffer ? buffer : malloc(PIPE_BYTES);
    SML_ASSERT(pipe->buffer);
    pipe->capacity = world->params.pipe_bytes;
    pipe->upward = upward;
    pipe->conn = conn;
    sim_event_init(&pipe->deliver, pipe_fire);
}

struct sim_conn *sim_conn_new(struct sim_world *world, uint32_t address)
{
    struct sml_list *node = sml_list_pop_front(&world->free_conns);
    struct sim_conn *conn;

    if (!node)
        node = sml_list_pop_front(&spare);
    conn = node ? SML_CONTAINER(node, struct sim_conn, all) : calloc(1, sizeof *conn);
    SML_ASSERT(conn);
    pipe_init(world, conn, &conn->up, true);
    pipe_init(world, conn, &conn->down, false);
    sim_event_init(&conn->connect, connect_fire);
    sim_event_init(&conn->kill, kill_fire);
    sim_event_init(&conn->peer_timer, peer_timer_fire);
    conn->client = NULL;
    conn->server = NULL;
    conn->owner = NULL;
    conn->address = address;
    conn->number = ++world->conn_count;
    conn->connected = conn->faulty = conn->states_seen = conn->loser = false;
    sml_list_init(&conn->all);
    sml_list_push_back(&world->conns, &conn->all);
    return conn;
}

void sim_conn_open(struct sim_world *world, struct sim_client *client, uint32_t address)
{
    struct sim_conn *conn = sim_conn_new(world, address);

    conn->client = client;
    conn->client_index = client->index;
    client->conn = conn;
    sim_say(world, "client %u connects to %u: connection %u", client->index, address, conn->number);
    sim_at(world, &conn->connect, world->now + sim_latency(world));
}

void sim_conn_close_client(struct sim_world *world, struct sim_conn *conn)
{
    struct sim_pipe *up = &conn->up;

    if (conn->client && conn->client->conn == conn)
        conn->client->conn = NULL;
    conn->client = NULL;
    conn->owner = NULL;
    sim_off(world, &conn->connect);
    conn->down.dead = true;
    pipe_clear(world, &conn->down);
    up->dead = true;
    if (conn->server && !up->untold) {
        if (up->stalled_until == SML_NEVER)
            up->stalled_until = world->now + sim_below(&world->net, 10 * SML_SECOND);
        up->eof = true;
        pipe_soon(world, up);
    }
    sim_conn_reap(world, conn);
}

void sim_conn_close_server(struct sim_world *world, struct sim_conn *conn)
{
    struct sim_pipe *down = &conn->down;

    conn->server = NULL;
    sim_off(world, &conn->peer_timer);
    conn->up.dead = true;
    pipe_clear(world, &conn->up);
    down->dead = true;
    if (conn->client || conn->owner) {
        if (down->untold || down->stalled_until == SML_NEVER)
            sim_by(world, &conn->kill, world->now + 100 * SML_SECOND);
        else
            down->eof = true;
        pipe_soon(world, down);
    }
    sim_conn_reap(world, conn);
}

/* ---- what goes wrong ----------------------------------------------------------------------- */

/* A place inside a frame that is still under way; 0 if there is none. */
static size_t inside_a_frame(struct sim_world *world, const struct sim_pipe *pipe)
{
    size_t at = pipe->read, found = 0;
    uint32_t seen = 0;

    while (at + SML_HEADER_BYTES <= pipe->end && seen < 64) {
        const uint8_t *head = pipe->buffer + at;
        size_t bytes = SML_HEADER_BYTES + (head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 |
                                           (size_t)head[3] << 24);
        size_t low = at + 1 > pipe->avail ? at + 1 : pipe->avail;
        size_t high = at + bytes - 1 < pipe->end ? at + bytes - 1 : pipe->end;

        if (low <= high && sim_below(&world->faults, ++seen) == 0)
            found = sim_between(&world->faults, low, high);
        at += bytes;
    }
    return found;
}

static void truncate_pipe(struct sim_world *world, struct sim_pipe *pipe, bool mid_frame)
{
    size_t at = mid_frame ? inside_a_frame(world, pipe) : 0;

    if (!at)
        at = pipe->avail + sim_below(&world->faults, pipe->end - pipe->avail + 1);
    pipe->end = at;
    pipe->stalled_until = 0;
    pipe->untold = false;
    pipe->eof = true;
    pipe->dead = true;
    sim_off(world, &pipe->deliver);
    pipe_soon(world, pipe);
}

bool sim_conn_cut(struct sim_world *world, struct sim_conn *conn, bool mid_frame)
{
    sim_say(world, "connection %u is cut", conn->number);
    sim_off(world, &conn->kill);
    truncate_pipe(world, &conn->up, mid_frame);
    truncate_pipe(world, &conn->down, mid_frame);
    return true;
}

/* One end learns that the connection is gone, the other does not. */
void sim_conn_half_open(struct sim_world *world, struct sim_conn *conn, bool client_learns,
                        uint64_t until)
{
    struct sim_pipe *told = client_learns ? &conn->down : &conn->up;
    struct sim_pipe *untold = client_learns ? &conn->up : &conn->down;

    sim_say(world, "connection %u half-open, the %s learns of it", conn->number,
            client_learns ? "client" : "server");
    conn->faulty = true;
    truncate_pipe(world, told, false);
    untold->dead = untold->untold = true;
    sim_by(world, &conn->kill, until);
}

void sim_conn_stall(struct sim_world *world, struct sim_pipe *pipe, uint64_t until)
{
    sim_say(world, "connection %u is silent %s", pipe->conn->number,
            pipe->upward ? "upwards" : "downwards");
    pipe->stalled_until = until;
    sim_off(world, &pipe->deliver);
    if (until != SML_NEVER && (pipe->avail < pipe->end || pipe->eof))
        sim_at(world, &pipe->deliver, until);
}

void sim_conn_heal(struct sim_world *world, struct sim_conn *conn)
{
    (void)world;
    conn->up.rate = conn->down.rate = 0;
    conn->up.split = conn->down.split = 0;
    conn->up.cut_mid = conn->down.cut_mid = false;
}

void sim_net_fini(struct sim_world *world)
{
    while (!sml_list_empty(&world->conns))
        recycle(world, SML_CONTAINER(world->conns.next, struct sim_conn, all));
    sml_list_move_all(&spare, &world->free_conns);
}
