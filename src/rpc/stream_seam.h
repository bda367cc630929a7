/* SPDX-License-Identifier: MIT */
/* stream_seam.h - what the layer above needs of streams beside the public interface. */
#ifndef SML_RPC_STREAM_SEAM_H
#define SML_RPC_STREAM_SEAM_H

#include <semel/stream.h>
#include <stdint.h>

/* Wait until all that was sent is in the kernel's hands, at most until `until` (0: do not wait).
 * Returns OK; WOULD_BLOCK; END (the call is over). Thread: as semel_stream_send. */
enum semel_status sml_stream_flush(struct semel_stream *stream, uint64_t until);

/* As semel_stream_free, but the call goes on to its end by itself. */
void sml_stream_detach(struct semel_stream *stream);

#endif
