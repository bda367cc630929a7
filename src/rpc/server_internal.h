/* SPDX-License-Identifier: MIT */
/* server_internal.h - shared by server*.c and request.c only.
 *
 * Threads. One thread at a time is the leader: it alone waits for descriptors, accepts, reads,
 * keeps timers and closes connections. All other serving threads are workers. The leader may run
 * short handlers itself; if one outstays its welcome the watchdog makes another thread the leader,
 * and the old one becomes a worker when it comes back. There is one serving thread more than
 * handlers may run at once, so there is always one that can lead.
 *
 * With a store there is one thread more, the committer (commit.h): it alone talks to the store,
 * runs transactional handlers, and tells the machines what is stored.
 *
 * Locks, in this order; never two of one line:
 *   host_lock        the host machine, the list of sessions, listeners
 *   a stripe         one session with its callee machine, the peer attached to it, and its pen.
 *                    The stripe is chosen by the session's id, so that a HELLO's session can be
 *                    locked before it is looked up, and a lock outlives what it guards.
 *                    `fresh_lock` stands in for connections that have no session yet.
 *   queue_lock       run queue, methods' counts, threads' roles, session timers, the posted list
 *   pool_lock        write buffers; and the committer's list of sessions; and that of backchannels
 *                    that have something for their thread
 * A lock of whoever asked for a receipt (struct sml_reply_receipt) comes after a stripe, and
 * nothing after it.
 * "Leader's" below means: touched only by the thread that is the leader; the role itself is handed
 * over under queue_lock, and only by the leader itself or while it is inside a handler.
 * Handlers, callbacks and the log hook run without any lock. */
#ifndef SML_RPC_SERVER_INTERNAL_H
#define SML_RPC_SERVER_INTERNAL_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <semel/server.h>

#include "base/list.h"
#include "base/text.h"
#include "io/address.h"
#include "io/channel.h"
#include "io/listener.h"
#include "os/alarm.h"
#include "os/clock.h"
#include "os/epoll.h"
#include "os/futex.h"
#include "os/mutex.h"
#include "os/process.h"
#include "os/random.h"
#include "os/thread.h"
#include "os/wake.h"
#include "rpc/commit.h"
#include "rpc/given.h"
#include "rpc/intake.h"
#include "rpc/pen.h"
#include "rpc/request_internal.h"
#include "rpc/server_admin.h"
#include "rpc/tally.h"
#include "rpc/stream_wait.h"
#include "session/host.h"

#define SML_STRIPES 32
#define SML_METHOD_BUCKETS 256
#define SML_REST_BYTES 4096 /* from here on input inside a frame stays where it was read */
#define SML_BLOCKS_KEPT 4   /* to be read into */
#define SML_BLOCKS_MAX 32
#define SML_EVENTS 128
#define SML_POOL_BUFFERS 16    /* write buffers kept for the next writer */
#define SML_REQUESTS_KEPT 4096 /* request records kept for the next calls */

#define SML_BRISK_NS 10000      /* a method's average below this may run inline */
#define SML_BRISK_CLIP_NS 40000 /* one sample counts at most this: preemption is not work */
#define SML_BRISK_SAMPLES 4     /* before a method has proven anything */
#define SML_INLINE_BUDGET_NS                                                                       \
    100000                     /* then flush and read again; more short work than this
                                        queued wakes a worker, too */
#define SML_FLUSH_RUNS 64      /* inline runs, then their replies leave together */
#define SML_OUTSTAY_NS 2000000 /* in one inline handler, before another thread leads */
#define SML_WATCH_TICK_NS 1000000
#define SML_WATCH_LINGER_NS 100000000
#define SML_PENANCE_RUNS 64u /* short runs owed after the first overrun, then doubled */
#define SML_PENANCE_DOUBLINGS 14
#define SML_IDLE_THREAD_NS 10000000000
#define SML_LINGER_NS 1000000000 /* from our BYE until the client must have closed */
#define SML_GOODBYE_NS 200000000 /* the same when the server stops */
#define SML_DRAIN_BUSY_MS 1000   /* with a store: until a call is sent again, to the next server */
#define SML_DRAIN_CHECK_NS 5000000
#define SML_STARVED_NS 5000000 /* until a buffer is asked for again */

#define SML_WORKERS_MAX 4096
#define SML_SLOT_WORDS (SML_WORKERS_MAX / 64 + 1)

struct sml_served;
struct sml_conn;
struct sml_worker;

/* --- methods ------------------------------------------------------------------------------ */

/* How long a method's handlers take: decides who runs them. */
struct sml_pace {
    uint64_t average_ns;
    uint32_t samples;  /* up to SML_BRISK_SAMPLES */
    uint32_t overruns; /* lately; each doubles the penance */
    uint32_t owed;     /* short runs on workers before it may run inline again */
    uint32_t good;     /* inline runs since the last overrun */
};

struct sml_method {
    struct sml_method *next; /* in its bucket; never changes once published */
    const char *name;
    uint8_t name_bytes;
    uint8_t admin;        /* enum sml_admin: one of the server's own, answered by its own thread */
    const char *describe; /* "" for nothing */
    _Atomic(struct sml_tally *) *tallies; /* by slot, see sml_method_tally; NULL: no call yet */
    uint32_t tally_slots;
    enum semel_kind kind;
    semel_handler_fn handler;
    semel_transaction_fn transaction; /* TRANSACTIONAL: instead of handler */
    void *user;
    uint32_t limit;   /* 0: none */
    uint64_t max_run; /* 0: none */
    bool takes_items, gives_items, tells_start, forcible;
    bool standing; /* its calls last as long as their sessions: how long says nothing */
    enum semel_on_crash on_crash;
    semel_handler_fn resolve;
    void *resolve_user;
    /* queue_lock */
    struct sml_pace pace;
    uint32_t unfinished;    /* handlers begun and not finished, taken ones included */
    uint32_t queued;        /* in a run queue */
    struct sml_list parked; /* over the limit */
};

/* --- sessions and connections -------------------------------------------------------------- */

/* The shell's part of a session; freed when it has ended, has no connection, and nothing is held.
 * Guarded by `lock`, a stripe. */
struct sml_served {
    struct semel_server *server;
    struct sml_session *session;
    struct sml_mutex *lock;
    struct sml_conn *conn;       /* attached */
    bool ended;                  /* the host knows it no more */
    struct sml_list all;         /* server->served; host_lock */
    bool queued;                 /* in one of the committer's lists, or in its batch */
    bool late;                   /* in the one for those that have time */
    struct sml_list commit_link; /* the committer's lists; its lock */
    struct sml_list stalled;
    struct sml_heap_node timer; /* queue_lock */
    uint64_t timer_at;
    uint64_t parts_written;                /* when parts were last written at once */
    struct semel_backchannel *backchannel; /* shared; NULL: nobody asked for it yet */
};

enum sml_conn_state {
    SML_CONN_OPEN,
    SML_CONN_LINGERING, /* BYE is out: input is thrown away until the client closes */
    SML_CONN_CLOSED     /* out of every list; waits for the pen's holder or the end of the round */
};

struct sml_conn {
    struct semel_server *server;
    struct sml_mutex *lock; /* fresh_lock, then the stripe of its session for good */
    /* `lock` */
    struct sml_peer peer;
    struct sml_pen pen;
    struct sml_served *served; /* attached */
    struct sml_peer_info *info;
    bool touched;   /* on server->touched: the leader will write */
    bool out_armed; /* watched for output */
    bool condemned; /* buried while a writer held the pen: that one frees it */
    /* leader's */
    enum sml_conn_state state;
    bool goodbye; /* say BYE as soon as everything else is written */
    struct sml_list all;
    struct sml_list touched_link;
    struct sml_heap_node timer;
    uint64_t linger_until;
    uint64_t retry_at;    /* there was no buffer to write from; SML_NEVER */
    struct sml_intake in; /* input that ends inside a large frame; else it has no block */
    uint8_t *rest;        /* input that ends inside a small one, or for which there was no block */
    size_t rest_bytes, rest_room;
    /* queue_lock */
    struct sml_list posted_link;

    struct sml_channel channel;
};

/* --- threads ------------------------------------------------------------------------------- */

enum sml_signal { SML_SIGNAL_NONE, SML_SIGNAL_WORK, SML_SIGNAL_LOOK };

struct sml_worker {
    struct sml_thread thread;
    struct semel_server *server;
    bool for_work;                       /* made because a call waits */
    uint32_t slot;                       /* its tallies; no other thread has it at the same time */
    _Atomic(struct sml_method *) method; /* whose handler it is in; NULL: in none */
    _Atomic uint64_t since;              /* ... since then */
    struct sml_list all;                 /* server->workers or server->left; queue_lock */
    struct sml_list idle_link;           /* queue_lock */
    _Atomic uint32_t signal;             /* enum sml_signal */
    bool inlining;                       /* its own: runs a handler as the leader */
    bool guest;                          /* its own, changed under queue_lock: it was made the
                                            leader inside of its handler */
    bool took;                           /* its own: the handler took its request */
    bool forked;                         /* its own: it came out of a handler in a child process */
};

/* A handler's thread that waits for news of its stream. */
struct sml_guest {
    struct sml_worker *worker;
    struct sml_news *news;
    uint32_t seen;
    uint64_t until;
};

struct sml_place_to_listen { /* the leader's and host_lock's */
    struct sml_listener listener;
    struct sml_list all;
    uint64_t paused_until; /* 0: not paused */
};

enum sml_server_state { SML_SERVER_NEW, SML_SERVER_SERVING, SML_SERVER_STOPPED };

struct sml_server_totals { /* relaxed: only ever shown */
    _Atomic uint64_t accepted, open, lost, lost_mid_frame, handshakes_failed, protocol_errors;
    _Atomic uint64_t reads, bytes_in, writes, bytes_out;
    _Atomic uint64_t calls; /* new ones, complete */
};

/* --- the server ---------------------------------------------------------------------------- */

struct semel_server {
    /* Fixed at creation. */
    struct semel_server_options options; /* the defaults filled in */
    struct sml_origin origin;
    struct sml_random random;
    uint32_t workers, backlog;
    uint32_t busy_ms;
    uint64_t body_bytes;
    bool watched; /* the watchdog runs */
    struct sml_epoll epoll;
    struct sml_wake wake;
    struct sml_alarm alarm;     /* ends the leader's sleep */
    struct sml_returns returns; /* its own lock; the leader gives back */
    struct sml_blocks *reads;   /* to be read into */
    struct sml_blocks *writes;  /* parts to be sent */
    struct sml_intake in;       /* leader's: of connections that have no block of their own */

    struct sml_mutex host_lock;
    struct sml_host host;
    struct sml_list served;                /* host_lock */
    struct sml_list places;                /* host_lock */
    bool places_closed;                    /* host_lock */
    char address[SEMEL_ADDRESS_BYTES + 1]; /* host_lock */
    struct sml_callee_counters past;       /* of sessions that are gone; host_lock */

    struct sml_mutex stripes[SML_STRIPES];
    struct sml_mutex fresh_lock;

    /* Published with release order; grown only. */
    _Atomic(struct sml_method *) methods[SML_METHOD_BUCKETS];

    struct sml_mutex pool_lock;
    uint8_t *pool[SML_POOL_BUFFERS];
    uint32_t pool_count;

    /* Leader's. */
    struct sml_list conns, touched, batch, doomed;
    struct sml_list stash; /* free requests */
    struct sml_heap conn_timers;
    uint32_t conn_count;
    uint64_t order;
    uint64_t pauses_end;    /* the earliest paused listener; SML_NEVER */
    uint64_t accept_logged; /* when trouble was last reported */
    uint64_t full_logged;   /* ... and that sessions end early */
    uint64_t drain_checked;
    uint64_t goodbye_until; /* SML_NEVER until the server stops */
    bool drain_begun;
    bool much_read; /* in this round, from a connection */
    bool telling;   /* to_tell may hold something */
    bool unstalled; /* calls went back into the queue: somebody may have to be woken */

    struct sml_commit commit;
    struct sml_reverse *reverse; /* constant from the start on; NULL before */

    struct sml_mutex queue_lock;
    struct sml_cond changed; /* for wait, destroy, and finishers that wait for a cancel callback */
    enum sml_server_state state;
    struct sml_list short_queue, long_queue;
    struct sml_list unstarted, txns; /* the committer takes from these */
    uint64_t short_work_ns;
    uint32_t queued, parked, stalled; /* in either of the first two; parked; stalled */
    uint32_t unstarted_count, txn_count;
    uint32_t starting;         /* in the committer's hands */
    uint32_t queued_started;   /* of those queued, with a start in the store */
    uint32_t running;          /* worker slots taken */
    _Atomic uint32_t answered; /* of these, by handlers that gave their reply and are about
                                         to return; taken off under queue_lock */
    uint32_t unfinished;       /* requests begun and not finished */
    struct sml_worker *leader; /* NULL while wanted or before the start */
    bool leader_wanted;
    struct sml_guest *guest; /* wants to lead while it waits; NULL: none */
    uint64_t guests_from;    /* none before that */
    bool started;
    struct sml_thread_id restoring; /* the thread that reads the store, and runs resolve handlers */
    bool closed;                    /* no call is queued any more */
    bool quit;                      /* threads leave */
    bool waking;                    /* a thread was woken for work and has not looked yet */
    uint32_t threads;               /* serving ones */
    uint32_t waiting;               /* threads in semel_server_wait */
    struct sml_list all_workers, left, idle;
    struct sml_heap session_timers;
    _Atomic uint64_t leader_until; /* when the leader wakes at the latest; 0: it does not sleep.
                                      Set to anything else under queue_lock only */
    _Atomic bool mail;             /* posted, newcomers, stop, drain: set under queue_lock */
    struct sml_list posted, newcomers;
    struct sml_list to_tell;
    struct sml_list free_requests;
    uint32_t free_count;
    uint64_t calls_started, calls_inline, calls_busy, calls_refused, takeovers;

    /* Asked for from outside; any thread. */
    atomic_bool stop_wanted;
    _Atomic uint64_t drain_until; /* SML_NEVER: not draining */

    /* Watchdog. */
    struct sml_thread watchdog;
    _Atomic bool inlining;         /* the leader may enter handlers */
    _Atomic uint64_t inline_since; /* 0: the leader is in no handler */
    _Atomic uint32_t inline_rounds;
    _Atomic uint32_t watch_word; /* enum in server_watch.c */

    struct sml_server_totals totals;

    uint64_t slots_taken[SML_SLOT_WORDS]; /* of workers; queue_lock */
    struct sml_admin_desk admin;
};

/* A call of the method has ended so, `ns` after it had arrived. See server_admin.h for slots. */
static inline void sml_method_tally(struct sml_method *method, uint32_t slot,
                                    enum semel_outcome outcome, uint64_t ns)
{
    struct sml_tally *tally = atomic_load_explicit(&method->tallies[slot], memory_order_relaxed);

    if (SML_UNLIKELY(tally == NULL))
        tally = sml_method_tally_create(method, slot);
    if (SML_LIKELY(tally != NULL))
        sml_tally_add(tally, outcome, ns);
}

/* server.c */
/* OK; INVALID, FORKED, STOPPED. */
enum semel_status sml_server_check_open(struct semel_server *server);

/* server_log.c: what is told to the hook and to callers. */
void sml_server_log(struct semel_server *server, enum semel_log_level level, const char *format,
                    ...) SML_PRINTF(3, 4);
struct sml_words {
    char text[SEMEL_TEXT_BYTES + 1];
};
/* "method "x", call 7 of unix:/run/x pid 17: WHY"; under the stripe, or by the request's owner. */
void sml_request_words(const struct semel_request *request, const char *why,
                       struct sml_words *out_words);

/* server_queue.c: the run queue. "_locked": queue_lock is held. */
_Atomic(struct sml_method *) *sml_server_method_bucket(struct semel_server *server,
                                                       const char *name, size_t bytes);
struct sml_method *sml_server_find_method(struct semel_server *server, const char *name,
                                          uint8_t bytes);
bool sml_pace_is_brisk(const struct sml_pace *pace);
/* A handler took this long. */
void sml_pace_learn(struct sml_pace *pace, uint64_t took_ns, bool inlined);
/* The leader's batch goes to the queue; what does not fit, or comes too late, is answered. */
void sml_server_enqueue(struct semel_server *server);
struct semel_request *sml_queue_first(struct sml_list *queue);
/* The call is about to run: a worker slot is its own already. */
void sml_queue_take_out_locked(struct semel_server *server, struct semel_request *request);
/* The oldest call, taken out. */
struct semel_request *sml_queue_pop_locked(struct semel_server *server);
/* Out of wherever it waits. */
void sml_request_unqueue_locked(struct semel_request *request);
/* The request is finished and its handler has returned: counts. */
void sml_request_settle_locked(struct semel_request *request);
void sml_server_recycle_locked(struct semel_server *server, struct semel_request *request);
/* Everything that waits, out of the queues and into `out`; nothing waits from here on. */
void sml_server_take_queue(struct semel_server *server, struct sml_list *out);
/* It is told to come again, or refused. */
void sml_queue_count_refusal_locked(struct semel_server *server,
                                    const struct semel_request *request);
/* For the committer. The next call whose start may be stored now: not long before it can run, so
 * that a crash finds few that have begun on paper only. NULL: none. */
struct semel_request *sml_queue_take_unstarted_locked(struct semel_server *server);
/* Its start is stored: it waits for a worker. False: the server takes no more. */
bool sml_queue_started_locked(struct semel_server *server, struct semel_request *request);
/* It will not start. */
void sml_queue_unstarted_locked(struct semel_server *server, struct semel_request *request);
/* Is there anything for the committer? */
bool sml_queue_has_commit_work_locked(const struct semel_server *server);
/* Then it is woken. */
void sml_queue_wake_committer_locked(struct semel_server *server);
/* The next transactional call, taken out; NULL: none. And back again, before all others; false: the
 * server takes no more. */
struct semel_request *sml_queue_take_txn_locked(struct semel_server *server);
bool sml_queue_return_txn_locked(struct semel_server *server, struct semel_request *request);
/* The session's stored replies are over its budget: nothing of it begins; stripe held. */
bool sml_served_is_stalled(const struct sml_served *served);
/* A call that was taken out to run, or to start, waits again, for that reason; it gives its place
 * in the method's limit back. Stripe held. False: the server takes no more. */
bool sml_request_stall(struct semel_request *request);
bool sml_request_stall_unstarted(struct semel_request *request);
/* They go on once the replies were fetched; stripe held. */
void sml_served_unstall(struct sml_served *served);
/* May the leader run a short call now, if `running` worker slots are taken by others? Not the last
 * one, if somebody has waited longer for it. */
bool sml_server_may_inline_locked(struct semel_server *server, uint32_t running);
/* The thread to wake for queued work, taken out of the idle list; NULL: none. With *out_spawn a
 * thread is to be made instead. */
struct sml_worker *sml_server_pick_locked(struct semel_server *server, bool *out_spawn);
/* The same, and where short calls are left over, the leader is told. */
struct sml_worker *sml_server_kick_locked(struct semel_server *server, bool *out_spawn);
/* Without locks: carry out what these two said. */
void sml_server_rouse(struct semel_server *server, struct sml_worker *worker, bool spawn);

/* server_run.c: handlers. */
/* The call has ended before its handler began, or its verdict was given: stripe held, released on
 * return. */
void sml_request_let_go(struct semel_request *request);
/* Run short calls for a while. Returns whether `worker` is still the leader. */
bool sml_server_run_inline(struct semel_server *server, struct sml_worker *worker);
/* Call the callbacks of requests that were cancelled. Returns as sml_server_run_inline. */
bool sml_server_tell(struct semel_server *server, struct sml_worker *worker);
/* Body of a serving thread. */
void sml_worker_main(void *arg);

/* server_watch.c: threads and their watchdog. */
/* One more serving thread, counted by the caller. No locks. */
enum semel_status sml_server_spawn(struct semel_server *server, bool for_work);
/* Join the threads that have left. */
void sml_server_reap(struct semel_server *server);
enum semel_status sml_watchdog_start(struct semel_server *server);
void sml_watchdog_stop(struct semel_server *server);
/* The leader is about to run handlers: from here on the watchdog is awake. */
void sml_watchdog_attend(struct semel_server *server);
/* The serving thread that runs this code, or NULL. */
struct sml_worker *sml_worker_self(void);
/* Does a handler run here that the leader called, after which it writes to this connection? The
 * session's stripe is held. */
bool sml_conn_is_written_after(const struct sml_conn *conn);
void sml_worker_set_self(struct sml_worker *worker);

/* If a leader is wanted, have an idle thread or a new one lead. Returns whether one is still
 * wanted. No locks. */
bool sml_server_promote(struct semel_server *server);
/* This thread, which is inside a handler, leads no longer, if it does; another thread does. No
 * locks. */
void sml_server_resign(struct sml_worker *worker);

/* server_guest.c: handlers that lead while they wait. */
static inline bool sml_guest_has_news(const struct sml_guest *guest)
{
    return atomic_load(&guest->news->word) != guest->seen;
}
static inline bool sml_guest_is_over(const struct sml_guest *guest)
{
    return sml_guest_has_news(guest) ||
           (guest->until != SML_NEVER && sml_clock_now() >= guest->until);
}
/* Wait for news, at the end of a handler's `brisk` work or not. Returns as sml_news_wait; may
 * return true without news. */
bool sml_guest_wait(struct sml_guest *guest, bool brisk);
/* Its handler is not about to wait again: another thread leads. Harmless if it does not lead. */
void sml_guest_leave(struct sml_worker *worker);
/* The leader's: may a guest go on leading? Not when something else is to be run. */
bool sml_guest_stays(struct semel_server *server);
/* The leader's, between two rounds: if a guest has asked, that leads. Returns whether it does. */
bool sml_guest_admit(struct semel_server *server);

/* server_io.c: the leader. */
uint64_t sml_place_tag(struct sml_place_to_listen *place);
uint64_t sml_wake_tag(void);
uint64_t sml_alarm_tag(void);
void sml_server_close_places(struct semel_server *server);
/* Write to every connection that has something to be written. The leader only. */
void sml_server_flush(struct semel_server *server);
void sml_server_lead(struct semel_server *server, struct sml_worker *worker);
/* Until the guest's wait is over. False: it may not, or need not, lead any longer. */
bool sml_server_lead_as_guest(struct semel_server *server, struct sml_guest *guest);
/* The leader has something to do that its descriptors do not tell; queue_lock held. */
void sml_server_nudge_locked(struct semel_server *server);

/* server_conn.c: connections; the leader, except where said. */
struct sml_conn *sml_conn_create(struct semel_server *server, struct sml_channel *channel);
/* Of a connection that nobody knows yet. */
void sml_conn_discard(struct sml_conn *conn);
/* Into the leader's lists and the epoll set. */
void sml_conn_admit(struct sml_conn *conn, uint64_t now);
void sml_conn_readable(struct sml_conn *conn);
void sml_conn_writable(struct sml_conn *conn);
/* Write what is due, and go on with closing. */
void sml_conn_flush(struct sml_conn *conn);
/* The leader will flush it. */
void sml_conn_touch(struct sml_conn *conn);
void sml_conn_timer(struct sml_conn *conn, uint64_t now);
void sml_conn_close(struct sml_conn *conn);
/* Free what was closed. */
void sml_conn_bury(struct semel_server *server);
/* Any thread; `conn->lock` held, released on return. */
void sml_conn_write(struct sml_conn *conn);

/* What became of a reply. `told` is called once, on one of the server's threads or on that which
 * replies, under the stripe of the session: it may take a lock of its own for a moment, and calls
 * neither the server nor the application. */
struct sml_reply_receipt {
    struct sml_receipt receipt;
    void (*told)(struct sml_reply_receipt *receipt, bool accepted);
};

/* The leader is to flush it; lock held, any thread. */
void sml_conn_post(struct sml_conn *conn);

/* request_stream.c: streams of calls. */
/* The call's stream gets its shell part. False: no memory. */
bool sml_request_open_stream(struct semel_request *request);
/* The request is finished: stripe held. */
void sml_request_close_stream(struct semel_request *request);
/* It was cancelled, or its server stops: whoever waits looks. */
void sml_request_stir_stream(struct semel_request *request);
/* News of the session's streams reach their handlers; stripe held. Wake `sleepers` without it. */
void sml_served_streams(struct sml_served *served, struct sml_sleepers *sleepers);
/* Items for handlers that take them as they come, instead of semel_request_next: `fn` is called
 * under the stripe whenever there is something, until the request is finished, and once at once. It
 * calls neither the server nor the application, but for sml_request_next_here. `fn` NULL: no
 * more. Any thread that may use the request. */
typedef void (*sml_items_fn)(struct semel_request *request, void *user);
void sml_request_on_items(struct semel_request *request, sml_items_fn fn, void *user);
/* As semel_request_next with a timeout of 0, inside of `fn`, or wherever the stripe is held. */
enum semel_status sml_request_next_here(struct semel_request *request, struct semel_bytes *out);
/* There, too: an item in parts, which are moved in. False: nobody takes it, and some are left. */
bool sml_request_has_room_here(const struct semel_request *request);
bool sml_request_send_here(struct semel_request *request, struct sml_list *parts);
/* And sml_request_on_items; and, before any is read, how large an item may be. */
void sml_request_on_items_here(struct semel_request *request, sml_items_fn fn, void *user);
void sml_request_item_max_here(struct semel_request *request, uint64_t bytes);
/* Stripe held, released on return: write what is due; or, unless it is large, leave it to the
 * leader if another write was just made. */
void sml_served_write_now(struct sml_served *served);
void sml_served_write_parts(struct sml_served *served, bool large);

/* reverse_server.c: calls to the session's client; stripe held. */
/* The session has ended, or its server stops: its backchannel ends with this. */
void sml_backchannel_end(struct sml_served *served, enum semel_status why);
/* The call that carries it is all that is left of the session's, and no call goes by it. */
bool sml_backchannel_is_idle(const struct sml_served *served);
/* The server's part of backchannels: semel.reverse, and their thread. */
enum semel_status sml_reverse_start(struct semel_server *server);
/* After the last handler: every call by a backchannel has ended, and its callback returned. */
void sml_reverse_stop(struct semel_server *server);
/* Handles that are left know that their server is gone. */
void sml_reverse_forsake(struct semel_server *server);

/* server_session.c: sessions. */
/* Whoever asked is told what became of its reply; stripe held. */
void sml_served_receipts(struct sml_served *served);
struct sml_mutex *sml_server_stripe(struct semel_server *server, const struct sml_session_id *id);
void sml_conn_greet(struct sml_conn *conn, const struct sml_hello *hello, uint64_t now);
void sml_conn_detach(struct sml_conn *conn, uint64_t now);
/* The session's calls that are ready go to the leader's batch; cancellations are passed on; stripe
 * held. */
void sml_served_collect(struct sml_served *served, uint64_t now, struct sml_sleepers *sleepers);
void sml_served_cancels(struct sml_served *served);
/* The session's timer is no later than its callee's; stripe held. */
void sml_served_retime(struct sml_served *served);
void sml_served_tick(struct sml_served *served, uint64_t now);
/* No HELLO finds it any more. Leader, no locks. */
void sml_served_end(struct sml_served *served);
bool sml_served_done(const struct sml_served *served);
void sml_served_free(struct sml_served *served);
/* A session that the host knows, new or from the store, gets its shell part; host held. NULL: no
 * memory. */
struct sml_served *sml_server_serve(struct semel_server *server, struct sml_session *session);
void sml_server_expire(struct semel_server *server, uint64_t now);
/* The request waits, and its call has a verdict already; stripe held. */
void sml_request_forget(struct semel_request *request);
/* All that runs has finished and was acknowledged. */
bool sml_server_drained(struct semel_server *server);
/* Every session's calls are stopped; so are those that waited in the queue. */
void sml_server_stop_sessions(struct semel_server *server, struct sml_list *waiting);
/* With a store: a call that is held, and will not run any more, waits for the next server. */
void sml_server_postpone(struct semel_request *request);
/* Sessions stay in the store; their memory goes. Nothing runs any more. */
void sml_server_forsake_sessions(struct semel_server *server);
void sml_server_end_sessions(struct semel_server *server);
void sml_info_unref(struct sml_peer_info *info);

/* server_listen.c */
/* As semel_server_export, for a name that is reserved for the library. */
enum semel_status sml_server_export_reserved(struct semel_server *server, const char *name,
                                             semel_handler_fn handler, void *user);
/* The same for one whose calls have streams and last as long as their sessions; idempotent. */
enum semel_status sml_server_export_standing(struct semel_server *server, const char *name,
                                             semel_handler_fn handler, void *user);
/* The same for one that the thread of server_admin.c answers; idempotent. */
enum semel_status sml_server_export_admin(struct semel_server *server, const char *name,
                                          enum sml_admin admin, semel_handler_fn handler,
                                          const char *describe);

/* request.c */
/* As semel_request_reply, to a handler that is neither transactional nor resolves; if it returns OK
 * the receipt is told, perhaps before. */
enum semel_status sml_request_reply_with_receipt(struct semel_request *request, const void *data,
                                                 size_t size, struct sml_reply_receipt *receipt);
/* The handler returned without finishing a request that it did not take. */
void sml_request_abandoned(struct semel_request *request);
/* A transactional handler has returned, finished or not: none of its callbacks begins after this.
 */
void sml_request_unwatch(struct semel_request *request);
/* The call's key for systems downstream. */
struct semel_key sml_request_key_of(const struct sml_served *served, const struct sml_incoming *in);

/* restore.c: what the store holds becomes sessions again; before any thread runs. */
enum semel_status sml_server_restore(struct semel_server *server);

#endif
