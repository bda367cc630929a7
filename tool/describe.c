/* SPDX-License-Identifier: MIT */
/* describe.c - semel describe: all about one method of a server. */
#include <inttypes.h>
#include <string.h>

#include "inspect.h"
#include "output.h"
#include "tool.h"

static const struct argp_option options[] = {
    INSPECT_OPTIONS,
    OUTPUT_OPTIONS,
    { NULL, 0, NULL, 0, NULL, 0 },
};

static const char doc[] =
    "Describe the method METHOD of the server at ADDRESS: what it does, and what becomes of its "
    "calls."
    "\v"
    "Examples:\n"
    "  semel describe unix:/run/x charge\n"
    "  semel describe unix:/run/x semel.cancel -o json\n\n"
    "Exit codes as semel call; 8: there is no such method.";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct one_call *call = state->input;

    switch (key) {
    case ARGP_KEY_ARG:
        if (state->arg_num > 1)
            argp_error(state, "too many arguments");
        if (state->arg_num == 0)
            call->address = arg;
        else
            call->body = semel_bytes_text(arg);
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num < 2)
            argp_error(state, "an address and a method are needed");
        if (call->body.size == 0 || call->body.size > SEMEL_METHOD_BYTES)
            argp_error(state, "a method's name has 1 to %d bytes", SEMEL_METHOD_BYTES);
        return 0;
    default:
        return inspect_option(call, key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

/* What a kind means when the server dies. */
static const char *meaning(const json_t *method)
{
    const char *kind = member_text(method, "kind"), *on_crash = member_text(method, "on_crash");

    if (strcmp(kind, "idempotent") == 0)
        return "may run again when the server has died";
    if (strcmp(kind, "transactional") == 0)
        return "exactly once, also when the server dies";
    if (strcmp(on_crash, "rerun") == 0)
        return "runs again, with its key, if the server dies while it runs";
    if (strcmp(on_crash, "resolve") == 0)
        return "if the server dies while it runs, the next one finds out what happened";
    return "never runs twice; unknown if the server dies while it runs";
}

static void print_words(const char *text)
{
    while (*text) {
        size_t length = strcspn(text, "\n");

        fputs("  ", stdout);
        output_escaped(stdout, text, length);
        fputc('\n', stdout);
        text += length + (text[length] == '\n');
    }
}

static void print_method(const json_t *method)
{
    uint64_t limit = member_count(method, "limit");
    const char *name = member_text(method, "name");
    char span[32];

    output_escaped(stdout, name, strlen(name));
    fputc('\n', stdout);
    print_words(member_text(method, "describe"));
    printf("  kind: %s (%s)\n", member_text(method, "kind"), meaning(method));
    if (member_is(method, "takes_items"))
        fputs("  takes a stream: its callers may send items\n", stdout);
    if (member_is(method, "gives_items"))
        fputs("  gives a stream: it sends items before its reply\n", stdout);
    if (limit > 0)
        printf("  limit: %" PRIu64 " at once\n", limit);
    if (member_count(method, "max_run_ms") > 0)
        printf("  max-run: %s\n", member_time(method, "max_run_ms", span, sizeof span));
    if (member_is(method, "reserved"))
        fputs("  reserved: the library's own\n", stdout);
}

int tool_describe(int argc, char **argv)
{
    static const struct argp argp = { options, parse, "ADDRESS METHOD", doc, NULL, NULL, NULL };
    static struct one_call call;
    json_t *answer = NULL;
    int code;

    argp_parse(&argp, argc, argv, 0, NULL, &call);
    call.method = "semel.describe";
    call.options.rerun_ok = true;
    code = inspect(&call, &answer);
    if (code == TOOL_VALUE && output_json())
        print_object(answer);
    else if (code == TOOL_VALUE)
        print_method(answer);
    json_decref(answer);
    return code == TOOL_VALUE ? print_end() : code;
}
