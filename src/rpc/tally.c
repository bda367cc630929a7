/* SPDX-License-Identifier: MIT */
#include "rpc/tally.h"

uint64_t sml_tally_bound(uint32_t bucket)
{
    uint32_t power = 8 + (bucket - 8) / 8;

    if (bucket < 8)
        return (bucket + 1) * UINT64_C(32) - 1;
    return ((UINT64_C(9) + (bucket - 8) % 8) << (power - 3)) - 1;
}

void sml_tally_sum_add(struct sml_tally_sum *sum, const struct sml_tally *tally)
{
    for (int i = 0; i < SML_TALLY_OUTCOMES; i++)
        sum->outcomes[i] += atomic_load_explicit(&tally->outcomes[i], memory_order_relaxed);
    for (int i = 0; i < SML_TALLY_BUCKETS; i++) {
        uint64_t count = atomic_load_explicit(&tally->buckets[i], memory_order_relaxed);

        sum->buckets[i] += count;
        sum->count += count;
    }
}

void sml_tally_sum_merge(struct sml_tally_sum *sum, const struct sml_tally_sum *other)
{
    for (int i = 0; i < SML_TALLY_OUTCOMES; i++)
        sum->outcomes[i] += other->outcomes[i];
    for (int i = 0; i < SML_TALLY_BUCKETS; i++)
        sum->buckets[i] += other->buckets[i];
    sum->count += other->count;
}

uint64_t sml_tally_sum_quantile(const struct sml_tally_sum *sum, uint32_t permille)
{
    /* The rank, rounded up, without an overflow. */
    uint64_t rank = sum->count / 1000 * permille + (sum->count % 1000 * permille + 999) / 1000;
    uint64_t seen = 0;

    for (uint32_t i = 0; i < SML_TALLY_BUCKETS; i++) {
        seen += sum->buckets[i];
        if (sum->buckets[i] > 0 && seen >= rank)
            return sml_tally_bound(i);
    }
    return 0;
}
