/* SPDX-License-Identifier: MIT */
/* report.c - which faults struck and which states were reached. See sim.h. */
#include "sim.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *word;
    char group;
} faults[] = {
#define ENTRY(name, word, group) { word, #group[0] },
    SIM_FAULTS(ENTRY)
#undef ENTRY
};

static const char *const marks[] = {
#define ENTRY(name, text) text,
    SIM_MARKS(ENTRY) SIM_HOSTILE_MARKS(ENTRY) SIM_STORE_MARKS(ENTRY)
#undef ENTRY
};

const char *sim_fault_word(enum sim_fault fault)
{
    return faults[fault].word;
}

uint64_t sim_fault_bit(const char *word)
{
    for (uint32_t i = 0; i < SIM_FAULT_COUNT; i++)
        if (strcmp(word, faults[i].word) == 0)
            return SIM_BIT(i);
    return 0;
}

uint64_t sim_faults_counted(const struct sim_stats *stats)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < SIM_FAULT_COUNT; i++)
        if (faults[i].group != 'L')
            sum += stats->faults[i];
    return sum + stats->tampered;
}

void sim_report_details(const struct sim_stats *stats)
{
    for (uint32_t i = 0; i < SIM_FAULT_COUNT; i++)
        printf("  %c  %-20s %10llu\n", faults[i].group, faults[i].word,
               (unsigned long long)stats->faults[i]);
    for (uint32_t i = 0; i < SIM_MARK_COUNT; i++)
        printf("  %-52s %10llu\n", marks[i], (unsigned long long)stats->marks[i]);
}

static bool were_reached(const struct sim_stats *stats, uint32_t from, uint32_t to)
{
    bool all = true;

    for (uint32_t i = from; i < to; i++)
        if (!stats->marks[i]) {
            printf("INCOMPLETE: never reached: %s\n", marks[i]);
            all = false;
        }
    return all;
}

static bool is_expected(enum sim_fault fault, enum sim_mode mode)
{
    bool of_stores = fault >= SIM_POWER_CUT && fault < SIM_STREAMS;

    return mode != SIM_HOSTILE && (mode == SIM_STORE || !of_stores);
}

bool sim_report_complete(const struct sim_stats *stats, enum sim_mode mode)
{
    uint32_t hostile = SIM_MARK_GARBAGE_REFUSED, store = SIM_MARK_DIED_START_UNSTORED;
    bool complete = true;

    for (uint32_t i = 0; i < SIM_FAULT_COUNT; i++)
        if (!stats->faults[i] && is_expected((enum sim_fault)i, mode)) {
            printf("INCOMPLETE: the fault '%s' never struck\n", faults[i].word);
            complete = false;
        }
    if (mode == SIM_HOSTILE)
        return were_reached(stats, hostile, store) && complete;
    complete &= were_reached(stats, 0, hostile);
    return (mode != SIM_STORE || were_reached(stats, store, SIM_MARK_COUNT)) && complete;
}
