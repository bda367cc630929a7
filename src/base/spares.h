/* SPDX-License-Identifier: MIT */
/* spares.h - blocks of one size that were given back, kept for whoever needs one next. They belong
 * to one thread. */
#ifndef SML_BASE_SPARES_H
#define SML_BASE_SPARES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/mem.h"

struct sml_spare {
    struct sml_spare *next;
};

/* Zero: none. */
struct sml_spares {
    struct sml_spare *first;
    uint32_t count;
};

/* The one that was kept last; NULL. */
static inline void *sml_spares_take(struct sml_spares *spares)
{
    struct sml_spare *spare = spares->first;

    if (spare) {
        spares->first = spare->next;
        spares->count--;
    }
    return spare;
}

/* The block is kept; false: there are `max` already. */
static inline bool sml_spares_keep(struct sml_spares *spares, uint32_t max, void *block)
{
    struct sml_spare *spare = block;

    if (spares->count >= max)
        return false;
    spare->next = spares->first;
    spares->first = spare;
    spares->count++;
    return true;
}

static inline void sml_spares_free(struct sml_spares *spares, const struct sml_mem *mem)
{
    void *block;

    while ((block = sml_spares_take(spares)) != NULL)
        sml_release(mem, block);
}

#endif
