/* SPDX-License-Identifier: MIT */
/* leftover.c - see leftover.h.
 *
 * A listener takes its lock before it makes its socket, and keeps it. So where the socket is there
 * and the lock is free, whoever listened is gone. In that order: while the socket is missing, one
 * that is about to listen must not find its lock taken by us. Such a name is never used again, so
 * nobody can come meanwhile, but for another one who sweeps, whom the lock keeps away. Everything
 * is reached from descriptors of directories, and no link is followed. */
#include "io/leftover.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIGITS 16

static bool is_named(const char *name, const char *prefix)
{
    size_t length = strlen(prefix);

    return strncmp(name, prefix, length) == 0 && strlen(name + length) == DIGITS &&
           strspn(name + length, "0123456789abcdef") == DIGITS;
}

static bool is_socket(int directory, const char *name)
{
    struct stat file;

    return fstatat(directory, name, &file, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(file.st_mode);
}

/* The lock of who listened at `socket`; -1: it is held, or not clear. */
static int take_lock(int directory, const char *socket, char *name, size_t room)
{
    struct stat file;
    int fd;

    if (!is_socket(directory, socket))
        return -1;
    (void)snprintf(name, room, "%s.lock", socket);
    fd = openat(directory, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0 &&
        (fstat(fd, &file) != 0 || !S_ISREG(file.st_mode) || flock(fd, LOCK_EX | LOCK_NB) != 0)) {
        (void)close(fd);
        fd = -1;
    }
    return fd;
}

static void sweep(int parent, const char *name, const char *const *sockets, uint32_t uid)
{
    int directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    struct stat file;
    char lock_name[64];
    int lock = -1;

    if (directory < 0)
        return;
    if (fstat(directory, &file) == 0 && file.st_uid == uid && (file.st_mode & 022) == 0)
        lock = take_lock(directory, sockets[0], lock_name, sizeof lock_name);
    if (lock >= 0) {
        for (size_t i = 0; sockets[i]; i++)
            if (is_socket(directory, sockets[i]))
                (void)unlinkat(directory, sockets[i], 0);
        (void)unlinkat(directory, lock_name, 0);
        (void)unlinkat(parent, name, AT_REMOVEDIR); /* if nothing else is in it */
        (void)close(lock);
    }
    (void)close(directory);
}

void sml_leftover_sweep(const char *parent, const char *prefix, const char *const *sockets,
                        uint32_t uid)
{
    DIR *all = opendir(parent);
    struct dirent *entry;

    while (all && (entry = readdir(all)) != NULL)
        if (is_named(entry->d_name, prefix))
            sweep(dirfd(all), entry->d_name, sockets, uid);
    if (all)
        (void)closedir(all);
}
