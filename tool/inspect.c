/* SPDX-License-Identifier: MIT */
#include "inspect.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "duration.h"
#include "json.h"
#include "output.h"
#include "signals.h"

bool inspect_option(struct one_call *call, int key, const char *arg, struct argp_state *state)
{
    char why[200];

    if (key == INSPECT_TIMEOUT) {
        if (!duration_parse_ms(arg, &call->options.deadline_ms, why, sizeof why))
            argp_error(state, "--timeout: %s", why);
        return true;
    }
    if (key == INSPECT_CONNECT) {
        if (!duration_parse_ms(arg, &call->connect_timeout_ms, why, sizeof why))
            argp_error(state, "--connect-timeout: %s", why);
        return true;
    }
    return output_option(key, arg, state);
}

error_t inspect_address(struct one_call *call, int key, char *arg, struct argp_state *state)
{
    switch (key) {
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            argp_error(state, "too many arguments");
        call->address = arg;
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num == 0)
            argp_error(state, "an address is needed");
        return 0;
    default:
        return inspect_option(call, key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

int inspect_failure(const struct semel_result *result, char *why, size_t size)
{
    size_t length = semel_result_message(result, why, size);

    if (result->outcome == SEMEL_NOT_EXECUTED && result->status == SEMEL_NO_METHOD && length < size)
        snprintf(why + length, size - length, "; it shows nothing of itself (--inspect none)");
    if (result->outcome != SEMEL_FAILURE)
        return tool_exit_of_result(result->outcome, result->status);
    /* A refusal's code is its status. */
    switch (result->code) {
    case SEMEL_NO_METHOD:
        return TOOL_NO_METHOD;
    case SEMEL_ALREADY:
        return TOOL_NOT_EXECUTED;
    default:
        return TOOL_FAILURE;
    }
}

json_t *inspect_parse(struct semel_bytes body)
{
    json_t *answer = json_loadb(body.data, body.size, 0, NULL);

    if (json_is_object(answer))
        return answer;
    json_decref(answer);
    return NULL;
}

int inspect(struct one_call *call, json_t **out_answer)
{
    struct semel_result result = { 0 };
    enum semel_status status;
    char text[2048] = "";
    int code = TOOL_VALUE;

    signals_block();
    status = one_call(call, &result, text, sizeof text);
    if (status != SEMEL_OK)
        return tool_not_sent(call->address, status, text);
    if (result.outcome == SEMEL_FAILURE && result.code == SEMEL_NO_METHOD) {
        code = TOOL_NO_METHOD; /* of semel.describe, whose body is a name */
        output_error("%s: no such method: %.*s", call->address, (int)call->body.size,
                     (const char *)call->body.data);
    } else if (result.outcome != SEMEL_VALUE) {
        code = inspect_failure(&result, text, sizeof text);
        output_error("%s", text);
    } else {
        *out_answer = inspect_parse(result.body);
        if (!*out_answer) {
            output_error("%s: %s is answered with something that is no JSON object", call->address,
                         call->method);
            code = TOOL_PROTOCOL;
        }
    }
    semel_result_clear(&result);
    return code;
}

/* --- members --------------------------------------------------------------------------------- */

const char *member_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

uint64_t member_count(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));

    return value > 0 ? (uint64_t)value : 0;
}

bool member_is(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

const char *time_text(uint64_t ns, char *text, size_t size)
{
    if (ns > 0)
        return duration_format((int64_t)(ns > INT64_MAX ? INT64_MAX : ns), text, size);
    snprintf(text, size, "-");
    return text;
}

const char *member_time(const json_t *object, const char *key, char *text, size_t size)
{
    size_t length = strlen(key);
    bool is_ms = length > 3 && strcmp(key + length - 3, "_ms") == 0;
    uint64_t count = member_count(object, key);

    if (json_object_get(object, key) == NULL)
        return "-";
    return time_text(is_ms ? count * 1000000 : count, text, size);
}

const char *member_number(const json_t *object, const char *key, char *text, size_t size)
{
    if (json_object_get(object, key))
        snprintf(text, size, "%" PRIu64, member_count(object, key));
    else
        snprintf(text, size, "-");
    return text;
}

const char *method_streams(const json_t *method)
{
    static const char *const words[] = { "-", "takes", "gives", "both" };

    /* An older server does not say. */
    if (!json_object_get(method, "takes_items") || !json_object_get(method, "gives_items"))
        return "?";
    return words[member_is(method, "takes_items") + 2 * member_is(method, "gives_items")];
}

/* --- printing -------------------------------------------------------------------------------- */

void print_object(const json_t *object)
{
    json_dumpf(object, stdout, JSON_COMPACT);
    fputc('\n', stdout);
}

/* How many columns the text takes: characters, and escapes. */
static int columns_of(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    int columns = 0;

    for (size_t size = strlen(text); size > 0;) {
        size_t length = utf8_length(at, size);
        bool plain = length > 1 ? !(length == 2 && at[0] == 0xc2 && at[1] < 0xa0)
                                : length == 1 && at[0] >= 0x20 && at[0] != 0x7f;

        columns += plain ? 1 : 4;
        length = plain ? length : 1;
        at += length;
        size -= length;
    }
    return columns;
}

void print_column(const char *text, int width)
{
    int columns = columns_of(text);

    output_escaped(stdout, text, strlen(text));
    if (columns < width)
        printf("%*s", width - columns, "");
}

int print_end(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return TOOL_VALUE;
    output_error("the answer could not be written to standard output: %s", strerror(errno));
    return TOOL_FAILURE;
}
