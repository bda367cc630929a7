/* SPDX-License-Identifier: MIT */
/* Streams as handlers see them. */
#include "client_kit.h"

#include <semel/stream.h>

struct shop {
    struct kit_place place;
    struct semel_server *server;
    struct semel_client *client;
    struct semel_request *taken;
    atomic_int begun;
    enum semel_status seen[8];
};

static void on_plain(struct semel_request *request, void *user)
{
    struct shop *shop = user;
    struct semel_bytes item;

    shop->seen[0] = semel_request_send(request, semel_bytes("x", 1), 0);
    shop->seen[1] = semel_request_progress(request, semel_bytes("x", 1));
    shop->seen[2] = semel_request_next(request, 0, &item);
    shop->seen[3] = semel_request_sends(request) || semel_request_takes(request);
    (void)semel_request_reply(request, NULL, 0);
    shop->seen[4] = semel_request_send(request, semel_bytes("x", 1), 0);
    shop->seen[5] = semel_request_progress(request, semel_bytes("x", 1));
    shop->seen[6] = semel_request_next(request, 0, &item);
    atomic_store(&shop->begun, 1);
}

static void on_limits(struct semel_request *request, void *user)
{
    uint8_t much[SEMEL_PROGRESS_BYTES + 1] = { 0 };
    struct shop *shop = user;

    shop->seen[0] = semel_request_progress(request, semel_bytes(much, sizeof much));
    shop->seen[1] = semel_request_progress(request, semel_bytes(much, sizeof much - 1));
    shop->seen[2] = semel_request_send(request, semel_bytes(NULL, 1), 0);
    shop->seen[3] = semel_request_takes(request) && !semel_request_sends(request);
    (void)semel_request_reply(request, NULL, 0);
}

/* Says what became of each item. */
static void on_items(struct semel_request *request, void *user)
{
    struct shop *shop = user;
    struct semel_bytes item;
    int count = 0;

    do
        shop->seen[count] = semel_request_next(request, -1, &item);
    while (shop->seen[count++] != SEMEL_END && count < 8);
    (void)semel_request_reply(request, NULL, 0);
}

static void on_take(struct semel_request *request, void *user)
{
    struct shop *shop = user;

    semel_request_take(request);
    shop->taken = request;
    atomic_store(&shop->begun, 1);
}

/* Waits for what never comes, until it is told to end. */
static void on_wait(struct semel_request *request, void *user)
{
    struct shop *shop = user;
    struct semel_bytes item;

    atomic_store(&shop->begun, 1);
    shop->seen[0] = semel_request_next(request, -1, &item);
    atomic_store(&shop->begun, 2);
    (void)semel_request_fail(request, 1, "it was cancelled");
}

/* So many items of 1 KiB as the body has bytes. */
static void on_burst(struct semel_request *request, void *user)
{
    size_t count = semel_request_body(request).size;
    uint8_t item[1024] = { 0 };
    enum semel_status status = SEMEL_OK;

    (void)user;
    for (size_t i = 0; i < count && status == SEMEL_OK; i++)
        status = semel_request_send(request, semel_bytes(item, sizeof item), -1);
    (void)semel_request_reply(request, NULL, 0);
}

static void open_shop(struct shop *shop)
{
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    struct semel_method_options takes = SEMEL_METHOD_OPTIONS_INIT;
    char address[256];

    memset(shop, 0, sizeof *shop);
    takes.takes_items = true;
    options.body_bytes = 100000;
    kit_place_make(&shop->place);
    snprintf(address, sizeof address, "unix:%s", shop->place.path);
    assert_int_equal(semel_server_create(&shop->server, &options), SEMEL_OK);
    assert_int_equal(semel_server_export(shop->server, "plain", on_plain, shop, NULL), SEMEL_OK);
    assert_int_equal(semel_server_export(shop->server, "burst", on_burst, shop, NULL), SEMEL_OK);
    assert_int_equal(semel_server_export(shop->server, "limits", on_limits, shop, NULL), SEMEL_OK);
    assert_int_equal(semel_server_export(shop->server, "items", on_items, shop, &takes), SEMEL_OK);
    assert_int_equal(semel_server_export(shop->server, "take", on_take, shop, &takes), SEMEL_OK);
    assert_int_equal(semel_server_export(shop->server, "wait", on_wait, shop, &takes), SEMEL_OK);
    assert_int_equal(semel_server_listen(shop->server, address), SEMEL_OK);
    assert_int_equal(semel_server_start(shop->server), SEMEL_OK);
    shop->client = open_client(address, NULL);
}

static void close_shop(struct shop *shop)
{
    close_client(shop->client);
    assert_int_equal(semel_server_destroy(shop->server), SEMEL_OK);
    kit_place_remove(&shop->place);
}

static struct semel_stream *call(struct shop *shop, const char *method, bool sends, bool takes)
{
    struct semel_stream_options options = { .sends = sends, .takes = takes };
    struct semel_stream *stream;

    assert_int_equal(
        semel_client_stream(shop->client, method, semel_bytes(NULL, 0), NULL, &options, &stream),
        SEMEL_OK);
    return stream;
}

static enum semel_outcome end(struct semel_stream *stream)
{
    struct semel_result result;
    enum semel_outcome outcome;

    assert_int_equal(semel_stream_result(stream, 30000, &result), SEMEL_OK);
    outcome = result.outcome;
    semel_result_clear(&result);
    semel_stream_free(stream);
    return outcome;
}

static bool has_begun(void *arg)
{
    return atomic_load(&((struct shop *)arg)->begun) > 0;
}

static bool has_ended(void *arg)
{
    return atomic_load(&((struct shop *)arg)->begun) > 1;
}

static void test_no_stream(void **state)
{
    struct semel_result result;
    struct shop shop;

    (void)state;
    open_shop(&shop);
    assert_int_equal(semel_client_call(shop.client, "plain", semel_bytes(NULL, 0), NULL, &result),
                     SEMEL_VALUE);
    semel_result_clear(&result);
    assert_true(kit_eventually(has_begun, &shop, 60)); /* it goes on after its reply */
    for (int i = 0; i < 3; i++)
        assert_int_equal(shop.seen[i], SEMEL_NO_STREAM);
    assert_int_equal(shop.seen[3], 0);
    for (int i = 4; i < 7; i++)
        assert_int_equal(shop.seen[i], SEMEL_ALREADY);
    close_shop(&shop);
}

static void test_limits(void **state)
{
    struct shop shop;

    (void)state;
    open_shop(&shop);
    assert_int_equal(end(call(&shop, "limits", false, true)), SEMEL_VALUE);
    assert_int_equal(shop.seen[0], SEMEL_TOO_LARGE);
    assert_int_equal(shop.seen[1], SEMEL_OK);
    assert_int_equal(shop.seen[2], SEMEL_INVALID);
    assert_true(shop.seen[3]);
    close_shop(&shop);
}

/* An item larger than the server takes is told, and the next one comes. */
static void test_too_large(void **state)
{
    uint8_t *much = calloc(1, 100001);
    struct semel_stream *stream;
    struct shop shop;

    (void)state;
    open_shop(&shop);
    stream = call(&shop, "items", true, false);
    assert_int_equal(semel_stream_send(stream, semel_bytes(much, 100000), -1), SEMEL_OK);
    assert_int_equal(semel_stream_send(stream, semel_bytes(much, 100001), -1), SEMEL_OK);
    assert_int_equal(semel_stream_send(stream, semel_bytes(much, 1), -1), SEMEL_OK);
    assert_int_equal(semel_stream_end(stream), SEMEL_OK);
    assert_int_equal(end(stream), SEMEL_VALUE);
    assert_int_equal(shop.seen[0], SEMEL_OK);
    assert_int_equal(shop.seen[1], SEMEL_TOO_LARGE);
    assert_int_equal(shop.seen[2], SEMEL_OK);
    assert_int_equal(shop.seen[3], SEMEL_END);
    close_shop(&shop);
    free(much);
}

/* A request that was taken sends and reads on another thread, after its handler. */
static void test_taken(void **state)
{
    struct semel_stream *stream;
    struct semel_item item;
    struct semel_bytes got;
    struct shop shop;

    (void)state;
    open_shop(&shop);
    stream = call(&shop, "take", true, true);
    assert_true(kit_eventually(has_begun, &shop, 30));
    assert_int_equal(semel_request_next(shop.taken, 0, &got), SEMEL_WOULD_BLOCK);
    assert_int_equal(semel_stream_send(stream, semel_bytes("there", 5), -1), SEMEL_OK);
    assert_int_equal(semel_request_next(shop.taken, 30000, &got), SEMEL_OK);
    assert_int_equal(got.size, 5);
    assert_int_equal(semel_request_send(shop.taken, semel_bytes("and back", 8), -1), SEMEL_OK);
    assert_int_equal(semel_stream_next(stream, 30000, &item), SEMEL_OK);
    assert_memory_equal(item.bytes.data, "and back", 8);
    assert_int_equal(semel_request_reply(shop.taken, NULL, 0), SEMEL_OK);
    assert_int_equal(end(stream), SEMEL_VALUE);
    close_shop(&shop);
}

/* A handler that waits for items is told when nobody wants it any more, or the server stops. */
static void test_cancelled(void **state)
{
    struct semel_stream *stream;
    struct shop shop;

    (void)state;
    for (int how = 0; how < 3; how++) {
        open_shop(&shop);
        stream = call(&shop, "wait", true, false);
        assert_true(kit_eventually(has_begun, &shop, 30));
        if (how == 0)
            semel_stream_cancel(stream);
        else if (how == 1)
            semel_client_stop(shop.client);
        else
            semel_server_stop(shop.server);
        assert_true(kit_eventually(has_ended, &shop, 30));
        assert_int_equal(shop.seen[0], SEMEL_CANCELLED);
        semel_stream_free(stream);
        close_shop(&shop);
    }
}

static uint64_t run_burst(struct shop *shop, const void *body, size_t size)
{
    struct semel_stream_options options = { .takes = true };
    struct semel_stream *stream;
    struct semel_item item;
    uint64_t bytes = 0;

    assert_int_equal(semel_client_stream(shop->client, "burst", semel_bytes(body, size), NULL,
                                         &options, &stream),
                     SEMEL_OK);
    while (semel_stream_next(stream, 60000, &item) == SEMEL_OK)
        bytes += item.bytes.size;
    semel_stream_free(stream);
    return bytes;
}

static bool has_run_inline(void *arg)
{
    struct semel_server_counters counters;
    struct shop *shop = arg;
    static uint8_t body[2];

    for (int i = 0; i < 200; i++)
        assert_int_equal(run_burst(shop, body, sizeof body), 2 * 1024);
    semel_server_counters(shop->server, &counters);
    return counters.calls_inline > 0;
}

/* A handler that only sends runs on the thread that reads, if it is brisk; and when for once it has
 * to wait for the one who reads, another thread goes on reading. */
static void test_on_the_reading_thread(void **state)
{
    enum { MANY = 8192 };
    struct semel_stream_options options = { .takes = true };
    struct semel_stream *stream;
    struct semel_result result;
    struct semel_item item;
    static uint8_t body[MANY];
    uint64_t bytes = 0;
    struct shop shop;

    (void)state;
    open_shop(&shop);
    assert_true(SLOW_BUILD || kit_eventually(has_run_inline, &shop, 60));
    for (int round = 0; round < 3; round++) {
        assert_int_equal(semel_client_stream(shop.client, "burst", semel_bytes(body, MANY), NULL,
                                             &options, &stream),
                         SEMEL_OK);
        for (int i = 0; i < 20; i++) { /* which the same server serves meanwhile */
            assert_int_equal(
                semel_client_call(shop.client, "limits", semel_bytes(NULL, 0), NULL, &result),
                SEMEL_VALUE);
            semel_result_clear(&result);
        }
        for (bytes = 0; semel_stream_next(stream, 60000, &item) == SEMEL_OK;)
            bytes += item.bytes.size;
        assert_int_equal(bytes, MANY * 1024);
        semel_stream_free(stream);
    }
    close_shop(&shop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("a call without a stream", test_no_stream),
        TEST("limits of progress and items", test_limits),
        TEST("an item that is too large", test_too_large),
        TEST("a request that was taken", test_taken),
        TEST("a handler that waits is told", test_cancelled),
        TEST("a handler that sends, on the reading thread", test_on_the_reading_thread),
    };

    return cmocka_run_group_tests_name("rpc/request_stream", tests, NULL, NULL);
}
