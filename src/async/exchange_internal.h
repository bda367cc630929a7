/* SPDX-License-Identifier: MIT */
/* exchange_internal.h - shared by exchange*.c only. */
#ifndef SML_ASYNC_EXCHANGE_INTERNAL_H
#define SML_ASYNC_EXCHANGE_INTERNAL_H

#include "async/exchange.h"

/* An id that has an event, is waited for, or has an event that is held; nothing else is known of
 * ids. */
struct sml_topic {
    struct sml_topic *next; /* in its bucket */
    struct sml_list by_age; /* while it is young */
    uint64_t hash;
    struct sml_list events; /* stored ones, by number: given back ones, then the fresh one */
    struct sml_list line;   /* mentions, in the order in which their waits began */
    uint32_t held;          /* events of it that are held */
    uint8_t id_bytes;
    uint8_t id[];
};

void sml_topics_init(struct sml_topics *topics, const struct sml_mem *mem);
void sml_topics_fini(struct sml_topics *topics);
/* NULL: it is not there. */
struct sml_topic *sml_topics_find(const struct sml_topics *topics, uint64_t hash,
                                  struct semel_bytes id);
/* It is not there. NULL: no memory. */
struct sml_topic *sml_topics_add(struct sml_topics *topics, uint64_t hash, struct semel_bytes id);
/* Free it if nothing keeps it. */
void sml_topics_trim(struct sml_topics *topics, struct sml_topic *topic);
/* The next after `topic`, in no particular order; the first after NULL. For walks in tests:
 * slow. */
struct sml_topic *sml_topics_next(const struct sml_topics *topics, const struct sml_topic *topic);

static inline bool sml_topic_has_event(const struct sml_topic *topic)
{
    return !sml_list_empty(&topic->events);
}

#endif
