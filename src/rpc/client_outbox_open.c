/* SPDX-License-Identifier: MIT */
/* client_outbox_open.c - a client's outbox from the file that is given to the client until it
 * closes it; and its calls in memory, from the file or new. */
#include <stdlib.h>
#include <string.h>

#include "os/clock.h"
#include "rpc/client_outbox.h"

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec t;

    (void)clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t sml_outbox_clock_ms(const struct sml_client_outbox *outbox)
{
    return outbox->clock.base + (clock_ms(CLOCK_BOOTTIME) - outbox->clock.since);
}

uint64_t sml_outbox_address_hash(const struct semel_client *client, uint32_t address)
{
    const char *text = client->addresses.list[address].text;

    return sml_fingerprint(text, strlen(text), NULL, 0, NULL, 0).a;
}

/* --- posted calls ------------------------------------------------------------------------------
 * */

static char *put(char *at, struct semel_bytes bytes, bool text)
{
    if (bytes.size > 0)
        memcpy(at, bytes.data, bytes.size);
    if (text)
        at[bytes.size] = '\0';
    return at + bytes.size + text;
}

struct sml_posted *sml_posted_make(const struct sml_posted_record *record)
{
    size_t bytes = record->method.size + record->content_type.size + record->key.size +
                   record->tag.size + record->body.size + 3;
    struct sml_posted *posted = calloc(1, sizeof *posted + bytes);
    struct sml_call *call;
    char *at;

    if (posted == NULL)
        return NULL;
    posted->refs = 1;
    sml_list_init(&posted->all);
    sml_list_init(&posted->link);
    posted->posted_ms = record->posted_ms;
    posted->record.posted = true;
    call = &posted->record.call;
    call->method = at = posted->bytes;
    call->content_type = at = put(at, record->method, true);
    call->key = at = put(at, record->content_type, true);
    at = put(at, record->key, true);
    posted->tag = semel_bytes(at, record->tag.size);
    at = put(at, record->tag, false);
    call->body = at;
    put(at, record->body, false);
    call->method_bytes = (uint8_t)record->method.size;
    call->content_type_bytes = (uint8_t)record->content_type.size;
    call->key_bytes = (uint8_t)record->key.size;
    call->body_bytes = record->body.size;
    call->deadline = SML_NEVER;
    sml_call_prepare(call);
    return posted;
}

void sml_posted_unref(struct sml_posted *posted)
{
    if (--posted->refs > 0)
        return;
    free(posted->record.call.reply);
    free(posted->reply);
    free(posted);
}

void sml_posted_renew(struct sml_posted *posted)
{
    struct sml_call fresh = { .method = posted->record.call.method,
                              .content_type = posted->record.call.content_type,
                              .key = posted->record.call.key,
                              .body = posted->record.call.body,
                              .body_bytes = posted->record.call.body_bytes,
                              .deadline = SML_NEVER,
                              .method_bytes = posted->record.call.method_bytes,
                              .content_type_bytes = posted->record.call.content_type_bytes,
                              .key_bytes = posted->record.call.key_bytes,
                              .fingerprint = posted->record.call.fingerprint,
                              .prepared = true,
                              .store_epoch = posted->record.call.store_epoch,
                              .rerun = true };

    free(posted->record.call.reply);
    posted->record.call = fresh;
}

bool sml_posted_keep_verdict(struct sml_posted *posted)
{
    struct sml_call *call = &posted->record.call;

    posted->verdict = call->verdict;
    if (call->reply) {
        posted->reply = call->reply;
        call->reply = NULL;
        return true;
    }
    posted->reply = malloc(sml_verdict_bytes(&posted->verdict) + 1);
    if (posted->reply == NULL)
        return false;
    sml_verdict_place(&posted->verdict, posted->reply);
    return true;
}

/* --- by name -----------------------------------------------------------------------------------
 * */

static struct sml_posted **bucket_of(struct sml_client_outbox *outbox, const struct sml_call *call)
{
    struct sml_fingerprint print =
        sml_fingerprint(call->method, call->method_bytes, NULL, 0, call->key, call->key_bytes);

    return &outbox->by_name[print.a % SML_OUTBOX_BUCKETS];
}

void sml_outbox_enter(struct sml_client_outbox *outbox, struct sml_posted *posted)
{
    struct sml_posted **bucket = bucket_of(outbox, &posted->record.call);

    sml_list_push_back(&outbox->all, &posted->all);
    posted->next_of_name = *bucket;
    *bucket = posted;
}

void sml_outbox_enter_id(struct sml_client_outbox *outbox, struct sml_posted *posted)
{
    struct sml_posted **bucket = &outbox->by_id[posted->id % SML_OUTBOX_BUCKETS];

    posted->next_of_id = *bucket;
    *bucket = posted;
}

void sml_outbox_leave(struct sml_client_outbox *outbox, struct sml_posted *posted)
{
    struct sml_posted **at = bucket_of(outbox, &posted->record.call);

    while (*at != posted)
        at = &(*at)->next_of_name;
    *at = posted->next_of_name;
    at = &outbox->by_id[posted->id % SML_OUTBOX_BUCKETS];
    while (*at && *at != posted)
        at = &(*at)->next_of_id;
    if (*at)
        *at = posted->next_of_id;
    sml_list_remove(&posted->all);
    sml_list_remove(&posted->link);
    sml_posted_unref(posted);
}

static bool same_name(const struct sml_call *a, const struct sml_call *b)
{
    return a->method_bytes == b->method_bytes && a->key_bytes == b->key_bytes &&
           memcmp(a->method, b->method, a->method_bytes) == 0 &&
           memcmp(a->key, b->key, a->key_bytes) == 0;
}

struct sml_posted *sml_outbox_find(struct sml_client_outbox *outbox, const struct sml_call *call)
{
    struct sml_posted *posted = *bucket_of(outbox, call);

    while (posted && !same_name(&posted->record.call, call))
        posted = posted->next_of_name;
    return posted;
}

struct sml_posted *sml_outbox_find_id(const struct sml_client_outbox *outbox, uint64_t id)
{
    struct sml_posted *posted = outbox->by_id[id % SML_OUTBOX_BUCKETS];

    while (posted && posted->id != id)
        posted = posted->next_of_id;
    return posted;
}

/* --- life --------------------------------------------------------------------------------------
 * */

struct loading {
    struct sml_client_outbox *outbox;
    enum semel_status status;
    const char *why;
};

static bool load_result(struct sml_posted *posted, struct semel_bytes bytes,
                        struct loading *loading)
{
    struct sml_result_record record;

    loading->why = sml_result_record_decode(bytes, &record);
    if (loading->why) {
        loading->status = SEMEL_STORE_CORRUPT;
        return false;
    }
    posted->record.call.verdict = record.verdict;
    if (!sml_posted_keep_verdict(posted)) {
        loading->status = SEMEL_NO_MEMORY;
        return false;
    }
    return true;
}

static bool load_call(uint64_t id, struct semel_bytes call, struct semel_bytes result, void *user)
{
    struct loading *loading = user;
    struct sml_client_outbox *outbox = loading->outbox;
    struct sml_posted_record record;
    struct sml_posted *posted;

    loading->why = sml_posted_record_decode(call, &record);
    if (loading->why) {
        loading->status = SEMEL_STORE_CORRUPT;
        return false;
    }
    posted = sml_posted_make(&record);
    if (posted == NULL) {
        loading->status = SEMEL_NO_MEMORY;
        return false;
    }
    outbox->clock.base = sml_time_max(outbox->clock.base, record.posted_ms);
    posted->id = id;
    sml_outbox_enter(outbox, posted);
    sml_outbox_enter_id(outbox, posted);
    if (result.data) {
        posted->state = SML_POSTED_READY;
        outbox->results++;
        sml_list_push_back(&outbox->ready, &posted->link);
        return load_result(posted, result, loading);
    }
    sml_posted_renew(posted);
    posted->state = SML_POSTED_AGAIN;
    outbox->client->link.keyed_outside++;
    outbox->outstanding++;
    sml_list_push_back(&outbox->queue, &posted->link);
    return true;
}

/* Where the session lives, in this process's list; its first, if it is not there any more. */
static uint32_t find_address(const struct semel_client *client, uint64_t hash)
{
    for (uint32_t i = 0; i < client->addresses.count; i++)
        if (sml_outbox_address_hash(client, i) == hash)
            return i;
    return 0;
}

static enum semel_status load(struct semel_client *client)
{
    struct sml_client_outbox *outbox = client->outbox;
    struct loading loading = { .outbox = outbox };
    struct sml_identity_record identity;
    uint8_t bytes[SML_IDENTITY_RECORD_BYTES];
    size_t size = 0;
    enum semel_status status =
        outbox->file->ops->load_identity(outbox->file, bytes, sizeof bytes, &size);

    if (status != SEMEL_OK)
        return status;
    outbox->clock.base = clock_ms(CLOCK_REALTIME);
    outbox->clock.since = clock_ms(CLOCK_BOOTTIME);
    if (size > 0) {
        if (sml_identity_record_decode(semel_bytes(bytes, size), &identity) != NULL)
            return SEMEL_STORE_CORRUPT;
        outbox->clock.base = sml_time_max(outbox->clock.base, identity.wall_ms);
        identity.identity.address = find_address(client, identity.address_hash);
        sml_link_restore(&client->link, &identity.identity);
    }
    status = outbox->file->ops->each(outbox->file, load_call, &loading);
    return status != SEMEL_OK ? status : loading.status;
}

static void release(struct semel_client *client)
{
    struct sml_client_outbox *outbox = client->outbox;

    while (!sml_list_empty(&outbox->all))
        sml_outbox_leave(outbox, SML_CONTAINER(outbox->all.next, struct sml_posted, all));
    sml_cond_fini(&outbox->changed);
    sml_mutex_fini(&outbox->lock);
    free(outbox->scratch);
    free(outbox);
    client->outbox = NULL;
}

enum semel_status sml_client_outbox_open(struct semel_client *client, struct semel_outbox *file)
{
    struct sml_client_outbox *outbox;
    enum semel_status status;

    if (file->abi != SML_OUTBOX_ABI)
        return SEMEL_INVALID;
    outbox = calloc(1, sizeof *outbox);
    if (outbox == NULL)
        return SEMEL_NO_MEMORY;
    outbox->client = client;
    outbox->file = file;
    sml_mutex_init(&outbox->lock);
    sml_cond_init(&outbox->changed);
    sml_list_init(&outbox->all);
    sml_list_init(&outbox->queue);
    sml_list_init(&outbox->ready);
    client->outbox = outbox;
    status = load(client);
    if (status != SEMEL_OK)
        release(client);
    return status;
}

enum semel_status sml_client_outbox_start(struct semel_client *client)
{
    enum semel_status status = sml_thread_create(&client->outbox->thread, "semel-outbox", 0,
                                                 sml_outbox_main, client->outbox);

    client->outbox->running = status == SEMEL_OK;
    return status;
}

void sml_client_outbox_stop(struct semel_client *client)
{
    struct sml_client_outbox *outbox = client->outbox;

    if (outbox == NULL || !outbox->running)
        return;
    sml_mutex_lock(&client->lock);
    if (client->link.ended)
        sml_client_outbox_save(client);
    sml_mutex_unlock(&client->lock);
    sml_mutex_lock(&outbox->lock);
    outbox->stop = true;
    sml_cond_broadcast(&outbox->changed);
    while (outbox->waiting > 0)
        sml_cond_wait(&outbox->changed, &outbox->lock);
    sml_mutex_unlock(&outbox->lock);
    sml_thread_join(&outbox->thread);
    outbox->running = false;
}

void sml_client_outbox_close(struct semel_client *client, bool with_file)
{
    struct semel_outbox *file;

    if (client->outbox == NULL)
        return;
    file = client->outbox->file;
    release(client);
    if (with_file)
        semel_outbox_close(file);
}

void semel_outbox_close(struct semel_outbox *outbox)
{
    if (outbox)
        outbox->ops->close(outbox);
}
