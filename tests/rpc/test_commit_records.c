/* SPDX-License-Identifier: MIT */
/* Idempotency keys: calls with the same key are one. */
#include "server_kit.h"
#include "server_wire.h"

#include "store_kit.h"

/* Each handler counts its runs and answers with their number. */
struct tally {
    atomic_int runs, others;
    struct gate gate;
};

static void tell_count(struct semel_request *request, void *user)
{
    char text[16];
    int bytes = snprintf(text, sizeof text, "%d", atomic_fetch_add((atomic_int *)user, 1) + 1);

    REQUIRE(semel_request_reply(request, text, (size_t)bytes) == SEMEL_OK);
}

static void fail_counted(struct semel_request *request, void *user)
{
    REQUIRE(semel_request_fail_with(request, atomic_fetch_add((atomic_int *)user, 1) + 1,
                                    "no such thing", semel_bytes("\0d", 2), "here") == SEMEL_OK);
}

static void drop_counted(struct semel_request *request, void *user)
{
    (void)request;
    atomic_fetch_add((atomic_int *)user, 1);
}

static void wait_and_tell(struct semel_request *request, void *user)
{
    struct tally *tally = user;

    atomic_fetch_add(&tally->runs, 1);
    gated(request, &tally->gate);
}

static void add_one(struct semel_request *request, struct semel_store *store, void *user)
{
    shop_add(store, 1);
    tell_count(request, user);
}

static void add_and_fail(struct semel_request *request, struct semel_store *store, void *user)
{
    shop_add(store, 1);
    fail_counted(request, user);
}

/* Says nothing the first time. */
static void add_later(struct semel_request *request, struct semel_store *store, void *user)
{
    shop_add(store, 1);
    if (atomic_fetch_add((atomic_int *)user, 1) > 0)
        REQUIRE(semel_request_reply(request, "", 0) == SEMEL_OK);
}

static void send_much(struct semel_request *request, void *user)
{
    static char big[5000];

    (void)user;
    REQUIRE(semel_request_reply(request, big, sizeof big) == SEMEL_OK);
}

static void add_and_send_much(struct semel_request *request, struct semel_store *store, void *user)
{
    shop_add(store, 1);
    send_much(request, user);
}

static void transactional(struct shop *shop, const char *method, semel_transaction_fn fn,
                          void *user)
{
    assert_int_equal(semel_server_export_transactional(shop->rig->server, method, fn, user, NULL),
                     SEMEL_OK);
}

static void export_tally(struct shop *shop, void *user)
{
    struct semel_method_options harmless = { .kind = SEMEL_IDEMPOTENT };
    struct tally *tally = user;

    rig_export(shop->rig, "once", tell_count, &tally->runs, NULL);
    rig_export(shop->rig, "other", tell_count, &tally->others, NULL);
    rig_export(shop->rig, "idempotent", tell_count, &tally->runs, &harmless);
    rig_export(shop->rig, "fail", fail_counted, &tally->runs, NULL);
    rig_export(shop->rig, "drop", drop_counted, &tally->runs, NULL);
    rig_export(shop->rig, "wait", wait_and_tell, tally, NULL);
    rig_export(shop->rig, "much", send_much, NULL, NULL);
    transactional(shop, "transactional", add_one, &tally->runs);
    transactional(shop, "txn-fail", add_and_fail, &tally->runs);
    transactional(shop, "txn-later", add_later, &tally->runs);
    transactional(shop, "txn-much", add_and_send_much, NULL);
}

static struct shop *open_shop(struct tally *tally, int64_t retention_ms)
{
    struct semel_server_options options = { .key_retention_ms = retention_ms, .busy_ms = 2 };
    struct shop *shop;

    memset(tally, 0, sizeof *tally);
    gate_init(&tally->gate);
    shop = shop_make(&options, export_tally, tally);
    shop_go(shop);
    return shop;
}

static void close_shop(struct shop *shop, struct tally *tally)
{
    shop_end(shop);
    gate_fini(&tally->gate);
}

static struct semel_result call_keyed(struct semel_client *client, const char *method,
                                      const char *body, const char *key)
{
    struct semel_call_options options = { .key = key };
    struct semel_result result = { 0 };

    (void)semel_client_call(client, method, semel_bytes_text(body), &options, &result);
    return result;
}

static void expect_keyed(struct semel_client *client, const char *method, const char *body,
                         const char *key, const char *value)
{
    struct semel_result result = call_keyed(client, method, body, key);

    if (result.outcome != SEMEL_VALUE)
        fail_msg("%s: %s: %s", method, semel_status_name(result.status), result.text);
    assert_int_equal(result.body.size, strlen(value));
    assert_memory_equal(result.body.data, value, strlen(value));
    semel_result_clear(&result);
}

static void expect_status(struct semel_client *client, const char *method, const char *body,
                          const char *key, enum semel_outcome outcome, enum semel_status status)
{
    struct semel_result result = call_keyed(client, method, body, key);

    if (result.outcome != outcome || result.status != status)
        fail_msg("%s: %s, %s: %s", method, semel_outcome_text(result.outcome),
                 semel_status_name(result.status), result.text ? result.text : "");
    semel_result_clear(&result);
}

/* --- once ---------------------------------------------------------------------------------- */

/* In one session, in two, after it was acknowledged, after its session, after its server. */
static void same_key(const char *method)
{
    struct tally tally;
    struct shop *shop = open_shop(&tally, 0);
    struct semel_client *client;

    expect_keyed(shop->rig->client, method, "x", "k", "1");
    expect_keyed(shop->rig->client, method, "x", "k", "1");
    client = shop_connect(shop);
    expect_keyed(client, method, "x", "k", "1");
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    expect_keyed(client, method, "x", "k", "1");
    expect_keyed(client, method, "x", "another", "2");
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    assert_int_equal(semel_client_destroy(shop->rig->client), SEMEL_OK);
    shop->rig->client = NULL;
    while (shop_rows(shop).sessions > 0)
        kit_sleep_ms(1);
    shop->rig->client = shop_connect(shop);
    expect_keyed(shop->rig->client, method, "x", "k", "1");
    assert_int_equal(rig_counters(shop->rig).keys_replayed, 4);
    shop_shut(shop);
    shop_reopen(shop);
    expect_keyed(shop->rig->client, method, "x", "k", "1");
    assert_int_equal(atomic_load(&tally.runs), 2);
    assert_int_equal(rig_counters(shop->rig).keys_replayed, 1);
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    close_shop(shop, &tally);
}

static void test_same_key(void **state)
{
    (void)state;
    same_key("once");
    same_key("transactional");
}

struct first {
    struct shop *shop;
    struct semel_client *client;
    pthread_t thread;
};

static void *call_first(void *arg)
{
    struct first *first = arg;
    struct semel_call_options options = { .key = "k" };
    struct semel_result result;

    (void)semel_client_call(first->client, "wait", semel_bytes_text("x"), &options, &result);
    REQUIRE(result.outcome == SEMEL_VALUE && result.body.size == 1);
    semel_result_clear(&result);
    return NULL;
}

/* The second comes while the first runs: it is told to come again, or, if it would rather not wait,
 * refused. */
static void test_concurrent(void **state)
{
    struct semel_call_options refuse = { .key = "k", .refuse_when_full = true };
    struct tally tally;
    struct shop *shop = open_shop(&tally, 0);
    struct first firsts[6];
    struct semel_result result;
    uint64_t commits;

    (void)state;
    for (int i = 0; i < 6; i++) {
        firsts[i] = (struct first){ shop, i % 2 ? shop_connect(shop) : shop->rig->client, 0 };
        assert_int_equal(pthread_create(&firsts[i].thread, NULL, call_first, &firsts[i]), 0);
    }
    wait_inside(&tally.gate, 1);
    while (shop_rows(shop).sessions < 4)
        kit_sleep_ms(1);
    WAIT_COUNTER(shop->rig, calls_busy, 10);
    commits = rig_counters(shop->rig).commits;
    WAIT_COUNTER(shop->rig, calls_busy, rig_counters(shop->rig).calls_busy + 10);
    assert_int_equal(rig_counters(shop->rig).commits, commits); /* to say that writes nothing */
    result = expect(shop->rig->client, "wait", "x", &refuse, SEMEL_NOT_EXECUTED, SEMEL_OVERLOADED);
    semel_result_clear(&result);
    assert_int_equal(gate_inside(&tally.gate), 1);
    gate_open(&tally.gate, true);
    for (int i = 0; i < 6; i++) {
        pthread_join(firsts[i].thread, NULL);
        if (i % 2)
            assert_int_equal(semel_client_destroy(firsts[i].client), SEMEL_OK);
    }
    assert_int_equal(atomic_load(&tally.runs), 1);
    assert_int_equal(rig_counters(shop->rig).keys_replayed, 5);
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    close_shop(shop, &tally);
}

/* --- what is kept -------------------------------------------------------------------------- */

static void expect_failure(struct semel_client *client, const char *method)
{
    struct semel_result result = call_keyed(client, method, "", "k");

    assert_int_equal(result.outcome, SEMEL_FAILURE);
    assert_int_equal(result.code, 1);
    assert_string_equal(result.text, "no such thing");
    assert_int_equal(result.detail.size, 2);
    assert_memory_equal(result.detail.data, "\0d", 2);
    assert_string_equal(result.trace, "here");
    semel_result_clear(&result);
}

static void test_other_verdicts(void **state)
{
    struct tally tally;
    struct shop *shop = open_shop(&tally, 0);
    struct semel_client *client = shop_connect(shop), *const clients[] = { client,
                                                                           shop->rig->client };

    (void)state;
    for (int i = 0; i < 4; i++) {
        expect_failure(clients[i % 2], "fail");
        expect_status(clients[i % 2], "drop", "", "k", SEMEL_UNKNOWN, SEMEL_DROPPED);
    }
    assert_int_equal(atomic_load(&tally.runs), 2);
    atomic_store(&tally.runs, 0);
    for (int i = 0; i < 4; i++)
        expect_failure(clients[i % 2], "txn-fail");
    assert_int_equal(atomic_load(&tally.runs), 1);
    /* What did not happen may happen yet. */
    atomic_store(&tally.runs, 0);
    expect_status(client, "txn-later", "", "k", SEMEL_NOT_EXECUTED, SEMEL_DROPPED);
    expect_keyed(shop->rig->client, "txn-later", "", "k", "");
    expect_keyed(client, "txn-later", "", "k", "");
    assert_int_equal(atomic_load(&tally.runs), 2);
    assert_int_equal(kit_disk_sum(shop->disk), 1);
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    close_shop(shop, &tally);
}

/* The same key of another method, or of somebody else, is another key. */
static void test_whose_key(void **state)
{
    struct tally tally;
    struct shop *shop = open_shop(&tally, 0);
    struct semel_client *stranger = NULL;

    (void)state;
    expect_keyed(shop->rig->client, "once", "x", "k", "1");
    expect_keyed(shop->rig->client, "other", "x", "k", "1");
    assert_int_equal(semel_server_listen(shop->rig->server, "tcp:127.0.0.1:0"), SEMEL_OK);
    assert_int_equal(semel_client_create(&stranger, semel_server_address(shop->rig->server), NULL),
                     SEMEL_OK);
    expect_keyed(stranger, "once", "x", "k", "2"); /* whom no kernel vouches for */
    expect_keyed(stranger, "once", "y", "j", "3");
    expect_keyed(shop->rig->client, "once", "x", "k", "1");
    expect_keyed(shop->rig->client, "once", "x", "j", "4");
    assert_int_equal(semel_client_destroy(stranger), SEMEL_OK);
    close_shop(shop, &tally);
}

static void test_mismatch(void **state)
{
    static const char *const methods[] = { "once", "transactional" };
    struct semel_call_options typed = { .key = "k", .content_type = "text/plain" };
    struct semel_result result;
    struct tally tally;
    struct shop *shop = open_shop(&tally, 0);
    uint64_t mismatched = 0;

    (void)state;
    for (int i = 0; i < 2; i++) {
        atomic_store(&tally.runs, 0);
        expect_keyed(shop->rig->client, methods[i], "x", "k", "1");
        expect_status(shop->rig->client, methods[i], "y", "k", SEMEL_NOT_EXECUTED,
                      SEMEL_KEY_MISMATCH);
        result = expect(shop->rig->client, methods[i], "x", &typed, SEMEL_NOT_EXECUTED,
                        SEMEL_KEY_MISMATCH);
        semel_result_clear(&result);
        mismatched += 2;
        expect_keyed(shop->rig->client, methods[i], "x", "k", "1");
        assert_int_equal(atomic_load(&tally.runs), 1);
        assert_int_equal(rig_counters(shop->rig).keys_mismatched, mismatched);
    }
    close_shop(shop, &tally);
}

/* What may run twice runs twice, and a server without a store has no keys. */
static void test_no_keys(void **state)
{
    struct tally tally;
    struct shop *shop = open_shop(&tally, 0);
    struct rig *rig = rig_make(NULL);

    (void)state;
    expect_keyed(shop->rig->client, "idempotent", "x", "k", "1");
    expect_keyed(shop->rig->client, "idempotent", "y", "k", "2");
    assert_int_equal(rig_counters(shop->rig).calls_recorded, 0);
    close_shop(shop, &tally);
    rig_export(rig, "once", tell_count, &tally.runs, NULL);
    rig_go(rig);
    expect_status(rig->client, "once", "x", "k", SEMEL_NOT_EXECUTED, SEMEL_NO_KEYS);
    assert_int_equal(atomic_load(&tally.runs), 2);
    rig_end(rig);
}

/* A reply may be larger than a later caller takes: that it gets, not the reply. */
static void test_small_caller(void **state)
{
    static const char *const methods[] = { "much", "txn-much" };
    struct semel_client_options options = { .body_bytes = 1000 };
    struct tally tally;
    struct shop *shop = open_shop(&tally, 0);
    struct semel_client *small = rig_connect(shop->rig, &options);

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct semel_result result = call_keyed(shop->rig->client, methods[i], "", "k");

        assert_int_equal(result.outcome, SEMEL_VALUE);
        semel_result_clear(&result);
        expect_status(small, methods[i], "", "k", SEMEL_UNKNOWN, SEMEL_TOO_LARGE);
        result = call_keyed(shop->rig->client, methods[i], "", "k");
        assert_int_equal(result.outcome, SEMEL_VALUE);
        assert_int_equal(result.body.size, 5000);
        semel_result_clear(&result);
    }
    expect_keyed(small, "once", "", "fits", "1");
    assert_int_equal(semel_client_destroy(small), SEMEL_OK);
    close_shop(shop, &tally);
}

/* --- how long ------------------------------------------------------------------------------ */

static struct sml_reply_frame wire_reply(struct wire *wire, uint64_t xid)
{
    struct sml_frame frame;

    wire_expect(wire, SML_REPLY, &frame);
    assert_int_equal(frame.xid, xid);
    return frame.u.reply;
}

/* A key that is older than the server keeps them, and that it does not know, may have run. */
static void expired(const char *method)
{
    struct tally tally;
    struct shop *shop = open_shop(&tally, 1000);
    struct wire *wire = wire_meet_keyed(shop->rig, 1);
    struct sml_reply_frame reply;

    wire_call_keyed(wire, 1, method, "old", 1001);
    reply = wire_reply(wire, 1);
    assert_int_equal(reply.verdict.outcome, SEMEL_UNKNOWN);
    assert_int_equal(reply.verdict.status, SEMEL_KEY_EXPIRED);
    assert_int_equal(atomic_load(&tally.runs), 0);
    wire_call_keyed(wire, 2, method, "young", 1000);
    wire_expect_reply(wire, 2, SEMEL_VALUE, "1");
    wire_call_keyed(wire, 3, method, "young", 100000); /* as long as it is known */
    wire_expect_reply(wire, 3, SEMEL_VALUE, "1");
    wire_call_keyed(wire, 4, method, "old", 0);
    wire_expect_reply(wire, 4, SEMEL_VALUE, "2");
    wire_close(wire);
    close_shop(shop, &tally);
}

static void test_expired(void **state)
{
    (void)state;
    expired("once");
    expired("transactional");
}

/* Other contents than those of the key prove that nobody executed these with it; but only if its
 * caller has not had it for longer than keys are kept: before that one it may have been its own. */
static void mismatched(const char *method)
{
    static const uint64_t ages[] = { 0, 1000, 1001 };
    struct tally tally;
    struct shop *shop = open_shop(&tally, 1000);
    struct wire *wire = wire_meet_keyed(shop->rig, 1);

    wire_call_keyed(wire, 1, method, "k", 0);
    wire_expect_reply(wire, 1, SEMEL_VALUE, "1");
    for (uint64_t i = 0; i < sizeof ages / sizeof *ages; i++) {
        struct sml_call_frame call = call_of(method, "other contents");
        uint8_t frame[SML_FRAME_BYTES_MAX];
        struct sml_reply_frame reply;

        call.key = semel_bytes_text("k");
        call.key_age_ms = ages[i];
        assert_true(wire_send(wire, frame, sml_encode_call(frame, 2 + i, &call)));
        reply = wire_reply(wire, 2 + i);
        assert_int_equal(reply.verdict.outcome, SEMEL_NOT_EXECUTED);
        assert_int_equal(reply.verdict.status, SEMEL_KEY_MISMATCH);
        assert_int_equal(reply.flags, SML_REPLY_RECORDED | (ages[i] > 1000 ? 0 : SML_REPLY_PROVEN));
    }
    assert_int_equal(atomic_load(&tally.runs), 1);
    wire_close(wire);
    close_shop(shop, &tally);
}

static void test_mismatch_proves(void **state)
{
    (void)state;
    mismatched("once");
    mismatched("transactional");
}

/* What a REPLY says beside its verdict: RECORDED of what is stored, PROVEN where the key was asked.
 */
static void test_flags(void **state)
{
    struct tally tally;
    struct shop *shop = open_shop(&tally, 0);
    struct wire *wire = wire_meet_keyed(shop->rig, 1);

    (void)state;
    wire_call_keyed(wire, 1, "once", "k", 0);
    assert_int_equal(wire_reply(wire, 1).flags, SML_REPLY_RECORDED);
    wire_call(wire, 2, "once", "x");
    assert_int_equal(wire_reply(wire, 2).flags, SML_REPLY_RECORDED);
    wire_call(wire, 3, "idempotent", "x");
    assert_int_equal(wire_reply(wire, 3).flags, 0);
    wire_call(wire, 4, "transactional", "x");
    assert_int_equal(wire_reply(wire, 4).flags, SML_REPLY_RECORDED);
    wire_call(wire, 5, "none", "x");
    assert_int_equal(wire_reply(wire, 5).flags, 0);
    wire_call_keyed(wire, 6, "other", "k", 0);
    assert_int_equal(wire_reply(wire, 6).flags, SML_REPLY_RECORDED);
    atomic_store(&tally.runs, 0);
    wire_call_keyed(wire, 7, "txn-later", "k", 0);
    assert_int_equal(wire_reply(wire, 7).flags, SML_REPLY_PROVEN);
    wire_close(wire);
    close_shop(shop, &tally);
}

/* Keys go when their time is over, by the store's clock, and not before. */
static void test_purged(void **state)
{
    struct tally tally;
    struct shop *shop = open_shop(&tally, 100000);

    (void)state;
    expect_keyed(shop->rig->client, "once", "x", "old", "1");
    kit_disk_advance(shop->disk, 70000);
    expect_keyed(shop->rig->client, "once", "x", "young", "2");
    kit_disk_advance(shop->disk, 70000);
    expect_keyed(shop->rig->client, "once", "x", "youngest", "3");
    shop_shut(shop);
    shop_remake(shop);
    shop->rig->server->commit.purge_at = 0; /* at once, instead of after a minute */
    rig_serve(shop->rig);
    WAIT_COUNTER(shop->rig, commits, 1);
    expect_keyed(shop->rig->client, "once", "x", "young", "2");
    expect_keyed(shop->rig->client, "once", "x", "youngest", "3");
    assert_int_equal(atomic_load(&tally.runs), 3);
    expect_keyed(shop->rig->client, "once", "x", "old", "4");
    close_shop(shop, &tally);
}

/* --- a session is lost --------------------------------------------------------------------- */

static bool has_passed(void *arg)
{
    return atomic_load((atomic_int *)arg) == 1;
}

static bool was_cut(void *arg)
{
    return kit_relay_cuts(arg) > 0;
}

static bool is_expired(void *arg)
{
    return rig_counters(arg).sessions_expired == 1;
}

/* The reply was lost, and then the session: the call is made again under its key, and finds it. */
static void session_lost(const char *method, int commits_before)
{
    struct semel_server_options options = { .idle_session_ms = 50 };
    struct semel_client_options soon = { .backoff_min_ms = 5, .backoff_max_ms = 20 };
    struct semel_call_options keyed = { .key = "k" };
    struct semel_client_counters counters;
    struct semel_client *client = NULL;
    struct tally tally = { 0 };
    struct kit_relay *relay;
    struct shop *shop;
    struct seen seen;

    gate_init(&tally.gate);
    shop = shop_make(&options, export_tally, &tally);
    rig_serve(shop->rig);
    relay = kit_relay_start(shop->rig->place.path, 0, 1);
    assert_int_equal(semel_client_create(&client, kit_relay_address(relay), &soon), SEMEL_OK);
    assert_int_equal(semel_client_wait_connected(client, 60000, NULL, 0), SEMEL_OK);
    shop_allow(shop, commits_before);
    start_call(client, method, "x", &keyed, &seen, NULL);
    assert_true(kit_eventually(has_passed, &tally.runs, 60));
    shop_wait_held(shop); /* its verdict is to be stored */
    kit_relay_mute(relay, true);
    kit_relay_cut(relay);
    assert_true(kit_eventually(was_cut, relay, 60));
    shop_allow(shop, -1);
    assert_true(kit_eventually(is_expired, shop->rig, 60));
    kit_relay_mute(relay, false);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_VALUE);
    assert_memory_equal(seen.result.body.data, "1", 1);
    semel_result_clear(&seen.result);
    semel_client_counters(client, &counters);
    assert_int_equal(counters.sessions_lost, 1);
    assert_int_equal(atomic_load(&tally.runs), 1);
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    kit_relay_stop(relay);
    close_shop(shop, &tally);
}

static void test_session_lost(void **state)
{
    (void)state;
    session_lost("once", 1); /* its start */
    session_lost("transactional", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("calls with the same key are one", test_same_key),
        TEST("calls with the same key at the same time are one", test_concurrent),
        TEST("failure and unknown are kept, not executed frees the key", test_other_verdicts),
        TEST("a key belongs to a method and a principal", test_whose_key),
        TEST("the same key with other contents is refused", test_mismatch),
        TEST("methods that may run again, and servers without a store, have no keys", test_no_keys),
        TEST("a kept reply that is too large for its caller", test_small_caller),
        TEST("a key that is too old to be known is unknown", test_expired),
        TEST("other contents prove only what can still be known", test_mismatch_proves),
        TEST("replies say what is recorded, and what is proven", test_flags),
        TEST("keys are purged when their time is over", test_purged),
        TEST("a call with a key survives its session", test_session_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
