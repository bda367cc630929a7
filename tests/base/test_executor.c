/* SPDX-License-Identifier: MIT */
#include "base/executor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <semel/deferred.h>

#include "kit/hand_executor.h"

static void without_a_loop_all_is_here_and_now(void **state)
{
    struct sml_executor *executor = sml_executor_of(NULL);
    struct semel_fired fired = { .status = SEMEL_FAILED };
    struct sml_moment moment;
    void *block;

    (void)state;
    assert_false(sml_executor_has_loop(executor));
    assert_true(executor->ops->is_here(executor));
    assert_int_equal(executor->ops->now(executor), 0);
    sml_moment_init(&moment, NULL);
    executor->ops->disarm(executor, &moment);
    executor->ops->unhandled(executor, &fired);
    sml_executor_enter(executor);
    assert_int_equal(atomic_load(&executor->users), 0); /* shared: nothing of it changes */
    sml_executor_leave(executor);
    block = sml_alloc(executor->mem, 10);
    assert_non_null(block);
    sml_release(executor->mem, block);
}

static void count(void *user)
{
    ++*(int *)user;
}

struct timed {
    struct sml_moment moment; /* first */
    struct hand *hand;
    struct semel_task task;
    int calls, tasks;
    uint64_t at;
};

static void comes(struct sml_moment *moment)
{
    struct timed *timed = (struct timed *)(void *)moment;

    timed->calls++;
    timed->at = timed->hand->now;
    timed->hand->executor.ops->post(&timed->hand->executor, &timed->task);
}

static void by_hand_tasks_wait_and_time_stands_still(void **state)
{
    struct hand hand;
    struct sml_executor *executor;
    struct timed a = { .hand = &hand }, b = { .hand = &hand };
    uint64_t start;

    (void)state;
    hand_init(&hand);
    executor = sml_executor_of(hand_loop(&hand));
    start = executor->ops->now(executor);
    assert_true(executor->ops->is_here(executor));
    hand.away = true;
    assert_false(executor->ops->is_here(executor));
    hand.away = false;
    a.task = (struct semel_task)SEMEL_TASK_INIT(count, &a.tasks);
    b.task = (struct semel_task)SEMEL_TASK_INIT(count, &b.tasks);
    sml_moment_init(&a.moment, comes);
    sml_moment_init(&b.moment, comes);
    executor->ops->arm(executor, &a.moment, start + 50);
    executor->ops->arm(executor, &b.moment, start + 20);
    executor->ops->arm(executor, &b.moment, start + 30); /* moved */
    assert_int_equal(hand_next(&hand), start + 30);
    hand_advance(&hand, 29);
    assert_int_equal(b.calls, 0);
    hand_advance(&hand, 1);
    assert_int_equal(b.calls, 1);
    assert_int_equal(b.tasks, 1);
    executor->ops->disarm(executor, &b.moment);
    hand_advance(&hand, 1000);
    assert_int_equal(a.at, start + 50);
    assert_int_equal(a.tasks, 1);
    assert_int_equal(hand.now, start + 1030);
    executor->ops->post(executor, &a.task);
    assert_int_equal(hand.waiting, 1);
    assert_int_equal(hand_run(&hand), 1);
    assert_false(hand_run_one(&hand));
    hand_fini(&hand);
}

static void by_hand_memory_ends(void **state)
{
    struct hand hand;
    void *first, *third;

    (void)state;
    hand_init(&hand);
    hand_fail_at(&hand, 2);
    first = sml_alloc(hand.executor.mem, 1);
    assert_non_null(first);
    assert_null(sml_alloc(hand.executor.mem, 1));
    third = sml_alloc(hand.executor.mem, 1);
    assert_non_null(third);
    assert_int_equal(hand.blocks, 2);
    sml_release(hand.executor.mem, first);
    sml_release(hand.executor.mem, third);
    sml_release(hand.executor.mem, NULL);
    hand_fini(&hand);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_loop_all_is_here_and_now),
        cmocka_unit_test(by_hand_tasks_wait_and_time_stands_still),
        cmocka_unit_test(by_hand_memory_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
