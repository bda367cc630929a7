/* SPDX-License-Identifier: MIT */
/* le.h - little-endian loads and stores at any alignment. The wire and the fingerprint are
 * little-endian by definition; on a little-endian machine each of these is one instruction. */
#ifndef SML_BASE_LE_H
#define SML_BASE_LE_H

#include <stdint.h>
#include <string.h>

#define SML_BIG_ENDIAN (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)

static inline uint16_t sml_load16(const void *from)
{
    uint16_t v;

    memcpy(&v, from, sizeof v);
    return SML_BIG_ENDIAN ? __builtin_bswap16(v) : v;
}

static inline uint32_t sml_load32(const void *from)
{
    uint32_t v;

    memcpy(&v, from, sizeof v);
    return SML_BIG_ENDIAN ? __builtin_bswap32(v) : v;
}

static inline uint64_t sml_load64(const void *from)
{
    uint64_t v;

    memcpy(&v, from, sizeof v);
    return SML_BIG_ENDIAN ? __builtin_bswap64(v) : v;
}

static inline void sml_store16(void *to, uint16_t v)
{
    v = SML_BIG_ENDIAN ? __builtin_bswap16(v) : v;
    memcpy(to, &v, sizeof v);
}

static inline void sml_store32(void *to, uint32_t v)
{
    v = SML_BIG_ENDIAN ? __builtin_bswap32(v) : v;
    memcpy(to, &v, sizeof v);
}

static inline void sml_store64(void *to, uint64_t v)
{
    v = SML_BIG_ENDIAN ? __builtin_bswap64(v) : v;
    memcpy(to, &v, sizeof v);
}

#endif
