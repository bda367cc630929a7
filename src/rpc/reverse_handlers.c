/* SPDX-License-Identifier: MIT */
/* reverse_handlers.c - a client's threads for exported methods, and the requests that these get.
 *
 * A request is the same to a handler as a server's. It is finished under the lock of the exports:
 * its answer is made before, and goes into the queue; whoever drives the stream sends it. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/le.h"
#include "os/clock.h"
#include "rpc/reverse_client.h"

static struct sml_arrival *of(const struct semel_request *request)
{
    return (struct sml_arrival *)((uintptr_t)request - offsetof(struct sml_arrival, request));
}

/* --- the request ----------------------------------------------------------------------------- */

static bool is_mine(const struct semel_request *request)
{
    return sml_origin_is_mine(&of(request)->reverse->client->origin);
}

static void take(struct semel_request *request)
{
    request->taken = true;
    atomic_store(&request->parties, 2);
}

static struct semel_key key_of(const struct semel_request *request)
{
    const struct sml_arrival *arrival = of(request);
    uint8_t name[sizeof arrival->reverse->id + 16], hash[32];
    struct semel_key key;

    memcpy(name, arrival->reverse->id, sizeof arrival->reverse->id);
    sml_store64(name + sizeof arrival->reverse->id, arrival->epoch);
    sml_store64(name + sizeof arrival->reverse->id + 8, arrival->in.xid);
    sml_sha256(name, sizeof name, hash);
    memcpy(key.bytes, hash, sizeof key.bytes);
    return key;
}

/* No callback begins after this, and none is running on another thread. Lock held. */
static void forget_callback(struct sml_client_reverse *reverse, struct semel_request *request)
{
    request->cancel_fn = NULL;
    while (request->telling.value != 0 && request->telling.value != sml_thread_self().value)
        sml_cond_wait(&reverse->changed, &reverse->lock);
}

/* Lock held, released while the callback runs; the request cannot be finished meanwhile. */
static void tell_cancelled(struct sml_client_reverse *reverse, struct semel_request *request)
{
    semel_cancelled_fn fn = request->cancel_fn;
    void *user = request->cancel_user;

    if (fn == NULL || request->told)
        return;
    request->told = true;
    request->telling = sml_thread_self();
    sml_mutex_unlock(&reverse->lock);
    fn(request, user);
    sml_mutex_lock(&reverse->lock);
    request->telling.value = 0;
    sml_cond_broadcast(&reverse->changed);
}

static void on_cancel(struct semel_request *request, semel_cancelled_fn fn, void *user)
{
    struct sml_client_reverse *reverse = of(request)->reverse;

    sml_mutex_lock(&reverse->lock);
    if (fn == NULL) {
        forget_callback(reverse, request);
    } else {
        request->cancel_fn = fn;
        request->cancel_user = user;
        if (atomic_load(&request->in->cancelled))
            tell_cancelled(reverse, request);
    }
    sml_mutex_unlock(&reverse->lock);
}

void sml_arrival_cancel(struct sml_arrival *arrival)
{
    atomic_store(&arrival->in.cancelled, true);
    if (arrival->work.state == SML_REVERSE_RUNNING || arrival->work.state == SML_REVERSE_ORPHAN)
        tell_cancelled(arrival->reverse, &arrival->request);
}

/* Lock held: the answer goes into the queue, and the request is over. It still counts until this
 * thread has no more to do with `reverse`: whoever waits for the last one frees that. */
static void answer_locked(struct sml_arrival *arrival, struct sml_reverse_answer *answer)
{
    struct sml_client_reverse *reverse = arrival->reverse;

    sml_reverse_answer(&reverse->calls, &arrival->work, answer);
    arrival->request.in = NULL;
    arrival->request.finished = true;
    if (arrival->method)
        arrival->method->running--;
    sml_cond_broadcast(&reverse->changed); /* a call of the method may begin */
}

static void leave(struct sml_client_reverse *reverse)
{
    sml_mutex_lock(&reverse->lock);
    if (--reverse->unfinished == 0)
        sml_cond_broadcast(&reverse->changed);
    sml_mutex_unlock(&reverse->lock);
}

static enum semel_status finish(struct semel_request *request, const struct sml_verdict *verdict)
{
    struct sml_arrival *arrival = of(request);
    struct sml_client_reverse *reverse = arrival->reverse;
    bool always = verdict->outcome == SEMEL_UNKNOWN, taken = request->taken;
    struct sml_reverse_answer *answer;

    answer = sml_reverse_answer_create(&reverse->calls, arrival->in.xid, verdict);
    if (answer == NULL && !always)
        return SEMEL_NO_MEMORY;
    sml_mutex_lock(&reverse->lock);
    if (verdict->body.size > arrival->reply_bytes ||
        request->telling.value == sml_thread_self().value) {
        bool inside = request->telling.value == sml_thread_self().value;

        sml_mutex_unlock(&reverse->lock);
        free(answer);
        return inside ? SEMEL_WOULD_DEADLOCK : SEMEL_TOO_LARGE;
    }
    forget_callback(reverse, request);
    if (answer == NULL) {
        answer = arrival->spare;
        arrival->spare = NULL;
        sml_store16(answer->bytes + 2, (uint16_t)verdict->status);
    }
    answer_locked(arrival, answer);
    sml_mutex_unlock(&reverse->lock);
    sml_reverse_drive(reverse);
    leave(reverse);
    if (taken && atomic_fetch_sub(&request->parties, 1) == 1)
        sml_arrival_free(arrival);
    return SEMEL_OK;
}

static const struct sml_request_away away = { is_mine, finish, take, on_cancel, key_of };

/* --- life ------------------------------------------------------------------------------------ */

static const char *put(uint8_t **at, struct semel_bytes bytes)
{
    char *to = (char *)*at;

    if (bytes.size > 0)
        memcpy(to, bytes.data, bytes.size);
    to[bytes.size] = '\0';
    *at += bytes.size + 1;
    return to;
}

struct sml_arrival *sml_arrival_create(struct sml_client_reverse *reverse,
                                       const struct sml_reverse_request *request, uint64_t number,
                                       const char *peer)
{
    static const struct sml_verdict nothing = { .outcome = SEMEL_UNKNOWN, .status = SEMEL_DROPPED };
    size_t bytes = request->method.size + request->content_type.size + request->body.size + 3;
    struct sml_arrival *arrival = calloc(1, sizeof *arrival + bytes);
    struct sml_incoming *in;
    uint8_t *at;

    if (arrival == NULL)
        return NULL;
    arrival->spare = sml_reverse_answer_create(&reverse->calls, number, &nothing);
    if (arrival->spare == NULL) {
        free(arrival);
        return NULL;
    }
    arrival->reverse = reverse;
    arrival->epoch = reverse->epoch;
    arrival->reply_bytes = reverse->calls.server.body_bytes;
    arrival->info.peer.address = peer;
    arrival->info.refs = 1;
    arrival->request.away = &away;
    arrival->request.info = &arrival->info;
    arrival->request.in = in = &arrival->in;
    at = arrival->bytes;
    in->xid = number;
    in->method = put(&at, request->method);
    in->method_bytes = (uint8_t)request->method.size;
    in->content_type = put(&at, request->content_type);
    in->content_type_bytes = (uint8_t)request->content_type.size;
    in->key = "";
    in->body_bytes = request->body.size;
    in->body = request->body.size > 0 ? at : NULL;
    put(&at, request->body);
    in->deadline = sml_time_add(sml_clock_now(), request->remaining_ms * SML_MS);
    return arrival;
}

void sml_arrival_free(struct sml_arrival *arrival)
{
    sml_release(&sml_mem_libc, arrival->spare);
    free(arrival);
}

/* --- threads --------------------------------------------------------------------------------- */

static struct sml_export *find(const struct sml_client_reverse *reverse,
                               const struct sml_incoming *in)
{
    struct sml_export *method = reverse->exports;

    while (method && (method->name_bytes != in->method_bytes ||
                      memcmp(method->name, in->method, in->method_bytes) != 0))
        method = method->next;
    return method;
}

/* The next call whose method is not at its limit, begun; NULL: none. Lock held. */
static struct sml_arrival *next_call(struct sml_client_reverse *reverse)
{
    struct sml_list *list = &reverse->calls.arrived;

    if (reverse->carrier == NULL)
        return NULL; /* what is there still is about to be forgotten */
    for (struct sml_list *at = list->next; at != list; at = at->next) {
        struct sml_arrival *arrival =
            (struct sml_arrival *)SML_CONTAINER(at, struct sml_reverse_work, link);
        struct sml_export *method = find(reverse, &arrival->in);

        if (method && method->limit > 0 && method->running >= method->limit)
            continue;
        arrival->method = method;
        if (method)
            method->running++;
        reverse->unfinished++;
        sml_reverse_begin(&reverse->calls, &arrival->work);
        /* Those that came with it may have seen this thread idle. */
        if (!sml_list_empty(list))
            (void)sml_handlers_attend(reverse);
        return arrival;
    }
    return NULL;
}

/* Why it does not run; OK: it does. */
static enum semel_status obstacle(const struct sml_arrival *arrival)
{
    if (atomic_load(&arrival->in.cancelled))
        return SEMEL_CANCELLED;
    if (arrival->in.deadline <= sml_clock_now())
        return SEMEL_EXPIRED;
    return arrival->method ? SEMEL_OK : SEMEL_NO_METHOD;
}

static void run(struct sml_arrival *arrival)
{
    struct semel_request *request = &arrival->request;
    struct sml_verdict verdict = { .outcome = SEMEL_NOT_EXECUTED, .status = obstacle(arrival) };

    if (verdict.status != SEMEL_OK) {
        if (finish(request, &verdict) != SEMEL_OK) { /* no memory: the spare says it */
            arrival->spare->bytes[1] = SEMEL_NOT_EXECUTED;
            verdict.outcome = SEMEL_UNKNOWN;
            (void)finish(request, &verdict);
        }
        sml_arrival_free(arrival);
        return;
    }
    arrival->method->handler(request, arrival->method->user);
    if (request->taken) {
        if (atomic_fetch_sub(&request->parties, 1) == 1)
            sml_arrival_free(arrival);
        return;
    }
    if (!request->finished)
        semel_request_drop(request);
    sml_arrival_free(arrival);
}

/* Lock held. */
static void rest(struct sml_client_reverse *reverse)
{
    uint64_t until = SML_NEVER;

    if (!reverse->driving)
        until = reverse->retry_at;
    if (reverse->carrier == NULL && !reverse->refused && !reverse->driving)
        until = sml_time_min(until, reverse->reopen_at);
    if (until <= sml_clock_now()) {
        sml_mutex_unlock(&reverse->lock);
        sml_reverse_drive(reverse);
        sml_mutex_lock(&reverse->lock);
        return;
    }
    reverse->idle++;
    (void)sml_cond_wait_until(&reverse->changed, &reverse->lock, until);
    reverse->idle--;
}

static void serve(void *arg)
{
    struct sml_handler_thread *self = arg;
    struct sml_client_reverse *reverse = self->reverse;
    struct sml_arrival *arrival;

    sml_mutex_lock(&reverse->lock);
    self->id = sml_thread_self().value;
    while (!reverse->quit) {
        arrival = next_call(reverse);
        if (arrival == NULL) {
            rest(reverse);
            continue;
        }
        sml_mutex_unlock(&reverse->lock);
        run(arrival);
        if (!sml_origin_is_mine(&reverse->client->origin))
            sml_thread_vanish(); /* the handler has forked, and this is the child */
        sml_mutex_lock(&reverse->lock);
    }
    sml_mutex_unlock(&reverse->lock);
}

enum semel_status sml_handlers_attend(struct sml_client_reverse *reverse)
{
    struct sml_handler_thread *thread;
    enum semel_status status;

    sml_cond_broadcast(&reverse->changed);
    if (reverse->idle > 0 || reverse->quit ||
        reverse->thread_count >= reverse->client->options.handlers)
        return SEMEL_OK;
    thread = calloc(1, sizeof *thread);
    if (thread == NULL)
        return SEMEL_NO_MEMORY;
    thread->reverse = reverse;
    status = sml_thread_create(&thread->thread, "semel-handler", 0, serve, thread);
    if (status != SEMEL_OK) {
        free(thread);
        return status;
    }
    reverse->thread_count++;
    sml_list_push_back(&reverse->threads, &thread->all);
    return SEMEL_OK;
}

bool sml_handlers_is_one(struct sml_client_reverse *reverse)
{
    uintptr_t self = sml_thread_self().value;
    bool is_one = false;

    sml_mutex_lock(&reverse->lock);
    for (struct sml_list *at = reverse->threads.next; at != &reverse->threads; at = at->next)
        is_one |= SML_CONTAINER(at, struct sml_handler_thread, all)->id == self;
    sml_mutex_unlock(&reverse->lock);
    return is_one;
}

void sml_handlers_stop(struct sml_client_reverse *reverse)
{
    struct sml_list *node;

    sml_mutex_lock(&reverse->lock);
    reverse->quit = true;
    sml_cond_broadcast(&reverse->changed);
    while (reverse->unfinished > 0)
        sml_cond_wait(&reverse->changed, &reverse->lock);
    sml_mutex_unlock(&reverse->lock);
    while ((node = sml_list_pop_front(&reverse->threads)) != NULL) {
        struct sml_handler_thread *thread = SML_CONTAINER(node, struct sml_handler_thread, all);

        sml_thread_join(&thread->thread);
        free(thread);
    }
}
