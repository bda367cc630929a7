/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#include "chance.h"
#include "histogram.h"

static int compare(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;

    return (a > b) - (a < b);
}

static void test_against_sorting(void **state)
{
    enum { COUNT = 20000 };
    static const double fractions[] = { 0.001, 0.5, 0.9, 0.99, 0.999, 1 };
    struct histogram *histogram = calloc(1, sizeof *histogram);
    int64_t *values = calloc(COUNT, sizeof *values);
    struct chance chance;

    (void)state;
    chance_seed(&chance, 1);
    for (int i = 0; i < COUNT; i++) {
        values[i] = (int64_t)(chance_next(&chance) >> (20 + chance_below(&chance, 40)));
        histogram_record(histogram, values[i]);
    }
    qsort(values, COUNT, sizeof *values, compare);
    for (size_t i = 0; i < sizeof fractions / sizeof fractions[0]; i++) {
        size_t rank = (size_t)(fractions[i] * COUNT);
        double exact = (double)values[rank ? rank - 1 : 0];
        double got = histogram_at(histogram, fractions[i]);

        if (got < exact * 63 / 64 - 1 || got > exact * 65 / 64 + 1)
            fail_msg("at %g: %g instead of %g", fractions[i], got, exact);
    }
    assert_int_equal(histogram->max, values[COUNT - 1]);
    free(values);
    free(histogram);
}

static void test_edges(void **state)
{
    struct histogram *histogram = calloc(1, sizeof *histogram);

    (void)state;
    assert_true(histogram_at(histogram, 0.5) == 0);
    histogram_record(histogram, -7);
    assert_true(histogram_at(histogram, 0.5) == 0);
    histogram_record(histogram, INT64_MAX);
    assert_true(histogram_at(histogram, 1) > 9.1e18);
    assert_true(histogram_at(histogram, 1) <= (double)INT64_MAX);
    free(histogram);
}

static void test_small_values_are_exact(void **state)
{
    (void)state;
    for (int64_t value = 0; value < 128; value++) {
        struct histogram *histogram = calloc(1, sizeof *histogram);

        histogram_record(histogram, value);
        assert_true(histogram_at(histogram, 0.5) == (double)value);
        free(histogram);
    }
}

static void test_merging(void **state)
{
    struct histogram *one = calloc(1, sizeof *one), *two = calloc(1, sizeof *two);

    (void)state;
    for (int i = 1; i <= 100; i++)
        histogram_record(i % 2 ? one : two, i);
    histogram_add(one, two);
    assert_int_equal(one->count, 100);
    assert_int_equal(one->sum, 5050);
    assert_int_equal(one->max, 100);
    assert_true(histogram_at(one, 0.5) == 50);
    free(one);
    free(two);
}

static void test_chance(void **state)
{
    struct chance one, two;
    int64_t sum = 0;

    (void)state;
    chance_seed(&one, 7);
    chance_seed(&two, 7);
    for (int i = 0; i < 100000; i++) {
        int64_t interval = chance_interval(&one, 20000);

        assert_int_equal(interval, chance_interval(&two, 20000));
        assert_in_range(interval, 0, 200000);
        sum += interval;
    }
    assert_in_range(sum / 100000, 19500, 20500);
    for (int i = 0; i < 1000; i++)
        assert_in_range(chance_below(&one, 5), 0, 4);
    chance_seed(&two, 8);
    assert_true(chance_next(&one) != chance_next(&two));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "percentiles are within 1/64 of the sorted truth", test_against_sorting, NULL, NULL,
          NULL },
        { "nothing, negative and greatest values", test_edges, NULL, NULL, NULL },
        { "values below 128 are exact", test_small_values_are_exact, NULL, NULL, NULL },
        { "histograms merge", test_merging, NULL, NULL, NULL },
        { "a seed repeats its numbers, which have the mean asked for", test_chance, NULL, NULL,
          NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
