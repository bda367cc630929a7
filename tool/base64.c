/* SPDX-License-Identifier: MIT */
#include "base64.h"

#include <string.h>

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_group(const unsigned char *at, size_t size, char out[4])
{
    unsigned bits =
        (unsigned)at[0] << 16 | (size > 1 ? (unsigned)at[1] << 8 : 0) | (size > 2 ? at[2] : 0u);

    out[0] = letters[bits >> 18];
    out[1] = letters[bits >> 12 & 63];
    out[2] = size > 1 ? letters[bits >> 6 & 63] : '=';
    out[3] = size > 2 ? letters[bits & 63] : '=';
}

bool base64_decode(const char *text, size_t length, unsigned char *out, size_t *out_size)
{
    size_t size = 0, filled = 0;

    if (length % 4 != 0)
        return false;
    while (filled < 2 && filled < length && text[length - 1 - filled] == '=')
        filled++;
    for (size_t i = 0; i < length; i += 4) {
        size_t valid = i + 4 == length ? 4 - filled : 4;
        unsigned bits = 0;

        for (size_t k = 0; k < 4; k++) {
            const char *letter = k < valid ? strchr(letters, text[i + k]) : letters;

            if (!letter || *letter == '\0')
                return false;
            bits = bits << 6 | (unsigned)(letter - letters);
        }
        /* What is cut off must be nothing: one text only for the same bytes. */
        if (valid < 4 && (bits & (valid == 3 ? 0xffu : 0xffffu)) != 0)
            return false;
        out[size++] = (unsigned char)(bits >> 16);
        if (valid > 2)
            out[size++] = (unsigned char)(bits >> 8);
        if (valid > 3)
            out[size++] = (unsigned char)bits;
    }
    *out_size = size;
    return true;
}
