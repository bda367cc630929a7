/* SPDX-License-Identifier: MIT */
/* exchange_topics.c - the ids that an exchange knows: a table that grows by one bucket at a time.
 *
 * A table that doubles at once stops every trigger while a million entries move. In linear hashing
 * (W. Litwin, 1980; in memory, P.-A. Larson, 1988) each new entry splits one bucket, the next in
 * turn, and each entry that leaves joins the last one with its buddy, so that no step costs more
 * than a bucket, in both directions. Buckets live in segments of a page, which come and go whole;
 * only the list of segments is ever copied.
 *
 * With 2^k <= buckets < 2^(k+1), a hash belongs to its low k+1 bits if there is such a bucket, else
 * to its low k bits. If there is no memory to grow, chains get longer, and that is all. */
#include "async/exchange_internal.h"

#include <string.h>

#include "base/check.h"

#define SEGMENT 512 /* buckets: a page of pointers */
#define SEGMENTS_MIN 8

void sml_topics_init(struct sml_topics *topics, const struct sml_mem *mem)
{
    memset(topics, 0, sizeof *topics);
    topics->mem = mem;
}

static uint32_t segment_count(const struct sml_topics *topics)
{
    return (topics->buckets + SEGMENT - 1) / SEGMENT;
}

void sml_topics_fini(struct sml_topics *topics)
{
    SML_ASSERT(topics->count == 0);
    for (uint32_t i = 0; i < segment_count(topics); i++)
        sml_release(topics->mem, topics->segments[i]);
    if (topics->segments)
        sml_release(topics->mem, topics->segments);
    topics->segments = NULL;
    topics->segments_room = topics->buckets = 0;
}

static struct sml_topic **bucket(const struct sml_topics *topics, uint32_t index)
{
    return &topics->segments[index / SEGMENT][index % SEGMENT];
}

struct sml_topic *sml_topics_bucket(const struct sml_topics *topics, uint32_t index)
{
    return *bucket(topics, index);
}

/* The greatest power of two that is not above `buckets`, which is not 0. */
static uint32_t base_of(uint32_t buckets)
{
    return UINT32_C(1) << (31 - __builtin_clz(buckets));
}

static uint32_t index_of(const struct sml_topics *topics, uint64_t hash)
{
    const uint32_t base = base_of(topics->buckets);
    const uint32_t wide = (uint32_t)hash & (base * 2 - 1);

    return wide < topics->buckets ? wide : wide & (base - 1);
}

struct sml_topic *sml_topics_find(const struct sml_topics *topics, uint64_t hash,
                                  struct semel_bytes id)
{
    struct sml_topic *topic;

    if (topics->count == 0)
        return NULL;
    for (topic = *bucket(topics, index_of(topics, hash)); topic; topic = topic->next)
        if (topic->hash == hash && topic->id_bytes == id.size &&
            memcmp(topic->id, id.data, id.size) == 0)
            return topic;
    return NULL;
}

/* --- growing and shrinking -------------------------------------------------------------------- */

static bool room_for_segment(struct sml_topics *topics)
{
    const uint32_t used = segment_count(topics), old = topics->segments_room;
    const uint32_t room = old ? old * 2 : SEGMENTS_MIN;
    struct sml_topic ***wider;

    if (used < old)
        return true;
    wider = sml_alloc(topics->mem, room * sizeof *wider);
    if (wider == NULL)
        return false;
    if (used > 0)
        memcpy(wider, topics->segments, used * sizeof *wider);
    if (topics->segments)
        sml_release(topics->mem, topics->segments);
    topics->segments = wider;
    topics->segments_room = room;
    return true;
}

/* One more bucket, empty. */
static bool add_bucket(struct sml_topics *topics)
{
    const uint32_t index = topics->buckets;

    if (index % SEGMENT == 0) {
        struct sml_topic **segment;

        if (!room_for_segment(topics))
            return false;
        segment = sml_alloc(topics->mem, SEGMENT * sizeof *segment);
        if (segment == NULL)
            return false;
        topics->segments[index / SEGMENT] = segment;
    }
    topics->buckets++;
    *bucket(topics, index) = NULL;
    return true;
}

/* Which bucket the last one was split from; there are two or more. */
static uint32_t buddy_of_last(const struct sml_topics *topics)
{
    const uint32_t last = topics->buckets - 1;

    return last - base_of(last);
}

/* A new last bucket takes its half of its buddy's entries. */
static bool grow(struct sml_topics *topics)
{
    struct sml_topic **from, **to;
    uint32_t last;

    if (topics->buckets == UINT32_C(1) << 31 || !add_bucket(topics))
        return false;
    if (topics->buckets == 1)
        return true;
    last = topics->buckets - 1;
    from = bucket(topics, buddy_of_last(topics));
    to = bucket(topics, last);
    while (*from) {
        struct sml_topic *topic = *from;

        if (index_of(topics, topic->hash) != last) {
            from = &topic->next;
            continue;
        }
        *from = topic->next;
        topic->next = *to;
        *to = topic;
    }
    return true;
}

/* The last bucket's entries go back to its buddy. */
static void shrink(struct sml_topics *topics)
{
    const uint32_t last = topics->buckets - 1;
    struct sml_topic **end = bucket(topics, last > 0 ? buddy_of_last(topics) : 0);

    if (last > 0) {
        while (*end)
            end = &(*end)->next;
        *end = *bucket(topics, last);
    }
    topics->buckets--;
    if (last % SEGMENT == 0)
        sml_release(topics->mem, topics->segments[last / SEGMENT]);
}

/* Far below the load that grows it, so that a table whose count goes up and down stays as it is;
 * the first segment stays until fini. */
static bool is_sparse(const struct sml_topics *topics)
{
    return topics->buckets > SEGMENT && topics->count < topics->buckets / 2;
}

/* --- entries
 * ----------------------------------------------------------------------------------- */

struct sml_topic *sml_topics_add(struct sml_topics *topics, uint64_t hash, struct semel_bytes id)
{
    struct sml_topic *topic = sml_alloc(topics->mem, sizeof *topic + id.size), **at;

    if (topic == NULL)
        return NULL;
    if (topics->count >= topics->buckets && !grow(topics) && topics->buckets == 0) {
        sml_release(topics->mem, topic);
        return NULL;
    }
    topic->hash = hash;
    topic->held = 0;
    topic->id_bytes = (uint8_t)id.size;
    memcpy(topic->id, id.data, id.size);
    sml_list_init(&topic->events);
    sml_list_init(&topic->line);
    at = bucket(topics, index_of(topics, hash));
    topic->next = *at;
    *at = topic;
    topics->count++;
    return topic;
}

void sml_topics_trim(struct sml_topics *topics, struct sml_topic *topic)
{
    struct sml_topic **at;

    if (sml_topic_has_event(topic) || !sml_list_empty(&topic->line) || topic->held > 0)
        return;
    at = bucket(topics, index_of(topics, topic->hash));
    while (*at != topic)
        at = &(*at)->next;
    *at = topic->next;
    topics->count--;
    sml_release(topics->mem, topic);
    for (int i = 0; i < 2 && is_sparse(topics); i++)
        shrink(topics);
}
