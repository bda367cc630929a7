/* SPDX-License-Identifier: MIT */
/* client_seam.h - what the layer above asks of a client beyond its public interface. */
#ifndef SML_RPC_CLIENT_SEAM_H
#define SML_RPC_CLIENT_SEAM_H

#include <semel/client.h>

/* Would a call with these be taken? Returns OK; INVALID, TOO_LARGE. Any thread. */
enum semel_status sml_client_check(const char *method, struct semel_bytes body,
                                   const struct semel_call_options *options);

/* The bytes that the system has taken for the connection so far. False: a thread is inside a
 * write at this moment, and *out_bytes does not count what that takes. Any thread. */
bool sml_client_written(struct semel_client *client, uint64_t *out_bytes);

#endif
