/* SPDX-License-Identifier: MIT */
/* client_done.c - finished calls: from the machine to whoever waits.
 *
 * Completions are collected under the client's lock and delivered without it. Collecting accepts:
 * from then on the machine knows nothing of the record, the acknowledgement is owed, and the reply
 * is in this process's hands (in the read buffer, or collected in memory of its own). So the whole
 * batch costs one visit to the lock.
 *
 * A blocked caller's record lies on its stack and may be gone as soon as its word says "done": the
 * word is the last thing touched. A started call's record goes with its last reference. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/futex.h"
#include "rpc/client_internal.h"

#define FLUSH_DONE 64 /* callbacks, then the calls they started leave together */
#define HINT_BYTES_MAX 16384

/* Was this end made by the link, so that the link's reason explains it? */
static bool explained_by_link(const struct sml_call *call)
{
    if (call->verdict.outcome == SEMEL_VALUE || call->reply || call->reply_in_place)
        return false;
    switch (call->verdict.status) {
    case SEMEL_STOPPED:
    case SEMEL_CANCELLED:
    case SEMEL_TOO_LARGE:
    case SEMEL_NO_MEMORY:
        return false;
    default:
        return true;
    }
}

/* Did this end find that the other one would not take the request? */
static bool explained_by_limit(const struct sml_call *call)
{
    return call->verdict.outcome == SEMEL_NOT_EXECUTED && call->verdict.status == SEMEL_TOO_LARGE &&
           call->verdict.text.size == 0 && !call->reply && !call->reply_in_place;
}

static void count(struct semel_client_counters *counters, enum semel_outcome outcome)
{
    counters->calls_completed++;
    counters->values += outcome == SEMEL_VALUE;
    counters->failures += outcome == SEMEL_FAILURE;
    counters->not_executed += outcome == SEMEL_NOT_EXECUTED;
    counters->unknown += outcome == SEMEL_UNKNOWN;
}

void sml_client_collect(struct semel_client *client, struct sml_batch *batch)
{
    struct sml_call *call;

    while ((call = sml_caller_next_done(&client->link.caller)) != NULL) {
        struct sml_record *record = (struct sml_record *)call;

        if (!record->posted)
            sml_caller_accept(&client->link.caller, call, client->now);
        client->in_flight--;
        client->blocking -= record->blocking;
        client->conn.looped -= record->looped;
        count(&client->counters, call->verdict.outcome);
        if (!batch->has_why && client->link.state != SML_LINK_UP && explained_by_link(call)) {
            memcpy(batch->why, client->link.why_text, sizeof batch->why);
            batch->has_why = true;
        }
        if (explained_by_limit(call))
            (void)snprintf(batch->limit, sizeof batch->limit,
                           "the server takes at most %" PRIu64 " bytes",
                           client->link.caller.request_body_bytes);
        sml_list_push_back(&batch->done, &call->link);
        batch->count++;
    }
    if (batch->count)
        batch->peer = sml_client_peer(client);
}

static const char *why_of(const struct sml_batch *batch, const struct sml_call *call)
{
    if (explained_by_limit(call))
        return batch->limit;
    return batch->has_why && explained_by_link(call) ? batch->why : NULL;
}

/* Remember how large replies are, so that the next caller brings enough room for its own. */
static void learn_size(struct semel_client *client, size_t bytes)
{
    uint32_t hint = atomic_load_explicit(&client->result_hint, memory_order_relaxed);

    if (bytes > hint && bytes <= HINT_BYTES_MAX)
        atomic_store_explicit(&client->result_hint, (uint32_t)(bytes + 63) & ~UINT32_C(63),
                              memory_order_relaxed);
}

static void finish_blocking(struct semel_client *client, const struct sml_batch *batch,
                            struct sml_blocking *blocking)
{
    struct sml_call *call = &blocking->record.call;

    blocking->outcome = call->verdict.outcome;
    if (blocking->out) {
        learn_size(client, call->verdict.body.size);
        sml_result_own(blocking->out, call, batch->peer, why_of(batch, call), blocking->storage);
        blocking->outcome = blocking->out->outcome;
    } else {
        free(call->reply);
        call->reply = NULL;
    }
    if (atomic_exchange_explicit(&blocking->word, 1, memory_order_acq_rel) == 2)
        sml_futex_wake(&blocking->word, 1);
}

static void run_callback(struct semel_call *call)
{
    struct semel_result *result = &call->result;

    atomic_store_explicit(&call->completed, true, memory_order_release);
    call->done(result, call->user);
    semel_result_clear(result);
    semel_call_unref(call);
}

/* The result of a started call, borrowed where that is possible. */
static void make_result(const struct sml_batch *batch, struct semel_call *call, bool may_borrow)
{
    struct sml_call *c = &call->record.call;

    if (may_borrow && c->verdict.outcome == SEMEL_VALUE && !c->reply)
        sml_result_borrow(&call->result, c, batch->peer);
    else
        sml_result_own(&call->result, c, batch->peer, why_of(batch, c), NULL);
}

static void post(struct semel_client *client, struct sml_list *list)
{
    sml_mutex_lock(&client->lock);
    sml_list_move_all(&client->posted, list);
    sml_mutex_unlock(&client->lock);
    sml_wake_signal(&client->wake);
}

void sml_client_deliver(struct semel_client *client, struct sml_batch *batch, enum sml_where where)
{
    struct sml_list elsewhere, *node;
    uint32_t ran = 0;

    sml_list_init(&elsewhere);
    while ((node = sml_list_pop_front(&batch->done)) != NULL) {
        struct sml_record *record = (struct sml_record *)SML_CONTAINER(node, struct sml_call, link);

        if (record->posted) {
            sml_client_outbox_ended(client, &record->call,
                                    record->call.reply || record->call.reply_in_place);
            continue;
        }
        if (record->blocking) {
            finish_blocking(client, batch, (struct sml_blocking *)record);
            continue;
        }
        make_result(batch, (struct semel_call *)record, where != SML_ELSEWHERE || record->anywhere);
        if (where == SML_ELSEWHERE && !record->anywhere)
            sml_list_push_back(&elsewhere, &record->call.link);
        else
            run_callback((struct semel_call *)record);
        /* The server need not wait for the end of the batch to begin with what was started. */
        if (where == SML_ON_IO && ++ran % FLUSH_DONE == 0) {
            sml_mutex_lock(&client->lock);
            sml_client_write(client, false);
            sml_client_unlock(client);
        }
    }
    sml_batch_init(batch);
    if (!sml_list_empty(&elsewhere))
        post(client, &elsewhere);
}

void sml_client_run_posted(struct sml_list *posted)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(posted)) != NULL)
        run_callback((struct semel_call *)SML_CONTAINER(node, struct sml_call, link));
}
