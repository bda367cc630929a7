/* SPDX-License-Identifier: MIT */
/* parallel.c - how parallel one connection's calls really run.
 *   --method=sleep|burn --us=N --workers=N (0: the default) --callers=N --secs=S --warm=S
 * One client, `callers` blocking threads, each calling the method over and over. Prints calls per
 * second of the measured time and how many calls ran at once on average (rate times duration). */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "kit.h"

struct run {
    struct semel_client *client;
    const char *method;
    char body[24];
    atomic_bool stop;
    atomic_ullong calls;
};

static void *caller(void *user)
{
    struct run *run = user;

    while (!atomic_load_explicit(&run->stop, memory_order_relaxed)) {
        kit_value(run->client, run->method, run->body, 0);
        atomic_fetch_add_explicit(&run->calls, 1, memory_order_relaxed);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    int callers = (int)kit_number(argc, argv, "callers", 64);
    double us = kit_number(argc, argv, "us", 1000), secs = kit_number(argc, argv, "secs", 1);
    pthread_t *threads = calloc((size_t)callers, sizeof *threads);
    static struct run run;
    struct kit_child server;
    unsigned long long calls;
    char address[64];
    uint64_t began;
    double rate;

    options.workers = (uint32_t)kit_number(argc, argv, "workers", 0);
    run.method = kit_text(argc, argv, "method", "sleep");
    snprintf(run.body, sizeof run.body, "%.0f", us);
    server = kit_server(kit_address(address, sizeof address, 0), &options);
    run.client = kit_client(address, NULL);
    for (int i = 0; i < callers; i++)
        if (pthread_create(&threads[i], NULL, caller, &run))
            kit_die("pthread_create");
    kit_sleep_ns((uint64_t)(kit_number(argc, argv, "warm", 0.3) * 1e9));
    calls = atomic_load(&run.calls);
    began = kit_now_ns();
    kit_sleep_ns((uint64_t)(secs * 1e9));
    calls = atomic_load(&run.calls) - calls;
    rate = (double)calls / ((double)(kit_now_ns() - began) / 1e9);
    atomic_store(&run.stop, true);
    for (int i = 0; i < callers; i++)
        pthread_join(threads[i], NULL);
    printf("figure=parallel method=%s us=%.0f workers=%u callers=%d calls=%llu cps=%.0f "
           "at_once=%.2f\n",
           run.method, us, options.workers, callers, calls, rate, rate * us / 1e6);
    kit_need(semel_client_destroy(run.client), "client_destroy");
    kit_end(server);
    return 0;
}
