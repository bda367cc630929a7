/* SPDX-License-Identifier: MIT */
/* task.c - futures: what a run says becomes words of task_state.h, and these what is told.
 *
 * Every word goes through sml_task_hear; whatever is not legal cannot happen here, and is an
 * invariant. The first thing that a run says, whatever it is, stands for *started*. An end without
 * a sign of a beginning is two words, started and raised, and one change: what has not run is not
 * called executing.
 *
 * Whoever calls back holds a reference, and looks at the future again afterwards: the callback may
 * have cancelled it, given it back, or stopped the executor. Only destroying that is refused. */
#include <stdlib.h>
#include <string.h>

#include "async/deferred.h"
#include "base/check.h"
#include "proc/task_internal.h"

static void hear(struct semel_future *future, enum sml_task_word word)
{
    bool legal = sml_task_hear(&future->stage, word);

    SML_ASSERT(legal);
}

static bool has_begun(const struct semel_future *future)
{
    return future->stage != SML_TASK_AT_WAITING && future->stage != SML_TASK_AT_CANCELLING_WAITING;
}

static bool is_cancelled(const struct semel_future *future)
{
    return future->stage == SML_TASK_AT_CANCELLING_WAITING ||
           future->stage == SML_TASK_AT_CANCELLING_EXECUTING;
}

static bool is_done(const struct semel_future *future)
{
    return sml_task_is_done(sml_task_state(future->stage));
}

struct semel_future *semel_future_ref(struct semel_future *future)
{
    if (future)
        future->refs++;
    return future;
}

void semel_future_unref(struct semel_future *future)
{
    if (future == NULL || --future->refs > 0)
        return;
    semel_result_clear(&future->result);
    free(future);
}

/* --- telling -------------------------------------------------------------------------------- */

void sml_future_tell(struct semel_future *future)
{
    enum semel_future_state state = sml_task_state(future->stage);
    unsigned changes = sml_task_changes(future->told, state);
    struct semel_executor *executor = future->executor;

    if (changes == 0)
        return;
    future->told = state;
    if (future->options.on_change == NULL)
        return;
    executor->telling++;
    future->options.on_change(future, changes, future->options.user);
    executor->telling--;
}

static void tell_item(struct semel_future *future, const struct semel_item *item)
{
    struct semel_executor *executor = future->executor;
    const struct semel_task_options *options = &future->options;

    executor->telling++;
    if (item->kind == SEMEL_ITEM && options->on_item)
        options->on_item(future, item->bytes, options->user);
    else if (item->kind == SEMEL_ITEM_PROGRESS && item->bytes.size > 0 && options->on_progress)
        options->on_progress(future, item->bytes, options->user);
    else if (item->kind == SEMEL_ITEM_RESTARTED && options->on_restart)
        options->on_restart(future, options->user);
    executor->telling--;
}

/* --- the beginning ---------------------------------------------------------------------------- */

static void count_begun(struct semel_future *future)
{
    if (future->begun)
        return;
    future->begun = true;
    sml_executor_count_begun(future->executor);
}

static void start(struct semel_future *future)
{
    if (has_begun(future))
        return;
    hear(future, SML_TASK_STARTED);
    count_begun(future);
    sml_future_tell(future);
}

/* --- the end -------------------------------------------------------------------------------- */

static void fire(struct sml_future_waiter *waiter)
{
    struct semel_future *future = waiter->future;
    struct semel_deferred *deferred = waiter->deferred;
    struct semel_fired fired;

    sml_fired_init(&fired);
    if (future->stage == SML_TASK_AT_CANCELLED)
        sml_fired_fail(&fired, SEMEL_CANCELLED, 0, NULL);
    else if (future->stage == SML_TASK_AT_FAILED)
        sml_fired_fail(&fired, future->result.status, future->result.code, future->result.text);
    fired.value = future;
    fired.drop = (void (*)(void *))semel_future_unref;
    (void)sml_deferred_fire_with(deferred, &fired);
    semel_deferred_unref(deferred);
}

/* The run is over, and let go. It is told, once, and then nothing any more. */
static void finish(struct semel_future *future)
{
    struct semel_executor *executor = future->executor;
    struct sml_list waiters;
    struct sml_list *node;

    SML_ASSERT(is_done(future));
    count_begun(future);
    sml_list_remove(&future->link);
    sml_executor_count_done(executor);
    executor->telling++; /* it is not destroyed in what follows */
    sml_future_tell(future);
    memset(&future->options, 0, sizeof future->options);
    sml_list_init(&waiters);
    sml_list_move_all(&waiters, &future->waiters);
    future->executor = NULL;
    while ((node = sml_list_pop_front(&waiters)) != NULL)
        fire(SML_CONTAINER(node, struct sml_future_waiter, link));
    executor->telling--;
    sml_executor_settle(executor);
    semel_future_unref(future);
}

static enum semel_outcome let_run_go(struct semel_future *future)
{
    struct semel_executor *executor = future->executor;
    enum semel_outcome outcome;

    future->pid = future->run->ops->pid(future->run);
    outcome = future->run->ops->close(future->run);
    future->run = NULL;
    sml_mutex_lock(&executor->lock);
    sml_list_remove(&future->ready_link);
    sml_mutex_unlock(&executor->lock);
    return outcome;
}

static void end_cancelled(struct semel_future *future, enum semel_outcome outcome)
{
    if (has_begun(future)) {
        hear(future, outcome == SEMEL_VALUE ? SML_TASK_RETURNED : SML_TASK_RAISED);
    } else if (outcome == SEMEL_NOT_EXECUTED) {
        hear(future, SML_TASK_ABANDONED);
    } else {
        hear(future, SML_TASK_STARTED);
        hear(future, outcome == SEMEL_VALUE ? SML_TASK_RETURNED : SML_TASK_RAISED);
    }
}

/* `result` moves in. */
static void end(struct semel_future *future, struct semel_result *result, bool complete)
{
    enum semel_outcome outcome = result->outcome;

    (void)let_run_go(future);
    future->outcome = outcome;
    if (outcome == SEMEL_VALUE || outcome == SEMEL_FAILURE)
        start(future); /* in whose callback it may be cancelled */
    if (is_cancelled(future)) {
        semel_result_clear(result);
        end_cancelled(future, outcome);
    } else {
        if (!has_begun(future))
            hear(future, SML_TASK_STARTED);
        future->result = *result;
        if (outcome == SEMEL_VALUE && !complete)
            future->result.status = SEMEL_PARTS_LOST;
        hear(future, future->result.status == SEMEL_OK ? SML_TASK_RETURNED : SML_TASK_RAISED);
    }
    finish(future);
}

void sml_future_give_up(struct semel_future *future)
{
    future->given_up = true;
    (void)semel_future_cancel(future);
    future->outcome = let_run_go(future);
    end_cancelled(future, future->outcome);
    finish(future);
}

/* --- serving -------------------------------------------------------------------------------- */

void sml_future_stir(void *user)
{
    struct semel_future *future = user;
    struct semel_executor *executor = future->executor;
    bool attended;

    sml_mutex_lock(&executor->lock);
    if (!sml_list_linked(&future->ready_link))
        sml_list_push_back(&executor->ready, &future->ready_link);
    attended = executor->attended;
    sml_mutex_unlock(&executor->lock);
    if (!attended)
        sml_wake_signal(
            &executor->wake); /* a run is not closed while it stirs: it is there still */
    sml_news_tell(&executor->news);
}

/* One thing that the run says. False: it says nothing now, or the future is done. */
static bool serve_one(struct semel_future *future, bool *out_more)
{
    struct semel_result result;
    struct semel_item item;
    enum semel_status status = future->run->ops->next(future->run, &item);

    *out_more = false;
    if (status == SEMEL_OK) {
        start(future);
        if (!is_cancelled(future))
            tell_item(future, &item);
        return true;
    }
    *out_more = status == SEMEL_NO_MEMORY;
    if (status == SEMEL_END || status == SEMEL_PARTS_LOST) {
        future->run->ops->result(future->run, &result);
        end(future, &result, status == SEMEL_END);
    }
    return false;
}

bool sml_future_serve(struct semel_future *future, unsigned budget)
{
    bool more = true;

    semel_future_ref(future);
    while (budget > 0 && future->run && serve_one(future, &more))
        budget--;
    if (budget == 0)
        more = future->run != NULL;
    semel_future_unref(future);
    return more;
}

/* --- from the application --------------------------------------------------------------------- */

enum semel_future_state semel_future_state(const struct semel_future *future)
{
    return future ? sml_task_state(future->stage) : SEMEL_FUTURE_CANCELLED;
}

bool semel_future_is_cancellable(const struct semel_future *future)
{
    return future && sml_task_is_cancellable(sml_task_state(future->stage));
}

bool semel_future_is_done(const struct semel_future *future)
{
    return future && is_done(future);
}

bool semel_future_cancel(struct semel_future *future)
{
    if (!semel_future_is_cancellable(future) || sml_executor_admit(future->executor) != SEMEL_OK)
        return false;
    hear(future, SML_TASK_CANCELLED);
    if (!future->given_up && future->run)
        future->run->ops->cancel(future->run);
    sml_future_tell(future);
    return true;
}

enum semel_status semel_future_kill(struct semel_future *future)
{
    enum semel_status status;

    if (future == NULL)
        return SEMEL_INVALID;
    if (is_done(future) || future->run == NULL)
        return SEMEL_ALREADY;
    status = sml_executor_admit(future->executor);
    return status == SEMEL_OK ? future->run->ops->kill(future->run) : status;
}

int semel_future_pid(const struct semel_future *future)
{
    if (future == NULL)
        return 0;
    return future->run ? future->run->ops->pid(future->run) : future->pid;
}

const struct semel_result *semel_future_result(const struct semel_future *future)
{
    if (future == NULL ||
        (future->stage != SML_TASK_AT_COMPLETED && future->stage != SML_TASK_AT_FAILED))
        return NULL;
    return &future->result;
}

enum semel_outcome semel_future_outcome(const struct semel_future *future)
{
    return semel_future_is_done(future) ? future->outcome : SEMEL_UNKNOWN;
}

/* --- as a deferred ---------------------------------------------------------------------------- */

static bool cancel_deferred(struct semel_deferred *deferred, void *user)
{
    const struct sml_future_waiter *waiter = sml_deferred_extra(deferred);

    (void)user;
    (void)semel_future_cancel(waiter->future);
    return true; /* its end will fire it */
}

enum semel_status semel_future_defer(struct semel_future *future, struct semel_deferred **out)
{
    struct semel_executor *executor = future ? future->executor : NULL;
    struct semel_deferred *deferred;
    struct sml_future_waiter *waiter;
    enum semel_status status;

    if (future == NULL || out == NULL)
        return SEMEL_INVALID;
    if (executor == NULL)
        return SEMEL_ALREADY;
    status = sml_executor_admit(executor);
    if (status != SEMEL_OK)
        return status;
    deferred = sml_deferred_new(executor->loop, cancel_deferred, NULL, sizeof *waiter);
    if (deferred == NULL)
        return SEMEL_NO_MEMORY;
    waiter = sml_deferred_extra(deferred);
    waiter->deferred = deferred;
    waiter->future = semel_future_ref(future);
    sml_list_init(&waiter->link);
    sml_list_push_back(&future->waiters, &waiter->link);
    *out = semel_deferred_ref(deferred);
    return SEMEL_OK;
}
