/* SPDX-License-Identifier: MIT */
/* What a killed process left goes; all else stays. */
#include "io/kit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "io/leftover.h"
#include "io/listener.h"

#define PREFIX "left-"
#define NAME PREFIX "0123456789abcdef"

static const char *const sockets[] = { "s", "p", NULL };

struct place {
    char parent[64], directory[128];
};

static void open_listener(struct sml_listener *listener, const char *directory, const char *name)
{
    struct sml_address address;
    char text[160];

    (void)snprintf(text, sizeof text, "unix:%s/%s", directory, name);
    assert_int_equal(sml_address_parse(text, &address, NULL), SEMEL_OK);
    assert_int_equal(sml_listener_open(listener, &address, false, NULL), SEMEL_OK);
}

/* A directory as somebody who was killed leaves it: his sockets `s` and `p`, his lock. */
static void leave(const char *directory)
{
    struct sml_listener first, second;
    int status;
    pid_t pid;

    assert_int_equal(mkdir(directory, 0700), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char path[160];

        open_listener(&first, directory, "s");
        open_listener(&second, directory, "p");
        (void)snprintf(path, sizeof path, "%s/p.lock", directory);
        (void)unlink(path); /* that one has none */
        (void)kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static struct place make_place(const char *name)
{
    struct place place;

    kit_directory(place.parent, sizeof place.parent);
    (void)snprintf(place.directory, sizeof place.directory, "%s/%s", place.parent, name);
    return place;
}

static bool has(const struct place *place, const char *name)
{
    struct stat file;
    char path[160];

    (void)snprintf(path, sizeof path, "%s/%s", place->directory, name);
    return lstat(path, &file) == 0;
}

static void remove_file(const struct place *place, const char *name)
{
    char path[160];

    (void)snprintf(path, sizeof path, "%s/%s", place->directory, name);
    assert_int_equal(unlink(path), 0);
}

static void sweep(const struct place *place)
{
    int before = kit_descriptors();

    sml_leftover_sweep(place->parent, PREFIX, sockets, (uint32_t)geteuid());
    assert_int_equal(kit_descriptors(), before);
}

/* All of it is there; then it is taken away, as a sweep does that may. */
static void check_left(const struct place *place)
{
    assert_true(has(place, "s") && has(place, "p") && has(place, "s.lock"));
    remove_file(place, "s");
    remove_file(place, "p");
    remove_file(place, "s.lock");
    assert_int_equal(rmdir(place->directory), 0);
    assert_int_equal(rmdir(place->parent), 0);
}

static void killed(void **state)
{
    struct place place = make_place(NAME);

    (void)state;
    leave(place.directory);
    assert_true(has(&place, "s") && has(&place, "p") && has(&place, "s.lock"));
    sweep(&place);
    assert_int_equal(rmdir(place.parent), 0); /* it is empty */
    sweep(&place);                            /* and gone */
}

static void alive(void **state)
{
    struct place place = make_place(NAME);
    struct sml_listener listener;

    (void)state;
    assert_int_equal(mkdir(place.directory, 0700), 0);
    open_listener(&listener, place.directory, "s");
    sweep(&place);
    assert_true(has(&place, "s") && has(&place, "s.lock"));
    sml_listener_close(&listener);
    assert_int_equal(rmdir(place.directory), 0);
    assert_int_equal(rmdir(place.parent), 0);
}

static void other_names(void **state)
{
    static const char *const names[] = { PREFIX "0123456789abcde", PREFIX "0123456789abcdef0",
                                         PREFIX "0123456789abcdeg", "reft-0123456789abcdef" };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct place place = make_place(names[i]);

        leave(place.directory);
        sweep(&place);
        check_left(&place);
    }
}

static void other_users(void **state)
{
    struct place place = make_place(NAME);

    (void)state;
    leave(place.directory);
    sml_leftover_sweep(place.parent, PREFIX, sockets, (uint32_t)geteuid() + 1);
    assert_int_equal(chmod(place.directory, 0770), 0); /* others may have put things there */
    sweep(&place);
    check_left(&place);
}

/* One that is about to listen has made its lock file, and must find it free. */
static void not_yet(void **state)
{
    struct place place = make_place(NAME);
    struct sml_listener listener;

    (void)state;
    leave(place.directory);
    remove_file(&place, "s");
    sweep(&place);
    assert_true(has(&place, "p") && has(&place, "s.lock"));
    open_listener(&listener, place.directory, "s");
    sml_listener_close(&listener);
    remove_file(&place, "p");
    assert_int_equal(rmdir(place.directory), 0);
    assert_int_equal(rmdir(place.parent), 0);
}

static void links(void **state)
{
    struct place place = make_place(NAME), elsewhere = make_place(NAME);
    char path[200], moved[200];

    (void)state;
    leave(elsewhere.directory);
    assert_int_equal(symlink(elsewhere.directory, place.directory), 0);
    sweep(&place);
    assert_true(has(&elsewhere, "s"));
    assert_int_equal(unlink(place.directory), 0);
    (void)snprintf(path, sizeof path, "%s/s.lock", elsewhere.directory);
    (void)snprintf(moved, sizeof moved, "%s/moved", elsewhere.parent);
    assert_int_equal(rename(path, moved), 0);
    assert_int_equal(symlink(moved, path), 0);
    sweep(&elsewhere);
    assert_int_equal(unlink(moved), 0);
    check_left(&elsewhere);
    assert_int_equal(rmdir(place.parent), 0);
}

/* What is no socket is not removed, nor the directory that it is in. */
static void more_in_it(void **state)
{
    struct place place = make_place(NAME);
    char path[200];
    int fd;

    (void)state;
    leave(place.directory);
    remove_file(&place, "p");
    (void)snprintf(path, sizeof path, "%s/p", place.directory);
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    sweep(&place);
    assert_true(has(&place, "p"));
    remove_file(&place, "p");
    assert_int_equal(rmdir(place.directory), 0);
    assert_int_equal(rmdir(place.parent), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed),      cmocka_unit_test(alive),   cmocka_unit_test(other_names),
        cmocka_unit_test(other_users), cmocka_unit_test(not_yet), cmocka_unit_test(links),
        cmocka_unit_test(more_in_it),
    };

    return cmocka_run_group_tests_name("io/leftover", tests, NULL, NULL);
}
