/* SPDX-License-Identifier: MIT */
/* Every short sequence of operations, and long random ones, beside the model. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "async/exchange.h"
#include "async/exchange_kit.h"
#include "base/test_random.h"

enum { RETENTION = 7, TIMEOUT = 3 };

static const uint8_t hash_key[16];
static const char *const names[MODEL_IDS] = { "a", "b", "c" };

/* The two, side by side. */
struct pair {
    struct sml_exchange exchange;
    struct model model;
    struct sml_event_wait *waits[MODEL_WAITS]; /* NULL once freed */
    int checked;                               /* ends compared */
};

static void open_pair(struct pair *pair, enum semel_delivery delivery)
{
    struct sml_exchange_limits limits = { delivery, RETENTION, 1000, 100000, 1000, 1000 };

    memset(pair, 0, sizeof *pair);
    sml_exchange_init(&pair->exchange, &sml_mem_libc, &limits, hash_key);
    model_init(&pair->model, delivery, RETENTION);
}

static void let_go(struct pair *pair)
{
    struct sml_event *event;

    while ((event = sml_exchange_next_spent(&pair->exchange)) != NULL)
        sml_event_unref(event);
}

/* An event's data is its number; what is told must be what the model tells. */
static void compare_end(struct pair *pair, struct sml_event_wait *wait)
{
    const struct model_end *end = &pair->model.ends[pair->checked];
    unsigned ids = pair->model.waits[end->wait].ids;
    struct semel_events events;
    size_t at = 0;

    assert_true(pair->checked < pair->model.end_count);
    assert_ptr_equal(wait, pair->waits[end->wait]);
    sml_event_wait_result(wait, &events);
    assert_int_equal(events.status, end->status);
    for (int id = 0; id < MODEL_IDS; id++) {
        int told = 0;

        if (!(ids >> id & 1))
            continue;
        if (events.events[at].there)
            memcpy(&told, events.events[at].data.data, sizeof told);
        assert_int_equal(told, end->told[id]);
        at++;
    }
    pair->checked++;
}

static void compare(struct pair *pair)
{
    const struct semel_exchange_counters *counters = &pair->exchange.counters;
    struct sml_event_wait *wait;

    while ((wait = sml_exchange_next_done(&pair->exchange)) != NULL) {
        int which = pair->model.ends[pair->checked].wait;

        compare_end(pair, wait);
        if (wait->state == SML_EVENT_WAIT_DONE) {
            sml_event_wait_free(wait);
            pair->waits[which] = NULL;
        } else {
            assert_true(pair->model.waits[which].holding);
        }
    }
    let_go(pair);
    assert_int_equal(pair->checked, pair->model.end_count);
    assert_int_equal(counters->events, model_events(&pair->model));
    assert_int_equal(counters->bytes, sizeof(int) * counters->events);
    assert_int_equal(counters->overwritten, pair->model.overwritten);
    assert_int_equal(counters->expired, pair->model.expired);
    exchange_validate(&pair->exchange);
}

static void trigger(struct pair *pair, int id)
{
    int number = pair->model.numbers + 1;
    struct sml_event *event =
        sml_event_create(&sml_mem_libc, semel_bytes(&number, sizeof number), NULL, NULL);
    enum semel_status status = sml_exchange_trigger(&pair->exchange, semel_bytes_text(names[id]),
                                                    event, (uint64_t)pair->model.now);

    assert_int_equal(model_trigger(&pair->model, id), status == SEMEL_OK);
    if (status != SEMEL_OK)
        sml_event_discard(event);
}

static void start(struct pair *pair, unsigned mask, size_t need, int timeout,
                  enum semel_unmet unmet, bool holds)
{
    struct semel_bytes ids[MODEL_IDS];
    struct sml_event_wait_plan plan = { .ids = ids, .need = need, .unmet = unmet, .holds = holds };
    uint64_t now = (uint64_t)pair->model.now;
    enum semel_status status;
    struct sml_event_wait *wait;

    for (int id = 0; id < MODEL_IDS; id++)
        if (mask >> id & 1)
            ids[plan.count++] = semel_bytes_text(names[id]);
    assert_int_equal(sml_event_wait_create(&wait, &pair->exchange, &plan), SEMEL_OK);
    pair->waits[pair->model.wait_count] = wait;
    status = sml_exchange_start(&pair->exchange, wait, now + (uint64_t)timeout, now);
    assert_int_equal(model_start(&pair->model, mask, (int)need, timeout, unmet, holds),
                     status == SEMEL_OK);
    if (status != SEMEL_OK)
        sml_event_wait_free(wait);
}

static void pass(struct pair *pair, int time)
{
    model_pass(&pair->model, time);
    sml_exchange_tick(&pair->exchange, (uint64_t)pair->model.now);
}

/* The first wait of which this holds; -1. */
static int find(const struct pair *pair, bool holding)
{
    for (int i = 0; i < pair->model.wait_count; i++)
        if (holding ? pair->model.waits[i].holding : pair->model.waits[i].waiting)
            return i;
    return -1;
}

static void cancel(struct pair *pair)
{
    int which = find(pair, false);

    if (which < 0)
        return;
    sml_exchange_cancel(&pair->exchange, pair->waits[which], SEMEL_CANCELLED);
    model_cancel(&pair->model, which);
}

static void settle(struct pair *pair, bool accept)
{
    int which = find(pair, true);

    if (which < 0)
        return;
    if (accept) {
        sml_exchange_accept(&pair->exchange, pair->waits[which]);
        model_accept(&pair->model, which);
    } else {
        sml_exchange_give_back(&pair->exchange, pair->waits[which], (uint64_t)pair->model.now);
        model_give_back(&pair->model, which);
    }
    assert_int_equal(pair->waits[which]->state, SML_EVENT_WAIT_DONE);
    sml_event_wait_free(pair->waits[which]);
    pair->waits[which] = NULL;
}

static void close_pair(struct pair *pair)
{
    sml_exchange_close(&pair->exchange);
    model_close(&pair->model);
}

/* Everything ends; nothing is left. */
static void finish(struct pair *pair)
{
    close_pair(pair);
    compare(pair);
    while (find(pair, true) >= 0)
        settle(pair, find(pair, true) % 2 == 0);
    compare(pair);
    assert_int_equal(pair->exchange.counters.events, 0);
    assert_int_equal(pair->exchange.topics.count, 0);
    sml_exchange_fini(&pair->exchange);
}

enum { OPERATIONS = 15 };

static void operate(struct pair *pair, int which)
{
    const enum semel_unmet take = SEMEL_UNMET_TAKE, leave = SEMEL_UNMET_LEAVE;

    switch (which) {
    case 0:
        trigger(pair, 0);
        break;
    case 1:
        trigger(pair, 1);
        break;
    case 2:
        start(pair, 1, 0, TIMEOUT, take, false);
        break;
    case 3:
        start(pair, 1, 0, TIMEOUT, take, true);
        break;
    case 4:
        start(pair, 3, 0, TIMEOUT, take, true);
        break;
    case 5:
        start(pair, 3, 0, TIMEOUT, leave, false);
        break;
    case 6:
        start(pair, 3, 1, TIMEOUT, take, false);
        break;
    case 7:
        start(pair, 3, 0, 0, take, false);
        break;
    case 8:
        pass(pair, 1);
        break;
    case 9:
        pass(pair, TIMEOUT);
        break;
    case 10:
        pass(pair, RETENTION);
        break;
    case 11:
        cancel(pair);
        break;
    case 12:
        settle(pair, true);
        break;
    case 13:
        settle(pair, false);
        break;
    case 14:
        close_pair(pair);
        break;
    default:
        abort();
    }
}

/* All sequences of `length` operations out of the first `operations`. */
static void run_all(enum semel_delivery delivery, int operations, int length)
{
    int sequence[8] = { 0 }, at;

    do {
        struct pair pair;

        open_pair(&pair, delivery);
        for (int i = 0; i < length; i++) {
            operate(&pair, sequence[i]);
            compare(&pair);
        }
        finish(&pair);
        for (at = 0; at < length && ++sequence[at] == operations; at++)
            sequence[at] = 0;
    } while (at < length);
}

static void every_short_sequence(void **state)
{
    (void)state;
    run_all(SEMEL_EVENTS_TAKE, OPERATIONS, 5);
    run_all(SEMEL_EVENTS_KEEP, OPERATIONS, 4);
    run_all(SEMEL_EVENTS_TAKE, 5, 7); /* two ids, and three kinds of waits */
}

static void run_random(uint64_t seed, enum semel_delivery delivery)
{
    struct pair pair;

    open_pair(&pair, delivery);
    while (pair.model.wait_count < MODEL_WAITS - 1) {
        unsigned mask = (unsigned)random_below(&seed, 8);
        size_t ids = (size_t)__builtin_popcount(mask);
        size_t need = ids > 0 ? (size_t)random_below(&seed, ids + 1) : 0;

        switch (random_below(&seed, 8)) {
        case 0:
        case 1:
            trigger(&pair, (int)random_below(&seed, MODEL_IDS));
            break;
        case 2:
            start(&pair, mask, need, random_below(&seed, 5) ? TIMEOUT : 0,
                  random_below(&seed, 2) ? SEMEL_UNMET_TAKE : SEMEL_UNMET_LEAVE,
                  random_below(&seed, 2));
            break;
        case 3:
            pass(&pair, (int)random_below(&seed, 3));
            break;
        case 4:
            settle(&pair, false);
            break;
        case 5:
            settle(&pair, true);
            break;
        case 6:
            if (random_below(&seed, 4) == 0)
                cancel(&pair);
            break;
        default:
            trigger(&pair, 0);
            break;
        }
        compare(&pair);
    }
    finish(&pair);
}

static void long_random(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        run_random(seed, SEMEL_EVENTS_TAKE);
        run_random(seed, SEMEL_EVENTS_KEEP);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "exchange: every short sequence, beside a model", every_short_sequence, NULL, NULL,
          NULL },
        { "exchange: long random sequences, beside a model", long_random, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
