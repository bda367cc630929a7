/* SPDX-License-Identifier: MIT */
/* commit_records.c - records of calls and keys, as the committer writes and reads them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/server_internal.h"

#define SCRATCH_KEPT 1048576 /* a larger one is given back when it is not needed */

uint8_t *sml_commit_scratch(struct sml_commit *commit, size_t bytes)
{
    size_t room = commit->scratch_bytes ? commit->scratch_bytes : 4096;
    uint8_t *fresh;

    if (commit->scratch_bytes > SCRATCH_KEPT && bytes <= SCRATCH_KEPT)
        room = 4096;
    while (room < bytes)
        room *= 2;
    if (room == commit->scratch_bytes)
        return commit->scratch;
    fresh = malloc(room);
    if (fresh == NULL)
        return bytes <= commit->scratch_bytes ? commit->scratch : NULL;
    free(commit->scratch);
    commit->scratch = fresh;
    commit->scratch_bytes = room;
    return fresh;
}

/* There was no memory to write a record: its transaction goes, and is tried again. */
static enum sml_stored no_memory(struct sml_commit *commit)
{
    commit->store->status = SEMEL_NO_MEMORY;
    strcpy(commit->store->text, "no memory for a record");
    commit->store->ops->rollback(commit->store);
    return SML_NOT_STORED;
}

static enum sml_stored damaged(struct sml_commit *commit, const char *why)
{
    snprintf(commit->store->text, sizeof commit->store->text, "a key's record: %s", why);
    commit->store->status = SEMEL_STORE_CORRUPT;
    commit->store->ops->rollback(commit->store);
    return SML_STORE_UNKNOWN;
}

enum sml_stored sml_commit_put_call(struct sml_commit *commit, const struct sml_session *session,
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
    size_t bytes;
    uint8_t *out;

    if (state == SML_CALL_ENDED) {
        record.verdict = in->verdict;
        record.proven = in->proven;
    }
    bytes = sml_call_record_bytes(&record);
    out = sml_commit_scratch(commit, bytes);
    if (out == NULL)
        return no_memory(commit);
    sml_call_record_encode(&record, out);
    *row = in->row;
    return commit->store->ops->put(commit->store, SML_TABLE_CALLS, row, semel_bytes(out, bytes));
}

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

uint64_t sml_commit_kept_now(const struct sml_commit *commit)
{
    return sml_time_max(commit->store->ops->clock_ms(commit->store), 1);
}

static enum sml_stored write_key(struct sml_commit *commit, const uint8_t hash[32],
                                 const struct sml_key_record *record)
{
    size_t bytes = sml_key_record_bytes(record);
    uint8_t *out = sml_commit_scratch(commit, bytes);

    if (out == NULL)
        return no_memory(commit);
    sml_key_record_encode(record, out);
    return commit->store->ops->put_key(commit->store, hash, record->kept_since,
                                       semel_bytes(out, bytes));
}

enum sml_stored sml_commit_free_key(struct sml_commit *commit, const struct sml_session *session,
                                    const struct sml_incoming *in)
{
    const struct sml_store_ops *ops = commit->store->ops;
    struct sml_key_record record;
    struct semel_bytes bytes;
    uint8_t hash[32];
    enum sml_stored stored;
    const char *why;

    hash_key(session, in, hash);
    stored = ops->find_key(commit->store, hash, &bytes);
    if (stored != SML_STORED || bytes.data == NULL)
        return stored;
    why = sml_key_record_decode(bytes, &record);
    if (why)
        return damaged(commit, why);
    /* It may be another call's by now, of a caller that came later. */
    if (record.state != SML_CALL_STARTED || !is_its(&record, session, in))
        return SML_STORED;
    if (!in->begun)
        return ops->forget_key(commit->store, hash);
    record.state = SML_CALL_AGAIN;
    record.kept_since = sml_commit_kept_now(commit);
    return write_key(commit, hash, &record);
}

enum sml_stored sml_commit_put_key(struct sml_commit *commit, const struct sml_session *session,
                                   const struct sml_incoming *in, bool ended)
{
    struct sml_key_record record = { .principal = session->principal,
                                     .method = { in->method, in->method_bytes },
                                     .key = { in->key, in->key_bytes },
                                     .state = ended ? SML_CALL_ENDED : SML_CALL_STARTED,
                                     .session = session->row,
                                     .xid = in->xid,
                                     .fingerprint = in->fingerprint };
    uint8_t hash[32];

    if (ended && sml_verdict_frees_key(&in->verdict))
        return sml_commit_free_key(commit, session, in);
    hash_key(session, in, hash);
    if (ended) {
        record.verdict = in->verdict;
        record.kept_since = sml_commit_kept_now(commit);
    }
    return write_key(commit, hash, &record);
}

/* --- asking ------------------------------------------------------------------------------ */

static void answer_with(struct sml_key_answer *out, enum semel_outcome outcome,
                        enum semel_status status, bool proven)
{
    out->state = SML_KEY_ANSWERED;
    out->verdict = (struct sml_verdict){ .outcome = outcome, .status = status };
    out->verdict.text = semel_bytes_text(semel_status_text(status));
    out->proven = proven;
}

static bool copy_verdict(struct sml_session *session, const struct sml_verdict *from,
                         struct sml_key_answer *out)
{
    out->reply = sml_callee_reply_alloc(&session->callee, sml_verdict_bytes(from));
    if (out->reply == NULL)
        return false;
    out->state = SML_KEY_ANSWERED;
    out->verdict = *from;
    sml_verdict_place(&out->verdict, out->reply);
    return true;
}

enum sml_stored sml_commit_ask_key(struct sml_commit *commit, struct sml_session *session,
                                   const struct sml_incoming *in, struct sml_key_answer *out)
{
    /* What its caller did with it when it was younger may have been forgotten since. */
    bool too_old = in->key_age_ms > commit->key_retention_ms;
    struct sml_key_record record;
    struct semel_bytes bytes;
    uint8_t hash[32];
    enum sml_stored stored;
    const char *why;

    memset(out, 0, sizeof *out);
    hash_key(session, in, hash);
    stored = commit->store->ops->find_key(commit->store, hash, &bytes);
    if (stored != SML_STORED)
        return stored;
    why = bytes.data ? sml_key_record_decode(bytes, &record) : NULL;
    if (why)
        return damaged(commit, why);
    if (bytes.data && !sml_fingerprint_equal(record.fingerprint, in->fingerprint)) {
        atomic_fetch_add_explicit(&commit->totals.mismatched, 1, memory_order_relaxed);
        answer_with(out, SEMEL_NOT_EXECUTED, SEMEL_KEY_MISMATCH, !too_old);
    } else if (bytes.data == NULL || record.state == SML_CALL_AGAIN) {
        out->begun = bytes.data != NULL;
        if (too_old)
            answer_with(out, SEMEL_UNKNOWN, SEMEL_KEY_EXPIRED, false);
    } else if (record.state == SML_CALL_ENDED) {
        atomic_fetch_add_explicit(&commit->totals.replayed, 1, memory_order_relaxed);
        return copy_verdict(session, &record.verdict, out) ? SML_STORED : no_memory(commit);
    } else if (record.session != session->row || record.xid != in->xid) {
        out->state = SML_KEY_BUSY;
    }
    return SML_STORED;
}

void sml_commit_fit_answer(const struct sml_callee *callee, struct sml_key_answer *answer)
{
    static const char text[] = "what its key was answered is larger than this caller takes";

    if (answer->state != SML_KEY_ANSWERED || answer->verdict.body.size <= callee->reply_body_bytes)
        return;
    sml_release(&sml_mem_libc, answer->reply);
    answer->reply = NULL;
    answer_with(answer, SEMEL_UNKNOWN, SEMEL_TOO_LARGE, false);
    answer->verdict.text = semel_bytes(text, sizeof text - 1);
}
