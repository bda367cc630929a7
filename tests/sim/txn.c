/* SPDX-License-Identifier: MIT */
/* txn.c - transactional handlers of a simulated server, run by its committer inside a transaction.
 * As in the real shell (rpc/commit_txn.c), except that a handler takes virtual time, in which the
 * connections go on, calls are cancelled, and the server may die. */
#include "durable.h"

#include <string.h>

#include "base/check.h"

#define DEATHS_MAX 30 /* of one handler: some are not counted, since the power was cut */

static struct sml_callee *callee_of(const struct sim_job *job)
{
    return &job->session->session->callee;
}

/* ---- ends of a request --------------------------------------------------------------------- */

/* Nothing of it is kept. */
static void end_undone(struct sim_world *world, struct sim_job *job, bool key_free,
                       enum semel_status status)
{
    struct sml_verdict verdict = { .outcome = SEMEL_NOT_EXECUTED,
                                   .status = status,
                                   .text = semel_bytes_text(semel_status_text(status)) };

    sim_mark(world, SIM_MARK_UNDONE);
    job->in->proven = key_free && job->in->key_bytes > 0;
    (void)sml_callee_finish(callee_of(job), job->in, &verdict, NULL);
    sim_job_let_go(world, job);
}

static void put_back(struct sim_world *world, struct sim_commit *commit, struct sim_job *job)
{
    if (!commit->closed) {
        sml_list_remove(&job->link);
        sml_list_push_front(&commit->txns, &job->link);
        commit->txn_count++;
        return;
    }
    sml_callee_postpone_to_restart(callee_of(job), job->in);
    sim_job_let_go(world, job);
}

/* ---- one call ------------------------------------------------------------------------------ */

static void mark(struct sim_commit *commit, const struct sim_job *job)
{
    const struct sml_incoming *in = job->in;
    struct sml_mark *mark = &commit->server->store->mark;

    *mark = (struct sml_mark){ .session = job->session->session->id,
                               .xid = in->xid,
                               .fingerprint = in->fingerprint,
                               .method_bytes = in->method_bytes,
                               .key_bytes = in->key_bytes };
    memcpy(mark->method, in->method, in->method_bytes);
    memcpy(mark->key, in->key, in->key_bytes);
    commit->server->store->has_mark = true;
}

static void add_call(struct sim_commit *commit, struct sim_job *job, bool decided)
{
    SML_ASSERT(commit->call_count < SIM_BATCH_CALLS);
    commit->calls[commit->call_count++] = (struct sim_txn_call){ job, 0, decided };
}

static enum sml_stored decide(struct sim_world *world, struct sim_commit *commit,
                              struct sim_job *job, const struct sml_verdict *verdict,
                              uint8_t *reply, bool answered, bool proven)
{
    struct sml_session *session = job->session->session;
    struct sml_incoming *in = job->in;
    enum sml_stored stored;

    add_call(commit, job, true);
    in->answered = answered;
    in->proven = proven;
    sml_callee_decide(&session->callee, in, verdict, reply);
    stored = sim_commit_put_call(world, commit, session, in, SML_CALL_ENDED,
                                 &commit->calls[commit->call_count - 1].row);
    if (stored == SML_STORED && in->key_bytes > 0 && !answered)
        stored = sim_key_put(world, commit, session, in, true);
    return stored;
}

/* What a handler's end means beside what it said. OK: it stands. STOPPED: it is undone, and its
 * call goes on with the next server. */
static enum semel_status overtaken(const struct sim_world *world, const struct sim_job *job,
                                   const struct sml_verdict *verdict, uint64_t until)
{
    if (job->in->deadline <= world->now)
        return SEMEL_EXPIRED;
    if (atomic_load(&job->in->cancelled)) {
        if (!job->session->server->commit->closed)
            return SEMEL_CANCELLED;
        return verdict->outcome == SEMEL_VALUE ? SEMEL_OK : SEMEL_STOPPED;
    }
    return until <= world->now ? SEMEL_MAX_RUN : SEMEL_OK;
}

static uint64_t run_until(const struct sim_world *world, const struct sim_job *job)
{
    const struct sim_row *row = &world->rows[job->nonce];

    return row->max_run == SML_NEVER ? SML_NEVER : sml_time_add(world->now, row->max_run);
}

static void have_effect(struct sim_world *world, struct sim_job *job)
{
    struct sim_row *row = &world->rows[job->nonce];
    struct sim_store *store = job->session->server->store;

    sim_judge_effect(world, job);
    if (row->durable.spoils == 0)
        return;
    row->durable.spoils -= row->durable.spoils != SIM_ALWAYS;
    world->stats->faults[SIM_SPOILER]++;
    if (row->durable.spoils_commit)
        store->spoils = true;
    else
        store->spoilt = true;
}

/* The handler begins. It ends by itself, or is interrupted. */
static void run(struct sim_world *world, struct sim_commit *commit, struct sim_job *job)
{
    struct sim_row *row = &world->rows[job->nonce];
    uint64_t end = world->now + row->run;

    mark(commit, job);
    sim_store_guard(commit->server->store);
    commit->running = job;
    commit->handler_until = run_until(world, job);
    commit->state = SIM_COMMIT_HANDLER;
    job->running = true;
    sim_trace_call(world, job, "run");
    sim_judge_begin(world, job);
    sim_job_count(world, row);
    if (!row->effect_late)
        have_effect(world, job);
    end = sml_time_min(end, sml_time_min(commit->handler_until, job->in->deadline));
    sim_at(world, &commit->step, end);
    if (row->durable.deaths > row->durable.died) {
        row->durable.died += row->durable.died < SIM_ALWAYS - 1;
        world->stats->faults[SIM_DEADLY_HANDLER]++;
        if (row->durable.died > DEATHS_MAX)
            sim_fail(world, "call %u killed its server %u times, and nobody stops it", job->nonce,
                     row->durable.died);
        sim_server_die(world, commit->server, sim_chance(&world->faults, 8));
    } else {
        sim_point(world, commit, SIM_AT_HANDLER);
    }
}

/* Returns SML_STORED: it runs, or is over. */
static enum sml_stored begin(struct sim_world *world, struct sim_commit *commit,
                             struct sim_job *job)
{
    struct sml_callee *callee = callee_of(job);
    struct sim_key_answer key = { .state = SIM_KEY_FREE };
    enum sml_stored stored = SML_STORED;

    if (sml_callee_is_stalled(callee) && job->in->phase == SML_IN_TAKEN) {
        sml_list_push_back(&job->session->stalled, &job->link);
        sim_mark(world, SIM_MARK_STORED_FULL);
        return SML_STORED;
    }
    if (!sml_callee_begin(callee, job->in, 0, world->now)) {
        sim_job_let_go(world, job);
        return SML_STORED;
    }
    sml_list_push_back(&commit->held, &job->link);
    if (job->in->key_bytes > 0)
        stored = sim_key_ask(world, commit, job->session->session, job->in, &key);
    if (stored != SML_STORED) {
        add_call(commit, job, false);
        return stored;
    }
    job->in->begun |= key.begun;
    if (key.state == SIM_KEY_ANSWERED)
        return decide(world, commit, job, &key.verdict, key.reply, true, key.proven);
    if (key.state == SIM_KEY_TAKEN) {
        sml_callee_give_back(callee, job->in);
        sml_callee_refuse(callee, job->in, world->params.busy_ms);
        sim_job_let_go(world, job);
        return SML_STORED;
    }
    run(world, commit, job);
    return SML_STORED;
}

/* It has no verdict, and its work is undone. */
static void give_back(struct sim_world *world, struct sim_commit *commit, struct sim_job *job)
{
    sml_callee_give_back(callee_of(job), job->in);
    put_back(world, commit, job);
}

/* The handler is at its end. */
static enum sml_stored finish(struct sim_world *world, struct sim_commit *commit,
                              struct sim_job *job)
{
    struct sim_store *store = commit->server->store;
    struct sml_verdict verdict = { .outcome = SEMEL_VALUE };
    enum semel_status over;
    enum sml_stored stored;
    uint8_t *reply = NULL;
    bool said;

    if (world->rows[job->nonce].effect_late)
        have_effect(world, job);
    (void)sim_job_answer(world, job, &verdict, &reply);
    said = verdict.outcome != SEMEL_UNKNOWN;
    over = overtaken(world, job, &verdict, commit->handler_until);
    job->running = false;
    store->has_mark = false;
    stored = sim_store_unguard(store, over == SEMEL_OK && said && verdict.outcome == SEMEL_VALUE);
    if (stored == SML_STORED && over != SEMEL_STOPPED)
        sim_trace_finish(world, job,
                         over == SEMEL_OK && said ? verdict.outcome : SEMEL_NOT_EXECUTED);
    if (stored == SML_STORED && over == SEMEL_OK && said)
        return decide(world, commit, job, &verdict, reply, false, false);
    sml_release(&commit->server->arena.mem, reply);
    commit->overtaken = stored == SML_NOT_STORED && over != SEMEL_OK && over != SEMEL_STOPPED;
    if (stored != SML_STORED && !commit->overtaken)
        add_call(commit, job, false);
    else if (over == SEMEL_STOPPED)
        give_back(world, commit, job);
    else
        end_undone(world, job, true, over != SEMEL_OK ? over : SEMEL_DROPPED);
    return stored;
}

/* ---- the transaction's end ----------------------------------------------------------------- */

static void tell(struct sim_world *world, struct sim_commit *commit)
{
    for (uint32_t i = 0; i < commit->call_count; i++) {
        struct sim_job *job = commit->calls[i].job;
        struct sml_change change = { SML_CHANGE_END, job->in };

        sml_callee_recorded(callee_of(job), &change, commit->calls[i].row, true);
        sim_job_let_go(world, job);
    }
    commit->call_count = 0;
}

static void take_back(struct sim_world *world, struct sim_commit *commit, bool alone)
{
    for (uint32_t i = commit->call_count; i-- > 0;) {
        struct sim_job *job = commit->calls[i].job;

        job->alone |= alone || (commit->overtaken && job->again);
        job->again |= commit->overtaken;
        if (!commit->calls[i].decided) {
            give_back(world, commit, job);
            continue;
        }
        sml_callee_retry(callee_of(job), job->in);
        put_back(world, commit, job);
    }
    commit->call_count = 0;
}

/* The one call of a transaction that is lost every time. */
static void convict(struct sim_world *world, struct sim_commit *commit)
{
    struct sim_job *job = commit->calls[0].job;
    bool decided = commit->calls[0].decided, answered = decided && job->in->answered;

    commit->call_count = 0;
    if (decided) {
        sml_callee_retry(callee_of(job), job->in);
        if (!sml_callee_begin(callee_of(job), job->in, 0, 0)) {
            sim_job_let_go(world, job);
            return;
        }
    }
    sim_mark(world, SIM_MARK_CONVICTED);
    end_undone(world, job, !answered, SEMEL_ROLLED_BACK);
}

static void lose(struct sim_world *world, struct sim_commit *commit, enum sml_stored stored)
{
    if (stored == SML_STORE_UNKNOWN) {
        sim_commit_trouble(world, commit, stored);
    } else if (commit->overtaken) {
        take_back(world, commit, false);
    } else if (commit->call_count == 0 || commit->server->store->why == SIM_FULL_DISK) {
        sim_commit_trouble(world, commit, stored);
        take_back(world, commit, false);
    } else if (commit->call_count == 1 && commit->calls[0].job->alone) {
        convict(world, commit);
    } else {
        sim_mark(world, SIM_MARK_ISOLATED);
        take_back(world, commit, true);
    }
}

void sim_txn_concluded(struct sim_world *world, struct sim_commit *commit, enum sml_stored stored)
{
    sim_trace_concluded(world, stored);
    if (stored != SML_STORE_UNKNOWN)
        sim_commit_answer(world, commit, stored == SML_STORED);
    if (stored == SML_STORED)
        tell(world, commit);
    else
        lose(world, commit, stored);
}

/* ---- a transaction ------------------------------------------------------------------------- */

static struct sim_job *next(struct sim_commit *commit)
{
    struct sml_list *node = sml_list_pop_front(&commit->txns);
    struct sim_job *job = node ? SML_CONTAINER(node, struct sim_job, link) : NULL;

    if (!job)
        return NULL;
    commit->txn_count--;
    job->alone |= job->in->crashes > 0;
    return job;
}

/* Run calls until there are enough, the time is over, or one wants to be alone; then commit. */
static void go_on(struct sim_world *world, struct sim_commit *commit, enum sml_stored stored,
                  bool was_alone)
{
    while (stored == SML_STORED && commit->state == SIM_COMMIT_IDLE && !was_alone &&
           commit->ran < world->durable->batch_calls && world->now < commit->batch_until &&
           !commit->server->dying) {
        struct sim_job *job = next(commit);

        if (!job)
            break;
        if (commit->ran > 0 && (job->alone || job->again != commit->again)) {
            put_back(world, commit, job);
            break;
        }
        commit->again = job->again;
        commit->ran++;
        was_alone = job->alone;
        stored = begin(world, commit, job);
    }
    if (commit->state != SIM_COMMIT_IDLE || commit->server->dying)
        return;
    if (stored == SML_STORED && !sim_point(world, commit, SIM_AT_TXN))
        sim_commit_send(world, commit, SIM_FOR_CALLS);
    else if (stored != SML_STORED)
        sim_txn_concluded(world, commit, stored);
}

void sim_txn_handler_ended(struct sim_world *world, struct sim_commit *commit)
{
    struct sim_job *job = commit->running;
    bool alone = job->alone;

    commit->running = NULL;
    commit->state = SIM_COMMIT_IDLE;
    go_on(world, commit, finish(world, commit, job), alone);
}

bool sim_txn_round(struct sim_world *world, struct sim_commit *commit)
{
    struct sim_store *store = commit->server->store;
    enum sml_stored stored;

    if (commit->txn_count == 0)
        return false;
    commit->call_count = commit->ran = 0;
    commit->overtaken = false;
    commit->batch_until = world->now + world->durable->batch_time;
    sim_commit_collect(world, commit);
    stored = sim_store_begin(world, store);
    if (stored == SML_STORED)
        stored = sim_commit_apply(world, commit);
    go_on(world, commit, stored, false);
    return true;
}
