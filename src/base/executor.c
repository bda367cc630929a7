/* SPDX-License-Identifier: MIT */
/* executor.c - the executor of those without a loop. */
#include "base/executor.h"

#include "base/check.h"

static bool is_here(const struct sml_executor *executor)
{
    (void)executor;
    return true;
}

static void post(struct sml_executor *executor, struct semel_task *task)
{
    (void)executor;
    (void)task;
    SML_ASSERT(!"there is no loop to post to");
}

static void arm(struct sml_executor *executor, struct sml_moment *moment, uint64_t at)
{
    (void)executor;
    (void)moment;
    (void)at;
    SML_ASSERT(!"there is no loop to wait with");
}

static void disarm(struct sml_executor *executor, struct sml_moment *moment)
{
    (void)executor;
    (void)moment;
}

static uint64_t now(struct sml_executor *executor)
{
    (void)executor;
    return 0;
}

/* Without a loop there is no log hook to tell. */
static void unhandled(struct sml_executor *executor, const struct semel_fired *fired)
{
    (void)executor;
    (void)fired;
}

static const struct sml_executor_ops no_loop_ops = {
    .is_here = is_here,
    .post = post,
    .arm = arm,
    .disarm = disarm,
    .now = now,
    .unhandled = unhandled,
};

struct sml_executor sml_no_loop = { .ops = &no_loop_ops, .mem = &sml_mem_libc };
