/* SPDX-License-Identifier: MIT */
/* Calls with keys that are held back by their session's stored replies, on paper or in a queue:
 * what becomes of them when nobody fetches those replies. */
#include "server_kit.h"
#include "server_wire.h"

#include "store_kit.h"

#define REPLY_BYTES 600 /* two are more than a session may have stored */
#define CALLS 5         /* the first two have their replies, the others wait */

static const char *const methods[CALLS] = { "once", "once", "once", "once", "transactional" };
static const char *const keys[CALLS] = { "k1", "k2", "k3", "k4", "k5" };

struct stuck {
    struct shop *shop;
    struct gate gate;
    atomic_int runs;
    struct wire *wire;
};

static void run_once(struct semel_request *request, void *user)
{
    static const char reply[REPLY_BYTES];
    struct stuck *stuck = user;

    atomic_fetch_add(&stuck->runs, 1);
    gate_pass(&stuck->gate);
    REQUIRE(semel_request_reply(request, reply, sizeof reply) == SEMEL_OK);
}

static void run_transaction(struct semel_request *request, struct semel_store *store, void *user)
{
    shop_add(store, 1);
    run_once(request, user);
}

static void export_stuck(struct shop *shop, void *user)
{
    rig_export(shop->rig, "once", run_once, user, NULL);
    assert_int_equal(semel_server_export_transactional(shop->rig->server, "transactional",
                                                       run_transaction, user, NULL),
                     SEMEL_OK);
}

/* --- how it comes to that ------------------------------------------------------------------ */

static struct sml_served *served_of_wire(struct shop *shop)
{
    struct semel_server *server = shop->rig->server;
    struct sml_served *found = NULL;
    struct sml_hello hello = hello_of(1, 1);

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

static bool is_over_budget(void *arg)
{
    struct sml_served *served = arg;
    bool stalled;

    sml_mutex_lock(served->lock);
    stalled = sml_served_is_stalled(served);
    sml_mutex_unlock(served->lock);
    return stalled;
}

static uint32_t count_stalled(struct semel_server *server)
{
    uint32_t count;

    sml_mutex_lock(&server->queue_lock);
    count = server->stalled;
    sml_mutex_unlock(&server->queue_lock);
    return count;
}

static bool three_are_stalled(void *arg)
{
    return count_stalled(arg) == 3;
}

/* Two calls run. The start of the third is under way, the fourth waits for a worker, and the fifth
 * for the committer, when the replies of the first two are there. */
static void get_stuck(struct stuck *stuck, int64_t idle_ms)
{
    struct semel_server_options options = {
        .workers = 3, .body_bytes = 1000, .session_bytes = 1000, .idle_session_ms = idle_ms
    };
    struct shop *shop;
    struct sml_frame frame;

    memset(stuck, 0, sizeof *stuck);
    gate_init(&stuck->gate);
    shop = stuck->shop = shop_make(&options, export_stuck, stuck);
    shop_go(shop);
    stuck->wire = wire_meet_keyed(shop->rig, 1);
    for (uint64_t xid = 1; xid <= 2; xid++)
        wire_call_keyed(stuck->wire, xid, methods[xid - 1], keys[xid - 1], 0);
    wait_inside(&stuck->gate, 2);
    shop_allow(shop, 0);
    wire_call_keyed(stuck->wire, 3, methods[2], keys[2], 0);
    shop_wait_held(shop);
    for (uint64_t xid = 4; xid <= CALLS; xid++)
        wire_call_keyed(stuck->wire, xid, methods[xid - 1], keys[xid - 1], 0);
    WAIT_COUNTER(shop->rig, calls_waiting, 2);
    gate_open(&stuck->gate, true);
    assert_true(kit_eventually(is_over_budget, served_of_wire(shop), 60));
    shop_allow(shop, -1);
    for (int i = 0; i < 2; i++)
        wire_expect(stuck->wire, SML_REPLY, &frame);
    assert_true(kit_eventually(three_are_stalled, shop->rig->server, 60));
    assert_int_equal(atomic_load(&stuck->runs), 2);
    assert_int_equal(shop_rows(shop).ended, 2);
    assert_int_equal(shop_rows(shop).started, 1);
}

static void release(struct stuck *stuck)
{
    if (stuck->wire)
        wire_close(stuck->wire);
    shop_end(stuck->shop);
    gate_fini(&stuck->gate);
}

/* --- the session ends ---------------------------------------------------------------------- */

static bool only_the_client_is_left(void *arg)
{
    struct shop *shop = arg;
    struct semel_server *server = shop->rig->server;
    struct rows rows = shop_rows(shop);
    int served = 0;

    sml_mutex_lock(&server->host_lock);
    for (struct sml_list *node = server->served.next; node != &server->served; node = node->next)
        served++;
    sml_mutex_unlock(&server->host_lock);
    return rows.sessions == 1 && rows.calls == 0 && served == 1;
}

/* Nothing of them is left, in memory or in the store, nor have they run; and so their keys are
 * free. */
static void check_gone(struct stuck *stuck)
{
    struct shop *shop = stuck->shop;

    assert_true(kit_eventually(only_the_client_is_left, shop, 60));
    assert_int_equal(count_stalled(shop->rig->server), 0);
    assert_int_equal(rig_counters(shop->rig).calls_waiting, 0);
    assert_int_equal(atomic_load(&stuck->runs), 2);
    for (int i = 0; i < CALLS; i++) {
        struct semel_call_options keyed = { .key = keys[i] };
        struct semel_result result =
            expect(shop->rig->client, methods[i], "x", &keyed, SEMEL_VALUE, SEMEL_OK);

        semel_result_clear(&result);
        assert_int_equal(atomic_load(&stuck->runs), i < 2 ? 2 : i + 1);
    }
    assert_int_equal(kit_disk_sum(shop->disk), 1);
}

static void say_bye(struct stuck *stuck)
{
    uint8_t out[SML_FRAME_BYTES_MAX];

    assert_true(
        wire_send(stuck->wire, out, sml_encode_bye(out, SML_BYE_END, semel_bytes_text(""))));
}

static void test_session_ends(void **state)
{
    struct stuck stuck;

    (void)state;
    for (int given_up = 0; given_up < 2; given_up++) {
        get_stuck(&stuck, 0);
        if (given_up)
            wire_ack(stuck.wire, 3, 3);
        say_bye(&stuck);
        check_gone(&stuck);
        release(&stuck);
    }
}

static void test_session_expires(void **state)
{
    struct stuck stuck;

    (void)state;
    get_stuck(&stuck, 40);
    wire_close(stuck.wire);
    stuck.wire = NULL;
    check_gone(&stuck);
    assert_int_equal(rig_counters(stuck.shop->rig).sessions_expired, 1);
    release(&stuck);
}

/* The server goes before anybody has noticed. */
static void test_session_ends_with_its_server(void **state)
{
    struct stuck stuck;

    (void)state;
    get_stuck(&stuck, 0);
    shop_allow(stuck.shop, 0);
    say_bye(&stuck);
    WAIT_COUNTER(stuck.shop->rig, sessions_ended, 1);
    semel_server_stop(stuck.shop->rig->server);
    shop_allow(stuck.shop, -1);
    shop_shut(stuck.shop);
    shop_reopen(stuck.shop);
    check_gone(&stuck);
    release(&stuck);
}

/* --- the server ends ----------------------------------------------------------------------- */

/* The caller comes back with all of them, and fetches its replies one by one. */
static void go_on(struct stuck *stuck)
{
    struct sml_hello hello = hello_of(1, 2);
    struct sml_outstanding list[CALLS];
    uint8_t out[SML_FRAME_BYTES_MAX];
    struct sml_frame frame;

    hello.kind = SML_RESUME;
    hello.features = SML_FEATURE_KEYS;
    hello.next = CALLS + 1;
    hello.count = CALLS;
    for (uint32_t i = 0; i < CALLS; i++)
        list[i] = (struct sml_outstanding){ .xid = i + 1,
                                            .fingerprint = call_of(methods[i], "x").fingerprint };
    if (stuck->wire)
        wire_close(stuck->wire);
    stuck->wire = wire_open(stuck->shop->rig);
    wire_hello(stuck->wire, &hello);
    assert_true(wire_send(stuck->wire, out, sml_encode_outstanding(out, list, CALLS)));
    wire_expect(stuck->wire, SML_WELCOME, &frame);
    wire_expect(stuck->wire, SML_LIST, &frame);
    for (uint32_t i = 0; i < CALLS; i++)
        assert_int_equal(sml_list_listed(&frame.u.list, i).state, i < 2    ? SML_STATE_DONE
                                                                  : i == 2 ? SML_STATE_EXPECTED
                                                                           : SML_STATE_IN_DOUBT);
    for (int i = 0; i < 2; i++)
        wire_expect(stuck->wire, SML_REPLY, &frame);
    wire_ack(stuck->wire, 1, 2);
    for (uint64_t xid = 3; xid <= CALLS; xid++) {
        wire_call_keyed(stuck->wire, xid, methods[xid - 1], keys[xid - 1], 0);
        wire_expect(stuck->wire, SML_REPLY, &frame);
        assert_int_equal(frame.xid, xid);
        assert_int_equal(frame.u.reply.verdict.outcome, SEMEL_VALUE);
        assert_int_equal(atomic_load(&stuck->runs), xid);
        wire_ack(stuck->wire, xid, 1);
    }
    assert_true(kit_eventually(shop_at_rest, stuck->shop, 60));
    assert_int_equal(kit_disk_sum(stuck->shop->disk), 1);
}

static void test_server_stops(void **state)
{
    struct stuck stuck;

    (void)state;
    get_stuck(&stuck, 0);
    shop_shut(stuck.shop);
    assert_int_equal(atomic_load(&stuck.runs), 2);
    shop_reopen(stuck.shop);
    assert_int_equal(shop_rows(stuck.shop).again, 1);
    assert_int_equal(shop_rows(stuck.shop).started, 0);
    go_on(&stuck);
    release(&stuck);
}

/* What its caller has released is not for the next server. */
static void test_released_before_the_server_stops(void **state)
{
    struct semel_call_options keyed = { .key = keys[2] };
    struct semel_result result;
    struct stuck stuck;

    (void)state;
    get_stuck(&stuck, 0);
    wire_ack(stuck.wire, 3, 3);
    WAIT_COUNTER(stuck.shop->rig, calls_abandoned, 3);
    shop_shut(stuck.shop);
    shop_remake(stuck.shop);
    assert_int_equal(shop_rows(stuck.shop).ended, 2);
    assert_int_equal(shop_rows(stuck.shop).calls, 2);
    rig_serve(stuck.shop->rig);
    result = expect(stuck.shop->rig->client, methods[2], "x", &keyed, SEMEL_VALUE, SEMEL_OK);
    semel_result_clear(&result);
    assert_int_equal(atomic_load(&stuck.runs), 3);
    release(&stuck);
}

/* Whose client is away is not waited for. */
static void test_server_drains(void **state)
{
    struct semel_server *server;
    struct stuck stuck;

    (void)state;
    get_stuck(&stuck, 0);
    server = stuck.shop->rig->server;
    semel_server_drain(server, 600000);
    assert_int_equal(semel_server_wait(server, 30, NULL), SEMEL_DEADLINE); /* it is here */
    wire_close(stuck.wire);
    stuck.wire = NULL;
    assert_int_equal(semel_server_wait(server, 60000, NULL), SEMEL_OK);
    shop_shut(stuck.shop);
    shop_reopen(stuck.shop);
    assert_int_equal(shop_rows(stuck.shop).again, 1);
    go_on(&stuck);
    release(&stuck);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("calls that are held back go with their session", test_session_ends),
        TEST("calls that are held back go when their session expires", test_session_expires),
        TEST("calls that are held back go with their session and its server",
             test_session_ends_with_its_server),
        TEST("calls that are held back are for the next server", test_server_stops),
        TEST("calls that are held back and released are for nobody",
             test_released_before_the_server_stops),
        TEST("a drain does not wait for who does not fetch", test_server_drains),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
