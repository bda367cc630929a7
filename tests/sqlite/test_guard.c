/* SPDX-License-Identifier: MIT */
#include "kit.h"

#include <pthread.h>
#include <stdatomic.h>

#include <semel/semel.h>

#include "os/clock.h"

/* --- one handler, by hand ------------------------------------------------------------------ */

struct hand {
    struct place place;
    struct semel_store *store;
    sqlite3 *db;
};

static void hand_make(struct hand *h, bool foreign_keys)
{
    const struct semel_sqlite_options options = { .foreign_keys = foreign_keys };

    place_make(&h->place);
    h->store = open_with(h->place.path, &options);
    h->db = semel_sqlite_handle(h->store);
    assert_non_null(h->db);
    assert_int_equal(h->store->ops->begin(h->store), SML_STORED);
    assert_int_equal(h->store->ops->guard(h->store, SML_NEVER, NULL), SML_STORED);
    run_on(h->db, "CREATE TABLE mine (id INTEGER PRIMARY KEY AUTOINCREMENT, x)");
    run_on(h->db, "INSERT INTO mine (x) VALUES (1), (2), (3)");
    assert_int_equal(h->store->ops->unguard(h->store, true), SML_STORED);
    assert_int_equal(h->store->ops->commit(h->store), SML_STORED);
    add_call(h->store, "call");
}

static void hand_remove(struct hand *h)
{
    semel_store_close(h->store);
    place_remove(&h->place);
}

/* Into a transaction that has a change already, and a handler. */
static void enter_with(struct hand *h, uint64_t until, const atomic_bool *cancelled)
{
    uint64_t row = 0;

    assert_int_equal(h->store->ops->begin(h->store), SML_STORED);
    assert_int_equal(
        h->store->ops->put(h->store, SML_TABLE_SESSIONS, &row, semel_bytes("before", 6)),
        SML_STORED);
    assert_int_equal(h->store->ops->guard(h->store, until, cancelled), SML_STORED);
}

static void enter(struct hand *h)
{
    enter_with(h, SML_NEVER, NULL);
}

static void leave(struct hand *h, bool keep)
{
    if (h->store->ops->unguard(h->store, keep) != SML_STORED ||
        h->store->ops->commit(h->store) != SML_STORED)
        fail_msg("%s", semel_store_error(h->store));
}

static int count(struct hand *h, const char *what)
{
    char text[100];

    (void)snprintf(text, sizeof text, "SELECT count(*) FROM %s", what);
    return (int)number_beside(h->place.path, text);
}

static int code_of(struct hand *h, const char *sql)
{
    return sqlite3_exec(h->db, sql, NULL, NULL, NULL) & 0xff;
}

static void expect_code(struct hand *h, const char *sql, int wanted)
{
    int code = code_of(h, sql);

    if (code != wanted)
        fail_msg("%s: %d instead of %d: %s", sql, code, wanted, sqlite3_errmsg(h->db));
}

static void what_ends_or_touches_what_is_not_its_own_is_refused(void **state)
{
    static const char *const refused[] = {
        "BEGIN",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT x",
        "RELEASE semel_handler",
        "ROLLBACK TO semel_handler",
        "PRAGMA synchronous=OFF",
        "PRAGMA user_version",
        "PRAGMA journal_mode=DELETE",
        "PRAGMA wal_checkpoint",
        "PRAGMA foreign_keys=ON",
        "SELECT * FROM pragma_user_version",
        "ATTACH ':memory:' AS a",
        "DETACH main",
        "INSERT INTO semel_call (record) VALUES (x'00')",
        "UPDATE semel_call SET record = x'00'",
        "DELETE FROM semel_session",
        "DELETE FROM SEMEL_CALL",
        "UPDATE main.semel_store SET commits = 0",
        "DELETE FROM semel_key",
        "DROP TABLE semel_call",
        "DROP INDEX semel_key_age",
        "ALTER TABLE semel_call RENAME TO x",
        "ALTER TABLE semel_call ADD COLUMN y",
        "CREATE INDEX i ON semel_call (record)",
        "CREATE TRIGGER t AFTER INSERT ON semel_call BEGIN DELETE FROM mine; END",
        "CREATE TABLE semel_mine (x)",
        "CREATE VIEW semel_mine AS SELECT 1",
        "CREATE TEMP TABLE semel_call (no, record)",
        "CREATE TEMP VIEW semel_call AS SELECT 1",
        "DELETE FROM sqlite_sequence",
        "UPDATE sqlite_sequence SET seq = 0",
        "INSERT INTO sqlite_sequence VALUES ('semel_session', 0)",
        "WITH c AS (SELECT 1) DELETE FROM semel_call",
    };
    struct hand h;

    (void)state;
    hand_make(&h, false);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        enter(&h);
        run_on(h.db, "INSERT INTO mine (x) VALUES (10)");
        expect_code(&h, refused[i], SQLITE_AUTH);
        run_on(h.db, "DELETE FROM mine WHERE x = 10");
        leave(&h, i % 2);
        assert_int_equal(count(&h, "mine"), 3);
        assert_int_equal(count(&h, "semel_session"), i + 1);
        expect_calls(h.store, "call");
    }
    hand_remove(&h);
}

static void everything_else_is_allowed(void **state)
{
    static const char *const allowed[] = {
        "SELECT count(*) FROM semel_call",
        "CREATE TABLE other (id INTEGER PRIMARY KEY AUTOINCREMENT, y UNIQUE)",
        "CREATE INDEX i ON other (y)",
        "CREATE VIEW v AS SELECT * FROM mine",
        "CREATE TRIGGER t AFTER INSERT ON mine BEGIN INSERT INTO other (y) VALUES (new.x); END",
        "INSERT INTO mine (x) VALUES (7)",
        "INSERT OR REPLACE INTO other (id, y) VALUES (1, 9)",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 9) SELECT 1",
        "UPDATE mine SET x = x + 1",
        "ANALYZE",
        "REINDEX",
        "ALTER TABLE other ADD COLUMN z",
        "CREATE TEMP TABLE passing (x)",
        "INSERT INTO passing VALUES (1)",
        "DROP TABLE passing",
        "DROP VIEW v",
        "DROP TRIGGER t",
    };
    struct hand h;

    (void)state;
    hand_make(&h, false);
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        enter(&h);
        expect_code(&h, allowed[i], SQLITE_OK);
        leave(&h, true);
    }
    assert_int_equal(count(&h, "mine"), 4);
    assert_int_equal(count(&h, "other WHERE y = 9"), 1);
    hand_remove(&h);
}

static void a_trigger_does_not_reach_our_tables(void **state)
{
    struct hand h;

    (void)state;
    hand_make(&h, false);
    enter(&h);
    expect_code(&h, "CREATE TRIGGER t AFTER DELETE ON mine BEGIN DELETE FROM semel_call; END",
                SQLITE_OK);
    expect_code(&h, "DELETE FROM mine", SQLITE_AUTH);
    leave(&h, true);
    expect_calls(h.store, "call");
    assert_int_equal(count(&h, "mine"), 3);
    hand_remove(&h);
}

/* A table of its own that takes the name of one of ours afterwards. */
static void a_name_in_front_of_ours_hides_nothing(void **state)
{
    struct hand h;

    (void)state;
    hand_make(&h, false);
    enter(&h);
    run_on(h.db, "CREATE TEMP TABLE passing (no INTEGER PRIMARY KEY, record)");
    run_on(h.db, "ALTER TABLE temp.passing RENAME TO semel_call");
    leave(&h, true);
    add_call(h.store, "later");
    expect_calls(h.store, "call later");
    assert_int_equal(count(&h, "semel_call"), 2);
    hand_remove(&h);
}

/* --- the transaction is lost ------------------------------------------------------------------ */

static void expect_lost(struct hand *h, const char *words)
{
    struct semel_store *store = h->store;

    assert_int_equal(store->ops->unguard(store, true), SML_NOT_STORED);
    assert_int_equal(store->status, SEMEL_ROLLED_BACK);
    if (!strstr(store->text, "lost its transaction") || !strstr(store->text, words) ||
        !strstr(store->text, h->place.path))
        fail_msg("%s", store->text);
    expect_records(store, SML_TABLE_SESSIONS, "");
    assert_int_equal(count(h, "mine"), 3);
}

static void a_conflict_that_rolls_back_loses_it(void **state)
{
    static const char *const conflicts[] = {
        "INSERT OR ROLLBACK INTO mine (id) VALUES (1)",
        "UPDATE OR ROLLBACK mine SET id = 1",
        ("CREATE TRIGGER t BEFORE DELETE ON mine BEGIN SELECT RAISE(ROLLBACK, 'no'); END;"
         "DELETE FROM mine"),
    };
    struct hand h;

    (void)state;
    hand_make(&h, false);
    for (size_t i = 0; i < sizeof conflicts / sizeof *conflicts; i++) {
        enter(&h);
        run_on(h.db, "INSERT INTO mine (x) VALUES (10)");
        expect_code(&h, conflicts[i], SQLITE_CONSTRAINT);
        expect_lost(&h, i < 2 ? "UNIQUE constraint failed" : "no");
    }
    /* What it does without a transaction is not stored either. */
    for (size_t i = 0; i < 2; i++) {
        enter(&h);
        expect_code(&h, conflicts[i], SQLITE_CONSTRAINT);
        expect_code(&h, "INSERT INTO mine (x) VALUES (11)", SQLITE_CONSTRAINT);
        expect_code(&h, "CREATE TABLE other (y)", SQLITE_CONSTRAINT);
        expect_code(&h, "BEGIN", SQLITE_AUTH);
        expect_code(&h, "VACUUM", SQLITE_AUTH);
        expect_code(&h, "SELECT * FROM mine", SQLITE_OK);
        expect_lost(&h, "");
    }
    assert_int_equal(count(&h, "sqlite_schema WHERE name = 'other'"), 0);
    enter(&h);
    run_on(h.db, "INSERT INTO mine (x) VALUES (12)");
    leave(&h, true);
    assert_int_equal(count(&h, "mine"), 4);
    expect_records(h.store, SML_TABLE_SESSIONS, "before");
    hand_remove(&h);
}

static void a_violation_at_the_commit_is_not_stored(void **state)
{
    struct hand h;

    (void)state;
    hand_make(&h, true);
    enter(&h);
    run_on(h.db, "CREATE TABLE child (of REFERENCES mine (id) DEFERRABLE INITIALLY DEFERRED)");
    leave(&h, true);
    for (int i = 0; i < 2; i++) {
        enter(&h);
        run_on(h.db, "INSERT INTO child VALUES (77)");
        assert_int_equal(h.store->ops->unguard(h.store, true), SML_STORED);
        assert_int_equal(h.store->ops->commit(h.store), SML_NOT_STORED);
        assert_int_equal(h.store->status, SEMEL_STORE_FAILED);
        assert_non_null(strstr(h.store->text, "FOREIGN KEY constraint failed"));
        assert_int_equal(count(&h, "child"), 0);
    }
    enter(&h);
    run_on(h.db, "INSERT INTO child VALUES (77)");
    leave(&h, false);
    enter(&h);
    run_on(h.db, "INSERT INTO child VALUES (77); INSERT INTO mine (id) VALUES (77)");
    leave(&h, true);
    assert_int_equal(count(&h, "child"), 1);
    expect_records(h.store, SML_TABLE_SESSIONS, "before before before");
    hand_remove(&h);
}

/* --- what it leaves running ------------------------------------------------------------------- */

static void a_statement_left_half_way_is_reset(void **state)
{
    static const char *const left[] = {
        "SELECT x FROM mine",
        "INSERT INTO mine (x) VALUES (5), (6), (7) RETURNING x",
        "UPDATE mine SET x = x + 1 RETURNING x",
    };
    struct hand h;

    (void)state;
    hand_make(&h, false);
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        sqlite3_stmt *statement;

        for (int keep = 0; keep < 2; keep++) {
            enter(&h);
            if (keep == 0)
                assert_int_equal(sqlite3_prepare_v2(h.db, left[i], -1, &statement, NULL),
                                 SQLITE_OK);
            assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
            leave(&h, keep);
            assert_false(sqlite3_stmt_busy(statement));
        }
        (void)sqlite3_finalize(statement);
    }
    assert_int_equal(count(&h, "mine"), 6);
    expect_records(h.store, SML_TABLE_SESSIONS, "before before before before before before");
    hand_remove(&h);
}

/* Our statements are prepared again when the schema has changed, while a handler's kept ones
 * are. */
static void a_changed_schema_is_harmless(void **state)
{
    sqlite3_stmt *kept;
    struct hand h;

    (void)state;
    hand_make(&h, false);
    enter(&h);
    assert_int_equal(sqlite3_prepare_v2(h.db, "INSERT INTO mine (x) VALUES (50)", -1, &kept, NULL),
                     SQLITE_OK);
    leave(&h, true);
    for (int i = 0; i < 6; i++) {
        char sql[80];

        (void)snprintf(sql, sizeof sql, "CREATE TABLE t%d (x); INSERT INTO t%d VALUES (1)", i, i);
        enter(&h);
        run_on(h.db, sql);
        assert_int_equal(sqlite3_step(kept), SQLITE_DONE);
        assert_int_equal(sqlite3_reset(kept), SQLITE_OK);
        leave(&h, i % 2);
        add_call(h.store, "more");
    }
    assert_int_equal(sqlite3_finalize(kept), SQLITE_OK);
    assert_int_equal(count(&h, "mine"), 6);
    assert_int_equal(count(&h, "sqlite_schema WHERE name GLOB 't[0-9]'"), 3);
    expect_calls(h.store, "call more more more more more more");
    hand_remove(&h);
}

/* --- interruption
 * ------------------------------------------------------------------------------ */

static const char endless_read[] =
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
static const char endless_write[] =
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) INSERT INTO mine (x) SELECT "
    "x FROM n WHERE x % 100000 = 0";

static void time_ends_a_statement(void **state)
{
    struct hand h;

    (void)state;
    hand_make(&h, false);
    /* One that only reads leaves the transaction as it was. */
    enter_with(&h, sml_clock_now() + 5 * SML_MS, NULL);
    run_on(h.db, "INSERT INTO mine (x) VALUES (10)");
    expect_code(&h, endless_read, SQLITE_INTERRUPT);
    leave(&h, true);
    assert_int_equal(count(&h, "mine"), 4);
    enter_with(&h, sml_clock_now() + 5 * SML_MS, NULL);
    expect_code(&h, endless_write, SQLITE_INTERRUPT);
    assert_int_equal(h.store->ops->unguard(h.store, false), SML_NOT_STORED);
    assert_non_null(strstr(h.store->text, "interrupted"));
    assert_int_equal(count(&h, "mine"), 4);
    /* Afterwards nothing is interrupted any more. */
    enter(&h);
    run_on(h.db, "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 50000)"
                 " SELECT count(*) FROM n");
    leave(&h, true);
    hand_remove(&h);
}

static void *cancel_soon(void *cancelled)
{
    (void)usleep(5000);
    atomic_store((atomic_bool *)cancelled, true);
    return NULL;
}

static void a_cancel_ends_a_statement(void **state)
{
    atomic_bool cancelled = false;
    pthread_t thread;
    struct hand h;

    (void)state;
    hand_make(&h, false);
    enter_with(&h, SML_NEVER, &cancelled);
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &cancelled), 0);
    expect_code(&h, endless_read, SQLITE_INTERRUPT);
    assert_int_equal(pthread_join(thread, NULL), 0);
    leave(&h, false);
    add_call(h.store, "later");
    expect_calls(h.store, "call later");
    hand_remove(&h);
}

/* --- several calls in one transaction of a server
 * ------------------------------------------------ */

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
        TEST("what ends or touches what is not its own is refused",
             what_ends_or_touches_what_is_not_its_own_is_refused),
        TEST("everything else is allowed", everything_else_is_allowed),
        TEST("a trigger does not reach our tables", a_trigger_does_not_reach_our_tables),
        TEST("a name in front of ours hides nothing", a_name_in_front_of_ours_hides_nothing),
        TEST("a conflict that rolls back loses it", a_conflict_that_rolls_back_loses_it),
        TEST("a violation at the commit is not stored", a_violation_at_the_commit_is_not_stored),
        TEST("a statement left half way is reset", a_statement_left_half_way_is_reset),
        TEST("a changed schema is harmless", a_changed_schema_is_harmless),
        TEST("time ends a statement", time_ends_a_statement),
        TEST("a cancel ends a statement", a_cancel_ends_a_statement),
        TEST("others of its transaction are not harmed by what is refused",
             others_of_its_transaction_are_not_harmed_by_what_is_refused),
        TEST("nor by what loses it", nor_by_what_loses_it),
        TEST("nor by one whose caller gives up", nor_by_one_whose_caller_gives_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
