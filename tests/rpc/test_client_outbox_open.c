/* SPDX-License-Identifier: MIT */
/* Calls that outlive their client: one process posts them, the next is handed their results. */
#include "server_kit.h"

#include "store_kit.h"

#include "outbox_kit.h"

/* Posted when there was no server; carried out by the next process. */
static void test_posted_before_a_server(void **state)
{
    struct desk *desk = desk_make(NULL);

    (void)state;
    desk_open(desk);
    desk_post(desk, "once", "a");
    desk_post(desk, "once", "b");
    desk_close(desk);
    assert_int_equal(kit_box_rows(desk->box).calls, 2);
    rig_serve(desk->shop->rig);
    desk_open(desk);
    for (int i = 0; i < 2; i++) { /* in the order in which they end */
        struct semel_posted posted = desk_take(desk);

        assert_int_equal(posted.result.outcome, SEMEL_VALUE);
        assert_memory_equal(posted.result.body.data, posted.key, 1);
        assert_int_equal(semel_client_accept(desk->client, posted.id), SEMEL_OK);
        semel_posted_clear(&posted);
    }
    assert_int_equal(atomic_load(&desk->runs), 2);
    assert_int_equal(kit_box_rows(desk->box).calls, 0);
    desk_end(desk);
}

/* A result is handed out by each process until it is accepted. */
static void test_not_accepted(void **state)
{
    struct desk *desk = desk_go(NULL);
    uint64_t id = desk_post(desk, "once", "a");

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct semel_posted posted = desk_take(desk);

        assert_int_equal(posted.id, id);
        assert_string_equal(posted.key, "a");
        assert_int_equal(posted.result.outcome, SEMEL_VALUE);
        assert_string_equal(posted.result.method, "once");
        assert_memory_equal(posted.result.body.data, "a", 1);
        assert_memory_equal(posted.tag.data, "a", 1);
        semel_posted_clear(&posted);
        if (i % 2)
            desk_die(desk);
        else
            desk_close(desk);
        desk_open(desk);
        desk_counts(desk, 0, 1);
    }
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    desk_close(desk);
    desk_open(desk);
    desk_counts(desk, 0, 0);
    assert_int_equal(atomic_load(&desk->runs), 1);
    desk_end(desk);
}

/* The client's process ends while its call runs: it runs once, and the next client has the value.
 * */
static void ends_while_it_runs(bool dies, bool before)
{
    struct desk *desk = desk_go(NULL);

    desk_post(desk, "gated", "a");
    wait_inside(&desk->gate, 1);
    if (dies)
        desk_die(desk);
    else
        desk_close(desk);
    if (before) {
        gate_open(&desk->gate, true);
        kit_sleep_ms(20);
    }
    desk_open(desk);
    assert_int_equal(semel_client_wait_connected(desk->client, 60000, NULL, 0), SEMEL_OK);
    gate_open(&desk->gate, true);
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(atomic_load(&desk->runs), 1);
    assert_true(kit_eventually(shop_at_rest, desk->shop, 60));
    assert_int_equal(rig_counters(desk->shop->rig).sessions_created, 1);
    desk_end(desk);
}

static void test_client_ends(void **state)
{
    (void)state;
    ends_while_it_runs(false, false);
    ends_while_it_runs(false, true);
    ends_while_it_runs(true, false);
    ends_while_it_runs(true, true);
}

/* Both die, and the server's session is the one that the client goes on with. */
static void test_both_end(void **state)
{
    struct desk *desk = desk_go(NULL);

    (void)state;
    desk_post(desk, "once", "a");
    assert_true(kit_eventually(desk_has_result, desk, 60));
    desk_post(desk, "gated", "b");
    wait_inside(&desk->gate, 1);
    kit_disk_kill(desk->shop->disk);
    desk_die(desk);
    gate_open(&desk->gate, true);
    shop_die(desk->shop);
    shop_reopen(desk->shop);
    desk_open(desk);
    desk_expect(desk, "a", SEMEL_VALUE, SEMEL_OK);
    desk_expect(desk, "b", SEMEL_UNKNOWN, SEMEL_SERVER_DIED); /* it had begun */
    desk_post(desk, "once", "c");
    desk_expect(desk, "c", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(atomic_load(&desk->runs), 3);
    assert_true(kit_eventually(shop_at_rest, desk->shop, 60));
    desk_end(desk);
}

/* The server's store is another: what may have run there is not run again. */
static void test_store_lost(void **state)
{
    struct desk *desk = desk_go(NULL);
    struct kit_disk *old;

    (void)state;
    desk_post(desk, "gated", "a");
    wait_inside(&desk->gate, 1);
    desk_die(desk);
    gate_open(&desk->gate, true);
    shop_die(desk->shop);
    old = desk->shop->disk;
    desk->shop->disk = kit_disk_make();
    kit_disk_free(old);
    shop_reopen(desk->shop);
    desk_open(desk);
    desk_expect(desk, "a", SEMEL_UNKNOWN, SEMEL_SESSION_LOST);
    desk_post(desk, "once", "b");
    desk_expect(desk, "b", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(atomic_load(&desk->runs), 2);
    desk_end(desk);
}

/* --- bad files ---------------------------------------------------------------------------------
 * */

static void test_corrupt(void **state)
{
    struct desk *desk = desk_go(NULL);
    uint8_t *byte;

    (void)state;
    desk_post(desk, "gated", "a");
    wait_inside(&desk->gate, 1);
    desk_close(desk);
    byte = kit_box_call(desk->box, 0) + 20;
    *byte ^= 1;
    assert_int_equal(desk_try_open(desk), SEMEL_STORE_CORRUPT);
    *byte ^= 1;
    byte = kit_box_identity(desk->box) + 20;
    *byte ^= 1;
    assert_int_equal(desk_try_open(desk), SEMEL_STORE_CORRUPT);
    *byte ^= 1;
    desk_open(desk);
    desk_counts(desk, 1, 0);
    desk_end(desk);
}

static void test_abi(void **state)
{
    struct desk *desk = desk_make(NULL);
    struct semel_outbox *outbox = kit_box_open(desk->box);
    struct semel_client_options options = { .outbox = outbox };
    struct semel_client *client = NULL;

    (void)state;
    outbox->abi++;
    assert_int_equal(semel_client_create(&client, "unix:/nowhere", &options), SEMEL_INVALID);
    outbox->abi--;
    assert_null(client);
    semel_outbox_close(outbox);
    semel_outbox_close(NULL);
    desk_open(desk);
    desk_end(desk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("posted before there was a server", test_posted_before_a_server),
        TEST("results that were not accepted", test_not_accepted),
        TEST("the client ends while its call runs", test_client_ends),
        TEST("client and server end", test_both_end),
        TEST("the server's store was lost", test_store_lost),
        TEST("a file that was changed", test_corrupt),
        TEST("an outbox of another version", test_abi),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
