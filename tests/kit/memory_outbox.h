/* SPDX-License-Identifier: MIT */
/* memory_outbox.h - an outbox that is nothing but memory, and fails when a test wants it to.
 *
 * The box outlives the outboxes that are opened on it, one at a time. It keeps what was committed;
 * an outbox that is closed, or whose process "dies", leaves nothing else behind. */
#ifndef SML_TESTS_MEMORY_OUTBOX_H
#define SML_TESTS_MEMORY_OUTBOX_H

#include "store/outbox.h"

struct kit_box; /* thread: any thread, but for open and free */

struct kit_box *kit_box_make(void);
void kit_box_free(struct kit_box *box);

/* NULL: one is open already. */
struct semel_outbox *kit_box_open(struct kit_box *box);

/* From now on every answer is UNKNOWN, as if the process had died. The outbox is still to be
 * closed. */
void kit_box_kill(struct kit_box *box);

/* The next `count` commits fail like this, and store nothing unless `stored`. */
void kit_box_fail(struct kit_box *box, unsigned count, enum sml_stored answer,
                  enum semel_status status, bool stored);

/* So many more commits pass, and then none until more are allowed; -1: all. */
void kit_box_allow(struct kit_box *box, int commits);
/* Until a commit is held up. */
void kit_box_wait_held(struct kit_box *box);

/* What is committed. */
struct kit_box_rows {
    int calls;   /* with and without a result */
    int results; /* the calls that have one */
    bool identity;
};
struct kit_box_rows kit_box_rows(struct kit_box *box);
/* The bytes of what was kept, to be broken by a test; NULL: there is none. */
uint8_t *kit_box_call(struct kit_box *box, int which);
uint8_t *kit_box_identity(struct kit_box *box);

#endif
