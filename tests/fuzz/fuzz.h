/* SPDX-License-Identifier: MIT */
/* fuzz.h - the one function of every fuzz target: libFuzzer calls it, and so does the replay. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Aborts on what must not be; returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
