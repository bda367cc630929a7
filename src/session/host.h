/* SPDX-License-Identifier: MIT */
/* host.h - the server's side of sessions: who may create, resume and take one over, and when an
 * abandoned one ends. Pure.
 *
 * A `peer` is the server's end of one connection, from its first byte to its last:
 *   NEW -> LISTING -> UP -> CLOSING
 * A session outlives its connections; it is attached to at most one peer, the one with the highest
 * conn_no. */
#ifndef SML_SESSION_HOST_H
#define SML_SESSION_HOST_H

#include "session/callee.h"

struct sml_principal { /* compared whole */
    bool known;
    uint32_t uid, gid;
};

struct sml_peer;

struct sml_session {
    struct sml_session_id id;
    uint8_t secret_hash[32];
    struct sml_principal principal;
    uint64_t conn_no;
    struct sml_peer *peer;    /* attached, or NULL */
    uint64_t idle_since;      /* SML_NEVER while attached */
    struct sml_callee callee;
    struct sml_list all;      /* the host's */
    struct sml_session *next_in_bucket;
    struct sml_heap_node expiry;
    void *user;               /* the shell's */
};

enum sml_peer_state {
    SML_PEER_NEW,     /* waits for HELLO */
    SML_PEER_LISTING, /* waits for the list of outstanding calls */
    SML_PEER_UP,
    SML_PEER_CLOSING  /* a BYE is to be written, then close; input is ignored */
};

struct sml_peer {
    enum sml_peer_state state;
    struct sml_session *session; /* from the HELLO on; NULL again when taken over or ended */
    struct sml_principal principal;
    enum sml_bye_code bye;       /* in CLOSING */
    char bye_text[SML_BYE_TEXT_BYTES + 1];
    bool bye_pending;            /* it is still to be encoded */
    bool bye_received;
    bool resumed;
    uint64_t hello_deadline;
    uint64_t last_heard;
    uint64_t silence_max;        /* ns; SML_NEVER: none */
    uint64_t next;               /* of the HELLO */
    uint32_t list_count, list_have;
    struct sml_outstanding *list; /* while LISTING */
    struct sml_listed *states;    /* until written */
    uint32_t states_count, states_sent;
    const struct sml_mem *mem;
    uint8_t server_id[16];        /* the host's */
    uint32_t idle_ms, heartbeat_ms;
    uint32_t window;              /* asked for */
    bool welcome_pending;
    bool drain_pending;
    uint32_t drain_grace_ms;
    bool pong_pending;
    uint64_t pong_nonce;
};

struct sml_host_options {
    struct sml_callee_limits limits; /* of each session */
    uint32_t sessions_max;
    uint64_t idle;       /* ns a session without a connection is kept */
    uint64_t handshake;  /* ns from accept to HELLO */
    uint64_t silence;    /* ns; SML_NEVER */
    uint32_t heartbeat_ms;
    bool dedup_off;      /* proof only, see callee.h */
};

struct sml_host_counters {
    uint64_t created, resumed, expired, ended, protocol_errors, refused;
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

void sml_peer_init(struct sml_peer *peer, const struct sml_host *host,
                   const struct sml_principal *principal, uint64_t now);
void sml_peer_fini(struct sml_peer *peer);

/* What sml_peer_input stopped for. */
enum sml_peer_event {
    SML_PEER_MORE,    /* all whole frames are consumed */
    SML_PEER_HELLO,   /* *out_hello is set: call sml_host_hello, then go on with the input */
    SML_PEER_ENDED    /* the client ended its session: call sml_host_end, then close */
};

/* Bytes from the connection. Needs the session's exclusion once attached; never the host's. Errors
 * turn the peer to CLOSING with a BYE pending. */
enum sml_peer_event sml_peer_input(struct sml_peer *peer, const uint8_t *data, size_t size,
                                   size_t *out_used, struct sml_hello *out_hello, uint64_t now);

/* Decide about a HELLO. On success peer->session is set and attached; a peer that held it before
 * is returned in *out_loser: it is CLOSING with TAKEN_OVER, its session NULL. Otherwise the peer is
 * CLOSING with the reason. */
void sml_host_hello(struct sml_host *host, struct sml_peer *peer, const struct sml_hello *hello,
                    struct sml_peer **out_loser, uint64_t now);

/* For sml_host_hello: take the list of outstanding calls from here on. */
void sml_peer_begin_list(struct sml_peer *peer, const struct sml_hello *hello, uint64_t now);

/* The connection is gone: the session, if any, is kept and its idle time begins. */
void sml_host_detach(struct sml_host *host, struct sml_peer *peer, uint64_t now);

/* Take `session` out of the host: no HELLO finds it any more. The callee's records are cleared;
 * the shell frees the session with sml_session_free once callee.held is 0. */
void sml_host_end(struct sml_host *host, struct sml_session *session);
void sml_session_free(struct sml_host *host, struct sml_session *session);

/* A session whose idle time has passed and in which nothing runs, still inside; NULL if none. The
 * shell then calls sml_host_end. */
struct sml_session *sml_host_next_expired(struct sml_host *host, uint64_t now);
uint64_t sml_host_timeout(const struct sml_host *host);

/* What is to be written, at most `room` bytes (give at least SML_FRAME_BYTES_MAX). Needs the
 * session's exclusion once attached. */
size_t sml_peer_pull(struct sml_peer *peer, uint8_t *out, size_t room, uint64_t now);
bool sml_peer_wants_write(const struct sml_peer *peer);

/* CLOSING with `code` and a text, cut to fit. */
void sml_peer_close(struct sml_peer *peer, enum sml_bye_code code, const char *text);

/* DRAIN is to be written. */
void sml_peer_drain(struct sml_peer *peer, uint32_t grace_ms);

/* The handshake's or the silence's end; the callee's timers are apart. */
uint64_t sml_peer_timeout(const struct sml_peer *peer);
void sml_peer_tick(struct sml_peer *peer, uint64_t now);

#endif
