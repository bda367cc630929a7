/* SPDX-License-Identifier: MIT */
#include "clients.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "output.h"

#define KILL_NS INT64_C(1000000000) /* an outbox's client lives so long, on average */
#define STEP_NS 2000000
#define START_NS INT64_C(20000000000)
#define STOP_NS INT64_C(5000000000)

/* --- proxies --------------------------------------------------------------------------------- */

/* One cuts anywhere, one in the middle of a frame, one leaves half of the connection open. */
static bool proxy_start(struct clients *clients, unsigned number, bool cuts)
{
    const struct demo *demo = clients->demo;
    char listen[DEMO_SOCKETS + 20], target[DEMO_SOCKETS + 20], every[32], seed[32], stats[32];
    char *argv[20] = { "semel", "proxy", listen, target, "-q" };
    size_t at = 5;

    snprintf(listen, sizeof listen, "unix:%s/proxy-%u", demo->sockets, number);
    snprintf(target, sizeof target, "unix:%s/server", demo->sockets);
    snprintf(every, sizeof every, "%" PRId64 "us", demo->options.cut_every_ns / 1000);
    snprintf(seed, sizeof seed, "%" PRIu64, demo->options.seed + number);
    snprintf(stats, sizeof stats, "proxy-%u.json", number);
    if (cuts) {
        argv[at++] = "--stats";
        argv[at++] = stats;
    }
    if (cuts && demo->options.cut_every_ns > 0) {
        argv[at++] = "--cut-every";
        argv[at++] = every;
        argv[at++] = "--seed";
        argv[at++] = seed;
        if (number == 2)
            argv[at++] = "--mid-frame";
        if (number == 3)
            argv[at++] = "--half-open";
    }
    argv[at] = NULL;
    return process_start(&clients->proxies[number - 1], demo->program, argv, demo->dir,
                         demo_path(demo, "proxy-%u.log", number));
}

/* Until each has its socket. */
static bool proxies_await(struct clients *clients)
{
    int64_t until = clock_now() + START_NS;
    char path[DEMO_SOCKETS + 20];

    for (unsigned i = 0; i < DEMO_PROXIES; i++) {
        snprintf(path, sizeof path, "%s/proxy-%u", clients->demo->sockets, i + 1);
        while (access(path, F_OK) != 0) {
            if (process_ended(&clients->proxies[i]) || clock_now() > until) {
                output_error("a proxy does not start; see %s",
                             demo_path(clients->demo, "proxy-%u.log", i + 1));
                return false;
            }
            if (!demo_pause(STEP_NS))
                return false;
        }
    }
    return true;
}

static bool proxies_stop(struct clients *clients)
{
    bool good = true;

    for (unsigned i = 0; i < DEMO_PROXIES; i++) {
        if (process_stop(&clients->proxies[i], STOP_NS))
            continue;
        output_error("a proxy did not end well (%s); see %s",
                     process_status_text(&clients->proxies[i]),
                     demo_path(clients->demo, "proxy-%u.log", i + 1));
        good = false;
    }
    return good;
}

bool clients_calm(struct clients *clients)
{
    if (!proxies_stop(clients))
        return false;
    for (unsigned i = 1; i <= DEMO_PROXIES; i++) {
        if (!proxy_start(clients, i, false))
            return false;
    }
    return proxies_await(clients);
}

/* --- clients --------------------------------------------------------------------------------- */

static bool client_start(struct clients *clients, unsigned number)
{
    const struct demo *demo = clients->demo;
    struct one *one = &clients->each[number - 1];
    bool outbox = demo_is_outbox(demo, number);
    char word[16], run[16], address[DEMO_SOCKETS + 20], seed[32], end[32];
    char *argv[] = { "semel",
                     "demo",
                     DEMO_CLIENT_ROLE,
                     word,
                     run,
                     outbox ? "outbox" : "plain",
                     address,
                     (char *)demo->dir,
                     seed,
                     end,
                     NULL };

    snprintf(word, sizeof word, "%u", number);
    snprintf(run, sizeof run, "%u", one->run);
    snprintf(address, sizeof address, "unix:%s/proxy-%u", demo->sockets, number % DEMO_PROXIES + 1);
    snprintf(seed, sizeof seed, "%" PRIu64, demo->options.seed);
    snprintf(end, sizeof end, "%" PRId64, demo->end);
    one->due = outbox ? clock_now() + chance_interval(&clients->chance, KILL_NS) : 0;
    return process_start(&one->process, demo->program, argv, demo->dir,
                         demo_path(demo, "client-%u.log", number));
}

static bool failed(const struct clients *clients, unsigned number)
{
    output_error("client %u failed (%s); see %s", number,
                 process_status_text(&clients->each[number - 1].process),
                 demo_path(clients->demo, "client-%u.log", number));
    return false;
}

bool clients_open(struct clients *clients, const struct demo *demo)
{
    memset(clients, 0, sizeof *clients);
    clients->demo = demo;
    chance_seed(&clients->chance, demo->options.seed + DEMO_PROXIES + 1);
    for (unsigned i = 1; i <= DEMO_PROXIES; i++) {
        if (!proxy_start(clients, i, true))
            return false;
    }
    if (!proxies_await(clients))
        return false;
    for (unsigned i = 1; i <= demo->options.clients; i++) {
        if (!client_start(clients, i))
            return false;
    }
    return true;
}

bool clients_step(struct clients *clients)
{
    for (unsigned i = 1; i <= clients->demo->options.clients; i++) {
        struct one *one = &clients->each[i - 1];

        if (process_ended(&one->process)) {
            if (clock_now() < clients->demo->end)
                return failed(clients, i);
            continue; /* the load is over: clients_ended looks at how it ended */
        }
        if (!one->due || clock_now() < one->due || clock_now() >= clients->demo->end)
            continue;
        process_kill(&one->process);
        clients->kills++;
        one->run++;
        if (!client_start(clients, i))
            return false;
    }
    return true;
}

bool clients_ended(struct clients *clients, unsigned *out_running)
{
    *out_running = 0;
    for (unsigned i = 1; i <= clients->demo->options.clients; i++) {
        struct process *process = &clients->each[i - 1].process;

        if (process->pid && !process_ended(process))
            *out_running += 1;
        else if (!WIFEXITED(process->status) || WEXITSTATUS(process->status) != 0)
            return failed(clients, i);
    }
    return true;
}

void clients_close(struct clients *clients)
{
    for (unsigned i = 0; i < DEMO_CLIENTS_MAX; i++)
        process_kill(&clients->each[i].process);
    for (unsigned i = 0; i < DEMO_PROXIES; i++)
        process_kill(&clients->proxies[i]);
}
