/* SPDX-License-Identifier: MIT */
/* reverse_server.h - backchannels, shared by reverse_server*.c.
 *
 * A backchannel is guarded by its session's stripe, which outlives it. A carrier is the call of
 * semel.reverse by which its messages flow; there is at most one that is not over. The thread of
 * all backchannels of a server finishes carriers, since nobody else may where their end is noticed;
 * it keeps the time; and it runs the completions of started calls. */
#ifndef SML_RPC_REVERSE_SERVER_H
#define SML_RPC_REVERSE_SERVER_H

#include <semel/backchannel.h>

#include "rpc/reverse_caller.h"
#include "rpc/server_internal.h"

#define SML_REVERSE_STARVED_NS 5000000 /* until a large reply is looked at again */

struct sml_carrier {
    struct semel_request *request;
    struct semel_backchannel *channel; /* one reference */
    bool over;                         /* stripe; from then on it is the thread's */
    bool starved;                      /* stripe: there was no memory for a reply */
    enum semel_status why;             /* over: how it is finished; OK: by a value */
    const char *text;
    struct sml_list link; /* reverse->over; its lock */
};

struct semel_backchannel {
    _Atomic uint32_t refs;
    _Atomic bool gone;           /* its server; then only references are given back */
    struct semel_server *server; /* constant, as the next */
    struct sml_mutex *lock;      /* a stripe */
    /* `lock` */
    struct sml_served *served;   /* NULL: its session has ended */
    struct sml_carrier *carrier; /* NULL: the client exports nothing now */
    struct sml_reverse_caller calls;
    uint64_t timer_at; /* the thread looks at it then, or before */
    /* reverse->lock */
    struct sml_list all;       /* reverse->channels */
    struct sml_list work_link; /* reverse->work: one reference */
    struct sml_list ended;     /* started calls whose completions are to run */
    struct sml_heap_node timer;
    char peer[]; /* the client's address */
};

/* A call: on the stack of whoever waits for it, or, started, memory of its own. */
struct sml_back_call {
    struct sml_reverse_call call; /* first */
    struct sml_list parts;        /* its request, until it is handed over */
    const char *method;
    uint8_t method_bytes;
    struct semel_result *out; /* NULL: only the outcome is wanted */
    enum semel_outcome outcome;
    _Atomic uint32_t word;             /* blocking: 0 running, 1 done, 2 asleep */
    struct semel_backchannel *channel; /* started: one reference; else NULL */
    semel_done_fn done;
    void *user;
    struct semel_result result;
    struct sml_list ended_link;
};

struct sml_reverse {
    struct semel_server *server;
    struct sml_mutex lock; /* after the stripes, and alone */
    struct sml_cond call;
    struct sml_thread thread;
    _Atomic uintptr_t thread_id; /* 0: it does not run */
    bool exists, stop;
    uint64_t until; /* it sleeps, at latest until then; 0: it is awake */
    struct sml_list channels, work, over;
    struct sml_heap timers;
};

/* reverse_server.c; stripe held. */
/* What is due is sent, what has ended is told, and the timer is no later than it should be. Returns
 * whether much was sent. */
bool sml_backchannel_settle(struct semel_backchannel *channel, uint64_t now);
/* The carrier's items, and its end, are looked at. */
void sml_carrier_look(struct sml_carrier *carrier, uint64_t now);

/* reverse_thread.c */
/* The thread runs; LIMIT, NO_MEMORY. */
enum semel_status sml_reverse_attend(struct sml_reverse *reverse);
/* A started call has ended: its completion will run. Stripe held. */
void sml_reverse_tell(struct semel_backchannel *channel, struct sml_back_call *call);
/* The carrier, which is over, will be finished. Stripe held. */
void sml_reverse_finish(struct sml_carrier *carrier);
/* The channel's timer. Stripe held. */
void sml_reverse_arm(struct semel_backchannel *channel, uint64_t at);
/* It is there; and it is freed. */
void sml_reverse_add(struct sml_reverse *reverse, struct semel_backchannel *channel);
void sml_reverse_remove(struct sml_reverse *reverse, struct semel_backchannel *channel);

static inline bool sml_reverse_on_thread(struct sml_reverse *reverse)
{
    return atomic_load_explicit(&reverse->thread_id, memory_order_relaxed) ==
           sml_thread_self().value;
}

#endif
