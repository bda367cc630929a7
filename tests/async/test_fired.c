/* SPDX-License-Identifier: MIT */
#include "async/deferred_kit.h"

#include "async/deferred.h"

static void values(void **state)
{
    struct semel_fired fired, other;
    struct item one = { 1, 0 }, two = { 2, 0 };

    (void)state;
    sml_fired_init(&fired);
    assert_int_equal(fired.status, SEMEL_OK);
    assert_null(fired.value);
    assert_string_equal(fired.text, "");
    semel_fired_set_value(&fired, &one, drop_item);
    semel_fired_set_value(&fired, &one, drop_item); /* the same: it stays */
    assert_int_equal(one.dropped, 0);
    semel_fired_set_value(&fired, &two, drop_item);
    assert_int_equal(one.dropped, 1);
    sml_fired_init(&other);
    sml_fired_move(&other, &fired);
    assert_null(fired.value);
    semel_fired_clear(&fired);
    assert_int_equal(two.dropped, 0);
    assert_ptr_equal(semel_fired_take(&other), &two);
    assert_null(semel_fired_take(&other));
    semel_fired_clear(&other);
    assert_int_equal(two.dropped, 0); /* whoever took it has it */
    semel_fired_set_value(&other, &two, NULL);
    semel_fired_clear(&other);
}

static void failures(void **state)
{
    struct semel_fired fired, other;
    struct item one = { 1, 0 };

    (void)state;
    sml_fired_init(&fired);
    semel_fired_set_value(&fired, &one, drop_item);
    semel_fired_set_failure(&fired, SEMEL_LIMIT, 5, NULL);
    assert_int_equal(one.dropped, 1);
    assert_int_equal(fired.status, SEMEL_LIMIT);
    assert_int_equal(fired.code, 5);
    assert_string_equal(fired.text, semel_status_text(SEMEL_LIMIT));
    semel_fired_set_failure(&fired, SEMEL_OK, 0, "a failure of OK");
    assert_int_equal(fired.status, SEMEL_INVALID);
    semel_fired_set_failure(&fired, SEMEL_FAILED, 0, fired.text + 2); /* its own words */
    assert_string_equal(fired.text, "failure of OK");
    sml_fired_move(&other, &fired);
    assert_int_equal(fired.status, SEMEL_OK);
    assert_string_equal(other.text, "failure of OK");
    semel_fired_set_value(&other, &one, NULL);
    assert_string_equal(other.text, "");
    assert_int_equal(other.code, 0);
}

/* Words are cut at a character's border. */
static void long_words(void **state)
{
    char words[3 * SEMEL_FIRED_TEXT_BYTES];
    struct semel_fired fired;

    (void)state;
    sml_fired_init(&fired);
    memset(words, 'x', sizeof words);
    words[SEMEL_FIRED_TEXT_BYTES - 1] = '\0'; /* just fits */
    semel_fired_set_failure(&fired, SEMEL_FAILED, 0, words);
    assert_int_equal(strlen(fired.text), SEMEL_FIRED_TEXT_BYTES - 1);
    words[SEMEL_FIRED_TEXT_BYTES - 1] = 'x';
    words[sizeof words - 1] = '\0';
    semel_fired_set_failure(&fired, SEMEL_FAILED, 0, words);
    assert_int_equal(strlen(fired.text), SEMEL_FIRED_TEXT_BYTES - 1);
    memcpy(words + SEMEL_FIRED_TEXT_BYTES - 3, "\xe2\x82\xac", 3); /* would end behind the end */
    semel_fired_set_failure(&fired, SEMEL_FAILED, 0, words);
    assert_int_equal(strlen(fired.text), SEMEL_FIRED_TEXT_BYTES - 3);
    memset(words, 0x80, SEMEL_FIRED_TEXT_BYTES + 1); /* no character at all */
    semel_fired_set_failure(&fired, SEMEL_FAILED, 0, words);
    assert_string_equal(fired.text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "fired: values", values, NULL, NULL, NULL },
        { "fired: failures", failures, NULL, NULL, NULL },
        { "fired: long words", long_words, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
