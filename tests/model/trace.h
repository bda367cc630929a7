/* SPDX-License-Identifier: MIT */
/* trace.h - the trace that a search follows, inside the program that SPIN makes of the model. It is
 * read from trace.txt, which replay.py writes: numbers, first of the world, then of each event. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRACE_EVENTS 1000
#define TRACE_KINDS 64 /* of events */
#define TRACE_AHEAD 8  /* events that one step may show */

static struct {
    unsigned char calls, window, store, kinds[3];
    int hidden[TRACE_KINDS]; /* how often it may happen unseen; -1: it is in the trace */
    int count, furthest;
    struct {
        int what, a, b;
    } events[TRACE_EVENTS];
} trace;

static void trace_report(void)
{
    printf("furthest %d of %d\n", trace.furthest, trace.count);
}

static int trace_number(FILE *file)
{
    int number;

    if (fscanf(file, "%d", &number) != 1)
        exit(2);
    return number;
}

static void trace_load(void)
{
    FILE *file = fopen("trace.txt", "r");

    if (file == NULL)
        exit(2);
    trace.calls = (unsigned char)trace_number(file);
    trace.window = (unsigned char)trace_number(file);
    trace.store = (unsigned char)trace_number(file);
    for (int i = 0; i < 3; i++)
        trace.kinds[i] = (unsigned char)trace_number(file);
    for (int i = 0; i < TRACE_KINDS; i++)
        trace.hidden[i] = trace_number(file);
    trace.count = trace_number(file);
    for (int i = 0; i < trace.count && i < TRACE_EVENTS; i++) {
        trace.events[i].what = trace_number(file);
        trace.events[i].a = trace_number(file);
        trace.events[i].b = trace_number(file);
    }
    fclose(file);
    atexit(trace_report);
}

static int trace_count(int what)
{
    int count = 0;

    if (trace.hidden[what] >= 0)
        return trace.hidden[what];
    for (int i = 0; i < trace.count; i++)
        count += trace.events[i].what == what;
    return count;
}

/* The step that is being taken shows this event. */
static void trace_step(short *at, unsigned char *seen, unsigned char *dead, int what, int a, int b)
{
    int k = 0;

    if (*dead || trace.hidden[what] >= 0)
        return;
    while (k < TRACE_AHEAD && *at + k < trace.count &&
           ((*seen >> k & 1) || trace.events[*at + k].what != what ||
            trace.events[*at + k].a != a || trace.events[*at + k].b != b))
        k++;
    if (k == TRACE_AHEAD || *at + k == trace.count) {
        *dead = 1;
        return;
    }
    *seen |= (unsigned char)(1 << k);
    for (; *seen & 1; *seen >>= 1)
        ++*at;
}

/* A state was reached. False: this is no step. */
static int trace_watch(short at, unsigned char seen, unsigned char dead)
{
    if (dead || seen)
        return 0;
    if (at > trace.furthest)
        trace.furthest = at;
    if (at == trace.count)
        exit(0);
    return 0;
}

#define TRACE_WATCH trace_watch(now.at, now.seen, now.dead)
