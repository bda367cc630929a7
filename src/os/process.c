/* SPDX-License-Identifier: MIT */
/* process.c - a page that does not survive a fork.
 *
 * Rejected: a counter bumped by pthread_atfork (process-wide state, and a handler that can never
 * be taken back when the library is unloaded); getpid each time (a system call on every call). */
#include "os/process.h"

#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

void sml_origin_init(struct sml_origin *origin)
{
    size_t bytes = page_bytes();
    uint32_t *page;

    origin->pid = (int32_t)getpid();
    origin->mark = NULL;
    page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return;
    if (madvise(page, bytes, MADV_WIPEONFORK) != 0) {
        (void)munmap(page, bytes);
        return;
    }
    *page = 1;
    origin->mark = page;
}

void sml_origin_fini(struct sml_origin *origin)
{
    if (origin->mark)
        (void)munmap((void *)(uintptr_t)origin->mark, page_bytes());
    origin->mark = NULL;
}

bool sml_origin_same_pid(const struct sml_origin *origin)
{
    return origin->pid == (int32_t)getpid();
}

uint32_t sml_process_uid(void)
{
    return (uint32_t)geteuid();
}
