/* SPDX-License-Identifier: MIT */
#include "wire/frame.h"

const char *sml_frame_name(enum sml_frame_type type)
{
    static const char *const names[] = { "?",     "HELLO", "LIST",  "WELCOME", "CALL",   "BODY",
                                         "REPLY", "PART",  "ACK",   "CREDIT",  "CANCEL", "BUSY",
                                         "PING",  "PONG",  "DRAIN", "BYE" };
    const unsigned at = (unsigned)type;

    return at < sizeof names / sizeof names[0] ? names[at] : "?";
}

const char *sml_bye_name(enum sml_bye_code code)
{
    static const char *const names[] = { "?",           "END",      "SESSION_LOST", "TAKEN_OVER",
                                         "DENIED",      "VERSION",  "PROTOCOL",     "FALSE_RETRY",
                                         "RETRY_LATER", "SHUTDOWN", "SILENT" };
    const unsigned at = (unsigned)code;

    return at < sizeof names / sizeof names[0] ? names[at] : "?";
}

enum semel_status sml_bye_status(enum sml_bye_code code)
{
    switch (code) {
    case SML_BYE_END:
        return SEMEL_STOPPED;
    case SML_BYE_SESSION_LOST:
        return SEMEL_SESSION_LOST;
    case SML_BYE_TAKEN_OVER:
        return SEMEL_TAKEN_OVER;
    case SML_BYE_DENIED:
        return SEMEL_DENIED;
    case SML_BYE_VERSION:
        return SEMEL_VERSION;
    case SML_BYE_PROTOCOL:
        return SEMEL_PROTOCOL;
    case SML_BYE_FALSE_RETRY:
        return SEMEL_FALSE_RETRY;
    case SML_BYE_RETRY_LATER:
        return SEMEL_OVERLOADED;
    case SML_BYE_SHUTDOWN:
        return SEMEL_DRAINING;
    case SML_BYE_SILENT:
        return SEMEL_LINK_LOST;
    }
    return SEMEL_PROTOCOL;
}
