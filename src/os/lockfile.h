/* SPDX-License-Identifier: MIT */
/* lockfile.h - a file that one process at a time holds.
 *
 * It is held by the process, not by what runs in it or was forked from it, and the hold ends with
 * the process however that ends: there is no stale owner to be found out and put aside. The file is
 * empty and stays; who holds it is part of the lock itself. */
#ifndef SML_OS_LOCKFILE_H
#define SML_OS_LOCKFILE_H

#include <stdbool.h>
#include <stdint.h>

#include <semel/status.h>

#include "base/compiler.h"

struct sml_lockfile {
    void *hold; /* NULL: not held */
};

/* Make the file unless it is there. Returns OK; INVALID: it is no regular file; as
 * sml_error_status. */
enum semel_status sml_lockfile_make(const char *path) SML_MUST_USE;

/* Take the lock, which this one must not hold, if nobody has it. Returns OK; OVERLOADED: somebody
 * has it, or was faster; INVALID; as sml_error_status. */
enum semel_status sml_lockfile_take(struct sml_lockfile *lock, const char *path) SML_MUST_USE;

/* It must be held. In a forked child there is nothing to let go: do not call it there. */
void sml_lockfile_release(struct sml_lockfile *lock);

/* The process that holds it; 0: nobody; -1: that cannot be known. */
int64_t sml_lockfile_holder(const char *path);

/* A descriptor that becomes readable when a holder lets go or ends, or very shortly before; at
 * other times too. -1: there is none to be had, or the file system does not tell: look again now
 * and then in any case. */
int sml_lockfile_watch(const char *path);
void sml_lockfile_watch_drain(int fd);
void sml_lockfile_watch_close(int fd); /* -1 is fine */

/* Wait until fd (may be -1) is readable, at most `ns`, and drain it. False: nothing rang. */
bool sml_lockfile_watch_wait(int fd, uint64_t ns);

#endif
