/* SPDX-License-Identifier: MIT */
/* outbox.c - what survives a client: its session's identity, its keyed calls, their results. See
 * durable.h.
 *
 * A keyed call is written down before it is submitted, its result before it is accepted; nothing is
 * sent before the link's identity is written down. The next process goes on with the identity and
 * submits what has no result again. Only a result that is written down counts as delivered. */
#include "durable.h"

#include <stdlib.h>
#include <string.h>

#define WALL_BEGIN (UINT64_C(1000000) * SML_SECOND)

/* The wall's clock in ms, as far as this outbox believes it: it does not run backwards. */
uint64_t sim_wall_ms(const struct sim_world *world, const struct sim_outbox *outbox)
{
    uint64_t wall = (WALL_BEGIN + world->now + (uint64_t)outbox->clock_off) / SML_MS;

    return wall > outbox->wall_ms ? wall : outbox->wall_ms;
}

static uint64_t address_hash(uint32_t address)
{
    return sim_mix(address + 1);
}

static struct sim_letter *letter_of(struct sim_outbox *outbox, uint32_t nonce)
{
    for (uint32_t i = outbox->count; i-- > 0;)
        if (outbox->letters[i].nonce == nonce)
            return &outbox->letters[i];
    return NULL;
}

/* ---- the identity -------------------------------------------------------------------------- */

static uint64_t file_time(struct sim_world *world)
{
    if (!sim_on(world, SIM_SLOW_SAVE) || !sim_chance(&world->load, 3))
        return sim_below(&world->load, 200 * UINT64_C(1000));
    world->stats->faults[SIM_SLOW_SAVE]++;
    return sim_below(&world->load, 300 * SML_MS);
}

static void write_down(struct sim_world *world, struct sim_client *client, struct sim_slot *slot)
{
    struct sim_outbox *outbox = client->outbox;
    struct sim_letter *letter = letter_of(outbox, slot->nonce);

    *letter = outbox->letters[--outbox->count];
    sim_ledger_settle(world, slot->nonce);
    sim_client_accept(world, client, slot);
}

/* What has ended is written down first: the file keeps the order of what happened. */
static void write_all(struct sim_world *world, struct sim_outbox *outbox)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(&outbox->unrecorded)) != NULL)
        write_down(world, outbox->client, SML_CONTAINER(node, struct sim_slot, link));
}

static void replace_file(struct sim_outbox *outbox)
{
    memcpy(outbox->file, outbox->saving, sizeof outbox->file);
    outbox->has_identity = true;
}

static void save_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_outbox *outbox = SML_CONTAINER(event, struct sim_outbox, save);
    struct sim_client *client = outbox->client;

    if (outbox->fail_saves && world->phase == SIM_LOAD) {
        outbox->fail_saves--;
        world->stats->faults[SIM_SAVE_FAILS]++;
        sim_mark(world, SIM_MARK_SAVE_FAILED);
        sml_link_save_failed(&client->link, "no space for the outbox", world->now);
    } else {
        write_all(world, outbox);
        replace_file(outbox);
        sml_link_saved(&client->link);
    }
    sim_client_pump(world, client);
}

/* Another one that was on its way is of no more interest. */
void sim_outbox_save(struct sim_world *world, struct sim_client *client)
{
    struct sim_outbox *outbox = client->outbox;
    struct sml_identity_record record = { .wall_ms = sim_wall_ms(world, outbox) };

    sml_link_identity(&client->link, &record.identity);
    record.address_hash = address_hash(record.identity.address);
    outbox->wall_ms = record.wall_ms;
    sml_identity_record_encode(&record, outbox->saving);
    sim_at(world, &outbox->save, world->now + file_time(world));
}

/* ---- calls --------------------------------------------------------------------------------- */

void sim_outbox_add(struct sim_world *world, struct sim_client *client, uint32_t nonce)
{
    struct sim_outbox *outbox = client->outbox;

    if (outbox->count == outbox->room) {
        outbox->room = outbox->room ? outbox->room * 2 : 32;
        outbox->letters = realloc(outbox->letters, outbox->room * sizeof *outbox->letters);
        SML_ASSERT(outbox->letters);
    }
    outbox->letters[outbox->count++] =
        (struct sim_letter){ nonce, SIM_LETTER_OUT, sim_wall_ms(world, outbox) };
}

bool sim_outbox_next(struct sim_world *world, struct sim_client *client, struct sim_slot *slot)
{
    struct sim_outbox *outbox = client->outbox;
    struct sim_letter *letter = NULL;
    struct sim_row *row;

    for (uint32_t i = 0; outbox && outbox->waiting && i < outbox->count && !letter; i++)
        if (outbox->letters[i].state == SIM_LETTER_WAITS)
            letter = &outbox->letters[i];
    if (!letter)
        return false;
    row = &world->rows[letter->nonce];
    if (row->deadline != SML_NEVER)
        row->deadline = world->now + world->params.deadline;
    row->durable.withdrawn |= row->cancelled_at != SML_NEVER;
    row->cancelled_at = SML_NEVER;
    sim_slot_fill(world, slot, letter->nonce);
    slot->call.rerun = true;
    slot->call.key_age_ms = sml_posted_age_ms(letter->posted_ms, sim_wall_ms(world, outbox));
    return true;
}

void sim_outbox_submitted(struct sim_client *client, uint32_t nonce)
{
    letter_of(client->outbox, nonce)->state = SIM_LETTER_OUT;
    client->outbox->waiting--;
}

/* ---- results ------------------------------------------------------------------------------- */

static void record_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_outbox *outbox = SML_CONTAINER(event, struct sim_outbox, record);

    write_all(world, outbox);
    sim_client_pump(world, outbox->client);
}

bool sim_outbox_done(struct sim_world *world, struct sim_client *client, struct sim_slot *slot)
{
    struct sim_outbox *outbox = client->outbox;
    struct sim_row *row = &world->rows[slot->nonce];
    struct sim_letter *letter = outbox ? letter_of(outbox, slot->nonce) : NULL;

    if (!letter)
        return false;
    if (client->ending) {
        /* It says nothing new of the call: the next process asks again. */
        sml_list_remove(&slot->link);
        sim_client_accept(world, client, slot);
        return true;
    }
    row->durable.seen = (uint8_t)(slot->call.verdict.outcome + 1);
    sml_list_push_back(&outbox->unrecorded, &slot->link);
    sim_by(world, &outbox->record, world->now + file_time(world));
    return true;
}

/* ---- life ---------------------------------------------------------------------------------- */

bool sim_outbox_has_work(const struct sim_client *client)
{
    return client->outbox && client->outbox->count > 0;
}

void sim_outbox_start(struct sim_world *world, struct sim_client *client)
{
    struct sim_outbox *outbox = client->outbox;
    struct sml_identity_record record;

    outbox->client = client;
    outbox->waiting = 0;
    sim_event_init(&outbox->save, save_fire);
    sim_event_init(&outbox->record, record_fire);
    for (uint32_t i = 0; i < outbox->count; i++) {
        outbox->letters[i].state = SIM_LETTER_WAITS;
        outbox->waiting++;
        sim_mark(world, SIM_MARK_RESUBMITTED);
    }
    outbox->wall_ms = 0;
    if (!sim_outbox_identity(outbox, &record))
        return;
    outbox->wall_ms = record.wall_ms;
    for (uint32_t i = 0; i < world->params.addresses; i++)
        if (address_hash(i) == record.address_hash)
            record.identity.address = i;
    if (record.identity.has_session)
        sim_mark(world, SIM_MARK_IDENTITY_RESUMED);
    sml_link_restore(&client->link, &record.identity);
}

bool sim_outbox_identity(const struct sim_outbox *outbox, struct sml_identity_record *out)
{
    if (!outbox->has_identity)
        return false;
    SML_ASSERT(!sml_identity_record_decode(semel_bytes(outbox->file, sizeof outbox->file), out));
    return true;
}

void sim_outbox_stop(struct sim_world *world, struct sim_client *client, bool crashed)
{
    struct sim_outbox *outbox = client->outbox;
    struct sml_list *node;

    /* What was being written when it died may be there or not. */
    if (crashed && outbox->save.node.in_heap) {
        sim_mark(world, SIM_MARK_DIED_SAVING);
        if (sim_chance(&world->faults, 2))
            replace_file(outbox);
    }
    if (!crashed && !sim_outbox_has_work(client))
        outbox->has_identity = false; /* it has ended its session */
    sim_off(world, &outbox->save);
    sim_off(world, &outbox->record);
    while ((node = sml_list_pop_front(&outbox->unrecorded)) != NULL) {
        sim_mark(world, SIM_MARK_RESULT_LOST);
        sim_slot_free(world, SML_CONTAINER(node, struct sim_slot, link));
    }
}
