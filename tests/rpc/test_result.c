/* SPDX-License-Identifier: MIT */
/* Results: who owns what, and what they say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "rpc/result.h"

#define TEST(name, function)                                                                       \
    {                                                                                              \
        name, function, NULL, NULL, NULL                                                           \
    }

static struct sml_call value_call(const char *body)
{
    return (struct sml_call){
        .method = "add",
        .method_bytes = 3,
        .xid = 17,
        .reply_in_place = true,
        .verdict = { .outcome = SEMEL_VALUE, .body = semel_bytes_text(body) },
    };
}

static void check_value(const struct semel_result *result, const char *body)
{
    assert_int_equal(result->outcome, SEMEL_VALUE);
    assert_int_equal(result->status, SEMEL_OK);
    assert_int_equal(result->body.size, strlen(body));
    assert_memory_equal(result->body.data, body, strlen(body));
    assert_string_equal(result->method, "add");
    assert_string_equal(result->peer, "unix:/s");
    assert_null(result->text);
    assert_null(result->trace);
    assert_int_equal(result->call, 17);
}

static void check_empty(const struct semel_result *result)
{
    static const struct semel_result empty;

    assert_memory_equal(result, &empty, sizeof empty);
}

static void test_own(void **state)
{
    struct sml_call call = value_call("five");
    size_t bytes = sml_result_value_bytes(4, 3, "unix:/s");
    struct sml_result_storage *storage;
    struct semel_result result;

    (void)state;
    sml_result_own(&result, &call, "unix:/s", NULL, NULL);
    check_value(&result, "five");
    assert_ptr_not_equal(result.body.data, call.verdict.body.data);
    semel_result_clear(&result);
    check_empty(&result);
    semel_result_clear(&result);
    semel_result_clear(NULL);
    /* Storage that was brought along is used if it suffices, and released if not. */
    storage = sml_result_storage_new(bytes);
    sml_result_own(&result, &call, "unix:/s", NULL, storage);
    assert_ptr_equal(result.storage, storage);
    check_value(&result, "five");
    semel_result_clear(&result);
    sml_result_own(&result, &call, "unix:/s", NULL, sml_result_storage_new(bytes - 1));
    check_value(&result, "five");
    assert_true((uintptr_t)result.body.data % 16 == 0);
    semel_result_clear(&result);
}

static void test_moved(void **state)
{
    struct sml_call call = value_call("");
    struct semel_result result, taken;
    uint8_t *reply = malloc(100);

    (void)state;
    memcpy(reply, "collected", 9);
    call.reply = reply;
    call.reply_in_place = false;
    call.verdict.body = semel_bytes(reply, 9);
    sml_result_own(&result, &call, "unix:/s", NULL, NULL);
    check_value(&result, "collected");
    assert_ptr_equal(result.body.data, reply);
    assert_null(call.reply);
    assert_int_equal(semel_result_take(&result, &taken), SEMEL_OK);
    check_empty(&result);
    check_value(&taken, "collected");
    semel_result_clear(&taken);
}

static void test_borrowed(void **state)
{
    struct sml_call call = value_call("here");
    struct semel_result result, taken;

    (void)state;
    sml_result_borrow(&result, &call, "unix:/s");
    check_value(&result, "here");
    assert_ptr_equal(result.body.data, call.verdict.body.data);
    assert_int_equal(semel_result_take(&result, &result), SEMEL_INVALID);
    assert_int_equal(semel_result_take(NULL, &taken), SEMEL_INVALID);
    assert_int_equal(semel_result_take(&result, &taken), SEMEL_OK);
    check_empty(&result);
    check_value(&taken, "here");
    assert_ptr_not_equal(taken.body.data, call.verdict.body.data);
    semel_result_clear(&taken);
}

static void test_words(void **state)
{
    struct sml_call call = value_call("");
    struct semel_result result;
    char message[200];

    (void)state;
    call.reply_in_place = false;
    call.verdict = (struct sml_verdict){ .outcome = SEMEL_UNKNOWN, .status = SEMEL_PEER_DIED };
    sml_result_own(&result, &call, "unix:/s", "reset", NULL);
    assert_string_equal(result.text, "call 17 of 'add' at unix:/s: peer died (reset)");
    semel_result_message(&result, message, sizeof message);
    assert_string_equal(message, "add at unix:/s, call 17: unknown: peer died (reset)");
    assert_int_equal(semel_result_message(&result, NULL, 0), strlen(message));
    semel_result_clear(&result);
    sml_result_refuse(&result, SEMEL_STOPPED, "a\nb", "unix:/s", NULL);
    assert_int_equal(result.outcome, SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_STOPPED);
    assert_string_equal(result.text, "call of 'a\\x0ab' at unix:/s: stopped");
    semel_result_message(&result, message, sizeof message);
    assert_string_equal(message, "a\\x0ab at unix:/s: not executed: stopped");
    semel_result_clear(&result);
    /* An empty result has something to say, too. */
    assert_true(semel_result_message(&result, message, sizeof message) > 0);
    assert_int_equal(semel_result_message(NULL, message, sizeof message), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("a result that owns its bytes", test_own),
        TEST("a reply moved in", test_moved),
        TEST("a result that borrows", test_borrowed),
        TEST("words", test_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
