/* SPDX-License-Identifier: MIT */
#include "os/lockpage.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/le.h"

static enum semel_status fail(struct sml_lockpage *lock, const char *path, int error,
                              struct sml_reason *reason)
{
    enum semel_status status =
        error == ENOSPC || error == EDQUOT ? SEMEL_STORE_FULL : sml_error_status(error);

    sml_lockpage_close(lock);
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

enum semel_status sml_lockpage_open(struct sml_lockpage *lock, const char *path,
                                    uint32_t *out_holder, struct sml_reason *reason)
{
    void *page;

    lock->page = NULL;
    lock->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock->fd < 0)
        return fail(lock, path, errno, reason);
    while (flock(lock->fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return held(lock, path, out_holder, reason);
        if (errno != EINTR)
            return fail(lock, path, errno, reason);
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
