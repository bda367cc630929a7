/* SPDX-License-Identifier: MIT */
/* channel.c - what all channels share, sockets, and descriptors that are not sockets.
 *
 * Sockets: MSG_DONTWAIT per call instead of O_NONBLOCK, MSG_NOSIGNAL against SIGPIPE; one system
 * call per operation. A receive that may wait relies on SO_RCVTIMEO, set once to one tick, so that
 * a lone caller pays one system call per reply and still meets its deadline: in the last tick
 * before it, the wait is a poll with the exact time.
 *
 * Descriptors that are not sockets (pipes, terminals) need O_NONBLOCK, have no shutdown and raise
 * SIGPIPE. O_NONBLOCK is set on the file. A flag and an eventfd stand for shutdown. SIGPIPE is
 * kept from the host without touching its handlers: blocked in this thread around the write and,
 * if it came from our write, taken out again before the mask is restored (three system calls per
 * write; only here).
 *
 * Rejected: dup'ing a dead end over a pipe at shutdown to wake its pollers (a poll in progress
 * holds the old file and does not wake). */
#include "io/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/check.h"
#include "os/clock.h"

enum semel_status sml_io_status(struct sml_io io)
{
    SML_ASSERT(io.kind == SML_IO_ENDED || io.kind == SML_IO_BROKEN);
    return io.kind == SML_IO_ENDED ? SEMEL_PEER_DIED : sml_error_status(io.error);
}

const char *sml_io_text(struct sml_io io)
{
    return io.kind == SML_IO_ENDED ? "end of file" : sml_error_text(io.error);
}

static struct sml_io broken(int error)
{
    return (struct sml_io){ 0, SML_IO_BROKEN, error };
}

struct sml_io sml_channel_write_each(struct sml_channel *channel, const struct semel_bytes *pieces,
                                     size_t count)
{
    size_t moved = 0;

    for (size_t i = 0; i < count; i++) {
        struct sml_io io = sml_channel_write(channel, pieces[i].data, pieces[i].size);

        if (io.kind != SML_IO_MOVED)
            return moved > 0 ? (struct sml_io){ moved, SML_IO_MOVED, 0 } : io;
        moved += io.bytes;
        if (io.bytes < pieces[i].size)
            break;
    }
    return (struct sml_io){ moved, SML_IO_MOVED, 0 };
}

static const struct sml_io again = { 0, SML_IO_AGAIN, 0 };

/* Of a system call that returned -1, EINTR apart. */
static struct sml_io failed(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK ? again : broken(error);
}

/* Of a read that returned 0 or more. */
static struct sml_io received(ssize_t n)
{
    return (struct sml_io){ (size_t)n, n > 0 ? SML_IO_MOVED : SML_IO_ENDED, 0 };
}

static struct sml_io sent(ssize_t n)
{
    return (struct sml_io){ (size_t)n, SML_IO_MOVED, 0 };
}

/* ---- sockets ---- */

static struct sml_io socket_read(struct sml_channel *channel, void *out, size_t size)
{
    for (;;) {
        ssize_t n = recv(channel->fd_read, out, size, MSG_DONTWAIT);

        if (SML_LIKELY(n >= 0))
            return received(n);
        if (errno != EINTR)
            return failed(errno);
    }
}

static struct sml_io socket_read_wait(struct sml_channel *channel, void *out, size_t size,
                                      uint64_t deadline_ns)
{
    uint64_t now = sml_clock_now();
    uint64_t tick = sml_time_add(now, SML_CHANNEL_TICK_MS * SML_MS);
    ssize_t n;

    if (!channel->may_block || deadline_ns < tick) {
        (void)sml_channel_wait_readable(channel, -1, sml_time_min(deadline_ns, tick));
        return socket_read(channel, out, size);
    }
    /* EAGAIN after one tick. An interruption is one of the early returns that callers expect. */
    n = recv(channel->fd_read, out, size, 0);
    if (SML_LIKELY(n >= 0))
        return received(n);
    return errno == EINTR ? again : failed(errno);
}

static struct sml_io socket_write(struct sml_channel *channel, const void *data, size_t size)
{
    for (;;) {
        ssize_t n = send(channel->fd_write, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (SML_LIKELY(n >= 0))
            return sent(n);
        if (errno != EINTR)
            return failed(errno);
    }
}

/* As the system wants them. */
static size_t vector(struct iovec *out, const struct semel_bytes *pieces, size_t count)
{
    SML_ASSERT(count <= SML_PIECES);
    for (size_t i = 0; i < count; i++)
        out[i] = (struct iovec){ (void *)(uintptr_t)pieces[i].data, pieces[i].size };
    return count;
}

static struct sml_io socket_write_pieces(struct sml_channel *channel,
                                         const struct semel_bytes *pieces, size_t count)
{
    struct iovec vectors[SML_PIECES];
    struct msghdr message = { .msg_iov = vectors, .msg_iovlen = vector(vectors, pieces, count) };

    for (;;) {
        ssize_t n = sendmsg(channel->fd_write, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (SML_LIKELY(n >= 0))
            return sent(n);
        if (errno != EINTR)
            return failed(errno);
    }
}

static void socket_shutdown(struct sml_channel *channel)
{
    (void)shutdown(channel->fd_read, SHUT_RDWR);
    if (channel->fd_write != channel->fd_read)
        (void)shutdown(channel->fd_write, SHUT_RDWR);
}

static void socket_shutdown_write(struct sml_channel *channel)
{
    (void)shutdown(channel->fd_write, SHUT_WR);
}

static void descriptors_close(struct sml_channel *channel)
{
    (void)close(channel->fd_read);
    if (channel->fd_write != channel->fd_read)
        (void)close(channel->fd_write);
    if (channel->fd_wake >= 0)
        (void)close(channel->fd_wake);
}

static const struct sml_channel_ops socket_ops = {
    .read = socket_read,
    .read_wait = socket_read_wait,
    .write = socket_write,
    .write_pieces = socket_write_pieces,
    .shutdown = socket_shutdown,
    .shutdown_write = socket_shutdown_write,
    .close = descriptors_close,
};

/* ---- pipes and the like ---- */

static bool is_shut(const struct sml_channel *channel)
{
    return atomic_load_explicit(&channel->shut, memory_order_acquire);
}

static struct sml_io stream_read(struct sml_channel *channel, void *out, size_t size)
{
    if (is_shut(channel))
        return received(0);
    for (;;) {
        ssize_t n = read(channel->fd_read, out, size);

        if (SML_LIKELY(n >= 0))
            return received(n);
        if (errno == EIO) /* a terminal that was hung up */
            return received(0);
        if (errno != EINTR)
            return failed(errno);
    }
}

static struct sml_io stream_read_wait(struct sml_channel *channel, void *out, size_t size,
                                      uint64_t deadline_ns)
{
    uint64_t tick = sml_time_add(sml_clock_now(), SML_CHANNEL_TICK_MS * SML_MS);

    (void)sml_channel_wait_readable(channel, -1, sml_time_min(deadline_ns, tick));
    return stream_read(channel, out, size);
}

/* What SIGPIPE was like in this thread before a write. */
struct pipe_guard {
    sigset_t before;
    bool was_blocked, was_pending;
};

static void guard_enter(struct pipe_guard *guard, const sigset_t *sigpipe)
{
    sigset_t pending;

    (void)pthread_sigmask(SIG_BLOCK, sigpipe, &guard->before);
    guard->was_blocked = sigismember(&guard->before, SIGPIPE) == 1;
    guard->was_pending = false;
    /* Only where it was blocked can one have been left pending by somebody else. */
    if (guard->was_blocked && sigpending(&pending) == 0)
        guard->was_pending = sigismember(&pending, SIGPIPE) == 1;
}

static void guard_leave(const struct pipe_guard *guard, const sigset_t *sigpipe, bool raised)
{
    static const struct timespec at_once = { 0, 0 };

    if (raised && !guard->was_pending) {
        while (sigtimedwait(sigpipe, NULL, &at_once) < 0 && errno == EINTR)
            continue;
    }
    if (!guard->was_blocked)
        (void)pthread_sigmask(SIG_SETMASK, &guard->before, NULL);
}

static struct sml_io stream_write(struct sml_channel *channel, const void *data, size_t size)
{
    struct pipe_guard guard;
    sigset_t sigpipe;
    ssize_t n;
    int error;

    if (is_shut(channel))
        return broken(EPIPE);
    (void)sigemptyset(&sigpipe);
    (void)sigaddset(&sigpipe, SIGPIPE);
    guard_enter(&guard, &sigpipe);
    do {
        n = write(channel->fd_write, data, size);
        error = n < 0 ? errno : 0;
    } while (error == EINTR);
    guard_leave(&guard, &sigpipe, error == EPIPE);
    return n >= 0 ? sent(n) : failed(error);
}

static void stream_shutdown(struct sml_channel *channel)
{
    static const uint64_t one = 1;
    ssize_t n;

    /* Those descriptors that happen to be sockets can be told. */
    socket_shutdown(channel);
    do
        n = write(channel->fd_wake, &one, sizeof(one));
    while (n < 0 && errno == EINTR);
}

/* A dead end takes the place of the writing descriptor: the number stays ours, writes to it are
 * BROKEN, and the peer of a pipe sees the end. Without a descriptor for it, only at close. */
static void stream_shutdown_write(struct sml_channel *channel)
{
    int dead_end[2];

    (void)shutdown(channel->fd_write, SHUT_WR);
    if (channel->fd_write == channel->fd_read || pipe2(dead_end, O_CLOEXEC | O_NONBLOCK) != 0)
        return;
    (void)close(dead_end[0]);
    (void)dup3(dead_end[1], channel->fd_write, O_CLOEXEC);
    (void)close(dead_end[1]);
}

static const struct sml_channel_ops stream_ops = {
    .read = stream_read,
    .read_wait = stream_read_wait,
    .write = stream_write,
    .shutdown = stream_shutdown,
    .shutdown_write = stream_shutdown_write,
    .close = descriptors_close,
};

/* ---- what all share ---- */

void sml_channel_init(struct sml_channel *channel)
{
    memset(channel, 0, sizeof(*channel));
    channel->fd_read = channel->fd_write = channel->fd_wake = -1;
}

void sml_channel_shutdown(struct sml_channel *channel)
{
    if (!atomic_exchange_explicit(&channel->shut, true, memory_order_acq_rel))
        channel->ops->shutdown(channel);
}

void sml_channel_shutdown_write(struct sml_channel *channel)
{
    channel->ops->shutdown_write(channel);
}

void sml_channel_close(struct sml_channel *channel)
{
    if (channel->ops)
        channel->ops->close(channel);
    sml_channel_init(channel);
}

static enum sml_wait wait_for(struct sml_channel *channel, int fd, short events, int also_fd,
                              uint64_t deadline_ns)
{
    /* poll passes over negative descriptors. */
    struct pollfd fds[3] = { { fd, events, 0 },
                             { channel->fd_wake, POLLIN, 0 },
                             { also_fd, POLLIN, 0 } };
    nfds_t count = also_fd >= 0 ? 3 : channel->fd_wake >= 0 ? 2 : 1;

    for (;;) {
        struct timespec timeout;
        int ready;

        if (deadline_ns != SML_NEVER) {
            uint64_t now = sml_clock_now();
            timeout = sml_clock_timespec(deadline_ns > now ? deadline_ns - now : 0);
        }
        ready = ppoll(fds, count, deadline_ns == SML_NEVER ? NULL : &timeout, NULL);
        if (ready > 0)
            return fds[0].revents || fds[1].revents ? SML_WAIT_READY : SML_WAIT_WOKEN;
        if (ready == 0)
            return SML_WAIT_TIMED_OUT;
        /* Anything else (no memory): let the caller try; reading never blocks. */
        if (errno != EINTR)
            return SML_WAIT_READY;
    }
}

enum sml_wait sml_channel_wait_readable(struct sml_channel *channel, int also_fd,
                                        uint64_t deadline_ns)
{
    return wait_for(channel, channel->fd_read, POLLIN, also_fd, deadline_ns);
}

enum sml_wait sml_channel_wait_writable(struct sml_channel *channel, int also_fd,
                                        uint64_t deadline_ns)
{
    return wait_for(channel, channel->fd_write, POLLOUT, also_fd, deadline_ns);
}

/* ---- making channels of descriptors ---- */

static void set_option(int fd, int level, int name, int value)
{
    (void)setsockopt(fd, level, name, &value, sizeof(value));
}

static int socket_option(int fd, int name)
{
    int value = -1;
    socklen_t size = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

/* All of these only improve on defaults: a system that refuses one still has a channel. */
static void tune_tcp(int fd)
{
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, SML_TCP_USER_TIMEOUT_MS);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, SML_TCP_KEEPALIVE_IDLE_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, SML_TCP_KEEPALIVE_INTERVAL_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, SML_TCP_KEEPALIVE_PROBES);
}

/* Whoever writes much sleeps until most of it has been read, and wakes late: what is read meanwhile
 * must lie ready. The system may grant less. */
static void tune_unix(int fd)
{
    if (socket_option(fd, SO_SNDBUF) < SML_UNIX_SEND_BYTES)
        set_option(fd, SOL_SOCKET, SO_SNDBUF, SML_UNIX_SEND_BYTES);
}

static void read_principal(struct sml_channel *channel)
{
    struct ucred ids;
    socklen_t size = sizeof(ids);

    if (socket_option(channel->fd_read, SO_DOMAIN) != AF_UNIX)
        return;
    if (getsockopt(channel->fd_read, SOL_SOCKET, SO_PEERCRED, &ids, &size) != 0)
        return;
    channel->ids = (struct sml_principal_ids){ true, ids.uid, ids.gid, ids.pid };
}

/* Let a receive without MSG_DONTWAIT wait one tick. A file that somebody made non-blocking does
 * not wait: there read_wait polls. */
static bool limit_receive(int fd)
{
    struct timeval tick = { 0, SML_CHANNEL_TICK_MS * 1000 };
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || (flags & O_NONBLOCK))
        return false;
    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tick, sizeof(tick)) == 0;
}

void sml_channel_of_socket(struct sml_channel *out_channel, int fd, const char *peer, bool tcp)
{
    sml_channel_init(out_channel);
    out_channel->ops = &socket_ops;
    out_channel->fd_read = out_channel->fd_write = fd;
    out_channel->may_block = limit_receive(fd);
    if (tcp) {
        tune_tcp(fd);
    } else {
        tune_unix(fd);
        read_principal(out_channel);
    }
    (void)snprintf(out_channel->peer, sizeof(out_channel->peer), "%s", peer);
}

/* NULL, or why `fd` cannot carry a stream in the direction `wanted` (O_RDONLY or O_WRONLY). */
static const char *unfit(int fd, int wanted, bool *out_is_socket)
{
    struct stat file;
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fstat(fd, &file) != 0)
        return "not an open descriptor";
    *out_is_socket = S_ISSOCK(file.st_mode);
    if (*out_is_socket) {
        if (socket_option(fd, SO_TYPE) != SOCK_STREAM)
            return "not a stream socket";
        if (socket_option(fd, SO_ACCEPTCONN) == 1)
            return "a listening socket, not a connected one";
        if (getpeername(fd, (struct sockaddr *)&address, &size) != 0)
            return "a socket that is not connected";
        return NULL;
    }
    if (!S_ISFIFO(file.st_mode) && !S_ISCHR(file.st_mode))
        return "neither a socket nor a pipe";
    if ((flags & O_ACCMODE) != O_RDWR && (flags & O_ACCMODE) != wanted)
        return wanted == O_RDONLY ? "not open for reading" : "not open for writing";
    return NULL;
}

/* Flags that the descriptor gets as the library's own. */
static int set_flags(int fd, bool nonblocking)
{
    int flags;

    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        return errno;
    if (!nonblocking)
        return 0;
    flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 ? 0 : errno;
}

static int adopt_flags(struct sml_channel *channel, bool sockets)
{
    int error = set_flags(channel->fd_read, !sockets);

    if (error == 0)
        error = set_flags(channel->fd_write, !sockets);
    if (error != 0 || sockets)
        return error;
    channel->fd_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return channel->fd_wake >= 0 ? 0 : errno;
}

static void describe(struct sml_channel *channel, const char *text)
{
    char *peer = channel->peer;
    size_t room = sizeof(channel->peer);

    if (text)
        (void)snprintf(peer, room, "%s", text);
    else if (channel->fd_read == channel->fd_write)
        (void)snprintf(peer, room, "fd:%d", channel->fd_read);
    else
        (void)snprintf(peer, room, "fd:%d/%d", channel->fd_read, channel->fd_write);
}

enum semel_status sml_channel_adopt(struct sml_channel *out_channel, int fd_read, int fd_write,
                                    const char *text, struct sml_reason *out_reason)
{
    struct sml_channel channel;
    bool read_is_socket = false, write_is_socket = false, sockets;
    const char *wrong;
    int error;

    sml_channel_init(&channel);
    channel.fd_read = fd_read;
    channel.fd_write = fd_write;
    describe(&channel, text);
    wrong = unfit(fd_read, O_RDONLY, &read_is_socket);
    if (!wrong)
        wrong = unfit(fd_write, O_WRONLY, &write_is_socket);
    if (wrong)
        return sml_reason_set(out_reason, SEMEL_BAD_ADDRESS, "%s: %s", channel.peer, wrong);
    sockets = read_is_socket && write_is_socket;
    error = adopt_flags(&channel, sockets);
    if (error != 0)
        return sml_reason_set(out_reason, sml_error_status(error), "%s: %s", channel.peer,
                              sml_error_text(error));
    channel.ops = sockets ? &socket_ops : &stream_ops;
    if (sockets) {
        channel.may_block = limit_receive(fd_read);
        if (socket_option(fd_write, SO_DOMAIN) == AF_UNIX)
            tune_unix(fd_write);
        else
            tune_tcp(fd_write);
    }
    if (read_is_socket && fd_read == fd_write)
        read_principal(&channel);
    sml_channel_move(out_channel, &channel);
    return SEMEL_OK;
}
