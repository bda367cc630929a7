/* SPDX-License-Identifier: MIT */
#include "kit/kit.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    abort();
}

void kit_place_make(struct kit_place *place)
{
    snprintf(place->directory, sizeof place->directory, "/tmp/semel-test-XXXXXX");
    if (!mkdtemp(place->directory))
        die("mkdtemp");
    snprintf(place->path, sizeof place->path, "%s/s", place->directory);
    snprintf(place->address, sizeof place->address, "unix:%s", place->path);
}

void kit_place_remove(struct kit_place *place)
{
    char lock[128];

    snprintf(lock, sizeof lock, "%s.lock", place->path);
    (void)unlink(place->path);
    (void)unlink(lock);
    (void)rmdir(place->directory);
}

static int count_entries(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    int count = 0;

    if (!directory)
        die(path);
    while ((entry = readdir(directory)) != NULL)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

int kit_count_fds(void)
{
    return count_entries("/proc/self/fd") - 1; /* opendir's own */
}

int kit_count_threads(void)
{
    return count_entries("/proc/self/task");
}

uint64_t kit_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void kit_sleep_ms(int ms)
{
    struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

    while (nanosleep(&t, &t) != 0)
        ;
}

bool kit_eventually(bool (*test)(void *arg), void *arg, double seconds)
{
    uint64_t end = kit_now_ms() + (uint64_t)(seconds * 1000);

    while (!test(arg)) {
        if (kit_now_ms() >= end)
            return test(arg);
        kit_sleep_ms(1);
    }
    return true;
}

struct counts {
    int fds, threads;
};

static bool counts_reached(void *arg)
{
    const struct counts *counts = arg;

    return kit_count_fds() <= counts->fds && kit_count_threads() <= counts->threads;
}

bool kit_settled(int fds, int threads)
{
    struct counts counts = { fds, threads };

    return kit_eventually(counts_reached, &counts, 20);
}
