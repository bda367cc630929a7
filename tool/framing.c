/* SPDX-License-Identifier: MIT */
#include "framing.h"

static uint64_t frame_bytes(const uint8_t *length)
{
    return FRAMING_HEADER + ((uint64_t)length[0] | (uint64_t)length[1] << 8 |
                             (uint64_t)length[2] << 16 | (uint64_t)length[3] << 24);
}

void framing_feed(struct framing *framing, const void *data, size_t size)
{
    const uint8_t *at = data;

    while (size) {
        if (framing->length_have < 4) {
            framing->length[framing->length_have++] = *at++;
            size--;
            if (framing->length_have == 4)
                framing->left = frame_bytes(framing->length) - 4;
            continue;
        }
        if (size < framing->left) {
            framing->left -= size;
            return;
        }
        at += framing->left;
        size -= framing->left;
        framing->left = 0;
        framing->length_have = 0;
        framing->frames++;
    }
}

bool framing_inside(const struct framing *framing)
{
    return framing->length_have > 0;
}

size_t framing_room(const struct framing *framing, const void *data, size_t size)
{
    uint64_t room = FRAMING_HEADER - 1;

    if (framing_inside(framing))
        return 0;
    if (size >= 4)
        room = frame_bytes(data) - 1;
    return room < size ? (size_t)room : size;
}
