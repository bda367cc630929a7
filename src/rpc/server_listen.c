/* SPDX-License-Identifier: MIT */
/* server_listen.c - what a server offers and where: methods, addresses, descriptors.
 *
 * All of it may come before the start or while serving, from any thread. A method is published in
 * its bucket and never changes or leaves; a listener goes into the epoll set; a connected
 * descriptor becomes a newcomer for the leader. */
#include "rpc/server_internal.h"

#include <stdlib.h>
#include <string.h>

#include "io/pair.h"
#include "rpc/server_seam.h"

/* --- exporting ----------------------------------------------------------------------------- */

/* One piece of memory: the method, pointers to its tallies, its name, its description. */
static struct sml_method *new_method(const struct semel_server *server, const char *name,
                                     size_t bytes, void *user,
                                     const struct semel_method_options *options)
{
    const char *describe = options && options->describe ? options->describe : "";
    size_t tallies = sml_tally_slots(server) * sizeof(_Atomic(struct sml_tally *));
    size_t describe_bytes = strlen(describe);
    struct sml_method *method =
        calloc(1, sizeof *method + tallies + bytes + 1 + describe_bytes + 1);
    char *words;

    if (method == NULL)
        return NULL;
    method->tallies = (void *)(method + 1);
    method->tally_slots = sml_tally_slots(server);
    words = (char *)(method + 1) + tallies;
    method->name = memcpy(words, name, bytes + 1);
    method->name_bytes = (uint8_t)bytes;
    method->describe = memcpy(words + bytes + 1, describe, describe_bytes + 1);
    method->user = user;
    sml_list_init(&method->parked);
    if (options) {
        method->kind = options->kind;
        method->limit = options->limit;
        method->max_run = (uint64_t)options->max_run_ms * SML_MS;
        method->on_crash = options->on_crash;
        method->takes_items = options->takes_items;
        method->gives_items = options->gives_items;
        method->forcible = options->forcible;
        method->tells_start = options->tells_start;
        method->resolve = options->resolve;
        method->resolve_user = options->resolve_user;
    }
    return method;
}

static bool is_method_name(const char *name, size_t bytes)
{
    if (bytes == 0 || bytes > SEMEL_METHOD_BYTES || strncmp(name, "semel.", 6) == 0)
        return false;
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return false; /* no frame can carry it */
    return true;
}

static bool are_options(const struct semel_method_options *o)
{
    if (o == NULL)
        return true;
    if (o->max_run_ms < 0 || o->max_run_ms > INT32_MAX || (unsigned)o->on_crash > 2)
        return false;
    if (o->describe && strnlen(o->describe, SEMEL_DESCRIBE_BYTES + 1) > SEMEL_DESCRIBE_BYTES)
        return false;
    return (o->on_crash == SEMEL_CRASH_RESOLVE) == (o->resolve != NULL) &&
           (o->on_crash == SEMEL_CRASH_UNKNOWN || o->kind == SEMEL_ONCE);
}

/* Moves `method` in on OK, and frees it otherwise; NULL: there was no memory for it. */
static enum semel_status publish(struct semel_server *server, struct sml_method *method)
{
    _Atomic(struct sml_method *) *bucket;
    enum semel_status status = SEMEL_OK;

    if (method == NULL)
        return SEMEL_NO_MEMORY;
    bucket = sml_server_method_bucket(server, method->name, method->name_bytes);
    sml_mutex_lock(&server->queue_lock);
    if (server->state == SML_SERVER_STOPPED)
        status = SEMEL_STOPPED;
    else if (sml_server_find_method(server, method->name, method->name_bytes))
        status = SEMEL_ALREADY;
    if (status == SEMEL_OK) {
        method->next = atomic_load_explicit(bucket, memory_order_relaxed);
        atomic_store_explicit(bucket, method, memory_order_release);
    }
    sml_mutex_unlock(&server->queue_lock);
    if (status != SEMEL_OK)
        free(method);
    return status;
}

enum semel_status semel_server_export(struct semel_server *server, const char *name,
                                      semel_handler_fn handler, void *user,
                                      const struct semel_method_options *options)
{
    size_t bytes = name ? strnlen(name, SEMEL_METHOD_BYTES + 1) : 0;
    struct sml_method *method;

    if (server == NULL || handler == NULL || !is_method_name(name, bytes) || !are_options(options))
        return SEMEL_INVALID;
    if (options && options->kind != SEMEL_ONCE && options->kind != SEMEL_IDEMPOTENT)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&server->origin))
        return SEMEL_FORKED;
    method = new_method(server, name, bytes, user, options);
    if (method)
        method->handler = handler;
    return publish(server, method);
}

static enum semel_status export_reserved(struct semel_server *server, const char *name,
                                         semel_handler_fn handler, void *user, bool standing)
{
    struct semel_method_options streams = { .kind = SEMEL_IDEMPOTENT,
                                            .takes_items = true,
                                            .gives_items = true };
    enum semel_status status = sml_server_check_open(server);
    struct sml_method *method;

    if (status != SEMEL_OK)
        return status;
    method = new_method(server, name, strlen(name), user, standing ? &streams : NULL);
    if (method) {
        method->handler = handler;
        method->standing = standing;
    }
    return publish(server, method);
}

enum semel_status sml_server_export_reserved(struct semel_server *server, const char *name,
                                             semel_handler_fn handler, void *user)
{
    return export_reserved(server, name, handler, user, false);
}

enum semel_status sml_server_export_standing(struct semel_server *server, const char *name,
                                             semel_handler_fn handler, void *user)
{
    return export_reserved(server, name, handler, user, true);
}

enum semel_status sml_server_export_admin(struct semel_server *server, const char *name,
                                          enum sml_admin admin, semel_handler_fn handler,
                                          const char *describe)
{
    struct semel_method_options options = { .kind = SEMEL_IDEMPOTENT, .describe = describe };
    struct sml_method *method = new_method(server, name, strlen(name), server, &options);

    if (method) {
        method->handler = handler;
        method->admin = (uint8_t)admin;
    }
    return publish(server, method);
}

enum semel_status semel_server_export_transactional(struct semel_server *server, const char *name,
                                                    semel_transaction_fn handler, void *user,
                                                    const struct semel_method_options *options)
{
    size_t bytes = name ? strnlen(name, SEMEL_METHOD_BYTES + 1) : 0;
    struct sml_method *method;

    if (server == NULL || handler == NULL || !is_method_name(name, bytes) || !are_options(options))
        return SEMEL_INVALID;
    if (!sml_commit_is_durable(&server->commit) ||
        (options && (options->kind == SEMEL_IDEMPOTENT || options->on_crash ||
                     options->takes_items || options->gives_items || options->tells_start)))
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&server->origin))
        return SEMEL_FORKED;
    method = new_method(server, name, bytes, user, options);
    if (method) {
        method->kind = SEMEL_TRANSACTIONAL;
        method->transaction = handler;
    }
    return publish(server, method);
}

/* --- listening ----------------------------------------------------------------------------- */

/* Hand a connection over to the leader; moved in on OK. */
static enum semel_status serve_channel(struct semel_server *server, struct sml_channel *channel)
{
    struct sml_conn *conn = sml_conn_create(server, channel);
    bool late;

    if (conn == NULL)
        return SEMEL_NO_MEMORY;
    sml_mutex_lock(&server->queue_lock);
    late = server->closed || server->state == SML_SERVER_STOPPED;
    if (!late) {
        sml_list_push_back(&server->newcomers, &conn->all);
        sml_server_nudge_locked(server);
    }
    sml_mutex_unlock(&server->queue_lock);
    if (!late)
        return SEMEL_OK;
    sml_channel_move(channel, &conn->channel);
    sml_conn_discard(conn);
    return SEMEL_STOPPED;
}

static enum semel_status open_place(struct semel_server *server, const struct sml_address *address,
                                    struct sml_reason *reason)
{
    struct sml_place_to_listen *place = calloc(1, sizeof *place);
    enum semel_status status;

    if (place == NULL)
        return SEMEL_NO_MEMORY;
    status = sml_listener_open(&place->listener, address, server->options.insecure, reason);
    if (status != SEMEL_OK) {
        free(place);
        return status;
    }
    sml_mutex_lock(&server->host_lock);
    status = server->places_closed ? SEMEL_STOPPED
                                   : sml_epoll_add(&server->epoll, place->listener.fd, SML_POLL_IN,
                                                   sml_place_tag(place));
    if (status == SEMEL_OK) {
        sml_list_push_back(&server->places, &place->all);
        memcpy(server->address, place->listener.address.text, sizeof server->address);
    }
    sml_mutex_unlock(&server->host_lock);
    if (status != SEMEL_OK) {
        sml_listener_close(&place->listener);
        free(place);
    }
    return status;
}

static enum semel_status adopt(struct semel_server *server, const struct sml_address *address,
                               struct sml_reason *reason)
{
    struct sml_channel channel;
    enum semel_status status =
        sml_channel_adopt(&channel, address->fd_read, address->fd_write, NULL, reason);

    if (status != SEMEL_OK)
        return status;
    status = serve_channel(server, &channel);
    if (status != SEMEL_OK)
        return status; /* the descriptors stay the caller's: they are not closed here */
    sml_mutex_lock(&server->host_lock);
    memcpy(server->address, address->text, sizeof server->address);
    sml_mutex_unlock(&server->host_lock);
    return SEMEL_OK;
}

enum semel_status semel_server_listen(struct semel_server *server, const char *text)
{
    struct sml_address *address;
    struct sml_reason reason = { "" };
    enum semel_status status = sml_server_check_open(server);

    if (status != SEMEL_OK)
        return status;
    if (text == NULL)
        return SEMEL_INVALID;
    address = malloc(sizeof *address);
    if (address == NULL)
        return SEMEL_NO_MEMORY;
    status = sml_address_parse(text, address, &reason);
    if (status == SEMEL_OK && address->kind == SML_ADDRESS_FD)
        status = adopt(server, address, &reason);
    else if (status == SEMEL_OK)
        status = open_place(server, address, &reason);
    if (status != SEMEL_OK)
        sml_server_log(server, SEMEL_LOG_ERROR, "cannot listen: %s",
                       reason.text[0] ? reason.text : semel_status_text(status));
    free(address);
    return status;
}

const char *semel_server_address(const struct semel_server *server)
{
    return server ? server->address : "";
}

enum semel_status semel_server_pair(struct semel_server *server, int *out_fd)
{
    struct sml_channel channel;
    int fds[2];
    enum semel_status status = sml_server_check_open(server);

    if (status != SEMEL_OK)
        return status;
    if (out_fd == NULL)
        return SEMEL_INVALID;
    status = sml_pair_open(fds, NULL);
    if (status != SEMEL_OK)
        return status;
    sml_channel_of_socket(&channel, fds[0], "pair", false);
    status = serve_channel(server, &channel);
    if (status != SEMEL_OK) {
        sml_channel_close(&channel);
        sml_channel_of_socket(&channel, fds[1], "pair", false);
        sml_channel_close(&channel);
        return status;
    }
    *out_fd = fds[1];
    return SEMEL_OK;
}
