/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#include "progress.h"

static double parsed(const char *text)
{
    double done = -1;

    return progress_parse(text, strlen(text), &done) ? done : -1;
}

static void test_numbers(void **state)
{
    static const struct {
        const char *text;
        double done;
    } cases[] = {
        { "0", 0 },
        { "1", 1 },
        { "0.25", 0.25 },
        { "50%", 0.5 },
        { " 50 % ", 0.5 },
        { "3/4", 0.75 },
        { "3 / 4", 0.75 },
        { "0/7", 0 },
        { "7/7", 1 },
        { "100 %\n", 1 },
        { "1.5/3", 0.5 },
        /* none */
        { "", -1 },
        { "x", -1 },
        { "2", -1 },
        { "-1", -1 },
        { "101%", -1 },
        { "5/4", -1 },
        { "1/0", -1 },
        { "1/", -1 },
        { "0.5 of it", -1 },
        { "nan", -1 },
        { "inf", -1 },
        { "1/inf", -1 },
        { "50%%", -1 },
        { "/3", -1 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_float_equal(parsed(cases[i].text), cases[i].done, 1e-9);
}

static const char *drawn(const char *text, unsigned columns)
{
    static char line[200];

    progress_draw(text, strlen(text), columns, line, sizeof line);
    return line;
}

static void test_bar(void **state)
{
    (void)state;
    assert_string_equal(drawn("0", 80), "[                              ]   0 % 0");
    assert_string_equal(drawn("50%", 80), "[###############               ]  50 %");
    assert_string_equal(drawn(" 99.5 %", 80), "[############################# ]  99 %");
    assert_string_equal(drawn("1/2", 80), "[###############               ]  50 % 1/2");
    assert_string_equal(drawn("299/300", 80), "[############################# ]  99 % 299/300");
    assert_string_equal(drawn("1", 80), "[##############################] 100 % 1");
    assert_string_equal(drawn("1/2", 20), "1/2"); /* no room */
}

static void test_words(void **state)
{
    (void)state;
    assert_string_equal(drawn("copying", 80), "copying");
    assert_string_equal(drawn("copying", 4), "copy");
    assert_string_equal(drawn("\033[31mred\x7f\xff", 80), "?[31mred??");
    assert_string_equal(drawn("gr\xc3\xbc\xc3\x9f", 80), "gr\xc3\xbc\xc3\x9f");
    assert_string_equal(drawn("gr\xc3\xbc\xc3\x9f", 3), "gr\xc3\xbc");
    assert_string_equal(drawn("\xc2\x9b"
                              "1m",
                              80),
                        "?1m");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "numbers, and what is none", test_numbers, NULL, NULL, NULL },
        { "a bar", test_bar, NULL, NULL, NULL },
        { "words, made harmless", test_words, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests_name("tool/progress", tests, NULL, NULL);
}
