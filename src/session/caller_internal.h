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

/* Send the whole call once more, with its old xid. */
void sml_caller_send_again(struct sml_caller *caller, struct sml_call *call);

#endif
