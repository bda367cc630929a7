/* SPDX-License-Identifier: MIT */
/* sqlite_memory.h - SQLite's memory, which fails when a test wants it to. */
#ifndef SML_TESTS_SQLITE_MEMORY_H
#define SML_TESTS_SQLITE_MEMORY_H

#include <stdbool.h>

/* Before SQLite is used for the first time. */
void sqlite_memory_install(void);

/* The n-th allocation from now fails, and none after it; 0: none. */
void sqlite_memory_fail_at(int n);
/* Has it failed since? */
bool sqlite_memory_has_failed(void);
/* Blocks that are allocated now. */
int sqlite_memory_blocks(void);

/* Asked before every allocation, also of the others of a process: may it be had? NULL: always. */
void sqlite_memory_ask(bool (*may)(void));

#endif
