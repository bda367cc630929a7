/* SPDX-License-Identifier: MIT */
/* host.h - the server's side of sessions: who may create, resume and take one over, and when an
 * abandoned one ends. Pure.
 *
 * A session outlives its connections; it is attached to at most one peer, the one with the highest
 * conn_no. */
#ifndef SML_SESSION_HOST_H
#define SML_SESSION_HOST_H

#include "session/callee.h"
#include "session/peer.h"

struct sml_session {
    struct sml_session_id id;
    uint8_t secret_hash[32];
    struct sml_principal principal;
    uint64_t conn_no;
    struct sml_peer *peer; /* attached, or NULL */
    struct sml_callee callee;
    struct sml_list all; /* the host's */
    struct sml_session *next_in_bucket;
    struct sml_heap_node expiry;
    void *user; /* the shell's */
};

struct sml_host_options {
    struct sml_callee_limits limits; /* of each session */
    uint32_t sessions_max;
    uint64_t idle;      /* ns a session without a connection is kept */
    uint64_t handshake; /* ns from accept until the list of calls is complete */
    uint64_t silence;   /* ns without a byte before a peer is closed; SML_NEVER: none */
    uint32_t heartbeat_ms;
    bool dedup_off; /* proof only, see callee.h */
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
    struct sml_session **buckets;
    uint32_t bucket_count, session_count;
    struct sml_heap expiries;
    struct sml_host_counters counters;
};

void sml_host_init(struct sml_host *host, const struct sml_mem *mem,
                   const struct sml_entropy *entropy, const struct sml_host_options *options);
/* Sessions whose callee still has held records must have been dealt with by the shell. */
void sml_host_fini(struct sml_host *host);

/* Decide about a HELLO. On success peer->session is set and attached; a peer that held it before
 * is returned in *out_loser: it is CLOSING with TAKEN_OVER, its session NULL. Otherwise the peer is
 * CLOSING with the reason. */
void sml_host_hello(struct sml_host *host, struct sml_peer *peer, const struct sml_hello *hello,
                    struct sml_peer **out_loser, uint64_t now);

/* The connection is gone: the session, if any, is kept and its idle time begins. */
void sml_host_detach(struct sml_host *host, struct sml_peer *peer, uint64_t now);

/* Take `session` out of the host: no HELLO finds it any more. The callee's records are cleared;
 * the shell frees the session with sml_session_free once callee.held is 0. */
void sml_host_end(struct sml_host *host, struct sml_session *session);
void sml_session_free(struct sml_host *host, struct sml_session *session);

/* A session whose idle time has passed and in which nothing runs, still inside; NULL if none. The
 * shell then calls sml_host_end. */
struct sml_session *sml_host_next_expired(struct sml_host *host, uint64_t now);
/* When to ask for expired ones next; SML_NEVER if there is no need. */
uint64_t sml_host_timeout(const struct sml_host *host);

#endif
