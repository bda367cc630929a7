/* SPDX-License-Identifier: MIT */
/* serve_store.c - a server's store, before it is the server's.
 *
 * The order matters. The store is opened first, and with it comes its lock: no other server
 * runs. Mistakes in SQL are found next, before anything is done to anybody. Then the programs of
 * an earlier server are seen gone; only then is the server made, which settles what became of
 * their calls. */
#include <stdio.h>
#include <unistd.h>

#include "orphans.h"
#include "output.h"
#include "serve.h"

static int compile_all(struct service *service)
{
    char why[400];

    for (size_t i = 0; i < service->count; i++) {
        struct method *method = &service->methods[i];

        if (!method->statements)
            continue;
        method->sql = sql_compile(service->options.store, method->statements,
                                  method->shell.body_limit, why, sizeof why);
        if (!method->sql) {
            output_error("--sql %s: %s", method->name, why);
            return TOOL_USAGE;
        }
    }
    return TOOL_VALUE;
}

static int end_orphans(struct service *service)
{
    char path[STORE_PATH_BYTES + 16], id[STORE_ID_TEXT];
    struct orphans_options options = { .path = path,
                                       .mark = service->mark,
                                       .wait = service->orphans_wait,
                                       .grace_ns = service->grace_ns };
    struct semel_store_info info;

    semel_store_info(service->options.store, &info);
    store_id_text(info.id, id);
    snprintf(path, sizeof path, "%s-semel-run", service->store_path);
    /* The path, too: a copy of the store has the same id, and programs of its own. */
    snprintf(service->mark, sizeof service->mark, "SEMEL_STORE=%s:%s", id, service->store_path);
    service->held = orphans_end(&options);
    if (service->held < 0)
        return TOOL_CONNECT;
    for (size_t i = 0; i < service->count; i++) {
        service->methods[i].shell.mark = service->mark;
        service->methods[i].shell.held = service->held;
    }
    return TOOL_VALUE;
}

int serve_store_open(struct service *service)
{
    int code = store_open(&service->options.store, service->store_path, &service->store_options);

    if (code != TOOL_VALUE)
        return code;
    code = compile_all(service);
    return code == TOOL_VALUE ? end_orphans(service) : code;
}

void serve_store_release(struct service *service)
{
    for (size_t i = 0; i < service->count; i++) {
        if (service->methods[i].sql)
            sql_close(service->methods[i].sql);
    }
}

void serve_store_end(struct service *service)
{
    for (size_t i = 0; i < service->count; i++)
        sql_free(service->methods[i].sql);
    if (service->held >= 0)
        close(service->held);
}
