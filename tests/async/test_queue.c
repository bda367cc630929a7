/* SPDX-License-Identifier: MIT */
#include "async/lock_kit.h"

struct fixture {
    struct hand hand;
    struct semel_queue *queue;
    struct told told;
    uint32_t dropped;
};

static struct fixture *dropping; /* whose items these are */

static void drop(void *item)
{
    (void)item;
    dropping->dropped++;
}

static void begin(struct fixture *at, int64_t items, int64_t takers)
{
    struct semel_queue_options options = { .items = items, .takers = takers };

    hand_init(&at->hand);
    at->told.text[0] = '\0';
    at->dropped = 0;
    dropping = at;
    assert_int_equal(semel_queue_create(&at->queue, hand_loop(&at->hand), &options), SEMEL_OK);
}

static void end(struct fixture *at)
{
    semel_queue_destroy(at->queue);
    assert_int_equal(at->hand.unhandled, 0);
    hand_fini(&at->hand);
}

static void assert_counts(struct fixture *at, uint32_t items, uint32_t takers)
{
    assert_int_equal(semel_queue_items(at->queue), items);
    assert_int_equal(semel_queue_takers(at->queue), takers);
}

static void put(struct fixture *at, const char *item)
{
    assert_int_equal(semel_queue_put(at->queue, (void *)(uintptr_t)item, NULL), SEMEL_OK);
}

/* Tells the taker's name and the item's. */
static struct semel_deferred *on_item(struct semel_fired *fired, void *user)
{
    struct note *note = user;

    tell(note->told, note->name, fired->status);
    if (fired->status == SEMEL_OK && fired->value)
        tell(note->told, fired->value, SEMEL_OK);
    semel_fired_set_value(fired, NULL, NULL);
    return NULL;
}

static struct semel_deferred *get(struct fixture *at, struct note *note)
{
    struct semel_deferred *deferred = NULL;

    assert_int_equal(semel_queue_get(at->queue, &deferred), SEMEL_OK);
    note->told = &at->told;
    assert_int_equal(semel_deferred_then(deferred, on_item, on_item, note), SEMEL_OK);
    return deferred;
}

/* --- D13 ------------------------------------------------------------------------------------- */

static void both_lines_are_in_order(void **state)
{
    struct fixture at;
    struct note notes[4] = { { NULL, "a" }, { NULL, "b" }, { NULL, "c" }, { NULL, "d" } };

    (void)state;
    begin(&at, -1, -1);
    put(&at, "1");
    put(&at, "2");
    assert_counts(&at, 2, 0);
    for (int i = 0; i < 4; i++)
        semel_deferred_unref(get(&at, &notes[i])); /* the queue keeps those that wait */
    assert_told(&at.told, "a 1 b 2 ");
    assert_counts(&at, 0, 2);
    put(&at, "3");
    assert_told(&at.told, "c 3 ");
    put(&at, NULL);
    assert_told(&at.told, "d ");
    put(&at, "5");
    assert_counts(&at, 1, 0);
    end(&at);
}

static void bounds_are_told_at_once(void **state)
{
    struct fixture at;
    struct note notes[2] = { { NULL, "a" }, { NULL, "b" } };
    struct semel_deferred *none = NULL;

    (void)state;
    begin(&at, 2, 1);
    for (int i = 0; i < 2; i++)
        assert_int_equal(semel_queue_put(at.queue, &at, drop), SEMEL_OK);
    assert_int_equal(semel_queue_put(at.queue, &at, drop), SEMEL_OVERLOADED);
    assert_int_equal(at.dropped, 0); /* what was refused is still the caller's */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(semel_queue_get(at.queue, &none), SEMEL_OK);
        semel_deferred_unref(none);
        assert_int_equal(at.dropped, i + 1);
    }
    none = NULL;
    semel_deferred_unref(get(&at, &notes[0]));
    assert_int_equal(semel_queue_get(at.queue, &none), SEMEL_OVERLOADED);
    assert_null(none);
    put(&at, "1");
    assert_told(&at.told, "a 1 ");
    end(&at);
}

static void zero_is_a_bound(void **state)
{
    struct fixture at;
    struct note note = { NULL, "a" };
    struct semel_deferred *none = NULL;

    (void)state;
    begin(&at, 0, 1); /* items only for those that wait */
    assert_int_equal(semel_queue_put(at.queue, &at, drop), SEMEL_OVERLOADED);
    semel_deferred_unref(get(&at, &note));
    put(&at, "1");
    assert_told(&at.told, "a 1 ");
    end(&at);
    begin(&at, 1, 0); /* takers only for what waits */
    assert_int_equal(semel_queue_get(at.queue, &none), SEMEL_OVERLOADED);
    put(&at, "1");
    semel_deferred_unref(get(&at, &note));
    assert_told(&at.told, "a 1 ");
    end(&at);
    begin(&at, 0, 0);
    assert_int_equal(semel_queue_put(at.queue, &at, drop), SEMEL_OVERLOADED);
    assert_int_equal(semel_queue_get(at.queue, &none), SEMEL_OVERLOADED);
    assert_null(none);
    assert_int_equal(at.dropped, 0);
    end(&at);
}

/* --- D14 ------------------------------------------------------------------------------------- */

static void a_cancelled_taker_takes_nothing(void **state)
{
    struct fixture at;
    struct note notes[3] = { { NULL, "a" }, { NULL, "b" }, { NULL, "c" } };
    struct semel_deferred *deferreds[3];

    (void)state;
    begin(&at, -1, -1);
    for (int i = 0; i < 3; i++)
        deferreds[i] = get(&at, &notes[i]);
    semel_deferred_cancel(deferreds[0]);
    assert_told(&at.told, "a:CANCELLED ");
    assert_counts(&at, 0, 2);
    put(&at, "1");
    assert_told(&at.told, "b 1 ");
    semel_deferred_cancel(deferreds[1]); /* too late, nothing happens */
    semel_deferred_cancel(deferreds[2]);
    assert_told(&at.told, "c:CANCELLED ");
    put(&at, "2");
    assert_counts(&at, 1, 0);
    assert_told(&at.told, "");
    for (int i = 0; i < 3; i++)
        semel_deferred_unref(deferreds[i]);
    end(&at);
}

struct busy {
    struct fixture *at;
    struct semel_deferred *other;
};

/* The item that it puts is the next one's at once: cancelling that one comes too late. */
static struct semel_deferred *put_and_cancel(struct semel_fired *fired, void *user)
{
    struct busy *busy = user;

    (void)fired;
    put(busy->at, "2");
    assert_counts(busy->at, 0, 0);
    semel_deferred_cancel(busy->other);
    assert_told(&busy->at->told, "");
    return NULL;
}

static void cancelled_with_an_item_on_its_way(void **state)
{
    struct fixture at;
    struct busy busy = { &at, NULL };
    struct note note = { NULL, "b" };
    struct semel_deferred *first = NULL;

    (void)state;
    begin(&at, 0, 2);
    assert_int_equal(semel_queue_get(at.queue, &first), SEMEL_OK);
    assert_int_equal(semel_deferred_then(first, put_and_cancel, NULL, &busy), SEMEL_OK);
    busy.other = get(&at, &note);
    put(&at, "1");
    assert_told(&at.told, "b 2 ");
    semel_deferred_unref(first);
    semel_deferred_unref(busy.other);
    end(&at);
}

#define MANY 200000

static void cancelling_is_cheap(void **state)
{
    struct fixture at;
    struct semel_deferred **deferreds = calloc(MANY, sizeof(struct semel_deferred *));

    (void)state;
    begin(&at, -1, -1);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(semel_queue_get(at.queue, &deferreds[i]), SEMEL_OK);
    for (int i = 0; i < MANY; i++) { /* from the middle outwards */
        int which = MANY / 2 + (i % 2 ? -(i + 1) / 2 : i / 2);

        semel_deferred_cancel(deferreds[which]);
        semel_deferred_unref(deferreds[which]);
    }
    assert_counts(&at, 0, 0);
    free(deferreds);
    end(&at);
}

/* --- the stack ------------------------------------------------------------------------------- */

struct relay {
    struct fixture *at;
    uint32_t ran;
    char *lowest, *highest;
};

/* Each taker puts the item for the next one. */
static struct semel_deferred *pass_on(struct semel_fired *fired, void *user)
{
    struct relay *relay = user;
    char *place = __builtin_frame_address(0); /* a local's may be elsewhere, with sanitizers */

    (void)fired;
    relay->ran++;
    if (relay->lowest == NULL || place < relay->lowest)
        relay->lowest = place;
    if (place > relay->highest)
        relay->highest = place;
    put(relay->at, "again");
    return NULL;
}

static void takers_that_put_need_no_more_stack(void **state)
{
    struct fixture at;
    struct relay relay = { &at, 0, NULL, NULL };

    (void)state;
    begin(&at, -1, -1);
    for (int i = 0; i < MANY; i++) {
        struct semel_deferred *deferred = NULL;

        assert_int_equal(semel_queue_get(at.queue, &deferred), SEMEL_OK);
        assert_int_equal(semel_deferred_then(deferred, pass_on, NULL, &relay), SEMEL_OK);
        semel_deferred_unref(deferred);
    }
    put(&at, "first");
    assert_int_equal(relay.ran, MANY);
    assert_true(relay.highest - relay.lowest < 2048);
    assert_counts(&at, 1, 0);
    end(&at);
}

/* --- its end --------------------------------------------------------------------------------- */

static void its_end(void **state)
{
    struct fixture at;
    struct note a = { NULL, "a" }, b = { NULL, "b" };
    struct semel_deferred *first, *second;

    (void)state;
    begin(&at, -1, -1);
    first = get(&at, &a);
    second = get(&at, &b);
    semel_queue_destroy(at.queue);
    assert_told(&at.told, "a:STOPPED b:STOPPED ");
    semel_deferred_unref(first);
    semel_deferred_unref(second);
    hand_fini(&at.hand);
    begin(&at, -1, -1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(semel_queue_put(at.queue, &at, i == 1 ? NULL : drop), SEMEL_OK);
    semel_queue_destroy(at.queue);
    assert_int_equal(at.dropped, 2);
    semel_queue_destroy(NULL);
    hand_fini(&at.hand);
}

static struct semel_deferred *put_and_destroy(struct semel_fired *fired, void *user)
{
    struct fixture *at = user;
    struct semel_deferred *none = NULL;

    (void)fired;
    put(at, "2");
    semel_queue_destroy(at->queue);
    semel_queue_destroy(at->queue);
    assert_int_equal(semel_queue_put(at->queue, at, drop), SEMEL_STOPPED);
    assert_int_equal(semel_queue_get(at->queue, &none), SEMEL_STOPPED);
    assert_null(none);
    return NULL;
}

/* What is on its way arrives all the same. */
static void destroyed_in_a_callback(void **state)
{
    struct fixture at;
    struct note b = { NULL, "b" }, c = { NULL, "c" };
    struct semel_deferred *first = NULL, *second, *third;

    (void)state;
    begin(&at, -1, -1);
    assert_int_equal(semel_queue_get(at.queue, &first), SEMEL_OK);
    assert_int_equal(semel_deferred_then(first, put_and_destroy, NULL, &at), SEMEL_OK);
    second = get(&at, &b);
    third = get(&at, &c);
    put(&at, "1");
    assert_told(&at.told, "c:STOPPED b 2 ");
    semel_deferred_unref(first);
    semel_deferred_unref(second);
    semel_deferred_unref(third);
    hand_fini(&at.hand);
}

/* --- bad use --------------------------------------------------------------------------------- */

static void what_is_wrong_is_refused(void **state)
{
    struct hand hand;
    struct fixture at;
    struct semel_queue *queue = NULL;
    struct semel_deferred *none = NULL;
    struct semel_queue_options options = { .items = (int64_t)INT32_MAX + 1, .takers = 0 };

    (void)state;
    hand_init(&hand);
    assert_int_equal(semel_queue_create(&queue, hand_loop(&hand), &options), SEMEL_INVALID);
    options = (struct semel_queue_options){ .items = 0, .takers = INT64_MAX };
    assert_int_equal(semel_queue_create(&queue, hand_loop(&hand), &options), SEMEL_INVALID);
    assert_int_equal(semel_queue_create(NULL, hand_loop(&hand), NULL), SEMEL_INVALID);
    hand.away = true;
    assert_int_equal(semel_queue_create(&queue, hand_loop(&hand), NULL), SEMEL_DENIED);
    hand.away = false;
    hand_fail_at(&hand, 1);
    assert_int_equal(semel_queue_create(&queue, hand_loop(&hand), NULL), SEMEL_NO_MEMORY);
    assert_null(queue);
    hand_fini(&hand);
    assert_int_equal(semel_queue_put(NULL, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_queue_get(NULL, &none), SEMEL_INVALID);
    assert_int_equal(semel_queue_items(NULL), 0);
    assert_int_equal(semel_queue_takers(NULL), 0);

    begin(&at, -1, -1);
    assert_int_equal(semel_queue_get(at.queue, NULL), SEMEL_INVALID);
    hand_fail_at(&at.hand, 1);
    assert_int_equal(semel_queue_put(at.queue, &at, drop), SEMEL_NO_MEMORY);
    hand_fail_at(&at.hand, 1);
    assert_int_equal(semel_queue_get(at.queue, &none), SEMEL_NO_MEMORY);
    hand_fail_at(&at.hand, 0);
    at.hand.away = true;
    assert_int_equal(semel_queue_put(at.queue, &at, drop), SEMEL_DENIED);
    assert_int_equal(semel_queue_get(at.queue, &none), SEMEL_DENIED);
    semel_queue_destroy(at.queue);
    at.hand.away = false;
    assert_null(none);
    assert_int_equal(at.dropped, 0);
    assert_counts(&at, 0, 0);
    end(&at);
}

/* Somebody fires the queue's own deferred: the item has nowhere to go, and is dropped once. */
static void a_deferred_that_others_fired_takes_nothing(void **state)
{
    struct fixture at;
    struct note note = { NULL, "a" };
    struct semel_deferred *deferred;

    (void)state;
    begin(&at, -1, -1);
    deferred = get(&at, &note);
    assert_int_equal(semel_deferred_fire(deferred, NULL, NULL), SEMEL_OK);
    assert_told(&at.told, "a ");
    assert_int_equal(semel_queue_put(at.queue, &at, drop), SEMEL_OK);
    assert_int_equal(at.dropped, 1);
    semel_deferred_unref(deferred);
    end(&at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "D13 both lines are in order", both_lines_are_in_order, NULL, NULL, NULL },
        { "D13 both bounds are told at once", bounds_are_told_at_once, NULL, NULL, NULL },
        { "D13 zero is a bound of either line", zero_is_a_bound, NULL, NULL, NULL },
        { "D14 a cancelled taker takes nothing: the next one does, or it is stored",
          a_cancelled_taker_takes_nothing, NULL, NULL, NULL },
        { "D14 cancelling a taker whose item is on its way loses nothing",
          cancelled_with_an_item_on_its_way, NULL, NULL, NULL },
        cmocka_unit_test(cancelling_is_cheap),
        cmocka_unit_test(takers_that_put_need_no_more_stack),
        cmocka_unit_test(its_end),
        cmocka_unit_test(destroyed_in_a_callback),
        cmocka_unit_test(what_is_wrong_is_refused),
        cmocka_unit_test(a_deferred_that_others_fired_takes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
