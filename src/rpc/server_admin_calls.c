/* SPDX-License-Identifier: MIT */
/* server_admin_calls.c - semel.calls: what runs and what waits, of all sessions.
 *
 * A session's calls are copied under its stripe, one session after the other, and sorted and
 * written down without any lock: each is true of some moment of the answering. Running ones and
 * waiting ones are kept apart, so that a full backlog does not hide what causes it. */
#include "rpc/server_admin.h"

#include <stdlib.h>
#include <string.h>

#include "rpc/json_text.h"
#include "rpc/server_internal.h"

#define ID_SESSION_BYTES 4 /* of the short id */
#define PEER_BYTES 192

struct shown {
    struct sml_session_id session;
    struct sml_principal principal;
    uint64_t xid, arrived, deadline;
    bool running, ended; /* ended: its handler goes on, although it has its verdict */
    bool cancelled, keyed;
    char method[SEMEL_METHOD_BYTES + 1];
    char peer[PEER_BYTES];
};

struct shown_list {
    struct shown *calls; /* SML_CALLS_SHOWN */
    uint32_t count;
    uint64_t left_off;
};

/* It has its verdict because it ran too long, and its handler goes on. (One that ended while it
 * waited is the shell's for a moment, too.) */
static bool is_overdue(const struct sml_incoming *in)
{
    return in->phase == SML_IN_DONE && in->verdict.status == SEMEL_MAX_RUN;
}

/* Stripe held. */
static void copy_call(struct shown *to, const struct sml_session *session,
                      const struct sml_incoming *in)
{
    const struct semel_request *request = in->user;
    struct sml_text peer;

    memset(to, 0, sizeof *to);
    to->session = session->id;
    to->principal = session->principal;
    to->xid = in->xid;
    to->arrived = request->arrived;
    to->deadline = in->deadline;
    to->ended = is_overdue(in);
    to->running = to->ended || in->phase == SML_IN_RUNNING;
    to->cancelled = atomic_load_explicit(&in->cancelled, memory_order_relaxed);
    to->keyed = in->key_bytes > 0;
    memcpy(to->method, in->method, (size_t)in->method_bytes + 1);
    sml_text_init(&peer, to->peer, sizeof to->peer);
    sml_text_add(&peer, request->info->peer.address);
}

/* The shell has it: its request is there. */
static bool is_shown(const struct sml_incoming *in)
{
    const struct semel_request *request = in->user;

    return in->held && request && request->in == in && request->info && request->method &&
           request->method->admin == SML_ADMIN_NOT && in->phase != SML_IN_STORING &&
           (in->phase != SML_IN_DONE || is_overdue(in));
}

static void collect_session(struct sml_served *served, struct shown_list *running,
                            struct shown_list *waiting)
{
    const struct sml_callee *callee = &served->session->callee;

    for (const struct sml_list *node = callee->all.next; node != &callee->all; node = node->next) {
        const struct sml_incoming *in = SML_CONTAINER(node, struct sml_incoming, all);
        bool runs = in->phase == SML_IN_RUNNING || in->phase == SML_IN_DONE;
        struct shown_list *list = runs ? running : waiting;

        if (!is_shown(in))
            continue;
        if (list->count < SML_CALLS_SHOWN)
            copy_call(&list->calls[list->count++], served->session, in);
        else
            list->left_off++;
    }
}

static int older(const void *a, const void *b)
{
    const struct shown *left = a, *right = b;

    return (left->arrived > right->arrived) - (left->arrived < right->arrived);
}

static void put_call(struct sml_json *json, const struct shown *call, uint64_t now)
{
    uint64_t age = now > call->arrived ? now - call->arrived : 0;
    char id[2 * ID_SESSION_BYTES + 24];
    struct sml_text text;

    sml_text_init(&text, id, sizeof id);
    sml_text_add_hex(&text, call->session.bytes, ID_SESSION_BYTES);
    sml_text_add(&text, ".");
    sml_text_add_u64(&text, call->xid);
    sml_json_open(json, NULL, '{');
    sml_json_text(json, "id", id);
    sml_json_hex(json, "session", call->session.bytes, sizeof call->session.bytes);
    sml_json_u64(json, "call", call->xid);
    sml_json_text(json, "method", call->method);
    sml_json_text(json, "state", call->ended ? "overdue" : call->running ? "running" : "waiting");
    sml_json_u64(json, "age_ns", age);
    if (call->deadline != SML_NEVER)
        sml_json_u64(json, "remaining_ms", sml_time_ms_until(call->deadline, now));
    sml_json_bool(json, "cancelled", call->cancelled);
    sml_json_bool(json, "keyed", call->keyed);
    sml_json_text(json, "peer", call->peer);
    if (call->principal.known)
        sml_json_u64(json, "uid", call->principal.uid);
    sml_json_close(json, '}');
}

static void put_calls(struct sml_json *json, struct shown_list *list, uint64_t now)
{
    if (list->count > 0)
        qsort(list->calls, list->count, sizeof *list->calls, older);
    for (uint32_t i = 0; i < list->count; i++)
        put_call(json, &list->calls[i], now);
}

enum semel_status sml_admin_calls(struct semel_server *server, struct sml_json *json)
{
    struct shown_list running = { NULL, 0, 0 }, waiting = { NULL, 0, 0 };
    struct shown *memory = malloc(2 * SML_CALLS_SHOWN * sizeof *memory);
    uint64_t now;

    if (memory == NULL)
        return SEMEL_NO_MEMORY;
    running.calls = memory;
    waiting.calls = memory + SML_CALLS_SHOWN;
    sml_mutex_lock(&server->host_lock);
    for (struct sml_list *node = server->served.next; node != &server->served; node = node->next) {
        struct sml_served *served = SML_CONTAINER(node, struct sml_served, all);

        sml_mutex_lock(served->lock);
        if (served->session->callee.held > 0)
            collect_session(served, &running, &waiting);
        sml_mutex_unlock(served->lock);
    }
    sml_mutex_unlock(&server->host_lock);
    now = sml_clock_now();
    sml_json_open(json, "calls", '[');
    put_calls(json, &running, now);
    put_calls(json, &waiting, now);
    sml_json_close(json, ']');
    sml_json_u64(json, "running_left_off", running.left_off);
    sml_json_u64(json, "waiting_left_off", waiting.left_off);
    free(memory);
    return SEMEL_OK;
}
