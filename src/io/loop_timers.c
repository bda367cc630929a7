/* SPDX-License-Identifier: MIT */
/* loop_timers.c - moments in a heap; a public timer is a moment with a function of the user's. */
#include "io/loop_internal.h"

#include <stdlib.h>

#include "os/clock.h"

struct semel_timer {
    struct sml_grave grave; /* first: freed by it */
    struct sml_moment moment;
    struct semel_loop *loop;
    semel_task_fn fn;
    void *user;
    bool over; /* called or cancelled */
};

static struct sml_moment *moment_of(struct sml_heap_node *node)
{
    return SML_CONTAINER(node, struct sml_moment, node);
}

void sml_loop_set_alarm(struct semel_loop *loop)
{
    sml_alarm_move(&loop->alarm, sml_heap_min_key(&loop->moments));
}

/* The heap was changed: who is inside looks at it before it sleeps or leaves. */
static void changed(struct semel_loop *loop)
{
    if (!sml_loop_is_inside(loop))
        sml_loop_set_alarm(loop);
}

void sml_loop_executor_arm(struct sml_executor *executor, struct sml_moment *moment, uint64_t at)
{
    struct semel_loop *loop = (struct semel_loop *)(void *)executor;

    sml_heap_remove(&loop->moments, &moment->node);
    sml_heap_insert(&loop->moments, &moment->node, at ? at : 1); /* an alarm at 0 is none */
    changed(loop);
}

void sml_loop_executor_disarm(struct sml_executor *executor, struct sml_moment *moment)
{
    struct semel_loop *loop = (struct semel_loop *)(void *)executor;

    sml_heap_remove(&loop->moments, &moment->node);
    changed(loop);
}

bool sml_loop_run_moments(struct semel_loop *loop)
{
    uint64_t now;

    if (!sml_heap_min(&loop->moments))
        return true;
    /* The time is read once: what is armed meanwhile, even for now, is for the next turn. */
    now = sml_clock_now();
    while (sml_heap_min_key(&loop->moments) <= now) {
        struct sml_heap_node *node = sml_heap_min(&loop->moments);

        if (!node)
            break;
        sml_heap_remove(&loop->moments, node);
        moment_of(node)->fn(moment_of(node));
        if (!sml_loop_goes_on(loop))
            return false;
    }
    return true;
}

static void timer_due(struct sml_moment *moment)
{
    struct semel_timer *timer = SML_CONTAINER(moment, struct semel_timer, moment);

    timer->over = true;
    sml_loop_bury(timer->loop, &timer->grave); /* until this callback has returned */
    timer->fn(timer->user);
}

void sml_loop_drop_moments(struct semel_loop *loop)
{
    struct sml_heap_node *node;

    while ((node = sml_heap_min(&loop->moments)) != NULL) {
        sml_heap_remove(&loop->moments, node);
        if (moment_of(node)->fn == timer_due)
            free(SML_CONTAINER(moment_of(node), struct semel_timer, moment));
    }
}

enum semel_status semel_loop_timer(struct semel_loop *loop, int64_t delay_ms, semel_task_fn fn,
                                   void *user, struct semel_timer **out)
{
    struct semel_timer *timer;
    enum semel_status s;
    uint64_t at;

    if (!loop || !fn || delay_ms < 0 || delay_ms > INT32_MAX)
        return SEMEL_INVALID;
    s = sml_loop_admit(loop);
    if (s != SEMEL_OK)
        return s;
    timer = malloc(sizeof(*timer));
    if (!timer)
        return SEMEL_NO_MEMORY;
    *timer = (struct semel_timer){ .loop = loop, .fn = fn, .user = user };
    sml_moment_init(&timer->moment, timer_due);
    at = sml_time_add(sml_clock_now(), (uint64_t)delay_ms * SML_MS);
    sml_loop_executor_arm(&loop->executor, &timer->moment, at);
    if (out)
        *out = timer;
    return SEMEL_OK;
}

enum semel_status semel_timer_cancel(struct semel_timer *timer)
{
    enum semel_status s;

    if (!timer)
        return SEMEL_INVALID;
    s = sml_loop_admit(timer->loop);
    if (s != SEMEL_OK)
        return s;
    if (timer->over)
        return SEMEL_ALREADY;
    timer->over = true;
    sml_loop_executor_disarm(&timer->loop->executor, &timer->moment);
    sml_loop_bury(timer->loop, &timer->grave);
    return SEMEL_OK;
}
