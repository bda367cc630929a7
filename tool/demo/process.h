/* SPDX-License-Identifier: MIT */
/* process.h - the processes of the demo: each ends with it, whatever ends it. */
#ifndef DEMO_PROCESS_H
#define DEMO_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct process {
    pid_t pid;  /* 0: it does not run */
    int status; /* of waitpid, once it has ended */
};

/* Start `program` with `argv` in `dir`, its output appended to the file `log`. It is killed when
 * this process ends; Ctrl-C at the terminal does not reach it. False: said so. Only while this
 * process has one thread. */
bool process_start(struct process *process, const char *program, char *const argv[],
                   const char *dir, const char *log);

/* Has it ended? Its status is there then. */
bool process_ended(struct process *process);

/* SIGKILL, and wait for its end. */
void process_kill(struct process *process);

/* SIGTERM, wait for its end for so long, then SIGKILL. True: it ended by itself, with status 0. */
bool process_stop(struct process *process, int64_t patience_ns);

/* "exit status 3", "signal 9 (Killed)". The text is kept until the next call. */
const char *process_status_text(const struct process *process);

#endif
