/* SPDX-License-Identifier: MIT */
/* wake.h - wake a thread that waits for descriptors.
 *
 * Signals that come while one is pending are merged and cost no system call. The rule for the
 * waiter: drain first, then look at the work. Then no work that was published before its signal
 * is missed. */
#ifndef SML_OS_WAKE_H
#define SML_OS_WAKE_H

#include <stdatomic.h>
#include <stdint.h>

#include <semel/status.h>

#include "base/compiler.h"

struct sml_wake {
    int fd; /* readable while signalled; -1: not open */
    _Atomic uint32_t pending;
};

/* Returns OK; LIMIT, NO_MEMORY, SYSTEM. */
enum semel_status sml_wake_open(struct sml_wake *wake) SML_MUST_USE;
void sml_wake_close(struct sml_wake *wake); /* once or more often */

/* The system call behind a signal. */
void sml_wake_write(struct sml_wake *wake);

/* Make `fd` readable. Any thread, signal-safe. */
static inline void sml_wake_signal(struct sml_wake *wake)
{
    if (atomic_exchange_explicit(&wake->pending, 1, memory_order_acq_rel) == 0)
        sml_wake_write(wake);
}

/* Make `fd` unreadable. The waiter's thread; harmless when nothing was signalled. */
void sml_wake_drain(struct sml_wake *wake);

#endif
