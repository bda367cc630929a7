/* SPDX-License-Identifier: MIT */
/* listener.h - a place where clients connect: unix: or tcp:.
 *
 * A unix socket is guarded by a lock file beside it ("PATH.lock"), held as long as the listener
 * lives and removed with it: of two servers that start at once exactly one wins. The socket file
 * of a dead server is replaced, a live one (of whatever program) is ADDRESS_IN_USE, and closing
 * removes the file only if it is still our own. */
#ifndef SML_IO_LISTENER_H
#define SML_IO_LISTENER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "io/address.h"
#include "io/channel.h"

#define SML_LISTENER_PAUSE_MS 50 /* see SML_ACCEPT_PAUSE */

struct sml_listener {
    int fd;       /* watch it for input; -1: not open */
    int fd_lock;  /* unix */
    int fd_spare; /* given up to turn a client away when descriptors run out */
    dev_t device; /* unix: of our socket file */
    ino_t inode;
    struct sml_address address; /* as bound: a chosen port is filled in, the host is numeric */
};

/* `insecure` allows tcp: beyond loopback. Name resolution may block. Returns OK; ADDRESS_IN_USE;
 * DENIED (beyond loopback without `insecure`; the system's refusal); BAD_ADDRESS (unknown host, not
 * an address of this machine, missing directory, the path is something else, fd:); LIMIT,
 * NO_MEMORY, SYSTEM. out_reason (may be NULL) names the address. */
enum semel_status sml_listener_open(struct sml_listener *out_listener,
                                    const struct sml_address *address, bool insecure,
                                    struct sml_reason *out_reason) SML_MUST_USE;

/* Stop listening and remove the socket file. Clients not yet accepted are reset. Once or more
 * often. */
void sml_listener_close(struct sml_listener *listener);

/* Release the descriptors only: for a forked child, whose parent goes on listening. */
void sml_listener_abandon(struct sml_listener *listener);

enum sml_accept {
    SML_ACCEPT_OK,
    SML_ACCEPT_NONE,        /* nobody waits */
    SML_ACCEPT_TURNED_AWAY, /* no descriptors left: one client was accepted and closed; go on */
    SML_ACCEPT_PAUSE /* nothing can be accepted now, and the descriptor stays readable: do not
                          watch it for SML_LISTENER_PAUSE_MS */
};

/* Accept one client. `out_reason` (may be NULL) is set for TURNED_AWAY and PAUSE: for the log.
 * One thread at a time. Never blocks. */
enum sml_accept sml_listener_accept(struct sml_listener *listener, struct sml_channel *out_channel,
                                    struct sml_reason *out_reason);

#endif
