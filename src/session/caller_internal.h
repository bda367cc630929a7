/* SPDX-License-Identifier: MIT */
/* caller_internal.h - shared by caller.c and caller_wire.c only. */
#ifndef SML_SESSION_CALLER_INTERNAL_H
#define SML_SESSION_CALLER_INTERNAL_H

#include "session/caller.h"

/* The one timer of `call` goes off at `key`; SML_NEVER: it has none. */
void sml_caller_set_timer(struct sml_caller *caller, struct sml_call *call, uint64_t key);

/* Out of every list and table, onto the done list, with a verdict. `proven`: see
 * SML_REPLY_PROVEN. */
void sml_caller_complete(struct sml_caller *caller, struct sml_call *call,
                         const struct sml_verdict *verdict, bool proven);

/* An end that no reply brought. The callee, if it knows of the call, is told to forget it. */
void sml_caller_end_call(struct sml_caller *caller, struct sml_call *call,
                         enum semel_outcome outcome, enum semel_status status);

/* Acknowledgements owed on this connection are not sent: the next HELLO says the same. */
void sml_caller_drop_acks(struct sml_caller *caller);

/* Its stream begins again, both ways. False: parts of it are gone. */
bool sml_call_restart_stream(struct sml_caller *caller, struct sml_call *call);

/* Send the whole call once more, with its old xid. False: parts of its stream that the callee had
 * are gone, and it is done. */
bool sml_caller_send_again(struct sml_caller *caller, struct sml_call *call) SML_MUST_USE;

/* Nothing of a stream goes out before the whole CALL, and no part after a CANCEL. */
static inline bool sml_call_flows(const struct sml_call *call)
{
    return (call->phase == SML_CALL_SENT || call->phase == SML_CALL_REPLYING) &&
           sml_stream_wants_write(call->stream, !call->cancel_wanted);
}

/* Its stream is in the line of those that write exactly while it has something to write. */
static inline void sml_caller_stream_due(struct sml_caller *caller, struct sml_call *call)
{
    if (call->stream == NULL)
        return;
    if (!caller->up || !sml_call_flows(call))
        sml_list_remove(&call->stream->send);
    else if (!sml_list_linked(&call->stream->send))
        sml_list_push_back(&caller->streams, &call->stream->send);
}

static inline void sml_caller_stream_event(struct sml_caller *caller, struct sml_call *call)
{
    if (!sml_list_linked(&call->stream->event))
        sml_list_push_back(&caller->events, &call->stream->event);
}

#endif
