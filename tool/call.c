/* SPDX-License-Identifier: MIT */
/* call.c - semel call: one call, its outcome as bytes, a message and an exit code. The call itself
 * is made by one_call.c; with an outbox all of this is different: call_outbox.c. */
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "clock.h"
#include "duration.h"
#include "numbers.h"
#include "one_call.h"
#include "output.h"
#include "signals.h"
#include "tool.h"

enum {
    KEY_TIMEOUT = 256,
    KEY_CONNECT,
    KEY_RERUN,
    KEY_REFUSE,
    KEY_BODY_LIMIT,
    KEY_KEY,
    KEY_OUTBOX,
    KEY_STREAM,
    KEY_RAW,
    KEY_PROGRESS,
    KEY_SEND,
    KEY_CHUNK
};

static const struct argp_option options[] = {
    { "timeout", KEY_TIMEOUT, "DURATION", 0,
      "The call's deadline, also of one with streams (default 30s); with --outbox: how long to "
      "wait for the result",
      0 },
    { "connect-timeout", KEY_CONNECT, "DURATION", 0,
      "Wait this long for a server to be there (default: not at all for one that is not, 3s "
      "for one that does not answer)",
      0 },
    { "rerun-ok", KEY_RERUN, NULL, 0,
      "Running it twice is harmless: run it again if the server lost the session (the method "
      "must be idempotent)",
      0 },
    { "key", KEY_KEY, "KEY", 0,
      "Idempotency key: all calls of METHOD with it are one, also of other processes and later; "
      "the server needs a store",
      0 },
    { "outbox", KEY_OUTBOX, "FILE", 0,
      "Keep the call in FILE until its result is printed: it is carried out whatever ends this "
      "command. Without METHOD: carry out all that FILE holds, and print the results",
      0 },
    { "refuse-when-full", KEY_REFUSE, NULL, 0,
      "End with exit code 6 at once when the server is overloaded, instead of waiting", 0 },
    { "body-limit", KEY_BODY_LIMIT, "SIZE", 0, "Largest reply accepted (default 16MiB)", 0 },
    { NULL, 0, NULL, 0, "Streams:", 5 },
    { "stream", KEY_STREAM, NULL, 0,
      "Print the items of the call's stream as they come, a line each", 5 },
    { "raw", KEY_RAW, NULL, 0, "Print them as they are, without a newline after each", 5 },
    { "progress", KEY_PROGRESS, NULL, 0,
      "Show how far the call is: a bar on a terminal; implies --stream", 5 },
    { "send", KEY_SEND, NULL, 0, "Send standard input while the call runs, each line as an item",
      5 },
    { "chunk", KEY_CHUNK, "SIZE", 0,
      "Send standard input as it comes, in items of at most SIZE; implies --send", 5 },
    OUTPUT_OPTIONS,
    { NULL, 0, NULL, 0, NULL, 0 },
};

static const char doc[] =
    "Call METHOD of the server at ADDRESS and print the bytes of its reply as they are.\n"
    "The body is DATA; '-' reads it from standard input; without DATA it is empty."
    "\v"
    "Examples:\n"
    "  semel call unix:/run/x echo hello\n"
    "  tar c photos | semel call tcp:backup.example:7000 store - --timeout 5m\n"
    "  semel call unix:/run/x sum '1 2 3' -o json\n"
    "  semel call unix:/run/shop charge '{\"cents\":1250}' --key order-17\n"
    "  semel call unix:/run/shop --outbox shop.out charge '{\"cents\":1250}' --key order-18\n"
    "  semel call unix:/run/shop --outbox shop.out -o json\n"
    "  semel call unix:/run/x report 2026 --progress --timeout 1h > report.txt\n"
    "  tail -f log | semel call unix:/run/x filter --send --stream --timeout 24h\n\n"
    "Exit codes: 0 value, 1 failure, 2 usage, 3 cannot connect, 4 not executed (expired or "
    "refused), 5 outcome unknown, 6 overloaded, 7 not permitted, 8 no such method, 9 cancelled, "
    "10 protocol error. 3, 4 and 6 to 10 promise that nothing happened. Ctrl-C once cancels the "
    "call, twice gives up waiting.\n\n"
    "With --outbox the server needs a store. Ctrl-C, a kill or a crash lose nothing: the same "
    "command with the same key, or one without METHOD, gets the result (exit code 5 until then).";

static bool is_key(const char *text)
{
    size_t size = strlen(text);

    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return false;
    }
    return size >= 1 && size <= SEMEL_KEY_BYTES;
}

static void finish_streams(const struct call_arguments *a, struct argp_state *state)
{
    bool any = a->stream || a->send;

    if (a->raw && (!a->stream || output_json()))
        argp_error(state, "--raw is for items that are printed as text: --stream, not -o json");
    if (a->send && a->data && strcmp(a->data, "-") == 0)
        argp_error(state, "--send: standard input cannot be the body as well");
    if (any && a->outbox)
        argp_error(state, "--outbox: a call with streams cannot be kept");
    if (any && a->key)
        argp_error(state, "--key: a call with streams has no idempotency key");
}

static void finish_arguments(const struct call_arguments *a, unsigned count,
                             struct argp_state *state)
{
    finish_streams(a, state);
    if (!a->outbox && count < 2)
        argp_error(state, "an address and a method are needed");
    if (!a->outbox)
        return;
    if (count == 0)
        argp_error(state, "an address is needed");
    if (count == 1 && a->key)
        argp_error(state, "--key names one call; without a METHOD there is none");
    if (a->rerun_ok)
        argp_error(state, "--rerun-ok: a call in an outbox has a key, and never runs twice");
    if (a->refuse_when_full)
        argp_error(state, "--refuse-when-full: a call in an outbox waits until it is taken");
    if (a->connect_timeout_ms)
        argp_error(state, "--connect-timeout: a call in an outbox waits for its server; --timeout "
                          "says how long this command does");
}

static error_t parse_streams(int key, char *arg, struct argp_state *state)
{
    struct call_arguments *a = state->input;
    char why[200];

    switch (key) {
    case KEY_PROGRESS:
        a->progress = a->stream = true;
        return 0;
    case KEY_STREAM:
        a->stream = true;
        return 0;
    case KEY_RAW:
        a->raw = true;
        return 0;
    case KEY_CHUNK:
        if (!size_parse(arg, SEMEL_BODY_BYTES, &a->chunk, why, sizeof why))
            argp_error(state, "--chunk: %s", why);
        if (a->chunk == 0)
            argp_error(state, "--chunk: '%s' would send nothing", arg);
        a->send = true;
        return 0;
    case KEY_SEND:
        a->send = true;
        return 0;
    default:
        return output_option(key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct call_arguments *a = state->input;
    char why[200];

    switch (key) {
    case KEY_TIMEOUT:
        if (!duration_parse_ms(arg, &a->timeout_ms, why, sizeof why))
            argp_error(state, "--timeout: %s", why);
        return 0;
    case KEY_CONNECT:
        if (!duration_parse_ms(arg, &a->connect_timeout_ms, why, sizeof why))
            argp_error(state, "--connect-timeout: %s", why);
        return 0;
    case KEY_BODY_LIMIT:
        if (!size_parse(arg, SEMEL_BODY_BYTES_MAX, &a->body_limit, why, sizeof why))
            argp_error(state, "--body-limit: %s", why);
        return 0;
    case KEY_RERUN:
        a->rerun_ok = true;
        return 0;
    case KEY_KEY:
        if (!is_key(arg))
            argp_error(state, "--key: a key has 1 to %d bytes, and no control characters",
                       SEMEL_KEY_BYTES);
        a->key = arg;
        return 0;
    case KEY_OUTBOX:
        a->outbox = arg;
        return 0;
    case KEY_REFUSE:
        a->refuse_when_full = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 2)
            argp_error(state, "too many arguments; put DATA with spaces in quotes");
        *(state->arg_num == 0 ? &a->address : state->arg_num == 1 ? &a->method : &a->data) = arg;
        return 0;
    case ARGP_KEY_END:
        finish_arguments(a, state->arg_num, state);
        return 0;
    default:
        return parse_streams(key, arg, state);
    }
}

/* Standard output did not take all items: why was said, and the reply is not printed either.
 * Whoever runs this command does not have all of the answer. */
static int explain_unwritten(const struct semel_result *result)
{
    char text[2048];
    int code = tool_exit_of_result(result->outcome, result->status);

    semel_result_message(result, text, sizeof text);
    output_note("standard output was closed before the end of the stream; %s", text);
    return result->outcome == SEMEL_NOT_EXECUTED ? code : TOOL_UNKNOWN;
}

/* What is missing of a call's streams is said. */
static void explain_streams(const struct call_streams *streams, const struct semel_result *result)
{
    bool happened = result->outcome == SEMEL_VALUE || result->outcome == SEMEL_FAILURE;

    if (streams->incomplete && happened)
        output_error("the call ended (%s), but items after the last one are missing",
                     semel_outcome_text(result->outcome));
    if (streams->unread && happened)
        output_note("not all of standard input was sent");
}

/* Whoever ran the method knows only that it was told to stop. */
static void explain_deadline(const struct call_arguments *a, const struct semel_result *result,
                             int64_t spent_ns)
{
    int64_t deadline_ns = (a->timeout_ms ? a->timeout_ms : SEMEL_DEADLINE_MS) * 1000000;
    char span[32];

    if (result->outcome != SEMEL_VALUE && spent_ns >= deadline_ns)
        output_note("the call's deadline, %s%s, has passed; see --timeout",
                    duration_format(deadline_ns, span, sizeof span),
                    a->timeout_ms ? "" : " by default");
}

/* Make the call over a connection of its own, and print what became of it. */
static int call_now(const struct call_arguments *a, struct semel_bytes body)
{
    struct one_call plan = { .address = a->address,
                             .method = a->method,
                             .body = body,
                             .options = SEMEL_CALL_OPTIONS_INIT,
                             .connect_timeout_ms = a->connect_timeout_ms,
                             .body_limit = a->body_limit };
    struct call_streams streams = { .arguments = a };
    struct semel_result result;
    enum semel_status status;
    char text[1024];
    int64_t begin = clock_now();
    int code;

    plan.stream.sends = a->send;
    plan.stream.takes = a->stream;
    if (a->send || a->stream)
        plan.run = call_streams_run;
    plan.run_user = &streams;
    plan.options.deadline_ms = a->timeout_ms;
    plan.options.rerun_ok = a->rerun_ok;
    plan.options.refuse_when_full = a->refuse_when_full;
    plan.options.key = a->key;
    status = one_call(&plan, &result, text, sizeof text);
    if (status != SEMEL_OK)
        return call_not_made(a, status, text);
    if (streams.unwritten) {
        code = explain_unwritten(&result);
    } else {
        call_print(&result, NULL, &code);
        explain_streams(&streams, &result);
        if (streams.given_up && code == TOOL_VALUE) /* a value of a part of what it was to have */
            code = TOOL_UNKNOWN;
    }
    explain_deadline(a, &result, clock_now() - begin);
    semel_result_clear(&result);
    return code;
}

int tool_call(int argc, char **argv)
{
    static const struct argp argp = {
        options, parse, "ADDRESS METHOD [DATA|-]\n--outbox FILE ADDRESS", doc, NULL, NULL, NULL
    };
    struct call_arguments a = { 0 };
    struct semel_bytes body;
    char *input = NULL;
    size_t size = 0;
    int code;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    body = semel_bytes_text(a.data);
    if (a.data && strcmp(a.data, "-") == 0) {
        if (!input_read(&input, &size))
            return TOOL_NOT_EXECUTED;
        body = semel_bytes(input, size);
    }
    signals_block();
    code = a.outbox ? call_outbox(&a, body) : call_now(&a, body);
    free(input);
    return code;
}
