/* SPDX-License-Identifier: MIT */
/* clock.h - the monotonic clock, in nanoseconds. */
#ifndef TOOL_CLOCK_H
#define TOOL_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline int64_t clock_now(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

#endif
