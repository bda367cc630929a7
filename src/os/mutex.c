/* SPDX-License-Identifier: MIT */
#include "os/mutex.h"

#include <errno.h>

#include "os/clock.h"

void sml_cond_init(struct sml_cond *cond)
{
    pthread_condattr_t attributes;

    SML_ASSERT(pthread_condattr_init(&attributes) == 0);
    SML_ASSERT(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    SML_ASSERT(pthread_cond_init(&cond->cond, &attributes) == 0);
    (void)pthread_condattr_destroy(&attributes);
}

void sml_cond_fini(struct sml_cond *cond)
{
    SML_ASSERT(pthread_cond_destroy(&cond->cond) == 0);
}

void sml_cond_wait(struct sml_cond *cond, struct sml_mutex *mutex)
{
    sml_mutex_assert_held(mutex);
    sml_mutex_set_owner(mutex, false);
    SML_ASSERT(pthread_cond_wait(&cond->cond, &mutex->mutex) == 0);
    sml_mutex_set_owner(mutex, true);
}

bool sml_cond_wait_until(struct sml_cond *cond, struct sml_mutex *mutex, uint64_t deadline_ns)
{
    struct timespec deadline;
    int error;

    if (deadline_ns == SML_NEVER) {
        sml_cond_wait(cond, mutex);
        return true;
    }
    deadline = sml_clock_timespec(deadline_ns);
    sml_mutex_assert_held(mutex);
    sml_mutex_set_owner(mutex, false);
    error = pthread_cond_timedwait(&cond->cond, &mutex->mutex, &deadline);
    sml_mutex_set_owner(mutex, true);
    SML_ASSERT(error == 0 || error == ETIMEDOUT);
    return error == 0;
}
