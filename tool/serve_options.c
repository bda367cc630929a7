/* SPDX-License-Identifier: MIT */
/* serve_options.c - the command line of semel serve. */
#include <stdlib.h>
#include <string.h>

#include "builtin.h"
#include "duration.h"
#include "numbers.h"
#include "output.h"
#include "serve.h"

#define SETTINGS_MAX 512
#define SQL_MAX_RUN_MS 30000 /* unless said */

/* What the command line has said so far. */
struct arguments {
    struct service *service;
    /* Those that name a method, applied when all methods are known. */
    char *settings[SETTINGS_MAX];
    int setting_keys[SETTINGS_MAX];
    size_t setting_count;
    const char *needs_store; /* an option that makes no sense without one */
};

enum {
    KEY_WORKERS = 256,
    KEY_BACKLOG,
    KEY_LIMIT,
    KEY_MAX_RUN,
    KEY_INSECURE,
    KEY_IDEMPOTENT,
    KEY_LEDGER,
    KEY_ON_DEMAND,
    KEY_BODY_LIMIT,
    KEY_KILL_AFTER,
    KEY_DRAIN,
    KEY_STORE,
    KEY_SQL,
    KEY_ON_CRASH,
    KEY_ORPHANS,
    KEY_ADOPT,
    KEY_FOREIGN_KEYS,
    KEY_RETENTION,
    KEY_SESSION_IDLE,
    KEY_EXCHANGE,
    KEY_EVENT_RETENTION,
    KEY_LOCKS,
    KEY_PROCS,
    KEY_PROGRAM,
    KEY_RECYCLE_CALLS,
    KEY_RECYCLE_MEMORY,
    KEY_DESCRIBE,
    KEY_INSPECT,
    KEY_STREAM
};

static const struct argp_option options[] = {
    { "workers", KEY_WORKERS, "N", 0, "Run at most N calls at once (default: cores, at least 2)",
      0 },
    { "on-demand", KEY_ON_DEMAND, NULL, 0, "Start worker threads only when they are needed", 0 },
    { "backlog", KEY_BACKLOG, "M", 0, "Let at most M calls wait for a worker (default 1024)", 0 },
    { "limit", KEY_LIMIT, "NAME=N", 0, "Run at most N calls of the method NAME at once", 0 },
    { "max-run", KEY_MAX_RUN, "[NAME=]DURATION", 0,
      "Ask a call (of the method NAME) that runs longer to stop; its outcome is unknown. SQL is "
      "undone, and not executed (default 30s)",
      0 },
    { "idempotent", KEY_IDEMPOTENT, "NAME", 0,
      "Running NAME twice is harmless: callers may say --rerun-ok", 0 },
    { "stream", KEY_STREAM, "NAME[=SIZE]", 0,
      "The command NAME has streams: each line of its output (or what it writes, in pieces of at "
      "most SIZE) goes to the caller at once, each line that the caller sends to its input; lines "
      "on descriptor 4 are its progress. Not with --procs or --program",
      0 },
    { "body-limit", KEY_BODY_LIMIT, "SIZE", 0, "Largest request and reply (default 16MiB)", 0 },
    { "kill-after", KEY_KILL_AFTER, "DURATION", 0,
      "From the SIGTERM for a cancelled command, or for one of an earlier server, to its SIGKILL "
      "(default 5s)",
      0 },
    { "drain", KEY_DRAIN, "DURATION", 0,
      "How long a SIGTERM lets running calls finish (default 10s)", 0 },
    { "ledger", KEY_LEDGER, "FILE", 0,
      "Append 'KEY CALL METHOD SIZE' to FILE for each execution, before it runs", 0 },
    { "insecure", KEY_INSECURE, NULL, 0, "Allow tcp: beyond this machine: nothing is encrypted",
      0 },
    { "session-idle", KEY_SESSION_IDLE, "DURATION", 0,
      "Keep a session without a connection this long (default 5m; with a store 24h)", 0 },
    { "describe", KEY_DESCRIBE, "NAME=TEXT", 0, "What NAME does, for 'semel list'", 0 },
    { "inspect", KEY_INSPECT, "WHO", 0,
      "Who may look inside with 'semel list', 'ps' and 'top': 'all' (default), 'own', the server's "
      "own user on unix:, or 'none'. To cancel is for 'own'",
      0 },
    { NULL, 0, NULL, 0, "Worker processes:", 3 },
    { "procs", KEY_PROCS, "N", 0,
      "Run the calls in N processes, one at a time in each (or --workers): one that dies costs the "
      "call that it had, and is replaced; a call is not executed if none comes up",
      3 },
    { "program", KEY_PROGRAM, "PATH", 0,
      "They run this program, which speaks the protocol on descriptor 3; its methods are given as "
      "NAME alone",
      3 },
    { "recycle-calls", KEY_RECYCLE_CALLS, "N", 0, "Replace a process after N calls", 3 },
    { "recycle-memory", KEY_RECYCLE_MEMORY, "SIZE", 0, "Replace a process that has become so large",
      3 },
    { NULL, 0, NULL, 0, "Events and locks:", 5 },
    { "exchange", KEY_EXCHANGE, "take|keep", OPTION_ARG_OPTIONAL,
      "Serve an exchange of events for 'semel trigger' and 'semel wait': an event goes to one wait "
      "(take, default) or to all (keep); and locks",
      5 },
    { "event-retention", KEY_EVENT_RETENTION, "DURATION", 0,
      "Keep an event this long for those who will wait for it (default 70s)", 5 },
    { "locks", KEY_LOCKS, "LEASE", OPTION_ARG_OPTIONAL,
      "Serve locks for 'semel lock'; a holder that is not heard of for LEASE (default 10s) loses "
      "its lock",
      5 },
    { NULL, 0, NULL, 0, "What outlives the server:", 10 },
    { "store", KEY_STORE, "sqlite:PATH", 0,
      "Keep sessions, calls and idempotency keys in this database, which may be the application's",
      10 },
    { "sql", KEY_SQL, "NAME=SQL", 0,
      "NAME runs SQL in the store's database, exactly once; the body is a JSON object with its "
      "parameters (:name)",
      10 },
    { "on-crash", KEY_ON_CRASH, "NAME=WHAT", 0,
      "A command NAME that ran when the server died: 'unknown' (default), or 'rerun', for commands "
      "that hand SEMEL_CALL_KEY on to whoever has the effect",
      10 },
    { "orphans", KEY_ORPHANS, "WHAT", 0,
      "Commands of an earlier server that still run: 'kill' them (default), or 'wait' for them",
      10 },
    { "key-retention", KEY_RETENTION, "DURATION", 0,
      "Keep idempotency keys this long after their verdict (default 168h)", 10 },
    { "foreign-keys", KEY_FOREIGN_KEYS, NULL, 0, "Have the database enforce foreign keys", 10 },
    { "adopt", KEY_ADOPT, NULL, 0,
      "Take the store that is there, although another, or a later state of it, was there before: "
      "its sessions are forgotten",
      10 },
    OUTPUT_OPTIONS,
    { NULL, 0, NULL, 0, NULL, 0 },
};

static const char doc[] =
    "Listen at ADDRESS and answer calls. NAME=COMMAND runs '/bin/sh -c COMMAND' for each call of "
    "NAME: the body is its input, its output the reply; a status other than 0 is a failure; death "
    "by a signal leaves the outcome unknown. Without NAME there are the built-in methods: echo, "
    "sleep (the body is a duration), burn (the same in CPU time), fail (the body is 'CODE TEXT') "
    "and sum (the body is numbers)."
    "\v"
    "Examples:\n"
    "  semel serve unix:/run/x\n"
    "  semel serve unix:/run/shop 'charge=./charge.sh' 'stock=cat stock.csv' --workers 8\n"
    "  semel serve tcp:127.0.0.1:7000 'resize=convert - -resize 50% -' --limit resize=2 "
    "--max-run 30s\n"
    "  semel serve unix:/run/shop --store sqlite:shop.db 'charge=./charge.sh' \\\n"
    "      --sql 'take=UPDATE stock SET n = n - :n WHERE item = :item'\n"
    "  semel serve unix:/run/log 'follow=tail -f log' --stream follow\n"
    "  semel serve unix:/run/x --exchange --locks=30s\n"
    "  semel serve unix:/run/x --procs 4 --program ./render frame thumbnail\n\n"
    "With a store, a server that dies and comes back goes on where it was: clients notice a lost "
    "connection. What a command had done when the server died nobody can say: its call is unknown, "
    "but for --on-crash; SQL is undone and runs again.\n\n"
    "A command finds SEMEL_CALL_KEY (the call's key, the same if it is ever run again), "
    "SEMEL_IDEMPOTENCY_KEY (the caller's, if there is one), SEMEL_DEADLINE (milliseconds left) and "
    "SEMEL_METHOD in its environment. SIGTERM or Ctrl-C lets running calls finish; a second one "
    "stops at once.";

static void check_name(const struct service *service, const char *name, struct argp_state *state)
{
    for (size_t i = 0; i < service->count; i++)
        if (strcmp(service->methods[i].name, name) == 0)
            argp_error(state, "there are two methods '%s'", name);
}

static struct method *add_method(struct service *service, char *arg, const char *wanted,
                                 struct argp_state *state)
{
    char *equals = strchr(arg, '=');
    struct method *method = &service->methods[service->count];

    if (!equals || equals == arg || equals[1] == '\0')
        argp_error(state, "'%s' is not NAME=%s", arg, wanted);
    if (service->count == METHODS_MAX)
        argp_error(state, "too many methods; at most %d", METHODS_MAX);
    *equals = '\0';
    check_name(service, arg, state);
    method->name = arg;
    method->statements = equals + 1;
    service->count++;
    return method;
}

/* A method of --program. */
static struct method *add_name(struct service *service, char *arg, struct argp_state *state)
{
    struct method *method = &service->methods[service->count];

    if (service->count == METHODS_MAX)
        argp_error(state, "too many methods; at most %d", METHODS_MAX);
    check_name(service, arg, state);
    method->name = arg;
    service->count++;
    return method;
}

static void add_setting(struct arguments *a, int key, char *arg, struct argp_state *state)
{
    if (a->setting_count == SETTINGS_MAX)
        argp_error(state, "too many settings; at most %d", SETTINGS_MAX);
    a->setting_keys[a->setting_count] = key;
    a->settings[a->setting_count++] = arg;
}

static struct method *method_find(struct service *service, const char *name,
                                  struct argp_state *state)
{
    for (size_t i = 0; i < service->count; i++) {
        if (strcmp(service->methods[i].name, name) == 0)
            return &service->methods[i];
    }
    argp_error(state, "there is no method '%s' here", name);
    return NULL; /* argp_error does not return */
}

static void set_idempotent(struct method *method, struct argp_state *state)
{
    if (!method->handler)
        argp_error(state, "--idempotent: %s is SQL, which runs once anyway", method->name);
    if (method->options.on_crash != SEMEL_CRASH_UNKNOWN)
        argp_error(state, "--idempotent %s: it runs again after a crash anyway", method->name);
    method->options.kind = SEMEL_IDEMPOTENT;
}

static void set_on_crash(struct method *method, const char *what, struct argp_state *state)
{
    if (!method || (strcmp(what, "rerun") != 0 && strcmp(what, "unknown") != 0))
        argp_error(state, "--on-crash: write NAME=rerun or NAME=unknown");
    if (!method->handler)
        argp_error(state, "--on-crash: %s is SQL, which a crash undoes", method->name);
    if (method->options.kind == SEMEL_IDEMPOTENT)
        argp_error(state, "--on-crash: %s is idempotent, and runs again anyway", method->name);
    if (strcmp(what, "rerun") == 0)
        method->options.on_crash = SEMEL_CRASH_RERUN;
}

/* `size` NULL: lines. */
static void set_stream(const struct service *service, struct method *method, const char *size,
                       struct argp_state *state)
{
    uint64_t chunk = 0;
    char why[200];

    if (service->procs > 0)
        argp_error(state,
                   "--stream and %s exclude each other: calls in worker processes have no "
                   "streams",
                   service->program ? "--program" : "--procs");
    if (method->handler != shell_handler)
        argp_error(state, "--stream: %s is %s; only commands, NAME=COMMAND, have streams",
                   method->name, method->handler ? "built in" : "SQL");
    if (size && !size_parse(size, SEMEL_BODY_BYTES, &chunk, why, sizeof why))
        argp_error(state, "--stream: %s", why);
    if (size && chunk == 0)
        argp_error(state, "--stream: '%s' would send nothing", size);
    method->options.takes_items = true;
    method->options.gives_items = true;
    method->shell.streams = true;
    method->shell.chunk = (size_t)chunk;
}

static void set_limit(struct method *method, const char *what, struct argp_state *state)
{
    char why[200];
    uint64_t limit;

    if (!method)
        argp_error(state, "--limit: '%s' is not NAME=N", what);
    if (!count_parse(what, 1, UINT32_MAX, &limit, why, sizeof why))
        argp_error(state, "--limit: %s", why);
    method->options.limit = (uint32_t)limit;
}

static void set_describe(struct method *method, const char *what, struct argp_state *state)
{
    if (!method)
        argp_error(state, "--describe: '%s' is not NAME=TEXT", what);
    if (strlen(what) > SEMEL_DESCRIBE_BYTES)
        argp_error(state, "--describe: at most %d bytes", SEMEL_DESCRIBE_BYTES);
    method->options.describe = what;
}

static void set_max_run(struct service *service, struct method *method, const char *what,
                        struct argp_state *state)
{
    char why[200];
    int64_t max_run;

    if (!duration_parse_ms(what, &max_run, why, sizeof why))
        argp_error(state, "--max-run: %s", why);
    if (method)
        method->options.max_run_ms = max_run;
    for (size_t i = 0; i < service->count && !method; i++) {
        if (!service->methods[i].options.max_run_ms)
            service->methods[i].options.max_run_ms = max_run;
    }
}

/* While one statement runs no other call is answered by the store: none may run for ever. */
static void bound_sql(struct service *service)
{
    for (size_t i = 0; i < service->count; i++) {
        struct method *method = &service->methods[i];

        if (!method->handler && !method->options.max_run_ms)
            method->options.max_run_ms = SQL_MAX_RUN_MS;
    }
}

static void apply_setting(struct service *service, int key, char *arg, struct argp_state *state)
{
    char *equals = strchr(arg, '=');
    struct method *method = NULL;

    if (key == KEY_IDEMPOTENT) {
        set_idempotent(method_find(service, arg, state), state);
        return;
    }
    if (equals) {
        *equals = '\0';
        method = method_find(service, arg, state);
        arg = equals + 1;
    }
    if (key == KEY_STREAM)
        set_stream(service, method ? method : method_find(service, arg, state), method ? arg : NULL,
                   state);
    else if (key == KEY_LIMIT)
        set_limit(method, arg, state);
    else if (key == KEY_ON_CRASH)
        set_on_crash(method, arg, state);
    else if (key == KEY_DESCRIBE)
        set_describe(method, arg, state);
    else
        set_max_run(service, method, arg, state);
}

/* Those that name a method before the general one. */
static void apply_settings(struct arguments *a, struct argp_state *state)
{
    for (int named = 1; named >= 0; named--) {
        for (size_t i = 0; i < a->setting_count; i++) {
            bool names = a->setting_keys[i] != KEY_MAX_RUN ||
                         (a->settings[i] && strchr(a->settings[i], '='));

            if (!a->settings[i] || names != (named == 1))
                continue;
            apply_setting(a->service, a->setting_keys[i], a->settings[i], state);
            a->settings[i] = NULL;
        }
    }
}

static void finish_store(const struct arguments *a, struct argp_state *state)
{
    const struct service *service = a->service;

    if (a->needs_store && !service->stored)
        argp_error(state, "%s needs --store", a->needs_store);
    if (service->stored && service->options.body_bytes > SEMEL_STORED_BODY_BYTES_MAX)
        argp_error(state, "--body-limit: at most 512MiB with a store");
}

static void finish_exchange(struct service *service, struct argp_state *state)
{
    if (service->exchange_options.max_ms && !service->exchanges)
        argp_error(state, "--event-retention needs --exchange");
    if (service->exchanges && !service->lease_ms)
        service->lease_ms = LOCK_LEASE_MS;
    service->exchange_options.timeout_max_ms = INT32_MAX;
}

/* What runs in worker processes, and whether it can. */
static void finish_procs(struct service *service, struct argp_state *state)
{
    bool wanted = service->procs > 0 || service->program;

    for (size_t i = 0; i < service->count; i++)
        if (!service->methods[i].shell.command && service->methods[i].handler == shell_handler &&
            !service->program)
            argp_error(state, "'%s' is not NAME=COMMAND", service->methods[i].name);
        else if (service->methods[i].shell.command && service->program)
            argp_error(state, "--program: its methods are given as NAME alone");
    if (!wanted && (service->recycle_calls || service->recycle_bytes))
        argp_error(state, "--recycle-calls and --recycle-memory need --procs");
    if (wanted && service->stored)
        argp_error(state, "--procs and --store exclude each other");
    if (service->program && service->count == 0)
        argp_error(state, "--program: the NAMEs of its methods are needed");
    if (service->program && service->ledger_path)
        argp_error(state, "--program and --ledger exclude each other");
    if (wanted && service->procs == 0)
        service->procs = SEMEL_WORKERS_MIN;
}

/* All arguments are read: add the built-ins if nothing else is served, and apply the settings. */
static void finish_arguments(struct arguments *a, struct argp_state *state)
{
    static const struct method builtins[] = {
        { .name = "echo",
          .handler = builtin_echo,
          .options = { .describe = "Replies with the body." } },
        { .name = "sleep",
          .handler = builtin_sleep,
          .options = { .describe = "Waits for the duration that is the body, such as 250ms." } },
        { .name = "burn",
          .handler = builtin_burn,
          .options = { .describe = "Uses as much CPU time as the body says." } },
        { .name = "fail",
          .handler = builtin_fail,
          .options = { .describe = "Fails with the body's code and text: 7 out of paper." } },
        { .name = "sum",
          .handler = builtin_sum,
          .options = { .describe = "The sum of the body's numbers." } },
    };
    struct service *service = a->service;

    if (!service->addresses)
        argp_error(state, "an address to listen at is needed, such as unix:/run/x");
    finish_procs(service, state);
    if (service->count == 0) {
        memcpy(service->methods, builtins, sizeof builtins);
        service->count = sizeof builtins / sizeof builtins[0];
    }
    apply_settings(a, state);
    bound_sql(service);
    finish_store(a, state);
    finish_exchange(service, state);
    for (size_t i = 0; i < service->count; i++) {
        service->methods[i].service = service;
        service->methods[i].shell.grace_ns = service->grace_ns;
        service->methods[i].shell.body_limit =
            service->options.body_bytes ? service->options.body_bytes : SEMEL_BODY_BYTES;
    }
}

/* Options of worker processes. */
static error_t parse_procs(int key, char *arg, struct service *service, struct argp_state *state)
{
    uint64_t count;
    char why[200];

    switch (key) {
    case KEY_PROCS:
        if (!count_parse(arg, 1, SEMEL_POOL_WORKERS_MAX, &count, why, sizeof why))
            argp_error(state, "--procs: %s", why);
        service->procs = (uint32_t)count;
        return 0;
    case KEY_PROGRAM:
        if (!strchr(arg, '/'))
            argp_error(state, "--program: '%s' is no path; write ./%s", arg, arg);
        service->program = arg;
        return 0;
    case KEY_RECYCLE_CALLS:
        if (!count_parse(arg, 1, UINT32_MAX, &service->recycle_calls, why, sizeof why))
            argp_error(state, "--recycle-calls: %s", why);
        return 0;
    case KEY_RECYCLE_MEMORY:
        if (!size_parse(arg, INT64_MAX, &service->recycle_bytes, why, sizeof why))
            argp_error(state, "--recycle-memory: %s", why);
        return 0;
    default:
        return output_option(key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

/* Options of the exchange and the locks. */
static error_t parse_exchange(int key, char *arg, struct service *service, struct argp_state *state)
{
    char why[200];

    switch (key) {
    case KEY_EXCHANGE:
        if (arg && strcmp(arg, "take") != 0 && strcmp(arg, "keep") != 0)
            argp_error(state, "--exchange: write take or keep");
        service->exchanges = true;
        if (arg && strcmp(arg, "keep") == 0)
            service->exchange_options.delivery = SEMEL_EVENTS_KEEP;
        return 0;
    case KEY_EVENT_RETENTION:
        if (!duration_parse_ms(arg, &service->exchange_options.max_ms, why, sizeof why))
            argp_error(state, "--event-retention: %s", why);
        service->exchange_options.grace_ms = -1;
        return 0;
    case KEY_LOCKS:
        service->lease_ms = LOCK_LEASE_MS;
        if (arg && !duration_parse_ms(arg, &service->lease_ms, why, sizeof why))
            argp_error(state, "--locks: %s", why);
        if (service->lease_ms < 100)
            argp_error(state, "--locks: '%s' is too short a lease; at least 100ms", arg);
        return 0;
    default:
        return parse_procs(key, arg, service, state);
    }
}

static error_t parse_numbers(int key, char *arg, struct service *service, struct argp_state *state)
{
    char why[200];
    uint64_t count;

    switch (key) {
    case KEY_WORKERS:
        if (!count_parse(arg, 1, 4096, &count, why, sizeof why))
            argp_error(state, "--workers: %s", why);
        service->options.workers = (uint32_t)count;
        return 0;
    case KEY_BACKLOG:
        if (!count_parse(arg, 0, UINT32_MAX, &count, why, sizeof why))
            argp_error(state, "--backlog: %s", why);
        service->options.backlog = (uint32_t)count;
        service->options.backlog_none = count == 0;
        return 0;
    case KEY_BODY_LIMIT:
        if (!size_parse(arg, SEMEL_BODY_BYTES_MAX, &count, why, sizeof why))
            argp_error(state, "--body-limit: %s", why);
        if (count == 0)
            argp_error(state, "--body-limit: '%s' would let nothing pass", arg);
        service->options.body_bytes = count;
        if (count > SEMEL_SESSION_BYTES)
            service->options.session_bytes = count;
        return 0;
    case KEY_KILL_AFTER:
        if (!duration_parse(arg, &service->grace_ns, why, sizeof why))
            argp_error(state, "--kill-after: %s", why);
        return 0;
    case KEY_DRAIN:
        if (!duration_parse_ms(arg, &service->drain_ms, why, sizeof why))
            argp_error(state, "--drain: %s", why);
        return 0;
    case KEY_RETENTION:
        if (!duration_parse_kept_ms(arg, &service->options.key_retention_ms, why, sizeof why))
            argp_error(state, "--key-retention: %s", why);
        return 0;
    case KEY_SESSION_IDLE:
        if (!duration_parse_kept_ms(arg, &service->options.idle_session_ms, why, sizeof why))
            argp_error(state, "--session-idle: %s", why);
        return 0;
    default:
        return parse_exchange(key, arg, service, state);
    }
}

/* Options of the store, those that need one, and methods. */
static error_t parse_store(int key, char *arg, struct arguments *a, struct argp_state *state)
{
    struct service *service = a->service;
    struct method *method;
    char why[400];

    switch (key) {
    case KEY_STORE:
        if (service->stored)
            argp_error(state, "--store: one is enough");
        if (!store_path(arg, service->store_path, why, sizeof why))
            argp_error(state, "--store: %s", why);
        service->stored = true;
        return 0;
    case KEY_ADOPT:
        service->store_options.adopt = true;
        return 0;
    case KEY_FOREIGN_KEYS:
        service->store_options.foreign_keys = true;
        return 0;
    case KEY_ORPHANS:
        if (strcmp(arg, "kill") != 0 && strcmp(arg, "wait") != 0)
            argp_error(state, "--orphans: write kill or wait");
        service->orphans_wait = strcmp(arg, "wait") == 0;
        return 0;
    case KEY_SQL:
        add_method(service, arg, "SQL", state);
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0) {
            service->addresses = arg;
            return 0;
        }
        method = strchr(arg, '=') ? add_method(service, arg, "COMMAND", state)
                                  : add_name(service, arg, state);
        method->handler = shell_handler;
        method->shell.command = method->statements;
        method->statements = NULL;
        return 0;
    default:
        return parse_numbers(key, arg, service, state);
    }
}

/* The option, when it makes no sense without a store. */
static const char *needs_store(int key)
{
    switch (key) {
    case KEY_SQL:
        return "--sql";
    case KEY_ON_CRASH:
        return "--on-crash";
    case KEY_ORPHANS:
        return "--orphans";
    case KEY_ADOPT:
        return "--adopt";
    case KEY_FOREIGN_KEYS:
        return "--foreign-keys";
    case KEY_RETENTION:
        return "--key-retention";
    default:
        return NULL;
    }
}

static enum semel_inspection inspection_of(const char *who, struct argp_state *state)
{
    if (strcmp(who, "all") != 0 && strcmp(who, "own") != 0 && strcmp(who, "none") != 0)
        argp_error(state, "--inspect: write all, own or none");
    return strcmp(who, "all") == 0   ? SEMEL_INSPECT_ALL
           : strcmp(who, "own") == 0 ? SEMEL_INSPECT_OWN
                                     : SEMEL_INSPECT_NONE;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    struct service *service = a->service;

    if (!a->needs_store)
        a->needs_store = needs_store(key);
    switch (key) {
    case KEY_LIMIT:
    case KEY_MAX_RUN:
    case KEY_IDEMPOTENT:
    case KEY_STREAM:
    case KEY_ON_CRASH:
    case KEY_DESCRIBE:
        add_setting(a, key, arg, state);
        return 0;
    case KEY_INSECURE:
        service->options.insecure = true;
        return 0;
    case KEY_ON_DEMAND:
        service->options.on_demand = true;
        return 0;
    case KEY_INSPECT:
        service->options.inspection = inspection_of(arg, state);
        return 0;
    case KEY_LEDGER:
        service->ledger_path = arg;
        return 0;
    case ARGP_KEY_END:
        finish_arguments(a, state);
        return 0;
    default:
        return parse_store(key, arg, a, state);
    }
}

void serve_arguments(struct service *service, int argc, char **argv)
{
    static const struct argp argp = { options, parse, "ADDRESS [NAME=COMMAND...]", doc, NULL,
                                      NULL,    NULL };
    static struct arguments arguments;

    arguments.service = service;
    argp_parse(&argp, argc, argv, 0, NULL, &arguments);
}
