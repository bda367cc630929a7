/* SPDX-License-Identifier: MIT */
#include "async/lock_kit.h"

#include <pthread.h>

struct fixture {
    struct hand hand;
    struct semel_lock *lock;
    struct told told;
};

static void begin(struct fixture *at, uint32_t permits)
{
    struct semel_lock_options options = { .permits = permits };

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

static void assert_counts(struct fixture *at, uint32_t held, uint32_t waiting)
{
    assert_int_equal(semel_lock_held(at->lock), held);
    assert_int_equal(semel_lock_waiting(at->lock), waiting);
}

/* A body that goes on as a deferred, which the test has too. */
struct later {
    struct note note;
    struct fixture *at;
    struct semel_deferred *inner;
};

static struct semel_deferred *body_later(struct semel_fired *fired, void *user)
{
    struct later *later = user;

    (void)fired;
    tell(&later->at->told, later->note.name, SEMEL_OK);
    return semel_deferred_ref(later->inner);
}

static void later_make(struct later *later, struct fixture *at, const char *name,
                       semel_canceller_fn canceller)
{
    *later = (struct later){ { &at->told, name }, at, NULL };
    assert_int_equal(semel_deferred_create(&later->inner, hand_loop(&at->hand), canceller, later),
                     SEMEL_OK);
}

static struct semel_deferred *run(struct fixture *at, semel_body_fn body, void *user,
                                  struct note *result)
{
    struct semel_deferred *out = NULL;

    assert_int_equal(semel_lock_run(at->lock, body, user, &out), SEMEL_OK);
    result->told = &at->told;
    note_result(out, result);
    return out;
}

/* --- D10 ------------------------------------------------------------------------------------- */

static void the_permit_comes_back(void **state)
{
    struct fixture at;
    struct later value, failure, dropped;
    struct note next = { NULL, "next" };
    struct note results[3] = { { NULL, "=value" }, { NULL, "=failure" }, { NULL, "=dropped" } };
    struct semel_deferred *outs[3];

    (void)state;
    begin(&at, 1);
    later_make(&value, &at, "value", NULL);
    later_make(&failure, &at, "failure", NULL);
    later_make(&dropped, &at, "dropped", NULL);
    next.told = &at.told;
    outs[0] = run(&at, body_later, &value, &results[0]);
    outs[1] = run(&at, body_later, &failure, &results[1]);
    outs[2] = run(&at, body_later, &dropped, &results[2]);
    assert_int_equal(semel_lock_run(at.lock, body_now, &next, NULL), SEMEL_OK);
    assert_told(&at.told, "value ");
    assert_counts(&at, 1, 3);
    assert_int_equal(semel_deferred_fire(value.inner, NULL, NULL), SEMEL_OK);
    assert_told(&at.told, "=value failure ");
    assert_int_equal(semel_deferred_fail(failure.inner, SEMEL_FAILED, 7, "no"), SEMEL_OK);
    assert_told(&at.told, "=failure:FAILED dropped ");
    assert_counts(&at, 1, 1);
    /* Nobody is left who would fire it. */
    semel_deferred_unref(dropped.inner);
    assert_told(&at.told, "=dropped:DROPPED next ");
    assert_counts(&at, 0, 0);
    semel_deferred_unref(value.inner);
    semel_deferred_unref(failure.inner);
    for (int i = 0; i < 3; i++)
        semel_deferred_unref(outs[i]);
    end(&at);
}

static bool ends_later(struct semel_deferred *deferred, void *user)
{
    struct later *later = user;

    (void)deferred;
    tell(&later->at->told, "asked", SEMEL_OK);
    return true;
}

static void a_cancelled_body_has_it_to_its_end(void **state)
{
    struct fixture at;
    struct later slow, quick;
    struct note results[3] = { { NULL, "=slow" }, { NULL, "=quick" }, { NULL, "=third" } };
    struct note third = { NULL, "third" };
    struct semel_deferred *outs[3];

    (void)state;
    begin(&at, 1);
    later_make(&slow, &at, "slow", ends_later);
    later_make(&quick, &at, "quick", NULL);
    third.told = &at.told;
    outs[0] = run(&at, body_later, &slow, &results[0]);
    outs[1] = run(&at, body_later, &quick, &results[1]);
    outs[2] = run(&at, body_now, &third, &results[2]);
    semel_deferred_cancel(outs[0]);
    semel_deferred_cancel(outs[0]);
    assert_told(&at.told, "slow asked ");
    assert_counts(&at, 1, 2);
    assert_int_equal(semel_deferred_fail(slow.inner, SEMEL_CANCELLED, 0, NULL), SEMEL_OK);
    assert_told(&at.told, "=slow:CANCELLED quick ");
    semel_deferred_cancel(outs[1]); /* its deferred has no canceller: it ends at once */
    assert_told(&at.told, "=quick:CANCELLED third =third ");
    assert_counts(&at, 0, 0);
    semel_deferred_unref(slow.inner);
    semel_deferred_unref(quick.inner);
    for (int i = 0; i < 3; i++)
        semel_deferred_unref(outs[i]);
    end(&at);
}

/* A body that cancels its own result, and goes on all the same. */
struct suicidal {
    struct later later;
    struct semel_deferred *out;
};

static struct semel_deferred *cancel_me(struct semel_fired *fired, void *user)
{
    struct suicidal *it = user;

    semel_deferred_cancel(it->out);
    assert_false(has_fired(it->out));
    return it->later.inner ? body_later(fired, &it->later) : NULL;
}

static void a_body_that_cancels_itself(void **state)
{
    struct fixture at;
    struct suicidal it;
    struct note result = { NULL, "=it" };

    (void)state;
    for (int goes_on = 0; goes_on < 2; goes_on++) {
        begin(&at, 1);
        if (goes_on)
            later_make(&it.later, &at, "it", ends_later);
        else
            it.later.inner = NULL;
        assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
        it.out = run(&at, cancel_me, &it, &result);
        assert_int_equal(semel_lock_release(at.lock), SEMEL_OK);
        if (goes_on) {
            assert_told(&at.told, "it asked ");
            assert_counts(&at, 1, 0);
            assert_int_equal(semel_deferred_fire(it.later.inner, NULL, NULL), SEMEL_OK);
        }
        assert_told(&at.told, "=it ");
        assert_counts(&at, 0, 0);
        semel_deferred_unref(it.later.inner);
        semel_deferred_unref(it.out);
        end(&at);
    }
}

static void cancelled_in_line_it_never_runs(void **state)
{
    struct fixture at;
    struct note first = { NULL, "first" }, second = { NULL, "second" };
    struct note result = { NULL, "=first" };
    struct semel_deferred *out;

    (void)state;
    begin(&at, 1);
    first.told = second.told = &at.told;
    assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
    out = run(&at, body_now, &first, &result);
    assert_int_equal(semel_lock_run(at.lock, body_now, &second, NULL), SEMEL_OK);
    semel_deferred_cancel(out);
    assert_told(&at.told, "=first:CANCELLED ");
    assert_int_equal(semel_lock_release(at.lock), SEMEL_OK);
    assert_told(&at.told, "second ");
    assert_counts(&at, 0, 0);
    semel_deferred_unref(out);
    end(&at);
}

/* --- results --------------------------------------------------------------------------------- */

static int dropped;

static void count_drop(void *value)
{
    (void)value;
    dropped++;
}

struct result {
    bool fails, later_too;
    struct later later;
};

static struct semel_deferred *body_with_result(struct semel_fired *fired, void *user)
{
    struct result *result = user;

    if (result->fails)
        semel_fired_set_failure(fired, SEMEL_FAILED, 3, "why");
    else
        semel_fired_set_value(fired, &dropped, count_drop);
    return result->later_too ? semel_deferred_ref(result->later.inner) : NULL;
}

static void results_arrive_or_are_let_go(void **state)
{
    struct fixture at;
    struct result value = { false, false, { .at = NULL } },
                  failure = { true, false, { .at = NULL } };
    struct semel_deferred *out = NULL;
    const struct semel_fired *fired;

    (void)state;
    for (int queued = 0; queued < 2; queued++) {
        begin(&at, 1);
        dropped = 0;
        if (queued)
            assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
        assert_int_equal(semel_lock_run(at.lock, body_with_result, &value, NULL), SEMEL_OK);
        assert_int_equal(semel_lock_run(at.lock, body_with_result, &failure, NULL), SEMEL_OK);
        if (queued)
            assert_int_equal(semel_lock_release(at.lock), SEMEL_OK);
        assert_int_equal(dropped, 1);
        assert_int_equal(at.hand.unhandled, 1);
        assert_int_equal(at.hand.last_unhandled.status, SEMEL_FAILED);
        assert_int_equal(at.hand.last_unhandled.code, 3);
        assert_string_equal(at.hand.last_unhandled.text, "why");
        at.hand.unhandled = 0;
        assert_int_equal(semel_lock_run(at.lock, body_with_result, &value, &out), SEMEL_OK);
        fired = semel_deferred_result(out);
        assert_non_null(fired);
        assert_ptr_equal(fired->value, &dropped);
        semel_deferred_unref(out);
        assert_int_equal(dropped, 2);
        /* What was set before going on as a deferred is let go. */
        value.later_too = true;
        later_make(&value.later, &at, "", NULL);
        assert_int_equal(semel_lock_run(at.lock, body_with_result, &value, &out), SEMEL_OK);
        assert_int_equal(dropped, 3);
        assert_int_equal(semel_deferred_fire(value.later.inner, NULL, NULL), SEMEL_OK);
        assert_true(has_fired(out));
        semel_deferred_unref(out);
        semel_deferred_unref(value.later.inner);
        value.later_too = false;
        end(&at);
    }
}

static void unwanted_results_that_come_later(void **state)
{
    struct fixture at;
    struct later value, failure;

    (void)state;
    begin(&at, 2);
    dropped = 0;
    later_make(&value, &at, "value", NULL);
    later_make(&failure, &at, "failure", NULL);
    assert_int_equal(semel_lock_run(at.lock, body_later, &value, NULL), SEMEL_OK);
    assert_int_equal(semel_lock_run(at.lock, body_later, &failure, NULL), SEMEL_OK);
    assert_counts(&at, 2, 0);
    assert_int_equal(semel_deferred_fire(value.inner, &dropped, count_drop), SEMEL_OK);
    assert_int_equal(dropped, 1);
    assert_int_equal(semel_deferred_fail(failure.inner, SEMEL_FAILED, 0, NULL), SEMEL_OK);
    assert_int_equal(at.hand.unhandled, 1);
    at.hand.unhandled = 0;
    assert_counts(&at, 0, 0);
    semel_deferred_unref(value.inner);
    semel_deferred_unref(failure.inner);
    end(&at);
}

static struct semel_deferred *return_user(struct semel_fired *fired, void *user)
{
    (void)fired;
    return semel_deferred_ref(*(struct semel_deferred **)user);
}

struct circle {
    struct semel_deferred *out, *inner;
};

static void chain_when_dropped(void *value)
{
    struct circle *circle = value;

    assert_int_equal(semel_deferred_chain(circle->out, semel_deferred_ref(circle->inner)),
                     SEMEL_OK);
}

static struct semel_deferred *set_and_return(struct semel_fired *fired, void *user)
{
    struct circle *circle = user;

    semel_fired_set_value(fired, circle, chain_when_dropped);
    return semel_deferred_ref(circle->inner);
}

/* The body's value, which gives way, has the body's deferred wait for the body's result. */
static void a_circle_made_by_a_drop(void **state)
{
    struct note result = { NULL, "=it" };
    struct fixture at;
    struct circle circle;

    (void)state;
    begin(&at, 1);
    assert_int_equal(semel_deferred_create(&circle.inner, hand_loop(&at.hand), NULL, NULL),
                     SEMEL_OK);
    assert_int_equal(semel_lock_run(at.lock, set_and_return, &circle, &circle.out), SEMEL_OK);
    result.told = &at.told;
    note_result(circle.inner, &result);
    assert_told(&at.told, "=it:INVALID ");
    assert_counts(&at, 0, 0);
    semel_deferred_unref(circle.out);
    semel_deferred_unref(circle.inner);
    end(&at);
}

/* A body cannot go on as a deferred of another loop, or as what waits for its own result. */
static void what_cannot_be_waited_for_fails(void **state)
{
    struct fixture at;
    struct note result = { NULL, "=it" };
    struct semel_deferred *foreign = NULL, *out = NULL, *behind = NULL;

    (void)state;
    begin(&at, 1);
    assert_int_equal(semel_deferred_create(&foreign, NULL, NULL, NULL), SEMEL_OK);
    semel_deferred_unref(run(&at, return_user, &foreign, &result));
    assert_told(&at.told, "=it:INVALID ");
    assert_int_equal(semel_lock_run(at.lock, return_user, &foreign, NULL), SEMEL_OK);
    assert_int_equal(at.hand.unhandled, 1);
    at.hand.unhandled = 0;
    semel_deferred_unref(foreign);
    for (int around = 0; around < 2; around++) {
        assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
        if (around) {
            assert_int_equal(semel_lock_run(at.lock, return_user, &behind, &out), SEMEL_OK);
            assert_int_equal(semel_deferred_create(&behind, hand_loop(&at.hand), NULL, NULL),
                             SEMEL_OK);
            assert_int_equal(semel_deferred_chain(out, semel_deferred_ref(behind)), SEMEL_OK);
        } else {
            out = run(&at, return_user, &out, &result);
        }
        assert_int_equal(semel_lock_release(at.lock), SEMEL_OK);
        if (around)
            note_result(behind, &result);
        assert_told(&at.told, "=it:INVALID ");
        assert_counts(&at, 0, 0);
        semel_deferred_unref(out);
    }
    semel_deferred_unref(behind);
    end(&at);
}

/* --- D11, and memory ------------------------------------------------------------------------- */

#define MANY 1000000

struct counted {
    uint64_t ran;
    char *lowest, *highest; /* addresses on the stack */
};

static struct semel_deferred *count_body(struct semel_fired *fired, void *user)
{
    struct counted *counted = user;
    char *place = __builtin_frame_address(0); /* a local's may be elsewhere, with sanitizers */

    (void)fired;
    counted->ran++;
    if (counted->lowest == NULL || place < counted->lowest)
        counted->lowest = place;
    if (place > counted->highest)
        counted->highest = place;
    return NULL;
}

static struct semel_deferred *count_result(struct semel_fired *fired, void *user)
{
    (void)count_body(fired, user);
    return NULL;
}

/* Behind `permits` permits that are given back at the end, many bodies; each fourth result is
 * wanted. All this on a thread with a small stack. */
static void *run_many(void *user)
{
    struct fixture *at = user;
    struct counted bodies = { 0, NULL, NULL }, results = { 0, NULL, NULL };

    assert_int_equal(semel_lock_try(at->lock), SEMEL_OK);
    for (int i = 0; i < MANY; i++) {
        struct semel_deferred *out = NULL;

        assert_int_equal(semel_lock_run(at->lock, count_body, &bodies, i % 4 == 0 ? &out : NULL),
                         SEMEL_OK);
        if (out)
            assert_int_equal(semel_deferred_then(out, count_result, NULL, &results), SEMEL_OK);
        semel_deferred_unref(out);
    }
    assert_int_equal(bodies.ran, 0);
    assert_int_equal(semel_lock_waiting(at->lock), MANY);
    assert_int_equal(semel_lock_release(at->lock), SEMEL_OK);
    assert_int_equal(bodies.ran, MANY);
    assert_int_equal(results.ran, MANY / 4);
    assert_true(bodies.highest - bodies.lowest < 2048);
    assert_true(results.highest - results.lowest < 2048);
    assert_counts(at, 0, 0);
    return NULL;
}

static void a_million_bodies_in_a_small_stack(void **state)
{
    struct fixture at;
    pthread_attr_t small;
    pthread_t thread;

    (void)state;
    begin(&at, 1);
    assert_int_equal(pthread_attr_init(&small), 0);
    assert_int_equal(pthread_attr_setstacksize(&small, 256 * 1024), 0);
    assert_int_equal(pthread_create(&thread, &small, run_many, &at), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(pthread_attr_destroy(&small), 0);
    end(&at);
}

/* Bodies that end as soon as they go on, and bodies that queue the next one. */
struct endless {
    struct fixture *at;
    struct counted counted;
    uint32_t left;
};

static struct semel_deferred *queue_the_next(struct semel_fired *fired, void *user)
{
    struct endless *endless = user;
    struct semel_deferred *fired_already = NULL;

    (void)count_body(fired, &endless->counted);
    if (endless->left-- > 1)
        assert_int_equal(semel_lock_run(endless->at->lock, queue_the_next, endless, NULL),
                         SEMEL_OK);
    assert_int_equal(
        semel_deferred_value(&fired_already, hand_loop(&endless->at->hand), NULL, NULL), SEMEL_OK);
    return fired_already;
}

static void bodies_that_queue_bodies(void **state)
{
    struct fixture at;
    struct endless endless = { &at, { 0, NULL, NULL }, 100000 };

    (void)state;
    begin(&at, 1);
    assert_int_equal(semel_lock_run(at.lock, queue_the_next, &endless, NULL), SEMEL_OK);
    assert_int_equal(endless.counted.ran, 100000);
    /* The first one's frame is that of the call itself, all others' that of the line. */
    assert_true(endless.counted.highest - endless.counted.lowest < 4096);
    assert_counts(&at, 0, 0);
    end(&at);
}

static void a_body_that_is_done_costs_no_memory(void **state)
{
    struct fixture at;
    struct counted counted = { 0, NULL, NULL };
    size_t before;

    (void)state;
    begin(&at, 1);
    assert_int_equal(semel_lock_run(at.lock, count_body, &counted, NULL), SEMEL_OK);
    before = at.hand.allocated;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(semel_lock_run(at.lock, count_body, &counted, NULL), SEMEL_OK);
    assert_int_equal(at.hand.allocated, before);
    assert_int_equal(counted.ran, 1001);
    end(&at);
}

/* Memory that is missing is missed before the body runs, never after. */
static void without_memory_it_does_not_run(void **state)
{
    struct fixture at;
    struct later later;
    struct note result = { NULL, "=it" };
    struct semel_deferred *out = NULL;

    (void)state;
    for (int held = 0; held < 2; held++) {
        begin(&at, 1);
        later_make(&later, &at, "it", NULL);
        if (held)
            assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
        hand_fail_at(&at.hand, 1);
        assert_int_equal(semel_lock_run(at.lock, body_later, &later, NULL), SEMEL_NO_MEMORY);
        hand_fail_at(&at.hand, 1);
        assert_int_equal(semel_lock_run(at.lock, body_later, &later, &out), SEMEL_NO_MEMORY);
        assert_null(out);
        assert_counts(&at, (uint32_t)held, 0);
        hand_fail_at(&at.hand, 0);
        assert_int_equal(semel_lock_run(at.lock, body_later, &later, NULL), SEMEL_OK);
        if (held)
            assert_int_equal(semel_lock_release(at.lock), SEMEL_OK);
        assert_told(&at.told, "it ");
        assert_int_equal(semel_deferred_fire(later.inner, NULL, NULL), SEMEL_OK);
        assert_counts(&at, 0, 0);
        semel_deferred_unref(run(&at, body_later, &later, &result));
        assert_told(&at.told, "it =it ");
        semel_deferred_unref(later.inner);
        end(&at);
    }
}

/* --- its end --------------------------------------------------------------------------------- */

static struct semel_deferred *destroy_lock(struct semel_fired *fired, void *user)
{
    struct later *later = user;

    semel_lock_destroy(later->at->lock);
    return later->inner ? body_later(fired, later) : NULL;
}

/* Wanted or not, at once or in line, done or going on: a body that destroys the lock under it. */
static void a_body_destroys_its_lock(void **state)
{
    (void)state;
    for (int kind = 0; kind < 8; kind++) {
        bool wanted = kind & 1, queued = kind & 2, goes_on = kind & 4;
        struct fixture at;
        struct later later = { .at = &at };
        struct note result = { NULL, "=it" }, behind = { NULL, "behind" },
                    last = { NULL, "=behind" };
        struct semel_deferred *out = NULL, *other = NULL;

        begin(&at, 1);
        if (goes_on)
            later_make(&later, &at, "it", NULL);
        if (queued) {
            assert_int_equal(semel_lock_try(at.lock), SEMEL_OK);
            if (wanted)
                out = run(&at, destroy_lock, &later, &result);
            else
                assert_int_equal(semel_lock_run(at.lock, destroy_lock, &later, NULL), SEMEL_OK);
            other = run(&at, body_now, &behind, &last);
            assert_int_equal(semel_lock_release(at.lock), SEMEL_OK);
        } else if (wanted) {
            out = run(&at, destroy_lock, &later, &result);
        } else {
            assert_int_equal(semel_lock_run(at.lock, destroy_lock, &later, NULL), SEMEL_OK);
        }
        if (goes_on)
            assert_int_equal(semel_deferred_fire(later.inner, NULL, NULL), SEMEL_OK);
        assert_true(strstr(at.told.text, "=behind:STOPPED") || !queued);
        assert_true(strstr(at.told.text, "=it ") || !wanted);
        semel_deferred_unref(later.inner);
        semel_deferred_unref(out);
        semel_deferred_unref(other);
        assert_int_equal(at.hand.unhandled, 0);
        hand_fini(&at.hand);
    }
}

static void bodies_outlive_the_lock(void **state)
{
    struct fixture at;
    struct later wanted, unwanted;
    struct note result = { NULL, "=wanted" }, never = { NULL, "never" };
    struct semel_deferred *out;

    (void)state;
    begin(&at, 2);
    later_make(&wanted, &at, "wanted", NULL);
    later_make(&unwanted, &at, "unwanted", NULL);
    out = run(&at, body_later, &wanted, &result);
    assert_int_equal(semel_lock_run(at.lock, body_later, &unwanted, NULL), SEMEL_OK);
    assert_int_equal(semel_lock_run(at.lock, body_now, &never, NULL), SEMEL_OK);
    semel_lock_destroy(at.lock);
    assert_told(&at.told, "wanted unwanted ");
    assert_int_equal(at.hand.unhandled,
                     1); /* the body that never ran, and nobody was there to know */
    assert_int_equal(at.hand.last_unhandled.status, SEMEL_STOPPED);
    assert_int_equal(semel_deferred_fire(wanted.inner, NULL, NULL), SEMEL_OK);
    assert_told(&at.told, "=wanted ");
    assert_int_equal(semel_deferred_fire(unwanted.inner, NULL, NULL), SEMEL_OK);
    semel_deferred_unref(wanted.inner);
    semel_deferred_unref(unwanted.inner);
    semel_deferred_unref(out);
    hand_fini(&at.hand);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "D10 the permit comes back after value, failure, and being let go", the_permit_comes_back,
          NULL, NULL, NULL },
        { "D10 a cancelled body has its permit to its end", a_cancelled_body_has_it_to_its_end,
          NULL, NULL, NULL },
        { "D10 a body that cancels its own result", a_body_that_cancels_itself, NULL, NULL, NULL },
        { "D9 a body that is cancelled in line never runs", cancelled_in_line_it_never_runs, NULL,
          NULL, NULL },
        cmocka_unit_test(results_arrive_or_are_let_go),
        cmocka_unit_test(unwanted_results_that_come_later),
        cmocka_unit_test(what_cannot_be_waited_for_fails),
        cmocka_unit_test(a_circle_made_by_a_drop),
        { "D11 a million queued bodies run in a small stack", a_million_bodies_in_a_small_stack,
          NULL, NULL, NULL },
        { "D11 bodies that queue bodies need no more of it", bodies_that_queue_bodies, NULL, NULL,
          NULL },
        cmocka_unit_test(a_body_that_is_done_costs_no_memory),
        cmocka_unit_test(without_memory_it_does_not_run),
        cmocka_unit_test(a_body_destroys_its_lock),
        cmocka_unit_test(bodies_outlive_the_lock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
