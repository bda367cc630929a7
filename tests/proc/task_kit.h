/* SPDX-License-Identifier: MIT */
/* task_kit.h - tasks, and a program that watches them. Included once per test program.
 *
 * The bodies are told by their request what to do, so that they do the same in a worker process. */
#ifndef SML_TESTS_TASK_KIT_H
#define SML_TESTS_TASK_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <semel/semel.h>

#include "kit/kit.h"

#define TEST(name, function)                                                                       \
    {                                                                                              \
        name, function, NULL, NULL, NULL                                                           \
    }

#define KIT_BODY_BYTES 65536 /* the largest reply of the places below */

/* --- bodies --------------------------------------------------------------------------------- */

static inline int kit_number(const struct semel_request *request)
{
    char text[16] = "";
    struct semel_bytes body = semel_request_body(request);

    memcpy(text, body.data, body.size < sizeof text ? body.size : sizeof text - 1);
    return atoi(text);
}

static inline void kit_touch(struct semel_bytes path, const char *end)
{
    char name[256];
    int fd;

    snprintf(name, sizeof name, "%.*s%s", (int)path.size, (const char *)path.data, end);
    fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
}

/* "3": three items and a progress for each; the reply is their number. */
static inline void body_count(struct semel_request *request, void *user)
{
    char text[16];
    int n = kit_number(request);

    (void)user;
    for (int i = 0; i < n; i++) {
        snprintf(text, sizeof text, "%d", i);
        if (semel_task_report(request, semel_bytes_text(text)) != SEMEL_OK ||
            semel_task_progress(request, semel_bytes_text(text)) != SEMEL_OK) {
            (void)semel_request_fail(request, 1, "stopped");
            return;
        }
    }
    snprintf(text, sizeof text, "%d", n);
    (void)semel_request_reply(request, text, strlen(text));
}

/* The same, but then it fails. */
static inline void body_break(struct semel_request *request, void *user)
{
    int n = kit_number(request);

    (void)user;
    for (int i = 0; i < n; i++) {
        char text[16];

        snprintf(text, sizeof text, "%d", i);
        (void)!semel_task_report(request, semel_bytes_text(text));
    }
    (void)semel_request_fail_with(request, 7, "ValueError: it broke",
                                  semel_bytes_text("ValueError"), "line 3\nline 2\nline 1");
}

/* Runs until it is cancelled; then reports, which must fail, and cleans up: PATH.clean. */
static inline void body_wait(struct semel_request *request, void *user)
{
    struct semel_bytes path = semel_request_body(request);
    enum semel_status report, progress;

    (void)user;
    (void)!semel_task_report(request, semel_bytes_text("on"));
    while (!semel_request_cancelled(request))
        kit_sleep_ms(1);
    report = semel_task_report(request, semel_bytes_text("late"));
    progress = semel_task_progress(request, semel_bytes_text("late"));
    if (report == SEMEL_CANCELLED && progress == SEMEL_CANCELLED)
        kit_touch(path, ".clean");
    (void)semel_request_fail(request, 1, "stopped");
}

/* "50": ms that nothing ends before their time. */
static inline void body_ignore(struct semel_request *request, void *user)
{
    (void)user;
    (void)!semel_task_report(request, semel_bytes_text("on"));
    kit_sleep_ms(kit_number(request));
    (void)semel_request_reply(request, "at last", 7);
}

/* Until PATH.go is there, which nothing else ends. */
static inline void body_hold(struct semel_request *request, void *user)
{
    struct semel_bytes path = semel_request_body(request);
    char name[256];

    (void)user;
    (void)!semel_task_report(request, semel_bytes_text("on"));
    snprintf(name, sizeof name, "%.*s.go", (int)path.size, (const char *)path.data);
    while (access(name, F_OK) != 0)
        kit_sleep_ms(1);
    (void)semel_request_reply(request, "at last", 7);
}

/* PATH.ran is there afterwards. */
static inline void body_touch(struct semel_request *request, void *user)
{
    (void)user;
    kit_touch(semel_request_body(request), ".ran");
    (void)semel_request_reply(request, NULL, 0);
}

/* More than a reply may be: what cannot be returned is a failure, and says so. */
static inline void body_huge(struct semel_request *request, void *user)
{
    char *bytes = calloc(1, 4 * KIT_BODY_BYTES);
    enum semel_status status = semel_request_reply(request, bytes, 4 * KIT_BODY_BYTES);

    (void)user;
    free(bytes);
    if (status != SEMEL_OK)
        (void)semel_request_fail(request, (int)status, semel_status_text(status));
}

/* An item larger than the other end takes, between two others. */
static inline void body_fat(struct semel_request *request, void *user)
{
    char *bytes = calloc(1, 4 * KIT_BODY_BYTES);

    (void)user;
    (void)!semel_task_report(request, semel_bytes_text("a"));
    (void)!semel_task_report(request, semel_bytes(bytes, 4 * KIT_BODY_BYTES));
    (void)!semel_task_report(request, semel_bytes_text("b"));
    (void)semel_request_reply(request, "3", 1);
    free(bytes);
}

/* Forgets to answer. */
static inline void body_drop(struct semel_request *request, void *user)
{
    (void)request;
    (void)user;
}

static inline void body_pid(struct semel_request *request, void *user)
{
    char text[16];

    (void)user;
    snprintf(text, sizeof text, "%d", (int)getpid());
    (void)semel_request_reply(request, text, strlen(text));
}

/* "s9": killed by signal 9; "e3": ends with exit code 3; after two items. */
static inline void body_die(struct semel_request *request, void *user)
{
    const char *how = semel_request_body(request).data;
    int number = how[1] - '0';

    (void)user;
    (void)!semel_task_report(request, semel_bytes_text("0"));
    (void)!semel_task_report(request, semel_bytes_text("1"));
    kit_sleep_ms(20);
    if (how[0] == 's')
        raise(number);
    _exit(number);
}

static inline enum semel_status kit_export(struct semel_server *server, void *user)
{
    static const struct {
        const char *name;
        semel_handler_fn body;
    } bodies[] = {
        { "count", body_count },   { "break", body_break }, { "wait", body_wait },
        { "ignore", body_ignore }, { "touch", body_touch }, { "huge", body_huge },
        { "drop", body_drop },     { "die", body_die },     { "pid", body_pid },
        { "hold", body_hold },     { "fat", body_fat },
    };
    struct semel_method_options again = SEMEL_METHOD_OPTIONS_INIT;
    enum semel_status status = SEMEL_OK;

    (void)user;
    again.kind = SEMEL_IDEMPOTENT;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0] && status == SEMEL_OK; i++)
        status = semel_task_export(server, bodies[i].name, bodies[i].body, NULL, NULL);
    if (status == SEMEL_OK)
        status = semel_task_export(server, "die again", body_die, NULL, &again);
    if (status == SEMEL_OK) /* nobody tells that it begins */
        status = semel_server_export(server, "quiet", body_ignore, NULL, NULL);
    return status;
}

/* --- where they run --------------------------------------------------------------------------- */

struct site {
    struct kit_place place; /* for files */
    struct semel_loop *loop;
    struct semel_executor *executor;
    struct semel_server *server; /* of a client */
    struct semel_client *client;
    char states[64]; /* of the executor: "SX" */
};

static bool kit_in_pool; /* in worker processes; else behind a client */

static inline void kit_on_state(struct semel_executor *executor, enum semel_executor_state state,
                                void *user)
{
    struct site *site = user;

    assert_int_equal(semel_executor_state(executor), state);
    site->states[strlen(site->states)] = state == SEMEL_EXECUTOR_STOPPING ? 'S' : 'X';
}

/* A server with so many workers, on threads of this process. */
static inline void kit_serve(struct site *site, uint32_t workers)
{
    struct semel_server_options options = SEMEL_SERVER_OPTIONS_INIT;
    struct semel_client_options takes = SEMEL_CLIENT_OPTIONS_INIT;
    char address[32];
    int fd;

    options.workers = workers;
    options.body_bytes = KIT_BODY_BYTES;
    assert_int_equal(semel_server_create(&site->server, &options), SEMEL_OK);
    assert_int_equal(kit_export(site->server, NULL), SEMEL_OK);
    assert_int_equal(semel_server_pair(site->server, &fd), SEMEL_OK);
    assert_int_equal(semel_server_start(site->server), SEMEL_OK);
    snprintf(address, sizeof address, "fd:%d", fd);
    takes.body_bytes = KIT_BODY_BYTES;
    assert_int_equal(semel_client_create(&site->client, address, &takes), SEMEL_OK);
}

static inline void kit_open_with(struct site *site, uint32_t workers, uint32_t waiting)
{
    struct semel_executor_options options = SEMEL_EXECUTOR_OPTIONS_INIT;
    struct semel_pool_options own = SEMEL_POOL_OPTIONS_INIT;

    memset(site, 0, sizeof *site);
    kit_place_make(&site->place);
    assert_int_equal(semel_loop_create(&site->loop, NULL), SEMEL_OK);
    if (kit_in_pool) {
        own.workers = workers;
        own.body_bytes = KIT_BODY_BYTES;
        own.restart_min_ms = 1;
        options.own_pool = &own;
    } else {
        kit_serve(site, workers);
        options.client = site->client;
    }
    options.waiting_tasks = waiting;
    options.on_state = kit_on_state;
    options.user = site;
    assert_int_equal(semel_executor_create(&site->executor, site->loop, &options), SEMEL_OK);
}

static inline void kit_open(struct site *site, uint32_t workers)
{
    kit_open_with(site, workers, 0);
}

/* Whoever holds ends. */
static inline void kit_release(struct site *site)
{
    kit_touch(semel_bytes_text(site->place.path), ".go");
}

static inline void kit_close(struct site *site)
{
    static const char *const ends[] = { ".clean", ".ran", ".go" };
    char name[256];

    assert_int_equal(semel_executor_destroy(site->executor), SEMEL_OK);
    assert_int_equal(semel_client_destroy(site->client), SEMEL_OK);
    assert_int_equal(semel_server_destroy(site->server), SEMEL_OK);
    assert_int_equal(semel_loop_destroy(site->loop), SEMEL_OK);
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%s", site->place.path, ends[i]);
        (void)unlink(name);
    }
    kit_place_remove(&site->place);
}

/* Serve the loop until test(arg); a minute is a hang. */
static inline void kit_run_until(struct site *site, bool (*test)(void *arg), void *arg)
{
    uint64_t end = kit_now_ms() + 60000;
    struct pollfd fd = { .fd = semel_loop_fd(site->loop), .events = POLLIN };

    while (!test(arg)) {
        assert_true(kit_now_ms() < end);
        (void)poll(&fd, 1, 20);
        assert_int_equal(semel_loop_dispatch(site->loop), SEMEL_OK);
    }
}

static inline bool kit_at(void *arg)
{
    return kit_now_ms() >= *(uint64_t *)arg;
}

static inline void kit_run_for(struct site *site, int ms)
{
    uint64_t end = kit_now_ms() + (uint64_t)ms;

    kit_run_until(site, kit_at, &end);
}

static inline bool kit_is_there(struct site *site, const char *end)
{
    char name[256];

    snprintf(name, sizeof name, "%s%s", site->place.path, end);
    return access(name, F_OK) == 0;
}

/* Both kinds of places, one after the other, with the same tests. Be a worker first. */
#define KIT_MAIN(name, tests)                                                                      \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        int code = semel_worker_main(argc, argv, kit_export, NULL);                                \
                                                                                                   \
        if (code >= 0)                                                                             \
            return code;                                                                           \
        code = cmocka_run_group_tests_name(name " behind a client", tests, NULL, NULL);            \
        kit_in_pool = true;                                                                        \
        return code + cmocka_run_group_tests_name(name " in workers", tests, NULL, NULL);          \
    }

/* --- a watcher -------------------------------------------------------------------------------- */

/* What it was told, as words: "executing item 0 progress 0 completed". */
struct watcher {
    struct semel_future *future; /* one reference */
    char log[8192];
    unsigned items, progress, dones, cancellables, states, restarts;
    enum semel_future_state last;
    bool cancel_at_start, cancel_at_item, give_back_at_done, quiet;
};

static const char *const kit_state_names[] = { "waiting", "executing",  "completed",
                                               "failed",  "cancelling", "cancelled" };

static inline void kit_note(struct watcher *watcher, const char *what, struct semel_bytes bytes)
{
    size_t at = strlen(watcher->log);

    if (!watcher->quiet)
        snprintf(watcher->log + at, sizeof watcher->log - at, "%s%s%s%.*s", at ? " " : "", what,
                 bytes.size ? " " : "", (int)bytes.size,
                 bytes.size ? (const char *)bytes.data : "");
}

static inline void kit_on_change(struct semel_future *future, unsigned changes, void *user)
{
    struct watcher *watcher = user;
    enum semel_future_state state = semel_future_state(future);

    /* Only changes are told, and all that is told agrees. */
    assert_true(changes & SEMEL_CHANGED_STATE);
    assert_int_not_equal(state, watcher->last);
    assert_int_equal(watcher->dones, 0);
    watcher->states++;
    watcher->dones += (changes & SEMEL_CHANGED_DONE) != 0;
    watcher->cancellables += (changes & SEMEL_CHANGED_CANCELLABLE) != 0;
    assert_int_equal(semel_future_is_done(future), watcher->dones == 1);
    assert_int_equal(semel_future_is_cancellable(future), watcher->cancellables == 0);
    assert_int_equal(semel_future_result(future) != NULL,
                     state == SEMEL_FUTURE_COMPLETED || state == SEMEL_FUTURE_FAILED);
    watcher->last = state;
    kit_note(watcher, kit_state_names[state], semel_bytes(NULL, 0));
    if (state == SEMEL_FUTURE_EXECUTING && watcher->cancel_at_start)
        assert_true(semel_future_cancel(future));
    if (watcher->dones && watcher->give_back_at_done) {
        semel_future_unref(watcher->future);
        watcher->future = NULL;
    }
}

static inline void kit_on_item(struct semel_future *future, struct semel_bytes bytes, void *user)
{
    struct watcher *watcher = user;

    watcher->items++;
    kit_note(watcher, "item", bytes);
    if (watcher->cancel_at_item)
        assert_true(semel_future_cancel(future));
}

static inline void kit_on_progress(struct semel_future *future, struct semel_bytes bytes,
                                   void *user)
{
    struct watcher *watcher = user;

    (void)future;
    assert_true(bytes.size > 0);
    watcher->progress++;
}

static inline void kit_on_restart(struct semel_future *future, void *user)
{
    struct watcher *watcher = user;

    (void)future;
    watcher->restarts++;
    kit_note(watcher, "again", semel_bytes(NULL, 0));
}

static inline struct semel_task_options kit_options(struct watcher *watcher)
{
    struct semel_task_options options = SEMEL_TASK_OPTIONS_INIT;

    options.on_change = kit_on_change;
    options.on_item = kit_on_item;
    options.on_progress = kit_on_progress;
    options.on_restart = kit_on_restart;
    options.user = watcher;
    return options;
}

static inline void kit_submit(struct site *site, struct watcher *watcher, const char *method,
                              const char *body)
{
    struct semel_task_options options = kit_options(watcher);

    assert_int_equal(semel_executor_submit(site->executor, method, semel_bytes_text(body), &options,
                                           &watcher->future),
                     SEMEL_OK);
    assert_int_equal(semel_future_state(watcher->future), SEMEL_FUTURE_WAITING);
    assert_true(semel_future_is_cancellable(watcher->future));
}

static inline bool kit_is_done(void *arg)
{
    return ((struct watcher *)arg)->dones > 0;
}

static inline bool kit_has_item(void *arg)
{
    return ((struct watcher *)arg)->items > 0;
}

static inline void kit_finish(struct site *site, struct watcher *watcher)
{
    kit_run_until(site, kit_is_done, watcher);
}

static inline void kit_forget(struct watcher *watcher)
{
    semel_future_unref(watcher->future);
    memset(watcher, 0, sizeof *watcher);
}

static inline void kit_assert_body(const struct semel_future *future, const char *text)
{
    const struct semel_result *result = semel_future_result(future);

    assert_non_null(result);
    assert_int_equal(result->outcome, SEMEL_VALUE);
    assert_int_equal(result->body.size, strlen(text));
    assert_memory_equal(result->body.data, text, strlen(text));
}

#endif
