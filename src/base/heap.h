/* SPDX-License-Identifier: MIT */
/* heap.h - intrusive pairing heap of times: the earliest first, no allocation.
 *
 * Insert and peek are O(1), removal (of any node) O(log n) amortised. Deadlines mostly arrive in
 * rising order and leave in about the same order; a pairing heap is at its best there.
 * Source: Fredman, Sedgewick, Sleator, Tarjan, "The pairing heap", Algorithmica 1, 1986. */
#ifndef SML_BASE_HEAP_H
#define SML_BASE_HEAP_H

#include <stdbool.h>
#include <stdint.h>

struct sml_heap_node {
    struct sml_heap_node *child, *next,
        *prev; /* prev: left sibling, or the parent for a first child */
    uint64_t key;
    bool in_heap;
};

struct sml_heap {
    struct sml_heap_node *root;
};

void sml_heap_init(struct sml_heap *heap);
void sml_heap_node_init(struct sml_heap_node *node);

/* `node` must be out; it comes in with `key`. */
void sml_heap_insert(struct sml_heap *heap, struct sml_heap_node *node, uint64_t key);

/* Harmless on a node that is out. */
void sml_heap_remove(struct sml_heap *heap, struct sml_heap_node *node);

/* The node with the smallest key, still inside; NULL from an empty heap. */
static inline struct sml_heap_node *sml_heap_min(const struct sml_heap *heap)
{
    return heap->root;
}

/* The smallest key; UINT64_MAX from an empty heap. */
static inline uint64_t sml_heap_min_key(const struct sml_heap *heap)
{
    return heap->root ? heap->root->key : UINT64_MAX;
}

#endif
