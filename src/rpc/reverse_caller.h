/* SPDX-License-Identifier: MIT */
/* reverse_caller.h - the server's calls of one client: who waits, who is under way, how each ends.
 * Pure: time and messages come in, requests, cancellations and ended calls come out.
 *
 * A call waits until the client is there (`open`) and has room in its window; then it is handed
 * over, and from then on only the client's reply says what became of it. One that is given up at
 * its deadline still counts in the window until that reply has come: the client may be at it. */
#ifndef SML_RPC_REVERSE_CALLER_H
#define SML_RPC_REVERSE_CALLER_H

#include "base/heap.h"
#include "base/list.h"
#include "base/table.h"
#include "base/time.h"
#include "rpc/reverse_wire.h"

enum sml_reverse_phase {
    SML_REVERSE_WAITING, /* never handed over: it ends as not executed */
    SML_REVERSE_SENT,
    SML_REVERSE_DONE
};

/* The shell's memory, until it was given back by sml_reverse_next_done. */
struct sml_reverse_call {
    uint64_t bytes; /* of its request: filled in before it is submitted, as is `deadline` */
    uint64_t body_bytes;
    uint64_t deadline;
    uint64_t number; /* the machine's from here on */
    enum sml_reverse_phase phase;
    bool asked;                 /* the client is to be asked to cancel it, or was */
    struct sml_verdict verdict; /* DONE: its views point into the message that brought it */
    struct sml_list link;       /* waiting, sent, or done */
    struct sml_list cancel_link;
    struct sml_heap_node timer;
};

struct sml_reverse_limits {
    uint32_t calls;       /* that wait or are under way */
    uint64_t bytes;       /* of requests that wait */
    uint64_t reply_bytes; /* the largest body of a reply */
    uint64_t grace;       /* from a deadline until the call is given up */
};

struct sml_reverse_caller {
    struct sml_reverse_limits limits;
    struct sml_reverse_terms terms; /* the client's, while `open` */
    bool open;
    enum semel_status ended; /* for good; OK: it is not */
    uint64_t last;           /* number given */
    uint32_t calls;          /* that wait or are under way */
    uint32_t under_way;      /* at the client, those that were given up included */
    uint64_t bytes_waiting;
    struct sml_table table; /* under way: number -> call, or `given_up` */
    struct sml_list waiting, sent, cancels, done;
    struct sml_heap timers;
    uint8_t given_up; /* its address stands for a call whose reply nobody waits for */
};

void sml_reverse_caller_init(struct sml_reverse_caller *caller, const struct sml_mem *mem,
                             const struct sml_reverse_limits *limits);
/* No call is left. */
void sml_reverse_caller_fini(struct sml_reverse_caller *caller);

/* Returns OK; OVERLOADED; NO_MEMORY; or what it ended with: then the call was not taken. */
enum semel_status sml_reverse_submit(struct sml_reverse_caller *caller,
                                     struct sml_reverse_call *call, uint64_t now);

/* A client is there. */
void sml_reverse_open(struct sml_reverse_caller *caller, const struct sml_reverse_terms *terms);
/* It is gone: what was handed over is unknown. What waits goes on waiting. */
void sml_reverse_close(struct sml_reverse_caller *caller, enum semel_status why);
/* And nobody will ever come: what waits is not executed. */
void sml_reverse_end(struct sml_reverse_caller *caller, enum semel_status why);

/* What is to be sent next. */
enum sml_reverse_send { SML_REVERSE_NOTHING, SML_REVERSE_SEND_REQUEST, SML_REVERSE_SEND_CANCEL };
/* A request is handed over with this. A cancellation is of the call's number. A call may be done by
 * it as well: without memory, or because its body is too large for the client. */
enum sml_reverse_send sml_reverse_next_send(struct sml_reverse_caller *caller, uint64_t now,
                                            struct sml_reverse_call **out_call);

/* REPLY. NULL; or what is wrong with it. Its call is done, with views into the message: take it
 * out before the message goes. */
const char *sml_reverse_reply(struct sml_reverse_caller *caller,
                              const struct sml_reverse_message *message);

/* The call of this number, if it has not ended. */
void sml_reverse_cancel(struct sml_reverse_caller *caller, uint64_t number);

/* When sml_reverse_tick must be called at the latest; SML_NEVER. */
static inline uint64_t sml_reverse_timeout(const struct sml_reverse_caller *caller)
{
    return sml_heap_min_key(&caller->timers);
}
void sml_reverse_tick(struct sml_reverse_caller *caller, uint64_t now);

/* A call that has ended, the shell's again; NULL. */
struct sml_reverse_call *sml_reverse_next_done(struct sml_reverse_caller *caller);

#endif
