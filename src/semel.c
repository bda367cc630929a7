/* SPDX-License-Identifier: MIT */
#include <semel/semel.h>

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

const char *semel_version(void)
{
    return TEXT(SEMEL_VERSION_MAJOR) "." TEXT(SEMEL_VERSION_MINOR) "." TEXT(SEMEL_VERSION_PATCH);
}
