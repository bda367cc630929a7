/* SPDX-License-Identifier: MIT */
/* Tasks: their order, who runs them, and what the descriptor says meanwhile. */
#include "io/loop_kit.h"

LOOP_KIT_SLOW_BELLS;

/* ---- one thread ---- */

#define MANY 5000

struct numbered {
    struct semel_task task;
    int number;
    int *next; /* the number that must be the next one */
};

static void in_order(void *user)
{
    struct numbered *n = user;

    assert_int_equal(n->number, *n->next);
    ++*n->next;
}

static struct numbered *numbered_make(int *next)
{
    struct numbered *all = calloc(MANY, sizeof(*all));

    assert_non_null(all);
    for (int i = 0; i < MANY; i++) {
        all[i] = (struct numbered){ .number = i, .next = next };
        all[i].task = (struct semel_task)SEMEL_TASK_INIT(in_order, &all[i]);
    }
    return all;
}

static void tasks_run_in_order_and_the_descriptor_tells_to_the_last(void **state)
{
    struct semel_loop_options options = { .turn_tasks = 7 };
    struct semel_loop *loop;
    int next = 0;
    struct numbered *all = numbered_make(&next);

    (void)state;
    ok(semel_loop_create(&loop, &options));
    for (int i = 0; i < MANY; i++) {
        ok(semel_loop_post(loop, &all[i].task));
        assert_true(loop_tells(loop));
        assert_int_equal(semel_loop_timeout_ns(loop), 0);
        if (i % 3 == 0) /* some wait, some are taken and wait, some are new */
            ok(semel_loop_dispatch(loop));
    }
    while (next < MANY) {
        int before = next;

        assert_true(loop_tells(loop));
        assert_int_equal(semel_loop_timeout_ns(loop), 0);
        ok(semel_loop_dispatch(loop));
        assert_int_equal(next, before + 7 < MANY ? before + 7 : MANY);
    }
    assert_false(loop_tells(loop));
    assert_int_equal(semel_loop_timeout_ns(loop), -1);
    ok(semel_loop_destroy(loop));
    free(all);
}

static void a_task_that_waits_is_already_posted(void **state)
{
    struct semel_loop *loop = loop_make(), *other = loop_make();
    int calls = 0;
    struct semel_task a = SEMEL_TASK_INIT(count, &calls), b = SEMEL_TASK_INIT(count, &calls);

    (void)state;
    ok(semel_loop_post(loop, &a));
    assert_int_equal(semel_loop_post(loop, &a), SEMEL_ALREADY);
    assert_int_equal(semel_loop_post(other, &a), SEMEL_ALREADY);
    assert_false(loop_tells(other));
    ok(semel_loop_post(loop, &b));
    assert_int_equal(semel_loop_post(loop, &a), SEMEL_ALREADY);
    assert_int_equal(semel_loop_post(loop, &b), SEMEL_ALREADY);
    ok(semel_loop_dispatch(loop));
    assert_int_equal(calls, 2);
    ok(semel_loop_post(other, &a));
    ok(semel_loop_dispatch(loop));
    assert_int_equal(calls, 2);
    ok(semel_loop_dispatch(other));
    assert_int_equal(calls, 3);
    ok(semel_loop_destroy(other));
    ok(semel_loop_destroy(loop));
}

struct again {
    struct semel_loop *loop;
    struct semel_task task;
    int calls, end;
};

static void post_again(void *user)
{
    struct again *again = user;

    if (++again->calls == again->end)
        semel_loop_stop(again->loop);
    else
        ok(semel_loop_post(again->loop, &again->task));
}

static void post_again_twice(void *user)
{
    struct again *again = user;

    post_again(again);
    if (again->calls < again->end)
        assert_int_equal(semel_loop_post(again->loop, &again->task), SEMEL_ALREADY);
}

static void a_task_may_post_itself(void **state)
{
    struct again again = { .loop = loop_make(), .end = 100000 };

    (void)state;
    again.task = (struct semel_task)SEMEL_TASK_INIT(post_again_twice, &again);
    ok(semel_loop_post(again.loop, &again.task));
    ok(semel_loop_run(again.loop));
    assert_int_equal(again.calls, again.end);
    loop_settle(again.loop);
    ok(semel_loop_destroy(again.loop));
}

/* A dispatch ends although there is always a task; the rest of the host gets its turn. */
static void a_dispatch_is_bounded(void **state)
{
    struct again again = { .loop = loop_make(), .end = 1000000 };

    (void)state;
    again.task = (struct semel_task)SEMEL_TASK_INIT(post_again, &again);
    ok(semel_loop_post(again.loop, &again.task));
    ok(semel_loop_dispatch(again.loop));
    assert_int_equal(again.calls, 1024); /* the default */
    assert_true(loop_tells(again.loop));
    ok(semel_loop_dispatch(again.loop));
    assert_int_equal(again.calls, 2048);
    assert_true(loop_tells(again.loop));
    ok(semel_loop_destroy(again.loop));
    assert_null(again.task.next);
}

static void free_it(void *user)
{
    struct numbered *n = user;

    in_order(n);
    free(n);
}

static void a_task_may_free_itself(void **state)
{
    struct semel_loop *loop = loop_make();
    int next = 0;

    (void)state;
    for (int i = 0; i < 10; i++) {
        struct numbered *n = calloc(1, sizeof(*n));

        assert_non_null(n);
        *n = (struct numbered){ .number = i, .next = &next };
        n->task = (struct semel_task)SEMEL_TASK_INIT(free_it, n);
        ok(semel_loop_post(loop, &n->task));
    }
    ok(semel_loop_dispatch(loop));
    assert_int_equal(next, 10);
    ok(semel_loop_destroy(loop));
}

/* ---- a thread's posts stay in order, from inside and outside of the loop ---- */

struct inside {
    struct semel_loop *loop;
    struct numbered *all;
};

static void post_second(void *user)
{
    struct inside *inside = user;

    ok(semel_loop_post(inside->loop, &inside->all[1].task));
}

/* The first is posted outside, and not taken yet when a timer posts the second. */
static void what_is_posted_inside_does_not_overtake(void **state)
{
    int next = 0;
    struct inside inside = { loop_make(), numbered_make(&next) };

    (void)state;
    ok(semel_loop_timer(inside.loop, 0, post_second, &inside, NULL));
    assert_true(loop_tells_within(inside.loop, 60000));
    ok(semel_loop_post(inside.loop, &inside.all[0].task));
    loop_until(inside.loop, &next, 2);
    ok(semel_loop_destroy(inside.loop));
    free(inside.all);
}

static void tasks_that_post_themselves_let_others_through(void **state)
{
    struct again again = { .loop = loop_make(), .end = 1000000 };
    int calls = 0;
    struct semel_task other = SEMEL_TASK_INIT(count, &calls);

    (void)state;
    again.task = (struct semel_task)SEMEL_TASK_INIT(post_again, &again);
    ok(semel_loop_post(again.loop, &again.task));
    ok(semel_loop_dispatch(again.loop));
    ok(semel_loop_post(again.loop, &other));
    ok(semel_loop_dispatch(again.loop));
    assert_int_equal(calls, 1);
    ok(semel_loop_destroy(again.loop));
}

struct mixed {
    struct semel_loop *loop;
    struct numbered *all;
    int next, posted;
    struct semel_task spring;
    _Atomic bool waits; /* a task of the other thread */
    _Atomic bool done;  /* the other thread */
};

static void post_more(void *user)
{
    struct mixed *mixed = user;

    for (int i = 0; i < 3 && mixed->posted < MANY; i++)
        ok(semel_loop_post(mixed->loop, &mixed->all[mixed->posted++].task));
    if (mixed->posted < MANY)
        ok(semel_loop_post(mixed->loop, &mixed->spring));
}

static void begin(void *user)
{
    struct mixed *mixed = user;

    atomic_store(&mixed->waits, false);
}

static void disturb(void *user)
{
    struct mixed *mixed = user;

    for (int i = 0; i < 2000; i++) {
        struct semel_task task = SEMEL_TASK_INIT(begin, mixed);

        atomic_store(&mixed->waits, true);
        ok(semel_loop_post(mixed->loop, &task));
        while (atomic_load(&mixed->waits)) /* its memory is ours again when it begins */
            sml_thread_yield();
    }
    atomic_store(&mixed->done, true);
}

static void posts_of_a_thread_keep_their_order(void **state)
{
    struct mixed mixed = { .loop = loop_make() };
    struct sml_thread other;

    (void)state;
    mixed.all = numbered_make(&mixed.next);
    mixed.spring = (struct semel_task)SEMEL_TASK_INIT(post_more, &mixed);
    ok(semel_loop_post(mixed.loop, &mixed.spring));
    ok(sml_thread_create(&other, "disturb", 0, disturb, &mixed));
    while (mixed.next < MANY || !atomic_load(&mixed.done)) {
        if (mixed.posted < MANY) /* from outside */
            ok(semel_loop_post(mixed.loop, &mixed.all[mixed.posted++].task));
        ok(semel_loop_dispatch(mixed.loop));
    }
    sml_thread_join(&other);
    assert_false(loop_tells(mixed.loop));
    ok(semel_loop_destroy(mixed.loop));
    free(mixed.all);
}

/* ---- many threads ---- */

#define THREADS 4
#define ROUNDS 30000
#define TICKETS 64

struct ticket {
    struct semel_task task;
    struct poster *poster;
    unsigned number; /* of the post */
    _Atomic bool waits;
};

struct poster {
    struct crowd *crowd;
    struct sml_thread thread;
    struct ticket tickets[TICKETS];
    unsigned ran; /* the loop's */
};

struct crowd {
    struct semel_loop *loop;
    struct poster posters[THREADS];
    unsigned ran;
};

static void check_ticket(void *user)
{
    struct ticket *ticket = user;
    struct poster *poster = ticket->poster;
    struct crowd *crowd = poster->crowd;

    assert_int_equal(ticket->number, poster->ran);
    poster->ran++;
    atomic_store(&ticket->waits, false);
    if (++crowd->ran == THREADS * ROUNDS)
        semel_loop_stop(crowd->loop);
}

static void post_all(void *user)
{
    struct poster *poster = user;

    for (unsigned n = 0; n < ROUNDS; n++) {
        struct ticket *ticket = &poster->tickets[n % TICKETS];

        while (atomic_load(&ticket->waits))
            sml_thread_yield();
        ticket->number = n;
        atomic_store(&ticket->waits, true);
        ok(semel_loop_post(poster->crowd->loop, &ticket->task));
    }
}

static struct crowd *crowd_start(uint32_t turn_tasks)
{
    struct semel_loop_options options = { .turn_tasks = turn_tasks };
    struct crowd *crowd = calloc(1, sizeof(*crowd));

    assert_non_null(crowd);
    ok(semel_loop_create(&crowd->loop, &options));
    for (int i = 0; i < THREADS; i++) {
        struct poster *poster = &crowd->posters[i];

        poster->crowd = crowd;
        for (int j = 0; j < TICKETS; j++) {
            struct ticket *ticket = &poster->tickets[j];

            ticket->poster = poster;
            ticket->task = (struct semel_task)SEMEL_TASK_INIT(check_ticket, ticket);
        }
        ok(sml_thread_create(&poster->thread, "post", 0, post_all, poster));
    }
    return crowd;
}

static void crowd_end(struct crowd *crowd)
{
    for (int i = 0; i < THREADS; i++)
        sml_thread_join(&crowd->posters[i].thread);
    assert_int_equal(crowd->ran, THREADS * ROUNDS);
    loop_settle(crowd->loop);
    ok(semel_loop_destroy(crowd->loop));
    free(crowd);
}

static void every_post_runs_once_under_run(void **state)
{
    static const uint32_t turns[] = { 0, 1, 5 };

    (void)state;
    for (size_t i = 0; i < sizeof(turns) / sizeof(*turns); i++) {
        struct crowd *crowd = crowd_start(turns[i]);

        ok(semel_loop_run(crowd->loop));
        crowd_end(crowd);
    }
}

/* As a host does. Lost work would hang this; a descriptor that tells of nothing would fail it. */
static void the_descriptor_tells_exactly_while_tasks_wait(void **state)
{
    static const uint32_t turns[] = { 0, 1, 5 };

    (void)state;
    for (size_t i = 0; i < sizeof(turns) / sizeof(*turns); i++) {
        struct crowd *crowd = crowd_start(turns[i]);

        while (crowd->ran < THREADS * ROUNDS) {
            unsigned before = crowd->ran;

            assert_true(loop_tells_within(crowd->loop, 60000));
            ok(semel_loop_dispatch(crowd->loop));
            assert_true(crowd->ran > before);
        }
        crowd_end(crowd);
    }
}

/* ---- one task that stands for many posts ---- */

struct sum {
    struct semel_loop *loop;
    struct semel_task task;
    _Atomic unsigned given;
    _Atomic unsigned refused;
    unsigned seen; /* the loop's */
};

static void see(void *user)
{
    struct sum *sum = user;

    sum->seen = atomic_load_explicit(&sum->given, memory_order_relaxed);
    if (sum->seen == THREADS * ROUNDS)
        semel_loop_stop(sum->loop);
}

static void give(void *user)
{
    struct sum *sum = user;

    for (int i = 0; i < ROUNDS; i++) {
        atomic_fetch_add_explicit(&sum->given, 1, memory_order_relaxed);
        if (semel_loop_post(sum->loop, &sum->task) != SEMEL_OK)
            atomic_fetch_add_explicit(&sum->refused, 1, memory_order_relaxed);
    }
}

/* Who is told ALREADY can rely on it that the task sees what came before. */
static void a_refused_post_is_seen_by_the_one_that_waits(void **state)
{
    struct sum sum = { .loop = loop_make() };
    struct sml_thread threads[THREADS];

    (void)state;
    sum.task = (struct semel_task)SEMEL_TASK_INIT(see, &sum);
    for (int i = 0; i < THREADS; i++)
        ok(sml_thread_create(&threads[i], "give", 0, give, &sum));
    ok(semel_loop_run(sum.loop));
    for (int i = 0; i < THREADS; i++)
        sml_thread_join(&threads[i]);
    assert_true(sum.refused > 0);
    loop_settle(sum.loop);
    ok(semel_loop_destroy(sum.loop));
}

/* ---- a task that ends the loop, and the thread that posted it ---- */

struct last_task {
    struct semel_loop *loop;
    struct semel_task task;
};

static void end_loop(void *user)
{
    struct last_task *last = user;

    ok(semel_loop_destroy(last->loop));
}

static void run_until_destroyed(void *loop)
{
    /* It looks for tasks all the time, also between a post and its ring. */
    for (enum semel_status s = SEMEL_OK; s != SEMEL_STOPPED;) {
        s = semel_loop_dispatch(loop);
        assert_true(s == SEMEL_OK || s == SEMEL_STOPPED);
    }
}

static void run_asleep_until_destroyed(void *loop)
{
    assert_int_equal(semel_loop_run(loop), SEMEL_STOPPED);
}

/* The poster may still be about to return when the loop is gone: for the sanitizers. */
static void a_posted_task_may_destroy_the_loop(void **state)
{
    (void)state;
    for (int i = 0; i < 2000; i++) {
        struct last_task last = { .loop = loop_make() };
        struct sml_thread thread;

        last.task = (struct semel_task)SEMEL_TASK_INIT(end_loop, &last);
        atomic_store(&slow_bells, i < 100);
        ok(sml_thread_create(&thread, "run", 0,
                             i % 2 ? run_until_destroyed : run_asleep_until_destroyed, last.loop));
        ok(semel_loop_post(last.loop, &last.task));
        sml_thread_join(&thread);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_run_in_order_and_the_descriptor_tells_to_the_last),
        cmocka_unit_test(a_task_that_waits_is_already_posted),
        cmocka_unit_test(a_task_may_post_itself),
        cmocka_unit_test(a_dispatch_is_bounded),
        cmocka_unit_test(a_task_may_free_itself),
        cmocka_unit_test(what_is_posted_inside_does_not_overtake),
        cmocka_unit_test(tasks_that_post_themselves_let_others_through),
        cmocka_unit_test(posts_of_a_thread_keep_their_order),
        cmocka_unit_test(every_post_runs_once_under_run),
        cmocka_unit_test(the_descriptor_tells_exactly_while_tasks_wait),
        cmocka_unit_test(a_refused_post_is_seen_by_the_one_that_waits),
        cmocka_unit_test(a_posted_task_may_destroy_the_loop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
