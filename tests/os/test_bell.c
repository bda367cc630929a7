/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>

#include "os/bell.h"
#include "os/thread.h"

static int interrupted; /* calls that are still to fail with EINTR */

ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);
ssize_t __real_read(int fd, void *data, size_t size);
ssize_t __wrap_read(int fd, void *data, size_t size);

static bool is_interrupted(size_t size)
{
    if (size != sizeof(uint64_t) || interrupted == 0)
        return false;
    interrupted--;
    errno = EINTR;
    return true;
}

ssize_t __wrap_write(int fd, const void *data, size_t size)
{
    return is_interrupted(size) ? -1 : __real_write(fd, data, size);
}

ssize_t __wrap_read(int fd, void *data, size_t size)
{
    return is_interrupted(size) ? -1 : __real_read(fd, data, size);
}

static bool readable(const struct sml_bell *bell)
{
    struct pollfd watched = { bell->fd, POLLIN, 0 };

    return poll(&watched, 1, 0) == 1;
}

static void every_ring_is_taken_by_one(void **state)
{
    struct sml_bell bell;

    (void)state;
    assert_int_equal(sml_bell_open(&bell), SEMEL_OK);
    assert_true(fcntl(bell.fd, F_GETFD) & FD_CLOEXEC);
    assert_false(readable(&bell));
    assert_false(sml_bell_take(&bell));
    errno = 77;
    for (int i = 0; i < 3; i++) {
        interrupted = 1;
        sml_bell_ring(&bell);
        assert_int_equal(interrupted, 0);
    }
    assert_int_equal(errno, 77);
    for (int i = 0; i < 3; i++) {
        assert_true(readable(&bell));
        interrupted = 1;
        assert_true(sml_bell_take(&bell));
    }
    assert_false(readable(&bell));
    assert_false(sml_bell_take(&bell));
    sml_bell_close(&bell);
    sml_bell_close(&bell);
}

static void ring(void *bell)
{
    sml_bell_ring(bell);
}

static void a_ring_that_is_under_way_is_waited_for(void **state)
{
    struct sml_bell bell;
    struct sml_thread thread;

    (void)state;
    assert_int_equal(sml_bell_open(&bell), SEMEL_OK);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(sml_thread_create(&thread, "ring", 0, ring, &bell), SEMEL_OK);
        sml_bell_await(&bell);
        assert_false(readable(&bell));
        sml_thread_join(&thread);
    }
    sml_bell_close(&bell);
}

static void no_descriptors_is_a_limit(void **state)
{
    struct rlimit limit, none;
    struct sml_bell bell;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(sml_bell_open(&bell), SEMEL_LIMIT);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    sml_bell_close(&bell);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_ring_is_taken_by_one),
        cmocka_unit_test(a_ring_that_is_under_way_is_waited_for),
        cmocka_unit_test(no_descriptors_is_a_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
