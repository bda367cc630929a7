/* SPDX-License-Identifier: MIT */
/* task_tap.c - see task_tap.h.
 *
 * The descriptor is a copy, because the client closes its own whenever it wants, on its own thread;
 * the number could be another file's by the time that the loop stops watching it. A tap without a
 * task ends at the first event: whatever that is, it is not for a task here. */
#include "proc/task_tap.h"

#include <stdlib.h>

#include "os/spawn.h"
#include "rpc/client_seam.h"

struct sml_tap {
    struct sml_list link;
    struct sml_taps *taps;
    uint64_t worker;
    struct semel_client *client; /* valid while there are tasks */
    uint32_t tasks;
    int fd;
    struct semel_watch *watch; /* NULL: the I/O thread reads, so far as we know */
};

void sml_taps_init(struct sml_taps *taps, const struct sml_turn *turn)
{
    taps->turn = *turn;
    sml_list_init(&taps->list);
}

static void unwatch(struct sml_tap *tap)
{
    if (tap->watch)
        (void)semel_watch_remove(tap->watch);
    tap->watch = NULL;
}

static void free_tap(struct sml_tap *tap)
{
    unwatch(tap);
    sml_fd_close(&tap->fd);
    sml_list_remove(&tap->link);
    free(tap);
}

void sml_taps_close(struct sml_taps *taps)
{
    while (!sml_list_empty(&taps->list))
        free_tap(SML_CONTAINER(taps->list.next, struct sml_tap, link));
}

static struct sml_tap *find(const struct sml_taps *taps, uint64_t worker)
{
    const struct sml_list *node;

    for (node = taps->list.next; node != &taps->list; node = node->next) {
        struct sml_tap *tap = SML_CONTAINER(node, struct sml_tap, link);

        if (tap->worker == worker)
            return tap;
    }
    return NULL;
}

static struct sml_tap *create(struct sml_taps *taps, uint64_t worker, struct semel_client *client)
{
    struct sml_tap *tap = calloc(1, sizeof *tap);

    if (tap == NULL)
        return NULL;
    tap->fd = sml_client_loop_fd(client);
    if (tap->fd < 0) {
        free(tap);
        return NULL;
    }
    tap->taps = taps;
    tap->worker = worker;
    sml_list_push_front(&taps->list, &tap->link);
    return tap;
}

struct sml_tap *sml_tap_enter(struct sml_taps *taps, uint64_t worker, struct semel_client *client)
{
    struct sml_tap *tap = find(taps, worker);

    if (tap == NULL)
        tap = create(taps, worker, client);
    if (tap == NULL)
        return NULL;
    tap->client = client;
    tap->tasks++;
    return tap;
}

/* The last step may free the tap. */
static void on_readable(struct semel_watch *watch, unsigned events, void *user)
{
    struct sml_tap *tap = user;
    const struct sml_turn turn = tap->taps->turn;

    (void)watch;
    (void)events;
    if (tap->tasks == 0) {
        free_tap(tap);
        return;
    }
    turn.begin(turn.user);
    if (!sml_client_read_on_loop(tap->client))
        unwatch(tap);
    turn.end(turn.user);
}

void sml_tap_watch(struct sml_tap *tap)
{
    if (tap->watch == NULL) /* which it still is without memory: then the I/O thread reads */
        (void)!semel_loop_watch(tap->taps->turn.loop, tap->fd, SEMEL_WATCH_READ, on_readable, tap,
                                &tap->watch);
}

void sml_tap_leave(struct sml_tap *tap)
{
    if (--tap->tasks == 0 && tap->watch == NULL)
        free_tap(tap);
}
