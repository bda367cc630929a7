/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/test_random.h"
#include "base/text.h"

static void builds(void **state)
{
    char buffer[128];
    struct sml_text text;

    (void)state;
    sml_text_init(&text, buffer, sizeof buffer);
    assert_string_equal(buffer, "");
    sml_text_add(&text, "call ");
    sml_text_add(&text, NULL);
    sml_text_add_u64(&text, UINT64_MAX);
    sml_text_add(&text, " ");
    sml_text_add_u64(&text, 0);
    sml_text_add(&text, " ");
    sml_text_add_i64(&text, INT64_MIN);
    sml_text_add(&text, " ");
    sml_text_add_i64(&text, 42);
    sml_text_add(&text, " ");
    sml_text_add_hex(&text, "\x00\xff\x5a", 3);
    assert_string_equal(buffer, "call 18446744073709551615 0 -9223372036854775808 42 00ff5a");
    assert_int_equal(text.used, strlen(buffer));
    assert_false(text.cut);
}

static void escapes(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        { "plain text", "plain text" },
        { "a\nb\tc\x1b[31m\x7f", "a\\x0ab\\x09c\\x1b[31m\\x7f" },
        { "back\\slash", "back\\x5cslash" },
        { "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80", /* letters, a sign, a face */
          "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80" },
        { "\xc2\x85|\xc2\x9b", "\\xc2\\x85|\\xc2\\x9b" }, /* C1 controls */
        { "\xe2\x80\xa8|\xe2\x80\xae",
          "\\xe2\\x80\\xa8|\\xe2\\x80\\xae" }, /* separator, override */
        { "\xe2\x81\xa6", "\\xe2\\x81\\xa6" }, /* isolate */
        { "\xef\xbb\xbf", "\\xef\\xbb\\xbf" }, /* byte order mark */
        { "\xc0\xaf", "\\xc0\\xaf" },          /* overlong */
        { "\xe0\x80\xaf", "\\xe0\\x80\\xaf" },
        { "\xf0\x80\x80\xaf", "\\xf0\\x80\\x80\\xaf" },
        { "\xed\xa0\x80", "\\xed\\xa0\\x80" },          /* surrogate */
        { "\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80" }, /* above the last */
        { "\xff\xfe", "\\xff\\xfe" },
        { "\xc3", "\\xc3" }, /* ends early */
        { "\xe2\x82", "\\xe2\\x82" },
        { "\xc3(", "\\xc3(" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char buffer[128];
        struct sml_text text;

        sml_text_init(&text, buffer, sizeof buffer);
        sml_text_add_escaped(&text, cases[i].in, strlen(cases[i].in));
        assert_string_equal(buffer, cases[i].out);
    }
}

/* A full buffer cuts: terminated, nothing after the hole, no half escape. */
static void cuts(void **state)
{
    (void)state;
    for (size_t room = 1; room <= 20; room++) {
        char buffer[21];
        struct sml_text text;

        memset(buffer, '#', sizeof buffer);
        sml_text_init(&text, buffer, room);
        sml_text_add(&text, "ab");
        sml_text_add_escaped(&text, "\n\xe2\x82\xac", 4);
        sml_text_add_u64(&text, 1234);
        sml_text_add_hex(&text, "\x01\x02", 2);
        assert_int_equal(strlen(buffer), text.used);
        assert_true(text.used < room);
        assert_int_equal(buffer[room], '#'); /* nothing past the end */
        assert_int_equal(strncmp(buffer,
                                 "ab\\x0a\xe2\x82\xac"
                                 "12340102",
                                 text.used),
                         0);
        assert_true(text.cut == (room < 18));
        assert_true(text.used <= 2 || text.used == 6 || text.used == 9 || text.used == 13 ||
                    text.used == 15 || text.used == 17);
    }
}

static void never_a_control(void **state)
{
    uint64_t seed = 3;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        uint8_t bytes[40];
        char buffer[200];
        struct sml_text text;

        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)random_next(&seed);
        sml_text_init(&text, buffer, sizeof buffer);
        sml_text_add_escaped(&text, bytes, sizeof bytes);
        for (size_t i = 0; i < text.used; i++)
            assert_true((uint8_t)buffer[i] >= 0x20 && buffer[i] != 0x7f);
        assert_false(text.cut);
    }
}

static void one_character(void **state)
{
    static const struct {
        const char *bytes;
        size_t length;
        uint32_t point;
    } cases[] = {
        { "a", 1, 'a' },
        { "\xc3\xa9", 2, 0xe9 },
        { "\xe2\x82\xac", 3, 0x20ac },
        { "\xf0\x9f\x98\x80", 4, 0x1f600 },
        { "\x80", 0, 0 },
        { "\xc0\x80", 0, 0 },
        { "\xed\xa0\x80", 0, 0 },
        { "\xe2\x82", 0, 0 },
        { "\xff", 0, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t point = 0;

        assert_int_equal(
            sml_text_utf8((const uint8_t *)cases[i].bytes, strlen(cases[i].bytes), &point),
            cases[i].length);
        assert_int_equal(point, cases[i].point);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "text: builds a message", builds, NULL, NULL, NULL },
        { "text: escapes what came from a peer", escapes, NULL, NULL, NULL },
        { "text: cuts when full", cuts, NULL, NULL, NULL },
        { "text: one character of UTF-8", one_character, NULL, NULL, NULL },
        { "text: random bytes never give a control character", never_a_control, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
