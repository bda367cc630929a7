/* SPDX-License-Identifier: MIT */
/* Streams of calls, with real threads and sockets. */
#include "client_kit.h"

#include <semel/stream.h>

struct shop {
    struct kit_place place;
    struct semel_server *server;
    char address[256];
    atomic_int begun, ended, send_status;
};

static void fill(uint8_t *at, size_t bytes, uint32_t number)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(number * 31 + i * 7);
}

static bool is_filled(struct semel_bytes item, size_t bytes, uint32_t number)
{
    const uint8_t *at = item.data;

    for (size_t i = 0; i < item.size; i++)
        if (at[i] != (uint8_t)(number * 31 + i * 7))
            return false;
    return item.size == bytes;
}

struct order {
    uint32_t count, bytes;
};

static atomic_int moved, released; /* items that were sent without a copy, and came back */

static void on_release(struct semel_bytes item, void *user)
{
    atomic_fetch_add(&released, 1);
    memset((void *)(uintptr_t)item.data, 0xdd, item.size); /* nobody may want it any more */
    assert_ptr_equal(user, item.data);
    free(user);
}

static bool all_released(void *arg)
{
    (void)arg;
    return atomic_load(&released) == atomic_load(&moved);
}

/* The items of an order, moved; until one cannot be sent. */
static enum semel_status send_moved(struct semel_stream *stream, struct semel_request *request,
                                    struct order order, int64_t timeout_ms)
{
    enum semel_status status = SEMEL_OK;

    for (uint32_t i = 0; i < order.count && status == SEMEL_OK; i++) {
        uint8_t *bytes = malloc(order.bytes + 1);
        struct semel_bytes item = { bytes, order.bytes };

        fill(bytes, order.bytes, i);
        status = stream ? semel_stream_send_moved(stream, item, timeout_ms, on_release, bytes)
                        : semel_request_send_moved(request, item, timeout_ms, on_release, bytes);
        if (status == SEMEL_OK)
            atomic_fetch_add(&moved, 1);
        else
            free(bytes);
    }
    return status;
}

static void on_move(struct semel_request *request, void *user)
{
    struct shop *shop = user;
    enum semel_status status;
    struct order order;

    memcpy(&order, semel_request_body(request).data, sizeof order);
    status = send_moved(NULL, request, order, -1);
    atomic_store(&shop->send_status, (int)status);
    (void)semel_request_reply(request, &order.count, sizeof order.count);
    atomic_fetch_add(&shop->ended, 1);
}

/* `count` items of `bytes` bytes; the reply says how many. */
static void on_send(struct semel_request *request, void *user)
{
    struct shop *shop = user;
    enum semel_status status = SEMEL_OK;
    struct order order;
    uint8_t *item;

    memcpy(&order, semel_request_body(request).data, sizeof order);
    item = malloc(order.bytes + 1);
    atomic_fetch_add(&shop->begun, 1);
    for (uint32_t i = 0; i < order.count && status == SEMEL_OK; i++) {
        fill(item, order.bytes, i);
        status = semel_request_send(request, semel_bytes(item, order.bytes), -1);
    }
    free(item);
    atomic_store(&shop->send_status, (int)status);
    if (status == SEMEL_OK)
        (void)semel_request_reply(request, &order.count, sizeof order.count);
    else
        (void)semel_request_fail(request, (int)status, "not all was sent");
    atomic_fetch_add(&shop->ended, 1);
}

/* Counts items and checks them. */
static void on_take(struct semel_request *request, void *user)
{
    struct shop *shop = user;
    struct semel_bytes item;
    enum semel_status status;
    struct order order;
    uint32_t count = 0;

    memcpy(&order, semel_request_body(request).data, sizeof order);
    while ((status = semel_request_next(request, -1, &item)) == SEMEL_OK) {
        if (!is_filled(item, order.bytes, count)) {
            (void)semel_request_fail(request, (int)count, "not the item that was to come");
            return;
        }
        count++;
    }
    atomic_store(&shop->send_status, (int)status);
    if (status == SEMEL_END)
        (void)semel_request_reply(request, &count, sizeof count);
    else
        (void)semel_request_fail(request, (int)status, "no end");
}

/* Each item goes back. */
static void on_echo(struct semel_request *request, void *user)
{
    struct semel_bytes item;
    enum semel_status status;

    (void)user;
    while ((status = semel_request_next(request, -1, &item)) == SEMEL_OK)
        if (semel_request_send(request, item, -1) != SEMEL_OK)
            break;
    if (status == SEMEL_END)
        (void)semel_request_reply(request, NULL, 0);
    else
        (void)semel_request_fail(request, (int)status, "no end");
}

static void on_progress(struct semel_request *request, void *user)
{
    (void)user;
    for (uint32_t i = 1; i <= 100; i++) {
        if (semel_request_progress(request, semel_bytes(&i, sizeof i)) != SEMEL_OK)
            return;
        if (i % 10 == 0)
            kit_sleep_ms(1);
    }
    (void)semel_request_reply(request, NULL, 0);
}

/* Takes nothing until it is cancelled. */
static void on_idle(struct semel_request *request, void *user)
{
    (void)user;
    while (!semel_request_cancelled(request))
        kit_sleep_ms(1);
    (void)semel_request_fail(request, 1, "cancelled");
}

static void on_plain(struct semel_request *request, void *user)
{
    (void)user;
    (void)semel_request_reply(request, NULL, 0);
}

static void open_shop(struct shop *shop)
{
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    struct semel_method_options takes = SEMEL_METHOD_OPTIONS_INIT;

    memset(shop, 0, sizeof *shop);
    takes.takes_items = true;
    options.workers = 4;
    kit_place_make(&shop->place);
    snprintf(shop->address, sizeof shop->address, "unix:%s", shop->place.path);
    assert_int_equal(semel_server_create(&shop->server, &options), SEMEL_OK);
    assert_int_equal(semel_server_export(shop->server, "send", on_send, shop, NULL), SEMEL_OK);
    assert_int_equal(semel_server_export(shop->server, "move", on_move, shop, NULL), SEMEL_OK);
    assert_int_equal(semel_server_export(shop->server, "take", on_take, shop, &takes), SEMEL_OK);
    assert_int_equal(semel_server_export(shop->server, "echo", on_echo, shop, &takes), SEMEL_OK);
    assert_int_equal(semel_server_export(shop->server, "progress", on_progress, shop, NULL),
                     SEMEL_OK);
    assert_int_equal(semel_server_export(shop->server, "plain", on_plain, shop, NULL), SEMEL_OK);
    assert_int_equal(semel_server_export(shop->server, "deaf", on_plain, shop, &takes), SEMEL_OK);
    assert_int_equal(semel_server_export(shop->server, "idle", on_idle, shop, &takes), SEMEL_OK);
    assert_int_equal(semel_server_listen(shop->server, shop->address), SEMEL_OK);
    assert_int_equal(semel_server_start(shop->server), SEMEL_OK);
}

static void close_shop(struct shop *shop)
{
    assert_int_equal(semel_server_destroy(shop->server), SEMEL_OK);
    kit_place_remove(&shop->place);
}

static struct semel_stream *open_stream(struct semel_client *client, const char *method,
                                        struct order order, bool sends, bool takes)
{
    struct semel_stream_options options = { .sends = sends, .takes = takes };
    struct semel_stream *stream = NULL;

    assert_int_equal(semel_client_stream(client, method, semel_bytes(&order, sizeof order), NULL,
                                         &options, &stream),
                     SEMEL_OK);
    return stream;
}

static void read_all(struct semel_stream *stream, struct order order)
{
    struct semel_item item;
    struct semel_result result;
    enum semel_status status;
    uint32_t count = 0;

    while ((status = semel_stream_next(stream, 30000, &item)) == SEMEL_OK) {
        assert_int_equal(item.kind, SEMEL_ITEM);
        assert_true(is_filled(item.bytes, order.bytes, count));
        count++;
    }
    assert_int_equal(status, SEMEL_END);
    assert_int_equal(count, order.count);
    assert_int_equal(semel_stream_result(stream, 0, &result), SEMEL_OK);
    assert_int_equal(result.outcome, SEMEL_VALUE);
    semel_result_clear(&result);
    assert_int_equal(semel_stream_result(stream, 0, &result), SEMEL_ALREADY);
}

static void send_all(struct semel_stream *stream, struct order order)
{
    uint8_t *item = malloc(order.bytes + 1);
    enum semel_status status;

    for (uint32_t i = 0; i < order.count; i++) {
        fill(item, order.bytes, i);
        assert_int_equal(semel_stream_send(stream, semel_bytes(item, order.bytes), 30000),
                         SEMEL_OK);
    }
    free(item);
    assert_int_equal(semel_stream_end(stream), SEMEL_OK);
    status = semel_stream_send(stream, semel_bytes("x", 1), 0);
    assert_true(status == SEMEL_INVALID || status == SEMEL_END); /* the call may be over already */
}

static void wait_value(struct semel_stream *stream, uint32_t count)
{
    struct semel_result result;

    assert_int_equal(semel_stream_result(stream, 30000, &result), SEMEL_OK);
    if (result.outcome != SEMEL_VALUE)
        fail_msg("%s: %d", result.text, result.code);
    assert_int_equal(result.body.size, sizeof count);
    assert_memory_equal(result.body.data, &count, sizeof count);
    semel_result_clear(&result);
}

/* Sizes around every bound: empty, a fragment, one more, several, many small ones. */
static const struct order orders[] = {
    { 0, 0 },     { 1, 0 },      { 1000, 0 },   { 5000, 64 },   { 3, 65535 },   { 3, 65536 },
    { 3, 65537 }, { 40, 65536 }, { 7, 300000 }, { 2, 5000000 }, { 100, 16383 }, { 100, 16384 },
};

static void test_from_server(void **state)
{
    struct shop shop;
    struct semel_client *client;

    (void)state;
    open_shop(&shop);
    client = open_client(shop.address, NULL);
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        struct semel_stream *stream = open_stream(client, "send", orders[i], false, true);

        read_all(stream, orders[i]);
        semel_stream_free(stream);
    }
    close_client(client);
    close_shop(&shop);
}

static void test_to_server(void **state)
{
    struct shop shop;
    struct semel_client *client;

    (void)state;
    open_shop(&shop);
    client = open_client(shop.address, NULL);
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        struct semel_stream *stream = open_stream(client, "take", orders[i], true, false);

        send_all(stream, orders[i]);
        wait_value(stream, orders[i].count);
        semel_stream_free(stream);
    }
    close_client(client);
    close_shop(&shop);
}

static void *send_in_thread(void *arg)
{
    send_all(arg, (struct order){ 3000, 1000 });
    return NULL;
}

static void test_both_ways(void **state)
{
    struct order order = { 3000, 1000 };
    struct semel_stream *stream;
    struct semel_client *client;
    struct shop shop;
    pthread_t thread;

    (void)state;
    open_shop(&shop);
    client = open_client(shop.address, NULL);
    stream = open_stream(client, "echo", order, true, true);
    assert_int_equal(pthread_create(&thread, NULL, send_in_thread, stream), 0);
    read_all(stream, order);
    pthread_join(thread, NULL);
    semel_stream_free(stream);
    close_client(client);
    close_shop(&shop);
}

/* The latest value is always seen, and values only rise. */
static void test_progress(void **state)
{
    struct semel_stream *stream;
    struct semel_client *client;
    struct semel_item item;
    enum semel_status status;
    struct shop shop;
    uint32_t last = 0, value;

    (void)state;
    open_shop(&shop);
    client = open_client(shop.address, NULL);
    stream = open_stream(client, "progress", (struct order){ 0, 0 }, false, true);
    while ((status = semel_stream_next(stream, 30000, &item)) == SEMEL_OK) {
        assert_int_equal(item.kind, SEMEL_ITEM_PROGRESS);
        memcpy(&value, item.bytes.data, sizeof value);
        assert_true(value > last);
        last = value;
    }
    assert_int_equal(status, SEMEL_END);
    assert_int_equal(last, 100);
    semel_stream_free(stream);
    close_client(client);
    close_shop(&shop);
}

/* One reader sleeps; its stream waits, in bounded memory, and nobody else does. */
static void test_slow_reader(void **state)
{
    struct order large = { 400, 65536 }, small = { 50, 1000 };
    struct semel_stream *slow, *other;
    struct semel_client *client;
    struct shop shop;

    (void)state;
    open_shop(&shop);
    client = open_client(shop.address, NULL);
    slow = open_stream(client, "send", large, false, true);
    for (int i = 0; i < 200; i++) {
        other = open_stream(client, "send", small, false, true);
        read_all(other, small);
        semel_stream_free(other);
    }
    assert_in_range(atomic_load(&shop.ended), 199, 200); /* the slow one's handler waits */
    read_all(slow, large);
    semel_stream_free(slow);
    close_client(client);
    close_shop(&shop);
}

/* A sender that need not wait is told so, and nothing is sent. */
static void test_would_block(void **state)
{
    struct order order = { 100, 65536 };
    enum semel_status status = SEMEL_OK;
    uint8_t *item = malloc(order.bytes);
    struct semel_stream *stream;
    struct semel_client *client;
    struct semel_item got;
    struct shop shop;
    uint32_t sent = 0;

    (void)state;
    open_shop(&shop);
    client = open_client(shop.address, NULL);
    stream = open_stream(client, "echo", order, true, true);
    assert_int_equal(semel_stream_next(stream, 0, &got), SEMEL_WOULD_BLOCK);
    while (status == SEMEL_OK) { /* nobody reads: both directions fill */
        fill(item, order.bytes, sent);
        status = semel_stream_send(stream, semel_bytes(item, order.bytes), 100);
        sent += status == SEMEL_OK;
    }
    assert_int_equal(status, SEMEL_WOULD_BLOCK);
    assert_true(sent >= 16 && sent <= 16 * 6 + 4); /* 1 MiB at each place where some may wait */
    assert_int_equal(semel_stream_end(stream), SEMEL_OK);
    read_all(stream, (struct order){ sent, order.bytes });
    semel_stream_free(stream);
    free(item);
    close_client(client);
    close_shop(&shop);
}

static void test_refused(void **state)
{
    struct semel_stream_options none = SEMEL_STREAM_OPTIONS_INIT;
    struct semel_stream_options sends = { .sends = true }, takes = { .takes = true };
    struct semel_call_options keyed = { .key = "k" };
    struct semel_stream *before = (struct semel_stream *)&keyed, *stream = before;
    struct semel_client *client;
    struct semel_result result;
    struct semel_item item;
    struct shop shop;

    (void)state;
    open_shop(&shop);
    client = open_client(shop.address, NULL);
    assert_int_equal(
        semel_client_stream(client, "plain", semel_bytes(NULL, 0), NULL, &none, &stream),
        SEMEL_INVALID);
    assert_int_equal(
        semel_client_stream(client, "plain", semel_bytes(NULL, 0), &keyed, &takes, &stream),
        SEMEL_INVALID);
    assert_int_equal(semel_client_stream(client, "", semel_bytes(NULL, 0), NULL, &takes, &stream),
                     SEMEL_INVALID);
    assert_ptr_equal(stream, before); /* as it was */
    /* A method that takes no items. */
    assert_int_equal(
        semel_client_stream(client, "plain", semel_bytes(NULL, 0), NULL, &sends, &stream),
        SEMEL_OK);
    assert_int_equal(semel_stream_next(stream, 0, &item), SEMEL_INVALID);
    assert_int_equal(semel_stream_result(stream, 30000, &result), SEMEL_OK);
    assert_int_equal(result.outcome, SEMEL_NOT_EXECUTED);
    assert_int_equal(result.status, SEMEL_NO_STREAM);
    semel_result_clear(&result);
    assert_int_equal(semel_stream_send(stream, semel_bytes("x", 1), 0), SEMEL_END);
    semel_stream_free(stream);
    /* One that sends none is fine: an empty stream. */
    assert_int_equal(
        semel_client_stream(client, "plain", semel_bytes(NULL, 0), NULL, &takes, &stream),
        SEMEL_OK);
    assert_int_equal(semel_stream_send(stream, semel_bytes("x", 1), 0), SEMEL_INVALID);
    assert_int_equal(semel_stream_next(stream, 30000, &item), SEMEL_END);
    semel_stream_free(stream);
    /* No such method. */
    assert_int_equal(
        semel_client_stream(client, "nothing", semel_bytes(NULL, 0), NULL, &takes, &stream),
        SEMEL_OK);
    assert_int_equal(semel_stream_next(stream, 30000, &item), SEMEL_END);
    assert_int_equal(semel_stream_result(stream, 0, &result), SEMEL_OK);
    assert_int_equal(result.status, SEMEL_NO_METHOD);
    semel_result_clear(&result);
    semel_stream_free(stream);
    close_client(client);
    close_shop(&shop);
}

static bool has_ended(void *arg)
{
    return atomic_load(&((struct shop *)arg)->ended) > 0;
}

/* The reader goes away: the handler that waits for it is told. */
static void test_reader_vanishes(void **state)
{
    struct order large = { 1000, 65536 };
    struct semel_stream *stream;
    struct semel_client *client;
    struct semel_item item;
    struct shop shop;

    (void)state;
    for (int how = 0; how < 3; how++) {
        open_shop(&shop);
        client = open_client(shop.address, NULL);
        stream = open_stream(client, "send", large, false, true);
        assert_int_equal(semel_stream_next(stream, 30000, &item), SEMEL_OK);
        if (how == 0)
            semel_stream_cancel(stream);
        else if (how == 1)
            semel_stream_free(stream);
        else
            semel_client_stop(client);
        assert_true(kit_eventually(has_ended, &shop, 30));
        assert_int_equal(atomic_load(&shop.send_status), SEMEL_CANCELLED);
        if (how == 0) {
            enum semel_status status;

            while ((status = semel_stream_next(stream, 30000, &item)) == SEMEL_OK)
                continue;
            assert_true(status == SEMEL_PARTS_LOST || status == SEMEL_END);
        }
        if (how != 1)
            semel_stream_free(stream);
        close_client(client);
        close_shop(&shop);
    }
}

/* Cuts by the dozen: everything arrives, in order, once. */
static void test_cuts(void **state)
{
    struct order orders_here[] = { { 3000, 20000 }, { 60, 1000000 }, { 1000, 65536 } };
    struct semel_client_options options = SEMEL_CLIENT_OPTIONS_INIT;
    struct kit_relay *relay;
    struct semel_client *client;
    struct shop shop;
    unsigned cuts;

    (void)state;
    options.backoff_min_ms = 1;
    options.backoff_max_ms = 5;
    open_shop(&shop);
    relay = kit_relay_start(shop.place.path, 7, 3);
    client = open_client(kit_relay_address(relay), &options);
    atomic_store(&moved, 0);
    atomic_store(&released, 0);
    for (unsigned i = 0; i < 6; i++) {
        struct order order = orders_here[i / 2];
        const char *method = i % 2 == 0 ? "take" : i == 5 ? "move" : "send";
        struct semel_stream *stream = open_stream(client, method, order, i % 2 == 0, i % 2 == 1);

        if (i % 2) {
            read_all(stream, order);
        } else if (i == 4) {
            assert_int_equal(send_moved(stream, NULL, order, -1), SEMEL_OK);
            assert_int_equal(semel_stream_end(stream), SEMEL_OK);
            wait_value(stream, order.count);
        } else {
            send_all(stream, order);
            wait_value(stream, order.count);
        }
        semel_stream_free(stream);
    }
    cuts = kit_relay_cuts(relay);
    assert_true(cuts >= 4);
    assert_true(kit_eventually(all_released, NULL, 30));
    assert_int_equal(atomic_load(&moved), 2000);
    close_client(client);
    kit_relay_stop(relay);
    close_shop(&shop);
}

/* --- items that are moved ----------------------------------------------------------------- */

static void test_moved(void **state)
{
    struct order orders_here[] = { { 400, 65536 }, { 400, 100 }, { 40, 1000000 }, { 3, 0 } };
    struct semel_stream *stream;
    struct semel_client *client;
    struct shop shop;

    (void)state;
    atomic_store(&moved, 0);
    atomic_store(&released, 0);
    open_shop(&shop);
    client = open_client(shop.address, NULL);
    for (size_t i = 0; i < sizeof orders_here / sizeof *orders_here; i++) {
        struct order order = orders_here[i];

        stream = open_stream(client, "take", order, true, false);
        assert_int_equal(send_moved(stream, NULL, order, -1), SEMEL_OK);
        assert_int_equal(semel_stream_end(stream), SEMEL_OK);
        wait_value(stream, order.count);
        semel_stream_free(stream);
        stream = open_stream(client, "move", order, false, true);
        read_all(stream, order);
        semel_stream_free(stream);
        assert_true(kit_eventually(all_released, NULL, 30));
    }
    assert_int_equal(atomic_load(&moved), 2 * 843);
    close_client(client);
    close_shop(&shop);
}

/* The call ends before its items are taken, in many ways: each item comes back once. */
static void test_moved_and_not_taken(void **state)
{
    struct order order = { 1000, 65536 };
    struct semel_result result;
    struct semel_stream *stream;
    struct semel_client *client;
    struct semel_item item;
    struct shop shop;

    (void)state;
    for (int how = 0; how < 8; how++) {
        atomic_store(&moved, 0);
        atomic_store(&released, 0);
        open_shop(&shop);
        client = open_client(shop.address, NULL);
        if (how < 4) {
            stream = open_stream(client, "deaf", order, true, true);
            assert_int_equal(semel_stream_result(stream, 30000, &result), SEMEL_OK);
            semel_result_clear(&result);
            assert_int_equal(send_moved(stream, NULL, order, 0), SEMEL_END);
            semel_stream_free(stream);
            stream = open_stream(client, "idle", order, true, false);
            assert_int_equal(send_moved(stream, NULL, order, 0), SEMEL_WOULD_BLOCK);
            assert_true(atomic_load(&moved) > 0);
        } else {
            stream = open_stream(client, "move", order, false, true);
            assert_int_equal(semel_stream_next(stream, 30000, &item), SEMEL_OK);
        }
        if (how % 4 == 0)
            semel_stream_cancel(stream);
        else if (how % 4 == 1)
            semel_stream_free(stream);
        else if (how % 4 == 2)
            semel_client_stop(client);
        if (how % 4 != 3 && how < 4)
            assert_true(kit_eventually(all_released, NULL, 30));
        if (how % 4 == 3) {
            close_client(client);
            assert_true(how > 3 || all_released(NULL));
            if (how > 3) { /* what has arrived, if it has, can be read when the client is gone */
                enum semel_status status = semel_stream_next(stream, -1, &item);

                assert_true(status == SEMEL_OK || status == SEMEL_END);
            }
        }
        if (how % 4 != 1)
            semel_stream_free(stream);
        if (how % 4 != 3)
            close_client(client);
        close_shop(&shop);
        assert_true(all_released(NULL));
    }
}

/* --- callbacks --------------------------------------------------------------------------- */

struct listener {
    struct order order;
    uint32_t count;
    bool good, refused;
    atomic_int over;
};

static void on_ready(struct semel_stream *stream, void *user)
{
    struct listener *listener = user;
    struct semel_item item;
    enum semel_status status;

    if (listener->count == 0 && semel_stream_next(stream, 10, &item) == SEMEL_WOULD_DEADLOCK)
        listener->refused = true;
    while ((status = semel_stream_next(stream, 0, &item)) == SEMEL_OK)
        listener->good &= is_filled(item.bytes, listener->order.bytes, listener->count++);
    if (status == SEMEL_END)
        atomic_store(&listener->over, 1);
}

static bool is_over(void *arg)
{
    return atomic_load(&((struct listener *)arg)->over) != 0;
}

static void test_callbacks(void **state)
{
    struct listener listener = { .order = { 2000, 3000 }, .good = true };
    struct semel_stream_options options = { false, true, on_ready, &listener };
    struct semel_stream *stream;
    struct semel_client *client;
    struct shop shop;

    (void)state;
    open_shop(&shop);
    client = open_client(shop.address, NULL);
    assert_int_equal(semel_client_stream(client, "send",
                                         semel_bytes(&listener.order, sizeof listener.order), NULL,
                                         &options, &stream),
                     SEMEL_OK);
    assert_true(kit_eventually(is_over, &listener, 30));
    assert_true(listener.good && listener.refused);
    assert_int_equal(listener.count, listener.order.count);
    semel_stream_free(stream);
    close_client(client);
    close_shop(&shop);
}

struct crowd {
    atomic_int inside, most, times;
};

/* Stays until somebody else had the time to come, too. */
static void on_ready_slowly(struct semel_stream *stream, void *user)
{
    struct crowd *crowd = user;
    int inside = atomic_fetch_add(&crowd->inside, 1) + 1;

    (void)stream;
    if (inside > atomic_load(&crowd->most))
        atomic_store(&crowd->most, inside);
    atomic_fetch_add(&crowd->times, 1);
    kit_sleep_ms(100);
    atomic_fetch_sub(&crowd->inside, 1);
}

static bool is_inside(void *arg)
{
    return atomic_load(&((struct crowd *)arg)->inside) > 0;
}

/* While the I/O thread is inside on_ready, another thread stops the client, and so ends the call:
 * that is told after it, and when the stream is free nobody is inside. */
static void test_told_one_by_one(void **state)
{
    struct crowd crowd = { 0 };
    struct semel_stream_options options = { false, true, on_ready_slowly, &crowd };
    struct order order = { 1000000, 10 };
    struct semel_stream *stream;
    struct semel_client *client;
    struct shop shop;

    (void)state;
    open_shop(&shop);
    client = open_client(shop.address, NULL);
    assert_int_equal(semel_client_stream(client, "send", semel_bytes(&order, sizeof order), NULL,
                                         &options, &stream),
                     SEMEL_OK);
    assert_true(kit_eventually(is_inside, &crowd, 30));
    semel_client_stop(client);
    semel_stream_free(stream);
    assert_int_equal(atomic_load(&crowd.inside), 0);
    assert_int_equal(atomic_load(&crowd.most), 1);
    close_client(client);
    close_shop(&shop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("items from the server", test_from_server),
        TEST("items to the server", test_to_server),
        TEST("items both ways", test_both_ways),
        TEST("progress: the latest counts", test_progress),
        TEST("a slow reader stops nobody else", test_slow_reader),
        TEST("who need not wait does not", test_would_block),
        TEST("what is refused", test_refused),
        TEST("a reader vanishes", test_reader_vanishes),
        TEST("cuts lose and repeat nothing", test_cuts),
        TEST("items that are moved come back once", test_moved),
        TEST("items that are moved and not taken", test_moved_and_not_taken),
        TEST("reading in callbacks", test_callbacks),
        TEST("on_ready runs on one thread at a time", test_told_one_by_one),
    };

    return cmocka_run_group_tests_name("rpc/stream", tests, NULL, NULL);
}
