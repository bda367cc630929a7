/* SPDX-License-Identifier: MIT */
/* tasks.c - tasks in worker processes, in the terminal: tasks [LIMIT...]
 *
 * Each LIMIT is a task that counts the primes below it. Lines on standard input are commands:
 *
 *     start LIMIT     one more
 *     cancel N        ask the N-th to stop
 *     kill N          kill the process that has it
 *     quit            cancel all, and end
 *
 * At the end of the input it ends when all are done.
 *
 * The program has one thread of its own, and nothing in it waits but its loop. */
#include <inttypes.h>
#include <semel/semel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "primes.h"

#define TASKS_MAX 256

struct program;

struct task {
    struct program *program;
    struct semel_future *future;
    int number;
    unsigned reports;
};

struct program {
    struct semel_loop *loop;
    struct semel_executor *executor;
    struct semel_watch *input; /* NULL: it has ended */
    struct task tasks[TASKS_MAX];
    int count;
    int failures;
    char line[256];
    size_t line_bytes;
};

static const char *const states[] = { "waiting", "executing",  "completed",
                                      "failed",  "cancelling", "cancelled" };

static void need(enum semel_status status, const char *what)
{
    if (status == SEMEL_OK)
        return;
    (void)fprintf(stderr, "%s: %s\n", what, semel_status_text(status));
    exit(1);
}

/* Without input nothing new can come: when all is done, so is the program. */
static void end_if_done(struct program *program)
{
    if (program->input == NULL && semel_executor_tasks(program->executor) == 0)
        semel_loop_stop(program->loop);
}

static void print_end(const struct task *task)
{
    const struct semel_result *result = semel_future_result(task->future);

    if (result && result->outcome == SEMEL_VALUE)
        printf(": %.*s primes, %u reports", (int)result->body.size, (const char *)result->body.data,
               task->reports);
    else if (result)
        printf(": %s", result->text ? result->text : semel_status_text(result->status));
}

static void on_change(struct semel_future *future, unsigned changes, void *user)
{
    struct task *task = user;

    printf("%d %s", task->number, states[semel_future_state(future)]);
    if (semel_future_state(future) == SEMEL_FUTURE_EXECUTING)
        printf(" in process %d", semel_future_pid(future));
    if (changes & SEMEL_CHANGED_DONE) {
        print_end(task);
        task->program->failures += semel_future_state(future) == SEMEL_FUTURE_FAILED;
    }
    printf("\n");
    (void)fflush(stdout);
    if (changes & SEMEL_CHANGED_DONE)
        end_if_done(task->program);
}

static void on_item(struct semel_future *future, struct semel_bytes bytes, void *user)
{
    struct task *task = user;

    (void)future;
    (void)bytes;
    task->reports++;
}

static void on_progress(struct semel_future *future, struct semel_bytes bytes, void *user)
{
    const struct task *task = user;

    (void)future;
    printf("%d %.*s %%\n", task->number, (int)bytes.size, (const char *)bytes.data);
    (void)fflush(stdout);
}

/* --- commands --------------------------------------------------------------------------------- */

static void start(struct program *program, const char *limit)
{
    struct semel_task_options options = SEMEL_TASK_OPTIONS_INIT;
    struct task *task = &program->tasks[program->count];
    enum semel_status status;

    if (program->count == TASKS_MAX) {
        printf("too many tasks\n");
        return;
    }
    task->program = program;
    task->number = program->count + 1;
    options.on_change = on_change;
    options.on_item = on_item;
    options.on_progress = on_progress;
    options.user = task;
    status = semel_executor_submit(program->executor, "primes", semel_bytes_text(limit), &options,
                                   &task->future);
    if (status == SEMEL_OK)
        program->count++;
    printf("%d %s\n", task->number, status == SEMEL_OK ? "waiting" : semel_status_text(status));
}

static struct task *find(struct program *program, const char *number)
{
    int n = atoi(number);

    return n >= 1 && n <= program->count ? &program->tasks[n - 1] : NULL;
}

static void obey(struct program *program, const char *line)
{
    char verb[16] = "", what[32] = "";
    struct task *task;

    if (sscanf(line, "%15s %31s", verb, what) < 1)
        return;
    task = find(program, what);
    if (strcmp(verb, "start") == 0)
        start(program, what);
    else if (strcmp(verb, "quit") == 0)
        semel_executor_stop(program->executor);
    else if (strcmp(verb, "cancel") == 0 && task)
        (void)semel_future_cancel(task->future);
    else if (strcmp(verb, "kill") == 0 && task)
        printf("%d kill: %s\n", task->number, semel_status_text(semel_future_kill(task->future)));
    else
        printf("no such command or task: %s\n", line);
    (void)fflush(stdout);
}

static void on_input(struct semel_watch *watch, unsigned events, void *user)
{
    struct program *program = user;
    ssize_t n = read(STDIN_FILENO, program->line + program->line_bytes,
                     sizeof program->line - 1 - program->line_bytes);
    char *end;

    (void)events;
    if (n <= 0) {
        need(semel_watch_remove(watch), "input");
        program->input = NULL;
        end_if_done(program);
        return;
    }
    program->line_bytes += (size_t)n;
    program->line[program->line_bytes] = '\0';
    while ((end = strchr(program->line, '\n')) != NULL) {
        *end = '\0';
        obey(program, program->line);
        program->line_bytes -= (size_t)(end + 1 - program->line);
        memmove(program->line, end + 1, program->line_bytes + 1);
    }
    if (program->line_bytes == sizeof program->line - 1)
        program->line_bytes = 0; /* no command is that long */
}

static void on_state(struct semel_executor *executor, enum semel_executor_state state, void *user)
{
    struct program *program = user;

    (void)executor;
    if (state == SEMEL_EXECUTOR_STOPPED)
        semel_loop_stop(program->loop);
}

int main(int argc, char **argv)
{
    static struct program program;
    struct semel_executor_options options = SEMEL_EXECUTOR_OPTIONS_INIT;
    int code = semel_worker_main(argc, argv, primes_export, NULL);

    if (code >= 0)
        return code; /* this process was a worker */
    need(semel_loop_create(&program.loop, NULL), "loop");
    options.on_state = on_state;
    options.user = &program;
    need(semel_executor_create(&program.executor, program.loop, &options), "executor");
    for (int i = 1; i < argc; i++)
        start(&program, argv[i]);
    if (semel_loop_watch(program.loop, STDIN_FILENO, SEMEL_WATCH_READ, on_input, &program,
                         &program.input) != SEMEL_OK)
        program.input = NULL; /* a file: nothing comes of it */
    end_if_done(&program);
    need(semel_loop_run(program.loop), "run");
    need(semel_executor_destroy(program.executor), "executor");
    for (int i = 0; i < program.count; i++)
        semel_future_unref(program.tasks[i].future);
    if (program.input)
        need(semel_watch_remove(program.input), "input");
    need(semel_loop_destroy(program.loop), "loop");
    return program.failures > 0;
}
