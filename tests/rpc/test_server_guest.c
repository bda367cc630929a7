/* SPDX-License-Identifier: MIT */
/* Handlers that lead while they wait for items. */
#include "server_kit.h"

#include <semel/stream.h>

#include "rpc/server_internal.h"

/* The handler of "eat" does what its items say. */
struct table {
    struct rig *rig;
    struct semel_client *diner; /* which sends the items */
    struct semel_stream *stream;
    struct gate gate;
    atomic_int eaten;
    _Atomic enum semel_status ended;
    atomic_int cancels_told;
    uint64_t inlined; /* calls, before */
};

static bool is_word(struct semel_bytes item, const char *word)
{
    return item.size == strlen(word) && memcmp(item.data, word, item.size) == 0;
}

static void eat(struct semel_request *request, void *user)
{
    struct table *table = user;
    enum semel_status status;
    struct semel_bytes item;

    while ((status = semel_request_next(request, -1, &item)) == SEMEL_OK) {
        bool briefly = is_word(item, "briefly"), leaves = is_word(item, "leave");

        if (is_word(item, "block"))
            gate_pass(&table->gate);
        atomic_fetch_add(&table->eaten, 1);
        if (briefly) {
            REQUIRE(semel_request_next(request, 20, &item) == SEMEL_WOULD_BLOCK);
            gate_pass(&table->gate);
        }
        if (leaves)
            break;
    }
    atomic_store(&table->ended, status);
    (void)semel_request_reply(request, "", 0);
}

static void note_cancel(struct semel_request *request, void *user)
{
    struct table *table = user;

    (void)request;
    atomic_fetch_add(&table->cancels_told, 1);
    gate_open(&table->gate, true);
}

static void hang(struct semel_request *request, void *user)
{
    struct table *table = user;

    semel_request_on_cancel(request, note_cancel, table);
    gate_pass(&table->gate);
    (void)semel_request_reply(request, "", 0);
}

static struct table *set_table(void)
{
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    struct table *table = calloc(1, sizeof *table);
    struct semel_stream_options sends = { .sends = true };
    struct semel_method_options takes = SEMEL_METHOD_OPTIONS_INIT;

    assert_non_null(table);
    takes.takes_items = true;
    options.workers = 4;
    gate_init(&table->gate);
    atomic_store(&table->ended, SEMEL_SYSTEM);
    table->rig = rig_make(&options);
    rig_export(table->rig, "eat", eat, table, &takes);
    rig_export(table->rig, "hang", hang, table, NULL);
    rig_export(table->rig, "echo", echo, NULL, NULL);
    rig_go(table->rig);
    table->diner = rig_connect(table->rig, NULL);
    assert_int_equal(semel_client_stream(table->diner, "eat", semel_bytes(NULL, 0), NULL, &sends,
                                         &table->stream),
                     SEMEL_OK);
    return table;
}

static void clear_table(struct table *table)
{
    semel_stream_free(table->stream);
    gate_open(&table->gate, true);
    assert_int_equal(semel_client_destroy(table->diner), SEMEL_OK);
    rig_end(table->rig);
    gate_fini(&table->gate);
    free(table);
}

static void serve_word(struct table *table, const char *word)
{
    assert_int_equal(semel_stream_send(table->stream, semel_bytes_text(word), -1), SEMEL_OK);
}

static bool has_ended(void *arg)
{
    return atomic_load(&((struct table *)arg)->ended) != SEMEL_SYSTEM;
}

static bool guest_leads(void *arg)
{
    struct semel_server *server = ((struct table *)arg)->rig->server;
    bool leads;

    sml_mutex_lock(&server->queue_lock);
    leads = server->leader && server->leader->guest;
    sml_mutex_unlock(&server->queue_lock);
    return leads;
}

static bool host_leads(void *arg)
{
    struct semel_server *server = ((struct table *)arg)->rig->server;
    bool leads;

    sml_mutex_lock(&server->queue_lock);
    leads = server->leader && !server->leader->guest;
    sml_mutex_unlock(&server->queue_lock);
    return leads;
}

/* One item at a time, so that each is waited for. */
static bool has_become_guest(void *arg)
{
    struct table *table = arg;
    int before = atomic_load(&table->eaten);

    serve_word(table, "x");
    while (atomic_load(&table->eaten) == before)
        kit_sleep_ms(1);
    kit_sleep_ms(1); /* it waits again */
    return guest_leads(table);
}

static void become_guest(struct table *table)
{
    assert_true(kit_eventually(has_become_guest, table, 60));
}

static void expect_end(struct table *table, enum semel_status status)
{
    assert_true(kit_eventually(has_ended, table, 60));
    assert_int_equal(atomic_load(&table->ended), status);
}

static uint64_t takeovers(struct table *table)
{
    return rig_counters(table->rig).takeovers_by_watchdog;
}

/* It reads every connection, accepts, and gives the role back at the end of its stream. */
static void test_leads(void **state)
{
    struct table *table = set_table();
    struct semel_result result;
    uint64_t before;

    (void)state;
    become_guest(table);
    before = takeovers(table);
    assert_int_equal(semel_client_destroy(rig_connect(table->rig, NULL)), SEMEL_OK);
    expect_echo(table->rig->client, "beside it");
    assert_int_equal(semel_stream_end(table->stream), SEMEL_OK);
    expect_end(table, SEMEL_END);
    assert_int_equal(semel_stream_result(table->stream, 30000, &result), SEMEL_OK);
    assert_int_equal(result.outcome, SEMEL_VALUE);
    semel_result_clear(&result);
    assert_true(kit_eventually(host_leads, table, 60));
    assert_int_equal(takeovers(table), before);
    expect_echo(table->rig->client, "after it");
    clear_table(table);
}

static bool has_left_for_calls(void *arg)
{
    struct table *table = arg;

    for (int i = 0; i < 200; i++)
        expect_echo(table->rig->client, "short");
    return host_leads(table);
}

static bool runs_inline(void *arg)
{
    struct table *table = arg;

    for (int i = 0; i < 200; i++)
        expect_echo(table->rig->client, "short");
    return host_leads(table) && rig_counters(table->rig).calls_inline > table->inlined;
}

/* Short calls are not for a thread that stands in a handler. */
static void test_short_calls(void **state)
{
    struct table *table = set_table();

    (void)state;
    become_guest(table);
    assert_true(kit_eventually(has_left_for_calls, table, 60));
    table->inlined = rig_counters(table->rig).calls_inline;
    assert_true(kit_eventually(runs_inline, table, 60));
    clear_table(table);
}

/* One that was brisk is at work for long: the watchdog sees to it that others are served. */
static void test_blocks(void **state)
{
    struct table *table = set_table();
    uint64_t before;

    (void)state;
    become_guest(table);
    before = takeovers(table);
    serve_word(table, "block");
    wait_inside(&table->gate, 1);
    for (int i = 0; i < 50; i++)
        expect_echo(table->rig->client, "beside it");
    assert_true(takeovers(table) > before);
    gate_open(&table->gate, true);
    assert_int_equal(semel_stream_end(table->stream), SEMEL_OK);
    expect_end(table, SEMEL_END);
    clear_table(table);
}

/* After a wait that ended without an item it does not lead, whatever it does then. */
static void test_wait_ends(void **state)
{
    struct table *table = set_table();
    uint64_t before;

    (void)state;
    become_guest(table);
    before = takeovers(table);
    serve_word(table, "briefly");
    wait_inside(&table->gate, 1);
    assert_true(kit_eventually(host_leads, table, 60));
    expect_echo(table->rig->client, "beside it");
    assert_int_equal(takeovers(table), before);
    gate_open(&table->gate, true);
    assert_int_equal(semel_stream_end(table->stream), SEMEL_OK);
    expect_end(table, SEMEL_END);
    clear_table(table);
}

/* It returns without having read to the end: its thread goes on leading. */
static void test_leaves(void **state)
{
    struct table *table = set_table();

    (void)state;
    become_guest(table);
    serve_word(table, "leave");
    expect_end(table, SEMEL_OK);
    assert_true(kit_eventually(host_leads, table, 60));
    expect_echo(table->rig->client, "after it");
    clear_table(table);
}

static void test_cancelled(void **state)
{
    struct table *table = set_table();

    (void)state;
    become_guest(table);
    semel_stream_cancel(table->stream);
    expect_end(table, SEMEL_CANCELLED);
    expect_echo(table->rig->client, "after it");
    clear_table(table);
}

static bool was_told(void *arg)
{
    return atomic_load(&((struct table *)arg)->cancels_told) > 0;
}

/* Another call's cancel callback runs, on another thread. */
static void test_tells(void **state)
{
    struct table *table = set_table();
    struct semel_call *call;
    struct seen seen;

    (void)state;
    start_call(table->rig->client, "hang", "", NULL, &seen, &call);
    wait_inside(&table->gate, 1);
    become_guest(table);
    semel_call_cancel(call);
    assert_true(kit_eventually(was_told, table, 60));
    wait_seen(&seen);
    semel_result_clear(&seen.result);
    semel_call_unref(call);
    clear_table(table);
}

/* The server stops, or drains, while a guest leads it. */
static void test_stops(void **state)
{
    for (int drains = 0; drains < 2; drains++) {
        struct table *table = set_table();

        (void)state;
        become_guest(table);
        if (drains)
            semel_server_drain(table->rig->server, 50);
        else
            semel_server_stop(table->rig->server);
        assert_int_equal(semel_server_wait(table->rig->server, 60000, NULL), SEMEL_OK);
        expect_end(table, SEMEL_CANCELLED);
        clear_table(table);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("a handler that waits for items reads for all, until its stream ends", test_leads),
        TEST("it makes way for short calls", test_short_calls),
        TEST("it makes way for all when it is at work for long", test_blocks),
        TEST("it makes way when its wait is over", test_wait_ends),
        TEST("it goes on as a reader when it returns early", test_leaves),
        TEST("it hears of its own cancellation", test_cancelled),
        TEST("it makes way for another call's cancel callback", test_tells),
        TEST("its server stops, and drains", test_stops),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
