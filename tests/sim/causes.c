/* SPDX-License-Identifier: MIT */
/* causes.c - what may end a call of a server with a store without an answer. See judge.c.
 *
 * Narrower than for servers without one: that a server died is no excuse, unless the method says
 * so; that a session is lost needs somebody who ended it, or put an old copy of the store back. */
#include "durable.h"

static bool gave_up(const struct sim_world *world, const struct sim_row *row)
{
    const struct sim_client *client = &world->clients[row->client];

    if (!client->link.options.reconnect)
        return client->link.state == SML_LINK_FAILED;
    return client->down_since != SML_NEVER &&
           world->now - client->down_since >= world->params.link.give_up;
}

static bool is_after(uint64_t when, uint64_t since)
{
    return when != SML_NEVER && when >= since;
}

static bool put_back(const struct sim_world *world, const struct sim_row *row)
{
    return is_after(world->durable->put_back_at, world->clients[row->client].sessionless_at) ||
           is_after(world->durable->put_back_at, row->submitted);
}

static bool session_ended(const struct sim_world *world, const struct sim_row *row)
{
    const struct sim_client *client = &world->clients[row->client];

    return is_after(client->lost_at, client->sessionless_at) ||
           (client->outbox && is_after(client->outbox->lost_at, client->sessionless_at));
}

static bool session_may_be_lost(const struct sim_world *world, const struct sim_row *row)
{
    return session_ended(world, row) || put_back(world, row);
}

static bool client_stopped(const struct sim_world *world, const struct sim_row *row)
{
    return is_after(world->clients[row->client].stopped_at, row->submitted);
}

/* What the server says of calls that it does not run. */
static bool turned_away(const struct sim_world *world, const struct sim_row *row,
                        enum semel_status status)
{
    bool cancelled = row->cancelled_at != SML_NEVER;
    bool late = world->now >= row->deadline;
    const struct sim_row *unit = &world->rows[row->durable.unit];

    switch (status) {
    case SEMEL_EXPIRED:
    case SEMEL_DEADLINE:
        return late;
    case SEMEL_CANCELLED:
        return cancelled || late;
    case SEMEL_OVERLOADED:
        return (row->call_flags & SML_CALL_REFUSE_WHEN_FULL) || gave_up(world, row);
    case SEMEL_NO_METHOD:
        return row->behaviour == SIM_DO_NO_METHOD;
    case SEMEL_INVALID:
        return (row->call_flags & SML_CALL_RERUN_OK) && row->kind != SIM_IDEMPOTENT;
    case SEMEL_TOO_LARGE:
        return row->body_bytes > world->params.host.limits.body_bytes;
    case SEMEL_DROPPED:
        return row->kind == SIM_TXN && (row->dropped || unit->dropped || unit->durable.shared);
    case SEMEL_MAX_RUN:
        return row->kind == SIM_TXN && (row->max_run != SML_NEVER || unit->durable.shared);
    case SEMEL_ROLLED_BACK:
        return row->kind == SIM_TXN &&
               (row->durable.spoiler || world->durable->refused || unit->durable.shared);
    case SEMEL_POISONED:
        /* Also by others' faults, if they struck while it ran. */
        return row->kind == SIM_TXN && unit->runs >= SEMEL_CRASHES_MAX;
    case SEMEL_KEY_MISMATCH:
        return row->durable.keyed && unit->durable.mixed;
    case SEMEL_SERVER_DIED:
        return row->kind == SIM_RESOLVE;
    default:
        return false;
    }
}

/* How clients end calls by themselves. */
static bool ended_by_client(const struct sim_world *world, const struct sim_row *row,
                            enum semel_status status)
{
    switch (status) {
    case SEMEL_STOPPED:
        return client_stopped(world, row);
    case SEMEL_NO_MEMORY:
        return world->clients[row->client].arena.failed != 0;
    case SEMEL_CONNECT:
    case SEMEL_LINK_LOST:
    case SEMEL_PEER_DIED:
    case SEMEL_DRAINING:
    case SEMEL_STORE_FAILED:
    case SEMEL_OVERLOADED:
        return gave_up(world, row);
    default:
        return false;
    }
}

bool sim_durable_not_executed(struct sim_world *world, uint32_t nonce, const struct sml_call *call)
{
    const struct sim_row *row = &world->rows[nonce];
    enum semel_status status = call->verdict.status;

    if (status == SEMEL_SESSION_LOST) /* after a BUSY; or the last word before giving up */
        return session_may_be_lost(world, row) || gave_up(world, row);
    return turned_away(world, row, status) || ended_by_client(world, row, status);
}

/* The server died in it, and nobody can find out, or nobody wants to any more. */
static bool died_in_it(const struct sim_world *world, const struct sim_slot *slot)
{
    const struct sim_row *row = &world->rows[slot->nonce];
    const struct sim_row *unit = &world->rows[row->durable.unit];
    bool keyed = row->durable.keyed;
    bool wanted = row->cancelled_at == SML_NEVER && !row->durable.withdrawn &&
                  world->now < row->deadline && !unit->durable.shared &&
                  !(row->call_flags & SML_CALL_REFUSE_WHEN_FULL);

    if (unit->durable.forgiven)
        return true;
    if (row->kind == SIM_IDEMPOTENT) /* it has no record, run or not */
        return slot->call.doubtful && (!wanted || row->behaviour == SIM_DO_NO_METHOD);
    if (row->kind == SIM_TXN || (row->kind == SIM_RESOLVE && !keyed) ||
        (row->kind == SIM_RERUN && wanted))
        return false;
    for (uint32_t i = 0; i < world->params.servers; i++)
        if (is_after(world->servers[i].died_at, row->submitted))
            return unit->durable.stored;
    /* It had died by then; who asks later is told the same. */
    return keyed && unit->durable.stored;
}

static bool key_expired(const struct sim_world *world, const struct sim_slot *slot)
{
    const struct sim_row *row = &world->rows[slot->nonce];
    const struct sim_client *client = &world->clients[row->client];

    if (!row->durable.keyed || !slot->call.rerun)
        return false;
    if (client->outbox && client->outbox->stepped)
        return true;
    return world->now - row->submitted >= (world->durable->retention_ms - 1) * SML_MS;
}

/* The server that had taken them died; what keeps no record would have to run again. */
static bool parts_lost(struct sim_world *world, const struct sim_row *row)
{
    sim_mark(world, SIM_MARK_PARTS_LOST);
    for (uint32_t i = 0; i < world->params.servers; i++)
        if (is_after(world->servers[i].died_at, row->submitted))
            return row->flow.sends;
    return false;
}

bool sim_durable_unknown(struct sim_world *world, const struct sim_slot *slot)
{
    const struct sim_row *row = &world->rows[slot->nonce];
    enum semel_status status = slot->call.verdict.status;
    bool keyed = row->durable.keyed, rerun = slot->call.rerun;
    bool late = world->now >= row->deadline;

    switch (status) {
    case SEMEL_DEADLINE:
        return late;
    case SEMEL_CANCELLED:
        return row->cancelled_at != SML_NEVER || late;
    case SEMEL_MAX_RUN:
        return (row->kind != SIM_TXN && row->max_run != SML_NEVER) ||
               (rerun && turned_away(world, row, status)) ||
               world->rows[row->durable.unit].durable.shared;
    case SEMEL_DROPPED:
        return row->dropped || world->rows[row->durable.unit].dropped ||
               (rerun && turned_away(world, row, status)) ||
               world->rows[row->durable.unit].durable.shared;
    case SEMEL_SERVER_DIED:
        return died_in_it(world, slot);
    case SEMEL_KEY_EXPIRED:
        return key_expired(world, slot);
    case SEMEL_PARTS_LOST:
        return parts_lost(world, row);
    case SEMEL_SESSION_LOST:
        if (keyed)
            return gave_up(world, row) || world->durable->put_back_at != SML_NEVER ||
                   (world->params.addresses > 1 && rerun) ||
                   (session_may_be_lost(world, row) && row->cancelled_at != SML_NEVER) ||
                   (session_may_be_lost(world, row) && late);
        return session_may_be_lost(world, row) || gave_up(world, row);
    default:
        return (rerun && turned_away(world, row, status)) || ended_by_client(world, row, status);
    }
}
