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
 * with REFUSED (BUSY) and verdicts made before it ran as side ways.
 *
 * With a store, what must outlive the process is written down on the way:
 *   TAKEN -> STARTING -> STARTED -> RUNNING -> STORING -> DONE    a start before, a verdict after
 *   TAKEN -> RUNNING -> STORING -> DONE                           with its effect, at once
 * and nothing is said of a call whose record is under way. Changes are pulled out of the machine
 * (callee_store.c) as frames are; the store's answer comes back. Records of released calls are
 * forgotten together with the rise of `base`, below which nothing runs again. */
#ifndef SML_SESSION_CALLEE_H
#define SML_SESSION_CALLEE_H

#include <stdatomic.h>

#include "base/bug.h"
#include "base/hash.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/table.h"
#include "base/time.h"
#include "session/stream.h"
#include "wire/frame.h"

enum sml_incoming_phase {
    SML_IN_EXPECTED,   /* listed at a resume, not seen yet */
    SML_IN_RECEIVING,  /* its body is arriving */
    SML_IN_READY,      /* complete; waits to be taken */
    SML_IN_TAKEN,      /* the shell holds it in its run queue */
    SML_IN_STARTING,   /* its start is being stored */
    SML_IN_STARTED,    /* its start is stored; it waits for its handler */
    SML_IN_UNSTARTING, /* it will not be run now: that is being stored */
    SML_IN_RUNNING,    /* its handler has begun */
    SML_IN_STORING,    /* has its verdict, which is being stored */
    SML_IN_DONE,       /* has its verdict, which may be told */
    SML_IN_REFUSED     /* BUSY was said; the caller will send it again */
};

/* What became of a verdict, for handlers whose reply takes something with it. The shell's memory,
 * given with sml_callee_finish, and given back once by sml_callee_next_receipt. */
struct sml_receipt {
    struct sml_list link;
    bool accepted; /* false: nobody has the verdict, and nobody will have it */
};

/* One call at the callee. Allocated and freed by the machine; the shell holds it from take until
 * finish, refuse or reject, also when the session has released it meanwhile (`gone`). */
struct sml_incoming {
    uint64_t xid;
    struct sml_fingerprint fingerprint;
    const char *method;       /* NUL-terminated */
    const char *content_type; /* NUL-terminated */
    const char *key;          /* NUL-terminated; "" for none */
    uint8_t method_bytes, content_type_bytes, key_bytes;
    uint8_t flags;                 /* SML_CALL_* of the wire */
    struct sml_origin_call origin; /* with SML_CALL_ORIGIN */
    uint64_t key_age_ms;           /* at arrival; 0: the key is new */
    enum sml_incoming_phase phase;
    uint8_t *body;
    uint64_t body_bytes;
    uint64_t deadline; /* monotonic ns, anchored at arrival */

    /* Read by handlers on other threads. */
    atomic_bool cancelled;
    atomic_bool gone; /* released: nobody waits for the verdict */

    /* The store's, read by it while its change is under way. */
    uint64_t row;    /* the number of its record; 0: none */
    uint8_t crashes; /* how often the server died while it ran */
    bool begun;      /* an earlier server began it, or one with its key: it can no more end as not
                        executed */
    bool in_doubt;   /* the same, if its method keeps no records of its calls */
    bool proven;     /* see SML_REPLY_PROVEN */
    bool answered;   /* its verdict is that of another call with its key */

    /* The machine's. */
    bool held;                /* by the shell */
    bool in_batch;            /* by the store: a change of it is under way */
    bool unidentified;        /* restored without its fingerprint */
    enum semel_status doomed; /* it ends as not executed with this, once its start is stored, or
                                 before its handler begins again */
    bool listed;              /* while a resume is worked through */
    bool cancel_waits;        /* CANCEL came while it was in doubt: its CALL will tell its method */
    bool body_counted;        /* in bytes_in */
    bool body_kept;           /* in bytes_kept */
    bool body_inline;         /* in the record's own memory */
    uint64_t body_received;
    uint64_t run_until;         /* max_run; SML_NEVER */
    struct sml_verdict verdict; /* points into `reply` or static text */
    uint8_t *reply;
    struct sml_stream *stream;   /* NULL: none */
    bool reply_waits;            /* for the parts before it */
    bool unread;                 /* its caller cancelled it: its parts wait for no credit */
    uint64_t reply_sent;         /* body bytes encoded on this connection */
    bool reply_told;             /* the whole reply was encoded, on some connection */
    struct sml_receipt *receipt; /* NULL: nobody asks */
    bool reply_begun;            /* a REPLY was encoded on this connection */
    uint32_t busy_delay_ms;      /* what its last BUSY asked for */
    struct sml_list link;        /* one of: ready, to_send, busy, to_record */
    struct sml_list all;         /* by xid; once released: dropped */
    struct sml_list cancel_link; /* cancellations the shell has not seen */
    struct sml_heap_node timer;  /* deadline before it runs, run_until while it runs */
    void *user;                  /* the shell's */
};

/* So many records of released calls may a store hold beside a window or two, because it was too
 * busy to forget them. */
#define SML_RECORDS_LATE 4096

struct sml_callee_limits {
    uint32_t window;
    uint64_t body_bytes;    /* largest request body */
    uint64_t session_bytes; /* request bodies, and, apart, stored replies */
};

/* Does a method keep records of its calls, so that one without a record has not begun? */
struct sml_callee_methods {
    bool (*keeps_records)(void *user, struct semel_bytes method);
    void *user;
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
    bool durable;   /* a store keeps records ... */
    struct sml_callee_methods methods; /* ... of calls of these; asked after a restart only */
    bool keys;                         /* the caller may send keys */
    bool streams_granted;              /* its calls may have streams */
    /* The shell's, for large parts; NULL: they are copied. */
    struct sml_views *views;     /* those that are pulled */
    struct sml_backing *backing; /* what the frames that come in are in */
    bool restored;               /* and not resumed since: above `base` the table is not complete */

    uint64_t hi;
    uint64_t base;         /* stored: up to here, what is not in the table is released */
    uint64_t base_pending; /* what `base` becomes when the changes under way are stored */
    bool forgetting;       /* some of these forget a record */
    uint64_t durable_hi;   /* the highest call that a record or `base` ever covered */
    struct sml_table table;
    struct sml_list all; /* in the table, by xid */
    struct sml_list ready;
    struct sml_list to_send;   /* replies, taking turns */
    struct sml_list busy;      /* BUSY to encode */
    struct sml_list streams;   /* parts or credits to encode */
    struct sml_list events;    /* for sml_callee_next_event */
    uint64_t windows;          /* see sml_stream_widen */
    struct sml_list cancels;   /* for sml_callee_next_cancelled */
    struct sml_list to_record; /* starts and verdicts to store */
    struct sml_list dropped;   /* released calls whose records are to be forgotten */
    struct sml_list receipts;  /* for sml_callee_next_receipt */
    bool ending;               /* what is released now was not accepted */
    bool forsaken;             /* the store has the verdicts, and will tell them */
    uint32_t dropped_count;
    struct sml_heap timers;
    uint64_t bytes_in;         /* request bodies held */
    uint64_t bytes_kept;       /* bodies that count no more in bytes_in, but the shell has them */
    uint64_t bytes_stored;     /* replies held */
    uint32_t held;             /* holds of the shell and of the store, on released records too */
    uint64_t reply_body_bytes; /* largest reply the caller takes */
    struct sml_callee_counters counters;
};

void sml_callee_init(struct sml_callee *callee, const struct sml_mem *mem,
                     const struct sml_callee_limits *limits);

/* Release every record (those that are held are only detached, and freed when they are let go).
 * The callee stays valid until `held` is 0 and it has no more changes. */
void sml_callee_clear(struct sml_callee *callee);

/* The same where the session goes on in a store: nothing is forgotten there. The shell holds
 * nothing any more. */
void sml_callee_forsake(struct sml_callee *callee);

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

/* The handler is about to begin, of a call that is TAKEN or STARTED. False: it was cancelled,
 * expired or released meanwhile and has its verdict; the shell no longer holds it. `max_run` in ns,
 * 0 for none. */
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

/* Before sml_callee_finish: say by `receipt` what becomes of the verdict. It is accepted when the
 * caller, to whom all of it was sent, releases it. (A caller that gives a call up while its reply
 * is under way cannot be told from one that has it.) It is not when it was discarded, when the
 * caller gave up before, and when the session ends. The verdict of a call with a key, or in a store
 * that goes on without this server, is accepted in any case: somebody may still ask for it. */
void sml_callee_ask_receipt(struct sml_incoming *in, struct sml_receipt *receipt);

/* The next receipt that is decided, the shell's again; NULL. To be asked after all that releases
 * calls. */
struct sml_receipt *sml_callee_next_receipt(struct sml_callee *callee);

/* A running or taken call whose `cancelled` was set and whose handler is to be told; NULL if none.
 * Each is given once. */
struct sml_incoming *sml_callee_next_cancelled(struct sml_callee *callee);

/* A part of the call that is RUNNING to its caller, or progress; moved in. False: nobody takes it
 * (the caller asked for none, or left, or the call has its verdict), and it is freed. The shell
 * bounds what waits: sml_stream_has_room. */
bool sml_callee_send_part(struct sml_callee *callee, struct sml_incoming *in,
                          struct sml_part *part);

/* The shell took parts out of the call's stream. */
void sml_callee_took_parts(struct sml_callee *callee, struct sml_incoming *in);

/* A call that the shell holds with news at its stream: parts, progress, an end, room to send,
 * nobody left to send to. NULL: none. Each is given once, until there is more. */
struct sml_incoming *sml_callee_next_event(struct sml_callee *callee);

/* The call is RUNNING and was cancelled before: its handler is to be told once more. */
void sml_callee_cancel_again(struct sml_callee *callee, struct sml_incoming *in);

/* The server stops: handlers that run are to be told. Every other call without a verdict ends as
 * not executed with `why`, or, with a store, goes on when the server is back. */
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
/* The same where the session goes on in a store: what is left may wait for the next server. It
 * does: calls that the caller is to send again; and if it is not connected, its stored verdicts,
 * with what they hold back. */
bool sml_callee_may_leave(const struct sml_callee *callee, bool connected);

/* A call that ends so leaves its key free: it did not happen. */
static inline bool sml_verdict_frees_key(const struct sml_verdict *verdict)
{
    return verdict->outcome == SEMEL_NOT_EXECUTED ||
           (SML_BUG(KEY_FREED_ON_FAILURE) && verdict->outcome == SEMEL_FAILURE);
}

/* --- with a store: callee_store.c -------------------------------------------------------- */

/* A call that is TAKEN is to run once its start is stored: STARTING. False: as sml_callee_begin. */
bool sml_callee_start(struct sml_callee *callee, struct sml_incoming *in, uint64_t now);

/* The server stops: a call that is TAKEN, or STARTED, will not be run by it. The shell lets go. The
 * caller comes back with it when the server does. */
void sml_callee_postpone_to_restart(struct sml_callee *callee, struct sml_incoming *in);

/* The keyed call that is STARTING need not start: this is its verdict (of the call that used the
 * key first, or that there can be none). As sml_callee_finish otherwise. */
void sml_callee_answer(struct sml_callee *callee, struct sml_incoming *in,
                       const struct sml_verdict *verdict, uint8_t *reply, bool proven);

/* The keyed call that is STARTING cannot start now, since another one with its key has not ended:
 * as sml_callee_refuse, with twice the delay each time, up to SML_POSTPONED_MS. */
#define SML_POSTPONED_MS 1000
void sml_callee_postpone(struct sml_callee *callee, struct sml_incoming *in, uint32_t delay_ms);

/* The RUNNING call has its verdict in a transaction that is still open: STORING, held by the store
 * instead of the shell. sml_callee_recorded follows if it was committed, else sml_callee_retry. */
void sml_callee_decide(struct sml_callee *callee, struct sml_incoming *in,
                       const struct sml_verdict *verdict, uint8_t *reply);
/* The transaction is gone: TAKEN again, held by the shell, the verdict forgotten. */
void sml_callee_retry(struct sml_callee *callee, struct sml_incoming *in);

/* The same for a RUNNING call that has no verdict yet. */
void sml_callee_give_back(struct sml_callee *callee, struct sml_incoming *in);

enum sml_change_kind {
    SML_CHANGE_START,  /* store that it begins */
    SML_CHANGE_AGAIN,  /* store that it has not begun after all */
    SML_CHANGE_END,    /* store its verdict */
    SML_CHANGE_LEAVE,  /* it is released: store the verdict for its key, forget the call's record */
    SML_CHANGE_FORGET, /* it is released: forget its record; a key that it began with is free, or,
                          if it has `begun`, free for whoever may run again */
};

struct sml_change {
    enum sml_change_kind kind;
    struct sml_incoming *in; /* its fields do not change before sml_callee_recorded */
};

/* The next change to store, from now on under way; false if there is none. Urgent ones, for which
 * somebody waits, come before the rest, unless a window of records is to be forgotten. Whoever
 * takes calls' verdicts into transactions of his own pulls changes there, too, lest released calls
 * pile up in the store: see SML_RECORDS_LATE. */
bool sml_callee_next_change(struct sml_callee *callee, struct sml_change *out_change);
bool sml_callee_has_change(const struct sml_callee *callee);
static inline bool sml_callee_has_urgent_change(const struct sml_callee *callee)
{
    return !sml_list_empty(&callee->to_record);
}

/* With the changes under way, the session's own record must be stored, in the same transaction:
 * base rises, or what was a straggler is forgotten. */
static inline bool sml_callee_base_rises(const struct sml_callee *callee)
{
    return callee->forgetting;
}
/* Its stragglers then: calls up to base_pending that are open and have no record. Returns how many;
 * writes at most `room` of them, 8 bytes each, rising. */
uint32_t sml_callee_stragglers(const struct sml_callee *callee, uint8_t *out, uint32_t room);
/* The session's record was stored, or was not. */
void sml_callee_base_recorded(struct sml_callee *callee, bool committed);

/* The change is stored, `row` being the number of the call's record (0: it has none any more); or
 * it is not, and will be pulled again. A change whose fate is unknown is never reported: nothing
 * must be said of its call. False: a START that is not stored and was cancelled, has expired or was
 * released meanwhile: it has its verdict, and the shell no longer holds it. */
bool sml_callee_recorded(struct sml_callee *callee, const struct sml_change *change, uint64_t row,
                         bool committed);

/* Restoring a session, before it is attached for the first time. */
struct sml_session_record;
struct sml_call_record;
/* False: no memory. */
bool sml_callee_restore(struct sml_callee *callee, const struct sml_session_record *record)
    SML_MUST_USE;
/* One call's record, number `row`, in any order. ENDED: it waits for its caller with its verdict.
 * AGAIN: it is expected again. STARTED: it is RUNNING and held by the shell, which must finish
 * it, or expect it again. NULL: no memory, or (out_why) it contradicts what was restored before. */
struct sml_incoming *sml_callee_restore_call(struct sml_callee *callee, uint64_t row,
                                             const struct sml_call_record *record,
                                             const char **out_why);
/* The restored call that is RUNNING may be run again when its caller sends it again. */
void sml_callee_expect_again(struct sml_callee *callee, struct sml_incoming *in);

#endif
