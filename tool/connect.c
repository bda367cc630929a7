/* SPDX-License-Identifier: MIT */
#include "tool.h"

#include <string.h>

/* The first attempt is made at once; where nobody listens it has failed long before this. */
#define FIRST_LOOK_MS 100

enum semel_status tool_wait_connected(struct semel_client *client, const char *address,
                                      int64_t timeout_ms, bool patient, char *text, size_t size)
{
    enum semel_status status = SEMEL_CONNECT;
    bool look_first = !patient && !strchr(address, ',') && timeout_ms > FIRST_LOOK_MS;

    if (look_first) {
        status = semel_client_wait_connected(client, FIRST_LOOK_MS, text, size);
        timeout_ms -= FIRST_LOOK_MS;
    }
    if (status == SEMEL_LINK_LOST || status == SEMEL_CONNECT)
        status = semel_client_wait_connected(client, timeout_ms, text, size);
    /* There was no link yet to be lost, and nobody known to have died. */
    return status == SEMEL_LINK_LOST || status == SEMEL_PEER_DIED ? SEMEL_CONNECT : status;
}
