/* SPDX-License-Identifier: MIT */
/* call.c - semel call: one call, its outcome as bytes, a message and an exit code.
 *
 * The main thread connects, starts the call and waits for its completion; the signal thread
 * turns Ctrl-C into a cancellation. `phase` tells it whether a call is outstanding: before and
 * after, a signal ends the process at once; during the call the first signal cancels and the
 * second gives up, which leaves the outcome unknown. Nothing is submitted before a connection is
 * there, so that "cannot connect" is a promise that nothing was sent. With an outbox all of this is
 * different: call_outbox.c. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "call.h"
#include "clock.h"
#include "duration.h"
#include "numbers.h"
#include "output.h"
#include "signals.h"
#include "tool.h"

#define CONNECT_TIMEOUT_MS 3000

enum phase { PHASE_BEFORE, PHASE_CALLING, PHASE_AFTER };

struct caller {
    pthread_mutex_t lock;
    enum phase phase;        /* lock */
    struct semel_call *call; /* lock; set while phase is PHASE_CALLING */
    sem_t completed;         /* posted once, by on_done */
    struct semel_result result;
};

enum { KEY_TIMEOUT = 256, KEY_CONNECT, KEY_RERUN, KEY_REFUSE, KEY_BODY_LIMIT, KEY_KEY, KEY_OUTBOX };

static const struct argp_option options[] = {
    { "timeout", KEY_TIMEOUT, "DURATION", 0,
      "The call's deadline (default 30s); with --outbox: how long to wait for the result", 0 },
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
    "  semel call unix:/run/shop --outbox shop.out -o json\n\n"
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

static void finish_arguments(const struct call_arguments *a, unsigned count,
                             struct argp_state *state)
{
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
        return output_option(key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

/* All of standard input. False: it cannot be read or held; said so. */
static bool read_input(char **out_data, size_t *out_size)
{
    size_t size = 0, room = 65536;
    char *data = malloc(room);

    for (;;) {
        ssize_t got = data ? read(STDIN_FILENO, data + size, room - size) : -1;

        if (got < 0 && data && errno == EINTR)
            continue;
        if (got < 0) {
            output_error("cannot read the body from standard input: %s",
                         strerror(data ? errno : ENOMEM));
            free(data);
            return false;
        }
        if (got == 0)
            break;
        size += (size_t)got;
        if (size == room) {
            char *larger = realloc(data, room * 2);

            if (!larger)
                free(data);
            data = larger;
            room *= 2;
        }
    }
    *out_data = data;
    *out_size = size;
    return true;
}

static void on_signal(int number, unsigned count, void *user)
{
    struct caller *caller = user;

    pthread_mutex_lock(&caller->lock);
    if (caller->phase == PHASE_BEFORE)
        _exit(128 + number); /* a promise that nothing happened */
    if (caller->phase == PHASE_AFTER)
        _exit(TOOL_UNKNOWN); /* whoever called may not have all of the answer */
    if (count > 1) {
        output_error("gave up waiting; the outcome is unknown");
        _exit(TOOL_UNKNOWN);
    }
    semel_call_cancel(caller->call);
    output_note("cancelling; once more gives up waiting");
    pthread_mutex_unlock(&caller->lock);
}

static void set_phase(struct caller *caller, enum phase phase)
{
    pthread_mutex_lock(&caller->lock);
    caller->phase = phase;
    pthread_mutex_unlock(&caller->lock);
}

static void on_done(struct semel_result *result, void *user)
{
    struct caller *caller = user;

    if (semel_result_take(result, &caller->result) != SEMEL_OK) {
        /* The reply cannot be kept: its outcome can. */
        caller->result.outcome = SEMEL_UNKNOWN;
        caller->result.status = SEMEL_NO_MEMORY;
        caller->result.text = "the reply arrived, but there is no memory to hold it";
        caller->result.call = result->call;
    }
    sem_post(&caller->completed);
}

/* Start the call on a connected client and wait for its end. */
static int call_and_print(struct caller *caller, struct semel_client *client,
                          const struct call_arguments *a, struct semel_bytes body, int64_t spent_ms)
{
    struct semel_call_options call_options = SEMEL_CALL_OPTIONS_INIT;
    enum semel_status status;
    int code;

    call_options.rerun_ok = a->rerun_ok;
    call_options.refuse_when_full = a->refuse_when_full;
    call_options.key = a->key;
    if (a->timeout_ms)
        call_options.deadline_ms = a->timeout_ms > spent_ms ? a->timeout_ms - spent_ms : 1;

    /* Under the lock, so that a signal finds either no call or one that it can cancel. */
    pthread_mutex_lock(&caller->lock);
    status =
        semel_client_start(client, a->method, body, &call_options, on_done, caller, &caller->call);
    if (status == SEMEL_OK)
        caller->phase = PHASE_CALLING;
    pthread_mutex_unlock(&caller->lock);
    if (status != SEMEL_OK)
        return call_not_made(a, status,
                             status == SEMEL_INVALID ? "a method's name has 1 to 255 bytes" : NULL);
    output_detail("calling %s", a->method);
    while (sem_wait(&caller->completed) != 0)
        ;
    set_phase(caller, PHASE_AFTER);
    call_print(&caller->result, NULL, &code);
    semel_result_clear(&caller->result);
    semel_call_unref(caller->call);
    return code;
}

static int connect_and_call(struct caller *caller, const struct call_arguments *a,
                            struct semel_bytes body)
{
    struct semel_client_options client_options = SEMEL_CLIENT_OPTIONS_INIT;
    struct semel_client *client;
    int64_t begin = clock_now(), wait_ms;
    enum semel_status status;
    char text[1024] = "";
    int code;

    client_options.log = output_log;
    client_options.body_bytes = a->body_limit;
    status = semel_client_create(&client, a->address, &client_options);
    if (status == SEMEL_BAD_ADDRESS)
        return call_not_made(a, status, "write unix:/path, tcp:HOST:PORT or fd:N");
    if (status != SEMEL_OK)
        return call_not_made(a, status, NULL);
    wait_ms = a->connect_timeout_ms ? a->connect_timeout_ms : CONNECT_TIMEOUT_MS;
    if (a->timeout_ms && a->timeout_ms < wait_ms)
        wait_ms = a->timeout_ms;
    output_detail("connecting to %s", a->address);
    status = tool_wait_connected(client, a->address, wait_ms, a->connect_timeout_ms > 0, text,
                                 sizeof text);
    if (status != SEMEL_OK)
        code = call_not_made(a, status, text);
    else
        code = call_and_print(caller, client, a, body, (clock_now() - begin) / 1000000);
    if (semel_client_destroy(client) != SEMEL_OK)
        output_error("the client could not be destroyed");
    return code;
}

static int call_now(const struct call_arguments *a, struct semel_bytes body)
{
    static struct caller caller = { .lock = PTHREAD_MUTEX_INITIALIZER };

    sem_init(&caller.completed, 0, 0);
    if (signals_watch(on_signal, &caller))
        return connect_and_call(&caller, a, body);
    output_error("cannot start a thread: %s", strerror(errno));
    return TOOL_NOT_EXECUTED;
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
        if (!read_input(&input, &size))
            return TOOL_NOT_EXECUTED;
        body = semel_bytes(input, size);
    }
    signals_block();
    code = a.outbox ? call_outbox(&a, body) : call_now(&a, body);
    free(input);
    return code;
}
