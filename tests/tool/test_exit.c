/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "tool.h"

/* Every status there is, so that a new one does not go unnoticed. */
static const enum semel_status statuses[] = {
#define STATUS(name, number, text, category) SEMEL_##name,
    SEMEL_STATUS_TABLE(STATUS)
#undef STATUS
};
#define STATUSES (sizeof statuses / sizeof statuses[0])

static void test_outcomes(void **state)
{
    (void)state;
    for (size_t i = 0; i < STATUSES; i++) {
        assert_int_equal(tool_exit_of_result(SEMEL_VALUE, statuses[i]), TOOL_VALUE);
        assert_int_equal(tool_exit_of_result(SEMEL_FAILURE, statuses[i]), TOOL_FAILURE);
        assert_int_equal(tool_exit_of_result(SEMEL_UNKNOWN, statuses[i]), TOOL_UNKNOWN);
    }
}

/* Nothing ran: never what says that something did, or that the command line was wrong. */
static void test_not_executed(void **state)
{
    (void)state;
    for (size_t i = 0; i < STATUSES; i++) {
        int code = tool_exit_of_result(SEMEL_NOT_EXECUTED, statuses[i]);

        assert_true(code == TOOL_CONNECT || code == TOOL_NOT_EXECUTED || code >= TOOL_OVERLOADED ||
                    statuses[i] == SEMEL_BAD_ADDRESS);
        assert_true(code <= TOOL_PROTOCOL);
    }
}

static void test_particular(void **state)
{
    static const struct {
        enum semel_status status;
        int code;
    } rows[] = {
        { SEMEL_EXPIRED, TOOL_NOT_EXECUTED },     { SEMEL_KEY_MISMATCH, TOOL_NOT_EXECUTED },
        { SEMEL_POISONED, TOOL_NOT_EXECUTED },    { SEMEL_ROLLED_BACK, TOOL_NOT_EXECUTED },
        { SEMEL_NO_KEYS, TOOL_NOT_EXECUTED },     { SEMEL_STORE_FULL, TOOL_NOT_EXECUTED },
        { SEMEL_OVERLOADED, TOOL_OVERLOADED },    { SEMEL_DENIED, TOOL_DENIED },
        { SEMEL_NO_METHOD, TOOL_NO_METHOD },      { SEMEL_CANCELLED, TOOL_CANCELLED },
        { SEMEL_FALSE_RETRY, TOOL_PROTOCOL },     { SEMEL_CONNECT, TOOL_CONNECT },
        { SEMEL_SESSION_LOST, TOOL_CONNECT },     { SEMEL_DRAINING, TOOL_NOT_EXECUTED },
        { SEMEL_SERVER_DIED, TOOL_NOT_EXECUTED },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(tool_exit_of_result(SEMEL_NOT_EXECUTED, rows[i].status), rows[i].code);
    assert_int_equal(tool_exit_of_result(SEMEL_UNKNOWN, SEMEL_KEY_EXPIRED), TOOL_UNKNOWN);
    assert_int_equal(tool_exit_of_result(SEMEL_UNKNOWN, SEMEL_SERVER_DIED), TOOL_UNKNOWN);
    assert_int_equal(tool_exit_of_status(SEMEL_INVALID), TOOL_USAGE);
    assert_int_equal(tool_exit_of_status(SEMEL_BAD_ADDRESS), TOOL_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "the outcome decides", test_outcomes, NULL, NULL, NULL },
        { "not executed is a promise", test_not_executed, NULL, NULL, NULL },
        { "statuses that have a code of their own", test_particular, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
