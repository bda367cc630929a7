/* SPDX-License-Identifier: MIT */
/* request_stream.c - the handler's end of streams.
 *
 * The flow lies in the callee's record, under the session's stripe; here are the reading end and
 * the word that a handler sleeps on. Both go with the request's result. As at the caller's end, a
 * burst of small items is written by the leader, many at once. */
#include <semel/stream.h>
#include <stdlib.h>

#include "rpc/commit.h"
#include "rpc/item.h"
#include "rpc/server_internal.h"
#include "rpc/stream_wait.h"

struct sml_request_stream {
    struct sml_news news;
    struct sml_item_reader reader;
    sml_items_fn on_items; /* the stripe's */
    void *items_user;
    /* How long the handler is at work between two waits for items, if it may lead meanwhile. */
    struct sml_pace pace;
    uint64_t left; /* when it got the first of what it has; 0: nothing yet */
    uint64_t worked;
};

/* --- life --------------------------------------------------------------------------------- */

bool sml_request_open_stream(struct semel_request *request)
{
    request->stream = calloc(1, sizeof *request->stream);
    if (request->stream == NULL)
        return false;
    sml_item_reader_init(&request->stream->reader, request->server->body_bytes);
    return true;
}

void sml_request_close_stream(struct semel_request *request)
{
    if (request->stream == NULL)
        return;
    sml_item_reader_clear(&request->stream->reader);
    free(request->stream);
    request->stream = NULL;
}

void sml_request_stir_stream(struct semel_request *request)
{
    if (request->stream == NULL)
        return;
    if (request->stream->on_items)
        request->stream->on_items(request, request->stream->items_user);
    sml_news_tell(&request->stream->news);
}

void sml_served_streams(struct sml_served *served, struct sml_sleepers *sleepers)
{
    struct sml_incoming *in;

    while ((in = sml_callee_next_event(&served->session->callee)) != NULL) {
        struct semel_request *request = in->user;

        if (request == NULL || request->stream == NULL)
            continue;
        if (request->stream->on_items)
            request->stream->on_items(request, request->stream->items_user);
        sml_news_tell_later(&request->stream->news, sleepers);
    }
}

/* --- what both directions share ------------------------------------------------------------ */

static bool is_cancelled(const struct sml_incoming *in)
{
    return atomic_load_explicit(&in->cancelled, memory_order_relaxed) ||
           atomic_load_explicit(&in->gone, memory_order_relaxed);
}

static enum semel_status check(const struct semel_request *request, uint8_t needs,
                               int64_t timeout_ms)
{
    if (request == NULL)
        return SEMEL_INVALID;
    if (request->in == NULL || (request->txn && request->txn->said))
        return SEMEL_ALREADY;
    if (request->away)
        return request->away->is_mine(request) ? SEMEL_NO_STREAM : SEMEL_FORKED;
    if (!sml_origin_is_mine(&request->server->origin))
        return SEMEL_FORKED;
    if (request->txn || request->stream == NULL || !(request->in->flags & needs))
        return SEMEL_NO_STREAM;
    if (timeout_ms != 0 && sml_thread_in_loop())
        return SEMEL_WOULD_DEADLOCK;
    return SEMEL_OK;
}

void sml_served_write_now(struct sml_served *served)
{
    if (served->conn && sml_peer_wants_write(&served->conn->peer))
        sml_conn_write(served->conn);
    else
        sml_mutex_unlock(served->lock);
}

void sml_served_write_parts(struct sml_served *served, bool large)
{
    uint64_t now;

    if (!large && served->conn && sml_conn_is_written_after(served->conn)) {
        sml_mutex_unlock(served->lock);
        return;
    }
    now = sml_clock_now();
    if (large || now >= served->parts_written + SML_BURST_NS) {
        served->parts_written = now;
        sml_served_write_now(served);
        return;
    }
    if (served->conn && sml_peer_wants_write(&served->conn->peer))
        sml_conn_post(served->conn);
    sml_mutex_unlock(served->lock);
}

bool semel_request_sends(const struct semel_request *request)
{
    return request && request->in && (request->in->flags & SML_CALL_SENDS);
}

bool semel_request_takes(const struct semel_request *request)
{
    return request && request->in && (request->in->flags & SML_CALL_TAKES) && !request->txn;
}

/* --- sending ------------------------------------------------------------------------------- */

/* Stripe held on entry, and on exit if it is OK. */
static enum semel_status wait_for_room(struct semel_request *request, uint64_t until)
{
    struct sml_served *served = request->served;
    struct sml_incoming *in = request->in;

    while (!sml_stream_has_room(in->stream)) {
        uint32_t seen = sml_news_seen(&request->stream->news);

        if (until == 0 || is_cancelled(in)) {
            sml_mutex_unlock(served->lock);
            return is_cancelled(in) ? SEMEL_CANCELLED : SEMEL_WOULD_BLOCK;
        }
        sml_served_write_now(served);
        if (request->runner && request->runner == sml_worker_self())
            sml_server_resign(request->runner); /* it would wait for what it has to read */
        if (!sml_news_wait(&request->stream->news, seen, until))
            until = 0;
        sml_mutex_lock(served->lock);
    }
    return SEMEL_OK;
}

/* Stripe held. False: nobody takes them. */
static bool add_parts(struct semel_request *request, struct sml_list *parts)
{
    struct sml_callee *callee = &request->served->session->callee;
    struct sml_part *part;
    bool taken = true;

    while (taken && (part = sml_part_pop(parts)) != NULL)
        taken = sml_callee_send_part(callee, request->in, part);
    return taken;
}

/* May it be sent? */
static enum semel_status check_item(const struct semel_request *request, struct semel_bytes item,
                                    int64_t timeout_ms)
{
    enum semel_status status = check(request, SML_CALL_TAKES, timeout_ms);

    if (status != SEMEL_OK)
        return status;
    if (item.size > 0 && item.data == NULL)
        return SEMEL_INVALID;
    return item.size > SEMEL_BODY_BYTES_MAX ? SEMEL_TOO_LARGE : SEMEL_OK;
}

/* Parts of `size` bytes in all, `given` or copied (NULL); they are freed if they cannot be sent. */
static enum semel_status send_parts(struct semel_request *request, struct sml_list *parts,
                                    size_t size, int64_t timeout_ms, struct sml_given *given)
{
    const struct sml_outflow *out;
    enum semel_status status;
    bool taken, large;

    sml_mutex_lock(request->served->lock);
    status = wait_for_room(request, sml_stream_until(timeout_ms));
    if (status != SEMEL_OK) {
        sml_parts_free(parts);
        return status;
    }
    out = &request->in->stream->out;
    taken = add_parts(request, parts);
    if (taken && given)
        sml_given_accept(given);
    large = size >= SML_BURST_BYTES || out->added - out->sent >= SML_BURST_PARTS;
    sml_served_write_parts(request->served, large);
    sml_parts_free(parts);
    return taken ? SEMEL_OK : SEMEL_CANCELLED;
}

enum semel_status semel_request_send(struct semel_request *request, struct semel_bytes item,
                                     int64_t timeout_ms)
{
    enum semel_status status = check_item(request, item, timeout_ms);
    struct sml_list parts;

    if (status != SEMEL_OK)
        return status;
    if (!sml_item_cut(semel_bytes(NULL, 0), item, request->server->writes, &parts))
        return SEMEL_NO_MEMORY;
    return send_parts(request, &parts, item.size, timeout_ms, NULL);
}

enum semel_status semel_request_send_moved(struct semel_request *request, struct semel_bytes item,
                                           int64_t timeout_ms, semel_release_fn release, void *user)
{
    enum semel_status status = check_item(request, item, timeout_ms);
    struct sml_given *given;
    struct sml_list parts;

    if (status != SEMEL_OK)
        return status;
    if (release == NULL)
        return SEMEL_INVALID;
    given = sml_given_cut(item, release, user, &request->server->returns, &parts);
    return given ? send_parts(request, &parts, item.size, timeout_ms, given) : SEMEL_NO_MEMORY;
}

enum semel_status semel_request_progress(struct semel_request *request, struct semel_bytes progress)
{
    enum semel_status status = check(request, SML_CALL_TAKES, 0);
    struct sml_part *part;

    if (status != SEMEL_OK)
        return status;
    if (progress.size > 0 && progress.data == NULL)
        return SEMEL_INVALID;
    if (progress.size > SEMEL_PROGRESS_BYTES)
        return SEMEL_TOO_LARGE;
    part = sml_part_create(&sml_mem_libc, SML_PART_PROGRESS, progress);
    if (part == NULL)
        return SEMEL_NO_MEMORY;
    sml_mutex_lock(request->served->lock);
    (void)sml_callee_send_part(&request->served->session->callee, request->in, part);
    sml_served_write_parts(request->served, false);
    return SEMEL_OK;
}

/* --- reading ------------------------------------------------------------------------------- */

/* What has arrived comes over; stripe held. */
static bool take(struct semel_request *request)
{
    struct sml_incoming *in = request->in;

    if (!sml_item_reader_take(&request->stream->reader, &in->stream->in))
        return false;
    sml_callee_took_parts(&request->served->session->callee, in);
    return true;
}

/* Nothing is here: why, or until when? */
static enum semel_status nothing(const struct semel_request *request)
{
    if (sml_inflow_is_at_end(&request->in->stream->in))
        return SEMEL_END;
    return is_cancelled(request->in) ? SEMEL_CANCELLED : SEMEL_WOULD_BLOCK;
}

/* May this thread lead while it waits? A handler that sends, too, may wait for that, with what it
 * has sent before still to be written. */
static bool may_be_guest(const struct semel_request *request)
{
    return request->runner && request->runner == sml_worker_self() &&
           !(request->in->flags & SML_CALL_TAKES);
}

/* As sml_news_wait. */
static bool wait_for_items(struct semel_request *request, uint32_t seen, uint64_t until)
{
    struct sml_request_stream *stream = request->stream;
    struct sml_guest guest = { request->runner, &stream->news, seen, until };

    if (!may_be_guest(request))
        return sml_news_wait(&stream->news, seen, until);
    if (stream->left != 0)
        sml_pace_learn(&stream->pace, stream->worked, guest.worker->guest);
    stream->left = stream->worked = 0;
    return sml_guest_wait(&guest, sml_pace_is_brisk(&stream->pace));
}

/* The reader is empty: fill it. As semel_request_next. */
static enum semel_status fetch(struct semel_request *request, uint64_t until,
                               struct semel_bytes *out_item)
{
    struct sml_request_stream *stream = request->stream;
    enum semel_status status;

    do {
        uint32_t seen = sml_news_seen(&stream->news);
        bool any;

        sml_mutex_lock(request->served->lock);
        any = take(request);
        status = nothing(request);
        sml_served_write_now(request->served);
        if (any)
            continue;
        if (status != SEMEL_WOULD_BLOCK || until == 0)
            return status;
        if (!wait_for_items(request, seen, until))
            until = 0;
    } while ((status = sml_item_reader_next(&stream->reader, out_item)) == SEMEL_WOULD_BLOCK);
    return status;
}

/* The same for a handler that may lead: its work is measured, and nobody leads who is not going to
 * wait again. */
static enum semel_status fetch_as_guest(struct semel_request *request, uint64_t until,
                                        struct semel_bytes *out_item)
{
    struct sml_request_stream *stream = request->stream;
    enum semel_status status;

    if (stream->left != 0)
        stream->worked += sml_clock_now() - stream->left;
    status = fetch(request, until, out_item);
    if (status == SEMEL_OK)
        stream->left = sml_clock_now();
    else
        sml_guest_leave(request->runner);
    return status;
}

enum semel_status semel_request_next(struct semel_request *request, int64_t timeout_ms,
                                     struct semel_bytes *out_item)
{
    enum semel_status status = check(request, SML_CALL_SENDS, timeout_ms);
    struct semel_bytes item;

    if (status != SEMEL_OK)
        return status;
    if (out_item == NULL)
        return SEMEL_INVALID;
    status = sml_item_reader_next(&request->stream->reader, &item);
    if (status == SEMEL_WOULD_BLOCK) {
        uint64_t until = sml_stream_until(timeout_ms);

        status = may_be_guest(request) ? fetch_as_guest(request, until, &item)
                                       : fetch(request, until, &item);
    }
    if (status == SEMEL_OK)
        *out_item = item;
    return status;
}

void sml_request_on_items_here(struct semel_request *request, sml_items_fn fn, void *user)
{
    SML_ASSERT(request->in && request->stream);
    request->stream->on_items = fn;
    request->stream->items_user = user;
    if (fn)
        fn(request, user);
}

void sml_request_on_items(struct semel_request *request, sml_items_fn fn, void *user)
{
    struct sml_served *served = request->served;

    sml_mutex_lock(served->lock);
    sml_request_on_items_here(request, fn, user);
    sml_served_write_now(served);
}

void sml_request_item_max_here(struct semel_request *request, uint64_t bytes)
{
    request->stream->reader.max = bytes;
}

bool sml_request_send_here(struct semel_request *request, struct sml_list *parts)
{
    return add_parts(request, parts);
}

bool sml_request_has_room_here(const struct semel_request *request)
{
    return sml_stream_has_room(request->in->stream);
}

enum semel_status sml_request_next_here(struct semel_request *request, struct semel_bytes *out)
{
    enum semel_status status;

    while ((status = sml_item_reader_next(&request->stream->reader, out)) == SEMEL_WOULD_BLOCK)
        if (!take(request))
            return nothing(request);
    return status;
}
