/* SPDX-License-Identifier: MIT */
/* orphans.c - find what an earlier server left running, end it, and see it gone.
 *
 * Three signs, since each can be lost: the open file (a program that closes what it does not know),
 * the mark (one that cleans its environment, or whose environment may not be read), the process
 * group (one that does both, but was started by one that does not). The lock is proof that nobody
 * has the file any more; for the other two, /proc is read until it shows nobody, twice, so that a
 * fork that slipped past the first look is seen by the second.
 *
 * A signal goes to the process that was looked at and no other: by a pidfd, after its start time
 * was compared. Processes that ended but are not reaped do not count. */
#include "orphans.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clock.h"
#include "duration.h"
#include "output.h"

#define PAUSE_NS 50000000
#define SAY_NS INT64_C(10000000000) /* at least so often it is said what is waited for */
#define SHOWN 8                     /* process ids in a message */

struct process {
    pid_t pid, group;
    unsigned long long start;
    bool marked, ours;
};

struct look {
    const struct orphans_options *options;
    int fd;
    bool locked;
    struct stat file;
    struct process *processes; /* all there are */
    size_t count, room;
    size_t found;                /* of these, ours */
    bool complete;               /* all were looked at, as far as that is possible */
    int64_t said_at;             /* 0: nothing was said yet */
    int64_t termed_at;           /* 0: no SIGTERM was sent yet */
    bool killed, refused, blind; /* was said */
};

/* --- looking ------------------------------------------------------------------------------- */

/* Group and start time of a process that has not ended. */
static bool stat_read(pid_t pid, struct process *process)
{
    char path[64], text[1024], state, *at;
    FILE *file;
    size_t size;
    int group;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    if (!file)
        return false;
    size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = '\0';
    at = strrchr(text, ')'); /* the name before it may be anything */
    if (!at || sscanf(at + 1,
                      " %c %*d %d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
                      "%llu",
                      &state, &group, &process->start) != 3)
        return false;
    process->pid = pid;
    process->group = group;
    return state != 'Z' && state != 'X';
}

static bool has_mark(pid_t pid, const char *mark)
{
    char path[64], *word = NULL;
    bool found = false;
    size_t room = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    file = fopen(path, "re");
    while (file && !found && getdelim(&word, &room, '\0', file) > 0)
        found = strcmp(word, mark) == 0;
    if (file)
        fclose(file);
    free(word);
    return found;
}

/* Does this descriptor hold the lock? Somebody may have opened the file by himself, to look at
 * it or to copy it. Where the kernel does not tell, it does. */
static bool holds_lock(pid_t pid, const char *fd)
{
    char path[300], line[256];
    bool found = false;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/fdinfo/%s", (int)pid, fd);
    file = fopen(path, "re");
    if (!file)
        return true;
    while (!found && fgets(line, sizeof line, file))
        found = strncmp(line, "lock:", 5) == 0 && strstr(line, "FLOCK");
    fclose(file);
    return found;
}

static bool has_file(pid_t pid, const struct stat *file)
{
    const struct dirent *entry;
    struct stat status;
    bool found = false;
    char path[64];
    DIR *folder;

    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    folder = opendir(path);
    while (folder && !found && (entry = readdir(folder)) != NULL)
        found = fstatat(dirfd(folder), entry->d_name, &status, 0) == 0 &&
                status.st_dev == file->st_dev && status.st_ino == file->st_ino &&
                holds_lock(pid, entry->d_name);
    if (folder)
        closedir(folder);
    return found;
}

static bool process_add(struct look *look, const struct process *process)
{
    if (look->count == look->room) {
        size_t room = look->room ? look->room * 2 : 256;
        struct process *larger = realloc(look->processes, room * sizeof *larger);

        if (!larger)
            return false;
        look->processes = larger;
        look->room = room;
    }
    look->processes[look->count++] = *process;
    return true;
}

/* Whoever shares a group with one of ours is ours. The mark says that it has a group of its own: a
 * process that only has the file may be on its way to that, and still stand in the group of whoever
 * started the server. Our own group is left alone. */
static void spread_groups(struct look *look)
{
    for (size_t i = 0; i < look->count; i++) {
        const struct process *one = &look->processes[i];

        if (!one->marked || one->group == getpgrp())
            continue;
        for (size_t k = 0; k < look->count; k++)
            look->processes[k].ours |= look->processes[k].group == one->group;
    }
}

/* Look at all processes. Once the lock is had, nobody else has it. */
static void look_around(struct look *look)
{
    const struct dirent *entry;
    DIR *folder = opendir("/proc");
    struct process process;

    look->count = look->found = 0;
    look->complete = true;
    if (!folder && !look->blind) {
        output_error("/proc cannot be read: %s; programs of the previous server are waited for as "
                     "far as they hold %s",
                     strerror(errno), look->options->path);
        look->blind = true;
    }
    while (folder && look->complete && (entry = readdir(folder)) != NULL) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

        if (pid <= 0 || pid == getpid() || !stat_read(pid, &process))
            continue;
        process.marked = has_mark(pid, look->options->mark);
        process.ours = process.marked || (!look->locked && has_file(pid, &look->file));
        look->complete = process_add(look, &process);
    }
    if (folder)
        closedir(folder);
    spread_groups(look);
    for (size_t i = 0; i < look->count; i++)
        look->found += look->processes[i].ours;
}

/* --- ending -------------------------------------------------------------------------------- */

/* False: the signal may not be sent. */
static bool signal_one(const struct process *process, int number)
{
    int fd = (int)syscall(SYS_pidfd_open, process->pid, 0), error = 0;
    struct process now;

    if (!stat_read(process->pid, &now) || now.start != process->start) {
        /* It has ended, whoever has its number now. */
    } else if (fd >= 0) {
        error = syscall(SYS_pidfd_send_signal, fd, number, NULL, 0) == 0 ? 0 : errno;
    } else {
        error = kill(process->pid, number) == 0 ? 0 : errno;
    }
    if (fd >= 0)
        close(fd);
    return error != EPERM;
}

static void signal_all(struct look *look, int number)
{
    for (size_t i = 0; i < look->count; i++) {
        const struct process *process = &look->processes[i];

        if (!process->ours || signal_one(process, number) || look->refused)
            continue;
        output_error("process %d of the previous server may not be ended by this one; end it, or "
                     "wait",
                     (int)process->pid);
        look->refused = true;
    }
}

static void say(struct look *look, const char *what)
{
    char pids[SHOWN * 12 + 8] = "", *at = pids;
    size_t shown = 0;

    for (size_t i = 0; i < look->count && shown < SHOWN; i++) {
        if (look->processes[i].ours)
            at += sprintf(at, "%s%d", shown++ ? ", " : "", (int)look->processes[i].pid);
    }
    if (look->found > shown)
        strcpy(at, ", ...");
    if (look->found > 0)
        output_note("%zu program%s of the previous server still run%s (process %s); %s",
                    look->found, look->found == 1 ? "" : "s", look->found == 1 ? "s" : "", pids,
                    what);
    else
        output_note("%s is held by a program of the previous server that cannot be seen from here; "
                    "waiting for it",
                    look->options->path);
    look->said_at = clock_now();
}

static void say_again(struct look *look)
{
    if (!look->said_at || clock_now() - look->said_at >= SAY_NS)
        say(look, "waiting for their end");
}

/* One round of ending those that were found. */
static void press(struct look *look)
{
    int64_t grace_ns = look->options->grace_ns, now = clock_now();
    char grace[32], what[80];

    if (look->options->wait || look->found == 0) {
        say_again(look);
    } else if (!look->termed_at) {
        snprintf(what, sizeof what, "SIGTERM, and SIGKILL after %s",
                 duration_format(grace_ns, grace, sizeof grace));
        say(look, what);
        signal_all(look, SIGTERM);
        look->termed_at = now;
    } else if (now - look->termed_at >= grace_ns) {
        if (!look->killed)
            say(look, "SIGKILL");
        look->killed = true;
        signal_all(look, SIGKILL);
        say_again(look);
    } else {
        say_again(look);
    }
}

/* False: the lock cannot be had at all (errno). */
static bool wait_for_all(struct look *look)
{
    const struct timespec pause = { 0, PAUSE_NS };
    int64_t begin = clock_now();
    unsigned clear = 0;
    char text[32];

    while (clear < 2) {
        if (!look->locked)
            look->locked = flock(look->fd, LOCK_EX | LOCK_NB) == 0;
        if (!look->locked && errno != EWOULDBLOCK && errno != EINTR)
            return false;
        look_around(look);
        clear = look->locked && look->complete && look->found == 0 ? clear + 1 : 0;
        if (clear == 0) {
            press(look);
            nanosleep(&pause, NULL);
        }
    }
    if (look->said_at)
        output_note("the programs of the previous server have ended, after %s",
                    duration_format(clock_now() - begin, text, sizeof text));
    return true;
}

/* --- the file ------------------------------------------------------------------------------ */

/* The file, opened above ORPHANS_FD; -1: errno. */
static int file_open(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), higher, error;

    if (fd < 0 || fd > ORPHANS_FD)
        return fd;
    higher = fcntl(fd, F_DUPFD_CLOEXEC, ORPHANS_FD + 1);
    error = errno;
    close(fd);
    errno = error;
    return higher;
}

int orphans_end(const struct orphans_options *options)
{
    struct look look = { .options = options, .fd = file_open(options->path) };
    struct stat inherited;

    if (look.fd < 0 || fstat(look.fd, &look.file) != 0) {
        output_error("%s: %s", options->path, strerror(errno));
        if (look.fd >= 0)
            close(look.fd);
        return -1;
    }
    /* A program of the previous server started this one: we would wait for ourselves. */
    if (fstat(ORPHANS_FD, &inherited) == 0 && inherited.st_dev == look.file.st_dev &&
        inherited.st_ino == look.file.st_ino)
        close(ORPHANS_FD);
    if (!wait_for_all(&look)) {
        output_error("%s cannot be locked: %s", options->path, strerror(errno));
        close(look.fd);
        look.fd = -1;
    }
    free(look.processes);
    return look.fd;
}
