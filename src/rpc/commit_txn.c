/* SPDX-License-Identifier: MIT */
/* commit_txn.c - transactional handlers, run by the committer inside its transaction.
 *
 * Each runs between a savepoint and its release. A value keeps its work; everything else undoes it,
 * and what is recorded then is the failure, or nothing. When the transaction as a whole is lost, by
 * a handler that ended it or at its commit, all its calls run again, each in a transaction of its
 * own; the one whose own is lost again is the culprit and ends as not executed.
 *
 * While a handler runs, the page beside the store names its call. A call that was found there by
 * the next process runs in a transaction of its own; SEMEL_CRASHES_MAX times, then it is poisoned.
 */
#include <stdlib.h>
#include <string.h>

#include "os/clock.h"
#include "rpc/server_internal.h"

static _Thread_local bool in_transaction;

bool sml_in_transaction(void)
{
    return in_transaction;
}

/* The transaction's calls. */
struct transaction {
    struct semel_request *requests[SML_BATCH_CALLS]; /* in the order they ran */
    uint64_t rows[SML_BATCH_CALLS];                  /* of those that are decided */
    bool decided[SML_BATCH_CALLS];
    uint32_t count;
    bool
        overtaken; /* lost by a call that was interrupted, and has ended: the others are innocent */
};

/* --- ends of a request ------------------------------------------------------------------- */

/* The request is over; its call has been given to the machine. Stripe held. */
static void end_request(struct semel_request *request)
{
    struct semel_server *server = request->server;

    request->in = NULL;
    request->txn = NULL;
    sml_request_close_stream(request);
    sml_info_unref(request->info);
    sml_mutex_lock(&server->queue_lock);
    sml_request_settle_locked(request);
    sml_server_recycle_locked(server, request);
    sml_mutex_unlock(&server->queue_lock);
}

/* How its method did; before end_request, on the committer's thread. */
static void tally(const struct semel_request *request, enum semel_outcome outcome, uint64_t now)
{
    sml_method_tally(request->method, sml_slot_of_committer(request->server), outcome,
                     now - request->arrived);
}

/* Nothing of it is kept: its verdict is the machine's own, or not executed. `key_free`: nobody else
 * executed anything under its key either. */
static void end_undone(struct semel_request *request, bool key_free, enum semel_status status,
                       const char *text)
{
    struct sml_served *served = request->served;
    struct sml_callee *callee = &served->session->callee;
    struct sml_incoming *in = request->in;
    struct sml_verdict verdict = { .outcome = SEMEL_NOT_EXECUTED, .status = status };
    size_t bytes = strnlen(text, SEMEL_TEXT_BYTES);
    uint8_t *reply = sml_callee_reply_alloc(callee, bytes);

    if (reply) {
        memcpy(reply, text, bytes);
        verdict.text = semel_bytes(reply, bytes);
    }
    sml_mutex_lock(served->lock);
    in->proven = key_free && in->key_bytes > 0;
    (void)sml_callee_finish(callee, in, &verdict, reply);
    tally(request, SEMEL_NOT_EXECUTED, sml_clock_now());
    end_request(request);
    sml_commit_touch(served);
    sml_commit_write(served);
}

/* Another call with its key has not ended. */
static void end_busy(struct semel_request *request)
{
    struct sml_served *served = request->served;
    struct sml_callee *callee = &served->session->callee;

    sml_mutex_lock(served->lock);
    sml_mutex_lock(&request->server->queue_lock);
    sml_queue_count_refusal_locked(request->server, request);
    sml_mutex_unlock(&request->server->queue_lock);
    sml_callee_give_back(callee, request->in);
    sml_callee_refuse(callee, request->in, request->server->busy_ms);
    end_request(request);
    sml_commit_touch(served);
    sml_commit_write(served);
}

/* To the queue's head, or, if the server stops, to its callers, who come back with it. */
static void put_back(struct sml_commit *commit, struct semel_request *request)
{
    struct semel_server *server = commit->server;
    struct sml_served *served = request->served;
    bool queued;

    sml_mutex_lock(&server->queue_lock);
    queued = sml_queue_return_txn_locked(server, request);
    sml_mutex_unlock(&server->queue_lock);
    if (queued)
        return;
    sml_mutex_lock(served->lock);
    sml_callee_postpone_to_restart(&served->session->callee, request->in);
    end_request(request);
    sml_commit_touch(served);
    sml_commit_write(served);
}

/* It has no verdict, and its work is undone. */
static void give_back(struct sml_commit *commit, struct semel_request *request)
{
    struct sml_served *served = request->served;

    sml_mutex_lock(served->lock);
    sml_callee_give_back(&served->session->callee, request->in);
    sml_mutex_unlock(served->lock);
    put_back(commit, request);
}

/* --- running one ------------------------------------------------------------------------- */

static void mark(struct sml_commit *commit, const struct semel_request *request)
{
    const struct sml_incoming *in = request->in;
    struct sml_mark mark = { .session = request->served->session->id,
                             .xid = in->xid,
                             .fingerprint = in->fingerprint,
                             .crashes = in->crashes,
                             .method_bytes = in->method_bytes,
                             .key_bytes = in->key_bytes };

    memcpy(mark.method, in->method, in->method_bytes);
    memcpy(mark.key, in->key, in->key_bytes);
    commit->store->ops->mark(commit->store, &mark);
}

/* May it still run? Then it is RUNNING. Else the request is over, or waits with its session. */
static bool begin(struct semel_request *request, uint64_t now)
{
    struct sml_served *served = request->served;
    struct sml_callee *callee = &served->session->callee;

    sml_mutex_lock(served->lock);
    if (sml_served_is_stalled(served) && request->in->phase == SML_IN_TAKEN) {
        bool waits = sml_request_stall(request);

        sml_mutex_unlock(served->lock);
        if (!waits)
            sml_server_postpone(request);
        return false;
    }
    if (sml_callee_begin(callee, request->in, 0, now)) {
        request->place = SML_AT_WORK;
        sml_mutex_unlock(served->lock);
        return true;
    }
    end_request(request);
    sml_commit_touch(served);
    sml_commit_write(served);
    return false;
}

/* The verdict is in the transaction, and becomes the machine's when that is committed. */
static enum sml_stored decide(struct sml_commit *commit, struct transaction *t,
                              struct semel_request *request, const struct sml_verdict *verdict,
                              uint8_t *reply, bool answered, bool proven)
{
    struct sml_served *served = request->served;
    struct sml_session *session = served->session;
    struct sml_incoming *in = request->in;
    uint32_t at = t->count++;
    enum sml_stored stored;

    t->requests[at] = request;
    t->decided[at] = true;
    sml_mutex_lock(served->lock);
    in->answered = answered;
    in->proven = proven;
    sml_callee_decide(&session->callee, in, verdict, reply);
    sml_mutex_unlock(served->lock);
    stored = sml_commit_put_call(commit, session, in, SML_CALL_ENDED, &t->rows[at]);
    if (stored == SML_STORED && in->key_bytes > 0 && !answered)
        stored = sml_commit_put_key(commit, session, in, true);
    return stored;
}

/* Handlers are asked to stop because the server does. */
static bool stops(struct semel_server *server)
{
    bool closed;

    sml_mutex_lock(&server->queue_lock);
    closed = server->closed;
    sml_mutex_unlock(&server->queue_lock);
    return closed;
}

/* What a handler's end means beside what it said. OK: it stands. STOPPED: it is undone, and its
 * call goes on with the next server. */
static enum semel_status overtaken(const struct semel_request *request, const struct sml_txn *txn,
                                   uint64_t until)
{
    const struct sml_incoming *in = request->in;
    bool value = txn->said && txn->verdict.outcome == SEMEL_VALUE;
    uint64_t now = sml_clock_now();

    if (in->deadline <= now)
        return SEMEL_EXPIRED;
    if (atomic_load_explicit(&in->cancelled, memory_order_relaxed)) {
        if (!stops(request->server))
            return SEMEL_CANCELLED;
        /* Any other end may be due to that: its statements are interrupted. */
        return value ? SEMEL_OK : SEMEL_STOPPED;
    }
    return until <= now ? SEMEL_MAX_RUN : SEMEL_OK;
}

void sml_commit_watch(struct sml_commit *commit, uint64_t now)
{
    uint64_t since = atomic_load(&commit->handler_since);
    const struct sml_method *method = atomic_load(&commit->handler_method);

    if (since == 0 || now < since + SML_HOLDS_UP_NS || since == commit->handler_warned)
        return;
    /* It may have ended meanwhile, and another one have begun. */
    if (atomic_load(&commit->handler_since) != since)
        return;
    commit->handler_warned = since;
    sml_server_log(commit->server, SEMEL_LOG_WARNING,
                   "a transaction of \"%.*s\" has run for %d s: nothing else is stored meanwhile "
                   "(max_run_ms ends such calls)",
                   (int)method->name_bytes, method->name, (int)(SML_HOLDS_UP_NS / SML_SECOND));
}

/* Whoever begins a handler wakes nobody for this; but the leader has seen its call come. */
uint64_t sml_commit_watch_at_locked(const struct sml_commit *commit)
{
    uint64_t since = atomic_load(&commit->handler_since);
    const struct semel_server *server = commit->server;

    if (!sml_commit_is_durable(commit))
        return SML_NEVER;
    if (since != 0 && since != commit->handler_warned)
        return since + SML_HOLDS_UP_NS;
    return server->txn_count > 0 || server->unfinished > 0 ? sml_clock_now() + SML_HOLDS_UP_NS
                                                           : SML_NEVER;
}

static void call_handler(struct sml_commit *commit, struct semel_request *request)
{
    const struct sml_method *method = request->method;
    struct semel_server *server = commit->server;

    mark(commit, request);
    atomic_store(&commit->handler_method, method);
    atomic_store(&commit->handler_since, sml_clock_now());
    in_transaction = true;
    method->transaction(request, commit->store, method->user);
    in_transaction = false;
    atomic_store(&commit->handler_since, 0);
    if (!sml_origin_is_mine(&server->origin))
        sml_thread_vanish(); /* it forked, and this is the child */
    commit->store->ops->mark(commit->store, NULL);
    sml_request_unwatch(request);
    atomic_fetch_add_explicit(&commit->totals.transactions, 1, memory_order_relaxed);
    sml_mutex_lock(&server->queue_lock);
    server->calls_started++;
    sml_mutex_unlock(&server->queue_lock);
}

/* Why what it did was undone. */
static const char *words_of(enum semel_status over)
{
    switch (over) {
    case SEMEL_OK:
        return "its handler returned without finishing it";
    case SEMEL_EXPIRED: /* as a status it says that nothing began */
        return "its deadline passed while it ran, what it had done was undone";
    case SEMEL_CANCELLED: /* the caller may have done so for its deadline */
        return "it was cancelled while it ran, what it had done was undone";
    default:
        return semel_status_text(over);
    }
}

static enum sml_stored finish(struct sml_commit *commit, struct transaction *t,
                              struct semel_request *request, struct sml_txn *txn, uint64_t until)
{
    enum semel_status over = overtaken(request, txn, until);
    bool keep = over == SEMEL_OK && txn->said && txn->verdict.outcome == SEMEL_VALUE;
    enum sml_stored stored = commit->store->ops->unguard(commit->store, keep);

    if (!keep)
        atomic_fetch_add_explicit(&commit->totals.undone, 1, memory_order_relaxed);
    if (stored == SML_STORED && over == SEMEL_OK && txn->said)
        return decide(commit, t, request, &txn->verdict, txn->reply, false, false);
    sml_release(&sml_mem_libc, txn->reply);
    t->overtaken = stored == SML_NOT_STORED && over != SEMEL_OK;
    if (stored != SML_STORED && !t->overtaken)
        t->requests[t->count++] = request;
    else if (over == SEMEL_STOPPED)
        give_back(commit, request);
    else
        end_undone(request, true, over != SEMEL_OK ? over : SEMEL_DROPPED, words_of(over));
    return stored;
}

static enum sml_stored ask_key(struct sml_commit *commit, struct semel_request *request,
                               struct sml_key_answer *out)
{
    struct sml_served *served = request->served;
    enum sml_stored stored = sml_commit_ask_key(commit, served->session, request->in, out);

    sml_mutex_lock(served->lock);
    request->in->begun |= out->begun;
    sml_commit_fit_answer(&served->session->callee, out);
    sml_mutex_unlock(served->lock);
    return stored;
}

/* One call, in the transaction that is open. */
static enum sml_stored run(struct sml_commit *commit, struct transaction *t,
                           struct semel_request *request)
{
    uint64_t now = sml_clock_now(), until = SML_NEVER;
    struct sml_incoming *in = request->in;
    struct sml_txn txn = { .said = false };
    struct sml_key_answer key = { .state = SML_KEY_FREE };
    enum sml_stored stored = SML_STORED;

    if (!begin(request, now))
        return SML_STORED;
    if (in->key_bytes > 0)
        stored = ask_key(commit, request, &key);
    if (stored == SML_STORED && key.state == SML_KEY_ANSWERED)
        return decide(commit, t, request, &key.verdict, key.reply, true, key.proven);
    if (stored == SML_STORED && key.state == SML_KEY_BUSY) {
        end_busy(request);
        return SML_STORED;
    }
    if (request->method->max_run > 0)
        until = sml_time_add(now, request->method->max_run);
    if (stored == SML_STORED)
        stored = commit->store->ops->guard(commit->store, sml_time_min(until, in->deadline),
                                           &in->cancelled);
    if (stored != SML_STORED) {
        t->requests[t->count++] = request;
        return stored;
    }
    request->txn = &txn;
    call_handler(commit, request);
    request->txn = NULL;
    return finish(commit, t, request, &txn, until);
}

/* --- the transaction's end --------------------------------------------------------------- */

/* Decided calls get their verdicts, and replies leave: once for each session in a row. */
static void tell(struct sml_commit *commit, struct transaction *t)
{
    uint64_t now = sml_clock_now();

    atomic_fetch_add_explicit(&commit->totals.recorded, t->count, memory_order_relaxed);
    for (uint32_t i = 0; i < t->count;) {
        struct sml_served *served = t->requests[i]->served;

        sml_mutex_lock(served->lock);
        for (; i < t->count && t->requests[i]->served == served; i++) {
            struct sml_change change = { SML_CHANGE_END, t->requests[i]->in };

            tally(t->requests[i], t->requests[i]->in->verdict.outcome, now);
            sml_callee_recorded(&served->session->callee, &change, t->rows[i], true);
            end_request(t->requests[i]);
        }
        sml_served_retime(served);
        sml_commit_touch(served);
        sml_commit_write(served);
    }
}

/* Innocent ones come next, and are committed before any other call begins: it may be interrupted,
 * too. If one of themselves was, this time, each of the rest runs alone. */
static void take_back(struct sml_commit *commit, struct transaction *t, bool alone)
{
    for (uint32_t i = t->count; i-- > 0;) {
        struct semel_request *request = t->requests[i];
        struct sml_served *served = request->served;

        request->alone |= alone || (t->overtaken && request->again);
        request->again |= t->overtaken;
        if (!t->decided[i]) {
            give_back(commit, request);
            continue;
        }
        sml_mutex_lock(served->lock);
        sml_callee_retry(&served->session->callee, request->in);
        sml_mutex_unlock(served->lock);
        put_back(commit, request);
    }
}

/* Nothing is said of them any more: they stay as they are until the end. */
static void leave_in_limbo(struct sml_commit *commit, struct transaction *t)
{
    for (uint32_t i = 0; i < t->count; i++) {
        struct semel_request *request = t->requests[i];
        struct sml_served *served = request->served;

        commit->limbo[commit->limbo_count++] =
            (struct sml_limbo){ served, request->in, t->decided[i] };
        sml_mutex_lock(served->lock);
        request->in->user = NULL; /* it is the machine's still; the request is another call's */
        end_request(request);
        sml_mutex_unlock(served->lock);
    }
}

/* The one call of a transaction that is lost every time. */
static void convict(struct sml_commit *commit, struct transaction *t)
{
    struct semel_request *request = t->requests[0];
    struct sml_served *served = request->served;
    struct sml_callee *callee = &served->session->callee;
    bool answered = t->decided[0] && request->in->answered;
    struct sml_words words;

    sml_mutex_lock(served->lock);
    if (t->decided[0]) {
        sml_callee_retry(callee, request->in);
        if (!sml_callee_begin(callee, request->in, 0, 0)) {
            end_request(request);
            sml_commit_touch(served);
            sml_commit_write(served);
            return;
        }
    }
    sml_request_words(request, commit->store->text, &words);
    sml_mutex_unlock(served->lock);
    sml_server_log(commit->server, SEMEL_LOG_WARNING, "rolled back: %s", words.text);
    atomic_fetch_add_explicit(&commit->totals.undone, 1, memory_order_relaxed);
    end_undone(request, !answered, SEMEL_ROLLED_BACK, commit->store->text);
}

/* Does the store take nothing from anybody now? */
static bool is_blocked(const struct sml_commit *commit)
{
    switch (commit->store->status) {
    case SEMEL_STORE_FULL:
    case SEMEL_STORE_LOCKED:
    case SEMEL_STORE_READ_ONLY:
    case SEMEL_NO_MEMORY:
        return true;
    default:
        return false;
    }
}

static void lose(struct sml_commit *commit, struct transaction *t, enum sml_stored stored)
{
    if (stored == SML_STORE_UNKNOWN) {
        sml_commit_trouble(commit, stored);
        leave_in_limbo(commit, t);
    } else if (t->overtaken) {
        take_back(commit, t, false);
    } else if (t->count == 0 || is_blocked(commit)) {
        sml_commit_trouble(commit, stored);
        take_back(commit, t, false);
    } else if (t->count == 1 && t->requests[0]->alone) {
        convict(commit, t);
    } else {
        sml_server_log(commit->server, SEMEL_LOG_INFO,
                       "a transaction of %u calls is lost, they run again one by one: %s",
                       (unsigned)t->count, commit->store->text);
        take_back(commit, t, true);
    }
}

/* --- a transaction ----------------------------------------------------------------------- */

static struct semel_request *next(struct sml_commit *commit)
{
    struct semel_server *server = commit->server;
    struct semel_request *request;

    sml_mutex_lock(&server->queue_lock);
    request = sml_queue_take_txn_locked(server);
    sml_mutex_unlock(&server->queue_lock);
    if (request && request->in->crashes > 0)
        request->alone = true;
    return request;
}

/* Those that an interrupted call has cost their transaction are committed before others begin. */
static bool fits(const struct semel_request *request, bool again)
{
    return !request->alone && request->again == again;
}

/* Run calls until there are enough, the time is over, or one wants to be alone. */
static enum sml_stored run_some(struct sml_commit *commit, struct transaction *t,
                                struct semel_request *request)
{
    uint64_t until = sml_clock_now() + SML_BATCH_NS;
    enum sml_stored stored = SML_STORED;
    bool alone = request->alone, again = request->again;
    uint32_t ran = 0;

    while (stored == SML_STORED) {
        stored = run(commit, t, request);
        if (stored != SML_STORED || alone || ++ran == SML_BATCH_CALLS || sml_clock_now() >= until)
            break;
        request = next(commit);
        if (request == NULL)
            break;
        if (!fits(request, again)) {
            put_back(commit, request);
            break;
        }
    }
    return stored;
}

bool sml_commit_transactions(struct sml_commit *commit, bool all)
{
    struct semel_request *first = next(commit);
    struct transaction t = { .count = 0 };
    enum sml_stored stored;

    if (first == NULL)
        return false;
    sml_commit_collect(commit, all);
    stored = commit->store->ops->begin(commit->store);
    if (stored == SML_STORED)
        stored = sml_commit_apply_changes(commit);
    if (stored == SML_STORED)
        stored = run_some(commit, &t, first);
    else
        put_back(commit, first);
    if (stored == SML_STORED)
        stored = sml_commit_end(commit, t.count > 0 || sml_commit_wrote(commit));
    if (stored != SML_STORE_UNKNOWN)
        sml_commit_answer(commit, stored == SML_STORED);
    if (stored == SML_STORED)
        tell(commit, &t);
    else
        lose(commit, &t, stored);
    return true;
}
