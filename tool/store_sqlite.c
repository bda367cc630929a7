/* SPDX-License-Identifier: MIT */
/* Where SQLite is; else nosqlite.c. */
#include "clock.h"
#include "store.h"
#include "tool.h"

/* A process that was just killed lets go a moment later, and so does a program that it was about to
 * start. */
#define PATIENCE_NS INT64_C(1000000000)
#define PAUSE_NS 20000000

int store_open(struct semel_store **out_store, const char *path,
               const struct semel_sqlite_options *options)
{
    const struct timespec pause = { 0, PAUSE_NS };
    int64_t begin = clock_now();
    enum semel_status status;
    char text[1024];

    for (;;) {
        status = semel_sqlite_open(out_store, path, options, text, sizeof text);
        if (status != SEMEL_STORE_LOCKED || clock_now() - begin >= PATIENCE_NS)
            break;
        nanosleep(&pause, NULL);
    }
    return status == SEMEL_OK ? TOOL_VALUE : store_explain(status, text);
}

int outbox_open(struct semel_outbox **out_outbox, const char *path)
{
    const struct timespec pause = { 0, PAUSE_NS };
    int64_t begin = clock_now();
    enum semel_status status;
    char text[1024];

    for (;;) {
        status = semel_sqlite_outbox_open(out_outbox, path, text, sizeof text);
        if (status != SEMEL_STORE_LOCKED || clock_now() - begin >= PATIENCE_NS)
            break;
        nanosleep(&pause, NULL);
    }
    return status == SEMEL_OK ? TOOL_VALUE : outbox_explain(status, text);
}
