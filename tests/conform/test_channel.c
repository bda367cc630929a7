/* SPDX-License-Identifier: MIT */
/* test_channel.c - what every channel does, whatever it is made of: each behaviour is a test per
 * kind. A kind that this machine lacks is left out, with the reason printed. */
#include "io/kit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include "inject.h"
#include "kinds.h"
#include "os/clock.h"
#include "os/epoll.h"
#include "os/thread.h"
#include "os/wake.h"

#define GUARD (60 * SML_SECOND) /* against a hang, not a measure */

static volatile sig_atomic_t sigpipes;

static void count_sigpipe(int number)
{
    (void)number;
    sigpipes++;
}

static uint64_t guard(void)
{
    return sml_clock_now() + GUARD;
}

/* The ends of the kind under test, or skip. */
static struct ends open_ends(void **state)
{
    const struct kind *kind = *state;
    struct ends ends;

    if (!kind->open(&ends))
        skip();
    return ends;
}

/* ---- a stream whose every byte says where it stands ---- */

static uint8_t byte_at(uint64_t position, uint8_t salt)
{
    return (uint8_t)(position * 31 + (position >> 8) * 7 + (position >> 16) * 3 + salt);
}

#define CHUNK_BYTES 60000

static size_t fill_chunk(uint8_t *chunk, uint64_t from, uint64_t total, uint8_t salt)
{
    size_t size = total - from < CHUNK_BYTES ? (size_t)(total - from) : CHUNK_BYTES;

    for (size_t i = 0; i < size; i++)
        chunk[i] = byte_at(from + i, salt);
    return size;
}

/* In one piece, or in three. */
static struct sml_io send_some(struct sml_channel *channel, const uint8_t *data, size_t size,
                               bool pieces)
{
    const size_t cut = size / 3;
    const struct semel_bytes three[] = { { data, cut },
                                         { data + cut, cut },
                                         { data + 2 * cut, size - 2 * cut } };

    return pieces && cut > 0 ? sml_channel_write_pieces(channel, three, 3)
                             : sml_channel_write(channel, data, size);
}

static void send_stream(struct sml_channel *channel, uint64_t total, uint8_t salt)
{
    uint8_t *chunk = malloc(CHUNK_BYTES);
    uint64_t done = 0;
    unsigned turn = 0;

    assert_non_null(chunk);
    while (done < total) {
        size_t size = fill_chunk(chunk, done, total, salt);
        struct sml_io io = send_some(channel, chunk, size, turn++ % 2 != 0);

        if (io.kind == SML_IO_AGAIN) {
            assert_int_equal(sml_channel_wait_writable(channel, -1, guard()), SML_WAIT_READY);
            continue;
        }
        assert_int_equal(io.kind, SML_IO_MOVED);
        assert_in_range(io.bytes, 1, size);
        done += io.bytes;
    }
    free(chunk);
}

/* By read and read_wait in turn. */
static void receive_stream(struct sml_channel *channel, uint64_t total, uint8_t salt)
{
    uint8_t *chunk = malloc(CHUNK_BYTES);
    uint64_t done = 0;

    assert_non_null(chunk);
    for (int turn = 0; done < total; turn++) {
        size_t size = total - done < CHUNK_BYTES ? (size_t)(total - done) : CHUNK_BYTES;
        struct sml_io io = turn % 2 == 0 ? sml_channel_read(channel, chunk, size)
                                         : sml_channel_read_wait(channel, chunk, size, guard());

        if (io.kind == SML_IO_AGAIN) {
            assert_int_equal(sml_channel_wait_readable(channel, -1, guard()), SML_WAIT_READY);
            continue;
        }
        assert_int_equal(io.kind, SML_IO_MOVED);
        assert_in_range(io.bytes, 1, size);
        for (size_t i = 0; i < io.bytes; i++)
            assert_int_equal(chunk[i], byte_at(done + i, salt));
        done += io.bytes;
    }
    free(chunk);
}

struct sending {
    struct sml_channel *channel;
    uint64_t total;
    uint8_t salt;
};

static void send_in_thread(void *arg)
{
    struct sending *sending = arg;

    send_stream(sending->channel, sending->total, sending->salt);
}

static void receive_in_thread(void *arg)
{
    struct sending *sending = arg;

    receive_stream(sending->channel, sending->total, sending->salt);
}

/* `total` bytes each way at once; each end is read and written by two threads. */
static void transfer(struct ends *ends, uint64_t total)
{
    struct sending up = { ends->a, total, 1 }, down = { ends->b, total, 77 };
    struct sending down_read = { ends->a, total, 77 };
    struct sml_thread threads[3];

    assert_int_equal(sml_thread_create(&threads[0], "up", 0, send_in_thread, &up), SEMEL_OK);
    assert_int_equal(sml_thread_create(&threads[1], "down", 0, send_in_thread, &down), SEMEL_OK);
    assert_int_equal(sml_thread_create(&threads[2], "read", 0, receive_in_thread, &down_read),
                     SEMEL_OK);
    receive_stream(ends->b, total, 1);
    for (int i = 0; i < 3; i++)
        sml_thread_join(&threads[i]);
}

/* ---- the behaviours ---- */

static void exchange(void **state)
{
    struct ends ends = open_ends(state);
    char text[16];
    struct sml_io io;

    io = sml_channel_write(ends.a, "question", 8);
    assert_int_equal(io.kind, SML_IO_MOVED);
    assert_int_equal(io.bytes, 8);
    assert_int_equal(sml_channel_wait_readable(ends.b, -1, guard()), SML_WAIT_READY);
    io = sml_channel_read(ends.b, text, sizeof(text));
    assert_int_equal(io.bytes, 8);
    assert_memory_equal(text, "question", 8);
    assert_int_equal(sml_channel_write(ends.b, "answer", 6).bytes, 6);
    do
        io = sml_channel_read_wait(ends.a, text, sizeof(text), guard());
    while (io.kind == SML_IO_AGAIN);
    assert_int_equal(io.bytes, 6);
    assert_memory_equal(text, "answer", 6);
    ends_close(&ends);
}

static void big_transfers(void **state)
{
    struct ends ends = open_ends(state);

    transfer(&ends, 8 << 20);
    ends_close(&ends);
}

static void partial_io(void **state)
{
    struct ends ends = open_ends(state);
    const int fds[] = { ends.a->fd_read, ends.a->fd_write, ends.b->fd_read, ends.b->fd_write };

    inject_start(fds, 4, 1);
    for (uint64_t size = 0; size < 5; size++)
        transfer(&ends, size);
    transfer(&ends, 5000);
    assert_true(inject_errors() > 5000);
    inject_start(fds, 4, 200000);
    transfer(&ends, 8 << 20);
    assert_true(inject_errors() > 0);
    inject_stop();
    ends_close(&ends);
}

/* Everything that can be read until the end. */
static uint64_t read_to_the_end(struct sml_channel *channel, struct sml_io *out_last)
{
    uint64_t done = 0;
    uint8_t chunk[4096];

    for (;;) {
        struct sml_io io = sml_channel_read(channel, chunk, sizeof(chunk));

        if (io.kind == SML_IO_AGAIN) {
            assert_int_equal(sml_channel_wait_readable(channel, -1, guard()), SML_WAIT_READY);
            continue;
        }
        if (io.kind != SML_IO_MOVED) {
            *out_last = io;
            return done;
        }
        for (size_t i = 0; i < io.bytes; i++)
            assert_int_equal(chunk[i], byte_at(done + i, 9));
        done += io.bytes;
    }
}

static void data_then_hang_up(void **state)
{
    struct ends ends = open_ends(state);
    struct sml_io last;
    struct sml_epoll epoll;
    struct epoll_event event;

    send_stream(ends.a, 30000, 9);
    sml_channel_close(ends.a);
    /* With epoll the hang-up may show at once; it must not be taken for the end of the data. */
    assert_int_equal(sml_epoll_open(&epoll), SEMEL_OK);
    assert_int_equal(sml_epoll_add(&epoll, ends.b->fd_read, SML_POLL_IN, 1), SEMEL_OK);
    assert_int_equal(sml_epoll_wait(&epoll, &event, 1, guard()), 1);
    assert_true(event.events & SML_POLL_IN);
    sml_epoll_close(&epoll);
    assert_int_equal(read_to_the_end(ends.b, &last), 30000);
    assert_int_equal(last.kind, SML_IO_ENDED);
    assert_int_equal(sml_io_status(last), SEMEL_PEER_DIED);
    assert_int_equal(sml_channel_read(ends.b, &last, 1).kind, SML_IO_ENDED); /* and stays so */
    ends_close(&ends);
}

/* Write until it is noticed that nobody reads. */
static struct sml_io write_until_broken(struct sml_channel *channel)
{
    struct sml_io io = { 0, SML_IO_AGAIN, 0 };

    for (int i = 0; i < 10000 && io.kind != SML_IO_BROKEN; i++) {
        io = sml_channel_write(channel, "xy", 2);
        if (io.kind == SML_IO_AGAIN)
            (void)sml_channel_wait_writable(channel, -1, guard());
        else if (io.kind == SML_IO_MOVED)
            (void)usleep(100); /* a network tells later */
    }
    return io;
}

/* The data is still there when a write has failed first. */
static void data_outlives_failed_writes(void **state)
{
    struct ends ends = open_ends(state);
    struct sml_io last;

    send_stream(ends.a, 30000, 9);
    sml_channel_close(ends.a);
    assert_int_equal(write_until_broken(ends.b).kind, SML_IO_BROKEN);
    assert_int_equal(read_to_the_end(ends.b, &last), 30000);
    assert_int_equal(sml_io_status(last), SEMEL_PEER_DIED);
    ends_close(&ends);
}

static void closed_peer_breaks_writes(void **state)
{
    struct ends ends = open_ends(state);
    struct sml_io io;

    sigpipes = 0;
    sml_channel_close(ends.b);
    io = write_until_broken(ends.a);
    assert_int_equal(io.kind, SML_IO_BROKEN);
    assert_int_equal(sml_io_status(io), SEMEL_PEER_DIED);
    assert_int_equal(write_until_broken(ends.a).kind, SML_IO_BROKEN);
    assert_int_equal(sigpipes, 0);
    ends_close(&ends);
}

/* A peer that closes without having read everything. */
static void unread_data_at_close_is_a_dead_peer(void **state)
{
    struct ends ends = open_ends(state);
    struct sml_io io;
    char byte;

    assert_int_equal(sml_channel_write(ends.a, "unread", 6).bytes, 6);
    assert_int_equal(sml_channel_wait_readable(ends.b, -1, guard()), SML_WAIT_READY);
    sml_channel_close(ends.b);
    assert_int_equal(sml_channel_wait_readable(ends.a, -1, guard()), SML_WAIT_READY);
    io = sml_channel_read(ends.a, &byte, 1);
    assert_true(io.kind == SML_IO_ENDED || io.kind == SML_IO_BROKEN);
    assert_int_equal(sml_io_status(io), SEMEL_PEER_DIED);
    ends_close(&ends);
}

struct waiting {
    struct sml_channel *channel;
    bool in_receive;
    _Atomic bool about_to_wait;
    enum sml_wait wait;
    struct sml_io io;
};

static void wait_for_input(void *arg)
{
    struct waiting *waiting = arg;
    char byte;

    atomic_store(&waiting->about_to_wait, true);
    if (!waiting->in_receive) {
        waiting->wait = sml_channel_wait_readable(waiting->channel, -1, SML_NEVER);
        waiting->io = sml_channel_read(waiting->channel, &byte, 1);
        return;
    }
    do
        waiting->io = sml_channel_read_wait(waiting->channel, &byte, 1, SML_NEVER);
    while (waiting->io.kind == SML_IO_AGAIN);
}

static void shutdown_wakes(struct ends *ends, bool in_receive)
{
    struct waiting waiting = { .channel = ends->a, .in_receive = in_receive };
    struct sml_thread thread;
    char byte;

    assert_int_equal(sml_thread_create(&thread, "waits", 0, wait_for_input, &waiting), SEMEL_OK);
    while (!atomic_load(&waiting.about_to_wait))
        sml_thread_yield();
    (void)usleep(2000); /* it waits by now; the outcome does not depend on it */
    sml_channel_shutdown(ends->a);
    sml_channel_shutdown(ends->a);
    sml_thread_join(&thread);
    assert_int_equal(waiting.io.kind, SML_IO_ENDED);
    if (!in_receive)
        assert_int_equal(waiting.wait, SML_WAIT_READY);
    assert_int_equal(sml_channel_write(ends->a, "x", 1).kind, SML_IO_BROKEN);
    assert_int_equal(sml_channel_read(ends->a, &byte, 1).kind, SML_IO_ENDED);
}

static void shutdown_wakes_a_poller(void **state)
{
    struct ends ends = open_ends(state);

    shutdown_wakes(&ends, false);
    ends_close(&ends);
}

static void shutdown_wakes_a_receiver(void **state)
{
    struct ends ends = open_ends(state);

    shutdown_wakes(&ends, true);
    ends_close(&ends);
}

static void half_close(void **state)
{
    struct ends ends = open_ends(state);
    struct sml_io last;
    char text[8];

    send_stream(ends.a, 20000, 9);
    sml_channel_shutdown_write(ends.a);
    assert_int_equal(read_to_the_end(ends.b, &last), 20000);
    assert_int_equal(last.kind, SML_IO_ENDED);
    assert_int_equal(sml_channel_write(ends.b, "still", 5).bytes, 5);
    assert_int_equal(sml_channel_wait_readable(ends.a, -1, guard()), SML_WAIT_READY);
    assert_int_equal(sml_channel_read(ends.a, text, sizeof(text)).bytes, 5);
    assert_int_equal(sml_channel_write(ends.a, "x", 1).kind, SML_IO_BROKEN);
    ends_close(&ends);
}

static void waits_end_in_time(void **state)
{
    struct ends ends = open_ends(state);
    uint64_t deadline = sml_clock_now() + 3 * SML_MS;
    struct sml_wake wake;
    char byte;

    assert_int_equal(sml_channel_read(ends.a, &byte, 1).kind, SML_IO_AGAIN);
    assert_int_equal(sml_channel_wait_readable(ends.a, -1, deadline), SML_WAIT_TIMED_OUT);
    assert_true(sml_clock_now() >= deadline);
    assert_int_equal(sml_channel_wait_readable(ends.a, -1, 0), SML_WAIT_TIMED_OUT);
    deadline = sml_clock_now() + 3 * SML_MS;
    assert_int_equal(sml_channel_read_wait(ends.a, &byte, 1, deadline).kind, SML_IO_AGAIN);
    assert_true(sml_clock_now() >= deadline);
    /* Without a deadline it still comes back to let its caller look around. */
    assert_int_equal(sml_channel_read_wait(ends.a, &byte, 1, SML_NEVER).kind, SML_IO_AGAIN);

    assert_int_equal(sml_wake_open(&wake), SEMEL_OK);
    sml_wake_signal(&wake);
    assert_int_equal(sml_channel_wait_readable(ends.a, wake.fd, SML_NEVER), SML_WAIT_WOKEN);
    assert_int_equal(sml_channel_write(ends.b, "x", 1).bytes, 1);
    assert_int_equal(sml_channel_wait_readable(ends.a, -1, SML_NEVER), SML_WAIT_READY);
    assert_int_equal(sml_channel_wait_readable(ends.a, wake.fd, SML_NEVER), SML_WAIT_READY);
    sml_wake_close(&wake);
    ends_close(&ends);
}

/* A peer that does not read stops nobody. */
static void full_channel_says_again(void **state)
{
    struct ends ends = open_ends(state);
    uint8_t *chunk = calloc(1, CHUNK_BYTES);
    uint64_t sent = 0, got = 0;
    struct sml_io io;

    assert_non_null(chunk);
    for (;;) {
        io = sml_channel_write(ends.a, chunk, CHUNK_BYTES);
        if (io.kind != SML_IO_MOVED)
            break;
        sent += io.bytes;
        assert_true(sent < UINT64_C(1) << 30);
    }
    assert_int_equal(io.kind, SML_IO_AGAIN);
    assert_true(sent > 0);
    while (got < sent) {
        io = sml_channel_read(ends.b, chunk, CHUNK_BYTES);
        if (io.kind == SML_IO_AGAIN)
            (void)sml_channel_wait_readable(ends.b, -1, guard());
        else
            got += io.bytes;
    }
    assert_int_equal(sml_channel_wait_writable(ends.a, -1, guard()), SML_WAIT_READY);
    assert_int_equal(sml_channel_write(ends.a, "x", 1).bytes, 1);
    free(chunk);
    ends_close(&ends);
}

static void peer_is_known(void **state)
{
    const struct kind *kind = *state;
    struct ends ends = open_ends(state);
    const struct sml_channel *both[] = { ends.a, ends.b };

    for (int i = 0; i < 2; i++) {
        assert_memory_equal(both[i]->peer, kind->peer, strlen(kind->peer));
        assert_int_equal(both[i]->ids.known, kind->has_ids);
        if (kind->has_ids) {
            assert_int_equal(both[i]->ids.uid, getuid());
            assert_int_equal(both[i]->ids.gid, getgid());
            assert_int_equal(both[i]->ids.pid, getpid());
        }
    }
    ends_close(&ends);
}

/* The fast path is one system call. */
static void one_call_per_operation(void **state)
{
    const struct kind *kind = *state;
    struct ends ends = open_ends(state);
    char text[16];

    if (!kind->is_socket) {
        ends_close(&ends);
        return;
    }
    inject_count_start(ends.a->fd_write);
    assert_int_equal(sml_channel_write(ends.a, "xyz", 3).bytes, 3);
    assert_int_equal(inject_count(), 1);
    assert_int_equal(sml_channel_write(ends.a, "abcd", 4).bytes, 4);
    assert_int_equal(inject_count(), 2);
    assert_int_equal(sml_channel_wait_readable(ends.b, -1, guard()), SML_WAIT_READY);
    inject_count_start(ends.b->fd_read);
    assert_int_equal(sml_channel_read_wait(ends.b, text, 5, SML_NEVER).bytes, 5);
    assert_int_equal(inject_count(), 1);
    assert_true(sml_channel_read(ends.b, text, sizeof(text)).bytes > 0);
    assert_int_equal(inject_count(), 2);
    inject_count_start(-1);
    ends_close(&ends);
}

static void descriptors_are_returned(void **state)
{
    const struct kind *kind = *state;
    struct ends ends = open_ends(state);
    int before;

    ends_close(&ends);
    before = kit_descriptors();
    for (int i = 0; i < 50; i++) {
        const struct sml_channel *channel;

        assert_true(kind->open(&ends));
        channel = i % 2 ? ends.a : ends.b;
        assert_true(fcntl(channel->fd_read, F_GETFD) & FD_CLOEXEC);
        assert_true(fcntl(channel->fd_write, F_GETFD) & FD_CLOEXEC);
        assert_true(channel->fd_wake < 0 || (fcntl(channel->fd_wake, F_GETFD) & FD_CLOEXEC));
        if (i % 3 == 0)
            sml_channel_shutdown_write(ends.a);
        if (i % 5 == 0)
            sml_channel_shutdown(ends.b);
        sml_channel_close(ends.a);
        ends_close(&ends); /* the second close of that end is harmless */
    }
    assert_int_equal(kit_descriptors(), before);
}

static const struct {
    const char *name;
    CMUnitTestFunction run;
} behaviours[] = {
    { "M14 pluggable channel", exchange },
    { "big transfers both ways", big_transfers },
    { "M6 partial I/O", partial_io },
    { "M5 data then hang-up", data_then_hang_up },
    { "M5 data outlives failed writes", data_outlives_failed_writes },
    { "M4 closed peer breaks writes, without a signal", closed_peer_breaks_writes },
    { "M4 unread data at close is a dead peer", unread_data_at_close_is_a_dead_peer },
    { "shutdown wakes a poller", shutdown_wakes_a_poller },
    { "shutdown wakes a receiver", shutdown_wakes_a_receiver },
    { "half close", half_close },
    { "waits end in time", waits_end_in_time },
    { "full channel says again", full_channel_says_again },
    { "peer is known", peer_is_known },
    { "one call per operation", one_call_per_operation },
    { "descriptors are returned", descriptors_are_returned },
};
#define BEHAVIOURS (sizeof(behaviours) / sizeof(behaviours[0]))

int main(void)
{
    size_t count = BEHAVIOURS * (size_t)kinds_count;
    struct CMUnitTest *tests = calloc(count, sizeof(*tests));
    char(*names)[100] = calloc(count, sizeof(*names));
    int failed;

    if (!tests || !names)
        return 1;
    (void)signal(SIGPIPE, count_sigpipe);
    for (size_t i = 0; i < count; i++) {
        const struct kind *kind = &kinds[i / BEHAVIOURS];

        (void)snprintf(names[i], sizeof(names[i]), "%s: %s", behaviours[i % BEHAVIOURS].name,
                       kind->name);
        tests[i].name = names[i];
        tests[i].test_func = behaviours[i % BEHAVIOURS].run;
        tests[i].initial_state = (void *)(uintptr_t)kind;
    }
    failed = _cmocka_run_group_tests("channels", tests, count, NULL, NULL);
    free(tests);
    free(names);
    return failed;
}
