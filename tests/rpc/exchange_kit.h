/* SPDX-License-Identifier: MIT */
/* exchange_kit.h - short words for the tests of exchanges. cmocka.h comes before. */
#ifndef TESTS_RPC_EXCHANGE_KIT_H
#define TESTS_RPC_EXCHANGE_KIT_H

#include <stdio.h>
#include <string.h>

#include <semel/exchange.h>

#include "kit/kit.h"

static inline struct semel_exchange *kit_exchange(enum semel_delivery delivery, int64_t max_ms)
{
    struct semel_exchange_options options = SEMEL_EXCHANGE_OPTIONS_INIT;
    struct semel_exchange *exchange;

    options.delivery = delivery;
    options.max_ms = max_ms;
    options.grace_ms = max_ms ? -1 : 0;
    assert_int_equal(semel_exchange_create(&exchange, &options), SEMEL_OK);
    return exchange;
}

static inline void kit_trigger(struct semel_exchange *exchange, const char *id, const char *data)
{
    assert_int_equal(semel_exchange_trigger(exchange, semel_bytes_text(id), semel_bytes_text(data)),
                     SEMEL_OK);
}

/* The ids in `words`, apart by blanks; returns how many. */
static inline size_t kit_ids(const char *words, struct semel_bytes ids[16])
{
    size_t count = 0;

    while (*words) {
        size_t size = strcspn(words, " ");

        ids[count++] = semel_bytes(words, size);
        words += size + (words[size] == ' ');
    }
    return count;
}

/* A result in words, "OK a=1 b=-"; it is cleared. */
static inline void kit_expect(struct semel_events *events, const char *words)
{
    char text[256];
    size_t used = (size_t)snprintf(text, sizeof text, "%s", semel_status_name(events->status));

    for (size_t i = 0; i < events->count; i++) {
        const struct semel_event *event = &events->events[i];

        used +=
            (size_t)snprintf(text + used, sizeof text - used, " %.*s=%.*s", (int)event->id.size,
                             (const char *)event->id.data, event->there ? (int)event->data.size : 1,
                             event->there ? (const char *)event->data.data : "-");
    }
    assert_string_equal(text, words);
    semel_events_clear(events);
}

/* Wait, and expect this. */
static inline void kit_wait(struct semel_exchange *exchange, const char *words, double timeout_s,
                            const char *expected)
{
    struct semel_wait_options options = SEMEL_WAIT_OPTIONS_INIT;
    struct semel_bytes ids[16];
    size_t count = kit_ids(words, ids);
    struct semel_events events;
    enum semel_status status;

    options.timeout_s = timeout_s;
    status = semel_exchange_wait(exchange, ids, count, &options, &events);
    assert_int_equal(status, events.status);
    kit_expect(&events, expected);
}

static inline struct semel_exchange_counters kit_counters(struct semel_exchange *exchange)
{
    struct semel_exchange_counters counters;

    semel_exchange_counters(exchange, &counters);
    return counters;
}

/* Until so many waits wait. */
struct kit_waiting {
    struct semel_exchange *exchange;
    uint64_t waits;
};

static inline bool kit_is_waiting(void *arg)
{
    struct kit_waiting *waiting = arg;

    return kit_counters(waiting->exchange).waits == waiting->waits;
}

static inline void kit_until_waiting(struct semel_exchange *exchange, uint64_t waits)
{
    struct kit_waiting waiting = { exchange, waits };

    assert_true(kit_eventually(kit_is_waiting, &waiting, 30));
}

#endif
