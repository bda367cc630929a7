/* SPDX-License-Identifier: MIT */
/* frame.h - the frames of the wire, encoded and decoded. docs/PROTOCOL.md is the specification.
 *
 * Every frame: u32 payload length | u8 type | u8 flags | u16 zero | u64 xid | payload, all
 * little-endian. Decoding checks every field and every length before use, allocates nothing, and
 * leaves views into the bytes it was given. */
#ifndef SML_WIRE_FRAME_H
#define SML_WIRE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <semel/bytes.h>
#include <semel/limits.h>
#include <semel/status.h>

#include "base/compiler.h"
#include "base/hash.h"

#define SML_MAGIC UINT32_C(0x4c454d53) /* "SMEL" on the wire */
#define SML_VERSION 1
#define SML_HEADER_BYTES 16
#define SML_FRAGMENT_BYTES 65536 /* of a body, in one CALL, BODY or REPLY */
#define SML_PAYLOAD_BYTES_MAX 90112
#define SML_FRAME_BYTES_MAX (SML_HEADER_BYTES + SML_PAYLOAD_BYTES_MAX)
#define SML_LIST_ENTRIES_MAX 1024 /* in one LIST frame */
#define SML_ACK_RANGES_MAX 1024   /* in one ACK frame */
#define SML_BYE_TEXT_BYTES 512
#define SML_HELLO_PAYLOAD_BYTES 112
#define SML_BYE_PAYLOAD_BYTES_MAX (4 + SML_BYE_TEXT_BYTES)
#define SML_BODY_OVERHEAD (SML_HEADER_BYTES + 8) /* of a BODY frame beside its fragment */
#define SML_BUSY_FRAME_BYTES (SML_HEADER_BYTES + 4)
#define SML_PART_OVERHEAD (SML_HEADER_BYTES + 16) /* of a PART frame beside its bytes */
#define SML_CREDIT_FRAME_BYTES (SML_HEADER_BYTES + 24)
#define SML_XID_MAX (UINT64_C(1) << 63)

enum sml_frame_type {
    SML_HELLO = 1,
    SML_LIST = 2,
    SML_WELCOME = 3,
    SML_CALL = 4,
    SML_BODY = 5,
    SML_REPLY = 6,
    SML_PART = 7,
    SML_ACK = 8,
    SML_CREDIT = 9,
    SML_CANCEL = 10,
    SML_BUSY = 11,
    SML_PING = 12, /* the nonce stands in the xid */
    SML_PONG = 13,
    SML_DRAIN = 14,
    SML_BYE = 15
};

/* Features of HELLO and WELCOME. */
#define SML_FEATURE_KEYS 0x01  /* idempotency keys: one may send them, the other keeps them */
#define SML_FEATURE_PARTS 0x02 /* calls may have streams */

#define SML_FLAG_REVERSE 0x01 /* the frame belongs to a call from the server to the client */

enum sml_hello_kind { SML_CREATE = 1, SML_RESUME = 2 };

struct sml_session_id {
    uint8_t bytes[16];
};

struct sml_hello {
    uint16_t version;
    uint8_t kind; /* enum sml_hello_kind */
    uint32_t features;
    uint32_t count; /* outstanding calls, listed in the LIST frames that follow */
    struct sml_session_id session;
    uint8_t secret[32];
    uint64_t conn_no;      /* rises with every attempt; from 1 */
    uint64_t next;         /* the next xid the caller will assign */
    uint64_t body_bytes;   /* largest reply body the caller takes */
    uint32_t window;       /* calls the caller would like to have under way */
    uint32_t heartbeat_ms; /* 0: it sends no PINGs */
    uint8_t server_id[16]; /* RESUME: the server the session was made with; CREATE: zero */
};

struct sml_welcome {
    uint16_t version;
    bool resumed;
    uint32_t features;
    uint8_t server_id[16];
    uint64_t generation;
    uint64_t durable_hi;
    uint64_t body_bytes;    /* largest request body */
    uint64_t session_bytes; /* request bodies under way at once */
    uint32_t window;
    uint32_t count; /* states that follow in LIST frames */
    uint32_t idle_ms;
    uint32_t heartbeat_ms;
};

/* What a callee says of a listed call. */
enum sml_call_state {
    SML_STATE_EXPECTED = 1,  /* never seen: send it */
    SML_STATE_RECEIVING = 2, /* go on with the body at `offset` */
    SML_STATE_RUNNING = 3,   /* wait */
    SML_STATE_DONE = 4,      /* the stored reply follows, from the bytes held on */
    SML_STATE_REFUSED = 5,   /* BUSY was said: send it again after the delay */
    SML_STATE_IN_DOUBT = 6   /* send it; a server that died may have begun it, and left no record */
};

struct sml_outstanding { /* a LIST entry, caller to callee */
    uint64_t xid;
    uint64_t held; /* reply bytes already received */
    struct sml_fingerprint fingerprint;
};

struct sml_listed { /* a LIST entry, callee to caller */
    uint64_t xid;
    uint64_t offset;
    enum sml_call_state state;
};

struct sml_list_frame {
    bool from_caller; /* which of the two kinds of entries it holds */
    uint32_t count;   /* 1 .. SML_LIST_ENTRIES_MAX */
    const uint8_t *entries;
};

#define SML_CALL_RERUN_OK 0x01
#define SML_CALL_REFUSE_WHEN_FULL 0x02
#define SML_CALL_ORIGIN 0x04 /* `origin` is there: an earlier session made this call first */
#define SML_CALL_SENDS 0x08  /* the caller sends parts */
#define SML_CALL_TAKES 0x10  /* the caller takes parts */
#define SML_CALL_STREAMS (SML_CALL_SENDS | SML_CALL_TAKES)

/* Which call of which session a resubmitted call was when it was made first. */
struct sml_origin_call {
    struct sml_session_id session;
    uint64_t xid;
};

#define SML_NO_DEADLINE UINT32_MAX

struct sml_call_frame {
    struct sml_fingerprint fingerprint;
    uint64_t body_bytes;   /* of the whole body */
    uint32_t remaining_ms; /* until the deadline; 0: passed; or SML_NO_DEADLINE */
    uint8_t flags;
    struct sml_origin_call origin;
    uint64_t key_age_ms; /* with a key: since it may have been used first; 0: it is new */
    struct semel_bytes method, content_type, key;
    struct semel_bytes fragment; /* the body's beginning */
};

struct sml_body_frame {
    uint64_t offset;
    struct semel_bytes fragment; /* not empty */
};

enum sml_part_kind {
    SML_PART_ITEM = 1,    /* a whole item, or its last piece */
    SML_PART_PIECE = 2,   /* more of the same item follows */
    SML_PART_END = 3,     /* no part follows; its number counts them all */
    SML_PART_PROGRESS = 4 /* outside of the numbering: only the latest counts */
};

struct sml_part_frame {
    uint64_t number; /* among the parts of its stream, from 0; PROGRESS: 0 */
    enum sml_part_kind kind;
    struct semel_bytes bytes; /* END: empty */
};

/* What the receiver of a stream says to its sender. */
struct sml_credit_frame {
    uint64_t next;  /* the part that it waits for */
    uint64_t taken; /* those before it were handed on, and are never asked for again */
    uint64_t limit; /* the stream may be charged up to here */
};

/* What became of a call, as the callee says it. */
struct sml_verdict {
    enum semel_outcome outcome;
    enum semel_status status;
    int32_t code;
    struct semel_bytes text, detail, trace;
    struct semel_bytes body;
};

static inline size_t sml_verdict_bytes(const struct sml_verdict *verdict)
{
    return verdict->text.size + verdict->detail.size + verdict->trace.size + verdict->body.size;
}

/* What it points to moves to `to`, which has room for sml_verdict_bytes, one behind the other. */
static inline void sml_verdict_place(struct sml_verdict *verdict, uint8_t *to)
{
    struct semel_bytes *const parts[] = { &verdict->text, &verdict->detail, &verdict->trace,
                                          &verdict->body };

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i]->size > 0)
            parts[i]->data = memcpy(to, parts[i]->data, parts[i]->size);
        to += parts[i]->size;
    }
}

#define SML_REPLY_RECORDED 0x01 /* the verdict is in the server's store */
#define SML_REPLY_PROVEN 0x02   /* not executed, and neither was any call with the same key */

struct sml_reply_frame {
    uint8_t flags;
    struct sml_verdict verdict; /* its body is the fragment in this frame */
    uint64_t body_bytes;        /* of the whole body */
    uint64_t offset;            /* of the fragment */
};

struct sml_ack_range {
    uint64_t first;
    uint32_t count; /* from 1 */
};

struct sml_ack_frame {
    uint32_t count; /* ranges */
    const uint8_t *ranges;
};

/* Why a connection ends. Numbers are part of the protocol. */
enum sml_bye_code {
    SML_BYE_END = 1,          /* the client ends its session */
    SML_BYE_SESSION_LOST = 2, /* this server has no such session, and it is the authority */
    SML_BYE_TAKEN_OVER = 3,   /* a newer connection holds the session */
    SML_BYE_DENIED = 4,
    SML_BYE_VERSION = 5,
    SML_BYE_PROTOCOL = 6,
    SML_BYE_FALSE_RETRY = 7,
    SML_BYE_RETRY_LATER = 8, /* not now: too many sessions, draining, recovering */
    SML_BYE_SHUTDOWN = 9,    /* the server stops */
    SML_BYE_SILENT = 10      /* nothing was heard for too long */
};

struct sml_bye {
    enum sml_bye_code code;
    struct semel_bytes text;
};

struct sml_frame {
    enum sml_frame_type type;
    bool reverse;
    uint64_t xid;
    union {
        struct sml_hello hello;
        struct sml_list_frame list;
        struct sml_welcome welcome;
        struct sml_call_frame call;
        struct sml_body_frame body;
        struct sml_part_frame part;
        struct sml_credit_frame credit;
        struct sml_reply_frame reply;
        struct sml_ack_frame ack;
        uint32_t busy_delay_ms;
        uint32_t drain_grace_ms;
        struct sml_bye bye;
    } u;
};

enum sml_decoded {
    SML_DECODED,   /* *out and *out_used are set */
    SML_NEED_MORE, /* the bytes end inside a frame; nothing is set */
    SML_MALFORMED  /* *out_why says what is wrong; nothing else is set */
};

/* Decode the first frame of `data`. *out holds views into `data`. *out_why is a static text.
 * `max_payload` is SML_PAYLOAD_BYTES_MAX between peers that know each other. Before that it is
 * less, so that a stranger cannot make anyone wait for, or hold, more: SML_HELLO_PAYLOAD_BYTES
 * until a HELLO was accepted (every other type is refused then), SML_BYE_PAYLOAD_BYTES_MAX until a
 * WELCOME was. An oversize length is refused as soon as the header's first four bytes are there. */
enum sml_decoded sml_frame_decode(const uint8_t *data, size_t size, size_t max_payload,
                                  struct sml_frame *out, size_t *out_used, const char **out_why);

/* Entry `index` < count. */
struct sml_outstanding sml_list_outstanding(const struct sml_list_frame *list, uint32_t index);
struct sml_listed sml_list_listed(const struct sml_list_frame *list, uint32_t index);
struct sml_ack_range sml_ack_range(const struct sml_ack_frame *ack, uint32_t index);

/* Encoders. Each writes one whole frame at `out` and returns its size in bytes. The room needed is
 * SML_HEADER_BYTES + the payload, never more than SML_FRAME_BYTES_MAX; sml_call_overhead and
 * sml_reply_overhead give everything but the fragment. */
size_t sml_encode_hello(uint8_t *out, const struct sml_hello *hello);
size_t sml_encode_welcome(uint8_t *out, const struct sml_welcome *welcome);
size_t sml_encode_outstanding(uint8_t *out, const struct sml_outstanding *entries, uint32_t count);
size_t sml_encode_listed(uint8_t *out, const struct sml_listed *entries, uint32_t count);
size_t sml_encode_call(uint8_t *out, uint64_t xid, const struct sml_call_frame *call);
size_t sml_encode_body(uint8_t *out, uint64_t xid, uint64_t offset, struct semel_bytes fragment);
size_t sml_encode_reply(uint8_t *out, uint64_t xid, const struct sml_reply_frame *reply);
size_t sml_encode_part(uint8_t *out, uint64_t xid, const struct sml_part_frame *part);
/* All of it but its bytes, which follow: SML_PART_OVERHEAD bytes. */
size_t sml_encode_part_head(uint8_t *out, uint64_t xid, const struct sml_part_frame *part);
size_t sml_encode_credit(uint8_t *out, uint64_t xid, const struct sml_credit_frame *credit);
size_t sml_encode_ack(uint8_t *out, const struct sml_ack_range *ranges, uint32_t count);
size_t sml_encode_busy(uint8_t *out, uint64_t xid, uint32_t delay_ms);
size_t sml_encode_drain(uint8_t *out, uint32_t grace_ms);
size_t sml_encode_bye(uint8_t *out, enum sml_bye_code code, struct semel_bytes text);
/* CANCEL, PING, PONG: a header alone. */
size_t sml_encode_plain(uint8_t *out, enum sml_frame_type type, uint64_t xid);

size_t sml_call_overhead(const struct sml_call_frame *call);
size_t sml_reply_overhead(const struct sml_reply_frame *reply);

/* "CALL", "BYE" ... for messages; "?" for an unknown type. */
const char *sml_frame_name(enum sml_frame_type type);
const char *sml_bye_name(enum sml_bye_code code);
enum semel_status sml_bye_status(enum sml_bye_code code);

#endif
