/* SPDX-License-Identifier: MIT */
/* The client's end of calls from its server, alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "rpc/reverse_callee.h"

static const struct sml_verdict value = { .outcome = SEMEL_VALUE };

static struct sml_reverse_message request(uint64_t number, size_t body)
{
    static const uint8_t bytes[100];
    struct sml_reverse_message message = { .kind = SML_REVERSE_REQUEST, .number = number };

    message.request.method = semel_bytes("m", 1);
    message.request.body = semel_bytes(bytes, body);
    return message;
}

static void set_up(struct sml_reverse_callee *callee)
{
    struct sml_reverse_terms own = { 2, 50 };
    struct sml_reverse_message message = { .kind = SML_REVERSE_TERMS, .terms = { 9, 99 } };
    struct sml_reverse_message early = request(1, 0);

    sml_reverse_callee_init(callee, &sml_mem_libc, &own, 100);
    assert_non_null(sml_reverse_check(callee, &early));
    assert_null(sml_reverse_agree(callee, &message));
    assert_non_null(sml_reverse_agree(callee, &message));
    assert_int_equal(callee->server.body_bytes, 99);
}

static void arrive(struct sml_reverse_callee *callee, struct sml_reverse_work *work,
                   uint64_t number)
{
    struct sml_reverse_message message = request(number, 10);

    assert_null(sml_reverse_check(callee, &message));
    assert_true(sml_reverse_arrive(callee, work, &message, 60));
}

static void answer(struct sml_reverse_callee *callee, struct sml_reverse_work *work)
{
    sml_reverse_answer(callee, work, sml_reverse_answer_create(callee, work->number, &value));
}

static void test_way(void **state)
{
    struct sml_reverse_message large = request(9, 51), again = request(3, 0), more = request(9, 0);
    struct sml_reverse_callee callee;
    struct sml_reverse_work first, second;
    struct sml_reverse_answer *reply;
    struct sml_list arrived;

    (void)state;
    set_up(&callee);
    arrive(&callee, &first, 3);
    assert_non_null(sml_reverse_check(&callee, &large));
    assert_non_null(sml_reverse_check(&callee, &again));
    arrive(&callee, &second, 7);
    assert_non_null(sml_reverse_check(&callee, &more)); /* the window */
    assert_true(sml_reverse_is_full(&callee));
    sml_reverse_begin(&callee, &first);
    sml_reverse_begin(&callee, &second);
    answer(&callee, &second);
    assert_null(sml_reverse_check(&callee, &more));
    reply = sml_reverse_first_answer(&callee);
    assert_int_equal(reply->size, 24);
    assert_int_equal(reply->bytes[8], 7);
    sml_reverse_answered(&callee, reply);
    assert_int_equal(callee.bytes, 60);
    assert_false(sml_reverse_is_full(&callee));
    answer(&callee, &first);
    sml_list_init(&arrived);
    sml_reverse_callee_reset(&callee, &arrived); /* with a reply that was not sent */
    assert_true(sml_list_empty(&arrived));
    assert_int_equal(callee.bytes, 0);
    sml_reverse_callee_fini(&callee);
}

static void test_cancel(void **state)
{
    struct sml_reverse_message message = { .kind = SML_REVERSE_CANCEL, .number = 4 };
    struct sml_reverse_work first, second, *got = NULL;
    struct sml_reverse_callee callee;
    struct sml_list arrived;

    (void)state;
    set_up(&callee);
    arrive(&callee, &first, 3);
    assert_non_null(sml_reverse_cancelled(&callee, &message, &got));
    arrive(&callee, &second, 5);
    assert_null(sml_reverse_cancelled(&callee, &message, &got)); /* a number that was left out */
    assert_null(got);
    message.number = 5;
    assert_null(sml_reverse_cancelled(&callee, &message, &got));
    assert_ptr_equal(got, &second);
    sml_reverse_begin(&callee, &first);
    answer(&callee, &first);
    message.number = 3;
    assert_null(sml_reverse_cancelled(&callee, &message, &got));
    assert_null(got);
    sml_list_init(&arrived);
    sml_reverse_callee_reset(&callee, &arrived);
    assert_ptr_equal(arrived.next, &second.link);
    sml_reverse_callee_fini(&callee);
}

/* The carrying call is lost while a handler runs; numbers begin again with the next. */
static void test_orphan(void **state)
{
    struct sml_reverse_message terms = { .kind = SML_REVERSE_TERMS, .terms = { 9, 99 } };
    struct sml_reverse_work first, second;
    struct sml_reverse_callee callee;
    struct sml_list arrived;

    (void)state;
    set_up(&callee);
    arrive(&callee, &first, 8);
    sml_reverse_begin(&callee, &first);
    sml_list_init(&arrived);
    sml_reverse_callee_reset(&callee, &arrived);
    assert_int_equal(first.state, SML_REVERSE_ORPHAN);
    assert_int_equal(callee.bytes, 60); /* its handler holds them */
    assert_null(sml_reverse_agree(&callee, &terms));
    arrive(&callee, &second, 1);
    answer(&callee, &first);
    assert_null(sml_reverse_first_answer(&callee));
    sml_reverse_begin(&callee, &second);
    answer(&callee, &second);
    sml_reverse_answered(&callee, sml_reverse_first_answer(&callee));
    assert_int_equal(callee.bytes, 0);
    sml_reverse_callee_fini(&callee);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "a call's way", test_way, NULL, NULL, NULL },
        { "cancelling", test_cancel, NULL, NULL, NULL },
        { "a handler that is on its own", test_orphan, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests_name("rpc/reverse_callee", tests, NULL, NULL);
}
