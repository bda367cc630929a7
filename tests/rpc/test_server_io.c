/* SPDX-License-Identifier: MIT */
/* The leader's loop: bounds on connections and sessions, and no descriptors left. */
#include "server_kit.h"
#include "server_wire.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

static uint64_t cpu_ms(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

/* --- bounds -------------------------------------------------------------------------------- */

static bool accepted_one(void *arg)
{
    return rig_counters(arg).connections_open == 1;
}

static void test_connections(void **state)
{
    struct semel_server_options options = { .connections = 3, .sessions = 2 };
    struct rig *rig = rig_make(&options);
    struct wire *one, *two, *three;
    struct sml_hello hello = hello_of(2, 1);

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_echo(rig->client, "one connection, one session");
    one = wire_meet(rig, 1);
    two = wire_open(rig);
    wire_hello(two, &hello);
    wire_expect_bye(two, SML_BYE_RETRY_LATER, "too many sessions");
    wire_close(two);
    while (rig_counters(rig).connections_open > 2)
        kit_sleep_ms(1);
    two = wire_open(rig);
    while (rig_counters(rig).connections_open < 3)
        kit_sleep_ms(1);
    three = wire_open(rig);
    wire_expect_bye(three, SML_BYE_RETRY_LATER, "too many connections");
    wire_close(three);
    wire_close(one);
    wire_close(two);
    assert_true(kit_eventually(accepted_one, rig, 60));
    three = wire_meet(rig, 3); /* there is room again: nobody is connected to the other session */
    assert_int_equal(rig_counters(rig).sessions_open, 2);
    assert_int_equal(rig_counters(rig).sessions_expired, 1);
    assert_true(log_has(rig, "2 sessions, as many as there may be"));
    one = wire_open(rig);
    hello = hello_of(1, 2);
    hello.kind = SML_RESUME;
    wire_hello(one, &hello);
    wire_expect_bye(one, SML_BYE_SESSION_LOST, "no such session");
    wire_close(one);
    wire_close(three);
    expect_echo(rig->client, "unimpressed");
    rig_end(rig);
}

/* No descriptors left: no spin, one line a second, and it goes on when there are some again. */
static void test_no_descriptors(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    int sockets[8], taken[1024], count = 0;
    struct rlimit old, few;
    uint64_t before;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    expect_echo(rig->client, "first");
    snprintf(name.sun_path, sizeof name.sun_path, "%s", rig->place.path);
    for (int i = 0; i < 8; i++)
        assert_true((sockets[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = old;
    few.rlim_cur = 256;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    while (count < 1024 && (taken[count] = dup(0)) >= 0)
        count++;
    before = cpu_ms();
    for (int i = 0; i < 8; i++)
        (void)!connect(sockets[i], (struct sockaddr *)&name, sizeof name);
    kit_sleep_ms(500);
    assert_true(cpu_ms() - before < 300);
    assert_in_range(log_count(rig, "a client cannot be accepted"), 1, 3);
    expect_echo(rig->client, "an old connection does not notice");
    while (count > 0)
        close(taken[--count]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    for (int i = 0; i < 8; i++)
        close(sockets[i]);
    wire_close(wire_meet(rig, 200));
    rig_end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("connections and sessions are bounded", test_connections),
        TEST("no descriptors left: no spin, and it goes on", test_no_descriptors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
