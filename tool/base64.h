/* SPDX-License-Identifier: MIT */
/* base64.h - bytes that are no text, as JSON has them. */
#ifndef TOOL_BASE64_H
#define TOOL_BASE64_H

#include <stdbool.h>
#include <stddef.h>

/* What `size` bytes are as text, without a NUL. */
#define BASE64_LENGTH(size) (((size) + 2) / 3 * 4)

/* The next up to three of `size` bytes (size > 0) as four letters, filled up with '='. */
void base64_group(const unsigned char *at, size_t size, char out[4]);

/* Read `length` letters back; `out` has room for length / 4 * 3 bytes. False: it is not base64,
 * with '=' where they belong and no blanks. */
bool base64_decode(const char *text, size_t length, unsigned char *out, size_t *out_size);

#endif
