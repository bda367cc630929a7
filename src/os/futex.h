/* SPDX-License-Identifier: MIT */
/* futex.h - sleep while a word has a value; private to the process. */
#ifndef SML_OS_FUTEX_H
#define SML_OS_FUTEX_H

#include <stdatomic.h>
#include <stdint.h>

enum sml_futex_result {
    SML_FUTEX_WOKEN,   /* by sml_futex_wake, or spuriously: look at the word again */
    SML_FUTEX_CHANGED, /* the word did not have the expected value */
    SML_FUTEX_TIMED_OUT
};

/* Sleep while *word == expected, until woken or until `deadline_ns` (absolute; SML_NEVER: no
 * limit). The word itself must be read again with acquire order afterwards. */
enum sml_futex_result sml_futex_wait(_Atomic uint32_t *word, uint32_t expected,
                                     uint64_t deadline_ns);

/* Wake at most `count` sleepers. The word must have been changed before. */
void sml_futex_wake(_Atomic uint32_t *word, int count);

#endif
