/* SPDX-License-Identifier: MIT */
/* pool.c - what a call in a worker process costs.
 *   --mode=trip --secs=S --size=BYTES --workers=N --pin=none|same|cross
 *       Round trips by one caller, in turns of some milliseconds each: a call of a warm worker of a
 *       pool, the same as a task that a loop tells of, a call of the same method by a plain client
 *       over a socketpair, and a bare write and read over a socketpair with another process, with
 *       and without an epoll set to wait in, all with bodies of that size. Nobody spins. Prints the
 *       medians and their ratios.
 *   --mode=many --secs=S --threads=N --workers=N --calls=N
 *       Threads call an echo in the workers' processes. Prints calls per second.
 *   --mode=death --samples=N
 *       Kills a worker that has a call. Prints how long after the kill the call had ended, and how
 *       long after that another one was served. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kit.h"

#define TURN_NS 4000000
#define WARM_TRIPS 16

static void pin(int core)
{
    cpu_set_t set;

    if (core < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        kit_die("sched_setaffinity");
}

/* ---- the worker ---- */

static void echo(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    (void)semel_request_reply(request, body.data, body.size);
}

static void tell_pid(struct semel_request *request, void *user)
{
    pid_t pid = getpid();

    (void)user;
    (void)semel_request_reply(request, &pid, sizeof pid);
}

static void hang(struct semel_request *request, void *user)
{
    (void)user;
    while (!semel_request_caller_left(request))
        kit_sleep_ns(1000000);
}

static enum semel_status set_up(struct semel_server *server, void *user)
{
    enum semel_status status = semel_server_export(server, "echo", echo, NULL, NULL);

    (void)user;
    if (status == SEMEL_OK)
        status = semel_task_export(server, "task", echo, NULL, NULL);
    if (status == SEMEL_OK)
        status = semel_server_export(server, "pid", tell_pid, NULL, NULL);
    return status == SEMEL_OK ? semel_server_export(server, "hang", hang, NULL, NULL) : status;
}

/* ---- one caller ---- */

static void echo_bare(int fd, void *user)
{
    size_t size = *(size_t *)user;
    char *bytes = malloc(size);

    while (recv(fd, bytes, size, MSG_WAITALL) == (ssize_t)size)
        if (send(fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size)
            break;
    free(bytes);
}

/* `epoll`: wait there, as a loop must, unless it is -1. */
static void trip_bare(int fd, int epoll, const char *body, char *reply, size_t size)
{
    struct epoll_event event;

    if (send(fd, body, size, MSG_NOSIGNAL) != (ssize_t)size ||
        (epoll >= 0 && epoll_wait(epoll, &event, 1, -1) != 1) ||
        recv(fd, reply, size, MSG_WAITALL) != (ssize_t)size || memcmp(body, reply, size) != 0)
        kit_die("bare echo");
}

static void check(enum semel_outcome outcome, struct semel_result *result, const char *body,
                  size_t size)
{
    if (outcome != SEMEL_VALUE || result->body.size != size ||
        memcmp(result->body.data, body, size) != 0)
        kit_die(result->text ? result->text : "another body came back");
    semel_result_clear(result);
}

struct trips {
    int fd, epoll;
    struct semel_client *client;
    struct semel_pool *pool;
    char *body, *reply;
    size_t size;
    struct kit_samples bare, watched, plain, pooled, tasks;
    struct semel_loop *loop;
    struct semel_executor *executor;
    uint64_t began, until; /* of a task; of tasks in this turn */
    unsigned tasks_done;   /* in this turn */
};

enum how { BARE, WATCHED, PLAIN, POOLED };

static void submit(struct trips *trips);

/* What came back is looked at, and the next one goes out from here, as from any callback. */
static void on_change(struct semel_future *future, unsigned changes, void *user)
{
    const struct semel_result *result = semel_future_result(future);
    struct trips *trips = user;
    uint64_t now;

    if (!(changes & SEMEL_CHANGED_DONE))
        return;
    if (result == NULL || result->body.size != trips->size ||
        memcmp(result->body.data, trips->body, trips->size) != 0)
        kit_die("task");
    now = kit_now_ns();
    if (trips->tasks_done++ >= WARM_TRIPS)
        kit_sample(&trips->tasks, now - trips->began);
    if (now < trips->until)
        submit(trips);
    else
        semel_loop_stop(trips->loop);
}

static void submit(struct trips *trips)
{
    struct semel_task_options options = { .on_change = on_change, .user = trips };

    for (size_t i = 0; i < trips->size; i++)
        trips->body[i]++;
    trips->began = kit_now_ns();
    kit_need(semel_executor_submit(trips->executor, "task", semel_bytes(trips->body, trips->size),
                                   &options, NULL),
             "submit");
}

/* Tasks, one after the other, each from its submission until the loop has told of its end. */
static void turn_of_tasks(struct trips *trips)
{
    trips->until = kit_now_ns() + TURN_NS;
    trips->tasks_done = 0;
    submit(trips);
    kit_need(semel_loop_run(trips->loop), "loop_run");
}

static void make_executor(struct trips *trips)
{
    struct semel_executor_options options = { .pool = trips->pool };

    kit_need(semel_loop_create(&trips->loop, NULL), "loop_create");
    kit_need(semel_executor_create(&trips->executor, trips->loop, &options), "executor_create");
}

static uint64_t trip(struct trips *trips, enum how how)
{
    struct semel_bytes body = semel_bytes(trips->body, trips->size);
    struct semel_result result;
    uint64_t began;

    for (size_t i = 0; i < trips->size; i++)
        trips->body[i]++;
    began = kit_now_ns();
    if (how == BARE || how == WATCHED)
        trip_bare(trips->fd, how == BARE ? -1 : trips->epoll, trips->body, trips->reply,
                  trips->size);
    else if (how == PLAIN)
        check(semel_client_call(trips->client, "echo", body, NULL, &result), &result, trips->body,
              trips->size);
    else
        check(semel_pool_call(trips->pool, "echo", body, NULL, &result), &result, trips->body,
              trips->size);
    return kit_now_ns() - began;
}

/* Some milliseconds of one kind; the first ones do not count, its caches are cold. */
static void turn(struct trips *trips, enum how how, struct kit_samples *samples)
{
    uint64_t until = kit_now_ns() + TURN_NS;

    for (int i = 0; kit_now_ns() < until; i++) {
        uint64_t ns = trip(trips, how);

        if (i >= WARM_TRIPS)
            kit_sample(samples, ns);
    }
}

static int watch(int fd)
{
    struct epoll_event event = { .events = EPOLLIN };
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        kit_die("epoll");
    return epoll;
}

static void serve_plain(int fd, void *user)
{
    struct semel_server_options options = { .workers = 1 };
    struct semel_server *server;
    char address[24];

    (void)user;
    snprintf(address, sizeof address, "fd:%d", fd);
    kit_need(semel_server_create(&server, &options), "server_create");
    kit_need(set_up(server, NULL), "set_up");
    kit_need(semel_server_listen(server, address), "listen");
    kit_need(semel_server_start(server), "start");
    (void)semel_server_wait(server, -1, NULL);
}

static struct semel_pool *make_pool(int argc, char **argv, double workers)
{
    struct semel_pool_options options = {
        .workers = (uint32_t)kit_number(argc, argv, "workers", workers),
        .calls_per_worker = (uint32_t)kit_number(argc, argv, "calls", 1),
    };
    struct semel_pool *pool;

    kit_need(semel_pool_create(&pool, &options), "pool_create");
    return pool;
}

static int run_trips(int argc, char **argv)
{
    uint64_t until, secs = (uint64_t)(kit_number(argc, argv, "secs", 2) * 1e9);
    const char *where = kit_text(argc, argv, "pin", "none");
    bool pinned = strcmp(where, "none") != 0;
    size_t size = (size_t)kit_number(argc, argv, "size", 64);
    struct trips trips = { .size = size, .body = calloc(1, size), .reply = malloc(size) };
    struct kit_child bare, plain;
    uint64_t b, w, c, p, t;
    char address[24];

    if (pinned)
        pin(strcmp(where, "same") == 0 ? 0 : 1);
    bare = kit_fork(echo_bare, &size);
    plain = kit_fork(serve_plain, NULL);
    trips.fd = bare.fd;
    trips.epoll = watch(bare.fd);
    trips.pool = make_pool(argc, argv, 1);
    make_executor(&trips);
    snprintf(address, sizeof address, "fd:%d", dup(plain.fd));
    kit_need(semel_client_create(&trips.client, address, NULL), "client_create");
    if (pinned)
        pin(0);
    for (int i = 0; i < 300; i++) {
        (void)trip(&trips, BARE);
        (void)trip(&trips, WATCHED);
        (void)trip(&trips, PLAIN);
        (void)trip(&trips, POOLED);
    }
    turn_of_tasks(&trips);
    trips.tasks.count = 0;
    until = kit_now_ns() + secs;
    while (kit_now_ns() < until) {
        turn(&trips, BARE, &trips.bare);
        turn(&trips, WATCHED, &trips.watched);
        turn(&trips, PLAIN, &trips.plain);
        turn(&trips, POOLED, &trips.pooled);
        turn_of_tasks(&trips);
    }
    b = kit_percentile(&trips.bare, 50);
    w = kit_percentile(&trips.watched, 50);
    c = kit_percentile(&trips.plain, 50);
    p = kit_percentile(&trips.pooled, 50);
    t = kit_percentile(&trips.tasks, 50);
    printf("figure=pool mode=trip pin=%s size=%zu bare_ns=%llu watched_ns=%llu client_ns=%llu "
           "pool_ns=%llu ratio=%.3f over_client=%.3f task_ns=%llu task_ratio=%.3f "
           "task_over_watched=%.3f\n",
           where, size, (unsigned long long)b, (unsigned long long)w, (unsigned long long)c,
           (unsigned long long)p, (double)p / (double)b, (double)p / (double)c,
           (unsigned long long)t, (double)t / (double)b, (double)t / (double)w);
    fflush(stdout);
    kit_need(semel_executor_destroy(trips.executor), "executor_destroy");
    kit_need(semel_pool_destroy(trips.pool), "pool_destroy");
    _exit(0);
}

/* ---- many callers ---- */

struct caller {
    pthread_t thread;
    struct semel_pool *pool;
    _Atomic bool *over;
    uint64_t calls;
};

static void *call_on(void *arg)
{
    struct caller *self = arg;
    char body[64] = "";

    while (!atomic_load_explicit(self->over, memory_order_relaxed)) {
        struct semel_result result;

        memcpy(body, &self->calls, sizeof self->calls);
        check(semel_pool_call(self->pool, "echo", semel_bytes(body, sizeof body), NULL, &result),
              &result, body, sizeof body);
        self->calls++;
    }
    return NULL;
}

static int run_many(int argc, char **argv)
{
    unsigned threads = (unsigned)kit_number(argc, argv, "threads", 64);
    double secs = kit_number(argc, argv, "secs", 2), calls = 0;
    struct caller *callers = calloc(threads, sizeof *callers);
    struct semel_pool *pool = make_pool(argc, argv, 2);
    _Atomic bool over;
    uint64_t began;

    atomic_init(&over, false);
    kit_sleep_ns(200000000);
    began = kit_now_ns();
    for (unsigned i = 0; i < threads; i++) {
        callers[i] = (struct caller){ .pool = pool, .over = &over };
        if (pthread_create(&callers[i].thread, NULL, call_on, &callers[i]))
            kit_die("pthread_create");
    }
    kit_sleep_ns((uint64_t)(secs * 1e9));
    atomic_store(&over, true);
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(callers[i].thread, NULL);
        calls += (double)callers[i].calls;
    }
    printf("figure=pool mode=many threads=%u calls=%.0f rate=%.0f\n", threads,
           kit_number(argc, argv, "calls", 1), calls / ((double)(kit_now_ns() - began) / 1e9));
    kit_need(semel_pool_destroy(pool), "pool_destroy");
    free(callers);
    return 0;
}

/* ---- deaths ---- */

static void *call_hang(void *pool)
{
    struct semel_result result;

    if (semel_pool_call(pool, "hang", semel_bytes(NULL, 0), NULL, &result) != SEMEL_UNKNOWN)
        kit_die("it did not end as unknown");
    semel_result_clear(&result);
    return NULL;
}

static pid_t ask_pid(struct semel_pool *pool)
{
    struct semel_result result;
    pid_t pid;

    if (semel_pool_call(pool, "pid", semel_bytes(NULL, 0), NULL, &result) != SEMEL_VALUE)
        kit_die(result.text);
    memcpy(&pid, result.body.data, sizeof pid);
    semel_result_clear(&result);
    return pid;
}

static int run_deaths(int argc, char **argv)
{
    int samples = (int)kit_number(argc, argv, "samples", 200);
    struct semel_pool *pool = make_pool(argc, argv, 1);
    struct kit_samples ended = { 0 }, served = { 0 };
    pthread_t thread;

    for (int i = 0; i < samples; i++) {
        pid_t pid = ask_pid(pool);
        uint64_t began, end;

        if (pthread_create(&thread, NULL, call_hang, pool))
            kit_die("pthread_create");
        kit_sleep_ns(5000000);
        began = kit_now_ns();
        (void)kill(pid, SIGKILL);
        pthread_join(thread, NULL);
        end = kit_now_ns();
        kit_sample(&ended, end - began);
        (void)ask_pid(pool);
        kit_sample(&served, kit_now_ns() - end);
    }
    printf("figure=pool mode=death ended_us=%.0f ended_p99_us=%.0f served_us=%.0f\n",
           (double)kit_percentile(&ended, 50) / 1e3, (double)kit_percentile(&ended, 99) / 1e3,
           (double)kit_percentile(&served, 50) / 1e3);
    kit_need(semel_pool_destroy(pool), "pool_destroy");
    return 0;
}

int main(int argc, char **argv)
{
    int code = semel_worker_main(argc, argv, set_up, NULL);
    const char *mode;

    if (code >= 0)
        return code;
    mode = kit_text(argc, argv, "mode", "trip");
    if (strcmp(mode, "many") == 0)
        return run_many(argc, argv);
    if (strcmp(mode, "death") == 0)
        return run_deaths(argc, argv);
    return run_trips(argc, argv);
}
