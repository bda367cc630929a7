/* SPDX-License-Identifier: MIT */
/* list.h - intrusive doubly linked list with a head. Every operation is O(1).
 *
 * A node is either in one list or "out": linked to itself. sml_list_init makes a head empty and a
 * node out; sml_list_remove leaves the node out and is harmless on one that is out already. */
#ifndef SML_BASE_LIST_H
#define SML_BASE_LIST_H

#include <stdbool.h>

#include "base/compiler.h"

struct sml_list {
    struct sml_list *next, *prev;
};

static inline void sml_list_init(struct sml_list *node)
{
    node->next = node->prev = node;
}

static inline bool sml_list_empty(const struct sml_list *head)
{
    return head->next == head;
}

static inline bool sml_list_linked(const struct sml_list *node)
{
    return node->next != node;
}

static inline void sml_list_insert_before(struct sml_list *at, struct sml_list *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}

static inline void sml_list_push_back(struct sml_list *head, struct sml_list *node)
{
    sml_list_insert_before(head, node);
}

static inline void sml_list_push_front(struct sml_list *head, struct sml_list *node)
{
    sml_list_insert_before(head->next, node);
}

static inline void sml_list_remove(struct sml_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    sml_list_init(node);
}

/* The first node, removed; NULL from an empty list. */
static inline struct sml_list *sml_list_pop_front(struct sml_list *head)
{
    struct sml_list *node = head->next;

    if (node == head)
        return NULL;
    sml_list_remove(node);
    return node;
}

/* Everything in `from` moves to the end of `to`. */
static inline void sml_list_move_all(struct sml_list *to, struct sml_list *from)
{
    if (sml_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    sml_list_init(from);
}

#endif
