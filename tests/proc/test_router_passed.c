/* SPDX-License-Identifier: MIT */
/* Large messages: in shared memory, or through the socket. */
#include "router_kit.h"

#include <errno.h>

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

static bool shares_memory(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    bool shares = false;
    char line[512];

    assert_non_null(maps);
    while (fgets(line, sizeof line, maps))
        shares |= strstr(line, "memfd:semel") != NULL;
    assert_int_equal(fclose(maps), 0);
    return shares;
}

/* Filled in its place, sent without a copy; slots are used again. Of a pipe whose messages are
 * never passed it is memory of its own. */
static void test_reserved(void **state)
{
    struct semel_pipe_options options = { .never_passed = false };
    struct box box;
    struct desk desk;
    void *place;

    (void)state;
    for (int round = 0; round < 2; round++) {
        options.never_passed = round == 1;
        open_desk(&desk);
        open_box(&box, &desk, 3, &options);
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
            fill(place, size, i);
            while (semel_sender_send_reserved(box.sender, 0) == SEMEL_WOULD_BLOCK)
                assert_int_equal(semel_loop_dispatch(desk.loop), SEMEL_OK);
        }
        assert_true(serve(&desk, has_all, &box, 60));
        assert_false(box.wrong);
        assert_int_equal(box.skipped, 0);
        assert_int_equal(shares_memory(), !options.never_passed);
        semel_sender_destroy(box.sender);
        close_desk(&desk);
    }
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
    box.wanted = 1; /* it is greeted by then, and needs nothing more of the router */
    assert_int_equal(semel_router_route_until(desk.router, has_all, &box, 60000), SEMEL_OK);
    assert_int_equal(exit_of(pid), 0);
    box.wanted = 3;
    assert_int_equal(semel_router_route_until(desk.router, has_all, &box, 60000), SEMEL_OK);
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

static bool goes_slowly(void *user)
{
    struct box *box = user;

    if (box->got > box->wanted)
        kit_sleep_ms(30);
    return false;
}

/* As much as its sender may share at once, numbered from 1, and all in the sockets: one read
 * fetches it. Returns the next number. */
static uint32_t share_all(struct box *box)
{
    uint32_t sent = 1;

    while (post(box->sender, box->number, sent, SEMEL_PASSED_BYTES, 0) == SEMEL_OK)
        sent++;
    assert_int_equal(semel_sender_flush(box->sender, 20000), SEMEL_OK);
    return sent;
}

/* By hand, what was delivered is told to the sender, which waits for it, however route_until ends:
 * here its time is over after each message. */
static void test_told_by_hand(void **state)
{
    struct box box;
    struct desk desk;
    uint32_t sent;

    (void)state;
    open_running(&desk, &box, NULL);
    sent = share_all(&box);
    while (box.got < sent) {
        box.wanted = box.got;
        assert_int_equal(semel_router_route_until(desk.router, goes_slowly, &box, 20),
                         SEMEL_DEADLINE);
    }
    assert_int_equal(post(box.sender, 3, sent, SEMEL_PASSED_BYTES, 20000), SEMEL_OK);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

/* So it is when a pipe is closed: what was queued there is dropped, and the sender has its memory
 * again. */
static void test_closed_by_hand(void **state)
{
    struct box box;
    struct desk desk;
    uint32_t sent;

    (void)state;
    open_running(&desk, &box, NULL);
    sent = share_all(&box);
    box.wanted = 2; /* the others stay queued */
    assert_int_equal(semel_router_route_until(desk.router, has_all, &box, 20000), SEMEL_OK);
    assert_int_equal(semel_router_close_pipe(desk.router, box.receiver), SEMEL_OK);
    for (uint32_t i = 1; i < sent; i++)
        assert_int_equal(post(box.sender, 3, sent, SEMEL_PASSED_BYTES, 5000), SEMEL_OK);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

/* And before it waits: more than fits into what a sender may share or send at once. */
static void test_by_hand(void **state)
{
    struct semel_pipe_options options[] = { { .never_passed = false }, { .never_passed = true } };
    struct box box;
    struct desk desk;
    pid_t pid;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        open_desk(&desk);
        open_box(&box, &desk, 3, &options[i]);
        pid = spawn_sender("--large", &box, 20);
        box.wanted = 20;
        assert_int_equal(semel_router_route_until(desk.router, has_all, &box, 60000), SEMEL_OK);
        assert_int_equal(exit_of(pid), 0);
        assert_false(box.wrong);
        semel_sender_destroy(box.sender);
        close_desk(&desk);
    }
}

/* A message of `size` bytes in reserved memory. */
static void send_reserved(struct box *box, uint32_t number, size_t size)
{
    uint32_t head[2] = { box->number, number };
    void *place;

    assert_int_equal(semel_sender_reserve(box->sender, size, 20000, &place), SEMEL_OK);
    memcpy(place, head, sizeof head);
    fill(place, size, number);
    assert_int_equal(semel_sender_send_reserved(box->sender, 20000), SEMEL_OK);
}

/* Memory that took the place of other, and was passed, but not named: what is named after that is
 * in it, although it would fit into the other, too. */
static void test_replaced_unnamed(void **state)
{
    struct box box;
    struct desk desk;
    void *place;

    (void)state;
    open_running(&desk, &box, NULL);
    send_reserved(&box, 1, 600000);
    box.wanted = 2;
    assert_int_equal(semel_router_route_until(desk.router, has_all, &box, 20000), SEMEL_OK);
    assert_int_equal(semel_sender_reserve(box.sender, 3000000, 20000, &place), SEMEL_OK);
    send_reserved(&box, 2, 600000); /* a second reservation takes the place of the first */
    box.wanted = 3;
    assert_int_equal(semel_router_route_until(desk.router, has_all, &box, 20000), SEMEL_OK);
    assert_false(box.wrong);
    assert_int_equal(box.skipped, 0);
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

#define PREPARED 600

struct prepared {
    struct semel_sender *senders[PREPARED];
    uint32_t reserved, sent;
};

/* All memory first, then all messages. */
static void *prepare(void *arg)
{
    struct prepared *prepared = arg;
    void *place;

    for (uint32_t i = 0; i < PREPARED; i++) {
        if (semel_sender_start(prepared->senders[i]) == SEMEL_OK &&
            semel_sender_reserve(prepared->senders[i], SEMEL_PASSED_BYTES, 5000, &place) ==
                SEMEL_OK)
            prepared->reserved++;
        else
            break;
    }
    for (uint32_t i = 0; i < prepared->reserved; i++)
        if (semel_sender_send_reserved(prepared->senders[i], 5000) == SEMEL_OK)
            prepared->sent++;
    return NULL;
}

/* More memory than fits into a socket is passed before any of it is named. */
static void test_prepared(void **state)
{
    static struct prepared prepared;
    struct box box = { .wanted = PREPARED };
    struct semel_receiver *receiver;
    struct desk desk;
    pthread_t thread;

    (void)state;
    open_desk(&desk);
    for (uint32_t i = 0; i < PREPARED; i++)
        assert_int_equal(semel_router_pipe(desk.router, NULL, count_message, &box, &receiver,
                                           &prepared.senders[i]),
                         SEMEL_OK);
    assert_int_equal(pthread_create(&thread, NULL, prepare, &prepared), 0);
    (void)serve(&desk, has_all, &box, 15);
    pthread_join(thread, NULL);
    assert_int_equal(prepared.reserved, PREPARED);
    assert_int_equal(box.got, PREPARED);
    for (uint32_t i = 0; i < PREPARED; i++)
        semel_sender_destroy(prepared.senders[i]);
    close_desk(&desk);
}

/* A connection to where memory is passed, that never passes any; -1: too many wait already. */
static int intrude(const struct box *box)
{
    struct sockaddr_un where = { .sun_family = AF_UNIX };
    char ticket[SEMEL_TICKET_BYTES];
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(semel_receiver_ticket(box->receiver, ticket, sizeof ticket), SEMEL_OK);
    snprintf(where.sun_path, sizeof where.sun_path, "%s", strstr(ticket, "unix:") + 5);
    where.sun_path[strlen(where.sun_path) - 1] = 'p';
    if (connect(fd, (struct sockaddr *)&where, sizeof where) == 0)
        return fd;
    assert_int_equal(errno, EAGAIN);
    close(fd);
    return -1;
}

/* Nobody can be accepted there any more: who has large messages neither waits nor fails. */
static void test_crowded(void **state)
{
    int count = 0, fds[1024];
    struct box box;
    struct desk desk;

    (void)state;
    open_running(&desk, &box, NULL);
    while (count < 1024 && (fds[count] = intrude(&box)) >= 0)
        count++;
    assert_true(count > 0 && count < 1024);
    for (uint32_t i = 1; i <= 20; i++)
        send_in_time(&desk, &box, i);
    box.wanted = 21;
    assert_int_equal(semel_router_route_until(desk.router, has_all, &box, 20000), SEMEL_OK);
    assert_false(box.wrong);
    while (count > 0)
        close(fds[--count]);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

/* Those who connect and pass nothing cost the router no more descriptors than it may have
 * connections, and nobody else a message. */
static void test_intruders(void **state)
{
    struct semel_router_options options = { .connections = 4 };
    struct box box = { .number = 3, .wanted = 40 };
    struct desk desk;
    int fds[40], before;

    (void)state;
    open_desk_with(&desk, options);
    open_box(&box, &desk, 3, NULL);
    box.wanted = 40;
    assert_int_equal(semel_sender_start(box.sender), SEMEL_OK);
    before = kit_count_fds();
    for (uint32_t i = 0; i < 40; i++) {
        fds[i] = intrude(&box);
        assert_true(fds[i] >= 0);
        assert_int_equal(post(box.sender, 3, i, SEMEL_PASSED_BYTES << (i / 8), 10000), SEMEL_OK);
        box.wanted = i + 1;
        assert_int_equal(semel_router_route_until(desk.router, has_all, &box, 20000), SEMEL_OK);
    }
    assert_false(box.wrong);
    assert_int_equal(box.skipped, 0);
    assert_true(kit_count_fds() - before <= 40 + 4 + 4);
    for (uint32_t i = 0; i < 40; i++)
        close(fds[i]);
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
        TEST("R6 route_until: what was delivered is told", test_told_by_hand),
        TEST("closed by hand: what was dropped is told", test_closed_by_hand),
        TEST("R6 route_until: more than fits at once", test_by_hand),
        TEST("passed anew, and not named", test_replaced_unnamed),
        TEST("passed to a pipe that is closed", test_closed_pipe),
        TEST("passed long before it is named", test_prepared),
        TEST("no room where it is passed", test_crowded),
        TEST("those who pass nothing", test_intruders),
    };

    router_kit_sender(argc, argv);
    return cmocka_run_group_tests_name("proc/router_passed", tests, NULL, NULL);
}
