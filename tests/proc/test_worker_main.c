/* SPDX-License-Identifier: MIT */
#include "proc/pool_kit.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int run_with(const char *argument, semel_worker_setup_fn set_up)
{
    char name[] = "worker", text[128];
    char *argv[] = { name, text, NULL };

    strcpy(text, argument);
    return semel_worker_main(2, argv, set_up, NULL);
}

static enum semel_status refuse(struct semel_server *server, void *user)
{
    (void)server;
    (void)user;
    return SEMEL_NO_MEMORY;
}

static void test_no_worker(void **state)
{
    char name[] = "worker";
    char *argv[] = { name, NULL };

    (void)state;
    assert_int_equal(semel_worker_main(1, argv, refuse, NULL), -1);
    assert_int_equal(semel_worker_main(0, NULL, refuse, NULL), -1);
    assert_int_equal(run_with("--semel", refuse), -1);
}

static void test_bad_arguments(void **state)
{
    (void)state;
    assert_int_equal(run_with("--semel-worker=", refuse), 2);
    assert_int_equal(run_with("--semel-worker=x:1:1", refuse), 2);
    assert_int_equal(run_with("--semel-worker=1000:1:1024", refuse), 2); /* not open */
    assert_int_equal(run_with("--semel-worker=1:1:1024", refuse), 2);
    assert_int_equal(run_with("--semel-worker=4:0:1024", refuse), 2);
    assert_int_equal(run_with("--semel-worker=4:1:0", refuse), 2);
    assert_int_equal(run_with("--semel-worker=4:1:1024x", refuse), 2);
}

static int in_child(int fds[2], semel_worker_setup_fn set_up)
{
    char argument[64];
    pid_t child = fork();
    int how;

    snprintf(argument, sizeof argument, "--semel-worker=%d:1:1024", fds[1]);
    if (child == 0) {
        close(fds[0]);
        _exit(run_with(argument, set_up));
    }
    close(fds[1]);
    close(fds[0]); /* the end of the connection, before a word was said */
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    return WEXITSTATUS(how);
}

static void test_ends_with_its_connection(void **state)
{
    int fds[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(in_child(fds, pool_kit_set_up), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(in_child(fds, NULL), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(in_child(fds, refuse), 1);
}

/* Its main forgets semel_worker_main, and makes a pool of the same program. */
static int be_unasked(void)
{
    struct semel_pool *pool;

    return (int)semel_pool_create(&pool, NULL);
}

static void test_no_workers_of_workers(void **state)
{
    char name[] = "worker", worker[] = "--semel-worker=3:1:1024", unasked[] = "--unasked";
    char *argv[] = { name, worker, unasked, NULL };
    pid_t child = fork();
    int how;

    (void)state;
    if (child == 0) {
        execv("/proc/self/exe", argv);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), SEMEL_INVALID);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_worker),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_ends_with_its_connection),
        cmocka_unit_test(test_no_workers_of_workers),
    };

    if (argc > 2 && strcmp(argv[2], "--unasked") == 0)
        return be_unasked();
    return cmocka_run_group_tests_name("worker_main", tests, NULL, NULL);
}
