/* SPDX-License-Identifier: MIT */
/* cancel.c - semel cancel: end a call at its server, from outside. */
#include <inttypes.h>
#include <string.h>

#include "inspect.h"
#include "output.h"
#include "tool.h"

struct arguments {
    struct one_call call;
    const char *id;
    bool force;
};

enum { KEY_FORCE = 256 };

static const struct argp_option options[] = {
    { "force", KEY_FORCE, NULL, 0,
      "Do not only ask: kill the process that runs it, if it has one of its own", 0 },
    INSPECT_OPTIONS,
    OUTPUT_OPTIONS,
    { NULL, 0, NULL, 0, NULL, 0 },
};

static const char doc[] =
    "Cancel a call at the server at ADDRESS. ID is what semel ps shows: SESSION.CALL. A call that "
    "waits ends as not executed; the handler of one that runs is asked to stop, and its caller is "
    "told what comes of that. Only for the user whose server it is."
    "\v"
    "Examples:\n"
    "  semel cancel unix:/run/x 3f2a9c01.17\n"
    "  semel cancel unix:/run/x 3f2a9c01.17 --force\n\n"
    "Exit codes as semel call: 0 done, 1 there is no such call, or it cannot be forced, 4 it had "
    "ended already, 7 this is another user's server.";

static bool is_id(const char *id)
{
    size_t digits = strspn(id, "0123456789abcdef"), number = 0;

    if (digits >= 4 && digits <= 32 && id[digits] == '.')
        number = strspn(id + digits + 1, "0123456789");
    return number > 0 && number < 20 && id[digits + 1 + number] == '\0';
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case KEY_FORCE:
        a->force = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 1)
            argp_error(state, "too many arguments");
        if (state->arg_num == 0)
            a->call.address = arg;
        else
            a->id = arg;
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num < 2)
            argp_error(state, "an address and a call's ID are needed");
        if (!is_id(a->id))
            argp_error(state, "'%s' is not a call's ID: write SESSION.CALL, as semel ps shows it",
                       a->id);
        return 0;
    default:
        return inspect_option(&a->call, key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

static int show(const struct arguments *a, const json_t *answer)
{
    bool failed = a->force && !member_is(answer, "forced");
    int code;

    if (output_json())
        print_object(answer);
    else
        output_note("%s: %s", a->id, member_text(answer, "became"));
    if (failed)
        output_error("%s cannot be forced: %s", a->id, member_text(answer, "why"));
    code = print_end();
    return failed && code == TOOL_VALUE ? TOOL_FAILURE : code;
}

int tool_cancel(int argc, char **argv)
{
    static const struct argp argp = { options, parse, "ADDRESS ID", doc, NULL, NULL, NULL };
    static struct arguments a;
    json_t *answer = NULL;
    char body[80];
    int code;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    snprintf(body, sizeof body, "%s%s", a.id, a.force ? " force" : "");
    a.call.method = "semel.cancel";
    a.call.body = semel_bytes_text(body);
    code = inspect(&a.call, &answer);
    if (code == TOOL_VALUE)
        code = show(&a, answer);
    json_decref(answer);
    return code;
}
