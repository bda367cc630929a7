/* SPDX-License-Identifier: MIT */
/* time.h - monotonic nanoseconds; only durations cross the wire. */
#ifndef SML_BASE_TIME_H
#define SML_BASE_TIME_H

#include <stdint.h>

#define SML_NEVER UINT64_MAX
#define SML_MS UINT64_C(1000000)
#define SML_SECOND UINT64_C(1000000000)

/* base + span, or SML_NEVER where that would overflow. */
static inline uint64_t sml_time_add(uint64_t base, uint64_t span)
{
    return span > SML_NEVER - base ? SML_NEVER : base + span;
}

static inline uint64_t sml_time_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline uint64_t sml_time_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Whole milliseconds from `now` until `then`, rounded up; 0 when it has passed. */
static inline uint64_t sml_time_ms_until(uint64_t then, uint64_t now)
{
    return then <= now ? 0 : (then - now) / SML_MS + ((then - now) % SML_MS != 0);
}

#endif
