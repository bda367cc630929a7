/* SPDX-License-Identifier: MIT */
#include "sql_json.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base64.h"
#include "json.h"

#define BAD_BODY EINVAL
#define ROOM_MIN 1024

static bool trouble_say(struct sql_trouble *trouble, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static bool trouble_say(struct sql_trouble *trouble, int code, const char *format, ...)
{
    va_list args;

    trouble->code = code;
    va_start(args, format);
    vsnprintf(trouble->text, sizeof trouble->text, format, args);
    va_end(args);
    return false;
}

/* --- parameters ---------------------------------------------------------------------------- */

json_t *sql_body_read(const void *data, size_t size, struct sql_trouble *trouble)
{
    json_error_t error;
    json_t *body;

    if (size == 0) {
        body = json_object();
        if (!body)
            trouble_say(trouble, ENOMEM, "out of memory");
        return body;
    }
    body =
        json_loadb(data, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    if (!body) {
        trouble_say(trouble, BAD_BODY, "the body is not a JSON object: %s (line %d, column %d)",
                    error.text, error.line, error.column);
        return NULL;
    }
    if (json_is_object(body))
        return body;
    json_decref(body);
    trouble_say(trouble, BAD_BODY,
                "the body is not a JSON object; write {\"NAME\":VALUE} with the parameters");
    return NULL;
}

/* The bytes of {"base64":"..."}, owned by caller; NULL: it is something else. */
static unsigned char *blob_read(const json_t *value, size_t *out_size)
{
    const json_t *text = json_object_get(value, "base64");
    unsigned char *bytes;

    if (!json_is_string(text) || json_object_size(value) != 1)
        return NULL;
    bytes = malloc(json_string_length(text) / 4 * 3 + 1);
    if (bytes &&
        !base64_decode(json_string_value(text), json_string_length(text), bytes, out_size)) {
        free(bytes);
        bytes = NULL;
    }
    return bytes;
}

/* SQLITE_OK; SQLITE_MISMATCH: no parameter can be such a value. */
static int bind_value(sqlite3_stmt *statement, int at, const json_t *value)
{
    unsigned char *bytes;
    size_t size;

    switch (json_typeof(value)) {
    case JSON_NULL:
        return sqlite3_bind_null(statement, at);
    case JSON_TRUE:
    case JSON_FALSE:
        return sqlite3_bind_int(statement, at, json_is_true(value));
    case JSON_INTEGER:
        return sqlite3_bind_int64(statement, at, json_integer_value(value));
    case JSON_REAL:
        return sqlite3_bind_double(statement, at, json_real_value(value));
    case JSON_STRING:
        return sqlite3_bind_text64(statement, at, json_string_value(value),
                                   json_string_length(value), SQLITE_STATIC, SQLITE_UTF8);
    case JSON_OBJECT:
        bytes = blob_read(value, &size);
        if (bytes)
            return sqlite3_bind_blob64(statement, at, bytes, size, free);
        return SQLITE_MISMATCH;
    default:
        return SQLITE_MISMATCH;
    }
}

bool sql_bind(sqlite3_stmt *statement, const json_t *body, struct sql_trouble *trouble)
{
    for (int at = 1; at <= sqlite3_bind_parameter_count(statement); at++) {
        const char *name = sqlite3_bind_parameter_name(statement, at) + 1;
        const json_t *value = json_object_get(body, name);
        int code;

        if (!value)
            return trouble_say(trouble, BAD_BODY, "the parameter '%.200s' is missing", name);
        code = bind_value(statement, at, value);
        if (code == SQLITE_MISMATCH)
            return trouble_say(trouble, BAD_BODY,
                               "the parameter '%.200s' is %s; a string, a number, true, false, "
                               "null or {\"base64\":\"...\"} is wanted",
                               name, json_is_array(value) ? "an array" : "an object");
        if (code != SQLITE_OK)
            return trouble_say(trouble, code, "the parameter '%.200s': %s", name,
                               sqlite3_errstr(code));
    }
    return true;
}

static bool is_parameter(sqlite3_stmt *statement, const char *name)
{
    for (int at = 1; at <= sqlite3_bind_parameter_count(statement); at++) {
        if (strcmp(sqlite3_bind_parameter_name(statement, at) + 1, name) == 0)
            return true;
    }
    return false;
}

bool sql_check_names(sqlite3_stmt *const *statements, size_t count, const json_t *body,
                     struct sql_trouble *trouble)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)body, name, value)
    {
        bool known = false;

        for (size_t i = 0; i < count && !known; i++)
            known = is_parameter(statements[i], name);
        if (!known)
            return trouble_say(trouble, BAD_BODY, "there is no parameter '%.200s'", name);
    }
    return true;
}

/* --- rows ------------------------------------------------------------------------------------ */

/* A json_dump_callback_t: 0, or -1 to have it end. */
static int append(const char *data, size_t size, void *user)
{
    struct sql_rows *rows = user;
    size_t room = rows->room ? rows->room : ROOM_MIN;
    char *larger;

    if (size > rows->max - rows->size) {
        rows->too_large = true;
        return -1;
    }
    while (room < rows->size + size)
        room *= 2;
    if (room != rows->room) {
        larger = realloc(rows->text, room);
        if (!larger) {
            rows->no_memory = true;
            return -1;
        }
        rows->text = larger;
        rows->room = room;
    }
    memcpy(rows->text + rows->size, data, size);
    rows->size += size;
    return 0;
}

static bool append_string(struct sql_rows *rows, const char *text, size_t size)
{
    json_t *string = json_stringn(text, size);
    bool good = string && json_dump_callback(string, append, rows, JSON_ENCODE_ANY) == 0;

    rows->no_memory |= !string;
    json_decref(string);
    return good;
}

static bool append_base64(struct sql_rows *rows, const unsigned char *bytes, size_t size)
{
    char letters[4];

    if (append("{\"base64\":\"", 11, rows) != 0)
        return false;
    for (size_t i = 0; i < size; i += 3) {
        base64_group(bytes + i, size - i, letters);
        if (append(letters, sizeof letters, rows) != 0)
            return false;
    }
    return append("\"}", 2, rows) == 0;
}

/* With as few digits as give the same number again. */
static bool append_real(struct sql_rows *rows, double value)
{
    json_t *real = json_real(value);
    int digits = 15;
    char text[64];
    bool good;

    for (; digits < 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    good = real && json_dump_callback(real, append, rows,
                                      JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits)) == 0;
    rows->no_memory |= !real;
    json_decref(real);
    return good;
}

static bool append_value(struct sql_rows *rows, sqlite3_stmt *statement, int at,
                         struct sql_trouble *trouble)
{
    char text[32];
    const char *string;
    const void *blob;
    double real;

    switch (sqlite3_column_type(statement, at)) {
    case SQLITE_INTEGER:
        snprintf(text, sizeof text, "%lld", (long long)sqlite3_column_int64(statement, at));
        return append(text, strlen(text), rows) == 0;
    case SQLITE_FLOAT:
        real = sqlite3_column_double(statement, at);
        if (real - real != 0)
            return trouble_say(trouble, EDOM, "the column '%.200s' is infinite, which JSON is not",
                               sqlite3_column_name(statement, at));
        return append_real(rows, real);
    case SQLITE_TEXT:
        string = (const char *)sqlite3_column_text(statement, at);
        rows->no_memory |= !string;
        if (!string)
            return false;
        if (utf8_valid(string, (size_t)sqlite3_column_bytes(statement, at)))
            return append_string(rows, string, (size_t)sqlite3_column_bytes(statement, at));
        return append_base64(rows, (const unsigned char *)string,
                             (size_t)sqlite3_column_bytes(statement, at));
    case SQLITE_BLOB:
        blob = sqlite3_column_blob(statement, at); /* NULL when it is empty */
        return append_base64(rows, blob, (size_t)sqlite3_column_bytes(statement, at));
    default:
        return append("null", 4, rows) == 0;
    }
}

void sql_rows_begin(struct sql_rows *rows)
{
    rows->size = 0;
    rows->begun = true;
    rows->too_large = false;
    (void)append("[", 1, rows);
}

bool sql_rows_add(struct sql_rows *rows, sqlite3_stmt *statement, struct sql_trouble *trouble)
{
    bool good = !rows->too_large && (rows->size == 1 || append(",", 1, rows) == 0) &&
                append("{", 1, rows) == 0;

    trouble->code = 0;
    for (int i = 0; i < sqlite3_data_count(statement) && good; i++) {
        const char *name = sqlite3_column_name(statement, i);

        good = name && (i == 0 || append(",", 1, rows) == 0) &&
               append_string(rows, name, strlen(name)) && append(":", 1, rows) == 0 &&
               append_value(rows, statement, i, trouble);
        rows->no_memory |= !name;
    }
    good = good && append("}", 1, rows) == 0;
    if (rows->no_memory)
        return trouble_say(trouble, ENOMEM, "out of memory");
    return trouble->code == 0;
}

bool sql_rows_end(struct sql_rows *rows, struct sql_trouble *trouble)
{
    if (!rows->too_large && append("]", 1, rows) == 0)
        return true;
    if (rows->no_memory)
        return trouble_say(trouble, ENOMEM, "out of memory");
    return trouble_say(trouble, -1, "the reply is larger than the body limit of %llu bytes",
                       (unsigned long long)rows->max);
}
