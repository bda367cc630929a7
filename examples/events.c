/* SPDX-License-Identifier: MIT */
/* events.c - N processes tell each other something, all to all, through one exchange: events [N]
 *
 * The parent serves an exchange. Each child sends a message to every other one, as an event whose
 * id says from whom and to whom, and waits once, for all that the others send to it. It does not
 * matter who starts first, or who is slow; the messages come in the order asked for, not in that of
 * their arrival. The bodies are those of docs/ASYNC.md. */
#include <semel/semel.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NODES_MAX = 64, TIMEOUT_MS = 30000 };

static void need(enum semel_status status, const char *what)
{
    if (status == SEMEL_OK)
        return;
    (void)fprintf(stderr, "%s: %s\n", what, semel_status_text(status));
    exit(1);
}

static uint8_t *put32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> 8 * i);
    return at + 4;
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void call(struct semel_client *client, const char *method, const void *body, size_t size,
                 struct semel_result *out)
{
    memset(out, 0, sizeof *out);
    if (semel_client_call(client, method, semel_bytes(body, size), NULL, out) == SEMEL_VALUE)
        return;
    (void)fprintf(stderr, "%s: %s\n", method, out->text);
    exit(1);
}

/* One byte, the id's length; the id; the data. */
static void trigger(struct semel_client *client, const char *id, const char *text)
{
    struct semel_result result;
    char body[256];
    int size = snprintf(body, sizeof body, "%c%s%s", (char)strlen(id), id, text);

    call(client, "semel.trigger", body, (size_t)size, &result);
    semel_result_clear(&result);
}

/* Timeout, need, flags, the number of ids; the ids. */
static size_t ask_for_all(uint8_t *body, int self, int nodes)
{
    uint8_t *at = put32(put32(put32(body, TIMEOUT_MS), 0), 0);

    at = put32(at, (uint32_t)nodes - 1);
    for (int from = 0; from < nodes; from++) {
        if (from == self)
            continue;
        at[0] = (uint8_t)sprintf((char *)at + 1, "%d>%d", from, self);
        at += 1 + at[0];
    }
    return (size_t)(at - body);
}

/* Status, the number of events; of each its size and its data. */
static void print_all(int self, struct semel_bytes reply)
{
    const uint8_t *at = reply.data, *end = at + reply.size;
    char line[NODES_MAX * 40];
    int used = snprintf(line, sizeof line, "%d heard:", self);

    need((enum semel_status)get32(at), "waiting for the others");
    for (at += 8; at < end; at += 4 + get32(at))
        used += snprintf(line + used, sizeof line - (size_t)used, " %.*s", (int)get32(at),
                         (const char *)at + 4);
    (void)puts(line);
}

static void node(const char *address, int self, int nodes)
{
    struct semel_client *client;
    struct semel_result result;
    uint8_t body[16 + NODES_MAX * 32];
    char id[16], text[32];

    need(semel_client_create(&client, address, NULL), "client");
    for (int to = 0; to < nodes; to++) {
        if (to == self)
            continue;
        (void)snprintf(id, sizeof id, "%d>%d", self, to);
        (void)snprintf(text, sizeof text, "%d-greets-%d", self, to);
        trigger(client, id, text);
    }
    call(client, "semel.wait", body, ask_for_all(body, self, nodes), &result);
    print_all(self, result.body);
    semel_result_clear(&result);
    need(semel_client_destroy(client), "client");
}

static void serve(const char *address, struct semel_server **server,
                  struct semel_exchange **exchange)
{
    need(semel_exchange_create(exchange, NULL), "exchange");
    need(semel_server_create(server, NULL), "server");
    need(semel_server_export_exchange(*server, *exchange), "export");
    need(semel_server_listen(*server, address), address);
    need(semel_server_start(*server), "server");
}

int main(int argc, char **argv)
{
    int nodes = argc > 1 ? atoi(argv[1]) : 3, status, failed = 0;
    char directory[] = "/tmp/semel-events-XXXXXX", address[72], path[64];
    struct semel_exchange *exchange;
    struct semel_server *server;

    if (nodes < 2 || nodes > NODES_MAX || mkdtemp(directory) == NULL)
        return 2;
    (void)snprintf(path, sizeof path, "%s/s", directory);
    (void)snprintf(address, sizeof address, "unix:%s", path);
    for (int self = 0; self < nodes; self++)
        if (fork() == 0) { /* before there is any thread; the client waits for the server */
            node(address, self, nodes);
            exit(0);
        }
    serve(address, &server, &exchange);
    while (wait(&status) > 0)
        failed |= status != 0;
    need(semel_server_destroy(server), "server");
    need(semel_exchange_destroy(exchange), "exchange");
    (void)unlink(path);
    (void)rmdir(directory);
    return failed;
}
