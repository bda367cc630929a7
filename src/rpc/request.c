/* SPDX-License-Identifier: MIT */
/* request.c - a call as its handler sees it, and how it is finished, exactly once.
 *
 * Life. A record is filled by the leader when its call is complete, waits in the run queue, and
 * belongs to its handler from then on. Finishing it gives its verdict to the session's machine and
 * lets the machine's record go; the request's own memory lives until its handler has returned, so
 * that finishing twice is an error and not a crash. A taken request has two parties, the handler
 * and whoever finishes it; the later one frees it.
 *
 * Writing. A handler that runs on the leader leaves the reply to the leader, which writes all
 * replies of a round together; else the finishing thread takes the connection's pen. */
#include "rpc/server_internal.h"

#include <stdlib.h>
#include <string.h>

#include <semel/request.h>

#include "base/le.h"

/* --- looking --------------------------------------------------------------------------------- */

const char *semel_request_method(const struct semel_request *request)
{
    return request->in ? request->in->method : "";
}

struct semel_bytes semel_request_body(const struct semel_request *request)
{
    if (request->in == NULL)
        return semel_bytes(NULL, 0);
    return semel_bytes(request->in->body, (size_t)request->in->body_bytes);
}

const char *semel_request_content_type(const struct semel_request *request)
{
    return request->in ? request->in->content_type : "";
}

const struct semel_peer *semel_request_peer(const struct semel_request *request)
{
    static const struct semel_peer nobody = { "", false, 0, 0 };

    return request->in ? &request->info->peer : &nobody;
}

uint64_t semel_request_call(const struct semel_request *request)
{
    return request->in ? request->in->xid : 0;
}

const char *semel_request_idempotency_key(const struct semel_request *request)
{
    return request->in ? request->in->key : "";
}

/* Of a keyed call from its key; else from the session and number of its first submission. */
struct semel_key sml_request_key_of(const struct sml_served *served, const struct sml_incoming *in)
{
    struct sml_origin_call origin = in->origin;
    uint8_t name[sizeof origin.session.bytes + 8], hash[32];
    struct semel_key key;

    if (in->key_bytes > 0) {
        sml_record_key_hash(&served->session->principal, semel_bytes(in->method, in->method_bytes),
                            semel_bytes(in->key, in->key_bytes), hash);
    } else {
        if (!(in->flags & SML_CALL_ORIGIN))
            origin = (struct sml_origin_call){ served->session->id, in->xid };
        memcpy(name, origin.session.bytes, sizeof origin.session.bytes);
        sml_store64(name + sizeof origin.session.bytes, origin.xid);
        sml_sha256(name, sizeof name, hash);
    }
    memcpy(key.bytes, hash, sizeof key.bytes);
    return key;
}

struct semel_key semel_request_key(const struct semel_request *request)
{
    struct semel_key none = { { 0 } };

    if (request->in && request->away)
        return request->away->key(request);
    return request->in ? sml_request_key_of(request->served, request->in) : none;
}

bool semel_request_cancelled(const struct semel_request *request)
{
    return request->in && atomic_load_explicit(&request->in->cancelled, memory_order_relaxed);
}

bool semel_request_forced(const struct semel_request *request)
{
    return atomic_load(&request->forced);
}

bool semel_request_caller_left(const struct semel_request *request)
{
    return request->in && atomic_load_explicit(&request->in->gone, memory_order_relaxed);
}

int64_t semel_request_remaining_ms(const struct semel_request *request)
{
    if (request->in == NULL)
        return 0;
    if (request->in->deadline == SML_NEVER)
        return INT64_MAX;
    return (int64_t)sml_time_ms_until(request->in->deadline, sml_clock_now());
}

/* --- cancel callbacks ------------------------------------------------------------------------ */

/* Is this thread inside the request's callback? */
static bool tells_itself(const struct semel_request *request)
{
    struct semel_server *server = request->server;
    bool inside;

    if (!request->watched)
        return false;
    sml_mutex_lock(&server->queue_lock);
    inside = request->telling.value == sml_thread_self().value;
    sml_mutex_unlock(&server->queue_lock);
    return inside;
}

/* No callback begins after this, and none is running (on another thread). */
static void forget_callback(struct semel_request *request)
{
    struct semel_server *server = request->server;

    sml_mutex_lock(&server->queue_lock);
    request->cancel_fn = NULL;
    sml_list_remove(&request->cancel_link);
    while (request->telling.value != 0 && request->telling.value != sml_thread_self().value)
        sml_cond_wait(&server->changed, &server->queue_lock);
    sml_mutex_unlock(&server->queue_lock);
}

void sml_request_unwatch(struct semel_request *request)
{
    if (request->watched)
        forget_callback(request);
    request->watched = request->told = false;
}

void semel_request_on_cancel(struct semel_request *request, semel_cancelled_fn fn, void *user)
{
    struct semel_server *server = request->server;
    bool over = request->in == NULL || (request->txn && request->txn->said), now;

    if (request->away) {
        if (!over && request->away->is_mine(request))
            request->away->on_cancel(request, fn, user);
        return;
    }
    if (over || !sml_origin_is_mine(&server->origin))
        return;
    request->watched = true;
    if (fn == NULL) {
        forget_callback(request);
        return;
    }
    sml_mutex_lock(&server->queue_lock);
    request->cancel_fn = fn;
    request->cancel_user = user;
    now = !request->told && semel_request_cancelled(request);
    if (now) {
        request->told = true;
        request->telling = sml_thread_self();
        sml_list_remove(&request->cancel_link);
    }
    sml_mutex_unlock(&server->queue_lock);
    if (!now)
        return;
    fn(request, user);
    if (!sml_origin_is_mine(&server->origin))
        return;
    sml_mutex_lock(&server->queue_lock);
    request->telling.value = 0;
    sml_cond_broadcast(&server->changed); /* who finishes it may wait for this */
    sml_mutex_unlock(&server->queue_lock);
}

/* --- finishing ------------------------------------------------------------------------------- */

/* The parts of a verdict, still the caller's. */
struct parts {
    enum semel_outcome outcome;
    enum semel_status status;
    int code;
    struct semel_bytes body, text, detail, trace;
    struct sml_reply_receipt *receipt; /* NULL: nobody asks what becomes of it */
};

static uint8_t *put(uint8_t *at, struct semel_bytes *out_view, struct semel_bytes part)
{
    if (part.size == 0)
        return at;
    memcpy(at, part.data, part.size);
    *out_view = semel_bytes(at, part.size);
    return at + part.size;
}

/* Copy the parts into the machine's memory. */
static uint8_t *pack(struct sml_callee *callee, const struct parts *parts,
                     struct sml_verdict *out_verdict)
{
    size_t bytes = parts->body.size + parts->text.size + parts->detail.size + parts->trace.size;
    uint8_t *reply = sml_callee_reply_alloc(callee, bytes), *at = reply;

    if (reply == NULL)
        return NULL;
    memset(out_verdict, 0, sizeof *out_verdict);
    out_verdict->outcome = parts->outcome;
    out_verdict->status = parts->status;
    out_verdict->code = (int32_t)parts->code;
    at = put(at, &out_verdict->body, parts->body);
    at = put(at, &out_verdict->text, parts->text);
    at = put(at, &out_verdict->detail, parts->detail);
    put(at, &out_verdict->trace, parts->trace);
    return reply;
}

/* A taken request is out of its handler's hands: it is counted here, and freed by the later one. */
static void part_with(struct semel_request *request)
{
    struct semel_server *server = request->server;
    struct sml_worker *worker;
    bool spawn;

    sml_mutex_lock(&server->queue_lock);
    sml_method_tally(request->method, sml_slot_of_taken(server), request->outcome,
                     sml_clock_now() - request->arrived);
    sml_request_settle_locked(request);
    sml_queue_wake_committer_locked(server); /* the method's next call may start */
    worker = sml_server_kick_locked(server, &spawn);
    sml_mutex_unlock(&server->queue_lock);
    if (worker || spawn)
        sml_server_rouse(server, worker, spawn);
    if (atomic_fetch_sub(&request->parties, 1) == 1)
        free(request);
}

/* Stripe held, released on return. */
static void give_verdict(struct semel_request *request, const struct sml_verdict *verdict,
                         uint8_t *reply, struct sml_reply_receipt *receipt)
{
    struct sml_served *served = request->served;
    struct sml_callee *callee = &served->session->callee;
    struct sml_conn *conn = served->conn;
    bool done;

    if (request->runner && !request->runner->inlining)
        atomic_fetch_add(&request->server->answered, 1);
    if (receipt)
        sml_callee_ask_receipt(request->in, &receipt->receipt);
    (void)sml_callee_finish(callee, request->in, verdict, reply);
    if (receipt)
        sml_served_receipts(served);
    request->in = NULL;
    request->finished = true;
    sml_request_close_stream(request);
    request->outcome = verdict->outcome;
    sml_info_unref(request->info);
    sml_commit_touch(served);
    done = sml_served_done(served);
    if (conn && sml_peer_wants_write(&conn->peer) && !sml_conn_is_written_after(conn))
        sml_conn_write(conn);
    else
        sml_mutex_unlock(served->lock);
    if (done)
        sml_served_free(served);
}

/* Inside a transactional or resolve handler: it is the committer's to give. */
static enum semel_status say(struct semel_request *request, const struct parts *parts)
{
    struct sml_served *served = request->served;
    struct sml_txn *txn = request->txn;
    uint64_t takes;

    if (txn->said)
        return SEMEL_ALREADY;
    if (!sml_origin_is_mine(&request->server->origin))
        return SEMEL_FORKED;
    sml_mutex_lock(served->lock);
    takes = served->session->callee.reply_body_bytes;
    sml_mutex_unlock(served->lock);
    if (parts->body.size > request->server->body_bytes || parts->body.size > takes)
        return SEMEL_TOO_LARGE;
    if (tells_itself(request))
        return SEMEL_WOULD_DEADLOCK;
    txn->reply = pack(&served->session->callee, parts, &txn->verdict);
    if (txn->reply == NULL)
        return SEMEL_NO_MEMORY;
    if (request->watched)
        forget_callback(request);
    txn->said = true;
    return SEMEL_OK;
}

static enum semel_status finish_away(struct semel_request *request, const struct parts *parts)
{
    struct sml_verdict verdict = { .outcome = parts->outcome,
                                   .status = parts->status,
                                   .code = (int32_t)parts->code,
                                   .text = parts->text,
                                   .detail = parts->detail,
                                   .trace = parts->trace,
                                   .body = parts->body };

    return request->away->is_mine(request) ? request->away->finish(request, &verdict)
                                           : SEMEL_FORKED;
}

static enum semel_status finish(struct semel_request *request, const struct parts *parts)
{
    struct sml_served *served = request->served;
    struct sml_verdict verdict;
    uint8_t *reply;
    bool taken = request->taken;

    if (request->in == NULL)
        return SEMEL_ALREADY;
    if (request->away)
        return finish_away(request, parts);
    if (request->txn)
        return say(request, parts);
    if (!sml_origin_is_mine(&request->server->origin))
        return SEMEL_FORKED;
    if (parts->body.size > sml_request_reply_max(request))
        return SEMEL_TOO_LARGE;
    reply = pack(&served->session->callee, parts, &verdict);
    if (reply == NULL)
        return SEMEL_NO_MEMORY;
    if (tells_itself(request)) {
        sml_release(&sml_mem_libc, reply);
        return SEMEL_WOULD_DEADLOCK;
    }
    sml_mutex_lock(served->lock);
    if (parts->body.size > served->session->callee.reply_body_bytes) {
        sml_mutex_unlock(served->lock);
        sml_release(&sml_mem_libc, reply);
        return SEMEL_TOO_LARGE;
    }
    if (request->watched) {
        sml_mutex_unlock(served->lock);
        forget_callback(request);
        sml_mutex_lock(served->lock);
    }
    give_verdict(request, &verdict, reply, parts->receipt);
    if (taken)
        part_with(request);
    return SEMEL_OK;
}

enum semel_status semel_request_reply(struct semel_request *request, const void *data, size_t size)
{
    struct parts parts = { .outcome = SEMEL_VALUE, .status = SEMEL_OK };

    if (request == NULL || (data == NULL && size > 0))
        return SEMEL_INVALID;
    parts.body = semel_bytes(data, size);
    return finish(request, &parts);
}

enum semel_status sml_request_reply_with_receipt(struct semel_request *request, const void *data,
                                                 size_t size, struct sml_reply_receipt *receipt)
{
    struct parts parts = { .outcome = SEMEL_VALUE, .status = SEMEL_OK, .receipt = receipt };

    SML_ASSERT(request->txn == NULL);
    parts.body = semel_bytes(data, size);
    return finish(request, &parts);
}

/* At most `max` bytes, never in the middle of a UTF-8 sequence. */
static struct semel_bytes cut(const char *text, size_t max)
{
    size_t size = text ? strnlen(text, max + 1) : 0;

    if (size > max)
        for (size = max; size > 0 && ((uint8_t)text[size] & 0xc0) == 0x80; size--)
            continue;
    return semel_bytes(text, size);
}

enum semel_status semel_request_fail_with(struct semel_request *request, int code, const char *text,
                                          struct semel_bytes detail, const char *trace)
{
    struct parts parts = { .outcome = SEMEL_FAILURE, .status = SEMEL_FAILED, .code = code };

    if (request == NULL || (detail.data == NULL && detail.size > 0))
        return SEMEL_INVALID;
    if (request->in == NULL)
        return SEMEL_ALREADY;
    if (detail.size > SEMEL_DETAIL_BYTES)
        return SEMEL_TOO_LARGE;
    parts.text = cut(text, SEMEL_TEXT_BYTES);
    parts.detail = detail;
    parts.trace = cut(trace, SEMEL_TRACE_BYTES);
    return finish(request, &parts);
}

enum semel_status semel_request_fail(struct semel_request *request, int code, const char *text)
{
    return semel_request_fail_with(request, code, text, semel_bytes(NULL, 0), NULL);
}

enum semel_status semel_request_never_ran(struct semel_request *request, const char *text)
{
    struct parts parts = { .outcome = SEMEL_NOT_EXECUTED, .status = SEMEL_SERVER_DIED };

    if (request == NULL || request->txn == NULL || !request->txn->resolving)
        return SEMEL_INVALID;
    parts.text = cut(text ? text : "the server died before it had begun", SEMEL_TEXT_BYTES);
    return finish(request, &parts);
}

/* What a caller's own connection says, or its client: from a handler it would be taken for that. A
 * pool would even think ill of the worker that passes it on. */
static bool is_of_a_connection(enum semel_status status)
{
    enum semel_category category = semel_status_category(status);

    return category == SEMEL_CATEGORY_LINK || category == SEMEL_CATEGORY_PROTOCOL ||
           status == SEMEL_STOPPED;
}

enum semel_status semel_request_not_executed(struct semel_request *request,
                                             enum semel_status status, const char *text)
{
    struct parts parts = { .outcome = SEMEL_NOT_EXECUTED, .status = status };

    if (request == NULL || request->txn != NULL || status == SEMEL_OK || status == SEMEL_FAILED ||
        semel_status_name(status)[0] == '?' || is_of_a_connection(status))
        return SEMEL_INVALID;
    parts.text = cut(text, SEMEL_TEXT_BYTES);
    return finish(request, &parts);
}

/* --- not finishing ---------------------------------------------------------------------------- */

void semel_request_take(struct semel_request *request)
{
    if (request->away && !request->taken && request->in)
        request->away->take(request);
    if (request->taken || request->runner == NULL || request->in == NULL)
        return;
    request->taken = true;
    atomic_store(&request->parties, 2);
    request->runner->took = true;
    request->runner = NULL;
}

/* Always finishes, if need be without words. */
static void finish_unknown(struct semel_request *request, enum semel_status status, const char *why)
{
    struct sml_served *served = request->served;
    struct parts parts = { .outcome = SEMEL_UNKNOWN, .status = status };
    struct sml_verdict verdict = { .outcome = SEMEL_UNKNOWN, .status = status };
    bool taken = request->taken;
    struct sml_words words;
    uint8_t *reply;

    if (request->in && request->away) {
        parts.text = cut(why, SEMEL_TEXT_BYTES);
        (void)finish_away(request, &parts);
        return;
    }
    if (request->in == NULL || request->txn || !sml_origin_is_mine(&request->server->origin))
        return; /* a transaction that is dropped is undone when its handler returns */
    if (tells_itself(request))
        return;
    if (request->watched)
        forget_callback(request);
    sml_request_words(request, why, &words);
    sml_server_log(request->server, SEMEL_LOG_WARNING, "%s", words.text);
    parts.text = cut(why, SEMEL_TEXT_BYTES); /* the caller's side names the call */
    reply = pack(&served->session->callee, &parts, &verdict);
    sml_mutex_lock(served->lock);
    give_verdict(request, &verdict, reply, NULL);
    if (taken)
        part_with(request);
}

void sml_request_abandoned(struct semel_request *request)
{
    finish_unknown(request, SEMEL_DROPPED, "its handler returned without finishing it");
}

void semel_request_drop(struct semel_request *request)
{
    finish_unknown(request, SEMEL_DROPPED, "its handler dropped it");
}

void semel_request_died(struct semel_request *request, const char *text)
{
    finish_unknown(request, SEMEL_HANDLER_DIED, text ? text : "what ran its handler died");
}
