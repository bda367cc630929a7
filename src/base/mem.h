/* SPDX-License-Identifier: MIT */
/* mem.h - memory as an argument: pure code allocates only through one of these. */
#ifndef SML_BASE_MEM_H
#define SML_BASE_MEM_H

#include <stddef.h>

struct sml_mem {
    void *(*alloc)(void *user, size_t bytes);   /* NULL when there is none */
    void (*release)(void *user, void *pointer); /* NULL is fine */
    void *user;
};

static inline void *sml_alloc(const struct sml_mem *mem, size_t bytes)
{
    return mem->alloc(mem->user, bytes);
}

static inline void sml_release(const struct sml_mem *mem, void *pointer)
{
    mem->release(mem->user, pointer);
}

/* Random bytes as an argument. They must be fit for secrets. */
struct sml_entropy {
    void (*fill)(void *user, void *out, size_t bytes);
    void *user;
};

/* malloc and free. */
extern const struct sml_mem sml_mem_libc;

#endif
