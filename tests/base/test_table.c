/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/table.h"
#include "base/test_random.h"

static void *const some = (void *)&some; /* any value */

/* An allocator that counts, and refuses when told. */
struct counting {
    size_t live, calls;
    bool refuse;
};

static void *counting_alloc(void *user, size_t bytes)
{
    struct counting *counting = user;

    counting->calls++;
    if (counting->refuse)
        return NULL;
    counting->live++;
    return malloc(bytes);
}

static void counting_release(void *user, void *pointer)
{
    struct counting *counting = user;

    counting->live -= pointer != NULL;
    free(pointer);
}

/* Every entry is found, the load is bounded, and homes never fall along a run. */
static void table_validate(const struct sml_table *table)
{
    const uint32_t mask = table->capacity - 1;
    uint32_t count = 0;

    assert_true((table->capacity & mask) == 0 || table->capacity == 0);
    for (uint32_t i = 0; i < table->capacity; i++) {
        const struct sml_table_slot *slot = &table->slots[i], *next = &table->slots[(i + 1) & mask];
        const uint32_t away = (i - (uint32_t)slot->key) & mask;
        const uint32_t next_away = (i + 1 - (uint32_t)next->key) & mask;

        if (slot->value) {
            count++;
            assert_ptr_equal(sml_table_find(table, slot->key), slot->value);
        }
        if (next->value)
            assert_true(next_away <= (slot->value ? away + 1 : 0));
    }
    assert_int_equal(count, table->count);
    assert_true(count <= table->capacity / 4 * 3);
}

static void empty(void **state)
{
    struct counting counting = { 0 };
    struct sml_mem mem = { counting_alloc, counting_release, &counting };
    struct sml_table table;

    (void)state;
    sml_table_init(&table, &mem, 100);
    assert_null(sml_table_find(&table, 1));
    assert_null(sml_table_remove(&table, 1));
    sml_table_trim(&table);
    assert_int_equal(counting.calls, 0); /* no memory while empty */
    assert_true(sml_table_insert(&table, 1, some));
    sml_table_trim(&table);
    assert_ptr_equal(sml_table_find(&table, 1), some); /* not empty: kept */
    assert_ptr_equal(sml_table_remove(&table, 1), some);
    sml_table_trim(&table);
    assert_int_equal(counting.live, 0);
    assert_true(sml_table_insert(&table, 2, some)); /* usable after a trim */
    sml_table_fini(&table);
    sml_table_fini(&table);
    assert_int_equal(counting.live, 0);
}

static void bounds(void **state)
{
    struct sml_table table;

    (void)state;
    sml_table_init(&table, &sml_mem_libc, 10);
    for (uint64_t key = 1; key <= 10; key++)
        assert_true(sml_table_insert(&table, key, some));
    assert_false(sml_table_insert(&table, 11, some));
    assert_ptr_equal(sml_table_remove(&table, 4), some);
    assert_true(sml_table_insert(&table, 11, some));
    table_validate(&table);
    sml_table_fini(&table);
    sml_table_init(&table, &sml_mem_libc, 0);
    assert_false(sml_table_insert(&table, 1, some));
    sml_table_fini(&table);
}

/* No memory is an answer; what was in stays in. */
static void no_memory(void **state)
{
    struct counting counting = { 0 };
    struct sml_mem mem = { counting_alloc, counting_release, &counting };
    struct sml_table table;
    uint64_t key = 0;

    (void)state;
    sml_table_init(&table, &mem, 1000);
    counting.refuse = true;
    assert_false(sml_table_insert(&table, 1, some));
    counting.refuse = false;
    for (key = 1; key <= 6; key++)
        assert_true(sml_table_insert(&table, key, some));
    counting.refuse = true;
    while (sml_table_insert(&table, key, some))
        key++;
    table_validate(&table);
    for (uint64_t k = 1; k < key; k++)
        assert_ptr_equal(sml_table_find(&table, k), some);
    counting.refuse = false;
    assert_true(sml_table_insert(&table, key, some));
    table_validate(&table);
    sml_table_fini(&table);
    assert_int_equal(counting.live, 0);
}

/* Against a plain array: keys that collide in their low bits, all ways in and out. */
static void against_model(void **state)
{
    enum { KEYS = 300, STEPS = 30000 };
    static char values[KEYS];
    bool in[KEYS] = { false };
    struct sml_table table;
    uint64_t seed = 7;

    (void)state;
    sml_table_init(&table, &sml_mem_libc, KEYS);
    for (size_t step = 0; step < STEPS; step++) {
        const size_t i = (size_t)random_below(&seed, KEYS);
        const uint64_t key = (uint64_t)(i % 10) + ((uint64_t)(i / 10) << (i % 3 ? 40 : 5));
        void *expected = in[i] ? &values[i] : NULL;

        assert_ptr_equal(sml_table_find(&table, key), expected);
        if (in[i])
            assert_ptr_equal(sml_table_remove(&table, key), expected);
        else
            assert_true(sml_table_insert(&table, key, &values[i]));
        in[i] = !in[i];
        if (step % 64 == 0)
            table_validate(&table);
    }
    sml_table_fini(&table);
}

/* A window of dense keys slides past one that stays: the table neither grows nor slows down. */
static void one_open_call(void **state)
{
    enum { WINDOW = 1024, CALLS = 300000 };
    struct sml_table table;
    uint32_t capacity = 0;

    (void)state;
    sml_table_init(&table, &sml_mem_libc, WINDOW + 1);
    assert_true(sml_table_insert(&table, 1, some));
    for (uint64_t key = 2; key < CALLS; key++) {
        assert_true(sml_table_insert(&table, key, some));
        if (key > WINDOW)
            assert_ptr_equal(sml_table_remove(&table, key - WINDOW + 1), some);
        if (key == 2 * WINDOW)
            capacity = table.capacity;
        if (key % 4096 == 0)
            table_validate(&table);
    }
    assert_int_equal(table.capacity, capacity);
    assert_ptr_equal(sml_table_find(&table, 1), some);
    sml_table_fini(&table);
}

static void extreme_keys(void **state)
{
    const uint64_t keys[] = { 0, 1, UINT32_MAX, UINT64_C(1) << 32, UINT64_C(1) << 63, UINT64_MAX };
    struct sml_table table;

    (void)state;
    sml_table_init(&table, &sml_mem_libc, 10);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_true(sml_table_insert(&table, keys[i], (void *)&keys[i]));
    table_validate(&table);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_ptr_equal(sml_table_remove(&table, keys[i]), &keys[i]);
    assert_int_equal(table.count, 0);
    sml_table_fini(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "table: empty", empty, NULL, NULL, NULL },
        { "table: full is an answer", bounds, NULL, NULL, NULL },
        { "table: no memory is an answer", no_memory, NULL, NULL, NULL },
        { "table: agrees with a plain array", against_model, NULL, NULL, NULL },
        { "table: a sliding window beside one open call", one_open_call, NULL, NULL, NULL },
        { "table: extreme keys", extreme_keys, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
