/* SPDX-License-Identifier: MIT */
/* client.c - a client program: it submits calls, cancels some, takes results, stops or crashes.
 * See sim.h.
 *
 * This is the shell that link.h asks for: after any event carry out the actions, write what there
 * is, hand completions out, and come back in time. Whatever a client does is done by the machine
 * under test; only the program around it is invented here. */
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

/* ---- calls --------------------------------------------------------------------------------- */

static struct sim_slot *slot_new(struct sim_world *world)
{
    struct sml_list *node = sml_list_pop_front(&world->free_slots);
    struct sim_slot *slot =
        node ? SML_CONTAINER(node, struct sim_slot, link) : malloc(sizeof *slot);

    SML_ASSERT(slot);
    slot->copy = NULL;
    slot->call.stream = NULL;
    sml_list_init(&slot->link);
    return slot;
}

void sim_slot_free(struct sim_world *world, struct sim_slot *slot)
{
    sim_flow_close(world, slot);
    free(slot->copy);
    slot->copy = NULL;
    /* Whoever still looks at the record shall stumble. */
    memset(&slot->call, 0xa5, sizeof slot->call);
    sml_list_remove(&slot->link);
    sml_list_push_front(&world->free_slots, &slot->link);
}

static bool submit_one(struct sim_world *world, struct sim_client *client)
{
    uint32_t nonce = world->issued;
    struct sim_row *row = &world->rows[nonce];
    struct sim_slot *slot = slot_new(world);
    enum semel_status status;

    sim_row_plan(world, nonce);
    row->client = client->index;
    row->dirty = client->dirty;
    row->state = SIM_ROW_OPEN;
    if (world->durable)
        sim_judge_plan(world, nonce, client);
    sim_slot_fill(world, slot, nonce);
    status = sml_link_submit(&client->link, &slot->call, world->now);
    sim_note(world, nonce);
    if (status != SEMEL_OK) {
        if (status != SEMEL_OVERLOADED && client->link.state != SML_LINK_FAILED)
            sim_fail(world, "submitting call %u gave %s", nonce, semel_status_name(status));
        sim_mark(world, SIM_MARK_PENDING_FULL);
        memset(row, 0, sizeof *row);
        sim_slot_free(world, slot);
        return false;
    }
    world->issued++;
    client->in_flight++;
    if (client->outbox && row->durable.keyed)
        sim_outbox_add(world, client, nonce);
    sim_row_count(world, row);
    sml_list_push_back(&client->open, &slot->link);
    sim_flow_submitted(world, client, slot);
    sim_say(world, "call %u of client %u: %s %s%s", nonce, client->index, slot->method,
            row->durable.keyed ? "key " : "", row->durable.keyed ? slot->key : "");
    sim_faults_on_submit(world, client);
    return true;
}

/* What the process before this one has left undone. */
static bool submit_again(struct sim_world *world, struct sim_client *client)
{
    struct sim_slot *slot = slot_new(world);
    enum semel_status status = SEMEL_OVERLOADED;
    bool found = sim_outbox_next(world, client, slot);

    if (found)
        status = sml_link_submit(&client->link, &slot->call, world->now);
    if (status != SEMEL_OK) {
        sim_slot_free(world, slot);
        return false;
    }
    sim_say(world, "call %u is submitted again", slot->nonce);
    sim_outbox_submitted(client, slot->nonce);
    client->in_flight++;
    sml_list_push_back(&client->open, &slot->link);
    sim_flow_submitted(world, client, slot);
    return true;
}

static void cancel_some(struct sim_world *world, struct sim_client *client)
{
    struct sml_list *node = sim_chance(&world->load, 2) ? client->open.next : client->open.prev;
    struct sim_slot *slot;
    struct sim_row *row;

    if (!sim_on(world, SIM_CANCEL) || !sim_chance(&world->load, 6) || node == &client->open)
        return;
    slot = SML_CONTAINER(node, struct sim_slot, link);
    row = &world->rows[slot->nonce];
    if (row->cancelled_at != SML_NEVER)
        return;
    row->cancelled_at = world->now;
    world->stats->faults[SIM_CANCEL]++;
    sim_say(world, "call %u is cancelled", slot->nonce);
    sml_caller_cancel(&client->link.caller, &slot->call, world->now);
}

static void submit_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_client *client = SML_CONTAINER(event, struct sim_client, submit);
    uint64_t batch = 1 + sim_below(&world->load, world->params.batch);
    uint64_t gap = 1 + sim_below(&world->load, world->params.gap);

    if (!client->alive) {
        if (world->phase == SIM_LOAD || sim_outbox_has_work(client))
            sim_client_start(world, client);
        return;
    }
    while (client->in_flight < client->target && submit_again(world, client))
        continue;
    while (batch-- && client->in_flight < client->target && world->issued < world->calls)
        if (!submit_one(world, client)) {
            gap += 5 * SML_MS;
            break;
        }
    cancel_some(world, client);
    sim_client_pump(world, client);
    /* At its target, it goes on when a call ends. */
    if (client->alive && client->in_flight < client->target &&
        (world->issued < world->calls || (client->outbox && client->outbox->waiting)))
        sim_by(world, event, world->now + gap);
}

static void accept_one(struct sim_world *world, struct sim_client *client, struct sim_slot *slot)
{
    if (world->durable)
        sim_watch_accepted(world, client, &slot->call);
    sml_caller_accept(&client->link.caller, &slot->call, world->now);
    sim_slot_free(world, slot);
}

static void accept_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_client *client = SML_CONTAINER(event, struct sim_client, accept);

    if (client->alive)
        sim_client_accept_all(world, client);
}

void sim_client_accept_all(struct sim_world *world, struct sim_client *client)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(&client->unaccepted)) != NULL)
        accept_one(world, client, SML_CONTAINER(node, struct sim_slot, link));
    sim_client_pump(world, client);
}

void sim_client_accept(struct sim_world *world, struct sim_client *client, struct sim_slot *slot)
{
    if (!sim_on(world, SIM_LATE_ACCEPT) || !sim_chance(&world->load, 16)) {
        accept_one(world, client, slot);
        return;
    }
    sml_list_push_back(&client->unaccepted, &slot->link);
    world->stats->faults[SIM_LATE_ACCEPT]++;
    sim_by(world, &client->accept, world->now + sim_below(&world->load, 200 * SML_MS));
}

static void take_done(struct sim_world *world, struct sim_client *client)
{
    struct sml_call *call;
    bool any = false;

    while ((call = sml_caller_next_done(&client->link.caller)) != NULL) {
        struct sim_slot *slot = SML_CONTAINER(call, struct sim_slot, call);

        sim_trace_done(world, call);
        sim_flow_done(world, client, slot);
        sim_ledger_done(world, slot);
        if (world->durable)
            sim_watch_answered(world, client, call);
        any = true;
        client->in_flight--;
        sml_list_remove(&slot->link);
        sml_release(&client->arena.mem, call->reply);
        call->reply = NULL;
        if (sim_outbox_done(world, client, slot))
            continue;
        sim_ledger_settle(world, slot->nonce);
        sim_client_accept(world, client, slot);
    }
    if (any && (world->issued < world->calls || (client->outbox && client->outbox->waiting)))
        sim_by(world, &client->submit, world->now + 1 + sim_below(&world->load, world->params.gap));
}

/* ---- the link ------------------------------------------------------------------------------ */

static void act(struct sim_world *world, struct sim_client *client)
{
    for (;;) {
        struct sml_link_action action = sml_link_next_action(&client->link);

        if (action.kind == SML_LINK_NONE)
            return;
        if (action.kind == SML_LINK_CONNECT) {
            SML_ASSERT(!client->conn);
            SML_ASSERT(action.address < world->params.addresses);
            sim_conn_open(world, client, action.address);
        } else if (action.kind == SML_LINK_SAVE) {
            sim_outbox_save(world, client);
        } else if (client->conn) {
            if (client->conn->faulty && client->was_up)
                sim_mark(world, SIM_MARK_CLIENT_HEARTBEAT);
            sim_say(world, "client %u closes connection %u (%s: %s)", client->index,
                    client->conn->number, semel_status_name(client->link.why),
                    client->link.why_text);
            if (sim_below(&world->net, 4))
                sim_conn_flush_client(world, client->conn);
            sim_conn_close_client(world, client->conn);
        }
    }
}

static void watch_state(struct sim_world *world, struct sim_client *client)
{
    bool up = client->link.state == SML_LINK_UP;

    if (up && !client->was_up) {
        client->down_since = SML_NEVER;
        if (client->link.address == 1)
            sim_mark(world, SIM_MARK_SECOND_ADDRESS);
    }
    if (!up && client->was_up)
        client->down_since = world->now;
    client->was_up = up;
    if (!client->link.has_session && client->link.state != SML_LINK_GREETING)
        client->sessionless_at = world->now;
    if (client->link.state != SML_LINK_FAILED || client->failed)
        return;
    client->failed = true;
    if (!client->link.options.reconnect)
        sim_mark(world, SIM_MARK_NO_RECONNECT);
    else if (!sim_hostile_failed(world, client))
        sim_fail(world, "client %u failed: %s (%s)", client->index,
                 semel_status_name(client->link.why), client->link.why_text);
}

static void check_caller(struct sim_world *world, const struct sim_client *client)
{
    const struct sml_caller *caller = &client->link.caller;

    if (caller->pending > caller->pending_max + world->params.target)
        sim_fail(world, "client %u queues %u calls", client->index, caller->pending);
    if (client->link.state != SML_LINK_UP)
        return;
    if (caller->unreleased > caller->window && !client->dirty)
        sim_fail(world, "client %u has %u xids under way in a window of %u", client->index,
                 caller->unreleased, caller->window);
    if (caller->bytes_out > caller->session_bytes && !client->dirty)
        sim_fail(world, "client %u has %llu bytes under way, %llu were granted", client->index,
                 (unsigned long long)caller->bytes_out, (unsigned long long)caller->session_bytes);
}

void sim_client_pump(struct sim_world *world, struct sim_client *client)
{
    if (!client->alive)
        return;
    if (client->pumping) {
        client->again = true;
        return;
    }
    client->pumping = true;
    do {
        client->again = false;
        take_done(world, client);
        sim_flow_events(world, client);
        act(world, client);
        if (client->conn)
            sim_conn_flush_client(world, client->conn);
        take_done(world, client);
        watch_state(world, client);
    } while (client->again && !world->failed);
    client->pumping = false;
    check_caller(world, client);
    if (client->failed && !client->ending)
        sim_at(world, &client->bury, world->now);
    sim_by(world, &client->timer, sml_link_timeout(&client->link));
}

static void timer_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_client *client = SML_CONTAINER(event, struct sim_client, timer);
    uint64_t due;

    if (!client->alive)
        return;
    due = sml_link_timeout(&client->link);
    if (due > world->now) {
        sim_by(world, event, due);
        return;
    }
    client->ticks_at_once = client->ticked_at == world->now ? client->ticks_at_once + 1 : 0;
    client->ticked_at = world->now;
    if (client->ticks_at_once > TICKS_AT_ONCE_MAX) {
        sim_fail(world, "client %u spins: its timer stays due (state %d, full pipe %d)",
                 client->index, (int)client->link.state,
                 client->conn ? (int)client->conn->up.full : -1);
        return;
    }
    sml_link_tick(&client->link, world->now);
    sim_client_pump(world, client);
}

/* A client whose link failed for good: like any other end. */
static void bury_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_client *client = SML_CONTAINER(event, struct sim_client, bury);

    if (client->alive)
        sim_client_stop(world, client, true);
}

void sim_client_connected(struct sim_world *world, struct sim_client *client)
{
    sml_link_connected(&client->link, world->now);
    sim_client_pump(world, client);
}

void sim_client_connect_failed(struct sim_world *world, struct sim_client *client,
                               enum semel_status why)
{
    sim_say(world, "client %u cannot connect (%s)", client->index, semel_status_name(why));
    sml_link_connect_failed(&client->link, why, "simulated", world->now);
    sim_client_pump(world, client);
}

void sim_client_ended(struct sim_world *world, struct sim_client *client, enum semel_status why,
                      bool mid_frame)
{
    sim_say(world, "client %u sees the end of its connection (%s%s)", client->index,
            semel_status_name(why), mid_frame ? ", inside a frame" : "");
    if (mid_frame)
        sim_mark(world, SIM_MARK_LOST_MID_FRAME);
    sml_link_closed(&client->link, why, mid_frame, world->now);
    sim_client_pump(world, client);
}

void sim_client_input(struct sim_world *world, struct sim_client *client, struct sim_pipe *pipe)
{
    const uint8_t *data = pipe->buffer + pipe->read;
    size_t size = pipe->avail - pipe->read, used = 0;
    bool draining = client->link.draining;
    struct sim_watch watch;
    uint8_t *exact = NULL;

    if (world->params.exact) {
        exact = malloc(size);
        SML_ASSERT(exact);
        data = memcpy(exact, data, size);
    }
    if (world->durable)
        sim_watch_reading(world, client, data, size, &watch);
    sml_link_input(&client->link, data, size, &used, world->now);
    if (world->durable)
        sim_watch_read(world, client, &watch);
    sim_trace_client(world, client);
    if (used > size)
        sim_fail(world, "client %u consumed %zu of %zu bytes", client->index, used, size);
    pipe->read += used;
    sim_hostile_fed(world, client);
    take_done(world, client);
    free(exact);
    if (client->link.draining && !draining)
        sim_mark(world, SIM_MARK_DRAINED);
    sim_client_pump(world, client);
}

void sim_client_soil(struct sim_world *world, struct sim_client *client)
{
    client->dirty = true;
    for (struct sml_list *node = client->open.next; node != &client->open; node = node->next)
        world->rows[SML_CONTAINER(node, struct sim_slot, link)->nonce].dirty = true;
}

/* ---- beginning and end --------------------------------------------------------------------- */

static bool has_outbox(const struct sim_world *world, uint32_t index)
{
    return world->durable && sim_on(world, SIM_OUTBOX) &&
           (index % 2 == 0 || world->options->mode == SIM_STEADY);
}

static void begin_link(struct sim_world *world, struct sim_client *client)
{
    struct sml_link_options options = world->params.link;

    if (has_outbox(world, client->index)) {
        client->outbox = &world->durable->outboxes[client->index];
        options.kept = options.reconnect = true;
    }
    sml_link_init(&client->link, &client->arena.mem, &client->entropy, &options, world->now);
    client->link.caller.windows = world->params.windows_down;
    if (world->durable)
        sim_watch_begin(world, client);
    if (!client->outbox)
        return;
    sim_outbox_start(world, client);
    while (client->in_flight < client->target && submit_again(world, client))
        continue;
}

void sim_client_start(struct sim_world *world, struct sim_client *client)
{
    uint32_t index = client->index;

    memset(client, 0, sizeof *client);
    client->index = index;
    client->alive = true;
    client->target = world->params.target;
    client->down_since = world->now;
    client->lost_at = SML_NEVER;
    client->principal = (struct sml_principal){ true, 1000 + index, 100 };
    if (world->durable && world->durable->one_principal)
        client->principal.uid = 1000;
    client->entropy = (struct sml_entropy){ fill_entropy, world };
    sim_arena_init(&client->arena);
    sml_list_init(&client->open);
    sml_list_init(&client->unaccepted);
    sim_event_init(&client->timer, timer_fire);
    sim_event_init(&client->submit, submit_fire);
    sim_event_init(&client->accept, accept_fire);
    sim_event_init(&client->bury, bury_fire);
    sim_hostile_draw(world, client);
    sim_faults_init(client);
    begin_link(world, client);
    sim_say(world, "client %u starts", index);
    sim_by(world, &client->submit, world->now + sim_below(&world->load, world->params.gap));
    sim_client_pump(world, client);
}

static void client_off(struct sim_world *world, struct sim_client *client, bool again)
{
    world->stats->marks[SIM_MARK_NO_MEMORY] += client->arena.failed;
    world->stats->marks[SIM_MARK_BUSY] += client->link.caller.counters.busy;
    sim_off(world, &client->timer);
    sim_off(world, &client->submit);
    sim_off(world, &client->accept);
    sim_off(world, &client->fault);
    sim_off(world, &client->bury);
    client->alive = false;
    if (again && (world->issued < world->calls || sim_outbox_has_work(client)))
        sim_at(world, &client->submit, world->now + sim_below(&world->load, 20 * SML_MS));
}

void sim_client_stop(struct sim_world *world, struct sim_client *client, bool again)
{
    sim_say(world, "client %u stops with %u calls open", client->index, client->in_flight);
    client->stopped_at = world->now;
    client->ending = true;
    sml_link_stop(&client->link, world->now);
    sim_client_pump(world, client);
    sim_client_accept_all(world, client);
    if (!sml_list_empty(&client->open) || client->in_flight)
        sim_fail(world, "client %u stopped with %u calls still open", client->index,
                 client->in_flight);
    if (client->conn)
        sim_fail(world, "client %u stopped and kept its connection", client->index);
    if (sml_link_timeout(&client->link) != SML_NEVER)
        sim_fail(world, "client %u stopped and still wants to be woken", client->index);
    if (client->outbox)
        sim_outbox_stop(world, client, false);
    if (world->failed)
        return;
    sml_link_fini(&client->link);
    if (client->arena.count)
        sim_fail(world, "client %u leaked %llu bytes", client->index,
                 (unsigned long long)client->arena.bytes);
    client_off(world, client, again);
}

void sim_client_crash(struct sim_world *world, struct sim_client *client, bool again)
{
    struct sml_list *node;

    sim_say(world, "client %u crashes with %u calls open", client->index, client->in_flight);
    while ((node = client->open.next) != &client->open) {
        struct sim_slot *slot = SML_CONTAINER(node, struct sim_slot, link);

        if (!client->outbox || !world->rows[slot->nonce].durable.keyed) {
            world->rows[slot->nonce].state = SIM_ROW_ABANDONED;
            world->done++;
        }
        sim_slot_free(world, slot);
    }
    while ((node = client->unaccepted.next) != &client->unaccepted)
        sim_slot_free(world, SML_CONTAINER(node, struct sim_slot, link));
    if (client->outbox)
        sim_outbox_stop(world, client, true);
    if (client->conn) {
        struct sim_conn *conn = client->conn;

        /* The other end may learn of it at once, late, or by its own patience only. */
        if (sim_chance(&world->net, 3))
            sim_conn_stall(world, &conn->up, SML_NEVER);
        sim_conn_close_client(world, conn);
    }
    sim_arena_wipe(&client->arena);
    client_off(world, client, again);
}
