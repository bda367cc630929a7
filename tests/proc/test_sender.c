/* SPDX-License-Identifier: MIT */
/* Senders and their states. */
#include "router_kit.h"

/* --- R3 -------------------------------------------------------------------------------------- */

static void test_states(void **state)
{
    struct semel_receiver *receiver;
    struct semel_router *router;
    struct semel_sender *sender;
    struct semel_loop *loop;
    struct box box = { 0 };
    struct desk desk;
    uint32_t open = 99;

    (void)state;
    assert_int_equal(semel_loop_create(&loop, NULL), SEMEL_OK);
    assert_int_equal(semel_router_create(&router, loop, NULL), SEMEL_OK);
    assert_int_equal(semel_router_pipe(router, NULL, on_message, &box, &receiver, NULL),
                     SEMEL_STOPPED);
    assert_int_equal(semel_router_route_until(router, never, NULL, 0), SEMEL_STOPPED);
    assert_int_equal(semel_router_stop(router, NULL), SEMEL_STOPPED);
    assert_int_equal(semel_router_start(router), SEMEL_OK);
    assert_int_equal(semel_router_start(router), SEMEL_ALREADY);
    assert_int_equal(semel_loop_destroy(loop), SEMEL_ALREADY);
    assert_int_equal(semel_router_stop(router, &open), SEMEL_OK);
    assert_int_equal(open, 0);
    assert_int_equal(semel_router_stop(router, NULL), SEMEL_STOPPED);
    assert_int_equal(semel_router_pipe(router, NULL, on_message, &box, &receiver, NULL),
                     SEMEL_STOPPED);
    assert_int_equal(semel_router_start(router), SEMEL_OK); /* a router may start again */
    assert_int_equal(semel_router_destroy(router), SEMEL_OK);
    assert_int_equal(semel_loop_destroy(loop), SEMEL_OK);

    open_desk(&desk);
    open_box(&box, &desk, 0, NULL);
    sender = box.sender;
    assert_int_equal(post(sender, 0, 0, 64, 0), SEMEL_INVALID); /* initial */
    assert_int_equal(semel_sender_flush(sender, 0), SEMEL_INVALID);
    assert_int_equal(semel_sender_stop(sender, 0), SEMEL_INVALID);
    assert_int_equal(semel_sender_start(sender), SEMEL_OK);
    assert_int_equal(semel_sender_start(sender), SEMEL_ALREADY);       /* open */
    assert_int_equal(semel_sender_stop(sender, 0), SEMEL_WOULD_BLOCK); /* nobody greets it yet */
    assert_int_equal(semel_sender_stop(sender, 0), SEMEL_ALREADY);     /* closed */
    assert_int_equal(semel_sender_start(sender), SEMEL_STOPPED);
    assert_int_equal(post(sender, 0, 0, 64, 0), SEMEL_STOPPED);
    semel_sender_destroy(sender);
    assert_int_equal(semel_sender_create(&sender, "semel-pipe:1:zz:unix:/x"), SEMEL_INVALID);
    assert_int_equal(semel_sender_create(&sender, ""), SEMEL_INVALID);
    close_desk(&desk);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST("R3 state errors", test_states),
    };

    router_kit_sender(argc, argv);
    return cmocka_run_group_tests_name("proc/sender", tests, NULL, NULL);
}
