/* SPDX-License-Identifier: MIT */
/* random.h - random bytes fit for secrets.
 *
 * The kernel is asked for every byte. Should it refuse later on (a sandbox that closed after the
 * start), bytes are derived from the seed taken at the start: a source that was opened never
 * fails and never aborts. */
#ifndef SML_OS_RANDOM_H
#define SML_OS_RANDOM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <semel/status.h>

#include "base/compiler.h"
#include "base/mem.h"

struct sml_random { /* stays where it is while an entropy made from it is in use */
    uint8_t seed[32];
    _Atomic uint64_t counter; /* of derived blocks */
};

/* Returns OK; SYSTEM when the kernel gives no random bytes. */
enum semel_status sml_random_init(struct sml_random *random) SML_MUST_USE;
void sml_random_fini(struct sml_random *random); /* forgets the seed */

/* Any thread. */
void sml_random_fill(struct sml_random *random, void *out, size_t bytes);

/* As an argument for pure code. */
struct sml_entropy sml_random_entropy(struct sml_random *random);

#endif
