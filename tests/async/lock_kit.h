/* SPDX-License-Identifier: MIT */
/* lock_kit.h - what the tests of locks and queues share: who was called, in which order. */
#ifndef SML_TESTS_LOCK_KIT_H
#define SML_TESTS_LOCK_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <semel/lock.h>
#include <semel/queue.h>

#include "kit/hand_executor.h"

/* What happened, as words: "a b:cancelled ". */
struct told {
    char text[400];
};

struct note {
    struct told *told;
    const char *name;
};

static inline void tell(struct told *told, const char *name, enum semel_status status)
{
    size_t at = strlen(told->text);

    if (status == SEMEL_OK)
        (void)snprintf(told->text + at, sizeof told->text - at, "%s ", name);
    else
        (void)snprintf(told->text + at, sizeof told->text - at, "%s:%s ", name,
                       semel_status_name(status));
}

static inline void assert_told(struct told *told, const char *words)
{
    assert_string_equal(told->text, words);
    told->text[0] = '\0';
}

/* A callback for values and failures, which it takes; `user` is a struct note. */
static inline struct semel_deferred *on_result(struct semel_fired *fired, void *user)
{
    struct note *note = user;

    tell(note->told, note->name, fired->status);
    semel_fired_set_value(fired, NULL, NULL);
    return NULL;
}

static inline void note_result(struct semel_deferred *deferred, struct note *note)
{
    assert_int_equal(semel_deferred_then(deferred, on_result, on_result, note), SEMEL_OK);
}

/* A body that is done when it returns; `user` is a struct note. */
static inline struct semel_deferred *body_now(struct semel_fired *fired, void *user)
{
    struct note *note = user;

    (void)fired;
    tell(note->told, note->name, SEMEL_OK);
    return NULL;
}

static inline bool has_fired(const struct semel_deferred *deferred)
{
    return semel_deferred_result(deferred) != NULL;
}

#endif
