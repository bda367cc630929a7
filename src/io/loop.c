/* SPDX-License-Identifier: MIT */
/* loop.c - the loop's life: made, served, stopped, ended.
 *
 * An epoll set holds everything that can be ready: a bell for posted tasks, one for stops, an alarm
 * for timers, and the watched descriptors. An epoll set is itself a descriptor that is readable
 * while one of its own is, at any depth: so it is the descriptor to embed the loop by, and it is
 * exact as long as each of the three is. They are kept so by these rules:
 *
 * 1. The tasks' bell holds one ring for each list of tasks that waits (loop_tasks.c).
 * 2. The alarm stands at the next moment whenever nobody is inside; inside run it is not set, since
 *    run knows how long to sleep (loop_timers.c).
 * 3. A stop's ring is taken in the next turn, whoever serves it, and remembered.
 *
 * A thread comes inside by writing itself into `inside`; nothing below the line in struct
 * semel_loop is touched by anybody else until it has left. Another thread that posts or stops may
 * be the one whose work ends the loop: it must not touch the loop once that work can be seen. So a
 * task cannot be taken before its ring was made, and a stop is not obeyed before its ring is there.
 *
 * In each turn: the descriptors, then the moments that are due, then tasks. A callback that ends
 * the loop only marks it; the memory goes when the outermost callback has returned. */
#include "io/loop_internal.h"

#include <stdlib.h>
#include <string.h>

#include <semel/deferred.h>

#include "base/check.h"
#include "base/text.h"
#include "os/clock.h"

#define TURN_TASKS 1024
#define TURN_EVENTS 128                 /* include/semel/loop.h says so */
#define WATCHES_MAX (UINT32_C(1) << 30) /* the system's own bounds come first */
#define LOG_BYTES 512
#define SPARES_MAX 16 /* what is short-lived needs few; 15 KiB at most */

/* ---- as an executor ---- */

/* Never in a forked child: what it did there would reach the parent, by the descriptors that both
 * have. */
static bool executor_is_here(const struct sml_executor *executor)
{
    return sml_loop_admit((const struct semel_loop *)(const void *)executor) == SEMEL_OK;
}

static uint64_t executor_now(struct sml_executor *executor)
{
    (void)executor;
    return sml_clock_now();
}

static void executor_unhandled(struct sml_executor *executor, const struct semel_fired *fired)
{
    struct semel_loop *loop = (struct semel_loop *)(void *)executor;
    char line[LOG_BYTES];
    struct sml_text text;

    if (!loop->log)
        return;
    sml_text_init(&text, line, sizeof(line));
    sml_text_add(&text, "nobody handled a failure: ");
    sml_text_add(&text, semel_status_name(fired->status));
    if (fired->code != 0) {
        sml_text_add(&text, ", code ");
        sml_text_add_i64(&text, fired->code);
    }
    if (fired->text[0] != '\0') {
        sml_text_add(&text, ": ");
        sml_text_add_escaped(&text, fired->text, strlen(fired->text));
    }
    loop->log(SEMEL_LOG_ERROR, line, loop->log_user);
}

static const struct sml_executor_ops loop_ops = {
    .is_here = executor_is_here,
    .post = sml_loop_executor_post,
    .arm = sml_loop_executor_arm,
    .disarm = sml_loop_executor_disarm,
    .now = executor_now,
    .unhandled = executor_unhandled,
};

/* ---- made and ended ---- */

static void close_all(struct semel_loop *loop)
{
    sml_epoll_close(&loop->epoll);
    sml_bell_close(&loop->tasks_bell);
    sml_bell_close(&loop->stop_bell);
    sml_alarm_close(&loop->alarm);
}

static enum semel_status open_all(struct semel_loop *loop)
{
    struct sml_epoll *epoll = &loop->epoll;
    enum semel_status s;

    loop->tasks_bell.fd = loop->stop_bell.fd = loop->alarm.fd = -1;
    if ((s = sml_epoll_open(epoll)) != SEMEL_OK ||
        (s = sml_bell_open(&loop->tasks_bell)) != SEMEL_OK ||
        (s = sml_bell_open(&loop->stop_bell)) != SEMEL_OK ||
        (s = sml_alarm_open(&loop->alarm)) != SEMEL_OK ||
        (s = sml_epoll_add(epoll, loop->tasks_bell.fd, SML_POLL_IN, SML_MARK_TASKS)) != SEMEL_OK ||
        (s = sml_epoll_add(epoll, loop->stop_bell.fd, SML_POLL_IN, SML_MARK_STOP)) != SEMEL_OK ||
        (s = sml_epoll_add(epoll, loop->alarm.fd, SML_POLL_IN, SML_MARK_ALARM)) != SEMEL_OK)
        close_all(loop);
    return s;
}

enum semel_status semel_loop_create(struct semel_loop **out,
                                    const struct semel_loop_options *options)
{
    struct semel_loop *loop;
    enum semel_status s;

    if (!out)
        return SEMEL_INVALID;
    loop = calloc(1, sizeof(*loop));
    if (!loop)
        return SEMEL_NO_MEMORY;
    s = open_all(loop);
    if (s != SEMEL_OK) {
        free(loop);
        return s;
    }
    loop->executor.ops = &loop_ops;
    loop->executor.mem = &sml_mem_libc;
    loop->executor.spares_max = SML_KEEPS_MEMORY ? SPARES_MAX : 0;
    loop->turn_tasks = options && options->turn_tasks ? options->turn_tasks : TURN_TASKS;
    loop->log = options ? options->log : NULL;
    loop->log_user = options ? options->log_user : NULL;
    sml_origin_init(&loop->origin);
    sml_heap_init(&loop->moments);
    sml_table_init(&loop->by_fd, &sml_mem_libc, WATCHES_MAX);
    sml_list_init(&loop->watches);
    atomic_store_explicit(&loop->owner, sml_thread_self().value, memory_order_relaxed);
    *out = loop;
    return SEMEL_OK;
}

static void free_graves(struct semel_loop *loop)
{
    while (loop->graves) {
        struct sml_grave *grave = loop->graves;

        loop->graves = grave->next;
        free(grave);
    }
}

/* A stop that is asked for: wait until its thread is done with the loop, and remember it. */
static void take_stop(struct semel_loop *loop)
{
    if (!atomic_load_explicit(&loop->stopping, memory_order_acquire))
        return;
    sml_bell_await(&loop->stop_bell);
    loop->stopped = true;
    atomic_store_explicit(&loop->stopping, false, memory_order_release);
}

/* Closing would do, but for a forked child that has the same files open: then they stay in the set,
 * and whoever embeds the loop by a copy of the descriptor would be told of them. */
static void silence(struct semel_loop *loop)
{
    sml_epoll_remove(&loop->epoll, loop->tasks_bell.fd);
    sml_epoll_remove(&loop->epoll, loop->stop_bell.fd);
    sml_epoll_remove(&loop->epoll, loop->alarm.fd);
}

static void end(struct semel_loop *loop)
{
    take_stop(loop);
    sml_loop_drop_tasks(loop);
    sml_loop_drop_moments(loop);
    sml_loop_drop_watches(loop);
    free_graves(loop);
    sml_executor_free_spares(&loop->executor);
    sml_table_fini(&loop->by_fd);
    silence(loop);
    close_all(loop);
    sml_origin_fini(&loop->origin);
    free(loop);
}

static bool in_use(const struct semel_loop *loop)
{
    return atomic_load_explicit(&loop->executor.users, memory_order_acquire) != 0;
}

/* False: another thread is inside. */
static bool go_inside(struct semel_loop *loop)
{
    uintptr_t nobody = 0;

    return atomic_compare_exchange_strong_explicit(&loop->inside, &nobody, sml_thread_self().value,
                                                   memory_order_acquire, memory_order_relaxed);
}

static void go_outside(struct semel_loop *loop)
{
    atomic_store_explicit(&loop->inside, 0, memory_order_release);
}

enum semel_status semel_loop_destroy(struct semel_loop *loop)
{
    if (!loop)
        return SEMEL_OK;
    if (!sml_origin_is_mine(&loop->origin))
        return SEMEL_FORKED;
    if (sml_loop_is_inside(loop)) {
        if (in_use(loop))
            return SEMEL_ALREADY;
        loop->doomed = true;
        return SEMEL_OK;
    }
    if (!go_inside(loop))
        return SEMEL_ALREADY;
    if (in_use(loop)) {
        go_outside(loop);
        return SEMEL_ALREADY;
    }
    end(loop);
    return SEMEL_OK;
}

/* ---- served ---- */

enum semel_status sml_loop_admit(const struct semel_loop *loop)
{
    if (!sml_origin_is_mine(&loop->origin))
        return SEMEL_FORKED;
    return atomic_load_explicit(&loop->owner, memory_order_relaxed) == sml_thread_self().value
               ? SEMEL_OK
               : SEMEL_DENIED;
}

void sml_loop_bury(struct semel_loop *loop, struct sml_grave *grave)
{
    if (!sml_loop_is_inside(loop)) {
        free(grave);
        return;
    }
    grave->next = loop->graves;
    loop->graves = grave;
}

/* What a callback made after it ended the loop keeps it alive for as long as it is there. */
static bool is_over(const struct semel_loop *loop)
{
    return loop->doomed && !in_use(loop);
}

static bool is_stopped(const struct semel_loop *loop)
{
    return loop->stopped || atomic_load_explicit(&loop->stopping, memory_order_relaxed);
}

bool sml_loop_goes_on(struct semel_loop *loop)
{
    if (loop->graves)
        free_graves(loop);
    return !is_over(loop) && !(loop->running && is_stopped(loop));
}

static enum semel_status enter(struct semel_loop *loop, bool running)
{
    if (!loop)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&loop->origin))
        return SEMEL_FORKED;
    if (sml_loop_is_inside(loop))
        return SEMEL_WOULD_DEADLOCK;
    if (!go_inside(loop))
        return SEMEL_ALREADY;
    atomic_store_explicit(&loop->owner, sml_thread_self().value, memory_order_relaxed);
    loop->running = running;
    sml_thread_enter_loop();
    sml_loop_tasks_enter(loop);
    return SEMEL_OK;
}

static enum semel_status leave(struct semel_loop *loop)
{
    sml_thread_leave_loop();
    if (is_over(loop)) {
        end(loop);
        return SEMEL_STOPPED;
    }
    if (loop->running) {
        take_stop(loop);
        loop->stopped = false;
    }
    loop->running = false;
    sml_loop_tasks_leave(loop);
    sml_loop_set_alarm(loop);
    go_outside(loop);
    return SEMEL_OK;
}

static void serve(struct semel_loop *loop, const struct epoll_event *event)
{
    switch (event->data.u64) {
    case SML_MARK_TASKS: /* these are looked at in each turn */
    case SML_MARK_ALARM:
        break;
    case SML_MARK_STOP:
        take_stop(loop);
        break;
    default:
        sml_loop_call_watch(loop, event->data.u64, event->events);
    }
}

/* False: as sml_loop_goes_on. */
static bool turn(struct semel_loop *loop, uint64_t deadline_ns)
{
    struct epoll_event events[TURN_EVENTS];
    int count = sml_epoll_wait(&loop->epoll, events, TURN_EVENTS, deadline_ns);

    for (int i = 0; i < count; i++) {
        serve(loop, &events[i]);
        if (!sml_loop_goes_on(loop))
            return false;
    }
    return sml_loop_run_moments(loop) && sml_loop_run_tasks(loop);
}

enum semel_status semel_loop_run(struct semel_loop *loop)
{
    enum semel_status s = enter(loop, true);

    if (s != SEMEL_OK)
        return s;
    sml_alarm_move(&loop->alarm, SML_NEVER);
    if (sml_loop_goes_on(loop))
        while (turn(loop, loop->first ? 0 : sml_heap_min_key(&loop->moments)))
            ;
    return leave(loop);
}

enum semel_status semel_loop_dispatch(struct semel_loop *loop)
{
    enum semel_status s = enter(loop, false);

    if (s != SEMEL_OK)
        return s;
    (void)turn(loop, 0);
    return leave(loop);
}

void semel_loop_stop(struct semel_loop *loop)
{
    if (!loop || !sml_origin_is_mine(&loop->origin))
        return;
    /* In a callback, too: it may be a signal handler, and the thread asleep. */
    if (!atomic_exchange_explicit(&loop->stopping, true, memory_order_acq_rel))
        sml_bell_ring(&loop->stop_bell);
}

/* ---- embedded ---- */

int semel_loop_fd(const struct semel_loop *loop)
{
    return loop ? loop->epoll.fd : -1;
}

int64_t semel_loop_timeout_ns(const struct semel_loop *loop)
{
    uint64_t now, next;

    if (!loop)
        return -1;
    if (sml_loop_admit(loop) != SEMEL_OK || loop->first || sml_loop_tasks_posted(loop) ||
        sml_epoll_is_ready(&loop->epoll))
        return 0;
    next = sml_heap_min_key(&loop->moments);
    if (next == SML_NEVER)
        return -1;
    now = sml_clock_now();
    return next <= now ? 0 : (int64_t)sml_time_min(next - now, INT64_MAX);
}

bool semel_loop_is_here(const struct semel_loop *loop)
{
    return loop && sml_loop_is_inside(loop);
}
