/* SPDX-License-Identifier: MIT */
/* Handlers of a server that share a transaction: what one of them does is no harm to the others. */
#include "kit.h"

#include <stdatomic.h>

#include <semel/semel.h>

static const char endless_read[] =
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";

struct house {
    struct place place;
    struct semel_server *server;
    struct semel_client *client;
    atomic_int inside; /* the gate's handler */
    atomic_bool open;
    atomic_int code; /* of what the bad one ran first */
    sqlite3_stmt *kept;
};

static void add_one(struct semel_request *request, struct semel_store *store, void *user)
{
    struct semel_bytes body = semel_request_body(request);
    char sql[80];

    (void)user;
    (void)snprintf(sql, sizeof sql, "INSERT INTO mine VALUES ('%.*s')", (int)body.size,
                   (const char *)body.data);
    if (sqlite3_exec(semel_sqlite_handle(store), sql, NULL, NULL, NULL) == SQLITE_OK)
        (void)!semel_request_reply(request, body.data, body.size);
}

static void wait_in_gate(struct semel_request *request, struct semel_store *store, void *user)
{
    struct house *house = user;

    (void)store;
    atomic_fetch_add(&house->inside, 1);
    while (!atomic_load(&house->open))
        (void)usleep(200);
    (void)!semel_request_reply(request, "", 0);
}

/* Adds 'bad', then does what its body says. */
static void do_bad(struct semel_request *request, struct semel_store *store, void *user)
{
    struct semel_bytes body = semel_request_body(request);
    struct house *house = user;
    sqlite3 *db = semel_sqlite_handle(store);
    char sql[400];

    (void)snprintf(sql, sizeof sql, "%.*s", (int)body.size, (const char *)body.data);
    (void)sqlite3_exec(db, "INSERT INTO mine VALUES ('bad')", NULL, NULL, NULL);
    if (strcmp(sql, "drop") == 0)
        return;
    if (strcmp(sql, "fail") == 0) {
        (void)!semel_request_fail(request, 7, "no");
        return;
    }
    if (strcmp(sql, "half") == 0) {
        if (house->kept == NULL)
            (void)sqlite3_prepare_v2(db, "INSERT INTO mine VALUES ('bad'), ('bad') RETURNING 1", -1,
                                     &house->kept, NULL);
        (void)sqlite3_step(house->kept);
    } else {
        atomic_store(&house->code, sqlite3_exec(db, sql, NULL, NULL, NULL) & 0xff);
    }
    (void)!semel_request_reply(request, "", 0);
}

static void house_make(struct house *house)
{
    struct semel_sqlite_options keys = { .foreign_keys = true };
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    struct semel_method_options limited = { .max_run_ms = 30 };
    struct semel_client_options patient = { .cancel_grace_ms = 30000 };
    char address[30];
    int fd;

    memset(house, 0, sizeof *house);
    place_make(&house->place);
    run_beside(house->place.path,
               "CREATE TABLE mine (x); CREATE TABLE one (x UNIQUE); INSERT INTO one VALUES (1);"
               "CREATE TABLE child (of REFERENCES one (x) DEFERRABLE INITIALLY DEFERRED)");
    options.store = open_with(house->place.path, &keys);
    assert_int_equal(semel_server_create(&house->server, &options), SEMEL_OK);
    assert_int_equal(semel_server_export_transactional(house->server, "add", add_one, house, NULL),
                     SEMEL_OK);
    assert_int_equal(
        semel_server_export_transactional(house->server, "gate", wait_in_gate, house, NULL),
        SEMEL_OK);
    assert_int_equal(semel_server_export_transactional(house->server, "bad", do_bad, house, NULL),
                     SEMEL_OK);
    assert_int_equal(
        semel_server_export_transactional(house->server, "limited", do_bad, house, &limited),
        SEMEL_OK);
    assert_int_equal(semel_server_start(house->server), SEMEL_OK);
    assert_int_equal(semel_server_pair(house->server, &fd), SEMEL_OK);
    (void)snprintf(address, sizeof address, "fd:%d", fd);
    assert_int_equal(semel_client_create(&house->client, address, &patient), SEMEL_OK);
}

static void house_remove(struct house *house)
{
    semel_server_stop(house->server);
    assert_int_equal(semel_server_wait(house->server, -1, NULL), SEMEL_OK);
    (void)sqlite3_finalize(house->kept);
    assert_int_equal(semel_server_destroy(house->server), SEMEL_OK);
    assert_int_equal(semel_client_destroy(house->client), SEMEL_OK);
    place_remove(&house->place);
}

struct ended {
    atomic_bool seen;
    enum semel_outcome outcome;
    enum semel_status status;
    char text[600];
};

static void note_end(struct semel_result *result, void *user)
{
    struct ended *ended = user;

    ended->outcome = result->outcome;
    ended->status = result->status;
    (void)snprintf(ended->text, sizeof ended->text, "%s", result->text ? result->text : "");
    atomic_store(&ended->seen, true);
}

static struct semel_call *start(struct house *house, const char *method, const char *body,
                                int64_t deadline_ms, struct ended *ended)
{
    struct semel_call_options options = { .deadline_ms = deadline_ms };
    struct semel_call *call;

    memset(ended, 0, sizeof *ended);
    assert_int_equal(semel_client_start(house->client, method, semel_bytes_text(body), &options,
                                        note_end, ended, &call),
                     SEMEL_OK);
    return call;
}

static void wait_end(struct ended *ended)
{
    while (!atomic_load(&ended->seen))
        (void)usleep(200);
}

static bool all_wait(const struct house *house, uint64_t count)
{
    struct semel_server_counters counters;

    semel_server_counters(house->server, &counters);
    return counters.calls_received >= count;
}

struct bad {
    const char *method, *what;
    enum semel_outcome outcome;
    enum semel_status status;
    int effects; /* rows that it leaves */
    int code;    /* what SQLite told it */
    const char *words;
};

/* A good call, a bad one and a good one go through one transaction. */
static void run_between_good_ones(struct house *house, const struct bad *bad)
{
    struct ended gate, first, middle, last;
    struct semel_server_counters before;
    struct semel_call *calls[4];
    uint64_t received;
    int rows = (int)number_beside(house->place.path, "SELECT count(*) FROM mine");

    semel_server_counters(house->server, &before);
    received = before.calls_received;
    atomic_store(&house->open, false);
    atomic_store(&house->inside, 0);
    atomic_store(&house->code, 0);
    calls[0] = start(house, "gate", "", 0, &gate);
    while (atomic_load(&house->inside) == 0)
        (void)usleep(200);
    calls[1] = start(house, "add", "first", 0, &first);
    calls[2] = start(house, bad->method, bad->what, 0, &middle);
    calls[3] = start(house, "add", "last", 0, &last);
    while (!all_wait(house, received + 4))
        (void)usleep(200);
    atomic_store(&house->open, true);
    wait_end(&gate);
    wait_end(&first);
    wait_end(&middle);
    wait_end(&last);
    for (int i = 0; i < 4; i++)
        semel_call_unref(calls[i]);
    assert_int_equal(first.outcome, SEMEL_VALUE);
    assert_int_equal(last.outcome, SEMEL_VALUE);
    if (middle.outcome != bad->outcome || middle.status != bad->status ||
        strstr(middle.text, bad->words) == NULL)
        fail_msg("%s: %s %s: %s", bad->what, semel_outcome_text(middle.outcome),
                 semel_status_name(middle.status), middle.text);
    assert_int_equal(atomic_load(&house->code), bad->code);
    assert_int_equal(number_beside(house->place.path, "SELECT count(*) FROM mine") - rows,
                     2 + bad->effects);
}

static void run_all_between(const struct bad *bad, size_t count)
{
    struct house house;

    house_make(&house);
    for (size_t i = 0; i < count; i++)
        run_between_good_ones(&house, &bad[i]);
    house_remove(&house);
}

static void others_of_its_transaction_are_not_harmed_by_what_is_refused(void **state)
{
    static const struct bad bad[] = {
        { "bad", "COMMIT", SEMEL_VALUE, SEMEL_OK, 1, SQLITE_AUTH, "" },
        { "bad", "ROLLBACK", SEMEL_VALUE, SEMEL_OK, 1, SQLITE_AUTH, "" },
        { "bad", "SAVEPOINT x", SEMEL_VALUE, SEMEL_OK, 1, SQLITE_AUTH, "" },
        { "bad", "PRAGMA synchronous=OFF", SEMEL_VALUE, SEMEL_OK, 1, SQLITE_AUTH, "" },
        { "bad", "ATTACH ':memory:' AS a", SEMEL_VALUE, SEMEL_OK, 1, SQLITE_AUTH, "" },
        { "bad", "DELETE FROM semel_session", SEMEL_VALUE, SEMEL_OK, 1, SQLITE_AUTH, "" },
        { "bad", "half", SEMEL_VALUE, SEMEL_OK, 3, 0, "" },
        { "bad", "half", SEMEL_VALUE, SEMEL_OK, 3, 0, "" },
        { "bad", "CREATE TABLE fresh (x)", SEMEL_VALUE, SEMEL_OK, 1, 0, "" },
        { "bad", "CREATE TABLE fresh (x)", SEMEL_VALUE, SEMEL_OK, 1, SQLITE_ERROR, "" },
        { "bad", "DROP TABLE fresh", SEMEL_VALUE, SEMEL_OK, 1, 0, "" },
        { "bad", "INSERT INTO one VALUES (1)", SEMEL_VALUE, SEMEL_OK, 1, SQLITE_CONSTRAINT, "" },
    };

    (void)state;
    run_all_between(bad, sizeof bad / sizeof *bad);
}

static void nor_by_what_loses_it(void **state)
{
    static const struct bad bad[] = {
        { "bad", "INSERT OR ROLLBACK INTO one VALUES (1)", SEMEL_NOT_EXECUTED, SEMEL_ROLLED_BACK, 0,
          SQLITE_CONSTRAINT, "UNIQUE constraint failed" },
        { "bad", "INSERT INTO child VALUES (99)", SEMEL_NOT_EXECUTED, SEMEL_ROLLED_BACK, 0, 0,
          "FOREIGN KEY constraint failed" },
        { "bad", "fail", SEMEL_FAILURE, SEMEL_FAILED, 0, 0, "no" },
        { "bad", "drop", SEMEL_NOT_EXECUTED, SEMEL_DROPPED, 0, 0, "without finishing" },
        { "limited", endless_read, SEMEL_NOT_EXECUTED, SEMEL_MAX_RUN, 0, SQLITE_INTERRUPT, "" },
        { "limited",
          "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) INSERT INTO mine "
          "SELECT x FROM n WHERE x % 100000 = 0",
          SEMEL_NOT_EXECUTED, SEMEL_MAX_RUN, 0, SQLITE_INTERRUPT, "" },
    };

    (void)state;
    run_all_between(bad, sizeof bad / sizeof *bad);
}

/* It waits, and its neighbours with it, until there is room. */
static void a_call_waits_while_the_disk_is_full(void **state)
{
    struct house house;
    struct ended first, large;
    struct semel_call *calls[2];

    (void)state;
    (void)signal(SIGXFSZ, SIG_IGN);
    house_make(&house);
    limit_files(500000);
    calls[0] = start(&house, "bad",
                     "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < "
                     "3000) INSERT INTO mine SELECT zeroblob(3000) FROM n",
                     0, &large);
    (void)usleep(300000);
    limit_files(0);
    calls[1] = start(&house, "add", "first", 0, &first);
    wait_end(&large);
    wait_end(&first);
    for (int i = 0; i < 2; i++)
        semel_call_unref(calls[i]);
    if (large.outcome != SEMEL_VALUE)
        fail_msg("%s %s: %s", semel_outcome_text(large.outcome), semel_status_name(large.status),
                 large.text);
    assert_int_equal(first.outcome, SEMEL_VALUE);
    assert_int_equal(atomic_load(&house.code), SQLITE_OK);
    assert_int_equal(number_beside(house.place.path, "SELECT count(*) FROM mine"), 3002);
    house_remove(&house);
}

/* Its caller's time or patience ends while it runs. */
static void nor_by_one_whose_caller_gives_up(void **state)
{
    static const char *const endless[] = {
        endless_read,
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) INSERT INTO mine SELECT "
        "x FROM n WHERE x % 100000 = 0",
    };
    struct house house;

    (void)state;
    house_make(&house);
    for (int i = 0; i < 4; i++) {
        struct ended first, bad, last;
        struct semel_call *calls[3];
        int rows = (int)number_beside(house.place.path, "SELECT count(*) FROM mine");

        calls[0] = start(&house, "add", "first", 0, &first);
        calls[1] = start(&house, "bad", endless[i / 2], i % 2 ? 60 : 0, &bad);
        calls[2] = start(&house, "add", "last", 0, &last);
        (void)usleep(30000);
        if (i % 2 == 0)
            semel_call_cancel(calls[1]);
        wait_end(&first);
        wait_end(&bad);
        wait_end(&last);
        for (int j = 0; j < 3; j++)
            semel_call_unref(calls[j]);
        assert_int_equal(first.outcome, SEMEL_VALUE);
        assert_int_equal(last.outcome, SEMEL_VALUE);
        assert_int_equal(bad.outcome, SEMEL_NOT_EXECUTED);
        if (i % 2 == 0)
            assert_int_equal(bad.status, SEMEL_CANCELLED);
        else if (bad.status != SEMEL_EXPIRED && bad.status != SEMEL_DEADLINE)
            fail_msg("%s: %s", semel_status_name(bad.status), bad.text);
        assert_int_equal(number_beside(house.place.path, "SELECT count(*) FROM mine") - rows, 2);
    }
    house_remove(&house);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("others of its transaction are not harmed by what is refused",
             others_of_its_transaction_are_not_harmed_by_what_is_refused),
        TEST("nor by what loses it", nor_by_what_loses_it),
        TEST("a call waits while the disk is full", a_call_waits_while_the_disk_is_full),
        TEST("nor by one whose caller gives up", nor_by_one_whose_caller_gives_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
