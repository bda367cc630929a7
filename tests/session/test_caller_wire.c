/* SPDX-License-Identifier: MIT */
/* Large bodies: fragments, turns, budgets, and going on in the middle after a cut. */
#include "fixture.h"

#define BIG (700 * 1000)

static int set_up(void **state)
{
    struct fixture *f = fixture_new();

    fixture_start(f);
    fixture_pump(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

static char *big_text(char seed)
{
    char *text = malloc(BIG + 1);

    for (size_t i = 0; i < BIG; i++)
        text[i] = (char)('a' + (seed + i * 7) % 23);
    text[BIG] = '\0';
    return text;
}

static void m6_large_bodies_both_ways(void **state)
{
    struct fixture *f = *state;
    char *request = big_text(1), *reply = big_text(2);
    struct sml_call *call = fixture_submit(f, request);
    struct sml_incoming *in;

    fixture_pump(f);
    in = fixture_begin(f);
    assert_non_null(in);
    assert_int_equal(in->body_bytes, BIG);
    assert_memory_equal(in->body, request, BIG);
    fixture_finish(f, in, SEMEL_VALUE, reply);
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, reply);
    free(request);
    free(reply);
}

/* A small call behind a large one is not kept waiting for the whole of it. */
static void bodies_take_turns(void **state)
{
    struct fixture *f = *state;
    static uint8_t out[4 * SML_FRAME_BYTES_MAX];
    char *request = big_text(1);
    size_t size, at = 0, used;
    struct sml_frame frame;
    const char *why;
    bool small = false;

    fixture_submit(f, request);
    fixture_submit(f, "small");
    size = sml_link_pull(&f->link, out, sizeof out, f->now);
    while (at < size) {
        assert_int_equal(
            sml_frame_decode(out + at, size - at, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why),
            SML_DECODED);
        at += used;
        small |= frame.type == SML_CALL && frame.xid == 2;
    }
    assert_true(small);
    assert_true(size < BIG);
    fixture_cut(f);
    free(request);
}

/* Give the host only some of what was pulled, then cut. */
static void a_cut_body_goes_on_where_it_stood(void **state)
{
    struct fixture *f = *state;
    char *request = big_text(3), *reply = big_text(4);
    struct sml_call *call = fixture_submit(f, request);
    struct sml_incoming *in;
    int cuts = 0;

    for (in = NULL; in == NULL; cuts++) {
        if (!f->connected || f->link.state != SML_LINK_UP) {
            fixture_pass(f, 20 * SML_MS);
            in = fixture_begin(f);
            if (in)
                break;
        }
        f->up.size += sml_link_pull(&f->link, f->up.bytes, 3 * SML_FRAME_BYTES_MAX, f->now);
        f->up.size = f->up.size * 2 / 3;
        fixture_to_host(f);
        in = fixture_begin(f);
        fixture_cut(f);
        fixture_pump(f);
        in = in ? in : fixture_begin(f);
    }
    assert_memory_equal(in->body, request, BIG);
    assert_true(f->link.counters.reconnects >= 1);
    fixture_finish(f, in, SEMEL_VALUE, reply);
    for (int i = 0; i < 200 && sml_list_empty(&f->link.caller.done); i++) {
        if (f->connected && f->link.state == SML_LINK_UP) {
            f->down.size =
                sml_peer_pull(&f->peer, f->down.bytes, 2 * SML_FRAME_BYTES_MAX, f->now) * 3 / 4;
            fixture_to_link(f);
        }
        f->now += 20 * SML_MS;
        fixture_cut(f);
        for (int k = 0; k < 3 && f->link.state != SML_LINK_UP; k++)
            fixture_pass(f, SML_SECOND);
    }
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, reply);
    free(request);
    free(reply);
}

static void bodies_beyond_the_budget_wait_their_turn(void **state)
{
    struct fixture *f = *state;
    char *request = big_text(1);
    struct sml_call *calls[4];

    for (int i = 0; i < 4; i++)
        calls[i] = fixture_submit(f, request);
    fixture_pump(f);
    assert_int_equal(fixture_callee(f)->hi, 2); /* 2 MiB of budget hold two */
    for (int i = 0; i < 4; i++) {
        struct sml_incoming *in = fixture_begin(f);

        assert_non_null(in);
        fixture_finish(f, in, SEMEL_VALUE, "r");
        fixture_pump(f);
        fixture_expect(f, calls[i], SEMEL_VALUE, SEMEL_OK, "r");
    }
    free(request);
}

static void a_body_over_the_servers_limit_is_not_sent(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call;
    char *huge = malloc((1 << 20) + 2);

    memset(huge, 'h', (1 << 20) + 1);
    huge[(1 << 20) + 1] = '\0';
    call = fixture_submit(f, huge);
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_NOT_EXECUTED, SEMEL_TOO_LARGE, NULL);
    assert_int_equal(f->link.state, SML_LINK_UP);
    huge[1 << 20] = '\0';
    call = fixture_submit(f, huge);
    fixture_pump(f);
    fixture_finish(f, fixture_begin(f), SEMEL_VALUE, huge);
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_VALUE, SEMEL_OK, huge);
    free(huge);
}

static void a_smaller_budget_after_a_resume_is_kept(void **state)
{
    struct fixture *f = *state;
    char *request = big_text(1);

    for (int i = 0; i < 2; i++)
        fixture_submit(f, request);
    fixture_pump(f);
    assert_int_equal(f->link.caller.bytes_out, 2 * BIG);
    fixture_callee(f)->limits.session_bytes = 1 << 20;
    fixture_cut(f);
    fixture_submit(f, "small");
    fixture_pump(f);
    assert_int_equal(f->link.state, SML_LINK_UP);
    assert_int_equal(f->link.caller.session_bytes, 1 << 20);
    assert_int_equal(fixture_callee(f)->hi, 2);
    free(request);
}

/* --- states that come in more than one LIST ---------------------------------------------- */

#define MANY (SML_LIST_ENTRIES_MAX + 10)

static int set_up_many(void **state)
{
    struct fixture *f = fixture_new();

    f->link_options.window = f->host_options.limits.window = 2 * MANY;
    f->link_options.pending_max = 2 * MANY;
    fixture_start(f);
    fixture_pump(f);
    *state = f;
    return 0;
}

/* Break the connection and greet again, as far as the first LIST of states. */
static void greet_by_half(struct fixture *f)
{
    size_t size = 0, used;
    struct sml_frame frame;
    const char *why;

    fixture_cut(f);
    sml_link_tick(&f->link, f->now);
    fixture_actions(f);
    f->up.size = sml_link_pull(&f->link, f->up.bytes, PIPE_BYTES, f->now);
    fixture_to_host(f); /* HELLO */
    fixture_to_host(f); /* the list */
    f->down.size = sml_peer_pull(&f->peer, f->down.bytes, PIPE_BYTES, f->now);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sml_frame_decode(f->down.bytes + size, f->down.size - size,
                                          SML_PAYLOAD_BYTES_MAX, &frame, &used, &why),
                         SML_DECODED);
        size += used;
    }
    sml_link_input(&f->link, f->down.bytes, size, &used, f->now);
    assert_int_equal(f->link.state, SML_LINK_GREETING);
    assert_int_equal(f->link.states_left, MANY - SML_LIST_ENTRIES_MAX);
    f->down.size -= size;
    memmove(f->down.bytes, f->down.bytes + size, f->down.size);
}

static struct sml_call *submit_many(struct fixture *f)
{
    struct sml_call *first = fixture_submit(f, "x");

    for (int i = 1; i < MANY; i++)
        fixture_submit(f, "x");
    fixture_pump(f);
    assert_int_equal(fixture_callee(f)->hi, MANY);
    return first;
}

static void a_cancel_between_two_lists_arrives(void **state)
{
    struct fixture *f = *state;
    struct sml_call *first = submit_many(f);
    struct sml_incoming *in = fixture_begin(f);

    greet_by_half(f);
    sml_caller_cancel(&f->link.caller, first, f->now);
    fixture_pump(f);
    fixture_pump(f);
    assert_int_equal(f->link.state, SML_LINK_UP);
    assert_true(atomic_load(&in->cancelled));
    fixture_finish(f, in, SEMEL_VALUE, "in vain");
}

static void a_delay_over_between_two_lists_is_over(void **state)
{
    struct fixture *f = *state;
    struct sml_call *first = submit_many(f);
    struct sml_incoming *in = sml_callee_take(fixture_callee(f));

    sml_callee_refuse(fixture_callee(f), in, 20);
    fixture_pump(f);
    greet_by_half(f);
    assert_int_equal(first->phase, SML_CALL_BUSY);
    f->now += 20 * SML_MS;
    sml_link_tick(&f->link, f->now);
    fixture_pump(f);
    fixture_pump(f);
    assert_int_equal(first->phase, SML_CALL_SENT);
    in = sml_table_find(&fixture_callee(f)->table, first->xid);
    assert_int_equal(in->phase, SML_IN_READY);
}

/* --- what the server has in its store ---------------------------------------------------- */

/* A reply with the first `given` of its two bytes. */
static void say_reply(struct fixture *f, uint64_t xid, size_t given, uint8_t flags)
{
    struct sml_reply_frame reply = { .flags = flags,
                                     .verdict = { .outcome = SEMEL_VALUE, .body = { "rr", given } },
                                     .body_bytes = 2 };

    f->down.size = sml_encode_reply(f->down.bytes, xid, &reply);
    fixture_to_link(f);
}

static void the_greatest_number_that_is_stored_is_remembered(void **state)
{
    struct fixture *f = *state;
    struct sml_caller *caller = &f->link.caller;
    struct sml_call *calls[5];

    for (int i = 0; i < 5; i++)
        calls[i] = fixture_submit(f, "x");
    fixture_pump(f);
    say_reply(f, 2, 2, 0); /* not stored */
    assert_int_equal(caller->durable_hi, 0);
    say_reply(f, 3, 2, SML_REPLY_RECORDED);
    assert_int_equal(caller->durable_hi, 3);
    say_reply(f, 1, 2, SML_REPLY_RECORDED); /* it does not fall */
    assert_int_equal(caller->durable_hi, 3);
    say_reply(f, 5, 1, SML_REPLY_RECORDED); /* its beginning says it */
    assert_int_equal(caller->durable_hi, 5);
    say_reply(f, 4, 1, 0);
    assert_int_equal(caller->durable_hi, 5);
    fixture_expect(f, calls[1], SEMEL_VALUE, SEMEL_OK, "rr");
    fixture_expect(f, calls[2], SEMEL_VALUE, SEMEL_OK, "rr");
    fixture_expect(f, calls[0], SEMEL_VALUE, SEMEL_OK, "rr");
    f->down.size = 0;
}

/* Nobody waits for the verdict any more; that it is stored is known all the same. */
static void what_is_said_of_a_call_that_was_given_up(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "x");
    struct sml_incoming *in;

    fixture_pump(f);
    in = fixture_begin(f);
    assert_non_null(in);
    for (int i = 0; i < 31; i++)
        fixture_pass(f, SML_SECOND);
    fixture_expect(f, call, SEMEL_UNKNOWN, SEMEL_DEADLINE, NULL);
    fixture_finish(f, in, SEMEL_VALUE, "");
    say_reply(f, 1, 2, SML_REPLY_RECORDED);
    assert_int_equal(f->link.caller.counters.unexpected, 1);
    assert_int_equal(f->link.caller.durable_hi, 1);
    say_reply(f, 2, 2, SML_REPLY_RECORDED); /* which was never made */
    assert_int_equal(f->link.state, SML_LINK_FAILED);
}

static void a_welcome_says_what_is_stored(void **state)
{
    struct fixture *f = *state;
    struct sml_caller *caller = &f->link.caller;
    struct sml_welcome welcome = { .window = 8, .durable_hi = 7, .features = SML_FEATURE_KEYS };

    assert_int_equal(sml_caller_grant(caller, &welcome), SEMEL_OK);
    assert_int_equal(caller->durable_hi, 7);
    assert_true(caller->keys);
    welcome.durable_hi = 5;
    welcome.features = 0;
    assert_int_equal(sml_caller_grant(caller, &welcome), SEMEL_OK);
    assert_int_equal(caller->durable_hi, 7);
    assert_false(caller->keys);
    sml_caller_end_session(caller, SEMEL_SESSION_LOST, true, true, f->now);
    assert_int_equal(caller->durable_hi, 0); /* another session, other numbers */
}

/* A WELCOME of the same session says where its one call stands. */
static enum semel_status say_state(struct fixture *f, const struct sml_call *call,
                                   enum sml_call_state state)
{
    struct sml_listed listed = { .xid = call->xid, .state = state };
    const char *why;

    return sml_caller_state(&f->link.caller, &listed, f->now, &why);
}

/* "Expected" says that it has not begun; "in doubt", that it may have, and may run again. */
static void refused_after_it_was_in_doubt_it_may_have_run(void **state)
{
    struct fixture *f = *state;

    for (int doubt = 0; doubt < 2; doubt++) {
        struct sml_call *call = fixture_submit(f, "x");
        struct sml_incoming *in;

        fixture_pump(f);
        assert_int_equal(say_state(f, call, doubt ? SML_STATE_IN_DOUBT : SML_STATE_EXPECTED),
                         SEMEL_OK);
        fixture_pump(f);
        in = sml_callee_take(fixture_callee(f));
        sml_callee_refuse(fixture_callee(f), in, 60000);
        fixture_pump(f);
        assert_int_equal(call->phase, SML_CALL_BUSY);
        f->refuse = true; /* nobody says any more what became of it */
        fixture_cut(f);
        fixture_pass(f, 30 * SML_SECOND);
        fixture_pass(f, SML_SECOND);
        if (doubt)
            fixture_expect(f, call, SEMEL_UNKNOWN, SEMEL_DEADLINE, NULL);
        else
            fixture_expect(f, call, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED, NULL);
        f->refuse = false;
        fixture_pass(f, 5 * SML_SECOND);
    }
}

/* What is in doubt is sent again though it was cancelled: only then the callee has a verdict. */
static void what_is_in_doubt_is_sent_again_when_cancelled(void **state)
{
    struct fixture *f = *state;

    for (int doubt = 0; doubt < 2; doubt++) {
        struct sml_call *call = fixture_submit(f, "x");
        uint64_t resent = f->link.caller.counters.resent;

        fixture_pump(f);
        sml_caller_cancel(&f->link.caller, call, f->now);
        assert_int_equal(say_state(f, call, doubt ? SML_STATE_IN_DOUBT : SML_STATE_EXPECTED),
                         SEMEL_OK);
        assert_int_equal(f->link.caller.counters.resent, resent + (uint64_t)doubt);
        fixture_pump(f);
        fixture_expect(f, call, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED, NULL);
    }
}

/* Whoever looks after the server cancels it there: that is no deadline that has passed. */
static void what_the_server_cancels_has_not_expired(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "x"), *late;
    struct sml_frame frame = { .type = SML_CANCEL };
    const char *why;

    fixture_pump(f);
    frame.xid = call->xid;
    assert_int_equal(sml_callee_frame(fixture_callee(f), &frame, f->now, &why), SEMEL_OK);
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED, NULL);
    late = fixture_submit(f, "y");
    fixture_pump(f);
    fixture_pass(f, 30 * SML_SECOND);
    fixture_expect(f, late, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED, NULL);
}

/* Nor does a cancellation keep it from being sent that comes before it was. */
static void what_is_in_doubt_is_sent_before_its_cancel_is_answered(void **state)
{
    struct fixture *f = *state;
    struct sml_call *call = fixture_submit(f, "x");

    fixture_pump(f);
    assert_int_equal(say_state(f, call, SML_STATE_IN_DOUBT), SEMEL_OK);
    sml_caller_cancel(&f->link.caller, call, f->now);
    assert_int_equal(call->phase, SML_CALL_SENDING);
    fixture_pump(f);
    fixture_expect(f, call, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED, NULL);
}

static void a_stored_reply_that_is_forgotten_is_a_lost_session(void **state)
{
    struct fixture *f = *state;

    for (int stored = 0; stored < 2; stored++) {
        struct sml_call *call = fixture_submit(f, "x");

        fixture_pump(f);
        f->link.caller.stored = stored > 0;
        say_reply(f, call->xid, 1, stored ? SML_REPLY_RECORDED : 0);
        assert_int_equal(say_state(f, call, SML_STATE_RUNNING),
                         stored ? SEMEL_SESSION_LOST : SEMEL_PROTOCOL);
    }
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH("M6 partial I/O: bodies of many fragments both ways", m6_large_bodies_both_ways),
        FRESH("bodies take turns", bodies_take_turns),
        FRESH("M6 partial I/O: a cut body goes on where it stood",
              a_cut_body_goes_on_where_it_stood),
        FRESH("bodies beyond the budget wait", bodies_beyond_the_budget_wait_their_turn),
        FRESH("a body over the server's limit", a_body_over_the_servers_limit_is_not_sent),
        FRESH("a smaller budget after a resume is kept", a_smaller_budget_after_a_resume_is_kept),
        { "a cancel between two LISTs arrives", a_cancel_between_two_lists_arrives, set_up_many,
          tear_down, NULL },
        { "a BUSY delay over between two LISTs is over", a_delay_over_between_two_lists_is_over,
          set_up_many, tear_down, NULL },
        FRESH("what is cancelled at the server has not expired",
              what_the_server_cancels_has_not_expired),
        FRESH("the greatest number that is stored is remembered",
              the_greatest_number_that_is_stored_is_remembered),
        FRESH("what is said of a call that was given up is remembered, too",
              what_is_said_of_a_call_that_was_given_up),
        FRESH("a WELCOME says what is stored", a_welcome_says_what_is_stored),
        FRESH("refused after it was in doubt", refused_after_it_was_in_doubt_it_may_have_run),
        FRESH("in doubt, sent though cancelled", what_is_in_doubt_is_sent_again_when_cancelled),
        FRESH("in doubt, cancelled before it is sent",
              what_is_in_doubt_is_sent_before_its_cancel_is_answered),
        FRESH("a stored reply that is forgotten",
              a_stored_reply_that_is_forgotten_is_a_lost_session),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
