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

static void a_call_without_a_deadline_waits_for_its_verdict(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = calloc(1, sizeof *call);
    uint64_t later = f->now + 1000 * 86400 * SML_SECOND;
    struct sml_incoming *in;

    call->method = "m";
    call->method_bytes = 1;
    call->deadline = SML_NEVER;
    assert_int_equal(sml_link_submit(&f->link, call, f->now), SEMEL_OK);
    fixture_pump(f);
    in = fixture_begin(f);
    assert_non_null(in);
    sml_caller_tick(&f->link.caller, later);
    sml_callee_tick(fixture_callee(f), later);
    fixture_pump(f);
    assert_null(sml_caller_next_done(&f->link.caller));
    assert_false(atomic_load(&in->cancelled));
    fixture_finish(f, in, SEMEL_VALUE, "late");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "late");
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
    fixture_expect(f, late, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED, ""); /* not: "cancelled" */
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

/* --- keys, and sessions that are lost ---------------------------------------------------- */

static int set_up_keys(void **state)
{
    struct fixture *f = fixture_new();

    f->host_options.features = SML_FEATURE_KEYS;
    f->link_options.window = 4;
    fixture_start(f);
    fixture_pump(f);
    *state = f;
    return 0;
}

static struct sml_call *submit_keyed(struct fixture *f, const char *body, const char *key)
{
    struct sml_call *call = fixture_submit(f, body);

    call->key = key;
    call->key_bytes = (uint8_t)strlen(key);
    return call;
}

/* The server has forgotten the session. */
static void lose_session(struct fixture *f)
{
    struct sml_session *session;

    fixture_cut(f);
    session = SML_CONTAINER(f->host.sessions.next, struct sml_session, all);
    sml_host_end(&f->host, session);
    sml_session_free(&f->host, session);
}

/* The next call that is ready. */
static struct sml_incoming *ready(struct fixture *f)
{
    struct sml_callee *callee = fixture_callee(f);

    assert_false(sml_list_empty(&callee->ready));
    return SML_CONTAINER(callee->ready.next, struct sml_incoming, link);
}

static void a_server_without_keys_is_sent_none(void **state)
{
    struct fixture *f = *state; /* its host does not offer them */
    struct sml_call *first, *plain, *again;

    fixture_pump(f);
    assert_false(f->link.caller.keys);
    first = submit_keyed(f, "x", "k");
    plain = fixture_submit(f, "y");
    again = submit_keyed(f, "z", "k");
    again->rerun = true; /* an earlier process may have sent it: nothing is proven */
    fixture_pump(f);
    fixture_expect(f, first, SEMEL_NOT_EXECUTED, SEMEL_NO_KEYS, NULL);
    fixture_expect(f, again, SEMEL_UNKNOWN, SEMEL_NO_KEYS, NULL);
    assert_int_equal(fixture_callee(f)->hi, 1);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "r");
    fixture_pump(f);
    fixture_expect(f, plain, SEMEL_VALUE, SEMEL_OK, "r");
    assert_int_equal(f->link.state, SML_LINK_UP);
}

static void a_new_key_has_no_age(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call;

    fixture_cut(f);
    call = submit_keyed(f, "x", "order-17");
    call->key_age_ms = 5000; /* means nothing of a key that was not used before */
    f->refuse = true;
    fixture_pass(f, SML_SECOND);
    f->refuse = false;
    fixture_pass(f, 5 * SML_SECOND);
    assert_string_equal(ready(f)->key, "order-17");
    assert_int_equal(ready(f)->key_age_ms, 0);
    assert_int_equal(ready(f)->flags, 0);
}

static void a_keyed_call_is_made_again_with_its_age(void **state)
{
    struct fixture *f = *state;
    struct sml_call *first = submit_keyed(f, "x", "k1"), *second = submit_keyed(f, "y", "k2");

    second->rerun = true;
    second->key_age_ms = 60000; /* by the word of who submits it */
    fixture_pump(f);
    assert_int_equal(ready(f)->key_age_ms, 0);
    fixture_begin(f);
    assert_int_equal(ready(f)->key_age_ms, 60000);
    fixture_finish(f, sml_table_find(&fixture_callee(f)->table, 1), SEMEL_VALUE, "lost");
    lose_session(f);
    f->now += 3 * SML_SECOND;
    fixture_pump(f);
    assert_true(first->rerun);
    assert_int_equal(ready(f)->key_age_ms, 3000);
    assert_int_equal(ready(f)->flags, 0); /* no origin: the key says it */
    assert_string_equal(ready(f)->key, "k1");
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "as before");
    assert_int_equal(ready(f)->key_age_ms, 63000);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "as before");
    fixture_pump(f);
    fixture_expect(f, first, SEMEL_VALUE, SEMEL_OK, "as before");
    fixture_expect(f, second, SEMEL_VALUE, SEMEL_OK, "as before");
}

/* However quickly it comes again, the server must not take its key for a new one. */
static void an_age_is_at_least_one(void **state)
{
    struct fixture *f = *state;

    submit_keyed(f, "x", "k");
    fixture_pump(f);
    lose_session(f);
    fixture_pump(f);
    assert_int_equal(ready(f)->key_age_ms, 1);
}

static void a_call_that_was_refused_was_not_made_before(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = submit_keyed(f, "x", "k");

    fixture_pump(f);
    refuse_one(f, 20);
    fixture_pump(f);
    lose_session(f);
    fixture_pump(f);
    assert_false(call->rerun);
    assert_int_equal(ready(f)->key_age_ms, 0);
    sml_callee_reject(fixture_callee(f), sml_callee_take(fixture_callee(f)), SEMEL_NO_METHOD, "m");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_NOT_EXECUTED, SEMEL_NO_METHOD, "m");
}

static void a_call_that_may_run_again_says_where_it_was_first(void **state)
{
    struct fixture *f = *state;
    struct sml_call *other = fixture_submit(f, "o"), *call = fixture_submit(f, "x");
    struct sml_session_id first = f->link.session;

    call->flags = SML_CALL_RERUN_OK;
    fixture_pump(f);
    assert_int_equal(ready(f)->flags, 0);
    for (int i = 0; i < 3; i++) { /* lost as often as you like */
        lose_session(f);
        fixture_pass(f, SML_SECOND);
        assert_memory_not_equal(f->link.session.bytes, first.bytes, 16);
        assert_int_equal(ready(f)->xid, 1);
        assert_int_equal(ready(f)->flags, SML_CALL_RERUN_OK | SML_CALL_ORIGIN);
        assert_memory_equal(ready(f)->origin.session.bytes, first.bytes, 16);
        assert_int_equal(ready(f)->origin.xid, 2);
    }
    fixture_expect(f, other, SEMEL_UNKNOWN, SEMEL_SESSION_LOST, NULL);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "r");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "r");
}

static void what_is_made_again_keeps_its_order(void **state)
{
    struct fixture *f = *state;
    struct sml_call *calls[4];

    for (int i = 0; i < 4; i++)
        calls[i] = i % 2 ? submit_keyed(f, "x", "k") : fixture_submit(f, "x");
    calls[0]->flags = calls[2]->flags = SML_CALL_RERUN_OK;
    fixture_pump(f);
    lose_session(f);
    fixture_pump(f);
    for (uint64_t i = 0; i < 4; i++)
        assert_int_equal(calls[i]->xid, i + 1);
    fixture_cut(f);
}

/* Nobody waits for it any more, or could. */
static void what_is_cancelled_is_not_made_again(void **state)
{
    struct fixture *f = *state;
    struct sml_call *cancelled = submit_keyed(f, "x", "k"), *late;

    fixture_pump(f);
    sml_caller_cancel(&f->link.caller, cancelled, f->now);
    lose_session(f);
    fixture_pump(f);
    fixture_expect(f, cancelled, SEMEL_UNKNOWN, SEMEL_SESSION_LOST, NULL);
    late = submit_keyed(f, "y", "k");
    fixture_pump(f);
    assert_int_equal(fixture_callee(f)->hi, 1);
    lose_session(f);
    f->now += 30 * SML_SECOND;
    fixture_pump(f);
    fixture_expect(f, late, SEMEL_UNKNOWN, SEMEL_SESSION_LOST, NULL);
    assert_int_equal(f->link.state, SML_LINK_UP);
    assert_int_equal(fixture_callee(f)->hi, 0);
}

/* A reply with this verdict for the call that waits. */
static void say_not_executed(struct fixture *f, uint64_t xid, enum semel_status why, uint8_t flags)
{
    struct sml_reply_frame reply = { .flags = flags,
                                     .verdict = { .outcome = SEMEL_NOT_EXECUTED, .status = why } };

    f->down.size = sml_encode_reply(f->down.bytes, xid, &reply);
    fixture_to_link(f);
}

static void not_executed_proves_nothing_of_what_was_made_before(void **state)
{
    static const struct {
        enum semel_status said, read;
        uint8_t flags;
        bool late; /* the deadline has sent a CANCEL of its own */
    } rows[] = { { SEMEL_CANCELLED, SEMEL_DEADLINE, 0, .late = true },
                 { SEMEL_CANCELLED, SEMEL_CANCELLED, 0 }, /* by whoever looks after the server */
                 { SEMEL_EXPIRED, SEMEL_DEADLINE, SML_REPLY_RECORDED },
                 { SEMEL_OVERLOADED, SEMEL_OVERLOADED, 0 },
                 { SEMEL_KEY_MISMATCH, SEMEL_KEY_MISMATCH, SML_REPLY_PROVEN },
                 { SEMEL_EXPIRED, SEMEL_EXPIRED, SML_REPLY_PROVEN | SML_REPLY_RECORDED } };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct sml_call *call = submit_keyed(f, "x", "k");
        bool proven = (rows[i].flags & SML_REPLY_PROVEN) != 0;

        call->rerun = true;
        fixture_pump(f);
        if (rows[i].late)
            sml_caller_tick(&f->link.caller, call->deadline);
        say_not_executed(f, call->xid, rows[i].said, rows[i].flags);
        fixture_expect(f, call, proven ? SEMEL_NOT_EXECUTED : SEMEL_UNKNOWN, rows[i].read, NULL);
        fixture_pump(f);
    }
}

static void nor_does_an_end_of_its_own(void **state)
{
    struct fixture *f = *state;
    struct sml_call *late, *cancelled;

    fixture_cut(f);
    f->refuse = true;
    late = submit_keyed(f, "x", "k");
    cancelled = submit_keyed(f, "y", "k");
    late->rerun = cancelled->rerun = true;
    sml_caller_cancel(&f->link.caller, cancelled, f->now);
    fixture_expect(f, cancelled, SEMEL_UNKNOWN, SEMEL_CANCELLED, NULL);
    fixture_pass(f, 30 * SML_SECOND);
    fixture_expect(f, late, SEMEL_UNKNOWN, SEMEL_DEADLINE, NULL);
}

/* Value and failure are what they are. */
static void a_verdict_of_what_was_made_before_counts(void **state)
{
    struct fixture *f = *state;
    struct sml_call *value = submit_keyed(f, "x", "k"), *failure = submit_keyed(f, "y", "k");

    value->rerun = failure->rerun = true;
    fixture_pump(f);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "v");
    fixture_finish(f, fixture_begin(f), SEMEL_FAILURE, "f");
    fixture_pump(f);
    fixture_expect(f, value, SEMEL_VALUE, SEMEL_OK, "v");
    fixture_expect(f, failure, SEMEL_FAILURE, SEMEL_FAILED, "f");
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }
#define KEYS(name, function) { name, function, set_up_keys, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH("a full queue is a status", a_full_queue_is_a_status),
        FRESH("a passed deadline is not executed", a_passed_deadline_is_not_executed),
        FRESH("a call without a deadline waits for its verdict",
              a_call_without_a_deadline_waits_for_its_verdict),
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
        FRESH("a server without keys is sent none", a_server_without_keys_is_sent_none),
        KEYS("a new key has no age", a_new_key_has_no_age),
        KEYS("a keyed call is made again with its age", a_keyed_call_is_made_again_with_its_age),
        KEYS("an age is at least one", an_age_is_at_least_one),
        KEYS("a call that was refused was not made before",
             a_call_that_was_refused_was_not_made_before),
        KEYS("a call that may run again says where it was first",
             a_call_that_may_run_again_says_where_it_was_first),
        KEYS("what is made again keeps its order", what_is_made_again_keeps_its_order),
        KEYS("what is cancelled is not made again", what_is_cancelled_is_not_made_again),
        KEYS("not executed proves nothing of what was made before",
             not_executed_proves_nothing_of_what_was_made_before),
        KEYS("nor does an end of its own", nor_does_an_end_of_its_own),
        KEYS("a verdict of what was made before counts", a_verdict_of_what_was_made_before_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
