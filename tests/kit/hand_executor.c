/* SPDX-License-Identifier: MIT */
#include "kit/hand_executor.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/compiler.h"
#include "base/time.h"

#define RUN_MAX ((size_t)1 << 20)

static struct hand *hand_of(struct sml_executor *executor)
{
    return SML_CONTAINER(executor, struct hand, executor);
}

static bool is_here(const struct sml_executor *executor)
{
    return !((const struct hand *)(const void *)executor)->away;
}

static void post(struct sml_executor *executor, struct semel_task *task)
{
    struct hand *hand = hand_of(executor);

    SML_ASSERT(task->fn && !task->next);
    task->next = &hand->end;
    if (hand->first)
        hand->last->next = task;
    else
        hand->first = task;
    hand->last = task;
    hand->waiting++;
}

static void arm(struct sml_executor *executor, struct sml_moment *moment, uint64_t at)
{
    struct hand *hand = hand_of(executor);

    SML_ASSERT(!hand->away);
    sml_heap_remove(&hand->moments, &moment->node);
    sml_heap_insert(&hand->moments, &moment->node, at);
}

static void disarm(struct sml_executor *executor, struct sml_moment *moment)
{
    struct hand *hand = hand_of(executor);

    SML_ASSERT(!hand->away);
    sml_heap_remove(&hand->moments, &moment->node);
}

static uint64_t now(struct sml_executor *executor)
{
    return hand_of(executor)->now;
}

static void unhandled(struct sml_executor *executor, const struct semel_fired *fired)
{
    struct hand *hand = hand_of(executor);

    SML_ASSERT(fired->status != SEMEL_OK);
    hand->unhandled++;
    hand->last_unhandled = *fired;
    hand->last_unhandled.value = NULL; /* not ours */
    hand->last_unhandled.drop = NULL;
}

static const struct sml_executor_ops hand_ops = {
    .is_here = is_here,
    .post = post,
    .arm = arm,
    .disarm = disarm,
    .now = now,
    .unhandled = unhandled,
};

static void *hand_alloc(void *user, size_t bytes)
{
    struct hand *hand = user;
    size_t n = ++hand->allocated;
    void *block = NULL;

    if (hand->fail_at == 0 || n < hand->fail_at || (n > hand->fail_at && !hand->fail_stays))
        block = malloc(bytes);
    hand->blocks += block != NULL;
    return block;
}

static void hand_release(void *user, void *pointer)
{
    struct hand *hand = user;

    SML_ASSERT(!pointer || hand->blocks > 0);
    hand->blocks -= pointer != NULL;
    free(pointer);
}

void hand_init(struct hand *hand)
{
    memset(hand, 0, sizeof(*hand));
    hand->mem = (struct sml_mem){ hand_alloc, hand_release, hand };
    hand->executor.ops = &hand_ops;
    hand->executor.mem = &hand->mem;
    atomic_init(&hand->executor.users, 0);
    hand->now = SML_SECOND;
    sml_heap_init(&hand->moments);
}

void hand_fini(struct hand *hand)
{
    SML_ASSERT(hand->blocks == 0);
    SML_ASSERT(atomic_load(&hand->executor.users) == 0);
    SML_ASSERT(hand->waiting == 0 && !hand->first);
    SML_ASSERT(!sml_heap_min(&hand->moments));
}

bool hand_run_one(struct hand *hand)
{
    struct semel_task *task = hand->first;
    semel_task_fn fn;
    void *user;

    if (!task)
        return false;
    hand->first = task->next == &hand->end ? NULL : task->next;
    hand->waiting--;
    hand->ran++;
    fn = task->fn;
    user = task->user;
    task->next = NULL;
    fn(user); /* it may free the task, or post it again */
    return true;
}

size_t hand_run(struct hand *hand)
{
    size_t count = 0;

    while (hand_run_one(hand))
        SML_ASSERT(++count <= RUN_MAX);
    return count;
}

void hand_advance(struct hand *hand, uint64_t ns)
{
    uint64_t end = sml_time_add(hand->now, ns);

    while (hand_next(hand) <= end) {
        struct sml_heap_node *node = sml_heap_min(&hand->moments);
        struct sml_moment *moment = SML_CONTAINER(node, struct sml_moment, node);

        hand->now = sml_time_max(hand->now, node->key);
        sml_heap_remove(&hand->moments, node);
        hand->ran++;
        moment->fn(moment);
        (void)hand_run(hand);
    }
    hand->now = end;
    (void)hand_run(hand);
}

uint64_t hand_next(const struct hand *hand)
{
    return sml_heap_min_key(&hand->moments);
}

void hand_fail_at(struct hand *hand, size_t n)
{
    hand->fail_at = n == 0 ? 0 : hand->allocated + n;
}
