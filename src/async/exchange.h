/* SPDX-License-Identifier: MIT */
/* exchange.h - events by name, and waits for sets of them. Pure.
 *
 * Time and memory are arguments; what has ended comes out as two lists. `done` holds waits that
 * ended: the shell takes them with sml_exchange_next_done and tells whoever waits. `spent` holds
 * events that the exchange needs no more: the shell takes them with sml_exchange_next_spent and
 * lets go of them outside its lock, since that may call the application.
 *
 * An event's way:  stored -> taken by a wait, or expired, or overwritten
 * and with a wait that holds:  stored -> held -> accepted, or given back -> stored
 * While it is held an event counts in the bounds, its age stands still, and its id stays known, so
 * that giving it back cannot fail. */
#ifndef SML_ASYNC_EXCHANGE_H
#define SML_ASYNC_EXCHANGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <semel/exchange.h>

#include "base/agenda.h"
#include "base/compiler.h"
#include "base/list.h"
#include "base/mem.h"

struct sml_topic;

/* The table of ids: exchange_topics.c. */
struct sml_topics {
    const struct sml_mem *mem;
    uint32_t count;
    /* The young ones. */
    struct sml_topic **young; /* NULL until there is one */
    struct sml_list by_age;
    uint32_t young_count;
    /* The others. */
    struct sml_topic ***segments;
    uint16_t **marks;
    uint32_t segments_room, marks_room; /* pointers that fit into these */
    uint32_t buckets;
};

/* An event, shared by the exchange and the results that tell it. */
struct sml_event {
    atomic_uint refs;
    bool fresh; /* the newest of its id, which a newer one overwrites */
    const struct sml_mem *mem;
    struct semel_bytes data; /* behind the event if it was copied */
    void (*drop)(const void *data, void *user);
    void *drop_user;
    struct sml_topic *topic;
    struct sml_list link;       /* in its topic, or in `spent` */
    struct sml_agenda_node age; /* key: when it expires; kept while it is held */
    uint64_t number;            /* of its trigger */
    uint64_t held_at;
};

/* One reference. Copied, or with `drop` moved. NULL: no memory, and nothing was moved. Takes no
 * lock of the exchange. */
struct sml_event *sml_event_create(const struct sml_mem *mem, struct semel_bytes data,
                                   void (*drop)(const void *data, void *user), void *user);
/* The last one frees it and calls `drop`. Any thread. */
void sml_event_unref(struct sml_event *event);
/* It was not taken: as sml_event_unref, but data that was to be moved stays the caller's. */
void sml_event_discard(struct sml_event *event);

/* What a wait knows of one of its ids. */
struct sml_mention {
    struct sml_list link; /* in its topic, while the wait waits */
    struct sml_event_wait *wait;
    struct sml_topic *topic; /* NULL when it does not wait, or has not looked */
    struct semel_bytes id;   /* behind the wait */
    uint64_t hash;
    struct sml_event *event; /* what the result tells of it */
};

enum sml_event_wait_state {
    SML_EVENT_WAIT_NEW,
    SML_EVENT_WAIT_WAITING,
    SML_EVENT_WAIT_DONE,   /* in `done`, or with the shell */
    SML_EVENT_WAIT_HOLDING /* the same, and its events are held for it */
};

struct sml_event_wait {
    enum sml_event_wait_state state;
    enum semel_status status; /* once it is done */
    enum semel_unmet unmet;
    bool holds;        /* what it takes is to be accepted or given back */
    uint32_t count;    /* ids, as they were asked for */
    uint32_t distinct; /* mentions */
    uint32_t need, present, there;
    struct sml_list link;         /* waiting, done, or out */
    struct sml_agenda_node timer; /* key: its deadline */
    uint64_t deadline;            /* SML_NEVER: none */
    const struct sml_mem *mem;
    void *user;                  /* the shell's */
    struct semel_event *results; /* count of them */
    uint32_t *which;             /* count of them: the mention of each id asked for */
    struct sml_mention mentions[];
};

struct sml_event_wait_plan {
    const struct semel_bytes *ids;
    size_t count;
    size_t need; /* 0: all */
    enum semel_unmet unmet;
    bool holds;
};

struct sml_exchange_limits {
    enum semel_delivery delivery;
    uint64_t retention; /* ns */
    uint32_t events;
    uint64_t bytes;
    uint32_t waits;
    uint32_t wait_ids;
};

struct sml_exchange {
    const struct sml_mem *mem;
    struct sml_exchange_limits limits;
    uint8_t hash_key[16];
    bool closed;
    struct sml_topics topics;
    struct sml_agenda ages;     /* of stored events */
    struct sml_agenda timeouts; /* of waiting waits */
    struct sml_list waiting;
    struct sml_list done;
    struct sml_list spent;
    uint64_t numbers;
    uint64_t wait_ids; /* named by waiting waits */
    struct semel_exchange_counters counters;
};

void sml_exchange_init(struct sml_exchange *exchange, const struct sml_mem *mem,
                       const struct sml_exchange_limits *limits, const uint8_t hash_key[16]);
/* It is closed, `done` and `spent` are empty, and nothing is held. */
void sml_exchange_fini(struct sml_exchange *exchange);

/* A wait that is not registered yet. The ids are copied; the memory for its result is part of it,
 * so that no wait fails to end for want of memory. Reads nothing of the exchange that changes:
 * takes no lock. Returns: OK; INVALID (an id, their number, more needed than there are different
 * ones); NO_MEMORY. */
enum semel_status sml_event_wait_create(struct sml_event_wait **out,
                                        const struct sml_exchange *exchange,
                                        const struct sml_event_wait_plan *plan) SML_MUST_USE;
/* It is new, or done and nothing is held. Lets go of its events. Any thread. NULL is fine. */
void sml_event_wait_free(struct sml_event_wait *wait);
/* What it ended with; `storage` is the wait. */
void sml_event_wait_result(struct sml_event_wait *wait, struct semel_events *out);

/* event: moved on OK. Returns: OK; INVALID (the id); OVERLOADED; NO_MEMORY; STOPPED. */
enum semel_status sml_exchange_trigger(struct sml_exchange *exchange, struct semel_bytes id,
                                       struct sml_event *event, uint64_t now) SML_MUST_USE;

/* The wait waits until `deadline`, or is done at once: look at its state. If the deadline has
 * passed it is done at once in any case. Returns: OK; OVERLOADED, NO_MEMORY, STOPPED: it is still
 * new. */
enum semel_status sml_exchange_start(struct sml_exchange *exchange, struct sml_event_wait *wait,
                                     uint64_t deadline, uint64_t now) SML_MUST_USE;

/* End it with `why`, CANCELLED or STOPPED, if it still waits. */
void sml_exchange_cancel(struct sml_exchange *exchange, struct sml_event_wait *wait,
                         enum semel_status why);

/* What was held for the wait has arrived; or it has not, and goes back. Either way the wait has it
 * no more. Harmless otherwise. */
void sml_exchange_accept(struct sml_exchange *exchange, struct sml_event_wait *wait);
void sml_exchange_give_back(struct sml_exchange *exchange, struct sml_event_wait *wait,
                            uint64_t now);

/* End every wait; drop every event; no more of either. */
void sml_exchange_close(struct sml_exchange *exchange);

/* When sml_exchange_tick has something to do; SML_NEVER. Every operation that is told the time
 * ticks first. */
uint64_t sml_exchange_timeout(const struct sml_exchange *exchange);
void sml_exchange_tick(struct sml_exchange *exchange, uint64_t now);

/* Is there anything in `done` or `spent`? */
static inline bool sml_exchange_has_news(const struct sml_exchange *exchange)
{
    return !sml_list_empty(&exchange->done) || !sml_list_empty(&exchange->spent);
}

/* The next of its list, taken off it; NULL. Of a spent event the reference comes along. */
struct sml_event_wait *sml_exchange_next_done(struct sml_exchange *exchange);
struct sml_event *sml_exchange_next_spent(struct sml_exchange *exchange);

#endif
