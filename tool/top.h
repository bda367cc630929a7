/* SPDX-License-Identifier: MIT */
/* top.h - what the files of semel top share.
 *
 *   top.c         the command line, one sample as JSON, and the loop that asks and shows
 *   top_view.c    what lies between two answers: rates and quantiles
 *   top_screen.c  the terminal, by ncurses, and top_terminal.c; top_noscreen.c where that was not
 *                 to be had */
#ifndef TOOL_TOP_H
#define TOOL_TOP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tool.h"

/* --- top_view.c ------------------------------------------------------------------------------ */

struct top_method {
    const char *name;
    double rate; /* calls ended in a second */
    uint64_t running, waiting;
    uint64_t p50_ns, p99_ns; /* of the calls that ended in between; 0: there were none */
    uint64_t ended, failures, unknown;
};

enum top_order { TOP_BY_RATE, TOP_BY_P99, TOP_BY_RUNNING, TOP_BY_NAME, TOP_ORDERS };

struct top_view {
    const json_t *now;     /* borrowed: the later answer of semel.counters */
    bool fresh;            /* there is no earlier one: no rates yet */
    bool restarted;        /* the earlier one is another server's */
    double span;           /* seconds in between */
    struct top_method all; /* all methods; without a name */
    struct top_method *methods;
    size_t count;
};

/* From two answers of semel.counters, borrowed as long as the view; `earlier` may be NULL. False:
 * no memory. */
bool top_view_make(struct top_view *view, const json_t *earlier, const json_t *now);
void top_view_free(struct top_view *view);
void top_view_sort(struct top_view *view, enum top_order order);

/* Members of the parts of an answer. */
uint64_t top_counter(const struct top_view *view, const char *name);
const json_t *top_server(const struct top_view *view);

/* --- top_screen.c ---------------------------------------------------------------------------- */

enum top_page { TOP_METHODS, TOP_CALLS, TOP_WORKERS, TOP_PAGES };

enum top_key { TOP_NOTHING, TOP_QUIT, TOP_ASK_CANCEL, TOP_YES, TOP_FORCE, TOP_NO, TOP_REDRAW };

/* What is shown. All of it is borrowed while it is drawn. */
struct top_picture {
    const char *address;
    const struct top_view *view; /* NULL: no answer yet */
    const json_t *calls;         /* of semel.calls; NULL: no answer yet */
    const char *trouble;         /* why there is nothing new; "": there is */
    const char *message;         /* the last line's; "": what keys do */
    bool asking;                 /* the message is a question: y, f, or anything else */
};

/* top_terminal.c: can a terminal of this name be written to? */
bool terminal_is_known(const char *name);

/* Take the terminal. False: `why` says why not, and what to do instead. */
bool screen_open(char *why, size_t size);
/* Give it back as it was; more than once is fine. */
void screen_close(void);
void screen_draw(const struct top_picture *picture);
/* What was typed; TOP_NOTHING when nothing is left. Pages, order and choice change in here; then it
 * is TOP_REDRAW. */
enum top_key screen_key(bool asking);
enum top_order screen_order(void);
/* The page that is shown. */
enum top_page screen_page(void);
/* The id of the chosen call, and its method; "" for none. */
const char *screen_choice(const char **out_method);

#endif
