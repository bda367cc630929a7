/* SPDX-License-Identifier: MIT */
#include "inject.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define FDS_MAX 8

static int chosen[FDS_MAX];
static _Atomic int chosen_count;
static _Atomic size_t limit;
static _Atomic unsigned turn;
static _Atomic int errors;
static _Atomic int counted_fd = -1, counted;

void inject_start(const int *fds, int count, size_t bytes_max)
{
    for (int i = 0; i < count && i < FDS_MAX; i++)
        chosen[i] = fds[i];
    atomic_store(&errors, 0);
    atomic_store(&turn, 0);
    atomic_store(&limit, bytes_max);
    atomic_store(&chosen_count, count);
}

void inject_stop(void)
{
    atomic_store(&chosen_count, 0);
}

int inject_errors(void)
{
    return atomic_load(&errors);
}

void inject_count_start(int fd)
{
    atomic_store(&counted, 0);
    atomic_store(&counted_fd, fd);
}

int inject_count(void)
{
    return atomic_load(&counted);
}

static bool is_chosen(int fd)
{
    int count = atomic_load(&chosen_count);

    for (int i = 0; i < count; i++) {
        if (chosen[i] == fd)
            return true;
    }
    return false;
}

ssize_t inject_allow(int fd, size_t size)
{
    unsigned now;
    size_t most;

    if (fd == atomic_load(&counted_fd))
        atomic_fetch_add(&counted, 1);
    if (!is_chosen(fd))
        return (ssize_t)size;
    now = atomic_fetch_add(&turn, 1);
    if (now % 4 < 2) {
        atomic_fetch_add(&errors, 1);
        errno = now % 4 == 0 ? EINTR : EAGAIN;
        return -1;
    }
    most = 1 + (now * UINT32_C(2654435761) >> 8) % atomic_load(&limit);
    return (ssize_t)(size < most ? size : most);
}

ssize_t __real_recv(int fd, void *out, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *out, size_t size, int flags);
ssize_t __real_read(int fd, void *out, size_t size);
ssize_t __wrap_read(int fd, void *out, size_t size);
ssize_t __real_send(int fd, const void *data, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t size, int flags);
ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);

ssize_t __wrap_recv(int fd, void *out, size_t size, int flags)
{
    ssize_t n = inject_allow(fd, size);

    return n < 0 ? n : __real_recv(fd, out, (size_t)n, flags);
}

ssize_t __wrap_read(int fd, void *out, size_t size)
{
    ssize_t n = inject_allow(fd, size);

    return n < 0 ? n : __real_read(fd, out, (size_t)n);
}

ssize_t __wrap_send(int fd, const void *data, size_t size, int flags)
{
    ssize_t n = inject_allow(fd, size);

    return n < 0 ? n : __real_send(fd, data, (size_t)n, flags);
}

/* Of all pieces together so many bytes. */
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct iovec pieces[64];
    struct msghdr less = *message;
    size_t size = 0, left;
    ssize_t n;

    for (size_t i = 0; i < message->msg_iovlen; i++)
        size += message->msg_iov[i].iov_len;
    n = inject_allow(fd, size);
    if (n < 0)
        return n;
    left = (size_t)n;
    less.msg_iov = pieces;
    less.msg_iovlen = 0;
    for (size_t i = 0; left > 0; i++) {
        pieces[i] = message->msg_iov[i];
        if (pieces[i].iov_len > left)
            pieces[i].iov_len = left;
        left -= pieces[i].iov_len;
        less.msg_iovlen++;
    }
    return __real_sendmsg(fd, &less, flags);
}

ssize_t __wrap_write(int fd, const void *data, size_t size)
{
    ssize_t n = inject_allow(fd, size);

    return n < 0 ? n : __real_write(fd, data, (size_t)n);
}
