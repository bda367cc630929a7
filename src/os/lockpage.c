/* SPDX-License-Identifier: MIT */
#include "os/lockpage.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/le.h"

static enum semel_status fail(struct sml_lockpage *lock, const char *path, int error,
                              struct sml_reason *reason)
{
    enum semel_status status =
        error == ENOSPC || error == EDQUOT ? SEMEL_STORE_FULL : sml_error_status(error);

    sml_lockpage_discard(lock, path);
    return sml_reason_set(reason, status, "%s: %s", path, sml_error_text(error));
}

static enum semel_status held(struct sml_lockpage *lock, const char *path, uint32_t *out_holder,
                              struct sml_reason *reason)
{
    uint8_t head[SML_LOCKPAGE_HEAD] = { 0 };

    *out_holder = 0;
    if (pread(lock->fd, head, sizeof head, 0) == (ssize_t)sizeof head)
        *out_holder = (uint32_t)sml_load64(head);
    sml_lockpage_close(lock);
    return sml_reason_set(reason, SEMEL_ADDRESS_IN_USE, "%s: held by process %u", path,
                          (unsigned)*out_holder);
}

/* Whether it was there is known of each opening. */
static int open_or_make(const char *path, bool *out_made)
{
    const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
    int fd;

    do {
        *out_made = false;
        fd = open(path, flags);
        if (fd >= 0 || errno != ENOENT)
            return fd;
        fd = open(path, flags | O_CREAT | O_EXCL, 0600);
        *out_made = fd >= 0;
    } while (fd < 0 && errno == EEXIST);
    return fd;
}

/* Whoever made the file removed it after we had opened it: a lock on it keeps nobody out. */
static bool is_removed(int fd)
{
    struct stat is;

    return fstat(fd, &is) == 0 && is.st_nlink == 0;
}

enum semel_status sml_lockpage_open(struct sml_lockpage *lock, const char *path,
                                    uint32_t *out_holder, struct sml_reason *reason)
{
    void *page;

    lock->page = NULL;
    lock->fd = open_or_make(path, &lock->made);
    if (lock->fd < 0)
        return fail(lock, path, errno, reason);
    while (flock(lock->fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return held(lock, path, out_holder, reason);
        if (errno != EINTR)
            return fail(lock, path, errno, reason);
    }
    if (is_removed(lock->fd)) {
        sml_lockpage_close(lock);
        return sml_lockpage_open(lock, path, out_holder, reason);
    }
    /* Its blocks are there before it is mapped: a full disk is an error here, not a signal
     * later. */
    int error = posix_fallocate(lock->fd, 0, SML_LOCKPAGE_BYTES);

    if (error != 0)
        return fail(lock, path, error, reason);
    page = mmap(NULL, SML_LOCKPAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, lock->fd, 0);
    if (page == MAP_FAILED)
        return fail(lock, path, errno, reason);
    lock->page = page;
    sml_store64(lock->page, (uint64_t)getpid());
    return SEMEL_OK;
}

void sml_lockpage_discard(struct sml_lockpage *lock, const char *path)
{
    if (lock->fd >= 0 && lock->made)
        (void)unlink(path);
    sml_lockpage_close(lock);
}

/* A lock lives as long as anybody has the descriptor, and a fork without exec inherits it. */
void sml_lockpage_say_held(uint32_t holder, const char *remedy, char *out, size_t room)
{
    if (holder > 0 && kill((pid_t)holder, 0) != 0 && errno == ESRCH)
        snprintf(out, room,
                 "process %u, which had it, is dead, but a process that it forked still has it; "
                 "end that one first",
                 (unsigned)holder);
    else
        snprintf(out, room, "in use by process %u; %s", (unsigned)holder, remedy);
}

void sml_lockpage_close(struct sml_lockpage *lock)
{
    if (lock->page)
        (void)munmap(lock->page, SML_LOCKPAGE_BYTES);
    if (lock->fd >= 0)
        (void)close(lock->fd);
    lock->page = NULL;
    lock->fd = -1;
}

static int hex_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void sml_boot_id(uint8_t out[16])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    char text[64] = "";
    size_t digits = 0;

    memset(out, 0, 16);
    if (fd < 0)
        return;
    if (read(fd, text, sizeof text - 1) < 0)
        text[0] = '\0';
    (void)close(fd);
    for (const char *at = text; *at && digits < 32; at++) {
        if (hex_of(*at) < 0)
            continue;
        out[digits / 2] |= (uint8_t)(hex_of(*at) << (digits % 2 ? 0 : 4));
        digits++;
    }
    if (digits < 32)
        memset(out, 0, 16);
}
