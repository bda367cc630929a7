/* SPDX-License-Identifier: MIT */
/* pen.c - one writer at a time, without ever waiting for it.
 *
 * Problem. Many threads append frames to one connection. A write per frame costs a system call
 * each; a writing thread costs every frame a wake. So the thread that appends also writes, for
 * whoever appended meanwhile.
 *
 * Invariants, all under the lock:
 *  - bytes leave in the order in which they were pulled: only the holder pulls and sends;
 *  - `buffer` is not NULL exactly while there are unsent bytes or the pen is held;
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

/* The view that is to be written next is, or will not be. */
static void end_view(struct sml_pen *pen)
{
    sml_part_release(&sml_mem_libc, pen->views.list[pen->view].part);
    pen->view_at = 0;
    if (++pen->view == pen->views.count)
        pen->view = pen->views.count = 0;
}

static void return_buffer(struct sml_pen *pen)
{
    while (pen->view < pen->views.count)
        end_view(pen);
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
    if (sml_pen_unsent(pen))
        return true;
    pen->at = 0;
    pen->end = pen->ops->pull(pen->owner, pen->buffer, pen->room, &pen->views);
    SML_ASSERT(pen->end <= pen->room);
    return pen->end > 0;
}

/* The buffer's bytes with the views between them, from the first that is not sent. */
static size_t gather(const struct sml_pen *pen, struct semel_bytes *out)
{
    size_t count = 0, at = pen->at, skip = pen->view_at;

    for (uint32_t i = pen->view; i < pen->views.count; i++) {
        const struct sml_part *part = pen->views.list[i].part;
        size_t before = (size_t)(pen->views.list[i].after - pen->buffer);

        if (at < before)
            out[count++] = semel_bytes(pen->buffer + at, before - at);
        out[count++] = semel_bytes(part->bytes + skip, part->size - skip);
        at = before;
        skip = 0;
    }
    if (at < pen->end)
        out[count++] = semel_bytes(pen->buffer + at, pen->end - at);
    return count;
}

/* So many bytes of that are sent. */
static void advance(struct sml_pen *pen, size_t bytes)
{
    while (bytes > 0) {
        bool view = pen->view < pen->views.count;
        size_t to = view ? (size_t)(pen->views.list[pen->view].after - pen->buffer) : pen->end;
        size_t some = bytes < to - pen->at ? bytes : to - pen->at;

        pen->at += some;
        bytes -= some;
        if (bytes == 0)
            return;
        SML_ASSERT(view);
        some = pen->views.list[pen->view].part->size - pen->view_at;
        some = bytes < some ? bytes : some;
        pen->view_at += some;
        bytes -= some;
        if (pen->view_at == pen->views.list[pen->view].part->size)
            end_view(pen);
    }
}

/* One write, without the lock. */
static void send_some(struct sml_pen *pen)
{
    struct semel_bytes pieces[2 * SML_VIEWS + 1];
    size_t count = gather(pen, pieces);
    struct sml_io io;

    sml_mutex_unlock(pen->lock);
    if (count == 1)
        io = sml_channel_write(pen->channel, pieces[0].data, pieces[0].size);
    else
        io = sml_channel_write_pieces(pen->channel, pieces, count);
    sml_mutex_lock(pen->lock);
    if (io.kind == SML_IO_MOVED) {
        advance(pen, io.bytes);
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
        if (others && !sml_pen_unsent(pen)) {
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
        if (sml_pen_unsent(pen)) {
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
    else if (!sml_pen_unsent(pen))
        return_buffer(pen);
    return end;
}

enum sml_pen_end sml_pen_writable(struct sml_pen *pen)
{
    pen->blocked = false;
    return sml_pen_write(pen, false);
}
