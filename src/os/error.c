/* SPDX-License-Identifier: MIT */
#include "os/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum semel_status sml_reason_set(struct sml_reason *reason, enum semel_status status,
                                 const char *format, ...)
{
    va_list arguments;

    if (!reason)
        return status;
    va_start(arguments, format);
    (void)vsnprintf(reason->text, sizeof(reason->text), format, arguments);
    va_end(arguments);
    return status;
}

enum semel_status sml_error_status(int error)
{
    switch (error) {
    case 0:
        return SEMEL_OK;
    case ECONNRESET:
    case ECONNREFUSED:
    case ECONNABORTED:
    case EPIPE:
    case ENOTCONN:
    case ESHUTDOWN:
        return SEMEL_PEER_DIED;
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
    case ENETRESET:
    case EHOSTDOWN:
    case ENONET:
        return SEMEL_LINK_LOST;
    case EACCES:
    case EPERM:
    case EROFS:
        return SEMEL_DENIED;
    case EADDRINUSE:
        return SEMEL_ADDRESS_IN_USE;
    case EMFILE:
    case ENFILE:
        return SEMEL_LIMIT;
    case ENOMEM:
    case ENOBUFS:
        return SEMEL_NO_MEMORY;
    default:
        return SEMEL_SYSTEM;
    }
}

/* Lower case, because they stand in the middle of a line; seldom ones are the C library's. */
static const struct {
    int error;
    const char *text;
} words[] = {
    { ECONNREFUSED, "connection refused" },
    { ECONNRESET, "connection reset by peer" },
    { ECONNABORTED, "connection aborted" },
    { EPIPE, "peer closed the connection" },
    { ENOTCONN, "not connected" },
    { ENOENT, "no such file or directory" },
    { ENOTDIR, "not a directory" },
    { EACCES, "permission denied" },
    { EPERM, "not permitted" },
    { EROFS, "read-only file system" },
    { ENOSPC, "no space left on device" },
    { EDQUOT, "disk quota exceeded" },
    { ETIMEDOUT, "timed out" },
    { EHOSTUNREACH, "no route to host" },
    { ENETUNREACH, "network unreachable" },
    { ENETDOWN, "network is down" },
    { EADDRINUSE, "address in use" },
    { EADDRNOTAVAIL, "not an address of this machine" },
    { EMFILE, "no descriptors left in this process" },
    { ENFILE, "no descriptors left on this machine" },
    { ENOMEM, "out of memory" },
    { ENOBUFS, "out of buffer space" },
    { EAGAIN, "resource temporarily unavailable" },
    { EBADF, "not an open descriptor" },
};

const char *sml_error_text(int error)
{
    const char *text;

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (words[i].error == error)
            return words[i].text;
    }
    text = strerrordesc_np(error);
    return text ? text : "unknown error";
}
