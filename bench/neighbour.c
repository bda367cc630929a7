/* SPDX-License-Identifier: MIT */
/* neighbour.c - does one long call delay the calls beside it?
 *   --method=sleep|burn --ms=N (0: the baseline, without a long call) --secs=S
 * One client. Four blocking threads make short calls at a moderate pace for the whole time. After
 * a moment one thread starts, back to back, 32 short calls, the long one and 32 short calls more:
 * one batch, the case in which the thread that reads may have begun the long handler itself.
 * Prints the largest latency of any short call, and percentiles. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "kit.h"

enum { THREADS = 4, BATCH = 32, PACE_NS = 500 * 1000 };

struct run {
    struct semel_client *client;
    uint64_t end_ns;
    struct kit_samples samples[THREADS + 1];
    atomic_int open; /* started calls not yet completed */
};

struct short_call {
    struct run *run;
    uint64_t began;
};

struct pacer {
    struct run *run;
    struct kit_samples *samples;
};

static void *pace(void *user)
{
    struct pacer *pacer = user;
    uint64_t began;

    while ((began = kit_now_ns()) < pacer->run->end_ns) {
        kit_echo(pacer->run->client, "neighbour", 9);
        kit_sample(pacer->samples, kit_now_ns() - began);
        kit_sleep_ns(PACE_NS);
    }
    return NULL;
}

static void short_done(struct semel_result *result, void *user)
{
    struct short_call *call = user;

    if (result->outcome != SEMEL_VALUE)
        kit_die("a short call failed");
    kit_sample(&call->run->samples[THREADS], kit_now_ns() - call->began);
    atomic_fetch_sub(&call->run->open, 1);
}

static void long_done(struct semel_result *result, void *user)
{
    struct run *run = user;

    if (result->outcome != SEMEL_VALUE)
        kit_die("the long call failed");
    atomic_fetch_sub(&run->open, 1);
}

static void start_batch(struct run *run, struct short_call *calls)
{
    for (int i = 0; i < BATCH; i++) {
        calls[i] = (struct short_call){ run, kit_now_ns() };
        atomic_fetch_add(&run->open, 1);
        kit_need(semel_client_start(run->client, "echo", semel_bytes("neighbour", 9), NULL,
                                    short_done, &calls[i], NULL),
                 "start");
    }
}

int main(int argc, char **argv)
{
    const char *method = kit_text(argc, argv, "method", "sleep");
    double ms = kit_number(argc, argv, "ms", 10000), secs = kit_number(argc, argv, "secs", 10.5);
    struct semel_call_options patient = SEMEL_CALL_OPTIONS_INIT;
    static struct short_call before[BATCH], after[BATCH];
    static struct run run;
    struct pacer pacers[THREADS];
    pthread_t threads[THREADS];
    struct kit_samples all = { 0 };
    struct kit_child server;
    char address[64], body[24];

    patient.deadline_ms = 600000;
    snprintf(body, sizeof body, "%.0f", ms * 1000);
    server = kit_server(kit_address(address, sizeof address, 0), NULL);
    run.client = kit_client(address, NULL);
    for (int i = 0; i < 1000; i++)
        kit_echo(run.client, "warm", 4);
    run.end_ns = kit_now_ns() + (uint64_t)(secs * 1e9);
    for (int i = 0; i < THREADS; i++) {
        pacers[i] = (struct pacer){ &run, &run.samples[i] };
        if (pthread_create(&threads[i], NULL, pace, &pacers[i]))
            kit_die("pthread_create");
    }
    kit_sleep_ns(200 * 1000 * 1000);
    start_batch(&run, before);
    if (ms > 0) {
        atomic_fetch_add(&run.open, 1);
        kit_need(semel_client_start(run.client, method, semel_bytes_text(body), &patient, long_done,
                                    &run, NULL),
                 "start");
    }
    start_batch(&run, after);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    while (atomic_load(&run.open))
        kit_sleep_ns(1000 * 1000);
    for (int i = 0; i <= THREADS; i++)
        for (size_t k = 0; k < run.samples[i].count; k++)
            kit_sample(&all, run.samples[i].ns[k]);
    printf("figure=neighbour method=%s ms=%.0f calls=%zu p50_us=%.1f p999_us=%.1f max_ms=%.3f\n",
           ms > 0 ? method : "none", ms, all.count, (double)kit_percentile(&all, 50) / 1e3,
           (double)kit_percentile(&all, 99.9) / 1e3, (double)kit_percentile(&all, 100) / 1e6);
    kit_need(semel_client_destroy(run.client), "client_destroy");
    kit_end(server);
    return 0;
}
