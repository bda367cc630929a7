/* SPDX-License-Identifier: MIT */
/* host.h - the server's side of sessions: who may create, resume and take one over, and when an
 * abandoned one ends. Pure.
 *
 * A session outlives its connections; it is attached to at most one peer, the one with the highest
 * conn_no.
 *
 * With a store a session outlives the host, too. Its record is stored before the first WELCOME, and
 * again before each later one, with the connection's number: a HELLO that was overtaken stays
 * refused after a restart. */
#ifndef SML_SESSION_HOST_H
#define SML_SESSION_HOST_H

#include "session/callee.h"
#include "session/peer.h"
#include "session/record.h"

struct sml_session {
    struct sml_session_id id;
    uint8_t secret_hash[32];
    struct sml_principal principal;
    uint64_t conn_no;
    struct sml_peer *peer; /* attached, or NULL */
    struct sml_callee callee;
    struct sml_list all;  /* the host's */
    struct sml_list left; /* the host's: no connection */
    struct sml_session *next_in_bucket;
    struct sml_heap_node expiry;
    void *user; /* the shell's */
    /* With a store. */
    uint64_t row;            /* the number of its record; 0: none */
    uint64_t conn_no_stored; /* in it */
    bool ended;              /* the host knows it no more */
    bool in_batch;           /* a change of it is under way */
};

/* What is to be stored of a session itself. */
enum sml_session_change {
    SML_SESSION_SAME,
    SML_SESSION_PUT,   /* its record */
    SML_SESSION_DELETE /* no record, before any record of its calls is forgotten */
};

struct sml_host_options {
    struct sml_callee_limits limits; /* of each session */
    uint32_t sessions_max;
    uint64_t idle;      /* ns a session without a connection is kept */
    uint64_t handshake; /* ns from accept until the list of calls is complete */
    uint64_t silence;   /* ns without a byte before a peer is closed; SML_NEVER: none */
    uint32_t heartbeat_ms;
    bool durable; /* sessions are kept in a store ... */
    struct {
        uint8_t id[16];
        uint64_t generation; /* from 1 */
    } store;                 /* ... that is known by this */
    struct sml_callee_methods methods;
    uint32_t features; /* SML_FEATURE_* that the server can do */
    bool dedup_off;    /* proof only, see callee.h */
};

struct sml_host_counters {
    uint64_t created, resumed, expired, ended, protocol_errors;
};

struct sml_host {
    struct sml_host_options options;
    const struct sml_mem *mem;
    uint8_t server_id[16];
    uint64_t salt[3]; /* of the buckets; never told */
    bool draining;
    struct sml_list sessions;
    struct sml_list left; /* of these, without a connection: the longest first, more or less */
    struct sml_session **buckets;
    uint32_t bucket_count, session_count;
    struct sml_heap expiries;
    struct sml_host_counters counters;
};

void sml_host_init(struct sml_host *host, const struct sml_mem *mem,
                   const struct sml_entropy *entropy, const struct sml_host_options *options);
/* Sessions whose callee still has held records must have been dealt with by the shell. With a
 * store, all that is in it stays. */
void sml_host_fini(struct sml_host *host);

/* Decide about a HELLO. On success peer->session is set and attached; a peer that held it before
 * is returned in *out_loser: it is CLOSING with TAKEN_OVER, its session NULL. Otherwise the peer is
 * CLOSING with the reason. */
void sml_host_hello(struct sml_host *host, struct sml_peer *peer, const struct sml_hello *hello,
                    struct sml_peer **out_loser, uint64_t now);

/* The host is full, and the HELLO would make a session: one without a connection and without a call
 * that is not done, to be ended first by the shell with sml_host_end. The one that was left first;
 * but of those in which something is under way few are looked at, and others the next time. NULL:
 * none, or there is room, or no need. */
#define SML_SURPLUS_LOOKS 16
struct sml_session *sml_host_surplus(struct sml_host *host, const struct sml_hello *hello);

/* The connection is gone: the session, if any, is kept and its idle time begins. */
void sml_host_detach(struct sml_host *host, struct sml_peer *peer, uint64_t now);

/* Take `session` out of the host: no HELLO finds it any more. The callee's records are cleared;
 * the shell frees the session with sml_session_free once sml_session_is_over. */
void sml_host_end(struct sml_host *host, struct sml_session *session);
/* Ended, nothing of it is held, and the store has forgotten it. */
bool sml_session_is_over(const struct sml_session *session);
void sml_session_free(struct sml_host *host, struct sml_session *session);

/* Sessions and the store. What is to be stored of the session itself, now under way, in the same
 * transaction as the changes of its calls that were pulled before: to be asked after them, once for
 * each batch. The record's stragglers are written to `room`, 8 bytes for each of the window. */
enum sml_session_change sml_session_pull(struct sml_session *session,
                                         struct sml_session_record *out_record, uint8_t *room);
/* The change is stored, `row` being the number of the record now (0: none), or it is not. */
void sml_session_recorded(struct sml_session *session, enum sml_session_change change,
                          uint64_t conn_no, uint64_t row, bool committed);
/* Is there anything to store of the session itself, of which nothing is under way? */
bool sml_session_has_change(const struct sml_session *session);
/* ... for which somebody waits: a WELCOME is held back by it. */
bool sml_session_has_urgent_change(const struct sml_session *session);

/* A session from the store, not attached; its idle time begins. Its calls follow through
 * sml_callee_restore_call. NULL: no memory, or (out_why) there is one with its id. */
struct sml_session *sml_host_restore(struct sml_host *host, uint64_t row,
                                     const struct sml_session_record *record, uint64_t now,
                                     const char **out_why);

/* A session whose idle time has passed and in which nothing runs, still inside; NULL if none. The
 * shell then calls sml_host_end. */
struct sml_session *sml_host_next_expired(struct sml_host *host, uint64_t now);
/* When to ask for expired ones next; SML_NEVER if there is no need. */
uint64_t sml_host_timeout(const struct sml_host *host);

#endif
