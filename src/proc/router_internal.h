/* SPDX-License-Identifier: MIT */
/* router_internal.h - the router's state; everything is the loop thread's. */
#ifndef SML_PROC_ROUTER_INTERNAL_H
#define SML_PROC_ROUTER_INTERNAL_H

#include <semel/router.h>

#include "base/compiler.h"
#include "base/executor.h"
#include "base/list.h"
#include "base/table.h"
#include "io/channel.h"
#include "io/listener.h"
#include "os/epoll.h"
#include "os/process.h"
#include "os/random.h"
#include "rpc/item.h"
#include "session/host.h"
#include "session/peer.h"

#define SML_ROUTER_READ_BYTES 262144
#define SML_PIPE_SECRET_BYTES 16
/* A message's first byte: its bytes follow, or the number of the slot that they are in, and how
 * many there are. */
#define SML_MESSAGE_PLAIN 0
#define SML_MESSAGE_PASSED 1
#define SML_MESSAGE_PASSED_BYTES 17
/* What is passed with a descriptor: the call's body, the slot's number and size. */
#define SML_PASSED_WORDS (SML_PIPE_BODY_BYTES + 16)
/* Of one pipe, at once. A slot's place is its number modulo this. */
#define SML_SLOTS_MAX 16
#define SML_SLOT_BYTES_MAX (UINT64_C(2) * SEMEL_BODY_BYTES_MAX)

/* The body of a sender's call: the pipe's id, then its secret. */
#define SML_PIPE_BODY_BYTES (8 + SML_PIPE_SECRET_BYTES)
#define SML_PIPE_METHOD "semel.pipe"

struct sml_router_conn;

/* A call of SML_PIPE_METHOD: a sender that is open. Its flow is in `in`. */
struct sml_inlet {
    struct sml_list link; /* the conn's */
    struct sml_router_conn *conn;
    struct sml_incoming *in;
    struct semel_receiver *receiver; /* NULL: its pipe is closed */
    uint64_t id;                     /* of the pipe */
    uint64_t dropped;                /* messages, since it was closed */
};

struct semel_receiver {
    struct semel_router *router;
    uint64_t id;
    uint8_t secret[SML_PIPE_SECRET_BYTES];
    struct semel_pipe_options options;
    semel_message_fn on_message;
    void *user;
    struct sml_inlet *inlet;       /* NULL: no sender is open */
    struct sml_item_reader reader; /* what has arrived */
    uint32_t whole;                /* messages that wait; kept with DROP_OLD and COALESCE */
    uint64_t counted;              /* parts up to here are counted in `whole` */
    struct sml_list slots;         /* each in a place of its own */
    const void *lent;              /* the slot of the message that is being delivered; NULL: none */
    bool had_sender;               /* there is no second one */
    bool calling;                  /* inside on_message */
    bool closed;                   /* in there: it is freed when the call returns */
    struct sml_list waiting;       /* the router's: something may be delivered */
};

struct sml_router_conn {
    struct semel_router *router;
    struct sml_list all;
    struct sml_channel channel;
    struct semel_watch *watch; /* the loop's; NULL: it is in the router's epoll set */
    struct sml_peer peer;
    uint64_t silent_until; /* if others wait, and it has said nothing by then, it ends */
    struct sml_list inlets;
    uint8_t *rest; /* input that ends inside a frame */
    size_t rest_bytes;
    uint8_t *out; /* OUT_BYTES: output that the socket did not take */
    size_t out_at, out_end;
    bool out_armed;
    bool touched; /* it is to be written to, and looked at */
    bool broken;  /* nothing can be written; what it sent before is read to its end */
    bool dead;
};

/* Memory that a sender fills, mapped to be read. */
struct sml_slot {
    struct sml_list link;
    uint64_t number, size;
    const void *data;
};

/* A process's socket for these. It is looked at when a message names what it passed. */
struct sml_side {
    struct sml_list link;
    int fd;
};

enum sml_router_state { SML_ROUTER_STOPPED, SML_ROUTER_ON_LOOP, SML_ROUTER_BY_HAND };

struct semel_router {
    struct semel_loop *loop;
    struct semel_router_options options; /* the defaults filled in */
    enum sml_router_state state;
    bool busy;                 /* inside a turn: it cannot be stopped */
    bool slot_returned;        /* its sender may wait for nothing else */
    struct semel_watch *watch; /* of the listener */
    struct sml_moment more;    /* there is more to be delivered than one turn may */
    bool accepting;            /* the listener is watched */
    uint64_t paused_until;     /* nothing can be accepted, and it is not watched; 0: it may be */
    struct sml_moment pause;   /* on the loop: its end */

    struct sml_epoll epoll; /* by hand: the listener and the connections */
    struct sml_listener listener;
    int sides_fd; /* where processes connect to pass memory; -1: not open */
    struct sml_list sides;
    uint32_t side_count;
    char directory[96];
    struct sml_random random;
    struct sml_host host;
    uint8_t *read_buffer;
    struct sml_list conns;
    uint32_t conn_count;

    uint64_t next_id;
    struct sml_table pipes; /* id + 1 -> receiver */
    struct sml_list waiting;
    struct semel_router_counters counters;
};

/* On the loop: a moment of the router's own needs no memory. */
static inline void sml_router_arm(struct semel_router *router, struct sml_moment *moment,
                                  uint64_t at)
{
    struct sml_executor *executor = sml_executor_of(router->loop);

    executor->ops->arm(executor, moment, at);
}

static inline void sml_router_disarm(struct semel_router *router, struct sml_moment *moment)
{
    struct sml_executor *executor = sml_executor_of(router->loop);

    executor->ops->disarm(executor, moment);
}

void sml_router_log(const struct semel_router *router, enum semel_log_level level,
                    const char *format, ...) SML_PRINTF(3, 4);

/* --- router.c ----------------------------------------------------------------------------- */

/* A sender's call has come: to its pipe, which had none before, or NULL. */
struct semel_receiver *sml_router_admit(struct semel_router *router, struct semel_bytes body);
/* There is something new at the inlet, which may end after this. */
void sml_router_arrived(struct sml_inlet *inlet);
/* The inlet of the receiver ends: what is in its flow stays to be delivered. */
void sml_receiver_keep_parts(struct semel_receiver *receiver);
/* Receivers are called. */
void sml_router_turn(struct semel_router *router);

/* --- router_passed.c ---------------------------------------------------------------------- */

enum semel_status sml_router_open_sides(struct semel_router *router);
void sml_router_close_sides(struct semel_router *router);
/* Take over what was passed until now. */
void sml_router_look_aside(struct semel_router *router);
/* A message that names a slot: `words`, SML_MESSAGE_PASSED_BYTES of them. False: there is no such
 * slot, or it is not what it should be. */
bool sml_receiver_lend(struct semel_receiver *receiver, struct semel_bytes words,
                       struct semel_bytes *out);
void sml_receiver_drop_slots(struct semel_receiver *receiver);
/* Does the secret open the pipe? NULL: not. */
struct semel_receiver *sml_router_find(struct semel_router *router, const uint8_t *body);

/* --- router_conn.c ------------------------------------------------------------------------ */

/* The loop routes no more: from here on it is by hand. */
void sml_router_leave_loop(struct semel_router *router);
/* Everything that is ready now: new senders, what they wrote. `until`: as for sml_epoll_wait. By
 * hand. Returns whether anything was. */
bool sml_router_read(struct semel_router *router, uint64_t until);
/* The inlet's parts were taken: the sender may send more. */
void sml_inlet_took(struct sml_inlet *inlet);
/* The sender's call ends; the inlet is gone. */
void sml_inlet_end(struct sml_inlet *inlet, enum semel_status status);
/* What is to be written. */
void sml_router_flush(struct semel_router *router);
enum semel_status sml_router_open(struct semel_router *router);
void sml_router_close(struct semel_router *router);

#endif
