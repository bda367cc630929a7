/* SPDX-License-Identifier: MIT */
#include "io/resolve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static enum semel_status resolve_failed(const struct sml_address *address, int error,
                                        int system_error, struct sml_reason *reason)
{
    enum semel_status status = SEMEL_BAD_ADDRESS;
    const char *text = gai_strerror(error);

    if (error == EAI_AGAIN)
        status = SEMEL_LINK_LOST;
    else if (error == EAI_MEMORY)
        status = SEMEL_NO_MEMORY;
    else if (error == EAI_SYSTEM)
        status = sml_error_status(system_error);
    if (error == EAI_SYSTEM)
        text = sml_error_text(system_error);
    else if (status == SEMEL_BAD_ADDRESS)
        text = "no such host";
    else if (status == SEMEL_LINK_LOST)
        text = "the name service does not answer";
    return sml_reason_set(reason, status, "%s: %s", address->text, text);
}

enum semel_status sml_resolve(const struct sml_address *address, struct addrinfo **out_found,
                              struct sml_reason *out_reason)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    char port[8];
    int error;

    (void)snprintf(port, sizeof(port), "%u", (unsigned)address->port);
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    error = getaddrinfo(address->host, port, &hints, out_found);
    if (error == EAI_NONAME) { /* not a number: a name */
        hints.ai_flags = AI_NUMERICSERV;
        error = getaddrinfo(address->host, port, &hints, out_found);
    }
    return error == 0 ? SEMEL_OK : resolve_failed(address, error, errno, out_reason);
}

bool sml_sockaddr_is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;

        memcpy(&v4, address, sizeof(v4));
        return ntohl(v4.sin_addr.s_addr) >> 24 == 127;
    }
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;

        memcpy(&v6, address, sizeof(v6));
        return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) && v6.sin6_addr.s6_addr[12] == 127);
    }
    return false;
}

void sml_sockaddr_text(const struct sockaddr *address, socklen_t size, char *out_host, size_t room,
                       uint16_t *out_port)
{
    struct sockaddr_in v4;

    *out_port = 0;
    if (getnameinfo(address, size, out_host, (socklen_t)room, NULL, 0, NI_NUMERICHOST) != 0) {
        (void)snprintf(out_host, room, "?");
        return;
    }
    memcpy(&v4, address, sizeof(v4)); /* the port stands at the same place in both families */
    *out_port = ntohs(v4.sin_port);
}

void sml_sockaddr_address(const struct sockaddr *address, socklen_t size, char *out_text,
                          size_t room)
{
    char host[SML_HOST_BYTES + 1];
    uint16_t port;

    sml_sockaddr_text(address, size, host, sizeof(host), &port);
    (void)snprintf(out_text, room, strchr(host, ':') ? "tcp:[%s]:%u" : "tcp:%s:%u", host,
                   (unsigned)port);
}
