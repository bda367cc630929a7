/* SPDX-License-Identifier: MIT */
/* pen.c - one writer at a time, without ever waiting for it.
 *
 * Problem. Many threads append frames to one connection. A write per frame costs a system call
 * each; a writing thread costs every frame a wake. So the thread that appends also writes, for
 * whoever appended meanwhile.
 *
 * Invariants, all under the lock:
 *  - bytes leave in the order in which they were pulled: only the holder pulls and sends;
 *  - `buffer` is not NULL exactly while it holds unsent bytes or the pen is held;
 *  - frames that were appended while the pen was held are pulled by the holder, or the result
 *    (MORE, FULL) tells the holder to pass them on: none waits for a further append;
 *  - the channel is not closed while the pen is held (see sml_pen_stop).
 *
 * The lock is released for the write and for the yield before it. The yield lets every other
 * runnable caller append to the same write; it is worth a lot when calls are in flight and costs a
 * lone caller only time, hence the argument. */
#include "rpc/pen.h"

#include <string.h>

#include "base/check.h"
#include "os/thread.h"
#include "wire/frame.h"

void sml_pen_init(struct sml_pen *pen, const struct sml_pen_ops *ops, void *owner,
                  struct sml_mutex *lock)
{
    memset(pen, 0, sizeof *pen);
    pen->ops = ops;
    pen->owner = owner;
    pen->lock = lock;
}

static void return_buffer(struct sml_pen *pen)
{
    if (pen->buffer)
        pen->ops->give_back(pen->owner, pen->buffer);
    pen->buffer = NULL;
    pen->at = pen->end = 0;
}

static void close_pen(struct sml_pen *pen)
{
    return_buffer(pen);
    pen->channel = NULL;
    pen->blocked = pen->broken = pen->stopped = false;
}

void sml_pen_open(struct sml_pen *pen, struct sml_channel *channel)
{
    SML_ASSERT(!pen->held);
    close_pen(pen);
    pen->channel = channel;
}

bool sml_pen_stop(struct sml_pen *pen)
{
    if (pen->held) {
        pen->stopped = true;
        return false;
    }
    close_pen(pen);
    return true;
}

/* Something to send is in the buffer. */
static bool fill(struct sml_pen *pen)
{
    if (pen->at < pen->end)
        return true;
    pen->at = 0;
    pen->end = pen->ops->pull(pen->owner, pen->buffer, pen->room);
    SML_ASSERT(pen->end <= pen->room);
    return pen->end > 0;
}

/* One write, without the lock. */
static void send_some(struct sml_pen *pen)
{
    const uint8_t *bytes = pen->buffer + pen->at;
    size_t size = pen->end - pen->at;
    struct sml_io io;

    sml_mutex_unlock(pen->lock);
    io = sml_channel_write(pen->channel, bytes, size);
    sml_mutex_lock(pen->lock);
    if (io.kind == SML_IO_MOVED) {
        pen->at += io.bytes;
        pen->writes++;
        pen->bytes += io.bytes;
    } else if (io.kind != SML_IO_AGAIN) {
        pen->broken = true;
        pen->error = io;
    }
}

static enum sml_pen_end hold(struct sml_pen *pen, bool others)
{
    for (int round = 0; round < SML_PEN_ROUNDS; round++) {
        if (others && pen->at == pen->end) {
            sml_mutex_unlock(pen->lock);
            sml_thread_yield();
            sml_mutex_lock(pen->lock);
        }
        if (pen->stopped)
            return SML_PEN_STOPPED;
        if (!fill(pen))
            return SML_PEN_CLEAR;
        send_some(pen);
        if (pen->stopped)
            return SML_PEN_STOPPED;
        if (pen->broken)
            return SML_PEN_BROKEN;
        if (pen->at < pen->end) {
            pen->blocked = true;
            return SML_PEN_FULL;
        }
        if (!pen->ops->wants(pen->owner))
            return SML_PEN_CLEAR;
    }
    return SML_PEN_MORE;
}

enum sml_pen_end sml_pen_write(struct sml_pen *pen, bool others)
{
    enum sml_pen_end end;

    sml_mutex_assert_held(pen->lock);
    if (!pen->channel || pen->broken)
        return SML_PEN_CLOSED;
    if (pen->held || pen->blocked)
        return SML_PEN_TAKEN;
    if (!pen->buffer) {
        if (!pen->ops->wants(pen->owner))
            return SML_PEN_CLEAR;
        pen->buffer = pen->ops->lend(pen->owner, &pen->room);
        if (!pen->buffer)
            return SML_PEN_STARVED;
        SML_ASSERT(pen->room >= SML_FRAME_BYTES_MAX);
    }
    pen->held = true;
    end = hold(pen, others);
    pen->held = false;
    if (end == SML_PEN_STOPPED)
        close_pen(pen);
    else if (pen->at == pen->end)
        return_buffer(pen);
    return end;
}

enum sml_pen_end sml_pen_writable(struct sml_pen *pen)
{
    pen->blocked = false;
    return sml_pen_write(pen, false);
}
