/* SPDX-License-Identifier: MIT */
/* table.h - u64 key to pointer, open addressing, bounded.
 *
 * Keys are call numbers: dense and rising, so a key's home is simply its low bits, and neighbours
 * in time are neighbours in memory. Linear probing; removal closes the gap (no tombstones). The
 * table holds no memory while empty and grows by doubling up to the bound given at init. */
#ifndef SML_BASE_TABLE_H
#define SML_BASE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/mem.h"

struct sml_table_slot {
    uint64_t key;
    void *value; /* NULL: free */
};

struct sml_table {
    struct sml_table_slot *slots;
    uint32_t capacity; /* slots: 0 or a power of two */
    uint32_t count;
    uint32_t count_max;
    const struct sml_mem *mem;
};

void sml_table_init(struct sml_table *table, const struct sml_mem *mem, uint32_t count_max);
void sml_table_fini(struct sml_table *table);

/* `key` must be absent and `value` not NULL. False: no memory, or count_max reached. */
bool sml_table_insert(struct sml_table *table, uint64_t key, void *value) SML_MUST_USE;

/* NULL when absent. */
void *sml_table_find(const struct sml_table *table, uint64_t key);
void *sml_table_remove(struct sml_table *table, uint64_t key);

/* Give the memory back if the table is empty. */
void sml_table_trim(struct sml_table *table);

#endif
