/* SPDX-License-Identifier: MIT */
/* Released, cancelled, late, ended or forsaken: at each stage of a call that has records. */
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

static struct sml_incoming *record(uint64_t xid)
{
    return durable_record(&d, xid);
}

static enum semel_status give_call(uint64_t xid, const char *body)
{
    return durable_call(&d, xid, body, "", 0);
}

/* --- released at any time ---------------------------------------------------------------- */

enum stage {
    TAKEN,
    START_QUEUED,
    START_PULLED,
    STARTED,
    RUNNING,
    END_QUEUED,
    END_PULLED,
    DONE,
    DECIDED,
    AGAIN_QUEUED,
    AGAIN_PULLED,
    STAGES
};

static struct sml_change under_way; /* at the stages PULLED and DECIDED */

/* Call 1 is brought to that stage. */
static struct sml_incoming *bring(enum stage stage, const char *key)
{
    struct sml_incoming *in;

    assert_int_equal(durable_call(&d, 1, "a", key, 0), SEMEL_OK);
    in = durable_take(&d);
    if (stage == DECIDED) {
        assert_true(sml_callee_begin(&d.callee, in, 0, 0));
        durable_decide(&d, in, "ra");
        under_way = (struct sml_change){ SML_CHANGE_END, in };
    }
    if (stage == TAKEN || stage == DECIDED)
        return in;
    assert_true(sml_callee_start(&d.callee, in, 0));
    if (stage == START_QUEUED)
        return in;
    under_way = durable_change(&d, SML_CHANGE_START, 1);
    if (stage == START_PULLED)
        return in;
    durable_commit(&d, &under_way);
    if (stage == STARTED)
        return in;
    if (stage == AGAIN_QUEUED || stage == AGAIN_PULLED) {
        sml_callee_postpone_to_restart(&d.callee, in);
        if (stage == AGAIN_PULLED)
            under_way = durable_change(&d, SML_CHANGE_AGAIN, 1);
        return in;
    }
    assert_true(sml_callee_begin(&d.callee, in, 0, 0));
    if (stage == RUNNING)
        return in;
    assert_true(durable_finish(&d, in, "ra"));
    if (stage == END_QUEUED)
        return in;
    under_way = durable_change(&d, SML_CHANGE_END, 1);
    if (stage == END_PULLED)
        return in;
    durable_commit(&d, &under_way);
    durable_replied(&d, 1, SEMEL_VALUE, SEMEL_OK, SML_REPLY_RECORDED);
    return in;
}

/* What shell and store owe a call that was released at `stage`. */
static void go_on(enum stage stage, struct sml_incoming *in, bool keyed)
{
    switch (stage) {
    case TAKEN:
        assert_false(sml_callee_start(&d.callee, in, 0));
        durable_forgotten(&d, false, SML_CHANGE_FORGET);
        return;
    case START_QUEUED:
        under_way = durable_change(&d, SML_CHANGE_START, 1); /* the shell waits for it */
        __attribute__((fallthrough));
    case START_PULLED:
        durable_commit(&d, &under_way);
        __attribute__((fallthrough));
    case STARTED:
        assert_false(sml_callee_begin(&d.callee, in, 0, 0));
        break;
    case RUNNING:
        assert_int_equal(atomic_load(&in->cancelled), !keyed); /* somebody may ask for the key */
        assert_int_equal(durable_finish(&d, in, "ra"), keyed);
        durable_forgotten(&d, true, keyed ? SML_CHANGE_LEAVE : SML_CHANGE_FORGET);
        return;
    case END_QUEUED:
        durable_forgotten(&d, true, keyed ? SML_CHANGE_LEAVE : SML_CHANGE_FORGET);
        return;
    case END_PULLED:
    case DECIDED:
    case AGAIN_PULLED:
        durable_commit(&d, &under_way);
        break;
    default:
        break;
    }
    durable_forgotten(&d, true, SML_CHANGE_FORGET);
}

static void released_at_any_stage_it_is_forgotten(void **state)
{
    static const char *const keys[] = { "", "key" };

    for (int k = 0; k < 2; k++) {
        for (enum stage stage = 0; stage < STAGES; stage++) {
            struct sml_incoming *in = bring(stage, keys[k]);

            durable_ack(&d, 1);
            assert_null(record(1));
            assert_int_equal(d.callee.bytes_in, 0);
            assert_int_equal(d.callee.bytes_stored, 0);
            assert_int_equal(sml_callee_timeout(&d.callee), SML_NEVER);
            durable_silent(&d);
            go_on(stage, in, k > 0);
            tear_down(state);
            set_up(state);
        }
    }
}

/* The same with a store that says no before it says yes. */
static void released_while_the_store_fails_it_is_forgotten(void **state)
{
    static const char *const keys[] = { "", "key" };
    static const enum stage stages[] = { START_PULLED, END_PULLED, AGAIN_PULLED, DECIDED };

    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
            struct sml_incoming *in = bring(stages[i], keys[k]);

            durable_ack(&d, 1);
            if (stages[i] == DECIDED) {
                sml_callee_retry(&d.callee, in);
                go_on(TAKEN, in, k > 0);
            } else {
                durable_fail(&d, &under_way);
                durable_silent(&d);
                if (stages[i] == START_PULLED) /* it is not stored: there is nothing to forget */
                    durable_forgotten(&d, false, SML_CHANGE_FORGET);
                else if (stages[i] == END_PULLED) /* nobody will ask for a call without a key */
                    durable_forgotten(&d, true, SML_CHANGE_LEAVE);
                else
                    durable_stored(&d, SML_CHANGE_AGAIN, 1);
            }
            tear_down(state);
            set_up(state);
        }
    }
}

static void a_session_that_ends_at_any_stage_leaves_nothing(void **state)
{
    static const char *const keys[] = { "", "key" };

    for (int k = 0; k < 2; k++) {
        for (enum stage stage = 0; stage < STAGES; stage++) {
            struct sml_incoming *in = bring(stage, keys[k]);

            sml_callee_clear(&d.callee);
            assert_int_equal(d.callee.table.count, 0);
            go_on(stage, in, k > 0);
            tear_down(state);
            set_up(state);
        }
    }
}

/* The server stops: the shell has let all go, the store has answered; what is in it stays. */
static void a_session_that_is_forsaken_at_any_stage_leaves_nothing(void **state)
{
    static const char *const keys[] = { "", "key" };

    for (int k = 0; k < 4; k++) {
        for (enum stage stage = 0; stage < STAGES; stage++) {
            struct sml_incoming *in = bring(stage, keys[k % 2]);
            bool over = stage == START_PULLED && k >= 2; /* its start is not tried again */

            if (k >= 2)
                durable_ack(&d, 1);
            if (stage == START_PULLED || stage == END_PULLED || stage == AGAIN_PULLED)
                durable_fail(&d, &under_way);
            if (stage == DECIDED && k % 2 > 0)
                durable_fail(&d, &under_way);
            else if (stage == DECIDED)
                sml_callee_retry(&d.callee, in);
            if ((stage <= STARTED && !over) || (stage == DECIDED && k % 2 == 0))
                sml_callee_postpone_to_restart(&d.callee, in);
            if (stage == RUNNING)
                durable_finish(&d, in, "ra");
            sml_callee_forsake(&d.callee);
            assert_false(sml_callee_has_change(&d.callee));
            assert_int_equal(d.callee.held, 0);
            assert_int_equal(d.live, 0);
            tear_down(state);
            set_up(state);
        }
    }
}

/* --- cancelled, or too late, at any time ------------------------------------------------- */

/* Call 1 was cancelled or its time is over (`why`) at `stage`: how it goes on. */
static void end_doomed(enum stage stage, struct sml_incoming *in, bool keyed, enum semel_status why)
{
    uint8_t flags = SML_REPLY_RECORDED | (keyed ? SML_REPLY_PROVEN : 0);

    if (stage == TAKEN) { /* nothing is stored of what was not started */
        durable_replied(&d, 1, SEMEL_NOT_EXECUTED, why, 0);
        assert_false(sml_callee_start(&d.callee, in, 0));
        return;
    }
    durable_silent(&d);
    if (stage == START_QUEUED)
        under_way = durable_change(&d, SML_CHANGE_START, 1);
    if (stage == START_QUEUED || stage == START_PULLED)
        durable_commit(&d, &under_way);
    assert_int_equal(in->phase, SML_IN_STORING);
    assert_false(sml_callee_begin(&d.callee, in, 0, 0));
    durable_silent(&d);
    durable_stored(&d, SML_CHANGE_END, 1);
    durable_replied(&d, 1, SEMEL_NOT_EXECUTED, why, flags);
}

static void cancelled_before_it_began_it_is_not_executed(void **state)
{
    static const char *const keys[] = { "", "key" };

    for (int k = 0; k < 4; k++) {
        for (enum stage stage = TAKEN; stage <= STARTED; stage++) {
            struct sml_incoming *in = bring(stage, keys[k % 2]);

            if (k < 2)
                durable_cancel(&d, 1);
            else
                sml_callee_tick(&d.callee, SML_SECOND);
            assert_int_equal(sml_callee_timeout(&d.callee), SML_NEVER);
            end_doomed(stage, in, k % 2 > 0, k < 2 ? SEMEL_CANCELLED : SEMEL_EXPIRED);
            tear_down(state);
            set_up(state);
        }
    }
}

/* Nobody ticked, but it is late all the same. */
static void a_call_past_its_deadline_neither_starts_nor_begins(void **state)
{
    struct sml_incoming *in = bring(TAKEN, "");

    (void)state;
    assert_false(sml_callee_start(&d.callee, in, SML_SECOND));
    durable_replied(&d, 1, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED, 0);
    assert_int_equal(give_call(2, "b"), SEMEL_OK);
    in = durable_started(&d);
    assert_false(sml_callee_begin(&d.callee, in, 0, SML_SECOND));
    durable_silent(&d);
    durable_stored(&d, SML_CHANGE_END, 2);
    durable_replied(&d, 2, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED, SML_REPLY_RECORDED);
}

static void cancelled_in_vain_its_verdict_stands(void **state)
{
    static const enum stage stages[] = { RUNNING, END_QUEUED, END_PULLED, DECIDED, DONE };

    for (int late = 0; late < 2; late++) {
        for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
            struct sml_incoming *in = bring(stages[i], "");

            if (late)
                sml_callee_tick(&d.callee, SML_SECOND);
            else
                durable_cancel(&d, 1);
            assert_int_equal(atomic_load(&in->cancelled), stages[i] == RUNNING);
            if (stages[i] == RUNNING) {
                assert_ptr_equal(sml_callee_next_cancelled(&d.callee), in);
                assert_true(durable_finish(&d, in, "ra"));
            }
            assert_null(sml_callee_next_cancelled(&d.callee));
            if (stages[i] == RUNNING || stages[i] == END_QUEUED)
                under_way = durable_change(&d, SML_CHANGE_END, 1);
            durable_silent(&d);
            if (stages[i] != DONE) {
                durable_commit(&d, &under_way);
                durable_replied(&d, 1, SEMEL_VALUE, SEMEL_OK, SML_REPLY_RECORDED);
            }
            tear_down(state);
            set_up(state);
        }
    }
}

/* Its handler outstays max_run: the verdict is stored while the handler goes on. */
static void the_verdict_of_a_handler_that_outstays_is_stored(void **state)
{
    static const char *const keys[] = { "", "key" };

    /* The handler returns before the verdict is pulled, while it is stored, and after. */
    for (int i = 0; i < 12; i++) {
        int returns = i % 3;
        bool released = i >= 6, keyed = i / 3 % 2 > 0;
        struct sml_incoming *in;
        struct sml_change change;

        assert_int_equal(durable_call(&d, 1, "a", keys[keyed], 0), SEMEL_OK);
        in = durable_started(&d);
        assert_true(sml_callee_begin(&d.callee, in, 50 * SML_MS, 0));
        sml_callee_tick(&d.callee, 50 * SML_MS);
        assert_int_equal(in->phase, SML_IN_STORING);
        if (released)
            durable_ack(&d, 1);
        if (returns == 0)
            assert_false(durable_finish(&d, in, "late"));
        if (released && !keyed) { /* nobody will ask for it */
            if (returns > 0)
                assert_false(durable_finish(&d, in, "late"));
            durable_forgotten(&d, true, SML_CHANGE_FORGET);
        } else {
            change = durable_change(&d, released ? SML_CHANGE_LEAVE : SML_CHANGE_END, 1);
            if (returns == 1)
                assert_false(durable_finish(&d, in, "late"));
            durable_silent(&d);
            durable_commit(&d, &change);
            if (!released)
                durable_replied(&d, 1, SEMEL_UNKNOWN, SEMEL_MAX_RUN, SML_REPLY_RECORDED);
            if (returns == 2)
                assert_false(durable_finish(&d, in, "late"));
            durable_silent(&d);
        }
        assert_int_equal(d.callee.held, 0);
        tear_down(state);
        set_up(state);
    }
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }

int store_releasing(void)
{
    const struct CMUnitTest releasing[] = {
        FRESH("released at any stage", released_at_any_stage_it_is_forgotten),
        FRESH("released while the store fails", released_while_the_store_fails_it_is_forgotten),
        FRESH("a session that ends at any stage", a_session_that_ends_at_any_stage_leaves_nothing),
        FRESH("a session forsaken at any stage",
              a_session_that_is_forsaken_at_any_stage_leaves_nothing),
        FRESH("cancelled before it began", cancelled_before_it_began_it_is_not_executed),
        FRESH("past its deadline", a_call_past_its_deadline_neither_starts_nor_begins),
        FRESH("cancelled in vain", cancelled_in_vain_its_verdict_stands),
        FRESH("a handler that outstays", the_verdict_of_a_handler_that_outstays_is_stored),
    };

    return cmocka_run_group_tests(releasing, NULL, NULL);
}
