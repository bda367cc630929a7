/* SPDX-License-Identifier: MIT */
/* block.c - memory of one size. */
#include "rpc/block.h"

#include <stdlib.h>

static bool hold(struct sml_backing *backing)
{
    struct sml_block *block = (struct sml_block *)backing;

    if (block->next == NULL)
        block->next = sml_block_take(block->home);
    if (block->next == NULL)
        return false;
    atomic_fetch_add_explicit(&block->refs, 1, memory_order_relaxed);
    return true;
}

static void release(struct sml_backing *backing)
{
    sml_block_unref((struct sml_block *)backing);
}

struct sml_blocks *sml_blocks_create(size_t bytes, uint32_t kept_max, uint32_t out_max)
{
    struct sml_blocks *blocks = calloc(1, sizeof *blocks);

    if (blocks == NULL)
        return NULL;
    blocks->bytes = bytes;
    blocks->kept_max = kept_max;
    blocks->out_max = out_max;
    sml_mutex_init(&blocks->lock);
    return blocks;
}

static void free_blocks(struct sml_blocks *blocks)
{
    sml_mutex_fini(&blocks->lock);
    free(blocks);
}

void sml_blocks_destroy(struct sml_blocks *blocks)
{
    struct sml_block *block;
    bool last;

    if (blocks == NULL)
        return;
    sml_mutex_lock(&blocks->lock);
    while ((block = blocks->kept) != NULL) {
        blocks->kept = block->next;
        free(block);
    }
    blocks->closed = true;
    blocks->kept_max = 0;
    last = blocks->out == 0;
    sml_mutex_unlock(&blocks->lock);
    if (last)
        free_blocks(blocks);
}

struct sml_block *sml_block_take(struct sml_blocks *blocks)
{
    struct sml_block *block;

    sml_mutex_lock(&blocks->lock);
    block = blocks->kept;
    if (blocks->out == blocks->out_max) {
        sml_mutex_unlock(&blocks->lock);
        return NULL;
    }
    blocks->out++;
    if (block) {
        blocks->kept = block->next;
        blocks->kept_count--;
    }
    sml_mutex_unlock(&blocks->lock);
    if (block == NULL)
        block = malloc(sizeof *block + blocks->bytes);
    if (block == NULL) {
        sml_mutex_lock(&blocks->lock);
        blocks->out--;
        sml_mutex_unlock(&blocks->lock);
        return NULL;
    }
    block->backing = (struct sml_backing){ hold, release };
    block->home = blocks;
    block->next = NULL;
    atomic_init(&block->refs, 1);
    return block;
}

void sml_block_unref(struct sml_block *block)
{
    struct sml_blocks *blocks;
    bool last;

    if (block == NULL || atomic_fetch_sub_explicit(&block->refs, 1, memory_order_acq_rel) != 1)
        return;
    blocks = block->home;
    sml_mutex_lock(&blocks->lock);
    blocks->out--;
    last = blocks->closed && blocks->out == 0;
    if (blocks->kept_count < blocks->kept_max) {
        block->next = blocks->kept;
        blocks->kept = block;
        blocks->kept_count++;
        block = NULL;
    }
    sml_mutex_unlock(&blocks->lock);
    free(block);
    if (last)
        free_blocks(blocks);
}
