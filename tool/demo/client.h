/* SPDX-License-Identifier: MIT */
/* client.h - what the two kinds of client share. */
#ifndef DEMO_CLIENT_H
#define DEMO_CLIENT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <semel/semel.h>

#include "chance.h"
#include "demo.h"
#include "ledger.h"

#define CLIENT_BODY 160

struct client {
    const char *address, *dir;
    unsigned number, run; /* run: how often it was started before */
    bool outbox;
    uint64_t seed;
    int64_t end; /* no new calls after it */
    int ledger;
    struct semel_client *client;
};

/* The next call of a thread. */
struct ledger_call client_plan(struct chance *chance, uint64_t id);

/* Its method, and its body, written into `text`. */
const char *client_method(const struct ledger_call *call);
struct semel_bytes client_body(const struct ledger_call *call, char text[CLIENT_BODY]);

/* Write down what came of it. */
void client_replied(const struct client *client, uint64_t id, const struct semel_result *result);

/* The counters, for whoever watches. */
void client_write_counters(const struct client *client);

/* The random numbers of a thread. */
void client_seed(const struct client *client, unsigned thread, struct chance *chance);

/* client_outbox.c: from the making of the client to the last result. False: said why not. */
bool client_run_outbox(struct client *client, const struct semel_client_options *options);

#endif
