/* SPDX-License-Identifier: MIT */
/* The shared writer: order, rounds, a full channel, a broken one, stopping under a writer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
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

static size_t pull(void *owner, uint8_t *out, size_t room, struct sml_views *views)
{
    struct fixture *f = owner;
    size_t bytes = f->due < f->piece ? f->due : f->piece;

    assert_true(f->lent && room == sizeof f->buffer && views->count == 0);
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

/* --- parts that are left where they are ---------------------------------------------------- */

#define PART_BYTES 5

/* What goes out of it: a, part, part, b, part; each letter stands for three bytes. */
struct letter {
    struct fixture *f; /* first */
    struct sml_part *parts[3];
    bool pulled;
    size_t step; /* so much is taken by each write */
    uint8_t got[64];
    size_t got_bytes;
};

static struct letter *the_letter;

static size_t pull_letter(void *owner, uint8_t *out, size_t room, struct sml_views *views)
{
    struct letter *letter = owner;
    static const size_t after[] = { 3, 3, 6 };

    (void)room;
    memcpy(out, "aaabbb", 6);
    for (uint32_t i = 0; i < 3; i++) {
        views->list[i].after = out + after[i];
        views->list[i].part = letter->parts[i];
        atomic_fetch_add(&letter->parts[i]->refs, 1);
    }
    views->count = 3;
    letter->pulled = true;
    return 6;
}

static bool wants_letter(void *owner)
{
    return !((struct letter *)owner)->pulled;
}

static uint8_t *lend_letter(void *owner, size_t *out_room)
{
    return lend(((struct letter *)owner)->f, out_room);
}

static void give_back_letter(void *owner, uint8_t *buffer)
{
    give_back(((struct letter *)owner)->f, buffer);
}

static struct sml_io take_pieces(struct sml_channel *channel, const struct semel_bytes *pieces,
                                 size_t count)
{
    struct letter *letter = the_letter;
    size_t left = letter->step;

    (void)channel;
    for (size_t i = 0; i < count; i++) {
        size_t some = pieces[i].size < left ? pieces[i].size : left;

        assert_true(pieces[i].size > 0);
        memcpy(letter->got + letter->got_bytes, pieces[i].data, some);
        letter->got_bytes += some;
        left -= some;
    }
    return (struct sml_io){ .bytes = letter->step - left, .kind = SML_IO_MOVED };
}

static struct sml_io take_piece(struct sml_channel *channel, const void *data, size_t size)
{
    struct semel_bytes piece = { data, size };

    return take_pieces(channel, &piece, 1);
}

static void open_letter(struct letter *letter, struct sml_channel *channel,
                        struct sml_channel_ops *channel_ops)
{
    static const struct sml_pen_ops letter_ops = { pull_letter, wants_letter, lend_letter,
                                                   give_back_letter };

    memset(letter, 0, sizeof *letter);
    the_letter = letter;
    letter->f = make();
    for (size_t i = 0; i < 3; i++) {
        char bytes[PART_BYTES + 1];

        (void)snprintf(bytes, sizeof bytes, "(%zu%zu%zu)", i, i, i);
        letter->parts[i] =
            sml_part_create(&sml_mem_libc, SML_PART_ITEM, semel_bytes(bytes, PART_BYTES));
        assert_non_null(letter->parts[i]);
    }
    *channel_ops = *letter->f->channel.ops;
    channel_ops->write = take_piece;
    channel_ops->write_pieces = take_pieces;
    *channel = letter->f->channel;
    channel->ops = channel_ops;
    sml_pen_init(&letter->f->pen, &letter_ops, letter, &letter->f->lock);
    sml_pen_open(&letter->f->pen, channel);
}

/* Nobody but the test has the parts any more. */
static void close_letter(struct letter *letter)
{
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(atomic_load(&letter->parts[i]->refs), 1);
        sml_part_release(&sml_mem_libc, letter->parts[i]);
    }
    unmake(letter->f);
}

/* Wherever the writes end, all bytes go out in their order. */
static void test_views_cut(void **state)
{
    static const char whole[] = "aaa(000)(111)bbb(222)";
    struct sml_channel_ops channel_ops;
    struct sml_channel channel;
    struct letter letter;

    (void)state;
    for (size_t step = 1; step < sizeof whole; step++) {
        enum sml_pen_end end;

        open_letter(&letter, &channel, &channel_ops);
        letter.step = step;
        end = sml_pen_write(&letter.f->pen, false);
        while (end == SML_PEN_FULL) {
            assert_true(sml_pen_unsent(&letter.f->pen));
            end = sml_pen_writable(&letter.f->pen);
        }
        assert_int_equal(end, SML_PEN_CLEAR);
        assert_false(sml_pen_unsent(&letter.f->pen));
        assert_int_equal(letter.got_bytes, sizeof whole - 1);
        assert_memory_equal(letter.got, whole, sizeof whole - 1);
        close_letter(&letter);
    }
}

/* Wherever the channel is given up, the parts are let go. */
static void test_views_dropped(void **state)
{
    struct sml_channel_ops channel_ops;
    struct sml_channel channel;
    struct letter letter;

    (void)state;
    for (size_t step = 1; step < 21; step++) {
        open_letter(&letter, &channel, &channel_ops);
        letter.step = step;
        assert_int_equal(sml_pen_write(&letter.f->pen, false), SML_PEN_FULL);
        assert_true(sml_pen_stop(&letter.f->pen));
        assert_false(sml_pen_unsent(&letter.f->pen));
        close_letter(&letter);
    }
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

static size_t slow_pull(void *owner, uint8_t *out, size_t room, struct sml_views *views)
{
    struct fixture *f = owner;

    (void)room;
    (void)views;
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
        TEST("writes that end between and inside of parts", test_views_cut),
        TEST("parts of a channel that is given up", test_views_dropped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
