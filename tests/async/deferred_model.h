/* SPDX-License-Identifier: MIT */
/* deferred_model.h - deferreds as a page of recursive functions over an array: no lists, no
 * atomics, no care for stack or memory. What they call, drop and report is written down as numbers,
 * and must be the same numbers that the real ones write. */
#ifndef SML_TESTS_DEFERRED_MODEL_H
#define SML_TESTS_DEFERRED_MODEL_H

#include <stdbool.h>
#include <stddef.h>

/* What a callback does after it has been written down. `other` is the next deferred in the
 * array. */
enum act {
    ACT_NOTHING,
    ACT_FLIP,         /* a value becomes a failure, a failure a value NULL */
    ACT_RETURN_OTHER, /* and the acts on itself and others only while the user has them */
    ACT_ADD,
    ACT_FIRE_OTHER,
    ACT_CANCEL_OTHER,
    ACT_UNREF,
    ACT_PAUSE,
    ACT_COUNT
};

enum canceller { CANCELLER_NONE, CANCELLER_IDLE, CANCELLER_LATER, CANCELLER_FIRES, CANCELLERS };

/* The journal: what happened, in order. */
enum { EVENT_CALL = 1000, EVENT_DROP = 20000, EVENT_REPORT = 30000, EVENT_CANCELLER = 40000 };
#define EVENTS_MAX 4096

struct events {
    int count;
    int list[EVENTS_MAX];
};

void events_add(struct events *events, int event);

#define MODEL_MAX 4
#define MODEL_STEPS_MAX 512

struct model_step {
    bool is_join;
    int follower; /* of a join */
    enum act act;
    int id;
};

struct model_deferred {
    bool user; /* the user has a reference */
    int refs, held, paused, source;
    int claim; /* 0 open, 1 fired, 2 one late result is swallowed, 3 chained */
    bool dead, has_result, running, asked, cancelled;
    int status, value; /* value 0: NULL */
    enum canceller canceller;
    int count;
    struct model_step steps[MODEL_STEPS_MAX];
};

struct model {
    int size, items, ids; /* items and step ids given so far: as the real ones count them */
    struct model_deferred list[MODEL_MAX];
    struct events events;
};

void model_init(struct model *model, int size, const enum canceller *cancellers);
/* The user makes it anew; it must have let the old one go. It must be gone. */
void model_create(struct model *model, int d, enum canceller canceller);

/* As the public functions; int for enum semel_status. */
int model_fire(struct model *model, int d, int status);
int model_then(struct model *model, int d, enum act act);
int model_chain(struct model *model, int d, int target);
void model_cancel(struct model *model, int d);
int model_pause(struct model *model, int d);
int model_resume(struct model *model, int d);
void model_unref(struct model *model, int d); /* the user's */
bool model_shows_result(const struct model *model, int d);
bool model_is_gone(const struct model *model, int d);

#endif
