/* SPDX-License-Identifier: MIT */
/* caller.h - the calling end of a session: a window of calls, each kept until its reply is
 * accepted, over any number of connections one after another. Pure: events in, frames out by
 * pulling, completions out by a list.
 *
 * A call's way:  QUEUED -> SENDING -> SENT -> (REPLYING) -> done
 *                              ^        |
 *                              +- BUSY <+     the one resend on a live connection
 * An xid is given when the first frame is encoded, so xids are dense in sending order; it is never
 * reused. A call that was never encoded was never sent. */
#ifndef SML_SESSION_CALLER_H
#define SML_SESSION_CALLER_H

#include "base/hash.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/table.h"
#include "base/time.h"
#include "session/stream.h"
#include "wire/frame.h"

enum sml_call_phase {
    SML_CALL_NEW,      /* not submitted */
    SML_CALL_QUEUED,   /* no xid yet */
    SML_CALL_SENDING,  /* has an xid; body not wholly encoded on this connection */
    SML_CALL_SENT,     /* waits for its reply */
    SML_CALL_REPLYING, /* part of a reply is here */
    SML_CALL_BUSY,     /* the callee is full: sent again after the delay */
    SML_CALL_DONE      /* on the done list, or handed out */
};

/* One call. The submitter owns the memory and fills the first group; the machine holds the record
 * from submit until it hands it out as done. */
struct sml_call {
    /* Filled by the submitter; the bytes are lent until done. */
    const char *method;
    const char *content_type;
    const char *key;
    const void *body;
    uint64_t body_bytes;
    uint64_t deadline;   /* monotonic ns */
    uint64_t key_age_ms; /* when submitted; 0: it was not used before */
    /* NULL, or inited, and cleared by the submitter once the call is done. */
    struct sml_stream *stream;
    uint8_t method_bytes;
    uint8_t content_type_bytes;
    uint8_t key_bytes;
    uint8_t flags; /* SML_CALL_* of the wire */
    bool prepared; /* sml_call_prepare was called: false in a zeroed record */
    bool rerun;    /* it may have run before: it can no more end as not executed, unless its key
                      proves that. The submitter says so of calls of an earlier process */

    /* The result, valid once done. `verdict` points into `reply`, into static text, or (when
     * `reply_in_place`) into the bytes last given to the machine: copy before giving it more. */
    struct sml_verdict verdict;
    uint8_t *reply; /* owned by the machine's mem; moved to the submitter when done */
    bool reply_in_place;

    /* The machine's. */
    enum sml_call_phase phase;
    bool cancel_wanted; /* a CANCEL is to be encoded */
    bool cancelled_by_user;
    bool doubtful;  /* a server that died may have begun it, said the next one: BUSY proves nothing
                       any more */
    bool resent;    /* this connection sends it again from the start */
    uint32_t epoch; /* the session its xid belongs to */
    uint32_t store_epoch;          /* the store that it was submitted to last */
    uint64_t submitted;            /* monotonic ns */
    struct sml_origin_call origin; /* its first xid and session, once resubmitted */
    uint64_t xid;
    struct sml_fingerprint fingerprint;
    uint64_t body_sent;   /* bytes encoded on this connection */
    uint64_t reply_bytes; /* of the whole reply body, once known */
    bool reply_recorded;  /* it is in the server's store */
    uint64_t reply_held;
    size_t reply_meta;  /* bytes of text, detail and trace at the start of `reply` */
    uint64_t grace_end; /* once cancelled or past the deadline */
    uint64_t busy_until;
    struct sml_list link;  /* one of: queued, to_send, done */
    struct sml_list order; /* outstanding, by xid */
    struct sml_list cancel_link;
    struct sml_heap_node timer;
};

/* Fill in the fingerprint. Optional: submit does it otherwise; a shell calls it before it takes its
 * lock, since a large body takes time. */
void sml_call_prepare(struct sml_call *call);

struct sml_caller_counters {
    uint64_t resent, reattached, replayed, busy, unexpected;
};

struct sml_caller {
    const struct sml_mem *mem;
    uint64_t cancel_grace;     /* ns */
    uint64_t reply_body_bytes; /* largest reply body taken */
    uint32_t pending_max;

    bool up;              /* a connection is there, its resume answered */
    bool listed;          /* this connection's HELLO has listed the outstanding calls */
    bool keys;            /* granted: the server keeps idempotency keys */
    bool stored;          /* granted: the session outlives the server */
    bool streams_granted; /* calls may have streams */
    uint64_t windows;     /* see sml_stream_widen */
    /* The shell's, for large parts; NULL: they are copied. */
    struct sml_views *views;     /* those that are pulled */
    struct sml_backing *backing; /* what the frames that come in are in */
    struct sml_session_id session;
    uint64_t next_limit;         /* xids below it may be given */
    uint64_t durable_hi;         /* the highest xid that the server said was in its store */
    uint32_t epoch;              /* counts sessions */
    uint32_t store_epoch;        /* rises with each change of the store */
    uint64_t next;               /* the next xid */
    uint32_t window;             /* granted */
    uint64_t request_body_bytes; /* granted: largest request body */
    uint64_t session_bytes;      /* granted */
    uint64_t bytes_out;          /* request bodies under way (CALL encoded, no verdict) */
    uint32_t unreleased;         /* xids given and not yet released by an encoded ACK */
    uint32_t pending;            /* on `queued` */
    struct sml_table by_xid;
    struct sml_list queued;  /* no xid, in order of submission */
    struct sml_list to_send; /* SENDING, taking turns */
    struct sml_list order;   /* outstanding, by xid */
    struct sml_list streams; /* parts or credits to encode */
    struct sml_list events;  /* for sml_caller_next_event */
    struct sml_list cancels; /* CANCEL to encode */
    struct sml_list done;
    struct sml_heap timers;     /* deadline, grace end or busy delay of each call */
    struct sml_ack_range *acks; /* to encode, at most `window` */
    uint32_t ack_count, ack_capacity;
    uint64_t ack_due;   /* when the ACK must go even if nothing else does; 0: now; SML_NEVER */
    uint64_t ack_bytes; /* reply bytes they free at the callee */
    struct sml_ack_range *last_acks; /* of a session that ends, to encode before its BYE */
    uint32_t last_ack_count;
    bool accepted_reply; /* a reply was accepted since the connection came up */
    struct sml_caller_counters counters;
};

/* `mem` is used until fini; `cancel_grace` in ns; `pending_max` calls may wait without an xid; the
 * caller takes reply bodies of at most `reply_body_bytes`. */
void sml_caller_init(struct sml_caller *caller, const struct sml_mem *mem, uint64_t cancel_grace,
                     uint32_t pending_max, uint64_t reply_body_bytes);

/* Nothing may be outstanding. */
void sml_caller_fini(struct sml_caller *caller);

/* Take `call` over: it ends on the done list exactly once.
 * Returns OK; OVERLOADED (pending_max reached; nothing taken). A deadline already passed is taken
 * and done at once as not executed (EXPIRED). */
enum semel_status sml_caller_submit(struct sml_caller *caller, struct sml_call *call, uint64_t now)
    SML_MUST_USE;

/* Ask for cancellation; harmless on a call that is done. */
void sml_caller_cancel(struct sml_caller *caller, struct sml_call *call, uint64_t now);

/* The next call that is done, or NULL. It is the submitter's again, except that an ACK is owed
 * until sml_caller_accept says that the application has it. */
struct sml_call *sml_caller_next_done(struct sml_caller *caller);

/* The application has the result of a call that was handed out: release its xid with the next
 * write. After this the machine knows nothing of the record. */
void sml_caller_accept(struct sml_caller *caller, struct sml_call *call, uint64_t now);

/* A part to send, or progress; moved in. False: the call is done or its stream has ended, and the
 * part is freed. The shell bounds what waits: sml_stream_has_room. */
bool sml_caller_send_part(struct sml_caller *caller, struct sml_call *call, struct sml_part *part);
void sml_caller_end_parts(struct sml_caller *caller, struct sml_call *call);

/* The shell took parts out of the call's stream. */
void sml_caller_took_parts(struct sml_caller *caller, struct sml_call *call);

/* A call with news at its stream: parts, progress, an end, room to send, a new attempt. NULL: none.
 * Each is given once, until there is more. A call that is done has no more events. */
struct sml_call *sml_caller_next_event(struct sml_caller *caller);

/* A connection for a new session: xids start again at 1; queued calls stay queued.
 * Nothing may be outstanding. */
void sml_caller_begin_session(struct sml_caller *caller);

/* Does a call wait whose fate only the store that it was submitted to can tell? */
bool sml_caller_needs_store(const struct sml_caller *caller);

/* The server's store is not the one where keyed calls were submitted before: those that wait to be
 * submitted again end as unknown, and so do those that were there and are submitted from now on. */
void sml_caller_fail_keyed(struct sml_caller *caller);

/* WELCOME was read: take over what it grants. The states of the listed calls follow through
 * sml_caller_state; then sml_caller_up. Returns OK; NO_MEMORY. */
enum semel_status sml_caller_grant(struct sml_caller *caller, const struct sml_welcome *welcome)
    SML_MUST_USE;

/* One listed state. Returns OK or PROTOCOL, with *out_why; or SESSION_LOST: the server has
 * forgotten what it had said it would not. */
enum semel_status sml_caller_state(struct sml_caller *caller, const struct sml_listed *listed,
                                   uint64_t now, const char **out_why);

/* All states are in: calls flow. */
void sml_caller_up(struct sml_caller *caller);

/* The connection is gone; outstanding calls wait for the next. */
void sml_caller_down(struct sml_caller *caller);

/* The calls a HELLO must list: sml_caller_outstanding counts them; sml_caller_list writes them all
 * in xid order. From then on the connection's callee knows of them: what ends meanwhile is released
 * by an ACK once the connection is up. */
uint32_t sml_caller_outstanding(const struct sml_caller *caller);
void sml_caller_list(struct sml_caller *caller, struct sml_outstanding *entries);

/* REPLY, BODY or BUSY. Returns OK or PROTOCOL with *out_why. A reply for which there is no memory
 * ends its call as unknown (NO_MEMORY). */
enum semel_status sml_caller_frame(struct sml_caller *caller, const struct sml_frame *frame,
                                   uint64_t now, const char **out_why);

/* Encode what is due, at most `room` bytes (with less than SML_FRAME_BYTES_MAX it may be nothing).
 * `more_calls` false holds back calls that have no xid yet (draining). Returns bytes. */
size_t sml_caller_pull(struct sml_caller *caller, uint8_t *out, size_t room, bool more_calls,
                       uint64_t now);

/* The session is about to be ended by a BYE: the acknowledgements that are owed go out before it,
 * so that the callee knows what was accepted; or they do not, with the connection. */
void sml_caller_keep_acks(struct sml_caller *caller);
size_t sml_caller_pull_last_acks(struct sml_caller *caller, uint8_t *out, size_t room);
void sml_caller_drop_last_acks(struct sml_caller *caller);

/* Would a pull give anything now? */
bool sml_caller_wants_write(const struct sml_caller *caller, bool more_calls, uint64_t now);

/* When sml_caller_tick must be called at the latest; SML_NEVER if there is no need. */
uint64_t sml_caller_timeout(const struct sml_caller *caller);
void sml_caller_tick(struct sml_caller *caller, uint64_t now);

/* The session is gone, by the word of an authority (`lost`), or because it is given up: calls that
 * were sent end as unknown with `why`, except that with `lost` those marked rerun_ok, and those
 * with a key, go back to the queue. Calls never sent stay queued when `keep_queued`, else they end
 * as not executed. */
void sml_caller_end_session(struct sml_caller *caller, enum semel_status why, bool lost,
                            bool keep_queued, uint64_t now);

/* Calls neither done nor handed out. */
bool sml_caller_idle(const struct sml_caller *caller);

#endif
