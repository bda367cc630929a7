/* SPDX-License-Identifier: MIT */
/* Pieces are added whole or, for trusted text only, cut at a byte; once something was cut nothing
 * more is added, so a message never continues after a hole. */
#include "base/text.h"

#include <string.h>

#include "base/check.h"

static const char digits[] = "0123456789abcdef";

void sml_text_init(struct sml_text *text, char *buffer, size_t room)
{
    SML_ASSERT(room >= 1);
    text->at = buffer;
    text->used = 0;
    text->room = room;
    text->cut = false;
    buffer[0] = '\0';
}

static size_t left(const struct sml_text *text)
{
    return text->cut ? 0 : text->room - 1 - text->used;
}

static void append(struct sml_text *text, const void *bytes, size_t count)
{
    memcpy(text->at + text->used, bytes, count);
    text->used += count;
    text->at[text->used] = '\0';
}

/* All or nothing. */
static void append_whole(struct sml_text *text, const void *bytes, size_t count)
{
    if (count > left(text))
        text->cut = true;
    else
        append(text, bytes, count);
}

void sml_text_add(struct sml_text *text, const char *string)
{
    const size_t length = string ? strlen(string) : 0;
    const size_t room = left(text);

    if (length == 0)
        return;
    append(text, string, length < room ? length : room);
    if (length > room)
        text->cut = true;
}

size_t sml_text_utf8(const uint8_t *p, size_t count, uint32_t *out_point)
{
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    const size_t length = p[0] < 0x80   ? 1
                          : p[0] < 0xc2 ? 0
                          : p[0] < 0xe0 ? 2
                          : p[0] < 0xf0 ? 3
                          : p[0] < 0xf5 ? 4
                                        : 0;
    uint32_t point = p[0];

    if (length == 0 || length > count)
        return 0;
    if (length > 1)
        point &= 0x7fu >> length;
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (p[i] & 0x3f);
    }
    if (point < least[length] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
        return 0;
    *out_point = point;
    return length;
}

/* Safe to show: no controls (C0, DEL, C1), no line or paragraph separator, no bidirectional
 * override or isolate, no byte order mark; and no backslash, which escapes. */
static bool harmless(uint32_t c)
{
    if (c < 0x20 || c == '\\' || (c >= 0x7f && c <= 0x9f))
        return false;
    if (c >= 0x2028 && c <= 0x202e)
        return false;
    if (c == 0x200e || c == 0x200f || c == 0xfeff)
        return false;
    return c < 0x2066 || c > 0x2069;
}

static void add_escape(struct sml_text *text, uint8_t byte)
{
    const char escape[4] = { '\\', 'x', digits[byte >> 4], digits[byte & 15] };

    append_whole(text, escape, sizeof escape);
}

void sml_text_add_escaped(struct sml_text *text, const void *bytes, size_t count)
{
    const uint8_t *p = bytes;

    while (count > 0 && !text->cut) {
        uint32_t point = 0;
        size_t length = sml_text_utf8(p, count, &point);

        if (length > 0 && harmless(point)) {
            append_whole(text, p, length);
        } else {
            add_escape(text, *p);
            length = 1;
        }
        p += length;
        count -= length;
    }
}

void sml_text_add_u64(struct sml_text *text, uint64_t value)
{
    char buffer[20];
    size_t at = sizeof buffer;

    do {
        buffer[--at] = digits[value % 10];
        value /= 10;
    } while (value > 0);
    append_whole(text, buffer + at, sizeof buffer - at);
}

void sml_text_add_i64(struct sml_text *text, int64_t value)
{
    if (value < 0)
        append_whole(text, "-", 1);
    sml_text_add_u64(text, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

void sml_text_add_hex(struct sml_text *text, const void *bytes, size_t count)
{
    const uint8_t *p = bytes;

    for (size_t i = 0; i < count && !text->cut; i++) {
        const char pair[2] = { digits[p[i] >> 4], digits[p[i] & 15] };

        append_whole(text, pair, sizeof pair);
    }
}
