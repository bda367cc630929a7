/* SPDX-License-Identifier: MIT */
/* life.c - how servers with a store, and their stores, come to an end and go on. See durable.h. */
#include "durable.h"

#include <stdlib.h>
#include <string.h>

/* ---- death --------------------------------------------------------------------------------- */

/* The event that is being worked at runs to its end, but nothing that it does is seen. */
void sim_server_die(struct sim_world *world, struct sim_server *server, bool powerless)
{
    if (server->dying)
        return;
    sim_say(world, "server %u is about to die%s", server->index,
            powerless ? " of a power cut" : "");
    server->dying = true;
    server->powerless = powerless;
    world->dying = server;
}

bool sim_point(struct sim_world *world, struct sim_commit *commit, enum sim_point point)
{
    static const enum sim_mark marks[SIM_POINTS] = {
        [SIM_AT_START_UNSTORED] = SIM_MARK_DIED_START_UNSTORED,
        [SIM_AT_START_STORED] = SIM_MARK_DIED_START_STORED,
        [SIM_AT_HANDLER] = SIM_MARK_DIED_IN_HANDLER,
        [SIM_AT_END_UNSTORED] = SIM_MARK_DIED_END_UNSTORED,
        [SIM_AT_UNTOLD] = SIM_MARK_DIED_UNTOLD,
        [SIM_AT_TXN] = SIM_MARK_DIED_IN_TXN,
        [SIM_AT_UNSYNCED] = SIM_MARK_DIED_UNSYNCED,
        [SIM_AT_RESTORE] = SIM_MARK_DIED_IN_RESTORE,
    };

    if (!commit || commit->die_at != point || world->phase != SIM_LOAD)
        return false;
    commit->die_at = SIM_NO_POINT;
    world->stats->faults[SIM_CRASH_POINT]++;
    sim_mark(world, marks[point]);
    sim_server_die(world, commit->server, commit->die_powerless);
    return true;
}

void sim_life_ended(struct sim_world *world, struct sim_server *server)
{
    struct sim_commit *commit = server->commit;
    enum sim_point at = commit->die_at;

    if (server->powerless)
        sim_store_power_cut(world, server->store);
    else
        sim_store_process_died(world, server->store);
    sim_trace_died(world, server);
    sim_commit_reset(world, commit);
    if (at == SIM_AT_RESTORE) /* the next process is the one that is meant */
        commit->die_at = at;
}

/* ---- orderly ends -------------------------------------------------------------------------- */

/* All that ran has ended, all that there was to store is stored: nothing may be left. */
static void leave(struct sim_world *world, struct sim_server *server)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(&server->sessions)) != NULL) {
        struct sim_session *info = SML_CONTAINER(node, struct sim_session, all);

        sim_off(world, &info->timer);
        sml_list_remove(&info->dirty);
        if (info->ended) {
            sml_callee_forsake(&info->session->callee);
            info->session->row = 0;
            sml_session_free(&server->host, info->session);
        }
        sml_list_push_front(&world->free_sessions, &info->all);
    }
    sml_host_fini(&server->host);
    if (server->arena.count)
        sim_fail(world, "server %u leaves %llu bytes in %llu pieces", server->index,
                 (unsigned long long)server->arena.bytes, (unsigned long long)server->arena.count);
    sim_judge_left(world, server);
    sim_trace_left(world);
    sim_mark(world, SIM_MARK_CLEAN_EXIT);
}

static bool is_quiet(const struct sim_world *world, const struct sim_server *server)
{
    for (const struct sml_list *node = world->conns.next; node != &world->conns; node = node->next)
        if (SML_CONTAINER(node, struct sim_conn, all)->server == server)
            return false;
    return server->busy == 0 && server->queued == 0 &&
           (server->commit->broken || sim_commit_is_done(server->commit));
}

/* It was told to stop: it waits for its handlers and for its committer, if nobody is impatient. */
static void wait_fire(struct sim_world *world, struct sim_server *server)
{
    bool quiet = is_quiet(world, server);

    if (!quiet && sim_below(&world->faults, 50)) {
        sim_at(world, &server->restart, world->now + 20 * SML_MS);
        return;
    }
    if (quiet && !server->commit->broken)
        leave(world, server);
    sim_server_kill(world, server, false, sim_below(&world->faults, 200 * SML_MS));
}

void sim_life_stop(struct sim_world *world, struct sim_server *server)
{
    struct sml_list *node, *next;

    if (server->commit->closed) {
        wait_fire(world, server);
        return;
    }
    sim_say(world, "server %u stops", server->index);
    sim_trace_stop(world, server);
    server->stopping = true;
    for (node = server->sessions.next; node != &server->sessions; node = node->next) {
        struct sim_session *info = SML_CONTAINER(node, struct sim_session, all);

        if (info->ended)
            continue;
        sml_callee_stop(&info->session->callee, SEMEL_STOPPED);
        sim_server_mark(server, info);
    }
    sim_commit_close(world, server->commit);
    sim_server_pump(world, server);
    for (node = world->conns.next; node != &world->conns; node = next) {
        struct sim_conn *conn = SML_CONTAINER(node, struct sim_conn, all);

        next = node->next;
        if (conn->server != server || conn->peer.state == SML_PEER_CLOSING)
            continue;
        sml_peer_close(&conn->peer, SML_BYE_SHUTDOWN, "the server stops");
        sim_server_settle(world, conn);
    }
    sim_at(world, &server->restart, world->now + 20 * SML_MS);
}

/* ---- old copies ---------------------------------------------------------------------------- */

void sim_life_put_back(struct sim_world *world, struct sim_server *server, bool renew)
{
    struct sim_store *store = server->store;

    sim_say(world, "the store of server %u is put back as it was at %.3f ms%s", server->index,
            (double)store->copied_at / 1e6, renew ? ", and renewed" : "");
    sim_store_put_back(store);
    if (renew)
        sim_store_renew(store);
    world->durable->put_back_at = world->now;
    sim_judge_put_back(world, server, store->copied_at);
}

/* ---- faults -------------------------------------------------------------------------------- */

static void strike_copy(struct sim_world *world, struct sim_server *server, enum sim_fault fault)
{
    struct sim_store *store = server->store;

    if (!store->copy || sim_chance(&world->faults, 3)) {
        sim_store_copy(world, store);
        return;
    }
    world->stats->faults[fault]++;
    sim_server_kill(world, server, false, sim_below(&world->faults, SML_SECOND));
    sim_life_put_back(world, server, fault == SIM_RENEWED_COPY);
}

static void strike_store(struct sim_world *world, struct sim_server *server, enum sim_fault fault)
{
    struct sim_store *store = server->store;
    struct sim_rng *rng = &world->faults;

    world->stats->faults[fault]++;
    switch (fault) {
    case SIM_STORE_REFUSES:
        store->fails_as =
            world->options->mode == SIM_STEADY || sim_chance(rng, 2) ? SIM_FULL_DISK : SIM_FAILED;
        world->durable->refused |= store->fails_as == SIM_FAILED;
        if (sim_chance(rng, 2))
            store->failing = true;
        else
            store->fail_in = 1 + (uint32_t)sim_below(rng, 20);
        break;
    case SIM_STORE_FULL:
        store->full_until = world->now + sim_below(rng, SML_SECOND);
        break;
    case SIM_STORE_UNKNOWN:
        store->unknown_next = true;
        break;
    case SIM_STORE_SLOW:
        store->slow_until = world->now + sim_below(rng, 100 * SML_MS);
        break;
    default:
        break;
    }
}

void sim_life_strike(struct sim_world *world, struct sim_client *client, enum sim_fault fault)
{
    struct sim_server *server =
        &world->servers[client->link.session_address % world->params.servers];
    struct sim_rng *rng = &world->faults;
    bool silent = sim_chance(rng, 2);

    if (fault == SIM_CRASH_POINT) {
        server->commit->die_at = (enum sim_point)sim_between(rng, 1, SIM_POINTS - 1);
        server->commit->die_powerless = sim_on(world, SIM_POWER_CUT) && sim_chance(rng, 2);
        /* Who dies while it starts must start. */
        if (server->commit->die_at == SIM_AT_RESTORE && server->up && !server->stopping)
            sim_server_kill(world, server, false, sim_below(rng, 10 * SML_MS));
        return;
    }
    if (!server->up || server->stopping)
        return;
    switch (fault) {
    case SIM_POWER_CUT:
        world->stats->faults[fault]++;
        server->powerless = true;
        sim_server_kill(world, server, silent, sim_below(rng, 2 * SML_SECOND));
        break;
    case SIM_OLD_COPY:
    case SIM_RENEWED_COPY:
        strike_copy(world, server, fault);
        break;
    default:
        strike_store(world, server, fault);
        break;
    }
}

/* ---- the world's part ---------------------------------------------------------------------- */

struct sim_story *sim_story(struct sim_world *world, const struct sml_session_id *id,
                            uint32_t client)
{
    struct sml_table *stories = &world->durable->stories;
    struct sim_story *story;
    uint64_t name;

    memcpy(&name, id->bytes, sizeof name);
    story = sml_table_find(stories, name);
    if (story)
        return story;
    story = malloc(sizeof *story);
    SML_ASSERT(story);
    *story = (struct sim_story){ name, ++world->session_serial, client };
    if (!sml_table_insert(stories, name, story))
        SML_ASSERT(!"room in a table");
    return story;
}

#define PICK(rng, ...)                                                                             \
    (((const uint64_t[]){ __VA_ARGS__ })[sim_below(                                                \
        rng, sizeof((const uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t))])

static void draw(struct sim_world *world, struct sim_durable *d)
{
    struct sim_rng *rng = &world->load;
    bool small = sim_on(world, SIM_SMALL_BATCHES);

    d->write_low = PICK(rng, 10, 50, 500, 5000) * UINT64_C(1000);
    d->write_high = d->write_low * PICK(rng, 1, 3, 10);
    d->batch_calls = small ? (uint32_t)PICK(rng, 1, 2, 5) : SIM_BATCH_CALLS;
    /* At least as many records are forgotten as a transaction can make. */
    d->batch_changes = small ? d->batch_calls + (uint32_t)PICK(rng, 0, 3, 20) : SIM_BATCH_CHANGES;
    d->batch_sessions = small ? (uint32_t)PICK(rng, 1, 2, 6) : SIM_BATCH_SESSIONS;
    d->batch_time = 2 * SML_MS;
    d->ahead = (uint32_t)PICK(rng, 0, 0, 64);
    d->lazy = PICK(rng, 1, 25, 25) * SML_MS;
    d->purge = PICK(rng, 200, 5000) * SML_MS;
    d->retention_ms = sim_on(world, SIM_SHORT_RETENTION) ? PICK(rng, 50, 2000, 20000) : 604800000;
    d->one_principal = sim_chance(rng, 2);
    d->keys_in = (uint32_t)PICK(rng, 2, 4, 10);
    d->same_in = (uint32_t)PICK(rng, 2, 4, 10);
    d->put_back_at = SML_NEVER;
}

void sim_durable_init(struct sim_world *world)
{
    struct sim_durable *d = calloc(1, sizeof *d);

    SML_ASSERT(d);
    world->durable = d;
    draw(world, d);
    d->scratch = malloc(SIM_BODY_MAX + (256u << 10));
    SML_ASSERT(d->scratch);
    sml_table_init(&d->stories, &sml_mem_libc, UINT32_MAX / 4);
    sml_table_init(&d->requests, &sml_mem_libc, UINT32_MAX / 4);
    for (uint32_t i = 0; i < SIM_CLIENTS_MAX; i++) {
        sml_table_init(&d->clients[i].unaccepted, &sml_mem_libc, UINT32_MAX / 4);
        sml_table_init(&d->clients[i].sent, &sml_mem_libc, UINT32_MAX / 4);
        sml_list_init(&d->outboxes[i].unrecorded);
        d->outboxes[i].lost_at = SML_NEVER;
    }
    for (uint32_t i = 0; i < world->params.servers; i++) {
        d->stores[i] = sim_store_new(world);
        d->commits[i] = sim_commit_new(world, &world->servers[i]);
    }
}

void sim_durable_fini(struct sim_world *world)
{
    struct sim_durable *d = world->durable;

    for (uint32_t i = 0; i < d->stories.capacity; i++)
        free(d->stories.slots[i].value);
    sml_table_fini(&d->stories);
    sml_table_fini(&d->requests);
    for (uint32_t i = 0; i < SIM_CLIENTS_MAX; i++) {
        sml_table_fini(&d->clients[i].unaccepted);
        sml_table_fini(&d->clients[i].sent);
        free(d->outboxes[i].letters);
    }
    for (uint32_t i = 0; i < SIM_SERVERS_MAX; i++) {
        sim_store_free(d->stores[i]);
        if (d->commits[i])
            sim_commit_free(d->commits[i]);
    }
    free(d->scratch);
    free(d);
    world->durable = NULL;
}
