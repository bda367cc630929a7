/* SPDX-License-Identifier: MIT */
/* epoll.h - wait for many descriptors, level-triggered.
 *
 * Any thread may add, modify and remove while others wait. What a thread wrote before adding or
 * modifying a descriptor is visible to the thread that gets its event. */
#ifndef SML_OS_EPOLL_H
#define SML_OS_EPOLL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include <semel/status.h>

#include "base/compiler.h"
#include "base/time.h"

#define SML_POLL_IN ((uint32_t)EPOLLIN)
#define SML_POLL_OUT ((uint32_t)EPOLLOUT)
#define SML_POLL_HUP ((uint32_t)EPOLLHUP)   /* reported, asked for or not */
#define SML_POLL_ERROR ((uint32_t)EPOLLERR) /* reported, asked for or not */

struct sml_epoll {
    int fd;                   /* -1: not open */
    _Atomic bool coarse;      /* the kernel has no epoll_pwait2 */
    _Atomic uint32_t changes; /* orders additions before the events they cause */
};

/* Returns OK; LIMIT, NO_MEMORY, SYSTEM. */
enum semel_status sml_epoll_open(struct sml_epoll *epoll) SML_MUST_USE;
void sml_epoll_close(struct sml_epoll *epoll); /* once or more often */

/* `data` comes back in event.data.u64. Returns OK; LIMIT or NO_MEMORY (the kernel's bounds);
 * INVALID for a descriptor that cannot be watched; ALREADY (it is in). */
enum semel_status sml_epoll_add(struct sml_epoll *epoll, int fd, uint32_t events, uint64_t data)
    SML_MUST_USE;
/* Returns OK; NO_MEMORY; INVALID: it is out, or was closed. */
enum semel_status sml_epoll_try_modify(struct sml_epoll *epoll, int fd, uint32_t events,
                                       uint64_t data) SML_MUST_USE;
/* Cannot fail for a descriptor that is in. */
void sml_epoll_modify(struct sml_epoll *epoll, int fd, uint32_t events, uint64_t data);
/* Harmless for one that is out. Do it before closing the descriptor. */
void sml_epoll_remove(struct sml_epoll *epoll, int fd);

/* Is there an event to be had now? It stays. */
bool sml_epoll_is_ready(const struct sml_epoll *epoll);

/* Wait until an event, at latest until `deadline_ns` (absolute; 0: do not wait; SML_NEVER: no
 * limit). Returns the number of events in `out_events`, 0 when the deadline passed. Interruptions
 * are waited through. */
int sml_epoll_wait(struct sml_epoll *epoll, struct epoll_event *out_events, int count_max,
                   uint64_t deadline_ns);

#endif
