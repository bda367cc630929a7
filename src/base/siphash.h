/* SPDX-License-Identifier: MIT */
/* siphash.h - a keyed hash, for tables whose keys come from strangers: without the key nobody can
 * name many of them that fall into one bucket. */
#ifndef SML_BASE_SIPHASH_H
#define SML_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/* SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012). */
uint64_t sml_siphash(const uint8_t key[16], const void *data, size_t bytes);

#endif
