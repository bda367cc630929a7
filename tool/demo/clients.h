/* SPDX-License-Identifier: MIT */
/* clients.h - the proxies and the clients of the demo; those with an outbox are killed, too. */
#ifndef DEMO_CLIENTS_H
#define DEMO_CLIENTS_H

#include "chance.h"
#include "demo.h"
#include "process.h"

struct clients {
    const struct demo *demo;
    struct process proxies[DEMO_PROXIES];
    struct one {
        struct process process;
        unsigned run; /* how often it was started before */
        int64_t due;  /* when it is killed next; 0: never */
    } each[DEMO_CLIENTS_MAX];
    struct chance chance;
    unsigned kills;
};

/* Start the proxies, which cut, and the clients. False: said why not. */
bool clients_open(struct clients *clients, const struct demo *demo);

/* Kill and restart those whose time has come. False: one failed, which was said. */
bool clients_step(struct clients *clients);

/* No more cuts: proxies that only pass on, in place of the others. */
bool clients_calm(struct clients *clients);

/* Have all ended, each well? *out_running: how many have not. False: one failed, said so. */
bool clients_ended(struct clients *clients, unsigned *out_running);

/* End what still runs. */
void clients_close(struct clients *clients);

#endif
