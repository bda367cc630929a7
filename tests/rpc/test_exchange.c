/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/time.h"
#include "os/futex.h"
#include "rpc/exchange_internal.h"
#include "rpc/exchange_kit.h"

/* A thread that waits, and what it got. */
struct blocked {
    pthread_t thread;
    struct semel_exchange *exchange;
    const char *words;
    double timeout_s;
    struct semel_events events;
};

static void *block(void *arg)
{
    struct blocked *blocked = arg;
    struct semel_wait_options options = SEMEL_WAIT_OPTIONS_INIT;
    struct semel_bytes ids[16];
    size_t count = kit_ids(blocked->words, ids);
    enum semel_status status;

    options.timeout_s = blocked->timeout_s;
    status = semel_exchange_wait(blocked->exchange, ids, count, &options, &blocked->events);
    assert_int_equal(status, blocked->events.status);
    return NULL;
}

static void block_on(struct blocked *blocked, struct semel_exchange *exchange, const char *words,
                     double timeout_s)
{
    blocked->exchange = exchange;
    blocked->words = words;
    blocked->timeout_s = timeout_s;
    assert_int_equal(pthread_create(&blocked->thread, NULL, block, blocked), 0);
}

static void expect(struct blocked *blocked, const char *words)
{
    assert_int_equal(pthread_join(blocked->thread, NULL), 0);
    kit_expect(&blocked->events, words);
}

static void early_and_late(void **state)
{
    struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);
    struct blocked blocked;

    (void)state;
    kit_trigger(exchange, "a", "1");
    kit_wait(exchange, "a", 0, "OK a=1");
    kit_wait(exchange, "", 0, "OK");
    kit_wait(exchange, "a", 0, "DEADLINE a=-");
    block_on(&blocked, exchange, "b a", 60);
    kit_until_waiting(exchange, 1);
    kit_trigger(exchange, "a", "2");
    kit_trigger(exchange, "b", "3");
    expect(&blocked, "OK b=3 a=2");
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
}

static void delivery_modes(void **state)
{
    enum { THREADS = 3 };
    struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_KEEP, 0);
    struct blocked blocked[THREADS];

    (void)state;
    for (int i = 0; i < THREADS; i++)
        block_on(&blocked[i], exchange, "a", 60);
    kit_until_waiting(exchange, THREADS);
    kit_trigger(exchange, "a", "1");
    for (int i = 0; i < THREADS; i++)
        expect(&blocked[i], "OK a=1");
    kit_wait(exchange, "a", 0, "OK a=1");
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);

    exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);
    for (int i = 0; i < THREADS; i++) {
        block_on(&blocked[i], exchange, "a", 60);
        kit_until_waiting(exchange, (uint64_t)i + 1);
    }
    for (int i = 0; i < THREADS; i++) {
        kit_trigger(exchange, "a", "1");
        expect(&blocked[i], "OK a=1"); /* in the order in which they came */
        assert_int_equal(kit_counters(exchange).waits, THREADS - 1 - i);
    }
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
}

static void partial(void **state)
{
    struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);
    struct semel_wait_options options = { 0, 0.02, SEMEL_UNMET_LEAVE };
    struct semel_bytes ids[2] = { semel_bytes_text("a"), semel_bytes_text("b") };
    uint64_t before = kit_now_ms();
    struct semel_events events;

    (void)state;
    kit_trigger(exchange, "a", "1");
    assert_int_equal(semel_exchange_wait(exchange, ids, 2, &options, &events), SEMEL_DEADLINE);
    assert_true(kit_now_ms() - before >= 19);
    kit_expect(&events, "DEADLINE a=1 b=-");
    kit_wait(exchange, "a b", 0.01, "DEADLINE a=1 b=-"); /* it was left, and is taken now */
    kit_wait(exchange, "a", 0, "DEADLINE a=-");
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
}

static void timeout_range(void **state)
{
    const double bad[] = { -1, -1e-9, NAN, INFINITY, -INFINITY, 3600.001, 1e300 };
    struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);
    struct semel_bytes ids[2] = { semel_bytes_text("a"), semel_bytes_text("a") };
    struct semel_wait_options options = SEMEL_WAIT_OPTIONS_INIT;
    struct semel_events events;

    (void)state;
    kit_trigger(exchange, "a", "1");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        options.timeout_s = bad[i];
        assert_int_equal(semel_exchange_wait(exchange, ids, 1, &options, &events), SEMEL_INVALID);
        assert_int_equal(events.status, SEMEL_INVALID);
        assert_int_equal(events.count, 0);
        assert_null(events.storage);
        semel_events_clear(&events);
    }
    options.timeout_s = 3600;
    options.need = 2;
    assert_int_equal(semel_exchange_wait(exchange, ids, 2, &options, &events), SEMEL_INVALID);
    ids[1] = semel_bytes(NULL, 0);
    options.need = 1;
    assert_int_equal(semel_exchange_wait(exchange, ids, 2, &options, &events), SEMEL_INVALID);
    assert_int_equal(semel_exchange_wait(exchange, NULL, 1, &options, &events), SEMEL_INVALID);
    assert_int_equal(semel_exchange_wait(exchange, ids, 1, &options, NULL), SEMEL_INVALID);
    assert_int_equal(kit_counters(exchange).waits, 0);
    kit_wait(exchange, "a", 3600, "OK a=1"); /* nothing was taken */
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
}

static void bad_options(void **state)
{
    const struct semel_exchange_options bad[] = {
        { .delivery = (enum semel_delivery)2 },
        { .max_ms = -1 },
        { .max_ms = INT64_C(1) << 31 },
        { .grace_ms = INT64_C(1) << 31 },
        { .timeout_max_ms = -1 },
    };
    struct semel_exchange *exchange = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(semel_exchange_create(&exchange, &bad[i]), SEMEL_INVALID);
    assert_null(exchange);
    assert_int_equal(semel_exchange_create(NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_exchange_create(&exchange, NULL), SEMEL_OK);
    assert_int_equal(semel_exchange_trigger(NULL, semel_bytes_text("a"), semel_bytes_text("")),
                     SEMEL_INVALID);
    assert_int_equal(semel_exchange_trigger(exchange, semel_bytes("", 0), semel_bytes_text("")),
                     SEMEL_INVALID);
    assert_int_equal(semel_exchange_trigger(exchange, semel_bytes_text("a"), semel_bytes(NULL, 1)),
                     SEMEL_INVALID);
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
    assert_int_equal(semel_exchange_destroy(NULL), SEMEL_OK);
}

static void close_wakes(void **state)
{
    enum { THREADS = 4 };
    struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);
    struct blocked blocked[THREADS];
    struct semel_events events;

    (void)state;
    for (int i = 0; i < THREADS; i++)
        block_on(&blocked[i], exchange, "a b", 60);
    kit_until_waiting(exchange, THREADS);
    kit_trigger(exchange, "a", "1");
    semel_exchange_close(exchange);
    semel_exchange_close(exchange);
    for (int i = 0; i < THREADS; i++)
        expect(&blocked[i], "STOPPED a=- b=-");
    assert_int_equal(kit_counters(exchange).waits, 0);
    assert_int_equal(kit_counters(exchange).events, 0);
    assert_int_equal(semel_exchange_trigger(exchange, semel_bytes_text("a"), semel_bytes_text("")),
                     SEMEL_STOPPED);
    assert_int_equal(semel_exchange_wait(exchange, NULL, 0, NULL, &events), SEMEL_STOPPED);
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
}

/* Destroy waits for those who block: none of them touches what is gone. */
static void destroy_waits(void **state)
{
    enum { THREADS = 4, ROUNDS = 50 };

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);
        struct blocked blocked[THREADS];

        for (int i = 0; i < THREADS; i++)
            block_on(&blocked[i], exchange, "a", 60);
        kit_until_waiting(exchange, THREADS);
        assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
        for (int i = 0; i < THREADS; i++)
            expect(&blocked[i], "STOPPED a=-");
    }
}

/* --- moved data
 * -------------------------------------------------------------------------------- */

static struct semel_exchange *dropping;
static atomic_int drops;

static void drop(const void *data, void *user)
{
    assert_string_equal(data, "moved");
    assert_ptr_equal(user, &drops);
    atomic_fetch_add(&drops, 1);
    if (dropping) /* under no lock; and it must not wait for itself */
        assert_int_equal(semel_exchange_destroy(dropping), SEMEL_WOULD_DEADLOCK);
}

static enum semel_status trigger_moved(struct semel_exchange *exchange, const char *id)
{
    return semel_exchange_trigger_moved(exchange, semel_bytes_text(id), semel_bytes_text("moved"),
                                        drop, &drops);
}

static void moved(void **state)
{
    struct semel_exchange_options options = SEMEL_EXCHANGE_OPTIONS_INIT;
    struct semel_exchange *exchange;

    (void)state;
    options.events = 1;
    assert_int_equal(semel_exchange_create(&exchange, &options), SEMEL_OK);
    dropping = exchange;
    assert_int_equal(trigger_moved(exchange, "a"), SEMEL_OK);
    assert_int_equal(trigger_moved(exchange, "b"), SEMEL_OVERLOADED);
    assert_int_equal(atomic_load(&drops), 0); /* still the caller's */
    assert_int_equal(trigger_moved(exchange, "a"), SEMEL_OK);
    assert_int_equal(atomic_load(&drops), 1);
    dropping = NULL;
    kit_wait(exchange, "a", 0, "OK a=moved");
    assert_int_equal(atomic_load(&drops), 2);
    assert_int_equal(trigger_moved(exchange, "a"), SEMEL_OK);
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
    assert_int_equal(atomic_load(&drops), 3);
}

static void forked(void **state)
{
    struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);
    int status;
    pid_t child;

    (void)state;
    kit_trigger(exchange, "a", "1");
    child = fork();
    if (child == 0) {
        struct semel_events events;
        bool right = semel_exchange_trigger(exchange, semel_bytes_text("a"),
                                            semel_bytes_text("")) == SEMEL_FORKED &&
                     semel_exchange_wait(exchange, NULL, 0, NULL, &events) == SEMEL_FORKED &&
                     semel_exchange_destroy(exchange) == SEMEL_FORKED;

        semel_exchange_close(exchange);
        _exit(right ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    kit_wait(exchange, "a", 0, "OK a=1");
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
}

/* --- many threads
 * ------------------------------------------------------------------------------ */

enum { PAIRS = 3, MESSAGES = 2000 };

struct crowd {
    struct semel_exchange *exchange;
    int number;
    atomic_ulong *sum;
};

static void *produce(void *arg)
{
    struct crowd *crowd = arg;
    char id[32];

    for (unsigned long i = 1; i <= MESSAGES; i++) {
        (void)snprintf(id, sizeof id, "%d/%lu", crowd->number, i);
        assert_int_equal(semel_exchange_trigger(crowd->exchange, semel_bytes_text(id),
                                                semel_bytes(&i, sizeof i)),
                         SEMEL_OK);
    }
    return NULL;
}

/* Two of these share the events of one producer, each waiting for them two by two. */
static void *consume(void *arg)
{
    struct crowd *crowd = arg;
    char names[2][32];

    for (unsigned long i = 1 + (unsigned long)(crowd->number % 2) * 2; i < MESSAGES; i += 4) {
        struct semel_wait_options options = SEMEL_WAIT_OPTIONS_INIT;
        struct semel_bytes ids[2];
        struct semel_events events;

        options.timeout_s = 60;
        for (unsigned long k = 0; k < 2; k++) {
            (void)snprintf(names[k], sizeof names[k], "%d/%lu", crowd->number / 2, i + k);
            ids[k] = semel_bytes_text(names[k]);
        }
        assert_int_equal(semel_exchange_wait(crowd->exchange, ids, 2, &options, &events), SEMEL_OK);
        for (int k = 0; k < 2; k++) {
            unsigned long data;

            memcpy(&data, events.events[k].data.data, sizeof data);
            assert_int_equal(data, i + (unsigned long)k);
            atomic_fetch_add(crowd->sum, data);
        }
        semel_events_clear(&events);
    }
    return NULL;
}

static void many_threads(void **state)
{
    struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);
    pthread_t threads[3 * PAIRS];
    struct crowd crowds[3 * PAIRS];
    atomic_ulong sum = 0;

    (void)state;
    for (int i = 0; i < 3 * PAIRS; i++) {
        crowds[i] = (struct crowd){ exchange, i < PAIRS ? i : i - PAIRS, &sum };
        assert_int_equal(
            pthread_create(&threads[i], NULL, i < PAIRS ? produce : consume, &crowds[i]), 0);
    }
    for (int i = 0; i < 3 * PAIRS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(atomic_load(&sum), (unsigned long)PAIRS * MESSAGES * (MESSAGES + 1) / 2);
    assert_int_equal(kit_counters(exchange).events, 0);
    assert_int_equal(kit_counters(exchange).met, PAIRS * MESSAGES / 2);
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
}

/* Waits that end by their deadline and by an event at about the same time: each event is told
 * once. */
static void *race(void *arg)
{
    struct crowd *crowd = arg;

    for (int i = 0; i < MESSAGES / 4; i++) {
        struct semel_wait_options options = { 0, 0.0002, SEMEL_UNMET_TAKE };
        struct semel_bytes ids[2] = { semel_bytes_text("a"), semel_bytes_text("b") };
        struct semel_events events;

        (void)!semel_exchange_wait(crowd->exchange, ids, 2, &options, &events);
        for (size_t k = 0; k < events.count; k++)
            if (events.events[k].there)
                atomic_fetch_add(crowd->sum, 1);
        semel_events_clear(&events);
    }
    return NULL;
}

static void deadline_races(void **state)
{
    struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_TAKE, 0);
    struct semel_exchange_counters counters;
    pthread_t threads[3];
    struct crowd crowds[3];
    atomic_ulong sum = 0;

    (void)state;
    for (int i = 0; i < 3; i++) {
        crowds[i] = (struct crowd){ exchange, i, &sum };
        assert_int_equal(pthread_create(&threads[i], NULL, race, &crowds[i]), 0);
    }
    for (int i = 0; i < MESSAGES; i++) {
        kit_trigger(exchange, i % 2 ? "a" : "b", "");
        if (i % 50 == 0)
            kit_sleep_ms(1);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    counters = kit_counters(exchange);
    assert_int_equal(counters.triggered,
                     counters.overwritten + counters.events + atomic_load(&sum));
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
}

/* --- a teller that stands still --------------------------------------------------------------- */

static atomic_int sleeps;

enum sml_futex_result __real_sml_futex_wait(_Atomic uint32_t *word, uint32_t expected,
                                            uint64_t deadline_ns);
enum sml_futex_result __wrap_sml_futex_wait(_Atomic uint32_t *word, uint32_t expected,
                                            uint64_t deadline_ns);

enum sml_futex_result __wrap_sml_futex_wait(_Atomic uint32_t *word, uint32_t expected,
                                            uint64_t deadline_ns)
{
    atomic_fetch_add(&sleeps, 1);
    return __real_sml_futex_wait(word, expected, deadline_ns);
}

struct slow {
    struct sml_waiter waiter;
    struct sml_event_wait *wait;
};

static void told_slowly(struct sml_waiter *waiter, struct sml_event_wait *wait)
{
    (void)waiter;
    (void)wait;
    kit_sleep_ms(2200); /* those behind it are met, and do not know it yet */
}

static void *wait_shortly(void *arg)
{
    kit_wait(arg, "a", 2, "OK a=1");
    return NULL;
}

/* Its deadline passes between the moment when it is met and the one when it is told: it sleeps on,
 * and does not keep the processor from who tells it. */
static void met_and_not_told(void **state)
{
    struct semel_exchange *exchange = kit_exchange(SEMEL_EVENTS_KEEP, 0);
    struct semel_bytes id = semel_bytes_text("a");
    struct sml_event_wait_plan plan = { .ids = &id, .count = 1 };
    struct slow slow = { .waiter = { told_slowly, false } };
    pthread_t thread;

    (void)state;
    assert_int_equal(sml_exchange_begin(exchange, &plan, 60 * SML_SECOND, &slow.waiter, &slow.wait),
                     SEMEL_OK);
    atomic_store(&sleeps, 0);
    assert_int_equal(pthread_create(&thread, NULL, wait_shortly, exchange), 0);
    kit_until_waiting(exchange, 2);
    kit_trigger(exchange, "a", "1");
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(atomic_load(&sleeps) < 10);
    sml_event_wait_free(slow.wait);
    assert_int_equal(semel_exchange_destroy(exchange), SEMEL_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "E4 early event: no blocking; late: a thread wakes", early_and_late, NULL, NULL, NULL },
        { "E6 delivery mode: threads, one or all", delivery_modes, NULL, NULL, NULL },
        { "E7 timeout partial: threads", partial, NULL, NULL, NULL },
        { "E8 timeout range: nothing is registered", timeout_range, NULL, NULL, NULL },
        { "E14 close: every thread wakes", close_wakes, NULL, NULL, NULL },
        { "E14 destroy: waits for those inside", destroy_waits, NULL, NULL, NULL },
        { "exchange: bad options, NULL", bad_options, NULL, NULL, NULL },
        { "exchange: moved data, dropped once and under no lock", moved, NULL, NULL, NULL },
        { "exchange: a forked child is refused", forked, NULL, NULL, NULL },
        { "exchange: many threads, each event once", many_threads, NULL, NULL, NULL },
        { "exchange: deadlines race with events", deadline_races, NULL, NULL, NULL },
        { "exchange: met, and told after the deadline", met_and_not_told, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
