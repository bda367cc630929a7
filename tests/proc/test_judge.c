/* SPDX-License-Identifier: MIT */
/* What bad workers do to their calls, and that they do nothing to anybody else's. */
#include "proc/pool_kit.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Somebody else, whose calls go on all the while. */
struct bystander {
    pthread_t thread;
    struct semel_pool *pool;
    _Atomic bool over;
    _Atomic unsigned calls;
};

static void *stand_by(void *arg)
{
    struct bystander *self = arg;

    while (!atomic_load(&self->over)) {
        struct semel_result result;
        char text[32];

        snprintf(text, sizeof text, "%u", atomic_load(&self->calls) % 1000);
        if (pool_kit_call(self->pool, "square", text, &result) != SEMEL_VALUE)
            fail_msg("%s", result.text);
        semel_result_clear(&result);
        atomic_fetch_add(&self->calls, 1);
    }
    return NULL;
}

struct scene {
    struct pool_kit_before before;
    struct semel_pool *pool;
    struct bystander bystander;
};

static void begin(struct scene *scene, int64_t heartbeat_ms)
{
    struct semel_pool_options options = { .workers = 2, .heartbeat_ms = heartbeat_ms };

    scene->before = pool_kit_before();
    scene->pool = pool_kit_make(&options);
    pool_kit_await_ready(scene->pool);
    scene->bystander.pool = scene->pool;
    atomic_init(&scene->bystander.over, false);
    atomic_init(&scene->bystander.calls, 0);
    assert_int_equal(pthread_create(&scene->bystander.thread, NULL, stand_by, &scene->bystander),
                     0);
}

static bool calls_went_on(void *arg)
{
    struct scene *scene = arg;

    return atomic_load(&scene->bystander.calls) > 200;
}

static void end(struct scene *scene)
{
    atomic_store(&scene->bystander.calls, 0);
    assert_true(kit_eventually(calls_went_on, scene, 60));
    atomic_store(&scene->bystander.over, true);
    assert_int_equal(pthread_join(scene->bystander.thread, NULL), 0);
    assert_int_equal(semel_pool_destroy(scene->pool), SEMEL_OK);
    pool_kit_check_clean(scene->before);
}

static void check_unknown(struct semel_pool *pool, const char *method, const char *body,
                          const char *words)
{
    struct semel_result result;

    assert_int_equal(pool_kit_call(pool, method, body, &result), SEMEL_UNKNOWN);
    assert_int_equal(result.status, SEMEL_HANDLER_DIED);
    assert_non_null(result.text);
    if (!strstr(result.text, words))
        fail_msg("no \"%s\" in \"%s\"", words, result.text);
    semel_result_clear(&result);
}

static void test_lies(void **state)
{
    struct scene scene;

    (void)state;
    begin(&scene, 0);
    check_unknown(scene.pool, "write", "garbage", "was cut off: ");
    check_unknown(scene.pool, "write", "lie", "frame longer than allowed");
    check_unknown(scene.pool, "write", "half", "exited with code 7");
    end(&scene);
}

static void test_flood(void **state)
{
    struct semel_call_options options = { .deadline_ms = 300 };
    struct semel_result result;
    struct scene scene;

    (void)state;
    begin(&scene, 0);
    assert_int_equal(
        semel_pool_call(scene.pool, "write", semel_bytes_text("flood"), &options, &result),
        SEMEL_UNKNOWN);
    semel_result_clear(&result);
    end(&scene);
}

/* It lives, says nothing, and is not looked for anywhere else. */
static void test_closed(void **state)
{
    struct scene scene;

    (void)state;
    begin(&scene, 1000);
    check_unknown(scene.pool, "close", "", "was cut off: ");
    end(&scene);
}

static bool is_gone(void *pid)
{
    return !pool_kit_lives(*(long *)pid);
}

/* What a worker left behind holds the socket, but nobody waits for it. */
static void test_grandchild(void **state)
{
    struct semel_pool_options options = { .workers = 1 };
    struct pool_kit_before before = pool_kit_before();
    struct semel_pool *pool = pool_kit_make(&options);
    long child = pool_kit_number(pool, "fork", "");

    (void)state;
    assert_true(pool_kit_lives(child));
    check_unknown(pool, "exit", "1", "exited with code 1");
    assert_true(kit_eventually(is_gone, &child, 30));
    assert_int_equal(pool_kit_number(pool, "square", "3"), 9);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    pool_kit_check_clean(before);
}

static void test_too_large(void **state)
{
    struct semel_pool_options options = { .workers = 1, .body_bytes = 4096 };
    struct semel_pool *pool = pool_kit_make(&options);
    struct semel_result result;
    long pid = pool_kit_number(pool, "pid", "");

    (void)state;
    assert_int_equal(pool_kit_call(pool, "large", "4097", &result), SEMEL_FAILURE);
    assert_int_equal(result.code, 9);
    semel_result_clear(&result);
    assert_int_equal(pool_kit_call(pool, "large", "4096", &result), SEMEL_VALUE);
    assert_int_equal(result.body.size, 4096);
    semel_result_clear(&result);
    assert_int_equal(pool_kit_number(pool, "pid", ""), pid);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
}

static uint64_t worker_of(struct semel_pool *pool, long pid)
{
    struct semel_worker_info infos[64];
    size_t count = semel_pool_list(pool, infos, 64);

    for (size_t i = 0; i < count; i++)
        if (infos[i].pid == pid)
            return infos[i].worker;
    return 0;
}

struct victim {
    struct semel_pool *pool;
    long pid;
};

static bool has_a_call(void *arg)
{
    struct victim *victim = arg;
    struct semel_worker_info info;

    return semel_pool_list(victim->pool, &info, 1) == 1 && info.in_flight == 1;
}

static void *kill_with_call(void *arg)
{
    struct victim *victim = arg;

    assert_true(kit_eventually(has_a_call, victim, 30));
    kit_sleep_ms(100); /* it is sent by now, but for that it need not be */
    assert_int_equal(kill((pid_t)victim->pid, SIGKILL), 0);
    return NULL;
}

/* The worker is stopped, so that what is sent to it is not read. */
static void test_never_received(void **state)
{
    struct semel_pool_options options = { .workers = 1 };
    struct semel_pool *pool = pool_kit_make(&options);
    struct semel_pool_counters counters;
    struct victim victim = { pool, pool_kit_number(pool, "pid", "") };
    long second;
    pthread_t thread;

    (void)state;
    pool_kit_halt(victim.pid);
    assert_int_equal(pthread_create(&thread, NULL, kill_with_call, &victim), 0);
    second = pool_kit_number(pool, "pid", "");
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_not_equal(victim.pid, second);
    semel_pool_counters(pool, &counters);
    assert_int_equal(counters.calls_moved, 1);
    assert_int_equal(counters.unknown, 0);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
}

struct visit {
    struct semel_pool *pool;
    struct semel_call_options options;
    struct pool_kit_gate gate;
    struct semel_result result;
};

static void *call_gate(void *arg)
{
    struct visit *visit = arg;

    (void)semel_pool_call(visit->pool, "gate", semel_bytes_text(visit->gate.directory),
                          &visit->options, &visit->result);
    return NULL;
}

static struct semel_result kill_inside(bool rerun_ok, struct semel_pool_counters *out)
{
    struct semel_pool_options options = { .workers = 1 };
    struct visit visit = { .pool = pool_kit_make(&options), .options = { .rerun_ok = rerun_ok } };
    long pid = pool_kit_number(visit.pool, "pid", "");
    pthread_t thread;

    pool_kit_gate_make(&visit.gate);
    assert_int_equal(pthread_create(&thread, NULL, call_gate, &visit), 0);
    pool_kit_gate_await(&visit.gate);
    assert_int_equal(semel_pool_kill(visit.pool, worker_of(visit.pool, pid), true), SEMEL_OK);
    assert_true(kit_eventually(is_gone, &pid, 30));
    pool_kit_gate_open(&visit.gate);
    assert_int_equal(pthread_join(thread, NULL), 0);
    semel_pool_counters(visit.pool, out);
    assert_int_equal(semel_pool_destroy(visit.pool), SEMEL_OK);
    pool_kit_gate_remove(&visit.gate);
    return visit.result;
}

static void test_rerun(void **state)
{
    struct semel_pool_counters counters;
    struct semel_result result = kill_inside(true, &counters);

    (void)state;
    assert_int_equal(result.outcome, SEMEL_VALUE);
    assert_int_equal(counters.calls_rerun, 1);
    semel_result_clear(&result);
    result = kill_inside(false, &counters);
    assert_int_equal(result.outcome, SEMEL_UNKNOWN);
    assert_int_equal(result.status, SEMEL_HANDLER_DIED);
    assert_int_equal(counters.calls_rerun, 0);
    assert_int_equal(counters.workers_killed, 1);
    semel_result_clear(&result);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_closed),
        cmocka_unit_test(test_grandchild),
        { "R18 unencodable result: that call fails, its worker survives", test_too_large, NULL,
          NULL, NULL },
        { "R17 worker death: what it never received goes elsewhere", test_never_received, NULL,
          NULL, NULL },
        { "R17 worker death: runs again where the caller says so", test_rerun, NULL, NULL, NULL },
    };
    int code = pool_kit_main(argc, argv);

    if (code >= 0)
        return code;
    return cmocka_run_group_tests_name("judge", tests, NULL, NULL);
}
