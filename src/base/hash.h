/* SPDX-License-Identifier: MIT */
/* hash.h - the fingerprint of a call, and SHA-256 for secrets. */
#ifndef SML_BASE_HASH_H
#define SML_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 128 bits that tell two calls apart by their contents: not against an adversary (both ends belong
 * to one authenticated session), but against a number used twice. */
struct sml_fingerprint {
    uint64_t a, b;
};

static inline bool sml_fingerprint_equal(struct sml_fingerprint x, struct sml_fingerprint y)
{
    return x.a == y.a && x.b == y.b;
}

/* Of a method name, a content type, and a body; two lanes of 64x64->128 bit multiply and fold
 * (the "mum" mixing of wyhash and its kin), lengths included, so that no two splits of the same
 * bytes agree. Little-endian by definition: part of the wire protocol (docs/PROTOCOL.md). */
struct sml_fingerprint sml_fingerprint(const void *method, size_t method_bytes,
                                       const void *content_type, size_t content_type_bytes,
                                       const void *body, size_t body_bytes);

/* SHA-256 (FIPS 180-4). */
void sml_sha256(const void *data, size_t bytes, uint8_t out[32]);

/* Equal, in time that does not depend on where they differ. */
bool sml_equal_constant_time(const void *a, const void *b, size_t bytes);

#endif
