/* SPDX-License-Identifier: MIT */
/* json.h - JSON objects, one to a line, written as they are made. */
#ifndef TOOL_JSON_H
#define TOOL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* One JSON object on one line. Strings that are not UTF-8 have their bad bytes replaced. */
struct jsonl {
    FILE *file;
    bool filled;
};

void jsonl_begin(struct jsonl *json, FILE *file);
void jsonl_text(struct jsonl *json, const char *key, const char *text);
/* `key`: the bytes as a string when they are UTF-8, else "KEY_base64". */
void jsonl_bytes(struct jsonl *json, const char *key, const void *data, size_t size);
void jsonl_count(struct jsonl *json, const char *key, uint64_t value);
void jsonl_number(struct jsonl *json, const char *key, int64_t value);
void jsonl_real(struct jsonl *json, const char *key, double value, int decimals);
/* `key`: an array of objects; what is written between jsonl_item and its end belongs to one. */
void jsonl_array(struct jsonl *json, const char *key);
void jsonl_item(struct jsonl *json);
void jsonl_item_end(struct jsonl *json);
void jsonl_array_end(struct jsonl *json);
void jsonl_end(struct jsonl *json);

/* Length of the UTF-8 sequence at `at`, 0 when it is not one. size > 0. */
size_t utf8_length(const unsigned char *at, size_t size);

/* True when the bytes are valid UTF-8. */
bool utf8_valid(const void *data, size_t size);

#endif
