/* SPDX-License-Identifier: MIT */
/* Started calls: each ends once, in whatever way. */
#include "proc/pool_kit.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/time.h"
#include "proc/seat.h"

struct ends {
    _Atomic unsigned values, unknown, not_executed, all;
    _Atomic unsigned status;
    struct semel_pool *pool;
};

static void on_done(struct semel_result *result, void *user)
{
    struct ends *ends = user;
    struct semel_result nested;

    /* Nobody waits here. */
    assert_int_equal(semel_pool_call(ends->pool, "echo", semel_bytes(NULL, 0), NULL, &nested),
                     SEMEL_NOT_EXECUTED);
    assert_int_equal(nested.status, SEMEL_WOULD_DEADLOCK);
    semel_result_clear(&nested);
    assert_int_equal(semel_pool_destroy(ends->pool), SEMEL_WOULD_DEADLOCK);
    atomic_fetch_add(&ends->values, result->outcome == SEMEL_VALUE);
    atomic_fetch_add(&ends->unknown, result->outcome == SEMEL_UNKNOWN);
    atomic_fetch_add(&ends->not_executed, result->outcome == SEMEL_NOT_EXECUTED);
    atomic_store(&ends->status, result->status);
    atomic_fetch_add(&ends->all, 1);
}

static struct semel_job *start(struct ends *ends, const char *method, const char *body,
                               const struct semel_call_options *options)
{
    struct semel_job *job;

    assert_int_equal(
        semel_pool_start(ends->pool, method, semel_bytes_text(body), options, on_done, ends, &job),
        SEMEL_OK);
    return job;
}

static bool has_ended(void *arg)
{
    struct ends *ends = arg;

    return atomic_load(&ends->all) == 1;
}

static void check_one(struct ends *ends, struct semel_job *job, enum semel_status status)
{
    assert_true(kit_eventually(has_ended, ends, 30));
    assert_int_equal(atomic_load(&ends->status), status);
    semel_job_cancel(job); /* too late: nothing */
    semel_job_unref(job);
    atomic_store(&ends->all, 0);
}

static bool have_all(void *arg)
{
    struct ends *ends = arg;

    return atomic_load(&ends->all) == 2000;
}

static void test_many(void **state)
{
    struct semel_pool_options options = { .workers = 2,
                                          .calls_per_worker = 4,
                                          .deadline_ms = 600000 };
    struct ends ends = { .pool = pool_kit_make(&options) };
    struct semel_pool_counters counters;

    (void)state;
    for (int i = 0; i < 2000; i++)
        semel_job_unref(start(&ends, "echo", "x", NULL));
    assert_true(kit_eventually(have_all, &ends, 60));
    assert_int_equal(atomic_load(&ends.values), 2000);
    semel_pool_counters(ends.pool, &counters);
    assert_int_equal(counters.calls_started, 2000);
    assert_int_equal(semel_pool_destroy(ends.pool), SEMEL_OK);
}

static void test_cancel(void **state)
{
    struct semel_pool_options options = { .workers = 1 };
    struct semel_call_options soon = { .deadline_ms = 50 };
    struct ends first = { .pool = pool_kit_make(&options) }, ends = { .pool = first.pool };
    struct semel_job *running, *waiting;
    struct pool_kit_gate gate;

    (void)state;
    pool_kit_gate_make(&gate);
    running = start(&first, "gate", gate.directory, NULL);
    pool_kit_gate_await(&gate);
    waiting = start(&ends, "echo", "x", NULL);
    semel_job_cancel(waiting);
    check_one(&ends, waiting, SEMEL_CANCELLED);
    assert_int_equal(atomic_load(&ends.not_executed), 1);
    waiting = start(&ends, "echo", "x", &soon);
    check_one(&ends, waiting, SEMEL_EXPIRED);
    assert_int_equal(atomic_load(&ends.not_executed), 2);
    semel_job_cancel(running); /* the handler takes no notice: it is its word that counts */
    pool_kit_gate_open(&gate);
    check_one(&first, running, SEMEL_OK);
    assert_int_equal(atomic_load(&first.values), 1);
    assert_int_equal(semel_pool_destroy(first.pool), SEMEL_OK);
    pool_kit_gate_remove(&gate);
}

/* Its worker dies before it has read the call; there is no other, and nobody waits for one. */
static void test_cancel_then_death(void **state)
{
    struct semel_pool_options options = { .workers = 1,
                                          .restart_min_ms = 600000,
                                          .restart_max_ms = 600000 };
    struct semel_call_options call = { .deadline_ms = 10000 };
    struct ends ends = { .pool = pool_kit_make(&options) };
    struct semel_worker_info info;
    struct semel_job *job;

    (void)state;
    pool_kit_await_ready(ends.pool);
    assert_int_equal(semel_pool_list(ends.pool, &info, 1), 1);
    pool_kit_halt(info.pid);
    job = start(&ends, "echo", "x", &call);
    semel_job_cancel(job);
    assert_int_equal(kill(info.pid, SIGKILL), 0);
    check_one(&ends, job, SEMEL_CANCELLED);
    assert_int_equal(atomic_load(&ends.not_executed), 1);
    assert_int_equal(semel_pool_destroy(ends.pool), SEMEL_OK);
}

static void test_refused(void **state)
{
    struct semel_pool_options options = { .workers = 1, .waiting_calls = 1 };
    struct semel_call_options full = { .refuse_when_full = true }, late = { .deadline_ms = -1 };
    struct ends first = { .pool = pool_kit_make(&options) }, ends = { .pool = first.pool };
    struct semel_job *job;
    struct pool_kit_gate gate;

    (void)state;
    pool_kit_gate_make(&gate);
    pool_kit_await_ready(first.pool);
    assert_int_equal(
        semel_pool_start(first.pool, "", semel_bytes(NULL, 0), NULL, on_done, &ends, NULL),
        SEMEL_INVALID);
    assert_int_equal(
        semel_pool_start(first.pool, "x", semel_bytes(NULL, 0), NULL, NULL, NULL, NULL),
        SEMEL_INVALID);
    semel_job_unref(start(&first, "gate", gate.directory, NULL));
    assert_int_equal(
        semel_pool_start(first.pool, "x", semel_bytes(NULL, 0), &full, on_done, &ends, NULL),
        SEMEL_OVERLOADED);
    job = start(&ends, "echo", "x", &late);
    check_one(&ends, job, SEMEL_EXPIRED);
    job = start(&ends, "echo", "x", NULL);
    assert_int_equal(
        semel_pool_start(first.pool, "x", semel_bytes(NULL, 0), NULL, on_done, &ends, NULL),
        SEMEL_OVERLOADED);
    pool_kit_gate_open(&gate);
    check_one(&ends, job, SEMEL_OK);
    assert_int_equal(semel_pool_destroy(first.pool), SEMEL_OK);
    pool_kit_gate_remove(&gate);
}

static void test_death(void **state)
{
    struct semel_pool_options options = { .workers = 1 };
    struct ends ends = { .pool = pool_kit_make(&options) };

    (void)state;
    check_one(&ends, start(&ends, "exit", "2", NULL), SEMEL_HANDLER_DIED);
    assert_int_equal(atomic_load(&ends.unknown), 1);
    check_one(&ends, start(&ends, "echo", "x", NULL), SEMEL_OK);
    assert_int_equal(semel_pool_destroy(ends.pool), SEMEL_OK);
}

/* The connection of the only worker ends; nobody has heard of it yet. */
static void cut_off(struct semel_pool *pool)
{
    struct sml_seat seat;

    sml_seat_init(&seat, NULL);
    assert_true(sml_seat_ask(pool, &seat, SML_NEVER, false));
    semel_client_stop(sml_seat_client(&seat));
    sml_seat_leave(pool, &seat, true, SEMEL_VALUE);
}

/* A call that a worker does not take gets another one; if it may not wait for that it ends as any
 * that has waited too long. */
static void test_not_taken(void **state)
{
    static const struct {
        int64_t deadline_ms;
        enum semel_status status;
    } cases[] = { { 30000, SEMEL_OK }, { -1, SEMEL_EXPIRED } };
    struct semel_pool_options options = { .workers = 1 };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct semel_call_options call = { .deadline_ms = cases[i].deadline_ms };
        struct ends ends = { .pool = pool_kit_make(&options) };

        pool_kit_await_ready(ends.pool);
        cut_off(ends.pool);
        check_one(&ends, start(&ends, "echo", "x", &call), cases[i].status);
        assert_int_equal(atomic_load(&ends.not_executed), cases[i].status != SEMEL_OK);
        assert_int_equal(semel_pool_destroy(ends.pool), SEMEL_OK);
    }
}

#define JOBS 4000

static bool all_ended(void *arg)
{
    return atomic_load(&((struct ends *)arg)->all) == JOBS;
}

/* All in line at once, and their workers die. */
static void test_kills(void **state)
{
    struct semel_pool_options options = { .workers = 2,
                                          .calls_per_worker = 3,
                                          .restart_min_ms = 1,
                                          .restart_max_ms = 1,
                                          .fast_deaths_max = 100000,
                                          .deadline_ms = 600000 };
    struct ends ends = { .pool = pool_kit_make(&options) };
    struct semel_pool_counters counters;
    struct semel_worker_info infos[8];
    unsigned seed = 1;

    (void)state;
    for (int i = 0; i < JOBS; i++)
        semel_job_unref(start(&ends, "nap", "0", NULL));
    while (!all_ended(&ends)) {
        size_t count = semel_pool_list(ends.pool, infos, 8);

        for (size_t i = 0; i < count; i++)
            if (infos[i].pid > 0 && rand_r(&seed) % 3 == 0)
                (void)kill(infos[i].pid, SIGKILL);
        usleep((unsigned)rand_r(&seed) % 20000);
    }
    semel_pool_counters(ends.pool, &counters);
    assert_int_equal(atomic_load(&ends.values) + atomic_load(&ends.unknown), JOBS);
    assert_true(atomic_load(&ends.values) > atomic_load(&ends.unknown));
    assert_int_equal(semel_pool_destroy(ends.pool), SEMEL_OK);
    assert_int_equal(pool_kit_children(), 0);
    assert_int_equal(atomic_load(&ends.all), JOBS);
}

static void test_destroy(void **state)
{
    struct semel_pool_options options = { .workers = 1, .stop_grace_ms = -1 };
    struct ends ends = { .pool = pool_kit_make(&options) };
    struct pool_kit_gate gate;

    (void)state;
    pool_kit_gate_make(&gate);
    for (int i = 0; i < 100; i++)
        semel_job_unref(start(&ends, "gate", gate.directory, NULL));
    pool_kit_gate_await(&gate);
    assert_int_equal(semel_pool_destroy(ends.pool), SEMEL_OK);
    pool_kit_gate_remove(&gate);
    assert_int_equal(atomic_load(&ends.all), 100);
    assert_int_equal(atomic_load(&ends.unknown), 1);
    assert_int_equal(atomic_load(&ends.status), SEMEL_STOPPED);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_then_death),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_death),
        cmocka_unit_test(test_not_taken),
        { "R17 worker death: started calls end once each", test_kills, NULL, NULL, NULL },
        cmocka_unit_test(test_destroy),
    };
    int code = pool_kit_main(argc, argv);

    if (code >= 0)
        return code;
    return cmocka_run_group_tests_name("pool_start", tests, NULL, NULL);
}
