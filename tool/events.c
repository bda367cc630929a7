/* SPDX-License-Identifier: MIT */
/* events.c - semel trigger and semel wait: the event exchange of a server, semel serve --exchange.
 *
 * They are calls of the methods semel.trigger and semel.wait, whose bodies docs/ASYNC.md describes.
 * A wait that is not met leaves everything where it is, unless it was told to take what is there:
 * so exit code 4 is the promise here that it is everywhere. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "duration.h"
#include "json.h"
#include "one_call.h"
#include "output.h"
#include "signals.h"
#include "tool.h"

#define WAIT_MS 10000
#define MARGIN_MS 30000 /* the call's deadline is so much later: connections may break */
#define IDS_MAX 4096
#define WAIT_HEAD 16 /* u32 timeout_ms, u32 need, u8 flags, 3 * 0, u32 count */
#define WAIT_LEAVE 1
#define REPLY_HEAD 8 /* u32 status, u32 count; then per id u32 size, data */
#define MISSING UINT32_MAX

struct arguments {
    struct one_call call;
    char *id, *data;    /* trigger */
    char *ids[IDS_MAX]; /* wait */
    size_t count;
    int64_t timeout_ms;
    bool any, all, partial;
};

enum { KEY_TIMEOUT = 256, KEY_CONNECT, KEY_ALL, KEY_ANY, KEY_PARTIAL };

static void check_id(const char *id, struct argp_state *state)
{
    size_t size = strlen(id);

    if (size == 0 || size > SEMEL_EVENT_ID_BYTES_MAX)
        argp_error(state, "an event's ID has 1 to %d bytes", SEMEL_EVENT_ID_BYTES_MAX);
}

static void parse_connect_timeout(struct arguments *a, const char *arg, struct argp_state *state)
{
    char why[200];

    if (!duration_parse_ms(arg, &a->call.connect_timeout_ms, why, sizeof why))
        argp_error(state, "--connect-timeout: %s", why);
}

/* The call did not lead to a value: say so. Returns the exit code. */
static int explain(const struct arguments *a, enum semel_status status,
                   const struct semel_result *result, const char *text)
{
    const bool no_exchange = result->status == SEMEL_NO_METHOD;
    char message[2048];

    if (status != SEMEL_OK)
        return tool_not_sent(a->call.address, status, text);
    semel_result_message(result, message, sizeof message);
    output_error("%s%s", message,
                 no_exchange ? "; it has no exchange: start it with --exchange" : "");
    /* The exchange's refusals come with their status as the code; nothing was changed then. */
    if (result->outcome == SEMEL_FAILURE)
        return tool_exit_of_status((enum semel_status)result->code);
    return tool_exit_of_result(result->outcome, result->status);
}

/* --- semel trigger --------------------------------------------------------------------------- */

static const struct argp_option trigger_options[] = {
    { "timeout", KEY_TIMEOUT, "DURATION", 0, "The call's deadline (default 30s)", 0 },
    { "connect-timeout", KEY_CONNECT, "DURATION", 0,
      "Wait this long for a server to be there (default: not at all for one that is not)", 0 },
    OUTPUT_OPTIONS,
    { NULL, 0, NULL, 0, NULL, 0 },
};

static const char trigger_doc[] =
    "Trigger the event ID in the exchange of the server at ADDRESS, with DATA: '-' reads it from "
    "standard input; without DATA it is empty. It is kept there until somebody waits for it, or "
    "for a minute. A newer event of the same ID takes the place of the older."
    "\v"
    "Examples:\n"
    "  semel trigger unix:/run/x build-42 ok\n"
    "  sha256sum image.iso | semel trigger tcp:build.example:7000 image -\n\n"
    "Exit codes as semel call: 0 the exchange has it, 5 nobody knows, 6 it is full; others "
    "promise that nothing happened.";

static error_t trigger_parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    char why[200];

    switch (key) {
    case KEY_TIMEOUT:
        if (!duration_parse_ms(arg, &a->call.options.deadline_ms, why, sizeof why))
            argp_error(state, "--timeout: %s", why);
        return 0;
    case KEY_CONNECT:
        parse_connect_timeout(a, arg, state);
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 2)
            argp_error(state, "too many arguments; put DATA with spaces in quotes");
        if (state->arg_num == 0)
            a->call.address = arg;
        else
            *(state->arg_num == 1 ? &a->id : &a->data) = arg;
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num < 2)
            argp_error(state, "an address and an event's ID are needed");
        check_id(a->id, state);
        return 0;
    default:
        return output_option(key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

/* u8 size of the id, the id, the data. NULL: no memory. */
static char *trigger_body(const char *id, struct semel_bytes data, size_t *out_size)
{
    size_t id_size = strlen(id);
    char *body = malloc(1 + id_size + data.size);

    if (!body)
        return NULL;
    body[0] = (char)id_size;
    memcpy(body + 1, id, id_size);
    if (data.size)
        memcpy(body + 1 + id_size, data.data, data.size);
    *out_size = 1 + id_size + data.size;
    return body;
}

static int trigger(struct arguments *a, struct semel_bytes data)
{
    struct semel_result result = { 0 };
    enum semel_status status = SEMEL_NO_MEMORY;
    char text[1024] = "", *body = trigger_body(a->id, data, &a->call.body.size);
    int code = TOOL_VALUE;

    a->call.method = "semel.trigger";
    a->call.body.data = body;
    if (body)
        status = one_call(&a->call, &result, text, sizeof text);
    if (status != SEMEL_OK || result.outcome != SEMEL_VALUE)
        code = explain(a, status, &result, text);
    semel_result_clear(&result);
    free(body);
    return code;
}

int tool_trigger(int argc, char **argv)
{
    static const struct argp argp = {
        trigger_options, trigger_parse, "ADDRESS ID [DATA|-]", trigger_doc, NULL, NULL, NULL
    };
    static struct arguments a;
    struct semel_bytes data;
    char *input = NULL;
    size_t size = 0;
    int code;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    data = semel_bytes_text(a.data);
    if (a.data && strcmp(a.data, "-") == 0) {
        if (!input_read(&input, &size))
            return TOOL_NOT_EXECUTED;
        data = semel_bytes(input, size);
    }
    signals_block();
    code = trigger(&a, data);
    free(input);
    return code;
}

/* --- semel wait ------------------------------------------------------------------------------- */

static const struct argp_option wait_options[] = {
    { "all", KEY_ALL, NULL, 0, "Wait until all of the events are there at once (default)", 0 },
    { "any", KEY_ANY, NULL, 0, "Wait until one of them is there, and take only that", 0 },
    { "timeout", KEY_TIMEOUT, "DURATION", 0,
      "Wait this long (default 10s); 0s: take what is there now", 0 },
    { "partial", KEY_PARTIAL, NULL, 0,
      "When it is not met in time, take and print those that are there, and end with exit code 1",
      0 },
    { "connect-timeout", KEY_CONNECT, "DURATION", 0,
      "Wait this long for a server to be there (default: not at all for one that is not)", 0 },
    OUTPUT_OPTIONS,
    { NULL, 0, NULL, 0, NULL, 0 },
};

static const char wait_doc[] =
    "Wait for the events ID... in the exchange of the server at ADDRESS, take them, and print a "
    "line for each, in the order asked for: the ID, a tab, and its data, with control characters "
    "escaped. It does not matter whether an event comes before the wait or after."
    "\v"
    "Examples:\n"
    "  semel wait unix:/run/x build-42 tests-42 --timeout 5m && deploy\n"
    "  semel wait unix:/run/x ready failed --any\n"
    "  semel wait unix:/run/x image -o json\n\n"
    "Exit codes: 0 met; 4 not met in time: nothing was taken; 1 the same with --partial; 5 nobody "
    "knows; others promise that nothing was taken. Ctrl-C takes nothing. What was handed to a "
    "command that died before it had it returns to the exchange when its session ends.";

static void add_id(struct arguments *a, char *id, struct argp_state *state)
{
    check_id(id, state);
    if (a->count == IDS_MAX)
        argp_error(state, "too many events; at most %d", IDS_MAX);
    a->ids[a->count++] = id;
}

static error_t wait_parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    char why[200];
    int64_t ns;

    switch (key) {
    case KEY_TIMEOUT:
        if (!duration_parse(arg, &ns, why, sizeof why))
            argp_error(state, "--timeout: %s", why);
        a->timeout_ms = ns / 1000000 + (ns % 1000000 != 0);
        if (a->timeout_ms > INT32_MAX)
            argp_error(state, "--timeout: '%s' is too long; at most 596h", arg);
        return 0;
    case KEY_CONNECT:
        parse_connect_timeout(a, arg, state);
        return 0;
    case KEY_ALL:
        a->all = true;
        return 0;
    case KEY_ANY:
        a->any = true;
        return 0;
    case KEY_PARTIAL:
        a->partial = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0)
            a->call.address = arg;
        else
            add_id(a, arg, state);
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num < 2)
            argp_error(state, "an address and the events' IDs are needed");
        if (a->any && a->all)
            argp_error(state, "--any and --all exclude each other");
        return 0;
    default:
        return output_option(key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

static void put32(unsigned char *at, uint64_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

static uint32_t get32(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static unsigned char *wait_body(const struct arguments *a, size_t *out_size)
{
    unsigned char *body = calloc(1, WAIT_HEAD + a->count * (1 + SEMEL_EVENT_ID_BYTES_MAX));
    size_t used = WAIT_HEAD;

    if (!body)
        return NULL;
    put32(body, (uint64_t)a->timeout_ms);
    put32(body + 4, a->any);
    body[8] = a->partial ? 0 : WAIT_LEAVE;
    put32(body + 12, a->count);
    for (size_t i = 0; i < a->count; i++) {
        size_t size = strlen(a->ids[i]);

        body[used] = (unsigned char)size;
        memcpy(body + used + 1, a->ids[i], size);
        used += 1 + size;
    }
    *out_size = used;
    return body;
}

/* A reply as it is gone through. */
struct reply {
    const unsigned char *at;
    size_t left;
};

/* The next event. False: the reply is no reply. */
static bool reply_next(struct reply *reply, bool *out_there, struct semel_bytes *out_data)
{
    uint32_t size;

    if (reply->left < 4)
        return false;
    size = get32(reply->at);
    reply->at += 4;
    reply->left -= 4;
    *out_there = size != MISSING;
    if (size == MISSING)
        size = 0;
    if (size > reply->left)
        return false;
    *out_data = semel_bytes(reply->at, size);
    reply->at += size;
    reply->left -= size;
    return true;
}

static bool reply_begin(struct reply *reply, const struct semel_result *result, size_t count,
                        enum semel_status *out_status)
{
    const unsigned char *head = result->body.data;

    if (result->body.size < REPLY_HEAD || get32(head + 4) != count)
        return false;
    *out_status = (enum semel_status)get32(head);
    *reply = (struct reply){ head + REPLY_HEAD, result->body.size - REPLY_HEAD };
    return true;
}

static void print_event(const char *id, struct semel_bytes data)
{
    struct jsonl json;

    if (!output_json()) {
        output_escaped(stdout, id, strlen(id));
        putchar('\t');
        output_escaped(stdout, data.data, data.size);
        putchar('\n');
        return;
    }
    jsonl_begin(&json, stdout);
    jsonl_bytes(&json, "id", id, strlen(id));
    jsonl_bytes(&json, "data", data.data, data.size);
    jsonl_end(&json);
}

/* Print the events of a reply, if they are taken. Returns the exit code. */
static int print_reply(const struct arguments *a, const struct semel_result *result)
{
    enum semel_status status = SEMEL_PROTOCOL;
    struct semel_bytes data;
    struct reply reply;
    size_t present = 0;
    bool there, sound = reply_begin(&reply, result, a->count, &status);

    for (size_t i = 0; i < a->count && sound; i++) {
        sound = reply_next(&reply, &there, &data);
        if (!sound || !there)
            continue;
        present++;
        if (status == SEMEL_OK || a->partial)
            print_event(a->ids[i], data);
    }
    if (!sound) {
        output_error("the reply of %s is not an exchange's", a->call.address);
        return TOOL_UNKNOWN;
    }
    /* Whoever runs this command does not have what was taken. */
    if (!output_written(semel_status_text(status)))
        return TOOL_UNKNOWN;
    if (status == SEMEL_OK)
        return TOOL_VALUE;
    output_error("not met in time: %zu of %zu there%s", present, a->count,
                 a->partial ? ", and taken" : ", and left there");
    return a->partial ? TOOL_FAILURE : TOOL_NOT_EXECUTED;
}

int tool_wait(int argc, char **argv)
{
    static const struct argp argp = { wait_options, wait_parse, "ADDRESS ID...", wait_doc, NULL,
                                      NULL,         NULL };
    static struct arguments a = { .timeout_ms = WAIT_MS };
    struct semel_result result = { 0 };
    enum semel_status status = SEMEL_NO_MEMORY;
    char text[1024] = "";
    unsigned char *body;
    int code;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    signals_block();
    body = wait_body(&a, &a.call.body.size);
    a.call.method = "semel.wait";
    a.call.body.data = body;
    a.call.options.deadline_ms =
        a.timeout_ms < INT32_MAX - MARGIN_MS ? a.timeout_ms + MARGIN_MS : INT32_MAX;
    if (body)
        status = one_call(&a.call, &result, text, sizeof text);
    if (status == SEMEL_OK && result.outcome == SEMEL_VALUE)
        code = print_reply(&a, &result);
    else
        code = explain(&a, status, &result, text);
    semel_result_clear(&result);
    free(body);
    return code;
}
