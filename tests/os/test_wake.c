/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "os/clock.h"
#include "os/thread.h"
#include "os/wake.h"

static _Atomic int writes;

ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);

ssize_t __wrap_write(int fd, const void *data, size_t size)
{
    if (size == sizeof(uint64_t) && atomic_fetch_add(&writes, 1) == 0) {
        errno = EINTR; /* the first one */
        return -1;
    }
    return __real_write(fd, data, size);
}

static bool readable(const struct sml_wake *wake)
{
    struct pollfd watched = { wake->fd, POLLIN, 0 };

    return poll(&watched, 1, 0) == 1;
}

static void signals_are_merged(void **state)
{
    struct sml_wake wake;

    (void)state;
    assert_int_equal(sml_wake_open(&wake), SEMEL_OK);
    assert_true(fcntl(wake.fd, F_GETFD) & FD_CLOEXEC);
    assert_false(readable(&wake));
    sml_wake_drain(&wake);
    errno = 77;
    for (int i = 0; i < 10; i++)
        sml_wake_signal(&wake);
    assert_int_equal(errno, 77);
    assert_int_equal(writes, 2); /* one, and its repetition after EINTR */
    assert_true(readable(&wake));
    sml_wake_drain(&wake);
    assert_false(readable(&wake));
    sml_wake_signal(&wake);
    assert_int_equal(writes, 3);
    assert_true(readable(&wake));
    sml_wake_close(&wake);
    sml_wake_close(&wake);
}

#define ITEMS 20000

struct traffic {
    struct sml_wake wake;
    _Atomic uint32_t published;
};

static void publish(void *arg)
{
    struct traffic *traffic = arg;

    for (int i = 0; i < ITEMS; i++) {
        atomic_fetch_add_explicit(&traffic->published, 1, memory_order_release);
        sml_wake_signal(&traffic->wake);
    }
}

/* Drain, then look: whoever does so never sleeps through work. A lost signal hangs this test. */
static void no_signal_is_lost(void **state)
{
    struct traffic traffic;
    struct sml_thread threads[2];
    uint32_t seen = 0;

    (void)state;
    assert_int_equal(sml_wake_open(&traffic.wake), SEMEL_OK);
    atomic_init(&traffic.published, 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(sml_thread_create(&threads[i], "publish", 0, publish, &traffic), SEMEL_OK);
    while (seen < 2 * ITEMS) {
        struct pollfd watched = { traffic.wake.fd, POLLIN, 0 };

        assert_int_equal(poll(&watched, 1, 20000), 1);
        sml_wake_drain(&traffic.wake);
        seen = atomic_load_explicit(&traffic.published, memory_order_acquire);
    }
    for (int i = 0; i < 2; i++)
        sml_thread_join(&threads[i]);
    sml_wake_close(&traffic.wake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "signals are merged", signals_are_merged, NULL, NULL, NULL },
        { "no signal is lost", no_signal_is_lost, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
