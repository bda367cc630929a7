/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <errno.h>
#include <signal.h>

#include "os/thread.h"

static int creations_refused;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg)
{
    if (creations_refused > 0) {
        creations_refused--;
        return EAGAIN;
    }
    return __real_pthread_create(thread, attributes, run, arg);
}

struct seen {
    char name[16];
    sigset_t mask;
    size_t stack_bytes;
    struct sml_thread_id id;
};

static void look_around(void *arg)
{
    struct seen *seen = arg;
    pthread_attr_t attributes;
    void *stack;

    assert_int_equal(pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name)), 0);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, NULL, &seen->mask), 0);
    assert_int_equal(pthread_getattr_np(pthread_self(), &attributes), 0);
    assert_int_equal(pthread_attr_getstack(&attributes, &stack, &seen->stack_bytes), 0);
    (void)pthread_attr_destroy(&attributes);
    seen->id = sml_thread_self();
    sml_thread_yield();
}

static void threads_are_as_asked(void **state)
{
    struct sml_thread thread;
    struct seen seen;
    uintptr_t id;
    sigset_t mine;

    (void)state;
    assert_int_equal(
        sml_thread_create(&thread, "a name of 20 letters", 512 << 10, look_around, &seen),
        SEMEL_OK);
    id = (uintptr_t)thread.thread;
    sml_thread_join(&thread);
    assert_string_equal(seen.name, "a name of 20 le");
    assert_true(seen.stack_bytes >= 500 << 10);
    assert_true(seen.id.value == id);
    assert_true(seen.id.value != sml_thread_self().value);
    assert_int_equal(sigismember(&seen.mask, SIGTERM), 1);
    assert_int_equal(sigismember(&seen.mask, SIGPIPE), 1);
    assert_int_equal(sigismember(&seen.mask, SIGUSR1), 1);
    assert_int_equal(sigismember(&seen.mask, SIGSEGV), 0);
    /* The creator's own mask is as before. */
    assert_int_equal(pthread_sigmask(SIG_BLOCK, NULL, &mine), 0);
    assert_int_equal(sigismember(&mine, SIGTERM), 0);
}

static void no_more_threads_is_a_limit(void **state)
{
    struct sml_thread thread;
    struct seen seen;

    (void)state;
    creations_refused = 1;
    assert_int_equal(sml_thread_create(&thread, "x", 0, look_around, &seen), SEMEL_LIMIT);
    assert_int_equal(sml_thread_create(&thread, "x", 1, look_around, &seen), SEMEL_OK);
    sml_thread_join(&thread);
}

static void cores_are_those_allowed(void **state)
{
    cpu_set_t set;

    (void)state;
    assert_true(sml_thread_cores() >= 1);
    CPU_ZERO(&set);
    assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &set)) {
            CPU_ZERO(&set);
            CPU_SET(cpu, &set);
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof(set), &set), 0);
    assert_int_equal(sml_thread_cores(), 1);
}

struct in_loop {
    pthread_barrier_t barrier;
    bool elsewhere, after;
};

static void look_whether_in_loop(void *arg)
{
    struct in_loop *in_loop = arg;

    (void)pthread_barrier_wait(&in_loop->barrier); /* the other thread is inside a loop */
    in_loop->elsewhere = sml_thread_in_loop();
    sml_thread_enter_loop();
    sml_thread_leave_loop();
    in_loop->after = sml_thread_in_loop();
    (void)pthread_barrier_wait(&in_loop->barrier);
}

/* Each thread for itself, and loops inside of loops. */
static void a_thread_knows_that_it_is_in_a_loop(void **state)
{
    struct sml_thread thread;
    struct in_loop in_loop;

    (void)state;
    assert_int_equal(pthread_barrier_init(&in_loop.barrier, NULL, 2), 0);
    assert_int_equal(sml_thread_create(&thread, "x", 0, look_whether_in_loop, &in_loop), SEMEL_OK);
    assert_false(sml_thread_in_loop());
    sml_thread_enter_loop();
    assert_true(sml_thread_in_loop());
    (void)pthread_barrier_wait(&in_loop.barrier);
    (void)pthread_barrier_wait(&in_loop.barrier);
    sml_thread_join(&thread);
    assert_false(in_loop.elsewhere);
    assert_false(in_loop.after);
    sml_thread_enter_loop();
    sml_thread_leave_loop();
    assert_true(sml_thread_in_loop());
    sml_thread_leave_loop();
    assert_false(sml_thread_in_loop());
    assert_int_equal(pthread_barrier_destroy(&in_loop.barrier), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "threads are as asked", threads_are_as_asked, NULL, NULL, NULL },
        { "no more threads is a limit", no_more_threads_is_a_limit, NULL, NULL, NULL },
        { "a thread knows that it is in a loop", a_thread_knows_that_it_is_in_a_loop, NULL, NULL,
          NULL },
        { "cores are those allowed", cores_are_those_allowed, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
