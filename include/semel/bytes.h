/* SPDX-License-Identifier: MIT */
/* bytes.h - a view of bytes: a pointer and a length, owned by whoever made it.
 *
 * The function of the same name makes one. Where a type may be written without `struct`, as in C++,
 * it hides the type: that is `struct semel_bytes` there, too. */
#ifndef SEMEL_BYTES_H
#define SEMEL_BYTES_H

#include <stddef.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

struct semel_bytes {
    const void *data; /* borrowed; may be NULL when size is 0 */
    size_t size;      /* bytes */
};

static inline struct semel_bytes semel_bytes(const void *data, size_t size)
{
    struct semel_bytes view;
    view.data = data;
    view.size = size;
    return view;
}

/* The bytes of a C string without its final NUL; NULL gives the empty view. */
static inline struct semel_bytes semel_bytes_text(const char *text)
{
    return semel_bytes(text, text ? strlen(text) : 0);
}

#ifdef __cplusplus
}
#endif
#endif
