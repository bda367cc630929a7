/* SPDX-License-Identifier: MIT */
/* router.c - messages from worker processes into one loop.
 *   --what=flow --workers=N --size=BYTES --secs=S --how=passed|socket|reserved
 *       N processes send messages as fast as they can to a pipe each; prints messages per second.
 *       Each message is filled by its sender, and its receiver adds up its bytes. Large ones are
 *       passed as memory, or by choice go through the socket, or are filled in their place.
 *   --what=wake --samples=N --pin=none|same|cross --pause_us=US
 *       In turns, after a pause, a process sends one message to a loop that sleeps, and writes one
 *       byte to a socketpair on which the same thread sleeps in epoll_wait, and reads it, as a loop
 *       must; and to one on which it sleeps in read, as a loop cannot. Prints the medians from
 *       before the send to inside of the receiver (after the read), and their ratios. */
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kit.h"

struct shared { /* with the workers */
    char tickets[16][SEMEL_TICKET_BYTES];
    _Atomic uint64_t sent_at;
    _Atomic bool over;
};

struct plan {
    int workers, samples, worker;
    int pin; /* 0: not; 1: both on one core; 2: on two */
    size_t size;
    double secs;
    uint64_t pause; /* ns */
    const char *how;
    struct shared *shared;
    int raw[2];
};

/* --- flow --- */

static bool send_one(struct semel_sender *sender, const struct plan *plan, uint8_t *message)
{
    void *place = message;

    if (strcmp(plan->how, "reserved") == 0 &&
        semel_sender_reserve(sender, plan->size, -1, &place) != SEMEL_OK)
        return false;
    memset(place, 1, plan->size);
    if (place != message)
        return semel_sender_send_reserved(sender, -1) == SEMEL_OK;
    return semel_sender_send(sender, semel_bytes(message, plan->size), -1) == SEMEL_OK;
}

static void send_all(int fd, void *user)
{
    struct plan *plan = user;
    uint8_t *message = calloc(1, plan->size);
    struct semel_sender *sender;

    (void)kit_receive(fd);
    kit_need(semel_sender_create(&sender, plan->shared->tickets[plan->worker]), "sender");
    kit_need(semel_sender_start(sender), "start");
    kit_send(fd, 1);
    (void)kit_receive(fd);
    while (!atomic_load_explicit(&plan->shared->over, memory_order_relaxed) &&
           send_one(sender, plan, message))
        continue;
    _exit(0);
}

static void count(struct semel_receiver *receiver, struct semel_bytes message, void *user)
{
    const uint8_t *at = message.data;
    uint64_t sum = 0, word;

    (void)receiver;
    for (size_t i = 0; i + 8 <= message.size; i += 8) {
        memcpy(&word, at + i, 8);
        sum += word;
    }
    *(uint64_t *)user += sum != 0;
}

static void stop_loop(void *loop)
{
    semel_loop_stop(loop);
}

static void run_for(struct semel_loop *loop, double seconds)
{
    kit_need(semel_loop_timer(loop, (int64_t)(seconds * 1e3), stop_loop, loop, NULL), "timer");
    kit_need(semel_loop_run(loop), "run");
}

static void run_flow(struct plan *plan)
{
    struct kit_child children[16];
    struct semel_router *router;
    struct semel_loop *loop;
    struct semel_pipe_options options = { .never_passed = strcmp(plan->how, "socket") == 0 };
    uint64_t messages = 0, begun;

    for (plan->worker = 0; plan->worker < plan->workers; plan->worker++)
        children[plan->worker] = kit_fork(send_all, plan);
    kit_need(semel_loop_create(&loop, NULL), "loop");
    kit_need(semel_router_create(&router, loop, NULL), "router");
    kit_need(semel_router_start(router), "start");
    for (int i = 0; i < plan->workers; i++) {
        struct semel_receiver *receiver;

        kit_need(semel_router_pipe(router, &options, count, &messages, &receiver, NULL), "pipe");
        kit_need(semel_receiver_ticket(receiver, plan->shared->tickets[i], SEMEL_TICKET_BYTES),
                 "ticket");
        kit_send(children[i].fd, 1);
        (void)kit_receive(children[i].fd);
    }
    for (int i = 0; i < plan->workers; i++)
        kit_send(children[i].fd, 1);
    run_for(loop, 0.3);
    messages = 0;
    begun = kit_now_ns();
    run_for(loop, plan->secs);
    begun = kit_now_ns() - begun;
    atomic_store(&plan->shared->over, true);
    printf("figure=router what=flow workers=%d size=%zu how=%s rate=%.0f gbs=%.3f\n", plan->workers,
           plan->size, plan->how, (double)messages * 1e9 / (double)begun,
           (double)messages * (double)plan->size / (double)begun);
    for (int i = 0; i < plan->workers; i++)
        kit_end(children[i]);
}

/* --- wake --- */

static void pin(int core)
{
    cpu_set_t set;

    if (core < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        kit_die("sched_setaffinity");
}

static void send_one_by_one(int fd, void *user)
{
    struct plan *plan = user;
    struct semel_sender *sender;
    char byte = 0;

    (void)kit_receive(fd);
    kit_need(semel_sender_create(&sender, plan->shared->tickets[0]), "sender");
    kit_need(semel_sender_start(sender), "start");
    kit_need(semel_sender_send(sender, semel_bytes("x", 1), -1), "send");
    for (;;) {
        uint64_t what = kit_receive(fd);

        kit_sleep_ns(plan->pause);
        atomic_store(&plan->shared->sent_at, kit_now_ns());
        if (what == 1)
            kit_need(semel_sender_send(sender, semel_bytes("x", 1), -1), "send");
        else if (write(plan->raw[1], &byte, 1) != 1)
            kit_die("write");
    }
}

struct waker {
    struct plan *plan;
    struct semel_loop *loop;
    struct kit_samples samples, raw, raw_read;
    int set;
    struct kit_child child;
};

static void wake_raw(struct waker *waker, bool set)
{
    struct epoll_event event;
    char byte;

    kit_send(waker->child.fd, 2);
    if (set && epoll_wait(waker->set, &event, 1, -1) != 1)
        kit_die("epoll_wait");
    if (recv(waker->plan->raw[0], &byte, 1, 0) != 1)
        kit_die("recv");
    kit_sample(set ? &waker->raw : &waker->raw_read,
               kit_now_ns() - atomic_load(&waker->plan->shared->sent_at));
}

static void on_one(struct semel_receiver *receiver, struct semel_bytes message, void *user)
{
    struct waker *waker = user;
    uint64_t now = kit_now_ns(), sent = atomic_load(&waker->plan->shared->sent_at);

    (void)receiver;
    (void)message;
    if (sent != 0)
        kit_sample(&waker->samples, now - sent);
    wake_raw(waker, true);
    wake_raw(waker, false);
    if (waker->samples.count >= (size_t)waker->plan->samples)
        semel_loop_stop(waker->loop);
    else
        kit_send(waker->child.fd, 1);
}

static void run_wake(struct plan *plan)
{
    struct waker waker = { .plan = plan };
    struct semel_receiver *receiver;
    struct semel_router *router;
    struct epoll_event event = { .events = EPOLLIN };
    double ours, theirs, reads;

    waker.set = epoll_create1(0);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, plan->raw) != 0 ||
        epoll_ctl(waker.set, EPOLL_CTL_ADD, plan->raw[0], &event) != 0)
        kit_die("socketpair");
    pin(plan->pin ? 0 : -1);
    waker.child = kit_fork(send_one_by_one, plan);
    pin(plan->pin == 2 ? 1 : plan->pin ? 0 : -1);
    kit_need(semel_loop_create(&waker.loop, NULL), "loop");
    kit_need(semel_router_create(&router, waker.loop, NULL), "router");
    kit_need(semel_router_start(router), "start");
    kit_need(semel_router_pipe(router, NULL, on_one, &waker, &receiver, NULL), "pipe");
    kit_need(semel_receiver_ticket(receiver, plan->shared->tickets[0], SEMEL_TICKET_BYTES),
             "ticket");
    kit_send(waker.child.fd, 1);
    kit_need(semel_loop_run(waker.loop), "run");
    ours = (double)kit_percentile(&waker.samples, 50);
    theirs = (double)kit_percentile(&waker.raw, 50);
    reads = (double)kit_percentile(&waker.raw_read, 50);
    printf("figure=router what=wake pin=%s p50_us=%.2f raw_us=%.2f ratio=%.3f raw_read_us=%.2f "
           "ratio_read=%.3f\n",
           plan->pin == 1   ? "same"
           : plan->pin == 2 ? "cross"
                            : "none",
           ours / 1e3, theirs / 1e3, ours / theirs, reads / 1e3, ours / reads);
    kit_end(waker.child);
}

int main(int argc, char **argv)
{
    const char *what = kit_text(argc, argv, "what", "flow");
    struct plan plan = {
        .workers = (int)kit_number(argc, argv, "workers", 4),
        .samples = (int)kit_number(argc, argv, "samples", 1000),
        .size = (size_t)kit_number(argc, argv, "size", 64),
        .how = kit_text(argc, argv, "how", "passed"),
        .secs = kit_number(argc, argv, "secs", 2),
        .pause = (uint64_t)(kit_number(argc, argv, "pause_us", 200) * 1e3),
    };

    plan.pin = strcmp(kit_text(argc, argv, "pin", "none"), "same") == 0    ? 1
               : strcmp(kit_text(argc, argv, "pin", "none"), "cross") == 0 ? 2
                                                                           : 0;
    plan.shared =
        mmap(NULL, sizeof *plan.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (plan.shared == MAP_FAILED || plan.workers < 1 || plan.workers > 16)
        kit_die("arguments");
    if (strcmp(what, "wake") == 0)
        run_wake(&plan);
    else
        run_flow(&plan);
    return 0;
}
