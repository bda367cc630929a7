/* SPDX-License-Identifier: MIT */
/* locks.h - the locks of semel serve --locks, for semel lock.
 *
 * Three methods; bodies and replies are text:
 *   lock.take     NAME        waits in line; replies FENCE LEASE_MS
 *   lock.keep     FENCE NAME  the lock is held for LEASE_MS more from its arrival on. The first
 *                             one replies at once, others after a third of that; with nothing
 *   lock.release  FENCE NAME  the next in line has it
 * They fail with a status of semel/status.h as the code: EXPIRED when this holder has it no more.
 * FENCE is a number that is higher with each lock that is granted, whatever its name. */
#ifndef TOOL_LOCKS_H
#define TOOL_LOCKS_H

#include <semel/server.h>
#include <stdint.h>

#define LOCK_TAKE "lock.take"
#define LOCK_KEEP "lock.keep"
#define LOCK_RELEASE "lock.release"
#define LOCK_NAME_BYTES 255
#define LOCK_LEASE_MS 10000

struct locks;

/* Make what the methods need, and export them. *out_locks outlives the server. Returns: OK; what
 * the library says. */
enum semel_status locks_export(struct locks **out_locks, struct semel_server *server,
                               int64_t lease_ms);

/* The server is about to end: whoever is in line is told, and nobody joins it. NULL is fine. */
void locks_close(struct locks *locks);

/* The server is gone. NULL is fine. */
void locks_destroy(struct locks *locks);

#endif
