/* SPDX-License-Identifier: MIT */
/* router.c - pipes and their receivers, on the loop's thread.
 *
 * A turn. The loop sees a sender's socket readable; what is there is read (router_conn.c), and goes
 * to the receivers' queues; then they are called, one message each in turn, up to turn_messages.
 * What is left is delivered in the loop's next turns.
 *
 * Messages stay where they are until their receiver is called: a pipe that blocks leaves them in
 * the call's flow, whose credit holds the sender back; the others take them out at once, and drop
 * what is too much. */
#include "proc/router_internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/loop_internal.h"
#include "os/clock.h"

#define TURN_MESSAGES 1024
#define QUEUE_MESSAGES 1024
#define PIPES 65536
#define CONNECTIONS 1024

void sml_router_log(const struct semel_router *router, enum semel_log_level level,
                    const char *format, ...)
{
    char text[512];
    va_list args;

    if (router->options.log == NULL)
        return;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    router->options.log(level, text, router->options.log_user);
}

/* --- receivers ----------------------------------------------------------------------------- */

static void free_receiver(struct semel_receiver *receiver)
{
    sml_list_remove(&receiver->waiting);
    sml_item_reader_clear(&receiver->reader);
    sml_receiver_drop_slots(receiver);
    free(receiver);
}

static struct semel_receiver *find(const struct semel_router *router, uint64_t id)
{
    return id < UINT64_MAX ? sml_table_find(&router->pipes, id + 1) : NULL;
}

struct semel_receiver *sml_router_find(struct semel_router *router, const uint8_t *body)
{
    struct semel_receiver *receiver;
    uint8_t difference = 0;
    uint64_t id;

    memcpy(&id, body, sizeof id);
    receiver = find(router, id);
    for (size_t i = 0; receiver && i < SML_PIPE_SECRET_BYTES; i++)
        difference |= (uint8_t)(receiver->secret[i] ^ body[8 + i]);
    return difference == 0 ? receiver : NULL;
}

struct semel_receiver *sml_router_admit(struct semel_router *router, struct semel_bytes body)
{
    struct semel_receiver *receiver = NULL;

    if (body.size == SML_PIPE_BODY_BYTES)
        receiver = sml_router_find(router, body.data);
    return receiver && !receiver->had_sender ? receiver : NULL;
}

/* --- what has arrived ---------------------------------------------------------------------- */

static struct sml_part *first_part(const struct sml_inflow *in)
{
    return sml_list_empty(&in->parts) ? NULL : SML_CONTAINER(in->parts.next, struct sml_part, node);
}

static bool names_slot(const struct sml_part *part)
{
    return part->kind == SML_PART_ITEM && part->size == SML_MESSAGE_PASSED_BYTES &&
           part->bytes[0] == SML_MESSAGE_PASSED;
}

/* A part that nobody is called for. If it names a slot its sender may wait for that alone, which is
 * not worth a credit otherwise. */
static void drop_part(struct sml_inflow *in, struct sml_part *part)
{
    in->credit_due |= names_slot(part);
    sml_part_release(&sml_mem_libc, part);
}

/* The oldest message that is not being put together goes. */
static void drop_oldest(struct semel_receiver *receiver)
{
    struct sml_inflow *in = &receiver->inlet->in->stream->in;
    struct sml_part *part;
    bool last = false;

    while (!last && (part = sml_inflow_take(in)) != NULL) {
        last = part->kind == SML_PART_ITEM;
        drop_part(in, part);
    }
    receiver->whole--;
    receiver->router->counters.flooded++;
}

/* Messages that are new. */
static void count_whole(struct semel_receiver *receiver, const struct sml_inflow *in)
{
    for (struct sml_list *node = in->parts.prev; node != &in->parts; node = node->prev) {
        const struct sml_part *part = SML_CONTAINER(node, struct sml_part, node);

        if (part->number < receiver->counted)
            break;
        receiver->whole += part->kind == SML_PART_ITEM;
    }
    receiver->counted = in->arrived;
}

/* What is too much goes; also what would keep the sender waiting for credit. */
static void drop_surplus(struct semel_receiver *receiver)
{
    struct sml_inflow *in = &receiver->inlet->in->stream->in;
    uint32_t keep =
        receiver->options.flood == SEMEL_FLOOD_COALESCE ? 1 : receiver->options.queue_messages;
    bool dropped = false;

    count_whole(receiver, in);
    while (receiver->whole > 1 && !receiver->reader.open &&
           (receiver->whole > keep || in->charge - in->taken_charge > in->window / 2)) {
        drop_oldest(receiver);
        dropped = true;
    }
    if (dropped)
        sml_inlet_took(receiver->inlet);
}

/* Nobody is called for these any more. */
static void discard(struct sml_inlet *inlet)
{
    struct sml_inflow *in = &inlet->in->stream->in;
    struct semel_router *router = inlet->conn->router;
    struct sml_part *part;

    while ((part = sml_inflow_take(in)) != NULL) {
        if (part->kind == SML_PART_ITEM && inlet->dropped++ == 0)
            sml_router_log(router, SEMEL_LOG_WARNING,
                           "a message for pipe %" PRIu64 " has no receiver any more: dropped",
                           inlet->id);
        router->counters.dropped += part->kind == SML_PART_ITEM;
        drop_part(in, part);
    }
    sml_inlet_took(inlet);
}

static void end_if_over(struct sml_inlet *inlet)
{
    if (sml_inflow_is_at_end(&inlet->in->stream->in))
        sml_inlet_end(inlet, SEMEL_OK);
}

void sml_router_arrived(struct sml_inlet *inlet)
{
    struct semel_receiver *receiver = inlet->receiver;

    if (receiver == NULL) {
        discard(inlet);
        end_if_over(inlet);
        return;
    }
    if (receiver->options.flood != SEMEL_FLOOD_BLOCK)
        drop_surplus(receiver);
    if (!sml_list_linked(&receiver->waiting))
        sml_list_push_back(&receiver->router->waiting, &receiver->waiting);
}

/* --- delivery ------------------------------------------------------------------------------ */

static void lose(struct semel_receiver *receiver, const char *why)
{
    receiver->router->counters.dropped++;
    sml_router_log(receiver->router, SEMEL_LOG_WARNING,
                   "a message for pipe %" PRIu64 " %s: dropped", receiver->id, why);
}

/* The message that was delivered from a slot, or could not be: the sender may use the slot again.
 * */
static void return_slot(struct semel_receiver *receiver)
{
    struct sml_inlet *inlet = receiver->inlet;

    receiver->lent = NULL;
    if (inlet == NULL)
        return; /* nobody is left to use it */
    sml_part_release(&sml_mem_libc, sml_inflow_take(&inlet->in->stream->in));
    inlet->in->stream->in.credit_due = true;
    sml_inlet_took(inlet);
    receiver->router->slot_returned = true;
}

/* Take parts over from the flow: up to one that names a slot, which stays there until it was
 * delivered; of a pipe that drops, one message. False: none. */
static bool take(struct semel_receiver *receiver)
{
    struct sml_inflow *in = &receiver->inlet->in->stream->in;
    bool one = receiver->options.flood != SEMEL_FLOOD_BLOCK, any = false, last = false;
    bool inside = receiver->reader.open;
    struct sml_part *part;

    while (!last && (part = first_part(in)) != NULL && (inside || !names_slot(part))) {
        inside = part->kind == SML_PART_PIECE;
        last = one && part->kind == SML_PART_ITEM;
        (void)sml_inflow_take(in);
        sml_list_push_back(&receiver->reader.parts, &part->node);
        any = true;
        receiver->whole -= receiver->whole > 0 && part->kind == SML_PART_ITEM;
    }
    if (any)
        sml_inlet_took(receiver->inlet);
    return any;
}

/* The next message is in a slot: lend it. False: it is not. */
static bool take_slot(struct semel_receiver *receiver, struct semel_bytes *out)
{
    struct sml_part *part = first_part(&receiver->inlet->in->stream->in);

    while (part && names_slot(part)) {
        receiver->whole -= receiver->whole > 0;
        if (sml_receiver_lend(receiver, semel_bytes(part->bytes, part->size), out))
            return true;
        lose(receiver, "names memory that was not passed");
        return_slot(receiver);
        part = receiver->inlet ? first_part(&receiver->inlet->in->stream->in) : NULL;
    }
    return false;
}

/* From the reader: OK; WOULD_BLOCK. */
static enum semel_status read_message(struct semel_receiver *receiver, struct semel_bytes *out)
{
    enum semel_status status;

    while ((status = sml_item_reader_next(&receiver->reader, out)) != SEMEL_WOULD_BLOCK) {
        const uint8_t *at = out->data;

        if (status == SEMEL_OK && out->size > 0 && at[0] == SML_MESSAGE_PLAIN) {
            *out = semel_bytes(at + 1, out->size - 1);
            return SEMEL_OK;
        }
        /* Of a sender that is gone; what it shared is still there. */
        if (status == SEMEL_OK && out->size == SML_MESSAGE_PASSED_BYTES &&
            at[0] == SML_MESSAGE_PASSED && sml_receiver_lend(receiver, *out, out))
            return SEMEL_OK;
        if (status == SEMEL_NO_MEMORY) /* lost when it is skipped */
            sml_item_reader_skip(&receiver->reader);
        else
            lose(receiver, status == SEMEL_OK ? "was damaged" : "was too large");
    }
    return status;
}

void sml_receiver_keep_parts(struct semel_receiver *receiver)
{
    struct sml_inflow *in = &receiver->inlet->in->stream->in;
    struct sml_part *part;

    while ((part = sml_inflow_take(in)) != NULL)
        sml_list_push_back(&receiver->reader.parts, &part->node);
}

/* The next message of the receiver; false: none is whole. */
static bool next_message(struct semel_receiver *receiver, struct semel_bytes *out)
{
    while (read_message(receiver, out) != SEMEL_OK) {
        if (receiver->inlet == NULL)
            return false;
        if (!receiver->reader.open && take_slot(receiver, out))
            return true;
        if (receiver->inlet == NULL || take(receiver))
            continue;
        end_if_over(receiver->inlet);
        return false;
    }
    return true;
}

static void deliver(struct semel_receiver *receiver, struct semel_bytes message)
{
    struct semel_router *router = receiver->router;

    router->counters.delivered++;
    receiver->calling = true;
    receiver->on_message(receiver, message, receiver->user);
    receiver->calling = false;
    if (receiver->lent)
        return_slot(receiver);
    if (receiver->closed)
        free_receiver(receiver);
}

/* One message of whoever waits the longest; false: nobody has any. */
static bool deliver_one(struct semel_router *router)
{
    struct semel_receiver *receiver;
    struct semel_bytes message;
    struct sml_list *node;

    while ((node = sml_list_pop_front(&router->waiting)) != NULL) {
        receiver = SML_CONTAINER(node, struct semel_receiver, waiting);
        if (!next_message(receiver, &message))
            continue;
        sml_list_push_back(&router->waiting, &receiver->waiting);
        deliver(receiver, message);
        return true;
    }
    return false;
}

/* One message, in which the router cannot be stopped; false: nobody has any. */
static bool deliver_next(struct semel_router *router)
{
    bool any;

    router->busy = true;
    any = deliver_one(router);
    router->busy = false;
    if (router->slot_returned) /* the sender fills it while the next one is delivered */
        sml_router_flush(router);
    router->slot_returned = false;
    return any;
}

/* Senders are told; of one that has ended in there more may be to be delivered. */
static void tell_senders(struct semel_router *router)
{
    sml_router_flush(router);
    if (router->state == SML_ROUTER_ON_LOOP && !sml_list_empty(&router->waiting))
        sml_router_arm(router, &router->more, sml_clock_now());
}

void sml_router_turn(struct semel_router *router)
{
    uint32_t left = router->options.turn_messages;

    while (left > 0 && deliver_next(router))
        left--;
    tell_senders(router);
}

static void on_more(struct sml_moment *moment)
{
    sml_router_turn(SML_CONTAINER(moment, struct semel_router, more));
}

/* --- states -------------------------------------------------------------------------------- */

static enum semel_status check(const struct semel_router *router, bool started)
{
    enum semel_status status;

    if (router == NULL)
        return SEMEL_INVALID;
    status = sml_loop_admit(router->loop);
    if (status != SEMEL_OK)
        return status;
    return started && router->state == SML_ROUTER_STOPPED ? SEMEL_STOPPED : SEMEL_OK;
}

static bool fill_in(struct semel_router_options *to, const struct semel_router_options *from)
{
    if (from)
        *to = *from;
    if (to->turn_messages == 0)
        to->turn_messages = TURN_MESSAGES;
    if (to->pipes == 0)
        to->pipes = PIPES;
    if (to->connections == 0)
        to->connections = CONNECTIONS;
    if (to->message_bytes == 0)
        to->message_bytes = SEMEL_BODY_BYTES;
    if (to->directory == NULL)
        to->directory = "/tmp";
    return to->message_bytes <= SEMEL_BODY_BYTES_MAX;
}

enum semel_status semel_router_create(struct semel_router **out, struct semel_loop *loop,
                                      const struct semel_router_options *options)
{
    struct semel_router *router;
    enum semel_status status;

    if (out == NULL || loop == NULL)
        return SEMEL_INVALID;
    router = calloc(1, sizeof *router);
    if (router == NULL)
        return SEMEL_NO_MEMORY;
    router->loop = loop;
    router->epoll.fd = router->sides_fd = -1;
    sml_moment_init(&router->more, on_more);
    sml_list_init(&router->sides);
    sml_list_init(&router->conns);
    sml_list_init(&router->waiting);
    if (!fill_in(&router->options, options)) {
        free(router);
        return SEMEL_INVALID;
    }
    sml_table_init(&router->pipes, &sml_mem_libc, router->options.pipes);
    status = sml_random_init(&router->random);
    if (status != SEMEL_OK) {
        free(router);
        return status;
    }
    sml_executor_enter(sml_executor_of(loop));
    *out = router;
    return SEMEL_OK;
}

enum semel_status semel_router_start(struct semel_router *router)
{
    enum semel_status status = check(router, false);

    if (status != SEMEL_OK)
        return status;
    if (router->state != SML_ROUTER_STOPPED)
        return SEMEL_ALREADY;
    router->state = SML_ROUTER_ON_LOOP;
    status = sml_router_open(router);
    if (status == SEMEL_OK)
        return SEMEL_OK;
    sml_router_close(router);
    router->state = SML_ROUTER_STOPPED;
    return status;
}

/* The loop routes no more. */
static void leave_loop(struct semel_router *router)
{
    sml_router_disarm(router, &router->more);
    if (router->state == SML_ROUTER_ON_LOOP)
        sml_router_leave_loop(router);
    router->state = SML_ROUTER_BY_HAND;
}

/* What is queued at a receiver that nobody will call. */
static void forget_messages(struct semel_receiver *receiver)
{
    struct semel_router *router = receiver->router;
    struct semel_bytes message;

    while (next_message(receiver, &message)) {
        router->counters.dropped++;
        if (receiver->lent)
            return_slot(receiver);
    }
}

static void unlink_receiver(struct semel_receiver *receiver)
{
    struct semel_router *router = receiver->router;

    if (receiver->inlet) {
        receiver->inlet->receiver = NULL;
        receiver->inlet = NULL;
    }
    (void)sml_table_remove(&router->pipes, receiver->id + 1);
    router->counters.pipes_open--;
    sml_list_remove(&receiver->waiting);
    if (receiver->calling)
        receiver->closed = true;
    else
        free_receiver(receiver);
}

enum semel_status semel_router_stop(struct semel_router *router, uint32_t *out_open)
{
    enum semel_status status = check(router, true);
    uint32_t open = 0;
    uint64_t dropped;

    if (status != SEMEL_OK)
        return status;
    if (router->busy)
        return SEMEL_WOULD_DEADLOCK;
    leave_loop(router);
    dropped = router->counters.dropped;
    (void)sml_router_read(router, 0); /* what was sent before is at least counted */
    for (uint32_t i = 0; i < router->pipes.capacity; i++) {
        struct semel_receiver *receiver = router->pipes.slots[i].value;

        if (receiver == NULL)
            continue;
        open++;
        forget_messages(receiver);
        if (receiver->inlet)
            sml_inlet_end(receiver->inlet, SEMEL_STOPPED);
        free_receiver(receiver);
    }
    sml_table_fini(&router->pipes);
    sml_table_init(&router->pipes, &sml_mem_libc, router->options.pipes);
    router->counters.pipes_open = 0;
    sml_router_flush(router);
    sml_router_close(router);
    router->state = SML_ROUTER_STOPPED;
    if (open > 0 || router->counters.dropped > dropped)
        sml_router_log(router, SEMEL_LOG_WARNING,
                       "the router stops: %" PRIu32 " pipes were not closed, %" PRIu64
                       " messages dropped",
                       open, router->counters.dropped - dropped);
    if (out_open)
        *out_open = open;
    return SEMEL_OK;
}

enum semel_status semel_router_destroy(struct semel_router *router)
{
    enum semel_status status = router ? check(router, false) : SEMEL_OK;

    if (router == NULL || status != SEMEL_OK)
        return status;
    if (router->busy)
        return SEMEL_WOULD_DEADLOCK;
    if (router->state != SML_ROUTER_STOPPED)
        status = semel_router_stop(router, NULL);
    if (status != SEMEL_OK)
        return status;
    sml_table_fini(&router->pipes);
    sml_random_fini(&router->random);
    sml_executor_leave(sml_executor_of(router->loop));
    free(router);
    return SEMEL_OK;
}

/* --- pipes --------------------------------------------------------------------------------- */

static struct semel_receiver *new_receiver(struct semel_router *router,
                                           const struct semel_pipe_options *options)
{
    struct semel_receiver *receiver = calloc(1, sizeof *receiver);

    if (receiver == NULL)
        return NULL;
    receiver->router = router;
    receiver->id = router->next_id;
    if (options)
        receiver->options = *options;
    if (receiver->options.queue_messages == 0)
        receiver->options.queue_messages = QUEUE_MESSAGES;
    sml_random_fill(&router->random, receiver->secret, sizeof receiver->secret);
    sml_item_reader_init(&receiver->reader, router->options.message_bytes + 1);
    sml_list_init(&receiver->slots);
    sml_list_init(&receiver->waiting);
    return receiver;
}

static enum semel_status make_sender(const struct semel_receiver *receiver,
                                     struct semel_sender **out_sender)
{
    char ticket[SEMEL_TICKET_BYTES];
    enum semel_status status = semel_receiver_ticket(receiver, ticket, sizeof ticket);

    return status == SEMEL_OK ? semel_sender_create(out_sender, ticket) : status;
}

enum semel_status semel_router_pipe(struct semel_router *router,
                                    const struct semel_pipe_options *options,
                                    semel_message_fn on_message, void *user,
                                    struct semel_receiver **out_receiver,
                                    struct semel_sender **out_sender)
{
    enum semel_status status = check(router, true);
    struct semel_receiver *receiver;

    if (status != SEMEL_OK)
        return status;
    if (on_message == NULL || out_receiver == NULL ||
        (options && (unsigned)options->flood > SEMEL_FLOOD_COALESCE))
        return SEMEL_INVALID;
    if (router->pipes.count >= router->options.pipes)
        return SEMEL_LIMIT;
    receiver = new_receiver(router, options);
    if (receiver == NULL)
        return SEMEL_NO_MEMORY;
    receiver->on_message = on_message;
    receiver->user = user;
    status = out_sender ? make_sender(receiver, out_sender) : SEMEL_OK;
    if (status == SEMEL_OK && !sml_table_insert(&router->pipes, receiver->id + 1, receiver)) {
        status = SEMEL_NO_MEMORY;
        if (out_sender) {
            semel_sender_destroy(*out_sender);
            *out_sender = NULL;
        }
    }
    if (status != SEMEL_OK) {
        free_receiver(receiver);
        return status;
    }
    router->next_id++;
    router->counters.pipes++;
    router->counters.pipes_open++;
    *out_receiver = receiver;
    return SEMEL_OK;
}

enum semel_status semel_router_close_pipe(struct semel_router *router,
                                          struct semel_receiver *receiver)
{
    enum semel_status status = check(router, true);
    struct sml_inlet *inlet;

    if (status != SEMEL_OK)
        return status;
    if (receiver == NULL || receiver->router != router || receiver->closed)
        return SEMEL_INVALID;
    if (!receiver->calling)
        forget_messages(receiver);
    inlet = receiver->inlet; /* its end may have been found */
    unlink_receiver(receiver);
    if (inlet) {
        discard(inlet);
        end_if_over(inlet);
    }
    if (!router->busy) /* else they are told at the end of that */
        tell_senders(router);
    return SEMEL_OK;
}

uint64_t semel_receiver_id(const struct semel_receiver *receiver)
{
    return receiver ? receiver->id : UINT64_MAX;
}

enum semel_status semel_receiver_ticket(const struct semel_receiver *receiver, char *out,
                                        size_t size)
{
    char secret[2 * SML_PIPE_SECRET_BYTES + 1], ticket[SEMEL_TICKET_BYTES];
    int length;

    if (receiver == NULL || out == NULL)
        return SEMEL_INVALID;
    for (size_t i = 0; i < SML_PIPE_SECRET_BYTES; i++)
        (void)snprintf(secret + 2 * i, 3, "%02x", receiver->secret[i]);
    length = snprintf(ticket, sizeof ticket, "semel-pipe:%" PRIu64 "%s:%s:%s", receiver->id,
                      receiver->options.never_passed ? "s" : "", secret,
                      receiver->router->listener.address.text);
    if (length < 0 || (size_t)length >= size || (size_t)length >= sizeof ticket)
        return SEMEL_TOO_LARGE;
    memcpy(out, ticket, (size_t)length + 1);
    return SEMEL_OK;
}

/* --- by hand ------------------------------------------------------------------------------- */

/* What was taken is told first: its sender may wait for that, and would send no more. */
static bool read_more(struct semel_router *router, uint64_t until)
{
    bool any;

    sml_router_flush(router);
    if (!sml_list_empty(&router->waiting)) /* of one whose connection ended in there */
        until = 0;
    router->busy = true;
    any = sml_router_read(router, until);
    router->busy = false;
    return any;
}

/* So often, with no time at all, are messages fetched and delivered: what senders had written when
 * it began is there then, and it ends although they go on. */
#define ROUNDS_WITHOUT_TIME 64

/* Inside, the router cannot be stopped: it goes on when this has returned. */
static bool ask(struct semel_router *router, bool (*condition)(void *user), void *user)
{
    bool holds;

    router->busy = true;
    holds = condition(user);
    router->busy = false;
    return holds;
}

/* Until the condition holds, or nothing is queued. */
static bool deliver_queued(struct semel_router *router, bool (*condition)(void *user), void *user,
                           uint64_t until)
{
    bool delivered = true, holds;

    while (!(holds = ask(router, condition, user)) && delivered) {
        if (until != SML_NEVER && sml_clock_now() >= until)
            break;
        delivered = deliver_next(router);
    }
    return holds;
}

enum semel_status semel_router_route_until(struct semel_router *router,
                                           bool (*condition)(void *user), void *user,
                                           int64_t timeout_ms)
{
    enum semel_status status = check(router, true);
    uint64_t until = SML_NEVER;
    uint32_t rounds = 0;

    if (status != SEMEL_OK)
        return status;
    if (condition == NULL)
        return SEMEL_INVALID;
    if (router->busy)
        return SEMEL_WOULD_DEADLOCK;
    if (timeout_ms > 0)
        until = sml_time_add(sml_clock_now(), (uint64_t)timeout_ms * SML_MS);
    leave_loop(router);
    while (!deliver_queued(router, condition, user, until)) {
        bool any = false;

        if (until == SML_NEVER || sml_clock_now() < until)
            any = read_more(router, timeout_ms == 0 ? 0 : until);
        else
            status = SEMEL_DEADLINE;
        if (timeout_ms == 0 && (!any || ++rounds == ROUNDS_WITHOUT_TIME))
            status = SEMEL_DEADLINE;
        if (status != SEMEL_OK)
            break;
    }
    sml_router_flush(router);
    return status;
}

void semel_router_counters(const struct semel_router *router,
                           struct semel_router_counters *out_counters)
{
    if (router == NULL || out_counters == NULL)
        return;
    *out_counters = router->counters;
    out_counters->connections = router->conn_count;
}
