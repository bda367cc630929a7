/* SPDX-License-Identifier: MIT */
/* Open addressing with linear probing, kept in "Robin Hood" order: along a run of occupied slots
 * the home slots never fall, because an insert puts the newcomer before the first entry that is
 * nearer to its own home.
 *
 * Why the order matters: keys are dense, so the live ones fill one long run of neighbouring slots,
 * each at home. In plain linear probing, looking for an absent key, or closing the gap a removal
 * leaves, must walk to the end of that run: as far as there are calls in flight. In this order both
 * stop at the first entry that is at home, at once in the ordinary case. An old key left behind
 * when the numbers come round again shifts one run by one slot, once per round.
 *
 * Invariants: `capacity` is 0 or a power of two; the load is at most 3/4, so a free slot always
 * ends a probe; a slot is free exactly when its value is NULL. */
#include "base/table.h"

#include <stddef.h>
#include <string.h>

#include "base/check.h"

#define CAPACITY_MIN 8

void sml_table_init(struct sml_table *table, const struct sml_mem *mem, uint32_t count_max)
{
    memset(table, 0, sizeof *table);
    table->mem = mem;
    table->count_max = count_max;
}

void sml_table_fini(struct sml_table *table)
{
    if (table->slots)
        sml_release(table->mem, table->slots);
    table->slots = NULL;
    table->capacity = table->count = 0;
}

/* How far the entry in slot `at` is from its home. */
static uint32_t distance(const struct sml_table *table, uint32_t at)
{
    return (at - (uint32_t)table->slots[at].key) & (table->capacity - 1);
}

/* Where `key` is, or where the probe for it ended. */
static uint32_t probe(const struct sml_table *table, uint64_t key)
{
    const uint32_t mask = table->capacity - 1;
    uint32_t at = (uint32_t)key & mask;

    for (uint32_t d = 0;; d++, at = (at + 1) & mask) {
        const struct sml_table_slot *slot = &table->slots[at];

        if (!slot->value || slot->key == key || distance(table, at) < d)
            return at;
    }
}

/* Put an absent key in; there is a free slot. */
static void place(struct sml_table *table, uint64_t key, void *value)
{
    const uint32_t mask = table->capacity - 1;
    struct sml_table_slot moving = { key, value };

    for (uint32_t at = probe(table, key);; at = (at + 1) & mask) {
        struct sml_table_slot displaced = table->slots[at];

        table->slots[at] = moving;
        if (!displaced.value)
            return;
        moving = displaced;
    }
}

static bool grow(struct sml_table *table)
{
    struct sml_table_slot *old = table->slots;
    const uint32_t old_capacity = table->capacity;
    const uint32_t capacity = old_capacity ? old_capacity * 2 : CAPACITY_MIN;
    const size_t bytes = (size_t)capacity * sizeof *old;

    if (capacity == 0)
        return false;
    table->slots = sml_alloc(table->mem, bytes);
    if (!table->slots) {
        table->slots = old;
        return false;
    }
    memset(table->slots, 0, bytes);
    table->capacity = capacity;
    for (uint32_t i = 0; i < old_capacity; i++)
        if (old[i].value)
            place(table, old[i].key, old[i].value);
    if (old)
        sml_release(table->mem, old);
    return true;
}

bool sml_table_insert(struct sml_table *table, uint64_t key, void *value)
{
    SML_ASSERT(value != NULL);
    if (table->count >= table->count_max)
        return false;
    if (table->count >= table->capacity / 4 * 3 && !grow(table))
        return false;
    SML_ASSERT(!sml_table_find(table, key));
    place(table, key, value);
    table->count++;
    return true;
}

void *sml_table_find(const struct sml_table *table, uint64_t key)
{
    const struct sml_table_slot *slot;

    if (table->count == 0)
        return NULL;
    slot = &table->slots[probe(table, key)];
    return slot->value && slot->key == key ? slot->value : NULL;
}

void *sml_table_remove(struct sml_table *table, uint64_t key)
{
    const uint32_t mask = table->capacity - 1;
    uint32_t at, after;
    void *value;

    if (table->count == 0)
        return NULL;
    at = probe(table, key);
    value = table->slots[at].value;
    if (!value || table->slots[at].key != key)
        return NULL;
    for (after = (at + 1) & mask; table->slots[after].value && distance(table, after) > 0;
         at = after, after = (after + 1) & mask)
        table->slots[at] = table->slots[after];
    table->slots[at].value = NULL;
    table->count--;
    return value;
}

void sml_table_trim(struct sml_table *table)
{
    if (table->count == 0)
        sml_table_fini(table);
}
