/* SPDX-License-Identifier: MIT */
/* executor.h - what runs callbacks, as code without threads and clocks sees it.
 *
 * A struct semel_loop begins with one; so does the hand-driven executor of the tests. */
#ifndef SML_BASE_EXECUTOR_H
#define SML_BASE_EXECUTOR_H

#include <semel/loop.h>

#include "base/heap.h"
#include "base/mem.h"

struct semel_fired;
struct sml_executor;

/* A moment at which something is to be done; the owner's memory. */
struct sml_moment {
    struct sml_heap_node node; /* key: monotonic ns */
    void (*fn)(struct sml_moment *moment);
};

struct sml_executor_ops {
    /* Is this the thread that callbacks run on? */
    bool (*is_here)(const struct sml_executor *executor);
    /* Any thread: run the task there. Never fails; the task must not wait already. */
    void (*post)(struct sml_executor *executor, struct semel_task *task);
    /* The executor's thread: call moment->fn at node.key, once; and not after all. */
    void (*arm)(struct sml_executor *executor, struct sml_moment *moment, uint64_t at);
    void (*disarm)(struct sml_executor *executor, struct sml_moment *moment);
    uint64_t (*now)(struct sml_executor *executor); /* monotonic ns */
    /* A failure that nobody handled. */
    void (*unhandled)(struct sml_executor *executor, const struct semel_fired *fired);
};

struct sml_executor {
    const struct sml_executor_ops *ops;
    const struct sml_mem *mem;
    _Atomic(uint32_t) users; /* deferreds, locks and queues that lie with it */
};

/* NULL: the executor of those without a loop, which is here always and can neither post nor arm. */
static inline struct sml_executor *sml_executor_of(struct semel_loop *loop)
{
    extern struct sml_executor sml_no_loop;

    return loop ? (struct sml_executor *)(void *)loop : &sml_no_loop;
}

#endif
