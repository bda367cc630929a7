/* SPDX-License-Identifier: MIT */
/* text.h - build a message in a fixed buffer: always terminated, cut when it is full, and what
 * came from a peer is escaped. */
#ifndef SML_BASE_TEXT_H
#define SML_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sml_text {
    char *at;
    size_t used; /* without the final NUL */
    size_t room; /* with it */
    bool cut;    /* something did not fit; everything after it is dropped, too */
};

/* `room` >= 1. The text is empty. */
void sml_text_init(struct sml_text *text, char *buffer, size_t room);

/* Trusted text, added as it is; NULL adds nothing. */
void sml_text_add(struct sml_text *text, const char *string);

/* Untrusted bytes. Printable ASCII and well-formed UTF-8 pass; control characters, characters that
 * reorder or break lines, backslash and broken UTF-8 become \xNN, byte by byte. An escape or a
 * character is never cut in two. */
void sml_text_add_escaped(struct sml_text *text, const void *bytes, size_t count);

void sml_text_add_u64(struct sml_text *text, uint64_t value);
void sml_text_add_i64(struct sml_text *text, int64_t value);

/* The length of the well-formed UTF-8 sequence at `p` and its code point; 0 if there is none.
 * count >= 1. */
size_t sml_text_utf8(const uint8_t *p, size_t count, uint32_t *out_point);

/* Two lower-case hexadecimal digits per byte. */
void sml_text_add_hex(struct sml_text *text, const void *bytes, size_t count);

#endif
