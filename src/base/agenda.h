/* SPDX-License-Identifier: MIT */
/* agenda.h - intrusive queue of times that mostly come in rising order: the earliest first, no
 * allocation.
 *
 * Retentions and timeouts are mostly one constant added to a clock, so a time that is no earlier
 * than the last one goes to the end of a list, and only what comes out of order into a heap. A heap
 * alone would do; but a million rising times are a million siblings in a pairing heap, and the
 * first removal of its root walks over all of them. Here every step of the common case is O(1). */
#ifndef SML_BASE_AGENDA_H
#define SML_BASE_AGENDA_H

#include "base/heap.h"
#include "base/list.h"

struct sml_agenda_node {
    struct sml_list link;
    struct sml_heap_node heap; /* its key is the time, in both places */
};

struct sml_agenda {
    struct sml_list rising;
    struct sml_heap others;
};

static inline void sml_agenda_init(struct sml_agenda *agenda)
{
    sml_list_init(&agenda->rising);
    sml_heap_init(&agenda->others);
}

static inline void sml_agenda_node_init(struct sml_agenda_node *node)
{
    sml_list_init(&node->link);
    sml_heap_node_init(&node->heap);
}

static inline struct sml_agenda_node *sml_agenda_node_of(struct sml_list *link)
{
    return SML_CONTAINER(link, struct sml_agenda_node, link);
}

/* `node` must be out. */
static inline void sml_agenda_add(struct sml_agenda *agenda, struct sml_agenda_node *node,
                                  uint64_t at)
{
    if (!sml_list_empty(&agenda->rising) &&
        at < sml_agenda_node_of(agenda->rising.prev)->heap.key) {
        sml_heap_insert(&agenda->others, &node->heap, at);
        return;
    }
    node->heap.key = at;
    sml_list_push_back(&agenda->rising, &node->link);
}

/* Harmless on a node that is out. */
static inline void sml_agenda_remove(struct sml_agenda *agenda, struct sml_agenda_node *node)
{
    sml_list_remove(&node->link);
    sml_heap_remove(&agenda->others, &node->heap);
}

/* The earliest, still inside; NULL when there is none. */
static inline struct sml_agenda_node *sml_agenda_min(const struct sml_agenda *agenda)
{
    struct sml_agenda_node *first = NULL, *other = NULL;
    struct sml_heap_node *min = sml_heap_min(&agenda->others);

    if (!sml_list_empty(&agenda->rising))
        first = sml_agenda_node_of(agenda->rising.next);
    if (min)
        other = SML_CONTAINER(min, struct sml_agenda_node, heap);
    if (first == NULL || other == NULL)
        return first ? first : other;
    return other->heap.key < first->heap.key ? other : first;
}

/* Its time; UINT64_MAX when there is none. */
static inline uint64_t sml_agenda_min_key(const struct sml_agenda *agenda)
{
    const struct sml_agenda_node *min = sml_agenda_min(agenda);

    return min ? min->heap.key : UINT64_MAX;
}

#endif
