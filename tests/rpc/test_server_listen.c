/* SPDX-License-Identifier: MIT */
/* What a server offers and where: methods, addresses, descriptors. */
#include "server_kit.h"

#include <fcntl.h>

#include "io/pair.h"

/* --- methods ------------------------------------------------------------------------------- */

static void test_export(void **state)
{
    struct semel_method_options bad_kind = { .kind = (enum semel_kind)9 };
    struct semel_method_options bad_time = { .max_run_ms = -1 };
    struct rig *rig = rig_make(NULL);
    char name[SEMEL_METHOD_BYTES + 2];

    (void)state;
    memset(name, 'n', sizeof name);
    name[SEMEL_METHOD_BYTES + 1] = '\0';
    assert_int_equal(semel_server_export(rig->server, name, echo, NULL, NULL), SEMEL_INVALID);
    name[SEMEL_METHOD_BYTES] = '\0';
    assert_int_equal(semel_server_export(rig->server, name, echo, NULL, NULL), SEMEL_OK);
    assert_int_equal(semel_server_export(rig->server, name, echo, NULL, NULL), SEMEL_ALREADY);
    assert_int_equal(semel_server_export(rig->server, "", echo, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_server_export(rig->server, "semel.x", echo, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_server_export(rig->server, "a\nb", echo, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_server_export(rig->server, "a", NULL, NULL, NULL), SEMEL_INVALID);
    assert_int_equal(semel_server_export(rig->server, "a", echo, NULL, &bad_kind), SEMEL_INVALID);
    assert_int_equal(semel_server_export(rig->server, "a", echo, NULL, &bad_time), SEMEL_INVALID);
    rig_go(rig);
    expect_gone(rig->client, name, SEMEL_VALUE, SEMEL_OK);
    /* While it runs, too. */
    expect_gone(rig->client, "echo", SEMEL_NOT_EXECUTED, SEMEL_NO_METHOD);
    assert_int_equal(semel_server_export(rig->server, "echo", echo, NULL, NULL), SEMEL_OK);
    expect_echo(rig->client, "now it is there");
    semel_server_stop(rig->server);
    assert_int_equal(semel_server_wait(rig->server, -1, NULL), SEMEL_OK);
    assert_int_equal(semel_server_export(rig->server, "b", echo, NULL, NULL), SEMEL_STOPPED);
    rig_end(rig);
}

static bool none_open_but_one(void *arg)
{
    return rig_counters(arg).connections_open == 1;
}

/* --- other ways in ------------------------------------------------------------------------- */

static void test_addresses(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct semel_server *second;
    struct semel_client *client;
    char address[64];
    int fds[2], fd;

    (void)state;
    rig_export(rig, "echo", echo, NULL, NULL);
    assert_string_equal(semel_server_address(rig->server), "");
    rig_go(rig);
    assert_string_equal(semel_server_address(rig->server), rig->place.address);
    assert_int_equal(semel_server_listen(rig->server, "tcp:127.0.0.1:0"), SEMEL_OK);
    snprintf(address, sizeof address, "%s", semel_server_address(rig->server));
    assert_memory_equal(address, "tcp:127.0.0.1:", 14);
    assert_string_not_equal(address, "tcp:127.0.0.1:0");
    assert_int_equal(semel_server_listen(rig->server, address), SEMEL_ADDRESS_IN_USE);
    assert_int_equal(semel_server_listen(rig->server, rig->place.address), SEMEL_ADDRESS_IN_USE);
    assert_int_equal(semel_server_listen(rig->server, "tcp:0.0.0.0:0"), SEMEL_DENIED);
    assert_int_equal(semel_server_listen(rig->server, "gopher:x"), SEMEL_BAD_ADDRESS);
    assert_int_equal(semel_server_create(&second, NULL), SEMEL_OK);
    assert_int_equal(semel_server_listen(second, address), SEMEL_ADDRESS_IN_USE);
    assert_int_equal(semel_server_destroy(second), SEMEL_OK);
    assert_int_equal(semel_client_create(&client, address, NULL), SEMEL_OK);
    expect_echo(client, "by tcp");
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    assert_int_equal(semel_server_pair(rig->server, &fd), SEMEL_OK);
    snprintf(address, sizeof address, "fd:%d", fd);
    assert_int_equal(semel_client_create(&client, address, NULL), SEMEL_OK);
    expect_echo(client, "by a pair");
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    assert_int_equal(sml_pair_open(fds, NULL), SEMEL_OK);
    snprintf(address, sizeof address, "fd:%d", fds[0]);
    assert_int_equal(semel_server_listen(rig->server, address), SEMEL_OK);
    snprintf(address, sizeof address, "fd:%d", fds[1]);
    assert_int_equal(semel_client_create(&client, address, NULL), SEMEL_OK);
    expect_echo(client, "by a descriptor");
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    rig_end(rig);
}

/* Two pipes: the directions are descriptors of their own. */
static void test_pipes(void **state)
{
    struct rig *rig = rig_make(NULL);
    struct semel_client *client;
    struct semel_result result;
    int there[2], back[2];
    char address[64], *big = malloc(1 << 20);

    (void)state;
    memset(big, 'b', 1 << 20);
    rig_export(rig, "echo", echo, NULL, NULL);
    rig_go(rig);
    assert_int_equal(pipe2(there, O_CLOEXEC), 0);
    assert_int_equal(pipe2(back, O_CLOEXEC), 0);
    snprintf(address, sizeof address, "fd:%d/%d", there[0], back[1]);
    assert_int_equal(semel_server_listen(rig->server, address), SEMEL_OK);
    snprintf(address, sizeof address, "fd:%d/%d", back[0], there[1]);
    assert_int_equal(semel_client_create(&client, address, NULL), SEMEL_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(
            semel_client_call(client, "echo", semel_bytes(big, 1 << 20), NULL, &result),
            SEMEL_VALUE);
        assert_int_equal(result.body.size, 1 << 20);
        assert_memory_equal(result.body.data, big, 1 << 20);
        semel_result_clear(&result);
    }
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    assert_true(kit_eventually(none_open_but_one, rig, 60));
    free(big);
    rig_end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("export checks what it is given, also while serving", test_export),
        TEST("unix, tcp, pair, descriptor", test_addresses),
        TEST("two pipes make a connection", test_pipes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
