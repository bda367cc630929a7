/* SPDX-License-Identifier: MIT */
/* kit.h - what the tests of stores in SQLite share: a place for a database, and what others do to
 * it. Included once per test program. */
#ifndef TESTS_SQLITE_KIT_H
#define TESTS_SQLITE_KIT_H

#include "io/kit.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "sqlite/sqlite_internal.h"

#define UNUSED __attribute__((unused))
#define TEST(name, function)                                                                       \
    {                                                                                              \
        name, function, NULL, NULL, NULL                                                           \
    }

struct place {
    char directory[64];
    char path[80]; /* DIRECTORY/db */
};

/* In memory, where that can be had: how long a disk takes to sync is nothing to these tests. */
UNUSED static void place_make(struct place *place)
{
    if (access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 0);
    kit_directory(place->directory, sizeof place->directory);
    (void)snprintf(place->path, sizeof place->path, "%s/db", place->directory);
}

/* Everything in the directory, which holds no others. */
UNUSED static void place_empty(const struct place *place)
{
    DIR *directory = opendir(place->directory);
    struct dirent *entry;
    char path[400];

    assert_non_null(directory);
    while ((entry = readdir(directory)) != NULL) {
        (void)snprintf(path, sizeof path, "%s/%s", place->directory, entry->d_name);
        (void)unlink(path);
    }
    (void)closedir(directory);
}

UNUSED static void place_remove(const struct place *place)
{
    place_empty(place);
    assert_int_equal(rmdir(place->directory), 0);
}

/* --- stores ------------------------------------------------------------------------------- */

UNUSED static struct semel_store *open_with(const char *path,
                                            const struct semel_sqlite_options *options)
{
    struct semel_store *store = NULL;
    char text[600];

    if (semel_sqlite_open(&store, path, options, text, sizeof text) != SEMEL_OK)
        fail_msg("%s", text);
    assert_non_null(store);
    assert_string_equal(text, "");
    return store;
}

UNUSED static struct semel_store *open_store(const char *path)
{
    return open_with(path, NULL);
}

/* It is refused with this status, in words that have these and name the path; nothing stays
 * open. */
UNUSED static void refuse_with(const char *path, const struct semel_sqlite_options *options,
                               enum semel_status status, const char *words)
{
    struct semel_store *store = NULL;
    int before = kit_descriptors();
    char text[600] = "untouched";
    enum semel_status is = semel_sqlite_open(&store, path, options, text, sizeof text);

    if (is != status || strstr(text, words) == NULL || strstr(text, path) == NULL)
        fail_msg("%s, wanted %s: %s", semel_status_name(is), semel_status_name(status), text);
    assert_null(store);
    assert_int_equal(kit_descriptors(), before);
}

UNUSED static void refuse(const char *path, enum semel_status status, const char *words)
{
    refuse_with(path, NULL, status, words);
}

UNUSED static enum sml_stored add_record(struct semel_store *store, enum sml_store_table table,
                                         const char *text)
{
    uint64_t row = 0;
    enum sml_stored stored = store->ops->begin(store);

    if (stored == SML_STORED)
        stored = store->ops->put(store, table, &row, semel_bytes_text(text));
    return stored == SML_STORED ? store->ops->commit(store) : stored;
}

UNUSED static void add_call(struct semel_store *store, const char *text)
{
    if (add_record(store, SML_TABLE_CALLS, text) != SML_STORED)
        fail_msg("%s", semel_store_error(store));
}

struct records {
    char text[4000];
};

UNUSED static bool add_to_records(uint64_t row, struct semel_bytes record, void *user)
{
    struct records *records = user;
    size_t at = strlen(records->text);

    (void)row;
    (void)snprintf(records->text + at, sizeof records->text - at, "%s%.*s", at > 0 ? " " : "",
                   (int)record.size, (const char *)record.data);
    return true;
}

UNUSED static void expect_records(struct semel_store *store, enum sml_store_table table,
                                  const char *text)
{
    struct records records = { "" };

    assert_int_equal(store->ops->each(store, table, add_to_records, &records), SEMEL_OK);
    assert_string_equal(records.text, text);
}

UNUSED static void expect_calls(struct semel_store *store, const char *text)
{
    expect_records(store, SML_TABLE_CALLS, text);
}

/* --- what others do to the files ----------------------------------------------------------- */

UNUSED static sqlite3 *open_beside(const char *path)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    return db;
}

UNUSED static void run_on(sqlite3 *db, const char *sql)
{
    char *error = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
        fail_msg("%s: %s", sql, error);
}

/* On a connection of its own. */
UNUSED static void run_beside(const char *path, const char *sql)
{
    sqlite3 *db = open_beside(path);

    run_on(db, sql);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

UNUSED static sqlite3_int64 number_beside(const char *path, const char *sql)
{
    sqlite3 *db = open_beside(path);
    sqlite3_stmt *statement;
    sqlite3_int64 number;

    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    number = sqlite3_column_int64(statement, 0);
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return number;
}

UNUSED static bool exists(const char *path, const char *end)
{
    char all[200];

    (void)snprintf(all, sizeof all, "%s%s", path, end);
    return access(all, F_OK) == 0;
}

/* The file FROM becomes the file TO, byte by byte; without a FROM there is no TO. */
UNUSED static void copy_file(const char *from, const char *from_end, const char *to,
                             const char *to_end)
{
    char a[200], b[200], bytes[65536];
    int in, out;
    ssize_t n;

    (void)snprintf(a, sizeof a, "%s%s", from, from_end);
    (void)snprintf(b, sizeof b, "%s%s", to, to_end);
    (void)unlink(b);
    in = open(a, O_RDONLY);
    if (in < 0)
        return;
    out = open(b, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(out >= 0);
    while ((n = read(in, bytes, sizeof bytes)) > 0)
        assert_int_equal(write(out, bytes, (size_t)n), n);
    assert_int_equal(n, 0);
    (void)close(in);
    (void)close(out);
}

/* The database with its log; not the page. */
UNUSED static void copy_database(const char *from, const char *to)
{
    copy_file(from, "", to, "");
    copy_file(from, "-wal", to, "-wal");
    copy_file(from, "-shm", to, "-shm");
}

/* A child runs this and must end with 0. */
UNUSED static void in_child(int (*what)(void *user), void *user)
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0)
        _exit(what(user));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* --- disks that are full ------------------------------------------------------------------ */

/* No file of this process grows beyond `bytes`; 0: as it was. */
UNUSED static void limit_files(uint64_t bytes)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes ? bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

UNUSED static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        (void)close(fd);
    return good;
}

/* Mounts of this process alone, which anybody may make where he is root of a namespace of users. */
UNUSED static bool have_own_mounts(void)
{
    char users[40], groups[40];

    if (getuid() == 0)
        return unshare(CLONE_NEWNS) == 0;
    (void)snprintf(users, sizeof users, "0 %u 1", (unsigned)getuid());
    (void)snprintf(groups, sizeof groups, "0 %u 1", (unsigned)getgid());
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && write_text("/proc/self/uid_map", users) &&
           write_text("/proc/self/setgroups", "deny") && write_text("/proc/self/gid_map", groups);
}

/* A file system so small that it is soon full. */
UNUSED static bool mount_small(const struct place *place)
{
    if (!have_own_mounts() || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("small", place->directory, "tmpfs", 0, "size=600k") != 0) {
        print_message("left out: no file system can be mounted here\n");
        return false;
    }
    return true;
}

UNUSED static void use_up(const struct place *place, size_t leave)
{
    char path[100], bytes[4096] = { 1 };
    struct stat is;
    int fd;

    (void)snprintf(path, sizeof path, "%s/filler", place->directory);
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    assert_true(fd >= 0);
    while (write(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes)
        continue;
    assert_int_equal(fstat(fd, &is), 0);
    assert_int_equal(ftruncate(fd, is.st_size > (off_t)leave ? is.st_size - (off_t)leave : 0), 0);
    (void)close(fd);
}

/* --- rights --------------------------------------------------------------------------------- */

/* Become somebody without rights, and oneself again. A user who has none anyway stays the same. */
UNUSED static void be_nobody(void)
{
    if (getuid() == 0)
        assert_int_equal(seteuid(65534), 0);
}

UNUSED static void be_oneself(void)
{
    if (getuid() == 0)
        assert_int_equal(seteuid(0), 0);
}

#endif
