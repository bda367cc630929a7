/* SPDX-License-Identifier: MIT */
#include "os/directory.h"

#include <sys/stat.h>
#include <unistd.h>

bool sml_directory_make(const char *path)
{
    return mkdir(path, 0700) == 0;
}

void sml_directory_remove(const char *path)
{
    (void)rmdir(path);
}
