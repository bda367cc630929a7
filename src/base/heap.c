/* SPDX-License-Identifier: MIT */
/* Pairing heap. Each node's key is no greater than its children's; a node's children are a list
 * through `next`, whose first element's `prev` is the parent and every other's its left sibling,
 * so that any node can be cut out in O(1).
 *
 * Removing a node merges its children in the classic two passes: pairs from left to right, then
 * the pairs from right to left. Both are loops with a constant amount of stack: an ascending
 * sequence of inserts makes one node with a million children, and a heap of a million siblings is
 * an ordinary day for deadlines. Equal keys come out in no promised order. */
#include "base/heap.h"

#include <stddef.h>

#include "base/check.h"

void sml_heap_init(struct sml_heap *heap)
{
    heap->root = NULL;
}

void sml_heap_node_init(struct sml_heap_node *node)
{
    node->child = node->next = node->prev = NULL;
    node->key = 0;
    node->in_heap = false;
}

/* Two trees become one. Both roots are without siblings (`next` and `prev` NULL); so is the
 * result. Either may be NULL. */
static struct sml_heap_node *meld(struct sml_heap_node *a, struct sml_heap_node *b)
{
    if (!a)
        return b;
    if (!b)
        return a;
    if (b->key < a->key) {
        struct sml_heap_node *t = a;
        a = b;
        b = t;
    }
    b->next = a->child;
    if (b->next)
        b->next->prev = b;
    b->prev = a;
    a->child = b;
    return a;
}

/* Take the first tree off a sibling list. */
static struct sml_heap_node *shift(struct sml_heap_node **list)
{
    struct sml_heap_node *node = *list;

    if (!node)
        return NULL;
    *list = node->next;
    node->next = node->prev = NULL;
    return node;
}

/* A list of siblings becomes one tree. */
static struct sml_heap_node *meld_all(struct sml_heap_node *list)
{
    struct sml_heap_node *pairs = NULL; /* the last pair first */
    struct sml_heap_node *root = NULL;

    while (list) {
        struct sml_heap_node *first = shift(&list);
        struct sml_heap_node *pair = meld(first, shift(&list));

        pair->next = pairs;
        pairs = pair;
    }
    while (pairs)
        root = meld(root, shift(&pairs));
    return root;
}

void sml_heap_insert(struct sml_heap *heap, struct sml_heap_node *node, uint64_t key)
{
    SML_ASSERT(!node->in_heap);
    node->child = node->next = node->prev = NULL;
    node->key = key;
    node->in_heap = true;
    heap->root = meld(heap->root, node);
}

/* Unlink a node other than the root, with its subtree, from its siblings. */
static void cut(struct sml_heap_node *node)
{
    if (node->prev->child == node)
        node->prev->child = node->next;
    else
        node->prev->next = node->next;
    if (node->next)
        node->next->prev = node->prev;
    node->next = node->prev = NULL;
}

void sml_heap_remove(struct sml_heap *heap, struct sml_heap_node *node)
{
    if (!node->in_heap)
        return;
    SML_ASSERT(heap->root != NULL);
    if (node == heap->root) {
        heap->root = meld_all(node->child);
    } else {
        cut(node);
        heap->root = meld(heap->root, meld_all(node->child));
    }
    node->child = NULL;
    node->in_heap = false;
}
