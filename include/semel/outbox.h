/* SPDX-License-Identifier: MIT */
/* outbox.h - calls that survive their client.
 *
 * A client with an outbox keeps the calls that are posted to it in a file, until the application
 * has accepted their results. What was posted is carried out: through broken connections, restarts
 * of the server, and the end of the client's own process. The next process that opens the file goes
 * on with the same session, makes the calls that are not answered again under their keys, and is
 * handed the results that were not accepted. So the server must have a store, or there are no keys
 * (the result is then *not executed*, NO_KEYS).
 *
 * A posted call has no deadline: it stays outstanding until it has a result, or is withdrawn. The
 * server keeps keys for a time (7 days by default): a call that is made again after that is
 * *unknown* unless it is proven otherwise. Its age is told by a clock of the outbox that begins
 * with the date and never runs backwards; while the date is set back between two processes it
 * stands still, and a key that the server forgot just before may run again. */
#ifndef SEMEL_OUTBOX_H
#define SEMEL_OUTBOX_H

#include <stddef.h>
#include <stdint.h>

#include <semel/bytes.h>
#include <semel/client.h>
#include <semel/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct semel_outbox; /* thread: owner thread, until it is moved into a client */

/* Close an outbox that was not moved into a client; NULL is fine. Thread: owner thread.
 * Since: 0.2 */
SEMEL_API void semel_outbox_close(struct semel_outbox *outbox);

/* The result of a posted call. */
struct semel_posted {
    uint64_t id;            /* of the call in its outbox */
    struct semel_bytes tag; /* what the application attached to it */
    const char *key;
    struct semel_result result;
    void *storage; /* what tag and key point into */
};

/* Post a call: when this returns OK it is in the file, and will be carried out.
 * options   borrowed; NULL for the defaults. `key` names the call; NULL or "": one is drawn.
 *           `deadline_ms`, `rerun_ok` and `refuse_when_full` must be 0 and false. Posting a method
 *           and key that are in the outbox already is OK if the body is the same, and gives the id
 *           that there is.
 * tag       borrowed; bytes of the application's, handed out again with the result. Body and tag
 *           together have at most SEMEL_STORED_BODY_BYTES_MAX bytes.
 * out_id    may be NULL; else receives the call's id.
 * Returns: OK; INVALID; TOO_LARGE; KEY_MISMATCH (same key, other contents); OVERLOADED
 * (pending_calls are outstanding); STORE_FULL, NO_MEMORY (it is not in the file); STORE_FAILED,
 * STORE_CORRUPT (it may be in the file, which is of no more use to this process: post it again in
 * the next, with its key); WOULD_DEADLOCK in a callback; STOPPED; FORKED. Thread: any thread but
 * the client's callbacks. Blocks: until it is durable. Since: 0.2 */
SEMEL_API enum semel_status semel_client_post(struct semel_client *client, const char *method,
                                              struct semel_bytes body,
                                              const struct semel_call_options *options,
                                              struct semel_bytes tag, uint64_t *out_id)
    SEMEL_MUST_USE;

/* The next result that this process was not handed yet; it is in the file until it is accepted.
 * out_posted  receives it, owned by caller: semel_posted_clear.
 * Returns: OK; DEADLINE (there was none within timeout_ms; negative: no limit); the client's
 * terminal status, when there will be none; STORE_FAILED and its like, when the file is of no more
 * use; INVALID (no outbox); WOULD_DEADLOCK in a callback, of a loop too, with a timeout;
 * STOPPED; FORKED.
 * Thread: any thread. Blocks: at most timeout_ms. Since: 0.2 */
SEMEL_API enum semel_status semel_client_next_result(struct semel_client *client,
                                                     int64_t timeout_ms,
                                                     struct semel_posted *out_posted)
    SEMEL_MUST_USE;

/* The application has the result of call `id`: the call leaves the file.
 * Returns: OK (also when it is not there any more); INVALID (it has no result yet); STORE_FULL and
 * its like (it will be handed out again by the next process); WOULD_DEADLOCK, STOPPED, FORKED.
 * Thread: any thread but the client's callbacks. Blocks: until it is durable. Since: 0.2 */
SEMEL_API enum semel_status semel_client_accept(struct semel_client *client, uint64_t id)
    SEMEL_MUST_USE;

/* Ask for a posted call to be cancelled; its result comes as any other. One without an id in the
 * outbox, or with a result, is left alone. The next process knows nothing of it: there the call
 * goes on, if it has not ended in this one. Thread: any thread. Blocks: no. Since: 0.2 */
SEMEL_API void semel_client_withdraw(struct semel_client *client, uint64_t id);

/* Calls in the outbox that have no result yet, and results that were not accepted yet.
 * Thread: any thread. Blocks: no. Since: 0.2 */
SEMEL_API void semel_client_posted(struct semel_client *client, uint64_t *out_outstanding,
                                   uint64_t *out_results);

/* Release what it owns and make it empty; NULL and an empty one are fine. Thread: any thread.
 * Since: 0.2 */
SEMEL_API void semel_posted_clear(struct semel_posted *posted);

#ifdef __cplusplus
}
#endif
#endif
