/* SPDX-License-Identifier: MIT */
/* handlers.c - the servers' run queue, workers and handlers. See sim.h.
 *
 * A handler does what its call's row in the ledger says: it takes its time, has its effect at the
 * beginning or at the end, and replies, fails, drops the request, hangs until it is cancelled, or
 * does not even listen to that. */
#include "sim.h"

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

static struct sim_job *job_new(struct sim_world *world, struct sim_session *info,
                               struct sml_incoming *in)
{
    struct sml_list *node = sml_list_pop_front(&world->free_jobs);
    struct sim_job *job = node ? SML_CONTAINER(node, struct sim_job, link) : malloc(sizeof *job);

    SML_ASSERT(job);
    sim_event_init(&job->finish, job_finish_fire);
    sml_list_init(&job->link);
    job->session = info;
    job->in = in;
    job->nonce = 0;
    job->running = job->cancelled = false;
    in->user = job;
    return job;
}

static void job_free(struct sim_world *world, struct sim_job *job)
{
    sim_off(world, &job->finish);
    sml_list_remove(&job->link);
    sml_list_push_front(&world->free_jobs, &job->link);
}

/* ---- what handlers answer ------------------------------------------------------------------ */

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
    memcpy(*out_reply, sim_bytes(world, job->nonce, SIM_REPLY, bytes), bytes);
    verdict->body = semel_bytes(*out_reply, bytes);
    return true;
}

static bool answer_failure(struct sim_world *world, struct sim_job *job,
                           struct sml_verdict *verdict, uint8_t **out_reply)
{
    struct sim_failure_shape shape = sim_failure_shape(world, job->nonce);
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
    memcpy(at, sim_bytes(world, job->nonce, SIM_TEXT, shape.text), shape.text);
    verdict->text = semel_bytes(at, shape.text);
    at += shape.text;
    memcpy(at, sim_bytes(world, job->nonce, SIM_DETAIL, shape.detail), shape.detail);
    verdict->detail = semel_bytes(at, shape.detail);
    at += shape.detail;
    memcpy(at, sim_bytes(world, job->nonce, SIM_TRACE, shape.trace), shape.trace);
    verdict->trace = semel_bytes(at, shape.trace);
    return true;
}

/* Returns whether the handler has its effect. */
static bool answer(struct sim_world *world, struct sim_job *job, struct sml_verdict *verdict,
                   uint8_t **out_reply)
{
    struct sim_row *row = &world->rows[job->nonce];
    bool answered = false;

    *verdict = (struct sml_verdict){ .outcome = SEMEL_VALUE };
    if (row->behaviour == SIM_DO_FAIL)
        answered = answer_failure(world, job, verdict, out_reply);
    else if (row->behaviour != SIM_DO_DROP &&
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

static void job_finish(struct sim_world *world, struct sim_job *job)
{
    struct sim_session *info = job->session;
    struct sim_server *server = info->server;
    struct sml_callee *callee = &info->session->callee;
    struct sml_verdict verdict = { .outcome = SEMEL_VALUE };
    uint8_t *reply = NULL;

    if (job->known) {
        bool effect = answer(world, job, &verdict, &reply);

        if (effect && world->rows[job->nonce].effect_late)
            sim_ledger_effect(world, job->nonce);
    }
    if (!sml_callee_finish(callee, job->in, &verdict, reply))
        sim_mark(world, SIM_MARK_LATE_FINISH);
    server->busy--;
    job_free(world, job);
    if (info->ended)
        sim_session_release(world, info);
    else
        sim_server_mark(server, info);
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
    if ((row->call_flags & SML_CALL_RERUN_OK) && !row->idempotent) {
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

static void count_behaviour(struct sim_world *world, const struct sim_row *row)
{
    uint64_t *faults = world->stats->faults;

    faults[SIM_SLOW_HANDLER] += row->run != 0;
    faults[SIM_FAILING_HANDLER] += row->behaviour == SIM_DO_FAIL;
    faults[SIM_DROPPED_REQUEST] += row->behaviour == SIM_DO_DROP;
    faults[SIM_HANGING_HANDLER] += row->behaviour == SIM_DO_HANG;
    faults[SIM_DEAF_HANDLER] += row->behaviour == SIM_DO_DEAF;
    faults[SIM_MAX_RUN] += row->max_run != SML_NEVER;
}

static void job_let_go(struct sim_world *world, struct sim_job *job)
{
    struct sim_session *info = job->session;

    job_free(world, job);
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
        sml_list_push_back(&info->server->queue, node);
        info->server->queued++;
    }
}

static void job_begin(struct sim_world *world, struct sim_job *job)
{
    struct sim_session *info = job->session;
    struct sim_server *server = info->server;
    const struct sim_row *row;
    uint64_t max_run, run;

    if (job->in->phase == SML_IN_TAKEN && over_budget(&info->session->callee)) {
        sml_list_push_back(&info->stalled, &job->link);
        sim_mark(world, SIM_MARK_STORED_FULL);
        return;
    }
    job->known = sim_ledger_identify(world, job->in, info->client_tag, &job->nonce);
    row = &world->rows[job->nonce];
    if (rejected(world, job)) {
        job_let_go(world, job);
        return;
    }
    max_run = !job->known || row->max_run == SML_NEVER ? 0 : row->max_run;
    if (!sml_callee_begin(&info->session->callee, job->in, max_run, world->now)) {
        job_let_go(world, job);
        return;
    }
    if (job->in->deadline <= world->now)
        sim_fail(world, "call %u begins after its deadline", job->nonce);
    server->busy++;
    job->running = true;
    run = sim_below(&world->load, SML_MS);
    if (job->known) {
        sim_ledger_begin(world, job->nonce, info->serial);
        count_behaviour(world, row);
        run = row->run;
        if (!row->effect_late)
            sim_ledger_effect(world, job->nonce);
    }
    sml_list_push_back(&server->running, &job->link);
    if (run)
        sim_at(world, &job->finish, world->now + run);
    else
        job_finish(world, job);
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
    return SML_CONTAINER(node, struct sim_job, link);
}

void sim_jobs_run(struct sim_world *world, struct sim_server *server)
{
    while (server->queued && server->busy < world->params.workers && !world->failed)
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

        if (info->ended || (in = sml_callee_take(callee)) == NULL)
            break;
        if (full)
            sim_fail(world, "session %u starts a call while its replies exceed their bytes",
                     info->serial);

        if (server->busy + server->queued >= world->params.workers + world->params.backlog) {
            world->stats->faults[SIM_FULL_QUEUE]++;
            sml_callee_refuse(callee, in, world->params.busy_ms);
            continue;
        }
        job = job_new(world, info, in);
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
        if (!job->running)
            continue;
        sim_mark(world, SIM_MARK_CANCEL_WHILE_RUNNING);
        if (job->known && world->rows[job->nonce].behaviour == SIM_DO_HANG)
            sim_at(world, &job->finish, world->now + sim_below(&world->load, 50 * SML_MS));
    }
}

void sim_jobs_drop_all(struct sim_world *world, struct sim_server *server)
{
    for (struct sml_list *node = server->sessions.next; node != &server->sessions;
         node = node->next)
        sml_list_move_all(&server->queue, &SML_CONTAINER(node, struct sim_session, all)->stalled);
    while (!sml_list_empty(&server->queue))
        job_free(world, SML_CONTAINER(server->queue.next, struct sim_job, link));
    while (!sml_list_empty(&server->running))
        job_free(world, SML_CONTAINER(server->running.next, struct sim_job, link));
    server->queued = server->busy = 0;
}
