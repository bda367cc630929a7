/* SPDX-License-Identifier: MIT */
/* outbox.c - a client's outbox in an SQLite file of its own: WAL, synchronous=FULL, one process,
 * one connection, one thread. */
#include <stdio.h>
#include <string.h>

#include "sqlite/sqlite_internal.h"
#include "store/outbox.h"

enum { BEGIN, COMMIT, ROLLBACK, ADD, RESULT, FORGET, IDENTITY, STATEMENTS };

struct outbox {
    struct semel_outbox outbox; /* first */
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENTS];
    struct sml_lockpage lock;
    char *path;
    bool opened;
};

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS semel_outbox (one INTEGER PRIMARY KEY CHECK (one = 1), "
    "schema INTEGER NOT NULL, identity BLOB);"
    "INSERT OR IGNORE INTO semel_outbox VALUES (1, 1, NULL);"
    "UPDATE semel_outbox SET one = 1;" /* a change, so that its commit syncs what is read */
    "CREATE TABLE IF NOT EXISTS semel_posted (id INTEGER PRIMARY KEY AUTOINCREMENT, "
    "call BLOB NOT NULL, result BLOB);";

static const char *const sql[STATEMENTS] = {
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [ADD] = "INSERT INTO semel_posted (call) VALUES (?1)",
    [RESULT] = "UPDATE semel_posted SET result = ?1 WHERE id = ?2",
    [FORGET] = "DELETE FROM semel_posted WHERE id = ?1",
    [IDENTITY] = "UPDATE semel_outbox SET identity = ?1",
};

static struct outbox *of(struct semel_outbox *outbox)
{
    return (struct outbox *)outbox;
}

static enum semel_status failed(struct outbox *o, const char *doing)
{
    int error;

    o->outbox.status = sml_sqlite_status(o->db, &error);
    if (o->outbox.status == SEMEL_OK)
        o->outbox.status = SEMEL_STORE_FAILED;
    snprintf(o->outbox.text, sizeof o->outbox.text, "%.200s: %s: %.150s%s%.60s (%d)", o->path,
             doing, sqlite3_errmsg(o->db), error ? ": " : "", error ? sml_error_text(error) : "",
             sqlite3_extended_errcode(o->db));
    return o->outbox.status;
}

/* --- transactions ------------------------------------------------------------------------ */

static void rollback(struct semel_outbox *outbox)
{
    struct outbox *o = of(outbox);

    if (sqlite3_get_autocommit(o->db))
        return;
    (void)sqlite3_step(o->statements[ROLLBACK]);
    (void)sqlite3_reset(o->statements[ROLLBACK]);
}

/* Step a statement that gives no rows; its bindings go. */
static enum sml_stored step(struct outbox *o, int which, const char *doing)
{
    sqlite3_stmt *statement = o->statements[which];
    int code = sqlite3_step(statement);
    bool fatal;

    (void)sqlite3_reset(statement);
    (void)sqlite3_clear_bindings(statement);
    if (code == SQLITE_DONE)
        return SML_STORED;
    fatal = sml_sqlite_is_fatal(sqlite3_extended_errcode(o->db));
    failed(o, doing);
    rollback(&o->outbox);
    return fatal || !sqlite3_get_autocommit(o->db) ? SML_STORE_UNKNOWN : SML_NOT_STORED;
}

/* False: it is too large for SQLite, or there is no memory. Then nothing must be stepped: it would
 * store a NULL. */
static bool bind(struct outbox *o, int which, struct semel_bytes bytes)
{
    return sqlite3_bind_blob64(o->statements[which], 1, bytes.data, bytes.size, SQLITE_STATIC) ==
           SQLITE_OK;
}

static enum sml_stored not_bound(struct outbox *o, int which)
{
    failed(o, "binding");
    (void)sqlite3_clear_bindings(o->statements[which]);
    rollback(&o->outbox);
    return SML_NOT_STORED;
}

static enum sml_stored begin(struct semel_outbox *outbox)
{
    return step(of(outbox), BEGIN, "beginning a transaction");
}

static enum sml_stored commit(struct semel_outbox *outbox)
{
    return step(of(outbox), COMMIT, "committing");
}

static enum sml_stored add_call(struct semel_outbox *outbox, struct semel_bytes call,
                                uint64_t *out_id)
{
    struct outbox *o = of(outbox);
    enum sml_stored stored;

    if (!bind(o, ADD, call))
        return not_bound(o, ADD);
    stored = step(o, ADD, "writing a call");
    if (stored == SML_STORED)
        *out_id = (uint64_t)sqlite3_last_insert_rowid(o->db);
    return stored;
}

static enum sml_stored put_result(struct semel_outbox *outbox, uint64_t id,
                                  struct semel_bytes result)
{
    if (!bind(of(outbox), RESULT, result))
        return not_bound(of(outbox), RESULT);
    sqlite3_bind_int64(of(outbox)->statements[RESULT], 2, (sqlite3_int64)id);
    return step(of(outbox), RESULT, "writing a result");
}

static enum sml_stored forget(struct semel_outbox *outbox, uint64_t id)
{
    sqlite3_bind_int64(of(outbox)->statements[FORGET], 1, (sqlite3_int64)id);
    return step(of(outbox), FORGET, "forgetting a call");
}

static enum sml_stored put_identity(struct semel_outbox *outbox, struct semel_bytes identity)
{
    if (!bind(of(outbox), IDENTITY, identity))
        return not_bound(of(outbox), IDENTITY);
    return step(of(outbox), IDENTITY, "writing the session's identity");
}

/* --- reading ----------------------------------------------------------------------------- */

static struct semel_bytes column(sqlite3_stmt *statement, int index)
{
    struct semel_bytes bytes = { sqlite3_column_blob(statement, index), 0 };

    bytes.size = (size_t)sqlite3_column_bytes(statement, index);
    return bytes;
}

static enum semel_status each(struct semel_outbox *outbox, sml_posted_fn fn, void *user)
{
    struct outbox *o = of(outbox);
    sqlite3_stmt *statement;
    int code = sqlite3_prepare_v2(o->db, "SELECT id, call, result FROM semel_posted ORDER BY id",
                                  -1, &statement, NULL);

    while (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        if (fn((uint64_t)sqlite3_column_int64(statement, 0), column(statement, 1),
               column(statement, 2), user))
            code = SQLITE_OK;
        else
            code = SQLITE_DONE;
    }
    if (code != SQLITE_DONE)
        failed(o, "reading");
    (void)sqlite3_finalize(statement);
    return code == SQLITE_DONE ? SEMEL_OK : outbox->status;
}

static enum semel_status load_identity(struct semel_outbox *outbox, uint8_t *out, size_t room,
                                       size_t *out_bytes)
{
    struct outbox *o = of(outbox);
    sqlite3_stmt *statement;
    struct semel_bytes bytes = { NULL, 0 };
    enum semel_status status = SEMEL_OK;

    if (sqlite3_prepare_v2(o->db, "SELECT identity FROM semel_outbox", -1, &statement, NULL) !=
        SQLITE_OK)
        return failed(o, "reading");
    if (sqlite3_step(statement) == SQLITE_ROW)
        bytes = column(statement, 0);
    else
        status = failed(o, "reading");
    if (status == SEMEL_OK && bytes.size > room) {
        snprintf(outbox->text, sizeof outbox->text, "%.200s: the identity is damaged", o->path);
        status = outbox->status = SEMEL_STORE_CORRUPT;
    }
    if (status == SEMEL_OK) {
        *out_bytes = bytes.size;
        if (bytes.size > 0)
            memcpy(out, bytes.data, bytes.size);
    }
    (void)sqlite3_finalize(statement);
    return status;
}

/* --- life -------------------------------------------------------------------------------- */

#define PATH_BYTES 4096

static bool lock_path(const struct outbox *o, char out[PATH_BYTES])
{
    return (size_t)snprintf(out, PATH_BYTES, "%s-lock", o->path) < PATH_BYTES;
}

/* A file that could not be opened leaves no lock behind. */
static void release_lock(struct outbox *o)
{
    char path[PATH_BYTES];

    if (!o->opened && o->path && lock_path(o, path))
        sml_lockpage_discard(&o->lock, path);
    sml_lockpage_close(&o->lock);
}

static void close_outbox(struct semel_outbox *outbox)
{
    struct outbox *o = of(outbox);

    for (int i = 0; i < STATEMENTS; i++)
        (void)sqlite3_finalize(o->statements[i]);
    (void)sqlite3_close_v2(o->db);
    release_lock(o);
    sqlite3_free(o->path);
    sqlite3_free(o);
}

static const struct sml_outbox_ops ops = {
    .close = close_outbox,
    .each = each,
    .load_identity = load_identity,
    .begin = begin,
    .add_call = add_call,
    .put_result = put_result,
    .forget = forget,
    .put_identity = put_identity,
    .commit = commit,
    .rollback = rollback,
};

static enum semel_status complain(struct outbox *o, enum semel_status status, const char *what)
{
    snprintf(o->outbox.text, sizeof o->outbox.text, "%.200s: %.300s", o->path, what);
    return o->outbox.status = status;
}

static enum semel_status take_lock(struct outbox *o)
{
    char path[PATH_BYTES], words[160];
    struct sml_reason reason;
    uint32_t holder;
    enum semel_status status;

    if (!lock_path(o, path))
        return complain(o, SEMEL_INVALID, "the path is too long");
    status = sml_lockpage_open(&o->lock, path, &holder, &reason);
    switch (status) {
    case SEMEL_OK:
        return SEMEL_OK;
    case SEMEL_ADDRESS_IN_USE:
        sml_lockpage_say_held(holder, "wait for it, or stop it", words, sizeof words);
        return complain(o, SEMEL_STORE_LOCKED, words);
    case SEMEL_DENIED:
        return complain(o, SEMEL_STORE_READ_ONLY, reason.text);
    case SEMEL_STORE_FULL:
    case SEMEL_NO_MEMORY:
        return complain(o, status, reason.text);
    default:
        return complain(o, SEMEL_STORE_FAILED, reason.text);
    }
}

static bool is_set(struct outbox *o, const char *set, const char *get, const char *wanted)
{
    char is[64];

    return sml_sqlite_ask(o->db, set, is, sizeof is) && sml_sqlite_ask(o->db, get, is, sizeof is) &&
           strcmp(is, wanted) == 0;
}

static enum semel_status open_file(struct outbox *o)
{
    char is[64];
    bool is_store;

    if (sqlite3_open_v2(o->path, &o->db,
                        SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE | SQLITE_OPEN_READWRITE |
                            SQLITE_OPEN_CREATE,
                        NULL) != SQLITE_OK)
        return o->db ? failed(o, "opening") : complain(o, SEMEL_NO_MEMORY, "no memory");
    (void)sqlite3_busy_timeout(o->db, 5000);
    if (sqlite3_db_readonly(o->db, "main"))
        return complain(o, SEMEL_STORE_READ_ONLY, "no permission to write it");
    if (!sml_sqlite_has_table(o->db, "semel_store", &is_store))
        return failed(o, "reading");
    if (is_store)
        return complain(o, SEMEL_INVALID, "it is a server's store, and no outbox");
    if (!is_set(o, "PRAGMA journal_mode=WAL", "PRAGMA journal_mode", "wal") ||
        !is_set(o, "PRAGMA synchronous=FULL", "PRAGMA synchronous", "2"))
        return failed(o, "making it durable");
    if (sqlite3_exec(o->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_exec(o->db, schema, NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_exec(o->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        return failed(o, "making its tables");
    if (!sml_sqlite_ask(o->db, "SELECT schema FROM semel_outbox", is, sizeof is))
        return failed(o, "reading");
    if (strcmp(is, "1") != 0)
        return complain(o, SEMEL_STORE_NEWER, "a later version of this library made it");
    for (int i = 0; i < STATEMENTS; i++)
        if (sqlite3_prepare_v3(o->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &o->statements[i],
                               NULL) != SQLITE_OK)
            return failed(o, "preparing");
    return SEMEL_OK;
}

enum semel_status semel_sqlite_outbox_open(struct semel_outbox **out_outbox, const char *path,
                                           char *out_text, size_t size)
{
    struct outbox *o;
    enum semel_status status;

    if (out_text && size > 0)
        out_text[0] = '\0';
    if (out_outbox == NULL || path == NULL || path[0] == '\0')
        return SEMEL_INVALID;
    o = sqlite3_malloc64(sizeof *o);
    if (o == NULL)
        return SEMEL_NO_MEMORY;
    memset(o, 0, sizeof *o);
    o->outbox.ops = &ops;
    o->outbox.abi = SML_OUTBOX_ABI;
    o->lock.fd = -1;
    status = sml_sqlite_full_path(path, &o->path, o->outbox.text, sizeof o->outbox.text);
    if (status == SEMEL_OK)
        status = take_lock(o);
    if (status == SEMEL_OK)
        status = open_file(o);
    if (status == SEMEL_OK) {
        o->opened = true;
        *out_outbox = &o->outbox;
        return SEMEL_OK;
    }
    if (out_text && size > 0)
        snprintf(out_text, size, "%s",
                 o->outbox.text[0] ? o->outbox.text : semel_status_text(status));
    close_outbox(&o->outbox);
    return status;
}
