/* SPDX-License-Identifier: MIT */
#include "duration.h"

#include <stdio.h>
#include <string.h>

#include <semel/limits.h>

struct unit {
    const char *name;
    int64_t ns;
};

static const struct unit units[] = {
    { "us", INT64_C(1000) },         { "ms", INT64_C(1000000) },
    { "s", INT64_C(1000000000) },    { "m", INT64_C(60000000000) },
    { "h", INT64_C(3600000000000) }, { "d", INT64_C(86400000000000) },
};

static const struct unit *unit_find(const char *name)
{
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(units[i].name, name) == 0)
            return &units[i];
    }
    return NULL;
}

/* The digits after a point, as so many nanoseconds of `unit`. Digits below a nanosecond are cut. */
static int64_t fraction_ns(const char *digits, size_t count, int64_t unit)
{
    int64_t ns = 0, place = unit;

    for (size_t i = 0; i < count; i++) {
        place /= 10;
        ns += (digits[i] - '0') * place;
    }
    return ns;
}

static bool explain(const char *text, char *why, size_t why_size)
{
    const char *rest = text + strspn(text, "0123456789.");

    if (text[0] == '\0')
        snprintf(why, why_size, "a duration is missing; write a number and a unit, such as 250ms");
    else if (text[0] == '-')
        snprintf(why, why_size, "'%.40s' is negative; a duration is 0s or more", text);
    else if (rest == text || text[0] == '.')
        snprintf(why, why_size,
                 "'%.40s' is not a duration; write a number and a unit, "
                 "such as 250ms or 10s",
                 text);
    else if (*rest == '\0')
        snprintf(why, why_size,
                 "'%.40s' has no unit; write %.20sms, %.20ss or another of "
                 "us, ms, s, m, h, d",
                 text, text, text);
    else
        snprintf(why, why_size, "'%.40s' has the unknown unit '%.20s'; use us, ms, s, m, h or d",
                 text, rest);
    return false;
}

bool duration_parse(const char *text, int64_t *out_ns, char *why, size_t why_size)
{
    size_t whole = strspn(text, "0123456789");
    const char *digits = text + whole + 1; /* behind a point, if there is one */
    size_t fraction = text[whole] == '.' ? strspn(digits, "0123456789") : 0;
    const char *name = text[whole] == '.' ? digits + fraction : text + whole;
    const struct unit *unit = unit_find(name);
    int64_t count = 0, ns;

    if (whole == 0 || (text[whole] == '.' && fraction == 0) || !unit)
        return explain(text, why, why_size);
    for (size_t i = 0; i < whole; i++) {
        if (__builtin_mul_overflow(count, 10, &count) ||
            __builtin_add_overflow(count, text[i] - '0', &count))
            goto too_long;
    }
    if (__builtin_mul_overflow(count, unit->ns, &ns) ||
        __builtin_add_overflow(ns, fraction_ns(digits, fraction, unit->ns), &ns))
        goto too_long;
    *out_ns = ns;
    return true;

too_long:
    snprintf(why, why_size, "'%.40s' is too long; at most 2562047h", text);
    return false;
}

static bool parse_ms(const char *text, int64_t most, const char *most_text, int64_t *out_ms,
                     char *why, size_t why_size)
{
    int64_t ns, ms;

    if (!duration_parse(text, &ns, why, why_size))
        return false;
    ms = ns / 1000000 + (ns % 1000000 != 0);
    if (ms == 0) {
        snprintf(why, why_size, "'%.40s' is too short; it must be more than nothing", text);
        return false;
    }
    if (ms > most) {
        snprintf(why, why_size, "'%.40s' is too long; at most %s", text, most_text);
        return false;
    }
    *out_ms = ms;
    return true;
}

bool duration_parse_ms(const char *text, int64_t *out_ms, char *why, size_t why_size)
{
    return parse_ms(text, INT32_MAX, "596h", out_ms, why, why_size);
}

bool duration_parse_kept_ms(const char *text, int64_t *out_ms, char *why, size_t why_size)
{
    return parse_ms(text, SEMEL_KEPT_MS_MAX, "3650d", out_ms, why, why_size);
}

const char *duration_format(int64_t ns, char *text, size_t size)
{
    if (ns < 1000000)
        snprintf(text, size, "%.4gus", (double)ns / 1e3);
    else if (ns < 1000000000)
        snprintf(text, size, "%.4gms", (double)ns / 1e6);
    else if (ns < INT64_C(600000000000))
        snprintf(text, size, "%.4gs", (double)ns / 1e9);
    else
        snprintf(text, size, "%.4gm", (double)ns / 60e9);
    return text;
}
