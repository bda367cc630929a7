/* SPDX-License-Identifier: MIT */
/* The life of a call whose start and verdict are stored, change by change: nothing is said before
 * its time, nothing is lost or leaks, whenever its caller gives it up. */
#include "durable.h"

#include "store_suites.h"

static struct durable d;

static int set_up(void **state)
{
    (void)state;
    durable_init(&d);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    durable_fini(&d);
    return 0;
}

static enum semel_status give_call(uint64_t xid, const char *body)
{
    return durable_call(&d, xid, body, "", 0);
}

static struct sml_incoming *record(uint64_t xid)
{
    return durable_record(&d, xid);
}

/* A resume with the one call in it. */
static enum sml_call_state listed_as(uint64_t xid, const char *body)
{
    struct sml_outstanding entry = { xid, 0, durable_print(body) };
    struct sml_listed listed;

    assert_int_equal(sml_callee_resume(&d.callee, d.callee.hi + 1, &entry, 1, &listed, &d.why),
                     SEMEL_OK);
    return listed.state;
}

/* --- the way ----------------------------------------------------------------------------- */

static void a_start_before_and_a_verdict_after(void **state)
{
    struct sml_change change;
    struct sml_incoming *in;

    (void)state;
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    in = durable_take(&d);
    assert_false(sml_callee_has_change(&d.callee));
    assert_true(sml_callee_start(&d.callee, in, 0));
    assert_int_equal(in->phase, SML_IN_STARTING);
    assert_true(sml_callee_has_urgent_change(&d.callee));
    assert_int_equal(d.callee.durable_hi, 0);
    change = durable_change(&d, SML_CHANGE_START, 1);
    assert_false(sml_callee_has_change(&d.callee));
    assert_int_equal(in->phase, SML_IN_STARTING);
    durable_commit(&d, &change);
    assert_int_equal(in->phase, SML_IN_STARTED);
    assert_int_equal(in->row, 1);
    assert_int_equal(d.callee.durable_hi, 1);
    assert_true(sml_callee_begin(&d.callee, in, 0, 0));
    assert_memory_equal(in->body, "a", 1);
    assert_true(durable_finish(&d, in, "ra"));
    assert_int_equal(in->phase, SML_IN_STORING);
    durable_silent(&d);
    change = durable_change(&d, SML_CHANGE_END, 1);
    durable_silent(&d);
    durable_commit(&d, &change);
    durable_replied(&d, 1, SEMEL_VALUE, SEMEL_OK, SML_REPLY_RECORDED);
    assert_false(sml_callee_has_change(&d.callee));
    assert_int_equal(d.callee.bytes_in, 0);
    assert_int_equal(d.callee.bytes_stored, 2);
    durable_ack(&d, 1);
    assert_int_equal(d.callee.bytes_stored, 0);
    assert_false(sml_callee_has_urgent_change(&d.callee));
    durable_stored(&d, SML_CHANGE_FORGET, 1);
    assert_true(sml_callee_base_rises(&d.callee));
}

static void a_verdict_together_with_its_effect(void **state)
{
    struct sml_incoming *in;
    struct sml_change change;

    (void)state;
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    in = durable_take(&d);
    assert_true(sml_callee_begin(&d.callee, in, 0, 0));
    durable_decide(&d, in, "ra");
    assert_int_equal(in->phase, SML_IN_STORING);
    assert_false(sml_callee_has_change(&d.callee)); /* the store has it in hand */
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    assert_int_equal(listed_as(1, "a"), SML_STATE_RUNNING);
    durable_silent(&d);
    change = (struct sml_change){ SML_CHANGE_END, in };
    durable_commit(&d, &change);
    durable_replied(&d, 1, SEMEL_VALUE, SEMEL_OK, SML_REPLY_RECORDED);
    assert_int_equal(d.callee.bytes_in, 0);
}

static void what_needs_no_record_is_told_without(void **state)
{
    struct sml_incoming *in;

    (void)state;
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    in = durable_take(&d);
    assert_true(sml_callee_begin(&d.callee, in, 0, 0));
    assert_true(durable_finish(&d, in, "ra"));
    durable_replied(&d, 1, SEMEL_VALUE, SEMEL_OK, 0);
    assert_int_equal(give_call(2, "b"), SEMEL_OK);
    sml_callee_reject(&d.callee, durable_take(&d), SEMEL_NO_METHOD, "no such method");
    durable_replied(&d, 2, SEMEL_NOT_EXECUTED, SEMEL_NO_METHOD, 0);
    assert_int_equal(give_call(3, "c"), SEMEL_OK);
    sml_callee_refuse(&d.callee, durable_take(&d), 20);
    assert_int_equal(durable_pull(&d).type, SML_BUSY);
    for (uint64_t xid = 1; xid <= 3; xid++)
        durable_ack(&d, xid);
    assert_false(sml_callee_has_change(&d.callee));
    assert_int_equal(d.callee.durable_hi, 0);
}

/* Whoever asks for it while its record is under way is attached to it, as to a call that runs. */
static void nothing_is_said_of_what_is_under_way(void **state)
{
    struct sml_incoming *in;
    struct sml_change change;

    (void)state;
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    in = durable_take(&d);
    assert_true(sml_callee_start(&d.callee, in, 0));
    for (int end = 0; end < 2; end++) {
        for (int pulled = 0; pulled < 2; pulled++) {
            if (pulled)
                change = durable_change(&d, end ? SML_CHANGE_END : SML_CHANGE_START, 1);
            assert_int_equal(give_call(1, "a"), SEMEL_OK);
            assert_int_equal(give_call(1, "b"), SEMEL_FALSE_RETRY);
            assert_int_equal(listed_as(1, "a"), SML_STATE_RUNNING);
            sml_callee_down(&d.callee);
            durable_silent(&d);
            assert_null(sml_callee_take(&d.callee));
        }
        durable_commit(&d, &change);
        if (end)
            break;
        assert_int_equal(listed_as(1, "a"), SML_STATE_RUNNING);
        assert_true(sml_callee_begin(&d.callee, in, 0, 0));
        assert_true(durable_finish(&d, in, "ra"));
    }
    assert_int_equal(listed_as(1, "a"), SML_STATE_DONE);
    durable_replied(&d, 1, SEMEL_VALUE, SEMEL_OK, SML_REPLY_RECORDED);
}

static void what_was_not_stored_comes_again(void **state)
{
    struct sml_incoming *in;
    struct sml_change change;

    (void)state;
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    in = durable_take(&d);
    assert_true(sml_callee_start(&d.callee, in, 0));
    for (int i = 0; i < 3; i++) {
        change = durable_change(&d, SML_CHANGE_START, 1);
        durable_fail(&d, &change);
        assert_int_equal(in->phase, SML_IN_STARTING);
        assert_int_equal(in->row, 0);
    }
    durable_stored(&d, SML_CHANGE_START, 1);
    assert_true(sml_callee_begin(&d.callee, in, 0, 0));
    assert_true(durable_finish(&d, in, "ra"));
    for (int i = 0; i < 3; i++) {
        change = durable_change(&d, SML_CHANGE_END, 1);
        durable_fail(&d, &change);
        durable_silent(&d);
    }
    durable_stored(&d, SML_CHANGE_END, 1);
    durable_replied(&d, 1, SEMEL_VALUE, SEMEL_OK, SML_REPLY_RECORDED);
    durable_ack(&d, 1);
    for (int i = 0; i < 3; i++) {
        change = durable_change(&d, SML_CHANGE_FORGET, 1);
        durable_fail(&d, &change);
        sml_callee_base_recorded(&d.callee, false);
        assert_int_equal(d.callee.base, 0);
        assert_false(sml_callee_base_rises(&d.callee));
    }
    durable_stored(&d, SML_CHANGE_FORGET, 1);
    sml_callee_base_recorded(&d.callee, true);
    assert_int_equal(d.callee.base, 1);
}

enum give_up { CANCELLED, EXPIRED, RELEASED };

/* While the store refuses: it need not wait until the store takes something again. */
static void a_start_that_nobody_wants_is_not_tried_again(void **state)
{
    for (int i = 0; i < 12; i++) {
        enum give_up how = (enum give_up)(i % 3);
        const char *key = i / 3 % 2 ? "key" : "";
        bool under_way = i / 6;
        struct sml_change change;
        struct sml_incoming *in;

        assert_int_equal(durable_call(&d, 1, "a", key, 0), SEMEL_OK);
        in = durable_take(&d);
        assert_true(sml_callee_start(&d.callee, in, 0));
        change = durable_change(&d, SML_CHANGE_START, 1);
        if (!under_way)
            durable_fail(&d, &change);
        if (how == CANCELLED)
            durable_cancel(&d, 1);
        else if (how == EXPIRED)
            sml_callee_tick(&d.callee, 2 * SML_SECOND);
        else
            durable_ack(&d, 1);
        durable_silent(&d); /* its start may be stored */
        if (!under_way)
            change = durable_change(&d, SML_CHANGE_START, 1);
        assert_false(sml_callee_recorded(&d.callee, &change, 0, false));
        if (how != RELEASED)
            durable_replied(&d, 1, SEMEL_NOT_EXECUTED,
                            how == CANCELLED ? SEMEL_CANCELLED : SEMEL_EXPIRED, 0);
        assert_int_equal(d.callee.held, 0);
        assert_false(sml_callee_has_change(&d.callee));
        tear_down(state);
        set_up(state);
    }
}

static void what_somebody_waits_for_comes_first(void **state)
{
    (void)state;
    for (uint64_t xid = 1; xid <= 3; xid++)
        assert_int_equal(give_call(xid, "a"), SEMEL_OK);
    assert_true(durable_finish(&d, durable_running(&d), "r1"));
    durable_stored(&d, SML_CHANGE_END, 1);
    durable_ack(&d, 1);
    assert_false(sml_callee_has_urgent_change(&d.callee));
    struct sml_incoming *second = durable_take(&d), *third = durable_take(&d);
    assert_true(sml_callee_start(&d.callee, third, 0));
    assert_true(sml_callee_start(&d.callee, second, 0));
    struct sml_change changes[] = { durable_change(&d, SML_CHANGE_START, 3),
                                    durable_change(&d, SML_CHANGE_START, 2),
                                    durable_change(&d, SML_CHANGE_FORGET, 1) };
    for (int i = 0; i < 3; i++)
        durable_commit(&d, &changes[i]);
    assert_true(sml_callee_begin(&d.callee, second, 0, 0));
    assert_true(sml_callee_begin(&d.callee, third, 0, 0));
    durable_finish(&d, second, "");
    durable_finish(&d, third, "");
}

/* Otherwise a store that is always busy would never forget anything. */
static void a_window_of_released_calls_is_forgotten_first(void **state)
{
    struct sml_incoming *in;

    (void)state;
    for (uint64_t xid = 1; xid <= WINDOW; xid++) {
        assert_int_equal(give_call(xid, "a"), SEMEL_OK);
        durable_finish(&d, durable_running(&d), "");
        durable_stored(&d, SML_CHANGE_END, xid);
        durable_ack(&d, xid);
    }
    assert_int_equal(give_call(WINDOW + 1, "a"), SEMEL_OK);
    in = durable_take(&d);
    assert_true(sml_callee_start(&d.callee, in, 0));
    for (int i = 0; i < 3; i++) { /* one that comes back counts again */
        struct sml_change change = durable_change(&d, SML_CHANGE_FORGET, 1);

        durable_fail(&d, &change);
        sml_callee_base_recorded(&d.callee, false);
    }
    durable_stored(&d, SML_CHANGE_FORGET, 1);
    durable_stored(&d, SML_CHANGE_START, WINDOW + 1);
    durable_stored(&d, SML_CHANGE_FORGET, 2);
    sml_callee_base_recorded(&d.callee, true);
    assert_true(sml_callee_begin(&d.callee, in, 0, 0));
    durable_finish(&d, in, "");
}

/* --- transactions that are gone ---------------------------------------------------------- */

static struct sml_incoming *running(const char *body)
{
    struct sml_incoming *in;

    assert_int_equal(durable_call(&d, d.callee.hi + 1, body, "", 0), SEMEL_OK);
    in = durable_take(&d);
    assert_true(sml_callee_begin(&d.callee, in, 0, 0));
    return in;
}

static struct sml_incoming *decided(const char *body)
{
    struct sml_incoming *in = running(body);

    durable_decide(&d, in, "verdict");
    return in;
}

static void a_transaction_that_is_gone_runs_again(void **state)
{
    char body[4001];
    struct sml_incoming *in;
    struct sml_change change;

    (void)state;
    memset(body, 'b', 4000); /* with memory of its own */
    body[4000] = '\0';
    in = decided(body);
    assert_int_equal(d.callee.bytes_stored, 7);
    for (int i = 0; i < 3; i++) {
        sml_callee_retry(&d.callee, in);
        assert_int_equal(in->phase, SML_IN_TAKEN);
        assert_int_equal(d.callee.bytes_stored, 0);
        assert_int_equal(d.callee.bytes_in, 4000);
        assert_memory_equal(in->body, body, 4000);
        durable_silent(&d);
        assert_true(sml_callee_begin(&d.callee, in, 0, 0));
        durable_decide(&d, in, "verdict");
    }
    change = (struct sml_change){ SML_CHANGE_END, in };
    durable_commit(&d, &change);
    durable_replied(&d, 1, SEMEL_VALUE, SEMEL_OK, SML_REPLY_RECORDED);
}

static void a_transaction_that_is_gone_may_be_too_late(void **state)
{
    struct sml_incoming *in = decided("a");

    (void)state;
    assert_int_equal(sml_callee_timeout(&d.callee), SML_NEVER);
    sml_callee_retry(&d.callee, in);
    assert_int_equal(sml_callee_timeout(&d.callee), SML_SECOND);
    sml_callee_tick(&d.callee, SML_SECOND);
    assert_false(sml_callee_begin(&d.callee, in, 0, SML_SECOND));
    durable_replied(&d, 1, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED, 0);
}

static void a_transaction_that_is_gone_may_have_nobody_waiting(void **state)
{
    struct sml_incoming *in = decided("a");

    (void)state;
    durable_ack(&d, 1);
    assert_int_equal(d.callee.bytes_stored, 0);
    sml_callee_retry(&d.callee, in);
    assert_int_equal(sml_callee_timeout(&d.callee), SML_NEVER); /* it has no more time to keep */
    sml_callee_tick(&d.callee, 2 * SML_SECOND);
    durable_silent(&d);
    assert_false(sml_callee_begin(&d.callee, in, 0, 0));
    assert_false(sml_callee_has_change(&d.callee));
}

/* Cancelled while it ran, or while its transaction was under way. What is committed stands, for
 * what is lost it was in time. */
static void a_transaction_that_is_gone_may_be_cancelled(void **state)
{
    for (int i = 0; i < 4; i++) {
        bool late = i % 2, committed = i / 2;
        struct sml_incoming *in = late ? decided("a") : running("a");
        struct sml_change change = { SML_CHANGE_END, in };

        durable_cancel(&d, 1);
        if (!late)
            durable_decide(&d, in, "verdict");
        durable_silent(&d);
        if (committed) {
            durable_commit(&d, &change);
            durable_replied(&d, 1, SEMEL_VALUE, SEMEL_OK, SML_REPLY_RECORDED);
        } else {
            sml_callee_retry(&d.callee, in);
            durable_silent(&d);
            assert_false(sml_callee_begin(&d.callee, in, 0, 0));
            durable_replied(&d, 1, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED, 0);
            assert_int_equal(d.callee.bytes_stored, strlen(semel_status_text(SEMEL_CANCELLED)));
        }
        assert_int_equal(d.callee.held, 0);
        assert_int_equal(d.callee.bytes_in, 0);
        assert_null(sml_callee_next_cancelled(&d.callee));
        tear_down(state);
        set_up(state);
    }
}

/* Its transaction was lost before it had a verdict. */
static void a_call_that_is_given_back_runs_again(void **state)
{
    struct sml_incoming *in = running("a");

    (void)state;
    sml_callee_give_back(&d.callee, in);
    assert_int_equal(in->phase, SML_IN_TAKEN);
    assert_memory_equal(in->body, "a", 1);
    assert_true(sml_callee_begin(&d.callee, in, 0, 0));
    sml_callee_give_back(&d.callee, in);
    sml_callee_tick(&d.callee, SML_SECOND);
    durable_replied(&d, 1, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED, 0);
    assert_false(sml_callee_begin(&d.callee, in, 0, SML_SECOND));
}

static void a_call_that_is_given_back_may_have_nobody_waiting(void **state)
{
    struct sml_incoming *in = running("a");

    (void)state;
    durable_ack(&d, 1);
    sml_callee_give_back(&d.callee, in);
    assert_int_equal(sml_callee_timeout(&d.callee), SML_NEVER);
    sml_callee_tick(&d.callee, 2 * SML_SECOND);
    durable_silent(&d);
    assert_false(sml_callee_begin(&d.callee, in, 0, 0));
    assert_int_equal(d.callee.held, 0);
    assert_false(sml_callee_has_change(&d.callee));
}

/* Its caller cancelled it: then it neither runs again nor is put off. A server that stops cancels,
 * too, but for its own reasons. */
static void a_call_that_is_given_back_may_be_cancelled(void **state)
{
    for (int i = 0; i < 3; i++) {
        struct sml_incoming *in = running("a");

        if (i < 2)
            durable_cancel(&d, 1);
        else
            sml_callee_stop(&d.callee, SEMEL_STOPPED);
        sml_callee_give_back(&d.callee, in);
        assert_true(atomic_load(&in->cancelled));
        if (i == 0)
            assert_false(sml_callee_begin(&d.callee, in, 0, 0));
        else if (i == 1)
            sml_callee_refuse(&d.callee, in, 20);
        if (i < 2) {
            durable_replied(&d, 1, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED, 0);
        } else {
            sml_callee_postpone_to_restart(&d.callee, in);
            durable_silent(&d);
        }
        assert_int_equal(d.callee.held, 0);
        tear_down(state);
        set_up(state);
    }
}

/* --- keys -------------------------------------------------------------------------------- */

static struct sml_change under_way;

static struct sml_incoming *asked(const char *key, uint8_t flags)
{
    struct sml_incoming *in;

    assert_int_equal(durable_call(&d, 1, "a", key, flags), SEMEL_OK);
    in = durable_take(&d);
    assert_string_equal(in->key, key);
    assert_true(sml_callee_start(&d.callee, in, 0));
    under_way = durable_change(&d, SML_CHANGE_START, 1);
    return in;
}

static void answer(struct sml_incoming *in, enum semel_outcome outcome, enum semel_status status,
                   bool proven)
{
    uint8_t *reply;
    struct sml_verdict verdict = durable_value(&d, "as before", &reply);

    verdict.outcome = outcome;
    verdict.status = status;
    if (outcome == SEMEL_NOT_EXECUTED)
        verdict.body.size = 0;
    sml_callee_answer(&d.callee, in, &verdict, reply, proven);
}

static void a_key_that_was_used_has_its_verdict(void **state)
{
    struct sml_incoming *in = asked("key", 0);

    (void)state;
    durable_cancel(&d, 1); /* too late to matter: it is known what happened */
    answer(in, SEMEL_VALUE, SEMEL_OK, false);
    assert_true(in->answered);
    assert_int_equal(d.callee.held, 0);
    assert_int_equal(d.callee.bytes_in, 0);
    durable_silent(&d);
    durable_stored(&d, SML_CHANGE_END, 1);
    durable_replied(&d, 1, SEMEL_VALUE, SEMEL_OK, SML_REPLY_RECORDED);
    durable_ack(&d, 1);
    durable_forgotten(&d, true, SML_CHANGE_FORGET);
}

static void a_key_of_another_call_proves_that_nothing_was_done(void **state)
{
    struct sml_incoming *in = asked("key", 0);

    (void)state;
    answer(in, SEMEL_NOT_EXECUTED, SEMEL_KEY_MISMATCH, true);
    durable_stored(&d, SML_CHANGE_END, 1);
    durable_replied(&d, 1, SEMEL_NOT_EXECUTED, SEMEL_KEY_MISMATCH,
                    SML_REPLY_RECORDED | SML_REPLY_PROVEN);
}

static void an_answer_may_come_too_late(void **state)
{
    struct sml_incoming *in = asked("key", 0);

    (void)state;
    durable_ack(&d, 1);
    answer(in, SEMEL_VALUE, SEMEL_OK, false);
    durable_forgotten(&d, false, SML_CHANGE_FORGET);
    tear_down(state);
    set_up(state);
    in = asked("key", 0);
    answer(in, SEMEL_VALUE, SEMEL_OK, false);
    durable_ack(&d, 1); /* while its verdict waits to be stored */
    durable_forgotten(&d, true, SML_CHANGE_LEAVE);
}

static void a_key_in_use_is_busy(void **state)
{
    struct sml_incoming *in = asked("key", 0);
    struct sml_frame frame;

    (void)state;
    sml_callee_postpone(&d.callee, in, 20);
    assert_int_equal(record(1)->phase, SML_IN_REFUSED);
    assert_int_equal(d.callee.held, 0);
    frame = durable_pull(&d);
    assert_int_equal(frame.type, SML_BUSY);
    assert_int_equal(frame.u.busy_delay_ms, 20);
    assert_false(sml_callee_has_change(&d.callee));
    for (uint32_t delay = 40; delay < 2500; delay *= 2) { /* it comes again, ever more rarely */
        in = asked("key", 0);
        sml_callee_postpone(&d.callee, in, 20);
        frame = durable_pull(&d);
        assert_int_equal(frame.u.busy_delay_ms, delay < 1000 ? delay : 1000);
    }
    in = asked("key", 0);
    sml_callee_postpone(&d.callee, in, 1500);
    assert_int_equal(durable_pull(&d).u.busy_delay_ms, 1500);
    in = asked("key", 0);
    durable_commit(&d, &under_way);
    assert_true(sml_callee_begin(&d.callee, in, 0, 0));
    durable_finish(&d, in, "ra");
}

static void a_key_in_use_ends_what_will_not_wait(void **state)
{
    struct sml_incoming *in = asked("key", SML_CALL_REFUSE_WHEN_FULL);

    sml_callee_postpone(&d.callee, in, 20);
    durable_replied(&d, 1, SEMEL_NOT_EXECUTED, SEMEL_OVERLOADED, 0);
    tear_down(state);
    set_up(state);
    in = asked("key", 0);
    durable_cancel(&d, 1);
    sml_callee_postpone(&d.callee, in, 20);
    durable_replied(&d, 1, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED, 0);
    assert_int_equal(d.callee.held, 0);
    tear_down(state);
    set_up(state);
    in = asked("key", 0);
    durable_ack(&d, 1);
    sml_callee_postpone(&d.callee, in, 20);
    durable_forgotten(&d, false, SML_CHANGE_FORGET);
}

/* --- base and stragglers ----------------------------------------------------------------- */

static void expect_stragglers(uint32_t count, const uint64_t *xids)
{
    uint8_t bytes[8 * WINDOW];

    assert_int_equal(sml_callee_stragglers(&d.callee, bytes, WINDOW), count);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(sml_load64(bytes + 8 * i), xids[i]);
    assert_int_equal(sml_callee_stragglers(&d.callee, bytes, 0), count);
}

/* 1 runs without a record, 2 is running and stored, 3 waits, 4 is forgotten, 5 comes after it. */
static void stragglers_are_open_without_a_record_up_to_base(void **state)
{
    struct sml_incoming *in[5];
    struct sml_change change;

    (void)state;
    for (uint64_t xid = 1; xid <= 4; xid++)
        assert_int_equal(give_call(xid, "a"), SEMEL_OK);
    in[1] = durable_take(&d);
    assert_true(sml_callee_begin(&d.callee, in[1], 0, 0));
    in[2] = durable_running(&d);
    in[3] = durable_take(&d);
    in[4] = durable_running(&d);
    durable_finish(&d, in[4], "");
    durable_stored(&d, SML_CHANGE_END, 4);
    expect_stragglers(0, NULL);
    durable_ack(&d, 4);
    assert_int_equal(give_call(5, "a"), SEMEL_OK);
    change = durable_change(&d, SML_CHANGE_FORGET, 4);
    expect_stragglers(2, (uint64_t[]){ 1, 3 });
    durable_fail(&d, &change);
    sml_callee_base_recorded(&d.callee, false);
    expect_stragglers(0, NULL);
    /* Its start is stored in the same transaction. */
    assert_true(sml_callee_start(&d.callee, in[3], 0));
    struct sml_change start = durable_change(&d, SML_CHANGE_START, 3);
    change = durable_change(&d, SML_CHANGE_FORGET, 4);
    expect_stragglers(1, (uint64_t[]){ 1 });
    durable_commit(&d, &start);
    durable_commit(&d, &change);
    sml_callee_base_recorded(&d.callee, true);
    assert_int_equal(d.callee.base, 4);
    expect_stragglers(1, (uint64_t[]){ 1 });
    durable_finish(&d, in[1], ""); /* open until its caller has released it */
    expect_stragglers(1, (uint64_t[]){ 1 });
    durable_ack(&d, 1);
    expect_stragglers(0, NULL);
    durable_finish(&d, in[2], "");
    assert_true(sml_callee_begin(&d.callee, in[3], 0, 0));
    durable_finish(&d, in[3], "");
}

/* Its key may have been used, or be in use: then this transaction brings it no record. */
static void a_start_with_a_key_is_a_straggler_until_it_is_stored(void **state)
{
    static const char *const keys[] = { "", "key" };

    for (int keyed = 0; keyed < 2; keyed++) {
        struct sml_incoming *first;
        struct sml_change start, forget;

        assert_int_equal(durable_call(&d, 1, "a", keys[keyed], 0), SEMEL_OK);
        first = durable_take(&d);
        assert_int_equal(give_call(2, "b"), SEMEL_OK);
        durable_finish(&d, durable_running(&d), "");
        durable_stored(&d, SML_CHANGE_END, 2);
        durable_ack(&d, 2);
        assert_true(sml_callee_start(&d.callee, first, 0));
        start = durable_change(&d, SML_CHANGE_START, 1);
        forget = durable_change(&d, SML_CHANGE_FORGET, 2);
        expect_stragglers(keyed ? 1 : 0, (uint64_t[]){ 1 });
        durable_commit(&d, &start);
        expect_stragglers(0, NULL);
        durable_commit(&d, &forget);
        sml_callee_base_recorded(&d.callee, true);
        assert_true(sml_callee_begin(&d.callee, first, 0, 0));
        durable_finish(&d, first, "");
        tear_down(state);
        set_up(state);
    }
}

/* Its transaction is another one, and may yet fail. */
static void what_is_decided_is_a_straggler_until_it_is_stored(void **state)
{
    struct sml_incoming *in = decided("a");

    (void)state;
    assert_int_equal(give_call(2, "b"), SEMEL_OK);
    durable_finish(&d, durable_running(&d), "");
    durable_stored(&d, SML_CHANGE_END, 2);
    durable_ack(&d, 2);
    struct sml_change change = durable_change(&d, SML_CHANGE_FORGET, 2);
    expect_stragglers(1, (uint64_t[]){ 1 });
    durable_commit(&d, &change);
    sml_callee_base_recorded(&d.callee, true);
    sml_callee_retry(&d.callee, in);
    expect_stragglers(1, (uint64_t[]){ 1 });
    assert_true(sml_callee_begin(&d.callee, in, 0, 0));
    durable_decide(&d, in, "again");
    change = (struct sml_change){ SML_CHANGE_END, in };
    durable_commit(&d, &change);
    expect_stragglers(0, NULL);
}

/* A call that the session's record names a straggler has run since: once it is forgotten, that
 * record must not say so any more, although base does not rise. */
static void no_record_is_forgotten_behind_the_sessions_back(void **state)
{
    struct sml_incoming *first, *second;

    (void)state;
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    first = durable_take(&d);
    assert_int_equal(give_call(2, "b"), SEMEL_OK);
    second = durable_running(&d);
    durable_finish(&d, second, "");
    durable_stored(&d, SML_CHANGE_END, 2);
    durable_ack(&d, 2);
    durable_stored(&d, SML_CHANGE_FORGET, 2);
    expect_stragglers(1, (uint64_t[]){ 1 });
    sml_callee_base_recorded(&d.callee, true);
    assert_int_equal(d.callee.base, 2);
    assert_true(sml_callee_start(&d.callee, first, 0));
    durable_stored(&d, SML_CHANGE_START, 1);
    assert_true(sml_callee_begin(&d.callee, first, 0, 0));
    durable_finish(&d, first, "");
    durable_stored(&d, SML_CHANGE_END, 1);
    durable_ack(&d, 1);
    assert_false(sml_callee_base_rises(&d.callee));
    struct sml_change change = durable_change(&d, SML_CHANGE_FORGET, 1);
    assert_true(sml_callee_base_rises(&d.callee));
    expect_stragglers(0, NULL);
    durable_fail(&d, &change);
    sml_callee_base_recorded(&d.callee, false);
    assert_false(sml_callee_base_rises(&d.callee));
    durable_stored(&d, SML_CHANGE_FORGET, 1);
    assert_true(sml_callee_base_rises(&d.callee));
    sml_callee_base_recorded(&d.callee, true);
    assert_false(sml_callee_base_rises(&d.callee));
    assert_int_equal(d.callee.base, 2);
}

/* --- the server stops -------------------------------------------------------------------- */

static void what_waits_when_the_server_stops_waits_for_the_next(void **state)
{
    struct sml_incoming *running, *started, *taken;

    (void)state;
    for (uint64_t xid = 1; xid <= 4; xid++)
        assert_int_equal(give_call(xid, "a"), SEMEL_OK);
    running = durable_running(&d);
    started = durable_started(&d);
    taken = durable_take(&d);
    sml_callee_stop(&d.callee, SEMEL_STOPPED);
    assert_ptr_equal(sml_callee_next_cancelled(&d.callee), running);
    assert_null(sml_callee_next_cancelled(&d.callee));
    durable_silent(&d); /* nobody is told that his call is not executed */
    sml_callee_postpone_to_restart(&d.callee, taken);
    sml_callee_postpone_to_restart(&d.callee, started);
    assert_int_equal(d.callee.held, 1);
    durable_cancel(&d, 2); /* the next server will be asked again */
    assert_int_equal(sml_callee_timeout(&d.callee), SML_SECOND);
    sml_callee_tick(&d.callee, SML_SECOND);
    struct sml_change change = durable_change(&d, SML_CHANGE_AGAIN, 2);
    durable_cancel(&d, 2);
    durable_fail(&d, &change);
    durable_stored(&d, SML_CHANGE_AGAIN, 2);
    assert_int_equal(started->phase, SML_IN_UNSTARTING);
    assert_false(sml_callee_has_change(&d.callee));
    assert_true(durable_finish(&d, running, "r1"));
    durable_stored(&d, SML_CHANGE_END, 1);
}

/* Whether a server may end with what is left in a session: while its client is there, or not. */
static void expect_may_leave(bool connected, bool alone)
{
    assert_int_equal(sml_callee_may_leave(&d.callee, true), connected);
    assert_int_equal(sml_callee_may_leave(&d.callee, false), alone);
}

static void a_server_may_leave_what_the_next_one_finds(void **state)
{
    struct sml_outstanding list = { 1, 0, durable_print("a") };
    struct sml_listed listed;
    struct sml_incoming *in;

    (void)state;
    expect_may_leave(true, true);
    assert_int_equal(sml_callee_resume(&d.callee, 2, &list, 1, &listed, &d.why), SEMEL_OK);
    expect_may_leave(true, true); /* it will come again */
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    expect_may_leave(false, false);
    sml_callee_refuse(&d.callee, durable_take(&d), 20);
    expect_may_leave(true, true);
    assert_int_equal(durable_pull(&d).type, SML_BUSY);
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    in = durable_started(&d);
    expect_may_leave(false, false);
    assert_true(sml_callee_begin(&d.callee, in, 0, 0));
    expect_may_leave(false, false);
    durable_finish(&d, in, "ra");
    expect_may_leave(false, false);
    durable_stored(&d, SML_CHANGE_END, 1);
    expect_may_leave(false, true); /* there is a verdict, for whenever it is asked for */
    durable_replied(&d, 1, SEMEL_VALUE, SEMEL_OK, SML_REPLY_RECORDED);
    durable_ack(&d, 1);
    expect_may_leave(true, true);
}

/* Nothing begins as long as nobody fetches what is stored: if nobody is there, that is for the next
 * server to see to. */
static void a_server_may_leave_what_stored_replies_hold_back(void **state)
{
    struct sml_incoming *first, *started, *taken, *running;

    (void)state;
    d.callee.limits.session_bytes = 3;
    for (uint64_t xid = 1; xid <= 4; xid++)
        assert_int_equal(give_call(xid, ""), SEMEL_OK);
    first = durable_running(&d);
    started = durable_started(&d);
    running = durable_running(&d);
    taken = durable_take(&d);
    durable_finish(&d, first, "four");
    durable_stored(&d, SML_CHANGE_END, 1);
    assert_true(sml_callee_is_stalled(&d.callee));
    expect_may_leave(false, false); /* a handler runs */
    durable_ack(&d, 3);
    expect_may_leave(false, false); /* still */
    durable_finish(&d, running, "");
    expect_may_leave(false, true);
    assert_int_equal(give_call(5, ""), SEMEL_OK);
    expect_may_leave(false, true);
    durable_ack(&d, 1); /* they go on */
    expect_may_leave(false, false);
    assert_true(sml_callee_begin(&d.callee, started, 0, 0));
    durable_finish(&d, started, "");
    sml_callee_refuse(&d.callee, taken, 20);
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH("a start before, a verdict after", a_start_before_and_a_verdict_after),
        FRESH("a verdict together with its effect", a_verdict_together_with_its_effect),
        FRESH("what needs no record is told without", what_needs_no_record_is_told_without),
        FRESH("nothing is said of what is under way", nothing_is_said_of_what_is_under_way),
        FRESH("what was not stored comes again", what_was_not_stored_comes_again),
        FRESH("a start that nobody wants is not tried again",
              a_start_that_nobody_wants_is_not_tried_again),
        FRESH("what somebody waits for comes first", what_somebody_waits_for_comes_first),
        FRESH("a window of released calls is forgotten first",
              a_window_of_released_calls_is_forgotten_first),
        FRESH("a transaction that is gone: runs again", a_transaction_that_is_gone_runs_again),
        FRESH("a transaction that is gone: too late", a_transaction_that_is_gone_may_be_too_late),
        FRESH("a transaction that is gone: nobody waits",
              a_transaction_that_is_gone_may_have_nobody_waiting),
        FRESH("a transaction that is gone: cancelled", a_transaction_that_is_gone_may_be_cancelled),
        FRESH("a call that is given back: runs again", a_call_that_is_given_back_runs_again),
        FRESH("a call that is given back: nobody waits",
              a_call_that_is_given_back_may_have_nobody_waiting),
        FRESH("a call that is given back: cancelled", a_call_that_is_given_back_may_be_cancelled),
        FRESH("a key that was used has its verdict", a_key_that_was_used_has_its_verdict),
        FRESH("a key of another call", a_key_of_another_call_proves_that_nothing_was_done),
        FRESH("an answer may come too late", an_answer_may_come_too_late),
        FRESH("a key in use is busy", a_key_in_use_is_busy),
        FRESH("a key in use ends what will not wait", a_key_in_use_ends_what_will_not_wait),
        FRESH("stragglers are open, without a record, up to base",
              stragglers_are_open_without_a_record_up_to_base),
        FRESH("a start with a key is a straggler until it is stored",
              a_start_with_a_key_is_a_straggler_until_it_is_stored),
        FRESH("what is decided is a straggler until it is stored",
              what_is_decided_is_a_straggler_until_it_is_stored),
        FRESH("no record is forgotten behind the session's back",
              no_record_is_forgotten_behind_the_sessions_back),
        FRESH("what waits when the server stops waits for the next",
              what_waits_when_the_server_stops_waits_for_the_next),
        FRESH("a server may leave what the next one finds",
              a_server_may_leave_what_the_next_one_finds),
        FRESH("a server may leave what stored replies hold back",
              a_server_may_leave_what_stored_replies_hold_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL) + store_releasing() + store_restoring() +
           store_searching();
}
