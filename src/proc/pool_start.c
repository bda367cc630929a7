/* SPDX-License-Identifier: MIT */
/* pool_start.c - started calls ("jobs"): one allocation with copies of all that a call consists of,
 * so that it can be made again elsewhere.
 *
 * A job goes from stage to stage: it WAITS in line; it is AT a worker; it is DOUBTFUL, its worker
 * is dying and the keeper will decide; it has ENDED. Only one thread at a time moves it on: who
 * asks for its seat, then who is told of the seat, then who is told of the call's end, then the
 * keeper. A cancellation comes from any thread: it leaves its wish under the lock, and takes the
 * call's handle away to cancel it without. */
#include "proc/pool_internal.h"

#include <stdlib.h>
#include <string.h>

#include "rpc/client_seam.h"
#include "rpc/result.h"

static const struct semel_call_options no_options = SEMEL_CALL_OPTIONS_INIT;

struct semel_job {
    struct sml_seat seat; /* first */
    struct semel_pool *pool;
    _Atomic uint32_t refs;
    struct sml_list link; /* in pool->ended or pool->doubtful */
    uint64_t deadline;
    struct semel_call_options options; /* its pointers are to the copies below */
    const char *method;
    struct semel_bytes body;
    semel_done_fn done;
    void *user;
    struct semel_result result; /* of a doubtful one */

    /* Guarded by pool->lock, until it has ended. */
    struct semel_call *call; /* at a worker; NULL while nobody may cancel it */
    uint64_t tries;
    uint64_t ended_tries; /* the call of this try has ended */
    bool cancelled;
    _Atomic bool over;
    char bytes[];
};

static struct semel_job *job_of(struct sml_list *link)
{
    return SML_CONTAINER(link, struct semel_job, link);
}

/* --- the end ------------------------------------------------------------------------------ */

/* The seat is left already, or there was none. On one of the pool's own threads. The call is open
 * until `done` has returned, so the pool is there. */
static void complete(struct semel_job *job, struct semel_result *result)
{
    enum semel_outcome outcome = result->outcome;

    atomic_store_explicit(&job->over, true, memory_order_release);
    sml_thread_enter_loop(); /* a call that waits is refused */
    job->done(result, job->user);
    sml_thread_leave_loop();
    semel_result_clear(result);
    sml_seat_end(job->pool, &job->seat, outcome);
    semel_job_unref(job);
}

void sml_job_end(struct sml_list *link)
{
    struct semel_job *job = job_of(link);
    struct semel_result result;

    sml_result_refuse(&result, job->seat.status, job->method, "the pool",
                      job->seat.reruns > 0 ? "a worker had died with it before" : NULL);
    sml_seat_doubt(&job->seat, &result);
    complete(job, &result);
}

/* It ends without a worker, by the keeper: this thread may be anybody's. */
static void end_refused(struct semel_job *job, enum semel_status status)
{
    struct semel_pool *pool = job->pool;

    sml_mutex_lock(&pool->lock);
    job->seat.status = status;
    sml_list_push_back(&pool->ended, &job->link);
    sml_wake_signal(&pool->wake);
    sml_mutex_unlock(&pool->lock);
}

/* --- at a worker -------------------------------------------------------------------------- */

static void on_done(struct semel_result *result, void *user);

/* False: it was cancelled before. */
static bool begin_try(struct semel_job *job, uint64_t *out_try)
{
    bool cancelled;

    sml_mutex_lock(&job->pool->lock);
    cancelled = job->cancelled;
    *out_try = ++job->tries;
    sml_mutex_unlock(&job->pool->lock);
    return !cancelled;
}

/* The call is under way, or has ended meanwhile. Its handle is kept for a cancellation, or one has
 * come already. */
static void keep_handle(struct semel_job *job, uint64_t this_try, struct semel_call *call)
{
    bool cancel = false;

    sml_mutex_lock(&job->pool->lock);
    if (job->tries == this_try && job->ended_tries < this_try) {
        cancel = job->cancelled;
        if (!cancel) {
            job->call = call;
            call = NULL;
        }
    }
    sml_mutex_unlock(&job->pool->lock);
    if (cancel)
        semel_call_cancel(call);
    semel_call_unref(call);
}

/* The call could not be made, though it was found good before. */
static bool may_go_elsewhere(enum semel_status status)
{
    enum semel_category category = semel_status_category(status);

    return category == SEMEL_CATEGORY_LINK || category == SEMEL_CATEGORY_PROTOCOL ||
           status == SEMEL_STOPPED;
}

/* It has a seat. False: the worker did not take it, and the seat was left. */
static bool try_once(struct semel_job *job)
{
    struct semel_call_options passed = sml_pool_pass_on(&job->options, job->deadline, true);
    struct semel_call *call = NULL;
    enum semel_status status = SEMEL_CANCELLED;
    uint64_t this_try;

    if (begin_try(job, &this_try)) {
        sml_seat_mark(&job->seat);
        status = semel_client_start(sml_seat_client(&job->seat), job->method, job->body, &passed,
                                    on_done, job, &call);
    }
    if (status == SEMEL_OK) {
        keep_handle(job, this_try, call);
        return true;
    }
    job->seat.served = job->seat.abandoned = false;
    if (may_go_elsewhere(status))
        sml_seat_shun(&job->seat);
    sml_seat_leave(job->pool, &job->seat, false, SEMEL_UNKNOWN);
    if (may_go_elsewhere(status))
        return false;
    end_refused(job, status);
    return true;
}

static bool is_cancelled(struct semel_job *job)
{
    bool cancelled;

    sml_mutex_lock(&job->pool->lock);
    cancelled = job->cancelled;
    sml_mutex_unlock(&job->pool->lock);
    return cancelled;
}

/* For another worker; whoever asks holds a reference. False: it is in line, and not this thread's
 * any more. A cancellation that came just before found it nowhere. */
static bool ask_again(struct semel_job *job)
{
    if (sml_seat_ask(job->pool, &job->seat, job->deadline, true))
        return true;
    if (is_cancelled(job) && sml_seat_forget(job->pool, &job->seat))
        end_refused(job, SEMEL_CANCELLED);
    return false;
}

/* It has a seat, or was refused one: until it is at a worker, in line for another one, or refused
 * for good. */
static void on_granted(struct sml_seat *seat)
{
    struct semel_job *job = (struct semel_job *)seat;

    /* Its end may come, and its last reference go, while this thread is still at it. */
    atomic_fetch_add_explicit(&job->refs, 1, memory_order_relaxed);
    do {
        if (!seat->worker) {
            end_refused(job, seat->status);
            break;
        }
    } while (!try_once(job) && ask_again(job));
    semel_job_unref(job);
}

/* --- after a worker ----------------------------------------------------------------------- */

static void go_elsewhere(struct semel_job *job, enum sml_fate fate)
{
    struct semel_pool *pool = job->pool;

    if (is_cancelled(job)) { /* nobody wants it elsewhere */
        sml_seat_leave(pool, &job->seat, false, SEMEL_UNKNOWN);
        end_refused(job, SEMEL_CANCELLED);
        return;
    }
    sml_seat_count_again(pool, fate);
    sml_seat_leave(pool, &job->seat, false, SEMEL_UNKNOWN);
    atomic_fetch_add_explicit(&job->refs, 1, memory_order_relaxed);
    if (ask_again(job))
        on_granted(&job->seat);
    semel_job_unref(job);
}

/* Keep the result until the inquest. Without memory for its words there are none. */
static void wait_for_inquest(struct semel_job *job, struct semel_result *result)
{
    struct semel_pool *pool = job->pool;

    if (result != &job->result && semel_result_take(result, &job->result) != SEMEL_OK) {
        job->result = (struct semel_result){ .outcome = result->outcome,
                                             .status = result->status,
                                             .method = job->method,
                                             .call = result->call };
    }
    sml_mutex_lock(&pool->lock);
    sml_list_push_back(&pool->doubtful, &job->link);
    sml_wake_signal(&pool->wake);
    sml_mutex_unlock(&pool->lock);
}

static void settle(struct semel_job *job, struct semel_result *result)
{
    enum sml_fate fate = sml_judge(&job->seat, result, job->options.rerun_ok);

    if (fate == SML_FATE_DOUBTFUL) {
        wait_for_inquest(job, result);
    } else if (fate == SML_FATE_FINAL) {
        sml_seat_doubt(&job->seat, result);
        sml_seat_leave(job->pool, &job->seat, false, SEMEL_UNKNOWN);
        complete(job, result);
    } else {
        semel_result_clear(result);
        go_elsewhere(job, fate);
    }
}

static void on_done(struct semel_result *result, void *user)
{
    struct semel_job *job = user;
    struct semel_call *call;

    sml_mutex_lock(&job->pool->lock);
    call = job->call;
    job->call = NULL;
    job->ended_tries = job->tries;
    sml_mutex_unlock(&job->pool->lock);
    semel_call_unref(call);
    settle(job, result);
}

void sml_job_take_decidable(struct semel_pool *pool, struct sml_list *out)
{
    struct sml_list *node, *next;

    for (node = pool->doubtful.next; node != &pool->doubtful; node = next) {
        struct semel_job *job = job_of(node);

        next = node->next;
        if (atomic_load_explicit(&job->seat.worker->buried, memory_order_acquire) == 0)
            continue;
        sml_list_remove(node);
        sml_list_push_back(out, node);
    }
}

void sml_job_decide(struct sml_list *link)
{
    struct semel_job *job = job_of(link);

    settle(job, &job->result);
}

/* --- from the caller ---------------------------------------------------------------------- */

static char *put(char *at, const void *bytes, size_t size)
{
    if (size > 0)
        memcpy(at, bytes, size);
    return at + size;
}

static const char *put_text(char **at, const char *text)
{
    const char *copy = *at;

    if (!text)
        return NULL;
    *at = put(*at, text, strlen(text) + 1);
    return copy;
}

static size_t text_bytes(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

/* NULL: no memory. */
static struct semel_job *make_job(struct semel_pool *pool, const char *method,
                                  struct semel_bytes body, const struct semel_call_options *options)
{
    size_t names =
        text_bytes(method) + text_bytes(options->content_type) + text_bytes(options->key);
    struct semel_job *job = malloc(sizeof *job + names + (options->lent ? 0 : body.size));
    char *at;

    if (!job)
        return NULL;
    memset(job, 0, sizeof *job);
    sml_seat_init(&job->seat, on_granted);
    sml_list_init(&job->link);
    job->pool = pool;
    job->options = *options;
    job->deadline = sml_pool_deadline(pool, options);
    at = job->bytes;
    job->method = put_text(&at, method);
    job->options.content_type = put_text(&at, options->content_type);
    job->options.key = put_text(&at, options->key);
    job->body = body;
    if (!options->lent) {
        job->body.data = at;
        (void)put(at, body.data, body.size);
    }
    return job;
}

/* The first seat, or none. */
static enum semel_status launch(struct semel_job *job)
{
    enum semel_status status;

    if (!sml_seat_ask(job->pool, &job->seat, job->deadline, !job->options.refuse_when_full))
        return SEMEL_OK;
    status = job->seat.status;
    if (job->seat.worker || job->seat.open) {
        on_granted(&job->seat);
        return SEMEL_OK;
    }
    return status;
}

enum semel_status semel_pool_start(struct semel_pool *pool, const char *method,
                                   struct semel_bytes body,
                                   const struct semel_call_options *options, semel_done_fn done,
                                   void *user, struct semel_job **out_job)
{
    struct semel_job *job;
    enum semel_status status;

    if (!pool || !done)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&pool->origin))
        return SEMEL_FORKED;
    options = options ? options : &no_options;
    status = sml_client_check(method, body, options);
    if (status != SEMEL_OK)
        return status;
    job = make_job(pool, method, body, options);
    if (!job)
        return SEMEL_NO_MEMORY;
    job->done = done;
    job->user = user;
    /* The handle's reference exists before the completion can drop the other one. */
    atomic_init(&job->refs, out_job ? 2 : 1);
    status = launch(job);
    if (status != SEMEL_OK)
        free(job);
    else if (out_job)
        *out_job = job;
    return status;
}

void semel_job_cancel(struct semel_job *job)
{
    struct semel_pool *pool;
    struct semel_call *call;

    if (!job || atomic_load_explicit(&job->over, memory_order_acquire) ||
        !sml_origin_is_mine(&job->pool->origin))
        return;
    pool = job->pool;
    sml_mutex_lock(&pool->lock);
    job->cancelled = true;
    call = job->call;
    job->call = NULL;
    sml_mutex_unlock(&pool->lock);
    if (call) {
        semel_call_cancel(call);
        semel_call_unref(call);
    } else if (sml_seat_forget(pool, &job->seat)) {
        end_refused(job, SEMEL_CANCELLED);
    }
}

enum semel_status semel_job_kill(struct semel_job *job)
{
    struct semel_pool *pool;
    uint64_t worker = 0;

    if (!job)
        return SEMEL_INVALID;
    if (atomic_load_explicit(&job->over, memory_order_acquire))
        return SEMEL_ALREADY;
    pool = job->pool;
    if (!sml_origin_is_mine(&pool->origin))
        return SEMEL_FORKED;
    sml_mutex_lock(&pool->lock);
    if (job->tries > job->ended_tries && job->seat.worker)
        worker = job->seat.worker->id;
    sml_mutex_unlock(&pool->lock);
    return worker ? semel_pool_kill(pool, worker, true) : SEMEL_ALREADY;
}

void semel_job_unref(struct semel_job *job)
{
    if (job && atomic_fetch_sub_explicit(&job->refs, 1, memory_order_acq_rel) == 1)
        free(job);
}
