/* SPDX-License-Identifier: MIT */
/* queue.c - items that wait for takers, or takers that wait for items.
 *
 * Invariants:
 *  1. Items and takers never wait at the same time.
 *  2. An item that is put while somebody waits belongs to that taker from then on: cancelling comes
 *     too late, and neither bound counts them any more.
 *  3. Only the outermost call of a queue tells takers. A taker's callback that puts an item gives
 *     it to the next one at once, but that one's callback is called when this one has returned: a
 *     line of any length needs the stack of one. */
#include <semel/queue.h>
#include <stdbool.h>

#include "async/deferred.h"
#include "base/compiler.h"
#include "base/executor.h"
#include "base/list.h"

#define BOUND_MAX INT32_MAX
#define BOUND_DEFAULT (UINT32_C(1) << 20)

struct item {
    struct item *next;
    void *value;
    void (*drop)(void *value);
};

struct semel_queue {
    struct sml_executor *executor;
    uint32_t items_max, takers_max;
    uint32_t items_count, takers_count;
    uint32_t busy; /* calls that are inside, up the stack: it is not freed */
    bool closed;   /* destroyed; freed when nobody is inside */
    struct item *first, **end;
    struct sml_list takers;
    struct sml_list served; /* have an item and do not know it yet; empty while nobody is inside */
};

/* Lies beside its deferred, and owns a reference to it. */
struct taker {
    struct sml_list node;
    struct semel_queue *queue;
    struct semel_deferred *out;
    void *value;
    void (*drop)(void *value);
    bool is_served;
};

static enum semel_status usable(const struct semel_queue *queue)
{
    if (queue == NULL)
        return SEMEL_INVALID;
    if (!sml_executor_is_here(queue->executor))
        return SEMEL_DENIED;
    return queue->closed ? SEMEL_STOPPED : SEMEL_OK;
}

enum semel_status semel_queue_create(struct semel_queue **out, struct semel_loop *loop,
                                     const struct semel_queue_options *options)
{
    static const struct semel_queue_options defaults = SEMEL_QUEUE_OPTIONS_INIT;
    struct sml_executor *executor = sml_executor_of(loop);
    struct semel_queue *queue;

    options = options ? options : &defaults;
    if (out == NULL || options->items > BOUND_MAX || options->takers > BOUND_MAX)
        return SEMEL_INVALID;
    if (!sml_executor_is_here(executor))
        return SEMEL_DENIED;
    queue = sml_alloc(executor->mem, sizeof *queue);
    if (queue == NULL)
        return SEMEL_NO_MEMORY;
    *queue = (struct semel_queue){
        .executor = executor,
        .items_max = options->items < 0 ? BOUND_DEFAULT : (uint32_t)options->items,
        .takers_max = options->takers < 0 ? BOUND_DEFAULT : (uint32_t)options->takers,
        .end = &queue->first,
    };
    sml_list_init(&queue->takers);
    sml_list_init(&queue->served);
    sml_executor_enter(executor);
    *out = queue;
    return SEMEL_OK;
}

/* --- items ----------------------------------------------------------------------------------- */

static void append(struct semel_queue *queue, struct item *item)
{
    item->next = NULL;
    *queue->end = item;
    queue->end = &item->next;
    queue->items_count++;
}

/* The oldest, moved to *out. There must be one. */
static void pop(struct semel_queue *queue, struct item *out)
{
    struct item *item = queue->first;

    *out = *item;
    queue->first = item->next;
    if (queue->first == NULL)
        queue->end = &queue->first;
    queue->items_count--;
    sml_release(queue->executor->mem, item);
}

/* --- takers ---------------------------------------------------------------------------------- */

static void serve(struct semel_queue *queue, void *value, void (*drop)(void *value))
{
    struct taker *taker = SML_CONTAINER(sml_list_pop_front(&queue->takers), struct taker, node);

    queue->takers_count--;
    taker->value = value;
    taker->drop = drop;
    taker->is_served = true;
    sml_list_push_back(&queue->served, &taker->node);
}

/* It knows now. A deferred that somebody else has fired takes nothing: its item is dropped. */
static void tell(struct taker *taker)
{
    struct semel_fired fired;

    sml_fired_init(&fired);
    fired.value = taker->value;
    fired.drop = taker->drop;
    (void)sml_deferred_settle(taker->out, &fired);
}

static void leave(struct semel_queue *queue)
{
    struct sml_executor *executor = queue->executor;
    struct sml_list *first;

    while (queue->busy == 1 && (first = sml_list_pop_front(&queue->served)) != NULL)
        tell(SML_CONTAINER(first, struct taker, node));
    if (--queue->busy != 0 || !queue->closed)
        return;
    sml_release(executor->mem, queue);
    sml_executor_leave(executor);
}

static bool cancel_taker(struct semel_deferred *out, void *user)
{
    struct taker *taker = sml_deferred_extra(out);

    (void)user;
    if (taker->is_served)
        return true; /* the item is as good as there */
    sml_list_remove(&taker->node);
    taker->queue->takers_count--;
    semel_deferred_unref(out);
    return false;
}

static void stop(struct taker *taker)
{
    struct semel_fired fired;

    taker->is_served = true;
    sml_fired_init(&fired);
    sml_fired_fail(&fired, SEMEL_STOPPED, 0, NULL);
    (void)sml_deferred_settle(taker->out, &fired);
}

void semel_queue_destroy(struct semel_queue *queue)
{
    struct sml_list *node;

    if (usable(queue) != SEMEL_OK)
        return;
    queue->busy++;
    queue->closed = true;
    while ((node = sml_list_pop_front(&queue->takers)) != NULL) {
        queue->takers_count--;
        stop(SML_CONTAINER(node, struct taker, node));
    }
    while (queue->first) {
        struct item item;

        pop(queue, &item);
        if (item.drop)
            item.drop(item.value);
    }
    leave(queue);
}

/* --- both ends ------------------------------------------------------------------------------- */

enum semel_status semel_queue_put(struct semel_queue *queue, void *value, void (*drop)(void *value))
{
    enum semel_status status = usable(queue);
    struct item *item;

    if (status != SEMEL_OK)
        return status;
    if (!sml_list_empty(&queue->takers)) {
        queue->busy++;
        serve(queue, value, drop);
        leave(queue);
        return SEMEL_OK;
    }
    if (queue->items_count >= queue->items_max)
        return SEMEL_OVERLOADED;
    item = sml_alloc(queue->executor->mem, sizeof *item);
    if (item == NULL)
        return SEMEL_NO_MEMORY;
    item->value = value;
    item->drop = drop;
    append(queue, item);
    return SEMEL_OK;
}

/* What waits first goes to the one who asks: it calls nobody, nobody has the deferred yet. */
static void take_first(struct semel_queue *queue, struct semel_deferred *out)
{
    struct semel_fired fired;
    struct item item;

    pop(queue, &item);
    sml_fired_init(&fired);
    fired.value = item.value;
    fired.drop = item.drop;
    (void)sml_deferred_fire_with(out, &fired);
}

enum semel_status semel_queue_get(struct semel_queue *queue, struct semel_deferred **out)
{
    enum semel_status status = usable(queue);
    struct semel_deferred *deferred;
    struct taker *taker;

    if (status == SEMEL_OK && out == NULL)
        status = SEMEL_INVALID;
    if (status != SEMEL_OK)
        return status;
    if (queue->first == NULL && queue->takers_count >= queue->takers_max)
        return SEMEL_OVERLOADED;
    deferred = sml_deferred_new(queue->executor, cancel_taker, NULL, sizeof *taker);
    if (deferred == NULL)
        return SEMEL_NO_MEMORY;
    *out = deferred;
    if (queue->first) {
        take_first(queue, deferred);
        return SEMEL_OK;
    }
    taker = sml_deferred_extra(deferred);
    *taker = (struct taker){ .queue = queue, .out = sml_deferred_ref_new(deferred) };
    sml_list_push_back(&queue->takers, &taker->node);
    queue->takers_count++;
    return SEMEL_OK;
}

uint32_t semel_queue_items(const struct semel_queue *queue)
{
    return queue ? queue->items_count : 0;
}

uint32_t semel_queue_takers(const struct semel_queue *queue)
{
    return queue ? queue->takers_count : 0;
}
