/* SPDX-License-Identifier: MIT */
#include "async/deferred_kit.h"

#include "async/deferred.h"

enum { N = 3 };

/* Members with one reference here and one for the gathering. */
struct world {
    struct hand hand;
    struct item items[N];
    struct semel_deferred *members[N];
    struct semel_deferred *out;
    int cancelled[N];
};

static bool decline(struct semel_deferred *deferred, void *user)
{
    (void)deferred;
    ++*(int *)user;
    return true;
}

static bool agree(struct semel_deferred *deferred, void *user)
{
    (void)deferred;
    ++*(int *)user;
    return false;
}

static void open_world(struct world *world, unsigned mode, semel_canceller_fn canceller)
{
    memset(world, 0, sizeof *world);
    hand_init(&world->hand);
    for (int i = 0; i < N; i++) {
        world->items[i].number = i;
        assert_ok(semel_deferred_create(&world->members[i], hand_loop(&world->hand), canceller,
                                        &world->cancelled[i]));
        (void)semel_deferred_ref(world->members[i]);
    }
    assert_ok(semel_deferred_gather(&world->out, hand_loop(&world->hand), world->members, N, mode));
}

static void let_go_of_members(struct world *world)
{
    for (int i = 0; i < N; i++) {
        semel_deferred_unref(world->members[i]);
        world->members[i] = NULL;
    }
}

static void close_world(struct world *world)
{
    let_go_of_members(world);
    semel_deferred_unref(world->out);
    for (int i = 0; i < N; i++)
        assert_true(world->items[i].dropped <= 1);
    hand_fini(&world->hand);
}

static void fire(struct world *world, int i)
{
    assert_ok(semel_deferred_fire(world->members[i], &world->items[i], drop_item));
}

static void miss(struct world *world, int i)
{
    assert_ok(semel_deferred_fail(world->members[i], SEMEL_FAILED, 40 + i, "no"));
}

static const struct semel_gathered *gathered(const struct world *world)
{
    const struct semel_fired *fired = semel_deferred_result(world->out);

    assert_non_null(fired);
    assert_int_equal(fired->status, SEMEL_OK);
    return fired->value;
}

static void all_in_order(void **state)
{
    struct world world;
    const struct semel_gathered *results;

    (void)state;
    open_world(&world, SEMEL_GATHER_ALL, NULL);
    fire(&world, 2);
    miss(&world, 0);
    assert_null(semel_deferred_result(world.out));
    fire(&world, 1);
    results = gathered(&world);
    assert_int_equal(results->count, N);
    assert_int_equal(results->results[0].status, SEMEL_FAILED);
    assert_int_equal(results->results[0].code, 40);
    assert_string_equal(results->results[0].text, "no");
    assert_ptr_equal(results->results[1].value, &world.items[1]);
    assert_ptr_equal(results->results[2].value, &world.items[2]);
    let_go_of_members(&world);
    assert_int_equal(world.hand.unhandled, 1); /* the member's own; not consumed */
    assert_int_equal(world.items[1].dropped, 0);
    close_world(&world);
    assert_int_equal(world.items[1].dropped, 1);
    assert_int_equal(world.items[2].dropped, 1);
}

static void consumed(void **state)
{
    struct world world;

    (void)state;
    open_world(&world, SEMEL_GATHER_ALL | SEMEL_GATHER_CONSUME, NULL);
    for (int i = 0; i < N; i++)
        miss(&world, i);
    assert_int_equal(gathered(&world)->results[2].code, 42);
    close_world(&world);
    assert_int_equal(world.hand.unhandled, 0);
}

static void empty(void **state)
{
    struct hand hand;
    struct semel_deferred *out = NULL;

    (void)state;
    hand_init(&hand);
    for (unsigned mode = SEMEL_GATHER_ALL; mode <= SEMEL_GATHER_VALUES; mode++) {
        assert_ok(semel_deferred_gather(&out, hand_loop(&hand), NULL, 0, mode));
        assert_int_equal(semel_deferred_result(out)->status, SEMEL_OK);
        assert_int_equal(((struct semel_gathered *)semel_deferred_result(out)->value)->count, 0);
        semel_deferred_unref(out);
    }
    out = NULL;
    for (unsigned mode = SEMEL_GATHER_FIRST; mode <= SEMEL_GATHER_ANY_RESULT; mode++)
        assert_int_equal(semel_deferred_gather(&out, hand_loop(&hand), NULL, 0, mode),
                         SEMEL_INVALID);
    assert_null(out);
    hand_fini(&hand);
}

static void first_failure(void **state)
{
    struct world world;

    (void)state;
    open_world(&world, SEMEL_GATHER_VALUES, NULL);
    fire(&world, 0);
    assert_null(semel_deferred_result(world.out));
    miss(&world, 1);
    assert_int_equal(semel_deferred_result(world.out)->status, SEMEL_FAILED);
    assert_int_equal(semel_deferred_result(world.out)->code, 41);
    assert_int_equal(world.items[0].dropped, 1);
    fire(&world, 2); /* too late: stays with its member */
    assert_ptr_equal(semel_deferred_result(world.members[2])->value, &world.items[2]);
    close_world(&world);
    assert_int_equal(world.hand.unhandled, 2); /* the member's, and the gathered one */

    open_world(&world, SEMEL_GATHER_VALUES | SEMEL_GATHER_CONSUME, NULL);
    for (int i = 0; i < N; i++)
        fire(&world, i);
    assert_int_equal(gathered(&world)->count, N);
    close_world(&world);
    assert_int_equal(world.hand.unhandled, 0);
}

static void first_value(void **state)
{
    struct world world;

    (void)state;
    open_world(&world, SEMEL_GATHER_FIRST, agree);
    miss(&world, 0);
    assert_null(semel_deferred_result(world.out));
    fire(&world, 1);
    assert_int_equal(gathered(&world)->count, 1);
    assert_int_equal(gathered(&world)->index, 1);
    assert_ptr_equal(gathered(&world)->results[0].value, &world.items[1]);
    assert_int_equal(world.cancelled[0], 0);
    assert_int_equal(world.cancelled[1], 0);
    assert_int_equal(world.cancelled[2], 1);
    assert_int_equal(semel_deferred_result(world.members[2])->status, SEMEL_CANCELLED);
    close_world(&world);
    assert_int_equal(world.hand.unhandled, 1); /* member 0's; a cancellation is nobody's surprise */

    open_world(&world, SEMEL_GATHER_FIRST, decline); /* the rest takes its time */
    fire(&world, 2);
    assert_int_equal(gathered(&world)->index, 2);
    fire(&world, 0);
    miss(&world, 1);
    assert_ptr_equal(semel_deferred_result(world.members[0])->value, &world.items[0]);
    close_world(&world);
}

static void all_fail(void **state)
{
    struct world world;
    const struct semel_gathered *results;

    (void)state;
    open_world(&world, SEMEL_GATHER_FIRST | SEMEL_GATHER_CONSUME, NULL);
    for (int i = N - 1; i >= 0; i--)
        miss(&world, i);
    assert_int_equal(semel_deferred_result(world.out)->status, SEMEL_FAILED);
    assert_string_equal(semel_deferred_result(world.out)->text, "all 3 failed");
    results = semel_deferred_result(world.out)->value;
    assert_int_equal(results->count, N);
    for (int i = 0; i < N; i++)
        assert_int_equal(results->results[i].code, 40 + i);
    close_world(&world);
    assert_int_equal(world.hand.unhandled, 1); /* the gathered one */
}

static void any_result(void **state)
{
    struct world world;

    (void)state;
    open_world(&world, SEMEL_GATHER_ANY_RESULT, agree);
    miss(&world, 2);
    assert_int_equal(gathered(&world)->count, 1);
    assert_int_equal(gathered(&world)->index, 2);
    assert_int_equal(gathered(&world)->results[0].code, 42);
    fire(&world, 0); /* the rest goes on */
    assert_int_equal(world.cancelled[0] + world.cancelled[1], 0);
    assert_null(semel_deferred_result(world.members[1]));
    close_world(&world);
}

static void cancel_all(void **state)
{
    struct world world;

    (void)state;
    open_world(&world, SEMEL_GATHER_ALL, agree);
    semel_deferred_cancel(world.out);
    for (int i = 0; i < N; i++) {
        assert_int_equal(world.cancelled[i], 1);
        assert_int_equal(gathered(&world)->results[i].status, SEMEL_CANCELLED);
    }
    close_world(&world);

    open_world(&world, SEMEL_GATHER_VALUES, decline); /* none of them agrees, all are asked */
    semel_deferred_cancel(world.out);
    semel_deferred_cancel(world.out);
    assert_null(semel_deferred_result(world.out));
    for (int i = 0; i < N; i++) {
        assert_int_equal(world.cancelled[i], 1);
        fire(&world, i);
    }
    assert_int_equal(gathered(&world)->count, N);
    close_world(&world);

    open_world(&world, SEMEL_GATHER_VALUES, agree); /* the first one's end ends it */
    semel_deferred_cancel(world.out);
    assert_int_equal(semel_deferred_result(world.out)->status, SEMEL_CANCELLED);
    assert_int_equal(world.cancelled[N - 1], 1);
    close_world(&world);
}

/* Nobody will ever fire them: that is a result, too. */
static void members_let_go(void **state)
{
    struct world world;

    (void)state;
    open_world(&world, SEMEL_GATHER_ALL, NULL);
    fire(&world, 0);
    let_go_of_members(&world);
    assert_int_equal(gathered(&world)->results[0].status, SEMEL_OK);
    assert_int_equal(gathered(&world)->results[1].status, SEMEL_DROPPED);
    assert_int_equal(gathered(&world)->results[2].status, SEMEL_DROPPED);
    close_world(&world);
}

/* The outer one is let go, or fired by somebody else: values go, members go on. */
static void outer_is_let_go(void **state)
{
    struct world world;

    (void)state;
    open_world(&world, SEMEL_GATHER_ALL, NULL);
    semel_deferred_unref(world.out);
    world.out = NULL;
    for (int i = 0; i < N; i++)
        fire(&world, i);
    assert_int_equal(world.items[0].dropped, 1);
    close_world(&world);

    open_world(&world, SEMEL_GATHER_ALL, NULL);
    assert_ok(semel_deferred_fire(world.out, NULL, NULL));
    for (int i = 0; i < N; i++)
        fire(&world, i);
    assert_null(semel_deferred_result(world.out)->value);
    assert_int_equal(world.items[2].dropped, 1);
    close_world(&world);
}

struct unref_it {
    struct world *world;
    int called;
};

static struct semel_deferred *on_gathered(struct semel_fired *fired, void *user)
{
    struct unref_it *it = user;

    (void)fired;
    it->called++;
    semel_deferred_unref(it->world->out);
    it->world->out = NULL;
    fire(it->world, 2);
    return NULL;
}

static void freed_in_its_callback(void **state)
{
    struct world world;
    struct unref_it it = { &world, 0 };

    (void)state;
    open_world(&world, SEMEL_GATHER_FIRST, decline);
    assert_ok(semel_deferred_then(world.out, on_gathered, on_gathered, &it));
    fire(&world, 0); /* the callback fires member 2, which would be cancelled next */
    assert_int_equal(it.called, 1);
    assert_int_equal(world.cancelled[1], 1);
    assert_int_equal(world.cancelled[2], 0);
    fire(&world, 1);
    close_world(&world);
}

static void bad_input(void **state)
{
    struct world world;
    struct hand other;
    struct semel_deferred *stranger, *untouched = NULL;
    struct semel_deferred *list[2];

    (void)state;
    open_world(&world, SEMEL_GATHER_ALL, NULL);
    hand_init(&other);
    assert_ok(semel_deferred_create(&stranger, hand_loop(&other), NULL, NULL));
    list[0] = world.members[0];
    list[1] = stranger;
    assert_int_equal(semel_deferred_gather(NULL, hand_loop(&world.hand), list, 1, 0),
                     SEMEL_INVALID);
    assert_int_equal(semel_deferred_gather(&untouched, hand_loop(&world.hand), list, 2, 0),
                     SEMEL_INVALID);
    assert_int_equal(semel_deferred_gather(&untouched, hand_loop(&world.hand), NULL, 1, 0),
                     SEMEL_INVALID);
    assert_int_equal(semel_deferred_gather(&untouched, hand_loop(&world.hand), list, 1, 4),
                     SEMEL_INVALID);
    assert_int_equal(semel_deferred_gather(&untouched, hand_loop(&world.hand), list,
                                           SEMEL_GATHER_MEMBERS_MAX + 1, 0),
                     SEMEL_INVALID);
    list[1] = NULL;
    assert_int_equal(semel_deferred_gather(&untouched, hand_loop(&world.hand), list, 2, 0),
                     SEMEL_INVALID);
    world.hand.away = true;
    assert_int_equal(semel_deferred_gather(&untouched, hand_loop(&world.hand), list, 1, 0),
                     SEMEL_DENIED);
    world.hand.away = false;
    for (size_t n = 1; n <= 2; n++) {
        hand_fail_at(&world.hand, n);
        assert_int_equal(semel_deferred_gather(&untouched, hand_loop(&world.hand), list, 1, 0),
                         SEMEL_NO_MEMORY);
    }
    assert_null(untouched);
    semel_deferred_unref(stranger);
    hand_fini(&other);
    close_world(&world); /* members are all still there: none was moved */
}

/* As many as the limit allows take one stack and a moment. */
static void very_many(void **state)
{
    enum { MANY = 100000 };
    struct semel_deferred **list = calloc(MANY, sizeof(struct semel_deferred *));
    struct semel_deferred *out;
    struct hand hand;

    (void)state;
    assert_non_null(list);
    hand_init(&hand);
    for (size_t i = 0; i < MANY; i++) {
        assert_ok(semel_deferred_create(&list[i], hand_loop(&hand), NULL, NULL));
        (void)semel_deferred_ref(list[i]);
    }
    assert_ok(semel_deferred_gather(&out, hand_loop(&hand), list, MANY, SEMEL_GATHER_FIRST));
    assert_ok(semel_deferred_fire(list[MANY / 2], NULL, NULL));
    assert_int_equal(((struct semel_gathered *)semel_deferred_result(out)->value)->index, MANY / 2);
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(semel_deferred_result(list[i])->status,
                         i == MANY / 2 ? SEMEL_OK : SEMEL_CANCELLED);
        semel_deferred_unref(list[i]);
    }
    semel_deferred_unref(out);
    free(list);
    hand_fini(&hand);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "D15 all results, in order", all_in_order, NULL, NULL, NULL },
        { "D15 consumed failures", consumed, NULL, NULL, NULL },
        { "D15 none", empty, NULL, NULL, NULL },
        { "D15 the first failure", first_failure, NULL, NULL, NULL },
        { "D15 the first value cancels the rest", first_value, NULL, NULL, NULL },
        { "D15 all fail", all_fail, NULL, NULL, NULL },
        { "D15 any result", any_result, NULL, NULL, NULL },
        { "D15 cancelling asks all", cancel_all, NULL, NULL, NULL },
        { "gather: members that are let go", members_let_go, NULL, NULL, NULL },
        { "gather: the outer one is let go, or fired", outer_is_let_go, NULL, NULL, NULL },
        { "gather: freed in its callback", freed_in_its_callback, NULL, NULL, NULL },
        { "gather: bad input, no memory", bad_input, NULL, NULL, NULL },
        { "gather: very many", very_many, NULL, NULL, NULL },
    };

    return run_on_small_stack(tests, sizeof tests / sizeof tests[0]);
}
