/* SPDX-License-Identifier: MIT */
/* judge.c - the oracle for calls of servers with a store: exactly once for what is transactional,
 * at most once for the rest, and "unknown" only with a cause. See durable.h.
 *
 * What belongs together is a unit: one call, or all calls with one key. Each run of a handler says
 * something else, so that a verdict shows of which run it is: it must be that of the run whose
 * effect stands, and the same each time it is told. */
#include "durable.h"

#include <stdlib.h>
#include <string.h>

static struct sim_row *unit_of(struct sim_world *world, uint32_t nonce)
{
    return &world->rows[world->rows[nonce].durable.unit];
}

/* ---- what is asked for --------------------------------------------------------------------- */

static void plan_kind(struct sim_world *world, struct sim_row *row)
{
    static const struct {
        enum sim_fault fault;
        enum sim_kind kind;
    } menu[] = { { SIM_KIND_ONCE, SIM_ONCE },
                 { SIM_KIND_TXN, SIM_TXN },
                 { SIM_KIND_TXN, SIM_TXN },
                 { SIM_CRASH_RERUN, SIM_RERUN },
                 { SIM_CRASH_RESOLVE, SIM_RESOLVE } };
    const size_t count = sizeof menu / sizeof *menu;
    size_t at = sim_below(&world->load, count + 1);

    row->kind = SIM_IDEMPOTENT;
    if (at < count && sim_on(world, menu[at].fault))
        row->kind = menu[at].kind;
    if (row->kind != SIM_IDEMPOTENT &&
        (world->options->mode == SIM_STEADY || sim_below(&world->load, 50)))
        row->call_flags &= (uint8_t)~SML_CALL_RERUN_OK;
    if (row->kind != SIM_TXN)
        return;
    if (row->run > 300 * SML_MS)
        row->run = sim_below(&world->load, 300 * SML_MS);
    if (sim_on(world, SIM_SPOILER) && sim_chance(&world->load, 60)) {
        row->durable.spoiler = true;
        row->durable.spoils = sim_chance(&world->load, 2) ? SIM_ALWAYS : 1;
        row->durable.spoils_commit = sim_chance(&world->load, 2);
    }
}

static void plan_deaths(struct sim_world *world, struct sim_row *row)
{
    struct sim_rng *rng = &world->load;

    if (!sim_on(world, SIM_DEADLY_HANDLER) || row->kind == SIM_IDEMPOTENT || !sim_chance(rng, 150))
        return;
    row->durable.deaths = 1 + (uint8_t)sim_below(rng, 2);
    if (row->kind == SIM_TXN && world->options->mode != SIM_STEADY && sim_chance(rng, 2))
        row->durable.deaths = SIM_ALWAYS;
}

/* A key is known to one store only. */
static bool may_share(const struct sim_world *world, const struct sim_client *client,
                      const struct sim_row *first)
{
    return world->params.addresses == 1 &&
           (world->durable->one_principal || first->client == client->index);
}

/* The key of a call before it; perhaps with contents of its own. */
static void plan_share(struct sim_world *world, uint32_t nonce, const struct sim_client *client)
{
    struct sim_durable *d = world->durable;
    struct sim_row *row = &world->rows[nonce], *first;
    uint32_t count = d->unit_count < 64 ? d->unit_count : 64, unit;

    if (!sim_on(world, SIM_SAME_KEY) || count == 0 || !sim_chance(&world->load, d->same_in))
        return;
    unit = d->units[sim_chance(&world->load, 2)
                        ? (d->unit_count - 1 - sim_below(&world->load, count < 4 ? count : 4)) % 64
                        : sim_below(&world->load, count)];
    first = &world->rows[unit];
    /* A submission that was refused leaves its number to another. */
    if (unit == nonce || first->state == SIM_ROW_FRESH || !first->durable.keyed ||
        first->durable.unit != unit || !may_share(world, client, first))
        return;
    row->durable.unit = unit;
    row->durable.shared = first->durable.shared = true;
    row->kind = first->kind;
    row->behaviour = first->behaviour;
    row->in_content_type = first->in_content_type;
    row->call_flags &= (uint8_t)~SML_CALL_RERUN_OK;
    if (first->in_content_type && sim_on(world, SIM_OTHER_CONTENTS) &&
        world->options->mode != SIM_STEADY && sim_chance(&world->load, 4)) {
        row->durable.mixed = first->durable.mixed = true;
        return;
    }
    row->durable.contents = unit;
    row->body_bytes = first->body_bytes;
}

void sim_judge_plan(struct sim_world *world, uint32_t nonce, const struct sim_client *client)
{
    struct sim_durable *d = world->durable;
    struct sim_row *row = &world->rows[nonce];

    row->durable.contents = row->durable.unit = nonce;
    plan_kind(world, row);
    plan_deaths(world, row);
    sim_flow_plan_durable(world, row, row);
    if (!sim_on(world, SIM_KEYS) || !sim_chance(&world->load, d->keys_in))
        return;
    row->durable.keyed = true;
    row->call_flags &= (uint8_t)~SML_CALL_RERUN_OK;
    plan_share(world, nonce, client);
    if (row->durable.unit == nonce)
        d->units[d->unit_count++ % 64] = nonce;
    sim_flow_plan_durable(world, row, &world->rows[row->durable.contents]);
}

void sim_judge_count(struct sim_world *world, const struct sim_row *row)
{
    uint64_t *faults = world->stats->faults;

    faults[SIM_KIND_ONCE] += row->kind == SIM_ONCE;
    faults[SIM_KIND_TXN] += row->kind == SIM_TXN;
    faults[SIM_CRASH_RERUN] += row->kind == SIM_RERUN;
    faults[SIM_CRASH_RESOLVE] += row->kind == SIM_RESOLVE;
    faults[SIM_KEYS] += row->durable.keyed;
    faults[SIM_SAME_KEY] += row->durable.shared;
    faults[SIM_OTHER_CONTENTS] += row->durable.mixed;
    faults[SIM_SHORT_RETENTION] += sim_on(world, SIM_SHORT_RETENTION) && row->durable.keyed;
    faults[SIM_OUTBOX] += world->clients[row->client].outbox && row->durable.keyed;
}

/* ---- what happens -------------------------------------------------------------------------- */

static bool died_since(const struct sim_world *world, const struct sim_row *unit)
{
    const struct sim_server *server;

    if (unit->durable.server == 0)
        return false;
    server = &world->servers[unit->durable.server - 1];
    return server->died_at != SML_NEVER && server->died_at >= unit->durable.begun_at;
}

static void doubled(struct sim_world *world, uint32_t nonce, const char *what)
{
    world->doubled = true;
    world->stats->doubled++;
    sim_fail(world, "DOUBLED: call %u %s", nonce, what);
}

/* May a unit that has run run again? */
static void check_again(struct sim_world *world, struct sim_job *job, struct sim_row *unit)
{
    const struct sim_row *row = &world->rows[job->nonce];

    if (unit->durable.forgiven) {
        unit->durable.forgiven = false;
        unit->durable.loose = true; /* what is told may be of a run before or after that */
        unit->durable.counted = unit->durable.seen = 0;
        unit->effects = 0;
    }
    switch (row->kind) {
    case SIM_IDEMPOTENT:
        if (unit->durable.counted > 0 && !row->durable.keyed && !died_since(world, unit) &&
            !((row->call_flags & SML_CALL_RERUN_OK) && unit->last_session != job->session->serial))
            doubled(world, job->nonce, "ran again though its server lived");
        break;
    case SIM_RERUN:
        if (unit->durable.counted > 0 && !died_since(world, unit))
            doubled(world, job->nonce, "ran again though its server lived");
        break;
    case SIM_TXN:
        if (sim_store_find(job->session->server->store, SIM_TABLE_EFFECTS, row->durable.unit) &&
            unit->effects > 0)
            doubled(world, job->nonce, "began again after its effect was committed");
        break;
    default:
        if (unit->durable.counted > 0)
            doubled(world, job->nonce, "ran again");
        break;
    }
    if (unit->runs > 0 && died_since(world, unit))
        sim_mark(world, SIM_MARK_RAN_AGAIN);
    if (unit->runs > 0 && (row->call_flags & SML_CALL_RERUN_OK) &&
        unit->last_session != job->session->serial)
        sim_mark(world, SIM_MARK_RERUN);
}

/* What a handler passes on to systems downstream is the same in each run, and no other's. */
static void check_request_key(struct sim_world *world, struct sim_job *job, struct sim_row *unit)
{
    struct sml_table *requests = &world->durable->requests;
    uint64_t key = sim_request_key(job->session->session, job->in);
    const struct sim_row *owner = sml_table_find(requests, key);

    if (!owner && !sml_table_insert(requests, key, unit))
        SML_ASSERT(!"room in a table");
    if (owner && owner != unit)
        sim_fail(world, "calls %u and %u have the same request key", job->nonce,
                 (uint32_t)(owner - world->rows));
    if (unit->durable.request && unit->durable.request != key && !unit->durable.shared &&
        !(unit->durable.keyed && unit->kind == SIM_IDEMPOTENT))
        sim_fail(world, "call %u has another request key than before", job->nonce);
    if (unit->durable.request == key && unit->last_session != job->session->serial)
        sim_mark(world, SIM_MARK_ORIGIN_KEPT);
    unit->durable.request = key;
}

static void touch(const struct sim_world *world, struct sim_row *row)
{
    row->durable.touched_at = world->now;
}

void sim_judge_begin(struct sim_world *world, struct sim_job *job)
{
    struct sim_row *unit = unit_of(world, job->nonce);

    sim_note(world, (uint64_t)job->nonce << 32 | job->session->serial);
    sim_say(world, "call %u (%s%s%s) begins in session %u as xid %llu", job->nonce, job->in->method,
            job->in->key_bytes ? ", key " : "", job->in->key, job->session->serial,
            (unsigned long long)job->in->xid);
    if (sml_table_find(&job->session->session->callee.table, job->in->xid) != job->in)
        sim_fail(world, "call %u begins in session %u, where xid %llu was released", job->nonce,
                 job->session->serial, (unsigned long long)job->in->xid);
    check_again(world, job, unit);
    check_request_key(world, job, unit);
    unit->runs += unit->runs < 255;
    unit->durable.counted += unit->durable.counted < 255;
    unit->durable.ran = job->nonce;
    unit->durable.server = job->session->server->index + 1;
    unit->durable.begun_at = world->now;
    unit->last_session = job->session->serial;
    touch(world, unit);
}

void sim_judge_effect(struct sim_world *world, struct sim_job *job)
{
    const struct sim_row *row = &world->rows[job->nonce];
    struct sim_row *unit = unit_of(world, job->nonce);

    touch(world, unit);
    sim_note(world, job->nonce);
    world->stats->effects++;
    if (row->state == SIM_ROW_DONE && row->outcome == SEMEL_NOT_EXECUTED && !unit->durable.shared)
        sim_fail(world, "call %u has its effect after it was told 'not executed' (%s)", job->nonce,
                 semel_status_name((enum semel_status)row->status));
    if (row->kind == SIM_TXN) {
        sim_store_effect(world, job->session->server->store, row->durable.unit, unit->runs);
        return;
    }
    world->rows[job->nonce].durable.happened = true;
    /* Who has the effect recognises the request key. */
    if (unit->effects == 0 || row->kind != SIM_RERUN)
        unit->effects++;
    unit->durable.effect_run = unit->runs;
}

/* Whoever comes with its key will ask for what a released call does. */
void sim_judge_cancelled(struct sim_world *world, const struct sim_job *job)
{
    const struct sim_row *row = &world->rows[job->nonce];

    if (!job->known || job->in->key_bytes == 0 || !job->running || row->durable.shared ||
        !atomic_load(&job->in->gone) || row->cancelled_at != SML_NEVER ||
        row->max_run != SML_NEVER || job->in->deadline <= world->now ||
        world->now >= row->deadline || job->session->server->commit->closed)
        return;
    sim_fail(world,
             "the handler of call %u, which has a key, is told to stop since it was released",
             job->nonce);
}

/* All handlers have returned: what had begun has ended, or may run again. */
void sim_judge_left(struct sim_world *world, const struct sim_server *server)
{
    const struct sml_table *calls = &server->store->tables[SIM_TABLE_CALLS];

    for (uint32_t i = 0; i < calls->capacity; i++) {
        const struct sim_cell *cell = calls->slots[i].value;
        struct sml_call_record record;

        if (!cell)
            continue;
        SML_ASSERT(!sml_call_record_decode(semel_bytes(cell->data, cell->bytes), &record));
        if (record.state == SML_CALL_STARTED && *(const char *)record.method.data != 'r')
            sim_fail(world, "server %u has left, and its store says that xid %llu has begun",
                     server->index, (unsigned long long)record.xid);
    }
}

void sim_judge_touch(struct sim_world *world, const struct sml_incoming *in, bool start)
{
    const struct sim_job *job = in->user;

    if (!job || !job->known)
        return;
    unit_of(world, job->nonce)->durable.stored |= start;
    touch(world, unit_of(world, job->nonce));
}

/* The effect of a transactional call, as it is on some server's disk; 0: there is none. */
static uint8_t stored_effect(const struct sim_world *world, uint32_t unit)
{
    for (uint32_t i = 0; i < world->params.servers; i++) {
        const struct sim_store *store = world->durable->stores[i];
        const struct sim_cell *cell = sim_store_find_durable(store, SIM_TABLE_EFFECTS, unit);

        if (cell)
            return cell->data[0];
    }
    return 0;
}

/* What is proven not to have been executed has no effect, by whatever call with its key. */
static void check_proven(struct sim_world *world, const struct sim_row *unit,
                         const struct sml_incoming *in)
{
    uint32_t nonce = (uint32_t)(unit - world->rows);
    bool had = unit->kind == SIM_TXN ? stored_effect(world, nonce) != 0 : unit->effects > 0;

    if (!had || unit->kind == SIM_IDEMPOTENT || unit->durable.mixed || unit->durable.forgiven ||
        unit->durable.loose)
        return;
    sim_fail(world, "a call with key %s is proven not to have been executed (%s), but call %u was",
             in->key, semel_status_name(in->verdict.status), nonce);
}

void sim_judge_ended(struct sim_world *world, const struct sml_session *session,
                     const struct sml_incoming *in)
{
    /* Only who puts an old copy back asks when that was. */
    bool copies = sim_on(world, SIM_OLD_COPY) || sim_on(world, SIM_RENEWED_COPY);
    struct sim_row *row = NULL;

    if (copies || in->proven)
        row = sim_judge_downstream(world, sim_request_key(session, in));
    if (row && in->proven)
        check_proven(world, row, in);
    if (row && copies)
        touch(world, row);
}

struct sim_row *sim_judge_downstream(struct sim_world *world, uint64_t request)
{
    return sml_table_find(&world->durable->requests, request);
}

void sim_judge_purged(struct sim_world *world, const struct sml_key_record *record)
{
    char digits[SEMEL_KEY_BYTES + 1] = { 0 };
    uint32_t unit;

    memcpy(digits, record->key.data, record->key.size);
    unit = (uint32_t)strtoul(digits + 1, NULL, 16);
    if (unit >= world->calls)
        return;
    world->rows[unit].durable.forgiven = true;
    world->rows[unit].effects = 0; /* systems downstream forget it, too */
}

/* What happened since the copy was made is forgotten there. */
void sim_judge_put_back(struct sim_world *world, struct sim_server *server, uint64_t since)
{
    for (uint32_t i = 0; i < world->calls; i++) {
        struct sim_row *row = &world->rows[i];

        if (row->durable.touched_at >= since && row->durable.server == server->index + 1)
            row->durable.forgiven = true;
    }
}

/* ---- what is told -------------------------------------------------------------------------- */

static bool same(struct semel_bytes have, const uint8_t *want, size_t bytes)
{
    return have.size == bytes && memcmp(bytes ? have.data : want, want, bytes) == 0;
}

/* Is this what run `run` of the contents says? */
static bool is_of_run(const struct sim_world *world, uint32_t contents, uint8_t run,
                      const struct sml_verdict *verdict)
{
    const struct sim_row *row = &world->rows[contents];
    uint32_t name = sim_answer_name(contents, run);
    struct sim_failure_shape shape = sim_failure_shape(world, name);

    if (verdict->outcome == SEMEL_VALUE)
        return verdict->status == SEMEL_OK &&
               same(verdict->body, sim_bytes(world, name, SIM_REPLY, row->reply_bytes),
                    row->reply_bytes);
    return verdict->status == SEMEL_FAILED && verdict->code == shape.code &&
           same(verdict->text, sim_bytes(world, name, SIM_TEXT, shape.text), shape.text) &&
           same(verdict->detail, sim_bytes(world, name, SIM_DETAIL, shape.detail), shape.detail) &&
           same(verdict->trace, sim_bytes(world, name, SIM_TRACE, shape.trace), shape.trace);
}

static uint8_t find_run(const struct sim_world *world, uint32_t contents,
                        const struct sim_row *unit, const struct sml_verdict *verdict)
{
    for (uint8_t run = unit->runs; run > 0; run--)
        if (is_of_run(world, contents, run, verdict))
            return run;
    return 0;
}

static void check_effect(struct sim_world *world, uint32_t nonce, struct sim_row *unit,
                         const struct sml_verdict *verdict)
{
    const struct sim_row *row = &world->rows[nonce];
    uint32_t contents = row->durable.contents;
    uint8_t effect;

    if (unit->durable.forgiven || unit->durable.loose)
        return;
    if (row->kind == SIM_TXN) {
        effect = stored_effect(world, row->durable.unit);
        if (verdict->outcome == SEMEL_VALUE &&
            (!effect || !is_of_run(world, contents, effect, verdict)))
            sim_fail(world, "call %u got another value than that of run %u, whose effect stands",
                     nonce, effect);
        if (verdict->outcome == SEMEL_FAILURE && effect)
            sim_fail(world, "call %u failed, but its effect is there", nonce);
        unit->effects = effect != 0;
        return;
    }
    if (unit->effects == 0)
        sim_fail(world, "call %u got its answer, but had no effect", nonce);
    if (row->kind != SIM_IDEMPOTENT && unit->effects > 1)
        doubled(world, nonce, "had its effect twice");
    if ((row->kind == SIM_ONCE || row->kind == SIM_RESOLVE) && unit->durable.effect_run &&
        !is_of_run(world, contents, unit->durable.effect_run, verdict))
        sim_fail(world, "call %u got another answer than that of run %u, whose effect stands",
                 nonce, unit->durable.effect_run);
}

static void check_answer(struct sim_world *world, uint32_t nonce, const struct sml_verdict *verdict)
{
    const struct sim_row *row = &world->rows[nonce];
    struct sim_row *unit = unit_of(world, nonce);
    uint32_t contents = row->durable.contents;
    uint8_t run = find_run(world, contents, unit, verdict);

    if ((verdict->outcome == SEMEL_FAILURE) != (row->behaviour == SIM_DO_FAIL)) {
        sim_fail(world, "call %u: value and failure were mixed up", nonce);
        return;
    }
    if (run == 0) {
        sim_fail(world, "MISMATCH: call %u got an answer that is none of its %u runs'", nonce,
                 unit->runs);
        return;
    }
    if (row->kind == SIM_IDEMPOTENT && row->durable.keyed)
        return;
    if (unit->durable.told && !is_of_run(world, contents, unit->durable.told, verdict) &&
        !unit->durable.forgiven && !unit->durable.loose && row->kind != SIM_IDEMPOTENT)
        sim_fail(world, "call %u got the answer of run %u, others that of run %u", nonce, run,
                 unit->durable.told);
    unit->durable.told = unit->durable.told ? unit->durable.told : run;
    check_effect(world, nonce, unit, verdict);
}

static void check_not_executed(struct sim_world *world, uint32_t nonce, const struct sml_call *call)
{
    const struct sim_row *row = &world->rows[nonce];
    const struct sim_row *unit = unit_of(world, nonce);
    enum semel_status status = call->verdict.status;
    bool had =
        row->kind == SIM_TXN ? stored_effect(world, row->durable.unit) != 0 : unit->effects > 0;

    /* Of a call whose key others have it says nothing about them, unless its contents are its
     * own. */
    if (unit->durable.shared)
        had = row->durable.happened && row->durable.unit != nonce &&
              row->durable.contents == nonce && row->kind != SIM_IDEMPOTENT;
    if (had && !unit->durable.forgiven && !unit->durable.loose)
        sim_fail(world, "call %u was told 'not executed' (%s) but had its effect", nonce,
                 semel_status_name(status));
    if (!sim_durable_not_executed(world, nonce, call))
        sim_fail(world, "call %u: 'not executed' (%s) without a cause", nonce,
                 semel_status_name(status));
}

/* A process before this one was told something already. */
static void check_seen(struct sim_world *world, uint32_t nonce, const struct sml_verdict *verdict)
{
    const struct sim_row *row = &world->rows[nonce];

    if (row->durable.seen == 0 || row->durable.seen > SEMEL_FAILURE + 1 ||
        unit_of(world, nonce)->durable.forgiven || unit_of(world, nonce)->durable.loose)
        return;
    if (verdict->outcome != SEMEL_UNKNOWN && row->durable.seen != verdict->outcome + 1)
        sim_fail(world, "call %u is %s, its predecessor was told otherwise", nonce,
                 semel_outcome_text(verdict->outcome));
}

void sim_judge_told(struct sim_world *world, struct sim_slot *slot)
{
    const struct sml_verdict *verdict = &slot->call.verdict;
    uint32_t nonce = slot->nonce;
    enum semel_status status = verdict->status;
    bool answer = verdict->outcome == SEMEL_VALUE || verdict->outcome == SEMEL_FAILURE;

    if (world->options->mode == SIM_STEADY && !answer)
        sim_fail(world, "call %u is %s (%s) though its server's store lives and it may wait", nonce,
                 semel_outcome_text(verdict->outcome), semel_status_name(status));
    check_seen(world, nonce, verdict);
    if (answer)
        check_answer(world, nonce, verdict);
    else if (verdict->outcome == SEMEL_NOT_EXECUTED)
        check_not_executed(world, nonce, &slot->call);
    else if (!sim_durable_unknown(world, slot))
        sim_fail(world, "call %u (%c): 'unknown' (%s) without a cause", nonce,
                 "oirst"[world->rows[nonce].kind], semel_status_name(status));
    if (verdict->outcome == SEMEL_UNKNOWN && status == SEMEL_SERVER_DIED)
        sim_mark(world, SIM_MARK_DIED_UNKNOWN);
    if (verdict->outcome == SEMEL_UNKNOWN && status == SEMEL_SESSION_LOST && slot->call.rerun)
        sim_mark(world, SIM_MARK_KEYED_GIVEN_UP);
}

/* ---- at the end ---------------------------------------------------------------------------- */

/* All is quiet: nothing that was released may be left in a store. */
void sim_judge_settled(struct sim_world *world)
{
    for (uint32_t i = 0; i < world->params.servers; i++) {
        const struct sim_server *server = &world->servers[i];
        const struct sml_table *calls = &server->store->tables[SIM_TABLE_CALLS];

        for (uint32_t k = 0; k < calls->capacity; k++) {
            const struct sim_cell *cell = calls->slots[k].value;
            struct sml_call_record record;
            const struct sml_list *node = server->sessions.next;

            if (!cell)
                continue;
            SML_ASSERT(!sml_call_record_decode(semel_bytes(cell->data, cell->bytes), &record));
            for (; node != &server->sessions; node = node->next) {
                const struct sim_session *info = SML_CONTAINER(node, struct sim_session, all);

                if (info->session->row == record.session && info->session->peer)
                    sim_fail(world, "the settled session %u has a record of call %llu",
                             info->serial, (unsigned long long)record.xid);
            }
        }
    }
}

static void close_store(struct sim_world *world, uint32_t index)
{
    const struct sim_store *store = world->durable->stores[index];
    const struct sml_table *keys = &store->tables[SIM_TABLE_KEYS];

    if (store->tables[SIM_TABLE_SESSIONS].count || store->tables[SIM_TABLE_CALLS].count)
        sim_fail(world, "the store of server %u still has %u sessions and %u calls", index,
                 store->tables[SIM_TABLE_SESSIONS].count, store->tables[SIM_TABLE_CALLS].count);
    for (uint32_t i = 0; i < keys->capacity; i++) {
        const struct sim_cell *cell = keys->slots[i].value;

        if (cell && cell->kept_since == 0)
            sim_fail(world, "the store of server %u keeps a key that has no end", index);
    }
}

void sim_judge_close(struct sim_world *world)
{
    for (uint32_t i = 0; i < world->params.servers; i++)
        close_store(world, i);
    for (uint32_t i = 0; i < world->calls; i++) {
        const struct sim_row *row = &world->rows[i], *unit = unit_of(world, i);
        uint8_t effect = row->kind == SIM_TXN ? stored_effect(world, row->durable.unit) : 0;

        if (row->state != SIM_ROW_DONE || unit->durable.forgiven || unit->durable.loose ||
            unit->durable.shared)
            continue;
        if (row->outcome == SEMEL_NOT_EXECUTED && (effect || row->effects))
            sim_fail(world, "call %u was told 'not executed' but had its effect", i);
        if (row->kind != SIM_IDEMPOTENT && row->kind != SIM_TXN && row->effects > 1)
            sim_fail(world, "DOUBLED: call %u had %u effects", i, row->effects);
        if (row->kind == SIM_TXN && row->outcome == SEMEL_VALUE && !effect)
            sim_fail(world, "the effect of call %u is gone", i);
    }
}
