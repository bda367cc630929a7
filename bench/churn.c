/* SPDX-License-Identifier: MIT */
/* churn.c - connect, call, close, again and again: what stays behind?
 *   --cycles=N (10000) --warm=N (1000)
 * Each cycle creates a client, makes one call and destroys the client. Printed: how resident
 * memory, heap in use, descriptors and threads of both processes changed over the cycles. */
#include <stdio.h>

#include "kit.h"

static void cycle(const char *address, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        struct semel_client *client = kit_client(address, NULL);

        kit_echo(client, "cycle", 5);
        kit_need(semel_client_destroy(client), "client_destroy");
    }
}

static void drive(int fd, void *user)
{
    for (;;) {
        cycle(user, (unsigned)kit_receive(fd));
        kit_send(fd, kit_heap_bytes());
    }
}

static struct kit_usage usage_now(struct kit_child child, uint64_t heap)
{
    struct kit_usage usage = kit_usage(child.pid);

    usage.heap = heap;
    return usage;
}

static void show(const char *who, struct kit_usage before, struct kit_usage after)
{
    printf(" %s_rss=%lld %s_heap=%lld %s_descriptors=%d %s_threads=%d", who,
           (long long)(after.rss - before.rss), who, (long long)(after.heap - before.heap), who,
           (int)(after.descriptors - before.descriptors), who,
           (int)(after.threads - before.threads));
}

int main(int argc, char **argv)
{
    uint64_t cycles = (uint64_t)kit_number(argc, argv, "cycles", 10000);
    uint64_t counts[] = { (uint64_t)kit_number(argc, argv, "warm", 1000), cycles }, spent = 0;
    struct kit_usage server_usage[2], client_usage[2];
    struct kit_child server, client;
    char address[64];

    server = kit_server(kit_address(address, sizeof address, 0), NULL);
    client = kit_fork(drive, address);
    for (int i = 0; i < 2; i++) {
        uint64_t heap;

        spent = kit_now_ns();
        kit_send(client.fd, counts[i]);
        heap = kit_receive(client.fd);
        spent = kit_now_ns() - spent;
        kit_sleep_ns(500 * 1000 * 1000); /* the last goodbye arrives */
        client_usage[i] = usage_now(client, heap);
        kit_send(server.fd, 0);
        heap = kit_receive(server.fd);
        server_usage[i] = usage_now(server, heap);
    }
    printf("figure=churn cycles=%llu cycles_per_s=%.0f", (unsigned long long)cycles,
           (double)cycles / ((double)spent / 1e9));
    show("server", server_usage[0], server_usage[1]);
    show("client", client_usage[0], client_usage[1]);
    printf("\n");
    kit_end(client);
    kit_end(server);
    return 0;
}
