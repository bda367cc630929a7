/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#include "cutter.h"

struct seen {
    char text[256]; /* items, each with a '|' behind it */
    unsigned left;  /* how many more are wanted */
};

static bool see(const char *item, size_t size, void *user)
{
    struct seen *seen = user;

    strncat(seen->text, item, size);
    strcat(seen->text, "|");
    return --seen->left > 0;
}

static void expect(struct cutter cutter, const char *input, const char *items)
{
    size_t size = strlen(input);

    for (size_t step = 1; step <= size + 1; step++) {
        struct seen seen = { .left = 100 };

        for (size_t at = 0; at < size; at += step)
            assert_int_equal(
                cutter_feed(&cutter, input + at, size - at < step ? size - at : step, see, &seen),
                CUT_OK);
        assert_int_equal(cutter_end(&cutter, see, &seen), CUT_OK);
        assert_string_equal(seen.text, items);
    }
    cutter_clear(&cutter);
}

static void test_lines(void **state)
{
    struct cutter cutter = { .line_max = 5 };

    (void)state;
    expect(cutter, "", "");
    expect(cutter, "a\n", "a|");
    expect(cutter, "a\nbc", "a|bc|");
    expect(cutter, "\n\nabcde\n\n", "||abcde||");
}

static void test_chunks(void **state)
{
    struct cutter cutter = { .chunk = 3 };
    struct seen seen = { .left = 100 };

    (void)state;
    assert_int_equal(cutter_feed(&cutter, "ab\ncdef", 7, see, &seen), CUT_OK);
    assert_int_equal(cutter_feed(&cutter, "g", 1, see, &seen), CUT_OK);
    assert_int_equal(cutter_end(&cutter, see, &seen), CUT_OK);
    assert_string_equal(seen.text, "ab\n|cde|f|g|");
}

static void test_too_long(void **state)
{
    struct cutter cutter = { .line_max = 3 };
    struct seen seen = { .left = 100 };

    (void)state;
    assert_int_equal(cutter_feed(&cutter, "abc\nabcd\n", 9, see, &seen), CUT_TOO_LONG);
    assert_string_equal(seen.text, "abc|");
    cutter_clear(&cutter);
    assert_int_equal(cutter_feed(&cutter, "abc", 3, see, &seen), CUT_OK);
    assert_int_equal(cutter_feed(&cutter, "d", 1, see, &seen), CUT_TOO_LONG);
    cutter_clear(&cutter);
}

static void test_no_more_wanted(void **state)
{
    struct cutter cutter = { .line_max = 3 };
    struct seen seen = { .left = 2 };

    (void)state;
    assert_int_equal(cutter_feed(&cutter, "a\nb\nc\n", 6, see, &seen), CUT_STOPPED);
    assert_string_equal(seen.text, "a|b|");
    cutter_clear(&cutter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "lines, fed in every way", test_lines, NULL, NULL, NULL },
        { "chunks as they come", test_chunks, NULL, NULL, NULL },
        { "a line that is too long", test_too_long, NULL, NULL, NULL },
        { "no more are wanted", test_no_more_wanted, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests_name("tool/cutter", tests, NULL, NULL);
}
