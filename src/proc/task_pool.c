/* SPDX-License-Identifier: MIT */
/* task_pool.c - tasks in worker processes: each has a seat at a worker, and a stream of its client.
 *
 * A run goes from stage to stage, always on the executor's thread. Others only tell it that it may
 * go on: a seat was granted or refused, the inquest of a dying worker is over, the stream has
 * something. Of the first two it hears by `news`; `left` says that whoever told it has no more to
 * do with it, so that the run can be asked for again, or freed.
 *
 * What the end of a worker means is judged in judge.c. A task that was cancelled or killed does not
 * run again, wherever that would be right. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "os/futex.h"
#include "proc/pool_internal.h"
#include "proc/task_backend.h"
#include "proc/task_tap.h"
#include "rpc/client_seam.h"
#include "rpc/result.h"

struct pool_backend {
    struct sml_backend backend; /* first */
    struct semel_pool *pool;
    bool owned;
    struct sml_taps taps;
};

enum stage { IN_LINE, AT_WORKER, DOUBTFUL, OVER };

struct pool_run {
    struct sml_run run; /* first */
    struct semel_pool *pool;
    struct sml_taps *taps;
    struct sml_seat seat;
    enum stage stage;
    _Atomic uint32_t news, left; /* of IN_LINE and DOUBTFUL; `left` is 2 while it is slept on */
    struct semel_stream *stream; /* AT_WORKER */
    struct sml_tap *tap;         /* the same; NULL: the I/O thread reads */
    struct semel_result result;  /* DOUBTFUL, and OVER until it is taken */
    uint64_t deadline;
    int pid;
    bool cancelled, killed;
    bool told;        /* something of this attempt was handed out */
    bool restart_due; /* that it was void is to be told */
    bool lost;        /* items are missing at its end */
    void (*stir)(void *user);
    void *user;
    struct semel_call_options call;
    const char *method;
    struct semel_bytes body;
    char bytes[]; /* what these point to */
};

/* --- what others tell ------------------------------------------------------------------------- */

static void on_told(struct sml_seat *seat)
{
    struct pool_run *it = SML_CONTAINER(seat, struct pool_run, seat);

    atomic_store_explicit(&it->news, 1, memory_order_release);
    it->stir(it->user);
    if (atomic_exchange_explicit(&it->left, 1, memory_order_acq_rel) == 2)
        sml_futex_wake(&it->left, 1); /* it may be gone: the address is all that is used */
}

static void on_ready(struct semel_stream *stream, void *user)
{
    struct pool_run *it = user;

    (void)stream;
    it->stir(it->user);
}

static void expect_news(struct pool_run *it)
{
    atomic_store_explicit(&it->news, 0, memory_order_relaxed);
    atomic_store_explicit(&it->left, 0, memory_order_relaxed);
}

static void wait_left(struct pool_run *it)
{
    uint32_t left = 0;

    if (!atomic_compare_exchange_strong_explicit(&it->left, &left, 2, memory_order_acq_rel,
                                                 memory_order_acquire))
        return;
    while (atomic_load_explicit(&it->left, memory_order_acquire) != 1)
        (void)sml_futex_wait(&it->left, 2, SML_NEVER);
}

/* False: there are none. */
static bool take_news(struct pool_run *it)
{
    if (atomic_load_explicit(&it->news, memory_order_acquire) == 0)
        return false;
    wait_left(it);
    return true;
}

/* --- the end ---------------------------------------------------------------------------------- */

/* It has no seat, and gets none. */
static void refuse(struct pool_run *it, enum semel_status status, const char *why)
{
    if (why == NULL && it->seat.reruns > 0)
        why = "a worker had died with it before";
    sml_result_refuse(&it->result, status, it->method, "the pool", why);
    sml_seat_doubt(&it->seat, &it->result);
    it->stage = OVER;
    sml_seat_end(it->pool, &it->seat, it->result.outcome);
}

/* --- at a worker ------------------------------------------------------------------------------ */

static bool is_of_the_worker(enum semel_status status)
{
    enum semel_category category = semel_status_category(status);

    return category == SEMEL_CATEGORY_LINK || category == SEMEL_CATEGORY_PROTOCOL ||
           status == SEMEL_STOPPED;
}

static enum semel_status begin_stream(struct pool_run *it)
{
    struct semel_call_options passed = sml_pool_pass_on(&it->call, it->deadline, false);
    struct semel_stream_options options = { .takes = true, .on_ready = on_ready, .user = it };
    struct semel_client *client = sml_seat_client(&it->seat);
    enum semel_status status;
    bool lent = false;

    it->tap = sml_tap_enter(it->taps, it->seat.worker->id, client);
    sml_seat_mark(&it->seat);
    if (it->tap == NULL)
        return semel_client_stream(client, it->method, it->body, &passed, &options, &it->stream);
    status = sml_client_stream_on_loop(client, it->method, it->body, &passed, &options, &it->stream,
                                       &lent);
    if (status != SEMEL_OK)
        sml_tap_leave(it->tap);
    else if (lent)
        sml_tap_watch(it->tap);
    return status;
}

/* It has a seat. False: the worker did not take it, and the seat was left. */
static bool begin(struct pool_run *it)
{
    enum semel_status status = it->cancelled ? SEMEL_CANCELLED : begin_stream(it);

    if (status == SEMEL_OK) {
        it->stage = AT_WORKER;
        it->pid = it->seat.worker->pid;
        it->told = false;
        return true;
    }
    it->seat.served = it->seat.abandoned = false;
    if (is_of_the_worker(status))
        sml_seat_shun(&it->seat);
    sml_seat_leave(it->pool, &it->seat, false, SEMEL_UNKNOWN);
    if (is_of_the_worker(status))
        return false;
    refuse(it, status, NULL);
    return true;
}

/* True: it is decided whether there is a seat. */
static bool ask(struct pool_run *it)
{
    expect_news(it);
    it->stage = IN_LINE;
    return sml_seat_ask(it->pool, &it->seat, it->deadline, true);
}

/* That is decided: until it is at a worker, in line for another one, or over. */
static void be_seated(struct pool_run *it)
{
    do {
        if (it->seat.worker == NULL) {
            refuse(it, it->seat.status, NULL);
            return;
        }
        if (begin(it))
            return;
    } while (ask(it));
}

/* --- after a worker --------------------------------------------------------------------------- */

/* What is known of the worker's end. One that took nothing need not have ended yet. */
static void say_end(const struct pool_run *it, char *out, size_t room)
{
    struct sml_worker *worker = it->seat.worker;
    bool buried = atomic_load_explicit(&worker->buried, memory_order_acquire) != 0;

    (void)snprintf(out, room, "process %d %s", it->pid,
                   buried ? worker->epitaph : "ended without having received it");
}

static void go_elsewhere(struct pool_run *it, enum sml_fate fate)
{
    char why[SEMEL_EPITAPH_BYTES + 64];

    say_end(it, why, sizeof why);
    semel_result_clear(&it->result);
    sml_seat_leave(it->pool, &it->seat, false, SEMEL_UNKNOWN);
    if (it->cancelled || it->killed) {
        refuse(it, it->cancelled ? SEMEL_CANCELLED : SEMEL_HANDLER_DIED, why);
        return;
    }
    sml_seat_count_again(it->pool, fate);
    it->restart_due = it->restart_due || it->told;
    it->lost = false;
    if (ask(it))
        be_seated(it);
}

static void settle(struct pool_run *it)
{
    bool may_rerun = it->call.rerun_ok && !it->cancelled && !it->killed;
    enum sml_fate fate = sml_judge(&it->seat, &it->result, may_rerun);

    if (fate == SML_FATE_DOUBTFUL) {
        it->stage = DOUBTFUL;
        expect_news(it);
        sml_seat_await_inquest(it->pool, &it->seat, on_told);
    } else if (fate == SML_FATE_FINAL) {
        it->stage = OVER;
        sml_seat_doubt(&it->seat, &it->result);
        sml_seat_leave(it->pool, &it->seat, true, it->result.outcome);
    } else {
        go_elsewhere(it, fate);
    }
}

static void free_stream(struct pool_run *it)
{
    semel_stream_free(it->stream);
    it->stream = NULL;
    if (it->tap)
        sml_tap_leave(it->tap);
    it->tap = NULL;
}

static void end_stream(struct pool_run *it, enum semel_status how)
{
    enum semel_status status = semel_stream_result(it->stream, 0, &it->result);

    SML_ASSERT(status == SEMEL_OK); /* it has ended, and nobody else took it */
    it->lost = it->lost || how == SEMEL_PARTS_LOST;
    free_stream(it);
    settle(it);
}

/* --- as a run --------------------------------------------------------------------------------- */

static bool take_restart(struct pool_run *it, struct semel_item *out_item)
{
    if (!it->restart_due || it->stage != AT_WORKER)
        return false;
    it->restart_due = false;
    out_item->kind = SEMEL_ITEM_RESTARTED;
    out_item->bytes = semel_bytes(NULL, 0);
    return true;
}

static enum semel_status pool_next(struct sml_run *run, struct semel_item *out_item)
{
    struct pool_run *it = (struct pool_run *)run;
    enum semel_status status;

    for (;;) {
        if (it->stage == OVER)
            return it->lost ? SEMEL_PARTS_LOST : SEMEL_END;
        if (it->stage == AT_WORKER) {
            if (take_restart(it, out_item))
                return SEMEL_OK;
            status = semel_stream_next(it->stream, 0, out_item);
            it->told = it->told || status == SEMEL_OK;
            if (status == SEMEL_END || status == SEMEL_PARTS_LOST)
                end_stream(it, status);
            else if (status == SEMEL_TOO_LARGE)
                it->lost = true; /* the others come */
            else
                return status;
        } else if (!take_news(it)) {
            return SEMEL_WOULD_BLOCK;
        } else if (it->stage == IN_LINE) {
            be_seated(it);
        } else {
            settle(it);
        }
    }
}

static void pool_result(struct sml_run *run, struct semel_result *out_result)
{
    struct pool_run *it = (struct pool_run *)run;

    *out_result = it->result;
    memset(&it->result, 0, sizeof it->result);
}

static void pool_cancel(struct sml_run *run)
{
    struct pool_run *it = (struct pool_run *)run;

    it->cancelled = true;
    if (it->stage == AT_WORKER) {
        semel_stream_cancel(it->stream);
    } else if (it->stage == IN_LINE && sml_seat_forget(it->pool, &it->seat)) {
        refuse(it, SEMEL_CANCELLED, NULL);
        it->stir(it->user);
    }
}

static enum semel_status pool_kill(struct sml_run *run)
{
    struct pool_run *it = (struct pool_run *)run;
    enum semel_status status;

    if (it->stage == IN_LINE)
        return SEMEL_WOULD_BLOCK;
    if (it->stage == OVER)
        return SEMEL_ALREADY;
    it->killed = true; /* it does not run again, also if its worker is dead already */
    status = semel_pool_kill(it->pool, it->seat.worker->id, true);
    return status == SEMEL_OK ? SEMEL_OK : SEMEL_ALREADY;
}

static int pool_pid(const struct sml_run *run)
{
    return ((const struct pool_run *)run)->pid;
}

/* In line, or told of the end of that: never begun, unless elsewhere before. */
static enum semel_outcome leave_line(struct pool_run *it)
{
    enum semel_outcome outcome = it->seat.reruns > 0 ? SEMEL_UNKNOWN : SEMEL_NOT_EXECUTED;

    if (!sml_seat_forget(it->pool, &it->seat)) {
        wait_left(it);
        it->seat.served = it->seat.abandoned = false;
        if (it->seat.worker) {
            sml_seat_leave(it->pool, &it->seat, true, outcome);
            return outcome;
        }
    }
    sml_seat_end(it->pool, &it->seat, outcome);
    return outcome;
}

static bool has_happened(const struct semel_result *result)
{
    return result->outcome == SEMEL_VALUE || result->outcome == SEMEL_FAILURE;
}

static enum semel_outcome pool_close(struct sml_run *run)
{
    struct pool_run *it = (struct pool_run *)run;
    enum semel_outcome outcome = SEMEL_UNKNOWN;

    if (it->stage == IN_LINE) {
        outcome = leave_line(it);
    } else if (it->stage == AT_WORKER) {
        bool over = semel_stream_result(it->stream, 0, &it->result) == SEMEL_OK;

        if (over && has_happened(&it->result))
            outcome = it->result.outcome;
        free_stream(it);
        it->seat.served = over && has_happened(&it->result);
        it->seat.abandoned = !over; /* its body may run on */
        sml_seat_leave(it->pool, &it->seat, true, outcome);
    } else if (it->stage == DOUBTFUL) {
        if (!sml_seat_forget_inquest(it->pool, &it->seat))
            wait_left(it);
        it->seat.served = it->seat.abandoned = false;
        sml_seat_leave(it->pool, &it->seat, true, SEMEL_UNKNOWN);
    }
    semel_result_clear(&it->result);
    free(it);
    return outcome;
}

static const struct sml_run_ops run_ops = {
    .next = pool_next,
    .result = pool_result,
    .cancel = pool_cancel,
    .kill = pool_kill,
    .pid = pool_pid,
    .close = pool_close,
};

/* --- as a backend ----------------------------------------------------------------------------- */

static char *put(char *at, const void *bytes, size_t size)
{
    if (size > 0)
        memcpy(at, bytes, size);
    return at + size;
}

/* NULL: no memory. */
static struct pool_run *new_run(struct semel_pool *pool, const struct sml_run_spec *spec)
{
    const char *type = spec->call.content_type;
    size_t method = strlen(spec->method) + 1, content = type ? strlen(type) + 1 : 0;
    struct pool_run *it = calloc(1, sizeof *it + method + content + spec->body.size);
    char *at;

    if (it == NULL)
        return NULL;
    it->run.ops = &run_ops;
    it->pool = pool;
    it->stir = spec->stir;
    it->user = spec->user;
    it->call = spec->call;
    it->deadline = sml_pool_deadline(pool, &spec->call);
    it->method = it->bytes;
    at = put(it->bytes, spec->method, method);
    it->call.content_type = type ? at : NULL;
    at = put(at, type, content);
    it->body = semel_bytes(at, spec->body.size);
    (void)put(at, spec->body.data, spec->body.size);
    sml_seat_init(&it->seat, on_told);
    return it;
}

static enum semel_status pool_start(struct sml_backend *backend, const struct sml_run_spec *spec,
                                    struct sml_run **out_run)
{
    struct pool_backend *own = (struct pool_backend *)backend;
    struct semel_pool *pool = own->pool;
    enum semel_status status = sml_client_check(spec->method, spec->body, &spec->call);
    struct pool_run *it;

    if (status != SEMEL_OK)
        return status;
    if (spec->body.size > pool->options.body_bytes)
        return SEMEL_TOO_LARGE;
    it = new_run(pool, spec);
    if (it == NULL)
        return SEMEL_NO_MEMORY;
    it->taps = &own->taps;
    if (!ask(it)) {
        *out_run = &it->run;
        return SEMEL_OK;
    }
    if (it->seat.worker == NULL && !it->seat.open) {
        status = it->seat.status;
        free(it);
        return status;
    }
    be_seated(it);
    if (it->stage == OVER)
        it->stir(it->user); /* nobody else does */
    *out_run = &it->run;
    return SEMEL_OK;
}

static void pool_backend_close(struct sml_backend *backend)
{
    struct pool_backend *it = (struct pool_backend *)backend;

    sml_taps_close(&it->taps);
    if (it->owned)
        (void)semel_pool_destroy(it->pool);
    free(it);
}

static const struct sml_backend_ops backend_ops = {
    .start = pool_start,
    .close = pool_backend_close,
};

struct sml_backend *sml_pool_backend(struct semel_pool *pool, bool owned,
                                     const struct sml_turn *turn)
{
    struct pool_backend *it = calloc(1, sizeof *it);

    if (it == NULL)
        return NULL;
    it->backend.ops = &backend_ops;
    it->pool = pool;
    it->owned = owned;
    sml_taps_init(&it->taps, turn);
    return &it->backend;
}
