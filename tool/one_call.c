/* SPDX-License-Identifier: MIT */
/* one_call.c - connect, start a call, wait for its completion.
 *
 * The main thread does that; the signal thread turns Ctrl-C into a cancellation. `phase` tells it
 * whether a call is outstanding: before and after, a signal ends the process at once; during the
 * call the first signal cancels and the second gives up, which leaves the outcome unknown. */
#include "one_call.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "output.h"
#include "signals.h"

enum phase { PHASE_BEFORE, PHASE_CALLING, PHASE_AFTER };

struct caller {
    pthread_mutex_t lock;
    enum phase phase;            /* lock */
    struct semel_call *call;     /* lock; this, or ... */
    struct semel_stream *stream; /* ... this is set while phase is PHASE_CALLING */
    sem_t completed;             /* posted once, by on_done */
    struct semel_result *result;
};

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
    semel_stream_cancel(caller->stream);
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

    if (semel_result_take(result, caller->result) != SEMEL_OK) {
        /* The reply cannot be kept: its outcome can. */
        caller->result->outcome = SEMEL_UNKNOWN;
        caller->result->status = SEMEL_NO_MEMORY;
        caller->result->text = "the reply arrived, but there is no memory to hold it";
        caller->result->call = result->call;
    }
    sem_post(&caller->completed);
}

/* It was started, and it is over on return. */
static void see_through(struct caller *caller, const struct one_call *plan)
{
    if (caller->stream)
        plan->run(caller->stream, caller->result, plan->run_user);
    while (!caller->stream && sem_wait(&caller->completed) != 0)
        ;
}

/* Start the call on a connected client and wait for its end. */
static enum semel_status call_connected(struct caller *caller, struct semel_client *client,
                                        const struct one_call *plan, int64_t spent_ms)
{
    struct semel_call_options options = plan->options;
    enum semel_status status;

    if (options.deadline_ms)
        options.deadline_ms = options.deadline_ms > spent_ms ? options.deadline_ms - spent_ms : 1;

    /* Under the lock, so that a signal finds either no call or one that it can cancel. */
    pthread_mutex_lock(&caller->lock);
    if (plan->run)
        status = semel_client_stream(client, plan->method, plan->body, &options, &plan->stream,
                                     &caller->stream);
    else
        status = semel_client_start(client, plan->method, plan->body, &options, on_done, caller,
                                    &caller->call);
    if (status == SEMEL_OK)
        caller->phase = PHASE_CALLING;
    pthread_mutex_unlock(&caller->lock);
    if (status != SEMEL_OK)
        return status;
    output_detail("calling %s", plan->method);
    see_through(caller, plan);
    set_phase(caller, PHASE_AFTER);
    semel_call_unref(caller->call);
    semel_stream_free(caller->stream);
    return SEMEL_OK;
}

static enum semel_status connect_and_call(struct caller *caller, const struct one_call *plan,
                                          char *text, size_t size)
{
    struct semel_client_options options = SEMEL_CLIENT_OPTIONS_INIT;
    struct semel_client *client = NULL;
    int64_t begin = clock_now(), wait_ms;
    enum semel_status status;

    options.log = output_log;
    options.body_bytes = plan->body_limit;
    wait_ms = plan->connect_timeout_ms ? plan->connect_timeout_ms : CONNECT_TIMEOUT_MS;
    if (plan->options.deadline_ms && plan->options.deadline_ms < wait_ms)
        wait_ms = plan->options.deadline_ms;
    output_detail("connecting to %s", plan->address);
    status = tool_connect(&client, plan->address, &options, wait_ms, plan->connect_timeout_ms > 0,
                          text, size);
    if (status == SEMEL_OK) {
        status = call_connected(caller, client, plan, (clock_now() - begin) / 1000000);
        snprintf(text, size, "%s",
                 status == SEMEL_INVALID ? "a method's name has 1 to 255 bytes" : "");
    }
    if (semel_client_destroy(client) != SEMEL_OK)
        output_error("the client could not be destroyed");
    return status;
}

enum semel_status one_call(const struct one_call *plan, struct semel_result *out_result, char *text,
                           size_t size)
{
    static struct caller caller = { .lock = PTHREAD_MUTEX_INITIALIZER };

    *text = '\0';
    caller.result = out_result;
    sem_init(&caller.completed, 0, 0);
    if (signals_watch(on_signal, &caller))
        return connect_and_call(&caller, plan, text, size);
    snprintf(text, size, "cannot start a thread: %s", strerror(errno));
    return SEMEL_SYSTEM;
}

bool input_read(char **out_data, size_t *out_size)
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

bool output_written(const char *how)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return true;
    output_error("the call ended (%s), but its reply could not be written to standard output: %s",
                 how, strerror(errno));
    return false;
}
