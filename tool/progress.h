/* SPDX-License-Identifier: MIT */
/* progress.h - how far a call is, as it says itself: "0.42", "42%", "3/7", or any words.
 *
 * On a terminal one line is redrawn: a bar for a number, with what was said; else each change is a
 * line. */
#ifndef TOOL_PROGRESS_H
#define TOOL_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

/* The part that is done, 0 .. 1. False: it is no number of these kinds. */
bool progress_parse(const char *text, size_t size, double *out_done);

/* "[#####     ]  50 % 3/6", cut to `columns`; what could move a cursor is shown as a '?'. */
void progress_draw(const char *text, size_t size, unsigned columns, char *line, size_t line_size);

/* Show it. */
void progress_show(const void *text, size_t size);
/* Take the line off the terminal; progress_again puts it back. */
void progress_hide(void);
void progress_again(void);

#endif
