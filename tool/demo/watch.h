/* SPDX-License-Identifier: MIT */
/* watch.h - how the demo goes: sums of what its programs count, a live line, the end's table. */
#ifndef DEMO_WATCH_H
#define DEMO_WATCH_H

#include "demo.h"
#include "evidence.h"
#include "killer.h"

/* Sums of the counters that clients and proxies write down. */
struct watch_sums {
    uint64_t replayed, reattached, resumed; /* of the clients */
    uint64_t cuts;                          /* of the proxies */
};

void watch_sum(const struct demo *demo, struct watch_sums *out_sums);

/* What the audit says. */
struct watch_audit {
    uint64_t calls, values, failures, not_executed;
    uint64_t lost, doubled, mismatched, unknown, notify_unknown, unexplained;
};

/* Show how it goes, if it is time to; `now` 0 removes the live line. */
void watch_show(const struct demo *demo, int64_t now, const struct evidence *evidence,
                const struct killer_count *kills, unsigned clients_killed);

/* The table or the object of the end. */
void watch_result(const struct demo *demo, const struct killer_count *kills,
                  unsigned clients_killed, const struct watch_audit *audit);

/* judge.c: is there an audit? False: said not. */
bool judge_is_there(const struct demo *demo);

/* Have the audit judge, and say how it ended. True: passed. */
bool judge(const struct demo *demo, const struct killer_count *kills, unsigned clients_killed);

#endif
