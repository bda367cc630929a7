/* SPDX-License-Identifier: MIT */
/* loop_watches.c - watched descriptors.
 *
 * An event carries the descriptor and the watch's serial number, not its address: events that were
 * fetched before a watch was removed, and those of a descriptor that was closed too early while a
 * copy of it lives on, find no watch and are dropped.
 *
 * A paused watch is taken out of the epoll set, since the system tells of hang-ups always, and the
 * loop's descriptor would be readable for nothing. */
#include "io/loop_internal.h"

#include <fcntl.h>
#include <stdlib.h>

#define EVENTS_ALL ((unsigned)(SEMEL_WATCH_READ | SEMEL_WATCH_WRITE | SEMEL_WATCH_HANGUP))

struct semel_watch {
    struct sml_grave grave; /* first: freed by it */
    struct sml_list link;
    struct semel_loop *loop;
    int fd;
    uint32_t serial;
    unsigned events; /* 0: paused, not in the epoll set */
    bool removed;
    semel_watch_fn fn;
    void *user;
};

static uint64_t mark_of(const struct semel_watch *watch)
{
    return (uint64_t)watch->serial << 32 | (uint32_t)watch->fd;
}

static uint32_t wanted(unsigned events)
{
    return (events & SEMEL_WATCH_READ ? SML_POLL_IN : 0) |
           (events & SEMEL_WATCH_WRITE ? SML_POLL_OUT : 0);
}

static unsigned told(uint32_t happened)
{
    return (happened & SML_POLL_IN ? SEMEL_WATCH_READ : 0u) |
           (happened & SML_POLL_OUT ? SEMEL_WATCH_WRITE : 0u) |
           (happened & (SML_POLL_HUP | SML_POLL_ERROR) ? SEMEL_WATCH_HANGUP : 0u);
}

void sml_loop_call_watch(struct semel_loop *loop, uint64_t mark, uint32_t happened)
{
    struct semel_watch *watch = sml_table_find(&loop->by_fd, (uint32_t)mark);
    unsigned events;

    if (!watch || watch->serial != mark >> 32 || watch->events == 0)
        return;
    /* Another callback of this turn may have changed what is asked for. */
    events = told(happened) & (watch->events | SEMEL_WATCH_HANGUP);
    if (events)
        watch->fn(watch, events, watch->user);
}

/* Into the epoll set. */
static enum semel_status set_in(const struct semel_watch *watch, unsigned events)
{
    return sml_epoll_add(&watch->loop->epoll, watch->fd, wanted(events), mark_of(watch));
}

/* Can it be watched, and by nobody else? */
static enum semel_status try_in(const struct semel_watch *watch)
{
    enum semel_status s = set_in(watch, watch->events);

    if (s == SEMEL_INVALID)
        return fcntl(watch->fd, F_GETFD) < 0 ? SEMEL_INVALID : SEMEL_SYSTEM;
    if (s == SEMEL_OK && watch->events == 0)
        sml_epoll_remove(&watch->loop->epoll, watch->fd);
    return s;
}

/* Its number for the events: never 0, never that of the three marks. */
static uint32_t next_serial(struct semel_loop *loop)
{
    if (++loop->serial == 0)
        ++loop->serial;
    return loop->serial;
}

static enum semel_status enlist(struct semel_watch *watch)
{
    struct semel_loop *loop = watch->loop;
    enum semel_status s;

    if (sml_table_find(&loop->by_fd, (uint64_t)watch->fd))
        return SEMEL_ALREADY;
    if (!sml_table_insert(&loop->by_fd, (uint64_t)watch->fd, watch))
        return SEMEL_NO_MEMORY;
    s = try_in(watch);
    if (s != SEMEL_OK) {
        (void)sml_table_remove(&loop->by_fd, (uint64_t)watch->fd);
        return s;
    }
    sml_list_push_back(&loop->watches, &watch->link);
    return SEMEL_OK;
}

enum semel_status semel_loop_watch(struct semel_loop *loop, int fd, unsigned events,
                                   semel_watch_fn fn, void *user, struct semel_watch **out)
{
    struct semel_watch *watch;
    enum semel_status s;

    if (!loop || fd < 0 || (events & ~EVENTS_ALL) != 0 || !fn)
        return SEMEL_INVALID;
    s = sml_loop_admit(loop);
    if (s != SEMEL_OK)
        return s;
    watch = malloc(sizeof(*watch));
    if (!watch)
        return SEMEL_NO_MEMORY;
    *watch = (struct semel_watch){ .loop = loop, .fd = fd, .events = events, .fn = fn };
    watch->user = user;
    watch->serial = next_serial(loop);
    s = enlist(watch);
    if (s != SEMEL_OK) {
        free(watch);
        return s;
    }
    if (out)
        *out = watch;
    return SEMEL_OK;
}

/* From paused to watched, back, or from some events to others. */
static enum semel_status set_events(struct semel_watch *watch, unsigned events)
{
    struct sml_epoll *epoll = &watch->loop->epoll;

    if (watch->events == 0)
        return set_in(watch, events);
    if (events != 0)
        return sml_epoll_try_modify(epoll, watch->fd, wanted(events), mark_of(watch));
    sml_epoll_remove(epoll, watch->fd);
    return SEMEL_OK;
}

enum semel_status semel_watch_change(struct semel_watch *watch, unsigned events)
{
    enum semel_status s;

    if (!watch || (events & ~EVENTS_ALL) != 0)
        return SEMEL_INVALID;
    s = sml_loop_admit(watch->loop);
    if (s != SEMEL_OK)
        return s;
    if (watch->removed)
        return SEMEL_INVALID;
    if (events == watch->events)
        return SEMEL_OK;
    s = set_events(watch, events);
    if (s == SEMEL_INVALID || s == SEMEL_ALREADY)
        return SEMEL_SYSTEM; /* the descriptor was closed, and may be another one by now */
    if (s == SEMEL_OK)
        watch->events = events;
    return s;
}

enum semel_status semel_watch_remove(struct semel_watch *watch)
{
    struct semel_loop *loop;
    enum semel_status s;

    if (!watch)
        return SEMEL_INVALID;
    loop = watch->loop;
    s = sml_loop_admit(loop);
    if (s != SEMEL_OK)
        return s;
    if (watch->removed)
        return SEMEL_ALREADY;
    watch->removed = true;
    sml_list_remove(&watch->link);
    (void)sml_table_remove(&loop->by_fd, (uint64_t)watch->fd);
    if (watch->events != 0)
        sml_epoll_remove(&loop->epoll, watch->fd);
    sml_loop_bury(loop, &watch->grave);
    return SEMEL_OK;
}

void sml_loop_drop_watches(struct semel_loop *loop)
{
    struct sml_list *link;

    while ((link = sml_list_pop_front(&loop->watches)) != NULL) {
        struct semel_watch *watch = SML_CONTAINER(link, struct semel_watch, link);

        /* A copy of the loop's descriptor must not tell of it any more. */
        if (watch->events != 0)
            sml_epoll_remove(&loop->epoll, watch->fd);
        free(watch);
    }
}
