/* SPDX-License-Identifier: MIT */
/* store_words.h - short words for the operations of a store, which must succeed. */
#ifndef TESTS_CONFORM_STORE_WORDS_H
#define TESTS_CONFORM_STORE_WORDS_H

#include "io/kit.h"

#include "stores.h"

#define UNUSED __attribute__((unused))

UNUSED static void open_ground(struct ground *ground, void **state)
{
    ground_make(ground, *state);
}

UNUSED static void begin(struct ground *g)
{
    assert_int_equal(g->store->ops->begin(g->store), SML_STORED);
}

UNUSED static void commit(struct ground *g)
{
    assert_int_equal(g->store->ops->commit(g->store), SML_STORED);
}

UNUSED static uint64_t add(struct ground *g, enum sml_store_table table, struct semel_bytes record)
{
    uint64_t row = 0;

    assert_int_equal(g->store->ops->put(g->store, table, &row, record), SML_STORED);
    assert_true(row > 0);
    return row;
}

UNUSED static uint64_t add_text(struct ground *g, enum sml_store_table table, const char *text)
{
    return add(g, table, semel_bytes_text(text));
}

UNUSED static void set(struct ground *g, enum sml_store_table table, uint64_t row, const char *text)
{
    uint64_t same = row;

    assert_int_equal(g->store->ops->put(g->store, table, &same, semel_bytes_text(text)),
                     SML_STORED);
    assert_int_equal(same, row);
}

UNUSED static void forget(struct ground *g, enum sml_store_table table, uint64_t row)
{
    assert_int_equal(g->store->ops->forget(g->store, table, row), SML_STORED);
}

UNUSED static const uint8_t *hash_of(uint8_t seed)
{
    static uint8_t hash[32];

    for (int i = 0; i < 32; i++)
        hash[i] = (uint8_t)(seed * 7 + i);
    return hash;
}

UNUSED static void put_key(struct ground *g, uint8_t seed, uint64_t since, const char *text)
{
    assert_int_equal(g->store->ops->put_key(g->store, hash_of(seed), since, semel_bytes_text(text)),
                     SML_STORED);
}

/* NULL: it must not be there. */
UNUSED static void expect_key(struct ground *g, uint8_t seed, const char *text)
{
    struct semel_bytes record = { "", 0 };

    assert_int_equal(g->store->ops->find_key(g->store, hash_of(seed), &record), SML_STORED);
    if (text == NULL) {
        assert_null(record.data);
        return;
    }
    assert_non_null(record.data);
    assert_int_equal(record.size, strlen(text));
    assert_memory_equal(record.data, text, record.size);
}

#endif
