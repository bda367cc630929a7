/* SPDX-License-Identifier: MIT */
/* passing.h - descriptors handed from process to process, each with a few words: a Unix socket of
 * packets, beside the one that carries the bytes. */
#ifndef SML_IO_PASSING_H
#define SML_IO_PASSING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <semel/status.h>

#define SML_PASSING_WORDS 64 /* at most, of bytes beside a descriptor */

/* Each gives a descriptor, close-on-exec; accept -1: nobody waits. Nothing here blocks; connect
 * WOULD_BLOCK: too many wait to be accepted. */
enum semel_status sml_passing_listen(const char *path, int *out_fd);
int sml_passing_accept(int fd);
enum semel_status sml_passing_connect(const char *path, int *out_fd);
void sml_passing_close(int fd);
/* Whoever passes something from now on is refused; what was passed before can be received. */
void sml_passing_shut(int fd);

/* Returns OK; WOULD_BLOCK: as many are under way as there may be; PEER_DIED. `passed` stays the
 * caller's. */
enum semel_status sml_passing_send(int fd, const void *words, size_t size, int passed);

/* One packet: *out_passed is the receiver's. False: there is none now; *out_ended: there will be
 * none. A packet without a descriptor, or with too many words, is skipped. */
bool sml_passing_receive(int fd, void *words, size_t size, int *out_passed, bool *out_ended);

#endif
