/* SPDX-License-Identifier: MIT */
/* exchange.c - who gets an event, and when. The records are made in exchange_records.c, ids are
 * looked up in exchange_topics.c.
 *
 * Invariants, whenever no function is running:
 *  - a wait's `present` is the number of its ids that have an event, and is below `need`: whoever
 *    is met does not wait. So a second event of an id, or one more on its way back, wakes nobody;
 *  - only the last event of a topic may be fresh, and is the one that the next trigger overwrites.
 *    An event that was given back is not overwritten: it had been delivered, before the newer one
 *    came, to somebody who could not have it;
 *  - counters.events and .bytes count stored and held events; every event in a topic is in `ages`;
 *  - a topic exists while it has an event, a line, or an event that is held.
 *
 * Cost. A trigger looks at the line of its own id and at nothing else. In mode TAKE the first in
 * the line that is met gets the event as it comes: it is not stored, and the others are not
 * touched. What a wait takes from its other ids lowers `present` of the waits in their lines: each
 * of these was raised before by a trigger of that id, which is what pays.
 *
 * Time. What fell due between two calls happens in the order in which it fell due, so that a shell
 * that ticks late tells the same as one that ticks in time. An event goes before a wait whose
 * deadline is the same instant. */
#include "async/exchange.h"

#include <string.h>

#include "async/exchange_internal.h"
#include "base/check.h"
#include "base/siphash.h"
#include "base/time.h"

void sml_exchange_init(struct sml_exchange *exchange, const struct sml_mem *mem,
                       const struct sml_exchange_limits *limits, const uint8_t hash_key[16])
{
    memset(exchange, 0, sizeof *exchange);
    exchange->mem = mem;
    exchange->limits = *limits;
    memcpy(exchange->hash_key, hash_key, sizeof exchange->hash_key);
    sml_topics_init(&exchange->topics, mem);
    sml_agenda_init(&exchange->ages);
    sml_agenda_init(&exchange->timeouts);
    sml_list_init(&exchange->waiting);
    sml_list_init(&exchange->done);
    sml_list_init(&exchange->spent);
}

void sml_exchange_fini(struct sml_exchange *exchange)
{
    SML_ASSERT(exchange->closed && exchange->counters.events == 0 && exchange->counters.waits == 0);
    SML_ASSERT(sml_list_empty(&exchange->done) && sml_list_empty(&exchange->spent));
    sml_topics_fini(&exchange->topics);
}

static bool takes(const struct sml_exchange *exchange)
{
    return exchange->limits.delivery == SEMEL_EVENTS_TAKE;
}

static struct sml_mention *mention_of(struct sml_list *link)
{
    return SML_CONTAINER(link, struct sml_mention, link);
}

static struct sml_event *event_of(struct sml_list *link)
{
    return SML_CONTAINER(link, struct sml_event, link);
}

/* --- events
 * ------------------------------------------------------------------------------------ */

static void count(struct sml_exchange *exchange, const struct sml_event *event)
{
    exchange->counters.events++;
    exchange->counters.bytes += event->data.size;
}

static void uncount(struct sml_exchange *exchange, const struct sml_event *event)
{
    exchange->counters.events--;
    exchange->counters.bytes -= event->data.size;
}

static void spend(struct sml_exchange *exchange, struct sml_event *event)
{
    uncount(exchange, event);
    event->topic = NULL;
    sml_list_push_back(&exchange->spent, &event->link);
}

/* May it be kept in the place of `old`, which may be NULL? */
static bool has_room(const struct sml_exchange *exchange, const struct sml_event *event,
                     const struct sml_event *old)
{
    const uint64_t events = exchange->counters.events - (old != NULL);
    const uint64_t bytes = exchange->counters.bytes - (old ? old->data.size : 0);

    return events < exchange->limits.events && bytes <= exchange->limits.bytes &&
           event->data.size <= exchange->limits.bytes - bytes;
}

/* Among the events of its topic, by number. Those that come back do so mostly at one of the
 * ends. */
static void put_in_order(struct sml_topic *topic, struct sml_event *event)
{
    struct sml_list *at = &topic->events;

    if (sml_topic_has_event(topic) && event->number < event_of(at->next)->number)
        at = at->next;
    else
        while (at->prev != &topic->events && event_of(at->prev)->number > event->number)
            at = at->prev;
    sml_list_insert_before(at, &event->link);
}

/* Its id had none: what waits for it has one more. In mode KEEP that may be enough; in mode TAKE it
 * is not, or the event would have been given away. */
static void raise(struct sml_exchange *exchange, struct sml_topic *topic, uint64_t now);

static void store(struct sml_exchange *exchange, struct sml_event *event, uint64_t expires,
                  uint64_t now)
{
    struct sml_topic *topic = event->topic;
    bool first = !sml_topic_has_event(topic);

    put_in_order(topic, event);
    sml_agenda_add(&exchange->ages, &event->age, expires);
    if (first)
        raise(exchange, topic, now);
}

/* Out of its topic; the waits that have counted on it have one less. */
static void unstore(struct sml_exchange *exchange, struct sml_event *event)
{
    struct sml_topic *topic = event->topic;
    struct sml_list *node;

    sml_list_remove(&event->link);
    sml_agenda_remove(&exchange->ages, &event->age);
    if (sml_topic_has_event(topic))
        return;
    for (node = topic->line.next; node != &topic->line; node = node->next)
        mention_of(node)->wait->present--;
}

/* A newer one takes its place, so that no wait has one less. */
static void overwrite(struct sml_exchange *exchange, struct sml_event *old)
{
    sml_list_remove(&old->link);
    sml_agenda_remove(&exchange->ages, &old->age);
    spend(exchange, old);
    exchange->counters.overwritten++;
}

static void drop(struct sml_exchange *exchange, struct sml_event *event)
{
    struct sml_topic *topic = event->topic;

    unstore(exchange, event);
    spend(exchange, event);
    sml_topics_trim(&exchange->topics, topic);
}

/* --- the end of a wait
 * ------------------------------------------------------------------------- */

/* The event is the wait's. */
static void hand_over(struct sml_exchange *exchange, struct sml_mention *mention,
                      struct sml_event *event, uint64_t now)
{
    mention->event = event;
    mention->wait->there++;
    if (mention->wait->holds) {
        event->held_at = now;
        event->topic->held++;
        exchange->counters.held++;
    } else {
        uncount(exchange, event);
        event->topic = NULL;
    }
}

/* What is there of its ids becomes its result, in the order asked for, until there are `most`. */
static void collect(struct sml_exchange *exchange, struct sml_event_wait *wait, uint32_t most,
                    bool take, uint64_t now)
{
    for (uint32_t i = 0; i < wait->distinct && wait->there < most; i++) {
        struct sml_mention *mention = &wait->mentions[i];
        struct sml_event *event;

        if (mention->event || !mention->topic || !sml_topic_has_event(mention->topic))
            continue;
        event = event_of(mention->topic->events.next);
        if (take) {
            unstore(exchange, event);
            hand_over(exchange, mention, event, now);
        } else {
            atomic_fetch_add_explicit(&event->refs, 1, memory_order_relaxed);
            mention->event = event;
            wait->there++;
        }
    }
}

static void leave_topics(struct sml_exchange *exchange, struct sml_event_wait *wait)
{
    for (uint32_t i = 0; i < wait->distinct; i++) {
        struct sml_mention *mention = &wait->mentions[i];

        sml_list_remove(&mention->link);
        if (mention->topic)
            sml_topics_trim(&exchange->topics, mention->topic);
        mention->topic = NULL;
    }
}

static void end(struct sml_exchange *exchange, struct sml_event_wait *wait,
                enum semel_status status, bool took)
{
    struct semel_exchange_counters *counters = &exchange->counters;

    if (wait->state == SML_EVENT_WAIT_WAITING) {
        counters->waits--;
        exchange->wait_ids -= wait->distinct;
        sml_agenda_remove(&exchange->timeouts, &wait->timer);
    }
    leave_topics(exchange, wait);
    wait->state =
        took && wait->holds && wait->there > 0 ? SML_EVENT_WAIT_HOLDING : SML_EVENT_WAIT_DONE;
    wait->status = status;
    sml_list_remove(&wait->link);
    sml_list_push_back(&exchange->done, &wait->link);
    if (status == SEMEL_OK)
        counters->met++;
    else if (status == SEMEL_DEADLINE)
        counters->unmet++;
    else
        counters->cancelled++;
}

/* In mode TAKE it takes what it needs and no more, so that nothing is lost to those who wait on. */
static void meet(struct sml_exchange *exchange, struct sml_event_wait *wait, uint64_t now)
{
    const bool take = takes(exchange);

    collect(exchange, wait, take ? wait->need : wait->distinct, take, now);
    end(exchange, wait, SEMEL_OK, take);
}

static void give_up(struct sml_exchange *exchange, struct sml_event_wait *wait, uint64_t now)
{
    const bool take = takes(exchange) && wait->unmet == SEMEL_UNMET_TAKE;

    collect(exchange, wait, wait->distinct, take, now);
    end(exchange, wait, SEMEL_DEADLINE, take);
}

static void raise(struct sml_exchange *exchange, struct sml_topic *topic, uint64_t now)
{
    struct sml_list *node, *next;

    for (node = topic->line.next; node != &topic->line; node = next) {
        struct sml_event_wait *wait = mention_of(node)->wait;

        next = node->next;
        if (++wait->present >= wait->need)
            meet(exchange, wait, now);
    }
}

/* --- triggers
 * ---------------------------------------------------------------------------------- */

/* The first in line that one more event of the topic, which has none, would meet. */
static struct sml_mention *first_met(const struct sml_topic *topic)
{
    struct sml_list *node;

    for (node = topic->line.next; node != &topic->line; node = node->next)
        if (mention_of(node)->wait->present + 1 >= mention_of(node)->wait->need)
            return mention_of(node);
    return NULL;
}

static struct sml_mention *winner_of(const struct sml_exchange *exchange,
                                     const struct sml_topic *topic)
{
    return takes(exchange) && !sml_topic_has_event(topic) ? first_met(topic) : NULL;
}

/* An event that is counted and not stored goes to whoever it meets, or is stored. */
static void deliver(struct sml_exchange *exchange, struct sml_event *event, uint64_t expires,
                    uint64_t now)
{
    struct sml_mention *winner = winner_of(exchange, event->topic);

    if (winner == NULL) {
        store(exchange, event, expires, now);
        return;
    }
    event->age.heap.key = expires;
    hand_over(exchange, winner, event, now);
    meet(exchange, winner->wait, now);
}

/* What a trigger overwrites; NULL. */
static struct sml_event *fresh_of(const struct sml_topic *topic)
{
    struct sml_event *last;

    if (!sml_topic_has_event(topic))
        return NULL;
    last = event_of(topic->events.prev);
    return last->fresh ? last : NULL;
}

enum semel_status sml_exchange_trigger(struct sml_exchange *exchange, struct semel_bytes id,
                                       struct sml_event *event, uint64_t now)
{
    struct sml_topic *topic;
    struct sml_mention *winner;
    struct sml_event *old;
    uint64_t hash;

    if (id.data == NULL || id.size == 0 || id.size > SEMEL_EVENT_ID_BYTES_MAX)
        return SEMEL_INVALID;
    sml_exchange_tick(exchange, now);
    if (exchange->closed)
        return SEMEL_STOPPED;
    hash = sml_siphash(exchange->hash_key, id.data, id.size);
    topic = sml_topics_find(&exchange->topics, hash, id);
    if (topic == NULL)
        topic = sml_topics_add(&exchange->topics, hash, id);
    if (topic == NULL)
        return SEMEL_NO_MEMORY;
    winner = winner_of(exchange, topic);
    old = fresh_of(topic);
    if ((winner == NULL || winner->wait->holds) && !has_room(exchange, event, old)) {
        sml_topics_trim(&exchange->topics, topic);
        return SEMEL_OVERLOADED;
    }
    event->topic = topic;
    event->number = ++exchange->numbers;
    event->fresh = true;
    exchange->counters.triggered++;
    count(exchange, event);
    deliver(exchange, event, sml_time_add(now, exchange->limits.retention), now);
    if (old)
        overwrite(exchange, old);
    return SEMEL_OK;
}

/* --- waits
 * ------------------------------------------------------------------------------------- */

/* Which of its ids have an event? */
static void look(struct sml_exchange *exchange, struct sml_event_wait *wait)
{
    wait->present = 0;
    for (uint32_t i = 0; i < wait->distinct; i++) {
        struct sml_mention *mention = &wait->mentions[i];

        mention->topic = sml_topics_find(&exchange->topics, mention->hash, mention->id);
        if (mention->topic && sml_topic_has_event(mention->topic))
            wait->present++;
    }
}

static bool find_topics(struct sml_exchange *exchange, struct sml_event_wait *wait)
{
    for (uint32_t i = 0; i < wait->distinct; i++) {
        struct sml_mention *mention = &wait->mentions[i];

        if (mention->topic == NULL)
            mention->topic = sml_topics_add(&exchange->topics, mention->hash, mention->id);
        if (mention->topic == NULL)
            return false;
    }
    return true;
}

static enum semel_status get_in_line(struct sml_exchange *exchange, struct sml_event_wait *wait,
                                     uint64_t deadline)
{
    const struct sml_exchange_limits *limits = &exchange->limits;

    if (exchange->counters.waits >= limits->waits ||
        exchange->wait_ids + wait->distinct > limits->wait_ids) {
        leave_topics(exchange, wait);
        return SEMEL_OVERLOADED;
    }
    if (!find_topics(exchange, wait)) {
        leave_topics(exchange, wait);
        return SEMEL_NO_MEMORY;
    }
    for (uint32_t i = 0; i < wait->distinct; i++)
        sml_list_push_back(&wait->mentions[i].topic->line, &wait->mentions[i].link);
    if (deadline != SML_NEVER)
        sml_agenda_add(&exchange->timeouts, &wait->timer, deadline);
    wait->state = SML_EVENT_WAIT_WAITING;
    sml_list_push_back(&exchange->waiting, &wait->link);
    exchange->counters.waits++;
    exchange->wait_ids += wait->distinct;
    return SEMEL_OK;
}

enum semel_status sml_exchange_start(struct sml_exchange *exchange, struct sml_event_wait *wait,
                                     uint64_t deadline, uint64_t now)
{
    SML_ASSERT(wait->state == SML_EVENT_WAIT_NEW);
    sml_exchange_tick(exchange, now);
    if (exchange->closed)
        return SEMEL_STOPPED;
    look(exchange, wait);
    if (wait->present < wait->need && deadline > now)
        return get_in_line(exchange, wait, deadline);
    if (wait->present >= wait->need)
        meet(exchange, wait, now);
    else
        give_up(exchange, wait, now);
    return SEMEL_OK;
}

void sml_exchange_cancel(struct sml_exchange *exchange, struct sml_event_wait *wait,
                         enum semel_status why)
{
    if (wait->state == SML_EVENT_WAIT_WAITING)
        end(exchange, wait, why, false);
}

/* --- what is held
 * ------------------------------------------------------------------------------ */

/* The event of the mention is not held any more. */
static struct sml_topic *release(struct sml_exchange *exchange, struct sml_event *event)
{
    event->topic->held--;
    exchange->counters.held--;
    return event->topic;
}

/* Whose data was copied is freed here and now, which calls nobody. */
static void part_with(struct sml_exchange *exchange, struct sml_event *event)
{
    spend(exchange, event);
    if (event->drop)
        return;
    sml_list_remove(&event->link);
    sml_event_unref(event);
}

void sml_exchange_accept(struct sml_exchange *exchange, struct sml_event_wait *wait)
{
    if (wait->state != SML_EVENT_WAIT_HOLDING)
        return;
    wait->state = SML_EVENT_WAIT_DONE;
    for (uint32_t i = 0; i < wait->distinct; i++) {
        struct sml_event *event = wait->mentions[i].event;

        if (event == NULL)
            continue;
        wait->mentions[i].event = NULL;
        sml_topics_trim(&exchange->topics, release(exchange, event));
        part_with(exchange, event);
    }
}

static void bring_back(struct sml_exchange *exchange, struct sml_event *event, uint64_t now)
{
    struct sml_topic *topic = release(exchange, event);

    if (exchange->closed) {
        spend(exchange, event);
        sml_topics_trim(&exchange->topics, topic);
        return;
    }
    event->fresh = false;
    exchange->counters.returned++;
    deliver(exchange, event, sml_time_add(event->age.heap.key, now - event->held_at), now);
}

void sml_exchange_give_back(struct sml_exchange *exchange, struct sml_event_wait *wait,
                            uint64_t now)
{
    sml_exchange_tick(exchange, now);
    if (wait->state != SML_EVENT_WAIT_HOLDING)
        return;
    wait->state = SML_EVENT_WAIT_DONE;
    wait->there = 0;
    for (uint32_t i = 0; i < wait->distinct; i++) {
        struct sml_event *event = wait->mentions[i].event;

        wait->mentions[i].event = NULL;
        if (event)
            bring_back(exchange, event, now);
    }
}

/* --- time, the end
 * ----------------------------------------------------------------------------- */

uint64_t sml_exchange_timeout(const struct sml_exchange *exchange)
{
    return sml_time_min(sml_agenda_min_key(&exchange->ages),
                        sml_agenda_min_key(&exchange->timeouts));
}

static struct sml_event *oldest(const struct sml_exchange *exchange)
{
    struct sml_agenda_node *node = sml_agenda_min(&exchange->ages);

    return node ? SML_CONTAINER(node, struct sml_event, age) : NULL;
}

void sml_exchange_tick(struct sml_exchange *exchange, uint64_t now)
{
    for (;;) {
        const uint64_t expires = sml_agenda_min_key(&exchange->ages);
        const uint64_t ends = sml_agenda_min_key(&exchange->timeouts);

        if (sml_time_min(expires, ends) > now)
            return;
        if (expires <= ends) {
            exchange->counters.expired++;
            drop(exchange, oldest(exchange));
        } else {
            give_up(
                exchange,
                SML_CONTAINER(sml_agenda_min(&exchange->timeouts), struct sml_event_wait, timer),
                ends);
        }
    }
}

void sml_exchange_close(struct sml_exchange *exchange)
{
    struct sml_event *event;

    exchange->closed = true;
    while (!sml_list_empty(&exchange->waiting))
        sml_exchange_cancel(exchange,
                            SML_CONTAINER(exchange->waiting.next, struct sml_event_wait, link),
                            SEMEL_STOPPED);
    while ((event = oldest(exchange)) != NULL)
        drop(exchange, event);
}

struct sml_event_wait *sml_exchange_next_done(struct sml_exchange *exchange)
{
    struct sml_list *node = sml_list_pop_front(&exchange->done);

    return node ? SML_CONTAINER(node, struct sml_event_wait, link) : NULL;
}

struct sml_event *sml_exchange_next_spent(struct sml_exchange *exchange)
{
    struct sml_list *node = sml_list_pop_front(&exchange->spent);

    return node ? event_of(node) : NULL;
}
