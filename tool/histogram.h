/* SPDX-License-Identifier: MIT */
/* histogram.h - times, kept to within 1/64 of their value.
 *
 * Values below 64 have a bucket each; above, every power of two is divided into 64 buckets. One
 * thread writes a histogram; histogram_add merges them afterwards. */
#ifndef TOOL_HISTOGRAM_H
#define TOOL_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB 64
#define HISTOGRAM_BUCKETS (HISTOGRAM_SUB + 57 * HISTOGRAM_SUB)

struct histogram {
    uint64_t count, sum;
    int64_t max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

/* Negative values count as 0. */
void histogram_record(struct histogram *histogram, int64_t value);

void histogram_add(struct histogram *histogram, const struct histogram *other);

/* The value that `fraction` (0 .. 1) of all records do not exceed: the middle of its bucket, at
 * most the greatest record. 0 when there are none. */
double histogram_at(const struct histogram *histogram, double fraction);

#endif
