/* SPDX-License-Identifier: MIT */
/* sqlite_internal.h - shared by the files of this folder only.
 *
 * One connection and one thread do everything: every write, every checkpoint. Bugs and surprises of
 * databases with several writers cannot be met. */
#ifndef SML_SQLITE_INTERNAL_H
#define SML_SQLITE_INTERNAL_H

#include <sqlite3.h>

#include <semel/sqlite.h>

#include "os/lockpage.h"
#include "store/store.h"

#define SML_SCHEMA 1

enum sml_statement {
    SML_SQL_BEGIN,
    SML_SQL_COMMIT,
    SML_SQL_ROLLBACK,
    SML_SQL_GUARD,
    SML_SQL_KEEP,
    SML_SQL_UNDO,
    SML_SQL_COUNT_COMMIT,
    SML_SQL_ADD_SESSION,
    SML_SQL_SET_SESSION,
    SML_SQL_DELETE_SESSION,
    SML_SQL_ADD_CALL,
    SML_SQL_SET_CALL,
    SML_SQL_DELETE_CALL,
    SML_SQL_FIND_KEY,
    SML_SQL_PUT_KEY,
    SML_SQL_DELETE_KEY,
    SML_SQL_PURGE_KEYS,
    SML_SQL_STATEMENTS
};

struct sml_sqlite {
    struct semel_store store; /* first */
    sqlite3 *db;
    sqlite3_stmt *statements[SML_SQL_STATEMENTS];
    struct sml_lockpage lock;
    char *path;
    int code;          /* SQLite's, of the last failure */
    uint64_t commits;  /* transactions so far, as the database counts them */
    uint64_t clock_ms; /* at clock_base */
    uint64_t clock_base;
    bool open;       /* a transaction is, as far as we know */
    bool committing; /* by us: the commit hook lets it pass */
    bool ours;       /* we prepare or run a statement of our own: the authorizer lets it pass */
    bool guarded;
    uint64_t until; /* guarded: interrupted then */
    const atomic_bool *cancelled;
};

static inline struct sml_sqlite *sml_sqlite_of(struct semel_store *store)
{
    return (struct sml_sqlite *)store;
}

extern const struct sml_store_ops sml_sqlite_ops;

/* Remember why, from the connection's last error, with what was being done. Returns the status. */
enum semel_status sml_sqlite_failed(struct sml_sqlite *s, const char *doing);
/* The same where a statement of our own cannot be prepared: our tables are not as we made them. */
enum semel_status sml_sqlite_not_prepared(struct sml_sqlite *s, const char *doing);
enum semel_status sml_sqlite_status(int code);

/* The path in full, links followed: by whatever name a database is opened, it has one lock beside
 * it. Owned by caller: sqlite3_free. Else `out_text` says why not. */
enum semel_status sml_sqlite_full_path(const char *path, char **out_path, char *out_text,
                                       size_t room);

/* The one value that `text` gives, as words; "" if there is none. False: it failed. */
bool sml_sqlite_ask(sqlite3 *db, const char *text, char *out, size_t room);
/* After such an error nobody knows what is on the disk. */
bool sml_sqlite_is_fatal(int code);

/* Run SQL of our own; SQLITE_OK or an error code. */
int sml_sqlite_run(struct sml_sqlite *s, const char *sql);
bool sml_sqlite_prepare(struct sml_sqlite *s);

/* guard.c: what keeps handlers inside their transaction. */
void sml_sqlite_install_guards(struct sml_sqlite *s);
enum sml_stored sml_sqlite_guard(struct semel_store *store, uint64_t until,
                                 const atomic_bool *cancelled);
enum sml_stored sml_sqlite_unguard(struct semel_store *store, bool keep);

/* records.c */
/* Step a statement that gives no rows. */
enum sml_stored sml_sqlite_step(struct sml_sqlite *s, enum sml_statement which, const char *doing);
/* An operation has failed with the connection's last error: is the transaction's fate known? */
enum sml_stored sml_sqlite_lost(struct sml_sqlite *s, const char *doing);
void sml_sqlite_rollback(struct semel_store *store);
uint64_t sml_sqlite_clock(const struct semel_store *store);

/* runfile.c: the page beside the database. */
/* Lock it, and read what the last process left there. */
enum semel_status sml_runfile_open(struct sml_sqlite *s);
/* There is no store in the database, or no database: was there one? OK or STORE_REPLACED. */
enum semel_status sml_runfile_expect_none(struct sml_sqlite *s);
/* Does the database fit what the page remembers? OK, STORE_REPLACED or STORE_ROLLED_BACK. */
enum semel_status sml_runfile_compare(struct sml_sqlite *s);
/* The generation that it remembers of this store; 0: none. */
uint64_t sml_runfile_generation(const struct sml_sqlite *s);
/* From now on the page is this database's. */
void sml_runfile_adopt(struct sml_sqlite *s);
void sml_runfile_count(struct sml_sqlite *s);
void sml_runfile_mark(struct semel_store *store, const struct sml_mark *mark);

#endif
