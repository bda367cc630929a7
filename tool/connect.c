/* SPDX-License-Identifier: MIT */
#include "tool.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "output.h"

/* The first attempt is made at once; where nobody listens it has failed long before this. */
#define FIRST_LOOK_MS 100

/* A process connects once. While it waits, an attempt that failed is a detail: what kept it is said
 * when it gives up. */
static struct {
    semel_log_fn log;
    void *user;
    _Atomic bool waiting;
} told;

static void on_log(enum semel_log_level level, const char *text, void *user)
{
    static const char failed[] = "cannot connect: ";

    (void)user;
    if (atomic_load(&told.waiting) && strncmp(text, failed, sizeof failed - 1) == 0)
        output_detail("%s", text);
    else
        told.log(level, text, told.user);
}

static enum semel_status wait_connected(struct semel_client *client, int64_t wait_ms,
                                        bool look_first, char *text, size_t size)
{
    enum semel_status status = SEMEL_CONNECT;

    if (look_first && wait_ms > FIRST_LOOK_MS) {
        status = semel_client_wait_connected(client, FIRST_LOOK_MS, text, size);
        wait_ms -= FIRST_LOOK_MS;
    }
    if (status == SEMEL_LINK_LOST || status == SEMEL_CONNECT)
        status = semel_client_wait_connected(client, wait_ms, text, size);
    /* There was no link yet to be lost, and nobody known to have died. */
    return status == SEMEL_LINK_LOST || status == SEMEL_PEER_DIED ? SEMEL_CONNECT : status;
}

enum semel_status tool_connect(struct semel_client **out_client, const char *address,
                               const struct semel_client_options *options, int64_t wait_ms,
                               bool patient, char *text, size_t size)
{
    struct semel_client_options own = *options;
    enum semel_status status;
    bool look_first;

    *text = '\0';
    told.log = options->log;
    told.user = options->log_user;
    atomic_store(&told.waiting, true);
    own.log = on_log;
    status = semel_client_create(out_client, address, &own);
    if (status == SEMEL_BAD_ADDRESS)
        snprintf(text, size, "write unix:/path, tcp:HOST:PORT or fd:N");
    if (status != SEMEL_OK)
        return status;
    look_first = !patient && !strchr(address, ',');
    status = wait_connected(*out_client, wait_ms, look_first, text, size);
    atomic_store(&told.waiting, false);
    if (status == SEMEL_CONNECT && look_first && *text)
        snprintf(text + strlen(text), size - strlen(text),
                 " (--connect-timeout 3s waits for a server that is being started)");
    return status;
}

int tool_not_sent(const char *address, enum semel_status status, const char *text)
{
    output_error("%s, not sent: %s%s%s", address, semel_status_text(status), *text ? ": " : "",
                 text);
    return tool_exit_of_status(status);
}
