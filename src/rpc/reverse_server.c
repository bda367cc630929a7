/* SPDX-License-Identifier: MIT */
/* reverse_server.c - calls from a server to its clients: the server's end.
 *
 * Problem. A second table of calls and a second resume on the wire would double the session, which
 * is the part that must be right. So a client that exports methods makes one call, semel.reverse,
 * with streams both ways, and the calls of the server are messages in them: numbering, order,
 * credits and resuming are the streams'.
 *
 * Everything of a backchannel happens under its session's stripe: whoever calls puts his message
 * into the stream himself, and the leader that reads a reply wakes its caller. What may not be done
 * there, or by nobody in particular, is left to one thread (reverse_thread.c).
 *
 * A call is handed over when its message goes into the stream. Before, it waits: for the client,
 * its window, or room in the stream; and whatever happens then, it was not executed. */
#include <stdlib.h>
#include <string.h>

#include <semel/stream.h>

#include "rpc/item.h"
#include "rpc/result.h"
#include "rpc/reverse_server.h"

static const struct semel_call_options no_options = SEMEL_CALL_OPTIONS_INIT;

/* --- life ---------------------------------------------------------------------------------- */

struct semel_backchannel *semel_backchannel_ref(struct semel_backchannel *channel)
{
    if (channel)
        atomic_fetch_add_explicit(&channel->refs, 1, memory_order_relaxed);
    return channel;
}

void semel_backchannel_unref(struct semel_backchannel *channel)
{
    if (channel == NULL || atomic_fetch_sub_explicit(&channel->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (!atomic_load(&channel->gone) && sml_origin_is_mine(&channel->server->origin))
        sml_reverse_remove(channel->server->reverse, channel);
    sml_reverse_caller_fini(&channel->calls);
    free(channel);
}

/* Stripe held. NULL: no memory. */
static struct semel_backchannel *make_channel(struct sml_served *served, const char *peer)
{
    struct semel_server *server = served->server;
    const struct semel_server_options *o = &server->options;
    struct sml_reverse_limits limits = { .calls = o->window_calls,
                                         .bytes = o->session_bytes,
                                         .reply_bytes = server->body_bytes,
                                         .grace = SEMEL_CANCEL_GRACE_MS * SML_MS };
    struct semel_backchannel *channel = calloc(1, sizeof *channel + strlen(peer) + 1);

    if (channel == NULL)
        return NULL;
    strcpy(channel->peer, peer);
    atomic_init(&channel->refs, 1);
    channel->server = server;
    channel->lock = served->lock;
    channel->served = served;
    channel->timer_at = SML_NEVER;
    sml_reverse_caller_init(&channel->calls, &sml_mem_libc, &limits);
    sml_list_init(&channel->all);
    sml_list_init(&channel->work_link);
    sml_list_init(&channel->ended);
    sml_heap_node_init(&channel->timer);
    sml_reverse_add(server->reverse, channel);
    served->backchannel = channel;
    return channel;
}

/* The session's, made if need be; stripe held. */
static enum semel_status find_channel(struct semel_request *request,
                                      struct semel_backchannel **out_channel)
{
    struct sml_served *served = request->served;

    if (atomic_load(&served->server->stop_wanted))
        return SEMEL_STOPPED;
    if (served->ended)
        return SEMEL_SESSION_LOST;
    *out_channel = served->backchannel;
    if (*out_channel == NULL)
        *out_channel = make_channel(served, request->info->peer.address);
    return *out_channel ? SEMEL_OK : SEMEL_NO_MEMORY;
}

enum semel_status semel_request_backchannel(struct semel_request *request,
                                            struct semel_backchannel **out_channel)
{
    struct semel_backchannel *channel;
    enum semel_status status;

    if (request == NULL || out_channel == NULL || request->away)
        return SEMEL_INVALID;
    if (request->in == NULL)
        return SEMEL_ALREADY;
    if (!sml_origin_is_mine(&request->server->origin))
        return SEMEL_FORKED;
    if (request->server->reverse == NULL)
        return SEMEL_STOPPED; /* a resolve handler: nobody is connected */
    status = sml_reverse_attend(request->server->reverse);
    if (status != SEMEL_OK)
        return status;
    sml_mutex_lock(request->served->lock);
    status = find_channel(request, &channel);
    if (status == SEMEL_OK)
        *out_channel = semel_backchannel_ref(channel);
    sml_mutex_unlock(request->served->lock);
    return status;
}

/* --- calls end ------------------------------------------------------------------------------- */

/* Stripe held. A blocking call is gone when its word says so. */
static void tell(struct semel_backchannel *channel, struct sml_back_call *call)
{
    struct sml_call told = { .xid = call->call.number,
                             .method = call->method,
                             .method_bytes = call->method_bytes,
                             .verdict = call->call.verdict };

    sml_parts_free(&call->parts);
    call->outcome = told.verdict.outcome;
    if (call->out) {
        sml_result_own(call->out, &told, channel->peer, NULL, NULL);
        call->outcome = call->out->outcome;
    }
    if (call->channel)
        sml_reverse_tell(channel, call);
    else if (atomic_exchange_explicit(&call->word, 1, memory_order_acq_rel) == 2)
        sml_futex_wake(&call->word, 1);
}

static void tell_ended(struct semel_backchannel *channel)
{
    struct sml_reverse_call *call;

    while ((call = sml_reverse_next_done(&channel->calls)) != NULL)
        tell(channel, (struct sml_back_call *)call);
}

/* --- the carrier ------------------------------------------------------------------------------ */

/* It carries nothing any more, and is the thread's to finish; stripe held. */
static void end_carrier(struct sml_carrier *carrier, enum semel_status lost, enum semel_status why,
                        const char *text)
{
    struct semel_backchannel *channel = carrier->channel;

    if (carrier->over)
        return;
    carrier->over = true;
    carrier->why = why;
    carrier->text = text;
    channel->carrier = NULL;
    sml_reverse_close(&channel->calls, lost);
    sml_reverse_finish(carrier);
}

static bool send_item(struct sml_carrier *carrier, const void *data, size_t size)
{
    struct sml_list parts;
    bool sent;

    if (!sml_item_cut(semel_bytes(NULL, 0), semel_bytes(data, size), NULL, &parts))
        return false;
    sent = sml_request_send_here(carrier->request, &parts);
    sml_parts_free(&parts);
    return sent;
}

/* Returns false if there was no memory for a cancellation, or nobody takes it. */
static bool send_next(struct sml_carrier *carrier, enum sml_reverse_send send,
                      struct sml_reverse_call *call, uint64_t now)
{
    struct sml_back_call *back = (struct sml_back_call *)call;
    uint8_t cancel[SML_REVERSE_HEAD_BYTES];
    uint64_t left;

    if (send == SML_REVERSE_SEND_CANCEL) {
        sml_reverse_encode_cancel(call->number, cancel);
        return send_item(carrier, cancel, sizeof cancel);
    }
    left = sml_time_ms_until(call->deadline, now);
    sml_reverse_stamp_request(SML_CONTAINER(back->parts.next, struct sml_part, node)->own,
                              call->number, left < UINT32_MAX ? (uint32_t)left : UINT32_MAX);
    return sml_request_send_here(carrier->request, &back->parts);
}

bool sml_backchannel_settle(struct semel_backchannel *channel, uint64_t now)
{
    struct sml_carrier *carrier = channel->carrier;
    enum sml_reverse_send send;
    struct sml_reverse_call *call;
    uint64_t bytes = 0, at;

    while (carrier && channel->carrier == carrier && sml_request_has_room_here(carrier->request) &&
           (send = sml_reverse_next_send(&channel->calls, now, &call)) != SML_REVERSE_NOTHING) {
        bytes += send == SML_REVERSE_SEND_REQUEST ? call->bytes : 0;
        if (!send_next(carrier, send, call, now))
            end_carrier(carrier, SEMEL_SESSION_LOST, SEMEL_CANCELLED, "nobody takes its messages");
    }
    tell_ended(channel);
    at = sml_reverse_timeout(&channel->calls);
    if (channel->carrier && channel->carrier->starved)
        at = sml_time_min(at, now + SML_REVERSE_STARVED_NS);
    sml_reverse_arm(channel, at);
    return bytes >= 16384;
}

/* One message of the client's. */
static void take_message(struct sml_carrier *carrier, struct semel_bytes item)
{
    struct semel_backchannel *channel = carrier->channel;
    struct sml_reverse_message message;
    const char *why = sml_reverse_decode(item, false, &message);

    if (why == NULL)
        why = sml_reverse_reply(&channel->calls, &message);
    if (why)
        end_carrier(carrier, SEMEL_PROTOCOL, SEMEL_PROTOCOL, why);
    tell_ended(channel); /* while the item is there */
}

void sml_carrier_look(struct sml_carrier *carrier, uint64_t now)
{
    struct semel_backchannel *channel = carrier->channel;
    struct semel_request *request = carrier->request;
    enum semel_status status = SEMEL_OK;
    struct semel_bytes item;

    carrier->starved = false;
    while (!carrier->over && (status = sml_request_next_here(request, &item)) == SEMEL_OK)
        take_message(carrier, item);
    if (carrier->over)
        return;
    carrier->starved = status == SEMEL_NO_MEMORY;
    if (status == SEMEL_END)
        end_carrier(carrier, SEMEL_SESSION_LOST, SEMEL_OK, NULL);
    else if (status == SEMEL_TOO_LARGE)
        end_carrier(carrier, SEMEL_PROTOCOL, SEMEL_PROTOCOL, "reverse reply larger than it may be");
    else if (status != SEMEL_WOULD_BLOCK && status != SEMEL_NO_MEMORY)
        end_carrier(carrier, SEMEL_SESSION_LOST, SEMEL_CANCELLED, "the client gave it up");
    (void)sml_backchannel_settle(channel, now);
}

/* There is something at the carrier's streams, or it was cancelled; stripe held. */
static void on_items(struct semel_request *request, void *user)
{
    struct sml_carrier *carrier = user;

    if (carrier->over)
        return;
    if (atomic_load_explicit(&request->in->gone, memory_order_relaxed) ||
        atomic_load_explicit(&request->in->cancelled, memory_order_relaxed)) {
        end_carrier(carrier, SEMEL_SESSION_LOST, SEMEL_CANCELLED, "the client gave it up");
        tell_ended(carrier->channel);
        return;
    }
    sml_carrier_look(carrier, sml_clock_now());
}

/* The channel has its client; stripe held. */
static enum semel_status attach(struct semel_request *request, struct sml_carrier *carrier,
                                const struct sml_reverse_terms *terms)
{
    struct semel_server *server = request->server;
    struct sml_reverse_terms own = { server->options.window_calls, server->body_bytes };
    uint8_t encoded[SML_REVERSE_TERMS_BYTES];
    struct semel_backchannel *channel;
    enum semel_status status = find_channel(request, &channel);

    if (status != SEMEL_OK)
        return status;
    if (channel->carrier)
        return SEMEL_ALREADY;
    sml_reverse_encode_terms(&own, encoded);
    if (!send_item(carrier, encoded, sizeof encoded))
        return SEMEL_NO_MEMORY;
    carrier->channel = semel_backchannel_ref(channel);
    channel->carrier = carrier;
    sml_reverse_open(&channel->calls, terms);
    return SEMEL_OK;
}

static enum semel_status carry(struct semel_request *request, const struct sml_reverse_terms *terms)
{
    struct sml_carrier *carrier = calloc(1, sizeof *carrier);
    enum semel_status status;

    if (carrier == NULL)
        return SEMEL_NO_MEMORY;
    carrier->request = request;
    sml_list_init(&carrier->link);
    semel_request_take(request); /* it may be over as soon as it is attached */
    sml_mutex_lock(request->served->lock);
    sml_request_item_max_here(request, SML_REVERSE_REPLY_ROOM + request->server->body_bytes);
    status = attach(request, carrier, terms);
    if (status == SEMEL_OK)
        sml_request_on_items_here(request, on_items, carrier);
    sml_served_write_now(request->served);
    if (status != SEMEL_OK)
        free(carrier);
    return status;
}

/* semel.reverse */
static void on_reverse(struct semel_request *request, void *user)
{
    struct sml_reverse_terms terms;
    const char *why = sml_reverse_decode_terms(semel_request_body(request), &terms);
    enum semel_status status = SEMEL_PROTOCOL;

    if (why == NULL && !(semel_request_sends(request) && semel_request_takes(request)))
        why = "reverse calls need streams both ways";
    if (why == NULL) {
        status = sml_reverse_attend(((struct semel_server *)user)->reverse);
        if (status == SEMEL_OK)
            status = carry(request, &terms);
        why = status == SEMEL_ALREADY ? "the session has a call that carries them"
                                      : semel_status_text(status);
    }
    if (status != SEMEL_OK && semel_request_fail(request, (int)status, why) != SEMEL_OK)
        semel_request_drop(request);
}

/* --- the session and the server --------------------------------------------------------------- */

void sml_backchannel_end(struct sml_served *served, enum semel_status why)
{
    struct semel_backchannel *channel = served->backchannel;

    if (channel == NULL)
        return;
    served->backchannel = NULL;
    channel->served = NULL;
    if (channel->carrier)
        end_carrier(channel->carrier, why, SEMEL_CANCELLED, semel_status_text(why));
    sml_reverse_end(&channel->calls, why);
    tell_ended(channel);
    semel_backchannel_unref(channel);
}

bool sml_backchannel_is_idle(const struct sml_served *served)
{
    const struct semel_backchannel *channel = served->backchannel;
    const struct sml_callee *callee = &served->session->callee;

    return channel && channel->carrier && channel->calls.calls == 0 &&
           channel->calls.under_way == 0 && callee->table.count == 1 && callee->held == 1;
}

enum semel_status sml_reverse_start(struct semel_server *server)
{
    struct sml_reverse *reverse = calloc(1, sizeof *reverse);
    enum semel_status status;

    if (reverse == NULL)
        return SEMEL_NO_MEMORY;
    reverse->server = server;
    sml_mutex_init(&reverse->lock);
    sml_cond_init(&reverse->call);
    sml_list_init(&reverse->channels);
    sml_list_init(&reverse->work);
    sml_list_init(&reverse->over);
    sml_heap_init(&reverse->timers);
    server->reverse = reverse;
    status = sml_server_export_standing(server, SML_REVERSE_METHOD, on_reverse, server);
    return status == SEMEL_ALREADY ? SEMEL_OK : status; /* a test plays it by rules of its own */
}

/* --- calling --------------------------------------------------------------------------------- */

static enum semel_status check(const struct semel_backchannel *channel, bool waits)
{
    if (channel == NULL)
        return SEMEL_INVALID;
    if (atomic_load(&channel->gone))
        return SEMEL_STOPPED;
    if (!sml_origin_is_mine(&channel->server->origin))
        return SEMEL_FORKED;
    if (waits && (sml_thread_in_loop() || sml_in_transaction() ||
                  sml_reverse_on_thread(channel->server->reverse)))
        return SEMEL_WOULD_DEADLOCK;
    return SEMEL_OK;
}

/* Fill in a call; its parts are its own. `method` stays where it is. */
static enum semel_status describe(struct sml_back_call *call, const char *method,
                                  struct semel_bytes body, const struct semel_call_options *o)
{
    struct sml_reverse_request request = {
        .method = { method, method ? strnlen(method, SEMEL_METHOD_BYTES + 1) : 0 },
        .content_type = semel_bytes_text(o->content_type),
        .body = body,
    };
    int64_t ms = o->deadline_ms ? o->deadline_ms : SEMEL_DEADLINE_MS;
    uint8_t *frame;
    bool cut;

    if (!sml_reverse_is_request(&request) || (body.size > 0 && body.data == NULL) ||
        ms > INT32_MAX || o->rerun_ok || o->lent || (o->key && o->key[0]))
        return SEMEL_INVALID;
    if (body.size > SEMEL_BODY_BYTES_MAX)
        return SEMEL_TOO_LARGE;
    call->method = method;
    call->method_bytes = (uint8_t)request.method.size;
    call->call.bytes = sml_reverse_request_bytes(&request);
    call->call.body_bytes = body.size;
    call->call.deadline = ms < 0 ? 0 : sml_time_add(sml_clock_now(), (uint64_t)ms * SML_MS);
    frame = malloc(call->call.bytes);
    if (frame == NULL)
        return SEMEL_NO_MEMORY;
    sml_reverse_encode_request(&request, frame);
    cut = sml_item_cut(semel_bytes(NULL, 0), semel_bytes(frame, call->call.bytes), NULL,
                       &call->parts);
    free(frame);
    return cut ? SEMEL_OK : SEMEL_NO_MEMORY;
}

/* Stripe held, released on return. */
static void leave(struct semel_backchannel *channel)
{
    const struct sml_worker *self = sml_worker_self();
    bool much = sml_backchannel_settle(channel, sml_clock_now());

    /* A leader that is about to wait in its handler leaves nothing to the leader. */
    if (channel->served)
        sml_served_write_parts(channel->served, much || (self && self->inlining));
    else
        sml_mutex_unlock(channel->lock);
}

/* The number is told before the call can end. */
static enum semel_status submit(struct semel_backchannel *channel, struct sml_back_call *call,
                                uint64_t *out_call)
{
    enum semel_status status;

    sml_mutex_lock(channel->lock);
    status = sml_reverse_submit(&channel->calls, &call->call, sml_clock_now());
    if (status == SEMEL_OK && out_call)
        *out_call = call->call.number;
    if (status == SEMEL_OK)
        leave(channel);
    else
        sml_mutex_unlock(channel->lock);
    if (status != SEMEL_OK)
        sml_parts_free(&call->parts);
    return status;
}

static void sleep_until_done(struct sml_back_call *call)
{
    uint32_t running = 0;

    if (!atomic_compare_exchange_strong_explicit(&call->word, &running, 2, memory_order_acq_rel,
                                                 memory_order_acquire))
        return;
    while (atomic_load_explicit(&call->word, memory_order_acquire) != 1)
        (void)sml_futex_wait(&call->word, 2, SML_NEVER);
}

enum semel_outcome semel_backchannel_call(struct semel_backchannel *channel, const char *method,
                                          struct semel_bytes body,
                                          const struct semel_call_options *options,
                                          struct semel_result *out_result)
{
    struct sml_back_call call;
    enum semel_status status = check(channel, true);

    memset(&call, 0, sizeof call);
    call.out = out_result;
    if (status == SEMEL_OK)
        status = describe(&call, method, body, options ? options : &no_options);
    if (status == SEMEL_OK)
        status = submit(channel, &call, NULL);
    if (status != SEMEL_OK) {
        if (out_result)
            sml_result_refuse(out_result, status, method, channel ? channel->peer : "no client",
                              NULL);
        return SEMEL_NOT_EXECUTED;
    }
    sleep_until_done(&call);
    return call.outcome;
}

enum semel_status semel_backchannel_start(struct semel_backchannel *channel, const char *method,
                                          struct semel_bytes body,
                                          const struct semel_call_options *options,
                                          semel_done_fn done, void *user, uint64_t *out_call)
{
    enum semel_status status = check(channel, false);
    size_t name_bytes = method ? strnlen(method, SEMEL_METHOD_BYTES) + 1 : 1;
    struct sml_back_call *call;

    if (status != SEMEL_OK || done == NULL)
        return status != SEMEL_OK ? status : SEMEL_INVALID;
    call = calloc(1, sizeof *call + name_bytes);
    if (call == NULL)
        return SEMEL_NO_MEMORY;
    status = describe(call, method, body, options ? options : &no_options);
    if (status == SEMEL_OK) {
        call->method = memcpy(call + 1, method, name_bytes);
        call->out = &call->result;
        call->channel = semel_backchannel_ref(channel);
        call->done = done;
        call->user = user;
        status = submit(channel, call, out_call);
        if (status != SEMEL_OK)
            semel_backchannel_unref(channel);
    }
    if (status != SEMEL_OK)
        free(call);
    return status;
}

void semel_backchannel_cancel(struct semel_backchannel *channel, uint64_t call)
{
    if (check(channel, false) != SEMEL_OK)
        return;
    sml_mutex_lock(channel->lock);
    sml_reverse_cancel(&channel->calls, call);
    leave(channel);
}
