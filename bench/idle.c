/* SPDX-License-Identifier: MIT */
/* idle.c - a server's memory per idle connection.
 *   --connections=N (10000) --per-process=N (500)
 * Clients are opened in several processes (descriptors are limited per process), each makes one
 * call and then rests. Printed: growth of the server's resident memory and heap per connection. */
#include <stdio.h>
#include <stdlib.h>

#include "kit.h"

struct setup {
    const char *address;
    unsigned clients;
};

static void open_many(int fd, void *user)
{
    struct setup *setup = user;

    for (unsigned i = 0; i < setup->clients; i++)
        kit_echo(kit_client(setup->address, NULL), "once", 4);
    kit_send(fd, setup->clients);
    for (;;)
        (void)kit_receive(fd);
}

int main(int argc, char **argv)
{
    unsigned total = (unsigned)kit_number(argc, argv, "connections", 10000);
    unsigned each = (unsigned)kit_number(argc, argv, "per-process", 500);
    unsigned processes = (total + each - 1) / each, opened = 0;
    struct kit_child *clients = calloc(processes, sizeof *clients), server, first;
    struct kit_usage before, after;
    struct setup setup;
    char address[64];
    uint64_t began;

    server = kit_server(kit_address(address, sizeof address, 0), NULL);
    setup = (struct setup){ address, 20 };
    first = kit_fork(open_many, &setup); /* tables and caches exist from here on */
    (void)kit_receive(first.fd);
    kit_end(first);
    kit_sleep_ns(500 * 1000 * 1000);
    before = kit_usage(server.pid);
    kit_send(server.fd, 0);
    before.heap = kit_receive(server.fd);
    began = kit_now_ns();
    for (unsigned i = 0; i < processes; i++) {
        setup.clients = total - opened < each ? total - opened : each;
        clients[i] = kit_fork(open_many, &setup);
        opened += (unsigned)kit_receive(clients[i].fd);
    }
    began = kit_now_ns() - began;
    kit_sleep_ns(1000 * 1000 * 1000);
    after = kit_usage(server.pid);
    kit_send(server.fd, 0);
    after.heap = kit_receive(server.fd);
    printf("figure=idle connections=%u bytes_each=%.0f heap_each=%.0f rss_mib=%.1f "
           "descriptors=%u threads=%u opened_per_s=%.0f\n",
           opened, ((double)after.rss - (double)before.rss) / opened,
           ((double)after.heap - (double)before.heap) / opened, (double)after.rss / 1048576,
           after.descriptors, after.threads, opened / ((double)began / 1e9));
    for (unsigned i = 0; i < processes; i++)
        kit_end(clients[i]);
    kit_end(server);
    return 0;
}
