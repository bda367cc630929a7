/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "async/exchange_internal.h"

static struct sml_exchange nothing; /* only its memory and key are looked at */

static int setup(void **state)
{
    (void)state;
    nothing.mem = &sml_mem_libc;
    return 0;
}

/* Of `count` ids, every third is one of the five first again. */
static void duplicates(void **state)
{
    const size_t counts[] = { 1, 2, 7, 8, 9, 10, 100, SEMEL_EVENT_IDS_MAX };
    struct semel_bytes *ids = calloc(SEMEL_EVENT_IDS_MAX, sizeof *ids);
    char(*names)[8] = calloc(SEMEL_EVENT_IDS_MAX, sizeof *names);

    (void)state;
    assert_non_null(ids);
    assert_non_null(names);
    for (size_t i = 0; i < SEMEL_EVENT_IDS_MAX; i++) {
        (void)snprintf(names[i], sizeof names[i], "%zu", i >= 5 && i % 3 == 0 ? i % 5 : i);
        ids[i] = semel_bytes_text(names[i]);
    }
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        struct sml_event_wait_plan plan = { .ids = ids, .count = counts[c] };
        size_t distinct = 0;
        struct sml_event_wait *wait;

        assert_int_equal(sml_event_wait_create(&wait, &nothing, &plan), SEMEL_OK);
        for (size_t i = 0; i < plan.count; i++) {
            const struct sml_mention *mention = &wait->mentions[wait->which[i]];

            distinct += i < 5 || i % 3 != 0;
            assert_int_equal(mention->id.size, ids[i].size);
            assert_memory_equal(mention->id.data, ids[i].data, ids[i].size);
        }
        assert_int_equal(wait->distinct, distinct);
        assert_int_equal(wait->need, distinct);
        sml_event_wait_free(wait);
    }
    free(names);
    free(ids);
}

static int drops;

static void count_drop(const void *data, void *user)
{
    (void)data;
    *(int *)user += 1;
}

static void events(void **state)
{
    char data[] = "data";
    struct sml_event *event =
        sml_event_create(&sml_mem_libc, semel_bytes(data, 4), count_drop, &drops);

    (void)state;
    assert_ptr_equal(event->data.data, data); /* moved */
    atomic_fetch_add(&event->refs, 1);
    sml_event_unref(event);
    assert_int_equal(drops, 0);
    sml_event_unref(event);
    assert_int_equal(drops, 1);
    event = sml_event_create(&sml_mem_libc, semel_bytes(data, 4), count_drop, &drops);
    sml_event_discard(event); /* still the caller's */
    assert_int_equal(drops, 1);
    event = sml_event_create(&sml_mem_libc, semel_bytes(data, 4), NULL, NULL);
    data[0] = 'x';
    assert_memory_equal(event->data.data, "data", 4); /* copied */
    sml_event_unref(event);
}

static void results(void **state)
{
    struct semel_bytes ids[] = { semel_bytes_text("a"), semel_bytes_text("b"),
                                 semel_bytes_text("a") };
    struct sml_event_wait_plan plan = { .ids = ids, .count = 3 };
    struct semel_events out;
    struct sml_event_wait *wait;

    (void)state;
    assert_int_equal(sml_event_wait_create(&wait, &nothing, &plan), SEMEL_OK);
    wait->status = SEMEL_DEADLINE;
    wait->mentions[0].event = sml_event_create(&sml_mem_libc, semel_bytes("x", 1), NULL, NULL);
    sml_event_wait_result(wait, &out);
    assert_int_equal(out.status, SEMEL_DEADLINE);
    assert_int_equal(out.count, 3);
    assert_int_equal(out.there, 2);
    assert_true(out.events[0].there && !out.events[1].there && out.events[2].there);
    assert_ptr_equal(out.events[0].data.data, out.events[2].data.data);
    assert_int_equal(out.events[1].data.size, 0);
    assert_memory_equal(out.events[1].id.data, "b", 1);
    sml_event_wait_free(wait);
    sml_event_wait_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "wait: ids named twice are found, few and many", duplicates, NULL, NULL, NULL },
        { "event: copied, moved, shared", events, NULL, NULL, NULL },
        { "wait: its result", results, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
