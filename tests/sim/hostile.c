/* SPDX-License-Identifier: MIT */
/* hostile.c - peers that mean harm, or are broken. See sim.h.
 *
 * Three kinds. Raw peers are no clients at all: they connect and send garbage, well-formed frames
 * in the wrong state, mutated frames, stolen session ids, or nothing. Tampered clients are honest
 * machines whose bytes are damaged on the way, in either direction, below every check; what their
 * calls were told proves nothing, but nothing may crash, and each of them still ends once.
 * Poisoned clients get only garbage from their server: they must stop coming back.
 *
 * Beside them honest clients work, and every invariant holds for these as ever. */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

#define ROUNDS_MAX 24u
#define POISONINGS_MAX 2u /* the first is forgiven: it may have been a damaged stream */

static struct sim_rng *dice(struct sim_world *world)
{
    return &world->faults;
}

/* ---- what raw peers send ------------------------------------------------------------------- */

static uint64_t odd_number(struct sim_world *world, uint64_t about)
{
    uint64_t bits = sim_below(dice(world), 64);

    switch (sim_below(dice(world), 6)) {
    case 0:
        return sim_rand(dice(world)) >> bits;
    case 1:
        return about + 1;
    case 2:
        return about - 1;
    case 3:
        return 0;
    default:
        return about;
    }
}

/* An id that the server does not know yet could be squatted: nobody can guess it before. */
static bool holds_session(const struct sim_client *victim, const struct sim_raw *raw)
{
    return victim->alive && victim->link.state == SML_LINK_UP && victim->conn &&
           victim->conn->server == raw->conn->server && victim->conn->peer.session;
}

static size_t put_hello(struct sim_world *world, struct sim_raw *raw, uint8_t *out)
{
    struct sim_rng *rng = dice(world);
    const struct sim_client *victim = &world->clients[sim_below(rng, world->params.clients)];
    struct sml_hello hello = { .version = SML_VERSION,
                               .kind = SML_CREATE,
                               .conn_no = ++raw->conn_no,
                               .next = 1,
                               .body_bytes = SIM_BODY_MAX,
                               .window = 64,
                               .heartbeat_ms = 1000 };
    uint64_t kind = sim_below(rng, 8);

    hello.session = raw->session;
    memcpy(hello.secret, raw->secret, sizeof hello.secret);
    if (kind <= 2 && holds_session(victim, raw)) {
        /* A known id without the secret, or with it and the wrong principal. */
        hello.session = victim->link.session;
        hello.kind = kind == 0 ? SML_CREATE : SML_RESUME;
        hello.conn_no = UINT32_MAX;
        if (kind == 2)
            memcpy(hello.secret, victim->link.secret, sizeof hello.secret);
    } else if (kind == 3) {
        hello.kind = SML_RESUME;
        hello.count = (uint32_t)sim_below(rng, 3) * 1000;
        hello.next = odd_number(world, 1);
    } else if (kind == 4) {
        hello.window = (uint32_t)odd_number(world, 64);
        hello.version = (uint16_t)sim_below(rng, 3);
    }
    raw->next_xid = 1;
    return sml_encode_hello(out, &hello);
}

static size_t put_call(struct sim_world *world, struct sim_raw *raw, uint8_t *out)
{
    struct sim_rng *rng = dice(world);
    size_t bytes = sim_below(rng, 300);
    struct sml_call_frame call = {
        .method = semel_bytes_text("junk"),
        .content_type = semel_bytes_text("none"),
    };

    call.fingerprint.a = sim_rand(rng);
    call.body_bytes = sim_chance(rng, 3) ? odd_number(world, SIM_BODY_MAX) : bytes;
    call.remaining_ms = (uint32_t)sim_below(rng, 5000);
    call.flags = (uint8_t)sim_below(rng, 4);
    if (bytes > call.body_bytes)
        bytes = (size_t)call.body_bytes;
    call.fragment = semel_bytes(world->pool, bytes);
    return sml_encode_call(
        out, sim_chance(rng, 6) ? odd_number(world, raw->next_xid) : raw->next_xid++, &call);
}

static size_t put_lists(struct sim_world *world, struct sim_raw *raw, uint8_t *out)
{
    struct sim_rng *rng = dice(world);
    struct sml_outstanding outstanding[8];
    struct sml_listed listed[8];
    struct sml_ack_range ranges[8];
    uint32_t count = 1 + (uint32_t)sim_below(rng, 8);

    for (uint32_t i = 0; i < count; i++) {
        outstanding[i] = (struct sml_outstanding){ .xid = odd_number(world, i + 1) };
        outstanding[i].held = odd_number(world, 0);
        listed[i] = (struct sml_listed){ .xid = i + 1, .state = SML_STATE_DONE };
        ranges[i].first = odd_number(world, raw->next_xid);
        ranges[i].count = 1 + (uint32_t)sim_below(rng, 5);
        if (sim_chance(rng, 9))
            ranges[i].count = (uint32_t)sim_rand(rng);
    }
    switch (sim_below(rng, 3)) {
    case 0:
        return sml_encode_outstanding(out, outstanding, count);
    case 1:
        return sml_encode_listed(out, listed, count);
    default:
        return sml_encode_ack(out, ranges, count);
    }
}

static size_t put_other(struct sim_world *world, struct sim_raw *raw, uint8_t *out)
{
    struct sim_rng *rng = dice(world);
    struct sml_welcome welcome = { .version = SML_VERSION, .window = 1 };
    struct sml_reply_frame reply = { .verdict = { .outcome = SEMEL_VALUE } };
    uint64_t xid = odd_number(world, raw->next_xid);

    switch (sim_below(rng, 7)) {
    case 0:
        return sml_encode_welcome(out, &welcome);
    case 1:
        return sml_encode_reply(out, xid, &reply);
    case 2:
        return sml_encode_busy(out, xid, 1);
    case 3:
        return sml_encode_bye(out, (enum sml_bye_code)(1 + sim_below(rng, 10)),
                              semel_bytes_text("hostile"));
    case 4:
        return sml_encode_body(out, xid, odd_number(world, 0), semel_bytes(world->pool, 77));
    case 5:
        return sml_encode_drain(out, 1);
    default:
        sml_encode_plain(out, SML_PING, xid);
        out[4] = (uint8_t)sim_between(rng, 1, 20);
        return SML_HEADER_BYTES;
    }
}

static size_t put_garbage(struct sim_world *world, uint8_t *out)
{
    size_t bytes = 1 + sim_below(dice(world), 600);

    memcpy(out, world->pool + sim_below(dice(world), SIM_POOL_HOT), bytes);
    /* Half of it with a believable length, so that more than the length is looked at. */
    if (bytes > SML_HEADER_BYTES && sim_chance(dice(world), 2)) {
        out[0] = (uint8_t)sim_below(dice(world), 64);
        out[1] = out[2] = out[3] = out[6] = out[7] = 0;
        out[4] = (uint8_t)sim_below(dice(world), 17);
        out[5] = (uint8_t)sim_chance(dice(world), 8);
    }
    return bytes;
}

static void mutate(struct sim_world *world, uint8_t *at, size_t bytes)
{
    for (uint64_t n = 1 + sim_below(dice(world), 4); n > 0; n--) {
        size_t within = bytes < 64 || sim_chance(dice(world), 2) ? bytes : 64;
        size_t where = sim_below(dice(world), within);

        at[where] ^= (uint8_t)(1u << sim_below(dice(world), 8));
    }
}

static size_t compose(struct sim_world *world, struct sim_raw *raw, uint8_t *out)
{
    struct sim_rng *rng = dice(world);
    size_t bytes;

    if (!raw->said_hello && sim_below(rng, 6)) {
        raw->said_hello = true;
        bytes = put_hello(world, raw, out);
        if (sim_below(rng, 4))
            return bytes;
    } else {
        uint64_t kind = sim_below(rng, 10);

        bytes = kind < 5   ? put_call(world, raw, out)
                : kind < 7 ? put_lists(world, raw, out)
                : kind < 9 ? put_other(world, raw, out)
                           : put_garbage(world, out);
    }
    if (sim_chance(rng, 3))
        mutate(world, out, bytes);
    if (sim_chance(rng, 12))
        bytes = 1 + sim_below(rng, bytes);
    return bytes;
}

/* ---- raw peers ----------------------------------------------------------------------------- */

static void raw_connect(struct sim_world *world, struct sim_raw *raw)
{
    struct sim_server *server = &world->servers[sim_below(dice(world), world->params.servers)];
    struct sim_conn *conn;

    raw->said_hello = false;
    raw->rounds = (uint32_t)sim_below(dice(world), ROUNDS_MAX);
    if (!server->up)
        return;
    for (size_t i = 0; i < sizeof raw->secret; i++)
        raw->secret[i] = (uint8_t)sim_rand(dice(world));
    memcpy(raw->session.bytes, raw->secret, sizeof raw->session.bytes);
    raw->conn_no = 0;
    conn = sim_conn_new(world, server->index);
    conn->client_index = SIM_NOBODY;
    conn->owner = raw;
    conn->connected = true;
    raw->conn = conn;
    sim_server_accept(world, server, conn);
}

/* Somebody holds a copy of a client's session: the newest connection wins, and the client is told
 * so and stops. */
static void clone(struct sim_world *world, struct sim_raw *raw)
{
    struct sim_client *victim = &world->clients[sim_below(dice(world), world->params.clients)];
    struct sml_hello hello = { .version = SML_VERSION,
                               .kind = SML_RESUME,
                               .conn_no = victim->link.conn_no + 1,
                               .next = victim->link.caller.next,
                               .body_bytes = SIM_BODY_MAX,
                               .window = 64,
                               .heartbeat_ms = 1000 };

    if (raw->said_hello || victim->index == 0 || !holds_session(victim, raw))
        return;
    sim_say(world, "client %u is cloned on connection %u", victim->index, raw->conn->number);
    sim_client_soil(world, victim);
    victim->cloned = true;
    raw->said_hello = true;
    raw->conn->peer.principal = victim->principal;
    hello.session = victim->link.session;
    memcpy(hello.secret, victim->link.secret, sizeof hello.secret);
    memcpy(hello.server_id, victim->link.server_id, sizeof hello.server_id);
    sim_pipe_write(world, &raw->conn->up, world->hostile.scratch,
                   sml_encode_hello(world->hostile.scratch, &hello));
}

static void raw_act(struct sim_world *world, struct sim_event *event)
{
    struct sim_raw *raw = SML_CONTAINER(event, struct sim_raw, act);
    uint64_t wait = sim_below(dice(world), 20 * SML_MS);

    if (!raw->conn) {
        raw_connect(world, raw);
    } else if (raw->rounds == 0) {
        /* Leave, or stay without a word until the server has enough of it. */
        if (sim_below(dice(world), 4))
            sim_hostile_gone(world, raw->conn);
        else
            wait = 10 * SML_SECOND;
    } else {
        raw->rounds--;
        if (sim_chance(dice(world), 40))
            clone(world, raw);
        else
            sim_pipe_write(world, &raw->conn->up, world->hostile.scratch,
                           compose(world, raw, world->hostile.scratch));
    }
    sim_at(world, event, world->now + 1 + wait);
}

void sim_hostile_gone(struct sim_world *world, struct sim_conn *conn)
{
    struct sim_raw *raw = conn->owner;

    sim_conn_close_client(world, conn);
    raw->conn = NULL;
}

/* ---- damaged clients ----------------------------------------------------------------------- */

/* Its bytes, `from` to the end of the pipe, are tampered with now and then; or are all poison. */
void sim_hostile_tamper(struct sim_world *world, struct sim_client *client, struct sim_pipe *pipe,
                        size_t from)
{
    uint32_t in = pipe->upward ? client->tamper_up : client->tamper_down;
    size_t bytes = pipe->end - from;

    if (world->phase != SIM_LOAD)
        return;
    if (client->poisoned && !pipe->upward) {
        memset(pipe->buffer + from, 0xff, bytes);
        return;
    }
    if (!sim_chance(dice(world), in))
        return;
    world->stats->tampered++;
    if (bytes > 20 && sim_chance(dice(world), 4)) {
        size_t gone = 1 + sim_below(dice(world), 8);

        memmove(pipe->buffer + from, pipe->buffer + from + gone, bytes - gone);
        pipe->end -= gone;
    } else {
        mutate(world, pipe->buffer + from, bytes);
    }
}

/* What a client that starts is going to suffer. The first one is always left in peace. */
void sim_hostile_draw(struct sim_world *world, struct sim_client *client)
{
    struct sim_rng *rng = dice(world);

    if (world->options->mode != SIM_HOSTILE || client->index == 0 || world->phase != SIM_LOAD ||
        sim_chance(rng, 2))
        return;
    client->dirty = true;
    client->poisoned = sim_chance(rng, 4);
    client->tamper_up = (uint32_t)sim_between(rng, 2, 40);
    client->tamper_down = (uint32_t)sim_between(rng, 2, 40);
}

/* A client that failed for good: was it made to? */
bool sim_hostile_failed(struct sim_world *world, struct sim_client *client)
{
    if (world->options->mode != SIM_HOSTILE || !client->dirty)
        return false;
    if (client->cloned && client->link.why == SEMEL_TAKEN_OVER)
        sim_mark(world, SIM_MARK_CLONE_TOOK_OVER);
    if (client->link.counters.protocol_errors)
        sim_mark(world, SIM_MARK_CLIENT_SAW_GARBAGE);
    if (client->poisoned)
        sim_mark(world, SIM_MARK_POISON_ENDED);
    return true;
}

/* Nobody takes poison for ever. */
void sim_hostile_fed(struct sim_world *world, const struct sim_client *client)
{
    if (client->poisoned && client->link.counters.protocol_errors > POISONINGS_MAX)
        sim_fail(world, "client %u came back to a poisoned server", client->index);
}

/* ---- beginning and end --------------------------------------------------------------------- */

void sim_hostile_init(struct sim_world *world)
{
    struct sim_hostile *hostile = &world->hostile;

    hostile->scratch = malloc(2 * SML_FRAME_BYTES_MAX);
    SML_ASSERT(hostile->scratch);
    hostile->count = 1 + (uint32_t)sim_below(dice(world), SIM_RAW_MAX);
    for (uint32_t i = 0; i < hostile->count; i++) {
        sim_event_init(&hostile->raw[i].act, raw_act);
        sim_at(world, &hostile->raw[i].act, world->now + sim_below(dice(world), 50 * SML_MS));
    }
}

void sim_hostile_stop(struct sim_world *world)
{
    for (uint32_t i = 0; i < world->hostile.count; i++) {
        struct sim_raw *raw = &world->hostile.raw[i];

        sim_off(world, &raw->act);
        if (raw->conn)
            sim_conn_close_client(world, raw->conn);
        raw->conn = NULL;
    }
}

void sim_hostile_fini(struct sim_world *world)
{
    free(world->hostile.scratch);
    world->hostile.scratch = NULL;
}
