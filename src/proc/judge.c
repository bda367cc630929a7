/* SPDX-License-Identifier: MIT */
/* judge.c - what the end of a worker means for a call that it had.
 *
 * The client says *unknown* as soon as its connection is gone: for all it knows, the call was sent.
 * The pool knows more, since it keeps the worker's end of the socket, too. When the process and its
 * group are dead, the inquest shuts that end, reads what is left in it, and so knows how many bytes
 * had been read at most. A call was given to the client when so many bytes had been sent (its
 * mark): if no more than these were read, not a byte of the call was, and it is certain that it did
 * not run. Errors are on the safe side: a mark is too low if another thread was writing; what a
 * process left behind reads while it is dying counts as read.
 *
 * Whatever else had been sent is unknown, unless the caller said that it may run again. */
#include "proc/pool_internal.h"

#include <stdio.h>
#include <string.h>

#include "os/futex.h"
#include "rpc/result.h"

/* The connection explains this end, not the handler or the caller. */
static bool is_of_the_link(const struct semel_result *result)
{
    enum semel_category category = semel_status_category(result->status);

    return category == SEMEL_CATEGORY_LINK || category == SEMEL_CATEGORY_PROTOCOL;
}

static bool is_connected(const struct sml_worker *worker)
{
    return semel_client_state(worker->client) == SEMEL_CLIENT_CONNECTED;
}

/* It refused what a worker takes: nobody else is to be sent there. */
static void spoil(struct sml_worker *worker, const struct semel_result *result)
{
    struct semel_pool *pool = worker->pool;
    char why[SEMEL_EPITAPH_BYTES];

    (void)snprintf(why, sizeof why, "refuses calls: %s", semel_status_text(result->status));
    sml_mutex_lock(&pool->lock);
    sml_worker_spoil_locked(worker, why);
    sml_mutex_unlock(&pool->lock);
    sml_wake_signal(&pool->wake);
}

/* Not executed, but not on account of the call. STOPPED is the client's own word if the pool is
 * being destroyed: then the next seat is refused. */
static bool belongs_elsewhere(const struct semel_result *result)
{
    return result->outcome == SEMEL_NOT_EXECUTED &&
           (is_of_the_link(result) || result->status == SEMEL_STOPPED) &&
           result->status != SEMEL_FALSE_RETRY;
}

/* "worker 4711 was killed by signal 9 (SIGKILL)" takes the place of what the link said. */
static void rewrite(struct sml_seat *seat, struct semel_result *result)
{
    struct sml_worker *worker = seat->worker;
    const char *method = result->method ? result->method : "";
    char words[2 * SEMEL_EPITAPH_BYTES + 64], peer[32];
    struct semel_result old = *result;
    struct sml_call call = {
        .method = method,
        .method_bytes = (uint8_t)strnlen(method, SEMEL_METHOD_BYTES),
        .xid = result->call,
        .verdict = { .outcome = SEMEL_UNKNOWN, .status = SEMEL_HANDLER_DIED },
    };

    (void)snprintf(peer, sizeof peer, "worker %d", (int)worker->pid);
    (void)snprintf(words, sizeof words, "process %d %s", (int)worker->pid, worker->epitaph);
    call.verdict.text = semel_bytes_text(words);
    sml_result_own(result, &call, peer, NULL, NULL);
    semel_result_clear(&old);
}

static enum sml_fate judge_dead(struct sml_seat *seat, struct semel_result *result, bool rerun_ok)
{
    if (seat->worker->bytes_read <= seat->mark)
        return SML_FATE_AGAIN;
    if (rerun_ok && ++seat->reruns <= SEMEL_POOL_RERUNS_MAX)
        return SML_FATE_RERUN;
    rewrite(seat, result);
    return SML_FATE_FINAL;
}

/* Nobody waits for it any more, but its handler may not have noticed. */
static bool may_still_run(const struct semel_result *result)
{
    return result->outcome == SEMEL_UNKNOWN &&
           (result->status == SEMEL_DEADLINE || result->status == SEMEL_CANCELLED ||
            result->status == SEMEL_MAX_RUN);
}

enum sml_fate sml_judge(struct sml_seat *seat, struct semel_result *result, bool rerun_ok)
{
    struct sml_worker *worker = seat->worker;

    seat->served = seat->abandoned = false;
    if (belongs_elsewhere(result)) {
        if (is_connected(worker))
            spoil(worker, result);
        else
            sml_seat_shun(seat);
        return SML_FATE_AGAIN;
    }
    if (result->outcome == SEMEL_UNKNOWN && is_of_the_link(result) && !is_connected(worker)) {
        if (atomic_load_explicit(&worker->buried, memory_order_acquire) == 0)
            return SML_FATE_DOUBTFUL;
        return judge_dead(seat, result, rerun_ok);
    }
    seat->served = true;
    seat->abandoned = may_still_run(result);
    return SML_FATE_FINAL;
}

enum sml_fate sml_judge_wait(struct sml_seat *seat, struct semel_result *result, bool rerun_ok)
{
    enum sml_fate fate = sml_judge(seat, result, rerun_ok);

    while (fate == SML_FATE_DOUBTFUL) {
        (void)sml_futex_wait(&seat->worker->buried, 0, SML_NEVER);
        fate = sml_judge(seat, result, rerun_ok);
    }
    return fate;
}
