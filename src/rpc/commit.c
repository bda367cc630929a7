/* SPDX-License-Identifier: MIT */
/* commit.c - the committer's rounds: what is to be stored, in one transaction after the other. See
 * commit.h; transactional handlers are in commit_txn.c.
 *
 * Sessions with something to store stand in a list. They are put there under their stripe, and
 * marked (`queued`); the committer takes the list, and then each session's stripe, one at a time,
 * never while it talks to the store. A session that is marked, or whose changes are under way, is
 * not freed.
 *
 * Sleeping. Whoever brings work sets `work`, then looks whether the committer sleeps; the committer
 * says that it sleeps, then looks at `work` again. Both with sequentially consistent order, so at
 * least one sees the other. */
#include "rpc/commit.h"

#include <stdlib.h>
#include <string.h>

#include "os/futex.h"
#include "rpc/server_internal.h"

/* One change of the batch. */
struct entry {
    struct sml_change change;
    uint64_t row;
    struct sml_key_answer key; /* a START that was answered by its key, or must wait */
};

/* One session of the batch, with the entries that are its. */
struct part {
    struct sml_served *served;
    enum sml_session_change change;
    uint64_t conn_no, row;
    size_t record_at, record_bytes; /* in the arena */
    uint32_t first, count;
};

struct sml_batch_of_changes {
    struct part parts[SML_BATCH_SESSIONS];
    struct entry entries[SML_BATCH_CHANGES];
    uint32_t part_count, entry_count;
    uint32_t urgent; /* of the entries: starts and verdicts */
};

/* --- waking ------------------------------------------------------------------------------ */

void sml_commit_wake(struct sml_commit *commit)
{
    uint32_t asleep = 1;

    atomic_store(&commit->work, true);
    if (atomic_load(&commit->word) == 1 &&
        atomic_compare_exchange_strong(&commit->word, &asleep, 0))
        sml_futex_wake(&commit->word, 1);
}

/* Is there so little to forget, and nothing else to store, that it has time? */
static bool has_time(const struct sml_session *session)
{
    const struct sml_callee *callee = &session->callee;

    return !sml_callee_has_urgent_change(callee) && !sml_session_has_change(session) &&
           callee->dropped_count < SML_FORGET_CALLS &&
           callee->dropped_count < callee->limits.window;
}

/* To the committer's lists, where it is not in its hands. */
static void enlist(struct sml_commit *commit, struct sml_served *served)
{
    bool late = has_time(served->session);

    if (served->queued && (!served->late || late))
        return;
    sml_mutex_lock(&commit->lock);
    if (!served->queued || sml_list_linked(&served->commit_link)) {
        sml_list_remove(&served->commit_link);
        sml_list_push_back(late ? &commit->late : &commit->dirty, &served->commit_link);
        served->late = late;
    }
    served->queued = true;
    sml_mutex_unlock(&commit->lock);
}

void sml_commit_touch(struct sml_served *served)
{
    struct sml_commit *commit = &served->server->commit;
    const struct sml_session *session = served->session;
    bool urgent;

    if (!sml_commit_is_durable(commit))
        return;
    urgent =
        sml_callee_has_urgent_change(&session->callee) || sml_session_has_urgent_change(session);
    if (!urgent && !sml_callee_has_change(&session->callee) && !sml_session_has_change(session))
        return;
    enlist(commit, served);
    if (urgent) {
        atomic_store(&commit->urgent, true);
        sml_commit_wake(commit);
    } else {
        uint64_t none = 0;

        /* It is noticed when the committer next looks, which is soon enough, or it is woken. */
        (void)atomic_compare_exchange_strong(&commit->lazy_since, &none, sml_clock_now());
        if (atomic_load(&commit->deep))
            sml_commit_wake(commit);
    }
}

/* --- collecting -------------------------------------------------------------------------- */

static uint8_t *arena_room(struct sml_commit *commit, size_t bytes)
{
    if (commit->arena_bytes - commit->arena_used < bytes) {
        size_t room = (commit->arena_used + bytes) * 2;
        uint8_t *larger = realloc(commit->arena, room);

        if (larger == NULL)
            return NULL;
        commit->arena = larger;
        commit->arena_bytes = room;
    }
    return commit->arena + commit->arena_used;
}

/* Stragglers, and behind them the record, which holds them and a little more. */
static size_t session_room(const struct sml_session *session)
{
    return 2 * (size_t)session->callee.limits.window * 8 + 256;
}

/* The session's own record, encoded while its stripe is held. */
static void pull_session(struct sml_commit *commit, struct part *part)
{
    struct sml_session *session = part->served->session;
    size_t stragglers = (size_t)session->callee.limits.window * 8;
    struct sml_session_record record;
    uint8_t *room = arena_room(commit, session_room(session));

    SML_ASSERT(room); /* it was made sure of before anything was pulled */
    part->change = sml_session_pull(session, &record, room);
    part->row = session->row;
    if (part->change != SML_SESSION_PUT)
        return;
    part->conn_no = record.conn_no;
    part->record_bytes = sml_session_record_bytes(&record);
    sml_session_record_encode(&record, room + stragglers);
    memmove(room, room + stragglers, part->record_bytes);
    part->record_at = commit->arena_used;
    commit->arena_used += part->record_bytes;
}

/* What there is to store of one session, as far as the batch has room; what it has time for only if
 * that is wanted. False: no memory. */
static bool pull(struct sml_commit *commit, struct sml_served *served, bool all)
{
    struct sml_batch_of_changes *batch = commit->batch;
    struct part *part = &batch->parts[batch->part_count];
    struct sml_session *session = served->session;
    bool forget = all || session->callee.dropped_count >= SML_FORGET_CALLS ||
                  session->callee.dropped_count >= session->callee.limits.window;
    struct entry *entry;

    *part = (struct part){ .served = served, .first = batch->entry_count };
    if (!arena_room(commit, session_room(session))) {
        commit->retry_at = sml_time_add(sml_clock_now(), SML_RETRY_NS);
        return false;
    }
    while (batch->entry_count < SML_BATCH_CHANGES &&
           (forget || sml_callee_has_urgent_change(&session->callee)) &&
           (batch->urgent < SML_BATCH_CALLS || !sml_callee_has_urgent_change(&session->callee))) {
        entry = &batch->entries[batch->entry_count];
        memset(entry, 0, sizeof *entry);
        if (!sml_callee_next_change(&session->callee, &entry->change))
            break;
        batch->urgent += entry->change.kind != SML_CHANGE_FORGET;
        batch->entry_count++;
        part->count++;
    }
    pull_session(commit, part);
    if (part->count > 0 || part->change != SML_SESSION_SAME)
        batch->part_count++;
    return true;
}

static struct sml_served *next_dirty(struct sml_commit *commit)
{
    struct sml_list *node;

    sml_mutex_lock(&commit->lock);
    node = sml_list_pop_front(&commit->dirty);
    sml_mutex_unlock(&commit->lock);
    return node ? SML_CONTAINER(node, struct sml_served, commit_link) : NULL;
}

/* From now on nobody has time. */
static void hurry(struct sml_commit *commit)
{
    atomic_store(&commit->lazy_since, 0);
    sml_mutex_lock(&commit->lock);
    sml_list_move_all(&commit->dirty, &commit->late);
    sml_mutex_unlock(&commit->lock);
}

void sml_commit_collect(struct sml_commit *commit, bool all)
{
    struct sml_batch_of_changes *batch = commit->batch;
    struct sml_served *served;
    bool room = true, done;
    uint32_t parts;

    batch->part_count = batch->entry_count = batch->urgent = 0;
    commit->arena_used = 0;
    atomic_store(&commit->urgent, false);
    if (all)
        hurry(commit);
    while (room && (served = next_dirty(commit)) != NULL) {
        parts = batch->part_count;
        sml_mutex_lock(served->lock);
        room = pull(commit, served, all) && batch->part_count < SML_BATCH_SESSIONS &&
               batch->entry_count < SML_BATCH_CHANGES && batch->urgent < SML_BATCH_CALLS;
        /* One that has a part stays marked until the part is told of, so that no batch has two of
         * one session: `base` in its record is that of what was pulled with it. */
        served->queued = batch->part_count > parts;
        served->late = false;
        sml_commit_touch(served);
        done = sml_served_done(served); /* it ended before there was anything of it to store */
        sml_mutex_unlock(served->lock);
        if (done)
            sml_served_free(served);
    }
    /* Others may be left: whether somebody waits for them shows when they are looked at. */
    if (!room)
        atomic_store(&commit->urgent, true);
}

/* A request that will not start: its call has its verdict, or is gone. Its stripe is held. */
static void recycle(struct semel_request *request)
{
    struct semel_server *server = request->server;

    request->in = NULL;
    sml_request_close_stream(request);
    sml_info_unref(request->info);
    sml_mutex_lock(&server->queue_lock);
    sml_queue_unstarted_locked(server, request);
    sml_server_recycle_locked(server, request);
    sml_mutex_unlock(&server->queue_lock);
}

/* The same; the stripe is released on return. */
static void drop(struct semel_request *request)
{
    struct sml_served *served = request->served;

    recycle(request);
    sml_commit_touch(served);
    sml_commit_write(served);
}

/* What its session stores of replies is over its budget. Its stripe is held, and released on
 * return. */
static void stall(struct semel_request *request)
{
    bool waits = sml_request_stall_unstarted(request);

    sml_mutex_unlock(request->served->lock);
    if (!waits)
        sml_server_postpone(request);
}

/* Calls whose workers are near: their starts come into the batch with the rest. */
static void begin_starts(struct sml_commit *commit)
{
    struct semel_server *server = commit->server;
    struct semel_request *request;
    uint64_t now = sml_clock_now();

    for (int i = 0; i < SML_BATCH_CALLS; i++) {
        struct sml_served *served;

        sml_mutex_lock(&server->queue_lock);
        request = sml_queue_take_unstarted_locked(server);
        sml_mutex_unlock(&server->queue_lock);
        if (request == NULL)
            return;
        served = request->served;
        sml_mutex_lock(served->lock);
        if (sml_served_is_stalled(served) && request->in->phase == SML_IN_TAKEN) {
            stall(request);
        } else if (sml_callee_start(&served->session->callee, request->in, now)) {
            sml_commit_touch(served);
            sml_mutex_unlock(served->lock);
        } else {
            drop(request);
        }
    }
}

/* --- writing ----------------------------------------------------------------------------- */

static enum sml_stored apply_session(struct sml_commit *commit, struct part *part)
{
    const struct sml_store_ops *ops = commit->store->ops;

    switch (part->change) {
    case SML_SESSION_PUT:
        return ops->put(commit->store, SML_TABLE_SESSIONS, &part->row,
                        semel_bytes(commit->arena + part->record_at, part->record_bytes));
    case SML_SESSION_DELETE:
        return ops->forget(commit->store, SML_TABLE_SESSIONS, part->row);
    case SML_SESSION_SAME:
        break;
    }
    return SML_STORED;
}

static enum sml_stored apply_start(struct sml_commit *commit, struct sml_session *session,
                                   struct entry *entry)
{
    const struct sml_incoming *in = entry->change.in;
    enum sml_stored stored = SML_STORED;

    if (in->key_bytes > 0)
        stored = sml_commit_ask_key(commit, session, in, &entry->key);
    if (stored != SML_STORED || entry->key.state != SML_KEY_FREE)
        return stored;
    stored = sml_commit_put_call(commit, session, in, SML_CALL_STARTED, &entry->row);
    if (stored == SML_STORED && in->key_bytes > 0)
        stored = sml_commit_put_key(commit, session, in, false);
    return stored;
}

static enum sml_stored apply_end(struct sml_commit *commit, struct sml_session *session,
                                 struct entry *entry)
{
    const struct sml_incoming *in = entry->change.in;
    enum sml_stored stored = SML_STORED;

    if (in->key_bytes > 0 && !in->answered)
        stored = sml_commit_put_key(commit, session, in, true);
    if (stored != SML_STORED)
        return stored;
    if (entry->change.kind == SML_CHANGE_LEAVE)
        return in->row ? commit->store->ops->forget(commit->store, SML_TABLE_CALLS, in->row)
                       : SML_STORED;
    return sml_commit_put_call(commit, session, in, SML_CALL_ENDED, &entry->row);
}

/* With its record goes what its key says of it, if that is no more than that it has begun. */
static enum sml_stored apply_forget(struct sml_commit *commit, const struct sml_session *session,
                                    const struct sml_incoming *in)
{
    enum sml_stored stored = SML_STORED;

    if (in->key_bytes > 0)
        stored = sml_commit_free_key(commit, session, in);
    if (stored == SML_STORED)
        stored = commit->store->ops->forget(commit->store, SML_TABLE_CALLS, in->row);
    return stored;
}

static enum sml_stored apply(struct sml_commit *commit, struct sml_session *session,
                             struct entry *entry)
{
    switch (entry->change.kind) {
    case SML_CHANGE_START:
        return apply_start(commit, session, entry);
    case SML_CHANGE_AGAIN:
        return sml_commit_put_call(commit, session, entry->change.in, SML_CALL_AGAIN, &entry->row);
    case SML_CHANGE_END:
    case SML_CHANGE_LEAVE:
        return apply_end(commit, session, entry);
    case SML_CHANGE_FORGET:
        return apply_forget(commit, session, entry->change.in);
    }
    return SML_STORED;
}

enum sml_stored sml_commit_apply_changes(struct sml_commit *commit)
{
    struct sml_batch_of_changes *batch = commit->batch;
    enum sml_stored stored = SML_STORED;

    for (uint32_t p = 0; p < batch->part_count && stored == SML_STORED; p++) {
        struct part *part = &batch->parts[p];
        struct sml_session *session = part->served->session;

        stored = apply_session(commit, part);
        /* The records of its calls name it by this number; it is only ours to change. */
        if (stored == SML_STORED && part->change == SML_SESSION_PUT)
            session->row = part->row;
        for (uint32_t i = 0; i < part->count && stored == SML_STORED; i++)
            stored = apply(commit, session, &batch->entries[part->first + i]);
    }
    return stored;
}

static void succeeded(struct sml_commit *commit)
{
    atomic_fetch_add_explicit(&commit->totals.commits, 1, memory_order_relaxed);
    if (commit->complained)
        sml_server_log(commit->server, SEMEL_LOG_INFO, "the store works again");
    commit->complained = false;
}

static bool writes(const struct entry *entry)
{
    const struct sml_incoming *in = entry->change.in;

    switch (entry->change.kind) {
    case SML_CHANGE_START: /* what its key has answered, or holds back, was only read */
        return entry->key.state == SML_KEY_FREE;
    case SML_CHANGE_LEAVE:
        return in->row != 0 || (in->key_bytes > 0 && !in->answered);
    case SML_CHANGE_AGAIN:
    case SML_CHANGE_END:
    case SML_CHANGE_FORGET:
        break;
    }
    return true;
}

bool sml_commit_wrote(const struct sml_commit *commit)
{
    const struct sml_batch_of_changes *batch = commit->batch;

    for (uint32_t p = 0; p < batch->part_count; p++)
        if (batch->parts[p].change != SML_SESSION_SAME)
            return true;
    for (uint32_t i = 0; i < batch->entry_count; i++)
        if (writes(&batch->entries[i]))
            return true;
    return false;
}

enum sml_stored sml_commit_end(struct sml_commit *commit, bool wrote)
{
    enum sml_stored stored;

    if (!wrote) {
        commit->store->ops->rollback(commit->store);
        return SML_STORED;
    }
    stored = commit->store->ops->commit(commit->store);
    if (stored == SML_STORED)
        succeeded(commit);
    return stored;
}

/* --- telling ----------------------------------------------------------------------------- */

void sml_commit_write(struct sml_served *served)
{
    struct sml_conn *conn = served->conn;
    bool done = sml_served_done(served);

    if (conn && sml_peer_wants_write(&conn->peer))
        sml_conn_write(conn);
    else
        sml_mutex_unlock(served->lock);
    if (done)
        sml_served_free(served);
}

/* A START of a keyed call that its key has answered, or holds back. Its request is over. */
static void tell_keyed(struct sml_served *served, struct entry *entry)
{
    struct sml_callee *callee = &served->session->callee;
    struct semel_request *request = entry->change.in->user;
    struct semel_server *server = served->server;

    sml_commit_fit_answer(callee, &entry->key);
    sml_mutex_lock(&server->queue_lock);
    if (entry->key.state == SML_KEY_BUSY)
        sml_queue_count_refusal_locked(server, request);
    sml_mutex_unlock(&server->queue_lock);
    if (entry->key.state == SML_KEY_ANSWERED)
        sml_callee_answer(callee, entry->change.in, &entry->key.verdict, entry->key.reply,
                          entry->key.proven);
    else
        sml_callee_postpone(callee, entry->change.in, server->busy_ms);
    recycle(request);
}

/* What became of one session's changes. Requests whose start is stored go to `started`. */
static void tell_part(struct sml_commit *commit, struct part *part, bool committed,
                      struct sml_list *started)
{
    struct sml_served *served = part->served;
    struct sml_callee *callee = &served->session->callee;

    sml_mutex_lock(served->lock);
    /* From the last to the first, so that what is not stored keeps its order. */
    for (uint32_t i = part->count; i-- > 0;) {
        struct entry *entry = &commit->batch->entries[part->first + i];
        struct semel_request *request = entry->change.in->user;
        bool start = entry->change.kind == SML_CHANGE_START;

        if (start && committed && entry->key.state != SML_KEY_FREE) {
            tell_keyed(served, entry);
            continue;
        }
        entry->change.in->begun |= committed && entry->key.begun;
        if (!sml_callee_recorded(callee, &entry->change, entry->row, committed))
            recycle(request);
        if (start && committed)
            sml_list_push_front(started, &request->link);
        else if (!committed && entry->key.reply)
            sml_release(&sml_mem_libc, entry->key.reply);
    }
    if (!committed && part->change == SML_SESSION_PUT && served->session->conn_no_stored == 0)
        served->session->row = 0;
    sml_session_recorded(served->session, part->change, part->conn_no,
                         part->change == SML_SESSION_DELETE ? 0 : part->row, committed);
    served->queued = false;
    sml_served_retime(served);
    sml_commit_touch(served);
    sml_commit_write(served);
}

/* Calls whose start is stored: to the workers. */
static void release_started(struct sml_commit *commit, struct sml_list *started)
{
    struct semel_server *server = commit->server;
    struct sml_list late, *node;
    struct sml_worker *worker;
    bool spawn;

    if (sml_list_empty(started))
        return;
    sml_list_init(&late);
    sml_mutex_lock(&server->queue_lock);
    while ((node = sml_list_pop_front(started)) != NULL)
        if (!sml_queue_started_locked(server, SML_CONTAINER(node, struct semel_request, link)))
            sml_list_push_back(&late, node);
    worker = sml_server_kick_locked(server, &spawn);
    sml_mutex_unlock(&server->queue_lock);
    sml_server_rouse(server, worker, spawn);
    while ((node = sml_list_pop_front(&late)) != NULL)
        sml_server_postpone(SML_CONTAINER(node, struct semel_request, link));
}

static void count_recorded(struct sml_commit *commit)
{
    const struct sml_batch_of_changes *batch = commit->batch;
    uint64_t count = 0;

    for (uint32_t i = 0; i < batch->entry_count; i++)
        count += batch->entries[i].change.kind != SML_CHANGE_FORGET && writes(&batch->entries[i]);
    atomic_fetch_add_explicit(&commit->totals.recorded, count, memory_order_relaxed);
}

void sml_commit_answer(struct sml_commit *commit, bool committed)
{
    struct sml_list started;

    sml_list_init(&started);
    if (committed)
        count_recorded(commit);
    for (uint32_t p = 0; p < commit->batch->part_count; p++)
        tell_part(commit, &commit->batch->parts[p], committed, &started);
    commit->batch->part_count = commit->batch->entry_count = 0;
    release_started(commit, &started);
}

/* --- trouble ----------------------------------------------------------------------------- */

void sml_commit_trouble(struct sml_commit *commit, enum sml_stored stored)
{
    struct semel_server *server = commit->server;

    atomic_fetch_add_explicit(&commit->totals.failed, 1, memory_order_relaxed);
    if (stored == SML_STORE_UNKNOWN) {
        sml_server_log(server, SEMEL_LOG_ERROR, "the store is of no more use, the server stops: %s",
                       commit->store->text);
        atomic_store(&commit->status, commit->store->status);
        atomic_store(&commit->broken, true);
        semel_server_stop(server);
        return;
    }
    commit->retry_at = sml_time_add(sml_clock_now(), SML_RETRY_NS);
    if (!commit->complained)
        sml_server_log(server, SEMEL_LOG_ERROR, "the store takes nothing, calls wait: %s",
                       commit->store->text);
    commit->complained = true;
}

/* --- rounds ------------------------------------------------------------------------------ */

/* The changes that there are, in a transaction of their own. */
static void commit_changes(struct sml_commit *commit, bool all)
{
    enum sml_stored stored;

    sml_commit_collect(commit, all);
    if (commit->batch->part_count == 0)
        return;
    stored = commit->store->ops->begin(commit->store);
    if (stored == SML_STORED)
        stored = sml_commit_apply_changes(commit);
    if (stored == SML_STORED)
        stored = sml_commit_end(commit, sml_commit_wrote(commit));
    if (stored != SML_STORED)
        sml_commit_trouble(commit, stored);
    if (stored != SML_STORE_UNKNOWN)
        sml_commit_answer(commit, stored == SML_STORED);
}

static void purge_keys(struct sml_commit *commit, uint64_t now)
{
    const struct sml_store_ops *ops = commit->store->ops;
    uint64_t clock = ops->clock_ms(commit->store);
    enum sml_stored stored;
    uint32_t count = 0;

    commit->purge_at = sml_time_add(now, SML_PURGE_NS);
    if (clock <= commit->key_retention_ms)
        return;
    stored = ops->begin(commit->store);
    if (stored == SML_STORED)
        stored = ops->purge_keys(commit->store, clock - commit->key_retention_ms, SML_PURGE_KEYS,
                                 &count);
    if (stored == SML_STORED)
        stored = ops->commit(commit->store);
    if (stored != SML_STORED)
        sml_commit_trouble(commit, stored);
    else if (count == SML_PURGE_KEYS)
        commit->purge_at = now; /* there are more */
}

static bool has_queued(struct sml_commit *commit)
{
    struct semel_server *server = commit->server;
    bool has;

    sml_mutex_lock(&server->queue_lock);
    has = sml_queue_has_commit_work_locked(server);
    sml_mutex_unlock(&server->queue_lock);
    return has;
}

/* Is there something to be done now, and if not, when? */
static bool is_due(struct sml_commit *commit, uint64_t now, uint64_t *out_until)
{
    uint64_t lazy = atomic_load(&commit->lazy_since);
    uint64_t until = commit->purge_at;

    if (lazy != 0)
        until = sml_time_min(until, lazy + SML_LAZY_NS);
    if (now < commit->retry_at) {
        *out_until = commit->retry_at;
        return false;
    }
    *out_until = until;
    return until <= now || atomic_load(&commit->urgent) || has_queued(commit);
}

/* Until there is work. After a round it first sleeps lightly: what is lazy usually follows, and
 * wakes nobody. Returns whether it slept that through. */
static bool sleep_until(struct sml_commit *commit, uint64_t until, bool deep)
{
    enum sml_futex_result result = SML_FUTEX_WOKEN;
    uint32_t awake = 0;

    atomic_store(&commit->deep, deep);
    if (deep && atomic_load(&commit->lazy_since) != 0) {
        atomic_store(&commit->deep, false);
        return false;
    }
    if (!atomic_compare_exchange_strong(&commit->word, &awake, 1))
        return false;
    while (atomic_load(&commit->word) == 1 && !atomic_exchange(&commit->work, false) &&
           (result = sml_futex_wait(&commit->word, 1, until)) != SML_FUTEX_TIMED_OUT)
        continue;
    atomic_store(&commit->word, 0);
    atomic_store(&commit->deep, false);
    return result == SML_FUTEX_TIMED_OUT;
}

/* Has what is lazy waited long enough? */
static bool is_late(struct sml_commit *commit, uint64_t now)
{
    uint64_t lazy = atomic_load(&commit->lazy_since);

    return lazy != 0 && now >= lazy + SML_LAZY_NS;
}

static void round_of(struct sml_commit *commit, uint64_t now)
{
    begin_starts(commit);
    if (atomic_load(&commit->urgent))
        commit_changes(commit, is_late(commit, now));
    if (atomic_load(&commit->broken))
        return;
    if (!sml_commit_transactions(commit, is_late(commit, now)) && is_late(commit, now))
        commit_changes(commit, true);
    if (commit->purge_at <= now && !atomic_load(&commit->broken))
        purge_keys(commit, now);
}

/* The server has stopped: what is left is stored, as well as it can be. */
static void store_rest(struct sml_commit *commit)
{
    bool empty = false;

    for (int tries = 0; tries < 3 && !atomic_load(&commit->broken);) {
        commit->retry_at = 0;
        sml_mutex_lock(&commit->lock);
        empty = sml_list_empty(&commit->dirty) && sml_list_empty(&commit->late);
        sml_mutex_unlock(&commit->lock);
        if (empty)
            break;
        commit_changes(commit, true);
        tries += commit->retry_at != 0;
    }
    if (!empty && !atomic_load(&commit->broken))
        sml_commit_say_lost(commit);
}

static void run(void *arg)
{
    struct sml_commit *commit = arg;
    bool quiet = false;

    while (!atomic_load(&commit->stop) && !atomic_load(&commit->broken)) {
        uint64_t now = sml_clock_now(), until;

        atomic_store(&commit->work, false);
        if (atomic_load(&commit->awaited)) {
            store_rest(commit);
            sml_commit_set_at_rest(commit, true);
        } else if (is_due(commit, now, &until)) {
            round_of(commit, now);
            quiet = false;
        } else {
            quiet = sleep_until(commit, quiet ? until : sml_time_min(until, now + SML_LAZY_NS),
                                quiet && until > now + SML_LAZY_NS);
        }
    }
    sml_commit_set_at_rest(commit, true);
    while (!atomic_load(&commit->stop))
        (void)sleep_until(commit, SML_NEVER, false);
    if (atomic_load(&commit->broken))
        return;
    store_rest(commit);
    if (!atomic_load(&commit->broken))
        commit->store->ops->tidy(commit->store);
}

/* --- life -------------------------------------------------------------------------------- */

enum semel_status sml_commit_init(struct sml_commit *commit, struct semel_server *server,
                                  struct semel_store *store, uint64_t key_retention_ms)
{
    memset(commit, 0, sizeof *commit);
    commit->server = server;
    if (store == NULL)
        return SEMEL_OK;
    if (store->abi != SML_STORE_ABI || store->read_only)
        return SEMEL_INVALID;
    commit->batch = calloc(1, sizeof *commit->batch);
    if (commit->batch == NULL)
        return SEMEL_NO_MEMORY;
    sml_mutex_init(&commit->lock);
    sml_list_init(&commit->dirty);
    sml_list_init(&commit->late);
    commit->store = store;
    commit->key_retention_ms = key_retention_ms;
    commit->purge_at = sml_time_add(sml_clock_now(), SML_PURGE_NS);
    commit->at_rest = true;
    return SEMEL_OK;
}

enum semel_status sml_commit_start(struct sml_commit *commit)
{
    enum semel_status status;

    if (!sml_commit_is_durable(commit))
        return SEMEL_OK;
    sml_commit_set_at_rest(commit, false);
    status = sml_thread_create(&commit->thread, "semel-commit", 0, run, commit);
    commit->running = status == SEMEL_OK;
    if (!commit->running)
        sml_commit_set_at_rest(commit, true);
    return status;
}

void sml_commit_stop(struct sml_commit *commit)
{
    if (!commit->running)
        return;
    atomic_store(&commit->stop, true);
    sml_commit_wake(commit);
    sml_thread_join(&commit->thread);
    commit->running = false;
    sml_commit_abandon(commit);
}

void sml_commit_fini(struct sml_commit *commit)
{
    if (!sml_commit_is_durable(commit))
        return;
    semel_store_close(commit->store);
    sml_mutex_fini(&commit->lock);
    free(commit->batch);
    free(commit->scratch);
    free(commit->arena);
    commit->store = NULL;
}
