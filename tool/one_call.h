/* SPDX-License-Identifier: MIT */
/* one_call.h - a command that connects, makes one call, and ends.
 *
 * Nothing is submitted before a connection is there, so that "cannot connect" is a promise that
 * nothing was sent. */
#ifndef TOOL_ONE_CALL_H
#define TOOL_ONE_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tool.h"

/* What is done with a call's streams until it is over, and has its result then; on the thread that
 * made the call. */
typedef void (*one_call_stream_fn)(struct semel_stream *stream, struct semel_result *out_result,
                                   void *user);

struct one_call {
    const char *address, *method;
    struct semel_bytes body;
    struct semel_call_options options;  /* deadline_ms: from the beginning of the command */
    int64_t connect_timeout_ms;         /* 0: a server that is not there is not waited for */
    uint64_t body_limit;                /* 0: the default */
    struct semel_stream_options stream; /* zero: the call has none */
    one_call_stream_fn run;             /* with one */
    void *run_user;
};

/* Make it. Ctrl-C before the call ends the process, during it once cancels, twice gives up with
 * exit code 5; from then on it is 5, too: who waits may not have all of the answer.
 * Returns: OK: *out_result, to be cleared, has the outcome; else nothing was sent, and `text` may
 * say more. Once per process, after signals_block. Blocks: until the outcome. */
enum semel_status one_call(const struct one_call *plan, struct semel_result *out_result, char *text,
                           size_t size);

/* All of standard input, to be freed. False: it cannot be read or held; said so. */
bool input_read(char **out_data, size_t *out_size);

/* Did standard output take all that was printed? If not, it is said, with the outcome `how`. */
bool output_written(const char *how);

#endif
