/* SPDX-License-Identifier: MIT */
/* ps.c - semel ps: the calls that run or wait at a server. */
#include <inttypes.h>
#include <string.h>

#include "inspect.h"
#include "output.h"
#include "tool.h"

struct arguments {
    struct one_call call;
    bool processes;
};

static const struct argp_option options[] = {
    { "processes", 'p', NULL, 0, "Show the worker processes of 'semel serve --procs' instead", 0 },
    INSPECT_OPTIONS,
    OUTPUT_OPTIONS,
    { NULL, 0, NULL, 0, NULL, 0 },
};

static const char doc[] =
    "Show the calls that run or wait at the server at ADDRESS: first those that run, the oldest "
    "first, then those that wait. ID is what semel cancel takes, LEFT the time until the deadline."
    "\v"
    "Examples:\n"
    "  semel ps unix:/run/x\n"
    "  semel ps unix:/run/x --processes\n"
    "  semel ps unix:/run/x -o json | jq -r 'select(.method==\"resize\").id'\n\n"
    "A state is running, waiting, or overdue: the call has its verdict, since it ran longer than "
    "it may, but its handler goes on. A state with an asterisk: it was asked to stop. JSON is one "
    "object to a line. Exit codes as semel call.";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    if (key != 'p')
        return inspect_address(&a->call, key, arg, state);
    a->processes = true;
    return 0;
}

static void print_call(const json_t *call)
{
    char age[32], left[32], state[32], uid[16] = "-";

    snprintf(state, sizeof state, "%s%s", member_text(call, "state"),
             member_is(call, "cancelled") ? "*" : "");
    if (json_object_get(call, "uid"))
        snprintf(uid, sizeof uid, "%" PRIu64, member_count(call, "uid"));
    printf("%-16s %-9s %8s %8s %6s  ", member_text(call, "id"), state,
           member_time(call, "age_ns", age, sizeof age),
           member_time(call, "remaining_ms", left, sizeof left), uid);
    print_column(member_text(call, "method"), 16);
    fputs("  ", stdout);
    print_column(member_text(call, "peer"), 0);
    fputc('\n', stdout);
}

static int show(const json_t *answer)
{
    const json_t *calls = json_object_get(answer, "calls");
    uint64_t running = member_count(answer, "running_left_off");
    uint64_t waiting = member_count(answer, "waiting_left_off");

    if (!output_json())
        printf("%-16s %-9s %8s %8s %6s  %-16s  %s\n", "ID", "STATE", "AGE", "LEFT", "UID", "METHOD",
               "PEER");
    for (size_t i = 0; i < json_array_size(calls); i++) {
        if (output_json())
            print_object(json_array_get(calls, i));
        else
            print_call(json_array_get(calls, i));
    }
    if (running + waiting > 0)
        output_note("there are more: %" PRIu64 " that run, %" PRIu64 " that wait", running,
                    waiting);
    return print_end();
}

static void print_process(const json_t *process)
{
    char age[32], place[24], pid[24], running[24];

    printf("%-5s %7s %-8s %7s %7" PRIu64 " %8" PRIu64 " %8s  ",
           member_number(process, "place", place, sizeof place),
           member_number(process, "pid", pid, sizeof pid), member_text(process, "state"),
           member_number(process, "running", running, sizeof running),
           member_count(process, "calls"), member_count(process, "restarts"),
           member_time(process, "age_ms", age, sizeof age));
    print_column(member_text(process, "last_exit"), 0);
    fputc('\n', stdout);
}

static int show_processes(const json_t *answer)
{
    const json_t *processes = json_object_get(answer, "processes");

    if (!processes)
        output_note("its calls do not run in worker processes");
    else if (!output_json())
        printf("%-5s %7s %-8s %7s %7s %8s %8s  %s\n", "PLACE", "PID", "STATE", "RUNNING", "CALLS",
               "RESTARTS", "AGE", "LAST-END");
    for (size_t i = 0; i < json_array_size(processes); i++) {
        if (output_json())
            print_object(json_array_get(processes, i));
        else
            print_process(json_array_get(processes, i));
    }
    return print_end();
}

int tool_ps(int argc, char **argv)
{
    static const struct argp argp = { options, parse, "ADDRESS", doc, NULL, NULL, NULL };
    static struct arguments a;
    json_t *answer = NULL;
    int code;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    a.call.method = a.processes ? "semel.counters" : "semel.calls";
    a.call.options.rerun_ok = true;
    code = inspect(&a.call, &answer);
    if (code == TOOL_VALUE)
        code = a.processes ? show_processes(answer) : show(answer);
    json_decref(answer);
    return code;
}
