/* SPDX-License-Identifier: MIT */
#include "histogram.h"

#include <stddef.h>

/* 2^k .. 2^(k+1)-1 with k >= 6 fall into buckets (k-5)*64 .. (k-5)*64+63. */
static size_t bucket_of(uint64_t value)
{
    int shift;

    if (value < HISTOGRAM_SUB)
        return (size_t)value;
    shift = 63 - __builtin_clzll(value) - 6;
    return (size_t)(shift * HISTOGRAM_SUB) + (size_t)(value >> shift);
}

static double bucket_middle(size_t bucket)
{
    size_t shift = bucket < 2 * HISTOGRAM_SUB ? 0 : bucket / HISTOGRAM_SUB - 1;
    double low = (double)(bucket - shift * HISTOGRAM_SUB) * (double)(UINT64_C(1) << shift);

    return low + (double)((UINT64_C(1) << shift) - 1) / 2;
}

void histogram_record(struct histogram *histogram, int64_t value)
{
    if (value < 0)
        value = 0;
    if (value > histogram->max)
        histogram->max = value;
    histogram->count++;
    histogram->sum += (uint64_t)value;
    histogram->buckets[bucket_of((uint64_t)value)]++;
}

void histogram_add(struct histogram *histogram, const struct histogram *other)
{
    histogram->count += other->count;
    histogram->sum += other->sum;
    if (other->max > histogram->max)
        histogram->max = other->max;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        histogram->buckets[i] += other->buckets[i];
}

double histogram_at(const struct histogram *histogram, double fraction)
{
    double wanted = fraction * (double)histogram->count;
    uint64_t seen = 0;

    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen > 0 && (double)seen >= wanted) {
            double middle = bucket_middle(i);

            return middle > (double)histogram->max ? (double)histogram->max : middle;
        }
    }
    return 0;
}
