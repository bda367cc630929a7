/* SPDX-License-Identifier: MIT */
/* directory.h - a directory of one's own, that nobody else may look into. */
#ifndef SML_OS_DIRECTORY_H
#define SML_OS_DIRECTORY_H

#include <stdbool.h>

/* It must not be there yet. False: errno says why. */
bool sml_directory_make(const char *path);
/* It must be empty; else it stays. */
void sml_directory_remove(const char *path);

#endif
