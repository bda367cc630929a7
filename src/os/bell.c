/* SPDX-License-Identifier: MIT */
#include "os/bell.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "os/error.h"

enum semel_status sml_bell_open(struct sml_bell *bell)
{
    bell->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
    return bell->fd >= 0 ? SEMEL_OK : sml_error_status(errno);
}

void sml_bell_close(struct sml_bell *bell)
{
    if (bell->fd >= 0)
        (void)close(bell->fd);
    bell->fd = -1;
}

/* Whoever takes the ring may free the bell, so that only what failed is repeated: on a copy. */
void sml_bell_ring(const struct sml_bell *bell)
{
    static const uint64_t one = 1;
    int fd = bell->fd;
    int saved = errno; /* signal-safe */
    ssize_t n;

    do
        n = write(fd, &one, sizeof(one));
    while (n < 0 && errno == EINTR);
    errno = saved;
}

bool sml_bell_take(const struct sml_bell *bell)
{
    uint64_t count;
    ssize_t n;

    do
        n = read(bell->fd, &count, sizeof(count));
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof(count);
}

void sml_bell_await(const struct sml_bell *bell)
{
    while (!sml_bell_take(bell)) {
        struct pollfd watched = { bell->fd, POLLIN, 0 };

        (void)poll(&watched, 1, -1);
    }
}
