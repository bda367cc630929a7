/* SPDX-License-Identifier: MIT */
#include "json.h"

#include <inttypes.h>
#include <string.h>

size_t utf8_length(const unsigned char *at, size_t size)
{
    size_t length = at[0] < 0x80   ? 1
                    : at[0] < 0xc2 ? 0
                    : at[0] < 0xe0 ? 2
                    : at[0] < 0xf0 ? 3
                    : at[0] < 0xf5 ? 4
                                   : 0;

    if (length == 0 || length > size)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
        (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f))
        return 0;
    return length;
}

bool utf8_valid(const void *data, size_t size)
{
    const unsigned char *at = data;

    for (size_t i = 0, length; i < size; i += length) {
        length = utf8_length(at + i, size - i);
        if (length == 0)
            return false;
    }
    return true;
}

static void json_key(struct json *json, const char *key, const char *suffix)
{
    fprintf(json->file, "%s\"%s%s\":", json->filled ? "," : "", key, suffix);
    json->filled = true;
}

static void json_string(FILE *file, const unsigned char *at, size_t size)
{
    fputc('"', file);
    for (size_t i = 0; i < size;) {
        size_t length = utf8_length(at + i, size - i);

        if (length == 0)
            fputs("\\ufffd", file);
        else if (at[i] == '"' || at[i] == '\\')
            fprintf(file, "\\%c", at[i]);
        else if (at[i] < 0x20 || at[i] == 0x7f)
            fprintf(file, "\\u%04x", at[i]);
        else
            fwrite(at + i, 1, length, file);
        i += length ? length : 1;
    }
    fputc('"', file);
}

static void json_base64(FILE *file, const unsigned char *at, size_t size)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    fputc('"', file);
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        unsigned bits = (unsigned)at[i] << 16 | (left > 1 ? (unsigned)at[i + 1] << 8 : 0) |
                        (left > 2 ? at[i + 2] : 0u);

        fputc(letters[bits >> 18], file);
        fputc(letters[bits >> 12 & 63], file);
        fputc(left > 1 ? letters[bits >> 6 & 63] : '=', file);
        fputc(left > 2 ? letters[bits & 63] : '=', file);
    }
    fputc('"', file);
}

void json_begin(struct json *json, FILE *file)
{
    json->file = file;
    json->filled = false;
    fputc('{', file);
}

void json_text(struct json *json, const char *key, const char *text)
{
    json_key(json, key, "");
    json_string(json->file, (const unsigned char *)text, strlen(text));
}

void json_bytes(struct json *json, const char *key, const void *data, size_t size)
{
    bool text = utf8_valid(data, size);

    json_key(json, key, text ? "" : "_base64");
    if (text)
        json_string(json->file, data, size);
    else
        json_base64(json->file, data, size);
}

void json_count(struct json *json, const char *key, uint64_t value)
{
    json_key(json, key, "");
    fprintf(json->file, "%" PRIu64, value);
}

void json_number(struct json *json, const char *key, int64_t value)
{
    json_key(json, key, "");
    fprintf(json->file, "%" PRId64, value);
}

void json_real(struct json *json, const char *key, double value, int decimals)
{
    json_key(json, key, "");
    fprintf(json->file, "%.*f", decimals, value);
}

void json_end(struct json *json)
{
    fputs("}\n", json->file);
}
