/* SPDX-License-Identifier: MIT */
/* Triage, byte budgets and resume at the callee, frame by frame. */
#include "fixture.h"

static struct sml_callee callee;
static const struct sml_callee_limits limits = { .window = 4,
                                                 .body_bytes = 1000,
                                                 .session_bytes = 2000 };
static const char *why;

static int set_up(void **state)
{
    (void)state;
    sml_callee_init(&callee, &sml_mem_libc, &limits);
    why = NULL;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sml_callee_clear(&callee);
    return 0;
}

static struct sml_fingerprint print_of(const char *body)
{
    return sml_fingerprint("m", 1, NULL, 0, body, strlen(body));
}

static enum semel_status give_part(uint64_t xid, const char *body, size_t first)
{
    struct sml_frame frame = { .type = SML_CALL, .xid = xid };

    frame.u.call = (struct sml_call_frame){ .fingerprint = print_of(body),
                                            .body_bytes = strlen(body),
                                            .remaining_ms = 1000,
                                            .method = { "m", 1 },
                                            .fragment = { body, first } };
    return sml_callee_frame(&callee, &frame, 0, &why);
}

static enum semel_status give_call(uint64_t xid, const char *body)
{
    return give_part(xid, body, strlen(body));
}

static enum semel_status give_body(uint64_t xid, uint64_t offset, const char *fragment)
{
    struct sml_frame frame = { .type = SML_BODY, .xid = xid };

    frame.u.body = (struct sml_body_frame){ offset, { fragment, strlen(fragment) } };
    return sml_callee_frame(&callee, &frame, 0, &why);
}

static enum semel_status give_ack(uint64_t first, uint32_t count)
{
    uint8_t bytes[64];
    struct sml_ack_range range = { first, count };
    size_t size = sml_encode_ack(bytes, &range, 1), used;
    struct sml_frame frame;

    assert_int_equal(sml_frame_decode(bytes, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why),
                     SML_DECODED);
    return sml_callee_frame(&callee, &frame, 0, &why);
}

static struct sml_incoming *record(uint64_t xid)
{
    return sml_table_find(&callee.table, xid);
}

static struct sml_incoming *run_next(void)
{
    struct sml_incoming *in = sml_callee_take(&callee);

    assert_non_null(in);
    assert_true(sml_callee_begin(&callee, in, 0, 0));
    return in;
}

static void finish(struct sml_incoming *in, const char *text)
{
    struct sml_verdict verdict = { .outcome = SEMEL_VALUE };
    uint8_t *reply = sml_callee_reply_alloc(&callee, strlen(text));

    memcpy(reply, text, strlen(text));
    verdict.body = semel_bytes(reply, strlen(text));
    assert_true(sml_callee_finish(&callee, in, &verdict, reply));
}

/* One REPLY frame for `xid` is what a pull gives. */
static void expect_reply(uint64_t xid, const char *text)
{
    static uint8_t bytes[SML_FRAME_BYTES_MAX];
    size_t size = sml_callee_pull(&callee, bytes, sizeof bytes, 0), used = 0;
    struct sml_frame frame;

    assert_int_equal(sml_frame_decode(bytes, size, SML_PAYLOAD_BYTES_MAX, &frame, &used, &why),
                     SML_DECODED);
    assert_int_equal(used, size);
    assert_int_equal(frame.type, SML_REPLY);
    assert_int_equal(frame.xid, xid);
    assert_int_equal(frame.u.reply.verdict.body.size, strlen(text));
    assert_memory_equal(frame.u.reply.verdict.body.data, text, strlen(text));
}

static void s1_triage(void **state)
{
    (void)state;
    /* hi + 1: new, runs. */
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    struct sml_incoming *in = run_next();
    /* hi, in the table, running: attaches, does not run again, sends nothing yet. */
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    assert_null(sml_callee_take(&callee));
    assert_false(sml_callee_wants_write(&callee));
    finish(in, "ra");
    expect_reply(1, "ra");
    /* ... and done: the same bytes again, does not run again. */
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    assert_null(sml_callee_take(&callee));
    expect_reply(1, "ra");
    /* Below hi, released: neither runs nor sends. */
    assert_int_equal(give_ack(1, 1), SEMEL_OK);
    assert_null(record(1));
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    assert_null(sml_callee_take(&callee));
    assert_false(sml_callee_wants_write(&callee));
    assert_int_equal(callee.counters.stale, 1);
    assert_int_equal(callee.counters.duplicates, 2);
    /* Above hi + 1: an error, nothing runs. */
    assert_int_equal(give_call(3, "c"), SEMEL_PROTOCOL);
    assert_null(sml_callee_take(&callee));
    assert_int_equal(callee.hi, 1);
}

static void s3_re_request(void **state)
{
    (void)state;
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    struct sml_incoming *in = run_next();
    /* Busy: it waits. */
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    assert_false(sml_callee_wants_write(&callee));
    finish(in, "ra");
    expect_reply(1, "ra");
    /* Done: the same bytes, as often as it is asked, whatever comes after it. */
    assert_int_equal(give_call(2, "b"), SEMEL_OK);
    finish(run_next(), "rb");
    expect_reply(2, "rb");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(give_call(1, "a"), SEMEL_OK);
        expect_reply(1, "ra");
    }
    assert_int_equal(callee.bytes_stored, 4);
    /* Acknowledged: freed. */
    assert_int_equal(give_ack(1, 1), SEMEL_OK);
    assert_int_equal(callee.bytes_stored, 2);
    assert_int_equal(callee.table.count, 1);
}

static void s4_odd_waiters(void **state)
{
    (void)state;
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    finish(run_next(), "ra");
    assert_int_equal(give_ack(1, 1), SEMEL_OK);
    /* Overtaken: gone at once; a future number: an error, nothing waits. */
    assert_int_equal(give_body(1, 0, "x"), SEMEL_OK);
    assert_int_equal(callee.counters.stale, 1);
    assert_int_equal(give_body(9, 0, "x"), SEMEL_PROTOCOL);
    assert_int_equal(give_ack(9, 1), SEMEL_PROTOCOL);
    assert_int_equal(give_ack(1, 5), SEMEL_PROTOCOL);
}

static void s5_gap(void **state)
{
    (void)state;
    assert_int_equal(give_call(2, "a"), SEMEL_PROTOCOL);
    assert_string_equal(why, "CALL skips a number");
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    assert_int_equal(give_call(7, "a"), SEMEL_PROTOCOL);
    assert_int_equal(callee.hi, 1);
    assert_int_equal(callee.table.count, 1);
}

static void false_retry_is_surfaced_and_changes_nothing(void **state)
{
    (void)state;
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    assert_int_equal(give_call(1, "b"), SEMEL_FALSE_RETRY);
    finish(run_next(), "ra");
    assert_int_equal(give_call(1, "b"), SEMEL_FALSE_RETRY);
    expect_reply(1, "ra");
    assert_int_equal(callee.counters.false_retries, 2);
}

static void s16_window(void **state)
{
    (void)state;
    for (uint64_t xid = 1; xid <= 4; xid++)
        assert_int_equal(give_call(xid, "a"), SEMEL_OK);
    assert_int_equal(give_call(5, "a"), SEMEL_PROTOCOL);
    assert_int_equal(callee.hi, 4);
    struct sml_incoming *in[4];
    for (int i = 0; i < 4; i++)
        in[i] = run_next();
    finish(in[2], "r3");
    expect_reply(3, "r3");
    assert_int_equal(give_ack(3, 1), SEMEL_OK);
    assert_int_equal(give_call(5, "e"), SEMEL_OK);
    finish(in[0], "r1");
    expect_reply(1, "r1");
    finish(in[1], "r2");
    finish(in[3], "r4");
}

static void s17_budget(void **state)
{
    static char big[1002];

    (void)state;
    memset(big, 'x', 1001);
    assert_int_equal(give_part(1, big, 10), SEMEL_PROTOCOL);
    assert_int_equal(callee.bytes_in, 0);
    assert_int_equal(callee.table.count, 0);
    big[1000] = '\0';
    assert_int_equal(give_part(1, big, 10), SEMEL_OK);
    assert_int_equal(give_part(2, big, 10), SEMEL_OK);
    assert_int_equal(give_call(3, "a"), SEMEL_PROTOCOL);
    assert_int_equal(callee.bytes_in, 2000);
}

static void fragments_are_put_together(void **state)
{
    (void)state;
    assert_int_equal(give_part(1, "abcdef", 2), SEMEL_OK);
    assert_int_equal(give_body(1, 4, "ef"), SEMEL_PROTOCOL);
    assert_int_equal(give_body(1, 2, "cd"), SEMEL_OK);
    assert_null(sml_callee_take(&callee));
    assert_int_equal(give_body(1, 4, "efg"), SEMEL_PROTOCOL);
    assert_int_equal(give_body(1, 4, "ef"), SEMEL_OK);
    struct sml_incoming *in = run_next();
    assert_memory_equal(in->body, "abcdef", 6);
    assert_int_equal(give_body(1, 0, "zz"), SEMEL_OK);
    finish(in, "");
}

static void m13_numbers_end_before_two_to_the_63(void **state)
{
    struct sml_listed states[1];

    (void)state;
    assert_int_equal(sml_callee_resume(&callee, SML_XID_MAX + 1, NULL, 0, states, &why),
                     SEMEL_PROTOCOL);
    assert_int_equal(sml_callee_resume(&callee, SML_XID_MAX, NULL, 0, states, &why), SEMEL_OK);
    assert_int_equal(callee.hi, SML_XID_MAX - 1);
}

static void resume_lines_everything_up(void **state)
{
    struct sml_listed states[4];
    struct sml_outstanding list[] = { { 1, 0, print_of("a") },
                                      { 2, 1, print_of("b") },
                                      { 4, 0, print_of("dddd") },
                                      { 6, 0, print_of("f") } };

    (void)state;
    for (uint64_t xid = 1; xid <= 3; xid++)
        assert_int_equal(give_call(xid, xid == 1 ? "a" : xid == 2 ? "b" : "c"), SEMEL_OK);
    struct sml_incoming *first = run_next();
    finish(run_next(), "rb");
    assert_int_equal(give_part(4, "dddd", 3), SEMEL_OK);
    assert_int_equal(sml_callee_resume(&callee, 7, list, 4, states, &why), SEMEL_OK);
    assert_int_equal(states[0].state, SML_STATE_RUNNING);
    assert_int_equal(states[1].state, SML_STATE_DONE);
    assert_int_equal(states[1].offset, 1);
    assert_int_equal(states[2].state, SML_STATE_RECEIVING);
    assert_int_equal(states[2].offset, 3);
    assert_int_equal(states[3].state, SML_STATE_EXPECTED);
    assert_null(record(3));
    assert_int_equal(callee.hi, 6);
    expect_reply(2, "b"); /* from the byte that is held on */
    assert_int_equal(give_call(5, "e"), SEMEL_OK);
    assert_null(record(5)); /* left out of the list: released */
    assert_int_equal(give_call(6, "f"), SEMEL_OK);
    assert_int_equal(run_next()->xid, 6);
    finish(record(6), "rf");
    finish(first, "ra");
}

static void resume_that_contradicts_is_refused_and_releases_nothing(void **state)
{
    struct sml_listed states[5];
    struct sml_outstanding released = { 1, 0, print_of("a") };
    struct sml_outstanding other = { 2, 0, print_of("x") };
    struct sml_outstanding held = { 2, 5, print_of("b") };
    struct sml_outstanding twice[] = { { 3, 0, print_of("c") }, { 3, 0, print_of("c") } };
    struct sml_outstanding many[5] = { { 0 } };

    (void)state;
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    assert_int_equal(give_call(2, "b"), SEMEL_OK);
    finish(run_next(), "ra");
    assert_int_equal(give_ack(1, 1), SEMEL_OK);
    assert_int_equal(sml_callee_resume(&callee, 2, NULL, 0, states, &why), SEMEL_PROTOCOL);
    assert_int_equal(sml_callee_resume(&callee, 0, NULL, 0, states, &why), SEMEL_PROTOCOL);
    assert_int_equal(sml_callee_resume(&callee, 3, &released, 1, states, &why), SEMEL_PROTOCOL);
    assert_int_equal(sml_callee_resume(&callee, 3, &other, 1, states, &why), SEMEL_FALSE_RETRY);
    assert_int_equal(sml_callee_resume(&callee, 3, &held, 1, states, &why), SEMEL_PROTOCOL);
    assert_int_equal(sml_callee_resume(&callee, 9, twice, 2, states, &why), SEMEL_PROTOCOL);
    assert_int_equal(sml_callee_resume(&callee, 3, twice, 1, states, &why), SEMEL_PROTOCOL);
    assert_int_equal(sml_callee_resume(&callee, 99, many, 5, states, &why), SEMEL_PROTOCOL);
    assert_int_equal(callee.table.count, 1);
    assert_int_equal(callee.hi, 2);
    finish(run_next(), "rb");
}

static void an_abandoned_call_is_forgotten(void **state)
{
    (void)state;
    assert_int_equal(give_call(1, "a"), SEMEL_OK);
    assert_int_equal(give_part(2, "bb", 1), SEMEL_OK);
    struct sml_incoming *in = run_next();
    assert_int_equal(give_ack(1, 2), SEMEL_OK);
    assert_int_equal(callee.table.count, 0);
    assert_int_equal(callee.bytes_in, 0);
    assert_int_equal(callee.counters.abandoned, 2);
    assert_int_equal(give_body(2, 1, "b"), SEMEL_OK);
    struct sml_verdict verdict = { .outcome = SEMEL_VALUE };
    assert_false(sml_callee_finish(&callee, in, &verdict, NULL));
    assert_false(sml_callee_wants_write(&callee));
}

static enum semel_status give_keyed(uint64_t xid, const char *key)
{
    struct sml_frame frame = { .type = SML_CALL, .xid = xid };

    frame.u.call = (struct sml_call_frame){ .fingerprint = print_of(""),
                                            .remaining_ms = 1000,
                                            .flags = SML_CALL_ORIGIN,
                                            .origin = { { { 1, 2 } }, 3 },
                                            .key_age_ms = 4,
                                            .method = { "m", 1 },
                                            .content_type = { "ct", 2 },
                                            .key = semel_bytes_text(key) };
    return sml_callee_frame(&callee, &frame, 0, &why);
}

static void a_key_must_be_agreed_on(void **state)
{
    (void)state;
    assert_int_equal(give_keyed(1, "order-17"), SEMEL_PROTOCOL);
    assert_string_equal(why, "CALL has a key, which was not agreed on");
    assert_int_equal(callee.hi, 0);
    assert_int_equal(callee.table.count, 0);
    assert_int_equal(give_keyed(1, ""), SEMEL_OK);
    finish(run_next(), "");
    callee.keys = true;
    assert_int_equal(give_keyed(2, "order-17"), SEMEL_OK);
    struct sml_incoming *in = run_next();
    assert_string_equal(in->key, "order-17");
    assert_int_equal(in->key_bytes, 8);
    assert_int_equal(in->key_age_ms, 4);
    assert_string_equal(in->content_type, "ct");
    assert_int_equal(in->flags, SML_CALL_ORIGIN);
    assert_int_equal(in->origin.xid, 3);
    assert_int_equal(in->origin.session.bytes[1], 2);
    finish(in, "");
}

#define FRESH(name, function) { name, function, set_up, tear_down, NULL }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH("S1 triage: the four cases", s1_triage),
        FRESH("S3 re-request: busy waits, done gives the same bytes, freed by ACK", s3_re_request),
        FRESH("S4 odd waiters: overtaken is gone at once, future is an error", s4_odd_waiters),
        FRESH("S5 gap: a skipped number is a protocol error", s5_gap),
        FRESH("S16 window: numbers once each, released in any order", s16_window),
        FRESH("S17 frame limit: bodies over the limit or the budget are refused", s17_budget),
        FRESH("M13 ids: an error at 2^63, no wrap", m13_numbers_end_before_two_to_the_63),
        FRESH("false retry", false_retry_is_surfaced_and_changes_nothing),
        FRESH("fragments are put together", fragments_are_put_together),
        FRESH("resume lines everything up", resume_lines_everything_up),
        FRESH("a contradicting resume changes nothing",
              resume_that_contradicts_is_refused_and_releases_nothing),
        FRESH("an abandoned call is forgotten", an_abandoned_call_is_forgotten),
        FRESH("a key must be agreed on", a_key_must_be_agreed_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
