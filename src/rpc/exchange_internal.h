/* SPDX-License-Identifier: MIT */
/* exchange_internal.h - shared by exchange*.c only.
 *
 * The lock guards the machine and the keeper's record. Whatever an operation ended is taken off the
 * machine's lists under the lock and told after it is released: sml_exchange_leave. */
#ifndef SML_RPC_EXCHANGE_INTERNAL_H
#define SML_RPC_EXCHANGE_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <semel/exchange.h>

#include "async/exchange.h"
#include "base/list.h"
#include "os/mutex.h"
#include "os/process.h"
#include "os/thread.h"

/* Somebody whose wait ends: sml_event_wait.user. */
struct sml_waiter {
    /* Any thread, no lock held. The wait is the waiter's from here on. */
    void (*ended)(struct sml_waiter *waiter, struct sml_event_wait *wait);
    bool cancelled; /* perhaps before it began; under the lock */
};

struct semel_exchange {
    struct sml_origin origin;
    uint64_t timeout_max; /* ns */
    _Atomic(uint32_t) refs;
    struct sml_mutex lock;
    struct sml_cond changed; /* for destroy: fewer are inside */

    /* Under the lock. */
    struct sml_exchange machine;
    uint32_t inside;          /* threads that block in a wait */
    struct sml_list droppers; /* threads that are letting events go */
    struct {
        struct sml_thread thread;
        struct sml_cond call;
        bool exists; /* the thread is to be joined */
        bool runs;   /* and has not left */
        bool stop;
        uint64_t until; /* it looks at the clock then; 0: it is awake */
    } keeper;
};

/* OK; INVALID, FORKED. */
enum semel_status sml_exchange_check(const struct semel_exchange *exchange);
/* What the caller asked for. OK; INVALID. */
enum semel_status sml_exchange_plan(const struct semel_exchange *exchange,
                                    const struct semel_bytes *ids, size_t count,
                                    const struct semel_wait_options *options,
                                    struct sml_event_wait_plan *out_plan, uint64_t *out_timeout);

/* Lock released; who waited is told, and events that nobody needs are let go. */
void sml_exchange_leave(struct semel_exchange *exchange);
/* The same, but telling is left to the keeper: for callers that hold other locks. */
void sml_exchange_leave_to_keeper(struct semel_exchange *exchange);

/* Start a wait that blocks no thread. On OK waiter->ended follows, perhaps before this returns.
 * *out_wait, where it is not NULL, is set before that. Returns: OK; INVALID, OVERLOADED, NO_MEMORY,
 * STOPPED, LIMIT. */
enum semel_status sml_exchange_begin(struct semel_exchange *exchange,
                                     const struct sml_event_wait_plan *plan, uint64_t timeout,
                                     struct sml_waiter *waiter, struct sml_event_wait **out_wait);

/* An exchange that was destroyed is freed with its last reference. */
struct semel_exchange *sml_exchange_ref(struct semel_exchange *exchange);
void sml_exchange_unref(struct semel_exchange *exchange);

/* exchange_keeper.c */

void sml_keeper_init(struct semel_exchange *exchange);
void sml_keeper_fini(struct semel_exchange *exchange);
/* The machine may have something to do earlier than before; lock held. OK; LIMIT, NO_MEMORY: there
 * is no thread to keep the time. */
enum semel_status sml_keeper_attend_locked(struct semel_exchange *exchange);
/* There is one that sees what becomes due from now on; lock held. As above. */
enum semel_status sml_keeper_start_locked(struct semel_exchange *exchange);
/* What the machine has ended is the keeper's to tell; lock held. */
void sml_keeper_call_locked(struct semel_exchange *exchange);
/* End it; no lock held, and not the keeper itself. */
void sml_keeper_stop(struct semel_exchange *exchange);

#endif
