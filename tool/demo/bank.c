/* SPDX-License-Identifier: MIT */
/* bank.c - the bank: two tables, a trigger, one SQL statement and one small program.
 *
 * A transfer is one row of `moves`, and the trigger moves the money. Nothing makes ids unique: if
 * a call ran twice, its row would be there twice, and the money would have moved twice. A transfer
 * without cover fails by the CHECK of the account. A notice is two lines of a file, 5 or 40
 * milliseconds apart. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include "demo.h"
#include "ledger.h"
#include "output.h"

#define STRING(x) #x
#define TEXT_OF(x) STRING(x)
#define BUSY_MS 5000

static const char schema[] =
    "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL "
    "CHECK (balance >= 0));"
    "CREATE TABLE moves (id TEXT NOT NULL, debit INTEGER NOT NULL, credit INTEGER NOT NULL, "
    "amount INTEGER NOT NULL CHECK (amount > 0));"
    "CREATE TRIGGER move AFTER INSERT ON moves BEGIN "
    "UPDATE accounts SET balance = balance - NEW.amount WHERE id = NEW.debit; "
    "UPDATE accounts SET balance = balance + NEW.amount WHERE id = NEW.credit; END;"
    "WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n "
    "WHERE id < " TEXT_OF(BANK_ACCOUNTS) ") "
                                         "INSERT INTO accounts SELECT id, " TEXT_OF(
                                             LEDGER_OPENING) " FROM n;";

static const char transfer[] = "transfer=INSERT INTO moves (id, debit, credit, amount) "
                               "VALUES (:id, :from, :to, :amount)";

static const char notice[] = "# The notice of one call, whose id comes on standard input.\n"
                             "read -r id || exit 9\n"
                             "echo \"begin $id\" >> notices\n"
                             "case $id in *0) sleep 0.04 ;; *) sleep 0.005 ;; esac\n"
                             "echo \"end $id\" >> notices\n";

static const char notify[] = "notify=. ./notify.sh";

static bool write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (!good)
        output_error("%s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return good;
}

bool bank_is_there(void)
{
    return true;
}

bool bank_create(const struct demo *demo)
{
    const char *path = demo_path(demo, "bank.db");
    sqlite3 *db = NULL;
    bool good = sqlite3_open(path, &db) == SQLITE_OK &&
                sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) == SQLITE_OK &&
                sqlite3_exec(db, schema, NULL, NULL, NULL) == SQLITE_OK &&
                sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK;

    if (!good)
        output_error("%s: %s", path, db ? sqlite3_errmsg(db) : "out of memory");
    sqlite3_close(db);
    return good && write_file(demo_path(demo, "notify.sh"), notice) &&
           write_file(demo_path(demo, "notices"), "") && write_file(demo_path(demo, "kills"), "");
}

/* Beside a server, or where one was killed. NULL: not now. */
static sqlite3 *look(const struct demo *demo)
{
    sqlite3 *db = NULL;

    if (sqlite3_open_v2(demo_path(demo, "bank.db"), &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK) {
        sqlite3_close(db);
        return NULL;
    }
    sqlite3_busy_timeout(db, BUSY_MS);
    return db;
}

int64_t bank_money(const struct demo *demo)
{
    sqlite3 *db = look(demo);
    sqlite3_stmt *statement = NULL;
    int64_t money = -1;

    if (db &&
        sqlite3_prepare_v2(db, "SELECT sum(balance) FROM accounts", -1, &statement, NULL) ==
            SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        money = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return money;
}

bool bank_moves(const struct demo *demo, int64_t *last, void (*fn)(const char *id, void *user),
                void *user)
{
    sqlite3 *db = look(demo);
    sqlite3_stmt *statement = NULL;
    int code = SQLITE_ERROR;

    if (db)
        code = sqlite3_prepare_v2(db, "SELECT rowid, id FROM moves WHERE rowid > ?1 ORDER BY rowid",
                                  -1, &statement, NULL);
    if (code == SQLITE_OK)
        sqlite3_bind_int64(statement, 1, *last);
    while (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        *last = sqlite3_column_int64(statement, 0);
        fn((const char *)sqlite3_column_text(statement, 1), user);
        code = SQLITE_OK;
    }
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return code == SQLITE_DONE;
}

void bank_server(const struct demo *demo, const char *address, char *argv[BANK_ARGUMENTS])
{
    const char *const words[] = { "semel",   "serve",    address,   "--store",   BANK_STORE,
                                  "--sql",   transfer,   notify,    "--workers", "4",
                                  "--limit", "notify=4", "--drain", "10s",       "-v" };
    size_t at = 0;

    for (; at < sizeof words / sizeof words[0]; at++)
        argv[at] = (char *)words[at];
    for (unsigned i = 0; i < demo->options.server_option_count; i++)
        argv[at++] = demo->options.server_options[i];
    argv[at] = NULL;
}
