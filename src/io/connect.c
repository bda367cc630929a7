/* SPDX-License-Identifier: MIT */
/* connect.c - see connect.h.
 *
 * A connecting TCP socket is non-blocking until it is connected and blocking afterwards, because a
 * channel's lone reader waits inside its receive. A unix connect is decided at once: the system
 * either queues it or refuses; a full queue (EAGAIN) cannot be waited for and counts as a failed
 * attempt, which the caller's backoff repeats. */
#include "io/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/check.h"
#include "io/resolve.h"
#include "os/clock.h"

static enum semel_status status_of(int error)
{
    enum semel_status status = sml_error_status(error);

    switch (status) {
    case SEMEL_PEER_DIED:
    case SEMEL_LINK_LOST:
    case SEMEL_DENIED:
        return status;
    default:
        /* A socket file that is not there is a server that is not there. */
        return error == ENOENT ? SEMEL_PEER_DIED : SEMEL_CONNECT;
    }
}

static enum sml_connect_state fail(struct sml_connect *connect, int error)
{
    const char *text = sml_error_text(error);

    if (connect->address->kind == SML_ADDRESS_UNIX && error == EAGAIN)
        text = "the server's queue of new connections is full";
    if (connect->address->kind == SML_ADDRESS_UNIX && error == ENOENT)
        text = "no such socket";
    connect->status =
        sml_reason_set(&connect->reason, status_of(error), "%s: %s", connect->address->text, text);
    return connect->state = SML_CONNECT_FAILED;
}

static int make_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0 ? 0 : errno;
}

static void drop_socket(struct sml_connect *connect)
{
    if (connect->fd >= 0)
        (void)close(connect->fd);
    connect->fd = -1;
}

/* A client that knocks again and again at a dead local port is one day given that very port as its
 * own, and TCP then connects it to itself. */
static bool is_connected_to_itself(int fd)
{
    struct sockaddr_storage here, there;
    socklen_t here_size = sizeof(here), there_size = sizeof(there);

    memset(&here, 0, sizeof(here));
    memset(&there, 0, sizeof(there));
    return getsockname(fd, (struct sockaddr *)&here, &here_size) == 0 &&
           getpeername(fd, (struct sockaddr *)&there, &there_size) == 0 &&
           here_size == there_size && memcmp(&here, &there, here_size) == 0;
}

static enum sml_connect_state done(struct sml_connect *connect)
{
    int error = make_blocking(connect->fd);

    if (error == 0 && connect->address->kind == SML_ADDRESS_TCP &&
        is_connected_to_itself(connect->fd))
        error = ECONNREFUSED;
    if (error != 0)
        return fail(connect, error);
    sml_channel_of_socket(&connect->channel, connect->fd, connect->address->text,
                          connect->address->kind == SML_ADDRESS_TCP);
    connect->fd = -1;
    return connect->state = SML_CONNECT_DONE;
}

/* 0, EINPROGRESS, or why not. An interrupted connect goes on in the background, as one in progress;
 * so it is not repeated. */
static int connect_socket(int fd, const struct sockaddr *where, socklen_t size)
{
    if (connect(fd, where, size) == 0)
        return 0;
    return errno == EINTR ? EINPROGRESS : errno;
}

static enum sml_connect_state start_unix(struct sml_connect *connect)
{
    struct sockaddr_un where = { .sun_family = AF_UNIX };
    int error;

    memcpy(where.sun_path, connect->address->path, strlen(connect->address->path));
    connect->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connect->fd < 0)
        return fail(connect, errno);
    error = connect_socket(connect->fd, (struct sockaddr *)&where, sizeof(where));
    return error == 0 ? done(connect) : fail(connect, error);
}

static enum sml_connect_state start_fd(struct sml_connect *connect)
{
    const struct sml_address *address = connect->address;

    connect->status = sml_channel_adopt(&connect->channel, address->fd_read, address->fd_write,
                                        address->text, &connect->reason);
    if (connect->status == SEMEL_OK)
        return connect->state = SML_CONNECT_DONE;
    connect->status = SEMEL_CONNECT;
    return connect->state = SML_CONNECT_FAILED;
}

/* Begin with the next address of the name; on and on until one is in progress or none is left. The
 * last failure is the one reported. */
static enum sml_connect_state try_next(struct sml_connect *connect, int error, uint64_t now)
{
    while (connect->next) {
        struct addrinfo *at = connect->next;
        uint64_t span = connect->deadline > now ? connect->deadline - now : 0;

        drop_socket(connect);
        connect->step_deadline =
            connect->deadline == SML_NEVER ? SML_NEVER : now + span / connect->left;
        connect->next = --connect->left > 0 ? at->ai_next : NULL;
        connect->fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (connect->fd < 0) {
            error = errno;
            continue;
        }
        error = connect_socket(connect->fd, at->ai_addr, at->ai_addrlen);
        if (error == 0)
            return done(connect);
        if (error == EINPROGRESS)
            return connect->state = SML_CONNECT_PENDING;
    }
    drop_socket(connect);
    return fail(connect, error);
}

static enum sml_connect_state start_tcp(struct sml_connect *connect)
{
    enum semel_status status;

    if (connect->address->port == 0) {
        connect->status =
            sml_reason_set(&connect->reason, SEMEL_CONNECT, "%s: port 0 is only for listening",
                           connect->address->text);
        return connect->state = SML_CONNECT_FAILED;
    }
    status = sml_resolve(connect->address, &connect->found, &connect->reason);
    if (status != SEMEL_OK) {
        connect->status = status == SEMEL_LINK_LOST ? status : SEMEL_CONNECT;
        return connect->state = SML_CONNECT_FAILED;
    }
    connect->next = connect->found;
    for (struct addrinfo *at = connect->found; at && connect->left < SML_CONNECT_HOSTS_MAX;
         at = at->ai_next)
        connect->left++;
    return try_next(connect, EADDRNOTAVAIL, sml_clock_now());
}

enum sml_connect_state sml_connect_start(struct sml_connect *connect,
                                         const struct sml_address *address, uint64_t deadline_ns)
{
    memset(connect, 0, sizeof(*connect));
    connect->state = SML_CONNECT_FAILED;
    connect->address = address;
    connect->fd = -1;
    connect->deadline = deadline_ns;
    connect->step_deadline = deadline_ns;
    sml_channel_init(&connect->channel);
    switch (address->kind) {
    case SML_ADDRESS_UNIX:
        return start_unix(connect);
    case SML_ADDRESS_TCP:
        return start_tcp(connect);
    case SML_ADDRESS_FD:
        return start_fd(connect);
    }
    return fail(connect, EINVAL);
}

int sml_connect_fd(const struct sml_connect *connect)
{
    return connect->fd;
}

uint64_t sml_connect_timeout(const struct sml_connect *connect)
{
    return connect->state == SML_CONNECT_PENDING ? connect->step_deadline : SML_NEVER;
}

/* What became of the socket in progress: 0, EINPROGRESS, or why it failed. */
static int progress(int fd)
{
    struct pollfd watched = { fd, POLLOUT, 0 };
    int error = 0;
    socklen_t size = sizeof(error);

    if (poll(&watched, 1, 0) <= 0)
        return EINPROGRESS;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        return errno;
    return error;
}

enum sml_connect_state sml_connect_step(struct sml_connect *connect, uint64_t now_ns)
{
    int error;

    if (connect->state != SML_CONNECT_PENDING)
        return connect->state;
    error = progress(connect->fd);
    if (error == 0)
        return done(connect);
    if (error != EINPROGRESS)
        return try_next(connect, error, now_ns);
    if (now_ns >= connect->step_deadline)
        return try_next(connect, ETIMEDOUT, now_ns);
    return SML_CONNECT_PENDING;
}

void sml_connect_take(struct sml_connect *connect, struct sml_channel *out_channel)
{
    SML_ASSERT(connect->state == SML_CONNECT_DONE && sml_channel_is_open(&connect->channel));
    sml_channel_move(out_channel, &connect->channel);
}

void sml_connect_close(struct sml_connect *connect)
{
    drop_socket(connect);
    sml_channel_close(&connect->channel);
    if (connect->found)
        freeaddrinfo(connect->found);
    connect->found = connect->next = NULL;
    if (connect->state == SML_CONNECT_PENDING)
        connect->state = SML_CONNECT_FAILED;
}

static void wait_for_step(const struct sml_connect *connect)
{
    struct pollfd watched = { sml_connect_fd(connect), POLLOUT, 0 };
    uint64_t until = sml_connect_timeout(connect), now = sml_clock_now();
    struct timespec span = sml_clock_timespec(until > now ? until - now : 0);

    (void)ppoll(&watched, 1, until == SML_NEVER ? NULL : &span, NULL);
}

enum semel_status sml_connect_now(const struct sml_address *address, uint64_t deadline_ns,
                                  struct sml_channel *out_channel, struct sml_reason *out_reason)
{
    struct sml_connect connect;
    enum sml_connect_state state = sml_connect_start(&connect, address, deadline_ns);
    enum semel_status status = SEMEL_OK;

    while (state == SML_CONNECT_PENDING) {
        wait_for_step(&connect);
        state = sml_connect_step(&connect, sml_clock_now());
    }
    if (state == SML_CONNECT_DONE)
        sml_connect_take(&connect, out_channel);
    else
        status = sml_reason_set(out_reason, connect.status, "%s", connect.reason.text);
    sml_connect_close(&connect);
    return status;
}
