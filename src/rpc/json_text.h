/* SPDX-License-Identifier: MIT */
/* json_text.h - write a JSON text into memory that grows up to a limit.
 *
 * Errors are kept: after one nothing is added, and `status` says why. Strings that are not UTF-8
 * have their bad bytes replaced. */
#ifndef SML_RPC_JSON_TEXT_H
#define SML_RPC_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <semel/status.h>

struct sml_json {
    char *data;
    size_t size, room, limit;
    enum semel_status status; /* OK; NO_MEMORY; TOO_LARGE */
};

void sml_json_init(struct sml_json *json, size_t limit);
void sml_json_fini(struct sml_json *json);

/* An object '{' or an array '[', and its end. `key` is trusted; NULL in an array and for the
 * whole. */
void sml_json_open(struct sml_json *json, const char *key, char bracket);
void sml_json_close(struct sml_json *json, char bracket);

void sml_json_u64(struct sml_json *json, const char *key, uint64_t value);
void sml_json_i64(struct sml_json *json, const char *key, int64_t value);
void sml_json_bool(struct sml_json *json, const char *key, bool value);
void sml_json_text(struct sml_json *json, const char *key, const char *text);
/* Two lower-case digits to a byte. */
void sml_json_hex(struct sml_json *json, const char *key, const void *bytes, size_t count);

#endif
