/* SPDX-License-Identifier: MIT */
/* reverse_client.c - calls from a server to its clients: the client's end.
 *
 * The first export makes the carrier, a call of semel.reverse with streams both ways, and another
 * is made when it has ended: for as long as the client lives and the server will have it. What a
 * lost carrier had brought and no handler had begun is forgotten, since its caller knows it as
 * unknown; what runs is asked to stop.
 *
 * Nothing here waits for the server: what cannot be sent stays in the queue, which is bounded by
 * the window that was granted, and while much is held nothing is read. So the server waits. */
#include <stdlib.h>
#include <string.h>

#include "os/clock.h"
#include "rpc/client_seam.h"
#include "rpc/item.h"
#include "rpc/reverse_client.h"

#define BACKOFF_MIN_NS UINT64_C(100000000)
#define BACKOFF_MAX_NS UINT64_C(5000000000)
#define RETRY_NS UINT64_C(5000000) /* until memory is asked for again */

/* Why a carrier is given up, although the server did nothing wrong. */
static const char no_memory[] = "no memory for a call of the server's";

/* --- the carrier ----------------------------------------------------------------------------- */

static void on_ready(struct semel_stream *stream, void *user)
{
    (void)stream;
    sml_reverse_drive(user);
}

static void say(struct semel_client *client, enum semel_log_level level, const char *text)
{
    if (client->options.log)
        client->options.log(level, text, client->options.log_user);
}

/* Would another one end in the same way? */
static bool is_final(const struct semel_result *result)
{
    switch (result->status) {
    case SEMEL_TAKEN_OVER:
    case SEMEL_DENIED:
    case SEMEL_VERSION:
    case SEMEL_PROTOCOL:
    case SEMEL_FALSE_RETRY:
    case SEMEL_NO_METHOD:
    case SEMEL_NO_STREAM:
        return true;
    case SEMEL_FAILED:
        return result->code == SEMEL_PROTOCOL;
    default:
        return false;
    }
}

/* If it is time to; lock held, released meanwhile. */
static void open_carrier(struct sml_client_reverse *reverse)
{
    struct semel_stream_options options = { true, true, on_ready, reverse };
    uint8_t terms[SML_REVERSE_TERMS_BYTES];
    struct semel_stream *stream = NULL;
    enum semel_status status;

    if (reverse->refused || reverse->quit || reverse->reopen_at > sml_clock_now())
        return;
    sml_reverse_encode_terms(&reverse->calls.own, terms);
    reverse->epoch++;
    sml_mutex_unlock(&reverse->lock);
    status = sml_client_stream_for_life(reverse->client, SML_REVERSE_METHOD,
                                        semel_bytes(terms, sizeof terms), &options, &stream);
    if (status == SEMEL_OK)
        sml_stream_item_max(stream, SML_REVERSE_REQUEST_ROOM + reverse->client->options.body_bytes);
    sml_mutex_lock(&reverse->lock);
    reverse->carrier = stream;
    reverse->reopen_at = sml_time_add(sml_clock_now(), reverse->backoff);
    reverse->backoff = sml_time_min(2 * reverse->backoff, BACKOFF_MAX_NS);
    reverse->refused |=
        status != SEMEL_OK && status != SEMEL_NO_MEMORY && status != SEMEL_OVERLOADED;
}

/* What runs for nobody is asked to stop; lock held, released meanwhile. */
static void cancel_running(struct sml_client_reverse *reverse)
{
    struct sml_list *list = &reverse->calls.running;
    struct sml_list *at = list->next;

    while (at != list) {
        struct sml_arrival *arrival =
            (struct sml_arrival *)SML_CONTAINER(at, struct sml_reverse_work, link);

        atomic_store(&arrival->in.gone, true);
        if (atomic_exchange(&arrival->in.cancelled, true) || arrival->request.cancel_fn == NULL) {
            at = at->next;
            continue;
        }
        sml_arrival_cancel(arrival);
        at = list->next; /* the list may be another by now */
    }
}

/* The carrier is over; lock held, released meanwhile. */
static void lose_carrier(struct sml_client_reverse *reverse)
{
    struct semel_stream *carrier = reverse->carrier;
    struct semel_result result = { .outcome = SEMEL_UNKNOWN };
    struct sml_list arrived, *node;

    reverse->carrier = NULL; /* nothing begins any more */
    cancel_running(reverse);
    sml_list_init(&arrived);
    sml_reverse_callee_reset(&reverse->calls, &arrived);
    sml_mutex_unlock(&reverse->lock);
    while ((node = sml_list_pop_front(&arrived)) != NULL)
        sml_arrival_free((struct sml_arrival *)SML_CONTAINER(node, struct sml_reverse_work, link));
    semel_stream_cancel(carrier);
    if (semel_stream_result(carrier, 0, &result) != SEMEL_OK)
        result.status = SEMEL_CANCELLED; /* it is this end that will have no more of it */
    semel_stream_free(carrier);
    if (is_final(&result)) {
        char text[512];

        semel_result_message(&result, text, sizeof text);
        say(reverse->client, SEMEL_LOG_WARNING, text);
    }
    sml_mutex_lock(&reverse->lock);
    reverse->refused |= is_final(&result);
    semel_result_clear(&result);
}

/* --- messages -------------------------------------------------------------------------------- */

/* Lock held. */
static const char *take_request(struct sml_client_reverse *reverse,
                                const struct sml_reverse_message *message, size_t size)
{
    const char *why = sml_reverse_check(&reverse->calls, message);
    struct sml_arrival *arrival;

    if (why)
        return why;
    arrival = sml_arrival_create(reverse, &message->request, message->number,
                                 reverse->client->addresses.list[0].text);
    if (arrival == NULL ||
        !sml_reverse_arrive(&reverse->calls, &arrival->work, message, sizeof *arrival + size)) {
        if (arrival)
            sml_arrival_free(arrival);
        return no_memory;
    }
    (void)sml_handlers_attend(reverse); /* there is at least one thread, since the first export */
    return NULL;
}

static const char *take_cancel(struct sml_client_reverse *reverse,
                               const struct sml_reverse_message *message)
{
    struct sml_reverse_work *work = NULL;
    const char *why = sml_reverse_cancelled(&reverse->calls, message, &work);

    if (work)
        sml_arrival_cancel((struct sml_arrival *)work);
    return why;
}

/* NULL; or what is wrong. Lock held. */
static const char *take_message(struct sml_client_reverse *reverse, struct semel_bytes item)
{
    struct sml_reverse_message message;
    const char *why = sml_reverse_decode(item, true, &message);

    if (why)
        return why;
    if (message.kind == SML_REVERSE_TERMS) {
        reverse->backoff = BACKOFF_MIN_NS;
        reverse->reopen_at = 0;
        return sml_reverse_agree(&reverse->calls, &message);
    }
    return message.kind == SML_REVERSE_REQUEST ? take_request(reverse, &message, item.size)
                                               : take_cancel(reverse, &message);
}

/* Is the carrier there still, after this? Without memory it is looked at again. */
static bool look_again(struct sml_client_reverse *reverse, enum semel_status status)
{
    if (status != SEMEL_NO_MEMORY)
        return false;
    reverse->retry_at = sml_time_add(sml_clock_now(), RETRY_NS);
    return true;
}

/* Lock held, released meanwhile. Returns false when the carrier is over. */
static bool send_all(struct sml_client_reverse *reverse)
{
    struct sml_reverse_answer *answer;
    enum semel_status status;

    while ((answer = sml_reverse_first_answer(&reverse->calls)) != NULL) {
        sml_mutex_unlock(&reverse->lock);
        status = semel_stream_send(reverse->carrier, semel_bytes(answer->bytes, answer->size), 0);
        sml_mutex_lock(&reverse->lock);
        if (status == SEMEL_WOULD_BLOCK)
            return true; /* its readiness will be told */
        if (status != SEMEL_OK)
            return look_again(reverse, status);
        sml_reverse_answered(&reverse->calls, answer);
    }
    return true;
}

/* The same. */
static bool read_all(struct sml_client_reverse *reverse)
{
    while (!sml_reverse_is_full(&reverse->calls)) {
        struct semel_item item;
        enum semel_status status;
        const char *why = NULL;

        sml_mutex_unlock(&reverse->lock);
        status = semel_stream_next(reverse->carrier, 0, &item);
        sml_mutex_lock(&reverse->lock);
        if (status == SEMEL_WOULD_BLOCK)
            return true;
        if (status == SEMEL_TOO_LARGE)
            why = "reverse call larger than it may be";
        else if (status != SEMEL_OK)
            return look_again(reverse, status);
        else if (item.kind == SEMEL_ITEM)
            why = take_message(reverse, item.bytes);
        else if (item.kind == SEMEL_ITEM_RESTARTED)
            return false; /* another server has it, and knows of nothing */
        if (why) {
            sml_mutex_unlock(&reverse->lock);
            say(reverse->client, SEMEL_LOG_ERROR, why);
            sml_mutex_lock(&reverse->lock);
            reverse->refused |= why != no_memory;
            return false;
        }
    }
    return true;
}

void sml_reverse_drive(struct sml_client_reverse *reverse)
{
    sml_mutex_lock(&reverse->lock);
    reverse->again = true;
    if (reverse->driving) {
        sml_mutex_unlock(&reverse->lock);
        return;
    }
    reverse->driving = true;
    reverse->retry_at = SML_NEVER;
    while (reverse->again) {
        reverse->again = false;
        if (reverse->carrier == NULL)
            open_carrier(reverse);
        if (reverse->carrier && !(send_all(reverse) && read_all(reverse))) {
            lose_carrier(reverse);
            reverse->again = true;
        }
    }
    reverse->driving = false;
    if (reverse->carrier == NULL || reverse->retry_at != SML_NEVER)
        sml_cond_broadcast(&reverse->changed); /* whoever is idle does it in time */
    sml_mutex_unlock(&reverse->lock);
}

/* --- exporting ------------------------------------------------------------------------------- */

static struct sml_client_reverse *create(struct semel_client *client)
{
    struct sml_reverse_terms own = { client->options.window_calls, client->options.body_bytes };
    struct sml_client_reverse *reverse = calloc(1, sizeof *reverse);

    if (reverse == NULL)
        return NULL;
    reverse->client = client;
    sml_mutex_init(&reverse->lock);
    sml_cond_init(&reverse->changed);
    sml_reverse_callee_init(&reverse->calls, &sml_mem_libc, &own,
                            own.body_bytes > SEMEL_SESSION_BYTES ? own.body_bytes
                                                                 : SEMEL_SESSION_BYTES);
    reverse->backoff = BACKOFF_MIN_NS;
    reverse->retry_at = SML_NEVER;
    sml_list_init(&reverse->threads);
    sml_random_fill(&client->random, reverse->id, sizeof reverse->id);
    return reverse;
}

static void destroy(struct sml_client_reverse *reverse)
{
    struct sml_export *method;

    sml_reverse_callee_fini(&reverse->calls);
    while ((method = reverse->exports) != NULL) {
        reverse->exports = method->next;
        free(method);
    }
    sml_cond_fini(&reverse->changed);
    sml_mutex_fini(&reverse->lock);
    free(reverse);
}

/* The client's, made if need be. */
static enum semel_status get(struct semel_client *client, struct sml_client_reverse **out)
{
    struct sml_client_reverse *fresh = create(client);
    enum semel_status status = SEMEL_OK;

    sml_mutex_lock(&client->lock);
    if (client->link.state == SML_LINK_STOPPED)
        status = SEMEL_STOPPED;
    else if (client->reverse == NULL && fresh == NULL)
        status = SEMEL_NO_MEMORY;
    else if (client->reverse == NULL) {
        client->reverse = fresh;
        fresh = NULL;
    }
    *out = client->reverse;
    sml_mutex_unlock(&client->lock);
    if (fresh)
        destroy(fresh);
    return status;
}

static struct sml_export *new_export(const char *name, size_t bytes, semel_handler_fn handler,
                                     void *user, const struct semel_method_options *options)
{
    struct sml_export *method = calloc(1, sizeof *method + bytes + 1);

    if (method == NULL)
        return NULL;
    memcpy(method->name, name, bytes);
    method->name_bytes = (uint8_t)bytes;
    method->handler = handler;
    method->user = user;
    method->limit = options ? options->limit : 0;
    return method;
}

static bool are_options(const struct semel_method_options *o)
{
    if (o == NULL)
        return true;
    return (o->kind == SEMEL_ONCE || o->kind == SEMEL_IDEMPOTENT) && o->max_run_ms == 0 &&
           o->on_crash == SEMEL_CRASH_UNKNOWN && o->resolve == NULL && o->resolve_user == NULL &&
           !o->takes_items && !o->gives_items && !o->tells_start && !o->forcible &&
           o->describe == NULL;
}

/* Moves `method` in on OK. */
static enum semel_status publish(struct sml_client_reverse *reverse, struct sml_export *method)
{
    enum semel_status status = SEMEL_OK;

    sml_mutex_lock(&reverse->lock);
    for (const struct sml_export *at = reverse->exports; at; at = at->next)
        if (strcmp(at->name, method->name) == 0)
            status = SEMEL_ALREADY;
    if (status == SEMEL_OK && reverse->thread_count == 0)
        status = sml_handlers_attend(reverse);
    if (status == SEMEL_OK) {
        method->next = reverse->exports;
        reverse->exports = method;
    }
    sml_mutex_unlock(&reverse->lock);
    return status;
}

enum semel_status semel_client_export(struct semel_client *client, const char *name,
                                      semel_handler_fn handler, void *user,
                                      const struct semel_method_options *options)
{
    size_t bytes = name ? strnlen(name, SEMEL_METHOD_BYTES + 1) : 0;
    struct sml_reverse_request named = { .method = { name, bytes } };
    struct sml_client_reverse *reverse;
    struct sml_export *method;
    enum semel_status status;

    if (!client || !handler || !sml_reverse_is_request(&named) || !are_options(options) ||
        strncmp(name, "semel.", 6) == 0)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&client->origin))
        return SEMEL_FORKED;
    status = get(client, &reverse);
    if (status != SEMEL_OK)
        return status;
    method = new_export(name, bytes, handler, user, options);
    if (method == NULL)
        return SEMEL_NO_MEMORY;
    status = publish(reverse, method);
    if (status != SEMEL_OK)
        free(method);
    else
        sml_reverse_drive(reverse);
    return status;
}

/* --- the client's end ------------------------------------------------------------------------ */

bool sml_client_in_handler(struct semel_client *client)
{
    struct sml_client_reverse *reverse;

    sml_mutex_lock(&client->lock);
    reverse = client->reverse;
    sml_mutex_unlock(&client->lock);
    return reverse && sml_handlers_is_one(reverse);
}

void sml_client_stop_handlers(struct semel_client *client)
{
    if (client->reverse)
        sml_handlers_stop(client->reverse);
}

void sml_client_free_exports(struct semel_client *client)
{
    struct sml_client_reverse *reverse = client->reverse;

    if (reverse == NULL)
        return;
    sml_mutex_lock(&reverse->lock);
    if (reverse->carrier) /* so much was held that its end was not read */
        lose_carrier(reverse);
    sml_mutex_unlock(&reverse->lock);
    destroy(reverse);
    client->reverse = NULL;
}
