/* SPDX-License-Identifier: MIT */
/* uv.h - a Semel loop inside a libuv loop. Link with -lsemel_uv (pkg-config semel-uv).
 *
 * The Semel loop's tasks, timers and descriptors are served in the libuv loop's turns, on its
 * thread, up to semel_loop_options.turn_tasks of them at a time. Nobody else may serve it. */
#ifndef SEMEL_UV_H
#define SEMEL_UV_H

#include <semel/loop.h>
#include <semel/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct uv_loop_s; /* uv_loop_t */
struct uv_poll_s; /* uv_poll_t */

struct semel_uv; /* thread: the libuv loop's thread */

/* Serve `loop` from now on. out: owned by caller. uv, loop: lent until semel_uv_detach; `loop` may
 * be destroyed before, in one of its own callbacks or out of them: then nothing is served any more.
 * Returns: OK; INVALID; NO_MEMORY, LIMIT, SYSTEM. Thread: the libuv loop's thread. Blocks: no.
 * Since: 0.3 */
SEMEL_API enum semel_status semel_uv_attach(struct semel_uv **out, struct uv_loop_s *uv,
                                            struct semel_loop *loop) SEMEL_MUST_USE;

/* Serve it no more; what waits, waits on. Also in a callback of the loop. NULL is fine. As with
 * every handle, the libuv loop must run once more before it can be closed. Thread: the libuv loop's
 * thread. Blocks: no. Since: 0.3 */
SEMEL_API void semel_uv_detach(struct semel_uv *attached);

/* The handle that keeps uv_run from returning: for uv_ref and uv_unref only. Returns: borrowed
 * until semel_uv_detach; NULL for NULL. Thread: the libuv loop's thread. Since: 0.3 */
SEMEL_API struct uv_poll_s *semel_uv_handle(struct semel_uv *attached);

#ifdef __cplusplus
}
#endif
#endif
