/* SPDX-License-Identifier: MIT */
/* shell_stream.h - a command whose call has streams.
 *
 * What it writes to standard output becomes items, if the caller takes a stream; and so does what
 * the caller sends become its standard input, after the body. Lines of descriptor PROGRESS_FD are
 * its progress. */
#ifndef TOOL_SHELL_STREAM_H
#define TOOL_SHELL_STREAM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include <semel/stream.h>

#include "cutter.h"

#define PROGRESS_FD 4

struct shell_stream {
    struct semel_request *request;
    bool takes;             /* the caller takes items; else standard output is the reply */
    bool newlines;          /* items of the caller are lines */
    struct cutter output;   /* into items */
    struct cutter progress; /* into lines */
    bool silent;            /* nobody wants items any more */
    const char *lost;       /* why an item could not be made of the output; NULL: none was lost */
    const char *unfed;      /* the feeder's, until it has left: the same of the input */
    bool feeding;
    pthread_t feeder;
    int input; /* the feeder's: the command's standard input */
    int bell;  /* it is to stop */
    atomic_bool stop;
};

/* chunk: 0: lines; else items of at most so many bytes. line_max: a longer line is no item. */
void shell_stream_init(struct shell_stream *stream, struct semel_request *request, size_t chunk,
                       size_t line_max);

/* Have a thread write the request's body, and then its items, into `input`, which is not blocking,
 * and close it. True: it has moved. False: errno. */
bool shell_stream_feed(struct shell_stream *stream, int input);

/* Output and progress of the command. Blocks: while the caller reads slowly. */
void shell_stream_output(struct shell_stream *stream, const char *data, size_t size);
void shell_stream_progress(struct shell_stream *stream, const char *data, size_t size);

/* The command has ended, and its request has not: what it wrote last is an item, too. The feeder
 * has left on return. */
void shell_stream_end(struct shell_stream *stream);

#endif
