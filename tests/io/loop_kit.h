/* SPDX-License-Identifier: MIT */
/* loop_kit.h - what the tests of the loop share. */
#ifndef TESTS_IO_LOOP_KIT_H
#define TESTS_IO_LOOP_KIT_H

#include "io/kit.h"

#include <poll.h>
#include <stdatomic.h>
#include <semel/loop.h>

#include "os/bell.h"
#include "os/clock.h"
#include "os/thread.h"

#define ok(call) assert_int_equal((call), SEMEL_OK)

static inline struct semel_loop *loop_make(void)
{
    struct semel_loop *loop = NULL;

    ok(semel_loop_create(&loop, NULL));
    return loop;
}

/* Does the descriptor tell of work, within `ms`? */
static inline bool loop_tells_within(const struct semel_loop *loop, int ms)
{
    struct pollfd watched = { semel_loop_fd(loop), POLLIN, 0 };

    return poll(&watched, 1, ms) == 1;
}

static inline bool loop_tells(const struct semel_loop *loop)
{
    return loop_tells_within(loop, 0);
}

/* Dispatch as a host does until nothing is to be done. */
static inline void loop_settle(struct semel_loop *loop)
{
    while (loop_tells(loop))
        ok(semel_loop_dispatch(loop));
}

/* Dispatch as a host does until *counter is at least `wanted`. */
static inline void loop_until(struct semel_loop *loop, const int *counter, int wanted)
{
    while (*counter < wanted) {
        assert_true(loop_tells_within(loop, 60000));
        ok(semel_loop_dispatch(loop));
    }
}

/* For tests that are linked with --wrap=sml_bell_ring: rings that hang back, so that what may
 * happen between a post, or a stop, and its ring does happen. */
#define LOOP_KIT_SLOW_BELLS                                                                        \
    static _Atomic bool slow_bells;                                                                \
    void __real_sml_bell_ring(const struct sml_bell *bell);                                        \
    void __wrap_sml_bell_ring(const struct sml_bell *bell);                                        \
    void __wrap_sml_bell_ring(const struct sml_bell *bell)                                         \
    {                                                                                              \
        if (atomic_load(&slow_bells))                                                              \
            (void)usleep(1000);                                                                    \
        __real_sml_bell_ring(bell);                                                                \
    }                                                                                              \
    _Static_assert(1, "")

/* A callback that counts. */
static inline void count(void *counter)
{
    ++*(int *)counter;
}

/* A thread's; others may be inside for a moment. */
static inline void run_thread(void *loop)
{
    enum semel_status s;

    while ((s = semel_loop_run(loop)) == SEMEL_ALREADY)
        sml_thread_yield();
    ok(s);
}

#endif
