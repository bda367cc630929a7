/* SPDX-License-Identifier: MIT */
/* demo.c - semel demo: a bank whose server is killed, again and again, over connections that are
 * cut; and an audit of whether every call happened exactly once.
 *
 * Everything is made of the shipped tool: 'semel serve' with a store, a transfer in SQL and a
 * notice by a shell script; 'semel proxy', which cuts; and clients, some of which are killed, too,
 * and work through an outbox. The audit is another program, without anything of Semel in it.
 *
 * Phases: the database is made, the server, the proxies and the clients are started; the load goes
 * on for so many seconds, under kills and cuts; then all calm down, each client gets its last
 * outcomes, the server is drained, and the audit judges. */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "demo.h"

#include "clients.h"
#include "clock.h"
#include "duration.h"
#include "evidence.h"
#include "killer.h"
#include "numbers.h"
#include "output.h"
#include "signals.h"
#include "tool.h"
#include "watch.h"

#define TICK_NS 5000000
#define LAST_CALLS_NS INT64_C(120000000000) /* clients that take longer for their last calls hang */

/* --- arguments ------------------------------------------------------------------------------- */

enum { KEY_SECONDS = 256, KEY_CLIENTS, KEY_KILL, KEY_CUT, KEY_SEED, KEY_KEEP, KEY_SERVER_OPTION };

static const struct argp_option options[] = {
    { "seconds", KEY_SECONDS, "N", 0, "Go on for N seconds (default 20)", 0 },
    { "clients", KEY_CLIENTS, "N", 0,
      "Run N client processes (default 4); the last, and every fourth, works through an outbox and "
      "is killed once a second or so",
      0 },
    { "kill-every", KEY_KILL, "DURATION", 0,
      "Kill the server at random times, this far apart on average (default 300ms; 0: never)", 0 },
    { "cut-every", KEY_CUT, "DURATION", 0,
      "The same for each proxy that cuts connections (default 40ms; 0: never)", 0 },
    { "seed", KEY_SEED, "N", 0, "Make the same random decisions again", 0 },
    { "keep", KEY_KEEP, "DIR", 0,
      "Work in DIR, which must be empty or not there yet, and leave everything there", 0 },
    { "server-option", KEY_SERVER_OPTION, "WORD", OPTION_HIDDEN, NULL, 0 },
    OUTPUT_OPTIONS,
    { NULL, 0, NULL, 0, NULL, 0 },
};

static const char doc[] =
    "A bank whose server is killed again and again (SIGKILL), while clients transfer money and "
    "give notices over connections that are cut; some clients are killed, too. Then an audit, a "
    "program of its own, compares what the clients were told with what happened: every transfer "
    "exactly once, no money made or lost, every notice at most once. All is made of 'semel serve' "
    "with a store, 'semel proxy', and clients; what is unknown must be a notice that a kill hit."
    "\v"
    "Examples:\n"
    "  semel demo\n"
    "  semel demo --seconds 120 --kill-every 300ms --cut-every 100ms -o json\n"
    "  semel demo --seconds 5 --keep bank && sqlite3 bank/bank.db 'SELECT * FROM moves LIMIT 9'\n\n"
    "The last line with -o json is an object: calls, kills, kills_busy, cuts, replayed, "
    "reattached, resumed, lost, doubled, unknown (transfers), seconds. Exit codes: 0 passed; "
    "1 failed, and the directory is kept and named; 2 usage; 130, 143 interrupted.";

static int64_t duration_or_never(const char *option, const char *arg, struct argp_state *state)
{
    char why[200];
    int64_t ns;

    if (strcmp(arg, "0") == 0)
        return 0;
    if (!duration_parse(arg, &ns, why, sizeof why))
        argp_error(state, "%s: %s", option, why);
    if (ns > 0 && ns < 1000000)
        argp_error(state, "%s: '%s' is too often; at least 1ms, or 0 for never", option, arg);
    return ns;
}

static uint64_t number(const char *option, const char *arg, uint64_t min, uint64_t max,
                       struct argp_state *state)
{
    char why[200];
    uint64_t count;

    if (!count_parse(arg, min, max, &count, why, sizeof why))
        argp_error(state, "%s: %s", option, why);
    return count;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct demo_options *o = state->input;

    switch (key) {
    case KEY_SECONDS:
        o->run_ns = (int64_t)number("--seconds", arg, 1, 86400, state) * 1000000000;
        return 0;
    case KEY_CLIENTS:
        o->clients = (unsigned)number("--clients", arg, 1, DEMO_CLIENTS_MAX, state);
        return 0;
    case KEY_KILL:
        o->kill_every_ns = duration_or_never("--kill-every", arg, state);
        return 0;
    case KEY_CUT:
        o->cut_every_ns = duration_or_never("--cut-every", arg, state);
        return 0;
    case KEY_SEED:
        o->seed = number("--seed", arg, 0, UINT64_MAX, state);
        o->seeded = true;
        return 0;
    case KEY_KEEP:
        o->keep = arg;
        return 0;
    case KEY_SERVER_OPTION:
        if (o->server_option_count == DEMO_SERVER_OPTIONS)
            argp_error(state, "--server-option: too many");
        o->server_options[o->server_option_count++] = arg;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "too many arguments: '%s'", arg);
        return 0;
    default:
        return output_option(key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

/* --- what all files share -------------------------------------------------------------------- */

bool demo_is_outbox(const struct demo *demo, unsigned client)
{
    return client % 4 == 0 || client == demo->options.clients;
}

bool demo_has_key(bool outbox, unsigned number_of_call)
{
    return outbox || number_of_call % 2 == 1;
}

static int signal_seen;

int demo_signal(void)
{
    return signal_seen;
}

bool demo_pause(int64_t ns)
{
    struct timespec wait = { 0, 0 };
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (ns > 0)
        wait = (struct timespec){ ns / 1000000000, ns % 1000000000 };
    if (!signal_seen) {
        int number_of_signal = sigtimedwait(&set, NULL, &wait);

        if (number_of_signal > 0)
            signal_seen = number_of_signal;
    }
    return !signal_seen;
}

/* --- the phases ------------------------------------------------------------------------------ */

struct parts {
    struct demo *demo;
    struct evidence evidence;
    struct killer killer;
    struct clients clients;
};

static void show(struct parts *p)
{
    watch_show(p->demo, clock_now(), &p->evidence, &p->killer.count, p->clients.kills);
}

/* Under kills and cuts. */
static bool load(struct parts *p)
{
    while (clock_now() < p->demo->end) {
        if (!demo_pause(TICK_NS) || !evidence_ledgers(&p->evidence) || !killer_step(&p->killer) ||
            !clients_step(&p->clients))
            return false;
        show(p);
    }
    return true;
}

/* Without: until each client has its last outcomes, and the server has nothing more to do. */
static bool calm_down(struct parts *p)
{
    int64_t until = clock_now() + LAST_CALLS_NS;
    unsigned running = 1;

    if (!clients_calm(&p->clients))
        return false;
    while (running > 0) {
        if (!demo_pause(TICK_NS) || !clients_ended(&p->clients, &running) ||
            !evidence_ledgers(&p->evidence))
            return false;
        if (clock_now() > until) {
            output_error("%u clients do not end: %zu calls have no outcome", running,
                         p->evidence.count);
            return false;
        }
        show(p);
    }
    clients_close(&p->clients);
    return killer_close(&p->killer);
}

static bool run(struct parts *p)
{
    struct demo *demo = p->demo;

    evidence_open(&p->evidence, demo);
    if (!bank_create(demo) || !killer_open(&p->killer, demo, &p->evidence))
        return false;
    demo->begin = clock_now();
    demo->end = demo->begin + demo->options.run_ns;
    return clients_open(&p->clients, demo) && load(p) && calm_down(p);
}

/* --- the command ----------------------------------------------------------------------------- */

/* End whatever still runs, and leave no more than was asked for. Returns the exit code. */
static int clean_up(struct parts *p, bool passed)
{
    struct demo *demo = p->demo;
    bool keep = demo->options.keep || (!passed && !demo_signal());

    watch_show(demo, 0, NULL, NULL, 0);
    clients_close(&p->clients);
    process_kill(&p->killer.server);
    place_await_programs(demo);
    killer_close(&p->killer);
    evidence_close(&p->evidence);
    if (place_close(demo, keep) && (!passed || output_verbose()))
        output_note("what the programs wrote is in %s", demo->dir);
    if (demo_signal())
        return 128 + demo_signal();
    return passed ? TOOL_VALUE : TOOL_FAILURE;
}

/* "every 300ms", "never". */
static const char *how_often(int64_t ns, char *text, size_t size)
{
    char duration[32];

    if (ns == 0)
        return "never";
    snprintf(text, size, "every %s", duration_format(ns, duration, sizeof duration));
    return text;
}

static void say_begin(const struct demo *demo)
{
    const struct demo_options *o = &demo->options;
    char kills[40], cuts[40];

    output_note("%u client%s with %d threads each, %" PRId64
                " s; the server is killed %s, connections are cut %s; the seed is %" PRIu64,
                o->clients, o->clients == 1 ? "" : "s", DEMO_THREADS, o->run_ns / 1000000000,
                how_often(o->kill_every_ns, kills, sizeof kills),
                how_often(o->cut_every_ns, cuts, sizeof cuts), o->seed);
}

int tool_demo(int argc, char **argv)
{
    static const struct argp argp = { options, parse, NULL, doc, NULL, NULL, NULL };
    static struct demo demo = { .options = { .run_ns = INT64_C(20000000000),
                                             .clients = 4,
                                             .kill_every_ns = 300000000,
                                             .cut_every_ns = 40000000 } };
    static struct parts parts = { .demo = &demo, .killer = { .kills = -1 } };
    ssize_t length;
    bool passed;
    int code;

    if (argc > 1 && strcmp(argv[1], DEMO_CLIENT_ROLE) == 0)
        return demo_client(argc - 1, argv + 1);
    argp_parse(&argp, argc, argv, 0, NULL, &demo.options);
    if (!demo.options.seeded && getrandom(&demo.options.seed, sizeof demo.options.seed, 0) > 0)
        demo.options.seed &= UINT32_MAX; /* short enough to be typed */
    length = readlink("/proc/self/exe", demo.program, sizeof demo.program - 1);
    if (length < 0) {
        output_error("/proc/self/exe: %s", strerror(errno));
        return TOOL_FAILURE;
    }
    if (!bank_is_there() || !judge_is_there(&demo))
        return TOOL_FAILURE;
    signals_block();
    code = place_open(&demo);
    if (code != TOOL_VALUE)
        return code;
    say_begin(&demo);
    passed = run(&parts) && judge(&demo, &parts.killer.count, parts.clients.kills);
    return clean_up(&parts, passed);
}
