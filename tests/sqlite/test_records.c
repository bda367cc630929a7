/* SPDX-License-Identifier: MIT */
#include "kit.h"

#include <semel/semel.h>

#include "base/time.h"
#include "kit/sqlite_memory.h"

/* --- what others do to the database ------------------------------------------------------- */

static void another_process_that_changes_the_store_is_noticed(void **state)
{
    struct place place;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    store = open_store(place.path);
    add_call(store, "one");
    run_beside(place.path, "UPDATE semel_store SET commits = commits + 1");
    assert_int_equal(add_record(store, SML_TABLE_CALLS, "two"), SML_STORE_UNKNOWN);
    assert_int_equal(store->status, SEMEL_STORE_LOCKED);
    assert_non_null(strstr(semel_store_error(store), "another process changes the store"));
    assert_non_null(strstr(semel_store_error(store), place.path));
    expect_calls(store, "one");
    semel_store_close(store);
    store = open_store(place.path);
    expect_calls(store, "one");
    semel_store_close(store);
    place_remove(&place);
}

static void a_record_that_is_gone_is_noticed(void **state)
{
    struct place place;
    struct semel_store *store;
    uint64_t row = 0;

    (void)state;
    place_make(&place);
    store = open_store(place.path);
    assert_int_equal(store->ops->begin(store), SML_STORED);
    assert_int_equal(store->ops->put(store, SML_TABLE_CALLS, &row, semel_bytes("one", 3)),
                     SML_STORED);
    assert_int_equal(store->ops->commit(store), SML_STORED);
    run_beside(place.path, "DELETE FROM semel_call");
    assert_int_equal(store->ops->begin(store), SML_STORED);
    assert_int_equal(store->ops->put(store, SML_TABLE_CALLS, &row, semel_bytes("two", 3)),
                     SML_STORE_UNKNOWN);
    assert_int_equal(store->status, SEMEL_STORE_CORRUPT);
    semel_store_close(store);
    place_remove(&place);
}

static void another_writer_is_not_stored(void **state)
{
    struct place place;
    struct semel_store *store;
    sqlite3 *db;

    (void)state;
    place_make(&place);
    store = open_store(place.path);
    (void)sqlite3_busy_timeout(semel_sqlite_handle(store), 20);
    add_call(store, "one");
    db = open_beside(place.path);
    run_on(db, "CREATE TABLE mine (x); BEGIN IMMEDIATE; INSERT INTO mine VALUES (1)");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(add_record(store, SML_TABLE_CALLS, "two"), SML_NOT_STORED);
        assert_int_equal(store->status, SEMEL_STORE_LOCKED);
        assert_non_null(strstr(semel_store_error(store), "beginning a transaction"));
    }
    run_on(db, "COMMIT");
    add_call(store, "three");
    expect_calls(store, "one three");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    semel_store_close(store);
    place_remove(&place);
}

/* A key that was found is borrowed until the end of its transaction, and no longer: a statement
 * that stood on it would hold the state of the database that it saw. */
static void a_key_that_was_found_holds_nothing_up(void **state)
{
    const uint8_t hash[32] = { 7 };
    struct semel_bytes found;
    struct place place;
    struct semel_store *store;
    sqlite3 *db;

    (void)state;
    place_make(&place);
    store = open_store(place.path);
    assert_int_equal(store->ops->begin(store), SML_STORED);
    assert_int_equal(store->ops->put_key(store, hash, 1, semel_bytes("key", 3)), SML_STORED);
    assert_int_equal(store->ops->commit(store), SML_STORED);
    db = open_beside(place.path);
    run_on(db, "CREATE TABLE mine (x)");
    for (int i = 0; i < 4; i++) {
        assert_int_equal(store->ops->begin(store), SML_STORED);
        assert_int_equal(store->ops->find_key(store, hash, &found), SML_STORED);
        assert_int_equal(found.size, 3);
        if (i % 2)
            store->ops->rollback(store);
        else
            assert_int_equal(store->ops->commit(store), SML_STORED);
        run_on(db, "INSERT INTO mine VALUES (1)");
        add_call(store, "later");
    }
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    semel_store_close(store);
    place_remove(&place);
}

/* Also where the transaction was lost in between. */
static void nor_where_its_transaction_is_lost(void **state)
{
    const uint8_t hash[32] = { 7 };
    struct semel_bytes found;
    struct place place;
    struct semel_store *store;
    sqlite3 *db;

    (void)state;
    place_make(&place);
    run_beside(place.path, "CREATE TABLE mine (x UNIQUE); INSERT INTO mine VALUES (0)");
    store = open_store(place.path);
    db = open_beside(place.path);
    assert_int_equal(store->ops->begin(store), SML_STORED);
    assert_int_equal(store->ops->put_key(store, hash, 1, semel_bytes("key", 3)), SML_STORED);
    assert_int_equal(store->ops->commit(store), SML_STORED);
    assert_int_equal(store->ops->begin(store), SML_STORED);
    assert_int_equal(store->ops->guard(store, SML_NEVER, NULL), SML_STORED);
    assert_int_equal(sqlite3_exec(semel_sqlite_handle(store),
                                  "INSERT OR ROLLBACK INTO mine VALUES (0)", NULL, NULL, NULL) &
                         0xff,
                     SQLITE_CONSTRAINT);
    assert_int_equal(store->ops->find_key(store, hash, &found), SML_STORED);
    store->ops->rollback(store);
    run_on(db, "INSERT INTO mine VALUES (1)");
    add_call(store, "later");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    semel_store_close(store);
    place_remove(&place);
}

/* What SQLite cannot bind is an error with a name, and not an empty record. */
static void what_is_too_large_is_not_stored(void **state)
{
    const uint8_t hash[32] = { 7 };
    static const uint8_t byte;
    const struct semel_bytes large = { &byte, (size_t)1 << 40 };
    struct place place;
    struct semel_store *store;
    uint64_t row = 0;

    (void)state;
    place_make(&place);
    store = open_store(place.path);
    assert_int_equal(store->ops->begin(store), SML_STORED);
    assert_int_equal(store->ops->put(store, SML_TABLE_CALLS, &row, large), SML_NOT_STORED);
    assert_int_equal(store->status, SEMEL_TOO_LARGE);
    assert_int_equal(store->ops->begin(store), SML_STORED);
    assert_int_equal(store->ops->put_key(store, hash, 0, large), SML_NOT_STORED);
    assert_int_equal(store->status, SEMEL_TOO_LARGE);
    assert_non_null(strstr(semel_store_error(store), "too big"));
    add_call(store, "small");
    expect_calls(store, "small");
    expect_records(store, SML_TABLE_UNFINISHED_KEYS, "");
    semel_store_close(store);
    place_remove(&place);
}

/* Whoever writes on writes into nothing. */
static void a_database_that_was_deleted_is_noticed(void **state)
{
    struct place place;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    for (int i = 0; i < 2; i++) {
        store = open_store(place.path);
        add_call(store, "one");
        if (i == 0) {
            assert_int_equal(unlink(place.path), 0);
        } else {
            copy_file(place.path, "", place.directory, "/other");
            copy_file(place.directory, "/other", place.path, "");
        }
        assert_int_equal(add_record(store, SML_TABLE_CALLS, "two"), SML_STORE_UNKNOWN);
        assert_int_equal(store->status, SEMEL_STORE_REPLACED);
        assert_non_null(strstr(semel_store_error(store), "was deleted while it was in use"));
        semel_store_close(store);
        place_empty(&place);
    }
    place_remove(&place);
}

/* A reader that does not end holds up checkpoints, nothing else. */
static void a_reader_holds_nobody_up(void **state)
{
    struct place place;
    struct semel_store *store;
    sqlite3_stmt *reading;
    sqlite3 *db;

    (void)state;
    place_make(&place);
    store = open_store(place.path);
    add_call(store, "one");
    db = open_beside(place.path);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT no FROM semel_call", -1, &reading, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(reading), SQLITE_ROW);
    for (int i = 0; i < 1200; i++)
        assert_int_equal(add_record(store, SML_TABLE_SESSIONS, "x"), SML_STORED);
    store->ops->tidy(store);
    assert_int_equal(sqlite3_step(reading), SQLITE_DONE);
    (void)sqlite3_finalize(reading);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    semel_store_close(store);
    place_remove(&place);
}

/* What was forgotten makes room for what comes. */
static void the_file_does_not_grow(void **state)
{
    uint8_t *bytes = calloc(1, 20000);
    uint64_t rows[20] = { 0 };
    struct place place;
    struct semel_store *store;
    struct stat early, late;

    (void)state;
    assert_non_null(bytes);
    place_make(&place);
    store = open_store(place.path);
    for (int i = 0; i < 600; i++) {
        uint64_t *row = &rows[i % 20];

        assert_int_equal(store->ops->begin(store), SML_STORED);
        if (*row != 0)
            assert_int_equal(store->ops->forget(store, SML_TABLE_CALLS, *row), SML_STORED);
        *row = 0;
        assert_int_equal(store->ops->put(store, SML_TABLE_CALLS, row, semel_bytes(bytes, 20000)),
                         SML_STORED);
        assert_int_equal(store->ops->commit(store), SML_STORED);
        if (i == 100) {
            store->ops->tidy(store);
            assert_int_equal(stat(place.path, &early), 0);
        }
    }
    semel_store_close(store);
    assert_int_equal(stat(place.path, &late), 0);
    assert_true(late.st_size <= early.st_size + 65536);
    free(bytes);
    place_remove(&place);
}

/* --- a full disk -------------------------------------------------------------------------- */

static void fill_until_full(struct semel_store *store, const struct place *place, int *out_stored)
{
    char text[3000];

    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (*out_stored = 0; *out_stored < 1000; ++*out_stored) {
        enum sml_stored stored = add_record(store, SML_TABLE_CALLS, text);

        if (stored == SML_STORED)
            continue;
        assert_int_equal(stored, SML_NOT_STORED);
        assert_int_equal(store->status, SEMEL_STORE_FULL);
        assert_non_null(strstr(semel_store_error(store), place->path));
        assert_non_null(strstr(semel_store_error(store), "full"));
        return;
    }
    fail_msg("it never was full");
}

static bool count_record(uint64_t row, struct semel_bytes record, void *user)
{
    (void)row;
    (void)record;
    ++*(int *)user;
    return true;
}

static int count_calls(struct semel_store *store)
{
    int count = 0;

    assert_int_equal(store->ops->each(store, SML_TABLE_CALLS, count_record, &count), SEMEL_OK);
    return count;
}

static void a_full_disk_is_not_stored_and_passes(void **state)
{
    struct place place;
    struct semel_store *store;
    char filler[100];
    int stored, more;

    (void)state;
    place_make(&place);
    (void)snprintf(filler, sizeof filler, "%s/filler", place.directory);
    if (!mount_small(&place)) {
        place_remove(&place);
        skip();
    }
    use_up(&place, 0);
    refuse(place.path, SEMEL_STORE_FULL, place.path);
    assert_int_equal(unlink(filler), 0);
    store = open_store(place.path);
    use_up(&place, 100000);
    fill_until_full(store, &place, &stored);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(add_record(store, SML_TABLE_CALLS, "still no room, to begin with"),
                         SML_NOT_STORED);
        assert_int_equal(store->status, SEMEL_STORE_FULL);
        assert_int_equal(count_calls(store), stored);
    }
    assert_int_equal(unlink(filler), 0);
    add_call(store, "room again");
    assert_int_equal(count_calls(store), stored + 1);
    fill_until_full(store, &place, &more);
    semel_store_close(store);
    store = open_store(place.path);
    assert_int_equal(count_calls(store), stored + 1 + more);
    semel_store_close(store);
    place_empty(&place);
    assert_int_equal(umount(place.directory), 0);
    place_remove(&place);
}

/* --- no memory ---------------------------------------------------------------------------- */

/* More pages than the first part of the log's index has room for. */
#define BIG_BYTES 2300000

static void make_of_small_pages(const struct place *place)
{
    run_beside(place->path, "PRAGMA page_size=512; CREATE TABLE mine (x)");
}

/* What a restart would find if the process ended now. */
static int count_if_it_died(const struct place *place)
{
    struct place copy;
    struct semel_store *store;
    int count;

    place_make(&copy);
    copy_file(place->path, "", copy.path, "");
    copy_file(place->path, "-wal", copy.path, "-wal");
    store = open_store(copy.path);
    count = count_calls(store);
    semel_store_close(store);
    place_remove(&copy);
    return count;
}

/* A commit may fail for want of memory although it is in the log. */
static void no_memory_never_tells_a_lie(void **state)
{
    uint8_t *bytes = calloc(1, BIG_BYTES);
    enum sml_stored stored = SML_NOT_STORED;
    int unknown = 0;

    (void)state;
    assert_non_null(bytes);
    for (int n = 1; stored != SML_STORED; n++) {
        struct place place;
        struct semel_store *store;
        uint64_t row = 0;
        int count;

        place_make(&place);
        make_of_small_pages(&place);
        store = open_store(place.path);
        assert_int_equal(store->ops->begin(store), SML_STORED);
        assert_int_equal(
            store->ops->put(store, SML_TABLE_CALLS, &row, semel_bytes(bytes, BIG_BYTES)),
            SML_STORED);
        sqlite_memory_fail_at(n);
        stored = store->ops->commit(store);
        sqlite_memory_fail_at(0);
        count = count_if_it_died(&place);
        if (stored == SML_STORED)
            assert_int_equal(count, 1);
        if (stored == SML_NOT_STORED)
            assert_int_equal(count, 0);
        if (stored != SML_STORED)
            assert_int_equal(store->status, SEMEL_NO_MEMORY);
        unknown += stored == SML_STORE_UNKNOWN && count == 1;
        semel_store_close(store);
        place_remove(&place);
    }
    assert_true(unknown > 0); /* else this test would prove nothing */
    free(bytes);
}

/* --- damage ------------------------------------------------------------------------------- */

struct said {
    char text[4000];
};

static void keep_words(enum semel_log_level level, const char *text, void *user)
{
    struct said *said = user;
    size_t at = strlen(said->text);

    (void)level;
    (void)snprintf(said->text + at, sizeof said->text - at, "%s\n", text);
}

static void echo(struct semel_request *request, void *user)
{
    struct semel_bytes body = semel_request_body(request);

    (void)user;
    (void)!semel_request_reply(request, body.data, body.size);
}

static struct semel_server *make_server(struct semel_store *store, struct said *said)
{
    struct semel_server_options options = { .store = store, .log = keep_words, .log_user = said };
    struct semel_server *server;

    assert_int_equal(semel_server_create(&server, &options), SEMEL_OK);
    assert_int_equal(semel_server_export(server, "echo", echo, NULL, NULL), SEMEL_OK);
    return server;
}

/* A session with a call that has its verdict, and the call's key. */
static void leave_something(const struct place *place)
{
    struct sml_session_record session = { .id = { { 1, 2, 3 } }, .conn_no = 1, .window = 8 };
    struct sml_call_record call = { .xid = 1,
                                    .state = SML_CALL_ENDED,
                                    .method = { "echo", 4 },
                                    .key = { "k", 1 },
                                    .verdict = { .body = { "hello", 5 } } };
    struct sml_key_record key = { .method = call.method,
                                  .key = call.key,
                                  .state = SML_CALL_ENDED,
                                  .xid = 1,
                                  .kept_since = 1,
                                  .verdict = call.verdict };
    struct semel_store *store = open_store(place->path);
    const struct sml_store_ops *ops = store->ops;
    uint8_t bytes[500], hash[32];
    uint64_t row = 0;

    assert_int_equal(ops->begin(store), SML_STORED);
    sml_session_record_encode(&session, bytes);
    assert_int_equal(ops->put(store, SML_TABLE_SESSIONS, &call.session,
                              semel_bytes(bytes, sml_session_record_bytes(&session))),
                     SML_STORED);
    sml_call_record_encode(&call, bytes);
    assert_int_equal(
        ops->put(store, SML_TABLE_CALLS, &row, semel_bytes(bytes, sml_call_record_bytes(&call))),
        SML_STORED);
    key.session = call.session;
    sml_record_key_hash(&key.principal, key.method, key.key, hash);
    sml_key_record_encode(&key, bytes);
    assert_int_equal(
        ops->put_key(store, hash, key.kept_since, semel_bytes(bytes, sml_key_record_bytes(&key))),
        SML_STORED);
    assert_int_equal(ops->commit(store), SML_STORED);
    semel_store_close(store);
}

static int64_t checksum_of_tables(const struct place *place)
{
    return number_beside(place->path,
                         "SELECT (SELECT coalesce(sum(no * 1000 + length(record)), 0) FROM "
                         "semel_session) * 1000000 + (SELECT coalesce(sum(no * 1000 + "
                         "length(record)), 0) FROM semel_call) * 1000 + (SELECT "
                         "count(*) FROM semel_key)");
}

/* As it is. */
static void expect_start(const struct place *place)
{
    struct said said = { "" };
    struct semel_server *server = make_server(open_store(place->path), &said);
    struct semel_server_counters counters;

    if (semel_server_start(server) != SEMEL_OK)
        fail_msg("%s", said.text);
    semel_server_counters(server, &counters);
    assert_int_equal(counters.sessions_restored, 1);
    assert_int_equal(counters.calls_restored, 1);
    semel_server_stop(server);
    assert_int_equal(semel_server_destroy(server), SEMEL_OK);
}

static void expect_refused_start(const struct place *place, const char *words)
{
    struct said said = { "" };
    int64_t before = checksum_of_tables(place);
    struct semel_server *server = make_server(open_store(place->path), &said);

    assert_int_equal(semel_server_start(server), SEMEL_STORE_CORRUPT);
    if (strstr(said.text, words) == NULL || strstr(said.text, place->path) == NULL)
        fail_msg("%s", said.text);
    assert_int_equal(semel_server_destroy(server), SEMEL_OK);
    assert_true(checksum_of_tables(place) == before);
}

static void a_damaged_record_ends_the_start(void **state)
{
    static const struct {
        const char *sql, *words;
    } damage[] = {
        { "UPDATE semel_session SET record = x'' || substr(record, 1, 20) || x'ff' || "
          "substr(record, 22)",
          "session record 1: " },
        { "UPDATE semel_session SET record = substr(record, 1, length(record) - 1)",
          "session record 1: " },
        { "UPDATE semel_call SET record = substr(record, 1, 30) || x'ff' || substr(record, 32)",
          "call record 1: " },
        { "UPDATE semel_call SET record = zeroblob(100)", "call record 1: " },
        { "INSERT INTO semel_call (record) SELECT record FROM semel_call",
          "call record 2: two records of one call" },
        { "INSERT INTO semel_session (record) SELECT record FROM semel_session",
          "session record 2: " },
        { "UPDATE semel_key SET kept_since = NULL, record = x'00' || substr(record, 2)",
          "key record 0: " },
    };

    (void)state;
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        struct place place;

        place_make(&place);
        leave_something(&place);
        expect_start(&place);
        run_beside(place.path, damage[i].sql);
        expect_refused_start(&place, damage[i].words);
        expect_refused_start(&place, damage[i].words);
        place_remove(&place);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("another process that changes the store is noticed",
             another_process_that_changes_the_store_is_noticed),
        TEST("a record that is gone is noticed", a_record_that_is_gone_is_noticed),
        TEST("another writer is not stored", another_writer_is_not_stored),
        TEST("a key that was found holds nothing up", a_key_that_was_found_holds_nothing_up),
        TEST("nor where its transaction is lost", nor_where_its_transaction_is_lost),
        TEST("what is too large is not stored", what_is_too_large_is_not_stored),
        TEST("a database that was deleted is noticed", a_database_that_was_deleted_is_noticed),
        TEST("a reader holds nobody up", a_reader_holds_nobody_up),
        TEST("the file does not grow", the_file_does_not_grow),
        TEST("a full disk is not stored and passes", a_full_disk_is_not_stored_and_passes),
        TEST("no memory never tells a lie", no_memory_never_tells_a_lie),
        TEST("a damaged record ends the start", a_damaged_record_ends_the_start),
    };

    sqlite_memory_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
