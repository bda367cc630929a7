/* SPDX-License-Identifier: MIT */
/* durable.c - calls to a server that writes them down before it answers.
 *   --method=add|once|memory --mode=threads|async|sync|wake --n=N --secs=S --warm=S --dir=DIR
 *   --pin=none|same|cross
 * add      transactional: its handler updates a row of the store's database
 * once     recorded before it begins and when it has ended
 * memory   the same without a store
 * threads: n blocking callers of one client; async: n calls in flight; sync: one caller. The
 * database lies in DIR, which must be on the disk that is meant. Prints calls per second, the
 * median duration of a call, and how many calls went into one commit. Pinned: client and server on
 * one core, or on a core each.
 *
 * wake: no call at all, but what a call pays for each thread beyond those of a round trip. One
 * thread waits on a condition variable while another one syncs a file; then it is signalled. Timed
 * is from the signal to the first instruction of the one that was woken, which has slept for as
 * long as a sync takes. Prints the median, that of the syncs, and how many of the wakes, in
 * percent, went to another core: they take several times as long. Pinned, both are where a server
 * would be. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <semel/sqlite.h>

#include "kit.h"

#define BODY_BYTES 64

struct setup {
    char address[64];
    char database[200];
    const char *method;
    uint32_t window;
    const char *pin;
};

static void pin(const struct setup *setup, bool server)
{
    cpu_set_t set;

    if (strcmp(setup->pin, "none") == 0)
        return;
    CPU_ZERO(&set);
    CPU_SET(server && strcmp(setup->pin, "cross") == 0 ? 1 : 0, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        kit_die("sched_setaffinity");
}

/* --- the server ------------------------------------------------------------------------------ */

static void once(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    kit_need(semel_request_reply(request, body.data, body.size), "reply");
}

static void add(struct semel_request *request, struct semel_store *store, void *user)
{
    static sqlite3_stmt *update;
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    if (!update && sqlite3_prepare_v3(semel_sqlite_handle(store),
                                      "UPDATE account SET balance = balance + 1 WHERE id = 1", -1,
                                      SQLITE_PREPARE_PERSISTENT, &update, NULL) != SQLITE_OK)
        kit_die(sqlite3_errmsg(semel_sqlite_handle(store)));
    if (sqlite3_step(update) != SQLITE_DONE)
        kit_die(sqlite3_errmsg(semel_sqlite_handle(store)));
    sqlite3_reset(update);
    kit_need(semel_request_reply(request, body.data, body.size), "reply");
}

static struct semel_store *open_store(const struct setup *setup)
{
    struct semel_store *store;
    sqlite3 *db;
    char why[300];

    if (sqlite3_open(setup->database, &db) != SQLITE_OK ||
        sqlite3_exec(db,
                     "PRAGMA journal_mode=WAL; CREATE TABLE account (id INTEGER PRIMARY KEY, "
                     "balance INTEGER); INSERT INTO account VALUES (1, 0)",
                     NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_close(db) != SQLITE_OK)
        kit_die(setup->database);
    if (semel_sqlite_open(&store, setup->database, NULL, why, sizeof why) != SEMEL_OK)
        kit_die(why);
    return store;
}

/* Any word is answered with the commits and the calls recorded so far. */
static void serve(int fd, void *user)
{
    const struct setup *setup = user;
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    bool durable = strcmp(setup->method, "memory") != 0;
    struct semel_server_counters counters;
    struct semel_server *server;
    uint64_t command;

    pin(setup, true);
    options.window_calls = setup->window;
    options.backlog = 2 * setup->window > SEMEL_BACKLOG_CALLS ? 2 * setup->window : 0;
    if (durable)
        options.store = open_store(setup);
    kit_need(semel_server_create(&server, &options), "server_create");
    kit_need(semel_server_export(server, durable ? "once" : "memory", once, NULL, NULL), "export");
    if (durable)
        kit_need(semel_server_export_transactional(server, "add", add, NULL, NULL), "export");
    kit_need(semel_server_listen(server, setup->address), "listen");
    kit_need(semel_server_start(server), "start");
    kit_send(fd, 0);
    while (recv(fd, &command, sizeof command, MSG_WAITALL) == (ssize_t)sizeof command) {
        semel_server_counters(server, &counters);
        kit_send(fd, counters.commits);
    }
}

/* --- the callers ------------------------------------------------------------------------------ */

static struct semel_client *client;
static const char *method;
static atomic_bool stop;
static atomic_ullong calls;
static char body[BODY_BYTES];
static sem_t ended;

static void *caller(void *user)
{
    struct kit_samples *samples = user;

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        struct semel_result result;
        uint64_t began = kit_now_ns();

        if (semel_client_call(client, method, semel_bytes(body, sizeof body), NULL, &result) !=
            SEMEL_VALUE)
            kit_die(result.text);
        kit_sample(samples, kit_now_ns() - began);
        semel_result_clear(&result);
        atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    }
    return NULL;
}

static void begin(void);

static void completed(struct semel_result *result, void *user)
{
    (void)user;
    if (result->outcome != SEMEL_VALUE)
        kit_die(result->text);
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    if (atomic_load_explicit(&stop, memory_order_relaxed))
        sem_post(&ended);
    else
        begin();
}

static void begin(void)
{
    kit_need(semel_client_start(client, method, semel_bytes(body, sizeof body), NULL, completed,
                                NULL, NULL),
             "start");
}

/* --- a wake ----------------------------------------------------------------------------------- */

#define RECORD_BYTES 4096
#define RECORDS 256

static struct {
    pthread_mutex_t lock;
    pthread_cond_t signal;
    uint64_t at; /* when it was signalled; 0: not yet */
    int core;    /* where */
    bool over;
    size_t crossed;
    struct kit_samples woken;
} wake = { .lock = PTHREAD_MUTEX_INITIALIZER, .signal = PTHREAD_COND_INITIALIZER };

static void *sleeper(void *user)
{
    pthread_mutex_lock(&wake.lock);
    while (!wake.over) {
        if (wake.at != 0) {
            kit_sample(&wake.woken, kit_now_ns() - wake.at);
            wake.crossed += sched_getcpu() != wake.core;
        }
        wake.at = 0;
        pthread_cond_wait(&wake.signal, &wake.lock);
    }
    pthread_mutex_unlock(&wake.lock);
    return user;
}

/* Signalled after the lock is released, or the woken thread would run into it. */
static void wake_up(bool over)
{
    pthread_mutex_lock(&wake.lock);
    wake.core = sched_getcpu();
    wake.at = kit_now_ns();
    wake.over = over;
    pthread_mutex_unlock(&wake.lock);
    pthread_cond_signal(&wake.signal);
}

/* A file that is written already, so that a sync changes its contents and nothing else. */
static int prepare_file(const char *directory)
{
    static const char record[RECORD_BYTES];
    char path[200];
    int fd;

    snprintf(path, sizeof path, "%s/file", directory);
    fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        kit_die(path);
    for (int i = 0; i < RECORDS; i++)
        if (write(fd, record, sizeof record) != (ssize_t)sizeof record)
            kit_die(path);
    if (fsync(fd) != 0)
        kit_die(path);
    return fd;
}

static int measure_wakes(const char *directory, double secs)
{
    static const char record[64] = "a record";
    struct kit_samples synced = { NULL, 0, 0 };
    int fd = prepare_file(directory);
    uint64_t end = kit_now_ns() + (uint64_t)(secs * 1e9);
    pthread_t thread;

    if (pthread_create(&thread, NULL, sleeper, NULL))
        kit_die("pthread_create");
    for (off_t i = 0; kit_now_ns() < end; i = (i + 1) % RECORDS) {
        uint64_t began = kit_now_ns();

        if (pwrite(fd, record, sizeof record, i * RECORD_BYTES) != (ssize_t)sizeof record ||
            fdatasync(fd) != 0)
            kit_die("fdatasync");
        kit_sample(&synced, kit_now_ns() - began);
        wake_up(false);
    }
    wake_up(true);
    pthread_join(thread, NULL);
    close(fd);
    printf("wakes=%zu crossed=%.0f p50_us=%.1f sync_us=%.1f\n", wake.woken.count,
           100.0 * (double)wake.crossed / (double)wake.woken.count,
           (double)kit_percentile(&wake.woken, 50) / 1e3,
           (double)kit_percentile(&synced, 50) / 1e3);
    return 0;
}

int main(int argc, char **argv)
{
    const char *mode = kit_text(argc, argv, "mode", "threads");
    bool async = strcmp(mode, "async") == 0;
    bool many = async || strcmp(mode, "threads") == 0;
    int n = many ? (int)kit_number(argc, argv, "n", 64) : 1;
    double secs = kit_number(argc, argv, "secs", 1);
    struct semel_client_options options = SEMEL_CLIENT_OPTIONS_INIT;
    pthread_t *threads = calloc((size_t)n, sizeof *threads);
    struct kit_samples *samples = calloc((size_t)n, sizeof *samples);
    struct setup setup = { .method = kit_text(argc, argv, "method", "add"),
                           .pin = kit_text(argc, argv, "pin", "none") };
    char directory[160];
    struct kit_child server;
    unsigned long long made, commits;
    uint64_t began;
    double rate;

    snprintf(directory, sizeof directory, "%s/semel-durable.%d", kit_text(argc, argv, "dir", "."),
             (int)getpid());
    kit_directory(directory);
    printf("figure=durable method=%s mode=%s n=%d pin=%s ", setup.method, mode, n, setup.pin);
    if (strcmp(mode, "wake") == 0) {
        pin(&setup, true);
        return measure_wakes(directory, secs);
    }
    snprintf(setup.database, sizeof setup.database, "%s/db", directory);
    kit_address(setup.address, sizeof setup.address, 0);
    setup.window = options.window_calls = async && n > 1024 ? (uint32_t)n : 0;
    options.pending_calls = async ? 2 * (uint32_t)n : 0;
    method = setup.method;
    server = kit_fork(serve, &setup);
    (void)kit_receive(server.fd);
    pin(&setup, false);
    client = kit_client(setup.address, &options);
    sem_init(&ended, 0, 0);
    for (int i = 0; i < n; i++) {
        if (async)
            begin();
        else if (pthread_create(&threads[i], NULL, caller, &samples[i]))
            kit_die("pthread_create");
    }
    kit_sleep_ns((uint64_t)(kit_number(argc, argv, "warm", 0.3) * 1e9));
    kit_send(server.fd, 1);
    commits = kit_receive(server.fd);
    made = atomic_load(&calls);
    began = kit_now_ns();
    kit_sleep_ns((uint64_t)(secs * 1e9));
    made = atomic_load(&calls) - made;
    kit_send(server.fd, 1);
    commits = kit_receive(server.fd) - commits;
    rate = (double)made / ((double)(kit_now_ns() - began) / 1e9);
    atomic_store(&stop, true);
    for (int i = 0; i < n; i++) {
        if (async)
            sem_wait(&ended);
        else
            pthread_join(threads[i], NULL);
    }
    printf("calls=%llu cps=%.0f p50_us=%.1f per_commit=%.1f\n", made, rate,
           async ? 0 : (double)kit_percentile(&samples[0], 50) / 1e3,
           commits ? (double)made / (double)commits : 0);
    kit_need(semel_client_destroy(client), "client_destroy");
    kit_end(server);
    return 0;
}
