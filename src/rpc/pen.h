/* SPDX-License-Identifier: MIT */
/* pen.h - who appends, writes: one writer at a time per connection, shared by client and server.
 *
 * Any thread that has put something into a machine calls sml_pen_write under the lock that guards
 * the machine. If nobody writes, the caller takes the pen: it pulls all that is due into a lent
 * buffer, releases the lock, sends without blocking, and takes the lock again, for at most
 * SML_PEN_ROUNDS rounds. What is left then is the I/O thread's. If somebody writes already, that
 * one will pull the new frames too, or pass them on. The buffer is lent only while bytes are in it.
 * Parts that are left in their places are held until they are sent or the channel is given up.
 *
 *   CLEAR   nothing is left to be written
 *   TAKEN   somebody else writes, or the channel is full: nothing to do, it will be seen to
 *   MORE    more is due than this caller should write: wake the I/O thread, which calls
 *           sml_pen_write itself
 *   STARVED there is no buffer to be had: call sml_pen_write again after a while
 *   FULL    the channel takes no more: watch it for output, then call sml_pen_writable
 *   BROKEN  the channel is broken (`error`): shut it down, so that its reader notices
 *   STOPPED the pen was stopped while this caller held it: tell whoever stopped it
 *   CLOSED  there is no channel
 *
 * All functions need the lock; only sml_pen_write and sml_pen_writable release it in between. */
#ifndef SML_RPC_PEN_H
#define SML_RPC_PEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/channel.h"
#include "os/mutex.h"
#include "session/stream.h"

#define SML_PEN_ROUNDS 2
#define SML_PEN_BUFFER_BYTES 262144 /* a good size for `lend` */

enum sml_pen_end {
    SML_PEN_CLEAR,
    SML_PEN_TAKEN,
    SML_PEN_MORE,
    SML_PEN_STARVED,
    SML_PEN_FULL,
    SML_PEN_BROKEN,
    SML_PEN_STOPPED,
    SML_PEN_CLOSED
};

/* The machine behind a pen. All are called with the lock held. */
struct sml_pen_ops {
    /* Encode what is due, at most `room` bytes (at least SML_FRAME_BYTES_MAX); large parts go to
     * `views`, which is empty, and are written from where they are. */
    size_t (*pull)(void *owner, uint8_t *out, size_t room, struct sml_views *views);
    /* Would a pull give anything now? */
    bool (*wants)(void *owner);
    /* A buffer of at least SML_FRAME_BYTES_MAX bytes; NULL: none now (STARVED is the result). */
    uint8_t *(*lend)(void *owner, size_t *out_room);
    void (*give_back)(void *owner, uint8_t *buffer);
};

struct sml_pen {
    const struct sml_pen_ops *ops;
    void *owner;
    struct sml_mutex *lock;      /* may be exchanged while nobody holds the pen */
    struct sml_channel *channel; /* NULL: none */
    bool held;                   /* somebody writes */
    bool blocked;                /* the channel is full */
    bool broken;
    bool stopped;
    struct sml_io error;    /* when broken */
    uint8_t *buffer;        /* while bytes are in it */
    size_t room, at, end;   /* of buffer: size, first byte not sent, end of the bytes */
    struct sml_views views; /* what goes between them */
    uint32_t view;          /* the first of these that is not sent */
    size_t view_at;         /* ... and of that, what was sent */
    uint64_t writes, bytes; /* system calls that moved bytes, and how many */
};

void sml_pen_init(struct sml_pen *pen, const struct sml_pen_ops *ops, void *owner,
                  struct sml_mutex *lock);

/* From now on write to `channel`, which stays until sml_pen_stop gave true or STOPPED was
 * returned. Nobody may hold the pen; what an earlier channel left unsent is forgotten. */
void sml_pen_open(struct sml_pen *pen, struct sml_channel *channel);

/* Write no more: the channel is about to be closed. Unsent bytes are dropped. True: nobody holds
 * the pen, and it is closed; false: its holder is inside the channel, and its sml_pen_write will
 * return STOPPED soon, with the pen closed. */
bool sml_pen_stop(struct sml_pen *pen);

/* `others`: other threads are likely to append too (their calls are in flight), so let them run
 * once before each write. */
enum sml_pen_end sml_pen_write(struct sml_pen *pen, bool others);

/* The channel is writable again. */
enum sml_pen_end sml_pen_writable(struct sml_pen *pen);

/* Are there bytes taken from the machine and not yet given to the channel: part of a frame? */
static inline bool sml_pen_unsent(const struct sml_pen *pen)
{
    return pen->at < pen->end || pen->view < pen->views.count;
}

#endif
