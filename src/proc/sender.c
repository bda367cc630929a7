/* SPDX-License-Identifier: MIT */
/* sender.c - the sending end of a router's pipe: a call whose items are the messages.
 *
 * All senders of a process that send to the same router share one connection, or as many as their
 * calls need, each there as long as one of them is. It never reconnects: a router that is gone
 * stays gone. */
#include <semel/limits.h>
#include <semel/router.h>
#include <semel/stream.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "io/passing.h"
#include "os/clock.h"
#include "os/mutex.h"
#include "os/thread.h"
#include "os/process.h"
#include "os/sealed.h"
#include "proc/router_internal.h"
#include "rpc/client_seam.h"
#include "rpc/stream_seam.h"
#include "rpc/stream_wait.h"

/* The connections of this process. One that was forked has its own: at that moment a thread that it
 * does not have may have held the lock. */
struct lanes {
    struct sml_origin origin;
    struct sml_mutex lock;
    struct sml_list list;
    struct lanes *before; /* the parent's; nobody looks at it */
};

/* A connection of this process to a router. */
struct lane {
    struct lanes *home;
    struct sml_list all;
    _Atomic uint32_t refs; /* home->lock; of the parent's, in a child, none */
    struct semel_client *client;
    struct sml_origin origin;
    int side; /* passes memory; -1: not needed yet */
    char address[SEMEL_TICKET_BYTES];
};

/* Memory that is shared with the router. */
struct slot {
    void *data;
    size_t size;
    uint64_t number; /* of this memory; its place is the slot's */
    uint64_t part;   /* that named it last; it is free once that was taken */
    bool named;      /* since it was free */
};

#define SLOTS 8 /* at most SML_SLOTS_MAX */
#define SLOT_BYTES_MIN UINT64_C(1048576)

enum state { INITIAL, OPEN, CLOSED };

struct semel_sender {
    enum state state;
    uint8_t body[SML_PIPE_BODY_BYTES];
    struct lane *lane;
    struct semel_stream *stream;
    bool never_passes;
    struct slot slots[SLOTS];
    struct slot *reserved; /* NULL: none */
    void *spare;           /* what is reserved instead, to be sent through the socket; or NULL */
    size_t reserved_bytes;
    char address[SEMEL_TICKET_BYTES];
};

static _Atomic(struct lanes *) all_lanes;

/* --- lanes --------------------------------------------------------------------------------- */

/* NULL: no memory. They are never freed: another thread may be about to use them. */
static struct lanes *lanes_here(void)
{
    struct lanes *seen = atomic_load(&all_lanes), *fresh;

    while (seen == NULL || !sml_origin_is_mine(&seen->origin)) {
        fresh = calloc(1, sizeof *fresh);
        if (fresh == NULL)
            return NULL;
        sml_origin_init(&fresh->origin);
        sml_mutex_init(&fresh->lock);
        sml_list_init(&fresh->list);
        fresh->before = seen;
        if (atomic_compare_exchange_strong(&all_lanes, &seen, fresh))
            return fresh;
        sml_mutex_fini(&fresh->lock);
        sml_origin_fini(&fresh->origin);
        free(fresh);
    }
    return seen;
}

/* One with room: as many senders as it may have calls. Lock held. */
static struct lane *find_lane(const struct lanes *lanes, const char *address)
{
    const struct sml_list *list = &lanes->list;

    for (struct sml_list *node = list->next; node != list; node = node->next) {
        struct lane *lane = SML_CONTAINER(node, struct lane, all);

        if (strcmp(lane->address, address) == 0 &&
            atomic_load_explicit(&lane->refs, memory_order_relaxed) < SEMEL_WINDOW_CALLS_MAX &&
            semel_client_state(lane->client) != SEMEL_CLIENT_FAILED)
            return lane;
    }
    return NULL;
}

/* Lock held. */
static enum semel_status make_lane(struct lanes *lanes, const char *address, struct lane **out)
{
    struct semel_client_options options = SEMEL_CLIENT_OPTIONS_INIT;
    struct lane *lane = calloc(1, sizeof *lane);
    enum semel_status status;

    if (lane == NULL)
        return SEMEL_NO_MEMORY;
    options.heartbeat_ms = -1;        /* a loop may be busy for long, and is no less there */
    options.handshake_ms = INT32_MAX; /* nor if it has not greeted yet */
    options.give_up_ms = -1;
    options.cancel_grace_ms = -1;
    options.window_calls = SEMEL_WINDOW_CALLS_MAX; /* each sender is one, for all its life */
    (void)snprintf(lane->address, sizeof lane->address, "%s", address);
    status = semel_client_create(&lane->client, address, &options);
    if (status != SEMEL_OK) {
        free(lane);
        return status;
    }
    sml_origin_init(&lane->origin);
    lane->home = lanes;
    lane->side = -1;
    sml_list_push_back(&lanes->list, &lane->all);
    *out = lane;
    return SEMEL_OK;
}

static enum semel_status take_lane(const char *address, struct lane **out)
{
    struct lanes *lanes = lanes_here();
    enum semel_status status = SEMEL_OK;

    if (lanes == NULL)
        return SEMEL_NO_MEMORY;
    sml_mutex_lock(&lanes->lock);
    *out = find_lane(lanes, address);
    if (*out == NULL)
        status = make_lane(lanes, address, out);
    if (status == SEMEL_OK)
        atomic_fetch_add(&(*out)->refs, 1);
    sml_mutex_unlock(&lanes->lock);
    return status;
}

static void leave_lane(struct lane *lane)
{
    bool mine = sml_origin_is_mine(&lane->origin), last;

    if (mine)
        sml_mutex_lock(&lane->home->lock);
    last = atomic_fetch_sub(&lane->refs, 1) == 1;
    if (last && mine)
        sml_list_remove(&lane->all);
    if (mine)
        sml_mutex_unlock(&lane->home->lock);
    if (!last)
        return;
    (void)semel_client_destroy(lane->client);
    if (lane->side >= 0)
        sml_passing_close(lane->side);
    sml_origin_fini(&lane->origin);
    free(lane);
}

/* --- tickets ------------------------------------------------------------------------------- */

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "semel-pipe:ID:SECRET:ADDRESS"; with an "s" behind the id: everything through the socket. */
static bool read_ticket(const char *ticket, struct semel_sender *sender)
{
    static const char prefix[] = "semel-pipe:";
    uint64_t id = 0;
    const char *at = ticket + sizeof prefix - 1;

    if (strncmp(ticket, prefix, sizeof prefix - 1) != 0 || *at == ':')
        return false;
    for (; *at != ':' && *at != 's'; at++) {
        if (digit(*at) < 0 || digit(*at) > 9 || id > (UINT64_MAX - 9) / 10)
            return false;
        id = id * 10 + (uint64_t)digit(*at);
    }
    memcpy(sender->body, &id, sizeof id);
    sender->never_passes = *at == 's';
    at += sender->never_passes;
    if (*at++ != ':')
        return false;
    for (size_t i = 0; i < SML_PIPE_SECRET_BYTES; i++, at += 2) {
        if (digit(at[0]) < 0 || digit(at[1]) < 0)
            return false;
        sender->body[8 + i] = (uint8_t)(digit(at[0]) * 16 + digit(at[1]));
    }
    if (*at++ != ':' || strlen(at) >= sizeof sender->address)
        return false;
    memcpy(sender->address, at, strlen(at) + 1);
    return true;
}

/* --- senders ------------------------------------------------------------------------------- */

enum semel_status semel_sender_create(struct semel_sender **out, const char *ticket)
{
    struct semel_sender *sender;

    if (out == NULL || ticket == NULL)
        return SEMEL_INVALID;
    sender = calloc(1, sizeof *sender);
    if (sender == NULL)
        return SEMEL_NO_MEMORY;
    if (!read_ticket(ticket, sender)) {
        free(sender);
        return SEMEL_INVALID;
    }
    for (uint64_t i = 0; i < SLOTS; i++)
        sender->slots[i].number = i;
    *out = sender;
    return SEMEL_OK;
}

enum semel_status semel_sender_start(struct semel_sender *sender)
{
    struct semel_stream_options options = { .sends = true };
    enum semel_status status;

    if (sender == NULL)
        return SEMEL_INVALID;
    if (sender->state != INITIAL)
        return sender->state == OPEN ? SEMEL_ALREADY : SEMEL_STOPPED;
    status = take_lane(sender->address, &sender->lane);
    if (status != SEMEL_OK)
        return status;
    status = sml_client_stream_for_life(sender->lane->client, SML_PIPE_METHOD,
                                        semel_bytes(sender->body, sizeof sender->body), &options,
                                        &sender->stream);
    if (status != SEMEL_OK) {
        leave_lane(sender->lane);
        sender->lane = NULL;
        return status;
    }
    sender->state = OPEN;
    return SEMEL_OK;
}

static enum semel_status check_open(const struct semel_sender *sender)
{
    if (sender == NULL || sender->state == INITIAL)
        return SEMEL_INVALID;
    if (sender->state == CLOSED)
        return SEMEL_STOPPED;
    return sml_origin_is_mine(&sender->lane->origin) ? SEMEL_OK : SEMEL_FORKED;
}

/* The call is over: why? OK: it came to its end. Its result may still be on its way from the thread
 * that has read it. */
static enum semel_status why_over(struct semel_sender *sender)
{
    uint64_t until = sml_clock_now() + SML_SECOND;
    enum semel_status status = SEMEL_PEER_DIED, there;
    struct semel_result result;

    for (;;) {
        uint32_t seen = sml_stream_seen(sender->stream);

        there = semel_stream_result(sender->stream, 0, &result);
        if (there != SEMEL_WOULD_BLOCK || sml_clock_now() >= until)
            break;
        (void)sml_stream_wait_news(sender->stream, seen, until);
    }
    if (there != SEMEL_OK)
        return status;
    if (result.outcome == SEMEL_VALUE)
        status = SEMEL_OK;
    else if (result.outcome == SEMEL_NOT_EXECUTED && result.status == SEMEL_DENIED)
        status = SEMEL_DENIED;
    semel_result_clear(&result);
    return status;
}

/* --- passing memory ------------------------------------------------------------------------ */

/* The side socket lies beside the other one: ".../p". Lock held. */
static enum semel_status open_side(struct lane *lane)
{
    char path[SEMEL_TICKET_BYTES];
    enum semel_status status;

    if (lane->side >= 0)
        return SEMEL_OK;
    (void)snprintf(path, sizeof path, "%s", lane->address + sizeof "unix:" - 1);
    path[strlen(path) - 1] = 'p';
    status = sml_passing_connect(path, &lane->side);
    if (status != SEMEL_OK)
        lane->side = -1;
    return status;
}

/* Returns OK; WOULD_BLOCK: not now, which is so, too, if the router has dropped the side: whether
 * it is gone is known from the other socket. */
static enum semel_status pass(struct lane *lane, const uint8_t *words, int fd)
{
    enum semel_status status;

    sml_mutex_lock(&lane->home->lock);
    status = open_side(lane);
    if (status == SEMEL_OK)
        status = sml_passing_send(lane->side, words, SML_PASSED_WORDS, fd);
    if (status == SEMEL_PEER_DIED && lane->side >= 0) {
        sml_passing_close(lane->side);
        lane->side = -1;
        status = SEMEL_WOULD_BLOCK;
    }
    sml_mutex_unlock(&lane->home->lock);
    return status;
}

/* What the router has delivered is free. */
static void free_slots(struct semel_sender *sender)
{
    uint64_t added, taken;

    sml_stream_progress_of(sender->stream, &added, &taken);
    for (int i = 0; i < SLOTS; i++)
        if (sender->slots[i].named && sender->slots[i].part < taken)
            sender->slots[i].named = false;
}

/* The smallest that is free and will do; else one that is free: the largest, to be made anew. */
static struct slot *find_free(struct semel_sender *sender, size_t size)
{
    struct slot *found = NULL;

    for (int i = 0; i < SLOTS; i++) {
        struct slot *slot = &sender->slots[i];

        if (slot->named || slot == sender->reserved)
            continue;
        if (found == NULL || (found->size < size && slot->size >= size) ||
            (found->size >= size && slot->size >= size && slot->size < found->size))
            found = slot;
    }
    return found;
}

/* Make the slot large enough, and pass it. */
static enum semel_status make_slot(struct semel_sender *sender, struct slot *slot, size_t size)
{
    uint8_t words[SML_PASSED_WORDS];
    uint64_t number = slot->number + SML_SLOTS_MAX, bytes = SLOT_BYTES_MIN;
    enum semel_status status;
    void *data;
    int fd;

    while (bytes < size)
        bytes *= 2;
    status = sml_sealed_create((size_t)bytes, &fd, &data);
    if (status != SEMEL_OK)
        return status;
    memcpy(words, sender->body, SML_PIPE_BODY_BYTES);
    memcpy(words + SML_PIPE_BODY_BYTES, &number, 8);
    memcpy(words + SML_PIPE_BODY_BYTES + 8, &bytes, 8);
    status = pass(sender->lane, words, fd);
    sml_sealed_close(fd);
    if (status != SEMEL_OK) {
        sml_sealed_unmap(data, (size_t)bytes);
        return status;
    }
    if (slot->data)
        sml_sealed_unmap(slot->data, slot->size);
    slot->data = data;
    slot->size = (size_t)bytes;
    slot->number = number;
    return SEMEL_OK;
}

/* A slot for `size` bytes. LIMIT: none of this pipe is passed; or one is free, but not now. */
static enum semel_status get_slot(struct semel_sender *sender, size_t size, uint64_t until,
                                  struct slot **out)
{
    enum semel_status status = SEMEL_WOULD_BLOCK;

    if (sender->never_passes)
        return SEMEL_LIMIT;
    for (;;) {
        uint32_t seen = sml_stream_seen(sender->stream);

        free_slots(sender);
        *out = find_free(sender, size);
        if (*out)
            status = (*out)->size >= size ? SEMEL_OK : make_slot(sender, *out, size);
        if (*out && status == SEMEL_WOULD_BLOCK)
            return SEMEL_LIMIT; /* the router looks for more when some is named, not before */
        if (status != SEMEL_WOULD_BLOCK || sml_clock_now() >= until)
            return status;
        if (sml_stream_wait_news(sender->stream, seen, until) == SEMEL_END)
            return SEMEL_END;
    }
}

/* Through the socket. */
static enum semel_status send_plain(struct semel_sender *sender, struct semel_bytes message,
                                    int64_t timeout_ms)
{
    static const uint8_t plain = SML_MESSAGE_PLAIN;

    return sml_stream_send(sender->stream, semel_bytes(&plain, 1), message, timeout_ms);
}

/* A message that names the slot. */
static enum semel_status name_slot(struct semel_sender *sender, struct slot *slot, uint64_t size,
                                   int64_t timeout_ms)
{
    uint8_t words[SML_MESSAGE_PASSED_BYTES] = { SML_MESSAGE_PASSED };
    uint64_t added, taken;
    enum semel_status status;

    memcpy(words + 1, &slot->number, 8);
    memcpy(words + 9, &size, 8);
    sml_stream_progress_of(sender->stream, &added, &taken);
    status = semel_stream_send(sender->stream, semel_bytes(words, sizeof words), timeout_ms);
    slot->named = status == SEMEL_OK;
    slot->part = added;
    return status;
}

static void drop_reserved(struct semel_sender *sender)
{
    free(sender->spare);
    sender->spare = NULL;
    sender->reserved = NULL;
}

enum semel_status semel_sender_reserve(struct semel_sender *sender, size_t size, int64_t timeout_ms,
                                       void **out_data)
{
    enum semel_status status = check_open(sender);
    struct slot *slot;

    if (status != SEMEL_OK)
        return status;
    if (size == 0 || out_data == NULL)
        return SEMEL_INVALID;
    if (size > SEMEL_BODY_BYTES_MAX)
        return SEMEL_TOO_LARGE;
    if (timeout_ms != 0 && sml_thread_in_loop())
        return SEMEL_WOULD_DEADLOCK;
    drop_reserved(sender);
    status = get_slot(sender, size, sml_stream_until(timeout_ms), &slot);
    if (status == SEMEL_OK)
        sender->reserved = slot;
    else if (status == SEMEL_LIMIT)
        status = (sender->spare = malloc(size)) ? SEMEL_OK : SEMEL_NO_MEMORY;
    if (status != SEMEL_OK)
        return status == SEMEL_END ? why_over(sender) : status;
    sender->reserved_bytes = size;
    *out_data = sender->spare ? sender->spare : slot->data;
    return SEMEL_OK;
}

enum semel_status semel_sender_send_reserved(struct semel_sender *sender, int64_t timeout_ms)
{
    enum semel_status status = check_open(sender);

    if (status != SEMEL_OK)
        return status;
    if (sender->reserved)
        status = name_slot(sender, sender->reserved, sender->reserved_bytes, timeout_ms);
    else if (sender->spare)
        status = send_plain(sender, semel_bytes(sender->spare, sender->reserved_bytes), timeout_ms);
    else
        return SEMEL_INVALID;
    if (status != SEMEL_WOULD_BLOCK && status != SEMEL_WOULD_DEADLOCK)
        drop_reserved(sender);
    return status == SEMEL_END ? why_over(sender) : status;
}

/* --- sending ------------------------------------------------------------------------------- */

static enum semel_status send_passed(struct semel_sender *sender, struct semel_bytes message,
                                     int64_t timeout_ms)
{
    enum semel_status status = SEMEL_WOULD_DEADLOCK;
    struct slot *slot;

    if (timeout_ms == 0 || !sml_thread_in_loop())
        status = get_slot(sender, message.size, sml_stream_until(timeout_ms), &slot);
    if (status != SEMEL_OK)
        return status;
    memcpy(slot->data, message.data, message.size);
    return name_slot(sender, slot, message.size, timeout_ms);
}

enum semel_status semel_sender_send(struct semel_sender *sender, struct semel_bytes message,
                                    int64_t timeout_ms)
{
    enum semel_status status = check_open(sender);
    bool passes;

    if (status != SEMEL_OK)
        return status;
    if (message.size > 0 && message.data == NULL)
        return SEMEL_INVALID;
    if (message.size > SEMEL_BODY_BYTES_MAX)
        return SEMEL_TOO_LARGE;
    passes = message.size >= SEMEL_PASSED_BYTES && !sender->never_passes;
    if (passes)
        status = send_passed(sender, message, timeout_ms);
    if (!passes || status == SEMEL_LIMIT) /* there is no memory to share now */
        status = send_plain(sender, message, timeout_ms);
    return status == SEMEL_END ? why_over(sender) : status;
}

enum semel_status semel_sender_flush(struct semel_sender *sender, int64_t timeout_ms)
{
    enum semel_status status = check_open(sender);

    if (status == SEMEL_OK)
        status = sml_stream_flush(sender->stream, sml_stream_until(timeout_ms));
    return status == SEMEL_END ? why_over(sender) : status;
}

enum semel_status semel_sender_stop(struct semel_sender *sender, int64_t timeout_ms)
{
    enum semel_status status = check_open(sender);

    if (status == SEMEL_STOPPED)
        return SEMEL_ALREADY;
    if (status != SEMEL_OK)
        return status;
    (void)semel_stream_end(sender->stream);
    status = sml_stream_flush(sender->stream, sml_stream_until(timeout_ms));
    if (status == SEMEL_END)
        status = why_over(sender);
    sml_stream_detach(sender->stream);
    sender->stream = NULL;
    sender->state = CLOSED;
    return status;
}

void semel_sender_destroy(struct semel_sender *sender)
{
    if (sender == NULL)
        return;
    if (sender->state == OPEN && sml_origin_is_mine(&sender->lane->origin))
        (void)semel_sender_stop(sender, 0);
    for (int i = 0; i < SLOTS; i++)
        if (sender->slots[i].data)
            sml_sealed_unmap(sender->slots[i].data, sender->slots[i].size);
    drop_reserved(sender);
    if (sender->lane)
        leave_lane(sender->lane);
    free(sender);
}
