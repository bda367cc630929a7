/* SPDX-License-Identifier: MIT */
/* The life of a call at the callee: shell's moves, verdicts, timers, limits. */
#include "fixture.h"

#include "session/callee_internal.h"

static struct sml_callee callee;
static const struct sml_callee_limits limits = { .window = 4,
                                                 .body_bytes = 1000,
                                                 .session_bytes = 2000 };

static int set_up(void **state)
{
    (void)state;
    sml_callee_init(&callee, &sml_mem_libc, &limits);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sml_callee_clear(&callee);
    assert_int_equal(callee.held, 0);
    assert_int_equal(callee.bytes_in, 0);
    assert_int_equal(callee.bytes_kept, 0);
    assert_int_equal(callee.bytes_stored, 0);
    return 0;
}

static enum semel_status give_call(uint64_t xid, const char *body, uint32_t remaining_ms,
                                   uint8_t flags)
{
    struct sml_frame frame = { .type = SML_CALL, .xid = xid };
    const char *why = NULL;

    frame.u.call = (struct sml_call_frame){ .fingerprint = sml_fingerprint("m", 1, NULL, 0, body,
                                                                           strlen(body)),
                                            .body_bytes = strlen(body),
                                            .remaining_ms = remaining_ms,
                                            .flags = flags,
                                            .method = { "m", 1 },
                                            .fragment = { body, strlen(body) } };
    return sml_callee_frame(&callee, &frame, 0, &why);
}

static void give_cancel(uint64_t xid)
{
    struct sml_frame frame = { .type = SML_CANCEL, .xid = xid };
    const char *why = NULL;

    assert_int_equal(sml_callee_frame(&callee, &frame, 0, &why), SEMEL_OK);
}

static struct sml_incoming *record(uint64_t xid)
{
    return sml_table_find(&callee.table, xid);
}

static void finish(struct sml_incoming *in, size_t bytes)
{
    struct sml_verdict verdict = { .outcome = SEMEL_VALUE };
    uint8_t *reply = sml_callee_reply_alloc(&callee, bytes);

    memset(reply, 'r', bytes);
    verdict.body = semel_bytes(reply, bytes);
    sml_callee_finish(&callee, in, &verdict, reply);
}

static void expect_verdict(uint64_t xid, enum semel_outcome outcome, enum semel_status status)
{
    assert_non_null(record(xid));
    assert_int_equal(record(xid)->phase, SML_IN_DONE);
    assert_int_equal(record(xid)->verdict.outcome, outcome);
    assert_int_equal(record(xid)->verdict.status, status);
}

static void ready_calls_are_taken_in_order(void **state)
{
    (void)state;
    assert_int_equal(give_call(1, "one", 1000, 0), SEMEL_OK);
    assert_int_equal(give_call(2, "two", 1000, 0), SEMEL_OK);
    struct sml_incoming *first = sml_callee_take(&callee);
    struct sml_incoming *second = sml_callee_take(&callee);
    assert_int_equal(first->xid, 1);
    assert_int_equal(second->xid, 2);
    assert_string_equal(first->method, "m");
    assert_memory_equal(second->body, "two", 3);
    assert_null(sml_callee_take(&callee));
    assert_true(sml_callee_begin(&callee, second, 0, 1));
    assert_true(sml_callee_begin(&callee, first, 0, 1));
    finish(second, 3);
    finish(first, 3);
    expect_verdict(1, SEMEL_VALUE, SEMEL_OK);
    expect_verdict(2, SEMEL_VALUE, SEMEL_OK);
}

static void a_call_past_its_deadline_never_begins(void **state)
{
    (void)state;
    assert_int_equal(give_call(1, "a", 0, 0), SEMEL_OK);
    expect_verdict(1, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED);
    assert_int_equal(give_call(2, "b", 10, 0), SEMEL_OK);
    struct sml_incoming *in = sml_callee_take(&callee);
    assert_false(sml_callee_begin(&callee, in, 0, 10 * SML_MS));
    expect_verdict(2, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED);
    assert_int_equal(give_call(3, "c", 10, 0), SEMEL_OK);
    sml_callee_tick(&callee, 10 * SML_MS);
    expect_verdict(3, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED);
    assert_null(sml_callee_take(&callee));
}

static void a_call_without_a_deadline_never_expires(void **state)
{
    struct sml_incoming *in;

    (void)state;
    assert_int_equal(give_call(1, "a", UINT32_MAX, 0), SEMEL_OK);
    sml_callee_tick(&callee, 1000 * 86400 * SML_SECOND);
    in = sml_callee_take(&callee);
    assert_true(sml_callee_begin(&callee, in, 0, 1000 * 86400 * SML_SECOND));
    sml_callee_tick(&callee, 2000 * 86400 * SML_SECOND);
    assert_false(atomic_load(&in->cancelled));
    /* One less is a deadline. */
    assert_int_equal(give_call(2, "b", UINT32_MAX - 1, 0), SEMEL_OK);
    sml_callee_tick(&callee, (UINT32_MAX - 1) * SML_MS);
    expect_verdict(2, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED);
    finish(in, 1);
}

static void cancel_before_start_is_not_executed(void **state)
{
    (void)state;
    assert_int_equal(give_call(1, "a", 1000, 0), SEMEL_OK);
    give_cancel(1);
    expect_verdict(1, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED);
    assert_null(sml_callee_take(&callee));
    assert_int_equal(give_call(2, "b", 1000, 0), SEMEL_OK);
    struct sml_incoming *in = sml_callee_take(&callee);
    give_cancel(2);
    assert_false(sml_callee_begin(&callee, in, 0, 0));
    expect_verdict(2, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED);
}

static void cancel_while_running_asks_the_handler_once(void **state)
{
    (void)state;
    assert_int_equal(give_call(1, "a", 1000, 0), SEMEL_OK);
    struct sml_incoming *in = sml_callee_take(&callee);
    assert_true(sml_callee_begin(&callee, in, 0, 0));
    give_cancel(1);
    give_cancel(1);
    assert_true(atomic_load(&in->cancelled));
    assert_ptr_equal(sml_callee_next_cancelled(&callee), in);
    assert_null(sml_callee_next_cancelled(&callee));
    finish(in, 1);
    expect_verdict(1, SEMEL_VALUE, SEMEL_OK);
}

static void max_run_turns_unknown_and_discards_the_late_result(void **state)
{
    (void)state;
    assert_int_equal(give_call(1, "a", 1000, 0), SEMEL_OK);
    struct sml_incoming *in = sml_callee_take(&callee);
    assert_true(sml_callee_begin(&callee, in, 50 * SML_MS, 0));
    sml_callee_tick(&callee, 49 * SML_MS);
    assert_int_equal(in->phase, SML_IN_RUNNING);
    sml_callee_tick(&callee, 50 * SML_MS);
    expect_verdict(1, SEMEL_UNKNOWN, SEMEL_MAX_RUN);
    assert_ptr_equal(sml_callee_next_cancelled(&callee), in);
    assert_int_equal(callee.held, 1);
    finish(in, 1);
    expect_verdict(1, SEMEL_UNKNOWN, SEMEL_MAX_RUN);
    assert_int_equal(callee.held, 0);
}

static void the_deadline_asks_a_running_handler_to_stop(void **state)
{
    (void)state;
    assert_int_equal(give_call(1, "a", 10, 0), SEMEL_OK);
    struct sml_incoming *in = sml_callee_take(&callee);
    assert_true(sml_callee_begin(&callee, in, 0, 0));
    sml_callee_tick(&callee, 10 * SML_MS);
    assert_true(atomic_load(&in->cancelled));
    assert_int_equal(in->phase, SML_IN_RUNNING);
    assert_int_equal(sml_callee_timeout(&callee), SML_NEVER);
    finish(in, 1);
    expect_verdict(1, SEMEL_VALUE, SEMEL_OK);
}

static void refusing_is_no_verdict_unless_the_caller_wants_one(void **state)
{
    (void)state;
    assert_int_equal(give_call(1, "a", 1000, 0), SEMEL_OK);
    assert_int_equal(give_call(2, "b", 1000, SML_CALL_REFUSE_WHEN_FULL), SEMEL_OK);
    sml_callee_refuse(&callee, sml_callee_take(&callee), 20);
    sml_callee_refuse(&callee, sml_callee_take(&callee), 20);
    assert_int_equal(record(1)->phase, SML_IN_REFUSED);
    expect_verdict(2, SEMEL_NOT_EXECUTED, SEMEL_OVERLOADED);
    assert_int_equal(callee.bytes_in, 0);
    assert_int_equal(give_call(1, "a", 1000, 0), SEMEL_OK);
    assert_int_equal(record(1)->phase, SML_IN_READY);
    give_cancel(1);
    expect_verdict(1, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED);
}

static void stored_replies_over_budget_stop_further_starts(void **state)
{
    (void)state;
    for (uint64_t xid = 1; xid <= 4; xid++)
        assert_int_equal(give_call(xid, "a", 1000, 0), SEMEL_OK);
    for (int i = 0; i < 2; i++) {
        struct sml_incoming *in = sml_callee_take(&callee);

        assert_true(sml_callee_begin(&callee, in, 0, 0));
        finish(in, 1001);
    }
    assert_null(sml_callee_take(&callee));
    sml_callee_release(&callee, record(1));
    assert_non_null(sml_callee_take(&callee));
    sml_callee_reject(&callee, record(3), SEMEL_NO_METHOD, "no such method");
}

static void a_released_record_outlives_its_release_while_held(void **state)
{
    (void)state;
    assert_int_equal(give_call(1, "a", 1000, 0), SEMEL_OK);
    struct sml_incoming *in = sml_callee_take(&callee);
    assert_true(sml_callee_begin(&callee, in, 0, 0));
    sml_callee_release(&callee, in);
    assert_true(atomic_load(&in->gone));
    assert_true(atomic_load(&in->cancelled));
    assert_memory_equal(in->body, "a", 1);
    assert_int_equal(callee.bytes_in, 0);
    assert_int_equal(callee.held, 1);
    finish(in, 10);
    assert_null(record(1));
    assert_int_equal(callee.bytes_stored, 0);
}

/* A call is made, its handler begins, and the caller gives it up. */
static struct sml_incoming *abandon(uint64_t xid, const char *body)
{
    struct sml_incoming *in;

    assert_int_equal(give_call(xid, body, 1000, 0), SEMEL_OK);
    in = sml_callee_take(&callee);
    assert_non_null(in);
    assert_true(sml_callee_begin(&callee, in, 0, 0));
    sml_callee_release(&callee, in);
    return in;
}

static void abandoned_handlers_do_not_pile_up(void **state)
{
    struct sml_incoming *stuck[8], *in;

    (void)state;
    for (uint64_t i = 0; i < 8; i++)
        stuck[i] = abandon(i + 1, "a");
    assert_int_equal(give_call(9, "b", 1000, 0), SEMEL_OK);
    assert_int_equal(give_call(10, "c", 1000, SML_CALL_REFUSE_WHEN_FULL), SEMEL_OK);
    assert_null(sml_callee_take(&callee));
    assert_int_equal(callee.held, 8); /* twice the window */
    assert_int_equal(record(9)->phase, SML_IN_REFUSED);
    assert_true(sml_callee_wants_write(&callee)); /* BUSY */
    expect_verdict(10, SEMEL_NOT_EXECUTED, SEMEL_OVERLOADED);
    finish(stuck[0], 1);
    assert_int_equal(give_call(9, "b", 1000, 0), SEMEL_OK);
    in = sml_callee_take(&callee);
    assert_int_equal(in->xid, 9);
    sml_callee_refuse(&callee, in, 20);
    for (int i = 1; i < 8; i++)
        finish(stuck[i], 1);
}

static void nor_do_the_bodies_they_hold(void **state)
{
    struct sml_incoming *stuck[3];
    char body[901];

    (void)state;
    memset(body, 'b', 900);
    body[900] = '\0';
    for (uint64_t i = 0; i < 3; i++)
        stuck[i] = abandon(i + 1, body);
    assert_int_equal(callee.bytes_in, 0);
    assert_int_equal(callee.bytes_kept, 2700);
    assert_int_equal(give_call(4, body, 1000, 0), SEMEL_OK);
    assert_null(sml_callee_take(&callee));
    assert_int_equal(record(4)->phase, SML_IN_REFUSED);
    for (int i = 0; i < 3; i++)
        finish(stuck[i], 1);
}

static void stopping_ends_what_waits_and_asks_what_runs(void **state)
{
    (void)state;
    for (uint64_t xid = 1; xid <= 3; xid++)
        assert_int_equal(give_call(xid, "a", 1000, 0), SEMEL_OK);
    struct sml_incoming *running = sml_callee_take(&callee);
    struct sml_incoming *taken = sml_callee_take(&callee);
    assert_true(sml_callee_begin(&callee, running, 0, 0));
    sml_callee_stop(&callee, SEMEL_STOPPED);
    assert_true(atomic_load(&running->cancelled));
    assert_false(sml_callee_begin(&callee, taken, 0, 0));
    expect_verdict(2, SEMEL_NOT_EXECUTED, SEMEL_STOPPED);
    expect_verdict(3, SEMEL_NOT_EXECUTED, SEMEL_STOPPED);
    finish(running, 1);
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH("ready calls are taken in order", ready_calls_are_taken_in_order),
        FRESH("a call past its deadline never begins", a_call_past_its_deadline_never_begins),
        FRESH("a call without a deadline never expires", a_call_without_a_deadline_never_expires),
        FRESH("cancel before start is not executed", cancel_before_start_is_not_executed),
        FRESH("cancel while running asks once", cancel_while_running_asks_the_handler_once),
        FRESH("max_run turns unknown", max_run_turns_unknown_and_discards_the_late_result),
        FRESH("the deadline asks a running handler", the_deadline_asks_a_running_handler_to_stop),
        FRESH("refusing is no verdict", refusing_is_no_verdict_unless_the_caller_wants_one),
        FRESH("stored replies over budget", stored_replies_over_budget_stop_further_starts),
        FRESH("a held record outlives its release",
              a_released_record_outlives_its_release_while_held),
        FRESH("abandoned handlers do not pile up", abandoned_handlers_do_not_pile_up),
        FRESH("nor do the bodies they hold", nor_do_the_bodies_they_hold),
        FRESH("stopping", stopping_ends_what_waits_and_asks_what_runs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
