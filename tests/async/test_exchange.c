/* SPDX-License-Identifier: MIT */
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
#include "base/time.h"

static const uint8_t hash_key[16] = "0123456789abcde";

enum { RETENTION = 70 };

static struct sml_exchange_limits limits_of(enum semel_delivery delivery)
{
    struct sml_exchange_limits limits = {
        .delivery = delivery,
        .retention = RETENTION,
        .events = 1000,
        .bytes = 10000,
        .waits = 1000,
        .wait_ids = 100000,
    };

    return limits;
}

static void open_exchange(struct sml_exchange *exchange, enum semel_delivery delivery)
{
    struct sml_exchange_limits limits = limits_of(delivery);

    sml_exchange_init(exchange, &sml_mem_libc, &limits, hash_key);
}

static void let_go(struct sml_exchange *exchange)
{
    struct sml_event *event;

    while ((event = sml_exchange_next_spent(exchange)) != NULL)
        sml_event_unref(event);
}

/* Everything that waits ends and is freed. */
static void finish(struct sml_exchange *exchange)
{
    struct sml_event_wait *wait;

    sml_exchange_close(exchange);
    while ((wait = sml_exchange_next_done(exchange)) != NULL)
        sml_event_wait_free(wait);
    let_go(exchange);
    exchange_validate(exchange);
    sml_exchange_fini(exchange);
}

static void publish(struct sml_exchange *exchange, const char *id, const char *data, uint64_t now)
{
    struct sml_event *event = sml_event_create(&sml_mem_libc, semel_bytes_text(data), NULL, NULL);

    assert_non_null(event);
    assert_int_equal(sml_exchange_trigger(exchange, semel_bytes_text(id), event, now), SEMEL_OK);
    exchange_validate(exchange);
    let_go(exchange);
}

/* A wait for the ids in `words`, apart by blanks. */
static struct sml_event_wait *plan(struct sml_exchange *exchange, const char *words, size_t need,
                                   enum semel_unmet unmet, bool holds)
{
    struct semel_bytes ids[16];
    struct sml_event_wait_plan planned = {
        .ids = ids, .need = need, .unmet = unmet, .holds = holds
    };
    struct sml_event_wait *wait;

    while (*words) {
        size_t size = strcspn(words, " ");

        ids[planned.count++] = semel_bytes(words, size);
        words += size + (words[size] == ' ');
    }
    assert_int_equal(sml_event_wait_create(&wait, exchange, &planned), SEMEL_OK);
    return wait;
}

static struct sml_event_wait *start(struct sml_exchange *exchange, const char *words, size_t need,
                                    uint64_t deadline, uint64_t now)
{
    struct sml_event_wait *wait = plan(exchange, words, need, SEMEL_UNMET_TAKE, false);

    assert_int_equal(sml_exchange_start(exchange, wait, deadline, now), SEMEL_OK);
    exchange_validate(exchange);
    return wait;
}

static struct sml_event_wait *start_holding(struct sml_exchange *exchange, const char *words,
                                            uint64_t deadline, uint64_t now)
{
    struct sml_event_wait *wait = plan(exchange, words, 0, SEMEL_UNMET_TAKE, true);

    assert_int_equal(sml_exchange_start(exchange, wait, deadline, now), SEMEL_OK);
    exchange_validate(exchange);
    return wait;
}

/* The next wait that is done is this one; its result in words: "OK a=1 b=-". It stays. */
static void expect_kept(struct sml_exchange *exchange, struct sml_event_wait *wait,
                        const char *words)
{
    struct semel_events events;
    char text[256];
    size_t used;

    assert_ptr_equal(sml_exchange_next_done(exchange), wait);
    sml_event_wait_result(wait, &events);
    used = (size_t)snprintf(text, sizeof text, "%s", semel_status_name(events.status));
    for (size_t i = 0; i < events.count; i++) {
        const struct semel_event *event = &events.events[i];

        used +=
            (size_t)snprintf(text + used, sizeof text - used, " %.*s=%.*s", (int)event->id.size,
                             (const char *)event->id.data, event->there ? (int)event->data.size : 1,
                             event->there ? (const char *)event->data.data : "-");
    }
    assert_string_equal(text, words);
}

static void expect(struct sml_exchange *exchange, struct sml_event_wait *wait, const char *words)
{
    expect_kept(exchange, wait, words);
    sml_event_wait_free(wait);
}

static void expect_none(struct sml_exchange *exchange)
{
    assert_true(sml_list_empty(&exchange->done));
}

/* --- the rows
 * ---------------------------------------------------------------------------------- */

static void all_of(void **state)
{
    struct sml_exchange x;
    struct sml_event_wait *wait;

    (void)state;
    open_exchange(&x, SEMEL_EVENTS_TAKE);
    wait = start(&x, "a b", 0, SML_NEVER, 0);
    publish(&x, "a", "1", 0);
    expect_none(&x);
    sml_exchange_tick(&x, RETENTION); /* a is gone before b comes */
    publish(&x, "b", "2", RETENTION);
    expect_none(&x);
    publish(&x, "a", "3", RETENTION + 1);
    expect(&x, wait, "OK a=3 b=2");
    finish(&x);
}

static void requested_order(void **state)
{
    struct sml_exchange x;
    struct sml_event_wait *wait;

    (void)state;
    open_exchange(&x, SEMEL_EVENTS_TAKE);
    wait = start(&x, "c a b", 0, SML_NEVER, 0);
    publish(&x, "b", "1", 0);
    publish(&x, "a", "2", 0);
    publish(&x, "c", "3", 0);
    expect(&x, wait, "OK c=3 a=2 b=1");
    finish(&x);
}

static void empty_and_duplicate(void **state)
{
    struct sml_exchange x;
    struct sml_event_wait *wait;

    (void)state;
    open_exchange(&x, SEMEL_EVENTS_TAKE);
    wait = start(&x, "", 0, 0, 0);
    expect(&x, wait, "OK");
    wait = start(&x, "a b a a", 0, SML_NEVER, 0);
    publish(&x, "a", "1", 0);
    publish(&x, "b", "2", 0);
    expect(&x, wait, "OK a=1 b=2 a=1 a=1");
    assert_int_equal(x.counters.events, 0);
    wait = start(&x, "a", 0, 0, 0);
    expect(&x, wait, "DEADLINE a=-");
    finish(&x);
}

static void early_event(void **state)
{
    struct sml_exchange x;
    struct sml_event_wait *wait;

    (void)state;
    open_exchange(&x, SEMEL_EVENTS_TAKE);
    publish(&x, "a", "1", 0);
    publish(&x, "b", "2", 0);
    wait = start(&x, "b a", 0, 0, RETENTION - 1);
    expect(&x, wait, "OK b=2 a=1");
    assert_int_equal(x.topics.count, 0);
    finish(&x);
}

static int drops;

static void count_drop(const void *data, void *user)
{
    assert_ptr_equal(data, user);
    drops++;
}

static void publish_moved(struct sml_exchange *exchange, const char *id, const char *data,
                          uint64_t now)
{
    struct sml_event *event = sml_event_create(&sml_mem_libc, semel_bytes_text(data), count_drop,
                                               (void *)(uintptr_t)data);

    assert_non_null(event);
    assert_int_equal(sml_exchange_trigger(exchange, semel_bytes_text(id), event, now), SEMEL_OK);
    exchange_validate(exchange);
    let_go(exchange);
}

static void overwrite(void **state)
{
    struct sml_exchange x;
    struct sml_event_wait *wait;

    (void)state;
    drops = 0;
    open_exchange(&x, SEMEL_EVENTS_TAKE);
    publish_moved(&x, "a", "old", 0);
    publish_moved(&x, "a", "new", 60);
    assert_int_equal(drops, 1);
    assert_int_equal(x.counters.events, 1);
    assert_int_equal(x.counters.bytes, 3);
    sml_exchange_tick(&x, RETENTION); /* its age began anew */
    wait = start(&x, "a", 0, 0, RETENTION + 59);
    expect_kept(&x, wait, "OK a=new");
    assert_int_equal(drops, 1);
    sml_event_wait_free(wait);
    assert_int_equal(drops, 2);
    assert_int_equal(x.counters.overwritten, 1);
    finish(&x);
}

static void delivery_modes(void **state)
{
    struct sml_exchange x;
    struct sml_event_wait *waits[3];

    (void)state;
    open_exchange(&x, SEMEL_EVENTS_TAKE);
    for (int i = 0; i < 3; i++)
        waits[i] = start(&x, "a", 0, 10, 0);
    publish(&x, "a", "1", 0);
    expect(&x, waits[0], "OK a=1");
    expect_none(&x);
    sml_exchange_tick(&x, 10);
    expect(&x, waits[1], "DEADLINE a=-");
    expect(&x, waits[2], "DEADLINE a=-");
    finish(&x);

    drops = 0;
    open_exchange(&x, SEMEL_EVENTS_KEEP);
    for (int i = 0; i < 3; i++)
        waits[i] = start(&x, "a", 0, 10, 0);
    publish_moved(&x, "a", "1", 0);
    for (int i = 0; i < 3; i++)
        expect(&x, waits[i], "OK a=1");
    waits[0] = start(&x, "a", 0, 0, RETENTION - 1);
    waits[1] = start(&x, "a", 0, 0, RETENTION);
    expect_kept(&x, waits[0], "OK a=1");
    let_go(&x);
    assert_int_equal(drops, 0); /* a result outlives the event */
    sml_event_wait_free(waits[0]);
    assert_int_equal(drops, 1);
    expect(&x, waits[1], "DEADLINE a=-");
    finish(&x);
}

static void partial(void **state)
{
    struct sml_exchange x;
    struct sml_event_wait *wait;

    (void)state;
    open_exchange(&x, SEMEL_EVENTS_TAKE);
    publish(&x, "a", "1", 0);
    wait = plan(&x, "a b", 0, SEMEL_UNMET_LEAVE, false);
    assert_int_equal(sml_exchange_start(&x, wait, 5, 0), SEMEL_OK);
    assert_int_equal(sml_exchange_timeout(&x), 5);
    sml_exchange_tick(&x, 4);
    expect_none(&x);
    sml_exchange_tick(&x, 5);
    expect(&x, wait, "DEADLINE a=1 b=-");
    assert_int_equal(x.counters.events, 1); /* left */
    wait = start(&x, "a b", 0, 9, 5);
    sml_exchange_tick(&x, 9);
    expect(&x, wait, "DEADLINE a=1 b=-");
    assert_int_equal(x.counters.events, 0); /* taken */
    assert_int_equal(x.counters.unmet, 2);
    finish(&x);
}

static void retention(void **state)
{
    struct sml_exchange x;
    struct sml_event_wait *wait;

    (void)state;
    drops = 0;
    open_exchange(&x, SEMEL_EVENTS_KEEP);
    publish_moved(&x, "a", "1", 0);
    assert_int_equal(sml_exchange_timeout(&x), RETENTION);
    publish(&x, "b", "2", RETENTION); /* the next trigger purges */
    assert_int_equal(drops, 1);
    assert_int_equal(x.counters.events, 1);
    sml_exchange_tick(&x, 2 * RETENTION); /* and so does time */
    let_go(&x);
    assert_int_equal(x.counters.events, 0);
    assert_int_equal(x.counters.bytes, 0);
    assert_int_equal(x.topics.count, 0);
    assert_int_equal(x.counters.expired, 2);
    assert_true(sml_exchange_timeout(&x) == SML_NEVER);
    wait = start(&x, "a", 0, 0, 2 * RETENTION);
    expect(&x, wait, "DEADLINE a=-");
    finish(&x);
}

static void expiry_under_waiter(void **state)
{
    struct sml_exchange x;
    struct sml_event_wait *wait;

    (void)state;
    open_exchange(&x, SEMEL_EVENTS_TAKE);
    wait = start(&x, "a b", 0, RETENTION + 10, 0);
    publish(&x, "a", "1", 0);
    sml_exchange_tick(&x, RETENTION + 10); /* late, but in order: a was gone before */
    expect(&x, wait, "DEADLINE a=- b=-");
    wait = start(&x, "a b", 0, 3 * RETENTION, 100);
    publish(&x, "a", "1", 2 * RETENTION); /* expires in the instant of the deadline */
    sml_exchange_tick(&x, 9 * RETENTION);
    expect(&x, wait, "DEADLINE a=- b=-");
    finish(&x);
}

/* What a trigger costs, counted in steps that can be seen: allocations, and no look at others. That
 * its time is flat is measured by bench/exchange. */
static void unrelated(void **state)
{
    enum { MANY = 100000 };
    struct sml_exchange_limits limits = limits_of(SEMEL_EVENTS_TAKE);
    struct sml_event_wait *wait, **others = calloc(MANY, sizeof *others);
    struct sml_exchange x;
    uint32_t *present;

    (void)state;
    limits.events = limits.waits = 2 * MANY;
    limits.wait_ids = 4 * MANY;
    limits.bytes = UINT64_MAX;
    sml_exchange_init(&x, &sml_mem_libc, &limits, hash_key);
    assert_non_null(others);
    for (uint32_t i = 0; i < MANY; i++) {
        struct semel_bytes ids[2] = { semel_bytes(&i, 4), semel_bytes("never", 5) };
        struct sml_event_wait_plan planned = { .ids = ids, .count = 2 };
        struct sml_event *event = sml_event_create(&sml_mem_libc, semel_bytes(NULL, 0), NULL, NULL);

        assert_int_equal(sml_event_wait_create(&others[i], &x, &planned), SEMEL_OK);
        assert_int_equal(sml_exchange_start(&x, others[i], SML_NEVER, 0), SEMEL_OK);
        assert_int_equal(sml_exchange_trigger(&x, semel_bytes(&i, 4), event, 0), SEMEL_OK);
    }
    wait = plan(&x, "mine", 0, SEMEL_UNMET_TAKE, false);
    assert_int_equal(sml_exchange_start(&x, wait, SML_NEVER, 0), SEMEL_OK);
    /* Make every look at another wait a crash. */
    present = malloc(MANY * sizeof *present);
    assert_non_null(present);
    for (uint32_t i = 0; i < MANY; i++) {
        present[i] = others[i]->present;
        others[i]->present = UINT32_MAX - 1;
    }
    {
        struct sml_event *event = sml_event_create(&sml_mem_libc, semel_bytes(NULL, 0), NULL, NULL);

        assert_int_equal(sml_exchange_trigger(&x, semel_bytes_text("mine"), event, 0), SEMEL_OK);
    }
    expect(&x, wait, "OK mine=");
    expect_none(&x);
    for (uint32_t i = 0; i < MANY; i++) {
        assert_int_equal(others[i]->present, UINT32_MAX - 1);
        others[i]->present = present[i];
    }
    exchange_validate(&x);
    finish(&x);
    free(present);
    free(others);
}

static void herd(void **state)
{
    enum { CROWD = 100 };
    struct sml_event_wait *waits[CROWD], *pair;
    struct sml_exchange x;

    (void)state;
    open_exchange(&x, SEMEL_EVENTS_TAKE);
    pair = start(&x, "a b", 0, SML_NEVER, 0); /* the first in line, but it cannot win */
    for (int i = 0; i < CROWD; i++)
        waits[i] = start(&x, "a", 0, SML_NEVER, 0);
    for (int i = 0; i < CROWD; i++) {
        publish(&x, "a", "1", 0);
        expect(&x, waits[i], "OK a=1");
        expect_none(&x);
    }
    publish(&x, "a", "2", 0);
    expect_none(&x);
    publish(&x, "b", "3", 0);
    expect(&x, pair, "OK a=2 b=3");
    finish(&x);
}

static void cancel_and_close(void **state)
{
    struct sml_exchange x;
    struct sml_event_wait *one, *two, *three;
    struct sml_event *event;

    (void)state;
    drops = 0;
    open_exchange(&x, SEMEL_EVENTS_TAKE);
    publish_moved(&x, "a", "1", 0);
    one = start(&x, "a b", 0, 10, 0);
    two = start(&x, "b c", 0, 10, 0);
    sml_exchange_cancel(&x, one, SEMEL_CANCELLED);
    exchange_validate(&x);
    expect(&x, one, "CANCELLED a=- b=-");
    assert_int_equal(x.counters.events, 1); /* what it would have taken is left */
    assert_int_equal(x.topics.count, 3);
    sml_exchange_close(&x);
    exchange_validate(&x);
    expect(&x, two, "STOPPED b=- c=-");
    let_go(&x);
    assert_int_equal(drops, 1);
    assert_int_equal(x.topics.count, 0);
    three = plan(&x, "a", 0, SEMEL_UNMET_TAKE, false);
    assert_int_equal(sml_exchange_start(&x, three, 5, 0), SEMEL_STOPPED);
    sml_event_wait_free(three);
    event = sml_event_create(&sml_mem_libc, semel_bytes_text("2"), NULL, NULL);
    assert_int_equal(sml_exchange_trigger(&x, semel_bytes_text("a"), event, 0), SEMEL_STOPPED);
    sml_event_discard(event);
    finish(&x);
}

/* --- more than the original
 * -------------------------------------------------------------------- */

static void some_of(void **state)
{
    struct sml_exchange x;
    struct sml_event_wait *any, *two;

    (void)state;
    open_exchange(&x, SEMEL_EVENTS_TAKE);
    any = start(&x, "a b c", 1, SML_NEVER, 0);
    two = start(&x, "a b c", 2, SML_NEVER, 0);
    publish(&x, "b", "1", 0);
    expect(&x, any, "OK a=- b=1 c=-");
    publish(&x, "c", "2", 0);
    expect_none(&x);
    publish(&x, "a", "3", 0);
    expect(&x, two, "OK a=3 b=- c=2");
    publish(&x, "a", "4", 0);
    publish(&x, "b", "5", 0);
    any = start(&x, "c b a", 1, 0, 0);
    expect(&x, any, "OK c=- b=5 a=-"); /* the first in the order asked; it takes no more */
    assert_int_equal(x.counters.events, 1);
    finish(&x);

    open_exchange(&x, SEMEL_EVENTS_KEEP);
    publish(&x, "a", "4", 0);
    publish(&x, "b", "5", 0);
    any = start(&x, "c b a", 1, 0, 0);
    expect(&x, any, "OK c=- b=5 a=4"); /* nothing is taken, so all is told */
    finish(&x);
}

static void held_events(void **state)
{
    struct sml_exchange x;
    struct sml_event_wait *held, *next;

    (void)state;
    drops = 0;
    open_exchange(&x, SEMEL_EVENTS_TAKE);
    publish_moved(&x, "a", "1", 0);
    held = start_holding(&x, "a", 0, 60);
    expect_kept(&x, held, "OK a=1");
    assert_int_equal(x.counters.held, 1);
    assert_int_equal(x.counters.events, 1); /* it counts */
    publish_moved(&x, "a", "2", 500);       /* long after it would have expired */
    sml_exchange_give_back(&x, held, 505);
    exchange_validate(&x);
    sml_event_wait_free(held);
    assert_int_equal(drops, 0);
    publish_moved(&x, "a", "3", 506); /* overwrites 2, not what came back */
    assert_int_equal(drops, 1);
    next = start(&x, "a", 0, 0, 506);
    expect(&x, next, "OK a=1"); /* at the head */
    next = start(&x, "a", 0, 0, 506);
    expect(&x, next, "OK a=3");

    publish(&x, "a", "4", 600);
    held = start_holding(&x, "a", 0, 660);
    expect_kept(&x, held, "OK a=4");
    sml_exchange_give_back(&x, held, 1000); /* it had 10 left, and has */
    sml_event_wait_free(held);
    assert_int_equal(sml_exchange_timeout(&x), 1010);
    sml_exchange_tick(&x, 1009);
    assert_int_equal(x.counters.events, 1);
    sml_exchange_tick(&x, 1010);
    assert_int_equal(x.counters.events, 0);
    let_go(&x);

    publish(&x, "a", "5", 1100);
    held = start_holding(&x, "a", 0, 1100);
    expect_kept(&x, held, "OK a=5");
    sml_exchange_accept(&x, held);
    sml_exchange_give_back(&x, held, 1100); /* harmless now */
    assert_int_equal(x.counters.events + x.counters.held, 0);
    assert_int_equal(x.topics.count, 0);
    sml_event_wait_free(held);
    finish(&x);
}

/* Two that were taken come back in either order: the older stands before the newer. */
static void order_of_return(void **state)
{
    (void)state;
    for (int reversed = 0; reversed < 2; reversed++) {
        struct sml_event_wait *held[2], *wait;
        struct sml_exchange x;

        open_exchange(&x, SEMEL_EVENTS_TAKE);
        for (int i = 0; i < 2; i++) {
            publish(&x, "a", i == 0 ? "1" : "2", 0);
            held[i] = start_holding(&x, "a", 0, 0);
            expect_kept(&x, held[i], i == 0 ? "OK a=1" : "OK a=2");
        }
        publish(&x, "a", "3", 0);
        for (int i = 0; i < 2; i++) {
            sml_exchange_give_back(&x, held[reversed ? 1 - i : i], 1);
            exchange_validate(&x);
            sml_event_wait_free(held[reversed ? 1 - i : i]);
        }
        for (int i = 0; i < 3; i++) {
            const char *const words[] = { "OK a=1", "OK a=2", "OK a=3" };

            wait = start(&x, "a", 0, 0, 1);
            expect(&x, wait, words[i]);
        }
        finish(&x);
    }
}

static void return_meets(void **state)
{
    struct sml_exchange x;
    struct sml_event_wait *held, *one, *pair;

    (void)state;
    open_exchange(&x, SEMEL_EVENTS_TAKE);
    publish(&x, "a", "1", 0);
    publish(&x, "b", "2", 0);
    held = start_holding(&x, "a b", 0, 0);
    expect_kept(&x, held, "OK a=1 b=2");
    pair = start(&x, "b a", 0, SML_NEVER, 0);
    one = start(&x, "a", 0, SML_NEVER, 0);
    sml_exchange_give_back(&x, held, 5);
    exchange_validate(&x);
    sml_event_wait_free(held);
    expect(&x, one, "OK a=1"); /* a came back first, and the pair was not met by it */
    expect_none(&x);
    publish(&x, "a", "3", 5);
    expect(&x, pair, "OK b=2 a=3");

    publish(&x, "a", "4", 5); /* what is taken of an unmet wait is held as well */
    held = start_holding(&x, "a b", 5, 5);
    expect_kept(&x, held, "DEADLINE a=4 b=-");
    assert_int_equal(x.counters.held, 1);
    sml_exchange_close(&x);
    sml_exchange_give_back(&x, held, 6); /* nowhere to go back to */
    sml_event_wait_free(held);
    finish(&x);
}

static void bounds(void **state)
{
    struct sml_exchange_limits limits = limits_of(SEMEL_EVENTS_TAKE);
    struct sml_event_wait *waits[2], *third, *held;
    struct sml_event *event;
    struct sml_exchange x;

    (void)state;
    limits.events = limits.waits = 2;
    limits.wait_ids = 3;
    limits.bytes = 5;
    sml_exchange_init(&x, &sml_mem_libc, &limits, hash_key);
    publish(&x, "a", "123", 0);
    event = sml_event_create(&sml_mem_libc, semel_bytes_text("456"), NULL, NULL);
    assert_int_equal(sml_exchange_trigger(&x, semel_bytes_text("b"), event, 0), SEMEL_OVERLOADED);
    publish(&x, "b", "", 0);
    assert_int_equal(sml_exchange_trigger(&x, semel_bytes_text("c"), event, 0), SEMEL_OVERLOADED);
    assert_int_equal(x.topics.count, 2);
    publish(&x, "a", "12345", 0); /* in the place of another one */
    waits[0] = start(&x, "c", 0, SML_NEVER, 0);
    waits[1] = start(&x, "d e", 0, SML_NEVER, 0);
    third = plan(&x, "f", 0, SEMEL_UNMET_TAKE, false);
    assert_int_equal(sml_exchange_start(&x, third, 5, 0), SEMEL_OVERLOADED);
    assert_int_equal(third->state, SML_EVENT_WAIT_NEW);
    exchange_validate(&x);
    /* Whoever waits is served, although no more can be kept. */
    assert_int_equal(sml_exchange_trigger(&x, semel_bytes_text("c"), event, 0), SEMEL_OK);
    expect(&x, waits[0], "OK c=456");
    /* Another place is free now, but no more ids. */
    sml_event_wait_free(third);
    third = plan(&x, "f g", 0, SEMEL_UNMET_TAKE, false);
    assert_int_equal(sml_exchange_start(&x, third, 5, 0), SEMEL_OVERLOADED);
    sml_event_wait_free(third);
    /* What is held for a wait is kept. */
    held = start_holding(&x, "f", SML_NEVER, 0);
    event = sml_event_create(&sml_mem_libc, semel_bytes(NULL, 0), NULL, NULL);
    assert_int_equal(sml_exchange_trigger(&x, semel_bytes_text("f"), event, 0), SEMEL_OVERLOADED);
    sml_event_discard(event);
    assert_int_equal(held->state, SML_EVENT_WAIT_WAITING);
    finish(&x);
    (void)waits;
}

static void bad_ids(void **state)
{
    struct semel_bytes longest = semel_bytes(calloc(1, 256), 255);
    struct semel_bytes ids[2] = { semel_bytes_text("a"), semel_bytes_text("a") };
    struct sml_event_wait_plan planned = { .ids = ids, .count = 2, .need = 2 };
    struct sml_event_wait *wait = NULL;
    struct sml_event *event;
    struct sml_exchange x;

    (void)state;
    open_exchange(&x, SEMEL_EVENTS_TAKE);
    event = sml_event_create(&sml_mem_libc, semel_bytes_text("1"), NULL, NULL);
    assert_int_equal(sml_exchange_trigger(&x, semel_bytes("", 0), event, 0), SEMEL_INVALID);
    assert_int_equal(sml_exchange_trigger(&x, semel_bytes(longest.data, 256), event, 0),
                     SEMEL_INVALID);
    assert_int_equal(sml_exchange_trigger(&x, longest, event, 0), SEMEL_OK);
    assert_int_equal(sml_event_wait_create(&wait, &x, &planned),
                     SEMEL_INVALID); /* one, named twice */
    planned.need = 3;
    assert_int_equal(sml_event_wait_create(&wait, &x, &planned), SEMEL_INVALID);
    planned.need = 0;
    ids[1] = semel_bytes(NULL, 0);
    assert_int_equal(sml_event_wait_create(&wait, &x, &planned), SEMEL_INVALID);
    ids[1] = semel_bytes(longest.data, 256);
    assert_int_equal(sml_event_wait_create(&wait, &x, &planned), SEMEL_INVALID);
    planned.count = SEMEL_EVENT_IDS_MAX + 1;
    assert_int_equal(sml_event_wait_create(&wait, &x, &planned), SEMEL_INVALID);
    assert_null(wait);
    finish(&x);
    free((void *)(uintptr_t)longest.data);
}

/* --- no memory
 * --------------------------------------------------------------------------------- */

struct scarce {
    int left; /* allocations that still pass */
    int blocks;
};

static void *scarce_alloc(void *user, size_t bytes)
{
    struct scarce *scarce = user;

    if (scarce->left-- <= 0)
        return NULL;
    scarce->blocks++;
    return malloc(bytes);
}

static void scarce_release(void *user, void *pointer)
{
    struct scarce *scarce = user;

    scarce->blocks -= pointer != NULL;
    free(pointer);
}

/* A trigger and a wait for 20 ids, with only `passes` allocations. True: it went through. */
static bool run_scarce(int passes)
{
    struct scarce scarce = { .left = 1000 };
    struct sml_mem mem = { scarce_alloc, scarce_release, &scarce };
    struct sml_exchange_limits limits = limits_of(SEMEL_EVENTS_TAKE);
    struct sml_event_wait_plan planned = { .count = 20 };
    struct semel_bytes ids[20];
    struct sml_event *event;
    struct sml_event_wait *wait = NULL;
    enum semel_status status = SEMEL_NO_MEMORY;
    struct sml_exchange x;

    sml_exchange_init(&x, &mem, &limits, hash_key);
    for (int i = 0; i < 20; i++)
        ids[i] = semel_bytes(&"abcdefghijklmnopqrst"[i], 1);
    planned.ids = ids;
    scarce.left = passes;
    event = sml_event_create(&mem, semel_bytes_text("1"), NULL, NULL);
    if (event)
        status = sml_exchange_trigger(&x, ids[3], event, 0);
    if (event && status != SEMEL_OK)
        sml_event_discard(event);
    if (status == SEMEL_OK)
        status = sml_event_wait_create(&wait, &x, &planned);
    if (status == SEMEL_OK)
        status = sml_exchange_start(&x, wait, 9, 0);
    exchange_validate(&x);
    if (status != SEMEL_OK) {
        assert_int_equal(status, SEMEL_NO_MEMORY);
        assert_int_equal(x.counters.waits, 0);
        sml_event_wait_free(wait);
    }
    finish(&x);
    assert_int_equal(scarce.blocks, 0);
    return status == SEMEL_OK;
}

static void no_memory(void **state)
{
    int passes = 0;

    (void)state;
    while (!run_scarce(passes))
        passes++;
    assert_true(passes > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "E1 all-of wait: met when all are there at one instant", all_of, NULL, NULL, NULL },
        { "E2 result order: as asked for", requested_order, NULL, NULL, NULL },
        { "E3 empty and duplicate ids", empty_and_duplicate, NULL, NULL, NULL },
        { "E4 early event: no waiting", early_event, NULL, NULL, NULL },
        { "E5 overwrite: newest wins, its age begins anew", overwrite, NULL, NULL, NULL },
        { "E6 delivery mode: one success, or all", delivery_modes, NULL, NULL, NULL },
        { "E7 timeout partial: told, taken or left", partial, NULL, NULL, NULL },
        { "E9 retention: gone after the next trigger, and with time", retention, NULL, NULL, NULL },
        { "E10 expiry under a waiter", expiry_under_waiter, NULL, NULL, NULL },
        { "E11 scans: a trigger looks at nobody else", unrelated, NULL, NULL, NULL },
        { "E12 herd: only who can win is woken", herd, NULL, NULL, NULL },
        { "E14 cancel and close: all end, nothing stays", cancel_and_close, NULL, NULL, NULL },
        { "exchange: any, and some of", some_of, NULL, NULL, NULL },
        { "exchange: held events are accepted or come back", held_events, NULL, NULL, NULL },
        { "exchange: events come back in their order", order_of_return, NULL, NULL, NULL },
        { "exchange: what comes back meets who waits", return_meets, NULL, NULL, NULL },
        { "exchange: bounds", bounds, NULL, NULL, NULL },
        { "exchange: bad ids", bad_ids, NULL, NULL, NULL },
        { "exchange: no memory, at each allocation", no_memory, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
