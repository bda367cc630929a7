/* SPDX-License-Identifier: MIT */
/* framing.h - where in a stream of Semel's frames is this byte?
 *
 * A frame is a header of 16 bytes, whose first four are the little-endian length of the payload
 * that follows it. Nothing else is looked at, and nothing is refused: a stream of something else
 * only gives meaningless answers. */
#ifndef TOOL_FRAMING_H
#define TOOL_FRAMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAMING_HEADER 16

struct framing {
    uint64_t frames;     /* ended */
    uint8_t length[4];   /* the first bytes of the frame under way */
    uint8_t length_have; /* 0 .. 4 of them */
    uint64_t left;       /* of the frame under way, once its length is known */
};
#define FRAMING_INIT { 0, { 0 }, 0, 0 }

/* These bytes come next in the stream. */
void framing_feed(struct framing *framing, const void *data, size_t size);

/* True unless the stream stands between two frames. */
bool framing_inside(const struct framing *framing);

/* How many of the next bytes of the stream can be let through so that it stands inside a frame
 * afterwards, at most `size`: 0 when it does already, else at least 1 (size > 0). */
size_t framing_room(const struct framing *framing, const void *data, size_t size);

#endif
