/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/siphash.h"

/* From the paper's appendix and its reference code: key 00 01 .. 0f, input 00 01 .. of n bytes. */
static void vectors(void **state)
{
    const struct {
        size_t bytes;
        uint64_t hash;
    } known[] = {
        { 0, UINT64_C(0x726fdb47dd0e0e31) },  { 1, UINT64_C(0x74f839c593dc67fd) },
        { 7, UINT64_C(0xab0200f58b01d137) },  { 8, UINT64_C(0x93f5f5799a932462) },
        { 15, UINT64_C(0xa129ca6149be45e5) },
    };
    uint8_t key[16], data[16];

    (void)state;
    for (uint8_t i = 0; i < 16; i++)
        key[i] = data[i] = i;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        assert_true(sml_siphash(key, data, known[i].bytes) == known[i].hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "siphash: known values", vectors, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
