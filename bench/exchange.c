/* SPDX-License-Identifier: MIT */
/* exchange.c - what a trigger and the wait that it meets cost, and what others add to that.
 *   --others=N  so many listeners for events that never come, and so many events that nobody wants
 *   --late=1    the wait is there first, with a callback on a loop; else the event is
 *   --keep=1    mode KEEP: nothing is taken, the next event overwrites
 *   --ids=N     so many ids take turns, at most 65536; default 1024
 *   --secs=S
 * All on one thread. Ids are like those of the original's users, 36 bytes; each pair has one of its
 * own. Data are 64 bytes. Prints pairs per second, and nanoseconds per pair. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kit.h"

enum { IDS_MAX = 65536, ID_BYTES = 36, DATA_BYTES = 64 };

static char ids[IDS_MAX][ID_BYTES + 1];
static uint32_t id_count;
static char data[DATA_BYTES];
static uint64_t ended;

/* As a UUID looks. */
static struct semel_bytes name(char *out, char kind, uint32_t number)
{
    uint64_t mixed = (number + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15);

    (void)snprintf(out, ID_BYTES + 1, "%08x-%c000-4000-8000-%012llx", number, kind,
                   (unsigned long long)(mixed & UINT64_C(0xffffffffffff)));
    return semel_bytes(out, ID_BYTES);
}

static void end(struct semel_events *events, void *user)
{
    (void)user;
    ended += events->status == SEMEL_OK;
    semel_events_clear(events);
}

static void trigger(struct semel_exchange *exchange, struct semel_bytes id)
{
    kit_need(semel_exchange_trigger(exchange, id, semel_bytes(data, sizeof data)), "a trigger");
}

static void start(struct semel_exchange *exchange, struct semel_loop *loop, struct semel_bytes id)
{
    struct semel_wait_options options = SEMEL_WAIT_OPTIONS_INIT;

    options.timeout_s = 3600;
    kit_need(semel_exchange_start(exchange, &id, 1, &options, loop, end, NULL, NULL), "a wait");
}

static void wait_now(struct semel_exchange *exchange, struct semel_bytes id)
{
    struct semel_wait_options options = SEMEL_WAIT_OPTIONS_INIT;
    struct semel_events events;

    options.timeout_s = 0;
    kit_need(semel_exchange_wait(exchange, &id, 1, &options, &events), "a wait");
    semel_events_clear(&events);
    ended++;
}

static void crowd(struct semel_exchange *exchange, struct semel_loop *loop, uint32_t others)
{
    char id[ID_BYTES + 1];

    for (uint32_t i = 0; i < others; i++) {
        start(exchange, loop, name(id, 'a', i));
        trigger(exchange, name(id, 'b', i));
    }
}

static uint64_t pairs(struct semel_exchange *exchange, struct semel_loop *loop, bool late,
                      uint64_t until)
{
    uint64_t count = 0;

    do {
        for (int i = 0; i < 256; i++, count++) {
            struct semel_bytes id = semel_bytes(ids[count % id_count], ID_BYTES);

            if (late)
                start(exchange, loop, id);
            trigger(exchange, id);
            if (!late)
                wait_now(exchange, id);
        }
        if (late)
            kit_need(semel_loop_dispatch(loop), "the loop");
    } while (kit_now_ns() < until);
    return count;
}

/* What this thread has used: less than what passed, where others use the machine as well. */
static uint64_t cpu_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv)
{
    struct semel_exchange_options options = SEMEL_EXCHANGE_OPTIONS_INIT;
    uint32_t others = (uint32_t)kit_number(argc, argv, "others", 10);
    double secs = kit_number(argc, argv, "secs", 1);
    bool late = kit_number(argc, argv, "late", 0) != 0, keep = kit_number(argc, argv, "keep", 0);
    struct semel_exchange *exchange;
    struct semel_loop *loop;
    uint64_t began, count, took, used;

    options.delivery = keep ? SEMEL_EVENTS_KEEP : SEMEL_EVENTS_TAKE;
    options.max_ms = 3600000;
    kit_need(semel_exchange_create(&exchange, &options), "an exchange");
    kit_need(semel_loop_create(&loop, NULL), "a loop");
    id_count = (uint32_t)kit_number(argc, argv, "ids", 1024);
    if (id_count < 1 || id_count > IDS_MAX)
        kit_die("--ids");
    for (uint32_t i = 0; i < id_count; i++)
        (void)name(ids[i], 'c', i);
    crowd(exchange, loop, others);
    (void)pairs(exchange, loop, late, kit_now_ns() + (uint64_t)(secs * 2e8));
    ended = 0;
    used = cpu_ns();
    began = kit_now_ns();
    count = pairs(exchange, loop, late, began + (uint64_t)(secs * 1e9));
    took = kit_now_ns() - began;
    used = cpu_ns() - used;
    if (ended != count)
        kit_die("a wait was not met");
    printf("figure=exchange late=%d keep=%d others=%u pairs=%llu rate=%.0f ns=%.1f cpu_ns=%.1f\n",
           late, keep, others, (unsigned long long)count, (double)count * 1e9 / (double)took,
           (double)took / (double)count, (double)used / (double)count);
    return 0; /* the crowd goes with the process */
}
