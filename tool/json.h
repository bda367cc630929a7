/* SPDX-License-Identifier: MIT */
/* json.h - JSON objects, one to a line, written as they are made. */
#ifndef TOOL_JSON_H
#define TOOL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* One JSON object on one line. Strings that are not UTF-8 have their bad bytes replaced. */
struct json {
    FILE *file;
    bool filled;
};

void json_begin(struct json *json, FILE *file);
void json_text(struct json *json, const char *key, const char *text);
/* `key`: the bytes as a string when they are UTF-8, else "KEY_base64". */
void json_bytes(struct json *json, const char *key, const void *data, size_t size);
void json_count(struct json *json, const char *key, uint64_t value);
void json_number(struct json *json, const char *key, int64_t value);
void json_real(struct json *json, const char *key, double value, int decimals);
void json_end(struct json *json);

/* Length of the UTF-8 sequence at `at`, 0 when it is not one. size > 0. */
size_t utf8_length(const unsigned char *at, size_t size);

/* True when the bytes are valid UTF-8. */
bool utf8_valid(const void *data, size_t size);

#endif
