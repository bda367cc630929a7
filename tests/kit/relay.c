/* SPDX-License-Identifier: MIT */
/* relay.c - one thread that moves bytes between unix sockets, in random pieces, and cuts. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "kit/kit.h"

#define LINKS 64
#define PIECE 65536

struct pipe_half {
    char bytes[PIECE];
    size_t at, end;
};

struct link {
    int fd[2];                /* client side, target side; -1: unused */
    struct pipe_half half[2]; /* from fd[i] to fd[!i] */
};

struct kit_relay {
    struct kit_place place;
    char target[108];
    unsigned cut_ms, random;
    int listener, wake[2];
    atomic_uint cuts;
    atomic_bool cut_now, mute, stop;
    pthread_t thread;
    struct link links[LINKS];
};

static void fail(const char *what)
{
    perror(what);
    abort();
}

static struct sockaddr_un name_of(const char *path)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };

    snprintf(name.sun_path, sizeof name.sun_path, "%s", path);
    return name;
}

static unsigned dice(struct kit_relay *relay, unsigned below)
{
    relay->random = relay->random * 1664525u + 1013904223u;
    return (relay->random >> 8) % below;
}

static void drop(struct link *link)
{
    for (int i = 0; i < 2; i++) {
        if (link->fd[i] >= 0)
            close(link->fd[i]);
        link->fd[i] = -1;
        link->half[i].at = link->half[i].end = 0;
    }
}

static void welcome(struct kit_relay *relay)
{
    struct sockaddr_un name = name_of(relay->target);
    int in = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC), out;

    if (in < 0)
        return;
    out = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (out < 0)
        fail("socket");
    for (int i = 0; i < LINKS; i++) {
        if (relay->links[i].fd[0] >= 0)
            continue;
        if (connect(out, (struct sockaddr *)&name, sizeof name) != 0)
            break;
        relay->links[i].fd[0] = in;
        relay->links[i].fd[1] = out;
        return;
    }
    close(in);
    close(out);
}

/* False: the link is over. */
static bool shovel(struct kit_relay *relay, struct link *link, int from)
{
    struct pipe_half *half = &link->half[from];
    ssize_t moved;

    if (half->at == half->end) {
        moved = recv(link->fd[from], half->bytes, 1 + dice(relay, PIECE), MSG_DONTWAIT);
        if (moved == 0 || (moved < 0 && errno != EAGAIN && errno != EINTR))
            return false;
        half->at = 0;
        half->end = moved > 0 ? (size_t)moved : 0;
    }
    if (half->at < half->end) {
        moved = send(link->fd[!from], half->bytes + half->at, half->end - half->at,
                     MSG_DONTWAIT | MSG_NOSIGNAL);
        if (moved < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        if (moved > 0)
            half->at += (size_t)moved;
    }
    return true;
}

static nfds_t watch(struct kit_relay *relay, struct pollfd *fds)
{
    nfds_t count = 0;

    fds[count++] = (struct pollfd){ relay->wake[0], POLLIN, 0 };
    if (atomic_load(&relay->mute))
        return count;
    fds[count++] = (struct pollfd){ relay->listener, POLLIN, 0 };
    for (int i = 0; i < LINKS; i++) {
        struct link *link = &relay->links[i];

        if (link->fd[0] < 0)
            continue;
        for (int side = 0; side < 2; side++) {
            bool full = link->half[side].at < link->half[side].end;
            bool waits = link->half[!side].at < link->half[!side].end;

            fds[count++] =
                (struct pollfd){ link->fd[side],
                                 (short)((full ? 0 : POLLIN) | (waits ? POLLOUT : 0)), 0 };
        }
    }
    return count;
}

static void cut_all(struct kit_relay *relay)
{
    for (int i = 0; i < LINKS; i++) {
        if (relay->links[i].fd[0] < 0)
            continue;
        drop(&relay->links[i]);
        atomic_fetch_add(&relay->cuts, 1);
    }
}

static void *run(void *arg)
{
    struct kit_relay *relay = arg;
    uint64_t next = relay->cut_ms ? kit_now_ms() + relay->cut_ms : UINT64_MAX;
    struct pollfd fds[2 + 2 * LINKS];
    char nothing[64];

    while (!atomic_load(&relay->stop)) {
        nfds_t count = watch(relay, fds);
        uint64_t now = kit_now_ms();
        int wait = next == UINT64_MAX ? 1000 : (int)(next > now ? next - now : 0);

        (void)poll(fds, count, wait);
        if (fds[0].revents)
            (void)!read(relay->wake[0], nothing, sizeof nothing);
        if (atomic_exchange(&relay->cut_now, false) || kit_now_ms() >= next) {
            cut_all(relay);
            if (relay->cut_ms)
                next = kit_now_ms() + relay->cut_ms / 2 + dice(relay, relay->cut_ms + 1);
        }
        if (atomic_load(&relay->mute))
            continue;
        if (count > 1 && fds[1].revents)
            welcome(relay);
        for (int i = 0; i < LINKS; i++) {
            struct link *link = &relay->links[i];

            if (link->fd[0] >= 0 && (!shovel(relay, link, 0) || !shovel(relay, link, 1)))
                drop(link);
        }
    }
    cut_all(relay);
    return NULL;
}

struct kit_relay *kit_relay_start(const char *target_path, unsigned cut_ms, unsigned seed)
{
    struct kit_relay *relay = calloc(1, sizeof *relay);
    struct sockaddr_un name;

    if (!relay)
        fail("calloc");
    kit_place_make(&relay->place);
    snprintf(relay->target, sizeof relay->target, "%s", target_path);
    relay->cut_ms = cut_ms;
    relay->random = seed;
    for (int i = 0; i < LINKS; i++)
        relay->links[i].fd[0] = relay->links[i].fd[1] = -1;
    name = name_of(relay->place.path);
    relay->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (relay->listener < 0 || bind(relay->listener, (struct sockaddr *)&name, sizeof name) != 0 ||
        listen(relay->listener, 64) != 0 || pipe2(relay->wake, O_CLOEXEC | O_NONBLOCK) != 0)
        fail("relay");
    if (pthread_create(&relay->thread, NULL, run, relay) != 0)
        fail("pthread_create");
    return relay;
}

const char *kit_relay_address(const struct kit_relay *relay)
{
    return relay->place.address;
}

static void poke(struct kit_relay *relay)
{
    (void)!write(relay->wake[1], "", 1);
}

void kit_relay_cut(struct kit_relay *relay)
{
    atomic_store(&relay->cut_now, true);
    poke(relay);
}

unsigned kit_relay_cuts(const struct kit_relay *relay)
{
    return atomic_load(&relay->cuts);
}

void kit_relay_mute(struct kit_relay *relay, bool mute)
{
    atomic_store(&relay->mute, mute);
    poke(relay);
}

void kit_relay_stop(struct kit_relay *relay)
{
    atomic_store(&relay->stop, true);
    poke(relay);
    pthread_join(relay->thread, NULL);
    close(relay->listener);
    close(relay->wake[0]);
    close(relay->wake[1]);
    kit_place_remove(&relay->place);
    free(relay);
}
