/* SPDX-License-Identifier: MIT */
/* The life of a loop: created, run, embedded, stopped, destroyed, forked. */
#include "io/loop_kit.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <semel/deferred.h>

#include "base/executor.h"

LOOP_KIT_SLOW_BELLS;

/* ---- created and destroyed ---- */

static void nothing_is_left_of_a_loop(void **state)
{
    struct semel_loop_options options = SEMEL_LOOP_OPTIONS_INIT;
    struct semel_loop *loop;
    int before = kit_descriptors();

    (void)state;
    ok(semel_loop_create(&loop, &options));
    assert_true(semel_loop_fd(loop) >= 0);
    assert_false(loop_tells(loop));
    assert_int_equal(semel_loop_timeout_ns(loop), -1);
    assert_false(semel_loop_is_here(loop));
    ok(semel_loop_destroy(loop));
    assert_int_equal(kit_descriptors(), before);
}

static void null_has_a_status_everywhere(void **state)
{
    struct semel_loop *loop = loop_make();
    struct semel_task task = SEMEL_TASK_INIT(NULL, NULL);

    (void)state;
    assert_int_equal(semel_loop_create(NULL, NULL), SEMEL_INVALID);
    ok(semel_loop_destroy(NULL));
    assert_int_equal(semel_loop_run(NULL), SEMEL_INVALID);
    assert_int_equal(semel_loop_dispatch(NULL), SEMEL_INVALID);
    assert_int_equal(semel_loop_post(NULL, &task), SEMEL_INVALID);
    assert_int_equal(semel_loop_post(loop, NULL), SEMEL_INVALID);
    assert_int_equal(semel_loop_post(loop, &task), SEMEL_INVALID);
    assert_null(task.next);
    semel_loop_stop(NULL);
    assert_int_equal(semel_loop_fd(NULL), -1);
    assert_int_equal(semel_loop_timeout_ns(NULL), -1);
    assert_false(semel_loop_is_here(NULL));
    ok(semel_loop_destroy(loop));
}

/* With room for ever more descriptors, each step of create fails. */
static void no_descriptors_is_a_limit(void **state)
{
    struct semel_loop *loop = (struct semel_loop *)state;
    struct rlimit limit, none;
    int used = kit_descriptors();
    enum semel_status s = SEMEL_LIMIT;
    unsigned more = 0;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    for (; s == SEMEL_LIMIT; more++) {
        assert_ptr_equal(loop, state);
        none.rlim_cur = more;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        s = semel_loop_create(&loop, NULL);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ok(s);
    assert_true(more >= 4);
    ok(semel_loop_destroy(loop));
    assert_int_equal(kit_descriptors(), used);
}

static void what_lies_with_it_keeps_it(void **state)
{
    struct semel_loop *loop = loop_make();
    struct sml_executor *executor = sml_executor_of(loop);

    (void)state;
    sml_executor_enter(executor);
    assert_int_equal(semel_loop_destroy(loop), SEMEL_ALREADY);
    ok(semel_loop_dispatch(loop));
    sml_executor_leave(executor);
    ok(semel_loop_destroy(loop));
}

/* ---- run and stop ---- */

struct meeting {
    struct semel_loop *loop;
    int calls;
    enum semel_status inner;
    bool here;
};

static void look_around(void *user)
{
    struct meeting *m = user;

    m->calls++;
    m->here = semel_loop_is_here(m->loop);
    m->inner = semel_loop_run(m->loop);
    assert_int_equal(semel_loop_dispatch(m->loop), m->inner);
    semel_loop_stop(m->loop);
}

static void run_ends_with_the_callback_that_stops_it(void **state)
{
    struct meeting m = { loop_make(), 0, SEMEL_OK, false };
    struct semel_task look = SEMEL_TASK_INIT(look_around, &m),
                      later = SEMEL_TASK_INIT(count, &m.calls);

    (void)state;
    ok(semel_loop_post(m.loop, &look));
    ok(semel_loop_post(m.loop, &later));
    ok(semel_loop_run(m.loop));
    assert_int_equal(m.calls, 1);
    assert_true(m.here);
    assert_false(semel_loop_is_here(m.loop));
    assert_int_equal(m.inner, SEMEL_WOULD_DEADLOCK);
    assert_true(loop_tells(m.loop)); /* the other one waits on */
    ok(semel_loop_dispatch(m.loop));
    assert_int_equal(m.calls, 2);
    assert_false(loop_tells(m.loop));
    ok(semel_loop_destroy(m.loop));
}

static void a_stop_is_kept_for_the_next_run(void **state)
{
    struct semel_loop *loop = loop_make();
    int calls = 0;
    struct semel_task task = SEMEL_TASK_INIT(count, &calls);

    (void)state;
    ok(semel_loop_post(loop, &task));
    semel_loop_stop(loop);
    semel_loop_stop(loop);
    ok(semel_loop_run(loop));
    assert_int_equal(calls, 0);
    loop_settle(loop);
    assert_int_equal(calls, 1);
    semel_loop_stop(loop); /* and over a dispatch, which takes notice */
    assert_true(loop_tells(loop));
    ok(semel_loop_dispatch(loop));
    assert_false(loop_tells(loop));
    ok(semel_loop_run(loop));
    ok(semel_loop_destroy(loop));
}

static void another_thread_inside_is_already(void **state)
{
    struct semel_loop *loop = loop_make();
    struct sml_thread thread;
    int fired = 0;

    (void)state;
    ok(sml_thread_create(&thread, "run", 0, run_thread, loop));
    while (semel_loop_dispatch(loop) != SEMEL_ALREADY)
        sml_thread_yield();
    assert_int_equal(semel_loop_run(loop), SEMEL_ALREADY);
    assert_int_equal(semel_loop_destroy(loop), SEMEL_ALREADY);
    assert_int_equal(semel_loop_timer(loop, 0, count, &fired, NULL), SEMEL_DENIED);
    assert_int_equal(semel_loop_timeout_ns(loop), 0);
    assert_false(semel_loop_is_here(loop));
    semel_loop_stop(loop);
    sml_thread_join(&thread);
    /* It is that thread's still, until another one comes inside. */
    assert_int_equal(semel_loop_timer(loop, 0, count, &fired, NULL), SEMEL_DENIED);
    ok(semel_loop_dispatch(loop));
    ok(semel_loop_timer(loop, 0, count, &fired, NULL));
    loop_until(loop, &fired, 1);
    ok(semel_loop_destroy(loop));
}

static struct semel_loop *interrupted;

static void stop_it(int number)
{
    (void)number;
    semel_loop_stop(interrupted);
}

/* The handler runs on the very thread that sleeps inside. */
static void a_signal_handler_may_stop_it(void **state)
{
    struct sigaction action = { .sa_handler = stop_it };

    (void)state;
    interrupted = loop_make();
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    alarm(1);
    ok(semel_loop_run(interrupted));
    ok(semel_loop_destroy(interrupted));
}

/* The stopper may still be about to return when the loop is gone: for the sanitizers. */
static void run_and_destroy(void *loop)
{
    ok(semel_loop_run(loop));
    ok(semel_loop_destroy(loop));
}

static void a_loop_may_be_destroyed_as_soon_as_it_stopped(void **state)
{
    (void)state;
    for (int i = 0; i < 2000; i++) {
        struct semel_loop *loop = loop_make();
        struct semel_task task = SEMEL_TASK_INIT(count, &(int){ 0 });
        struct sml_thread thread;

        atomic_store(&slow_bells, i < 100);
        ok(sml_thread_create(&thread, "run", 0, run_and_destroy, loop));
        if (i % 2)
            ok(semel_loop_post(loop, &task)); /* so that it may be awake */
        semel_loop_stop(loop);
        sml_thread_join(&thread);
    }
}

/* ---- destroyed in a callback ---- */

struct doom {
    struct semel_loop *loop;
    struct semel_task task, later;
    int calls;
    bool keep; /* something lies with the loop */
};

static void destroy_here(void *user)
{
    struct doom *doom = user;
    struct semel_timer *timer;

    if (doom->keep)
        sml_executor_enter(sml_executor_of(doom->loop));
    assert_int_equal(semel_loop_destroy(doom->loop), doom->keep ? SEMEL_ALREADY : SEMEL_OK);
    if (doom->keep)
        sml_executor_leave(sml_executor_of(doom->loop));
    ok(semel_loop_destroy(doom->loop));
    /* Until this returns it is a loop like any other. */
    ok(semel_loop_timer(doom->loop, 0, count, &doom->calls, &timer));
    ok(semel_loop_post(doom->loop, &doom->later));
    assert_true(semel_loop_is_here(doom->loop));
}

static void doom_init(struct doom *doom, bool keep)
{
    *doom = (struct doom){ .loop = loop_make(), .keep = keep };
    doom->task = (struct semel_task)SEMEL_TASK_INIT(destroy_here, doom);
    doom->later = (struct semel_task)SEMEL_TASK_INIT(count, &doom->calls);
    ok(semel_loop_post(doom->loop, &doom->task));
}

static void destroying_in_a_callback_waits_for_its_return(void **state)
{
    int before = kit_descriptors();
    struct doom doom;

    (void)state;
    for (int i = 0; i < 4; i++) {
        doom_init(&doom, i % 2);
        assert_int_equal(i < 2 ? semel_loop_run(doom.loop) : semel_loop_dispatch(doom.loop),
                         SEMEL_STOPPED);
        assert_int_equal(doom.calls, 0);
        assert_null(doom.later.next); /* its memory is ours again */
        assert_int_equal(kit_descriptors(), before);
    }
}

/* Misuse, but defined: what is made on a loop that is being destroyed keeps it. */
static void destroy_and_then_use(void *user)
{
    struct doom *doom = user;

    ok(semel_loop_destroy(doom->loop));
    sml_executor_enter(sml_executor_of(doom->loop));
    ok(semel_loop_post(doom->loop, &doom->later));
}

static void use_no_more(void *user)
{
    struct doom *doom = user;

    doom->calls++;
    sml_executor_leave(sml_executor_of(doom->loop));
}

static void what_is_made_on_a_destroyed_loop_keeps_it(void **state)
{
    struct doom doom;

    (void)state;
    doom_init(&doom, false);
    doom.task.fn = destroy_and_then_use;
    doom.later = (struct semel_task)SEMEL_TASK_INIT(use_no_more, &doom);
    assert_int_equal(semel_loop_run(doom.loop), SEMEL_STOPPED);
    assert_int_equal(doom.calls, 1);
}

static void a_destroyed_loop_drops_what_waits(void **state)
{
    struct semel_loop *loop = loop_make();
    int calls = 0, ends[2];
    struct semel_task a = SEMEL_TASK_INIT(count, &calls), b = SEMEL_TASK_INIT(count, &calls);

    (void)state;
    assert_int_equal(pipe(ends), 0);
    ok(semel_loop_post(loop, &a));
    ok(semel_loop_post(loop, &b));
    ok(semel_loop_timer(loop, 0, count, &calls, NULL));
    ok(semel_loop_timer(loop, 1000, count, &calls, NULL));
    ok(semel_loop_destroy(loop));
    assert_int_equal(calls, 0);
    assert_null(a.next);
    assert_null(b.next);
    loop = loop_make(); /* they may be posted elsewhere */
    ok(semel_loop_post(loop, &a));
    ok(semel_loop_post(loop, &b));
    loop_settle(loop);
    assert_int_equal(calls, 2);
    ok(semel_loop_destroy(loop));
    close(ends[0]);
    close(ends[1]);
}

/* ---- forked ---- */

static void unread(struct semel_watch *watch, unsigned events, void *user)
{
    (void)watch;
    (void)events;
    (void)user;
}

static void in_the_child(struct semel_loop *loop, struct semel_timer *timer,
                         struct semel_watch *watch)
{
    int calls = 0;
    struct semel_task task = SEMEL_TASK_INIT(count, &calls);

    assert_int_equal(semel_loop_post(loop, &task), SEMEL_FORKED);
    assert_int_equal(semel_loop_run(loop), SEMEL_FORKED);
    assert_int_equal(semel_loop_dispatch(loop), SEMEL_FORKED);
    assert_int_equal(semel_loop_destroy(loop), SEMEL_FORKED);
    assert_int_equal(semel_loop_timer(loop, 0, count, &calls, NULL), SEMEL_FORKED);
    assert_int_equal(semel_timer_cancel(timer), SEMEL_FORKED);
    assert_int_equal(semel_loop_watch(loop, 0, SEMEL_WATCH_READ, unread, NULL, NULL), SEMEL_FORKED);
    assert_int_equal(semel_watch_change(watch, 0), SEMEL_FORKED);
    assert_int_equal(semel_watch_remove(watch), SEMEL_FORKED);
    semel_loop_stop(loop);
    assert_int_equal(semel_loop_timeout_ns(loop), 0);
    _exit(7);
}

static void a_forked_child_is_answered_forked(void **state)
{
    struct semel_loop *loop = loop_make();
    struct semel_timer *timer;
    struct semel_watch *watch;
    int status = 0, calls = 0, ends[2];
    pid_t child;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    ok(semel_loop_timer(loop, 1000000, count, &calls, &timer));
    ok(semel_loop_watch(loop, ends[0], SEMEL_WATCH_READ, unread, NULL, &watch));
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        in_the_child(loop, timer, watch);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
    assert_false(loop_tells(loop)); /* the parent's loop noticed nothing */
    ok(semel_loop_destroy(loop));
    close(ends[0]);
    close(ends[1]);
}

/* A child that never execs has copies of all descriptors, so that closing them takes nothing out of
 * the loop's set: who embeds the loop by a copy would be told, and dispatch a loop that is gone. */
static void a_destroyed_loop_is_silent_though_a_child_lives(void **state)
{
    for (int with_timer = 0; with_timer < 2; with_timer++) {
        struct semel_loop_options one = { .turn_tasks = 1 };
        struct semel_loop *loop;
        struct pollfd copy = { .events = POLLIN };
        int calls = 0, told;
        struct semel_task a = SEMEL_TASK_INIT(count, &calls), b = SEMEL_TASK_INIT(count, &calls);
        pid_t child;

        (void)state;
        ok(semel_loop_create(&loop, &one));
        copy.fd = dup(semel_loop_fd(loop));
        assert_true(copy.fd >= 0);
        child = fork();
        assert_true(child >= 0);
        if (child == 0)
            for (;;)
                pause();
        if (with_timer) {
            ok(semel_loop_timer(loop, 1, count, &calls, NULL));
        } else { /* one waits on after a turn */
            ok(semel_loop_post(loop, &a));
            ok(semel_loop_post(loop, &b));
            ok(semel_loop_dispatch(loop));
        }
        ok(semel_loop_destroy(loop));
        told = poll(&copy, 1, 100);
        assert_int_equal(kill(child, SIGKILL), 0); /* before anything can fail */
        assert_int_equal(waitpid(child, NULL, 0), child);
        assert_int_equal(told, 0);
        close(copy.fd);
    }
}

/* ---- as an executor ---- */

static void keep_line(enum semel_log_level level, const char *text, void *user)
{
    assert_int_equal(level, SEMEL_LOG_ERROR);
    (void)snprintf(user, 200, "%s", text);
}

static void failures_that_nobody_handled_are_logged(void **state)
{
    struct semel_fired fired = { .status = SEMEL_FAILED, .code = -3, .text = "no\nmoney" };
    char line[200] = "";
    struct semel_loop_options options = { 0, keep_line, line };
    struct semel_loop *loop;
    struct sml_executor *executor;

    (void)state;
    ok(semel_loop_create(&loop, &options));
    executor = sml_executor_of(loop);
    executor->ops->unhandled(executor, &fired);
    assert_string_equal(line, "nobody handled a failure: FAILED, code -3: no\\x0amoney");
    fired = (struct semel_fired){ .status = SEMEL_DEADLINE };
    executor->ops->unhandled(executor, &fired);
    assert_string_equal(line, "nobody handled a failure: DEADLINE");
    ok(semel_loop_destroy(loop));
    loop = loop_make(); /* without a hook */
    executor = sml_executor_of(loop);
    executor->ops->unhandled(executor, &fired);
    ok(semel_loop_destroy(loop));
}

static void note_place(void *user)
{
    struct meeting *m = user;
    struct sml_executor *executor = sml_executor_of(m->loop);

    m->here = executor->ops->is_here(executor);
    m->calls++;
}

static void an_executor_is_where_its_loop_is(void **state)
{
    struct meeting m = { .loop = loop_make() };
    struct sml_executor *executor = sml_executor_of(m.loop);
    struct semel_task task = SEMEL_TASK_INIT(note_place, &m);
    struct sml_thread thread;
    uint64_t before = sml_clock_now();

    (void)state;
    assert_ptr_equal(executor, m.loop);
    assert_true(sml_executor_has_loop(executor));
    assert_true(executor->ops->is_here(executor)); /* its creator's */
    assert_true(executor->ops->now(executor) >= before);
    executor->ops->post(executor, &task);
    ok(sml_thread_create(&thread, "run", 0, run_thread, m.loop));
    semel_loop_stop(m.loop);
    sml_thread_join(&thread);
    assert_false(executor->ops->is_here(executor)); /* that thread's */
    loop_settle(m.loop);
    assert_int_equal(m.calls, 1);
    assert_true(m.here);
    ok(semel_loop_destroy(m.loop));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_left_of_a_loop),
        cmocka_unit_test(null_has_a_status_everywhere),
        cmocka_unit_test(no_descriptors_is_a_limit),
        cmocka_unit_test(what_lies_with_it_keeps_it),
        cmocka_unit_test(run_ends_with_the_callback_that_stops_it),
        cmocka_unit_test(a_stop_is_kept_for_the_next_run),
        cmocka_unit_test(another_thread_inside_is_already),
        cmocka_unit_test(a_signal_handler_may_stop_it),
        cmocka_unit_test(a_loop_may_be_destroyed_as_soon_as_it_stopped),
        cmocka_unit_test(destroying_in_a_callback_waits_for_its_return),
        cmocka_unit_test(what_is_made_on_a_destroyed_loop_keeps_it),
        cmocka_unit_test(a_destroyed_loop_drops_what_waits),
        cmocka_unit_test(a_forked_child_is_answered_forked),
        cmocka_unit_test(a_destroyed_loop_is_silent_though_a_child_lives),
        cmocka_unit_test(failures_that_nobody_handled_are_logged),
        cmocka_unit_test(an_executor_is_where_its_loop_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
