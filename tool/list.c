/* SPDX-License-Identifier: MIT */
/* list.c - semel list: what a server exports. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "inspect.h"
#include "output.h"
#include "tool.h"

#define NAME_COLUMNS_MAX 40

struct arguments {
    struct one_call call;
    bool all;
};

static const struct argp_option options[] = {
    { "all", 'a', NULL, 0, "Show the library's own methods, semel.*, too", 0 },
    INSPECT_OPTIONS,
    OUTPUT_OPTIONS,
    { NULL, 0, NULL, 0, NULL, 0 },
};

static const char doc[] =
    "List the methods of the server at ADDRESS: name, kind, its streams, how many of its calls may "
    "run at once, how long one may run, and what it does."
    "\v"
    "Examples:\n"
    "  semel list unix:/run/x\n"
    "  semel list tcp:host:7000 --all -o json\n\n"
    "JSON is one object to a line. Exit codes as semel call.";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    if (key != 'a')
        return inspect_address(&a->call, key, arg, state);
    a->all = true;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(member_text(*(json_t *const *)a, "name"),
                  member_text(*(json_t *const *)b, "name"));
}

static void print_method(const json_t *method, int width)
{
    uint64_t limit = member_count(method, "limit");
    const char *describe = member_text(method, "describe");
    char number[32] = "-", span[32];

    if (limit > 0)
        snprintf(number, sizeof number, "%" PRIu64, limit);
    print_column(member_text(method, "name"), width);
    printf("  %-13s %-7s %6s %8s", member_text(method, "kind"), method_streams(method), number,
           member_time(method, "max_run_ms", span, sizeof span));
    /* Its first line. */
    if (*describe)
        fputs("  ", stdout);
    output_escaped(stdout, describe, strcspn(describe, "\n"));
    fputc('\n', stdout);
}

static void print_methods(json_t **methods, size_t count)
{
    int width = 6;

    for (size_t i = 0; i < count; i++) {
        int length = (int)strlen(member_text(methods[i], "name"));

        if (length > width)
            width = length < NAME_COLUMNS_MAX ? length : NAME_COLUMNS_MAX;
    }
    if (!output_json())
        printf("%-*s  %-13s %-7s %6s %8s  %s\n", width, "METHOD", "KIND", "STREAMS", "LIMIT",
               "MAX-RUN", "DESCRIPTION");
    for (size_t i = 0; i < count; i++) {
        if (output_json())
            print_object(methods[i]);
        else
            print_method(methods[i], width);
    }
}

static int show(const struct arguments *a, const json_t *answer)
{
    const json_t *list = json_object_get(answer, "methods");
    size_t size = json_array_size(list), count = 0;
    json_t **methods = calloc(size + 1, sizeof(json_t *));
    uint64_t left_off = member_count(answer, "left_off");

    if (!methods) {
        output_error("out of memory");
        return TOOL_FAILURE;
    }
    for (size_t i = 0; i < size; i++) {
        json_t *method = json_array_get(list, i);

        if (a->all || !member_is(method, "reserved"))
            methods[count++] = method;
    }
    if (count > 0)
        qsort(methods, count, sizeof *methods, by_name);
    print_methods(methods, count);
    free(methods);
    if (left_off > 0)
        output_note("there are %" PRIu64 " more", left_off);
    return print_end();
}

int tool_list(int argc, char **argv)
{
    static const struct argp argp = { options, parse, "ADDRESS", doc, NULL, NULL, NULL };
    static struct arguments a;
    json_t *answer = NULL;
    int code;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    a.call.method = "semel.methods";
    a.call.options.rerun_ok = true;
    code = inspect(&a.call, &answer);
    if (code == TOOL_VALUE)
        code = show(&a, answer);
    json_decref(answer);
    return code;
}
