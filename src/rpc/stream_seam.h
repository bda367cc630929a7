/* SPDX-License-Identifier: MIT */
/* stream_seam.h - what the layer above needs of streams beside the public interface. */
#ifndef SML_RPC_STREAM_SEAM_H
#define SML_RPC_STREAM_SEAM_H

#include <semel/stream.h>
#include <stdint.h>

/* As semel_stream_send, with `head` (at most SML_ITEM_HEAD bytes) before the item. */
enum semel_status sml_stream_send(struct semel_stream *stream, struct semel_bytes head,
                                  struct semel_bytes item, int64_t timeout_ms);

/* How many parts were sent, and how many of them the other end has taken. */
void sml_stream_progress_of(struct semel_stream *stream, uint64_t *out_added, uint64_t *out_taken);

/* Wait until all that was sent is in the kernel's hands, at most until `until` (0: do not wait).
 * Returns OK; WOULD_BLOCK; END (the call is over). Thread: as semel_stream_send. */
enum semel_status sml_stream_flush(struct semel_stream *stream, uint64_t until);

/* Look at this first, then at what is waited for, then wait until something is new at the stream,
 * at most until `until`. Returns OK; END. */
uint32_t sml_stream_seen(struct semel_stream *stream);
enum semel_status sml_stream_wait_news(struct semel_stream *stream, uint32_t seen, uint64_t until);

/* As semel_stream_free, but the call goes on to its end by itself. */
void sml_stream_detach(struct semel_stream *stream);

#endif
