/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/spawn.h"

static int pair[2];

static struct sml_child shell(const char *command)
{
    char sh[] = "sh", c[] = "-c", text[256];
    char *argv[] = { sh, c, text, NULL };
    struct sml_reason reason = { "" };
    struct sml_child child;

    snprintf(text, sizeof text, "%s", command);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(sml_spawn(&child, "/bin/sh", argv, pair[1], &reason), SEMEL_OK);
    assert_true(child.pid > 0);
    close(pair[1]);
    return child;
}

static struct sml_exit await(struct sml_child *child)
{
    struct pollfd watched = { .fd = child->pidfd, .events = POLLIN };

    assert_int_equal(poll(&watched, 1, 60000), 1);
    close(pair[0]);
    return sml_child_reap(child);
}

static void check_said(const struct sml_exit *how, const char *expected)
{
    char text[160];

    sml_exit_say(how, text, sizeof text);
    assert_string_equal(text, expected);
}

static void test_exits(void **state)
{
    struct sml_child child = shell("exit 7");
    struct sml_exit how = await(&child);

    (void)state;
    assert_int_equal(how.kind, SML_EXIT_CODE);
    assert_int_equal(how.number, 7);
    assert_int_equal(child.pidfd, -1);
    check_said(&how, "exited with code 7");
    child = shell("kill -USR1 $$");
    how = await(&child);
    assert_int_equal(how.kind, SML_EXIT_SIGNAL);
    check_said(&how, "was killed by signal 10 (SIGUSR1)");
    child = shell("exec sleep 600");
    sml_child_terminate(&child);
    how = await(&child);
    check_said(&how, "was killed by signal 15 (SIGTERM)");
    child = shell("sleep 600 & wait");
    sml_child_kill_group(&child);
    how = await(&child);
    check_said(&how, "was killed by signal 9 (SIGKILL)");
}

static void test_reaped_by_others(void **state)
{
    struct sml_child child = shell("exit 7");
    struct sml_exit how;

    (void)state;
    assert_int_equal(waitpid(-1, NULL, 0), child.pid);
    how = await(&child);
    assert_int_equal(how.kind, SML_EXIT_UNTOLD);
    check_said(&how, "ended; its exit status is unavailable: it was reaped elsewhere");
}

/* It needs few descriptors, whatever their numbers. */
static void test_few_descriptors(void **state)
{
    struct rlimit before, now;
    struct sml_child child;
    struct sml_exit how;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    now = before;
    now.rlim_cur = 20;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    child = shell("exit 3");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    how = await(&child);
    check_said(&how, "exited with code 3");
}

static void test_no_program(void **state)
{
    char name[] = "x";
    char *argv[] = { name, NULL };
    struct sml_reason reason;
    struct sml_child child;

    (void)state;
    assert_int_equal(sml_spawn(&child, "/no/such/file", argv, 0, &reason), SEMEL_SYSTEM);
    assert_non_null(strstr(reason.text, "cannot run /no/such/file: "));
    assert_int_equal(sml_spawn(&child, "/etc", argv, 0, &reason), SEMEL_DENIED);
    assert_int_equal(sml_spawn(&child, "/bin/true", argv, -1, NULL), SEMEL_SYSTEM);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

/* It has a group of its own, its connection, and an empty input. */
static void test_begins(void **state)
{
    struct sml_child child = shell("read x; echo $? >&3; cat /proc/self/stat >&3; exec sleep 600");
    int status, pid, parent, group, got = 0;
    char text[512] = "", letter;
    ssize_t more;

    (void)state;
    while (!memchr(text, ')', (size_t)got)) {
        more = read(pair[0], text + got, sizeof text - 1 - (size_t)got);
        assert_true(more > 0);
        got += (int)more;
    }
    assert_int_equal(sscanf(text, "%d %d (cat) %c %d %d", &status, &pid, &letter, &parent, &group),
                     5);
    assert_int_equal(status, 1);
    assert_int_equal(parent, child.pid);
    assert_int_equal(group, child.pid);
    assert_true(sml_child_rss(&child) > 0);
    sml_child_kill_group(&child);
    (void)await(&child);
    assert_int_equal(sml_child_rss(&child), 0);
}

static void *spawn_and_end(void *child)
{
    *(struct sml_child *)child = shell("exec sleep 600");
    return NULL;
}

static void test_ends_with_its_thread(void **state)
{
    struct sml_child child;
    struct sml_exit how;
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, spawn_and_end, &child), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    how = await(&child);
    check_said(&how, "was killed by signal 9 (SIGKILL)");
}

static void test_drain(void **state)
{
    static char bytes[10000];
    int fds[2], copy;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(write(fds[0], bytes, sizeof bytes), sizeof bytes);
    assert_int_equal(read(fds[1], bytes, 1000), 1000);
    sml_socket_shut(fds[1]);
    assert_int_equal(send(fds[0], bytes, 1, MSG_NOSIGNAL), -1);
    assert_int_equal(sml_socket_drain(fds[1]), 9000);
    assert_int_equal(sml_socket_drain(fds[1]), 0);
    sml_socket_wait_hangup(fds[0]);
    assert_true(sml_fd_keep(fds[0]));
    assert_false(sml_fd_keep(1000));
    copy = sml_fd_copy(fds[0]);
    assert_true(copy > SML_SPAWN_FD);
    sml_fd_close(&copy);
    sml_fd_close(&copy);
    assert_int_equal(copy, -1);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exits),           cmocka_unit_test(test_reaped_by_others),
        cmocka_unit_test(test_few_descriptors), cmocka_unit_test(test_no_program),
        cmocka_unit_test(test_begins),          cmocka_unit_test(test_ends_with_its_thread),
        cmocka_unit_test(test_drain),
    };

    return cmocka_run_group_tests_name("spawn", tests, NULL, NULL);
}
