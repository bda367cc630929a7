/* SPDX-License-Identifier: MIT */
/* bell.h - a counter that can be watched: readable while there is a ring that nobody has taken.
 *
 * Every ring is a system call and is taken by one: for those who know by themselves when a ring is
 * needed. sml_wake merges signals instead. */
#ifndef SML_OS_BELL_H
#define SML_OS_BELL_H

#include <stdbool.h>

#include <semel/status.h>

#include "base/compiler.h"

struct sml_bell {
    int fd; /* -1: not open */
};

/* Returns OK; LIMIT, NO_MEMORY, SYSTEM. */
enum semel_status sml_bell_open(struct sml_bell *bell) SML_MUST_USE;
void sml_bell_close(struct sml_bell *bell); /* once or more often */

/* One ring more. Any thread, signal-safe. Once it can be taken `bell` is not looked at any more. */
void sml_bell_ring(const struct sml_bell *bell);

/* Take one ring; false: there is none. Any thread. */
bool sml_bell_take(const struct sml_bell *bell);

/* Take one ring, which is under way. */
void sml_bell_await(const struct sml_bell *bell);

#endif
