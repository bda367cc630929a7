/* SPDX-License-Identifier: MIT */
/* Firing from other threads is tried here by one thread that says it is away; with real ones in
 * tests/rpc/test_defer.c. */
#include "async/deferred_kit.h"

#include "async/deferred.h"

static struct semel_deferred *made(struct hand *hand)
{
    struct semel_deferred *deferred = NULL;

    assert_ok(semel_deferred_create(&deferred, hand_loop(hand), NULL, NULL));
    return deferred;
}

static void then_both(struct semel_deferred *deferred, struct note *note)
{
    assert_ok(semel_deferred_then(deferred, on_note, on_note, note));
}

static void fires_once(void **state)
{
    struct hand hand;
    struct item one = { 1, 0 }, two = { 2, 0 };
    struct semel_deferred *deferred;

    (void)state;
    hand_init(&hand);
    deferred = made(&hand);
    assert_null(semel_deferred_result(deferred));
    assert_ok(semel_deferred_fire(deferred, &one, drop_item));
    assert_int_equal(semel_deferred_fire(deferred, &two, drop_item), SEMEL_ALREADY);
    assert_int_equal(semel_deferred_fail(deferred, SEMEL_FAILED, 0, NULL), SEMEL_ALREADY);
    assert_ptr_equal(semel_deferred_result(deferred)->value, &one);
    assert_int_equal(one.dropped, 0);
    semel_deferred_unref(deferred);
    assert_int_equal(one.dropped, 1);
    assert_int_equal(two.dropped, 0); /* still the caller's */
    hand_fini(&hand);
}

static void elsewhere(void **state)
{
    struct hand hand;
    struct journal journal = { .used = 0 };
    struct item one = { 1, 0 };
    struct note note = { .journal = &journal, .letter = 'a' };
    struct semel_deferred *deferred;

    (void)state;
    hand_init(&hand);
    deferred = made(&hand);
    then_both(deferred, &note);
    hand.away = true;
    assert_ok(semel_deferred_fire(deferred, &one, drop_item));
    assert_int_equal(semel_deferred_fire(deferred, &one, drop_item), SEMEL_ALREADY);
    semel_deferred_cancel(deferred); /* too late */
    assert_int_equal(hand.waiting, 1);
    semel_deferred_unref(deferred);
    assert_int_equal(journal.used, 0);
    hand.away = false;
    hand_run(&hand);
    assert_string_equal(journal.text, "a=1 ");
    assert_int_equal(one.dropped, 1);
    assert_int_equal(hand.blocks, 0);

    deferred = made(&hand);
    then_both(deferred, &note);
    hand.away = true;
    semel_deferred_cancel(deferred);
    hand.away = false;
    assert_string_equal(journal.text, "a=1 ");
    hand_run(&hand);
    assert_string_equal(journal.text, "a=1 a!CANCELLED ");
    hand.away = true;
    semel_deferred_unref(deferred); /* the last reference travels */
    assert_int_equal(hand.waiting, 1);
    hand.away = false;
    hand_run(&hand);
    hand_fini(&hand);
}

static void fires_with_what_is_there(void **state)
{
    struct hand hand;
    struct item one = { 1, 0 }, two = { 2, 0 };
    struct semel_fired fired;
    struct semel_deferred *deferred;

    (void)state;
    hand_init(&hand);
    deferred = made(&hand);
    sml_fired_init(&fired);
    semel_fired_set_value(&fired, &one, drop_item);
    assert_ok(sml_deferred_fire_with(deferred, &fired));
    assert_null(fired.value);
    semel_fired_set_value(&fired, &two, drop_item);
    assert_int_equal(sml_deferred_fire_with(deferred, &fired), SEMEL_ALREADY);
    assert_int_equal(two.dropped, 1); /* it has nowhere else to go */
    semel_deferred_unref(deferred);
    assert_int_equal(one.dropped, 1);
    hand_fini(&hand);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "D1 fires once", fires_once, NULL, NULL, NULL },
        { "deferred: from elsewhere", elsewhere, NULL, NULL, NULL },
        { "deferred: fires with what is there", fires_with_what_is_there, NULL, NULL, NULL },
    };

    return run_on_small_stack(tests, sizeof tests / sizeof tests[0]);
}
