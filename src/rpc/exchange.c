/* SPDX-License-Identifier: MIT */
/* exchange.c - the exchange for threads: the machine of async/exchange.h under a lock.
 *
 * Records are made and freed outside the lock: ids are hashed, data copied and duplicates found
 * there. Under it an operation takes as long as the machine does. A thread that blocks sleeps on a
 * word of its own and watches its own deadline; whatever else has to happen at some time is the
 * keeper's (exchange_keeper.c).
 *
 * References. The application has one, until destroy; so has each wait with a callback that has not
 * begun, since it may be cancelled until then, and each wait of a remote client. */
#include <stdlib.h>

#include "os/clock.h"
#include "os/futex.h"
#include "os/random.h"
#include "rpc/commit.h"
#include "rpc/exchange_internal.h"

#define MAX_MS 60000
#define GRACE_MS 10000
#define TIMEOUT_MAX_MS 3600000
#define EVENTS (UINT32_C(1) << 20)
#define BYTES (UINT64_C(1) << 30)
#define WAITS (UINT32_C(1) << 20)
#define WAIT_IDS (UINT32_C(1) << 22)

/* --- creation
 * ---------------------------------------------------------------------------------- */

static bool is_span(int64_t ms)
{
    return ms >= 1 && ms <= INT32_MAX;
}

static enum semel_status read_options(const struct semel_exchange_options *options,
                                      struct semel_exchange_options *out)
{
    static const struct semel_exchange_options none = SEMEL_EXCHANGE_OPTIONS_INIT;

    *out = options ? *options : none;
    out->max_ms = out->max_ms == 0 ? MAX_MS : out->max_ms;
    out->grace_ms = out->grace_ms == 0 ? GRACE_MS : out->grace_ms;
    out->timeout_max_ms = out->timeout_max_ms == 0 ? TIMEOUT_MAX_MS : out->timeout_max_ms;
    out->events = out->events == 0 ? EVENTS : out->events;
    out->bytes = out->bytes == 0 ? BYTES : out->bytes;
    out->waits = out->waits == 0 ? WAITS : out->waits;
    out->wait_ids = out->wait_ids == 0 ? WAIT_IDS : out->wait_ids;
    if ((unsigned)out->delivery > SEMEL_EVENTS_KEEP || !is_span(out->max_ms) ||
        !is_span(out->timeout_max_ms) || (out->grace_ms > 0 && !is_span(out->grace_ms)))
        return SEMEL_INVALID;
    return SEMEL_OK;
}

static enum semel_status init_machine(struct sml_exchange *machine,
                                      const struct semel_exchange_options *o)
{
    struct sml_exchange_limits limits = {
        .delivery = o->delivery,
        .retention = (uint64_t)(o->max_ms + (o->grace_ms > 0 ? o->grace_ms : 0)) * SML_MS,
        .events = o->events,
        .bytes = o->bytes,
        .waits = o->waits,
        .wait_ids = o->wait_ids,
    };
    struct sml_random random;
    uint8_t hash_key[16];
    enum semel_status status = sml_random_init(&random);

    if (status != SEMEL_OK)
        return status;
    sml_random_fill(&random, hash_key, sizeof hash_key);
    sml_random_fini(&random);
    sml_exchange_init(machine, &sml_mem_libc, &limits, hash_key);
    return SEMEL_OK;
}

enum semel_status semel_exchange_create(struct semel_exchange **out,
                                        const struct semel_exchange_options *options)
{
    struct semel_exchange_options read;
    struct semel_exchange *exchange;
    enum semel_status status = read_options(options, &read);

    if (out == NULL || status != SEMEL_OK)
        return SEMEL_INVALID;
    exchange = calloc(1, sizeof *exchange);
    if (exchange == NULL)
        return SEMEL_NO_MEMORY;
    status = init_machine(&exchange->machine, &read);
    if (status != SEMEL_OK) {
        free(exchange);
        return status;
    }
    sml_origin_init(&exchange->origin);
    exchange->timeout_max = (uint64_t)read.timeout_max_ms * SML_MS;
    atomic_init(&exchange->refs, 1);
    sml_mutex_init(&exchange->lock);
    sml_cond_init(&exchange->changed);
    sml_list_init(&exchange->droppers);
    sml_keeper_init(exchange);
    *out = exchange;
    return SEMEL_OK;
}

struct semel_exchange *sml_exchange_ref(struct semel_exchange *exchange)
{
    (void)atomic_fetch_add_explicit(&exchange->refs, 1, memory_order_relaxed);
    return exchange;
}

void sml_exchange_unref(struct semel_exchange *exchange)
{
    struct sml_event *event;

    if (atomic_fetch_sub_explicit(&exchange->refs, 1, memory_order_acq_rel) != 1)
        return;
    while ((event = sml_exchange_next_spent(&exchange->machine)) != NULL)
        sml_event_unref(event); /* it was held until after destroy */
    sml_exchange_fini(&exchange->machine);
    sml_keeper_fini(exchange);
    sml_cond_fini(&exchange->changed);
    sml_mutex_fini(&exchange->lock);
    sml_origin_fini(&exchange->origin);
    free(exchange);
}

enum semel_status sml_exchange_check(const struct semel_exchange *exchange)
{
    if (exchange == NULL)
        return SEMEL_INVALID;
    return sml_origin_is_mine(&exchange->origin) ? SEMEL_OK : SEMEL_FORKED;
}

/* --- what an operation ended
 * ------------------------------------------------------------------- */

/* A thread inside `drop` callbacks, which must not wait for itself in destroy. */
struct dropper {
    struct sml_list link;
    struct sml_thread_id thread;
};

static void tell(struct sml_list *done)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(done)) != NULL) {
        struct sml_event_wait *wait = SML_CONTAINER(node, struct sml_event_wait, link);
        struct sml_waiter *waiter = wait->user;

        waiter->ended(waiter, wait);
    }
}

static void let_go(struct semel_exchange *exchange, struct sml_list *spent, struct dropper *self)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(spent)) != NULL)
        sml_event_unref(SML_CONTAINER(node, struct sml_event, link));
    sml_mutex_lock(&exchange->lock);
    sml_list_remove(&self->link);
    sml_cond_broadcast(&exchange->changed);
    sml_mutex_unlock(&exchange->lock);
}

void sml_exchange_leave(struct semel_exchange *exchange)
{
    struct dropper self = { .thread = sml_thread_self() };
    struct sml_list done, spent;

    sml_list_init(&done);
    sml_list_init(&spent);
    sml_list_move_all(&done, &exchange->machine.done);
    sml_list_move_all(&spent, &exchange->machine.spent);
    if (!sml_list_empty(&spent))
        sml_list_push_back(&exchange->droppers, &self.link);
    sml_mutex_unlock(&exchange->lock);
    tell(&done);
    if (!sml_list_empty(&spent))
        let_go(exchange, &spent, &self);
}

void sml_exchange_leave_to_keeper(struct semel_exchange *exchange)
{
    if (sml_exchange_has_news(&exchange->machine))
        sml_keeper_call_locked(exchange);
    sml_mutex_unlock(&exchange->lock);
}

static bool is_dropper_locked(const struct semel_exchange *exchange)
{
    const struct sml_list *node, *head = &exchange->droppers;

    for (node = head->next; node != head; node = node->next)
        if (SML_CONTAINER(node, struct dropper, link)->thread.value == sml_thread_self().value)
            return true;
    return false;
}

/* --- the end
 * ----------------------------------------------------------------------------------- */

void semel_exchange_close(struct semel_exchange *exchange)
{
    if (sml_exchange_check(exchange) != SEMEL_OK)
        return;
    sml_mutex_lock(&exchange->lock);
    sml_exchange_close(&exchange->machine);
    sml_exchange_leave(exchange);
}

enum semel_status semel_exchange_destroy(struct semel_exchange *exchange)
{
    bool inside;

    if (exchange == NULL)
        return SEMEL_OK;
    if (!sml_origin_is_mine(&exchange->origin))
        return SEMEL_FORKED;
    sml_mutex_lock(&exchange->lock);
    inside = is_dropper_locked(exchange);
    sml_mutex_unlock(&exchange->lock);
    if (inside)
        return SEMEL_WOULD_DEADLOCK;
    semel_exchange_close(exchange);
    sml_keeper_stop(exchange);
    sml_mutex_lock(&exchange->lock);
    while (exchange->inside > 0 || !sml_list_empty(&exchange->droppers))
        sml_cond_wait(&exchange->changed, &exchange->lock);
    sml_mutex_unlock(&exchange->lock);
    sml_exchange_unref(exchange);
    return SEMEL_OK;
}

/* --- triggers
 * ---------------------------------------------------------------------------------- */

enum semel_status semel_exchange_trigger_moved(struct semel_exchange *exchange,
                                               struct semel_bytes id, struct semel_bytes data,
                                               void (*drop)(const void *data, void *user),
                                               void *user)
{
    enum semel_status status = sml_exchange_check(exchange);
    struct sml_event *event;

    if (status != SEMEL_OK || (data.data == NULL && data.size > 0))
        return status != SEMEL_OK ? status : SEMEL_INVALID;
    event = sml_event_create(&sml_mem_libc, data, drop, user);
    if (event == NULL)
        return SEMEL_NO_MEMORY;
    sml_mutex_lock(&exchange->lock);
    status = sml_exchange_trigger(&exchange->machine, id, event, sml_clock_now());
    if (status == SEMEL_OK)
        (void)sml_keeper_attend_locked(exchange); /* without one the next operation purges */
    sml_exchange_leave(exchange);
    if (status != SEMEL_OK)
        sml_event_discard(event);
    return status;
}

enum semel_status semel_exchange_trigger(struct semel_exchange *exchange, struct semel_bytes id,
                                         struct semel_bytes data)
{
    return semel_exchange_trigger_moved(exchange, id, data, NULL, NULL);
}

/* --- waits
 * ------------------------------------------------------------------------------------- */

enum semel_status sml_exchange_plan(const struct semel_exchange *exchange,
                                    const struct semel_bytes *ids, size_t count,
                                    const struct semel_wait_options *options,
                                    struct sml_event_wait_plan *out_plan, uint64_t *out_timeout)
{
    static const struct semel_wait_options usual = SEMEL_WAIT_OPTIONS_INIT;
    const struct semel_wait_options *o = options ? options : &usual;

    /* So that what is not a number is refused as well. */
    if (!(o->timeout_s >= 0 && o->timeout_s * (double)SML_SECOND <= (double)exchange->timeout_max))
        return SEMEL_INVALID;
    out_plan->ids = ids;
    out_plan->count = count;
    out_plan->need = o->need;
    out_plan->unmet = o->unmet;
    out_plan->holds = false;
    *out_timeout = (uint64_t)(o->timeout_s * (double)SML_SECOND);
    return SEMEL_OK;
}

enum semel_status sml_exchange_begin(struct semel_exchange *exchange,
                                     const struct sml_event_wait_plan *plan, uint64_t timeout,
                                     struct sml_waiter *waiter, struct sml_event_wait **out_wait)
{
    struct sml_event_wait *wait;
    enum semel_status status = sml_event_wait_create(&wait, &exchange->machine, plan);
    uint64_t now;

    if (status != SEMEL_OK)
        return status;
    wait->user = waiter;
    sml_mutex_lock(&exchange->lock);
    now = sml_clock_now();
    if (timeout > 0 || plan->holds)
        status = sml_keeper_start_locked(exchange);
    if (status == SEMEL_OK)
        status = sml_exchange_start(&exchange->machine, wait, sml_time_add(now, timeout), now);
    if (status == SEMEL_OK) {
        if (out_wait)
            *out_wait = wait;
        if (waiter->cancelled)
            sml_exchange_cancel(&exchange->machine, wait, SEMEL_CANCELLED);
        (void)sml_keeper_attend_locked(exchange); /* it is there */
    }
    sml_exchange_leave(exchange);
    if (status != SEMEL_OK)
        sml_event_wait_free(wait);
    return status;
}

/* A thread that blocks; on its stack. */
struct sleeper {
    struct sml_waiter waiter;
    _Atomic(uint32_t) ended;
};

static void wake_sleeper(struct sml_waiter *waiter, struct sml_event_wait *wait)
{
    struct sleeper *sleeper = SML_CONTAINER(waiter, struct sleeper, waiter);

    (void)wait;
    atomic_store_explicit(&sleeper->ended, 1, memory_order_release);
    /* Its stack may be gone by now: an address that nobody sleeps on is woken in vain. */
    sml_futex_wake(&sleeper->ended, 1);
}

/* Until the wait has ended, by whomever. Its own deadline is seen to here. Once somebody else has
 * ended it, it only sleeps until it is told: to look again and again would keep the processor from
 * who tells it. */
static void sleep_until_ended(struct semel_exchange *exchange, struct sleeper *sleeper,
                              const struct sml_event_wait *wait, uint64_t deadline)
{
    while (atomic_load_explicit(&sleeper->ended, memory_order_acquire) == 0) {
        if (sml_futex_wait(&sleeper->ended, 0, deadline) != SML_FUTEX_TIMED_OUT)
            continue;
        sml_mutex_lock(&exchange->lock);
        sml_exchange_tick(&exchange->machine, sml_clock_now());
        if (wait->state != SML_EVENT_WAIT_WAITING)
            deadline = SML_NEVER;
        sml_exchange_leave(exchange);
    }
    sml_mutex_lock(&exchange->lock);
    if (--exchange->inside == 0)
        sml_cond_broadcast(&exchange->changed);
    sml_mutex_unlock(&exchange->lock);
}

/* The wait is new, and done afterwards if this returns OK. */
static enum semel_status wait_for(struct semel_exchange *exchange, struct sml_event_wait *wait,
                                  uint64_t timeout)
{
    struct sleeper sleeper = { { wake_sleeper, false }, 0 };
    enum semel_status status;
    uint64_t now, deadline;
    bool sleeps = false;

    wait->user = &sleeper.waiter;
    sml_mutex_lock(&exchange->lock);
    now = sml_clock_now();
    deadline = sml_time_add(now, timeout);
    status = sml_exchange_start(&exchange->machine, wait, deadline, now);
    if (status == SEMEL_OK) {
        sleeps = wait->state == SML_EVENT_WAIT_WAITING;
        exchange->inside += sleeps;
        if (!sleeps)
            sml_list_remove(&wait->link); /* done already: nobody has to be told */
    }
    sml_exchange_leave(exchange);
    if (sleeps)
        sleep_until_ended(exchange, &sleeper, wait, deadline);
    return status;
}

enum semel_status semel_exchange_wait(struct semel_exchange *exchange,
                                      const struct semel_bytes *ids, size_t count,
                                      const struct semel_wait_options *options,
                                      struct semel_events *out)
{
    static const struct semel_events none = { SEMEL_INVALID, 0, 0, NULL, NULL };
    enum semel_status status = sml_exchange_check(exchange);
    struct sml_event_wait_plan plan;
    struct sml_event_wait *wait;
    uint64_t timeout;

    if (out == NULL)
        return SEMEL_INVALID;
    *out = none;
    if (status == SEMEL_OK)
        status = sml_exchange_plan(exchange, ids, count, options, &plan, &timeout);
    if (status == SEMEL_OK && timeout > 0 && (sml_thread_in_loop() || sml_in_transaction()))
        status = SEMEL_WOULD_DEADLOCK;
    if (status == SEMEL_OK)
        status = sml_event_wait_create(&wait, &exchange->machine, &plan);
    if (status == SEMEL_OK) {
        status = wait_for(exchange, wait, timeout);
        if (status != SEMEL_OK)
            sml_event_wait_free(wait);
    }
    out->status = status;
    if (status == SEMEL_OK)
        sml_event_wait_result(wait, out);
    return out->status;
}

void semel_events_clear(struct semel_events *events)
{
    static const struct semel_events none;

    if (events == NULL)
        return;
    sml_event_wait_free(events->storage);
    *events = none;
}

void semel_exchange_counters(struct semel_exchange *exchange, struct semel_exchange_counters *out)
{
    if (sml_exchange_check(exchange) != SEMEL_OK || out == NULL)
        return;
    sml_mutex_lock(&exchange->lock);
    sml_exchange_tick(&exchange->machine, sml_clock_now());
    *out = exchange->machine.counters;
    sml_exchange_leave(exchange);
}
