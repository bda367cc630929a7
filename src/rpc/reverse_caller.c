/* SPDX-License-Identifier: MIT */
/* reverse_caller.c - see reverse_caller.h.
 *
 * The table has what is under way, and what was given up and may still be answered: so a reply is
 * for a call, or late, or of a number that the client cannot know. */
#include "rpc/reverse_caller.h"

#include <string.h>

#include "base/check.h"

void sml_reverse_caller_init(struct sml_reverse_caller *caller, const struct sml_mem *mem,
                             const struct sml_reverse_limits *limits)
{
    memset(caller, 0, sizeof *caller);
    caller->limits = *limits;
    sml_table_init(&caller->table, mem, limits->calls);
    sml_list_init(&caller->waiting);
    sml_list_init(&caller->sent);
    sml_list_init(&caller->cancels);
    sml_list_init(&caller->done);
    sml_heap_init(&caller->timers);
}

void sml_reverse_caller_fini(struct sml_reverse_caller *caller)
{
    SML_ASSERT(caller->calls == 0 && sml_list_empty(&caller->done));
    sml_table_fini(&caller->table);
}

static struct sml_reverse_call *first(const struct sml_list *list)
{
    return sml_list_empty(list) ? NULL : SML_CONTAINER(list->next, struct sml_reverse_call, link);
}

/* --- beginning ------------------------------------------------------------------------------ */

enum semel_status sml_reverse_submit(struct sml_reverse_caller *caller,
                                     struct sml_reverse_call *call, uint64_t now)
{
    if (caller->ended != SEMEL_OK)
        return caller->ended;
    if (call->deadline <= now)
        return SEMEL_EXPIRED;
    if (caller->calls >= caller->limits.calls ||
        (caller->bytes_waiting > 0 && call->bytes > caller->limits.bytes - caller->bytes_waiting))
        return SEMEL_OVERLOADED;
    call->number = ++caller->last;
    call->phase = SML_REVERSE_WAITING;
    call->asked = false;
    memset(&call->verdict, 0, sizeof call->verdict);
    sml_list_init(&call->link);
    sml_list_init(&call->cancel_link);
    sml_heap_node_init(&call->timer);
    sml_list_push_back(&caller->waiting, &call->link);
    sml_heap_insert(&caller->timers, &call->timer, call->deadline);
    caller->calls++;
    caller->bytes_waiting += call->bytes;
    return SEMEL_OK;
}

/* --- ends ---------------------------------------------------------------------------------- */

/* The call is the shell's again, by way of `done`. */
static void end_call(struct sml_reverse_caller *caller, struct sml_reverse_call *call,
                     const struct sml_verdict *verdict)
{
    SML_ASSERT(call->phase != SML_REVERSE_DONE);
    if (call->phase == SML_REVERSE_WAITING)
        caller->bytes_waiting -= call->bytes;
    caller->calls--;
    call->phase = SML_REVERSE_DONE;
    call->verdict = *verdict;
    sml_heap_remove(&caller->timers, &call->timer);
    sml_list_remove(&call->cancel_link);
    sml_list_remove(&call->link);
    sml_list_push_back(&caller->done, &call->link);
}

/* Not executed if it was never handed over, else unknown. */
static void end_with(struct sml_reverse_caller *caller, struct sml_reverse_call *call,
                     enum semel_status why)
{
    struct sml_verdict verdict = { .status = why };

    verdict.outcome = call->phase == SML_REVERSE_WAITING ? SEMEL_NOT_EXECUTED : SEMEL_UNKNOWN;
    end_call(caller, call, &verdict);
}

struct sml_reverse_call *sml_reverse_next_done(struct sml_reverse_caller *caller)
{
    struct sml_list *node = sml_list_pop_front(&caller->done);

    return node ? SML_CONTAINER(node, struct sml_reverse_call, link) : NULL;
}

/* --- the client comes and goes --------------------------------------------------------------- */

void sml_reverse_open(struct sml_reverse_caller *caller, const struct sml_reverse_terms *terms)
{
    SML_ASSERT(!caller->open && caller->under_way == 0);
    caller->terms = *terms;
    caller->open = caller->ended == SEMEL_OK;
}

void sml_reverse_close(struct sml_reverse_caller *caller, enum semel_status why)
{
    struct sml_reverse_call *call;
    const struct sml_mem *mem = caller->table.mem;

    caller->open = false;
    while ((call = first(&caller->sent)) != NULL)
        end_with(caller, call, why);
    caller->under_way = 0; /* what was given up is answered by nobody */
    sml_table_fini(&caller->table);
    sml_table_init(&caller->table, mem, caller->limits.calls);
}

void sml_reverse_end(struct sml_reverse_caller *caller, enum semel_status why)
{
    struct sml_reverse_call *call;

    SML_ASSERT(why != SEMEL_OK);
    if (caller->ended != SEMEL_OK)
        return;
    sml_reverse_close(caller, why);
    caller->ended = why;
    while ((call = first(&caller->waiting)) != NULL)
        end_with(caller, call, why);
}

/* --- sending -------------------------------------------------------------------------------- */

/* The call may be handed over now, or it ends here. */
static bool hand_over(struct sml_reverse_caller *caller, struct sml_reverse_call *call,
                      uint64_t now)
{
    if (call->deadline <= now) {
        end_with(caller, call, SEMEL_EXPIRED);
        return false;
    }
    if (call->body_bytes > caller->terms.body_bytes) {
        end_with(caller, call, SEMEL_TOO_LARGE);
        return false;
    }
    if (!sml_table_insert(&caller->table, call->number, call)) {
        end_with(caller, call, SEMEL_NO_MEMORY);
        return false;
    }
    caller->bytes_waiting -= call->bytes;
    caller->under_way++;
    call->phase = SML_REVERSE_SENT;
    sml_list_remove(&call->link);
    sml_list_push_back(&caller->sent, &call->link);
    return true;
}

enum sml_reverse_send sml_reverse_next_send(struct sml_reverse_caller *caller, uint64_t now,
                                            struct sml_reverse_call **out_call)
{
    struct sml_reverse_call *call;
    struct sml_list *node;
    uint32_t window =
        caller->terms.window < caller->limits.calls ? caller->terms.window : caller->limits.calls;

    if (!caller->open)
        return SML_REVERSE_NOTHING;
    node = sml_list_pop_front(&caller->cancels);
    if (node) {
        *out_call = SML_CONTAINER(node, struct sml_reverse_call, cancel_link);
        return SML_REVERSE_SEND_CANCEL;
    }
    while (caller->under_way < window && (call = first(&caller->waiting)) != NULL) {
        if (hand_over(caller, call, now)) {
            *out_call = call;
            return SML_REVERSE_SEND_REQUEST;
        }
    }
    return SML_REVERSE_NOTHING;
}

/* --- replies, cancellations, time ------------------------------------------------------------ */

const char *sml_reverse_reply(struct sml_reverse_caller *caller,
                              const struct sml_reverse_message *message)
{
    void *found = sml_table_find(&caller->table, message->number);

    SML_ASSERT(message->kind == SML_REVERSE_REPLY);
    if (found == NULL)
        return "reverse reply to no call";
    if (message->verdict.body.size > caller->limits.reply_bytes)
        return "reverse reply larger than it may be";
    (void)sml_table_remove(&caller->table, message->number);
    caller->under_way--;
    if (found != &caller->given_up)
        end_call(caller, found, &message->verdict);
    return NULL;
}

static void ask(struct sml_reverse_caller *caller, struct sml_reverse_call *call)
{
    if (call->asked)
        return;
    call->asked = true;
    sml_list_push_back(&caller->cancels, &call->cancel_link);
}

void sml_reverse_cancel(struct sml_reverse_caller *caller, uint64_t number)
{
    void *found = sml_table_find(&caller->table, number);

    if (found && found != &caller->given_up) {
        ask(caller, found);
        return;
    }
    for (struct sml_list *at = caller->waiting.next; at != &caller->waiting; at = at->next) {
        struct sml_reverse_call *call = SML_CONTAINER(at, struct sml_reverse_call, link);

        if (call->number == number) {
            end_with(caller, call, SEMEL_CANCELLED);
            return;
        }
    }
}

/* Its reply still counts for the window, and for nothing else. */
static void give_up(struct sml_reverse_caller *caller, struct sml_reverse_call *call)
{
    (void)sml_table_remove(&caller->table, call->number);
    if (!sml_table_insert(&caller->table, call->number, &caller->given_up))
        SML_ASSERT(!"into the place that was just left");
    end_with(caller, call, SEMEL_DEADLINE);
}

void sml_reverse_tick(struct sml_reverse_caller *caller, uint64_t now)
{
    while (sml_heap_min_key(&caller->timers) <= now) {
        struct sml_reverse_call *call =
            SML_CONTAINER(sml_heap_min(&caller->timers), struct sml_reverse_call, timer);
        uint64_t end = sml_time_add(call->deadline, caller->limits.grace);

        if (call->phase == SML_REVERSE_WAITING) {
            end_with(caller, call, SEMEL_EXPIRED);
        } else if (now >= end) {
            give_up(caller, call);
        } else {
            ask(caller, call);
            sml_heap_remove(&caller->timers, &call->timer);
            sml_heap_insert(&caller->timers, &call->timer, end);
        }
    }
}
