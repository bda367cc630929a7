/* SPDX-License-Identifier: MIT */
/* task_tap.h - an executor's loop reads what workers say to its tasks.
 *
 * Without a tap a worker's word wakes the client's I/O thread, and that the loop: of a short task
 * that is half of its time. A tap is a copy of the connection's descriptor, watched by the loop;
 * the client says each time whether the loop is to read (client_seam.h). There is one for each
 * worker, kept from task to task. All functions are for the executor's thread. */
#ifndef SML_PROC_TASK_TAP_H
#define SML_PROC_TASK_TAP_H

#include "base/list.h"
#include "proc/task_backend.h"

struct sml_tap;

struct sml_taps {
    struct sml_turn turn;
    struct sml_list list; /* sml_tap */
};

void sml_taps_init(struct sml_taps *taps, const struct sml_turn *turn);
/* No task is at any of them. */
void sml_taps_close(struct sml_taps *taps);

/* A task goes to the worker with this id, whose client is there until sml_tap_leave. NULL: no
 * memory, or no descriptor. */
struct sml_tap *sml_tap_enter(struct sml_taps *taps, uint64_t worker, struct semel_client *client);
/* The loop is to read. If it cannot watch, the I/O thread will. */
void sml_tap_watch(struct sml_tap *tap);
void sml_tap_leave(struct sml_tap *tap);

#endif
