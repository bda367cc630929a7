/* SPDX-License-Identifier: MIT */
/* kit.h - what the tests of os, io and the channels share. */
#ifndef TESTS_IO_KIT_H
#define TESTS_IO_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <unistd.h>

/* Open descriptors of this process. */
static inline int kit_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    assert_non_null(directory);
    while (readdir(directory))
        count++;
    (void)closedir(directory);
    return count - 3; /* ".", ".." and the directory itself */
}

/* A new empty directory below TMPDIR or /tmp, short enough for socket paths. */
static inline void kit_directory(char *out, size_t room)
{
    const char *base = getenv("TMPDIR");

    if (!base || strlen(base) > 40)
        base = "/tmp";
    assert_true(snprintf(out, room, "%s/semel-io-XXXXXX", base) < (int)room);
    assert_non_null(mkdtemp(out));
}

/* Names left in a directory. */
static inline int kit_entries(const char *path)
{
    DIR *directory = opendir(path);
    int count = 0;

    assert_non_null(directory);
    while (readdir(directory))
        count++;
    (void)closedir(directory);
    return count - 2;
}

#endif
