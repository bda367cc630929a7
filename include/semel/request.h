/* SPDX-License-Identifier: MIT */
/* request.h - a call as its handler sees it.
 *
 * A handler finishes its request exactly once: with semel_request_reply or semel_request_fail
 * before it returns; or it takes the request with semel_request_take and finishes or drops it
 * later, once, from any thread. A handler that returns without any of these has dropped it: the
 * caller is told *unknown* (DROPPED). The request is gone once it is finished or dropped.
 *
 * A handler may fork. The call stays the parent's: in the child every way of finishing the request
 * returns FORKED or does nothing. A child should end inside the handler (exec, _exit). If it
 * returns instead, it serves nothing: its only thread ends, and with it, as POSIX has it, the
 * process. */
#ifndef SEMEL_REQUEST_H
#define SEMEL_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include <semel/bytes.h>
#include <semel/peer.h>
#include <semel/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct semel_request; /* thread: one thread at a time */

/* 128 bits, the same on every re-execution of a call: a downstream idempotency key. Of a call with
 * an idempotency key it depends on that, the method and the caller's principal alone; else on the
 * session and number under which the call was made first. */
struct semel_key {
    uint8_t bytes[16];
};

/* What was called and with what. All borrowed until the request is finished.
 * Thread: one thread at a time. Blocks: no. Since: 0.1 */
SEMEL_API const char *semel_request_method(const struct semel_request *request);
SEMEL_API struct semel_bytes semel_request_body(const struct semel_request *request);
SEMEL_API const char *semel_request_content_type(const struct semel_request *request);
SEMEL_API const struct semel_peer *semel_request_peer(const struct semel_request *request);
SEMEL_API struct semel_key semel_request_key(const struct semel_request *request);
SEMEL_API uint64_t semel_request_call(const struct semel_request *request);
/* The caller's idempotency key; "" for none. Borrowed and used as the rest. Thread: one thread at a
 * time. Since: 0.2 */
SEMEL_API const char *semel_request_idempotency_key(const struct semel_request *request);

/* True once the caller cancelled, its deadline passed, it abandoned the call, its session ended,
 * the method's max_run passed, or the server stops: whatever the handler returns may reach nobody.
 * Thread: any thread while the request is open. Since: 0.1 */
SEMEL_API bool semel_request_cancelled(const struct semel_request *request);

/* True once somebody has asked for the call's end by force (`semel cancel --force`): of a method
 * that says it can be (semel_method_options.forcible), whatever runs it is to be ended. The cancel
 * callback is then called, once more if it was before. Thread: any thread while the request is
 * open. Since: 0.4 */
SEMEL_API bool semel_request_forced(const struct semel_request *request);

/* True once nobody waits for the result any more: the call was abandoned or its session ended.
 * Thread: any thread while the request is open. Since: 0.1 */
SEMEL_API bool semel_request_caller_left(const struct semel_request *request);

/* Milliseconds until the caller's deadline; 0 when it has passed; INT64_MAX: it has none.
 * Thread: any thread while the request is open. Since: 0.1 */
SEMEL_API int64_t semel_request_remaining_ms(const struct semel_request *request);

/* Have `fn` called once when the request becomes cancelled, at once if it already is, and once more
 * when it is forced (semel_request_forced); never after the request is finished. Thread of fn: one
 * of the server's, or the caller's if it is at once; it must not block. Inside it the request
 * cannot be finished: reply and fail return WOULD_DEADLOCK, drop and died do nothing. NULL removes
 * it. Blocks: with NULL, while fn runs on another thread. Since: 0.1 */
typedef void (*semel_cancelled_fn)(struct semel_request *request, void *user);
SEMEL_API void semel_request_on_cancel(struct semel_request *request, semel_cancelled_fn fn,
                                       void *user);

/* Finish with a value; `data` is borrowed (copied), NULL only when size is 0.
 * Returns: OK, also when nobody waits any more; TOO_LARGE (the request stays open); NO_MEMORY (it
 * stays open); INVALID (NULL with a size; it stays open); ALREADY (it was finished or dropped and
 * is still within its handler);
 * WOULD_DEADLOCK in its cancel callback (it stays open); FORKED in a child process.
 * Thread: one thread at a time. Blocks: only while its cancel callback runs on another thread.
 * Since: 0.1 */
SEMEL_API enum semel_status semel_request_reply(struct semel_request *request, const void *data,
                                                size_t size);

/* Finish with a failure: a code, a text (UTF-8, cut at SEMEL_TEXT_BYTES; NULL for none). As
 * semel_request_reply otherwise; never TOO_LARGE. Thread: one thread at a time. Since: 0.1 */
SEMEL_API enum semel_status semel_request_fail(struct semel_request *request, int code,
                                               const char *text);

/* As semel_request_fail, with optional detail bytes (at most SEMEL_DETAIL_BYTES, else TOO_LARGE
 * and the request stays open) and a trace text (cut at SEMEL_TRACE_BYTES; NULL for none).
 * Thread: one thread at a time. Since: 0.1 */
SEMEL_API enum semel_status semel_request_fail_with(struct semel_request *request, int code,
                                                    const char *text, struct semel_bytes detail,
                                                    const char *trace);

/* In a `resolve` handler only: finish with the word that the call had no effect and will have none.
 * Returns: OK; INVALID elsewhere (nothing happened); ALREADY, NO_MEMORY, FORKED as
 * semel_request_reply. Thread: one thread at a time. Since: 0.2 */
SEMEL_API enum semel_status semel_request_never_ran(struct semel_request *request,
                                                    const char *text);

/* For a handler that hands its call on: nobody ran it, and nobody will. The caller is told *not
 * executed*; whoever says so of a call that may have had an effect breaks the caller's promise.
 * status  why; borrowed words in `text`, NULL for none.
 * Returns: OK; INVALID: a status that is no reason (OK, FAILED) or says something of a connection
 * (link and protocol statuses, STOPPED: NO_WORKERS says it instead), or in transactional and
 * resolve handlers; ALREADY, NO_MEMORY, FORKED as semel_request_reply. Thread: one thread at a
 * time. Since: 0.4 */
SEMEL_API enum semel_status semel_request_not_executed(struct semel_request *request,
                                                       enum semel_status status, const char *text);

/* Keep the request past the handler's return. It goes on holding its worker slot's place in the
 * method's limit, but not the worker. Does nothing in transactional and resolve handlers, which
 * finish before they return. Thread: the handler's. Since: 0.1 */
SEMEL_API void semel_request_take(struct semel_request *request);

/* Give a taken request up without a result: the caller is told *unknown* with DROPPED, or, when
 * `status` says so, HANDLER_DIED, and `text`. Thread: one thread at a time. Since: 0.1 */
SEMEL_API void semel_request_drop(struct semel_request *request);
SEMEL_API void semel_request_died(struct semel_request *request, const char *text);

#ifdef __cplusplus
}
#endif
#endif
