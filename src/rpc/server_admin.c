/* SPDX-License-Identifier: MIT */
/* server_admin.c - the reserved methods' thread, who may call them, and those that are short:
 * semel.methods, semel.describe, semel.cancel. Their bodies are described in docs/PROTOCOL.md.
 *
 * A reserved call goes from the leader into `asked` instead of the batch. The thread takes it out
 * as a worker takes its calls, but with no slot: what runs here never counts as running. When the
 * server quits, what waits was taken out with everything else that waits, and the thread leaves.
 *
 * Cancelling. The machine is told what a CANCEL frame of the caller would tell it. To pass that on
 * is the leader's: the session's timer is set to now. */
#include "rpc/server_admin.h"

#include <stdlib.h>
#include <string.h>

#include "rpc/json_text.h"
#include "rpc/server_internal.h"

/* --- who counts ------------------------------------------------------------------------------ */

/* There are at most `workers` and one serving threads. */
uint32_t sml_slot_of_committer(const struct semel_server *server)
{
    return server->workers + 1;
}

uint32_t sml_slot_of_taken(const struct semel_server *server)
{
    return server->workers + 2;
}

uint32_t sml_tally_slots(const struct semel_server *server)
{
    return server->workers + 3;
}

uint32_t sml_slot_take_locked(struct semel_server *server)
{
    for (uint32_t i = 0; i <= server->workers; i++) {
        uint64_t bit = UINT64_C(1) << i % 64;

        if (server->slots_taken[i / 64] & bit)
            continue;
        server->slots_taken[i / 64] |= bit;
        return i;
    }
    SML_ASSERT(false);
    return 0;
}

void sml_slot_give_back_locked(struct semel_server *server, uint32_t slot)
{
    server->slots_taken[slot / 64] &= ~(UINT64_C(1) << slot % 64);
}

struct sml_tally *sml_method_tally_create(struct sml_method *method, uint32_t slot)
{
    struct sml_tally *tally = calloc(1, sizeof *tally);

    atomic_store_explicit(&method->tallies[slot], tally, memory_order_release);
    return tally;
}

void sml_method_free(struct sml_method *method)
{
    for (uint32_t i = 0; i < method->tally_slots; i++)
        free(atomic_load(&method->tallies[i]));
    free(method);
}

/* --- who may --------------------------------------------------------------------------------- */

bool sml_admin_permits(const struct semel_request *request)
{
    const struct semel_server *server = request->server;
    const struct semel_peer *peer = &request->info->peer;
    enum sml_admin admin = request->method->admin;

    if (admin == SML_ADMIN_NOT ||
        (admin == SML_ADMIN_LOOKS && server->options.inspection == SEMEL_INSPECT_ALL))
        return true;
    return peer->has_ids && peer->uid == server->admin.uid;
}

/* --- the thread ------------------------------------------------------------------------------ */

void sml_admin_ask(struct semel_request *request)
{
    struct semel_server *server = request->server;
    bool full;

    sml_mutex_lock(&server->queue_lock);
    full = server->admin.count >= SML_ASKED_MAX;
    if (full) {
        sml_queue_count_refusal_locked(server, request);
    } else {
        server->admin.count++;
        request->place = SML_AT_ASKED;
        sml_list_push_back(&server->admin.asked, &request->link);
    }
    sml_mutex_unlock(&server->queue_lock);
    if (full) {
        sml_callee_refuse(&request->served->session->callee, request->in, server->busy_ms);
        sml_info_unref(request->info);
        sml_list_push_back(&server->stash, &request->link);
        return;
    }
    server->admin.rouse = true;
}

static void answer(struct semel_server *server, struct semel_request *request)
{
    struct sml_served *served = request->served;

    sml_mutex_lock(served->lock);
    if (sml_callee_begin(&served->session->callee, request->in, 0, sml_clock_now())) {
        request->place = SML_AT_WORK;
        sml_mutex_unlock(served->lock);
        request->method->handler(request, server);
        if (!request->finished)
            sml_request_abandoned(request);
    } else {
        sml_request_let_go(request);
    }
    sml_mutex_lock(&server->queue_lock);
    sml_request_settle_locked(request);
    sml_server_recycle_locked(server, request);
}

static void serve(void *arg)
{
    struct semel_server *server = arg;

    sml_mutex_lock(&server->queue_lock);
    while (!server->quit) {
        struct semel_request *request = sml_queue_first(&server->admin.asked);

        if (request == NULL) {
            sml_cond_wait(&server->changed, &server->queue_lock);
            continue;
        }
        sml_request_unqueue_locked(request);
        request->method->unfinished++;
        server->unfinished++;
        sml_mutex_unlock(&server->queue_lock);
        answer(server, request);
    }
    sml_mutex_unlock(&server->queue_lock);
}

/* There is no thread to be had: they end as not executed. */
static void turn_away(struct semel_server *server, enum semel_status why)
{
    struct sml_list asked, *node;

    sml_list_init(&asked);
    sml_mutex_lock(&server->queue_lock);
    server->admin.serving = false;
    server->admin.count = 0;
    sml_list_move_all(&asked, &server->admin.asked);
    for (node = asked.next; node != &asked; node = node->next)
        SML_CONTAINER(node, struct semel_request, link)->place = SML_AT_NOWHERE;
    sml_mutex_unlock(&server->queue_lock);
    while ((node = sml_list_pop_front(&asked)) != NULL) {
        struct semel_request *request = SML_CONTAINER(node, struct semel_request, link);
        struct sml_served *served = request->served;
        bool done;

        sml_mutex_lock(served->lock);
        sml_callee_reject(&served->session->callee, request->in, why,
                          "the server has no thread for it");
        sml_info_unref(request->info);
        if (served->conn)
            sml_conn_touch(served->conn);
        done = sml_served_done(served);
        sml_mutex_unlock(served->lock);
        sml_list_push_back(&server->stash, &request->link);
        if (done)
            sml_served_free(served);
    }
}

void sml_admin_rouse(struct semel_server *server)
{
    struct sml_admin_desk *desk = &server->admin;
    enum semel_status status;
    bool begin;

    if (!desk->rouse)
        return;
    desk->rouse = false;
    sml_mutex_lock(&server->queue_lock);
    begin = !desk->serving && !sml_list_empty(&desk->asked);
    desk->serving |= begin;
    sml_cond_broadcast(&server->changed);
    sml_mutex_unlock(&server->queue_lock);
    if (!begin)
        return;
    status = sml_thread_create(&desk->thread, "semel-admin", 0, serve, server);
    if (status != SEMEL_OK)
        turn_away(server, status);
}

void sml_admin_fini(struct semel_server *server)
{
    if (server->admin.serving)
        sml_thread_join(&server->admin.thread);
    server->admin.serving = false;
}

/* --- answers --------------------------------------------------------------------------------- */

/* A refusal has its status as the code. */
static void refuse(struct semel_request *request, enum semel_status status, const char *text)
{
    if (semel_request_fail(request, (int)status, text ? text : semel_status_text(status)) !=
        SEMEL_OK)
        semel_request_drop(request);
}

/* The answer leaves, and its memory is released. */
static void send(struct semel_request *request, struct sml_json *json)
{
    enum semel_status status = json->status;

    if (status == SEMEL_OK)
        status = semel_request_reply(request, json->data, json->size);
    if (status != SEMEL_OK)
        refuse(request, status, status == SEMEL_TOO_LARGE ? "the answer is too large" : NULL);
    sml_json_fini(json);
}

uint64_t sml_request_reply_max(const struct semel_request *request)
{
    uint64_t limit = request->server->body_bytes;

    return request->method->admin != SML_ADMIN_NOT && limit < SEMEL_BODY_BYTES ? SEMEL_BODY_BYTES
                                                                               : limit;
}

static void begin_answer(const struct semel_request *request, struct sml_json *json)
{
    sml_json_init(json, sml_request_reply_max(request));
    sml_json_open(json, NULL, '{');
}

uint32_t sml_admin_methods(struct semel_server *server,
                           const struct sml_method *methods[SML_METHODS_SHOWN])
{
    uint32_t count = 0;

    for (int i = 0; i < SML_METHOD_BUCKETS; i++) {
        const struct sml_method *m =
            atomic_load_explicit(&server->methods[i], memory_order_acquire);

        for (; m; m = m->next, count++)
            if (count < SML_METHODS_SHOWN)
                methods[count] = m;
    }
    return count;
}

static void put_method(struct sml_json *json, const struct sml_method *method)
{
    static const char *const kinds[] = { "once", "idempotent", "transactional" };
    static const char *const on_crash[] = { "unknown", "rerun", "resolve" };

    sml_json_text(json, "name", method->name);
    sml_json_text(json, "kind", kinds[method->kind]);
    if (method->kind == SEMEL_ONCE)
        sml_json_text(json, "on_crash", on_crash[method->on_crash]);
    if (method->limit > 0)
        sml_json_u64(json, "limit", method->limit);
    if (method->max_run > 0)
        sml_json_u64(json, "max_run_ms", method->max_run / SML_MS);
    sml_json_bool(json, "takes_items", method->takes_items);
    sml_json_bool(json, "gives_items", method->gives_items);
    sml_json_bool(json, "reserved", strncmp(method->name, "semel.", 6) == 0);
    if (method->describe[0] != '\0')
        sml_json_text(json, "describe", method->describe);
}

static void on_methods(struct semel_request *request, void *user)
{
    const struct sml_method *methods[SML_METHODS_SHOWN];
    struct semel_server *server = user;
    uint32_t count = sml_admin_methods(server, methods);
    uint32_t shown = count < SML_METHODS_SHOWN ? count : SML_METHODS_SHOWN;
    struct sml_json json;

    begin_answer(request, &json);
    sml_json_open(&json, "methods", '[');
    for (uint32_t i = 0; i < shown; i++) {
        sml_json_open(&json, NULL, '{');
        put_method(&json, methods[i]);
        sml_json_close(&json, '}');
    }
    sml_json_close(&json, ']');
    sml_json_u64(&json, "left_off", count - shown);
    sml_json_close(&json, '}');
    send(request, &json);
}

static void on_describe(struct semel_request *request, void *user)
{
    struct semel_server *server = user;
    struct semel_bytes name = semel_request_body(request);
    const struct sml_method *method = NULL;
    struct sml_json json;

    if (name.size > 0 && name.size <= SEMEL_METHOD_BYTES)
        method = sml_server_find_method(server, name.data, (uint8_t)name.size);
    if (method == NULL) {
        refuse(request, SEMEL_NO_METHOD, NULL);
        return;
    }
    begin_answer(request, &json);
    put_method(&json, method);
    sml_json_close(&json, '}');
    send(request, &json);
}

static void on_counters(struct semel_request *request, void *user)
{
    struct semel_server *server = user;
    struct sml_json json;

    begin_answer(request, &json);
    sml_admin_counters(server, &json);
    sml_json_close(&json, '}');
    send(request, &json);
}

static void on_calls(struct semel_request *request, void *user)
{
    struct semel_server *server = user;
    enum semel_status status;
    struct sml_json json;

    begin_answer(request, &json);
    status = sml_admin_calls(server, &json);
    sml_json_close(&json, '}');
    if (json.status == SEMEL_OK)
        json.status = status;
    send(request, &json);
}

/* --- cancelling ------------------------------------------------------------------------------ */

#define SESSION_DIGITS_MIN 4

/* "3f2a9c01.17", or with the whole of the session's id; and perhaps " force". */
struct which {
    char digits[2 * sizeof(struct sml_session_id) + 1];
    size_t digit_count;
    uint64_t xid;
    bool force;
};

static bool parse_which(struct semel_bytes body, struct which *out)
{
    char text[80], *end;
    size_t digits;

    if (body.size >= sizeof text)
        return false;
    if (body.size > 0)
        memcpy(text, body.data, body.size);
    text[body.size] = '\0';
    digits = strspn(text, "0123456789abcdef");
    if (digits < SESSION_DIGITS_MIN || digits >= sizeof out->digits || text[digits] != '.' ||
        text[digits + 1] < '0' || text[digits + 1] > '9')
        return false;
    memcpy(out->digits, text, digits);
    out->digit_count = digits;
    out->xid = strtoull(text + digits + 1, &end, 10);
    out->force = strcmp(end, " force") == 0;
    return *end == '\0' || out->force;
}

static bool fits(const struct sml_session *session, const struct which *which)
{
    char digits[2 * sizeof session->id.bytes + 1];
    struct sml_text text;

    sml_text_init(&text, digits, sizeof digits);
    sml_text_add_hex(&text, session->id.bytes, sizeof session->id.bytes);
    return memcmp(digits, which->digits, which->digit_count) == 0;
}

/* What became of it. */
struct cancelled {
    enum semel_status status; /* OK; else, what is wrong: */
    const char *why;
    struct sml_session_id session;
    bool running;
    bool forced; /* it was asked to stop; else it ends as not executed */
};

/* The leader passes it on; stripe held. */
static void tick_soon(struct sml_served *served)
{
    struct semel_server *server = served->server;
    uint64_t now = sml_clock_now();

    served->timer_at = now;
    sml_mutex_lock(&server->queue_lock);
    sml_heap_remove(&server->session_timers, &served->timer);
    sml_heap_insert(&server->session_timers, &served->timer, now);
    sml_server_nudge_locked(server);
    sml_mutex_unlock(&server->queue_lock);
}

/* Its handler is told, once more if it was before; if the method can do anything about it. */
static bool force_it(struct sml_callee *callee, struct sml_incoming *in)
{
    struct semel_request *request = in->user;

    if (!request->method->forcible)
        return false;
    atomic_store(&request->forced, true);
    if (atomic_load(&in->cancelled)) /* else the cancellation tells it */
        sml_callee_cancel_again(callee, in);
    return true;
}

/* Stripe held. False: the session has no such call. */
static bool cancel_in(struct sml_served *served, uint64_t xid, bool force, struct cancelled *out)
{
    struct sml_callee *callee = &served->session->callee;
    struct sml_incoming *in = served->ended ? NULL : sml_table_find(&callee->table, xid);
    struct sml_frame frame = { .type = SML_CANCEL, .xid = xid };
    const char *why = NULL;

    if (in == NULL)
        return false;
    out->session = served->session->id;
    out->running = in->phase == SML_IN_RUNNING;
    out->forced = force && !out->running;
    if (force && out->running && in->user)
        out->forced = force_it(callee, in);
    if (in->phase == SML_IN_DONE || in->phase == SML_IN_STORING) {
        out->status = SEMEL_ALREADY;
        out->why = "it has its verdict already";
        return true;
    }
    out->status = sml_callee_frame(callee, &frame, sml_clock_now(), &why);
    out->why = why;
    tick_soon(served);
    return true;
}

static bool has_call(const struct sml_served *served, uint64_t xid)
{
    bool has;

    sml_mutex_lock(served->lock);
    has = !served->ended && sml_table_find(&served->session->callee.table, xid) != NULL;
    sml_mutex_unlock(served->lock);
    return has;
}

static struct cancelled cancel(struct semel_server *server, const struct which *which)
{
    struct cancelled out = { .status = SEMEL_INVALID, .why = "there is no such call" };
    struct sml_served *found = NULL;
    uint32_t count = 0;

    sml_mutex_lock(&server->host_lock);
    for (struct sml_list *node = server->served.next; node != &server->served; node = node->next) {
        struct sml_served *served = SML_CONTAINER(node, struct sml_served, all);

        if (!fits(served->session, which) || !has_call(served, which->xid))
            continue;
        found = served;
        count++;
    }
    if (count == 1) {
        sml_mutex_lock(found->lock);
        (void)cancel_in(found, which->xid, which->force, &out);
        sml_mutex_unlock(found->lock);
    } else if (count > 1) {
        out.why = "several calls are meant by that: write more of the session";
    }
    sml_mutex_unlock(&server->host_lock);
    return out;
}

static void on_cancel(struct semel_request *request, void *user)
{
    struct semel_server *server = user;
    struct cancelled done;
    struct which which;
    struct sml_json json;

    if (!parse_which(semel_request_body(request), &which)) {
        refuse(request, SEMEL_INVALID, "which call is meant by SESSION.CALL, such as 3f2a9c01.17");
        return;
    }
    done = cancel(server, &which);
    if (done.status != SEMEL_OK) {
        refuse(request, done.status, done.why);
        return;
    }
    begin_answer(request, &json);
    sml_json_hex(&json, "session", done.session.bytes, sizeof done.session.bytes);
    sml_json_u64(&json, "call", which.xid);
    sml_json_text(&json, "became", done.running ? "asked to stop" : "not executed");
    if (which.force) {
        /* A thread cannot be ended without the process that it is in. */
        sml_json_bool(&json, "forced", done.forced);
        if (!done.forced)
            sml_json_text(&json, "why", "its handler runs inside the server's process");
    }
    sml_json_close(&json, '}');
    send(request, &json);
}

/* --- making ---------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum sml_admin admin;
    semel_handler_fn handler;
    const char *describe;
} reserved[] = {
    { "semel.methods", SML_ADMIN_LOOKS, on_methods, "What is exported here." },
    { "semel.describe", SML_ADMIN_LOOKS, on_describe, "One method; the body is its name." },
    { "semel.counters", SML_ADMIN_LOOKS, on_counters,
      "What was counted, how long calls took, and what the workers do." },
    { "semel.calls", SML_ADMIN_LOOKS, on_calls, "The calls that run or wait." },
    { "semel.cancel", SML_ADMIN_CONTROLS, on_cancel,
      "Cancel a call; the body is SESSION.CALL, and ' force' behind it." },
};

enum semel_status sml_admin_init(struct semel_server *server)
{
    enum semel_status status = SEMEL_OK;

    server->admin.uid = sml_process_uid();
    server->admin.created = sml_clock_now();
    if (server->options.inspection == SEMEL_INSPECT_NONE)
        return SEMEL_OK;
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved && status == SEMEL_OK; i++)
        status = sml_server_export_admin(server, reserved[i].name, reserved[i].admin,
                                         reserved[i].handler, reserved[i].describe);
    return status;
}
