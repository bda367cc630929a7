/* SPDX-License-Identifier: MIT */
/* spawn.c - children by exec, without ever running code of this program in a copy of it.
 *
 * A fork copies the pages of a process whose other threads hold locks, and costs the more the
 * larger it is. Here the child shares the memory until it has called exec, on a stack of its own,
 * while the calling thread is stopped (CLONE_VFORK): so a failure of exec is an error number in
 * this frame. All that the child does is system calls, made directly: it must not change what
 * libc, or a sanitizer, keeps in the memory that it shares. Every signal is blocked meanwhile, so
 * that no handler of the parent runs in the child.
 *
 * The pidfd comes from the same call (CLONE_PIDFD), so it cannot be anybody else's. Reaping by it
 * (P_PIDFD) touches no other child. A host that reaps all children itself leaves us ECHILD: then
 * nobody knows how the child ended, but that it ended is known all the same.
 *
 * Rejected: posix_spawn (no PR_SET_PDEATHSIG, and no pidfd before glibc 2.39); a helper program
 * (another file to be found); pidfd_open after vfork (the host may have reaped the child by then,
 * and the number may be another's). */
#include "os/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define STACK_BYTES 65536
#define SIGNALS 64
#define SIGNAL_SET_BYTES 8
#define ASIDE (SML_SPAWN_FD + 1) /* from here on: until 0 and SML_SPAWN_FD are free */
#define OWN_PROGRAM "/proc/self/exe"

extern char **environ;
/* glibc's clone by its other name: the thread sanitizer takes `clone` for a fork, and would have
 * its state cleaned up by the child, which shares it. */
int __clone(int (*run)(void *), void *stack, int flags, void *arg, ...);

/* What the child is told, and what it tells. */
struct plan {
    const char *path;
    char *const *argv;
    char *const *envp;
    int fd, null;
    pid_t parent;
    unsigned fds_max;
    int error; /* of the first step that failed */
};

/* --- in the child ----------------------------------------------------------------------------
 * A sanitizer's notes on this thread belong to the parent, who shares them. */

/* All-zero is SIG_DFL without flags, and a mask of no signal, whatever the machine's layout. */
SML_UNINSTRUMENTED static void reset_signals(void)
{
    static const unsigned char zero[128];

    for (int number = 1; number <= SIGNALS; number++)
        (void)syscall(SYS_rt_sigaction, number, zero, NULL, SIGNAL_SET_BYTES);
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, zero, NULL, SIGNAL_SET_BYTES);
}

/* 0, 1, 2 and SML_SPAWN_FD stay, and nothing else. */
SML_UNINSTRUMENTED static bool place_descriptors(struct plan *plan)
{
    long fd = syscall(SYS_fcntl, plan->fd, F_DUPFD, ASIDE);
    long null = syscall(SYS_fcntl, plan->null, F_DUPFD, ASIDE);

    if (fd < 0 || null < 0 || syscall(SYS_dup3, null, STDIN_FILENO, 0) < 0 ||
        syscall(SYS_dup3, fd, SML_SPAWN_FD, 0) < 0)
        return false;
    if (syscall(SYS_close_range, SML_SPAWN_FD + 1, ~0U, 0) != 0)
        for (unsigned each = SML_SPAWN_FD + 1; each < plan->fds_max; each++)
            (void)syscall(SYS_close, each);
    return true;
}

SML_UNINSTRUMENTED static int in_child(void *arg)
{
    struct plan *plan = arg;

    if (syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 &&
        syscall(SYS_setpgid, 0, 0) == 0 && place_descriptors(plan)) {
        /* Had the parent ended before the prctl, nobody would tell. */
        if (syscall(SYS_getppid) != plan->parent)
            (void)syscall(SYS_exit_group, 127);
        reset_signals();
        (void)syscall(SYS_execve, plan->path, plan->argv, plan->envp);
    }
    plan->error = errno;
    (void)syscall(SYS_exit_group, 127);
    return 127;
}

/* --- in the parent --------------------------------------------------------------------------- */

/* Every signal is blocked for the caller, and no cancellation comes. */
static int clone_child(struct plan *plan, struct sml_child *child)
{
    int flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, error = 0;
    uint8_t *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

    if (stack == MAP_FAILED)
        return errno;
    /* Stacks grow downwards wherever there are pidfds, but on one machine that glibc has left. */
    child->pid = __clone(in_child, stack + STACK_BYTES, flags, plan, &child->pidfd);
    if (child->pid < 0)
        error = errno;
    (void)munmap(stack, STACK_BYTES);
    return error;
}

/* The program was never run: what is left of the child goes. */
static void bury(struct sml_child *child)
{
    (void)sml_child_reap(child);
}

static int run(struct plan *plan, struct sml_child *child)
{
    sigset_t all, before;
    int error;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    error = clone_child(plan, child);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        return error;
    if (plan->error != 0)
        bury(child);
    return plan->error;
}

static enum semel_status failed(struct sml_reason *reason, const char *what, int error)
{
    return sml_reason_set(reason, sml_error_status(error), "cannot run %s: %s", what,
                          sml_error_text(error));
}

enum semel_status sml_spawn(struct sml_child *out_child, const char *path, char *const *argv,
                            int fd, struct sml_reason *reason)
{
    struct plan plan = {
        .path = path ? path : OWN_PROGRAM,
        .argv = argv,
        .envp = environ,
        .fd = fd,
        .null = open("/dev/null", O_RDONLY | O_CLOEXEC),
        .parent = getpid(),
    };
    struct sml_child child = { .pid = 0, .pidfd = -1 };
    long fds_max = sysconf(_SC_OPEN_MAX);
    int error;

    if (plan.null < 0)
        return failed(reason, "/dev/null", errno);
    plan.fds_max = fds_max > 0 && fds_max < 1048576 ? (unsigned)fds_max : 1048576;
    error = run(&plan, &child);
    (void)close(plan.null);
    if (error != 0)
        return failed(reason, path ? path : argv[0], error);
    *out_child = child;
    return SEMEL_OK;
}

/* --- a child that runs ----------------------------------------------------------------------- */

static void send_signal(const struct sml_child *child, int number)
{
    if (child->pidfd >= 0)
        (void)syscall(SYS_pidfd_send_signal, child->pidfd, number, NULL, 0);
}

void sml_child_terminate(const struct sml_child *child)
{
    send_signal(child, SIGTERM);
}

void sml_child_kill_group(const struct sml_child *child)
{
    if (child->pid > 1)
        (void)kill(-(pid_t)child->pid, SIGKILL);
    send_signal(child, SIGKILL); /* it may have left its group */
}

struct sml_exit sml_child_reap(struct sml_child *child)
{
    struct sml_exit how = { .kind = SML_EXIT_UNTOLD };
    siginfo_t info;
    int got;

    memset(&info, 0, sizeof info);
    do
        got = waitid((idtype_t)P_PIDFD, (id_t)child->pidfd, &info, WEXITED);
    while (got != 0 && errno == EINTR);
    if (got == 0 && info.si_pid == (pid_t)child->pid) {
        how.kind = info.si_code == CLD_EXITED ? SML_EXIT_CODE : SML_EXIT_SIGNAL;
        how.number = info.si_status;
    }
    sml_child_forget(child);
    return how;
}

void sml_child_forget(struct sml_child *child)
{
    sml_fd_close(&child->pidfd);
    child->pid = 0;
}

void sml_exit_say(const struct sml_exit *how, char *out, size_t room)
{
    const char *name;

    switch (how->kind) {
    case SML_EXIT_CODE:
        (void)snprintf(out, room, "exited with code %d", how->number);
        break;
    case SML_EXIT_SIGNAL:
        name = sigabbrev_np(how->number);
        (void)snprintf(out, room, "was killed by signal %d (SIG%s)", how->number,
                       name ? name : "?");
        break;
    default:
        (void)snprintf(out, room, "ended; its exit status is unavailable: it was reaped elsewhere");
        break;
    }
}

uint64_t sml_child_rss(const struct sml_child *child)
{
    char path[40], text[128] = "", *resident;
    ssize_t got;
    int fd;

    if (child->pid <= 0)
        return 0;
    (void)snprintf(path, sizeof path, "/proc/%d/statm", (int)child->pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    got = read(fd, text, sizeof text - 1);
    (void)close(fd);
    resident = got > 0 ? strchr(text, ' ') : NULL;
    return resident ? strtoull(resident, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

/* --- its connection -------------------------------------------------------------------------- */

void sml_socket_shut(int fd)
{
    if (fd >= 0)
        (void)shutdown(fd, SHUT_RDWR);
}

uint64_t sml_socket_drain(int fd)
{
    uint8_t bytes[4096];
    uint64_t total = 0;
    ssize_t got;

    while (fd >= 0) {
        got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got > 0)
            total += (uint64_t)got;
        else if (got == 0 || errno != EINTR)
            break;
    }
    return total;
}

void sml_fd_close(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

int sml_fd_copy(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, SML_SPAWN_FD + 1);
}

bool sml_fd_keep(int fd)
{
    return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

/* --- the child's side ------------------------------------------------------------------------ */

void sml_socket_wait_hangup(int fd)
{
    struct pollfd watched = { .fd = fd, .events = POLLRDHUP };

    while (poll(&watched, 1, -1) != 1)
        ;
}
