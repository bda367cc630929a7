/* SPDX-License-Identifier: MIT */
/* Who gets which worker, and who waits. */
#include "proc/pool_kit.h"

#include <stdatomic.h>
#include <string.h>

#include "base/time.h"
#include "os/clock.h"
#include "proc/pool_internal.h"

static _Atomic unsigned order;

struct one {
    struct sml_seat seat;     /* first */
    _Atomic unsigned granted; /* as the how-manieth */
};

static void on_granted(struct sml_seat *seat)
{
    atomic_store(&((struct one *)seat)->granted, atomic_fetch_add(&order, 1) + 1);
}

static bool ask(struct semel_pool *pool, struct one *one, uint64_t deadline)
{
    atomic_store(&one->granted, 0);
    sml_seat_init(&one->seat, on_granted);
    return sml_seat_ask(pool, &one->seat, deadline, true);
}

static void leave(struct semel_pool *pool, struct one *one)
{
    sml_seat_leave(pool, &one->seat, true, SEMEL_VALUE);
}

static void test_fewest(void **state)
{
    struct semel_pool_options options = { .workers = 3, .calls_per_worker = 2 };
    struct semel_pool *pool = pool_kit_make(&options);
    struct one ones[6], more;

    (void)state;
    pool_kit_await_ready(pool);
    for (int i = 0; i < 6; i++) {
        assert_true(ask(pool, &ones[i], SML_NEVER));
        assert_non_null(ones[i].seat.worker);
        assert_non_null(sml_seat_client(&ones[i].seat));
    }
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(ones[i].seat.worker, ones[i + 3].seat.worker);
        assert_ptr_not_equal(ones[i].seat.worker, ones[(i + 1) % 3].seat.worker);
    }
    /* Full: nobody waits who does not want to. */
    sml_seat_init(&more.seat, NULL);
    assert_true(sml_seat_ask(pool, &more.seat, SML_NEVER, false));
    assert_null(more.seat.worker);
    assert_int_equal(more.seat.status, SEMEL_OVERLOADED);
    for (int i = 0; i < 6; i++)
        leave(pool, &ones[i]);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
}

static void test_line(void **state)
{
    struct semel_pool_options options = { .workers = 1 };
    struct semel_pool *pool = pool_kit_make(&options);
    struct one first, waiting[4];

    (void)state;
    atomic_store(&order, 0);
    pool_kit_await_ready(pool);
    assert_true(ask(pool, &first, SML_NEVER));
    for (int i = 0; i < 4; i++)
        assert_false(ask(pool, &waiting[i], SML_NEVER));
    /* Who leaves the line is not called; the order of the others stays. */
    assert_true(sml_seat_forget(pool, &waiting[1].seat));
    assert_false(sml_seat_forget(pool, &waiting[1].seat));
    sml_seat_end(pool, &waiting[1].seat, SEMEL_NOT_EXECUTED);
    leave(pool, &first);
    assert_int_equal(atomic_load(&waiting[0].granted), 1);
    assert_int_equal(atomic_load(&waiting[2].granted), 0);
    /* Nobody overtakes. */
    assert_false(ask(pool, &first, SML_NEVER));
    leave(pool, &waiting[0]);
    assert_int_equal(atomic_load(&waiting[2].granted), 2);
    leave(pool, &waiting[2]);
    assert_int_equal(atomic_load(&waiting[3].granted), 3);
    leave(pool, &waiting[3]);
    assert_int_equal(atomic_load(&first.granted), 4);
    leave(pool, &first);
    assert_int_equal(atomic_load(&waiting[1].granted), 0);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
}

static bool was_told(void *arg)
{
    return atomic_load(&((struct one *)arg)->granted) > 0;
}

static void test_deadline(void **state)
{
    struct semel_pool_options options = { .workers = 1 };
    struct semel_pool *pool = pool_kit_make(&options);
    struct one first, late;

    (void)state;
    pool_kit_await_ready(pool);
    assert_true(ask(pool, &first, SML_NEVER));
    assert_false(
        ask(pool, &late, sml_clock_now() + 500 * SML_MS)); /* not over before it is asked */
    assert_true(kit_eventually(was_told, &late, 30));
    assert_null(late.seat.worker);
    assert_int_equal(late.seat.status, SEMEL_EXPIRED);
    sml_seat_end(pool, &late.seat, SEMEL_NOT_EXECUTED);
    assert_true(ask(pool, &late, sml_clock_now()));
    assert_int_equal(late.seat.status, SEMEL_EXPIRED);
    sml_seat_end(pool, &late.seat, SEMEL_NOT_EXECUTED);
    leave(pool, &first);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
}

/* "Not executed" is no longer certain after a rerun. */
static void test_doubt(void **state)
{
    struct semel_result result = { .outcome = SEMEL_NOT_EXECUTED };
    struct sml_seat seat;

    (void)state;
    sml_seat_init(&seat, NULL);
    sml_seat_doubt(&seat, &result);
    assert_int_equal(result.outcome, SEMEL_NOT_EXECUTED);
    seat.reruns = 1;
    sml_seat_doubt(&seat, &result);
    assert_int_equal(result.outcome, SEMEL_UNKNOWN);
}

/* A handler that outlives its call keeps its worker's place, until it has ended. */
static bool is_free_again(void *pool)
{
    struct semel_worker_info info;

    return semel_pool_list(pool, &info, 1) == 1 && info.abandoned == 0;
}

static void test_abandoned(void **state)
{
    struct semel_pool_options options = { .workers = 1, .cancel_grace_ms = 20 };
    struct semel_call_options soon = { .deadline_ms = 50 };
    struct semel_call_options later = { .deadline_ms = 1000 }; /* it has begun by then */
    struct semel_pool *pool = pool_kit_make(&options);
    struct semel_worker_info info;
    struct semel_result result;
    struct pool_kit_gate gate;

    (void)state;
    pool_kit_gate_make(&gate);
    pool_kit_await_ready(pool);
    assert_int_equal(
        semel_pool_call(pool, "gate", semel_bytes_text(gate.directory), &later, &result),
        SEMEL_UNKNOWN);
    assert_int_equal(result.status, SEMEL_DEADLINE);
    semel_result_clear(&result);
    assert_int_equal(semel_pool_list(pool, &info, 1), 1);
    assert_int_equal(info.abandoned, 1);
    /* It waits here, and not behind the other one in the worker. */
    assert_int_equal(semel_pool_call(pool, "echo", semel_bytes(NULL, 0), &soon, &result),
                     SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_EXPIRED);
    semel_result_clear(&result);
    pool_kit_gate_open(&gate);
    assert_true(kit_eventually(is_free_again, pool, 30));
    assert_int_equal(pool_kit_number(pool, "square", "3"), 9);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    pool_kit_gate_remove(&gate);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fewest),    cmocka_unit_test(test_line),
        cmocka_unit_test(test_deadline),  cmocka_unit_test(test_doubt),
        cmocka_unit_test(test_abandoned),
    };
    int code = pool_kit_main(argc, argv);

    if (code >= 0)
        return code;
    return cmocka_run_group_tests_name("seat", tests, NULL, NULL);
}
