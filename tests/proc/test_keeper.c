/* SPDX-License-Identifier: MIT */
/* Processes that come and go: kills, hosts that reap, parents that die, restarts, recycling. */
#include "proc/pool_kit.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define KILLS 1000
#define CALLERS 4

/* --- a thousand kills ------------------------------------------------------------------------ */

struct caller {
    pthread_t thread;
    struct semel_pool *pool;
    _Atomic bool *over;
    unsigned seed;
    unsigned long values, unknown;
};

static void check_end(struct caller *self, const struct semel_result *result, long number)
{
    char expected[32];

    snprintf(expected, sizeof expected, "%ld", number * number);
    if (result->outcome == SEMEL_VALUE) {
        assert_int_equal(result->body.size, strlen(expected));
        assert_memory_equal(result->body.data, expected, strlen(expected));
        self->values++;
        return;
    }
    if (result->outcome != SEMEL_UNKNOWN || result->status != SEMEL_HANDLER_DIED)
        fail_msg("%s", result->text);
    assert_non_null(strstr(result->text, "was killed by signal 9 (SIGKILL)"));
    self->unknown++;
}

static void *call_on(void *arg)
{
    struct caller *self = arg;

    while (!atomic_load(self->over)) {
        struct semel_result result;
        long number = rand_r(&self->seed) % 30000;
        char text[32];

        snprintf(text, sizeof text, "%ld", number);
        (void)pool_kit_call(self->pool, "square", text, &result);
        check_end(self, &result, number);
        semel_result_clear(&result);
    }
    return NULL;
}

/* Any of the workers that there are now. */
static void kill_one(struct semel_pool *pool, unsigned *seed)
{
    struct semel_worker_info infos[16];
    size_t count = semel_pool_list(pool, infos, 16), at = (size_t)rand_r(seed) % count;

    if (infos[at].pid > 0)
        (void)kill(infos[at].pid, SIGKILL);
}

static bool has_a_thousand_values(void *pool)
{
    struct semel_pool_counters counters;

    semel_pool_counters(pool, &counters);
    return counters.values > 1000;
}

static void test_kills(void **state)
{
    struct semel_pool_options options = {
        .workers = 3,
        .fast_deaths_max = 1000000,
        .restart_max_ms = 1,
        .restart_min_ms = 1,
        .deadline_ms = 600000,
    };
    struct pool_kit_before before = pool_kit_before();
    struct semel_pool *pool = pool_kit_make(&options);
    struct semel_pool_counters counters;
    struct caller callers[CALLERS];
    unsigned long values = 0, unknown = 0;
    _Atomic bool over;
    unsigned seed = 4711;

    (void)state;
    atomic_init(&over, false);
    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){ .pool = pool, .over = &over, .seed = i };
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_on, &callers[i]), 0);
    }
    do {
        kill_one(pool, &seed);
        usleep((unsigned)rand_r(&seed) % 4000);
        semel_pool_counters(pool, &counters);
    } while (counters.workers_died < KILLS);
    assert_true(kit_eventually(has_a_thousand_values, pool, 60)); /* calls go on behind it all */
    atomic_store(&over, true);
    for (unsigned i = 0; i < CALLERS; i++) {
        assert_int_equal(pthread_join(callers[i].thread, NULL), 0);
        values += callers[i].values;
        unknown += callers[i].unknown;
    }
    semel_pool_counters(pool, &counters);
    assert_int_equal(counters.calls_started, counters.calls_completed);
    assert_int_equal(counters.values, values);
    assert_int_equal(counters.unknown, unknown);
    assert_int_equal(counters.not_executed, 0);
    print_message("%lu values, %lu unknown, %lu moved\n", values, unknown,
                  (unsigned long)counters.calls_moved);
    assert_int_equal(semel_pool_stop(pool, 60000, NULL), SEMEL_OK);
    pool_kit_check_clean(before);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
}

/* --- a host that reaps everything ------------------------------------------------------------- */

static void *reap_all(void *arg)
{
    _Atomic bool *over = arg;

    while (!atomic_load(over))
        if (waitpid(-1, NULL, 0) < 0 && errno == ECHILD)
            kit_sleep_ms(1);
    return NULL;
}

static void test_reaping_host(void **state)
{
    struct semel_pool_options options = { .workers = 2 };
    struct pool_kit_before before = pool_kit_before();
    struct semel_result result;
    struct semel_pool *pool;
    _Atomic bool over;
    pthread_t thread;

    (void)state;
    atomic_init(&over, false);
    assert_int_equal(pthread_create(&thread, NULL, reap_all, &over), 0);
    pool = pool_kit_make(&options);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(pool_kit_call(pool, "exit", "3", &result), SEMEL_UNKNOWN);
        assert_int_equal(result.status, SEMEL_HANDLER_DIED);
        /* Whoever comes first: the host, mostly. */
        assert_true(strstr(result.text, "exit status is unavailable") ||
                    strstr(result.text, "exited with code 3"));
        semel_result_clear(&result);
        assert_int_equal(pool_kit_number(pool, "square", "4"), 16);
    }
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    atomic_store(&over, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pool_kit_check_clean(before);
}

/* A host may also say that it does not want to hear of its children. */
static void test_ignoring_host(void **state)
{
    struct semel_pool_options options = { .workers = 1 };
    struct pool_kit_before before = pool_kit_before();
    void (*old)(int) = signal(SIGCHLD, SIG_IGN);
    struct semel_pool *pool = pool_kit_make(&options);
    struct semel_result result;

    (void)state;
    assert_int_equal(pool_kit_call(pool, "exit", "3", &result), SEMEL_UNKNOWN);
    assert_non_null(strstr(result.text, "exit status is unavailable"));
    semel_result_clear(&result);
    assert_int_equal(pool_kit_number(pool, "square", "4"), 16);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    (void)signal(SIGCHLD, old);
    pool_kit_check_clean(before);
}

/* --- a parent that is killed ------------------------------------------------------------------ */

static void *call_hang(void *pool)
{
    (void)pool_kit_call(pool, "hang", "", NULL);
    return NULL;
}

/* In a process of its own: a pool at work, whose workers' numbers go into the pipe. */
static void be_parent(int out)
{
    struct semel_pool_options options = { .workers = 3 };
    struct semel_pool *pool = pool_kit_make(&options);
    struct semel_worker_info infos[8];
    pthread_t thread;
    size_t count;

    pool_kit_await_ready(pool);
    if (pthread_create(&thread, NULL, call_hang, pool) != 0)
        _exit(1);
    kit_sleep_ms(100);
    count = semel_pool_list(pool, infos, 8);
    for (size_t i = 0; i < count; i++)
        if (write(out, &infos[i].pid, sizeof infos[i].pid) != sizeof infos[i].pid)
            _exit(1);
    kit_sleep_ms(600000);
}

static bool is_gone(void *pid)
{
    return !pool_kit_lives(*(int *)pid);
}

static void test_killed_parent(void **state)
{
    int pipes[2], pids[3];
    pid_t parent;

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    parent = fork();
    if (parent == 0)
        be_parent(pipes[1]);
    close(pipes[1]); /* else its death in there would be waited for for ever */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(read(pipes[0], &pids[i], sizeof pids[i]), sizeof pids[i]);
        assert_true(pool_kit_lives(pids[i]));
    }
    assert_int_equal(kill(parent, SIGKILL), 0);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    for (int i = 0; i < 3; i++)
        assert_true(kit_eventually(is_gone, &pids[i], 30));
    close(pipes[0]);
}

/* --- restarts --------------------------------------------------------------------------------- */

struct seen {
    _Atomic unsigned kinds[8];
};

static void on_event(struct semel_pool *pool, const struct semel_worker_event *event, void *user)
{
    struct seen *seen = user;

    assert_non_null(pool);
    assert_non_null(event->text);
    atomic_fetch_add(&seen->kinds[event->kind], 1);
}

static void test_give_up(void **state)
{
    static const char *const arguments[] = { "false", NULL };
    struct seen seen = { 0 };
    struct semel_pool_options options = {
        .workers = 2,
        .program = "/bin/false",
        .arguments = arguments,
        .restart_min_ms = 1,
        .restart_max_ms = 4,
        .fast_deaths_max = 5,
        .on_event = on_event,
        .event_user = &seen,
    };
    struct pool_kit_before before = pool_kit_before();
    struct semel_pool *pool = pool_kit_make(&options);
    struct semel_worker_info infos[4];
    struct semel_result result;

    (void)state;
    assert_int_equal(pool_kit_call(pool, "echo", "", &result), SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_NO_WORKERS);
    semel_result_clear(&result);
    assert_int_equal(semel_pool_list(pool, infos, 4), 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(infos[i].state, SEMEL_WORKER_GIVEN_UP);
        assert_int_equal(infos[i].restarts, 5);
        assert_string_equal(infos[i].last_exit, "exited with code 1");
    }
    assert_int_equal(semel_pool_start(pool, "echo", semel_bytes(NULL, 0), NULL,
                                      (semel_done_fn)abort, NULL, NULL),
                     SEMEL_NO_WORKERS);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    pool_kit_check_clean(before);
    assert_int_equal(atomic_load(&seen.kinds[SEMEL_WORKER_STARTED]), 10);
    assert_int_equal(atomic_load(&seen.kinds[SEMEL_WORKER_DIED]), 10);
    assert_int_equal(atomic_load(&seen.kinds[SEMEL_WORKER_ABANDONED]), 2);
    assert_int_equal(atomic_load(&seen.kinds[SEMEL_WORKER_SERVES]), 0);
}

/* It says nothing at all. */
static void test_slow_start(void **state)
{
    static const char *const arguments[] = { "sleep", "600", NULL };
    struct semel_pool_options options = {
        .workers = 1,
        .program = "/bin/sleep",
        .arguments = arguments,
        .plain_arguments = true,
        .start_ms = 100,
        .restart_min_ms = 1,
        .fast_deaths_max = 2,
    };
    struct semel_pool *pool = pool_kit_make(&options);
    struct semel_worker_info info;
    struct semel_result result;

    (void)state;
    assert_int_equal(pool_kit_call(pool, "echo", "", &result), SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_NO_WORKERS);
    semel_result_clear(&result);
    assert_int_equal(semel_pool_list(pool, &info, 1), 1);
    assert_non_null(strstr(info.last_exit, "was cut off"));
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
}

static void test_recycle_calls(void **state)
{
    struct seen seen = { 0 };
    struct semel_pool_options options = {
        .workers = 1, .recycle_calls = 5, .on_event = on_event, .event_user = &seen
    };
    struct pool_kit_before before = pool_kit_before();
    struct semel_pool *pool = pool_kit_make(&options);
    struct semel_pool_counters counters;
    long last = 0, changes = 0;

    (void)state;
    for (int i = 0; i < 50; i++) {
        long pid = pool_kit_number(pool, "pid", "");

        changes += pid != last;
        last = pid;
    }
    assert_int_equal(changes, 10);
    semel_pool_counters(pool, &counters);
    assert_int_equal(counters.workers_recycled, 10);
    assert_int_equal(counters.workers_died, 0);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    assert_int_equal(atomic_load(&seen.kinds[SEMEL_WORKER_RECYCLED]), 10);
    pool_kit_check_clean(before);
}

static bool was_recycled(void *pool)
{
    struct semel_pool_counters counters;

    semel_pool_counters(pool, &counters);
    return counters.workers_recycled > 0;
}

static void test_recycle_memory(void **state)
{
    struct semel_pool_options options = { .workers = 1, .recycle_bytes = UINT64_C(1) << 30 };
    struct semel_pool *pool = pool_kit_make(&options);
    long first = pool_kit_number(pool, "leak", "1000");

    (void)state;
    kit_sleep_ms(300);
    assert_int_equal(pool_kit_number(pool, "pid", ""), first);
    (void)pool_kit_number(pool, "leak", "1100000000");
    assert_true(kit_eventually(was_recycled, pool, 60));
    assert_int_not_equal(pool_kit_number(pool, "pid", ""), first);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        { "R17 worker death: a thousand kills lose nothing", test_kills, NULL, NULL, NULL },
        cmocka_unit_test(test_reaping_host),
        cmocka_unit_test(test_ignoring_host),
        { "R9 stop: none is left of a parent that was killed", test_killed_parent, NULL, NULL,
          NULL },
        cmocka_unit_test(test_give_up),
        cmocka_unit_test(test_slow_start),
        cmocka_unit_test(test_recycle_calls),
        cmocka_unit_test(test_recycle_memory),
    };
    int code = pool_kit_main(argc, argv);

    if (code >= 0)
        return code;
    return cmocka_run_group_tests_name("keeper", tests, NULL, NULL);
}
