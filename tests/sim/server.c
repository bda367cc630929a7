/* SPDX-License-Identifier: MIT */
/* server.c - a server program over a struct sml_host: its connections, its sessions, its death.
 * See sim.h; the handlers are in handlers.c.
 *
 * A server incarnation holds all its memory in one arena. Killing it wipes the arena and starts a
 * new host: nothing survives but what is in its store, if it has one. */
#include "durable.h"

#include <stdlib.h>
#include <string.h>

#define TICKS_AT_ONCE_MAX 1000u

static void fill_entropy(void *user, void *out, size_t bytes)
{
    struct sim_world *world = user;
    uint8_t *at = out;

    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)sim_rand(&world->net);
}

static struct sim_conn *conn_of(struct sml_peer *peer)
{
    return SML_CONTAINER(peer, struct sim_conn, peer);
}

/* ---- sessions ------------------------------------------------------------------------------ */

static void session_timer_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_session *info = SML_CONTAINER(event, struct sim_session, timer);
    struct sml_callee *callee = &info->session->callee;
    uint64_t due = sml_callee_timeout(callee);

    if (info->ended)
        return;
    if (due > world->now) {
        sim_by(world, event, due);
        return;
    }
    /* Sometimes the shell is late: what must not happen any more must not need the tick. */
    if (due == world->now && sim_chance(&world->load, 8)) {
        sim_at(world, event, world->now + 1 + sim_below(&world->load, 5 * SML_MS));
        return;
    }
    info->ticks_at_once = info->ticked_at == world->now ? info->ticks_at_once + 1 : 0;
    info->ticked_at = world->now;
    if (info->ticks_at_once > TICKS_AT_ONCE_MAX) {
        sim_fail(world, "session %u spins: its timer stays due", info->serial);
        return;
    }
    sml_callee_tick(callee, world->now);
    sim_server_mark(info->server, info);
    sim_server_pump(world, info->server);
}

struct sim_session *sim_session_new(struct sim_world *world, struct sim_server *server,
                                    struct sml_session *session, uint32_t client)
{
    struct sml_list *node = sml_list_pop_front(&world->free_sessions);
    struct sim_session *info =
        node ? SML_CONTAINER(node, struct sim_session, all) : malloc(sizeof *info);

    SML_ASSERT(info);
    memset(info, 0, sizeof *info);
    info->session = session;
    info->server = server;
    if (world->durable) {
        const struct sim_story *story = sim_story(world, &session->id, client);

        info->serial = story->serial;
        info->client_tag = story->client;
    } else {
        info->serial = ++world->session_serial;
        info->client_tag = client;
    }
    sim_event_init(&info->timer, session_timer_fire);
    sml_list_init(&info->dirty);
    sml_list_init(&info->stalled);
    sml_list_init(&info->commit_link);
    sml_list_push_back(&server->sessions, &info->all);
    session->user = info;
    session->callee.windows = world->params.windows_up;
    sim_say(world, "session %u of client %u begins", info->serial, client);
    return info;
}

static void session_forget(struct sim_world *world, struct sim_session *info)
{
    sim_off(world, &info->timer);
    sml_list_remove(&info->dirty);
    sml_list_remove(&info->commit_link);
    sml_list_remove(&info->all);
    sml_list_push_front(&world->free_sessions, &info->all);
}

static void harvest(struct sim_world *world, const struct sml_callee *callee)
{
    uint64_t *marks = world->stats->marks;

    marks[SIM_MARK_STALE] += callee->counters.stale;
    marks[SIM_MARK_DUPLICATE] += callee->counters.duplicates;
    marks[SIM_MARK_REPLAYED] += callee->counters.replayed;
    marks[SIM_MARK_REATTACHED] += callee->counters.reattached;
    if (callee->counters.false_retries && world->options->mode != SIM_HOSTILE)
        sim_fail(world, "a false retry was seen");
}

/* Gone for the host; freed once no handler holds a call of it any more. */
void sim_session_release(struct sim_world *world, struct sim_session *info)
{
    struct sim_server *server = info->server;

    if (!info->ended || info->told || sml_list_linked(&info->commit_link) ||
        !sml_session_is_over(info->session))
        return;
    if (info->session->callee.bytes_in || info->session->callee.bytes_stored ||
        info->session->callee.table.count)
        sim_fail(world, "ended session %u is not empty", info->serial);
    harvest(world, &info->session->callee);
    sml_session_free(&server->host, info->session);
    session_forget(world, info);
}

static void session_end(struct sim_world *world, struct sim_session *info)
{
    struct sim_server *server = info->server;

    sim_say(world, "session %u ends, %u calls held", info->serial, info->session->callee.held);
    world->clients[info->client_tag].lost_at = world->now;
    if (world->durable)
        world->durable->outboxes[info->client_tag].lost_at = world->now;
    sml_host_end(&info->server->host, info->session);
    info->ended = true;
    sim_off(world, &info->timer);
    sml_list_remove(&info->dirty);
    sim_jobs_cancel(world, info);
    sim_flows_pump(world, info);
    sim_jobs_unstall(info);
    sim_commit_touch(world, info);
    sim_session_release(world, info);
    sim_jobs_run(world, server);
}

void sim_session_check(struct sim_world *world, const struct sim_session *info)
{
    const struct sml_callee *callee = &info->session->callee;
    const struct sml_callee_limits *limits = &callee->limits;
    uint64_t in = 0, stored = 0, overshoot;

    overshoot = (uint64_t)(world->params.workers + 1) * (SIM_BODY_MAX + 20000u);
    if (info->server->store) /* transactions run beside the workers, and what is restored counts */
        overshoot += (uint64_t)limits->window * (SIM_BODY_MAX + 20000u);
    if (callee->table.count > limits->window && !callee->restored)
        sim_fail(world, "session %u: %u calls in a window of %u", info->serial, callee->table.count,
                 limits->window);
    if (callee->bytes_in > limits->session_bytes)
        sim_fail(world, "session %u holds %llu bytes of bodies", info->serial,
                 (unsigned long long)callee->bytes_in);
    if (callee->bytes_stored > limits->session_bytes + overshoot)
        sim_fail(world, "session %u stores %llu bytes of replies", info->serial,
                 (unsigned long long)callee->bytes_stored);
    if (callee->held > 2 * limits->window + 1 + (info->server->store ? SIM_BATCH_CHANGES : 0) ||
        callee->bytes_kept > 3 * limits->session_bytes)
        sim_fail(world, "session %u: %u calls with %llu bytes are held by handlers", info->serial,
                 callee->held, (unsigned long long)callee->bytes_kept);
    if (world->event_count % 64)
        return;
    for (const struct sml_list *node = callee->all.next; node != &callee->all; node = node->next) {
        const struct sml_incoming *call = SML_CONTAINER(node, struct sml_incoming, all);

        in += call->body_counted ? call->body_bytes : 0;
        stored += call->phase == SML_IN_DONE ? call->verdict.body.size : 0;
        if (call->phase == SML_IN_DONE && call->reply_waits)
            sim_mark(world, SIM_MARK_STREAM_HELD);
        if (call->xid > callee->hi)
            sim_fail(world, "session %u: xid %llu above hi", info->serial,
                     (unsigned long long)call->xid);
    }
    if (in > callee->bytes_in || stored > callee->bytes_stored)
        sim_fail(world, "session %u miscounts its bytes: %llu > %llu or %llu > %llu", info->serial,
                 (unsigned long long)in, (unsigned long long)callee->bytes_in,
                 (unsigned long long)stored, (unsigned long long)callee->bytes_stored);
}

void sim_server_mark(struct sim_server *server, struct sim_session *info)
{
    if (!info->ended && !sml_list_linked(&info->dirty))
        sml_list_push_back(&server->dirty, &info->dirty);
}

/* ---- connections --------------------------------------------------------------------------- */

/* No connection is kept longer than its client may be silent. */
static void check_patience(struct sim_world *world, const struct sim_conn *conn)
{
    const struct sml_peer *peer = &conn->peer;
    uint64_t quiet = world->now - conn->heard_at, limit = peer->silence_max;

    if (peer->state == SML_PEER_NEW || peer->state == SML_PEER_LISTING) {
        limit = world->params.host.handshake;
        quiet = world->now - conn->accepted_at;
    }
    if (peer->state != SML_PEER_CLOSING && limit != SML_NEVER && quiet > limit + SML_MS)
        sim_fail(world, "connection %u was kept through %.0f ms of silence, %.0f are the limit",
                 conn->number, (double)quiet / 1e6, (double)limit / 1e6);
}

static void close_server_end(struct sim_world *world, struct sim_conn *conn)
{
    struct sim_server *server = conn->server;
    struct sml_session *session = conn->peer.session;

    sim_say(world, "server %u closes connection %u", server->index, conn->number);
    check_patience(world, conn);
    sml_host_detach(&server->host, &conn->peer, world->now);
    sml_peer_fini(&conn->peer);
    sim_conn_close_server(world, conn);
    if (session)
        sim_server_mark(server, session->user);
    sim_by(world, &server->timer, sml_host_timeout(&server->host));
}

/* Write what there is; close when it is written; come back in time. */
void sim_server_settle(struct sim_world *world, struct sim_conn *conn)
{
    if (!conn->server)
        return;
    sim_conn_flush_server(world, conn);
    if (conn->peer.state == SML_PEER_CLOSING && !sml_peer_wants_write(&conn->peer)) {
        if (conn->peer.bye != 0)
            sim_say(world, "server says BYE on connection %u: %s", conn->number,
                    conn->peer.bye_text);
        close_server_end(world, conn);
        return;
    }
    sim_by(world, &conn->peer_timer, sml_peer_timeout(&conn->peer));
}

void sim_server_ended(struct sim_world *world, struct sim_conn *conn)
{
    struct sim_server *server = conn->server;

    sim_say(world, "server sees the end of connection %u", conn->number);
    close_server_end(world, conn);
    sim_server_pump(world, server);
}

void sim_server_accept(struct sim_world *world, struct sim_server *server, struct sim_conn *conn)
{
    static const struct sml_principal nobody = { false, 0, 0 };
    const struct sml_principal *who = conn->client ? &conn->client->principal : &nobody;

    conn->server = server;
    conn->accepted_at = conn->heard_at = world->now;
    sml_peer_init(&conn->peer, &server->host, who, world->now);
    sim_server_settle(world, conn);
}

/* What is answered to a resume is what is. */
static void check_states(struct sim_world *world, const struct sml_peer *peer)
{
    static const enum sml_call_state said[] = {
        [SML_IN_EXPECTED] = SML_STATE_EXPECTED, [SML_IN_RECEIVING] = SML_STATE_RECEIVING,
        [SML_IN_READY] = SML_STATE_RUNNING,     [SML_IN_TAKEN] = SML_STATE_RUNNING,
        [SML_IN_RUNNING] = SML_STATE_RUNNING,   [SML_IN_DONE] = SML_STATE_DONE,
        [SML_IN_REFUSED] = SML_STATE_REFUSED,   [SML_IN_STARTING] = SML_STATE_RUNNING,
        [SML_IN_STARTED] = SML_STATE_RUNNING,   [SML_IN_UNSTARTING] = SML_STATE_RUNNING,
        [SML_IN_STORING] = SML_STATE_RUNNING,
    };
    const struct sml_callee *callee = &peer->session->callee;

    for (uint32_t i = 0; i < peer->states_count && !callee->dedup_off; i++) {
        const struct sml_incoming *in = sml_table_find(&callee->table, peer->states[i].xid);

        enum sml_call_state expected = in ? said[in->phase] : 0;

        if (expected == SML_STATE_EXPECTED && (in->begun || in->in_doubt))
            expected = SML_STATE_IN_DOUBT;
        if (expected == SML_STATE_DONE && peer->states[i].state == SML_STATE_RUNNING &&
            callee->durable) /* the client has a part of another verdict: it was rolled back */
            expected = SML_STATE_RUNNING;
        if (!in || expected != peer->states[i].state)
            sim_fail(world, "the resume says of xid %llu state %d, but its phase is %d",
                     (unsigned long long)peer->states[i].xid, (int)peer->states[i].state,
                     in ? (int)in->phase : -1);
    }
}

static void note_states(struct sim_world *world, struct sim_conn *conn)
{
    const struct sml_peer *peer = &conn->peer;

    if (conn->states_seen || !peer->states_count || !peer->states)
        return;
    conn->states_seen = true;
    check_states(world, peer);
    for (uint32_t i = 0; i < peer->states_count; i++) {
        const struct sml_listed *listed = &peer->states[i];

        if (listed->state == SML_STATE_EXPECTED)
            sim_mark(world, SIM_MARK_EXPECTED);
        if (listed->state == SML_STATE_IN_DOUBT)
            sim_mark(world, SIM_MARK_IN_DOUBT);
        if (listed->state == SML_STATE_RECEIVING && listed->offset)
            sim_mark(world, SIM_MARK_RESUMED_BODY);
        if (listed->state == SML_STATE_REFUSED)
            sim_mark(world, SIM_MARK_REFUSED_LISTED);
        if (listed->state == SML_STATE_DONE && listed->offset)
            sim_mark(world, SIM_MARK_RESUMED_REPLY);
    }
}

static void hello(struct sim_world *world, struct sim_server *server, struct sim_conn *conn,
                  const struct sml_hello *hello)
{
    struct sml_peer *loser = NULL;
    struct sml_session *session;

    sml_host_hello(&server->host, &conn->peer, hello, &loser, world->now);
    session = conn->peer.session;
    sim_say(world, "HELLO on connection %u: %s, conn_no %llu, next %llu, %u outstanding",
            conn->number, session ? "accepted" : conn->peer.bye_text,
            (unsigned long long)hello->conn_no, (unsigned long long)hello->next, hello->count);
    if (!session && conn->peer.bye == SML_BYE_TAKEN_OVER)
        sim_mark(world, SIM_MARK_LATE_HELLO_REFUSED);
    if (!session && conn->peer.bye == SML_BYE_DENIED)
        sim_mark(world, SIM_MARK_THEFT_REFUSED);
    if (!session && conn->peer.bye == SML_BYE_SESSION_LOST)
        sim_mark(world, SIM_MARK_SESSION_LOST);
    if (loser) {
        conn_of(loser)->loser = true;
        sim_mark(world, SIM_MARK_TAKEOVER);
        sim_server_settle(world, conn_of(loser));
    }
    if (session)
        sim_trace_hello(world, hello);
    if (session && !session->user)
        sim_session_new(world, server, session, conn->client_index);
    if (session)
        sim_commit_touch(world, session->user);
}

static size_t feed(struct sim_world *world, struct sim_conn *conn, enum sml_peer_event *out_event,
                   struct sml_hello *out_hello)
{
    const uint8_t *data = conn->up.buffer + conn->up.read;
    size_t size = conn->up.avail - conn->up.read, used = 0;
    uint8_t *exact = NULL;
    bool live;

    if (world->params.exact) {
        exact = malloc(size + !size);
        SML_ASSERT(exact);
        data = memcpy(exact, data, size);
    }
    conn->heard_at = world->now;
    live = conn->peer.state != SML_PEER_CLOSING;
    *out_event = sml_peer_input(&conn->peer, data, size, &used, out_hello, world->now);
    if (live)
        sim_trace_read(world, data, used);
    free(exact);
    if (used > size)
        sim_fail(world, "a peer consumed %zu of %zu bytes", used, size);
    return used;
}

void sim_server_input(struct sim_world *world, struct sim_server *server, struct sim_conn *conn)
{
    enum sml_peer_event event;
    struct sml_hello message;

    do {
        conn->up.read += feed(world, conn, &event, &message);
        if (event == SML_PEER_HELLO)
            hello(world, server, conn, &message);
    } while (event == SML_PEER_HELLO && !world->failed);
    note_states(world, conn);
    if (event == SML_PEER_ENDED) {
        struct sml_session *session = conn->peer.session;

        sim_say(world, "goodbye on connection %u", conn->number);
        if (session)
            session_end(world, session->user);
        close_server_end(world, conn);
    } else {
        if (conn->peer.state == SML_PEER_CLOSING && world->options->mode == SIM_HOSTILE)
            sim_mark(world, SIM_MARK_GARBAGE_REFUSED);
        if (conn->peer.session)
            sim_server_mark(server, conn->peer.session->user);
        sim_server_settle(world, conn);
    }
    sim_server_pump(world, server);
}

/* ---- the pump ------------------------------------------------------------------------------ */

static void pump_session(struct sim_world *world, struct sim_server *server,
                         struct sim_session *info)
{
    struct sml_session *session = info->session;

    sim_jobs_cancel(world, info);
    sim_flows_pump(world, info);
    sim_jobs_take(world, info);
    sim_jobs_unstall(info);
    sim_jobs_run(world, server);
    if (info->ended)
        return;
    if (session->peer)
        sim_server_settle(world, conn_of(session->peer));
    sim_commit_touch(world, info);
    sim_session_check(world, info);
    sim_by(world, &info->timer, sml_callee_timeout(&session->callee));
}

void sim_server_pump(struct sim_world *world, struct sim_server *server)
{
    struct sml_list *node;

    if (server->pumping || !server->up || server->dying)
        return;
    server->pumping = true;
    while ((node = sml_list_pop_front(&server->dirty)) != NULL && !world->failed && !server->dying)
        pump_session(world, server, SML_CONTAINER(node, struct sim_session, dirty));
    server->pumping = false;
}

/* Handlers whose calls were released, or have their verdict by max_run, do not keep a session; nor
 * do calls held back by stored replies that nobody fetches. */
static bool something_runs(const struct sml_callee *callee)
{
    for (const struct sml_list *node = callee->all.next; node != &callee->all; node = node->next) {
        enum sml_incoming_phase phase = SML_CONTAINER(node, struct sml_incoming, all)->phase;

        if (phase == SML_IN_RUNNING)
            return true;
    }
    return false;
}

static void host_timer_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_server *server = SML_CONTAINER(event, struct sim_server, timer);
    struct sml_session *session;

    if (!server->up)
        return;
    while ((session = sml_host_next_expired(&server->host, world->now)) != NULL) {
        struct sim_session *info = session->user;

        sim_mark(world, SIM_MARK_IDLE_EXPIRY);
        if (world->clients[info->client_tag].link.has_session == false ||
            memcmp(&world->clients[info->client_tag].link.session, &session->id,
                   sizeof session->id) != 0)
            sim_mark(world, SIM_MARK_ORPHANED);
        if (something_runs(&session->callee))
            sim_fail(world, "session %u expires while a call is under way", info->serial);
        session_end(world, info);
    }
    if (sml_host_timeout(&server->host) <= world->now)
        sim_fail(world, "server %u: its timer stays due", server->index);
    sim_by(world, event, sml_host_timeout(&server->host));
}

/* ---- life and death ------------------------------------------------------------------------ */

static void restart_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_server *server = SML_CONTAINER(event, struct sim_server, restart);

    if (!server->up)
        sim_server_start(world, server);
    else if (server->stopping && server->commit)
        sim_life_stop(world, server);
    else if (server->stopping)
        sim_server_kill(world, server, false, sim_below(&world->faults, 200 * SML_MS));
    else
        sim_server_shutdown(world, server);
}

void sim_server_start(struct sim_world *world, struct sim_server *server)
{
    uint32_t index = server->index, incarnation = server->incarnation;
    uint64_t died_at = incarnation ? server->died_at : SML_NEVER;
    uint64_t stopped_at = incarnation ? server->stopped_at : SML_NEVER;

    memset(server, 0, sizeof *server);
    server->index = index;
    server->incarnation = incarnation + 1;
    server->died_at = died_at;
    server->stopped_at = stopped_at;
    server->up = true;
    server->entropy = (struct sml_entropy){ fill_entropy, world };
    sim_arena_init(&server->arena);
    sml_list_init(&server->sessions);
    sml_list_init(&server->dirty);
    sml_list_init(&server->queue);
    sml_list_init(&server->running);
    sim_event_init(&server->timer, host_timer_fire);
    sim_event_init(&server->restart, restart_fire);
    sim_say(world, "server %u starts, incarnation %u", index, server->incarnation);
    if (!world->durable) {
        sml_host_init(&server->host, &server->arena.mem, &server->entropy, &world->params.host);
        return;
    }
    server->store = world->durable->stores[index];
    server->commit = world->durable->commits[index];
    world->params.host.durable = true;
    world->params.host.methods.keeps_records = sim_keeps_records;
    world->params.host.features |= SML_FEATURE_KEYS;
    world->params.host.store.generation = server->store->generation;
    memcpy(world->params.host.store.id, server->store->id, sizeof server->store->id);
    sml_host_init(&server->host, &server->arena.mem, &server->entropy, &world->params.host);
    sim_restore(world, server);
}

void sim_server_kill(struct sim_world *world, struct sim_server *server, bool silent, uint64_t down)
{
    struct sml_list *node, *next;

    sim_say(world, "server %u dies%s", server->index, silent ? " silently" : "");
    server->died_at = world->now;
    server->up = false;
    for (node = world->conns.next; node != &world->conns; node = next) {
        struct sim_conn *conn = SML_CONTAINER(node, struct sim_conn, all);

        next = node->next;
        if (conn->server != server)
            continue;
        if (silent) {
            conn->faulty = true;
            sim_conn_stall(world, &conn->down, SML_NEVER);
        }
        sim_conn_close_server(world, conn);
    }
    sim_jobs_drop_all(world, server);
    while (!sml_list_empty(&server->sessions)) {
        struct sim_session *info = SML_CONTAINER(server->sessions.next, struct sim_session, all);

        harvest(world, &info->session->callee);
        session_forget(world, info);
    }
    world->stats->marks[SIM_MARK_NO_MEMORY] += server->arena.failed;
    sim_arena_wipe(&server->arena);
    if (server->commit)
        sim_life_ended(world, server);
    if (world->dying == server)
        world->dying = NULL;
    sim_off(world, &server->timer);
    sim_at(world, &server->restart, world->now + down);
}

/* An orderly end: drain, stop, goodbye, exit. */
void sim_server_shutdown(struct sim_world *world, struct sim_server *server)
{
    struct sml_list *node, *next;

    sim_say(world, "server %u shuts down%s", server->index, server->host.draining ? " now" : "");
    if (!server->host.draining) {
        server->host.draining = true;
        for (node = world->conns.next; node != &world->conns; node = node->next) {
            struct sim_conn *conn = SML_CONTAINER(node, struct sim_conn, all);

            if (conn->server == server && conn->peer.state == SML_PEER_UP) {
                sml_peer_drain(&conn->peer, 100);
                sim_server_settle(world, conn);
            }
        }
        sim_at(world, &server->restart, world->now + sim_below(&world->faults, 200 * SML_MS));
        return;
    }
    if (server->commit) {
        sim_life_stop(world, server);
        return;
    }
    server->stopped_at = world->now;
    server->stopping = true;
    for (node = server->sessions.next; node != &server->sessions; node = node->next) {
        struct sim_session *info = SML_CONTAINER(node, struct sim_session, all);

        if (info->ended)
            continue;
        sml_callee_stop(&info->session->callee, SEMEL_STOPPED);
        sim_server_mark(server, info);
    }
    sim_server_pump(world, server);
    for (node = world->conns.next; node != &world->conns; node = next) {
        struct sim_conn *conn = SML_CONTAINER(node, struct sim_conn, all);

        next = node->next;
        if (conn->server == server && conn->peer.state != SML_PEER_CLOSING) {
            sml_peer_close(&conn->peer, SML_BYE_SHUTDOWN, "the server stops");
            sim_server_settle(world, conn);
        }
    }
    sim_at(world, &server->restart, world->now + sim_below(&world->faults, 50 * SML_MS));
}

void sim_server_fini(struct sim_world *world, struct sim_server *server)
{
    if (server->up && !world->failed) {
        sml_host_fini(&server->host);
        if (server->arena.count)
            sim_fail(world, "server %u leaked %llu bytes in %llu pieces", server->index,
                     (unsigned long long)server->arena.bytes,
                     (unsigned long long)server->arena.count);
    }
    world->stats->marks[SIM_MARK_NO_MEMORY] += server->arena.failed;
    sim_jobs_drop_all(world, server);
    while (!sml_list_empty(&server->sessions))
        session_forget(world, SML_CONTAINER(server->sessions.next, struct sim_session, all));
    sim_arena_wipe(&server->arena);
}
