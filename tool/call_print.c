/* SPDX-License-Identifier: MIT */
/* call_print.c - what semel call prints. */
#include <stdio.h>
#include <string.h>

#include "call.h"
#include "json.h"
#include "one_call.h"
#include "output.h"

static void print_json(const struct semel_result *result, const char *key)
{
    struct jsonl json;

    jsonl_begin(&json, stdout);
    jsonl_text(&json, "outcome", semel_outcome_text(result->outcome));
    jsonl_text(&json, "status", semel_status_name(result->status));
    if (result->method)
        jsonl_text(&json, "method", result->method);
    if (key)
        jsonl_text(&json, "key", key);
    if (result->peer)
        jsonl_text(&json, "peer", result->peer);
    jsonl_count(&json, "call", result->call);
    if (result->outcome == SEMEL_VALUE)
        jsonl_bytes(&json, "body", result->body.data, result->body.size);
    if (result->outcome == SEMEL_FAILURE)
        jsonl_number(&json, "code", result->code);
    if (result->text)
        jsonl_text(&json, "text", result->text);
    if (result->detail.size)
        jsonl_bytes(&json, "detail", result->detail.data, result->detail.size);
    if (result->trace)
        jsonl_text(&json, "trace", result->trace);
    jsonl_end(&json);
}

bool call_print(const struct semel_result *result, const char *key, int *out_code)
{
    char text[2048];

    *out_code = tool_exit_of_result(result->outcome, result->status);
    if (output_json())
        print_json(result, key);
    else if (result->outcome == SEMEL_VALUE && result->body.size)
        fwrite(result->body.data, 1, result->body.size, stdout);
    if (result->outcome != SEMEL_VALUE) {
        semel_result_message(result, text, sizeof text);
        if (result->outcome == SEMEL_FAILURE)
            output_error("%s (code %d)", text, result->code);
        else
            output_error("%s", text);
        if (result->outcome == SEMEL_NOT_EXECUTED && result->status == SEMEL_TOO_LARGE)
            output_note("that limit is 'semel serve --body-limit'");
        output_quote(result->detail.data, result->detail.size);
        if (result->trace && output_verbose())
            output_quote(result->trace, strlen(result->trace));
    }
    if (output_written(semel_outcome_text(result->outcome)))
        return true;
    /* Whoever runs this command does not have the answer, and must not take it for a failure. */
    *out_code = TOOL_UNKNOWN;
    return false;
}

bool call_print_line(const struct semel_result *result, const char *key)
{
    if (output_json()) {
        print_json(result, key);
        return output_written(semel_outcome_text(result->outcome));
    }
    output_escaped(stdout, key, strlen(key));
    printf(" %s: %s: ", result->method, semel_outcome_text(result->outcome));
    if (result->outcome == SEMEL_VALUE)
        output_escaped(stdout, result->body.data, result->body.size);
    else if (result->outcome == SEMEL_FAILURE && result->text)
        output_escaped(stdout, result->text, strlen(result->text));
    else
        fputs(semel_status_text(result->status), stdout);
    if (result->outcome == SEMEL_FAILURE)
        printf(" (code %d)", result->code);
    putchar('\n');
    return output_written(semel_outcome_text(result->outcome));
}

int call_not_made(const struct call_arguments *a, enum semel_status status, const char *text)
{
    struct semel_result result = { .outcome = SEMEL_NOT_EXECUTED,
                                   .status = status,
                                   .text = text,
                                   .method = a->method,
                                   .peer = a->address };

    if (output_json())
        print_json(&result, a->outbox ? a->key : NULL);
    output_error("%s at %s, not sent: %s%s%s", a->method, a->address, semel_status_text(status),
                 text && *text ? ": " : "", text ? text : "");
    fflush(stdout);
    return tool_exit_of_status(status);
}
