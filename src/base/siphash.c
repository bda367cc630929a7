/* SPDX-License-Identifier: MIT */
#include "base/siphash.h"

#include "base/le.h"

struct state {
    uint64_t a, b, c, d;
};

static inline uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void mix(struct state *s)
{
    s->a += s->b;
    s->c += s->d;
    s->b = rotate(s->b, 13) ^ s->a;
    s->d = rotate(s->d, 16) ^ s->c;
    s->a = rotate(s->a, 32);
    s->c += s->b;
    s->a += s->d;
    s->b = rotate(s->b, 17) ^ s->c;
    s->d = rotate(s->d, 21) ^ s->a;
    s->c = rotate(s->c, 32);
}

static inline void absorb(struct state *s, uint64_t word)
{
    s->d ^= word;
    mix(s);
    mix(s);
    s->a ^= word;
}

/* The last bytes, fewer than a word, with the length on top. */
static uint64_t last_word(const uint8_t *at, size_t bytes)
{
    uint64_t word = (uint64_t)bytes << 56;

    for (size_t i = 0; i < bytes % 8; i++)
        word |= (uint64_t)at[i] << (8 * i);
    return word;
}

uint64_t sml_siphash(const uint8_t key[16], const void *data, size_t bytes)
{
    const uint64_t k0 = sml_load64(key), k1 = sml_load64(key + 8);
    const uint8_t *at = data, *whole = at + bytes / 8 * 8;
    struct state s = { k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d),
                       k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573) };

    for (; at < whole; at += 8)
        absorb(&s, sml_load64(at));
    absorb(&s, last_word(at, bytes));
    s.c ^= 0xff;
    for (int i = 0; i < 4; i++)
        mix(&s);
    return s.a ^ s.b ^ s.c ^ s.d;
}
