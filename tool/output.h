/* SPDX-License-Identifier: MIT */
/* output.h - what people and programs read.
 *
 * Data goes to standard output, everything else to standard error. Messages are one line each
 * ("semel call: ..."), control characters in them are escaped, so that no peer can write to a
 * terminal. Colour only on a terminal. */
#ifndef TOOL_OUTPUT_H
#define TOOL_OUTPUT_H

#include <argp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <semel/log.h>

/* The options -q, -v and -o that every command takes: their argp entries, and their handler.
 * output_option returns false for any other key. */
/* clang-format off */
#define OUTPUT_OPTIONS                                                                         \
    { "quiet", 'q', NULL, 0, "Say nothing but errors", 90 },                                   \
    { "verbose", 'v', NULL, 0, "Say more; twice: everything", 90 },                            \
    { "output", 'o', "FORMAT", 0, "Print data as text (default) or json", 90 }
/* clang-format on */

bool output_option(int key, const char *arg, struct argp_state *state);

/* `name` begins each message ("semel call"); borrowed for the whole run. */
void output_init(const char *name);

bool output_json(void);
bool output_quiet(void);
bool output_verbose(void);
/* True when a line on standard error may be redrawn: a terminal, not quiet. */
bool output_live(void);

/* An error: always shown, red on a terminal. */
void output_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A remark: not shown with -q. */
void output_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Shown with -v. */
void output_detail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Bytes of somebody else, each line indented, escaped; not shown with -q. */
void output_quote(const void *data, size_t size);
/* Bytes of somebody else, as a part of a line; what could move a cursor is shown as \xNN. */
void output_escaped(FILE *file, const void *data, size_t size);
/* Redraw the live line; NULL removes it. */
void output_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A semel_log_fn: warnings and errors, with -v infos, with -v -v everything. */
void output_log(enum semel_log_level level, const char *text, void *user);
/* The same with one step less: warnings only with -v. */
void output_log_errors(enum semel_log_level level, const char *text, void *user);

#endif
