/* SPDX-License-Identifier: MIT */
#include "builtin.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <semel/semel.h>

#include "clock.h"
#include "duration.h"

#define BAD_BODY EINVAL
#define SLEEP_SLICE_NS INT64_C(20000000) /* between two looks for a cancellation */

void finish_failure(struct semel_request *request, int code, const char *format, ...)
{
    char text[SEMEL_TEXT_BYTES + 1];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (semel_request_fail(request, code, text) != SEMEL_OK) {
        semel_request_take(request);
        semel_request_died(request, "out of memory while failing");
    }
}

void finish_value(struct semel_request *request, const void *data, size_t size)
{
    enum semel_status status = semel_request_reply(request, data, size);

    if (status == SEMEL_TOO_LARGE)
        finish_failure(request, -1,
                       "it ended well, but its reply of %zu bytes is larger than what the caller "
                       "takes ('semel call --body-limit')",
                       size);
    else if (status != SEMEL_OK)
        finish_failure(request, -1, "it ended well, but its reply cannot be kept: %s",
                       semel_status_text(status));
}

/* The body as a string, cut to `size` - 1 bytes. */
static void body_text(const struct semel_request *request, char *text, size_t size)
{
    struct semel_bytes body = semel_request_body(request);
    size_t length = body.size < size ? body.size : size - 1;

    if (length)
        memcpy(text, body.data, length);
    text[length] = '\0';
    while (length && strchr(" \t\r\n", text[length - 1]))
        text[--length] = '\0';
}

/* The body as a duration; on failure the request is finished. */
static bool body_duration(struct semel_request *request, int64_t *out_ns)
{
    char text[64], why[200];

    body_text(request, text, sizeof text);
    if (duration_parse(text, out_ns, why, sizeof why))
        return true;
    finish_failure(request, BAD_BODY, "%s", why);
    return false;
}

static void cancelled(struct semel_request *request, int64_t spent_ns)
{
    char text[32];

    finish_failure(request, ECANCELED, "cancelled after %s",
                   duration_format(spent_ns, text, sizeof text));
}

void builtin_echo(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    finish_value(request, body.data, body.size);
}

void builtin_sleep(struct semel_request *request, void *user)
{
    int64_t begin = clock_now(), duration, now;

    (void)user;
    if (!body_duration(request, &duration))
        return;
    for (now = begin; now - begin < duration; now = clock_now()) {
        int64_t left = duration - (now - begin);
        int64_t slice = left < SLEEP_SLICE_NS ? left : SLEEP_SLICE_NS;
        struct timespec pause = { slice / 1000000000, slice % 1000000000 };

        nanosleep(&pause, NULL);
        if (semel_request_cancelled(request)) {
            cancelled(request, clock_now() - begin);
            return;
        }
    }
    finish_value(request, NULL, 0);
}

void builtin_burn(struct semel_request *request, void *user)
{
    int64_t begin = clock_ns(CLOCK_THREAD_CPUTIME_ID), spent = 0, duration;
    unsigned rounds = 0;

    (void)user;
    if (!body_duration(request, &duration))
        return;
    while (spent < duration) {
        if (++rounds % 4096 == 0 && semel_request_cancelled(request)) {
            cancelled(request, spent);
            return;
        }
        spent = clock_ns(CLOCK_THREAD_CPUTIME_ID) - begin;
    }
    finish_value(request, NULL, 0);
}

void builtin_fail(struct semel_request *request, void *user)
{
    char text[SEMEL_TEXT_BYTES + 32], *end;
    long code;

    (void)user;
    body_text(request, text, sizeof text);
    errno = 0;
    code = strtol(text, &end, 10);
    if (end == text || errno || code < INT32_MIN || code > INT32_MAX) {
        finish_failure(request, BAD_BODY, "the body is not 'CODE TEXT', such as '7 out of paper'");
        return;
    }
    finish_failure(request, (int)code, "%s", end + strspn(end, " \t"));
}

/* A sum that stays exact as long as all numbers are whole and fit. */
struct sum {
    bool whole;
    int64_t exact;
    double real;
};

static bool sum_add(struct sum *sum, const char *word)
{
    char *end;
    double real;
    long long whole;

    errno = 0;
    whole = strtoll(word, &end, 10);
    if (*end != '\0' || errno || __builtin_add_overflow(sum->exact, (int64_t)whole, &sum->exact))
        sum->whole = false;
    real = strtod(word, &end);
    sum->real += real;
    return *end == '\0';
}

void builtin_sum(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);
    struct sum sum = { true, 0, 0 };
    char *text = malloc(body.size + 1), *rest = NULL, *word, reply[64];

    (void)user;
    if (!text) {
        finish_failure(request, ENOMEM, "out of memory");
        return;
    }
    if (body.size)
        memcpy(text, body.data, body.size);
    text[body.size] = '\0';
    for (word = strtok_r(text, " \t\r\n", &rest); word; word = strtok_r(NULL, " \t\r\n", &rest)) {
        if (!sum_add(&sum, word)) {
            finish_failure(request, BAD_BODY, "'%.40s' is not a number", word);
            free(text);
            return;
        }
    }
    free(text);
    if (sum.whole)
        snprintf(reply, sizeof reply, "%" PRId64, sum.exact);
    else
        snprintf(reply, sizeof reply, "%.15g", sum.real);
    finish_value(request, reply, strlen(reply));
}
