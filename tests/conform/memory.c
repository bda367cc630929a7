/* SPDX-License-Identifier: MIT */
/* memory.c - a channel that is nothing but memory: proof that struct sml_channel_ops suffices to
 * plug one in.
 *
 * Two rings under one mutex. Descriptors exist only to be waited for: an eventfd that counts more
 * than 0 is readable, and one that is full is not writable. */
#include "kinds.h"

#include "io/kit.h"

#include <errno.h>
#include <sys/eventfd.h>

#include "inject.h"
#include "os/clock.h"
#include "os/mutex.h"

#define RING_BYTES 65536

struct ring {
    uint8_t bytes[RING_BYTES];
    size_t head, used;
    bool ended, broken; /* no more will come; nobody reads */
};

struct memory;

struct side {
    struct sml_channel channel;
    struct memory *memory;
    struct ring *in, *out;
};

struct memory {
    struct sml_mutex mutex;
    struct ring rings[2];
    struct side sides[2];
    int open;
};

static struct side *side_of(struct sml_channel *channel)
{
    return SML_CONTAINER(channel, struct side, channel);
}

static void set_count(int fd, uint64_t count)
{
    eventfd_t old;

    (void)eventfd_read(fd, &old);
    if (count > 0)
        assert_int_equal(eventfd_write(fd, count), 0);
}

/* Make the descriptors say what the rings are like. Under the mutex. */
static void show_locked(struct memory *memory)
{
    for (int i = 0; i < 2; i++) {
        struct side *side = &memory->sides[i];

        if (!side->channel.ops)
            continue;
        set_count(side->channel.fd_read, side->in->used > 0 || side->in->ended);
        set_count(side->channel.fd_write,
                  side->out->used == RING_BYTES && !side->out->broken ? UINT64_MAX - 1 : 0);
    }
}

static size_t take_locked(struct ring *ring, uint8_t *out, size_t size)
{
    size_t n = size < ring->used ? size : ring->used;

    for (size_t i = 0; i < n; i++)
        out[i] = ring->bytes[(ring->head + i) % RING_BYTES];
    ring->head = (ring->head + n) % RING_BYTES;
    ring->used -= n;
    return n;
}

static size_t put_locked(struct ring *ring, const uint8_t *data, size_t size)
{
    size_t room = RING_BYTES - ring->used, n = size < room ? size : room;

    for (size_t i = 0; i < n; i++)
        ring->bytes[(ring->head + ring->used + i) % RING_BYTES] = data[i];
    ring->used += n;
    return n;
}

/* How many of `size` bytes the injection lets move: -1 for AGAIN. */
static ssize_t allowed(int fd, size_t size)
{
    ssize_t n;

    do
        n = inject_allow(fd, size);
    while (n < 0 && errno == EINTR);
    return n;
}

static struct sml_io memory_read(struct sml_channel *channel, void *out, size_t size)
{
    struct side *side = side_of(channel);
    struct sml_io io = { 0, SML_IO_AGAIN, 0 };
    ssize_t n = allowed(channel->fd_read, size);

    if (n < 0)
        return io;
    sml_mutex_lock(&side->memory->mutex);
    io.bytes = take_locked(side->in, out, (size_t)n);
    if (io.bytes > 0)
        io.kind = SML_IO_MOVED;
    else if (side->in->ended)
        io.kind = SML_IO_ENDED;
    show_locked(side->memory);
    sml_mutex_unlock(&side->memory->mutex);
    return io;
}

static struct sml_io memory_read_wait(struct sml_channel *channel, void *out, size_t size,
                                      uint64_t deadline_ns)
{
    uint64_t tick = sml_clock_now() + SML_CHANNEL_TICK_MS * SML_MS;

    (void)sml_channel_wait_readable(channel, -1, sml_time_min(deadline_ns, tick));
    return memory_read(channel, out, size);
}

static struct sml_io memory_write(struct sml_channel *channel, const void *data, size_t size)
{
    struct side *side = side_of(channel);
    struct sml_io io = { 0, SML_IO_AGAIN, 0 };
    ssize_t n = allowed(channel->fd_write, size);

    if (n < 0)
        return io;
    sml_mutex_lock(&side->memory->mutex);
    if (side->out->broken || side->out->ended) {
        io.kind = SML_IO_BROKEN;
        io.error = EPIPE;
    } else {
        io.bytes = put_locked(side->out, data, (size_t)n);
        io.kind = io.bytes > 0 || size == 0 ? SML_IO_MOVED : SML_IO_AGAIN;
    }
    show_locked(side->memory);
    sml_mutex_unlock(&side->memory->mutex);
    return io;
}

static void end(struct side *side, bool in, bool out)
{
    sml_mutex_lock(&side->memory->mutex);
    side->in->ended = side->in->ended || in;
    side->in->broken = side->in->broken || in;
    side->out->ended = side->out->ended || out;
    show_locked(side->memory);
    sml_mutex_unlock(&side->memory->mutex);
}

static void memory_shutdown(struct sml_channel *channel)
{
    end(side_of(channel), true, true);
}

static void memory_shutdown_write(struct sml_channel *channel)
{
    end(side_of(channel), false, true);
}

static void memory_close(struct sml_channel *channel)
{
    struct side *side = side_of(channel);

    end(side, true, true);
    sml_mutex_lock(&side->memory->mutex);
    (void)close(channel->fd_read);
    (void)close(channel->fd_write);
    channel->ops = NULL;
    if (--side->memory->open > 0) {
        sml_mutex_unlock(&side->memory->mutex);
        return;
    }
    sml_mutex_unlock(&side->memory->mutex);
    sml_mutex_fini(&side->memory->mutex);
}

static const struct sml_channel_ops memory_ops = {
    .read = memory_read,
    .read_wait = memory_read_wait,
    .write = memory_write,
    .shutdown = memory_shutdown,
    .shutdown_write = memory_shutdown_write,
    .close = memory_close,
};

bool memory_open(struct ends *out_ends)
{
    struct memory *memory = calloc(1, sizeof(*memory));

    assert_non_null(memory);
    sml_mutex_init(&memory->mutex);
    memory->open = 2;
    for (int i = 0; i < 2; i++) {
        struct side *side = &memory->sides[i];

        sml_channel_init(&side->channel);
        side->memory = memory;
        side->in = &memory->rings[i];
        side->out = &memory->rings[1 - i];
        side->channel.ops = &memory_ops;
        side->channel.fd_read = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        side->channel.fd_write = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        (void)snprintf(side->channel.peer, sizeof(side->channel.peer), "memory");
    }
    out_ends->a = &memory->sides[0].channel;
    out_ends->b = &memory->sides[1].channel;
    out_ends->storage = memory;
    return true;
}
