/* SPDX-License-Identifier: MIT */
/* worker.c - one worker process and the client that talks to it, from exec to the inquest.
 *
 * Both ends of the connection stay open here. So the end of a process is not seen by its client at
 * once, but told by the keeper after the inquest, which ends the connection itself (a shutdown, so
 * that it does not matter who else has inherited it). By then everything is known: how the process
 * ended, and how much of what was sent it had read. What it had written before is still delivered.
 *
 * The group is killed before the process is reaped: as long as it is not, its number is nobody
 * else's. (Unless the host reaps all children itself; then a number would have to be used again
 * within the moment that the keeper needs.)
 *
 * A worker that lives but has closed its descriptor is found out by the heartbeat alone. */
#include "proc/pool_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/pair.h"
#include "os/clock.h"
#include "os/futex.h"
#include "rpc/client_seam.h"

#define PROBE_MS 1000

/* --- starting ----------------------------------------------------------------------------- */

/* Thread: the client's I/O thread. */
static void on_state(struct semel_client *client, enum semel_client_state state,
                     enum semel_status status, const char *text, void *user)
{
    struct sml_worker *worker = user;
    struct semel_pool *pool = worker->pool;
    char why[SEMEL_EPITAPH_BYTES];
    struct sml_list told;

    (void)client;
    (void)status;
    sml_list_init(&told);
    sml_mutex_lock(&pool->lock);
    if (state == SEMEL_CLIENT_CONNECTED && worker->state == SEMEL_WORKER_STARTING) {
        worker->state = SEMEL_WORKER_READY;
        worker->ready_untold = true;
        sml_seat_serve_line(pool, &told);
    } else if (state == SEMEL_CLIENT_FAILED) {
        (void)snprintf(why, sizeof why, "was cut off: %s", text);
        sml_worker_spoil_locked(worker, why);
    }
    sml_mutex_unlock(&pool->lock);
    sml_wake_signal(&pool->wake);
    sml_seat_tell(&told);
}

static enum semel_status connect_client(struct sml_worker *worker, int fd)
{
    const struct semel_pool_options *o = &worker->pool->options;
    struct semel_client_options options = {
        .deadline_ms = o->deadline_ms,
        .cancel_grace_ms = o->cancel_grace_ms,
        .handshake_ms = o->start_ms,
        .heartbeat_ms = o->heartbeat_ms,
        .body_bytes = o->body_bytes,
        .on_state = on_state,
        .state_user = worker,
    };
    char address[24];

    if (o->calls_per_worker > SEMEL_WINDOW_CALLS)
        options.window_calls = o->calls_per_worker;
    (void)snprintf(address, sizeof address, "fd:%d", fd);
    return semel_client_create(&worker->client, address, &options);
}

static struct sml_worker *new_worker(struct semel_pool *pool)
{
    struct sml_worker *worker = calloc(1, sizeof *worker);

    if (!worker)
        return NULL;
    sml_list_init(&worker->all);
    worker->pool = pool;
    worker->state = SEMEL_WORKER_STARTING;
    worker->child.pidfd = worker->far_fd = -1;
    worker->term_at = worker->kill_at = SML_NEVER;
    worker->bytes_read = UINT64_MAX;
    worker->started_at = sml_clock_now();
    return worker;
}

/* Killed before it could do anything. */
static void undo(struct sml_worker *worker, int near_fd)
{
    if (worker->child.pid > 0) {
        sml_child_kill_group(&worker->child);
        (void)sml_child_reap(&worker->child);
    }
    sml_fd_close(&near_fd);
    sml_fd_close(&worker->far_fd);
    free(worker);
}

enum semel_status sml_worker_start(struct semel_pool *pool, struct sml_worker **out_worker,
                                   struct sml_reason *reason)
{
    struct sml_worker *worker = new_worker(pool);
    enum semel_status status;
    int fds[2];

    if (!worker)
        return sml_reason_set(reason, SEMEL_NO_MEMORY, "no memory for a worker");
    status = sml_pair_open(fds, reason);
    if (status != SEMEL_OK) {
        free(worker);
        return status;
    }
    worker->far_fd = fds[1];
    status = sml_spawn(&worker->child, pool->program, pool->argv, fds[1], reason);
    if (status == SEMEL_OK) {
        worker->pid = worker->child.pid;
        status = connect_client(worker, fds[0]);
        if (status != SEMEL_OK)
            (void)sml_reason_set(reason, status, "no client for a worker: %s",
                                 semel_status_text(status));
    }
    if (status != SEMEL_OK) {
        undo(worker, fds[0]);
        return status;
    }
    *out_worker = worker;
    return SEMEL_OK;
}

/* --- calls that were given up ------------------------------------------------------------- */

/* So many handlers run, the one that says so and those of later calls included: no more than that
 * can be left. Lock held. */
static void learn(struct sml_worker *worker, const struct semel_result *result)
{
    char text[24] = "";
    unsigned long running;

    if (result->status == SEMEL_NO_METHOD)
        worker->abandoned = 0; /* it knows nothing of this: take its word that it is well */
    if (result->outcome != SEMEL_VALUE || result->body.size >= sizeof text)
        return;
    memcpy(text, result->body.data, result->body.size);
    running = strtoul(text, NULL, 10);
    if (running > 0 && running - 1 < worker->abandoned)
        worker->abandoned = (uint32_t)(running - 1);
}

static void on_probed(struct semel_result *result, void *user)
{
    struct sml_worker *worker = user;
    struct semel_pool *pool = worker->pool;
    struct sml_list told;

    sml_list_init(&told);
    sml_mutex_lock(&pool->lock);
    learn(worker, result);
    worker->probing = false;
    sml_seat_serve_line(pool, &told);
    sml_wake_signal(&pool->wake);
    sml_mutex_unlock(&pool->lock);
    sml_seat_tell(&told);
}

void sml_worker_probe(struct sml_worker *worker)
{
    struct semel_call_options options = { .deadline_ms = PROBE_MS };

    if (semel_client_start(worker->client, SML_WORKER_HANDLERS, semel_bytes(NULL, 0), &options,
                           on_probed, worker, NULL) == SEMEL_OK)
        return;
    sml_mutex_lock(&worker->pool->lock);
    worker->probing = false;
    sml_mutex_unlock(&worker->pool->lock);
}

/* --- ending ------------------------------------------------------------------------------- */

void sml_worker_retire_locked(struct sml_worker *worker)
{
    if (worker->state != SEMEL_WORKER_STARTING && worker->state != SEMEL_WORKER_READY)
        return;
    worker->state = SEMEL_WORKER_LEAVING;
    worker->asked = worker->retired_untold = true;
    worker->pool->counters.workers_recycled++;
}

void sml_worker_spoil_locked(struct sml_worker *worker, const char *why)
{
    if (worker->spoiled || worker->said_goodbye || worker->over)
        return;
    worker->spoiled = worker->kill_wanted = true;
    worker->state = SEMEL_WORKER_DYING;
    memcpy(worker->why, why, strnlen(why, sizeof worker->why - 1));
}

void sml_worker_say_goodbye(struct sml_worker *worker)
{
    int64_t grace = worker->pool->options.stop_grace_ms;
    uint64_t now, span = grace < 0 ? 0 : (uint64_t)grace * SML_MS;
    struct semel_client *client = worker->client;

    /* Nobody else looks at the client of a worker that is leaving and has no calls. */
    SML_ASSERT(semel_client_destroy(client) == SEMEL_OK);
    worker->client = NULL;
    sml_socket_shut(worker->far_fd);
    sml_fd_close(&worker->far_fd);
    now = sml_clock_now();
    worker->term_at = sml_time_add(now, span / 2);
    worker->kill_at = sml_time_add(now, span);
}

void sml_worker_kill(struct sml_worker *worker)
{
    if (worker->killed || worker->child.pid == 0)
        return;
    worker->killed = true;
    sml_child_kill_group(&worker->child);
}

/* Sent, less what is left. Whoever writes now is refused by the system, so what is written does
 * not grow any more once nobody is inside a write. */
static uint64_t count_read(struct sml_worker *worker)
{
    uint64_t written, left;

    sml_socket_shut(worker->far_fd);
    left = sml_socket_drain(worker->far_fd);
    while (!sml_client_written(worker->client, &written))
        sml_thread_yield();
    return left < written ? written - left : 0;
}

void sml_worker_inquest(struct sml_worker *worker)
{
    char how[SEMEL_EPITAPH_BYTES];
    struct sml_exit exit;

    sml_child_kill_group(&worker->child);
    exit = sml_child_reap(&worker->child);
    sml_exit_say(&exit, how, sizeof how);
    /* What was wrong before says more than the signal that followed it. */
    (void)snprintf(worker->epitaph, sizeof worker->epitaph, "%s",
                   worker->spoiled ? worker->why : how);
    if (worker->client)
        worker->bytes_read = count_read(worker);
    atomic_store_explicit(&worker->buried, 1, memory_order_release);
    sml_futex_wake(&worker->buried, INT32_MAX);
}

void sml_worker_free(struct sml_worker *worker)
{
    if (worker->client)
        SML_ASSERT(semel_client_destroy(worker->client) == SEMEL_OK);
    sml_fd_close(&worker->far_fd);
    free(worker);
}
