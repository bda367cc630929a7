/* SPDX-License-Identifier: MIT */
/* pool_call.c - blocking calls: the calling thread gets a seat and makes the call itself.
 *
 * So a lone caller is as near to its worker as with a client of its own: it writes and reads the
 * socket. It comes back here when the call has ended, or when its worker has; then it waits for the
 * inquest, and tries again elsewhere if that is certain to be right. */
#include "proc/pool_internal.h"

#include "os/futex.h"
#include "rpc/client_seam.h"
#include "rpc/result.h"

static const struct semel_call_options no_options = SEMEL_CALL_OPTIONS_INIT;

/* On the stack of the thread that waits in line. */
struct waiter {
    struct sml_seat seat;  /* first */
    _Atomic uint32_t word; /* 1: it is decided */
};

static void on_granted(struct sml_seat *seat)
{
    struct waiter *waiter = (struct waiter *)seat;

    atomic_store_explicit(&waiter->word, 1, memory_order_release);
    sml_futex_wake(&waiter->word, 1); /* it may be gone: the address is all that is used */
}

static bool sit(struct semel_pool *pool, struct waiter *waiter, uint64_t deadline, bool may_wait)
{
    atomic_store_explicit(&waiter->word, 0, memory_order_relaxed);
    if (!sml_seat_ask(pool, &waiter->seat, deadline, may_wait))
        while (atomic_load_explicit(&waiter->word, memory_order_acquire) == 0)
            (void)sml_futex_wait(&waiter->word, 0, SML_NEVER);
    return waiter->seat.worker != NULL;
}

/* One call in one worker. True: it has ended. */
static bool try_once(struct semel_pool *pool, struct waiter *waiter, const char *method,
                     struct semel_bytes body, const struct semel_call_options *options,
                     uint64_t deadline, struct semel_result *result)
{
    struct semel_call_options passed = sml_pool_pass_on(options, deadline, true);
    enum semel_outcome outcome;
    enum sml_fate fate;

    sml_seat_mark(&waiter->seat);
    (void)semel_client_call(sml_seat_client(&waiter->seat), method, body, &passed, result);
    fate = sml_judge_wait(&waiter->seat, result, options->rerun_ok);
    sml_seat_doubt(&waiter->seat, result);
    outcome = result->outcome;
    if (fate != SML_FATE_FINAL) {
        semel_result_clear(result);
        sml_seat_count_again(pool, fate);
    }
    sml_seat_leave(pool, &waiter->seat, fate == SML_FATE_FINAL, outcome);
    return fate == SML_FATE_FINAL;
}

static void refuse(struct sml_seat *seat, enum semel_status status, const char *method,
                   struct semel_result *out)
{
    sml_result_refuse(out, status, method, "the pool",
                      seat && seat->reruns > 0 ? "a worker had died with it before" : NULL);
    if (seat)
        sml_seat_doubt(seat, out);
}

static enum semel_status check(struct semel_pool *pool, const char *method, struct semel_bytes body,
                               const struct semel_call_options *options)
{
    if (!pool)
        return SEMEL_INVALID;
    if (!sml_origin_is_mine(&pool->origin))
        return SEMEL_FORKED;
    if (sml_thread_in_loop())
        return SEMEL_WOULD_DEADLOCK;
    return sml_client_check(method, body, options);
}

static void run(struct semel_pool *pool, const char *method, struct semel_bytes body,
                const struct semel_call_options *options, struct semel_result *result)
{
    uint64_t deadline = sml_pool_deadline(pool, options);
    struct waiter waiter;

    sml_seat_init(&waiter.seat, on_granted);
    while (sit(pool, &waiter, deadline, !options->refuse_when_full))
        if (try_once(pool, &waiter, method, body, options, deadline, result))
            return;
    refuse(&waiter.seat, waiter.seat.status, method, result);
    sml_seat_end(pool, &waiter.seat, result->outcome);
}

enum semel_outcome semel_pool_call(struct semel_pool *pool, const char *method,
                                   struct semel_bytes body,
                                   const struct semel_call_options *options,
                                   struct semel_result *out_result)
{
    enum semel_outcome outcome;
    struct semel_result result;
    enum semel_status status;

    options = options ? options : &no_options;
    status = check(pool, method, body, options);
    if (status == SEMEL_OK)
        run(pool, method, body, options, &result);
    else
        refuse(NULL, status, method, &result);
    outcome = result.outcome;
    if (out_result)
        *out_result = result;
    else
        semel_result_clear(&result);
    return outcome;
}
