/* SPDX-License-Identifier: MIT */
#include "async/deferred_model.h"

#include <semel/status.h>
#include <stdlib.h>
#include <string.h>

static void check(bool holds)
{
    if (!holds)
        abort();
}

void events_add(struct events *events, int event)
{
    check(events->count < EVENTS_MAX);
    events->list[events->count++] = event;
}

void model_create(struct model *model, int d, enum canceller canceller)
{
    struct model_deferred *it = &model->list[d];

    memset(it, 0, offsetof(struct model_deferred, steps));
    it->user = true;
    it->refs = 1;
    it->source = -1;
    it->canceller = canceller;
}

void model_init(struct model *model, int size, const enum canceller *cancellers)
{
    model->size = size;
    model->items = model->ids = model->events.count = 0;
    for (int d = 0; d < size; d++)
        model_create(model, d, cancellers[d]);
}

/* --- results ------------------------------------------------------------------------------ */

static void set(struct model *model, int d, int status, int value)
{
    struct model_deferred *it = &model->list[d];
    const int old = it->value;

    it->status = status;
    it->value = value;
    if (old && old != value)
        events_add(&model->events, EVENT_DROP + old);
}

static void move(struct model *model, int to, int from)
{
    model->list[to].status = model->list[from].status;
    model->list[to].value = model->list[from].value;
    model->list[from].status = SEMEL_OK;
    model->list[from].value = 0;
}

/* --- life --------------------------------------------------------------------------------- */

static void run(struct model *model, int d);
static void destroy(struct model *model, int d);

static bool let_go(struct model *model, int d)
{
    struct model_deferred *it = &model->list[d];

    if (--it->refs > 0)
        return false;
    it->dead = it->held > 0;
    return !it->dead;
}

static void unref(struct model *model, int d)
{
    if (let_go(model, d))
        destroy(model, d);
}

static void release(struct model *model, int d)
{
    if (--model->list[d].held == 0 && model->list[d].dead)
        destroy(model, d);
}

static void proceed(struct model *model, int d)
{
    const struct model_deferred *it = &model->list[d];

    if (it->has_result && !it->running && it->paused == 0 && it->count > 0)
        run(model, d);
}

static void arrive(struct model *model, int d)
{
    model->list[d].has_result = true;
    proceed(model, d);
}

static void destroy(struct model *model, int d)
{
    struct model_deferred *it = &model->list[d];

    it->claim = 1; /* nobody can cancel it any more */
    if (it->has_result && it->status && !(it->status == SEMEL_CANCELLED && it->asked))
        events_add(&model->events, EVENT_REPORT + it->status);
    set(model, d, SEMEL_OK, 0);
    for (int i = 0; i < it->count; i++) {
        const int follower = it->steps[i].follower;

        if (!it->steps[i].is_join)
            continue;
        model->list[follower].source = -1;
        if (let_go(model, follower)) {
            destroy(model, follower);
        } else {
            set(model, follower, SEMEL_DROPPED, 0);
            model->list[follower].claim = 1;
            arrive(model, follower);
        }
    }
    it->refs = -1;
}

/* --- running ------------------------------------------------------------------------------ */

static void push(struct model *model, int d, struct model_step step)
{
    struct model_deferred *it = &model->list[d];

    check(it->count < MODEL_STEPS_MAX);
    it->steps[it->count++] = step;
}

static bool waits_for(const struct model *model, int d, int other)
{
    for (; d >= 0; d = model->list[d].source)
        if (d == other)
            return true;
    return false;
}

static bool is_ready(const struct model_deferred *it)
{
    return it->has_result && !it->running && it->paused == 0;
}

/* A callback of d returned `inner`, with a reference. */
static void wait_for(struct model *model, int d, int inner)
{
    if (waits_for(model, inner, d)) {
        set(model, d, SEMEL_INVALID, 0);
        unref(model, inner);
        return;
    }
    set(model, d, SEMEL_OK, 0);
    if (is_ready(&model->list[inner])) {
        move(model, d, inner);
    } else {
        model->list[d].has_result = model->list[d].dead = false;
        model->list[d].refs++;
        model->list[d].source = inner;
        push(model, inner, (struct model_step){ .is_join = true, .follower = d });
    }
    unref(model, inner);
}

static void call(struct model *model, int d, struct model_step step)
{
    struct model_deferred *it = &model->list[d];
    const int other = (d + 1) % model->size;
    const bool has_other = model->list[other].user;

    events_add(&model->events, EVENT_CALL + step.id * 100 + (it->status ? it->status : it->value));
    if (step.act == ACT_FLIP)
        set(model, d, it->status ? SEMEL_OK : SEMEL_LIMIT, 0);
    else if (step.act == ACT_ADD && it->user)
        (void)model_then(model, d, ACT_NOTHING);
    else if (step.act == ACT_FIRE_OTHER && has_other)
        (void)model_fire(model, other, SEMEL_OK);
    else if (step.act == ACT_CANCEL_OTHER && has_other)
        model_cancel(model, other);
    else if (step.act == ACT_UNREF && it->user)
        model_unref(model, d);
    else if (step.act == ACT_PAUSE && it->user)
        (void)model_pause(model, d);
    else if (step.act == ACT_RETURN_OTHER && has_other) {
        model->list[other].refs++;
        wait_for(model, d, other);
    }
}

static void pass_on(struct model *model, int d, int follower)
{
    model->list[follower].source = -1;
    move(model, follower, d);
    model->list[follower].claim = 1;
    model->list[follower].has_result = true;
    model->list[follower].held++;
    unref(model, follower);
    proceed(model, follower);
    release(model, follower);
}

static void run(struct model *model, int d)
{
    struct model_deferred *it = &model->list[d];

    it->held++;
    it->running = true;
    while (it->has_result && it->paused == 0 && it->count > 0) {
        const struct model_step step = it->steps[0];

        memmove(it->steps, it->steps + 1, (size_t)--it->count * sizeof step);
        if (step.is_join)
            pass_on(model, d, step.follower);
        else
            call(model, d, step);
    }
    it->running = false;
    release(model, d);
}

/* --- what the user does ------------------------------------------------------------------- */

int model_fire(struct model *model, int d, int status)
{
    struct model_deferred *it = &model->list[d];
    const int item = status ? 0 : ++model->items;

    if (it->claim == 2) {
        it->claim = 1;
        if (item)
            events_add(&model->events, EVENT_DROP + item);
        return SEMEL_OK;
    }
    if (it->claim)
        return it->claim == 1 ? SEMEL_ALREADY : SEMEL_INVALID;
    it->claim = 1;
    set(model, d, status, item);
    arrive(model, d);
    return SEMEL_OK;
}

int model_then(struct model *model, int d, enum act act)
{
    push(model, d, (struct model_step){ .act = act, .id = ++model->ids });
    proceed(model, d);
    return SEMEL_OK;
}

int model_chain(struct model *model, int d, int target)
{
    if (d == target || waits_for(model, d, target) || model->list[target].claim)
        return SEMEL_INVALID;
    model->list[target].claim = 3;
    model->list[target].source = d;
    model->list[target].refs++;
    push(model, d, (struct model_step){ .is_join = true, .follower = target });
    proceed(model, d);
    return SEMEL_OK;
}

void model_cancel(struct model *model, int d)
{
    struct model_deferred *it = &model->list[d];

    it->asked = true;
    while (it->source >= 0) {
        d = it->source;
        it = &model->list[d];
        it->asked = true;
    }
    if (it->cancelled || it->claim)
        return;
    it->cancelled = true;
    it->held++;
    if (it->canceller)
        events_add(&model->events, EVENT_CANCELLER + d);
    if (it->canceller == CANCELLER_FIRES)
        (void)model_fire(model, d, SEMEL_OK);
    if (it->canceller != CANCELLER_LATER && !it->claim) {
        it->claim = it->canceller ? 1 : 2;
        set(model, d, SEMEL_CANCELLED, 0);
        arrive(model, d);
    }
    release(model, d);
}

int model_pause(struct model *model, int d)
{
    model->list[d].paused++;
    return SEMEL_OK;
}

int model_resume(struct model *model, int d)
{
    if (model->list[d].paused == 0)
        return SEMEL_INVALID;
    model->list[d].paused--;
    proceed(model, d);
    return SEMEL_OK;
}

void model_unref(struct model *model, int d)
{
    model->list[d].user = false;
    unref(model, d);
}

bool model_shows_result(const struct model *model, int d)
{
    return is_ready(&model->list[d]);
}

bool model_is_gone(const struct model *model, int d)
{
    return model->list[d].refs < 0;
}
