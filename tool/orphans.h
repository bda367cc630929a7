/* SPDX-License-Identifier: MIT */
/* orphans.h - programs of a server that died: nothing may be said of their calls before they are
 * gone.
 *
 * A server with a store keeps a file beside it locked, and every program that it starts inherits
 * the open file, as descriptor ORPHANS_FD: so the lock lives as long as any of them, or of
 * theirs. They also find the mark in their environment; and what stands in a process group with
 * one of them is taken for theirs. */
#ifndef TOOL_ORPHANS_H
#define TOOL_ORPHANS_H

#include <stdbool.h>
#include <stdint.h>

#define ORPHANS_FD 3

struct orphans_options {
    const char *path; /* of the file; it is made if need be, and stays */
    const char *mark; /* "NAME=VALUE" */
    bool wait;        /* only wait for them */
    int64_t grace_ns; /* else: from SIGTERM to SIGKILL */
};

/* Wait until no program of an earlier server is left. The store is held, so there is no other
 * server that they could belong to. Returns the locked file, above ORPHANS_FD and closed on
 * exec; -1: it cannot be had, and that was said. Blocks: for as long as they live. */
int orphans_end(const struct orphans_options *options);

#endif
