/* SPDX-License-Identifier: MIT */
/* check.h - internal misuse aborts, also in release builds; what a peer or the system does never
 * reaches one of these. */
#ifndef SML_BASE_CHECK_H
#define SML_BASE_CHECK_H

#include "base/compiler.h"

/* The single hook that pure code calls when an invariant is broken; it does not return. */
SML_NORETURN void sml_check_failed(const char *what, const char *file, int line);

#define SML_ASSERT(x)                                                                              \
    do {                                                                                           \
        if (SML_UNLIKELY(!(x)))                                                                    \
            sml_check_failed(#x, __FILE__, __LINE__);                                              \
    } while (0)

#endif
