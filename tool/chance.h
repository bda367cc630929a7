/* SPDX-License-Identifier: MIT */
/* chance.h - random numbers that a seed repeats. */
#ifndef TOOL_CHANCE_H
#define TOOL_CHANCE_H

#include <stdint.h>

struct chance {
    uint64_t state;
};

void chance_seed(struct chance *chance, uint64_t seed);

/* 64 random bits. */
uint64_t chance_next(struct chance *chance);

/* 0 .. bound - 1; bound > 0. */
uint64_t chance_below(struct chance *chance, uint64_t bound);

/* The time to the next of events that come independently of each other, `mean` apart on average:
 * exponentially distributed, at most 10 times the mean. */
int64_t chance_interval(struct chance *chance, int64_t mean);

#endif
