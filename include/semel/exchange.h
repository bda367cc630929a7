/* SPDX-License-Identifier: MIT */
/* exchange.h - wait for a set of named events.
 *
 * Somebody triggers an event: an id, and data. Somebody waits for a set of ids: for all of them,
 * for any, or for some number. It does not matter who comes first: an event that nobody takes is
 * kept for a while. A newer event of the same id takes the place of the older, and its age begins
 * anew.
 *
 * A wait is met when enough of its ids are there at one instant. Then their data are handed over in
 * the order in which they were asked for. In mode TAKE an event goes to one wait only, the first in
 * line that is met by it, and a wait takes no more than it needs; in mode KEEP every wait has it,
 * and those that come later, until its retention is over. A trigger costs as much as there are
 * waits for its id, whatever else waits.
 *
 * Retention is `max_ms` plus `grace_ms`; after that an event is gone, also from a wait that has not
 * been met yet. Time is monotonic. An exchange may be used from any thread; callbacks and deferreds
 * come on the loop that they were asked for on, blocking waits block. While something is kept, or
 * waits without a thread that blocks, a thread of the library keeps the time. */
#ifndef SEMEL_EXCHANGE_H
#define SEMEL_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <semel/bytes.h>
#include <semel/deferred.h>
#include <semel/loop.h>
#include <semel/status.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SEMEL_EVENT_ID_BYTES_MAX 255 /* of an id: any bytes, at least one */
#define SEMEL_EVENT_IDS_MAX 65536    /* of one wait */

struct semel_exchange; /* thread: any thread */
struct semel_wait;     /* a wait that was started; thread: any thread */

enum semel_delivery { SEMEL_EVENTS_TAKE, SEMEL_EVENTS_KEEP };

/* What a wait that is not met in time does with the events of it that are there: they are told in
 * both cases; LEAVE leaves them for others, TAKE takes them (in mode TAKE). */
enum semel_unmet { SEMEL_UNMET_TAKE, SEMEL_UNMET_LEAVE };

/* Zero everywhere selects the defaults. */
struct semel_exchange_options {
    enum semel_delivery delivery;
    int64_t max_ms;         /* how long an event is kept, 1 .. 2^31-1; default 60,000 */
    int64_t grace_ms;       /* and so much longer; 1 .. 2^31-1; negative: none; default 10,000 */
    int64_t timeout_max_ms; /* longest timeout of a wait, 1 .. 2^31-1; default 3,600,000 */
    uint32_t events;        /* most that may be kept; default 1,048,576 */
    uint64_t bytes;         /* of data, most that may be kept; default 1 GiB */
    uint32_t waits;         /* most at once; default 1,048,576 */
    uint32_t wait_ids;      /* most that all of them may name together; default 4,194,304 */
};
#define SEMEL_EXCHANGE_OPTIONS_INIT { SEMEL_EVENTS_TAKE, 0, 0, 0, 0, 0, 0, 0 }

/* out: owned by caller. options: borrowed; NULL for the defaults. Returns: OK; INVALID; NO_MEMORY,
 * SYSTEM, LIMIT. Thread: any thread. Blocks: no. Since: 0.3 */
SEMEL_API enum semel_status semel_exchange_create(struct semel_exchange **out,
                                                  const struct semel_exchange_options *options)
    SEMEL_MUST_USE;

/* Every wait ends with STOPPED, later calls are STOPPED, what is kept is let go. Twice is fine.
 * Thread: any thread. Blocks: no. Since: 0.3 */
SEMEL_API void semel_exchange_close(struct semel_exchange *exchange);

/* Close it, and free it once nobody is inside any more: waits for threads that block in it, not for
 * callbacks that are yet to run. NULL is fine. Returns: OK; WOULD_DEADLOCK: in a `drop` that it
 * called, and nothing was done; FORKED. Thread: any thread. Blocks: shortly. Since: 0.3 */
SEMEL_API enum semel_status semel_exchange_destroy(struct semel_exchange *exchange) SEMEL_MUST_USE;

/* An event: `data` is copied, or, with `drop`, moved on OK: drop(data.data, user) is called once
 * when nobody needs it any more, on any thread, under no lock. Returns: OK; INVALID (the id, or
 * data NULL with a size); OVERLOADED: no more can be kept; NO_MEMORY; STOPPED; FORKED. Thread: any
 * thread. Blocks: no. Since: 0.3 */
SEMEL_API enum semel_status semel_exchange_trigger(struct semel_exchange *exchange,
                                                   struct semel_bytes id, struct semel_bytes data)
    SEMEL_MUST_USE;
SEMEL_API enum semel_status semel_exchange_trigger_moved(struct semel_exchange *exchange,
                                                         struct semel_bytes id,
                                                         struct semel_bytes data,
                                                         void (*drop)(const void *data, void *user),
                                                         void *user) SEMEL_MUST_USE;

/* One event of a wait's result. */
struct semel_event {
    struct semel_bytes id;
    struct semel_bytes data;
    bool there; /* false: it was missing when the wait ended, or not needed; data is empty */
};

/* How a wait ended. status OK: it is met; DEADLINE: not in time; CANCELLED; STOPPED. events: in the
 * order asked for, an id that was named twice twice. All is owned by the result. */
struct semel_events {
    enum semel_status status;
    size_t count;
    size_t there; /* so many of them are there */
    struct semel_event *events;
    void *storage;
};

/* Free it; it is then as a zeroed one. NULL is fine. Thread: any thread. Since: 0.3 */
SEMEL_API void semel_events_clear(struct semel_events *events);

struct semel_wait_options {
    size_t need;            /* so many different ids; 0: all; more than there are is INVALID */
    double timeout_s;       /* 0: only what is there now; at most timeout_max_ms; NaN, negative ones
                               and more are INVALID */
    enum semel_unmet unmet; /* default TAKE */
};
#define SEMEL_WAIT_OPTIONS_INIT { 0, 10.0, SEMEL_UNMET_TAKE }

/* Wait for `count` ids (0 of them is met at once), borrowed. options: borrowed; NULL for those of
 * SEMEL_WAIT_OPTIONS_INIT. out: owned by caller: semel_events_clear. Returns: out->status; or, and
 * *out is empty: INVALID, OVERLOADED, NO_MEMORY, WOULD_DEADLOCK (on a loop's thread, unless the
 * timeout is 0), STOPPED, FORKED: nothing was registered. Thread: any thread. Blocks: up to the
 * timeout. Since: 0.3 */
SEMEL_API enum semel_status semel_exchange_wait(struct semel_exchange *exchange,
                                                const struct semel_bytes *ids, size_t count,
                                                const struct semel_wait_options *options,
                                                struct semel_events *out) SEMEL_MUST_USE;

/* The wait's end; what is in `events` is the callback's, to be cleared by it. */
typedef void (*semel_events_fn)(struct semel_events *events, void *user);

/* The same, by a callback on the loop's thread: exactly once if this returns OK, and not from
 * within this call. loop: lent until fn begins. out: may be NULL; else the wait, set before fn can
 * begin and valid until then. Returns: OK; as above, and LIMIT. Thread: any thread. Blocks: no.
 * Since: 0.3 */
SEMEL_API enum semel_status semel_exchange_start(struct semel_exchange *exchange,
                                                 const struct semel_bytes *ids, size_t count,
                                                 const struct semel_wait_options *options,
                                                 struct semel_loop *loop, semel_events_fn fn,
                                                 void *user, struct semel_wait **out)
    SEMEL_MUST_USE;

/* End it with CANCELLED, unless it has ended: what it would have taken is left. Thread: any thread,
 * at a time when fn cannot begin meanwhile: the loop's, or before. Blocks: no. Since: 0.3 */
SEMEL_API void semel_wait_cancel(struct semel_wait *wait);

/* The same as a deferred of the loop, owned by caller. Its value is a struct semel_events of status
 * OK, freed with it; it fails with DEADLINE and the like, then what was there is lost in mode TAKE,
 * unless `unmet` is LEAVE. Cancelling it cancels the wait. Returns: as semel_exchange_start;
 * DENIED: not the loop's thread. Thread: loop thread. Blocks: no. Since: 0.3 */
SEMEL_API enum semel_status semel_exchange_defer(struct semel_exchange *exchange,
                                                 const struct semel_bytes *ids, size_t count,
                                                 const struct semel_wait_options *options,
                                                 struct semel_loop *loop,
                                                 struct semel_deferred **out) SEMEL_MUST_USE;

/* Kept from the beginning, but for the first four, which are now. */
struct semel_exchange_counters {
    uint64_t events, bytes, waits; /* held ones are among the events */
    uint64_t held;                 /* on their way to a remote client */
    uint64_t triggered, overwritten, expired, returned;
    uint64_t met, unmet, cancelled; /* waits; those that were stopped are among the cancelled */
};

/* Thread: any thread. Blocks: no. Since: 0.3 */
SEMEL_API void semel_exchange_counters(struct semel_exchange *exchange,
                                       struct semel_exchange_counters *out);

/* --- over the network
 * -------------------------------------------------------------------------- */

struct semel_server;

/* Export the exchange by a server, as methods `semel.trigger` and `semel.wait`: see docs/ASYNC.md.
 * A wait that is met is delivered once, also if its connection breaks; if its receiver gives up or
 * its session ends without accepting it, its events return to the exchange, at the head of their
 * ids, as old as they were when they left. exchange: lent until the server is destroyed. Returns:
 * OK; as semel_server_export. Thread: any thread, before the server starts. Blocks: no.
 * Since: 0.3 */
SEMEL_API enum semel_status semel_server_export_exchange(struct semel_server *server,
                                                         struct semel_exchange *exchange)
    SEMEL_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
