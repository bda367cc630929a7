/* SPDX-License-Identifier: MIT */
/* ledger.c - the oracle: what each call asked for, which effects it had, what it was told.
 *
 * The handlers write their effects here and nowhere else, the clients their submissions and
 * completions. A call is known by its nonce, which travels as application data (in the method's
 * name or in the content type) and not as anything the machines made up; so a reply given to the
 * wrong call, a body mixed up with another, or an effect repeated under a new number all show.
 *
 * "Not executed" is checked twice: when it is said, and for ever after (an effect that comes later
 * finds the row done). "Unknown" needs a cause that this run really contained. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const behaviour_names[] = { "v", "f", "d", "h", "x", "n" };

/* ---- what belongs to a call ---------------------------------------------------------------- */

const uint8_t *sim_bytes(const struct sim_world *world, uint32_t nonce, enum sim_what what,
                         size_t bytes)
{
    uint64_t mixed = sim_mix(world->seed ^ ((uint64_t)nonce << 8 | (uint64_t)what));

    if (what == SIM_TEXT || what == SIM_TRACE)
        return world->text + mixed % SIM_TEXT_POOL;
    if (bytes > 4096)
        return world->pool + SIM_POOL_HOT + mixed % SIM_BODY_MAX;
    return world->pool + mixed % SIM_POOL_HOT;
}

struct sim_failure_shape sim_failure_shape(const struct sim_world *world, uint32_t nonce)
{
    uint64_t mixed = sim_mix(world->seed + nonce * UINT64_C(77));
    bool rich = mixed % 16 == 0;
    struct sim_failure_shape shape = {
        .code = (int32_t)(mixed >> 32),
        .text = (uint32_t)((mixed >> 8) % (rich ? SEMEL_TEXT_BYTES + 1 : 40)),
        .detail = rich ? (uint32_t)((mixed >> 16) % (SEMEL_DETAIL_BYTES + 1)) : 0,
        .trace = rich ? (uint32_t)((mixed >> 24) % (SEMEL_TRACE_BYTES + 1)) : 0,
    };

    return shape;
}

static uint32_t draw_size(struct sim_world *world)
{
    struct sim_rng *rng = &world->load;

    if (sim_chance(rng, world->params.big_in))
        return (uint32_t)sim_below(rng, sim_chance(rng, 2) ? SIM_BODY_MAX + 1 : 70000);
    if (sim_chance(rng, 8))
        return (uint32_t)sim_below(rng, 4);
    return (uint32_t)sim_below(rng, 200);
}

static void plan_behaviour(struct sim_world *world, struct sim_row *row)
{
    struct sim_rng *rng = &world->load;

    row->behaviour = SIM_DO_REPLY;
    row->run = sim_on(world, SIM_SLOW_HANDLER) && sim_chance(rng, 4)
                   ? sim_below(rng, sim_chance(rng, 10) ? SML_SECOND : 5 * SML_MS)
                   : 0;
    if (sim_on(world, SIM_FAILING_HANDLER) && sim_chance(rng, 8))
        row->behaviour = SIM_DO_FAIL;
    else if (sim_on(world, SIM_DROPPED_REQUEST) && sim_chance(rng, 50))
        row->behaviour = SIM_DO_DROP;
    else if (sim_on(world, SIM_NO_METHOD) && sim_chance(rng, 50))
        row->behaviour = SIM_DO_NO_METHOD;
    else if (sim_on(world, SIM_HANGING_HANDLER) && sim_chance(rng, 100))
        row->behaviour = SIM_DO_HANG;
    else if (sim_on(world, SIM_DEAF_HANDLER) && sim_chance(rng, 200))
        row->behaviour = SIM_DO_DEAF;
    if (row->behaviour == SIM_DO_HANG || row->behaviour == SIM_DO_DEAF)
        row->run = sim_between(rng, 2, 40) * SML_SECOND;
    row->max_run = sim_on(world, SIM_MAX_RUN) && sim_chance(rng, 3)
                       ? sim_between(rng, 1, 5 * SML_SECOND)
                       : SML_NEVER;
    row->effect_late = row->run && sim_chance(rng, 2);
}

static void plan_deadline(struct sim_world *world, struct sim_row *row)
{
    struct sim_rng *rng = &world->load;

    row->deadline = world->params.no_deadlines ? SML_NEVER : world->now + world->params.deadline;
    if (sim_on(world, SIM_SHORT_DEADLINE) && sim_chance(rng, 12))
        row->deadline = world->now + sim_below(rng, 30 * SML_MS);
    if (sim_on(world, SIM_PAST_DEADLINE) && sim_chance(rng, 100))
        row->deadline = world->now - sim_below(rng, SML_SECOND);
}

void sim_row_plan(struct sim_world *world, uint32_t nonce)
{
    struct sim_row *row = &world->rows[nonce];
    struct sim_rng *rng = &world->load;

    row->submitted = world->now;
    row->cancelled_at = SML_NEVER;
    row->body_bytes = draw_size(world);
    if (row->body_bytes > world->params.host.limits.body_bytes)
        row->body_bytes = (uint32_t)world->params.host.limits.body_bytes;
    if (sim_on(world, SIM_TOO_LARGE) && sim_chance(rng, 500))
        row->body_bytes = (uint32_t)world->params.host.limits.body_bytes + 1;
    row->reply_bytes = draw_size(world);
    row->idempotent = sim_chance(rng, 4);
    if (sim_on(world, SIM_RERUN_OK) && sim_chance(rng, row->idempotent ? 2 : 100))
        row->call_flags |= SML_CALL_RERUN_OK;
    if (sim_on(world, SIM_REFUSE_WHEN_FULL) && sim_chance(rng, 8))
        row->call_flags |= SML_CALL_REFUSE_WHEN_FULL;
    row->in_content_type = sim_chance(rng, 2);
    plan_behaviour(world, row);
    plan_deadline(world, row);
}

void sim_row_count(struct sim_world *world, const struct sim_row *row)
{
    uint64_t *faults = world->stats->faults;

    faults[SIM_PAST_DEADLINE] += row->deadline <= row->submitted;
    faults[SIM_SHORT_DEADLINE] +=
        row->deadline > row->submitted && row->deadline <= row->submitted + 30 * SML_MS;
    faults[SIM_RERUN_OK] += (row->call_flags & SML_CALL_RERUN_OK) != 0;
    faults[SIM_REFUSE_WHEN_FULL] += (row->call_flags & SML_CALL_REFUSE_WHEN_FULL) != 0;
    faults[SIM_TOO_LARGE] += row->body_bytes > world->params.host.limits.body_bytes;
    faults[SIM_BIG_BODIES] +=
        row->body_bytes > SML_FRAGMENT_BYTES || row->reply_bytes > SML_FRAGMENT_BYTES;
}

static uint8_t put_name(const struct sim_row *row, uint32_t nonce, char method[16], char type[12])
{
    static const char digits[] = "0123456789abcdef";
    char *out = method;

    *out++ = row->idempotent ? 'i' : 'o';
    *out++ = behaviour_names[row->behaviour][0];
    *out = '\0';
    type[0] = '\0';
    if (row->in_content_type)
        out = type;
    for (int shift = 28; shift >= 0; shift -= 4)
        *out++ = digits[nonce >> shift & 15];
    *out = '\0';
    return row->in_content_type ? 2 : 10;
}

void sim_slot_fill(struct sim_world *world, struct sim_slot *slot, uint32_t nonce)
{
    const struct sim_row *row = &world->rows[nonce];
    struct sml_call *call = &slot->call;
    const void *body = sim_bytes(world, nonce, SIM_BODY, row->body_bytes);

    slot->nonce = nonce;
    memset(call, 0, sizeof *call);
    call->method_bytes = put_name(row, nonce, slot->method, slot->content_type);
    call->content_type_bytes = row->in_content_type ? 8 : 0;
    if (world->params.exact) {
        slot->copy = malloc(row->body_bytes + !row->body_bytes);
        SML_ASSERT(slot->copy);
        body = memcpy(slot->copy, body, row->body_bytes);
    }
    call->method = slot->method;
    call->content_type = slot->content_type;
    call->body = body;
    call->body_bytes = row->body_bytes;
    call->deadline = row->deadline;
    call->flags = row->call_flags;
}

/* ---- the servers' side --------------------------------------------------------------------- */

static bool parse_nonce(const char *text, size_t bytes, uint32_t *out)
{
    uint32_t value = 0;

    if (bytes != 8)
        return false;
    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];

        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        value = value << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    *out = value;
    return true;
}

bool sim_ledger_identify(struct sim_world *world, const struct sml_incoming *in, uint32_t client,
                         uint32_t *out_nonce)
{
    const struct sim_row *row;
    char method[16], type[12];
    uint8_t method_bytes;
    uint32_t nonce;

    if (in->method_bytes < 2 ||
        !(in->content_type_bytes ? parse_nonce(in->content_type, in->content_type_bytes, &nonce)
                                 : parse_nonce(in->method + 2, in->method_bytes - 2u, &nonce)) ||
        nonce >= world->calls || world->rows[nonce].state == SIM_ROW_FRESH ||
        world->rows[nonce].client != client)
        return false;
    row = &world->rows[nonce];
    method_bytes = put_name(row, nonce, method, type);
    if (method_bytes != in->method_bytes || strcmp(method, in->method) != 0 ||
        strcmp(type, in->content_type) != 0 || in->body_bytes != row->body_bytes ||
        memcmp(in->body_bytes ? in->body : (const void *)"",
               sim_bytes(world, nonce, SIM_BODY, row->body_bytes), row->body_bytes) != 0)
        return false;
    *out_nonce = nonce;
    return true;
}

void sim_ledger_begin(struct sim_world *world, uint32_t nonce, uint32_t session)
{
    struct sim_row *row = &world->rows[nonce];

    sim_note(world, (uint64_t)nonce << 32 | session);
    sim_say(world, "call %u begins in session %u", nonce, session);
    if (row->runs) {
        bool allowed = (row->call_flags & SML_CALL_RERUN_OK) && row->idempotent &&
                       row->last_session != session;

        if (allowed) {
            sim_mark(world, SIM_MARK_RERUN);
        } else if (!row->dirty) {
            world->doubled = true;
            world->stats->doubled++;
            sim_fail(world, "DOUBLED: call %u of client %u ran again (sessions %u and %u)", nonce,
                     row->client, row->last_session, session);
        }
    }
    row->runs++;
    row->last_session = session;
}

void sim_ledger_effect(struct sim_world *world, uint32_t nonce)
{
    struct sim_row *row = &world->rows[nonce];

    row->effects++;
    world->stats->effects++;
    sim_note(world, nonce);
    if (row->state == SIM_ROW_DONE && row->outcome == SEMEL_NOT_EXECUTED && !row->dirty)
        sim_fail(world, "call %u has its effect after it was told 'not executed' (%s)", nonce,
                 semel_status_name((enum semel_status)row->status));
}

/* ---- the clients' side --------------------------------------------------------------------- */

static bool same(struct semel_bytes have, const uint8_t *want, size_t bytes)
{
    return have.size == bytes && memcmp(bytes ? have.data : want, want, bytes) == 0;
}

static void check_answer(struct sim_world *world, uint32_t nonce, const struct sml_verdict *verdict)
{
    const struct sim_row *row = &world->rows[nonce];
    bool failure = verdict->outcome == SEMEL_FAILURE;
    struct sim_failure_shape shape = sim_failure_shape(world, nonce);
    uint8_t most = row->call_flags & SML_CALL_RERUN_OK ? 255 : 1;

    if (row->effects < 1 || row->effects > most)
        sim_fail(world, "call %u got its answer but had %u effects", nonce, row->effects);
    if (failure != (row->behaviour == SIM_DO_FAIL)) {
        sim_fail(world, "call %u: value and failure were mixed up", nonce);
    } else if (!failure) {
        if (verdict->status != SEMEL_OK ||
            !same(verdict->body, sim_bytes(world, nonce, SIM_REPLY, row->reply_bytes),
                  row->reply_bytes))
            sim_fail(world, "MISMATCH: call %u got %zu bytes that are not its reply of %u", nonce,
                     verdict->body.size, row->reply_bytes);
    } else if (verdict->status != SEMEL_FAILED || verdict->code != shape.code ||
               !same(verdict->text, sim_bytes(world, nonce, SIM_TEXT, shape.text), shape.text) ||
               !same(verdict->detail, sim_bytes(world, nonce, SIM_DETAIL, shape.detail),
                     shape.detail) ||
               !same(verdict->trace, sim_bytes(world, nonce, SIM_TRACE, shape.trace),
                     shape.trace)) {
        sim_fail(world, "MISMATCH: call %u got a failure that is not its own", nonce);
    }
}

/* A server died, or ended the session, since the client had none. */
static bool session_may_be_lost(const struct sim_world *world, const struct sim_row *row)
{
    const struct sim_client *client = &world->clients[row->client];

    for (uint32_t i = 0; i < world->params.servers; i++)
        if (world->servers[i].died_at != SML_NEVER &&
            world->servers[i].died_at >= client->sessionless_at)
            return true;
    return client->lost_at != SML_NEVER && client->lost_at >= client->sessionless_at;
}

static bool server_stopped(const struct sim_world *world, const struct sim_row *row)
{
    for (uint32_t i = 0; i < world->params.servers; i++)
        if (world->servers[i].stopped_at != SML_NEVER &&
            world->servers[i].stopped_at >= row->submitted)
            return true;
    return false;
}

static bool gave_up(const struct sim_world *world, const struct sim_row *row)
{
    const struct sim_client *client = &world->clients[row->client];

    if (!world->params.link.reconnect)
        return client->link.state == SML_LINK_FAILED;
    return client->down_since != SML_NEVER &&
           world->now - client->down_since >= world->params.link.give_up;
}

static bool cause_of_not_executed(struct sim_world *world, const struct sim_row *row,
                                  enum semel_status status)
{
    bool cancelled = row->cancelled_at != SML_NEVER;
    bool late = world->now >= row->deadline;

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
        return (row->call_flags & SML_CALL_RERUN_OK) && !row->idempotent;
    case SEMEL_TOO_LARGE:
        return row->body_bytes > world->params.host.limits.body_bytes;
    case SEMEL_STOPPED:
        return world->clients[row->client].stopped_at >= row->submitted ||
               server_stopped(world, row);
    case SEMEL_NO_MEMORY:
        return world->clients[row->client].arena.failed != 0;
    case SEMEL_SESSION_LOST: /* after a BUSY; or the last thing that was heard before giving up */
        return session_may_be_lost(world, row) || gave_up(world, row);
    case SEMEL_CONNECT:
    case SEMEL_LINK_LOST:
    case SEMEL_PEER_DIED:
    case SEMEL_DRAINING:
        return gave_up(world, row);
    default:
        return false;
    }
}

static bool cause_of_unknown(struct sim_world *world, const struct sim_row *row,
                             enum semel_status status)
{
    bool cancelled = row->cancelled_at != SML_NEVER;
    bool late = world->now >= row->deadline;

    switch (status) {
    case SEMEL_DEADLINE:
        return late;
    case SEMEL_CANCELLED:
        return cancelled || late;
    case SEMEL_MAX_RUN:
        return row->max_run != SML_NEVER && row->runs;
    case SEMEL_DROPPED:
        return row->dropped;
    case SEMEL_SESSION_LOST:
        return session_may_be_lost(world, row) || gave_up(world, row);
    case SEMEL_EXPIRED:
    case SEMEL_OVERLOADED:
    case SEMEL_NO_METHOD:
    case SEMEL_INVALID:
        /* A new session's "not executed" proves nothing about the old one. */
        return ((row->call_flags & SML_CALL_RERUN_OK) || gave_up(world, row)) &&
               cause_of_not_executed(world, row, status);
    case SEMEL_STOPPED:
        return world->clients[row->client].stopped_at >= row->submitted ||
               server_stopped(world, row);
    case SEMEL_NO_MEMORY:
        return world->clients[row->client].arena.failed != 0;
    case SEMEL_CONNECT:
    case SEMEL_LINK_LOST:
    case SEMEL_PEER_DIED:
    case SEMEL_DRAINING:
        return gave_up(world, row);
    default:
        return false;
    }
}

static void mark_done(struct sim_world *world, const struct sim_row *row,
                      const struct sml_verdict *verdict)
{
    bool answered = verdict->outcome == SEMEL_VALUE || verdict->outcome == SEMEL_FAILURE;
    bool cancelled = row->cancelled_at != SML_NEVER;

    if (answered && cancelled)
        sim_mark(world, SIM_MARK_CANCEL_TOO_LATE);
    if (answered && world->now >= row->deadline)
        sim_mark(world, SIM_MARK_DEADLINE_VERDICT);
    if (verdict->outcome == SEMEL_NOT_EXECUTED && verdict->status == SEMEL_CANCELLED && cancelled)
        sim_mark(world, SIM_MARK_CANCEL_BEFORE_START);
    if (verdict->outcome == SEMEL_NOT_EXECUTED && verdict->status == SEMEL_EXPIRED)
        sim_mark(world, SIM_MARK_EXPIRED);
    if (verdict->outcome == SEMEL_NOT_EXECUTED && verdict->status == SEMEL_OVERLOADED)
        sim_mark(world, SIM_MARK_OVERLOADED);
    if (verdict->outcome == SEMEL_UNKNOWN && verdict->status == SEMEL_DEADLINE)
        sim_mark(world, SIM_MARK_DEADLINE_UNKNOWN);
    if (verdict->outcome == SEMEL_UNKNOWN && verdict->status == SEMEL_MAX_RUN)
        sim_mark(world, SIM_MARK_MAX_RUN);
    if (verdict->outcome == SEMEL_UNKNOWN && verdict->status == SEMEL_DROPPED)
        sim_mark(world, SIM_MARK_DROPPED);
    if (verdict->outcome == SEMEL_UNKNOWN && verdict->status == SEMEL_STOPPED)
        sim_mark(world, SIM_MARK_STOPPED);
    if (verdict->outcome == SEMEL_UNKNOWN && gave_up(world, row))
        sim_mark(world, SIM_MARK_GAVE_UP);
    if (answered && world->hostile.count && !row->dirty)
        sim_mark(world, SIM_MARK_HONEST_BESIDE);
}

void sim_ledger_done(struct sim_world *world, struct sim_slot *slot)
{
    const struct sml_verdict *verdict = &slot->call.verdict;
    struct sim_row *row = &world->rows[slot->nonce];
    uint32_t nonce = slot->nonce;

    sim_note(world, (uint64_t)nonce << 16 | (uint64_t)verdict->outcome << 8 | verdict->status);
    sim_say(world, "call %u of client %u ends: %s (%s)", nonce, row->client,
            semel_outcome_text(verdict->outcome), semel_status_name(verdict->status));
    if (row->state != SIM_ROW_OPEN)
        sim_fail(world, "call %u completed twice", nonce);
    row->state = SIM_ROW_DONE;
    row->outcome = (uint8_t)verdict->outcome;
    row->status = (uint8_t)verdict->status;
    world->done++;
    world->stats->outcomes[verdict->outcome & 3]++;
    row->dirty |= world->clients[row->client].dirty;
    mark_done(world, row, verdict);
    if (row->dirty)
        return;
    if (row->deadline != SML_NEVER &&
        world->now > (row->deadline < row->submitted ? row->submitted : row->deadline) +
                         world->params.link.cancel_grace + SML_MS)
        sim_fail(world, "call %u ended %.3f ms after its deadline", nonce,
                 (double)(world->now - row->deadline) / 1e6);
    if (world->options->mode == SIM_CALM && verdict->outcome != SEMEL_VALUE &&
        verdict->outcome != SEMEL_FAILURE)
        sim_fail(world, "call %u is %s (%s) though its server lives and it may wait", nonce,
                 semel_outcome_text(verdict->outcome), semel_status_name(verdict->status));
    if (verdict->outcome == SEMEL_NOT_EXECUTED) {
        if (row->effects)
            sim_fail(world, "call %u was told 'not executed' (%s) but had its effect", nonce,
                     semel_status_name(verdict->status));
        if (!cause_of_not_executed(world, row, verdict->status))
            sim_fail(world, "call %u: 'not executed' (%s) without a cause", nonce,
                     semel_status_name(verdict->status));
    } else if (verdict->outcome == SEMEL_UNKNOWN) {
        if (!cause_of_unknown(world, row, verdict->status))
            sim_fail(world, "call %u: 'unknown' (%s) without a cause", nonce,
                     semel_status_name(verdict->status));
    } else {
        check_answer(world, nonce, verdict);
    }
}

void sim_ledger_close(struct sim_world *world)
{
    if (world->failed)
        return;
    for (uint32_t i = 0; i < world->calls; i++) {
        const struct sim_row *row = &world->rows[i];

        if (row->state == SIM_ROW_ABANDONED)
            world->stats->abandoned++;
        if (row->state != SIM_ROW_DONE && row->state != SIM_ROW_ABANDONED)
            sim_fail(world, "LOST: call %u never ended", i);
        if (row->dirty)
            continue;
        if (row->effects > 1 && !(row->call_flags & SML_CALL_RERUN_OK))
            sim_fail(world, "DOUBLED: call %u had %u effects", i, row->effects);
        if (row->state == SIM_ROW_DONE && row->outcome == SEMEL_NOT_EXECUTED && row->effects)
            sim_fail(world, "call %u was told 'not executed' but had its effect", i);
    }
}
