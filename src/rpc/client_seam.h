/* SPDX-License-Identifier: MIT */
/* client_seam.h - what the layer above asks of a client beyond its public interface. */
#ifndef SML_RPC_CLIENT_SEAM_H
#define SML_RPC_CLIENT_SEAM_H

#include <semel/client.h>
#include <semel/stream.h>

/* Would a call with these be taken? Returns OK; INVALID, TOO_LARGE. Any thread. */
enum semel_status sml_client_check(const char *method, struct semel_bytes body,
                                   const struct semel_call_options *options);

/* The bytes that the system has taken for the connection so far. False: a thread is inside a
 * write at this moment, and *out_bytes does not count what that takes. Any thread. */
bool sml_client_written(struct semel_client *client, uint64_t *out_bytes);

/* As semel_client_stream, without a deadline: it is there until one of its ends has had enough of
 * it. */
enum semel_status sml_client_stream_for_life(struct semel_client *client, const char *method,
                                             struct semel_bytes body,
                                             const struct semel_stream_options *options,
                                             struct semel_stream **out_stream);

/* --- loops that read for themselves ---------------------------------------------------------
 *
 * A loop that waits for the reply of its own call can read it as well: so the I/O thread is not
 * woken for it, and the loop not by that. It watches the connection's descriptor and has
 * sml_client_read_on_loop read. The client says whether that is called for: not while there are
 * other calls, nor when the loop has not come for some milliseconds; then the I/O thread reads, and
 * tells the loop as usual. So a loop that watches in vain, or not at all, costs time only. */

/* As semel_client_stream; `on_ready` runs on any thread that reads, does not block, and takes no
 * lock under which the client is called. *out_lent: the loop is to watch. */
enum semel_status sml_client_stream_on_loop(struct semel_client *client, const char *method,
                                            struct semel_bytes body,
                                            const struct semel_call_options *call,
                                            const struct semel_stream_options *options,
                                            struct semel_stream **out_stream, bool *out_lent);
/* The descriptor to watch for input, for the caller to close; -1: none to be had. */
int sml_client_loop_fd(struct semel_client *client);
/* It is readable: read once, and deliver. False: the I/O thread reads. */
bool sml_client_read_on_loop(struct semel_client *client);

#endif
