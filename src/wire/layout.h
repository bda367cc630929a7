/* SPDX-License-Identifier: MIT */
/* layout.h - sizes inside payloads, in bytes; shared by encoder and decoder only. */
#ifndef SML_WIRE_LAYOUT_H
#define SML_WIRE_LAYOUT_H

#include "wire/frame.h"

#define WELCOME_FIXED 72
#define CALL_FIXED 32
#define CALL_ORIGIN 24
#define CALL_AGE 8
#define BODY_FIXED (SML_BODY_OVERHEAD - SML_HEADER_BYTES)
#define REPLY_FIXED 32
#define PART_FIXED (SML_PART_OVERHEAD - SML_HEADER_BYTES)
#define CREDIT_FIXED (SML_CREDIT_FRAME_BYTES - SML_HEADER_BYTES)
#define LIST_FIXED 8
#define LIST_FROM_CALLER 1
#define LIST_FROM_CALLEE 2
#define OUTSTANDING_BYTES 32
#define LISTED_BYTES 24
#define ACK_FIXED 8
#define ACK_RANGE_BYTES 16
#define BUSY_FIXED (SML_BUSY_FRAME_BYTES - SML_HEADER_BYTES)
#define DRAIN_FIXED 4
#define BYE_FIXED (SML_BYE_PAYLOAD_BYTES_MAX - SML_BYE_TEXT_BYTES)

#endif
