/* SPDX-License-Identifier: MIT */
/* The end of a server with a store: what its handlers leave is stored before anybody is told that
 * it has ended, or it is said that it was not. */
#include "server_kit.h"

#include "store_kit.h"

#define CALLS 20

struct works {
    atomic_int once, transactional;
    struct gate gate;
};

static void add_one(struct semel_request *request, struct semel_store *store, void *user)
{
    atomic_fetch_add((atomic_int *)user, 1);
    shop_add(store, 1);
    REQUIRE(semel_request_reply(request, "", 0) == SEMEL_OK);
}

static void export_works(struct shop *shop, void *user)
{
    struct works *works = user;
    struct rig *rig = shop->rig;

    rig_export(rig, "once", counted, &works->once, NULL);
    rig_export(rig, "gated", gated, &works->gate, NULL);
    assert_int_equal(semel_server_export_transactional(rig->server, "transactional", add_one,
                                                       &works->transactional, NULL),
                     SEMEL_OK);
}

/* Nothing is left to its destruction. */
static void test_stored_first(void **state)
{
    struct works works = { .once = 0 };
    struct shop *shop;
    struct seen seen;

    (void)state;
    gate_init(&works.gate);
    shop = shop_make(NULL, export_works, &works);
    shop_go(shop);
    start_call(shop->rig->client, "gated", "kept", NULL, &seen, NULL);
    wait_inside(&works.gate, 1);
    shop_stop(shop);
    assert_int_equal(shop_rows(shop).started, 1);
    assert_int_equal(semel_server_wait(shop->rig->server, 20, NULL), SEMEL_DEADLINE);
    gate_open(&works.gate, true);
    assert_int_equal(semel_server_wait(shop->rig->server, 60000, NULL), SEMEL_OK);
    assert_int_equal(shop_rows(shop).ended, 1);
    shop_shut(shop);
    shop_reopen(shop);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_VALUE);
    semel_result_clear(&seen.result);
    shop_end(shop);
    gate_fini(&works.gate);
}

/* A server whose store refuses to the last stops all the same, and the next one goes on with what
 * the store had. */
static void test_stops_while_refused(void **state)
{
    struct works works = { .once = 0 };
    struct shop *shop;
    struct seen seen[CALLS], running;

    (void)state;
    gate_init(&works.gate);
    shop = shop_make(NULL, export_works, &works);
    shop_go(shop);
    start_call(shop->rig->client, "gated", "", NULL, &running, NULL);
    wait_inside(&works.gate, 1);
    refuse_all(shop, SEMEL_STORE_FULL);
    for (int i = 0; i < CALLS; i++)
        start_call(shop->rig->client, i % 2 ? "once" : "transactional", "", NULL, &seen[i], NULL);
    WAIT_COUNTER(shop->rig, commits_failed, 1);
    gate_open(&works.gate, true);
    while (gate_inside(&works.gate) > 0)
        kit_sleep_ms(1);
    semel_server_stop(shop->rig->server);
    assert_int_equal(semel_server_wait(shop->rig->server, 60000, NULL), SEMEL_STORE_FULL);
    assert_int_equal(log_count(shop->rig, "does not take their end: 1; "), 1);
    assert_int_equal(semel_server_wait(shop->rig->server, 60000, NULL), SEMEL_STORE_FULL);
    shop_shut(shop);
    assert_int_equal(log_count(shop->rig, "calls that will be unknown"), 1);
    refuse_nothing(shop);
    shop_reopen(shop);
    for (int i = 0; i < CALLS; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, SEMEL_VALUE);
        semel_result_clear(&seen[i].result);
    }
    assert_int_equal(atomic_load(&works.once), CALLS / 2);
    assert_int_equal(kit_disk_sum(shop->disk), CALLS / 2);
    wait_seen(&running); /* it ran, and that could not be stored */
    assert_int_equal(running.outcome, SEMEL_UNKNOWN);
    assert_int_equal(running.status, SEMEL_SERVER_DIED);
    semel_result_clear(&running.result);
    shop_end(shop);
    gate_fini(&works.gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("what handlers leave is stored before a server has ended", test_stored_first),
        TEST("a server stops while its store refuses, and the next goes on",
             test_stops_while_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
