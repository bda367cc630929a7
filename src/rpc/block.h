/* SPDX-License-Identifier: MIT */
/* block.h - memory of one size that parts of streams lie in, instead of being copied once more.
 *
 * A block is shared by whoever filled it and by the parts in it; the last one to let go gives it
 * back. Some are kept for the next who takes one: the system takes back what is freed and clears
 * what it gives out again, which costs as much as a copy. The parts may outlive the client or the
 * server whose blocks these are. Any thread. */
#ifndef SML_RPC_BLOCK_H
#define SML_RPC_BLOCK_H

#include <stdatomic.h>
#include <stdint.h>

#include "os/mutex.h"
#include "session/stream.h"

struct sml_blocks {
    /* Fixed at creation. */
    size_t bytes;      /* of each */
    uint32_t kept_max; /* free ones that are kept */
    uint32_t out_max;  /* in use at once */
    struct sml_mutex lock;
    /* lock, the last of all. */
    struct sml_block *kept;
    uint32_t kept_count, out;
    bool closed; /* the last block frees it */
};

struct sml_block {
    struct sml_backing backing; /* first; held by the thread that reads */
    struct sml_blocks *home;
    struct sml_block *next; /* of those kept; or the one to be read into after this one, which is
                                   there once a part of what was read is left in it */
    _Atomic uint32_t refs;
    uint8_t bytes[];
};

/* NULL: no memory. */
struct sml_blocks *sml_blocks_create(size_t bytes, uint32_t kept_max, uint32_t out_max);
/* No more are taken. NULL is fine. */
void sml_blocks_destroy(struct sml_blocks *blocks);

/* One block, shared: NULL when there is no memory, or too many are in use. */
struct sml_block *sml_block_take(struct sml_blocks *blocks);

/* NULL is fine. */
void sml_block_unref(struct sml_block *block);

/* Has nobody else a share in it? Then nobody else gets one. */
static inline bool sml_block_is_sole(const struct sml_block *block)
{
    return atomic_load_explicit(&block->refs, memory_order_acquire) == 1;
}

#endif
