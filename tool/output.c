/* SPDX-License-Identifier: MIT */
#include "output.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "json.h"

/* Set while the arguments are read, before any other thread exists. */
static struct {
    const char *name;
    int level; /* -1 quiet, 0, 1 verbose, 2 everything */
    bool json, colour, terminal;
} out = { "semel", 0, false, false, false };

/* Keeps messages and the live line apart. */
static pthread_mutex_t line_lock = PTHREAD_MUTEX_INITIALIZER;
static bool line_drawn;

void output_init(const char *name)
{
    out.name = name;
    setvbuf(stderr, NULL, _IOLBF, BUFSIZ); /* a line is one write: others may share the pipe */
    out.terminal = isatty(STDERR_FILENO) == 1;
    out.colour = out.terminal;
}

bool output_option(int key, const char *arg, struct argp_state *state)
{
    switch (key) {
    case 'q':
        out.level = -1;
        return true;
    case 'v':
        out.level = out.level < 0 ? 1 : out.level + 1;
        return true;
    case 'o':
        if (strcmp(arg, "json") != 0 && strcmp(arg, "text") != 0)
            argp_error(state, "-o %s: unknown format; write -o json or -o text", arg);
        out.json = strcmp(arg, "json") == 0;
        return true;
    default:
        return false;
    }
}

bool output_json(void)
{
    return out.json;
}

bool output_quiet(void)
{
    return out.level < 0;
}

bool output_verbose(void)
{
    return out.level > 0;
}

bool output_live(void)
{
    return out.terminal && out.level >= 0;
}

/* C1 controls count, two bytes in UTF-8. */
void output_escaped(FILE *file, const void *data, size_t size)
{
    const unsigned char *at = data;

    for (size_t i = 0; i < size;) {
        size_t length = utf8_length(at + i, size - i);
        bool control = length == 0 || (length == 1 && (at[i] < 0x20 || at[i] == 0x7f)) ||
                       (length == 2 && at[i] == 0xc2 && at[i + 1] < 0xa0);

        if (control && at[i] == '\t') {
            fputc('\t', file);
        } else if (control) {
            fprintf(file, "\\x%02x", at[i]);
            length = 1;
        } else {
            fwrite(at + i, 1, length, file);
        }
        i += length;
    }
}

static void line_begin(void)
{
    pthread_mutex_lock(&line_lock);
    if (line_drawn)
        fputs("\r\033[K", stderr);
    line_drawn = false;
}

static void line_end(void)
{
    fflush(stderr);
    pthread_mutex_unlock(&line_lock);
}

static void message(const char *colour, const char *format, va_list args)
{
    char text[4096];

    vsnprintf(text, sizeof text, format, args);
    line_begin();
    fprintf(stderr, "%s: ", out.name);
    if (colour && out.colour)
        fputs(colour, stderr);
    output_escaped(stderr, text, strlen(text));
    if (colour && out.colour)
        fputs("\033[0m", stderr);
    fputc('\n', stderr);
    line_end();
}

void output_error(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    message("\033[31m", format, args);
    va_end(args);
}

void output_note(const char *format, ...)
{
    va_list args;

    if (out.level < 0)
        return;
    va_start(args, format);
    message(NULL, format, args);
    va_end(args);
}

void output_detail(const char *format, ...)
{
    va_list args;

    if (out.level < 1)
        return;
    va_start(args, format);
    message("\033[2m", format, args);
    va_end(args);
}

void output_quote(const void *data, size_t size)
{
    const unsigned char *at = data;

    if (out.level < 0 || size == 0)
        return;
    line_begin();
    while (size > 0) {
        const unsigned char *newline = memchr(at, '\n', size);
        size_t length = newline ? (size_t)(newline - at) : size;

        fputs("    ", stderr);
        output_escaped(stderr, at, length);
        fputc('\n', stderr);
        at += length + (newline != NULL);
        size -= length + (newline != NULL);
    }
    line_end();
}

void output_progress(const char *format, ...)
{
    va_list args;

    if (!output_live())
        return;
    line_begin();
    if (format) {
        va_start(args, format);
        vfprintf(stderr, format, args);
        va_end(args);
        line_drawn = true;
    }
    line_end();
}

void output_log(enum semel_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == SEMEL_LOG_ERROR)
        output_error("%s", text);
    else if (level == SEMEL_LOG_WARNING)
        output_note("%s", text);
    else if (level == SEMEL_LOG_INFO || out.level > 1)
        output_detail("%s", text);
}

void output_log_errors(enum semel_log_level level, const char *text, void *user)
{
    output_log(level == SEMEL_LOG_WARNING ? SEMEL_LOG_INFO : level, text, user);
}
