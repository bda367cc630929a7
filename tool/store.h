/* SPDX-License-Identifier: MIT */
/* store.h - stores as people name and open them: sqlite:PATH, or a path. */
#ifndef TOOL_STORE_H
#define TOOL_STORE_H

#include <stdbool.h>
#include <stddef.h>

#include <semel/sqlite.h>
#include <semel/store.h>

#define STORE_PATH_BYTES 4000 /* with its NUL; names that are made of it are a little longer */

/* The path of the database that `name` names: absolute, links followed, so that one database has
 * one name; what it does not name yet may be missing. False: `why` says what is wrong. */
bool store_path(const char *name, char path[STORE_PATH_BYTES], char *why, size_t why_size);

/* Open it. Returns an exit code; other than 0: nothing is open, and why and what to do was said. */
int store_open(struct semel_store **out_store, const char *path,
               const struct semel_sqlite_options *options);

/* Open, or make, the outbox file. As store_open. */
int outbox_open(struct semel_outbox **out_outbox, const char *path);

/* Say that an outbox gave `status`, as store_explain. */
int outbox_explain(enum semel_status status, const char *text);

/* Say that a store gave `status`, `text` in the library's words (NULL or "": the status's), and
 * what to do about it. Returns the exit code. */
int store_explain(enum semel_status status, const char *text);

/* Is it the status of a store? */
bool store_status(enum semel_status status);

/* 32 digits and a NUL. */
#define STORE_ID_TEXT 33
void store_id_text(const uint8_t id[16], char text[STORE_ID_TEXT]);

#endif
