/* SPDX-License-Identifier: MIT */
/* clock.h - the one clock: monotonic nanoseconds. A step of the wall clock changes nothing. */
#ifndef SML_OS_CLOCK_H
#define SML_OS_CLOCK_H

#include <stdint.h>
#include <time.h>

#include "base/time.h"

/* Never fails and costs no system call (vDSO). Any thread, signal-safe. */
static inline uint64_t sml_clock_now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SML_SECOND + (uint64_t)t.tv_nsec;
}

/* An absolute time or a span of nanoseconds as the system wants it; SML_NEVER becomes a time that
 * does not come. */
static inline struct timespec sml_clock_timespec(uint64_t ns)
{
    struct timespec t;

    t.tv_sec = (time_t)(ns / SML_SECOND);
    t.tv_nsec = (long)(ns % SML_SECOND);
    return t;
}

#endif
