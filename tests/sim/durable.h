/* SPDX-License-Identifier: MIT */
/* durable.h - the part of the simulator where servers and clients outlive their processes.
 *
 *   store.c    a server's store: tables, transactions, savepoints; the disk below it
 *   commit.c   the committer: batches of changes, one transaction after the other
 *   txn.c      transactional handlers inside them
 *   keys.c     idempotency keys
 *   restore.c  what a new process makes of the store
 *   life.c     deaths, orderly ends, copies put back
 *   outbox.c   a client's file: its identity, its keyed calls, their results
 *   watch.c    frames as they are written: what is told must be on the disk
 *   judge.c    the oracle for calls of servers with a store
 *   causes.c   what may end a call there without an answer
 *
 * The committer does what that of the real shell does (rpc/commit.h), one step of virtual time
 * after the other, so that everything else may happen in between, and everybody may die.
 *
 * The disk. A transaction is written, then synced, then answered. When the process dies, what was
 * written stays; in a power cut what was not synced is lost, unless all its sectors happen to have
 * reached the platters. Nothing that was told may be lost by either. */
#ifndef SIM_DURABLE_H
#define SIM_DURABLE_H

#include "sim.h"

#include "session/outbox.h"
#include "session/record.h"
#include "store/store.h"

/* ---- the store ----------------------------------------------------------------------------- */

enum sim_table {
    SIM_TABLE_SESSIONS,
    SIM_TABLE_CALLS,
    SIM_TABLE_KEYS,
    SIM_TABLE_EFFECTS,
    SIM_TABLES
};

struct sim_cell {
    uint64_t key; /* of sessions and calls their number, of keys the hash's beginning, of effects
                     the call that owns them */
    uint64_t txn; /* that wrote it */
    uint64_t kept_since;
    uint32_t bytes;
    uint8_t data[];
};

enum sim_trouble {
    SIM_FINE,
    SIM_FAILED,    /* perhaps by what was in the transaction */
    SIM_FULL_DISK, /* nothing is taken from anybody now */
    SIM_SPOILT     /* by what was in the transaction */
};

struct sim_undo {
    enum sim_table table;
    uint64_t key;
    struct sim_cell *old; /* NULL: there was none */
};

struct sim_copy; /* of a store, as an operator has it in a drawer */

struct sim_store {
    struct sml_table tables[SIM_TABLES];
    struct sim_undo *log; /* of transactions not synced, and of the open one */
    uint32_t log_count, log_room;
    uint32_t written; /* of these, those of a transaction that was written */
    uint32_t guard;   /* of these, those before the savepoint */
    uint64_t txn;     /* of the open one, or the last one */
    uint64_t synced;  /* transactions up to here survive everything */
    bool open, unsynced;
    uint64_t rows[2];          /* numbers given, of sessions and calls */
    uint64_t rows_before[2];   /* the same, before the transaction that was not synced */
    uint64_t clock_ms, opened; /* its clock when it was opened, and when that was */
    uint64_t clock_saved;
    uint8_t id[16];
    uint64_t generation, generations; /* the greatest there ever was */
    bool has_mark;                    /* survives the process, not the machine */
    struct sml_mark mark;
    bool has_suspect; /* the process before this one died with this mark */
    struct sml_mark suspect;
    enum sim_trouble why;
    enum sim_trouble fails_as;
    uint32_t fail_in;    /* operations until one fails; 0: none does */
    uint64_t full_until; /* nothing is taken */
    bool spoilt;         /* the handler has ended the transaction, ... */
    bool spoils;         /* ... or its commit will fail */
    bool unknown_next, failing;
    uint64_t slow_until;
    struct sim_copy *copy;
    uint64_t copied_at;
};

struct sim_store *sim_store_new(struct sim_world *world);
void sim_store_free(struct sim_store *store);
/* A process opens it. What it finds is durable then. */
void sim_store_open(struct sim_world *world, struct sim_store *store);
uint64_t sim_store_clock(const struct sim_world *world, const struct sim_store *store);

/* As in store/store.h. What is not stored has ended the transaction. */
enum sml_stored sim_store_begin(struct sim_world *world, struct sim_store *store);
enum sml_stored sim_store_put(struct sim_world *world, struct sim_store *store,
                              enum sim_table table, uint64_t *row, struct semel_bytes record);
enum sml_stored sim_store_put_key(struct sim_world *world, struct sim_store *store,
                                  const uint8_t hash[32], uint64_t kept_since,
                                  struct semel_bytes record);
enum sml_stored sim_store_forget(struct sim_world *world, struct sim_store *store,
                                 enum sim_table table, uint64_t key);
void sim_store_rollback(struct sim_store *store);
void sim_store_guard(struct sim_store *store);
enum sml_stored sim_store_unguard(struct sim_store *store, bool keep);
/* The two halves of a commit. */
void sim_store_write(struct sim_world *world, struct sim_store *store);
void sim_store_sync(struct sim_store *store);

const struct sim_cell *sim_store_find(const struct sim_store *store, enum sim_table table,
                                      uint64_t key);
/* As it would be after a power cut. */
const struct sim_cell *sim_store_find_durable(const struct sim_store *store, enum sim_table table,
                                              uint64_t key);
/* The effect of a transactional call: the run that had it. */
void sim_store_effect(struct sim_world *world, struct sim_store *store, uint32_t unit, uint8_t run);
uint64_t sim_key_number(const uint8_t hash[32]);

/* The process that had it open is dead; the machine is. */
void sim_store_process_died(struct sim_world *world, struct sim_store *store);
void sim_store_power_cut(struct sim_world *world, struct sim_store *store);
/* A copy of what is durable; and the store as it was then. */
void sim_store_copy(struct sim_world *world, struct sim_store *store);
void sim_store_put_back(struct sim_store *store);
/* No sessions, and a generation of its own. */
void sim_store_renew(struct sim_store *store);

/* ---- the committer ------------------------------------------------------------------------- */

#define SIM_BATCH_CALLS 64
#define SIM_BATCH_CHANGES 256
#define SIM_BATCH_SESSIONS 64

enum sim_key_state { SIM_KEY_FREE, SIM_KEY_TAKEN, SIM_KEY_ANSWERED };

struct sim_key_answer {
    enum sim_key_state state;
    struct sml_verdict verdict;
    uint8_t *reply;
    bool proven, begun;
};

struct sim_entry {
    struct sml_change change;
    uint64_t row;
    struct sim_key_answer key;
};

struct sim_part { /* of a batch: one session's changes */
    struct sim_session *info;
    enum sml_session_change change;
    uint64_t conn_no, row;
    uint8_t *record;
    size_t record_bytes;
    uint32_t first, count;
};

struct sim_txn_call {
    struct sim_job *job;
    uint64_t row;
    bool decided;
};

enum sim_commit_state {
    SIM_COMMIT_IDLE,
    SIM_COMMIT_HANDLER, /* a transactional handler runs */
    SIM_COMMIT_WRITING,
    SIM_COMMIT_SYNCING,
    SIM_COMMIT_FAILING /* its failure takes its time, too */
};

enum sim_purpose { SIM_FOR_CHANGES, SIM_FOR_CALLS, SIM_FOR_PURGE, SIM_FOR_RESTORE };

/* Where a server may be made to die. */
enum sim_point {
    SIM_NO_POINT,
    SIM_AT_START_UNSTORED,
    SIM_AT_START_STORED,
    SIM_AT_HANDLER,
    SIM_AT_END_UNSTORED,
    SIM_AT_UNTOLD,
    SIM_AT_TXN,
    SIM_AT_UNSYNCED,
    SIM_AT_RESTORE,
    SIM_POINTS
};

struct sim_commit {
    struct sim_server *server;
    struct sim_event step;
    enum sim_commit_state state;
    enum sim_purpose purpose;
    enum sml_stored fate;            /* of the transaction that is on its way */
    struct sml_list dirty;           /* sessions with something to store */
    struct sml_list unstarted, txns; /* jobs that wait for it */
    struct sml_list held;            /* jobs that it has */
    uint32_t unstarted_count, txn_count, starting, queued_started;
    bool urgent, broken, closed;
    uint64_t lazy_since, retry_at, purge_at;
    struct sim_part parts[SIM_BATCH_SESSIONS];
    struct sim_entry entries[SIM_BATCH_CHANGES];
    uint32_t part_count, entry_count, urgent_count;
    struct sim_txn_call calls[SIM_BATCH_CALLS];
    uint32_t call_count, ran;
    bool overtaken;          /* lost by a call that was interrupted, and has ended */
    bool again;              /* what runs was lost so before */
    struct sim_job *running; /* its handler does */
    uint64_t handler_until, batch_until;
    enum sim_point die_at;
    bool die_powerless;
};

struct sim_commit *sim_commit_new(struct sim_world *world, struct sim_server *server);
void sim_commit_free(struct sim_commit *commit);
/* For a new process; or because the old one is gone. */
void sim_commit_reset(struct sim_world *world, struct sim_commit *commit);
/* The session may have something to store. */
void sim_commit_touch(struct sim_world *world, struct sim_session *info);
/* Come back in time. */
void sim_commit_plan(struct sim_world *world, struct sim_commit *commit);
/* What is pulled into the batch; written into the open transaction; told. */
void sim_commit_collect(struct sim_world *world, struct sim_commit *commit);
enum sml_stored sim_commit_apply(struct sim_world *world, struct sim_commit *commit);
void sim_commit_answer(struct sim_world *world, struct sim_commit *commit, bool committed);
/* The open transaction goes on its way; its end comes later. */
void sim_commit_send(struct sim_world *world, struct sim_commit *commit, enum sim_purpose purpose);
/* A transaction was not committed. */
void sim_commit_trouble(struct sim_world *world, struct sim_commit *commit, enum sml_stored stored);
/* Nothing is under way, and nothing is left. */
bool sim_commit_is_done(const struct sim_commit *commit);
enum sml_stored sim_commit_put_call(struct sim_world *world, struct sim_commit *commit,
                                    const struct sml_session *session,
                                    const struct sml_incoming *in, enum sml_call_record_state state,
                                    uint64_t *row);
/* It begins, or is given up, or waits. */
void sim_commit_admit(struct sim_world *world, struct sim_session *info, struct sml_incoming *in);
/* What was stalled goes on. */
void sim_commit_readmit(struct sim_commit *commit, struct sim_job *job);
/* The server stops: nothing more begins. */
void sim_commit_close(struct sim_world *world, struct sim_commit *commit);

/* txn.c */
/* Run waiting transactional calls. Returns whether there were any. */
bool sim_txn_round(struct sim_world *world, struct sim_commit *commit);
void sim_txn_handler_ended(struct sim_world *world, struct sim_commit *commit);
void sim_txn_concluded(struct sim_world *world, struct sim_commit *commit, enum sml_stored stored);

/* keys.c */
enum sml_stored sim_key_put(struct sim_world *world, struct sim_commit *commit,
                            const struct sml_session *session, const struct sml_incoming *in,
                            bool ended);
/* Of a call that has begun and will not end its key says nothing any more; or, if an earlier server
 * began it, that whoever uses it next may not be the first. */
enum sml_stored sim_key_free(struct sim_world *world, struct sim_commit *commit,
                             const struct sml_session *session, const struct sml_incoming *in);
enum sml_stored sim_key_ask(struct sim_world *world, struct sim_commit *commit,
                            struct sml_session *session, const struct sml_incoming *in,
                            struct sim_key_answer *out);
enum sml_stored sim_key_purge(struct sim_world *world, struct sim_commit *commit, bool *out_more);
/* semel_request_key's first bytes. */
uint64_t sim_request_key(const struct sml_session *session, const struct sml_incoming *in);

/* ---- life and death of servers ------------------------------------------------------------- */

/* A sml_callee_methods. */
bool sim_keeps_records(void *user, struct semel_bytes method);

/* What is in the store becomes sessions; up to then the server is down. */
void sim_restore(struct sim_world *world, struct sim_server *server);
void sim_restore_concluded(struct sim_world *world, struct sim_commit *commit,
                           enum sml_stored stored);
/* The process dies, before anything else happens; `powerless`: with its machine. */
void sim_server_die(struct sim_world *world, struct sim_server *server, bool powerless);
/* ... if that is what was drawn. */
bool sim_point(struct sim_world *world, struct sim_commit *commit, enum sim_point point);
/* The process is gone: what becomes of its store. */
void sim_life_ended(struct sim_world *world, struct sim_server *server);
/* It stops in good order. */
void sim_life_stop(struct sim_world *world, struct sim_server *server);
/* An operator puts an old copy back when the server is down. */
void sim_life_put_back(struct sim_world *world, struct sim_server *server, bool renew);
void sim_life_strike(struct sim_world *world, struct sim_client *client, enum sim_fault fault);

/* ---- clients ------------------------------------------------------------------------------- */

enum sim_letter_state {
    SIM_LETTER_WAITS, /* to be submitted by this process */
    SIM_LETTER_OUT,   /* submitted */
    SIM_LETTER_DONE   /* its result is written down */
};

struct sim_letter {
    uint32_t nonce;
    enum sim_letter_state state;
    uint64_t posted_ms; /* when it was submitted first, by the wall's clock */
};

/* What survives a client. */
struct sim_outbox {
    bool has_identity;
    uint8_t file[SML_IDENTITY_RECORD_BYTES];
    struct sim_letter *letters;
    uint32_t count, room, waiting;
    int64_t clock_off; /* of the wall's clock, ns */
    uint64_t lost_at;
    bool stepped;
    /* Of the process. */
    struct sim_client *client;
    struct sim_event save, record;
    uint8_t saving[SML_IDENTITY_RECORD_BYTES];
    uint64_t wall_ms; /* the latest it has seen */
    uint32_t fail_saves;
    struct sml_list unrecorded; /* slots that are done, their results not yet written down */
};

void sim_outbox_start(struct sim_world *world, struct sim_client *client);
void sim_outbox_stop(struct sim_world *world, struct sim_client *client, bool crashed);
/* The link wants its identity saved. */
void sim_outbox_save(struct sim_world *world, struct sim_client *client);
void sim_outbox_add(struct sim_world *world, struct sim_client *client, uint32_t nonce);
/* The next call that a process before this one had not ended; false: none. */
bool sim_outbox_next(struct sim_world *world, struct sim_client *client, struct sim_slot *slot);
void sim_outbox_submitted(struct sim_client *client, uint32_t nonce);
/* Its result is here. Returns whether it must be written down first. */
bool sim_outbox_done(struct sim_world *world, struct sim_client *client, struct sim_slot *slot);
bool sim_outbox_has_work(const struct sim_client *client);
uint64_t sim_wall_ms(const struct sim_world *world, const struct sim_outbox *outbox);
/* What is in the file; false: nothing. */
bool sim_outbox_identity(const struct sim_outbox *outbox, struct sml_identity_record *out);

/* ---- the oracle ---------------------------------------------------------------------------- */

/* What was just written. */
void sim_watch_written(struct sim_world *world, struct sim_pipe *pipe, const uint8_t *data,
                       size_t size);
/* A client's process begins. */
void sim_watch_begin(struct sim_world *world, const struct sim_client *client);
/* What a client is about to read; and has read. */
struct sim_watch {
    bool must_lose;
    uint64_t lost;
};
void sim_watch_reading(struct sim_world *world, struct sim_client *client, const uint8_t *data,
                       size_t size, struct sim_watch *out);
void sim_watch_read(struct sim_world *world, struct sim_client *client,
                    const struct sim_watch *watch);
/* The client has the call's verdict, has accepted it, has another session. */
void sim_watch_answered(struct sim_world *world, struct sim_client *client,
                        const struct sml_call *call);
void sim_watch_accepted(struct sim_world *world, struct sim_client *client,
                        const struct sml_call *call);

void sim_judge_plan(struct sim_world *world, uint32_t nonce, const struct sim_client *client);
void sim_judge_count(struct sim_world *world, const struct sim_row *row);
/* The call's handler begins. */
void sim_judge_begin(struct sim_world *world, struct sim_job *job);
void sim_judge_effect(struct sim_world *world, struct sim_job *job);
/* The call's handler is told to stop. */
void sim_judge_cancelled(struct sim_world *world, const struct sim_job *job);
/* The server has left in good order. */
void sim_judge_left(struct sim_world *world, const struct sim_server *server);
void sim_judge_told(struct sim_world *world, struct sim_slot *slot);
/* causes.c: does this run contain a cause for such an end? */
bool sim_durable_not_executed(struct sim_world *world, uint32_t nonce, const struct sml_call *call);
bool sim_durable_unknown(struct sim_world *world, const struct sim_slot *slot);
void sim_judge_settled(struct sim_world *world);
void sim_judge_close(struct sim_world *world);
/* What the store has of this call has changed: its start, by its job; its verdict. */
void sim_judge_touch(struct sim_world *world, const struct sml_incoming *in, bool start);
void sim_judge_ended(struct sim_world *world, const struct sml_session *session,
                     const struct sml_incoming *in);
/* A key is kept no longer. */
void sim_judge_purged(struct sim_world *world, const struct sml_key_record *record);
/* The store of a server is again as it was at `since`. */
void sim_judge_put_back(struct sim_world *world, struct sim_server *server, uint64_t since);
/* The row whose handler left this request key behind; NULL: it has not begun. */
struct sim_row *sim_judge_downstream(struct sim_world *world, uint64_t request);

/* ---- the world's part ---------------------------------------------------------------------- */

struct sim_story { /* of a session, over all its servers' processes */
    uint64_t id;
    uint32_t serial, client;
};

struct sim_durable {
    uint64_t write_low, write_high; /* ns that a write, and a sync, take */
    uint32_t batch_calls, batch_changes, batch_sessions, ahead;
    uint64_t lazy, purge, batch_time;
    uint64_t retention_ms;
    bool one_principal;
    uint32_t keys_in, same_in; /* one call in so many */
    struct sim_store *stores[SIM_SERVERS_MAX];
    struct sim_commit *commits[SIM_SERVERS_MAX];
    uint64_t put_back_at; /* a store was put back last; SML_NEVER */
    bool refused;         /* some store has SIM_FAILED */
    struct sim_outbox outboxes[SIM_CLIENTS_MAX];
    struct {
        uint64_t evidence; /* the highest number that was said to be stored, ... */
        uint64_t session;  /* ... in the session that was welcomed last */
        uint64_t generation;
        uint32_t epoch;
        struct sml_table unaccepted; /* answered, and not accepted, by xid */
        struct sml_table sent;       /* on connection `conn`, and not refused, by xid */
        uint32_t conn;
    } clients[SIM_CLIENTS_MAX];
    struct sml_table stories, requests;
    uint32_t units[64], unit_count; /* recent first uses of keys */
    uint8_t *scratch;
};

/* trace.c: the open transaction is written; it has ended. */
void sim_trace_write(struct sim_world *world, const struct sim_store *store);
void sim_trace_concluded(struct sim_world *world, enum sml_stored stored);

void sim_durable_init(struct sim_world *world);
void sim_durable_fini(struct sim_world *world);
/* Who made the session, and its number in what is said. */
struct sim_story *sim_story(struct sim_world *world, const struct sml_session_id *id,
                            uint32_t client);

#endif
