/* SPDX-License-Identifier: MIT */
/* server.c - charge_server ADDRESS DATABASE PROVIDER
 *
 * An effect that is no database's: `charge` has a payment provider charge the amount in its body.
 * Should this process die between the charge and its record, nobody here can know whether it was
 * made. So the method says that it may run again after a crash, and hands its request's key on: it
 * is the same whenever the call runs again, and the provider charges a key once. */
#include <semel/semel.h>
#include <semel/sqlite.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Ask the provider; false if there is no answer, and nobody knows whether it has charged. */
static bool ask_provider(const char *path, const char *key, const char *amount, char *out,
                         size_t size)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ssize_t n = -1;

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        dprintf(fd, "%s %s\n", key, amount) > 0)
        n = read(fd, out, size - 1);
    close(fd);
    out[n > 0 ? n : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return n > 0;
}

static void charge(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);
    struct semel_key key = semel_request_key(request);
    char name[33], amount[32], receipt[64];

    for (size_t i = 0; i < sizeof key.bytes; i++)
        snprintf(name + 2 * i, 3, "%02x", key.bytes[i]);
    snprintf(amount, sizeof amount, "%.*s", (int)(body.size < 31 ? body.size : 31),
             (const char *)body.data);
    if (strlen(amount) != body.size || strspn(amount, "0123456789.") != body.size) {
        semel_request_fail(request, 1, "the body must be an amount, such as 12.50");
        return;
    }
    /* Asking again is harmless. Who gives up drops the request: its caller is told *unknown*. */
    while (!ask_provider(user, name, amount, receipt, sizeof receipt)) {
        if (semel_request_cancelled(request))
            return;
        usleep(100000);
    }
    semel_request_reply(request, receipt, strlen(receipt));
}

int main(int argc, char **argv)
{
    struct semel_method_options rerun = { .kind = SEMEL_ONCE, .on_crash = SEMEL_CRASH_RERUN };
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    struct semel_server *server;
    char why[500];

    if (argc != 4) {
        fputs("usage: charge_server ADDRESS DATABASE PROVIDER\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    if (semel_sqlite_open(&options.store, argv[2], NULL, why, sizeof why) != SEMEL_OK) {
        fprintf(stderr, "charge_server: %s\n", why);
        return 1;
    }
    if (semel_server_create(&server, &options) != SEMEL_OK ||
        semel_server_export(server, "charge", charge, argv[3], &rerun) != SEMEL_OK ||
        semel_server_listen(server, argv[1]) != SEMEL_OK) {
        fputs("charge_server: cannot serve\n", stderr);
        return 1;
    }
    return semel_server_run(server) != SEMEL_OK;
}
