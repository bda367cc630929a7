/* SPDX-License-Identifier: MIT */
/* The server's table of calls to one client, alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "rpc/reverse_caller.h"

static const struct sml_reverse_terms terms = { 2, 100 };

static void set_up(struct sml_reverse_caller *caller)
{
    struct sml_reverse_limits limits = { .calls = 4, .bytes = 200, .reply_bytes = 50, .grace = 10 };

    sml_reverse_caller_init(caller, &sml_mem_libc, &limits);
}

static void submit(struct sml_reverse_caller *caller, struct sml_reverse_call *call,
                   uint64_t deadline)
{
    memset(call, 0, sizeof *call);
    call->bytes = 50;
    call->body_bytes = 20;
    call->deadline = deadline;
    assert_int_equal(sml_reverse_submit(caller, call, 0), SEMEL_OK);
}

static void expect_send(struct sml_reverse_caller *caller, enum sml_reverse_send send,
                        const struct sml_reverse_call *call)
{
    struct sml_reverse_call *got = NULL;

    assert_int_equal(sml_reverse_next_send(caller, 1, &got), send);
    assert_ptr_equal(got, call);
}

static void expect_done(struct sml_reverse_caller *caller, const struct sml_reverse_call *call,
                        enum semel_outcome outcome, enum semel_status status)
{
    assert_ptr_equal(sml_reverse_next_done(caller), call);
    assert_int_equal(call->verdict.outcome, outcome);
    assert_int_equal(call->verdict.status, status);
}

static const char *reply(struct sml_reverse_caller *caller, uint64_t number, size_t body)
{
    static const uint8_t bytes[100];
    struct sml_reverse_message message = {
        .kind = SML_REVERSE_REPLY,
        .number = number,
        .verdict = { .outcome = SEMEL_VALUE, .body = { bytes, body } },
    };

    return sml_reverse_reply(caller, &message);
}

static void test_way(void **state)
{
    struct sml_reverse_caller caller;
    struct sml_reverse_call calls[3];

    (void)state;
    set_up(&caller);
    for (int i = 0; i < 3; i++)
        submit(&caller, &calls[i], 100);
    expect_send(&caller, SML_REVERSE_NOTHING, NULL); /* nobody is there */
    sml_reverse_open(&caller, &terms);
    expect_send(&caller, SML_REVERSE_SEND_REQUEST, &calls[0]);
    expect_send(&caller, SML_REVERSE_SEND_REQUEST, &calls[1]);
    expect_send(&caller, SML_REVERSE_NOTHING, NULL); /* its window is full */
    assert_null(reply(&caller, calls[1].number, 5)); /* out of order */
    expect_done(&caller, &calls[1], SEMEL_VALUE, SEMEL_OK);
    expect_send(&caller, SML_REVERSE_SEND_REQUEST, &calls[2]);
    assert_non_null(reply(&caller, calls[1].number, 5)); /* twice */
    assert_non_null(reply(&caller, 77, 5));
    assert_non_null(reply(&caller, calls[0].number, 51)); /* too large */
    sml_reverse_end(&caller, SEMEL_SESSION_LOST);
    expect_done(&caller, &calls[0], SEMEL_UNKNOWN, SEMEL_SESSION_LOST);
    expect_done(&caller, &calls[2], SEMEL_UNKNOWN, SEMEL_SESSION_LOST);
    calls[0].deadline = 100;
    assert_int_equal(sml_reverse_submit(&caller, &calls[0], 0), SEMEL_SESSION_LOST);
    sml_reverse_caller_fini(&caller);
}

static void test_limits(void **state)
{
    struct sml_reverse_caller caller;
    struct sml_reverse_call calls[4], more = { .bytes = 50, .deadline = 100 };

    (void)state;
    set_up(&caller);
    more.deadline = 5;
    assert_int_equal(sml_reverse_submit(&caller, &more, 5), SEMEL_EXPIRED);
    more.deadline = 100;
    for (int i = 0; i < 3; i++)
        submit(&caller, &calls[i], 100);
    more.bytes = 51;
    assert_int_equal(sml_reverse_submit(&caller, &more, 0), SEMEL_OVERLOADED); /* bytes */
    submit(&caller, &calls[3], 100);
    more.bytes = 1;
    assert_int_equal(sml_reverse_submit(&caller, &more, 0), SEMEL_OVERLOADED); /* calls */
    calls[0].body_bytes = 101;
    sml_reverse_open(&caller, &terms);
    expect_send(&caller, SML_REVERSE_SEND_REQUEST, &calls[1]);
    expect_done(&caller, &calls[0], SEMEL_NOT_EXECUTED, SEMEL_TOO_LARGE);
    sml_reverse_close(&caller, SEMEL_SESSION_LOST); /* those that wait go on */
    expect_done(&caller, &calls[1], SEMEL_UNKNOWN, SEMEL_SESSION_LOST);
    assert_null(sml_reverse_next_done(&caller));
    sml_reverse_open(&caller, &terms);
    expect_send(&caller, SML_REVERSE_SEND_REQUEST, &calls[2]);
    sml_reverse_end(&caller, SEMEL_STOPPED);
    sml_reverse_end(&caller, SEMEL_SESSION_LOST); /* the first one counts */
    expect_done(&caller, &calls[2], SEMEL_UNKNOWN, SEMEL_STOPPED);
    expect_done(&caller, &calls[3], SEMEL_NOT_EXECUTED, SEMEL_STOPPED);
    sml_reverse_caller_fini(&caller);
}

static void test_time(void **state)
{
    struct sml_reverse_caller caller;
    struct sml_reverse_call calls[3];

    (void)state;
    set_up(&caller);
    assert_int_equal(sml_reverse_timeout(&caller), SML_NEVER);
    for (uint64_t i = 0; i < 3; i++)
        submit(&caller, &calls[i], 20 + i);
    sml_reverse_open(&caller, &terms);
    expect_send(&caller, SML_REVERSE_SEND_REQUEST, &calls[0]);
    expect_send(&caller, SML_REVERSE_SEND_REQUEST, &calls[1]);
    assert_int_equal(sml_reverse_timeout(&caller), 20);
    sml_reverse_tick(&caller, 25);
    expect_done(&caller, &calls[2], SEMEL_NOT_EXECUTED, SEMEL_EXPIRED);
    expect_send(&caller, SML_REVERSE_SEND_CANCEL, &calls[0]);
    expect_send(&caller, SML_REVERSE_SEND_CANCEL, &calls[1]);
    expect_send(&caller, SML_REVERSE_NOTHING, NULL);
    assert_null(reply(&caller, calls[0].number, 0)); /* in the grace */
    expect_done(&caller, &calls[0], SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(sml_reverse_timeout(&caller), 31);
    sml_reverse_tick(&caller, 31);
    expect_done(&caller, &calls[1], SEMEL_UNKNOWN, SEMEL_DEADLINE);
    assert_int_equal(caller.under_way, 1); /* the client may be at it */
    assert_null(reply(&caller, calls[1].number, 0));
    assert_int_equal(caller.under_way, 0);
    assert_non_null(reply(&caller, calls[1].number, 0));
    assert_null(sml_reverse_next_done(&caller));
    sml_reverse_caller_fini(&caller);
}

static void test_cancel(void **state)
{
    struct sml_reverse_caller caller;
    struct sml_reverse_call calls[2];

    (void)state;
    set_up(&caller);
    submit(&caller, &calls[0], 100);
    submit(&caller, &calls[1], 100);
    sml_reverse_open(&caller, &terms);
    expect_send(&caller, SML_REVERSE_SEND_REQUEST, &calls[0]);
    sml_reverse_cancel(&caller, calls[1].number);
    expect_done(&caller, &calls[1], SEMEL_NOT_EXECUTED, SEMEL_CANCELLED);
    sml_reverse_cancel(&caller, calls[0].number);
    sml_reverse_cancel(&caller, calls[0].number);
    sml_reverse_cancel(&caller, calls[1].number);
    expect_send(&caller, SML_REVERSE_SEND_CANCEL, &calls[0]);
    expect_send(&caller, SML_REVERSE_NOTHING, NULL);
    assert_null(reply(&caller, calls[0].number, 1));
    expect_done(&caller, &calls[0], SEMEL_VALUE, SEMEL_OK);
    sml_reverse_caller_fini(&caller);
}

/* A call that is answered before its cancellation left, and one that is too late to be sent. */
static void test_crossings(void **state)
{
    struct sml_reverse_caller caller;
    struct sml_reverse_call calls[2], *got;

    (void)state;
    set_up(&caller);
    submit(&caller, &calls[0], 100);
    submit(&caller, &calls[1], 5);
    sml_reverse_open(&caller, &terms);
    expect_send(&caller, SML_REVERSE_SEND_REQUEST, &calls[0]);
    sml_reverse_cancel(&caller, calls[0].number);
    assert_null(reply(&caller, calls[0].number, 1));
    expect_done(&caller, &calls[0], SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(sml_reverse_next_send(&caller, 6, &got), SML_REVERSE_NOTHING);
    expect_done(&caller, &calls[1], SEMEL_NOT_EXECUTED, SEMEL_EXPIRED);
    sml_reverse_caller_fini(&caller);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "a call's way", test_way, NULL, NULL, NULL },
        { "limits", test_limits, NULL, NULL, NULL },
        { "deadlines and grace", test_time, NULL, NULL, NULL },
        { "cancelling", test_cancel, NULL, NULL, NULL },
        { "what crosses", test_crossings, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests_name("rpc/reverse_caller", tests, NULL, NULL);
}
