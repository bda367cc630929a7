/* SPDX-License-Identifier: MIT */
/* Where SQLite or Jansson was not there to build with: stores cannot be opened, and nothing that
 * needs one is ever reached. */
#include <stdio.h>

#include "demo/demo.h"
#include "output.h"
#include "sql.h"
#include "store.h"
#include "tool.h"

int store_open(struct semel_store **out_store, const char *path,
               const struct semel_sqlite_options *options)
{
    (void)out_store;
    (void)options;
    output_error("%s: this semel was built without SQLite and Jansson, so it has no stores", path);
    return TOOL_USAGE;
}

int outbox_open(struct semel_outbox **out_outbox, const char *path)
{
    (void)out_outbox;
    output_error("%s: this semel was built without SQLite and Jansson, so it has no outboxes",
                 path);
    return TOOL_USAGE;
}

struct sql_method *sql_compile(struct semel_store *store, const char *text, uint64_t reply_max,
                               char *why, size_t why_size)
{
    (void)store;
    (void)text;
    (void)reply_max;
    snprintf(why, why_size, "built without SQLite");
    return NULL;
}

void sql_handler(struct semel_request *request, struct semel_store *store, void *user)
{
    (void)request;
    (void)store;
    (void)user;
}

void sql_close(struct sql_method *method)
{
    (void)method;
}

void sql_free(struct sql_method *method)
{
    (void)method;
}

bool bank_is_there(void)
{
    output_error("this semel was built without SQLite and Jansson, so it has no bank to show");
    return false;
}

bool bank_create(const struct demo *demo)
{
    (void)demo;
    return false;
}

int64_t bank_money(const struct demo *demo)
{
    (void)demo;
    return -1;
}

bool bank_moves(const struct demo *demo, int64_t *last, void (*fn)(const char *id, void *user),
                void *user)
{
    (void)demo;
    (void)last;
    (void)fn;
    (void)user;
    return false;
}

void bank_server(const struct demo *demo, const char *address, char *argv[BANK_ARGUMENTS])
{
    (void)demo;
    (void)address;
    argv[0] = NULL;
}
