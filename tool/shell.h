/* SPDX-License-Identifier: MIT */
/* shell.h - a shell command as a method.
 *
 * /bin/sh -c COMMAND runs once per call: the body is its standard input, its standard output the
 * reply. Status 0 is a value, 1 to 128 a failure with that code and the last 4 KiB of standard
 * error, anything above, or death by a signal, unknown: what it had done by then, nobody can say.
 * Its environment has SEMEL_METHOD, SEMEL_CALL_KEY (32 hexadecimal digits, the same on every
 * re-execution), SEMEL_DEADLINE (milliseconds left when it started) and, if the caller gave one,
 * SEMEL_IDEMPOTENCY_KEY. Of a server with a store it also has the store's mark, and a descriptor
 * that tells the next server whether it still runs (orphans.h).
 *
 * A cancelled call's process group gets SIGTERM, and SIGKILL after the grace or as soon as nothing
 * holds the command's output any more. What a command leaves running in the background is neither
 * waited for nor killed, unless the call is cancelled. */
#ifndef TOOL_SHELL_H
#define TOOL_SHELL_H

#include <stdbool.h>

#include <semel/request.h>

struct shell {
    const char *command;
    int64_t grace_ns;    /* from SIGTERM to SIGKILL */
    uint64_t body_limit; /* output beyond it is not kept */
    const char *mark;    /* "SEMEL_STORE=..."; NULL: no store */
    int held;            /* with a mark: the command has it as ORPHANS_FD */
    bool streams;        /* see shell_stream.h */
    size_t chunk;        /* with streams: the largest item of its output; 0: lines */
};

/* A semel_handler_fn; user is a struct shell. Blocks until the command has ended. */
void shell_handler(struct semel_request *request, void *user);

#endif
