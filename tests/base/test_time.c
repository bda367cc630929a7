/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/time.h"

static void add(void **state)
{
    (void)state;
    assert_true(sml_time_add(1, 2) == 3);
    assert_true(sml_time_add(1, SML_NEVER) == SML_NEVER);
    assert_true(sml_time_add(SML_NEVER, 0) == SML_NEVER);
    assert_true(sml_time_add(SML_NEVER - 5, 5) == SML_NEVER);
    assert_true(sml_time_add(SML_NEVER - 5, 6) == SML_NEVER);
    assert_true(sml_time_min(3, SML_NEVER) == 3);
    assert_true(sml_time_min(4, 3) == 3);
}

static void ms_until(void **state)
{
    (void)state;
    assert_true(sml_time_ms_until(10, 10) == 0);
    assert_true(sml_time_ms_until(9, 10) == 0);
    assert_true(sml_time_ms_until(11, 10) == 1); /* rounded up: never early */
    assert_true(sml_time_ms_until(SML_MS, 0) == 1);
    assert_true(sml_time_ms_until(SML_MS + 1, 0) == 2);
    assert_true(sml_time_ms_until(SML_NEVER, 0) == SML_NEVER / SML_MS + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "time: sums stop at never", add, NULL, NULL, NULL },
        { "time: milliseconds are rounded up", ms_until, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
