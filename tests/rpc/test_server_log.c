/* SPDX-License-Identifier: MIT */
/* What the log hook is told: one line at a time, escaped, naming the peer; never under a lock. */
#include "server_kit.h"
#include "server_wire.h"

static struct semel_server *asked;
static atomic_int lines;

/* A hook that calls back into the server would hang if a lock were held. */
static void ask_back(enum semel_log_level level, const char *text, void *user)
{
    struct semel_server_counters counters;

    (void)level;
    (void)user;
    REQUIRE(strchr(text, '\n') == NULL);
    semel_server_counters(asked, &counters);
    semel_server_drain(asked, 60000);
    atomic_fetch_add(&lines, 1);
}

static void forget(struct semel_request *request, void *user)
{
    (void)request;
    (void)user;
}

static void test_no_lock(void **state)
{
    struct semel_server_options options = { .log = ask_back };
    struct kit_place place;
    struct semel_client *client;

    (void)state;
    kit_place_make(&place);
    assert_int_equal(semel_server_create(&asked, &options), SEMEL_OK);
    assert_int_equal(semel_server_export(asked, "forget", forget, NULL, NULL), SEMEL_OK);
    assert_int_equal(semel_server_listen(asked, place.address), SEMEL_OK);
    assert_int_equal(semel_server_start(asked), SEMEL_OK);
    assert_int_equal(semel_client_create(&client, place.address, NULL), SEMEL_OK);
    expect_gone(client, "forget", SEMEL_UNKNOWN, SEMEL_DROPPED);
    assert_int_equal(semel_server_wait(asked, 60000, NULL), SEMEL_OK); /* the hook drained it */
    assert_true(atomic_load(&lines) >= 2);
    assert_int_equal(semel_client_destroy(client), SEMEL_OK);
    assert_int_equal(semel_server_destroy(asked), SEMEL_OK);
    kit_place_remove(&place);
}

static bool said_bye(void *arg)
{
    return log_has(arg, "the client said BYE");
}

static void test_escaped(void **state)
{
    struct rig *rig = rig_make(NULL);
    uint8_t out[SML_FRAME_BYTES_MAX];
    struct wire *wire;

    (void)state;
    rig_serve(rig);
    wire = wire_meet(rig, 1);
    assert_true(wire_send(wire, out,
                          sml_encode_bye(out, SML_BYE_END, semel_bytes_text("bye\n\033[2Jnow"))));
    assert_true(kit_eventually(said_bye, rig, 60));
    assert_true(log_has(rig, "bye\\x0a\\x1b[2Jnow"));
    assert_true(log_has(rig, rig->place.address));
    wire_close(wire);
    rig_end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST("the log hook is called without a lock", test_no_lock),
        TEST("what a peer said is escaped in the log", test_escaped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
