/* SPDX-License-Identifier: MIT */
/* lock.c - semel lock: run a command while a server's lock is held.
 *
 * One thread and one loop: calls are deferreds, signals and the command's end are descriptors. The
 * lock is asked for, confirmed once, and then the command runs, while lock.keep is called again and
 * again. Each keep that is answered lets the lock be held until a lease after it was sent: by this
 * process's clock never longer than by the server's. When that time comes without an answer, or the
 * server says so, the lock is lost, and the command is told by SIGTERM, then SIGKILL.
 *
 * Signals before there is a connection end this process at once; before the command runs, they end
 * the waiting; then they are the command's.
 *
 * On a terminal the command stays in this process's group, since another group is stopped when it
 * reads from there, also if standard input is a pipe and it asks for a password. What is typed then
 * reaches both, and is not handed on. Elsewhere the command has a group of its own, so that what it
 * has started can be signalled with it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "duration.h"
#include "locks.h"
#include "output.h"
#include "signals.h"
#include "tool.h"

#define KILL_AFTER_MS 5000
#define RELEASE_MS 3000
#define CANNOT_RUN 126
#define NOT_FOUND 127

struct arguments {
    char *address, *name, **command;
    int64_t timeout_ms, connect_timeout_ms, kill_after_ms;
    bool keep_running;
};

struct holder {
    const struct arguments *arguments;
    struct semel_client *client;
    struct semel_loop *loop;
    struct semel_deferred *taking;         /* until the lock is granted */
    char token[32 + LOCK_NAME_BYTES];      /* "FENCE NAME" */
    int64_t lease_ms, kept_at, safe_until; /* when the last keep was sent; ns */
    struct semel_timer *lease_timer, *kill_timer;
    bool granted, lost, interrupted;
    pid_t pid; /* of the command; 0: it has not begun, or was waited for */
    bool own_group;
    int signal_end, child_end; /* signals to this process; SIGCHLD */
    int code;
};

enum { KEY_TIMEOUT = 256, KEY_CONNECT, KEY_KEEP_RUNNING, KEY_KILL_AFTER };

static const struct argp_option options[] = {
    { "timeout", KEY_TIMEOUT, "DURATION", 0,
      "Wait in line this long (default: until it is this one's turn)", 0 },
    { "connect-timeout", KEY_CONNECT, "DURATION", 0,
      "Wait this long for a server to be there (default: not at all for one that is not)", 0 },
    { "keep-running", KEY_KEEP_RUNNING, NULL, 0,
      "Let CMD go on when the lock is lost: whatever it writes to checks the number", 0 },
    { "kill-after", KEY_KILL_AFTER, "DURATION", 0,
      "From the SIGTERM of a command whose lock is lost to its SIGKILL (default 5s)", 0 },
    OUTPUT_OPTIONS,
    { NULL, 0, NULL, 0, NULL, 0 },
};

static const char doc[] =
    "Wait in line for the lock NAME of the server at ADDRESS, run CMD while it is held, and "
    "release it when CMD has ended. CMD finds a number in SEMEL_LOCK_FENCE that is higher than "
    "those of all holders before it."
    "\v"
    "Examples:\n"
    "  semel lock unix:/run/x nightly -- ./backup.sh\n"
    "  semel lock tcp:locks.example:7000 deploy --timeout 10m -- make deploy\n\n"
    "A lock over a network is a hint: a holder that was stopped for a while does not know that the "
    "lock is another's by now. Whatever CMD writes to must refuse a number lower than one it has "
    "seen. A holder that is not heard of for the server's lease (10s) loses the lock; CMD is "
    "killed then.\n\n"
    "Exit codes: CMD's own, 128 more than the signal it died of, 126 it cannot be run, 127 there "
    "is none; and, when it never ran, 4 not in time, others as semel call.";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    int64_t *duration = key == KEY_TIMEOUT      ? &a->timeout_ms
                        : key == KEY_CONNECT    ? &a->connect_timeout_ms
                        : key == KEY_KILL_AFTER ? &a->kill_after_ms
                                                : NULL;
    char why[200];

    if (duration) {
        if (!duration_parse_ms(arg, duration, why, sizeof why))
            argp_error(state, "--%s: %s",
                       key == KEY_TIMEOUT   ? "timeout"
                       : key == KEY_CONNECT ? "connect-timeout"
                                            : "kill-after",
                       why);
        return 0;
    }
    switch (key) {
    case KEY_KEEP_RUNNING:
        a->keep_running = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 2) { /* the rest is the command's */
            a->command = state->argv + state->next - 1;
            state->next = state->argc;
            return 0;
        }
        *(state->arg_num == 0 ? &a->address : &a->name) = arg;
        return 0;
    case ARGP_KEY_END:
        if (!a->command)
            argp_error(state, "an address, a lock's name and a command are needed");
        if (!*a->name || strlen(a->name) > LOCK_NAME_BYTES)
            argp_error(state, "a lock's name has 1 to %d bytes", LOCK_NAME_BYTES);
        return 0;
    default:
        return output_option(key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

/* What cannot go wrong but for memory: there is nothing left to do then. */
static void need(enum semel_status status, const char *what)
{
    if (status == SEMEL_OK)
        return;
    output_error("%s: %s", what, semel_status_text(status));
    exit(TOOL_UNKNOWN);
}

static void finish(struct holder *holder, int code)
{
    holder->code = code;
    semel_loop_stop(holder->loop);
}

static struct semel_deferred *call(struct holder *holder, const char *method, const char *body,
                                   int64_t deadline_ms, bool rerun_ok)
{
    struct semel_call_options call_options = SEMEL_CALL_OPTIONS_INIT;
    struct semel_deferred *called;

    call_options.deadline_ms = deadline_ms;
    call_options.rerun_ok = rerun_ok;
    need(semel_client_defer(holder->client, method, semel_bytes_text(body), &call_options,
                            holder->loop, &called),
         method);
    return called;
}

/* --- the end --------------------------------------------------------------------------------- */

static struct semel_deferred *released(struct semel_fired *fired, void *user)
{
    struct holder *holder = user;

    if (fired->status != SEMEL_OK && !holder->lost)
        output_note("the lock could not be released (%s): it is another's after its lease",
                    fired->text);
    semel_fired_set_value(fired, NULL, NULL);
    finish(holder, holder->code);
    return NULL;
}

/* The command has ended, or never ran. */
static void release(struct holder *holder, int code)
{
    struct semel_deferred *releasing;

    holder->code = code;
    holder->granted = false;
    if (holder->lost) {
        finish(holder, code);
        return;
    }
    releasing = call(holder, LOCK_RELEASE, holder->token, RELEASE_MS, true);
    need(semel_deferred_then(releasing, released, released, holder), LOCK_RELEASE);
    semel_deferred_unref(releasing);
}

/* --- the command ----------------------------------------------------------------------------- */

static void command_signal(const struct holder *holder, int number)
{
    if (holder->pid)
        kill(holder->own_group ? -holder->pid : holder->pid, number);
}

static void kill_command(void *user)
{
    struct holder *holder = user;

    holder->kill_timer = NULL;
    command_signal(holder, SIGKILL);
}

static void lose(struct holder *holder, const char *why)
{
    if (holder->lost || !holder->granted)
        return;
    holder->lost = true;
    output_error("the lock %s is lost: %s", holder->arguments->name, why);
    if (!holder->pid) {
        release(holder, TOOL_NOT_EXECUTED);
        return;
    }
    if (holder->arguments->keep_running)
        return;
    command_signal(holder, SIGTERM);
    need(semel_loop_timer(holder->loop, holder->arguments->kill_after_ms, kill_command, holder,
                          &holder->kill_timer),
         "timer");
}

/* The child's side: become the command, or tell why not. */
static void become(const struct holder *holder, int tell)
{
    sigset_t none;
    int error;

    if (holder->own_group)
        setpgid(0, 0);
    if (!holder->arguments->keep_running)
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* nobody would keep the lock */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    execvp(holder->arguments->command[0], holder->arguments->command);
    error = errno;
    if (write(tell, &error, sizeof error) < 0)
        _exit(CANNOT_RUN);
    _exit(CANNOT_RUN);
}

static bool on_terminal(void)
{
    int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* Returns 0 when the command runs; else errno. */
static int command_start(struct holder *holder)
{
    char fence[32];
    int told[2], error = 0;
    ssize_t got;

    snprintf(fence, sizeof fence, "%.*s", (int)strcspn(holder->token, " "), holder->token);
    if (setenv("SEMEL_LOCK_FENCE", fence, 1) != 0 || pipe2(told, O_CLOEXEC) != 0)
        return errno;
    holder->own_group = !on_terminal();
    holder->pid = fork();
    if (holder->pid == 0)
        become(holder, told[1]);
    error = holder->pid < 0 ? errno : 0;
    close(told[1]);
    do
        got = holder->pid > 0 ? read(told[0], &error, sizeof error) : 0;
    while (got < 0 && errno == EINTR);
    close(told[0]);
    if (error && holder->pid > 0)
        waitpid(holder->pid, NULL, 0);
    if (error)
        holder->pid = 0;
    else if (holder->own_group)
        setpgid(holder->pid, holder->pid); /* whoever of the two is first */
    return error;
}

static void on_child(struct semel_watch *watch, unsigned events, void *user)
{
    struct holder *holder = user;
    struct signalfd_siginfo info;
    int status;

    (void)watch;
    (void)events;
    while (read(holder->child_end, &info, sizeof info) > 0)
        ;
    if (!holder->pid || waitpid(holder->pid, &status, WNOHANG) != holder->pid)
        return;
    holder->pid = 0;
    if (holder->kill_timer)
        need(semel_timer_cancel(holder->kill_timer), "timer");
    holder->kill_timer = NULL;
    release(holder, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static void run_command(struct holder *holder)
{
    int error = command_start(holder);

    if (error == 0) {
        output_detail("%s runs as process %d, number %.*s", holder->arguments->command[0],
                      (int)holder->pid, (int)strcspn(holder->token, " "), holder->token);
        return;
    }
    output_error("cannot run %s: %s", holder->arguments->command[0], strerror(error));
    release(holder, error == ENOENT ? NOT_FOUND : CANNOT_RUN);
}

/* --- holding --------------------------------------------------------------------------------- */

static void keep(void *user);

static void on_lease_timer(void *user)
{
    struct holder *holder = user;

    holder->lease_timer = NULL;
    lose(holder, "the server has not answered for a lease");
}

/* The server has it that the lock is this one's for a lease from the last keep on. */
static void lease_renewed(struct holder *holder)
{
    int64_t now = clock_now(), left_ms;

    holder->safe_until = holder->kept_at + holder->lease_ms * 1000000;
    left_ms = (holder->safe_until - now) / 1000000;
    if (holder->lease_timer)
        need(semel_timer_cancel(holder->lease_timer), "timer");
    holder->lease_timer = NULL;
    if (left_ms <= 0)
        lose(holder, "the server's answer came too late");
    else
        need(semel_loop_timer(holder->loop, left_ms, on_lease_timer, holder, &holder->lease_timer),
             "timer");
}

/* Not more often than this, whatever the server answers. */
static int64_t pause_ms(const struct holder *holder)
{
    int64_t due = holder->kept_at + holder->lease_ms * 1000000 / 10, now = clock_now();

    return due > now ? (due - now) / 1000000 + 1 : 0;
}

static struct semel_deferred *kept(struct semel_fired *fired, void *user)
{
    struct holder *holder = user;
    const struct semel_result *result = semel_fired_call(fired);
    const bool refused = result && result->outcome == SEMEL_FAILURE;
    const bool fine = fired->status == SEMEL_OK;

    if (holder->granted && !holder->lost && refused)
        lose(holder, fired->text);
    if (holder->granted && !holder->lost && fine) {
        lease_renewed(holder);
        if (!holder->lost && !holder->pid && !holder->interrupted)
            run_command(holder);
    }
    if (holder->granted && !holder->lost)
        need(semel_loop_timer(holder->loop, pause_ms(holder), keep, holder, NULL), "timer");
    semel_fired_set_value(fired, NULL, NULL);
    return NULL;
}

/* A timer. */
static void keep(void *user)
{
    struct holder *holder = user;
    struct semel_deferred *keeping;

    if (!holder->granted || holder->lost)
        return;
    holder->kept_at = clock_now();
    if (!holder->lease_timer) /* the first one: the lease began before it */
        need(semel_loop_timer(holder->loop, holder->lease_ms, on_lease_timer, holder,
                              &holder->lease_timer),
             "timer");
    keeping = call(holder, LOCK_KEEP, holder->token, holder->lease_ms, false);
    need(semel_deferred_then(keeping, kept, kept, holder), LOCK_KEEP);
    semel_deferred_unref(keeping);
}

/* "FENCE LEASE_MS" */
static bool grant_read(struct holder *holder, struct semel_bytes body)
{
    char text[64];
    uint64_t fence;

    if (body.size == 0 || body.size >= sizeof text)
        return false;
    memcpy(text, body.data, body.size);
    text[body.size] = '\0';
    if (sscanf(text, "%" SCNu64 " %" SCNd64, &fence, &holder->lease_ms) != 2 ||
        holder->lease_ms < 1 || holder->lease_ms > INT32_MAX)
        return false;
    snprintf(holder->token, sizeof holder->token, "%" PRIu64 " %s", fence, holder->arguments->name);
    return true;
}

static int not_granted(struct holder *holder, const struct semel_fired *fired)
{
    const struct semel_result *result = semel_fired_call(fired);
    bool failure = result && result->outcome == SEMEL_FAILURE;
    bool late = (failure && fired->code == SEMEL_CANCELLED) || fired->status == SEMEL_DEADLINE ||
                fired->status == SEMEL_EXPIRED;
    char text[2048] = "";

    if (result)
        semel_result_message(result, text, sizeof text);
    if (late && !holder->interrupted)
        output_error("the lock %s was not had in time", holder->arguments->name);
    else
        output_error("%s%s", holder->interrupted ? "interrupted: " : "",
                     result ? text : fired->text);
    if (fired->status == SEMEL_NO_METHOD)
        output_note("the server has no locks: start it with --locks");
    if (holder->interrupted)
        return TOOL_CANCELLED;
    /* Whatever became of it, the command has not run, and a lock that nobody keeps is lost. */
    if (late)
        return TOOL_NOT_EXECUTED;
    return tool_exit_of_status(failure ? (enum semel_status)fired->code : fired->status);
}

static struct semel_deferred *taken(struct semel_fired *fired, void *user)
{
    struct holder *holder = user;
    const struct semel_result *result = semel_fired_call(fired);

    semel_deferred_unref(holder->taking);
    holder->taking = NULL;
    if (fired->status != SEMEL_OK) {
        finish(holder, not_granted(holder, fired));
    } else if (!grant_read(holder, result->body)) {
        output_error("the reply of %s is no lock's", holder->arguments->address);
        finish(holder, TOOL_PROTOCOL);
    } else {
        holder->granted = true;
        if (holder->interrupted)
            release(holder, TOOL_CANCELLED);
        else
            keep(holder);
    }
    semel_fired_set_value(fired, NULL, NULL);
    return NULL;
}

/* --- signals --------------------------------------------------------------------------------- */

static void on_signal(struct semel_watch *watch, unsigned events, void *user)
{
    struct holder *holder = user;
    struct signalfd_siginfo info;

    (void)watch;
    (void)events;
    while (read(holder->signal_end, &info, sizeof info) == sizeof info) {
        /* What the terminal sends has reached a command in our own group already. */
        if (holder->pid && (holder->own_group || info.ssi_code != SI_KERNEL))
            command_signal(holder, (int)info.ssi_signo);
        if (holder->pid)
            continue;
        if (holder->interrupted)
            exit(TOOL_CANCELLED); /* the command has not run, and will not */
        holder->interrupted = true;
        if (holder->taking)
            semel_deferred_cancel(holder->taking);
        else if (holder->granted)
            release(holder, TOOL_CANCELLED);
    }
}

/* They are read from it, and do nothing else any more. */
static int descriptor_of(const int *numbers, size_t count)
{
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < count; i++)
        sigaddset(&set, numbers[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* --- all of it ------------------------------------------------------------------------------- */

static int hold(struct holder *holder)
{
    static const int to_us[] = { SIGINT, SIGTERM, SIGQUIT, SIGHUP }, of_child[] = { SIGCHLD };
    const struct arguments *a = holder->arguments;
    struct semel_loop_options loop_options = SEMEL_LOOP_OPTIONS_INIT;

    signals_block();
    holder->signal_end = descriptor_of(to_us, sizeof to_us / sizeof to_us[0]);
    holder->child_end = descriptor_of(of_child, 1);
    if (holder->signal_end < 0 || holder->child_end < 0) {
        output_error("cannot wait for signals: %s", strerror(errno));
        return TOOL_NOT_EXECUTED;
    }
    loop_options.log = output_log;
    need(semel_loop_create(&holder->loop, &loop_options), "loop");
    need(semel_loop_watch(holder->loop, holder->signal_end, SEMEL_WATCH_READ, on_signal, holder,
                          NULL),
         "signals");
    need(
        semel_loop_watch(holder->loop, holder->child_end, SEMEL_WATCH_READ, on_child, holder, NULL),
        "signals");
    output_detail("waiting for the lock %s", a->name);
    holder->taking =
        call(holder, LOCK_TAKE, a->name, a->timeout_ms ? a->timeout_ms : INT32_MAX, true);
    need(semel_deferred_then(holder->taking, taken, taken, holder), LOCK_TAKE);
    need(semel_loop_run(holder->loop), "loop");
    return holder->code;
}

static int connect_and_hold(struct holder *holder)
{
    const struct arguments *a = holder->arguments;
    struct semel_client_options client_options = SEMEL_CLIENT_OPTIONS_INIT;
    char text[1024] = "";
    enum semel_status status;
    int code;

    client_options.log = output_log;
    status = tool_connect(&holder->client, a->address, &client_options,
                          a->connect_timeout_ms ? a->connect_timeout_ms : CONNECT_TIMEOUT_MS,
                          a->connect_timeout_ms > 0, text, sizeof text);
    if (status == SEMEL_OK) {
        code = hold(holder);
    } else {
        output_error("%s: %s%s%s", a->address, semel_status_text(status), *text ? ": " : "", text);
        code = tool_exit_of_status(status);
    }
    if (semel_client_destroy(holder->client) != SEMEL_OK)
        output_error("the client could not be destroyed");
    return code;
}

int tool_lock(int argc, char **argv)
{
    static const struct argp argp = { options, parse, "ADDRESS NAME -- CMD [ARG...]", doc, NULL,
                                      NULL,    NULL };
    static struct arguments arguments = { .kill_after_ms = KILL_AFTER_MS };
    static struct holder holder = { .arguments = &arguments };

    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &arguments);
    return connect_and_hold(&holder);
}
