/* SPDX-License-Identifier: MIT */
/* Buckets hold what they say, and quantiles are an eighth too long at most. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "rpc/tally.h"

static void buckets_follow_one_another(void **state)
{
    (void)state;
    assert_int_equal(sml_tally_bucket(0), 0);
    for (uint32_t i = 0; i + 1 < SML_TALLY_BUCKETS; i++) {
        uint64_t bound = sml_tally_bound(i);

        assert_int_equal(sml_tally_bucket(bound), i);
        assert_int_equal(sml_tally_bucket(bound + 1), i + 1);
        if (i >= 8)
            assert_true(sml_tally_bound(i + 1) - bound <= bound / 8 + 1);
    }
    assert_int_equal(sml_tally_bucket(UINT64_MAX), SML_TALLY_BUCKETS - 1);
    assert_true(sml_tally_bound(SML_TALLY_BUCKETS - 1) == (UINT64_C(1) << 43) - 1);
}

static void quantiles(void **state)
{
    static struct sml_tally tally, other;
    struct sml_tally_sum sum = { { 0 }, 0, { 0 } }, all = { { 0 }, 0, { 0 } };

    (void)state;
    assert_int_equal(sml_tally_sum_quantile(&sum, 500), 0);
    for (uint64_t i = 1; i <= 1000; i++)
        sml_tally_add(&tally, i % 10 == 0 ? SEMEL_FAILURE : SEMEL_VALUE, i * 1000);
    sml_tally_sum_add(&sum, &tally);
    assert_int_equal(sum.count, 1000);
    assert_int_equal(sum.outcomes[SEMEL_VALUE], 900);
    assert_int_equal(sum.outcomes[SEMEL_FAILURE], 100);
    for (uint32_t permille = 1; permille <= 1000; permille++) {
        uint64_t exact = permille * UINT64_C(1000), found = sml_tally_sum_quantile(&sum, permille);

        assert_true(found >= exact && found <= exact + exact / 8 + 1);
    }
    sml_tally_add(&other, SEMEL_UNKNOWN, UINT64_C(5000000000));
    sml_tally_sum_add(&all, &other);
    sml_tally_sum_merge(&all, &sum);
    assert_int_equal(all.count, 1001);
    assert_int_equal(all.outcomes[SEMEL_UNKNOWN], 1);
    assert_true(sml_tally_sum_quantile(&all, 1000) >= UINT64_C(5000000000));
    assert_int_equal(sml_tally_sum_quantile(&all, 500), sml_tally_sum_quantile(&sum, 500));
}

/* Where ranks would not fit a product with 1000. */
static void great_numbers(void **state)
{
    struct sml_tally_sum sum = { { 0 }, UINT64_MAX, { 0 } };

    (void)state;
    sum.buckets[20] = UINT64_MAX / 2;
    sum.buckets[30] = UINT64_MAX - UINT64_MAX / 2;
    assert_int_equal(sml_tally_sum_quantile(&sum, 400), sml_tally_bound(20));
    assert_int_equal(sml_tally_sum_quantile(&sum, 600), sml_tally_bound(30));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_follow_one_another),
        cmocka_unit_test(quantiles),
        cmocka_unit_test(great_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
