/* SPDX-License-Identifier: MIT */
/* link_internal.h - shared by link.c and link_wire.c only. */
#ifndef SML_SESSION_LINK_INTERNAL_H
#define SML_SESSION_LINK_INTERNAL_H

#include "session/link.h"

/* Remember why, cut to fit; `text` is borrowed. */
void sml_link_note(struct sml_link *link, enum semel_status why, struct semel_bytes text);

/* The connection, or the attempt at one, is over; try again when it is time. `fault`: it counts
 * towards the backoff. */
void sml_link_retry(struct sml_link *link, bool fault, uint64_t now);

/* The same for a connection that was there: it is a fault if the one before did no good either. */
void sml_link_lost(struct sml_link *link, uint64_t now);

/* Terminal, with the why that was noted: every call ends. */
void sml_link_fail(struct sml_link *link);

/* Have the shell close; BYE goes first if `bye` is not 0. */
void sml_link_hang_up(struct sml_link *link, enum sml_bye_code bye);

/* Its identity has changed: nothing is sent before the shell has saved it. */
void sml_link_must_save(struct sml_link *link);

/* The session is gone by the word of its server. */
void sml_link_session_lost(struct sml_link *link, uint64_t now);

/* A draining server has nothing of ours left: go elsewhere. */
void sml_link_leave_if_drained(struct sml_link *link, uint64_t now);

#endif
