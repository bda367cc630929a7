/* SPDX-License-Identifier: MIT */
#include "async/deferred_kit.h"

#include "async/deferred.h"
#include "base/time.h"

/* A canceller that does as it is told. */
struct canceller {
    int called;
    bool later;                    /* it says that it will fire */
    struct item *fires;            /* it fires */
    struct semel_deferred *unrefs; /* it gives this back */
};

static bool on_cancel(struct semel_deferred *deferred, void *user)
{
    struct canceller *canceller = user;

    canceller->called++;
    if (canceller->fires)
        assert_ok(semel_deferred_fire(deferred, canceller->fires, drop_item));
    semel_deferred_unref(canceller->unrefs);
    return canceller->later;
}

struct world {
    struct hand hand;
    struct journal journal;
    struct note note;
    struct canceller canceller;
    struct semel_deferred *deferred;
};

static void open_world(struct world *world, bool has_canceller)
{
    memset(world, 0, sizeof *world);
    hand_init(&world->hand);
    world->note = (struct note){ .journal = &world->journal, .letter = 'a' };
    assert_ok(semel_deferred_create(&world->deferred, hand_loop(&world->hand),
                                    has_canceller ? on_cancel : NULL, &world->canceller));
    assert_ok(semel_deferred_then(world->deferred, on_note, on_note, &world->note));
}

static void close_world(struct world *world)
{
    semel_deferred_unref(world->deferred);
    hand_fini(&world->hand);
}

static void without_canceller(void **state)
{
    struct world world;
    struct item one = { 1, 0 }, two = { 2, 0 };

    (void)state;
    open_world(&world, false);
    semel_deferred_cancel(world.deferred);
    assert_string_equal(world.journal.text, "a!CANCELLED ");
    semel_deferred_cancel(world.deferred);
    assert_ok(semel_deferred_fire(world.deferred, &one, drop_item)); /* swallowed */
    assert_int_equal(one.dropped, 1);
    assert_int_equal(semel_deferred_fire(world.deferred, &two, drop_item), SEMEL_ALREADY);
    assert_int_equal(semel_deferred_fail(world.deferred, SEMEL_FAILED, 0, NULL), SEMEL_ALREADY);
    assert_string_equal(world.journal.text, "a!CANCELLED ");
    close_world(&world);
    assert_int_equal(two.dropped, 0);
    assert_int_equal(world.hand.unhandled, 0); /* it was asked for */

    open_world(&world, false);
    semel_deferred_cancel(world.deferred);
    assert_ok(semel_deferred_fail(world.deferred, SEMEL_FAILED, 0, NULL)); /* likewise */
    assert_int_equal(semel_deferred_fail(world.deferred, SEMEL_FAILED, 0, NULL), SEMEL_ALREADY);
    close_world(&world);
}

static void with_canceller(void **state)
{
    struct world world;
    struct item one = { 1, 0 };

    (void)state;
    open_world(&world, true); /* it does nothing */
    semel_deferred_cancel(world.deferred);
    assert_string_equal(world.journal.text, "a!CANCELLED ");
    semel_deferred_cancel(world.deferred);
    assert_int_equal(world.canceller.called, 1);
    assert_int_equal(semel_deferred_fire(world.deferred, NULL, NULL), SEMEL_ALREADY);
    close_world(&world);

    open_world(&world, true); /* its result wins */
    world.canceller.fires = &one;
    semel_deferred_cancel(world.deferred);
    semel_deferred_cancel(world.deferred);
    assert_int_equal(world.canceller.called, 1);
    assert_string_equal(world.journal.text, "a=1 ");
    close_world(&world);
    assert_int_equal(one.dropped, 1);

    open_world(&world, true); /* what comes of it comes later */
    world.canceller.later = true;
    semel_deferred_cancel(world.deferred);
    semel_deferred_cancel(world.deferred);
    assert_int_equal(world.canceller.called, 1);
    assert_int_equal(world.journal.used, 0);
    assert_ok(semel_deferred_fail(world.deferred, SEMEL_DEADLINE, 0, NULL));
    assert_string_equal(world.journal.text, "a!DEADLINE ");
    close_world(&world);
    assert_int_equal(world.hand.unhandled, 1);
}

static void after_firing(void **state)
{
    struct world world;

    (void)state;
    open_world(&world, true);
    assert_ok(semel_deferred_pause(world.deferred));
    assert_ok(semel_deferred_fire(world.deferred, NULL, NULL));
    semel_deferred_cancel(world.deferred); /* though its callbacks have not run */
    assert_ok(semel_deferred_resume(world.deferred));
    semel_deferred_cancel(world.deferred);
    assert_int_equal(world.canceller.called, 0);
    assert_string_equal(world.journal.text, "a=- ");
    close_world(&world);
}

static void forwarded(void **state)
{
    struct world world;
    struct semel_deferred *outer, *outermost;
    struct note asks = { .letter = 'o' }, after = { .letter = 'p' };

    (void)state;
    open_world(&world, true);
    asks.journal = after.journal = &world.journal;
    assert_ok(semel_deferred_create(&outer, hand_loop(&world.hand), NULL, NULL));
    assert_ok(semel_deferred_create(&outermost, hand_loop(&world.hand), NULL, NULL));
    asks.returns = semel_deferred_ref(world.deferred);
    assert_ok(semel_deferred_then(outer, on_note, on_note, &asks));
    assert_ok(semel_deferred_then(outer, on_note, on_note, &after));
    assert_ok(semel_deferred_fire(outer, NULL, NULL));
    assert_ok(semel_deferred_chain(outer, semel_deferred_ref(outermost)));
    semel_deferred_cancel(outermost);
    assert_int_equal(world.canceller.called, 1);
    assert_string_equal(world.journal.text, "o=- a!CANCELLED p!CANCELLED ");
    assert_int_equal(semel_deferred_result(outermost)->status, SEMEL_CANCELLED);
    assert_int_equal(semel_deferred_result(outer)->status, SEMEL_OK);
    semel_deferred_unref(outer);
    semel_deferred_unref(outermost);
    close_world(&world);
    assert_int_equal(world.hand.unhandled, 0);
}

static void freed_in_its_canceller(void **state)
{
    struct world world;

    (void)state;
    open_world(&world, true);
    world.canceller.unrefs = world.deferred;
    semel_deferred_cancel(world.deferred);
    assert_string_equal(world.journal.text, "a!CANCELLED ");
    assert_int_equal(world.hand.blocks, 0);
    world.deferred = NULL;
    close_world(&world);
}

static struct semel_deferred *chain_target;

static bool chain_it(struct semel_deferred *deferred, void *user)
{
    assert_ok(semel_deferred_chain(user, semel_deferred_ref(deferred)));
    return false;
}

/* A canceller may leave the rest to another deferred. */
static void chained_in_its_canceller(void **state)
{
    struct hand hand;
    struct semel_deferred *deferred;

    (void)state;
    hand_init(&hand);
    assert_ok(semel_deferred_create(&chain_target, hand_loop(&hand), NULL, NULL));
    assert_ok(semel_deferred_create(&deferred, hand_loop(&hand), chain_it, chain_target));
    semel_deferred_cancel(deferred);
    assert_null(semel_deferred_result(deferred));
    assert_ok(semel_deferred_fire(chain_target, NULL, NULL));
    assert_int_equal(semel_deferred_result(deferred)->status, SEMEL_OK);
    semel_deferred_unref(chain_target);
    semel_deferred_unref(deferred);
    hand_fini(&hand);
}

/* --- D5 ----------------------------------------------------------------------------------- */

static void converts_its_own(void **state)
{
    struct world world;
    struct note after = { .letter = 'b' };

    (void)state;
    open_world(&world, true);
    after.journal = &world.journal;
    assert_ok(semel_deferred_timeout(world.deferred, 10));
    assert_ok(semel_deferred_then(world.deferred, on_note, on_note, &after));
    hand_advance(&world.hand, 10 * SML_MS - 1);
    assert_int_equal(world.journal.used, 0);
    hand_advance(&world.hand, 1);
    assert_int_equal(world.canceller.called, 1);
    assert_string_equal(world.journal.text, "a!CANCELLED b!DEADLINE "); /* before it, behind it */
    close_world(&world);
    assert_int_equal(world.hand.unhandled, 1);

    open_world(&world, false); /* somebody else's cancellation stays what it is */
    after.journal = &world.journal;
    assert_ok(semel_deferred_timeout(world.deferred, 10));
    assert_ok(semel_deferred_then(world.deferred, on_note, on_note, &after));
    semel_deferred_cancel(world.deferred);
    assert_string_equal(world.journal.text, "a!CANCELLED b!CANCELLED ");
    assert_true(hand_next(&world.hand) == SML_NEVER);
    close_world(&world);

    open_world(&world, true); /* also if it takes until after the timeout */
    after.journal = &world.journal;
    world.canceller.later = true;
    assert_ok(semel_deferred_timeout(world.deferred, 10));
    assert_ok(semel_deferred_then(world.deferred, on_note, on_note, &after));
    semel_deferred_cancel(world.deferred);
    hand_advance(&world.hand, 20 * SML_MS);
    assert_ok(semel_deferred_fail(world.deferred, SEMEL_CANCELLED, 0, NULL));
    assert_string_equal(world.journal.text, "a!CANCELLED b!CANCELLED ");
    close_world(&world);
}

static void fires_early(void **state)
{
    struct world world;

    (void)state;
    open_world(&world, true);
    assert_ok(semel_deferred_timeout(world.deferred, 10));
    assert_ok(semel_deferred_fire(world.deferred, NULL, NULL));
    assert_true(hand_next(&world.hand) == SML_NEVER);
    hand_advance(&world.hand, SML_SECOND);
    assert_int_equal(world.canceller.called, 0);
    assert_ok(semel_deferred_timeout(world.deferred, 10)); /* nothing to wait for */
    assert_true(hand_next(&world.hand) == SML_NEVER);
    close_world(&world);

    open_world(&world, true); /* let go with the timer running */
    assert_ok(semel_deferred_timeout(world.deferred, 10));
    close_world(&world);
}

/* A result that has come, but is held up by what was added before the timeout, is not there. */
static void covers_what_was_added_before(void **state)
{
    struct world world;
    struct semel_deferred *inner;
    struct note asks = { .letter = 'o' }, after = { .letter = 'p' };

    (void)state;
    open_world(&world, false);
    asks.journal = after.journal = &world.journal;
    assert_ok(semel_deferred_create(&inner, hand_loop(&world.hand), NULL, NULL));
    asks.returns = semel_deferred_ref(inner);
    assert_ok(semel_deferred_then(world.deferred, on_note, on_note, &asks));
    assert_ok(semel_deferred_timeout(world.deferred, 10));
    assert_ok(semel_deferred_timeout(world.deferred, 30)); /* nested: the shorter one is first */
    assert_ok(semel_deferred_then(world.deferred, on_note, on_note, &after));
    assert_ok(semel_deferred_fire(world.deferred, NULL, NULL));
    hand_advance(&world.hand, 10 * SML_MS);
    assert_string_equal(world.journal.text, "a=- o=- p!DEADLINE ");
    assert_true(hand_next(&world.hand) == SML_NEVER);
    semel_deferred_unref(inner);
    close_world(&world);
}

static void timeout_bad_input(void **state)
{
    struct world world;

    (void)state;
    open_world(&world, true);
    assert_int_equal(semel_deferred_timeout(NULL, 1), SEMEL_INVALID);
    assert_int_equal(semel_deferred_timeout(world.deferred, -1), SEMEL_INVALID);
    assert_int_equal(semel_deferred_timeout(world.deferred, (int64_t)INT32_MAX + 1), SEMEL_INVALID);
    world.hand.away = true;
    assert_int_equal(semel_deferred_timeout(world.deferred, 1), SEMEL_DENIED);
    world.hand.away = false;
    hand_fail_at(&world.hand, 1);
    assert_int_equal(semel_deferred_timeout(world.deferred, 1), SEMEL_NO_MEMORY);
    assert_ok(semel_deferred_timeout(world.deferred, INT32_MAX));
    assert_ok(semel_deferred_timeout(world.deferred, 0));
    assert_int_equal(world.canceller.called, 0); /* not before the loop has its turn */
    hand_advance(&world.hand, 0);
    assert_int_equal(world.canceller.called, 1);
    close_world(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "D4 without a canceller one late result is swallowed", without_canceller, NULL, NULL,
          NULL },
        { "D4 a canceller is called once, and its result wins", with_canceller, NULL, NULL, NULL },
        { "D4 cancelling after firing does nothing", after_firing, NULL, NULL, NULL },
        { "D4 cancelling is forwarded to what is waited for", forwarded, NULL, NULL, NULL },
        { "deferred: freed in its canceller", freed_in_its_canceller, NULL, NULL, NULL },
        { "deferred: chained in its canceller", chained_in_its_canceller, NULL, NULL, NULL },
        { "D5 a timeout converts its own cancellation only", converts_its_own, NULL, NULL, NULL },
        { "D5 the timer goes when the result comes", fires_early, NULL, NULL, NULL },
        { "D5 a timeout covers what was added before it", covers_what_was_added_before, NULL, NULL,
          NULL },
        { "D5 bad input", timeout_bad_input, NULL, NULL, NULL },
    };

    return run_on_small_stack(tests, sizeof tests / sizeof tests[0]);
}
