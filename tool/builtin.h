/* SPDX-License-Identifier: MIT */
/* builtin.h - the methods that semel serve answers by itself. Each is a handler.
 *
 * echo  the body
 * sleep waits for the duration that is the body ("250ms"); the reply is empty
 * burn  the same in CPU time of its thread
 * fail  fails with the code and text of the body ("7 out of paper")
 * sum   the sum of the body's numbers, which white space separates */
#ifndef TOOL_BUILTIN_H
#define TOOL_BUILTIN_H

#include <semel/request.h>

void builtin_echo(struct semel_request *request, void *user);
void builtin_sleep(struct semel_request *request, void *user);
void builtin_burn(struct semel_request *request, void *user);
void builtin_fail(struct semel_request *request, void *user);
void builtin_sum(struct semel_request *request, void *user);

/* Finish a request, whatever it takes: a reply that is too large or cannot be held becomes a
 * failure. */
void finish_value(struct semel_request *request, const void *data, size_t size);
void finish_failure(struct semel_request *request, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
