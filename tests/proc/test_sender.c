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

/* --- a loop that is busy --------------------------------------------------------------------- */

/* For longer than servers may take to greet: nothing is lost by that. */
static void test_busy_loop(void **state)
{
    struct box box;
    struct desk desk;

    (void)state;
    open_desk(&desk);
    open_box(&box, &desk, 3, NULL);
    box.wanted = 10;
    assert_int_equal(semel_sender_start(box.sender), SEMEL_OK);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(post(box.sender, 3, i, 64, -1), SEMEL_OK);
    kit_sleep_ms(SEMEL_HANDSHAKE_MS + 500);
    assert_true(serve(&desk, has_all, &box, 60));
    semel_sender_destroy(box.sender);
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
        TEST("a router whose loop is busy for long greets late", test_busy_loop),
        TEST("forked while senders start", test_forks),
    };

    router_kit_sender(argc, argv);
    return cmocka_run_group_tests_name("proc/sender", tests, NULL, NULL);
}
