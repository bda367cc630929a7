/* SPDX-License-Identifier: MIT */
/* world.c - the clock, the memory and the phases of one simulated run. See sim.h.
 *
 * Time moves from event to event; nothing happens between them. Events lie in the same heap that
 * the library uses for its timers: it is intrusive and deterministic. */
#include "durable.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAME_TIME_MAX 1000000u /* events at one instant before it counts as spinning */
#define EVENTS_MAX 20000000u   /* of one seed */
#define HEAL_SECONDS 1500u     /* every call must have ended by then */
#define SETTLE_SECONDS 400u
#define POOL_BYTES (SIM_POOL_HOT + 3u * SIM_BODY_MAX)

/* ---- events -------------------------------------------------------------------------------- */

void sim_event_init(struct sim_event *event, sim_fire_fn fire)
{
    sml_heap_node_init(&event->node);
    event->fire = fire;
}

void sim_at(struct sim_world *world, struct sim_event *event, uint64_t when)
{
    sml_heap_remove(&world->events, &event->node);
    sml_heap_insert(&world->events, &event->node, when < world->now ? world->now : when);
}

void sim_by(struct sim_world *world, struct sim_event *event, uint64_t when)
{
    if (when == SML_NEVER || (event->node.in_heap && event->node.key <= when))
        return;
    sim_at(world, event, when);
}

void sim_off(struct sim_world *world, struct sim_event *event)
{
    sml_heap_remove(&world->events, &event->node);
}

/* ---- saying what happens ------------------------------------------------------------------- */

void sim_fail(struct sim_world *world, const char *format, ...)
{
    va_list args;

    if (world->failed)
        return;
    world->failed = true;
    va_start(args, format);
    vsnprintf(world->why, sizeof world->why, format, args);
    va_end(args);
    sim_say(world, "VIOLATION: %s", world->why);
}

void sim_say(const struct sim_world *world, const char *format, ...)
{
    va_list args;

    if (!world->options->verbose)
        return;
    printf("%14.6f ms  ", (double)world->now / 1e6);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

/* ---- memory -------------------------------------------------------------------------------- */

struct block {
    struct sml_list link;
    uint64_t bytes;
    uint64_t magic;
};

#define BLOCK_LIVE UINT64_C(0x73696d206c697665)
#define BLOCK_DEAD UINT64_C(0x73696d2064656164)

static void *arena_alloc(void *user, size_t bytes)
{
    struct sim_arena *arena = user;
    struct block *block;

    if (arena->failures_left && (arena->failures_left-- & 1)) {
        arena->failed++;
        return NULL;
    }
    /* Nobody makes the machines ask for more than the largest body allowed. */
    SML_ASSERT(bytes <= SIM_BODY_MAX + (128u << 10));
    block = malloc(sizeof *block + bytes);
    SML_ASSERT(block);
    block->bytes = bytes;
    block->magic = BLOCK_LIVE;
    sml_list_push_back(&arena->blocks, &block->link);
    arena->count++;
    arena->bytes += bytes;
    if (arena->bytes > arena->bytes_most)
        arena->bytes_most = arena->bytes;
    return block + 1;
}

static void arena_release(void *user, void *pointer)
{
    struct sim_arena *arena = user;
    struct block *block = pointer;

    if (!pointer)
        return;
    block--;
    SML_ASSERT(block->magic == BLOCK_LIVE);
    block->magic = BLOCK_DEAD;
    sml_list_remove(&block->link);
    arena->count--;
    arena->bytes -= block->bytes;
    free(block);
}

void sim_arena_init(struct sim_arena *arena)
{
    memset(arena, 0, sizeof *arena);
    arena->mem = (struct sml_mem){ arena_alloc, arena_release, arena };
    sml_list_init(&arena->blocks);
}

void sim_arena_wipe(struct sim_arena *arena)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(&arena->blocks)) != NULL) {
        struct block *block = SML_CONTAINER(node, struct block, link);

        block->magic = BLOCK_DEAD;
        free(block);
    }
    arena->count = arena->bytes = 0;
    arena->failures_left = 0;
}

/* ---- what a seed switches on --------------------------------------------------------------- */

static uint64_t pick(struct sim_rng *rng, const uint64_t *from, size_t count)
{
    return from[sim_below(rng, count)];
}
#define PICK(rng, ...)                                                                             \
    pick(rng, (const uint64_t[]){ __VA_ARGS__ },                                                   \
         sizeof((const uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t))

static uint64_t draw_store_menu(struct sim_world *world)
{
    const uint64_t all = SIM_BIT(SIM_FAULT_COUNT) - 1; /* of 64 bits, 63 are taken */
    /* What may end a call that waits, or lose its session or its store. */
    const uint64_t endings =
        SIM_BIT(SIM_CLIENT_MEMORY) | SIM_BIT(SIM_CLIENT_STOP) | SIM_BIT(SIM_CLIENT_CRASH) |
        SIM_BIT(SIM_SERVER_MEMORY) | SIM_BIT(SIM_OUTAGE) | SIM_BIT(SIM_HANGING_HANDLER) |
        SIM_BIT(SIM_DEAF_HANDLER) | SIM_BIT(SIM_DROPPED_REQUEST) | SIM_BIT(SIM_MAX_RUN) |
        SIM_BIT(SIM_NO_METHOD) | SIM_BIT(SIM_CANCEL) | SIM_BIT(SIM_SHORT_DEADLINE) |
        SIM_BIT(SIM_PAST_DEADLINE) | SIM_BIT(SIM_REFUSE_WHEN_FULL) | SIM_BIT(SIM_TOO_LARGE) |
        SIM_BIT(SIM_SPOILER) | SIM_BIT(SIM_OLD_COPY) | SIM_BIT(SIM_RENEWED_COPY) |
        SIM_BIT(SIM_KIND_ONCE) | SIM_BIT(SIM_CRASH_RESOLVE) | SIM_BIT(SIM_SHORT_RETENTION) |
        SIM_BIT(SIM_OTHER_CONTENTS);
    uint64_t menu = all & sim_rand(&world->load);

    if (world->options->mode == SIM_STEADY)
        menu &= ~endings;
    menu |= world->options->with;
    if (world->options->only)
        menu &= world->options->only;
    return menu & ~world->options->without;
}

static uint64_t draw_menu(struct sim_world *world)
{
    const uint64_t streams = SIM_BIT(SIM_STREAMS) | SIM_BIT(SIM_SLOW_READER);
    const uint64_t all = (SIM_BIT(SIM_POWER_CUT) - 1) | streams; /* without those of stores */
    const uint64_t network = SIM_BIT(SIM_RESTART) - 1;
    uint64_t menu = all;

    if (sim_has_stores(world->options))
        return draw_store_menu(world);

    if (world->options->mode == SIM_SWARM || world->options->mode == SIM_HOSTILE)
        menu &= sim_rand(&world->load);
    if (world->options->mode == SIM_CALM)
        menu &= network | SIM_BIT(SIM_SLOW_HANDLER) | SIM_BIT(SIM_FAILING_HANDLER) |
                SIM_BIT(SIM_FULL_QUEUE) | SIM_BIT(SIM_REORDERED_QUEUE) | SIM_BIT(SIM_LATE_ACCEPT) |
                SIM_BIT(SIM_BIG_BODIES) | streams;
    if (world->options->mode == SIM_CALM && sim_chance(&world->load, 2))
        menu &= ~SIM_BIT(SIM_FULL_QUEUE);
    if (!(menu & network))
        menu |= SIM_BIT(SIM_CUT);
    menu |= world->options->with;
    if (world->options->only)
        menu &= world->options->only;
    return menu & ~world->options->without;
}

static void draw_link(struct sim_world *world)
{
    struct sim_params *params = &world->params;
    struct sim_rng *rng = &world->load;
    struct sml_link_options *link = &params->link;

    link->cancel_grace = PICK(rng, 1, 20, 1000, 1000) * SML_MS;
    link->connect = PICK(rng, 300, 3000) * SML_MS;
    link->handshake = PICK(rng, 500, 5000) * SML_MS;
    link->heartbeat = PICK(rng, 100, 1000, 5000) * SML_MS;
    link->heartbeat_missed = (uint32_t)PICK(rng, 1, 3, 3);
    link->backoff_min = PICK(rng, 10, 100) * SML_MS;
    link->backoff_max = PICK(rng, 200, 5000) * SML_MS;
    link->give_up = sim_on(world, SIM_OUTAGE) ? PICK(rng, 1500, 8000, 60000) * SML_MS
                                              : UINT64_C(100000) * SML_SECOND;
    link->reconnect = !sim_on(world, SIM_OUTAGE) || !sim_chance(rng, 6);
    link->addresses = params->addresses;
    link->window = (uint32_t)PICK(rng, 1, 2, 7, 32, 256, 1024, 1024);
    link->pending_max = (uint32_t)PICK(rng, 4, 64, 4096, 4096);
    link->body_bytes = SIM_BODY_MAX + 64 * 1024;
}

static void draw_host(struct sim_world *world)
{
    struct sim_params *params = &world->params;
    struct sim_rng *rng = &world->load;
    struct sml_host_options *host = &params->host;

    host->limits.window = (uint32_t)PICK(rng, 1, 2, 7, 64, 1024, 1024);
    host->limits.body_bytes = PICK(rng, 3000, 30000, SIM_BODY_MAX, SIM_BODY_MAX);
    host->limits.session_bytes = host->limits.body_bytes * PICK(rng, 1, 2, 200, 200);
    host->sessions_max = world->options->mode == SIM_HOSTILE ? 4096 : 64;
    /* Long enough that no honest client is away for it, unless that is on the menu. */
    host->idle = sim_on(world, SIM_OUTAGE) ? PICK(rng, 3, 20, 120) * SML_SECOND : 300 * SML_SECOND;
    host->handshake = PICK(rng, 500, 5000) * SML_MS;
    host->silence = params->link.heartbeat * (params->link.heartbeat_missed + 1) + SML_SECOND;
    host->heartbeat_ms = (uint32_t)(params->link.heartbeat / SML_MS);
    host->features = SML_FEATURE_PARTS;
    host->dedup_off = world->options->dedup_off;
}

void sim_params_draw(struct sim_world *world)
{
    struct sim_params *params = &world->params;
    struct sim_rng *rng = &world->load;

    params->menu = sim_trace_menu(world, draw_menu(world));
    params->clients = (uint32_t)PICK(rng, 1, 2, 3, 6);
    params->servers = params->addresses = (uint32_t)PICK(rng, 1, 1, 2);
    params->target = (uint32_t)PICK(rng, 1, 4, 30, 30, 100, 400);
    params->batch = (uint32_t)PICK(rng, 1, 8, 32, 32);
    params->gap = PICK(rng, 10, 200, 1000, 5000) * UINT64_C(1000);
    params->latency_low = PICK(rng, 5, 20, 100) * UINT64_C(1000);
    params->latency_high = params->latency_low * PICK(rng, 1, 3, 30);
    params->deadline = PICK(rng, 5, 30, 60) * SML_SECOND;
    params->no_deadlines = world->options->mode == SIM_CALM || world->options->mode == SIM_STEADY ||
                           (world->options->mode != SIM_HOSTILE && sim_chance(rng, 3));
    params->workers = (uint32_t)PICK(rng, 1, 2, 8, 64);
    params->backlog = sim_on(world, SIM_FULL_QUEUE) ? (uint32_t)PICK(rng, 0, 1, 4, 16) : 100000;
    params->busy_ms = (uint32_t)PICK(rng, 10, 50, 200);
    if (sim_on(world, SIM_FULL_QUEUE) && params->target > 30)
        params->target = 30;
    params->pipe_bytes = PICK(rng, SML_FRAME_BYTES_MAX, 128u << 10, 256u << 10);
    params->calls_per_fault = (uint32_t)PICK(rng, 2, 4, 8, 12);
    params->big_in = sim_on(world, SIM_BIG_BODIES) ? (uint32_t)PICK(rng, 50, 300, 1000) : 0;
    params->exact = sim_chance(rng, 8);
    if (sim_on(world, SIM_STREAMS)) { /* then few streams may hold much, or none */
        params->windows_up = SML_STREAM_WINDOWS - PICK(rng, 64, 64, 2, 0) * SML_STREAM_WINDOW;
        params->windows_down = SML_STREAM_WINDOWS - PICK(rng, 64, 64, 2, 0) * SML_STREAM_WINDOW;
    }
    draw_link(world);
    draw_host(world);
    if (world->options->clients && params->clients > world->options->clients)
        params->clients = world->options->clients;
    if (world->options->target && params->target > world->options->target)
        params->target = world->options->target;
}

/* ---- phases -------------------------------------------------------------------------------- */

static void heal(struct sim_world *world)
{
    struct sml_list *node;

    sim_say(world, "phase: heal, %u of %u calls done", world->done, world->calls);
    world->phase = SIM_HEAL;
    world->phase_end = world->now + HEAL_SECONDS * SML_SECOND;
    sim_hostile_stop(world);
    for (uint32_t i = 0; i < world->params.clients; i++) {
        struct sim_client *client = &world->clients[i];

        sim_off(world, &client->fault);
        client->refuse_connects = client->silent_connects = 0;
        client->duplicates_due = 0;
        client->late_hello = false;
        client->arena.failures_left = 0;
    }
    for (uint32_t i = 0; i < world->params.servers; i++)
        world->servers[i].arena.failures_left = 0;
    for (node = world->conns.next; node != &world->conns; node = node->next)
        sim_conn_heal(world, SML_CONTAINER(node, struct sim_conn, all));
}

static void check_settled(struct sim_world *world)
{
    for (uint32_t i = 0; i < world->params.clients; i++) {
        struct sim_client *client = &world->clients[i];
        const struct sml_caller *caller = &client->link.caller;

        if (!client->alive || client->dirty)
            continue;
        if (!sml_caller_idle(caller) || caller->unreleased || caller->pending ||
            caller->bytes_out || caller->by_xid.count || caller->ack_count ||
            caller->windows != world->params.windows_down || !sml_list_empty(&caller->streams) ||
            !sml_list_empty(&caller->events))
            sim_fail(world, "settled client %u is not empty: unreleased %u, pending %u, out %llu",
                     i, caller->unreleased, caller->pending, (unsigned long long)caller->bytes_out);
    }
    for (uint32_t i = 0; i < world->params.servers; i++) {
        struct sim_server *server = &world->servers[i];

        for (struct sml_list *node = server->sessions.next; node != &server->sessions;
             node = node->next) {
            struct sim_session *info = SML_CONTAINER(node, struct sim_session, all);

            /* A session whose client gave it up may keep what nobody released. */
            if (!info->session->peer || world->clients[info->client_tag].dirty)
                continue;
            if (!sml_callee_empty(&info->session->callee) || info->session->callee.held ||
                info->session->callee.bytes_in || info->session->callee.bytes_stored ||
                info->session->callee.windows != world->params.windows_up ||
                !sml_list_empty(&info->session->callee.streams))
                sim_fail(world, "settled session %u is not empty", info->serial);
        }
    }
}

static void leave(struct sim_world *world)
{
    sim_say(world, "phase: leave");
    sim_trace_quiet(world);
    check_settled(world);
    if (world->durable)
        sim_judge_settled(world);
    world->phase = SIM_LEAVE;
    for (uint32_t i = 0; i < world->params.clients; i++) {
        struct sim_client *client = &world->clients[i];

        if (!client->alive)
            continue;
        if (sim_below(&world->load, 3))
            sim_client_stop(world, client, false);
        else
            sim_client_crash(world, client, false);
    }
    world->phase_end = world->now + world->params.host.idle + world->params.host.silence +
                       world->params.host.handshake + 300 * SML_SECOND;
    sim_at(world, &world->phase_event, world->phase_end);
}

static void check_left(struct sim_world *world)
{
    for (uint32_t i = 0; i < world->params.servers; i++) {
        struct sim_server *server = &world->servers[i];

        if (server->host.session_count || !sml_list_empty(&server->sessions))
            sim_fail(world, "server %u still has %u sessions", i, server->host.session_count);
        if (server->queued || server->busy)
            sim_fail(world, "server %u still has %u jobs", i, server->queued + server->busy);
    }
    if (!sml_list_empty(&world->conns))
        sim_fail(world, "a connection outlived its client and its server's patience");
    world->phase = SIM_OVER;
}

static void phase_fire(struct sim_world *world, struct sim_event *event)
{
    switch (world->phase) {
    case SIM_HEAL:
        world->phase = SIM_SETTLE;
        for (uint32_t i = 0; i < world->params.clients; i++)
            if (world->clients[i].alive)
                sim_client_accept_all(world, &world->clients[i]);
        sim_at(world, event, world->now + SETTLE_SECONDS * SML_SECOND);
        break;
    case SIM_SETTLE:
        leave(world);
        break;
    case SIM_LEAVE:
        check_left(world);
        break;
    default:
        break;
    }
}

/* Called whenever a call was submitted or ended. */
static void advance_phase(struct sim_world *world)
{
    if (world->phase == SIM_LOAD && world->issued == world->calls && !sim_trace_lingers(world))
        heal(world);
    if (world->phase == SIM_HEAL && world->done == world->calls && !world->phase_event.node.in_heap)
        sim_at(world, &world->phase_event, world->now);
    if (world->phase == SIM_HEAL && world->now > world->phase_end)
        sim_fail(world, "%u calls did not end within %u s after healing",
                 world->calls - world->done, HEAL_SECONDS);
}

/* ---- one run ------------------------------------------------------------------------------- */

/* Bytes for bodies and replies, and, without NUL, for texts. */
static void fill_pools(struct sim_world *world)
{
    static uint8_t pool[POOL_BYTES], text[SIM_TEXT_POOL + SEMEL_TRACE_BYTES + 8];
    struct sim_rng rng = { 42 };

    world->pool = pool;
    world->text = text;
    if (text[0])
        return;
    for (size_t i = 0; i + 8 <= sizeof pool; i += 8) {
        uint64_t word = sim_rand(&rng);

        memcpy(pool + i, &word, 8);
    }
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)(33 + (pool[i] & 63));
}

static void world_init(struct sim_world *world, const struct sim_options *options, uint64_t seed,
                       struct sim_stats *stats)
{
    memset(world, 0, sizeof *world);
    world->options = options;
    world->stats = stats;
    world->seed = seed;
    world->load.state = sim_mix(seed * 3 + 1);
    world->net.state = sim_mix(seed * 3 + 2);
    world->faults.state = sim_mix(seed * 3 + 3);
    world->now = SML_SECOND;
    world->calls = options->calls;
    fill_pools(world);
    sml_heap_init(&world->events);
    sml_list_init(&world->free_slots);
    sml_list_init(&world->conns);
    sml_list_init(&world->free_conns);
    sml_list_init(&world->free_jobs);
    sml_list_init(&world->free_sessions);
    sim_event_init(&world->phase_event, phase_fire);
    world->rows = calloc(world->calls, sizeof *world->rows);
    world->scratch = malloc(4 * SML_FRAME_BYTES_MAX);
    SML_ASSERT(world->rows && world->scratch);
    sim_params_draw(world);
    sim_trace_begin(world);
    if (sim_has_stores(options))
        sim_durable_init(world);
    for (uint32_t i = 0; i < world->params.servers; i++) {
        world->servers[i].index = i;
        sim_server_start(world, &world->servers[i]);
    }
    for (uint32_t i = 0; i < world->params.clients; i++) {
        world->clients[i].index = i;
        sim_client_start(world, &world->clients[i]);
    }
    world->clients[SIM_NOBODY].dirty = true;
    if (options->mode == SIM_HOSTILE)
        sim_hostile_init(world);
}

#define FREE_LIST(world, list, type, member)                                                       \
    do {                                                                                           \
        struct sml_list *node_;                                                                    \
        while ((node_ = sml_list_pop_front(&(world)->list)) != NULL)                               \
            free(SML_CONTAINER(node_, type, member));                                              \
    } while (0)

static void world_fini(struct sim_world *world)
{
    sim_trace_end(world);
    for (uint32_t i = 0; i < world->params.clients; i++)
        if (world->clients[i].alive)
            sim_client_crash(world, &world->clients[i], false);
    for (uint32_t i = 0; i < world->params.servers; i++)
        sim_server_fini(world, &world->servers[i]);
    sim_hostile_fini(world);
    sim_net_fini(world);
    FREE_LIST(world, free_slots, struct sim_slot, link);
    FREE_LIST(world, free_jobs, struct sim_job, link);
    FREE_LIST(world, free_sessions, struct sim_session, all);
    free(world->rows);
    free(world->scratch);
    if (world->durable)
        sim_durable_fini(world);
}

static void world_loop(struct sim_world *world)
{
    while (!world->failed && world->phase != SIM_OVER) {
        struct sml_heap_node *node = sml_heap_min(&world->events);
        struct sim_event *event;

        if (!node) {
            sim_fail(world, "nothing left to happen: %u of %u calls done, phase %d", world->done,
                     world->calls, (int)world->phase);
            break;
        }
        world->same_time = node->key == world->now ? world->same_time + 1 : 0;
        if (world->same_time > SAME_TIME_MAX)
            sim_fail(world, "time stands still: somebody spins");
        if (world->event_count > EVENTS_MAX)
            sim_fail(world, "%u events, and no end: %u of %u calls done, phase %d", EVENTS_MAX,
                     world->done, world->calls, (int)world->phase);
        world->now = node->key;
        event = SML_CONTAINER(node, struct sim_event, node);
        sml_heap_remove(&world->events, node);
        world->event_count++;
        event->fire(world, event);
        if (world->dying)
            sim_server_kill(world, world->dying, false, sim_below(&world->faults, 100 * SML_MS));
        advance_phase(world);
    }
}

bool sim_world_run(const struct sim_options *options, uint64_t seed, struct sim_stats *stats,
                   char *out_why, size_t why_bytes)
{
    static struct sim_world world;

    world_init(&world, options, seed, stats);
    world_loop(&world);
    sim_ledger_close(&world);
    world_fini(&world);
    sim_note(&world, world.now);
    stats->seeds++;
    stats->calls += world.issued;
    stats->events += world.event_count;
    stats->hash = sim_mix(stats->hash ^ world.hash);
    if (world.failed)
        snprintf(out_why, why_bytes, "%s", world.why);
    return !world.failed;
}
