/* SPDX-License-Identifier: MIT */
/* Calls with streams, both ends joined: cuts anywhere, refusals, cancels, slow readers, peers that
 * cheat, and no memory. */
#include "talk.h"

#define PARTS 12

/* --- whole streams ----------------------------------------------------------------------- */

static void streams_flow(void **state)
{
    static const size_t sizes[] = { 1, 1000, SML_FRAGMENT_BYTES };
    struct talk t;

    for (int way = 1; way <= 3; way++) {
        for (size_t i = 0; i < 3; i++) {
            talk_begin(&t, *state, 70, sizes[i], (way & 1) != 0, (way & 2) != 0);
            talk_run(&t, FAR, FAR, 0);
            talk_expect_whole(&t);
            talk_end(&t, SEMEL_VALUE, SEMEL_OK);
        }
    }
}

static uint64_t cut_once(int way, uint64_t up, uint64_t down)
{
    struct fixture *f = world_new();
    struct talk t;
    uint64_t reconnects;

    talk_begin(&t, f, PARTS, 5, (way & 1) != 0, (way & 2) != 0);
    talk_run(&t, up, down, 1);
    talk_expect_whole(&t);
    reconnects = f->link.counters.lost;
    talk_end(&t, SEMEL_VALUE, SEMEL_OK);
    fixture_free(f);
    assert_int_equal(memory.live, 0);
    return reconnects;
}

/* As long as there is something to cut. */
static void a_cut_at_any_byte_loses_and_repeats_nothing(void **state)
{
    (void)state;
    for (int way = 1; way <= 3; way++) {
        uint64_t at = 0;

        while (cut_once(way, at, FAR) > 0)
            at++;
        assert_true(at > 200);
        for (at = 0; cut_once(way, FAR, at) > 0;)
            at++;
        assert_true(at > 120);
    }
}

/* Large parts, and a cut wherever a few hundred bytes of them have passed a greeting. */
static void many_cuts(void **state)
{
    (void)state;
    for (uint64_t bytes = 500; bytes < 200000; bytes += bytes / 3 + 61) {
        for (int way = 1; way <= 3; way++) {
            struct fixture *f = world_new();
            struct talk t;

            talk_begin(&t, f, 40, bytes < 5000 ? 100 : 9000, (way & 1) != 0, (way & 2) != 0);
            talk_run(&t, bytes, FAR, 20);
            if (sml_list_empty(&f->link.caller.done))
                talk_run(&t, FAR, FAR, 0);
            talk_expect_whole(&t);
            talk_end(&t, SEMEL_VALUE, SEMEL_OK);
            talk_begin(&t, f, 40, bytes < 5000 ? 100 : 9000, (way & 1) != 0, (way & 2) != 0);
            talk_run(&t, FAR, bytes, 20);
            if (sml_list_empty(&f->link.caller.done))
                talk_run(&t, FAR, FAR, 0);
            talk_expect_whole(&t);
            talk_end(&t, SEMEL_VALUE, SEMEL_OK);
            fixture_free(f);
        }
    }
}

/* The reply of a stream is long, and the connection breaks inside. */
static void a_cut_reply_goes_on_without_another_end(void **state)
{
    struct fixture *f = *state;
    static char body[200 * 1000];
    struct sml_verdict verdict = { .outcome = SEMEL_VALUE };
    struct talk t;
    uint64_t up = FAR, down = 3 * SML_FRAGMENT_BYTES;
    uint8_t *reply;

    memset(body, 'b', sizeof body);
    talk_begin(&t, f, 1, 5, false, true);
    pump_all(f);
    t.in = fixture_begin(f);
    assert_true(sml_callee_send_part(fixture_callee(f), t.in, make_part(&t, 0)));
    assert_true(
        sml_callee_send_part(fixture_callee(f), t.in,
                             sml_part_create(&mem, SML_PART_PROGRESS, semel_bytes_text("half"))));
    reply = sml_callee_reply_alloc(fixture_callee(f), sizeof body);
    memcpy(reply, body, sizeof body);
    verdict.body = semel_bytes(reply, sizeof body);
    assert_true(sml_callee_finish(fixture_callee(f), t.in, &verdict, reply));
    assert_true(pump(f, &up, &down));
    assert_int_equal(t.call->phase, SML_CALL_REPLYING);
    assert_true(t.stream.in.ended);
    fixture_pass(f, SML_SECOND);
    assert_int_equal(f->link.counters.protocol_errors, 0);
    assert_int_equal(t.call->phase, SML_CALL_DONE);
    assert_int_equal(t.call->verdict.body.size, sizeof body);
    t.echoed = 1;
    talk_expect_whole(&t);
    sml_release(&mem, t.call->reply);
    t.call->reply = NULL;
    talk_end(&t, SEMEL_VALUE, SEMEL_OK);
}

/* --- refused and sent again -------------------------------------------------------------- */

static void a_refused_call_begins_its_stream_again(void **state)
{
    struct fixture *f = *state;
    struct sml_incoming *in;
    struct talk t;

    talk_begin(&t, f, PARTS, 1000, true, true);
    caller_step(&t);
    pump_all(f);
    fixture_cut(f); /* so that a CREDIT is due, too */
    fixture_pump(f);
    for (int i = 0; i < 3; i++) {
        in = sml_callee_take(fixture_callee(f));
        assert_non_null(in);
        assert_int_equal(in->stream->in.arrived, PARTS);
        sml_callee_refuse(fixture_callee(f), in, 20);
        assert_null(in->stream);
        pump_all(f);
        assert_int_equal(t.call->phase, SML_CALL_BUSY);
        assert_false(sml_link_wants_write(&f->link, f->now));
        if (i == 1) {
            fixture_cut(f);
            fixture_pump(f);
        }
        fixture_pass(f, 20 * SML_MS);
    }
    talk_run(&t, FAR, FAR, 0);
    talk_expect_whole(&t);
    talk_end(&t, SEMEL_VALUE, SEMEL_OK);
}

/* A PART that was under way when its call was refused, and a CREDIT likewise. */
static void what_is_stale_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct sml_callee *callee;
    struct sml_frame part = { .type = SML_PART, .xid = 1 }, credit = { .type = SML_CREDIT };
    const char *why = NULL;
    struct talk t;

    part.u.part = (struct sml_part_frame){ 9, SML_PART_ITEM, { "x", 1 } };
    credit.xid = 1;
    credit.u.credit = (struct sml_credit_frame){ 9, 9, 9 };
    talk_begin(&t, f, 3, 10, true, true);
    pump_all(f);
    callee = fixture_callee(f);
    sml_callee_refuse(callee, sml_callee_take(callee), 20);
    assert_int_equal(sml_callee_frame(callee, &part, f->now, &why), SEMEL_OK);
    assert_int_equal(sml_callee_frame(callee, &credit, f->now, &why), SEMEL_OK);
    assert_int_equal(callee->counters.stale, 1);
    pump_all(f);
    fixture_pass(f, 20 * SML_MS);
    talk_run(&t, FAR, FAR, 0);
    assert_int_equal(sml_callee_frame(callee, &part, f->now, &why), SEMEL_OK); /* done */
    talk_expect_whole(&t);
    talk_end(&t, SEMEL_VALUE, SEMEL_OK);
    fixture_pass(f, SML_SECOND);
    assert_int_equal(sml_callee_frame(callee, &part, f->now, &why), SEMEL_OK); /* released */
    assert_int_equal(sml_callee_frame(callee, &credit, f->now, &why), SEMEL_OK);
    assert_int_equal(callee->counters.stale, 3);
    assert_int_equal(sml_caller_frame(&f->link.caller, &part, f->now, &why), SEMEL_OK);
    assert_int_equal(sml_caller_frame(&f->link.caller, &credit, f->now, &why), SEMEL_OK);
    assert_int_equal(f->link.caller.counters.unexpected, 2);
}

/* What the server took is gone with it: nothing is made up of two halves. */
static void parts_that_are_lost_are_not_made_up(void **state)
{
    struct fixture *f = *state;
    struct sml_listed expected = { .xid = 1, .state = SML_STATE_EXPECTED };
    const char *why = NULL;
    struct talk t;

    talk_begin(&t, f, 600, 1000, true, false);
    t.ended = true; /* it has more to say */
    caller_step(&t);
    pump_all(f);
    handler_step(&t);
    pump_all(f);
    assert_true(t.stream.out.taken > 0);
    fixture_cut(f);
    assert_int_equal(sml_caller_state(&f->link.caller, &expected, f->now, &why), SEMEL_OK);
    assert_int_equal(t.call->phase, SML_CALL_DONE);
    fixture_pump(f);
    talk_end(&t, SEMEL_UNKNOWN, SEMEL_PARTS_LOST);
    (void)sml_callee_finish(fixture_callee(f), t.in, &(struct sml_verdict){ 0 }, NULL);
}

/* The server forgot the call, and runs it again. */
static void a_stream_that_runs_again_is_a_new_attempt(void **state)
{
    struct fixture *f = *state;
    struct talk t;

    talk_begin(&t, f, 5, 10, false, true);
    t.call->flags |= SML_CALL_RERUN_OK;
    pump_all(f);
    t.in = fixture_begin(f);
    assert_true(sml_callee_send_part(fixture_callee(f), t.in, make_part(&t, 0)));
    pump_all(f);
    caller_take(&t);
    assert_int_equal(t.back, 1);
    assert_ptr_equal(sml_caller_next_event(&f->link.caller), t.call);
    assert_null(sml_caller_next_event(&f->link.caller));
    fixture_cut(f);
    (void)sml_callee_finish(fixture_callee(f), t.in, &(struct sml_verdict){ 0 }, NULL);
    fixture_end(f, SML_CONTAINER(f->host.sessions.next, struct sml_session, all));
    t.in = NULL;
    fixture_pump(f);
    assert_int_equal(f->link.counters.sessions_lost, 1);
    assert_ptr_equal(sml_caller_next_event(&f->link.caller), t.call);
    talk_run(&t, FAR, FAR, 0);
    talk_expect_whole(&t);
    assert_int_equal(t.attempt, 1);
    talk_end(&t, SEMEL_VALUE, SEMEL_OK);
}

/* --- verdicts, cancels, the end ---------------------------------------------------------- */

static void a_verdict_waits_for_the_parts_before_it(void **state)
{
    struct fixture *f = *state;
    struct talk t;

    f->link.caller.windows = SML_STREAM_WINDOWS;
    talk_begin(&t, f, 20, 10000, false, true);
    t.caller_reads = false;
    for (int i = 0; i < 20; i++) {
        caller_take(&t);
        handler_step(&t);
        pump_all(f);
    }
    assert_true(t.finished);
    assert_int_equal(t.call->phase, SML_CALL_SENT);
    assert_int_equal(t.stream.in.arrived, 13); /* of 20: what its credit allows */
    assert_int_equal(fixture_callee(f)->counters.values, 1);
    assert_false(sml_peer_wants_write(&f->peer));
    /* Nor does a reconnect hurry it. */
    fixture_cut(f);
    fixture_pump(f);
    assert_int_equal(t.call->phase, SML_CALL_SENT);
    t.caller_reads = true;
    caller_take(&t);
    for (int i = 0; i < 10; i++) {
        caller_take(&t);
        pump_all(f);
    }
    assert_int_equal(t.call->phase, SML_CALL_DONE);
    f->link.caller.windows = 0;
    talk_expect_whole(&t);
    talk_end(&t, SEMEL_VALUE, SEMEL_OK);
}

static void expect_cut_stream(struct talk *t)
{
    assert_int_equal(t->call->phase, SML_CALL_DONE);
    assert_false(t->stream.in.ended);
    t->caller_reads = true;
    caller_take(t);
    assert_true(t->back > 0 && t->back < t->total);
    t->f->link.caller.windows = 0;
    talk_end(t, SEMEL_VALUE, SEMEL_OK);
}

static void say_all(struct talk *t)
{
    while (t->echoed < t->total)
        assert_true(sml_callee_send_part(fixture_callee(t->f), t->in, make_part(t, t->echoed++)));
    pump_all(t->f);
}

static void a_cancelled_call_has_its_verdict_without_the_end(void **state)
{
    struct fixture *f = *state;
    struct talk t;

    /* Cancelled while its handler runs; ... */
    f->link.caller.windows = SML_STREAM_WINDOWS;
    talk_begin(&t, f, 20, 10000, false, true);
    t.caller_reads = false;
    pump_all(f);
    t.in = fixture_begin(f);
    say_all(&t);
    sml_caller_cancel(&f->link.caller, t.call, f->now);
    pump_all(f);
    assert_ptr_equal(sml_callee_next_cancelled(fixture_callee(f)), t.in);
    finish(&t);
    pump_all(f);
    expect_cut_stream(&t);
    /* ... when its verdict waits; ... */
    f->link.caller.windows = SML_STREAM_WINDOWS;
    talk_begin(&t, f, 20, 10000, false, true);
    t.caller_reads = false;
    pump_all(f);
    t.in = fixture_begin(f);
    say_all(&t);
    finish(&t);
    pump_all(f);
    assert_int_equal(t.call->phase, SML_CALL_SENT);
    sml_caller_cancel(&f->link.caller, t.call, f->now);
    pump_all(f);
    expect_cut_stream(&t);
    /* ... and its reply is lost, and asked for again. */
    f->link.caller.windows = SML_STREAM_WINDOWS;
    talk_begin(&t, f, 20, 10000, false, true);
    t.caller_reads = false;
    pump_all(f);
    t.in = fixture_begin(f);
    say_all(&t);
    finish(&t);
    sml_caller_cancel(&f->link.caller, t.call, f->now);
    f->up.size += pull_up(f);
    fixture_to_host(f);
    assert_true(pull_down(f) > 0); /* which nobody reads */
    fixture_cut(f);
    assert_int_equal(t.call->phase, SML_CALL_SENT);
    fixture_pump(f);
    expect_cut_stream(&t);
}

/* Parts that may go still go: what was said before the verdict is not dropped for nothing. */
static void a_cancelled_call_tells_what_it_may(void **state)
{
    struct fixture *f = *state;
    struct talk t;

    talk_begin(&t, f, 20, 1000, false, true);
    pump_all(f);
    t.in = fixture_begin(f);
    sml_caller_cancel(&f->link.caller, t.call, f->now);
    pump_all(f);
    while (t.echoed < t.total)
        assert_true(sml_callee_send_part(fixture_callee(f), t.in, make_part(&t, t.echoed++)));
    finish(&t);
    pump_all(f);
    talk_expect_whole(&t);
    talk_end(&t, SEMEL_VALUE, SEMEL_OK);
}

static void a_cancelled_caller_sends_no_more(void **state)
{
    struct fixture *f = *state;
    struct talk t;

    talk_begin(&t, f, 3, 10, true, false);
    t.ended = true; /* it has more to say */
    caller_step(&t);
    pump_all(f);
    t.in = fixture_begin(f);
    assert_int_equal(t.in->stream->in.arrived, 3);
    sml_caller_cancel(&f->link.caller, t.call, f->now);
    pump_all(f);
    assert_true(sml_caller_send_part(&f->link.caller, t.call, make_part(&t, 3)));
    assert_false(sml_link_wants_write(&f->link, f->now));
    sml_caller_end_parts(&f->link.caller, t.call);
    assert_false(sml_link_wants_write(&f->link, f->now));
    assert_false(sml_caller_send_part(&f->link.caller, t.call, make_part(&t, 4)));
    fixture_cut(f);
    fixture_pump(f);
    pump_all(f);
    assert_int_equal(t.in->stream->in.arrived, 3);
    finish(&t);
    pump_all(f);
    assert_false(sml_caller_send_part(&f->link.caller, t.call, make_part(&t, 4)));
    talk_end(&t, SEMEL_VALUE, SEMEL_OK);
}

static void a_caller_that_gives_up_is_sent_nothing(void **state)
{
    struct fixture *f = *state;
    struct sml_callee *callee = fixture_callee(f);
    struct talk t;

    talk_begin(&t, f, 20, 1000, true, true);
    t.call->deadline = f->now + SML_SECOND;
    sml_caller_set_timer(&f->link.caller, t.call, t.call->deadline);
    caller_step(&t);
    pump_all(f);
    t.in = fixture_begin(f);
    assert_non_null(t.in);
    assert_true(sml_callee_send_part(callee, t.in, make_part(&t, 0)));
    while (sml_callee_next_event(callee))
        continue;
    fixture_pass(f, SML_SECOND);
    fixture_pass(f, SML_SECOND);
    caller_take(&t);
    talk_end(&t, SEMEL_UNKNOWN, SEMEL_DEADLINE);
    fixture_pass(f, SML_SECOND);
    assert_true(atomic_load(&t.in->gone));
    assert_ptr_equal(sml_callee_next_event(callee), t.in); /* nobody left to send to */
    assert_false(sml_callee_send_part(callee, t.in, make_part(&t, 1)));
    sml_callee_took_parts(callee, t.in);
    assert_false(sml_callee_wants_write(callee));
    assert_int_equal(callee->windows, SML_STREAM_WINDOW); /* held until it returns */
    assert_false(sml_callee_finish(callee, t.in, &(struct sml_verdict){ 0 }, NULL));
    assert_int_equal(callee->windows, 0);
    assert_null(sml_callee_next_event(callee));
}

/* Its parts went to another call, or are gone with another server: its stream is not whole. */
static void an_answer_of_another_call_has_no_end(void **state)
{
    struct fixture *f = *state;
    struct sml_callee *callee = fixture_callee(f);
    struct sml_verdict verdict = { .outcome = SEMEL_VALUE };
    struct sml_change change;
    struct talk t;

    talk_begin(&t, f, 20, 1000, false, true);
    pump_all(f);
    t.in = sml_callee_take(callee);
    callee->durable = true;
    assert_true(sml_callee_start(callee, t.in, f->now));
    assert_true(sml_callee_next_change(callee, &change));
    sml_callee_answer(callee, t.in, &verdict, NULL, false);
    assert_true(sml_callee_next_change(callee, &change));
    assert_true(sml_callee_recorded(callee, &change, 0, true));
    callee->durable = false;
    fixture_cut(f);
    fixture_pump(f);
    assert_int_equal(t.call->phase, SML_CALL_DONE);
    assert_int_equal(t.call->verdict.outcome, SEMEL_VALUE);
    assert_false(t.stream.in.ended);
    talk_end(&t, SEMEL_VALUE, SEMEL_OK);
}

/* --- neighbours -------------------------------------------------------------------------- */

static void a_stream_that_may_not_send_holds_nobody_up(void **state)
{
    struct fixture *f = *state;
    struct talk stuck, busy, late, free_one;
    static char big[900 * 1000];

    /* One whose reader does not read, one that was refused, one whose CALL is under way. */
    f->link.caller.windows = SML_STREAM_WINDOWS;
    talk_begin(&stuck, f, 200, 1000, true, true);
    stuck.handler_reads = stuck.caller_reads = false;
    caller_step(&stuck);
    pump_all(f);
    handler_step(&stuck);
    talk_begin(&busy, f, 3, 10, true, true);
    caller_step(&busy);
    pump_all(f);
    sml_callee_refuse(fixture_callee(f), sml_callee_take(fixture_callee(f)), 60000);
    pump_all(f);
    talk_begin(&late, f, 3, 10, true, true);
    late.call->body = big;
    late.call->body_bytes = sizeof big;
    late.call->prepared = false;
    caller_step(&late);
    talk_begin(&free_one, f, 50, 1000, true, true);
    caller_step(&free_one);
    /* A turn each: the large body does not come before the small call's parts. */
    f->up.size = sml_link_pull(&f->link, f->up.bytes, 4 * SML_FRAME_BYTES_MAX, f->now);
    fixture_to_host(f);
    assert_int_equal(late.call->phase, SML_CALL_SENDING);
    free_one.in = fixture_begin(f);
    assert_non_null(free_one.in);
    assert_true(free_one.in->stream->in.arrived > 0);
    free_one.f = f;
    for (int i = 0; i < 30; i++) {
        caller_step(&free_one);
        caller_take(&free_one);
        handler_step(&free_one);
        pump_all(f);
    }
    assert_int_equal(free_one.call->phase, SML_CALL_DONE);
    f->link.caller.windows = 0;
    talk_expect_whole(&free_one);
    talk_end(&free_one, SEMEL_VALUE, SEMEL_OK);
    talk_run(&late, FAR, FAR, 0);
    talk_end(&late, SEMEL_VALUE, SEMEL_OK);
    stuck.handler_reads = stuck.caller_reads = true;
    talk_run(&stuck, FAR, FAR, 0);
    f->link.caller.windows = 0;
    talk_expect_whole(&stuck);
    talk_end(&stuck, SEMEL_VALUE, SEMEL_OK);
    sml_caller_cancel(&f->link.caller, busy.call, f->now);
    pump_all(f);
    talk_end(&busy, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED);
}

/* --- peers that cheat -------------------------------------------------------------------- */

static const char *why;

static void expect_fault(enum semel_status status, const char *expected)
{
    assert_int_equal(status, SEMEL_PROTOCOL);
    assert_string_equal(why, expected);
}

static enum semel_status to_callee(struct fixture *f, enum sml_frame_type type, uint64_t xid,
                                   uint64_t number)
{
    struct sml_frame frame = { .type = type, .xid = xid };

    if (type == SML_PART)
        frame.u.part = (struct sml_part_frame){ number, SML_PART_ITEM, { "x", 1 } };
    else
        frame.u.credit = (struct sml_credit_frame){ number, 0, 0 };
    return sml_callee_frame(fixture_callee(f), &frame, f->now, &why);
}

static enum semel_status to_caller(struct fixture *f, enum sml_frame_type type, uint64_t xid,
                                   uint64_t number)
{
    struct sml_frame frame = { .type = type, .xid = xid };

    if (type == SML_PART)
        frame.u.part = (struct sml_part_frame){ number, SML_PART_ITEM, { "x", 1 } };
    else
        frame.u.credit = (struct sml_credit_frame){ number, 0, 0 };
    return sml_caller_frame(&f->link.caller, &frame, f->now, &why);
}

static void what_breaks_the_rules_is_a_protocol_error(void **state)
{
    struct fixture *f = *state;
    struct sml_frame call = { .type = SML_CALL, .xid = 4 };
    struct sml_frame reply = { .type = SML_REPLY, .xid = 2 };
    struct talk up, down;

    talk_begin(&up, f, 3, 10, true, false);   /* xid 1 */
    talk_begin(&down, f, 3, 10, false, true); /* xid 2 */
    fixture_submit(f, "plain");               /* xid 3 */
    pump_all(f);
    expect_fault(to_callee(f, SML_PART, 1, 1), "PART is not the next one");
    expect_fault(to_callee(f, SML_PART, 2, 0), "PART for a call that sends none");
    expect_fault(to_callee(f, SML_PART, 3, 0), "PART for a call that sends none");
    expect_fault(to_callee(f, SML_PART, 4, 0), "PART for a call that was never made");
    expect_fault(to_callee(f, SML_CREDIT, 1, 0), "CREDIT for a call that takes no parts");
    expect_fault(to_callee(f, SML_CREDIT, 2, 1), "CREDIT for parts that were not sent");
    expect_fault(to_callee(f, SML_CREDIT, 4, 0), "CREDIT for a call that was never made");
    expect_fault(to_caller(f, SML_PART, 1, 0), "PART for a call that takes none");
    expect_fault(to_caller(f, SML_PART, 2, 1), "PART is not the next one");
    expect_fault(to_caller(f, SML_PART, 3, 0), "PART for a call that takes none");
    expect_fault(to_caller(f, SML_PART, 4, 0), "answer to a call that was never made");
    expect_fault(to_caller(f, SML_CREDIT, 1, 1), "CREDIT for parts that were not sent");
    expect_fault(to_caller(f, SML_CREDIT, 2, 0), "CREDIT for a call that sends no parts");
    expect_fault(to_caller(f, SML_CREDIT, 3, 0), "CREDIT for a call that sends no parts");
    /* A reply is the last of its call. */
    reply.u.reply = (struct sml_reply_frame){ .body_bytes = 9 };
    reply.u.reply.verdict.body = semel_bytes("x", 1);
    assert_int_equal(sml_caller_frame(&f->link.caller, &reply, f->now, &why), SEMEL_OK);
    expect_fault(to_caller(f, SML_PART, 2, 0), "PART after its call's reply");
    /* Without having agreed on them. */
    fixture_callee(f)->streams_granted = false;
    call.u.call = (struct sml_call_frame){ .flags = SML_CALL_TAKES, .method = { "m", 1 } };
    expect_fault(sml_callee_frame(fixture_callee(f), &call, f->now, &why),
                 "CALL has a stream, which was not agreed on");
    sml_link_stop(&f->link, f->now);
    fixture_actions(f);
    for (struct sml_call *done; (done = sml_caller_next_done(&f->link.caller)) != NULL;) {
        sml_release(&mem, done->reply);
        free(done);
    }
    sml_stream_clear(&up.stream, &mem);
    sml_stream_clear(&down.stream, &mem);
}

static void a_part_for_a_call_that_is_only_expected(void **state)
{
    struct fixture *f = *state;
    struct sml_outstanding list = { .xid = 1 };
    struct sml_listed states[1];

    assert_int_equal(sml_callee_resume(fixture_callee(f), 2, &list, 1, states, &why), SEMEL_OK);
    assert_int_equal(states[0].state, SML_STATE_EXPECTED);
    expect_fault(to_callee(f, SML_PART, 1, 0), "PART before its CALL");
    assert_int_equal(to_callee(f, SML_CREDIT, 1, 5), SEMEL_OK);
}

/* The server of another day has no streams. */
static void a_server_without_streams(void **state)
{
    struct fixture *f = fixture_new();
    struct talk t;

    (void)state;
    memset(&memory, 0, sizeof memory);
    sml_link_init(&f->link, &mem, &f->entropy, &f->link_options, f->now);
    sml_host_init(&f->host, &mem, &f->entropy, &f->host_options);
    talk_begin(&t, f, 3, 10, true, false);
    pump_all(f);
    pump_all(f);
    talk_end(&t, SEMEL_NOT_EXECUTED, SEMEL_NO_STREAM);
    fixture_free(f);
}

/* --- no memory --------------------------------------------------------------------------- */

/* Whatever lacks, a stream is whole or its call does not end with a value. */
static bool with_failure(uint64_t nth, int way)
{
    struct fixture *f = world_new();
    struct talk t;
    struct sml_call *done;
    bool failed;

    talk_begin(&t, f, PARTS, 30, (way & 1) != 0, (way & 2) != 0);
    memory.until_failure = nth;
    talk_run(&t, nth % 2 ? FAR : 700, FAR, 1);
    failed = memory.failed;
    memory.until_failure = 0;
    done = sml_caller_next_done(&f->link.caller);
    assert_ptr_equal(done, t.call);
    if (done->verdict.outcome == SEMEL_VALUE)
        talk_expect_whole(&t);
    else
        assert_int_equal(done->verdict.status, SEMEL_NO_MEMORY);
    assert_true(failed || done->verdict.outcome == SEMEL_VALUE);
    sml_caller_accept(&f->link.caller, done, f->now);
    sml_stream_clear(&t.stream, &mem);
    free(done->reply);
    free(done);
    pump_all(f);
    if (t.in)
        (void)sml_callee_finish(fixture_callee(f), t.in, &(struct sml_verdict){ 0 }, NULL);
    fixture_free(f);
    assert_int_equal(memory.live, 0);
    return failed;
}

static void without_memory(void **state)
{
    (void)state;
    for (int way = 1; way <= 3; way++) {
        uint64_t nth = 1;

        while (with_failure(nth, way))
            nth++;
        assert_true(nth > PARTS);
    }
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH("streams flow, either way and both", streams_flow),
        ROW("a cut at any byte loses and repeats nothing",
            a_cut_at_any_byte_loses_and_repeats_nothing),
        ROW("many cuts", many_cuts),
        FRESH("a cut reply goes on without another end", a_cut_reply_goes_on_without_another_end),
        FRESH("a refused call begins its stream again", a_refused_call_begins_its_stream_again),
        FRESH("what is stale changes nothing", what_is_stale_changes_nothing),
        FRESH("parts that are lost are not made up", parts_that_are_lost_are_not_made_up),
        FRESH("a stream that runs again is a new attempt",
              a_stream_that_runs_again_is_a_new_attempt),
        FRESH("a verdict waits for the parts before it", a_verdict_waits_for_the_parts_before_it),
        FRESH("a cancelled call has its verdict without the end",
              a_cancelled_call_has_its_verdict_without_the_end),
        FRESH("a cancelled call tells what it may", a_cancelled_call_tells_what_it_may),
        FRESH("a cancelled caller sends no more", a_cancelled_caller_sends_no_more),
        FRESH("a caller that gives up is sent nothing", a_caller_that_gives_up_is_sent_nothing),
        FRESH("an answer of another call has no end", an_answer_of_another_call_has_no_end),
        FRESH("a stream that may not send holds nobody up",
              a_stream_that_may_not_send_holds_nobody_up),
        FRESH("what breaks the rules is a protocol error",
              what_breaks_the_rules_is_a_protocol_error),
        FRESH("a part for a call that is only expected", a_part_for_a_call_that_is_only_expected),
        ROW("a server without streams", a_server_without_streams),
        ROW("without memory a stream is whole, or its call has no value", without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
