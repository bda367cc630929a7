/* SPDX-License-Identifier: MIT */
/* given.h - memory that the application gave away with an item, and gets back when its parts are
 * needed no more.
 *
 * That comes about under the lock of a machine, where no callback may run: so it is written down,
 * and whoever has no lock next tells the application. */
#ifndef SML_RPC_GIVEN_H
#define SML_RPC_GIVEN_H

#include <semel/stream.h>

#include "os/mutex.h"
#include "session/stream.h"

struct sml_returns {
    struct sml_mutex lock;
    struct sml_list list; /* what is to be given back; lock, the last of all */
    _Atomic bool any;
    void (*told)(struct sml_returns *returns); /* there is something, perhaps under the machine's
                                                  lock; NULL: it will be looked at */
};

void sml_returns_init(struct sml_returns *returns, void (*told)(struct sml_returns *returns));
/* No part is left. */
void sml_returns_fini(struct sml_returns *returns);

static inline bool sml_returns_any(struct sml_returns *returns)
{
    return atomic_load_explicit(&returns->any, memory_order_relaxed);
}

/* Give everything back. No locks. */
void sml_returns_run(struct sml_returns *returns);

struct sml_given;

/* Cut an item into parts, as sml_item_cut, that lie where it is. Until sml_given_accept was called
 * the application still has it. NULL: no memory, and no parts. */
struct sml_given *sml_given_cut(struct semel_bytes item, semel_release_fn release, void *user,
                                struct sml_returns *returns, struct sml_list *out);
/* Its parts are about to be added; under the machine's lock. */
void sml_given_accept(struct sml_given *given);

#endif
