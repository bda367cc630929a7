/* SPDX-License-Identifier: MIT */
#include "endpoint.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 512

static bool parse_unix(const char *path, struct endpoint *out, char *why, size_t why_size)
{
    struct sockaddr_un *address = (struct sockaddr_un *)&out->address;

    if (*path == '\0' || strlen(path) >= sizeof address->sun_path) {
        snprintf(why, why_size, "a socket's path has 1 to %zu bytes", sizeof address->sun_path - 1);
        return false;
    }
    address->sun_family = AF_UNIX;
    strcpy(address->sun_path, path);
    out->family = AF_UNIX;
    out->size = sizeof *address;
    return true;
}

/* Split "HOST:PORT" or "[HOST]:PORT". */
static bool split(const char *text, char *host, size_t host_size, const char **out_port)
{
    const char *begin = text, *end = strrchr(text, ':');

    if (!end || end == text || end[1] == '\0')
        return false;
    *out_port = end + 1;
    if (*text == '[') {
        if (end[-1] != ']')
            return false;
        begin++;
        end--;
    } else if (memchr(text, ':', (size_t)(end - text))) {
        return false; /* an IPv6 address without its brackets */
    }
    if (end == begin || (size_t)(end - begin) >= host_size)
        return false;
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = '\0';
    return true;
}

static bool parse_tcp(const char *text, struct endpoint *out, char *why, size_t why_size)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
    struct addrinfo *found;
    const char *port;
    char host[256];
    int error;

    if (!split(text, host, sizeof host, &port)) {
        snprintf(why, why_size,
                 "write tcp:HOST:PORT, with an IPv6 address in brackets: "
                 "tcp:[::1]:7000");
        return false;
    }
    error = getaddrinfo(host, port, &hints, &found);
    if (error) {
        snprintf(why, why_size, "%s", gai_strerror(error));
        return false;
    }
    memcpy(&out->address, found->ai_addr, found->ai_addrlen);
    out->family = found->ai_family;
    out->size = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

bool endpoint_parse(const char *text, struct endpoint *out, char *why, size_t why_size)
{
    memset(out, 0, sizeof *out);
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(text + 5, out, why, why_size);
    if (strncmp(text, "tcp:", 4) == 0)
        return parse_tcp(text + 4, out, why, why_size);
    if (strchr(text, '/'))
        return parse_unix(text, out, why, why_size);
    snprintf(why, why_size, "write unix:/path or tcp:HOST:PORT");
    return false;
}

static int open_socket(const struct endpoint *endpoint)
{
    return socket(endpoint->family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static int close_keeping_errno(int fd)
{
    int error = errno;

    close(fd);
    errno = error;
    return -1;
}

/* True when nobody listens at the socket file any more. */
static bool abandoned(const struct endpoint *endpoint)
{
    int fd = open_socket(endpoint);
    bool refused;

    if (fd < 0)
        return false;
    refused = connect(fd, (const struct sockaddr *)&endpoint->address, endpoint->size) != 0 &&
              errno == ECONNREFUSED;
    close(fd);
    return refused;
}

int endpoint_listen(const struct endpoint *endpoint)
{
    const struct sockaddr *address = (const struct sockaddr *)&endpoint->address;
    int fd = open_socket(endpoint), on = 1, bound;

    if (fd < 0)
        return -1;
    if (endpoint->family != AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bound = bind(fd, address, endpoint->size);
    if (bound != 0 && errno == EADDRINUSE && endpoint->family == AF_UNIX) {
        if (abandoned(endpoint)) {
            endpoint_remove(endpoint);
            bound = bind(fd, address, endpoint->size);
        } else {
            errno = EADDRINUSE;
        }
    }
    if (bound != 0 || listen(fd, BACKLOG) != 0)
        return close_keeping_errno(fd);
    return fd;
}

int endpoint_connect(const struct endpoint *endpoint, bool *out_pending)
{
    int fd = open_socket(endpoint);

    if (fd < 0)
        return -1;
    endpoint_tune(fd);
    *out_pending = false;
    if (connect(fd, (const struct sockaddr *)&endpoint->address, endpoint->size) == 0)
        return fd;
    if (errno != EINPROGRESS)
        return close_keeping_errno(fd);
    *out_pending = true;
    return fd;
}

void endpoint_name(int fd, char *text, size_t size)
{
    struct sockaddr_storage address = { .ss_family = AF_UNSPEC };
    socklen_t length = sizeof address;
    char host[128] = "?", port[32] = "?";

    getsockname(fd, (struct sockaddr *)&address, &length);
    if (address.ss_family == AF_UNIX) {
        snprintf(text, size, "unix:%s", ((struct sockaddr_un *)&address)->sun_path);
        return;
    }
    getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(text, size, strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
}

void endpoint_remove(const struct endpoint *endpoint)
{
    if (endpoint->family == AF_UNIX)
        unlink(((const struct sockaddr_un *)&endpoint->address)->sun_path);
}

void endpoint_tune(int fd)
{
    int on = 1;

    /* A unix socket refuses this, which is fine. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}
