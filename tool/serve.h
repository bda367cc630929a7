/* SPDX-License-Identifier: MIT */
/* serve.h - what the files of semel serve share: what is served, and how. */
#ifndef TOOL_SERVE_H
#define TOOL_SERVE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "locks.h"
#include "shell.h"
#include "sql.h"
#include "store.h"
#include "tool.h"

#define METHODS_MAX 256

struct service;

struct method {
    const char *name;
    semel_handler_fn handler; /* NULL: SQL */
    struct shell shell;
    const char *statements; /* SQL as it was written */
    struct sql_method *sql; /* and compiled */
    struct semel_method_options options;
    const struct service *service;
};

struct service {
    const char *addresses;
    char listening[SEMEL_ADDRESSES_MAX][SEMEL_ADDRESS_BYTES + 1]; /* said once it does answer */
    size_t listening_count;
    struct method methods[METHODS_MAX];
    size_t count;
    const char *ledger_path;
    int ledger;
    int64_t drain_ms, grace_ns;
    struct semel_server_options options;
    uint32_t procs;      /* worker processes; 0: all runs here */
    const char *program; /* of the workers; NULL: this one */
    uint64_t recycle_calls, recycle_bytes;
    struct semel_pool *pool;
    char **arguments; /* ours, for workers */
    bool stored;      /* --store was given, and what follows holds */
    char store_path[STORE_PATH_BYTES];
    struct semel_sqlite_options store_options;
    bool orphans_wait;
    bool exchanges; /* --exchange was given */
    struct semel_exchange_options exchange_options;
    struct semel_exchange *exchange;
    int64_t lease_ms; /* of the locks; 0: none */
    struct locks *locks;
    char mark[STORE_PATH_BYTES + 64]; /* "SEMEL_STORE=...": set when the store is open */
    int held;                         /* what tells of programs that still run; -1: none */
    pthread_mutex_t lock;             /* between the signal thread and the end */
    struct semel_server *server;      /* lock; NULL once it is being destroyed */
};

/* Fill in what the command line says. Ends the process if it says nonsense. */
void serve_arguments(struct service *service, int argc, char **argv);

/* Export all methods. Returns an exit code; other than 0, why was said. */
int serve_export(struct service *service);

/* serve_store.c: open the store, compile what is SQL, and see that nothing of an earlier server
 * runs any more. The store is in service->options.store then. Returns an exit code; other than
 * 0, why was said. Blocks: while programs of an earlier server run. */
int serve_store_open(struct service *service);

/* The server is about to close its store, or there will be none: let go of statements. */
void serve_store_release(struct service *service);

/* It is closed: release the rest. */
void serve_store_end(struct service *service);

#endif
