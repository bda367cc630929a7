/* SPDX-License-Identifier: MIT */
/* Watched descriptors. */
#include "io/loop_kit.h"

#include <fcntl.h>
#include <sys/socket.h>

struct seen {
    struct semel_watch *watch;
    struct seen *other; /* for callbacks that meddle with another watch */
    int fd, far;        /* a pair of sockets */
    int calls;
    unsigned events; /* of the last call */
};

static void seen_open(struct seen *seen)
{
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    *seen = (struct seen){ .fd = ends[0], .far = ends[1] };
}

static void seen_close(struct seen *seen)
{
    (void)close(seen->fd);
    (void)close(seen->far);
}

static void give_byte(const struct seen *seen)
{
    assert_int_equal(write(seen->far, "x", 1), 1);
}

static void take_byte(const struct seen *seen)
{
    char byte;

    assert_int_equal(read(seen->fd, &byte, 1), 1);
}

static void see(struct semel_watch *watch, unsigned events, void *user)
{
    struct seen *seen = user;

    assert_true(!seen->watch || watch == seen->watch);
    seen->calls++;
    seen->events = events;
}

static void bad_arguments_have_a_status(void **state)
{
    struct semel_loop *loop = loop_make();
    struct semel_watch *watch = (struct semel_watch *)state;
    struct seen s;
    int before, file;

    seen_open(&s);
    before = kit_descriptors();
    assert_int_equal(semel_loop_watch(NULL, s.fd, SEMEL_WATCH_READ, see, &s, &watch),
                     SEMEL_INVALID);
    assert_int_equal(semel_loop_watch(loop, -1, SEMEL_WATCH_READ, see, &s, &watch), SEMEL_INVALID);
    assert_int_equal(semel_loop_watch(loop, s.fd, 8, see, &s, &watch), SEMEL_INVALID);
    assert_int_equal(semel_loop_watch(loop, s.fd, SEMEL_WATCH_READ, NULL, &s, &watch),
                     SEMEL_INVALID);
    assert_int_equal(semel_loop_watch(loop, 1000000, SEMEL_WATCH_READ, see, &s, &watch),
                     SEMEL_INVALID);
    assert_int_equal(semel_loop_watch(loop, semel_loop_fd(loop), SEMEL_WATCH_READ, see, &s, &watch),
                     SEMEL_SYSTEM);
    file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0);
    for (unsigned events = 0; events < 8; events++)
        assert_int_equal(semel_loop_watch(loop, file, events, see, &s, &watch), SEMEL_SYSTEM);
    (void)close(file);
    assert_ptr_equal(watch, state);
    assert_int_equal(semel_watch_change(NULL, 0), SEMEL_INVALID);
    assert_int_equal(semel_watch_remove(NULL), SEMEL_INVALID);
    ok(semel_loop_watch(loop, s.fd, 0, see, &s, &watch));
    assert_int_equal(semel_watch_change(watch, 8), SEMEL_INVALID);
    /* One watch per descriptor, paused or not. */
    assert_int_equal(semel_loop_watch(loop, s.fd, SEMEL_WATCH_READ, see, &s, NULL), SEMEL_ALREADY);
    ok(semel_watch_change(watch, SEMEL_WATCH_READ));
    assert_int_equal(semel_loop_watch(loop, s.fd, 0, see, &s, NULL), SEMEL_ALREADY);
    ok(semel_watch_remove(watch));
    ok(semel_loop_watch(loop, s.fd, SEMEL_WATCH_READ, see, &s, NULL));
    ok(semel_loop_destroy(loop));
    seen_close(&s);
    assert_int_equal(kit_descriptors(), before - 6); /* the loop's four, the pair */
}

static void it_is_called_while_the_descriptor_is_ready(void **state)
{
    struct semel_loop *loop = loop_make();
    struct seen s;

    (void)state;
    seen_open(&s);
    ok(semel_loop_watch(loop, s.fd, SEMEL_WATCH_READ, see, &s, &s.watch));
    assert_false(loop_tells(loop));
    ok(semel_loop_dispatch(loop));
    assert_int_equal(s.calls, 0);
    give_byte(&s);
    for (int i = 1; i <= 3; i++) { /* level-triggered */
        assert_true(loop_tells(loop));
        assert_int_equal(semel_loop_timeout_ns(loop), 0);
        ok(semel_loop_dispatch(loop));
        assert_int_equal(s.calls, i);
        assert_int_equal(s.events, SEMEL_WATCH_READ);
    }
    take_byte(&s);
    assert_false(loop_tells(loop)); /* also without a dispatch */
    ok(semel_watch_change(s.watch, SEMEL_WATCH_READ | SEMEL_WATCH_WRITE));
    assert_true(loop_tells(loop));
    ok(semel_loop_dispatch(loop));
    assert_int_equal(s.events, SEMEL_WATCH_WRITE);
    give_byte(&s);
    ok(semel_loop_dispatch(loop));
    assert_int_equal(s.events, SEMEL_WATCH_READ | SEMEL_WATCH_WRITE);
    ok(semel_watch_remove(s.watch));
    assert_false(loop_tells(loop));
    ok(semel_loop_dispatch(loop));
    assert_int_equal(s.calls, 5);
    ok(semel_loop_destroy(loop));
    seen_close(&s);
}

static void a_pause_is_silent_even_about_a_hang_up(void **state)
{
    struct semel_loop *loop = loop_make();
    struct seen s;

    (void)state;
    seen_open(&s);
    ok(semel_loop_watch(loop, s.fd, SEMEL_WATCH_HANGUP, see, &s, &s.watch));
    give_byte(&s);
    assert_false(loop_tells(loop)); /* only hang-ups are asked for */
    ok(semel_watch_change(s.watch, 0));
    ok(semel_watch_change(s.watch, 0));
    take_byte(&s);
    (void)close(s.far);
    assert_false(loop_tells(loop));
    ok(semel_loop_dispatch(loop));
    assert_int_equal(s.calls, 0);
    ok(semel_watch_change(s.watch, SEMEL_WATCH_WRITE));
    assert_true(loop_tells(loop));
    ok(semel_loop_dispatch(loop));
    assert_int_equal(s.calls, 1);
    assert_int_equal(s.events, SEMEL_WATCH_WRITE | SEMEL_WATCH_HANGUP);
    ok(semel_watch_change(s.watch, SEMEL_WATCH_HANGUP));
    ok(semel_loop_dispatch(loop));
    assert_int_equal(s.events, SEMEL_WATCH_HANGUP);
    ok(semel_loop_destroy(loop));
    (void)close(s.fd);
}

/* ---- meddling callbacks ---- */

static void remove_both(struct semel_watch *watch, unsigned events, void *user)
{
    struct seen *seen = user;

    see(watch, events, user);
    assert_ptr_equal(watch, seen->watch);
    ok(semel_watch_remove(watch));
    assert_int_equal(semel_watch_remove(watch), SEMEL_ALREADY);
    assert_int_equal(semel_watch_change(watch, SEMEL_WATCH_READ), SEMEL_INVALID);
    ok(semel_watch_remove(seen->other->watch));
}

/* Both are ready in one turn: whichever comes first removes the other, which is not called. */
static void a_callback_may_remove_itself_and_others(void **state)
{
    struct semel_loop *loop = loop_make();
    struct seen a, b;

    (void)state;
    seen_open(&a);
    seen_open(&b);
    a.other = &b;
    b.other = &a;
    ok(semel_loop_watch(loop, a.fd, SEMEL_WATCH_READ, remove_both, &a, &a.watch));
    ok(semel_loop_watch(loop, b.fd, SEMEL_WATCH_READ, remove_both, &b, &b.watch));
    give_byte(&a);
    give_byte(&b);
    ok(semel_loop_dispatch(loop));
    assert_int_equal(a.calls + b.calls, 1);
    assert_false(loop_tells(loop));
    ok(semel_loop_destroy(loop));
    seen_close(&a);
    seen_close(&b);
}

/* The other one's descriptor is closed and its number used again, all in one turn: the event that
 * was fetched for the old watch is not the new one's. */
static struct seen fresh;

static void replace_other(struct semel_watch *watch, unsigned events, void *user)
{
    struct seen *seen = user, *other = seen->other;
    struct semel_loop *loop;

    see(watch, events, user);
    loop = (struct semel_loop *)(void *)fresh.other; /* lent for this test */
    ok(semel_watch_remove(other->watch));
    ok(semel_watch_remove(watch));
    (void)close(other->fd);
    other->fd = dup(fresh.fd);
    ok(semel_loop_watch(loop, other->fd, SEMEL_WATCH_READ, see, &fresh, NULL));
}

static void an_event_of_a_closed_descriptor_is_nobodys(void **state)
{
    struct semel_loop *loop = loop_make();
    struct seen a, b;

    (void)state;
    seen_open(&a);
    seen_open(&b);
    seen_open(&fresh);
    fresh.other = (struct seen *)(void *)loop;
    a.other = &b;
    b.other = &a;
    ok(semel_loop_watch(loop, a.fd, SEMEL_WATCH_READ, replace_other, &a, &a.watch));
    ok(semel_loop_watch(loop, b.fd, SEMEL_WATCH_READ, replace_other, &b, &b.watch));
    give_byte(&a);
    give_byte(&b);
    ok(semel_loop_dispatch(loop));
    assert_int_equal(a.calls + b.calls, 1);
    assert_int_equal(fresh.calls, 0);
    assert_false(loop_tells(loop));
    give_byte(&fresh);
    ok(semel_loop_dispatch(loop));
    assert_int_equal(fresh.calls, 1);
    ok(semel_loop_destroy(loop));
    seen_close(&a);
    seen_close(&b);
    seen_close(&fresh);
}

static void pause_other(struct semel_watch *watch, unsigned events, void *user)
{
    struct seen *seen = user;

    see(watch, events, user);
    ok(semel_watch_change(seen->other->watch, 0));
}

static void a_callback_may_pause_others(void **state)
{
    struct semel_loop *loop = loop_make();
    struct seen a, b;

    (void)state;
    seen_open(&a);
    seen_open(&b);
    a.other = &b;
    b.other = &a;
    ok(semel_loop_watch(loop, a.fd, SEMEL_WATCH_READ, pause_other, &a, &a.watch));
    ok(semel_loop_watch(loop, b.fd, SEMEL_WATCH_READ, pause_other, &b, &b.watch));
    give_byte(&a);
    give_byte(&b);
    ok(semel_loop_dispatch(loop));
    assert_int_equal(a.calls + b.calls, 1);
    ok(semel_loop_destroy(loop));
    seen_close(&a);
    seen_close(&b);
}

static void destroy_loop(struct semel_watch *watch, unsigned events, void *loop)
{
    (void)watch;
    (void)events;
    ok(semel_loop_destroy(loop));
}

static void a_callback_may_destroy_the_loop(void **state)
{
    struct semel_loop *loop = loop_make();
    struct seen a, b;

    (void)state;
    seen_open(&a);
    seen_open(&b);
    ok(semel_loop_watch(loop, a.fd, SEMEL_WATCH_READ, destroy_loop, loop, NULL));
    ok(semel_loop_watch(loop, b.fd, SEMEL_WATCH_READ, destroy_loop, loop, NULL));
    give_byte(&a);
    give_byte(&b);
    assert_int_equal(semel_loop_dispatch(loop), SEMEL_STOPPED);
    seen_close(&a);
    seen_close(&b);
}

/* ---- many, wrong threads, descriptors closed too early ---- */

#define MANY 300

static void more_descriptors_than_a_turn_takes_are_all_served(void **state)
{
    struct semel_loop *loop = loop_make();
    struct seen *all = calloc(MANY, sizeof(*all));
    int served = 0;

    (void)state;
    assert_non_null(all);
    for (int i = 0; i < MANY; i++) {
        seen_open(&all[i]);
        ok(semel_loop_watch(loop, all[i].fd, SEMEL_WATCH_READ, see, &all[i], &all[i].watch));
        give_byte(&all[i]);
    }
    for (int turns = 0; served < MANY && turns < 20; turns++) {
        ok(semel_loop_dispatch(loop));
        served = 0;
        for (int i = 0; i < MANY; i++)
            served += all[i].calls > 0;
    }
    assert_int_equal(served, MANY); /* none is passed over for ever */
    ok(semel_loop_destroy(loop));
    for (int i = 0; i < MANY; i++)
        seen_close(&all[i]);
    free(all);
}

static void meddle_elsewhere(void *user)
{
    struct seen *seen = user;

    assert_int_equal(semel_watch_change(seen->watch, 0), SEMEL_DENIED);
    assert_int_equal(semel_watch_remove(seen->watch), SEMEL_DENIED);
    assert_int_equal(semel_loop_watch((struct semel_loop *)(void *)seen->other, seen->far,
                                      SEMEL_WATCH_READ, see, NULL, NULL),
                     SEMEL_DENIED);
}

static void another_thread_is_denied(void **state)
{
    struct semel_loop *loop = loop_make();
    struct sml_thread thread;
    struct seen s;

    (void)state;
    seen_open(&s);
    s.other = (struct seen *)(void *)loop; /* lent for this test */
    ok(semel_loop_watch(loop, s.fd, SEMEL_WATCH_READ, see, &s, &s.watch));
    ok(sml_thread_create(&thread, "meddle", 0, meddle_elsewhere, &s));
    sml_thread_join(&thread);
    give_byte(&s);
    ok(semel_loop_dispatch(loop));
    assert_int_equal(s.calls, 1);
    ok(semel_loop_destroy(loop));
    seen_close(&s);
}

/* Against the rules, but defined. */
static void a_descriptor_closed_too_early_is_a_status(void **state)
{
    struct semel_loop *loop = loop_make();
    struct seen s;
    int copy;

    (void)state;
    seen_open(&s);
    copy = dup(s.fd); /* so that the system goes on telling of it */
    ok(semel_loop_watch(loop, s.fd, SEMEL_WATCH_READ, see, &s, &s.watch));
    (void)close(s.fd);
    assert_int_equal(semel_watch_change(s.watch, SEMEL_WATCH_WRITE), SEMEL_SYSTEM);
    ok(semel_watch_change(s.watch, 0));
    assert_int_equal(semel_watch_change(s.watch, SEMEL_WATCH_READ), SEMEL_SYSTEM);
    ok(semel_watch_remove(s.watch));
    give_byte(&s);
    ok(semel_loop_dispatch(loop));
    assert_int_equal(s.calls, 0);
    ok(semel_loop_destroy(loop));
    (void)close(copy);
    (void)close(s.far);
}

/* A loop lives inside another one. */
static void serve_inner(struct semel_watch *watch, unsigned events, void *inner)
{
    (void)watch;
    assert_int_equal(events, SEMEL_WATCH_READ);
    ok(semel_loop_dispatch(inner));
}

static void a_loop_can_live_in_another(void **state)
{
    struct semel_loop *outer = loop_make(), *inner = loop_make();
    int calls = 0;
    struct semel_task task = SEMEL_TASK_INIT(count, &calls);

    (void)state;
    ok(semel_loop_watch(outer, semel_loop_fd(inner), SEMEL_WATCH_READ, serve_inner, inner, NULL));
    assert_false(loop_tells(outer));
    ok(semel_loop_post(inner, &task));
    loop_until(outer, &calls, 1);
    ok(semel_loop_timer(inner, 1, count, &calls, NULL));
    loop_until(outer, &calls, 2);
    assert_false(loop_tells(outer));
    ok(semel_loop_destroy(outer));
    ok(semel_loop_destroy(inner));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_arguments_have_a_status),
        cmocka_unit_test(it_is_called_while_the_descriptor_is_ready),
        cmocka_unit_test(a_pause_is_silent_even_about_a_hang_up),
        cmocka_unit_test(a_callback_may_remove_itself_and_others),
        cmocka_unit_test(an_event_of_a_closed_descriptor_is_nobodys),
        cmocka_unit_test(a_callback_may_pause_others),
        cmocka_unit_test(a_callback_may_destroy_the_loop),
        cmocka_unit_test(more_descriptors_than_a_turn_takes_are_all_served),
        cmocka_unit_test(another_thread_is_denied),
        cmocka_unit_test(a_descriptor_closed_too_early_is_a_status),
        cmocka_unit_test(a_loop_can_live_in_another),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
