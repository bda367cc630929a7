/* SPDX-License-Identifier: MIT */
/* demo_client.c - demo_client ADDRESS NUMBER THREADS SECONDS LEDGER COUNTERS
 *
 * THREADS threads call one server through one client, until SECONDS have passed; then each lets
 * its last call end. Every call gets a name, which travels as its content type. The ledger has a
 * line before each call and one after it. The counters go to COUNTERS, as a JSON line, twice a
 * second and at the end. */
#include <inttypes.h>
#include <pthread.h>
#include <time.h>

#include <semel/semel.h>

#include "ledger.h"

#define BODY_MAX 8388608
#define DEADLINE_MS 120000

static struct {
    struct semel_client *client;
    int ledger;
    unsigned number, threads, running; /* running: lock */
    int64_t end_ns;
    pthread_mutex_t lock;
} demo = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* What to call next. */
struct plan {
    const char *method;
    size_t size;
};

/* Of 1,000 calls: 620 fast, 200 echoes, 120 failing, 50 slow, 10 large echoes. */
static struct plan plan_next(uint64_t chance)
{
    unsigned kind = (unsigned)(chance % 1000);
    uint64_t size = chance >> 20;

    if (kind < 620)
        return (struct plan){ "fast", kind % 10 ? size % 4097 : 0 };
    if (kind < 820)
        return (struct plan){ "echo", kind % 10 ? size % 65537 : 0 };
    if (kind < 940)
        return (struct plan){ "failing", size % 1025 };
    if (kind < 990)
        return (struct plan){ "slow", size % 257 };
    return (struct plan){ "echo", kind % 10 < 3 ? BODY_MAX : size % BODY_MAX };
}

static void fill(char *body, size_t size, uint64_t seed)
{
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = ledger_mix(seed += UINT64_C(0x9e3779b97f4a7c15));

        memcpy(body + at, &word, 8);
    }
}

static void call_once(const struct plan *plan, const char *name, const char *body)
{
    struct semel_call_options options = SEMEL_CALL_OPTIONS_INIT;
    struct semel_result result;
    struct semel_bytes reply;

    options.content_type = name;
    options.deadline_ms = DEADLINE_MS;
    ledger_line(demo.ledger, "S %s %s %zu %" PRIx64 "\n", name, plan->method, plan->size,
                ledger_hash(body, plan->size));
    semel_client_call(demo.client, plan->method, semel_bytes(body, plan->size), &options, &result);
    reply = result.outcome == SEMEL_FAILURE ? semel_bytes_text(result.text) : result.body;
    ledger_line(demo.ledger, "D %s %c %d %zu %" PRIx64 "\n", name, "VFNU"[result.outcome],
                result.outcome == SEMEL_FAILURE ? result.code : 0, reply.size,
                ledger_hash(reply.data, reply.size));
    if (result.outcome != SEMEL_VALUE && result.outcome != SEMEL_FAILURE) {
        char text[1024];

        semel_result_message(&result, text, sizeof text);
        fprintf(stderr, "demo_client %u: %s\n", demo.number, text);
    }
    semel_result_clear(&result);
}

static void *run(void *user)
{
    unsigned thread = (unsigned)(uintptr_t)user;
    uint64_t chance = ledger_mix((uint64_t)demo.number << 32 | thread);
    char *body = malloc(BODY_MAX + 8), name[64];

    for (unsigned i = 1; body && now_ns() < demo.end_ns; i++) {
        struct plan plan;

        chance = ledger_mix(chance + i);
        plan = plan_next(chance);
        fill(body, plan.size, chance);
        snprintf(name, sizeof name, "%u.%u.%u", demo.number, thread, i);
        call_once(&plan, name, body);
    }
    if (!body)
        fprintf(stderr, "demo_client %u: out of memory\n", demo.number);
    free(body);
    pthread_mutex_lock(&demo.lock);
    demo.running--;
    pthread_mutex_unlock(&demo.lock);
    return NULL;
}

static void write_counters(const char *path)
{
    struct semel_client_counters c;
    char fresh[4096];
    FILE *file;

    snprintf(fresh, sizeof fresh, "%s.new", path);
    file = fopen(fresh, "w");
    if (!file) {
        perror(fresh);
        exit(1);
    }
    semel_client_counters(demo.client, &c);
    fprintf(file,
            "{\"calls\":%" PRIu64 ",\"completed\":%" PRIu64
            ",\"threads\":%u,\"links_lost\":%" PRIu64 ",\"links_lost_mid_frame\":%" PRIu64
            ",\"reconnects\":%" PRIu64 ",\"calls_resent\":%" PRIu64 ",\"calls_reattached\":%" PRIu64
            ",\"replies_replayed\":%" PRIu64 ",\"sessions_lost\":%" PRIu64
            ",\"protocol_errors\":%" PRIu64 "}\n",
            c.calls_started, c.calls_completed, demo.threads, c.links_lost, c.links_lost_mid_frame,
            c.reconnects, c.calls_resent, c.calls_reattached, c.replies_replayed, c.sessions_lost,
            c.protocol_errors);
    if (fclose(file) != 0 || rename(fresh, path) != 0) {
        perror(path);
        exit(1);
    }
}

static bool running(void)
{
    bool some;

    pthread_mutex_lock(&demo.lock);
    some = demo.running > 0;
    pthread_mutex_unlock(&demo.lock);
    return some;
}

static void print_log(enum semel_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == SEMEL_LOG_ERROR)
        fprintf(stderr, "demo_client %u: %s\n", demo.number, text);
}

/* Start the threads and wait for them. False: not all could be started. */
static bool run_threads(const char *counters)
{
    pthread_t *threads = calloc(demo.threads, sizeof *threads);
    const struct timespec pause = { 0, 500000000 };
    unsigned started = 0;

    demo.running = threads ? demo.threads : 0;
    while (threads && started < demo.threads &&
           pthread_create(&threads[started], NULL, run, (void *)(uintptr_t)(started + 1)) == 0)
        started++;
    pthread_mutex_lock(&demo.lock);
    demo.running -= demo.running ? demo.threads - started : 0;
    pthread_mutex_unlock(&demo.lock);
    while (running()) {
        nanosleep(&pause, NULL);
        write_counters(counters);
    }
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    write_counters(counters);
    free(threads);
    return started == demo.threads;
}

int main(int argc, char **argv)
{
    struct semel_client_options options = SEMEL_CLIENT_OPTIONS_INIT;
    enum semel_status status;
    bool good;

    if (argc != 7) {
        fprintf(stderr, "Usage: demo_client ADDRESS NUMBER THREADS SECONDS LEDGER COUNTERS\n");
        return 2;
    }
    demo.number = (unsigned)strtoul(argv[2], NULL, 10);
    demo.threads = (unsigned)strtoul(argv[3], NULL, 10);
    demo.end_ns = now_ns() + strtol(argv[4], NULL, 10) * 1000000000;
    demo.ledger = ledger_open(argv[5]);
    options.log = print_log;
    status = semel_client_create(&demo.client, argv[1], &options);
    if (status != SEMEL_OK) {
        fprintf(stderr, "demo_client: %s: %s\n", argv[1], semel_status_text(status));
        return 1;
    }
    good = run_threads(argv[6]);
    if (semel_client_destroy(demo.client) != SEMEL_OK)
        good = false;
    close(demo.ledger);
    return good ? 0 : 1;
}
