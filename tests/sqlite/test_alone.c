/* SPDX-License-Identifier: MIT */
/* An older file in front of a later log is found out before it is written. */
#include "kit.h"

static const struct semel_sqlite_options adopt = { .adopt = true };

static void add_key(struct semel_store *store, uint8_t first)
{
    const uint8_t hash[32] = { first };
    char text[2] = { (char)('0' + first), 0 };

    assert_int_equal(store->ops->begin(store), SML_STORED);
    assert_int_equal(store->ops->put_key(store, hash, 0, semel_bytes(text, 1)), SML_STORED);
    assert_int_equal(store->ops->commit(store), SML_STORED);
}

enum how_checkpointed { BY_CLOSING, BY_TIDYING, BY_ITSELF, BY_ANOTHER };

/* The copy is of a state with key 1; key 2 came into the main file later, so; 3 is in the log. */
static void leave_a_later_log(struct place *place, struct place *copy, enum how_checkpointed how)
{
    struct semel_store *store = open_store(place->path);

    add_key(store, 1);
    semel_store_close(store);
    copy_file(place->path, "", copy->path, "");
    store = open_store(place->path);
    if (how == BY_ITSELF)
        sml_sqlite_of(store)->checkpoint = 1;
    add_key(store, 2);
    sml_sqlite_of(store)->checkpoint = 1000;
    if (how == BY_CLOSING) {
        semel_store_close(store);
        store = open_store(place->path);
    }
    if (how == BY_TIDYING)
        store->ops->tidy(store);
    if (how == BY_ANOTHER)
        run_beside(place->path, "PRAGMA wal_checkpoint");
    add_call(store, "in the log");
    add_key(store, 3);
    /* As a process that is killed leaves them. */
    copy_file(place->path, "", place->directory, "/file");
    copy_file(place->path, "-wal", place->directory, "/log");
    copy_file(place->path, "-semel", place->directory, "/page");
    semel_store_close(store);
    copy_file(place->directory, "/file", place->path, "");
    copy_file(place->directory, "/log", place->path, "-wal");
    copy_file(place->directory, "/page", place->path, "-semel");
}

static bool is_same_file(const struct place *place, const char *end, const char *other)
{
    char command[300];

    (void)snprintf(command, sizeof command, "cmp -s %s%s %s%s", place->path, end, place->directory,
                   other);
    return system(command) == 0;
}

/* The log fits every file, as SQLite sees it, and has the last counter in it. */
static void an_older_copy_with_a_later_log(void **state)
{
    struct semel_store *store;
    struct place place, copy;

    (void)state;
    for (enum how_checkpointed how = BY_CLOSING; how <= BY_ANOTHER; how++) {
        place_make(&place);
        place_make(&copy);
        leave_a_later_log(&place, &copy, how);
        copy_file(copy.path, "", place.path, "");
        refuse(place.path, SEMEL_STORE_ROLLED_BACK, "with a later log");
        refuse_with(place.path, &adopt, SEMEL_STORE_ROLLED_BACK, "put the later file back");
        /* Nothing is lost yet: neither was written. */
        assert_true(is_same_file(&place, "-wal", "/log"));
        copy_file(place.directory, "/file", place.path, "");
        store = open_store(place.path);
        expect_calls(store, "in the log");
        expect_records(store, SML_TABLE_UNFINISHED_KEYS, "1 2 3");
        semel_store_close(store);
        /* Without the log the copy is one like any other. */
        copy_file(copy.path, "", place.path, "");
        refuse(place.path, SEMEL_STORE_ROLLED_BACK, "is an older copy");
        store = open_with(place.path, &adopt);
        expect_records(store, SML_TABLE_UNFINISHED_KEYS, "1");
        add_key(store, 4);
        semel_store_close(store);
        semel_store_close(open_store(place.path));
        place_remove(&place);
        place_remove(&copy);
    }
}

/* The file of another store in front of our log. */
static void another_store_with_our_log(void **state)
{
    struct place place, copy, other;

    (void)state;
    place_make(&place);
    place_make(&copy);
    place_make(&other);
    leave_a_later_log(&place, &copy, BY_CLOSING);
    semel_store_close(open_store(other.path));
    copy_file(other.path, "", place.path, "");
    refuse(place.path, SEMEL_STORE_ROLLED_BACK, "with a later log");
    place_remove(&place);
    place_remove(&copy);
    place_remove(&other);
}

/* Where the path has what means something in a URI. */
static void by_a_name_with_signs_in_it(void **state)
{
    struct place place, copy, odd;

    (void)state;
    place_make(&place);
    place_make(&copy);
    odd = place;
    (void)snprintf(odd.path, sizeof odd.path, "%s/a?b#c%%20 &d", place.directory);
    leave_a_later_log(&odd, &copy, BY_CLOSING);
    copy_file(copy.path, "", odd.path, "");
    refuse(odd.path, SEMEL_STORE_ROLLED_BACK, "with a later log");
    place_remove(&place);
    place_remove(&copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("an older copy with a later log", an_older_copy_with_a_later_log),
        TEST("another store with our log", another_store_with_our_log),
        TEST("by a name with signs in it", by_a_name_with_signs_in_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
