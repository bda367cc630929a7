/* SPDX-License-Identifier: MIT */
/* serve.c - semel serve: a server made of shell commands, or of the built-in methods.
 *
 * The main thread waits for the server's end; the signal thread begins a drain at the first
 * SIGTERM or SIGINT and stops at the second. Each handler runs under `answer`, which writes the
 * ledger's line before the method itself runs: the ledger counts executions begun. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "builtin.h"
#include "duration.h"
#include "numbers.h"
#include "output.h"
#include "shell.h"
#include "signals.h"
#include "tool.h"

#define METHODS_MAX 256
#define GRACE_NS INT64_C(5000000000)
#define DRAIN_MS 10000

struct method {
    const char *name;
    semel_handler_fn handler;
    struct shell shell;
    struct semel_method_options options;
    const struct service *service;
};

struct service {
    const char *addresses;
    struct method methods[METHODS_MAX];
    size_t count;
    const char *ledger_path;
    int ledger;
    int64_t drain_ms, grace_ns;
    struct semel_server_options options;
    pthread_mutex_t lock;        /* between the signal thread and the end */
    struct semel_server *server; /* lock; NULL once it is being destroyed */
    /* What --limit, --max-run and --idempotent said, applied when all methods are known. */
    char *settings[METHODS_MAX];
    int setting_keys[METHODS_MAX];
    size_t setting_count;
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
    KEY_DRAIN
};

static const struct argp_option options[] = {
    { "workers", KEY_WORKERS, "N", 0, "Run at most N calls at once (default: cores, at least 2)",
      0 },
    { "on-demand", KEY_ON_DEMAND, NULL, 0, "Start worker threads only when they are needed", 0 },
    { "backlog", KEY_BACKLOG, "M", 0, "Let at most M calls wait for a worker (default 1024)", 0 },
    { "limit", KEY_LIMIT, "NAME=N", 0, "Run at most N calls of the method NAME at once", 0 },
    { "max-run", KEY_MAX_RUN, "[NAME=]DURATION", 0,
      "Ask a call (of the method NAME) that runs longer to stop; its outcome is unknown", 0 },
    { "idempotent", KEY_IDEMPOTENT, "NAME", 0,
      "Running NAME twice is harmless: callers may say --rerun-ok", 0 },
    { "body-limit", KEY_BODY_LIMIT, "SIZE", 0, "Largest request and reply (default 16MiB)", 0 },
    { "kill-after", KEY_KILL_AFTER, "DURATION", 0,
      "From the SIGTERM for a cancelled command to its SIGKILL (default 5s)", 0 },
    { "drain", KEY_DRAIN, "DURATION", 0,
      "How long a SIGTERM lets running calls finish (default 10s)", 0 },
    { "ledger", KEY_LEDGER, "FILE", 0,
      "Append 'KEY CALL METHOD SIZE' to FILE for each execution, before it runs", 0 },
    { "insecure", KEY_INSECURE, NULL, 0, "Allow tcp: beyond this machine: nothing is encrypted",
      0 },
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
    "--max-run 30s\n\n"
    "A command finds SEMEL_CALL_KEY (the call's key, the same if it is ever run again), "
    "SEMEL_DEADLINE (milliseconds left) and SEMEL_METHOD in its environment. SIGTERM or Ctrl-C "
    "lets running calls finish; a second one stops at once.";

static void add_method(struct service *service, char *arg, struct argp_state *state)
{
    char *equals = strchr(arg, '=');
    struct method *method = &service->methods[service->count];

    if (!equals || equals == arg || equals[1] == '\0')
        argp_error(state, "'%s' is not NAME=COMMAND", arg);
    if (service->count == METHODS_MAX)
        argp_error(state, "too many methods; at most %d", METHODS_MAX);
    *equals = '\0';
    method->name = arg;
    method->handler = shell_handler;
    method->shell.command = equals + 1;
    service->count++;
}

static void add_setting(struct service *service, int key, char *arg, struct argp_state *state)
{
    if (service->setting_count == METHODS_MAX)
        argp_error(state, "too many settings; at most %d", METHODS_MAX);
    service->setting_keys[service->setting_count] = key;
    service->settings[service->setting_count++] = arg;
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

static void apply_setting(struct service *service, int key, char *arg, struct argp_state *state)
{
    char why[200], *equals = strchr(arg, '=');
    struct method *method = NULL;
    int64_t max_run;
    uint64_t limit;

    if (key == KEY_IDEMPOTENT) {
        method_find(service, arg, state)->options.kind = SEMEL_IDEMPOTENT;
        return;
    }
    if (equals) {
        *equals = '\0';
        method = method_find(service, arg, state);
        arg = equals + 1;
    }
    if (key == KEY_LIMIT) {
        if (!method)
            argp_error(state, "--limit: '%s' is not NAME=N", arg);
        if (!count_parse(arg, 1, UINT32_MAX, &limit, why, sizeof why))
            argp_error(state, "--limit: %s", why);
        method->options.limit = (uint32_t)limit;
        return;
    }
    if (!duration_parse_ms(arg, &max_run, why, sizeof why))
        argp_error(state, "--max-run: %s", why);
    if (method)
        method->options.max_run_ms = max_run;
    for (size_t i = 0; i < service->count && !method; i++) {
        if (!service->methods[i].options.max_run_ms)
            service->methods[i].options.max_run_ms = max_run;
    }
}

/* All arguments are read: add the built-ins if nothing else is served, and apply the settings,
 * those that name a method before the general one. */
static void finish_arguments(struct service *service, struct argp_state *state)
{
    static const struct method builtins[] = {
        { .name = "echo", .handler = builtin_echo }, { .name = "sleep", .handler = builtin_sleep },
        { .name = "burn", .handler = builtin_burn }, { .name = "fail", .handler = builtin_fail },
        { .name = "sum", .handler = builtin_sum },
    };

    if (!service->addresses)
        argp_error(state, "an address to listen at is needed, such as unix:/run/x");
    if (service->count == 0) {
        memcpy(service->methods, builtins, sizeof builtins);
        service->count = sizeof builtins / sizeof builtins[0];
    }
    for (int named = 1; named >= 0; named--) {
        for (size_t i = 0; i < service->setting_count; i++) {
            bool names = service->setting_keys[i] != KEY_MAX_RUN ||
                         (service->settings[i] && strchr(service->settings[i], '='));

            if (!service->settings[i] || names != (named == 1))
                continue;
            apply_setting(service, service->setting_keys[i], service->settings[i], state);
            service->settings[i] = NULL;
        }
    }
    for (size_t i = 0; i < service->count; i++) {
        service->methods[i].service = service;
        service->methods[i].shell.grace_ns = service->grace_ns;
        service->methods[i].shell.body_limit =
            service->options.body_bytes ? service->options.body_bytes : SEMEL_BODY_BYTES;
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
    default:
        return output_option(key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct service *service = state->input;

    switch (key) {
    case KEY_LIMIT:
    case KEY_MAX_RUN:
    case KEY_IDEMPOTENT:
        add_setting(service, key, arg, state);
        return 0;
    case KEY_INSECURE:
        service->options.insecure = true;
        return 0;
    case KEY_ON_DEMAND:
        service->options.on_demand = true;
        return 0;
    case KEY_LEDGER:
        service->ledger_path = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0)
            service->addresses = arg;
        else
            add_method(service, arg, state);
        return 0;
    case ARGP_KEY_END:
        finish_arguments(service, state);
        return 0;
    default:
        return parse_numbers(key, arg, service, state);
    }
}

/* One line, one write: the file is opened to append, so lines of several threads stay whole. */
static bool ledger_write(const struct method *method, const struct semel_request *request)
{
    char line[SEMEL_METHOD_BYTES + 128], *at = line;
    struct semel_key key = semel_request_key(request);
    size_t length;

    for (size_t i = 0; i < sizeof key.bytes; i++)
        at += sprintf(at, "%02x", key.bytes[i]);
    at += snprintf(at, sizeof line - (size_t)(at - line), " %" PRIu64 " %s %zu\n",
                   semel_request_call(request), method->name, semel_request_body(request).size);
    length = (size_t)(at - line);
    return write(method->service->ledger, line, length) == (ssize_t)length;
}

/* The semel_handler_fn of every method; user is its struct method. */
static void answer(struct semel_request *request, void *user)
{
    struct method *method = user;

    if (method->service->ledger >= 0 && !ledger_write(method, request)) {
        output_error("cannot write the ledger: %s", strerror(errno));
        finish_failure(request, 125, "nothing was done: the ledger cannot be written");
        return;
    }
    method->handler(request, &method->shell);
}

static void on_signal(int number, unsigned count, void *user)
{
    struct service *service = user;

    if (count > 2)
        _exit(128 + number);
    pthread_mutex_lock(&service->lock);
    if (count == 1 && service->server) {
        output_note("%s: waiting for running calls; once more stops at once",
                    number == SIGINT ? "interrupted" : "terminated");
        semel_server_drain(service->server, service->drain_ms);
    } else if (service->server) {
        semel_server_stop(service->server);
    }
    pthread_mutex_unlock(&service->lock);
}

/* The server, out of reach of the signal thread. */
static struct semel_server *server_take(struct service *service)
{
    struct semel_server *server;

    pthread_mutex_lock(&service->lock);
    server = service->server;
    service->server = NULL;
    pthread_mutex_unlock(&service->lock);
    return server;
}

static int explain(enum semel_status status, const char *what, const char *name)
{
    const char *advice = "";

    if (status == SEMEL_DENIED && strncmp(name, "tcp:", 4) == 0)
        advice = " (beyond this machine tcp: needs --insecure)";
    else if (status == SEMEL_BAD_ADDRESS)
        advice = "; write unix:/path, tcp:HOST:PORT or fd:N";
    output_error("%s %s: %s%s", what, name, semel_status_text(status), advice);
    switch (status) {
    case SEMEL_ADDRESS_IN_USE:
    case SEMEL_SYSTEM:
    case SEMEL_LIMIT:
    case SEMEL_NO_MEMORY:
        return TOOL_CONNECT;
    case SEMEL_ALREADY:
        return TOOL_USAGE;
    default:
        return tool_exit_of_status(status);
    }
}

/* Listen at each of the addresses. Returns an exit code. */
static int listen_all(struct service *service)
{
    char list[SEMEL_ADDRESSES_MAX * SEMEL_ADDRESS_BYTES], *rest = NULL, *address;

    if (strlen(service->addresses) >= sizeof list)
        return explain(SEMEL_BAD_ADDRESS, "cannot listen at", "so long an address");
    strcpy(list, service->addresses);
    address = strtok_r(list, ",", &rest);
    if (!address)
        return explain(SEMEL_BAD_ADDRESS, "cannot listen at", "''");
    for (; address; address = strtok_r(NULL, ",", &rest)) {
        enum semel_status status = semel_server_listen(service->server, address);

        if (status != SEMEL_OK)
            return explain(status, "cannot listen at", address);
        output_note("listening at %s", semel_server_address(service->server));
    }
    return TOOL_VALUE;
}

static int export_all(struct service *service)
{
    for (size_t i = 0; i < service->count; i++) {
        struct method *method = &service->methods[i];
        enum semel_status status =
            semel_server_export(service->server, method->name, answer, method, &method->options);

        if (status != SEMEL_OK)
            return explain(status, "cannot export the method", method->name);
    }
    return TOOL_VALUE;
}

static int serve(struct service *service)
{
    struct semel_server_counters counters;
    enum semel_status status;
    int code = export_all(service);

    if (code == TOOL_VALUE)
        code = listen_all(service);
    if (code != TOOL_VALUE)
        return code;
    status = semel_server_start(service->server);
    if (status != SEMEL_OK)
        return explain(status, "cannot start", "the server");
    if (!signals_watch(on_signal, service)) {
        output_error("cannot start a thread: %s", strerror(errno));
        semel_server_stop(service->server);
        return TOOL_FAILURE;
    }
    status = semel_server_wait(service->server, -1, NULL);
    semel_server_counters(service->server, &counters);
    output_detail("%" PRIu64 " calls: %" PRIu64 " values, %" PRIu64 " failures, %" PRIu64
                  " not executed, %" PRIu64 " unknown",
                  counters.calls_received, counters.values, counters.failures,
                  counters.not_executed, counters.unknown);
    return status == SEMEL_OK ? TOOL_VALUE : explain(status, "cannot wait for", "the server");
}

int tool_serve(int argc, char **argv)
{
    static const struct argp argp = { options, parse, "ADDRESS [NAME=COMMAND...]", doc, NULL,
                                      NULL,    NULL };
    static struct service service = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .ledger = -1, .drain_ms = DRAIN_MS, .grace_ns = GRACE_NS
    };
    enum semel_status status;
    int code;

    argp_parse(&argp, argc, argv, 0, NULL, &service);
    if (service.ledger_path) {
        service.ledger = open(service.ledger_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        if (service.ledger < 0) {
            output_error("cannot open the ledger %s: %s", service.ledger_path, strerror(errno));
            return TOOL_USAGE;
        }
    }
    signals_block();
    service.options.log = output_log;
    status = semel_server_create(&service.server, &service.options);
    if (status != SEMEL_OK)
        return explain(status, "cannot make", "the server");
    code = serve(&service);
    if (semel_server_destroy(server_take(&service)) != SEMEL_OK)
        output_error("the server could not be destroyed");
    if (service.ledger >= 0)
        close(service.ledger);
    return code;
}
