/* SPDX-License-Identifier: MIT */
/* client.c - a client's life: options, creation, stopping, destruction, state, counters.
 *
 * The pure link machine (session/link.h) decides everything that can be decided without a system
 * call; the client is the shell around it. client_call.c brings calls in, client_reader.c reads and
 * writes for whoever is there, client_io.c is the client's own thread, client_done.c hands out what
 * is finished.
 *
 * Lifecycle. 1. create starts the I/O thread; connecting begins at once. 2. stop ends every call in
 * the thread that called it (callbacks included) and leaves the rest, BYE and closing, to the I/O
 * thread. 3. destroy stops, waits for callers that are still inside, joins the I/O thread, which
 * leaves only when nothing is open or undelivered, and frees. 4. A forked child owns none of the
 * threads and none of the connection: there, only destroy does anything. */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "os/clock.h"
#include "rpc/client_internal.h"
#include "rpc/client_seam.h"
#include "rpc/item.h"
#include "rpc/commit.h"

/* --- options ---------------------------------------------------------------------------- */

/* 0 gives the default; else 1 .. 2^31-1, or negative where that has a meaning. */
static bool set_ms(int64_t *ms, int64_t fallback, bool may_be_negative)
{
    if (*ms == 0)
        *ms = fallback;
    return *ms <= INT32_MAX && (*ms > 0 || may_be_negative);
}

static enum semel_status fill_options(struct semel_client_options *o)
{
    bool good = set_ms(&o->deadline_ms, SEMEL_DEADLINE_MS, false);

    good &= set_ms(&o->cancel_grace_ms, SEMEL_CANCEL_GRACE_MS, true);
    good &= set_ms(&o->connect_ms, SEMEL_CONNECT_MS, false);
    good &= set_ms(&o->handshake_ms, SEMEL_HANDSHAKE_MS, false);
    good &= set_ms(&o->heartbeat_ms, SEMEL_HEARTBEAT_MS, true);
    good &= set_ms(&o->backoff_min_ms, SEMEL_BACKOFF_MIN_MS, false);
    good &= set_ms(&o->backoff_max_ms, SEMEL_BACKOFF_MAX_MS, false);
    good &= set_ms(&o->give_up_ms, SEMEL_GIVE_UP_MS, true);
    if (o->window_calls == 0)
        o->window_calls = SEMEL_WINDOW_CALLS;
    if (o->pending_calls == 0)
        o->pending_calls = SEMEL_PENDING_CALLS;
    if (o->body_bytes == 0)
        o->body_bytes = SEMEL_BODY_BYTES;
    if (o->handlers == 0)
        o->handlers = SEMEL_CLIENT_HANDLERS;
    if (o->backoff_max_ms < o->backoff_min_ms)
        o->backoff_max_ms = o->backoff_min_ms;
    good &= o->window_calls <= SEMEL_WINDOW_CALLS_MAX && o->handlers <= SEMEL_CLIENT_HANDLERS_MAX &&
            o->body_bytes <= (o->outbox ? SEMEL_STORED_BODY_BYTES_MAX : SEMEL_BODY_BYTES_MAX);
    return good ? SEMEL_OK : SEMEL_INVALID;
}

static uint64_t span(int64_t ms, uint64_t if_negative)
{
    return ms < 0 ? if_negative : (uint64_t)ms * SML_MS;
}

static void init_link(struct semel_client *client)
{
    const struct semel_client_options *o = &client->options;
    bool one_connection = client->addresses.list[0].kind == SML_ADDRESS_FD;
    struct sml_link_options options = {
        .cancel_grace = span(o->cancel_grace_ms, 0),
        .connect = span(o->connect_ms, SML_NEVER),
        .handshake = span(o->handshake_ms, SML_NEVER),
        .heartbeat = span(o->heartbeat_ms, SML_NEVER),
        .backoff_min = span(o->backoff_min_ms, 0),
        .backoff_max = span(o->backoff_max_ms, 0),
        .give_up = span(o->give_up_ms, SML_NEVER),
        .kept = o->outbox != NULL,
        .reconnect = !one_connection && o->give_up_ms > 0,
        .heartbeat_missed = SEMEL_HEARTBEAT_MISSED,
        .addresses = client->addresses.count,
        .window = o->window_calls,
        .pending_max = o->pending_calls,
        .body_bytes = o->body_bytes,
    };
    struct sml_entropy entropy = sml_random_entropy(&client->random);

    client->now = sml_clock_now();
    sml_link_init(&client->link, &sml_mem_libc, &entropy, &options, client->now);
}

/* --- the pen's machine ------------------------------------------------------------------ */

static size_t pull(void *owner, uint8_t *out, size_t room, struct sml_views *views)
{
    struct semel_client *client = owner;

    client->link.caller.views = views;
    return sml_link_pull(&client->link, out, room, client->now);
}

static bool wants(void *owner)
{
    struct semel_client *client = owner;

    return sml_link_wants_write(&client->link, client->now);
}

static uint8_t *lend(void *owner, size_t *out_room)
{
    struct semel_client *client = owner;

    *out_room = SML_PEN_BUFFER_BYTES;
    return client->out;
}

static void give_back(void *owner, uint8_t *buffer)
{
    (void)owner;
    (void)buffer;
}

static const struct sml_pen_ops pen_ops = { pull, wants, lend, give_back };

/* --- create and destroy ----------------------------------------------------------------- */

/* What needs no undoing beyond free_client. */
static struct semel_client *new_client(void)
{
    struct semel_client *client = calloc(1, sizeof *client);

    if (!client)
        return NULL;
    client->epoll.fd = client->wake.fd = client->connect_fd = -1;
    client->out = malloc(SML_PEN_BUFFER_BYTES);
    client->reads =
        sml_blocks_create(SML_INTAKE_BYTES, SML_CLIENT_BLOCKS_KEPT, SML_CLIENT_BLOCKS_MAX);
    client->writes = sml_blocks_create(SML_FRAGMENT_BYTES, SML_PART_BLOCKS_KEPT, UINT32_MAX);
    if (client->reads)
        (void)sml_intake_open(&client->conn.in, client->reads);
    sml_channel_init(&client->conn.channel);
    sml_list_init(&client->posted);
    sml_list_init(&client->ready);
    sml_origin_init(&client->origin);
    sml_mutex_init(&client->lock);
    sml_cond_init(&client->changed);
    sml_returns_init(&client->returns, NULL);
    sml_pen_init(&client->pen, &pen_ops, client, &client->lock);
    client->span_min = SML_NEVER;
    client->result_hint = 128;
    return client;
}

static void free_memory(struct semel_client *client)
{
    sml_random_fini(&client->random);
    sml_origin_fini(&client->origin);
    free(client->out);
    sml_intake_close(&client->conn.in);
    sml_blocks_destroy(client->reads);
    sml_blocks_destroy(client->writes);
    free(client);
}

static void free_client(struct semel_client *client)
{
    sml_epoll_close(&client->epoll);
    sml_wake_close(&client->wake);
    sml_cond_fini(&client->changed);
    sml_mutex_fini(&client->lock);
    sml_returns_fini(&client->returns);
    free_memory(client);
}

static enum semel_status open_client(struct semel_client *client)
{
    enum semel_status status;

    if (!client->out || !client->conn.in.block || !client->writes)
        return SEMEL_NO_MEMORY;
    status = sml_random_init(&client->random);
    if (status == SEMEL_OK)
        status = sml_wake_open(&client->wake);
    if (status == SEMEL_OK)
        status = sml_epoll_open(&client->epoll);
    if (status == SEMEL_OK)
        status = sml_epoll_add(&client->epoll, client->wake.fd, SML_POLL_IN, SML_TAG_WAKE);
    return status;
}

/* Descriptors are taken over now, so that a bad one is refused and a good one is ours with OK. */
static enum semel_status adopt_descriptors(struct semel_client *client)
{
    const struct sml_address *address = &client->addresses.list[0];

    if (address->kind != SML_ADDRESS_FD)
        return SEMEL_OK;
    if (sml_connect_start(&client->connect, address, SML_NEVER) != SML_CONNECT_DONE) {
        sml_connect_close(&client->connect);
        return SEMEL_BAD_ADDRESS;
    }
    client->connecting = true;
    return SEMEL_OK;
}

/* The I/O thread is created first and held off by the lock: what it needs cannot fail later. */
static enum semel_status launch(struct semel_client *client)
{
    enum semel_status status;

    sml_mutex_lock(&client->lock);
    status = sml_thread_create(&client->io_thread, "semel-client", 0, sml_client_io_main, client);
    if (status != SEMEL_OK) {
        sml_mutex_unlock(&client->lock);
        return status;
    }
    init_link(client);
    if (client->options.outbox)
        status = sml_client_outbox_open(client, client->options.outbox);
    if (status == SEMEL_OK)
        status = adopt_descriptors(client);
    if (status == SEMEL_OK && client->outbox)
        status = sml_client_outbox_start(client);
    if (status == SEMEL_OK) {
        sml_mutex_unlock(&client->lock);
        return SEMEL_OK;
    }
    sml_link_stop(&client->link, client->now);
    client->options.log = NULL;
    client->options.on_state = NULL;
    client->exit = true;
    sml_mutex_unlock(&client->lock);
    sml_thread_join(&client->io_thread);
    sml_link_fini(&client->link);
    sml_client_outbox_close(client, false);
    return status;
}

enum semel_status semel_client_create(struct semel_client **out_client, const char *addresses,
                                      const struct semel_client_options *options)
{
    struct semel_client *client;
    enum semel_status status;

    if (!out_client || !addresses)
        return SEMEL_INVALID;
    client = new_client();
    if (!client)
        return SEMEL_NO_MEMORY;
    if (options)
        client->options = *options;
    status = fill_options(&client->options);
    if (status == SEMEL_OK)
        status = sml_addresses_parse(addresses, &client->addresses, NULL);
    if (status == SEMEL_OK)
        status = open_client(client);
    if (status == SEMEL_OK)
        status = launch(client);
    if (status != SEMEL_OK) {
        free_client(client);
        return status;
    }
    *out_client = client;
    return SEMEL_OK;
}

void semel_client_stop(struct semel_client *client)
{
    struct sml_batch batch;

    if (!client || !sml_origin_is_mine(&client->origin))
        return;
    sml_batch_init(&batch);
    sml_mutex_lock(&client->lock);
    client->now = sml_clock_now();
    sml_link_stop(&client->link, client->now);
    if (sml_client_on_io(client)) { /* it delivers when the callback is over */
        sml_mutex_unlock(&client->lock);
        return;
    }
    client->inside++;
    sml_client_collect(client, &batch);
    sml_client_settle(client);
    client->wake_wanted = true;
    sml_client_unlock(client);
    if (batch.count) {
        /* Only the stop that ended the calls has any, so there is no second thread here. */
        atomic_store(&client->stopping_id, sml_thread_self().value);
        sml_client_deliver(client, &batch, SML_ON_STOP);
        atomic_store(&client->stopping_id, 0);
    }
    sml_mutex_lock(&client->lock);
    sml_client_leave(client);
}

/* In a forked child: give back what can be known to be whole. If a thread of the parent was inside
 * at the fork, the records stay. They stay, too, if one was blocked in a call: its record lies on a
 * stack that is nobody's here. */
static void destroy_in_child(struct semel_client *client)
{
    struct sml_batch batch;
    struct sml_list *node;

    sml_channel_close(&client->conn.channel);
    if (client->connecting)
        sml_connect_close(&client->connect);
    if (!sml_mutex_try_lock(&client->lock) || client->blocking > 0) {
        sml_epoll_close(&client->epoll);
        sml_wake_close(&client->wake);
        return;
    }
    sml_batch_init(&batch);
    sml_link_stop(&client->link, client->now);
    sml_client_collect(client, &batch);
    sml_list_move_all(&batch.done, &client->posted);
    while ((node = sml_list_pop_front(&batch.done)) != NULL) {
        struct sml_record *record = (struct sml_record *)SML_CONTAINER(node, struct sml_call, link);

        if (!record->blocking && !record->posted) {
            struct semel_call *call = (struct semel_call *)record;

            atomic_store_explicit(&call->completed, true, memory_order_release);
            semel_result_clear(&call->result);
            semel_call_unref(call);
        }
    }
    sml_link_fini(&client->link);
    sml_mutex_unlock(&client->lock);
    sml_epoll_close(&client->epoll);
    sml_wake_close(&client->wake);
    free(client->resolve);
    free_memory(client);
}

enum semel_status semel_client_destroy(struct semel_client *client)
{
    if (!client)
        return SEMEL_OK;
    if (!sml_origin_is_mine(&client->origin)) {
        destroy_in_child(client);
        return SEMEL_FORKED;
    }
    if (sml_client_in_callback(client) || sml_in_transaction() || sml_client_in_handler(client))
        return SEMEL_WOULD_DEADLOCK;
    semel_client_stop(client);
    sml_client_stop_handlers(client);
    sml_mutex_lock(&client->lock);
    client->exit = true;
    while (client->inside > 0)
        sml_cond_wait(&client->changed, &client->lock);
    sml_client_unlock(client);
    sml_client_outbox_stop(client);
    sml_wake_signal(&client->wake); /* only now: the outbox's thread was inside, too */
    sml_thread_join(&client->io_thread);
    sml_client_free_exports(client);
    sml_link_fini(&client->link);
    sml_client_outbox_close(client, true);
    free_client(client);
    return SEMEL_OK;
}

/* --- state ------------------------------------------------------------------------------ */

const char *sml_client_peer(const struct semel_client *client)
{
    return client->addresses.list[client->conn.address].text;
}

enum semel_client_state semel_client_state(const struct semel_client *client)
{
    if (!client)
        return SEMEL_CLIENT_STOPPED;
    return (enum semel_client_state)atomic_load_explicit(&client->state, memory_order_acquire);
}

static bool undecided(const struct semel_client *client)
{
    uint32_t state = atomic_load_explicit(&client->state, memory_order_relaxed);

    return state == SEMEL_CLIENT_CONNECTING || state == SEMEL_CLIENT_RECONNECTING;
}

enum semel_status semel_client_wait_connected(struct semel_client *client, int64_t timeout_ms,
                                              char *out_text, size_t size)
{
    enum semel_status status;
    struct sml_text text;
    uint64_t deadline;

    if (!client)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&client->origin))
        return SEMEL_FORKED;
    if (sml_client_in_callback(client) || sml_in_transaction() || sml_thread_in_loop())
        return SEMEL_WOULD_DEADLOCK;
    deadline = sml_time_add(sml_clock_now(), timeout_ms < 0 ? 0 : (uint64_t)timeout_ms * SML_MS);
    sml_mutex_lock(&client->lock);
    client->inside++;
    while (undecided(client) && sml_cond_wait_until(&client->changed, &client->lock, deadline))
        ;
    status = client->link.state == SML_LINK_UP ? SEMEL_OK : client->link.why;
    if (out_text && size > 0) {
        sml_text_init(&text, out_text, size);
        sml_client_reason(client, client->link.why_text, &text);
    }
    sml_client_leave(client);
    return status;
}

void semel_client_counters(const struct semel_client *client,
                           struct semel_client_counters *out_counters)
{
    /* The lock is not part of what the caller may see change. */
    struct semel_client *mutable = (struct semel_client *)(uintptr_t)client;
    const struct sml_link_counters *link;
    const struct sml_caller_counters *caller;

    if (!out_counters)
        return;
    memset(out_counters, 0, sizeof *out_counters);
    if (!client || !sml_origin_is_mine(&client->origin))
        return;
    sml_mutex_lock(&mutable->lock);
    link = &client->link.counters;
    caller = &client->link.caller.counters;
    *out_counters = client->counters;
    out_counters->writes += client->pen.writes;
    out_counters->bytes_sent += client->pen.bytes;
    out_counters->connects = link->connects;
    out_counters->reconnects = link->reconnects;
    out_counters->links_lost = link->lost;
    out_counters->links_lost_mid_frame = link->lost_mid_frame;
    out_counters->protocol_errors = link->protocol_errors;
    out_counters->sessions_lost = link->sessions_lost;
    out_counters->calls_resent = caller->resent;
    out_counters->calls_reattached = caller->reattached;
    out_counters->replies_replayed = caller->replayed;
    out_counters->busy = caller->busy;
    out_counters->replies_unexpected = caller->unexpected;
    sml_mutex_unlock(&mutable->lock);
}

bool sml_client_written(struct semel_client *client, uint64_t *out_bytes)
{
    bool quiet;

    sml_mutex_lock(&client->lock);
    *out_bytes = client->counters.bytes_sent + client->pen.bytes;
    quiet = !client->pen.held;
    sml_mutex_unlock(&client->lock);
    return quiet;
}
