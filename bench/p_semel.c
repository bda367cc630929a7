/* SPDX-License-Identifier: MIT */
/* p_semel.c - Semel behind the common harness of the peer programs (peers/bench.h).
 *
 * The server is one with default options whose only method echoes its body; nothing tells it
 * that the handler is short. The client is one struct semel_client, so one session over one
 * connection. Synchronous and threaded callers use semel_client_call; the asynchronous one keeps
 * n calls in flight and starts each next call from the completion of the one before. Every reply
 * is checked in full length and for its sequence number; whatever is not a value ends the run.
 *
 * The harness forks before it opens: each process creates its own objects after the fork. */
#include "peers/bench.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <semel/semel.h>

const char *peer_name = "semel";

static void address(const struct opts *o, char *out, size_t size)
{
    if (o->is_unix)
        snprintf(out, size, "unix:%s", o->path);
    else
        snprintf(out, size, "tcp:127.0.0.1:%d", o->port);
}

static void need(enum semel_status status, const char *what)
{
    if (status == SEMEL_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, semel_status_text(status));
    errno = 0;
    bench_die(what);
}

/* ---- server ---- */

static void echo(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    need(semel_request_reply(request, body.data, body.size), "reply");
}

void peer_server(struct opts *o, void (*ready)(void))
{
    struct semel_server *server;
    char where[160];

    address(o, where, sizeof where);
    need(semel_server_create(&server, NULL), "server_create");
    need(semel_server_export(server, "echo", echo, NULL, NULL), "export");
    need(semel_server_listen(server, where), "listen");
    need(semel_server_start(server), "start");
    ready();
    (void)semel_server_wait(server, -1, NULL);
    _exit(0);
}

/* ---- client ---- */

void *peer_open(struct opts *o)
{
    struct semel_client *client;
    char where[160], why[256] = "";

    address(o, where, sizeof where);
    need(semel_client_create(&client, where, NULL), "client_create");
    if (semel_client_wait_connected(client, 5000, why, sizeof why) != SEMEL_OK) {
        fprintf(stderr, "%s\n", why);
        bench_die("wait_connected");
    }
    if (o->is_unix) { /* the harness kills the server and removes its socket file only */
        snprintf(where, sizeof where, "%s.lock", o->path);
        (void)unlink(where);
    }
    return client;
}

void *peer_thread_begin(void *client, struct opts *o, int index)
{
    (void)o;
    (void)index;
    return client;
}

void peer_thread_end(void *thread)
{
    (void)thread;
}

static void report(const struct semel_result *result)
{
    char text[512];

    semel_result_message(result, text, sizeof text);
    fprintf(stderr, "%s\n", text);
    errno = 0;
    bench_die("not a value");
}

int peer_call(void *client, const void *request, void *reply, size_t size)
{
    struct semel_result result;

    if (semel_client_call(client, "echo", semel_bytes(request, size), NULL, &result) !=
        SEMEL_VALUE) {
        if (bench_phase == B_STOP)
            return -1;
        report(&result);
    }
    if (result.body.size != size)
        bench_die("wrong length");
    memcpy(reply, result.body.data, size);
    semel_result_clear(&result);
    return 0;
}

/* One of the n calls in flight. Only one thread at a time touches it: the one that starts it
 * first, then the client's I/O thread. */
struct slot {
    struct semel_client *client;
    char *body;
    size_t size;
    uint64_t sequence;
    uint64_t began;
};

static atomic_ullong next_sequence;

static void completed(struct semel_result *result, void *user);

static void begin(struct slot *slot)
{
    slot->sequence = atomic_fetch_add_explicit(&next_sequence, 1, memory_order_relaxed);
    bench_fill(slot->body, slot->size, slot->sequence);
    slot->began = now_ns();
    need(semel_client_start(slot->client, "echo", semel_bytes(slot->body, slot->size), NULL,
                            completed, slot, NULL),
         "client_start");
}

static void completed(struct semel_result *result, void *user)
{
    struct slot *slot = user;

    if (bench_phase == B_STOP)
        return;
    if (result->outcome != SEMEL_VALUE)
        report(result);
    if (result->body.size != slot->size)
        bench_die("wrong length");
    bench_check(result->body.data, slot->size, slot->sequence);
    bench_record(slot->began);
    begin(slot);
}

void peer_async(void *client, struct opts *o)
{
    struct slot *slots = calloc((size_t)o->n, sizeof *slots);

    for (int i = 0; i < o->n; i++) {
        slots[i].client = client;
        slots[i].size = (size_t)o->size;
        slots[i].body = malloc((size_t)o->size);
        begin(&slots[i]);
    }
    while (bench_phase != B_STOP)
        nanosleep(&(struct timespec){ 0, 10 * 1000 * 1000 }, NULL);
}
