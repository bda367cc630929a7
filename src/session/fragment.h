/* SPDX-License-Identifier: MIT */
/* fragment.h - how bodies are cut into frames, the same at both ends. */
#ifndef SML_SESSION_FRAGMENT_H
#define SML_SESSION_FRAGMENT_H

#include <stddef.h>
#include <stdint.h>

#include "wire/frame.h"

/* A fragment is cut short to fill the room only if it stays at least this long. */
#define SML_FRAGMENT_BYTES_MIN 4096

/* How many of the `left` bytes of a body may go into `room` beside `overhead`; 0 with left > 0: not
 * now. */
static inline size_t sml_fragment_bytes(uint64_t left, size_t overhead, size_t room)
{
    size_t want = left < SML_FRAGMENT_BYTES ? (size_t)left : SML_FRAGMENT_BYTES;

    if (room < overhead)
        return 0;
    if (want <= room - overhead)
        return want;
    return room - overhead >= SML_FRAGMENT_BYTES_MIN ? room - overhead : 0;
}

#endif
