/* SPDX-License-Identifier: MIT */
/* exchange_records.c - events and waits, made and freed without a look at the exchange's state, so
 * that the shell does it outside its lock: ids are hashed, data are copied and duplicates are found
 * there. */
#include "async/exchange_internal.h"

#include <string.h>

#include "base/siphash.h"

/* Up to so many ids each is compared with all before it; more get a table. */
#define FEW 8

/* --- events
 * ------------------------------------------------------------------------------------ */

struct sml_event *sml_event_create(const struct sml_mem *mem, struct semel_bytes data,
                                   void (*drop)(const void *data, void *user), void *user)
{
    struct sml_event *event = sml_alloc(mem, sizeof *event + (drop ? 0 : data.size));

    if (event == NULL)
        return NULL;
    atomic_init(&event->refs, 1);
    event->fresh = true;
    event->mem = mem;
    event->data = data;
    event->drop = drop;
    event->drop_user = user;
    event->topic = NULL;
    event->number = event->held_at = 0;
    sml_list_init(&event->link);
    sml_agenda_node_init(&event->age);
    if (!drop && data.size > 0) {
        memcpy(event + 1, data.data, data.size);
        event->data.data = event + 1;
    }
    return event;
}

void sml_event_unref(struct sml_event *event)
{
    if (atomic_fetch_sub_explicit(&event->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (event->drop)
        event->drop(event->data.data, event->drop_user);
    sml_release(event->mem, event);
}

void sml_event_discard(struct sml_event *event)
{
    sml_release(event->mem, event);
}

/* --- waits: their ids
 * -------------------------------------------------------------------------- */

static bool is_id(struct semel_bytes id)
{
    return id.data != NULL && id.size > 0 && id.size <= SEMEL_EVENT_ID_BYTES_MAX;
}

static bool is_mention_of(const struct sml_mention *mention, uint64_t hash, struct semel_bytes id)
{
    return mention->hash == hash && mention->id.size == id.size &&
           memcmp(mention->id.data, id.data, id.size) == 0;
}

/* The ids of a wait while it is made. */
struct naming {
    struct sml_event_wait *wait;
    uint8_t *at;           /* where the next id is copied to */
    uint32_t *table, mask; /* for many: 1 + the mention, by hash; 0: free */
};

/* 1 + the mention of the id; 0: there is none, and *out_slot is where it belongs. */
static uint32_t look_up(const struct naming *naming, uint64_t hash, struct semel_bytes id,
                        uint32_t **out_slot)
{
    const struct sml_event_wait *wait = naming->wait;

    if (naming->table == NULL) {
        for (uint32_t i = 0; i < wait->distinct; i++)
            if (is_mention_of(&wait->mentions[i], hash, id))
                return i + 1;
        return 0;
    }
    for (uint32_t i = (uint32_t)hash & naming->mask;; i = (i + 1) & naming->mask) {
        uint32_t found = naming->table[i];

        if (found == 0 || is_mention_of(&wait->mentions[found - 1], hash, id)) {
            *out_slot = &naming->table[i];
            return found;
        }
    }
}

static uint32_t mention(struct naming *naming, uint64_t hash, struct semel_bytes id)
{
    struct sml_event_wait *wait = naming->wait;
    uint32_t *slot = NULL, found = look_up(naming, hash, id, &slot);
    struct sml_mention *fresh;

    if (found > 0)
        return found - 1;
    fresh = &wait->mentions[wait->distinct++];
    memcpy(naming->at, id.data, id.size);
    sml_list_init(&fresh->link);
    fresh->wait = wait;
    fresh->topic = NULL;
    fresh->id = semel_bytes(naming->at, id.size);
    fresh->hash = hash;
    fresh->event = NULL;
    naming->at += id.size;
    if (slot)
        *slot = wait->distinct;
    return wait->distinct - 1;
}

static bool open_table(struct naming *naming, size_t count)
{
    size_t slots = 2 * FEW;

    if (count <= FEW)
        return true;
    while (slots < 2 * count)
        slots *= 2;
    naming->table = sml_alloc(naming->wait->mem, slots * sizeof *naming->table);
    if (naming->table == NULL)
        return false;
    memset(naming->table, 0, slots * sizeof *naming->table);
    naming->mask = (uint32_t)slots - 1;
    return true;
}

static bool name_ids(struct sml_event_wait *wait, const struct sml_exchange *exchange,
                     const struct sml_event_wait_plan *plan, uint8_t *room)
{
    struct naming naming = { .wait = wait, .at = room };

    if (!open_table(&naming, plan->count))
        return false;
    for (uint32_t i = 0; i < plan->count; i++) {
        struct semel_bytes id = plan->ids[i];

        wait->which[i] = mention(&naming, sml_siphash(exchange->hash_key, id.data, id.size), id);
    }
    if (naming.table)
        sml_release(wait->mem, naming.table);
    return true;
}

/* --- waits
 * ------------------------------------------------------------------------------------- */

/* The wait and, behind it, its mentions, results, their order, and the ids: *out_ids. */
static struct sml_event_wait *allocate(const struct sml_mem *mem,
                                       const struct sml_event_wait_plan *plan, size_t id_bytes,
                                       uint8_t **out_ids)
{
    const size_t count = plan->count;
    struct sml_event_wait *wait = sml_alloc(
        mem, sizeof *wait + id_bytes +
                 count * (sizeof *wait->mentions + sizeof *wait->results + sizeof *wait->which));

    if (wait == NULL)
        return NULL;
    memset(wait, 0, sizeof *wait);
    wait->mem = mem;
    wait->count = (uint32_t)count;
    wait->unmet = plan->unmet;
    wait->holds = plan->holds;
    wait->results = (struct semel_event *)(void *)&wait->mentions[count];
    wait->which = (uint32_t *)(void *)&wait->results[count];
    *out_ids = (uint8_t *)&wait->which[count];
    sml_list_init(&wait->link);
    sml_agenda_node_init(&wait->timer);
    return wait;
}

enum semel_status sml_event_wait_create(struct sml_event_wait **out,
                                        const struct sml_exchange *exchange,
                                        const struct sml_event_wait_plan *plan)
{
    struct sml_event_wait *wait;
    size_t id_bytes = 0;
    uint8_t *ids;

    if (plan->count > SEMEL_EVENT_IDS_MAX || (plan->count > 0 && plan->ids == NULL) ||
        plan->need > plan->count || (unsigned)plan->unmet > SEMEL_UNMET_LEAVE)
        return SEMEL_INVALID;
    for (size_t i = 0; i < plan->count; i++) {
        if (!is_id(plan->ids[i]))
            return SEMEL_INVALID;
        id_bytes += plan->ids[i].size;
    }
    wait = allocate(exchange->mem, plan, id_bytes, &ids);
    if (wait == NULL)
        return SEMEL_NO_MEMORY;
    if (!name_ids(wait, exchange, plan, ids)) {
        sml_release(wait->mem, wait);
        return SEMEL_NO_MEMORY;
    }
    if (plan->need > wait->distinct) {
        sml_release(wait->mem, wait);
        return SEMEL_INVALID;
    }
    wait->need = plan->need > 0 ? (uint32_t)plan->need : wait->distinct;
    *out = wait;
    return SEMEL_OK;
}

void sml_event_wait_free(struct sml_event_wait *wait)
{
    if (wait == NULL)
        return;
    for (uint32_t i = 0; i < wait->distinct; i++)
        if (wait->mentions[i].event)
            sml_event_unref(wait->mentions[i].event);
    sml_release(wait->mem, wait);
}

void sml_event_wait_result(struct sml_event_wait *wait, struct semel_events *out)
{
    size_t there = 0;

    for (uint32_t i = 0; i < wait->count; i++) {
        const struct sml_mention *mention = &wait->mentions[wait->which[i]];
        struct semel_event *result = &wait->results[i];

        result->id = mention->id;
        result->there = mention->event != NULL;
        result->data = mention->event ? mention->event->data : semel_bytes(NULL, 0);
        there += result->there;
    }
    out->status = wait->status;
    out->count = wait->count;
    out->there = there;
    out->events = wait->count > 0 ? wait->results : NULL;
    out->storage = wait;
}
