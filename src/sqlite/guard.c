/* SPDX-License-Identifier: MIT */
/* guard.c - what keeps a handler inside its transaction.
 *
 * A handler runs between a savepoint and its release. It may do anything that can be undone with
 * it, and nothing else:
 *  - the authorizer refuses to prepare statements that begin or end transactions or savepoints,
 *    pragmas that change something, attaching, and changes of our own tables;
 *  - the commit hook turns every commit that is not ours into a rollback;
 *  - what it left running is reset;
 *  - whether the transaction is still there is asked of SQLite afterwards: a conflict clause such
 *    as INSERT OR ROLLBACK ends it without any statement that an authorizer sees.
 * All that is set on a connection it has, too, and may set otherwise. So it is set anew around each
 * handler; and where the commit hook was not ours and the transaction is gone, nobody knows what
 * was committed. */
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

static bool is_among(const char *name, const char *const *names)
{
    for (; *names; names++)
        if (sqlite3_stricmp(name, *names) == 0)
            return true;
    return false;
}

/* Full-text tables and ALTER TABLE use some of these themselves. */
static bool only_reads(const char *pragma, const char *value)
{
    static const char *const without_value[] = {
        "application_id", "auto_vacuum",    "cache_size",      "collation_list",
        "data_version",   "database_list",  "encoding",        "foreign_key_check",
        "foreign_keys",   "freelist_count", "integrity_check", "journal_mode",
        "page_count",     "page_size",      "quick_check",     "schema_version",
        "synchronous",    "table_list",     "user_version",    "compile_options",
        "function_list",  "module_list",    "pragma_list",     NULL,
    };
    static const char *const of_a_name[] = {
        "foreign_key_check", "foreign_key_list", "index_info",  "index_list",
        "index_xinfo",       "integrity_check",  "quick_check", "table_info",
        "table_list",        "table_xinfo",      NULL,
    };

    return is_among(pragma, value ? of_a_name : without_value);
}

/* SQLite's own statements on the table in which it remembers numbers: it prepares them with a DROP
 * TABLE or RENAME of a table that has some. Which statement a change belongs to is not said, but
 * what comes before and behind it there is. */
static bool is_sqlite_s_own(struct sml_sqlite *s, int action, const char *table, const char *second)
{
    int within = s->within;

    switch (action) {
    case SQLITE_DROP_TABLE:
    case SQLITE_DROP_TEMP_TABLE:
        s->within = SQLITE_DROP_TABLE;
        break;
    case SQLITE_FUNCTION: /* these two are for its own use only */
        if (sqlite3_stricmp(second, "sqlite_rename_table") == 0)
            s->within = SQLITE_ALTER_TABLE;
        else if (sqlite3_stricmp(second, "sqlite_rename_test") == 0)
            s->within = 0;
        break;
    case SQLITE_READ: /* the table's own row is deleted last */
        if (within == SQLITE_DROP_TABLE && second && sqlite3_stricmp(second, "tbl_name") == 0)
            s->within = 0;
        break;
    case SQLITE_DELETE:
    case SQLITE_UPDATE:
        if (sqlite3_stricmp(table, "sqlite_sequence") != 0)
            break;
        s->within = 0;
        return within == (action == SQLITE_DELETE ? SQLITE_DROP_TABLE : SQLITE_ALTER_TABLE);
    case SQLITE_CREATE_TABLE: /* of that name nobody else can make one */
        s->within = 0;
        return sqlite3_stricmp(table, "sqlite_sequence") == 0;
    case SQLITE_SELECT:
    case SQLITE_RECURSIVE:
    case SQLITE_DROP_TRIGGER:
    case SQLITE_DROP_TEMP_TRIGGER:
        break;
    default:
        s->within = 0;
    }
    return false;
}

static int authorize(void *user, int action, const char *first, const char *second,
                     const char *database, const char *trigger)
{
    struct sml_sqlite *s = user;

    (void)database;
    (void)trigger;
    if (s->ours || is_sqlite_s_own(s, action, first, second))
        return SQLITE_OK;
    switch (action) {
    case SQLITE_PRAGMA:
        return only_reads(first, second) ? SQLITE_OK : SQLITE_DENY;
    case SQLITE_TRANSACTION:
    case SQLITE_SAVEPOINT:
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

/* No hook of ours: only how long the log is. */
static int on_log(void *user, sqlite3 *db, const char *name, int frames)
{
    struct sml_sqlite *s = user;

    (void)db;
    if (strcmp(name, "main") == 0)
        s->frames = frames;
    return SQLITE_OK;
}

/* What costs nothing to set. Returns whether the commit hook was ours. */
static bool set_hooks(struct sml_sqlite *s)
{
    for (int i = 0; i < SML_SQLITE_LIMITS; i++)
        (void)sqlite3_limit(s->db, i, s->limits[i]);
    (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_WRITABLE_SCHEMA, 0, NULL);
    sqlite3_progress_handler(s->db, PROGRESS_OPS, on_progress, s);
    (void)sqlite3_wal_hook(s->db, on_log, s);
    return sqlite3_commit_hook(s->db, on_commit, s) == s;
}

void sml_sqlite_install_guards(struct sml_sqlite *s)
{
    for (int i = 0; i < SML_SQLITE_LIMITS; i++)
        s->limits[i] = sqlite3_limit(s->db, i, -1);
    (void)sqlite3_set_authorizer(s->db, authorize, s);
    (void)set_hooks(s);
}

/* To set the authorizer has every statement prepared again, and there is no asking for it. So it is
 * tried, once in each transaction that has handlers. */
static void see_to_authorizer(struct sml_sqlite *s, bool is_suspect)
{
    sqlite3_stmt *statement = NULL;

    if (s->probed && !is_suspect)
        return;
    s->probed = true;
    if (!is_suspect && sqlite3_prepare_v2(s->db, "COMMIT", -1, &statement, NULL) == SQLITE_AUTH)
        return;
    (void)sqlite3_finalize(statement);
    (void)sqlite3_set_authorizer(s->db, authorize, s);
}

enum sml_stored sml_sqlite_guard(struct semel_store *store, uint64_t until,
                                 const atomic_bool *cancelled)
{
    struct sml_sqlite *s = sml_sqlite_of(store);
    enum sml_stored stored;

    see_to_authorizer(s, !set_hooks(s));
    stored = sml_sqlite_step(s, SML_SQL_GUARD, "setting a savepoint");
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

/* The trouble of the whole store that had SQLite roll back; ROLLED_BACK: it is the handler's. */
static enum semel_status why_lost(enum semel_status status)
{
    switch (status) {
    case SEMEL_STORE_FULL:
    case SEMEL_STORE_READ_ONLY:
    case SEMEL_NO_MEMORY:
        return status;
    default:
        return SEMEL_ROLLED_BACK;
    }
}

static enum sml_stored lost_transaction(struct sml_sqlite *s)
{
    struct semel_store *store = &s->store;
    int error;
    enum semel_status status = sml_sqlite_status(s->db, &error);

    s->open = false;
    snprintf(store->text, sizeof store->text,
             "%.200s: the handler lost its transaction%s%.150s%s%.60s", s->path,
             status == SEMEL_OK ? "" : ": ", status == SEMEL_OK ? "" : sqlite3_errmsg(s->db),
             error ? ": " : "", error ? sml_error_text(error) : "");
    store->status = why_lost(status);
    return SML_NOT_STORED;
}

static enum sml_stored end_savepoint(struct sml_sqlite *s, bool keep)
{
    enum sml_stored stored = SML_STORED;

    if (!keep)
        stored = sml_sqlite_step(s, SML_SQL_UNDO, "undoing a handler's work");
    return stored == SML_STORED ? sml_sqlite_step(s, SML_SQL_KEEP, "releasing a savepoint")
                                : stored;
}

enum sml_stored sml_sqlite_unguard(struct semel_store *store, bool keep)
{
    struct sml_sqlite *s = sml_sqlite_of(store);
    bool is_gone = sqlite3_get_autocommit(s->db);
    enum sml_stored stored = is_gone ? lost_transaction(s) : SML_STORED;
    bool was_ours = set_hooks(s);

    s->guarded = false;
    reset_left(s);
    if (!is_gone)
        stored = end_savepoint(s, keep);
    if (stored != SML_NOT_STORED || was_ours)
        return stored;
    snprintf(store->text, sizeof store->text,
             "%.200s: a handler set a commit hook of its own and lost its transaction; "
             "what of it is stored is not known",
             s->path);
    store->status = SEMEL_STORE_FAILED;
    return SML_STORE_UNKNOWN;
}

struct sqlite3 *semel_sqlite_handle(struct semel_store *store)
{
    return store && store->ops == &sml_sqlite_ops ? sml_sqlite_of(store)->db : NULL;
}
