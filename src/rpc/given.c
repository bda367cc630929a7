/* SPDX-License-Identifier: MIT */
/* given.c - memory that was given away, and its way back. */
#include "rpc/given.h"

#include <stdlib.h>

#include "base/check.h"
#include "rpc/item.h"

struct sml_given {
    struct sml_backing backing; /* first */
    _Atomic uint32_t refs;      /* parts, and whoever makes them */
    bool accepted;
    struct sml_returns *returns;
    struct sml_list link;
    struct semel_bytes item;
    semel_release_fn release;
    void *user;
};

void sml_returns_init(struct sml_returns *returns, void (*told)(struct sml_returns *returns))
{
    sml_mutex_init(&returns->lock);
    sml_list_init(&returns->list);
    atomic_init(&returns->any, false);
    returns->told = told;
}

void sml_returns_fini(struct sml_returns *returns)
{
    sml_returns_run(returns);
    sml_mutex_fini(&returns->lock);
}

void sml_returns_run(struct sml_returns *returns)
{
    struct sml_list list, *node;

    if (!sml_returns_any(returns))
        return;
    sml_list_init(&list);
    sml_mutex_lock(&returns->lock);
    atomic_store_explicit(&returns->any, false, memory_order_relaxed);
    sml_list_move_all(&list, &returns->list);
    sml_mutex_unlock(&returns->lock);
    while ((node = sml_list_pop_front(&list)) != NULL) {
        struct sml_given *given = SML_CONTAINER(node, struct sml_given, link);

        given->release(given->item, given->user);
        free(given);
    }
}

static bool hold(struct sml_backing *backing)
{
    struct sml_given *given = (struct sml_given *)backing;

    atomic_fetch_add_explicit(&given->refs, 1, memory_order_relaxed);
    return true;
}

static void release(struct sml_backing *backing)
{
    struct sml_given *given = (struct sml_given *)backing;
    struct sml_returns *returns = given->returns;

    if (atomic_fetch_sub_explicit(&given->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (!given->accepted) {
        free(given);
        return;
    }
    sml_mutex_lock(&returns->lock);
    sml_list_push_back(&returns->list, &given->link);
    atomic_store_explicit(&returns->any, true, memory_order_relaxed);
    sml_mutex_unlock(&returns->lock);
    if (returns->told)
        returns->told(returns);
}

static struct sml_part *make_part(struct sml_given *given, enum sml_part_kind kind,
                                  struct semel_bytes bytes)
{
    struct sml_part *part = sml_part_create_in(&sml_mem_libc, kind, bytes, &given->backing);

    if (part)
        (void)hold(&given->backing);
    return part;
}

struct sml_given *sml_given_cut(struct semel_bytes item, semel_release_fn release_fn, void *user,
                                struct sml_returns *returns, struct sml_list *out)
{
    struct sml_given *given = malloc(sizeof *given);
    const uint8_t *at = item.data;
    size_t left = item.size;
    bool whole;

    sml_list_init(out);
    if (given == NULL)
        return NULL;
    *given = (struct sml_given){ .backing = { hold, release },
                                 .returns = returns,
                                 .item = item,
                                 .release = release_fn,
                                 .user = user };
    atomic_init(&given->refs, 1);
    sml_list_init(&given->link);
    do {
        size_t bytes = left < SML_FRAGMENT_BYTES ? left : SML_FRAGMENT_BYTES;
        enum sml_part_kind kind = bytes < left ? SML_PART_PIECE : SML_PART_ITEM;
        struct sml_part *part = make_part(given, kind, semel_bytes(at, bytes));

        whole = part != NULL;
        if (whole)
            sml_list_push_back(out, &part->node);
        if (bytes > 0)
            at += bytes;
        left -= bytes;
    } while (whole && left > 0);
    if (!whole)
        sml_parts_free(out);
    release(&given->backing);
    return whole ? given : NULL;
}

void sml_given_accept(struct sml_given *given)
{
    SML_ASSERT(!given->accepted);
    given->accepted = true;
}
