/* SPDX-License-Identifier: MIT */
#include "numbers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Reads digits up to the first other character. False: there are none, or too many. */
static bool digits_read(const char **text, uint64_t *out)
{
    const char *at = *text;
    uint64_t value = 0;

    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
            return false;
    }
    if (at == *text)
        return false;
    *text = at;
    *out = value;
    return true;
}

bool count_parse(const char *text, uint64_t min, uint64_t max, uint64_t *out_count, char *why,
                 size_t why_size)
{
    const char *end = text;
    uint64_t value;

    if (!digits_read(&end, &value) || *end != '\0' || value < min || value > max) {
        snprintf(why, why_size, "'%.40s' is not a number from %" PRIu64 " to %" PRIu64, text, min,
                 max);
        return false;
    }
    *out_count = value;
    return true;
}

static bool unit_read(const char *name, unsigned *out_shift)
{
    static const char *const names[] = { "", "B", "KiB", "MiB", "GiB" };
    static const unsigned shifts[] = { 0, 0, 10, 20, 30 };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0) {
            *out_shift = shifts[i];
            return true;
        }
    }
    return false;
}

bool size_parse(const char *text, uint64_t max, uint64_t *out_bytes, char *why, size_t why_size)
{
    const char *end = text;
    uint64_t value;
    unsigned shift;

    if (!digits_read(&end, &value) || !unit_read(end, &shift)) {
        snprintf(why, why_size,
                 "'%.40s' is not a size; write bytes or a unit, such as 4096, 64KiB "
                 "or 8MiB",
                 text);
        return false;
    }
    if (value > max >> shift) {
        snprintf(why, why_size, "'%.40s' is too large; at most %" PRIu64 " bytes", text, max);
        return false;
    }
    *out_bytes = value << shift;
    return true;
}

bool size_range_parse(const char *text, uint64_t max, uint64_t *out_min, uint64_t *out_max,
                      char *why, size_t why_size)
{
    const char *dots = strstr(text, "..");
    uint64_t from, to;
    char first[32];

    if (!dots) {
        if (!size_parse(text, max, &from, why, why_size))
            return false;
        *out_min = *out_max = from;
        return true;
    }
    snprintf(first, sizeof first, "%.*s", (int)(dots - text), text);
    if (!size_parse(first, max, &from, why, why_size) ||
        !size_parse(dots + 2, max, &to, why, why_size))
        return false;
    if (from > to) {
        snprintf(why, why_size, "'%.40s' runs backwards; write the smaller size first", text);
        return false;
    }
    *out_min = from;
    *out_max = to;
    return true;
}
