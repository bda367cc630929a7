/* SPDX-License-Identifier: MIT */
/* tally.h - how calls ended, and how long they took: counts in buckets that grow with the time.
 *
 * One thread at a time writes a tally; any thread may read it meanwhile. Each count is true of some
 * moment of the reading. An eighth of a power of two is a bucket's width, so a time that is read
 * back is at most an eighth too long. */
#ifndef SML_RPC_TALLY_H
#define SML_RPC_TALLY_H

#include <stdatomic.h>
#include <stdint.h>

#include <semel/status.h>

#define SML_TALLY_LINEAR_NS 256 /* below this buckets are 32 ns wide */
#define SML_TALLY_POWER_MAX 42  /* 2^43 ns, 2.4 hours, is as long as it gets */
#define SML_TALLY_BUCKETS (8 + 8 * (SML_TALLY_POWER_MAX - 8 + 1))
#define SML_TALLY_OUTCOMES 4

struct sml_tally {
    _Atomic uint64_t outcomes[SML_TALLY_OUTCOMES]; /* by enum semel_outcome */
    _Atomic uint64_t buckets[SML_TALLY_BUCKETS];
};

/* The bucket of a time. */
static inline uint32_t sml_tally_bucket(uint64_t ns)
{
    uint32_t power;

    if (ns < SML_TALLY_LINEAR_NS)
        return (uint32_t)(ns >> 5);
    if (ns >> (SML_TALLY_POWER_MAX + 1))
        return SML_TALLY_BUCKETS - 1;
    power = 63 - (uint32_t)__builtin_clzll(ns);
    return 8 + (power - 8) * 8 + (uint32_t)(ns >> (power - 3) & 7);
}

/* The longest time of a bucket. */
uint64_t sml_tally_bound(uint32_t bucket);

/* Not an atomic addition: the writer is alone. */
static inline void sml_tally_count(_Atomic uint64_t *count)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

static inline void sml_tally_add(struct sml_tally *tally, enum semel_outcome outcome, uint64_t ns)
{
    sml_tally_count(&tally->outcomes[outcome]);
    sml_tally_count(&tally->buckets[sml_tally_bucket(ns)]);
}

/* Several, read and added up. */
struct sml_tally_sum {
    uint64_t outcomes[SML_TALLY_OUTCOMES];
    uint64_t count; /* in the buckets */
    uint64_t buckets[SML_TALLY_BUCKETS];
};

void sml_tally_sum_add(struct sml_tally_sum *sum, const struct sml_tally *tally);
void sml_tally_sum_merge(struct sml_tally_sum *sum, const struct sml_tally_sum *other);
/* The time that `permille` of 1000 did not exceed, as its bucket's bound; 0 if there are none. */
uint64_t sml_tally_sum_quantile(const struct sml_tally_sum *sum, uint32_t permille);

#endif
