/* SPDX-License-Identifier: MIT */
/* sql_json.h - JSON to parameters, rows to JSON: shared by sql.c and sql_json.c only. */
#ifndef TOOL_SQL_JSON_H
#define TOOL_SQL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>
#include <sqlite3.h>

/* What goes wrong, in words. */
struct sql_trouble {
    int code;
    char text[600];
};

/* The body as an object, owned by caller; NULL: the trouble is said. */
json_t *sql_body_read(const void *data, size_t size, struct sql_trouble *trouble);

/* Bind all parameters of a statement. The object must live until they are cleared. */
bool sql_bind(sqlite3_stmt *statement, const json_t *body, struct sql_trouble *trouble);

/* Has every member of the object a parameter in one of the statements? */
bool sql_check_names(sqlite3_stmt *const *statements, size_t count, const json_t *body,
                     struct sql_trouble *trouble);

/* Rows, written as they come; at most `max` bytes are kept. */
struct sql_rows {
    char *text;
    size_t size, room;
    uint64_t max;
    bool begun;     /* a statement has columns */
    bool too_large; /* since the last begin */
    bool no_memory;
};

/* The rows of a statement begin; those of another are forgotten. */
void sql_rows_begin(struct sql_rows *rows);
/* The statement stands on a row. */
bool sql_rows_add(struct sql_rows *rows, sqlite3_stmt *statement, struct sql_trouble *trouble);
/* They are complete: `text` is JSON. */
bool sql_rows_end(struct sql_rows *rows, struct sql_trouble *trouble);

#endif
