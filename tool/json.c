/* SPDX-License-Identifier: MIT */
#include "json.h"

#include <inttypes.h>
#include <string.h>

#include "base64.h"

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

static void jsonl_key(struct jsonl *json, const char *key, const char *suffix)
{
    fprintf(json->file, "%s\"%s%s\":", json->filled ? "," : "", key, suffix);
    json->filled = true;
}

static void jsonl_string(FILE *file, const unsigned char *at, size_t size)
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

static void jsonl_base64(FILE *file, const unsigned char *at, size_t size)
{
    char letters[4];

    fputc('"', file);
    for (size_t i = 0; i < size; i += 3) {
        base64_group(at + i, size - i, letters);
        fwrite(letters, 1, sizeof letters, file);
    }
    fputc('"', file);
}

void jsonl_begin(struct jsonl *json, FILE *file)
{
    json->file = file;
    json->filled = false;
    fputc('{', file);
}

void jsonl_text(struct jsonl *json, const char *key, const char *text)
{
    jsonl_key(json, key, "");
    jsonl_string(json->file, (const unsigned char *)text, strlen(text));
}

void jsonl_bytes(struct jsonl *json, const char *key, const void *data, size_t size)
{
    bool text = utf8_valid(data, size);

    jsonl_key(json, key, text ? "" : "_base64");
    if (text)
        jsonl_string(json->file, data, size);
    else
        jsonl_base64(json->file, data, size);
}

void jsonl_count(struct jsonl *json, const char *key, uint64_t value)
{
    jsonl_key(json, key, "");
    fprintf(json->file, "%" PRIu64, value);
}

void jsonl_number(struct jsonl *json, const char *key, int64_t value)
{
    jsonl_key(json, key, "");
    fprintf(json->file, "%" PRId64, value);
}

void jsonl_real(struct jsonl *json, const char *key, double value, int decimals)
{
    jsonl_key(json, key, "");
    fprintf(json->file, "%.*f", decimals, value);
}

void jsonl_array(struct jsonl *json, const char *key)
{
    jsonl_key(json, key, "");
    fputc('[', json->file);
    json->filled = false;
}

void jsonl_array_end(struct jsonl *json)
{
    fputc(']', json->file);
    json->filled = true;
}

void jsonl_item(struct jsonl *json)
{
    fputs(json->filled ? ",{" : "{", json->file);
    json->filled = false;
}

void jsonl_item_end(struct jsonl *json)
{
    fputc('}', json->file);
    json->filled = true;
}

void jsonl_end(struct jsonl *json)
{
    fputs("}\n", json->file);
}
