/* SPDX-License-Identifier: MIT */
/* faults.c - picks faults from the seed's menu and applies them. See sim.h.
 *
 * Faults come in proportion to calls: every submission may arm one, which strikes the submitting
 * client's connection, its server or itself a little later, while the call is under way. So a seed
 * that makes many calls breaks many things, and a client whose window is stuck breaks nothing more
 * until calls flow again. */
#include "durable.h"

#include <string.h>

static void count(struct sim_world *world, enum sim_fault fault)
{
    world->stats->faults[fault]++;
    sim_note(world, 1000 + (uint64_t)fault);
}

static uint64_t long_time(struct sim_world *world)
{
    return world->now + sim_between(&world->faults, 1, 60) * SML_SECOND;
}

static void strike_network(struct sim_world *world, struct sim_client *client, enum sim_fault fault)
{
    struct sim_conn *conn = client->conn;
    struct sim_rng *rng = &world->faults;

    switch (fault) {
    case SIM_CUT:
        sim_conn_cut(world, conn, false);
        break;
    case SIM_CUT_MID_FRAME:
        if (sim_chance(rng, 2))
            conn->up.cut_mid = true;
        else
            conn->down.cut_mid = true;
        break;
    case SIM_HALF_OPEN_SERVER:
    case SIM_HALF_OPEN_CLIENT:
        sim_conn_half_open(world, conn, fault == SIM_HALF_OPEN_SERVER, long_time(world));
        break;
    case SIM_SILENCE_UP:
    case SIM_SILENCE_DOWN:
        conn->faulty = true;
        sim_conn_stall(world, fault == SIM_SILENCE_UP ? &conn->up : &conn->down, SML_NEVER);
        sim_by(world, &conn->kill, long_time(world));
        break;
    case SIM_STALL:
        sim_conn_stall(world, &conn->up, world->now + sim_below(rng, 500 * SML_MS));
        sim_conn_stall(world, &conn->down, world->now + sim_below(rng, 500 * SML_MS));
        break;
    case SIM_LATE_BYTES:
        sim_conn_half_open(world, conn, true, long_time(world));
        conn->up.untold = false;
        conn->up.eof = true;
        sim_conn_stall(world, &conn->up, world->now + sim_below(rng, 2 * SML_SECOND));
        break;
    case SIM_SPLIT:
        conn->up.split = conn->down.split = 40;
        break;
    case SIM_SLOW_LINK:
        conn->up.rate = conn->down.rate = sim_between(rng, 200, 8000);
        conn->up.capacity = conn->down.capacity = SML_FRAME_BYTES_MAX;
        break;
    default:
        break;
    }
}

/* Faults of the next connection: the present one is cut so that there is one. */
static void strike_connect(struct sim_world *world, struct sim_client *client, enum sim_fault fault)
{
    if (fault == SIM_LATE_HELLO)
        client->late_hello = true;
    else if (fault == SIM_REFUSED_CONNECT)
        client->refuse_connects = 1 + (uint32_t)sim_below(&world->faults, 4);
    else
        client->silent_connects = 1 + (uint32_t)sim_below(&world->faults, 2);
    sim_conn_cut(world, client->conn, false);
}

static void strike_server(struct sim_world *world, struct sim_client *client, enum sim_fault fault)
{
    struct sim_server *server =
        &world->servers[client->link.session_address % world->params.servers];
    struct sim_rng *rng = &world->faults;
    bool silent;

    if (!server->up || server->stopping)
        return;
    count(world, fault);
    silent = sim_chance(rng, 4);
    switch (fault) {
    case SIM_RESTART:
        sim_server_kill(world, server, silent, sim_below(rng, 100 * SML_MS));
        break;
    case SIM_SHUTDOWN:
        if (!server->host.draining)
            sim_server_shutdown(world, server);
        break;
    case SIM_OUTAGE:
        sim_server_kill(world, server, silent, sim_between(rng, 1, 30) * SML_SECOND);
        break;
    default:
        server->arena.failures_left = (uint32_t)sim_between(rng, 1, 6);
        break;
    }
}

/* The server lives, but its network is away for long enough to give up or to expire. */
static void strike_client(struct sim_world *world, struct sim_client *client, enum sim_fault fault)
{
    count(world, fault);
    if (fault == SIM_CLIENT_STOP)
        sim_client_stop(world, client, true);
    else if (fault == SIM_CLIENT_CRASH)
        sim_client_crash(world, client, true);
    else
        client->arena.failures_left = (uint32_t)sim_between(&world->faults, 1, 6);
}

static void strike_outbox(struct sim_world *world, struct sim_client *client, enum sim_fault fault)
{
    struct sim_outbox *outbox = client->outbox;
    int64_t step = (int64_t)sim_below(&world->faults, 20 * SML_SECOND);

    if (!outbox)
        return;
    if (fault == SIM_SAVE_FAILS) {
        outbox->fail_saves = 1 + (uint32_t)sim_below(&world->faults, 3);
        return;
    }
    count(world, fault);
    outbox->stepped = true;
    outbox->clock_off += sim_chance(&world->faults, 2) ? step : -step;
}

static void fault_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_client *client = SML_CONTAINER(event, struct sim_client, fault);
    enum sim_fault fault = client->next_fault;

    if (!client->alive)
        return;
    sim_say(world, "fault: %s at client %u", sim_fault_word(fault), client->index);
    if (fault == SIM_CLOCK_STEP || fault == SIM_SAVE_FAILS) {
        strike_outbox(world, client, fault);
    } else if (fault >= SIM_POWER_CUT) {
        sim_note(world, 1000 + (uint64_t)fault);
        sim_life_strike(world, client, fault);
    } else if (fault >= SIM_CLIENT_MEMORY) {
        strike_client(world, client, fault);
    } else if (fault >= SIM_RESTART) {
        strike_server(world, client, fault);
    } else if (fault == SIM_DUPLICATE) {
        client->duplicates_due += 2;
    } else if (client->conn && client->conn->connected && !client->conn->up.dead &&
               !client->conn->down.dead) {
        if (fault == SIM_LATE_HELLO || fault == SIM_REFUSED_CONNECT || fault == SIM_SILENT_CONNECT)
            strike_connect(world, client, fault);
        else {
            count(world, fault);
            strike_network(world, client, fault);
        }
    }
}

void sim_faults_init(struct sim_client *client)
{
    sim_event_init(&client->fault, fault_fire);
}

/* Restarts and the like cost whole sessions and much virtual time: rarer than the rest. */
static bool rare(enum sim_fault fault)
{
    return (fault >= SIM_RESTART && fault <= SIM_CLIENT_CRASH) || fault == SIM_POWER_CUT ||
           fault == SIM_CRASH_POINT || fault == SIM_STORE_UNKNOWN || fault == SIM_OLD_COPY ||
           fault == SIM_RENEWED_COPY;
}

static enum sim_fault draw_fault(struct sim_world *world)
{
    const uint32_t plain = SIM_CLIENT_CRASH + 1;
    uint32_t more = world->durable ? SIM_SAVE_FAILS + 1 - SIM_POWER_CUT : 0;
    uint32_t drawn = (uint32_t)sim_below(&world->faults, plain + more);

    return (enum sim_fault)(drawn < plain ? drawn : SIM_POWER_CUT + drawn - plain);
}

void sim_faults_on_submit(struct sim_world *world, struct sim_client *client)
{
    struct sim_rng *rng = &world->faults;
    enum sim_fault fault;

    if (client->fault.node.in_heap || !sim_chance(rng, world->params.calls_per_fault))
        return;
    for (uint32_t tries = 0; tries < 100; tries++) {
        fault = draw_fault(world);
        if (!sim_on(world, fault) || (rare(fault) && sim_below(rng, 8)))
            continue;
        client->next_fault = fault;
        sim_at(world, &client->fault, world->now + sim_below(rng, 4 * world->params.latency_high));
        return;
    }
}

/* ---- duplicates ---------------------------------------------------------------------------- */

static uint32_t frame_bytes(const uint8_t *frame)
{
    return SML_HEADER_BYTES + (frame[0] | (uint32_t)frame[1] << 8 | (uint32_t)frame[2] << 16 |
                               (uint32_t)frame[3] << 24);
}

/* A transport keeps order and repeats nothing, so only a call that the callee can no more refuse
 * may be repeated: after a BUSY the caller alone decides whether it runs. */
static bool may_repeat(const struct sim_world *world, const struct sim_client *client)
{
    const uint64_t held_up = SIM_BIT(SIM_FULL_QUEUE) | SIM_BIT(SIM_CANCEL) |
                             SIM_BIT(SIM_HANGING_HANDLER) | SIM_BIT(SIM_DEAF_HANDLER);
    uint64_t xid;

    memcpy(&xid, client->stash + 8, sizeof xid);
    return (world->params.no_deadlines && !(world->params.menu & held_up)) ||
           !sml_table_find(&client->link.caller.by_xid, xid);
}

/* Keep a copy of a small CALL that carries its whole body; later put it before another CALL of the
 * same session, perhaps on a newer connection. To the callee it is a repeat: it must meet its
 * record, or be stale. */
void sim_faults_duplicate(struct sim_world *world, struct sim_client *client, struct sim_pipe *pipe,
                          size_t from)
{
    size_t at = from;

    for (; at + SML_HEADER_BYTES <= pipe->end; at += frame_bytes(pipe->buffer + at)) {
        struct sml_frame frame;
        const char *why;
        size_t used;

        if (pipe->buffer[at + 4] != SML_CALL || frame_bytes(pipe->buffer + at) > SIM_STASH_BYTES)
            continue;
        if (client->stash_bytes && memcmp(&client->stash_session, &client->link.session,
                                          sizeof client->stash_session) == 0) {
            if (!may_repeat(world, client))
                return;
            memmove(pipe->buffer + at + client->stash_bytes, pipe->buffer + at, pipe->end - at);
            memcpy(pipe->buffer + at, client->stash, client->stash_bytes);
            pipe->end += client->stash_bytes;
            client->stash_bytes = 0;
            client->duplicates_due--;
            count(world, SIM_DUPLICATE);
            sim_say(world, "a CALL of client %u is delivered a second time", client->index);
            return;
        }
        if (sml_frame_decode(pipe->buffer + at, pipe->end - at, SML_PAYLOAD_BYTES_MAX, &frame,
                             &used, &why) != SML_DECODED ||
            frame.u.call.fragment.size != frame.u.call.body_bytes)
            continue;
        memcpy(client->stash, pipe->buffer + at, used);
        client->stash_bytes = used;
        client->stash_session = client->link.session;
    }
}
