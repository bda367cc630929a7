/* SPDX-License-Identifier: MIT */
/* record.h - what a store keeps: sessions, calls, keys, as checked bytes. Pure.
 *
 * A record is a value that its store finds by a number of its own (sessions, calls) or by a hash
 * (keys). Each begins with a checksum of the rest, so that a damaged one is noticed and never
 * believed. All numbers are little-endian. Decoding checks every field, allocates nothing, and
 * leaves views into the bytes it was given. */
#ifndef SML_SESSION_RECORD_H
#define SML_SESSION_RECORD_H

#include "wire/frame.h"

/* Who made a session, as far as the kernel knows. Compared whole. */
struct sml_principal {
    bool known;
    uint32_t uid, gid;
};

struct sml_session_record {
    struct sml_session_id id;
    uint8_t secret_hash[32];
    struct sml_principal principal;
    uint64_t conn_no; /* the greatest one accepted */
    /* Every call up to here is released, except those that have a record and the stragglers. */
    uint64_t base;
    uint32_t window;
    uint32_t straggler_count;  /* calls up to base without a record, still open; at most window */
    const uint8_t *stragglers; /* 8 bytes each, rising; sml_record_straggler reads them */
};

enum sml_call_record_state {
    SML_CALL_STARTED = 1, /* its handler may have begun */
    SML_CALL_ENDED = 2,   /* has its verdict */
    SML_CALL_AGAIN = 3    /* it had no effect, though the server died `crashes` times in it */
};

struct sml_call_record {
    uint64_t session; /* the number of its session's record */
    uint64_t xid;
    enum sml_call_record_state state;
    uint8_t flags; /* SML_CALL_* of the wire; those of streams are not written */
    uint8_t crashes;
    struct sml_fingerprint fingerprint;
    struct sml_origin_call origin; /* with SML_CALL_ORIGIN */
    struct semel_bytes method, key;
    struct sml_verdict verdict; /* ENDED */
    bool proven;                /* see SML_REPLY_PROVEN */
};

struct sml_key_record {
    struct sml_principal principal;
    struct semel_bytes method, key;
    /* STARTED: a call with it has begun; ENDED: it has a verdict; AGAIN: it is free, but a call
     * with it may have run and could be run again. */
    enum sml_call_record_state state;
    uint64_t session, xid; /* the call that used it */
    struct sml_fingerprint fingerprint;
    uint64_t kept_since; /* on the store's own clock, ms; 0: STARTED */
    struct sml_verdict verdict;
};

/* Bytes that the record takes encoded. */
size_t sml_session_record_bytes(const struct sml_session_record *record);
size_t sml_call_record_bytes(const struct sml_call_record *record);
size_t sml_key_record_bytes(const struct sml_key_record *record);

/* Write it at `out`, which has room for that many. */
void sml_session_record_encode(const struct sml_session_record *record, uint8_t *out);
void sml_call_record_encode(const struct sml_call_record *record, uint8_t *out);
void sml_key_record_encode(const struct sml_key_record *record, uint8_t *out);

/* NULL, and *out is set; or what is wrong with it. */
const char *sml_session_record_decode(struct semel_bytes bytes, struct sml_session_record *out);
const char *sml_call_record_decode(struct semel_bytes bytes, struct sml_call_record *out);
const char *sml_key_record_decode(struct semel_bytes bytes, struct sml_key_record *out);

/* Entry `index` < straggler_count. */
uint64_t sml_record_straggler(const struct sml_session_record *record, uint32_t index);

/* The hash that a key's record is found by: of principal, method and key. */
void sml_record_key_hash(const struct sml_principal *principal, struct semel_bytes method,
                         struct semel_bytes key, uint8_t out[32]);

#endif
