/* SPDX-License-Identifier: MIT */
/* cutter.h - bytes become items: lines without their newline, or chunks as they come. */
#ifndef TOOL_CUTTER_H
#define TOOL_CUTTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cutter {
    size_t chunk;    /* 0: lines; else an item has at most so many bytes */
    size_t line_max; /* a longer line is an error */
    char *held;      /* the beginning of a line */
    size_t size, room;
};

enum cut { CUT_OK, CUT_TOO_LONG, CUT_NO_MEMORY, CUT_STOPPED };

/* An item, borrowed. False: no more are wanted. */
typedef bool (*cutter_fn)(const char *item, size_t size, void *user);

/* These bytes come next. STOPPED: `fn` said so. After anything but OK only cutter_clear may
 * follow. */
enum cut cutter_feed(struct cutter *cutter, const char *data, size_t size, cutter_fn fn,
                     void *user);

/* None follow: a line that did not end is an item, too. */
enum cut cutter_end(struct cutter *cutter, cutter_fn fn, void *user);

void cutter_clear(struct cutter *cutter);

#endif
