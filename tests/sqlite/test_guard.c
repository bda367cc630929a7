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
        "PRAGMA user_version=1",
        "PRAGMA table_info",
        "PRAGMA data_version=1",
        "PRAGMA optimize",
        "PRAGMA writable_schema=ON",
        "PRAGMA cache_size=1",
        "PRAGMA journal_mode=DELETE",
        "PRAGMA wal_checkpoint",
        "PRAGMA foreign_keys=ON",
        "SELECT * FROM pragma_optimize",
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
        "CREATE TABLE gone (x); DROP TABLE gone; DELETE FROM sqlite_sequence",
        "CREATE TABLE gone (id INTEGER PRIMARY KEY AUTOINCREMENT); DROP TABLE gone;"
        "DELETE FROM sqlite_sequence",
        "CREATE TABLE gone (x); ALTER TABLE gone RENAME TO lost; DROP TABLE lost;"
        "UPDATE sqlite_sequence SET name = 'x'",
        "CREATE TABLE gone (x); ALTER TABLE gone ADD COLUMN y CHECK (y > 0); DROP TABLE gone;"
        "UPDATE sqlite_sequence SET name = 'x'",
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
        "PRAGMA user_version",
        "PRAGMA main.data_version",
        "PRAGMA table_info(mine)",
        "PRAGMA foreign_key_list(other)",
        "PRAGMA integrity_check",
        "SELECT * FROM pragma_table_info('mine')",
        "SELECT name FROM pragma_table_list",
        "CREATE TABLE child (x REFERENCES other (id) ON DELETE CASCADE)",
        "INSERT INTO child VALUES (1)",
        "CREATE TRIGGER c AFTER DELETE ON other BEGIN DELETE FROM child; END",
        "ALTER TABLE other ADD COLUMN checked CHECK (checked > 0)",
        "ALTER TABLE other RENAME TO renamed",
        "INSERT INTO renamed (y) VALUES (10)",
        "DROP TABLE renamed",
        "CREATE TEMP TABLE passing (id INTEGER PRIMARY KEY AUTOINCREMENT); DROP TABLE passing",
        "CREATE TABLE other (id INTEGER PRIMARY KEY AUTOINCREMENT, y UNIQUE)",
        "INSERT INTO other (id, y) VALUES (1, 9)",
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

/* Their statements on the tables below them, and pragmas that they ask, are their own. */
static void full_text_tables_work(void **state)
{
    static const char *const made[] = { "fts4(x)", "fts5(x)", "rtree(id, a, b)" };
    sqlite3_stmt *half;
    struct hand h;

    (void)state;
    hand_make(&h, false);
    for (size_t i = 0; i < 3; i++) {
        char sql[100];
        int code;

        enter(&h);
        (void)snprintf(sql, sizeof sql, "CREATE VIRTUAL TABLE t USING %s", made[i]);
        code = code_of(&h, sql);
        if (code != SQLITE_OK) {
            print_message("left out: %s: %s\n", made[i], sqlite3_errmsg(h.db));
            leave(&h, false);
            continue;
        }
        run_on(h.db,
               i < 2 ? "CREATE TRIGGER fill AFTER INSERT ON mine BEGIN INSERT INTO t (rowid, x) "
                       "VALUES (new.id, new.x); END"
                     : "CREATE TRIGGER fill AFTER INSERT ON mine BEGIN INSERT INTO t VALUES "
                       "(new.id, 1, 2); END");
        leave(&h, true);
        for (int k = 0; k < 3; k++) {
            enter(&h);
            run_on(h.db, "INSERT INTO mine (x) VALUES ('a word'), ('and a word')");
            assert_int_equal(sqlite3_prepare_v2(h.db,
                                                i < 2 ? "SELECT * FROM t WHERE t MATCH 'word'"
                                                      : "SELECT * FROM t WHERE a < 2",
                                                -1, &half, NULL),
                             SQLITE_OK);
            assert_int_equal(sqlite3_step(half), SQLITE_ROW);
            leave(&h, k > 0);
            assert_int_equal(sqlite3_finalize(half), SQLITE_OK);
        }
        assert_int_equal(count(&h, "t"), 4);
        enter(&h);
        run_on(h.db, "DROP TABLE t; DROP TRIGGER fill");
        leave(&h, true);
    }
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

static const char endless_read[] =
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";

/* --- a handler that takes the guard away ------------------------------------------------------ */

static int let_pass(void *user)
{
    (void)user;
    return 0;
}

static int allow(void *user, int action, const char *a, const char *b, const char *c, const char *d)
{
    (void)user;
    (void)action;
    (void)a;
    (void)b;
    (void)c;
    (void)d;
    return SQLITE_OK;
}

/* Whether its work was committed by itself then, is not known. */
static void a_lost_transaction_behind_another_hook_is_unknown(void **state)
{
    static const char *const lost[] = {
        "INSERT OR ROLLBACK INTO mine (id) VALUES (1)",
        "COMMIT",
        "COMMIT; BEGIN",
        "ROLLBACK; BEGIN; INSERT INTO mine (x) VALUES (9)",
    };

    (void)state;
    for (size_t i = 0; i < sizeof lost / sizeof *lost; i++) {
        struct hand h;

        hand_make(&h, false);
        enter(&h);
        (void)sqlite3_commit_hook(h.db, i % 2 ? NULL : let_pass, NULL);
        if (i > 0)
            (void)sqlite3_set_authorizer(h.db, i % 2 ? allow : NULL, NULL);
        (void)code_of(&h, lost[i]);
        run_on(h.db, "INSERT INTO mine (x) VALUES (10)");
        assert_int_equal(h.store->ops->unguard(h.store, true), SML_STORE_UNKNOWN);
        assert_int_equal(h.store->status, SEMEL_STORE_FAILED);
        assert_non_null(strstr(h.store->text, "commit hook of its own"));
        hand_remove(&h);
    }
}

/* Whatever it set is ours again when the next one runs. */
static void the_guard_is_set_anew_for_each_handler(void **state)
{
    struct hand h;

    (void)state;
    hand_make(&h, false);
    for (int i = 0; i < 5; i++) {
        char large[400] = "SELECT 1 /*";

        enter(&h);
        if (i == 0)
            (void)sqlite3_set_authorizer(h.db, NULL, NULL);
        if (i == 1) {
            (void)sqlite3_set_authorizer(h.db, allow, NULL);
            (void)sqlite3_commit_hook(h.db, let_pass, NULL);
        }
        if (i == 2)
            sqlite3_progress_handler(h.db, 0, NULL, NULL);
        if (i == 3) {
            (void)sqlite3_limit(h.db, SQLITE_LIMIT_LENGTH, 30);
            (void)sqlite3_limit(h.db, SQLITE_LIMIT_SQL_LENGTH, 30);
        }
        if (i == 4)
            (void)sqlite3_db_config(h.db, SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1, NULL);
        leave(&h, true);
        enter_with(&h, sml_clock_now() + 5 * SML_MS, NULL);
        expect_code(&h, "COMMIT", SQLITE_AUTH);
        expect_code(&h, "DELETE FROM semel_call", SQLITE_AUTH);
        expect_code(&h, "DELETE FROM sqlite_schema WHERE name = 'semel_key'", SQLITE_ERROR);
        memset(large + strlen(large), ' ', 300);
        expect_code(&h, large, SQLITE_OK);
        expect_code(&h, endless_read, SQLITE_INTERRUPT);
        leave(&h, true);
        add_call(h.store, "a record that is longer than what the handler allowed");
    }
    /* A conflict that rolls back is not stored, whatever an earlier handler set. */
    enter(&h);
    expect_code(&h, "INSERT OR ROLLBACK INTO mine (id) VALUES (1)", SQLITE_CONSTRAINT);
    expect_code(&h, "INSERT INTO mine (x) VALUES (11)", SQLITE_CONSTRAINT);
    assert_int_equal(h.store->ops->unguard(h.store, true), SML_NOT_STORED);
    assert_int_equal(h.store->status, SEMEL_ROLLED_BACK);
    assert_int_equal(count(&h, "mine"), 3);
    hand_remove(&h);
}

/* --- a disk that is full ---------------------------------------------------------------------- */

static const char spill[] =
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x "
    "< 3000) INSERT INTO mine (x) SELECT zeroblob(3000) FROM n";

/* SQLite rolls back when it cannot write what does not fit into its memory. */
static void a_full_disk_is_no_fault_of_the_handler(void **state)
{
    struct hand h;

    (void)state;
    (void)signal(SIGXFSZ, SIG_IGN);
    hand_make(&h, false);
    enter(&h);
    limit_files(200000);
    assert_int_not_equal(code_of(&h, spill), SQLITE_OK);
    assert_true(sqlite3_get_autocommit(h.db));
    assert_int_equal(h.store->ops->unguard(h.store, false), SML_NOT_STORED);
    limit_files(0);
    assert_int_equal(h.store->status, SEMEL_STORE_FULL);
    assert_non_null(strstr(h.store->text, "lost its transaction: "));
    enter(&h);
    expect_code(&h, spill, SQLITE_OK);
    leave(&h, true);
    assert_int_equal(count(&h, "mine"), 3003);
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

/* Its own transaction is the one in which it would change the store. */
static void a_handler_changes_no_sessions(void **state)
{
    const struct sml_session_record session = { .id = { { 1, 2, 3 } }, .conn_no = 1, .window = 8 };
    uint64_t generation, row = 0;
    uint8_t bytes[300];
    struct hand h;

    (void)state;
    hand_make(&h, false);
    sml_session_record_encode(&session, bytes);
    assert_int_equal(h.store->ops->begin(h.store), SML_STORED);
    assert_int_equal(h.store->ops->put(h.store, SML_TABLE_SESSIONS, &row,
                                       semel_bytes(bytes, sml_session_record_bytes(&session))),
                     SML_STORED);
    assert_int_equal(h.store->ops->commit(h.store), SML_STORED);
    generation = h.store->generation;
    enter(&h);
    run_on(h.db, "INSERT INTO mine (x) VALUES (10)");
    assert_int_equal(semel_store_renew(h.store), SEMEL_WOULD_DEADLOCK);
    assert_int_equal(semel_store_forget_session(h.store, session.id.bytes), SEMEL_WOULD_DEADLOCK);
    assert_non_null(strstr(semel_store_error(h.store), "the handler that runs"));
    leave(&h, true);
    assert_int_equal(count(&h, "mine"), 4);
    expect_calls(h.store, "call");
    assert_int_equal(semel_store_forget_session(h.store, session.id.bytes), SEMEL_OK);
    assert_int_equal(semel_store_renew(h.store), SEMEL_OK);
    assert_true(h.store->generation > generation);
    hand_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("what ends or touches what is not its own is refused",
             what_ends_or_touches_what_is_not_its_own_is_refused),
        TEST("everything else is allowed", everything_else_is_allowed),
        TEST("full-text tables work", full_text_tables_work),
        TEST("a trigger does not reach our tables", a_trigger_does_not_reach_our_tables),
        TEST("a name in front of ours hides nothing", a_name_in_front_of_ours_hides_nothing),
        TEST("a conflict that rolls back loses it", a_conflict_that_rolls_back_loses_it),
        TEST("a lost transaction behind another hook is unknown",
             a_lost_transaction_behind_another_hook_is_unknown),
        TEST("the guard is set anew for each handler", the_guard_is_set_anew_for_each_handler),
        TEST("a full disk is no fault of the handler", a_full_disk_is_no_fault_of_the_handler),
        TEST("a handler changes no sessions", a_handler_changes_no_sessions),
        TEST("a violation at the commit is not stored", a_violation_at_the_commit_is_not_stored),
        TEST("a statement left half way is reset", a_statement_left_half_way_is_reset),
        TEST("a changed schema is harmless", a_changed_schema_is_harmless),
        TEST("time ends a statement", time_ends_a_statement),
        TEST("a cancel ends a statement", a_cancel_ends_a_statement),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
