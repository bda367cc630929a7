/* SPDX-License-Identifier: MIT */
/* stream.c - how fast bytes flow between two processes over a Unix socket.
 *   --what=raw       one process writes chunks, the other reads them: write and read in loops
 *   --what=down      a handler sends the chunks as items, the caller reads them with
 *                    semel_stream_next
 *   --what=callback  the same, read in the stream's callback
 *   --what=up        the caller sends, the handler reads
 *   --moved          the same chunk is sent again and again without a copy
 *   --chunk=BYTES --bytes=BYTES
 * Prints the rate from the first chunk asked for to the last one read. */
#include <semel/semel.h>
#include <semel/stream.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kit.h"

struct task {
    size_t chunk;
    uint64_t bytes;
    bool moved;
};

/* --- raw ---- */

static double run_raw(const struct task *task)
{
    uint8_t *chunk = calloc(1, task->chunk);
    uint64_t begun, seen = 0;
    int ends[2];
    pid_t child;

    if (chunk == NULL || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0 || (child = fork()) < 0)
        kit_die("socketpair");
    if (child == 0) {
        for (uint64_t sent = 0; sent < task->bytes;) {
            ssize_t wrote = write(ends[1], chunk, task->chunk);

            if (wrote <= 0)
                _exit(1);
            sent += (uint64_t)wrote;
        }
        _exit(0);
    }
    begun = kit_now_ns();
    while (seen < task->bytes) {
        ssize_t got = read(ends[0], chunk, task->chunk);

        if (got <= 0)
            kit_die("read");
        seen += (uint64_t)got;
    }
    begun = kit_now_ns() - begun;
    (void)waitpid(child, NULL, 0);
    free(chunk);
    return (double)task->bytes / (double)begun;
}

/* --- a stream ---- */

static struct semel_bytes get_chunk(const struct task *task)
{
    void *chunk = calloc(1, task->chunk);

    if (chunk == NULL)
        kit_die("chunk");
    return semel_bytes(chunk, task->chunk);
}

/* One that was moved stays to the end of the process: the last items come back after the call. */
static void put_chunk(const struct task *task, struct semel_bytes chunk)
{
    if (!task->moved)
        free((void *)chunk.data);
}

static void release(struct semel_bytes item, void *user)
{
    (void)item;
    (void)user;
}

static void on_down(struct semel_request *request, void *user)
{
    struct semel_bytes item;
    struct task task;

    (void)user;
    memcpy(&task, semel_request_body(request).data, sizeof task);
    item = get_chunk(&task);
    for (uint64_t sent = 0; sent < task.bytes; sent += task.chunk)
        if ((task.moved ? semel_request_send_moved(request, item, -1, release, NULL)
                        : semel_request_send(request, item, -1)) != SEMEL_OK)
            kit_die("send");
    put_chunk(&task, item);
    (void)semel_request_reply(request, NULL, 0);
}

static void on_up(struct semel_request *request, void *user)
{
    struct semel_bytes item;
    uint64_t seen = 0;

    (void)user;
    while (semel_request_next(request, -1, &item) == SEMEL_OK)
        seen += item.size;
    (void)semel_request_reply(request, &seen, sizeof seen);
}

static void serve(const char *address)
{
    struct semel_method_options takes = SEMEL_METHOD_OPTIONS_INIT;
    struct semel_server *server;

    takes.takes_items = true;
    if (semel_server_create(&server, NULL) != SEMEL_OK ||
        semel_server_export(server, "down", on_down, NULL, NULL) != SEMEL_OK ||
        semel_server_export(server, "up", on_up, NULL, &takes) != SEMEL_OK ||
        semel_server_listen(server, address) != SEMEL_OK)
        _exit(1);
    _exit(semel_server_run(server) != SEMEL_OK);
}

struct reader {
    uint64_t seen;
    sem_t over;
};

static void on_ready(struct semel_stream *stream, void *user)
{
    struct reader *reader = user;
    struct semel_item item;
    enum semel_status status;

    while ((status = semel_stream_next(stream, 0, &item)) == SEMEL_OK)
        reader->seen += item.bytes.size;
    if (status != SEMEL_WOULD_BLOCK)
        sem_post(&reader->over);
}

static void send_up(struct semel_stream *stream, const struct task *task)
{
    struct semel_bytes item = get_chunk(task);

    for (uint64_t sent = 0; sent < task->bytes; sent += task->chunk)
        if ((task->moved ? semel_stream_send_moved(stream, item, -1, release, NULL)
                         : semel_stream_send(stream, item, -1)) != SEMEL_OK)
            kit_die("send");
    (void)semel_stream_end(stream);
    put_chunk(task, item);
}

static void read_down(struct semel_stream *stream, struct reader *reader)
{
    struct semel_item item;

    while (semel_stream_next(stream, -1, &item) == SEMEL_OK)
        reader->seen += item.bytes.size;
}

static double run_stream(struct semel_client *client, const char *what, const struct task *task)
{
    bool up = strcmp(what, "up") == 0, callback = strcmp(what, "callback") == 0;
    struct reader reader = { 0 };
    struct semel_stream_options options = { up, !up, callback ? on_ready : NULL, &reader };
    struct semel_stream *stream;
    struct semel_result result;
    uint64_t begun = kit_now_ns();

    sem_init(&reader.over, 0, 0);
    if (semel_client_stream(client, up ? "up" : "down", semel_bytes(task, sizeof *task), NULL,
                            &options, &stream) != SEMEL_OK)
        kit_die("stream");
    if (up)
        send_up(stream, task);
    else if (callback)
        sem_wait(&reader.over);
    else
        read_down(stream, &reader);
    if (semel_stream_result(stream, -1, &result) != SEMEL_OK || result.outcome != SEMEL_VALUE)
        kit_die("result");
    if (up)
        memcpy(&reader.seen, result.body.data, sizeof reader.seen);
    begun = kit_now_ns() - begun;
    if (reader.seen < task->bytes)
        kit_die("bytes are missing");
    semel_result_clear(&result);
    semel_stream_free(stream);
    return (double)task->bytes / (double)begun;
}

static double run_semel(const char *what, const struct task *task)
{
    struct semel_client *client;
    char address[64];
    double rate;
    pid_t child;

    (void)snprintf(address, sizeof address, "unix:/tmp/semel-bench-stream.%d", (int)getpid());
    child = fork();
    if (child == 0)
        serve(address);
    if (semel_client_create(&client, address, NULL) != SEMEL_OK ||
        semel_client_wait_connected(client, 10000, NULL, 0) != SEMEL_OK)
        kit_die("connect");
    rate = run_stream(client, what,
                      &(struct task){ task->chunk, task->chunk * 16, task->moved }); /* warm */
    rate = run_stream(client, what, task);
    (void)semel_client_destroy(client);
    kill(child, SIGTERM);
    (void)waitpid(child, NULL, 0);
    (void)unlink(address + 5);
    return rate;
}

int main(int argc, char **argv)
{
    struct task task = { .chunk = 65536, .bytes = UINT64_C(1) << 30 };
    const char *what = "down";
    double rate;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--what=", 7) == 0)
            what = argv[i] + 7;
        else if (strncmp(argv[i], "--chunk=", 8) == 0)
            task.chunk = strtoull(argv[i] + 8, NULL, 10);
        else if (strncmp(argv[i], "--bytes=", 8) == 0)
            task.bytes = strtoull(argv[i] + 8, NULL, 10);
        else if (strcmp(argv[i], "--moved") == 0)
            task.moved = true;
        else
            kit_die(argv[i]);
    }
    rate = strcmp(what, "raw") == 0 ? run_raw(&task) : run_semel(what, &task);
    printf("figure=stream what=%s moved=%d chunk=%zu gbs=%.3f\n", what, task.moved, task.chunk,
           rate);
    return 0;
}
