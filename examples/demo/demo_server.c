/* SPDX-License-Identifier: MIT */
/* demo_server.c - demo_server ADDRESS LEDGER COUNTERS: handlers that write down what they did.
 *
 * Each execution of a handler appends one line to the ledger, before it replies. A call that ran
 * twice would stand there twice; one that was answered without having run, not at all. SIGTERM
 * drains the server and writes its counters, as a JSON line, to COUNTERS. */
#include <inttypes.h>
#include <signal.h>
#include <time.h>

#include <semel/semel.h>

#include "ledger.h"

static int ledger;

/* Write the execution down; `outcome` is what the handler will answer. */
static void note(struct semel_request *request, char outcome, int code, const void *reply,
                 size_t reply_size)
{
    struct semel_bytes body = semel_request_body(request);
    struct semel_key key = semel_request_key(request);
    char hex[2 * sizeof key.bytes + 1];

    for (size_t i = 0; i < sizeof key.bytes; i++)
        sprintf(hex + 2 * i, "%02x", key.bytes[i]);
    ledger_line(ledger, "R %.64s %s %zu %" PRIx64 " %c %d %zu %" PRIx64 " %s\n",
                semel_request_content_type(request), semel_request_method(request), body.size,
                ledger_hash(body.data, body.size), outcome, code, reply_size,
                ledger_hash(reply, reply_size), hex);
}

static void must(enum semel_status status)
{
    if (status != SEMEL_OK) {
        fprintf(stderr, "demo_server: %s\n", semel_status_text(status));
        abort();
    }
}

static void echo(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    note(request, 'V', 0, body.data, body.size);
    must(semel_request_reply(request, body.data, body.size));
}

/* Answers with the call's name and the hash of its body. */
static void fast(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);
    char reply[128];

    (void)user;
    snprintf(reply, sizeof reply, "%.64s %" PRIx64, semel_request_content_type(request),
             ledger_hash(body.data, body.size));
    note(request, 'V', 0, reply, strlen(reply));
    must(semel_request_reply(request, reply, strlen(reply)));
}

/* As fast, after up to 500 ms, mostly much less; the body decides. */
static void slow(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);
    uint64_t hash = ledger_hash(body.data, body.size);
    long ms = hash % 8 == 0 ? (long)(hash >> 8) % 500 : (long)(hash >> 8) % 50;
    struct timespec pause = { 0, ms * 1000000 };

    nanosleep(&pause, NULL);
    fast(request, user);
}

static void failing(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);
    uint64_t hash = ledger_hash(body.data, body.size);
    int code = 1 + (int)(hash % 100);
    char text[128];

    (void)user;
    snprintf(text, sizeof text, "%.64s refused %" PRIx64, semel_request_content_type(request),
             hash);
    note(request, 'F', code, text, strlen(text));
    must(semel_request_fail(request, code, text));
}

static void write_counters(const struct semel_server *server, const char *path)
{
    struct semel_server_counters c;
    FILE *file = fopen(path, "w");

    semel_server_counters(server, &c);
    if (!file) {
        perror(path);
        exit(1);
    }
    fprintf(file,
            "{\"calls_started\":%" PRIu64 ",\"replayed\":%" PRIu64 ",\"reattached\":%" PRIu64
            ",\"duplicates\":%" PRIu64 ",\"connections_lost\":%" PRIu64
            ",\"connections_lost_mid_frame\":%" PRIu64 ",\"sessions_resumed\":%" PRIu64
            ",\"protocol_errors\":%" PRIu64 ",\"false_retries\":%" PRIu64 "}\n",
            c.calls_started, c.replayed, c.reattached, c.duplicates, c.connections_lost,
            c.connections_lost_mid_frame, c.sessions_resumed, c.protocol_errors, c.false_retries);
    if (fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

static void print_log(enum semel_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == SEMEL_LOG_ERROR)
        fprintf(stderr, "demo_server: %s\n", text);
}

int main(int argc, char **argv)
{
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    struct semel_server *server;
    sigset_t set;
    int number;

    if (argc != 4) {
        fprintf(stderr, "Usage: demo_server ADDRESS LEDGER COUNTERS\n");
        return 2;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    ledger = ledger_open(argv[2]);
    options.workers = 32;
    options.log = print_log;
    must(semel_server_create(&server, &options));
    must(semel_server_export(server, "echo", echo, NULL, NULL));
    must(semel_server_export(server, "fast", fast, NULL, NULL));
    must(semel_server_export(server, "slow", slow, NULL, NULL));
    must(semel_server_export(server, "failing", failing, NULL, NULL));
    must(semel_server_listen(server, argv[1]));
    must(semel_server_start(server));
    sigwait(&set, &number);
    semel_server_drain(server, 5000);
    must(semel_server_wait(server, -1, NULL));
    write_counters(server, argv[3]);
    must(semel_server_destroy(server));
    close(ledger);
    return 0;
}
