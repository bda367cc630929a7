/* SPDX-License-Identifier: MIT */
/* The shared writer: order, rounds, a full channel, a broken one, stopping under a writer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "io/pair.h"
#include "kit/kit.h"
#include "rpc/pen.h"
#include "wire/frame.h"

#define TEST(name, function)                                                                       \
    {                                                                                              \
        name, function, NULL, NULL, NULL                                                           \
    }

/* A machine that has `due` bytes to write: 0, 1, 2 ... 250, 0, 1 ... */
struct fixture {
    struct sml_mutex lock;
    struct sml_pen pen;
    struct sml_channel channel, other;
    uint8_t buffer[SML_FRAME_BYTES_MAX];
    bool lent, refuse;
    size_t due, piece; /* `piece` at most in one pull */
    uint64_t pulled, read;
};

static size_t pull(void *owner, uint8_t *out, size_t room)
{
    struct fixture *f = owner;
    size_t bytes = f->due < f->piece ? f->due : f->piece;

    assert_true(f->lent && room == sizeof f->buffer);
    bytes = bytes < room ? bytes : room;
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(f->pulled++ % 251);
    f->due -= bytes;
    return bytes;
}

static bool wants(void *owner)
{
    return ((struct fixture *)owner)->due > 0;
}

static uint8_t *lend(void *owner, size_t *out_room)
{
    struct fixture *f = owner;

    assert_false(f->lent);
    if (f->refuse)
        return NULL;
    f->lent = true;
    *out_room = sizeof f->buffer;
    return f->buffer;
}

static void give_back(void *owner, uint8_t *buffer)
{
    struct fixture *f = owner;

    assert_true(f->lent && buffer == f->buffer);
    f->lent = false;
}

static const struct sml_pen_ops ops = { pull, wants, lend, give_back };

static struct fixture *make(void)
{
    struct fixture *f = calloc(1, sizeof *f);

    sml_mutex_init(&f->lock);
    assert_int_equal(sml_channel_pair(&f->channel, &f->other, NULL), SEMEL_OK);
    f->piece = SIZE_MAX;
    sml_pen_init(&f->pen, &ops, f, &f->lock);
    sml_pen_open(&f->pen, &f->channel);
    sml_mutex_lock(&f->lock);
    return f;
}

static void unmake(struct fixture *f)
{
    assert_true(sml_pen_stop(&f->pen));
    assert_false(f->lent);
    sml_mutex_unlock(&f->lock);
    sml_channel_close(&f->channel);
    sml_channel_close(&f->other);
    sml_mutex_fini(&f->lock);
    free(f);
}

/* Everything that has arrived, checked. */
static void read_all(struct fixture *f)
{
    uint8_t bytes[4096];
    struct sml_io io;

    while ((io = sml_channel_read(&f->other, bytes, sizeof bytes)).kind == SML_IO_MOVED)
        for (size_t i = 0; i < io.bytes; i++)
            assert_int_equal(bytes[i], f->read++ % 251);
}

static void test_write(void **state)
{
    struct fixture *f = make();

    (void)state;
    assert_int_equal(sml_pen_write(&f->pen, false), SML_PEN_CLEAR);
    assert_int_equal(f->pen.writes, 0);
    f->due = 1000;
    assert_int_equal(sml_pen_write(&f->pen, true), SML_PEN_CLEAR);
    assert_int_equal(f->pen.writes, 1);
    assert_int_equal(f->pen.bytes, 1000);
    assert_false(f->lent);
    read_all(f);
    assert_int_equal(f->read, 1000);
    unmake(f);
}

static void test_rounds(void **state)
{
    struct fixture *f = make();

    (void)state;
    f->due = 1000;
    f->piece = 10;
    assert_int_equal(sml_pen_write(&f->pen, false), SML_PEN_MORE);
    assert_int_equal(f->pen.writes, SML_PEN_ROUNDS);
    assert_false(f->lent);
    f->refuse = true;
    assert_int_equal(sml_pen_write(&f->pen, false), SML_PEN_STARVED);
    f->refuse = false;
    f->piece = SIZE_MAX;
    assert_int_equal(sml_pen_write(&f->pen, false), SML_PEN_CLEAR);
    read_all(f);
    assert_int_equal(f->read, 1000);
    unmake(f);
}

static void test_full(void **state)
{
    struct fixture *f = make();
    size_t whole = 10 << 20;
    enum sml_pen_end end = SML_PEN_MORE;

    (void)state;
    f->due = whole;
    while (end == SML_PEN_MORE)
        end = sml_pen_write(&f->pen, false);
    assert_int_equal(end, SML_PEN_FULL);
    /* Its buffer stays lent while bytes are in it; others are sent away. */
    assert_int_equal(f->lent, sml_pen_unsent(&f->pen) > 0);
    assert_int_equal(sml_pen_write(&f->pen, true), SML_PEN_TAKEN);
    assert_int_equal(sml_pen_writable(&f->pen), SML_PEN_FULL);
    while (end != SML_PEN_CLEAR) {
        read_all(f);
        end = sml_pen_writable(&f->pen);
        assert_true(end == SML_PEN_FULL || end == SML_PEN_MORE || end == SML_PEN_CLEAR);
    }
    read_all(f);
    assert_int_equal(f->read, whole);
    assert_int_equal(f->pen.bytes, whole);
    unmake(f);
}

static void test_broken(void **state)
{
    struct fixture *f = make();

    (void)state;
    sml_channel_close(&f->other);
    f->due = 1000;
    assert_int_equal(sml_pen_write(&f->pen, false), SML_PEN_BROKEN);
    assert_int_equal(sml_io_status(f->pen.error), SEMEL_PEER_DIED);
    assert_int_equal(sml_pen_write(&f->pen, false), SML_PEN_CLOSED);
    unmake(f);
}

static void test_closed(void **state)
{
    struct fixture *f = make();

    (void)state;
    f->due = 10 << 20;
    while (sml_pen_write(&f->pen, false) == SML_PEN_MORE)
        ;
    assert_true(sml_pen_stop(&f->pen));
    assert_false(f->lent);
    assert_int_equal(sml_pen_write(&f->pen, false), SML_PEN_CLOSED);
    /* A new channel begins with what the machine says, not with the old one's rest. */
    read_all(f);
    f->pulled = f->read = 0;
    f->due = 5;
    sml_pen_open(&f->pen, &f->channel);
    assert_int_equal(sml_pen_write(&f->pen, false), SML_PEN_CLEAR);
    read_all(f);
    assert_int_equal(f->read, 5);
    unmake(f);
}

/* --- several threads -------------------------------------------------------------------- */

#define WRITERS 4
#define APPENDS 2000

static void *append(void *arg)
{
    struct fixture *f = arg;
    enum sml_pen_end end;

    for (int i = 0; i < APPENDS; i++) {
        sml_mutex_lock(&f->lock);
        f->due += 7;
        end = sml_pen_write(&f->pen, true);
        while (end == SML_PEN_MORE)
            end = sml_pen_write(&f->pen, false);
        while (end == SML_PEN_FULL) {
            read_all(f);
            end = sml_pen_writable(&f->pen);
        }
        sml_mutex_unlock(&f->lock);
    }
    return NULL;
}

/* Bytes leave in order and none is left behind, whoever writes. */
static void test_many_writers(void **state)
{
    struct fixture *f = make();
    pthread_t threads[WRITERS];

    (void)state;
    sml_mutex_unlock(&f->lock);
    for (int i = 0; i < WRITERS; i++)
        pthread_create(&threads[i], NULL, append, f);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    sml_mutex_lock(&f->lock);
    read_all(f);
    assert_int_equal(f->read, WRITERS * APPENDS * 7);
    assert_true(f->pen.writes <= WRITERS * APPENDS);
    unmake(f);
}

static atomic_int gate;

static size_t slow_pull(void *owner, uint8_t *out, size_t room)
{
    struct fixture *f = owner;

    (void)room;
    f->due = 0;
    atomic_store(&gate, 1);
    out[0] = 0;
    return 1;
}

/* The channel is slow: it waits until the gate says 2. */
static struct sml_io slow_write(struct sml_channel *channel, const void *data, size_t size)
{
    (void)channel;
    (void)data;
    while (atomic_load(&gate) != 2)
        kit_sleep_ms(1);
    return (struct sml_io){ .bytes = size, .kind = SML_IO_MOVED };
}

static void *write_slowly(void *arg)
{
    struct fixture *f = arg;
    enum sml_pen_end *end = malloc(sizeof *end);

    sml_mutex_lock(&f->lock);
    f->due = 1;
    *end = sml_pen_write(&f->pen, false);
    sml_mutex_unlock(&f->lock);
    return end;
}

static bool gate_open(void *arg)
{
    (void)arg;
    return atomic_load(&gate) == 1;
}

static void test_stop_under_a_writer(void **state)
{
    static const struct sml_pen_ops slow_ops = { slow_pull, wants, lend, give_back };
    struct fixture *f = make();
    struct sml_channel_ops slow_channel_ops = *f->channel.ops;
    struct sml_channel slow = f->channel;
    pthread_t thread;
    void *end;

    (void)state;
    slow_channel_ops.write = slow_write;
    slow.ops = &slow_channel_ops;
    sml_pen_init(&f->pen, &slow_ops, f, &f->lock);
    sml_pen_open(&f->pen, &slow);
    sml_mutex_unlock(&f->lock);
    pthread_create(&thread, NULL, write_slowly, f);
    assert_true(kit_eventually(gate_open, NULL, 60));
    sml_mutex_lock(&f->lock);
    assert_int_equal(sml_pen_write(&f->pen, true), SML_PEN_TAKEN);
    assert_false(sml_pen_stop(&f->pen));
    sml_mutex_unlock(&f->lock);
    atomic_store(&gate, 2);
    pthread_join(thread, &end);
    assert_int_equal(*(enum sml_pen_end *)end, SML_PEN_STOPPED);
    free(end);
    sml_mutex_lock(&f->lock);
    assert_null(f->pen.channel);
    unmake(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("what is due is written at once", test_write),
        TEST("no more than some rounds", test_rounds),
        TEST("a full channel", test_full),
        TEST("a broken channel", test_broken),
        TEST("closed and opened again", test_closed),
        TEST("many writers, one order", test_many_writers),
        TEST("stopped under a writer", test_stop_under_a_writer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
