/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <semel/status.h>

static const struct row {
    enum semel_status status;
    const char *name;
} rows[] = {
#define ROW(name, number, text, category) { SEMEL_##name, #name },
    SEMEL_STATUS_TABLE(ROW)
#undef ROW
};

#define ROWS (sizeof rows / sizeof rows[0])

static void table(void **state)
{
    (void)state;
    assert_int_equal(SEMEL_OK, 0);
    for (size_t i = 0; i < ROWS; i++) {
        assert_string_equal(semel_status_name(rows[i].status), rows[i].name);
        assert_true(strlen(semel_status_text(rows[i].status)) > 1);
        for (size_t j = 0; j < i; j++) {
            assert_int_not_equal(rows[i].status, rows[j].status);
            assert_string_not_equal(semel_status_text(rows[i].status),
                                    semel_status_text(rows[j].status));
        }
    }
    assert_string_equal(semel_status_text(SEMEL_LINK_LOST), "link lost");
    assert_string_equal(semel_status_text(SEMEL_PEER_DIED), "peer died");
}

static void categories(void **state)
{
    (void)state;
    assert_int_equal(semel_status_category(SEMEL_OK), SEMEL_CATEGORY_OK);
    assert_int_equal(semel_status_category(SEMEL_FORKED), SEMEL_CATEGORY_USAGE);
    assert_int_equal(semel_status_category(SEMEL_NO_MEMORY), SEMEL_CATEGORY_LOCAL);
    assert_int_equal(semel_status_category(SEMEL_LINK_LOST), SEMEL_CATEGORY_LINK);
    assert_int_equal(semel_status_category(SEMEL_VERSION), SEMEL_CATEGORY_PROTOCOL);
    assert_int_equal(semel_status_category(SEMEL_EXPIRED), SEMEL_CATEGORY_CALL);
}

static void outside(void **state)
{
    (void)state;
    assert_string_equal(semel_status_name((enum semel_status)8), "?");
    assert_string_equal(semel_status_text((enum semel_status) - 1), "?");
    assert_int_equal(semel_status_category((enum semel_status)999), SEMEL_CATEGORY_USAGE);
    assert_string_equal(semel_outcome_text((enum semel_outcome)4), "?");
}

static void outcomes(void **state)
{
    (void)state;
    assert_string_equal(semel_outcome_text(SEMEL_VALUE), "value");
    assert_string_equal(semel_outcome_text(SEMEL_FAILURE), "failure");
    assert_string_equal(semel_outcome_text(SEMEL_NOT_EXECUTED), "not executed");
    assert_string_equal(semel_outcome_text(SEMEL_UNKNOWN), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "status: each has its name and its own text", table, NULL, NULL, NULL },
        { "status: categories", categories, NULL, NULL, NULL },
        { "status: numbers outside the table", outside, NULL, NULL, NULL },
        { "status: outcomes", outcomes, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
