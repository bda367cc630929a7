/* SPDX-License-Identifier: MIT */
#include "proc/pool_kit.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- the worker's side ----------------------------------------------------------------------- */

static void reply_text(struct semel_request *request, const char *text)
{
    (void)semel_request_reply(request, text, strlen(text));
}

static long number_of(struct semel_request *request)
{
    struct semel_bytes body = semel_request_body(request);
    char text[32] = "";

    memcpy(text, body.data, body.size < sizeof text ? body.size : sizeof text - 1);
    return strtol(text, NULL, 10);
}

static void reply_number(struct semel_request *request, long number)
{
    char text[32];

    snprintf(text, sizeof text, "%ld", number);
    reply_text(request, text);
}

static void echo(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    (void)semel_request_reply(request, body.data, body.size);
}

static void tell_pid(struct semel_request *request, void *user)
{
    (void)user;
    reply_number(request, getpid());
}

static void square(struct semel_request *request, void *user)
{
    long number = number_of(request);

    (void)user;
    reply_number(request, number * number);
}

static void nap(struct semel_request *request, void *user)
{
    kit_sleep_ms((int)number_of(request));
    echo(request, user);
}

/* The names of a gate: DIRECTORY/inside, DIRECTORY/open. */
struct gate_name {
    char text[96];
};

static struct gate_name name_in(const char *directory, int size, const char *name)
{
    struct gate_name of;

    snprintf(of.text, sizeof of.text, "%.*s/%s", size, directory, name);
    return of;
}

static void make_file(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    if (fd < 0)
        abort();
    close(fd);
}

static void wait_at_gate(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);
    struct gate_name inside = name_in(body.data, (int)body.size, "inside");
    struct gate_name opened = name_in(body.data, (int)body.size, "open");

    make_file(inside.text);
    while (access(opened.text, F_OK) != 0)
        kit_sleep_ms(1);
    echo(request, user);
}

static void end(struct semel_request *request, void *user)
{
    (void)user;
    _exit((int)number_of(request));
}

static void raise_signal(struct semel_request *request, void *user)
{
    (void)user;
    (void)kill(getpid(), (int)number_of(request));
    kit_sleep_ms(60000);
}

static void hang(struct semel_request *request, void *user)
{
    (void)request;
    (void)user;
    for (;;)
        kit_sleep_ms(60000);
}

/* The child has all descriptors of the worker, close-on-exec or not. */
static void leave_child(struct semel_request *request, void *user)
{
    pid_t child = fork();

    if (child == 0)
        hang(request, user);
    reply_number(request, child);
}

static void large(struct semel_request *request, void *user)
{
    size_t size = (size_t)number_of(request);
    char *bytes = malloc(size);

    (void)user;
    memset(bytes, 'x', size);
    if (semel_request_reply(request, bytes, size) == SEMEL_TOO_LARGE)
        (void)semel_request_fail(request, 9, "the result is too large to be sent");
    free(bytes);
}

static void leak(struct semel_request *request, void *user)
{
    size_t size = (size_t)number_of(request);
    static char *volatile kept[4096]; /* volatile: else it may be left out */
    static size_t count;

    (void)user;
    kept[count] = malloc(size);
    memset(kept[count], 1, size);
    count++;
    reply_number(request, getpid());
}

/* The header of a frame: its length, what it is, and a number. */
static const unsigned char lie[16] = { 0xff, 0xff, 0xff, 0x7f, 7 };
static const unsigned char unasked[16] = { 0, 0, 0, 0, 13, 0, 0, 0, 7 };

static void write_badly(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);
    char what = *(const char *)body.data, garbage[4096];
    ssize_t wrote = 0;

    (void)user;
    memset(garbage, 0xa5, sizeof garbage);
    if (what == 'l')
        wrote = write(3, lie, sizeof lie);
    else if (what == 'h')
        wrote = write(3, unasked, 7);
    while (what == 'g' && (wrote = write(3, garbage, sizeof garbage)) > 0)
        ;
    /* The socket does not block: what does not fit is left out. */
    while (what == 'f' && !semel_request_caller_left(request))
        wrote = write(3, unasked, sizeof unasked);
    if (what == 'h')
        _exit((int)wrote);
    hang(request, user);
}

static void close_connection(struct semel_request *request, void *user)
{
    int other[2];

    (void)request;
    (void)user;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, other) != 0)
        abort();
    /* Another socket in the place of each: the server must not meet a descriptor that is closed. */
    for (int fd = 3; fd < 64; fd++) {
        struct stat is;

        if (fd != other[0] && fd != other[1] && fstat(fd, &is) == 0 && S_ISSOCK(is.st_mode))
            (void)dup2(other[0], fd);
    }
    for (;;)
        kit_sleep_ms(60000);
}

static void tell_fds(struct semel_request *request, void *user)
{
    DIR *directory = opendir("/proc/self/fd");
    struct dirent *entry;
    char text[4096] = "";

    (void)user;
    while (directory && (entry = readdir(directory)) != NULL) {
        char path[300], target[256] = "";

        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        if (entry->d_name[0] != '.' && readlink(path, target, sizeof target - 1) > 0)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s=%s\n", entry->d_name,
                     target);
    }
    closedir(directory);
    reply_text(request, text);
}

static void tell_signals(struct semel_request *request, void *user)
{
    struct sigaction pipe, usr1;
    char text[64];

    (void)user;
    (void)sigaction(SIGPIPE, NULL, &pipe);
    (void)sigaction(SIGUSR1, NULL, &usr1);
    snprintf(text, sizeof text, "pipe %s usr1 %s", pipe.sa_handler == SIG_DFL ? "default" : "set",
             usr1.sa_handler == SIG_DFL ? "default" : "set");
    reply_text(request, text);
}

enum semel_status pool_kit_set_up(struct semel_server *server, void *user)
{
    static const struct {
        const char *name;
        semel_handler_fn handler;
    } methods[] = {
        { "echo", echo },
        { "pid", tell_pid },
        { "square", square },
        { "exit", end },
        { "hang", hang },
        { "fork", leave_child },
        { "large", large },
        { "leak", leak },
        { "write", write_badly },
        { "close", close_connection },
        { "raise", raise_signal },
        { "fds", tell_fds },
        { "signals", tell_signals },
    };
    struct semel_method_options again = { .kind = SEMEL_IDEMPOTENT };
    enum semel_status status = semel_server_export(server, "nap", nap, NULL, &again);

    (void)user;
    if (status == SEMEL_OK)
        status = semel_server_export(server, "gate", wait_at_gate, NULL, &again);
    for (size_t i = 0; status == SEMEL_OK && i < sizeof methods / sizeof methods[0]; i++)
        status = semel_server_export(server, methods[i].name, methods[i].handler, NULL, NULL);
    return status;
}

int pool_kit_main(int argc, char **argv)
{
    return semel_worker_main(argc, argv, pool_kit_set_up, NULL);
}

/* --- the pool's side ------------------------------------------------------------------------- */

struct semel_pool *pool_kit_make(const struct semel_pool_options *options)
{
    struct semel_pool *pool;

    assert_int_equal(semel_pool_create(&pool, options), SEMEL_OK);
    return pool;
}

enum semel_outcome pool_kit_call(struct semel_pool *pool, const char *method, const char *body,
                                 struct semel_result *out)
{
    return semel_pool_call(pool, method, semel_bytes_text(body), NULL, out);
}

void pool_kit_text(struct semel_pool *pool, const char *method, const char *body, char *out,
                   size_t room)
{
    struct semel_result result;
    enum semel_outcome outcome = pool_kit_call(pool, method, body, &result);

    if (outcome != SEMEL_VALUE)
        print_error("%s\n", result.text ? result.text : "no words");
    assert_int_equal(outcome, SEMEL_VALUE);
    snprintf(out, room, "%.*s", (int)result.body.size, (const char *)result.body.data);
    semel_result_clear(&result);
}

long pool_kit_number(struct semel_pool *pool, const char *method, const char *body)
{
    char text[32];

    pool_kit_text(pool, method, body, text, sizeof text);
    return strtol(text, NULL, 10);
}

void pool_kit_gate_make(struct pool_kit_gate *gate)
{
    snprintf(gate->directory, sizeof gate->directory, "/tmp/semel-gate-XXXXXX");
    assert_non_null(mkdtemp(gate->directory));
}

static bool somebody_inside(void *arg)
{
    const struct pool_kit_gate *gate = arg;

    return access(name_in(gate->directory, 64, "inside").text, F_OK) == 0;
}

void pool_kit_gate_await(struct pool_kit_gate *gate)
{
    assert_true(kit_eventually(somebody_inside, gate, 60));
}

void pool_kit_gate_open(const struct pool_kit_gate *gate)
{
    make_file(name_in(gate->directory, 64, "open").text);
}

void pool_kit_gate_remove(const struct pool_kit_gate *gate)
{
    (void)unlink(name_in(gate->directory, 64, "inside").text);
    (void)unlink(name_in(gate->directory, 64, "open").text);
    assert_int_equal(rmdir(gate->directory), 0);
}

/* The state letter and the parent of a process; 0: none. */
static char state_of(long pid, long *out_parent)
{
    char path[64], text[512] = "", *at;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    file = fopen(path, "r");
    if (!file)
        return 0;
    at = fgets(text, sizeof text, file) ? strrchr(text, ')') : NULL;
    fclose(file);
    if (!at)
        return 0;
    *out_parent = strtol(at + 4, NULL, 10);
    return at[2];
}

int pool_kit_children(void)
{
    DIR *directory = opendir("/proc");
    struct dirent *entry;
    int count = 0;
    long parent;

    while ((entry = readdir(directory)) != NULL) {
        long pid = strtol(entry->d_name, NULL, 10);

        if (pid > 0 && state_of(pid, &parent) != 0 && parent == getpid())
            count++;
    }
    closedir(directory);
    return count;
}

bool pool_kit_lives(long pid)
{
    long parent;
    char state = state_of(pid, &parent);

    return state != 0 && state != 'Z' && state != 'X';
}

void pool_kit_halt(long pid)
{
    long parent;

    assert_int_equal(kill((pid_t)pid, SIGSTOP), 0);
    while (state_of(pid, &parent) != 'T')
        kit_sleep_ms(1);
    kit_sleep_ms(20); /* its other threads, too */
}

bool pool_kit_all_ready(struct semel_pool *pool)
{
    struct semel_worker_info infos[64];
    size_t count = semel_pool_list(pool, infos, 64);

    for (size_t i = 0; i < count; i++)
        if (infos[i].state != SEMEL_WORKER_READY)
            return false;
    return count > 0;
}

static bool all_ready(void *pool)
{
    return pool_kit_all_ready(pool);
}

void pool_kit_await_ready(struct semel_pool *pool)
{
    assert_true(kit_eventually(all_ready, pool, 60));
}

static struct pool_kit_before count_before(void)
{
    struct pool_kit_before before = { kit_count_fds(), kit_count_threads() };

    assert_int_equal(pool_kit_children(), 0);
    return before;
}

static void *do_nothing(void *arg)
{
    return arg;
}

struct pool_kit_before pool_kit_before(void)
{
    pthread_t thread; /* with the first one a sanitizer starts one of its own */

    assert_int_equal(pthread_create(&thread, NULL, do_nothing, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return count_before();
}

void pool_kit_check_clean(struct pool_kit_before before)
{
    assert_int_equal(pool_kit_children(), 0);
    assert_true(kit_settled(before.fds, before.threads));
}
