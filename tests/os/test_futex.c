/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include "os/clock.h"
#include "os/futex.h"
#include "os/thread.h"

static void wait_says_why_it_returned(void **state)
{
    _Atomic uint32_t word = 5;
    uint64_t deadline = sml_clock_now() + 2 * SML_MS;
    enum sml_futex_result result;

    (void)state;
    assert_int_equal(sml_futex_wait(&word, 4, SML_NEVER), SML_FUTEX_CHANGED);
    do
        result = sml_futex_wait(&word, 5, deadline);
    while (result == SML_FUTEX_WOKEN);
    assert_int_equal(result, SML_FUTEX_TIMED_OUT);
    assert_true(sml_clock_now() >= deadline);
    assert_int_equal(sml_futex_wait(&word, 5, 1), SML_FUTEX_TIMED_OUT);
}

#define SLEEPERS 4

struct gate {
    _Atomic uint32_t open;
    _Atomic uint32_t through;
};

static void pass(void *arg)
{
    struct gate *gate = arg;

    while (atomic_load_explicit(&gate->open, memory_order_acquire) == 0)
        (void)sml_futex_wait(&gate->open, 0, SML_NEVER);
    atomic_fetch_add(&gate->through, 1);
}

static void wake_reaches_sleepers(void **state)
{
    struct gate gate = { 0, 0 };
    struct sml_thread threads[SLEEPERS];

    (void)state;
    for (int i = 0; i < SLEEPERS; i++)
        assert_int_equal(sml_thread_create(&threads[i], "sleeper", 0, pass, &gate), SEMEL_OK);
    (void)usleep(2000); /* most of them sleep by now; the outcome does not depend on it */
    assert_int_equal(atomic_load(&gate.through), 0);
    atomic_store_explicit(&gate.open, 1, memory_order_release);
    sml_futex_wake(&gate.open, SLEEPERS);
    for (int i = 0; i < SLEEPERS; i++)
        sml_thread_join(&threads[i]);
    assert_int_equal(atomic_load(&gate.through), SLEEPERS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "wait says why it returned", wait_says_why_it_returned, NULL, NULL, NULL },
        { "wake reaches sleepers", wake_reaches_sleepers, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
