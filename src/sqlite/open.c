/* SPDX-License-Identifier: MIT */
/* open.c - a database becomes a store.
 *
 * In this order: the lock, so that nobody else recovers or writes it; the database, recovered by
 * SQLite; whether there is a store in it, if there should be one; the settings on which durability
 * rests, each read back; the tables; then whether it is the store that the page beside it
 * remembers. Nothing is repaired: what does not fit is said. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "os/clock.h"
#include "os/random.h"
#include "sqlite/sqlite_internal.h"

#define CHECKPOINT_FRAMES 1000 /* as SQLite's own default */
#define BUSY_MS 5000           /* others may read, and a reader that recovers the log holds us up */

static const char schema[] =
    "CREATE TABLE main.semel_store (one INTEGER PRIMARY KEY CHECK (one = 1), "
    "schema INTEGER NOT NULL, id BLOB NOT NULL, generation INTEGER NOT NULL, "
    "commits INTEGER NOT NULL, clock_ms INTEGER NOT NULL);"
    "CREATE TABLE main.semel_session (no INTEGER PRIMARY KEY AUTOINCREMENT, record BLOB NOT NULL);"
    "CREATE TABLE main.semel_call (no INTEGER PRIMARY KEY, record BLOB NOT NULL);"
    "CREATE TABLE main.semel_key (hash BLOB PRIMARY KEY, kept_since INTEGER, record BLOB NOT NULL) "
    "WITHOUT ROWID;"
    "CREATE INDEX main.semel_key_age ON semel_key (kept_since);";

static const char *const sql[SML_SQL_STATEMENTS] = {
    [SML_SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SML_SQL_COMMIT] = "COMMIT",
    [SML_SQL_ROLLBACK] = "ROLLBACK",
    [SML_SQL_GUARD] = "SAVEPOINT semel_handler",
    [SML_SQL_KEEP] = "RELEASE semel_handler",
    [SML_SQL_UNDO] = "ROLLBACK TO semel_handler",
    [SML_SQL_COUNT_COMMIT] = "UPDATE main.semel_store SET commits = ?1, clock_ms = ?2 "
                             "WHERE commits = ?1 - 1",
    [SML_SQL_ADD_SESSION] = "INSERT INTO main.semel_session (record) VALUES (?1)",
    [SML_SQL_SET_SESSION] = "UPDATE main.semel_session SET record = ?1 WHERE no = ?2",
    [SML_SQL_DELETE_SESSION] = "DELETE FROM main.semel_session WHERE no = ?1",
    [SML_SQL_ADD_CALL] = "INSERT INTO main.semel_call (record) VALUES (?1)",
    [SML_SQL_SET_CALL] = "UPDATE main.semel_call SET record = ?1 WHERE no = ?2",
    [SML_SQL_DELETE_CALL] = "DELETE FROM main.semel_call WHERE no = ?1",
    [SML_SQL_FIND_KEY] = "SELECT record FROM main.semel_key WHERE hash = ?1",
    [SML_SQL_PUT_KEY] = "INSERT OR REPLACE INTO main.semel_key (hash, kept_since, record) "
                        "VALUES (?1, ?2, ?3)",
    [SML_SQL_DELETE_KEY] = "DELETE FROM main.semel_key WHERE hash = ?1",
    [SML_SQL_PURGE_KEYS] =
        "DELETE FROM main.semel_key WHERE hash IN (SELECT hash FROM main.semel_key "
        "WHERE kept_since < ?1 LIMIT ?2)",
};

int sml_sqlite_run(struct sml_sqlite *s, const char *text)
{
    int code;

    s->ours = true;
    code = sqlite3_exec(s->db, text, NULL, NULL, NULL);
    s->ours = false;
    return code;
}

bool sml_sqlite_prepare(struct sml_sqlite *s)
{
    bool good = true;

    s->ours = true;
    for (int i = 0; i < SML_SQL_STATEMENTS && good; i++)
        good = sqlite3_prepare_v3(s->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &s->statements[i],
                                  NULL) == SQLITE_OK;
    s->ours = false;
    return good;
}

/* --- settings ---------------------------------------------------------------------------- */

/* The one value of `text`, as words; "" if there is none. */
bool sml_sqlite_ask(sqlite3 *db, const char *text, char *out, size_t room)
{
    sqlite3_stmt *statement;
    int code;

    out[0] = '\0';
    if (sqlite3_prepare_v2(db, text, -1, &statement, NULL) != SQLITE_OK)
        return false;
    code = sqlite3_step(statement);
    if (code == SQLITE_ROW && sqlite3_column_text(statement, 0))
        snprintf(out, room, "%s", (const char *)sqlite3_column_text(statement, 0));
    return sqlite3_finalize(statement) == SQLITE_OK;
}

bool sml_sqlite_has_table(sqlite3 *db, const char *name, bool *out_has)
{
    char text[120], is[8];

    snprintf(text, sizeof text, "SELECT count(*) FROM main.sqlite_schema WHERE name = '%s'", name);
    if (!sml_sqlite_ask(db, text, is, sizeof is))
        return false;
    *out_has = strcmp(is, "1") == 0;
    return true;
}

/* Set it, and see that it is set. */
static enum semel_status setting(struct sml_sqlite *s, const char *set, const char *get,
                                 const char *wanted)
{
    char is[64];

    if (!sml_sqlite_ask(s->db, set, is, sizeof is) || !sml_sqlite_ask(s->db, get, is, sizeof is))
        return sml_sqlite_failed(s, set);
    if (strcmp(is, wanted) == 0)
        return SEMEL_OK;
    snprintf(s->store.text, sizeof s->store.text, "%.200s: %s gives \"%s\" instead of \"%s\"",
             s->path, set, is, wanted);
    return s->store.status = SEMEL_STORE_FAILED;
}

static enum semel_status set_up(struct sml_sqlite *s, bool foreign_keys)
{
    enum semel_status status = setting(s, "PRAGMA journal_mode=WAL", "PRAGMA journal_mode", "wal");

    if (status == SEMEL_OK)
        status = setting(s, "PRAGMA synchronous=FULL", "PRAGMA synchronous", "2");
    if (status == SEMEL_OK)
        status = setting(s, foreign_keys ? "PRAGMA foreign_keys=ON" : "PRAGMA foreign_keys=OFF",
                         "PRAGMA foreign_keys", foreign_keys ? "1" : "0");
    return status;
}

/* --- the database ------------------------------------------------------------------------ */

/* Hard links cannot be told apart, and SQLite would keep a log beside each. */
static bool has_other_names(const char *path)
{
    struct stat file;

    return stat(path, &file) == 0 && S_ISREG(file.st_mode) && file.st_nlink > 1;
}

enum semel_status sml_sqlite_full_path(const char *path, char **out_path, char *out_text,
                                       size_t room)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    char *full = vfs ? sqlite3_malloc(vfs->mxPathname + 1) : NULL;
    bool found;

    if (full == NULL)
        return SEMEL_NO_MEMORY;
    errno = 0;
    found = (vfs->xFullPathname(vfs, path, vfs->mxPathname + 1, full) & 0xff) == SQLITE_OK;
    if (found && !has_other_names(full)) {
        *out_path = full;
        return SEMEL_OK;
    }
    sqlite3_free(full);
    snprintf(out_text, room, "%.300s: %s", path,
             found   ? "it has several names (hard links); remove all but one"
             : errno ? sml_error_text(errno)
                     : "the path is too long");
    if (found || errno == 0)
        return SEMEL_INVALID;
    return errno == EACCES ? SEMEL_STORE_READ_ONLY : SEMEL_STORE_FAILED;
}

static enum semel_status find_path(struct sml_sqlite *s, const char *path)
{
    enum semel_status status =
        sml_sqlite_full_path(path, &s->path, s->store.text, sizeof s->store.text);

    s->store.name = s->path;
    return s->store.status = status;
}

static enum semel_status open_database(struct sml_sqlite *s, int flags)
{
    bool read_only = flags & SQLITE_OPEN_READONLY;

    if (sqlite3_open_v2(s->path, &s->db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                        NULL) != SQLITE_OK) {
        if (s->db == NULL)
            return s->store.status = SEMEL_NO_MEMORY;
        return sml_sqlite_failed(s, "opening");
    }
    (void)sqlite3_busy_timeout(s->db, BUSY_MS);
    /* If this is not the store that was here, its log is left as it is. */
    if (s->alone.has_log)
        (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (read_only || !sqlite3_db_readonly(s->db, "main"))
        return SEMEL_OK;
    snprintf(s->store.text, sizeof s->store.text, "%.300s: no permission to write it", s->path);
    return s->store.status = SEMEL_STORE_READ_ONLY;
}

static enum semel_status has_schema(struct sml_sqlite *s, bool *out_has)
{
    bool is_outbox;

    if (!sml_sqlite_has_table(s->db, "semel_store", out_has) ||
        !sml_sqlite_has_table(s->db, "semel_outbox", &is_outbox))
        return sml_sqlite_failed(s, "reading");
    if (!is_outbox)
        return SEMEL_OK;
    snprintf(s->store.text, sizeof s->store.text, "%.300s: it is a client's outbox, and no store",
             s->path);
    return s->store.status = SEMEL_INVALID;
}

static enum semel_status make_schema(struct sml_sqlite *s)
{
    struct sml_random random;
    sqlite3_stmt *statement = NULL;
    bool good;

    if (sml_random_init(&random) != SEMEL_OK) {
        snprintf(s->store.text, sizeof s->store.text, "%.300s: no randomness for its identity",
                 s->path);
        return s->store.status = SEMEL_STORE_FAILED;
    }
    sml_random_fill(&random, s->store.id, sizeof s->store.id);
    sml_random_fini(&random);
    good = sml_sqlite_run(s, "BEGIN IMMEDIATE") == SQLITE_OK &&
           sml_sqlite_run(s, schema) == SQLITE_OK &&
           sqlite3_prepare_v2(s->db, "INSERT INTO main.semel_store VALUES (1, 1, ?1, 1, 0, 1)", -1,
                              &statement, NULL) == SQLITE_OK &&
           sqlite3_bind_blob(statement, 1, s->store.id, 16, SQLITE_STATIC) == SQLITE_OK &&
           sqlite3_step(statement) == SQLITE_DONE;
    good = sqlite3_finalize(statement) == SQLITE_OK && good &&
           sml_sqlite_run(s, "COMMIT") == SQLITE_OK;
    if (good)
        return SEMEL_OK;
    sml_sqlite_failed(s, "making the store's tables");
    (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return s->store.status;
}

static enum semel_status read_identity(struct sml_sqlite *s)
{
    static const char text[] =
        "SELECT schema, id, generation, commits, clock_ms FROM main.semel_store";
    sqlite3_stmt *statement;
    enum semel_status status = SEMEL_OK;
    sqlite3_int64 version = 0;
    int code;

    if (sqlite3_prepare_v2(s->db, text, -1, &statement, NULL) != SQLITE_OK)
        return sml_sqlite_not_prepared(s, "reading the store's identity");
    code = sqlite3_step(statement);
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        status = sml_sqlite_failed(s, "reading the store's identity");
    } else if (code == SQLITE_ROW && (version = sqlite3_column_int64(statement, 0)) > SML_SCHEMA) {
        snprintf(s->store.text, sizeof s->store.text,
                 "%.300s is of version %lld; this library knows %d", s->path, (long long)version,
                 SML_SCHEMA);
        status = s->store.status = SEMEL_STORE_NEWER;
    } else if (version < 1 || sqlite3_column_bytes(statement, 1) != 16 ||
               sqlite3_column_int64(statement, 2) < 1 || sqlite3_column_int64(statement, 3) < 0 ||
               sqlite3_column_int64(statement, 4) < 1) {
        snprintf(s->store.text, sizeof s->store.text, "%.300s: the store's identity is damaged",
                 s->path);
        status = s->store.status = SEMEL_STORE_CORRUPT;
    } else {
        memcpy(s->store.id, sqlite3_column_blob(statement, 1), 16);
        s->store.generation = (uint64_t)sqlite3_column_int64(statement, 2);
        s->commits = (uint64_t)sqlite3_column_int64(statement, 3);
        s->clock_ms = (uint64_t)sqlite3_column_int64(statement, 4);
    }
    (void)sqlite3_finalize(statement);
    return status;
}

/* Our records come and go whether anybody refers to them or not: with such a key on, none could be
 * forgotten any more. */
static enum semel_status refuse_foreign_keys(struct sml_sqlite *s)
{
    static const char text[] =
        "SELECT 'the table ' || t.name || ' has a foreign key that refers to ' || f.\"table\" "
        "FROM main.sqlite_schema AS t, pragma_foreign_key_list(t.name, 'main') AS f "
        "WHERE t.type = 'table' AND lower(f.\"table\") GLOB 'semel_*' LIMIT 1";
    char found[200];

    if (!sml_sqlite_ask(s->db, text, found, sizeof found))
        return sml_sqlite_failed(s, "reading its foreign keys");
    if (found[0] == '\0')
        return SEMEL_OK;
    snprintf(s->store.text, sizeof s->store.text, "%.250s: %s; remove it", s->path, found);
    return s->store.status = SEMEL_INVALID;
}

/* --- opening ----------------------------------------------------------------------------- */

static enum semel_status open_to_look(struct sml_sqlite *s)
{
    enum semel_status status = open_database(s, SQLITE_OPEN_READONLY);
    bool has = false;

    if (status == SEMEL_OK)
        status = has_schema(s, &has);
    if (status == SEMEL_OK && !has) {
        snprintf(s->store.text, sizeof s->store.text, "%.300s: there is no store in it", s->path);
        status = s->store.status = SEMEL_STORE_FAILED;
    }
    return status == SEMEL_OK ? read_identity(s) : status;
}

/* What a process wrote and did not live to sync is read like the rest, and would be told of: one
 * transaction, which syncs the log, makes sure that it outlives the machine. */
static enum semel_status sync_once(struct sml_sqlite *s)
{
    int code;

    s->committing = true;
    code = sml_sqlite_run(s, "UPDATE main.semel_store SET schema = schema");
    s->committing = false;
    return code == SQLITE_OK ? SEMEL_OK : sml_sqlite_failed(s, "syncing");
}

/* It is the store that was here, or is taken for it by the operator's word. */
static enum semel_status settle_identity(struct sml_sqlite *s, bool adopt)
{
    bool mixed;
    enum semel_status status = sml_runfile_compare(s, &mixed);
    enum sml_stored stored;

    if (status == SEMEL_OK) {
        sml_runfile_adopt(s);
        return sync_once(s);
    }
    if (!adopt || mixed)
        return status;
    s->store.has_suspect = false;
    /* A later state may have had generations of its own, and clients that know them. */
    if (sml_runfile_generation(s) > s->store.generation)
        s->store.generation = sml_runfile_generation(s);
    stored = sml_sqlite_ops.renew(&s->store);
    return stored == SML_STORED ? SEMEL_OK : s->store.status;
}

/* Open it, or make it, and see whether there is a store in it. Nothing is made or changed where one
 * should be. */
static enum semel_status find_database(struct sml_sqlite *s, bool adopt, bool *out_has)
{
    bool expected = !adopt && sml_runfile_expect_none(s) != SEMEL_OK;
    enum semel_status status =
        open_database(s, SQLITE_OPEN_READWRITE | (expected ? 0 : SQLITE_OPEN_CREATE));

    if (status != SEMEL_OK && expected && s->db && sqlite3_system_errno(s->db) == ENOENT)
        return sml_runfile_expect_none(s);
    if (status == SEMEL_OK)
        status = has_schema(s, out_has);
    if (status == SEMEL_OK && expected && !*out_has)
        status = sml_runfile_expect_none(s);
    return status;
}

/* From now on it is ours, and is looked after. */
static void settled(struct sml_sqlite *s)
{
    s->settled = true;
    (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    s->file = open(s->path, O_PATH | O_CLOEXEC);
}

static enum semel_status open_to_write(struct sml_sqlite *s,
                                       const struct semel_sqlite_options *options)
{
    enum semel_status status = sml_runfile_open(s);
    bool has = false;

    if (status == SEMEL_OK)
        sml_sqlite_read_alone(s);
    if (status == SEMEL_OK)
        status = find_database(s, options->adopt, &has);
    if (status == SEMEL_OK)
        status = set_up(s, options->foreign_keys);
    if (status == SEMEL_OK && !has)
        status = make_schema(s);
    if (status == SEMEL_OK)
        status = read_identity(s);
    if (status == SEMEL_OK)
        status = refuse_foreign_keys(s);
    if (status != SEMEL_OK)
        return status;
    s->clock_base = sml_clock_now();
    if (!sml_sqlite_prepare(s))
        return sml_sqlite_not_prepared(s, "preparing");
    sml_sqlite_install_guards(s);
    status = settle_identity(s, options->adopt);
    if (status == SEMEL_OK)
        settled(s);
    return status;
}

enum semel_status semel_sqlite_open(struct semel_store **out_store, const char *path,
                                    const struct semel_sqlite_options *options, char *out_text,
                                    size_t size)
{
    static const struct semel_sqlite_options none = SEMEL_SQLITE_OPTIONS_INIT;
    enum semel_status status;
    struct sml_sqlite *s;

    if (out_text && size > 0)
        out_text[0] = '\0';
    if (out_store == NULL || path == NULL || path[0] == '\0')
        return SEMEL_INVALID;
    options = options ? options : &none;
    s = sqlite3_malloc64(sizeof *s);
    if (s == NULL) {
        if (out_text && size > 0)
            snprintf(out_text, size, "%s: %s", path, semel_status_text(SEMEL_NO_MEMORY));
        return SEMEL_NO_MEMORY;
    }
    memset(s, 0, sizeof *s);
    s->store.ops = &sml_sqlite_ops;
    s->store.abi = SML_STORE_ABI;
    s->store.read_only = options->read_only;
    s->lock.fd = -1;
    s->file = -1;
    s->checkpoint = CHECKPOINT_FRAMES;
    status = find_path(s, path);
    if (status == SEMEL_OK)
        status = options->read_only ? open_to_look(s) : open_to_write(s, options);
    if (status == SEMEL_OK) {
        *out_store = &s->store;
        return SEMEL_OK;
    }
    if (out_text && size > 0)
        snprintf(out_text, size, "%s",
                 s->store.text[0] ? s->store.text : semel_status_text(status));
    sml_sqlite_ops.close(&s->store);
    return status;
}
