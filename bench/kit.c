/* SPDX-License-Identifier: MIT */
/* kit.c - the shared parts of the figure programs; see kit.h.
 *
 * Every program forks its servers and clients before it creates any object of the library, so
 * that each object lives and dies in the process that made it. */
#include "kit.h"

#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

uint64_t kit_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void kit_sleep_ns(uint64_t ns)
{
    struct timespec t = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };

    while (nanosleep(&t, &t) && errno == EINTR)
        ;
}

void kit_die(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    _exit(1);
}

void kit_need(enum semel_status status, const char *what)
{
    if (status == SEMEL_OK)
        return;
    fprintf(stderr, "bench: %s: %s\n", what, semel_status_text(status));
    _exit(1);
}

const char *kit_text(int argc, char **argv, const char *name, const char *otherwise)
{
    size_t length = strlen(name);

    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "--", 2) == 0 && strncmp(argv[i] + 2, name, length) == 0 &&
            argv[i][2 + length] == '=')
            return argv[i] + 3 + length;
    return otherwise;
}

double kit_number(int argc, char **argv, const char *name, double otherwise)
{
    const char *text = kit_text(argc, argv, name, NULL);

    return text ? strtod(text, NULL) : otherwise;
}

/* ---- child processes ---- */

struct kit_child kit_fork(void (*body)(int fd, void *user), void *user)
{
    struct kit_child child;
    int pair[2];

    fflush(NULL);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        kit_die("socketpair");
    child.pid = fork();
    if (child.pid < 0)
        kit_die("fork");
    if (child.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(pair[0]);
        body(pair[1], user);
        _exit(0);
    }
    close(pair[1]);
    child.fd = pair[0];
    return child;
}

void kit_send(int fd, uint64_t word)
{
    if (send(fd, &word, sizeof word, MSG_NOSIGNAL) != (ssize_t)sizeof word)
        kit_die("a child process is gone");
}

uint64_t kit_receive(int fd)
{
    uint64_t word;

    if (recv(fd, &word, sizeof word, MSG_WAITALL) != (ssize_t)sizeof word) {
        fprintf(stderr, "bench: the other process is gone\n");
        _exit(1);
    }
    return word;
}

/* A killed server leaves its socket file behind, and the lock file beside it. */
static char socket_files[4][64];

static void remove_socket_files(void)
{
    char lock[sizeof socket_files + 8];

    for (int i = 0; i < 4; i++) {
        if (!socket_files[i][0])
            continue;
        snprintf(lock, sizeof lock, "%s.lock", socket_files[i]);
        (void)unlink(socket_files[i]);
        (void)unlink(lock);
    }
}

const char *kit_address(char *out, size_t size, int number)
{
    char *file = socket_files[number % 4];

    snprintf(file, sizeof socket_files[0], "/tmp/semel-bench.%d.%d", (int)getpid(), number);
    snprintf(out, size, "unix:%s", file);
    atexit(remove_socket_files); /* children leave by _exit */
    return out;
}

static char directory[200];
static pid_t directory_owner;

static void remove_directory(void)
{
    DIR *dir = getpid() == directory_owner ? opendir(directory) : NULL;
    struct dirent *entry;

    if (!dir)
        return;
    while ((entry = readdir(dir)) != NULL)
        (void)unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    (void)rmdir(directory);
}

void kit_directory(const char *path)
{
    if (mkdir(path, 0700) != 0)
        kit_die(path);
    snprintf(directory, sizeof directory, "%s", path);
    directory_owner = getpid();
    atexit(remove_directory);
}

void kit_end(struct kit_child child)
{
    kill(child.pid, SIGKILL);
    waitpid(child.pid, NULL, 0);
    close(child.fd);
}

/* ---- the server ---- */

static uint64_t microseconds(struct semel_request *request)
{
    struct semel_bytes body = semel_request_body(request);
    char text[24] = "";

    memcpy(text, body.data, body.size < sizeof text ? body.size : sizeof text - 1);
    return strtoull(text, NULL, 10);
}

static void on_echo(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    kit_need(semel_request_reply(request, body.data, body.size), "reply");
}

static void on_sleep(struct semel_request *request, void *user)
{
    (void)user;
    kit_sleep_ns(microseconds(request) * 1000);
    kit_need(semel_request_reply(request, NULL, 0), "reply");
}

static uint64_t thread_cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void on_burn(struct semel_request *request, void *user)
{
    uint64_t end = thread_cpu_ns() + microseconds(request) * 1000;

    (void)user;
    while (thread_cpu_ns() < end)
        for (volatile int i = 0; i < 200; i++)
            ;
    kit_need(semel_request_reply(request, NULL, 0), "reply");
}

static void on_hold(struct semel_request *request, void *user)
{
    (void)user;
    semel_request_take(request);
}

uint64_t kit_heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();

    return (uint64_t)info.uordblks + (uint64_t)info.hblkhd;
}

struct place {
    const char *address;
    const struct semel_server_options *options;
};

static void serve(int fd, void *user)
{
    const struct place *place = user;
    struct semel_server *server;
    uint64_t command;

    kit_need(semel_server_create(&server, place->options), "server_create");
    kit_need(semel_server_export(server, "echo", on_echo, NULL, NULL), "export");
    kit_need(semel_server_export(server, "sleep", on_sleep, NULL, NULL), "export");
    kit_need(semel_server_export(server, "burn", on_burn, NULL, NULL), "export");
    kit_need(semel_server_export(server, "hold", on_hold, NULL, NULL), "export");
    kit_need(semel_server_listen(server, place->address), "listen");
    kit_need(semel_server_start(server), "start");
    kit_send(fd, 0);
    while (recv(fd, &command, sizeof command, MSG_WAITALL) == (ssize_t)sizeof command)
        kit_send(fd, kit_heap_bytes());
}

struct kit_child kit_server(const char *address, const struct semel_server_options *options)
{
    struct place place = { address, options };
    struct kit_child child = kit_fork(serve, &place);

    (void)kit_receive(child.fd);
    return child;
}

/* ---- clients ---- */

struct semel_client *kit_client(const char *address, const struct semel_client_options *options)
{
    struct semel_client *client;
    char why[256] = "";

    kit_need(semel_client_create(&client, address, options), "client_create");
    if (semel_client_wait_connected(client, 10000, why, sizeof why) != SEMEL_OK) {
        fprintf(stderr, "bench: not connected: %s\n", why);
        _exit(1);
    }
    return client;
}

static void must_be_value(struct semel_result *result)
{
    char text[512];

    if (result->outcome == SEMEL_VALUE)
        return;
    semel_result_message(result, text, sizeof text);
    fprintf(stderr, "bench: %s\n", text);
    _exit(1);
}

void kit_echo(struct semel_client *client, const void *body, size_t size)
{
    struct semel_result result;

    semel_client_call(client, "echo", semel_bytes(body, size), NULL, &result);
    must_be_value(&result);
    if (result.body.size != size || memcmp(result.body.data, body, size) != 0)
        kit_die("wrong reply");
    semel_result_clear(&result);
}

void kit_value(struct semel_client *client, const char *method, const char *body,
               int64_t deadline_ms)
{
    struct semel_call_options options = SEMEL_CALL_OPTIONS_INIT;
    struct semel_result result;

    options.deadline_ms = deadline_ms;
    semel_client_call(client, method, semel_bytes_text(body), &options, &result);
    must_be_value(&result);
    semel_result_clear(&result);
}

/* ---- what the kernel says ---- */

static uint64_t field(pid_t pid, const char *file, const char *name)
{
    char path[64], line[256];
    unsigned long long value = 0;
    FILE *in;

    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    in = fopen(path, "re");
    if (!in)
        kit_die(path);
    while (fgets(line, sizeof line, in))
        if (strncmp(line, name, strlen(name)) == 0)
            sscanf(line + strlen(name), " %llu", &value);
    fclose(in);
    return value;
}

struct kit_usage kit_usage(pid_t pid)
{
    struct kit_usage usage = { 0 };
    char path[64];
    DIR *dir;

    usage.rss = field(pid, "smaps_rollup", "Rss:") * 1024;
    usage.threads = (unsigned)field(pid, "status", "Threads:");
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    if (!dir)
        kit_die(path);
    while (readdir(dir))
        usage.descriptors++;
    closedir(dir);
    usage.descriptors -= 2; /* "." and ".." */
    return usage;
}

/* ---- samples ---- */

void kit_sample(struct kit_samples *samples, uint64_t ns)
{
    if (samples->count == samples->room) {
        samples->room = samples->room ? samples->room * 2 : 4096;
        samples->ns = realloc(samples->ns, samples->room * sizeof *samples->ns);
        if (!samples->ns)
            kit_die("realloc");
    }
    samples->ns[samples->count++] = ns;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

uint64_t kit_percentile(struct kit_samples *samples, double percent)
{
    size_t at;

    if (samples->count == 0)
        return 0;
    qsort(samples->ns, samples->count, sizeof *samples->ns, ascending);
    at = (size_t)((double)samples->count * percent / 100.0);
    return samples->ns[at < samples->count ? at : samples->count - 1];
}
