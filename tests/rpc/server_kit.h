/* SPDX-License-Identifier: MIT */
/* server_kit.h - what the tests of the server share. Included once per test program.
 *
 *   rig    a server at a place of its own, a client of it, and what the server logged
 *   gate   a handler that waits until the test lets it go, and counts who is inside
 *   seen   what became of a started call */
#ifndef SML_TESTS_SERVER_KIT_H
#define SML_TESTS_SERVER_KIT_H

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

#define TEST(name, function)                                                                       \
    {                                                                                              \
        name, function, NULL, NULL, NULL                                                           \
    }
#define UNUSED __attribute__((unused))

/* An assertion for threads that are not the test's own. */
#define REQUIRE(x)                                                                                 \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* --- rig ------------------------------------------------------------------------------------- */

struct rig {
    struct kit_place place;
    struct semel_server *server;
    struct semel_client *client;
    pthread_mutex_t lock;
    char log[65536];
    size_t logged;
};

UNUSED static void keep_log(enum semel_log_level level, const char *text, void *user)
{
    struct rig *rig = user;

    (void)level;
    pthread_mutex_lock(&rig->lock);
    rig->logged +=
        (size_t)snprintf(rig->log + rig->logged, sizeof rig->log - rig->logged, "%s\n", text);
    if (rig->logged >= sizeof rig->log)
        rig->logged = sizeof rig->log - 1;
    pthread_mutex_unlock(&rig->lock);
}

UNUSED static bool log_has(struct rig *rig, const char *text)
{
    bool has;

    pthread_mutex_lock(&rig->lock);
    has = strstr(rig->log, text) != NULL;
    pthread_mutex_unlock(&rig->lock);
    return has;
}

UNUSED static int log_count(struct rig *rig, const char *text)
{
    int count = 0;

    pthread_mutex_lock(&rig->lock);
    for (const char *at = rig->log; (at = strstr(at, text)) != NULL; at++)
        count++;
    pthread_mutex_unlock(&rig->lock);
    return count;
}

/* The server exists, but does not serve yet. */
UNUSED static struct rig *rig_make(const struct semel_server_options *options)
{
    struct rig *rig = calloc(1, sizeof *rig);
    struct semel_server_options mine = SEMEL_SERVER_OPTIONS_INIT;

    assert_non_null(rig);
    if (options)
        mine = *options;
    pthread_mutex_init(&rig->lock, NULL);
    mine.log = keep_log;
    mine.log_user = rig;
    kit_place_make(&rig->place);
    assert_int_equal(semel_server_create(&rig->server, &mine), SEMEL_OK);
    return rig;
}

UNUSED static void rig_export(struct rig *rig, const char *method, semel_handler_fn handler,
                              void *user, const struct semel_method_options *options)
{
    assert_int_equal(semel_server_export(rig->server, method, handler, user, options), SEMEL_OK);
}

UNUSED static struct semel_client *rig_connect(struct rig *rig,
                                               const struct semel_client_options *options)
{
    struct semel_client *client = NULL;

    assert_int_equal(semel_client_create(&client, rig->place.address, options), SEMEL_OK);
    return client;
}

/* Listen and serve, without a client. */
UNUSED static void rig_serve(struct rig *rig)
{
    assert_int_equal(semel_server_listen(rig->server, rig->place.address), SEMEL_OK);
    assert_int_equal(semel_server_start(rig->server), SEMEL_OK);
}

/* Listen, serve, connect. */
UNUSED static void rig_go(struct rig *rig)
{
    rig_serve(rig);
    rig->client = rig_connect(rig, NULL);
}

UNUSED static void rig_end(struct rig *rig)
{
    assert_int_equal(semel_client_destroy(rig->client), SEMEL_OK);
    assert_int_equal(semel_server_destroy(rig->server), SEMEL_OK);
    kit_place_remove(&rig->place);
    pthread_mutex_destroy(&rig->lock);
    free(rig);
}

UNUSED static struct semel_server_counters rig_counters(struct rig *rig)
{
    struct semel_server_counters counters;

    semel_server_counters(rig->server, &counters);
    return counters;
}

/* --- handlers -------------------------------------------------------------------------------- */

UNUSED static void echo(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    REQUIRE(semel_request_reply(request, body.data, body.size) == SEMEL_OK);
}

/* Calls that go in stay until the gate is open; then they reply with their body. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int inside, most, passed;
    bool open;
};

UNUSED static void gate_init(struct gate *gate)
{
    memset(gate, 0, sizeof *gate);
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->changed, NULL);
}

UNUSED static void gate_fini(struct gate *gate)
{
    pthread_mutex_destroy(&gate->lock);
    pthread_cond_destroy(&gate->changed);
}

UNUSED static void gate_open(struct gate *gate, bool open)
{
    pthread_mutex_lock(&gate->lock);
    gate->open = open;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

UNUSED static bool gate_is_open(struct gate *gate)
{
    bool open;

    pthread_mutex_lock(&gate->lock);
    open = gate->open;
    pthread_mutex_unlock(&gate->lock);
    return open;
}

UNUSED static int gate_inside(struct gate *gate)
{
    int inside;

    pthread_mutex_lock(&gate->lock);
    inside = gate->inside;
    pthread_mutex_unlock(&gate->lock);
    return inside;
}

UNUSED static void gate_pass(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->inside++;
    if (gate->inside > gate->most)
        gate->most = gate->inside;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open)
        pthread_cond_wait(&gate->changed, &gate->lock);
    gate->inside--;
    gate->passed++;
    pthread_mutex_unlock(&gate->lock);
}

UNUSED static void wait_inside(struct gate *gate, int count)
{
    pthread_mutex_lock(&gate->lock);
    while (gate->inside < count)
        pthread_cond_wait(&gate->changed, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

UNUSED static void gated(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    gate_pass(user);
    (void)!semel_request_reply(request, body.data, body.size);
}

/* --- calls ----------------------------------------------------------------------------------- */

/* What became of a started call. */
struct seen {
    atomic_int times;
    enum semel_outcome outcome;
    enum semel_status status;
    struct semel_result result;
};

UNUSED static void note(struct semel_result *result, void *user)
{
    struct seen *seen = user;

    seen->outcome = result->outcome;
    seen->status = result->status;
    (void)!semel_result_take(result, &seen->result);
    atomic_fetch_add(&seen->times, 1);
}

UNUSED static void start_call(struct semel_client *client, const char *method, const char *body,
                              const struct semel_call_options *options, struct seen *seen,
                              struct semel_call **out_call)
{
    memset(seen, 0, sizeof *seen);
    assert_int_equal(
        semel_client_start(client, method, semel_bytes_text(body), options, note, seen, out_call),
        SEMEL_OK);
}

UNUSED static bool was_seen(void *arg)
{
    return atomic_load(&((struct seen *)arg)->times) > 0;
}

UNUSED static void wait_seen(struct seen *seen)
{
    assert_true(kit_eventually(was_seen, seen, 60));
    assert_int_equal(atomic_load(&seen->times), 1);
}

/* One call whose outcome and status are these; the result is the caller's to clear. */
UNUSED static struct semel_result expect(struct semel_client *client, const char *method,
                                         const char *body, const struct semel_call_options *options,
                                         enum semel_outcome outcome, enum semel_status status)
{
    struct semel_result result = { 0 };

    (void)semel_client_call(client, method, semel_bytes_text(body), options, &result);
    if (result.outcome != outcome || result.status != status)
        fail_msg("%s: %s, %s: %s", method, semel_outcome_text(result.outcome),
                 semel_status_name(result.status), result.text ? result.text : "");
    return result;
}

UNUSED static void expect_echo(struct semel_client *client, const char *text)
{
    struct semel_result result = expect(client, "echo", text, NULL, SEMEL_VALUE, SEMEL_OK);

    assert_int_equal(result.body.size, strlen(text));
    assert_memory_equal(result.body.data, text, strlen(text));
    semel_result_clear(&result);
}

UNUSED static void expect_gone(struct semel_client *client, const char *method,
                               enum semel_outcome outcome, enum semel_status status)
{
    struct semel_result result = expect(client, method, "", NULL, outcome, status);

    semel_result_clear(&result);
}

#endif
