/* SPDX-License-Identifier: MIT */
/* What is written is JSON, whatever the words are, and never larger than its limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "rpc/json_text.h"

static void expect(struct sml_json *json, const char *text)
{
    assert_int_equal(json->status, SEMEL_OK);
    assert_int_equal(json->size, strlen(text));
    assert_memory_equal(json->data, text, json->size);
    sml_json_fini(json);
}

static void nested(void **state)
{
    struct sml_json json;

    (void)state;
    sml_json_init(&json, 1000);
    sml_json_open(&json, NULL, '{');
    sml_json_u64(&json, "most", UINT64_MAX);
    sml_json_i64(&json, "least", INT64_MIN);
    sml_json_open(&json, "list", '[');
    sml_json_open(&json, NULL, '[');
    sml_json_close(&json, ']');
    sml_json_open(&json, NULL, '[');
    sml_json_u64(&json, NULL, 1);
    sml_json_u64(&json, NULL, 2);
    sml_json_close(&json, ']');
    sml_json_close(&json, ']');
    sml_json_open(&json, "none", '{');
    sml_json_close(&json, '}');
    sml_json_bool(&json, "yes", true);
    sml_json_bool(&json, "no", false);
    sml_json_hex(&json, "id", "\x01\xab", 2);
    sml_json_close(&json, '}');
    expect(&json, "{\"most\":18446744073709551615,\"least\":-9223372036854775808,"
                  "\"list\":[[],[1,2]],\"none\":{},\"yes\":true,\"no\":false,\"id\":\"01ab\"}");
}

static void words(void **state)
{
    struct sml_json json;

    (void)state;
    sml_json_init(&json, 1000);
    sml_json_text(&json, NULL, "a\"\\\n\x1b\x7f\xc3\xa9\xff[{");
    expect(&json, "\"a\\u0022\\u005c\\u000a\\u001b\\u007f\xc3\xa9\\ufffd[{\"");
}

static void limit(void **state)
{
    struct sml_json json;

    (void)state;
    sml_json_init(&json, 5);
    sml_json_text(&json, NULL, "abc");
    assert_int_equal(json.status, SEMEL_OK);
    sml_json_close(&json, '}');
    assert_int_equal(json.status, SEMEL_TOO_LARGE);
    sml_json_u64(&json, NULL, 1);
    assert_int_equal(json.size, 5);
    assert_memory_equal(json.data, "\"abc\"", 5);
    sml_json_fini(&json);
    sml_json_init(&json, 100000);
    for (int i = 0; i < 5000; i++)
        sml_json_u64(&json, NULL, 7);
    assert_int_equal(json.status, SEMEL_OK);
    assert_int_equal(json.size, 9999);
    sml_json_fini(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nested),
        cmocka_unit_test(words),
        cmocka_unit_test(limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
