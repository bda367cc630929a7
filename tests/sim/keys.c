/* SPDX-License-Identifier: MIT */
/* keys.c - idempotency keys in a simulated store: what a call is told by its key, what its key says
 * from then on, when it is forgotten. As the committer of the real shell has it. */
#include "durable.h"

#include <string.h>

#include "base/le.h"

static void hash_key(const struct sml_session *session, const struct sml_incoming *in,
                     uint8_t out[32])
{
    sml_record_key_hash(&session->principal, semel_bytes(in->method, in->method_bytes),
                        semel_bytes(in->key, in->key_bytes), out);
}

/* The call that a key's record names. A session that has ended has no number any more. */
static bool is_its(const struct sml_key_record *record, const struct sml_session *session,
                   const struct sml_incoming *in)
{
    return record->xid == in->xid && (session->row == 0 || record->session == session->row);
}

static enum sml_stored write_key(struct sim_world *world, struct sim_store *store,
                                 const uint8_t hash[32], const struct sml_key_record *record)
{
    sml_key_record_encode(record, world->durable->scratch);
    return sim_store_put_key(world, store, hash, record->kept_since,
                             semel_bytes(world->durable->scratch, sml_key_record_bytes(record)));
}

enum sml_stored sim_key_free(struct sim_world *world, struct sim_commit *commit,
                             const struct sml_session *session, const struct sml_incoming *in)
{
    struct sim_store *store = commit->server->store;
    const struct sim_cell *cell;
    struct sml_key_record record;
    uint8_t hash[32];

    hash_key(session, in, hash);
    cell = sim_store_find(store, SIM_TABLE_KEYS, sim_key_number(hash));
    if (!cell)
        return SML_STORED;
    SML_ASSERT(!sml_key_record_decode(semel_bytes(cell->data, cell->bytes), &record));
    /* It may be another call's by now, of a caller that came later. */
    if (record.state != SML_CALL_STARTED || !is_its(&record, session, in))
        return SML_STORED;
    if (!in->begun)
        return sim_store_forget(world, store, SIM_TABLE_KEYS, cell->key);
    sim_mark(world, SIM_MARK_KEY_AGAIN);
    record.state = SML_CALL_AGAIN;
    record.kept_since = sim_store_clock(world, store);
    return write_key(world, store, hash, &record);
}

enum sml_stored sim_key_put(struct sim_world *world, struct sim_commit *commit,
                            const struct sml_session *session, const struct sml_incoming *in,
                            bool ended)
{
    struct sim_store *store = commit->server->store;
    struct sml_key_record record = { .principal = session->principal,
                                     .method = { in->method, in->method_bytes },
                                     .key = { in->key, in->key_bytes },
                                     .state = ended ? SML_CALL_ENDED : SML_CALL_STARTED,
                                     .session = session->row,
                                     .xid = in->xid,
                                     .fingerprint = in->fingerprint };
    uint8_t hash[32];

    if (ended && sml_verdict_frees_key(&in->verdict))
        return sim_key_free(world, commit, session, in);
    hash_key(session, in, hash);
    if (ended) {
        record.verdict = in->verdict;
        record.kept_since = sim_store_clock(world, store);
    }
    return write_key(world, store, hash, &record);
}

/* ---- asking -------------------------------------------------------------------------------- */

static void answer_with(struct sim_key_answer *out, enum semel_outcome outcome,
                        enum semel_status status, bool proven)
{
    out->state = SIM_KEY_ANSWERED;
    out->verdict = (struct sml_verdict){ .outcome = outcome,
                                         .status = status,
                                         .text = semel_bytes_text(semel_status_text(status)) };
    out->proven = proven;
}

static bool copy_verdict(struct sml_session *session, const struct sml_verdict *from,
                         struct sim_key_answer *out)
{
    out->reply = sml_callee_reply_alloc(&session->callee, sml_verdict_bytes(from));
    if (out->reply == NULL)
        return false;
    out->state = SIM_KEY_ANSWERED;
    out->verdict = *from;
    sml_verdict_place(&out->verdict, out->reply);
    return true;
}

enum sml_stored sim_key_ask(struct sim_world *world, struct sim_commit *commit,
                            struct sml_session *session, const struct sml_incoming *in,
                            struct sim_key_answer *out)
{
    struct sim_store *store = commit->server->store;
    const struct sim_cell *cell;
    struct sml_key_record record;
    uint8_t hash[32];
    /* What its caller did with it when it was younger may have been forgotten since. */
    bool too_old = in->key_age_ms > world->durable->retention_ms;

    memset(out, 0, sizeof *out);
    hash_key(session, in, hash);
    cell = sim_store_find(store, SIM_TABLE_KEYS, sim_key_number(hash));
    if (cell)
        SML_ASSERT(!sml_key_record_decode(semel_bytes(cell->data, cell->bytes), &record));
    if (cell && !sml_fingerprint_equal(record.fingerprint, in->fingerprint)) {
        answer_with(out, SEMEL_NOT_EXECUTED, SEMEL_KEY_MISMATCH, !too_old);
        sim_mark(world, SIM_MARK_KEY_MISMATCH);
    } else if (!cell || record.state == SML_CALL_AGAIN) {
        out->begun = cell != NULL;
        if (!too_old)
            return SML_STORED;
        answer_with(out, SEMEL_UNKNOWN, SEMEL_KEY_EXPIRED, false);
        sim_mark(world, SIM_MARK_KEY_EXPIRED);
    } else if (record.state == SML_CALL_ENDED) {
        sim_mark(world, SIM_MARK_KEY_REPLAYED);
        if (copy_verdict(session, &record.verdict, out))
            return SML_STORED;
        sim_store_rollback(store);
        store->why = SIM_FULL_DISK;
        return SML_NOT_STORED;
    } else if (record.session != session->row || record.xid != in->xid) {
        out->state = SIM_KEY_TAKEN;
        sim_mark(world, SIM_MARK_KEY_BUSY);
    }
    return SML_STORED;
}

/* ---- forgetting ---------------------------------------------------------------------------- */

#define PURGE_MOST 16u

enum sml_stored sim_key_purge(struct sim_world *world, struct sim_commit *commit, bool *out_more)
{
    struct sim_store *store = commit->server->store;
    const struct sml_table *keys = &store->tables[SIM_TABLE_KEYS];
    uint64_t clock = sim_store_clock(world, store), old[PURGE_MOST];
    enum sml_stored stored = SML_STORED;
    uint32_t count = 0;

    for (uint32_t i = 0; i < keys->capacity && count < PURGE_MOST; i++) {
        const struct sim_cell *cell = keys->slots[i].value;

        if (cell && cell->kept_since > 0 && cell->kept_since + world->durable->retention_ms < clock)
            old[count++] = cell->key;
    }
    *out_more = count == PURGE_MOST;
    for (uint32_t i = 0; i < count && stored == SML_STORED; i++) {
        const struct sim_cell *cell = sim_store_find(store, SIM_TABLE_KEYS, old[i]);
        struct sml_key_record record;

        SML_ASSERT(!sml_key_record_decode(semel_bytes(cell->data, cell->bytes), &record));
        sim_judge_purged(world, &record);
        sim_mark(world, SIM_MARK_KEY_PURGED);
        stored = sim_store_forget(world, store, SIM_TABLE_KEYS, old[i]);
    }
    return stored;
}

/* ---- the key for systems downstream -------------------------------------------------------- */

uint64_t sim_request_key(const struct sml_session *session, const struct sml_incoming *in)
{
    struct sml_origin_call origin = in->origin;
    uint8_t name[sizeof origin.session.bytes + 8], hash[32];

    if (in->key_bytes > 0) {
        hash_key(session, in, hash);
        return sim_key_number(hash);
    }
    if (!(in->flags & SML_CALL_ORIGIN))
        origin = (struct sml_origin_call){ session->id, in->xid };
    memcpy(name, origin.session.bytes, sizeof origin.session.bytes);
    sml_store64(name + sizeof origin.session.bytes, origin.xid);
    sml_sha256(name, sizeof name, hash);
    return sim_key_number(hash);
}
