/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#include "duration.h"
#include "numbers.h"

static int64_t parsed(const char *text)
{
    char why[200] = "";
    int64_t ns = -1;

    if (!duration_parse(text, &ns, why, sizeof why))
        fail_msg("%s: %s", text, why);
    return ns;
}

static void refused(const char *text, const char *words)
{
    char why[200] = "";
    int64_t ns = 42;

    assert_false(duration_parse(text, &ns, why, sizeof why));
    assert_int_equal(ns, 42);
    if (!strstr(why, words))
        fail_msg("'%s' does not say '%s'", why, words);
}

static void test_units(void **state)
{
    (void)state;
    assert_int_equal(parsed("250us"), 250000);
    assert_int_equal(parsed("20ms"), 20000000);
    assert_int_equal(parsed("10s"), INT64_C(10000000000));
    assert_int_equal(parsed("5m"), INT64_C(300000000000));
    assert_int_equal(parsed("1h"), INT64_C(3600000000000));
    assert_int_equal(parsed("7d"), INT64_C(604800000000000));
    assert_int_equal(parsed("0s"), 0);
    assert_int_equal(parsed("1.5s"), 1500000000);
    assert_int_equal(parsed("0.25ms"), 250000);
    assert_int_equal(parsed("1.0000000019s"), 1000000001);
    assert_int_equal(parsed("2562047h"), INT64_C(2562047) * 3600 * 1000000000);
}

static void test_refusals(void **state)
{
    (void)state;
    refused("20", "'20' has no unit; write 20ms, 20s");
    refused("0", "has no unit");
    refused("", "is missing");
    refused("-5s", "negative");
    refused("5sec", "unknown unit 'sec'; use us, ms, s, m, h or d");
    refused("5 s", "unknown unit ' s'");
    refused("5S", "unknown unit 'S'");
    refused("ms", "not a duration");
    refused("soon", "not a duration");
    refused("1.s", "unknown unit");
    refused(".5s", "not a duration");
    refused("1.2.3s", "unknown unit");
    refused("2562048h", "too long");
    refused("99999999999999999999999s", "too long");
}

static void test_milliseconds(void **state)
{
    char why[200];
    int64_t ms = 0;

    (void)state;
    assert_true(duration_parse_ms("20ms", &ms, why, sizeof why));
    assert_int_equal(ms, 20);
    assert_true(duration_parse_ms("1us", &ms, why, sizeof why));
    assert_int_equal(ms, 1);
    assert_true(duration_parse_ms("1001us", &ms, why, sizeof why));
    assert_int_equal(ms, 2);
    assert_true(duration_parse_ms("596h", &ms, why, sizeof why));
    assert_false(duration_parse_ms("597h", &ms, why, sizeof why));
    assert_non_null(strstr(why, "too long"));
    assert_true(duration_parse_kept_ms("597h", &ms, why, sizeof why));
    assert_true(duration_parse_kept_ms("3650d", &ms, why, sizeof why));
    assert_int_equal(ms, INT64_C(315360000000));
    assert_false(duration_parse_kept_ms("3651d", &ms, why, sizeof why));
    assert_non_null(strstr(why, "at most 3650d"));
    assert_false(duration_parse_ms("0s", &ms, why, sizeof why));
    assert_non_null(strstr(why, "too short"));
    assert_false(duration_parse_ms("7", &ms, why, sizeof why));
    assert_non_null(strstr(why, "no unit"));
}

static void test_format(void **state)
{
    char text[32];

    (void)state;
    assert_string_equal(duration_format(850000, text, sizeof text), "850us");
    assert_string_equal(duration_format(1500, text, sizeof text), "1.5us");
    assert_string_equal(duration_format(20000000, text, sizeof text), "20ms");
    assert_string_equal(duration_format(1250000000, text, sizeof text), "1.25s");
    assert_string_equal(duration_format(INT64_C(600000000000), text, sizeof text), "10m");
}

static void test_counts(void **state)
{
    uint64_t count = 7;
    char why[200];

    (void)state;
    assert_true(count_parse("64", 1, 64, &count, why, sizeof why));
    assert_int_equal(count, 64);
    assert_false(count_parse("65", 1, 64, &count, why, sizeof why));
    assert_non_null(strstr(why, "from 1 to 64"));
    assert_false(count_parse("", 0, 64, &count, why, sizeof why));
    assert_false(count_parse("-1", 0, 64, &count, why, sizeof why));
    assert_false(count_parse("+1", 0, 64, &count, why, sizeof why));
    assert_false(count_parse("1x", 0, 64, &count, why, sizeof why));
    assert_false(count_parse("99999999999999999999", 0, UINT64_MAX, &count, why, sizeof why));
    assert_int_equal(count, 64);
}

static void test_sizes(void **state)
{
    uint64_t from = 0, to = 0, size = 0;
    char why[200];

    (void)state;
    assert_true(size_parse("8MiB", 16777216, &size, why, sizeof why));
    assert_int_equal(size, 8388608);
    assert_true(size_parse("0", 16777216, &size, why, sizeof why));
    assert_true(size_parse("12B", 16777216, &size, why, sizeof why));
    assert_false(size_parse("17MiB", 16777216, &size, why, sizeof why));
    assert_non_null(strstr(why, "too large"));
    assert_false(size_parse("18446744073709551615KiB", UINT64_MAX, &size, why, sizeof why));
    assert_false(size_parse("8MB", 16777216, &size, why, sizeof why));
    assert_non_null(strstr(why, "64KiB"));
    assert_int_equal(size, 12);
    assert_true(size_range_parse("0..4KiB", 16777216, &from, &to, why, sizeof why));
    assert_int_equal(from, 0);
    assert_int_equal(to, 4096);
    assert_true(size_range_parse("7", 16777216, &from, &to, why, sizeof why));
    assert_int_equal(from, 7);
    assert_int_equal(to, 7);
    assert_false(size_range_parse("9..8", 16777216, &from, &to, why, sizeof why));
    assert_non_null(strstr(why, "backwards"));
    assert_false(size_range_parse("..8", 16777216, &from, &to, why, sizeof why));
    assert_false(size_range_parse("1..", 16777216, &from, &to, why, sizeof why));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "durations carry their unit", test_units, NULL, NULL, NULL },
        { "a duration that is refused says what to write", test_refusals, NULL, NULL, NULL },
        { "milliseconds are rounded up and bounded", test_milliseconds, NULL, NULL, NULL },
        { "durations are written with four digits", test_format, NULL, NULL, NULL },
        { "counts are plain and bounded", test_counts, NULL, NULL, NULL },
        { "sizes have binary units, ranges and bounds", test_sizes, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
