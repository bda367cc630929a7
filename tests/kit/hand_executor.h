/* SPDX-License-Identifier: MIT */
/* hand_executor.h - an executor that a test drives by hand: tasks wait until it says so, time moves
 * when it says so, memory ends when it says so. */
#ifndef SML_TESTS_HAND_EXECUTOR_H
#define SML_TESTS_HAND_EXECUTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <semel/deferred.h>

#include "base/executor.h"

struct hand {
    struct sml_executor executor; /* first: see hand_loop */
    struct sml_mem mem;

    /* Set by the test as it likes. */
    uint64_t now; /* ns; better moved by hand_advance */
    bool away;    /* the calling thread is not the executor's */

    /* Tasks that wait, in order. */
    struct semel_task *first, *last;
    struct semel_task end; /* the last one's `next`: it waits, so it is not NULL */
    size_t waiting;
    struct sml_heap moments;

    /* Counted. */
    size_t blocks;                     /* allocated now */
    size_t allocated;                  /* since init, failed ones too */
    size_t fail_at;                    /* the allocation with this number fails; 0: none */
    bool fail_stays;                   /* and all later ones */
    size_t ran;                        /* tasks and moments called */
    size_t unhandled;                  /* failures reported */
    struct semel_fired last_unhandled; /* without its value */
};

/* Time starts at one second. */
void hand_init(struct hand *hand);

/* Aborts if something is left: blocks, users, tasks, moments. */
void hand_fini(struct hand *hand);

/* What the public functions want for a loop. */
static inline struct semel_loop *hand_loop(struct hand *hand)
{
    return (struct semel_loop *)(void *)hand;
}

/* Run the task that waits longest. False: none did. */
bool hand_run_one(struct hand *hand);
/* Run tasks until none waits, at most 2^20 of them. Returns how many ran. */
size_t hand_run(struct hand *hand);

/* Let `ns` pass: moments are called in their order, each at its own time, and the tasks that they
 * post run before time goes on; then what waits now is run. */
void hand_advance(struct hand *hand, uint64_t ns);

/* The next moment; SML_NEVER: none. */
uint64_t hand_next(const struct hand *hand);

/* The n-th allocation from now fails; 0: none. */
void hand_fail_at(struct hand *hand, size_t n);

#endif
