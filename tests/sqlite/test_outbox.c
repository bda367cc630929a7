/* SPDX-License-Identifier: MIT */
/* An outbox in a file: what was committed is there, whatever ended the process; and a file that is
 * none is refused in words. */
#include "kit.h"

#include <signal.h>

#include "store/outbox.h"

static struct semel_outbox *open_outbox(const char *path)
{
    struct semel_outbox *outbox = NULL;
    char text[600];

    if (semel_sqlite_outbox_open(&outbox, path, text, sizeof text) != SEMEL_OK)
        fail_msg("%s", text);
    assert_string_equal(text, "");
    return outbox;
}

static void refuse_outbox(const char *path, enum semel_status status, const char *words)
{
    struct semel_outbox *outbox = NULL;
    int before = kit_descriptors();
    char text[600] = "untouched";
    enum semel_status is = semel_sqlite_outbox_open(&outbox, path, text, sizeof text);

    if (is != status || strstr(text, words) == NULL || strstr(text, path) == NULL)
        fail_msg("%s, wanted %s: %s", semel_status_name(is), semel_status_name(status), text);
    assert_null(outbox);
    assert_int_equal(kit_descriptors(), before);
}

struct walk {
    char text[400];
    int stop_after;
};

/* "ID=CALL" or "ID=CALL>RESULT". */
static bool walk_one(uint64_t id, struct semel_bytes call, struct semel_bytes result, void *user)
{
    struct walk *walk = user;
    size_t at = strlen(walk->text);

    (void)snprintf(walk->text + at, sizeof walk->text - at, "%s%d=%.*s%s%.*s", at > 0 ? " " : "",
                   (int)id, (int)call.size, (const char *)call.data, result.data ? ">" : "",
                   (int)result.size, result.data ? (const char *)result.data : "");
    return --walk->stop_after != 0;
}

static void expect(struct semel_outbox *outbox, const char *text)
{
    struct walk walk = { "", 0 };

    assert_int_equal(outbox->ops->each(outbox, walk_one, &walk), SEMEL_OK);
    assert_string_equal(walk.text, text);
}

static void expect_identity(struct semel_outbox *outbox, const char *text)
{
    uint8_t bytes[40];
    size_t size = 99;

    assert_int_equal(outbox->ops->load_identity(outbox, bytes, sizeof bytes, &size), SEMEL_OK);
    assert_int_equal(size, strlen(text));
    assert_memory_equal(bytes, text, size);
}

static uint64_t add(struct semel_outbox *outbox, const char *text)
{
    uint64_t id = 0;

    if (outbox->ops->begin(outbox) != SML_STORED ||
        outbox->ops->add_call(outbox, semel_bytes_text(text), &id) != SML_STORED ||
        outbox->ops->commit(outbox) != SML_STORED)
        fail_msg("%s", outbox->text);
    return id;
}

/* --- what works --------------------------------------------------------------------------- */

static void what_is_committed_is_there(void **state)
{
    struct place place;
    struct semel_outbox *outbox;
    const struct sml_outbox_ops *ops;
    uint64_t one, two;

    (void)state;
    place_make(&place);
    outbox = open_outbox(place.path);
    ops = outbox->ops;
    expect(outbox, "");
    expect_identity(outbox, "");
    one = add(outbox, "one");
    two = add(outbox, "two");
    assert_int_equal(ops->begin(outbox), SML_STORED);
    assert_int_equal(ops->put_result(outbox, one, semel_bytes_text("r")), SML_STORED);
    assert_int_equal(ops->put_identity(outbox, semel_bytes_text("me")), SML_STORED);
    assert_int_equal(ops->commit(outbox), SML_STORED);
    assert_int_equal(ops->begin(outbox), SML_STORED);
    assert_int_equal(ops->forget(outbox, two), SML_STORED);
    ops->rollback(outbox);
    ops->rollback(outbox); /* there is none any more */
    semel_outbox_close(outbox);
    outbox = open_outbox(place.path);
    expect(outbox, "1=one>r 2=two");
    expect_identity(outbox, "me");
    assert_int_equal(ops->begin(outbox), SML_STORED);
    assert_int_equal(ops->forget(outbox, one), SML_STORED);
    assert_int_equal(ops->forget(outbox, two), SML_STORED);
    assert_int_equal(ops->put_identity(outbox, semel_bytes_text("me again")), SML_STORED);
    assert_int_equal(ops->commit(outbox), SML_STORED);
    semel_outbox_close(outbox);
    outbox = open_outbox(place.path);
    expect(outbox, "");
    expect_identity(outbox, "me again");
    assert_int_equal(add(outbox, "three"), 3); /* no number comes twice */
    semel_outbox_close(outbox);
    place_remove(&place);
}

static void a_walk_can_be_ended(void **state)
{
    struct place place;
    struct semel_outbox *outbox;
    struct walk walk = { "", 2 };

    (void)state;
    place_make(&place);
    outbox = open_outbox(place.path);
    for (int i = 0; i < 4; i++)
        add(outbox, "x");
    assert_int_equal(outbox->ops->each(outbox, walk_one, &walk), SEMEL_OK);
    assert_string_equal(walk.text, "1=x 2=x");
    semel_outbox_close(outbox);
    place_remove(&place);
}

static int commit_and_die(void *path)
{
    struct semel_outbox *outbox = NULL;
    uint64_t id;

    if (semel_sqlite_outbox_open(&outbox, path, NULL, 0) != SEMEL_OK)
        return 1;
    add(outbox, "committed");
    if (outbox->ops->begin(outbox) != SML_STORED ||
        outbox->ops->add_call(outbox, semel_bytes_text("lost"), &id) != SML_STORED)
        return 2;
    return 0; /* by _exit: nothing is closed */
}

static void a_process_that_dies_leaves_what_it_committed(void **state)
{
    struct place place;
    struct semel_outbox *outbox;

    (void)state;
    place_make(&place);
    in_child(commit_and_die, place.path);
    outbox = open_outbox(place.path);
    expect(outbox, "1=committed");
    semel_outbox_close(outbox);
    place_remove(&place);
}

static void settings_are_as_promised(void **state)
{
    struct place place;
    struct semel_outbox *outbox;
    sqlite3 *db;
    char is[40];

    (void)state;
    place_make(&place);
    outbox = open_outbox(place.path);
    db = open_beside(place.path);
    assert_true(sml_sqlite_ask(db, "PRAGMA journal_mode", is, sizeof is));
    assert_string_equal(is, "wal");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    semel_outbox_close(outbox);
    place_remove(&place);
}

/* --- files that are refused ----------------------------------------------------------------- */

static void arguments_are_checked(void **state)
{
    struct semel_outbox *outbox = NULL;
    char text[8] = "before";

    (void)state;
    assert_int_equal(semel_sqlite_outbox_open(NULL, "x", NULL, 0), SEMEL_INVALID);
    assert_int_equal(semel_sqlite_outbox_open(&outbox, NULL, text, sizeof text), SEMEL_INVALID);
    assert_string_equal(text, "");
    assert_int_equal(semel_sqlite_outbox_open(&outbox, "", NULL, 0), SEMEL_INVALID);
    assert_null(outbox);
}

static int try_to_open(void *path)
{
    struct semel_outbox *outbox = NULL;

    return semel_sqlite_outbox_open(&outbox, path, NULL, 0) == SEMEL_STORE_LOCKED ? 0 : 1;
}

static void it_is_one_process_s(void **state)
{
    struct place place;
    struct semel_outbox *outbox;
    char words[60];

    (void)state;
    place_make(&place);
    outbox = open_outbox(place.path);
    (void)snprintf(words, sizeof words, "in use by process %d", (int)getpid());
    refuse_outbox(place.path, SEMEL_STORE_LOCKED, words);
    in_child(try_to_open, place.path);
    semel_outbox_close(outbox);
    outbox = open_outbox(place.path);
    semel_outbox_close(outbox);
    place_remove(&place);
}

/* By whatever name: a link to it is not another outbox. */
static void a_link_does_not_get_around_the_lock(void **state)
{
    struct place place;
    struct semel_outbox *outbox;
    char link_path[200];

    (void)state;
    place_make(&place);
    (void)snprintf(link_path, sizeof link_path, "%s-link", place.path);
    assert_int_equal(symlink(place.path, link_path), 0);
    outbox = open_outbox(place.path);
    in_child(try_to_open, link_path);
    semel_outbox_close(outbox);
    outbox = open_outbox(link_path);
    in_child(try_to_open, place.path);
    semel_outbox_close(outbox);
    assert_int_equal(unlink(link_path), 0);
    assert_int_equal(link(place.path, link_path), 0);
    refuse_outbox(link_path, SEMEL_INVALID, "hard links");
    place_remove(&place);
}

static void other_files_are_refused(void **state)
{
    struct place place;
    char path[200];

    (void)state;
    place_make(&place);
    run_beside(place.path, "CREATE TABLE t (x)");
    /* Not at the beginning, which may be anything: a page's header. */
    semel_outbox_close(open_outbox(place.path));
    run_beside(place.path, "UPDATE semel_outbox SET schema = 2");
    refuse_outbox(place.path, SEMEL_STORE_NEWER, "later version");
    run_beside(place.path, "UPDATE semel_outbox SET schema = 1");
    semel_outbox_close(open_outbox(place.path));
    place_empty(&place);
    int fd = open(place.path, O_WRONLY | O_CREAT, 0600);
    char rubbish[4096];

    memset(rubbish, 'x', sizeof rubbish);
    assert_int_equal(write(fd, rubbish, sizeof rubbish), sizeof rubbish);
    (void)close(fd);
    refuse_outbox(place.path, SEMEL_STORE_CORRUPT, "not a database");
    (void)snprintf(path, sizeof path, "%s/none/db", place.directory);
    refuse_outbox(path, SEMEL_STORE_FAILED, "no such file");
    place_remove(&place);
}

static void a_file_without_permission_is_refused(void **state)
{
    struct place place;

    (void)state;
    place_make(&place);
    semel_outbox_close(open_outbox(place.path));
    assert_int_equal(chmod(place.path, 0444), 0);
    assert_int_equal(chmod(place.directory, 0555), 0);
    be_nobody();
    refuse_outbox(place.path, SEMEL_STORE_READ_ONLY, "");
    be_oneself();
    assert_int_equal(chmod(place.directory, 0755), 0);
    place_remove(&place);
}

static int must_be_refused(void *path)
{
    struct semel_outbox *outbox = NULL;

    return semel_sqlite_outbox_open(&outbox, path, NULL, 0) == SEMEL_INVALID ? 0 : 1;
}

/* It is nobody's to write into, whether its server runs or not. */
static void a_server_s_store_is_refused(void **state)
{
    struct place place;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    store = open_store(place.path);
    in_child(must_be_refused, place.path);
    add_call(store, "one");
    semel_store_close(store);
    refuse_outbox(place.path, SEMEL_INVALID, "a server's store");
    assert_false(exists(place.path, "-lock"));
    store = open_store(place.path);
    expect_calls(store, "one");
    semel_store_close(store);
    place_remove(&place);
}

static void a_file_that_is_refused_leaves_no_lock(void **state)
{
    struct place place;
    int fd;

    (void)state;
    place_make(&place);
    fd = open(place.path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "no database, whatever its name", 30), 30);
    (void)close(fd);
    refuse_outbox(place.path, SEMEL_STORE_CORRUPT, "not a database");
    assert_false(exists(place.path, "-lock"));
    assert_int_equal(unlink(place.path), 0);
    semel_outbox_close(open_outbox(place.path));
    assert_true(exists(place.path, "-lock"));
    place_remove(&place);
}

/* It says so whatever it is that finds no room: the lock, the file, its log, the log's index. */
static void a_full_disk_is_said(void **state)
{
    struct semel_outbox *outbox;
    struct place place;
    char filler[100], text[600];
    int refused = 0;

    (void)state;
    place_make(&place);
    (void)snprintf(filler, sizeof filler, "%s/filler", place.directory);
    if (!mount_small(&place)) {
        place_remove(&place);
        skip();
    }
    for (size_t left = 0; left < 200000; left += 4096) {
        enum semel_status status;

        use_up(&place, left);
        status = semel_sqlite_outbox_open(&outbox, place.path, text, sizeof text);
        if (status == SEMEL_OK)
            semel_outbox_close(outbox);
        else if (status != SEMEL_STORE_FULL)
            fail_msg("%d bytes left: %s: %s", (int)left, semel_status_name(status), text);
        refused += status == SEMEL_STORE_FULL;
        place_empty(&place);
    }
    assert_true(refused > 3 && refused < 40);
    assert_int_equal(umount(place.directory), 0);
    place_remove(&place);
}

static int hold_and_fork(const char *path, int ready)
{
    struct semel_outbox *outbox = open_outbox(path);
    pid_t child = fork();

    (void)alarm(60); /* should the test fail */
    if (child == 0)
        for (;;)
            (void)pause();
    if (write(ready, &child, sizeof child) != (ssize_t)sizeof child)
        return 1;
    for (;;)
        (void)pause();
    semel_outbox_close(outbox);
}

static void a_lock_that_a_fork_still_has_is_said(void **state)
{
    struct place place;
    pid_t parent, child;
    int ready[2], status;

    (void)state;
    place_make(&place);
    assert_int_equal(pipe(ready), 0);
    parent = fork();
    if (parent == 0)
        _exit(hold_and_fork(place.path, ready[1]));
    assert_int_equal(read(ready[0], &child, sizeof child), sizeof child);
    refuse_outbox(place.path, SEMEL_STORE_LOCKED, "in use by process");
    assert_int_equal(kill(parent, SIGKILL), 0);
    assert_int_equal(waitpid(parent, &status, 0), parent);
    refuse_outbox(place.path, SEMEL_STORE_LOCKED, "is dead, but a process that it forked");
    assert_int_equal(kill(child, SIGKILL), 0);
    (void)close(ready[0]);
    (void)close(ready[1]);
    place_remove(&place);
}

static void a_damaged_identity_is_said(void **state)
{
    struct place place;
    struct semel_outbox *outbox;
    uint8_t bytes[8];
    size_t size;

    (void)state;
    place_make(&place);
    outbox = open_outbox(place.path);
    assert_int_equal(outbox->ops->begin(outbox), SML_STORED);
    assert_int_equal(outbox->ops->put_identity(outbox, semel_bytes_text("nine char")), SML_STORED);
    assert_int_equal(outbox->ops->commit(outbox), SML_STORED);
    assert_int_equal(outbox->ops->load_identity(outbox, bytes, sizeof bytes, &size),
                     SEMEL_STORE_CORRUPT);
    semel_outbox_close(outbox);
    place_remove(&place);
}

/* --- files that take nothing ------------------------------------------------------------------ */

static void what_does_not_fit_is_not_stored(void **state)
{
    struct place place;
    struct semel_outbox *outbox;
    char *large = calloc(1, 1 << 20);
    enum sml_stored stored;
    uint64_t id;

    (void)state;
    place_make(&place);
    outbox = open_outbox(place.path);
    add(outbox, "before");
    (void)signal(SIGXFSZ, SIG_IGN);
    limit_files(200000);
    assert_int_equal(outbox->ops->begin(outbox), SML_STORED);
    stored = outbox->ops->add_call(outbox, semel_bytes(large, 1 << 20), &id);
    if (stored == SML_STORED)
        stored = outbox->ops->commit(outbox);
    limit_files(0);
    assert_int_not_equal(stored, SML_STORED);
    assert_true(outbox->text[0] != '\0');
    outbox->ops->rollback(outbox);
    semel_outbox_close(outbox);
    outbox = open_outbox(place.path);
    expect(outbox, "1=before");
    add(outbox, "after");
    expect(outbox, "1=before 2=after");
    semel_outbox_close(outbox);
    free(large);
    place_remove(&place);
}

/* What SQLite cannot bind is an error, and not an empty record. */
static void what_is_too_large_is_not_stored(void **state)
{
    struct place place;
    struct semel_outbox *outbox;
    static const uint8_t byte;
    uint64_t id, one;

    (void)state;
    place_make(&place);
    outbox = open_outbox(place.path);
    one = add(outbox, "one");
    assert_int_equal(outbox->ops->begin(outbox), SML_STORED);
    assert_int_equal(outbox->ops->add_call(outbox, semel_bytes(&byte, (size_t)1 << 40), &id),
                     SML_NOT_STORED);
    assert_int_equal(outbox->ops->begin(outbox), SML_STORED);
    assert_int_equal(outbox->ops->put_result(outbox, one, semel_bytes(&byte, (size_t)1 << 40)),
                     SML_NOT_STORED);
    assert_int_equal(outbox->ops->begin(outbox), SML_STORED);
    assert_int_equal(outbox->ops->put_identity(outbox, semel_bytes(&byte, (size_t)1 << 40)),
                     SML_NOT_STORED);
    assert_true(outbox->text[0] != '\0');
    expect(outbox, "1=one");
    semel_outbox_close(outbox);
    place_remove(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("what is committed is there", what_is_committed_is_there),
        TEST("a walk can be ended", a_walk_can_be_ended),
        TEST("a process that dies leaves what it committed",
             a_process_that_dies_leaves_what_it_committed),
        TEST("settings are as promised", settings_are_as_promised),
        TEST("arguments are checked", arguments_are_checked),
        TEST("it is one process's", it_is_one_process_s),
        TEST("a link does not get around the lock", a_link_does_not_get_around_the_lock),
        TEST("other files are refused", other_files_are_refused),
        TEST("a file without permission is refused", a_file_without_permission_is_refused),
        TEST("a server's store is refused", a_server_s_store_is_refused),
        TEST("a file that is refused leaves no lock", a_file_that_is_refused_leaves_no_lock),
        TEST("a full disk is said", a_full_disk_is_said),
        TEST("a lock that a fork still has is said", a_lock_that_a_fork_still_has_is_said),
        TEST("a damaged identity is said", a_damaged_identity_is_said),
        TEST("what does not fit is not stored", what_does_not_fit_is_not_stored),
        TEST("what is too large is not stored", what_is_too_large_is_not_stored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
