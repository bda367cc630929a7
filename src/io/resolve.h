/* SPDX-License-Identifier: MIT */
/* resolve.h - tcp: hosts to the system's socket addresses and back. */
#ifndef SML_IO_RESOLVE_H
#define SML_IO_RESOLVE_H

#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "io/address.h"

/* The socket addresses of a tcp: address, to be released with freeaddrinfo. A numeric host never
 * blocks; a name may. Returns OK; LINK_LOST (the name service does not answer); BAD_ADDRESS (no
 * such host); NO_MEMORY, SYSTEM. */
enum semel_status sml_resolve(const struct sml_address *address, struct addrinfo **out_found,
                              struct sml_reason *out_reason) SML_MUST_USE;

/* Reachable only from this machine. */
bool sml_sockaddr_is_loopback(const struct sockaddr *address);

/* "127.0.0.1", "::1", with its scope if it has one; and the port. "?" if it cannot be said. */
void sml_sockaddr_text(const struct sockaddr *address, socklen_t size, char *out_host, size_t room,
                       uint16_t *out_port);

/* "tcp:127.0.0.1:7000", "tcp:[::1]:7000". */
void sml_sockaddr_address(const struct sockaddr *address, socklen_t size, char *out_text,
                          size_t room);

#endif
