/* SPDX-License-Identifier: MIT */
/* commit.c - a simulated server's committer: what is to be stored, in one transaction after the
 * other. See durable.h; transactional handlers are in txn.c.
 *
 * As the real one it gathers what there is while the last transaction is under way. Here a batch is
 * as large, and a transaction takes as long, as the seed says. */
#include "durable.h"

#include <stdlib.h>
#include <string.h>

#define RETRY (100 * SML_MS)
#define LAZY_CHANGES(commit) ((commit)->lazy_since != 0)

/* ---- who has something to store ------------------------------------------------------------ */

void sim_commit_touch(struct sim_world *world, struct sim_session *info)
{
    struct sim_commit *commit = info->server->commit;
    const struct sml_session *session = info->session;
    bool urgent;

    if (!commit)
        return;
    urgent =
        sml_callee_has_urgent_change(&session->callee) || sml_session_has_urgent_change(session);
    if (!urgent && !sml_callee_has_change(&session->callee) && !sml_session_has_change(session))
        return;
    if (!sml_list_linked(&info->commit_link))
        sml_list_push_back(&commit->dirty, &info->commit_link);
    if (urgent)
        commit->urgent = true;
    else if (commit->lazy_since == 0)
        commit->lazy_since = world->now;
    sim_commit_plan(world, commit);
}

/* A start that is stored too early becomes unknown if the server dies before its handler runs. */
static bool may_start(const struct sim_world *world, const struct sim_commit *commit)
{
    return commit->unstarted_count > 0 &&
           commit->server->busy + commit->starting + commit->queued_started <
               world->params.workers + world->durable->ahead;
}

static bool has_queued(const struct sim_world *world, const struct sim_commit *commit)
{
    return commit->txn_count > 0 || may_start(world, commit);
}

void sim_commit_plan(struct sim_world *world, struct sim_commit *commit)
{
    uint64_t when = commit->purge_at;

    if (commit->state != SIM_COMMIT_IDLE || commit->broken || commit->server->dying)
        return;
    if (LAZY_CHANGES(commit) && commit->lazy_since + world->durable->lazy < when)
        when = commit->lazy_since + world->durable->lazy;
    if (commit->urgent || has_queued(world, commit))
        when = world->now;
    if (when < commit->retry_at)
        when = commit->retry_at;
    sim_by(world, &commit->step, when);
}

/* ---- collecting ---------------------------------------------------------------------------- */

static uint32_t some(struct sim_world *world, uint32_t most)
{
    return most <= 1 ? most : 1 + (uint32_t)sim_below(&world->load, most);
}

/* The session's own record, after the changes of its calls were pulled. */
static void pull_session(struct sim_world *world, struct sim_part *part)
{
    struct sml_session *session = part->info->session;
    struct sml_session_record record;
    uint8_t *room = world->durable->scratch;

    part->change = sml_session_pull(session, &record, room);
    part->row = session->row;
    if (part->change != SML_SESSION_PUT)
        return;
    if (record.straggler_count > 0)
        sim_mark(world, SIM_MARK_STRAGGLERS);
    sim_say(world, "session %u is to be stored: base %llu, %u stragglers, conn_no %llu",
            part->info->serial, (unsigned long long)record.base, record.straggler_count,
            (unsigned long long)record.conn_no);
    part->conn_no = record.conn_no;
    part->record_bytes = sml_session_record_bytes(&record);
    part->record = malloc(part->record_bytes);
    SML_ASSERT(part->record);
    sml_session_record_encode(&record, part->record);
}

static const char *const change_names[] = { [SML_CHANGE_START] = "start",
                                            [SML_CHANGE_AGAIN] = "start's end",
                                            [SML_CHANGE_END] = "verdict",
                                            [SML_CHANGE_LEAVE] = "verdict, for its key alone,",
                                            [SML_CHANGE_FORGET] = "release" };

static void pull(struct sim_world *world, struct sim_commit *commit, struct sim_session *info,
                 uint32_t changes)
{
    struct sim_part *part = &commit->parts[commit->part_count];
    struct sml_callee *callee = &info->session->callee;

    *part = (struct sim_part){ .info = info, .first = commit->entry_count };
    while (part->count < changes && commit->entry_count < world->durable->batch_changes &&
           (commit->urgent_count < world->durable->batch_calls ||
            !sml_callee_has_urgent_change(callee))) {
        struct sim_entry *entry = &commit->entries[commit->entry_count];

        memset(entry, 0, sizeof *entry);
        if (!sml_callee_next_change(callee, &entry->change))
            break;
        sim_say(world, "session %u: the %s of xid %llu is to be stored", info->serial,
                change_names[entry->change.kind], (unsigned long long)entry->change.in->xid);
        commit->urgent_count += entry->change.kind != SML_CHANGE_FORGET;
        commit->entry_count++;
        part->count++;
    }
    pull_session(world, part);
    if (part->count > 0 || part->change != SML_SESSION_SAME)
        commit->part_count++;
}

void sim_commit_collect(struct sim_world *world, struct sim_commit *commit)
{
    const struct sim_durable *d = world->durable;
    bool small = sim_on(world, SIM_SMALL_BATCHES);
    uint32_t sessions = small ? some(world, d->batch_sessions) : d->batch_sessions;
    struct sml_list *node;

    commit->part_count = commit->entry_count = commit->urgent_count = 0;
    commit->urgent = false;
    commit->lazy_since = 0;
    while (commit->part_count < sessions && commit->entry_count < d->batch_changes &&
           commit->urgent_count < d->batch_calls &&
           (node = sml_list_pop_front(&commit->dirty)) != NULL) {
        struct sim_session *info = SML_CONTAINER(node, struct sim_session, commit_link);

        pull(world, commit, info, small ? some(world, d->batch_changes) : d->batch_changes);
        sim_session_release(world, info); /* if it ended before there was anything to store */
    }
    /* Others may be left: whether somebody waits for them shows when they are looked at. */
    commit->urgent |= !sml_list_empty(&commit->dirty);
    for (uint32_t p = 0; p < commit->part_count; p++) /* what did not fit */
        sim_commit_touch(world, commit->parts[p].info);
    if (small)
        world->stats->faults[SIM_SMALL_BATCHES]++;
}

/* ---- starts -------------------------------------------------------------------------------- */

static struct sim_job *first_job(struct sml_list *list)
{
    return SML_CONTAINER(list->next, struct sim_job, link);
}

/* Calls whose workers are near: their starts come into the batch with the rest. */
static void begin_starts(struct sim_world *world, struct sim_commit *commit)
{
    for (uint32_t i = 0; i < world->durable->batch_calls && may_start(world, commit); i++) {
        struct sim_job *job = first_job(&commit->unstarted);

        sml_list_remove(&job->link);
        commit->unstarted_count--;
        if (sml_callee_is_stalled(&job->session->session->callee) &&
            job->in->phase == SML_IN_TAKEN) {
            sml_list_push_back(&job->session->stalled, &job->link);
            sim_mark(world, SIM_MARK_STORED_FULL);
        } else if (sml_callee_start(&job->session->session->callee, job->in, world->now)) {
            commit->starting++;
            sml_list_push_back(&commit->held, &job->link);
            sim_commit_touch(world, job->session);
        } else {
            sim_job_let_go(world, job);
        }
    }
}

static void release_started(struct sim_world *world, struct sim_commit *commit, struct sim_job *job)
{
    commit->starting--;
    job->started = true;
    sml_list_remove(&job->link);
    if (commit->closed) {
        sml_callee_postpone_to_restart(&job->session->session->callee, job->in);
        sim_mark(world, SIM_MARK_PUT_BACK);
        sim_job_let_go(world, job);
        return;
    }
    commit->queued_started++;
    commit->server->queued++;
    sml_list_push_back(&commit->server->queue, &job->link);
}

/* ---- writing ------------------------------------------------------------------------------- */

/* What a store holds of a session's numbers never goes back. */
static void check_base(struct sim_world *world, const struct sim_store *store,
                       const struct sim_part *part)
{
    const struct sim_cell *cell =
        part->row ? sim_store_find(store, SIM_TABLE_SESSIONS, part->row) : NULL;
    struct sml_session_record old, new;

    if (!cell)
        return;
    SML_ASSERT(!sml_session_record_decode(semel_bytes(cell->data, cell->bytes), &old));
    SML_ASSERT(!sml_session_record_decode(semel_bytes(part->record, part->record_bytes), &new));
    if (new.base < old.base || new.conn_no < old.conn_no)
        sim_fail(world, "session %u: base falls from %llu to %llu, or conn_no from %llu to %llu",
                 part->info->serial, (unsigned long long)old.base, (unsigned long long)new.base,
                 (unsigned long long)old.conn_no, (unsigned long long)new.conn_no);
}

static enum sml_stored apply_session(struct sim_world *world, struct sim_commit *commit,
                                     struct sim_part *part)
{
    struct sim_store *store = commit->server->store;

    switch (part->change) {
    case SML_SESSION_PUT:
        check_base(world, store, part);
        return sim_store_put(world, store, SIM_TABLE_SESSIONS, &part->row,
                             semel_bytes(part->record, part->record_bytes));
    case SML_SESSION_DELETE:
        return sim_store_forget(world, store, SIM_TABLE_SESSIONS, part->row);
    case SML_SESSION_SAME:
        break;
    }
    return SML_STORED;
}

enum sml_stored sim_commit_put_call(struct sim_world *world, struct sim_commit *commit,
                                    const struct sml_session *session,
                                    const struct sml_incoming *in, enum sml_call_record_state state,
                                    uint64_t *row)
{
    struct sml_call_record record = { .session = session->row,
                                      .xid = in->xid,
                                      .state = state,
                                      .flags = in->flags,
                                      .crashes = in->crashes,
                                      .fingerprint = in->fingerprint,
                                      .origin = in->origin,
                                      .method = { in->method, in->method_bytes },
                                      .key = { in->key, in->key_bytes } };

    if (state == SML_CALL_ENDED) {
        record.verdict = in->verdict;
        record.proven = in->proven;
        sim_judge_ended(world, session, in);
    }
    sml_call_record_encode(&record, world->durable->scratch);
    *row = in->row;
    return sim_store_put(world, commit->server->store, SIM_TABLE_CALLS, row,
                         semel_bytes(world->durable->scratch, sml_call_record_bytes(&record)));
}

static enum sml_stored apply_start(struct sim_world *world, struct sim_commit *commit,
                                   struct sml_session *session, struct sim_entry *entry)
{
    const struct sml_incoming *in = entry->change.in;
    enum sml_stored stored = SML_STORED;

    if (in->key_bytes > 0)
        stored = sim_key_ask(world, commit, session, in, &entry->key);
    if (stored != SML_STORED || entry->key.state != SIM_KEY_FREE)
        return stored;
    sim_judge_touch(world, in, true);
    stored = sim_commit_put_call(world, commit, session, in, SML_CALL_STARTED, &entry->row);
    if (stored == SML_STORED && in->key_bytes > 0)
        stored = sim_key_put(world, commit, session, in, false);
    return stored;
}

static enum sml_stored apply_end(struct sim_world *world, struct sim_commit *commit,
                                 struct sml_session *session, struct sim_entry *entry)
{
    const struct sml_incoming *in = entry->change.in;
    enum sml_stored stored = SML_STORED;

    if (in->key_bytes > 0 && !in->answered)
        stored = sim_key_put(world, commit, session, in, true);
    if (stored != SML_STORED)
        return stored;
    if (entry->change.kind == SML_CHANGE_LEAVE) {
        sim_mark(world, SIM_MARK_LEFT);
        return in->row ? sim_store_forget(world, commit->server->store, SIM_TABLE_CALLS, in->row)
                       : SML_STORED;
    }
    return sim_commit_put_call(world, commit, session, in, SML_CALL_ENDED, &entry->row);
}

/* With its record goes what its key says of it, if that is no more than that it has begun. */
static enum sml_stored apply_forget(struct sim_world *world, struct sim_commit *commit,
                                    const struct sml_session *session,
                                    const struct sml_incoming *in)
{
    enum sml_stored stored = SML_STORED;

    if (in->key_bytes > 0)
        stored = sim_key_free(world, commit, session, in);
    if (stored == SML_STORED)
        stored = sim_store_forget(world, commit->server->store, SIM_TABLE_CALLS, in->row);
    return stored;
}

static enum sml_stored apply(struct sim_world *world, struct sim_commit *commit,
                             struct sml_session *session, struct sim_entry *entry)
{
    const struct sml_incoming *in = entry->change.in;

    switch (entry->change.kind) {
    case SML_CHANGE_START:
        return apply_start(world, commit, session, entry);
    case SML_CHANGE_AGAIN:
        return sim_commit_put_call(world, commit, session, in, SML_CALL_AGAIN, &entry->row);
    case SML_CHANGE_END:
    case SML_CHANGE_LEAVE:
        return apply_end(world, commit, session, entry);
    case SML_CHANGE_FORGET:
        return apply_forget(world, commit, session, in);
    }
    return SML_STORED;
}

enum sml_stored sim_commit_apply(struct sim_world *world, struct sim_commit *commit)
{
    enum sml_stored stored = SML_STORED;

    for (uint32_t p = 0; p < commit->part_count && stored == SML_STORED; p++) {
        struct sim_part *part = &commit->parts[p];
        struct sml_session *session = part->info->session;

        stored = apply_session(world, commit, part);
        if (stored == SML_STORED && part->change == SML_SESSION_PUT)
            session->row = part->row;
        for (uint32_t i = 0; i < part->count && stored == SML_STORED; i++)
            stored = apply(world, commit, session, &commit->entries[part->first + i]);
    }
    return stored;
}

/* ---- telling ------------------------------------------------------------------------------- */

/* A start that its key has answered, or holds back: its request is over. */
static void tell_keyed(struct sim_world *world, struct sim_commit *commit, struct sim_entry *entry)
{
    struct sim_job *job = entry->change.in->user;
    struct sml_callee *callee = &job->session->session->callee;

    commit->starting--;
    if (entry->key.state == SIM_KEY_ANSWERED)
        sml_callee_answer(callee, entry->change.in, &entry->key.verdict, entry->key.reply,
                          entry->key.proven);
    else
        sml_callee_postpone(callee, entry->change.in, world->params.busy_ms);
    sim_job_let_go(world, job);
}

static void tell_entry(struct sim_world *world, struct sim_commit *commit, struct sim_part *part,
                       struct sim_entry *entry, bool committed)
{
    struct sml_callee *callee = &part->info->session->callee;
    bool start = entry->change.kind == SML_CHANGE_START;
    struct sim_job *job = start ? entry->change.in->user : NULL;

    if (start && committed && entry->key.state != SIM_KEY_FREE) {
        tell_keyed(world, commit, entry);
        return;
    }
    if (!committed && entry->key.reply)
        sml_release(&commit->server->arena.mem, entry->key.reply);
    entry->change.in->begun |= committed && entry->key.begun;
    if (!sml_callee_recorded(callee, &entry->change, entry->row, committed)) {
        commit->starting--;
        sim_job_let_go(world, job);
    }
    if (start && committed)
        release_started(world, commit, job);
}

static void tell_part(struct sim_world *world, struct sim_commit *commit, struct sim_part *part,
                      bool committed)
{
    struct sim_session *info = part->info;
    struct sml_session *session = info->session;

    info->told = true;
    for (uint32_t i = part->count; i-- > 0;)
        tell_entry(world, commit, part, &commit->entries[part->first + i], committed);
    if (!committed && part->change == SML_SESSION_PUT && session->conn_no_stored == 0)
        session->row = 0;
    sml_session_recorded(session, part->change, part->conn_no,
                         part->change == SML_SESSION_DELETE ? 0 : part->row, committed);
    free(part->record);
    part->record = NULL;
    info->told = false;
    sim_commit_touch(world, info);
    if (info->ended)
        sim_session_release(world, info);
    else
        sim_server_mark(commit->server, info);
}

void sim_commit_answer(struct sim_world *world, struct sim_commit *commit, bool committed)
{
    for (uint32_t p = 0; p < commit->part_count; p++)
        tell_part(world, commit, &commit->parts[p], committed);
    commit->part_count = commit->entry_count = 0;
}

void sim_commit_trouble(struct sim_world *world, struct sim_commit *commit, enum sml_stored stored)
{
    if (stored == SML_STORE_UNKNOWN) {
        commit->broken = true;
        sim_life_stop(world, commit->server);
        return;
    }
    sim_mark(world, SIM_MARK_STORE_WAITED);
    commit->retry_at = world->now + RETRY;
}

/* ---- a transaction's way to the disk ------------------------------------------------------- */

static uint64_t disk_time(struct sim_world *world, const struct sim_store *store)
{
    uint64_t slow = store->slow_until > world->now ? 100 : 1;

    return slow * sim_between(&world->load, world->durable->write_low, world->durable->write_high);
}

/* What will be said of it, and what is true. */
static enum sml_stored draw_fate(struct sim_world *world, struct sim_store *store)
{
    uint64_t truth;

    if (store->full_until > world->now || store->failing || store->spoils) {
        store->why = store->spoils                    ? SIM_SPOILT
                     : store->full_until > world->now ? SIM_FULL_DISK
                                                      : store->fails_as;
        store->failing = false;
        sim_store_rollback(store);
        return SML_NOT_STORED;
    }
    if (!store->unknown_next)
        return SML_STORED;
    store->unknown_next = false;
    truth = sim_below(&world->faults, 3);
    sim_mark(world, truth ? SIM_MARK_UNKNOWN_STORED : SIM_MARK_UNKNOWN_LOST);
    if (truth == 0) {
        sim_store_rollback(store);
        return SML_STORE_UNKNOWN;
    }
    sim_store_write(world, store);
    if (truth == 2)
        sim_store_sync(store);
    return SML_STORE_UNKNOWN;
}

void sim_commit_send(struct sim_world *world, struct sim_commit *commit, enum sim_purpose purpose)
{
    struct sim_store *store = commit->server->store;

    commit->purpose = purpose;
    commit->fate = draw_fate(world, store);
    commit->state = commit->fate == SML_STORED ? SIM_COMMIT_WRITING : SIM_COMMIT_FAILING;
    sim_at(world, &commit->step, world->now + disk_time(world, store));
}

static void purge_concluded(struct sim_world *world, struct sim_commit *commit,
                            enum sml_stored stored)
{
    if (stored != SML_STORED)
        sim_commit_trouble(world, commit, stored);
}

static void changes_concluded(struct sim_world *world, struct sim_commit *commit,
                              enum sml_stored stored)
{
    sim_trace_concluded(world, stored);
    if (stored != SML_STORED)
        sim_commit_trouble(world, commit, stored);
    if (stored != SML_STORE_UNKNOWN)
        sim_commit_answer(world, commit, stored == SML_STORED);
}

static void concluded(struct sim_world *world, struct sim_commit *commit, enum sml_stored stored)
{
    static void (*const by_purpose[])(struct sim_world *, struct sim_commit *, enum sml_stored) = {
        [SIM_FOR_CHANGES] = changes_concluded,
        [SIM_FOR_CALLS] = sim_txn_concluded,
        [SIM_FOR_PURGE] = purge_concluded,
        [SIM_FOR_RESTORE] = sim_restore_concluded,
    };

    commit->state = SIM_COMMIT_IDLE;
    sim_say(world, "server %u: transaction %llu is %s", commit->server->index,
            (unsigned long long)commit->server->store->txn,
            stored == SML_STORED       ? "stored"
            : stored == SML_NOT_STORED ? "not stored"
                                       : "unknown");
    if (stored == SML_STORED && commit->purpose != SIM_FOR_RESTORE &&
        (commit->urgent_count > 0 || commit->call_count > 0) &&
        sim_point(world, commit, SIM_AT_UNTOLD))
        return;
    by_purpose[commit->purpose](world, commit, stored);
    sim_jobs_run(world, commit->server);
    sim_server_pump(world, commit->server);
}

static void written(struct sim_world *world, struct sim_commit *commit)
{
    struct sim_store *store = commit->server->store;

    sim_store_write(world, store);
    if (sim_point(world, commit, SIM_AT_UNSYNCED))
        return;
    if (world->options->lying_disk) {
        concluded(world, commit, SML_STORED);
        return;
    }
    commit->state = SIM_COMMIT_SYNCING;
    sim_at(world, &commit->step, world->now + disk_time(world, store));
}

static void synced(struct sim_world *world, struct sim_commit *commit)
{
    sim_store_sync(commit->server->store);
    concluded(world, commit, commit->fate);
}

/* ---- rounds -------------------------------------------------------------------------------- */

static void commit_changes(struct sim_world *world, struct sim_commit *commit)
{
    struct sim_store *store = commit->server->store;
    enum sml_stored stored;
    bool starts = commit->starting > 0;

    sim_commit_collect(world, commit);
    if (commit->part_count == 0)
        return;
    stored = sim_store_begin(world, store);
    if (stored == SML_STORED)
        stored = sim_commit_apply(world, commit);
    if (stored != SML_STORED) {
        changes_concluded(world, commit, stored);
        return;
    }
    sim_commit_send(world, commit, SIM_FOR_CHANGES);
    if (starts && sim_point(world, commit, SIM_AT_START_UNSTORED))
        return;
}

static void purge(struct sim_world *world, struct sim_commit *commit)
{
    bool more = false;
    enum sml_stored stored;

    commit->purge_at = world->now + world->durable->purge;
    if (sim_store_clock(world, commit->server->store) <= world->durable->retention_ms)
        return;
    stored = sim_store_begin(world, commit->server->store);
    if (stored == SML_STORED)
        stored = sim_key_purge(world, commit, &more);
    if (more)
        commit->purge_at = world->now;
    if (stored == SML_STORED)
        sim_commit_send(world, commit, SIM_FOR_PURGE);
    else
        sim_commit_trouble(world, commit, stored);
}

static void one_round(struct sim_world *world, struct sim_commit *commit)
{
    bool lazy_due = LAZY_CHANGES(commit) && commit->lazy_since + world->durable->lazy <= world->now;
    bool changes_first = commit->txn_count == 0 || sim_chance(&world->load, 2);

    begin_starts(world, commit);
    if (commit->urgent && changes_first)
        commit_changes(world, commit);
    else if (!sim_txn_round(world, commit) && (commit->urgent || lazy_due))
        commit_changes(world, commit);
    else if (commit->state == SIM_COMMIT_IDLE && commit->purge_at <= world->now &&
             !commit->server->dying && !commit->broken)
        purge(world, commit);
}

static void step_fire(struct sim_world *world, struct sim_event *event)
{
    struct sim_commit *commit = SML_CONTAINER(event, struct sim_commit, step);

    switch (commit->state) {
    case SIM_COMMIT_IDLE:
        if (world->now >= commit->retry_at && !commit->server->dying && !commit->broken)
            one_round(world, commit);
        break;
    case SIM_COMMIT_HANDLER:
        sim_txn_handler_ended(world, commit);
        break;
    case SIM_COMMIT_WRITING:
        written(world, commit);
        break;
    case SIM_COMMIT_SYNCING:
        synced(world, commit);
        break;
    case SIM_COMMIT_FAILING:
        concluded(world, commit, commit->fate);
        break;
    }
    sim_server_pump(world, commit->server);
    sim_commit_plan(world, commit);
}

/* ---- what comes in ------------------------------------------------------------------------- */

static void queue_job(struct sim_commit *commit, struct sim_job *job, uint8_t kind)
{
    if (kind == SIM_TXN) {
        sml_list_push_back(&commit->txns, &job->link);
        commit->txn_count++;
    } else if (kind != SIM_IDEMPOTENT && !job->started) {
        sml_list_push_back(&commit->unstarted, &job->link);
        commit->unstarted_count++;
    } else {
        sml_list_push_back(&commit->server->queue, &job->link);
        commit->server->queued++;
        commit->queued_started += job->started;
    }
}

void sim_commit_readmit(struct sim_commit *commit, struct sim_job *job)
{
    queue_job(commit, job, (uint8_t)job->kind);
}

static bool turned_away(struct sim_world *world, struct sim_job *job)
{
    const struct sim_row *row = &world->rows[job->nonce];
    struct sim_commit *commit = job->session->server->commit;
    struct sml_callee *callee = &job->session->session->callee;

    if (!job->known) {
        sim_fail(world, "MISMATCH: a request reached its handler that nobody sent so");
        sml_callee_reject(callee, job->in, SEMEL_NO_METHOD, "no such method");
    } else if ((job->in->flags & SML_CALL_RERUN_OK) && row->kind != SIM_IDEMPOTENT) {
        sml_callee_reject(callee, job->in, SEMEL_INVALID, "not idempotent");
    } else if (row->behaviour == SIM_DO_NO_METHOD) {
        world->stats->faults[SIM_NO_METHOD]++;
        sml_callee_reject(callee, job->in, SEMEL_NO_METHOD, "no such method");
    } else if (commit->closed) {
        sml_callee_postpone_to_restart(callee, job->in);
    } else if (commit->server->host.draining) {
        sml_callee_refuse(callee, job->in, world->params.busy_ms);
    } else {
        return false;
    }
    return true;
}

void sim_commit_admit(struct sim_world *world, struct sim_session *info, struct sml_incoming *in)
{
    struct sim_commit *commit = info->server->commit;
    struct sim_job *job = sim_job_new(world, info, in);

    job->known = sim_ledger_identify(world, in, info->client_tag, &job->nonce);
    job->kind = job->known ? world->rows[job->nonce].kind : SIM_ONCE;
    if (turned_away(world, job)) {
        sim_job_let_go(world, job);
        return;
    }
    queue_job(commit, job, job->kind);
    sim_commit_plan(world, commit);
}

static void postpone_all(struct sim_world *world, struct sml_list *list)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(list)) != NULL) {
        struct sim_job *job = SML_CONTAINER(node, struct sim_job, link);

        if (job->started)
            sim_mark(world, SIM_MARK_PUT_BACK);
        sml_callee_postpone_to_restart(&job->session->session->callee, job->in);
        sim_job_let_go(world, job);
    }
}

void sim_commit_close(struct sim_world *world, struct sim_commit *commit)
{
    struct sim_server *server = commit->server;

    commit->closed = true;
    postpone_all(world, &server->queue);
    postpone_all(world, &commit->unstarted);
    postpone_all(world, &commit->txns);
    for (struct sml_list *node = server->sessions.next; node != &server->sessions;
         node = node->next)
        postpone_all(world, &SML_CONTAINER(node, struct sim_session, all)->stalled);
    server->queued = commit->unstarted_count = commit->txn_count = commit->queued_started = 0;
}

bool sim_commit_is_done(const struct sim_commit *commit)
{
    return commit->state == SIM_COMMIT_IDLE && sml_list_empty(&commit->dirty) &&
           commit->starting == 0;
}

/* ---- life ---------------------------------------------------------------------------------- */

struct sim_commit *sim_commit_new(struct sim_world *world, struct sim_server *server)
{
    struct sim_commit *commit = calloc(1, sizeof *commit);

    SML_ASSERT(commit);
    commit->server = server;
    sim_event_init(&commit->step, step_fire);
    sml_list_init(&commit->dirty);
    sml_list_init(&commit->unstarted);
    sml_list_init(&commit->txns);
    sml_list_init(&commit->held);
    sim_commit_reset(world, commit);
    return commit;
}

static void free_records(struct sim_commit *commit)
{
    for (uint32_t p = 0; p < commit->part_count; p++)
        free(commit->parts[p].record);
    commit->part_count = 0;
}

void sim_commit_free(struct sim_commit *commit)
{
    free_records(commit);
    free(commit);
}

void sim_commit_reset(struct sim_world *world, struct sim_commit *commit)
{
    sim_off(world, &commit->step);
    free_records(commit);
    while (sml_list_pop_front(&commit->dirty) != NULL)
        continue;
    commit->entry_count = commit->urgent_count = 0;
    commit->call_count = commit->ran = 0;
    commit->unstarted_count = commit->txn_count = commit->starting = commit->queued_started = 0;
    commit->urgent = commit->broken = commit->closed = false;
    commit->state = SIM_COMMIT_IDLE;
    commit->lazy_since = commit->retry_at = 0;
    commit->purge_at = world->now + world->durable->purge;
    commit->running = NULL;
    commit->die_at = SIM_NO_POINT;
}
