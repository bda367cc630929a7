/* SPDX-License-Identifier: MIT */
#include "io/passing.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "os/error.h"

static enum semel_status open_at(const char *path, int *out_fd, struct sockaddr_un *out_where)
{
    size_t bytes = strlen(path);

    memset(out_where, 0, sizeof *out_where);
    out_where->sun_family = AF_UNIX;
    if (bytes >= sizeof out_where->sun_path)
        return SEMEL_BAD_ADDRESS;
    memcpy(out_where->sun_path, path, bytes);
    *out_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return *out_fd >= 0 ? SEMEL_OK : sml_error_status(errno);
}

enum semel_status sml_passing_listen(const char *path, int *out_fd)
{
    struct sockaddr_un where;
    enum semel_status status = open_at(path, out_fd, &where);

    if (status != SEMEL_OK)
        return status;
    if (bind(*out_fd, (struct sockaddr *)&where, sizeof where) == 0 && listen(*out_fd, 128) == 0)
        return SEMEL_OK;
    status = sml_error_status(errno);
    (void)close(*out_fd);
    return status;
}

int sml_passing_accept(int fd)
{
    int accepted;

    do
        accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    while (accepted < 0 && errno == EINTR);
    return accepted;
}

enum semel_status sml_passing_connect(const char *path, int *out_fd)
{
    struct sockaddr_un where;
    enum semel_status status = open_at(path, out_fd, &where);

    if (status != SEMEL_OK)
        return status;
    if (connect(*out_fd, (struct sockaddr *)&where, sizeof where) == 0)
        return SEMEL_OK;
    status = errno == EAGAIN ? SEMEL_WOULD_BLOCK : SEMEL_PEER_DIED;
    (void)close(*out_fd);
    return status;
}

void sml_passing_shut(int fd)
{
    (void)shutdown(fd, SHUT_RD);
}

void sml_passing_close(int fd)
{
    (void)close(fd);
}

enum semel_status sml_passing_send(int fd, const void *words, size_t size, int passed)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof passed)];
    } control;
    struct iovec part = { (void *)(uintptr_t)words, size };
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
    };
    struct cmsghdr *head;
    ssize_t sent;

    memset(&control, 0, sizeof control);
    head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof passed);
    memcpy(CMSG_DATA(head), &passed, sizeof passed);
    do
        sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return SEMEL_OK;
    return errno == EAGAIN || errno == ETOOMANYREFS || errno == ENOBUFS ? SEMEL_WOULD_BLOCK
                                                                        : SEMEL_PEER_DIED;
}

/* The first descriptor of a packet; all others are closed. -1: it had none. */
static int take_descriptor(struct msghdr *message)
{
    int taken = -1;

    for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head; head = CMSG_NXTHDR(message, head)) {
        size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(head) + i * sizeof fd, sizeof fd);
            if (taken < 0)
                taken = fd;
            else
                (void)close(fd);
        }
    }
    return taken;
}

bool sml_passing_receive(int fd, void *words, size_t size, int *out_passed, bool *out_ended)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control;
    struct iovec part = { words, size };
    ssize_t got;

    *out_ended = false;
    for (;;) {
        struct msghdr message = { .msg_iov = &part,
                                  .msg_iovlen = 1,
                                  .msg_control = &control,
                                  .msg_controllen = sizeof control };

        got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            *out_ended = got == 0 || (errno != EAGAIN && errno != EMFILE && errno != ENFILE);
            return false;
        }
        *out_passed = take_descriptor(&message);
        if (*out_passed >= 0 && (size_t)got == size && !(message.msg_flags & MSG_TRUNC))
            return true;
        if (*out_passed >= 0)
            (void)close(*out_passed);
    }
}
