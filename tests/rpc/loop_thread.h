/* SPDX-License-Identifier: MIT */
/* loop_thread.h - a loop that runs on a thread of its own. */
#ifndef SML_TESTS_LOOP_THREAD_H
#define SML_TESTS_LOOP_THREAD_H

#include <pthread.h>
#include <semel/loop.h>

#include "kit/kit.h"

struct loop_thread {
    struct semel_loop *loop;
    pthread_t thread;
};

static inline void *loop_thread_serve(void *user)
{
    struct loop_thread *it = user;

    return semel_loop_run(it->loop) == SEMEL_OK ? it : NULL;
}

static inline void loop_thread_signal(void *user)
{
    atomic_store((atomic_bool *)user, true);
}

static inline bool loop_thread_signalled(void *user)
{
    return atomic_load((atomic_bool *)user);
}

/* Do fn(user) on the loop's thread, and come back when it is done. */
struct loop_thread_job {
    struct semel_task task;
    void (*fn)(void *user);
    void *user;
    atomic_bool done;
};

static inline void loop_thread_do(void *user)
{
    struct loop_thread_job *job = user;

    job->fn(job->user);
    loop_thread_signal(&job->done);
}

static inline void loop_thread_on(struct loop_thread *it, void (*fn)(void *user), void *user)
{
    struct loop_thread_job job = { .fn = fn, .user = user };

    job.task = (struct semel_task)SEMEL_TASK_INIT(loop_thread_do, &job);
    assert_int_equal(semel_loop_post(it->loop, &job.task), SEMEL_OK);
    assert_true(kit_eventually(loop_thread_signalled, &job.done, 60));
}

static inline void loop_thread_nothing(void *user)
{
    (void)user;
}

/* The loop is another thread's when this returns. */
static inline void loop_thread_start(struct loop_thread *it,
                                     const struct semel_loop_options *options)
{
    assert_int_equal(semel_loop_create(&it->loop, options), SEMEL_OK);
    assert_int_equal(pthread_create(&it->thread, NULL, loop_thread_serve, it), 0);
    loop_thread_on(it, loop_thread_nothing, NULL);
}

/* Nothing of the loop may be left. */
static inline void loop_thread_end(struct loop_thread *it)
{
    void *ok;

    loop_thread_on(it, loop_thread_nothing, NULL); /* what was posted before is done */
    semel_loop_stop(it->loop);
    assert_int_equal(pthread_join(it->thread, &ok), 0);
    assert_non_null(ok);
    assert_int_equal(semel_loop_destroy(it->loop), SEMEL_OK);
}

#endif
