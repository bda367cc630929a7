/* SPDX-License-Identifier: MIT */
/* Servers count from their beginning; what happens now is the difference of two answers. Buckets
 * keep their bounds, so theirs is, too. */
#include "top.h"

#include <stdlib.h>
#include <string.h>

#include "inspect.h"

static uint64_t difference(uint64_t now, uint64_t before)
{
    return now > before ? now - before : 0;
}

/* The count of the bucket with this bound; *at goes on from the last one asked for. */
static uint64_t bucket_of(const json_t *times, size_t *at, json_int_t bound)
{
    for (; *at < json_array_size(times); ++*at) {
        const json_t *pair = json_array_get(times, *at);
        json_int_t its = json_integer_value(json_array_get(pair, 0));

        if (its == bound)
            return (uint64_t)json_integer_value(json_array_get(pair, 1));
        if (its > bound)
            return 0;
    }
    return 0;
}

/* The time that `permille` of the calls between the answers did not exceed; 0: there were none. */
static uint64_t quantile(const json_t *now, const json_t *before, uint64_t permille)
{
    const json_t *times = json_object_get(now, "times");
    const json_t *earlier = json_object_get(before, "times");
    uint64_t total = 0, seen = 0;

    for (int round = 0; round < 2; round++) {
        size_t at = 0;

        for (size_t i = 0; i < json_array_size(times); i++) {
            const json_t *pair = json_array_get(times, i);
            json_int_t bound = json_integer_value(json_array_get(pair, 0));
            uint64_t count = difference((uint64_t)json_integer_value(json_array_get(pair, 1)),
                                        bucket_of(earlier, &at, bound));

            if (round == 0)
                total += count;
            else
                seen += count;
            if (round == 1 && count > 0 && (double)seen * 1000 >= (double)total * (double)permille)
                return (uint64_t)bound;
        }
    }
    return 0;
}

static uint64_t ended_of(const json_t *method)
{
    return member_count(method, "values") + member_count(method, "failures") +
           member_count(method, "not_executed") + member_count(method, "unknown");
}

/* `before` may be NULL. */
static void fill(struct top_method *out, const json_t *now, const json_t *before, double span)
{
    out->name = member_text(now, "name");
    out->running = member_count(now, "running");
    out->waiting = member_count(now, "waiting");
    out->ended = ended_of(now);
    out->failures = member_count(now, "failures");
    out->unknown = member_count(now, "unknown");
    if (span > 0)
        out->rate = (double)difference(out->ended, ended_of(before)) / span;
    out->p50_ns = quantile(now, before, 500);
    out->p99_ns = quantile(now, before, 990);
}

/* The earlier answer's methods by their names. NULL: no memory. */
static json_t *index_of(const json_t *answer)
{
    const json_t *methods = json_object_get(answer, "methods");
    json_t *index = json_object();

    for (size_t i = 0; index && i < json_array_size(methods); i++) {
        json_t *method = json_array_get(methods, i);

        if (json_object_set(index, member_text(method, "name"), method) != 0) {
            json_decref(index);
            index = NULL;
        }
    }
    return index;
}

bool top_view_make(struct top_view *view, const json_t *earlier, const json_t *now)
{
    const json_t *methods = json_object_get(now, "methods");
    const json_t *server = json_object_get(now, "server"), *other;
    size_t size = json_array_size(methods);
    json_t *index;

    memset(view, 0, sizeof *view);
    other = json_object_get(earlier, "server");
    view->restarted =
        other && (member_count(other, "pid") != member_count(server, "pid") ||
                  member_count(other, "uptime_ns") > member_count(server, "uptime_ns"));
    if (view->restarted)
        earlier = other = NULL;
    view->now = now;
    view->fresh = !earlier;
    if (earlier)
        view->span =
            (double)(member_count(server, "uptime_ns") - member_count(other, "uptime_ns")) / 1e9;
    view->methods = calloc(size + 1, sizeof *view->methods);
    index = index_of(earlier);
    if (!view->methods || !index) {
        json_decref(index);
        top_view_free(view);
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        const json_t *method = json_array_get(methods, i);

        fill(&view->methods[view->count++], method,
             json_object_get(index, member_text(method, "name")), view->span);
    }
    fill(&view->all, json_object_get(now, "all"), json_object_get(earlier, "all"), view->span);
    json_decref(index);
    return true;
}

void top_view_free(struct top_view *view)
{
    free(view->methods);
    view->methods = NULL;
    view->count = 0;
}

/* --- sorting --------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct top_method *)a)->name, ((const struct top_method *)b)->name);
}

static int by_rate(const void *a, const void *b)
{
    double left = ((const struct top_method *)a)->rate,
           right = ((const struct top_method *)b)->rate;

    return left < right ? 1 : left > right ? -1 : by_name(a, b);
}

static int by_p99(const void *a, const void *b)
{
    uint64_t left = ((const struct top_method *)a)->p99_ns;
    uint64_t right = ((const struct top_method *)b)->p99_ns;

    return left < right ? 1 : left > right ? -1 : by_name(a, b);
}

static int by_running(const void *a, const void *b)
{
    const struct top_method *left = a, *right = b;
    uint64_t here = left->running + left->waiting, there = right->running + right->waiting;

    return here < there ? 1 : here > there ? -1 : by_name(a, b);
}

void top_view_sort(struct top_view *view, enum top_order order)
{
    static int (*const orders[TOP_ORDERS])(const void *, const void *) = {
        [TOP_BY_RATE] = by_rate,
        [TOP_BY_P99] = by_p99,
        [TOP_BY_RUNNING] = by_running,
        [TOP_BY_NAME] = by_name,
    };

    if (view->count > 0)
        qsort(view->methods, view->count, sizeof *view->methods, orders[order]);
}

/* --- members --------------------------------------------------------------------------------- */

uint64_t top_counter(const struct top_view *view, const char *name)
{
    return member_count(json_object_get(view->now, "counters"), name);
}

const json_t *top_server(const struct top_view *view)
{
    return json_object_get(view->now, "server");
}
