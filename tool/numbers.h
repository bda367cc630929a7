/* SPDX-License-Identifier: MIT */
/* numbers.h - counts and sizes as people write them. */
#ifndef TOOL_NUMBERS_H
#define TOOL_NUMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A plain decimal count, min .. max. False: `why` says what is wrong. */
bool count_parse(const char *text, uint64_t min, uint64_t max, uint64_t *out_count, char *why,
                 size_t why_size);

/* A size in bytes: 4096, 64KiB, 8MiB, 1GiB; at most `max`. */
bool size_parse(const char *text, uint64_t max, uint64_t *out_bytes, char *why, size_t why_size);

/* One size, or a range of sizes "0..4KiB". */
bool size_range_parse(const char *text, uint64_t max, uint64_t *out_min, uint64_t *out_max,
                      char *why, size_t why_size);

#endif
