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

#define SML_SQLITE_LIMITS (SQLITE_LIMIT_WORKER_THREADS + 1)

/* What the database's main file says without its log. */
struct sml_alone {
    bool has_log; /* there is one, which SQLite will apply */
    bool known;
    uint8_t id[16];
    uint64_t commits;
};

struct sml_sqlite {
    struct semel_store store; /* first */
    sqlite3 *db;
    sqlite3_stmt *statements[SML_SQL_STATEMENTS];
    struct sml_lockpage lock;
    char *path;
    int file;          /* the database, only to see whether it was deleted; -1: it is not watched */
    int code;          /* SQLite's, of the last failure */
    uint64_t commits;  /* transactions so far, as the database counts them */
    uint64_t in_file;  /* of these, what its main file has for certain, without its log */
    uint64_t clock_ms; /* at clock_base */
    uint64_t clock_base;
    struct sml_alone alone;
    bool settled;    /* it is the store that was here */
    bool open;       /* a transaction is, as far as we know */
    bool committing; /* by us: the commit hook lets it pass */
    bool ours;       /* we prepare or run a statement of our own: the authorizer lets it pass */
    bool probed;     /* the authorizer is ours, as was seen in this transaction */
    bool guarded;
    int within;     /* what SQLite is preparing: SQLITE_DROP_TABLE, SQLITE_ALTER_TABLE, or 0 */
    int frames;     /* in the log after the last commit; 0: not known */
    int checkpoint; /* when there are so many */
    int limits[SML_SQLITE_LIMITS];
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
/* What the connection's last error means; the system's trouble behind it (0: none known). */
enum semel_status sml_sqlite_status(sqlite3 *db, int *out_error);

/* The path in full, links followed: by whatever name a database is opened, it has one lock beside
 * it. Owned by caller: sqlite3_free. Else `out_text` says why not. */
enum semel_status sml_sqlite_full_path(const char *path, char **out_path, char *out_text,
                                       size_t room);

/* The one value that `text` gives, as words; "" if there is none. False: it failed. */
bool sml_sqlite_ask(sqlite3 *db, const char *text, char *out, size_t room);
/* Is there such a table? False: it failed. */
bool sml_sqlite_has_table(sqlite3 *db, const char *name, bool *out_has);
/* After such an error nobody knows what is on the disk. */
bool sml_sqlite_is_fatal(int code);

/* Run SQL of our own; SQLITE_OK or an error code. */
int sml_sqlite_run(struct sml_sqlite *s, const char *sql);
bool sml_sqlite_prepare(struct sml_sqlite *s);

/* alone.c: read the main file, if there is a log beside it. Nothing else has it open here. */
void sml_sqlite_read_alone(struct sml_sqlite *s);

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
/* Checkpoint as far as readers allow, and remember how far the main file has come. */
void sml_sqlite_checkpoint(struct sml_sqlite *s);

/* runfile.c: the page beside the database. */
/* Lock it, and read what the last process left there. */
enum semel_status sml_runfile_open(struct sml_sqlite *s);
/* There is no store in the database, or no database: was there one? OK or STORE_REPLACED. */
enum semel_status sml_runfile_expect_none(struct sml_sqlite *s);
/* Does the database fit what the page remembers? OK, STORE_REPLACED or STORE_ROLLED_BACK;
 * *out_mixed: it is no state that ever was, and cannot be adopted. */
enum semel_status sml_runfile_compare(struct sml_sqlite *s, bool *out_mixed);
/* The generation that it remembers of this store; 0: none. */
uint64_t sml_runfile_generation(const struct sml_sqlite *s);
/* From now on the page is this database's. */
void sml_runfile_adopt(struct sml_sqlite *s);
void sml_runfile_count(struct sml_sqlite *s);
/* The main file has the transactions up to this one for certain. */
void sml_runfile_reached(struct sml_sqlite *s, uint64_t commits);
/* Let the lock go; a page that this process made and that says nothing goes with it. */
void sml_runfile_close(struct sml_sqlite *s);
void sml_runfile_mark(struct semel_store *store, const struct sml_mark *mark);

#endif
