/* SPDX-License-Identifier: MIT */
/* error.h - the system's error numbers as statuses and as words. */
#ifndef SML_OS_ERROR_H
#define SML_OS_ERROR_H

#include <stddef.h>

#include <semel/status.h>

#include "base/compiler.h"

#define SML_REASON_BYTES 768 /* the longest address and some words */

/* Why something failed, in words that name the object: "unix:/run/x: connection refused". */
struct sml_reason {
    char text[SML_REASON_BYTES]; /* a C string, cut to fit */
};

/* `reason` may be NULL. Returns `status`, so that a failing function can end with it. */
enum semel_status sml_reason_set(struct sml_reason *reason, enum semel_status status,
                                 const char *format, ...) SML_PRINTF(3, 4);

/* PEER_DIED: reset, broken pipe, refused, not connected. LINK_LOST: timed out, unreachable, network
 * down. DENIED, LIMIT (descriptors, threads), NO_MEMORY, ADDRESS_IN_USE. Else SYSTEM. */
enum semel_status sml_error_status(int error);

/* "connection refused": a static string, never NULL. Any thread. */
const char *sml_error_text(int error);

#endif
