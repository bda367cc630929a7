/* SPDX-License-Identifier: MIT */
/* Transactions that carry several calls: whatever one of them does, the others have their effect
 * once, and in order. */
#include "server_kit.h"

#include "sqlite_kit.h"

#include "ledger_kit.h"

/* --- a transaction that is lost ------------------------------------------------------------ */

#define BATCH 12

enum crime { CONFLICT, ORPHAN, CRIMES };

/* Its transaction is gone as soon as it has run. */
static void conflict(struct semel_request *request, struct semel_store *store, void *user)
{
    (void)user;
    enter(request, store);
    REQUIRE((run_sql(store, "INSERT INTO taken VALUES (1)", 0) & 0xff) == SQLITE_CONSTRAINT);
    reply_number(request);
}

/* Its transaction cannot be committed. */
static void orphan(struct semel_request *request, struct semel_store *store, void *user)
{
    (void)user;
    enter(request, store);
    REQUIRE(run_sql(store, "INSERT INTO child VALUES (?1)", number_of(request)) == SQLITE_OK);
    reply_number(request);
}

/* Keeps the committer, so that calls gather behind it. */
static void keep(struct semel_request *request, struct semel_store *store, void *user)
{
    (void)store;
    gate_pass(user);
    reply_number(request);
}

static void export_crimes(struct bank *bank, void *user)
{
    export_add(bank, NULL);
    transactional(bank, "conflict", conflict, NULL, NULL);
    transactional(bank, "orphan", orphan, NULL, NULL);
    transactional(bank, "keep", keep, user, NULL);
    rig_export(bank->rig, "once", echo, NULL, NULL);
}

struct waiting {
    struct rig *rig;
    uint64_t count;
};

static bool so_many_wait(void *arg)
{
    struct waiting *waiting = arg;

    return rig_counters(waiting->rig).calls_waiting == waiting->count;
}

/* `culprits`: one bit for each of the calls. */
static void lose(enum crime crime, unsigned culprits)
{
    static const char *const methods[] = { "conflict", "orphan" };
    struct seen first, seen[BATCH];
    struct waiting waiting = { NULL, BATCH };
    struct bank *bank;
    struct gate gate;

    gate_init(&gate);
    bank = open_bank(NULL, export_crimes, &gate);
    waiting.rig = bank->rig;
    start_number(bank->rig->client, "keep", 0, &first);
    wait_inside(&gate, 1);
    for (int i = 0; i < BATCH; i++)
        start_number(bank->rig->client, culprits >> i & 1 ? methods[crime] : "add", i, &seen[i]);
    assert_true(kit_eventually(so_many_wait, &waiting, 60));
    gate_open(&gate, true);
    wait_seen(&first);
    assert_int_equal(first.outcome, SEMEL_VALUE);
    semel_result_clear(&first.result);
    for (int i = 0; i < BATCH; i++) {
        char sql[80];
        bool guilty = culprits >> i & 1;

        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, guilty ? SEMEL_NOT_EXECUTED : SEMEL_VALUE);
        assert_int_equal(seen[i].status, guilty ? SEMEL_ROLLED_BACK : SEMEL_OK);
        snprintf(sql, sizeof sql, "SELECT count(*) FROM ledger WHERE number = %d", i);
        assert_int_equal(ask(bank, sql), !guilty);
        semel_result_clear(&seen[i].result);
    }
    assert_int_equal(log_count(bank->rig, "rolled back: "), __builtin_popcount(culprits));
    expect_gone(bank->rig->client, "once", SEMEL_VALUE, SEMEL_OK);
    assert_true(kit_eventually(bank_at_rest, bank, 60));
    bank_end(bank);
    gate_fini(&gate);
}

/* All others have their effect once, and in the order of their calls. */
static void test_lost(void **state)
{
    (void)state;
    for (int crime = CONFLICT; crime < CRIMES; crime++) {
        lose((enum crime)crime, 1u << 5);
        lose((enum crime)crime, 1u);
        lose((enum crime)crime, 1u << (BATCH - 1) | 1u << 3 | 1u << 4);
        lose((enum crime)crime, (1u << BATCH) - 1);
    }
}

struct writer {
    struct gate gate;
    atomic_int runs;
    atomic_bool brief; /* it does not go on for ever */
};

/* Writes until it is interrupted, which costs the whole transaction. */
static void write_on(struct semel_request *request, struct semel_store *store, void *user)
{
    struct writer *writer = user;

    atomic_fetch_add(&writer->runs, 1);
    enter(request, store);
    if (!atomic_load(&writer->brief))
        REQUIRE(run_sql(store,
                        "INSERT INTO ledger (number) WITH RECURSIVE c (x) AS"
                        " (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT -1 FROM c",
                        0) == SQLITE_INTERRUPT);
    reply_number(request);
}

static void export_writers(struct bank *bank, void *user)
{
    struct semel_method_options most = { .max_run_ms = 20 };
    struct writer *writer = user;

    export_add(bank, NULL);
    transactional(bank, "keep", keep, &writer->gate, NULL);
    transactional(bank, "brief", write_on, writer, &most);
    transactional(bank, "write", write_on, writer, NULL);
}

/* Its neighbours run again, and it is told why it was interrupted. */
static void test_write_interrupted(void **state)
{
    struct waiting waiting = { NULL, BATCH };
    struct seen first, seen[BATCH];
    struct writer writer = { .runs = 0 };
    struct bank *bank;

    (void)state;
    gate_init(&writer.gate);
    bank = open_bank(NULL, export_writers, &writer);
    waiting.rig = bank->rig;
    start_number(bank->rig->client, "keep", 0, &first);
    wait_inside(&writer.gate, 1);
    for (int i = 0; i < BATCH; i++)
        start_number(bank->rig->client, i == 5 ? "brief" : "add", i, &seen[i]);
    assert_true(kit_eventually(so_many_wait, &waiting, 60));
    gate_open(&writer.gate, true);
    wait_seen(&first);
    semel_result_clear(&first.result);
    for (int i = 0; i < BATCH; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, i == 5 ? SEMEL_NOT_EXECUTED : SEMEL_VALUE);
        assert_int_equal(seen[i].status, i == 5 ? SEMEL_MAX_RUN : SEMEL_OK);
        semel_result_clear(&seen[i].result);
    }
    assert_int_equal(entries(bank), BATCH - 1);
    assert_int_equal(ask(bank, "SELECT count(DISTINCT number) FROM ledger"), BATCH - 1);
    assert_int_equal(atomic_load(&writer.runs), 1);
    bank_end(bank);
    gate_fini(&writer.gate);
}

/* Between calls that are interrupted all others get on: none of them is lost to more than one. */
static void test_writes_interrupted(void **state)
{
    struct waiting waiting = { NULL, BATCH };
    struct seen first, seen[BATCH];
    struct writer writer = { .runs = 0 };
    struct bank *bank;

    (void)state;
    gate_init(&writer.gate);
    bank = open_bank(NULL, export_writers, &writer);
    waiting.rig = bank->rig;
    start_number(bank->rig->client, "keep", 0, &first);
    wait_inside(&writer.gate, 1);
    for (int i = 0; i < BATCH; i++)
        start_number(bank->rig->client, i % 2 ? "brief" : "add", i, &seen[i]);
    assert_true(kit_eventually(so_many_wait, &waiting, 60));
    gate_open(&writer.gate, true);
    wait_seen(&first);
    semel_result_clear(&first.result);
    for (int i = 0; i < BATCH; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, i % 2 ? SEMEL_NOT_EXECUTED : SEMEL_VALUE);
        semel_result_clear(&seen[i].result);
    }
    assert_int_equal(ask(bank, "SELECT count(DISTINCT number) FROM ledger"), BATCH / 2);
    assert_int_equal(entries(bank), BATCH / 2);
    assert_int_equal(atomic_load(&writer.runs), BATCH / 2);
    assert_in_range(rig_counters(bank->rig).transactions, 1 + BATCH, 2 + BATCH / 2 * 3);
    bank_end(bank);
    gate_fini(&writer.gate);
}

/* Interrupted because the server stops, it goes on with the next one. */
static void test_write_stopped(void **state)
{
    struct writer writer = { .runs = 0 };
    struct bank *bank;
    struct seen seen;

    (void)state;
    gate_init(&writer.gate);
    bank = open_bank(NULL, export_writers, &writer);
    start_number(bank->rig->client, "write", 7, &seen);
    assert_true(kit_eventually(has_run, &writer.runs, 60));
    bank_close(bank);
    assert_int_equal(atomic_load(&seen.times), 0);
    assert_int_equal(entries(bank), 0);
    atomic_store(&writer.brief, true);
    bank_reopen(bank);
    /* Its reply is an answer to the second run; the first had no effect. */
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_VALUE);
    semel_result_clear(&seen.result);
    assert_int_equal(entries(bank), 1);
    assert_int_equal(atomic_load(&writer.runs), 2);
    bank_end(bank);
    gate_fini(&writer.gate);
}

/* Its caller has left when its transaction is lost for the first time. */
static void test_lost_and_left(void **state)
{
    struct semel_call_options soon = { .deadline_ms = 60000 };
    struct waiting waiting = { NULL, 2 };
    struct semel_client *client;
    struct seen first, left[2];
    struct bank *bank;
    struct gate gate;

    (void)state;
    gate_init(&gate);
    bank = open_bank(NULL, export_crimes, &gate);
    waiting.rig = bank->rig;
    client = bank_connect(bank);
    start_number(bank->rig->client, "keep", 0, &first);
    wait_inside(&gate, 1);
    start_call(client, "conflict", "1", &soon, &left[0], NULL);
    start_call(client, "orphan", "2", &soon, &left[1], NULL);
    assert_true(kit_eventually(so_many_wait, &waiting, 60));
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    gate_open(&gate, true);
    wait_seen(&first);
    semel_result_clear(&first.result);
    for (int i = 0; i < 2; i++) {
        wait_seen(&left[i]);
        semel_result_clear(&left[i].result);
    }
    assert_true(kit_eventually(bank_at_rest, bank, 60));
    bank_end(bank);
    gate_fini(&gate);
}

/* Whoever keeps the committer keeps everybody: once for each, that is said while it lasts. */
static void test_held_up(void **state)
{
    struct semel_client *client;
    struct bank *bank;
    struct gate gate;
    struct seen seen;

    (void)state;
    gate_init(&gate);
    bank = open_bank(NULL, export_crimes, &gate);
    client = bank_connect(bank);
    start_number(client, "keep", 0, &seen);
    wait_inside(&gate, 1);
    while (log_count(bank->rig, "\"keep\" has run for 5 s") == 0)
        kit_sleep_ms(10);
    kit_sleep_ms(50);
    gate_open(&gate, true);
    wait_seen(&seen);
    semel_result_clear(&seen.result);
    expect_gone(bank->rig->client, "once", SEMEL_VALUE, SEMEL_OK);
    assert_int_equal(log_count(bank->rig, "has run for"), 1);
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    bank_end(bank);
    gate_fini(&gate);
}

/* --- many ---------------------------------------------------------------------------------- */

#define THREADS 64
#define EACH (SLOW_BUILD ? 4 : 12)

struct adder {
    struct semel_client *client;
    int number;
    pthread_t thread;
};

static void *add_often(void *arg)
{
    struct adder *adder = arg;

    for (int i = 0; i < EACH; i++) {
        char text[16];

        snprintf(text, sizeof text, "%d", adder->number * EACH + i);
        REQUIRE(semel_client_call(adder->client, "add", semel_bytes_text(text), NULL, NULL) ==
                SEMEL_VALUE);
    }
    return NULL;
}

static void test_threads(void **state)
{
    static struct adder adders[THREADS];
    struct bank *bank = open_bank(NULL, export_add, NULL);
    struct semel_client *other = bank_connect(bank);

    (void)state;
    for (int i = 0; i < THREADS; i++) {
        adders[i] = (struct adder){ .client = i % 2 ? other : bank->rig->client, .number = i };
        assert_int_equal(pthread_create(&adders[i].thread, NULL, add_often, &adders[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(adders[i].thread, NULL);
    assert_int_equal(entries(bank), THREADS * EACH);
    assert_int_equal(ask(bank, "SELECT count(DISTINCT number) FROM ledger"), THREADS * EACH);
    assert_int_equal(semel_client_destroy(other), SEMEL_OK);
    bank_end(bank);
}

#define QUEUE 600

/* More than one transaction's worth, from one client, one of them bad: what is done is done in the
 * order of the calls. */
static void test_order(void **state)
{
    static struct seen seen[QUEUE];
    struct waiting waiting = { NULL, QUEUE };
    struct seen first;
    struct bank *bank;
    struct gate gate;

    (void)state;
    gate_init(&gate);
    bank = open_bank(NULL, export_crimes, &gate);
    waiting.rig = bank->rig;
    start_number(bank->rig->client, "keep", 0, &first);
    wait_inside(&gate, 1);
    for (int i = 0; i < QUEUE; i++)
        start_number(bank->rig->client, i == 100 ? "conflict" : "add", i, &seen[i]);
    assert_true(kit_eventually(so_many_wait, &waiting, 60));
    gate_open(&gate, true);
    wait_seen(&first);
    semel_result_clear(&first.result);
    for (int i = 0; i < QUEUE; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, i == 100 ? SEMEL_NOT_EXECUTED : SEMEL_VALUE);
        semel_result_clear(&seen[i].result);
    }
    assert_int_equal(entries(bank), QUEUE - 1);
    assert_int_equal(ask(bank, "SELECT count(*) FROM ledger AS a JOIN ledger AS b"
                               " ON a.entry < b.entry AND a.number > b.number"),
                     0);
    assert_true(rig_counters(bank->rig).commits < QUEUE);
    bank_end(bank);
    gate_fini(&gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("who spoils a transaction is found, the others run once", test_lost),
        TEST("who spoils a transaction is found, although its caller has left", test_lost_and_left),
        TEST("a write that is interrupted costs its neighbours nothing", test_write_interrupted),
        TEST("writes that are interrupted cost others one run at most", test_writes_interrupted),
        TEST("a write that a stop interrupts goes on with the next server", test_write_stopped),
        TEST("a transaction that holds everybody up is said", test_held_up),
        TEST("64 threads add, and nothing is lost or doubled", test_threads),
        TEST("calls of one client are carried out in order", test_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
