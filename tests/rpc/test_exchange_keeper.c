/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

#include "rpc/exchange_internal.h"
#include "rpc/exchange_kit.h"

static atomic_int drops;

static void count_drop(const void *data, void *user)
{
    (void)data;
    (void)user;
    atomic_fetch_add(&drops, 1);
}

static bool all_dropped(void *arg)
{
    return atomic_load(&drops) == *(int *)arg;
}

/* Nobody comes by: the memory is given back all the same. */
static void idle(void **state)
{
    struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_KEEP, 30);
    int expected = 100;
    char id[16];

    (void)state;
    atomic_store(&drops, 0);
    for (int i = 0; i < expected; i++) {
        (void)snprintf(id, sizeof id, "%d", i);
        assert_int_equal(semel_exchange_trigger_moved(exchange, semel_bytes_text(id),
                                                      semel_bytes("x", 1), count_drop, NULL),
                         SEMEL_OK);
    }
    assert_true(kit_eventually(all_dropped, &expected, 30));
    assert_int_equal(kit_counters(exchange).events, 0);
    assert_int_equal(kit_counters(exchange).bytes, 0);
    assert_int_equal(kit_counters(exchange).expired, 100);
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
}

/* A wait that blocks no thread, the keeper asleep for longer. */
struct told {
    struct sml_waiter waiter;
    atomic_int times;
    struct sml_event_wait *wait;
};

static void tell(struct sml_waiter *waiter, struct sml_event_wait *wait)
{
    struct told *told = SML_CONTAINER(waiter, struct told, waiter);

    told->wait = wait;
    atomic_fetch_add(&told->times, 1);
}

static bool was_told(void *arg)
{
    return atomic_load(&((struct told *)arg)->times) > 0;
}

static void earlier(void **state)
{
    struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);
    struct semel_bytes id = semel_bytes_text("b");
    struct sml_event_wait_plan plan = { .ids = &id, .count = 1 };
    struct told told = { { tell, false }, 0, NULL };

    (void)state;
    kit_trigger(exchange, "a", "1"); /* in 70 s */
    assert_int_equal(sml_exchange_begin(exchange, &plan, 30000000, &told.waiter, NULL), SEMEL_OK);
    assert_true(kit_eventually(was_told, &told, 30));
    assert_int_equal(told.wait->status, SEMEL_DEADLINE);
    sml_event_wait_free(told.wait);
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
    assert_int_equal(atomic_load(&told.times), 1);
}

static bool no_more_threads(void *arg)
{
    return kit_count_threads() <= *(int *)arg;
}

static void no_thread_without_need(void **state)
{
    int threads = kit_count_threads();
    struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_TAKE, 20);

    (void)state;
    kit_wait(exchange, "a", 0.01, "DEADLINE a=-"); /* who blocks keeps its own time */
    assert_int_equal(kit_count_threads(), threads);
    kit_trigger(exchange, "a", "1");
    assert_int_equal(kit_count_threads(), threads + 1);
    assert_true(kit_eventually(no_more_threads, &threads, 30)); /* and leaves */
    kit_trigger(exchange, "a", "1");                            /* and comes again */
    assert_int_equal(kit_count_threads(), threads + 1);
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
    assert_int_equal(kit_count_threads(), threads);
}

/* The wall clock is stepped by a day in both directions, as this program sees it. */
static atomic_long wall_offset;

int __real_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
    int result = __real_clock_gettime(clock, out);

    if (clock == CLOCK_REALTIME)
        out->tv_sec += atomic_load(&wall_offset);
    return result;
}

time_t __wrap_time(time_t *out);
time_t __wrap_time(time_t *out)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

static void wall_clock(void **state)
{
    struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);

    (void)state;
    kit_trigger(exchange, "a", "1");
    kit_trigger(exchange, "b", "2");
    atomic_store(&wall_offset, 86400);
    kit_trigger(exchange, "c", "3"); /* a day later: and nothing is purged */
    kit_wait(exchange, "a", 0, "OK a=1");
    kit_wait(exchange, "x", 0.02, "DEADLINE x=-");
    atomic_store(&wall_offset, -86400);
    kit_wait(exchange, "b c", 0, "OK b=2 c=3");
    kit_wait(exchange, "x", 0.02, "DEADLINE x=-");
    atomic_store(&wall_offset, 0);
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
}

/* --- no threads to be had
 * ---------------------------------------------------------------------- */

static atomic_bool no_threads;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg)
{
    return atomic_load(&no_threads) ? EAGAIN : __real_pthread_create(thread, attr, run, arg);
}

static void no_keeper(void **state)
{
    struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_TAKE, 10);
    struct semel_bytes id = semel_bytes_text("b");
    struct sml_event_wait_plan plan = { .ids = &id, .count = 1 };
    struct told told = { { tell, false }, 0, NULL };

    (void)state;
    atomic_store(&no_threads, true);
    kit_trigger(exchange, "a", "1"); /* the next operation purges */
    assert_int_equal(sml_exchange_begin(exchange, &plan, 1000, &told.waiter, NULL), SEMEL_LIMIT);
    assert_int_equal(kit_counters(exchange).waits, 0);
    kit_sleep_ms(15);
    kit_wait(exchange, "a", 0, "DEADLINE a=-");
    atomic_store(&no_threads, false);
    assert_int_equal(sml_exchange_begin(exchange, &plan, 1000, &told.waiter, NULL), SEMEL_OK);
    assert_true(kit_eventually(was_told, &told, 30));
    sml_event_wait_free(told.wait);
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "E9 retention: gone after idle time", idle, NULL, NULL, NULL },
        { "E13 clock: a step of the wall clock changes nothing", wall_clock, NULL, NULL, NULL },
        { "keeper: woken for what is due earlier", earlier, NULL, NULL, NULL },
        { "keeper: comes and goes", no_thread_without_need, NULL, NULL, NULL },
        { "keeper: no thread to be had", no_keeper, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
