/* SPDX-License-Identifier: MIT */
/* alone.c - what the database's main file says without its log.
 *
 * A log fits any file to SQLite: an older copy that is put in front of the log of a later state
 * becomes a mixture of both, which has the last counter and not all that was counted. The main
 * file alone gives it away. It is read before SQLite applies the log, on a connection that neither
 * looks at the log nor locks. What cannot be read so (a process may have died while it
 * checkpointed) is not known, and nothing is concluded from it. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "sqlite/sqlite_internal.h"

static bool has_log(const char *path)
{
    char *name = sqlite3_mprintf("%s-wal", path);
    struct stat is;
    bool has = name && stat(name, &is) == 0 && is.st_size > 0;

    sqlite3_free(name);
    return has;
}

/* file:PATH?immutable=1, in which nothing of the path means anything. Owned by caller. */
static char *make_uri(const char *path)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_.-";
    sqlite3_str *uri = sqlite3_str_new(NULL);

    sqlite3_str_appendall(uri, "file:");
    for (; *path; path++) {
        if (strchr(plain, *path))
            sqlite3_str_appendchar(uri, 1, *path);
        else
            sqlite3_str_appendf(uri, "%%%02X", (unsigned)(unsigned char)*path);
    }
    sqlite3_str_appendall(uri, "?immutable=1");
    return sqlite3_str_finish(uri);
}

static void read_row(sqlite3 *db, struct sml_alone *alone)
{
    sqlite3_stmt *statement;

    if (sqlite3_prepare_v2(db, "SELECT id, commits FROM semel_store WHERE one = 1", -1, &statement,
                           NULL) != SQLITE_OK)
        return;
    if (sqlite3_step(statement) == SQLITE_ROW && sqlite3_column_bytes(statement, 0) == 16 &&
        sqlite3_column_int64(statement, 1) >= 0) {
        memcpy(alone->id, sqlite3_column_blob(statement, 0), 16);
        alone->commits = (uint64_t)sqlite3_column_int64(statement, 1);
        alone->known = true;
    }
    (void)sqlite3_finalize(statement);
}

void sml_sqlite_read_alone(struct sml_sqlite *s)
{
    sqlite3 *db = NULL;
    char *uri;

    s->alone.has_log = has_log(s->path);
    if (!s->alone.has_log)
        return;
    uri = make_uri(s->path);
    if (uri &&
        sqlite3_open_v2(uri, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX,
                        NULL) == SQLITE_OK)
        read_row(db, &s->alone);
    (void)sqlite3_close_v2(db);
    sqlite3_free(uri);
}
