/* SPDX-License-Identifier: MIT */
/* Transactional handlers: their effect and their verdict are one. */
#include "server_kit.h"

#include "sqlite_kit.h"

#include "ledger_kit.h"

#include <sys/wait.h>

/* --- together ------------------------------------------------------------------------------ */

struct look {
    struct bank *bank;
    atomic_int times;
    enum semel_outcome outcome;
    int64_t entries, records;
};

/* Before the caller has acknowledged it, and so before anything is forgotten. */
static void look_at_once(struct semel_result *result, void *user)
{
    struct look *look = user;

    look->outcome = result->outcome;
    look->entries = entries(look->bank);
    look->records = ask(look->bank, "SELECT count(*) FROM semel_call");
    atomic_fetch_add(&look->times, 1);
}

static bool looked(void *arg)
{
    return atomic_load(&((struct look *)arg)->times) == 1;
}

static void test_together(void **state)
{
    struct bank *bank = open_bank(NULL, export_add, NULL);
    struct look look = { .bank = bank };

    (void)state;
    assert_int_equal(semel_client_start(bank->rig->client, "add", semel_bytes_text("1"), NULL,
                                        look_at_once, &look, NULL),
                     SEMEL_OK);
    assert_true(kit_eventually(looked, &look, 60));
    assert_int_equal(look.outcome, SEMEL_VALUE);
    assert_int_equal(look.entries, 1);
    assert_int_equal(look.records, 1);
    assert_true(kit_eventually(bank_at_rest, bank, 60));
    assert_int_equal(entries(bank), 1);
    bank_end(bank);
}

/* --- undone -------------------------------------------------------------------------------- */

static void enter_and_fail(struct semel_request *request, struct semel_store *store, void *user)
{
    (void)user;
    enter(request, store);
    REQUIRE(semel_request_fail(request, 7, "no money") == SEMEL_OK);
    REQUIRE(semel_request_reply(request, "", 0) == SEMEL_ALREADY);
}

/* Everything that could keep it for later, or give it up, does nothing. */
static void enter_and_leave(struct semel_request *request, struct semel_store *store, void *user)
{
    (void)user;
    enter(request, store);
    semel_request_take(request);
    semel_request_drop(request);
    semel_request_died(request, "not yet");
    REQUIRE(semel_request_never_ran(request, NULL) == SEMEL_INVALID);
}

static void enter_and_change_mind(struct semel_request *request, struct semel_store *store,
                                  void *user)
{
    static char big[2048];

    (void)user;
    enter(request, store);
    semel_request_take(request);
    semel_request_drop(request);
    REQUIRE(semel_request_reply(request, big, sizeof big) == SEMEL_TOO_LARGE);
    REQUIRE(semel_request_reply(request, "ok", 2) == SEMEL_OK);
    REQUIRE(semel_request_fail(request, 1, "") == SEMEL_ALREADY);
}

static void enter_and_say_too_much(struct semel_request *request, struct semel_store *store,
                                   void *user)
{
    static char big[2048];

    (void)user;
    enter(request, store);
    REQUIRE(semel_request_reply(request, big, sizeof big) == SEMEL_TOO_LARGE);
}

static void export_undone(struct bank *bank, void *user)
{
    transactional(bank, "fail", enter_and_fail, user, NULL);
    transactional(bank, "leave", enter_and_leave, user, NULL);
    transactional(bank, "mind", enter_and_change_mind, user, NULL);
    transactional(bank, "much", enter_and_say_too_much, user, NULL);
}

static void test_undone(void **state)
{
    struct semel_server_options options = { .body_bytes = 1024 };
    struct bank *bank = open_bank(&options, export_undone, NULL);
    struct semel_server_counters counters;
    struct semel_result result;

    (void)state;
    for (int i = 0; i < 5; i++) {
        result = expect(bank->rig->client, "fail", "1", NULL, SEMEL_FAILURE, SEMEL_FAILED);
        assert_int_equal(result.code, 7);
        assert_string_equal(result.text, "no money");
        semel_result_clear(&result);
        result = expect(bank->rig->client, "leave", "2", NULL, SEMEL_NOT_EXECUTED, SEMEL_DROPPED);
        semel_result_clear(&result);
        result = expect(bank->rig->client, "much", "3", NULL, SEMEL_NOT_EXECUTED, SEMEL_DROPPED);
        semel_result_clear(&result);
        assert_int_equal(entries(bank), i);
        result = expect(bank->rig->client, "mind", "4", NULL, SEMEL_VALUE, SEMEL_OK);
        semel_result_clear(&result);
        assert_int_equal(entries(bank), i + 1);
    }
    counters = rig_counters(bank->rig);
    assert_int_equal(counters.transactions, 20);
    assert_int_equal(counters.transactions_undone, 15);
    assert_int_equal(counters.failures, 5);
    assert_int_equal(counters.not_executed, 10);
    assert_int_equal(counters.unknown, 0);
    assert_true(kit_eventually(bank_at_rest, bank, 60));
    bank_end(bank);
}

/* Works for ever, until it is interrupted. */
static void loop(struct semel_request *request, struct semel_store *store, void *user)
{
    int code;

    enter(request, store);
    atomic_fetch_add((atomic_int *)user, 1);
    code = run_sql(store,
                   "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
                   "SELECT count(*) FROM c",
                   0);
    REQUIRE(code == SQLITE_INTERRUPT);
    if (number_of(request) == 1)
        reply_number(request);
    else
        REQUIRE(semel_request_fail(request, code, "interrupted") == SEMEL_OK);
}

static void export_loops(struct bank *bank, void *user)
{
    struct semel_method_options most = { .max_run_ms = 30 };

    transactional(bank, "loop", loop, user, NULL);
    transactional(bank, "brief", loop, user, &most);
}

/* A long statement ends when nobody wants it any more, and whatever its handler says of that, it
 * has no effect. */
static void test_interrupted(void **state)
{
    static const char *const numbers[] = { "1", "2" };
    atomic_int runs = 0;
    struct bank *bank = open_bank(NULL, export_loops, &runs);
    struct semel_call_options soon = { .deadline_ms = 50 };
    struct semel_result result;
    struct semel_call *call;
    struct seen seen;

    (void)state;
    for (int i = 0; i < 2; i++) {
        atomic_store(&runs, 0);
        start_call(bank->rig->client, "loop", numbers[i], NULL, &seen, &call);
        assert_true(kit_eventually(has_run, &runs, 60));
        semel_call_cancel(call);
        semel_call_unref(call);
        wait_seen(&seen);
        assert_int_equal(seen.outcome, SEMEL_NOT_EXECUTED);
        assert_int_equal(seen.status, SEMEL_CANCELLED);
        semel_result_clear(&seen.result);
        result =
            expect(bank->rig->client, "brief", numbers[i], NULL, SEMEL_NOT_EXECUTED, SEMEL_MAX_RUN);
        semel_result_clear(&result);
        start_call(bank->rig->client, "loop", numbers[i], &soon, &seen, NULL);
        wait_seen(&seen);
        assert_int_equal(seen.outcome, SEMEL_NOT_EXECUTED);
        assert_true(seen.status == SEMEL_EXPIRED || seen.status == SEMEL_CANCELLED);
        if (seen.status == SEMEL_EXPIRED && atomic_load(&runs) == 3)
            assert_non_null(strstr(seen.result.text, "was undone"));
        semel_result_clear(&seen.result);
    }
    assert_int_equal(entries(bank), 0);
    bank_end(bank);
}

/* --- what it may not do -------------------------------------------------------------------- */

struct caller {
    struct bank *bank;
    atomic_int started;
};

static void count_done(struct semel_result *result, void *user)
{
    (void)result;
    atomic_fetch_add((atomic_int *)user, 1);
}

/* Nothing that waits: its own server could be what it waits for. */
static void wait_for_others(struct semel_request *request, struct semel_store *store, void *user)
{
    struct caller *caller = user;
    struct rig *rig = caller->bank->rig;
    struct semel_result result;

    enter(request, store);
    REQUIRE(semel_client_call(rig->client, "add", semel_bytes_text("9"), NULL, &result) ==
            SEMEL_NOT_EXECUTED);
    REQUIRE(result.status == SEMEL_WOULD_DEADLOCK);
    semel_result_clear(&result);
    REQUIRE(semel_client_wait_connected(rig->client, 10, NULL, 0) == SEMEL_WOULD_DEADLOCK);
    REQUIRE(semel_client_destroy(rig->client) == SEMEL_WOULD_DEADLOCK);
    REQUIRE(semel_server_wait(rig->server, -1, NULL) == SEMEL_WOULD_DEADLOCK);
    REQUIRE(semel_server_run(rig->server) == SEMEL_WOULD_DEADLOCK);
    REQUIRE(semel_server_destroy(rig->server) == SEMEL_WOULD_DEADLOCK);
    REQUIRE(semel_client_start(rig->client, "add", semel_bytes_text("2"), NULL, count_done,
                               &caller->started, NULL) == SEMEL_OK);
    reply_number(request);
}

/* Statements that would end its transaction, or reach beyond it. */
static void misbehave(struct semel_request *request, struct semel_store *store, void *user)
{
    static const char *const refused[] = {
        "BEGIN",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT mine",
        "RELEASE semel_handler",
        "ROLLBACK TO semel_handler",
        "PRAGMA synchronous = OFF",
        "PRAGMA journal_mode = DELETE",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "DELETE FROM semel_call",
        "INSERT INTO semel_session (record) VALUES (x'00')",
        "UPDATE semel_store SET commits = 0",
        "DROP TABLE semel_key",
    };

    (void)user;
    enter(request, store);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (run_sql(store, refused[i], 0) != SQLITE_AUTH) {
            fprintf(stderr, "\"%s\" is not refused\n", refused[i]);
            abort();
        }
    reply_number(request);
}

static void export_misbehaved(struct bank *bank, void *user)
{
    struct caller *caller = user;

    caller->bank = bank;
    export_add(bank, NULL);
    transactional(bank, "wait", wait_for_others, caller, NULL);
    transactional(bank, "misbehave", misbehave, NULL, NULL);
}

static bool has_started(void *arg)
{
    return atomic_load(&((struct caller *)arg)->started) == 1;
}

static void test_misbehaved(void **state)
{
    struct caller caller = { .started = 0 };
    struct bank *bank = open_bank(NULL, export_misbehaved, &caller);
    struct semel_result result;

    (void)state;
    result = expect(bank->rig->client, "wait", "1", NULL, SEMEL_VALUE, SEMEL_OK);
    semel_result_clear(&result);
    assert_true(kit_eventually(has_started, &caller, 60)); /* to start a call is no waiting */
    assert_int_equal(entries(bank), 2);
    result = expect(bank->rig->client, "misbehave", "3", NULL, SEMEL_VALUE, SEMEL_OK);
    semel_result_clear(&result);
    assert_int_equal(entries(bank), 3);
    assert_int_equal(ask(bank, "SELECT sum(number) FROM ledger"), 6);
    bank_end(bank);
}

/* --- limits, and the end of the server ----------------------------------------------------- */

static void add_and_stop(struct semel_request *request, struct semel_store *store, void *user)
{
    struct caller *caller = user;

    enter(request, store);
    semel_server_drain(caller->bank->rig->server, 100000);
    semel_server_stop(caller->bank->rig->server);
    kit_sleep_ms(20);
    reply_number(request);
}

static void export_limited(struct bank *bank, void *user)
{
    struct semel_method_options one = { .limit = 1 };
    struct caller *caller = user;

    caller->bank = bank;
    transactional(bank, "one", add, NULL, &one);
    transactional(bank, "stop", add_and_stop, caller, NULL);
}

static void test_limited(void **state)
{
    struct caller caller = { .started = 0 };
    struct bank *bank = open_bank(NULL, export_limited, &caller);
    struct seen seen[50];

    (void)state;
    for (int i = 0; i < 50; i++)
        start_number(bank->rig->client, "one", i, &seen[i]);
    for (int i = 0; i < 50; i++) {
        wait_seen(&seen[i]);
        assert_int_equal(seen[i].outcome, SEMEL_VALUE);
        semel_result_clear(&seen[i].result);
    }
    assert_int_equal(entries(bank), 50);
    bank_end(bank);
}

/* What its handler said in time is kept. */
static void test_stopped_inside(void **state)
{
    struct caller caller = { .started = 0 };
    struct bank *bank = open_bank(NULL, export_limited, &caller);
    struct seen seen;

    (void)state;
    start_number(bank->rig->client, "stop", 1, &seen);
    assert_int_equal(semel_server_wait(bank->rig->server, 60000, NULL), SEMEL_OK);
    bank_close(bank);
    assert_int_equal(entries(bank), 1);
    assert_int_equal(ask(bank, "SELECT count(*) FROM semel_call"), 1);
    bank_reopen(bank);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_VALUE);
    semel_result_clear(&seen.result);
    assert_int_equal(entries(bank), 1);
    bank_end(bank);
}

/* --- cancel callbacks ---------------------------------------------------------------------- */

struct watch {
    atomic_int begun, told, runs;
    struct gate gate;
    bool stays, finishes;
};

/* Its request is there until it returns. */
static void tell(struct semel_request *request, void *user)
{
    struct watch *watch = user;

    atomic_fetch_add(&watch->begun, 1);
    kit_sleep_ms(20);
    REQUIRE(semel_request_cancelled(request));
    REQUIRE(semel_request_reply(request, "", 0) == SEMEL_WOULD_DEADLOCK);
    atomic_fetch_add(&watch->told, 1);
}

static bool has_begun(void *arg)
{
    return atomic_load(&((struct watch *)arg)->begun) > 0;
}

/* It stays until the callback is called, or leaves one behind, finished or not. */
static void watched(struct semel_request *request, struct semel_store *store, void *user)
{
    struct watch *watch = user;

    enter(request, store);
    semel_request_on_cancel(request, tell, watch);
    if (watch->stays) {
        atomic_fetch_add(&watch->runs, 1);
        REQUIRE(kit_eventually(has_begun, watch, 60));
    }
    if (watch->finishes) {
        reply_number(request);
        semel_request_on_cancel(request, tell, watch); /* too late */
    }
    if (!watch->stays) {
        atomic_fetch_add(&watch->runs, 1);
        gate_pass(&watch->gate);
    }
}

static void export_watched(struct bank *bank, void *user)
{
    transactional(bank, "watched", watched, user, NULL);
}

struct cancels {
    struct rig *rig;
    uint64_t before;
};

static bool came(void *arg)
{
    struct cancels *cancels = arg;

    return rig_counters(cancels->rig).calls_cancelled > cancels->before;
}

static void cancel_watched(struct bank *bank, struct watch *watch)
{
    struct cancels cancels = { bank->rig, rig_counters(bank->rig).calls_cancelled };
    struct semel_call *call;
    struct seen seen;

    atomic_store(&watch->begun, 0);
    atomic_store(&watch->told, 0);
    atomic_store(&watch->runs, 0);
    gate_open(&watch->gate, false);
    start_call(bank->rig->client, "watched", "1", NULL, &seen, &call);
    assert_true(kit_eventually(has_run, &watch->runs, 60));
    semel_call_cancel(call);
    semel_call_unref(call);
    if (watch->stays || !watch->finishes)
        assert_true(kit_eventually(has_begun, watch, 60));
    else
        assert_true(kit_eventually(came, &cancels, 60));
    gate_open(&watch->gate, true);
    wait_seen(&seen);
    assert_int_equal(seen.outcome, SEMEL_NOT_EXECUTED);
    assert_int_equal(seen.status, SEMEL_CANCELLED);
    assert_int_equal(atomic_load(&watch->told), watch->stays || !watch->finishes);
    semel_result_clear(&seen.result);
}

static void test_cancel_callback(void **state)
{
    struct watch watch = { .told = 0 };
    struct bank *bank;

    (void)state;
    gate_init(&watch.gate);
    bank = open_bank(NULL, export_watched, &watch);
    for (int i = 0; i < 8; i++) {
        watch.stays = i & 1;
        watch.finishes = i & 2;
        cancel_watched(bank, &watch);
    }
    /* Of calls that are not cancelled nobody is told. */
    atomic_store(&watch.begun, 0);
    watch.stays = false;
    for (int i = 0; i < 10; i++) {
        watch.finishes = true;
        expect_gone(bank->rig->client, "watched", SEMEL_VALUE, SEMEL_OK);
        watch.finishes = false;
        expect_gone(bank->rig->client, "watched", SEMEL_NOT_EXECUTED, SEMEL_DROPPED);
    }
    assert_int_equal(atomic_load(&watch.begun), 0);
    bank_end(bank);
    gate_fini(&watch.gate);
}

/* --- fork ---------------------------------------------------------------------------------- */

static void end_quietly(void)
{
    _exit(0);
}

/* "1": the child ends in the handler; "2": it returns. Its own work is the parent's all the same.
 */
static void fork_inside(struct semel_request *request, struct semel_store *store, void *user)
{
    bool returns = number_of(request) == 2;
    int status = -1;
    pid_t pid;

    (void)user;
    enter(request, store);
    pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0 && !returns)
        _exit(semel_request_reply(request, "", 0) != SEMEL_FORKED);
    if (pid == 0) {
        alarm(30);
        if (!THREAD_SANITIZER)
            atexit(end_quietly);
        return;
    }
    REQUIRE(waitpid(pid, &status, 0) == pid);
    REQUIRE(status == 0);
    reply_number(request);
}

static void export_forking(struct bank *bank, void *user)
{
    transactional(bank, "fork", fork_inside, user, NULL);
    export_add(bank, NULL);
}

static void test_fork(void **state)
{
    struct bank *bank = open_bank(NULL, export_forking, NULL);
    struct semel_result result;

    (void)state;
    for (int i = 0; i < 6; i++) {
        result = expect(bank->rig->client, "fork", i % 2 ? "1" : "2", NULL, SEMEL_VALUE, SEMEL_OK);
        semel_result_clear(&result);
        result = expect(bank->rig->client, "add", "3", NULL, SEMEL_VALUE, SEMEL_OK);
        semel_result_clear(&result);
        assert_int_equal(entries(bank), 2 * (i + 1));
    }
    assert_int_equal(rig_counters(bank->rig).connections_lost, 0);
    bank_end(bank);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("a transaction's effect and its verdict are there together", test_together),
        TEST("what says no value has no effect", test_undone),
        TEST("a statement is interrupted by cancel, deadline and max_run", test_interrupted),
        TEST("a transactional handler cannot wait, nor leave its transaction", test_misbehaved),
        TEST("a transactional method's limit is kept", test_limited),
        TEST("a transactional handler stops its server", test_stopped_inside),
        TEST("a cancel callback is called while its handler runs, and not later",
             test_cancel_callback),
        TEST("a transactional handler forks", test_fork),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
