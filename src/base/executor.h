/* SPDX-License-Identifier: MIT */
/* executor.h - what runs callbacks, as code without threads and clocks sees it.
 *
 * A struct semel_loop begins with one; so does the hand-driven executor of the tests. */
#ifndef SML_BASE_EXECUTOR_H
#define SML_BASE_EXECUTOR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <semel/loop.h>

#include "base/heap.h"
#include "base/mem.h"
#include "base/spares.h"

struct semel_fired;
struct sml_executor;

/* A moment at which something is to be done; the owner's memory. */
struct sml_moment {
    struct sml_heap_node node; /* key: monotonic ns */
    void (*fn)(struct sml_moment *moment);
};

static inline void sml_moment_init(struct sml_moment *moment, void (*fn)(struct sml_moment *moment))
{
    sml_heap_node_init(&moment->node);
    moment->fn = fn;
}

struct sml_executor_ops {
    /* Is this the thread that callbacks run on? In a forked child no thread is, and posting does
     * nothing. */
    bool (*is_here)(const struct sml_executor *executor);
    /* Any thread: run the task there. Never fails; the task must not wait already. */
    void (*post)(struct sml_executor *executor, struct semel_task *task);
    /* The executor's thread: call moment->fn at `at`, once, out of any callback; and not after all.
     * A moment that is armed is moved; disarming one that is not is harmless. */
    void (*arm)(struct sml_executor *executor, struct sml_moment *moment, uint64_t at);
    void (*disarm)(struct sml_executor *executor, struct sml_moment *moment);
    uint64_t (*now)(struct sml_executor *executor); /* monotonic ns */
    /* A failure that nobody handled. */
    void (*unhandled)(struct sml_executor *executor, const struct semel_fired *fired);
};

/* The sizes of which memory is kept: deferreds, without and with a record beside them. */
enum sml_spare_kind { SML_SPARE_PLAIN, SML_SPARE_WIDE, SML_SPARE_KINDS };

struct sml_executor {
    const struct sml_executor_ops *ops;
    const struct sml_mem *mem;
    _Atomic(uint32_t) users;                   /* deferreds, locks and queues that lie with it */
    uint32_t spares_max;                       /* of each kind; 0 where threads share it */
    struct sml_spares spares[SML_SPARE_KINDS]; /* its thread's */
};

/* The executor of those without a loop: it is here always, on every thread, allocates from libc,
 * and can neither post nor arm. Nothing of it changes, so that threads share it. */
extern struct sml_executor sml_no_loop;

static inline struct sml_executor *sml_executor_of(struct semel_loop *loop)
{
    return loop ? (struct sml_executor *)(void *)loop : &sml_no_loop;
}

/* Can it post and arm? */
static inline bool sml_executor_has_loop(const struct sml_executor *executor)
{
    return executor != &sml_no_loop;
}

/* Something lies with it from now on, until sml_executor_leave: it cannot be destroyed. */
static inline void sml_executor_enter(struct sml_executor *executor)
{
    if (sml_executor_has_loop(executor))
        (void)atomic_fetch_add_explicit(&executor->users, 1, memory_order_relaxed);
}

/* It ends: the memory that it has kept goes. */
static inline void sml_executor_free_spares(struct sml_executor *executor)
{
    for (int kind = 0; kind < SML_SPARE_KINDS; kind++)
        sml_spares_free(&executor->spares[kind], executor->mem);
}

static inline void sml_executor_leave(struct sml_executor *executor)
{
    if (sml_executor_has_loop(executor))
        (void)atomic_fetch_sub_explicit(&executor->users, 1, memory_order_release);
}

#endif
