/* SPDX-License-Identifier: MIT */
/* restart.c - how long a server needs to come back with many sessions.
 *   --sessions=N (100000) --bytes=N (1024) --dir=DIR
 * Each session holds one reply that nobody has accepted. They are made as they would come about:
 * processes of 500 clients make one call each, are killed while these run, and the calls end
 * afterwards. Then the server is killed, started anew, and called by a client that tries until it
 * is let in; and once more after the system was made to drop what it has of the database in
 * memory, as if the machine had been started too. Prints the times from the start of the process
 * to the first reply. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <semel/sqlite.h>

#include "kit.h"

#define CLIENTS 500 /* in one process */

struct setup {
    char address[64];
    char database[200];
    size_t bytes;
};

/* --- the server ------------------------------------------------------------------------------- */

struct held {
    pthread_mutex_t lock;
    struct semel_request *requests[CLIENTS];
    int count;
};

static struct held held = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void hold(struct semel_request *request, void *user)
{
    (void)user;
    semel_request_take(request);
    pthread_mutex_lock(&held.lock);
    held.requests[held.count++] = request;
    pthread_mutex_unlock(&held.lock);
}

static void echo(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    kit_need(semel_request_reply(request, body.data, body.size), "reply");
}

static int held_now(void)
{
    int count;

    pthread_mutex_lock(&held.lock);
    count = held.count;
    pthread_mutex_unlock(&held.lock);
    return count;
}

static void release(size_t bytes)
{
    char *reply = calloc(1, bytes + 1);

    pthread_mutex_lock(&held.lock);
    for (int i = 0; i < held.count; i++)
        kit_need(semel_request_reply(held.requests[i], reply, bytes), "reply");
    held.count = 0;
    pthread_mutex_unlock(&held.lock);
    free(reply);
}

enum { COUNT, RELEASE, RECORDED };

static void serve(int fd, void *user)
{
    const struct setup *setup = user;
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    struct semel_server_counters counters;
    struct semel_server *server;
    uint64_t command;
    char why[300];

    options.sessions = 1000000;
    if (semel_sqlite_open(&options.store, setup->database, NULL, why, sizeof why) != SEMEL_OK)
        kit_die(why);
    kit_need(semel_server_create(&server, &options), "server_create");
    kit_need(semel_server_export(server, "hold", hold, NULL, NULL), "export");
    kit_need(semel_server_export(server, "echo", echo, NULL, NULL), "export");
    kit_need(semel_server_listen(server, setup->address), "listen");
    kit_need(semel_server_start(server), "start");
    kit_send(fd, 0);
    while (recv(fd, &command, sizeof command, MSG_WAITALL) == (ssize_t)sizeof command) {
        semel_server_counters(server, &counters);
        if (command == RELEASE)
            release(setup->bytes);
        kit_send(fd, command == COUNT ? (uint64_t)held_now() : counters.calls_recorded);
    }
}

static uint64_t ask(struct kit_child child, uint64_t command)
{
    kit_send(child.fd, command);
    return kit_receive(child.fd);
}

/* --- the clients that die -------------------------------------------------------------------- */

static void never(struct semel_result *result, void *user)
{
    (void)result;
    (void)user;
}

static void connect_many(int fd, void *user)
{
    const struct setup *setup = user;
    struct semel_call_options options = SEMEL_CALL_OPTIONS_INIT;
    struct semel_client *client;

    options.deadline_ms = 600000;
    for (int i = 0; i < CLIENTS; i++) {
        kit_need(semel_client_create(&client, setup->address, NULL), "client_create");
        kit_need(
            semel_client_start(client, "hold", semel_bytes_text("x"), &options, never, NULL, NULL),
            "start");
    }
    kit_send(fd, 0);
    (void)kit_receive(fd);
}

/* --- the measurement ------------------------------------------------------------------------- */

static double first_call(const struct setup *setup, struct kit_child *out_server)
{
    struct semel_client_options options = SEMEL_CLIENT_OPTIONS_INIT;
    struct semel_client *client;
    uint64_t began = kit_now_ns();

    options.backoff_min_ms = options.backoff_max_ms = 1;
    *out_server = kit_fork(serve, (void *)(uintptr_t)setup);
    kit_need(semel_client_create(&client, setup->address, &options), "client_create");
    kit_echo(client, "first", 5);
    began = kit_now_ns() - began;
    (void)kit_receive(out_server->fd);
    kit_need(semel_client_destroy(client), "client_destroy");
    return (double)began / 1e6;
}

static void drop_cached(const char *database, const char *end)
{
    char path[220];
    int fd;

    snprintf(path, sizeof path, "%s%s", database, end);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
        kit_die(path);
    close(fd);
}

int main(int argc, char **argv)
{
    int sessions = (int)kit_number(argc, argv, "sessions", 100000);
    struct setup setup = { .bytes = (size_t)kit_number(argc, argv, "bytes", 1024) };
    struct kit_child server;
    struct stat file;
    char directory[160];
    double ms, cold_ms;

    snprintf(directory, sizeof directory, "%s/semel-restart.%d", kit_text(argc, argv, "dir", "."),
             (int)getpid());
    kit_directory(directory);
    snprintf(setup.database, sizeof setup.database, "%s/db", directory);
    kit_address(setup.address, sizeof setup.address, 0);
    server = kit_fork(serve, &setup);
    (void)kit_receive(server.fd);
    for (int made = 0; made < sessions; made += CLIENTS) {
        struct kit_child clients = kit_fork(connect_many, &setup);
        uint64_t recorded;

        (void)kit_receive(clients.fd);
        while (ask(server, COUNT) < CLIENTS)
            kit_sleep_ns(1000000);
        kit_end(clients);
        recorded = ask(server, RELEASE);
        while (ask(server, RECORDED) < recorded + CLIENTS)
            kit_sleep_ns(1000000);
    }
    kit_end(server);
    ms = first_call(&setup, &server);
    kit_end(server);
    drop_cached(setup.database, "");
    drop_cached(setup.database, "-wal");
    cold_ms = first_call(&setup, &server);
    if (stat(setup.database, &file) != 0)
        kit_die(setup.database);
    printf("figure=restart sessions=%d bytes=%zu first_ms=%.0f cold_ms=%.0f db_mib=%.1f "
           "rss_mib=%.1f\n",
           sessions, setup.bytes, ms, cold_ms, (double)file.st_size / 1048576,
           (double)kit_usage(server.pid).rss / 1048576);
    kit_end(server);
    return 0;
}
