/* SPDX-License-Identifier: MIT */
/* process.h - is this still the process that made the handle?
 *
 * After a fork the child has a copy of every handle, none of the library's threads, and the
 * parent's connections: each public function must refuse there. The mark is a page that the
 * kernel wipes in a forked child, so that the check is one load; where such a page is not to be
 * had the process id is compared, which costs a system call. */
#ifndef SML_OS_PROCESS_H
#define SML_OS_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

struct sml_origin_page;

struct sml_origin {
    const volatile uint32_t *mark; /* NULL: compare ids */
    struct sml_origin_page *page;  /* where that is; one reference */
    int32_t pid;
};

/* Cannot fail. */
void sml_origin_init(struct sml_origin *origin);
/* As `other`, whose page it has too, and may outlive. In the process that made `other`. */
void sml_origin_share(struct sml_origin *origin, const struct sml_origin *other);
/* In the parent or in a child; once or more often. */
void sml_origin_fini(struct sml_origin *origin);

/* The process's effective user id: what others see of it at the other end of a unix socket. */
uint32_t sml_process_uid(void);

/* Was the program started with an argument that begins so? */
bool sml_process_has_argument(const char *beginning);

bool sml_origin_same_pid(const struct sml_origin *origin);

/* False in a process forked after sml_origin_init. Any thread, signal-safe. */
static inline bool sml_origin_is_mine(const struct sml_origin *origin)
{
    if (SML_LIKELY(origin->mark != NULL))
        return *origin->mark != 0;
    return sml_origin_same_pid(origin);
}

#endif
