/* SPDX-License-Identifier: MIT */
#include "base/mem.h"

#include <stdlib.h>

static void *libc_alloc(void *user, size_t bytes)
{
    (void)user;
    return malloc(bytes);
}

static void libc_release(void *user, void *pointer)
{
    (void)user;
    free(pointer);
}

const struct sml_mem sml_mem_libc = { libc_alloc, libc_release, NULL };
