/* SPDX-License-Identifier: MIT */
/* sim.h - a deterministic simulator of the session machines: what its files share.
 *
 * HOW IT IS BUILT. One thread, one seed, virtual time. The objects under test are the shipped
 * static libraries (base, wire, session); nothing in them is replaced or compiled otherwise. They
 * are pure, so the simulator is the shell: it moves their bytes, tells them the time, runs their
 * handlers and gives them memory.
 *
 *   world.c    the clock and its event heap, what a seed switches on, the phases of a run
 *   net.c      connections: two byte pipes with latency, splitting, bounds, and their faults
 *   faults.c   picks and applies faults in proportion to the calls made
 *   client.c   programs that submit, cancel, stop and crash over a struct sml_link
 *   server.c   the servers' connections and sessions over a struct sml_host; restarts
 *   handlers.c the servers' run queue, workers and handlers
 *   plan.c     what each call asks for
 *   streams.c  calls whose parts flow, at both ends
 *   ledger.c   the oracle: which effects happened, what was answered
 *   trace.c    what one session shows, for tests/model
 *   hostile.c  peers that send garbage, thieves, poisoned servers
 *   report.c   counters of faults and of states that must have been reached
 *   run.c      options, many seeds, replay
 *   bugs.c     whether bugs that are seeded on purpose (base/bug.h) are found
 * and, for servers that outlive themselves, what durable.h lists.
 *
 * A world (one seed) runs through phases: LOAD, calls and faults together; HEAL, faults off, every
 * call must end in bounded virtual time; SETTLE, acknowledgements flow and every table must become
 * empty; LEAVE, clients say goodbye or vanish and every session must end; then all memory must be
 * back. Each seed switches about half of the menu off (swarm testing), so that faults do not hide
 * one another.
 *
 * HOW TO REPLAY. A failure prints the broken invariant and a command such as
 *     sim --seed 17 --calls 2000 --verbose
 * which repeats the run event by event; --only and --without take fault names and narrow the menu,
 * and --shrink looks for a smaller failing command by itself. */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "session/host.h"
#include "session/link.h"

/* ---- choices ------------------------------------------------------------------------------- */

struct sim_rng {
    uint64_t state;
};

static inline uint64_t sim_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static inline uint64_t sim_rand(struct sim_rng *rng)
{
    return sim_mix(rng->state += UINT64_C(0x9e3779b97f4a7c15));
}

/* 0 .. n-1 */
static inline uint64_t sim_below(struct sim_rng *rng, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)sim_rand(rng) * n) >> 64);
}

static inline uint64_t sim_between(struct sim_rng *rng, uint64_t low, uint64_t high)
{
    return low + sim_below(rng, high - low + 1);
}

static inline bool sim_chance(struct sim_rng *rng, uint32_t in)
{
    return in != 0 && (uint32_t)(sim_rand(rng) >> 32) < UINT32_MAX / in;
}

/* ---- the menu ------------------------------------------------------------------------------ */

/* name, word, group. Groups: N, the network between a client and its server; S, a server; T, a
 * server's store; C, a client; these count as faults. L: an ingredient of the load. */
#define SIM_STORE_FAULTS(X)                                                                        \
    X(POWER_CUT, "power-cut", T)                                                                   \
    X(CRASH_POINT, "crash-point", T)                                                               \
    X(STORE_REFUSES, "store-refuses", T)                                                           \
    X(STORE_FULL, "store-full", T)                                                                 \
    X(STORE_UNKNOWN, "store-unknown", T)                                                           \
    X(STORE_SLOW, "store-slow", T)                                                                 \
    X(OLD_COPY, "old-copy", T)                                                                     \
    X(RENEWED_COPY, "renewed-copy", T)                                                             \
    X(CLOCK_STEP, "clock-step", C)                                                                 \
    X(SAVE_FAILS, "save-fails", C)                                                                 \
    X(KIND_ONCE, "once", L)                                                                        \
    X(KIND_TXN, "transactional", L)                                                                \
    X(CRASH_RERUN, "crash-rerun", L)                                                               \
    X(CRASH_RESOLVE, "crash-resolve", L)                                                           \
    X(DEADLY_HANDLER, "deadly-handler", L)                                                         \
    X(SPOILER, "spoiler", L)                                                                       \
    X(KEYS, "keys", L)                                                                             \
    X(SAME_KEY, "same-key", L)                                                                     \
    X(OTHER_CONTENTS, "other-contents", L)                                                         \
    X(SHORT_RETENTION, "short-retention", L)                                                       \
    X(OUTBOX, "outbox", L)                                                                         \
    X(SLOW_SAVE, "slow-save", L)                                                                   \
    X(SMALL_BATCHES, "small-batches", L)

#define SIM_FAULTS(X)                                                                              \
    X(CUT, "cut", N)                                                                               \
    X(CUT_MID_FRAME, "cut-mid-frame", N)                                                           \
    X(HALF_OPEN_SERVER, "half-open-server", N)                                                     \
    X(HALF_OPEN_CLIENT, "half-open-client", N)                                                     \
    X(SILENCE_UP, "silence-up", N)                                                                 \
    X(SILENCE_DOWN, "silence-down", N)                                                             \
    X(STALL, "stall", N)                                                                           \
    X(LATE_BYTES, "late-bytes", N)                                                                 \
    X(LATE_HELLO, "late-hello", N)                                                                 \
    X(DUPLICATE, "duplicate", N)                                                                   \
    X(SPLIT, "split", N)                                                                           \
    X(SLOW_LINK, "slow-link", N)                                                                   \
    X(REFUSED_CONNECT, "refused-connect", N)                                                       \
    X(SILENT_CONNECT, "silent-connect", N)                                                         \
    X(RESTART, "restart", S)                                                                       \
    X(SHUTDOWN, "shutdown", S)                                                                     \
    X(OUTAGE, "outage", S)                                                                         \
    X(SERVER_MEMORY, "server-memory", S)                                                           \
    X(CLIENT_MEMORY, "client-memory", C)                                                           \
    X(CLIENT_STOP, "client-stop", C)                                                               \
    X(CLIENT_CRASH, "client-crash", C)                                                             \
    X(SLOW_HANDLER, "slow-handler", L)                                                             \
    X(HANGING_HANDLER, "hanging-handler", L)                                                       \
    X(DEAF_HANDLER, "deaf-handler", L)                                                             \
    X(FAILING_HANDLER, "failing-handler", L)                                                       \
    X(DROPPED_REQUEST, "dropped-request", L)                                                       \
    X(MAX_RUN, "max-run", L)                                                                       \
    X(NO_METHOD, "no-method", L)                                                                   \
    X(FULL_QUEUE, "full-queue", L)                                                                 \
    X(REORDERED_QUEUE, "reordered-queue", L)                                                       \
    X(CANCEL, "cancel", L)                                                                         \
    X(SHORT_DEADLINE, "short-deadline", L)                                                         \
    X(PAST_DEADLINE, "past-deadline", L)                                                           \
    X(RERUN_OK, "rerun-ok", L)                                                                     \
    X(REFUSE_WHEN_FULL, "refuse-when-full", L)                                                     \
    X(TOO_LARGE, "too-large", L)                                                                   \
    X(LATE_ACCEPT, "late-accept", L)                                                               \
    X(BIG_BODIES, "big-bodies", L)                                                                 \
    SIM_STORE_FAULTS(X)                                                                            \
    X(STREAMS, "streams", L)                                                                       \
    X(SLOW_READER, "slow-reader", L)

enum sim_fault {
#define SIM_FAULT_ENUM(name, word, group) SIM_##name,
    SIM_FAULTS(SIM_FAULT_ENUM)
#undef SIM_FAULT_ENUM
        SIM_FAULT_COUNT
};

#define SIM_BIT(fault) (UINT64_C(1) << (fault))

/* States that a good run must have reached. */
#define SIM_MARKS(X)                                                                               \
    X(REPLAYED, "stored reply sent again")                                                         \
    X(REATTACHED, "running call re-attached")                                                      \
    X(RESUMED_BODY, "body resumed in its middle")                                                  \
    X(RESUMED_REPLY, "reply resumed in its middle")                                                \
    X(EXPECTED, "expected call sent again")                                                        \
    X(REFUSED_LISTED, "refused call met a resume")                                                 \
    X(BUSY, "refused call sent again after its delay")                                             \
    X(TAKEOVER, "older connection taken over")                                                     \
    X(LATE_HELLO_REFUSED, "delayed HELLO lost against a newer connection")                         \
    X(STALE, "stale frame dropped")                                                                \
    X(DUPLICATE, "duplicate CALL met its record")                                                  \
    X(LOST_MID_FRAME, "link lost in the middle of a frame")                                        \
    X(CLIENT_HEARTBEAT, "half-open link ended by the client's heartbeat")                          \
    X(SERVER_SILENCE, "half-open link ended by the server's silence limit")                        \
    X(HANDSHAKE_TIMEOUT, "connection without HELLO ended")                                         \
    X(IDLE_EXPIRY, "idle session expired")                                                         \
    X(SESSION_LOST, "session lost by a restart")                                                   \
    X(RERUN, "call run again in a new session")                                                    \
    X(GAVE_UP, "gave up with calls outstanding")                                                   \
    X(NO_RECONNECT, "gave up at the first loss, as it was told to")                                \
    X(SECOND_ADDRESS, "session at the second address")                                             \
    X(CANCEL_BEFORE_START, "cancelled before it began")                                            \
    X(CANCEL_WHILE_RUNNING, "cancelled while it ran")                                              \
    X(CANCEL_TOO_LATE, "cancelled after it was done")                                              \
    X(DEADLINE_VERDICT, "deadline passed, a verdict came in the grace")                            \
    X(DEADLINE_UNKNOWN, "deadline passed without a verdict")                                       \
    X(EXPIRED, "expired before it began")                                                          \
    X(OVERLOADED, "refused for good by a full server")                                             \
    X(PENDING_FULL, "submission refused by a full client")                                         \
    X(MAX_RUN, "handler outran max_run")                                                           \
    X(DROPPED, "request dropped by its handler")                                                   \
    X(LATE_FINISH, "handler finished after its call was released")                                 \
    X(STORED_FULL, "stored replies held new calls back")                                           \
    X(PIPE_FULL, "a full pipe stopped a writer")                                                   \
    X(DRAINED, "client was told to drain")                                                         \
    X(STOPPED, "client stopped with calls outstanding")                                            \
    X(ORPHANED, "session of a crashed client ended")                                               \
    X(NO_MEMORY, "an allocation failed")                                                           \
    X(STREAM_WHOLE, "stream whole")                                                                \
    X(STREAM_RESUMED, "stream whole over a reconnect")                                             \
    X(STREAM_CUT, "stream of a cancelled call without its end")                                    \
    X(STREAM_AGAIN, "stream begun again by another run")                                           \
    X(STREAM_HELD, "verdict held back by a reader")                                                \
    X(OTHERS_WENT_ON, "calls ended beside a stream that waits for its reader")

/* States that only runs with a store reach. */
#define SIM_STORE_MARKS(X)                                                                         \
    X(DIED_START_UNSTORED, "died before a start was stored")                                       \
    X(DIED_START_STORED, "died with a start stored, before its handler")                           \
    X(DIED_IN_HANDLER, "died in a handler")                                                        \
    X(DIED_END_UNSTORED, "died after a handler, before its verdict was stored")                    \
    X(DIED_UNTOLD, "died with a verdict stored, before it was told")                               \
    X(DIED_IN_TXN, "died inside a transaction")                                                    \
    X(DIED_UNSYNCED, "died between writing and syncing")                                           \
    X(DIED_IN_RESTORE, "died while it restored its sessions")                                      \
    X(UNSYNCED_KEPT, "unanswered transaction was there after all")                                 \
    X(UNSYNCED_LOST, "power cut took an unsynced transaction")                                     \
    X(TORN, "power cut left a part of a transaction")                                              \
    X(UNKNOWN_STORED, "transaction of unknown fate was stored")                                    \
    X(UNKNOWN_LOST, "transaction of unknown fate was lost")                                        \
    X(STORE_WAITED, "store took nothing, calls waited")                                            \
    X(CLEAN_EXIT, "server left in good order")                                                     \
    X(RESTORED_VERDICT, "verdict restored")                                                        \
    X(RESTORED_RUNNING, "call restored that had begun")                                            \
    X(RESTORED_AGAIN, "call restored that may run again")                                          \
    X(IN_DOUBT, "call without a record, which a server that died may have begun")                  \
    X(STRAGGLERS, "session stored with open calls below its base")                                 \
    X(PUT_BACK, "stored start taken back by a server that stopped")                                \
    X(DIED_UNKNOWN, "unknown since the server died")                                               \
    X(RAN_AGAIN, "ran again after its server had died")                                            \
    X(RESOLVED, "resolved: it had happened")                                                       \
    X(RESOLVED_NEVER, "resolved: it had not")                                                      \
    X(UNDONE, "transactional handler undone")                                                      \
    X(ISOLATED, "calls of a lost transaction ran one by one")                                      \
    X(CONVICTED, "call that spoils each transaction convicted")                                    \
    X(POISONED, "call poisoned that killed its server")                                            \
    X(KEY_REPLAYED, "call answered by its key")                                                    \
    X(KEY_BUSY, "call held back by its key")                                                       \
    X(KEY_MISMATCH, "key met with other contents")                                                 \
    X(KEY_EXPIRED, "key asked for too late")                                                       \
    X(KEY_PURGED, "key no longer kept")                                                            \
    X(KEY_LOST, "key found whose call was gone")                                                   \
    X(KEY_AGAIN, "key freed by a call that may have run")                                          \
    X(LEFT, "verdict stored for its key alone")                                                    \
    X(IDENTITY_RESUMED, "session resumed by the next process")                                     \
    X(RESUBMITTED, "keyed call submitted again by the next process")                               \
    X(RESULT_LOST, "result lost before it was written down, and fetched again")                    \
    X(DIED_SAVING, "client died while it saved its identity")                                      \
    X(SAVE_FAILED, "identity could not be saved")                                                  \
    X(ROLLED_BACK, "rolled back store noticed by its client")                                      \
    X(OTHER_GENERATION, "other generation noticed by its client")                                  \
    X(KEYED_GIVEN_UP, "keyed call given up with its store")                                        \
    X(ORIGIN_KEPT, "same request key in another session")                                          \
    X(PARTS_LOST, "parts lost with the server that had taken them")

/* States that only hostile runs reach. */
#define SIM_HOSTILE_MARKS(X)                                                                       \
    X(GARBAGE_REFUSED, "garbage answered by a BYE")                                                \
    X(THEFT_REFUSED, "wrong secret or principal refused")                                          \
    X(CLONE_TOOK_OVER, "client stopped by a clone")                                                \
    X(POISON_ENDED, "client gave a poisoned server up")                                            \
    X(CLIENT_SAW_GARBAGE, "client met undecodable bytes")                                          \
    X(HONEST_BESIDE, "honest call done beside hostile peers")

enum sim_mark {
#define SIM_MARK_ENUM(name, text) SIM_MARK_##name,
    SIM_MARKS(SIM_MARK_ENUM) SIM_HOSTILE_MARKS(SIM_MARK_ENUM) SIM_STORE_MARKS(SIM_MARK_ENUM)
#undef SIM_MARK_ENUM
        SIM_MARK_COUNT
};

struct sim_stats {
    uint64_t faults[SIM_FAULT_COUNT];
    uint64_t marks[SIM_MARK_COUNT];
    uint64_t outcomes[4];
    uint64_t tampered;
    uint64_t seeds, calls, abandoned, effects, doubled, events, bytes;
    uint64_t hash; /* of everything that happened */
};

/* STORE and STEADY have servers that outlive themselves; in STEADY all calls are exactly once, and
 * the stores always survive. */
enum sim_mode { SIM_SWARM, SIM_CALM, SIM_FULL, SIM_HOSTILE, SIM_STORE, SIM_STEADY };

struct sim_options {
    enum sim_mode mode;
    uint32_t calls; /* per seed */
    bool dedup_off;
    bool lying_disk; /* commits are answered before they are synced */
    bool verbose;
    uint64_t with, only, without; /* fault bits */
    uint32_t clients, target;     /* at most; 0: as the seed says */
    const char *trace;            /* a folder: trace.c */
};

static inline bool sim_has_stores(const struct sim_options *options)
{
    return options->mode == SIM_STORE || options->mode == SIM_STEADY;
}

/* ---- events -------------------------------------------------------------------------------- */

struct sim_world;
struct sim_event;
typedef void (*sim_fire_fn)(struct sim_world *world, struct sim_event *event);

struct sim_event {
    struct sml_heap_node node;
    sim_fire_fn fire;
};

/* ---- memory -------------------------------------------------------------------------------- */

/* What one client or one server incarnation holds; a crash wipes it. */
struct sim_arena {
    struct sml_mem mem;
    struct sml_list blocks;
    uint64_t count, bytes, bytes_most;
    uint32_t failures_left; /* allocations still to fail, every other one */
    uint64_t failed;
};

void sim_arena_init(struct sim_arena *arena);
void sim_arena_wipe(struct sim_arena *arena);

/* ---- the ledger ---------------------------------------------------------------------------- */

enum sim_behaviour {
    SIM_DO_REPLY,
    SIM_DO_FAIL,
    SIM_DO_DROP,
    SIM_DO_HANG, /* until cancelled */
    SIM_DO_DEAF, /* does not listen to cancellation */
    SIM_DO_NO_METHOD
};

enum sim_kind {
    SIM_ONCE, /* with a store: unknown if the server dies in it */
    SIM_IDEMPOTENT,
    SIM_RERUN,   /* once; runs again if the server died in it */
    SIM_RESOLVE, /* once; its own handler finds out */
    SIM_TXN
};

/* With a store: what else is asked for, and what happened. Where several calls share a key, what
 * happened is in the row of the one that had it first, their unit. */
struct sim_durable_row {
    uint32_t contents; /* the call whose method, type and body these are */
    uint32_t unit;
    uint32_t ran;              /* whose contents ran */
    uint32_t server;           /* where it ran last, from 1 */
    uint8_t deaths;            /* times its handler kills the server */
    uint8_t died;              /* times it did */
    uint8_t spoils;            /* transactions that it spoils; SIM_ALWAYS */
    bool spoiler;              /* it spoils some */
    bool spoils_commit;        /* at the commit, not before */
    uint8_t counted;           /* runs that should be the only one */
    uint8_t effect_run;        /* the run whose effect stands */
    uint8_t told;              /* the run whose verdict was told; 0: none yet */
    uint8_t seen;              /* the outcome told to a process that died, from 1 */
    bool keyed, shared, mixed; /* has a key; others have it, too; with other contents */
    bool stored;               /* its start was */
    bool withdrawn;            /* a process that died had cancelled it */
    bool forgiven;             /* its store was put back, or its key is kept no longer */
    bool loose;                /* and has run since then */
    bool happened;             /* in some run of these contents */
    uint64_t begun_at, touched_at, request;
    uint64_t home; /* the store that its key was sent to */
};
#define SIM_ALWAYS 255

/* The streams of a call. */
struct sim_flow_plan {
    uint8_t up, down; /* parts */
    bool sends, takes, progress, big;
    bool slow_caller, slow_handler; /* they read slowly */
};

enum sim_row_state { SIM_ROW_FRESH, SIM_ROW_OPEN, SIM_ROW_DONE, SIM_ROW_ABANDONED };

/* One call as the oracle knows it: what was asked for, and what happened. */
struct sim_row {
    uint64_t submitted, deadline, cancelled_at, max_run, run; /* ns; SML_NEVER for none */
    uint32_t body_bytes, reply_bytes;
    uint32_t last_session; /* serial of the session of its last run */
    uint32_t client;
    uint8_t behaviour, state, outcome, status, call_flags;
    uint8_t kind; /* enum sim_kind */
    bool effect_late, in_content_type, dropped, dirty;
    uint8_t runs, effects;
    struct sim_flow_plan flow;
    struct sim_durable_row durable; /* with a store */
};

/* The caller's end of a call's streams. */
struct sim_flow {
    struct sml_stream stream;
    struct sim_event event;
    struct sim_client *client;
    uint32_t sent, got, run, attempt, progress;
    uint32_t others; /* calls done when its reader stopped */
    uint64_t losses; /* of connections, when the first part came */
    uint64_t read_at;
    bool told_end;
};

/* The submitter's memory for one open call. */
struct sim_slot {
    struct sml_call call;
    struct sml_list link; /* client's open calls, or the world's free slots */
    uint32_t nonce;
    bool in_flight, canceled;
    void *copy;           /* an exact copy of the body where bounds are checked */
    struct sim_flow flow; /* if the call has a stream */
    char method[16], content_type[12], key[12];
};

#define SIM_BODY_MAX (300u * 1024)
#define SIM_POOL_HOT (64u * 1024)
#define SIM_TEXT_POOL (16u * 1024)

/* Bytes that belong to call `nonce`; `what` tells its body from the parts of its reply. */
enum sim_what { SIM_BODY, SIM_REPLY, SIM_TEXT, SIM_DETAIL, SIM_TRACE };
const uint8_t *sim_bytes(const struct sim_world *world, uint32_t nonce, enum sim_what what,
                         size_t bytes);

/* Each run of a handler answers with other bytes: as call `nonce` with this name. */
static inline uint32_t sim_answer_name(uint32_t nonce, uint8_t run)
{
    return nonce | (uint32_t)(run - 1) << 24;
}

struct sim_failure_shape {
    int32_t code;
    uint32_t text, detail, trace; /* bytes */
};
struct sim_failure_shape sim_failure_shape(const struct sim_world *world, uint32_t nonce);

void sim_row_plan(struct sim_world *world, uint32_t nonce);
/* Method and content type of a call. Returns the method's bytes. */
uint8_t sim_row_name(const struct sim_row *row, uint32_t nonce, char method[16], char type[12]);
void sim_row_count(struct sim_world *world, const struct sim_row *row);
void sim_slot_fill(struct sim_world *world, struct sim_slot *slot, uint32_t nonce);

/* Which call a request says it is; checks that method, type and body are that call's, and that it
 * came over a session of the client that made it. False: nobody sent it so (a violation unless
 * hostile). */
bool sim_ledger_identify(struct sim_world *world, const struct sml_incoming *in, uint32_t client,
                         uint32_t *out_nonce);
void sim_ledger_begin(struct sim_world *world, uint32_t nonce, uint32_t session);
void sim_ledger_effect(struct sim_world *world, uint32_t nonce);
/* The call has its verdict; the application has it. */
void sim_ledger_done(struct sim_world *world, struct sim_slot *slot);
void sim_ledger_settle(struct sim_world *world, uint32_t nonce);
void sim_ledger_close(struct sim_world *world);

/* ---- network ------------------------------------------------------------------------------- */

struct sim_conn;

struct sim_pipe {
    struct sim_event deliver;
    struct sim_conn *conn;
    uint8_t *buffer;
    size_t read, avail, end; /* consumed <= delivered <= written */
    size_t capacity;
    size_t rate; /* bytes per delivery; 0: all */
    uint64_t stalled_until;
    uint32_t split; /* deliveries still to be cut into small pieces */
    bool upward;    /* client to server */
    bool dead;      /* what is written vanishes */
    bool untold;    /* its reader will not learn that the writer is gone */
    bool eof;       /* the end follows the written bytes */
    bool full;      /* the writer was stopped */
    bool cut_mid;   /* cut inside the next frame written */
};

struct sim_conn {
    struct sml_list all;
    struct sim_pipe up, down;
    struct sim_event connect, kill, peer_timer;
    struct sim_client *client; /* NULL: the client's end is closed */
    struct sim_server *server; /* NULL: the server's end is closed */
    uint32_t address;
    uint32_t number;
    bool connected;                 /* the client was told so */
    uint64_t accepted_at, heard_at; /* by the server */
    bool faulty;                    /* somebody will not learn of its end by itself */
    bool states_seen, loser;
    uint32_t client_index;
    struct sim_raw *owner; /* hostile peer at the client's end */
    struct sml_peer peer;
};

void sim_conn_open(struct sim_world *world, struct sim_client *client, uint32_t address);
/* The client closes: what it wrote may still arrive. */
void sim_conn_close_client(struct sim_world *world, struct sim_conn *conn);
void sim_conn_close_server(struct sim_world *world, struct sim_conn *conn);
void sim_conn_flush_client(struct sim_world *world, struct sim_conn *conn);
void sim_conn_flush_server(struct sim_world *world, struct sim_conn *conn);
/* Both directions end; `mid_frame`: inside a frame where possible. Returns whether it was. */
bool sim_conn_cut(struct sim_world *world, struct sim_conn *conn, bool mid_frame);
void sim_conn_half_open(struct sim_world *world, struct sim_conn *conn, bool client_learns,
                        uint64_t until);
void sim_conn_stall(struct sim_world *world, struct sim_pipe *pipe, uint64_t until);
void sim_conn_heal(struct sim_world *world, struct sim_conn *conn);
void sim_conn_reap(struct sim_world *world, struct sim_conn *conn);
struct sim_conn *sim_conn_new(struct sim_world *world, uint32_t address);
void sim_pipe_write(struct sim_world *world, struct sim_pipe *pipe, const uint8_t *data,
                    size_t bytes);
void sim_net_fini(struct sim_world *world);
uint64_t sim_latency(struct sim_world *world);

/* ---- clients ------------------------------------------------------------------------------- */

#define SIM_CLIENTS_MAX 8
#define SIM_NOBODY (SIM_CLIENTS_MAX - 1) /* stands for peers that are no clients */
#define SIM_STASH_BYTES 512

struct sim_client {
    struct sml_link link;
    struct sim_arena arena;
    struct sml_entropy entropy;
    struct sim_event timer, submit, fault, accept, bury;
    struct sim_outbox *outbox;  /* NULL: a crash loses all */
    struct sml_list open;       /* slots submitted and not done */
    struct sml_list unaccepted; /* slots done, their acceptance delayed */
    struct sim_conn *conn;
    uint32_t index, in_flight, target, ticks_at_once;
    uint64_t ticked_at, down_since, lost_at, stopped_at;
    uint64_t sessionless_at; /* when it last had no session and asked for none */
    enum sim_fault next_fault;
    uint64_t next_fault_for;
    bool alive, pumping, again, was_up, late_hello, no_accept;
    uint32_t refuse_connects, silent_connects;
    struct sml_principal principal;
    uint8_t stash[SIM_STASH_BYTES]; /* a CALL to deliver a second time */
    size_t stash_bytes;
    struct sml_session_id stash_session;
    uint32_t duplicates_due;
    bool dirty;                      /* its bytes were tampered with: contents prove nothing */
    uint32_t tamper_up, tamper_down; /* one flush in so many */
    bool poisoned, cloned, failed, ending;
};

void sim_client_start(struct sim_world *world, struct sim_client *client);
void sim_client_pump(struct sim_world *world, struct sim_client *client);
void sim_client_input(struct sim_world *world, struct sim_client *client, struct sim_pipe *pipe);
void sim_client_connected(struct sim_world *world, struct sim_client *client);
void sim_client_connect_failed(struct sim_world *world, struct sim_client *client,
                               enum semel_status why);
void sim_client_ended(struct sim_world *world, struct sim_client *client, enum semel_status why,
                      bool mid_frame);
void sim_client_stop(struct sim_world *world, struct sim_client *client, bool again);
void sim_client_crash(struct sim_world *world, struct sim_client *client, bool again);
/* Its contents prove nothing from now on. */
void sim_client_soil(struct sim_world *world, struct sim_client *client);
void sim_client_accept_all(struct sim_world *world, struct sim_client *client);
/* The application has the result; perhaps it says so later. */
void sim_client_accept(struct sim_world *world, struct sim_client *client, struct sim_slot *slot);
void sim_slot_free(struct sim_world *world, struct sim_slot *slot);

/* ---- servers ------------------------------------------------------------------------------- */

#define SIM_SERVERS_MAX 2

/* The shell's part of a session; session->user. */
struct sim_session {
    struct sml_session *session;
    struct sim_server *server;
    struct sim_event timer;
    struct sml_list dirty, all;
    struct sml_list stalled;     /* jobs that wait until stored replies were fetched */
    struct sml_list commit_link; /* there is something to store */
    uint32_t serial;
    uint32_t client_tag; /* who made it */
    bool ended, told;    /* `told`: it is being looked at, and must stay */
    uint32_t ticks_at_once;
    uint64_t ticked_at;
};

/* A handler's end of its call's streams. */
struct sim_job_flow {
    struct sim_event event;
    uint32_t sent, got, run;
    uint64_t read_at, moved_at;
    bool active, done;
};

struct sim_job {
    struct sim_event finish;
    struct sim_job_flow flow;
    struct sml_list link;
    struct sim_session *session;
    struct sml_incoming *in;
    uint32_t nonce;
    bool running, known, cancelled;
    uint8_t kind; /* enum sim_kind; with a store */
    bool started; /* its start is stored */
    bool alone;   /* it is to have a transaction of its own */
    bool again;   /* an interrupted call cost it one: not together with calls that begin */
};

struct sim_server {
    struct sml_host host;
    struct sim_arena arena;
    struct sml_entropy entropy;
    struct sml_list sessions; /* sim_session, ended ones with held calls included */
    struct sml_list dirty;    /* sessions to pump */
    struct sml_list queue;    /* jobs waiting */
    struct sml_list running;
    uint32_t queued, busy; /* jobs waiting, workers taken */
    struct sim_event timer, restart;
    uint64_t died_at, stopped_at;
    uint32_t index, incarnation;
    bool up, stopping, pumping;
    bool dying, powerless;   /* it does nothing more: sim_server_die */
    struct sim_store *store; /* NULL: nothing outlives it */
    struct sim_commit *commit;
};

void sim_server_start(struct sim_world *world, struct sim_server *server);
void sim_server_kill(struct sim_world *world, struct sim_server *server, bool silent,
                     uint64_t down);
void sim_server_shutdown(struct sim_world *world, struct sim_server *server);
void sim_server_accept(struct sim_world *world, struct sim_server *server, struct sim_conn *conn);
void sim_server_input(struct sim_world *world, struct sim_server *server, struct sim_conn *conn);
void sim_server_ended(struct sim_world *world, struct sim_conn *conn);
void sim_server_mark(struct sim_server *server, struct sim_session *session);
void sim_server_pump(struct sim_world *world, struct sim_server *server);
void sim_server_settle(struct sim_world *world, struct sim_conn *conn);
void sim_session_release(struct sim_world *world, struct sim_session *info);
struct sim_session *sim_session_new(struct sim_world *world, struct sim_server *server,
                                    struct sml_session *session, uint32_t client);
void sim_session_check(struct sim_world *world, const struct sim_session *info);
void sim_server_fini(struct sim_world *world, struct sim_server *server);

/* handlers.c */
void sim_jobs_take(struct sim_world *world, struct sim_session *info);
void sim_jobs_run(struct sim_world *world, struct sim_server *server);
/* Back into the queue, if stored replies are few enough again or nobody will fetch them. */
void sim_jobs_unstall(struct sim_session *info);
void sim_jobs_cancel(struct sim_world *world, struct sim_session *info);
void sim_jobs_drop_all(struct sim_world *world, struct sim_server *server);
struct sim_job *sim_job_new(struct sim_world *world, struct sim_session *info,
                            struct sml_incoming *in);
void sim_job_free(struct sim_world *world, struct sim_job *job);
/* The request is over; its call was given to the machine. */
void sim_job_let_go(struct sim_world *world, struct sim_job *job);
/* What the call's handler says, in memory of the session. Returns whether it has its effect. */
bool sim_job_answer(struct sim_world *world, struct sim_job *job, struct sml_verdict *verdict,
                    uint8_t **out_reply);
void sim_job_count(struct sim_world *world, const struct sim_row *row);

/* ---- streams ------------------------------------------------------------------------------- */

void sim_flow_plan(struct sim_world *world, struct sim_row *row);
/* `first` is the row whose contents it has. */
void sim_flow_plan_durable(const struct sim_world *world, struct sim_row *row,
                           const struct sim_row *first);
void sim_flow_count(struct sim_world *world, const struct sim_row *row);

void sim_flow_open(struct sim_world *world, struct sim_slot *slot);
void sim_flow_submitted(struct sim_world *world, struct sim_client *client, struct sim_slot *slot);
void sim_flow_events(struct sim_world *world, struct sim_client *client);
/* The call is done: what is left is read, and judged. */
void sim_flow_done(struct sim_world *world, struct sim_client *client, struct sim_slot *slot);
/* The slot is let go, with or without that. */
void sim_flow_close(struct sim_world *world, struct sim_slot *slot);

void sim_flow_init(struct sim_job *job);
bool sim_flow_begin(struct sim_world *world, struct sim_job *job);
/* Has it read and said all? */
bool sim_flow_is_complete(const struct sim_world *world, const struct sim_job *job);
void sim_flow_job(struct sim_world *world, struct sim_job *job);
void sim_flow_cancelled(struct sim_world *world, struct sim_job *job);
void sim_flows_pump(struct sim_world *world, struct sim_session *info);

/* ---- faults -------------------------------------------------------------------------------- */

/* A call was submitted: perhaps something goes wrong. */
void sim_faults_on_submit(struct sim_world *world, struct sim_client *client);
void sim_faults_init(struct sim_client *client);
void sim_faults_duplicate(struct sim_world *world, struct sim_client *client, struct sim_pipe *pipe,
                          size_t from);

/* ---- hostile ------------------------------------------------------------------------------- */

#define SIM_RAW_MAX 6

struct sim_raw {
    struct sim_event act;
    struct sim_conn *conn;
    uint32_t rounds;
    bool said_hello;
    uint64_t next_xid, conn_no;
    struct sml_session_id session;
    uint8_t secret[32];
};

struct sim_hostile {
    struct sim_raw raw[SIM_RAW_MAX];
    uint32_t count;
    uint8_t *scratch;
};

void sim_hostile_init(struct sim_world *world);
void sim_hostile_stop(struct sim_world *world);
void sim_hostile_fini(struct sim_world *world);
void sim_hostile_tamper(struct sim_world *world, struct sim_client *client, struct sim_pipe *pipe,
                        size_t from);
void sim_hostile_draw(struct sim_world *world, struct sim_client *client);
void sim_hostile_gone(struct sim_world *world, struct sim_conn *conn);
void sim_hostile_fed(struct sim_world *world, const struct sim_client *client);
bool sim_hostile_failed(struct sim_world *world, struct sim_client *client);

/* ---- the world ----------------------------------------------------------------------------- */

enum sim_phase { SIM_LOAD, SIM_HEAL, SIM_SETTLE, SIM_LEAVE, SIM_OVER };

struct sim_params {
    uint64_t menu; /* fault bits switched on */
    uint32_t clients, addresses, servers;
    uint32_t target; /* calls one client keeps open */
    uint32_t batch;  /* submitted at once */
    uint64_t gap;    /* ns between batches */
    uint64_t latency_low, latency_high;
    uint64_t deadline; /* the usual one */
    bool no_deadlines;
    uint32_t workers, backlog;
    uint32_t busy_ms;
    size_t pipe_bytes;
    uint32_t calls_per_fault;
    uint32_t big_in;                   /* one body in so many is big */
    bool exact;                        /* bodies and inputs in memory of exactly their size */
    uint64_t windows_up, windows_down; /* what other streams of a session hold, at each end */
    struct sml_link_options link;
    struct sml_host_options host;
};

struct sim_world {
    uint64_t now;
    struct sml_heap events;
    struct sim_rng load, net, faults;
    const struct sim_options *options;
    struct sim_stats *stats;
    uint64_t seed;
    struct sim_params params;
    enum sim_phase phase;
    struct sim_event phase_event;
    uint64_t phase_end;

    struct sim_row *rows;
    uint32_t calls, issued, done;
    struct sml_list free_slots;
    const uint8_t *pool, *text;

    struct sim_client clients[SIM_CLIENTS_MAX];
    struct sim_server servers[SIM_SERVERS_MAX];
    struct sml_list conns, free_conns, free_jobs, free_sessions;
    uint32_t conn_count, session_serial, flow_runs;
    uint8_t *scratch;
    struct sim_hostile hostile;

    uint64_t event_count, hash, same_time;
    bool failed, doubled;
    char why[512];
    struct sim_durable *durable; /* NULL: nobody has a store */
    struct sim_server *dying;
    struct sim_trace *trace; /* NULL: none is written */
};

static inline bool sim_on(const struct sim_world *world, enum sim_fault fault)
{
    return (world->params.menu & SIM_BIT(fault)) != 0;
}

static inline void sim_note(struct sim_world *world, uint64_t what)
{
    world->hash = sim_mix(world->hash ^ what) + UINT64_C(0x9e3779b97f4a7c15);
}

static inline void sim_mark(struct sim_world *world, enum sim_mark mark)
{
    world->stats->marks[mark]++;
}

void sim_event_init(struct sim_event *event, sim_fire_fn fire);
/* Fire at `when` exactly / at `when` or earlier (timers look again themselves). */
void sim_at(struct sim_world *world, struct sim_event *event, uint64_t when);
void sim_by(struct sim_world *world, struct sim_event *event, uint64_t when);
void sim_off(struct sim_world *world, struct sim_event *event);

/* The first violation ends the run. */
void sim_fail(struct sim_world *world, const char *format, ...) SML_PRINTF(2, 3);
void sim_say(const struct sim_world *world, const char *format, ...) SML_PRINTF(2, 3);
void sim_params_draw(struct sim_world *world);

/* Run one seed. False: `out_why` says which invariant broke. */
bool sim_world_run(const struct sim_options *options, uint64_t seed, struct sim_stats *stats,
                   char *out_why, size_t why_bytes);

/* The command line. */
int sim_main(int argc, char **argv);

/* ---- traces for the model: trace.c ----------------------------------------------------------- */

/* None of these does anything in a world without a trace; with one its menu is a smaller one. */
uint64_t sim_trace_menu(const struct sim_world *world, uint64_t menu);
void sim_trace_begin(struct sim_world *world);
void sim_trace_quiet(struct sim_world *world);
void sim_trace_end(struct sim_world *world);
/* Are more faults to come, though there are no more calls? */
bool sim_trace_lingers(const struct sim_world *world);
/* What an end has written, or the server has read. */
void sim_trace_written(struct sim_world *world, const struct sim_pipe *pipe, const uint8_t *data,
                       size_t size);
void sim_trace_read(struct sim_world *world, const uint8_t *data, size_t size);
/* A HELLO was accepted. */
void sim_trace_hello(struct sim_world *world, const struct sml_hello *hello);
/* The client's link has read something. */
void sim_trace_client(struct sim_world *world, struct sim_client *client);
void sim_trace_done(struct sim_world *world, const struct sml_call *call);
/* Its handler: "run", "effect". */
void sim_trace_call(struct sim_world *world, const struct sim_job *job, const char *what);
void sim_trace_finish(struct sim_world *world, const struct sim_job *job,
                      enum semel_outcome outcome);
void sim_trace_stop(struct sim_world *world, const struct sim_server *server);
void sim_trace_left(struct sim_world *world);
void sim_trace_died(struct sim_world *world, const struct sim_server *server);

/* ---- report -------------------------------------------------------------------------------- */

uint64_t sim_faults_counted(const struct sim_stats *stats);
const char *sim_fault_word(enum sim_fault fault);
/* 0 if there is no such fault. */
uint64_t sim_fault_bit(const char *word);
void sim_report_details(const struct sim_stats *stats);
/* Everything on the menu, and every state, must have been reached. False: says what is missing. */
bool sim_report_complete(const struct sim_stats *stats, enum sim_mode mode);

#endif
