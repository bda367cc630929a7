/* SPDX-License-Identifier: MIT */
/* duration.h - durations as people write them. Each carries its unit: 250us 20ms 1.5s 5m 1h 7d. */
#ifndef TOOL_DURATION_H
#define TOOL_DURATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Read `text` into nanoseconds, 0 or more. False: `why` says what is wrong and what to write. */
bool duration_parse(const char *text, int64_t *out_ns, char *why, size_t why_size);

/* As duration_parse, in milliseconds, rounded up, 1 .. 2^31-1. */
bool duration_parse_ms(const char *text, int64_t *out_ms, char *why, size_t why_size);

/* The same for what outlives a process: 1 .. SEMEL_KEPT_MS_MAX, ten years. */
bool duration_parse_kept_ms(const char *text, int64_t *out_ms, char *why, size_t why_size);

/* Write "850us", "1.25s" ... of at most four significant digits. Returns `text`. */
const char *duration_format(int64_t ns, char *text, size_t size);

#endif
