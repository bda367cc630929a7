/* SPDX-License-Identifier: MIT */
/* open.c - what one call left open costs the short ones beside it.
 *   --calls=N (10000000) --chunk=N (500000) --window=N (256)
 * Two servers and two clients, each in a process of its own. One client first makes a call whose
 * handler never finishes it. Then the pairs take turns at `chunk` asynchronous short calls until
 * each has made N. Printed: the median of the per-turn ratios of the rates (with the open call over
 * without), both rates, and how far each of the four processes grew after its first turn. */
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

#include "kit.h"

enum { WITH, WITHOUT, PAIRS };

struct setup {
    char address[64];
    bool open_call;
    int window;
};

struct turn {
    struct semel_client *client;
    uint64_t to_start, to_finish;
    sem_t finished;
};

static void short_done(struct semel_result *result, void *user);

static void begin(struct turn *turn)
{
    static const char body[64] = "a short call";

    turn->to_start--;
    kit_need(semel_client_start(turn->client, "echo", semel_bytes(body, sizeof body), NULL,
                                short_done, turn, NULL),
             "start");
}

/* On the client's I/O thread, which alone touches the turn once the first calls are started. */
static void short_done(struct semel_result *result, void *user)
{
    struct turn *turn = user;

    if (result->outcome != SEMEL_VALUE || result->body.size != 64)
        kit_die("a short call failed");
    if (turn->to_start)
        begin(turn);
    if (--turn->to_finish == 0)
        sem_post(&turn->finished);
}

/* The first calls too must be started where completions run, so a call of its own starts them. */
struct kick {
    struct turn *turn;
    int window;
};

static void kicked(struct semel_result *result, void *user)
{
    struct kick *kick = user;

    if (result->outcome != SEMEL_VALUE)
        kit_die("the first call failed");
    for (int i = 0; i < kick->window && kick->turn->to_start; i++)
        begin(kick->turn);
}

static void never(struct semel_result *result, void *user)
{
    (void)result;
    (void)user;
    kit_die("the open call ended");
}

static void drive(int fd, void *user)
{
    struct setup *setup = user;
    struct semel_call_options patient = SEMEL_CALL_OPTIONS_INIT;
    struct turn turn = { .client = kit_client(setup->address, NULL) };
    struct kick kick = { &turn, setup->window };

    sem_init(&turn.finished, 0, 0);
    patient.deadline_ms = 24 * 3600 * 1000;
    if (setup->open_call)
        kit_need(semel_client_start(turn.client, "hold", semel_bytes_text(""), &patient, never,
                                    NULL, NULL),
                 "start");
    kit_echo(turn.client, "warm", 4);
    for (;;) {
        uint64_t calls = kit_receive(fd), began = kit_now_ns();

        turn.to_start = turn.to_finish = calls;
        kit_need(semel_client_start(turn.client, "echo", semel_bytes_text("kick"), NULL, kicked,
                                    &kick, NULL),
                 "start");
        while (sem_wait(&turn.finished))
            ;
        kit_send(fd, kit_now_ns() - began);
    }
}

int main(int argc, char **argv)
{
    uint64_t total = (uint64_t)kit_number(argc, argv, "calls", 1e7);
    uint64_t chunk = (uint64_t)kit_number(argc, argv, "chunk", 5e5);
    struct kit_child server[PAIRS], client[PAIRS];
    uint64_t before[PAIRS][2], after[PAIRS][2], spent[PAIRS] = { 0 }, made = 0;
    struct kit_samples ratios = { 0 };
    struct setup setup[PAIRS];

    for (int i = 0; i < PAIRS; i++) {
        setup[i].open_call = i == WITH;
        setup[i].window = (int)kit_number(argc, argv, "window", 256);
        server[i] = kit_server(kit_address(setup[i].address, sizeof setup[i].address, i), NULL);
        client[i] = kit_fork(drive, &setup[i]);
        kit_send(client[i].fd, chunk); /* warms; memory is counted from here on */
        (void)kit_receive(client[i].fd);
        before[i][0] = kit_usage(server[i].pid).rss;
        before[i][1] = kit_usage(client[i].pid).rss;
    }
    for (int turn = 0; made < total; turn++) {
        uint64_t ns[PAIRS];

        for (int i = 0; i < PAIRS; i++) {
            int pair = turn % 2 ? PAIRS - 1 - i : i; /* neither always goes first */

            kit_send(client[pair].fd, chunk);
            ns[pair] = kit_receive(client[pair].fd);
            spent[pair] += ns[pair];
        }
        made += chunk;
        kit_sample(&ratios, ns[WITHOUT] * 1000000 / ns[WITH]);
    }
    for (int i = 0; i < PAIRS; i++) {
        after[i][0] = kit_usage(server[i].pid).rss;
        after[i][1] = kit_usage(client[i].pid).rss;
    }
    printf("figure=open calls=%llu ratio=%.3f cps_with=%.0f cps_without=%.0f "
           "server_growth=%lld client_growth=%lld server_growth_without=%lld "
           "client_growth_without=%lld\n",
           (unsigned long long)made, (double)kit_percentile(&ratios, 50) / 1e6,
           (double)made * 1e9 / (double)spent[WITH], (double)made * 1e9 / (double)spent[WITHOUT],
           (long long)(after[WITH][0] - before[WITH][0]),
           (long long)(after[WITH][1] - before[WITH][1]),
           (long long)(after[WITHOUT][0] - before[WITHOUT][0]),
           (long long)(after[WITHOUT][1] - before[WITHOUT][1]));
    for (int i = 0; i < PAIRS; i++) {
        kit_end(client[i]);
        kit_end(server[i]);
    }
    return 0;
}
