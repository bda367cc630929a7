/* SPDX-License-Identifier: MIT */
/* What a worker process begins with, and how it ends. */
#include "proc/pool_kit.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void on_usr1(int number)
{
    (void)number;
}

/* Descriptors, signal handlers and the mask are the host's own. */
static void test_begins_clean(void **state)
{
    struct semel_pool_options options = { .workers = 1 };
    int leaked = open("/etc/passwd", O_RDONLY); /* not close-on-exec */
    char fds[4096], text[64];
    struct semel_pool *pool;
    sigset_t all, before;

    (void)state;
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGUSR1, on_usr1);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    pool = pool_kit_make(&options);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    pool_kit_text(pool, "fds", "", fds, sizeof fds);
    assert_null(strstr(fds, "passwd"));
    assert_non_null(strstr(fds, "0=/dev/null\n"));
    assert_non_null(strstr(fds, "3=socket:"));
    pool_kit_text(pool, "signals", "", text, sizeof text);
    assert_string_equal(text, "pipe default usr1 default");
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    close(leaked);
}

/* 0, 1 and 2 may be closed here. */
static void test_without_standard_streams(void **state)
{
    struct semel_pool_options options = { .workers = 2 };
    int in = dup(0), out = dup(1);
    struct semel_pool *pool;
    char fds[4096];

    (void)state;
    close(0);
    close(1);
    pool = pool_kit_make(&options);
    pool_kit_text(pool, "fds", "", fds, sizeof fds);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    assert_int_equal(dup2(in, 0), 0);
    assert_int_equal(dup2(out, 1), 1);
    close(in);
    close(out);
    assert_non_null(strstr(fds, "3=socket:"));
}

static bool is_gone(void *pid)
{
    return !pool_kit_lives(*(long *)pid);
}

/* It does not look at its connection, nor at SIGTERM. */
static void test_stubborn(void **state)
{
    static const char *const arguments[] = { "sh", "-c", "trap '' TERM; sleep 600 & wait", NULL };
    struct semel_pool_options options = {
        .workers = 1,
        .program = "/bin/sh",
        .arguments = arguments,
        .plain_arguments = true,
        .stop_grace_ms = 200,
    };
    struct pool_kit_before before = pool_kit_before();
    struct semel_pool *pool = pool_kit_make(&options);
    struct semel_worker_info info;
    long pid;

    (void)state;
    assert_int_equal(semel_pool_list(pool, &info, 1), 1);
    pid = info.pid;
    assert_int_equal(info.state, SEMEL_WORKER_STARTING);
    assert_int_equal(semel_pool_stop(pool, 0, NULL), SEMEL_OK);
    assert_true(is_gone(&pid));
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
    pool_kit_check_clean(before);
}

/* Any program that speaks the protocol: here a copy of this one, by its path. */
static void test_other_program(void **state)
{
    char path[512] = "";
    const char *const arguments[] = { "another name", NULL };
    struct semel_pool_options options = { .workers = 1, .arguments = arguments };
    struct semel_pool *pool;

    (void)state;
    assert_true(readlink("/proc/self/exe", path, sizeof path - 1) > 0);
    options.program = path;
    pool = pool_kit_make(&options);
    memset(path, 0, sizeof path); /* it was borrowed */
    assert_int_equal(pool_kit_number(pool, "square", "8"), 64);
    assert_int_equal(semel_pool_destroy(pool), SEMEL_OK);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_begins_clean),
        cmocka_unit_test(test_without_standard_streams),
        cmocka_unit_test(test_stubborn),
        cmocka_unit_test(test_other_program),
    };
    int code = pool_kit_main(argc, argv);

    if (code >= 0)
        return code;
    return cmocka_run_group_tests_name("worker", tests, NULL, NULL);
}
