/* SPDX-License-Identifier: MIT */
/* mutex.h - mutual exclusion, and waiting for a condition on the monotonic clock.
 *
 * Not recursive. Builds without NDEBUG remember the owner, so that sml_mutex_assert_held can
 * check a function's requirement; the size is the same in both. */
#ifndef SML_OS_MUTEX_H
#define SML_OS_MUTEX_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"

struct sml_mutex {
    pthread_mutex_t mutex;
    _Atomic uintptr_t owner; /* 0: nobody; kept only without NDEBUG */
};

struct sml_cond {
    pthread_cond_t cond;
};

#ifdef NDEBUG
static inline void sml_mutex_set_owner(struct sml_mutex *mutex, bool mine)
{
    (void)mutex;
    (void)mine;
}

static inline void sml_mutex_assert_held(const struct sml_mutex *mutex)
{
    (void)mutex;
}
#else
static inline void sml_mutex_set_owner(struct sml_mutex *mutex, bool mine)
{
    atomic_store_explicit(&mutex->owner, mine ? (uintptr_t)pthread_self() : 0,
                          memory_order_relaxed);
}

/* Aborts unless the calling thread holds `mutex`. */
static inline void sml_mutex_assert_held(const struct sml_mutex *mutex)
{
    SML_ASSERT(atomic_load_explicit(&mutex->owner, memory_order_relaxed) ==
               (uintptr_t)pthread_self());
}
#endif

/* For one that is not created by a function. */
#define SML_MUTEX_INIT                                                                             \
    {                                                                                              \
        PTHREAD_MUTEX_INITIALIZER, 0                                                               \
    }

static inline void sml_mutex_init(struct sml_mutex *mutex)
{
    SML_ASSERT(pthread_mutex_init(&mutex->mutex, NULL) == 0);
    atomic_init(&mutex->owner, 0);
}

/* Nobody may hold it. */
static inline void sml_mutex_fini(struct sml_mutex *mutex)
{
    SML_ASSERT(pthread_mutex_destroy(&mutex->mutex) == 0);
}

static inline void sml_mutex_lock(struct sml_mutex *mutex)
{
    SML_ASSERT(pthread_mutex_lock(&mutex->mutex) == 0);
    sml_mutex_set_owner(mutex, true);
}

static inline bool sml_mutex_try_lock(struct sml_mutex *mutex)
{
    if (pthread_mutex_trylock(&mutex->mutex) != 0)
        return false;
    sml_mutex_set_owner(mutex, true);
    return true;
}

static inline void sml_mutex_unlock(struct sml_mutex *mutex)
{
    sml_mutex_set_owner(mutex, false);
    SML_ASSERT(pthread_mutex_unlock(&mutex->mutex) == 0);
}

void sml_cond_init(struct sml_cond *cond);
void sml_cond_fini(struct sml_cond *cond);

/* Release `mutex` (held), sleep until signalled (or spuriously), hold it again. */
void sml_cond_wait(struct sml_cond *cond, struct sml_mutex *mutex);

/* As sml_cond_wait, at latest until `deadline_ns` (absolute; SML_NEVER: no limit). False when the
 * deadline has passed. */
bool sml_cond_wait_until(struct sml_cond *cond, struct sml_mutex *mutex, uint64_t deadline_ns);

static inline void sml_cond_broadcast(struct sml_cond *cond)
{
    (void)pthread_cond_broadcast(&cond->cond);
}

#endif
