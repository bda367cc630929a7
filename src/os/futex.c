/* SPDX-License-Identifier: MIT */
#include "os/futex.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "os/clock.h"

enum sml_futex_result sml_futex_wait(_Atomic uint32_t *word, uint32_t expected,
                                     uint64_t deadline_ns)
{
    struct timespec deadline = sml_clock_timespec(deadline_ns);
    long result;

    /* FUTEX_WAIT takes a span, FUTEX_WAIT_BITSET an absolute monotonic time. */
    result = syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected,
                     deadline_ns == SML_NEVER ? NULL : &deadline, NULL, FUTEX_BITSET_MATCH_ANY);
    if (result == 0)
        return SML_FUTEX_WOKEN;
    if (errno == EAGAIN)
        return SML_FUTEX_CHANGED;
    if (errno == ETIMEDOUT)
        return SML_FUTEX_TIMED_OUT;
    SML_ASSERT(errno == EINTR);
    return SML_FUTEX_WOKEN;
}

void sml_futex_wake(_Atomic uint32_t *word, int count)
{
    (void)syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count, NULL, NULL,
                  0);
}
