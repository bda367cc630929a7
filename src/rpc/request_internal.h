/* SPDX-License-Identifier: MIT */
/* request_internal.h - a call as its handler's side of the library sees it.
 *
 * Most requests are calls of a session, the server's in every respect. Others arrive in another
 * way, at a client from its server: they have a made-up record, `in`, that is read as any other's,
 * and `away`, which does what is done differently there. */
#ifndef SML_RPC_REQUEST_INTERNAL_H
#define SML_RPC_REQUEST_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <semel/request.h>

#include "base/list.h"
#include "os/thread.h"
#include "session/callee.h"

struct sml_method;
struct sml_request_stream;
struct sml_served;
struct sml_txn;
struct sml_worker;
struct semel_server;

/* --- requests ----------------------------------------------------------------------------- */

/* The other end of a connection, as requests show it. Guarded by the stripe of the session. */
struct sml_peer_info {
    struct semel_peer peer;
    uint32_t refs; /* the address lies behind the record */
};

enum sml_place {
    SML_AT_NOWHERE, /* in the leader's batch, in the committer's hands, or between queue and
                       handler */
    SML_AT_SHORT,
    SML_AT_LONG,
    SML_AT_UNSTARTED, /* its start must be stored before it runs */
    SML_AT_TXN,       /* for the committer to run */
    SML_AT_PARKED,    /* its method is at its limit */
    SML_AT_STALLED,   /* its session has too many stored replies */
    SML_AT_ASKED,     /* for the thread of the reserved methods */
    SML_AT_WORK       /* its handler has begun */
};

/* Where a request came from, if not from a session of a server: what is different there. */
struct sml_request_away {
    /* Is this the process that it belongs to? */
    bool (*is_mine)(const struct semel_request *request);
    /* As semel_request_reply of this verdict, borrowed. UNKNOWN always succeeds, if need be without
     * its words. */
    enum semel_status (*finish)(struct semel_request *request, const struct sml_verdict *verdict);
    /* As semel_request_take and semel_request_on_cancel of an open request. */
    void (*take)(struct semel_request *request);
    void (*on_cancel)(struct semel_request *request, semel_cancelled_fn fn, void *user);
    struct semel_key (*key)(const struct semel_request *request);
};

struct semel_request {
    const struct sml_request_away *away; /* NULL: a call of a session of `server` */
    struct sml_list link;                /* where `place` says, or the leader's batch, or free */
    struct semel_server *server;
    struct sml_served *served;
    struct sml_method *method;
    struct sml_incoming *in; /* NULL once finished */
    struct sml_peer_info *info;
    struct sml_worker *runner;  /* inside its handler, not taken */
    uint64_t order;             /* of arrival */
    uint64_t arrived;           /* when it was complete */
    enum semel_outcome outcome; /* what was said, once finished */
    uint64_t work_ns;           /* what it adds to short_work_ns */
    enum sml_place place;       /* queue_lock; STALLED: and the stripe */
    bool started;               /* its start is stored */
    bool alone;                 /* transactional: in a transaction of its own */
    bool again;                 /* ... or with others that an interrupted call has cost theirs */
    struct sml_txn *txn; /* inside a transactional or resolve handler: what it says goes there */
    bool finished;
    bool taken;
    struct sml_request_stream *stream; /* NULL: it has none */
    atomic_int parties; /* taken: the handler and whoever finishes; the last one frees */

    /* Cancellation, queue_lock. */
    bool watched; /* on_cancel was called once; the owner's own */
    bool told;
    atomic_bool forced; /* somebody asked for more than a cancellation */
    bool told_forced;
    semel_cancelled_fn cancel_fn;
    void *cancel_user;
    struct sml_list cancel_link;  /* in server->to_tell */
    struct sml_thread_id telling; /* the thread inside cancel_fn */
};

#endif
