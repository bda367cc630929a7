/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "json.h"

static void check_bytes(const void *data, size_t size, const char *expected)
{
    char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    struct jsonl json;

    jsonl_begin(&json, file);
    jsonl_bytes(&json, "b", data, size);
    jsonl_end(&json);
    fclose(file);
    assert_string_equal(text, expected);
    free(text);
}

static void test_bytes(void **state)
{
    (void)state;
    check_bytes("", 0, "{\"b\":\"\"}\n");
    check_bytes("a\"\\\n\x7f", 5, "{\"b\":\"a\\\"\\\\\\u000a\\u007f\"}\n");
    check_bytes("a\0b", 3, "{\"b\":\"a\\u0000b\"}\n");
    check_bytes("\xc3\xa4\xf0\x9f\x98\x80", 6, "{\"b\":\"\xc3\xa4\xf0\x9f\x98\x80\"}\n");
    check_bytes("\xff", 1, "{\"b_base64\":\"/w==\"}\n");
    check_bytes("\xff\xfe", 2, "{\"b_base64\":\"//4=\"}\n");
    check_bytes("\xff\xfe\x01", 3, "{\"b_base64\":\"//4B\"}\n");
}

static void test_object(void **state)
{
    char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    struct jsonl json;

    (void)state;
    jsonl_begin(&json, file);
    jsonl_text(&json, "text", "bad \xff byte");
    jsonl_count(&json, "count", UINT64_MAX);
    jsonl_number(&json, "number", INT64_MIN);
    jsonl_real(&json, "real", 1.25, 1);
    jsonl_end(&json);
    fclose(file);
    assert_string_equal(text, "{\"text\":\"bad \\ufffd byte\",\"count\":18446744073709551615,"
                              "\"number\":-9223372036854775808,\"real\":1.2}\n");
    free(text);
}

static void test_arrays(void **state)
{
    char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    struct jsonl json;

    (void)state;
    jsonl_begin(&json, file);
    jsonl_array(&json, "none");
    jsonl_array_end(&json);
    jsonl_array(&json, "two");
    jsonl_item(&json);
    jsonl_count(&json, "a", 1);
    jsonl_count(&json, "b", 2);
    jsonl_item_end(&json);
    jsonl_item(&json);
    jsonl_item_end(&json);
    jsonl_array_end(&json);
    jsonl_count(&json, "c", 3);
    jsonl_end(&json);
    fclose(file);
    assert_string_equal(text, "{\"none\":[],\"two\":[{\"a\":1,\"b\":2},{}],\"c\":3}\n");
    free(text);
}

static void test_utf8(void **state)
{
    (void)state;
    assert_true(utf8_valid("plain", 5));
    assert_true(utf8_valid("\xf4\x8f\xbf\xbf", 4));
    assert_false(utf8_valid("\xf4\x90\x80\x80", 4)); /* beyond the last character */
    assert_false(utf8_valid("\xed\xa0\x80", 3));     /* a surrogate */
    assert_false(utf8_valid("\xc0\xaf", 2));         /* longer than it need be */
    assert_false(utf8_valid("\xe0\x80\xaf", 3));
    assert_false(utf8_valid("\xc3", 1));
    assert_false(utf8_valid("\x80", 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "bytes are a string when they are UTF-8, else base64", test_bytes, NULL, NULL, NULL },
        { "an object is one line", test_object, NULL, NULL, NULL },
        { "objects in an array", test_arrays, NULL, NULL, NULL },
        { "UTF-8 is checked strictly", test_utf8, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
