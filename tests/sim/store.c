/* SPDX-License-Identifier: MIT */
/* store.c - a server's store, and the disk below it. See durable.h.
 *
 * There is one state, the newest, and a log of what it was before. Undoing the log's end gives a
 * savepoint, the state before the open transaction, or that before a transaction that was written
 * but not synced: nothing is ever copied but what is written anew. A transaction's place on the
 * disk is some sectors; a power cut keeps each that was not synced or not, as it likes, and the
 * transaction counts if all are there. */
#include "durable.h"

#include <stdlib.h>
#include <string.h>

#define SECTOR_BYTES 512u

struct sim_copy {
    struct sml_table tables[SIM_TABLES];
    uint64_t rows[2], clock, generation;
};

/* ---- cells and the log --------------------------------------------------------------------- */

static struct sim_cell *cell_new(const struct sim_store *store, uint64_t key, const void *data,
                                 size_t bytes)
{
    struct sim_cell *cell = malloc(sizeof *cell + bytes);

    SML_ASSERT(cell);
    cell->key = key;
    cell->txn = store->txn;
    cell->kept_since = 0;
    cell->bytes = (uint32_t)bytes;
    memcpy(cell->data, data, bytes);
    return cell;
}

/* What stood there before is remembered, until the disk has the new. */
static void replace(struct sim_store *store, enum sim_table table, uint64_t key,
                    struct sim_cell *cell)
{
    struct sml_table *cells = &store->tables[table];
    struct sim_cell *old = sml_table_remove(cells, key);

    SML_ASSERT(store->open);
    if (store->log_count == store->log_room) {
        store->log_room = store->log_room ? store->log_room * 2 : 256;
        store->log = realloc(store->log, store->log_room * sizeof *store->log);
        SML_ASSERT(store->log);
    }
    store->log[store->log_count++] = (struct sim_undo){ table, key, old };
    if (cell && !sml_table_insert(cells, key, cell))
        SML_ASSERT(!"room in a table");
}

/* Undo what was done since the log had `count` entries. */
static void undo(struct sim_store *store, uint32_t count)
{
    while (store->log_count > count) {
        const struct sim_undo *last = &store->log[--store->log_count];
        struct sml_table *cells = &store->tables[last->table];

        free(sml_table_remove(cells, last->key));
        if (last->old && !sml_table_insert(cells, last->key, last->old))
            SML_ASSERT(!"room in a table");
    }
}

static void forget_log(struct sim_store *store)
{
    for (uint32_t i = 0; i < store->log_count; i++)
        free(store->log[i].old);
    store->log_count = store->written = 0;
}

static void free_tables(struct sml_table tables[SIM_TABLES])
{
    for (int t = 0; t < SIM_TABLES; t++) {
        for (uint32_t i = 0; i < tables[t].capacity; i++)
            free(tables[t].slots[i].value);
        sml_table_fini(&tables[t]);
    }
}

static void init_tables(struct sml_table tables[SIM_TABLES])
{
    for (int t = 0; t < SIM_TABLES; t++)
        sml_table_init(&tables[t], &sml_mem_libc, UINT32_MAX / 4);
}

static void copy_tables(struct sml_table to[SIM_TABLES], const struct sml_table from[SIM_TABLES])
{
    for (int t = 0; t < SIM_TABLES; t++)
        for (uint32_t i = 0; i < from[t].capacity; i++) {
            const struct sim_cell *cell = from[t].slots[i].value;
            struct sim_cell *twin;

            if (!cell)
                continue;
            twin = malloc(sizeof *twin + cell->bytes);
            SML_ASSERT(twin);
            memcpy(twin, cell, sizeof *cell + cell->bytes);
            if (!sml_table_insert(&to[t], cell->key, twin))
                SML_ASSERT(!"room in a table");
        }
}

/* ---- life ---------------------------------------------------------------------------------- */

struct sim_store *sim_store_new(struct sim_world *world)
{
    struct sim_store *store = calloc(1, sizeof *store);

    SML_ASSERT(store);
    init_tables(store->tables);
    for (size_t i = 0; i < sizeof store->id; i++)
        store->id[i] = (uint8_t)sim_rand(&world->net);
    store->generation = store->generations = 1;
    store->clock_saved = 1; /* 0 would be no time at all */
    return store;
}

static void free_copy(struct sim_store *store)
{
    if (!store->copy)
        return;
    free_tables(store->copy->tables);
    free(store->copy);
    store->copy = NULL;
}

void sim_store_free(struct sim_store *store)
{
    if (!store)
        return;
    forget_log(store);
    free_tables(store->tables);
    free_copy(store);
    free(store->log);
    free(store);
}

/* What a dead process wrote and did not sync is synced before anybody believes it. */
void sim_store_open(struct sim_world *world, struct sim_store *store)
{
    store->opened = world->now;
    store->clock_ms = store->clock_saved;
    store->fail_in = 0;
    store->spoilt = store->spoils = store->unknown_next = store->failing = false;
    store->has_suspect = store->has_mark;
    store->suspect = store->mark;
    store->has_mark = false;
    if (store->unsynced) {
        sim_mark(world, SIM_MARK_UNSYNCED_KEPT);
        sim_store_sync(store);
    }
}

uint64_t sim_store_clock(const struct sim_world *world, const struct sim_store *store)
{
    return store->clock_ms + (world->now - store->opened) / SML_MS;
}

/* ---- transactions -------------------------------------------------------------------------- */

static enum sml_stored refuse(struct sim_store *store, enum sim_trouble why)
{
    sim_store_rollback(store);
    store->why = why;
    return SML_NOT_STORED;
}

/* Does the store do what it is asked to? */
static enum sml_stored may(struct sim_world *world, struct sim_store *store)
{
    if (store->full_until > world->now)
        return refuse(store, SIM_FULL_DISK);
    if (store->fail_in > 0 && --store->fail_in == 0)
        return refuse(store, store->fails_as);
    return SML_STORED;
}

enum sml_stored sim_store_begin(struct sim_world *world, struct sim_store *store)
{
    SML_ASSERT(!store->open);
    if (store->unsynced) /* only a disk that lies has answered so far */
        sim_store_sync(store);
    if (may(world, store) != SML_STORED)
        return SML_NOT_STORED;
    store->open = true;
    store->spoilt = store->spoils = false;
    store->txn++;
    memcpy(store->rows_before, store->rows, sizeof store->rows);
    return SML_STORED;
}

enum sml_stored sim_store_put(struct sim_world *world, struct sim_store *store,
                              enum sim_table table, uint64_t *row, struct semel_bytes record)
{
    if (may(world, store) != SML_STORED)
        return SML_NOT_STORED;
    /* Numbers of sessions are never used again, numbers of calls may be. */
    if (*row == 0 && table == SIM_TABLE_CALLS && store->tables[SIM_TABLE_CALLS].count == 0)
        store->rows[SIM_TABLE_CALLS] = 0;
    if (*row == 0)
        *row = ++store->rows[table];
    replace(store, table, *row, cell_new(store, *row, record.data, record.size));
    return SML_STORED;
}

uint64_t sim_key_number(const uint8_t hash[32])
{
    uint64_t number;

    memcpy(&number, hash, sizeof number);
    return number;
}

enum sml_stored sim_store_put_key(struct sim_world *world, struct sim_store *store,
                                  const uint8_t hash[32], uint64_t kept_since,
                                  struct semel_bytes record)
{
    struct sim_cell *cell;

    if (may(world, store) != SML_STORED)
        return SML_NOT_STORED;
    cell = cell_new(store, sim_key_number(hash), record.data, record.size);
    cell->kept_since = kept_since;
    replace(store, SIM_TABLE_KEYS, cell->key, cell);
    return SML_STORED;
}

enum sml_stored sim_store_forget(struct sim_world *world, struct sim_store *store,
                                 enum sim_table table, uint64_t key)
{
    if (may(world, store) != SML_STORED)
        return SML_NOT_STORED;
    replace(store, table, key, NULL);
    return SML_STORED;
}

void sim_store_effect(struct sim_world *world, struct sim_store *store, uint32_t unit, uint8_t run)
{
    (void)world;
    replace(store, SIM_TABLE_EFFECTS, unit, cell_new(store, unit, &run, 1));
}

const struct sim_cell *sim_store_find(const struct sim_store *store, enum sim_table table,
                                      uint64_t key)
{
    return sml_table_find(&store->tables[table], key);
}

const struct sim_cell *sim_store_find_durable(const struct sim_store *store, enum sim_table table,
                                              uint64_t key)
{
    const struct sim_cell *cell = sim_store_find(store, table, key);

    for (uint32_t i = 0; i < store->log_count; i++)
        if (store->log[i].table == table && store->log[i].key == key) {
            cell = store->log[i].old;
            break;
        }
    return cell && cell->txn <= store->synced ? cell : NULL;
}

void sim_store_rollback(struct sim_store *store)
{
    if (!store->open)
        return;
    undo(store, store->written);
    memcpy(store->rows, store->rows_before, sizeof store->rows);
    store->open = false;
}

void sim_store_guard(struct sim_store *store)
{
    store->guard = store->log_count;
}

enum sml_stored sim_store_unguard(struct sim_store *store, bool keep)
{
    if (store->spoilt)
        return refuse(store, SIM_SPOILT);
    if (!keep)
        undo(store, store->guard);
    return SML_STORED;
}

void sim_store_write(struct sim_world *world, struct sim_store *store)
{
    SML_ASSERT(store->open);
    sim_trace_write(world, store);
    store->open = false;
    store->unsynced = true;
    store->written = store->log_count;
    store->clock_saved = sim_store_clock(world, store);
}

void sim_store_sync(struct sim_store *store)
{
    forget_log(store);
    store->unsynced = false;
    store->synced = store->txn;
}

/* ---- what happens to disks ----------------------------------------------------------------- */

void sim_store_process_died(struct sim_world *world, struct sim_store *store)
{
    (void)world;
    sim_store_rollback(store);
}

/* Of the sectors that were on their way, which ones are there? */
static bool all_there(struct sim_world *world, const struct sim_store *store, bool *out_any)
{
    uint32_t sectors = 1, there = 0;

    for (uint32_t i = 0; i < store->log_count; i++) {
        const struct sim_cell *cell = sim_store_find(store, store->log[i].table, store->log[i].key);

        sectors += 1 + (cell ? cell->bytes / SECTOR_BYTES : 0);
    }
    for (uint32_t i = 0; i < sectors; i++)
        there += sim_below(&world->faults, 4) != 0;
    *out_any = there > 0;
    return there == sectors;
}

void sim_store_power_cut(struct sim_world *world, struct sim_store *store)
{
    bool any;

    sim_store_process_died(world, store);
    store->has_mark = false;
    if (!store->unsynced || all_there(world, store, &any))
        return;
    sim_mark(world, SIM_MARK_UNSYNCED_LOST);
    if (any)
        sim_mark(world, SIM_MARK_TORN);
    undo(store, 0);
    memcpy(store->rows, store->rows_before, sizeof store->rows);
    store->written = 0;
    store->unsynced = false;
}

void sim_store_copy(struct sim_world *world, struct sim_store *store)
{
    if (store->open || store->unsynced)
        return;
    free_copy(store);
    store->copy = malloc(sizeof *store->copy);
    SML_ASSERT(store->copy);
    init_tables(store->copy->tables);
    copy_tables(store->copy->tables, store->tables);
    memcpy(store->copy->rows, store->rows, sizeof store->rows);
    store->copy->clock = store->clock_saved;
    store->copy->generation = store->generation;
    store->copied_at = world->now;
}

void sim_store_put_back(struct sim_store *store)
{
    SML_ASSERT(store->copy && !store->open);
    forget_log(store);
    store->unsynced = false;
    free_tables(store->tables);
    init_tables(store->tables);
    copy_tables(store->tables, store->copy->tables);
    memcpy(store->rows, store->copy->rows, sizeof store->rows);
    store->clock_saved = store->copy->clock;
    store->generation = store->copy->generation;
    store->has_mark = false;
    store->synced = store->txn;
}

void sim_store_renew(struct sim_store *store)
{
    for (int t = SIM_TABLE_SESSIONS; t <= SIM_TABLE_CALLS; t++) {
        for (uint32_t i = 0; i < store->tables[t].capacity; i++)
            free(store->tables[t].slots[i].value);
        sml_table_fini(&store->tables[t]);
    }
    store->generation = ++store->generations;
}
