/* SPDX-License-Identifier: MIT */
/* What a server makes of what an earlier one left, that died: its store says nothing any more, so
 * what was under way then is as a crash leaves it. */
#include "server_kit.h"
#include "server_wire.h"

#include "store_kit.h"

#include "session/record.h"

/* --- what had begun ------------------------------------------------------------------------ */

enum { SIGHTS = 8 };

/* What the handlers saw. */
struct sight {
    struct semel_key keys[SIGHTS];
    char names[SIGHTS][32];
    atomic_int runs, resolved;
    struct gate gate;
    struct shop *shop;
    bool gone; /* the next server does not export the methods */
};

static void note_key(struct sight *sight, struct semel_request *request)
{
    int at = atomic_fetch_add(&sight->runs, 1);

    REQUIRE(at < SIGHTS);
    sight->keys[at] = semel_request_key(request);
    snprintf(sight->names[at], sizeof sight->names[at], "%s",
             semel_request_idempotency_key(request));
}

static void see(struct semel_request *request, void *user)
{
    struct sight *sight = user;
    struct semel_bytes body = semel_request_body(request);

    note_key(sight, request);
    gate_pass(&sight->gate);
    (void)!semel_request_reply(request, body.data, body.size);
}

/* The idempotency key says what it finds out. */
static void resolve(struct semel_request *request, void *user)
{
    const char *wanted = semel_request_idempotency_key(request);
    struct sight *sight = user;
    struct semel_server *server = sight->shop->rig->server;
    struct semel_key key = semel_request_key(request);
    static char big[2000];

    atomic_fetch_add(&sight->resolved, 1);
    REQUIRE(memcmp(&key, &sight->keys[0], sizeof key) == 0);
    REQUIRE(strcmp(semel_request_method(request), "resolve") == 0);
    REQUIRE(semel_request_body(request).size == 0);
    REQUIRE(semel_request_call(request) > 0);
    REQUIRE(!semel_request_cancelled(request) && semel_request_remaining_ms(request) > 0);
    REQUIRE(semel_server_wait(server, -1, NULL) == SEMEL_WOULD_DEADLOCK);
    REQUIRE(semel_server_destroy(server) == SEMEL_WOULD_DEADLOCK);
    semel_request_take(request);
    semel_request_drop(request);
    if (strcmp(wanted, "value") == 0) {
        REQUIRE(semel_request_reply(request, big, sizeof big) == SEMEL_TOO_LARGE);
        REQUIRE(semel_request_reply(request, "found", 5) == SEMEL_OK);
        REQUIRE(semel_request_never_ran(request, NULL) == SEMEL_ALREADY);
    } else if (strcmp(wanted, "failure") == 0) {
        REQUIRE(semel_request_fail(request, 9, "it failed") == SEMEL_OK);
    } else if (strcmp(wanted, "never") == 0) {
        REQUIRE(semel_request_never_ran(request, "no trace of it") == SEMEL_OK);
        REQUIRE(semel_request_reply(request, "", 0) == SEMEL_ALREADY);
    }
}

static void export_sights(struct shop *shop, void *user)
{
    struct semel_method_options again = { .on_crash = SEMEL_CRASH_RERUN };
    struct semel_method_options find_out = { .on_crash = SEMEL_CRASH_RESOLVE,
                                             .resolve = resolve,
                                             .resolve_user = user };
    struct sight *sight = user;

    sight->shop = shop;
    rig_export(shop->rig, "echo", echo, NULL, NULL);
    if (sight->gone)
        return;
    rig_export(shop->rig, "unknown", see, sight, NULL);
    rig_export(shop->rig, "rerun", see, sight, &again);
    rig_export(shop->rig, "resolve", see, sight, &find_out);
}

/* The server dies while `method` runs, and another one begins. The call's result is in `seen`. */
static struct shop *die_within(struct sight *sight, const char *method, const char *key, bool gone,
                               struct seen *seen)
{
    struct semel_server_options options = { .body_bytes = 1000 };
    struct semel_call_options keyed = { .key = key };
    struct shop *shop;

    memset(sight, 0, sizeof *sight);
    gate_init(&sight->gate);
    shop = shop_make(&options, export_sights, sight);
    shop_go(shop);
    start_call(shop->rig->client, method, "x", &keyed, seen, NULL);
    wait_inside(&sight->gate, 1);
    kit_disk_kill(shop->disk);
    gate_open(&sight->gate, true);
    shop_die(shop);
    assert_int_equal(atomic_load(&seen->times), 0);
    sight->gone = gone;
    shop_reopen(shop);
    wait_seen(seen);
    return shop;
}

static void close_sight(struct shop *shop, struct sight *sight, struct seen *seen)
{
    struct semel_client_counters counters;

    semel_client_counters(shop->rig->client, &counters);
    assert_int_equal(counters.sessions_lost, 0);
    assert_int_equal(rig_counters(shop->rig).sessions_restored, 1);
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    semel_result_clear(&seen->result);
    shop_end(shop);
    gate_fini(&sight->gate);
}

/* What a later call with the key is told. */
static void check_key(struct shop *shop, const char *method, const char *key,
                      enum semel_outcome outcome, enum semel_status status)
{
    struct semel_call_options keyed = { .key = key };
    struct semel_client *other = shop_connect(shop);
    struct semel_result result = expect(other, method, "x", &keyed, outcome, status);

    semel_result_clear(&result);
    assert_int_equal(semel_client_destroy(other), SEMEL_OK);
}

static void test_unknown(void **state)
{
    static const char *const keys[] = { NULL, "k" };
    struct sight sight;
    struct seen seen;

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct shop *shop = die_within(&sight, "unknown", keys[i % 2], i >= 2, &seen);

        assert_int_equal(seen.outcome, SEMEL_UNKNOWN);
        assert_int_equal(seen.status, SEMEL_SERVER_DIED);
        assert_int_equal(atomic_load(&sight.runs), 1);
        assert_int_equal(rig_counters(shop->rig).calls_restored, 1);
        assert_int_equal(rig_counters(shop->rig).calls_crashed, 1);
        if (i == 1)
            check_key(shop, "unknown", "k", SEMEL_UNKNOWN, SEMEL_SERVER_DIED);
        assert_int_equal(atomic_load(&sight.runs), 1);
        close_sight(shop, &sight, &seen);
    }
}

/* With the same keys for downstream. */
static void test_rerun(void **state)
{
    static const char *const keys[] = { NULL, "k" };
    struct sight sight;
    struct seen seen;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct shop *shop = die_within(&sight, "rerun", keys[i], false, &seen);

        assert_int_equal(seen.outcome, SEMEL_VALUE);
        assert_int_equal(atomic_load(&sight.runs), 2);
        assert_memory_equal(&sight.keys[0], &sight.keys[1], sizeof sight.keys[0]);
        assert_string_equal(sight.names[1], keys[i] ? keys[i] : "");
        assert_int_equal(rig_counters(shop->rig).calls_crashed, 1);
        if (keys[i])
            check_key(shop, "rerun", keys[i], SEMEL_VALUE, SEMEL_OK);
        assert_int_equal(atomic_load(&sight.runs), 2);
        close_sight(shop, &sight, &seen);
    }
}

static void test_resolve(void **state)
{
    static const struct {
        const char *key;
        enum semel_outcome outcome;
        enum semel_status status;
        const char *text;
    } cases[] = { { "value", SEMEL_VALUE, SEMEL_OK, NULL },
                  { "failure", SEMEL_FAILURE, SEMEL_FAILED, "it failed" },
                  { "never", SEMEL_NOT_EXECUTED, SEMEL_SERVER_DIED, "no trace of it" },
                  { "nothing", SEMEL_UNKNOWN, SEMEL_SERVER_DIED, "the server died" },
                  { NULL, SEMEL_UNKNOWN, SEMEL_SERVER_DIED, "the server died" } };
    struct sight sight;
    struct seen seen;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct shop *shop = die_within(&sight, "resolve", cases[i].key, false, &seen);
        bool never = cases[i].outcome == SEMEL_NOT_EXECUTED;

        assert_int_equal(seen.outcome, cases[i].outcome);
        assert_int_equal(seen.status, cases[i].status);
        if (cases[i].text)
            assert_non_null(strstr(seen.result.text, cases[i].text));
        else
            assert_memory_equal(seen.result.body.data, "found", 5);
        assert_int_equal(atomic_load(&sight.resolved), 1);
        if (cases[i].key)
            check_key(shop, "resolve", cases[i].key, never ? SEMEL_VALUE : cases[i].outcome,
                      never ? SEMEL_OK : cases[i].status);
        assert_int_equal(atomic_load(&sight.runs), 1 + never);
        close_sight(shop, &sight, &seen);
    }
}

/* It had ended, but that was not stored; or it was, and nobody was told. */
static void test_verdict_lost(void **state)
{
    struct sight sight = { .runs = 0 };
    struct seen seen;

    (void)state;
    for (int stored = 0; stored < 2; stored++) {
        struct kit_fault fault = { .at_commit = 1,
                                   .answer = SML_STORE_UNKNOWN,
                                   .status = SEMEL_STORE_FAILED,
                                   .stored = stored };
        struct shop *shop;

        memset(&sight, 0, sizeof sight);
        gate_init(&sight.gate);
        shop = shop_make(NULL, export_sights, &sight);
        shop_go(shop);
        start_call(shop->rig->client, "unknown", "x", NULL, &seen, NULL);
        wait_inside(&sight.gate, 1);
        kit_disk_fault(shop->disk, &fault);
        gate_open(&sight.gate, true);
        assert_int_equal(semel_server_wait(shop->rig->server, 60000, NULL), SEMEL_STORE_FAILED);
        shop_shut(shop);
        assert_int_equal(atomic_load(&seen.times), 0);
        shop_reopen(shop);
        wait_seen(&seen);
        assert_int_equal(seen.outcome, stored ? SEMEL_VALUE : SEMEL_UNKNOWN);
        assert_int_equal(atomic_load(&sight.runs), 1);
        close_sight(shop, &sight, &seen);
    }
}

/* The session of a call with a key had ended when the server died: nobody waits for its record, but
 * somebody may come with the key. */
static void test_orphan(void **state)
{
    static const char *const methods[] = { "unknown", "rerun" };
    struct semel_call_options keyed = { .key = "k" };
    struct sight sight;
    struct seen seen;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct semel_client *client;
        struct shop *shop;

        memset(&sight, 0, sizeof sight);
        gate_init(&sight.gate);
        shop = shop_make(NULL, export_sights, &sight);
        shop_go(shop);
        client = shop_connect(shop);
        start_call(client, methods[i], "x", &keyed, &seen, NULL);
        wait_inside(&sight.gate, 1);
        assert_int_equal(semel_client_destroy(client), SEMEL_OK);
        while (shop_rows(shop).sessions > 1)
            kit_sleep_ms(1);
        assert_int_equal(shop_rows(shop).started, 1);
        kit_disk_kill(shop->disk);
        gate_open(&sight.gate, true);
        shop_die(shop);
        shop_reopen(shop);
        if (i == 0)
            check_key(shop, methods[i], "k", SEMEL_UNKNOWN, SEMEL_SERVER_DIED);
        else
            check_key(shop, methods[i], "k", SEMEL_VALUE, SEMEL_OK);
        assert_int_equal(atomic_load(&sight.runs), i + 1);
        close_sight(shop, &sight, &seen);
    }
}

/* --- transactions -------------------------------------------------------------------------- */

struct deadly {
    struct shop *shop;
    atomic_int runs;
    int deaths; /* so often it takes its server with it */
    bool power; /* and the machine */
};

static void add_neighbour(struct semel_request *request, struct semel_store *store, void *user)
{
    (void)user;
    shop_add(store, 1);
    REQUIRE(semel_request_reply(request, "", 0) == SEMEL_OK);
}

static void kill_server(struct semel_request *request, struct semel_store *store, void *user)
{
    struct deadly *deadly = user;

    shop_add(store, 100);
    if (atomic_fetch_add(&deadly->runs, 1) < deadly->deaths) {
        if (deadly->power)
            kit_disk_cut_power(deadly->shop->disk);
        else
            kit_disk_kill(deadly->shop->disk);
    }
    REQUIRE(semel_request_reply(request, "survived", 8) == SEMEL_OK);
}

static void export_deadly(struct shop *shop, void *user)
{
    struct deadly *deadly = user;

    deadly->shop = shop;
    assert_int_equal(
        semel_server_export_transactional(shop->rig->server, "kill", kill_server, user, NULL),
        SEMEL_OK);
    assert_int_equal(
        semel_server_export_transactional(shop->rig->server, "add", add_neighbour, user, NULL),
        SEMEL_OK);
}

struct listed {
    int calls, crashes;
    enum semel_status status;
    bool ended;
};

static bool list_call(const struct semel_store_call *call, void *user)
{
    struct listed *listed = user;

    listed->calls++;
    if (strcmp(call->method, "kill") != 0)
        return true;
    listed->crashes = (int)call->crashes;
    listed->status = call->status;
    listed->ended = call->ended;
    return true;
}

static struct listed list_calls(struct kit_disk *disk)
{
    struct semel_store *store = kit_disk_open(disk);
    struct listed listed = { 0 };

    assert_non_null(store);
    assert_int_equal(semel_store_each_call(store, NULL, list_call, &listed), SEMEL_OK);
    semel_store_close(store);
    return listed;
}

#define NEIGHBOURS 3

/* The server dies `deaths` times of one call; its neighbours have their effect once. */
static void die_of(int deaths, bool power, const char *key)
{
    struct deadly deadly = { .deaths = deaths, .power = power };
    struct shop *shop = shop_make(NULL, export_deadly, &deadly);
    struct semel_call_options keyed = { .key = key };
    bool poisoned = deaths >= SEMEL_CRASHES_MAX && !power;
    struct seen seen, neighbours[NEIGHBOURS];

    shop_go(shop);
    shop_allow(shop, 0);
    for (int i = 0; i < NEIGHBOURS; i++) {
        start_call(shop->rig->client, "add", "", NULL, &neighbours[i], NULL);
        shop_wait_held(shop); /* by the first; the others come together */
    }
    start_call(shop->rig->client, "kill", "", &keyed, &seen, NULL);
    WAIT_COUNTER(shop->rig, calls_waiting, NEIGHBOURS);
    shop_allow(shop, -1);
    for (int i = 1; i <= deaths; i++) {
        assert_int_equal(semel_server_wait(shop->rig->server, 60000, NULL), SEMEL_STORE_FAILED);
        shop_shut(shop);
        assert_int_equal(atomic_load(&seen.times), 0);
        shop_allow(shop, 1); /* the death is written down, and nothing goes on yet */
        shop_reopen(shop);
        assert_int_equal(shop_rows(shop).crashes, power ? 0 : i);
        shop_allow(shop, -1);
        if (power)
            continue;
        assert_int_equal(rig_counters(shop->rig).calls_crashed, 1);
        assert_int_equal(rig_counters(shop->rig).calls_poisoned, i == SEMEL_CRASHES_MAX);
        if (i == SEMEL_CRASHES_MAX)
            break;
    }
    wait_seen(&seen);
    assert_int_equal(seen.outcome, poisoned ? SEMEL_NOT_EXECUTED : SEMEL_VALUE);
    assert_int_equal(seen.status, poisoned ? SEMEL_POISONED : SEMEL_OK);
    assert_int_equal(atomic_load(&deadly.runs), poisoned ? SEMEL_CRASHES_MAX : deaths + 1);
    for (int i = 0; i < NEIGHBOURS; i++) {
        wait_seen(&neighbours[i]);
        assert_int_equal(neighbours[i].outcome, SEMEL_VALUE);
        semel_result_clear(&neighbours[i].result);
    }
    assert_int_equal(kit_disk_sum(shop->disk), NEIGHBOURS + (poisoned ? 0 : 100));
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    semel_result_clear(&seen.result);
    shop_end(shop);
}

static void test_deadly(void **state)
{
    (void)state;
    die_of(1, false, NULL);
    die_of(SEMEL_CRASHES_MAX - 1, false, "k");
    die_of(SEMEL_CRASHES_MAX + 1, false, NULL);
    die_of(SEMEL_CRASHES_MAX, false, "k");
    die_of(SEMEL_CRASHES_MAX + 1, true, NULL); /* the machine is to blame */
}

/* A poisoned call is shown until its caller has accepted that. */
static void test_poisoned_is_listed(void **state)
{
    struct deadly deadly = { .deaths = SEMEL_CRASHES_MAX };
    struct shop *shop = shop_make(NULL, export_deadly, &deadly);
    struct wire *wire;
    struct listed listed;

    (void)state;
    rig_serve(shop->rig);
    for (uint64_t i = 0; i < SEMEL_CRASHES_MAX; i++) {
        struct sml_hello hello = hello_of(1, i + 1);
        struct sml_call_frame call = call_of("kill", "");
        struct sml_outstanding entry = { .xid = 1, .fingerprint = call.fingerprint };
        uint8_t out[SML_FRAME_BYTES_MAX];
        struct sml_frame frame;

        wire = wire_open(shop->rig);
        if (i > 0) {
            hello.kind = SML_RESUME;
            hello.count = 1;
            hello.next = 2;
        }
        wire_hello(wire, &hello);
        if (i > 0)
            assert_true(wire_send(wire, out, sml_encode_outstanding(out, &entry, 1)));
        wire_expect(wire, SML_WELCOME, &frame);
        if (i > 0)
            wire_expect(wire, SML_LIST, &frame);
        wire_call(wire, 1, "kill", "");
        assert_int_equal(semel_server_wait(shop->rig->server, 60000, NULL), SEMEL_STORE_FAILED);
        wire_close(wire);
        shop_shut(shop);
        shop_reopen(shop);
    }
    shop_shut(shop);
    listed = list_calls(shop->disk);
    assert_int_equal(listed.calls, 1);
    assert_int_equal(listed.crashes, SEMEL_CRASHES_MAX);
    assert_true(listed.ended);
    assert_int_equal(listed.status, SEMEL_POISONED);
    assert_int_equal(atomic_load(&deadly.runs), SEMEL_CRASHES_MAX);
    shop_end(shop);
}

/* --- sessions ------------------------------------------------------------------------------ */

static bool session_gone(void *arg)
{
    return rig_counters(arg).sessions_open == 0;
}

struct onlooker {
    struct rig *rig;
    atomic_bool enough;
    uint64_t most;
};

static void *look_on(void *arg)
{
    struct onlooker *onlooker = arg;

    while (!atomic_load(&onlooker->enough)) {
        struct semel_server_counters counters = rig_counters(onlooker->rig);

        REQUIRE(counters.sessions_open >= onlooker->most);
        onlooker->most = counters.sessions_open;
    }
    return NULL;
}

#define MANY 200

/* Whoever looks at a server that is starting sees what it has restored so far. */
static void test_looked_at(void **state)
{
    struct sight sight = { .gone = true };
    struct shop *shop = shop_make(NULL, export_sights, &sight);
    struct onlooker onlooker = { .rig = shop->rig };
    pthread_t thread;

    (void)state;
    rig_serve(shop->rig);
    for (uint8_t i = 0; i < MANY; i++) {
        struct wire *wire = wire_meet(shop->rig, i);

        wire_call(wire, 1, "echo", "");
        wire_expect_reply(wire, 1, SEMEL_VALUE, "");
        wire_close(wire);
    }
    shop_shut(shop);
    shop_remake(shop);
    assert_int_equal(pthread_create(&thread, NULL, look_on, &onlooker), 0);
    rig_serve(shop->rig);
    assert_int_equal(rig_counters(shop->rig).sessions_open, MANY);
    atomic_store(&onlooker.enough, true);
    pthread_join(thread, NULL);
    shop_end(shop);
}

/* A session has its full time from the restart on, however long the server was away. */
static void test_full_lease(void **state)
{
    struct semel_server_options options = { .idle_session_ms = 2000 };
    struct sight sight = { .gone = true };
    struct shop *shop = shop_make(&options, export_sights, &sight);
    struct wire *wire;
    uint64_t reopened;

    (void)state;
    rig_serve(shop->rig);
    wire = wire_meet(shop->rig, 1);
    wire_close(wire);
    for (int i = 0; i < 2; i++) {
        kit_sleep_ms(1100); /* twice is more than it has, and a slow machine has 900 ms left */
        shop_shut(shop);
        kit_sleep_ms(i == 0 ? 2000 : 0);
        reopened = kit_now_ms();
        shop_reopen(shop);
        assert_int_equal(rig_counters(shop->rig).sessions_restored, 1);
        assert_int_equal(rig_counters(shop->rig).sessions_open, 1);
    }
    assert_true(kit_eventually(session_gone, shop->rig, 60));
    assert_true(kit_now_ms() - reopened >= 2000);
    while (shop_rows(shop).sessions > 0)
        kit_sleep_ms(1);
    shop_end(shop);
}

/* Calls are released in any order; after a crash they are as released as before, and the others are
 * as open. */
static void test_released(void **state)
{
    struct sight sight = { .gone = true };
    struct shop *shop = shop_make(NULL, export_sights, &sight);
    struct sml_call_frame call = call_of("echo", "");
    struct sml_outstanding list[8];
    struct sml_hello hello = hello_of(1, 2);
    uint8_t out[SML_FRAME_BYTES_MAX];
    struct sml_frame frame;
    struct wire *wire;

    (void)state;
    rig_serve(shop->rig);
    wire = wire_meet(shop->rig, 1);
    for (uint64_t xid = 1; xid <= 10; xid++) {
        wire_call(wire, xid, "echo", "");
        wire_expect_reply(wire, xid, SEMEL_VALUE, "");
    }
    wire_ack(wire, 5, 2);
    while (shop_rows(shop).calls > 8)
        kit_sleep_ms(1);
    kit_disk_kill(shop->disk);
    shop_die(shop);
    wire_close(wire);
    shop_reopen(shop);
    assert_int_equal(rig_counters(shop->rig).calls_restored, 8);
    hello.kind = SML_RESUME;
    hello.next = 13;
    hello.count = 1;
    wire = wire_open(shop->rig);
    list[0] = (struct sml_outstanding){ .xid = 5, .fingerprint = call.fingerprint };
    wire_hello(wire, &hello);
    assert_true(wire_send(wire, out, sml_encode_outstanding(out, list, 1)));
    wire_expect_bye(wire, SML_BYE_PROTOCOL, "released");
    wire_close(wire);
    for (uint32_t i = 0; i < 3; i++) /* the last one is new to this server */
        list[i] = (struct sml_outstanding){ .xid = 4 + 4 * i, .fingerprint = call.fingerprint };
    hello.count = 3;
    hello.conn_no = 3;
    wire = wire_open(shop->rig);
    wire_hello(wire, &hello);
    assert_true(wire_send(wire, out, sml_encode_outstanding(out, list, 3)));
    wire_expect(wire, SML_WELCOME, &frame);
    wire_expect(wire, SML_LIST, &frame);
    assert_int_equal(sml_list_listed(&frame.u.list, 0).state, SML_STATE_DONE);
    assert_int_equal(sml_list_listed(&frame.u.list, 1).state, SML_STATE_DONE);
    assert_int_equal(sml_list_listed(&frame.u.list, 2).state, SML_STATE_IN_DOUBT);
    wire_expect_reply(wire, 4, SEMEL_VALUE, "");
    wire_expect_reply(wire, 8, SEMEL_VALUE, "");
    wire_call(wire, 12, "echo", "");
    wire_expect_reply(wire, 12, SEMEL_VALUE, "");
    while (shop_rows(shop).calls > 3) /* what was not listed is released */
        kit_sleep_ms(1);
    wire_close(wire);
    shop_end(shop);
}

/* --- what is damaged ----------------------------------------------------------------------- */

static void put(struct semel_store *store, enum sml_store_table table, const void *bytes,
                size_t size)
{
    uint64_t row = 0;

    assert_int_equal(store->ops->begin(store), SML_STORED);
    assert_int_equal(store->ops->put(store, table, &row, semel_bytes(bytes, size)), SML_STORED);
    assert_int_equal(store->ops->commit(store), SML_STORED);
}

/* Sound, but contradicts what is there. */
static void put_call(struct semel_store *store, uint64_t xid)
{
    struct sml_call_record record = {
        .session = 1, .xid = xid, .state = SML_CALL_AGAIN, .method = semel_bytes_text("echo")
    };
    uint8_t bytes[512];

    assert_true(sml_call_record_bytes(&record) <= sizeof bytes);
    sml_call_record_encode(&record, bytes);
    put(store, SML_TABLE_CALLS, bytes, sml_call_record_bytes(&record));
}

static void put_key(struct semel_store *store, bool sound)
{
    struct sml_key_record record = { .method = semel_bytes_text("echo"),
                                     .key = semel_bytes_text("k"),
                                     .state = SML_CALL_STARTED,
                                     .session = 77,
                                     .xid = 1 };
    uint8_t bytes[512], hash[32] = { 1 };

    sml_key_record_encode(&record, bytes);
    bytes[20] ^= !sound;
    assert_int_equal(store->ops->begin(store), SML_STORED);
    assert_int_equal(
        store->ops->put_key(store, hash, 0, semel_bytes(bytes, sml_key_record_bytes(&record))),
        SML_STORED);
    assert_int_equal(store->ops->commit(store), SML_STORED);
}

/* One that is damaged ends the start, and says which; nothing is repaired by leaving it out. */
static void refuse_damaged(int what, const char *word)
{
    struct sight sight = { .gone = true };
    struct shop *shop = shop_make(NULL, export_sights, &sight);
    struct semel_store *store;
    struct wire *wire;

    rig_serve(shop->rig);
    wire = wire_meet(shop->rig, 1);
    wire_close(wire);
    shop_shut(shop);
    store = kit_disk_open(shop->disk);
    if (what < 2)
        put(store, what == 0 ? SML_TABLE_SESSIONS : SML_TABLE_CALLS, "nonsense", 8);
    else if (what == 2)
        put_key(store, false);
    else
        for (int i = 0; i < 2; i++)
            put_call(store, 5);
    semel_store_close(store);
    shop_remake(shop);
    assert_int_equal(semel_server_listen(shop->rig->server, shop->rig->place.address), SEMEL_OK);
    assert_int_equal(semel_server_start(shop->rig->server), SEMEL_STORE_CORRUPT);
    assert_true(log_has(shop->rig, "the store cannot be used"));
    assert_true(log_has(shop->rig, word));
    assert_int_equal(semel_server_start(shop->rig->server), SEMEL_STOPPED);
    shop_end(shop);
}

static void test_damaged(void **state)
{
    (void)state;
    refuse_damaged(0, "session record 2");
    refuse_damaged(1, "call record 1");
    refuse_damaged(2, "key record");
    refuse_damaged(3, "two records of one call");
}

/* --- the store fails while it is read ------------------------------------------------------ */

/* One call that ran, and another with a key whose session had ended: whatever goes wrong while they
 * are settled, the next start finds them as they were. */
static void fail_restore_at(unsigned at, enum sml_stored answer, bool *out_reached)
{
    struct kit_fault fault = { .at_operation = at, .answer = answer, .status = SEMEL_STORE_FULL };
    struct kit_fault none = { 0 };
    struct sight sight;
    struct seen seen, left;
    struct semel_call_options keyed = { .key = "k" };
    struct semel_client *client;
    struct shop *shop;

    memset(&sight, 0, sizeof sight);
    gate_init(&sight.gate);
    shop = shop_make(NULL, export_sights, &sight);
    shop_go(shop);
    client = shop_connect(shop);
    start_call(client, "unknown", "y", &keyed, &left, NULL);
    start_call(shop->rig->client, "unknown", "x", NULL, &seen, NULL);
    wait_inside(&sight.gate, 2);
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    while (shop_rows(shop).sessions > 1)
        kit_sleep_ms(1);
    kit_disk_kill(shop->disk);
    gate_open(&sight.gate, true);
    shop_die(shop);
    shop_remake(shop);
    assert_int_equal(semel_server_listen(shop->rig->server, shop->rig->place.address), SEMEL_OK);
    kit_disk_fault(shop->disk, &fault);
    *out_reached = semel_server_start(shop->rig->server) != SEMEL_OK;
    shop_shut(shop);
    kit_disk_fault(shop->disk, &none);
    shop_reopen(shop);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_UNKNOWN);
    assert_int_equal(seen.status, SEMEL_SERVER_DIED);
    semel_result_clear(&left.result);
    semel_result_clear(&seen.result);
    seen.result =
        expect(shop->rig->client, "unknown", "y", &keyed, SEMEL_UNKNOWN, SEMEL_SERVER_DIED);
    semel_result_clear(&seen.result);
    assert_int_equal(atomic_load(&sight.runs), 2);
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    shop_end(shop);
    gate_fini(&sight.gate);
}

static void test_fails_meanwhile(void **state)
{
    static const enum sml_stored answers[] = { SML_NOT_STORED, SML_STORE_UNKNOWN };

    (void)state;
    for (int i = 0; i < 2; i++) {
        bool reached = true;
        unsigned at;

        for (at = 1; reached; at++)
            fail_restore_at(at, answers[i], &reached);
        assert_true(at > 6); /* three tables, and a transaction */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("what ran when the server died is unknown", test_unknown),
        TEST("what ran when the server died runs again", test_rerun),
        TEST("what ran when the server died is found out", test_resolve),
        TEST("a verdict is lost with the server, or is not", test_verdict_lost),
        TEST("a key outlives its session and its server", test_orphan),
        TEST("a transaction that kills its server runs again, alone, and not for ever",
             test_deadly),
        TEST("a poisoned call is listed with its deaths", test_poisoned_is_listed),
        TEST("a server may be looked at while it starts", test_looked_at),
        TEST("what was released stays released", test_released),
        TEST("sessions have their full time after a restart", test_full_lease),
        TEST("a damaged store is not served from", test_damaged),
        TEST("a start that fails can be tried again", test_fails_meanwhile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
