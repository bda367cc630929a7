/* SPDX-License-Identifier: MIT */
/* peer.h - the server's end of one connection, from its first byte to its last. Pure.
 *
 *   NEW -> LISTING -> UP -> CLOSING
 *
 * Until its HELLO is accepted it belongs to no session and says nothing but BYE. */
#ifndef SML_SESSION_PEER_H
#define SML_SESSION_PEER_H

#include "base/mem.h"
#include "base/time.h"
#include "session/record.h"
#include "wire/frame.h"

struct sml_host;
struct sml_session;

enum sml_peer_state {
    SML_PEER_NEW,     /* waits for HELLO */
    SML_PEER_LISTING, /* waits for the list of outstanding calls */
    SML_PEER_UP,
    SML_PEER_CLOSING /* a BYE is to be written, then close; input is ignored */
};

struct sml_peer {
    enum sml_peer_state state;
    struct sml_session *session; /* from the HELLO on; NULL again when taken over or ended */
    struct sml_principal principal;
    enum sml_bye_code bye; /* in CLOSING */
    char bye_text[SML_BYE_TEXT_BYTES + 1];
    bool bye_pending; /* it is still to be encoded */
    bool bye_received;
    bool resumed;
    uint64_t hello_deadline;
    uint64_t last_heard;
    uint64_t silence_max; /* ns; SML_NEVER: none */
    uint64_t next;        /* of the HELLO */
    uint32_t list_count, list_have;
    struct sml_outstanding *list; /* while LISTING */
    struct sml_listed *states;    /* until written */
    uint32_t states_count, states_sent;
    const struct sml_mem *mem;
    uint8_t server_id[16]; /* the host's */
    uint32_t idle_ms, heartbeat_ms;
    uint32_t window;   /* asked for */
    uint32_t features; /* that hold on this connection */
    uint64_t generation;
    bool welcome_pending;
    bool welcome_held; /* back, until the session's record is stored: sml_session_recorded */
    bool drain_pending;
    uint32_t drain_grace_ms;
    bool pong_pending;
    uint64_t pong_nonce;
};

/* The host's `mem` is used until sml_peer_fini; host and principal themselves are borrowed. */
void sml_peer_init(struct sml_peer *peer, const struct sml_host *host,
                   const struct sml_principal *principal, uint64_t now);
/* Detached, or its session ended. */
void sml_peer_fini(struct sml_peer *peer);

/* What sml_peer_input stopped for. */
enum sml_peer_event {
    SML_PEER_MORE,  /* all whole frames are consumed */
    SML_PEER_HELLO, /* *out_hello is set: call sml_host_hello, then go on with the input */
    SML_PEER_ENDED  /* the client ended its session: call sml_host_end, then close */
};

/* Bytes from the connection. Needs the session's exclusion once attached; never the host's. Errors
 * turn the peer to CLOSING with a BYE pending. */
enum sml_peer_event sml_peer_input(struct sml_peer *peer, const uint8_t *data, size_t size,
                                   size_t *out_used, struct sml_hello *out_hello, uint64_t now);

/* For sml_host_hello: take the list of outstanding calls from here on. */
void sml_peer_begin_list(struct sml_peer *peer, const struct sml_hello *hello, uint64_t now);

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
