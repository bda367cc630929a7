/* SPDX-License-Identifier: MIT */
/* restore.c - what the store holds becomes sessions again, before the server serves.
 *
 * Every record is read and checked; one that is damaged, or contradicts another, ends the start:
 * nothing is repaired by leaving it out. Then what the last server left in the middle is settled:
 *   a call whose handler had begun      as its method's on_crash says
 *   the transactional call that was     it had no effect; the death is counted, and after
 *   running when the process died       SEMEL_CRASHES_MAX of them it is poisoned
 *   records of sessions that had ended  forgotten
 *   keys whose call is gone             their outcome is unknown; where running again is harmless,
 *                                       they may be used again
 * The first lines of that are written at once, the verdicts by the committer's first round. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/server_internal.h"

struct restoring {
    struct semel_server *server;
    struct sml_table sessions; /* by the number of their record: struct sml_served */
    uint64_t now;
    enum semel_status status;
    char text[512];
    /* To be forgotten: call records without a session. */
    uint64_t *orphans;
    size_t orphan_count, orphan_room;
    /* Keys whose call is gone: hashes and new records, copied. */
    struct lost_key {
        struct lost_key *next;
        uint8_t hash[32];
        uint64_t kept_since;
        size_t bytes;
        uint8_t record[];
    } * keys;
    /* The call that ran when the last process died. */
    uint64_t suspect_row;
    uint8_t suspect_crashes;
};

static bool fail(struct restoring *r, enum semel_status status, const char *what, uint64_t row,
                 const char *why)
{
    r->status = status;
    snprintf(r->text, sizeof r->text, "%.300s: %s %llu: %s", r->server->commit.store->name, what,
             (unsigned long long)row, why);
    return false;
}

static bool no_memory(struct restoring *r)
{
    return fail(r, SEMEL_NO_MEMORY, "record", 0, "no memory to read the store");
}

/* --- sessions ---------------------------------------------------------------------------- */

static bool restore_session(uint64_t row, struct semel_bytes bytes, void *user)
{
    struct restoring *r = user;
    struct sml_session_record record;
    struct sml_session *session;
    struct sml_served *served;
    const char *why = sml_session_record_decode(bytes, &record);

    if (why)
        return fail(r, SEMEL_STORE_CORRUPT, "session record", row, why);
    /* Somebody may be looking at the server's counters. */
    sml_mutex_lock(&r->server->host_lock);
    session = sml_host_restore(&r->server->host, row, &record, r->now, &why);
    served = session ? sml_server_serve(r->server, session) : NULL;
    sml_mutex_unlock(&r->server->host_lock);
    if (why)
        return fail(r, SEMEL_STORE_CORRUPT, "session record", row, why);
    if (served == NULL || !sml_table_insert(&r->sessions, row, served))
        return no_memory(r);
    atomic_fetch_add_explicit(&r->server->commit.totals.sessions, 1, memory_order_relaxed);
    return true;
}

/* --- calls that had begun ------------------------------------------------------------------ */

static struct sml_method *method_of(const struct restoring *r, struct semel_bytes name)
{
    return sml_server_find_method(r->server, name.data, (uint8_t)name.size);
}

static enum semel_on_crash on_crash(const struct sml_method *method)
{
    if (method == NULL || method->kind == SEMEL_TRANSACTIONAL)
        return SEMEL_CRASH_UNKNOWN;
    return method->kind == SEMEL_IDEMPOTENT ? SEMEL_CRASH_RERUN : method->on_crash;
}

/* Have the method's own handler find out. */
static void resolve(struct restoring *r, struct sml_served *served, struct sml_incoming *in,
                    const struct sml_method *method, struct sml_txn *txn)
{
    struct sml_peer_info nobody = { .peer = { "", false, 0, 0 }, .refs = 1 };
    struct semel_request request = {
        .server = r->server, .served = served, .in = in, .info = &nobody, .txn = txn
    };

    sml_list_init(&request.link);
    sml_list_init(&request.cancel_link);
    txn->resolving = true;
    method->resolve(&request, method->resolve_user);
}

/* The record is RUNNING and held: it gets its verdict, or is expected again. */
static void settle(struct restoring *r, struct sml_served *served, struct sml_incoming *in)
{
    static const char died[] = "the server died while it ran";
    const struct sml_method *method = method_of(r, semel_bytes(in->method, in->method_bytes));
    struct sml_txn txn = { .said = false };

    atomic_fetch_add_explicit(&r->server->commit.totals.crashed, 1, memory_order_relaxed);
    if (on_crash(method) == SEMEL_CRASH_RERUN) {
        sml_callee_expect_again(&served->session->callee, in);
        return;
    }
    if (on_crash(method) == SEMEL_CRASH_RESOLVE)
        resolve(r, served, in, method, &txn);
    if (!txn.said)
        txn.verdict = (struct sml_verdict){ .outcome = SEMEL_UNKNOWN,
                                            .status = SEMEL_SERVER_DIED,
                                            .text = { died, sizeof died - 1 } };
    sml_mutex_lock(served->lock);
    (void)sml_callee_finish(&served->session->callee, in, &txn.verdict, txn.reply);
    sml_commit_touch(served);
    sml_mutex_unlock(served->lock);
}

/* --- calls ------------------------------------------------------------------------------- */

static bool add_orphan(struct restoring *r, uint64_t row)
{
    if (r->orphan_count == r->orphan_room) {
        size_t room = r->orphan_room ? r->orphan_room * 2 : 64;
        uint64_t *larger = realloc(r->orphans, room * sizeof *larger);

        if (larger == NULL)
            return no_memory(r);
        r->orphans = larger;
        r->orphan_room = room;
    }
    r->orphans[r->orphan_count++] = row;
    return true;
}

static bool is_suspect(const struct restoring *r, const struct sml_served *served, uint64_t xid)
{
    const struct semel_store *store = r->server->commit.store;

    return store->has_suspect && store->suspect.xid == xid &&
           memcmp(store->suspect.session.bytes, served->session->id.bytes, 16) == 0;
}

static bool restore_call(uint64_t row, struct semel_bytes bytes, void *user)
{
    struct restoring *r = user;
    struct sml_call_record record;
    struct sml_incoming *in;
    struct sml_served *served;
    const char *why = sml_call_record_decode(bytes, &record);

    if (why)
        return fail(r, SEMEL_STORE_CORRUPT, "call record", row, why);
    served = sml_table_find(&r->sessions, record.session);
    if (served == NULL)
        return add_orphan(r, row);
    if (is_suspect(r, served, record.xid)) {
        if (record.state == SML_CALL_AGAIN) {
            r->suspect_row = row;
            r->suspect_crashes = record.crashes;
            return true; /* it comes back with its deaths counted */
        }
        r->server->commit.store->has_suspect = false; /* what it did was done */
    }
    in = sml_callee_restore_call(&served->session->callee, row, &record, &why);
    if (why)
        return fail(r, SEMEL_STORE_CORRUPT, "call record", row, why);
    if (in == NULL)
        return no_memory(r);
    atomic_fetch_add_explicit(&r->server->commit.totals.calls, 1, memory_order_relaxed);
    if (record.state == SML_CALL_STARTED)
        settle(r, served, in);
    return true;
}

/* --- keys -------------------------------------------------------------------------------- */

static bool restore_key(uint64_t row, struct semel_bytes bytes, void *user)
{
    static const char gone[] = "the server died while it ran, and its session is gone";
    struct restoring *r = user;
    struct sml_key_record record;
    const struct sml_served *served;
    const char *why = sml_key_record_decode(bytes, &record);
    struct lost_key *key;
    size_t size;

    if (why)
        return fail(r, SEMEL_STORE_CORRUPT, "key record", row, why);
    served = sml_table_find(&r->sessions, record.session);
    if (served && sml_table_find(&served->session->callee.table, record.xid))
        return true; /* the call knows */
    record.kept_since = sml_commit_kept_now(&r->server->commit);
    record.state = SML_CALL_AGAIN;
    if (on_crash(method_of(r, record.method)) != SEMEL_CRASH_RERUN) {
        record.state = SML_CALL_ENDED;
        record.verdict = (struct sml_verdict){ .outcome = SEMEL_UNKNOWN,
                                               .status = SEMEL_SERVER_DIED,
                                               .text = { gone, sizeof gone - 1 } };
    }
    size = sml_key_record_bytes(&record);
    key = malloc(sizeof *key + size);
    if (key == NULL)
        return no_memory(r);
    sml_record_key_hash(&record.principal, record.method, record.key, key->hash);
    key->kept_since = record.kept_since;
    key->bytes = size;
    sml_key_record_encode(&record, key->record);
    key->next = r->keys;
    r->keys = key;
    return true;
}

/* --- what is written at once ----------------------------------------------------------------- */

static struct sml_served *suspects_session(const struct restoring *r)
{
    struct sml_list *node = r->server->served.next;

    for (; node != &r->server->served; node = node->next) {
        struct sml_served *served = SML_CONTAINER(node, struct sml_served, all);

        if (is_suspect(r, served, r->server->commit.store->suspect.xid))
            return served;
    }
    return NULL;
}

/* One more death, or one too many. */
static enum sml_stored count_crash(struct restoring *r, const struct sml_served *served,
                                   struct sml_call_record *record)
{
    struct sml_commit *commit = &r->server->commit;
    const struct sml_mark *mark = &commit->store->suspect;
    size_t bytes;
    uint8_t *out;

    *record = (struct sml_call_record){ .session = served->session->row,
                                        .xid = mark->xid,
                                        .state = SML_CALL_AGAIN,
                                        .crashes = mark->crashes >= r->suspect_crashes
                                                       ? (uint8_t)(mark->crashes + 1)
                                                       : r->suspect_crashes,
                                        .fingerprint = mark->fingerprint,
                                        .method = { mark->method, mark->method_bytes },
                                        .key = { mark->key, mark->key_bytes } };
    if (record->crashes >= SEMEL_CRASHES_MAX) {
        record->state = SML_CALL_ENDED;
        record->verdict.outcome = SEMEL_NOT_EXECUTED;
        record->verdict.status = SEMEL_POISONED;
        record->verdict.text = semel_bytes_text(semel_status_text(SEMEL_POISONED));
        atomic_fetch_add_explicit(&commit->totals.poisoned, 1, memory_order_relaxed);
    }
    bytes = sml_call_record_bytes(record);
    out = sml_commit_scratch(commit, bytes);
    if (out == NULL)
        return no_memory(r), SML_NOT_STORED;
    sml_call_record_encode(record, out);
    return commit->store->ops->put(commit->store, SML_TABLE_CALLS, &r->suspect_row,
                                   semel_bytes(out, bytes));
}

static enum sml_stored write_all(struct restoring *r, const struct sml_served *suspect,
                                 struct sml_call_record *record)
{
    struct semel_store *store = r->server->commit.store;
    const struct sml_store_ops *ops = store->ops;
    enum sml_stored stored = ops->begin(store);

    for (size_t i = 0; i < r->orphan_count && stored == SML_STORED; i++)
        stored = ops->forget(store, SML_TABLE_CALLS, r->orphans[i]);
    for (struct lost_key *key = r->keys; key && stored == SML_STORED; key = key->next)
        stored =
            ops->put_key(store, key->hash, key->kept_since, semel_bytes(key->record, key->bytes));
    if (suspect && stored == SML_STORED)
        stored = count_crash(r, suspect, record);
    return stored == SML_STORED ? ops->commit(store) : stored;
}

static void write_down(struct restoring *r)
{
    struct semel_store *store = r->server->commit.store;
    struct sml_served *suspect = store->has_suspect ? suspects_session(r) : NULL;
    struct sml_call_record record;
    const char *why = NULL;

    if (r->orphan_count == 0 && r->keys == NULL && suspect == NULL)
        return;
    if (write_all(r, suspect, &record) != SML_STORED) {
        if (r->status == SEMEL_OK) {
            r->status = store->status;
            snprintf(r->text, sizeof r->text, "%s", store->text);
        }
        return;
    }
    if (suspect) {
        atomic_fetch_add_explicit(&r->server->commit.totals.calls, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&r->server->commit.totals.crashed, 1, memory_order_relaxed);
    }
    if (suspect &&
        !sml_callee_restore_call(&suspect->session->callee, r->suspect_row, &record, &why)) {
        if (why)
            fail(r, SEMEL_STORE_CORRUPT, "call record", r->suspect_row, why);
        else
            no_memory(r);
    }
}

static void report(const struct restoring *r)
{
    const struct sml_commit *commit = &r->server->commit;

    sml_server_log(r->server, SEMEL_LOG_INFO,
                   "restored %llu sessions and %llu calls, of which %llu were running",
                   (unsigned long long)atomic_load(&commit->totals.sessions),
                   (unsigned long long)atomic_load(&commit->totals.calls),
                   (unsigned long long)atomic_load(&commit->totals.crashed));
}

enum semel_status sml_server_restore(struct semel_server *server)
{
    static const struct {
        enum sml_store_table table;
        sml_record_fn fn;
    } steps[] = { { SML_TABLE_SESSIONS, restore_session },
                  { SML_TABLE_CALLS, restore_call },
                  { SML_TABLE_UNFINISHED_KEYS, restore_key } };
    struct semel_store *store = server->commit.store;
    struct restoring r = { .server = server, .now = sml_clock_now() };

    sml_table_init(&r.sessions, &sml_mem_libc, UINT32_MAX / 4);
    for (size_t i = 0; i < sizeof steps / sizeof *steps && r.status == SEMEL_OK; i++) {
        enum semel_status status = store->ops->each(store, steps[i].table, steps[i].fn, &r);

        if (status != SEMEL_OK && r.status == SEMEL_OK) {
            r.status = status;
            snprintf(r.text, sizeof r.text, "%s", store->text);
        }
    }
    if (r.status == SEMEL_OK)
        write_down(&r);
    if (r.status == SEMEL_OK) {
        /* The death is in the store. (Counted again, it would be no more: the mark says how many
         * there were before.) */
        store->ops->mark(store, NULL);
        store->has_suspect = false;
        report(&r);
    } else {
        sml_server_log(server, SEMEL_LOG_ERROR, "the store cannot be used: %s", r.text);
    }
    sml_table_fini(&r.sessions);
    free(r.orphans);
    while (r.keys) {
        struct lost_key *next = r.keys->next;

        free(r.keys);
        r.keys = next;
    }
    return r.status;
}
