/* SPDX-License-Identifier: MIT */
/* failing.h - memory, calls of the system and of the disk that fail, the n-th of a group. Linked
 * with --wrap for what the library calls, with kit/sqlite_memory and fault/crash_vfs for SQLite. */
#ifndef TESTS_FAULT_FAILING_H
#define TESTS_FAULT_FAILING_H

#include <stdbool.h>

enum failing_group {
    FAILING_NOTHING,
    FAILING_MEMORY,       /* malloc, calloc, realloc */
    FAILING_STORE_MEMORY, /* SQLite's */
    FAILING_SYSTEM,       /* descriptors, threads, mappings, locks, randomness */
    FAILING_DISK          /* SQLite's: open, read, write, sync, locks, shared memory ... */
};

/* Before SQLite is used for the first time. */
void failing_install(void);

/* The n-th call of the group from now fails, once. */
void failing_at(enum failing_group group, unsigned n);
/* What failed since; NULL: nothing. */
const char *failing_what(void);

/* Blocks of memory that the library has now, and SQLite. */
int failing_blocks(void);

#endif
