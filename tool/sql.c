/* SPDX-License-Identifier: MIT */
/* sql.c - SQL statements as a transactional method.
 *
 * They are compiled once, before the server starts, and kept between calls: SQLite compiles them
 * again by itself when the schema has changed. They belong to the store's connection, which is
 * used by the store's thread alone once it serves, and must be gone before it is closed. Between
 * a server's end and that moment a handler may still be on its way, hence the lock. */
#include "sql.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <semel/sqlite.h>

#include "builtin.h"
#include "json.h"
#include "sql_json.h"

#define STATEMENTS_MAX 64

struct sql_method {
    pthread_mutex_t lock;
    bool closed; /* lock */
    size_t count;
    sqlite3_stmt *statements[STATEMENTS_MAX]; /* lock */
    uint64_t reply_max;
};

/* --- compiling ------------------------------------------------------------------------------- */

/* Parameters need names, and columns names of their own: they are members of objects. */
static bool check_statement(sqlite3_stmt *statement, char *why, size_t why_size)
{
    int columns = sqlite3_column_count(statement);

    for (int at = 1; at <= sqlite3_bind_parameter_count(statement); at++) {
        const char *name = sqlite3_bind_parameter_name(statement, at);

        if (!name || name[0] == '?') {
            snprintf(why, why_size, "the parameter %s has no name; write :name", name ? name : "?");
            return false;
        }
    }
    for (int i = 0; i < columns; i++) {
        const char *name = sqlite3_column_name(statement, i);

        if (!name || !utf8_valid(name, strlen(name))) {
            snprintf(why, why_size, "the name of column %d is not UTF-8", i + 1);
            return false;
        }
        for (int k = 0; k < i; k++) {
            if (strcmp(name, sqlite3_column_name(statement, k)) == 0) {
                snprintf(why, why_size,
                         "two columns are named '%.100s'; give one another name with AS", name);
                return false;
            }
        }
    }
    return true;
}

static void explain_error(sqlite3 *db, char *why, size_t why_size)
{
    const char *error = sqlite3_errmsg(db), *advice = "";

    if (sqlite3_errcode(db) == SQLITE_AUTH)
        advice = ": transactions, settings, ATTACH and tables named semel_ are the server's";
    else if (strncmp(error, "no such table", 13) == 0)
        advice = "; tables must be there before the server starts";
    snprintf(why, why_size, "%s%s", error, advice);
}

static bool compile_all(struct sql_method *method, sqlite3 *db, const char *text, char *why,
                        size_t why_size)
{
    while (*text) {
        sqlite3_stmt *statement;

        if (sqlite3_prepare_v3(db, text, -1, SQLITE_PREPARE_PERSISTENT, &statement, &text) !=
            SQLITE_OK) {
            explain_error(db, why, why_size);
            return false;
        }
        if (!statement) /* blanks or a comment */
            continue;
        if (method->count == STATEMENTS_MAX) {
            sqlite3_finalize(statement);
            snprintf(why, why_size, "more than %d statements", STATEMENTS_MAX);
            return false;
        }
        method->statements[method->count++] = statement;
        if (!check_statement(statement, why, why_size))
            return false;
    }
    if (method->count == 0)
        snprintf(why, why_size, "there is no statement in it");
    return method->count > 0;
}

struct sql_method *sql_compile(struct semel_store *store, const char *text, uint64_t reply_max,
                               char *why, size_t why_size)
{
    struct sql_method *method = calloc(1, sizeof *method);

    if (!method) {
        snprintf(why, why_size, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&method->lock, NULL);
    method->reply_max = reply_max;
    if (compile_all(method, semel_sqlite_handle(store), text, why, why_size))
        return method;
    sql_close(method);
    sql_free(method);
    return NULL;
}

void sql_close(struct sql_method *method)
{
    pthread_mutex_lock(&method->lock);
    while (method->count > 0)
        sqlite3_finalize(method->statements[--method->count]);
    method->closed = true;
    pthread_mutex_unlock(&method->lock);
}

void sql_free(struct sql_method *method)
{
    if (method)
        pthread_mutex_destroy(&method->lock);
    free(method);
}

/* --- running --------------------------------------------------------------------------------- */

static bool run_statement(sqlite3 *db, sqlite3_stmt *statement, struct sql_rows *rows,
                          uint64_t *changes, struct sql_trouble *trouble)
{
    sqlite3_int64 before = sqlite3_total_changes64(db);
    int code;

    if (sqlite3_column_count(statement) > 0)
        sql_rows_begin(rows);
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        if (!sql_rows_add(rows, statement, trouble))
            return false;
    }
    if (code != SQLITE_DONE) {
        trouble->code = sqlite3_extended_errcode(db);
        snprintf(trouble->text, sizeof trouble->text, "%s", sqlite3_errmsg(db));
        return false;
    }
    /* A statement that changes nothing leaves the count of the one before it. */
    if (sqlite3_total_changes64(db) != before)
        *changes += (uint64_t)sqlite3_changes64(db);
    return true;
}

/* Everything but the answer. False: the trouble says why; what was changed will be undone. */
static bool run_all(struct sql_method *method, sqlite3 *db, const json_t *body,
                    struct sql_rows *rows, uint64_t *changes, struct sql_trouble *trouble)
{
    if (!sql_check_names(method->statements, method->count, body, trouble))
        return false;
    for (size_t i = 0; i < method->count; i++) {
        if (!sql_bind(method->statements[i], body, trouble))
            return false;
    }
    for (size_t i = 0; i < method->count; i++) {
        if (!run_statement(db, method->statements[i], rows, changes, trouble))
            return false;
    }
    return !rows->begun || sql_rows_end(rows, trouble);
}

static void answer(struct semel_request *request, struct sql_method *method, sqlite3 *db)
{
    struct semel_bytes given = semel_request_body(request);
    struct sql_rows rows = { .max = method->reply_max };
    struct sql_trouble trouble;
    json_t *body = sql_body_read(given.data, given.size, &trouble);
    uint64_t changes = 0;
    char text[64];

    if (!body || !run_all(method, db, body, &rows, &changes, &trouble)) {
        finish_failure(request, trouble.code, "%s", trouble.text);
    } else if (rows.begun) {
        finish_value(request, rows.text, rows.size);
    } else {
        snprintf(text, sizeof text, "{\"changes\":%llu}", (unsigned long long)changes);
        finish_value(request, text, strlen(text));
    }
    for (size_t i = 0; i < method->count; i++) {
        sqlite3_reset(method->statements[i]);
        sqlite3_clear_bindings(method->statements[i]);
    }
    json_decref(body);
    free(rows.text);
}

void sql_handler(struct semel_request *request, struct semel_store *store, void *user)
{
    struct sql_method *method = user;

    pthread_mutex_lock(&method->lock);
    if (!method->closed)
        answer(request, method, semel_sqlite_handle(store));
    pthread_mutex_unlock(&method->lock);
}
