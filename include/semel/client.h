/* SPDX-License-Identifier: MIT */
/* client.h - call methods of a server, from any number of threads over one connection.
 *
 * Completion contract. A submission that fails never calls back; one that succeeds calls back
 * exactly once, never under a lock of the library. Cancelling asks; the completion still comes
 * once. A blocked thread is woken, or a callback runs, in the way the caller asked.
 *
 * Every call has a deadline. When it passes the server is told, the library waits
 * `cancel_grace_ms` for the verdict, then completes the call: with the verdict that came, or as
 * *unknown*. A client reconnects by itself; a connection that breaks ends no call. */
#ifndef SEMEL_CLIENT_H
#define SEMEL_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include <semel/bytes.h>
#include <semel/log.h>
#include <semel/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct semel_deferred;
struct semel_fired;
struct semel_loop;
struct semel_outbox;
struct semel_client; /* thread: any thread */
struct semel_call;   /* a call started with semel_client_start; thread: any thread */

/* What became of a call. All pointers are NULL or owned by the result: released by
 * semel_result_clear, or borrowed for the duration of a callback. */
struct semel_result {
    enum semel_outcome outcome;
    enum semel_status status;  /* why; SEMEL_OK for a value, SEMEL_FAILED for a failure */
    int code;                  /* FAILURE: the handler's code */
    struct semel_bytes body;   /* VALUE: the reply */
    const char *text;          /* FAILURE: the handler's words; else what went wrong */
    struct semel_bytes detail; /* FAILURE: optional bytes beside the text */
    const char *trace;         /* FAILURE: optional trace text */
    const char *method;        /* the method called */
    const char *peer;          /* the address of the server, as far as known */
    uint64_t call;             /* the call's number within its session; 0 if never sent */
    void *storage;             /* what the pointers above point into */
};

enum semel_client_state {
    SEMEL_CLIENT_CONNECTING,   /* first attempt, or between attempts */
    SEMEL_CLIENT_CONNECTED,    /* calls flow */
    SEMEL_CLIENT_RECONNECTING, /* the link broke; calls wait */
    SEMEL_CLIENT_FAILED,       /* terminal: taken over, denied, protocol or version error */
    SEMEL_CLIENT_STOPPED
};

/* A change of state; `status` and `text` say why. Thread: the client's I/O thread. It must not
 * block and must not destroy the client. */
typedef void (*semel_client_state_fn)(struct semel_client *, enum semel_client_state state,
                                      enum semel_status status, const char *text, void *user);

/* Zero everywhere selects the defaults of limits.h. */
struct semel_client_options {
    int64_t deadline_ms;     /* of a call that names none; 1 .. 2^31-1 */
    int64_t cancel_grace_ms; /* 1 .. 2^31-1; negative: no grace */
    int64_t connect_ms;      /* per address */
    int64_t handshake_ms;
    int64_t heartbeat_ms; /* negative: none */
    int64_t backoff_min_ms;
    int64_t backoff_max_ms;
    int64_t give_up_ms;     /* negative: never reconnect, the first loss ends the calls */
    uint32_t window_calls;  /* 1 .. SEMEL_WINDOW_CALLS_MAX; the server may grant less */
    uint32_t pending_calls; /* calls that may wait for the window */
    uint64_t body_bytes;    /* largest reply accepted; with an outbox at most
                               SEMEL_STORED_BODY_BYTES_MAX */
    semel_log_fn log;       /* borrowed until destroy */
    void *log_user;
    semel_client_state_fn on_state;
    void *state_user;
    struct semel_outbox *outbox; /* moved on OK; NULL: none. See outbox.h */
    /* A result waits for semel_client_next_result. Thread: one of the client's; as on_state. */
    void (*on_result)(struct semel_client *client, void *user);
    void *result_user;
    uint32_t handlers; /* threads for exported methods (backchannel.h), which come when needed: so
                          many run at once; 1 .. SEMEL_CLIENT_HANDLERS_MAX */
};
#ifdef __cplusplus
#define SEMEL_CLIENT_OPTIONS_INIT {}
#else
#define SEMEL_CLIENT_OPTIONS_INIT { 0 }
#endif

/* Zero everywhere selects the defaults. */
struct semel_call_options {
    int64_t deadline_ms;      /* from now; 0: the client's default; negative: already passed */
    const char *content_type; /* borrowed for the call of the function */
    bool rerun_ok;            /* the caller's word that running it twice is harmless: if the session
                                 is lost it is submitted again. Only for IDEMPOTENT methods; any
                                 other method refuses such a call before it runs */
    bool refuse_when_full;    /* an overloaded server refuses at once (not executed, OVERLOADED)
                                 instead of asking for patience within the deadline */
    bool lent;                /* the body is lent until completion instead of copied */
    const char *key;          /* idempotency key, borrowed for the call of the function; NULL or "":
                                 none. 1 .. SEMEL_KEY_BYTES bytes without control characters. All
                                 calls of a method with the same key by the same principal are one:
                                 it runs once, and each gets its verdict, for as long as the server
                                 keeps keys. If the session is lost the call is submitted again. A
                                 server without a store has no keys: not executed (NO_KEYS) */
};
#ifdef __cplusplus
#define SEMEL_CALL_OPTIONS_INIT {}
#else
#define SEMEL_CALL_OPTIONS_INIT { 0, NULL, false, false, false, NULL }
#endif

/* The completion of a started call. `result` is borrowed for the callback; semel_result_take
 * moves it out. Thread: the client's I/O thread, or, for a call completed by semel_client_stop or
 * semel_client_destroy, the thread in it. It must not block: a blocking call on this client from
 * here ends at once with SEMEL_WOULD_DEADLOCK (not executed). Starting, cancelling and stopping
 * are fine. */
typedef void (*semel_done_fn)(struct semel_result *result, void *user);

/* Create a client for `addresses`, one or several separated by commas ("unix:/run/x",
 * "tcp:host:7000", "fd:5", "fd:3/4"). Connecting begins at once in the background; no connection
 * is needed for success.
 * out_client  receives the client: owned by caller, ended by semel_client_destroy.
 * addresses   borrowed. An fd: address moves its descriptors into the client on OK.
 * options     borrowed; NULL for the defaults.
 * Returns: OK; BAD_ADDRESS; INVALID (an option out of range); NO_MEMORY; SYSTEM, LIMIT (no
 * descriptor or thread to be had). Thread: any thread. Blocks: no. Since: 0.1 */
SEMEL_API enum semel_status semel_client_create(struct semel_client **out_client,
                                                const char *addresses,
                                                const struct semel_client_options *options)
    SEMEL_MUST_USE;

/* End every call (never sent: not executed; else unknown; status STOPPED), tell the server, close
 * the connection, release everything. NULL is fine. No other thread may be inside a function of
 * this client when it is called, blocked callers of semel_client_call excepted: they are woken.
 * Handlers of its exported methods are asked to stop and waited for, as are requests that they
 * took.
 * Returns: OK; WOULD_DEADLOCK when called from one of its callbacks or handlers (nothing happened:
 * use semel_client_stop there); FORKED in a child process (its memory is released, the parent's
 * connection untouched). Thread: any thread but its own callbacks. Blocks: until its I/O thread
 * has left, which waits for a callback that is running and for a host name that is being looked up
 * (the system's resolver cannot be interrupted: that may take many seconds). Since: 0.1 */
SEMEL_API enum semel_status semel_client_destroy(struct semel_client *client);

/* End every call as semel_client_destroy does; later calls end at once as not executed (STOPPED).
 * May be called twice, from callbacks too. NULL is fine. Thread: any thread. Blocks: no.
 * Since: 0.1 */
SEMEL_API void semel_client_stop(struct semel_client *client);

/* Call `method` and wait for its outcome.
 * method      borrowed; 1 .. SEMEL_METHOD_BYTES bytes.
 * body        borrowed.
 * options     borrowed; NULL for the defaults.
 * out_result  receives the result, owned by caller: semel_result_clear it. May be NULL.
 * Returns: the outcome, also in out_result. A call that could not be submitted is NOT_EXECUTED
 * with the status that says why (INVALID, TOO_LARGE, OVERLOADED: pending_calls reached, STOPPED,
 * FORKED, WOULD_DEADLOCK, NO_MEMORY, CONNECT ...).
 * Thread: any thread but the client's callbacks and those of a loop (WOULD_DEADLOCK: see
 * semel_client_defer). Blocks: until the outcome, at most deadline plus
 * cancel_grace. Completion: on return. Since: 0.1 */
SEMEL_API enum semel_outcome semel_client_call(struct semel_client *client, const char *method,
                                               struct semel_bytes body,
                                               const struct semel_call_options *options,
                                               struct semel_result *out_result);

/* Start a call whose completion runs `done`.
 * out_call  may be NULL; else receives a handle for semel_call_cancel, shared: release it with
 *           semel_call_unref, before or after the completion.
 * body      borrowed, or with options->lent lent until completion.
 * Returns: OK, and then `done` runs exactly once; or INVALID, TOO_LARGE, OVERLOADED, STOPPED,
 * FORKED, NO_MEMORY, or the client's terminal status, and then it never runs.
 * Thread: any thread, callbacks included. Blocks: no. Since: 0.1 */
SEMEL_API enum semel_status semel_client_start(struct semel_client *client, const char *method,
                                               struct semel_bytes body,
                                               const struct semel_call_options *options,
                                               semel_done_fn done, void *user,
                                               struct semel_call **out_call) SEMEL_MUST_USE;

/* Start a call whose end fires a deferred of `loop`; see deferred.h.
 * out       one reference, owned by caller. It fires with the call's value; or fails with its
 *           status, code and text. In both cases semel_fired_call tells the call's result, and so
 *           whether it happened. Cancelling it cancels the call: it fires with the verdict.
 * body      borrowed, or with options->lent lent until it fires.
 * Returns: OK; as semel_client_start: then nothing was made. Thread: any thread, callbacks
 * included. Blocks: no. Completion: on the loop's thread. Since: 0.3 */
SEMEL_API enum semel_status semel_client_defer(struct semel_client *client, const char *method,
                                               struct semel_bytes body,
                                               const struct semel_call_options *options,
                                               struct semel_loop *loop, struct semel_deferred **out)
    SEMEL_MUST_USE;

/* The result of the call that ended as `fired` says, a failure included: lent until `fired` has
 * another result. NULL: it does not come from a call, or only its status was handed on. status is
 * NO_MEMORY if there was none for the reply; the outcome is the call's all the same.
 * Thread: as for `fired`. Since: 0.3 */
SEMEL_API const struct semel_result *semel_fired_call(const struct semel_fired *fired);

/* Ask for a call to be cancelled. A call not yet sent ends as not executed; else the server is
 * asked and its verdict is the outcome. After completion it does nothing. Thread: any thread.
 * Blocks: no. Since: 0.1 */
SEMEL_API void semel_call_cancel(struct semel_call *call);

/* Release a handle; the call goes on. NULL is fine. Thread: any thread. Since: 0.1 */
SEMEL_API void semel_call_unref(struct semel_call *call);

/* Release what a result owns and make it empty; NULL and an empty result are fine.
 * Thread: any thread. Since: 0.1 */
SEMEL_API void semel_result_clear(struct semel_result *result);

/* Inside a completion callback: move the result out, to be cleared by the caller later.
 * Returns: OK; NO_MEMORY (nothing moved). Thread: any thread. Since: 0.1 */
SEMEL_API enum semel_status semel_result_take(struct semel_result *result,
                                              struct semel_result *out_result) SEMEL_MUST_USE;

/* Write "METHOD at PEER, call N: OUTCOME: why" into `text`, cut to `size` bytes with its NUL.
 * Returns: the length it would have had. Thread: any thread. Since: 0.1 */
SEMEL_API size_t semel_result_message(const struct semel_result *result, char *text, size_t size);

/* The client's state now. Thread: any thread. Since: 0.1 */
SEMEL_API enum semel_client_state semel_client_state(const struct semel_client *client);

/* Wait until the client is connected.
 * Returns: OK; CONNECT, PEER_DIED, LINK_LOST ... when timeout_ms passed (the last attempt's
 * reason); the terminal status; STOPPED; WOULD_DEADLOCK in a callback, of a loop too; FORKED.
 * out_text may be NULL; else receives up to `size` bytes naming the address and the reason.
 * Thread: any thread but its callbacks. Blocks: at most timeout_ms. Since: 0.1 */
SEMEL_API enum semel_status semel_client_wait_connected(struct semel_client *client,
                                                        int64_t timeout_ms, char *out_text,
                                                        size_t size);

struct semel_client_counters {
    uint64_t calls_started;   /* accepted submissions */
    uint64_t calls_completed; /* of these, completed, whatever the outcome */
    uint64_t values, failures, not_executed, unknown;
    uint64_t bytes_sent, bytes_received; /* on the wire */
    uint64_t writes, reads;              /* system calls that moved bytes */
    uint64_t connects;                   /* handshakes completed */
    uint64_t reconnects;                 /* of these, resumptions of a session */
    uint64_t links_lost;                 /* connections that broke */
    uint64_t links_lost_mid_frame;       /* of these, with part of a frame in hand or unsent */
    uint64_t calls_resent;               /* bodies sent again after a reconnect */
    uint64_t calls_reattached;   /* found running (or queued) at the server after a reconnect */
    uint64_t replies_replayed;   /* found done at the server after a reconnect */
    uint64_t busy;               /* BUSY answers */
    uint64_t replies_unexpected; /* replies for calls no longer waited for */
    uint64_t protocol_errors;
    uint64_t sessions_lost;
};

/* A snapshot of the counters. Thread: any thread. Blocks: no. Since: 0.1 */
SEMEL_API void semel_client_counters(const struct semel_client *client,
                                     struct semel_client_counters *out_counters);

#ifdef __cplusplus
}
#endif
#endif
