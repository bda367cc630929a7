/* SPDX-License-Identifier: MIT */
/* exchange_topics.c - the ids that an exchange knows.
 *
 * Most ids live shortly: they are made for one question and its answer. Among a million others each
 * of these would touch memory that nobody has touched for long, twice, and that is what would cost:
 * several times more than all the rest. So there are two tables. The young ids are in a small one,
 * which stays in the processor's caches; an id that lives longer than a thousand others moves on to
 * the large one. And of each bucket of the large one there are marks: 16 bits, one of which is set
 * for each of its ids. They are a thousandth of everything, and tell mostly without a look at the
 * bucket that an id is not there.
 *
 * The large table grows by one bucket at a time. A table that doubles at once stops every trigger
 * while a million entries move. In linear hashing (W. Litwin, 1980; in memory, P.-A. Larson, 1988)
 * each new entry splits one bucket, the next in turn, and each entry that leaves joins the last one
 * with its buddy, so that no step costs more than a bucket, in both directions. Buckets live in
 * segments of a page, which come and go whole; only the lists of segments are ever copied.
 *
 * With 2^k <= buckets < 2^(k+1), a hash belongs to its low k+1 bits if there is such a bucket, else
 * to its low k bits. If there is no memory to grow, chains get longer, and that is all; if there is
 * none for the first bucket, the young ones stay where they are. */
#include "async/exchange_internal.h"

#include <string.h>

#include "base/check.h"

#define YOUNG 1024 /* as many ids are young */
#define YOUNG_BUCKETS 2048
#define SEGMENT 512 /* buckets: a page of pointers */
#define MARKS 2048  /* marks: a page of them */
#define ROOM_MIN 8

void sml_topics_init(struct sml_topics *topics, const struct sml_mem *mem)
{
    memset(topics, 0, sizeof *topics);
    topics->mem = mem;
    sml_list_init(&topics->by_age);
}

static uint32_t pages(uint32_t count, uint32_t page)
{
    return (count + page - 1) / page;
}

static void release(const struct sml_topics *topics, void *memory)
{
    if (memory)
        sml_release(topics->mem, memory);
}

void sml_topics_fini(struct sml_topics *topics)
{
    SML_ASSERT(topics->count == 0);
    for (uint32_t i = 0; i < pages(topics->buckets, SEGMENT); i++)
        release(topics, topics->segments[i]);
    for (uint32_t i = 0; i < pages(topics->buckets, MARKS); i++)
        release(topics, topics->marks[i]);
    release(topics, topics->segments);
    release(topics, topics->marks);
    release(topics, topics->young);
    sml_topics_init(topics, topics->mem);
}

static struct sml_topic **bucket(const struct sml_topics *topics, uint32_t index)
{
    return &topics->segments[index / SEGMENT][index % SEGMENT];
}

static uint16_t *marks(const struct sml_topics *topics, uint32_t index)
{
    return &topics->marks[index / MARKS][index % MARKS];
}

static uint16_t mark_of(uint64_t hash)
{
    return (uint16_t)(1 << (hash >> 60));
}

static struct sml_topic **young_bucket(const struct sml_topics *topics, uint64_t hash)
{
    return &topics->young[hash % YOUNG_BUCKETS];
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

static struct sml_topic *find_in(struct sml_topic *topic, uint64_t hash, struct semel_bytes id)
{
    for (; topic; topic = topic->next)
        if (topic->hash == hash && topic->id_bytes == id.size &&
            memcmp(topic->id, id.data, id.size) == 0)
            break;
    return topic;
}

struct sml_topic *sml_topics_find(const struct sml_topics *topics, uint64_t hash,
                                  struct semel_bytes id)
{
    struct sml_topic *found;
    uint32_t index;

    if (topics->count == 0)
        return NULL;
    found = find_in(*young_bucket(topics, hash), hash, id);
    if (found || topics->count == topics->young_count)
        return found;
    index = index_of(topics, hash);
    return *marks(topics, index) & mark_of(hash) ? find_in(*bucket(topics, index), hash, id) : NULL;
}

/* --- the large table grows and shrinks
 * ---------------------------------------------------------- */

/* A list of pages, `used` of them, with room for one more. */
static bool widen(const struct sml_topics *topics, void **list, uint32_t used, uint32_t *room)
{
    const uint32_t wider = *room ? *room * 2 : ROOM_MIN;
    void *copy;

    if (used < *room)
        return true;
    copy = sml_alloc(topics->mem, wider * sizeof(void *));
    if (copy == NULL)
        return false;
    if (used > 0)
        memcpy(copy, *list, used * sizeof(void *));
    release(topics, *list);
    *list = copy;
    *room = wider;
    return true;
}

static bool add_marks(struct sml_topics *topics)
{
    const uint32_t used = pages(topics->buckets, MARKS);
    void *list = topics->marks;
    bool wide;

    if (topics->buckets % MARKS != 0)
        return true;
    wide = widen(topics, &list, used, &topics->marks_room);
    topics->marks = list;
    if (!wide)
        return false;
    topics->marks[used] = sml_alloc(topics->mem, MARKS * sizeof **topics->marks);
    return topics->marks[used] != NULL;
}

static bool add_segment(struct sml_topics *topics)
{
    const uint32_t used = pages(topics->buckets, SEGMENT);
    void *list = topics->segments;
    bool wide;

    if (topics->buckets % SEGMENT != 0)
        return true;
    wide = widen(topics, &list, used, &topics->segments_room);
    topics->segments = list;
    if (!wide)
        return false;
    topics->segments[used] = sml_alloc(topics->mem, SEGMENT * sizeof **topics->segments);
    return topics->segments[used] != NULL;
}

/* One more bucket, empty. */
static bool add_bucket(struct sml_topics *topics)
{
    const uint32_t index = topics->buckets;

    if (index == UINT32_C(1) << 31 || !add_segment(topics))
        return false;
    if (!add_marks(topics)) {
        if (index % SEGMENT == 0)
            release(topics, topics->segments[index / SEGMENT]);
        return false;
    }
    topics->buckets++;
    *bucket(topics, index) = NULL;
    *marks(topics, index) = 0;
    return true;
}

static void put(struct sml_topics *topics, uint32_t index, struct sml_topic *topic)
{
    struct sml_topic **head = bucket(topics, index);

    topic->next = *head;
    *head = topic;
    *marks(topics, index) |= mark_of(topic->hash);
}

/* Which bucket the last one was split from; there are two or more. */
static uint32_t buddy_of_last(const struct sml_topics *topics)
{
    const uint32_t last = topics->buckets - 1;

    return last - base_of(last);
}

/* The topics of a bucket, which is empty then. */
static struct sml_topic *clear(struct sml_topics *topics, uint32_t index)
{
    struct sml_topic *all = *bucket(topics, index);

    *bucket(topics, index) = NULL;
    *marks(topics, index) = 0;
    return all;
}

static void put_all(struct sml_topics *topics, struct sml_topic *all)
{
    while (all) {
        struct sml_topic *next = all->next;

        put(topics, index_of(topics, all->hash), all);
        all = next;
    }
}

/* A new last bucket takes its part of its buddy's topics. */
static bool grow(struct sml_topics *topics)
{
    if (!add_bucket(topics))
        return false;
    if (topics->buckets > 1)
        put_all(topics, clear(topics, buddy_of_last(topics)));
    return true;
}

/* The last bucket's topics go back to its buddy. */
static void shrink(struct sml_topics *topics)
{
    const uint32_t last = topics->buckets - 1;
    struct sml_topic *all = clear(topics, last);

    topics->buckets--;
    put_all(topics, all);
    if (last % SEGMENT == 0)
        release(topics, topics->segments[last / SEGMENT]);
    if (last % MARKS == 0)
        release(topics, topics->marks[last / MARKS]);
}

/* Far below the load that grows it, so that a table whose count goes up and down stays as it is;
 * the first segment stays until fini. */
static bool is_sparse(const struct sml_topics *topics)
{
    return topics->buckets > SEGMENT && topics->count - topics->young_count < topics->buckets / 2;
}

/* --- topics
 * -------------------------------------------------------------------------------------- */

static void unlink_from(struct sml_topic **at, const struct sml_topic *topic)
{
    while (*at != topic)
        at = &(*at)->next;
    *at = topic->next;
}

/* The oldest of the young ones makes room, if there is any to go to. */
static void promote(struct sml_topics *topics)
{
    const uint32_t old_count = topics->count - topics->young_count;
    struct sml_topic *topic = SML_CONTAINER(topics->by_age.next, struct sml_topic, by_age);

    if (old_count >= topics->buckets && !grow(topics) && topics->buckets == 0)
        return;
    unlink_from(young_bucket(topics, topic->hash), topic);
    sml_list_remove(&topic->by_age);
    topics->young_count--;
    put(topics, index_of(topics, topic->hash), topic);
}

static bool make_young_buckets(struct sml_topics *topics)
{
    const size_t bytes = YOUNG_BUCKETS * sizeof *topics->young;

    if (topics->young)
        return true;
    topics->young = sml_alloc(topics->mem, bytes);
    if (topics->young)
        memset(topics->young, 0, bytes);
    return topics->young != NULL;
}

struct sml_topic *sml_topics_add(struct sml_topics *topics, uint64_t hash, struct semel_bytes id)
{
    struct sml_topic *topic, **head;

    if (!make_young_buckets(topics))
        return NULL;
    topic = sml_alloc(topics->mem, sizeof *topic + id.size);
    if (topic == NULL)
        return NULL;
    topic->hash = hash;
    topic->held = 0;
    topic->id_bytes = (uint8_t)id.size;
    memcpy(topic->id, id.data, id.size);
    sml_list_init(&topic->events);
    sml_list_init(&topic->line);
    sml_list_init(&topic->by_age);
    head = young_bucket(topics, hash);
    topic->next = *head;
    *head = topic;
    sml_list_push_back(&topics->by_age, &topic->by_age);
    topics->count++;
    topics->young_count++;
    for (int i = 0; i < 2 && topics->young_count > YOUNG; i++)
        promote(topics); /* two, where there was no memory for a while */
    return topic;
}

/* The marks of its bucket are those of the rest. */
static void remove_old(struct sml_topics *topics, struct sml_topic *topic)
{
    const uint32_t index = index_of(topics, topic->hash);
    uint16_t left = 0;

    unlink_from(bucket(topics, index), topic);
    for (struct sml_topic *other = *bucket(topics, index); other; other = other->next)
        left |= mark_of(other->hash);
    *marks(topics, index) = left;
    topics->count--;
    for (int i = 0; i < 2 && is_sparse(topics); i++)
        shrink(topics);
}

void sml_topics_trim(struct sml_topics *topics, struct sml_topic *topic)
{
    if (sml_topic_has_event(topic) || !sml_list_empty(&topic->line) || topic->held > 0)
        return;
    if (sml_list_linked(&topic->by_age)) {
        unlink_from(young_bucket(topics, topic->hash), topic);
        sml_list_remove(&topic->by_age);
        topics->young_count--;
        topics->count--;
    } else {
        remove_old(topics, topic);
    }
    sml_release(topics->mem, topic);
}

struct sml_topic *sml_topics_next(const struct sml_topics *topics, const struct sml_topic *topic)
{
    const struct sml_list *young = topic ? &topic->by_age : &topics->by_age;
    uint32_t index = 0;

    if ((!topic || sml_list_linked(&topic->by_age)) && young->next != &topics->by_age)
        return SML_CONTAINER(young->next, struct sml_topic, by_age);
    if (topic && !sml_list_linked(&topic->by_age)) {
        if (topic->next)
            return topic->next;
        index = index_of(topics, topic->hash) + 1;
    }
    for (; index < topics->buckets; index++)
        if (*bucket(topics, index))
            return *bucket(topics, index);
    return NULL;
}
