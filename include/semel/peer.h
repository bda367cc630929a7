/* SPDX-License-Identifier: MIT */
/* peer.h - who is at the other end of a connection. */
#ifndef SEMEL_PEER_H
#define SEMEL_PEER_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The principal and the address of a peer. uid and gid come from the kernel and are present
 * for unix sockets and pairs; everything else is anonymous until authentication exists. */
struct semel_peer {
    const char *address; /* borrowed text, for instance "unix:/run/x pid 17" or "tcp:127.0.0.1:9" */
    bool has_ids;        /* uid and gid below are the kernel's word */
    unsigned uid;
    unsigned gid;
};

#ifdef __cplusplus
}
#endif
#endif
