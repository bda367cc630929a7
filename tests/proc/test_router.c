/* SPDX-License-Identifier: MIT */
/* The message router: pipes, delivery, floods, the end. */
#include "router_kit.h"

#include <dirent.h>

/* --- R1 -------------------------------------------------------------------------------------- */

static void test_ids(void **state)
{
    struct desk desk;
    struct box boxes[5];

    (void)state;
    open_desk(&desk);
    for (uint32_t i = 0; i < 5; i++) {
        open_box(&boxes[i], &desk, i, NULL);
        assert_int_equal(semel_receiver_id(boxes[i].receiver), i);
    }
    assert_int_equal(semel_router_close_pipe(desk.router, boxes[4].receiver), SEMEL_OK);
    semel_sender_destroy(boxes[4].sender);
    open_box(&boxes[4], &desk, 4, NULL);
    assert_int_equal(semel_receiver_id(boxes[4].receiver), 5); /* not used again */
    for (uint32_t i = 0; i < 5; i++)
        semel_sender_destroy(boxes[i].sender);
    close_desk(&desk);
}

static void test_other_process(void **state)
{
    struct desk desk;
    struct box box;
    pid_t pid;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 7, NULL);
    box.wanted = 1000;
    pid = spawn_sender("--send", &box, 1000);
    assert_true(serve(&desk, has_all, &box, 60));
    assert_int_equal(exit_of(pid), 0);
    assert_false(box.wrong);
    assert_int_equal(box.skipped, 0);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

/* --- R2 -------------------------------------------------------------------------------------- */

#define SENDERS 64
#define EACH 64

static bool all_have_all(void *user)
{
    const struct box *boxes = user;

    for (int i = 0; i < SENDERS; i++)
        if (boxes[i].got < EACH)
            return false;
    return true;
}

static void test_fifo(void **state)
{
    struct box *boxes = calloc(SENDERS, sizeof *boxes);
    struct desk desk;

    (void)state;
    open_desk(&desk);
    for (uint32_t i = 0; i < SENDERS; i++) {
        open_box(&boxes[i], &desk, i, NULL);
        boxes[i].wanted = EACH;
    }
    for (uint32_t i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_create(&boxes[i].thread, NULL, send_in_thread, &boxes[i]), 0);
    assert_true(serve(&desk, all_have_all, boxes, 60));
    for (uint32_t i = 0; i < SENDERS; i++) {
        pthread_join(boxes[i].thread, NULL);
        assert_false(boxes[i].wrong);
        assert_int_equal(boxes[i].got, EACH);
        assert_int_equal(boxes[i].skipped, 0);
        semel_sender_destroy(boxes[i].sender);
    }
    close_desk(&desk);
    free(boxes);
}

static void test_fifo_processes(void **state)
{
    struct box boxes[4];
    struct desk desk;
    pid_t pids[4];

    (void)state;
    open_desk(&desk);
    for (uint32_t i = 0; i < 4; i++) {
        open_box(&boxes[i], &desk, i, NULL);
        boxes[i].wanted = 5000;
        pids[i] = spawn_sender("--send", &boxes[i], 5000);
    }
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(serve(&desk, has_all, &boxes[i], 60));
        assert_false(boxes[i].wrong);
        assert_int_equal(boxes[i].skipped, 0);
        assert_int_equal(exit_of(pids[i]), 0);
        semel_sender_destroy(boxes[i].sender);
    }
    close_desk(&desk);
}

/* --- R3: threads --- */

static void *touch_router(void *arg)
{
    struct desk *desk = arg;
    struct semel_receiver *receiver;

    assert_int_equal(semel_router_start(desk->router), SEMEL_DENIED);
    assert_int_equal(semel_router_stop(desk->router, NULL), SEMEL_DENIED);
    assert_int_equal(semel_router_pipe(desk->router, NULL, on_message, NULL, &receiver, NULL),
                     SEMEL_DENIED);
    assert_int_equal(semel_router_route_until(desk->router, never, NULL, 0), SEMEL_DENIED);
    assert_int_equal(semel_router_destroy(desk->router), SEMEL_DENIED);
    return NULL;
}

static void test_wrong_thread(void **state)
{
    struct desk desk;
    pthread_t thread;

    (void)state;
    open_desk(&desk);
    assert_int_equal(semel_loop_dispatch(desk.loop), SEMEL_OK); /* it is this thread's from here */
    assert_int_equal(pthread_create(&thread, NULL, touch_router, &desk), 0);
    pthread_join(thread, NULL);
    close_desk(&desk);
}

/* --- R4 -------------------------------------------------------------------------------------- */

static bool dropped_ten(void *user)
{
    return dropped_of(user) == 10;
}

static void test_leftovers(void **state)
{
    struct box box, other;
    struct desk desk;
    uint32_t open = 0;

    (void)state;
    open_desk(&desk);
    open_box(&other, &desk, 0, NULL);
    open_box(&box, &desk, 1, NULL);
    assert_int_equal(semel_sender_start(box.sender), SEMEL_OK);
    assert_int_equal(post(box.sender, 1, 0, 64, -1), SEMEL_OK);
    box.wanted = 1;
    assert_true(serve(&desk, has_all, &box, 30));
    assert_int_equal(semel_router_close_pipe(desk.router, box.receiver), SEMEL_OK);
    for (uint32_t i = 1; i <= 10; i++)
        assert_int_equal(post(box.sender, 1, i, 64, -1), SEMEL_OK);
    assert_int_equal(semel_sender_stop(box.sender, 30000), SEMEL_OK);
    assert_true(serve(&desk, dropped_ten, &desk, 30));
    assert_int_equal(box.got, 1);
    assert_non_null(strstr(desk.logged.last, "pipe 1 "));
    desk.logged.lines = 0;
    assert_int_equal(semel_router_stop(desk.router, &open), SEMEL_OK);
    assert_int_equal(open, 1);
    assert_int_equal(desk.logged.lines, 1);
    assert_non_null(strstr(desk.logged.last, "1 pipes were not closed"));
    semel_sender_destroy(box.sender);
    semel_sender_destroy(other.sender);
    close_desk(&desk);
}

/* --- R5 -------------------------------------------------------------------------------------- */

static void test_one_call_each(void **state)
{
    struct semel_router_counters counters;
    struct box box;
    struct desk desk;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 3, NULL);
    box.wanted = 5000;
    assert_int_equal(pthread_create(&box.thread, NULL, send_in_thread, &box), 0);
    assert_true(serve(&desk, has_all, &box, 30));
    pthread_join(box.thread, NULL);
    for (int i = 0; i < 100; i++)
        assert_int_equal(semel_loop_dispatch(desk.loop), SEMEL_OK);
    assert_int_equal(box.got, 5000);
    semel_router_counters(desk.router, &counters);
    assert_int_equal(counters.delivered, 5000);
    assert_int_equal(counters.dropped, 0);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

/* Closed in its own call: not one more, although more are there. */
static void test_close_in_call(void **state)
{
    struct box box;
    struct desk desk;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 3, NULL);
    box.wanted = 10;
    box.close_in_call = true;
    assert_int_equal(semel_sender_start(box.sender), SEMEL_OK);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(post(box.sender, 3, i, 64, -1), SEMEL_OK);
    assert_true(serve(&desk, has_all, &box, 30));
    assert_int_equal(semel_sender_stop(box.sender, 0) == SEMEL_ALREADY, 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(semel_loop_dispatch(desk.loop), SEMEL_OK);
    assert_int_equal(box.got, 10);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

/* --- R6, R7, R8 ------------------------------------------------------------------------------ */

struct asked {
    struct box *box;
    int times;
    uint32_t until;
};

static bool ask(void *user)
{
    struct asked *asked = user;

    asked->times++;
    return asked->box->got >= asked->until;
}

static void test_route_until(void **state)
{
    struct box box;
    struct desk desk;
    struct asked asked = { &box, 0, 0 };

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 3, NULL);
    assert_int_equal(semel_sender_start(box.sender), SEMEL_OK);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(post(box.sender, 3, i, 64, -1), SEMEL_OK);
    /* The condition comes first: nothing is delivered if it holds. */
    assert_int_equal(semel_router_route_until(desk.router, ask, &asked, -1), SEMEL_OK);
    assert_int_equal(box.got, 0);
    assert_int_equal(asked.times, 1);
    /* And after each message. */
    asked.until = 30;
    assert_int_equal(semel_router_route_until(desk.router, ask, &asked, -1), SEMEL_OK);
    assert_int_equal(box.got, 30);
    /* The loop routes no more, for good; the descriptor is quiet. */
    for (int i = 0; i < 20; i++)
        assert_int_equal(semel_loop_dispatch(desk.loop), SEMEL_OK);
    assert_int_equal(box.got, 30);
    assert_int_equal(semel_loop_timeout_ns(desk.loop), -1);
    /* Again, from where it stood. */
    asked.until = 100;
    assert_int_equal(semel_router_route_until(desk.router, ask, &asked, 30000), SEMEL_OK);
    assert_int_equal(box.got, 100);
    assert_false(box.wrong);
    assert_int_equal(semel_router_route_until(desk.router, never, NULL, 20), SEMEL_DEADLINE);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

/* The condition is asked inside the router. */
static bool ends_it(void *user)
{
    struct semel_router *router = ((struct desk *)user)->router;

    assert_int_equal(semel_router_route_until(router, never, NULL, 0), SEMEL_WOULD_DEADLOCK);
    assert_int_equal(semel_router_stop(router, NULL), SEMEL_WOULD_DEADLOCK);
    assert_int_equal(semel_router_destroy(router), SEMEL_WOULD_DEADLOCK);
    return true;
}

static void test_condition_ends_it(void **state)
{
    struct desk desk;

    (void)state;
    open_desk(&desk);
    assert_int_equal(semel_router_route_until(desk.router, ends_it, &desk, 0), SEMEL_OK);
    close_desk(&desk);
}

static bool eight_have_fifty(void *user)
{
    const struct box *boxes = user;

    for (int i = 0; i < 8; i++)
        if (boxes[i].got < 50)
            return false;
    return true;
}

static void test_no_time(void **state)
{
    struct box boxes[8];
    struct desk desk;

    (void)state;
    open_desk(&desk);
    for (uint32_t i = 0; i < 8; i++) {
        open_box(&boxes[i], &desk, i, NULL);
        assert_int_equal(semel_sender_start(boxes[i].sender), SEMEL_OK);
        for (uint32_t k = 0; k < 50; k++)
            assert_int_equal(post(boxes[i].sender, i, k, 64, -1), SEMEL_OK);
    }
    /* They greet, and are greeted: then what they send is in the sockets. */
    assert_int_equal(semel_router_route_until(desk.router, eight_have_fifty, boxes, 60000),
                     SEMEL_OK);
    for (uint32_t i = 0; i < 8; i++) {
        for (uint32_t k = 50; k < 100; k++)
            assert_int_equal(post(boxes[i].sender, i, k, 64, -1), SEMEL_OK);
        assert_int_equal(semel_sender_stop(boxes[i].sender, 30000), SEMEL_OK);
    }
    assert_int_equal(semel_router_route_until(desk.router, never, NULL, 0), SEMEL_DEADLINE);
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(boxes[i].got, 100);
        semel_sender_destroy(boxes[i].sender);
    }
    close_desk(&desk);
}

static void test_budget(void **state)
{
    struct box box;
    struct desk desk;
    uint64_t begun;
    pid_t pid;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 3, NULL);
    pid = spawn_sender("--forever", &box, 0);
    box.wanted = 1;
    assert_true(serve(&desk, has_all, &box, 30));
    begun = kit_now_ms();
    assert_int_equal(semel_router_route_until(desk.router, never, NULL, 300), SEMEL_DEADLINE);
    assert_in_range(kit_now_ms() - begun, 300, 5000);
    assert_true(box.got > 100); /* there was continuous traffic */
    begun = kit_now_ms();
    assert_int_equal(semel_router_route_until(desk.router, never, NULL, 0), SEMEL_DEADLINE);
    assert_true(kit_now_ms() - begun < 5000);
    assert_int_equal(semel_router_stop(desk.router, NULL), SEMEL_OK);
    assert_int_equal(exit_of(pid), 3); /* it is told that the router is gone */
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

/* --- R9 -------------------------------------------------------------------------------------- */

static int entries_of(const char *path)
{
    DIR *directory = opendir(path);
    int count = -2; /* "." and ".." */

    assert_non_null(directory);
    while (readdir(directory))
        count++;
    assert_int_equal(closedir(directory), 0);
    return count;
}

static void test_nothing_left(void **state)
{
    int fds = kit_count_fds(), threads = kit_count_threads();
    struct semel_router_options options = SEMEL_ROUTER_OPTIONS_INIT;
    struct kit_place place;
    struct box box;
    struct desk desk;

    (void)state;
    kit_place_make(&place);
    options.directory = place.directory;
    for (int round = 0; round < 20; round++) {
        open_desk_with(&desk, options);
        assert_int_equal(entries_of(place.directory), 1);
        open_box(&box, &desk, 3, NULL);
        assert_int_equal(semel_sender_start(box.sender), SEMEL_OK);
        for (uint32_t i = 0; i < 100; i++)
            assert_int_equal(post(box.sender, 3, i, 64, -1), SEMEL_OK);
        box.wanted = 40;
        if (round % 2)
            assert_true(serve(&desk, has_all, &box, 30));
        if (round % 3 == 0)
            semel_sender_destroy(box.sender);
        assert_int_equal(semel_router_stop(desk.router, NULL), SEMEL_OK);
        if (round % 2) { /* what was accepted was delivered, or is counted */
            struct semel_router_counters counters;

            semel_router_counters(desk.router, &counters);
            assert_int_equal(counters.delivered, box.got);
        }
        if (round % 3)
            semel_sender_destroy(box.sender);
        close_desk(&desk);
    }
    assert_true(kit_settled(fds, threads));
    assert_int_equal(entries_of(place.directory), 0);
    kit_place_remove(&place);
}

/* --- R19 ------------------------------------------------------------------------------------- */

static void test_flood_blocks(void **state)
{
    enum semel_status status = SEMEL_OK;
    struct box box;
    struct desk desk;
    uint32_t sent = 0;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 3, NULL);
    assert_int_equal(semel_sender_start(box.sender), SEMEL_OK);
    while (status == SEMEL_OK && sent < 100000) {
        status = post(box.sender, 3, sent, 1000, 0);
        sent += status == SEMEL_OK;
    }
    assert_int_equal(status, SEMEL_WOULD_BLOCK); /* nobody reads: bounded */
    assert_in_range(sent, 100, 5000);
    box.wanted = sent;
    assert_true(serve(&desk, has_all, &box, 30));
    assert_int_equal(box.skipped, 0);
    assert_false(box.wrong);
    assert_int_equal(post(box.sender, 3, sent, 1000, 30000), SEMEL_OK);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

struct at_end {
    struct box *box;
    uint32_t number;
};

static bool saw_number(void *user)
{
    const struct at_end *end = user;

    return end->box->next > end->number;
}

static void flood_drops(enum semel_flood flood, uint32_t queue)
{
    struct semel_pipe_options options = { .flood = flood, .queue_messages = queue };
    struct semel_router_options slowly = { .turn_messages = 1 };
    struct semel_router_counters counters;
    struct box box;
    struct desk desk;
    struct at_end end = { &box, 19999 };
    pid_t pid;

    open_desk_with(&desk, slowly);
    open_box(&box, &desk, 3, &options);
    pid = spawn_sender("--send", &box, 20000);
    assert_int_equal(semel_router_route_until(desk.router, saw_number, &end, 60000), SEMEL_OK);
    assert_int_equal(exit_of(pid), 0);
    semel_router_counters(desk.router, &counters);
    assert_false(box.wrong); /* in order, the newest always */
    assert_int_equal(box.skipped, counters.flooded);
    assert_int_equal(box.got + counters.flooded, 20000);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

static void test_flood_drops_old(void **state)
{
    (void)state;
    flood_drops(SEMEL_FLOOD_DROP_OLD, 16);
}

static void test_flood_coalesces(void **state)
{
    (void)state;
    flood_drops(SEMEL_FLOOD_COALESCE, 0);
}

static void test_limits(void **state)
{
    struct semel_router_options few = { .pipes = 3 };
    struct semel_receiver *receiver;
    struct box boxes[3];
    struct desk desk;

    (void)state;
    open_desk_with(&desk, few);
    for (uint32_t i = 0; i < 3; i++)
        open_box(&boxes[i], &desk, i, NULL);
    assert_int_equal(semel_router_pipe(desk.router, NULL, on_message, NULL, &receiver, NULL),
                     SEMEL_LIMIT);
    assert_int_equal(semel_router_close_pipe(desk.router, boxes[0].receiver), SEMEL_OK);
    semel_sender_destroy(boxes[0].sender);
    open_box(&boxes[0], &desk, 0, NULL);
    for (uint32_t i = 0; i < 3; i++)
        semel_sender_destroy(boxes[i].sender);
    close_desk(&desk);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST("R1 pipe: ids are unique, from 0", test_ids),
        TEST("R1 pipe: a sender in another process", test_other_process),
        TEST("R2 FIFO: 64 senders, 64 messages each", test_fifo),
        TEST("R2 FIFO: senders in processes", test_fifo_processes),
        TEST("R3 state errors: another thread's", test_wrong_thread),
        TEST("R4 leftovers", test_leftovers),
        TEST("R5 ping: one call for each message", test_one_call_each),
        TEST("R5 ping: none after it was closed in its call", test_close_in_call),
        TEST("R6 route_until", test_route_until),
        TEST("R6 route_until: its condition ends the router", test_condition_ends_it),
        TEST("R7 0 s budget", test_no_time),
        TEST("R8 budget under continuous traffic", test_budget),
        TEST("R9 stop: nothing of a router is left", test_nothing_left),
        TEST("R19 flood: block", test_flood_blocks),
        TEST("R19 flood: drop old", test_flood_drops_old),
        TEST("R19 flood: coalesce", test_flood_coalesces),
        TEST("as many pipes as there may be", test_limits),
    };

    router_kit_sender(argc, argv);
    return cmocka_run_group_tests_name("proc/router", tests, NULL, NULL);
}
