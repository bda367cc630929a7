/* SPDX-License-Identifier: MIT */
#include "chance.h"

#include <math.h>

void chance_seed(struct chance *chance, uint64_t seed)
{
    chance->state = seed;
}

/* SplitMix64: any seed is a good one, and each state is visited once. */
uint64_t chance_next(struct chance *chance)
{
    uint64_t mixed = chance->state += UINT64_C(0x9e3779b97f4a7c15);

    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ mixed >> 31;
}

uint64_t chance_below(struct chance *chance, uint64_t bound)
{
    return (uint64_t)((unsigned __int128)chance_next(chance) * bound >> 64);
}

int64_t chance_interval(struct chance *chance, int64_t mean)
{
    /* Never 0, so that the logarithm is finite. */
    double uniform = ((double)(chance_next(chance) >> 11) + 1) / 9007199254740993.0;
    double interval = -log(uniform) * (double)mean;

    return (int64_t)(interval < 10 * (double)mean ? interval : 10 * (double)mean);
}
