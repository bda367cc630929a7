/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#include "chance.h"
#include "framing.h"

/* Write a frame with a payload of `payload` bytes; returns its size. */
static size_t frame(uint8_t *at, uint32_t payload)
{
    memset(at, 0xee, FRAMING_HEADER + payload);
    at[0] = (uint8_t)payload;
    at[1] = (uint8_t)(payload >> 8);
    at[2] = (uint8_t)(payload >> 16);
    at[3] = (uint8_t)(payload >> 24);
    return FRAMING_HEADER + payload;
}

static void test_byte_by_byte(void **state)
{
    struct framing framing = FRAMING_INIT;
    uint8_t data[400];
    size_t ends[3], size = 0;

    (void)state;
    size += frame(data + size, 0);
    ends[0] = size;
    size += frame(data + size, 300);
    ends[1] = size;
    size += frame(data + size, 1);
    ends[2] = size;
    assert_false(framing_inside(&framing));
    for (size_t i = 0; i < size; i++) {
        bool at_end = i + 1 == ends[0] || i + 1 == ends[1] || i + 1 == ends[2];

        framing_feed(&framing, data + i, 1);
        assert_int_equal(framing_inside(&framing), !at_end);
    }
    assert_int_equal(framing.frames, 3);
}

static void test_any_pieces(void **state)
{
    static uint8_t data[200000];
    struct chance chance;
    size_t size = 0;

    (void)state;
    chance_seed(&chance, 3);
    for (int i = 0; i < 100; i++)
        size += frame(data + size, (uint32_t)chance_below(&chance, 1900));
    for (int round = 0; round < 50; round++) {
        struct framing framing = FRAMING_INIT;

        for (size_t at = 0; at < size;) {
            size_t piece = 1 + (size_t)chance_below(&chance, 3000);

            piece = piece < size - at ? piece : size - at;
            framing_feed(&framing, data + at, piece);
            at += piece;
        }
        assert_int_equal(framing.frames, 100);
        assert_false(framing_inside(&framing));
    }
}

static void test_room(void **state)
{
    struct framing framing = FRAMING_INIT;
    uint8_t data[100];
    size_t size = frame(data, 20);

    (void)state;
    assert_int_equal(framing_room(&framing, data, size), size - 1);
    assert_int_equal(framing_room(&framing, data, 2), 2);
    assert_int_equal(framing_room(&framing, data, 10), 10);
    for (size_t room = 1; room < size; room++) {
        struct framing cut = FRAMING_INIT;

        framing_feed(&cut, data, room);
        assert_true(framing_inside(&cut));
        assert_int_equal(framing_room(&cut, data + room, size - room), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "frames are followed byte by byte", test_byte_by_byte, NULL, NULL, NULL },
        { "frames are followed in pieces of any size", test_any_pieces, NULL, NULL, NULL },
        { "the room before a frame's end", test_room, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
