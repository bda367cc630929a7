/* SPDX-License-Identifier: MIT */
/* shell.c - run a shell command for a call.
 *
 * Problem: a command may read none, some or all of its input, write more than a pipe holds
 * before it has read all, close its descriptors early, leave children behind that hold them, or
 * never end. So one poll loop serves the three pipes, the process (a pidfd) and the cancellation
 * (an eventfd), and no descriptor is ever waited for alone.
 *
 * Invariants. Each descriptor is close-on-exec, so that commands that start at the same time do
 * not hold each other's pipes. The process is reaped exactly once, last: until then its id
 * cannot be reused, and signals to its group hit nobody else. The command is its group's leader,
 * so that Ctrl-C at the server's terminal does not reach it: a draining server lets it finish.
 *
 * Thread model: everything happens on the handler's thread but wake_on_cancel, which only writes
 * to the eventfd; the eventfd is closed after the request is finished. */
#include "shell.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <semel/semel.h>

#include "builtin.h"
#include "clock.h"
#include "json.h"
#include "orphans.h"
#include "procs.h"
#include "shell_stream.h"

#define STDERR_TAIL 4096
#define CHUNK 16384 /* read at once: small, it lies on a handler's stack */
/* More than a pipe holds; and a command that never stops writing lets the others have a turn. */
#define CHUNKS_PER_ROUND 64
#define NO_PIDFD_POLL_MS 10 /* how often to look, on kernels without pidfd_open */

#define FAR_MIN 5 /* above all descriptors that a command finds open */

enum { END_STDIN, END_STDOUT, END_STDERR, END_PROGRESS, END_CANCEL, END_PROCESS, ENDS };
#define PIPES 4 /* the first of them; the last of these with streams only */

struct run {
    const struct shell *shell;
    struct semel_request *request;
    pid_t pid;
    int ends[ENDS];           /* our ends; -1 once closed */
    struct semel_bytes input; /* what is not written yet */
    char *output;
    size_t output_size, output_room;
    uint64_t output_lost;       /* bytes beyond the limit */
    char tail[2 * STDERR_TAIL]; /* the last of standard error: at least STDERR_TAIL bytes of it */
    size_t tail_size;
    bool exited; /* the shell itself has ended; not reaped yet */
    bool cancelled;
    int64_t kill_at; /* when SIGKILL is due; cancelled only */
    bool killed;
    struct shell_stream stream; /* shell->streams only */
};

static int pipes_of(const struct run *run)
{
    return run->shell->streams ? PIPES : PIPES - 1;
}

static void end_close(struct run *run, int end)
{
    if (run->ends[end] >= 0)
        close(run->ends[end]);
    run->ends[end] = -1;
}

static void wake_on_cancel(struct semel_request *request, void *user)
{
    const struct run *run = user;

    (void)request;
    eventfd_write(run->ends[END_CANCEL], 1);
}

/* Is it a variable that the command finds with a value of its own, or not at all? */
static bool is_replaced(const struct shell *shell, const char *variable)
{
    static const char *const names[] = { "SEMEL_CALL_KEY=", "SEMEL_DEADLINE=", "SEMEL_METHOD=",
                                         "SEMEL_IDEMPOTENCY_KEY=", "SEMEL_STORE=" };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strncmp(variable, names[i], strlen(names[i])) == 0)
            return shell->mark || strcmp(names[i], "SEMEL_STORE=") != 0;
    }
    return false;
}

/* The environment of the command: ours and at most ADDED more. The block is one allocation. */
#define ADDED 5
static char **environment_make(const struct shell *shell, struct semel_request *request)
{
    static const char hex[] = "0123456789abcdef";
    struct origin origin = call_origin(request);
    const char *method = semel_request_method(request);
    const char *idempotency_key = origin.idempotency_key;
    size_t count = 0, at = 0, text_size = strlen(method) + strlen(idempotency_key) + 160;
    char **block, *text;

    while (environ && environ[count])
        count++;
    block = malloc((count + ADDED + 1) * sizeof *block + text_size);
    if (!block)
        return NULL;
    text = (char *)(block + count + ADDED + 1);
    for (size_t i = 0; i < count; i++) {
        if (!is_replaced(shell, environ[i]))
            block[at++] = environ[i];
    }
    block[at++] = text;
    text = stpcpy(text, "SEMEL_CALL_KEY=");
    for (size_t i = 0; i < sizeof origin.key.bytes; i++) {
        *text++ = hex[origin.key.bytes[i] >> 4];
        *text++ = hex[origin.key.bytes[i] & 15];
    }
    *text++ = '\0';
    block[at++] = text;
    text += sprintf(text, "SEMEL_DEADLINE=%" PRId64, semel_request_remaining_ms(request)) + 1;
    block[at++] = text;
    text = stpcpy(stpcpy(text, "SEMEL_METHOD="), method) + 1;
    if (*idempotency_key) {
        block[at++] = text;
        stpcpy(stpcpy(text, "SEMEL_IDEMPOTENCY_KEY="), idempotency_key);
    }
    if (shell->mark)
        block[at++] = (char *)shell->mark;
    block[at] = NULL;
    return block;
}

/* Start the command on the far ends of the pipes. Returns 0 or an errno. */
static int spawn(struct run *run, const int far[PIPES])
{
    char *argv[] = { (char *)"sh", (char *)"-c", (char *)run->shell->command, NULL };
    char **environment = environment_make(run->shell, run->request);
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, defaults;
    int error;

    if (!environment)
        return ENOMEM;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGINT);
    sigaddset(&defaults, SIGTERM);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    error = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                                      POSIX_SPAWN_SETSIGDEF);
    error = error ? error : posix_spawnattr_setsigmask(&attributes, &none);
    error = error ? error : posix_spawnattr_setsigdefault(&attributes, &defaults);
    for (int i = 0; i < 3 && !error; i++)
        error = posix_spawn_file_actions_adddup2(&actions, far[i], i);
    if (run->shell->mark && !error)
        error = posix_spawn_file_actions_adddup2(&actions, run->shell->held, ORPHANS_FD);
    if (run->shell->streams && !error)
        error = posix_spawn_file_actions_adddup2(&actions, far[END_PROGRESS], PROGRESS_FD);
    if (!error)
        error = posix_spawn(&run->pid, "/bin/sh", &actions, &attributes, argv, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    free(environment);
    return error;
}

/* A pipe whose far end is none of the numbers that a command finds open: the dup2 of one would
 * overwrite another. Returns 0 or an errno. */
static int pipe_make(struct run *run, int end, int *out_far)
{
    int ends[2], higher, error = 0;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    run->ends[end] = ends[end == END_STDIN];
    *out_far = ends[end != END_STDIN];
    fcntl(run->ends[end], F_SETFL, O_NONBLOCK);
    if (*out_far < FAR_MIN) {
        higher = fcntl(*out_far, F_DUPFD_CLOEXEC, FAR_MIN);
        error = higher < 0 ? errno : 0;
        close(*out_far);
        *out_far = higher;
    }
    return error;
}

/* Make the pipes and start the command. Returns 0 or an errno; then nothing ran. */
static int run_start(struct run *run)
{
    int far[PIPES] = { -1, -1, -1, -1 }, error = 0;

    run->ends[END_CANCEL] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (run->ends[END_CANCEL] < 0)
        return errno;
    for (int i = 0; i < pipes_of(run) && !error; i++)
        error = pipe_make(run, i, &far[i]);
    if (!error)
        error = spawn(run, far);
    for (int i = 0; i < PIPES; i++) {
        if (far[i] >= 0)
            close(far[i]);
    }
    if (!error)
        run->ends[END_PROCESS] = (int)syscall(SYS_pidfd_open, run->pid, 0);
    return error;
}

static void feed_input(struct run *run)
{
    while (run->input.size) {
        ssize_t wrote = write(run->ends[END_STDIN], run->input.data, run->input.size);

        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0 && errno == EAGAIN)
            return;
        if (wrote < 0) /* EPIPE: it does not want the rest, which is its right */
            break;
        run->input.data = (const char *)run->input.data + wrote;
        run->input.size -= (size_t)wrote;
    }
    end_close(run, END_STDIN);
}

static void keep_output(struct run *run, const char *data, size_t size)
{
    size_t room = run->output_room ? run->output_room : CHUNK;

    if (size > run->shell->body_limit - run->output_size) {
        size_t fits = (size_t)(run->shell->body_limit - run->output_size);

        run->output_lost += size - fits;
        size = fits;
    }
    while (room < run->output_size + size)
        room *= 2;
    if (room != run->output_room) {
        char *larger = realloc(run->output, room);

        if (!larger) {
            run->output_lost += size;
            return;
        }
        run->output = larger;
        run->output_room = room;
    }
    memcpy(run->output + run->output_size, data, size);
    run->output_size += size;
}

static void keep_tail(struct run *run, const char *data, size_t size)
{
    if (size > STDERR_TAIL) {
        data += size - STDERR_TAIL;
        size = STDERR_TAIL;
    }
    if (run->tail_size + size > sizeof run->tail) {
        memmove(run->tail, run->tail + run->tail_size - STDERR_TAIL, STDERR_TAIL);
        run->tail_size = STDERR_TAIL;
    }
    memcpy(run->tail + run->tail_size, data, size);
    run->tail_size += size;
}

/* Read what is there from one of the outputs; close it at its end. */
static void drain_output(struct run *run, int end)
{
    char chunk[CHUNK];

    for (int i = 0; i < CHUNKS_PER_ROUND && run->ends[end] >= 0; i++) {
        ssize_t got = read(run->ends[end], chunk, sizeof chunk);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0)
            end_close(run, end);
        else if (end == END_PROGRESS)
            shell_stream_progress(&run->stream, chunk, (size_t)got);
        else if (end == END_STDOUT && run->shell->streams && run->stream.takes)
            shell_stream_output(&run->stream, chunk, (size_t)got);
        else if (end == END_STDOUT)
            keep_output(run, chunk, (size_t)got);
        else
            keep_tail(run, chunk, (size_t)got);
    }
}

/* Look whether the shell has ended, without reaping it. */
static void notice_exit(struct run *run)
{
    siginfo_t info = { .si_pid = 0 };

    if (waitid(P_PID, (id_t)run->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid)
        run->exited = true;
}

static void notice_cancel(struct run *run)
{
    run->cancelled = true;
    run->kill_at = clock_now() + run->shell->grace_ns;
    kill(-run->pid, SIGTERM);
}

/* Over once the shell has ended and its output is read; after a cancellation also once whatever
 * else holds that output has let go of it, or was killed. */
static bool run_over(const struct run *run)
{
    bool held = run->ends[END_STDOUT] >= 0 || run->ends[END_STDERR] >= 0;

    return run->exited && (!run->cancelled || !held || run->killed);
}

static int poll_timeout(const struct run *run)
{
    int64_t left = -1;

    if (run->cancelled && !run->killed) {
        left = (run->kill_at - clock_now()) / 1000000 + 1;
        left = left < 0 ? 0 : left;
    }
    if (run->ends[END_PROCESS] < 0 && !run->exited && (left < 0 || left > NO_PIDFD_POLL_MS))
        left = NO_PIDFD_POLL_MS;
    return left > INT32_MAX ? INT32_MAX : (int)left;
}

/* Serve the pipes until the command is over. */
static void run_serve(struct run *run)
{
    while (!run_over(run)) {
        struct pollfd polled[ENDS];

        for (int i = 0; i < ENDS; i++)
            polled[i] = (struct pollfd){ run->ends[i], i == END_STDIN ? POLLOUT : POLLIN, 0 };
        if (run->cancelled)
            polled[END_CANCEL].fd = -1;
        if (run->exited)
            polled[END_PROCESS].fd = -1;
        poll(polled, ENDS, poll_timeout(run));
        /* The exit is noticed before the outputs are read, so that what the shell wrote before
         * its end is read after it. */
        if (!run->exited)
            notice_exit(run);
        if (polled[END_STDIN].revents)
            feed_input(run);
        drain_output(run, END_PROGRESS); /* before the items: these may wait for their reader */
        drain_output(run, END_STDOUT);
        drain_output(run, END_STDERR);
        if (polled[END_CANCEL].revents)
            notice_cancel(run);
        if (run->cancelled && !run->killed && clock_now() >= run->kill_at) {
            kill(-run->pid, SIGKILL);
            run->killed = true;
        }
    }
    if (run->cancelled && !run->killed)
        kill(-run->pid, SIGKILL);
}

/* The last line of standard error that is not empty, made printable; or `otherwise`. */
static void last_line(const struct run *run, char *text, size_t size, const char *otherwise)
{
    size_t end = run->tail_size, begin, at = 0;

    while (end && (run->tail[end - 1] == '\n' || run->tail[end - 1] == '\r'))
        end--;
    for (begin = end; begin && run->tail[begin - 1] != '\n';)
        begin--;
    if (begin == end) {
        snprintf(text, size, "%s", otherwise);
        return;
    }
    while (begin < end && at + 5 < size) {
        size_t length = utf8_length((const unsigned char *)run->tail + begin, end - begin);

        if (length == 0 || (length == 1 && (unsigned char)run->tail[begin] < 0x20))
            text[at++] = '?';
        else
            memcpy(text + at, run->tail + begin, length);
        at += length > 1 || (length == 1 && (unsigned char)run->tail[begin] >= 0x20) ? length : 0;
        begin += length ? length : 1;
    }
    text[at] = '\0';
}

static void finish_died(struct run *run, const char *how)
{
    char text[SEMEL_TEXT_BYTES];

    snprintf(text, sizeof text, "pid %d: %s%s", (int)run->pid, how,
             run->cancelled ? " after the call was cancelled" : "");
    semel_request_take(run->request);
    semel_request_died(run->request, text);
}

static void finish_exit(struct run *run, int code)
{
    char text[SEMEL_TEXT_BYTES], otherwise[40];
    size_t tail = run->tail_size < STDERR_TAIL ? run->tail_size : STDERR_TAIL;
    struct semel_bytes detail = semel_bytes(run->tail + run->tail_size - tail, tail);

    if (code == 0 && run->output_lost) {
        finish_failure(run->request, -1,
                       "it ended well, but its reply of %" PRIu64 " bytes "
                       "could not be kept; the server's --body-limit is %" PRIu64,
                       run->output_size + run->output_lost, run->shell->body_limit);
        return;
    }
    if (code == 0 && run->stream.lost) {
        finish_failure(run->request, -1,
                       "it ended well, but not all of its streams got through: %s",
                       run->stream.lost);
        return;
    }
    if (code == 0) {
        finish_value(run->request, run->output, run->output_size);
        return;
    }
    snprintf(otherwise, sizeof otherwise, "exit status %d", code);
    last_line(run, text, sizeof text, otherwise);
    if (semel_request_fail_with(run->request, code, text, detail, NULL) != SEMEL_OK)
        finish_failure(run->request, code, "%s", text);
}

/* Reap the shell and answer the call. */
static void run_finish(struct run *run)
{
    char how[120];
    int status = 0;

    while (waitpid(run->pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status)) {
        snprintf(how, sizeof how, "killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
        finish_died(run, how);
    } else if (WEXITSTATUS(status) > 128) {
        snprintf(how, sizeof how, "exit status %d, as a shell reports death by signal %d",
                 WEXITSTATUS(status), WEXITSTATUS(status) - 128);
        finish_died(run, how);
    } else {
        finish_exit(run, WEXITSTATUS(status));
    }
}

/* The command runs: its input comes from the caller's stream, if there is one. */
static void streams_begin(struct run *run)
{
    if (!semel_request_sends(run->request))
        return;
    if (shell_stream_feed(&run->stream, run->ends[END_STDIN])) {
        run->ends[END_STDIN] = -1;
        return;
    }
    run->stream.lost = "its input could not be fed";
    end_close(run, END_STDIN);
    notice_cancel(run);
}

void shell_handler(struct semel_request *request, void *user)
{
    struct run run = { .shell = user,
                       .request = request,
                       .ends = { -1, -1, -1, -1, -1, -1 },
                       .input = semel_request_body(request) };
    int error;

    if (run.shell->streams)
        shell_stream_init(&run.stream, request, run.shell->chunk, (size_t)run.shell->body_limit);
    error = run_start(&run);
    if (error) {
        finish_failure(request, 126, "the command was not started: %s", strerror(error));
    } else {
        if (run.shell->streams)
            streams_begin(&run);
        semel_request_on_cancel(request, wake_on_cancel, &run);
        run_serve(&run);
        if (run.shell->streams)
            shell_stream_end(&run.stream);
        run_finish(&run);
    }
    for (int i = 0; i < ENDS; i++)
        end_close(&run, i);
    free(run.output);
}
