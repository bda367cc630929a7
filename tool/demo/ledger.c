/* SPDX-License-Identifier: MIT */
#include "ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK 65536

static const char *const methods[] = { "transfer", "notify" };
static const char *const outcomes[] = { "value", "failure", "not-executed", "unknown" };

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* --- ids ------------------------------------------------------------------------------------- */

uint64_t ledger_id(unsigned client, unsigned thread, unsigned number)
{
    return (uint64_t)client << 48 | (uint64_t)thread << 32 | number;
}

unsigned ledger_client(uint64_t id)
{
    return (unsigned)(id >> 48);
}

unsigned ledger_thread(uint64_t id)
{
    return (unsigned)(id >> 32) & 0xffff;
}

unsigned ledger_number(uint64_t id)
{
    return (unsigned)id;
}

const char *ledger_id_text(uint64_t id, char text[LEDGER_ID])
{
    snprintf(text, LEDGER_ID, "%u.%u.%u", ledger_client(id), ledger_thread(id), ledger_number(id));
    return text;
}

bool ledger_id_parse(const char *text, uint64_t *out_id)
{
    unsigned client, thread, number;
    char again[LEDGER_ID];

    if (sscanf(text, "%u.%u.%u", &client, &thread, &number) != 3 || client > 0xffff ||
        thread > 0xffff)
        return false;
    *out_id = ledger_id(client, thread, number);
    return strcmp(ledger_id_text(*out_id, again), text) == 0;
}

/* --- writing --------------------------------------------------------------------------------- */

/* Where the last whole line ends. */
static off_t whole_lines(int fd, off_t size)
{
    char text[LEDGER_LINE];
    size_t room = size < LEDGER_LINE ? (size_t)size : LEDGER_LINE;
    off_t from = size - (off_t)room;

    if (pread(fd, text, room, from) != (ssize_t)room)
        return size;
    while (room > 0 && text[room - 1] != '\n')
        room--;
    return from + (off_t)room;
}

int ledger_open(const char *path)
{
    int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);

    if (fd >= 0 && size > 0 && whole_lines(fd, size) != size &&
        ftruncate(fd, whole_lines(fd, size)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

__attribute__((format(printf, 2, 3))) static void write_line(int fd, const char *format, ...)
{
    char line[LEDGER_LINE];
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (length < 0 || length >= LEDGER_LINE || write(fd, line, (size_t)length) != length) {
        fprintf(stderr, "semel demo: a ledger cannot be written: %s\n", strerror(errno));
        abort();
    }
}

void ledger_write_call(int fd, const struct ledger_call *call)
{
    char id[LEDGER_ID];

    write_line(fd, "call %s %s %u %u %u %" PRId64 "\n", ledger_id_text(call->id, id),
               methods[call->method], call->from, call->to, call->amount, call->at);
}

void ledger_write_reply(int fd, const struct ledger_reply *reply)
{
    char id[LEDGER_ID];

    write_line(fd, "reply %s %s %s %" PRId64 "\n", ledger_id_text(reply->id, id),
               outcomes[reply->outcome], reply->status, reply->at);
}

void ledger_write_kill(int fd, const struct ledger_kill *kill)
{
    write_line(fd, "kill %u %" PRId64 " %u\n", kill->number, kill->at, kill->started);
}

/* --- parsing --------------------------------------------------------------------------------- */

/* The index of `word`, or -1. */
static int find(const char *const *words, size_t count, const char *word)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(words[i], word) == 0)
            return (int)i;
    }
    return -1;
}

bool ledger_parse_call(const char *line, struct ledger_call *out)
{
    char id[LEDGER_ID], method[16];
    int end = -1, which;

    if (sscanf(line, "call %39s %15s %u %u %u %" SCNd64 "%n", id, method, &out->from, &out->to,
               &out->amount, &out->at, &end) != 6 ||
        line[end] != '\0')
        return false;
    which = find(methods, COUNT(methods), method);
    out->method = (enum ledger_method)which;
    return which >= 0 && ledger_id_parse(id, &out->id);
}

bool ledger_parse_reply(const char *line, struct ledger_reply *out)
{
    char id[LEDGER_ID], outcome[16];
    int end = -1, which;

    if (sscanf(line, "reply %39s %15s %31s %" SCNd64 "%n", id, outcome, out->status, &out->at,
               &end) != 4 ||
        line[end] != '\0')
        return false;
    which = find(outcomes, COUNT(outcomes), outcome);
    out->outcome = (enum ledger_outcome)which;
    return which >= 0 && ledger_id_parse(id, &out->id);
}

bool ledger_parse_kill(const char *line, struct ledger_kill *out)
{
    int end = -1;

    return sscanf(line, "kill %u %" SCNd64 " %u%n", &out->number, &out->at, &out->started, &end) ==
               3 &&
           line[end] == '\0';
}

bool ledger_parse_notice(const char *line, uint64_t *out_id, bool *out_end)
{
    *out_end = strncmp(line, "end ", 4) == 0;
    if (!*out_end && strncmp(line, "begin ", 6) != 0)
        return false;
    return ledger_id_parse(line + (*out_end ? 4 : 6), out_id);
}

/* --- reading --------------------------------------------------------------------------------- */

/* The whole lines of a chunk, which is changed. Returns how many bytes they have, or -1. */
static ssize_t walk(char *chunk, size_t size, struct ledger_tail *tail, ledger_line_fn fn,
                    void *user)
{
    char *line = chunk, *newline;

    while ((newline = memchr(line, '\n', (size_t)(chunk + size - line))) != NULL) {
        *newline = '\0';
        if (!fn(line, user))
            return -1;
        tail->at += newline + 1 - line;
        tail->lines++;
        line = newline + 1;
    }
    return line - chunk;
}

bool ledger_read(struct ledger_tail *tail, ledger_line_fn fn, void *user)
{
    int fd = open(tail->path, O_RDONLY | O_CLOEXEC), error;
    char *chunk = malloc(CHUNK);
    ssize_t got = 0, used = 0;

    if (fd < 0 || !chunk) {
        error = errno;
        free(chunk);
        if (fd >= 0)
            close(fd);
        errno = error;
        return fd < 0 && error == ENOENT;
    }
    do {
        got = pread(fd, chunk, CHUNK, tail->at);
        used = got > 0 ? walk(chunk, (size_t)got, tail, fn, user) : 0;
    } while (used > 0);
    error = used < 0 ? 0 : errno;
    free(chunk);
    close(fd);
    errno = error;
    return got >= 0 && used >= 0;
}
