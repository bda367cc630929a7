/* SPDX-License-Identifier: MIT */
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

/* --- D1 ----------------------------------------------------------------------------------- */

static void flips_between_the_sides(void **state)
{
    struct hand hand;
    struct journal journal = { .used = 0 };
    struct item one = { 1, 0 }, two = { 2, 0 };
    struct note value = { .journal = &journal, .letter = 'v' };
    struct note failure = { .journal = &journal, .letter = 'f' };
    struct note fails = { .journal = &journal, .letter = 'a', .fails = SEMEL_LIMIT };
    struct note heals = { .journal = &journal, .letter = 'b', .sets = &two };
    struct semel_deferred *deferred;

    (void)state;
    hand_init(&hand);
    deferred = made(&hand);
    assert_ok(semel_deferred_then(deferred, on_note, NULL, &value));
    assert_ok(semel_deferred_then(deferred, NULL, on_note, &failure)); /* passed by */
    assert_ok(semel_deferred_then(deferred, on_note, NULL, &fails));
    assert_ok(semel_deferred_then(deferred, on_note, NULL, &value)); /* passed by */
    assert_ok(semel_deferred_then(deferred, on_note, on_note, &heals));
    then_both(deferred, &value);
    assert_int_equal(journal.used, 0);
    assert_ok(semel_deferred_fire(deferred, &one, drop_item));
    assert_string_equal(journal.text, "v=1 a=1 b!LIMIT v=2 ");
    assert_int_equal(one.dropped, 1);
    then_both(deferred, &failure); /* at once */
    assert_string_equal(journal.text, "v=1 a=1 b!LIMIT v=2 f=2 ");
    semel_deferred_unref(deferred);
    assert_int_equal(two.dropped, 1);
    hand_fini(&hand);
}

static void bad_input(void **state)
{
    struct hand hand;
    struct semel_deferred *deferred, *untouched = NULL;

    (void)state;
    hand_init(&hand);
    deferred = made(&hand);
    assert_int_equal(semel_deferred_create(NULL, NULL, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_deferred_value(NULL, NULL, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_deferred_failure(&untouched, NULL, SEMEL_OK, 0, NULL), SEMEL_INVALID);
    assert_null(untouched);
    assert_int_equal(semel_deferred_fire(NULL, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_deferred_fail(NULL, SEMEL_FAILED, 0, NULL), SEMEL_INVALID);
    assert_int_equal(semel_deferred_fail(deferred, SEMEL_OK, 0, NULL), SEMEL_INVALID);
    assert_int_equal(semel_deferred_then(NULL, NULL, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_deferred_chain(deferred, NULL), SEMEL_INVALID);
    assert_int_equal(semel_deferred_chain(NULL, deferred), SEMEL_INVALID);
    assert_int_equal(semel_deferred_chain(deferred, deferred), SEMEL_INVALID);
    assert_int_equal(semel_deferred_pause(NULL), SEMEL_INVALID);
    assert_int_equal(semel_deferred_resume(NULL), SEMEL_INVALID);
    assert_int_equal(semel_deferred_resume(deferred), SEMEL_INVALID);
    assert_null(semel_deferred_result(NULL));
    assert_null(semel_deferred_ref(NULL));
    semel_deferred_unref(NULL);
    semel_deferred_cancel(NULL);
    hand.away = true;
    assert_int_equal(semel_deferred_then(deferred, NULL, NULL, NULL), SEMEL_DENIED);
    assert_int_equal(semel_deferred_chain(deferred, deferred), SEMEL_DENIED);
    assert_int_equal(semel_deferred_pause(deferred), SEMEL_DENIED);
    assert_int_equal(semel_deferred_resume(deferred), SEMEL_DENIED);
    hand.away = false;
    semel_deferred_unref(deferred);
    hand_fini(&hand);
}

static void no_memory(void **state)
{
    struct hand hand;
    struct journal journal = { .used = 0 };
    struct item one = { 1, 0 };
    struct note note = { .journal = &journal, .letter = 'n' };
    struct semel_deferred *deferred, *untouched = NULL;
    enum semel_status status = SEMEL_OK;

    (void)state;
    hand_init(&hand);
    deferred = made(&hand);
    hand_fail_at(&hand, 1);
    assert_int_equal(semel_deferred_create(&untouched, hand_loop(&hand), NULL, NULL),
                     SEMEL_NO_MEMORY);
    hand_fail_at(&hand, 1);
    assert_int_equal(semel_deferred_value(&untouched, hand_loop(&hand), &one, drop_item),
                     SEMEL_NO_MEMORY);
    hand_fail_at(&hand, 1);
    assert_int_equal(semel_deferred_failure(&untouched, hand_loop(&hand), SEMEL_FAILED, 0, NULL),
                     SEMEL_NO_MEMORY);
    assert_null(untouched);
    assert_int_equal(one.dropped, 0);
    hand_fail_at(&hand, 1);
    for (int i = 0; status == SEMEL_OK; i++) {
        assert_true(i < 8);
        status = semel_deferred_then(deferred, on_note, on_note, &note);
    }
    assert_int_equal(status, SEMEL_NO_MEMORY);
    assert_ok(semel_deferred_fire(deferred, NULL, NULL));
    assert_string_equal(journal.text, "n=- n=- "); /* those that were added, and no other */
    semel_deferred_unref(deferred);
    hand_fini(&hand);
}

/* --- D2 ----------------------------------------------------------------------------------- */

static void waits_for_the_inner(void **state)
{
    struct hand hand;
    struct journal journal = { .used = 0 };
    struct item one = { 1, 0 }, two = { 2, 0 };
    struct semel_deferred *outer, *inner;
    struct note asks = { .journal = &journal, .letter = 'a' };
    struct note after = { .journal = &journal, .letter = 'b' };
    struct note of_inner = { .journal = &journal, .letter = 'i' };

    (void)state;
    hand_init(&hand);
    outer = made(&hand);
    inner = made(&hand);
    asks.returns = semel_deferred_ref(inner);
    then_both(outer, &asks);
    then_both(outer, &after);
    then_both(inner, &of_inner);
    assert_ok(semel_deferred_fire(outer, &one, drop_item));
    assert_string_equal(journal.text, "a=1 ");
    assert_int_equal(one.dropped, 1); /* replaced by what is waited for */
    assert_null(semel_deferred_result(outer));
    assert_int_equal(semel_deferred_fire(outer, NULL, NULL), SEMEL_ALREADY);
    then_both(inner, &of_inner); /* behind the one that waits: gets a value NULL */
    assert_ok(semel_deferred_fire(inner, &two, drop_item));
    assert_string_equal(journal.text, "a=1 i=2 b=2 i=- ");
    assert_ptr_equal(semel_deferred_result(outer)->value, &two);
    assert_null(semel_deferred_result(inner)->value);
    semel_deferred_unref(inner);
    semel_deferred_unref(outer);
    assert_int_equal(two.dropped, 1);
    hand_fini(&hand);
}

static void takes_an_inner_that_is_there(void **state)
{
    struct hand hand;
    struct journal journal = { .used = 0 };
    struct item two = { 2, 0 };
    struct semel_deferred *outer;
    struct note asks = { .journal = &journal, .letter = 'a' };
    struct note after = { .journal = &journal, .letter = 'b' };

    (void)state;
    hand_init(&hand);
    outer = made(&hand);
    assert_ok(semel_deferred_value(&asks.returns, hand_loop(&hand), &two, drop_item));
    then_both(outer, &asks);
    then_both(outer, &after);
    assert_ok(semel_deferred_fire(outer, NULL, NULL));
    assert_string_equal(journal.text, "a=- b=2 ");
    asks.returns = NULL;
    assert_ok(semel_deferred_failure(&asks.returns, hand_loop(&hand), SEMEL_LIMIT, 3, "why"));
    then_both(outer, &asks);
    assert_string_equal(journal.text, "a=- b=2 a=2 ");
    assert_int_equal(semel_deferred_result(outer)->status, SEMEL_LIMIT);
    assert_int_equal(semel_deferred_result(outer)->code, 3);
    assert_string_equal(semel_deferred_result(outer)->text, "why");
    semel_deferred_unref(outer);
    assert_int_equal(hand.unhandled, 1); /* once, by the one it moved to */
    hand_fini(&hand);
}

static void chains(void **state)
{
    struct hand hand;
    struct journal journal = { .used = 0 };
    struct item one = { 1, 0 };
    struct semel_deferred *source, *target, *second;
    struct note note = { .journal = &journal, .letter = 't' };

    (void)state;
    hand_init(&hand);
    source = made(&hand);
    target = made(&hand);
    second = made(&hand);
    then_both(target, &note);
    assert_ok(semel_deferred_chain(source, semel_deferred_ref(target)));
    assert_int_equal(semel_deferred_chain(second, target), SEMEL_INVALID); /* it waits already */
    assert_int_equal(semel_deferred_chain(target, source), SEMEL_INVALID); /* a circle */
    assert_int_equal(semel_deferred_fire(target, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_deferred_fail(target, SEMEL_FAILED, 0, NULL), SEMEL_INVALID);
    assert_ok(semel_deferred_fire(source, &one, drop_item));
    assert_string_equal(journal.text, "t=1 ");
    assert_null(semel_deferred_result(source)->value);
    assert_int_equal(semel_deferred_fire(target, NULL, NULL), SEMEL_ALREADY);
    assert_int_equal(semel_deferred_chain(second, target), SEMEL_INVALID); /* it has fired */
    note.letter = 's';
    then_both(second, &note);
    assert_ok(semel_deferred_chain(target, second)); /* at once; nobody else has it */
    assert_string_equal(journal.text, "t=1 s=1 ");
    assert_int_equal(one.dropped, 1);
    semel_deferred_unref(source);
    semel_deferred_unref(target);
    hand_fini(&hand);
}

static void circles(void **state)
{
    struct hand hand, other;
    struct journal journal = { .used = 0 };
    struct semel_deferred *outer, *inner;
    struct note asks = { .journal = &journal, .letter = 'a' };
    struct note after = { .journal = &journal, .letter = 'b' };

    (void)state;
    hand_init(&hand);
    hand_init(&other);
    outer = made(&hand);
    asks.returns = semel_deferred_ref(outer); /* itself */
    then_both(outer, &asks);
    then_both(outer, &after);
    assert_ok(semel_deferred_fire(outer, NULL, NULL));
    assert_string_equal(journal.text, "a=- b!INVALID ");
    inner = made(&hand); /* waits for outer, whose callback returns it */
    semel_deferred_unref(outer);
    outer = made(&hand);
    assert_ok(semel_deferred_chain(outer, semel_deferred_ref(inner)));
    assert_int_equal(semel_deferred_pause(outer), SEMEL_OK);
    assert_ok(semel_deferred_fire(outer, NULL, NULL));
    semel_deferred_unref(inner);
    assert_ok(semel_deferred_resume(outer));
    semel_deferred_unref(outer);
    outer = made(&other); /* one of another loop */
    inner = made(&hand);
    asks.returns = semel_deferred_ref(outer);
    then_both(inner, &asks);
    assert_int_equal(semel_deferred_chain(inner, outer), SEMEL_INVALID);
    assert_ok(semel_deferred_fire(inner, NULL, NULL));
    assert_int_equal(semel_deferred_result(inner)->status, SEMEL_INVALID);
    semel_deferred_unref(inner);
    semel_deferred_unref(outer);
    hand_fini(&hand);
    hand_fini(&other);
}

struct pair {
    struct semel_deferred *outer, *inner;
    enum semel_status chained;
};

static void chain_when_dropped(void *value)
{
    struct pair *pair = value;

    pair->chained = semel_deferred_chain(pair->outer, semel_deferred_ref(pair->inner));
    if (pair->chained != SEMEL_OK)
        semel_deferred_unref(pair->inner);
}

static struct semel_deferred *return_inner(struct semel_fired *fired, void *user)
{
    struct pair *pair = user;

    (void)fired;
    return semel_deferred_ref(pair->inner);
}

/* The value that makes room for the inner one's has the inner one wait for the outer one. */
static void a_circle_made_by_a_drop(void **state)
{
    struct journal journal = { .used = 0 };
    struct note after = { .journal = &journal, .letter = 'a' };
    struct pair pair;
    struct hand hand;

    (void)state;
    hand_init(&hand);
    pair.outer = made(&hand);
    pair.inner = made(&hand);
    assert_ok(semel_deferred_then(pair.outer, return_inner, NULL, &pair));
    then_both(pair.outer, &after);
    assert_ok(semel_deferred_fire(pair.outer, &pair, chain_when_dropped));
    assert_ok(pair.chained);
    assert_string_equal(journal.text, "a!INVALID ");
    semel_deferred_cancel(pair.outer); /* returns */
    semel_deferred_unref(pair.outer);
    semel_deferred_unref(pair.inner);
    hand_fini(&hand);
}

/* What nobody can fire any more must not be waited for in silence. */
static void a_source_is_let_go(void **state)
{
    struct hand hand;
    struct journal journal = { .used = 0 };
    struct semel_deferred *outer, *inner;
    struct note asks = { .journal = &journal, .letter = 'a' };
    struct note after = { .journal = &journal, .letter = 'b' };

    (void)state;
    hand_init(&hand);
    outer = made(&hand);
    inner = made(&hand);
    asks.returns = semel_deferred_ref(inner);
    then_both(outer, &asks);
    then_both(outer, &after);
    assert_ok(semel_deferred_fire(outer, NULL, NULL));
    semel_deferred_unref(inner);
    assert_string_equal(journal.text, "a=- b!DROPPED ");
    semel_deferred_unref(outer);
    assert_int_equal(hand.unhandled, 1);
    hand_fini(&hand);
}

/* --- chains of 10^5, within 64 KiB of stack: see main ------------------------------------- */

enum { DEEP = 100000 };

static size_t deep_seen;

static struct semel_deferred *count_it(struct semel_fired *fired, void *user)
{
    (void)fired;
    (void)user;
    deep_seen++;
    return NULL;
}

static struct semel_deferred *return_it(struct semel_fired *fired, void *user)
{
    (void)fired;
    deep_seen++;
    return user;
}

static struct semel_deferred **many(struct hand *hand)
{
    struct semel_deferred **list = calloc(DEEP, sizeof(struct semel_deferred *));

    assert_non_null(list);
    for (size_t i = 0; i < DEEP; i++)
        list[i] = made(hand);
    deep_seen = 0;
    return list;
}

/* list[i] returns list[i + 1]: fired from the outermost inwards all wait, and the innermost lets
 * all go on; from the innermost outwards each finds its inner one done. */
static void deep_returned(void **state, bool inwards)
{
    struct hand hand;
    struct item one = { 1, 0 };
    struct semel_deferred **list;

    (void)state;
    hand_init(&hand);
    list = many(&hand);
    for (size_t i = 0; i < DEEP; i++) {
        void *inner = i + 1 < DEEP ? semel_deferred_ref(list[i + 1]) : NULL;

        assert_ok(semel_deferred_then(list[i], return_it, return_it, inner));
        assert_ok(semel_deferred_then(list[i], count_it, NULL, NULL));
    }
    for (size_t i = 0; i < DEEP; i++) {
        const size_t at = inwards ? i : DEEP - 1 - i;

        assert_ok(at == DEEP - 1 ? semel_deferred_fire(list[at], &one, drop_item)
                                 : semel_deferred_fire(list[at], NULL, NULL));
    }
    assert_int_equal(deep_seen, 2 * DEEP);
    assert_ptr_equal(semel_deferred_result(list[0])->value, &one);
    for (size_t i = 0; i < DEEP; i++)
        semel_deferred_unref(list[i]);
    assert_int_equal(one.dropped, 1);
    free(list);
    hand_fini(&hand);
}

static void deep_inwards(void **state)
{
    deep_returned(state, true);
}

static void deep_outwards(void **state)
{
    deep_returned(state, false);
}

/* All wait by semel_deferred_chain, nobody has them but the one before; then the first is fired,
 * cancelled, or let go. */
static void deep_chained(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct hand hand;
        struct item one = { 1, 0 };
        struct semel_deferred **list, *last;

        hand_init(&hand);
        list = many(&hand);
        last = semel_deferred_ref(list[DEEP - 1]);
        for (size_t i = 0; i < DEEP; i++)
            assert_ok(semel_deferred_then(list[i], count_it, NULL, NULL));
        for (size_t i = 0; i + 1 < DEEP; i++)
            assert_ok(semel_deferred_chain(list[i], list[i + 1]));
        if (how == 0)
            assert_ok(semel_deferred_fire(list[0], &one, drop_item));
        else if (how == 1)
            semel_deferred_cancel(last);
        semel_deferred_unref(list[0]);
        if (how < 2)
            assert_int_equal(semel_deferred_result(last)->status,
                             how == 0 ? SEMEL_OK : SEMEL_CANCELLED);
        assert_int_equal(deep_seen, how == 0 ? DEEP : 0);
        semel_deferred_unref(last);
        assert_int_equal(one.dropped, how == 0);
        free(list);
        hand_fini(&hand);
    }
}

/* Each round is a deferred that the callback of the one before returns. */
struct rounds {
    struct hand *hand;
    struct semel_deferred *now; /* what the next round is fired by */
    size_t left;
};

static struct semel_deferred *next_round(struct semel_fired *fired, void *user)
{
    struct rounds *rounds = user;

    (void)fired;
    if (rounds->left-- == 0)
        return NULL;
    rounds->now = made(rounds->hand);
    assert_ok(semel_deferred_then(rounds->now, next_round, NULL, rounds));
    return semel_deferred_ref(rounds->now);
}

static void round_and_round(void **state)
{
    struct hand hand;
    struct rounds rounds = { &hand, NULL, DEEP };
    struct item one = { 1, 0 };
    struct semel_deferred *out;

    (void)state;
    hand_init(&hand);
    rounds.now = out = made(&hand);
    assert_ok(semel_deferred_then(out, next_round, NULL, &rounds));
    (void)semel_deferred_ref(out);
    for (size_t i = 0; i <= DEEP; i++) {
        struct semel_deferred *now = rounds.now;

        assert_null(semel_deferred_result(out));
        assert_ok(semel_deferred_fire(now, i == DEEP ? &one : NULL, i == DEEP ? drop_item : NULL));
        semel_deferred_unref(now);
        assert_true(hand.blocks <= 3);
    }
    assert_ptr_equal(semel_deferred_result(out)->value, &one);
    semel_deferred_unref(out);
    hand_fini(&hand);
}

/* --- D3 ----------------------------------------------------------------------------------- */

struct adder {
    struct semel_deferred *to;
    struct note *note;
};

static struct semel_deferred *add_one(struct semel_fired *fired, void *user)
{
    struct adder *adder = user;

    (void)fired;
    assert_null(semel_deferred_result(adder->to));
    then_both(adder->to, adder->note);
    return NULL;
}

static void adds_while_running(void **state)
{
    struct hand hand;
    struct journal journal = { .used = 0 };
    struct note early = { .journal = &journal, .letter = 'a' };
    struct note added = { .journal = &journal, .letter = 'z' };
    struct semel_deferred *deferred;
    struct adder adder = { NULL, &added };

    (void)state;
    hand_init(&hand);
    adder.to = deferred = made(&hand);
    assert_ok(semel_deferred_then(deferred, add_one, add_one, &adder));
    then_both(deferred, &early);
    assert_ok(semel_deferred_fire(deferred, NULL, NULL));
    assert_string_equal(journal.text, "a=- z=- ");
    assert_ok(semel_deferred_then(deferred, add_one, add_one, &adder)); /* it has fired */
    assert_string_equal(journal.text, "a=- z=- z=- ");
    semel_deferred_unref(deferred);
    hand_fini(&hand);
}

static struct semel_deferred *pause_it(struct semel_fired *fired, void *user)
{
    (void)fired;
    assert_ok(semel_deferred_pause(user));
    return NULL;
}

static void pauses(void **state)
{
    struct hand hand;
    struct journal journal = { .used = 0 };
    struct note note = { .journal = &journal, .letter = 'a' };
    struct semel_deferred *deferred;

    (void)state;
    hand_init(&hand);
    deferred = made(&hand);
    then_both(deferred, &note);
    assert_ok(semel_deferred_pause(deferred));
    assert_ok(semel_deferred_pause(deferred));
    assert_ok(semel_deferred_fire(deferred, NULL, NULL));
    then_both(deferred, &note);
    assert_null(semel_deferred_result(deferred));
    assert_ok(semel_deferred_resume(deferred));
    assert_int_equal(journal.used, 0);
    assert_ok(semel_deferred_resume(deferred));
    assert_string_equal(journal.text, "a=- a=- ");
    assert_int_equal(semel_deferred_resume(deferred), SEMEL_INVALID);
    assert_ok(semel_deferred_then(deferred, pause_it, NULL, deferred)); /* in a callback */
    then_both(deferred, &note);
    assert_string_equal(journal.text, "a=- a=- ");
    assert_ok(semel_deferred_resume(deferred));
    assert_string_equal(journal.text, "a=- a=- a=- ");
    semel_deferred_unref(deferred);
    hand_fini(&hand);
}

/* A paused inner one is waited for, though it has fired; a paused outer one holds what came. */
static void pauses_of_both_ends(void **state)
{
    struct hand hand;
    struct journal journal = { .used = 0 };
    struct item one = { 1, 0 };
    struct note asks = { .journal = &journal, .letter = 'a' };
    struct note after = { .journal = &journal, .letter = 'b' };
    struct semel_deferred *outer, *inner;

    (void)state;
    hand_init(&hand);
    outer = made(&hand);
    inner = made(&hand);
    asks.returns = semel_deferred_ref(inner);
    then_both(outer, &asks);
    then_both(outer, &after);
    assert_ok(semel_deferred_pause(inner));
    assert_ok(semel_deferred_fire(inner, &one, drop_item));
    assert_ok(semel_deferred_fire(outer, NULL, NULL));
    assert_ok(semel_deferred_pause(outer));
    assert_ok(semel_deferred_resume(inner));
    assert_string_equal(journal.text, "a=- ");
    assert_ok(semel_deferred_resume(outer));
    assert_string_equal(journal.text, "a=- b=1 ");
    semel_deferred_unref(inner);
    semel_deferred_unref(outer);
    hand_fini(&hand);
}

static void frees_itself(void **state)
{
    struct hand hand;
    struct journal journal = { .used = 0 };
    struct item one = { 1, 0 };
    struct note frees = { .journal = &journal, .letter = 'a' };
    struct note after = { .journal = &journal, .letter = 'b' };
    struct semel_deferred *deferred, *inner;

    (void)state;
    hand_init(&hand);
    frees.unrefs = deferred = made(&hand);
    then_both(deferred, &frees);
    then_both(deferred, &after);
    assert_ok(semel_deferred_fire(deferred, &one, drop_item));
    assert_string_equal(journal.text, "a=1 b=1 ");
    assert_int_equal(one.dropped, 1);
    assert_int_equal(hand.blocks, 0);

    frees.unrefs = deferred = made(&hand); /* and waits for another in the same breath */
    inner = made(&hand);
    frees.returns = semel_deferred_ref(inner);
    then_both(deferred, &frees);
    then_both(deferred, &after);
    assert_ok(semel_deferred_fire(deferred, NULL, NULL));
    assert_ok(semel_deferred_fire(inner, NULL, NULL));
    assert_string_equal(journal.text, "a=1 b=1 a=- b=- ");
    semel_deferred_unref(inner);
    hand_fini(&hand);
}

/* Who fires has it; who waits for it need not. */
static void nobody_else_has_those_that_wait(void **state)
{
    struct hand hand;
    struct journal journal = { .used = 0 };
    struct note asks = { .journal = &journal, .letter = 'a' };
    struct note after = { .journal = &journal, .letter = 'b' };
    struct semel_deferred *outer, *inner;

    (void)state;
    hand_init(&hand);
    outer = made(&hand);
    inner = made(&hand);
    asks.returns = semel_deferred_ref(inner);
    then_both(outer, &asks);
    then_both(outer, &after);
    assert_ok(semel_deferred_fire(outer, NULL, NULL));
    semel_deferred_unref(outer);
    assert_ok(semel_deferred_fire(inner, NULL, NULL));
    assert_string_equal(journal.text, "a=- b=- ");
    semel_deferred_unref(inner);
    assert_int_equal(hand.blocks, 0);

    outer = made(&hand); /* let go before it fired: uncalled, and both are gone */
    then_both(outer, &after);
    inner = made(&hand);
    assert_ok(semel_deferred_chain(inner, outer));
    semel_deferred_unref(inner);
    assert_string_equal(journal.text, "a=- b=- ");
    assert_int_equal(hand.unhandled, 0);
    hand_fini(&hand);
}

/* --- D6 ----------------------------------------------------------------------------------- */

static void reports_once(void **state)
{
    struct hand hand;
    struct journal journal = { .used = 0 };
    struct item two = { 2, 0 };
    struct note heals = { .journal = &journal, .letter = 'a', .sets = &two };
    struct note looks = { .journal = &journal, .letter = 'b' };
    struct semel_deferred *deferred, *target;

    (void)state;
    hand_init(&hand);
    deferred = made(&hand);
    assert_ok(semel_deferred_fail(deferred, SEMEL_FAILED, 42, "no such table"));
    then_both(deferred, &looks); /* seen, but passed on */
    assert_int_equal(hand.unhandled, 0);
    semel_deferred_unref(deferred);
    assert_int_equal(hand.unhandled, 1);
    assert_int_equal(hand.last_unhandled.status, SEMEL_FAILED);
    assert_int_equal(hand.last_unhandled.code, 42);
    assert_string_equal(hand.last_unhandled.text, "no such table");

    deferred = made(&hand);
    assert_ok(semel_deferred_fail(deferred, SEMEL_FAILED, 0, NULL));
    then_both(deferred, &heals); /* consumed */
    semel_deferred_unref(deferred);
    assert_int_equal(hand.unhandled, 1);

    deferred = made(&hand); /* moved: reported by the last in the chain */
    target = made(&hand);
    assert_ok(semel_deferred_chain(deferred, semel_deferred_ref(target)));
    assert_ok(semel_deferred_fail(deferred, SEMEL_FAILED, 0, NULL));
    semel_deferred_unref(deferred);
    assert_int_equal(hand.unhandled, 1);
    semel_deferred_unref(target);
    assert_int_equal(hand.unhandled, 2);

    assert_ok(semel_deferred_failure(&deferred, hand_loop(&hand), SEMEL_LIMIT, 0, NULL));
    assert_ok(semel_deferred_pause(deferred)); /* while paused, too */
    semel_deferred_unref(deferred);
    assert_int_equal(hand.unhandled, 3);
    hand_fini(&hand);
}

static void without_a_loop(void **state)
{
    struct journal journal = { .used = 0 };
    struct item one = { 1, 0 };
    struct note note = { .journal = &journal, .letter = 'a' };
    struct semel_deferred *deferred;

    (void)state;
    assert_ok(semel_deferred_create(&deferred, NULL, NULL, NULL));
    then_both(deferred, &note);
    assert_int_equal(semel_deferred_timeout(deferred, 10), SEMEL_INVALID);
    assert_ok(semel_deferred_fire(deferred, &one, drop_item));
    assert_string_equal(journal.text, "a=1 ");
    semel_deferred_unref(deferred);
    assert_int_equal(one.dropped, 1);
}

/* How many allocations does one that comes and goes need? */
static size_t allocations(struct hand *hand, size_t extra, bool goes_away)
{
    const size_t before = hand->allocated;
    struct semel_deferred *deferred = sml_deferred_new(&hand->executor, NULL, NULL, extra);

    assert_non_null(deferred);
    memset(sml_deferred_extra(deferred), 0xa5, extra);
    hand->away = goes_away;
    semel_deferred_unref(deferred);
    hand->away = false;
    (void)hand_run(hand);
    return hand->allocated - before;
}

static void memory_is_kept_for_the_next(void **state)
{
    struct hand hand;
    struct semel_deferred *three[3];

    (void)state;
    hand_init(&hand);
    hand.executor.spares_max = 2;
    assert_int_equal(allocations(&hand, 0, false), 1);
    assert_int_equal(allocations(&hand, 0, false), 0);
    assert_int_equal(allocations(&hand, 0, true), 0); /* given back here all the same */
    assert_int_equal(allocations(&hand, 1, false), 1);
    assert_int_equal(allocations(&hand, SML_EXTRA_WIDE, false), 0); /* what one byte left */
    assert_int_equal(allocations(&hand, SML_EXTRA_WIDE + 1, false), 1);
    assert_int_equal(allocations(&hand, SML_EXTRA_WIDE + 1, false), 1);
    assert_int_equal(hand.blocks, 2);
    hand.away = true; /* what is kept is its thread's */
    three[0] = made(&hand);
    hand.away = false;
    assert_int_equal(hand.blocks, 3);
    three[1] = made(&hand);
    three[2] = made(&hand);
    assert_int_equal(hand.blocks, 4);
    for (int i = 0; i < 3; i++)
        semel_deferred_unref(three[i]);
    assert_int_equal(hand.blocks, 3); /* two of these, no more, and a wide one */
    sml_executor_free_spares(&hand.executor);
    assert_int_equal(hand.blocks, 0);
    hand_fini(&hand);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "D1 value and failure find their side of each pair", flips_between_the_sides, NULL, NULL,
          NULL },
        { "deferred: bad input has a status", bad_input, NULL, NULL, NULL },
        { "deferred: no memory", no_memory, NULL, NULL, NULL },
        { "D2 an inner deferred is waited for", waits_for_the_inner, NULL, NULL, NULL },
        { "D2 an inner deferred that is there is taken", takes_an_inner_that_is_there, NULL, NULL,
          NULL },
        { "D2 chain", chains, NULL, NULL, NULL },
        { "D2 circles and other loops are refused", circles, NULL, NULL, NULL },
        { "D2 a circle made by a value's drop", a_circle_made_by_a_drop, NULL, NULL, NULL },
        { "D2 a source that is let go", a_source_is_let_go, NULL, NULL, NULL },
        { "D2 100,000 deep, inwards", deep_inwards, NULL, NULL, NULL },
        { "D2 100,000 deep, outwards", deep_outwards, NULL, NULL, NULL },
        { "D2 100,000 chained: fired, cancelled, let go", deep_chained, NULL, NULL, NULL },
        { "D2 endless rounds need no memory", round_and_round, NULL, NULL, NULL },
        { "D3 what is added while callbacks run comes after them", adds_while_running, NULL, NULL,
          NULL },
        { "D3 pauses nest", pauses, NULL, NULL, NULL },
        { "D3 pauses of both ends of a chain", pauses_of_both_ends, NULL, NULL, NULL },
        { "deferred: a callback frees its own", frees_itself, NULL, NULL, NULL },
        { "deferred: who fires keeps those that wait", nobody_else_has_those_that_wait, NULL, NULL,
          NULL },
        { "D6 a failure that nobody handled is reported once", reports_once, NULL, NULL, NULL },
        { "deferred: without a loop", without_a_loop, NULL, NULL, NULL },
        { "deferred: memory is kept for the next", memory_is_kept_for_the_next, NULL, NULL, NULL },
    };

    return run_on_small_stack(tests, sizeof tests / sizeof tests[0]);
}
