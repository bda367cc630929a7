/* SPDX-License-Identifier: MIT */
/* exchange_server.c - an exchange for remote clients: methods semel.trigger and semel.wait.
 *
 * Their bodies are described in docs/ASYNC.md. A call of semel.wait takes its request and waits in
 * the exchange as anybody does; no thread is its own. Its end is the request's reply.
 *
 * Once. What the wait takes is held. The reply comes with a receipt: when the caller has it, the
 * events are gone; when nobody will have it (the session has ended, the caller gave up), they go
 * back to where they were. Between the two the session repeats the same reply over as many
 * connections as it takes.
 *
 * Locks. A receipt is told, and a cancellation comes, where other locks are held or the request
 * cannot be finished: both only change the exchange, and leave it to its keeper to tell whoever was
 * met or ended by that. */
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "os/clock.h"
#include "rpc/exchange_internal.h"
#include "rpc/server_internal.h"

#define WAIT_HEAD 16 /* u32 timeout_ms, u32 need, u8 flags, u8 0 * 3, u32 count */
#define WAIT_LEAVE 1 /* flags */
#define REPLY_HEAD 8 /* u32 status, u32 count */
#define MISSING UINT32_MAX

static void fail(struct semel_request *request, enum semel_status why)
{
    if (semel_request_fail(request, (int)why, semel_status_text(why)) != SEMEL_OK)
        semel_request_drop(request);
}

/* --- semel.trigger
 * ------------------------------------------------------------------------------ */

static void on_trigger(struct semel_request *request, void *user)
{
    const struct semel_bytes body = semel_request_body(request);
    const uint8_t *at = body.data;
    enum semel_status status = SEMEL_INVALID;

    if (body.size > 0 && body.size > at[0])
        status = semel_exchange_trigger(user, semel_bytes(at + 1, at[0]),
                                        semel_bytes(at + 1 + at[0], body.size - 1 - at[0]));
    if (status != SEMEL_OK)
        fail(request, status);
    else if (semel_request_reply(request, NULL, 0) != SEMEL_OK)
        semel_request_drop(request);
}

/* --- semel.wait
 * ---------------------------------------------------------------------------------- */

struct remote {
    struct sml_waiter waiter;
    struct sml_reply_receipt receipt;
    struct semel_exchange *exchange; /* one reference */
    struct semel_request *request;
    struct sml_event_wait *wait; /* once it began; under the exchange's lock until it has ended */
};

static void free_remote(struct remote *remote)
{
    sml_event_wait_free(remote->wait);
    sml_exchange_unref(remote->exchange);
    free(remote);
}

/* The session's stripe is held. */
static void on_receipt(struct sml_reply_receipt *receipt, bool accepted)
{
    struct remote *remote = SML_CONTAINER(receipt, struct remote, receipt);
    struct semel_exchange *exchange = remote->exchange;

    sml_mutex_lock(&exchange->lock);
    if (accepted)
        sml_exchange_accept(&exchange->machine, remote->wait);
    else
        sml_exchange_give_back(&exchange->machine, remote->wait, sml_clock_now());
    (void)sml_keeper_attend_locked(exchange); /* it stays while anything is held */
    sml_exchange_leave_to_keeper(exchange);
    free_remote(remote);
}

/* No lock is held. */
static void give_back(struct remote *remote)
{
    struct semel_exchange *exchange = remote->exchange;

    sml_mutex_lock(&exchange->lock);
    sml_exchange_give_back(&exchange->machine, remote->wait, sml_clock_now());
    (void)sml_keeper_attend_locked(exchange);
    sml_exchange_leave(exchange);
}

/* 0: it is too large for any reply. */
static size_t reply_bytes(const struct semel_events *events)
{
    size_t bytes = REPLY_HEAD + 4 * events->count;

    for (size_t i = 0; i < events->count; i++) {
        if (events->events[i].data.size >= MISSING || bytes > SEMEL_BODY_BYTES_MAX)
            return 0;
        bytes += events->events[i].data.size;
    }
    return bytes;
}

static void encode(const struct semel_events *events, uint8_t *at)
{
    sml_store32(at, (uint32_t)events->status);
    sml_store32(at + 4, (uint32_t)events->count);
    at += REPLY_HEAD;
    for (size_t i = 0; i < events->count; i++) {
        const struct semel_event *event = &events->events[i];

        sml_store32(at, event->there ? (uint32_t)event->data.size : MISSING);
        at += 4;
        if (event->data.size > 0)
            memcpy(at, event->data.data, event->data.size);
        at += event->data.size;
    }
}

/* Once it returns OK, a remote whose wait holds belongs to its receipt. */
static enum semel_status reply(struct remote *remote, const struct semel_events *events)
{
    size_t bytes = reply_bytes(events);
    uint8_t *body = bytes > 0 ? malloc(bytes) : NULL;
    enum semel_status status;

    if (body == NULL)
        return bytes > 0 ? SEMEL_NO_MEMORY : SEMEL_TOO_LARGE;
    encode(events, body);
    if (remote->wait->state == SML_EVENT_WAIT_HOLDING)
        status = sml_request_reply_with_receipt(remote->request, body, bytes, &remote->receipt);
    else
        status = semel_request_reply(remote->request, body, bytes);
    free(body);
    return status;
}

static void on_ended(struct sml_waiter *waiter, struct sml_event_wait *wait)
{
    struct remote *remote = SML_CONTAINER(waiter, struct remote, waiter);
    struct semel_request *request = remote->request;
    const bool holds = wait->state == SML_EVENT_WAIT_HOLDING;
    struct semel_events events;
    enum semel_status status;

    sml_event_wait_result(wait, &events);
    status = events.status;
    if (status == SEMEL_OK || status == SEMEL_DEADLINE)
        status = reply(remote, &events);
    if (status == SEMEL_OK || status == SEMEL_DEADLINE) {
        if (!holds)
            free_remote(remote);
        return;
    }
    give_back(remote); /* harmless if nothing is held; who is told must find it there again */
    fail(request, status);
    free_remote(remote);
}

/* The caller does not wait any more. The request cannot be finished in here. */
static void on_cancelled(struct semel_request *request, void *user)
{
    struct remote *remote = user;
    struct semel_exchange *exchange = remote->exchange;

    (void)request;
    sml_mutex_lock(&exchange->lock);
    remote->waiter.cancelled = true;
    if (remote->wait)
        sml_exchange_cancel(&exchange->machine, remote->wait, SEMEL_CANCELLED);
    sml_exchange_leave_to_keeper(exchange);
}

/* The ids of the body, as views of it; false: it is no such list. */
static bool read_ids(const uint8_t *at, const uint8_t *end, struct semel_bytes *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (at == end || (size_t)(end - at) <= at[0])
            return false;
        ids[i] = semel_bytes(at + 1, at[0]);
        at += 1 + at[0];
    }
    return at == end;
}

static enum semel_status begin(struct remote *remote, struct semel_bytes body)
{
    const uint8_t *head = body.data;
    struct semel_bytes *ids;
    struct sml_event_wait_plan plan = { .holds = true };
    enum semel_status status = SEMEL_INVALID;
    uint64_t timeout;

    if (body.size < WAIT_HEAD || head[8] > WAIT_LEAVE || head[9] || head[10] || head[11])
        return SEMEL_INVALID;
    timeout = sml_load32(head) * SML_MS;
    plan.need = sml_load32(head + 4);
    plan.unmet = head[8] & WAIT_LEAVE ? SEMEL_UNMET_LEAVE : SEMEL_UNMET_TAKE;
    plan.count = sml_load32(head + 12);
    if (timeout > remote->exchange->timeout_max || plan.count > SEMEL_EVENT_IDS_MAX)
        return SEMEL_INVALID;
    plan.ids = ids = malloc((plan.count + 1) * sizeof *ids);
    if (ids == NULL)
        return SEMEL_NO_MEMORY;
    if (read_ids(head + WAIT_HEAD, head + body.size, ids, plan.count))
        status =
            sml_exchange_begin(remote->exchange, &plan, timeout, &remote->waiter, &remote->wait);
    free(ids);
    return status;
}

static void on_wait(struct semel_request *request, void *user)
{
    struct remote *remote = calloc(1, sizeof *remote);
    enum semel_status status;

    if (remote == NULL) {
        fail(request, SEMEL_NO_MEMORY);
        return;
    }
    remote->waiter.ended = on_ended;
    remote->receipt.told = on_receipt;
    remote->exchange = sml_exchange_ref(user);
    remote->request = request;
    semel_request_take(request);
    semel_request_on_cancel(request, on_cancelled, remote);
    status = begin(remote, semel_request_body(request));
    if (status == SEMEL_OK)
        return; /* the request and the remote may be gone by now */
    fail(request, status);
    free_remote(remote);
}

enum semel_status semel_server_export_exchange(struct semel_server *server,
                                               struct semel_exchange *exchange)
{
    enum semel_status status = sml_exchange_check(exchange);

    if (status == SEMEL_OK)
        status = sml_server_export_reserved(server, "semel.trigger", on_trigger, exchange);
    if (status == SEMEL_OK)
        status = sml_server_export_reserved(server, "semel.wait", on_wait, exchange);
    return status;
}
