/* SPDX-License-Identifier: MIT */
/* router.h - messages from workers, in other threads and processes, to receivers on a loop.
 *
 * A pipe has two ends. The sender goes to the worker: in the same process as it is, to another one
 * as a ticket, a short text that may be handed over in any way. The receiver stays, and is called
 * on the loop's thread, once for each message. Messages of one sender arrive in the order in which
 * they were sent; those of different senders in any order, and never mixed.
 *
 * The loop's thread itself reads what senders have written: between a worker's semel_sender_send
 * and the receiver's call there is one wake, and one for a whole burst. What a sender writes while
 * the loop is busy waits in the socket and at the sender; how much, and what happens beyond that,
 * is the pipe's choice (enum semel_flood).
 *
 * A message of SEMEL_PASSED_BYTES or more is not sent through the socket, unless memory cannot be
 * shared just then: it is put into memory that both processes share, sealed in its size; the
 * receiver is called with that memory. A sender that is not to be trusted could change it
 * meanwhile: whoever must not be deceived copies it first.
 *
 * A sender whose process dies takes nothing of the other senders with it. What it had sent whole is
 * delivered. */
#ifndef SEMEL_ROUTER_H
#define SEMEL_ROUTER_H

#include <stdbool.h>
#include <stdint.h>

#include <semel/bytes.h>
#include <semel/log.h>
#include <semel/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct semel_router;   /* thread: loop thread */
struct semel_receiver; /* thread: loop thread */
struct semel_sender;   /* thread: one thread at a time */

/* Zero everywhere selects the defaults. */
struct semel_router_options {
    uint32_t turn_messages; /* delivered before the loop looks at other things; default 1,024 */
    uint32_t pipes;         /* open at once; default 65,536 */
    uint32_t connections;   /* sending processes; default 1,024 */
    uint64_t message_bytes; /* largest message taken; default SEMEL_BODY_BYTES, at most
                               SEMEL_BODY_BYTES_MAX */
    const char *directory; /* where its socket is made, in a directory of its own; default "/tmp" */
    semel_log_fn log;      /* messages without a receiver, and the like; borrowed */
    void *log_user;
};
#ifdef __cplusplus
#define SEMEL_ROUTER_OPTIONS_INIT {}
#else
#define SEMEL_ROUTER_OPTIONS_INIT { 0 }
#endif

/* out: owned by caller. loop, options: borrowed, the loop until destroy. Returns: OK; INVALID;
 * NO_MEMORY, SYSTEM. Thread: loop thread. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_router_create(struct semel_router **out, struct semel_loop *loop,
                                                const struct semel_router_options *options)
    SEMEL_MUST_USE;

/* Begin to route. A router that was stopped may start again. Returns: OK; ALREADY; DENIED (not the
 * loop's thread); BAD_ADDRESS, ADDRESS_IN_USE, SYSTEM, LIMIT, NO_MEMORY; FORKED. Thread: loop
 * thread. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_router_start(struct semel_router *router) SEMEL_MUST_USE;

/* Route no more: every pipe that is open is closed, unheard; senders learn of it. What had arrived
 * and was not delivered is dropped, counted and logged: see semel_router_route_until to have it
 * delivered first. out_open: how many pipes were open; may be NULL. Returns: OK; STOPPED (it was
 * not started); WOULD_DEADLOCK in a receiver's call, or in a condition of semel_router_route_until;
 * DENIED, FORKED. Thread: loop thread. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_router_stop(struct semel_router *router, uint32_t *out_open);

/* Stop it if need be, and free it. NULL is fine. Returns: OK; WOULD_DEADLOCK, as semel_router_stop
 * (nothing was done); DENIED, FORKED. Thread: loop thread. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_router_destroy(struct semel_router *router);

/* What becomes of messages that come faster than the receiver takes them. */
enum semel_flood {
    SEMEL_FLOOD_BLOCK,    /* the sender waits: nothing is lost */
    SEMEL_FLOOD_DROP_OLD, /* beyond queue_messages the oldest are dropped, and counted */
    SEMEL_FLOOD_COALESCE  /* only the latest is kept */
};

/* Zero everywhere selects the defaults. */
struct semel_pipe_options {
    enum semel_flood flood;
    uint32_t queue_messages; /* with DROP_OLD; default 1,024 */
    bool never_passed;       /* large messages go through the socket, too */
};
#ifdef __cplusplus
#define SEMEL_PIPE_OPTIONS_INIT {}
#else
#define SEMEL_PIPE_OPTIONS_INIT { SEMEL_FLOOD_BLOCK, 0, false }
#endif

/* One message; `message` is borrowed for the call. Thread: loop thread. The receiver's pipe may be
 * closed inside, and others opened; the router cannot be stopped. */
typedef void (*semel_message_fn)(struct semel_receiver *receiver, struct semel_bytes message,
                                 void *user);

/* A new pipe. Its id is unique for this router, from 0 on.
 * out_receiver  the router's, until semel_router_close_pipe.
 * out_sender    owned by caller, not started; NULL if only its ticket is wanted.
 * Returns: OK; STOPPED (not started); LIMIT (as many pipes as there may be); INVALID; NO_MEMORY;
 * DENIED, FORKED. Thread: loop thread. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_router_pipe(struct semel_router *router,
                                              const struct semel_pipe_options *options,
                                              semel_message_fn on_message, void *user,
                                              struct semel_receiver **out_receiver,
                                              struct semel_sender **out_sender) SEMEL_MUST_USE;

/* The receiver is called no more, and is gone. What its sender sends from now on is dropped,
 * counted and logged. Returns: OK; INVALID; STOPPED; DENIED, FORKED. Thread: loop
 * thread, its own call included. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_router_close_pipe(struct semel_router *router,
                                                    struct semel_receiver *receiver);

/* Its pipe's id; UINT64_MAX for NULL. Thread: loop thread. Blocks: no. Since: 0.4 */
SEMEL_API uint64_t semel_receiver_id(const struct semel_receiver *receiver);

#define SEMEL_TICKET_BYTES 256

/* The text for a sender in another process, of at most SEMEL_TICKET_BYTES with its NUL. Whoever has
 * it, and is the same user, may send. Returns: OK; INVALID; TOO_LARGE (out is as it was). Thread:
 * loop thread. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_receiver_ticket(const struct semel_receiver *receiver, char *out,
                                                  size_t size) SEMEL_MUST_USE;

/* Deliver messages here, until condition(user) is true: it is asked first, and after each message.
 * From now on the loop routes nothing: the rest of the router's life is this function, or its stop.
 * timeout_ms: 0 delivers what was sent before; negative: no limit. It holds, too, if messages never
 * end. Returns: OK; DEADLINE (the condition does not hold); STOPPED; WOULD_DEADLOCK in a receiver's
 * call, or in a condition; INVALID, DENIED, FORKED. Thread: loop thread. Blocks: at most
 * timeout_ms. Since: 0.4 */
SEMEL_API enum semel_status semel_router_route_until(struct semel_router *router,
                                                     bool (*condition)(void *user), void *user,
                                                     int64_t timeout_ms) SEMEL_MUST_USE;

struct semel_router_counters {
    uint64_t pipes;       /* made */
    uint64_t pipes_open;  /* now */
    uint64_t connections; /* now */
    uint64_t delivered;   /* messages */
    uint64_t dropped;     /* without a receiver: its pipe was closed, or the router stopped */
    uint64_t flooded;     /* dropped by a pipe's choice */
    uint64_t refused;     /* senders that named no pipe of theirs, or broke the protocol */
};

/* A snapshot. Thread: loop thread. Blocks: no. Since: 0.4 */
SEMEL_API void semel_router_counters(const struct semel_router *router,
                                     struct semel_router_counters *out_counters);

/* Messages of so many bytes are passed. */
#define SEMEL_PASSED_BYTES 262144

/* --- senders: in any process of the same user ---------------------------------------------- */

/* A sender for a ticket. out: owned by caller. Returns: OK; INVALID (no ticket); NO_MEMORY.
 * Thread: any thread. Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_sender_create(struct semel_sender **out, const char *ticket)
    SEMEL_MUST_USE;

/* initial -> open. The router need not be there yet. Returns: OK; ALREADY (it is open); STOPPED (it
 * was stopped: there is no second start); SYSTEM, LIMIT, NO_MEMORY; FORKED. Thread: one at a time.
 * Blocks: no. Since: 0.4 */
SEMEL_API enum semel_status semel_sender_start(struct semel_sender *sender) SEMEL_MUST_USE;

/* Send a message (copied), at most timeout_ms from now; negative: as long as the router is there.
 * Returns: OK; INVALID (not started); STOPPED (stopped); WOULD_BLOCK (the receiver is slow: nothing
 * was sent); DENIED (no such pipe, or it had a sender before); PEER_DIED (the router is gone);
 * TOO_LARGE; NO_MEMORY; WOULD_DEADLOCK in a loop's callback, with another timeout than 0; FORKED.
 * Thread: one at a time. Blocks: at most timeout_ms. Since: 0.4 */
SEMEL_API enum semel_status semel_sender_send(struct semel_sender *sender,
                                              struct semel_bytes message, int64_t timeout_ms)
    SEMEL_MUST_USE;

/* The same without a copy, for large messages: memory of `size` bytes (not 0), in which anything
 * may be, to be filled, and sent by semel_sender_send_reserved. out_data: the sender's. A second
 * reservation takes the place of the first. Returns: OK; WOULD_BLOCK: the receiver still has all
 * there is; as semel_sender_send. Thread: one at a time. Blocks: at most timeout_ms. Since: 0.4 */
SEMEL_API enum semel_status semel_sender_reserve(struct semel_sender *sender, size_t size,
                                                 int64_t timeout_ms, void **out_data)
    SEMEL_MUST_USE;

/* Send what was reserved; it must not be written any more, unless this returns WOULD_BLOCK, after
 * which it can be tried again. Returns: as semel_sender_send; INVALID if nothing was reserved.
 * Thread: one at a time. Blocks: at most timeout_ms. Since: 0.4 */
SEMEL_API enum semel_status semel_sender_send_reserved(struct semel_sender *sender,
                                                       int64_t timeout_ms) SEMEL_MUST_USE;

/* What was sent is written: it arrives even if this process ends at once. Returns: OK; WOULD_BLOCK
 * (not within timeout_ms); as semel_sender_send. Thread: one at a time. Blocks: at most
 * timeout_ms. Since: 0.4 */
SEMEL_API enum semel_status semel_sender_flush(struct semel_sender *sender, int64_t timeout_ms)
    SEMEL_MUST_USE;

/* open -> closed, after a flush of at most timeout_ms. Returns: OK; WOULD_BLOCK (it is closed, and
 * some messages were not written in time: they will be while this process lives on, until its last
 * sender to the same router is destroyed); PEER_DIED, DENIED (it is closed; as semel_sender_send);
 * INVALID (not started); ALREADY; FORKED. Thread: one at a time. Blocks: at most timeout_ms. Since:
 * 0.4 */
SEMEL_API enum semel_status semel_sender_stop(struct semel_sender *sender, int64_t timeout_ms);

/* Stop it if need be, without waiting, and free it. NULL is fine. With the last sender of this
 * process to its router goes what was not written. Thread: one at a time; not in a callback of a
 * client. Blocks: the last one until the I/O thread of its connection has ended. Since: 0.4 */
SEMEL_API void semel_sender_destroy(struct semel_sender *sender);

#ifdef __cplusplus
}
#endif
#endif
