/* SPDX-License-Identifier: MIT */
/* endpoint.h - plain stream sockets for semel proxy: unix:/path, /path, tcp:HOST:PORT. */
#ifndef TOOL_ENDPOINT_H
#define TOOL_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

struct endpoint {
    int family;
    struct sockaddr_storage address;
    socklen_t size;
};

/* Resolve an address; false: `why` says what is wrong and what to write. May block in name
 * resolution. */
bool endpoint_parse(const char *text, struct endpoint *out, char *why, size_t why_size);

/* A listening, non-blocking socket; -1: errno. The socket file of a process that has ended is
 * replaced. */
int endpoint_listen(const struct endpoint *endpoint);

/* A non-blocking socket that is connected, or becomes writable when it is (*out_pending) or has
 * failed; -1: errno. */
int endpoint_connect(const struct endpoint *endpoint, bool *out_pending);

/* Write the address that `fd` is bound to, as endpoint_parse would read it. */
void endpoint_name(int fd, char *text, size_t size);

/* Remove the socket file of a unix: endpoint; nothing for others. */
void endpoint_remove(const struct endpoint *endpoint);

/* Small writes go out at once; nothing for unix sockets. */
void endpoint_tune(int fd);

#endif
