/* SPDX-License-Identifier: MIT */
/* pool_show.c - a pool's workers among what a server tells of itself. */
#include <stdlib.h>

#include "proc/pool_internal.h"
#include "rpc/json_text.h"
#include "rpc/server_seam.h"

static const char *const states[] = {
    [SEMEL_WORKER_STARTING] = "starting", [SEMEL_WORKER_READY] = "ready",
    [SEMEL_WORKER_LEAVING] = "leaving",   [SEMEL_WORKER_DYING] = "dying",
    [SEMEL_WORKER_PAUSED] = "paused",     [SEMEL_WORKER_GIVEN_UP] = "given up",
};

static int by_place(const void *a, const void *b)
{
    const struct semel_worker_info *left = a, *right = b;

    if (left->place != right->place)
        return left->place < right->place ? -1 : 1;
    return (left->worker > right->worker) - (left->worker < right->worker);
}

static void put_worker(struct sml_json *json, const struct semel_worker_info *info)
{
    sml_json_open(json, NULL, '{');
    sml_json_u64(json, "place", info->place);
    sml_json_text(json, "state", states[info->state]);
    if (info->pid > 0) {
        sml_json_u64(json, "pid", (uint64_t)info->pid);
        sml_json_u64(json, "running", info->in_flight);
        sml_json_u64(json, "abandoned", info->abandoned);
        sml_json_u64(json, "calls", info->calls);
        sml_json_u64(json, "age_ms", (uint64_t)info->age_ms);
    }
    sml_json_u64(json, "restarts", info->restarts);
    if (info->last_pid > 0) {
        sml_json_u64(json, "last_pid", (uint64_t)info->last_pid);
        sml_json_text(json, "last_exit", info->last_exit);
    }
    sml_json_close(json, '}');
}

static void show(struct sml_json *json, void *user)
{
    const struct semel_pool *pool = user;
    size_t room = semel_pool_list(pool, NULL, 0), count;
    struct semel_worker_info *infos = calloc(room + 1, sizeof *infos);

    if (infos == NULL) {
        json->status = SEMEL_NO_MEMORY;
        return;
    }
    /* One that came in between is seen the next time. */
    count = semel_pool_list(pool, infos, room);
    count = count < room ? count : room;
    if (count > 0)
        qsort(infos, count, sizeof *infos, by_place);
    sml_json_open(json, "processes", '[');
    for (size_t i = 0; i < count; i++)
        put_worker(json, &infos[i]);
    sml_json_close(json, ']');
    free(infos);
}

enum semel_status semel_pool_show(struct semel_pool *pool, struct semel_server *server)
{
    return pool && server ? sml_server_show(server, show, pool) : SEMEL_INVALID;
}
