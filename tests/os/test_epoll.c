/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "os/clock.h"
#include "os/epoll.h"

static int interruptions; /* EINTRs still to be injected */
static int waits_refused; /* epoll_pwait2 does not exist */

int __real_epoll_wait(int fd, struct epoll_event *events, int max, int timeout);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout);
int __real_epoll_pwait2(int fd, struct epoll_event *events, int max, const struct timespec *span,
                        const sigset_t *mask);
int __wrap_epoll_pwait2(int fd, struct epoll_event *events, int max, const struct timespec *span,
                        const sigset_t *mask);

static int last_coarse_ms;

int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout)
{
    if (interruptions > 0) {
        interruptions--;
        errno = EINTR;
        return -1;
    }
    last_coarse_ms = timeout;
    return __real_epoll_wait(fd, events, max, timeout);
}

int __wrap_epoll_pwait2(int fd, struct epoll_event *events, int max, const struct timespec *span,
                        const sigset_t *mask)
{
    if (waits_refused) {
        errno = ENOSYS;
        return -1;
    }
    if (interruptions > 0) {
        interruptions--;
        errno = EINTR;
        return -1;
    }
    return __real_epoll_pwait2(fd, events, max, span, mask);
}

static void events_carry_their_data(void **state)
{
    struct sml_epoll epoll;
    struct epoll_event events[4];
    int fd = eventfd(0, EFD_NONBLOCK);
    uint64_t one = 1;

    (void)state;
    assert_int_equal(sml_epoll_open(&epoll), SEMEL_OK);
    assert_true(fcntl(epoll.fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(sml_epoll_add(&epoll, fd, SML_POLL_IN, UINT64_C(0xfedcba9876543210)),
                     SEMEL_OK);
    assert_int_equal(sml_epoll_add(&epoll, fd, SML_POLL_IN, 1), SEMEL_ALREADY);
    assert_int_equal(sml_epoll_wait(&epoll, events, 4, 0), 0);
    assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
    interruptions = 3;
    assert_int_equal(sml_epoll_wait(&epoll, events, 4, SML_NEVER), 1);
    assert_int_equal(interruptions, 0);
    assert_int_equal(events[0].events, SML_POLL_IN);
    assert_true(events[0].data.u64 == UINT64_C(0xfedcba9876543210));
    sml_epoll_modify(&epoll, fd, SML_POLL_OUT, 7);
    assert_int_equal(sml_epoll_wait(&epoll, events, 4, 0), 1);
    assert_int_equal(events[0].events, SML_POLL_OUT);
    assert_true(events[0].data.u64 == 7);
    sml_epoll_remove(&epoll, fd);
    sml_epoll_remove(&epoll, fd);
    assert_int_equal(sml_epoll_wait(&epoll, events, 4, 0), 0);
    (void)close(fd);
    assert_int_equal(sml_epoll_add(&epoll, fd, SML_POLL_IN, 1), SEMEL_INVALID);
    sml_epoll_close(&epoll);
    sml_epoll_close(&epoll);
}

static void a_modification_may_be_tried(void **state)
{
    struct sml_epoll epoll;
    struct epoll_event event;
    int fd = eventfd(0, EFD_NONBLOCK);

    (void)state;
    assert_int_equal(sml_epoll_open(&epoll), SEMEL_OK);
    assert_int_equal(sml_epoll_try_modify(&epoll, fd, SML_POLL_OUT, 1), SEMEL_INVALID);
    assert_int_equal(sml_epoll_add(&epoll, fd, SML_POLL_IN, 1), SEMEL_OK);
    assert_false(sml_epoll_is_ready(&epoll));
    assert_int_equal(sml_epoll_try_modify(&epoll, fd, SML_POLL_OUT, 2), SEMEL_OK);
    assert_true(sml_epoll_is_ready(&epoll));
    assert_true(sml_epoll_is_ready(&epoll)); /* it stays */
    assert_int_equal(sml_epoll_wait(&epoll, &event, 1, 0), 1);
    assert_true(event.data.u64 == 2);
    (void)close(fd);
    assert_int_equal(sml_epoll_try_modify(&epoll, fd, SML_POLL_OUT, 3), SEMEL_INVALID);
    sml_epoll_close(&epoll);
}

static void deadlines_are_waited_for(void **state)
{
    struct sml_epoll epoll;
    struct epoll_event event;
    uint64_t deadline;

    (void)state;
    assert_int_equal(sml_epoll_open(&epoll), SEMEL_OK);
    for (waits_refused = 0; waits_refused < 2; waits_refused++) {
        deadline = sml_clock_now() + 3 * SML_MS + 1;
        interruptions = 2;
        assert_int_equal(sml_epoll_wait(&epoll, &event, 1, deadline), 0);
        assert_true(sml_clock_now() >= deadline);
        /* A time that has passed. */
        assert_int_equal(sml_epoll_wait(&epoll, &event, 1, 1), 0);
    }
    /* Without the exact call, milliseconds are rounded up. */
    assert_true(atomic_load(&epoll.coarse));
    assert_int_equal(sml_epoll_wait(&epoll, &event, 1, sml_clock_now() + SML_MS / 2), 0);
    assert_int_equal(last_coarse_ms, 1);
    waits_refused = 0;
    sml_epoll_close(&epoll);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "events carry their data", events_carry_their_data, NULL, NULL, NULL },
        { "a modification may be tried", a_modification_may_be_tried, NULL, NULL, NULL },
        { "deadlines are waited for", deadlines_are_waited_for, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
