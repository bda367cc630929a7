/* SPDX-License-Identifier: MIT */
/* glib.h - a Semel loop inside a GLib main loop. Link with -lsemel_glib (pkg-config semel-glib).
 *
 * The Semel loop's tasks, timers and descriptors are served by a GSource, on the thread that
 * iterates its context, up to semel_loop_options.turn_tasks of them at a time. Nobody else may
 * serve it. */
#ifndef SEMEL_GLIB_H
#define SEMEL_GLIB_H

#include <semel/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct _GSource; /* GSource */

/* A source to be given to g_source_attach; g_source_set_priority and the rest serve as well.
 * loop: lent until g_source_destroy, or until it is destroyed, in one of its own callbacks or
 * out of them: then the source serves nothing any more. Returns: owned by caller, ends with
 * g_source_unref; NULL: loop is NULL, or there is no descriptor left. Thread: any thread.
 * Blocks: no. Since: 0.3 */
SEMEL_API struct _GSource *semel_glib_source_new(struct semel_loop *loop) SEMEL_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
