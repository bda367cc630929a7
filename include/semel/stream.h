/* SPDX-License-Identifier: MIT */
/* stream.h - items that flow while a call is open, from the caller, to it, or both ways.
 *
 * A stream is a call that has more to say than one request and one reply. Items arrive in order,
 * none is lost or repeated when the connection breaks, and none is dropped to make room: a sender
 * waits for its reader, and only that reader's stream waits. Progress is apart: a small value of
 * which only the latest counts.
 *
 * A handler may be begun again, on another server or after a restart, if its method is IDEMPOTENT.
 * Then the stream to its caller begins again, too, and says so (SEMEL_ITEM_RESTARTED): items of two
 * attempts are never mixed. The stream from the caller can begin again only if the handler had
 * taken nothing of it; else the call ends as unknown (PARTS_LOST).
 *
 * What waits for a slow reader is at most 1 MiB at each end, or 128 KiB where a session has more
 * than 64 streams, and one item beyond it. An item may be as large as a body. */
#ifndef SEMEL_STREAM_H
#define SEMEL_STREAM_H

#include <semel/client.h>
#include <semel/request.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- the caller's end --------------------------------------------------------------------- */

struct semel_stream; /* thread: sending by one thread at a time, and reading by one */

enum semel_item_kind {
    SEMEL_ITEM,           /* the next item */
    SEMEL_ITEM_PROGRESS,  /* the latest progress; it may overtake items */
    SEMEL_ITEM_RESTARTED, /* the handler began again: what came before is void */
};

struct semel_item {
    enum semel_item_kind kind;
    struct semel_bytes bytes; /* borrowed until the next call of semel_stream_next */
};

/* There may be something to read, room to send, or the result is there. Thread: the client's I/O
 * thread; as semel_done_fn. Reading and sending with a timeout of 0 is fine inside. It may be
 * called again although nothing was read; never after semel_stream_free has returned on another
 * thread. */
typedef void (*semel_stream_ready_fn)(struct semel_stream *stream, void *user);

/* Zero everywhere: no stream at all, which is refused. */
struct semel_stream_options {
    bool sends;                     /* the caller sends items; the method must take them */
    bool takes;                     /* the caller takes items and progress */
    semel_stream_ready_fn on_ready; /* NULL: none */
    void *user;
};
#ifdef __cplusplus
#define SEMEL_STREAM_OPTIONS_INIT {}
#else
#define SEMEL_STREAM_OPTIONS_INIT { false, false, NULL, NULL }
#endif

/* Start a call with streams.
 * body, call   as for semel_client_start; the deadline bounds the whole call. `lent` and `key` are
 *              refused (INVALID).
 * out_stream   receives the stream: owned by caller, ended by semel_stream_free.
 * Returns: OK; INVALID; as semel_client_start otherwise. Thread: any thread, callbacks included.
 * Blocks: no. Completion: semel_stream_next says END, or semel_stream_result OK. Since: 0.4 */
SEMEL_API enum semel_status semel_client_stream(struct semel_client *client, const char *method,
                                                struct semel_bytes body,
                                                const struct semel_call_options *call,
                                                const struct semel_stream_options *options,
                                                struct semel_stream **out_stream) SEMEL_MUST_USE;

/* Send an item (copied), at most timeout_ms from now: 0 does not wait, negative waits as long as
 * the call is open.
 * Returns: OK (it will arrive, unless the call ends before); WOULD_BLOCK (the reader is slow;
 * nothing was sent); END (the call is over: see its result); INVALID (the stream does not send, or
 * its end was said); TOO_LARGE (more than SEMEL_BODY_BYTES_MAX); NO_MEMORY; WOULD_DEADLOCK in a
 * callback that may not wait, with another timeout than 0; FORKED. Thread: one at a time.
 * Blocks: at most timeout_ms. Since: 0.4 */
SEMEL_API enum semel_status semel_stream_send(struct semel_stream *stream, struct semel_bytes item,
                                              int64_t timeout_ms) SEMEL_MUST_USE;

/* An item that was moved out of the application's hands is needed no more: free it, or use it
 * again.
 * Thread: any of the library's, or one that is in a function of this client or server. It must not
 * block and calls none of them. */
typedef void (*semel_release_fn)(struct semel_bytes item, void *user);

/* The same without a copy.
 * item      moved on OK: lent to the library until `release` is called with it, once: after the
 *           reader has taken the item (the last ones of a stream only when the call is over); at
 *           the latest in semel_client_destroy. With any other status it is the caller's still.
 * Returns: as semel_stream_send; INVALID without `release`. Thread, Blocks: as semel_stream_send.
 * Since: 0.4 */
SEMEL_API enum semel_status semel_stream_send_moved(struct semel_stream *stream,
                                                    struct semel_bytes item, int64_t timeout_ms,
                                                    semel_release_fn release, void *user)
    SEMEL_MUST_USE;

/* No item follows. Twice is fine. Returns: OK; INVALID; FORKED. Thread: as semel_stream_send.
 * Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_stream_end(struct semel_stream *stream);

/* The next item or progress, at most timeout_ms from now (0 does not wait, negative: as long as the
 * call is open).
 * Returns: OK; END (all items have been read, and the result is there); PARTS_LOST (the same, but
 * items after the last one are missing: the server that had them died, or the call was cancelled);
 * WOULD_BLOCK (nothing yet); TOO_LARGE (an item was larger than the client's body_bytes, and is
 * gone); NO_MEMORY (for a large item: try again); INVALID (it takes nothing);
 * WOULD_DEADLOCK, FORKED as semel_stream_send. Thread: one at a time. Blocks: at most timeout_ms.
 * Since: 0.4 */
SEMEL_API enum semel_status semel_stream_next(struct semel_stream *stream, int64_t timeout_ms,
                                              struct semel_item *out_item) SEMEL_MUST_USE;

/* The call's result: moved out the first time, owned by caller; ALREADY later. It may come before
 * all items were read.
 * Returns: OK; WOULD_BLOCK; ALREADY; INVALID; WOULD_DEADLOCK, FORKED. Thread: one at a time.
 * Blocks: at most timeout_ms (0: not, negative: until the call is over). Since: 0.4 */
SEMEL_API enum semel_status semel_stream_result(struct semel_stream *stream, int64_t timeout_ms,
                                                struct semel_result *out_result) SEMEL_MUST_USE;

/* As semel_call_cancel. Thread: any thread. Blocks: no. Since: 0.4 */
SEMEL_API void semel_stream_cancel(struct semel_stream *stream);

/* Release it; the call, if it is not over, is cancelled and its result dropped. NULL is fine. The
 * client must not have been destroyed unless the call was over. Thread: any thread, its on_ready
 * included. Blocks: while its on_ready runs on another thread. Since: 0.4 */
SEMEL_API void semel_stream_free(struct semel_stream *stream);

/* --- the handler's end -------------------------------------------------------------------- */

/* Does the caller send items; does it take items and progress? Thread: any thread while the request
 * is open. Since: 0.4 */
SEMEL_API bool semel_request_sends(const struct semel_request *request);
SEMEL_API bool semel_request_takes(const struct semel_request *request);

/* Send an item to the caller (copied), at most timeout_ms from now: 0 does not wait, negative waits
 * as long as somebody wants it. What was sent arrives before the reply.
 * Returns: OK; WOULD_BLOCK (the caller reads slowly; nothing was sent); CANCELLED (the request was
 * cancelled while it waited, or nobody takes it any more); NO_STREAM (the caller takes no items, or
 * the handler is transactional); ALREADY (it is finished); INVALID; TOO_LARGE; NO_MEMORY;
 * WOULD_DEADLOCK in a loop's callback, with another timeout than 0; FORKED. Thread: one thread at a
 * time. Blocks: at most timeout_ms. Since: 0.4 */
SEMEL_API enum semel_status semel_request_send(struct semel_request *request,
                                               struct semel_bytes item, int64_t timeout_ms)
    SEMEL_MUST_USE;

/* The same without a copy.
 * item      moved on OK, until `release` is called with it, once: after the caller has taken the
 *           item (the last ones of a stream only after the reply, when the caller has
 *           acknowledged that); at the latest in semel_server_destroy. With any other status it is
 *           the handler's still.
 * Returns: as semel_request_send; INVALID without `release`. Thread, Blocks: as semel_request_send.
 * Since: 0.4 */
SEMEL_API enum semel_status semel_request_send_moved(struct semel_request *request,
                                                     struct semel_bytes item, int64_t timeout_ms,
                                                     semel_release_fn release, void *user)
    SEMEL_MUST_USE;

/* Tell the caller how far it is: at most SEMEL_PROGRESS_BYTES bytes, of which the latest count.
 * Returns: OK, also if nobody takes it any more; NO_STREAM; ALREADY; INVALID; TOO_LARGE; NO_MEMORY;
 * FORKED. Thread: one thread at a time. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_request_progress(struct semel_request *request,
                                                   struct semel_bytes progress);

/* The next item from the caller, at most timeout_ms from now.
 * out_item  borrowed until the next call of this function or until the request is finished.
 * Returns: OK; END (no item follows); WOULD_BLOCK; CANCELLED (nothing is here and the request was
 * cancelled); TOO_LARGE (an item was larger than the server's body_bytes, and is gone); NO_STREAM
 * (the caller sends none); ALREADY; INVALID; NO_MEMORY (try again); WOULD_DEADLOCK,
 * FORKED as semel_request_send. Thread: one thread at a time. Blocks: at most timeout_ms.
 * Since: 0.4 */
SEMEL_API enum semel_status semel_request_next(struct semel_request *request, int64_t timeout_ms,
                                               struct semel_bytes *out_item) SEMEL_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
