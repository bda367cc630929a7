/* SPDX-License-Identifier: MIT */
/* sqlite_kit.h - servers whose store is a database. Included once per test program, after
 * server_kit.h.
 *
 *   bank   a rig whose server keeps its records, and the effects of transactions, in a database of
 *          its place; it can be closed and open again. The database is looked at by a connection of
 *          the test's own. */
#ifndef SML_TESTS_SQLITE_KIT_H
#define SML_TESTS_SQLITE_KIT_H

#include <sqlite3.h>

#include <semel/sqlite.h>

struct bank {
    struct rig *rig;
    char path[128];
    struct semel_server_options options;
    struct semel_sqlite_options store_options;
    void (*exports)(struct bank *bank, void *user); /* what each server exports */
    void *user;
};

/* --- looking ------------------------------------------------------------------------------- */

/* The one number that `sql` gives, by a connection that cannot write. */
UNUSED static int64_t ask_file(const char *path, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    sqlite3 *db = NULL;
    int64_t value;

    REQUIRE(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) ==
            SQLITE_OK);
    REQUIRE(sqlite3_busy_timeout(db, 60000) == SQLITE_OK);
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK ||
        sqlite3_step(statement) != SQLITE_ROW) {
        fprintf(stderr, "%s: %s\n", sql, sqlite3_errmsg(db));
        abort();
    }
    value = sqlite3_column_int64(statement, 0);
    (void)sqlite3_finalize(statement);
    (void)sqlite3_close(db);
    return value;
}

UNUSED static int64_t ask(const struct bank *bank, const char *sql)
{
    return ask_file(bank->path, sql);
}

/* No call has a record. */
UNUSED static bool bank_at_rest(void *arg)
{
    return ask(arg, "SELECT count(*) FROM semel_call") == 0;
}

/* --- the bank ------------------------------------------------------------------------------ */

/* Run `sql` on a database that nobody has open. */
UNUSED static void run_on_file(const char *path, const char *sql)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s", sqlite3_errmsg(db));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

UNUSED static void remove_database(const char *path)
{
    static const char *const ends[] = { "", "-wal", "-shm", "-journal", "-semel" };

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        char name[192];

        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        (void)unlink(name);
    }
}

UNUSED static struct semel_store *bank_open_store(struct bank *bank)
{
    struct semel_store *store = NULL;
    char text[256];

    if (semel_sqlite_open(&store, bank->path, &bank->store_options, text, sizeof text) != SEMEL_OK)
        fail_msg("%s", text);
    return store;
}

/* The next server, which does not serve yet. */
UNUSED static void bank_remake(struct bank *bank)
{
    struct semel_server_options mine = bank->options;

    mine.log = keep_log;
    mine.log_user = bank->rig;
    mine.store = bank_open_store(bank);
    assert_int_equal(semel_server_create(&bank->rig->server, &mine), SEMEL_OK);
    bank->exports(bank, bank->user);
}

/* `schema` is run on the fresh database. The server exports, but does not serve yet. */
UNUSED static struct bank *bank_make(const struct semel_server_options *options,
                                     const struct semel_sqlite_options *store_options,
                                     const char *schema,
                                     void (*exports)(struct bank *bank, void *user), void *user)
{
    struct bank *bank = calloc(1, sizeof *bank);
    struct rig *rig = calloc(1, sizeof *rig);

    assert_non_null(bank);
    assert_non_null(rig);
    bank->rig = rig;
    pthread_mutex_init(&rig->lock, NULL);
    kit_place_make(&rig->place);
    snprintf(bank->path, sizeof bank->path, "%s/db", rig->place.directory);
    if (options)
        bank->options = *options;
    if (store_options)
        bank->store_options = *store_options;
    bank->exports = exports;
    bank->user = user;
    run_on_file(bank->path, schema);
    bank_remake(bank);
    return bank;
}

/* A client that comes back soon. */
UNUSED static struct semel_client *bank_connect(struct bank *bank)
{
    struct semel_client_options options = { .backoff_min_ms = 5,
                                            .backoff_max_ms = 40,
                                            .cancel_grace_ms = 60000 };
    struct semel_client *client = rig_connect(bank->rig, &options);

    assert_int_equal(semel_client_wait_connected(client, 60000, NULL, 0), SEMEL_OK);
    return client;
}

UNUSED static void bank_go(struct bank *bank)
{
    rig_serve(bank->rig);
    bank->rig->client = bank_connect(bank);
}

UNUSED static void bank_close(struct bank *bank)
{
    assert_int_equal(semel_server_destroy(bank->rig->server), SEMEL_OK);
    bank->rig->server = NULL;
}

UNUSED static void bank_reopen(struct bank *bank)
{
    bank_remake(bank);
    rig_serve(bank->rig);
}

UNUSED static void bank_end(struct bank *bank)
{
    struct rig *rig = bank->rig;

    assert_int_equal(semel_client_destroy(rig->client), SEMEL_OK);
    assert_int_equal(semel_server_destroy(rig->server), SEMEL_OK);
    remove_database(bank->path);
    kit_place_remove(&rig->place);
    pthread_mutex_destroy(&rig->lock);
    free(rig);
    free(bank);
}

/* --- handlers ------------------------------------------------------------------------------ */

/* Run `sql` in a handler's transaction, with what is at most one number as ?1. */
UNUSED static int run_sql(struct semel_store *store, const char *sql, int64_t number)
{
    sqlite3 *db = semel_sqlite_handle(store);
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

    if (code != SQLITE_OK)
        return code;
    (void)sqlite3_bind_int64(statement, 1, number);
    while ((code = sqlite3_step(statement)) == SQLITE_ROW)
        continue;
    (void)sqlite3_finalize(statement);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

UNUSED static int64_t number_of(const struct semel_request *request)
{
    struct semel_bytes body = semel_request_body(request);
    char text[32];

    REQUIRE(body.size < sizeof text);
    if (body.size > 0)
        memcpy(text, body.data, body.size);
    text[body.size] = '\0';
    return strtoll(text, NULL, 10);
}

#endif
