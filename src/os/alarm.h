/* SPDX-License-Identifier: MIT */
/* alarm.h - a time limit for an epoll set, as a descriptor in it.
 *
 * A deadline given to each wait costs two changes of a kernel timer per wait, a sixth of a lone
 * caller's round trip. Most deadlines only move away, so an alarm that is set early enough is left
 * as it is: it goes off too early now and then, and is set anew. */
#ifndef SML_OS_ALARM_H
#define SML_OS_ALARM_H

#include <stdint.h>

#include <semel/status.h>

#include "base/compiler.h"
#include "base/time.h"

/* One thread at a time. */
struct sml_alarm {
    int fd;      /* readable once it went off; -1: not open */
    uint64_t at; /* SML_NEVER: not set */
};

/* Returns OK; LIMIT, NO_MEMORY, SYSTEM. */
enum semel_status sml_alarm_open(struct sml_alarm *alarm) SML_MUST_USE;
void sml_alarm_close(struct sml_alarm *alarm); /* once or more often */

/* It goes off at `deadline_ns` (absolute, not 0; SML_NEVER: no need to) or earlier. */
void sml_alarm_set(struct sml_alarm *alarm, uint64_t deadline_ns);

/* It goes off at `deadline_ns` exactly, and is not readable before: what went off is taken back. */
void sml_alarm_move(struct sml_alarm *alarm, uint64_t deadline_ns);

/* It went off: not readable, not set. */
void sml_alarm_drain(struct sml_alarm *alarm);

#endif
