/* SPDX-License-Identifier: MIT */
/* callee.h - the answering end of a session: each call runs at most once, its verdict is kept
 * until the caller released it. Pure.
 *
 * The whole memory is `hi` and a table of at most `window` live calls:
 *   xid == hi + 1           new
 *   xid <= hi, in table     duplicate: compare fingerprints; attach, or send the verdict again
 *   xid <= hi, not in table released: stale, dropped
 *   anything else           protocol error
 * A call's way:  EXPECTED -> RECEIVING -> READY -> TAKEN -> RUNNING -> DONE -> released
 * with REFUSED (BUSY) and verdicts made before it ran as side ways. */
#ifndef SML_SESSION_CALLEE_H
#define SML_SESSION_CALLEE_H

#include <stdatomic.h>

#include "base/hash.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/table.h"
#include "base/time.h"
#include "wire/frame.h"

enum sml_incoming_phase {
    SML_IN_EXPECTED,  /* listed at a resume, not seen yet */
    SML_IN_RECEIVING, /* its body is arriving */
    SML_IN_READY,     /* complete; waits to be taken */
    SML_IN_TAKEN,     /* the shell holds it in its run queue */
    SML_IN_RUNNING,   /* its handler has begun */
    SML_IN_DONE,      /* has its verdict */
    SML_IN_REFUSED    /* BUSY was said; the caller will send it again */
};

/* One call at the callee. Allocated and freed by the machine; the shell holds it from take until
 * finish, refuse or reject, also when the session has released it meanwhile (`gone`). */
struct sml_incoming {
    uint64_t xid;
    struct sml_fingerprint fingerprint;
    const char *method;       /* NUL-terminated */
    const char *content_type; /* NUL-terminated */
    uint8_t method_bytes, content_type_bytes;
    uint8_t flags; /* SML_CALL_* of the wire */
    enum sml_incoming_phase phase;
    uint8_t *body;
    uint64_t body_bytes;
    uint64_t deadline; /* monotonic ns, anchored at arrival */

    /* Read by handlers on other threads. */
    atomic_bool cancelled;
    atomic_bool gone; /* released: nobody waits for the verdict */

    /* The machine's. */
    bool held;         /* by the shell */
    bool listed;       /* while a resume is worked through */
    bool body_counted; /* in bytes_in */
    bool body_kept;    /* in bytes_kept */
    bool body_inline;  /* in the record's own memory */
    uint64_t body_received;
    uint64_t run_until;         /* max_run; SML_NEVER */
    struct sml_verdict verdict; /* points into `reply` or static text */
    uint8_t *reply;
    uint64_t reply_sent;  /* body bytes encoded on this connection */
    bool reply_begun;     /* a REPLY was encoded on this connection */
    struct sml_list link; /* one of: ready, to_send, busy */
    struct sml_list all;
    struct sml_list cancel_link; /* cancellations the shell has not seen */
    struct sml_heap_node timer;  /* deadline before it runs, run_until while it runs */
    void *user;                  /* the shell's */
};

struct sml_callee_limits {
    uint32_t window;
    uint64_t body_bytes;    /* largest request body */
    uint64_t session_bytes; /* request bodies, and, apart, stored replies */
};

struct sml_callee_counters {
    uint64_t received, duplicates, stale, reattached, replayed, false_retries;
    uint64_t cancelled, abandoned;
    uint64_t busy, overloaded; /* refused by sml_callee_take: BUSY said, or not executed */
    uint64_t values, failures, not_executed, unknown;
};

struct sml_callee {
    const struct sml_mem *mem;
    struct sml_callee_limits limits;
    bool dedup_off; /* proof only: run duplicates and stale calls again (tests/sim) */

    uint64_t hi;
    struct sml_table table;
    struct sml_list all; /* in the table */
    struct sml_list ready;
    struct sml_list to_send; /* replies, taking turns */
    struct sml_list busy;    /* BUSY to encode */
    struct sml_list cancels; /* for sml_callee_next_cancelled */
    struct sml_heap timers;
    uint64_t bytes_in;     /* request bodies held */
    uint64_t bytes_kept;   /* bodies that count no more in bytes_in, but the shell has them */
    uint64_t bytes_stored; /* replies held */
    uint32_t held;         /* records the shell holds, released ones included */
    uint32_t busy_delay_ms;
    uint64_t reply_body_bytes; /* largest reply the caller takes */
    struct sml_callee_counters counters;
};

void sml_callee_init(struct sml_callee *callee, const struct sml_mem *mem,
                     const struct sml_callee_limits *limits);

/* Release every record (those the shell holds are only detached, and freed when it lets go). The
 * callee stays valid for letting go until `held` is 0. */
void sml_callee_clear(struct sml_callee *callee);

/* CALL, BODY, ACK or CANCEL. Returns OK; PROTOCOL or FALSE_RETRY with *out_why, and the connection
 * must be closed; NO_MEMORY likewise (nothing was lost: the caller resumes). */
enum semel_status sml_callee_frame(struct sml_callee *callee, const struct sml_frame *frame,
                                   uint64_t now, const char **out_why);

/* A resume: `entries` are the caller's outstanding calls in rising xid order, `next` its next xid.
 * What is not listed is released, hi becomes next - 1, and out_states (as many as entries) says
 * where each stands. Returns OK; PROTOCOL, FALSE_RETRY or NO_MEMORY with *out_why: nothing was
 * released, and the connection must be closed. */
enum semel_status sml_callee_resume(struct sml_callee *callee, uint64_t next,
                                    const struct sml_outstanding *entries, uint32_t count,
                                    struct sml_listed *out_states, const char **out_why);

/* The connection is gone: everything is kept, what was being encoded begins again later. */
void sml_callee_down(struct sml_callee *callee);

/* The call that has been complete the longest, now TAKEN and held by the shell; NULL if there is
 * none or the callee is stalled. While the shell holds twice the window of calls,
 * released ones included, or too many bytes of released ones, a call is refused instead. */
struct sml_incoming *sml_callee_take(struct sml_callee *callee);

/* Stored replies exceed their bytes: nothing begins until the caller has released some. */
static inline bool sml_callee_is_stalled(const struct sml_callee *callee)
{
    return callee->bytes_stored > callee->limits.session_bytes;
}

/* The handler is about to begin. False: it was cancelled, expired or released meanwhile and has
 * its verdict; the shell no longer holds it. `max_run` in ns, 0 for none. */
bool sml_callee_begin(struct sml_callee *callee, struct sml_incoming *in, uint64_t max_run,
                      uint64_t now);

/* The shell lets a TAKEN call go: BUSY with a delay (a caller that said REFUSE_WHEN_FULL gets not
 * executed, OVERLOADED) ... */
void sml_callee_refuse(struct sml_callee *callee, struct sml_incoming *in, uint32_t delay_ms);
/* ... or a verdict without running it (no such method, stopped). `text` is copied. */
void sml_callee_reject(struct sml_callee *callee, struct sml_incoming *in, enum semel_status why,
                       const char *text);

/* Room for a verdict, allocated through mem: `reply` moves to the machine with sml_callee_finish.
 * The verdict's views must point into it or be static. NULL: no memory. */
uint8_t *sml_callee_reply_alloc(struct sml_callee *callee, size_t bytes);

/* The RUNNING call has its verdict: it is stored and sent, or, where the call already has one
 * (max_run) or is gone, discarded. The shell no longer holds it. Always succeeds.
 * Returns whether it was stored. */
bool sml_callee_finish(struct sml_callee *callee, struct sml_incoming *in,
                       const struct sml_verdict *verdict, uint8_t *reply);

/* A running or taken call whose `cancelled` was set and whose handler is to be told; NULL if none.
 * Each is given once. */
struct sml_incoming *sml_callee_next_cancelled(struct sml_callee *callee);

/* The server stops: handlers that run are to be told, and every other call without a verdict ends
 * as not executed with `why`. */
void sml_callee_stop(struct sml_callee *callee, enum semel_status why);

/* Encode what is due, at most `room` bytes. Returns bytes. */
size_t sml_callee_pull(struct sml_callee *callee, uint8_t *out, size_t room, uint64_t now);
/* Would a pull with room enough give anything? */
bool sml_callee_wants_write(const struct sml_callee *callee);

/* When sml_callee_tick must be called at the latest; SML_NEVER if there is no need. */
uint64_t sml_callee_timeout(const struct sml_callee *callee);
void sml_callee_tick(struct sml_callee *callee, uint64_t now);

/* No call receives, waits or runs, and no verdict is left that the caller has not released. */
bool sml_callee_empty(const struct sml_callee *callee);

#endif
