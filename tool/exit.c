/* SPDX-License-Identifier: MIT */
#include "tool.h"

int tool_exit_of_status(enum semel_status status)
{
    switch (status) {
    case SEMEL_OK:
        return TOOL_VALUE;
    case SEMEL_INVALID:
    case SEMEL_BAD_ADDRESS:
        return TOOL_USAGE;
    case SEMEL_CONNECT:
    case SEMEL_LINK_LOST:
    case SEMEL_PEER_DIED:
    case SEMEL_SESSION_LOST:
        return TOOL_CONNECT;
    case SEMEL_OVERLOADED:
        return TOOL_OVERLOADED;
    case SEMEL_DENIED:
        return TOOL_DENIED;
    case SEMEL_NO_METHOD:
        return TOOL_NO_METHOD;
    case SEMEL_CANCELLED:
        return TOOL_CANCELLED;
    case SEMEL_PROTOCOL:
    case SEMEL_VERSION:
    case SEMEL_FALSE_RETRY:
    case SEMEL_TAKEN_OVER:
        return TOOL_PROTOCOL;
    default:
        return TOOL_NOT_EXECUTED;
    }
}

int tool_exit_of_result(enum semel_outcome outcome, enum semel_status status)
{
    switch (outcome) {
    case SEMEL_VALUE:
        return TOOL_VALUE;
    case SEMEL_FAILURE:
        return TOOL_FAILURE;
    case SEMEL_NOT_EXECUTED:
        /* INVALID is the server's word here, not a mistake on the command line. */
        return status == SEMEL_OK || status == SEMEL_INVALID ? TOOL_NOT_EXECUTED
                                                             : tool_exit_of_status(status);
    default:
        return TOOL_UNKNOWN;
    }
}
