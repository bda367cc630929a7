/* SPDX-License-Identifier: MIT */
/* inspect.h - what semel list, describe, ps, cancel and top share: calls of the reserved methods of
 * a server, whose answers are JSON. See "Reserved methods" in docs/PROTOCOL.md. */
#ifndef TOOL_INSPECT_H
#define TOOL_INSPECT_H

#include <argp.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "one_call.h"

enum { INSPECT_TIMEOUT = 1000, INSPECT_CONNECT };

/* clang-format off */
#define INSPECT_OPTIONS                                                                        \
    { "timeout", INSPECT_TIMEOUT, "DURATION", 0, "The call's deadline (default 30s)", 80 },    \
    { "connect-timeout", INSPECT_CONNECT, "DURATION", 0,                                       \
      "Wait this long for a server to be there (default: not at all for one that is not)", 80 }
/* clang-format on */

/* One of these options, or -o, -q, -v; false: another key. */
bool inspect_option(struct one_call *call, int key, const char *arg, struct argp_state *state);
/* The same as argp's parser, of a command with one argument: an address. */
error_t inspect_address(struct one_call *call, int key, char *arg, struct argp_state *state);

/* Ask, once per process. Returns an exit code; other than 0, why was said; else *out_answer is an
 * object, to be given back with json_decref. */
int inspect(struct one_call *call, json_t **out_answer);

/* What became of a call that did not lead to an answer: its exit code. `why` says what. */
int inspect_failure(const struct semel_result *result, char *why, size_t size);

/* The JSON of a reply; NULL: it is none. */
json_t *inspect_parse(struct semel_bytes body);

/* A member of an object. Of what is not there: "", 0, false. */
const char *member_text(const json_t *object, const char *key);
uint64_t member_count(const json_t *object, const char *key);
bool member_is(const json_t *object, const char *key);
/* A span as people read it, "-" for 0, in `text`, which is returned; the member's is in the unit
 * that its key ends with, _ms or _ns. */
const char *time_text(uint64_t ns, char *text, size_t size);
const char *member_time(const json_t *object, const char *key, char *text, size_t size);
/* A count as it is, "-" for one that is not there. */
const char *member_number(const json_t *object, const char *key, char *text, size_t size);
/* Of a method: which streams its calls have. */
const char *method_streams(const json_t *method);

/* One object on one line of standard output. */
void print_object(const json_t *object);
/* Somebody else's words in a column of at least `width`, escaped. */
void print_column(const char *text, int width);
/* Did standard output take it all? An exit code. */
int print_end(void);

#endif
