/* SPDX-License-Identifier: MIT */
#include "cutter.h"

#include <stdlib.h>
#include <string.h>

static enum cut give(cutter_fn fn, const char *item, size_t size, void *user)
{
    return fn(item, size, user) ? CUT_OK : CUT_STOPPED;
}

static enum cut give_chunks(const struct cutter *cutter, const char *data, size_t size,
                            cutter_fn fn, void *user)
{
    enum cut cut = CUT_OK;

    while (size > 0 && cut == CUT_OK) {
        size_t bytes = size < cutter->chunk ? size : cutter->chunk;

        cut = give(fn, data, bytes, user);
        data += bytes;
        size -= bytes;
    }
    return cut;
}

static enum cut hold(struct cutter *cutter, const char *data, size_t size)
{
    size_t room = cutter->room ? cutter->room : 4096;
    char *larger;

    if (size > cutter->line_max - cutter->size)
        return CUT_TOO_LONG;
    while (room < cutter->size + size)
        room *= 2;
    if (room != cutter->room) {
        larger = realloc(cutter->held, room);
        if (!larger)
            return CUT_NO_MEMORY;
        cutter->held = larger;
        cutter->room = room;
    }
    if (size > 0)
        memcpy(cutter->held + cutter->size, data, size);
    cutter->size += size;
    return CUT_OK;
}

/* A line that lies in `data` whole is not copied. */
static enum cut give_line(struct cutter *cutter, const char *data, size_t size, cutter_fn fn,
                          void *user)
{
    enum cut cut;

    if (cutter->size == 0)
        return size > cutter->line_max ? CUT_TOO_LONG : give(fn, data, size, user);
    cut = hold(cutter, data, size);
    if (cut == CUT_OK)
        cut = give(fn, cutter->held, cutter->size, user);
    cutter->size = 0;
    return cut;
}

enum cut cutter_feed(struct cutter *cutter, const char *data, size_t size, cutter_fn fn, void *user)
{
    enum cut cut = CUT_OK;

    if (cutter->chunk > 0)
        return give_chunks(cutter, data, size, fn, user);
    while (size > 0 && cut == CUT_OK) {
        const char *newline = memchr(data, '\n', size);
        size_t length = newline ? (size_t)(newline - data) : size;

        cut = newline ? give_line(cutter, data, length, fn, user) : hold(cutter, data, length);
        length += newline != NULL;
        data += length;
        size -= length;
    }
    return cut;
}

enum cut cutter_end(struct cutter *cutter, cutter_fn fn, void *user)
{
    size_t size = cutter->size;

    cutter->size = 0;
    return size > 0 ? give(fn, cutter->held, size, user) : CUT_OK;
}

void cutter_clear(struct cutter *cutter)
{
    free(cutter->held);
    cutter->held = NULL;
    cutter->size = cutter->room = 0;
}
