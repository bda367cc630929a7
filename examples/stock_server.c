/* SPDX-License-Identifier: MIT */
#include <semel/semel.h>
#include <semel/sqlite.h>
#include <sqlite3.h>
#include <stdio.h>

static void take(struct semel_request *request, struct semel_store *store, void *user)
{
    struct sqlite3 *db = semel_sqlite_handle(store);

    (void)user;
    if (sqlite3_exec(db, "UPDATE stock SET n = n - 1 WHERE n > 0", NULL, NULL, NULL) != SQLITE_OK)
        semel_request_fail(request, 1, sqlite3_errmsg(db));
    else if (sqlite3_changes(db) == 0)
        semel_request_fail(request, 2, "sold out");
    else
        semel_request_reply(request, "yours", 5);
}

int main(void)
{
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    struct semel_server *server;
    char why[300];

    if (semel_sqlite_open(&options.store, "stock.db", NULL, why, sizeof why) != SEMEL_OK) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    if (semel_server_create(&server, &options) != SEMEL_OK ||
        semel_server_export_transactional(server, "take", take, NULL, NULL) != SEMEL_OK ||
        semel_server_listen(server, "unix:stock.sock") != SEMEL_OK)
        return 1;
    return semel_server_run(server) != SEMEL_OK;
}
