/* SPDX-License-Identifier: MIT */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "output.h"

#define PAUSE_NS 2000000

/* In the child: become the program, or end. */
__attribute__((noreturn)) static void become(pid_t parent, const char *program, char *const argv[],
                                             const char *dir, const char *log)
{
    int out = open(log, O_WRONLY | O_APPEND | O_CREAT, 0666);
    int in = open("/dev/null", O_RDONLY);
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it was quicker */
        _exit(127);
    setpgid(0, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (out < 0 || in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0 ||
        chdir(dir) != 0)
        _exit(127);
    if (in > 2)
        close(in);
    if (out > 2)
        close(out);
    execv(program, argv);
    dprintf(2, "%s: %s\n", program, strerror(errno));
    _exit(127);
}

bool process_start(struct process *process, const char *program, char *const argv[],
                   const char *dir, const char *log)
{
    pid_t parent = getpid(), pid = fork();

    if (pid == 0)
        become(parent, program, argv, dir, log);
    if (pid < 0) {
        output_error("cannot start a process: %s", strerror(errno));
        return false;
    }
    process->pid = pid;
    return true;
}

bool process_ended(struct process *process)
{
    pid_t ended = process->pid ? waitpid(process->pid, &process->status, WNOHANG) : -1;

    if (ended == 0)
        return false;
    process->pid = 0;
    return true;
}

void process_kill(struct process *process)
{
    if (!process->pid)
        return;
    kill(process->pid, SIGKILL);
    while (waitpid(process->pid, &process->status, 0) < 0 && errno == EINTR)
        ;
    process->pid = 0;
}

bool process_stop(struct process *process, int64_t patience_ns)
{
    const struct timespec pause = { 0, PAUSE_NS };
    int64_t until = clock_now() + patience_ns;

    if (!process->pid)
        return false;
    kill(process->pid, SIGTERM);
    while (!process_ended(process)) {
        if (clock_now() >= until) {
            process_kill(process);
            return false;
        }
        nanosleep(&pause, NULL);
    }
    return WIFEXITED(process->status) && WEXITSTATUS(process->status) == 0;
}

const char *process_status_text(const struct process *process)
{
    static char text[80];

    if (WIFSIGNALED(process->status))
        snprintf(text, sizeof text, "signal %d (%s)", WTERMSIG(process->status),
                 strsignal(WTERMSIG(process->status)));
    else
        snprintf(text, sizeof text, "exit status %d", WEXITSTATUS(process->status));
    return text;
}
