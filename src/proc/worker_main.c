/* SPDX-License-Identifier: MIT */
/* worker_main.c - the other side: a process that serves its pool until the connection ends.
 *
 * The argument says where the connection is, how many calls may run at once, and how large bodies
 * may be. A copy of the descriptor is watched for the end of the connection; the server has the
 * original. No heartbeat is expected: the pool's end is the socket's. */
#include <semel/limits.h>
#include <semel/pool.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/process.h"
#include "os/spawn.h"
#include "proc/pool_internal.h"
#include "rpc/server_seam.h"

#define LAST_HANDLERS_MS 60000 /* the pool is less patient */

enum { DONE = 0, NO_SET_UP = 1, BAD_ARGUMENT = 2 };

struct plan {
    int fd;
    unsigned long calls;
    unsigned long long body_bytes;
};

static const char *find_argument(int argc, char **argv)
{
    size_t bytes = sizeof SML_WORKER_ARGUMENT - 1;

    for (int i = 1; argv && i < argc && argv[i]; i++)
        if (strncmp(argv[i], SML_WORKER_ARGUMENT, bytes) == 0)
            return argv[i] + bytes;
    return NULL;
}

static bool read_plan(const char *text, struct plan *plan)
{
    char rest;

    return sscanf(text, "%d:%lu:%llu%c", &plan->fd, &plan->calls, &plan->body_bytes, &rest) == 3 &&
           plan->fd > 2 && plan->calls >= 1 && plan->calls <= SEMEL_WINDOW_CALLS_MAX &&
           plan->body_bytes >= 1 && plan->body_bytes <= SEMEL_BODY_BYTES_MAX;
}

static enum semel_status make_server(const struct plan *plan, struct semel_server **out_server)
{
    struct semel_server_options options = {
        .workers = plan->calls < 4096 ? (uint32_t)plan->calls : 4096,
        .on_demand = plan->calls > 64,
        .backlog = SEMEL_WINDOW_CALLS_MAX,
        .window_calls = plan->calls > SEMEL_WINDOW_CALLS ? (uint32_t)plan->calls : 0,
        .body_bytes = plan->body_bytes,
        .heartbeat_ms = -1,
        .sessions = 1,
        .connections = 1,
    };

    if (plan->body_bytes > SEMEL_SESSION_BYTES)
        options.session_bytes = plan->body_bytes;
    return semel_server_create(out_server, &options);
}

/* It is one of those that run. */
static void count_handlers(struct semel_request *request, void *user)
{
    struct semel_server_counters counters;
    char text[24];
    int bytes;

    semel_server_counters(user, &counters);
    bytes = snprintf(text, sizeof text, "%llu", (unsigned long long)counters.calls_running);
    (void)semel_request_reply(request, text, (size_t)bytes);
}

static int serve(struct semel_server *server, const struct plan *plan, int watched)
{
    char address[24];

    (void)snprintf(address, sizeof address, "fd:%d", plan->fd);
    if (sml_server_export_reserved(server, SML_WORKER_HANDLERS, count_handlers, server) !=
            SEMEL_OK ||
        semel_server_listen(server, address) != SEMEL_OK || semel_server_start(server) != SEMEL_OK)
        return BAD_ARGUMENT;
    sml_socket_wait_hangup(watched);
    semel_server_stop(server);
    return DONE;
}

static atomic_bool was_asked;

bool sml_worker_is_unasked(void)
{
    return !atomic_load_explicit(&was_asked, memory_order_acquire) &&
           sml_process_has_argument(SML_WORKER_ARGUMENT);
}

int semel_worker_main(int argc, char **argv, semel_worker_setup_fn setup, void *user)
{
    const char *argument = find_argument(argc, argv);
    struct semel_server *server;
    struct plan plan;
    int watched, code;

    atomic_store_explicit(&was_asked, true, memory_order_release);
    if (!argument)
        return -1;
    if (!read_plan(argument, &plan) || !sml_fd_keep(plan.fd))
        return BAD_ARGUMENT;
    watched = sml_fd_copy(plan.fd);
    if (watched < 0 || make_server(&plan, &server) != SEMEL_OK)
        return BAD_ARGUMENT;
    code = setup && setup(server, user) != SEMEL_OK ? NO_SET_UP : serve(server, &plan, watched);
    sml_fd_close(&watched);
    /* A handler that does not end has been asked to; nobody waits for what it does, but main. */
    if (code != DONE || semel_server_wait(server, LAST_HANDLERS_MS, NULL) == SEMEL_OK)
        return semel_server_destroy(server) == SEMEL_OK ? code : BAD_ARGUMENT;
    return code;
}
