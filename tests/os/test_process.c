/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "os/process.h"

static bool advice_refused;

int __real_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice);

int __wrap_madvise(void *at, size_t bytes, int advice)
{
    if (advice_refused && advice == MADV_WIPEONFORK) {
        errno = EINVAL;
        return -1;
    }
    return __real_madvise(at, bytes, advice);
}

static void children_are_noticed(void)
{
    struct sml_origin origin;
    pid_t child;
    int status;

    sml_origin_init(&origin);
    assert_int_equal(origin.mark == NULL, advice_refused);
    assert_true(sml_origin_is_mine(&origin));
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool mine = sml_origin_is_mine(&origin);
        struct sml_origin own;

        sml_origin_fini(&origin);
        sml_origin_init(&own);
        _exit(mine ? 1 : sml_origin_is_mine(&own) ? 0 : 2);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(sml_origin_is_mine(&origin));
    sml_origin_fini(&origin);
    sml_origin_fini(&origin);
}

static void by_a_wiped_page(void **state)
{
    (void)state;
    advice_refused = false;
    children_are_noticed();
}

static void by_the_process_id(void **state)
{
    (void)state;
    advice_refused = true;
    children_are_noticed();
}

/* The other end of a socket is told the same. */
static void user_id(void **state)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(getsockopt(ends[0], SOL_SOCKET, SO_PEERCRED, &peer, &size), 0);
    assert_int_equal(sml_process_uid(), peer.uid);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "fork is noticed by a wiped page", by_a_wiped_page, NULL, NULL, NULL },
        { "the user id is what peers are told", user_id, NULL, NULL, NULL },
        { "fork is noticed by the process id", by_the_process_id, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
