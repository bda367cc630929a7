/* SPDX-License-Identifier: MIT */
/* ledger_kit.h - a bank whose transactional handlers enter numbers into a ledger. Included once per
 * test program, after sqlite_kit.h. */
#ifndef SML_TESTS_LEDGER_KIT_H
#define SML_TESTS_LEDGER_KIT_H

/* What each handler enters: its number, once for each time that it had an effect. */
UNUSED static const char schema[] =
    "CREATE TABLE ledger (entry INTEGER PRIMARY KEY, number INTEGER);"
    "CREATE TABLE parent (id INTEGER PRIMARY KEY);"
    "CREATE TABLE child (parent INTEGER REFERENCES parent (id)"
    " DEFERRABLE INITIALLY DEFERRED);"
    "CREATE TABLE taken (name INTEGER UNIQUE ON CONFLICT ROLLBACK);"
    "INSERT INTO taken VALUES (1);";

UNUSED static void enter(struct semel_request *request, struct semel_store *store)
{
    REQUIRE(run_sql(store, "INSERT INTO ledger (number) VALUES (?1)", number_of(request)) ==
            SQLITE_OK);
}

UNUSED static void reply_number(struct semel_request *request)
{
    struct semel_bytes body = semel_request_body(request);

    REQUIRE(semel_request_reply(request, body.data, body.size) == SEMEL_OK);
}

UNUSED static void add(struct semel_request *request, struct semel_store *store, void *user)
{
    (void)user;
    enter(request, store);
    reply_number(request);
}

UNUSED static void export_add(struct bank *bank, void *user)
{
    assert_int_equal(semel_server_export_transactional(bank->rig->server, "add", add, user, NULL),
                     SEMEL_OK);
}

UNUSED static void transactional(struct bank *bank, const char *method, semel_transaction_fn fn,
                                 void *user, const struct semel_method_options *options)
{
    assert_int_equal(
        semel_server_export_transactional(bank->rig->server, method, fn, user, options), SEMEL_OK);
}

UNUSED static struct bank *open_bank(const struct semel_server_options *options,
                                     void (*exports)(struct bank *bank, void *user), void *user)
{
    struct semel_sqlite_options enforce = { .foreign_keys = true };
    struct bank *bank = bank_make(options, &enforce, schema, exports, user);

    bank_go(bank);
    return bank;
}

UNUSED static int64_t entries(const struct bank *bank)
{
    return ask(bank, "SELECT count(*) FROM ledger");
}

UNUSED static void start_number(struct semel_client *client, const char *method, int number,
                                struct seen *seen)
{
    char text[16];

    snprintf(text, sizeof text, "%d", number);
    start_call(client, method, text, NULL, seen, NULL);
}

UNUSED static bool has_run(void *arg)
{
    return atomic_load((atomic_int *)arg) > 0;
}

#endif
