/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/hash.h"
#include "base/text.h"

static void hex(char *out, const void *bytes, size_t count)
{
    struct sml_text text;

    sml_text_init(&text, out, 2 * count + 1);
    sml_text_add_hex(&text, bytes, count);
}

/* Examples of FIPS 180-4, and lengths around the padding's edges. */
static void sha256(void **state)
{
    static const struct {
        const char *in, *digest;
    } cases[] = {
        { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
        { "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
          "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
          "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1" },
    };
    static char million[1000000];
    uint8_t digest[32];
    char shown[65];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sml_sha256(cases[i].in, strlen(cases[i].in), digest);
        hex(shown, digest, sizeof digest);
        assert_string_equal(shown, cases[i].digest);
    }
    memset(million, 'a', sizeof million);
    sml_sha256(million, sizeof million, digest);
    hex(shown, digest, sizeof digest);
    assert_string_equal(shown, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    sml_sha256(million, 64, digest);
    hex(shown, digest, sizeof digest);
    assert_string_equal(shown, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
}

static void constant_time(void **state)
{
    uint8_t a[32] = { 0 }, b[32] = { 0 };

    (void)state;
    assert_true(sml_equal_constant_time(a, b, 32));
    assert_true(sml_equal_constant_time(a, b, 0));
    for (size_t i = 0; i < 32; i++) {
        b[i] = 0x80;
        assert_false(sml_equal_constant_time(a, b, 32));
        assert_true(sml_equal_constant_time(a, b, i));
        b[i] = 0;
    }
}

static int by_lane(const void *x, const void *y)
{
    const struct sml_fingerprint *a = x, *b = y;

    return a->a != b->a ? (a->a < b->a ? -1 : 1) : a->b != b->b ? (a->b < b->b ? -1 : 1) : 0;
}

/* Both lanes must differ: no two of these are allowed to agree even in one of them. */
static void assert_all_differ(struct sml_fingerprint *prints, size_t count)
{
    qsort(prints, count, sizeof *prints, by_lane);
    for (size_t i = 1; i < count; i++)
        assert_true(prints[i].a != prints[i - 1].a);
    for (size_t i = 0; i < count; i++)
        prints[i] = (struct sml_fingerprint){ prints[i].b, prints[i].a };
    qsort(prints, count, sizeof *prints, by_lane);
    for (size_t i = 1; i < count; i++)
        assert_true(prints[i].a != prints[i - 1].a);
}

static void splits(void **state)
{
    static const char bytes[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    struct sml_fingerprint prints[41 * 42];
    size_t count = 0;

    (void)state;
    for (size_t method = 0; method <= 40; method++)
        for (size_t type = 0; method + type <= 40; type++)
            prints[count++] = sml_fingerprint(bytes, method, bytes + method, type,
                                              bytes + method + type, 40 - method - type);
    assert_all_differ(prints, count);
}

/* Zeros of every length, and every single bit of a body of 200 bytes. */
static void lengths_and_bits(void **state)
{
    static struct sml_fingerprint prints[4000];
    static uint8_t zeros[2000];
    size_t count = 0;

    (void)state;
    for (size_t n = 0; n <= 2000; n++)
        prints[count++] = sml_fingerprint("m", 1, "", 0, zeros, n);
    for (size_t bit = 0; bit < 1600; bit++) {
        zeros[bit / 8] ^= (uint8_t)(1u << bit % 8);
        prints[count++] = sml_fingerprint("m", 1, "", 0, zeros, 200);
        zeros[bit / 8] = 0;
    }
    assert_all_differ(prints, count);
}

/* Blocks and words exchanged: order is part of the contents. */
static void exchanges(void **state)
{
    struct sml_fingerprint prints[32 * 31 / 2 + 1];
    uint64_t words[32];
    size_t count = 0;

    (void)state;
    for (uint64_t i = 0; i < 32; i++)
        words[i] = i + 1;
    prints[count++] = sml_fingerprint("m", 1, NULL, 0, words, sizeof words);
    for (size_t i = 0; i < 32; i++) {
        for (size_t j = 0; j < i; j++) {
            words[i] = j + 1;
            words[j] = i + 1;
            prints[count++] = sml_fingerprint("m", 1, NULL, 0, words, sizeof words);
            words[i] = i + 1;
            words[j] = j + 1;
        }
    }
    assert_all_differ(prints, count);
}

/* Same contents at any alignment; nothing outside is read (heap blocks of the exact size). */
static void alignment(void **state)
{
    (void)state;
    for (size_t n = 0; n < 100; n++) {
        struct sml_fingerprint first = { 0, 0 };

        for (size_t shift = 0; shift < 9; shift++) {
            uint8_t *block = malloc(n + shift + !(n + shift));
            struct sml_fingerprint print;

            assert_non_null(block);
            for (size_t i = 0; i < n; i++)
                block[shift + i] = (uint8_t)(i * 7 + 1);
            print = sml_fingerprint(block + shift, n, block + shift, n, block + shift, n);
            if (shift == 0)
                first = print;
            assert_true(sml_fingerprint_equal(first, print));
            free(block);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "hash: SHA-256 of the standard's examples", sha256, NULL, NULL, NULL },
        { "hash: equal in constant time", constant_time, NULL, NULL, NULL },
        { "fingerprint: no two splits agree", splits, NULL, NULL, NULL },
        { "fingerprint: every length and every bit counts", lengths_and_bits, NULL, NULL, NULL },
        { "fingerprint: order counts", exchanges, NULL, NULL, NULL },
        { "fingerprint: any alignment, nothing outside", alignment, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
