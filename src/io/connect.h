/* SPDX-License-Identifier: MIT */
/* connect.h - reach an address, without blocking.
 *
 *   sml_connect_start, then while PENDING: wait until sml_connect_fd is writable or
 *   sml_connect_timeout has come, sml_connect_step; when DONE: sml_connect_take; in any case
 *   sml_connect_close.
 *
 * unix: and fd: are decided at once. tcp: a numeric host never blocks; a name is looked up by the
 * system's resolver inside sml_connect_start, which can take seconds, so that belongs on a thread
 * that may wait. The addresses of a name are tried in turn, each with an equal share of the time
 * that is left. */
#ifndef SML_IO_CONNECT_H
#define SML_IO_CONNECT_H

#include <stdint.h>

#include "io/address.h"
#include "io/channel.h"

#define SML_CONNECT_HOSTS_MAX 8 /* addresses of one name that are tried */

enum sml_connect_state { SML_CONNECT_PENDING, SML_CONNECT_DONE, SML_CONNECT_FAILED };

struct addrinfo;

struct sml_connect {
    enum sml_connect_state state;
    enum semel_status status; /* FAILED: PEER_DIED (nobody listens there), LINK_LOST (timed out,
                                   unreachable), DENIED, CONNECT (anything else) */
    struct sml_reason reason; /* FAILED: names the address and why */
    const struct sml_address *address;
    int fd;
    struct addrinfo *found, *next;
    unsigned left; /* addresses not yet tried */
    uint64_t deadline, step_deadline;
    struct sml_channel channel; /* DONE: until taken */
};

/* `address` is borrowed until sml_connect_close. Times are absolute nanoseconds. An fd: address
 * moves its descriptors in if the state becomes DONE. Returns the state. */
enum sml_connect_state sml_connect_start(struct sml_connect *connect,
                                         const struct sml_address *address, uint64_t deadline_ns);

/* While PENDING: the descriptor to watch for output; it may be another one after each step (and an
 * old one is closed in the step, by which it leaves any epoll set). */
int sml_connect_fd(const struct sml_connect *connect);
uint64_t sml_connect_timeout(const struct sml_connect *connect);

/* Harmless at any time. Returns the state. */
enum sml_connect_state sml_connect_step(struct sml_connect *connect, uint64_t now_ns);

/* Move the channel out (DONE only, once). */
void sml_connect_take(struct sml_connect *connect, struct sml_channel *out_channel);

/* Release everything, in any state, once or more often. */
void sml_connect_close(struct sml_connect *connect);

/* All of it for a thread that may wait. Returns OK, or the status and reason of the failure. */
enum semel_status sml_connect_now(const struct sml_address *address, uint64_t deadline_ns,
                                  struct sml_channel *out_channel, struct sml_reason *out_reason)
    SML_MUST_USE;

#endif
