/* SPDX-License-Identifier: MIT */
/* epoll.c - deadlines in nanoseconds over epoll_pwait2, in milliseconds rounded up without it.
 *
 * `changes` is written before each addition and read after each wait. The kernel orders the two
 * anyway; the variable says so to the memory model, and to tools that check it. */
#include "os/epoll.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include "base/check.h"
#include "os/clock.h"
#include "os/error.h"

enum semel_status sml_epoll_open(struct sml_epoll *epoll)
{
    epoll->fd = epoll_create1(EPOLL_CLOEXEC);
    atomic_init(&epoll->coarse, false);
    atomic_init(&epoll->changes, 0);
    return epoll->fd >= 0 ? SEMEL_OK : sml_error_status(errno);
}

void sml_epoll_close(struct sml_epoll *epoll)
{
    if (epoll->fd >= 0)
        (void)close(epoll->fd);
    epoll->fd = -1;
}

static int control(struct sml_epoll *epoll, int operation, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = { .events = events, .data.u64 = data };

    atomic_fetch_add_explicit(&epoll->changes, 1, memory_order_release);
    return epoll_ctl(epoll->fd, operation, fd, &event) == 0 ? 0 : errno;
}

enum semel_status sml_epoll_add(struct sml_epoll *epoll, int fd, uint32_t events, uint64_t data)
{
    int error = control(epoll, EPOLL_CTL_ADD, fd, events, data);

    switch (error) {
    case 0:
        return SEMEL_OK;
    case EEXIST:
        return SEMEL_ALREADY;
    case ENOSPC: /* /proc/sys/fs/epoll/max_user_watches */
        return SEMEL_LIMIT;
    case ENOMEM:
        return SEMEL_NO_MEMORY;
    default:
        return SEMEL_INVALID;
    }
}

enum semel_status sml_epoll_try_modify(struct sml_epoll *epoll, int fd, uint32_t events,
                                       uint64_t data)
{
    int error = control(epoll, EPOLL_CTL_MOD, fd, events, data);

    return error == 0 ? SEMEL_OK : error == ENOMEM ? SEMEL_NO_MEMORY : SEMEL_INVALID;
}

void sml_epoll_modify(struct sml_epoll *epoll, int fd, uint32_t events, uint64_t data)
{
    int error = control(epoll, EPOLL_CTL_MOD, fd, events, data);

    SML_ASSERT(error == 0 || error == ENOMEM);
}

void sml_epoll_remove(struct sml_epoll *epoll, int fd)
{
    (void)control(epoll, EPOLL_CTL_DEL, fd, 0, 0);
}

bool sml_epoll_is_ready(const struct sml_epoll *epoll)
{
    struct pollfd watched = { epoll->fd, POLLIN, 0 };
    int count;

    do
        count = poll(&watched, 1, 0);
    while (count < 0 && errno == EINTR);
    return count > 0;
}

static int wait_coarse(struct sml_epoll *epoll, struct epoll_event *out_events, int count_max,
                       uint64_t span)
{
    uint64_t ms = span == SML_NEVER ? 0 : sml_time_ms_until(span, 0);
    int timeout = span == SML_NEVER ? -1 : ms > INT_MAX ? INT_MAX : (int)ms;

    return epoll_wait(epoll->fd, out_events, count_max, timeout);
}

static int wait_fine(struct sml_epoll *epoll, struct epoll_event *out_events, int count_max,
                     uint64_t span)
{
    struct timespec timeout = sml_clock_timespec(span);
    int count;

    count =
        epoll_pwait2(epoll->fd, out_events, count_max, span == SML_NEVER ? NULL : &timeout, NULL);
    /* Old kernels do not know it; old sandboxes refuse what they do not know. */
    if (count < 0 && (errno == ENOSYS || errno == EPERM)) {
        atomic_store_explicit(&epoll->coarse, true, memory_order_relaxed);
        return wait_coarse(epoll, out_events, count_max, span);
    }
    return count;
}

int sml_epoll_wait(struct sml_epoll *epoll, struct epoll_event *out_events, int count_max,
                   uint64_t deadline_ns)
{
    for (;;) {
        uint64_t span = deadline_ns;
        int count;

        if (deadline_ns != 0 && deadline_ns != SML_NEVER) {
            uint64_t now = sml_clock_now();
            span = deadline_ns > now ? deadline_ns - now : 0;
        }
        /* Without a span to be exact about, the older call serves everywhere. */
        if (span == 0 || span == SML_NEVER ||
            atomic_load_explicit(&epoll->coarse, memory_order_relaxed))
            count = wait_coarse(epoll, out_events, count_max, span);
        else
            count = wait_fine(epoll, out_events, count_max, span);
        SML_ASSERT(count >= 0 || errno == EINTR);
        (void)atomic_load_explicit(&epoll->changes, memory_order_acquire);
        if (count >= 0)
            return count;
    }
}
