/* SPDX-License-Identifier: MIT */
/* relay.c - a relay that breaks connections.
 *
 * Problem: what a client and a server do when their connection breaks depends on where in the
 * stream it broke and on which side notices. So cuts come at random times, between any two bytes,
 * and in all the ways of relay.h.
 *
 * One thread, one poll loop, no clock but the monotonic one. A "pair" is a client's connection
 * and the one to the target. Side 0 is the client, side 1 the target; direction s carries what
 * comes from side s to the other. Bytes that cannot go on at once, or must wait for the delay,
 * are queued in chunks; a full queue stops the reading, so that memory is bounded by PAIRS_MAX
 * and QUEUE_MAX. A direction's framing follows the bytes passed on, not those read. */
#include "relay.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "chance.h"
#include "clock.h"
#include "framing.h"

#define PAIRS_MAX 4096
#define QUEUE_MAX 1048576
#define READ_MAX 65536
#define HOLD_INTERVALS 4
#define NEVER INT64_MAX
#define ACCEPT_PAUSE_NS INT64_C(20000000) /* after accept ran out of descriptors */

struct chunk {
    struct chunk *next;
    int64_t due_ns;
    size_t at, size; /* data[at .. size-1] is to be passed on */
    uint8_t data[];
};

struct direction {
    struct chunk *head, *tail;
    size_t queued;
    struct framing framing;
    bool ended;  /* nothing more comes from its side */
    bool shut;   /* which the other side has been told */
    bool silent; /* thrown away */
};

/* A cut that waits for bytes to pass. */
enum pending { PENDING_NONE, PENDING_ANYWHERE, PENDING_MID_FRAME };

struct pair {
    int fds[2];
    bool gone[2]; /* the side has closed altogether: not polled any more */
    bool connecting, closed;
    enum pending pending;
    int64_t hold_until; /* a half-open pair: when the rest is closed; else NEVER */
    struct direction directions[2];
};

struct relay {
    const struct relay_options *options;
    const struct endpoint *target;
    struct relay_counters *counters;
    struct chance chance;
    int64_t now, next_cut, next_tick, accept_again;
    int listener;
    size_t count;
    struct pair *pairs[PAIRS_MAX];
    struct pollfd polled[2 + 2 * PAIRS_MAX];
    uint8_t buffer[READ_MAX];
};

static void queue_clear(struct direction *direction)
{
    while (direction->head) {
        struct chunk *next = direction->head->next;

        free(direction->head);
        direction->head = next;
    }
    direction->tail = NULL;
    direction->queued = 0;
}

static void side_close(struct pair *pair, int side)
{
    if (pair->fds[side] >= 0)
        close(pair->fds[side]);
    pair->fds[side] = -1;
}

static void pair_close(struct pair *pair)
{
    for (int side = 0; side < 2; side++) {
        queue_clear(&pair->directions[side]);
        side_close(pair, side);
    }
    pair->closed = true;
}

/* Closing will send a reset instead of an orderly end; nothing for unix sockets. */
static void reset_on_close(struct pair *pair)
{
    struct linger linger = { 1, 0 };

    for (int side = 0; side < 2; side++)
        setsockopt(pair->fds[side], SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

/* Break a pair now, in one of the ways of relay.h. */
static void pair_cut(struct relay *relay, struct pair *pair)
{
    uint64_t way = relay->options->half_open ? chance_below(&relay->chance, 5) : 0;

    relay->counters->cuts++;
    pair->pending = PENDING_NONE;
    if (framing_inside(&pair->directions[0].framing) ||
        framing_inside(&pair->directions[1].framing))
        relay->counters->cuts_mid_frame++;
    if (way == 0) {
        if (chance_below(&relay->chance, 2))
            reset_on_close(pair);
        pair_close(pair);
        return;
    }
    relay->counters->cuts_half_open++;
    pair->hold_until =
        relay->now + chance_interval(&relay->chance, HOLD_INTERVALS * relay->options->cut_every_ns);
    for (int side = 0; side < 2; side++) {
        bool broken = way <= 2 || way == (uint64_t)side + 3;

        pair->directions[side].silent |= broken;
        if (broken)
            queue_clear(&pair->directions[side]);
    }
    if (way <= 2)
        side_close(pair, (int)way - 1);
}

static void cut_all(struct relay *relay)
{
    for (size_t i = 0; i < relay->count; i++) {
        struct pair *pair = relay->pairs[i];
        bool inside = framing_inside(&pair->directions[0].framing) ||
                      framing_inside(&pair->directions[1].framing);

        if (pair->closed || pair->connecting || pair->hold_until != NEVER)
            continue;
        if (relay->options->mid_frame && !inside)
            pair->pending = PENDING_MID_FRAME;
        else if (relay->options->mid_frame || pair->pending || chance_below(&relay->chance, 2))
            pair_cut(relay, pair);
        else
            pair->pending = PENDING_ANYWHERE;
    }
}

/* How many of the next `size` bytes go through before a pending cut. */
static size_t size_before_cut(struct relay *relay, enum pending pending,
                              const struct framing *framing, const uint8_t *data, size_t size)
{
    size_t room;

    if (pending == PENDING_ANYWHERE)
        return (size_t)chance_below(&relay->chance, size + 1);
    room = framing_room(framing, data, size);
    return room ? 1 + (size_t)chance_below(&relay->chance, room) : 0;
}

/* Pass bytes on as far as they go now. Returns how many went; the pair may be cut or closed. */
static size_t pass_on(struct relay *relay, struct pair *pair, int side, const uint8_t *data,
                      size_t size)
{
    struct direction *direction = &pair->directions[side];
    bool cut = pair->pending != PENDING_NONE;
    ssize_t sent = 0;

    if (cut)
        size = size_before_cut(relay, pair->pending, &direction->framing, data, size);
    if (size)
        sent = send(pair->fds[1 - side], data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR)
            pair_close(pair);
        return 0;
    }
    framing_feed(&direction->framing, data, (size_t)sent);
    relay->counters->bytes += (uint64_t)sent;
    if (cut)
        pair_cut(relay, pair);
    return (size_t)sent;
}

/* Pass on what is queued and due; tell the other side when there will be no more. */
static void flush(struct relay *relay, struct pair *pair, int side)
{
    struct direction *direction = &pair->directions[side];
    struct chunk *chunk;

    while ((chunk = direction->head) && chunk->due_ns <= relay->now) {
        size_t left = chunk->size - chunk->at;
        size_t sent = pass_on(relay, pair, side, chunk->data + chunk->at, left);

        if (pair->closed || !direction->head)
            return;
        chunk->at += sent;
        direction->queued -= sent;
        if (sent < left)
            return;
        direction->head = chunk->next;
        if (!direction->head)
            direction->tail = NULL;
        free(chunk);
    }
    if (direction->ended && !direction->head && !direction->shut) {
        direction->shut = true;
        shutdown(pair->fds[1 - side], SHUT_WR);
    }
    if (pair->directions[0].shut && pair->directions[1].shut)
        pair_close(pair);
    else if (pair->gone[side] && !direction->head)
        pair_close(pair);
}

static void enqueue(struct relay *relay, struct pair *pair, int side, const uint8_t *data,
                    size_t size)
{
    struct direction *direction = &pair->directions[side];
    struct chunk *chunk = malloc(sizeof *chunk + size);

    if (!chunk) {
        pair_close(pair);
        return;
    }
    *chunk = (struct chunk){ .due_ns = relay->now + relay->options->delay_ns, .size = size };
    memcpy(chunk->data, data, size);
    if (direction->tail)
        direction->tail->next = chunk;
    else
        direction->head = chunk;
    direction->tail = chunk;
    direction->queued += size;
}

/* Read once from a side. */
static void take_in(struct relay *relay, struct pair *pair, int side)
{
    struct direction *direction = &pair->directions[side];
    ssize_t got = recv(pair->fds[side], relay->buffer, sizeof relay->buffer, MSG_DONTWAIT);
    size_t sent = 0;

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got < 0 || (got == 0 && pair->hold_until != NEVER)) {
        pair_close(pair);
        return;
    }
    if (got == 0) {
        direction->ended = true;
        flush(relay, pair, side);
        return;
    }
    if (direction->silent)
        return;
    if (!relay->options->delay_ns && !direction->head) {
        sent = pass_on(relay, pair, side, relay->buffer, (size_t)got);
        if (pair->closed || direction->silent)
            return;
    }
    if (sent < (size_t)got)
        enqueue(relay, pair, side, relay->buffer + sent, (size_t)got - sent);
}

static void finish_connecting(struct relay *relay, struct pair *pair)
{
    int error = 0;
    socklen_t size = sizeof error;

    getsockopt(pair->fds[1], SOL_SOCKET, SO_ERROR, &error, &size);
    pair->connecting = false;
    if (error) {
        relay->counters->refused++;
        pair_close(pair);
    } else {
        relay->counters->connections++;
    }
}

static void pair_add(struct relay *relay, int client)
{
    struct pair *pair = calloc(1, sizeof *pair);
    bool pending = false;
    int fd = pair ? endpoint_connect(relay->target, &pending) : -1;

    if (fd < 0) {
        relay->counters->refused++;
        close(client);
        free(pair);
        return;
    }
    pair->fds[0] = client;
    pair->fds[1] = fd;
    pair->connecting = pending;
    pair->hold_until = NEVER;
    relay->pairs[relay->count++] = pair;
    if (!pending)
        relay->counters->connections++;
}

static void accept_all(struct relay *relay)
{
    while (relay->count < PAIRS_MAX) {
        int fd = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0 && errno != EAGAIN)
            relay->accept_again = relay->now + ACCEPT_PAUSE_NS;
        if (fd < 0)
            return;
        endpoint_tune(fd);
        pair_add(relay, fd);
    }
}

/* What to poll one side of a pair for. */
static short side_events(const struct relay *relay, const struct pair *pair, int side)
{
    const struct direction *in = &pair->directions[side], *away = &pair->directions[1 - side];
    short events = 0;

    if (pair->connecting)
        return side == 1 ? POLLOUT : 0;
    if (!in->ended && in->queued < QUEUE_MAX)
        events |= POLLIN;
    if (away->head && away->head->due_ns <= relay->now)
        events |= POLLOUT;
    return events;
}

static void earlier(int64_t *time, int64_t other)
{
    if (other < *time)
        *time = other;
}

/* Fill the poll table. Returns when the next thing is due. */
static int64_t prepare(struct relay *relay)
{
    int64_t next = relay->next_cut;

    earlier(&next, relay->next_tick);
    relay->polled[0].fd = relay->listener;
    if (relay->count == PAIRS_MAX || relay->now < relay->accept_again) {
        relay->polled[0].fd = -1;
        earlier(&next, relay->accept_again > relay->now ? relay->accept_again : NEVER);
    }
    for (size_t i = 0; i < relay->count; i++) {
        const struct pair *pair = relay->pairs[i];

        earlier(&next, pair->hold_until);
        for (int side = 0; side < 2; side++) {
            const struct chunk *head = pair->directions[side].head;
            struct pollfd *polled = &relay->polled[2 + 2 * i + (size_t)side];

            polled->events = side_events(relay, pair, side);
            polled->revents = 0;
            /* A side that is done with would report its hang-up for ever. */
            polled->fd = pair->gone[side] || (!polled->events && !pair->directions[side].ended)
                             ? -1
                             : pair->fds[side];
            if (head && head->due_ns > relay->now)
                earlier(&next, head->due_ns);
        }
    }
    return next;
}

static void serve_side(struct relay *relay, struct pair *pair, int side, short events)
{
    if (pair->connecting) {
        if (side == 1 && events)
            finish_connecting(relay, pair);
        return;
    }
    if (!pair->closed && (events & (POLLIN | POLLHUP | POLLERR)) && pair->fds[side] >= 0 &&
        !pair->directions[side].ended)
        take_in(relay, pair, side);
    else if (!pair->closed && (events & (POLLHUP | POLLERR)))
        pair->gone[side] = true;
    if (!pair->closed && pair->fds[0] >= 0 && pair->fds[1] >= 0) {
        flush(relay, pair, 1 - side);
        if (!pair->closed && pair->gone[side])
            flush(relay, pair, side);
    }
}

static void serve_pairs(struct relay *relay)
{
    size_t polled = relay->count; /* those accepted meanwhile are not in the table */

    for (size_t i = 0; i < polled; i++) {
        struct pair *pair = relay->pairs[i];

        for (int side = 0; side < 2 && !pair->closed; side++)
            serve_side(relay, pair, side, relay->polled[2 + 2 * i + (size_t)side].revents);
        if (!pair->closed && pair->hold_until <= relay->now)
            pair_close(pair);
    }
    if (relay->polled[0].revents && relay->polled[0].fd >= 0)
        accept_all(relay);
}

static void remove_closed(struct relay *relay)
{
    for (size_t i = 0; i < relay->count;) {
        if (relay->pairs[i]->closed) {
            free(relay->pairs[i]);
            relay->pairs[i] = relay->pairs[--relay->count];
        } else {
            i++;
        }
    }
}

static void run_timers(struct relay *relay)
{
    const struct relay_options *options = relay->options;

    if (relay->now >= relay->next_cut) {
        cut_all(relay);
        relay->next_cut = relay->now + chance_interval(&relay->chance, options->cut_every_ns);
    }
    if (relay->now >= relay->next_tick) {
        options->tick(relay->counters, options->user);
        relay->next_tick = relay->now + options->tick_ns;
    }
}

static int loop(struct relay *relay)
{
    for (;;) {
        int64_t wait = prepare(relay) - relay->now;
        struct timespec timeout;

        wait = wait < 0 ? 0 : wait > INT64_C(3600000000000) ? INT64_C(3600000000000) : wait;
        timeout = (struct timespec){ wait / 1000000000, wait % 1000000000 };
        if (ppoll(relay->polled, 2 + 2 * relay->count, &timeout, NULL) < 0 && errno != EINTR)
            return errno;
        relay->now = clock_now();
        if (relay->polled[1].revents)
            return 0;
        serve_pairs(relay);
        run_timers(relay);
        remove_closed(relay);
    }
}

int relay_run(int listener, int stop, const struct endpoint *target,
              const struct relay_options *options, struct relay_counters *out_counters)
{
    struct relay *relay = calloc(1, sizeof *relay);
    int error;

    if (!relay)
        return ENOMEM;
    relay->options = options;
    relay->target = target;
    relay->counters = out_counters;
    relay->listener = listener;
    relay->now = clock_now();
    chance_seed(&relay->chance, options->seed);
    relay->next_cut = NEVER;
    if (options->cut_every_ns)
        relay->next_cut = relay->now + chance_interval(&relay->chance, options->cut_every_ns);
    relay->next_tick = options->tick ? relay->now + options->tick_ns : NEVER;
    relay->polled[0].events = relay->polled[1].events = POLLIN;
    relay->polled[1].fd = stop;
    error = loop(relay);
    for (size_t i = 0; i < relay->count; i++) {
        pair_close(relay->pairs[i]);
        free(relay->pairs[i]);
    }
    free(relay);
    return error;
}
