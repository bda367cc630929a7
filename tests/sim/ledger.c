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
#include "durable.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
        (world->rows[nonce].client != client && in->key_bytes == 0))
        return false;
    row = &world->rows[nonce];
    method_bytes = sim_row_name(row, nonce, method, type);
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
        bool allowed = (row->call_flags & SML_CALL_RERUN_OK) && row->kind == SIM_IDEMPOTENT &&
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
        return (row->call_flags & SML_CALL_RERUN_OK) && row->kind != SIM_IDEMPOTENT;
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

static void check_verdict(struct sim_world *world, uint32_t nonce,
                          const struct sml_verdict *verdict)
{
    const struct sim_row *row = &world->rows[nonce];

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
    row->outcome = (uint8_t)verdict->outcome;
    row->status = (uint8_t)verdict->status;
    row->dirty |= world->clients[row->client].dirty;
    mark_done(world, row, verdict);
    if (row->dirty)
        return;
    if (row->deadline != SML_NEVER &&
        world->now > (row->deadline < row->submitted ? row->submitted : row->deadline) +
                         world->params.link.cancel_grace + SML_MS)
        sim_fail(world, "call %u ended %.3f ms after its deadline", nonce,
                 (double)(world->now - row->deadline) / 1e6);
    if (world->durable)
        sim_judge_told(world, slot);
    else
        check_verdict(world, nonce, verdict);
}

void sim_ledger_settle(struct sim_world *world, uint32_t nonce)
{
    struct sim_row *row = &world->rows[nonce];

    row->state = SIM_ROW_DONE;
    world->done++;
    world->stats->outcomes[row->outcome & 3]++;
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
        if (row->dirty || world->durable)
            continue;
        if (row->effects > 1 && !(row->call_flags & SML_CALL_RERUN_OK))
            sim_fail(world, "DOUBLED: call %u had %u effects", i, row->effects);
        if (row->state == SIM_ROW_DONE && row->outcome == SEMEL_NOT_EXECUTED && row->effects)
            sim_fail(world, "call %u was told 'not executed' but had its effect", i);
    }
    if (world->durable && !world->failed)
        sim_judge_close(world);
}
