/* SPDX-License-Identifier: MIT */
/* settings.h - what a search is told, inside the program that SPIN makes of the model: in the
 * environment, MODEL="CUTS=2 CRASHES=1 NO_GUARD_DEDUP". */
#include <stdlib.h>
#include <string.h>

/* Its number; without one, 1; where it is not named, `otherwise`. */
static int setting(const char *name, int otherwise)
{
    const char *at = getenv("MODEL");
    size_t bytes = strlen(name);

    while (at != NULL && *at != '\0') {
        if (strncmp(at, name, bytes) == 0 && strchr("= ", at[bytes]) != NULL)
            return at[bytes] == '=' ? atoi(at + bytes + 1) : 1;
        at = strchr(at, ' ');
        at += at != NULL;
    }
    return otherwise;
}
