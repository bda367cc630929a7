/* SPDX-License-Identifier: MIT */
/* place.c - where the demo works: its directory, and a short path for sockets. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "demo.h"
#include "output.h"
#include "tool.h"

#define PROGRAMS_NS INT64_C(5000000000)
#define PAUSE_NS 5000000

const char *demo_path(const struct demo *demo, const char *format, ...)
{
    static char paths[8][DEMO_PATH + 64];
    static unsigned at;
    char *path = paths[at++ % 8];
    size_t length = (size_t)snprintf(path, sizeof paths[0], "%s/", demo->dir);
    va_list args;

    va_start(args, format);
    vsnprintf(path + length, sizeof paths[0] - length, format, args);
    va_end(args);
    return path;
}

static bool is_empty(const char *path)
{
    DIR *folder = opendir(path);
    const struct dirent *entry;
    bool empty = folder != NULL;

    while (folder && empty && (entry = readdir(folder)) != NULL)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    if (folder)
        closedir(folder);
    return empty;
}

/* The directory that was asked for. Returns an exit code. */
static int make_kept(struct demo *demo)
{
    const char *keep = demo->options.keep;

    if (mkdir(keep, 0777) != 0 && errno != EEXIST) {
        output_error("--keep %s: %s", keep, strerror(errno));
        return TOOL_USAGE;
    }
    if (!is_empty(keep)) {
        output_error("--keep %s: it is no directory, or not empty", keep);
        return TOOL_USAGE;
    }
    if (!realpath(keep, demo->dir)) {
        output_error("--keep %s: %s", keep, strerror(errno));
        return TOOL_USAGE;
    }
    return TOOL_VALUE;
}

int place_open(struct demo *demo)
{
    const char *base = getenv("TMPDIR");
    int code = TOOL_VALUE;

    if (demo->options.keep)
        code = make_kept(demo);
    else if ((size_t)snprintf(demo->dir, sizeof demo->dir, "%s/semel-demo-XXXXXX",
                              base && *base ? base : "/tmp") >= sizeof demo->dir ||
             !mkdtemp(demo->dir))
        code = TOOL_FAILURE;
    if (code == TOOL_VALUE && strlen(demo->dir) < sizeof demo->sockets) {
        strcpy(demo->sockets, demo->dir);
    } else if (code == TOOL_VALUE) {
        strcpy(demo->sockets, "/tmp/semel-demo-XXXXXX");
        if (!mkdtemp(demo->sockets))
            code = TOOL_FAILURE;
    }
    if (code == TOOL_FAILURE)
        output_error("cannot make a temporary directory: %s", strerror(errno));
    return code;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)kind;
    (void)where;
    remove(path);
    return 0;
}

static void directory_remove(const char *path)
{
    if (*path)
        nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

bool place_close(const struct demo *demo, bool keep)
{
    if (strcmp(demo->sockets, demo->dir) != 0)
        directory_remove(demo->sockets);
    if (!keep)
        directory_remove(demo->dir);
    else if (!demo->options.keep)
        rmdir(demo->dir); /* nothing was written into it */
    return access(demo->dir, F_OK) == 0;
}

void place_await_programs(const struct demo *demo)
{
    int fd = open(demo_path(demo, "bank.db-semel-run"), O_RDONLY | O_CLOEXEC);
    const struct timespec pause = { 0, PAUSE_NS };
    int64_t until = clock_now() + PROGRAMS_NS;

    while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && clock_now() < until)
        nanosleep(&pause, NULL);
    if (fd >= 0)
        close(fd);
}
