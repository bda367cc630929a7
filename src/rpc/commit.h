/* SPDX-License-Identifier: MIT */
/* commit.h - the committer: the one thread that talks to the store.
 *
 * Problem. A commit costs a disk's sync, whatever is in it; so what is to be stored is gathered
 * while the last commit is under way, from all sessions, and goes together. Nothing is said of a
 * call before its record is durable, and a reply leaves right after.
 *
 * A round. First the changes for which somebody waits (starts, verdicts, sessions), in a
 * transaction of their own, so that no handler can hold them up. Then, if transactional calls wait,
 * another one, in which their handlers run one after the other, each inside a savepoint, until
 * there are SML_BATCH_CALLS or SML_BATCH_NS have passed. Records of released calls are forgotten in
 * whichever comes next once a session has SML_FORGET_CALLS of them, so that a lone caller's commits
 * write no page for it, or all after SML_LAZY_NS.
 *
 * A transaction that is not committed says nothing of its calls: changes are pulled again, and
 * transactional calls run again one by one, until the one that spoils every transaction is found.
 * It ends as not executed. When the store's answer is unknown, nothing is said any more: the server
 * stops, and what became of it is found when it starts again. */
#ifndef SML_RPC_COMMIT_H
#define SML_RPC_COMMIT_H

#include <stdatomic.h>

#include "os/mutex.h"
#include "os/thread.h"
#include "session/host.h"
#include "store/store.h"

#define SML_BATCH_CALLS 64
#define SML_BATCH_CHANGES 256 /* those and what is to be forgotten */
#define SML_BATCH_SESSIONS 256
#define SML_BATCH_NS 2000000   /* transactional handlers run in one transaction */
#define SML_LAZY_NS 25000000   /* until what is released is forgotten */
#define SML_FORGET_CALLS 16    /* or until there are so many of one session */
#define SML_RETRY_NS 100000000 /* after a transaction that the store did not take */
#define SML_PURGE_NS 60000000000
#define SML_PURGE_KEYS 256 /* in one transaction */
#define SML_AHEAD_CALLS 64 /* starts stored before a worker is free, of short calls */

struct semel_request;
struct semel_server;
struct sml_method;
struct sml_served;
struct sml_batch_of_changes;

/* What a transactional or resolve handler has said. */
struct sml_txn {
    bool said, never_ran;
    bool resolving;
    struct sml_verdict verdict;
    uint8_t *reply;
};

/* A transactional call whose fate is unknown: nothing is said of it any more. */
struct sml_limbo {
    struct sml_served *served;
    struct sml_incoming *in;
    bool decided;
};

struct sml_commit {
    struct semel_server *server;
    struct semel_store *store; /* NULL: there is none, and nothing here is used */
    uint64_t key_retention_ms;
    struct sml_thread thread;
    bool running;
    _Atomic uint32_t word; /* 1: it sleeps */
    _Atomic bool work, stop;
    _Atomic bool deep;       /* it will sleep for longer than what is lazy may wait */
    _Atomic bool broken;     /* the store is of no more use */
    _Atomic uint32_t status; /* enum semel_status: why; or why something was lost at the end */
    /* The transactional handler that runs, for whoever looks how long it has. */
    _Atomic uint64_t handler_since; /* 0: none */
    _Atomic(const struct sml_method *) handler_method;
    _Atomic bool awaited; /* somebody waits for it to come to rest */
    bool at_rest;         /* queue_lock: the server has stopped, and it has done what it could */
    struct sml_mutex lock;
    struct sml_list dirty;       /* lock: sessions with something to store */
    struct sml_list late;        /* lock: sessions with little to forget, and nothing else */
    _Atomic bool urgent;         /* of these, somebody waits for some */
    _Atomic uint64_t lazy_since; /* since when some have waited; 0: none */
    /* The thread's. */
    struct sml_batch_of_changes *batch;
    uint8_t *scratch; /* the record that is being written */
    size_t scratch_bytes;
    uint8_t *arena; /* session records of the batch */
    size_t arena_bytes, arena_used;
    struct sml_limbo limbo[SML_BATCH_CALLS];
    uint32_t limbo_count;
    uint64_t retry_at, purge_at;
    uint64_t lost;           /* calls, as was said last */
    uint64_t handler_warned; /* the leader's: of the one that began then */
    bool complained;
    struct {
        _Atomic uint64_t commits, failed, recorded, transactions, undone, replayed, mismatched;
        _Atomic uint64_t sessions, calls, crashed, poisoned;
    } totals; /* relaxed: only ever shown */
};

/* Nothing runs yet; the store moves in on OK. */
enum semel_status sml_commit_init(struct sml_commit *commit, struct semel_server *server,
                                  struct semel_store *store, uint64_t key_retention_ms);
enum semel_status sml_commit_start(struct sml_commit *commit);
/* The server has stopped, its handlers too: is what they left stored, or refused for good? Else
 * that is seen to, and server->changed says when. */
bool sml_commit_at_rest_locked(struct sml_commit *commit);
/* Store what there is, and end the thread. Whoever has changes has made them. */
void sml_commit_stop(struct sml_commit *commit);
/* Close the store. */
void sml_commit_fini(struct sml_commit *commit);

/* The session may have something to store; its stripe is held. Cheap when it has not. */
void sml_commit_touch(struct sml_served *served);
/* There is something for it in the queues. Any thread. */
void sml_commit_wake(struct sml_commit *commit);

/* The leader's, now and then, at the latest when it says: is a handler holding everybody up? Then
 * that is said, once of each. */
#define SML_HOLDS_UP_NS 5000000000
void sml_commit_watch(struct sml_commit *commit, uint64_t now);
uint64_t sml_commit_watch_at_locked(const struct sml_commit *commit);

/* Is this thread inside a transactional handler? It must not wait for anything. */
bool sml_in_transaction(void);

static inline bool sml_commit_is_durable(const struct sml_commit *commit)
{
    return commit->store != NULL;
}

/* commit_records.c: records of calls and keys, written by the committer inside a transaction. */
/* Give it the memory, at least `bytes`. NULL: there is none. */
uint8_t *sml_commit_scratch(struct sml_commit *commit, size_t bytes);
enum sml_stored sml_commit_put_call(struct sml_commit *commit, const struct sml_session *session,
                                    const struct sml_incoming *in, enum sml_call_record_state state,
                                    uint64_t *row);
/* The store's clock, for a key that is kept from now on; never 0, which says that it is in use. */
uint64_t sml_commit_kept_now(const struct sml_commit *commit);
/* Of a keyed call: what its key says from now on. NOT_EXECUTED frees it. */
enum sml_stored sml_commit_put_key(struct sml_commit *commit, const struct sml_session *session,
                                   const struct sml_incoming *in, bool ended);

/* Of a call that has begun and will not end its key says nothing any more; or, if an earlier server
 * began it, that whoever uses it next may not be the first. */
enum sml_stored sml_commit_free_key(struct sml_commit *commit, const struct sml_session *session,
                                    const struct sml_incoming *in);

enum sml_key_state {
    SML_KEY_FREE,    /* nobody has it, or this very call */
    SML_KEY_BUSY,    /* its call has begun and not ended */
    SML_KEY_ANSWERED /* this is the verdict */
};
struct sml_key_answer {
    enum sml_key_state state;
    struct sml_verdict verdict;
    uint8_t *reply; /* the verdict's; of the session's memory */
    bool proven;
    bool begun; /* FREE, but a call with it may have run: this one cannot end as not executed */
};
/* What a keyed call is told by its key, before it runs. */
enum sml_stored sml_commit_ask_key(struct sml_commit *commit, struct sml_session *session,
                                   const struct sml_incoming *in, struct sml_key_answer *out);
/* This caller may take no reply as large as that of the first one. The session's stripe is held. */
void sml_commit_fit_answer(const struct sml_callee *callee, struct sml_key_answer *answer);

/* commit_txn.c: run waiting transactional calls, with the changes that there are; `all`: also those
 * that have time. Returns whether there were any. */
bool sml_commit_transactions(struct sml_commit *commit, bool all);

/* commit_end.c, for commit.c */
/* The store refused to the last: say what will be unknown because of that. */
void sml_commit_say_lost(struct sml_commit *commit);
void sml_commit_set_at_rest(struct sml_commit *commit, bool at_rest);
/* The server has stopped, the connections are closed: nothing will be told of what was under way,
 * nor of what the store did not take to the last. It is let go. */
void sml_commit_abandon(struct sml_commit *commit);

/* commit.c, for commit_txn.c */
/* Pull changes into the batch; and write them into the open transaction. */
enum sml_stored sml_commit_apply_changes(struct sml_commit *commit);
void sml_commit_collect(struct sml_commit *commit, bool all);
/* Tell the machines. */
void sml_commit_answer(struct sml_commit *commit, bool committed);
/* Have the batch's changes written anything? */
bool sml_commit_wrote(const struct sml_commit *commit);
/* Commit the open transaction; one in which nothing was written costs no sync. */
enum sml_stored sml_commit_end(struct sml_commit *commit, bool wrote);
/* A transaction was not committed; UNKNOWN ends the store. */
void sml_commit_trouble(struct sml_commit *commit, enum sml_stored stored);
/* Write what the session's connection is due; the stripe is held, and released on return. */
void sml_commit_write(struct sml_served *served);

#endif
