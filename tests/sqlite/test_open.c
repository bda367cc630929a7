/* SPDX-License-Identifier: MIT */
#include "kit.h"

#include <signal.h>
#include <time.h>

static const struct semel_sqlite_options adopt = { .adopt = true };
static const struct semel_sqlite_options look = { .read_only = true };

/* --- what works --------------------------------------------------------------------------- */

static void a_store_is_made_and_found_again(void **state)
{
    struct place place;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    store = open_store(place.path);
    assert_true(exists(place.path, "") && exists(place.path, "-semel"));
    assert_string_equal(store->name, place.path);
    add_call(store, "one");
    semel_store_close(store);
    assert_false(exists(place.path, "-wal") || exists(place.path, "-shm"));
    store = open_store(place.path);
    expect_calls(store, "one");
    semel_store_close(store);
    assert_int_equal(number_beside(place.path, "SELECT commits FROM semel_store"), 1);
    place_remove(&place);
}

static void arguments_are_checked(void **state)
{
    struct semel_store *store = NULL;
    char text[8] = "before", long_path[5000];
    struct place place;

    (void)state;
    place_make(&place);
    assert_int_equal(semel_sqlite_open(NULL, place.path, NULL, NULL, 0), SEMEL_INVALID);
    assert_int_equal(semel_sqlite_open(&store, NULL, NULL, text, sizeof text), SEMEL_INVALID);
    assert_string_equal(text, "");
    assert_int_equal(semel_sqlite_open(&store, "", NULL, text, 0), SEMEL_INVALID);
    memset(long_path, 'x', sizeof long_path - 1);
    long_path[0] = '/';
    long_path[sizeof long_path - 1] = '\0';
    assert_int_equal(semel_sqlite_open(&store, long_path, NULL, text, sizeof text), SEMEL_INVALID);
    assert_null(store);
    assert_int_equal(kit_entries(place.directory), 0);
    assert_null(semel_sqlite_handle(NULL));
    place_remove(&place);
}

/* What a setting is, as the store's own connection has it. */
static void expect_setting(struct semel_store *store, const char *name, const char *wanted)
{
    struct sml_sqlite *s = sml_sqlite_of(store);
    char is[40];

    s->ours = true;
    assert_true(sml_sqlite_ask(s->db, name, is, sizeof is));
    s->ours = false;
    assert_string_equal(is, wanted);
}

static void settings_are_as_promised(void **state)
{
    const struct semel_sqlite_options keys = { .foreign_keys = true };
    struct place place;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    for (int i = 0; i < 2; i++) {
        store = open_with(place.path, i ? &keys : NULL);
        expect_setting(store, "PRAGMA journal_mode", "wal");
        expect_setting(store, "PRAGMA synchronous", "2");
        expect_setting(store, "PRAGMA foreign_keys", i ? "1" : "0");
        semel_store_close(store);
    }
    place_remove(&place);
}

/* Where shared memory cannot be had there is no log. */
static void a_setting_that_does_not_hold_is_said(void **state)
{
    sqlite3_vfs *plain = sqlite3_vfs_find(NULL), *without = sqlite3_vfs_find("unix-dotfile");
    struct place place;

    (void)state;
    if (without == NULL)
        skip();
    place_make(&place);
    (void)sqlite3_vfs_register(without, 1);
    refuse(place.path, SEMEL_STORE_FAILED,
           "PRAGMA journal_mode=WAL gives \"delete\" instead of \"wal\"");
    (void)sqlite3_vfs_register(plain, 1);
    place_remove(&place);
}

static void beside_an_application_s_tables(void **state)
{
    static const char *const settings[] = { "PRAGMA page_size=512", "PRAGMA page_size=65536",
                                            "PRAGMA encoding='UTF-16'", "PRAGMA auto_vacuum=FULL" };
    struct semel_store *store;
    struct place place;

    (void)state;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        place_make(&place);
        sqlite3 *db = open_beside(place.path);

        run_on(db, settings[i]);
        run_on(db, "CREATE TABLE mine (x); INSERT INTO mine VALUES (1), (2)");
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        store = open_store(place.path);
        add_call(store, "one");
        semel_store_close(store);
        store = open_store(place.path);
        expect_calls(store, "one");
        assert_int_equal(number_beside(place.path, "SELECT count(*) FROM mine"), 2);
        semel_store_close(store);
        place_remove(&place);
    }
}

static void readers_see_what_is_committed(void **state)
{
    struct place place;
    struct semel_store *store, *looking;
    struct semel_store_info held, seen;

    (void)state;
    place_make(&place);
    store = open_store(place.path);
    add_call(store, "one");
    assert_int_equal(store->ops->begin(store), SML_STORED);
    looking = open_with(place.path, &look);
    assert_true(looking->read_only);
    expect_calls(looking, "one");
    semel_store_info(store, &held);
    semel_store_info(looking, &seen);
    assert_memory_equal(held.id, seen.id, 16);
    assert_int_equal(held.generation, seen.generation);
    assert_true(seen.clock_ms <= held.clock_ms);
    assert_int_equal(semel_store_renew(looking), SEMEL_STORE_READ_ONLY);
    store->ops->rollback(store);
    add_call(store, "two");
    expect_calls(looking, "one two");
    semel_store_close(looking);
    semel_store_close(store);
    place_remove(&place);
}

static void looking_makes_and_locks_nothing(void **state)
{
    struct place place;
    struct semel_store *store, *looking;

    (void)state;
    place_make(&place);
    refuse_with(place.path, &look, SEMEL_STORE_FAILED, "no such file");
    assert_int_equal(kit_entries(place.directory), 0);
    run_beside(place.path, "CREATE TABLE mine (x)");
    refuse_with(place.path, &look, SEMEL_STORE_FAILED, "there is no store in it");
    assert_int_equal(kit_entries(place.directory), 1);
    semel_store_close(open_store(place.path));
    looking = open_with(place.path, &look);
    store = open_store(place.path);
    semel_store_close(looking);
    semel_store_close(store);
    place_remove(&place);
}

/* --- locked ------------------------------------------------------------------------------- */

static int must_be_locked(void *user)
{
    struct semel_store *store = NULL;
    char text[400], holder[60];

    if (semel_sqlite_open(&store, user, NULL, text, sizeof text) != SEMEL_STORE_LOCKED)
        return 1;
    (void)snprintf(holder, sizeof holder, "in use by process %d; stop it first", (int)getppid());
    return strstr(text, holder) == NULL;
}

static void one_process_holds_it(void **state)
{
    char here[40], link[120], relative[200];
    struct place place;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    store = open_store(place.path);
    (void)snprintf(here, sizeof here, "in use by process %d", (int)getpid());
    refuse(place.path, SEMEL_STORE_LOCKED, here);
    refuse_with(place.path, &adopt, SEMEL_STORE_LOCKED, here);
    in_child(must_be_locked, place.path);
    /* By another name, too. */
    (void)snprintf(link, sizeof link, "%s/other", place.directory);
    assert_int_equal(symlink(place.path, link), 0);
    in_child(must_be_locked, link);
    (void)snprintf(relative, sizeof relative, "%s/../%s/./db", place.directory,
                   strrchr(place.directory, '/') + 1);
    in_child(must_be_locked, relative);
    add_call(store, "still ours");
    expect_calls(store, "still ours");
    semel_store_close(store);
    semel_store_close(open_store(link));
    assert_false(exists(link, "-semel"));
    place_remove(&place);
}

static void hold_and_fork(const char *path, int ready)
{
    pid_t child;

    (void)open_store(path);
    child = fork();
    (void)alarm(60); /* should the test fail */
    if (child > 0 && write(ready, &child, sizeof child) != (ssize_t)sizeof child)
        _exit(1);
    for (;;)
        (void)pause();
}

/* A lock lives as long as anybody has the descriptor: a handler's child that did not exec. */
static void a_lock_that_a_fork_still_has_is_said(void **state)
{
    char words[80];
    int ready[2], status;
    pid_t parent, child;
    struct place place;

    (void)state;
    place_make(&place);
    assert_int_equal(pipe(ready), 0);
    parent = fork();
    assert_true(parent >= 0);
    if (parent == 0)
        hold_and_fork(place.path, ready[1]);
    assert_int_equal(read(ready[0], &child, sizeof child), sizeof child);
    (void)snprintf(words, sizeof words, "in use by process %d; stop it first", (int)parent);
    refuse(place.path, SEMEL_STORE_LOCKED, words);
    assert_int_equal(kill(parent, SIGKILL), 0);
    assert_int_equal(waitpid(parent, &status, 0), parent);
    (void)snprintf(words, sizeof words,
                   "process %d, which had it, is dead, but a process that it forked", (int)parent);
    refuse(place.path, SEMEL_STORE_LOCKED, words);
    assert_int_equal(kill(child, SIGKILL), 0);
    (void)close(ready[0]);
    (void)close(ready[1]);
    place_remove(&place);
}

static void a_database_with_two_names_is_refused(void **state)
{
    struct place place;
    char other[200];

    (void)state;
    place_make(&place);
    (void)snprintf(other, sizeof other, "%s/other", place.directory);
    semel_store_close(open_store(place.path));
    assert_int_equal(link(place.path, other), 0);
    refuse(place.path, SEMEL_INVALID, "hard links");
    refuse(other, SEMEL_INVALID, "hard links");
    assert_int_equal(unlink(other), 0);
    semel_store_close(open_store(place.path));
    place_remove(&place);
}

/* Somebody writes the database with another program, until the pipe ends. */
static void write_beside(const char *path, int ready, int end)
{
    char byte;
    sqlite3 *db = open_beside(path);

    run_on(db, "PRAGMA journal_mode=WAL; CREATE TABLE mine (x); BEGIN IMMEDIATE");
    assert_int_equal(write(ready, "x", 1), 1);
    assert_int_equal(read(end, &byte, 1), 0);
    _exit(sqlite3_close(db));
}

static void another_writer_is_waited_for(void **state)
{
    int ready[2], end[2], status;
    struct place place;
    char byte;
    pid_t child;

    (void)state;
    place_make(&place);
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(end), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)close(end[1]);
        write_beside(place.path, ready[1], end[0]);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    refuse(place.path, SEMEL_STORE_LOCKED, "database is locked");
    (void)close(end[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    semel_store_close(open_store(place.path));
    (void)close(end[0]);
    (void)close(ready[0]);
    (void)close(ready[1]);
    place_remove(&place);
}

/* --- permissions -------------------------------------------------------------------------- */

static void no_permission_is_said(void **state)
{
    char page[100];
    struct place place;

    (void)state;
    place_make(&place);
    semel_store_close(open_store(place.path));
    (void)snprintf(page, sizeof page, "%s-semel", place.path);
    assert_int_equal(chmod(place.directory, 0755), 0);
    assert_int_equal(chmod(place.path, 0444), 0);
    assert_int_equal(chmod(page, 0444), 0);
    be_nobody();
    refuse(place.path, SEMEL_STORE_READ_ONLY, "permission denied");
    be_oneself();
    assert_int_equal(chmod(page, 0666), 0);
    be_nobody();
    refuse(place.path, SEMEL_STORE_READ_ONLY, "no permission to write it");
    be_oneself();
    assert_int_equal(chmod(place.path, 0), 0);
    be_nobody();
    refuse(place.path, SEMEL_STORE_READ_ONLY, "permission denied");
    refuse_with(place.path, &look, SEMEL_STORE_READ_ONLY, "permission denied");
    be_oneself();
    /* A database that may be written, where no log may be made. */
    assert_int_equal(chmod(place.path, 0666), 0);
    assert_int_equal(chmod(place.directory, 0555), 0);
    be_nobody();
    refuse(place.path, SEMEL_STORE_READ_ONLY, place.path);
    be_oneself();
    assert_int_equal(chmod(place.directory, 0), 0);
    be_nobody();
    refuse(place.path, SEMEL_STORE_READ_ONLY, "permission denied");
    be_oneself();
    assert_int_equal(chmod(place.directory, 0755), 0);
    semel_store_close(open_store(place.path));
    place_remove(&place);
}

static void what_is_no_file_is_said(void **state)
{
    char path[120];
    struct place place;

    (void)state;
    place_make(&place);
    (void)snprintf(path, sizeof path, "%s/none/db", place.directory);
    refuse(path, SEMEL_STORE_FAILED, "no such file");
    assert_int_equal(mkdir(place.path, 0700), 0);
    refuse(place.path, SEMEL_STORE_FAILED, "unable to open");
    assert_int_equal(rmdir(place.path), 0);
    place_remove(&place);
}

/* --- damage ------------------------------------------------------------------------------- */

static off_t size_of(const char *path)
{
    struct stat is;

    assert_int_equal(stat(path, &is), 0);
    return is.st_size;
}

static void what_is_no_database_is_said(void **state)
{
    static const char words[] = "This is a text, and not a database at all. ";
    struct place place;
    char back[sizeof words] = "";
    int fd;

    (void)state;
    place_make(&place);
    fd = open(place.path, O_RDWR | O_CREAT, 0600);
    for (int i = 0; i < 200; i++)
        assert_int_equal(write(fd, words, sizeof words), sizeof words);
    refuse(place.path, SEMEL_STORE_CORRUPT, "file is not a database");
    refuse_with(place.path, &adopt, SEMEL_STORE_CORRUPT, "file is not a database");
    refuse_with(place.path, &look, SEMEL_STORE_CORRUPT, "file is not a database");
    assert_int_equal(pread(fd, back, sizeof back, 0), sizeof back);
    assert_string_equal(back, words);
    assert_int_equal(size_of(place.path), 200 * sizeof words);
    (void)close(fd);
    place_remove(&place);
}

static void what_could_not_be_opened_leaves_no_page(void **state)
{
    struct place place;
    int fd;

    (void)state;
    place_make(&place);
    assert_int_equal(mkdir(place.path, 0700), 0);
    refuse(place.path, SEMEL_STORE_FAILED, "unable to open");
    assert_false(exists(place.path, "-semel"));
    assert_int_equal(rmdir(place.path), 0);
    fd = open(place.path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(write(fd, "no database, whatever its name", 30), 30);
    (void)close(fd);
    refuse(place.path, SEMEL_STORE_CORRUPT, "not a database");
    assert_false(exists(place.path, "-semel"));
    /* One that was there stays, whatever becomes of this opening. */
    assert_int_equal(unlink(place.path), 0);
    semel_store_close(open_store(place.path));
    run_beside(place.path, "UPDATE semel_store SET schema = 2");
    refuse(place.path, SEMEL_STORE_NEWER, "version 2");
    assert_true(exists(place.path, "-semel"));
    place_remove(&place);
}

static int must_be_refused(void *path)
{
    struct semel_store *store = NULL;

    return semel_sqlite_open(&store, path, NULL, NULL, 0) == SEMEL_INVALID ? 0 : 1;
}

static void an_outbox_is_refused(void **state)
{
    struct semel_outbox *outbox;
    struct place place;

    (void)state;
    place_make(&place);
    assert_int_equal(semel_sqlite_outbox_open(&outbox, place.path, NULL, 0), SEMEL_OK);
    in_child(must_be_refused, place.path);
    semel_outbox_close(outbox);
    refuse(place.path, SEMEL_INVALID, "a client's outbox");
    refuse_with(place.path, &adopt, SEMEL_INVALID, "a client's outbox");
    refuse_with(place.path, &look, SEMEL_INVALID, "a client's outbox");
    assert_false(exists(place.path, "-semel"));
    assert_int_equal(number_beside(place.path, "SELECT count(*) FROM semel_outbox"), 1);
    place_remove(&place);
}

/* With keys on, what it refers to could not be forgotten. */
static void a_foreign_key_to_our_tables_is_refused(void **state)
{
    static const char *const tables[] = {
        "CREATE TABLE mine (s REFERENCES semel_session (no))",
        "CREATE TABLE mine (a, b, FOREIGN KEY (b) REFERENCES SEMEL_CALL ON DELETE CASCADE)",
    };
    static const struct semel_sqlite_options keys = { .foreign_keys = true };

    (void)state;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        struct place place;

        place_make(&place);
        run_beside(place.path, "CREATE TABLE other (x REFERENCES mine, y REFERENCES semelfactive)");
        semel_store_close(open_with(place.path, &keys));
        run_beside(place.path, tables[i]);
        refuse(place.path, SEMEL_INVALID, "the table mine has a foreign key that refers to ");
        refuse_with(place.path, &keys, SEMEL_INVALID, "; remove it");
        run_beside(place.path, "DROP TABLE mine");
        semel_store_close(open_with(place.path, &keys));
        place_remove(&place);
    }
}

#define RECORDS 40

static void add_whole_records(struct semel_store *store)
{
    uint8_t reply[1200], bytes[1500];

    for (int i = 0; i < RECORDS; i++) {
        struct sml_call_record record = { .session = 1,
                                          .xid = (uint64_t)i,
                                          .state = SML_CALL_ENDED,
                                          .method = { "m", 1 },
                                          .verdict = { .body = { reply, sizeof reply } } };
        uint64_t row = 0;

        memset(reply, i, sizeof reply);
        assert_true(sml_call_record_bytes(&record) <= sizeof bytes);
        sml_call_record_encode(&record, bytes);
        assert_int_equal(store->ops->begin(store), SML_STORED);
        assert_int_equal(store->ops->put(store, SML_TABLE_CALLS, &row,
                                         semel_bytes(bytes, sml_call_record_bytes(&record))),
                         SML_STORED);
        assert_int_equal(store->ops->commit(store), SML_STORED);
    }
}

static bool count_whole(uint64_t row, struct semel_bytes bytes, void *user)
{
    struct sml_call_record record;

    (void)row;
    *(int *)user += sml_call_record_decode(bytes, &record) == NULL;
    return true;
}

/* At any length shorter than it was it is refused, or it shows, or nothing of it is missing. */
static void a_truncated_database_is_said(void **state)
{
    struct place place;
    struct semel_store *store;
    char whole[100], text[600];
    off_t size;

    (void)state;
    place_make(&place);
    store = open_store(place.path);
    add_whole_records(store);
    semel_store_close(store);
    (void)snprintf(whole, sizeof whole, "%s/whole", place.directory);
    copy_file(place.path, "", whole, "");
    size = size_of(whole);
    for (off_t left = 0; left < size; left = left < 5 ? left + 1 : left + 1013) {
        enum semel_status status;
        int found = 0;

        copy_file(whole, "", place.path, "");
        assert_int_equal(truncate(place.path, left), 0);
        status = semel_sqlite_open(&store, place.path, NULL, text, sizeof text);
        if (status == SEMEL_OK) {
            status = store->ops->each(store, SML_TABLE_CALLS, count_whole, &found);
            semel_store_close(store);
            if (status == SEMEL_OK && found < RECORDS) /* damaged ones, as their checksums say */
                status = SEMEL_STORE_CORRUPT;
            if (found == RECORDS)
                continue;
        }
        /* SQLite takes a file of one byte for an empty one. */
        if (status != (left <= 1 ? SEMEL_STORE_REPLACED : SEMEL_STORE_CORRUPT))
            fail_msg("%d bytes left: %s %s", (int)left, semel_status_name(status), text);
    }
    copy_file(whole, "", place.path, "");
    semel_store_close(open_store(place.path));
    place_remove(&place);
}

static void another_version_is_said(void **state)
{
    struct place place;

    (void)state;
    place_make(&place);
    semel_store_close(open_store(place.path));
    run_beside(place.path, "UPDATE semel_store SET schema = 2");
    refuse(place.path, SEMEL_STORE_NEWER, "is of version 2; this library knows 1");
    refuse_with(place.path, &adopt, SEMEL_STORE_NEWER, "version 2");
    refuse_with(place.path, &look, SEMEL_STORE_NEWER, "version 2");
    run_beside(place.path, "UPDATE semel_store SET schema = 1");
    semel_store_close(open_store(place.path));
    place_remove(&place);
}

static void a_damaged_identity_is_said(void **state)
{
    static const char *const damage[] = {
        "UPDATE semel_store SET schema = 0",
        "UPDATE semel_store SET id = x'00'",
        "UPDATE semel_store SET id = zeroblob(17)",
        "UPDATE semel_store SET generation = 0",
        "UPDATE semel_store SET commits = -1",
        "UPDATE semel_store SET clock_ms = -5",
        "DELETE FROM semel_store",
    };
    struct place place;

    (void)state;
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        place_make(&place);
        semel_store_close(open_store(place.path));
        run_beside(place.path, damage[i]);
        refuse(place.path, SEMEL_STORE_CORRUPT, "identity is damaged");
        refuse_with(place.path, &look, SEMEL_STORE_CORRUPT, "identity is damaged");
        place_remove(&place);
    }
    place_make(&place);
    semel_store_close(open_store(place.path));
    run_beside(place.path, "DROP TABLE semel_call");
    refuse(place.path, SEMEL_STORE_CORRUPT, "semel_call");
    place_remove(&place);
}

/* --- exchanged ---------------------------------------------------------------------------- */

static void add_everything(struct semel_store *store)
{
    const uint8_t hash[32] = { 7 };

    add_call(store, "call");
    assert_int_equal(add_record(store, SML_TABLE_SESSIONS, "session"), SML_STORED);
    assert_int_equal(store->ops->begin(store), SML_STORED);
    assert_int_equal(store->ops->put_key(store, hash, 0, semel_bytes("key", 3)), SML_STORED);
    assert_int_equal(store->ops->commit(store), SML_STORED);
}

static void expect_everything(struct semel_store *store, bool sessions)
{
    expect_calls(store, sessions ? "call" : "");
    expect_records(store, SML_TABLE_SESSIONS, sessions ? "session" : "");
    expect_records(store, SML_TABLE_UNFINISHED_KEYS, "key");
}

static void another_store_in_its_place(void **state)
{
    struct place place, other;
    struct semel_store *store;
    uint8_t id[16];

    (void)state;
    place_make(&place);
    place_make(&other);
    semel_store_close(open_store(place.path));
    store = open_store(other.path);
    add_everything(store);
    memcpy(id, store->id, 16);
    semel_store_close(store);
    copy_database(other.path, place.path);
    refuse(place.path, SEMEL_STORE_REPLACED, "is not the store that was here");
    store = open_with(other.path, NULL);
    expect_everything(store, true);
    assert_int_equal(store->generation, 1);
    semel_store_close(store);
    store = open_with(place.path, &adopt);
    expect_everything(store, false);
    assert_true(store->generation >= 2);
    assert_memory_equal(store->id, id, 16);
    semel_store_close(store);
    store = open_store(place.path);
    assert_true(store->generation >= 2);
    semel_store_close(store);
    place_remove(&place);
    place_remove(&other);
}

static void no_database_in_its_place(void **state)
{
    struct place place;
    struct semel_store *store;
    uint8_t id[16];

    (void)state;
    place_make(&place);
    store = open_store(place.path);
    add_everything(store);
    memcpy(id, store->id, 16);
    semel_store_close(store);
    assert_int_equal(unlink(place.path), 0);
    refuse(place.path, SEMEL_STORE_REPLACED, "the store that was here is gone");
    assert_false(exists(place.path, ""));
    store = open_with(place.path, &adopt);
    assert_memory_not_equal(store->id, id, 16);
    expect_calls(store, "");
    expect_records(store, SML_TABLE_UNFINISHED_KEYS, "");
    add_call(store, "new");
    semel_store_close(store);
    store = open_store(place.path);
    expect_calls(store, "new");
    semel_store_close(store);
    place_remove(&place);
}

static void a_database_without_a_store_in_its_place(void **state)
{
    struct place place;
    char before[200];

    (void)state;
    place_make(&place);
    semel_store_close(open_store(place.path));
    assert_int_equal(unlink(place.path), 0);
    run_beside(place.path, "CREATE TABLE mine (x)");
    (void)snprintf(before, sizeof before, "cmp -s %s %s/before", place.path, place.directory);
    copy_file(place.path, "", place.directory, "/before");
    refuse(place.path, SEMEL_STORE_REPLACED, "the store that was here is gone");
    assert_int_equal(system(before), 0);
    semel_store_close(open_with(place.path, &adopt));
    semel_store_close(open_store(place.path));
    assert_int_equal(number_beside(place.path, "SELECT count(*) FROM mine"), 0);
    place_remove(&place);
}

/* --- rolled back -------------------------------------------------------------------------- */

static void expect_rolled_back(const char *path, unsigned is, unsigned was)
{
    char words[80];

    (void)snprintf(words, sizeof words,
                   "is an older copy of the store that was here (%u transactions of %u)", is, was);
    refuse(path, SEMEL_STORE_ROLLED_BACK, words);
}

static void an_older_copy_in_its_place(void **state)
{
    struct place place, copy;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    place_make(&copy);
    store = open_store(place.path);
    add_everything(store);
    semel_store_close(store);
    copy_database(place.path, copy.path);
    /* The same state again is fine. */
    copy_database(copy.path, place.path);
    store = open_store(place.path);
    add_call(store, "later");
    add_call(store, "later");
    semel_store_close(store);
    copy_database(copy.path, place.path);
    expect_rolled_back(place.path, 3, 5);
    expect_rolled_back(place.path, 3, 5);
    store = open_with(place.path, &adopt);
    expect_everything(store, false);
    assert_true(store->generation >= 2);
    semel_store_close(store);
    semel_store_close(open_store(place.path));
    place_remove(&place);
    place_remove(&copy);
}

/* Copied while it was open, with what stood in the log. */
static void an_older_copy_with_its_log(void **state)
{
    struct place place, copy;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    place_make(&copy);
    store = open_store(place.path);
    add_everything(store);
    copy_database(place.path, copy.path);
    assert_true(exists(copy.path, "-wal") && exists(copy.path, "-shm"));
    add_call(store, "later");
    semel_store_close(store);
    copy_database(copy.path, place.path);
    expect_rolled_back(place.path, 3, 4);
    /* The page believes the copy's own place. */
    store = open_store(copy.path);
    expect_everything(store, true);
    semel_store_close(store);
    copy_database(copy.path, place.path);
    store = open_with(place.path, &adopt);
    expect_everything(store, false);
    semel_store_close(store);
    place_remove(&place);
    place_remove(&copy);
}

static int write_and_die(void *user)
{
    struct semel_store *store = NULL;

    if (semel_sqlite_open(&store, user, NULL, NULL, 0) != SEMEL_OK ||
        add_record(store, SML_TABLE_CALLS, "in the log") != SML_STORED)
        return 1;
    (void)kill(getpid(), SIGKILL);
    return 1;
}

static void die_writing(struct place *place)
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0)
        _exit(write_and_die(place->path));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Somebody tidies up after a crash, and thinks that the log is rubbish. */
static void without_its_log(void **state)
{
    struct place place;
    struct semel_store *store;
    char log[100];

    (void)state;
    place_make(&place);
    semel_store_close(open_store(place.path));
    die_writing(&place);
    assert_true(exists(place.path, "-wal"));
    store = open_store(place.path);
    expect_calls(store, "in the log");
    semel_store_close(store);
    die_writing(&place);
    (void)snprintf(log, sizeof log, "%s-wal", place.path);
    assert_int_equal(unlink(log), 0);
    expect_rolled_back(place.path, 1, 2);
    store = open_with(place.path, &adopt);
    assert_true(store->generation >= 2);
    semel_store_close(store);
    place_remove(&place);
}

/* Clients that have seen a later generation must not take another state for it. */
static void an_adopted_copy_gets_a_generation_that_never_was(void **state)
{
    struct place place, copy;
    uint64_t seen;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    place_make(&copy);
    store = open_store(place.path);
    add_call(store, "one");
    semel_store_close(store);
    copy_database(place.path, copy.path);
    store = open_store(place.path);
    assert_int_equal(semel_store_renew(store), SEMEL_OK);
    assert_int_equal(semel_store_renew(store), SEMEL_OK);
    seen = store->generation;
    assert_true(seen >= (uint64_t)time(NULL) - 60);
    semel_store_close(store);
    copy_database(copy.path, place.path);
    refuse(place.path, SEMEL_STORE_ROLLED_BACK, "older copy");
    store = open_with(place.path, &adopt);
    assert_true(store->generation > seen);
    semel_store_close(store);
    store = open_store(place.path);
    assert_true(store->generation > seen);
    semel_store_close(store);
    place_remove(&place);
    place_remove(&copy);
}

/* There is nothing to adopt where everything fits. */
static void adopting_what_fits_changes_nothing(void **state)
{
    struct place place;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    store = open_with(place.path, &adopt);
    add_everything(store);
    semel_store_close(store);
    store = open_with(place.path, &adopt);
    expect_everything(store, true);
    assert_int_equal(store->generation, 1);
    semel_store_close(store);
    place_remove(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("a store is made and found again", a_store_is_made_and_found_again),
        TEST("arguments are checked", arguments_are_checked),
        TEST("settings are as promised", settings_are_as_promised),
        TEST("a setting that does not hold is said", a_setting_that_does_not_hold_is_said),
        TEST("beside an application's tables", beside_an_application_s_tables),
        TEST("readers see what is committed", readers_see_what_is_committed),
        TEST("looking makes and locks nothing", looking_makes_and_locks_nothing),
        TEST("one process holds it", one_process_holds_it),
        TEST("a lock that a fork still has is said", a_lock_that_a_fork_still_has_is_said),
        TEST("a database with two names is refused", a_database_with_two_names_is_refused),
        TEST("another writer is waited for", another_writer_is_waited_for),
        TEST("no permission is said", no_permission_is_said),
        TEST("what is no file is said", what_is_no_file_is_said),
        TEST("what is no database is said", what_is_no_database_is_said),
        TEST("what could not be opened leaves no page", what_could_not_be_opened_leaves_no_page),
        TEST("an outbox is refused", an_outbox_is_refused),
        TEST("a foreign key to our tables is refused", a_foreign_key_to_our_tables_is_refused),
        TEST("a truncated database is said", a_truncated_database_is_said),
        TEST("another version is said", another_version_is_said),
        TEST("a damaged identity is said", a_damaged_identity_is_said),
        TEST("another store in its place", another_store_in_its_place),
        TEST("no database in its place", no_database_in_its_place),
        TEST("a database without a store in its place", a_database_without_a_store_in_its_place),
        TEST("an older copy in its place", an_older_copy_in_its_place),
        TEST("an older copy with its log", an_older_copy_with_its_log),
        TEST("without its log", without_its_log),
        TEST("an adopted copy gets a generation that never was",
             an_adopted_copy_gets_a_generation_that_never_was),
        TEST("adopting what fits changes nothing", adopting_what_fits_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
