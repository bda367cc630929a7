/* SPDX-License-Identifier: MIT */
/* bench.c - semel bench: many calls on one client, counted, timed and checked.
 *
 * Two ways to load a client: -t N threads that block in one call each, or -w N calls in flight
 * that start their successor from their completion. Both are "lanes" here: a lane has one call
 * under way at a time, a body of its own and its own figures, written by whoever completes its
 * call: its thread, or the client's I/O thread. Figures are merged when all lanes have ended.
 * The counts that the progress line reads meanwhile are atomics with one writer.
 *
 * A lane ends when the time is up, the calls are used up, or no call can be started any more. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "chance.h"
#include "clock.h"
#include "duration.h"
#include "histogram.h"
#include "json.h"
#include "numbers.h"
#include "output.h"
#include "signals.h"
#include "tool.h"

#define LANES_MAX 65536
#define PROGRESS_NS INT64_C(200000000)
#define RETRY_PAUSE_NS 1000000 /* after a call that was not executed, so that nothing spins */

struct arguments {
    const char *address, *method, *body;
    uint64_t threads, window, size_min, size_max, calls;
    int64_t duration_ns, timeout_ms, connect_timeout_ms;
    bool sized, refuse_when_full, rerun_ok;
};

struct bench;

struct lane {
    struct bench *bench;
    pthread_t thread;
    bool has_thread;
    uint64_t number, sequence;
    struct chance chance;
    int64_t begin_ns; /* of the call under way */
    char *body;
    size_t size; /* of the call under way */
    atomic_uint_fast64_t done;
    uint64_t outcomes[4], mismatches;
    struct histogram *times; /* own with -t, shared with -w: there one thread writes */
};

struct bench {
    struct arguments a;
    struct semel_client *client;
    struct semel_call_options call_options;
    bool check_echo;
    atomic_bool begun; /* calls may be outstanding */
    atomic_bool stop;
    atomic_uint_fast64_t tickets; /* calls begun, when their number is limited */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    uint64_t lanes_left;    /* lock */
    char first_error[1024]; /* lock */
    struct lane *lanes;
    uint64_t lane_count;
};

enum { KEY_TIMEOUT = 256, KEY_CONNECT, KEY_BODY, KEY_REFUSE, KEY_RERUN };

static const struct argp_option options[] = {
    { "threads", 't', "N", 0, "N threads, each with one call at a time", 0 },
    { "window", 'w', "N", 0, "N asynchronous calls in flight instead", 0 },
    { "size", 'z', "SIZE", 0, "Bodies of SIZE bytes, or of random sizes: 0..4KiB (default 64)", 0 },
    { "body", KEY_BODY, "DATA", 0, "This body instead", 0 },
    { "duration", 'd', "DURATION", 0, "How long (default 5s)", 0 },
    { "calls", 'n', "N", 0, "End after N calls; without -d, however long they take", 0 },
    { "timeout", KEY_TIMEOUT, "DURATION", 0, "Each call's deadline (default 30s)", 0 },
    { "connect-timeout", KEY_CONNECT, "DURATION", 0,
      "Wait this long for a server to be there (default: not at all for one that is not, 3s "
      "for one that does not answer)",
      0 },
    { "refuse-when-full", KEY_REFUSE, NULL, 0,
      "Calls that find the server overloaded end as errors instead of waiting", 0 },
    { "rerun-ok", KEY_RERUN, NULL, 0, "Calls may run again (the method must be idempotent)", 0 },
    OUTPUT_OPTIONS,
    { NULL, 0, NULL, 0, NULL, 0 },
};

static const char doc[] =
    "Call METHOD again and again over one connection, in parallel, and report how many calls per "
    "second that makes and how long they took. Replies of a method named echo are compared with "
    "what was sent."
    "\v"
    "Examples:\n"
    "  semel bench unix:/run/x echo -t 64\n"
    "  semel bench unix:/run/x echo -w 256 -z 64 -d 10s -o json\n"
    "  semel bench unix:/run/x sleep --body 1ms -t 64\n"
    "  semel bench unix:/run/cut echo -t 16 -z 0..4KiB -n 100000\n\n"
    "JSON has calls, calls_per_s, p50_us, p99_us, p999_us, errors (calls that did not end in a "
    "value), mismatches, reconnects, cpu_us_per_call (of this process) and more. The exit code is "
    "0 when every call ended in a value and none mismatched, else 5 if an outcome is unknown, "
    "else 1; 3 if there was no connection.";

static uint64_t count_argument(struct argp_state *state, const char *option, const char *arg,
                               uint64_t max)
{
    uint64_t count = 0;
    char why[200];

    if (!count_parse(arg, 1, max, &count, why, sizeof why))
        argp_error(state, "%s: %s", option, why);
    return count;
}

static int64_t ms_argument(struct argp_state *state, const char *option, const char *arg)
{
    int64_t ms = 0;
    char why[200];

    if (!duration_parse_ms(arg, &ms, why, sizeof why))
        argp_error(state, "%s: %s", option, why);
    return ms;
}

static void finish_arguments(struct arguments *a, struct argp_state *state)
{
    if (state->arg_num != 2)
        argp_error(state, "an address and a method are needed");
    if (a->threads && a->window)
        argp_error(state, "-t and -w exclude each other");
    if (a->sized && a->body)
        argp_error(state, "-z and --body exclude each other");
    if (!a->threads && !a->window)
        a->threads = 1;
    if (!a->sized)
        a->size_min = a->size_max = 64;
    if (a->body)
        a->size_min = a->size_max = strlen(a->body);
    if (!a->duration_ns)
        a->duration_ns = a->calls ? INT64_MAX : INT64_C(5000000000);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    char why[200];

    switch (key) {
    case 't':
        a->threads = count_argument(state, "-t", arg, 4096);
        return 0;
    case 'w':
        a->window = count_argument(state, "-w", arg, LANES_MAX);
        return 0;
    case 'n':
        a->calls = count_argument(state, "-n", arg, UINT64_MAX / 2);
        return 0;
    case 'z':
        a->sized = true;
        if (!size_range_parse(arg, SEMEL_BODY_BYTES_MAX, &a->size_min, &a->size_max, why,
                              sizeof why))
            argp_error(state, "-z: %s", why);
        return 0;
    case 'd':
        if (!duration_parse(arg, &a->duration_ns, why, sizeof why))
            argp_error(state, "-d: %s", why);
        if (a->duration_ns == 0)
            argp_error(state, "-d: it must be more than nothing");
        return 0;
    case KEY_BODY:
        a->body = arg;
        return 0;
    case KEY_TIMEOUT:
        a->timeout_ms = ms_argument(state, "--timeout", arg);
        return 0;
    case KEY_CONNECT:
        a->connect_timeout_ms = ms_argument(state, "--connect-timeout", arg);
        return 0;
    case KEY_REFUSE:
        a->refuse_when_full = true;
        return 0;
    case KEY_RERUN:
        a->rerun_ok = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 1)
            argp_error(state, "too many arguments; a body goes into --body");
        *(state->arg_num == 0 ? &a->address : &a->method) = arg;
        return 0;
    case ARGP_KEY_END:
        finish_arguments(a, state);
        return 0;
    default:
        return output_option(key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

/* Make the lane's next body. False: no more calls. */
static bool lane_next(struct lane *lane)
{
    struct bench *bench = lane->bench;
    uint64_t span = bench->a.size_max - bench->a.size_min, stamp;

    if (atomic_load_explicit(&bench->stop, memory_order_relaxed))
        return false;
    if (bench->a.calls && atomic_fetch_add(&bench->tickets, 1) >= bench->a.calls)
        return false;
    lane->size = bench->a.size_min;
    if (span)
        lane->size += chance_below(&lane->chance, span + 1);
    if (!bench->a.body) {
        stamp = lane->number << 40 | (++lane->sequence & ((UINT64_C(1) << 40) - 1));
        memcpy(lane->body, &stamp, lane->size < sizeof stamp ? lane->size : sizeof stamp);
    }
    lane->begin_ns = clock_now();
    return true;
}

/* Count one outcome. True: a pause is in order before the next call. */
static bool lane_count(struct lane *lane, const struct semel_result *result)
{
    struct bench *bench = lane->bench;
    char text[1024];

    lane->outcomes[result->outcome]++;
    atomic_store_explicit(&lane->done, atomic_load_explicit(&lane->done, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    if (result->outcome == SEMEL_VALUE) {
        if (bench->check_echo &&
            (result->body.size != lane->size ||
             (lane->size && memcmp(result->body.data, lane->body, lane->size) != 0)))
            lane->mismatches++;
        return false;
    }
    semel_result_message(result, text, sizeof text);
    pthread_mutex_lock(&bench->lock);
    if (!bench->first_error[0])
        strcpy(bench->first_error, text);
    pthread_mutex_unlock(&bench->lock);
    return result->outcome != SEMEL_FAILURE;
}

static void lane_end(struct lane *lane)
{
    struct bench *bench = lane->bench;

    pthread_mutex_lock(&bench->lock);
    if (--bench->lanes_left == 0)
        pthread_cond_signal(&bench->ended);
    pthread_mutex_unlock(&bench->lock);
}

static bool client_usable(struct bench *bench)
{
    enum semel_client_state state = semel_client_state(bench->client);

    return state != SEMEL_CLIENT_FAILED && state != SEMEL_CLIENT_STOPPED;
}

static void *lane_run(void *user)
{
    struct lane *lane = user;
    struct bench *bench = lane->bench;
    const struct timespec pause = { 0, RETRY_PAUSE_NS };

    while (lane_next(lane)) {
        struct semel_result result;
        bool rest;

        semel_client_call(bench->client, bench->a.method, semel_bytes(lane->body, lane->size),
                          &bench->call_options, &result);
        histogram_record(lane->times, clock_now() - lane->begin_ns);
        rest = lane_count(lane, &result);
        semel_result_clear(&result);
        if (rest && !client_usable(bench))
            break;
        if (rest)
            nanosleep(&pause, NULL);
    }
    lane_end(lane);
    return NULL;
}

static void lane_start(struct lane *lane);

static void on_done(struct semel_result *result, void *user)
{
    struct lane *lane = user;

    histogram_record(lane->times, clock_now() - lane->begin_ns);
    lane_count(lane, result);
    lane_start(lane);
}

/* Start the lane's next call, or end the lane. */
static void lane_start(struct lane *lane)
{
    struct bench *bench = lane->bench;
    enum semel_status status;

    if (!lane_next(lane)) {
        lane_end(lane);
        return;
    }
    status = semel_client_start(bench->client, bench->a.method, semel_bytes(lane->body, lane->size),
                                &bench->call_options, on_done, lane, NULL);
    if (status != SEMEL_OK) {
        struct semel_result result = { .outcome = SEMEL_NOT_EXECUTED,
                                       .status = status,
                                       .method = bench->a.method,
                                       .peer = bench->a.address };

        lane_count(lane, &result);
        lane_end(lane);
    }
}

/* Make the lanes. False: no memory. */
static bool lanes_make(struct bench *bench)
{
    uint64_t count = bench->a.threads ? bench->a.threads : bench->a.window;

    bench->lanes = calloc(count, sizeof *bench->lanes);
    if (!bench->lanes)
        return false;
    bench->lane_count = bench->lanes_left = count;
    for (uint64_t i = 0; i < count; i++) {
        struct lane *lane = &bench->lanes[i];

        lane->bench = bench;
        lane->number = i;
        chance_seed(&lane->chance, i);
        lane->body = calloc(1, bench->a.size_max + 8);
        lane->times =
            bench->a.threads || i == 0 ? calloc(1, sizeof *lane->times) : bench->lanes[0].times;
        if (!lane->body || !lane->times)
            return false;
        for (uint64_t at = 0; at < bench->a.size_max; at++)
            lane->body[at] = bench->a.body ? bench->a.body[at] : (char)(at * 7 + at / 251);
    }
    return true;
}

static void lanes_free(struct bench *bench)
{
    for (uint64_t i = 0; i < bench->lane_count; i++) {
        free(bench->lanes[i].body);
        if (bench->a.threads || i == 0)
            free(bench->lanes[i].times);
    }
    free(bench->lanes);
}

static void lanes_begin(struct bench *bench)
{
    for (uint64_t i = 0; i < bench->lane_count; i++) {
        struct lane *lane = &bench->lanes[i];
        int error;

        if (bench->a.window) {
            lane_start(lane);
            continue;
        }
        error = pthread_create(&lane->thread, NULL, lane_run, lane);
        lane->has_thread = error == 0;
        if (error) {
            output_error("cannot start thread %" PRIu64 ": %s", i + 1, strerror(error));
            lane_end(lane);
        }
    }
}

static void show_progress(const struct bench *bench, int64_t elapsed_ns)
{
    struct semel_client_counters counters;
    uint64_t done = 0;
    char text[32];

    if (!output_live())
        return;
    for (uint64_t i = 0; i < bench->lane_count; i++)
        done += atomic_load_explicit(&bench->lanes[i].done, memory_order_relaxed);
    semel_client_counters(bench->client, &counters);
    output_progress("%s  calls %" PRIu64 "  %.0f calls/s  reconnects %" PRIu64,
                    duration_format(elapsed_ns, text, sizeof text), done,
                    (double)done * 1e9 / (double)elapsed_ns, counters.reconnects);
}

/* Wait until the lanes have ended, telling them to when the time is up. Returns the time taken. */
static int64_t lanes_wait(struct bench *bench, int64_t begin_ns)
{
    pthread_mutex_lock(&bench->lock);
    while (bench->lanes_left) {
        int64_t now = clock_now(), wake = now + PROGRESS_NS;
        struct timespec until;

        if (now - begin_ns >= bench->a.duration_ns)
            atomic_store(&bench->stop, true);
        else if (bench->a.duration_ns - (now - begin_ns) < PROGRESS_NS)
            wake = begin_ns + bench->a.duration_ns;
        until = (struct timespec){ wake / 1000000000, wake % 1000000000 };
        pthread_cond_timedwait(&bench->ended, &bench->lock, &until);
        pthread_mutex_unlock(&bench->lock);
        show_progress(bench, clock_now() - begin_ns + 1);
        pthread_mutex_lock(&bench->lock);
    }
    pthread_mutex_unlock(&bench->lock);
    for (uint64_t i = 0; i < bench->lane_count; i++) {
        if (bench->lanes[i].has_thread)
            pthread_join(bench->lanes[i].thread, NULL);
    }
    output_progress(NULL);
    return clock_now() - begin_ns;
}

struct figures {
    struct histogram times;
    uint64_t calls, outcomes[4], mismatches, errors;
    double seconds, cpu_us_per_call;
    struct semel_client_counters counters;
};

static double cpu_us(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void print_json(const struct figures *f)
{
    struct jsonl json;

    jsonl_begin(&json, stdout);
    jsonl_count(&json, "calls", f->calls);
    jsonl_real(&json, "calls_per_s", (double)f->calls / f->seconds, 1);
    jsonl_real(&json, "p50_us", histogram_at(&f->times, 0.5) / 1e3, 2);
    jsonl_real(&json, "p99_us", histogram_at(&f->times, 0.99) / 1e3, 2);
    jsonl_real(&json, "p999_us", histogram_at(&f->times, 0.999) / 1e3, 2);
    jsonl_count(&json, "errors", f->errors);
    jsonl_count(&json, "mismatches", f->mismatches);
    jsonl_count(&json, "reconnects", f->counters.reconnects);
    jsonl_real(&json, "cpu_us_per_call", f->cpu_us_per_call, 2);
    jsonl_real(&json, "max_us", (double)f->times.max / 1e3, 2);
    jsonl_real(&json, "seconds", f->seconds, 3);
    jsonl_count(&json, "failures", f->outcomes[SEMEL_FAILURE]);
    jsonl_count(&json, "not_executed", f->outcomes[SEMEL_NOT_EXECUTED]);
    jsonl_count(&json, "unknown", f->outcomes[SEMEL_UNKNOWN]);
    jsonl_count(&json, "links_lost", f->counters.links_lost);
    jsonl_count(&json, "links_lost_mid_frame", f->counters.links_lost_mid_frame);
    jsonl_count(&json, "calls_resent", f->counters.calls_resent);
    jsonl_count(&json, "calls_reattached", f->counters.calls_reattached);
    jsonl_count(&json, "replies_replayed", f->counters.replies_replayed);
    jsonl_end(&json);
}

static void print_text(const struct figures *f)
{
    char p50[32], p99[32], p999[32], max[32];

    printf("%" PRIu64 " call%s in %.2f s: %.0f calls/s\n", f->calls, f->calls == 1 ? "" : "s",
           f->seconds, (double)f->calls / f->seconds);
    printf("time per call: p50 %s, p99 %s, p99.9 %s, max %s\n",
           duration_format((int64_t)histogram_at(&f->times, 0.5), p50, sizeof p50),
           duration_format((int64_t)histogram_at(&f->times, 0.99), p99, sizeof p99),
           duration_format((int64_t)histogram_at(&f->times, 0.999), p999, sizeof p999),
           duration_format(f->times.max, max, sizeof max));
    printf("errors %" PRIu64 " (failures %" PRIu64 ", not executed %" PRIu64 ", unknown %" PRIu64
           "), mismatches %" PRIu64 "\n",
           f->errors, f->outcomes[SEMEL_FAILURE], f->outcomes[SEMEL_NOT_EXECUTED],
           f->outcomes[SEMEL_UNKNOWN], f->mismatches);
    printf("reconnects %" PRIu64 ", CPU here %.2f us per call\n", f->counters.reconnects,
           f->cpu_us_per_call);
}

/* Merge, print, and choose the exit code. */
static int report(struct bench *bench, int64_t elapsed_ns, double cpu_spent_us)
{
    static struct figures f;

    for (uint64_t i = 0; i < bench->lane_count; i++) {
        struct lane *lane = &bench->lanes[i];

        if (bench->a.threads || i == 0)
            histogram_add(&f.times, lane->times);
        f.mismatches += lane->mismatches;
        for (int k = 0; k < 4; k++) {
            f.outcomes[k] += lane->outcomes[k];
            f.calls += lane->outcomes[k];
        }
    }
    f.errors = f.calls - f.outcomes[SEMEL_VALUE];
    f.seconds = (double)elapsed_ns / 1e9;
    f.cpu_us_per_call = f.calls ? cpu_spent_us / (double)f.calls : 0;
    semel_client_counters(bench->client, &f.counters);
    if (output_json())
        print_json(&f);
    else
        print_text(&f);
    if (f.errors)
        output_error("the first of %" PRIu64 " errors: %s", f.errors, bench->first_error);
    if (f.mismatches)
        output_error("%" PRIu64 " replies did not match what was sent", f.mismatches);
    if (f.outcomes[SEMEL_UNKNOWN])
        return TOOL_UNKNOWN;
    return f.errors || f.mismatches || f.calls == 0 ? TOOL_FAILURE : TOOL_VALUE;
}

static void on_signal(int number, unsigned count, void *user)
{
    struct bench *bench = user;

    if (!atomic_load(&bench->begun))
        _exit(128 + number);
    if (count > 1)
        _exit(TOOL_UNKNOWN);
    atomic_store(&bench->stop, true);
}

static int measure(struct bench *bench)
{
    int64_t begin_ns, elapsed_ns;
    double cpu_begin_us;
    int code;

    if (!lanes_make(bench)) {
        output_error("out of memory");
        code = TOOL_NOT_EXECUTED;
    } else {
        cpu_begin_us = cpu_us();
        begin_ns = clock_now();
        atomic_store(&bench->begun, true);
        output_detail("calling %s", bench->a.method);
        lanes_begin(bench);
        elapsed_ns = lanes_wait(bench, begin_ns);
        code = report(bench, elapsed_ns, cpu_us() - cpu_begin_us);
    }
    return code;
}

static int connect_and_measure(struct bench *bench)
{
    struct semel_client_options client_options = SEMEL_CLIENT_OPTIONS_INIT;
    enum semel_status status;
    char text[1024] = "";
    int code;

    client_options.log = output_log_errors; /* losses are counted, not told one by one */
    if (bench->a.size_max > SEMEL_BODY_BYTES)
        client_options.body_bytes = bench->a.size_max;
    if (bench->a.window > SEMEL_WINDOW_CALLS)
        client_options.window_calls = (uint32_t)bench->a.window;
    status =
        tool_connect(&bench->client, bench->a.address, &client_options,
                     bench->a.connect_timeout_ms ? bench->a.connect_timeout_ms : CONNECT_TIMEOUT_MS,
                     bench->a.connect_timeout_ms > 0, text, sizeof text);
    if (status != SEMEL_OK) {
        output_error("%s: %s%s%s", bench->a.address, semel_status_text(status), *text ? ": " : "",
                     text);
        code = tool_exit_of_status(status);
    } else {
        code = measure(bench);
    }
    if (semel_client_destroy(bench->client) != SEMEL_OK)
        output_error("the client could not be destroyed");
    lanes_free(bench);
    return code;
}

int tool_bench(int argc, char **argv)
{
    static const struct argp argp = { options, parse, "ADDRESS METHOD", doc, NULL, NULL, NULL };
    static struct bench bench = { .lock = PTHREAD_MUTEX_INITIALIZER, .a = { 0 } };
    pthread_condattr_t monotonic;

    argp_parse(&argp, argc, argv, 0, NULL, &bench.a);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&bench.ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
    bench.check_echo = strcmp(bench.a.method, "echo") == 0;
    bench.call_options.deadline_ms = bench.a.timeout_ms;
    bench.call_options.refuse_when_full = bench.a.refuse_when_full;
    bench.call_options.rerun_ok = bench.a.rerun_ok;
    signals_block();
    if (!signals_watch(on_signal, &bench)) {
        output_error("cannot start a thread: %s", strerror(errno));
        return TOOL_NOT_EXECUTED;
    }
    return connect_and_measure(&bench);
}
