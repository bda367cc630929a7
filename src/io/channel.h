/* SPDX-License-Identifier: MIT */
/* channel.h - a connected stream of bytes in both directions.
 *
 * Reading and writing never block (sml_channel_read_wait apart), never raise SIGPIPE and are one
 * system call each on a socket. One thread may read while another writes; sml_channel_shutdown may
 * come from any thread at any time between init and close. sml_channel_close only when no other
 * thread is inside: shut down first, let them leave, then close; so no thread ever meets a
 * descriptor number that was given to somebody else.
 *
 * On sockets O_NONBLOCK is not used: each call says MSG_DONTWAIT, and a receive that may wait has
 * the socket's receive timeout, one tick, which whoever else has the same socket gets, too. Pipes
 * and the like are switched to O_NONBLOCK.
 *
 * To wait with epoll: fd_read for input, fd_write for output; they are the same descriptor unless
 * the channel was made of two. */
#ifndef SML_IO_CHANNEL_H
#define SML_IO_CHANNEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <semel/bytes.h>
#include <semel/status.h>

#include "base/compiler.h"
#include "os/error.h"

#define SML_CHANNEL_TEXT_BYTES 288 /* longest text of a peer and its NUL */
#define SML_PIECES 16
#define SML_CHANNEL_TICK_MS 100 /* sml_channel_read_wait returns at least this often */

/* Unix sockets: what is sent and not yet read. */
#define SML_UNIX_SEND_BYTES 262144

/* TCP: when unanswered data or an unanswered probe counts as a lost link. */
#define SML_TCP_USER_TIMEOUT_MS 20000
#define SML_TCP_KEEPALIVE_IDLE_S 10
#define SML_TCP_KEEPALIVE_INTERVAL_S 5
#define SML_TCP_KEEPALIVE_PROBES 2

enum sml_io_kind {
    SML_IO_MOVED, /* `bytes` were read or written: at least 1 unless 0 were asked for */
    SML_IO_AGAIN, /* nothing now: wait for the descriptor */
    SML_IO_ENDED, /* reading: the peer has ended, and everything it sent has been read */
    SML_IO_BROKEN /* `error` says why; the channel is of no more use in this direction */
};

struct sml_io { /* returned in registers */
    size_t bytes;
    enum sml_io_kind kind;
    int error;
};

/* Of a result that is ENDED or BROKEN: PEER_DIED (end of file, reset, broken pipe) or LINK_LOST
 * (timed out, unreachable, network down); seldom SYSTEM, NO_MEMORY. Its words: "end of file",
 * "connection reset by peer". */
enum semel_status sml_io_status(struct sml_io io);
const char *sml_io_text(struct sml_io io);

/* The other end, as the kernel knows it. */
struct sml_principal_ids {
    bool known; /* unix sockets and pairs */
    uint32_t uid, gid;
    int32_t pid;
};

struct sml_channel;

/* What a kind of channel can do. `shutdown` any thread; read and read_wait one thread at a time,
 * write one thread at a time. */
struct sml_channel_ops {
    struct sml_io (*read)(struct sml_channel *channel, void *out, size_t size);
    struct sml_io (*read_wait)(struct sml_channel *channel, void *out, size_t size,
                               uint64_t deadline_ns);
    struct sml_io (*write)(struct sml_channel *channel, const void *data, size_t size);
    struct sml_io (*write_pieces)(struct sml_channel *channel, const struct semel_bytes *pieces,
                                  size_t count); /* NULL: one by one */
    void (*shutdown)(struct sml_channel *channel);
    void (*shutdown_write)(struct sml_channel *channel);
    void (*close)(struct sml_channel *channel);
};

struct sml_channel {
    const struct sml_channel_ops *ops; /* NULL: not open */
    int fd_read, fd_write;
    int fd_wake;       /* readable after shutdown, where the descriptors themselves do not
                                  tell a poller (pipes); else -1 */
    bool may_block;    /* a receive without MSG_DONTWAIT waits, at most one tick */
    _Atomic bool shut; /* sml_channel_shutdown was called */
    struct sml_principal_ids ids;
    char peer[SML_CHANNEL_TEXT_BYTES]; /* "unix:/run/x pid 17", "tcp:127.0.0.1:9", "fd:5" */
};

/* At most `size` bytes (not 0). */
static inline struct sml_io sml_channel_read(struct sml_channel *channel, void *out, size_t size)
{
    return channel->ops->read(channel, out, size);
}

/* As sml_channel_read, but waits for input in the same system call: for a thread that has nothing
 * else to do. AGAIN when `deadline_ns` (absolute; SML_NEVER: none) has passed, and in any case
 * after about one tick, so that the caller can look at the clock and at its own state.
 * sml_channel_shutdown wakes it. */
static inline struct sml_io sml_channel_read_wait(struct sml_channel *channel, void *out,
                                                  size_t size, uint64_t deadline_ns)
{
    return channel->ops->read_wait(channel, out, size, deadline_ns);
}

/* Some of `size` bytes, from the first on. */
static inline struct sml_io sml_channel_write(struct sml_channel *channel, const void *data,
                                              size_t size)
{
    return channel->ops->write(channel, data, size);
}

/* What a channel does that cannot write several at once. */
struct sml_io sml_channel_write_each(struct sml_channel *channel, const struct semel_bytes *pieces,
                                     size_t count);

/* The same of several pieces (at most SML_PIECES, none empty), as if they were one. */
static inline struct sml_io sml_channel_write_pieces(struct sml_channel *channel,
                                                     const struct semel_bytes *pieces, size_t count)
{
    return channel->ops->write_pieces ? channel->ops->write_pieces(channel, pieces, count)
                                      : sml_channel_write_each(channel, pieces, count);
}

/* Do pollers of fd_read notice sml_channel_shutdown, and can what had arrived still be read? */
static inline bool sml_channel_tells_pollers(const struct sml_channel *channel)
{
    return channel->fd_wake < 0;
}

/* End both directions: pollers of fd_read (sockets) and threads in sml_channel_read_wait and
 * sml_channel_wait_readable wake; input that had arrived can still be read from a socket, then
 * ENDED; writes are BROKEN. The peer sees the end (of a pipe: at close). Any thread; more than
 * once is fine. Never in a forked child: it would end the parent's connection; close there. */
void sml_channel_shutdown(struct sml_channel *channel);

/* Say that no more is written: the peer reads everything and then the end, while its own bytes can
 * still be read. Writer's thread. (A single descriptor that is no socket has no such half:
 * there it does nothing, and the peer sees the end at close.) */
void sml_channel_shutdown_write(struct sml_channel *channel);

/* Release the descriptors. Once or more often; no other thread may be inside. */
void sml_channel_close(struct sml_channel *channel);

/* A channel that is not open: closing it is harmless. */
void sml_channel_init(struct sml_channel *channel);

static inline bool sml_channel_is_open(const struct sml_channel *channel)
{
    return channel->ops != NULL;
}

/* The channel itself may be copied to another place while nobody uses it. */
static inline void sml_channel_move(struct sml_channel *to, struct sml_channel *from)
{
    *to = *from;
    sml_channel_init(from);
}

enum sml_wait {
    SML_WAIT_READY, /* reading (writing) will not say AGAIN, or the channel was shut down */
    SML_WAIT_WOKEN, /* `also_fd` is readable */
    SML_WAIT_TIMED_OUT
};

/* Wait until there is input (or end, or error), at latest until `deadline_ns` (absolute; SML_NEVER:
 * no limit). `also_fd`: a descriptor whose readability ends the wait too (a sml_wake), or -1. */
enum sml_wait sml_channel_wait_readable(struct sml_channel *channel, int also_fd,
                                        uint64_t deadline_ns);
enum sml_wait sml_channel_wait_writable(struct sml_channel *channel, int also_fd,
                                        uint64_t deadline_ns);

/* A channel of connected descriptors: stream sockets, pipes, fifos, terminals; fd_read and
 * fd_write may be the same. `text` (borrowed) names it; NULL: "fd:N" or "fd:R/W". Both become
 * close-on-exec. Descriptors are moved on OK. Returns OK; BAD_ADDRESS (not open, not a stream, a
 * listening or unconnected socket, wrong direction, a regular file); LIMIT, NO_MEMORY, SYSTEM. */
enum semel_status sml_channel_adopt(struct sml_channel *out_channel, int fd_read, int fd_write,
                                    const char *text, struct sml_reason *out_reason) SML_MUST_USE;

/* For connect, listen and pair: a connected stream socket of the library's own, known to be good.
 * Moved in any case; cannot fail. */
void sml_channel_of_socket(struct sml_channel *out_channel, int fd, const char *peer, bool tcp);

#endif
