/* SPDX-License-Identifier: MIT */
/* frame_kit.h - what the tests of frames share: a sample of each type, a frame as text, and a
 * decoded frame encoded again. Everything the decoder accepts is canonical, so decoding and
 * encoding again must give the same bytes; frames and the fuzzer are held to that. */
#ifndef TESTS_WIRE_FRAME_KIT_H
#define TESTS_WIRE_FRAME_KIT_H

#include <stddef.h>
#include <stdint.h>

#include "wire/frame.h"

#define FRAME_TEXT_ROOM (4 * SML_FRAME_BYTES_MAX)

/* A valid frame of each type: 1 .. FRAME_SAMPLES; sample numbers are frame types, and some more. */
#define SAMPLE_LIST_CALLEE 16
#define SAMPLE_HELLO_CREATE 17
#define SAMPLE_PART_PIECE 18
#define SAMPLE_PART_END 19
#define SAMPLE_PART_PROGRESS 20
#define FRAME_SAMPLES 20

/* Its size; 0: there is no such sample. */
size_t frame_sample(unsigned sample, uint8_t *out);

/* "name = value" lines in the order of the wire. */
void frame_describe(const struct sml_frame *frame, char *out, size_t room);

/* The frame's bytes, SML_FRAME_BYTES_MAX at most; 0 for a HELLO or WELCOME of another version. */
size_t frame_encode_again(const struct sml_frame *frame, uint8_t *out);

#endif
