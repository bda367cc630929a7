/* SPDX-License-Identifier: MIT */
/* A callee made again from its records: what its caller finds, and what it may no more ask for. */
#include "durable.h"

#include "store_suites.h"

static struct durable d;

static int set_up(void **state)
{
    (void)state;
    durable_init(&d);
    d.rows = 100; /* beyond those that the tests give themselves */
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    durable_fini(&d);
    return 0;
}

static struct sml_incoming *record(uint64_t xid)
{
    return durable_record(&d, xid);
}

/* --- what was stored --------------------------------------------------------------------- */

static uint8_t straggler_bytes[8 * WINDOW];

static struct sml_session_record session_of(uint64_t base, uint32_t count, const uint64_t *xids)
{
    for (uint32_t i = 0; i < count; i++)
        sml_store64(straggler_bytes + 8 * i, xids[i]);
    return (struct sml_session_record){
        .base = base, .window = WINDOW, .straggler_count = count, .stragglers = straggler_bytes
    };
}

static void restore_session(uint64_t base, uint32_t count, const uint64_t *xids)
{
    struct sml_session_record record = session_of(base, count, xids);

    assert_true(sml_callee_restore(&d.callee, &record));
}

static struct sml_call_record call_of(uint64_t xid, enum sml_call_record_state state)
{
    struct sml_call_record record = { .session = 1,
                                      .xid = xid,
                                      .state = state,
                                      .fingerprint = durable_print("a"),
                                      .method = { "m", 1 } };

    if (state == SML_CALL_ENDED)
        record.verdict = (struct sml_verdict){ .outcome = SEMEL_FAILURE,
                                               .status = SEMEL_FAILED,
                                               .code = 9,
                                               .text = semel_bytes_text("no"),
                                               .detail = semel_bytes_text("det"),
                                               .trace = semel_bytes_text("trc"),
                                               .body = semel_bytes_text("body") };
    return record;
}

static struct sml_incoming *restore(const struct sml_call_record *record, uint64_t row)
{
    const char *why = "untouched";
    struct sml_incoming *in = sml_callee_restore_call(&d.callee, row, record, &why);

    assert_non_null(in);
    assert_null(why);
    return in;
}

static struct sml_incoming *restore_state(uint64_t xid, enum sml_call_record_state state)
{
    struct sml_call_record record = call_of(xid, state);

    return restore(&record, xid + 10);
}

static enum semel_status resume(uint64_t next, const struct sml_outstanding *list, uint32_t count,
                                struct sml_listed *states)
{
    return sml_callee_resume(&d.callee, next, list, count, states, &d.why);
}

static struct sml_outstanding open_call(uint64_t xid)
{
    return (struct sml_outstanding){ xid, 0, durable_print("a") };
}

/* --- records ----------------------------------------------------------------------------- */

static void expect_all_restored(struct sml_incoming *const in[3])
{
    assert_int_equal(d.callee.base, 5);
    assert_int_equal(d.callee.base_pending, 5);
    assert_int_equal(d.callee.hi, 7);
    assert_int_equal(d.callee.durable_hi, 7);
    assert_int_equal(d.callee.table.count, 4);
    assert_int_equal(d.callee.held, 1);
    assert_int_equal(d.callee.bytes_in, 0);
    assert_int_equal(d.callee.bytes_stored, 12);
    assert_int_equal(in[0]->phase, SML_IN_RUNNING);
    assert_int_equal(in[1]->phase, SML_IN_DONE);
    assert_int_equal(in[2]->phase, SML_IN_EXPECTED);
    assert_int_equal(in[2]->crashes, 3);
    assert_int_equal(record(4)->phase, SML_IN_EXPECTED);
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(in[i]->row, i + 1);
    /* In the order of their numbers, whatever that of the records was. */
    uint64_t last = 0;
    for (struct sml_list *n = d.callee.all.next; n != &d.callee.all; n = n->next) {
        struct sml_incoming *at = SML_CONTAINER(n, struct sml_incoming, all);

        assert_true(at->xid > last);
        last = at->xid;
    }
    durable_silent(&d);
    assert_false(sml_callee_has_change(&d.callee));
    assert_int_equal(sml_callee_timeout(&d.callee), SML_NEVER);
}

static void records_come_in_any_order(void **state)
{
    static const int orders[6][4] = { { 0, 1, 2, 3 }, { 0, 3, 2, 1 }, { 0, 2, 3, 1 },
                                      { 1, 2, 3, 0 }, { 3, 0, 1, 2 }, { 2, 3, 0, 1 } };

    for (int o = 0; o < 6; o++) {
        struct sml_call_record records[3] = { call_of(3, SML_CALL_STARTED),
                                              call_of(5, SML_CALL_ENDED),
                                              call_of(7, SML_CALL_AGAIN) };
        struct sml_incoming *in[3];

        records[2].crashes = 3;
        for (int i = 0; i < 4; i++) {
            int which = orders[o][i];

            if (which == 0)
                restore_session(5, 2, (uint64_t[]){ 3, 4 });
            else
                in[which - 1] = restore(&records[which - 1], (uint64_t)which);
        }
        expect_all_restored(in);
        durable_finish(&d, in[0], "");
        tear_down(state);
        set_up(state);
    }
}

static void a_restored_call_is_the_one_that_was_stored(void **state)
{
    struct sml_call_record stored = call_of(7, SML_CALL_STARTED);
    struct sml_incoming *in;

    (void)state;
    stored.flags = SML_CALL_RERUN_OK | SML_CALL_ORIGIN;
    stored.origin = (struct sml_origin_call){ { { 1, 2, 3 } }, 77 };
    stored.method = semel_bytes_text("pay");
    stored.key = semel_bytes_text("order-17");
    stored.crashes = 200;
    restore_session(0, 0, NULL);
    in = restore(&stored, 5);
    assert_string_equal(in->method, "pay");
    assert_string_equal(in->key, "order-17");
    assert_int_equal(in->method_bytes, 3);
    assert_int_equal(in->key_bytes, 8);
    assert_int_equal(in->flags, stored.flags);
    assert_memory_equal(&in->origin, &stored.origin, sizeof in->origin);
    assert_int_equal(in->crashes, 200);
    assert_true(sml_fingerprint_equal(in->fingerprint, stored.fingerprint));
    assert_true(durable_finish(&d, in, "found out"));
    durable_silent(&d);
    durable_stored(&d, SML_CHANGE_END, 7);
    assert_int_equal(in->row, 5);
    durable_replied(&d, 7, SEMEL_VALUE, SEMEL_OK, SML_REPLY_RECORDED);
}

static void a_stored_verdict_is_told_again_from_where_it_stood(void **state)
{
    struct sml_outstanding list = { 7, 3, durable_print("a") };
    struct sml_listed listed;
    struct sml_frame frame;

    (void)state;
    restore_session(0, 0, NULL);
    restore_state(7, SML_CALL_ENDED);
    durable_silent(&d);
    assert_int_equal(resume(8, &list, 1, &listed), SEMEL_OK);
    assert_int_equal(listed.state, SML_STATE_DONE);
    assert_int_equal(listed.offset, 3);
    frame = durable_pull(&d);
    assert_int_equal(frame.u.reply.flags, SML_REPLY_RECORDED);
    assert_int_equal(frame.u.reply.verdict.outcome, SEMEL_FAILURE);
    assert_int_equal(frame.u.reply.verdict.code, 9);
    assert_memory_equal(frame.u.reply.verdict.text.data, "no", 2);
    assert_memory_equal(frame.u.reply.verdict.detail.data, "det", 3);
    assert_memory_equal(frame.u.reply.verdict.trace.data, "trc", 3);
    assert_int_equal(frame.u.reply.offset, 3);
    assert_int_equal(frame.u.reply.verdict.body.size, 1);
    assert_memory_equal(frame.u.reply.verdict.body.data, "y", 1);
    durable_ack(&d, 7);
    durable_stored(&d, SML_CHANGE_FORGET, 7);
}

static void what_was_proven_is_proven_still(void **state)
{
    struct sml_call_record stored = call_of(1, SML_CALL_ENDED);
    struct sml_outstanding list = open_call(1);
    struct sml_listed listed;

    (void)state;
    stored.proven = true;
    stored.verdict =
        (struct sml_verdict){ .outcome = SEMEL_NOT_EXECUTED, .status = SEMEL_KEY_MISMATCH };
    restore_session(0, 0, NULL);
    restore(&stored, 1);
    assert_int_equal(resume(2, &list, 1, &listed), SEMEL_OK);
    durable_replied(&d, 1, SEMEL_NOT_EXECUTED, SEMEL_KEY_MISMATCH,
                    SML_REPLY_RECORDED | SML_REPLY_PROVEN);
}

static void records_that_contradict_each_other_are_refused(void **state)
{
    struct sml_call_record again = call_of(3, SML_CALL_AGAIN);
    const char *why = NULL;
    int64_t live;

    (void)state;
    restore_session(0, 0, NULL);
    for (uint64_t xid = 1; xid <= 2 * WINDOW + SML_RECORDS_LATE; xid++)
        restore_state(xid, SML_CALL_ENDED);
    live = d.live;
    assert_null(sml_callee_restore_call(&d.callee, 99, &again, &why));
    assert_string_equal(why, "two records of one call");
    why = NULL;
    again.xid = 2 * WINDOW + SML_RECORDS_LATE + 1;
    assert_null(sml_callee_restore_call(&d.callee, 99, &again, &why));
    assert_string_equal(why, "more records than the session's window");
    assert_int_equal(record(3)->phase, SML_IN_DONE);
    assert_int_equal(d.callee.hi, 2 * WINDOW + SML_RECORDS_LATE);
    assert_int_equal(d.live, live);
}

/* Stored with the session while its start, or its verdict, was in another transaction. */
static void a_straggler_may_have_a_record_after_all(void **state)
{
    struct sml_outstanding wrong = { 3, 0, durable_print("b") };
    struct sml_listed listed;

    (void)state;
    restore_session(5, 1, (uint64_t[]){ 3 });
    restore_state(3, SML_CALL_ENDED);
    assert_int_equal(d.callee.table.count, 1);
    assert_int_equal(resume(6, &wrong, 1, &listed), SEMEL_FALSE_RETRY);
}

/* --- resumed ----------------------------------------------------------------------------- */

static void the_caller_finds_its_calls(void **state)
{
    struct sml_outstanding list[4];
    struct sml_listed states[4];
    struct sml_incoming *in;

    (void)state;
    for (uint64_t i = 0; i < 4; i++)
        list[i] = open_call((uint64_t[]){ 3, 4, 6, 9 }[i]);
    restore_session(5, 1, (uint64_t[]){ 4 });
    in = restore_state(3, SML_CALL_STARTED);
    restore_state(6, SML_CALL_ENDED);
    restore_state(7, SML_CALL_ENDED); /* released, and not forgotten in time */
    assert_int_equal(resume(10, list, 4, states), SEMEL_OK);
    assert_int_equal(states[0].state, SML_STATE_RUNNING);
    assert_int_equal(states[1].state, SML_STATE_IN_DOUBT); /* a straggler */
    assert_int_equal(states[2].state, SML_STATE_DONE);
    assert_int_equal(states[3].state, SML_STATE_IN_DOUBT); /* never stored */
    assert_int_equal(d.callee.hi, 9);
    assert_null(record(7));
    durable_replied(&d, 6, SEMEL_FAILURE, SEMEL_FAILED, SML_REPLY_RECORDED);
    durable_stored(&d, SML_CHANGE_FORGET, 7);
    /* What was expected comes, and runs; what lies between is released. */
    assert_int_equal(durable_call(&d, 4, "a", "", 0), SEMEL_OK);
    assert_int_equal(durable_call(&d, 9, "b", "", 0), SEMEL_FALSE_RETRY);
    assert_int_equal(durable_call(&d, 9, "a", "", 0), SEMEL_OK);
    assert_int_equal(durable_call(&d, 8, "a", "", 0), SEMEL_OK);
    durable_finish(&d, durable_running(&d), "r4");
    durable_stored(&d, SML_CHANGE_END, 4);
    durable_finish(&d, durable_running(&d), "r9");
    assert_null(sml_callee_take(&d.callee));
    durable_finish(&d, in, "r3");
}

static void what_contradicts_the_records_is_refused(void **state)
{
    struct sml_outstanding released = open_call(2), other = { 6, 0, durable_print("b") };
    struct sml_listed states[1];
    struct sml_incoming *in;

    (void)state;
    restore_session(5, 1, (uint64_t[]){ 4 });
    restore_state(6, SML_CALL_ENDED);
    in = restore_state(7, SML_CALL_STARTED);
    assert_int_equal(resume(7, NULL, 0, states), SEMEL_PROTOCOL); /* 7 was given */
    assert_int_equal(resume(8, &released, 1, states), SEMEL_PROTOCOL);
    assert_int_equal(resume(8, &other, 1, states), SEMEL_FALSE_RETRY);
    assert_int_equal(d.callee.table.count, 3);
    assert_int_equal(d.callee.hi, 7);
    assert_true(d.callee.restored);
    assert_true(record(4)->unidentified);
    /* Once resumed, all that is not in the table is released, up to the greatest number. */
    assert_int_equal(resume(10, NULL, 0, states), SEMEL_OK);
    other = open_call(9);
    assert_int_equal(resume(10, &other, 1, states), SEMEL_PROTOCOL);
    durable_finish(&d, in, "");
}

/* A store that was rolled back: its caller holds replies that it has forgotten. That is no mistake
 * of the caller's, which sees by the state what happened. */
static void a_reply_that_the_store_forgot_is_no_mistake(void **state)
{
    struct sml_outstanding list[4];
    struct sml_listed states[4];
    struct sml_incoming *in;

    (void)state;
    for (int i = 0; i < 4; i++)
        list[i] = (struct sml_outstanding){ (uint64_t[]){ 4, 6, 7, 9 }[i], 5, durable_print("a") };
    restore_session(5, 1, (uint64_t[]){ 4 });
    restore_state(6, SML_CALL_ENDED);
    in = restore_state(7, SML_CALL_STARTED);
    /* As often as it is asked: the answer may have been lost. */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(resume(10, list, 4, states), SEMEL_OK);
        assert_int_equal(states[0].state, SML_STATE_IN_DOUBT); /* a straggler */
        assert_int_equal(states[1].state, SML_STATE_RUNNING);  /* with another verdict */
        assert_int_equal(states[2].state, SML_STATE_RUNNING);
        assert_int_equal(states[3].state, SML_STATE_IN_DOUBT); /* never stored */
        assert_false(sml_callee_wants_write(&d.callee));
    }
    durable_finish(&d, in, "");
}

/* --- what had begun ---------------------------------------------------------------------- */

static void what_may_run_again_runs_when_it_comes_again(void **state)
{
    struct sml_outstanding list = open_call(7);
    struct sml_listed listed;
    struct sml_incoming *in;
    struct sml_call_record stored = call_of(7, SML_CALL_STARTED);

    (void)state;
    stored.crashes = 2;
    restore_session(5, 0, NULL);
    in = restore(&stored, 17);
    sml_callee_expect_again(&d.callee, in);
    assert_int_equal(d.callee.held, 0);
    assert_int_equal(in->phase, SML_IN_EXPECTED);
    assert_int_equal(resume(8, &list, 1, &listed), SEMEL_OK);
    assert_int_equal(listed.state, SML_STATE_IN_DOUBT);
    assert_int_equal(durable_call(&d, 7, "a", "", 0), SEMEL_OK);
    in = durable_take(&d);
    assert_int_equal(in->row, 17); /* its record is changed, there is no second one */
    assert_int_equal(in->crashes, 2);
    sml_callee_refuse(&d.callee, in, 20);
    assert_int_equal(durable_pull(&d).type, SML_BUSY);
    assert_int_equal(durable_call(&d, 7, "a", "", 0), SEMEL_OK);
    in = durable_started(&d);
    assert_int_equal(in->row, 17);
    assert_int_equal(in->crashes, 2);
    assert_true(sml_callee_begin(&d.callee, in, 0, 0));
    durable_finish(&d, in, "ra");
    durable_stored(&d, SML_CHANGE_END, 7);
    durable_replied(&d, 7, SEMEL_VALUE, SEMEL_OK, SML_REPLY_RECORDED);
}

static void what_was_released_meanwhile_is_forgotten(void **state)
{
    static const enum sml_call_record_state states[] = { SML_CALL_STARTED, SML_CALL_ENDED,
                                                         SML_CALL_AGAIN };
    static const char *const keys[] = { "", "key" };

    for (int i = 0; i < 8; i++) {
        struct sml_call_record stored = call_of(7, states[i / 2 % 3]);
        bool keyed = i % 2 > 0, again = i >= 6;
        struct sml_incoming *in;

        stored.key = semel_bytes_text(keys[keyed]);
        restore_session(5, 0, NULL);
        in = restore(&stored, 17);
        assert_int_equal(resume(8, NULL, 0, NULL), SEMEL_OK);
        assert_null(record(7));
        if (again)
            sml_callee_expect_again(&d.callee, in);
        else if (stored.state == SML_CALL_STARTED)
            assert_int_equal(durable_finish(&d, in, "found out"), keyed);
        durable_silent(&d);
        if (keyed && !again && stored.state == SML_CALL_STARTED)
            durable_stored(&d, SML_CHANGE_LEAVE, 7);
        else
            durable_stored(&d, SML_CHANGE_FORGET, 7);
        assert_int_equal(d.callee.base_pending, 7);
        assert_false(sml_callee_has_change(&d.callee));
        tear_down(state);
        set_up(state);
    }
}

/* An end that it finds before it runs again is stored, since its record says otherwise. */
static void an_end_before_it_runs_again_is_stored(void **state)
{
    for (int i = 0; i < 4; i++) {
        struct sml_outstanding list = open_call(7);
        struct sml_listed listed;
        enum semel_status why = i == 0 ? SEMEL_CANCELLED : SEMEL_EXPIRED;

        restore_session(5, 0, NULL);
        restore_state(7, SML_CALL_AGAIN);
        assert_int_equal(resume(8, &list, 1, &listed), SEMEL_OK);
        if (i == 0) {
            durable_cancel(&d, 7);
        } else if (i == 1) {
            assert_int_equal(durable_call(&d, 7, "a", "", 0), SEMEL_OK);
            sml_callee_tick(&d.callee, SML_SECOND);
        } else if (i == 2) {
            assert_int_equal(durable_call(&d, 7, "a", "", 0), SEMEL_OK);
            assert_false(sml_callee_start(&d.callee, durable_take(&d), SML_SECOND));
        } else {
            assert_int_equal(durable_call(&d, 7, "a", "", 0), SEMEL_OK);
            sml_callee_reject(&d.callee, durable_take(&d), SEMEL_POISONED, "too often");
            why = SEMEL_POISONED;
        }
        durable_silent(&d);
        durable_stored(&d, SML_CHANGE_END, 7);
        durable_replied(&d, 7, SEMEL_NOT_EXECUTED, why, SML_REPLY_RECORDED);
        tear_down(state);
        set_up(state);
    }
}

/* An earlier server began it, and it may run again: then it cannot end as not executed, whatever
 * keeps it from that. */
static void what_had_begun_does_not_end_as_not_executed(void **state)
{
    for (int i = 0; i < 5; i++) {
        struct sml_outstanding list = open_call(7);
        struct sml_listed listed;
        uint8_t flags = i == 4 ? SML_CALL_REFUSE_WHEN_FULL : 0;

        restore_session(5, 0, NULL);
        sml_callee_expect_again(&d.callee, restore_state(7, SML_CALL_STARTED));
        assert_int_equal(resume(8, &list, 1, &listed), SEMEL_OK);
        assert_int_equal(listed.state, SML_STATE_IN_DOUBT);
        if (i == 0) {
            durable_cancel(&d, 7);
        } else {
            assert_int_equal(durable_call(&d, 7, "a", "", flags), SEMEL_OK);
            if (i == 1)
                sml_callee_tick(&d.callee, SML_SECOND);
            else if (i == 2)
                assert_false(sml_callee_start(&d.callee, durable_take(&d), SML_SECOND));
            else if (i == 3)
                sml_callee_reject(&d.callee, durable_take(&d), SEMEL_NO_METHOD, "no such method");
            else
                sml_callee_refuse(&d.callee, durable_take(&d), 20);
        }
        durable_silent(&d);
        durable_stored(&d, SML_CHANGE_END, 7);
        durable_replied(&d, 7, SEMEL_UNKNOWN, SEMEL_SERVER_DIED, SML_REPLY_RECORDED);
        tear_down(state);
        set_up(state);
    }
}

static bool keeps(void *user, struct semel_bytes method)
{
    (void)method;
    return *(const bool *)user;
}

/* A call without a record has not begun, if its method keeps records; else nobody knows. Only its
 * CALL tells the method, so a CANCEL before it waits. */
static void without_a_record_the_method_decides(void **state)
{
    for (int i = 0; i < 10; i++) {
        bool keeps_records = i % 2 > 0;
        uint8_t flags = i / 2 == 4 ? SML_CALL_REFUSE_WHEN_FULL : 0;
        struct sml_outstanding list = open_call(7);
        struct sml_listed listed;

        d.callee.methods = (struct sml_callee_methods){ keeps, &keeps_records };
        restore_session(5, 0, NULL);
        assert_int_equal(resume(8, &list, 1, &listed), SEMEL_OK);
        assert_int_equal(listed.state, SML_STATE_IN_DOUBT);
        if (i / 2 == 0)
            durable_cancel(&d, 7);
        durable_silent(&d);
        assert_int_equal(durable_call(&d, 7, "a", "", flags), SEMEL_OK);
        if (i / 2 == 1)
            durable_cancel(&d, 7);
        else if (i / 2 == 2)
            sml_callee_tick(&d.callee, SML_SECOND);
        else if (i / 2 > 2)
            sml_callee_refuse(&d.callee, durable_take(&d), 20);
        if (i / 2 == 3) { /* it stays what it is when it comes once more */
            assert_int_equal(durable_pull(&d).type, SML_BUSY);
            assert_int_equal(durable_call(&d, 7, "a", "", 0), SEMEL_OK);
            durable_cancel(&d, 7);
        }
        if (keeps_records)
            durable_replied(&d, 7, SEMEL_NOT_EXECUTED,
                            i / 2 == 2   ? SEMEL_EXPIRED
                            : i / 2 == 4 ? SEMEL_OVERLOADED
                                         : SEMEL_CANCELLED,
                            0);
        else
            durable_replied(&d, 7, SEMEL_UNKNOWN, SEMEL_SERVER_DIED, 0);
        tear_down(state);
        set_up(state);
    }
}

/* A new call is in no doubt, and neither is what this server itself has not seen. */
static void what_this_server_would_have_seen_is_not_in_doubt(void **state)
{
    struct sml_outstanding list = open_call(7);
    struct sml_listed listed;

    (void)state;
    restore_session(5, 0, NULL);
    assert_int_equal(resume(7, NULL, 0, NULL), SEMEL_OK);
    assert_int_equal(resume(8, &list, 1, &listed), SEMEL_OK);
    assert_int_equal(listed.state, SML_STATE_EXPECTED);
    durable_cancel(&d, 7);
    durable_replied(&d, 7, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED, 0);
    assert_int_equal(durable_call(&d, 8, "a", "", 0), SEMEL_OK);
    durable_cancel(&d, 8);
    durable_replied(&d, 8, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED, 0);
}

/* Nor is it stored that it has not begun, when this server stops, too, before it ran. */
static void what_had_begun_is_not_put_back(void **state)
{
    struct sml_outstanding list = open_call(7);
    struct sml_listed listed;
    struct sml_incoming *in;

    (void)state;
    restore_session(5, 0, NULL);
    sml_callee_expect_again(&d.callee, restore_state(7, SML_CALL_STARTED));
    assert_int_equal(resume(8, &list, 1, &listed), SEMEL_OK);
    assert_int_equal(durable_call(&d, 7, "a", "", 0), SEMEL_OK);
    in = durable_started(&d);
    sml_callee_postpone_to_restart(&d.callee, in);
    assert_int_equal(d.callee.held, 0);
    assert_false(sml_callee_has_change(&d.callee));
}

/* Released after it came again, and before its record was changed: bodies count no more. */
static void released_when_it_came_again_it_is_forgotten(void **state)
{
    struct sml_outstanding list = open_call(7);
    struct sml_listed listed;

    (void)state;
    restore_session(5, 0, NULL);
    restore_state(7, SML_CALL_AGAIN);
    assert_int_equal(resume(8, &list, 1, &listed), SEMEL_OK);
    assert_int_equal(durable_call(&d, 7, "a", "", 0), SEMEL_OK);
    assert_int_equal(d.callee.bytes_in, 1);
    durable_ack(&d, 7);
    assert_int_equal(d.callee.bytes_in, 0);
    durable_stored(&d, SML_CHANGE_FORGET, 7);
}

/* --- memory ------------------------------------------------------------------------------ */

static void a_session_without_memory_is_not_restored(void **state)
{
    static const uint64_t xids[] = { 1, 2, 3, 4 };
    struct sml_session_record stored = session_of(5, 4, xids);
    bool done = false;

    for (int64_t n = 0; !done; n++) {
        assert_in_range(n, 0, 20);
        d.fail_in = n;
        done = sml_callee_restore(&d.callee, &stored);
        d.fail_in = -1;
        sml_callee_forsake(&d.callee);
        assert_int_equal(d.live, 0);
        tear_down(state);
        set_up(state);
    }
}

static void a_call_without_memory_changes_nothing(void **state)
{
    static const enum sml_call_record_state states[] = { SML_CALL_STARTED, SML_CALL_ENDED,
                                                         SML_CALL_AGAIN };

    (void)state;
    restore_session(20, 1, (uint64_t[]){ 20 });
    for (uint64_t i = 0; i < 6; i++) {
        /* Three new ones, the third of which also needs a larger table, and three stragglers. */
        struct sml_call_record stored = call_of(i < 3 ? 30 + i : 20, states[i % 3]);
        struct sml_incoming *in = NULL;
        int64_t live = d.live;

        for (int64_t n = 0; in == NULL; n++) {
            struct sml_callee before = d.callee;
            const char *why = "untouched";

            assert_in_range(n, 0, 10);
            d.fail_in = n;
            in = sml_callee_restore_call(&d.callee, i + 1, &stored, &why);
            d.fail_in = -1;
            assert_null(why);
            if (in)
                break;
            assert_int_equal(d.live, live);
            assert_int_equal(d.callee.table.count, before.table.count);
            assert_int_equal(d.callee.hi, before.hi);
            assert_int_equal(d.callee.durable_hi, before.durable_hi);
            assert_int_equal(d.callee.held, before.held);
            assert_int_equal(d.callee.bytes_in, before.bytes_in);
            assert_int_equal(d.callee.bytes_stored, before.bytes_stored);
            assert_int_equal(record(20)->phase, SML_IN_EXPECTED);
            assert_true(record(20)->unidentified);
        }
        if (in->phase == SML_IN_RUNNING)
            sml_callee_expect_again(&d.callee, in);
        if (i >= 3) { /* the next one meets a straggler again */
            tear_down(state);
            set_up(state);
            restore_session(20, 1, (uint64_t[]){ 20 });
        }
    }
}

static void a_resume_without_memory_changes_nothing(void **state)
{
    struct sml_outstanding list[WINDOW];
    struct sml_listed states[WINDOW];
    enum semel_status status = SEMEL_NO_MEMORY;
    struct sml_incoming *in;
    int64_t n, live;

    (void)state;
    for (uint64_t i = 0; i < WINDOW; i++)
        list[i] = open_call((uint64_t[]){ 4, 6, 12, 13 }[i]);
    restore_session(5, 3, (uint64_t[]){ 2, 3, 4 });
    in = restore_state(6, SML_CALL_STARTED);
    restore_state(7, SML_CALL_ENDED);
    restore_state(8, SML_CALL_AGAIN);
    live = d.live;
    for (n = 0; status != SEMEL_OK; n++) {
        assert_in_range(n, 0, 20);
        d.fail_in = n;
        status = resume(20, list, WINDOW, states);
        d.fail_in = -1;
        if (status == SEMEL_OK)
            break;
        assert_int_equal(status, SEMEL_NO_MEMORY);
        assert_in_range(d.live, live, live + 1); /* a larger table may stay */
        assert_int_equal(d.callee.table.count, 6);
        assert_int_equal(d.callee.hi, 8);
        assert_true(d.callee.restored);
        assert_true(record(4)->unidentified);
        assert_int_equal(in->phase, SML_IN_RUNNING);
        assert_null(record(12));
        assert_false(sml_callee_has_change(&d.callee));
        for (struct sml_list *at = d.callee.all.next; at != &d.callee.all; at = at->next)
            assert_false(SML_CONTAINER(at, struct sml_incoming, all)->listed);
    }
    assert_in_range(n, 2, 20);
    assert_int_equal(states[0].state, SML_STATE_IN_DOUBT);
    assert_int_equal(states[1].state, SML_STATE_RUNNING);
    assert_int_equal(states[3].state, SML_STATE_IN_DOUBT);
    assert_false(record(4)->unidentified);
    durable_finish(&d, in, "");
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }

int store_restoring(void)
{
    const struct CMUnitTest restoring[] = {
        FRESH("records come in any order", records_come_in_any_order),
        FRESH("a restored call is the one that was stored",
              a_restored_call_is_the_one_that_was_stored),
        FRESH("a stored verdict is told again", a_stored_verdict_is_told_again_from_where_it_stood),
        FRESH("what was proven is proven still", what_was_proven_is_proven_still),
        FRESH("records that contradict each other", records_that_contradict_each_other_are_refused),
        FRESH("a straggler may have a record after all", a_straggler_may_have_a_record_after_all),
        FRESH("the caller finds its calls", the_caller_finds_its_calls),
        FRESH("what contradicts the records is refused", what_contradicts_the_records_is_refused),
        FRESH("a reply that the store forgot is no mistake",
              a_reply_that_the_store_forgot_is_no_mistake),
        FRESH("what may run again", what_may_run_again_runs_when_it_comes_again),
        FRESH("what was released meanwhile", what_was_released_meanwhile_is_forgotten),
        FRESH("an end before it runs again is stored", an_end_before_it_runs_again_is_stored),
        FRESH("what had begun does not end as not executed",
              what_had_begun_does_not_end_as_not_executed),
        FRESH("without a record the method decides", without_a_record_the_method_decides),
        FRESH("not in doubt", what_this_server_would_have_seen_is_not_in_doubt),
        FRESH("what had begun is not put back", what_had_begun_is_not_put_back),
        FRESH("released when it came again", released_when_it_came_again_it_is_forgotten),
        FRESH("a session without memory", a_session_without_memory_is_not_restored),
        FRESH("a call without memory changes nothing", a_call_without_memory_changes_nothing),
        FRESH("a resume without memory changes nothing", a_resume_without_memory_changes_nothing),
    };

    return cmocka_run_group_tests(restoring, NULL, NULL);
}
