/* SPDX-License-Identifier: MIT */
/* callee_internal.h - shared by callee.c and callee_wire.c only. */
#ifndef SML_SESSION_CALLEE_INTERNAL_H
#define SML_SESSION_CALLEE_INTERNAL_H

#include "session/callee.h"

static inline struct sml_incoming *sml_incoming_of(struct sml_list *link)
{
    return SML_CONTAINER(link, struct sml_incoming, link);
}

void sml_callee_set_timer(struct sml_callee *callee, struct sml_incoming *in, uint64_t key);

/* A record, phase EXPECTED or (from a CALL) RECEIVING, not in the table yet; NULL: no memory. */
struct sml_incoming *sml_incoming_create(struct sml_callee *callee, uint64_t xid,
                                         struct sml_fingerprint fingerprint,
                                         const struct sml_call_frame *call);

/* Into the table and, by its xid, into `all`; false: no memory, and the record is freed. */
bool sml_callee_insert(struct sml_callee *callee, struct sml_incoming *in) SML_MUST_USE;

/* Out of the table and, unless the shell holds it, freed. */
void sml_callee_release(struct sml_callee *callee, struct sml_incoming *in);

/* Is the call that the shell holds still to run? False: it has its verdict, or is gone, and the
 * shell no longer holds it. */
bool sml_callee_still_wanted(struct sml_callee *callee, struct sml_incoming *in, uint64_t now);

/* A call whose handler has not begun ends as not executed. */
void sml_callee_end_unstarted(struct sml_callee *callee, struct sml_incoming *in,
                              enum semel_status why);

/* The two halves of a verdict: it moves in; it may be told (DONE). */
void sml_callee_keep_verdict(struct sml_callee *callee, struct sml_incoming *in,
                             const struct sml_verdict *verdict, uint8_t *reply);
void sml_callee_tell_verdict(struct sml_callee *callee, struct sml_incoming *in);

/* The record has its verdict, which moves in: DONE, or STORING if there is something to store. */
void sml_callee_settle(struct sml_callee *callee, struct sml_incoming *in,
                       const struct sml_verdict *verdict, uint8_t *reply);

/* The shell's hold ends. False: the record was released, and is gone or belongs to the store. */
bool sml_callee_let_go(struct sml_callee *callee, struct sml_incoming *in);

/* A released record that nobody holds: freed, or first to be forgotten by the store. */
void sml_callee_bury(struct sml_callee *callee, struct sml_incoming *in);
void sml_callee_free_record(struct sml_callee *callee, struct sml_incoming *in);

static inline bool sml_incoming_is_gone(const struct sml_incoming *in)
{
    return atomic_load_explicit(&in->gone, memory_order_relaxed);
}

/* A verdict that the machine makes itself. */
void sml_callee_verdict(struct sml_callee *callee, struct sml_incoming *in,
                        enum semel_outcome outcome, enum semel_status status);

/* The request body is no longer needed; its bytes count no more. */
void sml_callee_drop_body(struct sml_callee *callee, struct sml_incoming *in);

/* Its stream is in the line of those that write exactly while it has something to write. */
static inline void sml_callee_stream_due(struct sml_callee *callee, struct sml_incoming *in)
{
    if (!sml_stream_wants_write(in->stream, true))
        sml_list_remove(&in->stream->send);
    else if (!sml_list_linked(&in->stream->send))
        sml_list_push_back(&callee->streams, &in->stream->send);
}

static inline void sml_callee_stream_event(struct sml_callee *callee, struct sml_incoming *in)
{
    if (in->held && !sml_list_linked(&in->stream->event))
        sml_list_push_back(&callee->events, &in->stream->event);
}

/* Must its verdict wait for parts? */
static inline bool sml_incoming_flows(const struct sml_incoming *in)
{
    return in->stream && in->stream->sends && !SML_BUG(REPLY_OVERTAKES) &&
           !(in->stream->out.open && sml_outflow_is_drained(&in->stream->out));
}

/* What is left of its parts is not sent, and they have no end. */
void sml_callee_cut_stream(struct sml_callee *callee, struct sml_incoming *in);

/* The verdict, DONE, goes out, after the parts before it. */
void sml_callee_send_verdict(struct sml_callee *callee, struct sml_incoming *in);

/* The handler is to be told, once. */
void sml_callee_mark_cancelled(struct sml_callee *callee, struct sml_incoming *in);

#endif
