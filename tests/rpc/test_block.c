/* SPDX-License-Identifier: MIT */
/* Blocks: shared, kept for the next, bounded, and outliving those whose they are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "rpc/block.h"

static void test_shared(void **state)
{
    struct sml_blocks *blocks = sml_blocks_create(100, 1, 3);
    struct sml_block *block = sml_block_take(blocks);

    (void)state;
    memset(block->bytes, 1, 100);
    assert_true(sml_block_is_sole(block));
    assert_true(block->backing.hold(&block->backing));
    assert_false(sml_block_is_sole(block));
    assert_non_null(block->next); /* the one to be read into after it */
    block->backing.release(&block->backing);
    assert_true(sml_block_is_sole(block));
    sml_block_unref(block->next);
    block->next = NULL;
    sml_block_unref(block);
    assert_int_equal(blocks->out, 0);
    assert_int_equal(blocks->kept_count, 1);
    sml_blocks_destroy(blocks);
}

static void test_bounded(void **state)
{
    struct sml_blocks *blocks = sml_blocks_create(100, 8, 2);
    struct sml_block *one = sml_block_take(blocks), *two = sml_block_take(blocks);

    (void)state;
    assert_non_null(two);
    assert_null(sml_block_take(blocks));
    assert_false(one->backing.hold(&one->backing)); /* none is there to follow it */
    assert_true(sml_block_is_sole(one));
    sml_block_unref(two);
    assert_ptr_equal(sml_block_take(blocks), two); /* the one that was used last */
    sml_block_unref(two);
    sml_block_unref(one);
    sml_block_unref(NULL);
    sml_blocks_destroy(blocks);
    sml_blocks_destroy(NULL);
}

static void test_outlives(void **state)
{
    struct sml_blocks *blocks = sml_blocks_create(100, 8, 3);
    struct sml_block *one = sml_block_take(blocks), *two = sml_block_take(blocks);

    (void)state;
    sml_block_unref(two);
    sml_blocks_destroy(blocks);
    memset(one->bytes, 1, 100);
    sml_block_unref(one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_outlives),
    };

    return cmocka_run_group_tests_name("rpc/block", tests, NULL, NULL);
}
