/* SPDX-License-Identifier: MIT */
/* spawn.h - child processes that run a program, end with this process, and are known by a
 * descriptor instead of by a number that somebody else may reap.
 *
 * The child begins with the default handling of every signal and none blocked, in a process group
 * of its own, without a standard input, and with one descriptor besides 1 and 2: SML_SPAWN_FD. It
 * gets SIGKILL when the thread that made it ends: so that should be one that lives as long as the
 * child may. */
#ifndef SML_OS_SPAWN_H
#define SML_OS_SPAWN_H

#include <stdbool.h>
#include <stdint.h>

#include <semel/status.h>

#include "base/compiler.h"
#include "os/error.h"

#define SML_SPAWN_FD 3 /* what a child finds its connection at */

struct sml_child {
    int32_t pid; /* 0: none */
    int pidfd;   /* readable once it has ended; -1: none */
};

enum sml_exit_kind {
    SML_EXIT_CODE,   /* it ended by itself */
    SML_EXIT_SIGNAL, /* a signal ended it */
    SML_EXIT_UNTOLD  /* somebody else of this process has reaped it */
};

struct sml_exit {
    enum sml_exit_kind kind;
    int number; /* the code, or the signal */
};

/* Run the program at `path` (NULL: that of this process, whatever its file is called now, and
 * also if it was replaced) with `argv`. `fd` stays the caller's; the child has it as SML_SPAWN_FD.
 * Blocks until the program has begun. Returns OK; LIMIT, NO_MEMORY, DENIED, SYSTEM (no such
 * program, or no pidfds here). */
enum semel_status sml_spawn(struct sml_child *out_child, const char *path, char *const *argv,
                            int fd, struct sml_reason *reason) SML_MUST_USE;

/* SIGTERM to the child, if it has not ended; never to a stranger. */
void sml_child_terminate(const struct sml_child *child);
/* SIGKILL to it and to its process group, those included that it started and left behind. To be
 * done while the child is not reaped: until then nobody else can have its number. */
void sml_child_kill_group(const struct sml_child *child);
/* How it ended, and forget it: its pidfd is readable. The descriptor is closed. */
struct sml_exit sml_child_reap(struct sml_child *child);
/* Forget it in a forked process, to which it does not belong. */
void sml_child_forget(struct sml_child *child);
/* "exited with code 3", "was killed by signal 9 (KILL)", "ended; ...", for `pid` in front. */
void sml_exit_say(const struct sml_exit *how, char *out, size_t room);
/* Bytes of its memory that are resident; 0 if that cannot be known. */
uint64_t sml_child_rss(const struct sml_child *child);

/* --- the two ends of its connection ------------------------------------------------------- */

/* No byte passes any more, in either direction; what is on its way can still be read. */
void sml_socket_shut(int fd);
/* Read what is there and throw it away; returns how many bytes that were. */
uint64_t sml_socket_drain(int fd);
/* Close it; -1 is fine, and becomes of it. */
void sml_fd_close(int *fd);
/* A second descriptor for it, closed on exec; -1: none to be had. */
int sml_fd_copy(int fd);
/* The process's children by exec do not have it. False: there is no such descriptor. */
bool sml_fd_keep(int fd);

/* --- the child's side ----------------------------------------------------------------------- */

/* Wait until the other end of the socket is gone; what arrives is not looked at. */
void sml_socket_wait_hangup(int fd);

#endif
