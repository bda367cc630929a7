/* SPDX-License-Identifier: MIT */
/* serve.c - semel serve: a server made of shell commands, or of the built-in methods.
 *
 * The main thread waits for the server's end; the signal thread begins a drain at the first
 * SIGTERM or SIGINT and stops at the second. Each handler runs under `answer`, which writes the
 * ledger's line before the method itself runs: the ledger counts executions begun. SQL is not in
 * it: its statements may be undone and run again. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "builtin.h"
#include "output.h"
#include "procs.h"
#include "serve.h"
#include "signals.h"

#define GRACE_NS INT64_C(5000000000)
#define DRAIN_MS 10000

/* One line, one write: the file is opened to append, so lines of several threads stay whole. */
static bool ledger_write(const struct method *method, const struct semel_request *request)
{
    char line[SEMEL_METHOD_BYTES + 128], *at = line;
    struct origin origin = call_origin(request);
    size_t length;

    for (size_t i = 0; i < sizeof origin.key.bytes; i++)
        at += sprintf(at, "%02x", origin.key.bytes[i]);
    at += snprintf(at, sizeof line - (size_t)(at - line), " %" PRIu64 " %s %zu\n", origin.call,
                   method->name, semel_request_body(request).size);
    length = (size_t)(at - line);
    return write(method->service->ledger, line, length) == (ssize_t)length;
}

/* The semel_handler_fn of every method but SQL; user is its struct method. */
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
        semel_exchange_close(service->exchange);
        locks_close(service->locks);
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

static bool is_path(const char *address)
{
    return strncmp(address, "unix:", 5) == 0 && address[5] != '\0';
}

static int explain(enum semel_status status, const char *what, const char *name)
{
    const char *advice = "";

    if (status == SEMEL_DENIED && strncmp(name, "tcp:", 4) == 0)
        advice = " (beyond this machine tcp: needs --insecure)";
    else if (status == SEMEL_BAD_ADDRESS)
        advice = "; write unix:/path, tcp:HOST:PORT or fd:N";
    else if (status == SEMEL_INVALID && strncmp(name, "semel.", 6) == 0)
        advice = " (names that begin with semel. are reserved)";
    /* What is wrong with a path, such as a directory that is not there, was logged. */
    if (status != SEMEL_BAD_ADDRESS || !is_path(name))
        output_error("%s %s: %s%s", what, name, semel_status_text(status), advice);
    if (store_status(status))
        return TOOL_CONNECT;
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
        enum semel_status status;

        if (service->listening_count == SEMEL_ADDRESSES_MAX)
            return explain(SEMEL_BAD_ADDRESS, "cannot listen at", "so many addresses");
        status = semel_server_listen(service->server, address);
        if (status != SEMEL_OK)
            return explain(status, "cannot listen at", address);
        snprintf(service->listening[service->listening_count++], sizeof service->listening[0], "%s",
                 semel_server_address(service->server));
    }
    return TOOL_VALUE;
}

int serve_export(struct service *service)
{
    for (size_t i = 0; i < service->count; i++) {
        struct method *method = &service->methods[i];
        enum semel_status status;

        method->options.forcible = method->handler && service->pool;
        status = method->handler
                     ? semel_server_export(service->server, method->name,
                                           service->pool ? procs_forward : answer, method,
                                           &method->options)
                     : semel_server_export_transactional(service->server, method->name, sql_handler,
                                                         method->sql, &method->options);

        if (status != SEMEL_OK)
            return explain(status, "cannot export the method", method->name);
    }
    return TOOL_VALUE;
}

/* The exchange and the locks, if there are to be any. */
static int export_shared(struct service *service)
{
    enum semel_status status = SEMEL_OK;

    if (service->exchanges) {
        status = semel_exchange_create(&service->exchange, &service->exchange_options);
        if (status == SEMEL_OK)
            status = semel_server_export_exchange(service->server, service->exchange);
    }
    if (status != SEMEL_OK)
        return explain(status, "cannot serve", "the exchange");
    if (service->lease_ms)
        status = locks_export(&service->locks, service->server, service->lease_ms);
    return status == SEMEL_OK ? TOOL_VALUE
                              : explain(status, "cannot serve", "locks (" LOCK_TAKE " ...)");
}

static void say_bounds(const struct service *service)
{
    for (size_t i = 0; i < service->count; i++)
        if (!service->methods[i].handler)
            output_detail("%s: a call may run for %" PRId64 " ms", service->methods[i].name,
                          service->methods[i].options.max_run_ms);
}

static void say_counters(const struct service *service)
{
    struct semel_server_counters counters;

    semel_server_counters(service->server, &counters);
    output_detail("calls %" PRIu64 ": values %" PRIu64 ", failures %" PRIu64
                  ", not executed %" PRIu64 ", unknown %" PRIu64,
                  counters.calls_received, counters.values, counters.failures,
                  counters.not_executed, counters.unknown);
    if (!service->stored)
        return;
    output_detail("store: %" PRIu64 " commits, %" PRIu64 " failed; %" PRIu64
                  " starts and verdicts recorded; %" PRIu64 " transactions, %" PRIu64 " undone",
                  counters.commits, counters.commits_failed, counters.calls_recorded,
                  counters.transactions, counters.transactions_undone);
    output_detail("keys: %" PRIu64 " replayed, %" PRIu64 " mismatched; restored: %" PRIu64
                  " sessions, %" PRIu64 " calls, of which %" PRIu64 " crashed and %" PRIu64
                  " are poisoned",
                  counters.keys_replayed, counters.keys_mismatched, counters.sessions_restored,
                  counters.calls_restored, counters.calls_crashed, counters.calls_poisoned);
}

static int serve(struct service *service)
{
    enum semel_status status;
    int code = serve_export(service);

    if (code == TOOL_VALUE)
        code = export_shared(service);
    if (code == TOOL_VALUE)
        code = listen_all(service);
    if (code != TOOL_VALUE)
        return code;
    status = semel_server_start(service->server);
    if (status != SEMEL_OK)
        return explain(status, "cannot start", "the server");
    for (size_t i = 0; i < service->listening_count; i++)
        output_note("listening at %s", service->listening[i]);
    say_bounds(service);
    if (!signals_watch(on_signal, service)) {
        output_error("cannot start a thread: %s", strerror(errno));
        semel_server_stop(service->server);
        return TOOL_FAILURE;
    }
    status = semel_server_wait(service->server, -1, NULL);
    say_counters(service);
    if (!store_status(status))
        return status == SEMEL_OK ? TOOL_VALUE : explain(status, "cannot wait for", "the server");
    output_error(
        "not all could be stored: %s; what became of those calls is found when it starts again",
        semel_status_text(status));
    return TOOL_CONNECT;
}

static int ledger_open(struct service *service)
{
    if (!service->ledger_path)
        return TOOL_VALUE;
    service->ledger = open(service->ledger_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (service->ledger >= 0)
        return TOOL_VALUE;
    output_error("cannot open the ledger %s: %s", service->ledger_path, strerror(errno));
    return TOOL_USAGE;
}

/* From the server's making to its end. The store moves into it. */
static int server_run(struct service *service)
{
    enum semel_status status;
    int code;

    signals_block();
    service->options.log = output_log;
    code = service->procs ? procs_start(service) : TOOL_VALUE;
    if (code != TOOL_VALUE)
        return code;
    status = semel_server_create(&service->server, &service->options);
    if (status != SEMEL_OK) {
        procs_stop(service);
        return explain(status, "cannot make", "the server");
    }
    service->options.store = NULL;
    if (service->pool)
        (void)!semel_pool_show(service->pool, service->server); /* new: nothing speaks against it */
    code = serve(service);
    serve_store_release(service);
    if (semel_server_destroy(server_take(service)) != SEMEL_OK)
        output_error("the server could not be destroyed");
    procs_stop(service);
    locks_destroy(service->locks);
    if (semel_exchange_destroy(service->exchange) != SEMEL_OK)
        output_error("the exchange could not be destroyed");
    return code;
}

int tool_serve(int argc, char **argv)
{
    static struct service service = { .lock = PTHREAD_MUTEX_INITIALIZER,
                                      .ledger = -1,
                                      .held = -1,
                                      .drain_ms = DRAIN_MS,
                                      .grace_ns = GRACE_NS };
    bool is_worker = procs_take_argument(&argc, argv);
    int code;

    if (!procs_keep_arguments(&service, argc, argv)) {
        output_error("out of memory");
        return TOOL_FAILURE;
    }
    serve_arguments(&service, argc, argv);
    code = ledger_open(&service);
    if (code == TOOL_VALUE && is_worker)
        return procs_worker(&service);
    if (code == TOOL_VALUE && service.stored)
        code = serve_store_open(&service);
    if (code == TOOL_VALUE)
        code = server_run(&service);
    if (service.options.store) { /* no server was made of it */
        serve_store_release(&service);
        semel_store_close(service.options.store);
    }
    serve_store_end(&service);
    if (service.ledger >= 0)
        close(service.ledger);
    procs_free_arguments(&service);
    return code;
}
