/* SPDX-License-Identifier: MIT */
/* A call with a key that may run again ran when its server died, and its caller does not come back
 * for it. Whoever comes with the key then runs, but may not be the first: it is never told that it
 * was not executed. */
#include "server_kit.h"
#include "server_wire.h"

#include "store_kit.h"

#define RETENTION_MS 100000

struct past {
    struct shop *shop;
    struct gate gate;
    atomic_int runs;
    bool transactional; /* the next server's method is */
    struct wire *wire;
};

static void run(struct semel_request *request, void *user)
{
    struct past *past = user;

    atomic_fetch_add(&past->runs, 1);
    gate_pass(&past->gate);
    (void)!semel_request_reply(request, "done", 4);
}

static void run_and_say_nothing(struct semel_request *request, struct semel_store *store,
                                void *user)
{
    struct past *past = user;

    (void)request;
    atomic_fetch_add(&past->runs, 1);
    shop_add(store, 1);
}

static void export_again(struct shop *shop, void *user)
{
    struct semel_method_options again = { .on_crash = SEMEL_CRASH_RERUN };
    struct past *past = user;

    rig_export(shop->rig, "echo", echo, NULL, NULL);
    if (past->transactional)
        assert_int_equal(semel_server_export_transactional(shop->rig->server, "again",
                                                           run_and_say_nothing, user, NULL),
                         SEMEL_OK);
    else
        rig_export(shop->rig, "again", run, user, &again);
}

/* --- how it comes to that ------------------------------------------------------------------ */

static bool none_is_left(void *arg)
{
    struct rows rows = shop_rows(arg);

    return rows.sessions == 0 && rows.calls == 0;
}

/* Its session goes on, without the call; or ends while the call runs. */
enum leaving { GIVEN_UP, SESSION_ENDED };

static void end_session(struct past *past)
{
    uint8_t out[SML_FRAME_BYTES_MAX];

    assert_true(wire_send(past->wire, out, sml_encode_bye(out, SML_BYE_END, semel_bytes_text(""))));
    while (shop_rows(past->shop).sessions > 0)
        kit_sleep_ms(1);
}

static void give_up(struct past *past, uint8_t name)
{
    struct sml_hello hello = hello_of(name, 2);
    struct wire *wire = wire_open(past->shop->rig);
    struct sml_frame frame;
    uint8_t out[SML_FRAME_BYTES_MAX];

    hello.kind = SML_RESUME;
    hello.features = SML_FEATURE_KEYS;
    hello.next = 2;
    wire_hello(wire, &hello);
    wire_expect(wire, SML_WELCOME, &frame);
    assert_true(wire_send(wire, out, sml_encode_bye(out, SML_BYE_END, semel_bytes_text(""))));
    wire_close(wire);
}

/* Call "k" ran, and is gone. */
static void leave(struct past *past, enum leaving leaving)
{
    struct semel_server_options options = { .key_retention_ms = RETENTION_MS };

    memset(past, 0, sizeof *past);
    gate_init(&past->gate);
    past->shop = shop_make(&options, export_again, past);
    kit_disk_advance(past->shop->disk, RETENTION_MS); /* or nothing could be old enough to go */
    rig_serve(past->shop->rig);
    past->wire = wire_meet_keyed(past->shop->rig, 1);
    wire_call_keyed(past->wire, 1, "again", "k", 0);
    wait_inside(&past->gate, 1);
    if (leaving == SESSION_ENDED)
        end_session(past);
    kit_disk_kill(past->shop->disk);
    gate_open(&past->gate, true);
    shop_die(past->shop);
    wire_close(past->wire);
    shop_reopen(past->shop);
    if (leaving == GIVEN_UP)
        give_up(past, 1);
    assert_true(kit_eventually(none_is_left, past->shop, 60));
    assert_int_equal(atomic_load(&past->runs), 1);
}

static void forget(struct past *past)
{
    shop_end(past->shop);
    gate_fini(&past->gate);
}

/* --- what later callers are told ------------------------------------------------------------ */

static void expect_verdict(struct wire *wire, enum semel_outcome outcome, enum semel_status status,
                           uint8_t flags)
{
    struct sml_frame frame;

    wire_expect(wire, SML_REPLY, &frame);
    if (frame.u.reply.verdict.outcome != outcome || frame.u.reply.verdict.status != status ||
        frame.u.reply.flags != flags)
        fail_msg("%s, %s, flags %d", semel_outcome_text(frame.u.reply.verdict.outcome),
                 semel_status_name(frame.u.reply.verdict.status), frame.u.reply.flags);
}

static void come(struct past *past, uint8_t name, uint64_t age_ms)
{
    past->wire = wire_meet_keyed(past->shop->rig, name);
    wire_call_keyed(past->wire, 1, "again", "k", age_ms);
}

/* Its start is being stored when it is cancelled: it does not run. */
static void come_and_cancel(struct past *past, uint8_t name)
{
    uint8_t out[SML_FRAME_BYTES_MAX];
    uint64_t before = rig_counters(past->shop->rig).calls_cancelled;

    past->wire = wire_meet_keyed(past->shop->rig, name);
    shop_allow(past->shop, 0);
    wire_call_keyed(past->wire, 1, "again", "k", 0);
    shop_wait_held(past->shop);
    assert_true(wire_send(past->wire, out, sml_encode_plain(out, SML_CANCEL, 1)));
    WAIT_COUNTER(past->shop->rig, calls_cancelled, before + 1);
    shop_allow(past->shop, -1);
}

static void test_runs_again(void **state)
{
    struct past past;

    (void)state;
    for (int leaving = GIVEN_UP; leaving <= SESSION_ENDED; leaving++) {
        leave(&past, leaving);
        come(&past, 2, RETENTION_MS); /* it is kept as long as that */
        expect_verdict(past.wire, SEMEL_VALUE, SEMEL_OK, SML_REPLY_RECORDED);
        assert_int_equal(atomic_load(&past.runs), 2);
        wire_close(past.wire);
        come(&past, 3, 0); /* and that is the key's verdict */
        expect_verdict(past.wire, SEMEL_VALUE, SEMEL_OK, SML_REPLY_RECORDED);
        assert_int_equal(atomic_load(&past.runs), 2);
        wire_close(past.wire);
        forget(&past);
    }
}

/* Who does not run cannot know what the other one did. */
static void test_never_not_executed(void **state)
{
    struct past past;

    (void)state;
    for (int leaving = GIVEN_UP; leaving <= SESSION_ENDED; leaving++) {
        leave(&past, leaving);
        come_and_cancel(&past, 2);
        expect_verdict(past.wire, SEMEL_UNKNOWN, SEMEL_SERVER_DIED, SML_REPLY_RECORDED);
        wire_close(past.wire);
        come(&past, 3, 0);
        expect_verdict(past.wire, SEMEL_UNKNOWN, SEMEL_SERVER_DIED, SML_REPLY_RECORDED);
        wire_close(past.wire);
        assert_int_equal(atomic_load(&past.runs), 1);
        forget(&past);
    }
}

/* The second one is given up, too, before it runs: at once, or with its server. */
static void test_given_up_twice(void **state)
{
    struct past past;
    struct shop *shop;
    uint64_t commits;

    (void)state;
    for (int stopped = 0; stopped < 2; stopped++) {
        leave(&past, GIVEN_UP);
        shop = past.shop;
        past.wire = wire_meet_keyed(shop->rig, 2);
        shop_allow(shop, 0);
        wire_call_keyed(past.wire, 1, "again", "k", 0);
        shop_wait_held(shop);
        if (stopped) {
            shop_stop(shop);
        } else {
            uint64_t before = rig_counters(shop->rig).calls_abandoned;

            wire_ack(past.wire, 1, 1);
            WAIT_COUNTER(shop->rig, calls_abandoned, before + 1);
        }
        commits = rig_counters(shop->rig).commits;
        shop_allow(shop, -1);
        if (!stopped) {
            WAIT_COUNTER(shop->rig, commits, commits + 2); /* it is stored, and forgotten */
        } else {
            shop_shut(shop);
            shop_reopen(shop);
            assert_int_equal(shop_rows(shop).started, 1); /* the first may have run */
            give_up(&past, 2);
        }
        assert_true(kit_eventually(shop_at_rest, shop, 60));
        wire_close(past.wire);
        come_and_cancel(&past, 3);
        expect_verdict(past.wire, SEMEL_UNKNOWN, SEMEL_SERVER_DIED, SML_REPLY_RECORDED);
        wire_close(past.wire);
        assert_int_equal(atomic_load(&past.runs), 1);
        forget(&past);
    }
}

/* Nor can a caller whose own use of the key may have been forgotten since. */
static void test_too_old(void **state)
{
    struct past past;

    (void)state;
    leave(&past, GIVEN_UP);
    come(&past, 2, RETENTION_MS + 1);
    expect_verdict(past.wire, SEMEL_UNKNOWN, SEMEL_KEY_EXPIRED, SML_REPLY_RECORDED);
    wire_close(past.wire);
    assert_int_equal(atomic_load(&past.runs), 1);
    forget(&past);
}

static void test_in_a_transaction(void **state)
{
    struct past past;

    (void)state;
    leave(&past, GIVEN_UP);
    shop_shut(past.shop);
    past.transactional = true;
    shop_reopen(past.shop);
    come(&past, 2, 0);
    expect_verdict(past.wire, SEMEL_UNKNOWN, SEMEL_SERVER_DIED, 0);
    assert_int_equal(atomic_load(&past.runs), 2);
    assert_int_equal(kit_disk_sum(past.shop->disk), 0);
    wire_close(past.wire);
    forget(&past);
}

struct commits {
    struct kit_disk *disk;
    unsigned before;
};

static bool has_committed(void *arg)
{
    const struct commits *commits = arg;

    return kit_disk_commits(commits->disk) > commits->before;
}

/* It is kept as long as any key, from when it was given up. */
static void test_purged(void **state)
{
    struct commits commits;
    struct past past;

    (void)state;
    for (int kept = 0; kept < 2; kept++) {
        leave(&past, GIVEN_UP);
        commits.disk = past.shop->disk;
        shop_shut(past.shop);
        shop_remake(past.shop);
        kit_disk_advance(past.shop->disk, kept ? RETENTION_MS / 2 : RETENTION_MS * 2);
        past.shop->rig->server->commit.purge_at = 0; /* at once, instead of after a minute */
        commits.before = kit_disk_commits(past.shop->disk);
        rig_serve(past.shop->rig);
        assert_true(kit_eventually(has_committed, &commits, 60));
        come_and_cancel(&past, 2);
        if (kept)
            expect_verdict(past.wire, SEMEL_UNKNOWN, SEMEL_SERVER_DIED, SML_REPLY_RECORDED);
        else
            expect_verdict(past.wire, SEMEL_NOT_EXECUTED, SEMEL_CANCELLED,
                           SML_REPLY_RECORDED | SML_REPLY_PROVEN);
        wire_close(past.wire);
        forget(&past);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("who comes with the key runs again", test_runs_again),
        TEST("who comes with the key and does not run is told nothing", test_never_not_executed),
        TEST("two callers give it up", test_given_up_twice),
        TEST("a key that is too old is not run again", test_too_old),
        TEST("a transaction cannot know either", test_in_a_transaction),
        TEST("such a key is kept as long as any", test_purged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
