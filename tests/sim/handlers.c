/* SPDX-License-Identifier: MIT */
/* handlers.c - the servers' run queue, workers and handlers. See sim.h.
 *
 * A handler does what its call's row in the ledger says: it takes its time, has its effect at the
 * beginning or at the end, and replies, fails, drops the request, hangs until it is cancelled, or
 * does not even listen to that. */
#include "durable.h"

#include <stdlib.h>
#include <string.h>

static void job_finish(struct sim_world *world, struct sim_job *job);

static void job_finish_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_job *job = SML_CONTAINER(event, struct sim_job, finish);
    struct sim_server *server = job->session->server;

    job_finish(world, job);
    sim_jobs_run(world, server);
    sim_server_pump(world, server);
}

struct sim_job *sim_job_new(struct sim_world *world, struct sim_session *info,
                            struct sml_incoming *in)
{
    struct sml_list *node = sml_list_pop_front(&world->free_jobs);
    struct sim_job *job = node ? SML_CONTAINER(node, struct sim_job, link) : malloc(sizeof *job);

    SML_ASSERT(job);
    sim_event_init(&job->finish, job_finish_fire);
    sim_flow_init(job);
    sml_list_init(&job->link);
    job->session = info;
    job->in = in;
    job->nonce = 0;
    job->kind = SIM_ONCE;
    job->running = job->cancelled = job->started = job->alone = job->again = false;
    in->user = job;
    return job;
}

void sim_job_free(struct sim_world *world, struct sim_job *job)
{
    sim_off(world, &job->finish);
    sim_off(world, &job->flow.event);
    sml_list_remove(&job->link);
    sml_list_push_front(&world->free_jobs, &job->link);
}

/* ---- what handlers answer ------------------------------------------------------------------ */

/* What the bytes of its answer are made of. */
static uint32_t answer_name(const struct sim_world *world, const struct sim_job *job)
{
    const struct sim_row *row = &world->rows[job->nonce];

    if (!world->durable)
        return job->nonce;
    return sim_answer_name(job->nonce, world->rows[row->durable.unit].runs);
}

static bool answer_value(struct sim_world *world, struct sim_job *job, struct sml_verdict *verdict,
                         uint8_t **out_reply)
{
    uint32_t bytes = world->rows[job->nonce].reply_bytes;

    verdict->outcome = SEMEL_VALUE;
    if (!bytes)
        return true;
    *out_reply = sml_callee_reply_alloc(&job->session->session->callee, bytes);
    if (!*out_reply)
        return false;
    memcpy(*out_reply, sim_bytes(world, answer_name(world, job), SIM_REPLY, bytes), bytes);
    verdict->body = semel_bytes(*out_reply, bytes);
    return true;
}

static bool answer_failure(struct sim_world *world, struct sim_job *job,
                           struct sml_verdict *verdict, uint8_t **out_reply)
{
    uint32_t name = answer_name(world, job);
    struct sim_failure_shape shape = sim_failure_shape(world, name);
    size_t bytes = (size_t)shape.text + shape.detail + shape.trace;
    uint8_t *at = NULL;

    verdict->outcome = SEMEL_FAILURE;
    verdict->status = SEMEL_FAILED;
    verdict->code = shape.code;
    if (!bytes)
        return true;
    *out_reply = at = sml_callee_reply_alloc(&job->session->session->callee, bytes);
    if (!at)
        return false;
    memcpy(at, sim_bytes(world, name, SIM_TEXT, shape.text), shape.text);
    verdict->text = semel_bytes(at, shape.text);
    at += shape.text;
    memcpy(at, sim_bytes(world, name, SIM_DETAIL, shape.detail), shape.detail);
    verdict->detail = semel_bytes(at, shape.detail);
    at += shape.detail;
    memcpy(at, sim_bytes(world, name, SIM_TRACE, shape.trace), shape.trace);
    verdict->trace = semel_bytes(at, shape.trace);
    return true;
}

bool sim_job_answer(struct sim_world *world, struct sim_job *job, struct sml_verdict *verdict,
                    uint8_t **out_reply)
{
    struct sim_row *row = &world->rows[job->nonce];
    bool answered = false;

    *verdict = (struct sml_verdict){ .outcome = SEMEL_VALUE };
    if (row->behaviour == SIM_DO_FAIL)
        answered = answer_failure(world, job, verdict, out_reply);
    else if (row->behaviour != SIM_DO_DROP && sim_flow_is_complete(world, job) &&
             !(row->behaviour == SIM_DO_HANG && job->cancelled && sim_chance(&world->load, 2)))
        answered = answer_value(world, job, verdict, out_reply);
    if (answered)
        return true;
    row->dropped = true;
    *verdict = (struct sml_verdict){ .outcome = SEMEL_UNKNOWN,
                                     .status = SEMEL_DROPPED,
                                     .text = semel_bytes_text("dropped") };
    return sim_chance(&world->load, 2);
}

static void have_effect(struct sim_world *world, struct sim_job *job)
{
    if (world->durable)
        sim_judge_effect(world, job);
    else
        sim_ledger_effect(world, job->nonce);
    sim_trace_call(world, job, "effect");
}

static void job_finish(struct sim_world *world, struct sim_job *job)
{
    struct sim_session *info = job->session;
    struct sim_server *server = info->server;
    struct sml_callee *callee = &info->session->callee;
    struct sml_verdict verdict = { .outcome = SEMEL_VALUE };
    uint8_t *reply = NULL;

    if (job->known) {
        bool effect = sim_job_answer(world, job, &verdict, &reply);

        if (effect && world->rows[job->nonce].effect_late)
            have_effect(world, job);
    }
    if (world->durable)
        sim_judge_touch(world, job->in, false);
    sim_trace_finish(world, job, verdict.outcome);
    if (!sml_callee_finish(callee, job->in, &verdict, reply))
        sim_mark(world, SIM_MARK_LATE_FINISH);
    server->busy--;
    sim_job_let_go(world, job);
    if (server->commit)
        sim_commit_plan(world, server->commit);
    sim_point(world, server->commit, SIM_AT_END_UNSTORED);
}

/* ---- the run queue ------------------------------------------------------------------------- */

/* Calls that are answered without running. */
static bool rejected(struct sim_world *world, struct sim_job *job)
{
    struct sml_callee *callee = &job->session->session->callee;
    const struct sim_row *row = &world->rows[job->nonce];

    if (!job->known) {
        if (world->options->mode != SIM_HOSTILE)
            sim_fail(world, "MISMATCH: a request reached its handler that nobody sent so");
        if (sim_chance(&world->load, 2))
            return false;
        sml_callee_reject(callee, job->in, SEMEL_NO_METHOD, "no such method");
        return true;
    }
    if ((row->call_flags & SML_CALL_RERUN_OK) && row->kind != SIM_IDEMPOTENT) {
        sml_callee_reject(callee, job->in, SEMEL_INVALID, "not idempotent");
        return true;
    }
    if (row->behaviour == SIM_DO_NO_METHOD) {
        world->stats->faults[SIM_NO_METHOD]++;
        sml_callee_reject(callee, job->in, SEMEL_NO_METHOD, "no such method");
        return true;
    }
    return false;
}

void sim_job_count(struct sim_world *world, const struct sim_row *row)
{
    uint64_t *faults = world->stats->faults;

    faults[SIM_SLOW_HANDLER] += row->run != 0;
    faults[SIM_FAILING_HANDLER] += row->behaviour == SIM_DO_FAIL;
    faults[SIM_DROPPED_REQUEST] += row->behaviour == SIM_DO_DROP;
    faults[SIM_HANGING_HANDLER] += row->behaviour == SIM_DO_HANG;
    faults[SIM_DEAF_HANDLER] += row->behaviour == SIM_DO_DEAF;
    faults[SIM_MAX_RUN] += row->max_run != SML_NEVER;
}

void sim_job_let_go(struct sim_world *world, struct sim_job *job)
{
    struct sim_session *info = job->session;

    sim_job_free(world, job);
    sim_commit_touch(world, info);
    if (info->ended)
        sim_session_release(world, info);
    else
        sim_server_mark(info->server, info);
}

/* While stored replies exceed their bytes no further call of the session starts. */
static bool over_budget(const struct sml_callee *callee)
{
    return callee->bytes_stored > callee->limits.session_bytes;
}

void sim_jobs_unstall(struct sim_session *info)
{
    struct sml_list *node;

    while (!over_budget(&info->session->callee) &&
           (node = sml_list_pop_front(&info->stalled)) != NULL) {
        if (info->server->commit) {
            sim_commit_readmit(info->server->commit, SML_CONTAINER(node, struct sim_job, link));
            continue;
        }
        sml_list_push_back(&info->server->queue, node);
        info->server->queued++;
    }
}

/* Its handler may have killed the server. Returns whether it did. */
static bool is_deadly(struct sim_world *world, struct sim_job *job)
{
    struct sim_server *server = job->session->server;
    struct sim_durable_row *row = &world->rows[job->nonce].durable;

    if (!server->commit)
        return false;
    if (row->deaths <= row->died)
        return sim_point(world, server->commit, SIM_AT_HANDLER);
    row->died++;
    world->stats->faults[SIM_DEADLY_HANDLER]++;
    sim_server_die(world, server, sim_chance(&world->faults, 8));
    return true;
}

/* Its handler has begun. */
static void job_run(struct sim_world *world, struct sim_job *job)
{
    struct sim_server *server = job->session->server;
    const struct sim_row *row = &world->rows[job->nonce];
    uint64_t run = sim_below(&world->load, SML_MS);

    server->busy++;
    job->running = true;
    sml_list_push_back(&server->running, &job->link);
    sim_trace_call(world, job, "run");
    if (job->known) {
        if (world->durable)
            sim_judge_begin(world, job);
        else
            sim_ledger_begin(world, job->nonce, job->session->serial);
        sim_job_count(world, row);
        run = row->run;
        if (!row->effect_late)
            have_effect(world, job);
        if (is_deadly(world, job) || sim_flow_begin(world, job))
            return;
    }
    if (run)
        sim_at(world, &job->finish, world->now + run);
    else
        job_finish(world, job);
}

static void job_begin(struct sim_world *world, struct sim_job *job)
{
    struct sim_session *info = job->session;
    enum sml_incoming_phase phase = job->in->phase;
    const struct sim_row *row;
    uint64_t max_run;

    if ((phase == SML_IN_TAKEN || phase == SML_IN_STARTED) && over_budget(&info->session->callee)) {
        sml_list_push_back(&info->stalled, &job->link);
        sim_mark(world, SIM_MARK_STORED_FULL);
        return;
    }
    if (job->started && sim_point(world, info->server->commit, SIM_AT_START_STORED)) {
        sim_job_free(world, job);
        return;
    }
    if (!info->server->commit) {
        job->known = sim_ledger_identify(world, job->in, info->client_tag, &job->nonce);
        if (rejected(world, job)) {
            sim_job_let_go(world, job);
            return;
        }
    }
    row = &world->rows[job->nonce];
    max_run = !job->known || row->max_run == SML_NEVER ? 0 : row->max_run;
    if (!sml_callee_begin(&info->session->callee, job->in, max_run, world->now)) {
        sim_job_let_go(world, job);
        return;
    }
    if (job->in->deadline <= world->now)
        sim_fail(world, "call %u begins after its deadline", job->nonce);
    job_run(world, job);
}

static struct sim_job *queue_pop(struct sim_world *world, struct sim_server *server)
{
    struct sml_list *node = server->queue.next;

    if (sim_on(world, SIM_REORDERED_QUEUE) && server->queued > 1 && sim_chance(&world->load, 3)) {
        node = server->queue.prev;
        world->stats->faults[SIM_REORDERED_QUEUE]++;
    }
    sml_list_remove(node);
    server->queued--;
    if (server->commit)
        server->commit->queued_started -= SML_CONTAINER(node, struct sim_job, link)->started;
    return SML_CONTAINER(node, struct sim_job, link);
}

void sim_jobs_run(struct sim_world *world, struct sim_server *server)
{
    while (server->queued && server->busy < world->params.workers && !world->failed &&
           !server->dying)
        job_begin(world, queue_pop(world, server));
}

void sim_jobs_take(struct sim_world *world, struct sim_session *info)
{
    struct sim_server *server = info->server;
    struct sml_callee *callee = &info->session->callee;
    struct sml_incoming *in;

    for (;;) {
        bool full = over_budget(callee);
        struct sim_job *job;
        uint32_t waiting = server->busy + server->queued;

        if (info->ended || (in = sml_callee_take(callee)) == NULL)
            break;
        if (full)
            sim_fail(world, "session %u starts a call while its replies exceed their bytes",
                     info->serial);

        if (server->commit)
            waiting += server->commit->unstarted_count + server->commit->starting +
                       server->commit->txn_count;
        if (waiting >= world->params.workers + world->params.backlog) {
            world->stats->faults[SIM_FULL_QUEUE]++;
            sml_callee_refuse(callee, in, world->params.busy_ms);
            continue;
        }
        if (server->commit) {
            sim_commit_admit(world, info, in);
            continue;
        }
        job = sim_job_new(world, info, in);
        sml_list_push_back(&server->queue, &job->link);
        server->queued++;
        if (server->busy < world->params.workers && sim_below(&world->load, 4))
            sim_jobs_run(world, server);
    }
    if (!info->ended && !sml_list_empty(&callee->ready))
        sim_mark(world, SIM_MARK_STORED_FULL);
}

void sim_jobs_cancel(struct sim_world *world, struct sim_session *info)
{
    struct sml_incoming *in;

    while ((in = sml_callee_next_cancelled(&info->session->callee)) != NULL) {
        struct sim_job *job = in->user;

        if (!atomic_load(&in->cancelled))
            sim_fail(world, "a cancellation is announced that was not set");
        if (job->cancelled)
            sim_fail(world, "a cancellation is announced twice");
        job->cancelled = true;
        if (world->durable)
            sim_judge_cancelled(world, job);
        if (!job->running)
            continue;
        sim_mark(world, SIM_MARK_CANCEL_WHILE_RUNNING);
        sim_flow_cancelled(world, job);
        if (job->known && world->rows[job->nonce].behaviour == SIM_DO_HANG)
            sim_at(world, job->kind == SIM_TXN ? &info->server->commit->step : &job->finish,
                   world->now + sim_below(&world->load, 50 * SML_MS));
    }
}

void sim_jobs_drop_all(struct sim_world *world, struct sim_server *server)
{
    for (struct sml_list *node = server->sessions.next; node != &server->sessions;
         node = node->next)
        sml_list_move_all(&server->queue, &SML_CONTAINER(node, struct sim_session, all)->stalled);
    while (!sml_list_empty(&server->queue))
        sim_job_free(world, SML_CONTAINER(server->queue.next, struct sim_job, link));
    while (!sml_list_empty(&server->running))
        sim_job_free(world, SML_CONTAINER(server->running.next, struct sim_job, link));
    if (server->commit) {
        sml_list_move_all(&server->commit->held, &server->commit->unstarted);
        sml_list_move_all(&server->commit->held, &server->commit->txns);
        while (!sml_list_empty(&server->commit->held))
            sim_job_free(world, SML_CONTAINER(server->commit->held.next, struct sim_job, link));
    }
    server->queued = server->busy = 0;
}
