/* SPDX-License-Identifier: MIT */
/* The library never prints. The text of a broken invariant stays visible in this frame: volatile
 * locals survive optimisation, so a debugger or a core dump shows what failed and where. */
#include "base/check.h"

#include <stdlib.h>

void sml_check_failed(const char *what, const char *file, int line)
{
    const char *volatile failed = what;
    const char *volatile in = file;
    volatile int at = line;

    (void)failed;
    (void)in;
    (void)at;
    abort();
}
