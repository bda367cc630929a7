/* SPDX-License-Identifier: MIT */
#include "kit.h"

#include <signal.h>

#include "base/le.h"

/* Where things stand in the page. */
enum { MAGIC = 8, BOOT = 32, GENERATION = 48, COMMITS = 56 };

static struct sml_mark make_mark(void)
{
    struct sml_mark mark = { .session = { { 9, 8, 7 } },
                             .crashes = 2,
                             .xid = UINT64_C(0x123456789abcdef0),
                             .fingerprint = { 11, UINT64_MAX },
                             .method_bytes = SEMEL_METHOD_BYTES,
                             .key_bytes = SEMEL_KEY_BYTES };

    memset(mark.method, 'm', SEMEL_METHOD_BYTES);
    memset(mark.key, 'k', SEMEL_KEY_BYTES);
    return mark;
}

static void expect_mark(struct semel_store *store)
{
    struct sml_mark mark = make_mark();
    const struct sml_mark *is = &store->suspect;

    assert_true(store->has_suspect);
    assert_int_equal(is->xid, mark.xid);
    assert_memory_equal(is->session.bytes, mark.session.bytes, 16);
    assert_true(is->fingerprint.a == mark.fingerprint.a && is->fingerprint.b == mark.fingerprint.b);
    assert_int_equal(is->method_bytes, SEMEL_METHOD_BYTES);
    assert_int_equal(is->key_bytes, SEMEL_KEY_BYTES);
    assert_int_equal(is->crashes, mark.crashes);
    assert_string_equal(is->method, mark.method);
    assert_string_equal(is->key, mark.key);
}

enum how { BY_EXIT, BY_SIGNAL, AFTER_ITS_END };

/* A process opens the store, begins a handler, and ends so. */
static void die_in_a_handler(const char *path, enum how how)
{
    struct sml_mark mark = make_mark();
    struct semel_store *store = NULL;
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        if (semel_sqlite_open(&store, path, NULL, NULL, 0) != SEMEL_OK)
            _exit(1);
        store->ops->mark(store, &mark);
        if (how == AFTER_ITS_END)
            store->ops->mark(store, NULL);
        if (how == BY_SIGNAL)
            (void)kill(getpid(), SIGKILL);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (how == BY_SIGNAL)
        assert_true(WIFSIGNALED(status));
    else
        assert_int_equal(status, 0);
}

static void a_handler_that_ended_its_process_is_found(void **state)
{
    struct place place;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    for (enum how how = BY_EXIT; how <= BY_SIGNAL; how++) {
        die_in_a_handler(place.path, how);
        store = open_store(place.path);
        expect_mark(store);
        semel_store_close(store);
        store = open_store(place.path);
        expect_mark(store); /* nobody has counted it yet */
        store->ops->mark(store, NULL);
        semel_store_close(store);
        store = open_store(place.path);
        assert_false(store->has_suspect);
        semel_store_close(store);
    }
    die_in_a_handler(place.path, AFTER_ITS_END);
    store = open_store(place.path);
    assert_false(store->has_suspect);
    semel_store_close(store);
    place_remove(&place);
}

/* A later, shorter mark shows nothing of an earlier one. */
static void marks_do_not_mix(void **state)
{
    struct sml_mark shorter = { .xid = 2, .method_bytes = 1, .method = "a" };
    struct sml_mark longer = make_mark();
    struct place place, copy;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    place_make(&copy);
    store = open_store(place.path);
    store->ops->mark(store, &longer);
    store->ops->mark(store, NULL);
    store->ops->mark(store, &shorter);
    copy_database(place.path, copy.path);
    copy_file(place.path, "-semel", copy.path, "-semel");
    semel_store_close(store);
    store = open_store(copy.path);
    assert_true(store->has_suspect);
    assert_string_equal(store->suspect.method, "a");
    assert_string_equal(store->suspect.key, "");
    semel_store_close(store);
    place_remove(&place);
    place_remove(&copy);
}

static void read_page(const char *path, uint8_t page[SML_LOCKPAGE_BYTES])
{
    char name[100];
    int fd;

    (void)snprintf(name, sizeof name, "%s-semel", path);
    fd = open(name, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(read(fd, page, SML_LOCKPAGE_BYTES), SML_LOCKPAGE_BYTES);
    (void)close(fd);
}

static void write_page(const char *path, int at, const void *bytes, size_t size)
{
    char name[100];
    int fd;

    (void)snprintf(name, sizeof name, "%s-semel", path);
    fd = open(name, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, size, at), (ssize_t)size);
    (void)close(fd);
}

/* The power may have failed since: whatever ran did not end the machine's last run. */
static void a_mark_of_another_boot_is_ignored(void **state)
{
    const uint8_t other[16] = { 1, 2, 3 }, none[16] = { 0 };
    uint8_t page[SML_LOCKPAGE_BYTES], boot[16];
    struct place place;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    for (int i = 0; i < 2; i++) {
        die_in_a_handler(place.path, BY_EXIT);
        write_page(place.path, BOOT, i ? none : other, 16);
        store = open_store(place.path);
        assert_false(store->has_suspect);
        semel_store_close(store);
    }
    read_page(place.path, page);
    sml_boot_id(boot);
    assert_memory_equal(page + BOOT, boot, 16);
    place_remove(&place);
}

static void commits_are_counted(void **state)
{
    uint8_t page[SML_LOCKPAGE_BYTES];
    struct place place;
    struct semel_store *store;
    uint64_t generation;

    (void)state;
    place_make(&place);
    store = open_store(place.path);
    for (unsigned i = 0; i < 5; i++) {
        read_page(place.path, page);
        assert_int_equal(sml_load64(page), getpid());
        assert_memory_equal(page + MAGIC, "SEMELrun", 8);
        assert_int_equal(sml_load64(page + COMMITS), i);
        assert_int_equal(sml_load64(page + GENERATION), 1);
        assert_int_equal(number_beside(place.path, "SELECT commits FROM semel_store"), i);
        add_call(store, "x");
    }
    assert_int_equal(store->ops->begin(store), SML_STORED);
    store->ops->rollback(store);
    read_page(place.path, page);
    assert_int_equal(sml_load64(page + COMMITS), 5);
    assert_int_equal(semel_store_renew(store), SEMEL_OK);
    generation = store->generation;
    assert_true(generation > 1);
    semel_store_close(store);
    read_page(place.path, page);
    assert_int_equal(sml_load64(page + COMMITS), 6);
    assert_int_equal(sml_load64(page + GENERATION), generation);
    place_remove(&place);
}

/* The power fails: the page is as some earlier moment left it. */
static void a_page_that_is_behind_is_fine(void **state)
{
    struct place place;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    store = open_store(place.path);
    add_call(store, "one");
    copy_file(place.path, "-semel", place.directory, "/early");
    add_call(store, "two");
    semel_store_close(store);
    copy_file(place.directory, "/early", place.path, "-semel");
    store = open_store(place.path);
    expect_calls(store, "one two");
    semel_store_close(store);
    place_remove(&place);
}

/* It was never there, was removed, is empty, or was never written. */
static void no_page_is_fine(void **state)
{
    uint8_t page[SML_LOCKPAGE_BYTES];
    char name[100];
    struct place place;

    (void)state;
    place_make(&place);
    (void)snprintf(name, sizeof name, "%s-semel", place.path);
    for (int i = 0; i < 4; i++) {
        struct semel_store *store = open_store(place.path);

        assert_false(store->has_suspect);
        add_call(store, "x");
        semel_store_close(store);
        if (i == 0)
            assert_int_equal(unlink(name), 0);
        if (i == 1)
            assert_int_equal(truncate(name, 0), 0);
        if (i == 2) {
            assert_int_equal(truncate(name, 0), 0);
            assert_int_equal(truncate(name, SML_LOCKPAGE_BYTES), 0);
        }
    }
    read_page(place.path, page);
    assert_int_equal(sml_load64(page + COMMITS), 4);
    place_remove(&place);
}

static void rubbish_in_the_page_is_nobody_s(void **state)
{
    uint8_t rubbish[SML_LOCKPAGE_BYTES];
    struct place place;
    struct semel_store *store;

    (void)state;
    place_make(&place);
    semel_store_close(open_store(place.path));
    memset(rubbish, 0xff, sizeof rubbish);
    write_page(place.path, 0, rubbish, sizeof rubbish);
    store = open_store(place.path);
    assert_false(store->has_suspect);
    semel_store_close(store);
    place_remove(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("a handler that ended its process is found",
             a_handler_that_ended_its_process_is_found),
        TEST("marks do not mix", marks_do_not_mix),
        TEST("a mark of another boot is ignored", a_mark_of_another_boot_is_ignored),
        TEST("commits are counted", commits_are_counted),
        TEST("a page that is behind is fine", a_page_that_is_behind_is_fine),
        TEST("no page is fine", no_page_is_fine),
        TEST("rubbish in the page is nobody's", rubbish_in_the_page_is_nobody_s),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
