/* SPDX-License-Identifier: MIT */
/* lockpage.h - a small file that one process at a time holds, and whose contents survive it.
 *
 * The file is locked for as long as it is open (the lock dies with the process), and mapped: what
 * is stored in the page is there for the next process however this one ends, without a system call.
 * Only the machine's own end can lose it; sml_boot_id tells whether there was one. */
#ifndef SML_OS_LOCKPAGE_H
#define SML_OS_LOCKPAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/error.h"

struct sml_lockpage {
    int fd;        /* -1: closed */
    uint8_t *page; /* SML_LOCKPAGE_BYTES of it; the first 8 are the holder's process id */
    bool made;     /* by this opening */
};

#define SML_LOCKPAGE_BYTES 4096
#define SML_LOCKPAGE_HEAD 8 /* the user's bytes begin here */

/* Open or make the file, lock it, map it; new bytes are 0.
 * Returns OK; ADDRESS_IN_USE (it is held: *out_holder is the process that does, 0 if unknown);
 * STORE_FULL (no space for it); as sml_error_status. */
enum semel_status sml_lockpage_open(struct sml_lockpage *lock, const char *path,
                                    uint32_t *out_holder, struct sml_reason *reason);
/* Whatever state it is in. The file stays. */
void sml_lockpage_close(struct sml_lockpage *lock);
/* The same; but a file that was made by this opening goes. */
void sml_lockpage_discard(struct sml_lockpage *lock, const char *path);
/* Why it is ADDRESS_IN_USE, in words: who has it, and what to do (`remedy`: "stop it first"). */
void sml_lockpage_say_held(uint32_t holder, const char *remedy, char *out, size_t room);

/* Identifies this run of the machine's kernel; all 0 if that cannot be known. */
void sml_boot_id(uint8_t out[16]);

#endif
