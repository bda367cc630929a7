/* SPDX-License-Identifier: MIT */
/* What was read stays where it is while somebody wants it, and there is always room for more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "rpc/intake.h"
#include "wire/frame.h"

static void read_bytes(struct sml_intake *in, size_t bytes, uint8_t value)
{
    size_t room;
    uint8_t *at = sml_intake_room(in, &room);

    assert_true(bytes <= room);
    memset(at, value, bytes);
    in->end += bytes;
}

/* Without parts in it a block is begun anew. */
static void test_anew(void **state)
{
    struct sml_blocks *blocks = sml_blocks_create(SML_INTAKE_BYTES, 4, 4);
    struct sml_intake in;
    struct sml_block *block;

    (void)state;
    assert_true(sml_intake_open(&in, blocks));
    block = in.block;
    read_bytes(&in, 100000, 7);
    in.from = 99990;
    sml_intake_settle(&in);
    assert_ptr_equal(in.block, block);
    assert_int_equal(in.from, 0);
    assert_int_equal(sml_intake_size(&in), 10);
    assert_int_equal(sml_intake_data(&in)[9], 7);
    sml_intake_close(&in);
    sml_blocks_destroy(blocks);
}

/* A part stays; what follows it goes on behind it, then in another block. */
static void test_views(void **state)
{
    struct sml_blocks *blocks = sml_blocks_create(SML_INTAKE_BYTES, 4, 4);
    struct sml_intake in;
    struct sml_block *block;
    size_t total = 0;

    (void)state;
    assert_true(sml_intake_open(&in, blocks));
    block = in.block;
    assert_true(block->backing.hold(&block->backing));
    while (in.block == block) {
        size_t room;

        (void)sml_intake_room(&in, &room);
        assert_true(room >= 65536);
        read_bytes(&in, 30000, (uint8_t)(total / 30000));
        total += 30000;
        if (sml_intake_size(&in) > 60000)
            in.from += 30000;
        sml_intake_settle(&in);
        assert_true(SML_INTAKE_BYTES - in.from >= SML_FRAME_BYTES_MAX);
    }
    for (size_t i = 0; i + 60000 < total; i++) /* nothing of it was overwritten */
        assert_int_equal(block->bytes[i], i / 30000);
    for (size_t i = 0; i < sml_intake_size(&in); i++)
        assert_int_equal(sml_intake_data(&in)[i], (total - sml_intake_size(&in) + i) / 30000);
    assert_true(sml_block_is_sole(block));
    block->backing.release(&block->backing);
    sml_intake_close(&in);
    assert_int_equal(blocks->out, 0);
    sml_intake_close(&in);
    sml_blocks_destroy(blocks);
}

/* Where there is no second block, nothing is left in the first. */
static void test_no_block(void **state)
{
    struct sml_blocks *blocks = sml_blocks_create(SML_INTAKE_BYTES, 4, 1);
    struct sml_intake in, other;

    (void)state;
    assert_true(sml_intake_open(&in, blocks));
    assert_false(sml_intake_open(&other, blocks));
    assert_false(in.block->backing.hold(&in.block->backing));
    read_bytes(&in, SML_INTAKE_BYTES, 3);
    in.from = SML_INTAKE_BYTES - 90000;
    sml_intake_settle(&in);
    assert_int_equal(in.from, 0);
    assert_int_equal(in.end, 90000);
    sml_intake_close(&in);
    sml_blocks_destroy(blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_anew),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_no_block),
    };

    return cmocka_run_group_tests_name("rpc/intake", tests, NULL, NULL);
}
