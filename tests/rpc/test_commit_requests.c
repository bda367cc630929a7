/* SPDX-License-Identifier: MIT */
/* Requests of a server with a store: taken, dropped, too long, stalled; and sessions that come and
 * go around them. */
#include "server_kit.h"
#include "server_wire.h"

#include "store_kit.h"

/* --- taken, dropped ------------------------------------------------------------------------ */

#define TAKEN 12

struct shelf {
    pthread_mutex_t lock;
    struct semel_request *requests[TAKEN];
    int count;
};

static void shelve(struct semel_request *request, void *user)
{
    struct shelf *shelf = user;

    semel_request_take(request);
    pthread_mutex_lock(&shelf->lock);
    REQUIRE(shelf->count < TAKEN);
    shelf->requests[shelf->count++] = request;
    pthread_mutex_unlock(&shelf->lock);
}

static void forget(struct semel_request *request, void *user)
{
    (void)request;
    (void)user;
}

static int shelved(struct shelf *shelf)
{
    int count;

    pthread_mutex_lock(&shelf->lock);
    count = shelf->count;
    pthread_mutex_unlock(&shelf->lock);
    return count;
}

static bool is_full(void *arg)
{
    return shelved(arg) == TAKEN;
}

static bool is_begun(void *arg)
{
    return shelved(arg) > 0;
}

static void *finish_all(void *arg)
{
    struct shelf *shelf = arg;

    for (int i = 0; i < TAKEN; i++) {
        if (i % 4 == 0)
            REQUIRE(semel_request_reply(shelf->requests[i], "later", 5) == SEMEL_OK);
        else if (i % 4 == 1)
            REQUIRE(semel_request_fail(shelf->requests[i], i, "no") == SEMEL_OK);
        else if (i % 4 == 2)
            semel_request_drop(shelf->requests[i]);
        else
            semel_request_died(shelf->requests[i], "killed");
    }
    return NULL;
}

static void export_shelf(struct shop *shop, void *user)
{
    rig_export(shop->rig, "shelve", shelve, user, NULL);
    rig_export(shop->rig, "forget", forget, NULL, NULL);
}

static void check_taken(struct seen *seen)
{
    static const enum semel_outcome outcomes[] = { SEMEL_VALUE, SEMEL_FAILURE, SEMEL_UNKNOWN,
                                                   SEMEL_UNKNOWN };
    static const enum semel_status statuses[] = { SEMEL_OK, SEMEL_FAILED, SEMEL_DROPPED,
                                                  SEMEL_HANDLER_DIED };

    for (int i = 0; i < TAKEN; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, outcomes[i % 4]);
        assert_int_equal(seen[i].status, statuses[i % 4]);
        semel_result_clear(&seen[i].result);
    }
}

/* Finished on another thread, while the server serves, or after it was told to stop. */
static void finish_taken(bool stopped)
{
    struct semel_server_options options = { .workers = 1 };
    struct shelf shelf = { .lock = PTHREAD_MUTEX_INITIALIZER };
    struct shop *shop = shop_make(&options, export_shelf, &shelf);
    struct seen seen[TAKEN];
    pthread_t thread;

    shop_go(shop);
    for (int i = 0; i < TAKEN; i++)
        start_call(shop->rig->client, "shelve", "", NULL, &seen[i], NULL);
    assert_true(kit_eventually(is_full, &shelf, 60));
    assert_int_equal(shop_rows(shop).started, TAKEN);
    if (stopped) {
        semel_server_stop(shop->rig->server);
        assert_int_equal(semel_server_wait(shop->rig->server, 60000, NULL), SEMEL_OK);
        for (int i = 0; i < TAKEN; i++)
            assert_true(semel_request_cancelled(shelf.requests[i]));
    }
    assert_int_equal(pthread_create(&thread, NULL, finish_all, &shelf), 0);
    if (stopped) {
        shop_shut(shop); /* waits for them */
        shop_remake(shop);
        assert_int_equal(shop_rows(shop).ended, TAKEN); /* before anybody fetches them */
        rig_serve(shop->rig);
    }
    check_taken(seen);
    pthread_join(thread, NULL);
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    shop_end(shop);
}

static void test_taken(void **state)
{
    (void)state;
    finish_taken(false);
    finish_taken(true);
}

static void *finish_one_by_one(void *arg)
{
    struct shelf *shelf = arg;

    for (int i = 0; i < TAKEN; i++) {
        while (shelved(shelf) <= i)
            kit_sleep_ms(1);
        REQUIRE(semel_request_reply(shelf->requests[i], "", 0) == SEMEL_OK);
    }
    return NULL;
}

/* The place of a request that is finished elsewhere is taken by the next call that waits for it. */
static void test_taken_limit(void **state)
{
    struct shelf shelf = { .lock = PTHREAD_MUTEX_INITIALIZER };
    struct shop *shop = shop_make(NULL, export_shelf, &shelf);
    struct semel_method_options limit = { .limit = 1 };
    struct seen seen[TAKEN];
    pthread_t thread;

    (void)state;
    rig_export(shop->rig, "one", shelve, &shelf, &limit);
    shop_go(shop);
    for (int i = 0; i < TAKEN; i++)
        start_call(shop->rig->client, "one", "", NULL, &seen[i], NULL);
    assert_true(kit_eventually(is_begun, &shelf, 60));
    WAIT_COUNTER(shop->rig, calls_waiting, TAKEN - 1);
    kit_sleep_ms(10);
    assert_int_equal(shelved(&shelf), 1);
    assert_int_equal(shop_rows(shop).started, 1);
    assert_int_equal(pthread_create(&thread, NULL, finish_one_by_one, &shelf), 0);
    for (int i = 0; i < TAKEN; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, SEMEL_VALUE);
        semel_result_clear(&seen[i].result);
    }
    pthread_join(thread, NULL);
    shop_end(shop);
}

static void test_dropped(void **state)
{
    struct shelf shelf = { .lock = PTHREAD_MUTEX_INITIALIZER };
    struct shop *shop = shop_make(NULL, export_shelf, &shelf);
    struct seen seen;

    (void)state;
    shop_go(shop);
    for (int i = 0; i < 10; i++)
        expect_gone(shop->rig->client, "forget", SEMEL_UNKNOWN, SEMEL_DROPPED);
    shop_allow(shop, 1); /* its start */
    start_call(shop->rig->client, "forget", "", NULL, &seen, NULL);
    shop_wait_held(shop);
    kit_sleep_ms(10);
    assert_int_equal(atomic_load(&seen.times), 0);
    shop_allow(shop, -1);
    wait_seen(&seen);
    semel_result_clear(&seen.result);
    shop_end(shop);
}

/* --- max_run ------------------------------------------------------------------------------- */

static void export_stubborn(struct shop *shop, void *user)
{
    struct semel_method_options most = { .max_run_ms = 30 };

    rig_export(shop->rig, "stubborn", gated, user, &most);
}

/* What takes too long is unknown for good, whatever it says later. */
static void test_max_run(void **state)
{
    struct shop *shop;
    struct seen seen;
    struct gate gate;

    (void)state;
    gate_init(&gate);
    shop = shop_make(NULL, export_stubborn, &gate);
    shop_go(shop);
    assert_int_equal(semel_client_wait_connected(shop->rig->client, 60000, NULL, 0), SEMEL_OK);
    shop_allow(shop, 1); /* its start */
    start_call(shop->rig->client, "stubborn", "", NULL, &seen, NULL);
    wait_inside(&gate, 1);
    shop_wait_held(shop); /* it is to be stored that it is unknown */
    kit_sleep_ms(10);
    assert_int_equal(atomic_load(&seen.times), 0);
    gate_open(&gate, true);
    kit_sleep_ms(10);
    shop_allow(shop, -1);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_UNKNOWN);
    assert_int_equal(seen.status, SEMEL_MAX_RUN);
    semel_result_clear(&seen.result);
    assert_true(kit_eventually(shop_at_rest, shop, 60));
    shop_end(shop);
    gate_fini(&gate);
}

/* --- stalled ------------------------------------------------------------------------------- */

static void send_600(struct semel_request *request, void *user)
{
    static char reply[600];

    atomic_fetch_add((atomic_int *)user, 1);
    REQUIRE(semel_request_reply(request, reply, sizeof reply) == SEMEL_OK);
}

static void add_600(struct semel_request *request, struct semel_store *store, void *user)
{
    shop_add(store, 1);
    send_600(request, user);
}

static void export_600(struct shop *shop, void *user)
{
    struct semel_method_options harmless = { .kind = SEMEL_IDEMPOTENT };

    rig_export(shop->rig, "once", send_600, user, NULL);
    rig_export(shop->rig, "idempotent", send_600, user, &harmless);
    assert_int_equal(
        semel_server_export_transactional(shop->rig->server, "transactional", add_600, user, NULL),
        SEMEL_OK);
}

static struct wire *wire_resume(struct rig *rig, uint64_t conn_no, const char *method,
                                uint64_t first, uint64_t last)
{
    struct sml_call_frame call = call_of(method, "");
    struct sml_hello hello = hello_of(1, conn_no);
    struct wire *wire = wire_open(rig);
    struct sml_outstanding list[8];
    uint8_t out[SML_FRAME_BYTES_MAX];
    struct sml_frame frame;

    hello.kind = SML_RESUME;
    hello.next = last + 1;
    for (uint64_t xid = first; xid <= last; xid++)
        list[hello.count++] =
            (struct sml_outstanding){ .xid = xid, .fingerprint = call.fingerprint };
    wire_hello(wire, &hello);
    assert_true(wire_send(wire, out, sml_encode_outstanding(out, list, hello.count)));
    wire_expect(wire, SML_WELCOME, &frame);
    assert_true(frame.u.welcome.resumed);
    return wire;
}

static void expect_600(struct wire *wire)
{
    struct sml_frame frame;

    wire_expect(wire, SML_REPLY, &frame);
    assert_int_equal(frame.u.reply.verdict.outcome, SEMEL_VALUE);
    assert_int_equal(frame.u.reply.body_bytes, 600);
}

/* Two replies are more than a session may have stored: nothing begins, on paper or else, until one
 * is fetched; nor after a restart. */
static void stall(const char *method, bool stored)
{
    struct semel_server_options options = { .workers = 1,
                                            .body_bytes = 1000,
                                            .session_bytes = 1000 };
    atomic_int runs = 0;
    struct shop *shop = shop_make(&options, export_600, &runs);
    struct wire *wire;
    struct sml_frame frame;

    shop_go(shop);
    wire = wire_meet(shop->rig, 1);
    for (uint64_t xid = 1; xid <= 4; xid++)
        wire_call(wire, xid, method, "");
    expect_600(wire);
    expect_600(wire);
    kit_sleep_ms(20);
    assert_int_equal(atomic_load(&runs), 2);
    assert_int_equal(shop_rows(shop).calls, stored ? 2 : 0);
    wire_ack(wire, 1, 1);
    expect_600(wire);
    kit_sleep_ms(20);
    assert_int_equal(atomic_load(&runs), 3);
    shop_shut(shop);
    wire_close(wire);
    shop_reopen(shop);
    wire = wire_resume(shop->rig, 2, method, 2, 4);
    wire_expect(wire, SML_LIST, &frame);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(sml_list_listed(&frame.u.list, i).state,
                         stored && i < 2 ? SML_STATE_DONE : SML_STATE_IN_DOUBT);
    if (stored) {
        expect_600(wire);
        expect_600(wire);
        wire_call(wire, 4, method, "");
        kit_sleep_ms(20);
        assert_int_equal(atomic_load(&runs), 3);
        wire_ack(wire, 2, 1);
        expect_600(wire);
        assert_int_equal(atomic_load(&runs), 4);
    }
    wire_close(wire);
    shop_end(shop);
}

static void test_stalled(void **state)
{
    (void)state;
    stall("once", true);
    stall("transactional", true);
    stall("idempotent", false);
}

/* --- draining ------------------------------------------------------------------------------ */

static void export_echo(struct shop *shop, void *user)
{
    rig_export(shop->rig, "echo", echo, user, NULL);
}

/* A drain waits for replies to be accepted, but not for a client that is away, nor for a call that
 * was put off: they are for the next server. */
static void test_drain(void **state)
{
    struct shop *shop = shop_make(NULL, export_echo, NULL);
    struct wire *away, *here;
    struct sml_frame frame;

    (void)state;
    shop_go(shop);
    here = wire_meet(shop->rig, 2);
    wire_call(here, 1, "echo", "here");
    wire_expect_reply(here, 1, SEMEL_VALUE, "here");
    away = wire_meet(shop->rig, 1);
    wire_call(away, 1, "echo", "");
    wire_expect_reply(away, 1, SEMEL_VALUE, "");
    wire_close(away);
    semel_server_drain(shop->rig->server, 600000);
    wire_expect(here, SML_DRAIN, &frame);
    wire_call(here, 2, "echo", "late");
    wire_expect(here, SML_BUSY, &frame);
    assert_int_equal(semel_server_wait(shop->rig->server, 30, NULL), SEMEL_DEADLINE);
    wire_ack(here, 1, 1);
    assert_int_equal(semel_server_wait(shop->rig->server, 60000, NULL), SEMEL_OK);
    wire_close(here);
    shop_shut(shop);
    shop_reopen(shop);
    away = wire_resume(shop->rig, 2, "echo", 1, 1);
    wire_expect(away, SML_LIST, &frame);
    assert_int_equal(sml_list_listed(&frame.u.list, 0).state, SML_STATE_DONE);
    wire_expect_reply(away, 1, SEMEL_VALUE, "");
    wire_close(away);
    shop_end(shop);
}

static void *drain_and_reopen(void *arg)
{
    struct shop *shop = arg;

    REQUIRE(semel_server_wait(shop->rig->server, 60000, NULL) == SEMEL_OK);
    REQUIRE(semel_server_destroy(shop->rig->server) == SEMEL_OK);
    return NULL;
}

/* Whoever calls while its only server drains gets its answer from the next one. */
static void test_drain_with_callers(void **state)
{
    struct shop *shop = shop_make(NULL, export_echo, NULL);
    struct seen seen[10];
    pthread_t thread;

    (void)state;
    shop_go(shop);
    expect_echo(shop->rig->client, "before");
    semel_server_drain(shop->rig->server, 600000);
    assert_int_equal(pthread_create(&thread, NULL, drain_and_reopen, shop), 0);
    for (int i = 0; i < 10; i++)
        start_call(shop->rig->client, "echo", "late", NULL, &seen[i], NULL);
    pthread_join(thread, NULL);
    shop->rig->server = NULL;
    shop_reopen(shop);
    for (int i = 0; i < 10; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, SEMEL_VALUE);
        semel_result_clear(&seen[i].result);
    }
    shop_end(shop);
}

/* --- refused ------------------------------------------------------------------------------- */

static void export_echo_and_gate(struct shop *shop, void *user)
{
    struct semel_method_options harmless = { .kind = SEMEL_IDEMPOTENT };

    rig_export(shop->rig, "echo", echo, NULL, NULL);
    rig_export(shop->rig, "blocker", gated, user, &harmless);
}

static void send_refusable(struct wire *wire)
{
    struct sml_call_frame call = call_of("echo", "");
    uint8_t frame[SML_FRAME_BYTES_MAX];

    call.flags = SML_CALL_REFUSE_WHEN_FULL;
    assert_true(wire_send(wire, frame, sml_encode_call(frame, 1, &call)));
}

/* A call had begun on paper when the server stopped. The next one is full when it comes again, and
 * must not begin: that is written down, and told, though nothing else happens. */
static void test_refused_again(void **state)
{
    struct semel_server_options options = { .workers = 1, .backlog_none = true };
    struct seen blocked;
    struct shop *shop;
    struct wire *wire;
    struct sml_frame frame;
    struct gate gate;

    (void)state;
    gate_init(&gate);
    shop = shop_make(&options, export_echo_and_gate, &gate);
    shop_go(shop);
    wire = wire_meet(shop->rig, 1);
    shop_allow(shop, 0);
    send_refusable(wire);
    shop_wait_held(shop); /* its start is being stored */
    shop_stop(shop);
    shop_allow(shop, -1);
    shop_shut(shop);
    wire_close(wire);
    shop_reopen(shop);
    assert_int_equal(rig_counters(shop->rig).calls_restored, 1);
    start_call(shop->rig->client, "blocker", "", NULL, &blocked, NULL);
    wait_inside(&gate, 1);
    wire = wire_resume(shop->rig, 2, "echo", 1, 1);
    wire_expect(wire, SML_LIST, &frame);
    assert_int_equal(sml_list_listed(&frame.u.list, 0).state, SML_STATE_EXPECTED);
    send_refusable(wire);
    wire_expect(wire, SML_REPLY, &frame);
    assert_int_equal(frame.u.reply.verdict.outcome, SEMEL_NOT_EXECUTED);
    assert_int_equal(frame.u.reply.verdict.status, SEMEL_OVERLOADED);
    assert_int_equal(frame.u.reply.flags, SML_REPLY_RECORDED);
    wire_close(wire);
    gate_open(&gate, true);
    wait_seen(&blocked);
    semel_result_clear(&blocked.result);
    shop_end(shop);
    gate_fini(&gate);
}

/* --- sessions ------------------------------------------------------------------------------ */

static int count_served(struct semel_server *server)
{
    int count = 0;

    sml_mutex_lock(&server->host_lock);
    for (struct sml_list *node = server->served.next; node != &server->served; node = node->next)
        count++;
    sml_mutex_unlock(&server->host_lock);
    return count;
}

static bool one_served(void *arg)
{
    return count_served(((struct rig *)arg)->server) == 1;
}

/* Sessions that end before there is a record of them leave nothing, in the store or in memory. */
static void test_ended_unstored(void **state)
{
    struct shop *shop = shop_make(NULL, export_echo, NULL);
    struct wire *wires[8];

    (void)state;
    shop_go(shop);
    for (int round = 0; round < 2; round++) {
        shop_allow(shop, round == 0 ? 0 : -1);
        for (int i = 0; i < 8; i++) {
            struct sml_hello hello = hello_of((uint8_t)(10 + i), 1);
            uint8_t out[2 * SML_FRAME_BYTES_MAX];
            size_t bytes = sml_encode_hello(out, &hello);

            bytes += sml_encode_bye(out + bytes, SML_BYE_END, semel_bytes_text("never mind"));
            wires[i] = wire_open(shop->rig);
            assert_true(wire_send(wires[i], out, bytes));
        }
        WAIT_COUNTER(shop->rig, sessions_ended, 8 * (uint64_t)(round + 1));
        shop_allow(shop, -1);
        for (int i = 0; i < 8; i++)
            wire_close(wires[i]);
        assert_true(kit_eventually(one_served, shop->rig, 60));
        expect_echo(shop->rig->client, "and now"); /* whatever waited before is stored by then */
        assert_int_equal(shop_rows(shop).sessions, 1);
    }
    shop_end(shop);
}

#define CROWD 300 /* sessions, more than one transaction takes */

/* Sessions that all want to be stored at the same time are, and each is greeted. */
static void test_crowd(void **state)
{
    static struct wire *wires[CROWD];
    struct shop *shop = shop_make(NULL, export_echo, NULL);
    int crowd = SLOW_BUILD ? 40 : CROWD;

    (void)state;
    shop_go(shop);
    shop_allow(shop, 0);
    for (int i = 0; i < crowd; i++) {
        struct sml_hello hello = hello_of(9, 1);

        memcpy(hello.session.bytes, &i, sizeof i);
        wires[i] = wire_open(shop->rig);
        wire_hello(wires[i], &hello);
    }
    WAIT_COUNTER(shop->rig, sessions_created, (uint64_t)crowd + 1);
    shop_allow(shop, -1);
    for (int i = 0; i < crowd; i++) {
        struct sml_frame frame;

        wire_expect(wires[i], SML_WELCOME, &frame);
        wire_call(wires[i], 1, "echo", "me too");
    }
    for (int i = 0; i < crowd; i++) {
        wire_expect_reply(wires[i], 1, SEMEL_VALUE, "me too");
        wire_close(wires[i]);
    }
    assert_int_equal(shop_rows(shop).sessions, crowd + 1);
    assert_int_equal(shop_rows(shop).ended, crowd);
    shop_shut(shop);
    shop_reopen(shop);
    assert_int_equal(rig_counters(shop->rig).sessions_restored, crowd + 1);
    assert_int_equal(rig_counters(shop->rig).calls_restored, crowd);
    shop_end(shop);
}

static bool nothing_left(void *arg)
{
    struct rows rows = shop_rows(arg);

    return rows.calls == 0 && rows.sessions == 1;
}

/* A session that ends with more records than one transaction takes is forgotten whole. */
static void test_many_records(void **state)
{
    struct shop *shop = shop_make(NULL, export_echo, NULL);
    struct sml_hello hello = hello_of(1, 1);
    int calls = SLOW_BUILD ? 300 : 700;
    uint8_t out[SML_FRAME_BYTES_MAX];
    struct sml_frame frame;
    struct wire *wire;

    (void)state;
    shop_go(shop);
    wire = wire_open(shop->rig);
    hello.window = 1000;
    wire_hello(wire, &hello);
    wire_expect(wire, SML_WELCOME, &frame);
    for (int i = 1; i <= calls; i++)
        wire_call(wire, (uint64_t)i, "echo", "");
    for (int i = 0; i < calls; i++)
        wire_expect(wire, SML_REPLY, &frame);
    assert_int_equal(shop_rows(shop).ended, calls);
    assert_true(wire_send(wire, out, sml_encode_bye(out, SML_BYE_END, semel_bytes_text(""))));
    assert_true(kit_eventually(nothing_left, shop, 60));
    wire_close(wire);
    shop_end(shop);
}

/* A HELLO that is not the newest is refused by the next server, too. */
static void test_takeover(void **state)
{
    struct shop *shop = shop_make(NULL, export_echo, NULL);
    struct sml_hello hello = hello_of(1, 5);
    struct sml_frame frame;
    struct wire *wire;

    (void)state;
    shop_go(shop);
    wire = wire_open(shop->rig);
    wire_hello(wire, &hello);
    wire_expect(wire, SML_WELCOME, &frame);
    wire_close(wire);
    shop_shut(shop);
    shop_reopen(shop);
    for (hello.conn_no = 4; hello.conn_no <= 5; hello.conn_no++) {
        wire = wire_open(shop->rig);
        wire_hello(wire, &hello);
        wire_expect_bye(wire, SML_BYE_TAKEN_OVER, NULL);
        wire_close(wire);
    }
    wire = wire_open(shop->rig);
    wire_hello(wire, &hello);
    wire_expect(wire, SML_WELCOME, &frame);
    wire_close(wire);
    hello.secret[0] ^= 1;
    hello.conn_no++;
    wire = wire_open(shop->rig);
    wire_hello(wire, &hello);
    wire_expect_bye(wire, SML_BYE_DENIED, NULL);
    wire_close(wire);
    shop_end(shop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("taken requests are finished later, and kept", test_taken),
        TEST("a taken request counts against its method's limit", test_taken_limit),
        TEST("a dropped request is unknown once that is stored", test_dropped),
        TEST("max_run makes a call unknown for good", test_max_run),
        TEST("nothing begins while too many replies are stored", test_stalled),
        TEST("a drain waits for whom it serves, and for nobody else", test_drain),
        TEST("calls made while a server drains are for the next one", test_drain_with_callers),
        TEST("a call that is refused when it comes again is told so", test_refused_again),
        TEST("sessions that end at once leave nothing", test_ended_unstored),
        TEST("many sessions at once are all stored", test_crowd),
        TEST("a session with many records is forgotten whole", test_many_records),
        TEST("an old HELLO stays refused", test_takeover),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
