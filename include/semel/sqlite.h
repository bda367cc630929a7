/* SPDX-License-Identifier: MIT */
/* sqlite.h - a store in an SQLite database, which may be the application's own. Link with
 * -lsemel_sqlite (pkg-config semel-sqlite).
 *
 * The store's tables, whose names begin with "semel_", stand beside the application's. A
 * transactional handler works on the same connection, inside the transaction that also records its
 * verdict: both are there after a crash, or neither.
 *
 * One process, one connection and one thread write the database while a server holds it; others may
 * read it. A foreign key of the application's that refers to a table of the store's is refused. The
 * database runs in WAL mode with synchronous=FULL: what was answered survives a power cut.
 * Beside the database PATH there is a file PATH-semel. It is locked while the store is open, it
 * tells after a crash which handler was running, and it knows whether the database was exchanged
 * for another or for an older copy. */
#ifndef SEMEL_SQLITE_H
#define SEMEL_SQLITE_H

#include <semel/outbox.h>
#include <semel/store.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3;

/* Zero everywhere selects the defaults. */
struct semel_sqlite_options {
    bool read_only;    /* only to look: nothing is locked, changed or made */
    bool adopt;        /* take what is there although PATH-semel remembers another store or a later
                           state: as semel_store_renew; not an older file with a later log */
    bool foreign_keys; /* enforce them (SQLite's own default is not to) */
};
#ifdef __cplusplus
#define SEMEL_SQLITE_OPTIONS_INIT {}
#else
#define SEMEL_SQLITE_OPTIONS_INIT { false, false, false }
#endif

/* Open the database `path`, or make it.
 * out_store  receives the store: owned by caller, moved by semel_server_create or ended by
 *            semel_store_close.
 * path       borrowed.
 * options    borrowed; NULL for the defaults.
 * out_text   may be NULL; else receives up to `size` bytes that say what is wrong with which file,
 *            and what to do.
 * Returns: OK; STORE_LOCKED (another process holds it); STORE_READ_ONLY (no permission, a read-only
 * file system); STORE_CORRUPT; STORE_NEWER (a later version of this library made it);
 * STORE_REPLACED (another store than the one that was here); STORE_ROLLED_BACK (an older copy of
 * it); STORE_FULL; STORE_FAILED; NO_MEMORY; INVALID (also an outbox, or a foreign key as above).
 * Thread: any thread. Blocks: while it is recovered from a crash. Since: 0.2 */
SEMEL_API enum semel_status semel_sqlite_open(struct semel_store **out_store, const char *path,
                                              const struct semel_sqlite_options *options,
                                              char *out_text, size_t size) SEMEL_MUST_USE;

/* Open the outbox file `path`, or make it; see outbox.h. One process at a time may have it open.
 * out_outbox  receives it: owned by caller, moved by semel_client_create or ended by
 *             semel_outbox_close.
 * Returns: as semel_sqlite_open, but for REPLACED and ROLLED_BACK; INVALID also for a store.
 * Thread: any thread. Blocks: while it is recovered from a crash. Since: 0.2 */
SEMEL_API enum semel_status semel_sqlite_outbox_open(struct semel_outbox **out_outbox,
                                                     const char *path, char *out_text, size_t size)
    SEMEL_MUST_USE;

/* The connection of a store, for a transactional handler. A handler must not begin, commit or roll
 * back (savepoints included), attach databases, set pragmas or touch tables named semel_* or
 * sqlite_sequence: such statements are refused. It leaves alone what is set on the connection: the
 * authorizer, the commit, progress and WAL hooks, limits, sqlite3_db_config, the number of pages at
 * which it checkpoints. These are the store's, and set anew for each handler; if one set a commit
 * hook and lost its transaction, the server stops. When a statement has ended the transaction
 * (sqlite3_get_autocommit; a full disk does that), the handler returns without running another: the
 * last error says whether its call waits, or is given up. Statements that it prepares it may keep
 * for later calls; they must be finalized before the store is closed. What else it opens, it
 * closes.
 * Returns: the connection, borrowed until the handler returns; NULL for a store of another kind.
 * Thread: inside a transactional handler. Blocks: no. Since: 0.2 */
SEMEL_API struct sqlite3 *semel_sqlite_handle(struct semel_store *store);

#ifdef __cplusplus
}
#endif
#endif
