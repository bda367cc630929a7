/* SPDX-License-Identifier: MIT */
/* loop_tasks.c - tasks from any thread.
 *
 * `posted` is a stack that any thread pushes to with a compare-and-swap; the loop's thread takes
 * all of it at once and turns it over. Nothing is ever popped from it singly, so there is no ABA.
 *
 * The bell. Whoever pushes to an empty stack rings it, once for all that are pushed until the stack
 * is taken: a burst costs one wake. The loop's thread takes the ring first and the stack second. So
 * there is one ring, made or under way, exactly while the stack is not empty, and none is left
 * over: the descriptor is never readable for nothing. And when a task is taken, the thread that
 * rang for it does not touch the loop any more: the task may end the loop.
 *
 * What was taken and does not run in this turn waits in first..last. Nobody rings for it while the
 * loop is served; who leaves rings once (`owed`).
 *
 * A task's `next` says whether it waits: it does unless it is NULL, and the last one of a list
 * points to loop->end. Who finds that a task waits already relies on it to see, when it runs, what
 * was written before; so a post that is refused must be ordered before the moment when the loop
 * takes the mark away. Therefore that post writes, too (the value that it found), and every change
 * of `next` is a read-modify-write: together they are one release sequence, which ends in the
 * loop's acquiring exchange. A mark kept by plain loads and stores would lose that order.
 *
 * Posts by the loop's own thread skip stack and bell, unless something of this thread may still be
 * in the stack: then they go behind it. */
#include "io/loop_internal.h"

#include "base/check.h"

typedef _Atomic(struct semel_task *) task_link;

/* The public structure has a plain pointer, so that it can be used by C99 and C++. */
static task_link *next_of(struct semel_task *task)
{
    return (task_link *)(void *)&task->next;
}

/* Mark it as waiting; false: it is. */
static bool claim(struct semel_loop *loop, struct semel_task *task)
{
    struct semel_task *next = atomic_load_explicit(next_of(task), memory_order_relaxed);

    for (;;) {
        struct semel_task *wanted = next ? next : &loop->end;

        if (atomic_compare_exchange_weak_explicit(next_of(task), &next, wanted,
                                                  memory_order_acq_rel, memory_order_relaxed))
            return next == NULL;
    }
}

/* A list of tasks, the last one pointing to loop->end, behind what waits already. */
static void append(struct semel_loop *loop, struct semel_task *first, struct semel_task *last)
{
    if (loop->first)
        (void)atomic_exchange_explicit(next_of(loop->last), first, memory_order_acq_rel);
    else
        loop->first = first;
    loop->last = last;
}

static void push(struct semel_loop *loop, struct semel_task *task)
{
    struct semel_task *head = atomic_load_explicit(&loop->posted, memory_order_relaxed);

    if (!head && sml_loop_is_inside(loop)) {
        append(loop, task, task);
        return;
    }
    do
        (void)atomic_exchange_explicit(next_of(task), head ? head : &loop->end,
                                       memory_order_acq_rel);
    while (!atomic_compare_exchange_weak_explicit(&loop->posted, &head, task, memory_order_release,
                                                  memory_order_relaxed));
    if (!head)
        sml_bell_ring(&loop->tasks_bell);
}

enum semel_status semel_loop_post(struct semel_loop *loop, struct semel_task *task)
{
    if (!loop || !task || !task->fn)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&loop->origin))
        return SEMEL_FORKED;
    if (!claim(loop, task))
        return SEMEL_ALREADY;
    push(loop, task);
    return SEMEL_OK;
}

void sml_loop_executor_post(struct sml_executor *executor, struct semel_task *task)
{
    struct semel_loop *loop = (struct semel_loop *)(void *)executor;
    bool claimed;

    if (!sml_origin_is_mine(&loop->origin))
        return; /* nobody serves it here, and the bell is the parent's, too */
    claimed = claim(loop, task);
    SML_ASSERT(claimed);
    push(loop, task);
}

/* The ring of what is in `posted` was taken: put it, the oldest first, behind what waits. */
static void take_posted(struct semel_loop *loop)
{
    struct semel_task *newest = atomic_exchange_explicit(&loop->posted, NULL, memory_order_acquire);
    struct semel_task *task = newest, *newer = &loop->end;

    for (;;) {
        struct semel_task *older =
            atomic_exchange_explicit(next_of(task), newer, memory_order_acq_rel);

        if (older == &loop->end)
            break;
        newer = task;
        task = older;
    }
    append(loop, task, newest);
}

/* False: nothing was posted, or its ring is under way and the descriptor will tell. */
static bool take(struct semel_loop *loop)
{
    if (!sml_loop_tasks_posted(loop) || !sml_bell_take(&loop->tasks_bell))
        return false;
    take_posted(loop);
    return true;
}

/* The oldest, which waits no more. */
static struct semel_task *pop(struct semel_loop *loop)
{
    struct semel_task *task = loop->first;
    struct semel_task *next = atomic_load_explicit(next_of(task), memory_order_relaxed);

    loop->first = next == &loop->end ? NULL : next;
    return task;
}

bool sml_loop_run_tasks(struct semel_loop *loop)
{
    (void)take(loop); /* even behind tasks that post themselves again and again */
    for (uint32_t left = loop->turn_tasks; left > 0; left--) {
        struct semel_task *task;
        semel_task_fn fn;
        void *user;

        if (!loop->first && !take(loop))
            break;
        task = pop(loop);
        fn = task->fn;
        user = task->user;
        (void)atomic_exchange_explicit(next_of(task), NULL, memory_order_acq_rel);
        fn(user); /* the task's memory may be gone */
        if (!sml_loop_goes_on(loop))
            return false;
    }
    return true;
}

void sml_loop_tasks_enter(struct semel_loop *loop)
{
    if (loop->owed) {
        bool taken = sml_bell_take(&loop->tasks_bell);

        SML_ASSERT(taken);
    }
    loop->owed = false;
}

void sml_loop_tasks_leave(struct semel_loop *loop)
{
    if (loop->first)
        sml_bell_ring(&loop->tasks_bell);
    loop->owed = loop->first != NULL;
}

void sml_loop_drop_tasks(struct semel_loop *loop)
{
    if (sml_loop_tasks_posted(loop)) {
        sml_bell_await(&loop->tasks_bell); /* until its thread is done with the loop */
        take_posted(loop);
    }
    while (loop->first)
        atomic_store_explicit(next_of(pop(loop)), NULL, memory_order_release);
}
