/* SPDX-License-Identifier: MIT */
/* records.c - the store's operations on an SQLite connection.
 *
 * Records of sessions and calls are rows whose numbers rise, so that they are appended where the
 * tree ends and forgotten where it begins: whoever calls, few pages change. Which record belongs to
 * which call is known in memory while the server lives and inside the record when it is gone; no
 * index is kept for it. Pages of forgotten records are used again, so the file does not grow.
 *
 * Answers. An operation that fails takes its transaction with it: SQLite rolls back, and what it
 * says of that (sqlite3_get_autocommit) is the truth, so NOT_STORED can be said. An I/O error is
 * different: after a write or sync that failed nobody knows what is on the disk, and to try again
 * would believe a cache that has lost it. That is UNKNOWN, and final. So is almost every failure of
 * a COMMIT: it may come when the log is written and synced already, and only its index is not. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "os/clock.h"
#include "sqlite/sqlite_internal.h"

static enum semel_status status_of(int code)
{
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return SEMEL_OK;
    case SQLITE_FULL:
        return SEMEL_STORE_FULL;
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return SEMEL_STORE_READ_ONLY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return SEMEL_STORE_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return SEMEL_STORE_LOCKED;
    case SQLITE_NOMEM:
        return SEMEL_NO_MEMORY;
    case SQLITE_TOOBIG:
        return SEMEL_TOO_LARGE;
    default:
        return SEMEL_STORE_FAILED;
    }
}

/* The system's trouble behind it. */
static enum semel_status system_status(int code, int error)
{
    if (code == SQLITE_IOERR_NOMEM)
        return SEMEL_NO_MEMORY;
    switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
        return SEMEL_STORE_READ_ONLY;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return SEMEL_STORE_FULL;
    case ENOMEM:
        return SEMEL_NO_MEMORY;
    default:
        return SEMEL_STORE_FAILED;
    }
}

enum semel_status sml_sqlite_status(sqlite3 *db, int *out_error)
{
    int code = sqlite3_extended_errcode(db);
    bool by_system = (code & 0xff) == SQLITE_CANTOPEN || (code & 0xff) == SQLITE_IOERR;

    *out_error = by_system ? sqlite3_system_errno(db) : 0;
    return by_system ? system_status(code, *out_error) : status_of(code);
}

enum semel_status sml_sqlite_failed(struct sml_sqlite *s, const char *doing)
{
    int error;

    s->code = sqlite3_extended_errcode(s->db);
    s->store.status = sml_sqlite_status(s->db, &error);
    if (s->store.status == SEMEL_OK)
        s->store.status = SEMEL_STORE_FAILED;
    snprintf(s->store.text, sizeof s->store.text, "%.200s: %s: %.150s%s%.60s (%d)", s->path, doing,
             sqlite3_errmsg(s->db), error ? ": " : "", error ? sml_error_text(error) : "", s->code);
    return s->store.status;
}

enum semel_status sml_sqlite_not_prepared(struct sml_sqlite *s, const char *doing)
{
    (void)sml_sqlite_failed(s, doing);
    if ((s->code & 0xff) == SQLITE_ERROR)
        s->store.status = SEMEL_STORE_CORRUPT;
    return s->store.status;
}

/* --- transactions ------------------------------------------------------------------------ */

bool sml_sqlite_is_fatal(int code)
{
    int kind = code & 0xff;

    return (kind == SQLITE_IOERR && code != SQLITE_IOERR_NOMEM) || kind == SQLITE_CORRUPT ||
           kind == SQLITE_NOTADB || kind == SQLITE_MISUSE || kind == SQLITE_PROTOCOL;
}

/* A row that was found is borrowed until here. A statement that stood on it would keep its state of
 * the database, and nothing could be written any more once somebody else had. */
static void leave_key(struct sml_sqlite *s)
{
    (void)sqlite3_reset(s->statements[SML_SQL_FIND_KEY]);
}

void sml_sqlite_rollback(struct semel_store *store)
{
    struct sml_sqlite *s = sml_sqlite_of(store);
    sqlite3_stmt *statement = s->statements[SML_SQL_ROLLBACK];

    s->open = s->guarded = false;
    leave_key(s);
    if (sqlite3_get_autocommit(s->db))
        return;
    s->ours = true;
    (void)sqlite3_step(statement);
    (void)sqlite3_reset(statement);
    s->ours = false;
}

enum sml_stored sml_sqlite_lost(struct sml_sqlite *s, const char *doing)
{
    bool fatal;

    sml_sqlite_failed(s, doing);
    fatal = sml_sqlite_is_fatal(s->code);
    sml_sqlite_rollback(&s->store);
    return fatal || !sqlite3_get_autocommit(s->db) ? SML_STORE_UNKNOWN : SML_NOT_STORED;
}

enum sml_stored sml_sqlite_step(struct sml_sqlite *s, enum sml_statement which, const char *doing)
{
    sqlite3_stmt *statement = s->statements[which];
    int code;

    s->ours = true; /* a changed schema has it prepared again */
    code = sqlite3_step(statement);
    s->ours = false;
    if (code == SQLITE_DONE || code == SQLITE_ROW) {
        (void)sqlite3_reset(statement);
        return SML_STORED;
    }
    (void)sqlite3_reset(statement); /* and the error is the connection's now */
    return sml_sqlite_lost(s, doing);
}

/* The database is not as this process left it, so what is known of it in memory is wrong. */
static enum sml_stored changed(struct sml_sqlite *s, enum semel_status status, const char *what)
{
    sml_sqlite_rollback(&s->store);
    snprintf(s->store.text, sizeof s->store.text, "%.300s: %s", s->path, what);
    s->store.status = status;
    return SML_STORE_UNKNOWN;
}

/* What is written into it would go with this process. */
static bool is_deleted(const struct sml_sqlite *s)
{
    struct stat is;

    return s->file >= 0 && fstat(s->file, &is) == 0 && is.st_nlink == 0;
}

static enum sml_stored begin(struct semel_store *store)
{
    struct sml_sqlite *s = sml_sqlite_of(store);
    enum sml_stored stored;

    if (s->open) { /* a handler changes the store beside its own transaction */
        snprintf(store->text, sizeof store->text, "%.300s: in use by the handler that runs",
                 s->path);
        store->status = SEMEL_WOULD_DEADLOCK;
        return SML_NOT_STORED;
    }
    if (is_deleted(s))
        return changed(s, SEMEL_STORE_REPLACED, "the database was deleted while it was in use");
    s->probed = false;
    stored = sml_sqlite_step(s, SML_SQL_BEGIN, "beginning a transaction");
    s->open = stored == SML_STORED;
    return stored;
}

/* Of a COMMIT that failed: did it before the log had what recovery would take for it? */
static bool is_before_the_log(int code)
{
    int kind = code & 0xff;

    return kind == SQLITE_CONSTRAINT || kind == SQLITE_FULL || kind == SQLITE_BUSY;
}

void sml_sqlite_checkpoint(struct sml_sqlite *s)
{
    int in_log, in_file;

    if (sqlite3_wal_checkpoint_v2(s->db, "main", SQLITE_CHECKPOINT_PASSIVE, &in_log, &in_file) ==
            SQLITE_OK &&
        in_log == in_file)
        sml_runfile_reached(s, s->commits);
}

/* The log tells how far the main file has come: it begins anew only when everything in it is there,
 * whoever checkpointed. */
static void look_after_log(struct sml_sqlite *s, int frames_before)
{
    if (s->frames > 0 && s->frames <= frames_before)
        sml_runfile_reached(s, s->commits - 1);
    if (s->frames >= s->checkpoint)
        sml_sqlite_checkpoint(s);
}

static enum sml_stored commit(struct semel_store *store)
{
    struct sml_sqlite *s = sml_sqlite_of(store);
    sqlite3_stmt *count = s->statements[SML_SQL_COUNT_COMMIT];
    int frames_before = s->frames;
    enum sml_stored stored;

    leave_key(s);
    sqlite3_bind_int64(count, 1, (sqlite3_int64)(s->commits + 1));
    sqlite3_bind_int64(count, 2, (sqlite3_int64)sml_sqlite_clock(store));
    stored = sml_sqlite_step(s, SML_SQL_COUNT_COMMIT, "counting a transaction");
    if (stored != SML_STORED)
        return stored;
    if (sqlite3_changes(s->db) != 1)
        return changed(s, SEMEL_STORE_LOCKED, "another process changes the store");
    s->frames = 0;
    s->committing = true;
    stored = sml_sqlite_step(s, SML_SQL_COMMIT, "committing");
    s->committing = false;
    if (stored != SML_STORED)
        return is_before_the_log(s->code) ? stored : SML_STORE_UNKNOWN;
    s->open = false;
    s->commits++;
    sml_runfile_count(s);
    look_after_log(s, frames_before);
    return SML_STORED;
}

uint64_t sml_sqlite_clock(const struct semel_store *store)
{
    const struct sml_sqlite *s = (const struct sml_sqlite *)store;

    if (store->read_only)
        return s->clock_ms;
    return s->clock_ms + (sml_clock_now() - s->clock_base) / SML_MS;
}

/* --- records ----------------------------------------------------------------------------- */

/* It is too large for SQLite, or there is no memory: stepped, it would store a NULL. */
static enum sml_stored not_bound(struct sml_sqlite *s, enum sml_statement which)
{
    enum sml_stored stored = sml_sqlite_lost(s, "binding a record");

    (void)sqlite3_clear_bindings(s->statements[which]);
    return stored;
}

static enum sml_stored put(struct semel_store *store, enum sml_store_table table, uint64_t *row,
                           struct semel_bytes record)
{
    static const enum sml_statement add[] = { SML_SQL_ADD_SESSION, SML_SQL_ADD_CALL };
    static const enum sml_statement set[] = { SML_SQL_SET_SESSION, SML_SQL_SET_CALL };
    struct sml_sqlite *s = sml_sqlite_of(store);
    enum sml_statement which = *row ? set[table] : add[table];
    sqlite3_stmt *statement = s->statements[which];
    enum sml_stored stored;

    if (sqlite3_bind_blob64(statement, 1, record.data, record.size, SQLITE_STATIC) != SQLITE_OK ||
        (*row && sqlite3_bind_int64(statement, 2, (sqlite3_int64)*row) != SQLITE_OK))
        return not_bound(s, which);
    stored = sml_sqlite_step(s, which, "writing a record");
    (void)sqlite3_clear_bindings(statement);
    if (stored != SML_STORED)
        return stored;
    if (*row != 0 && sqlite3_changes(s->db) != 1)
        return changed(s, SEMEL_STORE_CORRUPT, "a record is gone that this process has written");
    if (*row == 0)
        *row = (uint64_t)sqlite3_last_insert_rowid(s->db);
    return SML_STORED;
}

static enum sml_stored forget(struct semel_store *store, enum sml_store_table table, uint64_t row)
{
    static const enum sml_statement which[] = { SML_SQL_DELETE_SESSION, SML_SQL_DELETE_CALL };
    struct sml_sqlite *s = sml_sqlite_of(store);

    sqlite3_bind_int64(s->statements[which[table]], 1, (sqlite3_int64)row);
    return sml_sqlite_step(s, which[table], "forgetting a record");
}

static enum semel_status each(struct semel_store *store, enum sml_store_table table,
                              sml_record_fn fn, void *user)
{
    static const char *const sql[] = {
        "SELECT no, record FROM main.semel_session ORDER BY no",
        "SELECT no, record FROM main.semel_call ORDER BY no",
        "SELECT 0, record FROM main.semel_key WHERE kept_since IS NULL",
    };
    struct sml_sqlite *s = sml_sqlite_of(store);
    sqlite3_stmt *statement;
    int code;

    s->ours = true;
    code = sqlite3_prepare_v2(s->db, sql[table], -1, &statement, NULL);
    s->ours = false;
    if (code != SQLITE_OK)
        return sml_sqlite_not_prepared(s, "reading");
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        struct semel_bytes record;

        record.data = sqlite3_column_blob(statement, 1);
        record.size = (size_t)sqlite3_column_bytes(statement, 1);
        if (!fn((uint64_t)sqlite3_column_int64(statement, 0), record, user)) {
            code = SQLITE_DONE;
            break;
        }
    }
    if (code != SQLITE_DONE)
        sml_sqlite_failed(s, "reading");
    (void)sqlite3_finalize(statement);
    return code == SQLITE_DONE ? SEMEL_OK : store->status;
}

/* --- keys -------------------------------------------------------------------------------- */

static enum sml_stored find_key(struct semel_store *store, const uint8_t hash[32],
                                struct semel_bytes *out_record)
{
    struct sml_sqlite *s = sml_sqlite_of(store);
    sqlite3_stmt *statement = s->statements[SML_SQL_FIND_KEY];
    int code;

    (void)sqlite3_reset(statement);
    sqlite3_bind_blob(statement, 1, hash, 32, SQLITE_STATIC);
    s->ours = true;
    code = sqlite3_step(statement);
    s->ours = false;
    if (code == SQLITE_ROW) {
        out_record->data = sqlite3_column_blob(statement, 0);
        out_record->size = (size_t)sqlite3_column_bytes(statement, 0);
        if (out_record->data == NULL) /* it was not written by us */
            *out_record = semel_bytes("", 0);
        return SML_STORED; /* the row stays until the next operation resets the statement */
    }
    (void)sqlite3_reset(statement);
    if (code != SQLITE_DONE)
        return sml_sqlite_lost(s, "looking for a key");
    *out_record = semel_bytes(NULL, 0);
    return SML_STORED;
}

static enum sml_stored put_key(struct semel_store *store, const uint8_t hash[32],
                               uint64_t kept_since, struct semel_bytes record)
{
    struct sml_sqlite *s = sml_sqlite_of(store);
    sqlite3_stmt *statement = s->statements[SML_SQL_PUT_KEY];
    enum sml_stored stored;

    leave_key(s);
    if (sqlite3_bind_blob(statement, 1, hash, 32, SQLITE_STATIC) != SQLITE_OK ||
        (kept_since > 0 &&
         sqlite3_bind_int64(statement, 2, (sqlite3_int64)kept_since) != SQLITE_OK) ||
        sqlite3_bind_blob64(statement, 3, record.data, record.size, SQLITE_STATIC) != SQLITE_OK)
        return not_bound(s, SML_SQL_PUT_KEY);
    stored = sml_sqlite_step(s, SML_SQL_PUT_KEY, "writing a key");
    (void)sqlite3_clear_bindings(statement);
    return stored;
}

static enum sml_stored forget_key(struct semel_store *store, const uint8_t hash[32])
{
    struct sml_sqlite *s = sml_sqlite_of(store);

    leave_key(s);
    sqlite3_bind_blob(s->statements[SML_SQL_DELETE_KEY], 1, hash, 32, SQLITE_STATIC);
    return sml_sqlite_step(s, SML_SQL_DELETE_KEY, "forgetting a key");
}

static enum sml_stored purge_keys(struct semel_store *store, uint64_t before, uint32_t most,
                                  uint32_t *out_count)
{
    struct sml_sqlite *s = sml_sqlite_of(store);
    sqlite3_stmt *statement = s->statements[SML_SQL_PURGE_KEYS];
    enum sml_stored stored;

    leave_key(s);
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)before);
    sqlite3_bind_int64(statement, 2, most);
    stored = sml_sqlite_step(s, SML_SQL_PURGE_KEYS, "forgetting old keys");
    if (stored == SML_STORED)
        *out_count = (uint32_t)sqlite3_changes(s->db);
    return stored;
}

/* --- the rest ---------------------------------------------------------------------------- */

static enum sml_stored renew(struct semel_store *store)
{
    struct sml_sqlite *s = sml_sqlite_of(store);
    enum sml_stored stored = begin(store);
    /* The time, so that what comes of one copy on two occasions is not taken for the same. */
    uint64_t generation = sml_time_max(store->generation + 1, (uint64_t)time(NULL));
    char raise[100];

    if (stored != SML_STORED)
        return stored;
    snprintf(raise, sizeof raise, "UPDATE main.semel_store SET generation = %llu",
             (unsigned long long)generation);
    if (sml_sqlite_run(s, "DELETE FROM main.semel_session") != SQLITE_OK ||
        sml_sqlite_run(s, "DELETE FROM main.semel_call") != SQLITE_OK ||
        sml_sqlite_run(s, raise) != SQLITE_OK)
        return sml_sqlite_lost(s, "beginning a generation");
    stored = commit(store);
    if (stored == SML_STORED) {
        store->generation = generation;
        store->has_suspect = false;
        sml_runfile_adopt(s);
    }
    return stored;
}

/* The log stays small, and the next start has little to recover. */
static void tidy(struct semel_store *store)
{
    sml_sqlite_checkpoint(sml_sqlite_of(store));
}

static void close_store(struct semel_store *store)
{
    struct sml_sqlite *s = sml_sqlite_of(store);

    if (s->db && !store->read_only && s->open)
        sml_sqlite_rollback(store);
    for (int i = 0; i < SML_SQL_STATEMENTS; i++)
        (void)sqlite3_finalize(s->statements[i]);
    if (s->settled)
        sml_sqlite_checkpoint(s);
    s->ours = s->committing = true; /* SQLite's own last checkpoint */
    (void)sqlite3_close_v2(s->db);
    if (s->file >= 0)
        (void)close(s->file);
    sml_runfile_close(s);
    sqlite3_free(s->path);
    sqlite3_free(s);
}

const struct sml_store_ops sml_sqlite_ops = {
    .close = close_store,
    .clock_ms = sml_sqlite_clock,
    .each = each,
    .begin = begin,
    .put = put,
    .forget = forget,
    .find_key = find_key,
    .put_key = put_key,
    .forget_key = forget_key,
    .purge_keys = purge_keys,
    .commit = commit,
    .rollback = sml_sqlite_rollback,
    .guard = sml_sqlite_guard,
    .unguard = sml_sqlite_unguard,
    .mark = sml_runfile_mark,
    .renew = renew,
    .tidy = tidy,
};
