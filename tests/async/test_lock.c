/* SPDX-License-Identifier: MIT */
#include "async/lock_kit.h"

struct fixture {
    struct hand hand;
    struct semel_lock *lock;
    struct told told;
};

static void begin(struct fixture *at, uint32_t permits, uint32_t waiting)
{
    struct semel_lock_options options = { .permits = permits, .waiting = waiting };

    hand_init(&at->hand);
    at->told.text[0] = '\0';
    assert_int_equal(semel_lock_create(&at->lock, hand_loop(&at->hand), &options), SEMEL_OK);
}

static void end(struct fixture *at)
{
    semel_lock_destroy(at->lock);
    assert_int_equal(at->hand.unhandled, 0);
    hand_fini(&at->hand);
}

static struct semel_deferred *acquire(struct fixture *at, struct note *note)
{
    struct semel_deferred *deferred = NULL;

    assert_int_equal(semel_lock_acquire(at->lock, &deferred), SEMEL_OK);
    note->told = &at->told;
    note_result(deferred, note);
    return deferred;
}

static void release(struct fixture *at)
{
    assert_int_equal(semel_lock_release(at->lock), SEMEL_OK);
}

static void assert_counts(struct fixture *at, uint32_t held, uint32_t waiting)
{
    assert_int_equal(semel_lock_held(at->lock), held);
    assert_int_equal(semel_lock_waiting(at->lock), waiting);
}

/* --- D7 -------------------------------------------------------------------------------------- */

static void handed_on_in_order(void **state)
{
    struct fixture at;
    struct note notes[3] = { { NULL, "a" }, { NULL, "b" }, { NULL, "c" } };

    (void)state;
    begin(&at, 1, 0);
    for (int i = 0; i < 3; i++)
        semel_deferred_unref(acquire(&at, &notes[i])); /* the lock keeps those that wait */
    assert_told(&at.told, "a ");
    assert_counts(&at, 1, 2);
    release(&at);
    assert_told(&at.told, "b ");
    assert_counts(&at, 1, 1);
    release(&at);
    assert_told(&at.told, "c ");
    assert_counts(&at, 1, 0);
    release(&at);
    assert_counts(&at, 0, 0);
    end(&at);
}

struct barger {
    struct note note;
    struct fixture *at;
    struct semel_deferred *late;
};

/* It has the permit; it gives it back, and wants it again at once. */
static struct semel_deferred *barge(struct semel_fired *fired, void *user)
{
    struct barger *barger = user;

    (void)fired;
    release(barger->at);
    /* It is the next one's already, though that one has not been told. */
    assert_counts(barger->at, 1, 0);
    assert_int_equal(semel_lock_try(barger->at->lock), SEMEL_OVERLOADED);
    barger->late = acquire(barger->at, &barger->note);
    assert_false(has_fired(barger->late));
    assert_told(&barger->at->told, "");
    return NULL;
}

static void nobody_overtakes(void **state)
{
    struct fixture at;
    struct note next = { NULL, "next" };
    struct barger barger = { { NULL, "late" }, &at, NULL };
    struct semel_deferred *first = NULL, *second = NULL, *third;

    (void)state;
    begin(&at, 1, 0);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    assert_int_equal(semel_lock_acquire(at.lock, &first), SEMEL_OK);
    assert_int_equal(semel_lock_acquire(at.lock, &second), SEMEL_OK);
    next.told = &at.told;
    note_result(second, &next);
    assert_int_equal(semel_deferred_then(first, barge, NULL, &barger), SEMEL_OK);
    release(&at);
    assert_told(&at.told, "next ");
    assert_counts(&at, 1, 1);
    third = barger.late;
    release(&at);
    assert_told(&at.told, "late ");
    release(&at);
    semel_deferred_unref(first);
    semel_deferred_unref(second);
    semel_deferred_unref(third);
    end(&at);
}

static struct semel_deferred *release_both(struct semel_fired *fired, void *user)
{
    (void)fired;
    release(user);
    release(user);
    return NULL;
}

static void two_on_their_way_are_in_order(void **state)
{
    struct fixture at;
    struct note b = { NULL, "b" }, c = { NULL, "c" };
    struct semel_deferred *first = NULL;

    (void)state;
    begin(&at, 2, 0);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    assert_int_equal(semel_lock_acquire(at.lock, &first), SEMEL_OK);
    assert_int_equal(semel_deferred_then(first, release_both, NULL, &at), SEMEL_OK);
    semel_deferred_unref(acquire(&at, &b));
    semel_deferred_unref(acquire(&at, &c));
    release(&at);
    assert_told(&at.told, "b c ");
    assert_counts(&at, 2, 0);
    semel_deferred_unref(first);
    end(&at);
}

/* --- D8 -------------------------------------------------------------------------------------- */

static void released_too_often(void **state)
{
    struct fixture at;

    (void)state;
    begin(&at, 2, 0);
    assert_int_equal(semel_lock_release(at.lock), SEMEL_INVALID);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    release(&at);
    assert_int_equal(semel_lock_release(at.lock), SEMEL_INVALID);
    /* Nothing was done: there are still two permits. */
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OVERLOADED);
    end(&at);
}

/* --- D9 -------------------------------------------------------------------------------------- */

static void cancelled_in_line(void **state)
{
    struct fixture at;
    struct note notes[4] = { { NULL, "a" }, { NULL, "b" }, { NULL, "c" }, { NULL, "d" } };
    struct semel_deferred *deferreds[4];

    (void)state;
    begin(&at, 1, 0);
    for (int i = 0; i < 4; i++)
        deferreds[i] = acquire(&at, &notes[i]);
    assert_told(&at.told, "a ");
    semel_deferred_cancel(deferreds[2]);
    assert_told(&at.told, "c:CANCELLED ");
    assert_counts(&at, 1, 2);
    semel_deferred_cancel(deferreds[2]);
    semel_deferred_cancel(deferreds[0]); /* it has fired: nothing happens */
    release(&at);
    release(&at);
    assert_told(&at.told, "b d ");
    release(&at);
    assert_counts(&at, 0, 0);
    for (int i = 0; i < 4; i++)
        semel_deferred_unref(deferreds[i]);
    end(&at);
}

/* A permit was given to it in the same callback that cancels it now. */
static struct semel_deferred *release_and_cancel(struct semel_fired *fired, void *user)
{
    struct barger *barger = user;

    (void)fired;
    release(barger->at);
    semel_deferred_cancel(barger->late);
    return NULL;
}

static void cancelled_with_a_permit_on_its_way(void **state)
{
    struct fixture at;
    struct note granted = { NULL, "granted" }, next = { NULL, "next" };
    struct barger barger = { { NULL, "" }, &at, NULL };
    struct semel_deferred *first = NULL, *third;

    (void)state;
    begin(&at, 1, 0);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    assert_int_equal(semel_lock_acquire(at.lock, &first), SEMEL_OK);
    assert_int_equal(semel_deferred_then(first, release_and_cancel, NULL, &barger), SEMEL_OK);
    barger.late = acquire(&at, &granted);
    third = acquire(&at, &next);
    release(&at);
    assert_told(&at.told, "granted:CANCELLED next ");
    assert_counts(&at, 1, 0);
    release(&at);
    assert_counts(&at, 0, 0);
    semel_deferred_unref(first);
    semel_deferred_unref(barger.late);
    semel_deferred_unref(third);
    end(&at);
}

/* From another thread, and by a time limit when the deferred's owner has let go of it. */
static void cancelled_from_elsewhere(void **state)
{
    struct fixture at;
    struct note a = { NULL, "a" }, b = { NULL, "b" };
    struct semel_deferred *first, *second;

    (void)state;
    begin(&at, 1, 0);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    first = acquire(&at, &a);
    assert_int_equal(semel_lock_acquire(at.lock, &second), SEMEL_OK);
    assert_int_equal(semel_deferred_timeout(second, 10), SEMEL_OK);
    b.told = &at.told;
    note_result(second, &b);
    semel_deferred_unref(second);
    at.hand.away = true;
    semel_deferred_cancel(first);
    assert_int_equal(semel_lock_release(at.lock), SEMEL_DENIED);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_DENIED);
    assert_int_equal(semel_lock_acquire(at.lock, &second), SEMEL_DENIED);
    assert_int_equal(semel_lock_run(at.lock, body_now, &a, NULL), SEMEL_DENIED);
    semel_lock_destroy(at.lock);
    at.hand.away = false;
    assert_counts(&at, 1, 2);
    (void)hand_run(&at.hand);
    assert_told(&at.told, "a:CANCELLED ");
    hand_advance(&at.hand, 10 * 1000000);
    assert_told(&at.told, "b:DEADLINE ");
    assert_counts(&at, 1, 0);
    semel_deferred_unref(first);
    end(&at);
}

#define MANY 200000

/* A million steps if each took one, ten thousand million if each looked through the line. */
static void cancelling_is_cheap(void **state)
{
    struct fixture at;
    struct semel_deferred **deferreds = calloc(MANY, sizeof(struct semel_deferred *));

    (void)state;
    begin(&at, 1, 0);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(semel_lock_acquire(at.lock, &deferreds[i]), SEMEL_OK);
    for (int i = 0; i < MANY; i++) { /* from the middle outwards */
        int which = MANY / 2 + (i % 2 ? -(i + 1) / 2 : i / 2);

        semel_deferred_cancel(deferreds[which]);
        semel_deferred_unref(deferreds[which]);
        assert_int_equal(semel_lock_waiting(at.lock), MANY - 1 - i);
    }
    release(&at);
    assert_counts(&at, 0, 0);
    free(deferreds);
    end(&at);
}

/* --- D12 ------------------------------------------------------------------------------------- */

static void permits_have_bounds(void **state)
{
    struct hand hand;
    struct semel_lock *lock = NULL;
    struct semel_lock_options options = { .permits = (uint32_t)-1 };
    struct fixture at;
    struct note note = { NULL, "a" };

    (void)state;
    hand_init(&hand);
    assert_int_equal(semel_lock_create(&lock, hand_loop(&hand), &options), SEMEL_INVALID);
    options = (struct semel_lock_options){ .permits = 1, .waiting = (uint32_t)INT32_MAX + 1 };
    assert_int_equal(semel_lock_create(&lock, hand_loop(&hand), &options), SEMEL_INVALID);
    assert_int_equal(semel_lock_create(NULL, hand_loop(&hand), NULL), SEMEL_INVALID);
    hand.away = true;
    assert_int_equal(semel_lock_create(&lock, hand_loop(&hand), NULL), SEMEL_DENIED);
    hand.away = false;
    hand_fail_at(&hand, 1);
    assert_int_equal(semel_lock_create(&lock, hand_loop(&hand), NULL), SEMEL_NO_MEMORY);
    assert_null(lock);
    assert_int_equal(semel_lock_create(&lock, hand_loop(&hand), NULL), SEMEL_OK);
    assert_int_equal(semel_lock_try(lock), SEMEL_OK); /* one by default */
    assert_int_equal(semel_lock_try(lock), SEMEL_OVERLOADED);
    semel_lock_destroy(lock);
    hand_fini(&hand);

    begin(&at, 3, 0);
    for (uint32_t i = 0; i < 3; i++) {
        assert_counts(&at, i, 0);
        assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    }
    semel_deferred_unref(acquire(&at, &note));
    assert_counts(&at, 3, 1);
    for (uint32_t i = 4; i-- > 0;)
        release(&at);
    assert_int_equal(semel_lock_release(at.lock), SEMEL_INVALID);
    end(&at);
}

static void the_line_has_a_bound(void **state)
{
    struct fixture at;
    struct note a = { NULL, "a" }, b = { NULL, "b" };
    struct semel_deferred *first, *second, *third = NULL;

    (void)state;
    begin(&at, 1, 2);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    first = acquire(&at, &a);
    second = acquire(&at, &b);
    assert_int_equal(semel_lock_acquire(at.lock, &third), SEMEL_OVERLOADED);
    assert_int_equal(semel_lock_run(at.lock, body_now, &a, NULL), SEMEL_OVERLOADED);
    assert_int_equal(semel_lock_run(at.lock, body_now, &a, &third), SEMEL_OVERLOADED);
    assert_null(third);
    semel_deferred_cancel(first);
    hand_fail_at(&at.hand, 1);
    assert_int_equal(semel_lock_acquire(at.lock, &third), SEMEL_NO_MEMORY);
    assert_null(third);
    assert_int_equal(semel_lock_acquire(at.lock, &third), SEMEL_OK);
    semel_deferred_cancel(third);
    release(&at);
    assert_told(&at.told, "a:CANCELLED b ");
    assert_counts(&at, 1, 0);
    semel_deferred_unref(first);
    semel_deferred_unref(second);
    semel_deferred_unref(third);
    end(&at);
}

/* --- its end --------------------------------------------------------------------------------- */

static void those_that_wait_are_told_of_its_end(void **state)
{
    struct fixture at;
    struct note a = { NULL, "a" }, b = { NULL, "b" };
    struct semel_deferred *first, *second;

    (void)state;
    begin(&at, 1, 0);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    first = acquire(&at, &a);
    second = acquire(&at, &b);
    semel_lock_destroy(at.lock);
    assert_told(&at.told, "a:STOPPED b:STOPPED ");
    semel_deferred_cancel(first);
    semel_deferred_unref(first);
    semel_deferred_unref(second);
    semel_lock_destroy(NULL);
    hand_fini(&at.hand);
}

/* Destroys the lock in the callback of a waiter; what is called of it then is STOPPED. */
static struct semel_deferred *destroy(struct semel_fired *fired, void *user)
{
    struct fixture *at = user;
    struct semel_deferred *none = NULL;

    (void)fired;
    semel_lock_destroy(at->lock);
    semel_lock_destroy(at->lock);
    assert_int_equal(semel_lock_release(at->lock), SEMEL_STOPPED);
    assert_int_equal(semel_lock_try(at->lock), SEMEL_STOPPED);
    assert_int_equal(semel_lock_acquire(at->lock, &none), SEMEL_STOPPED);
    assert_int_equal(semel_lock_run(at->lock, body_now, NULL, NULL), SEMEL_STOPPED);
    assert_null(none);
    return NULL;
}

static void destroyed_in_a_callback(void **state)
{
    struct fixture at;
    struct note b = { NULL, "b" }, c = { NULL, "c" };
    struct semel_deferred *first, *second, *third;

    (void)state;
    begin(&at, 1, 0);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    assert_int_equal(semel_lock_acquire(at.lock, &first), SEMEL_OK);
    assert_int_equal(semel_deferred_then(first, destroy, NULL, &at), SEMEL_OK);
    second = acquire(&at, &b);
    third = acquire(&at, &c);
    semel_deferred_cancel(third);
    release(&at);
    assert_told(&at.told, "c:CANCELLED b:STOPPED ");
    semel_deferred_unref(first);
    semel_deferred_unref(second);
    semel_deferred_unref(third);
    hand_fini(&at.hand);
}

/* Both at once: a permit on its way to b, and its lock destroyed. */
static struct semel_deferred *release_and_destroy(struct semel_fired *fired, void *user)
{
    struct fixture *at = user;

    release(at);
    return destroy(fired, user);
}

static void destroyed_with_a_permit_on_its_way(void **state)
{
    struct fixture at;
    struct note b = { NULL, "b" };
    struct semel_deferred *first, *second;

    (void)state;
    begin(&at, 1, 0);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    assert_int_equal(semel_lock_acquire(at.lock, &first), SEMEL_OK);
    assert_int_equal(semel_deferred_then(first, release_and_destroy, NULL, &at), SEMEL_OK);
    second = acquire(&at, &b);
    release(&at);
    assert_told(&at.told, "b:STOPPED ");
    semel_deferred_unref(first);
    semel_deferred_unref(second);
    hand_fini(&at.hand);
}

/* --- bad use --------------------------------------------------------------------------------- */

static void what_is_wrong_is_refused(void **state)
{
    struct fixture at;
    struct semel_deferred *deferred = NULL;

    (void)state;
    begin(&at, 1, 0);
    assert_int_equal(semel_lock_acquire(NULL, &deferred), SEMEL_INVALID);
    assert_int_equal(semel_lock_acquire(at.lock, NULL), SEMEL_INVALID);
    assert_int_equal(semel_lock_try(NULL), SEMEL_INVALID);
    assert_int_equal(semel_lock_release(NULL), SEMEL_INVALID);
    assert_int_equal(semel_lock_run(NULL, body_now, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_lock_run(at.lock, NULL, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_lock_held(NULL), 0);
    assert_int_equal(semel_lock_waiting(NULL), 0);
    assert_counts(&at, 0, 0);
    end(&at);
}

/* Somebody fires the lock's own deferred: the permit goes to the next one. */
static void a_deferred_that_others_fired_takes_no_permit(void **state)
{
    struct fixture at;
    struct note a = { NULL, "a" }, b = { NULL, "b" };
    struct semel_deferred *first, *second;

    (void)state;
    begin(&at, 1, 0);
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    first = acquire(&at, &a);
    second = acquire(&at, &b);
    assert_int_equal(semel_deferred_fire(first, NULL, NULL), SEMEL_OK);
    assert_told(&at.told, "a ");
    release(&at);
    assert_told(&at.told, "b ");
    assert_counts(&at, 1, 0);
    release(&at);
    assert_counts(&at, 0, 0);
    semel_deferred_unref(first);
    semel_deferred_unref(second);
    end(&at);
}

static void without_a_loop_it_works_too(void **state)
{
    struct semel_lock *lock = NULL;
    struct semel_deferred *first = NULL, *second = NULL;
    struct told told = { "" };
    struct note note = { &told, "b" };

    (void)state;
    assert_int_equal(semel_lock_create(&lock, NULL, NULL), SEMEL_OK);
    assert_int_equal(semel_lock_acquire(lock, &first), SEMEL_OK);
    assert_int_equal(semel_lock_acquire(lock, &second), SEMEL_OK);
    note_result(second, &note);
    assert_int_equal(semel_lock_release(lock), SEMEL_OK);
    assert_told(&told, "b ");
    semel_deferred_unref(first);
    semel_deferred_unref(second);
    semel_lock_destroy(lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "D7 a permit is handed on in order", handed_on_in_order, NULL, NULL, NULL },
        { "D7 nobody overtakes, also who gives back and wants again", nobody_overtakes, NULL, NULL,
          NULL },
        { "D7 two permits on their way arrive in order", two_on_their_way_are_in_order, NULL, NULL,
          NULL },
        { "D8 giving back too often is an error and changes nothing", released_too_often, NULL,
          NULL, NULL },
        { "D9 who is cancelled in line leaves the others in order", cancelled_in_line, NULL, NULL,
          NULL },
        { "D9 who is cancelled with a permit on its way loses none",
          cancelled_with_a_permit_on_its_way, NULL, NULL, NULL },
        cmocka_unit_test(cancelled_from_elsewhere),
        { "D9 cancelling does not look through the line", cancelling_is_cheap, NULL, NULL, NULL },
        { "D12 permits stay within their bounds", permits_have_bounds, NULL, NULL, NULL },
        cmocka_unit_test(the_line_has_a_bound),
        cmocka_unit_test(those_that_wait_are_told_of_its_end),
        cmocka_unit_test(destroyed_in_a_callback),
        cmocka_unit_test(destroyed_with_a_permit_on_its_way),
        cmocka_unit_test(what_is_wrong_is_refused),
        cmocka_unit_test(a_deferred_that_others_fired_takes_no_permit),
        cmocka_unit_test(without_a_loop_it_works_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
