/* SPDX-License-Identifier: MIT */
/* crash_vfs.h - a disk under SQLite that can lose power, and whose operations can fail.
 *
 * A VFS over the default one. Beside the files themselves it keeps, for every database with its
 * log and journal, what a disk would have for certain: what was there at the last sync, and the
 * operations since. A capture is the disk at a moment; from it comes a disk as it may be found
 * after a power cut at that moment: any of the unsynced operations may be there, parts of them too.
 *
 * Names. That a file was made, or deleted, is certain once its directory was synced, which SQLite
 * does with the first sync of a log or journal. */
#ifndef TESTS_FAULT_CRASH_VFS_H
#define TESTS_FAULT_CRASH_VFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Make it the default one; what is opened from now on goes through it. */
void crash_install(void);
/* Forget every file, and what was asked for. Nothing is open. */
void crash_reset(void);

/* --- power cuts ---------------------------------------------------------------------------- */

struct crash_capture; /* a disk with what is certain of it, and what is not */

enum crash_keep {
    CRASH_NOTHING, /* no unsynced operation was done */
    CRASH_ALL,
    CRASH_BEGINNING, /* the first of them */
    CRASH_SOME,      /* any of them, in order */
    CRASH_TORN,      /* sectors of any of them */
    CRASH_ZEROS,     /* the same; what lies behind the old end may be zeros */
    CRASH_KEEPS
};

struct crash_capture *crash_capture(void);
void crash_capture_free(struct crash_capture *capture);
/* The files under `from` become files under `to`, as they may be found; what is there under `to` is
 * removed. They count as synced from here on. */
void crash_restore(const struct crash_capture *capture, const char *from, const char *to,
                   enum crash_keep keep, uint32_t *seed);

/* Called before each sync and each write is done; NULL: no more. */
void crash_watch(void (*before)(bool is_sync, void *user), void *user);

/* Syncs are answered, and not done. */
void crash_drop_syncs(bool drop);

/* --- failures -------------------------------------------------------------------------------- */

enum crash_call {
    CRASH_OPEN,
    CRASH_READ,
    CRASH_WRITE,
    CRASH_TRUNCATE,
    CRASH_SYNC,
    CRASH_SIZE,
    CRASH_LOCK,
    CRASH_SHM_MAP,
    CRASH_SHM_LOCK,
    CRASH_DELETE,
    CRASH_ACCESS,
    CRASH_CALLS
};
extern const char *const crash_call_names[CRASH_CALLS];

/* The n-th of these calls from now fails, and with `stays` every one after it; n 0: none. With
 * `after` it does what it should, and then says that it failed. Writes that fail with `full` say
 * that the disk is full. After a sync that fails with `lost`, what it should have synced is gone,
 * although reads still show it and later syncs succeed. */
struct crash_failure {
    enum crash_call call;
    unsigned n;
    bool stays, after, full, lost;
};
void crash_fail(const struct crash_failure *failure);
bool crash_has_failed(void); /* since */

/* Asked before every call: may it succeed? Then nothing is kept for captures. NULL: no more. */
void crash_ask(bool (*may)(enum crash_call call));

#endif
