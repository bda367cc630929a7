/* SPDX-License-Identifier: MIT */
/* client_kit.h - small helpers of the client's tests. Included once per test program. */
#ifndef SML_TESTS_CLIENT_KIT_H
#define SML_TESTS_CLIENT_KIT_H

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
#include <unistd.h>

#include <semel/semel.h>

#include "kit/kit.h"
#include "kit/script.h"

#define TEST(name, function)                                                                       \
    {                                                                                              \
        name, function, NULL, NULL, NULL                                                           \
    }

static inline struct semel_client *open_client(const char *address,
                                               const struct semel_client_options *options)
{
    struct semel_client *client = NULL;

    assert_int_equal(semel_client_create(&client, address, options), SEMEL_OK);
    assert_non_null(client);
    return client;
}

static inline void close_client(struct semel_client *client)
{
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
}

/* A call of `echo` with a text, whose answer must be that text. */
static inline void check_echo(struct semel_client *client, const char *text)
{
    struct semel_result result;

    if (semel_client_call(client, "echo", semel_bytes_text(text), NULL, &result) != SEMEL_VALUE)
        fail_msg("%s", result.text);
    assert_int_equal(result.body.size, strlen(text));
    assert_memory_equal(result.body.data, text, strlen(text));
    assert_string_equal(result.method, "echo");
    semel_result_clear(&result);
}

/* What a callback saw. */
struct seen {
    atomic_int times;
    enum semel_outcome outcome;
    enum semel_status status;
    struct semel_result taken;
};

static inline void note(struct semel_result *result, void *user)
{
    struct seen *seen = user;

    seen->outcome = result->outcome;
    seen->status = result->status;
    (void)!semel_result_take(result, &seen->taken);
    atomic_fetch_add(&seen->times, 1);
}

static inline bool was_seen(void *arg)
{
    return atomic_load(&((struct seen *)arg)->times) > 0;
}

static inline void wait_seen(struct seen *seen)
{
    assert_true(kit_eventually(was_seen, seen, 60));
}

#endif
