/* SPDX-License-Identifier: MIT */
/* guard.c - what keeps a handler inside its transaction.
 *
 * A handler runs between a savepoint and its release. It may do anything that can be undone with
 * it, and nothing else:
 *  - the authorizer refuses to prepare statements that begin or end transactions or savepoints,
 *    pragmas, attaching, and changes of our own tables;
 *  - the commit hook turns every commit that is not ours into a rollback;
 *  - what it left running is reset;
 *  - whether the transaction is still there is asked of SQLite afterwards: a conflict clause such
 *    as INSERT OR ROLLBACK ends it without any statement that an authorizer sees. */
#include <stdio.h>
#include <string.h>

#include "os/clock.h"
#include "sqlite/sqlite_internal.h"

#define PROGRESS_OPS 4096 /* of SQLite's machine, between looks at the clock */

/* Ours, or where SQLite remembers which numbers of sessions it has given. */
static bool is_our_table(const char *name)
{
    return name && (sqlite3_strnicmp(name, "semel_", 6) == 0 ||
                    sqlite3_stricmp(name, "sqlite_sequence") == 0);
}

static int authorize(void *user, int action, const char *first, const char *second,
                     const char *database, const char *trigger)
{
    const struct sml_sqlite *s = user;

    (void)database;
    (void)trigger;
    if (s->ours)
        return SQLITE_OK;
    switch (action) {
    case SQLITE_TRANSACTION:
    case SQLITE_SAVEPOINT:
    case SQLITE_PRAGMA:
    case SQLITE_ATTACH:
    case SQLITE_DETACH:
        return SQLITE_DENY;
    case SQLITE_READ:
    case SQLITE_SELECT:
    case SQLITE_FUNCTION:
    case SQLITE_RECURSIVE:
    case SQLITE_ANALYZE:
    case SQLITE_REINDEX:
        return SQLITE_OK;
    default: /* changes, of what is named by either of these */
        return is_our_table(first) || is_our_table(second) ? SQLITE_DENY : SQLITE_OK;
    }
}

static int on_commit(void *user)
{
    const struct sml_sqlite *s = user;

    return s->committing ? 0 : 1;
}

static int on_progress(void *user)
{
    const struct sml_sqlite *s = user;

    if (!s->guarded)
        return 0;
    return (s->cancelled && atomic_load_explicit(s->cancelled, memory_order_relaxed)) ||
           (s->until != SML_NEVER && sml_clock_now() >= s->until);
}

void sml_sqlite_install_guards(struct sml_sqlite *s)
{
    sqlite3_set_authorizer(s->db, authorize, s);
    sqlite3_commit_hook(s->db, on_commit, s);
    sqlite3_progress_handler(s->db, PROGRESS_OPS, on_progress, s);
}

enum sml_stored sml_sqlite_guard(struct semel_store *store, uint64_t until,
                                 const atomic_bool *cancelled)
{
    struct sml_sqlite *s = sml_sqlite_of(store);
    enum sml_stored stored = sml_sqlite_step(s, SML_SQL_GUARD, "setting a savepoint");

    s->until = until;
    s->cancelled = cancelled;
    s->guarded = stored == SML_STORED;
    return stored;
}

/* A statement that the handler left half-way would keep our own from ending. */
static void reset_left(struct sml_sqlite *s)
{
    for (sqlite3_stmt *at = sqlite3_next_stmt(s->db, NULL); at; at = sqlite3_next_stmt(s->db, at))
        if (sqlite3_stmt_busy(at))
            (void)sqlite3_reset(at);
}

enum sml_stored sml_sqlite_unguard(struct semel_store *store, bool keep)
{
    struct sml_sqlite *s = sml_sqlite_of(store);
    enum sml_stored stored = SML_STORED;

    s->guarded = false;
    if (sqlite3_get_autocommit(s->db)) {
        s->open = false;
        snprintf(
            store->text, sizeof store->text, "%.200s: the handler lost its transaction%s%.200s",
            s->path, sml_sqlite_status(sqlite3_errcode(s->db)) == SEMEL_OK ? "" : ": ",
            sml_sqlite_status(sqlite3_errcode(s->db)) == SEMEL_OK ? "" : sqlite3_errmsg(s->db));
        store->status = SEMEL_ROLLED_BACK;
        reset_left(s);
        return SML_NOT_STORED;
    }
    reset_left(s);
    if (!keep)
        stored = sml_sqlite_step(s, SML_SQL_UNDO, "undoing a handler's work");
    if (stored == SML_STORED)
        stored = sml_sqlite_step(s, SML_SQL_KEEP, "releasing a savepoint");
    return stored;
}

struct sqlite3 *semel_sqlite_handle(struct semel_store *store)
{
    return store && store->ops == &sml_sqlite_ops ? sml_sqlite_of(store)->db : NULL;
}
