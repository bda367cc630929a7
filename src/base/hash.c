/* SPDX-License-Identifier: MIT */
/* The fingerprint: two 64-bit lanes, `a` and `b`, over blocks of 32 bytes (four words w0..w3).
 * Both lanes see every word. Lane a chains through the product that holds w0 and w1, lane b
 * through the one that holds w2 and w3; the other half of the block enters each lane by a product
 * with constants, off the critical path, so a block costs one multiply latency. Adding to the old
 * lane, rather than replacing it, keeps what came before even when a factor happens to be zero.
 * The exact definition, with vectors, is in docs/PROTOCOL.md; the constants are the initial values
 * of SHA-512 (fractional parts of square roots), chosen for having no structure. */
#include "base/hash.h"

#include <string.h>

#include "base/le.h"

#define K0 UINT64_C(0x6a09e667f3bcc908)
#define K1 UINT64_C(0xbb67ae8584caa73b)
#define K2 UINT64_C(0x3c6ef372fe94f82b)
#define K3 UINT64_C(0xa54ff53a5f1d36f1)
#define K4 UINT64_C(0x510e527fade682d1)
#define K5 UINT64_C(0x9b05688c2b3e6c1f)
#define K6 UINT64_C(0x1f83d9abfb41bd6b)
#define K7 UINT64_C(0x5be0cd19137e2179)

#define BLOCK 32

__extension__ typedef unsigned __int128 wide;

/* Multiply and fold. */
static inline uint64_t mum(uint64_t x, uint64_t y)
{
    const wide product = (wide)x * y;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline struct sml_fingerprint absorb(struct sml_fingerprint f, uint64_t w0, uint64_t w1,
                                            uint64_t w2, uint64_t w3)
{
    const uint64_t other_a = mum(w2 ^ K2, w3 ^ K3);
    const uint64_t other_b = mum(w0 ^ K4, w1 ^ K5);

    f.a += other_a + mum(f.a ^ w0, w1 ^ K0);
    f.b += other_b + mum(f.b ^ w2, w3 ^ K1);
    return f;
}

/* Up to 8 bytes as a word, zeros above. Reads nothing outside p[0..n). */
static inline uint64_t load_some(const uint8_t *p, size_t n)
{
    if (n >= 8)
        return sml_load64(p);
    if (n >= 4)
        return sml_load32(p) | (uint64_t)sml_load32(p + n - 4) << (8 * (n - 4));
    if (n == 0)
        return 0;
    return p[0] | (uint64_t)p[n / 2] << (8 * (n / 2)) | (uint64_t)p[n - 1] << (8 * (n - 1));
}

static inline struct sml_fingerprint absorb_bytes(struct sml_fingerprint f, const uint8_t *p,
                                                  size_t n)
{
    for (; n >= BLOCK; p += BLOCK, n -= BLOCK)
        f = absorb(f, sml_load64(p), sml_load64(p + 8), sml_load64(p + 16), sml_load64(p + 24));
    if (n == 0)
        return f;
    return absorb(f, load_some(p, n), n > 8 ? load_some(p + 8, n - 8) : 0,
                  n > 16 ? load_some(p + 16, n - 16) : 0, n > 24 ? load_some(p + 24, n - 24) : 0);
}

struct sml_fingerprint sml_fingerprint(const void *method, size_t method_bytes,
                                       const void *content_type, size_t content_type_bytes,
                                       const void *body, size_t body_bytes)
{
    const uint64_t lengths =
        (uint64_t)body_bytes ^ (uint64_t)content_type_bytes << 48 ^ (uint64_t)method_bytes << 56;
    struct sml_fingerprint f = { K6 ^ lengths, K7 ^ lengths };
    uint64_t a;

    f = absorb_bytes(f, method, method_bytes);
    f = absorb_bytes(f, content_type, content_type_bytes);
    f = absorb_bytes(f, body, body_bytes);
    a = f.a + mum(f.a ^ K0, f.b ^ K1);
    f.b += mum(f.a ^ K2, f.b ^ K3);
    f.a = a;
    return f;
}

static const uint32_t sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
};

static inline uint32_t rotr(uint32_t x, unsigned n)
{
    return x >> n | x << (32 - n);
}

/* SHA-256 words are big-endian. */
static inline uint32_t load_be32(const uint8_t *p)
{
    return __builtin_bswap32(sml_load32(p));
}

static void sha256_block(uint32_t state[8], const uint8_t *p)
{
    uint32_t w[64], s[8];

    for (int i = 0; i < 16; i++)
        w[i] = load_be32(p + 4 * i);
    for (int i = 16; i < 64; i++) {
        const uint32_t x = w[i - 15], y = w[i - 2];

        w[i] = w[i - 16] + (rotr(x, 7) ^ rotr(x, 18) ^ x >> 3) + w[i - 7] +
               (rotr(y, 17) ^ rotr(y, 19) ^ y >> 10);
    }
    memcpy(s, state, sizeof s);
    for (int i = 0; i < 64; i++) {
        const uint32_t e = s[4], a = s[0];
        const uint32_t t1 = s[7] + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) +
                            ((e & s[5]) ^ (~e & s[6])) + sha256_k[i] + w[i];
        const uint32_t t2 =
            (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));

        memmove(s + 1, s, 7 * sizeof s[0]);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

void sml_sha256(const void *data, size_t bytes, uint8_t out[32])
{
    uint32_t state[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    const uint8_t *p = data;
    uint8_t tail[128] = { 0 };
    const size_t rest = bytes % 64;
    const size_t tail_bytes = rest < 56 ? 64 : 128;

    for (size_t n = bytes; n >= 64; n -= 64, p += 64)
        sha256_block(state, p);
    if (rest)
        memcpy(tail, p, rest);
    tail[rest] = 0x80;
    sml_store64(tail + tail_bytes - 8, __builtin_bswap64((uint64_t)bytes * 8));
    for (size_t at = 0; at < tail_bytes; at += 64)
        sha256_block(state, tail + at);
    for (int i = 0; i < 8; i++)
        sml_store32(out + 4 * i, __builtin_bswap32(state[i]));
}

bool sml_equal_constant_time(const void *a, const void *b, size_t bytes)
{
    const volatile uint8_t *x = a, *y = b;
    uint8_t different = 0;

    for (size_t i = 0; i < bytes; i++)
        different |= x[i] ^ y[i];
    return different == 0;
}
