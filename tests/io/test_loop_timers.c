/* SPDX-License-Identifier: MIT */
/* Timers and moments: never early, once, and cancelled wherever one likes. */
#include "io/loop_kit.h"

#include "base/executor.h"
#include "os/clock.h"
#include "os/epoll.h"

struct shot {
    struct semel_loop *loop;
    uint64_t due, fired;
    int calls;
};

static void fire(void *user)
{
    struct shot *shot = user;

    shot->fired = sml_clock_now();
    shot->calls++;
    assert_true(shot->fired >= shot->due);
    semel_loop_stop(shot->loop);
}

static void bad_arguments_are_invalid(void **state)
{
    struct semel_loop *loop = loop_make();
    struct semel_timer *timer = (struct semel_timer *)state;
    int calls = 0;

    assert_int_equal(semel_loop_timer(NULL, 0, count, &calls, &timer), SEMEL_INVALID);
    assert_int_equal(semel_loop_timer(loop, 0, NULL, &calls, &timer), SEMEL_INVALID);
    assert_int_equal(semel_loop_timer(loop, -1, count, &calls, &timer), SEMEL_INVALID);
    assert_int_equal(semel_loop_timer(loop, INT64_MIN, count, &calls, &timer), SEMEL_INVALID);
    assert_int_equal(semel_loop_timer(loop, INT64_C(1) << 31, count, &calls, &timer),
                     SEMEL_INVALID);
    assert_ptr_equal(timer, state);
    assert_int_equal(semel_timer_cancel(NULL), SEMEL_INVALID);
    ok(semel_loop_timer(loop, INT32_MAX, count, &calls, &timer));
    ok(semel_timer_cancel(timer));
    ok(semel_loop_timer(loop, INT32_MAX, count, &calls, NULL));
    assert_false(loop_tells(loop));
    ok(semel_loop_destroy(loop));
    assert_int_equal(calls, 0);
}

static void a_timer_fires_once_and_never_early(void **state)
{
    (void)state;
    for (int ms = 0; ms < 30; ms += 7) {
        struct shot shot = { .loop = loop_make() };
        struct semel_timer *timer;

        shot.due = sml_clock_now() + (uint64_t)ms * SML_MS;
        ok(semel_loop_timer(shot.loop, ms, fire, &shot, &timer));
        ok(semel_loop_run(shot.loop));
        assert_int_equal(shot.calls, 1);
        assert_false(loop_tells_within(shot.loop, 2));
        assert_int_equal(semel_loop_timeout_ns(shot.loop), -1);
        ok(semel_loop_destroy(shot.loop));
    }
}

/* Armed out of the loop, it makes the descriptor readable when it is due, and not before; cancelled
 * it does not, also when it was due already. */
static void the_descriptor_tells_of_a_timer_exactly_when_it_is_due(void **state)
{
    struct shot shot = { .loop = loop_make() };
    struct semel_timer *timer, *late;
    int64_t left;

    (void)state;
    shot.due = sml_clock_now() + 40 * SML_MS;
    ok(semel_loop_timer(shot.loop, 40, fire, &shot, &timer));
    ok(semel_loop_timer(shot.loop, 100000, fire, &shot, &late));
    left = semel_loop_timeout_ns(shot.loop);
    assert_true(left <= 40 * (int64_t)SML_MS);
    if (sml_clock_now() < shot.due) {
        bool told = loop_tells(shot.loop);

        assert_true(!told || sml_clock_now() >= shot.due);
    }
    assert_true(loop_tells_within(shot.loop, 60000));
    assert_true(sml_clock_now() >= shot.due);
    assert_int_equal(semel_loop_timeout_ns(shot.loop), 0);
    ok(semel_timer_cancel(timer)); /* it was due; now nothing is */
    assert_false(loop_tells(shot.loop));
    left = semel_loop_timeout_ns(shot.loop);
    assert_true(left > 0 && left <= 100000 * (int64_t)SML_MS);
    ok(semel_loop_timer(shot.loop, 1, fire, &shot, NULL));
    assert_true(loop_tells_within(shot.loop, 60000));
    ok(semel_loop_dispatch(shot.loop));
    assert_int_equal(shot.calls, 1);
    loop_settle(shot.loop); /* the stop */
    assert_int_equal(shot.calls, 1);
    ok(semel_timer_cancel(late));
    assert_int_equal(semel_loop_timeout_ns(shot.loop), -1);
    ok(semel_loop_destroy(shot.loop));
}

/* What stood in the alarm while nobody was inside is no reason to wake in run; and what was armed
 * in run is told of when run has returned. */
static void run_hands_timers_to_the_descriptor_and_back(void **state)
{
    struct shot shot = { .loop = loop_make() }, second = shot;

    (void)state;
    second.loop = shot.loop;
    ok(semel_loop_timer(shot.loop, 5, fire, &shot, NULL));
    ok(semel_loop_timer(shot.loop, 30, fire, &second, NULL));
    ok(semel_loop_run(shot.loop));
    assert_int_equal(shot.calls, 1);
    assert_int_equal(second.calls, 0);
    loop_until(shot.loop, &second.calls, 1);
    loop_settle(shot.loop);
    ok(semel_loop_destroy(shot.loop));
}

static void stop_loop(void *loop)
{
    semel_loop_stop(loop);
}

static int waits;

int __real_sml_epoll_wait(struct sml_epoll *epoll, struct epoll_event *out_events, int count_max,
                          uint64_t deadline_ns);
int __wrap_sml_epoll_wait(struct sml_epoll *epoll, struct epoll_event *out_events, int count_max,
                          uint64_t deadline_ns);

int __wrap_sml_epoll_wait(struct sml_epoll *epoll, struct epoll_event *out_events, int count_max,
                          uint64_t deadline_ns)
{
    waits++;
    return __real_sml_epoll_wait(epoll, out_events, count_max, deadline_ns);
}

/* Nothing that was armed before, and has fired, keeps a loop awake. */
static void run_sleeps_between_timers(void **state)
{
    struct semel_loop *loop = loop_make();
    int calls = 0;

    (void)state;
    ok(semel_loop_timer(loop, 5, count, &calls, NULL));
    ok(semel_loop_timer(loop, 100, stop_loop, loop, NULL));
    waits = 0;
    ok(semel_loop_run(loop));
    assert_int_equal(calls, 1);
    assert_in_range(waits, 2, 6);
    ok(semel_loop_destroy(loop));
}

#define TIMERS 500

struct row {
    struct semel_loop *loop;
    uint64_t last; /* due */
    int calls;
    struct entry {
        struct row *row;
        struct semel_timer *timer;
        uint64_t earliest;
        int delay;
    } entries[TIMERS];
};

static void in_time(void *user)
{
    struct entry *entry = user;
    struct row *row = entry->row;

    assert_true(sml_clock_now() >= entry->earliest);
    assert_true(entry->earliest + SML_MS > row->last); /* in the order of their times */
    row->last = entry->earliest;
    if (++row->calls == TIMERS)
        semel_loop_stop(row->loop);
}

static void many_timers_fire_in_order(void **state)
{
    struct row *row = calloc(1, sizeof(*row));
    unsigned seed = 7;

    (void)state;
    assert_non_null(row);
    row->loop = loop_make();
    for (int i = 0; i < TIMERS; i++) {
        struct entry *entry = &row->entries[i];

        seed = seed * 1103515245u + 12345u;
        entry->row = row;
        entry->delay = (int)(seed >> 16) % 60 + (i == 0 ? 0 : 1);
        entry->earliest = sml_clock_now() + (uint64_t)entry->delay * SML_MS;
        ok(semel_loop_timer(row->loop, entry->delay, in_time, entry, &entry->timer));
    }
    ok(semel_loop_run(row->loop));
    assert_int_equal(row->calls, TIMERS);
    ok(semel_loop_destroy(row->loop));
    free(row);
}

/* ---- cancelled in callbacks ---- */

struct pair {
    struct semel_loop *loop;
    struct semel_timer *own, *other;
    int calls, others;
};

static void cancel_both(void *user)
{
    struct pair *pair = user;

    pair->calls++;
    assert_int_equal(semel_timer_cancel(pair->own), SEMEL_ALREADY);
    assert_int_equal(semel_timer_cancel(pair->own), SEMEL_ALREADY);
    ok(semel_timer_cancel(pair->other));
    assert_int_equal(semel_timer_cancel(pair->other), SEMEL_ALREADY);
}

static void a_callback_may_cancel_itself_and_others(void **state)
{
    struct pair pair = { .loop = loop_make() };

    (void)state;
    ok(semel_loop_timer(pair.loop, 0, cancel_both, &pair, &pair.own));
    ok(semel_loop_timer(pair.loop, 0, count, &pair.others, &pair.other));
    assert_true(loop_tells_within(pair.loop, 60000));
    ok(semel_loop_dispatch(pair.loop)); /* both are due */
    assert_int_equal(pair.calls, 1);
    assert_int_equal(pair.others, 0);
    assert_false(loop_tells(pair.loop));
    ok(semel_loop_destroy(pair.loop));
}

struct chain {
    struct semel_loop *loop;
    int calls;
};

static void arm_next(void *user)
{
    struct chain *chain = user;

    chain->calls++;
    ok(semel_loop_timer(chain->loop, 0, arm_next, chain, NULL));
}

/* A timer armed for now by a timer is for the next turn: the rest of the host gets its turn. */
static void a_dispatch_does_not_run_timers_for_ever(void **state)
{
    struct chain chain = { .loop = loop_make() };

    (void)state;
    ok(semel_loop_timer(chain.loop, 0, arm_next, &chain, NULL));
    for (int i = 1; i < 100; i++) {
        assert_true(loop_tells_within(chain.loop, 60000));
        ok(semel_loop_dispatch(chain.loop));
        assert_int_equal(chain.calls, i);
    }
    ok(semel_loop_destroy(chain.loop));
}

static void cancel_elsewhere(void *timer)
{
    assert_int_equal(semel_timer_cancel(timer), SEMEL_DENIED);
}

static void another_thread_is_denied(void **state)
{
    struct semel_loop *loop = loop_make();
    struct semel_timer *timer;
    struct sml_thread thread;
    int calls = 0;

    (void)state;
    ok(semel_loop_timer(loop, 0, count, &calls, &timer));
    ok(sml_thread_create(&thread, "cancel", 0, cancel_elsewhere, timer));
    sml_thread_join(&thread);
    loop_until(loop, &calls, 1);
    ok(semel_loop_destroy(loop));
}

/* ---- moments ---- */

struct counted {
    struct sml_moment moment; /* first */
    int calls;
};

static void moment_comes(struct sml_moment *moment)
{
    ((struct counted *)(void *)moment)->calls++;
}

static void a_moment_moves_and_goes(void **state)
{
    struct semel_loop *loop = loop_make();
    struct sml_executor *executor = sml_executor_of(loop);
    struct counted counted = { .calls = 0 };

    (void)state;
    sml_moment_init(&counted.moment, moment_comes);
    executor->ops->disarm(executor, &counted.moment);
    executor->ops->arm(executor, &counted.moment, SML_NEVER);
    assert_int_equal(semel_loop_timeout_ns(loop), -1);
    executor->ops->arm(executor, &counted.moment, 0); /* long past */
    assert_true(loop_tells_within(loop, 60000));
    executor->ops->arm(executor, &counted.moment, sml_clock_now() + 3600 * SML_SECOND);
    assert_false(loop_tells(loop));
    executor->ops->arm(executor, &counted.moment, sml_clock_now());
    assert_true(loop_tells_within(loop, 60000));
    executor->ops->disarm(executor, &counted.moment);
    assert_false(loop_tells(loop));
    executor->ops->arm(executor, &counted.moment, sml_clock_now());
    loop_until(loop, &counted.calls, 1);
    assert_false(loop_tells(loop));
    executor->ops->arm(executor, &counted.moment, sml_clock_now());
    ok(semel_loop_destroy(loop));
    assert_int_equal(counted.calls, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_arguments_are_invalid),
        cmocka_unit_test(a_timer_fires_once_and_never_early),
        cmocka_unit_test(the_descriptor_tells_of_a_timer_exactly_when_it_is_due),
        cmocka_unit_test(run_hands_timers_to_the_descriptor_and_back),
        cmocka_unit_test(run_sleeps_between_timers),
        cmocka_unit_test(many_timers_fire_in_order),
        cmocka_unit_test(a_callback_may_cancel_itself_and_others),
        cmocka_unit_test(a_dispatch_does_not_run_timers_for_ever),
        cmocka_unit_test(another_thread_is_denied),
        cmocka_unit_test(a_moment_moves_and_goes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
