/* SPDX-License-Identifier: MIT */
/* pair.h - two ends of one connection inside this machine. */
#ifndef SML_IO_PAIR_H
#define SML_IO_PAIR_H

#include "io/channel.h"

/* Two connected descriptors, close-on-exec. Returns OK; LIMIT, NO_MEMORY, SYSTEM. */
enum semel_status sml_pair_open(int out_fds[2], struct sml_reason *out_reason) SML_MUST_USE;

/* The same as channels. */
enum semel_status sml_channel_pair(struct sml_channel *out_a, struct sml_channel *out_b,
                                   struct sml_reason *out_reason) SML_MUST_USE;

#endif
