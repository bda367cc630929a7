/* SPDX-License-Identifier: MIT */
/* primes.c - counts primes, slowly: work that keeps a core busy. */
#include "primes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECES 100
#define ASK 4096 /* numbers between two looks at whether it was cancelled */

static bool is_prime(uint64_t n)
{
    if (n < 4)
        return n > 1;
    if (n % 2 == 0)
        return false;
    for (uint64_t d = 3; d * d <= n; d += 2)
        if (n % d == 0)
            return false;
    return true;
}

/* False: the task was cancelled. */
static bool count(struct semel_request *request, uint64_t from, uint64_t to, uint64_t *out_count)
{
    uint64_t found = 0;

    for (uint64_t n = from; n < to; n++) {
        if (n % ASK == 0 && semel_request_cancelled(request))
            return false;
        found += is_prime(n);
    }
    *out_count = found;
    return true;
}

static enum semel_status tell(struct semel_request *request, uint64_t from, uint64_t to,
                              uint64_t found, int percent)
{
    char text[80];
    enum semel_status status;

    (void)snprintf(text, sizeof text, "%" PRIu64 " .. %" PRIu64 ": %" PRIu64, from, to - 1, found);
    status = semel_task_report(request, semel_bytes_text(text));
    if (status != SEMEL_OK)
        return status;
    (void)snprintf(text, sizeof text, "%d", percent);
    return semel_task_progress(request, semel_bytes_text(text));
}

static void primes(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);
    char text[32] = "";
    uint64_t limit, total = 0;

    (void)user;
    memcpy(text, body.data, body.size < sizeof text ? body.size : sizeof text - 1);
    limit = strtoull(text, NULL, 10);
    if (limit == 0) {
        (void)semel_request_fail(request, 1, "not a number");
        return;
    }
    for (int i = 0; i < PIECES; i++) {
        uint64_t from = limit / PIECES * (uint64_t)i, found;
        uint64_t to = i == PIECES - 1 ? limit : limit / PIECES * (uint64_t)(i + 1);

        if (!count(request, from, to, &found) ||
            tell(request, from, to, found, i + 1) != SEMEL_OK) {
            (void)semel_request_fail(request, 2, "stopped");
            return;
        }
        total += found;
    }
    (void)snprintf(text, sizeof text, "%" PRIu64, total);
    (void)semel_request_reply(request, text, strlen(text));
}

enum semel_status primes_export(struct semel_server *server, void *user)
{
    (void)user;
    return semel_task_export(server, "primes", primes, NULL, NULL);
}
