/* SPDX-License-Identifier: MIT */
/* lockfile.c - a lock on an open file that only a mapping keeps open.
 *
 * The kernel has two kinds of locks on files. Those of fcntl's F_SETLK belong to a process, but are
 * lost as soon as anybody in it closes any descriptor of that file, and two of them in one process
 * do not exclude each other. Those of F_OFD_SETLK and flock belong to an open file, but a forked
 * child has that too: if the holder dies and a child of it lives on, nobody ever gets the lock.
 *
 * So: lock the open file, map it with MADV_DONTFORK, and close the descriptor. The mapping alone
 * keeps the file open now. No child inherits it, no descriptor can be closed by mistake, and it
 * ends with the process or with an exec of it. (A child forked by another thread in the instant
 * between open and close has the descriptor until it calls exec or ends.)
 *
 * Locks that begin at byte 0 exclude each other whatever their length; the length is the holder's
 * process id, and F_OFD_GETLK tells it. So who holds the lock is never out of date.
 *
 * The end of an open file that could be written to is seen by inotify (IN_CLOSE_WRITE), whatever
 * ended it. Those who wait look first through a descriptor for reading, which rings nobody: only
 * who sees the lock free opens it for writing, so that there is no storm of waiters that wake each
 * other. The bell rings a moment before the lock is gone, so one has to look again soon after
 * it.
 *
 * Rejected: a symbolic link that names the owner (stale ones have to be found out: process ids are
 * used again, and of two that put the same one aside the second removes the lock of the first). */
#include "os/lockfile.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/time.h"
#include "os/clock.h"
#include "os/error.h"

#define REPLACED_MAX 16 /* so often another file stands at the path when ours is locked */

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static enum semel_status open_file(const char *path, int flags, int *out_fd)
{
    struct stat is;
    int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
    enum semel_status status = SEMEL_OK;

    if (fd < 0)
        return sml_error_status(errno);
    if (fstat(fd, &is) != 0)
        status = sml_error_status(errno);
    else if (!S_ISREG(is.st_mode))
        status = SEMEL_INVALID;
    if (status != SEMEL_OK)
        (void)close(fd);
    else
        *out_fd = fd;
    return status;
}

/* For writing. O_CREAT only where it is needed: Linux may refuse it for files of others that are
 * there, in directories like /tmp. */
static enum semel_status open_or_make(const char *path, int *out_fd)
{
    if (access(path, F_OK) == 0)
        return open_file(path, O_RDWR, out_fd);
    return open_file(path, O_RDWR | O_CREAT, out_fd);
}

enum semel_status sml_lockfile_make(const char *path)
{
    int fd = -1;
    enum semel_status status = open_or_make(path, &fd);

    if (status == SEMEL_OK)
        (void)close(fd);
    return status;
}

int64_t sml_lockfile_holder(const char *path)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
    int64_t holder = -1;
    int fd = -1;

    if (open_file(path, O_RDONLY, &fd) != SEMEL_OK)
        return -1;
    if (fcntl(fd, F_OFD_GETLK, &lock) == 0) {
        if (lock.l_type == F_UNLCK)
            holder = 0;
        else if (lock.l_start == 0 && lock.l_len > 0)
            holder = (int64_t)lock.l_len;
    }
    (void)close(fd);
    return holder;
}

/* Is the file that fd has open still the one at the path? */
static bool is_at(int fd, const char *path)
{
    struct stat ours, there;

    return fstat(fd, &ours) == 0 && lstat(path, &there) == 0 && ours.st_dev == there.st_dev &&
           ours.st_ino == there.st_ino;
}

static enum semel_status keep_mapped(struct sml_lockfile *lock, int fd)
{
    void *hold = mmap(NULL, page_bytes(), PROT_NONE, MAP_SHARED, fd, 0);

    if (hold == MAP_FAILED)
        return sml_error_status(errno);
    if (madvise(hold, page_bytes(), MADV_DONTFORK) != 0) {
        enum semel_status status = sml_error_status(errno);

        (void)munmap(hold, page_bytes());
        return status;
    }
    lock->hold = hold;
    return SEMEL_OK;
}

/* One try. *out_replaced: the lock was of a file that is no longer there. */
static enum semel_status take_once(struct sml_lockfile *lock, const char *path, bool *out_replaced)
{
    struct flock want = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = (off_t)getpid()
    };
    int fd = -1;
    enum semel_status status = open_or_make(path, &fd);

    if (status != SEMEL_OK)
        return status;
    if (fcntl(fd, F_OFD_SETLK, &want) != 0)
        status = errno == EAGAIN || errno == EACCES ? SEMEL_OVERLOADED : sml_error_status(errno);
    else if (!is_at(fd, path))
        *out_replaced = true;
    else
        status = keep_mapped(lock, fd);
    (void)close(fd);
    return status;
}

enum semel_status sml_lockfile_take(struct sml_lockfile *lock, const char *path)
{
    for (int tries = 0; tries < REPLACED_MAX; tries++) {
        bool replaced = false;
        enum semel_status status;

        if (sml_lockfile_holder(path) > 0)
            return SEMEL_OVERLOADED;
        status = take_once(lock, path, &replaced);
        if (!replaced)
            return status;
    }
    return SEMEL_OVERLOADED;
}

void sml_lockfile_release(struct sml_lockfile *lock)
{
    (void)munmap(lock->hold, page_bytes());
    lock->hold = NULL;
}

int sml_lockfile_watch(const char *path)
{
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

    if (fd >= 0 && inotify_add_watch(fd, path, IN_CLOSE_WRITE) < 0) {
        (void)close(fd);
        fd = -1;
    }
    return fd;
}

void sml_lockfile_watch_drain(int fd)
{
    char events[1024] __attribute__((aligned(__alignof__(struct inotify_event))));

    while (read(fd, events, sizeof events) > 0)
        ;
}

void sml_lockfile_watch_close(int fd)
{
    if (fd >= 0)
        (void)close(fd);
}

bool sml_lockfile_watch_wait(int fd, uint64_t ns)
{
    struct pollfd set = { .fd = fd, .events = POLLIN };
    struct timespec most = sml_clock_timespec(ns);

    if (ppoll(&set, 1, &most, NULL) <= 0)
        return false;
    sml_lockfile_watch_drain(fd);
    return true;
}
