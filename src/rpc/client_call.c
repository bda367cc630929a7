/* SPDX-License-Identifier: MIT */
/* client_call.c - blocking and started calls, from the application to the machine.
 *
 * A blocking call's record lies on the caller's stack and its body stays where it is; a started
 * call is one allocation that holds its record and copies of its bytes. Fingerprints are made
 * before the lock is taken, so that a large body holds nobody up.
 *
 * A blocked caller is `inside` the client until it goes to sleep on its own word: destroy waits
 * for these, and never needs to wait for a sleeper. */
#include <stdlib.h>
#include <string.h>

#include "os/clock.h"
#include "os/futex.h"
#include "rpc/client_internal.h"
#include "rpc/client_seam.h"
#include "rpc/commit.h"

/* A started call on the I/O thread reads the clock only so often. */
#define STARTS_PER_CLOCK 16

static const struct semel_call_options no_options = SEMEL_CALL_OPTIONS_INIT;

/* --- submitting ------------------------------------------------------------------------- */

/* A name with a control character in it is a protocol error on the wire. */
static bool is_name(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    return true;
}

enum semel_status sml_client_describe(struct sml_call *call, const char *method,
                                      struct semel_bytes body,
                                      const struct semel_call_options *options)
{
    size_t method_bytes = method ? strnlen(method, SEMEL_METHOD_BYTES + 1) : 0;
    const char *type = options->content_type ? options->content_type : "";
    const char *key = options->key ? options->key : "";
    size_t type_bytes = strnlen(type, SEMEL_CONTENT_TYPE_BYTES + 1);
    size_t key_bytes = strnlen(key, SEMEL_KEY_BYTES + 1);

    if (method_bytes == 0 || method_bytes > SEMEL_METHOD_BYTES ||
        type_bytes > SEMEL_CONTENT_TYPE_BYTES || key_bytes > SEMEL_KEY_BYTES ||
        !is_name(method, method_bytes) || !is_name(type, type_bytes) || !is_name(key, key_bytes) ||
        (body.size > 0 && !body.data) || options->deadline_ms > INT32_MAX)
        return SEMEL_INVALID;
    if (body.size > SEMEL_BODY_BYTES_MAX)
        return SEMEL_TOO_LARGE;
    call->method = method;
    call->method_bytes = (uint8_t)method_bytes;
    call->content_type = type;
    call->content_type_bytes = (uint8_t)type_bytes;
    call->key = key;
    call->key_bytes = (uint8_t)key_bytes;
    call->body = body.data;
    call->body_bytes = body.size;
    call->flags = (uint8_t)((options->rerun_ok ? SML_CALL_RERUN_OK : 0) |
                            (options->refuse_when_full ? SML_CALL_REFUSE_WHEN_FULL : 0));
    return SEMEL_OK;
}

enum semel_status sml_client_check(const char *method, struct semel_bytes body,
                                   const struct semel_call_options *options)
{
    struct sml_call call;

    return sml_client_describe(&call, method, body, options);
}

/* Nanoseconds from now; 0: already passed. */
static uint64_t span_of(const struct semel_client *client, const struct semel_call_options *options)
{
    int64_t ms = options->deadline_ms ? options->deadline_ms : client->options.deadline_ms;

    return ms < 0 ? 0 : (uint64_t)ms * SML_MS;
}

/* Lock held, client->now fresh. */
static enum semel_status submit(struct semel_client *client, struct sml_record *record,
                                uint64_t span)
{
    enum semel_status status;

    record->call.deadline = sml_time_add(client->now, span);
    status = sml_link_submit(&client->link, &record->call, client->now);
    if (status != SEMEL_OK)
        return status;
    client->in_flight++;
    client->blocking += record->blocking;
    client->counters.calls_started++;
    client->span_min = sml_time_min(client->span_min, span);
    return SEMEL_OK;
}

/* --- blocking --------------------------------------------------------------------------- */

static enum semel_outcome refuse(struct semel_client *client, struct semel_result *out,
                                 enum semel_status status, const char *method, const char *why)
{
    if (out)
        sml_result_refuse(out, status, method,
                          client ? client->addresses.list[0].text : "no client", why);
    return SEMEL_NOT_EXECUTED;
}

/* Not under way: the link's own words go along. Lock held on entry, not on exit. */
static enum semel_outcome refuse_submitted(struct semel_client *client,
                                           struct sml_blocking *blocking, enum semel_status status)
{
    char why[SML_BYE_TEXT_BYTES + 1] = "";
    const char *peer = sml_client_peer(client);

    if (client->link.state == SML_LINK_FAILED)
        memcpy(why, client->link.why_text, sizeof why);
    sml_mutex_unlock(&client->lock);
    free(blocking->storage);
    if (blocking->out)
        sml_result_refuse(blocking->out, status, blocking->record.call.method, peer, why);
    return SEMEL_NOT_EXECUTED;
}

static void sleep_until_done(struct sml_blocking *blocking)
{
    uint32_t running = 0;

    if (!atomic_compare_exchange_strong_explicit(&blocking->word, &running, 2, memory_order_acq_rel,
                                                 memory_order_acquire))
        return;
    while (atomic_load_explicit(&blocking->word, memory_order_acquire) != 1)
        (void)sml_futex_wait(&blocking->word, 2, SML_NEVER);
}

/* The call was submitted. Lock held on entry, not on exit; done on exit. */
static void see_through(struct semel_client *client, struct sml_blocking *blocking)
{
    struct sml_awaited awaited;
    struct sml_batch batch;

    client->inside++;
    sml_client_write(client, client->blocking > 1);
    sml_batch_init(&batch);
    sml_client_collect(client, &batch);
    if (batch.count) {
        sml_mutex_unlock(&client->lock);
        sml_client_deliver(client, &batch, SML_ELSEWHERE);
        sml_mutex_lock(&client->lock);
    }
    awaited = (struct sml_awaited){ &blocking->record.call, &blocking->word, 0,
                                    blocking->record.call.deadline };
    if (sml_client_may_borrow(client, &awaited))
        sml_client_borrow(client, &awaited);
    sml_client_leave(client);
    sleep_until_done(blocking);
}

enum semel_outcome semel_client_call(struct semel_client *client, const char *method,
                                     struct semel_bytes body,
                                     const struct semel_call_options *options,
                                     struct semel_result *out_result)
{
    struct sml_blocking blocking;
    enum semel_status status;

    if (!client)
        return refuse(NULL, out_result, SEMEL_INVALID, method, NULL);
    if (!sml_origin_is_mine(&client->origin))
        return refuse(client, out_result, SEMEL_FORKED, method, NULL);
    if (sml_client_in_callback(client) || sml_in_transaction() || sml_thread_in_loop())
        return refuse(client, out_result, SEMEL_WOULD_DEADLOCK, method, NULL);
    options = options ? options : &no_options;
    memset(&blocking, 0, sizeof blocking);
    blocking.record.blocking = true;
    blocking.out = out_result;
    status = sml_client_describe(&blocking.record.call, method, body, options);
    if (status != SEMEL_OK)
        return refuse(client, out_result, status, method, NULL);
    sml_call_prepare(&blocking.record.call);
    if (out_result) {
        size_t hint = atomic_load_explicit(&client->result_hint, memory_order_relaxed);

        blocking.storage = sml_result_storage_new(sml_result_value_bytes(
            hint, blocking.record.call.method_bytes, client->addresses.list[0].text));
        if (!blocking.storage)
            return refuse(client, out_result, SEMEL_NO_MEMORY, method, NULL);
    }
    sml_mutex_lock(&client->lock);
    client->now = sml_clock_now();
    status = submit(client, &blocking.record, span_of(client, options));
    if (status != SEMEL_OK)
        return refuse_submitted(client, &blocking, status);
    see_through(client, &blocking);
    return blocking.outcome;
}

/* --- started ---------------------------------------------------------------------------- */

static char *put(char *at, const void *bytes, size_t size)
{
    if (size > 0)
        memcpy(at, bytes, size);
    return at + size;
}

/* One allocation: the record, then its own copies of the bytes. NULL: no memory. */
static struct semel_call *make_call(const struct sml_call *described, bool lent)
{
    size_t body_bytes = lent ? 0 : (size_t)described->body_bytes;
    size_t names =
        (size_t)described->method_bytes + described->content_type_bytes + described->key_bytes + 3;
    struct semel_call *call = malloc(sizeof *call + names + body_bytes);
    char *at;

    if (!call)
        return NULL;
    memset(call, 0, sizeof *call);
    call->record.call = *described;
    call->record.call.method = at = call->bytes;
    at = put(at, described->method, described->method_bytes);
    *at++ = '\0';
    call->record.call.content_type = at;
    at = put(at, described->content_type, described->content_type_bytes);
    *at++ = '\0';
    call->record.call.key = at;
    at = put(at, described->key, described->key_bytes);
    *at++ = '\0';
    if (!lent) {
        call->record.call.body = at;
        put(at, described->body, body_bytes);
    }
    sml_call_prepare(&call->record.call);
    return call;
}

/* The handle is there before the completion can run. Lock held, client->now fresh. */
static enum semel_status submit_started(struct semel_client *client, struct semel_call *call,
                                        uint64_t span, struct semel_call **out_call)
{
    enum semel_status status = submit(client, &call->record, span);

    if (status != SEMEL_OK)
        return status;
    call->record.looped = call->record.anywhere && sml_client_lend_to_loop(client);
    if (out_call)
        *out_call = call;
    return SEMEL_OK;
}

/* On the I/O thread: it writes and collects when the callbacks it is running are done. */
static enum semel_status start_on_io(struct semel_client *client, struct semel_call *call,
                                     uint64_t span, struct semel_call **out_call)
{
    enum semel_status status;

    sml_mutex_lock(&client->lock);
    if (++client->starts_on_io % STARTS_PER_CLOCK == 0)
        client->now = sml_clock_now();
    status = submit_started(client, call, span, out_call);
    sml_mutex_unlock(&client->lock);
    return status;
}

static enum semel_status start_elsewhere(struct semel_client *client, struct semel_call *call,
                                         uint64_t span, struct semel_call **out_call)
{
    enum semel_status status;

    sml_mutex_lock(&client->lock);
    client->now = sml_clock_now();
    status = submit_started(client, call, span, out_call);
    if (status != SEMEL_OK) {
        sml_mutex_unlock(&client->lock);
        return status;
    }
    client->inside++;
    sml_client_write(client, client->blocking > 0);
    sml_client_leave_with_done(client);
    return SEMEL_OK;
}

enum semel_status sml_client_start_stream(struct semel_client *client, const char *method,
                                          struct semel_bytes body,
                                          const struct semel_call_options *options,
                                          struct sml_stream *stream, unsigned manner,
                                          semel_done_fn done, void *user,
                                          struct semel_call **out_call)
{
    struct sml_call described;
    enum semel_status status;
    struct semel_call *call;
    uint64_t span;

    if (!client || !done)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&client->origin))
        return SEMEL_FORKED;
    options = options ? options : &no_options;
    memset(&described, 0, sizeof described);
    status = sml_client_describe(&described, method, body, options);
    if (status != SEMEL_OK)
        return status;
    call = make_call(&described, options->lent);
    if (!call)
        return SEMEL_NO_MEMORY;
    call->client = client;
    call->record.call.stream = stream;
    call->record.anywhere = (manner & SML_ANYWHERE) != 0;
    call->done = done;
    call->user = user;
    /* The handle's reference exists before the completion can drop the other one. */
    atomic_init(&call->refs, out_call ? 2 : 1);
    span = manner & SML_FOR_LIFE ? SML_NEVER : span_of(client, options);
    status = sml_client_on_io(client) ? start_on_io(client, call, span, out_call)
                                      : start_elsewhere(client, call, span, out_call);
    if (status != SEMEL_OK)
        free(call);
    return status;
}

enum semel_status semel_client_start(struct semel_client *client, const char *method,
                                     struct semel_bytes body,
                                     const struct semel_call_options *options, semel_done_fn done,
                                     void *user, struct semel_call **out_call)
{
    return sml_client_start_stream(client, method, body, options, NULL, SML_PLAIN, done, user,
                                   out_call);
}

void semel_call_cancel(struct semel_call *call)
{
    struct semel_client *client;

    if (!call || atomic_load_explicit(&call->completed, memory_order_acquire))
        return;
    client = call->client;
    if (!sml_origin_is_mine(&client->origin))
        return;
    sml_mutex_lock(&client->lock);
    client->now = sml_clock_now();
    sml_caller_cancel(&client->link.caller, &call->record.call, client->now);
    if (sml_client_on_io(client)) {
        sml_mutex_unlock(&client->lock);
        return;
    }
    client->inside++;
    sml_client_write(client, false);
    sml_client_leave_with_done(client);
}

void semel_call_unref(struct semel_call *call)
{
    if (call && atomic_fetch_sub_explicit(&call->refs, 1, memory_order_acq_rel) == 1)
        free(call);
}
