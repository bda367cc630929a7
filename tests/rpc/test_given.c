/* SPDX-License-Identifier: MIT */
/* Memory that was given away comes back once, when its last part is gone; never if it was not
 * accepted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "rpc/given.h"
#include "rpc/item.h"

static uint8_t bytes[200000];
static int released, told;

static void on_release(struct semel_bytes item, void *user)
{
    assert_ptr_equal(item.data, bytes);
    assert_ptr_equal(user, &released);
    released++;
}

static void on_told(struct sml_returns *returns)
{
    assert_true(sml_returns_any(returns));
    told++;
}

static void check(size_t size, bool accept, uint32_t parts_expected)
{
    struct sml_returns returns;
    struct sml_given *given;
    struct sml_list parts;
    struct sml_part *part;
    uint32_t count = 0;
    size_t at = 0;

    released = told = 0;
    sml_returns_init(&returns, on_told);
    given = sml_given_cut(semel_bytes(bytes, size), on_release, &released, &returns, &parts);
    assert_non_null(given);
    if (accept)
        sml_given_accept(given);
    while ((part = sml_part_pop(&parts)) != NULL) {
        assert_true(size == 0 || part->bytes == bytes + at);
        at += part->size;
        count++;
        assert_int_equal(part->kind, at == size ? SML_PART_ITEM : SML_PART_PIECE);
        assert_int_equal(told, 0);
        sml_part_release(&sml_mem_libc, part);
    }
    assert_int_equal(at, size);
    assert_int_equal(count, parts_expected);
    assert_int_equal(told, accept ? 1 : 0);
    assert_int_equal(released, 0); /* not by whoever let go */
    sml_returns_run(&returns);
    sml_returns_run(&returns);
    assert_int_equal(released, accept ? 1 : 0);
    sml_returns_fini(&returns);
}

static void test_returned(void **state)
{
    (void)state;
    check(200000, true, 4);
    check(65536, true, 1);
    check(1, true, 1);
    check(0, true, 1);
}

static void test_refused(void **state)
{
    (void)state;
    check(200000, false, 4);
    check(1, false, 1);
}

static void test_at_the_end(void **state)
{
    struct sml_returns returns;
    struct sml_given *given;
    struct sml_list parts;

    (void)state;
    released = 0;
    sml_returns_init(&returns, NULL);
    given = sml_given_cut(semel_bytes(bytes, 9), on_release, &released, &returns, &parts);
    sml_given_accept(given);
    sml_parts_free(&parts);
    sml_returns_fini(&returns);
    assert_int_equal(released, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_returned),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_at_the_end),
    };

    return cmocka_run_group_tests_name("rpc/given", tests, NULL, NULL);
}
