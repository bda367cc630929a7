/* SPDX-License-Identifier: MIT */
/* call_outbox.c - semel call --outbox: calls that survive this command.
 *
 * A call is in the file before it is sent, and leaves it after its result was printed and standard
 * output has taken it. So whatever ends this command, and whenever, the call goes on with the next
 * one that opens the file; one that was carried out already gives the same result again, by its
 * key. Nothing here ever cancels a call.
 *
 * The main thread posts and waits; the signal thread ends the process: at once, since what matters
 * is in the file. Before the call was posted that is a promise that nothing happened. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "call.h"
#include "clock.h"
#include "output.h"
#include "signals.h"
#include "store.h"

#define WAIT_MS 30000              /* for one result, unless said otherwise */
#define LOOK_MS 200                /* how often to look at what is left */
#define SAY_NS INT64_C(2000000000) /* the first time that it is said what is waited for */
#define AGAIN_NS INT64_C(10000000000)

struct waiting {
    const struct call_arguments *a;
    char path[STORE_PATH_BYTES];
    char drawn[33];       /* the key, when none was given */
    pthread_mutex_t lock; /* between the two threads */
    bool posted;          /* lock; the call may be in the file */
    bool over;            /* lock; nothing of this command is in the file any more */
    struct semel_client *client;
    int64_t begin, until; /* until: 0 for ever */
    int64_t say_at;
    uint64_t done;
    int worst; /* exit code of all results */
};

/* --- words ----------------------------------------------------------------------------------- */

/* How to get what is still in the file. */
static void say_how(const struct waiting *w)
{
    if (!w->a->method)
        output_error("what has no result is still in %s; run the same command again to go on",
                     w->a->outbox);
    else if (w->drawn[0])
        output_error("the call is still in %s; the same command with --key %s gets its result",
                     w->a->outbox, w->drawn);
    else
        output_error("the call is still in %s; run the same command again to get its result",
                     w->a->outbox);
}

static void on_signal(int number, unsigned count, void *user)
{
    struct waiting *w = user;

    pthread_mutex_lock(&w->lock);
    if (w->over && count == 1) {
        pthread_mutex_unlock(&w->lock);
        return;
    }
    if (w->a->method && !w->posted)
        _exit(128 + number);
    output_progress(NULL);
    if (!w->over)
        say_how(w);
    _exit(TOOL_UNKNOWN);
}

/* Now and then, what is waited for. */
static void say_progress(struct waiting *w, uint64_t outstanding)
{
    int64_t now = clock_now();
    char why[400] = "";

    if (now < w->say_at)
        return;
    w->say_at = now + (output_live() ? LOOK_MS * 1000000 : AGAIN_NS);
    if (semel_client_wait_connected(w->client, 0, why, sizeof why) == SEMEL_OK)
        why[0] = '\0';
    if (output_live())
        output_progress("%" PRIu64 " done, %" PRIu64 " outstanding  %" PRId64 " s  %s", w->done,
                        outstanding, (now - w->begin) / 1000000000, why);
    else if (w->a->method)
        output_note("waiting for the result%s%s", *why ? ": " : "", why);
    else
        output_note("%" PRIu64 " done, %" PRIu64 " outstanding%s%s", w->done, outstanding,
                    *why ? ": " : "", why);
}

/* No result came, or will come. Returns the exit code. */
static int gave_up(struct waiting *w, enum semel_status status)
{
    uint64_t outstanding = 0;
    char why[400] = "";

    output_progress(NULL);
    semel_client_posted(w->client, &outstanding, NULL);
    if (store_status(status)) {
        outbox_explain(status, w->a->outbox);
    } else if (status == SEMEL_DEADLINE) {
        if (semel_client_wait_connected(w->client, 0, why, sizeof why) == SEMEL_OK)
            why[0] = '\0';
        if (w->a->method)
            output_error("no result within the timeout%s%s", *why ? ": " : "", why);
        else
            output_error("%" PRIu64 " call%s without a result within the timeout%s%s", outstanding,
                         outstanding == 1 ? "" : "s", *why ? ": " : "", why);
    } else {
        semel_client_wait_connected(w->client, 0, why, sizeof why);
        output_error("%s: %s%s%s", w->a->address, semel_status_text(status), *why ? ": " : "", why);
    }
    say_how(w);
    return TOOL_UNKNOWN;
}

/* --- results --------------------------------------------------------------------------------- */

/* It was printed: it may leave the file. False: the file is of no more use, which was said. */
static bool accept(struct waiting *w, uint64_t id)
{
    enum semel_status status = semel_client_accept(w->client, id);

    if (status == SEMEL_OK)
        return true;
    output_error("%s: %s: a result that was printed is still in it, and will be printed again",
                 w->a->outbox, semel_status_text(status));
    return false;
}

static void set_over(struct waiting *w)
{
    pthread_mutex_lock(&w->lock);
    w->over = true;
    pthread_mutex_unlock(&w->lock);
}

/* The next result, if there is one within LOOK_MS. */
static enum semel_status next(struct waiting *w, struct semel_posted *posted)
{
    int64_t left_ms = w->until ? (w->until - clock_now()) / 1000000 : LOOK_MS;
    uint64_t outstanding;
    enum semel_status status;

    status = semel_client_next_result(w->client,
                                      left_ms < 0         ? 0
                                      : left_ms < LOOK_MS ? left_ms
                                                          : LOOK_MS,
                                      posted);
    if (status == SEMEL_DEADLINE) {
        semel_client_posted(w->client, &outstanding, NULL);
        say_progress(w, outstanding);
    }
    return status;
}

static bool in_time(const struct waiting *w)
{
    return !w->until || clock_now() < w->until;
}

/* The result of this one; those of others stay where they are. Returns the exit code. */
static int await_one(struct waiting *w, uint64_t id)
{
    struct semel_posted posted;
    enum semel_status status;
    int code;

    for (;;) {
        status = next(w, &posted);
        if (status == SEMEL_DEADLINE && in_time(w))
            continue;
        if (status != SEMEL_OK)
            return gave_up(w, status);
        if (posted.id == id)
            break;
        semel_posted_clear(&posted);
    }
    output_progress(NULL);
    if (!call_print(&posted.result, posted.key, &code))
        say_how(w);
    else if (accept(w, id))
        set_over(w);
    semel_posted_clear(&posted);
    return code;
}

static void count(struct waiting *w, enum semel_outcome outcome)
{
    w->done++;
    if (outcome == SEMEL_UNKNOWN)
        w->worst = TOOL_UNKNOWN;
    else if (outcome != SEMEL_VALUE && w->worst == TOOL_VALUE)
        w->worst = TOOL_FAILURE;
}

/* All that there are, until none is outstanding. Returns the exit code. */
static int await_all(struct waiting *w)
{
    uint64_t outstanding, results;
    struct semel_posted posted;
    enum semel_status status;

    for (;;) {
        bool printed;

        semel_client_posted(w->client, &outstanding, &results);
        if (outstanding == 0 && results == 0)
            break;
        status = next(w, &posted);
        if (status == SEMEL_DEADLINE && in_time(w))
            continue;
        if (status != SEMEL_OK)
            return gave_up(w, status);
        output_progress(NULL);
        printed = call_print_line(&posted.result, posted.key);
        count(w, posted.result.outcome);
        if (!printed)
            say_how(w);
        printed = printed && accept(w, posted.id);
        semel_posted_clear(&posted);
        if (!printed)
            return TOOL_UNKNOWN;
    }
    set_over(w);
    output_progress(NULL);
    return w->worst;
}

/* --- the call -------------------------------------------------------------------------------- */

/* A key that this command can name, should it be interrupted. */
static const char *key_of(struct waiting *w)
{
    uint8_t bytes[16];

    if (w->a->key)
        return w->a->key;
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return NULL; /* the library draws one, then */
    store_id_text(bytes, w->drawn);
    return w->drawn;
}

static int post_failed(struct waiting *w, enum semel_status status)
{
    switch (status) {
    case SEMEL_STORE_FULL:
        output_error("%s at %s, not sent", w->a->method, w->a->address);
        return outbox_explain(status, w->a->outbox);
    case SEMEL_KEY_MISMATCH:
        return call_not_made(w->a, status, "as of a call that is in the outbox");
    case SEMEL_INVALID:
        return call_not_made(w->a, status, "a method's name has 1 to 255 bytes");
    default:
        return store_status(status) ? gave_up(w, status) : call_not_made(w->a, status, NULL);
    }
}

static int post_and_await(struct waiting *w, struct semel_bytes body)
{
    struct semel_call_options options = SEMEL_CALL_OPTIONS_INIT;
    enum semel_status status;
    uint64_t id;

    options.key = key_of(w);
    pthread_mutex_lock(&w->lock);
    w->posted = true;
    pthread_mutex_unlock(&w->lock);
    status = semel_client_post(w->client, w->a->method, body, &options, semel_bytes(NULL, 0), &id);
    if (status != SEMEL_OK)
        return post_failed(w, status);
    output_detail("posted %s, key %s", w->a->method, options.key ? options.key : "drawn");
    return await_one(w, id);
}

static int run(struct waiting *w, struct semel_outbox *outbox, struct semel_bytes body)
{
    struct semel_client_options options = SEMEL_CLIENT_OPTIONS_INIT;
    int64_t wait_ms = w->a->timeout_ms ? w->a->timeout_ms : w->a->method ? WAIT_MS : 0;
    enum semel_status status;
    int code;

    options.log = output_log_errors; /* what is waited for is said here */
    options.body_bytes = w->a->body_limit;
    options.outbox = outbox;
    w->begin = clock_now();
    w->until = wait_ms ? w->begin + wait_ms * 1000000 : 0;
    w->say_at = w->begin + SAY_NS;
    status = semel_client_create(&w->client, w->a->address, &options);
    if (status != SEMEL_OK) {
        semel_outbox_close(outbox);
        if (store_status(status))
            return outbox_explain(status, w->a->outbox);
        output_error("%s: %s%s", w->a->address, semel_status_text(status),
                     status == SEMEL_BAD_ADDRESS ? "; write unix:/path, tcp:HOST:PORT or fd:N"
                                                 : "");
        return tool_exit_of_status(status);
    }
    code = w->a->method ? post_and_await(w, body) : await_all(w);
    if (semel_client_destroy(w->client) != SEMEL_OK)
        output_error("the client could not be destroyed");
    return code;
}

int call_outbox(const struct call_arguments *a, struct semel_bytes body)
{
    static struct waiting w = { .lock = PTHREAD_MUTEX_INITIALIZER, .worst = TOOL_VALUE };
    struct semel_outbox *outbox;
    char why[400];
    int code;

    w.a = a;
    if (!store_path(a->outbox, w.path, why, sizeof why)) {
        output_error("--outbox: %s", why);
        return TOOL_USAGE;
    }
    if (!a->method && access(w.path, F_OK) != 0) {
        output_error("%s: %s: there is no outbox", a->outbox, strerror(errno));
        return TOOL_CONNECT;
    }
    if (!signals_watch(on_signal, &w)) {
        output_error("cannot start a thread: %s", strerror(errno));
        return TOOL_NOT_EXECUTED;
    }
    code = outbox_open(&outbox, w.path);
    return code == TOOL_VALUE ? run(&w, outbox, body) : code;
}
