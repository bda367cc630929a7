/* SPDX-License-Identifier: MIT */
/* loop.c - what a post costs.
 *   --mode=wake --samples=N --pin=none|same|cross
 *       A thread sleeps in semel_loop_run, another one in epoll_wait on a raw eventfd. In turns,
 *       each is woken and says when it came to its work: the time from before the post (the write)
 *       to inside of the task (after the read). Prints the median of both, and their ratio.
 *   --mode=burst --threads=N --secs=S --tasks=N
 *       Threads post bursts of `tasks` tasks to a running loop and wait until all have run. Prints
 *       posts per second, from the first post of a burst to the end of its last task. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kit.h"

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

static pthread_t start(void *(*body)(void *), void *user)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, body, user))
        kit_die("pthread_create");
    return thread;
}

/* ---- wake ---- */

struct sleeper {
    struct semel_loop *loop; /* of the one */
    struct semel_task task;
    int event, set; /* of the other */
    int core;
    _Atomic uint64_t woken; /* when; 0: not yet */
    _Atomic bool over;
};

static void say_when(void *user)
{
    atomic_store(&((struct sleeper *)user)->woken, kit_now_ns());
}

static void *sleep_in_loop(void *user)
{
    struct sleeper *sleeper = user;

    pin(sleeper->core);
    kit_need(semel_loop_run(sleeper->loop), "semel_loop_run");
    return NULL;
}

static void *sleep_in_epoll(void *user)
{
    struct sleeper *sleeper = user;
    struct epoll_event event;
    uint64_t count;

    pin(sleeper->core);
    while (!atomic_load(&sleeper->over)) {
        if (epoll_wait(sleeper->set, &event, 1, -1) != 1 ||
            read(sleeper->event, &count, sizeof count) != sizeof count)
            kit_die("epoll_wait");
        say_when(sleeper);
    }
    return NULL;
}

static void wake_raw(struct sleeper *sleeper)
{
    uint64_t one = 1;

    if (write(sleeper->event, &one, sizeof one) != sizeof one)
        kit_die("write");
}

static void wake_loop(struct sleeper *sleeper)
{
    kit_need(semel_loop_post(sleeper->loop, &sleeper->task), "semel_loop_post");
}

static void sample(struct sleeper *sleeper, void (*wake)(struct sleeper *), struct kit_samples *out)
{
    uint64_t began, woken;

    kit_sleep_ns(30000); /* it sleeps by now */
    atomic_store(&sleeper->woken, 0);
    began = kit_now_ns();
    wake(sleeper);
    while ((woken = atomic_load(&sleeper->woken)) == 0)
        (void)sched_yield();
    kit_sample(out, woken - began);
}

static int wake(int argc, char **argv)
{
    const char *place = kit_text(argc, argv, "pin", "none");
    int samples = (int)kit_number(argc, argv, "samples", 5000);
    struct kit_samples of_loop = { 0 }, of_raw = { 0 };
    struct sleeper loop = { 0 }, raw = { 0 };
    struct epoll_event event = { .events = EPOLLIN };
    pthread_t threads[2];
    uint64_t loop_ns, raw_ns;

    pin(strcmp(place, "none") == 0 ? -1 : 0);
    loop.core = raw.core = strcmp(place, "none") == 0 ? -1 : strcmp(place, "same") == 0 ? 0 : 1;
    kit_need(semel_loop_create(&loop.loop, NULL), "semel_loop_create");
    loop.task = (struct semel_task)SEMEL_TASK_INIT(say_when, &loop);
    raw.event = eventfd(0, EFD_CLOEXEC);
    raw.set = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ctl(raw.set, EPOLL_CTL_ADD, raw.event, &event) != 0)
        kit_die("epoll_ctl");
    threads[0] = start(sleep_in_loop, &loop);
    threads[1] = start(sleep_in_epoll, &raw);
    for (int i = 0; i < samples; i++) {
        sample(&loop, wake_loop, &of_loop);
        sample(&raw, wake_raw, &of_raw);
    }
    semel_loop_stop(loop.loop);
    atomic_store(&raw.over, true);
    wake_raw(&raw);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    kit_need(semel_loop_destroy(loop.loop), "semel_loop_destroy");
    loop_ns = kit_percentile(&of_loop, 50);
    raw_ns = kit_percentile(&of_raw, 50);
    printf("figure=loop mode=wake pin=%s post_ns=%llu raw_ns=%llu ratio=%.3f post_p99=%llu "
           "raw_p99=%llu\n",
           place, (unsigned long long)loop_ns, (unsigned long long)raw_ns,
           (double)loop_ns / (double)raw_ns, (unsigned long long)kit_percentile(&of_loop, 99),
           (unsigned long long)kit_percentile(&of_raw, 99));
    return 0;
}

/* ---- bursts ---- */

struct burst {
    struct semel_loop *loop;
    size_t count;
    uint64_t end;
    _Atomic unsigned long long posts;
    uint64_t ran; /* the loop's */
};

struct poster {
    struct burst *burst;
    struct semel_task *tasks;
    struct semel_task last;
    _Atomic bool done;
};

static void ran_one(void *user)
{
    ++*(uint64_t *)user;
}

static void ran_last(void *user)
{
    atomic_store_explicit(&((struct poster *)user)->done, true, memory_order_release);
}

static void *post_bursts(void *user)
{
    struct burst *burst = user;
    struct poster poster = { .burst = burst, .tasks = calloc(burst->count, sizeof *poster.tasks) };

    if (!poster.tasks)
        kit_die("calloc");
    for (size_t i = 0; i < burst->count; i++)
        poster.tasks[i] = (struct semel_task)SEMEL_TASK_INIT(ran_one, &burst->ran);
    poster.last = (struct semel_task)SEMEL_TASK_INIT(ran_last, &poster);
    while (kit_now_ns() < burst->end) {
        atomic_store_explicit(&poster.done, false, memory_order_relaxed);
        for (size_t i = 0; i < burst->count; i++)
            kit_need(semel_loop_post(burst->loop, &poster.tasks[i]), "semel_loop_post");
        kit_need(semel_loop_post(burst->loop, &poster.last), "semel_loop_post");
        while (!atomic_load_explicit(&poster.done, memory_order_acquire))
            (void)sched_yield();
        atomic_fetch_add(&burst->posts, burst->count + 1);
    }
    free(poster.tasks);
    return NULL;
}

static void *run_loop(void *loop)
{
    kit_need(semel_loop_run(loop), "semel_loop_run");
    return NULL;
}

static int bursts(int argc, char **argv)
{
    int count = (int)kit_number(argc, argv, "threads", 1);
    double secs = kit_number(argc, argv, "secs", 0.7);
    struct burst burst = { .count = (size_t)kit_number(argc, argv, "tasks", 4096) };
    pthread_t loop, *threads = calloc((size_t)count, sizeof *threads);
    uint64_t began;
    double rate;

    kit_need(semel_loop_create(&burst.loop, NULL), "semel_loop_create");
    loop = start(run_loop, burst.loop);
    began = kit_now_ns();
    burst.end = began + (uint64_t)(secs * 1e9);
    for (int i = 0; i < count; i++)
        threads[i] = start(post_bursts, &burst);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    rate = (double)atomic_load(&burst.posts) / ((double)(kit_now_ns() - began) / 1e9);
    semel_loop_stop(burst.loop);
    pthread_join(loop, NULL);
    kit_need(semel_loop_destroy(burst.loop), "semel_loop_destroy");
    free(threads);
    printf("figure=loop mode=burst threads=%d tasks=%zu posts=%.0f\n", count, burst.count, rate);
    return 0;
}

int main(int argc, char **argv)
{
    return strcmp(kit_text(argc, argv, "mode", "wake"), "burst") == 0 ? bursts(argc, argv)
                                                                      : wake(argc, argv);
}
