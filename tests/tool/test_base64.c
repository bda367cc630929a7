/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base64.h"

static void encode(const unsigned char *data, size_t size, char *text)
{
    for (size_t i = 0; i < size; i += 3, text += 4)
        base64_group(data + i, size - i, text);
    *text = '\0';
}

static void test_there_and_back(void **state)
{
    static const struct {
        const char *plain, *text;
    } words[] = { { "", "" },
                  { "f", "Zg==" },
                  { "fo", "Zm8=" },
                  { "foo", "Zm9v" },
                  { "foob", "Zm9vYg==" },
                  { "fooba", "Zm9vYmE=" },
                  { "\xff\xfe", "//4=" } };
    unsigned char back[300], bytes[256];
    char text[400];
    size_t size;

    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        encode((const unsigned char *)words[i].plain, strlen(words[i].plain), text);
        assert_string_equal(text, words[i].text);
        assert_int_equal(strlen(text), BASE64_LENGTH(strlen(words[i].plain)));
        assert_true(base64_decode(text, strlen(text), back, &size));
        assert_int_equal(size, strlen(words[i].plain));
        assert_memory_equal(back, words[i].plain, size);
    }
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)i;
    for (size_t length = 0; length <= sizeof bytes; length++) {
        encode(bytes, length, text);
        assert_true(base64_decode(text, strlen(text), back, &size));
        assert_int_equal(size, length);
        assert_memory_equal(back, bytes, length);
    }
}

static void test_refused(void **state)
{
    static const char *const words[] = { "Z",    "Zg",    "Zg=",  "====",
                                         "Z===", "Zh==",  "Zm9=", "Zg==Zg==",
                                         "Z g=", "Zg-_",  "Zm9v", "\xff\xff\xff\xff",
                                         "Zm=v", "Zg==\n" };
    unsigned char back[16];
    size_t size;

    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        bool good = strcmp(words[i], "Zm9v") == 0; /* among the wrong ones, one that is right */

        assert_int_equal(base64_decode(words[i], strlen(words[i]), back, &size), good);
    }
    assert_false(base64_decode("Zg\0=", 4, back, &size));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "there and back", test_there_and_back, NULL, NULL, NULL },
        { "anything else is refused", test_refused, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
