/* SPDX-License-Identifier: MIT */
/* deferred_kit.h - values that know how often they were dropped, and callbacks that write down what
 * came by. */
#ifndef SML_TESTS_DEFERRED_KIT_H
#define SML_TESTS_DEFERRED_KIT_H

#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <semel/deferred.h>

#include "kit/hand_executor.h"

struct item {
    int number;
    int dropped;
};

static inline void drop_item(void *value)
{
    ((struct item *)value)->dropped++;
}

/* A word per result seen: the callback's letter, then "=NUMBER" of the item, "=-" for a value
 * NULL, or "!STATUS". */
struct journal {
    char text[4096];
    size_t used;
};

static inline void write_down(struct journal *journal, char letter, const struct semel_fired *fired)
{
    char *at = journal->text + journal->used;
    const size_t room = sizeof journal->text - journal->used;
    int bytes;

    if (fired->status != SEMEL_OK)
        bytes = snprintf(at, room, "%c!%s ", letter, semel_status_name(fired->status));
    else if (!fired->value)
        bytes = snprintf(at, room, "%c=- ", letter);
    else
        bytes = snprintf(at, room, "%c=%d ", letter, ((struct item *)fired->value)->number);
    assert_true(bytes > 0 && (size_t)bytes < room);
    journal->used += (size_t)bytes;
}

/* A callback that writes down, and what else it does. */
struct note {
    struct journal *journal;
    char letter;
    struct semel_deferred *returns; /* moved */
    struct semel_deferred *unrefs;
    struct item *sets;
    enum semel_status fails;
};

static inline struct semel_deferred *on_note(struct semel_fired *fired, void *user)
{
    struct note *note = user;

    write_down(note->journal, note->letter, fired);
    if (note->sets)
        semel_fired_set_value(fired, note->sets, drop_item);
    if (note->fails)
        semel_fired_set_failure(fired, note->fails, 7, "as told");
    semel_deferred_unref(note->unrefs);
    return note->returns;
}

#define assert_ok(call) assert_int_equal((call), SEMEL_OK)

/* All tests of a program on a stack on which nothing that grows with the length of a chain fits: a
 * frame per deferred of the 100,000 would need megabytes. */
#define SMALL_STACK_BYTES ((size_t)256 * 1024)

struct small_stack {
    const struct CMUnitTest *tests;
    size_t count;
    int failed;
};

static inline void *on_small_stack(void *user)
{
    struct small_stack *run = user;

    run->failed = _cmocka_run_group_tests("tests", run->tests, run->count, NULL, NULL);
    return NULL;
}

static inline int run_on_small_stack(const struct CMUnitTest *tests, size_t count)
{
    struct small_stack run = { tests, count, 1 };
    pthread_attr_t attr;
    pthread_t thread;

    if (pthread_attr_init(&attr) != 0 || pthread_attr_setstacksize(&attr, SMALL_STACK_BYTES) != 0 ||
        pthread_create(&thread, &attr, on_small_stack, &run) != 0 ||
        pthread_join(thread, NULL) != 0)
        return 1;
    (void)pthread_attr_destroy(&attr);
    return run.failed;
}

#endif
