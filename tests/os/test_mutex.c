/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "os/clock.h"
#include "os/mutex.h"
#include "os/thread.h"

#define ROUNDS 10000

struct shared {
    struct sml_mutex mutex;
    struct sml_cond cond;
    /* mutex */
    int count;
    int turn;
};

static void count_up(void *arg)
{
    struct shared *shared = arg;

    for (int i = 0; i < ROUNDS; i++) {
        sml_mutex_lock(&shared->mutex);
        sml_mutex_assert_held(&shared->mutex);
        shared->count++;
        sml_mutex_unlock(&shared->mutex);
    }
}

static void mutex_excludes(void **state)
{
    struct shared shared = { .count = 0 };
    struct sml_thread threads[3];

    (void)state;
    sml_mutex_init(&shared.mutex);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sml_thread_create(&threads[i], "count", 0, count_up, &shared), SEMEL_OK);
    for (int i = 0; i < 3; i++)
        sml_thread_join(&threads[i]);
    assert_int_equal(shared.count, 3 * ROUNDS);
    assert_true(sml_mutex_try_lock(&shared.mutex));
    assert_false(sml_mutex_try_lock(&shared.mutex));
    sml_mutex_unlock(&shared.mutex);
    sml_mutex_fini(&shared.mutex);
}

static void take_turns(void *arg)
{
    struct shared *shared = arg;

    sml_mutex_lock(&shared->mutex);
    for (int i = 0; i < 100; i++) {
        while (shared->turn != 1)
            sml_cond_wait(&shared->cond, &shared->mutex);
        sml_mutex_assert_held(&shared->mutex);
        shared->turn = 0;
        sml_cond_broadcast(&shared->cond);
    }
    sml_mutex_unlock(&shared->mutex);
}

static void condition_wakes(void **state)
{
    struct shared shared = { .turn = 0 };
    struct sml_thread thread;

    (void)state;
    sml_mutex_init(&shared.mutex);
    sml_cond_init(&shared.cond);
    assert_int_equal(sml_thread_create(&thread, "turns", 0, take_turns, &shared), SEMEL_OK);
    sml_mutex_lock(&shared.mutex);
    for (int i = 0; i < 100; i++) {
        shared.turn = 1;
        sml_cond_broadcast(&shared.cond);
        while (shared.turn != 0)
            assert_true(sml_cond_wait_until(&shared.cond, &shared.mutex,
                                            i % 2 ? SML_NEVER : sml_clock_now() + 60 * SML_SECOND));
    }
    sml_mutex_unlock(&shared.mutex);
    sml_thread_join(&thread);
    sml_cond_fini(&shared.cond);
    sml_mutex_fini(&shared.mutex);
}

static void condition_times_out(void **state)
{
    struct shared shared;
    uint64_t deadline = sml_clock_now() + 2 * SML_MS;

    (void)state;
    sml_mutex_init(&shared.mutex);
    sml_cond_init(&shared.cond);
    sml_mutex_lock(&shared.mutex);
    while (sml_cond_wait_until(&shared.cond, &shared.mutex, deadline))
        continue;
    assert_true(sml_clock_now() >= deadline);
    sml_mutex_assert_held(&shared.mutex);
    sml_mutex_unlock(&shared.mutex);
    sml_cond_fini(&shared.cond);
    sml_mutex_fini(&shared.mutex);
}

/* In a child, because it aborts there. */
static void missing_lock_is_noticed(void **state)
{
#ifdef NDEBUG
    (void)state;
    skip();
#else
    pid_t child = fork();
    int status;

    (void)state;
    assert_true(child >= 0);
    if (child == 0) {
        const struct rlimit none = { 0, 0 };
        struct sml_mutex mutex;

        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGABRT, SIG_DFL);
        (void)close(STDERR_FILENO);
        sml_mutex_init(&mutex);
        sml_mutex_assert_held(&mutex);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "mutex excludes", mutex_excludes, NULL, NULL, NULL },
        { "condition wakes", condition_wakes, NULL, NULL, NULL },
        { "condition times out", condition_times_out, NULL, NULL, NULL },
        { "missing lock is noticed", missing_lock_is_noticed, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
