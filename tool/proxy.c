/* SPDX-License-Identifier: MIT */
/* proxy.c - semel proxy: a relay that cuts the connections it carries, to see what happens. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "duration.h"
#include "json.h"
#include "numbers.h"
#include "output.h"
#include "relay.h"
#include "signals.h"
#include "tool.h"

#define TICK_NS INT64_C(500000000)

struct arguments {
    const char *listen, *target, *stats;
    struct relay_options relay;
    bool seeded;
};

enum { KEY_CUT = 256, KEY_HALF_OPEN, KEY_DELAY, KEY_MID_FRAME, KEY_SEED, KEY_STATS };

static const struct argp_option options[] = {
    { "cut-every", KEY_CUT, "DURATION", 0,
      "Break all connections at random times, this far apart on average (default: never)", 0 },
    { "half-open", KEY_HALF_OPEN, NULL, 0,
      "Most cuts leave one side open, or only one direction working, for a while", 0 },
    { "mid-frame", KEY_MID_FRAME, NULL, 0, "Cut only in the middle of a frame", 0 },
    { "delay", KEY_DELAY, "DURATION", 0, "Hold each byte back this long, both ways", 0 },
    { "seed", KEY_SEED, "N", 0, "Make the same random decisions again", 0 },
    { "stats", KEY_STATS, "FILE", 0, "Keep the counters in FILE, as a JSON line", 0 },
    OUTPUT_OPTIONS,
    { NULL, 0, NULL, 0, NULL, 0 },
};

static const char doc[] =
    "Listen at LISTEN, pass each connection on to TARGET (unix: or tcp: addresses), and break the "
    "connections again and again. A cut breaks every connection that is open at that moment. On "
    "SIGTERM or Ctrl-C the counters are printed: connections, cuts, cuts in the middle of a "
    "frame, bytes."
    "\v"
    "Examples:\n"
    "  semel serve unix:/tmp/s &\n"
    "  semel proxy unix:/tmp/cut unix:/tmp/s --cut-every 20ms &\n"
    "  semel bench unix:/tmp/cut echo -t 16 -n 100000\n"
    "  semel proxy tcp:127.0.0.1:7001 tcp:127.0.0.1:7000 --cut-every 200ms --half-open --delay "
    "5ms --seed 7\n";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    char why[200];

    switch (key) {
    case KEY_CUT:
        if (!duration_parse(arg, &a->relay.cut_every_ns, why, sizeof why))
            argp_error(state, "--cut-every: %s", why);
        return 0;
    case KEY_DELAY:
        if (!duration_parse(arg, &a->relay.delay_ns, why, sizeof why))
            argp_error(state, "--delay: %s", why);
        return 0;
    case KEY_SEED:
        if (!count_parse(arg, 0, UINT64_MAX, &a->relay.seed, why, sizeof why))
            argp_error(state, "--seed: %s", why);
        a->seeded = true;
        return 0;
    case KEY_HALF_OPEN:
        a->relay.half_open = true;
        return 0;
    case KEY_MID_FRAME:
        a->relay.mid_frame = true;
        return 0;
    case KEY_STATS:
        a->stats = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 1)
            argp_error(state, "too many arguments");
        *(state->arg_num == 0 ? &a->listen : &a->target) = arg;
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num != 2)
            argp_error(state, "an address to listen at and one to connect to are needed");
        if ((a->relay.half_open || a->relay.mid_frame) && !a->relay.cut_every_ns)
            argp_error(state, "--half-open and --mid-frame say how to cut; say when with "
                              "--cut-every");
        return 0;
    default:
        return output_option(key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

static void print_json(FILE *file, const struct relay_counters *counters, uint64_t seed)
{
    struct jsonl json;

    jsonl_begin(&json, file);
    jsonl_count(&json, "connections", counters->connections);
    jsonl_count(&json, "refused", counters->refused);
    jsonl_count(&json, "cuts", counters->cuts);
    jsonl_count(&json, "cuts_mid_frame", counters->cuts_mid_frame);
    jsonl_count(&json, "cuts_half_open", counters->cuts_half_open);
    jsonl_count(&json, "bytes", counters->bytes);
    jsonl_count(&json, "seed", seed);
    jsonl_end(&json);
}

/* Replace the counters file as a whole, so that a reader never sees half of it. */
static void write_stats(const struct arguments *a, const struct relay_counters *counters)
{
    char path[4096];
    FILE *file;

    if (!a->stats)
        return;
    snprintf(path, sizeof path, "%s.new", a->stats);
    file = fopen(path, "we");
    if (file)
        print_json(file, counters, a->relay.seed);
    if (!file || fclose(file) != 0 || rename(path, a->stats) != 0)
        output_error("cannot write %s: %s", a->stats, strerror(errno));
}

static void tick(const struct relay_counters *counters, void *user)
{
    const struct arguments *a = user;

    write_stats(a, counters);
    output_progress(
        "%" PRIu64 " connections  %" PRIu64 " cut (%" PRIu64 " mid-frame)  %" PRIu64 " MiB",
        counters->connections, counters->cuts, counters->cuts_mid_frame, counters->bytes >> 20);
}

static void print_counters(const struct arguments *a, const struct relay_counters *counters)
{
    if (output_json())
        print_json(stdout, counters, a->relay.seed);
    else if (!output_quiet())
        printf("connections %" PRIu64 ", refused %" PRIu64 ", cuts %" PRIu64 " (mid-frame %" PRIu64
               ", half-open %" PRIu64 "), bytes %" PRIu64 ", seed %" PRIu64 "\n",
               counters->connections, counters->refused, counters->cuts, counters->cuts_mid_frame,
               counters->cuts_half_open, counters->bytes, a->relay.seed);
}

static int run(struct arguments *a, int listener, const struct endpoint *target)
{
    struct relay_counters counters = { 0 };
    int stop = signals_open(), error;

    if (stop < 0) {
        output_error("cannot watch for signals: %s", strerror(errno));
        return TOOL_FAILURE;
    }
    error = relay_run(listener, stop, target, &a->relay, &counters);
    close(stop);
    output_progress(NULL);
    write_stats(a, &counters);
    print_counters(a, &counters);
    if (error)
        output_error("cannot go on: %s", strerror(error));
    return error ? TOOL_FAILURE : TOOL_VALUE;
}

int tool_proxy(int argc, char **argv)
{
    static const struct argp argp = { options, parse, "LISTEN TARGET", doc, NULL, NULL, NULL };
    struct arguments a = { 0 };
    struct endpoint listen_at, target;
    char why[200], name[256];
    int listener, code;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (!endpoint_parse(a.listen, &listen_at, why, sizeof why)) {
        output_error("bad address '%s': %s", a.listen, why);
        return TOOL_USAGE;
    }
    if (!endpoint_parse(a.target, &target, why, sizeof why)) {
        output_error("bad address '%s': %s", a.target, why);
        return TOOL_USAGE;
    }
    if (!a.seeded && getrandom(&a.relay.seed, sizeof a.relay.seed, 0) < 0)
        a.relay.seed = (uint64_t)getpid();
    if (!a.seeded)
        a.relay.seed &= UINT32_MAX; /* short enough to be typed */
    signals_block();
    a.relay.tick = tick;
    a.relay.tick_ns = TICK_NS;
    a.relay.user = &a;
    listener = endpoint_listen(&listen_at);
    if (listener < 0) {
        output_error("cannot listen at %s: %s", a.listen, strerror(errno));
        return TOOL_CONNECT;
    }
    endpoint_name(listener, name, sizeof name);
    output_note("listening at %s", name);
    output_note("the seed is %" PRIu64, a.relay.seed);
    code = run(&a, listener, &target);
    close(listener);
    endpoint_remove(&listen_at);
    return code;
}
