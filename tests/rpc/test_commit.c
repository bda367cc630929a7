/* SPDX-License-Identifier: MIT */
/* A server with a store: what is written down before what, and what of it stays. */
#include "server_kit.h"
#include "server_wire.h"

#include "store_kit.h"

static const struct semel_method_options harmless = { .kind = SEMEL_IDEMPOTENT };

/* One method of each kind, that count their runs. */
struct kinds {
    atomic_int once, idempotent, transactional;
};

static void add_one(struct semel_request *request, struct semel_store *store, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    atomic_fetch_add((atomic_int *)user, 1);
    shop_add(store, 1);
    REQUIRE(semel_request_reply(request, body.data, body.size) == SEMEL_OK);
}

static void export_kinds(struct shop *shop, void *user)
{
    struct kinds *kinds = user;
    struct rig *rig = shop->rig;

    rig_export(rig, "once", counted, &kinds->once, NULL);
    rig_export(rig, "idempotent", counted, &kinds->idempotent, &harmless);
    assert_int_equal(semel_server_export_transactional(rig->server, "transactional", add_one,
                                                       &kinds->transactional, NULL),
                     SEMEL_OK);
}

static void check_value(const struct seen *seen, const char *body)
{
    if (seen->outcome != SEMEL_VALUE)
        fail_msg("%s: %s", semel_status_name(seen->status), seen->result.text);
    assert_int_equal(seen->result.body.size, strlen(body));
    assert_memory_equal(seen->result.body.data, body, strlen(body));
}

/* --- the order of things ------------------------------------------------------------------ */

static bool one_ended(void *arg)
{
    return shop_rows(arg).ended == 1;
}

static void test_order(void **state)
{
    struct kinds kinds = { 0 };
    struct shop *shop = shop_make(NULL, export_kinds, &kinds);
    struct seen seen;

    (void)state;
    shop_go(shop);
    assert_int_equal(shop_rows(shop).sessions, 1);
    shop_allow(shop, 0);
    start_call(shop->rig->client, "once", "x", NULL, &seen, NULL);
    shop_wait_held(shop);
    kit_sleep_ms(20);
    assert_int_equal(atomic_load(&kinds.once), 0); /* its start is not stored */
    shop_allow(shop, 1);
    assert_true(kit_eventually(is_one, &kinds.once, 60));
    assert_int_equal(shop_rows(shop).started, 1);
    shop_wait_held(shop);
    kit_sleep_ms(20);
    assert_int_equal(atomic_load(&seen.times), 0); /* nor is its verdict */
    shop_allow(shop, 1);
    wait_seen(&seen);
    assert_int_equal(shop_rows(shop).ended, 1);
    check_value(&seen, "x");
    semel_result_clear(&seen.result);
    shop_allow(shop, -1);
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    shop_end(shop);
}

/* The effect and the verdict of a transaction come together, and its reply after them. */
static void test_order_in_transactions(void **state)
{
    struct kinds kinds = { 0 };
    struct shop *shop = shop_make(NULL, export_kinds, &kinds);
    struct seen seen;

    (void)state;
    shop_go(shop);
    shop_allow(shop, 0);
    start_call(shop->rig->client, "transactional", "x", NULL, &seen, NULL);
    shop_wait_held(shop);
    kit_sleep_ms(20);
    assert_int_equal(atomic_load(&kinds.transactional), 1);
    assert_int_equal(atomic_load(&seen.times), 0);
    assert_int_equal(kit_disk_sum(shop->disk), 0);
    assert_int_equal(shop_rows(shop).calls, 0);
    shop_allow(shop, 1);
    wait_seen(&seen);
    check_value(&seen, "x");
    semel_result_clear(&seen.result);
    assert_int_equal(kit_disk_sum(shop->disk), 1);
    assert_true(kit_eventually(one_ended, shop, 60));
    shop_allow(shop, -1);
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    shop_end(shop);
}

/* WELCOME waits for the session's record; a method that may run again needs nothing else. */
static void test_idempotent(void **state)
{
    struct kinds kinds = { 0 };
    struct shop *shop = shop_make(NULL, export_kinds, &kinds);
    struct semel_client *late;
    struct semel_result result;
    uint64_t recorded;

    (void)state;
    shop_go(shop);
    expect_gone(shop->rig->client, "idempotent", SEMEL_VALUE, SEMEL_OK);
    recorded = rig_counters(shop->rig).calls_recorded;
    shop_allow(shop, 0);
    for (int i = 0; i < 100; i++)
        expect_gone(shop->rig->client, "idempotent", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(shop_rows(shop).calls, 0);
    late = rig_connect(shop->rig, NULL);
    shop_wait_held(shop);
    assert_int_not_equal(semel_client_wait_connected(late, 30, NULL, 0), SEMEL_OK);
    shop_allow(shop, -1);
    result = expect(late, "idempotent", "late", NULL, SEMEL_VALUE, SEMEL_OK);
    semel_result_clear(&result);
    assert_int_equal(semel_client_destroy(late), SEMEL_OK);
    assert_int_equal(rig_counters(shop->rig).calls_recorded, recorded);
    assert_int_equal(atomic_load(&kinds.idempotent), 102);
    shop_end(shop);
}

/* --- figures ------------------------------------------------------------------------------- */

static void test_counters(void **state)
{
    struct kinds kinds = { 0 };
    struct shop *shop = shop_make(NULL, export_kinds, &kinds);
    struct semel_server_counters counters;

    (void)state;
    shop_go(shop);
    for (int i = 0; i < 10; i++) {
        expect_gone(shop->rig->client, "once", SEMEL_VALUE, SEMEL_OK);
        expect_gone(shop->rig->client, "idempotent", SEMEL_VALUE, SEMEL_OK);
        expect_gone(shop->rig->client, "transactional", SEMEL_VALUE, SEMEL_OK);
    }
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    counters = rig_counters(shop->rig);
    assert_int_equal(counters.values, 30);
    assert_int_equal(counters.calls_received, 30);
    assert_int_equal(counters.calls_started, 30);
    assert_int_equal(counters.transactions, 10);
    assert_int_equal(counters.transactions_undone, 0);
    assert_int_equal(counters.calls_recorded, 30); /* 10 starts, 20 verdicts */
    assert_true(counters.commits >= 21 && counters.commits <= 100);
    assert_int_equal(counters.commits_failed, 0);
    assert_int_equal(counters.calls_waiting + counters.calls_running, 0);
    assert_int_equal(counters.sessions_restored + counters.calls_restored, 0);
    assert_int_equal(kit_disk_sum(shop->disk), 10);
    shop_end(shop);
}

/* --- many ---------------------------------------------------------------------------------- */

#define CALLERS 8
#define ROUNDS (SLOW_BUILD ? 60 : 400)

struct caller {
    struct semel_client *client;
    int number;
    pthread_t thread;
};

static void *call_around(void *arg)
{
    static const char *const methods[] = { "once", "transactional", "idempotent" };
    struct caller *caller = arg;

    for (int i = 0; i < ROUNDS; i++) {
        struct semel_result result;
        char body[32];
        int bytes = snprintf(body, sizeof body, "%d of %d", i, caller->number);

        (void)semel_client_call(caller->client, methods[(i + caller->number) % 3],
                                semel_bytes_text(body), NULL, &result);
        REQUIRE(result.outcome == SEMEL_VALUE);
        REQUIRE(result.body.size == (size_t)bytes);
        REQUIRE(memcmp(result.body.data, body, (size_t)bytes) == 0);
        semel_result_clear(&result);
    }
    return NULL;
}

static void test_many(void **state)
{
    struct semel_server_options options = { .workers = 4 };
    struct kinds kinds = { 0 };
    struct shop *shop = shop_make(&options, export_kinds, &kinds);
    struct semel_client *clients[3];
    struct caller callers[CALLERS];

    (void)state;
    shop_go(shop);
    for (int i = 0; i < 3; i++)
        clients[i] = shop_connect(shop);
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){ .client = clients[i % 3], .number = i };
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_around, &callers[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i].thread, NULL);
    assert_int_equal(atomic_load(&kinds.once) + atomic_load(&kinds.idempotent) +
                         atomic_load(&kinds.transactional),
                     CALLERS * ROUNDS);
    assert_int_equal(kit_disk_sum(shop->disk), atomic_load(&kinds.transactional));
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    assert_int_equal(shop_rows(shop).sessions, 4);
    for (int i = 0; i < 3; i++)
        assert_int_equal(semel_client_destroy(clients[i]), SEMEL_OK);
    while (shop_rows(shop).sessions > 1)
        kit_sleep_ms(1);
    shop_end(shop);
}

static void test_big(void **state)
{
    static const char *const methods[] = { "once", "transactional", "idempotent" };
    struct kinds kinds = { 0 };
    struct shop *shop = shop_make(NULL, export_kinds, &kinds);
    size_t size = 1 << 20;
    char *body = malloc(size);

    (void)state;
    assert_non_null(body);
    for (size_t i = 0; i < size; i++)
        body[i] = (char)(i * 7 + i / 251);
    shop_go(shop);
    for (int i = 0; i < 12; i++) {
        struct semel_result result;

        (void)semel_client_call(shop->rig->client, methods[i % 3], semel_bytes(body, size), NULL,
                                &result);
        assert_int_equal(result.outcome, SEMEL_VALUE);
        assert_int_equal(result.body.size, size);
        assert_memory_equal(result.body.data, body, size);
        semel_result_clear(&result);
    }
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    free(body);
    shop_end(shop);
}

/* --- batches ------------------------------------------------------------------------------- */

static struct sml_served *served_of(struct rig *rig, uint8_t name)
{
    struct semel_server *server = rig->server;
    struct sml_hello hello = hello_of(name, 1);
    struct sml_served *found = NULL;

    sml_mutex_lock(&server->host_lock);
    for (struct sml_list *node = server->served.next; node != &server->served; node = node->next) {
        struct sml_served *served = SML_CONTAINER(node, struct sml_served, all);

        if (memcmp(&served->session->id, &hello.session, sizeof hello.session) == 0)
            found = served;
    }
    sml_mutex_unlock(&server->host_lock);
    assert_non_null(found);
    return found;
}

static bool has_released(void *arg)
{
    struct sml_served *served = arg;
    bool has;

    sml_mutex_lock(served->lock);
    has = served->session->callee.dropped_count > 0;
    sml_mutex_unlock(served->lock);
    return has;
}

static bool is_pulled(void *arg)
{
    struct sml_served *served = arg;
    bool pulled;

    sml_mutex_lock(served->lock);
    pulled = served->session->in_batch;
    sml_mutex_unlock(served->lock);
    return pulled;
}

/* Two sessions have released a call each; while the committer is at the second one, the first
 * releases another call. That is for the next batch: the session's record in this one does not
 * cover it. */
static void test_changes_while_pulled(void **state)
{
    struct kinds kinds = { 0 };
    struct shop *shop = shop_make(NULL, export_kinds, &kinds);
    struct sml_served *first, *second;
    struct wire *wires[3];

    (void)state;
    rig_serve(shop->rig);
    for (uint8_t i = 0; i < 3; i++) /* their stripes differ */
        wires[i] = wire_meet(shop->rig, i + 1);
    first = served_of(shop->rig, 1);
    second = served_of(shop->rig, 2);
    assert_ptr_not_equal(first->lock, second->lock);
    for (uint64_t xid = 1; xid <= 2; xid++)
        for (int i = 0; i < 2; i++) {
            wire_call(wires[i], xid, "once", "");
            wire_expect_reply(wires[i], xid, SEMEL_VALUE, "");
        }
    shop_allow(shop, 0);
    wire_call(wires[2], 1, "once", ""); /* keeps the committer busy */
    shop_wait_held(shop);
    wire_ack(wires[0], 1, 1);
    assert_true(kit_eventually(has_released, first, 60));
    wire_ack(wires[1], 1, 1);
    assert_true(kit_eventually(has_released, second, 60));
    sml_mutex_lock(second->lock);
    shop_allow(shop, -1);
    assert_true(kit_eventually(is_pulled, first, 60));
    wire_ack(wires[0], 2, 1);
    assert_true(kit_eventually(has_released, first, 60));
    sml_mutex_unlock(second->lock);
    wire_expect_reply(wires[2], 1, SEMEL_VALUE, "");
    wire_ack(wires[2], 1, 1);
    wire_ack(wires[1], 2, 1);
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    for (int i = 0; i < 3; i++)
        wire_close(wires[i]);
    shop_shut(shop);
    shop_reopen(shop);
    for (uint8_t i = 0; i < 3; i++)
        assert_int_equal(served_of(shop->rig, i + 1)->session->callee.base, i < 2 ? 2 : 1);
    shop_end(shop);
}

/* --- bounds -------------------------------------------------------------------------------- */

static void export_gated(struct shop *shop, void *user)
{
    struct semel_method_options limit = { .limit = 2 };

    rig_export(shop->rig, "gated", gated, user, NULL);
    rig_export(shop->rig, "limited", gated, user, &limit);
}

/* As many as there are workers are inside at once, whatever the store does meanwhile. */
static void run_parallel(bool on_demand)
{
    struct semel_server_options options = { .workers = 20, .on_demand = on_demand };
    struct seen seen[30];
    struct shop *shop;
    struct gate gate;

    gate_init(&gate);
    shop = shop_make(&options, export_gated, &gate);
    shop_go(shop);
    for (int i = 0; i < 30; i++)
        start_call(shop->rig->client, "gated", "x", NULL, &seen[i], NULL);
    wait_inside(&gate, 20);
    shop_allow(shop, 0);
    kit_sleep_ms(20);
    assert_int_equal(gate_inside(&gate), 20);
    assert_int_equal(shop_rows(shop).started, 20); /* no more than can run */
    gate_open(&gate, true);
    shop_wait_held(shop);
    shop_allow(shop, -1);
    for (int i = 0; i < 30; i++) {
        wait_seen(&seen[i]);
        check_value(&seen[i], "x");
        semel_result_clear(&seen[i].result);
    }
    assert_int_equal(gate.most, 20);
    shop_end(shop);
    gate_fini(&gate);
}

static void test_parallel(void **state)
{
    (void)state;
    run_parallel(false);
    run_parallel(true);
}

static void test_limit(void **state)
{
    struct semel_server_options options = { .workers = 6 };
    struct seen seen[12];
    struct shop *shop;
    struct gate gate;

    (void)state;
    gate_init(&gate);
    shop = shop_make(&options, export_gated, &gate);
    shop_go(shop);
    for (int i = 0; i < 12; i++)
        start_call(shop->rig->client, "limited", "x", NULL, &seen[i], NULL);
    wait_inside(&gate, 2);
    WAIT_COUNTER(shop->rig, calls_waiting, 10);
    kit_sleep_ms(20);
    assert_int_equal(gate_inside(&gate), 2);
    gate_open(&gate, true);
    for (int i = 0; i < 12; i++) {
        wait_seen(&seen[i]);
        check_value(&seen[i], "x");
        semel_result_clear(&seen[i].result);
    }
    assert_int_equal(gate.most, 2);
    assert_int_equal(gate.passed, 12);
    shop_end(shop);
    gate_fini(&gate);
}

/* workers + backlog calls are in, whether their starts are stored or not; the next is refused, or
 * asked for patience. */
static void test_backlog(void **state)
{
    struct semel_server_options options = { .workers = 2, .backlog = 3, .busy_ms = 5 };
    struct semel_call_options refuse = { .refuse_when_full = true };
    struct semel_result result;
    struct seen seen[5], patient;
    struct shop *shop;
    struct gate gate;

    (void)state;
    gate_init(&gate);
    shop = shop_make(&options, export_gated, &gate);
    shop_go(shop);
    shop_allow(shop, 0);
    for (int i = 0; i < 5; i++)
        start_call(shop->rig->client, "gated", "x", &refuse, &seen[i], NULL);
    WAIT_COUNTER(shop->rig, calls_received, 5);
    result = expect(shop->rig->client, "gated", "", &refuse, SEMEL_NOT_EXECUTED, SEMEL_OVERLOADED);
    semel_result_clear(&result);
    shop_allow(shop, -1);
    wait_inside(&gate, 2);
    result = expect(shop->rig->client, "gated", "", &refuse, SEMEL_NOT_EXECUTED, SEMEL_OVERLOADED);
    semel_result_clear(&result);
    start_call(shop->rig->client, "gated", "patient", NULL, &patient, NULL);
    WAIT_COUNTER(shop->rig, calls_busy, 2);
    assert_int_equal(rig_counters(shop->rig).calls_refused, 2);
    gate_open(&gate, true);
    for (int i = 0; i < 5; i++) {
        wait_seen(&seen[i]);
        check_value(&seen[i], "x");
        semel_result_clear(&seen[i].result);
    }
    wait_seen(&patient);
    check_value(&patient, "patient");
    semel_result_clear(&patient.result);
    shop_end(shop);
    gate_fini(&gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("a start is stored before its handler runs, a verdict before its reply", test_order),
        TEST("a transaction's effect and verdict are stored before its reply",
             test_order_in_transactions),
        TEST("an idempotent method leaves no records and waits for none", test_idempotent),
        TEST("what is stored is counted", test_counters),
        TEST("many callers of several sessions leave nothing behind", test_many),
        TEST("large bodies come back as they went", test_big),
        TEST("a session that changes while it is pulled is in the next batch again",
             test_changes_while_pulled),
        TEST("handlers run in parallel beside the store", test_parallel),
        TEST("a method's limit is kept", test_limit),
        TEST("the backlog is exact", test_backlog),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
