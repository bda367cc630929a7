/* SPDX-License-Identifier: MIT */
/* ledger.h - what the demo's programs share: append-only ledgers, hashes, names of calls.
 *
 * A ledger is a text file, one event to a line, each line written by a single write to a file
 * opened to append: lines of several threads stay whole, and what was written stays written.
 *
 *   server   R CALL METHOD SIZE HASH V|F CODE REPLY_SIZE REPLY_HASH KEY   before it replies
 *   client   S CALL METHOD SIZE HASH                                      before it calls
 *            D CALL V|F|N|U CODE REPLY_SIZE REPLY_HASH                     when the call has ended
 *
 * CALL is CLIENT.THREAD.NUMBER, sizes and codes are decimal, hashes hexadecimal. A failure's
 * reply is its text. V value, F failure, N not executed, U unknown. */
#ifndef DEMO_LEDGER_H
#define DEMO_LEDGER_H

#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEDGER_LINE 512

static inline int ledger_open(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);

    if (fd < 0) {
        perror(path);
        exit(1);
    }
    return fd;
}

/* Append a line; a program whose ledger cannot be written has nothing more to say. */
__attribute__((format(printf, 2, 3))) static inline void ledger_line(int fd, const char *format,
                                                                     ...)
{
    char line[LEDGER_LINE];
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (length < 0 || length >= LEDGER_LINE || write(fd, line, (size_t)length) != length) {
        fprintf(stderr, "demo: cannot write a ledger\n");
        abort();
    }
}

static inline uint64_t ledger_mix(uint64_t value)
{
    value = (value ^ value >> 32) * UINT64_C(0xd6e8feb86659fd93);
    value = (value ^ value >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return value ^ value >> 32;
}

/* Not cryptographic: it only has to notice that bytes differ. */
static inline uint64_t ledger_hash(const void *data, size_t size)
{
    const char *at = data;
    uint64_t hash = ledger_mix(size + 1), word;

    for (; size >= 8; size -= 8, at += 8) {
        memcpy(&word, at, 8);
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    word = 0;
    if (size)
        memcpy(&word, at, size);
    return ledger_mix(hash ^ word);
}

#endif
