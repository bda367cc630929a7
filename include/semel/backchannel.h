/* SPDX-License-Identifier: MIT */
/* backchannel.h - calls from a server to its clients, over the connections that these have made.
 *
 * A client exports methods as a server does. A handler of the server asks for the backchannel of
 * the session that its request came by, and calls these methods by it: then, or later, from any
 * thread. A backchannel is the session's: it goes on over any number of connections, and ends with
 * it. It lives in memory: no store and no outbox keeps its calls.
 *
 * Each call ends as every call does. One that was never handed over is not executed; of one that
 * was, only the client's reply says what became of it: when that cannot come any more it is
 * unknown. Nothing runs twice, and nothing is sent again. */
#ifndef SEMEL_BACKCHANNEL_H
#define SEMEL_BACKCHANNEL_H

#include <stdint.h>

#include <semel/bytes.h>
#include <semel/client.h>
#include <semel/request.h>
#include <semel/server.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- the client's end ----------------------------------------------------------------------- */

/* Export `method` to the server that the client is connected to, as semel_server_export does: from
 * now on, over all connections, until the client is stopped. The server sees it once the client has
 * a connection, in the order of the client's calls. A server that knows no backchannels, or breaks
 * their rules, is left in peace: the log hook is told.
 * handler  runs on one of the client's `handlers` threads, several at once; it may call this client
 *          and wait. While all are taken, calls wait, up to the client's window.
 * options  borrowed; NULL for none. Only `limit` counts, and `kind`, which makes no difference:
 *          nothing is written down. The others must be unset (INVALID). Its requests have no
 *          streams (NO_STREAM), and no idempotency key.
 * Returns: OK; INVALID; ALREADY (exported before); NO_MEMORY; LIMIT (no thread to be had); STOPPED;
 * FORKED. Thread: any thread, callbacks included. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_client_export(struct semel_client *client, const char *method,
                                                semel_handler_fn handler, void *user,
                                                const struct semel_method_options *options)
    SEMEL_MUST_USE;

/* --- the server's end ----------------------------------------------------------------------- */

struct semel_backchannel; /* thread: any thread */

/* The backchannel of the session that a request came by; the same for all requests of a session.
 * out_channel  receives it: shared; one reference, ended by semel_backchannel_unref. It may be kept
 *              for as long as one likes, the server's end included.
 * Returns: OK; INVALID (the request came by a backchannel itself); ALREADY (it is finished);
 * STOPPED; SESSION_LOST (the session has ended); NO_MEMORY; LIMIT (no thread to be had); FORKED.
 * Thread: one thread at a time. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_request_backchannel(struct semel_request *request,
                                                      struct semel_backchannel **out_channel)
    SEMEL_MUST_USE;

/* One reference more; returns its argument. One less; NULL is fine. Calls go on without any.
 * Thread: any thread. Blocks: no. Since: 0.4 */
SEMEL_API struct semel_backchannel *semel_backchannel_ref(struct semel_backchannel *channel);
SEMEL_API void semel_backchannel_unref(struct semel_backchannel *channel);

/* Call `method` of the client and wait for the outcome; as semel_client_call, but for what follows.
 * A client that is not connected, or exports nothing yet, is waited for within the deadline. At
 * most the server's window_calls calls may wait or be under way, with session_bytes of bodies that
 * wait: one more is not executed (OVERLOADED).
 * options  borrowed; NULL for none. deadline_ms (default SEMEL_DEADLINE_MS) and content_type count;
 *          refuse_when_full is always so; the others must be unset (INVALID).
 * Returns: the outcome. NOT_EXECUTED: never handed over, or the client's word: INVALID, TOO_LARGE
 * (for the client), OVERLOADED, EXPIRED, CANCELLED, NO_METHOD, SESSION_LOST, STOPPED (the server),
 * NO_MEMORY, FORKED, WOULD_DEADLOCK. UNKNOWN: DEADLINE, SESSION_LOST (the client is gone, or has
 * stopped), STOPPED, DROPPED, HANDLER_DIED, PROTOCOL (the client breaks the rules).
 * Thread: any thread, handlers included, but no loop's callback, no transactional handler and no
 * completion of a backchannel of this server (WOULD_DEADLOCK). The server must not be destroyed
 * meanwhile. Blocks: at most the deadline and SEMEL_CANCEL_GRACE_MS. Since: 0.4 */
SEMEL_API enum semel_outcome semel_backchannel_call(struct semel_backchannel *channel,
                                                    const char *method, struct semel_bytes body,
                                                    const struct semel_call_options *options,
                                                    struct semel_result *out_result);

/* Start a call whose completion runs `done`, on a thread of the server: it must not block.
 * body      borrowed (copied).
 * out_call  may be NULL; else receives the call's number, for semel_backchannel_cancel.
 * Returns: OK, and then `done` runs exactly once, at latest before semel_server_destroy returns; or
 * INVALID, TOO_LARGE, OVERLOADED, SESSION_LOST, STOPPED, EXPIRED, NO_MEMORY, FORKED, and then it
 * never runs.
 * Thread: any thread, callbacks included. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_backchannel_start(struct semel_backchannel *channel,
                                                    const char *method, struct semel_bytes body,
                                                    const struct semel_call_options *options,
                                                    semel_done_fn done, void *user,
                                                    uint64_t *out_call) SEMEL_MUST_USE;

/* Ask for a call to be cancelled: one that was not handed over ends as not executed; else the
 * client is asked, and its verdict is the outcome. One that has ended is none. Thread: any thread.
 * Blocks: no. Since: 0.4 */
SEMEL_API void semel_backchannel_cancel(struct semel_backchannel *channel, uint64_t call);

#ifdef __cplusplus
}
#endif
#endif
