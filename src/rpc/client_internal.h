/* SPDX-License-Identifier: MIT */
/* client_internal.h - the client's state, shared by the client_*.c files only.
 *
 * Lock order: a client has one lock, `lock`; it is never held across a system call, save the rare
 * ones that change what the I/O thread watches, and never while a callback runs. */
#ifndef SML_RPC_CLIENT_INTERNAL_H
#define SML_RPC_CLIENT_INTERNAL_H

#include <stdatomic.h>

#include <semel/client.h>

#include "base/list.h"
#include "io/address.h"
#include "io/channel.h"
#include "io/connect.h"
#include "os/epoll.h"
#include "os/mutex.h"
#include "os/process.h"
#include "os/random.h"
#include "os/thread.h"
#include "os/wake.h"
#include "rpc/given.h"
#include "rpc/intake.h"
#include "rpc/pen.h"
#include "rpc/result.h"
#include "rpc/stream_wait.h"
#include "session/link.h"

#define SML_CLIENT_BLOCKS_KEPT 2 /* to be read into */
#define SML_CLIENT_BLOCKS_MAX 8
#define SML_CLIENT_TICK (5 * SML_MS) /* of the I/O thread while callers read */

/* What an event of the epoll set is about. */
enum sml_client_tag { SML_TAG_WAKE = 1, SML_TAG_READ, SML_TAG_WRITE, SML_TAG_CONNECT };

/* Who reads the connection now. */
enum sml_reader {
    SML_READER_NONE,
    SML_READER_IO,    /* the I/O thread has bytes in hand */
    SML_READER_CALLER /* a blocked caller reads for itself ("borrowed") */
};

/* The one connection. It is opened and closed by the I/O thread only; while `closing`, it waits
 * for the reader and the writer to leave. */
struct sml_client_conn {
    struct sml_channel channel;
    bool open;
    bool closing;
    bool broken;      /* a write failed: shut the channel down, then read it to its end */
    uint64_t shut_at; /* when input that may be left was waited for long enough; SML_NEVER */
    bool armed;       /* the I/O thread watches for input; else the reading is borrowable */
    uint32_t watched_read, watched_write; /* events in the epoll set; 0: not in it */
    enum sml_reader reader;
    uint64_t borrowed;      /* reads by callers */
    uint64_t borrowed_seen; /* of these, at the I/O thread's last tick */
    uint32_t streak;        /* lone calls one after the other */
    bool much_read;         /* by the last read; the reader's */
    bool lent;              /* not armed: a stream's reader read last, and comes again */
    uint32_t looped;        /* of the calls in flight, those whose loops watch for input */
    struct sml_intake in;   /* the reader's */
    size_t in_used;   /* of its bytes, consumed: they still back results until it is settled */
    uint32_t address; /* of the connection, or of the last attempt */
};

/* A name is looked up on a thread of its own: that can take many seconds. */
struct sml_client_resolve {
    struct sml_thread thread;
    struct sml_wake *wake;
    struct sml_connect connect;
    struct sml_address *address;
    uint64_t deadline;
    _Atomic bool done;
    bool abandoned;
};

struct sml_client_outbox;
struct sml_client_reverse;
struct semel_stream;

struct semel_client {
    /* Constant after create. */
    struct sml_origin origin;
    struct sml_addresses addresses;
    struct semel_client_options options; /* defaults filled in */
    struct sml_thread io_thread;
    struct sml_random random;
    struct sml_wake wake; /* wakes the I/O thread */
    struct sml_epoll epoll;
    _Atomic uintptr_t io_id; /* 0 until the I/O thread runs */

    _Atomic uint32_t state;        /* enum semel_client_state; written under the lock */
    _Atomic uint32_t result_hint;  /* room for a reply body that is likely to do */
    _Atomic uintptr_t outbox_id;   /* the outbox's thread; 0 until it runs */
    _Atomic uintptr_t stopping_id; /* the thread that runs callbacks in a stop */

    struct sml_mutex lock;
    /* Guarded by `lock`. */
    struct sml_link link;
    struct sml_pen pen;
    struct sml_client_conn conn;
    struct sml_sleepers sleepers; /* to be woken after the next unlock */
    struct sml_list ready;        /* streams whose callbacks the I/O thread is to run */
    uint64_t parts_written;       /* when parts were last written at once */
    struct sml_list posted;       /* finished calls whose callbacks the I/O thread is to run */
    struct sml_cond changed;      /* of `state`, and of `inside` reaching 0 */
    uint64_t now;                 /* the clock, last read under the lock */
    uint64_t asleep_until;        /* the I/O thread sleeps, at latest until then; 0: it is awake and
                                     will look at everything before it sleeps */
    uint64_t span_min;            /* shortest deadline given since it last went to sleep */
    uint32_t in_flight;           /* calls submitted and not yet collected */
    uint32_t blocking;            /* of these, by blocked threads */
    uint32_t inside;              /* threads that called in and will touch the client again */
    uint32_t starts_on_io;        /* calls started by callbacks */
    bool wake_wanted;             /* the I/O thread is to be woken after the next unlock */
    bool exit;                    /* the I/O thread is to leave when all is closed */
    bool failure_untold;          /* the link failed; a stop may have come since */
    enum semel_status failure;
    char failure_text[SML_BYE_TEXT_BYTES + 1];
    uint8_t *out;               /* SML_PEN_BUFFER_BYTES: the pen's */
    struct sml_returns returns; /* its own lock */
    struct sml_blocks *reads;   /* to be read into */
    struct sml_blocks *writes;  /* parts to be sent */
    struct semel_client_counters counters;

    struct sml_client_outbox *outbox;   /* constant after create; NULL: none */
    struct sml_client_reverse *reverse; /* exported methods; NULL: none yet, else constant */

    /* The I/O thread's. */
    struct sml_connect connect;
    bool connecting;
    int connect_fd; /* in the epoll set; -1: none */
    struct sml_client_resolve *resolve;
    enum semel_client_state told; /* by log and on_state */
    uint64_t told_lost;
    bool told_attempt; /* a failed attempt was logged since the last connection */
};

/* A submitted call. */
struct sml_record {
    struct sml_call call; /* first */
    bool blocking;
    bool posted;   /* of the outbox: it is accepted when its result is in the file */
    bool anywhere; /* its callback may run on any thread */
    bool looped;   /* and its loop watches the connection: counted in conn.looped */
};

/* A blocked caller's: on its stack. `word`: 0 running, 1 done, 2 asleep. */
struct sml_blocking {
    struct sml_record record; /* first */
    _Atomic uint32_t word;
    struct semel_result *out; /* NULL: only the outcome is wanted */
    struct sml_result_storage *storage;
    enum semel_outcome outcome;
};

/* A started call. Shared: one reference for the completion, one for the handle. */
struct semel_call {
    struct sml_record record; /* first */
    struct semel_client *client;
    _Atomic uint32_t refs;
    _Atomic bool completed; /* the client may be gone */
    bool posted;            /* `result` is set */
    semel_done_fn done;
    void *user;
    struct semel_result result;
    char bytes[]; /* method, content type, body */
};

/* Finished calls on their way to their consumers: collected under the lock, delivered without. */
struct sml_batch {
    struct sml_list done;
    uint32_t count;
    const char *peer;
    bool has_why;
    char why[SML_BYE_TEXT_BYTES + 1];
    char limit[64]; /* why a request was too large; "" for none that was */
};

/* Where callbacks may run. */
enum sml_where {
    SML_ON_IO,    /* here: the I/O thread */
    SML_ON_STOP,  /* here: the thread in stop or destroy */
    SML_ELSEWHERE /* on the I/O thread: post them */
};

static inline bool sml_client_on_io(const struct semel_client *client)
{
    return atomic_load_explicit(&client->io_id, memory_order_relaxed) == sml_thread_self().value;
}

static inline bool sml_client_in_callback(const struct semel_client *client)
{
    uintptr_t self = sml_thread_self().value;

    return sml_client_on_io(client) ||
           atomic_load_explicit(&client->stopping_id, memory_order_relaxed) == self ||
           atomic_load_explicit(&client->outbox_id, memory_order_relaxed) == self;
}

/* --- client_done.c ----------------------------------------------------------------------- */

static inline void sml_batch_init(struct sml_batch *batch)
{
    sml_list_init(&batch->done);
    batch->count = 0;
    batch->has_why = false;
    batch->limit[0] = '\0';
}

/* Take what the machine has finished, and accept it. Lock held. */
void sml_client_collect(struct semel_client *client, struct sml_batch *batch);

/* Hand it out; the batch is empty afterwards. Lock not held. Results in place are read from
 * conn.in, so the reader role must not have moved on since they were collected. */
void sml_client_deliver(struct semel_client *client, struct sml_batch *batch, enum sml_where where);

/* The I/O thread runs what others posted. Lock not held; `posted` was taken under it. */
void sml_client_run_posted(struct sml_list *posted);

/* --- client_outbox.c --------------------------------------------------------------------- */

/* Read the file and submit what it holds. Lock held; nothing runs yet. `outbox` moves in on OK. */
enum semel_status sml_client_outbox_open(struct semel_client *client, struct semel_outbox *outbox);
enum semel_status sml_client_outbox_start(struct semel_client *client);
/* No call is in the machine any more. What is under way is written; then its thread ends. */
void sml_client_outbox_stop(struct semel_client *client);
/* Release its memory, and close the file if it is the client's. */
void sml_client_outbox_close(struct semel_client *client, bool with_file);
/* The client's state may be its last: whoever waits for results looks. Lock held. */
void sml_client_outbox_wake(struct semel_client *client);
/* The link's identity is to be saved. Lock held. */
void sml_client_outbox_save(struct semel_client *client);
/* A posted call has come to its end. Lock not held; as sml_client_deliver otherwise. */
void sml_client_outbox_ended(struct semel_client *client, struct sml_call *call, bool from_server);

/* --- client_call.c: check the arguments of a call, and fill in all but the deadline. */
enum semel_status sml_client_describe(struct sml_call *call, const char *method,
                                      struct semel_bytes body,
                                      const struct semel_call_options *options);

enum sml_manner {
    SML_PLAIN = 0,
    SML_ANYWHERE = 1, /* `done` may run on any thread that reads */
    SML_FOR_LIFE = 2  /* without a deadline, whatever the options say */
};

/* As semel_client_start, of a call with a stream. `manner`: of the above. */
enum semel_status sml_client_start_stream(struct semel_client *client, const char *method,
                                          struct semel_bytes body,
                                          const struct semel_call_options *options,
                                          struct sml_stream *stream, unsigned manner,
                                          semel_done_fn done, void *user,
                                          struct semel_call **out_call);

/* --- client_stream.c --------------------------------------------------------------------- */

/* News of streams reach whoever waits, with the next sml_client_unlock. Lock held, after the
 * machine had input or time passed. */
void sml_client_streams(struct semel_client *client);
/* Items that are read may be so large; before the first is. */
void sml_stream_item_max(struct semel_stream *stream, uint64_t bytes);
/* Those of them whose callbacks may run on any thread move to `out`. Lock held. */
void sml_client_take_anywhere(struct semel_client *client, struct sml_list *out);
/* Their callbacks run: on the I/O thread, or of those that were taken by sml_client_take_anywhere.
 * Lock not held; `ready` was taken under it. */
void sml_client_run_ready(struct sml_list *ready);

/* --- reverse_client.c: exported methods ---------------------------------------------------- */

/* Does this thread run a handler of the client's? */
bool sml_client_in_handler(struct semel_client *client);
/* The client was stopped: wait until no handler runs, and no request is open. Lock not held. */
void sml_client_stop_handlers(struct semel_client *client);
/* After the I/O thread has left. */
void sml_client_free_exports(struct semel_client *client);

/* --- client_io.c: the I/O thread ---------------------------------------------------------- */

void sml_client_io_main(void *client);

/* "unix:/run/x: why"; a `why` that names the address already is taken as it is. Lock held. */
struct sml_text;
void sml_client_reason(const struct semel_client *client, const char *why, struct sml_text *text);

/* --- client_reader.c: reading and writing, by whichever thread. All with the lock held. ---- */

/* Write what is due (the lock is released in between), and have the I/O thread see to the rest.
 * `others`: other threads are likely to append. */
void sml_client_write(struct semel_client *client, bool others);
/* The channel is writable again. */
void sml_client_writable(struct semel_client *client);

/* After any change of the machine: the state is published, somebody reads if anybody waits, and
 * wake_wanted is set if the I/O thread has anything to do that it would not see in time. */
void sml_client_settle(struct semel_client *client);

/* Have the epoll set as it should be: input when armed, output when the pen is blocked. */
void sml_client_watch(struct semel_client *client);

/* Bytes, or the end, from the connection: by the holder of the reader role. */
void sml_client_input(struct semel_client *client, struct sml_io io);
/* A read by the holder, to whom much has come: after a moment without anything it is AGAIN. Without
 * the lock. */
struct sml_io sml_client_look(struct sml_client_conn *conn, uint8_t *at, size_t room);
/* What was consumed leaves `in`; the role is free. Results in place are gone. */
void sml_client_release_reader(struct semel_client *client);

/* What a blocked thread waits for: that `word` is no longer `seen`. */
struct sml_awaited {
    const struct sml_call *call; /* by which it would happen */
    _Atomic uint32_t *word;
    uint32_t seen;
    uint64_t until;
};

/* Is the call alone, so that whoever waits should read? */
bool sml_client_may_borrow(struct semel_client *client, const struct sml_awaited *awaited);
/* Read until it has happened, or until somebody else had better read. The lock is released in
 * between. */
void sml_client_borrow(struct semel_client *client, const struct sml_awaited *awaited);
/* A stream's reader that has read comes no more, for now: let the I/O thread watch. */
void sml_client_recall(struct semel_client *client);
/* A call was submitted for which a loop would read: let it, if all others in flight are loops',
 * too, and it has been so for a while. Returns whether that loop is to watch. */
bool sml_client_lend_to_loop(struct semel_client *client);

/* Release the lock, then wake whoever is to be woken, and give back what was given. */
void sml_client_unlock(struct semel_client *client);
/* The end of a visit that began with `inside++`: settle and unlock for good. */
void sml_client_leave(struct semel_client *client);
/* The same after delivering what the visit itself finished. */
void sml_client_leave_with_done(struct semel_client *client);

/* --- client.c ---------------------------------------------------------------------------- */

/* The address that the client talks to, or tried last. Lock held. The text is constant. */
const char *sml_client_peer(const struct semel_client *client);

#endif
