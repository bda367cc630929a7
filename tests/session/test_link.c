/* SPDX-License-Identifier: MIT */
/* A link against a host: breaking, resuming, backing off, giving up, ending. */
#include "fixture.h"

#include "link_kept.h"

static int set_up(void **state)
{
    struct fixture *f = fixture_new();

    fixture_start(f);
    fixture_pump(f);
    assert_int_equal(f->link.state, SML_LINK_UP);
    *state = f;
    return 0;
}

static int set_up_refused(void **state)
{
    struct fixture *f = fixture_new();

    f->refuse = true;
    f->link_options.addresses = 3;
    fixture_start(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

static void a_call_and_its_answer(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "hello");

    fixture_pump(f);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "world");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "world");
    assert_int_equal(fixture_callee(f)->table.count, 1);
    fixture_pass(f, 24 * SML_MS);
    assert_int_equal(fixture_callee(f)->table.count, 1);
    fixture_pass(f, SML_MS); /* the acknowledgement waits 25 ms for company */
    assert_int_equal(fixture_callee(f)->table.count, 0);
}

static void s6_handler_failure(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "x");

    fixture_pump(f);
    fixture_finish(f, fixture_begin(f), SEMEL_FAILURE, "no such account");
    fixture_cut(f); /* before the failure could leave */
    fixture_pump(f);
    assert_int_equal(f->connects, 2);
    assert_null(fixture_begin(f)); /* replayed, not run again */
    assert_int_equal(f->link.caller.counters.replayed, 1);
    fixture_expect(f, call, SEMEL_FAILURE, SEMEL_FAILED, "no such account");
}

static void a_running_call_is_found_again(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "x");
    struct sml_incoming *in;

    fixture_pump(f);
    in = fixture_begin(f);
    for (int i = 0; i < 5; i++) {
        fixture_cut(f);
        fixture_pump(f);
        assert_null(fixture_begin(f));
        fixture_pass(f, 20 * SML_MS);
    }
    assert_int_equal(f->link.caller.counters.reattached, 5);
    fixture_finish(f, in, SEMEL_VALUE, "once");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "once");
}

static void m12_deadline(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "x");
    struct sml_incoming *in;

    fixture_pump(f);
    in = fixture_begin(f);
    fixture_pass(f, 30 * SML_SECOND);
    assert_true(atomic_load(&in->cancelled)); /* the callee is told */
    assert_null(sml_caller_next_done(&f->link.caller));
    fixture_pass(f, SML_SECOND);
    fixture_expect(f, call, SEMEL_UNKNOWN, SEMEL_DEADLINE, NULL);
    fixture_pump(f);
    assert_true(atomic_load(&in->gone));        /* and told that nobody waits */
    fixture_finish(f, in, SEMEL_VALUE, "late"); /* dropped */
    fixture_pump(f);
    assert_null(sml_caller_next_done(&f->link.caller));
    call = fixture_submit(f, "y");
    fixture_pump(f);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "next");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "next");
}

static void a_verdict_within_the_grace_counts(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "x");
    struct sml_incoming *in;

    fixture_pump(f);
    in = fixture_begin(f);
    fixture_pass(f, 30 * SML_SECOND + 500 * SML_MS);
    fixture_finish(f, in, SEMEL_VALUE, "just");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "just");
}

static void cancel_before_and_after_sending(void **state)
{
    struct fixture *f = *state;
    struct sml_call *queued, *sent;

    sent = fixture_submit(f, "x");
    fixture_pump(f);
    sml_caller_cancel(&f->link.caller, sent, f->now);
    fixture_pump(f); /* READY at the callee: withdrawn */
    fixture_expect(f, sent, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED, NULL);
    fixture_cut(f);
    queued = fixture_submit(f, "y");
    sml_caller_cancel(&f->link.caller, queued, f->now);
    fixture_expect(f, queued, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED, NULL);
    fixture_pump(f);
    assert_null(fixture_begin(f));
}

static void s8_end_session(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(f->host.session_count, 1);
    sml_link_stop(&f->link, f->now);
    fixture_actions(f);
    assert_int_equal(f->host.session_count, 0);
    assert_int_equal(f->host.counters.ended, 1);
    sml_link_stop(&f->link, f->now); /* again: harmless */
    fixture_actions(f);
    assert_int_equal(f->link.state, SML_LINK_STOPPED);
}

/* What was accepted is acknowledged, also by a client that leaves at once. */
static void s8_acks_before_bye(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "x");
    static uint8_t out[4 * SML_FRAME_BYTES_MAX];
    struct sml_frame frame;
    size_t size, used, bye;
    const char *why;

    fixture_pump(f);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "y");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "y");
    sml_link_stop(&f->link, f->now);
    size = sml_link_pull(&f->link, out, sizeof out, f->now);
    assert_int_equal(sml_frame_decode(out, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why),
                     SML_DECODED);
    assert_int_equal(frame.type, SML_ACK);
    assert_int_equal(sml_ack_range(&frame.u.ack, 0).first, 1);
    assert_int_equal(
        sml_frame_decode(out + used, size - used, SML_PAYLOAD_BYTES_MAX, &frame, &bye, &why),
        SML_DECODED);
    assert_int_equal(frame.type, SML_BYE);
    assert_int_equal(used + bye, size);
}

static void s9_unknown_session(void **state)
{
    struct fixture *f = *state;
    struct sml_call *sent = fixture_submit(f, "x"), *again = fixture_submit(f, "z"), *queued;
    struct sml_session *session;

    again->flags = SML_CALL_RERUN_OK;
    fixture_pump(f);
    fixture_cut(f);
    queued = fixture_submit(f, "y");
    session = SML_CONTAINER(f->host.sessions.next, struct sml_session, all);
    sml_host_end(&f->host, session); /* the server forgot, as after a restart */
    sml_session_free(&f->host, session);
    fixture_pump(f);
    /* Said at once, not after a minute of retries; what was never sent goes on. */
    assert_int_equal(f->link.counters.sessions_lost, 1);
    fixture_expect(f, sent, SEMEL_UNKNOWN, SEMEL_SESSION_LOST, NULL);
    assert_int_equal(f->link.state, SML_LINK_UP);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "rerun");
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "first run");
    fixture_pump(f);
    fixture_expect(f, again, SEMEL_VALUE, SEMEL_OK, "rerun");
    fixture_expect(f, queued, SEMEL_VALUE, SEMEL_OK, "first run");
}

static void s9_orphan(void **state)
{
    struct fixture *f = *state;
    struct sml_session *session;

    fixture_cut(f);
    f->refuse = true;
    fixture_pass(f, 299 * SML_SECOND);
    assert_null(sml_host_next_expired(&f->host, f->now));
    fixture_pass(f, SML_SECOND);
    session = sml_host_next_expired(&f->host, f->now);
    assert_non_null(session);
    sml_host_end(&f->host, session);
    sml_session_free(&f->host, session);
    assert_int_equal(f->host.session_count, 0);
}

static void a_session_with_a_running_call_does_not_expire(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "x");
    struct sml_incoming *in;

    call->deadline = SML_NEVER - 1;
    f->link.options.give_up = SML_NEVER;
    fixture_pump(f);
    in = fixture_begin(f);
    fixture_cut(f);
    f->refuse = true;
    fixture_pass(f, 1000 * SML_SECOND);
    assert_null(sml_host_next_expired(&f->host, f->now));
    fixture_finish(f, in, SEMEL_VALUE, "kept");
    fixture_pass(f, 2 * SML_SECOND);
    assert_non_null(sml_host_next_expired(&f->host, f->now));
}

static void s10_a_late_call_has_its_own_time(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call;

    f->refuse = true;
    fixture_cut(f);
    fixture_pass(f, 100 * SML_SECOND); /* nothing to give up: nobody waits */
    call = fixture_submit(f, "x");
    fixture_pump(f);
    assert_null(sml_caller_next_done(&f->link.caller));
    f->refuse = false;
    fixture_pass(f, 5 * SML_SECOND);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "r");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "r");
}

/* The ceiling of the delay before attempt `i` (from 1): 0.5 s * 2^((i-1)/3), at most 5 s. */
static uint64_t curve(int i)
{
    static const double third[] = { 1.0, 1.259921, 1.587401 };
    double seconds = 0.5 * third[(i - 1) % 3];

    for (int k = 0; k < (i - 1) / 3; k++)
        seconds *= 2;
    return (uint64_t)((seconds > 5 ? 5 : seconds) * 1e9);
}

static void s10_backoff(void **state)
{
    struct fixture *f = *state;
    uint64_t longest = 0;

    fixture_pass(f, 20 * SML_MS);
    f->refuse = true;
    fixture_cut(f);
    fixture_pump(f);
    assert_int_equal(f->connects, 2); /* the first attempt is immediate */
    for (int i = 1; i <= 20; i++) {
        uint64_t delay = f->link.next_attempt - f->now;

        assert_in_range(delay, 100 * SML_MS, curve(i) + curve(i) / 500);
        longest = delay > longest ? delay : longest;
        fixture_pass(f, delay - 1);
        assert_int_equal(f->connects, 1 + (uint32_t)i);
        fixture_pass(f, 1);
        assert_int_equal(f->connects, 2 + (uint32_t)i);
    }
    assert_true(longest > SML_SECOND); /* it does grow */
    f->refuse = false;
    fixture_pass(f, 5 * SML_SECOND);
    assert_int_equal(f->link.state, SML_LINK_UP);
}

static void s10_give_up(void **state)
{
    struct fixture *f = *state;
    struct sml_call *sent = fixture_submit(f, "x"), *queued;

    sent->deadline = f->now + 1000 * SML_SECOND;
    fixture_pump(f);
    f->refuse = true;
    fixture_cut(f);
    queued = fixture_submit(f, "y");
    queued->deadline = f->now + 1000 * SML_SECOND;
    fixture_pass(f, 29 * SML_SECOND);
    fixture_pass(f, 30 * SML_SECOND);
    assert_null(sml_caller_next_done(&f->link.caller));
    sent->deadline = f->now + 1000 * SML_SECOND;
    fixture_pass(f, SML_SECOND);
    fixture_expect(f, sent, SEMEL_UNKNOWN, SEMEL_PEER_DIED, NULL);
    fixture_expect(f, queued, SEMEL_NOT_EXECUTED, SEMEL_PEER_DIED, NULL);
    f->refuse = false;
    queued = fixture_submit(f, "z"); /* later calls open a new session */
    fixture_pass(f, 5 * SML_SECOND);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "new");
    fixture_pump(f);
    fixture_expect(f, queued, SEMEL_VALUE, SEMEL_OK, "new");
}

static void s11_every_address_gets_its_turn(void **state)
{
    struct fixture *f = *state;

    fixture_pump(f);
    /* A round over all three without delay, each counted, then a pause. */
    assert_int_equal(f->connects, 3);
    assert_true(f->link.next_attempt > f->now);
    fixture_pass(f, 5 * SML_SECOND);
    assert_true(f->connects >= 6);
    f->refuse = false;
    fixture_pass(f, 5 * SML_SECOND);
    assert_int_equal(f->link.state, SML_LINK_UP);
}

static void with_calls_outstanding_only_the_own_server_is_tried(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call;
    uint32_t own;

    f->refuse = false;
    fixture_pump(f);
    own = f->link.session_address;
    call = fixture_submit(f, "x");
    fixture_pump(f);
    f->refuse = true;
    fixture_cut(f);
    for (int i = 0; i < 4; i++) {
        fixture_pass(f, 5 * SML_SECOND);
        assert_int_equal(f->link.address, own);
    }
    f->refuse = false;
    fixture_pass(f, 5 * SML_SECOND);
    assert_null(sml_caller_next_done(&f->link.caller));
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "same server");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "same server");
}

static void m4_without_reconnecting_the_first_loss_is_final(void **state)
{
    struct fixture *f = *state;
    struct sml_call *sent = fixture_submit(f, "x"), late = { .method = "m", .method_bytes = 1 };

    f->link.options.reconnect = false;
    fixture_pump(f);
    fixture_cut(f);
    assert_int_equal(f->link.state, SML_LINK_FAILED);
    fixture_expect(f, sent, SEMEL_UNKNOWN, SEMEL_LINK_LOST, NULL);
    assert_int_equal(sml_link_submit(&f->link, &late, f->now), SEMEL_LINK_LOST);
}

static void silence_is_a_lost_link(void **state)
{
    struct fixture *f = *state;
    uint64_t lost = f->link.counters.lost;

    /* Time passes for the link alone: its PINGs are pulled but reach nobody. */
    for (int i = 0; i < 20; i++) {
        f->now += SML_SECOND;
        sml_link_tick(&f->link, f->now);
        if (f->link.state != SML_LINK_UP)
            break;
        f->up.size = sml_link_pull(&f->link, f->up.bytes, PIPE_BYTES, f->now);
    }
    assert_int_not_equal(f->link.state, SML_LINK_UP);
    assert_int_equal(f->link.counters.lost, lost + 1);
    assert_int_equal(f->link.why, SEMEL_LINK_LOST);
    f->up.size = 0;
    fixture_pump(f);
    assert_int_equal(f->link.state, SML_LINK_UP);
}

static void pings_keep_an_idle_connection(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 100; i++)
        fixture_pass(f, SML_SECOND);
    assert_int_equal(f->connects, 1);
    assert_int_equal(f->link.state, SML_LINK_UP);
    assert_true(f->now - f->peer.last_heard < 6 * SML_SECOND);
}

static void busy_is_patience_not_a_verdict(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "x");

    fixture_pump(f);
    for (int i = 0; i < 3; i++) {
        struct sml_callee *callee = fixture_callee(f);

        sml_callee_refuse(callee, sml_callee_take(callee), 20);
        fixture_pump(f);
        assert_null(sml_callee_take(callee));
        fixture_pass(f, 19 * SML_MS);
        assert_null(sml_callee_take(callee));
        fixture_pass(f, SML_MS);
    }
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, "at last");
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, "at last");
    assert_int_equal(f->link.caller.counters.busy, 3);
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }
#define REFUSED(name, function) { name, function, set_up_refused, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH("a call and its answer", a_call_and_its_answer),
        FRESH("S6 handler failure: stored, a re-request receives it", s6_handler_failure),
        FRESH("a running call is found again", a_running_call_is_found_again),
        FRESH("M12 per-call deadline: late reply dropped, callee told", m12_deadline),
        FRESH("a verdict within the grace counts", a_verdict_within_the_grace_counts),
        FRESH("cancel before and after sending", cancel_before_and_after_sending),
        FRESH("S8 end session: BYE removes state, twice is harmless", s8_end_session),
        FRESH("S8 end session: what was accepted is acknowledged first", s8_acks_before_bye),
        FRESH("S9 unknown session: rejected explicitly, fails fast", s9_unknown_session),
        FRESH("S9 lost hello: an orphan is collected by the idle limit", s9_orphan),
        FRESH("a session with a running call does not expire",
              a_session_with_a_running_call_does_not_expire),
        FRESH("S10 backoff: 0, then below the curve", s10_backoff),
        FRESH("S10 backoff: gives up after its limit", s10_give_up),
        FRESH("S10 backoff: a late call is not given up with the time before it",
              s10_a_late_call_has_its_own_time),
        REFUSED("S11 multi-address: each gets its turn", s11_every_address_gets_its_turn),
        REFUSED("with calls outstanding only the own server is tried",
                with_calls_outstanding_only_the_own_server_is_tried),
        FRESH("M4 peer death: final without reconnecting",
              m4_without_reconnecting_the_first_loss_is_final),
        FRESH("silence is a lost link", silence_is_a_lost_link),
        FRESH("pings keep an idle connection", pings_keep_an_idle_connection),
        FRESH("busy is patience, not a verdict", busy_is_patience_not_a_verdict),
    };

    return cmocka_run_group_tests(tests, NULL, NULL) + link_kept();
}
