/* SPDX-License-Identifier: MIT */
#include "rpc/json_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

#define FIRST_ROOM 1024

void sml_json_init(struct sml_json *json, size_t limit)
{
    memset(json, 0, sizeof *json);
    json->limit = limit;
}

void sml_json_fini(struct sml_json *json)
{
    free(json->data);
    json->data = NULL;
    json->size = json->room = 0;
}

static bool grow(struct sml_json *json, size_t more)
{
    size_t room = json->room > 0 ? json->room : FIRST_ROOM;
    char *data;

    if (json->status == SEMEL_OK && more > json->limit - json->size)
        json->status = SEMEL_TOO_LARGE;
    if (json->status != SEMEL_OK)
        return false;
    if (more <= json->room - json->size)
        return true;
    while (more > room - json->size)
        room *= 2;
    data = realloc(json->data, room);
    if (data == NULL) {
        json->status = SEMEL_NO_MEMORY;
        return false;
    }
    json->data = data;
    json->room = room;
    return true;
}

static void add(struct sml_json *json, const void *bytes, size_t count)
{
    if (!grow(json, count))
        return;
    memcpy(json->data + json->size, bytes, count);
    json->size += count;
}

static void add_escaped(struct sml_json *json, const char *text)
{
    const uint8_t *at = (const uint8_t *)text;
    size_t left = strlen(text);

    add(json, "\"", 1);
    while (left > 0) {
        uint32_t point;
        size_t length = sml_text_utf8(at, left, &point);
        char escape[8];

        if (length == 0) {
            add(json, "\\ufffd", 6);
        } else if (point < 0x20 || point == 0x7f || point == '"' || point == '\\') {
            (void)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)point);
            add(json, escape, 6);
        } else {
            add(json, at, length);
        }
        at += length > 0 ? length : 1;
        left -= length > 0 ? length : 1;
    }
    add(json, "\"", 1);
}

/* The comma, if something stands before, and the key. */
static void begin(struct sml_json *json, const char *key)
{
    char last = json->size > 0 ? json->data[json->size - 1] : '{';

    if (last != '{' && last != '[')
        add(json, ",", 1);
    if (key == NULL)
        return;
    add(json, "\"", 1);
    add(json, key, strlen(key));
    add(json, "\":", 2);
}

void sml_json_open(struct sml_json *json, const char *key, char bracket)
{
    begin(json, key);
    add(json, &bracket, 1);
}

void sml_json_close(struct sml_json *json, char bracket)
{
    add(json, &bracket, 1);
}

void sml_json_u64(struct sml_json *json, const char *key, uint64_t value)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%" PRIu64, value);

    begin(json, key);
    add(json, digits, (size_t)length);
}

void sml_json_i64(struct sml_json *json, const char *key, int64_t value)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%" PRId64, value);

    begin(json, key);
    add(json, digits, (size_t)length);
}

void sml_json_bool(struct sml_json *json, const char *key, bool value)
{
    begin(json, key);
    add(json, value ? "true" : "false", value ? 4 : 5);
}

void sml_json_text(struct sml_json *json, const char *key, const char *text)
{
    begin(json, key);
    add_escaped(json, text);
}

void sml_json_hex(struct sml_json *json, const char *key, const void *bytes, size_t count)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *at = bytes;

    begin(json, key);
    add(json, "\"", 1);
    for (size_t i = 0; i < count; i++) {
        const char pair[2] = { digits[at[i] >> 4], digits[at[i] & 15] };

        add(json, pair, sizeof pair);
    }
    add(json, "\"", 1);
}
