/* SPDX-License-Identifier: MIT */
/* link.h - the client's side of a session's connections: which address to try and when, the
 * handshake, heartbeats, resuming, giving up. Pure: it holds the caller machine and asks the shell
 * to connect and to close.
 *
 *   WAITING -> CONNECTING -> GREETING -> UP -> WAITING ...        FAILED and STOPPED are final
 *
 * The shell: after any event, carry out sml_link_next_action until NONE; write what sml_link_pull
 * gives while a connection is there; hand completions out; call sml_link_tick by
 * sml_link_timeout. */
#ifndef SML_SESSION_LINK_H
#define SML_SESSION_LINK_H

#include "session/caller.h"

enum sml_link_state {
    SML_LINK_WAITING,    /* for the time of the next attempt, or for a reason to try */
    SML_LINK_CONNECTING, /* the shell is connecting */
    SML_LINK_GREETING,   /* HELLO is out, WELCOME is not in */
    SML_LINK_UP,
    SML_LINK_FAILED, /* terminal: `why` says so */
    SML_LINK_STOPPED
};

enum sml_link_action_kind {
    SML_LINK_NONE,
    SML_LINK_CONNECT, /* to address `address`; answer with connected or connect_failed */
    SML_LINK_SAVE,    /* write sml_link_identity down; answer with saved or save_failed */
    SML_LINK_CLOSE    /* close the connection (or stop connecting); what is encoded may go first.
                         No sml_link_closed follows */
};

struct sml_link_action {
    enum sml_link_action_kind kind;
    uint32_t address;
};

struct sml_link_options { /* spans in ns; SML_NEVER switches off */
    uint64_t cancel_grace, connect, handshake, heartbeat;
    uint64_t backoff_min, backoff_max;
    uint64_t give_up;
    bool kept;      /* the session is to outlive this process: see sml_link_identity */
    bool reconnect; /* false: the first loss gives up (descriptors, give_up_ms < 0) */
    uint32_t heartbeat_missed;
    uint32_t addresses;
    uint32_t window;
    uint32_t pending_max;
    uint64_t body_bytes;
};

/* What of a session must be known to resume it in another process. It changes when a connection is
 * there and when it was welcomed; nothing is sent before it is saved. */
struct sml_link_identity {
    struct sml_session_id session;
    uint8_t secret[32];
    bool has_session; /* a WELCOME was read */
    uint32_t address; /* where the session lives */
    uint8_t server_id[16];
    uint64_t generation;
    /* The store that keyed calls were last submitted to; it may be another than the session's. */
    bool has_store;
    uint8_t store_id[16];
    uint64_t store_generation;
    uint64_t durable_hi;
    uint64_t conn_no; /* of the last HELLO that may have been sent */
    uint64_t next;    /* no xid from here on was ever given */
};

struct sml_link_counters {
    uint64_t connects, reconnects, lost, lost_mid_frame, protocol_errors, sessions_lost;
};

struct sml_link {
    struct sml_link_options options;
    struct sml_entropy entropy;
    struct sml_caller caller;
    enum sml_link_state state;
    enum semel_status why; /* of the last loss, failed attempt or failure */
    char why_text[SML_BYE_TEXT_BYTES + 1];
    bool has_session; /* a WELCOME was read for it and nobody ended it */
    bool created;     /* a CREATE for it may have reached the server */
    bool ended;       /* by a stop: there is nothing in it to come back for */
    bool recalled;    /* an earlier process's, and no server has welcomed this one in it yet */
    bool draining;    /* the server wants no new calls on this connection */
    struct sml_session_id session;
    uint8_t secret[32];
    uint8_t server_id[16];
    uint64_t generation;
    uint32_t keyed_outside; /* the shell's: keyed calls that were submitted before and will be again
                             */
    bool has_store;         /* where keyed calls were submitted: */
    uint8_t store_id[16];
    uint64_t store_generation;
    uint64_t conn_no;
    uint32_t address;         /* the one in use, or the next to try */
    uint32_t session_address; /* where has_session lives */
    uint32_t attempts;        /* failed in a row */
    uint64_t down_since;      /* for give_up; SML_NEVER while up */
    uint64_t next_attempt;
    uint64_t step_deadline; /* of CONNECTING or GREETING */
    uint64_t up_since;
    uint64_t last_heard, last_sent, last_ping;
    uint32_t strikes;     /* connections ended by undecodable bytes, no reply accepted since */
    bool welcomed;        /* WELCOME is in; its LIST frames may still come */
    uint32_t states_left; /* LIST entries still to come */
    bool save_wanted;     /* the shell is to be told */
    bool unsaved;         /* nothing may be sent */
    bool hello_pending, close_wanted, connect_wanted, ping_pending, bye_pending;
    enum sml_bye_code bye; /* what bye_pending says, with why_text */
    bool pong_pending;
    uint64_t pong_nonce;
    struct sml_outstanding *list; /* what this connection's HELLO lists */
    uint32_t list_count, list_sent;
    struct sml_link_counters counters;
};

/* The first attempt is due at once. */
void sml_link_init(struct sml_link *link, const struct sml_mem *mem,
                   const struct sml_entropy *entropy, const struct sml_link_options *options,
                   uint64_t now);
/* No call may be outstanding, as after sml_link_stop. */
void sml_link_fini(struct sml_link *link);

/* Go on with the session of an earlier process; right after init. Its session is all 0 if that
 * process ended it: then a new one begins, and keys still know their store. */
void sml_link_restore(struct sml_link *link, const struct sml_link_identity *identity);
void sml_link_identity(const struct sml_link *link, struct sml_link_identity *out);
void sml_link_saved(struct sml_link *link);
/* It could not be saved: the connection is given up, and tried again later. `text` says why. */
void sml_link_save_failed(struct sml_link *link, const char *text, uint64_t now);

/* As sml_caller_submit. Also: STOPPED, or in state FAILED the `why` of it; nothing taken. */
enum semel_status sml_link_submit(struct sml_link *link, struct sml_call *call, uint64_t now)
    SML_MUST_USE;

/* What the shell is to do next; each is given once. */
struct sml_link_action sml_link_next_action(struct sml_link *link);

void sml_link_connected(struct sml_link *link, uint64_t now);
/* `why` is CONNECT, PEER_DIED (nobody listens there), LINK_LOST (timeout, unreachable) or DENIED;
 * `text` names address and reason. */
void sml_link_connect_failed(struct sml_link *link, enum semel_status why, const char *text,
                             uint64_t now);

/* Bytes from the connection. Consumes whole frames; *out_used says how many bytes; the rest must
 * come again with more behind it. Results in place (sml_call.reply_in_place) point into `data`.
 * Errors lead to an action, not to a status. */
void sml_link_input(struct sml_link *link, const uint8_t *data, size_t size, size_t *out_used,
                    uint64_t now);

/* The connection ended: PEER_DIED (end of file, reset) or LINK_LOST (timeout, unreachable).
 * `mid_frame`: bytes of an unfinished frame were in hand. */
void sml_link_closed(struct sml_link *link, enum semel_status why, bool mid_frame, uint64_t now);

/* What is to be written, at most `room` bytes (give at least SML_FRAME_BYTES_MAX). */
size_t sml_link_pull(struct sml_link *link, uint8_t *out, size_t room, uint64_t now);
bool sml_link_wants_write(const struct sml_link *link, uint64_t now);

/* When sml_link_tick must be called at the latest (0: now); SML_NEVER if there is no need. */
uint64_t sml_link_timeout(const struct sml_link *link);
void sml_link_tick(struct sml_link *link, uint64_t now);

/* End every call (never sent: not executed; else unknown; STOPPED), say BYE if connected, close. */
void sml_link_stop(struct sml_link *link, uint64_t now);

#endif
