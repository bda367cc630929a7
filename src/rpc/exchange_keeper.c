/* SPDX-License-Identifier: MIT */
/* exchange_keeper.c - the thread that keeps an exchange's time.
 *
 * Who blocks in a wait keeps its own time. Everything else needs somebody: events that expire while
 * nobody comes by, waits with a callback, waits of remote clients. One mechanism serves them all: a
 * thread that exists only while there is such a thing. The first event that is kept, or the first
 * such wait, starts it; once nothing was due for a while it leaves.
 *
 * Rejected: purging at the next operation only (an exchange that falls silent keeps its memory for
 * ever); the loop's timers (there may be no loop, and arming one takes the loop's thread); the
 * server's (there may be no server); one thread for all exchanges of a process (nothing in this
 * library is shared by all of a process: whoever forks, unloads or destroys would have to know of
 * the others).
 *
 * It costs little: it is woken only by what is due before it looks the next time. Events that are
 * taken soon after they came never are: it finds out when the first of them would have expired. */
#include "rpc/exchange_internal.h"

#include "os/clock.h"

#define LINGER_NS SML_SECOND

void sml_keeper_init(struct semel_exchange *exchange)
{
    sml_cond_init(&exchange->keeper.call);
    exchange->keeper.until = SML_NEVER;
}

void sml_keeper_fini(struct semel_exchange *exchange)
{
    sml_cond_fini(&exchange->keeper.call);
}

/* Is there anything for it now or some day? While events are held they may come back, and somebody
 * has to be told. */
static bool is_needed(const struct semel_exchange *exchange)
{
    const struct sml_exchange *machine = &exchange->machine;

    return sml_exchange_timeout(machine) != SML_NEVER || machine->counters.held > 0 ||
           sml_exchange_has_news(machine);
}

/* Sleep until something is due, or may be; lock held. */
static void rest(struct semel_exchange *exchange)
{
    uint64_t until = sml_exchange_timeout(&exchange->machine);

    if (!is_needed(exchange))
        until = sml_time_add(sml_clock_now(), LINGER_NS);
    exchange->keeper.until = until;
    (void)sml_cond_wait_until(&exchange->keeper.call, &exchange->lock, until);
    exchange->keeper.until = 0;
}

static void keep(void *arg)
{
    struct semel_exchange *exchange = arg;
    bool idle = false;

    sml_mutex_lock(&exchange->lock);
    while (!exchange->keeper.stop) {
        sml_exchange_tick(&exchange->machine, sml_clock_now());
        if (sml_exchange_has_news(&exchange->machine)) {
            sml_exchange_leave(exchange);
            sml_mutex_lock(&exchange->lock);
            continue;
        }
        if (idle && !is_needed(exchange))
            break; /* it was not needed before it rested, either */
        idle = !is_needed(exchange);
        rest(exchange);
    }
    exchange->keeper.runs = false;
    exchange->keeper.until = SML_NEVER;
    sml_mutex_unlock(&exchange->lock);
}

enum semel_status sml_keeper_start_locked(struct semel_exchange *exchange)
{
    enum semel_status status;

    sml_mutex_assert_held(&exchange->lock);
    if (exchange->keeper.runs || exchange->keeper.stop)
        return SEMEL_OK;
    if (exchange->keeper.exists)
        sml_thread_join(&exchange->keeper.thread); /* it has left the lock for good */
    exchange->keeper.exists = false;
    status = sml_thread_create(&exchange->keeper.thread, "semel-events", 0, keep, exchange);
    if (status != SEMEL_OK)
        return status;
    exchange->keeper.exists = exchange->keeper.runs = true;
    exchange->keeper.until = 0;
    return SEMEL_OK;
}

enum semel_status sml_keeper_attend_locked(struct semel_exchange *exchange)
{
    if (sml_exchange_timeout(&exchange->machine) >= exchange->keeper.until)
        return SEMEL_OK;
    if (!exchange->keeper.runs)
        return sml_keeper_start_locked(exchange);
    sml_keeper_call_locked(exchange);
    return SEMEL_OK;
}

void sml_keeper_call_locked(struct semel_exchange *exchange)
{
    exchange->keeper.until = 0;
    sml_cond_broadcast(&exchange->keeper.call);
}

void sml_keeper_stop(struct semel_exchange *exchange)
{
    bool exists;

    sml_mutex_lock(&exchange->lock);
    exchange->keeper.stop = true;
    exists = exchange->keeper.exists;
    exchange->keeper.exists = false;
    sml_cond_broadcast(&exchange->keeper.call);
    sml_mutex_unlock(&exchange->lock);
    if (exists)
        sml_thread_join(&exchange->keeper.thread);
}
