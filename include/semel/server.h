/* SPDX-License-Identifier: MIT */
/* server.h - export functions and answer calls, each at most once.
 *
 * Handlers run in parallel, at most `workers` at a time; `backlog` more calls may wait. Short
 * handlers may run on the thread that read their request. A stop, a drain or a destroy may come
 * in any order, twice, from any thread; only destroy waits. */
#ifndef SEMEL_SERVER_H
#define SEMEL_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include <semel/log.h>
#include <semel/request.h>
#include <semel/status.h>
#include <semel/store.h>

#ifdef __cplusplus
extern "C" {
#endif

struct semel_server; /* thread: any thread */

/* Answers one call. See request.h for how it finishes. Thread: any of the server's threads,
 * several at once. */
typedef void (*semel_handler_fn)(struct semel_request *request, void *user);

/* Answers one call inside the store's transaction: what it writes through the store's connection
 * (semel_sqlite_handle) and its verdict are committed together, or neither is. It finishes the
 * request before it returns. It may be invoked again for the same call, after what it wrote before
 * was undone, so it must have no other effect. A failure, a cancelled or dropped request, and a
 * deadline that passes undo its work, too. It must not block: calls of the library that wait end
 * with WOULD_DEADLOCK. Thread: the store's, one call after the other. */
typedef void (*semel_transaction_fn)(struct semel_request *request, struct semel_store *store,
                                     void *user);

/* What may happen to a call of a method when the server dies in its middle. */
enum semel_kind {
    SEMEL_ONCE = 0,         /* default: never runs twice; with a store its start is written down
                                before it runs, its verdict before that is told */
    SEMEL_IDEMPOTENT = 1,   /* running again is harmless: callers may say rerun_ok. Nothing is
                                written down */
    SEMEL_TRANSACTIONAL = 2 /* its effect and its verdict are one: exactly once. Set by
                                semel_server_export_transactional */
};

/* What becomes of a ONCE call that was running when a server with a store died. */
enum semel_on_crash {
    SEMEL_CRASH_UNKNOWN = 0, /* it may have happened: its caller is told *unknown* */
    SEMEL_CRASH_RERUN = 1,   /* it runs again. For handlers that pass semel_request_key on, so that
                                 whoever has the effect recognises it */
    SEMEL_CRASH_RESOLVE = 2  /* `resolve` finds out what happened */
};

/* Every server answers methods that are reserved for it, by which `semel list`, `ps`, `top` and
 * others look inside: see "Reserved methods" in docs/PROTOCOL.md. They are never held up by
 * handlers. semel.cancel is for the server's own user id alone, and so for unix sockets and pairs:
 * others are refused, not executed (DENIED). */
enum semel_inspection {
    SEMEL_INSPECT_ALL = 0, /* default: whoever can connect may look */
    SEMEL_INSPECT_OWN = 1, /* looking is for the server's own user id, too */
    SEMEL_INSPECT_NONE = 2 /* the server has no such methods (NO_METHOD) */
};

/* Zero everywhere selects the defaults of limits.h. */
struct semel_server_options {
    uint32_t workers;          /* handlers that may run at once; 0: cores, at least 2; 1 .. 4096 */
    bool no_workers;           /* must be false: a server without workers is refused (INVALID) */
    bool on_demand;            /* threads come when needed and leave when idle for 10 s; else all
                                  are started at once */
    uint32_t backlog;          /* calls that may wait for a worker; see backlog_none */
    bool backlog_none;         /* none may wait: a call that finds all workers taken is refused */
    uint32_t window_calls;     /* granted to a session */
    uint64_t body_bytes;       /* largest request and reply body */
    uint64_t session_bytes;    /* bodies of one session; at least body_bytes */
    int64_t handshake_ms;      /* from accept to a valid HELLO */
    int64_t idle_session_ms;   /* a session without a connection is kept this long; at most
                                  SEMEL_KEPT_MS_MAX */
    int64_t heartbeat_ms;      /* expected sign of life; a connection silent for 4 of them is cut;
                                  negative: none */
    int64_t busy_ms;           /* the delay an overloaded server asks for */
    uint32_t sessions;         /* bound. When there are so many, a new one ends that which has been
                                  without a connection the longest and has no call that is not done;
                                  its client is told SESSION_LOST, as when its idle time passes */
    uint32_t connections;      /* bound */
    struct semel_store *store; /* moved on OK; NULL: everything is in memory and dies with the
                                    server. With a store idle_session_ms is 24 h unless said, and
                                    body_bytes at most SEMEL_STORED_BODY_BYTES_MAX */
    int64_t key_retention_ms;  /* idempotency keys are kept this long after their verdict, counted
                                    while the store is open; at most SEMEL_KEPT_MS_MAX */
    bool insecure;             /* allow tcp: beyond loopback although nothing is encrypted */
    semel_log_fn log;          /* borrowed until destroy */
    void *log_user;
    enum semel_inspection inspection; /* who may look inside */
};
#ifdef __cplusplus
#define SEMEL_SERVER_OPTIONS_INIT {}
#else
#define SEMEL_SERVER_OPTIONS_INIT { 0 }
#endif

/* Zero everywhere selects the defaults. */
struct semel_method_options {
    enum semel_kind kind;
    uint32_t limit;     /* handlers of this method that may be unfinished at once; 0: no limit of
                            its own */
    int64_t max_run_ms; /* an execution longer than this turns unknown (MAX_RUN) and is asked to
                            stop; 0: none. A transactional one is undone and ends as not executed.
                            These should have one: while one runs, nothing else is stored, and
                            without it a call that has no deadline may run for ever. After 5 s a
                            warning is logged */
    enum semel_on_crash on_crash;
    /* RESOLVE: called while the server starts, before it serves, with a request that has the call's
     * key but no body. It finishes the request as the handler would have (semel_request_reply,
     * _fail), or with semel_request_never_ran; else the outcome is unknown. It must first make sure
     * that nothing of the call can still happen. */
    semel_handler_fn resolve;
    void *resolve_user;
    bool takes_items; /* the caller may send a stream: semel_request_next */
    bool gives_items; /* the handler sends a stream, semel_request_send: for people, as `describe`.
                         It may send one without having said so */
    bool tells_start; /* a caller that takes a stream has an empty progress when the handler begins:
                         see semel_task_export */
    bool forcible;    /* its cancel callback ends what runs it when semel_request_forced says so */
    /* What the method does, for people: shown by `semel list` and `semel describe`. Borrowed for
     * the call of the function; NULL: nothing. At most SEMEL_DESCRIBE_BYTES. */
    const char *describe;
};
#ifdef __cplusplus
#define SEMEL_METHOD_OPTIONS_INIT {}
#else
#define SEMEL_METHOD_OPTIONS_INIT                                                                  \
    {                                                                                              \
        SEMEL_ONCE, 0, 0, SEMEL_CRASH_UNKNOWN, NULL, NULL, false, false, false, false, NULL        \
    }
#endif

/* Create a server that listens nowhere yet.
 * out_server  receives the server: owned by caller, ended by semel_server_destroy.
 * options     borrowed; NULL for the defaults.
 * Returns: OK; INVALID (an option out of range, no workers); NO_MEMORY; SYSTEM, LIMIT.
 * Thread: any thread. Blocks: no. Since: 0.1 */
SEMEL_API enum semel_status semel_server_create(struct semel_server **out_server,
                                                const struct semel_server_options *options)
    SEMEL_MUST_USE;

/* Export `method` (1 .. SEMEL_METHOD_BYTES bytes, borrowed; names that begin with "semel." are
 * reserved). Before or while running.
 * Returns: OK; INVALID; ALREADY (exported before); NO_MEMORY; STOPPED. Thread: any thread.
 * Blocks: no. Since: 0.1 */
SEMEL_API enum semel_status semel_server_export(struct semel_server *server, const char *method,
                                                semel_handler_fn handler, void *user,
                                                const struct semel_method_options *options)
    SEMEL_MUST_USE;

/* Export a transactional method: see semel_transaction_fn. `options` as above, but for `kind` and
 * what only ONCE has.
 * Returns: as semel_server_export; INVALID without a store. Thread: any thread. Blocks: no.
 * Since: 0.2 */
SEMEL_API enum semel_status semel_server_export_transactional(
    struct semel_server *server, const char *method, semel_transaction_fn handler, void *user,
    const struct semel_method_options *options) SEMEL_MUST_USE;

/* Listen at `address` ("unix:/run/x", "tcp:127.0.0.1:7000", "tcp:[::1]:0"), or serve one
 * connected descriptor ("fd:5", "fd:3/4": moved into the server on OK). May be called several
 * times. A dead server's socket file is replaced; a live one's is ADDRESS_IN_USE.
 * Returns: OK; BAD_ADDRESS; ADDRESS_IN_USE; DENIED (tcp beyond loopback without `insecure`, or
 * the system's refusal); SYSTEM, LIMIT, NO_MEMORY; STOPPED; FORKED. Thread: any thread.
 * Blocks: no, except name resolution. Since: 0.1 */
SEMEL_API enum semel_status semel_server_listen(struct semel_server *server, const char *address)
    SEMEL_MUST_USE;

/* The address actually listened at by the last successful listen ("tcp:127.0.0.1:40123").
 * Returns: borrowed until the next listen or destroy; "" before the first. Thread: any thread.
 * Blocks: no. Since: 0.1 */
SEMEL_API const char *semel_server_address(const struct semel_server *server);

/* Make a connected pair: the server serves one end, `out_fd` receives the other, owned by caller,
 * for a client at "fd:N". Returns: as semel_server_listen. Thread: any thread. Since: 0.1 */
SEMEL_API enum semel_status semel_server_pair(struct semel_server *server, int *out_fd)
    SEMEL_MUST_USE;

/* Serve in threads of the library and return at once. With a store, what it holds is read first,
 * and calls that an earlier server left running are settled: export all methods before. Returns:
 * OK; ALREADY; STOPPED; SYSTEM, LIMIT; FORKED; STORE_CORRUPT and its like (the log hook has the
 * words), NO_MEMORY. Thread: any thread. Blocks: while a store is read. Since: 0.1 */
SEMEL_API enum semel_status semel_server_start(struct semel_server *server) SEMEL_MUST_USE;

/* Serve until drained or stopped: semel_server_start, then wait. Returns: OK when stopped or
 * drained; STORE_FAILED and its like, or NO_MEMORY, when the store made it stop, or did not take
 * all verdicts to the last; as semel_server_start otherwise; WOULD_DEADLOCK in a handler or a
 * loop's callback. Thread: any thread but those. Blocks: yes. Since: 0.1 */
SEMEL_API enum semel_status semel_server_run(struct semel_server *server) SEMEL_MUST_USE;

/* Refuse new sessions and calls, let what runs or waits finish and its replies be accepted, then
 * stop; at latest after timeout_ms. Clients are told. Twice is fine; the earlier limit wins.
 * Thread: any thread, handlers included. Blocks: no (see semel_server_wait). Since: 0.1 */
SEMEL_API void semel_server_drain(struct semel_server *server, int64_t timeout_ms);

/* Stop now: calls that wait end as not executed (STOPPED), running handlers are asked to stop and
 * their results are discarded; connections are closed with a reason. With a store, sessions and the
 * calls that wait go on when the server is back, and results are kept. Twice is fine. NULL is fine.
 * Thread: any thread, handlers included. Blocks: no. Since: 0.1 */
SEMEL_API void semel_server_stop(struct semel_server *server);

/* Wait until the server has stopped, and, with a store, until what it left is stored. Returns: OK;
 * STORE_FAILED and its like, or NO_MEMORY, when the store made it stop, or did not take all
 * verdicts to the last (those calls will be unknown, the log hook has their number); DEADLINE when
 * timeout_ms passed (negative: no limit), with the number of handlers still running in out_running
 * (may be NULL); WOULD_DEADLOCK in a handler, or, unless timeout_ms is 0, in a loop's callback;
 * STOPPED if it was never started. Thread: any thread but a handler's. Blocks: yes. Since: 0.1 */
SEMEL_API enum semel_status semel_server_wait(struct semel_server *server, int64_t timeout_ms,
                                              uint32_t *out_running);

/* Stop, wait for the running handlers and release everything; NULL is fine. Requests that were
 * taken must be finished or dropped before it returns: it waits for them.
 * Returns: OK; WOULD_DEADLOCK in a handler (nothing happened); FORKED in a child process (memory
 * released, nothing of the parent's touched). Thread: any thread but a handler's. Blocks: yes.
 * Since: 0.1 */
SEMEL_API enum semel_status semel_server_destroy(struct semel_server *server);

struct semel_server_counters {
    uint64_t connections_accepted, connections_open, connections_lost, handshakes_failed;
    uint64_t connections_lost_mid_frame; /* ended with part of a frame in hand or unsent */
    uint64_t sessions_created, sessions_resumed, sessions_open, sessions_expired, sessions_ended;
    uint64_t calls_received;                          /* new calls, bodies complete */
    uint64_t calls_started;                           /* handlers begun */
    uint64_t calls_inline;                            /* of these, on the thread that read them */
    uint64_t calls_running, calls_waiting;            /* now */
    uint64_t values, failures, not_executed, unknown; /* verdicts made */
    uint64_t calls_busy, calls_refused;               /* answered BUSY; refused as overloaded */
    uint64_t calls_cancelled, calls_abandoned;
    uint64_t duplicates; /* CALLs for a call already known */
    uint64_t stale;      /* frames for calls already released */
    uint64_t reattached; /* running or waiting calls found at a resume */
    uint64_t replayed;   /* stored replies sent again after a resume */
    uint64_t false_retries;
    uint64_t protocol_errors;
    uint64_t takeovers_by_watchdog; /* a handler outstayed its welcome on the reading thread */
    uint64_t threads;               /* now */
    /* With a store. */
    uint64_t commits;             /* transactions that are durable */
    uint64_t commits_failed;      /* that the store did not take, and were tried again */
    uint64_t calls_recorded;      /* starts and verdicts written down */
    uint64_t transactions;        /* transactional handlers run */
    uint64_t transactions_undone; /* of these, that had no effect: failed, cancelled, rolled back */
    uint64_t keys_replayed;       /* calls answered with the verdict of another with their key */
    uint64_t keys_mismatched;
    uint64_t sessions_restored, calls_restored; /* from the store, at the start */
    uint64_t calls_crashed;  /* of these, that an earlier server had begun and not ended */
    uint64_t calls_poisoned; /* of these, given up: they crashed it too often */
    uint64_t bytes_received, bytes_sent, reads, writes;
};

/* A snapshot of the counters. Thread: any thread. Blocks: no. Since: 0.1 */
SEMEL_API void semel_server_counters(const struct semel_server *server,
                                     struct semel_server_counters *out_counters);

#ifdef __cplusplus
}
#endif
#endif
