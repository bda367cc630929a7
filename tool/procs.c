/* SPDX-License-Identifier: MIT */
/* procs.c - calls that are handed on to worker processes.
 *
 * A call is started in the pool by a handler that waits for its end. The server runs as many
 * handlers as the workers have room for calls, so what is more waits in the server's own line: it
 * has not begun, and whatever happens to it there the server can say so. Its cancellation cancels
 * the one in the pool. What is unknown there is unknown here, in the same words, and what was not
 * executed there is not executed here. */
#include "procs.h"

#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "builtin.h"
#include "output.h"
#include "serve.h"

#define WORKER_ARGUMENT "--semel-worker="
#define ORIGIN "semel-call "
#define HANDED_KEY_BYTES 190 /* an idempotency key that fits into a content type beside the rest */
#define STOP_MS 5000
#define THREADS_MAX 4096     /* of a server */
#define CANCEL_GRACE_MS 1000 /* beyond what a cancelled command has: its verdict comes through */

/* --- the call as the client made it ---------------------------------------------------------- */

static bool read_key(const char *hex, struct semel_key *key)
{
    for (size_t i = 0; i < sizeof key->bytes; i++) {
        unsigned byte;

        if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
            return false;
        key->bytes[i] = (uint8_t)byte;
    }
    return true;
}

/* "semel-call KEY CALL IDEMPOTENCY_KEY" */
static void write_origin(const struct semel_request *request, char *out, size_t room)
{
    struct semel_key key = semel_request_key(request);
    char hex[2 * sizeof key.bytes + 1];

    for (size_t i = 0; i < sizeof key.bytes; i++)
        sprintf(hex + 2 * i, "%02x", key.bytes[i]);
    snprintf(out, room, ORIGIN "%s %" PRIu64 " %s", hex, semel_request_call(request),
             semel_request_idempotency_key(request));
}

struct origin call_origin(const struct semel_request *request)
{
    struct origin origin = { semel_request_key(request), semel_request_call(request),
                             semel_request_idempotency_key(request) };
    const char *text = semel_request_content_type(request);
    size_t head = sizeof ORIGIN - 1, hex = 2 * sizeof origin.key.bytes;
    struct semel_key key;
    char *end;

    /* Only a worker has callers who may say so. */
    if (!procs_is_worker() || strncmp(text, ORIGIN, head) != 0 || strlen(text) < head + hex + 2 ||
        !read_key(text + head, &key))
        return origin;
    origin.key = key;
    origin.call = strtoull(text + head + hex, &end, 10);
    origin.idempotency_key = *end == ' ' ? end + 1 : "";
    return origin;
}

/* --- what keeps workers from coming up ------------------------------------------------------- */

static struct {
    pthread_mutex_t lock;
    uint64_t served[SEMEL_POOL_WORKERS_MAX]; /* of each place, the newest that has said hello */
    char text[SEMEL_TEXT_BYTES]; /* ""; since the last hello, how one died before its own */
    bool told;
} trouble = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* One died. Worker numbers rise: above the newest that served are those that never did. */
static void note_death(const struct semel_worker_event *event)
{
    bool first;

    pthread_mutex_lock(&trouble.lock);
    if (event->worker <= trouble.served[event->place]) {
        pthread_mutex_unlock(&trouble.lock);
        return;
    }
    snprintf(trouble.text, sizeof trouble.text,
             "process %d %s, and had never said hello on descriptor 3", event->pid, event->text);
    first = !trouble.told;
    trouble.told = true;
    pthread_mutex_unlock(&trouble.lock);
    if (first)
        output_error("no worker process is ready: %s; it has to speak the protocol there",
                     trouble.text);
}

static void note_hello(const struct semel_worker_event *event)
{
    pthread_mutex_lock(&trouble.lock);
    trouble.served[event->place] = event->worker;
    trouble.text[0] = '\0';
    pthread_mutex_unlock(&trouble.lock);
}

/* --- handing on ------------------------------------------------------------------------------ */

/* On the stack of the handler, which waits. */
struct forward {
    sem_t over;
    struct semel_job *job;
    struct semel_result result;
};

static void on_cancel(struct semel_request *request, void *user)
{
    struct forward *forward = user;

    if (semel_request_forced(request))
        (void)semel_job_kill(forward->job);
    else
        semel_job_cancel(forward->job);
}

static void on_done(struct semel_result *result, void *user)
{
    struct forward *forward = user;

    if (semel_result_take(result, &forward->result) != SEMEL_OK) {
        forward->result.outcome = SEMEL_UNKNOWN;
        forward->result.status = SEMEL_NO_MEMORY;
    }
    sem_post(&forward->over);
}

/* The words about this end without those around them, which the caller's side puts there again.
 * NULL: there are none. */
static const char *words_beyond_status(const struct semel_result *result)
{
    const char *status = semel_status_text(result->status);
    const char *words = result->text ? strstr(result->text, status) : NULL;
    size_t skipped = strlen(status);

    return words && strncmp(words + skipped, ": ", 2) == 0 ? words + skipped + 2 : NULL;
}

/* Of one that is unknown: here it is since a handler died, whatever the status was there. */
static const char *words_of(const struct semel_result *result)
{
    const char *status = semel_status_text(result->status);
    const char *beyond = words_beyond_status(result);
    const char *words = result->text ? strstr(result->text, status) : NULL;

    if (beyond && result->status == SEMEL_HANDLER_DIED)
        return beyond;
    return words ? words : status;
}

/* While no process comes up that is the reason, however the waiting ended. */
static void finish_not_executed(struct semel_request *request, enum semel_status why,
                                const char *words)
{
    char text[sizeof trouble.text];
    enum semel_status status;

    pthread_mutex_lock(&trouble.lock);
    memcpy(text, trouble.text, sizeof text);
    pthread_mutex_unlock(&trouble.lock);
    if (*text)
        status = semel_request_not_executed(request, SEMEL_NO_WORKERS, text);
    else
        status = semel_request_not_executed(request, why, words);
    if (status ==
        SEMEL_INVALID) /* what it says is of the pool's connections, not of the caller's */
        status = semel_request_not_executed(request, SEMEL_NO_WORKERS, semel_status_text(why));
    if (status != SEMEL_OK)
        finish_failure(request, 125, "nothing was done: %s", semel_status_text(why));
}

static void hand_back(struct semel_request *request, const struct semel_result *result)
{
    switch (result->outcome) {
    case SEMEL_VALUE:
        finish_value(request, result->body.data, result->body.size);
        break;
    case SEMEL_FAILURE:
        if (semel_request_fail_with(request, result->code, result->text, result->detail,
                                    result->trace) != SEMEL_OK)
            finish_failure(request, result->code, "%s", result->text);
        break;
    case SEMEL_NOT_EXECUTED:
        finish_not_executed(request, result->status, words_beyond_status(result));
        break;
    default:
        semel_request_take(request);
        semel_request_died(request, words_of(result));
        break;
    }
}

void procs_forward(struct semel_request *request, void *user)
{
    const struct method *method = user;
    char origin[SEMEL_CONTENT_TYPE_BYTES + 1];
    int64_t left = semel_request_remaining_ms(request);
    /* A caller may have more time than the pool's calls, or no deadline. */
    struct semel_call_options options = { .deadline_ms = left > INT32_MAX ? INT32_MAX
                                                         : left > 0       ? left
                                                                          : -1,
                                          .content_type = origin,
                                          .rerun_ok = method->options.kind == SEMEL_IDEMPOTENT,
                                          .lent = true };
    struct forward forward = { .job = NULL };
    enum semel_status status;

    if (strlen(semel_request_idempotency_key(request)) > HANDED_KEY_BYTES) {
        finish_failure(request, 125, "nothing was done: with --procs a key has at most %d bytes",
                       HANDED_KEY_BYTES);
        return;
    }
    write_origin(request, origin, sizeof origin);
    sem_init(&forward.over, 0, 0);
    status = semel_pool_start(method->service->pool, method->name, semel_request_body(request),
                              &options, on_done, &forward, &forward.job);
    if (status != SEMEL_OK) {
        finish_not_executed(request, status, NULL);
        return;
    }
    semel_request_on_cancel(request, on_cancel, &forward);
    while (sem_wait(&forward.over) != 0)
        ;
    semel_request_on_cancel(request, NULL, NULL);
    hand_back(request, &forward.result);
    semel_job_unref(forward.job);
    semel_result_clear(&forward.result);
}

/* --- the pool -------------------------------------------------------------------------------- */

static void on_event(struct semel_pool *pool, const struct semel_worker_event *event, void *user)
{
    (void)pool;
    (void)user;
    if (event->kind == SEMEL_WORKER_SERVES)
        note_hello(event);
    if (event->kind == SEMEL_WORKER_DIED)
        note_death(event);
    if (event->kind == SEMEL_WORKER_RECYCLED)
        output_detail("worker %d has served its time", event->pid);
}

bool procs_keep_arguments(struct service *service, int argc, char **argv)
{
    char **kept = calloc((size_t)argc + 2, sizeof *kept);
    bool good = kept != NULL;

    /* argv[0] is "semel serve". */
    for (int i = 0; good && i <= argc; i++)
        good = (kept[i] = strdup(i == 0 ? "semel" : i == 1 ? "serve" : argv[i - 1])) != NULL;
    service->arguments = kept;
    return good;
}

void procs_free_arguments(struct service *service)
{
    for (char **argument = service->arguments; argument && *argument; argument++)
        free(*argument);
    free(service->arguments);
    service->arguments = NULL;
}

int procs_start(struct service *service)
{
    uint32_t each = service->options.workers ? service->options.workers : 1;
    int64_t grace_ms = service->grace_ns / 1000000 + CANCEL_GRACE_MS;
    uint64_t seats = (uint64_t)service->procs * each;
    struct semel_pool_options options = {
        .workers = service->procs,
        .calls_per_worker = each,
        .cancel_grace_ms = grace_ms > INT32_MAX ? INT32_MAX : grace_ms,
        .body_bytes = service->options.body_bytes,
        .recycle_calls = service->recycle_calls,
        .recycle_bytes = service->recycle_bytes,
        .program = service->program,
        .log = output_log,
        .on_event = on_event,
    };
    enum semel_status status;

    service->options.workers = (uint32_t)(seats > THREADS_MAX ? THREADS_MAX : seats);
    if (!service->program)
        options.arguments = (const char *const *)service->arguments;
    status = semel_pool_create(&service->pool, &options);
    if (status == SEMEL_OK)
        return TOOL_VALUE;
    output_error("cannot start worker processes: %s", semel_status_text(status));
    return status == SEMEL_INVALID ? TOOL_USAGE : TOOL_CONNECT;
}

void procs_stop(struct service *service)
{
    struct semel_pool_counters counters;

    if (!service->pool)
        return;
    semel_pool_counters(service->pool, &counters);
    output_detail("workers: %" PRIu64 " started, %" PRIu64 " died, %" PRIu64
                  " recycled; calls: %" PRIu64 " moved, %" PRIu64 " run again",
                  counters.workers_started, counters.workers_died, counters.workers_recycled,
                  counters.calls_moved, counters.calls_rerun);
    if (semel_pool_stop(service->pool, STOP_MS, NULL) != SEMEL_OK)
        output_note("workers are still busy, and are killed");
    if (semel_pool_destroy(service->pool) != SEMEL_OK)
        output_error("the worker processes could not be ended");
    service->pool = NULL;
}

/* --- the worker ------------------------------------------------------------------------------ */

static char *worker_argument; /* what the pool has added; NULL: this is no worker */

bool procs_take_argument(int *argc, char **argv)
{
    if (*argc > 1 && strncmp(argv[*argc - 1], WORKER_ARGUMENT, sizeof WORKER_ARGUMENT - 1) == 0) {
        worker_argument = argv[--*argc];
        argv[*argc] = NULL;
    }
    return procs_is_worker();
}

bool procs_is_worker(void)
{
    return worker_argument != NULL;
}

static enum semel_status set_up(struct semel_server *server, void *user)
{
    struct service *service = user;

    service->server = server;
    return serve_export(service) == TOOL_VALUE ? SEMEL_OK : SEMEL_INVALID;
}

int procs_worker(struct service *service)
{
    char name[] = "semel";
    char *argv[] = { name, worker_argument, NULL };

    return semel_worker_main(2, argv, set_up, service);
}
