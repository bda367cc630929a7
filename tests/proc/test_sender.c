/* SPDX-License-Identifier: MIT */
/* Senders and their states. */
#include "router_kit.h"

#include <stdatomic.h>

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

/* --- the end --------------------------------------------------------------------------------- */

/* Whoever stops learns whether what was sent is out, and if not, why. */
static void test_stop(void **state)
{
    struct semel_sender *second;
    char ticket[SEMEL_TICKET_BYTES];
    struct desk desk;
    struct box box;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 0, NULL);
    box.wanted = 1;
    assert_int_equal(semel_receiver_ticket(box.receiver, ticket, sizeof ticket), SEMEL_OK);
    assert_int_equal(semel_sender_create(&second, ticket), SEMEL_OK);
    assert_int_equal(semel_sender_start(box.sender), SEMEL_OK);
    assert_int_equal(post(box.sender, 0, 0, 64, 0), SEMEL_OK);
    assert_true(serve(&desk, has_all, &box, 20));
    assert_int_equal(semel_sender_start(second), SEMEL_OK);
    assert_int_equal(post(second, 0, 1, 64, 0), SEMEL_OK);
    assert_int_equal(semel_sender_flush(second, 20000), SEMEL_OK);
    (void)!semel_router_route_until(desk.router, never, NULL, 100);
    assert_int_equal(semel_sender_stop(second, 20000), SEMEL_DENIED);
    semel_sender_destroy(second);
    assert_int_equal(semel_router_stop(desk.router, NULL), SEMEL_OK);
    assert_int_equal(semel_sender_stop(box.sender, 20000), SEMEL_PEER_DIED);
    assert_int_equal(semel_sender_stop(box.sender, 20000), SEMEL_ALREADY);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

/* --- a loop that is busy ---------------------------------------------------------------------- */

/* Longer than an ordinary client waits for its greeting: the router is no less there. */
static void test_busy_loop(void **state)
{
    struct desk desk;
    struct box box;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 0, NULL);
    box.wanted = 1;
    assert_int_equal(semel_sender_start(box.sender), SEMEL_OK);
    assert_int_equal(post(box.sender, 0, 0, 64, 0), SEMEL_OK);
    kit_sleep_ms(SEMEL_HANDSHAKE_MS + 1500);
    assert_true(serve(&desk, has_all, &box, 20));
    assert_int_equal(semel_sender_flush(box.sender, 20000), SEMEL_OK);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

/* --- many ------------------------------------------------------------------------------------ */

#define MANY 1200

struct crowd {
    struct semel_sender *senders[MANY];
    _Atomic enum semel_status status; /* of the first that could not send, or could not stop */
};

static void note_status(struct crowd *crowd, enum semel_status status)
{
    if (status != SEMEL_OK && atomic_load(&crowd->status) == SEMEL_OK)
        atomic_store(&crowd->status, status);
}

static void *send_from_all(void *arg)
{
    struct crowd *crowd = arg;

    for (uint32_t i = 0; i < MANY; i++)
        note_status(crowd, post(crowd->senders[i], 0, i, 64, 10000));
    for (uint32_t i = 0; i < MANY; i++)
        note_status(crowd, semel_sender_flush(crowd->senders[i], 10000));
    return NULL;
}

/* One process has more senders than calls in an ordinary window: all of them get through. */
static void test_many(void **state)
{
    struct box box = { .wanted = MANY };
    struct semel_receiver *receiver;
    static struct crowd crowd;
    struct desk desk;
    pthread_t thread;

    (void)state;
    open_desk(&desk);
    for (uint32_t i = 0; i < MANY; i++) {
        assert_int_equal(
            semel_router_pipe(desk.router, NULL, count_message, &box, &receiver, &crowd.senders[i]),
            SEMEL_OK);
        assert_int_equal(semel_sender_start(crowd.senders[i]), SEMEL_OK);
    }
    assert_int_equal(pthread_create(&thread, NULL, send_from_all, &crowd), 0);
    (void)serve(&desk, has_all, &box, 30);
    assert_int_equal(box.got, MANY);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&crowd.status), SEMEL_OK);
    for (uint32_t i = 0; i < MANY; i++)
        semel_sender_destroy(crowd.senders[i]);
    close_desk(&desk);
}

/* --- forks ----------------------------------------------------------------------------------- */

/* A sanitizer has locks of its own, and none lets a child of many threads begin others. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

struct churn {
    char ticket[SEMEL_TICKET_BYTES];
    atomic_bool stop;
};

static void start_one(const char *ticket)
{
    struct semel_sender *sender;

    assert_int_equal(semel_sender_create(&sender, ticket), SEMEL_OK);
    assert_int_equal(semel_sender_start(sender), SEMEL_OK);
    semel_sender_destroy(sender);
}

static void *start_many(void *arg)
{
    struct churn *churn = arg;

    do
        start_one(churn->ticket);
    while (!atomic_load(&churn->stop));
    return NULL;
}

/* A child has senders of its own, whatever another thread of its parent was at when it came to be;
 * and gives back what it has of its parent's. */
static void test_forks(void **state)
{
    struct churn churn = { .stop = false };
    struct desk desk;
    struct box box;
    pthread_t thread;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 0, NULL);
    assert_int_equal(semel_receiver_ticket(box.receiver, churn.ticket, sizeof churn.ticket),
                     SEMEL_OK);
    assert_int_equal(pthread_create(&thread, NULL, start_many, &churn), 0);
    for (int i = 0; i < 50 && !SANITIZED; i++) {
        struct semel_sender *sender = NULL;
        pid_t pid;

        if (i % 5 == 0) {
            assert_int_equal(semel_sender_create(&sender, churn.ticket), SEMEL_OK);
            assert_int_equal(semel_sender_start(sender), SEMEL_OK);
        }
        pid = fork();
        if (pid == 0) {
            alarm(20);
            start_one(churn.ticket);
            semel_sender_destroy(sender);
            _exit(0);
        }
        assert_true(pid > 0);
        assert_int_equal(exit_of(pid), 0);
        semel_sender_destroy(sender);
        assert_int_equal(semel_router_route_until(desk.router, never, NULL, 1), SEMEL_DEADLINE);
    }
    atomic_store(&churn.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    semel_sender_destroy(box.sender);
    close_desk(&desk);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST("R3 state errors", test_states),
        TEST("stopped, and nobody there", test_stop),
        TEST("a loop that is busy for long", test_busy_loop),
        TEST("many of one process", test_many),
        TEST("forked while senders start", test_forks),
    };

    router_kit_sender(argc, argv);
    return cmocka_run_group_tests_name("proc/sender", tests, NULL, NULL);
}
