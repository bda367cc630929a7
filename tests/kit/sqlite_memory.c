/* SPDX-License-Identifier: MIT */
#include "kit/sqlite_memory.h"

#include <sqlite3.h>
#include <stdatomic.h>
#include <stdlib.h>

static sqlite3_mem_methods plain;
static atomic_int until, blocks;
static atomic_bool failed;
static _Atomic(bool (*)(void)) asked;

static bool may_have(void)
{
    bool (*ask)(void) = atomic_load(&asked);
    int left = atomic_load(&until);

    while (left > 0 && !atomic_compare_exchange_weak(&until, &left, left - 1))
        continue;
    if (left == 1)
        atomic_store(&failed, true);
    return left != 1 && (ask == NULL || ask());
}

static void *get(int bytes)
{
    void *got = may_have() ? plain.xMalloc(bytes) : NULL;

    atomic_fetch_add(&blocks, got != NULL);
    return got;
}

static void give_back(void *block)
{
    atomic_fetch_sub(&blocks, block != NULL);
    plain.xFree(block);
}

static void *resize(void *block, int bytes)
{
    return may_have() ? plain.xRealloc(block, bytes) : NULL;
}

void sqlite_memory_install(void)
{
    sqlite3_mem_methods mine;

    if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &plain) != SQLITE_OK)
        abort();
    mine = plain;
    mine.xMalloc = get;
    mine.xFree = give_back;
    mine.xRealloc = resize;
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &mine) != SQLITE_OK)
        abort();
}

void sqlite_memory_fail_at(int n)
{
    atomic_store(&failed, false);
    atomic_store(&until, n);
}

bool sqlite_memory_has_failed(void)
{
    return atomic_load(&failed);
}

int sqlite_memory_blocks(void)
{
    return atomic_load(&blocks);
}

void sqlite_memory_ask(bool (*may)(void))
{
    atomic_store(&asked, may);
}
