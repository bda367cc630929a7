/* SPDX-License-Identifier: MIT */
/* memory_store.h - a store that is nothing but memory: proof that struct sml_store_ops suffices to
 * plug one in, and a store that fails when a test wants it to.
 *
 * The disk outlives the stores that are opened on it, one at a time. It keeps what was committed;
 * a store that is closed, or whose process "dies", leaves nothing else behind. */
#ifndef SML_TESTS_MEMORY_STORE_H
#define SML_TESTS_MEMORY_STORE_H

#include "store/store.h"

struct kit_disk; /* thread: any thread, but for open and free */

struct kit_disk *kit_disk_make(void);
/* No store is open on it. NULL is fine. */
void kit_disk_free(struct kit_disk *disk);

/* NULL: one is open already. */
struct semel_store *kit_disk_open(struct kit_disk *disk);

/* From now on every answer is UNKNOWN, as if the process had died: what is committed stays, and so
 * does the mark of a handler that runs, unless the power goes too. The store is still to be
 * closed. */
void kit_disk_kill(struct kit_disk *disk);
void kit_disk_cut_power(struct kit_disk *disk);

/* What goes wrong from now on; it replaces what was to go wrong before. Of a failed transaction
 * nothing is stored, except where said. */
struct kit_fault {
    unsigned at_operation; /* the n-th one from now, reads and commits included; 0: none */
    unsigned at_commit;    /* the n-th commit from now; 0: none */
    bool stays;            /* and every later one of these */
    enum sml_stored answer;
    enum semel_status status; /* the reason that is told */
    bool stored;              /* UNKNOWN commits were stored after all */
    unsigned late_ms;         /* every commit takes this much longer */
};
void kit_disk_fault(struct kit_disk *disk, const struct kit_fault *fault);

/* Let the store's clock run on. */
void kit_disk_advance(struct kit_disk *disk, uint64_t ms);

/* Operations and commits so far, failed ones included. */
unsigned kit_disk_operations(struct kit_disk *disk);
unsigned kit_disk_commits(struct kit_disk *disk);

/* The work of a transactional handler: it adds to a sum, which is stored or undone with it. */
void kit_store_add(struct semel_store *store, int64_t amount);
/* The sum that is committed. */
int64_t kit_disk_sum(struct kit_disk *disk);

/* The handler loses its transaction, as by a statement of its own. */
void kit_store_lose(struct semel_store *store);

#endif
