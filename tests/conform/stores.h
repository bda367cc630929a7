/* SPDX-License-Identifier: MIT */
/* stores.h - every kind of store. */
#ifndef TESTS_CONFORM_STORES_H
#define TESTS_CONFORM_STORES_H

#include "store/store.h"

/* A place where one store is kept, opened and closed. */
struct ground {
    const struct store_kind *kind;
    struct semel_store *store; /* NULL: closed */
    void *own;
    char directory[64], path[100];
};

struct store_kind {
    const char *name;
    void (*make)(struct ground *ground);
    void (*remove)(struct ground *ground);
    struct semel_store *(*open)(struct ground *ground);
    /* A process opens the store, does this, and dies. The store is closed. */
    void (*die)(struct ground *ground, void (*what)(struct semel_store *store));
    /* What a transactional handler does: its work is a number, and the numbers add up. */
    void (*work)(struct semel_store *store, int amount);
    int (*sum)(struct ground *ground); /* of what is committed; the store is open */
    /* It does what ends its transaction. */
    void (*lose)(struct semel_store *store);
};

extern const struct store_kind store_kinds[];
extern const int store_kinds_count;

/* On a fresh ground; open; again after a close. */
void ground_make(struct ground *ground, const struct store_kind *kind);
void ground_reopen(struct ground *ground);
void ground_close(struct ground *ground);
void ground_remove(struct ground *ground);

/* store_model.c: a behaviour, as those of test_store.c. */
void any_order_of_changes(void **state);

#endif
