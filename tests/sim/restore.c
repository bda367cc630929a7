/* SPDX-License-Identifier: MIT */
/* restore.c - what a new server process makes of its store. As rpc/restore.c, except that what is
 * written at once takes virtual time, in which the server is not there yet and may die again. */
#include "durable.h"

#include <stdlib.h>
#include <string.h>

struct lost_key {
    uint64_t number;
    uint8_t hash[32];
    struct sml_key_record record;
    bool forget;
};

struct restoring {
    struct sim_world *world;
    struct sim_server *server;
    struct sml_table sessions; /* by the number of their record: struct sim_session */
    uint64_t suspect_row;
    uint8_t suspect_crashes;
    uint32_t to_write;
    bool failed;
};

/* Cells in an order of nobody's choice. */
static const struct sim_cell *cell_at(const struct restoring *r, enum sim_table table, uint32_t i)
{
    const struct sml_table *cells = &r->server->store->tables[table];

    return cells->slots[(i + (uint32_t)r->world->seed) & (cells->capacity - 1)].value;
}

static struct semel_bytes bytes_of(const struct sim_cell *cell)
{
    return semel_bytes(cell->data, cell->bytes);
}

/* Or there was no memory to restore it: then another process may have more luck. */
static void damaged(struct restoring *r, const char *what, const char *why)
{
    r->failed = true;
    if (why || r->server->arena.failed == 0)
        sim_fail(r->world, "server %u cannot use its store: a %s record: %s", r->server->index,
                 what, why ? why : "no memory");
}

/* ---- sessions ------------------------------------------------------------------------------ */

static void restore_session(struct restoring *r, const struct sim_cell *cell)
{
    struct sim_world *world = r->world;
    struct sml_session_record record;
    const char *why = sml_session_record_decode(bytes_of(cell), &record);
    struct sml_session *session = NULL;
    struct sim_session *info;

    if (!why)
        session = sml_host_restore(&r->server->host, cell->key, &record, world->now, &why);
    if (!session) {
        damaged(r, "session", why);
        return;
    }
    info = sim_session_new(world, r->server, session, sim_story(world, &record.id, 0)->client);
    if (!sml_table_insert(&r->sessions, cell->key, info))
        SML_ASSERT(!"room in a table");
}

/* ---- calls that had begun ------------------------------------------------------------------ */

static uint8_t kind_of(struct semel_bytes method)
{
    static const char letters[] = "oirst";
    const char *at = strchr(letters, *(const char *)method.data);

    return (uint8_t)(at ? at - letters : SIM_ONCE);
}

bool sim_keeps_records(void *user, struct semel_bytes method)
{
    (void)user;
    return kind_of(method) != SIM_IDEMPOTENT;
}

/* The method's own handler looks for what its call left behind downstream. */
static void resolve(struct restoring *r, struct sim_session *info, struct sml_incoming *in,
                    struct sml_verdict *verdict, uint8_t **out_reply)
{
    struct sim_world *world = r->world;
    struct sim_row *row = sim_judge_downstream(world, sim_request_key(info->session, in));
    struct sim_job job = { .session = info, .in = in };

    *verdict = (struct sml_verdict){ .outcome = SEMEL_NOT_EXECUTED, .status = SEMEL_SERVER_DIED };
    if (!row || row->effects == 0) {
        sim_mark(world, SIM_MARK_RESOLVED_NEVER);
        if (row)
            row->durable.counted = 0; /* it may begin again, as another call */
        return;
    }
    job.nonce = row->durable.ran;
    sim_mark(world, SIM_MARK_RESOLVED);
    sim_job_answer(world, &job, verdict, out_reply);
}

static void settle(struct restoring *r, struct sim_session *info, struct sml_incoming *in)
{
    struct sml_callee *callee = &info->session->callee;
    struct sml_verdict verdict = { .outcome = SEMEL_UNKNOWN,
                                   .status = SEMEL_SERVER_DIED,
                                   .text = semel_bytes_text("the server died while it ran") };
    uint8_t *reply = NULL, kind = kind_of(semel_bytes(in->method, in->method_bytes));

    sim_mark(r->world, SIM_MARK_RESTORED_RUNNING);
    if (kind == SIM_RERUN || kind == SIM_IDEMPOTENT) {
        sml_callee_expect_again(callee, in);
        return;
    }
    if (kind == SIM_RESOLVE)
        resolve(r, info, in, &verdict, &reply);
    (void)sml_callee_finish(callee, in, &verdict, reply);
    sim_commit_touch(r->world, info);
}

/* ---- calls --------------------------------------------------------------------------------- */

static bool is_suspect(const struct restoring *r, const struct sim_session *info, uint64_t xid)
{
    const struct sim_store *store = r->server->store;

    return store->has_suspect && store->suspect.xid == xid &&
           memcmp(&store->suspect.session, &info->session->id, sizeof store->suspect.session) == 0;
}

static void restore_call(struct restoring *r, const struct sim_cell *cell)
{
    struct sml_call_record record;
    struct sml_incoming *in;
    struct sim_session *info;
    const char *why = sml_call_record_decode(bytes_of(cell), &record);

    if (why) {
        damaged(r, "call", why);
        return;
    }
    info = sml_table_find(&r->sessions, record.session);
    if (!info) {
        r->to_write++;
        return;
    }
    if (is_suspect(r, info, record.xid)) {
        if (record.state == SML_CALL_AGAIN) {
            r->suspect_row = cell->key;
            r->suspect_crashes = record.crashes;
            return;
        }
        r->server->store->has_suspect = false;
    }
    in = sml_callee_restore_call(&info->session->callee, cell->key, &record, &why);
    if (!in) {
        damaged(r, "call", why);
        return;
    }
    if (record.state == SML_CALL_ENDED)
        sim_mark(r->world, SIM_MARK_RESTORED_VERDICT);
    if (record.state == SML_CALL_AGAIN)
        sim_mark(r->world, SIM_MARK_RESTORED_AGAIN);
    if (record.state == SML_CALL_STARTED)
        settle(r, info, in);
}

/* ---- what is written at once --------------------------------------------------------------- */

/* A key without a verdict whose call is gone. */
static bool is_lost_key(const struct restoring *r, const struct sim_cell *cell,
                        struct sml_key_record *record)
{
    const struct sim_session *info;

    if (cell->kept_since != 0)
        return false;
    SML_ASSERT(!sml_key_record_decode(bytes_of(cell), record));
    info = sml_table_find(&r->sessions, record->session);
    return !info || !sml_table_find(&info->session->callee.table, record->xid);
}

static enum sml_stored write_key(struct restoring *r, const struct sml_key_record *lost)
{
    struct sim_world *world = r->world;
    struct sim_store *store = r->server->store;
    struct sml_key_record record = *lost;
    uint8_t hash[32];

    sim_mark(world, SIM_MARK_KEY_LOST);
    sml_record_key_hash(&record.principal, record.method, record.key, hash);
    record.kept_since = sim_store_clock(world, store);
    record.state = SML_CALL_AGAIN;
    if (kind_of(record.method) != SIM_RERUN) {
        record.state = SML_CALL_ENDED;
        record.verdict =
            (struct sml_verdict){ .outcome = SEMEL_UNKNOWN, .status = SEMEL_SERVER_DIED };
    }
    sml_key_record_encode(&record, world->durable->scratch);
    return sim_store_put_key(world, store, hash, record.kept_since,
                             semel_bytes(world->durable->scratch, sml_key_record_bytes(&record)));
}

static struct sim_session *suspects_session(const struct restoring *r)
{
    for (uint32_t i = 0; i < r->sessions.capacity; i++) {
        struct sim_session *info = r->sessions.slots[i].value;

        if (info && is_suspect(r, info, r->server->store->suspect.xid))
            return info;
    }
    return NULL;
}

/* One more death, or one too many. */
static enum sml_stored count_crash(struct restoring *r, struct sim_session *info,
                                   struct sml_call_record *record)
{
    struct sim_world *world = r->world;
    const struct sml_mark *mark = &r->server->store->suspect;

    *record = (struct sml_call_record){ .session = info->session->row,
                                        .xid = mark->xid,
                                        .state = SML_CALL_AGAIN,
                                        .crashes = (uint8_t)(r->suspect_crashes + 1),
                                        .fingerprint = mark->fingerprint,
                                        .method = { mark->method, mark->method_bytes },
                                        .key = { mark->key, mark->key_bytes } };
    if (record->crashes >= SEMEL_CRASHES_MAX) {
        record->state = SML_CALL_ENDED;
        record->verdict =
            (struct sml_verdict){ .outcome = SEMEL_NOT_EXECUTED, .status = SEMEL_POISONED };
        sim_mark(world, SIM_MARK_POISONED);
    }
    sml_call_record_encode(record, world->durable->scratch);
    return sim_store_put(world, r->server->store, SIM_TABLE_CALLS, &r->suspect_row,
                         semel_bytes(world->durable->scratch, sml_call_record_bytes(record)));
}

static enum sml_stored forget_orphans(struct restoring *r)
{
    struct sim_store *store = r->server->store;
    struct sml_table *calls = &store->tables[SIM_TABLE_CALLS];
    enum sml_stored stored = SML_STORED;

    for (uint32_t i = 0; i < calls->capacity && stored == SML_STORED;) {
        const struct sim_cell *cell = calls->slots[i].value;
        struct sml_call_record record;

        if (!cell || sml_call_record_decode(bytes_of(cell), &record) ||
            sml_table_find(&r->sessions, record.session))
            i++; /* else another one has moved into its place */
        else
            stored = sim_store_forget(r->world, store, SIM_TABLE_CALLS, cell->key);
    }
    return stored;
}

static enum sml_stored end_lost_keys(struct restoring *r)
{
    const struct sml_table *keys = &r->server->store->tables[SIM_TABLE_KEYS];
    enum sml_stored stored = SML_STORED;
    struct sml_key_record record;

    for (uint32_t i = 0; i < keys->capacity && stored == SML_STORED; i++) {
        const struct sim_cell *cell = keys->slots[i].value;

        if (cell && is_lost_key(r, cell, &record)) {
            stored = write_key(r, &record);
            i = UINT32_MAX; /* from the beginning: the table has changed */
        }
    }
    return stored;
}

static uint32_t lost_keys(const struct restoring *r)
{
    const struct sml_table *keys = &r->server->store->tables[SIM_TABLE_KEYS];
    struct sml_key_record record;
    uint32_t count = 0;

    for (uint32_t i = 0; i < keys->capacity; i++)
        if (keys->slots[i].value && is_lost_key(r, keys->slots[i].value, &record))
            count++;
    return count;
}

static void write_down(struct restoring *r)
{
    struct sim_store *store = r->server->store;
    struct sim_session *suspect = store->has_suspect ? suspects_session(r) : NULL;
    struct sml_call_record record;
    const char *why = NULL;
    enum sml_stored stored = sim_store_begin(r->world, store);

    if (stored == SML_STORED)
        stored = forget_orphans(r);
    if (stored == SML_STORED)
        stored = end_lost_keys(r);
    if (stored == SML_STORED && suspect)
        stored = count_crash(r, suspect, &record);
    if (stored == SML_STORED && suspect &&
        !sml_callee_restore_call(&suspect->session->callee, r->suspect_row, &record, &why))
        damaged(r, "call", why);
    if (stored == SML_STORED)
        sim_commit_send(r->world, r->server->commit, SIM_FOR_RESTORE);
    else
        sim_restore_concluded(r->world, r->server->commit, stored);
}

/* ---- all of it ----------------------------------------------------------------------------- */

static void serve(struct sim_world *world, struct sim_server *server)
{
    server->up = true;
    server->store->has_suspect = false;
    for (struct sml_list *node = server->sessions.next; node != &server->sessions;
         node = node->next) {
        struct sim_session *info = SML_CONTAINER(node, struct sim_session, all);

        sim_commit_touch(world, info);
        sim_server_mark(server, info);
    }
    sim_by(world, &server->timer, sml_host_timeout(&server->host));
    sim_server_pump(world, server);
    sim_commit_plan(world, server->commit);
}

/* A server that cannot write at its start does not serve: somebody starts it again. */
void sim_restore_concluded(struct sim_world *world, struct sim_commit *commit,
                           enum sml_stored stored)
{
    if (stored == SML_STORED && !sim_point(world, commit, SIM_AT_RESTORE))
        serve(world, commit->server);
    else
        sim_server_die(world, commit->server, false);
}

static void each(struct restoring *r, enum sim_table table,
                 void (*fn)(struct restoring *, const struct sim_cell *))
{
    uint32_t capacity = r->server->store->tables[table].capacity;

    for (uint32_t i = 0; i < capacity && !r->failed; i++) {
        const struct sim_cell *cell = cell_at(r, table, i);

        if (cell)
            fn(r, cell);
    }
}

void sim_restore(struct sim_world *world, struct sim_server *server)
{
    struct restoring r = { .world = world, .server = server };

    server->up = false;
    sim_store_open(world, server->store);
    if (world->phase == SIM_LOAD && sim_on(world, SIM_SERVER_MEMORY) &&
        sim_chance(&world->faults, 6))
        server->arena.failures_left = (uint32_t)sim_between(&world->faults, 1, 8);
    sml_table_init(&r.sessions, &sml_mem_libc, UINT32_MAX / 4);
    each(&r, SIM_TABLE_SESSIONS, restore_session);
    each(&r, SIM_TABLE_CALLS, restore_call);
    server->arena.failures_left = 0;
    r.to_write += lost_keys(&r);
    if (r.failed)
        sim_server_die(world, server, false);
    else if (sim_point(world, server->commit, SIM_AT_RESTORE))
        sim_say(world, "server %u dies in the middle of its start", server->index);
    else if (r.to_write > 0 || (server->store->has_suspect && suspects_session(&r)))
        write_down(&r);
    else
        serve(world, server);
    sml_table_fini(&r.sessions);
}
