/* SPDX-License-Identifier: MIT */
/* client_outbox.c - what the application asks of an outbox: post, take results, accept. */
#include <stdlib.h>
#include <string.h>

#include "os/clock.h"
#include "rpc/client_outbox.h"
#include "rpc/commit.h"

/* --- posting -----------------------------------------------------------------------------------
 * */

/* 128 random bits in hexadecimal. */
static void draw_key(struct semel_client *client, char out[33])
{
    static const char hex[] = "0123456789abcdef";
    uint8_t bytes[16];

    sml_random_fill(&client->random, bytes, sizeof bytes);
    for (int i = 0; i < 16; i++) {
        out[2 * i] = hex[bytes[i] >> 4];
        out[2 * i + 1] = hex[bytes[i] & 15];
    }
    out[32] = '\0';
}

/* May the file be given something? Lock held. */
static enum semel_status is_usable(const struct sml_client_outbox *outbox)
{
    if (outbox->broken)
        return outbox->status;
    return outbox->stop ? SEMEL_STOPPED : SEMEL_OK;
}

/* Until the operation that is under way is over, or the file is of no more use; lock held. */
static enum semel_status await(struct sml_client_outbox *outbox, struct sml_posted *posted,
                               uint64_t *out_id)
{
    enum semel_status status;

    posted->refs++;
    outbox->waiting++;
    while (posted->under_way && !outbox->broken)
        sml_cond_wait(&outbox->changed, &outbox->lock);
    outbox->waiting--;
    if (outbox->stop)
        sml_cond_broadcast(&outbox->changed);
    status = posted->under_way ? outbox->status : posted->status;
    if (status == SEMEL_OK && out_id)
        *out_id = posted->id;
    sml_posted_unref(posted);
    return status;
}

/* One of that name whose result is just being accepted is no longer there; lock held. */
static void await_forgotten(struct sml_client_outbox *outbox, const struct sml_call *call)
{
    struct sml_posted *other;

    while ((other = sml_outbox_find(outbox, call)) != NULL &&
           other->state == SML_POSTED_FORGETTING && is_usable(outbox) == SEMEL_OK)
        (void)await(outbox, other, NULL);
}

/* The queue is to have it, as POSTING or FORGETTING; lock held. */
static void begin(struct sml_client_outbox *outbox, struct sml_posted *posted,
                  enum sml_posted_state state)
{
    posted->state = state;
    posted->under_way = true;
    sml_list_push_back(&outbox->queue, &posted->link);
    sml_cond_broadcast(&outbox->changed);
}

static enum semel_status check(struct semel_client *client)
{
    if (client == NULL || client->outbox == NULL)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&client->origin))
        return SEMEL_FORKED;
    return sml_client_in_callback(client) || sml_in_transaction() ? SEMEL_WOULD_DEADLOCK : SEMEL_OK;
}

/* `posted` moves in if there is none of its name, which *out_other then is. Lock held. */
static enum semel_status enqueue(struct sml_client_outbox *outbox, struct sml_posted *posted,
                                 struct sml_posted **out_other)
{
    struct sml_posted *other = sml_outbox_find(outbox, &posted->record.call);
    enum semel_status status;

    *out_other = other;
    if (other)
        return sml_fingerprint_equal(other->record.call.fingerprint,
                                     posted->record.call.fingerprint)
                   ? SEMEL_OK
                   : SEMEL_KEY_MISMATCH;
    status = is_usable(outbox);
    if (status != SEMEL_OK)
        return status;
    if (outbox->outstanding >= outbox->client->options.pending_calls)
        return SEMEL_OVERLOADED;
    *out_other = posted;
    sml_outbox_enter(outbox, posted);
    begin(outbox, posted, SML_POSTED_POSTING);
    return SEMEL_OK;
}

enum semel_status semel_client_post(struct semel_client *client, const char *method,
                                    struct semel_bytes body,
                                    const struct semel_call_options *options,
                                    struct semel_bytes tag, uint64_t *out_id)
{
    static const struct semel_call_options no_options = SEMEL_CALL_OPTIONS_INIT;
    enum semel_status status = check(client);
    struct sml_client_outbox *outbox;
    struct sml_posted_record record;
    struct sml_posted *posted, *found;
    struct sml_call call = { 0 };
    char drawn[33];

    if (status != SEMEL_OK)
        return status;
    options = options ? options : &no_options;
    if (options->deadline_ms || options->rerun_ok || options->refuse_when_full ||
        (tag.size > 0 && tag.data == NULL))
        return SEMEL_INVALID;
    status = sml_client_describe(&call, method, body, options);
    if (status != SEMEL_OK)
        return status;
    if (tag.size > SEMEL_STORED_BODY_BYTES_MAX ||
        body.size > SEMEL_STORED_BODY_BYTES_MAX - tag.size)
        return SEMEL_TOO_LARGE;
    if (call.key_bytes == 0) {
        draw_key(client, drawn);
        call.key = drawn;
        call.key_bytes = 32;
    }
    outbox = client->outbox;
    record =
        (struct sml_posted_record){ .posted_ms = sml_outbox_clock_ms(outbox),
                                    .method = { call.method, call.method_bytes },
                                    .content_type = { call.content_type, call.content_type_bytes },
                                    .key = { call.key, call.key_bytes },
                                    .tag = tag,
                                    .body = body };
    posted = sml_posted_make(&record);
    if (posted == NULL)
        return SEMEL_NO_MEMORY;
    sml_mutex_lock(&outbox->lock);
    await_forgotten(outbox, &posted->record.call);
    status = enqueue(outbox, posted, &found);
    if (found != posted)
        sml_posted_unref(posted);
    if (status == SEMEL_OK)
        status = await(outbox, found, out_id);
    sml_mutex_unlock(&outbox->lock);
    return status;
}

/* --- results -----------------------------------------------------------------------------------
 * */

/* The terminal status of a client that will bring no more results; OK while it may. */
static enum semel_status terminal(struct semel_client *client)
{
    enum semel_status status = SEMEL_OK;

    sml_mutex_lock(&client->lock);
    if (client->link.state == SML_LINK_STOPPED)
        status = SEMEL_STOPPED;
    else if (client->link.state == SML_LINK_FAILED)
        status = client->link.why;
    sml_mutex_unlock(&client->lock);
    return status;
}

/* lock held */
static enum semel_status hand_out(struct semel_client *client, struct sml_posted *posted,
                                  struct semel_posted *out)
{
    struct sml_call call = posted->record.call;
    size_t key_bytes = call.key_bytes;
    char *storage = malloc(posted->tag.size + key_bytes + 1);
    enum semel_outcome outcome = posted->verdict.outcome;

    if (storage == NULL)
        return SEMEL_NO_MEMORY;
    memset(out, 0, sizeof *out);
    call.verdict = posted->verdict;
    call.reply = NULL;
    sml_result_own(&out->result, &call, client->addresses.list[0].text, NULL, NULL);
    if (out->result.outcome != outcome) { /* no memory for its bytes */
        semel_result_clear(&out->result);
        free(storage);
        return SEMEL_NO_MEMORY;
    }
    out->id = posted->id;
    out->storage = storage;
    memcpy(storage, call.key, key_bytes + 1);
    out->key = storage;
    if (posted->tag.size > 0)
        memcpy(storage + key_bytes + 1, posted->tag.data, posted->tag.size);
    out->tag = semel_bytes(storage + key_bytes + 1, posted->tag.size);
    return SEMEL_OK;
}

enum semel_status semel_client_next_result(struct semel_client *client, int64_t timeout_ms,
                                           struct semel_posted *out_posted)
{
    enum semel_status status = check(client), over = SEMEL_OK;
    struct sml_client_outbox *outbox;
    uint64_t until = SML_NEVER;
    bool in_time = true;

    if (status == SEMEL_WOULD_DEADLOCK && timeout_ms == 0)
        status = SEMEL_OK;
    if (status == SEMEL_OK && timeout_ms != 0 && sml_thread_in_loop())
        status = SEMEL_WOULD_DEADLOCK;
    if (status != SEMEL_OK || out_posted == NULL)
        return status != SEMEL_OK ? status : SEMEL_INVALID;
    outbox = client->outbox;
    if (timeout_ms >= 0)
        until = sml_time_add(sml_clock_now(), (uint64_t)timeout_ms * SML_MS);
    sml_mutex_lock(&outbox->lock);
    outbox->waiting++;
    while (sml_list_empty(&outbox->ready) && !outbox->broken && over == SEMEL_OK && in_time) {
        sml_mutex_unlock(&outbox->lock);
        over = terminal(client);
        sml_mutex_lock(&outbox->lock);
        if (sml_list_empty(&outbox->ready) && !outbox->broken && over == SEMEL_OK)
            in_time = sml_cond_wait_until(&outbox->changed, &outbox->lock, until);
    }
    outbox->waiting--;
    if (!sml_list_empty(&outbox->ready)) {
        struct sml_posted *posted = sml_posted_of(outbox->ready.next);

        status = hand_out(client, posted, out_posted);
        if (status == SEMEL_OK) {
            sml_list_remove(&posted->link);
            posted->state = SML_POSTED_HANDED;
        }
    } else {
        status = outbox->broken ? outbox->status : over != SEMEL_OK ? over : SEMEL_DEADLINE;
    }
    if (outbox->stop)
        sml_cond_broadcast(&outbox->changed);
    sml_mutex_unlock(&outbox->lock);
    return status;
}

void semel_posted_clear(struct semel_posted *posted)
{
    if (posted == NULL)
        return;
    semel_result_clear(&posted->result);
    free(posted->storage);
    memset(posted, 0, sizeof *posted);
}

enum semel_status semel_client_accept(struct semel_client *client, uint64_t id)
{
    enum semel_status status = check(client);
    struct sml_client_outbox *outbox;
    struct sml_posted *posted;

    if (status != SEMEL_OK)
        return status;
    outbox = client->outbox;
    sml_mutex_lock(&outbox->lock);
    posted = sml_outbox_find_id(outbox, id);
    if (posted && (posted->state == SML_POSTED_HANDED || posted->state == SML_POSTED_READY)) {
        status = is_usable(outbox);
        if (status == SEMEL_OK) {
            sml_list_remove(&posted->link);
            begin(outbox, posted, SML_POSTED_FORGETTING);
        }
    } else if (posted && posted->state != SML_POSTED_FORGETTING) {
        status = SEMEL_INVALID;
    }
    if (posted && status == SEMEL_OK)
        status = await(outbox, posted, NULL);
    sml_mutex_unlock(&outbox->lock);
    return status;
}

void semel_client_withdraw(struct semel_client *client, uint64_t id)
{
    struct sml_posted *posted;

    if (client == NULL || client->outbox == NULL || !sml_origin_is_mine(&client->origin))
        return;
    sml_mutex_lock(&client->lock);
    client->now = sml_clock_now();
    client->inside++;
    sml_mutex_lock(&client->outbox->lock);
    posted = sml_outbox_find_id(client->outbox, id);
    if (posted) {
        posted->withdrawn = true;
        /* One that waits to be submitted again is cancelled then. */
        if (posted->state == SML_POSTED_SUBMITTED)
            sml_caller_cancel(&client->link.caller, &posted->record.call, client->now);
    }
    sml_mutex_unlock(&client->outbox->lock);
    sml_client_write(client, false);
    sml_client_leave_with_done(client);
}

void semel_client_posted(struct semel_client *client, uint64_t *out_outstanding,
                         uint64_t *out_results)
{
    uint64_t outstanding = 0, results = 0;

    if (client && client->outbox && sml_origin_is_mine(&client->origin)) {
        sml_mutex_lock(&client->outbox->lock);
        outstanding = client->outbox->outstanding;
        results = client->outbox->results;
        sml_mutex_unlock(&client->outbox->lock);
    }
    if (out_outstanding)
        *out_outstanding = outstanding;
    if (out_results)
        *out_results = results;
}
