/* SPDX-License-Identifier: MIT */
/* reverse_kit.h - a server that calls its clients back, and clients with methods. Included once per
 * test program. */
#ifndef SML_TESTS_REVERSE_KIT_H
#define SML_TESTS_REVERSE_KIT_H

#include "client_kit.h"

#include <semel/backchannel.h>
#include <semel/stream.h>

/* A server whose method "hello" keeps its caller's backchannel. */
struct hub {
    struct kit_place place;
    struct semel_server *server;
    char address[256];
    pthread_mutex_t lock;
    struct semel_backchannel *channel; /* of the last that said hello */
};

static inline void on_hello(struct semel_request *request, void *user)
{
    struct hub *hub = user;
    struct semel_backchannel *channel = NULL;

    assert_int_equal(semel_request_backchannel(request, &channel), SEMEL_OK);
    pthread_mutex_lock(&hub->lock);
    semel_backchannel_unref(hub->channel);
    hub->channel = channel;
    pthread_mutex_unlock(&hub->lock);
    (void)semel_request_reply(request, NULL, 0);
}

/* Calls its caller back with the same body, and replies with what it says. */
static inline void on_bounce(struct semel_request *request, void *user)
{
    struct semel_backchannel *channel = NULL;
    struct semel_result result;

    (void)user;
    assert_int_equal(semel_request_backchannel(request, &channel), SEMEL_OK);
    if (semel_backchannel_call(channel, "echo", semel_request_body(request), NULL, &result) ==
        SEMEL_VALUE)
        (void)semel_request_reply(request, result.body.data, result.body.size);
    else
        (void)semel_request_fail(request, (int)result.status, result.text);
    semel_result_clear(&result);
    semel_backchannel_unref(channel);
}

static inline void on_server_echo(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    (void)semel_request_reply(request, body.data, body.size);
}

static inline void start_hub(struct hub *hub, const struct semel_server_options *options)
{
    assert_int_equal(semel_server_create(&hub->server, options), SEMEL_OK);
    assert_int_equal(semel_server_export(hub->server, "hello", on_hello, hub, NULL), SEMEL_OK);
    assert_int_equal(semel_server_export(hub->server, "bounce", on_bounce, hub, NULL), SEMEL_OK);
    assert_int_equal(semel_server_export(hub->server, "echo", on_server_echo, hub, NULL), SEMEL_OK);
    assert_int_equal(semel_server_listen(hub->server, hub->address), SEMEL_OK);
    assert_int_equal(semel_server_start(hub->server), SEMEL_OK);
}

static inline void open_hub(struct hub *hub, const struct semel_server_options *options)
{
    memset(hub, 0, sizeof *hub);
    pthread_mutex_init(&hub->lock, NULL);
    kit_place_make(&hub->place);
    snprintf(hub->address, sizeof hub->address, "unix:%s", hub->place.path);
    start_hub(hub, options);
}

static inline void close_hub(struct hub *hub)
{
    assert_int_equal(semel_server_destroy(hub->server), SEMEL_OK);
    semel_backchannel_unref(hub->channel);
    pthread_mutex_destroy(&hub->lock);
    kit_place_remove(&hub->place);
}

/* --- what clients export --------------------------------------------------------------------- */

struct node {
    atomic_int begun, cancelled, callbacks, ended;
    atomic_bool open; /* on_hold goes on */
    _Atomic(struct semel_request *) kept;
};

static inline void on_echo(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    (void)semel_request_reply(request, body.data, body.size);
}

static inline void on_fail(struct semel_request *request, void *user)
{
    (void)user;
    (void)semel_request_fail_with(request, 7, "out of paper", semel_bytes("tray 2", 6), "trace");
}

static inline void on_drop(struct semel_request *request, void *user)
{
    (void)user;
    (void)request;
}

static inline void note_cancel(struct semel_request *request, void *user)
{
    struct node *node = user;

    assert_int_equal(semel_request_reply(request, NULL, 0), SEMEL_WOULD_DEADLOCK);
    atomic_fetch_add(&node->callbacks, 1);
}

/* Until it is let go, or cancelled. */
static inline void on_hold(struct semel_request *request, void *user)
{
    struct node *node = user;

    semel_request_on_cancel(request, note_cancel, node);
    atomic_fetch_add(&node->begun, 1);
    while (!atomic_load(&node->open) && !semel_request_cancelled(request))
        kit_sleep_ms(1);
    atomic_fetch_add(&node->cancelled, semel_request_cancelled(request));
    if (semel_request_cancelled(request))
        (void)semel_request_fail(request, 1, "cancelled");
    else
        (void)semel_request_reply(request, "held", 4);
    assert_int_equal(semel_request_reply(request, NULL, 0), SEMEL_ALREADY);
    atomic_fetch_add(&node->ended, 1);
}

static inline void on_keep(struct semel_request *request, void *user)
{
    struct node *node = user;

    semel_request_take(request);
    atomic_store(&node->kept, request);
}

static inline void on_look(struct semel_request *request, void *user)
{
    struct semel_key key = semel_request_key(request), none = { { 0 } };
    struct semel_backchannel *channel = NULL;
    struct semel_bytes item;
    bool good = strcmp(semel_request_method(request), "look") == 0 &&
                strcmp(semel_request_content_type(request), "text/x") == 0 &&
                strncmp(semel_request_peer(request)->address, "unix:", 5) == 0 &&
                !semel_request_peer(request)->has_ids && semel_request_call(request) > 0 &&
                memcmp(&key, &none, sizeof key) != 0 && !*semel_request_idempotency_key(request) &&
                !semel_request_cancelled(request) && !semel_request_caller_left(request) &&
                semel_request_remaining_ms(request) > 0 &&
                semel_request_remaining_ms(request) <= 20000 && !semel_request_sends(request) &&
                !semel_request_takes(request);

    (void)user;
    good &= semel_request_next(request, 0, &item) == SEMEL_NO_STREAM;
    good &= semel_request_send(request, semel_bytes("x", 1), 0) == SEMEL_NO_STREAM;
    good &= semel_request_never_ran(request, NULL) == SEMEL_INVALID;
    good &= semel_request_backchannel(request, &channel) == SEMEL_INVALID;
    good &= semel_request_reply(request, NULL, 1) == SEMEL_INVALID;
    if (good)
        (void)semel_request_reply(request, "good", 4);
    else
        (void)semel_request_fail(request, 1, "not as it should be");
}

static inline void export_all(struct semel_client *client, struct node *node)
{
    struct semel_method_options one = { .limit = 1 };

    assert_int_equal(semel_client_export(client, "echo", on_echo, node, NULL), SEMEL_OK);
    assert_int_equal(semel_client_export(client, "fail", on_fail, node, NULL), SEMEL_OK);
    assert_int_equal(semel_client_export(client, "drop", on_drop, node, NULL), SEMEL_OK);
    assert_int_equal(semel_client_export(client, "hold", on_hold, node, NULL), SEMEL_OK);
    assert_int_equal(semel_client_export(client, "one", on_hold, node, &one), SEMEL_OK);
    assert_int_equal(semel_client_export(client, "keep", on_keep, node, NULL), SEMEL_OK);
    assert_int_equal(semel_client_export(client, "look", on_look, node, NULL), SEMEL_OK);
}

static inline void say_hello(struct semel_client *client)
{
    struct semel_result result;

    if (semel_client_call(client, "hello", semel_bytes(NULL, 0), NULL, &result) != SEMEL_VALUE)
        fail_msg("%s", result.text);
    semel_result_clear(&result);
}

static inline struct semel_client *join_hub(const char *address,
                                            const struct semel_client_options *options,
                                            struct node *node)
{
    struct semel_client *client = open_client(address, options);

    memset(node, 0, sizeof *node);
    export_all(client, node);
    say_hello(client);
    return client;
}

static inline void expect(struct hub *hub, const char *method, const char *body,
                          int64_t deadline_ms, enum semel_outcome outcome, enum semel_status status)
{
    struct semel_call_options options = { .deadline_ms = deadline_ms };
    struct semel_result result;

    assert_int_equal(
        semel_backchannel_call(hub->channel, method, semel_bytes_text(body), &options, &result),
        outcome);
    assert_int_equal(result.outcome, outcome);
    if (result.status != status)
        fail_msg("%s", result.text);
    semel_result_clear(&result);
}

static inline bool is_positive(void *arg)
{
    return atomic_load((atomic_int *)arg) > 0;
}

static inline void await(atomic_int *count)
{
    assert_true(kit_eventually(is_positive, count, 60));
}

/* --- many calls ---------------------------------------------------------------------------- */

struct tally {
    atomic_int done, values, not_executed, unknown;
};

static inline void count_end(struct semel_result *result, void *user)
{
    struct tally *tally = user;

    atomic_fetch_add(&tally->values, result->outcome == SEMEL_VALUE);
    atomic_fetch_add(&tally->not_executed, result->outcome == SEMEL_NOT_EXECUTED);
    atomic_fetch_add(&tally->unknown, result->outcome == SEMEL_UNKNOWN);
    atomic_fetch_add(&tally->done, 1);
}

static atomic_int wanted;

static inline bool all_done(void *arg)
{
    return atomic_load(&((struct tally *)arg)->done) >= atomic_load(&wanted);
}

static inline void await_all(struct tally *tally, int count)
{
    atomic_store(&wanted, count);
    assert_true(kit_eventually(all_done, tally, 60));
}

#endif
