/* SPDX-License-Identifier: MIT */
/* exchange_loop.c - waits that end on a loop: by a callback, or as a deferred.
 *
 * A wait that ended is posted to its loop; there its record is freed, and then the callback is
 * called. Until then the record keeps the loop, as one of its users, and the exchange, by a
 * reference: both may be closed meanwhile, and the wait may be cancelled. */
#include <stdlib.h>

#include "async/deferred.h"
#include "os/clock.h"
#include "rpc/exchange_internal.h"

struct semel_wait {
    struct sml_waiter waiter;
    struct semel_exchange *exchange;
    struct sml_event_wait *wait;
    struct sml_executor *executor;
    struct semel_task task;
    semel_events_fn fn;
    void *user;
};

/* On the loop's thread. */
static void deliver(void *arg)
{
    struct semel_wait *record = arg;
    const semel_events_fn fn = record->fn;
    void *const user = record->user;
    struct semel_events events;

    sml_event_wait_result(record->wait, &events);
    sml_executor_leave(record->executor);
    sml_exchange_unref(record->exchange);
    free(record);
    fn(&events, user);
}

static void post(struct sml_waiter *waiter, struct sml_event_wait *wait)
{
    struct semel_wait *record = SML_CONTAINER(waiter, struct semel_wait, waiter);

    (void)wait;
    record->executor->ops->post(record->executor, &record->task);
}

static struct semel_wait *create(struct semel_exchange *exchange, struct semel_loop *loop,
                                 semel_events_fn fn, void *user)
{
    struct semel_wait *record = calloc(1, sizeof *record);

    if (record == NULL)
        return NULL;
    record->waiter.ended = post;
    record->exchange = sml_exchange_ref(exchange);
    record->executor = sml_executor_of(loop);
    record->task.fn = deliver;
    record->task.user = record;
    record->fn = fn;
    record->user = user;
    sml_executor_enter(record->executor);
    return record;
}

static void discard(struct semel_wait *record)
{
    sml_executor_leave(record->executor);
    sml_exchange_unref(record->exchange);
    free(record);
}

enum semel_status semel_exchange_start(struct semel_exchange *exchange,
                                       const struct semel_bytes *ids, size_t count,
                                       const struct semel_wait_options *options,
                                       struct semel_loop *loop, semel_events_fn fn, void *user,
                                       struct semel_wait **out)
{
    enum semel_status status = sml_exchange_check(exchange);
    struct semel_wait *record, *before = out ? *out : NULL;
    struct sml_event_wait_plan plan;
    uint64_t timeout;

    if (loop == NULL || fn == NULL)
        return SEMEL_INVALID;
    if (status == SEMEL_OK)
        status = sml_exchange_plan(exchange, ids, count, options, &plan, &timeout);
    if (status != SEMEL_OK)
        return status;
    record = create(exchange, loop, fn, user);
    if (record == NULL)
        return SEMEL_NO_MEMORY;
    if (out)
        *out = record; /* before the callback can begin on another thread */
    status = sml_exchange_begin(exchange, &plan, timeout, &record->waiter, &record->wait);
    if (status != SEMEL_OK) {
        if (out)
            *out = before;
        discard(record);
    }
    return status;
}

/* False: it ended before. */
static bool cancel(struct semel_wait *record)
{
    struct semel_exchange *exchange = sml_exchange_ref(record->exchange);
    bool waited;

    sml_mutex_lock(&exchange->lock);
    waited = record->wait->state == SML_EVENT_WAIT_WAITING;
    sml_exchange_cancel(&exchange->machine, record->wait, SEMEL_CANCELLED);
    sml_exchange_leave(exchange); /* from here on the record may be gone */
    sml_exchange_unref(exchange);
    return waited;
}

void semel_wait_cancel(struct semel_wait *wait)
{
    if (wait && sml_origin_is_mine(&wait->exchange->origin))
        (void)cancel(wait);
}

/* --- as a deferred
 * ----------------------------------------------------------------------------- */

/* The loop's thread only. */
struct promise {
    struct semel_deferred *deferred; /* one reference */
    struct semel_wait *wait;
    struct semel_events *value; /* memory for the value */
};

static void free_promise(struct promise *promise)
{
    semel_deferred_unref(promise->deferred);
    free(promise->value);
    free(promise);
}

static void free_events(void *value)
{
    semel_events_clear(value);
    free(value);
}

/* A deferred that was cancelled has its result already, and takes no other. */
static void ended(struct semel_events *events, void *user)
{
    struct promise *promise = user;
    struct semel_events *value = promise->value;
    enum semel_status fired;

    *value = *events;
    promise->value = NULL;
    if (events->status == SEMEL_OK) {
        fired = semel_deferred_fire(promise->deferred, value, free_events);
        if (fired != SEMEL_OK)
            free_events(value);
    } else {
        fired = semel_deferred_fail(promise->deferred, events->status, 0, NULL);
        (void)fired;
        free_events(value);
    }
    free_promise(promise);
}

/* What was met before it could be cancelled is not lost: it is the result, and on its way. */
static bool cancel_promise(struct semel_deferred *deferred, void *user)
{
    struct promise *promise = user;

    (void)deferred;
    return !cancel(promise->wait);
}

static struct promise *promise_to(struct semel_loop *loop)
{
    struct promise *promise = calloc(1, sizeof *promise);

    if (promise == NULL)
        return NULL;
    promise->value = calloc(1, sizeof *promise->value);
    if (promise->value == NULL ||
        semel_deferred_create(&promise->deferred, loop, cancel_promise, promise) != SEMEL_OK) {
        free_promise(promise);
        return NULL;
    }
    return promise;
}

enum semel_status semel_exchange_defer(struct semel_exchange *exchange,
                                       const struct semel_bytes *ids, size_t count,
                                       const struct semel_wait_options *options,
                                       struct semel_loop *loop, struct semel_deferred **out)
{
    enum semel_status status = sml_exchange_check(exchange);
    struct promise *promise;

    if (loop == NULL || out == NULL)
        return SEMEL_INVALID;
    if (status != SEMEL_OK)
        return status;
    if (!sml_executor_is_here(sml_executor_of(loop)))
        return SEMEL_DENIED;
    promise = promise_to(loop);
    if (promise == NULL)
        return SEMEL_NO_MEMORY;
    status =
        semel_exchange_start(exchange, ids, count, options, loop, ended, promise, &promise->wait);
    if (status != SEMEL_OK) {
        free_promise(promise);
        return status;
    }
    *out = semel_deferred_ref(promise->deferred);
    return SEMEL_OK;
}
