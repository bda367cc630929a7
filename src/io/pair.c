/* SPDX-License-Identifier: MIT */
#include "io/pair.h"

#include <errno.h>
#include <sys/socket.h>

enum semel_status sml_pair_open(int out_fds[2], struct sml_reason *out_reason)
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return sml_reason_set(out_reason, sml_error_status(errno), "pair: %s",
                              sml_error_text(errno));
    out_fds[0] = fds[0];
    out_fds[1] = fds[1];
    return SEMEL_OK;
}

enum semel_status sml_channel_pair(struct sml_channel *out_a, struct sml_channel *out_b,
                                   struct sml_reason *out_reason)
{
    int fds[2];
    enum semel_status status = sml_pair_open(fds, out_reason);

    if (status != SEMEL_OK)
        return status;
    sml_channel_of_socket(out_a, fds[0], "pair", false);
    sml_channel_of_socket(out_b, fds[1], "pair", false);
    return SEMEL_OK;
}
