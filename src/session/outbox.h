/* SPDX-License-Identifier: MIT */
/* outbox.h - what a client's outbox keeps, as checked bytes: its session's identity, posted calls,
 * their results. Pure. See record.h. */
#ifndef SML_SESSION_OUTBOX_H
#define SML_SESSION_OUTBOX_H

#include "session/link.h"
#include "session/record.h"

struct sml_identity_record {
    struct sml_link_identity identity;
    uint64_t address_hash; /* of the address's text: lists of addresses change */
    uint64_t wall_ms;      /* what this outbox's clock showed: it does not run backwards */
};

struct sml_posted_record {
    uint64_t posted_ms; /* the outbox's clock */
    struct semel_bytes method, content_type, key, tag, body;
};

struct sml_result_record {
    struct sml_verdict verdict;
};

#define SML_IDENTITY_RECORD_BYTES 148

size_t sml_posted_record_bytes(const struct sml_posted_record *record);
size_t sml_result_record_bytes(const struct sml_result_record *record);

void sml_identity_record_encode(const struct sml_identity_record *record,
                                uint8_t out[SML_IDENTITY_RECORD_BYTES]);
void sml_posted_record_encode(const struct sml_posted_record *record, uint8_t *out);
void sml_result_record_encode(const struct sml_result_record *record, uint8_t *out);

/* NULL, and *out is set, its views into `bytes`; or what is wrong with it. */
const char *sml_identity_record_decode(struct semel_bytes bytes, struct sml_identity_record *out);
const char *sml_posted_record_decode(struct semel_bytes bytes, struct sml_posted_record *out);
const char *sml_result_record_decode(struct semel_bytes bytes, struct sml_result_record *out);

/* How long a server may have known the key of a call posted at `posted_ms`; at least 1. */
uint64_t sml_posted_age_ms(uint64_t posted_ms, uint64_t wall_ms);

#endif
