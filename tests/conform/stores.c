/* SPDX-License-Identifier: MIT */
#include "stores.h"

#include "io/kit.h"

#include <sys/wait.h>

#include "kit/memory_store.h"

/* --- memory ------------------------------------------------------------------------------ */

static void memory_make(struct ground *ground)
{
    ground->own = kit_disk_make();
}

static void memory_remove(struct ground *ground)
{
    kit_disk_free(ground->own);
}

static struct semel_store *memory_open(struct ground *ground)
{
    return kit_disk_open(ground->own);
}

static void memory_die(struct ground *ground, void (*what)(struct semel_store *store))
{
    struct semel_store *store = kit_disk_open(ground->own);

    assert_non_null(store);
    what(store);
    kit_disk_kill(ground->own);
    semel_store_close(store);
}

static void memory_work(struct semel_store *store, int amount)
{
    kit_store_add(store, amount);
}

static int memory_sum(struct ground *ground)
{
    return (int)kit_disk_sum(ground->own);
}

/* --- SQLite ------------------------------------------------------------------------------ */

#ifdef WITH_SQLITE

#include <semel/sqlite.h>
#include <sqlite3.h>

static void sqlite_make(struct ground *ground)
{
    if (access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 0); /* how long a disk syncs is nothing to these tests */
    kit_directory(ground->directory, sizeof ground->directory);
    (void)snprintf(ground->path, sizeof ground->path, "%s/db", ground->directory);
}

static void sqlite_remove(struct ground *ground)
{
    static const char *const ends[] = { "", "-wal", "-shm", "-semel" };
    char path[120];

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        (void)snprintf(path, sizeof path, "%s%s", ground->path, ends[i]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(ground->directory), 0);
}

static struct semel_store *sqlite_open(struct ground *ground)
{
    struct semel_store *store = NULL;
    char text[256];

    if (semel_sqlite_open(&store, ground->path, NULL, text, sizeof text) != SEMEL_OK)
        fail_msg("%s", text);
    return store;
}

static void sqlite_die(struct ground *ground, void (*what)(struct semel_store *store))
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        struct semel_store *store = NULL;

        if (semel_sqlite_open(&store, ground->path, NULL, NULL, 0) != SEMEL_OK)
            _exit(1);
        what(store);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void sqlite_work(struct semel_store *store, int amount)
{
    char text[200];

    (void)snprintf(text, sizeof text,
                   "CREATE TABLE IF NOT EXISTS work (amount INTEGER);"
                   "INSERT INTO work VALUES (%d)",
                   amount);
    assert_int_equal(sqlite3_exec(semel_sqlite_handle(store), text, NULL, NULL, NULL), SQLITE_OK);
}

static int first_number(void *user, int columns, char **values, char **names)
{
    (void)columns;
    (void)names;
    *(int *)user = values[0] ? atoi(values[0]) : 0;
    return 0;
}

/* As another process sees it. */
static int sqlite_sum(struct ground *ground)
{
    int sum = 0;
    sqlite3 *db;

    assert_int_equal(sqlite3_open_v2(ground->path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    (void)sqlite3_exec(db, "SELECT sum(amount) FROM work", first_number, &sum, NULL);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return sum;
}

static void sqlite_lose(struct semel_store *store)
{
    static const char text[] = "CREATE TABLE once (x INTEGER PRIMARY KEY);"
                               "INSERT INTO once VALUES (1);"
                               "INSERT OR ROLLBACK INTO once VALUES (1)";

    assert_int_equal(sqlite3_exec(semel_sqlite_handle(store), text, NULL, NULL, NULL) & 0xff,
                     SQLITE_CONSTRAINT);
}

#endif

const struct store_kind store_kinds[] = {
    { "memory", memory_make, memory_remove, memory_open, memory_die, memory_work, memory_sum,
      kit_store_lose },
#ifdef WITH_SQLITE
    { "sqlite", sqlite_make, sqlite_remove, sqlite_open, sqlite_die, sqlite_work, sqlite_sum,
      sqlite_lose },
#endif
};
const int store_kinds_count = (int)(sizeof store_kinds / sizeof *store_kinds);

void ground_make(struct ground *ground, const struct store_kind *kind)
{
    memset(ground, 0, sizeof *ground);
    ground->kind = kind;
    kind->make(ground);
    ground_reopen(ground);
}

void ground_reopen(struct ground *ground)
{
    ground_close(ground);
    ground->store = ground->kind->open(ground);
    assert_non_null(ground->store);
}

void ground_close(struct ground *ground)
{
    semel_store_close(ground->store);
    ground->store = NULL;
}

void ground_remove(struct ground *ground)
{
    ground_close(ground);
    ground->kind->remove(ground);
}
