/* SPDX-License-Identifier: MIT */
/* A store that refuses for a while, or breaks, while calls are served. */
#include "server_kit.h"
#include "server_wire.h"

#include "store_kit.h"

/* What handlers did, and what they may not have done. */
struct works {
    atomic_int once, idempotent, transactional;
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
    struct semel_method_options harmless = { .kind = SEMEL_IDEMPOTENT };
    struct works *works = user;
    struct rig *rig = shop->rig;

    rig_export(rig, "once", counted, &works->once, NULL);
    rig_export(rig, "idempotent", counted, &works->idempotent, &harmless);
    rig_export(rig, "gated", gated, &works->gate, NULL);
    assert_int_equal(semel_server_export_transactional(rig->server, "transactional", add_one,
                                                       &works->transactional, NULL),
                     SEMEL_OK);
}

/* --- it refuses ---------------------------------------------------------------------------- */

#define CALLS 20

static void wait_for_store(enum semel_status status)
{
    struct works works = { .once = 0 };
    struct shop *shop = shop_make(NULL, export_works, &works);
    struct semel_client *late;
    struct seen seen[CALLS];

    shop_go(shop);
    refuse_all(shop, status);
    for (int i = 0; i < CALLS; i++)
        start_call(shop->rig->client, i % 2 ? "once" : "transactional", "", NULL, &seen[i], NULL);
    WAIT_COUNTER(shop->rig, commits_failed, 2);
    late = rig_connect(shop->rig, NULL);
    expect_gone(shop->rig->client, "idempotent", SEMEL_VALUE, SEMEL_OK);
    assert_int_not_equal(semel_client_wait_connected(late, 30, NULL, 0), SEMEL_OK);
    for (int i = 0; i < CALLS; i++)
        assert_int_equal(atomic_load(&seen[i].times), 0);
    assert_int_equal(atomic_load(&works.once), 0);
    assert_int_equal(log_count(shop->rig, "the store takes nothing"), 1);
    refuse_nothing(shop);
    for (int i = 0; i < CALLS; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, SEMEL_VALUE);
        semel_result_clear(&seen[i].result);
    }
    expect_gone(late, "once", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(log_count(shop->rig, "the store works again"), 1);
    assert_int_equal(atomic_load(&works.once), CALLS / 2 + 1);
    assert_int_equal(kit_disk_sum(shop->disk), CALLS / 2);
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    assert_int_equal(semel_client_destroy(late), SEMEL_OK);
    shop_end(shop);
}

static void test_refuses(void **state)
{
    (void)state;
    wait_for_store(SEMEL_STORE_FULL);
    wait_for_store(SEMEL_STORE_LOCKED);
    wait_for_store(SEMEL_NO_MEMORY);
}

/* A verdict that is not stored is not told, and is stored later. */
static void test_refuses_a_verdict(void **state)
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
    refuse_all(shop, SEMEL_STORE_FULL);
    gate_open(&works.gate, true);
    WAIT_COUNTER(shop->rig, commits_failed, 2);
    assert_int_equal(atomic_load(&seen.times), 0);
    refuse_nothing(shop);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_VALUE);
    assert_memory_equal(seen.result.body.data, "kept", 4);
    semel_result_clear(&seen.result);
    shop_end(shop);
    gate_fini(&works.gate);
}

/* Whatever the store does, a call returns in time; and what was not begun will not begin, and is
 * said not to have. */
static void test_deadlines_kept(void **state)
{
    static const char *const methods[] = { "once", "transactional" };
    struct works works = { .once = 0 };
    struct shop *shop = shop_make(NULL, export_works, &works);
    struct semel_client_options options = { .cancel_grace_ms = 60000 };
    struct semel_call_options soon = { .deadline_ms = 50 };
    struct semel_client *client;

    (void)state;
    shop_go(shop);
    client = rig_connect(shop->rig, &options);
    assert_int_equal(semel_client_wait_connected(client, 60000, NULL, 0), SEMEL_OK);
    refuse_all(shop, SEMEL_STORE_FULL);
    for (int i = 0; i < 6; i++) {
        struct semel_result result;

        result = expect(client, methods[i % 2], "", &soon, SEMEL_NOT_EXECUTED, SEMEL_EXPIRED);
        semel_result_clear(&result);
    }
    refuse_nothing(shop);
    expect_gone(client, "once", SEMEL_VALUE, SEMEL_OK);
    expect_gone(client, "transactional", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(atomic_load(&works.once), 1);
    assert_int_equal(kit_disk_sum(shop->disk), 1);
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    shop_end(shop);
}

/* Whom a commit fails once, for whatever reason, runs again before it is blamed. */
static void test_not_blamed(void **state)
{
    struct kit_fault fault = { .at_commit = 1,
                               .answer = SML_NOT_STORED,
                               .status = SEMEL_STORE_FAILED };
    struct works works = { .once = 0 };
    struct shop *shop = shop_make(NULL, export_works, &works);

    (void)state;
    shop_go(shop);
    for (int i = 0; i < 5; i++) {
        assert_true(kit_eventually(shop_at_rest, shop, 60));
        kit_disk_fault(shop->disk, &fault);
        expect_gone(shop->rig->client, "transactional", SEMEL_VALUE, SEMEL_OK);
    }
    assert_int_equal(atomic_load(&works.transactional), 10);
    assert_int_equal(kit_disk_sum(shop->disk), 5);
    shop_end(shop);
}

/* Loses its transaction, once it is let go. */
static void lose(struct semel_request *request, struct semel_store *store, void *user)
{
    gate_pass(user);
    shop_lose(store);
    REQUIRE(semel_request_reply(request, "", 0) == SEMEL_OK);
}

/* Its caller has given the call up meanwhile, which asks no handler to stop where there is a key:
 * nobody is told, and nothing of it is left. */
static void test_lost_and_given_up(void **state)
{
    struct works works = { .once = 0 };
    struct shop *shop;
    struct wire *wire;

    (void)state;
    gate_init(&works.gate);
    shop = shop_make(NULL, export_works, &works);
    assert_int_equal(
        semel_server_export_transactional(shop->rig->server, "lose", lose, &works.gate, NULL),
        SEMEL_OK);
    shop_go(shop);
    wire = wire_meet_keyed(shop->rig, 1);
    for (uint64_t xid = 1; xid <= 9; xid += 2) {
        gate_open(&works.gate, false);
        if (xid % 4 == 1)
            wire_call_keyed(wire, xid, "lose", "k", 0);
        else
            wire_call(wire, xid, "lose", "");
        wait_inside(&works.gate, 1);
        wire_ack(wire, xid, 1);
        WAIT_COUNTER(shop->rig, calls_abandoned, (xid + 1) / 2);
        gate_open(&works.gate, true);
        wire_call(wire, xid + 1, "transactional", "");
        wire_expect_reply(wire, xid + 1, SEMEL_VALUE, "");
    }
    assert_int_equal(kit_disk_sum(shop->disk), 5);
    wire_close(wire);
    shop_end(shop);
    gate_fini(&works.gate);
}

/* --- it breaks ----------------------------------------------------------------------------- */

static void *wait_broken(void *arg)
{
    REQUIRE(semel_server_wait(arg, -1, NULL) == SEMEL_STORE_CORRUPT);
    return NULL;
}

/* Of a store that says UNKNOWN the server must not believe anything, and stops. */
static void test_breaks(void **state)
{
    struct kit_fault fault = { .at_commit = 1,
                               .answer = SML_STORE_UNKNOWN,
                               .status = SEMEL_STORE_CORRUPT };
    struct works works = { .once = 0 };
    struct shop *shop = shop_make(NULL, export_works, &works);
    struct seen seen;
    pthread_t thread;

    (void)state;
    shop_go(shop);
    assert_int_equal(semel_server_wait(shop->rig->server, 0, NULL), SEMEL_DEADLINE);
    assert_int_equal(pthread_create(&thread, NULL, wait_broken, shop->rig->server), 0);
    kit_disk_fault(shop->disk, &fault);
    start_call(shop->rig->client, "once", "", NULL, &seen, NULL);
    assert_int_equal(semel_server_wait(shop->rig->server, 60000, NULL), SEMEL_STORE_CORRUPT);
    assert_int_equal(semel_server_wait(shop->rig->server, 60000, NULL), SEMEL_STORE_CORRUPT);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&works.once), 0);
    assert_int_equal(atomic_load(&seen.times), 0);
    assert_int_equal(log_count(shop->rig, "the store is of no more use"), 1);
    shop_shut(shop);
    assert_int_equal(atomic_load(&seen.times), 0);
    shop_reopen(shop);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_VALUE);
    semel_result_clear(&seen.result);
    shop_end(shop);
}

/* --- any operation ------------------------------------------------------------------------- */

#define MIXED 6
#define SWEEP_MAX 400

/* A few calls of each kind, with keys and without, and the end of a session among them. */
struct round {
    struct works works;
    struct shop *shop;
    struct seen seen[MIXED];
};

static void play(struct round *round)
{
    static const char *const methods[MIXED] = { "once", "transactional", "idempotent",
                                                "once", "transactional", "once" };
    struct semel_client *passer = rig_connect(round->shop->rig, NULL);

    for (int i = 0; i < MIXED; i++) {
        struct semel_call_options options = { .key = i == 3 || i == 4 ? "k" : NULL };

        start_call(round->shop->rig->client, methods[i], "", &options, &round->seen[i], NULL);
    }
    assert_int_equal(semel_client_destroy(passer), SEMEL_OK);
}

static bool all_seen(void *arg)
{
    struct round *round = arg;

    for (int i = 0; i < MIXED; i++)
        if (atomic_load(&round->seen[i].times) == 0)
            return false;
    return true;
}

static bool seen_or_stopped(void *arg)
{
    struct round *round = arg;

    return all_seen(round) ||
           semel_server_wait(round->shop->rig->server, 0, NULL) != SEMEL_DEADLINE;
}

/* Once each, or unknown where a ONCE call may have begun. */
static void audit(struct round *round, const char *what, unsigned at)
{
    int sum = 0, once = 0, unknown = 0;

    for (int i = 0; i < MIXED; i++) {
        const struct seen *seen = &round->seen[i];
        bool transactional = i == 1 || i == 4;

        sum += transactional && seen->outcome == SEMEL_VALUE;
        once += !transactional && i != 2 && seen->outcome == SEMEL_VALUE;
        unknown += seen->outcome == SEMEL_UNKNOWN && seen->status == SEMEL_SERVER_DIED;
        if (seen->outcome != SEMEL_VALUE && (transactional || seen->status != SEMEL_SERVER_DIED))
            fail_msg("%s at operation %u: call %d is %s, %s: %s", what, at, i,
                     semel_outcome_text(seen->outcome), semel_status_name(seen->status),
                     seen->result.text);
        semel_result_clear(&round->seen[i].result);
    }
    if (kit_disk_sum(round->shop->disk) != sum)
        fail_msg("%s at operation %u: %d values, %d effects", what, at, sum,
                 (int)kit_disk_sum(round->shop->disk));
    if (atomic_load(&round->works.once) < once || atomic_load(&round->works.once) > once + unknown)
        fail_msg("%s at operation %u: %d values, %d unknown, %d runs", what, at, once, unknown,
                 atomic_load(&round->works.once));
}

/* Returns false when the operation was never reached. */
static bool fail_at(const struct kit_fault *fault, const char *what, unsigned at)
{
    struct semel_server_options options = { .workers = 2 };
    struct round *round = calloc(1, sizeof *round);
    unsigned before;
    bool reached;

    assert_non_null(round);
    round->shop = shop_make(&options, export_works, &round->works);
    round->shop->ops.commit = round->shop->under->commit; /* its looks would count as operations */
    shop_go(round->shop);
    before = kit_disk_operations(round->shop->disk);
    kit_disk_fault(round->shop->disk, fault);
    play(round);
    assert_true(kit_eventually(seen_or_stopped, round, 60));
    kit_sleep_ms(at % 8 == 0 ? 30 : 0); /* what was released is forgotten */
    if (fault->answer == SML_STORE_UNKNOWN) {
        shop_shut(round->shop);
        refuse_nothing(round->shop);
        shop_reopen(round->shop);
    }
    assert_true(kit_eventually(all_seen, round, 60));
    reached = kit_disk_operations(round->shop->disk) - before >= at;
    audit(round, what, at);
    shop_end(round->shop);
    free(round);
    return reached;
}

static void sweep(const char *what, struct kit_fault fault)
{
    unsigned step = SLOW_BUILD ? 5 : 1, at = 1;

    do {
        fault.at_operation = at;
        at += step;
    } while (fail_at(&fault, what, fault.at_operation) && at < SWEEP_MAX);
    assert_true(at < SWEEP_MAX);
}

static void test_any_operation(void **state)
{
    struct kit_fault refused = { .answer = SML_NOT_STORED, .status = SEMEL_STORE_LOCKED };
    struct kit_fault failed = { .answer = SML_NOT_STORED, .status = SEMEL_STORE_FAILED };
    struct kit_fault lost = { .answer = SML_STORE_UNKNOWN, .status = SEMEL_STORE_FAILED };
    struct kit_fault kept = lost;

    (void)state;
    kept.stored = true;
    sweep("refused", refused);
    sweep("failed", failed);
    sweep("broken, not stored", lost);
    sweep("broken, stored", kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("calls wait while the store refuses, and go on when it works", test_refuses),
        TEST("a verdict waits while the store refuses it", test_refuses_a_verdict),
        TEST("deadlines are kept while the store refuses", test_deadlines_kept),
        TEST("a transaction that fails once is not to blame", test_not_blamed),
        TEST("a call that was given up loses its transaction", test_lost_and_given_up),
        TEST("a store that breaks stops the server, and nothing is told", test_breaks),
        TEST("whichever operation fails, nothing is lost or doubled", test_any_operation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
