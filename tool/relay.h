/* SPDX-License-Identifier: MIT */
/* relay.h - pass connections on to a target, and break them.
 *
 * Each connection to the listener gets one of its own to the target; bytes flow both ways, each
 * held back by the delay. At times that are exponentially distributed around the mean interval a
 * cut breaks every connection that is open then:
 *
 *   plain      both sockets are closed, orderly or (tcp) with a reset, by chance; at once, or, by
 *              chance, after a random part of the bytes that come next;
 *   half_open  by chance plain, or one of: the client's socket is closed while the target's stays
 *              open; the target's is closed while the client's stays open; the bytes to the
 *              target, or those to the client, are thrown away while the others go on. What stays
 *              open is closed after a while, four intervals on average;
 *   mid_frame  a connection is cut only once it has passed on a part of a frame: at once if it is
 *              in the middle of one, else within the next frame.
 *
 * With the same seed the same decisions are made; when bytes arrive is up to the machine. */
#ifndef TOOL_RELAY_H
#define TOOL_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "endpoint.h"

struct relay_counters {
    uint64_t connections;    /* accepted, and connected to the target */
    uint64_t refused;        /* accepted, but the target could not be reached */
    uint64_t cuts;           /* connections broken */
    uint64_t cuts_mid_frame; /* of these, with a part of a frame passed on, either way */
    uint64_t cuts_half_open; /* of these, with something left open */
    uint64_t bytes;          /* passed on, both ways */
};

struct relay_options {
    int64_t cut_every_ns; /* 0: never */
    int64_t delay_ns;
    bool half_open, mid_frame;
    uint64_t seed;
    int64_t tick_ns; /* how often `tick` is called */
    void (*tick)(const struct relay_counters *counters, void *user);
    void *user;
};

/* Relay until `stop` becomes readable, then close everything but `listener` and `stop`.
 * Returns 0, or an errno when it cannot go on. */
int relay_run(int listener, int stop, const struct endpoint *target,
              const struct relay_options *options, struct relay_counters *out_counters);

#endif
