/* SPDX-License-Identifier: MIT */
/* sql.h - SQL as a method, run inside the store's transaction.
 *
 * The body is a JSON object, or empty for {}: its members are bound to the parameters of the same
 * name (:name, @name, $name), in all statements. Strings, integers, reals, true and false (as 1 and
 * 0), null, and {"base64":"..."} for a blob; each parameter must be there, and nothing else.
 *
 * The reply is what the last statement with columns gives, as an array of objects; if there is
 * none, {"changes":N}, the rows that all statements changed. Blobs, and text that is not UTF-8,
 * are {"base64":"..."}. An error is a failure with SQLite's extended code and text, and undoes
 * all. */
#ifndef TOOL_SQL_H
#define TOOL_SQL_H

#include <stddef.h>

#include <semel/request.h>
#include <semel/store.h>

struct sql_method;

/* Compile `text`, statements separated by semicolons, for the store, before it is moved into a
 * server. Replies have at most `reply_max` bytes.
 * NULL: `why` says what is wrong with it. */
struct sql_method *sql_compile(struct semel_store *store, const char *text, uint64_t reply_max,
                               char *why, size_t why_size);

/* A semel_transaction_fn; user is the struct sql_method. */
void sql_handler(struct semel_request *request, struct semel_store *store, void *user);

/* Before the store is closed: let go of it. A handler that comes later has no effect. */
void sql_close(struct sql_method *method);

/* Afterwards; NULL is fine. */
void sql_free(struct sql_method *method);

#endif
