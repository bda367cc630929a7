/* SPDX-License-Identifier: MIT */
/* test_io_errors.c - every call that a store makes of its disk fails, one after the other.
 *
 * A fixed sequence of transactions is run again and again, and the n-th call of each kind fails,
 * until one is run in which none does: that call alone, or all from there on; before it has done
 * anything, or after. What the store said must be true: of the files as they are, and of the disk
 * as a power cut at that moment leaves it. */
#include "io/kit.h"

#include <sqlite3.h>

#include <semel/sqlite.h>

#include "base/time.h"
#include "fault/crash_vfs.h"
#include "kit/sqlite_memory.h"
#include "sqlite/sqlite_internal.h"

#define TRANSACTIONS 4
#define BIG_AT 2
#define BIG_BYTES 15000
#define CHECKPOINT_PAGES 8 /* commits checkpoint, too */
#define NOBODY (-1)        /* neither of the states that there may be */

static struct {
    char directory[64];
    char path[80], check[80];
    struct semel_store *store;
    int done;  /* transactions that are stored */
    int maybe; /* one more may be */
    char what[120];
    int runs, unknown, not_stored, refused;
    uint32_t seed;
} t;

static const enum crash_keep keeps[] = { CRASH_NOTHING, CRASH_ALL, CRASH_TORN };

/* --- one transaction, and what all of them leave
 * ------------------------------------------------ */

/* The record of transaction `k`: its number, and more for the big one. */
static size_t fill(uint8_t *bytes, int k)
{
    size_t size = k == BIG_AT ? BIG_BYTES : 40;

    memset(bytes, k, size);
    return size;
}

static enum sml_stored run_handler(int k)
{
    struct semel_store *store = t.store;
    enum sml_stored stored = store->ops->guard(store, SML_NEVER, NULL);
    char sql[120];
    bool good;

    if (stored != SML_STORED)
        return stored;
    (void)snprintf(sql, sizeof sql,
                   "CREATE TABLE IF NOT EXISTS mine (k INTEGER); INSERT INTO mine VALUES (%d)", k);
    good = sqlite3_exec(semel_sqlite_handle(store), sql, NULL, NULL, NULL) == SQLITE_OK;
    stored = store->ops->unguard(store, good);
    if (stored == SML_STORED && !good) {
        store->ops->rollback(store);
        return SML_NOT_STORED;
    }
    return stored;
}

static enum sml_stored run_transaction(int k)
{
    static const uint8_t hash[32] = { 1 };
    const struct sml_store_ops *ops = t.store->ops;
    uint8_t *bytes = malloc(BIG_BYTES);
    uint64_t call = 0, session = k == 1 ? 0 : 1;
    struct semel_bytes record = { bytes, 0 }, found;
    enum sml_stored stored = ops->begin(t.store);

    assert_non_null(bytes);
    record.size = fill(bytes, k);
    if (stored == SML_STORED)
        stored = ops->put(t.store, SML_TABLE_CALLS, &call, record);
    if (stored == SML_STORED)
        stored = ops->put(t.store, SML_TABLE_SESSIONS, &session, record);
    if (stored == SML_STORED)
        stored = ops->find_key(t.store, hash, &found);
    if (stored == SML_STORED)
        stored = ops->put_key(t.store, hash, 0, record);
    if (stored == SML_STORED)
        stored = run_handler(k);
    if (stored == SML_STORED)
        stored = ops->commit(t.store);
    free(bytes);
    return stored;
}

struct walk {
    int next; /* the record that must come; NOBODY once something else came */
    bool last_only;
};

static bool see_record(uint64_t row, struct semel_bytes record, void *user)
{
    static uint8_t bytes[BIG_BYTES];
    struct walk *walk = user;

    (void)row;
    if (walk->last_only && record.size > 0)
        walk->next = *(const uint8_t *)record.data;
    if (walk->next == NOBODY || fill(bytes, walk->next) != record.size ||
        memcmp(bytes, record.data, record.size) != 0)
        walk->next = NOBODY;
    else
        walk->next++;
    return walk->next != NOBODY;
}

static int take_number(void *user, int columns, char **values, char **names)
{
    (void)columns;
    (void)names;
    *(int *)user = values[0] ? atoi(values[0]) : 0;
    return 0;
}

/* How many transactions there are: 1 to that, in every table. NOBODY: something is half there. */
static int count_transactions(struct semel_store *store)
{
    struct walk calls = { 1, false }, sessions = { 1, true }, keys = { 1, true };
    int count = 0, greatest = 0;

    if (store->ops->each(store, SML_TABLE_CALLS, see_record, &calls) != SEMEL_OK ||
        store->ops->each(store, SML_TABLE_SESSIONS, see_record, &sessions) != SEMEL_OK ||
        store->ops->each(store, SML_TABLE_UNFINISHED_KEYS, see_record, &keys) != SEMEL_OK)
        return NOBODY;
    (void)sqlite3_exec(semel_sqlite_handle(store), "SELECT count(*) FROM mine", take_number, &count,
                       NULL);
    (void)sqlite3_exec(semel_sqlite_handle(store), "SELECT max(k) FROM mine", take_number,
                       &greatest, NULL);
    if (calls.next == NOBODY || calls.next != sessions.next || calls.next != keys.next ||
        count != calls.next - 1 || greatest != count)
        return NOBODY;
    return count;
}

/* --- was the truth said?
 * ------------------------------------------------------------------------- */

static void expect_truth(const char *path, const char *where)
{
    struct semel_store *store = NULL;
    char text[600];
    int count;

    if (semel_sqlite_open(&store, path, NULL, text, sizeof text) != SEMEL_OK)
        fail_msg("%s, %s: %s", t.what, where, text);
    count = count_transactions(store);
    semel_store_close(store);
    if (count != t.done && count != t.maybe)
        fail_msg("%s, %s: %d transactions found, %d stored, perhaps %d", t.what, where, count,
                 t.done, t.maybe);
}

/* What a power cut at this moment leaves. */
static void expect_truth_after_a_cut(const char *where)
{
    struct crash_capture *capture = crash_capture();
    struct crash_failure none = { .n = 0 };
    bool had_failed = crash_has_failed();
    char page[100];

    if (!had_failed) {
        crash_capture_free(capture);
        return;
    }
    crash_fail(&none);
    (void)snprintf(page, sizeof page, "%s-semel", t.check);
    for (size_t i = 0; i < sizeof keeps / sizeof *keeps; i++) {
        crash_restore(capture, t.path, t.check, keeps[i], &t.seed);
        (void)unlink(page);
        expect_truth(t.check, where);
    }
    crash_capture_free(capture);
}

/* --- the sequence
 * --------------------------------------------------------------------------------- */

static bool open_main(void)
{
    char text[600];
    enum semel_status status = semel_sqlite_open(&t.store, t.path, NULL, text, sizeof text);

    if (status == SEMEL_OK) {
        (void)sqlite3_busy_timeout(semel_sqlite_handle(t.store), 1);
        sml_sqlite_of(t.store)->checkpoint = CHECKPOINT_PAGES;
        return true;
    }
    if (status < SEMEL_STORE_FAILED && status != SEMEL_NO_MEMORY)
        fail_msg("%s: opening says %s: %s", t.what, semel_status_name(status), text);
    assert_non_null(strstr(text, t.path));
    t.refused++;
    return false;
}

/* Until it is stored, as a server would. False: the store is of no more use. */
static bool store_transaction(int k, bool check)
{
    for (int tries = 0; tries < 4; tries++) {
        enum sml_stored stored = run_transaction(k);

        if (stored == SML_STORED) {
            t.done = t.maybe = k;
            return true;
        }
        if (semel_store_error(t.store)[0] == '\0' || t.store->status == SEMEL_OK)
            fail_msg("%s: no reason is said", t.what);
        if (stored == SML_STORE_UNKNOWN) {
            t.maybe = k;
            t.unknown++;
            return false;
        }
        t.not_stored++;
        if (check && tries == 0) {
            expect_truth_after_a_cut("not stored");
            check = false;
            return false;
        }
    }
    return false;
}

static void run_sequence(bool check)
{
    t.done = t.maybe = 0;
    t.store = NULL;
    if (!open_main())
        return;
    for (int k = 1; k <= TRANSACTIONS; k++) {
        if (!store_transaction(k, check))
            break;
        if (k == 2) {
            t.store->ops->tidy(t.store);
            semel_store_close(t.store);
            t.store = NULL;
            if (!open_main())
                return;
        }
    }
    semel_store_close(t.store);
    t.store = NULL;
}

static void remove_files(void)
{
    static const char *const ends[] = { "", "-wal", "-shm", "-journal", "-semel" };
    char name[120];

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        (void)snprintf(name, sizeof name, "%s%s", t.path, ends[i]);
        (void)unlink(name);
        (void)snprintf(name, sizeof name, "%s%s", t.check, ends[i]);
        (void)unlink(name);
    }
}

/* Returns whether the failure came. */
static bool run_with(const struct crash_failure *failure, bool check)
{
    int files = kit_descriptors(), blocks = sqlite_memory_blocks();
    struct crash_failure none = { .n = 0 };
    bool failed;

    t.runs++;
    (void)snprintf(t.what, sizeof t.what, "%s %u%s%s%s", crash_call_names[failure->call],
                   failure->n, failure->stays ? " and all later ones" : "",
                   failure->after ? ", done all the same" : "",
                   failure->full   ? ", full"
                   : failure->lost ? ", lost"
                                   : "");
    crash_reset();
    crash_fail(failure);
    run_sequence(check);
    failed = crash_has_failed();
    expect_truth_after_a_cut("at the end");
    crash_fail(&none);
    expect_truth(t.path, "as it is");
    remove_files();
    crash_reset();
    if (kit_descriptors() != files || sqlite_memory_blocks() != blocks)
        fail_msg("%s: %d descriptors of %d, %d blocks of %d", t.what, kit_descriptors(), files,
                 sqlite_memory_blocks(), blocks);
    return failed;
}

static void fail_each(struct crash_failure failure)
{
    struct crash_failure none = { .n = 0 };

    (void)run_with(&none, false);
    assert_int_equal(t.done, TRANSACTIONS);
    for (failure.n = 1;; failure.n++) {
        int not_stored = t.not_stored;

        if (!run_with(&failure, false))
            break;
        if (t.not_stored > not_stored)
            (void)run_with(&failure, true);
    }
    assert_int_equal(t.done, TRANSACTIONS);
}

static void fail_calls(enum crash_call call)
{
    fail_each((struct crash_failure){ .call = call });
    fail_each((struct crash_failure){ .call = call, .stays = true });
}

static void a_file_that_cannot_be_opened(void **state)
{
    (void)state;
    fail_calls(CRASH_OPEN);
    assert_true(t.refused > 0);
}

static void reads_that_fail(void **state)
{
    (void)state;
    fail_calls(CRASH_READ);
}

static void writes_that_fail(void **state)
{
    (void)state;
    fail_calls(CRASH_WRITE);
    fail_each((struct crash_failure){ .call = CRASH_WRITE, .after = true });
    assert_true(t.unknown > 0);
}

static void writes_to_a_full_disk(void **state)
{
    int unknown = t.unknown;

    (void)state;
    fail_each((struct crash_failure){ .call = CRASH_WRITE, .full = true });
    fail_each((struct crash_failure){ .call = CRASH_WRITE, .full = true, .stays = true });
    assert_int_equal(t.unknown, unknown); /* it is always known then */
    assert_true(t.not_stored > 0);
}

static void syncs_that_fail(void **state)
{
    (void)state;
    fail_calls(CRASH_SYNC);
    fail_each((struct crash_failure){ .call = CRASH_SYNC, .after = true });
    fail_each((struct crash_failure){ .call = CRASH_SYNC, .lost = true });
    fail_each((struct crash_failure){ .call = CRASH_SYNC, .lost = true, .stays = true });
    assert_true(t.unknown > 0);
}

static void truncates_and_deletes_that_fail(void **state)
{
    (void)state;
    fail_calls(CRASH_TRUNCATE);
    fail_calls(CRASH_DELETE);
}

static void sizes_and_names_that_cannot_be_had(void **state)
{
    (void)state;
    fail_calls(CRASH_SIZE);
    fail_calls(CRASH_ACCESS);
}

static void locks_that_fail(void **state)
{
    (void)state;
    fail_calls(CRASH_LOCK);
    fail_calls(CRASH_SHM_LOCK);
}

static void shared_memory_that_cannot_be_had(void **state)
{
    (void)state;
    fail_calls(CRASH_SHM_MAP);
}

static int make_place(void **state)
{
    (void)state;
    memset(&t, 0, sizeof t);
    if (access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 0);
    kit_directory(t.directory, sizeof t.directory);
    (void)snprintf(t.path, sizeof t.path, "%s/db", t.directory);
    (void)snprintf(t.check, sizeof t.check, "%s/found", t.directory);
    return 0;
}

static int remove_place(void **state)
{
    (void)state;
    print_message("%d runs: opening refused %d times, not stored %d times, unknown %d times\n",
                  t.runs, t.refused, t.not_stored, t.unknown);
    remove_files();
    return rmdir(t.directory);
}

#define TEST(name, function)                                                                       \
    {                                                                                              \
        name, function, make_place, remove_place, NULL                                             \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("a file that cannot be opened", a_file_that_cannot_be_opened),
        TEST("reads that fail", reads_that_fail),
        TEST("writes that fail", writes_that_fail),
        TEST("writes to a full disk", writes_to_a_full_disk),
        TEST("syncs that fail", syncs_that_fail),
        TEST("truncates and deletes that fail", truncates_and_deletes_that_fail),
        TEST("sizes and names that cannot be had", sizes_and_names_that_cannot_be_had),
        TEST("locks that fail", locks_that_fail),
        TEST("shared memory that cannot be had", shared_memory_that_cannot_be_had),
    };

    sqlite_memory_install();
    crash_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
