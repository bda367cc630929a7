/* SPDX-License-Identifier: MIT */
/* powercut_writer.c - what writes a store while its disk loses power, and looks at what is left.
 *
 *   powercut_writer PATH [off]     commits one transaction after the other and says so: the number
 *   of
 *                                  each, 8 bytes, on its standard output. With `off` syncs are off
 *   powercut_writer PATH check     says how many transactions there are, all of them whole
 *
 * It ends with 0; with 1 and a reason on its standard error when what it finds is not whole; and
 * with 2 when the store can no longer be written. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <semel/sqlite.h>

#include "base/le.h"
#include "base/time.h"
#include "sqlite/sqlite_internal.h"

#define KEPT 40 /* records of the last so many transactions */

static struct semel_store *store;

static void give_up(int status, const char *what)
{
    fprintf(stderr, "%s: %s\n", what, store ? semel_store_error(store) : "");
    exit(status);
}

/* The record of transaction `k`, whose length varies. */
static size_t fill(uint8_t *bytes, uint64_t k)
{
    size_t size = 16 + (size_t)(k * 7919 % (k % 11 == 0 ? 30000 : 600));

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(k * 13 + i * 7);
    sml_store64(bytes, k);
    return size;
}

/* In the order of the numbers, which makes them easy to walk over. */
static void hash_of(uint64_t k, uint8_t out[32])
{
    memset(out, 0, 32);
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(k >> (56 - 8 * i));
}

/* --- writing ------------------------------------------------------------------------------- */

static void must(enum sml_stored stored)
{
    if (stored != SML_STORED)
        give_up(2, "not stored");
}

static void add_row(uint64_t k)
{
    char sql[120];

    (void)snprintf(sql, sizeof sql,
                   "CREATE TABLE IF NOT EXISTS mine (k INTEGER PRIMARY KEY);"
                   "INSERT INTO mine VALUES (%llu)",
                   (unsigned long long)k);
    if (sqlite3_exec(semel_sqlite_handle(store), sql, NULL, NULL, NULL) != SQLITE_OK)
        give_up(2, "the handler's row");
}

/* Calls are rows 1, 2, ...: the number of a transaction is that of its call's row. */
static void run_transaction(uint64_t k)
{
    static uint8_t bytes[40000];
    const struct sml_store_ops *ops = store->ops;
    struct semel_bytes record = { bytes, fill(bytes, k) };
    uint64_t row = 0;
    uint8_t hash[32];

    hash_of(k, hash);
    must(ops->begin(store));
    must(ops->put(store, SML_TABLE_CALLS, &row, record));
    must(ops->put_key(store, hash, 0, record));
    if (k > KEPT) {
        hash_of(k - KEPT, hash);
        must(ops->forget(store, SML_TABLE_CALLS, row - KEPT));
        must(ops->forget_key(store, hash));
    }
    must(ops->guard(store, SML_NEVER, NULL));
    add_row(k);
    must(ops->unguard(store, true));
    must(ops->commit(store));
}

static void acknowledge(uint64_t k)
{
    uint8_t bytes[8];

    sml_store64(bytes, k);
    if (write(1, bytes, sizeof bytes) != sizeof bytes)
        exit(0); /* nobody listens any more */
}

/* --- looking ------------------------------------------------------------------------------- */

struct walk {
    uint64_t first, next; /* the first and the next record; 0: none yet */
    uint64_t count;
    bool damaged;
};

static bool see(uint64_t row, struct semel_bytes record, void *user)
{
    static uint8_t bytes[40000];
    struct walk *walk = user;
    uint64_t k = record.size >= 16 ? sml_load64(record.data) : 0;

    (void)row;
    if (walk->next == 0)
        walk->first = walk->next = k;
    if (k == 0 || k != walk->next || fill(bytes, k) != record.size ||
        memcmp(bytes, record.data, record.size) != 0)
        walk->damaged = true;
    walk->next = k + 1;
    walk->count++;
    return !walk->damaged;
}

static int take_number(void *user, int columns, char **values, char **names)
{
    (void)columns;
    (void)names;
    *(uint64_t *)user = values[0] ? strtoull(values[0], NULL, 10) : 0;
    return 0;
}

static uint64_t ask(const char *sql)
{
    uint64_t number = 0;

    (void)sqlite3_exec(semel_sqlite_handle(store), sql, take_number, &number, NULL);
    return number;
}

/* The last transaction. Whatever is there must be of all of them, whole. */
static uint64_t look(void)
{
    struct walk calls = { 0 }, keys = { 0 };
    uint64_t last, rows = ask("SELECT count(*) FROM mine");

    if (store->ops->each(store, SML_TABLE_CALLS, see, &calls) != SEMEL_OK ||
        store->ops->each(store, SML_TABLE_UNFINISHED_KEYS, see, &keys) != SEMEL_OK)
        give_up(1, "reading");
    last = calls.next > 0 ? calls.next - 1 : 0;
    if (calls.damaged || keys.damaged || calls.next != keys.next || calls.count != keys.count ||
        calls.count != (last < KEPT ? last : KEPT) || rows != last ||
        ask("SELECT max(k) FROM mine") != last) {
        fprintf(stderr, "half: calls up to %llu, keys up to %llu, %llu rows\n",
                (unsigned long long)last, (unsigned long long)keys.next, (unsigned long long)rows);
        exit(1);
    }
    return last;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 2 ? argv[2] : "";
    char text[600];
    uint64_t k;

    if (argc < 2)
        return 3;
    if (semel_sqlite_open(&store, argv[1], NULL, text, sizeof text) != SEMEL_OK) {
        fprintf(stderr, "%s\n", text);
        return 1;
    }
    k = look();
    if (strcmp(mode, "check") == 0) {
        semel_store_close(store);
        printf("%llu\n", (unsigned long long)k);
        return 0;
    }
    sml_sqlite_of(store)->checkpoint = 60;
    if (strcmp(mode, "off") == 0) {
        sml_sqlite_of(store)->ours = true;
        (void)sqlite3_exec(semel_sqlite_handle(store), "PRAGMA synchronous=OFF", NULL, NULL, NULL);
        sml_sqlite_of(store)->ours = false;
    }
    for (;;) {
        run_transaction(++k);
        acknowledge(k);
    }
}
