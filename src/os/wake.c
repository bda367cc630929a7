/* SPDX-License-Identifier: MIT */
/* wake.c - an eventfd and a flag.
 *
 * pending = 1 means: a write is on its way or in the eventfd, or the waiter has yet to come out of
 * a drain after which it looks at the work. The waiter reads first and clears the flag second: a
 * signal between the two finds 1, writes nothing, and is seen by the look at the work that
 * follows, which the exchange orders. Clearing first would be wrong: the read could swallow the
 * write of a newer signal and leave the flag at 1 over an empty eventfd for ever. */
#include "os/wake.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "os/error.h"

enum semel_status sml_wake_open(struct sml_wake *wake)
{
    wake->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    atomic_init(&wake->pending, 0);
    return wake->fd >= 0 ? SEMEL_OK : sml_error_status(errno);
}

void sml_wake_close(struct sml_wake *wake)
{
    if (wake->fd >= 0)
        (void)close(wake->fd);
    wake->fd = -1;
}

void sml_wake_write(struct sml_wake *wake)
{
    static const uint64_t one = 1;
    int saved = errno; /* signal-safe */
    ssize_t n;

    /* EAGAIN would mean a full counter, which is readable: as good as written. */
    do
        n = write(wake->fd, &one, sizeof(one));
    while (n < 0 && errno == EINTR);
    errno = saved;
}

void sml_wake_drain(struct sml_wake *wake)
{
    uint64_t count;
    ssize_t n;

    do
        n = read(wake->fd, &count, sizeof(count));
    while (n < 0 && errno == EINTR);
    (void)atomic_exchange_explicit(&wake->pending, 0, memory_order_acq_rel);
}
