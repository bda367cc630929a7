/* SPDX-License-Identifier: MIT */
/* inject.h - system calls on chosen descriptors that move little, are interrupted, or are not
 * ready; and how many there were. Linked with --wrap. */
#ifndef TESTS_CONFORM_INJECT_H
#define TESTS_CONFORM_INJECT_H

#include <stddef.h>
#include <sys/types.h>

/* From now on each call on one of `fds` moves 1 .. bytes_max bytes, and half of the calls fail
 * first, with EINTR or EAGAIN in turn. */
void inject_start(const int *fds, int count, size_t bytes_max);
void inject_stop(void);

/* For what makes no system calls: may `size` bytes move? As a system call: -1 with errno, or how
 * many. */
ssize_t inject_allow(int fd, size_t size);

/* Calls on `fd` (any wrapped function) since inject_count_start; one descriptor at a time. */
void inject_count_start(int fd);
int inject_count(void);

/* Errors that were injected since inject_start. */
int inject_errors(void);

#endif
