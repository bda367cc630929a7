/* SPDX-License-Identifier: MIT */
/* Submission, bounds, timers and acknowledgements of the caller. */
#include "fixture.h"

static int set_up(void **state)
{
    struct fixture *f = fixture_new();

    f->link_options.window = 2;
    f->link_options.pending_max = 3;
    fixture_start(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

static void a_full_queue_is_a_status(void **state)
{
    struct fixture *f = *state;
    struct sml_call extra = { .method = "m", .method_bytes = 1, .deadline = SML_NEVER };

    for (int i = 0; i < 3; i++)
        fixture_submit(f, "x");
    assert_int_equal(sml_link_submit(&f->link, &extra, f->now), SEMEL_OVERLOADED);
    assert_int_equal(extra.phase, SML_CALL_NEW);
    fixture_pump(f); /* two have an xid now, one waits */
    assert_int_equal(f->link.caller.pending, 1);
    fixture_submit(f, "x");
    fixture_submit(f, "x");
    assert_int_equal(sml_link_submit(&f->link, &extra, f->now), SEMEL_OVERLOADED);
}

static void a_passed_deadline_is_not_executed(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = calloc(1, sizeof *call);

    call->method = "m";
    call->method_bytes = 1;
    call->deadline = f->now;
    assert_int_equal(sml_link_submit(&f->link, call, f->now), SEMEL_OK);
    fixture_expect(f, call, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED, NULL);
}

static void a_call_never_sent_expires_as_not_executed(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "x");

    f->refuse = true;
    fixture_pass(f, 30 * SML_SECOND - 1);
    assert_null(sml_caller_next_done(&f->link.caller));
    fixture_pass(f, 1);
    fixture_expect(f, call, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED, NULL);
}

static void the_window_holds_and_acks_open_it(void **state)
{
    struct fixture *f = *state;
    struct sml_call *calls[3];

    for (int i = 0; i < 3; i++)
        calls[i] = fixture_submit(f, "x");
    fixture_pump(f);
    assert_int_equal(fixture_callee(f)->hi, 2);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "r");
    fixture_pump(f);
    assert_int_equal(fixture_callee(f)->hi, 2); /* not accepted yet */
    fixture_expect(f, calls[0], SEMEL_VALUE, SEMEL_OK, "r");
    fixture_pump(f); /* the ACK travels with the call it makes room for, without delay */
    assert_int_equal(fixture_callee(f)->hi, 3);
    assert_int_equal(fixture_callee(f)->table.count, 2);
}

static void an_abandoned_call_frees_its_place_before_the_next_goes(void **state)
{
    struct fixture *f = *state;
    struct sml_call *stuck[2], *next;

    fixture_pump(f);
    for (int i = 0; i < 2; i++)
        stuck[i] = fixture_submit(f, "x");
    fixture_pump(f);
    assert_non_null(fixture_callee(f));
    struct sml_incoming *in[2] = { fixture_begin(f), fixture_begin(f) };
    fixture_pass(f, 30 * SML_SECOND);
    fixture_pass(f, SML_SECOND);
    for (int i = 0; i < 2; i++)
        fixture_expect(f, stuck[i], SEMEL_UNKNOWN, SEMEL_DEADLINE, NULL);
    next = fixture_submit(f, "y");
    fixture_pump(f);
    struct sml_incoming *fresh = fixture_begin(f);
    assert_int_equal(fresh->xid, 3);
    fixture_finish(f, fresh, SEMEL_VALUE, "r");
    fixture_pump(f);
    fixture_expect(f, next, SEMEL_VALUE, SEMEL_OK, "r");
    for (int i = 0; i < 2; i++)
        fixture_finish(f, in[i], SEMEL_VALUE, "late");
}

static void a_user_cancel_without_verdict_ends_unknown_after_deadline_and_grace(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "x");
    struct sml_incoming *in;

    fixture_pump(f);
    in = fixture_begin(f);
    sml_caller_cancel(&f->link.caller, call, f->now);
    sml_caller_cancel(&f->link.caller, call, f->now);
    fixture_pump(f);
    assert_true(atomic_load(&in->cancelled));
    fixture_pass(f, 30 * SML_SECOND);
    assert_null(sml_caller_next_done(&f->link.caller));
    fixture_pass(f, SML_SECOND);
    fixture_expect(f, call, SEMEL_UNKNOWN, SEMEL_CANCELLED, NULL);
    fixture_pump(f);
    fixture_finish(f, in, SEMEL_VALUE, "late");
}

/* The callee answers CANCEL, not knowing why it was sent. */
static void the_deadlines_own_cancel_reads_as_expired(void **state)
{
    struct fixture *f = *state;
    struct sml_call *late = fixture_submit(f, "x"), *cancelled = fixture_submit(f, "y");

    fixture_pump(f);
    sml_caller_cancel(&f->link.caller, cancelled, f->now);
    fixture_pass(f, 15 * SML_SECOND);
    fixture_expect(f, cancelled, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED, NULL);
    f->now += 15 * SML_SECOND; /* the callee's timer is later than the CANCEL */
    fixture_pump(f);
    fixture_expect(f, late, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED, NULL);
}

static void refuse_one(struct fixture *f, uint32_t delay_ms)
{
    struct sml_callee *callee = fixture_callee(f);

    sml_callee_refuse(callee, sml_callee_take(callee), delay_ms);
}

static void a_refused_call_that_nobody_takes_again_never_ran(void **state)
{
    struct fixture *f = *state;
    struct sml_call *busy = fixture_submit(f, "x"), *sent = fixture_submit(f, "y");

    fixture_pump(f);
    refuse_one(f, 20);
    fixture_pump(f);
    assert_int_equal(busy->phase, SML_CALL_BUSY);
    f->refuse = true;
    fixture_cut(f);
    fixture_pass(f, 30 * SML_SECOND);
    assert_null(sml_caller_next_done(&f->link.caller));
    fixture_pass(f, SML_SECOND);
    /* Both passed their deadlines while nobody was there; about one of them nothing is in doubt. */
    for (int i = 0; i < 2; i++) {
        struct sml_call *first = SML_CONTAINER(f->link.caller.done.next, struct sml_call, link);

        if (first == busy)
            fixture_expect(f, busy, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED, NULL);
        else
            fixture_expect(f, sent, SEMEL_UNKNOWN, SEMEL_DEADLINE, NULL);
    }
}

static void a_deadline_passed_while_disconnected_still_finds_its_verdict(void **state)
{
    struct fixture *f = *state;
    struct sml_call *waiting = fixture_submit(f, "x"), *running = fixture_submit(f, "y");
    struct sml_incoming *in;

    fixture_pump(f);
    refuse_one(f, 20);
    in = fixture_begin(f);
    f->refuse = true;
    fixture_cut(f);
    fixture_pass(f, 30 * SML_SECOND);
    f->refuse = false;
    f->link.next_attempt = f->now;
    fixture_finish(f, in, SEMEL_VALUE, "within the grace");
    fixture_pump(f);
    fixture_expect(f, running, SEMEL_VALUE, SEMEL_OK, "within the grace");
    fixture_expect(f, waiting, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED, NULL);
}

static void a_refused_call_survives_a_resume(void **state)
{
    struct fixture *f = *state;
    struct sml_call *told = fixture_submit(f, "x"), *untold = fixture_submit(f, "y");

    fixture_pump(f);
    refuse_one(f, 500);
    fixture_pump(f);
    refuse_one(f, 500); /* this BUSY is lost with the connection */
    fixture_cut(f);
    fixture_pump(f);
    assert_int_equal(f->link.state, SML_LINK_UP);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "at once");
    fixture_pump(f);
    fixture_expect(f, untold, SEMEL_VALUE, SEMEL_OK, "at once");
    fixture_pass(f, 499 * SML_MS);
    assert_null(fixture_begin(f));
    fixture_pass(f, SML_MS);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "after the delay");
    fixture_pump(f);
    fixture_expect(f, told, SEMEL_VALUE, SEMEL_OK, "after the delay");
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH("a full queue is a status", a_full_queue_is_a_status),
        FRESH("a passed deadline is not executed", a_passed_deadline_is_not_executed),
        FRESH("a call never sent expires as not executed",
              a_call_never_sent_expires_as_not_executed),
        FRESH("S16 window: it holds, and acknowledgements open it",
              the_window_holds_and_acks_open_it),
        FRESH("an abandoned call frees its place",
              an_abandoned_call_frees_its_place_before_the_next_goes),
        FRESH("a user's cancel without a verdict",
              a_user_cancel_without_verdict_ends_unknown_after_deadline_and_grace),
        FRESH("the deadline's own CANCEL reads as expired",
              the_deadlines_own_cancel_reads_as_expired),
        FRESH("a refused call that nobody takes again never ran",
              a_refused_call_that_nobody_takes_again_never_ran),
        FRESH("M12 per-call deadline: passed while disconnected",
              a_deadline_passed_while_disconnected_still_finds_its_verdict),
        FRESH("a refused call survives a resume", a_refused_call_survives_a_resume),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
