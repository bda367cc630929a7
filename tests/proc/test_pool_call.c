/* SPDX-License-Identifier: MIT */
#include "proc/pool_kit.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void assert_contains(const char *text, const char *part)
{
    if (!text || !strstr(text, part))
        fail_msg("\"%s\" is not in \"%s\"", part, text ? text : "");
}

static void test_values(void **state)
{
    struct semel_pool_options options = { .workers = 2 };
    struct pool_kit_before before = pool_kit_before();
    struct semel_pool *pool = pool_kit_make(&options);
    struct semel_result result;

    (void)state;
    assert_int_equal(pool_kit_number(pool, "square", "12"), 144);
    assert_int_not_equal(pool_kit_number(pool, "pid", ""), getpid());
    assert_int_equal(pool_kit_call(pool, "none", "", &result), SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_NO_METHOD);
    semel_result_clear(&result);
    assert_int_equal(pool_kit_call(pool, "", "", &result), SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_INVALID);
    semel_result_clear(&result);
    assert_int_equal(semel_pool_call(pool, "echo", semel_bytes_text("x"), NULL, NULL), SEMEL_VALUE);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    pool_kit_check_clean(before);
}

static void check_death(struct semel_pool *pool, const char *method, const char *body,
                        const char *how)
{
    struct semel_result result;
    long pid = pool_kit_number(pool, "pid", "");
    char who[64];

    assert_int_equal(pool_kit_call(pool, method, body, &result), SEMEL_UNKNOWN);
    assert_int_equal(result.status, SEMEL_HANDLER_DIED);
    snprintf(who, sizeof who, "process %ld %s", pid, how);
    assert_contains(result.text, who);
    assert_contains(result.text, method);
    assert_string_equal(result.method, method);
    semel_result_clear(&result);
}

static void test_deaths(void **state)
{
    struct semel_pool_options options = { .workers = 1 };
    struct pool_kit_before before = pool_kit_before();
    struct semel_pool *pool = pool_kit_make(&options);

    (void)state;
    check_death(pool, "exit", "3", "exited with code 3");
    check_death(pool, "exit", "0", "exited with code 0");
    check_death(pool, "raise", "9", "was killed by signal 9 (SIGKILL)");
    check_death(pool, "raise", "15", "was killed by signal 15 (SIGTERM)");
    assert_int_equal(pool_kit_number(pool, "square", "5"), 25);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    pool_kit_check_clean(before);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_values, NULL),
        { "R17 worker death: unknown, with process, signal or code, and method", test_deaths, NULL,
          NULL, NULL },
    };
    int code = pool_kit_main(argc, argv);

    if (code >= 0)
        return code;
    return cmocka_run_group_tests_name("pool_call", tests, NULL, NULL);
}
