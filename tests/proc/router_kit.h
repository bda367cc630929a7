/* SPDX-License-Identifier: MIT */
/* router_kit.h - a router on a real loop, and senders in threads and in processes of their own.
 * Included once per test program, whose main begins with router_kit_sender. */
#ifndef SML_TESTS_ROUTER_KIT_H
#define SML_TESTS_ROUTER_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <semel/semel.h>

#include "kit/kit.h"

extern char **environ;

#define TEST(name, function)                                                                       \
    {                                                                                              \
        name, function, NULL, NULL, NULL                                                           \
    }

/* --- a router and what its receivers saw ---------------------------------------------------- */

struct logged {
    int lines;
    char last[512];
};

struct desk {
    struct semel_loop *loop;
    struct semel_router *router;
    struct logged logged;
};

static inline void take_log(enum semel_log_level level, const char *text, void *user)
{
    struct logged *logged = user;

    (void)level;
    logged->lines++;
    (void)snprintf(logged->last, sizeof logged->last, "%s", text);
}

static inline void open_desk_with(struct desk *desk, struct semel_router_options options)
{
    memset(desk, 0, sizeof *desk);
    options.log = take_log;
    options.log_user = &desk->logged;
    assert_int_equal(semel_loop_create(&desk->loop, NULL), SEMEL_OK);
    assert_int_equal(semel_router_create(&desk->router, desk->loop, &options), SEMEL_OK);
    assert_int_equal(semel_router_start(desk->router), SEMEL_OK);
}

static inline void open_desk(struct desk *desk)
{
    struct semel_router_options options = SEMEL_ROUTER_OPTIONS_INIT;

    open_desk_with(desk, options);
}

static inline void close_desk(struct desk *desk)
{
    assert_int_equal(semel_router_destroy(desk->router), SEMEL_OK);
    assert_int_equal(semel_loop_destroy(desk->loop), SEMEL_OK);
}

struct box {
    struct semel_receiver *receiver;
    struct semel_sender *sender;
    struct desk *desk;
    uint32_t got, wanted;
    uint32_t skipped; /* numbers that did not come */
    uint32_t next;
    bool wrong; /* out of order, or not its own */
    bool stop_in_call, close_in_call;
    pthread_t thread;
    uint32_t number;
};

/* The filling of a message from HEAD_BYTES on: bytes that count, from its number on. They begin
 * anew every 256, which a copy and a comparison of all the rest say at once: byte by byte,
 * sanitizers would take seconds. */
#define HEAD_BYTES 8

static inline void fill(uint8_t *message, size_t size, uint32_t number)
{
    size_t end = HEAD_BYTES;

    for (; end < size && end < HEAD_BYTES + 256; end++)
        message[end] = (uint8_t)(number + end);
    for (; end < size; end += 256)
        memcpy(message + end, message + end - 256, size - end < 256 ? size - end : 256);
}

static inline bool is_filled(const uint8_t *message, size_t size, uint32_t number)
{
    const uint8_t *first = message + HEAD_BYTES;
    bool good = true;

    for (size_t i = HEAD_BYTES; i < size && i < HEAD_BYTES + 256; i++)
        good &= message[i] == (uint8_t)(number + i);
    if (size > HEAD_BYTES + 256)
        good &= memcmp(first + 256, first, size - HEAD_BYTES - 256) == 0;
    return good;
}

/* Messages are {box's number, running number, filling}. */
static inline void on_message(struct semel_receiver *receiver, struct semel_bytes message,
                              void *user)
{
    struct box *box = user;
    uint32_t head[2];

    box->got++;
    if (box->close_in_call && box->got == box->wanted) {
        assert_int_equal(semel_router_stop(box->desk->router, NULL), SEMEL_WOULD_DEADLOCK);
        assert_int_equal(semel_router_destroy(box->desk->router), SEMEL_WOULD_DEADLOCK);
        assert_int_equal(semel_router_close_pipe(box->desk->router, receiver), SEMEL_OK);
    }
    if (message.size < sizeof head) {
        box->wrong = true;
        return;
    }
    memcpy(head, message.data, sizeof head);
    box->wrong |= head[0] != box->number || head[1] < box->next || receiver != box->receiver;
    box->skipped += head[1] - box->next;
    box->next = head[1] + 1;
    box->wrong |= !is_filled((const uint8_t *)message.data, message.size, head[1]);
}

/* Of many pipes, for one box. */
static inline void count_message(struct semel_receiver *receiver, struct semel_bytes message,
                                 void *user)
{
    struct box *box = user;

    (void)receiver;
    (void)message;
    box->got++;
}

static inline void open_box(struct box *box, struct desk *desk, uint32_t number,
                            const struct semel_pipe_options *options)
{
    memset(box, 0, sizeof *box);
    box->desk = desk;
    box->number = number;
    assert_int_equal(
        semel_router_pipe(desk->router, options, on_message, box, &box->receiver, &box->sender),
        SEMEL_OK);
}

static inline enum semel_status post(struct semel_sender *sender, uint32_t box, uint32_t number,
                                     size_t size, int64_t timeout_ms)
{
    uint8_t *message = malloc(size);
    enum semel_status status;

    memcpy(message, &box, sizeof box);
    memcpy(message + 4, &number, sizeof number);
    fill(message, size, number);
    status = semel_sender_send(sender, semel_bytes(message, size), timeout_ms);
    free(message);
    return status;
}

static inline void *send_in_thread(void *arg)
{
    struct box *box = arg;

    assert_int_equal(semel_sender_start(box->sender), SEMEL_OK);
    for (uint32_t i = 0; i < box->wanted; i++)
        assert_int_equal(post(box->sender, box->number, i, 64, -1), SEMEL_OK);
    assert_int_equal(semel_sender_stop(box->sender, 30000), SEMEL_OK);
    return NULL;
}

/* Serve the loop until `done` says so. */
static inline bool serve(struct desk *desk, bool (*done)(void *), void *user, double seconds)
{
    uint64_t end = kit_now_ms() + (uint64_t)(seconds * 1000);

    while (!done(user)) {
        if (kit_now_ms() > end)
            return false;
        assert_int_equal(semel_loop_dispatch(desk->loop), SEMEL_OK);
    }
    return true;
}

static inline bool never(void *user)
{
    (void)user;
    return false;
}

static inline bool has_all(void *user)
{
    const struct box *box = user;

    return box->got >= box->wanted;
}

static inline uint64_t dropped_of(struct desk *desk)
{
    struct semel_router_counters counters;

    semel_router_counters(desk->router, &counters);
    return counters.dropped;
}

/* --- senders in other processes -------------------------------------------------------------- */

static const char *self;

static inline pid_t spawn_sender(const char *mode, const struct box *box, uint32_t count)
{
    char ticket[SEMEL_TICKET_BYTES], number[16], many[16];
    char *argv[] = { (char *)self, (char *)mode, ticket, number, many, NULL };
    pid_t pid;

    assert_int_equal(semel_receiver_ticket(box->receiver, ticket, sizeof ticket), SEMEL_OK);
    snprintf(number, sizeof number, "%u", box->number);
    snprintf(many, sizeof many, "%u", count);
    assert_int_equal(posix_spawn(&pid, self, NULL, NULL, argv, environ), 0);
    return pid;
}

static inline int exit_of(pid_t pid)
{
    int status = -1;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The other process: --send, --die (without a word), --forever, --large. */
static inline int sender_main(char **argv)
{
    uint32_t number = (uint32_t)atoi(argv[3]), count = (uint32_t)atoi(argv[4]);
    bool forever = strcmp(argv[1], "--forever") == 0;
    size_t size = strcmp(argv[1], "--large") == 0 ? 3000000 : 64;
    struct semel_sender *sender;

    if (semel_sender_create(&sender, argv[2]) != SEMEL_OK || semel_sender_start(sender) != SEMEL_OK)
        return 2;
    for (uint32_t i = 0; forever || i < count; i++) {
        enum semel_status status = post(sender, number, i, size, -1);

        if (status != SEMEL_OK)
            return status == SEMEL_PEER_DIED ? 3 : 4;
    }
    if (strcmp(argv[1], "--die") == 0) {
        (void)!semel_sender_flush(sender, -1);
        raise(SIGKILL);
    }
    return semel_sender_stop(sender, -1) == SEMEL_OK ? 0 : 5; /* and the process ends at once */
}

/* In a sender's process it never returns. */
static inline void router_kit_sender(int argc, char **argv)
{
    if (argc == 5)
        _exit(sender_main(argv)); /* at once: with its sender, and what that has */
    self = argv[0];
}

#endif
