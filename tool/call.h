/* SPDX-License-Identifier: MIT */
/* call.h - what the files of semel call share. */
#ifndef TOOL_CALL_H
#define TOOL_CALL_H

#include <stdbool.h>
#include <stdint.h>

#include "tool.h"

struct call_arguments {
    const char *address, *method, *data, *key;
    const char *outbox;                     /* NULL: none */
    int64_t timeout_ms, connect_timeout_ms; /* 0: not said */
    uint64_t body_limit;                    /* 0: not said */
    bool rerun_ok, refuse_when_full;
    bool stream, raw, progress, send; /* streams; the rest of call_stream.c */
    uint64_t chunk;                   /* of what is sent; 0: lines */
};

/* call_print.c: print the outcome, with its key if there is one; *out_code is the exit code. False:
 * standard output did not take it, which was said. */
bool call_print(const struct semel_result *result, const char *key, int *out_code);

/* Print one of many results, as a line. False: as above. */
bool call_print_line(const struct semel_result *result, const char *key);

/* Report a call that was never made. Returns the exit code. */
int call_not_made(const struct call_arguments *a, enum semel_status status, const char *text);

/* call_stream.c: what a call with streams does on its one_call. */
struct call_streams {
    const struct call_arguments *arguments;
    bool unwritten;  /* standard output did not take an item */
    bool incomplete; /* items are missing at the end */
    bool unread;     /* standard input was not sent to its end */
    bool given_up;   /* unread on account of this command, not of a method that has enough */
};
/* A one_call_stream_fn; user is a struct call_streams. */
void call_streams_run(struct semel_stream *stream, struct semel_result *out_result, void *user);

/* call_outbox.c: the call by way of an outbox; without a method, all calls of the outbox. Returns
 * the exit code. Blocks: until there are results, or the timeout has passed. */
int call_outbox(const struct call_arguments *a, struct semel_bytes body);

#endif
