/* SPDX-License-Identifier: MIT */
/* listener.c - see listener.h.
 *
 * A unix socket file outlives its server, so one that is found may be dead. Two servers that both
 * find it dead, remove it and bind would each remove the other's: everything from the probe to the
 * bind therefore happens under an exclusive lock on "PATH.lock", which is held until close. The
 * lock file is removed while it is held; a rival that had opened it meanwhile sees, once it gets
 * the lock, that its file is no longer the one at the path, and starts over. A lock dies with its
 * process, so nothing that a killed server leaves behind needs to be understood.
 *
 * Programs that know nothing of the lock file are respected by the probe: a socket that accepts a
 * connection is alive, whoever owns it.
 *
 * Rejected: bind beside and rename over (two servers that both find the file dead each believe
 * they have won, and one of them listens where nobody can reach it). */
#include "io/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/check.h"
#include "io/resolve.h"

#define LOCK_SUFFIX ".lock"
#define LOCK_TRIES 100 /* each one lost to a rival that left at that very moment */

static void listener_init(struct sml_listener *listener, const struct sml_address *address)
{
    memset(listener, 0, sizeof(*listener));
    listener->fd = listener->fd_lock = listener->fd_spare = -1;
    listener->address = *address;
}

static enum semel_status failure(const struct sml_address *address, int error,
                                 struct sml_reason *reason)
{
    enum semel_status status = sml_error_status(error);

    if (error == ENOENT || error == ENOTDIR || error == EADDRNOTAVAIL || error == ELOOP)
        status = SEMEL_BAD_ADDRESS;
    return sml_reason_set(reason, status, "%s: %s", address->text,
                          error == ENOENT ? "no such directory" : sml_error_text(error));
}

static int close_fd(int fd)
{
    if (fd >= 0)
        (void)close(fd);
    return -1;
}

void sml_listener_abandon(struct sml_listener *listener)
{
    listener->fd = close_fd(listener->fd);
    listener->fd_spare = close_fd(listener->fd_spare);
    listener->fd_lock = close_fd(listener->fd_lock);
}

/* ---- unix ---- */

static void lock_path(const struct sml_address *address, char *out, size_t room)
{
    (void)snprintf(out, room, "%s" LOCK_SUFFIX, address->path);
}

/* Whether `fd` is still the file at `path`. */
static bool same_file(int fd, const char *path)
{
    struct stat ours, there;

    return fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_dev == there.st_dev &&
           ours.st_ino == there.st_ino;
}

static enum semel_status take_lock(struct sml_listener *listener, struct sml_reason *reason)
{
    const struct sml_address *address = &listener->address;
    char path[SML_UNIX_PATH_BYTES + sizeof(LOCK_SUFFIX)];

    lock_path(address, path, sizeof(path));
    for (int i = 0; i < LOCK_TRIES; i++) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

        if (fd < 0)
            return failure(address, errno, reason);
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int error = errno;

            (void)close(fd);
            if (error == EINTR)
                continue;
            return failure(address, error == EWOULDBLOCK ? EADDRINUSE : error, reason);
        }
        if (same_file(fd, path)) {
            listener->fd_lock = fd;
            return SEMEL_OK;
        }
        (void)close(fd);
    }
    return failure(address, EADDRINUSE, reason);
}

static void drop_lock(struct sml_listener *listener)
{
    char path[SML_UNIX_PATH_BYTES + sizeof(LOCK_SUFFIX)];

    if (listener->fd_lock < 0)
        return;
    lock_path(&listener->address, path, sizeof(path));
    (void)unlink(path); /* before the lock ends, see the top */
    listener->fd_lock = close_fd(listener->fd_lock);
}

/* 0: somebody accepts at `where`; else why not. */
static int probe(const struct sockaddr_un *where)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = 0;

    if (fd < 0)
        return errno;
    if (connect(fd, (const struct sockaddr *)where, sizeof(*where)) != 0)
        error = errno == EAGAIN ? 0 : errno; /* EAGAIN: its queue is full, so it has one */
    (void)close(fd);
    return error;
}

/* Make room at the path. Under the lock. */
static enum semel_status clear_path(const struct sml_address *address,
                                    const struct sockaddr_un *where, struct sml_reason *reason)
{
    struct stat file;
    int error;

    if (lstat(address->path, &file) != 0)
        return errno == ENOENT ? SEMEL_OK : failure(address, errno, reason);
    if (!S_ISSOCK(file.st_mode))
        return sml_reason_set(reason, SEMEL_BAD_ADDRESS, "%s: exists and is not a socket",
                              address->text);
    error = probe(where);
    if (error == 0 || error == EPROTOTYPE) /* the latter: a datagram socket */
        return failure(address, EADDRINUSE, reason);
    if (error != ECONNREFUSED && error != ENOENT)
        return failure(address, error, reason);
    if (unlink(address->path) != 0 && errno != ENOENT)
        return failure(address, errno, reason);
    return SEMEL_OK;
}

static enum semel_status bind_unix(struct sml_listener *listener, struct sml_reason *reason)
{
    const struct sml_address *address = &listener->address;
    struct sockaddr_un where = { .sun_family = AF_UNIX };
    struct stat file;
    enum semel_status status;

    memcpy(where.sun_path, address->path, strlen(address->path));
    status = clear_path(address, &where, reason);
    if (status != SEMEL_OK)
        return status;
    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0)
        return failure(address, errno, reason);
    if (bind(listener->fd, (struct sockaddr *)&where, sizeof(where)) != 0)
        return failure(address, errno, reason);
    if (lstat(address->path, &file) == 0) {
        listener->device = file.st_dev;
        listener->inode = file.st_ino;
    }
    if (listen(listener->fd, SOMAXCONN) != 0)
        return failure(address, errno, reason);
    return SEMEL_OK;
}

/* The socket file, if it is still ours. Under the lock. */
static void remove_path(struct sml_listener *listener)
{
    struct stat file;

    if (listener->fd < 0 || listener->inode == 0)
        return;
    if (lstat(listener->address.path, &file) == 0 && file.st_dev == listener->device &&
        file.st_ino == listener->inode)
        (void)unlink(listener->address.path);
}

void sml_listener_close(struct sml_listener *listener)
{
    if (listener->fd_lock >= 0) {
        remove_path(listener);
        drop_lock(listener);
    }
    sml_listener_abandon(listener);
}

static enum semel_status open_unix(struct sml_listener *listener, struct sml_reason *reason)
{
    enum semel_status status = take_lock(listener, reason);

    return status == SEMEL_OK ? bind_unix(listener, reason) : status;
}

/* ---- tcp ---- */

static int listen_tcp(const struct addrinfo *at, int *out_fd)
{
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1, error;

    if (fd < 0)
        return errno;
    /* A server that restarts does not wait for the last connections of its predecessor to be
     * forgotten; a live listener still makes this fail. */
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    /* "[::]" and "0.0.0.0" are two addresses, on every system alike. */
    if (at->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0) {
        *out_fd = fd;
        return 0;
    }
    error = errno;
    (void)close(fd);
    return error;
}

static enum semel_status check_loopback(const struct sml_address *address,
                                        const struct addrinfo *found, struct sml_reason *reason)
{
    for (; found; found = found->ai_next) {
        if (!sml_sockaddr_is_loopback(found->ai_addr))
            return sml_reason_set(reason, SEMEL_DENIED,
                                  "%s: beyond loopback nothing would be encrypted; "
                                  "allow it explicitly (insecure)",
                                  address->text);
    }
    return SEMEL_OK;
}

/* What the address came to: a numeric host, the chosen port. */
static void note_bound(struct sml_listener *listener)
{
    struct sml_address *address = &listener->address;
    struct sockaddr_storage bound;
    socklen_t size = sizeof(bound);

    if (getsockname(listener->fd, (struct sockaddr *)&bound, &size) != 0)
        return;
    sml_sockaddr_text((struct sockaddr *)&bound, size, address->host, sizeof(address->host),
                      &address->port);
    sml_sockaddr_address((struct sockaddr *)&bound, size, address->text, sizeof(address->text));
}

static enum semel_status open_tcp(struct sml_listener *listener, bool insecure,
                                  struct sml_reason *reason)
{
    const struct sml_address *address = &listener->address;
    struct addrinfo *found;
    enum semel_status status = sml_resolve(address, &found, reason);
    int error = EADDRNOTAVAIL;

    if (status != SEMEL_OK)
        return status;
    if (!insecure)
        status = check_loopback(address, found, reason);
    for (struct addrinfo *at = found; status == SEMEL_OK && at && error != 0; at = at->ai_next)
        error = listen_tcp(at, &listener->fd);
    freeaddrinfo(found);
    if (status != SEMEL_OK)
        return status;
    if (error != 0)
        return failure(address, error, reason);
    note_bound(listener);
    return SEMEL_OK;
}

/* ---- both ---- */

/* A descriptor for nothing, to be given up in need. */
static int open_spare(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

enum semel_status sml_listener_open(struct sml_listener *out_listener,
                                    const struct sml_address *address, bool insecure,
                                    struct sml_reason *out_reason)
{
    struct sml_listener listener;
    enum semel_status status;

    listener_init(&listener, address);
    switch (address->kind) {
    case SML_ADDRESS_UNIX:
        status = open_unix(&listener, out_reason);
        break;
    case SML_ADDRESS_TCP:
        status = open_tcp(&listener, insecure, out_reason);
        break;
    default:
        return sml_reason_set(out_reason, SEMEL_BAD_ADDRESS, "%s: nothing can listen there",
                              address->text);
    }
    if (status == SEMEL_OK) {
        listener.fd_spare = open_spare();
        if (listener.fd_spare < 0)
            status = failure(address, errno, out_reason);
    }
    if (status != SEMEL_OK) {
        sml_listener_close(&listener);
        return status;
    }
    *out_listener = listener;
    return SEMEL_OK;
}

/* Out of descriptors: with the spare one the waiting client can at least be let go, instead of
 * keeping the listener readable for ever. */
static enum sml_accept turn_away(struct sml_listener *listener, int error,
                                 struct sml_reason *reason)
{
    int fd;

    (void)sml_reason_set(reason, SEMEL_LIMIT, "%s: %s", listener->address.text,
                         sml_error_text(error));
    if (listener->fd_spare < 0) {
        listener->fd_spare = open_spare();
        return SML_ACCEPT_PAUSE;
    }
    listener->fd_spare = close_fd(listener->fd_spare);
    fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        (void)close(fd);
    listener->fd_spare = open_spare();
    return fd >= 0 ? SML_ACCEPT_TURNED_AWAY : SML_ACCEPT_PAUSE;
}

static enum sml_accept accept_failed(struct sml_listener *listener, int error,
                                     struct sml_reason *reason)
{
    switch (error) {
    case EAGAIN:
        return SML_ACCEPT_NONE;
    case EMFILE:
    case ENFILE:
        return turn_away(listener, error, reason);
    default: /* no memory, a firewall's refusal, or what else the system invents */
        (void)sml_reason_set(reason, sml_error_status(error), "%s: %s", listener->address.text,
                             sml_error_text(error));
        return SML_ACCEPT_PAUSE;
    }
}

/* Errors of the one connection that was about to be accepted: the next one may be fine. */
static bool is_gone(int error)
{
    return error == EINTR || error == ECONNABORTED || error == EPROTO || error == ENETDOWN ||
           error == ENOPROTOOPT || error == EHOSTDOWN || error == ENONET || error == EHOSTUNREACH ||
           error == EOPNOTSUPP || error == ENETUNREACH;
}

static void make_channel(const struct sml_listener *listener, int fd,
                         const struct sockaddr_storage *peer, socklen_t size,
                         struct sml_channel *out_channel)
{
    char text[SML_CHANNEL_TEXT_BYTES];

    if (listener->address.kind == SML_ADDRESS_TCP) {
        sml_sockaddr_address((const struct sockaddr *)peer, size, text, sizeof(text));
        sml_channel_of_socket(out_channel, fd, text, true);
        return;
    }
    sml_channel_of_socket(out_channel, fd, listener->address.text, false);
    if (out_channel->ids.known)
        (void)snprintf(out_channel->peer, sizeof(out_channel->peer), "unix:%s pid %d",
                       listener->address.path, (int)out_channel->ids.pid);
}

enum sml_accept sml_listener_accept(struct sml_listener *listener, struct sml_channel *out_channel,
                                    struct sml_reason *out_reason)
{
    for (;;) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof(peer);
        int fd = accept4(listener->fd, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC);

        if (fd >= 0) {
            make_channel(listener, fd, &peer, size, out_channel);
            return SML_ACCEPT_OK;
        }
        if (!is_gone(errno))
            return accept_failed(listener, errno, out_reason);
    }
}
