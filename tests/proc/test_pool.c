/* SPDX-License-Identifier: MIT */
/* A pool's life: options, stopping, destroying, forking, and what it tells of itself. */
#include "proc/pool_kit.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void check_refused(const struct semel_pool_options *options, enum semel_status status)
{
    struct semel_pool *pool = (struct semel_pool *)8;

    assert_int_equal(semel_pool_create(&pool, options), status);
    assert_ptr_equal(pool, (struct semel_pool *)8);
}

static void test_options(void **state)
{
    struct pool_kit_before before = pool_kit_before();

    (void)state;
    check_refused(&(struct semel_pool_options){ .workers = SEMEL_POOL_WORKERS_MAX + 1 },
                  SEMEL_INVALID);
    check_refused(&(struct semel_pool_options){ .deadline_ms = -1 }, SEMEL_INVALID);
    check_refused(&(struct semel_pool_options){ .start_ms = -1 }, SEMEL_INVALID);
    check_refused(&(struct semel_pool_options){ .program = "sleep" }, SEMEL_INVALID);
    check_refused(&(struct semel_pool_options){ .program = "/no/such/program" }, SEMEL_SYSTEM);
    check_refused(&(struct semel_pool_options){ .program = "/etc/passwd" }, SEMEL_DENIED);
    assert_int_equal(semel_pool_create(NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_pool_destroy(NULL), SEMEL_OK);
    assert_int_equal(semel_pool_stop(NULL, 0, NULL), SEMEL_INVALID);
    assert_int_equal(semel_pool_list(NULL, NULL, 0), 0);
    assert_int_equal(semel_pool_kill(NULL, 1, true), SEMEL_INVALID);
    pool_kit_check_clean(before);
}

static bool one_runs(void *pool)
{
    struct semel_pool_counters counters;

    semel_pool_counters(pool, &counters);
    return counters.calls_running == 1;
}

struct blocked {
    pthread_t thread;
    struct semel_pool *pool;
    const char *method, *body;
    struct semel_result result;
};

static void *block(void *arg)
{
    struct blocked *self = arg;

    (void)pool_kit_call(self->pool, self->method, self->body, &self->result);
    return NULL;
}

static void begin(struct blocked *blocked, struct semel_pool *pool, const char *method,
                  const char *body)
{
    *blocked = (struct blocked){ .pool = pool, .method = method, .body = body };
    assert_int_equal(pthread_create(&blocked->thread, NULL, block, blocked), 0);
}

static void check_blocked(struct blocked *blocked, enum semel_outcome outcome,
                          enum semel_status status)
{
    assert_int_equal(pthread_join(blocked->thread, NULL), 0);
    assert_int_equal(blocked->result.outcome, outcome);
    assert_int_equal(blocked->result.status, status);
    semel_result_clear(&blocked->result);
}

static bool one_waits(void *pool)
{
    struct semel_pool_counters counters;

    semel_pool_counters(pool, &counters);
    return counters.calls_waiting == 1;
}

static void test_stop(void **state)
{
    struct semel_pool_options options = { .workers = 1 };
    struct pool_kit_before before = pool_kit_before();
    struct semel_pool *pool = pool_kit_make(&options);
    struct blocked running, waiting;
    struct pool_kit_gate gate;
    struct semel_result result;
    uint32_t left = 77;

    (void)state;
    pool_kit_gate_make(&gate);
    begin(&running, pool, "gate", gate.directory);
    assert_true(kit_eventually(one_runs, pool, 30));
    begin(&waiting, pool, "echo", "x");
    assert_true(kit_eventually(one_waits, pool, 30));
    assert_int_equal(semel_pool_stop(pool, 20, &left), SEMEL_DEADLINE);
    assert_int_equal(left, 1);
    check_blocked(&waiting, SEMEL_NOT_EXECUTED, SEMEL_STOPPED);
    assert_int_equal(pool_kit_call(pool, "echo", "x", &result), SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_STOPPED);
    semel_result_clear(&result);
    assert_int_equal(semel_pool_stop(pool, 0, &left), SEMEL_DEADLINE);
    pool_kit_gate_open(&gate);
    assert_int_equal(semel_pool_stop(pool, 60000, &left), SEMEL_OK);
    assert_int_equal(left, 0);
    check_blocked(&running, SEMEL_VALUE, SEMEL_OK);
    pool_kit_check_clean(before);
    assert_int_equal(semel_pool_stop(pool, 0, NULL), SEMEL_OK);
    assert_int_equal(semel_pool_stop(pool, -1, NULL), SEMEL_OK);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    pool_kit_gate_remove(&gate);
}

static void test_destroy_while_calls_run(void **state)
{
    struct semel_pool_options options = { .workers = 1, .stop_grace_ms = 100 };
    struct pool_kit_before before = pool_kit_before();
    struct semel_pool *pool = pool_kit_make(&options);
    struct blocked running, waiting;
    struct pool_kit_gate gate;

    (void)state;
    pool_kit_gate_make(&gate);
    begin(&running, pool, "gate", gate.directory);
    pool_kit_gate_await(&gate);
    begin(&waiting, pool, "echo", "x");
    assert_true(kit_eventually(one_waits, pool, 30));
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    check_blocked(&running, SEMEL_UNKNOWN, SEMEL_STOPPED);
    check_blocked(&waiting, SEMEL_NOT_EXECUTED, SEMEL_STOPPED);
    pool_kit_check_clean(before);
    pool_kit_gate_remove(&gate);
}

/* A process of the host's own. */
static void test_ownership(void **state)
{
    struct semel_pool_options options = { .workers = 2 };
    pid_t mine = fork();
    struct semel_pool *pool;

    (void)state;
    if (mine == 0) {
        kit_sleep_ms(600000);
        _exit(0);
    }
    pool = pool_kit_make(&options);
    assert_int_equal(pool_kit_number(pool, "square", "2"), 4);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    assert_true(pool_kit_lives(mine));
    assert_int_equal(kill(mine, SIGKILL), 0);
    assert_int_equal(waitpid(mine, NULL, 0), mine);
}

static int use_in_child(struct semel_pool *pool)
{
    struct semel_pool_counters counters;
    struct semel_worker_info info;
    struct semel_result result;
    bool good = pool_kit_call(pool, "echo", "", &result) == SEMEL_NOT_EXECUTED &&
                result.status == SEMEL_FORKED;

    semel_result_clear(&result);
    good &= semel_pool_start(pool, "echo", semel_bytes(NULL, 0), NULL, (semel_done_fn)abort, NULL,
                             NULL) == SEMEL_FORKED;
    good &= semel_pool_stop(pool, 0, NULL) == SEMEL_FORKED;
    good &= semel_pool_kill(pool, 1, true) == SEMEL_FORKED;
    good &= semel_pool_list(pool, &info, 1) == 0;
    semel_pool_counters(pool, &counters);
    good &= counters.calls_started == 0;
    good &= semel_pool_destroy(pool) == SEMEL_FORKED;
    return good ? 0 : 1;
}

static void test_fork(void **state)
{
    struct semel_pool_options options = { .workers = 2 };
    struct semel_pool *pool = pool_kit_make(&options);
    int how;
    pid_t child;

    (void)state;
    pool_kit_await_ready(pool);
    child = fork();
    if (child == 0)
        _exit(use_in_child(pool));
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_int_equal(how, 0);
    assert_int_equal(pool_kit_number(pool, "square", "7"), 49);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
}

static bool is_replaced(void *pool)
{
    struct semel_worker_info infos[4];

    return semel_pool_list(pool, infos, 4) == 1 && infos[0].state == SEMEL_WORKER_READY &&
           infos[0].restarts == 1;
}

static void test_list_and_kill(void **state)
{
    struct semel_pool_options options = { .workers = 1 };
    struct semel_pool *pool = pool_kit_make(&options);
    struct semel_worker_info infos[4];
    struct blocked running;
    struct pool_kit_gate gate;

    (void)state;
    pool_kit_gate_make(&gate);
    pool_kit_await_ready(pool);
    begin(&running, pool, "gate", gate.directory);
    assert_true(kit_eventually(one_runs, pool, 30));
    assert_int_equal(semel_pool_list(pool, infos, 4), 1);
    assert_int_equal(infos[0].in_flight, 1);
    assert_int_equal(infos[0].state, SEMEL_WORKER_READY);
    assert_int_equal(infos[0].restarts, 0);
    assert_true(pool_kit_lives(infos[0].pid));
    assert_string_equal(infos[0].last_exit, "");
    /* Politely: its call comes to its end. */
    assert_int_equal(semel_pool_kill(pool, infos[0].worker, false), SEMEL_OK);
    pool_kit_gate_open(&gate);
    check_blocked(&running, SEMEL_VALUE, SEMEL_OK);
    assert_true(kit_eventually(is_replaced, pool, 30));
    assert_int_equal(semel_pool_kill(pool, infos[0].worker, true), SEMEL_INVALID);
    assert_int_equal(semel_pool_list(pool, infos, 4), 1);
    assert_string_equal(infos[0].last_exit, "exited with code 0");
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    pool_kit_gate_remove(&gate);
}

/* One that does not end by itself is killed on request, by somebody else. */
static void test_kill_stuck(void **state)
{
    struct semel_pool_options options = { .workers = 1 };
    struct semel_pool *pool = pool_kit_make(&options);
    struct semel_worker_info info;
    struct blocked running;
    struct pool_kit_gate gate;

    (void)state;
    pool_kit_gate_make(&gate);
    begin(&running, pool, "gate", gate.directory);
    pool_kit_gate_await(&gate);
    assert_int_equal(semel_pool_list(pool, &info, 1), 1);
    assert_int_equal(semel_pool_kill(pool, info.worker, true), SEMEL_OK);
    check_blocked(&running, SEMEL_UNKNOWN, SEMEL_HANDLER_DIED);
    assert_int_equal(pool_kit_number(pool, "square", "6"), 36);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    pool_kit_gate_remove(&gate);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        { "R15 stop with a limit: how many are left; may be repeated", test_stop, NULL, NULL,
          NULL },
        { "R9 stop: nothing is left, also when calls run", test_destroy_while_calls_run, NULL, NULL,
          NULL },
        { "R16 ownership: the host's own processes are let alone", test_ownership, NULL, NULL,
          NULL },
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_list_and_kill),
        cmocka_unit_test(test_kill_stuck),
    };
    int code = pool_kit_main(argc, argv);

    if (code >= 0)
        return code;
    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
