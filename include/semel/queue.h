/* SPDX-License-Identifier: MIT */
/* queue.h - a queue between callbacks: items that wait for takers, or takers that wait for
 * items.
 *
 * Both lines are FIFO and bounded; a bound of 0 is legal. A full line is OVERLOADED at once:
 * nothing blocks, nothing is dropped. It belongs to a loop's thread.
 *
 * In a callback of a queue all of this may be called, destroy too. What is put there is at once the
 * item of the one who has waited longest, but that one's callback is called when this one has
 * returned. */
#ifndef SEMEL_QUEUE_H
#define SEMEL_QUEUE_H

#include <stdint.h>

#include <semel/deferred.h>
#include <semel/loop.h>
#include <semel/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct semel_queue; /* thread: loop thread */

struct semel_queue_options {
    int64_t items;  /* most that may wait; 0 .. 2^31-1; negative: 1,048,576 */
    int64_t takers; /* most that may wait; likewise */
};
#define SEMEL_QUEUE_OPTIONS_INIT { -1, -1 }

/* out: owned by caller. loop: lent until destroyed; NULL: the owner thread's. options: borrowed;
 * NULL for the defaults. Returns: OK; INVALID; NO_MEMORY; DENIED: the wrong thread. Thread: loop
 * thread. Since: 0.3 */
SEMEL_API enum semel_status semel_queue_create(struct semel_queue **out, struct semel_loop *loop,
                                               const struct semel_queue_options *options)
    SEMEL_MUST_USE;

/* Takers fail with STOPPED, then items are dropped by their `drop`. In a callback of the queue it
 * is freed when the outermost one has returned; until then what is called of it is STOPPED. NULL is
 * fine; on another thread nothing is done. Thread: loop thread. Since: 0.3 */
SEMEL_API void semel_queue_destroy(struct semel_queue *queue);

/* Give an item to the taker that has waited longest, or let it wait. item: moved on OK; may be
 * NULL. Returns: OK; INVALID; OVERLOADED; NO_MEMORY; DENIED; STOPPED. Thread: loop thread.
 * Since: 0.3 */
SEMEL_API enum semel_status semel_queue_put(struct semel_queue *queue, void *item,
                                            void (*drop)(void *item)) SEMEL_MUST_USE;

/* *out (owned by caller) fires with the oldest item, at once if there is one. Cancelled before, it
 * leaves the line in O(1). Returns: OK; INVALID; OVERLOADED; NO_MEMORY; DENIED; STOPPED. Thread:
 * loop thread. Since: 0.3 */
SEMEL_API enum semel_status semel_queue_get(struct semel_queue *queue, struct semel_deferred **out)
    SEMEL_MUST_USE;

/* Items that wait; takers that wait. Thread: loop thread. Since: 0.3 */
SEMEL_API uint32_t semel_queue_items(const struct semel_queue *queue);
SEMEL_API uint32_t semel_queue_takers(const struct semel_queue *queue);

#ifdef __cplusplus
}
#endif
#endif
