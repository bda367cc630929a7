/* SPDX-License-Identifier: MIT */
/* limits.h - every default and every fixed bound, in one place.
 *
 * The first group are defaults that an options field of 0 selects; the second are fixed. */
#ifndef SEMEL_LIMITS_H
#define SEMEL_LIMITS_H

/* Defaults. */
#define SEMEL_DEADLINE_MS 30000           /* per call */
#define SEMEL_CANCEL_GRACE_MS 1000        /* wait for the verdict after a deadline */
#define SEMEL_CONNECT_MS 3000             /* per address */
#define SEMEL_HANDSHAKE_MS 5000           /* from accept or connect to WELCOME */
#define SEMEL_HEARTBEAT_MS 5000           /* silence before a PING */
#define SEMEL_HEARTBEAT_MISSED 3          /* unanswered heartbeats before the link counts as lost */
#define SEMEL_BACKOFF_MIN_MS 100          /* second reconnect attempt; the first is immediate */
#define SEMEL_BACKOFF_MAX_MS 5000         /* ceiling, before jitter */
#define SEMEL_GIVE_UP_MS 60000            /* without a connection, before outstanding calls end */
#define SEMEL_IDLE_SESSION_MS 300000      /* a session without a connection is kept this long */
#define SEMEL_DURABLE_SESSION_MS 86400000 /* the same where sessions are in a store: 24 h */
#define SEMEL_KEY_RETENTION_MS 604800000  /* an idempotency key is kept this long: 7 days */
#define SEMEL_KEPT_MS_MAX 315360000000    /* at most, each of these: 10 years */
#define SEMEL_WINDOW_CALLS 1024           /* calls of one session under way at once */
#define SEMEL_BODY_BYTES 16777216         /* largest request or reply body: 16 MiB */
#define SEMEL_SESSION_BYTES 67108864      /* bodies of one session under way at once: 64 MiB */
#define SEMEL_PENDING_CALLS 65536         /* calls of one client waiting for the window */
#define SEMEL_BACKLOG_CALLS 1024          /* calls waiting for a worker at a server */
#define SEMEL_WORKERS_MIN 2               /* workers = cores, at least this */
#define SEMEL_SESSIONS 100000             /* sessions of one server */
#define SEMEL_CONNECTIONS 65536           /* connections of one server */
#define SEMEL_CLIENT_HANDLERS 2           /* threads for methods that a client exports */
#define SEMEL_BUSY_MS 20                  /* delay that an overloaded server asks for */
#define SEMEL_POOL_WAITING_CALLS 65536    /* calls of one pool waiting for a worker */
#define SEMEL_POOL_START_MS 10000         /* a worker's program, from exec to its first word */
#define SEMEL_POOL_RESTART_MIN_MS 100     /* after a worker that ended before its first call had */
#define SEMEL_POOL_RESTART_MAX_MS 10000   /* the same after many of them */
#define SEMEL_POOL_FAST_DEATHS 10         /* so many of them in a row, and the place is given up */
#define SEMEL_POOL_STOP_GRACE_MS 2000     /* a worker that is asked to end has so long */
#define SEMEL_WAITING_TASKS 1024          /* tasks of one executor that have not begun */
#define SEMEL_TASK_DEADLINE_MS 86400000   /* per task: 24 h */

/* Fixed bounds. */
#define SEMEL_STORED_BODY_BYTES_MAX 536870912 /* highest body limit with a store: 512 MiB */
#define SEMEL_CRASHES_MAX 3 /* a transactional call that crashed the server so often is poisoned */
#define SEMEL_METHOD_BYTES 255          /* longest method name */
#define SEMEL_DESCRIBE_BYTES 4096       /* longest description of a method; longer is refused */
#define SEMEL_CONTENT_TYPE_BYTES 255    /* longest content type */
#define SEMEL_KEY_BYTES 255             /* longest idempotency key */
#define SEMEL_TEXT_BYTES 1024           /* longest failure text; longer is cut */
#define SEMEL_PROGRESS_BYTES 4096       /* largest progress of a stream */
#define SEMEL_DETAIL_BYTES 8192         /* longest failure detail; longer is refused */
#define SEMEL_TRACE_BYTES 8192          /* longest trace text; longer is cut */
#define SEMEL_WINDOW_CALLS_MAX 65536    /* highest window that may be asked for */
#define SEMEL_BODY_BYTES_MAX 4294967296 /* highest body limit that may be asked for: 4 GiB */
#define SEMEL_CLIENT_HANDLERS_MAX 256   /* highest number of threads for exported methods */
#define SEMEL_ADDRESSES_MAX 16          /* alternatives in one address list */
#define SEMEL_ADDRESS_BYTES 512         /* longest single address */
#define SEMEL_POOL_WORKERS_MAX 1024     /* processes of one pool */
#define SEMEL_POOL_RERUNS_MAX 3         /* a call that ended more workers runs in no further one */

#endif
