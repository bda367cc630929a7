/* SPDX-License-Identifier: MIT */
/* growth.c - does a store grow with the calls that were made, or with those that are open?
 *   --calls=N (1000000) --n=N (256) --dir=DIR
 * n calls are in flight, of a method that is recorded; the sizes of the database and of its log are
 * printed after the first tenth of the calls, and after all of them. */
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <semel/sqlite.h>

#include "kit.h"

struct setup {
    char address[64];
    char database[200];
};

static void echo(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    kit_need(semel_request_reply(request, body.data, body.size), "reply");
}

static void serve(int fd, void *user)
{
    const struct setup *setup = user;
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    struct semel_server *server;
    char why[300];

    if (semel_sqlite_open(&options.store, setup->database, NULL, why, sizeof why) != SEMEL_OK)
        kit_die(why);
    kit_need(semel_server_create(&server, &options), "server_create");
    kit_need(semel_server_export(server, "echo", echo, NULL, NULL), "export");
    kit_need(semel_server_listen(server, setup->address), "listen");
    kit_need(semel_server_start(server), "start");
    kit_send(fd, 0);
    (void)kit_receive(fd);
}

static struct semel_client *client;
static long to_start, to_end;
static sem_t ended;

static void completed(struct semel_result *result, void *user);

static void begin(void)
{
    static const char body[64] = "a recorded call";

    to_start--;
    kit_need(semel_client_start(client, "echo", semel_bytes(body, sizeof body), NULL, completed,
                                NULL, NULL),
             "start");
}

static void completed(struct semel_result *result, void *user)
{
    (void)user;
    if (result->outcome != SEMEL_VALUE)
        kit_die(result->text);
    if (to_start > 0)
        begin();
    if (--to_end == 0)
        sem_post(&ended);
}

/* The first calls too must be started where completions run. */
static void kicked(struct semel_result *result, void *user)
{
    (void)result;
    for (int i = *(int *)user; i > 0 && to_start > 0; i--)
        begin();
}

static void make(long count, int n)
{
    to_start = to_end = count;
    kit_need(semel_client_start(client, "echo", semel_bytes(NULL, 0), NULL, kicked, &n, NULL),
             "start");
    while (sem_wait(&ended) != 0)
        ;
}

static double mib(const char *path, const char *end)
{
    struct stat file;
    char all[220];

    snprintf(all, sizeof all, "%s%s", path, end);
    return stat(all, &file) == 0 ? (double)file.st_size / 1048576 : 0;
}

int main(int argc, char **argv)
{
    long calls = (long)kit_number(argc, argv, "calls", 1000000);
    int n = (int)kit_number(argc, argv, "n", 256);
    struct setup setup;
    struct kit_child server;
    char directory[160];
    double db, wal;

    snprintf(directory, sizeof directory, "%s/semel-growth.%d", kit_text(argc, argv, "dir", "."),
             (int)getpid());
    kit_directory(directory);
    snprintf(setup.database, sizeof setup.database, "%s/db", directory);
    kit_address(setup.address, sizeof setup.address, 0);
    server = kit_fork(serve, &setup);
    (void)kit_receive(server.fd);
    client = kit_client(setup.address, NULL);
    sem_init(&ended, 0, 0);
    make(calls / 10, n);
    db = mib(setup.database, "");
    wal = mib(setup.database, "-wal");
    make(calls - calls / 10, n);
    printf("figure=growth calls=%ld db_mib_tenth=%.2f db_mib=%.2f wal_mib_tenth=%.2f "
           "wal_mib=%.2f\n",
           calls, db, mib(setup.database, ""), wal, mib(setup.database, "-wal"));
    kit_need(semel_client_destroy(client), "client_destroy");
    kit_end(server);
    return 0;
}
