/* SPDX-License-Identifier: MIT */
/* client_outbox_run.c - the outbox's thread, and what the client tells it: see client_outbox.h. */
#include <stdlib.h>

#include "base/text.h"
#include "os/clock.h"
#include "rpc/client_outbox.h"

#define TRANSACTION_CALLS 256

/* --- what the file is told ---------------------------------------------------------------------
 * */

static uint8_t *scratch(struct sml_client_outbox *outbox, size_t bytes)
{
    if (bytes > outbox->scratch_bytes) {
        uint8_t *larger = realloc(outbox->scratch, bytes);

        if (larger == NULL)
            return NULL;
        outbox->scratch = larger;
        outbox->scratch_bytes = bytes;
    }
    return outbox->scratch;
}

static enum sml_stored no_memory(struct sml_client_outbox *outbox)
{
    outbox->file->status = SEMEL_NO_MEMORY;
    outbox->file->ops->rollback(outbox->file);
    return SML_NOT_STORED;
}

static enum sml_stored write_call(struct sml_client_outbox *outbox, struct sml_posted *posted)
{
    const struct sml_call *call = &posted->record.call;
    struct sml_posted_record record = { .posted_ms = posted->posted_ms,
                                        .method = { call->method, call->method_bytes },
                                        .content_type = { call->content_type,
                                                          call->content_type_bytes },
                                        .key = { call->key, call->key_bytes },
                                        .tag = posted->tag,
                                        .body = { call->body, (size_t)call->body_bytes } };
    size_t bytes = sml_posted_record_bytes(&record);
    uint8_t *out = scratch(outbox, bytes);

    if (out == NULL)
        return no_memory(outbox);
    sml_posted_record_encode(&record, out);
    return outbox->file->ops->add_call(outbox->file, semel_bytes(out, bytes), &posted->id);
}

static enum sml_stored write_result(struct sml_client_outbox *outbox, struct sml_posted *posted)
{
    struct sml_result_record record = { posted->verdict };
    size_t bytes = sml_result_record_bytes(&record);
    uint8_t *out = scratch(outbox, bytes);

    if (out == NULL)
        return no_memory(outbox);
    sml_result_record_encode(&record, out);
    return outbox->file->ops->put_result(outbox->file, posted->id, semel_bytes(out, bytes));
}

static enum sml_stored write_identity(struct sml_client_outbox *outbox,
                                      const struct sml_identity_record *record)
{
    uint8_t out[SML_IDENTITY_RECORD_BYTES];

    sml_identity_record_encode(record, out);
    return outbox->file->ops->put_identity(outbox->file, semel_bytes(out, sizeof out));
}

static enum sml_stored write_one(struct sml_client_outbox *outbox, struct sml_posted *posted)
{
    switch (posted->state) {
    case SML_POSTED_POSTING:
        return write_call(outbox, posted);
    case SML_POSTED_ENDED:
        return write_result(outbox, posted);
    case SML_POSTED_FORGETTING:
        return outbox->file->ops->forget(outbox->file, posted->id);
    default:
        return SML_STORED;
    }
}

/* All that was taken out of the queue, in one transaction. */
static enum sml_stored write_all(struct sml_client_outbox *outbox, struct sml_list *taken,
                                 const struct sml_identity_record *identity)
{
    const struct sml_outbox_ops *ops = outbox->file->ops;
    enum sml_stored stored = ops->begin(outbox->file);

    if (stored == SML_STORED && identity)
        stored = write_identity(outbox, identity);
    for (struct sml_list *node = taken->next; node != taken && stored == SML_STORED;
         node = node->next)
        stored = write_one(outbox, sml_posted_of(node));
    return stored == SML_STORED ? ops->commit(outbox->file) : stored;
}

/* --- what comes of it --------------------------------------------------------------------------
 * */

/* Into the machine. False: it takes none now. */
static bool submit(struct semel_client *client, struct sml_posted *posted)
{
    struct sml_call *call = &posted->record.call;
    bool taken, again = call->rerun;

    if (again)
        call->key_age_ms =
            sml_posted_age_ms(posted->posted_ms, sml_outbox_clock_ms(client->outbox));
    sml_mutex_lock(&client->lock);
    client->now = sml_clock_now();
    client->inside++;
    taken = sml_link_submit(&client->link, call, client->now) == SEMEL_OK;
    if (taken) {
        client->in_flight++;
        client->counters.calls_started++;
        client->link.keyed_outside -= again;
        if (posted->withdrawn)
            sml_caller_cancel(&client->link.caller, call, client->now);
        sml_client_write(client, true);
    }
    sml_client_leave_with_done(client);
    return taken;
}

static void acknowledge(struct semel_client *client, struct sml_posted *posted)
{
    sml_mutex_lock(&client->lock);
    client->now = sml_clock_now();
    client->inside++;
    sml_caller_accept(&client->link.caller, &posted->record.call, client->now);
    sml_client_write(client, true);
    sml_client_leave_with_done(client);
}

static bool may_go_on(struct semel_client *client)
{
    bool may;

    sml_mutex_lock(&client->lock);
    may = client->link.state != SML_LINK_STOPPED && client->link.state != SML_LINK_FAILED;
    sml_mutex_unlock(&client->lock);
    return may;
}

static void set_state(struct sml_client_outbox *outbox, struct sml_posted *posted,
                      enum sml_posted_state state)
{
    sml_mutex_lock(&outbox->lock);
    posted->state = state;
    sml_mutex_unlock(&outbox->lock);
}

/* To the machine; or, while that takes none, back to the queue. */
static void submit_or_wait(struct sml_client_outbox *outbox, struct sml_posted *posted)
{
    /* SUBMITTED before it is: it may end before the submission returns. */
    set_state(outbox, posted, SML_POSTED_SUBMITTED);
    if (submit(outbox->client, posted))
        return;
    sml_mutex_lock(&outbox->lock);
    posted->state = SML_POSTED_AGAIN;
    posted->again_at = sml_clock_now() + SML_OUTBOX_RETRY;
    sml_list_push_back(&outbox->queue, &posted->link);
    sml_mutex_unlock(&outbox->lock);
    if (!may_go_on(outbox->client)) {
        sml_mutex_lock(&outbox->lock);
        sml_list_remove(&posted->link);
        posted->state = SML_POSTED_PARKED;
        sml_cond_broadcast(&outbox->changed);
        sml_mutex_unlock(&outbox->lock);
    }
}

/* lock held */
static void operation_over(struct sml_client_outbox *outbox, struct sml_posted *posted,
                           enum semel_status status)
{
    posted->status = status;
    posted->under_way = false;
    sml_cond_broadcast(&outbox->changed);
}

static void carry_on(struct sml_client_outbox *outbox, struct sml_posted *posted)
{
    struct semel_client *client = outbox->client;

    switch (posted->state) {
    case SML_POSTED_POSTING:
        sml_mutex_lock(&outbox->lock);
        outbox->outstanding++;
        sml_outbox_enter_id(outbox, posted);
        operation_over(outbox, posted, SEMEL_OK);
        sml_mutex_unlock(&outbox->lock);
        submit_or_wait(outbox, posted);
        break;
    case SML_POSTED_AGAIN:
        submit_or_wait(outbox, posted);
        break;
    case SML_POSTED_ENDED:
        acknowledge(client, posted);
        sml_mutex_lock(&outbox->lock);
        posted->state = SML_POSTED_READY;
        outbox->outstanding--;
        outbox->results++;
        sml_list_push_back(&outbox->ready, &posted->link);
        sml_cond_broadcast(&outbox->changed);
        sml_mutex_unlock(&outbox->lock);
        if (client->options.on_result)
            client->options.on_result(client, client->options.result_user);
        break;
    case SML_POSTED_FORGETTING:
        sml_mutex_lock(&outbox->lock);
        outbox->results--;
        operation_over(outbox, posted, SEMEL_OK);
        sml_outbox_leave(outbox, posted);
        sml_mutex_unlock(&outbox->lock);
        break;
    default:
        break;
    }
}

/* The file did not take it. Whoever posts or accepts is told; results wait. lock held. */
static void give_up(struct sml_client_outbox *outbox, struct sml_posted *posted,
                    enum semel_status status)
{
    switch (posted->state) {
    case SML_POSTED_POSTING:
        operation_over(outbox, posted, status);
        sml_outbox_leave(outbox, posted);
        break;
    case SML_POSTED_FORGETTING:
        posted->state = SML_POSTED_HANDED;
        operation_over(outbox, posted, status);
        break;
    default:
        sml_list_push_back(&outbox->queue, &posted->link);
        break;
    }
}

static void saved(struct semel_client *client, enum sml_stored stored, const char *text)
{
    sml_mutex_lock(&client->lock);
    client->now = sml_clock_now();
    client->inside++;
    if (stored == SML_STORED)
        sml_link_saved(&client->link);
    else
        sml_link_save_failed(&client->link, text, client->now);
    sml_client_write(client, true);
    sml_client_leave_with_done(client);
}

/* Whoever waits for results shall know why there are none. */
static void complain(struct sml_client_outbox *outbox, enum sml_stored stored)
{
    static const char *const heads[] = {
        [SML_STORED] = "the outbox works again",
        [SML_NOT_STORED] = "the outbox takes nothing, results wait: ",
        [SML_STORE_UNKNOWN] = "the outbox is of no more use: ",
    };
    const struct semel_client_options *options = &outbox->client->options;
    bool bad = stored != SML_STORED;
    struct sml_text text;
    char line[600];

    if (bad == outbox->complained)
        return;
    outbox->complained = bad;
    if (options->log == NULL)
        return;
    sml_text_init(&text, line, sizeof line);
    sml_text_add(&text, heads[stored]);
    sml_text_add(&text, bad ? outbox->file->text : "");
    options->log(bad ? SEMEL_LOG_ERROR : SEMEL_LOG_INFO, line, options->log_user);
}

static void settle(struct sml_client_outbox *outbox, struct sml_list *taken, bool identity,
                   enum sml_stored stored)
{
    struct sml_list *node;

    complain(outbox, stored);
    if (identity)
        saved(outbox->client, stored, outbox->file->text);
    if (stored == SML_STORED) {
        while ((node = sml_list_pop_front(taken)) != NULL)
            carry_on(outbox, sml_posted_of(node));
        return;
    }
    sml_mutex_lock(&outbox->lock);
    outbox->retry_at = sml_clock_now() + SML_OUTBOX_RETRY;
    if (stored == SML_STORE_UNKNOWN) {
        outbox->broken = true;
        outbox->status = outbox->file->status;
        sml_cond_broadcast(&outbox->changed);
    }
    while ((node = sml_list_pop_front(taken)) != NULL)
        give_up(outbox, sml_posted_of(node), outbox->file->status);
    sml_mutex_unlock(&outbox->lock);
}

/* --- the thread --------------------------------------------------------------------------------
 * */

/* What can be done now, out of the queue; lock held. Returns when to look again. */
static uint64_t take(struct sml_client_outbox *outbox, struct sml_list *taken, uint64_t now)
{
    struct sml_list *node = outbox->queue.next, *next;
    uint64_t until = SML_NEVER;
    uint32_t count = 0;

    if (outbox->broken)
        return SML_NEVER;
    if (now < outbox->retry_at && !outbox->stop)
        return outbox->retry_at;
    for (; node != &outbox->queue && count < TRANSACTION_CALLS; node = next) {
        struct sml_posted *posted = sml_posted_of(node);

        next = node->next;
        if (posted->state == SML_POSTED_AGAIN && posted->again_at > now) {
            until = sml_time_min(until, posted->again_at);
            continue;
        }
        sml_list_remove(node);
        sml_list_push_back(taken, node);
        count++;
    }
    return until;
}

/* Whoever waits for the file to take something waits for nothing; lock held. */
static void refuse_rest(struct sml_client_outbox *outbox)
{
    struct sml_list *node, *next;

    for (node = outbox->queue.next; node != &outbox->queue; node = next) {
        next = node->next;
        if (!sml_posted_of(node)->under_way)
            continue;
        sml_list_remove(node);
        give_up(outbox, sml_posted_of(node), SEMEL_STOPPED);
    }
}

void sml_outbox_main(void *arg)
{
    struct sml_client_outbox *outbox = arg;
    struct sml_list taken;

    sml_list_init(&taken);
    atomic_store(&outbox->client->outbox_id, sml_thread_self().value);
    sml_mutex_lock(&outbox->lock);
    for (;;) {
        struct sml_identity_record identity;
        uint64_t until = take(outbox, &taken, sml_clock_now());
        bool save = outbox->save_wanted && !outbox->broken;

        if (sml_list_empty(&taken) && !save) {
            if (outbox->stop)
                break;
            (void)sml_cond_wait_until(&outbox->changed, &outbox->lock, until);
            continue;
        }
        outbox->save_wanted = false;
        identity = (struct sml_identity_record){
            .identity = outbox->identity,
            .address_hash = sml_outbox_address_hash(outbox->client, outbox->identity.address),
            .wall_ms = sml_outbox_clock_ms(outbox),
        };
        sml_mutex_unlock(&outbox->lock);
        settle(outbox, &taken, save, write_all(outbox, &taken, save ? &identity : NULL));
        sml_mutex_lock(&outbox->lock);
        if (outbox->stop && outbox->retry_at > sml_clock_now())
            break; /* the next process will find what could not be written */
    }
    refuse_rest(outbox);
    sml_mutex_unlock(&outbox->lock);
}

/* --- from the client ---------------------------------------------------------------------------
 * */

void sml_client_outbox_save(struct semel_client *client)
{
    struct sml_client_outbox *outbox = client->outbox;

    sml_mutex_lock(&outbox->lock);
    sml_link_identity(&client->link, &outbox->identity);
    outbox->save_wanted = true;
    sml_cond_broadcast(&outbox->changed);
    sml_mutex_unlock(&outbox->lock);
}

void sml_client_outbox_wake(struct semel_client *client)
{
    sml_mutex_lock(&client->outbox->lock);
    sml_cond_broadcast(&client->outbox->changed);
    sml_mutex_unlock(&client->outbox->lock);
}

/* Does this end, which no server gave, stand? Else the call goes on. */
static bool is_final(const struct sml_call *call)
{
    switch (call->verdict.status) {
    case SEMEL_CANCELLED:
    case SEMEL_TOO_LARGE:
    case SEMEL_NO_KEYS:
    case SEMEL_SESSION_LOST: /* the keys it was made with are gone */
        return true;
    default:
        return false;
    }
}

/* It will be submitted again, to the same store. */
static void announce_again(struct semel_client *client)
{
    sml_mutex_lock(&client->lock);
    client->link.keyed_outside++;
    sml_mutex_unlock(&client->lock);
}

/* A result for which there is no memory: the server is acknowledged, and asked anew by the key. */
static void let_go(struct semel_client *client, struct sml_posted *posted)
{
    sml_mutex_lock(&client->lock);
    client->inside++;
    sml_caller_accept(&client->link.caller, &posted->record.call, client->now);
    sml_client_leave(client);
}

void sml_client_outbox_ended(struct semel_client *client, struct sml_call *call, bool from_server)
{
    struct sml_posted *posted = (struct sml_posted *)call;
    struct sml_client_outbox *outbox = client->outbox;
    bool stands = (from_server || is_final(call)) && sml_posted_keep_verdict(posted);
    bool again = !stands && call->verdict.status != SEMEL_STOPPED;
    uint64_t now = sml_clock_now();

    if (from_server && !stands)
        let_go(client, posted);
    if (again)
        announce_again(client);
    sml_mutex_lock(&outbox->lock);
    if (stands) {
        posted->state = SML_POSTED_ENDED;
        sml_list_push_back(&outbox->queue, &posted->link);
    } else if (!again) {
        posted->state = SML_POSTED_PARKED;
    } else {
        sml_posted_renew(posted);
        posted->state = SML_POSTED_AGAIN;
        posted->again_at = now + SML_OUTBOX_RETRY;
        sml_list_push_back(&outbox->queue, &posted->link);
    }
    sml_cond_broadcast(&outbox->changed);
    sml_mutex_unlock(&outbox->lock);
}
