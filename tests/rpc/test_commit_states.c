/* SPDX-License-Identifier: MIT */
/* What may happen to a call, in every state that the store adds to its life: it is cancelled, its
 * deadline passes, its client ends or vanishes, the server drains or stops. */
#include "server_kit.h"
#include "server_wire.h"

#include "store_kit.h"

/* Of a ONCE call, and, where they exist, of a transactional one. */
enum stage {
    UNSTARTED, /* it waits for a worker, or for the committer */
    STARTING,  /* its start is being stored (ONCE) */
    STARTED,   /* its start is stored, it waits for a worker (ONCE) */
    RUNNING,
    STORING, /* its verdict is being stored */
    STAGES
};

static const char *const stage_names[] = { "unstarted", "starting", "started", "running",
                                           "storing" };

/* One worker. "once" and "transaction" wait at `inner`, "blocker" waits at `outer` and keeps the
 * worker busy. */
struct scene {
    struct shop *shop;
    struct gate inner, outer;
    atomic_int runs;
    bool transactional;
    bool gives_up;               /* a transaction that was told to stop does, without a word */
    struct semel_client *caller; /* NULL: `wire` instead */
    struct wire *wire;
    struct semel_call_options options; /* of the call */
    struct seen seen, blocked, nudge;
    struct semel_call *call;
    bool has_blocked, has_nudge;
};

static void run_once(struct semel_request *request, void *user)
{
    struct scene *scene = user;

    atomic_fetch_add(&scene->runs, 1);
    gated(request, &scene->inner);
}

static void run_transaction(struct semel_request *request, struct semel_store *store, void *user)
{
    struct scene *scene = user;

    atomic_fetch_add(&scene->runs, 1);
    shop_add(store, 1);
    if (scene->gives_up)
        gate_pass(&scene->inner);
    if (!scene->gives_up || !semel_request_cancelled(request))
        gated(request, &scene->inner);
}

static void export_scene(struct shop *shop, void *user)
{
    struct semel_method_options harmless = { .kind = SEMEL_IDEMPOTENT };
    struct scene *scene = user;

    rig_export(shop->rig, "once", run_once, scene, NULL);
    rig_export(shop->rig, "blocker", gated, &scene->outer, &harmless);
    rig_export(shop->rig, "nudge", echo, NULL, NULL);
    assert_int_equal(semel_server_export_transactional(shop->rig->server, "transaction",
                                                       run_transaction, scene, NULL),
                     SEMEL_OK);
}

static const char *method_of(const struct scene *scene)
{
    return scene->transactional ? "transaction" : "once";
}

static struct scene *scene_make(bool transactional, bool by_hand, int64_t idle_ms)
{
    struct semel_server_options options = { .workers = 1, .idle_session_ms = idle_ms };
    struct scene *scene = calloc(1, sizeof *scene);

    assert_non_null(scene);
    gate_init(&scene->inner);
    gate_init(&scene->outer);
    scene->transactional = transactional;
    scene->shop = shop_make(&options, export_scene, scene);
    shop_go(scene->shop);
    if (by_hand)
        scene->wire = wire_meet(scene->shop->rig, 7);
    else
        scene->caller = shop_connect(scene->shop);
    return scene;
}

static void scene_end(struct scene *scene)
{
    if (scene->has_blocked)
        semel_result_clear(&scene->blocked.result);
    if (scene->has_nudge)
        semel_result_clear(&scene->nudge.result);
    semel_result_clear(&scene->seen.result);
    semel_call_unref(scene->call);
    assert_int_equal(semel_client_destroy(scene->caller), SEMEL_OK);
    if (scene->wire)
        wire_close(scene->wire);
    shop_end(scene->shop);
    gate_fini(&scene->inner);
    gate_fini(&scene->outer);
    free(scene);
}

/* Everything goes on. */
static void let_go(struct scene *scene)
{
    gate_open(&scene->inner, true);
    gate_open(&scene->outer, true);
    shop_allow(scene->shop, -1);
    if (scene->has_blocked)
        wait_seen(&scene->blocked);
    if (scene->has_nudge)
        wait_seen(&scene->nudge);
}

static bool has_reached(struct scene *scene, bool (*test)(void *), void *arg)
{
    while (!test(arg)) {
        if (atomic_load(&scene->seen.times) > 0)
            return false; /* its deadline was too early */
        kit_sleep_ms(1);
    }
    return true;
}

static bool is_held(void *arg)
{
    struct shop *shop = arg;
    bool held;

    pthread_mutex_lock(&shop->lock);
    held = shop->held;
    pthread_mutex_unlock(&shop->lock);
    return held;
}

static bool somebody_inside(void *arg)
{
    return gate_inside(arg) > 0;
}

static bool one_waits(void *arg)
{
    return rig_counters(arg).calls_waiting == 1;
}

static void make_call(struct scene *scene)
{
    if (scene->wire)
        wire_call(scene->wire, 1, method_of(scene), "x");
    else
        start_call(scene->caller, method_of(scene), "x", &scene->options, &scene->seen,
                   &scene->call);
}

static void block_worker(struct scene *scene)
{
    start_call(scene->shop->rig->client, "blocker", "", NULL, &scene->blocked, NULL);
    scene->has_blocked = true;
    wait_inside(&scene->outer, 1);
}

/* The committer is busy with something else. */
static void block_committer(struct scene *scene)
{
    shop_allow(scene->shop, 0);
    start_call(scene->shop->rig->client, "nudge", "", NULL, &scene->nudge, NULL);
    scene->has_nudge = true;
    shop_wait_held(scene->shop);
}

/* Make the call, and stop the world when it is there. False: its deadline passed before. */
static bool bring(struct scene *scene, enum stage stage)
{
    struct shop *shop = scene->shop;
    bool there;

    if (stage == UNSTARTED && scene->transactional)
        block_committer(scene);
    else if (stage == UNSTARTED)
        block_worker(scene);
    else if (stage == STARTING || stage == STARTED)
        shop_allow(shop, 0);
    make_call(scene);
    switch (stage) {
    case UNSTARTED:
        return has_reached(scene, one_waits, shop->rig);
    case STARTING:
        return has_reached(scene, is_held, shop);
    case STARTED:
        there = has_reached(scene, is_held, shop);
        block_worker(scene);
        shop_allow(shop, -1);
        return there && has_reached(scene, one_waits, shop->rig);
    case RUNNING:
        return has_reached(scene, somebody_inside, &scene->inner);
    default:
        there = has_reached(scene, somebody_inside, &scene->inner);
        shop_allow(shop, 0);
        gate_open(&scene->inner, true);
        return there && has_reached(scene, is_held, shop);
    }
}

static void check(const struct scene *scene, enum stage stage, bool good)
{
    if (good)
        return;
    fail_msg("%s, %s: %s, %s: \"%s\", ran %d times", method_of(scene), stage_names[stage],
             semel_outcome_text(scene->seen.outcome), semel_status_name(scene->seen.status),
             scene->seen.result.text ? scene->seen.result.text : "", atomic_load(&scene->runs));
}

static void check_not_executed(const struct scene *scene, enum stage stage, bool ran)
{
    check(scene, stage,
          scene->seen.outcome == SEMEL_NOT_EXECUTED &&
              (scene->seen.status == SEMEL_CANCELLED || scene->seen.status == SEMEL_EXPIRED) &&
              atomic_load(&scene->runs) == ran && kit_disk_sum(scene->shop->disk) == 0);
}

static void check_done(const struct scene *scene, enum stage stage, int runs)
{
    check(scene, stage,
          scene->seen.outcome == SEMEL_VALUE && atomic_load(&scene->runs) == runs &&
              kit_disk_sum(scene->shop->disk) == scene->transactional);
}

/* Every stage of both kinds, in a scene of its own. */
static void each_stage(void (*fn)(enum stage stage, bool transactional))
{
    static const enum stage of_transactions[] = { UNSTARTED, RUNNING, STORING };

    for (int stage = UNSTARTED; stage < STAGES; stage++)
        fn((enum stage)stage, false);
    for (size_t i = 0; i < sizeof of_transactions / sizeof *of_transactions; i++)
        fn(of_transactions[i], true);
}

/* --- cancelled, expired -------------------------------------------------------------------- */

/* What ran stands, but for transactions, which are undone. */
static void check_ended_early(const struct scene *scene, enum stage stage)
{
    if (stage < RUNNING)
        check_not_executed(scene, stage, false);
    else if (stage == RUNNING && scene->transactional)
        check_not_executed(scene, stage, true);
    else
        check_done(scene, stage, 1);
}

static void cancel(enum stage stage, bool transactional)
{
    struct scene *scene = scene_make(transactional, false, 0);

    assert_true(bring(scene, stage));
    semel_call_cancel(scene->call);
    if (stage == STORING)
        kit_sleep_ms(10);
    else
        WAIT_COUNTER(scene->shop->rig, calls_cancelled, 1);
    if (stage == UNSTARTED)
        wait_seen(&scene->seen); /* at once: nothing has to be stored */
    else if (stage != STARTED)
        assert_int_equal(atomic_load(&scene->seen.times), 0);
    let_go(scene);
    wait_seen(&scene->seen);
    check_ended_early(scene, stage);
    assert_true(kit_eventually(shop_at_rest, scene->shop, 60));
    scene_end(scene);
}

static void test_cancelled(void **state)
{
    (void)state;
    each_stage(cancel);
}

/* Returns false if the deadline passed before the call was there. */
static bool expire_after(enum stage stage, bool transactional, int64_t deadline_ms)
{
    struct scene *scene = scene_make(transactional, false, 0);
    bool there;

    scene->options.deadline_ms = deadline_ms;
    there = bring(scene, stage);
    if (there && (stage == UNSTARTED || stage == STARTED))
        wait_seen(&scene->seen);
    else
        kit_sleep_ms((int)deadline_ms + 5); /* from its arrival at the server, at least */
    let_go(scene);
    wait_seen(&scene->seen);
    if (there)
        check_ended_early(scene, stage);
    assert_true(kit_eventually(shop_at_rest, scene->shop, 60));
    scene_end(scene);
    return there;
}

static void expire(enum stage stage, bool transactional)
{
    int64_t deadline_ms = 50;

    while (!expire_after(stage, transactional, deadline_ms))
        deadline_ms *= 2;
}

static void test_expired(void **state)
{
    (void)state;
    each_stage(expire);
}

/* --- the client goes ----------------------------------------------------------------------- */

static bool one_session_is_left(void *arg)
{
    struct shop *shop = arg;
    struct rows rows = shop_rows(shop);

    return rows.sessions == 1 && rows.calls == 0 && rig_counters(shop->rig).sessions_open == 1;
}

static bool nothing_runs(void *arg)
{
    struct semel_server_counters counters = rig_counters(arg);

    return counters.calls_running + counters.calls_waiting == 0;
}

/* What has not begun does not begin. */
static void end_client(enum stage stage, bool transactional)
{
    struct scene *scene = scene_make(transactional, false, 0);

    assert_true(bring(scene, stage));
    assert_int_equal(semel_client_destroy(scene->caller), SEMEL_OK);
    scene->caller = NULL;
    wait_seen(&scene->seen);
    while (rig_counters(scene->shop->rig).sessions_open > 1)
        kit_sleep_ms(1);
    let_go(scene);
    assert_true(kit_eventually(one_session_is_left, scene->shop, 60));
    assert_true(kit_eventually(nothing_runs, scene->shop->rig, 60));
    check(scene, stage,
          scene->seen.outcome == SEMEL_UNKNOWN && scene->seen.status == SEMEL_STOPPED &&
              atomic_load(&scene->runs) == (stage >= RUNNING));
    check(scene, stage, kit_disk_sum(scene->shop->disk) == (transactional && stage == STORING));
    scene_end(scene);
}

static void test_client_ends(void **state)
{
    (void)state;
    each_stage(end_client);
}

/* Whoever comes with the key of a call whose caller has left. */
static void come_with_key(struct scene *scene, enum stage stage)
{
    struct semel_call_options keyed = { .key = "k" };
    struct semel_result result;

    result = expect(scene->shop->rig->client, method_of(scene), "x", &keyed, SEMEL_VALUE, SEMEL_OK);
    semel_result_clear(&result);
    check(scene, stage, atomic_load(&scene->runs) == 1);
    check(scene, stage, kit_disk_sum(scene->shop->disk) == scene->transactional);
    assert_true(kit_eventually(one_session_is_left, scene->shop, 60));
}

/* What had not begun leaves its key free; what had goes on, for whoever comes with the key. */
static void end_keyed_client(enum stage stage, bool transactional)
{
    struct scene *scene = scene_make(transactional, false, 0);

    scene->options.key = "k";
    assert_true(bring(scene, stage));
    assert_int_equal(semel_client_destroy(scene->caller), SEMEL_OK);
    scene->caller = NULL;
    while (rig_counters(scene->shop->rig).sessions_open > 1)
        kit_sleep_ms(1);
    let_go(scene);
    come_with_key(scene, stage);
    scene_end(scene);
}

/* The same when it had begun on paper only, with a server that has stopped, and its client does not
 * come back. */
static void stop_keyed(enum stage stage, bool transactional)
{
    struct scene *scene = scene_make(transactional, false, 40);

    scene->options.key = "k";
    assert_true(bring(scene, stage));
    semel_server_stop(scene->shop->rig->server);
    gate_open(&scene->inner, true);
    gate_open(&scene->outer, true);
    shop_allow(scene->shop, -1);
    assert_int_equal(semel_client_destroy(scene->caller), SEMEL_OK);
    scene->caller = NULL;
    shop_shut(scene->shop);
    shop_reopen(scene->shop);
    let_go(scene);
    come_with_key(scene, stage);
    scene_end(scene);
}

static void test_key_is_left(void **state)
{
    (void)state;
    each_stage(end_keyed_client);
    each_stage(stop_keyed);
}

/* What was asked for is done, and forgotten when the idle time has passed. */
static void lose_client(enum stage stage, bool transactional)
{
    struct scene *scene = scene_make(transactional, true, 40);

    assert_true(bring(scene, stage));
    wire_close(scene->wire);
    scene->wire = NULL;
    if (stage == RUNNING) { /* it is kept as long as that lasts */
        kit_sleep_ms(60);
        assert_int_equal(rig_counters(scene->shop->rig).sessions_open, 2);
    }
    let_go(scene);
    assert_true(kit_eventually(one_session_is_left, scene->shop, 60));
    check(scene, stage, atomic_load(&scene->runs) == 1);
    check(scene, stage, kit_disk_sum(scene->shop->disk) == transactional);
    scene_end(scene);
}

static void test_client_vanishes(void **state)
{
    (void)state;
    each_stage(lose_client);
}

/* --- the server goes ----------------------------------------------------------------------- */

static bool is_reconnecting(void *arg)
{
    return semel_client_state(arg) == SEMEL_CLIENT_RECONNECTING;
}

static void stop_and_go_on(enum stage stage, bool transactional, bool gives_up)
{
    struct scene *scene = scene_make(transactional, false, 0);
    struct shop *shop = scene->shop;

    scene->gives_up = gives_up;
    assert_true(bring(scene, stage));
    semel_server_stop(shop->rig->server);
    assert_true(kit_eventually(is_reconnecting, scene->caller, 60));
    gate_open(&scene->inner, true);
    gate_open(&scene->outer, true);
    shop_allow(shop, -1);
    shop_shut(shop);
    check(scene, stage, atomic_load(&scene->seen.times) == 0);
    shop_remake(shop);
    assert_int_equal(shop_rows(shop).started, 0);
    assert_int_equal(shop_rows(shop).again,
                     stage == STARTING || stage == STARTED || scene->has_nudge);
    assert_int_equal(shop_rows(shop).crashes, 0);
    rig_serve(shop->rig);
    let_go(scene);
    wait_seen(&scene->seen);
    check_done(scene, stage, 1 + gives_up);
    assert_int_equal(rig_counters(shop->rig).calls_crashed, 0);
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    scene_end(scene);
}

static void stop_server(enum stage stage, bool transactional)
{
    stop_and_go_on(stage, transactional, false);
}

/* What waited, had begun on paper only, or was undone, goes on with the next server; what ran is
 * stored. Nothing becomes unknown, or is told that it was cancelled. */
static void test_server_stops(void **state)
{
    (void)state;
    each_stage(stop_server);
    stop_and_go_on(RUNNING, true, true);
}

static void drain_server(enum stage stage, bool transactional)
{
    struct scene *scene = scene_make(transactional, false, 0);
    struct rig *rig = scene->shop->rig;

    assert_true(bring(scene, stage));
    semel_server_drain(rig->server, 600000);
    assert_int_equal(semel_server_wait(rig->server, 20, NULL), SEMEL_DEADLINE);
    let_go(scene);
    wait_seen(&scene->seen);
    check_done(scene, stage, 1);
    assert_int_equal(semel_server_wait(rig->server, 60000, NULL), SEMEL_OK);
    scene_end(scene);
}

/* All is done before the server stops. */
static void test_server_drains(void **state)
{
    (void)state;
    each_stage(drain_server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("a call is cancelled in every state", test_cancelled),
        TEST("a call's deadline passes in every state", test_expired),
        TEST("a client ends its session with a call in every state", test_client_ends),
        TEST("a client leaves its key with a call in every state", test_key_is_left),
        TEST("a client vanishes with a call in every state", test_client_vanishes),
        TEST("a server stops with a call in every state, and the next goes on", test_server_stops),
        TEST("a server drains with a call in every state", test_server_drains),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
