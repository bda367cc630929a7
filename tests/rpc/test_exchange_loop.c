/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <pthread.h>
#include <stdlib.h>
#include <cmocka.h>

#include "rpc/exchange_kit.h"

static struct semel_loop *loop;
static struct semel_exchange *exchange;

static int setup(void **state)
{
    (void)state;
    if (semel_loop_create(&loop, NULL) != SEMEL_OK)
        return -1;
    exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
    assert_int_equal(semel_loop_destroy(loop), SEMEL_OK);
    return 0;
}

/* What a callback was told. */
struct told {
    struct semel_events events;
    int times;
    bool stops; /* the loop */
};

static void tell(struct semel_events *events, void *user)
{
    struct told *told = user;

    assert_true(semel_loop_is_here(loop));
    told->events = *events;
    told->times++;
    if (told->stops)
        semel_loop_stop(loop);
}

static struct semel_wait *start(const char *words, double timeout_s, struct told *told)
{
    struct semel_wait_options options = SEMEL_WAIT_OPTIONS_INIT;
    struct semel_bytes ids[16];
    size_t count = kit_ids(words, ids);
    struct semel_wait *wait = NULL;

    options.timeout_s = timeout_s;
    assert_int_equal(semel_exchange_start(exchange, ids, count, &options, loop, tell, told, &wait),
                     SEMEL_OK);
    assert_non_null(wait);
    return wait;
}

static void by_callback(void **state)
{
    struct told early = { .stops = true }, late = { .stops = true };

    (void)state;
    kit_trigger(exchange, "a", "1");
    (void)start("a", 0, &early);
    assert_int_equal(early.times, 0); /* not from within */
    assert_int_equal(semel_loop_run(loop), SEMEL_OK);
    kit_expect(&early.events, "OK a=1");
    (void)start("b c", 60, &late);
    kit_trigger(exchange, "c", "2");
    assert_int_equal(semel_loop_dispatch(loop), SEMEL_OK);
    assert_int_equal(late.times, 0);
    kit_trigger(exchange, "b", "3");
    assert_int_equal(semel_loop_run(loop), SEMEL_OK);
    kit_expect(&late.events, "OK b=3 c=2");
    assert_int_equal(early.times + late.times, 2);
}

static void by_deadline(void **state)
{
    struct told told = { .stops = true };

    (void)state;
    kit_trigger(exchange, "a", "1");
    (void)start("a b", 0.02, &told);
    assert_int_equal(semel_loop_run(loop), SEMEL_OK);
    kit_expect(&told.events, "DEADLINE a=1 b=-");
}

static void cancelled(void **state)
{
    struct told told = { .stops = true };
    struct semel_wait *wait = start("a b", 60, &told);

    (void)state;
    kit_trigger(exchange, "a", "1");
    assert_int_equal(semel_loop_destroy(loop), SEMEL_ALREADY); /* it is owed a callback */
    semel_wait_cancel(wait);
    semel_wait_cancel(wait);
    assert_int_equal(told.times, 0);
    assert_int_equal(semel_loop_run(loop), SEMEL_OK);
    kit_expect(&told.events, "CANCELLED a=- b=-");
    kit_wait(exchange, "a", 0, "OK a=1"); /* left */
    told.times = 0;
    wait = start("c", 60, &told);
    kit_trigger(exchange, "c", "2");
    semel_wait_cancel(wait); /* too late */
    assert_int_equal(semel_loop_run(loop), SEMEL_OK);
    kit_expect(&told.events, "OK c=2");
    semel_wait_cancel(NULL);
}

static void closed(void **state)
{
    struct told told = { .stops = true };
    struct semel_wait *wait = start("a", 60, &told);

    (void)state;
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK); /* before its callback ran */
    semel_wait_cancel(wait);
    assert_int_equal(semel_loop_run(loop), SEMEL_OK);
    kit_expect(&told.events, "STOPPED a=-");
    exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);
}

static void *run(void *arg)
{
    assert_int_equal(semel_loop_run(arg), SEMEL_OK);
    return NULL;
}

static void other_thread(void **state)
{
    enum { MANY = 500 };
    static struct told told[MANY];
    struct semel_task *none = NULL;
    pthread_t thread;
    char id[MANY][8];

    (void)state;
    (void)none;
    assert_int_equal(pthread_create(&thread, NULL, run, loop), 0);
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(id[i], sizeof id[i], "%d", i);
        told[i].stops = i == MANY - 1;
        (void)start(id[i], 60, &told[i]);
    }
    for (int i = 0; i < MANY; i++)
        kit_trigger(exchange, id[i], "x");
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(told[i].times, 1);
        assert_int_equal(told[i].events.status, SEMEL_OK);
        semel_events_clear(&told[i].events);
    }
}

/* --- blocking on the loop's thread
 * ------------------------------------------------------------- */

static void block(void *user)
{
    struct semel_wait_options options = SEMEL_WAIT_OPTIONS_INIT;
    struct semel_bytes id = semel_bytes_text("a");
    struct semel_events events;

    (void)user;
    assert_int_equal(semel_exchange_wait(exchange, &id, 1, &options, &events),
                     SEMEL_WOULD_DEADLOCK);
    assert_null(events.storage);
    options.timeout_s = 0; /* does not block */
    assert_int_equal(semel_exchange_wait(exchange, &id, 1, &options, &events), SEMEL_OK);
    kit_expect(&events, "OK a=1");
    semel_loop_stop(loop);
}

static void no_blocking(void **state)
{
    struct semel_task task = { block, NULL, NULL };

    (void)state;
    kit_trigger(exchange, "a", "1");
    assert_int_equal(semel_loop_post(loop, &task), SEMEL_OK);
    assert_int_equal(semel_loop_run(loop), SEMEL_OK);
    kit_wait(exchange, "a", 0.001, "DEADLINE a=-"); /* outside it may block again */
}

/* --- deferreds
 * --------------------------------------------------------------------------------- */

static struct semel_deferred *defer(const char *words, double timeout_s)
{
    struct semel_wait_options options = SEMEL_WAIT_OPTIONS_INIT;
    struct semel_deferred *deferred;
    struct semel_bytes ids[16];
    size_t count = kit_ids(words, ids);

    options.timeout_s = timeout_s;
    assert_int_equal(semel_exchange_defer(exchange, ids, count, &options, loop, &deferred),
                     SEMEL_OK);
    return deferred;
}

/* Until the deferred has a result. */
static const struct semel_fired *serve(struct semel_deferred *deferred)
{
    for (int i = 0; i < 30000 && semel_deferred_result(deferred) == NULL; i++) {
        assert_int_equal(semel_loop_dispatch(loop), SEMEL_OK);
        if (semel_deferred_result(deferred) == NULL)
            kit_sleep_ms(1);
    }
    assert_non_null(semel_deferred_result(deferred));
    return semel_deferred_result(deferred);
}

/* A failure was seen. */
static struct semel_deferred *handle(struct semel_fired *fired, void *user)
{
    *(enum semel_status *)user = fired->status;
    semel_fired_set_value(fired, NULL, NULL);
    return NULL;
}

static void expect_failure(struct semel_deferred *deferred, enum semel_status expected)
{
    enum semel_status status = SEMEL_OK;

    (void)serve(deferred);
    assert_int_equal(semel_deferred_then(deferred, NULL, handle, &status), SEMEL_OK);
    assert_int_equal(status, expected);
    semel_deferred_unref(deferred);
}

static void as_deferred(void **state)
{
    struct semel_deferred *deferred = defer("a b", 60);
    struct semel_events *events;

    (void)state;
    kit_trigger(exchange, "a", "1");
    kit_trigger(exchange, "b", "2");
    events = serve(deferred)->value;
    assert_int_equal(events->there, 2);
    assert_memory_equal(events->events[1].data.data, "2", 1);
    semel_deferred_unref(deferred); /* frees the value */
    expect_failure(defer("x", 0.01), SEMEL_DEADLINE);
    deferred = defer("x", 60);
    assert_int_equal(semel_deferred_timeout(deferred, 10), SEMEL_OK);
    expect_failure(deferred, SEMEL_DEADLINE);
    assert_int_equal(kit_counters(exchange).waits, 0);
}

static void cancelled_deferred(void **state)
{
    struct semel_deferred *deferred = defer("a b", 60);
    struct semel_events *events;

    (void)state;
    kit_trigger(exchange, "a", "1");
    semel_deferred_cancel(deferred);
    expect_failure(deferred, SEMEL_CANCELLED);
    assert_int_equal(kit_counters(exchange).waits, 0);
    kit_wait(exchange, "a", 0, "OK a=1"); /* left */

    deferred = defer("c", 60);
    kit_trigger(exchange, "c", "2"); /* met, and not told yet */
    semel_deferred_cancel(deferred);
    events = serve(deferred)->value; /* not lost */
    assert_memory_equal(events->events[0].data.data, "2", 1);
    semel_deferred_unref(deferred);

    deferred = defer("d", 60);
    semel_deferred_unref(deferred); /* nobody looks, and nothing leaks */
    kit_trigger(exchange, "d", "3");
    assert_int_equal(semel_loop_dispatch(loop), SEMEL_OK);
}

static void *defer_elsewhere(void *arg)
{
    struct semel_deferred *deferred = NULL;

    (void)arg;
    assert_int_equal(semel_exchange_defer(exchange, NULL, 0, NULL, loop, &deferred), SEMEL_DENIED);
    assert_null(deferred);
    return NULL;
}

static void bad_input(void **state)
{
    struct semel_wait_options options = SEMEL_WAIT_OPTIONS_INIT;
    struct semel_wait *wait = NULL;
    struct semel_deferred *deferred = NULL;
    struct told told = { .stops = false };
    pthread_t thread;

    (void)state;
    options.timeout_s = -1;
    assert_int_equal(semel_exchange_start(exchange, NULL, 0, &options, loop, tell, &told, &wait),
                     SEMEL_INVALID);
    assert_int_equal(semel_exchange_start(exchange, NULL, 0, NULL, NULL, tell, &told, &wait),
                     SEMEL_INVALID);
    assert_int_equal(semel_exchange_start(exchange, NULL, 0, NULL, loop, NULL, &told, &wait),
                     SEMEL_INVALID);
    assert_int_equal(semel_exchange_defer(exchange, NULL, 0, &options, loop, &deferred),
                     SEMEL_INVALID);
    assert_int_equal(semel_exchange_defer(exchange, NULL, 0, NULL, NULL, &deferred), SEMEL_INVALID);
    assert_int_equal(pthread_create(&thread, NULL, defer_elsewhere, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_null(wait);
    assert_null(deferred);
    assert_int_equal(semel_loop_dispatch(loop), SEMEL_OK);
    assert_int_equal(told.times, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "E4 early event, and a late one, by callback", by_callback, setup, teardown, NULL },
        { "E7 timeout partial, by callback", by_deadline, setup, teardown, NULL },
        { "E14 cancel: by callback, once", cancelled, setup, teardown, NULL },
        { "E14 close: by callback, after destroy", closed, setup, teardown, NULL },
        { "exchange: started on another thread", other_thread, setup, teardown, NULL },
        { "exchange: no blocking on the loop's thread", no_blocking, setup, teardown, NULL },
        { "exchange: as a deferred", as_deferred, setup, teardown, NULL },
        { "E14 cancel: a deferred; what was met is not lost", cancelled_deferred, setup, teardown,
          NULL },
        { "exchange: bad input with a loop", bad_input, setup, teardown, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
