/* SPDX-License-Identifier: MIT */
/* client_stream.c - the caller's end of streams.
 *
 * The flow belongs to the caller machine, under the client's lock, until the call is over; from
 * then on to the reader alone, so that what has arrived can be read when the client is gone. News
 * are a word to sleep on: it is changed under the lock, after what it tells of.
 *
 * Writing. A part that follows another within BURST_NS is left to the I/O thread, which is awake
 * already or is woken once, and writes what has come together until then: a burst of small items
 * costs a system call for many. The first of a burst, and large ones, are written at once. */
#include <semel/stream.h>
#include <stdlib.h>
#include <string.h>

#include "os/clock.h"
#include "os/futex.h"
#include "rpc/client_internal.h"
#include "rpc/client_seam.h"
#include "rpc/commit.h"
#include "rpc/item.h"
#include "rpc/stream_seam.h"
#include "rpc/stream_wait.h"

#define GATE_INSIDE 1u /* on_ready is running */
#define GATE_FREED 2u  /* it runs no more */
#define GATE_AGAIN 4u  /* another thread wanted it to run, and left that to the one inside */

struct semel_stream {
    struct sml_stream flow; /* first */
    struct semel_client *client;
    struct sml_origin origin; /* for when that is gone */
    struct semel_call *call;
    _Atomic uint32_t refs; /* the application's, the completion's, of being on client->ready */
    struct sml_news news;
    _Atomic bool over; /* `result` is there, and the machine has let go of `flow` */
    struct semel_result result;
    bool result_taken; /* the reader's */
    bool anywhere;     /* on_ready may run on any thread */

    struct sml_item_reader reader;
    struct sml_part *progress; /* backs the last item, if it was that */
    uint32_t attempt;

    semel_stream_ready_fn on_ready;
    void *user;
    struct sml_list ready_link;
    _Atomic uint32_t gate;
    _Atomic uintptr_t telling; /* the thread inside on_ready */
};

static void stream_unref(struct semel_stream *stream)
{
    if (atomic_fetch_sub_explicit(&stream->refs, 1, memory_order_acq_rel) != 1)
        return;
    sml_stream_clear(&stream->flow, &sml_mem_libc);
    sml_item_reader_clear(&stream->reader);
    sml_part_release(&sml_mem_libc, stream->progress);
    semel_result_clear(&stream->result);
    semel_call_unref(stream->call);
    sml_origin_fini(&stream->origin);
    free(stream);
}

/* --- news ------------------------------------------------------------------------------- */

/* The last time was not the last: stay inside. */
static bool leaves(struct semel_stream *stream)
{
    uint32_t gate = atomic_load(&stream->gate);

    while (!(gate & GATE_AGAIN))
        if (atomic_compare_exchange_weak(&stream->gate, &gate, gate & ~GATE_INSIDE)) {
            if (gate & GATE_FREED)
                sml_futex_wake(&stream->gate, INT32_MAX);
            return true;
        }
    return false;
}

/* The I/O thread, and one that ends the call in semel_client_stop, may come at the same time; one
 * runs it, for both. */
static void run_ready(struct semel_stream *stream)
{
    if (atomic_fetch_or(&stream->gate, GATE_INSIDE | GATE_AGAIN) & GATE_INSIDE)
        return;
    do {
        if (!(atomic_fetch_and(&stream->gate, ~GATE_AGAIN) & GATE_FREED)) {
            atomic_store(&stream->telling, sml_thread_self().value);
            stream->on_ready(stream, stream->user);
            atomic_store(&stream->telling, 0);
        }
    } while (!leaves(stream));
}

void sml_client_run_ready(struct sml_list *ready)
{
    struct sml_list *node;

    while ((node = sml_list_pop_front(ready)) != NULL) {
        struct semel_stream *stream = SML_CONTAINER(node, struct semel_stream, ready_link);

        run_ready(stream);
        stream_unref(stream);
    }
}

void sml_client_take_anywhere(struct semel_client *client, struct sml_list *out)
{
    struct sml_list *node = client->ready.next;

    while (node != &client->ready) {
        struct semel_stream *stream = SML_CONTAINER(node, struct semel_stream, ready_link);

        node = node->next;
        if (!stream->anywhere)
            continue;
        sml_list_remove(&stream->ready_link);
        sml_list_push_back(out, &stream->ready_link);
    }
}

void sml_client_streams(struct semel_client *client)
{
    struct sml_call *call;

    while ((call = sml_caller_next_event(&client->link.caller)) != NULL) {
        struct semel_stream *stream = SML_CONTAINER(call->stream, struct semel_stream, flow);

        sml_news_tell_later(&stream->news, &client->sleepers);
        if (stream->on_ready && !sml_list_linked(&stream->ready_link)) {
            atomic_fetch_add_explicit(&stream->refs, 1, memory_order_relaxed);
            sml_list_push_back(&client->ready, &stream->ready_link);
        }
    }
}

/* The call is over: a callback of the client's, on whichever thread. */
static void over(struct semel_result *result, void *user)
{
    struct semel_stream *stream = user;

    if (semel_result_take(result, &stream->result) != SEMEL_OK)
        stream->result = (struct semel_result){ .outcome = result->outcome,
                                                .status = SEMEL_NO_MEMORY,
                                                .call = result->call };
    atomic_store_explicit(&stream->over, true, memory_order_release);
    sml_news_tell(&stream->news);
    if (stream->on_ready)
        run_ready(stream);
    stream_unref(stream);
}

static bool is_over(const struct semel_stream *stream)
{
    return atomic_load_explicit(&stream->over, memory_order_acquire);
}

static bool is_mine(const struct semel_stream *stream)
{
    return sml_origin_is_mine(&stream->origin);
}

/* --- beginning and end ------------------------------------------------------------------ */

static enum semel_status begin(struct semel_client *client, const char *method,
                               struct semel_bytes body, const struct semel_call_options *call,
                               const struct semel_stream_options *options, unsigned manner,
                               struct semel_stream **out_stream, bool *out_lent)
{
    struct semel_stream *stream, *before;
    enum semel_status status;

    if (!client || !options || !out_stream || !(options->sends || options->takes) ||
        (call && (call->lent || (call->key && call->key[0]))))
        return SEMEL_INVALID;
    stream = calloc(1, sizeof *stream);
    if (!stream)
        return SEMEL_NO_MEMORY;
    sml_stream_init(&stream->flow, options->sends, options->takes);
    sml_item_reader_init(&stream->reader, client->options.body_bytes);
    sml_list_init(&stream->ready_link);
    stream->client = client;
    sml_origin_share(&stream->origin, &client->origin);
    stream->on_ready = options->on_ready;
    stream->user = options->user;
    stream->anywhere = (manner & SML_ANYWHERE) != 0;
    atomic_init(&stream->refs, 3); /* the application, the completion, this function */
    before = *out_stream;
    *out_stream = stream; /* it may be ready before this returns */
    status = sml_client_start_stream(client, method, body, call, &stream->flow, manner, over,
                                     stream, &stream->call);
    if (status != SEMEL_OK) {
        *out_stream = before;
        sml_origin_fini(&stream->origin);
        free(stream);
        return status;
    }
    *out_lent = stream->call->record.looped;
    stream_unref(stream);
    return SEMEL_OK;
}

enum semel_status semel_client_stream(struct semel_client *client, const char *method,
                                      struct semel_bytes body,
                                      const struct semel_call_options *call,
                                      const struct semel_stream_options *options,
                                      struct semel_stream **out_stream)
{
    bool lent;

    return begin(client, method, body, call, options, SML_PLAIN, out_stream, &lent);
}

enum semel_status sml_client_stream_for_life(struct semel_client *client, const char *method,
                                             struct semel_bytes body,
                                             const struct semel_stream_options *options,
                                             struct semel_stream **out_stream)
{
    bool lent;

    return begin(client, method, body, NULL, options, SML_FOR_LIFE, out_stream, &lent);
}

enum semel_status sml_client_stream_on_loop(struct semel_client *client, const char *method,
                                            struct semel_bytes body,
                                            const struct semel_call_options *call,
                                            const struct semel_stream_options *options,
                                            struct semel_stream **out_stream, bool *out_lent)
{
    return begin(client, method, body, call, options, SML_ANYWHERE, out_stream, out_lent);
}

void sml_stream_item_max(struct semel_stream *stream, uint64_t bytes)
{
    stream->reader.max = bytes;
}

void semel_stream_cancel(struct semel_stream *stream)
{
    if (stream && !is_over(stream))
        semel_call_cancel(stream->call);
}

void sml_stream_detach(struct semel_stream *stream)
{
    uint32_t gate;

    gate = atomic_fetch_or(&stream->gate, GATE_FREED) | GATE_FREED;
    while ((gate & GATE_INSIDE) && atomic_load(&stream->telling) != sml_thread_self().value) {
        (void)sml_futex_wait(&stream->gate, gate, SML_NEVER);
        gate = atomic_load(&stream->gate);
    }
    stream_unref(stream);
}

void semel_stream_free(struct semel_stream *stream)
{
    if (!stream || !is_mine(stream))
        return;
    semel_stream_cancel(stream);
    sml_stream_detach(stream);
}

/* --- waiting ----------------------------------------------------------------------------- */

/* May this thread be in a function of the stream, and wait? */
static enum semel_status check(const struct semel_stream *stream, int64_t timeout_ms)
{
    if (!stream)
        return SEMEL_INVALID;
    if (!is_mine(stream))
        return SEMEL_FORKED;
    if (timeout_ms == 0)
        return SEMEL_OK;
    if (sml_thread_in_loop() || sml_in_transaction() ||
        (!is_over(stream) && sml_client_in_callback(stream->client)))
        return SEMEL_WOULD_DEADLOCK;
    return SEMEL_OK;
}

/* --- sending ----------------------------------------------------------------------------- */

/* Lock held. `large`: it is worth a system call of its own. */
static void write_parts(struct semel_client *client, bool large)
{
    if (sml_client_on_io(client))
        return; /* it writes when the callback is over */
    client->now = sml_clock_now();
    if (large || client->now >= client->parts_written + SML_BURST_NS) {
        client->parts_written = client->now;
        sml_client_write(client, client->blocking > 0);
    } else if (client->asleep_until != 0) {
        client->wake_wanted = true;
    }
}

/* Lock held on entry and exit. */
static enum semel_status wait_for_room(struct semel_stream *stream, uint64_t until)
{
    struct semel_client *client = stream->client;

    while (!sml_stream_has_room(&stream->flow) && !is_over(stream) &&
           stream->call->record.call.phase != SML_CALL_DONE) {
        uint32_t seen = sml_news_seen(&stream->news);
        bool waited;

        if (until == 0)
            return SEMEL_WOULD_BLOCK;
        sml_client_write(client, false);
        sml_client_recall(client);
        sml_client_unlock(client);
        waited = sml_news_wait(&stream->news, seen, until);
        if (is_over(stream))
            return SEMEL_END; /* the client may be gone, and its lock */
        sml_mutex_lock(&client->lock);
        if (!waited && !sml_stream_has_room(&stream->flow))
            return SEMEL_WOULD_BLOCK;
    }
    return SEMEL_OK;
}

/* Lock held. */
static enum semel_status add_parts(struct semel_stream *stream, struct sml_list *parts)
{
    struct sml_caller *caller = &stream->client->link.caller;
    struct sml_part *part;

    while ((part = sml_part_pop(parts)) != NULL)
        if (!sml_caller_send_part(caller, &stream->call->record.call, part))
            return SEMEL_END;
    return SEMEL_OK;
}

/* May it be sent? */
static enum semel_status check_item(const struct semel_stream *stream, struct semel_bytes item,
                                    int64_t timeout_ms)
{
    enum semel_status status = check(stream, timeout_ms);

    if (status != SEMEL_OK)
        return status;
    if (!stream->flow.sends || stream->flow.out.ended || (item.size > 0 && !item.data))
        return SEMEL_INVALID; /* the end is said by the thread that sends */
    if (item.size > SEMEL_BODY_BYTES_MAX)
        return SEMEL_TOO_LARGE;
    return is_over(stream) ? SEMEL_END : SEMEL_OK;
}

/* Parts of `size` bytes in all, `given` or copied (NULL); they are freed if they cannot be sent. */
static enum semel_status send_parts(struct semel_stream *stream, struct sml_list *parts,
                                    size_t size, int64_t timeout_ms, struct sml_given *given)
{
    const struct sml_outflow *out = &stream->flow.out;
    struct semel_client *client = stream->client;
    enum semel_status status;

    sml_mutex_lock(&client->lock);
    status = wait_for_room(stream, sml_stream_until(timeout_ms));
    if (status == SEMEL_END) { /* without the lock */
        sml_parts_free(parts);
        return status;
    }
    if (status == SEMEL_OK) {
        status = add_parts(stream, parts);
        if (status == SEMEL_OK && given)
            sml_given_accept(given);
        write_parts(client, size >= SML_BURST_BYTES || out->added - out->sent >= SML_BURST_PARTS);
    }
    sml_client_settle(client);
    sml_client_unlock(client);
    sml_parts_free(parts);
    return status;
}

enum semel_status sml_stream_send(struct semel_stream *stream, struct semel_bytes head,
                                  struct semel_bytes item, int64_t timeout_ms)
{
    enum semel_status status = check_item(stream, item, timeout_ms);
    struct sml_list parts;

    if (status != SEMEL_OK)
        return status;
    if (!sml_item_cut(head, item, stream->client->writes, &parts))
        return SEMEL_NO_MEMORY;
    return send_parts(stream, &parts, item.size, timeout_ms, NULL);
}

enum semel_status semel_stream_send(struct semel_stream *stream, struct semel_bytes item,
                                    int64_t timeout_ms)
{
    return sml_stream_send(stream, semel_bytes(NULL, 0), item, timeout_ms);
}

enum semel_status semel_stream_send_moved(struct semel_stream *stream, struct semel_bytes item,
                                          int64_t timeout_ms, semel_release_fn release, void *user)
{
    enum semel_status status = check_item(stream, item, timeout_ms);
    struct sml_given *given;
    struct sml_list parts;

    if (status != SEMEL_OK)
        return status;
    if (!release)
        return SEMEL_INVALID;
    given = sml_given_cut(item, release, user, &stream->client->returns, &parts);
    return given ? send_parts(stream, &parts, item.size, timeout_ms, given) : SEMEL_NO_MEMORY;
}

void sml_stream_progress_of(struct semel_stream *stream, uint64_t *out_added, uint64_t *out_taken)
{
    struct semel_client *client = stream->client;

    *out_added = *out_taken = 0;
    if (is_over(stream))
        return;
    sml_mutex_lock(&client->lock);
    *out_added = stream->flow.out.added;
    *out_taken = stream->flow.out.taken;
    sml_mutex_unlock(&client->lock);
}

enum semel_status semel_stream_end(struct semel_stream *stream)
{
    enum semel_status status = check(stream, 0);
    struct semel_client *client;

    if (status != SEMEL_OK)
        return status;
    if (!stream->flow.sends)
        return SEMEL_INVALID;
    if (is_over(stream))
        return SEMEL_OK;
    client = stream->client;
    sml_mutex_lock(&client->lock);
    if (stream->call->record.call.phase != SML_CALL_DONE && !stream->flow.out.ended) {
        sml_caller_end_parts(&client->link.caller, &stream->call->record.call);
        write_parts(client, true);
    }
    sml_client_settle(client);
    sml_client_unlock(client);
    return SEMEL_OK;
}

uint32_t sml_stream_seen(struct semel_stream *stream)
{
    return sml_news_seen(&stream->news);
}

enum semel_status sml_stream_wait_news(struct semel_stream *stream, uint32_t seen, uint64_t until)
{
    if (!is_over(stream))
        (void)sml_news_wait(&stream->news, seen, until);
    return is_over(stream) ? SEMEL_END : SEMEL_OK;
}

/* Between two looks whether the socket has taken the rest. */
#define FLUSH_TICK SML_MS

enum semel_status sml_stream_flush(struct semel_stream *stream, uint64_t until)
{
    struct semel_client *client = stream->client;
    bool written = false;

    while (!is_over(stream)) {
        uint32_t seen = sml_news_seen(&stream->news);
        uint64_t now = sml_clock_now();

        sml_mutex_lock(&client->lock);
        client->now = now;
        if (!sml_client_on_io(client))
            sml_client_write(client, false);
        written = sml_outflow_is_drained(&stream->flow.out) && !client->pen.held &&
                  !sml_pen_unsent(&client->pen);
        sml_client_settle(client);
        sml_client_unlock(client);
        if (written)
            return SEMEL_OK;
        if (now >= until)
            return SEMEL_WOULD_BLOCK;
        (void)sml_news_wait(&stream->news, seen, sml_time_min(until, now + FLUSH_TICK));
    }
    return SEMEL_END;
}

/* --- reading ----------------------------------------------------------------------------- */

/* Take what is there. Lock held, or the call over. Returns whether there was anything. */
static bool take(struct semel_stream *stream, enum semel_item_kind *out_kind)
{
    struct sml_inflow *in = &stream->flow.in;

    *out_kind = SEMEL_ITEM;
    if (in->attempt != stream->attempt) {
        stream->attempt = in->attempt;
        sml_item_reader_clear(&stream->reader);
        *out_kind = SEMEL_ITEM_RESTARTED;
        return true;
    }
    if (in->progress) {
        stream->progress = sml_inflow_take_progress(in);
        *out_kind = SEMEL_ITEM_PROGRESS;
        return true;
    }
    return sml_item_reader_take(&stream->reader, in);
}

/* Nothing is there: if nobody else waits for anything, read it from the connection here. Lock held
 * on entry, not on exit. */
static void read_here(struct semel_stream *stream, uint32_t seen, uint64_t until)
{
    struct semel_client *client = stream->client;
    const struct sml_awaited awaited = { &stream->call->record.call, &stream->news.word, seen,
                                         until };

    if (until == 0 || !sml_client_may_borrow(client, &awaited)) {
        if (until != 0)
            sml_client_recall(client); /* it sleeps, and reads nothing */
        else
            sml_client_settle(client);
        sml_client_unlock(client);
        return;
    }
    client->inside++;
    sml_client_borrow(client, &awaited);
    client->conn.lent = !client->conn.armed;
    sml_client_leave(client);
}

/* The same, and the other end may send more. */
static bool take_from_machine(struct semel_stream *stream, uint32_t seen, uint64_t until,
                              enum semel_item_kind *out_kind)
{
    struct semel_client *client = stream->client;
    struct sml_call *call = &stream->call->record.call;

    sml_mutex_lock(&client->lock);
    if (!take(stream, out_kind)) {
        read_here(stream, seen, until);
        return false;
    }
    if (call->phase != SML_CALL_DONE) {
        sml_caller_took_parts(&client->link.caller, call);
        if (!sml_list_empty(&client->link.caller.streams))
            write_parts(client, true);
    }
    sml_client_settle(client);
    sml_client_unlock(client);
    return true;
}

/* The call is over and nothing is left to be read. */
static enum semel_status end_of(const struct semel_stream *stream)
{
    bool happened =
        stream->result.outcome == SEMEL_VALUE || stream->result.outcome == SEMEL_FAILURE;

    return happened && !stream->flow.in.ended ? SEMEL_PARTS_LOST : SEMEL_END;
}

static bool from_reader(struct semel_stream *stream, struct semel_item *out_item,
                        enum semel_status *out_status)
{
    *out_status = sml_item_reader_next(&stream->reader, &out_item->bytes);
    out_item->kind = SEMEL_ITEM;
    return *out_status != SEMEL_WOULD_BLOCK;
}

enum semel_status semel_stream_next(struct semel_stream *stream, int64_t timeout_ms,
                                    struct semel_item *out_item)
{
    enum semel_status status = check(stream, timeout_ms);
    uint64_t until = sml_stream_until(timeout_ms);
    enum semel_item_kind kind;
    struct semel_item item = { SEMEL_ITEM, { NULL, 0 } };

    if (status != SEMEL_OK)
        return status;
    if (!out_item || !stream->flow.takes)
        return SEMEL_INVALID;
    sml_part_release(&sml_mem_libc, stream->progress);
    stream->progress = NULL;
    while (!from_reader(stream, &item, &status)) {
        uint32_t seen = sml_news_seen(&stream->news);
        bool ended = is_over(stream);
        bool any = ended ? take(stream, &kind) : take_from_machine(stream, seen, until, &kind);

        if (any && kind != SEMEL_ITEM) {
            item.kind = kind;
            item.bytes = semel_bytes(NULL, 0);
            if (kind == SEMEL_ITEM_PROGRESS)
                item.bytes = semel_bytes(stream->progress->bytes, stream->progress->size);
            status = SEMEL_OK;
            break;
        }
        if (any)
            continue;
        if (ended)
            return end_of(stream);
        if (until == 0 || !sml_news_wait(&stream->news, seen, until))
            return SEMEL_WOULD_BLOCK;
    }
    if (status == SEMEL_OK)
        *out_item = item;
    return status;
}

enum semel_status semel_stream_result(struct semel_stream *stream, int64_t timeout_ms,
                                      struct semel_result *out_result)
{
    enum semel_status status = check(stream, timeout_ms);
    uint64_t until = sml_stream_until(timeout_ms);

    if (status != SEMEL_OK)
        return status;
    if (!out_result)
        return SEMEL_INVALID;
    if (stream->result_taken)
        return SEMEL_ALREADY;
    while (!is_over(stream)) {
        uint32_t seen = sml_news_seen(&stream->news);

        if (is_over(stream))
            break;
        if (until == 0 || !sml_news_wait(&stream->news, seen, until))
            return SEMEL_WOULD_BLOCK;
    }
    *out_result = stream->result;
    stream->result_taken = true;
    /* What the end of the stream means is still asked of it. */
    stream->result = (struct semel_result){ .outcome = out_result->outcome };
    return SEMEL_OK;
}
