/* SPDX-License-Identifier: MIT */
#include "io/kit.h"

#include <sys/resource.h>

#include "io/pair.h"

static void pair_is_connected(void **state)
{
    struct sml_channel a, b;
    int before = kit_descriptors();
    char text[8];

    (void)state;
    assert_int_equal(sml_channel_pair(&a, &b, NULL), SEMEL_OK);
    assert_int_equal(kit_descriptors(), before + 2);
    assert_int_equal(sml_channel_write(&a, "abc", 3).bytes, 3);
    assert_int_equal(sml_channel_read(&b, text, sizeof(text)).bytes, 3);
    assert_memory_equal(text, "abc", 3);
    assert_true(a.ids.known);
    assert_int_equal(a.ids.uid, getuid());
    assert_int_equal(a.ids.gid, getgid());
    assert_int_equal(a.ids.pid, getpid());
    sml_channel_close(&a);
    sml_channel_close(&b);
    sml_channel_close(&b);
    assert_int_equal(kit_descriptors(), before);
}

static void no_descriptors_is_a_limit(void **state)
{
    struct rlimit limit, none;
    struct sml_reason reason;
    int fds[2] = { -7, -7 };

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(sml_pair_open(fds, &reason), SEMEL_LIMIT);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_string_equal(reason.text, "pair: no descriptors left in this process");
    assert_int_equal(fds[0], -7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        { "pair is connected", pair_is_connected, NULL, NULL, NULL },
        { "no descriptors is a limit", no_descriptors_is_a_limit, NULL, NULL, NULL },
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
