/* SPDX-License-Identifier: MIT */
/* top.c - semel top: what a server does, again and again.
 *
 * The main thread has the terminal and waits for keys, signals, answers and the next time to ask.
 * Answers come on the client's thread, which leaves them in a query's box and rings a bell. Of each
 * kind of question one at most is under way; one that is not answered in time is asked again.
 *
 * The server may go and come back: the client goes on with it by itself, questions are idempotent
 * and may be repeated, and another process id or a younger age tells that it is another one. */
#include "top.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "duration.h"
#include "inspect.h"
#include "output.h"
#include "signals.h"

#define INTERVAL_MS 1000
#define PATIENCE_MS 2000 /* for an answer, at least */
#define MESSAGE_NS INT64_C(6000000000)
#define BACKOFF_MS 1000 /* between attempts to connect, at most */

struct arguments {
    struct one_call call;
    int64_t interval_ms;
};

/* One kind of question. */
struct query {
    struct top *top;
    const char *method;
    bool busy; /* the main thread's: no answer yet */
    /* top->lock: the answer, until the main thread has taken it. */
    bool done;
    json_t *answer; /* NULL: there was none, and `why` says why */
    char why[512];
};

struct top {
    const struct arguments *arguments;
    struct semel_client *client;
    int bell, signals;
    pthread_mutex_t lock;
    struct query counters, calls, cancel;
    char link[512];           /* lock: why there is no connection; "" while there is one */
    enum semel_status failed; /* lock: the client will never connect again */
    /* The main thread's. */
    json_t *earlier, *now, *listed; /* answers; of semel.calls the last */
    int64_t now_at, message_until, asked_at;
    char message[640], target[80];
    bool asking;
};

enum { KEY_INTERVAL = 256 };

static const struct argp_option options[] = {
    { "interval", KEY_INTERVAL, "DURATION", 0, "Look this often (default 1s)", 0 },
    INSPECT_OPTIONS,
    OUTPUT_OPTIONS,
    { NULL, 0, NULL, 0, NULL, 0 },
};

static const char doc[] =
    "Show what the server at ADDRESS does, again and again in a terminal, or once, of one "
    "interval, with -o json: calls in a second, how long they take "
    "(p50: half of them take no longer; p99: 99 of 100), in flight and in the backlog, sessions, "
    "cut connections, replies that were sent again; methods, calls, and what each worker does."
    "\v"
    "Examples:\n"
    "  semel top unix:/run/x\n"
    "  semel top unix:/run/x --interval 250ms\n"
    "  semel top unix:/run/x -o json --interval 10s\n\n"
    "Keys: q quits; Tab or 1, 2, 3: methods, calls, workers; s: sort methods by rate, p99, calls "
    "in flight or name; arrows choose; k cancels the chosen call, and asks first. A server that "
    "goes away is waited for. With -o json there is no screen: one object for one interval. Exit "
    "codes as semel call.";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    char why[200];

    switch (key) {
    case KEY_INTERVAL:
        if (!duration_parse_ms(arg, &a->interval_ms, why, sizeof why))
            argp_error(state, "--interval: %s", why);
        if (a->interval_ms < 10)
            argp_error(state, "--interval: '%s' is too short; at least 10ms", arg);
        return 0;
    default:
        return inspect_address(&a->call, key, arg, state);
    }
}

/* --- the client's thread --------------------------------------------------------------------- */

static void ring(struct top *top)
{
    uint64_t one = 1;

    (void)!write(top->bell, &one, sizeof one);
}

static void on_state(struct semel_client *client, enum semel_client_state state,
                     enum semel_status status, const char *text, void *user)
{
    struct top *top = user;

    (void)client;
    pthread_mutex_lock(&top->lock);
    snprintf(top->link, sizeof top->link, "%s",
             state == SEMEL_CLIENT_CONNECTED ? ""
             : text && *text                 ? text
                                             : semel_status_text(status));
    if (state == SEMEL_CLIENT_FAILED)
        top->failed = status;
    pthread_mutex_unlock(&top->lock);
    ring(top);
}

static void on_answer(struct semel_result *result, void *user)
{
    struct query *query = user;
    struct top *top = query->top;
    json_t *answer = result->outcome == SEMEL_VALUE ? inspect_parse(result->body) : NULL;

    pthread_mutex_lock(&top->lock);
    query->answer = answer;
    if (result->outcome == SEMEL_FAILURE && result->text)
        snprintf(query->why, sizeof query->why, "%s", result->text);
    else if (!answer)
        (void)inspect_failure(result, query->why, sizeof query->why);
    query->done = true;
    pthread_mutex_unlock(&top->lock);
    ring(top);
}

/* --- questions ------------------------------------------------------------------------------- */

static void ask(struct query *query, const char *body, bool repeatable)
{
    struct semel_call_options call = SEMEL_CALL_OPTIONS_INIT;
    int64_t patience = query->top->arguments->interval_ms;
    enum semel_status status;

    if (query->busy)
        return;
    call.deadline_ms = patience > PATIENCE_MS ? patience : PATIENCE_MS;
    call.rerun_ok = repeatable;
    status = semel_client_start(query->top->client, query->method, semel_bytes_text(body), &call,
                                on_answer, query, NULL);
    query->busy = status == SEMEL_OK;
}

/* The answer, if it has come: true; *out is NULL if there was none. */
static bool take(struct query *query, json_t **out, char *why, size_t size)
{
    struct top *top = query->top;
    bool done;

    pthread_mutex_lock(&top->lock);
    done = query->done;
    if (done) {
        *out = query->answer;
        query->answer = NULL;
        query->done = false;
        query->busy = false;
        snprintf(why, size, "%s", query->why);
    }
    pthread_mutex_unlock(&top->lock);
    return done;
}

/* --- one sample ------------------------------------------------------------------------------ */

static int print_sample(const struct arguments *a, const struct top_view *view)
{
    json_t *methods = json_array();
    json_t *sample;

    for (size_t i = 0; i < view->count; i++) {
        const struct top_method *m = &view->methods[i];

        json_array_append_new(
            methods, json_pack("{s:s, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name", m->name,
                               "rate", m->rate, "running", (json_int_t)m->running, "waiting",
                               (json_int_t)m->waiting, "p50_ns", (json_int_t)m->p50_ns, "p99_ns",
                               (json_int_t)m->p99_ns, "calls", (json_int_t)m->ended, "failures",
                               (json_int_t)m->failures, "unknown", (json_int_t)m->unknown));
    }
    sample = json_pack(
        "{s:s, s:O, s:f, s:f, s:I, s:I, s:I, s:I, s:o, s:O, s:O}", "address", a->call.address,
        "server", top_server(view), "span_s", view->span, "rate", view->all.rate, "p50_ns",
        (json_int_t)view->all.p50_ns, "p99_ns", (json_int_t)view->all.p99_ns, "running",
        (json_int_t)top_counter(view, "calls_running"), "waiting",
        (json_int_t)top_counter(view, "calls_waiting"), "methods", methods, "workers",
        json_object_get(view->now, "workers"), "counters", json_object_get(view->now, "counters"));
    if (sample && json_object_get(view->now, "processes"))
        (void)json_object_set(sample, "processes", json_object_get(view->now, "processes"));
    if (!sample) {
        output_error("%s: what it says of itself cannot be understood", a->call.address);
        return TOOL_PROTOCOL;
    }
    print_object(sample);
    json_decref(sample);
    return print_end();
}

static enum semel_outcome ask_and_wait(struct semel_client *client, const struct arguments *a,
                                       json_t **out, struct semel_result *result)
{
    struct semel_call_options call = a->call.options;

    call.rerun_ok = true;
    (void)semel_client_call(client, "semel.counters", semel_bytes_text(""), &call, result);
    if (result->outcome == SEMEL_VALUE)
        *out = inspect_parse(result->body);
    return result->outcome;
}

static int sample_from(struct semel_client *client, const struct arguments *a)
{
    struct semel_result result = { 0 };
    json_t *answers[2] = { NULL, NULL };
    struct top_view view = { .methods = NULL };
    int code = TOOL_VALUE;
    char why[1024];

    for (int i = 0; i < 2 && code == TOOL_VALUE; i++) {
        struct timespec span = { a->interval_ms / 1000, a->interval_ms % 1000 * 1000000 };

        if (i > 0)
            (void)nanosleep(&span, NULL);
        if (ask_and_wait(client, a, &answers[i], &result) != SEMEL_VALUE) {
            code = inspect_failure(&result, why, sizeof why);
            output_error("%s", why);
        } else if (!answers[i]) {
            code = TOOL_PROTOCOL;
            output_error("%s: the answer is no JSON object", a->call.address);
        }
        semel_result_clear(&result);
    }
    if (code == TOOL_VALUE && !top_view_make(&view, answers[0], answers[1])) {
        output_error("out of memory");
        code = TOOL_FAILURE;
    }
    if (code == TOOL_VALUE) {
        top_view_sort(&view, TOP_BY_RATE);
        code = print_sample(a, &view);
    }
    top_view_free(&view);
    json_decref(answers[0]);
    json_decref(answers[1]);
    return code;
}

/* --- the loop -------------------------------------------------------------------------------- */

static void say(struct top *top, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct top *top, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(top->message, sizeof top->message, format, args);
    va_end(args);
    top->message_until = clock_now() + MESSAGE_NS;
}

static void take_counters(struct top *top)
{
    struct top_view view;
    json_t *answer;
    char why[512];

    if (!take(&top->counters, &answer, why, sizeof why) || !answer)
        return; /* what is wrong shows by its age */
    json_decref(top->earlier);
    top->earlier = top->now;
    top->now = answer;
    top->now_at = clock_now();
    if (top_view_make(&view, top->earlier, top->now)) {
        if (view.restarted)
            say(top, "the server was restarted: pid %" PRIu64,
                member_count(top_server(&view), "pid"));
        top_view_free(&view);
    }
}

static void take_answers(struct top *top)
{
    json_t *answer;
    char why[512];
    uint64_t rung;

    (void)!read(top->bell, &rung, sizeof rung);
    take_counters(top);
    if (take(&top->calls, &answer, why, sizeof why)) {
        if (answer) {
            json_decref(top->listed);
            top->listed = answer;
        } else if (screen_page() == TOP_CALLS) {
            say(top, "calls: %s", why);
        }
    }
    if (take(&top->cancel, &answer, why, sizeof why)) {
        bool refused = json_is_false(json_object_get(answer, "forced"));

        say(top, "%s: %s%s%s", top->target, answer ? member_text(answer, "became") : why,
            refused ? "; cannot be forced: " : "", refused ? member_text(answer, "why") : "");
        json_decref(answer);
    }
}

/* Why what is shown is old; "" if it is not. */
static void trouble_of(struct top *top, char *text, size_t size)
{
    int64_t age = clock_now() - (top->now ? top->now_at : top->asked_at);
    int64_t late = (top->arguments->interval_ms * 2 + 500) * 1000000;
    char link[512], span[32];

    pthread_mutex_lock(&top->lock);
    snprintf(link, sizeof link, "%s", top->link);
    pthread_mutex_unlock(&top->lock);
    text[0] = '\0';
    duration_format(age / 1000000000 * 1000000000, span, sizeof span);
    if (*link)
        snprintf(text, size, "no connection for %s, trying again: %s", span, link);
    else if (age > late)
        snprintf(text, size, "no answer for %s", span);
}

static void draw(struct top *top)
{
    struct top_picture picture = { .address = top->arguments->call.address,
                                   .calls = top->listed,
                                   .message = top->message,
                                   .asking = top->asking };
    struct top_view view;
    bool viewed = top->now && top_view_make(&view, top->earlier, top->now);
    char trouble[640];

    if (!top->asking && top->message_until < clock_now())
        top->message[0] = '\0';
    trouble_of(top, trouble, sizeof trouble);
    picture.trouble = trouble;
    if (viewed) {
        top_view_sort(&view, screen_order());
        picture.view = &view;
    }
    screen_draw(&picture);
    if (viewed)
        top_view_free(&view);
}

static void ask_to_cancel(struct top *top)
{
    const char *method, *id = screen_choice(&method);

    if (!*id) {
        say(top, "choose a call first: 2, then up and down");
        return;
    }
    if (top->cancel.busy) {
        say(top, "%s is being cancelled", top->target);
        return;
    }
    snprintf(top->target, sizeof top->target, "%s", id);
    say(top, "cancel %s of %s?  y: ask it to stop  f: by force  other keys: no", id, method);
    top->asking = true;
}

static void answer_question(struct top *top, enum top_key key)
{
    char body[96];

    top->asking = false;
    top->message[0] = '\0';
    if (key == TOP_NO)
        return;
    snprintf(body, sizeof body, "%s%s", top->target, key == TOP_FORCE ? " force" : "");
    ask(&top->cancel, body, false);
    say(top, "cancelling %s", top->target);
}

/* False: to quit. */
static bool take_keys(struct top *top)
{
    for (;;) {
        enum top_key key = screen_key(top->asking);

        if (key == TOP_NOTHING)
            return true;
        if (key == TOP_QUIT)
            return false;
        if (key == TOP_ASK_CANCEL)
            ask_to_cancel(top);
        else if (key == TOP_REDRAW)
            draw(top); /* the next key may be about what was chosen by this one */
        else
            answer_question(top, key);
        if (screen_page() == TOP_CALLS)
            ask(&top->calls, "", true);
    }
}

static int signal_of(struct top *top)
{
    struct signalfd_siginfo info;

    return read(top->signals, &info, sizeof info) == (ssize_t)sizeof info ? (int)info.ssi_signo : 0;
}

static enum semel_status failure_of(struct top *top)
{
    enum semel_status failed;

    pthread_mutex_lock(&top->lock);
    failed = top->failed;
    pthread_mutex_unlock(&top->lock);
    return failed;
}

/* Until it is told to quit. Returns an exit code. */
static int watch(struct top *top)
{
    struct pollfd fds[] = { { STDIN_FILENO, POLLIN, 0 },
                            { top->bell, POLLIN, 0 },
                            { top->signals, POLLIN, 0 } };
    int64_t next = clock_now(), interval = top->arguments->interval_ms * 1000000;

    top->asked_at = next;
    for (;;) {
        int64_t now = clock_now();
        int number;

        if (now >= next) {
            next = now + interval;
            ask(&top->counters, "", true);
            if (screen_page() == TOP_CALLS)
                ask(&top->calls, "", true);
        }
        draw(top);
        (void)poll(fds, sizeof fds / sizeof fds[0], (int)((next - now) / 1000000) + 1);
        number = signal_of(top);
        if (number > 0)
            return 128 + number;
        if (fds[0].revents & (POLLHUP | POLLERR | POLLNVAL) || !take_keys(top))
            return TOOL_VALUE;
        take_answers(top);
        if (failure_of(top) != SEMEL_OK)
            return tool_exit_of_status(failure_of(top));
    }
}

static void query_init(struct query *query, struct top *top, const char *method)
{
    query->top = top;
    query->method = method;
}

static void release(struct top *top)
{
    json_decref(top->earlier);
    json_decref(top->now);
    json_decref(top->listed);
    json_decref(top->counters.answer);
    json_decref(top->calls.answer);
    json_decref(top->cancel.answer);
}

/* --- the command ----------------------------------------------------------------------------- */

static void on_log(enum semel_log_level level, const char *text, void *user)
{
    (void)level;
    (void)text;
    (void)user; /* the screen says what matters */
}

/* Returns an exit code. */
static int connect_client(struct top *top, const struct arguments *a, bool screen)
{
    struct semel_client_options client_options = SEMEL_CLIENT_OPTIONS_INIT;
    const struct one_call *call = &a->call;
    int64_t wait_ms = call->connect_timeout_ms ? call->connect_timeout_ms : CONNECT_TIMEOUT_MS;
    enum semel_status status;
    char text[1024] = "";

    client_options.log = screen ? on_log : output_log;
    client_options.backoff_max_ms = BACKOFF_MS;
    client_options.on_state = on_state;
    client_options.state_user = top;
    status = tool_connect(&top->client, call->address, &client_options, wait_ms,
                          call->connect_timeout_ms > 0, text, sizeof text);
    return status == SEMEL_OK ? TOOL_VALUE : tool_not_sent(call->address, status, text);
}

static int with_screen(struct top *top)
{
    char why[300];
    int code;

    if (!screen_open(why, sizeof why)) {
        output_error("%s", why);
        return TOOL_USAGE;
    }
    code = watch(top);
    screen_close();
    if (failure_of(top) != SEMEL_OK)
        output_error("%s: %s: %s", top->arguments->call.address, semel_status_text(failure_of(top)),
                     top->link);
    return code;
}

/* Ctrl-C ends a sample at once: it has done nothing that could be lost. */
static void on_signal(int number, unsigned count, void *user)
{
    (void)count;
    (void)user;
    _exit(128 + number);
}

static bool open_bells(struct top *top, bool screen)
{
    top->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    top->signals = screen ? signals_open() : -1;
    if (top->bell >= 0 && (screen ? top->signals >= 0 : signals_watch(on_signal, NULL)))
        return true;
    output_error("cannot wait for signals: %s", strerror(errno));
    return false;
}

int tool_top(int argc, char **argv)
{
    static const struct argp argp = { options, parse, "ADDRESS", doc, NULL, NULL, NULL };
    static struct arguments a = { .interval_ms = INTERVAL_MS };
    static struct top top = { .lock = PTHREAD_MUTEX_INITIALIZER };
    bool screen;
    int code;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    screen = !output_json();
    top.arguments = &a;
    query_init(&top.counters, &top, "semel.counters");
    query_init(&top.calls, &top, "semel.calls");
    query_init(&top.cancel, &top, "semel.cancel");
    if (screen && (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))) {
        output_error("there is no terminal here; -o json prints one sample");
        return TOOL_USAGE;
    }
    signals_block();
    if (!open_bells(&top, screen))
        return TOOL_FAILURE;
    code = connect_client(&top, &a, screen);
    if (code == TOOL_VALUE)
        code = screen ? with_screen(&top) : sample_from(top.client, &a);
    if (semel_client_destroy(top.client) != SEMEL_OK)
        output_error("the client could not be destroyed");
    release(&top);
    close(top.bell);
    close(top.signals);
    return code;
}
