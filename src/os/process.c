/* SPDX-License-Identifier: MIT */
/* process.c - a page that does not survive a fork.
 *
 * Rejected: a counter bumped by pthread_atfork (process-wide state, and a handler that can never
 * be taken back when the library is unloaded); getpid each time (a system call on every call). */
#include "os/process.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The count is not in the page: a child has its own references to its own copy. */
struct sml_origin_page {
    uint32_t *mark;
    _Atomic uint32_t refs;
};

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* NULL: there is none to be had. */
static uint32_t *map(void)
{
    size_t bytes = page_bytes();
    uint32_t *mark = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (mark == MAP_FAILED)
        return NULL;
    if (madvise(mark, bytes, MADV_WIPEONFORK) != 0) {
        (void)munmap(mark, bytes);
        return NULL;
    }
    *mark = 1;
    return mark;
}

void sml_origin_init(struct sml_origin *origin)
{
    struct sml_origin_page *page = malloc(sizeof *page);

    *origin = (struct sml_origin){ .pid = (int32_t)getpid() };
    if (page == NULL)
        return;
    page->mark = map();
    if (page->mark == NULL) {
        free(page);
        return;
    }
    atomic_init(&page->refs, 1);
    origin->page = page;
    origin->mark = page->mark;
}

void sml_origin_share(struct sml_origin *origin, const struct sml_origin *other)
{
    *origin = *other;
    if (origin->page)
        atomic_fetch_add_explicit(&origin->page->refs, 1, memory_order_relaxed);
}

void sml_origin_fini(struct sml_origin *origin)
{
    struct sml_origin_page *page = origin->page;

    origin->page = NULL;
    origin->mark = NULL;
    if (page == NULL || atomic_fetch_sub_explicit(&page->refs, 1, memory_order_acq_rel) != 1)
        return;
    (void)munmap(page->mark, page_bytes());
    free(page);
}

bool sml_origin_same_pid(const struct sml_origin *origin)
{
    return origin->pid == (int32_t)getpid();
}

bool sml_process_has_argument(const char *beginning)
{
    FILE *file = fopen("/proc/self/cmdline", "re");
    char *argument = NULL;
    size_t room = 0;
    bool found = false;

    while (file && !found && getdelim(&argument, &room, '\0', file) > 0)
        found = strncmp(argument, beginning, strlen(beginning)) == 0;
    free(argument);
    if (file)
        (void)fclose(file);
    return found;
}

uint32_t sml_process_uid(void)
{
    return (uint32_t)geteuid();
}
