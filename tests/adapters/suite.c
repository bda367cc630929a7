/* SPDX-License-Identifier: MIT */
#include "adapters/suite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ok(call) assert_int_equal((call), SEMEL_OK)

static const struct host_ops *ops;

/* A host with a loop in it. */
struct world {
    void *host;
    struct semel_loop *loop;
    int descriptors; /* before */
    int calls;
    int wanted; /* calls until the host quits */
};

static int open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    assert_non_null(directory);
    while (readdir(directory))
        count++;
    (void)closedir(directory);
    return count;
}

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;

    (void)clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void world_open(struct world *world)
{
    memset(world, 0, sizeof(*world));
    world->descriptors = open_descriptors();
    world->host = ops->make();
    ok(semel_loop_create(&world->loop, NULL));
    ops->attach(world->host, world->loop);
}

/* The loop is detached, and gone if loop is NULL. */
static void world_close_detached(struct world *world)
{
    ok(semel_loop_destroy(world->loop));
    ops->free(world->host);
    assert_int_equal(open_descriptors(), world->descriptors);
}

static void world_close(struct world *world)
{
    ops->detach(world->host);
    world_close_detached(world);
}

static void run_until(struct world *world, int calls)
{
    world->wanted = calls;
    ops->run(world->host);
    assert_true(world->calls >= calls);
}

static void called(void *user)
{
    struct world *world = user;

    if (++world->calls == world->wanted)
        ops->quit(world->host);
}

static void quit(void *user)
{
    ops->quit(((struct world *)user)->host);
}

/* ---- tasks ---- */

static void tasks_and_timers_are_served(void **state)
{
    struct world world;
    struct semel_task task;

    (void)state;
    world_open(&world);
    task = (struct semel_task)SEMEL_TASK_INIT(called, &world);
    ok(semel_loop_post(world.loop, &task));
    run_until(&world, 1);
    ok(semel_loop_timer(world.loop, 0, called, &world, NULL));
    ok(semel_loop_timer(world.loop, 10, called, &world, NULL));
    run_until(&world, 3);
    ok(semel_loop_post(world.loop, &task));
    run_until(&world, 4);
    world_close(&world);
}

static void *post_late(void *user)
{
    struct world *world = user;
    static struct semel_task task;
    struct timespec pause = { 0, 20000000 };

    (void)nanosleep(&pause, NULL); /* the host sleeps by now, or soon: both must do */
    task = (struct semel_task)SEMEL_TASK_INIT(called, world);
    ok(semel_loop_post(world->loop, &task));
    return NULL;
}

static void a_post_wakes_a_sleeping_host(void **state)
{
    struct world world;
    pthread_t thread;

    (void)state;
    world_open(&world);
    for (int i = 1; i <= 5; i++) {
        assert_int_equal(pthread_create(&thread, NULL, post_late, &world), 0);
        run_until(&world, i);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    world_close(&world);
}

#define THREADS 4
#define POSTS 5000
#define TASKS 50

struct poster {
    struct world *world;
    pthread_t thread;
    struct posted {
        struct semel_task task;
        struct poster *poster;
        int number;
        _Atomic bool waits;
    } tasks[TASKS];
    int next; /* number that must come next; the loop's */
};

static void next_number(void *user)
{
    struct posted *posted = user;
    struct poster *poster = posted->poster;

    assert_int_equal(posted->number, poster->next++);
    atomic_store(&posted->waits, false); /* it is its thread's again */
    called(poster->world);
}

static void *post_many(void *user)
{
    struct poster *poster = user;

    for (int i = 0; i < POSTS; i++) {
        struct posted *posted = &poster->tasks[i % TASKS];

        while (atomic_load(&posted->waits))
            (void)sched_yield();
        posted->number = i;
        posted->poster = poster;
        atomic_store(&posted->waits, true);
        if (i < TASKS)
            posted->task = (struct semel_task)SEMEL_TASK_INIT(next_number, posted);
        ok(semel_loop_post(poster->world->loop, &posted->task));
    }
    return NULL;
}

static void posts_of_many_threads_come_once_and_in_order(void **state)
{
    struct poster *posters = calloc(THREADS, sizeof(*posters));
    struct world world;

    (void)state;
    assert_non_null(posters);
    world_open(&world);
    for (int i = 0; i < THREADS; i++) {
        posters[i].world = &world;
        assert_int_equal(pthread_create(&posters[i].thread, NULL, post_many, &posters[i]), 0);
    }
    run_until(&world, THREADS * POSTS);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(posters[i].thread, NULL), 0);
    assert_int_equal(world.calls, THREADS * POSTS);
    world_close(&world);
    free(posters);
}

/* ---- the host's own work ---- */

struct endless {
    struct world *world;
    struct semel_task task;
    bool over;
};

static void again(void *user)
{
    struct endless *endless = user;

    endless->world->calls++;
    if (!endless->over)
        ok(semel_loop_post(endless->world->loop, &endless->task));
}

static void no_more(void *user)
{
    struct endless *endless = user;

    endless->over = true;
    quit(endless->world);
}

static void endless_tasks_leave_the_host_its_turns(void **state)
{
    struct world world;
    struct endless endless = { .world = &world };

    (void)state;
    world_open(&world);
    endless.task = (struct semel_task)SEMEL_TASK_INIT(again, &endless);
    ok(semel_loop_post(world.loop, &endless.task));
    ops->after(world.host, 20, no_more, &endless);
    ops->run(world.host);
    assert_true(world.calls > 0);
    world_close(&world);
}

/* Nothing to do for a while: the host sleeps, and does not look again and again. */
static void an_idle_loop_costs_nothing(void **state)
{
    struct world world;
    struct semel_timer *far;
    uint64_t before;

    (void)state;
    world_open(&world);
    ok(semel_loop_timer(world.loop, 1000000, called, &world, &far));
    ops->after(world.host, 300, quit, &world);
    before = now_ns(CLOCK_THREAD_CPUTIME_ID);
    ops->run(world.host);
    assert_true(now_ns(CLOCK_THREAD_CPUTIME_ID) - before < 100000000);
    assert_int_equal(world.calls, 0);
    ok(semel_timer_cancel(far));
    world_close(&world);
}

/* ---- timers ---- */

struct due {
    struct world *world;
    uint64_t earliest;
};

static void in_time(void *user)
{
    struct due *due = user;

    assert_true(now_ns(CLOCK_MONOTONIC) >= due->earliest);
    called(due->world);
}

static void timers_are_never_early(void **state)
{
    struct world world;
    struct due due[20];

    (void)state;
    world_open(&world);
    for (int i = 0; i < 20; i++) {
        int ms = i * 7 % 20;

        due[i] = (struct due){ &world, now_ns(CLOCK_MONOTONIC) + (uint64_t)ms * 1000000 };
        ok(semel_loop_timer(world.loop, ms, in_time, &due[i], NULL));
    }
    run_until(&world, 20);
    world_close(&world);
}

struct hand_over {
    struct world *world;
    struct semel_timer *victim;
};

/* All in one callback: a timer that is due is gone, however late the next one is. */
static void cancel_and_arm(void *user)
{
    struct hand_over *hand_over = user;
    struct world *world = hand_over->world;
    struct semel_timer *brief;

    ok(semel_timer_cancel(hand_over->victim));
    ok(semel_loop_timer(world->loop, 5, called, world, &brief));
    ok(semel_timer_cancel(brief));
    ok(semel_loop_timer(world->loop, 20, quit, world, NULL));
    called(world);
}

/* In a callback of the host's, out of any dispatch. */
static void timers_are_cancelled_and_armed_by_the_host(void **state)
{
    struct world world;
    struct hand_over hand_over = { .world = &world };

    (void)state;
    world_open(&world);
    ok(semel_loop_timer(world.loop, 60000, called, &world, &hand_over.victim));
    ops->after(world.host, 1, cancel_and_arm, &hand_over);
    ops->run(world.host);
    assert_int_equal(world.calls, 1);
    world_close(&world);
}

/* ---- descriptors ---- */

struct plug {
    struct world *world;
    struct semel_watch *watch;
    int ends[2];
    int calls;
};

static void plug_open(struct plug *plug, struct world *world, semel_watch_fn fn)
{
    memset(plug, 0, sizeof(*plug));
    plug->world = world;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, plug->ends), 0);
    ok(semel_loop_watch(world->loop, plug->ends[0], SEMEL_WATCH_READ, fn, plug, &plug->watch));
}

static void plug_close(struct plug *plug)
{
    (void)close(plug->ends[0]);
    (void)close(plug->ends[1]);
}

static void give(const struct plug *plug)
{
    assert_int_equal(write(plug->ends[1], "x", 1), 1);
}

/* The third time it takes the byte away. */
static void third_time(struct semel_watch *watch, unsigned events, void *user)
{
    struct plug *plug = user;
    char byte;

    assert_ptr_equal(watch, plug->watch);
    assert_int_equal(events, SEMEL_WATCH_READ);
    if (++plug->calls % 3 == 0)
        assert_int_equal(read(plug->ends[0], &byte, 1), 1);
    called(plug->world);
}

static void descriptors_are_watched_level_triggered(void **state)
{
    struct world world;
    struct plug plug;

    (void)state;
    world_open(&world);
    plug_open(&plug, &world, third_time);
    give(&plug);
    run_until(&world, 3);
    ops->after(world.host, 20, quit, &world);
    ops->run(world.host); /* nothing is there */
    assert_int_equal(plug.calls, 3);
    give(&plug);
    run_until(&world, 6);
    ok(semel_watch_remove(plug.watch));
    give(&plug);
    ops->after(world.host, 20, quit, &world);
    ops->run(world.host);
    assert_int_equal(plug.calls, 6);
    plug_close(&plug);
    world_close(&world);
}

static void remove_self(struct semel_watch *watch, unsigned events, void *user)
{
    struct plug *plug = user;

    (void)events;
    plug->calls++;
    ok(semel_watch_remove(watch));
    plug_close(plug);
}

static void a_watch_may_remove_itself(void **state)
{
    struct world world;
    struct plug plug;

    (void)state;
    world_open(&world);
    plug_open(&plug, &world, remove_self);
    give(&plug);
    ops->after(world.host, 20, quit, &world);
    ops->run(world.host);
    assert_int_equal(plug.calls, 1);
    world_close(&world);
}

/* ---- ends ---- */

static void destroy_loop(void *user)
{
    struct world *world = user;

    ok(semel_loop_destroy(world->loop));
    world->calls++;
}

static void destroy_by_watch(struct semel_watch *watch, unsigned events, void *user)
{
    struct plug *plug = user;

    (void)watch;
    (void)events;
    destroy_loop(plug->world);
}

/* The host goes on without it; its own timer is what ends it. */
static void outlive_loop(struct world *world)
{
    ops->after(world->host, 20, quit, world);
    ops->run(world->host);
    assert_int_equal(world->calls, 1);
    world->loop = NULL;
    ops->forget(world->host);
    ops->after(world->host, 1, quit, world);
    ops->run(world->host);
    world_close_detached(world);
}

static void a_task_may_destroy_the_loop(void **state)
{
    struct world world;
    struct semel_task destroys, never;

    (void)state;
    world_open(&world);
    destroys = (struct semel_task)SEMEL_TASK_INIT(destroy_loop, &world);
    never = (struct semel_task)SEMEL_TASK_INIT(called, &world);
    ok(semel_loop_post(world.loop, &destroys));
    ok(semel_loop_post(world.loop, &never));
    outlive_loop(&world);
    assert_null(never.next);
}

static void a_timer_may_destroy_the_loop(void **state)
{
    struct world world;

    (void)state;
    world_open(&world);
    ok(semel_loop_timer(world.loop, 1, destroy_loop, &world, NULL));
    ok(semel_loop_timer(world.loop, 1, called, &world, NULL));
    ok(semel_loop_timer(world.loop, 1000000, called, &world, NULL));
    outlive_loop(&world);
}

static void a_watch_may_destroy_the_loop(void **state)
{
    struct world world;
    struct plug plug;

    (void)state;
    world_open(&world);
    plug_open(&plug, &world, destroy_by_watch);
    give(&plug);
    ops->after(world.host, 20, quit, &world);
    ops->run(world.host);
    assert_int_equal(world.calls, 1);
    world.loop = NULL;
    ops->forget(world.host);
    plug_close(&plug);
    world_close_detached(&world);
}

/* Out of any callback, with a descriptor that goes on being ready. */
static void the_host_may_destroy_the_loop(void **state)
{
    struct world world;
    struct plug plug;

    (void)state;
    world_open(&world);
    plug_open(&plug, &world, third_time);
    give(&plug);
    ok(semel_loop_destroy(world.loop));
    world.loop = NULL;
    ops->after(world.host, 20, quit, &world);
    ops->run(world.host);
    assert_int_equal(plug.calls, 0);
    ops->forget(world.host);
    plug_close(&plug);
    world_close_detached(&world);
}

static void detach_loop(void *user)
{
    struct world *world = user;

    ops->detach(world->host);
    world->calls++;
}

static void what_waits_waits_on_when_it_is_detached(void **state)
{
    struct world world;
    struct semel_task detaches, waits;

    (void)state;
    world_open(&world);
    detaches = (struct semel_task)SEMEL_TASK_INIT(detach_loop, &world);
    ok(semel_loop_post(world.loop, &detaches));
    ops->after(world.host, 20, quit, &world);
    ops->run(world.host);
    assert_int_equal(world.calls, 1);
    waits = (struct semel_task)SEMEL_TASK_INIT(called, &world);
    ok(semel_loop_post(world.loop, &waits));
    ok(semel_loop_timer(world.loop, 0, called, &world, NULL));
    ops->after(world.host, 20, quit, &world);
    ops->run(world.host);
    assert_int_equal(world.calls, 1);
    ops->attach(world.host, world.loop);
    run_until(&world, 3);
    world_close(&world);
}

/* ---- rules that hold inside of every host ---- */

static void rules(void *user)
{
    struct world *world = user;

    assert_true(semel_loop_is_here(world->loop));
    assert_int_equal(semel_loop_run(world->loop), SEMEL_WOULD_DEADLOCK);
    assert_int_equal(semel_loop_dispatch(world->loop), SEMEL_WOULD_DEADLOCK);
    called(world);
}

static void blocking_in_a_callback_would_deadlock(void **state)
{
    struct world world;
    struct semel_task task;

    (void)state;
    world_open(&world);
    task = (struct semel_task)SEMEL_TASK_INIT(rules, &world);
    ok(semel_loop_post(world.loop, &task));
    run_until(&world, 1);
    assert_false(semel_loop_is_here(world.loop));
    world_close(&world);
}

int suite_main(const struct host_ops *host_ops)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_and_timers_are_served),
        cmocka_unit_test(a_post_wakes_a_sleeping_host),
        cmocka_unit_test(posts_of_many_threads_come_once_and_in_order),
        cmocka_unit_test(endless_tasks_leave_the_host_its_turns),
        cmocka_unit_test(an_idle_loop_costs_nothing),
        cmocka_unit_test(timers_are_never_early),
        cmocka_unit_test(timers_are_cancelled_and_armed_by_the_host),
        cmocka_unit_test(descriptors_are_watched_level_triggered),
        cmocka_unit_test(a_watch_may_remove_itself),
        cmocka_unit_test(a_task_may_destroy_the_loop),
        cmocka_unit_test(a_timer_may_destroy_the_loop),
        cmocka_unit_test(a_watch_may_destroy_the_loop),
        cmocka_unit_test(the_host_may_destroy_the_loop),
        cmocka_unit_test(what_waits_waits_on_when_it_is_detached),
        cmocka_unit_test(blocking_in_a_callback_would_deadlock),
    };

    ops = host_ops;
    ops->free(ops->make()); /* what a host opens once for the process */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
