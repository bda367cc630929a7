/* SPDX-License-Identifier: MIT */
/* Large messages: in shared memory, or through the socket. */
#include "router_kit.h"

static void test_sizes(void **state)
{
    static const size_t sizes[] = { 8, 65535, 65536, 65537, 1000000, 16777216 };
    struct box box;
    struct desk desk;
    struct semel_router_counters counters;

    (void)state;
    open_desk(&desk);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        open_box(&box, &desk, 3, NULL);
        box.wanted = 3;
        assert_int_equal(semel_sender_start(box.sender), SEMEL_OK);
        for (uint32_t k = 0; k < 3; k++) {
            while (post(box.sender, 3, k, sizes[i], 0) == SEMEL_WOULD_BLOCK)
                assert_int_equal(semel_loop_dispatch(desk.loop), SEMEL_OK);
        }
        assert_true(serve(&desk, has_all, &box, 60));
        assert_false(box.wrong);
        semel_sender_destroy(box.sender);
        assert_int_equal(semel_router_close_pipe(desk.router, box.receiver), SEMEL_OK);
    }
    /* One byte more than message_bytes is dropped, and counted; what follows is delivered. */
    open_box(&box, &desk, 3, NULL);
    box.wanted = 1;
    assert_int_equal(semel_sender_start(box.sender), SEMEL_OK);
    assert_int_equal(post(box.sender, 3, 0, 16777217, -1), SEMEL_OK);
    while (post(box.sender, 3, 1, 64, 0) == SEMEL_WOULD_BLOCK)
        assert_int_equal(semel_loop_dispatch(desk.loop), SEMEL_OK);
    assert_true(serve(&desk, has_all, &box, 60));
    assert_int_equal(box.next, 2);
    semel_router_counters(desk.router, &counters);
    assert_int_equal(counters.dropped, 1);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

/* Filled in its place, sent without a copy; slots are used again. */
static void test_reserved(void **state)
{
    struct box box;
    struct desk desk;
    void *place;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 3, NULL);
    assert_int_equal(semel_sender_reserve(box.sender, 100, 0, &place), SEMEL_INVALID);
    assert_int_equal(semel_sender_start(box.sender), SEMEL_OK);
    assert_int_equal(semel_sender_send_reserved(box.sender, 0), SEMEL_INVALID);
    assert_int_equal(semel_sender_reserve(box.sender, 0, 0, &place), SEMEL_INVALID);
    box.wanted = 100;
    for (uint32_t i = 0; i < 100; i++) {
        uint32_t head[2] = { 3, i };
        size_t size = 1000 + i * 50000;

        while (semel_sender_reserve(box.sender, size, 0, &place) == SEMEL_WOULD_BLOCK)
            assert_int_equal(semel_loop_dispatch(desk.loop), SEMEL_OK);
        memcpy(place, head, sizeof head);
        for (size_t k = 8; k < size; k++)
            ((uint8_t *)place)[k] = (uint8_t)(i + k);
        while (semel_sender_send_reserved(box.sender, 0) == SEMEL_WOULD_BLOCK)
            assert_int_equal(semel_loop_dispatch(desk.loop), SEMEL_OK);
    }
    assert_true(serve(&desk, has_all, &box, 60));
    assert_false(box.wrong);
    assert_int_equal(box.skipped, 0);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

/* A pipe whose messages are never passed, and pipes that drop: the same messages. */
static void test_never_passed(void **state)
{
    struct semel_pipe_options options[] = { { .never_passed = true },
                                            { .flood = SEMEL_FLOOD_DROP_OLD, .queue_messages = 2 },
                                            { .flood = SEMEL_FLOOD_COALESCE } };
    struct semel_router_counters counters;
    struct box box;
    struct desk desk;
    pid_t pid;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        open_desk(&desk);
        open_box(&box, &desk, 3, &options[i]);
        pid = spawn_sender("--large", &box, 20);
        while (box.next < 20)
            assert_int_equal(semel_loop_dispatch(desk.loop), SEMEL_OK);
        assert_int_equal(exit_of(pid), 0);
        assert_false(box.wrong);
        semel_router_counters(desk.router, &counters);
        assert_int_equal(box.got + counters.flooded, 20);
        assert_true(i > 0 || counters.flooded == 0);
        semel_sender_destroy(box.sender);
        close_desk(&desk);
    }
}

/* What a sender that died had shared is still delivered. */
static void test_passed_then_dead(void **state)
{
    struct box box;
    struct desk desk;
    pid_t pid;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 3, NULL);
    pid = spawn_sender("--large", &box, 3);
    box.wanted = 3;
    assert_int_equal(semel_router_route_until(desk.router, never, NULL, 300), SEMEL_DEADLINE);
    assert_true(serve(&desk, has_all, &box, 30) || box.got == 3);
    assert_int_equal(exit_of(pid), 0);
    assert_false(box.wrong);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

/* Sent at once, or as soon as the router has told that it has taken what was sent before. */
static void send_in_time(struct desk *desk, struct box *box, uint32_t number)
{
    uint64_t end = kit_now_ms() + 20000;

    while (post(box->sender, box->number, number, SEMEL_PASSED_BYTES, 0) != SEMEL_OK) {
        assert_true(kit_now_ms() < end);
        assert_int_equal(semel_router_route_until(desk->router, never, NULL, 5), SEMEL_DEADLINE);
    }
}

static void open_running(struct desk *desk, struct box *box,
                         const struct semel_pipe_options *options)
{
    open_desk(desk);
    open_box(box, desk, 3, options);
    box->wanted = 1;
    assert_int_equal(semel_sender_start(box->sender), SEMEL_OK);
    assert_int_equal(post(box->sender, 3, 0, 64, -1), SEMEL_OK);
    assert_int_equal(semel_router_route_until(desk->router, has_all, box, 20000), SEMEL_OK);
}

/* Memory that was named by messages which were dropped is the sender's again, though nothing was
 * delivered from it. */
static void test_dropped_slots(void **state)
{
    struct semel_pipe_options options = { .flood = SEMEL_FLOOD_COALESCE };
    struct semel_router_counters counters;
    struct box box;
    struct desk desk;

    (void)state;
    open_running(&desk, &box, &options);
    for (uint32_t round = 0; round < 5; round++) {
        for (uint32_t i = 1; i <= 8; i++)
            send_in_time(&desk, &box, 9 * round + i);
        assert_int_equal(post(box.sender, 3, 9 * round + 9, 64, -1), SEMEL_OK);
        assert_int_equal(semel_sender_flush(box.sender, 20000), SEMEL_OK);
        box.wanted = box.got + 1;
        assert_int_equal(semel_router_route_until(desk.router, has_all, &box, 20000), SEMEL_OK);
    }
    semel_router_counters(desk.router, &counters);
    assert_int_equal(counters.dropped, 0);
    assert_false(box.wrong);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

static void test_closed_pipe(void **state)
{
    struct box box;
    struct desk desk;

    (void)state;
    open_running(&desk, &box, NULL);
    assert_int_equal(semel_router_close_pipe(desk.router, box.receiver), SEMEL_OK);
    for (uint32_t i = 1; i <= 30; i++)
        send_in_time(&desk, &box, i);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST("messages of all sizes", test_sizes),
        TEST("filled in their place", test_reserved),
        TEST("never passed, and dropped", test_never_passed),
        TEST("passed by a sender that is gone", test_passed_then_dead),
        TEST("passed, and dropped for what came later", test_dropped_slots),
        TEST("passed to a pipe that is closed", test_closed_pipe),
    };

    router_kit_sender(argc, argv);
    return cmocka_run_group_tests_name("proc/router_passed", tests, NULL, NULL);
}
